//! Differentiable operators of one's own.

use super::{Needs, record};
use crate::context::no_grad;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// An operator of N tensors, with a gradient written by hand: what PyTorch calls `torch.autograd.Function`.
///
/// What is composed of operators has its gradient from the tape and needs no `Function`. One is worth its
/// lines where the closed form is shorter or more exact, where less need be saved, or where the gradient is
/// to be another than the derivative.
///
/// ```
/// use atrous::autograd::{Function, check_gradients};
/// use atrous::{Result, Tensor};
///
/// /// x · σ(x)
/// struct Swish;
///
/// impl Function<1> for Swish {
///     const NAME: &str = "swish";
///     /// x and σ(x)
///     type Saved = [Tensor; 2];
///
///     fn forward(&self, [x]: [&Tensor; 1]) -> Result<(Tensor, [Tensor; 2])> {
///         let sigmoid = x.sigmoid()?;
///         Ok(((x * &sigmoid)?, [x.clone(), sigmoid]))
///     }
///
///     /// σ + x·σ·(1 − σ)
///     fn backward(&self, [x, sigmoid]: [Tensor; 2], gradient: Tensor) -> Result<[Option<Tensor>; 1]> {
///         let slope = (&sigmoid + &x * (&sigmoid * (1.0 - &sigmoid)))?;
///         Ok([Some((gradient * slope)?)])
///     }
/// }
///
/// let x = Tensor::from([-1.0f64, 0.0, 2.0]);
/// println!("{}", Swish.apply([&x])?);
/// check_gradients(|x| Swish.apply(x), [&x])?;
/// # Ok::<(), atrous::Error>(())
/// ```
pub trait Function<const N: usize>: Sized + Send + 'static {
    /// The operator's name, in error messages.
    const NAME: &'static str;

    /// What the backward pass needs of the forward pass: tensors (their memory is shared, not copied),
    /// shapes, or `()`.
    type Saved: Send + 'static;

    /// The result, and what to save. Runs off the tape: the operators in it leave no nodes.
    fn forward(&self, inputs: [&Tensor; N]) -> Result<(Tensor, Self::Saved)>;

    /// Takes the gradient of a loss with respect to the output (of the output's shape, type and device) and
    /// returns those with respect to the inputs, each of its input's shape, type and device: None where
    /// there is none, as for labels. That of an input off the tape is dropped. Runs off the tape, perhaps on
    /// another thread, with the precision and the fast math of the forward pass.
    fn backward(&self, saved: Self::Saved, gradient: Tensor) -> Result<[Option<Tensor>; N]>;

    /// Runs it on tensors. The result is on the tape where one of them is.
    ///
    /// An error where [`Function::forward`] has one; and, of the backward pass, where [`Function::backward`]
    /// has one or gives a gradient that is not of its input's shape, type and device.
    fn apply(self, inputs: [&Tensor; N]) -> Result<Tensor> {
        let off_tape = inputs.map(Tensor::detach);
        // (`forward` may hand on a tensor that it keeps itself and that is on the tape: `detach`, below,
        // takes it off.)
        let (output, saved) = no_grad(|| self.forward(off_tape.each_ref()))?;
        if !Needs::of(inputs).any() {
            return Ok(output.detach());
        }
        let specs = inputs.map(Tensor::spec);
        Ok(record(Self::NAME, inputs, output.detach(), move |gradient| {
            let gradients = self.backward(saved, gradient)?;
            for (i, (gradient, spec)) in gradients.iter().zip(specs).enumerate() {
                if let Some(got) = gradient.as_ref().map(Tensor::spec).filter(|&got| got != spec) {
                    let expected = format!("a gradient of {spec} with respect to input {i}");
                    return Err(Error::shape(Self::NAME, expected, got));
                }
            }
            Ok(gradients.map(|gradient| gradient.map(|gradient| gradient.detach())))
        }))
    }
}
