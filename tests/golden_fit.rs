//! Whole fits against Keras: twelve pictures, three epochs of batches of 5, 5 and 2, class weights,
//! several labels a row; the loss and metric of every epoch, the final weights, the final scores.

mod common;

use atrous::autograd::no_grad;
use atrous::graph::{Graph, Model, Run};
use atrous::layers::{Activation, Layer};
use atrous::losses::{Loss, sample_weights};
use atrous::metrics;
use atrous::ops::CategoricalGradient;
use atrous::optimizers::{Optimizer, Rule};
use atrous::{DType, Tensor};
use common::{Gains, Npz, fill, golden};

const TAG: &str = "optim";
const BATCHES: [std::ops::Range<usize>; 3] = [0..5, 5..10, 10..12];

fn model(activation: Activation, dtype: DType) -> Model {
    let mut g = Graph::new("tiny", "input", [12, 12, 3]);
    let c = g.add_named("c", Layer::conv2d(6, 3), &[g.input()]).unwrap();
    let a = g.add(Layer::Activation(Activation::Relu), &[c]).unwrap();
    let bn = g.add_named("bn", Layer::batch_normalization(), &[a]).unwrap();
    let flat = g.chain(bn, [Layer::max_pooling2d(2), Layer::Flatten]).unwrap();
    let d = g.add_named("d", Layer::dense(20), &[flat]).unwrap();
    g.add(Layer::Activation(activation), &[d]).unwrap();
    let value = |path: &str, shape: atrous::Shape, _| {
        Tensor::from_slice(&fill(TAG, path, &shape, &Gains::default()), shape).unwrap()
    };
    Model::with(g, value).to_dtype(dtype)
}

fn rows(array: &common::Array, range: std::ops::Range<usize>, dtype: DType) -> Tensor {
    let row: usize = array.shape[1..].iter().product();
    let shape: Vec<usize> = [range.len()].into_iter().chain(array.shape[1..].iter().copied()).collect();
    let values = &array.values[range.start * row..range.end * row];
    Tensor::from_slice(values, &shape[..]).unwrap().to_dtype(dtype)
}

fn f32s(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_f64().iter().map(|&v| v as f32).collect()
}

fn close(what: &str, got: &[f64], expected: &[f64], worst: &mut f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (g, e) in got.iter().zip(expected) {
        // Of the value itself where that is above 1: one loss is 26, and f32 holds it to 2e-6.
        let deviation = (g - e).abs() / e.abs().max(1.0);
        *worst = worst.max(deviation);
        assert!(deviation <= 1e-4, "{what}: {g} instead of {e}");
    }
}

fn fit(name: &str, loss: Loss, rule: Rule, rate: f32, binary: bool, dtype: DType) {
    let mut npz = Npz::open(golden().join(format!("optim/tinyfit_{name}.npz")));
    let (x, y) = (npz.get("x"), npz.get("y"));
    let weights = npz.get("class_weight").f32();
    let activation =
        if loss == Loss::BinaryCrossentropy { Activation::Sigmoid } else { Activation::Softmax };
    let mut model = model(activation, dtype);
    let mut optimizer = Optimizer::new(rule, rate).unwrap();
    let metric = |labels: &Tensor, output: &Tensor| match binary {
        true => metrics::binary_accuracy(&f32s(labels), &f32s(output)).unwrap(),
        false => metrics::categorical_accuracy(&f32s(labels), &f32s(output), 20).unwrap(),
    };
    let (mut losses, mut scores) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (mut loss_sum, mut score_sum) = (0.0, 0.0);
        for range in BATCHES {
            let n = range.len() as f64;
            let (x, y) = (rows(&x, range.clone(), dtype), rows(&y, range, dtype));
            let run = Run { batch_statistics: true, gradients: true, dropout: None };
            let pass = model.run(&x, run).unwrap();
            let each = sample_weights(&weights, &y).unwrap();
            let value = loss.from_logits(&pass.logits, &y, Some(&each)).unwrap();
            loss_sum += n * value.item().unwrap();
            score_sum += n * metric(&y, &pass.output);
            let gradients = value.backward().unwrap();
            optimizer.begin_step();
            for (i, leaf) in pass.leaves.iter().enumerate() {
                if let Some(gradient) = gradients.get(leaf) {
                    optimizer.update(i, &mut model.parameters[i].value, gradient).unwrap();
                }
            }
            model.update_moving(pass.moving);
        }
        losses.push(loss_sum / 12.0);
        scores.push(score_sum / 12.0);
    }
    let mut worst = 0.0;
    close(&format!("{name} loss"), &losses, &npz.get("hist_loss").values, &mut worst);
    close(&format!("{name} metric"), &scores, &npz.get("hist_metric").values, &mut worst);
    for parameter in &model.parameters {
        let expected = npz.get(&parameter.path.replace('/', "__")).values;
        close(
            &format!("{name} {}", parameter.path),
            &parameter.value.to_vec_f64(),
            &expected,
            &mut worst,
        );
    }
    let (images, labels) = (rows(&x, 0..12, dtype), rows(&y, 0..12, dtype));
    let pass = no_grad(|| model.run(&images, Run::infer())).unwrap();
    close(&format!("{name} predict"), &pass.output.to_vec_f64(), &npz.get("predict").values, &mut worst);
    let value = loss.from_logits(&pass.logits, &labels, None).unwrap().item().unwrap();
    let scores = [value, metric(&labels, &pass.output)];
    close(&format!("{name} evaluate"), &scores, &npz.get("eval_loss_metric").values, &mut worst);
    println!("{name} {dtype:?}: off by at most {worst:.1e}");
}

const CATEGORICAL: Loss = Loss::CategoricalCrossentropy { gradient: Some(CategoricalGradient::Keras) };

#[test]
fn golden_fit_with_binary_crossentropy_and_adam() {
    for dtype in [DType::F32, DType::F64] {
        fit("bce_adam", Loss::BinaryCrossentropy, Rule::adam(), 1e-3, false, dtype);
    }
}

#[test]
fn golden_fit_with_categorical_crossentropy_and_rmsprop() {
    for dtype in [DType::F32, DType::F64] {
        fit("cce_rmsprop", CATEGORICAL, Rule::rmsprop(0.0), 1e-3, true, dtype);
    }
}

#[test]
fn golden_fit_with_categorical_crossentropy_and_momentum() {
    for dtype in [DType::F32, DType::F64] {
        fit("cce_sgdm", CATEGORICAL, Rule::sgd(0.9), 0.01, false, dtype);
        fit("cce_rmsprop_mom", CATEGORICAL, Rule::rmsprop(0.9), 1e-3, false, dtype);
    }
}
