//! Reverse-mode automatic differentiation. *The tape* is this crate's word for the autograd graph: not a
//! global list, but the nodes that tensors hold on to, which go with them.
//!
//! An operator that meets an input with a node (`tensor/node.rs`) makes one of its own, which holds the
//! nodes of its inputs and a closure that turns the gradient of its output into those of its inputs.
//!
//! [`Tensor::backward`] walks the nodes from the newest to the oldest. Nodes are numbered as they are made
//! and an input is always older than its consumer, so when a node's turn comes, every consumer has already
//! added its *share*, the gradient through that consumer: a value that is used twice needs no special care.
//! A node's closure, with all it saved, is dropped as soon as it has run: a backward pass can go through a
//! graph once (PyTorch's `retain_graph=False`). The closures run off the tape, so there are no second
//! derivatives.

mod check;
mod function;

use crate::backend::accumulate::accumulate;
use crate::context::{Context, on_threads};
use crate::error::{Error, Result};
use crate::spans;
use crate::tensor::{Gradient, Node, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use crate::context::no_grad;
pub use check::check_gradients;
pub use function::Function;

/// Which inputs need a gradient: recording is on, and the input is on the tape. For the others an operator
/// computes no gradient and saves nothing.
pub(crate) struct Needs<const N: usize>(pub [bool; N]);

impl<const N: usize> Needs<N> {
    pub(crate) fn of(inputs: [&Tensor; N]) -> Self {
        let recording = Context::current().recording;
        Needs(inputs.map(|input| recording && input.requires_grad()))
    }

    pub(crate) fn any(&self) -> bool {
        self.0.iter().any(|&need| need)
    }
}

/// Puts `output` on the tape as the result of `op` on `inputs`, if one of them needs a gradient.
///
/// `backward` gets the gradient of the output and returns one entry per input, in order. It runs with the
/// precision and the fast math that are set now. It is dropped unused where no input needs a gradient: ask
/// [`Needs`] before saving anything for it.
pub(crate) fn record<const N: usize>(
    op: &'static str,
    inputs: [&Tensor; N],
    output: Tensor,
    backward: impl FnOnce(Tensor) -> Result<[Option<Tensor>; N]> + Send + 'static,
) -> Tensor {
    record_gradients(op, &inputs, output, move |gradient| {
        Ok(backward(gradient)?.map(|share| share.map(Gradient::Dense)).into())
    })
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

/// [`record_all`] for gradients that may be in factors ([`Gradient::LowRank`]).
pub(crate) fn record_gradients(
    op: &'static str,
    inputs: &[&Tensor],
    output: Tensor,
    backward: impl FnOnce(Tensor) -> Result<Vec<Option<Gradient>>> + Send + 'static,
) -> Tensor {
    let forward = Context::current();
    if !forward.recording || inputs.iter().all(|input| !input.requires_grad()) {
        return output;
    }
    let nodes = inputs.iter().map(|input| input.node.clone()).collect();
    let mut output = output.detach();
    let backward = move |gradient| forward.with_numerics(|| backward(gradient));
    let node = Node::new(op, nodes, Some(Box::new(backward)));
    spans::node(node.id);
    output.node = Some(node);
    output
}

/// The gradients of a loss with respect to the leaves it was computed from, each of its leaf's shape, type
/// and device.
///
/// ```
/// use atrous::prelude::*;
///
/// let (x, y) = (Tensor::from([2.0f32]).leaf(), Tensor::from([5.0f32]).leaf());
/// let mut gradients = (&x * &y)?.backward()?; // ∂x = y and ∂y = x
/// assert_eq!(gradients.get(&x).unwrap().item()?, 5.0);
/// assert_eq!(gradients.take(&y).unwrap().item()?, 2.0);
/// assert!(gradients.get(&y).is_none()); // it was taken
/// # Ok::<(), Error>(())
/// ```
#[derive(Default)]
pub struct Gradients(/** By the number of the leaf's node. */ HashMap<u64, Gradient>);

impl Gradients {
    /// That of a leaf, or of a clone of it. None where the loss does not depend on it, and for another
    /// tensor ([`Tensor::leaf`] again makes another leaf): gradients of intermediate values are not kept. A
    /// dense layer's may be kept as two factors ([`Gradient::LowRank`]), which are multiplied at the first
    /// call.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (x, y) = (Tensor::from([2.0f32]).leaf(), Tensor::from([3.0f32]));
    /// let gradients = (&x * &y)?.sum()?.backward()?;
    /// assert_eq!(gradients.get(&x).unwrap().to_string(), "[3.]");
    /// assert!(gradients.get(&y).is_none()); // no leaf
    /// # Ok::<(), Error>(())
    /// ```
    pub fn get(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.get_gradient(leaf).map(Gradient::to_dense)
    }

    /// [`Gradients::get`], by value: it can be taken once.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([2.0f32]).leaf();
    /// let mut gradients = x.square()?.sum()?.backward()?;
    /// assert_eq!(gradients.take(&x).unwrap().to_string(), "[4.]");
    /// assert!(gradients.take(&x).is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.take_gradient(leaf).map(Gradient::into_dense)
    }

    /// [`Gradients::get`], in the form in which the operator left it: its elements or factors.
    pub(crate) fn get_gradient(&self, leaf: &Tensor) -> Option<&Gradient> {
        self.0.get(&leaf.node.as_ref()?.id)
    }

    /// [`Gradients::get_gradient`], by value.
    pub(crate) fn take_gradient(&mut self, leaf: &Tensor) -> Option<Gradient> {
        self.0.remove(&leaf.node.as_ref()?.id)
    }
}

impl Tensor {
    /// Gradients of this one-element tensor with respect to every leaf it depends on.
    ///
    /// An error where it has another number of elements; where it depends on no leaf, or was computed
    /// within [`no_grad`]; and where a backward pass has gone through a part of its graph before, and
    /// freed it (PyTorch's `retain_graph=False`); and where an operator's gradient, or a device, fails. There
    /// are no second derivatives.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32, -2.0]).leaf();
    /// let loss = x.square()?.sum()?;
    /// assert_eq!(loss.backward()?.get(&x).unwrap().to_string(), "[ 2. -4.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn backward(&self) -> Result<Gradients> {
        if self.shape().elements() != 1 {
            return Err(Error::shape("backward", "a loss of one element", self.shape()));
        }
        if !self.requires_grad() {
            let message = "expected a loss on the tape, got one that depends on no leaf (`Tensor::leaf`), \
                           or was computed within `no_grad`";
            return Err(Error::argument("backward", message));
        }
        self.backward_from(self.ones_like()?)
    }

    /// Gradients of sum(self · upstream), for a tensor of any shape: PyTorch's
    /// `y.backward(gradient=upstream)`.
    ///
    /// `upstream` is the gradient of some later loss with respect to this tensor; an error where it is not of
    /// this tensor's shape, type and device. A tensor off the tape gives no gradients and, unlike
    /// [`Tensor::backward`], no error. Otherwise as [`Tensor::backward`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32, 2.0]).leaf();
    /// let y = x.square()?;
    /// let gradients = y.backward_from(Tensor::from([1.0f32, 10.0]))?;
    /// assert_eq!(gradients.get(&x).unwrap().to_string(), "[ 2. 40.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn backward_from(&self, upstream: Tensor) -> Result<Gradients> {
        let (expected, got) = (self.spec(), upstream.spec());
        if got != expected {
            return Err(Error::shape("backward_from", format!("a gradient of {expected}"), got));
        }
        let Some(root) = self.node.clone() else { return Ok(Gradients::default()) };
        on_threads(self.device(), || walk(root, upstream.detach()))
    }
}

/// Nodes that a gradient has come to, by number, with the sum of what has come.
type Pending = BTreeMap<u64, (Arc<Node>, Gradient)>;

/// From a node to the leaves it depends on.
fn walk(root: Arc<Node>, upstream: Tensor) -> Result<Gradients> {
    let mut gradients = Gradients::default();
    let mut pending = BTreeMap::from([(root.id, (root, Gradient::Dense(upstream)))]);
    no_grad(|| {
        while let Some((id, (node, gradient))) = pending.pop_last() {
            // A leaf: nobody's result. Its gradient is complete.
            if node.inputs.is_empty() {
                gradients.0.insert(id, gradient);
                continue;
            }
            let op = node.op;
            spans::backward(id, op, || pass_on(node, gradient, &mut pending))?;
        }
        Ok(gradients)
    })
}

/// Turns the gradient of a node's output into those of its inputs, and adds these to what they have.
fn pass_on(node: Arc<Node>, gradient: Gradient, pending: &mut Pending) -> Result<()> {
    let backward = node.take_backward().ok_or_else(|| {
        Error::argument(node.op, "backward ran through this value before and freed it")
    })?;
    let shares = backward(gradient.into_dense())?;
    debug_assert_eq!(shares.len(), node.inputs.len(), "{}", node.op);
    for (input, share) in node.inputs.iter().zip(shares) {
        let (Some(input), Some(share)) = (input, share) else { continue };
        let sum = match pending.remove(&input.id) {
            // The first share is kept as it is; only further ones are added.
            None => share,
            Some((_, sum)) => {
                let [sum, share] = [sum, share].map(Gradient::into_dense);
                accumulate(sum, &share)?.into()
            }
        };
        pending.insert(input.id, (input.clone(), sum));
    }
    Ok(())
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
        assert!(!no_grad(|| mul(&x, &x).unwrap()).requires_grad());
        assert!(mul(&x, &x).unwrap().requires_grad());
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

    #[test]
    fn a_loss_off_the_tape_is_refused_and_says_how_it_may_have_come_off() {
        let x = leaf(&[2.0]);
        for loss in [no_grad(|| mul(&x, &x).unwrap()), x.detach()] {
            let error = loss.backward().err().unwrap().to_string();
            assert!(error.starts_with("backward: ") && error.contains("`no_grad`"), "{error}");
            // What some later loss depends on need not itself depend on anything.
            assert!(loss.backward_from(Tensor::from([1.0f64])).unwrap().get(&x).is_none());
        }
    }

    #[test]
    fn an_upstream_gradient_of_another_shape_or_type_is_an_error_that_describes_both() {
        let x = leaf(&[2.0, 3.0]);
        let error = |upstream| x.backward_from(upstream).err().unwrap().to_string();
        let expected = "backward_from: expected a gradient of [2] F64 on cpu, got ";
        assert_eq!(error(Tensor::from([1.0f64])), format!("{expected}[1] F64 on cpu"));
        assert_eq!(error(Tensor::from([1.0f32; 2])), format!("{expected}[2] F32 on cpu"));
    }

    #[test]
    #[cfg(feature = "emulator")]
    fn an_upstream_gradient_of_another_device_is_an_error() {
        let upstream = Tensor::ones([2]).to_device(crate::Device::Emulated).unwrap();
        let error = Tensor::ones([2]).leaf().backward_from(upstream).err().unwrap().to_string();
        assert!(error.ends_with("of [2] F32 on cpu, got [2] F32 on emulated"), "{error}");
    }

    #[test]
    fn gradients_of_intermediate_values_are_not_kept() {
        let x = leaf(&[2.0]);
        let square = mul(&x, &x).unwrap();
        let gradients = sum(&square).unwrap().backward().unwrap();
        assert!(gradients.get(&square).is_none() && gradients.get(&x).is_some());
    }

    #[test]
    fn gradients_are_computed_with_numerics_as_their_forward_pass_and_off_the_tape() {
        use crate::context::{Precision, with_fast_math, with_precision};
        let x = leaf(&[2.0]);
        let (sent, seen) = std::sync::mpsc::channel();
        let record = || {
            record("probe", [&x], x.detach(), move |gradient| {
                let Context { recording, fast_math, precision, .. } = Context::current();
                sent.send((recording, fast_math, precision)).unwrap();
                Ok([Some(gradient)])
            })
        };
        let y = with_precision(Precision::Bf16, || with_fast_math(true, record));
        y.backward().unwrap();
        assert_eq!(seen.recv().unwrap(), (false, true, Precision::Bf16));
    }

    /// A sum of many terms, one at a time; each node also saved the tensor on the tape that it was made of.
    fn running_total(x: &Tensor, terms: usize) -> Tensor {
        (0..terms).fold(x.clone(), |total, _| {
            let saved = total.clone();
            record("add", [&total, x], total.detach(), move |gradient| {
                drop(saved);
                Ok([Some(gradient.clone()), Some(gradient)])
            })
        })
    }

    #[test]
    fn a_graph_of_any_depth_is_dropped_on_a_small_stack() {
        let dropped = || {
            let x = leaf(&[2.0]);
            drop(running_total(&x, 200_000));
            let loss = running_total(&x, 200_000);
            let gradients = loss.backward().unwrap();
            drop(loss);
            assert_eq!(gradient(&gradients, &x), [200_001.0]);
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(dropped).unwrap().join().unwrap();
    }
}
