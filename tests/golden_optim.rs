//! The optimizers against TensorFlow 2.6 and Keras 3: five steps on gradients between 1e-5 and 10,
//! some of them zero.

mod common;

use atrous::optimizers::{Group, Optimizer, OptimizerKind, Update};
use atrous::{DType, Tensor};
use common::{json, numbers};
use serde_json::Value;

fn golden() -> Value {
    json(common::golden().join("optim/optim.json"))
}

/// The largest deviation of the weights from those of `key`, over all steps.
fn deviation(
    golden: &Value,
    case: &str,
    key: &str,
    rule: OptimizerKind,
    rate: f32,
    dtype: DType,
) -> f64 {
    let tensor = |list: &Value| {
        let values = numbers(list);
        Tensor::from_slice(&values, [values.len()]).unwrap().to_dtype(dtype)
    };
    let mut optimizer = Optimizer::new(rule, rate).unwrap();
    let mut weights = tensor(&golden["w0"]);
    let expected = golden["cases"][case][key].as_array().unwrap();
    let steps = golden["grads"].as_array().unwrap();
    assert_eq!((expected.len(), steps.len()), (5, 5));
    let mut worst = 0.0f64;
    for (gradient, expected) in steps.iter().zip(expected) {
        optimizer.begin_step();
        let (parameter, gradient) = (&mut weights, tensor(gradient));
        let update = Update { index: 0, parameter, gradient: gradient.into(), group: Group::Head };
        optimizer.update(vec![update], None).unwrap();
        for (got, expected) in weights.to_vec_f64().iter().zip(numbers(expected)) {
            worst = worst.max((got - expected).abs());
        }
    }
    worst
}

fn cases() -> [(&'static str, OptimizerKind, f32); 6] {
    [
        ("sgd_plain(.01)", OptimizerKind::sgd(0.0), 0.01),
        ("sgd_momentum(1e-4,.9)", OptimizerKind::sgd(0.9), 1e-4),
        ("rmsprop(.001)", OptimizerKind::rmsprop(0.0), 0.001),
        ("rmsprop_momentum(1e-5,.9)", OptimizerKind::rmsprop(0.9), 1e-5),
        ("adam(.001)", OptimizerKind::adam(), 0.001),
        ("adam(1e-4)", OptimizerKind::adam(), 1e-4),
    ]
}

#[test]
fn golden_optimizers_agree_with_tensorflow_and_its_formula() {
    let golden = golden();
    assert_eq!(golden["cases"].as_object().unwrap().len(), cases().len());
    for (case, rule, rate) in cases() {
        for dtype in [DType::F32, DType::F64] {
            for key in ["tf26_legacy", "float64_formula_tf26"] {
                let deviation = deviation(&golden, case, key, rule, rate, dtype);
                assert!(deviation <= 1e-6, "{case} {dtype:?} {key}: off by {deviation:e}");
            }
        }
        // The learning rate is an f32 and the formula's is not: that much is left, times a change
        // of 0.5 at most.
        let deviation = deviation(&golden, case, "float64_formula_tf26", rule, rate, DType::F64);
        assert!(deviation <= 2e-8, "{case} formula: off by {deviation:e}");
    }
}

#[test]
fn golden_optimizers_agree_with_keras_3_where_it_differs() {
    let golden = golden();
    for (case, rule, rate) in cases() {
        for dtype in [DType::F32, DType::F64] {
            let deviation = deviation(&golden, case, "keras3", rule.keras3(), rate, dtype);
            assert!(deviation <= 1e-6, "{case} {dtype:?}: off by {deviation:e}");
        }
    }
    // And the difference is there: the test above would see the wrong form.
    let (case, rule, rate) = cases()[2];
    assert!(deviation(&golden, case, "keras3", rule, rate, DType::F64) > 1e-3);
}
