//! Operators of one's own: with a gradient that is more exact than the tape's, and with one that is no
//! derivative at all.
//!
//!     cargo run --example 05_custom_op

use atrous::prelude::*;

/// ln(1 + eˣ). Composed of exp and ln it is infinite from x = 89 on, and so is its gradient; the closed forms
/// are not.
struct Softplus;

impl Function<1> for Softplus {
    const NAME: &'static str = "softplus";
    /// The input.
    type Saved = Tensor;

    fn forward(&self, [x]: [&Tensor; 1]) -> Result<(Tensor, Tensor)> {
        // Element by element, in whatever type and on whatever device x is.
        let values: Vec<f64> =
            x.to_vec_f64().iter().map(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()).collect();
        let y = Tensor::from_slice(&values, x.shape())?.to_dtype(x.dtype()).to_device(x.device())?;
        Ok((y, x.clone()))
    }

    fn backward(&self, x: Tensor, gradient: Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some((gradient * x.sigmoid())?)])
    }
}

/// −1 or 1. Its derivative is 0, and nothing could be learned through it: so the gradient goes through as if
/// there were no sign ("straight-through estimator", Bengio et al., 2013).
struct Binarize;

impl Function<1> for Binarize {
    const NAME: &'static str = "binarize";
    type Saved = ();

    fn forward(&self, [x]: [&Tensor; 1]) -> Result<(Tensor, ())> {
        Ok((x.sign()?, ()))
    }

    fn backward(&self, (): (), gradient: Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(gradient)])
    }
}

fn main() -> Result<()> {
    let x = Tensor::from([-100.0f32, -1.0, 0.5, 100.0]).leaf();
    let y = Softplus.apply([&x])?;
    let gradients = y.sum()?.backward()?;
    println!("softplus({x})\n       = {y}");
    println!("slopes   {}", gradients.get(&x).map(Tensor::to_string).unwrap_or_default());

    // The gradient against differences, in f64.
    let x = Tensor::linspace(-3.0, 3.0, 7)?.to_dtype(DType::F64);
    check_gradients(|x| Softplus.apply(x), [&x])?;
    println!("softplus has its gradient");
    if let Err(error) = check_gradients(|x| Binarize.apply(x), [&Tensor::from([0.7f64])]) {
        println!("binarize has not: {error}\n");
    }

    // Weights of −1 and 1 alone, learned all the same.
    let x = Tensor::randn([64, 4], 1);
    let target = x.dense(&Tensor::from([[1.0f32], [-1.0], [-1.0], [1.0]]), None)?;
    let mut w = Tensor::full([4, 1], 0.3).leaf();
    let mut sgd = Optimizer::sgd(0.05, 0.0)?;
    for step in 0..=3 {
        let difference = (x.dense(&Binarize.apply([&w])?, None)? - &target)?;
        let loss = difference.square()?.mean()?;
        println!("step {step}: loss {loss}, weights {}", w.sign()?.reshape([4])?);
        sgd.step([&mut w], &loss.backward()?)?;
    }
    Ok(())
}
