//! A small convolutional network learns to tell images apart, in a training loop of one's own.
//!
//!     cargo run --release --example 04_small_cnn

mod images;

use atrous::data::synthetic::Synthetic;
use atrous::prelude::*;
use images::{Images, NAMES, accuracy};

/// [N, 48, 48, 3] to logits [N, classes]: three times a convolution and a pool, so that pixels become fewer
/// and features more; then the mean of every feature, and a layer that weighs them.
fn network(x: &Tensor, [w1, b1, w2, b2, w3, b3, w4, b4]: &[Tensor; 8]) -> Result<Tensor> {
    let convolution = Conv2dOptions::default().same();
    let pool = PoolOptions::new(2);
    let x = x.conv2d(w1, b1, convolution)?.relu()?.max_pool2d(pool)?;
    let x = x.conv2d(w2, b2, convolution)?.relu()?.max_pool2d(pool)?;
    let x = x.conv2d(w3, b3, convolution)?.relu()?.max_pool2d(pool)?;
    x.global_average_pool()?.dense(w4, b4)
}

/// Random weights whose products keep the size of what they multiply (He et al., 2015).
fn weights(shape: impl Into<Shape>, seed: u64) -> Result<Tensor> {
    let shape = shape.into();
    let inputs = shape.elements() / shape.last_length();
    Ok((Tensor::randn(shape, seed) * (2.0 / inputs as f64).sqrt())?.leaf())
}

fn bias(channels: usize) -> Tensor {
    Tensor::zeros([channels]).leaf()
}

fn main() -> Result<()> {
    let training = Images::new(Synthetic::train(1, 20_000), 480)?;
    let test = Images::new(Synthetic::test(1, 20_000), 160)?;
    let mut parameters = [
        weights([3, 3, 3, 16], 1)?,
        bias(16),
        weights([3, 3, 16, 32], 2)?,
        bias(32),
        weights([3, 3, 32, 64], 3)?,
        bias(64),
        weights([64, NAMES.len()], 4)?,
        bias(NAMES.len()),
    ];
    let mut adam = Optimizer::adam(3e-3)?;
    let (test_x, test_y) = test.all()?;
    for epoch in 0..=8 {
        let logits = no_grad(|| network(&test_x, &parameters))?;
        let loss = logits.sparse_softmax_cross_entropy(&test_y)?;
        let accuracy = accuracy(&logits, &test_y);
        println!("epoch {epoch:2}: loss of unseen images {loss:.3}, accuracy {accuracy:.3}");
        for chosen in training.shuffled(16, epoch) {
            let (x, y) = training.batch(&chosen)?;
            let loss = network(&x, &parameters)?.sparse_softmax_cross_entropy(&y)?;
            adam.step(&mut parameters, &loss.backward()?)?;
        }
    }
    Ok(())
}
