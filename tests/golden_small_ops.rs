//! The small operators and the losses against TensorFlow: values and gradients, in f32 on every
//! instruction set and in f64.
//!
//! The files hold what TensorFlow computed in f64 from f32 inputs; `y_f64` and `loss` are stored as
//! f64, all else rounded to f32. `ATROUS_GOLDEN` names another folder with the same files.

mod common;

use atrous::backend::cpu::simd::{Isa, supported};
use atrous::context::with_isa;
use atrous::ops::{self, CategoricalGradient, Padding, PoolOptions};
use atrous::{DType, Result, Tensor};

/// The arrays of one file, as tensors.
struct Npz(common::Npz);

impl Npz {
    fn open(name: &str) -> Self {
        Npz(common::Npz::open(common::golden().join(format!("ops/{name}.npz"))))
    }

    fn get(&mut self, name: &str, dtype: DType) -> Tensor {
        let array = self.0.get(name);
        Tensor::from_slice(&array.values, &array.shape[..]).unwrap().to_dtype(dtype)
    }
}

/// Everything is run in these.
fn ways() -> Vec<(DType, Isa)> {
    let fast = supported().into_iter().map(|isa| (DType::F32, isa));
    fast.chain([(DType::F64, Isa::Reference)]).collect()
}

/// The largest allowed absolute deviation is `f32` for f32; in f64 it is 1e-9 from arrays stored as
/// f64 and 1e-6 from those stored as f32.
fn check(what: &str, got: &Tensor, expected: &Tensor, f32: f64, stored_as_f64: bool) {
    let tolerance = match got.dtype() {
        DType::F64 if stored_as_f64 => 1e-9,
        DType::F64 => 1e-6,
        _ => f32,
    };
    assert_eq!(got.shape(), expected.shape(), "{what}");
    for (i, (got, expected)) in got.to_vec_f64().iter().zip(expected.to_vec_f64()).enumerate() {
        let deviation = (got - expected).abs();
        assert!(deviation <= tolerance, "{what}: {got} instead of {expected} at {i}");
    }
}

/// An operator on one input: its output, and the gradient by the input.
fn check_op(name: &str, f: impl Fn(&Tensor) -> Result<Tensor>) {
    for (dtype, isa) in ways() {
        with_isa(isa, || {
            let mut file = Npz::open(name);
            let x = file.get("in_x", dtype).leaf();
            let y = f(&x).unwrap();
            let mut gradients = y.backward_from(file.get("gy", dtype)).unwrap();
            let what = format!("{name} {dtype:?} {isa:?}");
            check(&what, &y, &file.get("y_f64", DType::F64), 1e-5, true);
            let gradient = gradients.take(&x).unwrap();
            check(&format!("{what} gradient"), &gradient, &file.get("g_x", DType::F64), 2e-5, false);
        });
    }
}

/// Values and gradients, in f32.
const TOLERANCE: (f64, f64) = (1e-5, 2e-5);

/// A loss, with and without sample weights, and its gradient by z.
fn check_loss(
    name: &str,
    (loss_tolerance, gradient_tolerance): (f64, f64),
    f: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>,
) {
    for (dtype, isa) in ways() {
        with_isa(isa, || {
            let mut file = Npz::open(name);
            let z = file.get("z", dtype).leaf();
            let (y, weights) = (file.get("y", dtype), file.get("sw", dtype));
            for (suffix, weights) in [("", None), ("_w", Some(&weights))] {
                let loss = f(&z, &y, weights).unwrap();
                let gradient = loss.backward().unwrap().take(&z).unwrap();
                let what = format!("{name}{suffix} {dtype:?} {isa:?}");
                let expected = file.get(&format!("loss{suffix}"), DType::F64);
                check(&what, &loss, &expected, loss_tolerance, true);
                let expected = file.get(&format!("gz{suffix}"), DType::F64);
                check(&format!("{what} gradient"), &gradient, &expected, gradient_tolerance, false);
            }
        });
    }
}

#[test]
fn golden_max_pool() {
    let pool = |name, options| check_op(name, move |x| ops::max_pool2d(x, options));
    pool("maxpool_2s2", PoolOptions::new(2));
    pool("maxpool_3s3", PoolOptions::new(3));
    pool("maxpool_4s4", PoolOptions::new(4));
    pool("maxpool_3s2", PoolOptions::new(3).stride(2));
    pool("maxpool_3s2_same", PoolOptions::new(3).stride(2).padding(Padding::Same));
    pool("maxpool_1s2", PoolOptions::new(1).stride(2));
    pool("maxpool_ties", PoolOptions::new(2));
    check_op("gmp", ops::global_max_pool);
}

#[test]
fn golden_average_pool() {
    let pool = |name, options| check_op(name, move |x| ops::average_pool2d(x, options));
    pool("avgpool_2s2", PoolOptions::new(2));
    pool("avgpool_14", PoolOptions::new(14));
    pool("avgpool_3s2_same", PoolOptions::new(3).stride(2).padding(Padding::Same));
    check_op("gap", ops::global_average_pool);
}

#[test]
fn golden_activations_and_padding() {
    check_op("relu", ops::relu);
    check_op("relu6", ops::relu6);
    check_op("sigmoid", ops::sigmoid);
    check_op("softmax", ops::softmax);
    check_op("zeropad_01", |x| ops::zero_pad2d(x, [[0, 1], [0, 1]]));
}

#[test]
fn golden_losses_from_logits() {
    for labels in ["onehot", "multihot", "zerorow"] {
        check_loss(&format!("bce_sigmoidlayer_{labels}"), TOLERANCE, ops::binary_cross_entropy);
        let rule = Some(CategoricalGradient::Keras);
        check_loss(&format!("cce_softmaxlayer_{labels}"), TOLERANCE, move |z, y, w| {
            ops::softmax_cross_entropy(z, y, w, rule)
        });
    }
    // With one label a row, both gradients are the same and need not be named.
    for rule in [None, Some(CategoricalGradient::True)] {
        check_loss("cce_softmaxlayer_onehot", TOLERANCE, move |z, y, w| {
            ops::softmax_cross_entropy(z, y, w, rule)
        });
    }
    for name in ["scce_logits_int", "scce_logits_floatlabels"] {
        check_loss(name, TOLERANCE, |z, y, w| ops::sparse_softmax_cross_entropy(z, y, w, None));
    }
}

#[test]
fn golden_losses_of_probabilities() {
    for labels in ["onehot", "multihot", "zerorow"] {
        // f32 has few numbers just below 1: there, 1 − ε is 1 − 1.19e-7. Each of the ten elements of
        // a hundred that are clipped to it is off by ln(2.19/2) = 0.09, TensorFlow's in f32 as well.
        check_loss(&format!("bce_rawprob_{labels}"), (1e-2, 1e-4), |z, y, w| {
            ops::binary_cross_entropy_of_probabilities(&ops::sigmoid(z)?, y, w)
        });
        check_loss(&format!("cce_rawprob_{labels}"), TOLERANCE, |z, y, w| {
            ops::categorical_cross_entropy_of_probabilities(&ops::softmax(z)?, y, w)
        });
    }
}
