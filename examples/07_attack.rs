//! An attack by hand: a network is trained, then each image is changed a little, against the network (FGSM:
//! Goodfellow, Shlens and Szegedy, 2015).
//!
//!     cargo run --release --example 07_attack

mod images;

use atrous::data::synthetic::Synthetic;
use atrous::prelude::*;
use images::{Images, NAMES, SIDE, accuracy};

/// A network as a graph of layers: it knows its parameters, their names and shapes by itself.
fn network() -> Result<Model> {
    let mut graph = Graph::new("small", "input", [SIDE, SIDE, 3]);
    let mut last = graph.input();
    for filters in [16, 32, 64] {
        let convolution = Layer::conv2d(filters, 3).with_padding(Padding::Same);
        let layers = [convolution.with_activation(Activation::Relu), Layer::max_pooling2d(2)];
        last = graph.chain(last, layers)?;
    }
    graph.chain(last, [Layer::GlobalAveragePooling2D, Layer::dense(NAMES.len())])?;
    Ok(Model::new(graph, 1))
}

/// x + ε·sign(∂L/∂x), within what an image can hold: the step of size ε a pixel that raises the loss most, as
/// far as the gradient tells.
fn fgsm(model: &Model, x: &Tensor, y: &Tensor, epsilon: f64) -> Result<Tensor> {
    let x = x.leaf();
    let loss = model.run(&x, Mode::infer())?.logits.sparse_softmax_cross_entropy(y)?;
    let gradients = loss.backward()?;
    let gradient =
        gradients.get(&x).ok_or(Error::argument("fgsm", "the loss does not depend on the image"))?;
    (x.detach() + epsilon * gradient.sign()?)?.clip(0.0, 1.0)
}

fn main() -> Result<()> {
    let training = Images::new(Synthetic::train(1, 20_000), 480)?;
    let mut model = network()?;
    let mut adam = Optimizer::adam(3e-3)?;
    for epoch in 0..10 {
        let mut sum = 0.0;
        let batches = training.shuffled(16, epoch);
        for chosen in &batches {
            let (x, y) = training.batch(chosen)?;
            let pass = model.run(&x, Mode::train(1, adam.steps()))?;
            let loss = pass.logits.sparse_softmax_cross_entropy(&y)?;
            sum += loss.item()?;
            adam.begin_step();
            adam.backward_and_step(&mut model, loss, pass, None)?;
        }
        println!("epoch {epoch:2}: loss {:.3}", sum / batches.len() as f64);
    }

    let (x, y) = Images::new(Synthetic::test(1, 20_000), 160)?.all()?;
    for steps in [0, 2, 4, 8, 16] {
        let epsilon = steps as f64 / 255.0;
        let attacked = fgsm(&model, &x, &y, epsilon)?;
        let noise = (&x + epsilon * Tensor::randn(x.shape(), 3).sign()?)?.clip(0.0, 1.0)?;
        let [by_attack, by_noise] = [attacked, noise].map(|x| no_grad(|| model.run(&x, Mode::infer())));
        println!(
            "every pixel {steps}/255 off: accuracy {:.3}, at random {:.3}",
            accuracy(&by_attack?.logits, &y),
            accuracy(&by_noise?.logits, &y)
        );
    }
    Ok(())
}
