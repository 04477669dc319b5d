//! Data against TensorFlow's, Keras', OpenCV's and scikit-learn's own numbers (the `golden` tests),
//! and readers against files that are wrong.

use atrous::data::augment::{self, AffineOrder, Parameters};
use atrous::data::image::{self, Fit, MaskResize, Nearest, Preprocess};
use atrous::data::voc_npy::{self, Split, VocNpy};
use atrous::data::{CLASSES, Classes, Dataset, Image, Labels, Mask, check, class_weights, synthetic};
use atrous::ops::resize::Method;
use atrous::{DType, Tensor, ops};
use common::{Array, Npz};
use proptest::prelude::*;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

mod common;

/// The folders of preprocessing goldens.
fn preps() -> Vec<PathBuf> {
    common::variants().into_iter().map(|variant| variant.join("prep")).collect()
}

fn tensor(array: Array) -> Tensor {
    Tensor::from_slice(&array.f32(), &array.shape[..]).unwrap()
}

fn image(array: Array) -> Image {
    Image::new(array.shape[0], array.shape[1], array.u8()).unwrap()
}

fn mask(array: Array) -> Mask {
    Mask::new(array.shape[0], array.shape[1], array.u8()).unwrap()
}

fn largest_difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let differences = got.iter().zip(expected).map(|(g, e)| (g - e).abs());
    differences.fold(0.0, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) })
}

#[test]
fn golden_resize_with_pad_has_tensorflows_bits() {
    for prep in preps() {
        let mut npz = Npz::open(prep.join("resize_with_pad.npz"));
        for i in 0..5 {
            let expected = npz.get(&format!("out{i}"));
            let got = image::resize_with_pad(&image(npz.get(&format!("in{i}"))), expected.shape[0]);
            assert_eq!(got.unwrap(), expected.f32(), "picture {i}");
        }
    }
}

#[test]
fn golden_resize_with_pad_sizes() {
    for prep in preps() {
        let prep = common::json(prep.join("prep.json"));
        let rows = prep["resize_with_pad_sizes"]["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 1200);
        for row in rows {
            let row = common::shape(row);
            let at = image::padded(row[0], row[1], row[2]);
            assert_eq!([at.height, at.width, at.top, at.left], row[3..], "{row:?}");
        }
    }
}

#[test]
fn golden_augmentation_is_kerass_by_both_rules() {
    for prep in preps() {
        let mut npz = Npz::open(prep.join("augment.npz"));
        let cases = common::json(prep.join("prep.json"))["augment"].clone();
        for (i, case) in cases.as_array().unwrap().iter().enumerate() {
            let number = |name: &str| case[name].as_f64().unwrap();
            let parameters = Parameters {
                theta: number("theta"),
                shear: number("shear"),
                zx: number("zx"),
                zy: number("zy"),
                flip_horizontal: case["flip_horizontal"].as_bool().unwrap(),
            };
            let x = npz.get(&format!("in{i}"));
            let [h, w, channels] = x.shape[..] else { panic!("{:?}", x.shape) };
            for (rule, name) in [(AffineOrder::Keras26, "tf26"), (AffineOrder::Keras3, "new")] {
                let expected = npz.get(&format!("out_{name}_{i}")).f32();
                let matrix = augment::matrix(&parameters, h, w, rule);
                let mut got = augment::warp(&x.f32(), [h, w, channels], &matrix);
                Preprocess::Unit.apply(&mut got);
                let off = largest_difference(&got, &expected);
                assert!(off <= 1e-6, "case {i}, {rule:?}: off by {off:e}");
                // The operator is the same warp.
                let x = Tensor::from_slice(&x.f32(), [1, h, w, channels]).unwrap();
                let mut got = ops::affine(&x, &[matrix]).unwrap().as_slice().unwrap().to_vec();
                Preprocess::Unit.apply(&mut got);
                let off = largest_difference(&got, &expected);
                assert!(off <= 1e-6, "operator, case {i}, {rule:?}: off by {off:e}");
            }
        }
    }
}

#[test]
fn golden_masks_by_opencvs_rule_and_by_tensorflows() {
    for prep in preps() {
        let mut npz = Npz::open(prep.join("masks.npz"));
        for i in 0..6 {
            let from = mask(npz.get(&format!("in{i}")));
            for (nearest, name) in [(Nearest::Corner, "cv2_nearest"), (Nearest::Centre, "tf_nearest")] {
                let expected = mask(npz.get(&format!("{name}{i}")));
                let got = image::resize_mask(&from, expected.height, expected.width, nearest).unwrap();
                assert!(got == expected, "mask {i}, {name}");
                if nearest == Nearest::Centre && expected.height == expected.width {
                    let got = image::fit_mask(&from, expected.height, Fit::Stretch, 255).unwrap();
                    assert!(got == expected, "mask {i}, stretched");
                }
            }
            let expected = npz.get(&format!("tf_bilinear{i}"));
            let values: Vec<f32> = from.classes.iter().map(|&class| class as f32).collect();
            let x = Tensor::from_slice(&values, [1, from.height, from.width, 1]).unwrap();
            let got = ops::resize(&x, expected.shape[0], expected.shape[1], Method::Bilinear).unwrap();
            assert_eq!(got.as_slice::<f32>().unwrap(), expected.f32(), "mask {i}, tf_bilinear");
            // Labels are cut to whole numbers; what is no class then is void.
            if let [height, width] = expected.shape[..2]
                && height == width
            {
                let whole = |v: f32| if v as usize > CLASSES.len() { 255 } else { v as u8 };
                let whole: Vec<u8> = expected.f32().into_iter().map(whole).collect();
                let by = MaskResize::Bilinear { classes: 20 };
                let got = image::fit_mask_by(&from, height, Fit::Stretch, 255, by).unwrap();
                assert_eq!(got.classes, whole, "mask {i}, blended and cut");
            }
        }
    }
}

#[test]
fn golden_preprocess_input() {
    for prep in preps() {
        let mut npz = Npz::open(prep.join("preprocess_input.npz"));
        let x = npz.get("x").f32();
        for (preprocess, name) in [
            (Preprocess::Caffe, "vgg16_caffe"),
            (Preprocess::Symmetric, "mobilenet"),
            (Preprocess::Symmetric, "mobilenet_v2"),
            (Preprocess::Symmetric, "resnet_v2"),
            (Preprocess::Symmetric, "seed_seg"),
        ] {
            let mut got = x.clone();
            preprocess.apply(&mut got);
            let off = largest_difference(&got, &npz.get(name).f32());
            assert!(off <= 1e-5, "{name}: off by {off:e}");
        }
    }
}

#[test]
fn golden_class_weights() {
    for prep in preps() {
        let prep = common::json(prep.join("prep.json"));
        let case = &prep["class_weights"];
        let labels = case["labels"].as_array().unwrap().iter().map(|row| -> Labels {
            let row = common::shape(row);
            (0..20).map(|class| row[class] == 1).collect()
        });
        let weights = class_weights::balanced(labels, 20);
        let names = case["classes_present"].as_array().unwrap().iter().map(common::text);
        let present: Vec<usize> =
            names.map(|name| CLASSES.iter().position(|class| *class == name).unwrap()).collect();
        let expected = common::numbers(&case["weights"]);
        assert_eq!(present.len(), expected.len());
        for (&class, expected) in present.iter().zip(expected) {
            assert!((weights[class] - expected).abs() < 1e-12, "{}", CLASSES[class]);
        }
        let absent = (0..CLASSES.len()).filter(|class| !present.contains(class));
        assert!(absent.into_iter().all(|class| weights[class] == 1.0));
    }
}

/// The operators' own files: `resize_*` (both methods) and `upsample_bilinear_*` (with gradients).
fn operator_files(prefix: &str) -> Vec<PathBuf> {
    let files = common::files(common::golden().join("ops"), "npz").into_iter();
    files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
}

#[test]
fn golden_resize_has_tensorflows_bits() {
    let files = operator_files("resize_");
    assert_eq!(files.len(), 5);
    for file in files {
        let (name, mut npz) = (file.display(), Npz::open(&file));
        let x = tensor(npz.get("in_x"));
        for (method, array) in [(Method::Bilinear, "y"), (Method::Nearest, "y_nearest")] {
            let expected = tensor(npz.get(array));
            let (h, w) = (expected.shape()[1], expected.shape()[2]);
            let got = ops::resize(&x, h, w, method).unwrap();
            assert_eq!(got.as_slice::<f32>(), expected.as_slice::<f32>(), "{name} {array}");
            // In f64 the coordinates are free of rounding. Near 50 a step of f32 is 4e-6, and
            // neighbours differ by up to 255: TensorFlow's own values are good to 1e-3.
            let double = ops::resize(&x.to_dtype(DType::F64), h, w, method).unwrap();
            let double = double.to_dtype(DType::F32);
            let off = largest_difference(double.as_slice().unwrap(), expected.as_slice().unwrap());
            assert!(off <= 1e-3, "{name} {array} in f64: off by {off:e}");
        }
    }
}

#[test]
fn golden_upsampling_and_its_gradient() {
    let files = operator_files("upsample_bilinear_");
    assert_eq!(files.len(), 5);
    for file in files {
        let (name, mut npz) = (file.display(), Npz::open(&file));
        let [x, gy, y, y_f64, gx] =
            ["in_x", "gy", "y", "y_f64", "g_x"].map(|array| tensor(npz.get(array)));
        let check = |what: &str, got: &Tensor, expected: &Tensor, tolerance: f32| {
            let got = got.to_dtype(DType::F32);
            let off = largest_difference(got.as_slice().unwrap(), expected.as_slice().unwrap());
            assert!(off <= tolerance, "{name} {what}: off by {off:e}");
        };
        for dtype in [DType::F32, DType::F64] {
            let x = x.to_dtype(dtype).leaf();
            let got = ops::resize(&x, y.shape()[1], y.shape()[2], Method::Bilinear).unwrap();
            let mut gradients = got.backward_from(gy.to_dtype(dtype)).unwrap();
            let gradient = gradients.take(&x).unwrap();
            match dtype {
                DType::F64 => {
                    check("y_f64", &got, &y_f64, 1e-6);
                    check("g_x in f64", &gradient, &gx, 2e-5);
                }
                _ => {
                    check("y", &got, &y, 0.0);
                    check("g_x", &gradient, &gx, 2e-5);
                }
            }
        }
    }
}

/// A folder of two training images that is right in every way.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for part in ["train/img", "train/seg", "test/img"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    let mut labels = [[false; 20]; 2];
    labels[0][0] = true;
    labels[1][4] = true;
    for (i, id) in ["0", "1"].into_iter().enumerate() {
        let (height, width) = (4 + i, 6);
        let rgb = (0..height * width * 3).map(|v| v as u8).collect();
        let classes = vec![[1, 5][i]; height * width];
        let image = Image::new(height, width, rgb).unwrap();
        voc_npy::write_image(Split::Train.image(root, id), &image).unwrap();
        voc_npy::write_image(Split::Test.image(root, id), &image.mirrored()).unwrap();
        let mask = Mask::new(height, width, classes).unwrap();
        voc_npy::write_mask(Split::Train.mask(root, id), &mask).unwrap();
    }
    let rows = [("0", Some(labels[0].to_vec())), ("1", Some(labels[1].to_vec()))];
    voc_npy::write_csv(Split::Train.csv(root), &Classes::voc(), rows).unwrap();
    voc_npy::write_csv(Split::Test.csv(root), &Classes::voc(), [("0", None), ("1", None)]).unwrap();
    dir
}

#[test]
fn a_folder_that_was_written_reads_back_the_same() {
    let dir = folder();
    let train = VocNpy::open(dir.path(), Split::Train).unwrap();
    assert_eq!((train.len(), train.id(1)), (2, "1".to_owned()));
    let image = train.image(1).unwrap();
    assert_eq!((image.height, image.width, image.rgb[89]), (5, 6, 89));
    assert_eq!(train.mask(1).unwrap().unwrap().labels(20), train.labels(1).unwrap());
    let test = VocNpy::open(dir.path(), Split::Test).unwrap();
    assert_eq!((test.labels(0), test.mask(0).unwrap()), (None, None));
}

/// What opening the training split says after the table was changed.
fn complaint_about_table(change: impl Fn(String) -> String) -> String {
    let dir = folder();
    let csv = Split::Train.csv(dir.path());
    fs::write(&csv, change(fs::read_to_string(&csv).unwrap())).unwrap();
    let error = VocNpy::open(dir.path(), Split::Train).expect_err("the table is wrong").to_string();
    assert!(error.contains("train_set.csv"), "no path in: {error}");
    error
}

#[test]
fn wrong_tables_are_refused_with_line_and_column() {
    let says = |change: &dyn Fn(String) -> String, parts: &[&str]| {
        let error = complaint_about_table(change);
        assert!(parts.iter().all(|part| error.contains(part)), "expected {parts:?} in: {error}");
    };
    says(&|t| t.replace(",tvmonitor", ",tv"), &["line 1", "`tvmonitor`", "expected this column"]);
    says(&|t| t.replacen("Id,", "Number,", 1), &["line 1", "`Id`"]);
    says(&|t| t.replace(",train,", ",train,extra,"), &["line 1", "`extra`", "this column too"]);
    says(&|t| t.replace(",train,", ",sofa,"), &["line 1", "`sofa`", "2 times"]);
    says(&|t| t.replace("\n1,", "\n0,"), &["line 3", "`Id`", "line 2 before"]);
    says(&|t| t.replace("\n1,0", "\n1,2"), &["line 3", "`aeroplane`", "got `2`"]);
    says(&|t| t.replace("\n1,0", "\n1,yes"), &["line 3", "`aeroplane`", "got `yes`"]);
    says(&|t| t.replace("\n1,0", "\n1,-1"), &["line 3", "-1"]);
    says(&|t| t.replace("\n1,", "\n,"), &["line 3", "`Id`", "empty"]);
    says(&|t| t.replace("\n1,0", "\n1,0,0"), &["line 3", "expected 21 fields, got 22"]);
    says(&|t| t.replace("\n1,", "\n7,"), &["line 3", "`Id`", "train_7.npy", "no such file"]);
    says(&|t| t.lines().next().unwrap().to_owned(), &["at least one row"]);
    says(&|_| String::new(), &["line 1", "empty"]);
    let dir = folder();
    fs::remove_file(Split::Train.csv(dir.path())).unwrap();
    assert!(VocNpy::open(dir.path(), Split::Train).unwrap_err().to_string().contains("train_set.csv"));
}

/// A `.npy` file with a header of one's own.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend_from_slice(&(header.len() as u16).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

#[test]
fn wrong_images_are_refused_with_what_was_expected_and_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train_0.npy");
    let says = |bytes: &[u8], parts: &[&str]| {
        fs::write(&path, bytes).unwrap();
        let error = voc_npy::read_image(&path).expect_err("the file is wrong").to_string();
        let named = error.contains("train_0.npy") && error.contains("expected");
        assert!(
            named && parts.iter().all(|part| error.contains(part)),
            "expected {parts:?} in: {error}"
        );
    };
    let good = npy("'|u1'", "(2, 2, 3)", &[0; 12]);
    fs::write(&path, &good).unwrap();
    assert!(voc_npy::read_image(&path).is_ok());
    says(&good[..good.len() - 1], &["12 bytes", "got 11"]);
    says(&[good.clone(), vec![0]].concat(), &["12 bytes", "got 13"]);
    says(&good[..30], &["ends in it"]);
    says(&npy("'<f4'", "(2, 2, 3)", &[0; 48]), &["uint8", "<f4"]);
    says(&npy("[('a', '|u1')]", "(2, 2, 3)", &[0; 12]), &["structured"]);
    says(&npy("'|u1'", "(2, 6)", &[0; 12]), &["[height, width, 3]", "[2, 6]"]);
    says(&npy("'|u1'", "(3, 2, 2)", &[0; 12]), &["[height, width, 3]", "[3, 2, 2]"]);
    says(&npy("'|u1'", "(1, 2, 2, 3)", &[0; 12]), &["[1, 2, 2, 3]"]);
    says(&npy("'|u1'", "(0, 2, 3)", &[]), &["zero", "[0, 2, 3]"]);
    says(&npy("'|u1'", "(-2, 2, 3)", &[0; 12]), &["`-2`"]);
    says(b"\x89PNG not an array", &[".npy"]);
    says(b"", &[".npy"]);
    fs::write(&path, npy("'|u1'", "(2, 2, 3)", &[0; 12])).unwrap();
    let error = voc_npy::read_mask(&path).unwrap_err().to_string();
    assert!(error.contains("[height, width]") && error.contains("[2, 2, 3]"), "{error}");
}

#[test]
fn a_image_in_column_order_is_turned_round() {
    // Element (i, j, k) of a [2, 1, 3] array, stored i fastest.
    let mut file = npy("'|u1'", "(2, 1, 3)", &[1, 4, 2, 5, 3, 6]);
    let at = file.windows(5).position(|w| w == b"False").unwrap();
    file.splice(at..at + 5, *b"True ");
    assert_eq!(voc_npy::parse_image(&file).unwrap().rgb, [1, 2, 3, 4, 5, 6]);
}

/// A valid file, some of its bytes replaced, cut off somewhere.
fn mutated(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let n = valid.len();
    let changes = proptest::collection::vec((0..n, any::<u8>()), 0..8);
    (changes, 0..n * 2).prop_map(move |(changes, cut)| {
        let mut bytes = valid.clone();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        bytes.truncate(cut);
        bytes
    })
}

fn valid_table() -> Vec<u8> {
    let row = |id: usize| format!("{id},{}\n", ["0", "1"].repeat(10).join(","));
    format!("Id,{}\n{}{}", CLASSES.join(","), row(0), row(1)).into_bytes()
}

/// Parsing must come back; what it accepts must hold together.
fn parse_everything(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(image) = voc_npy::parse_image(bytes) {
        prop_assert_eq!(image.rgb.len(), image.height * image.width * 3);
    }
    if let Ok(mask) = voc_npy::parse_mask(bytes) {
        prop_assert_eq!(mask.classes.len(), mask.height * mask.width);
    }
    let (table, problems) = voc_npy::parse_csv(Path::new("t.csv"), bytes);
    prop_assert!(table.rows.iter().all(|row| !row.id.is_empty() && row.line > 1));
    problems.iter().for_each(|problem| assert!(!problem.to_string().is_empty()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse_everything(&bytes)?;
    }

    #[test]
    fn random_text_in_a_header_never_panics(
        header in "[ -~]{0,80}",
        data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        parse_everything(&npy("'|u1'", &header, &data))?;
        parse_everything(&npy(&header, "(2, 2, 3)", &data))?;
    }

    #[test]
    fn changed_images_never_panic(bytes in mutated(npy("'|u1'", "(3, 4, 3)", &[7; 36]))) {
        parse_everything(&bytes)?;
    }

    #[test]
    fn changed_tables_never_panic(bytes in mutated(valid_table())) {
        parse_everything(&bytes)?;
    }
}

#[test]
fn a_right_folder_has_no_problems_and_is_counted() {
    let dir = folder();
    let report = check::check(dir.path()).unwrap();
    assert!(report.is_fine() && report.notes.is_empty(), "{report}");
    let train = &report.splits[0];
    assert_eq!((train.rows, train.images, train.masks, train.unlabelled), (2, 2, 2, 0));
    assert_eq!(
        (train.classes[0].1, train.classes[4].1, train.classes.iter().map(|(_, n)| n).sum::<usize>()),
        (1, 1, 2)
    );
    assert_eq!((train.heights, train.widths), (Some((4, 5)), Some((6, 6))));
    assert_eq!((report.splits[1].unlabelled, report.splits[1].masks), (2, 0));
    let text = report.to_string();
    assert!(text.contains("train: 2 rows, 2 pictures, 2 masks, 4 to 5 high, 6 to 6 wide"), "{text}");
    assert!(text.contains("nothing is wrong"), "{text}");
}

#[test]
fn everything_wrong_with_a_folder_is_found_in_one_pass() {
    let dir = folder();
    let root = dir.path();
    let image = Image::new(2, 2, vec![0; 12]).unwrap();
    let rows = ["0", "1", "2", "3", "4", "5"].map(|id| (id, Some((0..20).map(|c| c == 0).collect())));
    voc_npy::write_csv(Split::Train.csv(root), &Classes::voc(), rows).unwrap();
    // 0 stays right but for its label's mask; 1: a mask of another size with other classes;
    // 2: no image; 3: wrong type; 4: rank; 5: a label out of range.
    for id in ["5", "8"] {
        voc_npy::write_image(Split::Train.image(root, id), &image).unwrap();
    }
    voc_npy::write_mask(Split::Train.mask(root, "1"), &Mask::new(3, 6, vec![7; 18]).unwrap()).unwrap();
    fs::write(Split::Train.image(root, "3"), npy("'<i8'", "(2, 2, 3)", &[0; 96])).unwrap();
    fs::write(Split::Train.image(root, "4"), npy("'|u1'", "(2, 2)", &[0; 4])).unwrap();
    voc_npy::write_mask(Split::Train.mask(root, "5"), &Mask::new(2, 2, vec![1, 0, 21, 255]).unwrap())
        .unwrap();
    fs::write(Split::Test.csv(root), "Id,cat\n0,1\n").unwrap();
    let report = check::check(root).unwrap();
    let text = report.to_string();
    for part in [
        "expected the picture's size, 5×6, got 3×6",
        "line 4, column `Id`: expected the picture of `2`",
        "expected element type uint8 (|u1), got <i8",
        "expected shape [height, width, 3], none of them zero, got [2, 2]",
        "expected 0 to 20 or 255, got 21 at row 1, column 0",
        "test_set.csv: expected the classes of the training set, [\"aeroplane\", ",
        "\"tvmonitor\"], got [\"cat\"]",
        "train_1.npy: a label but no pixel: aeroplane; pixels but no label: car",
        "train_8.npy: no row of",
    ] {
        assert!(text.contains(part), "expected `{part}` in:\n{text}");
    }
    assert_eq!(report.problems.len(), 5 + 1, "{text}");
    assert!(!report.is_fine() && !text.contains("nothing is wrong"));
    assert!(check::check(root.join("nowhere")).unwrap_err().to_string().contains("nowhere"));
}

#[test]
fn a_made_up_folder_is_right_and_holds_the_truth_of_its_test() {
    let dir = tempfile::tempdir().unwrap();
    let calls = std::cell::RefCell::new(Vec::new());
    let progress = |done, of| {
        calls.borrow_mut().push((done, of));
        ControlFlow::Continue(())
    };
    synthetic::make(dir.path(), 21, 3, 4, synthetic::Contents::default(), &progress).unwrap();
    assert_eq!(*calls.borrow(), [(16, 24), (21, 24), (24, 24)]);
    let report = check::check(dir.path()).unwrap();
    assert!(report.is_fine() && report.notes.is_empty(), "{report}");
    let test = VocNpy::open(dir.path(), Split::Test).unwrap();
    let truth = voc_npy::read_csv(synthetic::truth_csv(dir.path())).unwrap();
    for (i, row) in truth.rows.iter().enumerate() {
        assert_eq!(test.labels(i), None);
        assert_eq!(test.mask(i).unwrap().unwrap().labels(20), row.labels.clone().unwrap());
        let made = synthetic::generate(4, synthetic::FIRST_TEST + i);
        assert!(test.image(i).unwrap() == made.image);
    }
    assert!(
        synthetic::make(dir.path(), 0, 3, 4, synthetic::Contents::default(), &|_, _| {
            ControlFlow::Continue(())
        })
        .is_err()
    );
}
