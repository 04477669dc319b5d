//! The tape: reverse-mode automatic differentiation.
//!
//! An operator that meets an input with a `Node` makes a node of its own, which holds the nodes
//! of its inputs and a closure that turns the gradient of its output into the gradients of its
//! inputs. There is no global tape: the graph is what the tensors hold on to, and it goes with them.
//!
//! [`Tensor::backward`] walks the nodes from the newest to the oldest. Nodes are numbered as they
//! are made and an input is always older than its consumer, so when a node's turn comes, every
//! consumer has already added its share: a value that is used twice needs no special care. A
//! node's closure, with all it saved, is dropped as soon as it has run.

#![warn(missing_docs)]

mod check;
mod function;

use crate::backend::accumulate::accumulate;
use crate::backend::cpu::low_rank;
use crate::context::{Context, on_threads};
use crate::error::{Error, Result};
use crate::tensor::{Gradient, Node, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use crate::context::no_grad;
pub use check::check_gradients;
pub use function::Function;

/// Which inputs need a gradient. An operator computes no other, and saves nothing for it.
pub(crate) struct Needs<const N: usize>(pub [bool; N]);

impl<const N: usize> Needs<N> {
    pub(crate) fn of(inputs: [&Tensor; N]) -> Self {
        let recording = Context::current().recording;
        Needs(inputs.map(|input| recording && input.needs_grad()))
    }

    pub(crate) fn any(&self) -> bool {
        self.0.iter().any(|&need| need)
    }
}

/// Puts `output` on the tape as the result of `op` on `inputs`, if one of them needs a gradient.
///
/// `backward` gets the gradient of the output and returns one entry per input, in order. It is
/// made only when it will be used: build it from [`Needs`], and capture what it saves.
pub(crate) fn record<const N: usize>(
    op: &'static str,
    inputs: [&Tensor; N],
    output: Tensor,
    backward: impl FnOnce(Tensor) -> Result<[Option<Tensor>; N]> + Send + 'static,
) -> Tensor {
    let all = inputs.to_vec();
    record_all(op, &all, output, move |gradient| Ok(backward(gradient)?.into()))
}

/// [`record`] for a number of inputs known at run time.
pub(crate) fn record_all(
    op: &'static str,
    inputs: &[&Tensor],
    output: Tensor,
    backward: impl FnOnce(Tensor) -> Result<Vec<Option<Tensor>>> + Send + 'static,
) -> Tensor {
    record_gradients(op, inputs, output, move |gradient| {
        Ok(backward(gradient)?.into_iter().map(|share| share.map(Gradient::Dense)).collect())
    })
}

/// [`record_all`] for gradients that need not be tensors.
pub(crate) fn record_gradients(
    op: &'static str,
    inputs: &[&Tensor],
    output: Tensor,
    backward: impl FnOnce(Tensor) -> Result<Vec<Option<Gradient>>> + Send + 'static,
) -> Tensor {
    if !Context::current().recording || inputs.iter().all(|input| !input.needs_grad()) {
        return output;
    }
    let nodes = inputs.iter().map(|input| input.node.clone()).collect();
    let mut output = output.detach();
    output.node = Some(Node::new(op, nodes, Some(Box::new(backward))));
    output
}

/// The gradients of a loss by the leaves it was computed from.
#[derive(Default)]
pub struct Gradients(HashMap<u64, Gradient>);

impl Gradients {
    /// None if the loss does not depend on the leaf.
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        Some(match self.0.get(&leaf.node.as_ref()?.id)? {
            Gradient::Dense(gradient) => gradient,
            Gradient::LowRank(factors) => low_rank::dense(factors),
        })
    }

    /// [`Gradients::get`], for keeps.
    pub fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.take_as_it_is(leaf).map(low_rank::into_dense)
    }

    /// [`Gradients::get`], in the form in which the operator left it.
    pub(crate) fn get_as_it_is(&self, leaf: &Tensor) -> Option<&Gradient> {
        self.0.get(&leaf.node.as_ref()?.id)
    }

    /// The gradient in the form in which the operator left it.
    pub fn take_as_it_is(&mut self, leaf: &Tensor) -> Option<Gradient> {
        self.0.remove(&leaf.node.as_ref()?.id)
    }
}

impl Tensor {
    /// Gradients of this one-element tensor by every leaf it depends on.
    pub fn backward(&self) -> Result<Gradients> {
        if self.shape().elements() != 1 {
            return Err(Error::shape("backward", "a loss of one element", self.shape()));
        }
        self.backward_from(self.ones_like()?)
    }

    /// Gradients of sum(self · upstream): `upstream` is the gradient of some later loss.
    pub fn backward_from(&self, upstream: Tensor) -> Result<Gradients> {
        if upstream.shape() != self.shape() || upstream.dtype() != self.dtype() {
            return Err(Error::shape(
                "backward_from",
                format!("{} {:?}", self.shape(), self.dtype()),
                format!("{} {:?}", upstream.shape(), upstream.dtype()),
            ));
        }
        let Some(root) = self.node.clone() else { return Ok(Gradients::default()) };
        on_threads(self.device(), || walk(root, upstream.detach()))
    }
}

/// From a node to the leaves it depends on.
fn walk(root: Arc<Node>, upstream: Tensor) -> Result<Gradients> {
    let mut gradients = Gradients::default();
    let mut pending = BTreeMap::from([(root.id, (root, Gradient::Dense(upstream)))]);
    no_grad(|| {
        while let Some((id, (node, gradient))) = pending.pop_last() {
            if node.inputs.is_empty() {
                gradients.0.insert(id, gradient);
                continue;
            }
            let backward = node.take_backward().ok_or_else(|| {
                Error::argument(node.op, "backward ran through this value before and freed it")
            })?;
            let shares = backward(low_rank::into_dense(gradient))?;
            debug_assert_eq!(shares.len(), node.inputs.len(), "{}", node.op);
            for (input, share) in node.inputs.iter().zip(shares) {
                let (Some(input), Some(share)) = (input, share) else { continue };
                let sum = match pending.remove(&input.id) {
                    // The first share is kept as it is; only further ones are added.
                    None => share,
                    Some((_, sum)) => {
                        let [sum, share] = [sum, share].map(low_rank::into_dense);
                        accumulate(sum, &share)?.into()
                    }
                };
                pending.insert(input.id, (input.clone(), sum));
            }
        }
        Ok(gradients)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{add, mul, sum};

    fn leaf(values: &[f64]) -> Tensor {
        Tensor::from_slice(values, [values.len()]).unwrap().leaf()
    }

    fn gradient(gradients: &Gradients, leaf: &Tensor) -> Vec<f64> {
        gradients.get(leaf).unwrap().to_vec_f64()
    }

    #[test]
    fn a_value_used_twice_gets_both_shares() {
        let x = leaf(&[2.0, 3.0]);
        let square = mul(&x, &x).unwrap();
        let both = add(&square, &x).unwrap();
        let loss = sum(&add(&both, &square).unwrap()).unwrap(); // 2x² + x
        assert_eq!(gradient(&loss.backward().unwrap(), &x), [9.0, 13.0]);
    }

    #[test]
    fn an_input_off_the_tape_gets_no_gradient() {
        let x = leaf(&[2.0]);
        let constant = x.detach();
        let loss = sum(&mul(&x, &constant).unwrap()).unwrap();
        let gradients = loss.backward().unwrap();
        assert_eq!(gradient(&gradients, &x), [2.0]);
        assert!(gradients.get(&constant).is_none());
    }

    #[test]
    fn nothing_is_recorded_under_no_grad() {
        let x = leaf(&[2.0]);
        assert!(!no_grad(|| mul(&x, &x).unwrap()).needs_grad());
        assert!(mul(&x, &x).unwrap().needs_grad());
    }

    #[test]
    fn a_second_backward_says_that_the_tape_is_gone() {
        let x = leaf(&[2.0]);
        let loss = sum(&mul(&x, &x).unwrap()).unwrap();
        loss.backward().unwrap();
        assert!(loss.backward().err().unwrap().to_string().contains("freed"));
    }

    #[test]
    fn backward_frees_what_a_node_saved_once_its_gradient_is_passed_on() {
        let x = leaf(&[2.0, 1.0]);
        let y = mul(&x, &x).unwrap();
        let mut saved = y.clone();
        let loss = sum(&mul(&y, &x).unwrap()).unwrap();
        drop(y);
        assert!(!saved.is_unique()); // held by the node of the second product
        loss.backward().unwrap();
        assert!(saved.is_unique());
    }

    #[test]
    fn a_loss_of_many_elements_is_refused() {
        assert!(leaf(&[1.0, 2.0]).backward().is_err());
    }
}
