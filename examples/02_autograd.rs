//! Gradients, by hand and by the tape.
//!
//!     cargo run --example 02_autograd

use atrous::prelude::*;

fn main() -> Result<()> {
    // A neuron without an activation, y = w·x + b, is to say 4 where x is 3.
    let (w, x, b, target) = (2.0, 3.0, -1.0, 4.0);

    // By hand. Forward, every value has a name; backward, the chain rule goes through them from the last to
    // the first, and each turns the gradient by its result into the gradients by what it was made of.
    let y: f64 = w * x + b;
    let loss = (y - target) * (y - target);
    let by_y = 2.0 * (y - target);
    let (by_w, by_b) = (by_y * x, by_y);
    println!("by hand:  loss {loss}, by w {by_w}, by b {by_b}");

    // By the tape. Leaves are what gradients are wanted by; an operator that meets one notes what it was made
    // of, and `backward` does what was done by hand.
    let mut w = Tensor::from(w).leaf();
    let mut b = Tensor::from(b).leaf();
    let loss_of =
        |w: &Tensor, b: &Tensor| -> Result<Tensor> { (w * x + b - Tensor::from(target))?.square() };
    let loss = loss_of(&w, &b)?;
    let gradients = loss.backward()?;
    let by = |leaf| gradients.get(leaf).map_or(0.0, |gradient| gradient.item().unwrap_or(f64::NAN));
    println!("by tape:  loss {}, by w {}, by b {}", loss.item()?, by(&w), by(&b));

    // By measuring: move each input a little, and see what comes of it. This finds mistakes in gradients made
    // by hand.
    check_gradients(|[w, b]| loss_of(w, b), [&w, &b])?;
    println!("measured: the same\n");

    // Against the gradient it goes downhill: that is all of training.
    let mut sgd = Optimizer::sgd(0.02, 0.0)?;
    for step in 1..=5 {
        let gradients = loss_of(&w, &b)?.backward()?;
        sgd.step([&mut w, &mut b], &gradients)?;
        // Nothing is noted where no gradient will be asked for.
        let loss = no_grad(|| loss_of(&w, &b))?;
        println!("step {step}: w {w}, b {b}, loss {loss}");
    }
    Ok(())
}
