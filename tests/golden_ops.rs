//! Convolution, depthwise convolution, dense, batch norm and upsampling against TensorFlow: values
//! and every gradient, in f32 on every instruction set and in f64. And the list of all operator
//! files, none of which may go unread.
//!
//! The files hold what TensorFlow computed in f64 from f32 inputs. Upsampling is the exception:
//! TensorFlow resizes in f32 whatever the type.

mod common;

use atrous::activation::Activation;
use atrous::backend::cpu::simd::{Isa, supported};
use atrous::context::with_isa;
use atrous::ops::{self, Conv2dOptions, Method, Padding};
use atrous::{DType, Result, Tensor};
use common::{Array, Npz, files, golden, json, numbers, text};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Conv2d,
    DilatedConv2d,
    DepthwiseConv2d,
    Dense,
    BatchNorm,
    Upsampling,
    /// Read by `golden_small_ops.rs` or `data.rs`.
    Elsewhere,
}

impl Group {
    /// The group of an entry of `ops/index.json`, by its `attrs`.
    fn of(attrs: &Value) -> Self {
        if attrs["loss"].is_string() {
            return Group::Elsewhere;
        }
        match text(&attrs["op"]) {
            "conv2d" if attrs["dilation"] == 1 => Group::Conv2d,
            "conv2d" => Group::DilatedConv2d,
            "depthwise_conv2d" => Group::DepthwiseConv2d,
            "dense" => Group::Dense,
            "batchnorm" => Group::BatchNorm,
            "upsample_bilinear" => Group::Upsampling,
            "maxpool" | "avgpool" | "global_average_pool" | "global_max_pool" => Group::Elsewhere,
            "relu" | "relu6" | "softmax" | "sigmoid" | "zeropad" | "tf.image.resize" => Group::Elsewhere,
            other => panic!("no test reads operators called `{other}`"),
        }
    }
}

/// Every entry of the index: the file's name, the operator's attributes, the group.
fn index() -> Vec<(String, Value, Group)> {
    let index = json(golden().join("ops/index.json"));
    let entries = index.as_object().unwrap().iter();
    entries.map(|(name, e)| (name.clone(), e["attrs"].clone(), Group::of(&e["attrs"]))).collect()
}

/// Everything is run in these.
fn ways() -> Vec<(DType, Isa)> {
    let fast = supported().into_iter().map(|isa| (DType::F32, isa));
    fast.chain([(DType::F64, Isa::Reference)]).collect()
}

/// The largest absolute deviation from the given expected value.
type Allowed = Box<dyn Fn(f64) -> f64>;
type Inputs = BTreeMap<String, Tensor>;

fn tensor(array: &Array, dtype: DType) -> Tensor {
    Tensor::from_slice(&array.values, &array.shape[..]).unwrap().to_dtype(dtype)
}

fn check(what: &str, got: &Tensor, expected: &Array, allowed: impl Fn(f64) -> f64) {
    assert_eq!(got.shape()[..], expected.shape[..], "{what}");
    for (i, (got, expected)) in got.to_vec_f64().iter().zip(&expected.values).enumerate() {
        let deviation = (got - expected).abs();
        assert!(deviation <= allowed(*expected), "{what}: {got} instead of {expected} at {i}");
    }
}

/// Runs the operator on every file of the group, in every way: output, and the gradients by all
/// inputs that have one in the file. `also` looks at what else the file has.
fn check_group(
    group: Group,
    run: impl Fn(&Value, &Inputs) -> Result<Tensor>,
    also: impl Fn(&str, &Value, &Inputs, &mut Npz),
) {
    let entries: Vec<_> = index().into_iter().filter(|(_, _, g)| *g == group).collect();
    assert!(!entries.is_empty());
    for (name, attrs, _) in &entries {
        let mut file = Npz::open(golden().join(format!("ops/{name}.npz")));
        let names = file.names();
        let with_prefix = |prefix: &str| -> Vec<String> {
            names.iter().filter_map(|n| n.strip_prefix(prefix)).map(str::to_owned).collect()
        };
        let (inputs, gradients) = (with_prefix("in_"), with_prefix("g_"));
        assert!(!gradients.is_empty() && gradients.iter().all(|g| inputs.contains(g)), "{name}");
        for (dtype, isa) in ways() {
            let what = format!("{name} {dtype:?} {isa:?}");
            let inputs: Inputs = inputs
                .iter()
                .map(|input| {
                    let value = tensor(&file.get(&format!("in_{input}")), dtype);
                    (input.clone(), if gradients.contains(input) { value.leaf() } else { value })
                })
                .collect();
            // In f64 what was stored as f64 is met to 1e-9, and what was rounded to f32 to that and
            // half a unit in f32's last place.
            let rounded = |e: f64| 1e-9 + e.abs() / (1u64 << 24) as f64;
            let (value, gradient): (Allowed, Allowed) = match (dtype, group) {
                (DType::F64, Group::Upsampling) => (Box::new(|_| 1e-6), Box::new(|_| 2e-5)),
                (DType::F64, _) => (Box::new(|_| 1e-9), Box::new(rounded)),
                _ => (Box::new(|_| 1e-5), Box::new(|_| 2e-5)),
            };
            with_isa(isa, || {
                let y = run(attrs, &inputs).unwrap();
                let mut got = y.backward_from(tensor(&file.get("gy"), dtype)).unwrap();
                check(&what, &y, &file.get("y_f64"), value);
                for name in &gradients {
                    let got = got.take(&inputs[name]).unwrap();
                    check(&format!("{what} ∂{name}"), &got, &file.get(&format!("g_{name}")), &gradient);
                }
                also(&what, attrs, &inputs, &mut file);
            });
        }
    }
    println!("{group:?}: {} files in {} ways", entries.len(), ways().len());
}

fn nothing(_: &str, _: &Value, _: &Inputs, _: &mut Npz) {}

fn number(attrs: &Value, key: &str) -> usize {
    attrs[key].as_u64().unwrap_or_else(|| panic!("no number `{key}` in {attrs}")) as usize
}

fn options(attrs: &Value, dilation: usize) -> Conv2dOptions {
    let padding = match text(&attrs["padding"]) {
        "same" => Padding::Same,
        "valid" => Padding::Valid,
        other => panic!("no padding `{other}`"),
    };
    let (stride, dilation) = ([number(attrs, "stride"); 2], [dilation; 2]);
    Conv2dOptions { stride, padding, dilation }
}

fn conv2d(attrs: &Value, inputs: &Inputs) -> Result<Tensor> {
    assert_eq!(inputs.contains_key("b"), attrs["bias"] == true);
    let options = options(attrs, number(attrs, "dilation"));
    ops::conv2d(&inputs["x"], &inputs["w"], inputs.get("b"), options)
}

#[test]
fn golden_conv2d() {
    check_group(Group::Conv2d, conv2d, nothing);
}

#[test]
fn golden_dilated_conv2d() {
    check_group(Group::DilatedConv2d, conv2d, nothing);
}

#[test]
fn golden_depthwise_conv2d() {
    let run = |attrs: &Value, inputs: &Inputs| {
        let options = options(attrs, 1);
        match &attrs["explicit_pad_before"] {
            Value::Null => ops::depthwise_conv2d(&inputs["x"], &inputs["w"], None, options),
            pad => {
                let pad: Vec<usize> = numbers(pad).into_iter().map(|n| n as usize).collect();
                let x = ops::zero_pad2d(&inputs["x"], [[pad[0], pad[1]], [pad[2], pad[3]]])?;
                ops::depthwise_conv2d(&x, &inputs["w"], None, options)
            }
        }
    };
    check_group(Group::DepthwiseConv2d, run, nothing);
}

#[test]
fn golden_dense() {
    let run = |_: &Value, x: &Inputs| ops::dense(&x["x"], &x["w"], Some(&x["b"]));
    check_group(Group::Dense, run, nothing);
}

/// Both modes, and the statistics that a training batch leaves: the moving mean, the moving variance
/// of TensorFlow 2.6 (Bessel's correction) and that of Keras 3 (the biased variance, as it is).
#[test]
fn golden_batch_norm() {
    let train = |attrs: &Value, x: &Inputs| {
        let epsilon = attrs["eps"].as_f64().unwrap();
        ops::batch_norm_train(&x["x"], &x["gamma"], &x["beta"], epsilon, Activation::Linear)
    };
    let run = |attrs: &Value, x: &Inputs| {
        if attrs["training"] == true {
            return Ok(train(attrs, x)?.y);
        }
        let epsilon = attrs["eps"].as_f64().unwrap();
        ops::batch_norm_infer(
            &x["x"],
            &x["gamma"],
            &x["beta"],
            &x["mean"],
            &x["var"],
            epsilon,
            Activation::Linear,
        )
    };
    let statistics = |what: &str, attrs: &Value, x: &Inputs, file: &mut Npz| {
        if attrs["training"] != true {
            return;
        }
        let momentum = attrs["momentum"].as_f64().unwrap();
        let batch = train(attrs, x).unwrap();
        let (mean, variance) = batch.moving(&x["mean"], &x["var"], momentum).unwrap();
        let (bessel, biased) = (file.get("new_var"), file.get("new_var_biased"));
        // Keras computed these in f32.
        check(&format!("{what} moving mean"), &mean, &file.get("new_mean"), |_| 1e-6);
        check(&format!("{what} moving variance"), &variance, &bessel, |_| 1e-6);
        let blend = |(old, new): (&f64, &f64)| old * momentum + new * (1.0 - momentum);
        let (old, new) = (x["var"].to_vec_f64(), batch.variance.to_vec_f64());
        let got: Vec<f64> = old.iter().zip(&new).map(blend).collect();
        let got = Tensor::from_slice(&got, [got.len()]).unwrap();
        check(&format!("{what} biased variance"), &got, &biased, |_| 1e-6);
        // The two differ by more than what is allowed: taking one for the other would be seen.
        let apart = bessel.values.iter().zip(&biased.values).any(|(a, b)| (a - b).abs() > 1e-5);
        assert_eq!(apart, batch.count > 1, "{what}");
    };
    check_group(Group::BatchNorm, run, statistics);
}

#[test]
fn golden_upsampling() {
    let run = |attrs: &Value, inputs: &Inputs| {
        let (x, factor) = (&inputs["x"], number(attrs, "factor"));
        ops::resize(x, x.shape()[1] * factor, x.shape()[2] * factor, Method::Bilinear)
    };
    check_group(Group::Upsampling, run, nothing);
}

/// Each file is either in a group above, or named in the source of one of the two other tests.
#[test]
fn golden_operator_files_are_all_read() {
    let small = include_str!("golden_small_ops.rs");
    let data = include_str!("data.rs");
    let named = |file: &str| {
        let (stem, last) = file.rsplit_once('_').unwrap_or((file, ""));
        let family = file.split('_').next().unwrap();
        small.contains(&format!("\"{file}\""))
            // `format!("bce_rawprob_{labels}")` with the labels in a list
            || small.contains(&format!("\"{stem}_{{labels}}\"")) && small.contains(&format!("\"{last}\""))
            // all files that begin with it
            || data.contains(&format!("operator_files(\"{family}_\")"))
    };
    let mut counts = BTreeMap::new();
    for (name, _, group) in index() {
        *counts.entry(group).or_insert(0) += 1;
        assert!(group != Group::Elsewhere || named(&name), "{name} is read by no test");
    }
    assert!(!named("conv_s1_same") && !named("bce_rawprob_other"));
    let total: usize = counts.values().sum();
    println!("{total} files: {counts:?}");

    let stems = files(golden().join("ops"), "npz").into_iter();
    let stems: Vec<String> =
        stems.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let mut names: Vec<String> = index().into_iter().map(|(name, ..)| name).collect();
    names.sort();
    assert_eq!(stems, names);
    assert_eq!(total, 79);
}
