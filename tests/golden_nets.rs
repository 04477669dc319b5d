//! Whole networks against values computed by Keras in float64: every layer's output, the loss, all
//! gradients, the moving statistics. In f32 within the format's tolerances, in f64 to 1e-9.

mod common;

use atrous::autograd::Gradients;
use atrous::graph::{Model, Pass, Run, Summary};
use atrous::{DType, Tensor, losses::Loss, models};
use common::{Gains, Npz, files, fill, input, json, numbers, sample_positions, text, variants};
use serde_json::Value;
use std::collections::HashMap;

/// The networks in the golden files that this version has, with their files.
fn nets() -> Vec<(Value, Npz)> {
    let mut nets = Vec::new();
    for folder in variants() {
        if !folder.join("nets").is_dir() {
            continue;
        }
        for file in files(folder.join("nets"), "json") {
            let net = json(&file);
            if models::NAMES.iter().any(|name| text(&net["net"]).starts_with(&format!("{name}_"))) {
                nets.push((net, Npz::open(file.with_extension("npz"))));
            }
        }
    }
    assert!(!nets.is_empty());
    nets
}

fn model(net: &Value, dtype: DType) -> Model {
    let name = text(&net["net"]);
    let side = net["size"].as_u64().unwrap() as usize;
    let graph = models::by_name(name.rsplit_once('_').unwrap().0, side, 20).unwrap();
    let (tag, gains) = (text(&net["seed_tag"]), Gains::of(net));
    let value = |path: &str, shape: atrous::Shape, _| {
        Tensor::from_slice(&fill(tag, path, &shape, &gains), shape).unwrap()
    };
    Model::with(graph, value).to_dtype(dtype)
}

/// |got − expected| within `tolerance` · `scale`.
fn close(what: &str, got: f64, expected: f64, tolerance: f64, scale: f64) {
    let deviation = (got - expected).abs() / scale;
    assert!(
        deviation <= tolerance,
        "{what}: {got} and {expected}, off by {deviation:e} of {tolerance:e}"
    );
}

/// What the format allows in one mode and type.
struct Tolerance {
    layer: f64,
    l2: f64,
    loss: f64,
    gradient: f64,
    /// For what is stored as float32.
    stored: f64,
}

impl Tolerance {
    fn of(net: &Value, mode: &str, dtype: DType) -> Self {
        if dtype == DType::F64 {
            return Tolerance { layer: 1e-9, l2: 1e-9, loss: 1e-9, gradient: 1e-9, stored: 1e-6 };
        }
        let deviation = net[format!("{mode}_f32_dev")]["g_rel_l2_max"].as_f64().unwrap();
        match mode {
            "infer" => {
                let layer = if text(&net["net"]).starts_with("mobilenetv2") { 5e-5 } else { 2e-5 };
                let gradient = if deviation < 1e-5 { 1e-4 } else { (10.0 * deviation).max(1e-3) };
                Tolerance { layer, l2: 1e-5, loss: 1e-5, gradient, stored: layer }
            }
            _ => {
                let gradient = (10.0 * deviation).max(5e-3);
                Tolerance { layer: 1e-3, l2: 1e-3, loss: 2e-4, gradient, stored: 1e-3 }
            }
        }
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn absmax(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

struct Replay {
    pass: Pass,
    layers: HashMap<String, Vec<f64>>,
    loss: f64,
    gradients: Gradients,
    x: Tensor,
}

fn replay(net: &Value, model: &Model, mode: &str, dtype: DType) -> Replay {
    let (shape, values) = input(net);
    let x = Tensor::from_slice(&values, &shape[..]).unwrap().to_dtype(dtype).leaf();
    let labels = numbers(&net["labels"]);
    let rows = shape[0];
    let labels = Tensor::from_slice(&labels, [rows, labels.len() / rows]).unwrap().to_dtype(dtype);
    let weights = numbers(&net["sw"]);
    let weights = Tensor::from_slice(&weights, [rows]).unwrap().to_dtype(dtype);
    let run = Run { batch_statistics: mode == "train", gradients: true, dropout: None };
    let mut layers = HashMap::new();
    let pass = model
        .run_observed(&x, run, &mut |name, output| {
            layers.insert(name.to_string(), output.to_vec_f64());
        })
        .unwrap();
    let loss = match text(&net["loss"]) {
        "bce" => Loss::BinaryCrossentropy,
        other => panic!("no loss `{other}` yet"),
    };
    let loss = loss.from_logits(&pass.logits, &labels, Some(&weights)).unwrap();
    let gradients = loss.backward().unwrap();
    Replay { pass, layers, loss: loss.item().unwrap(), gradients, x }
}

fn check(net: &Value, arrays: &mut Npz, mode: &str, dtype: DType) {
    let model = model(net, dtype);
    let replayed = replay(net, &model, mode, dtype);
    let t = Tolerance::of(net, mode, dtype);
    let name = format!("{} {mode} {dtype:?}", text(&net["net"]));
    let mut get = |key: &str| arrays.get(&format!("{mode}_{key}")).values;

    for (what, got) in [("output", &replayed.pass.output), ("logits", &replayed.pass.logits)] {
        let (got, expected) = (got.to_vec_f64(), get(what));
        assert_eq!(got.len(), expected.len(), "{name} {what}");
        let scale = absmax(&expected);
        got.iter()
            .zip(&expected)
            .for_each(|(g, e)| close(&format!("{name} {what}"), *g, *e, t.layer, scale));
    }
    close(
        &format!("{name} loss"),
        replayed.loss,
        net[format!("{mode}_loss")].as_f64().unwrap(),
        t.loss,
        1.0,
    );

    let (l2, mean, samples) = (get("layer_l2"), get("layer_mean"), get("layer_samples"));
    let names = net["layer_names"].as_array().unwrap();
    assert_eq!(names.len(), l2.len());
    for (i, layer) in names.iter().enumerate() {
        let what = format!("{name} layer {}", text(layer));
        let got = &replayed.layers[text(layer)];
        close(&format!("{what} l2"), norm(got), l2[i], t.l2, l2[i]);
        let scale = absmax(got);
        let average = got.iter().sum::<f64>() / got.len() as f64;
        close(&format!("{what} mean"), average, mean[i], t.layer, scale);
        for (position, expected) in sample_positions(got.len(), 16).iter().zip(&samples[16 * i..]) {
            close(&what, got[*position], *expected, t.stored, scale);
        }
    }

    let (l2, largest, samples) = (get("grad_l2"), get("grad_absmax"), get("grad_samples"));
    let zero: Vec<&str> =
        net[format!("{mode}_grad_numerically_zero")].as_array().unwrap().iter().map(text).collect();
    for (i, path) in net["param_names"].as_array().unwrap().iter().enumerate() {
        let (path, what) = (text(path), format!("{name} gradient of {}", text(path)));
        if zero.contains(&path) {
            continue;
        }
        let at = model.parameters.iter().position(|p| p.path == path).unwrap();
        let got = replayed.gradients.get(&replayed.pass.leaves[at]).unwrap().to_vec_f64();
        close(&format!("{what} l2"), norm(&got), l2[i], t.gradient, l2[i]);
        let stored = if dtype == DType::F64 { t.stored } else { t.gradient };
        for (position, expected) in sample_positions(got.len(), 12).iter().zip(&samples[12 * i..]) {
            close(&what, got[*position], *expected, stored, largest[i]);
        }
    }
    let by_input = replayed.gradients.get(&replayed.x).unwrap().to_vec_f64();
    let samples = get("input_grad_samples");
    let l2 = net[format!("{mode}_input_grad_l2")].as_f64().unwrap();
    let largest = net[format!("{mode}_input_grad_absmax")].as_f64().unwrap();
    // In f32 a single decision of a ReLU or a maximum moves input gradients as a whole: the
    // recorded deviation of TensorFlow's own f32 run (`gx`) is the measure.
    let by_input_tolerance = match dtype {
        DType::F64 => 1e-9,
        _ => t.gradient.max(10.0 * net[format!("{mode}_f32_dev")]["gx"].as_f64().unwrap()),
    };
    close(&format!("{name} input gradient l2"), norm(&by_input), l2, by_input_tolerance, l2);
    for (position, expected) in sample_positions(by_input.len(), 512).iter().zip(&samples) {
        close(
            &format!("{name} input gradient"),
            by_input[*position],
            *expected,
            by_input_tolerance,
            largest,
        );
    }

    if mode == "train" {
        let (means, variances) = (get("new_moving_mean"), get("new_moving_variance"));
        let tolerance = if dtype == DType::F64 { 1e-6 } else { 1e-4 };
        for (i, bn) in net["bn_names"].as_array().unwrap().iter().enumerate() {
            for (kind, expected) in [("moving_mean", &means), ("moving_variance", &variances)] {
                let path = format!("{}/{kind}", text(bn));
                let at = model.parameters.iter().position(|p| p.path == path).unwrap();
                let got = replayed.pass.moving.iter().find(|(i, _)| *i == at).unwrap().1.to_vec_f64();
                for (position, expected) in sample_positions(got.len(), 8).iter().zip(&expected[8 * i..])
                {
                    let slack = tolerance * expected.abs() + 1e-6;
                    close(&format!("{name} {path}"), got[*position], *expected, 1.0, slack);
                }
            }
        }
    }
}

#[test]
fn golden_networks_in_f32() {
    for (net, mut arrays) in nets() {
        for mode in net["modes"].as_array().unwrap() {
            check(&net, &mut arrays, text(mode), DType::F32);
        }
    }
}

#[test]
fn golden_networks_in_f64() {
    for (net, mut arrays) in nets() {
        for mode in net["modes"].as_array().unwrap() {
            check(&net, &mut arrays, text(mode), DType::F64);
        }
    }
}

#[test]
#[cfg(feature = "checkpoint")]
fn golden_layer_tables() {
    let file = common::golden().join("layers/alexnet_150.json");
    let expected = json(&file);
    let model = Model::new(models::alexnet(150, 20).unwrap(), 0);
    let got = Summary::new(&model).to_json(&model);
    assert_eq!(got["total_params"], expected["total_params"]);
    assert_eq!(got["trainable_params"], expected["trainable_params_unfrozen"]);
    // The input is not among Keras' layers of a sequential model.
    let layers: Vec<&Value> =
        got["layers"].as_array().unwrap().iter().filter(|l| l["type"] != "InputLayer").collect();
    let expected = expected["layers"].as_array().unwrap();
    assert_eq!(layers.len(), expected.len());
    for (got, expected) in layers.into_iter().zip(expected) {
        for key in ["name", "type", "output_shape", "params", "trainable_params", "inputs", "weights"] {
            assert_eq!(got[key], expected[key], "{key} of {}", expected["name"]);
        }
        let mut config = expected["config"].clone();
        if config.get("rate").is_some() {
            // The table was made with dropout switched off.
            config["rate"] = got["config"]["rate"].clone();
        }
        assert_eq!(got["config"], config, "config of {}", expected["name"]);
    }
}

#[test]
fn golden_parameter_counts() {
    let model = Model::new(models::alexnet(150, 20).unwrap(), 0);
    assert_eq!(model.count_parameters(), (777_695, 777_055));
    assert_eq!(Summary::new(&model).parameters(), 777_695);
}
