//! A network learns XOR: two layers, the loss and the training loop written out.
//!
//!     cargo run --example 03_xor

use atrous::prelude::*;

fn network(x: &Tensor, [w1, b1, w2, b2]: &[Tensor; 4]) -> Result<Tensor> {
    x.dense(w1, b1)?.tanh()?.dense(w2, b2)
}

fn main() -> Result<()> {
    let x = Tensor::from([[0.0f32, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let y = Tensor::from([[0.0f32], [1.0], [1.0], [0.0]]);
    let [w1, w2] = [Tensor::randn([2, 8], 1), Tensor::randn([8, 1], 2)];
    let mut parameters = [w1, Tensor::zeros([8]), w2, Tensor::zeros([1])].map(|tensor| tensor.leaf());
    let mut adam = Optimizer::adam(0.05)?;
    for step in 0..=200 {
        let loss = network(&x, &parameters)?.binary_cross_entropy_with_logits(&y)?;
        adam.step(&mut parameters, &loss.backward()?)?;
        if step % 50 == 0 {
            println!("step {step:3}: loss {loss}");
        }
    }
    println!("{}", network(&x, &parameters)?.sigmoid()?);
    Ok(())
}
