//! Every kind of layer, against the engine.

use super::super::target::Target;
use super::super::trace::Trace;
use super::Pixel;
use crate::activation::Activation;
use crate::models::by_name;
use crate::nn::layers::Layer;
use crate::nn::{Graph, Id, Model};
use crate::ops::Padding;
use crate::tensor::Tensor;

/// Parameters that are not the initializers' zeros and ones: biases, and statistics that differ.
fn model(graph: Graph) -> Model {
    Model::with(graph, |path, shape, initializer| match path.rsplit('/').next() {
        Some("bias" | "beta" | "moving_mean") => {
            Tensor::rand_uniform(shape, -0.5, 0.5, path.len() as u64)
        }
        Some("gamma" | "moving_variance") => Tensor::rand_uniform(shape, 0.5, 1.5, path.len() as u64),
        _ => initializer.fill(shape, 5, path),
    })
}

/// Pixels of a layer: the corners, which padding touches, and some within.
fn pixels([h, w, c]: [usize; 3]) -> Vec<Pixel> {
    let along = |n: usize| [0, n / 3, n / 2, n - 1];
    let pixels = along(h).into_iter().flat_map(|y| along(w).into_iter().map(move |x| (y, x)));
    let mut all: Vec<Pixel> =
        pixels.flat_map(|(y, x)| [0, c / 2, c - 1].map(|channel| Pixel::new(y, x, channel))).collect();
    all.sort();
    all.dedup();
    all
}

/// Every layer's numbers are what the engine computed, and their gradients what the tape has.
fn check(model: &Model, side: usize) {
    let x = Tensor::rand_uniform([1, side, side, 3], -1.0, 1.0, 7);
    let trace = Trace::new(model, &x, |logits| Ok(Target::likeliest(logits))).unwrap();
    let (mut gradients, mut numbers) = (0, 0);
    for (i, node) in model.graph.nodes().iter().enumerate() {
        let id = Id(i);
        for pixel in pixels(trace.sides(id)) {
            let place = format!("{} `{}` {pixel}", model.graph.name, node.name);
            let back = trace.backpropagation(id, pixel).unwrap();
            let size: f64 = back.shares.iter().map(|s| (s.gradient * s.factor).abs()).sum();
            let off = (back.sum - back.tape).abs();
            assert!(off <= 1e-5 * size + 1e-12, "{place}: {} {} of {size}", back.sum, back.tape);
            gradients += usize::from(back.tape != 0.0 && !back.shares.is_empty());
            if i == 0 {
                continue;
            }
            let made = trace.computation(id, pixel).unwrap();
            let size: f64 =
                made.terms.iter().map(|t| (t.value * t.factor).abs()).sum::<f64>() + made.bias.abs();
            let off = (made.value - made.engine).abs();
            assert!(off <= 1e-5 * size + 1e-7, "{place}: {} {} of {size}", made.value, made.engine);
            numbers += usize::from(made.engine != 0.0);
        }
    }
    assert!(numbers > 20 && gradients > 10, "{}: {numbers} numbers, {gradients}", model.graph.name);
}

#[test]
fn convolutions_norms_branches_and_pools_are_what_the_engine_computes() {
    let mut g = Graph::new("all kinds", "input", [12, 12, 3]);
    let conv = Layer::conv2d(6, 3).with_padding(Padding::Same).with_stride(2);
    let a = g.chain(g.input(), [conv, Layer::batch_normalization()]).unwrap();
    let a = g.add(Layer::Activation(Activation::Relu6), &[a]).unwrap();
    let b = g.add(Layer::depthwise_conv2d().with_dilation(2).with_bias(true), &[a]).unwrap();
    let sum = g.add(Layer::Add, &[a, b]).unwrap();
    let twice = g.add(Layer::Add, &[sum, sum]).unwrap();
    let pad = g.add(Layer::ZeroPadding2D([[0, 1], [1, 0]]), &[twice]).unwrap();
    let max = g.add(Layer::max_pooling2d(3).with_stride(2), &[pad]).unwrap();
    let same = Layer::average_pooling2d(3).with_stride(2).with_padding(Padding::Same);
    let mean = g.add(same, &[twice]).unwrap();
    let own = Layer::conv2d(5, 1).with_activation(Activation::Relu);
    let mean = g.add(own, &[mean]).unwrap();
    let both = g.add(Layer::Concatenate, &[max, mean, max]).unwrap();
    let up = g.add(Layer::UpSampling2D([2, 3]), &[both]).unwrap();
    let tanh = g.add(Layer::conv2d(4, 2).with_activation(Activation::Tanh), &[up]).unwrap();
    let global = g.add(Layer::GlobalMaxPooling2D, &[tanh]).unwrap();
    let flat = g.add(Layer::Dropout(0.5), &[global]).unwrap();
    let hidden = g.add(Layer::dense(12).with_activation(Activation::Sigmoid), &[flat]).unwrap();
    let image = g.add(Layer::Reshape([2, 2, 3]), &[hidden]).unwrap();
    let flat = g.add(Layer::Flatten, &[image]).unwrap();
    g.add(Layer::dense(4).with_activation(Activation::Softmax), &[flat]).unwrap();
    check(&model(g), 12);
}

#[test]
fn whole_networks_are_what_the_engine_computes() {
    for (name, side) in [("alexnet", 120), ("mobilenetv2", 32), ("deeplabv3plus", 32)] {
        check(&Model::new(by_name(name, side, 20).unwrap(), 3), side);
    }
}

#[test]
fn a_softmax_layer_of_its_own_and_a_mean_over_the_image_are_what_the_engine_computes() {
    let mut g = Graph::new("softmax", "input", [6, 6, 3]);
    let layers =
        [Layer::conv2d(5, 3), Layer::GlobalAveragePooling2D, Layer::Activation(Activation::Softmax)];
    g.chain(g.input(), layers).unwrap();
    let model = model(g);
    let x = Tensor::rand_uniform([1, 6, 6, 3], -1.0, 1.0, 7);
    let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits))).unwrap();
    for channel in 0..5 {
        let made = trace.computation(Id(3), Pixel::new(0, 0, channel)).unwrap();
        assert!((made.value - made.engine).abs() < 1e-6);
        // The logit is explained, not its probability.
        let back = trace.backpropagation(Id(2), Pixel::new(0, 0, channel)).unwrap();
        let expected = if channel == trace.target.class { 1.0 } else { 0.0 };
        assert_eq!((back.sum, back.tape), (expected, expected));
    }
}

#[test]
fn a_pixel_outside_and_one_of_the_image_are_errors() {
    let model = model(by_name("alexnet", 120, 20).unwrap());
    let x = Tensor::zeros([1, 120, 120, 3]);
    let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits))).unwrap();
    let error = trace.computation(Id(1), Pixel::new(0, 0, 96)).unwrap_err().to_string();
    assert!(error.contains("got (0, 0) of channel 96"), "{error}");
    let error = trace.computation(Id(0), Pixel::new(0, 0, 0)).unwrap_err().to_string();
    assert!(error.contains("is the image"), "{error}");
}
