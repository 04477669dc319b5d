//! Files that other programs write in a way of their own, and numbers with which nothing can be computed:
//! read as they are meant, or refused by name.

use super::{Report, SMALL, atrous, inner_weights, refused, small, tiny, torchvision};
use atrous::Tensor;
use atrous::models::{Head, Spec};
use atrous::nn::Model;
use atrous::weights::{self, Origin};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// Float datatypes of HDF5 up to the exponent's bias: as in the file, and as in a changed copy.
pub fn with_datatype(name: &str, change: impl Fn(&mut [u8])) -> Result<weights::WeightFile, String> {
    let mut bytes = std::fs::read(small(name)).unwrap();
    let is_float = |at: &usize| {
        // Class 1, version 1; two or four bytes; no offset.
        bytes[*at] == 0x11 && matches!(bytes[at + 4..at + 10], [2 | 4, 0, 0, 0, 0, 0])
    };
    let at = (0..bytes.len() - 20).find(is_float).unwrap();
    change(&mut bytes[at..at + 20]);
    weights::parse(Path::new(name), bytes)
}

fn numbers(file: &weights::WeightFile) -> Option<Vec<f64>> {
    file.entries[0].tensor.as_ref().map(Tensor::to_vec_f64)
}

#[test]
fn a_float_of_hdf5_is_what_its_bits_say_and_not_what_its_size_suggests() {
    for (name, dtype) in [("float_bfloat16.h5", "bfloat16"), ("float_e11m20.h5", "float32_e11m20")] {
        let file = with_datatype(name, |_| {}).unwrap();
        assert_eq!(numbers(&file).unwrap(), [1.0, -0.5, 0.25, 3.0], "{name}");
        assert_eq!(file.entries[0].dtype, dtype);
        // Sixteen times as much, by a bias that is four less.
        let biased = with_datatype(name, |datatype| datatype[16] -= 4);
        assert_eq!(numbers(&biased.unwrap()).unwrap(), [16.0, -8.0, 4.0, 48.0], "{name}");
    }
    // As float16, with five bits of exponent, the same bytes would be other numbers.
    let half = with_datatype("float_bfloat16.h5", |datatype| {
        datatype[12..20].copy_from_slice(&[10, 5, 0, 10, 15, 0, 0, 0]);
    });
    assert_eq!(numbers(&half.unwrap()).unwrap(), [1.875, -1.75, 1.625, 2.125]);
}

#[test]
fn a_float_of_hdf5_with_an_unknown_layout_is_not_guessed() {
    type Change = fn(&mut [u8]);
    let changes: [(&str, Change); 5] = [
        ("the leading one is written", |datatype| datatype[1] &= !0x30),
        ("a VAX' order of bytes", |datatype| datatype[1] |= 0x41),
        ("bits below the number", |datatype| datatype[8] = 1),
        ("mantissa and exponent overlap", |datatype| datatype[15] += 1),
        ("the sign is outside", |datatype| datatype[2] = 200),
    ];
    for name in ["float_bfloat16.h5", "float_e11m20.h5"] {
        for (what, change) in changes {
            let file = with_datatype(name, change).unwrap();
            assert_eq!(numbers(&file), None, "{name}: {what}");
            assert!(file.entries[0].dtype.ends_with("of an unknown layout"), "{name}: {what}");
        }
    }
}

/// The nearest bfloat16, of two as near the one whose last bit is zero.
fn rounded(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

#[test]
fn bfloat16_of_keras_is_read_from_keras_and_from_weights_h5() {
    let loaded = |file: weights::WeightFile| {
        let mut model = tiny();
        let report = weights::load(&mut model, &file, &[]).unwrap();
        assert_eq!(report.matched.len(), model.parameters.len(), "{report}");
        model
    };
    let exact = loaded(weights::read(small("tiny_keras3.keras")).unwrap());
    let name = "tiny_keras3_bfloat16.keras";
    let archive = weights::read(small(name)).unwrap();
    let inside = weights::parse(Path::new("a.weights.h5"), inner_weights(name)).unwrap();
    for file in [archive, inside] {
        assert!(file.entries.iter().all(|entry| entry.dtype == "bfloat16"));
        for (got, exact) in loaded(file).parameters.iter().zip(&exact.parameters) {
            let expected: Vec<f32> =
                exact.value.as_slice().unwrap().iter().map(|&v| rounded(v)).collect();
            assert_eq!(got.value.as_slice::<f32>().unwrap(), expected, "{}", got.path);
        }
    }
}

#[test]
fn numbered_weights_without_names_are_shown_and_not_loaded() {
    let bytes = inner_weights("tiny_keras3_0.keras");
    let file = weights::parse(Path::new("old.weights.h5"), bytes).unwrap();
    assert_eq!(file.entries.len(), 14);
    let error = weights::load(&mut tiny(), &file, &[]).unwrap_err().to_string();
    assert!(error.contains("old.weights.h5: expected names of layers"), "{error}");
    assert!(error.contains("/vars/0`"), "{error}");
    for name in SMALL {
        assert_eq!(weights::read(small(name)).unwrap().nameless, None, "{name}");
    }
}

/// Writes a file of safetensors again with other names, and with metadata.
fn renamed(from: &Path, to: &Path, metadata: Option<(&str, &str)>, name: impl Fn(&str) -> Vec<String>) {
    let bytes = std::fs::read(from).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let views = file.tensors().into_iter().flat_map(|(old, view)| {
        name(&old).into_iter().map(move |new| {
            (new, TensorView::new(view.dtype(), view.shape().to_vec(), view.data()).unwrap())
        })
    });
    let metadata = metadata.map(|(key, text)| HashMap::from([(key.to_owned(), text.to_owned())]));
    std::fs::write(to, safetensors::serialize(views, metadata).unwrap()).unwrap();
}

/// MobileNetV2 without a head, loaded from a file, and the report.
fn mobilenet_v2(path: &Path) -> atrous::Result<(Model, Report)> {
    let file = weights::read(path)?;
    let graph = Spec { head: Head::None, ..Spec::new("mobilenetv2", 64, 20) }.graph()?;
    let mut model = Model::with(file.origin.configure(&graph)?, |_, shape, _| Tensor::zeros(shape));
    let report = weights::load(&mut model, &file, &[])?;
    Ok((model, report))
}

#[test]
fn prefixes_of_wrappers_come_off_with_a_line_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, wrapped) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    torchvision(&plain, |_, _, values| {
        values.iter_mut().enumerate().for_each(|(i, v)| *v = (i % 97) as f32);
    });
    let (expected, report) = mobilenet_v2(&plain).unwrap();
    assert!(report.remarks.is_empty(), "{report}");
    for prefix in ["module.", "model.", "backbone.", "_orig_mod.", "module._orig_mod.model."] {
        renamed(&plain, &wrapped, None, |name| vec![format!("{prefix}{name}")]);
        let (model, report) = mobilenet_v2(&wrapped).unwrap();
        assert_eq!(report.origin, Origin::Torchvision);
        let line = format!("`{prefix}` is taken off the names of 260 tensors");
        assert!(report.to_string().contains(&line), "{report}");
        for (got, expected) in model.parameters.iter().zip(&expected.parameters) {
            assert_eq!(got.value.as_slice::<f32>(), expected.value.as_slice::<f32>(), "{}", got.path);
        }
    }
    renamed(&plain, &wrapped, None, |name| vec![format!("student.{name}"), format!("teacher.{name}")]);
    let error = mobilenet_v2(&wrapped).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("b.safetensors: expected one network, got several: `student.` and"),
        "{error}"
    );
}

#[test]
fn an_origin_that_another_program_wrote_is_told_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, said) = (folder.path().join("a.safetensors"), folder.path().join("b.safetensors"));
    torchvision(&plain, |_, _, _| {});
    let origin = "https://example.org/\x1b[31m";
    renamed(&plain, &said, Some(("origin", origin)), |name| vec![name.to_owned()]);
    let (_, report) = mobilenet_v2(&said).unwrap();
    assert_eq!((report.origin, report.matched.len()), (Origin::Torchvision, 260));
    let line = r"the origin `https://example.org/\u{1b}[31m`, which is not known here";
    assert!(report.to_string().contains(line), "{report}");
}

/// Keras-named weights of MobileNetV2 or another network with this head, one parameter changed.
fn keras(path: &Path, name: &str, head: Head, classes: usize, change: impl Fn(&str, &mut [f32])) {
    let spec = Spec { head, ..Spec::new(name, 64, classes) };
    let model = Model::new(spec.graph().unwrap(), 1);
    let tensors = model.parameters.into_iter().map(|parameter| {
        let mut values = parameter.value.as_slice::<f32>().unwrap().to_vec();
        change(&parameter.path, &mut values);
        let tensor = Tensor::from_slice(&values, parameter.value.shape()).unwrap();
        (parameter.path, tensor)
    });
    weights::save(path, &tensors.collect::<Vec<_>>(), Origin::Keras).unwrap();
}

#[test]
fn a_variance_below_minus_epsilon_is_refused_and_one_above_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let with = |variance: f32| {
        keras(&path, "mobilenetv2", Head::None, 20, |name, values| {
            if name == "bn_Conv1/moving_variance" {
                values[3] = variance;
            }
        });
        mobilenet_v2(&path)
    };
    for variance in [-0.5, -0.001, f32::MIN] {
        let error = with(variance).map(|_| ()).unwrap_err().to_string();
        let wanted = format!(
            "`bn_Conv1/moving_variance`: expected variances above −0.001, which is added to them, \
             got {variance} at [3] (1 of 32"
        );
        assert!(error.contains(&wanted), "{error}");
    }
    let (model, report) = with(-0.0005).unwrap();
    assert!(report.to_string().contains("this has -0.0005 at [3] (1 of 32"), "{report}");
    assert_eq!(model.first_unusable(), None);
    assert!(with(0.0).unwrap().1.remarks.is_empty());
    // PyTorch adds less.
    torchvision(&path, |name, _, values| {
        if name == "features.0.1.running_var" {
            values[31] = -0.0005;
        }
    });
    let error = mobilenet_v2(&path).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`features.0.1.running_var`: expected variances above −0.00001"), "{error}");
    let inspect = ["weights", "inspect", path.to_str().unwrap(), "--model", "mobilenetv2"];
    refused(&inspect, &["`features.0.1.running_var`", "got -0.0005 at [31]"]);
}

#[test]
fn a_model_names_its_first_number_that_is_of_no_use() {
    let set = |path: &str, at: usize, value: f32| {
        let mut model = tiny();
        let tensor = &model.parameter(path).unwrap().value;
        let mut values = tensor.as_slice::<f32>().unwrap().to_vec();
        values[at] = value;
        let tensor = Tensor::from_slice(&values, tensor.shape()).unwrap();
        model.set(path, tensor).unwrap();
        model.first_unusable()
    };
    assert_eq!(tiny().first_unusable(), None);
    let nan = set("conv_dw_1_bn/gamma", 2, f32::NAN).unwrap();
    assert_eq!(nan, "`conv_dw_1_bn/gamma`: expected finite numbers, got NaN at 2");
    assert!(set("dense/kernel", 7, f32::INFINITY).unwrap().contains("`dense/kernel`"));
    let variance = set("conv1_bn/moving_variance", 5, -0.25).unwrap();
    assert!(
        variance.starts_with("`conv1_bn/moving_variance`: expected variances above −0.001"),
        "{variance}"
    );
    // Any other parameter may be negative.
    assert_eq!(set("conv1_bn/moving_mean", 5, -0.25), None);
    assert_eq!(set("conv1_bn/moving_variance", 5, -0.0009), None);
}

/// Writes f64 arrays under the names of `tiny`'s parameters, zeros but for what is changed.
fn doubles(path: &Path, change: impl Fn(&str, &mut [f64])) {
    let arrays: Vec<_> = tiny()
        .parameters
        .into_iter()
        .map(|parameter| {
            let shape = parameter.value.shape().to_vec();
            let mut values = vec![0.0; shape.iter().product()];
            change(&parameter.path, &mut values);
            (parameter.path, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
        })
        .collect();
    let views = arrays.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_double_too_large_for_a_float_is_called_that_and_not_infinite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let load = |number: f64| {
        doubles(&path, |name, values| {
            if name == "conv2d/kernel" {
                values[7] = number;
            }
        });
        weights::load(&mut tiny(), &weights::read(&path).unwrap(), &[])
    };
    let error = load(-1e300).unwrap_err().to_string();
    let wanted = "`conv2d/kernel`: expected numbers of at most 3.4028235e38, which float32 holds, \
                  got -1e300 at [0, 0, 1, 2]";
    assert!(error.contains(wanted), "{error}");
    assert!(load(f64::INFINITY).unwrap_err().to_string().contains("expected finite numbers, got inf"));
    assert!(load(f64::from(f32::MAX)).is_ok() && load(1e-300).is_ok());
    doubles(&path, |_, values| values[0] = 1e39);
    let told = atrous(&["weights", "inspect", path.to_str().unwrap()]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("`conv2d/kernel`: 1e39 (number 0) is more than float32 holds"), "{told}");
}

#[test]
fn an_error_never_names_a_tensor_by_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let load = |tensors: &[(String, Tensor)]| {
        weights::save(&path, tensors, Origin::Keras).unwrap();
        weights::load(&mut tiny(), &weights::read(&path).unwrap(), &[]).unwrap_err().to_string()
    };
    // Every name fits, and no shape: there is no first name that is unknown.
    let shapes =
        tiny().parameters.into_iter().map(|p| (p.path, Tensor::zeros([1, 1, 1]))).collect::<Vec<_>>();
    let error = load(&shapes);
    assert!(error.contains("`conv1/kernel`: expected shape") && !error.contains("``"), "{error}");
    let error = load(&[(String::new(), Tensor::zeros([1]))]);
    assert!(
        error.contains("the first it has is a tensor without a name") && !error.contains("``"),
        "{error}"
    );
}

#[test]
fn escape_sequences_in_names_do_not_reach_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "\x1b]0;title\x07\x1b[2J\u{9b}31m\nerror: none";
    let path = folder.path().join("a.safetensors");
    weights::save(&path, &[(evil.to_owned(), Tensor::zeros([2]))], Origin::Keras).unwrap();
    let npz = folder.path().join("a.npz");
    let mut archive = ndarray_npy::NpzWriter::new(std::fs::File::create(&npz).unwrap());
    archive.add_array(evil, &ndarray::Array1::<f32>::zeros(2)).unwrap();
    archive.finish().unwrap();
    let odd = folder.path().join("\x1b[31m.npz");
    std::fs::write(&odd, "none").unwrap();
    for path in [&path, &npz, &odd] {
        let path = path.to_str().unwrap();
        for more in [&[][..], &["--model", "mobilenetv2"]] {
            let output = atrous(&[&["weights", "inspect", path], more].concat());
            let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!told.is_empty() && told.contains(r"\u{1b}"), "{told:?}");
            assert!(!told.contains(|c: char| c.is_control() && c != '\n'), "{told:?}");
            assert!(!told.lines().any(|line| line.starts_with("error: none")), "{told:?}");
        }
    }
}

#[test]
fn convert_says_which_tensors_it_leaves_out_and_what_would_keep_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (from, to) = (path("a.safetensors"), path("b.safetensors"));
    keras(Path::new(&from), "mobilenet", Head::ImageNet, 1000, |_, _| {});
    let convert = ["weights", "convert", &from, "--model", "mobilenet", "--out", &to];
    let output = atrous(&convert);
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("left out: `conv_preds/bias`, `conv_preds/kernel`"), "{told}");
    assert!(told.contains("to keep them: --head imagenet --classes 1000"), "{told}");
    assert_eq!(weights::read(&to).unwrap().entries.len(), 135);
    let output = atrous(&[&convert[..], &["--head", "imagenet"]].concat());
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !told.contains("left out"), "{told}");
    assert_eq!(weights::read(&to).unwrap().entries.len(), 137);
}

#[test]
fn a_place_where_nothing_can_be_written_shows_before_the_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let convert = |from: &str, out: &str, wanted: &str| {
        refused(&["weights", "convert", from, "--model", "mobilenetv2", "--out", out], &[wanted]);
    };
    // There is nothing to read: the place is looked at first.
    convert("none.safetensors", "-", "expected a name that ends in .safetensors");
    convert("none.safetensors", "/dev/stdout", "expected a name that ends in .safetensors");
    convert("none.safetensors", &path("nowhere/a.safetensors"), "nowhere: no such file or folder");
    std::fs::create_dir(path("folder.safetensors")).unwrap();
    convert("none.safetensors", &path("folder.safetensors"), "it is a folder");
    std::fs::write(path("a.safetensors"), "").unwrap();
    convert(&path("a.safetensors"), &path("./a.safetensors"), "it would be replaced");
}

#[cfg(unix)]
#[test]
fn what_has_no_end_is_no_file_of_weights() {
    let wanted = ["/dev/zero: expected a regular file, got a device or a pipe"];
    refused(&["weights", "inspect", "/dev/zero"], &wanted);
}
