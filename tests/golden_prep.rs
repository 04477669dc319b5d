//! Golden values of what surrounds the networks: run-length code, submission, metrics, the
//! prediction rule; and the golden files' own rules (deterministic numbers, weights, inputs).

mod common;

use atrous::eval::metrics::{self, Confusion};
use atrous::predict::submission::{self, Entry, Runs};
use common::*;
use serde_json::Value;

/// `prep.json` of every variant.
fn preps() -> Vec<Value> {
    let files: Vec<_> = variants().iter().map(|folder| folder.join("prep/prep.json")).collect();
    let preps: Vec<Value> = files.iter().filter(|file| file.is_file()).map(json).collect();
    assert!(!preps.is_empty(), "none of {files:?} is there");
    preps
}

fn f32s(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|v| v as f32).collect()
}

fn u8s(value: &Value) -> Vec<u8> {
    numbers(value).into_iter().map(|v| v as u8).collect()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

#[track_caller]
fn assert_close(what: &str, got: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("{what}: no golden value"));
    assert!((got - expected).abs() <= 1e-6, "{what}: {got}, expected {expected}");
}

#[test]
fn golden_run_length_codes() {
    for prep in preps() {
        for case in items(&prep["rle"]) {
            let (mask, code) = (u8s(&case["mask"]), text(&case["rle"]));
            assert_eq!(Runs::of_mask(&mask).to_string(), code);
            assert_eq!(code.parse::<Runs>().unwrap().to_mask(mask.len()).unwrap(), mask);
        }
    }
}

#[test]
fn golden_submission_is_the_same_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("submission.csv");
    for prep in preps() {
        let csv = &prep["csv"];
        let images = items(&csv["classification"]).iter().zip(items(&csv["seg"])).enumerate();
        let entries: Vec<Entry> = images
            .map(|(i, (labels, mask))| Entry::new(i.to_string(), &u8s(labels), Some(&u8s(mask))))
            .collect();
        submission::write(&path, entries.iter().cloned().map(Ok)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text(&csv["text"]));

        let read = submission::Submission::read(&path).unwrap();
        for (i, mask) in items(&csv["seg"]).iter().enumerate() {
            let (mask, runs) = (u8s(mask), read.get(&format!("{i}_segmentation")).unwrap());
            assert_eq!(runs.to_classes(mask.len(), 20).unwrap(), mask);
        }
    }
}

#[test]
fn golden_accuracies_and_hamming_losses() {
    for prep in preps() {
        let golden = &prep["metrics"];
        let (truth, softmax, sigmoid) =
            (f32s(&golden["y_true"]), f32s(&golden["softmax"]), f32s(&golden["sigmoid"]));
        let check =
            |name: &str, got: atrous::Result<f64>| assert_close(name, got.unwrap(), &golden[name]);
        check("categorical_accuracy", metrics::categorical_accuracy(&truth, &softmax, 20));
        check("binary_accuracy_softmax", metrics::binary_accuracy(&truth, &softmax));
        check("binary_accuracy_sigmoid", metrics::binary_accuracy(&truth, &sigmoid));
        check("hamming_thr015", metrics::hamming_loss(&truth, &softmax, 20, Some(0.15)));
        check("hamming_thr05", metrics::hamming_loss(&truth, &sigmoid, 20, Some(0.5)));
        check("hamming_argmax", metrics::hamming_loss(&truth, &softmax, 20, None));
    }
}

#[test]
fn golden_prediction_rule_and_its_dice() {
    for prep in preps() {
        let golden = &prep["metrics"];
        let rows = items(&golden["threshold_input"]).iter().zip(items(&golden["threshold_pred"]));
        let mut checked = 0;
        for (i, (probabilities, expected)) in rows.enumerate() {
            let labels = submission::labels_from_probabilities(&f32s(probabilities), 0.15);
            assert_eq!(labels, u8s(expected), "row {i}");
            let dice = metrics::dice(&u8s(&golden["y_true"][i]), &labels).unwrap();
            assert_close("dice of a classification row", dice, &golden["dice_classification_rows"][i]);
            checked += 1;
        }
        assert!(checked > 0);
    }
}

#[test]
fn golden_scores_of_label_maps() {
    for prep in preps() {
        let golden = &prep["metrics"];
        let (truth, predicted) = (u8s(&golden["seg_true"]), u8s(&golden["seg_pred"]));
        let mut confusion = Confusion::new(21, Some(255));
        confusion.add(&truth, &predicted).unwrap();
        assert_close("mean IoU", confusion.mean_iou().unwrap(), &golden["mean_iou"]);
        assert_close("pixel accuracy", confusion.pixel_accuracy().unwrap(), &golden["pixel_accuracy"]);
        for (i, expected) in items(&golden["dice_segmentation_rows"]).iter().enumerate() {
            let (truth, predicted) = (u8s(&golden["seg_true"][i]), u8s(&golden["seg_pred"][i]));
            let by_map = metrics::dice_of_classes(&truth, &predicted, 20).unwrap();
            let by_runs = Runs::of_classes(&truth, 20).dice(&Runs::of_classes(&predicted, 20));
            assert_close("dice of maps", by_map, expected);
            assert_close("dice of runs", by_runs, expected);
        }
    }
}

#[test]
fn golden_sparse_accuracy_of_float_labels() {
    for prep in preps() {
        let golden = &prep["sparse_accuracy_float_labels"];
        let correct = numbers(&golden["correct"]);
        let found = numbers(&golden["argmax"]);
        for (i, label) in f32s(&golden["labels"]).into_iter().enumerate() {
            let mut scores = [0.0f32; 21];
            scores[found[i] as usize] = 1.0;
            let got = metrics::sparse_categorical_accuracy(&[label], &scores, 21).unwrap();
            assert_eq!(got, correct[i], "label {label}");
        }
    }
}

#[test]
fn golden_hash_gives_the_documented_vectors() {
    assert_eq!(fnv1a64("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a64("open:input"), 0x966e_dcc1_f8f2_d50f);
    let first = |name, n| (0..n).map(hash_unit("open", name)).collect::<Vec<f64>>();
    assert_eq!(
        first("input", 4),
        [0.12270760536193848, 0.8387694954872131, 0.5450427532196045, 0.23895740509033203]
    );
    assert_eq!(first("conv2d/kernel", 2), [0.7726307511329651, 0.4652542471885681]);
    let kernel = fill("open", "conv2d/kernel", &[7, 7, 3, 64], &Gains::default());
    assert_eq!(kernel[..3], [0.110_159_46f32, -0.014_039_405, -0.151_848_21]);
    let variance = fill("open", "batch_normalization/moving_variance", &[64], &Gains::default());
    assert_eq!(variance[0], 0.853_501_9);
}

#[test]
fn golden_weights_and_inputs_of_every_network_are_reproduced() {
    let (mut weights, mut networks) = (0, 0);
    for folder in variants() {
        for path in files(folder.join("nets"), "json") {
            let net = json(&path);
            let (input_shape, values) = input(&net);
            assert_eq!(input_shape.len(), 4);
            let expected: Vec<f32> = numbers(&net["input_first8"]).iter().map(|&v| v as f32).collect();
            assert_eq!(values[..8], expected, "input of {}", path.display());
            let gains = Gains::of(&net);
            for check in net["weights_check"].as_array().unwrap() {
                let name = text(&check["name"]);
                let got = fill(text(&net["seed_tag"]), name, &shape(&check["shape"]), &gains);
                let expected: Vec<f32> = numbers(&check["first3"]).iter().map(|&v| v as f32).collect();
                assert_eq!(got[..expected.len()], expected, "{name} of {}", path.display());
                weights += 1;
            }
            networks += 1;
        }
    }
    assert!(networks > 0 && weights >= networks, "{weights} weights of {networks} networks");
    println!("{weights} weights of {networks} networks");
}

#[test]
fn golden_arrays_are_all_readable_and_finite_where_they_should_be() {
    let mut arrays = 0;
    for folder in ["ops", "optim"] {
        for path in files(golden().join(folder), "npz") {
            let mut npz = Npz::open(&path);
            for name in npz.names() {
                let array = npz.get(&name);
                assert_eq!(array.shape.iter().product::<usize>(), array.values.len());
                assert!(array.values.iter().all(|v| v.is_finite()), "{}: {name}", path.display());
                arrays += 1;
            }
        }
    }
    assert!(arrays > 100, "{arrays} arrays");
}

#[test]
fn golden_sample_positions_follow_the_rule() {
    assert_eq!(sample_positions(3, 8), [0, 1, 2]);
    assert_eq!(sample_positions(10, 4), [1, 3, 6, 8]); // 1.25, 3.75, 6.25, 8.75
}

/// Early stopping, best checkpoint and plateau, epoch by epoch.
#[test]
#[cfg(feature = "checkpoint")]
fn golden_callbacks() {
    use atrous::train::{Callbacks, Plateau};
    for folder in variants() {
        for case in json(folder.join("prep/prep.json"))["callbacks"].as_array().unwrap() {
            let mut callbacks = Callbacks::default();
            let (mut rate, mut used, mut saved) = (1e-4f32, Vec::new(), Vec::new());
            for (epoch, value) in numbers(&case["val_loss"]).into_iter().enumerate() {
                used.push(rate as f64);
                let plateau = Some(Plateau::default());
                let verdict = callbacks.epoch_ends(epoch + 1, value, Some(5), plateau, &mut rate);
                if verdict.improved {
                    saved.push(epoch as f64);
                }
                if verdict.stop {
                    break;
                }
            }
            assert_eq!(used.len() as u64, case["epochs_run"].as_u64().unwrap());
            assert_eq!(saved, numbers(&case["saved_epochs"]));
            assert_eq!(used, numbers(&case["lr_used"]));
            assert_eq!(rate as f64, case["lr_after"].as_f64().unwrap());
        }
    }
}
