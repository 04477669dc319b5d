//! Convolutions, dense, batch norm and resizing against TensorFlow: values and all gradients, in
//! f32 on every instruction set and in f64. And: no file of the golden operators is left out.

mod common;

use atrous::cpu::simd::{Isa, supported, with_isa};
use atrous::ops::{self, Conv2dOptions, Method, Padding};
use atrous::{DType, Result, Tensor};
use common::{Npz, golden, json, shape, text};
use serde_json::Value;

/// Operators that `golden_small_ops.rs` and this file replay. The resize of pictures is here too.
const SMALL: [&str; 9] = [
    "maxpool",
    "avgpool",
    "global_average_pool",
    "global_max_pool",
    "relu",
    "relu6",
    "softmax",
    "sigmoid",
    "zeropad",
];
const HERE: [&str; 6] =
    ["conv2d", "depthwise_conv2d", "dense", "batchnorm", "upsample_bilinear", "tf.image.resize"];

fn cases() -> Vec<(String, Value)> {
    let index = json(golden().join("ops/index.json"));
    let all = index.as_object().unwrap();
    all.iter().map(|(name, case)| (name.clone(), case["attrs"].clone())).collect()
}

fn of(op: &str) -> Vec<(String, Value)> {
    let wanted: Vec<_> = cases().into_iter().filter(|(_, attrs)| attrs["op"] == op).collect();
    assert!(!wanted.is_empty(), "no golden file of {op}");
    wanted
}

fn ways() -> Vec<(DType, Isa)> {
    let fast = supported().into_iter().map(|isa| (DType::F32, isa));
    fast.chain([(DType::F64, Isa::Reference)]).collect()
}

fn open(name: &str) -> Npz {
    Npz::open(golden().join(format!("ops/{name}.npz")))
}

fn tensor(npz: &mut Npz, name: &str, dtype: DType) -> Tensor {
    let array = npz.get(name);
    Tensor::from_slice(&array.values, &array.shape[..]).unwrap().to_dtype(dtype)
}

/// Absolute deviation of each element.
fn check(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    for (i, (got, expected)) in got.to_vec_f64().iter().zip(expected.to_vec_f64()).enumerate() {
        let deviation = (got - expected).abs();
        assert!(deviation <= tolerance, "{what}: {got} instead of {expected} at {i}");
    }
}

/// Replays one file: `inputs` are the arrays `in_…` that the operator takes, of which those with
/// an array `g_…` have a gradient.
fn replay(name: &str, inputs: &[&str], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let mut npz = open(name);
    for (dtype, isa) in ways() {
        with_isa(isa, || {
            let leaves: Vec<Tensor> = inputs
                .iter()
                .map(|input| tensor(&mut npz, &format!("in_{input}"), dtype).leaf())
                .collect();
            let output = f(&leaves).unwrap_or_else(|e| panic!("{name}: {e}"));
            let what = format!("{name} {dtype:?} {isa:?}");
            let key = if dtype == DType::F64 && npz.has("y_f64") { "y_f64" } else { "y" };
            // TensorFlow resizes in f32 whatever it is given.
            let tolerance = match dtype {
                DType::F64 if !name.starts_with("upsample") => 1e-9,
                _ => 1e-5,
            };
            check(&what, &output, &tensor(&mut npz, key, dtype), tolerance);
            if !npz.has("gy") {
                return;
            }
            let upstream = tensor(&mut npz, "gy", dtype);
            let gradients = output.backward_from(upstream).unwrap();
            for (input, leaf) in inputs.iter().zip(&leaves) {
                let key = format!("g_{input}");
                if npz.has(&key) {
                    let (got, expected) = (gradients.get(leaf).unwrap(), tensor(&mut npz, &key, dtype));
                    // Stored as f32: a relative 1e-6 where values are large.
                    let largest = expected.to_vec_f64().iter().fold(1.0f64, |m, v| m.max(v.abs()));
                    let tolerance = if dtype == DType::F64 { 1e-6 * largest } else { 2e-5 };
                    check(&format!("{what} {key}"), got, &expected, tolerance);
                }
            }
        });
    }
}

fn options(attrs: &Value) -> Conv2dOptions {
    let padding = match text(&attrs["padding"]) {
        "same" => Padding::Same,
        _ => Padding::Valid,
    };
    let number = |key: &str| attrs[key].as_u64().unwrap_or(1) as usize;
    Conv2dOptions { stride: [number("stride"); 2], padding, dilation: [number("dilation"); 2] }
}

fn convolutions(wanted: impl Fn(&Value) -> bool) {
    let mut files = 0;
    for (name, attrs) in of("conv2d").into_iter().filter(|(_, attrs)| wanted(attrs)) {
        let inputs: &[&str] = if attrs["bias"] == true { &["x", "w", "b"] } else { &["x", "w"] };
        replay(&name, inputs, |t| ops::conv2d(&t[0], &t[1], t.get(2), options(&attrs)));
        files += 1;
    }
    println!("{files} files");
    assert!(files > 0);
}

#[test]
fn golden_convolution() {
    convolutions(|attrs| attrs["dilation"] == 1);
}

#[test]
fn golden_atrous_convolution() {
    convolutions(|attrs| attrs["dilation"] != 1);
}

#[test]
fn golden_depthwise_convolution() {
    for (name, attrs) in of("depthwise_conv2d") {
        let before = &attrs["explicit_pad_before"];
        replay(&name, &["x", "w"], |t| {
            let x = match before.is_null() {
                true => t[0].clone(),
                false => {
                    let pad: Vec<usize> = shape(before);
                    ops::zero_pad2d(&t[0], [[pad[0], pad[1]], [pad[2], pad[3]]])?
                }
            };
            ops::depthwise_conv2d(&x, &t[1], None, options(&attrs))
        });
    }
}

#[test]
fn golden_dense() {
    for (name, _) in of("dense") {
        replay(&name, &["x", "w", "b"], |t| ops::dense(&t[0], &t[1], Some(&t[2])));
    }
}

#[test]
fn golden_batch_norm() {
    for (name, attrs) in of("batchnorm") {
        let epsilon = attrs["eps"].as_f64().unwrap();
        let training = attrs["training"] == true;
        replay(&name, &["x", "gamma", "beta", "mean", "var"], |t| match training {
            true => Ok(ops::batch_norm_train(&t[0], &t[1], &t[2], epsilon)?.y),
            false => ops::batch_norm_infer(&t[0], &t[1], &t[2], &t[3].detach(), &t[4].detach(), epsilon),
        });
        if !training {
            continue;
        }
        let momentum = attrs["momentum"].as_f64().unwrap();
        let mut npz = open(&name);
        for (dtype, isa) in ways() {
            let mut get = |key: &str| tensor(&mut npz, key, dtype);
            let [x, gamma, beta, mean, variance] =
                ["in_x", "in_gamma", "in_beta", "in_mean", "in_var"].map(&mut get);
            let (new_mean, new_variance) = with_isa(isa, || {
                let normed = ops::batch_norm_train(&x, &gamma, &beta, epsilon).unwrap();
                normed.moving(&mean, &variance, momentum).unwrap()
            });
            check(&format!("{name} new mean"), &new_mean, &get("new_mean"), 1e-6);
            check(&format!("{name} new variance"), &new_variance, &get("new_var"), 1e-6);
            // The sharp test of Bessel's correction: the biased variance is another number.
            if name == "bn_two_train" {
                let biased = get("new_var_biased").to_vec_f64();
                let got = new_variance.to_vec_f64();
                assert!(
                    got.iter().zip(&biased).all(|(a, b)| (a - b).abs() > 1e-5),
                    "{got:?} {biased:?}"
                );
            }
        }
    }
}

#[test]
fn golden_upsampling() {
    for (name, attrs) in of("upsample_bilinear") {
        let factor = attrs["factor"].as_u64().unwrap() as usize;
        replay(&name, &["x"], |t| {
            let size = t[0].shape();
            ops::resize(&t[0], size[1] * factor, size[2] * factor, Method::Bilinear)
        });
    }
}

#[test]
fn golden_resize() {
    for (name, _) in of("tf.image.resize") {
        let mut npz = open(&name);
        let x = tensor(&mut npz, "in_x", DType::F32);
        for (key, method) in [("y", Method::Bilinear), ("y_nearest", Method::Nearest)] {
            let expected = tensor(&mut npz, key, DType::F32);
            for isa in supported() {
                let got = with_isa(isa, || {
                    ops::resize(&x, expected.shape()[1], expected.shape()[2], method).unwrap()
                });
                // On a scale of 0 to 255.
                check(&format!("{name} {key} {isa:?}"), &got, &expected, 1e-4);
            }
        }
    }
}

#[test]
fn golden_files_are_all_replayed() {
    let all = cases();
    for (name, attrs) in &all {
        let op = attrs["op"].as_str();
        let known = match op {
            Some(op) => SMALL.contains(&op) || HERE.contains(&op),
            None => attrs["loss"].is_string(),
        };
        assert!(known, "{name}: no test replays {attrs}");
    }
    let files = common::files(golden().join("ops"), "npz").len();
    assert_eq!(all.len(), files, "files that index.json does not name");
    println!("{files} files");
    assert!(files > 0);
}
