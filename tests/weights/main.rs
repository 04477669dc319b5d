//! Files of weights as other programs write them: they load by name, and the network computes what
//! the other program computed. Damaged and wrong files: one clear error that names the place.
//!
//! The small files, and whole bases for the ignored tests, are made by
//! `tests/golden/make/make_weights.py`.
#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod odd;
mod sizes;

use assert_cmd::Command;
use atrous::activation::Activation;
use atrous::models::{Head, Spec};
use atrous::nn::layers::Layer;
use atrous::nn::{Graph, Mode, Model};
use atrous::ops::Padding;
use atrous::weights::{self, Origin, Report};
use atrous::{DType, Tensor};
use common::{Npz, golden};
use ndarray::{Array1, Array4};
use ndarray_npy::NpzWriter;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Remembers the largest piece of memory that each thread asks for.
struct Largest;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

fn small(name: &str) -> PathBuf {
    golden().join("weights").join(name)
}

const SMALL: [&str; 7] = [
    "tiny_keras2.h5",
    "tiny_keras2_model.h5",
    "tiny_keras3_model.h5",
    "tiny_keras3.weights.h5",
    "tiny_keras3.keras",
    "tiny_keras3_0.keras",
    "tiny_numpy.npz",
];

/// The HDF5 file that is in a `.keras` file.
fn inner_weights(name: &str) -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(small(name)).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name("model.weights.h5").unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// The network of `make_weights.py`, its parameters zero.
fn tiny() -> Model {
    let mut g = Graph::new("tiny", "input_1", [10, 10, 3]);
    let conv = Layer::conv2d(6, 3).with_stride(2).with_padding(Padding::Same).with_bias(false);
    let relu6 = Layer::Activation(Activation::Relu6);
    let layers = [
        ("conv1", conv),
        ("conv1_bn", Layer::batch_normalization()),
        ("conv1_relu", relu6),
        ("conv_dw_1", Layer::depthwise_conv2d()),
        ("conv_dw_1_bn", Layer::batch_normalization()),
        ("conv_dw_1_relu", relu6),
        ("conv2d", Layer::conv2d(5, 1)),
        ("pool", Layer::GlobalAveragePooling2D),
        ("dense", Layer::dense(4).with_activation(Activation::Softmax)),
    ];
    layers.into_iter().for_each(|(name, layer)| {
        g.add_named(name, layer, &[g.output()]).unwrap();
    });
    Model::with(g, |_, shape, _| Tensor::zeros(shape))
}

/// The largest deviation from `expected`, as a share of its largest value.
fn deviation(model: &Model, dtype: DType, npz: &mut Npz, input: &str, expected: &str) -> f64 {
    let (x, expected) = (npz.get(input), npz.get(expected));
    let x = Tensor::from_slice(&x.f32(), &x.shape[..]).unwrap().to_dtype(dtype);
    let pass = model.to_dtype(dtype).run(&x, Mode::infer()).unwrap();
    let logits = expected.shape.len() == 2 && expected.shape[1] == 1000;
    let got = if logits { pass.logits } else { pass.output };
    assert_eq!(got.shape().elements(), expected.values.len());
    let largest = expected.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let pairs = got.to_vec_f64().into_iter().zip(&expected.values);
    pairs.fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
fn files_of_keras_2_and_3_and_numpy_load_by_name_and_compute_what_keras_computed() {
    for name in SMALL {
        let file = weights::read(small(name)).unwrap();
        assert_eq!(file.origin, Origin::Keras, "{name}");
        let mut model = tiny();
        let report = weights::load(&mut model, &file, &[]).unwrap();
        assert_eq!(report.matched.len(), model.parameters.len(), "{name}: {report}");
        assert_eq!(report.numbers, model.count_parameters().0, "{name}");
        assert!(report.unexpected.is_empty(), "{name}: {report}");
        let mut expected = Npz::open(small("tiny_expected.npz"));
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-12)] {
            let off = deviation(&model, dtype, &mut expected, "input", "output");
            assert!(off < tolerance, "{name}, {dtype:?}: off by {off:e}");
        }
    }
}

#[test]
fn every_float_type_and_the_origin_come_through_a_safetensors_file() {
    use safetensors::tensor::{Dtype, TensorView};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let halves = [0x00, 0x3c, 0x00, 0xc0]; // 1 and -2
    let doubles: Vec<u8> = [1.0f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let upper = [0x80, 0x3f, 0x00, 0xc0];
    let counter = 7i64.to_le_bytes();
    let views = [
        ("b.weight", TensorView::new(Dtype::F16, vec![2], &halves).unwrap()),
        ("a.weight", TensorView::new(Dtype::F64, vec![2], &doubles).unwrap()),
        ("c.weight", TensorView::new(Dtype::BF16, vec![2], &upper).unwrap()),
        ("d.num_batches_tracked", TensorView::new(Dtype::I64, vec![], &counter).unwrap()),
    ];
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let file = weights::read(&path).unwrap();
    assert_eq!((file.origin, file.entries.len()), (Origin::Torchvision, 4));
    for entry in &file.entries {
        match &entry.tensor {
            Some(tensor) => assert_eq!(tensor.to_vec_f64(), [1.0, -2.0], "{}", entry.name),
            None => assert_eq!(entry.dtype, "int64"),
        }
    }
    let tensors = [("conv1/bias".to_owned(), Tensor::from_slice(&[1.0f32, 2.0], [2]).unwrap())];
    weights::save(&path, &tensors, Origin::Timm).unwrap();
    let file = weights::read(&path).unwrap();
    assert_eq!((file.origin, &file.entries[0].name[..]), (Origin::Timm, "conv1/bias"));
}

fn atrous(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_atrous")).args(arguments).output().unwrap()
}

/// The command must fail with one line on standard error that holds all of `wanted`.
fn refused(arguments: &[&str], wanted: &[&str]) {
    let output = atrous(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    assert_eq!(error.matches("error: ").count(), 1, "{error}");
    for part in wanted {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn inspect_shows_the_tensors_of_a_file() {
    let output = atrous(&["weights", "inspect", small("tiny_keras2_model.h5").to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    let mut lines = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let kernel = "base/conv_dw_1/depthwise_kernel:0 float32 (3, 3, 6, 1) -0.78815 0.80284";
    assert!(lines.any(|line| line == kernel), "{told}");
    assert!(told.contains("14 tensors, 323 numbers") && told.contains("HDF5, from keras"), "{told}");
}

/// Weights with torchvision's names for all of MobileNetV2, made up, and its head.
fn torchvision(path: &Path, change: impl Fn(&str, &mut Vec<usize>, &mut Vec<f32>)) {
    use safetensors::tensor::{Dtype, TensorView};
    let graph = Spec { head: Head::None, ..Spec::new("mobilenetv2", 64, 20) }.graph().unwrap();
    let model = Model::new(graph, 1);
    let modules = weights::names::Base::MobileNetV2.modules(Origin::Torchvision).unwrap();
    let mut arrays = Vec::new();
    for parameter in &model.parameters {
        let (layer, kind) = parameter.path.rsplit_once('/').unwrap();
        let (module, _) = modules.iter().find(|(_, keras)| keras == layer).unwrap();
        let mut shape = parameter.value.shape().to_vec();
        let tensor = match kind {
            "kernel" => {
                shape = vec![shape[3], shape[2], shape[0], shape[1]];
                "weight"
            }
            "depthwise_kernel" => {
                shape = vec![shape[2], 1, shape[0], shape[1]];
                "weight"
            }
            "gamma" => "weight",
            "beta" => "bias",
            "moving_mean" => "running_mean",
            _ => "running_var",
        };
        let name = format!("{module}.{tensor}");
        let mut values = vec![0.5f32; shape.iter().product()];
        change(&name, &mut shape, &mut values);
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        arrays.push((name, shape, bytes));
    }
    arrays.push(("classifier.1.bias".into(), vec![1000], vec![0; 4000]));
    let views = arrays.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_converted_file_has_keras_names_and_remembers_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    torchvision(&from, |_, _, _| {});
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let output = atrous(&["weights", "convert", from, "--model", "mobilenetv2", "--out", to]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("260 tensors, 2257984 numbers"), "{told}");
    assert!(told.contains("not used        1: classifier.1.bias"), "{told}");
    let file = weights::read(to).unwrap();
    assert_eq!((file.origin, file.entries.len()), (Origin::Torchvision, 260));
    let entry = file.entries.iter().find(|e| e.name == "block_1_depthwise/depthwise_kernel").unwrap();
    assert_eq!(entry.shape, [3, 3, 96, 1]);
    let again = atrous(&["weights", "inspect", to, "--model", "mobilenetv2"]);
    assert!(String::from_utf8(again.stdout).unwrap().contains("(torchvision)"));
    refused(&["weights", "convert", from, "--model", "mobilenetv2", "--out", "b.h5"], &["b.h5"]);
    refused(&["weights", "inspect", from, "--model", "resnet50v2"], &[from, "normalises after"]);
}

#[test]
fn a_tensor_of_another_shape_or_with_nan_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let inspect = ["weights", "inspect", path.to_str().unwrap(), "--model", "mobilenetv2"];
    torchvision(&path, |name, shape, _| {
        if name == "features.2.conv.1.0.weight" {
            *shape = vec![96, 1, 9, 1];
        }
    });
    let wanted = ["a.safetensors", "`features.2.conv.1.0.weight`", "[96×1×3×3], got [96×1×9×1]"];
    refused(&inspect, &wanted);
    torchvision(&path, |name, _, values| {
        if name == "features.18.1.running_var" {
            values[17] = f32::NAN;
        }
    });
    let wanted = ["a.safetensors", "`features.18.1.running_var`", "got NaN at [17]"];
    refused(&inspect, &wanted);
}

#[test]
fn files_that_hold_no_weights_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused_file = |name: &str, bytes: &[u8], wanted: &[&str]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let wanted = [&[name], wanted].concat();
        refused(&["weights", "inspect", path.to_str().unwrap()], &wanted);
    };
    let missing = folder.path().join("nothing.h5");
    let wanted = ["nothing.h5", "no such file"];
    refused(&["weights", "inspect", missing.to_str().unwrap()], &wanted);
    refused_file("text.h5", b"<html>404</html>", &["expected an HDF5 file", "<html>40"]);
    refused_file("model.onnx", b"\x08\x07\x12\x07pytorch", &[".h5, .keras, .safetensors or .npz"]);
    let whole = std::fs::read(small("tiny_keras2.h5")).unwrap();
    let wanted = ["not a usable HDF5 file", "ends too early"];
    refused_file("cut.h5", &whole[..whole.len() / 2], &wanted);
    let whole = std::fs::read(small("tiny_numpy.npz")).unwrap();
    refused_file("cut.npz", &whole[..whole.len() / 2], &["not a usable npz file"]);
    let folder_path = folder.path().to_str().unwrap();
    refused(&["weights", "inspect", folder_path], &[folder_path, "it is a folder"]);
}

#[test]
fn an_npz_of_integers_is_read_but_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let mut npz = NpzWriter::new_compressed(std::fs::File::create(&path).unwrap());
    npz.add_array("conv1/kernel", &Array4::<i32>::zeros((3, 3, 3, 6))).unwrap();
    npz.add_array("conv2d/bias", &Array1::<f64>::ones(5)).unwrap();
    npz.finish().unwrap();
    let file = weights::read(&path).unwrap();
    let error = weights::load(&mut tiny(), &file, &[]).unwrap_err().to_string();
    for part in ["a.npz", "`conv1/kernel`", "got <i4"] {
        assert!(error.contains(part), "{error}");
    }
}

/// The base of this name with an origin's weights, and the report.
fn loaded(name: &str, head: Head, size: usize, path: &Path) -> (Model, Report) {
    let classes = if head == Head::ImageNet { 1000 } else { 20 };
    let graph = Spec { head, ..Spec::new(name, size, classes) }.graph().unwrap();
    let file = weights::read(path).unwrap();
    let graph = file.origin.configure(&graph).unwrap();
    let mut model = Model::with(graph, |_, shape, _| Tensor::zeros(shape));
    let report = weights::load(&mut model, &file, &[]).unwrap();
    (model, report)
}

#[test]
#[ignore = "needs ATROUS_WEIGHTS=FOLDER written by tests/golden/make/make_weights.py keras and torch"]
fn whole_bases_compute_what_keras_torchvision_and_timm_compute() {
    let Some(folder) = std::env::var_os("ATROUS_WEIGHTS").map(PathBuf::from) else {
        eprintln!("ATROUS_WEIGHTS is not set: nothing to compare");
        return;
    };
    // Network, file, file of outputs, sizes, what f32 may be off.
    let cases = [
        ("vgg16", "vgg16_keras.h5", "vgg16_keras", &[64][..], 2e-5),
        ("resnet50v2", "resnet50v2_keras.h5", "resnet50v2_keras", &[64], 2e-5),
        ("mobilenet", "mobilenet_keras.h5", "mobilenet_keras", &[64], 2e-5),
        ("mobilenet", "mobilenet_keras3.h5", "mobilenet_keras", &[64], 2e-5),
        ("mobilenet", "mobilenet_keras3.weights.h5", "mobilenet_keras", &[64], 2e-5),
        ("mobilenetv2", "mobilenetv2_keras.h5", "mobilenetv2_keras", &[64], 5e-5),
        ("vgg16", "vgg16_torchvision.safetensors", "vgg16_torchvision", &[64, 65], 2e-5),
        (
            "mobilenetv2",
            "mobilenetv2_torchvision.safetensors",
            "mobilenetv2_torchvision",
            &[64, 65],
            5e-5,
        ),
        ("mobilenetv2", "mobilenetv2_timm.safetensors", "mobilenetv2_timm", &[64, 65], 5e-5),
        ("mobilenet", "mobilenet_timm.safetensors", "mobilenet_timm", &[64, 65], 2e-5),
    ];
    for (name, file, outputs, sizes, single) in cases {
        let mut npz = Npz::open(folder.join(format!("{outputs}.npz")));
        for size in sizes {
            let (input, output) = (format!("input_{size}"), format!("output_{size}"));
            let (model, report) = loaded(name, Head::None, *size, &folder.join(file));
            let off = |npz: &mut _, dtype| deviation(&model, dtype, npz, &input, &output);
            let (f32, f64) = (off(&mut npz, DType::F32), off(&mut npz, DType::F64));
            println!("{file} at {size}: {} numbers, f32 {f32:.1e}, f64 {f64:.1e}", report.numbers);
            assert!(
                f32 < single && f64 < 1e-9,
                "{file} at {size}: off by {f32:e} in f32, {f64:e} in f64"
            );
        }
    }
    let file = folder.join("mobilenet_timm.safetensors");
    let mut npz = Npz::open(folder.join("mobilenet_timm.npz"));
    let (model, report) = loaded("mobilenet", Head::ImageNet, 64, &file);
    let off = deviation(&model, DType::F64, &mut npz, "input_64", "logits_64");
    println!("mobilenet_timm with its head: {} numbers, f64 {off:.1e}", report.numbers);
    assert!(off < 1e-9 && report.unexpected.is_empty(), "off by {off:e}: {report}");
}

#[test]
#[ignore = "needs ../shared/weights"]
fn the_real_weights_load_with_nothing_missing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/weights");
    let check = |name, head, file: &str, tensors, numbers| {
        let (_, report) = loaded(name, head, 224, &folder.join(file));
        assert_eq!((report.matched.len(), report.numbers), (tensors, numbers), "{report}");
        report.unexpected
    };
    let v1 = "mobilenet_1_0_224_tf.safetensors";
    let head = check("mobilenet", Head::None, v1, 135, 3_228_864);
    assert_eq!(head, ["conv_preds/bias", "conv_preds/kernel"]);
    assert!(check("mobilenet", Head::ImageNet, v1, 137, 3_228_864 + 1_025_000).is_empty());
    let v2 = "mobilenet_v2_1_0_224_no_top.safetensors";
    assert!(check("mobilenetv2", Head::None, v2, 260, 2_257_984).is_empty());
}
