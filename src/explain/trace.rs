//! One image through a network, forward and backward, with everything kept.
//!
//! A training step keeps what the gradients of parameters need and forgets the rest. Here each layer's
//! output is made a leaf of the tape, so that the tape is cut into one piece a layer; then the pieces are
//! gone through from the last to the first, and the gradient of every output is there to be read: what
//! `retain_grad()` on every tensor is in PyTorch.

use crate::activation::Activation;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;
use crate::nn::{Id, Mode, Model};
use crate::ops;
use crate::tensor::Tensor;

/// What is explained: one number that a network computes.
///
/// ```
/// use atrous::Tensor;
/// use atrous::explain::Target;
///
/// let logits = Tensor::from([[0.1f32, 2.0, 0.3]]);
/// assert_eq!(Target::likeliest(&logits), Target { class: 1, pixels: None });
/// let map = Tensor::from([[[[5.0f32, 0.0], [0.0, 5.0]]]]); // two pixels: background, and class 1
/// assert_eq!(Target::likeliest(&map), Target { class: 1, pixels: Some(vec![false, true]) });
/// assert_eq!(Target::of_class(&map, 0).pixels, Some(vec![true, false]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The class whose logit it is.
    pub class: usize,
    /// Of a network that labels pixels: those `[H, W]`, row by row, over which the logit is summed.
    pub pixels: Option<Vec<bool>>,
}

/// Everything that one pass through a network computed, and the gradients of the [`Target`] by it.
///
/// ```
/// use atrous::explain::{Target, Trace};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let conv = graph.add(Layer::conv2d(4, 3), &[graph.input()])?;
/// graph.chain(conv, [Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
/// let model = Model::new(graph, 1);
/// let x = Tensor::rand([1, 8, 8, 3], 7);
/// let trace = Trace::new(&model, &x, |logits| Ok(Target::of_class(logits, 1)))?;
/// assert_eq!((trace.outputs.len(), trace.sides(conv)), (4, [6, 6, 4]));
///
/// // Each of a channel's 36 numbers goes into their mean, and that to the logit.
/// let weight = model.parameter("dense/kernel").unwrap().value.to_vec_f64()[1]; // channel 0, class 1
/// let gradient = trace.inner_gradient(conv).unwrap();
/// assert!((f64::from(gradient[0]) - weight / 36.0).abs() < 1e-6);
/// let bias = trace.parameter_gradients[3].as_ref().unwrap();
/// assert_eq!(bias.to_vec_f64(), [0.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
pub struct Trace<'a> {
    /// The network.
    pub model: &'a Model,
    /// By layer: its output `[1, H, W, C]` or `[1, C]`, in f32 on the CPU.
    pub outputs: Vec<Tensor>,
    /// By layer: the gradient of the target by its output; None where the target does not depend on it. Of a
    /// last layer that makes probabilities, by what it makes them of.
    pub gradients: Vec<Option<Tensor>>,
    /// By parameter of the model: the gradient of the target by it; None for what does not train.
    pub parameter_gradients: Vec<Option<Tensor>>,
    /// What the last layer's sigmoid or softmax was applied to; else the output. `[1, C]` or `[1, H, W, C]`
    pub logits: Tensor,
    /// What the gradients are of.
    pub target: Target,
}

impl Target {
    /// The likeliest class; of a network that labels pixels `[1, H, W, C]`, the one that most pixels are
    /// given, over these pixels. Background (class 0 of such a network) only where there is nothing else.
    pub fn likeliest(logits: &Tensor) -> Self {
        let winners = winners(logits);
        if logits.shape().len() == 2 {
            return Target { class: winners[0], pixels: None };
        }
        let mut counts = vec![0usize; logits.shape().last_length()];
        winners.iter().for_each(|&class| counts[class] += 1);
        let most =
            (1..counts.len()).filter(|&c| counts[c] > 0).max_by_key(|&c| (counts[c], usize::MAX - c));
        Target::of_class(logits, most.unwrap_or(0))
    }

    /// A class; of a network that labels pixels, over the pixels that it gives that class, or over all where
    /// there is none.
    pub fn of_class(logits: &Tensor, class: usize) -> Self {
        if logits.shape().len() == 2 {
            return Target { class, pixels: None };
        }
        let pixels: Vec<bool> = winners(logits).iter().map(|&winner| winner == class).collect();
        let any = pixels.contains(&true);
        Target { class, pixels: Some(pixels.into_iter().map(|own| own || !any).collect()) }
    }

    /// The gradient of the target by the logits: ones and zeros, of their shape.
    fn seed(&self, logits: &Tensor) -> Result<Tensor> {
        let classes = logits.shape().last_length();
        if self.class >= classes {
            let message = format!("expected one of {classes} classes, got {}", self.class);
            return Err(Error::argument("explain", message));
        }
        let mut seed = vec![0.0f32; logits.shape().elements()];
        for (pixel, row) in seed.chunks_exact_mut(classes).enumerate() {
            let wanted = self.pixels.as_ref().is_none_or(|pixels| pixels[pixel]);
            row[self.class] = if wanted { 1.0 } else { 0.0 };
        }
        Tensor::from_slice(&seed, logits.shape())
    }
}

/// For each row of the last axis, where its largest number is.
pub(crate) fn winners(logits: &Tensor) -> Vec<usize> {
    let values: Vec<f32> = logits.to_vec_f64().into_iter().map(|logit| logit as f32).collect();
    values.chunks_exact(logits.shape().last_length()).map(arg_max).collect()
}

/// Whether an activation makes probabilities of logits.
pub(crate) fn makes_probabilities(activation: Activation) -> bool {
    matches!(activation, Activation::Sigmoid | Activation::Softmax)
}

impl<'a> Trace<'a> {
    /// Runs one image `[1, H, W, 3]`, prepared as the network takes it, forward and backward, as at inference
    /// (moving statistics, no dropout). `target` is told the logits and says what is explained
    /// ([`Target::likeliest`]). An error for another shape, and for no such class.
    pub fn new(
        model: &'a Model,
        x: &Tensor,
        target: impl FnOnce(&Tensor) -> Result<Target>,
    ) -> Result<Self> {
        if x.shape().first() != Some(&1) {
            return Err(Error::shape("explain", "one image [1, H, W, 3]", x.shape()));
        }
        let count = model.graph.nodes().len();
        // Of each layer what it made, on the tape, and the leaf that those after it read in its place.
        let mut made: Vec<Option<[Tensor; 2]>> = vec![None; count];
        let mode = Mode { gradients: true, ..Mode::infer() };
        let pass = model.run_edited(&x.leaf(), mode, &mut |name, output| {
            let leaf = output.detach().leaf();
            if let Some(id) = model.graph.find(name) {
                made[id.0] = Some([output, leaf.clone()]);
            }
            Ok(leaf)
        })?;
        let made: Option<Vec<[Tensor; 2]>> = made.into_iter().collect();
        let made = made.ok_or_else(|| Error::argument("explain", "a layer was not run"))?;
        let logits = pass.logits.detach().to_device(Device::Cpu)?;
        let target = target(&logits)?;
        let mut trace = Trace {
            model,
            outputs: Vec::new(),
            gradients: vec![None; count],
            parameter_gradients: vec![None; model.parameters.len()],
            target,
            logits,
        };
        let seed = trace.target.seed(&trace.logits)?.to_device(x.device())?;
        trace.backward(&made, &pass.leaves, pass.logits, seed)?;
        trace.outputs = made
            .iter()
            .map(|[_, leaf]| leaf.detach().to_device(Device::Cpu))
            .collect::<Result<Vec<_>>>()?;
        for gradient in trace.gradients.iter_mut().chain(&mut trace.parameter_gradients).flatten() {
            *gradient = gradient.to_device(Device::Cpu)?;
        }
        Ok(trace)
    }

    /// From the last layer to the first, each layer's piece of the tape.
    fn backward(
        &mut self,
        made: &[[Tensor; 2]],
        leaves: &[Tensor],
        logits: Tensor,
        seed: Tensor,
    ) -> Result<()> {
        let graph = &self.model.graph;
        let last = graph.output().0;
        self.gradients[last] = Some(seed);
        let mut first_parameter = leaves.len();
        for (i, node) in graph.nodes().iter().enumerate().rev() {
            first_parameter -= node.parameters.len();
            if i == graph.input().0 {
                break;
            }
            let Some(upstream) = self.gradients[i].clone() else { continue };
            let above = i == last && makes_probabilities(node.layer.activation());
            let root = if above { logits.clone() } else { made[i][0].clone() };
            let mut shares = root.backward_from(upstream)?;
            let mut inputs: Vec<Id> = node.inputs.clone();
            inputs.sort_by_key(|id| id.0);
            inputs.dedup();
            for Id(input) in inputs {
                let Some(share) = shares.take(&made[input][1]) else { continue };
                self.gradients[input] = Some(match self.gradients[input].take() {
                    Some(sum) => ops::add(&sum, &share)?.detach(),
                    None => share,
                });
            }
            let own = first_parameter..first_parameter + node.parameters.len();
            for (gradient, leaf) in self.parameter_gradients[own.clone()].iter_mut().zip(&leaves[own]) {
                *gradient = shares.take(leaf);
            }
        }
        Ok(())
    }

    /// What a layer passes back to its inputs: its gradient before its own activation, one number an output.
    /// None where the target does not depend on it.
    pub fn inner_gradient(&self, layer: Id) -> Option<Vec<f32>> {
        let gradient = values(self.gradients[layer.0].as_ref()?);
        let activation = match self.model.graph.node(layer).layer {
            // Of an activation's own layer, the slope is what its input is multiplied by.
            crate::nn::layers::Layer::Activation(_) => Activation::Linear,
            layer => layer.activation(),
        };
        if layer == self.model.graph.output() && makes_probabilities(activation) {
            return Some(gradient);
        }
        let outputs = values(&self.outputs[layer.0]);
        let slope = |(g, y): (f32, f32)| (f64::from(g) * slope(activation, y.into())) as f32;
        Some(gradient.into_iter().zip(outputs).map(slope).collect())
    }

    /// Height, width and channels of a layer's output: 1, 1 and its length where it is flat.
    pub fn sides(&self, layer: Id) -> [usize; 3] {
        sides(&self.model.graph.node(layer).output_shape)
    }
}

/// Height, width and channels of a shape without the batch axis.
pub(crate) fn sides(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [h, w, c] => [h, w, c],
        _ => [1, 1, shape.iter().product()],
    }
}

/// The slope of an activation, from what it made: ∂y/∂x of y = f(x). (Softmax has no such number.)
pub(crate) fn slope(activation: Activation, y: f64) -> f64 {
    let when = |condition: bool| if condition { 1.0 } else { 0.0 };
    match activation {
        Activation::Linear | Activation::Softmax => 1.0,
        Activation::Relu => when(y > 0.0),
        Activation::Relu6 => when(y > 0.0 && y < 6.0),
        Activation::Sigmoid => y * (1.0 - y),
        Activation::Tanh => 1.0 - y * y,
    }
}

/// A tensor's numbers as f32, whatever its type.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    match tensor.as_slice::<f32>() {
        Some(values) => values.to_vec(),
        None => tensor.to_vec_f64().into_iter().map(|v| v as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::by_name;
    use crate::ops::mul;

    #[test]
    fn gradients_by_images_and_parameters_are_those_of_one_whole_tape() {
        for (name, side) in [("mobilenetv2", 32), ("alexnet", 120), ("deeplabv3plus", 32)] {
            let model = Model::new(by_name(name, side, 20).unwrap(), 3);
            let x = Tensor::rand_uniform([1, side, side, 3], -1.0, 1.0, 7);
            let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits))).unwrap();
            let leaf = x.leaf();
            let pass = model.run(&leaf, Mode { gradients: true, ..Mode::infer() }).unwrap();
            let seed = trace.target.seed(&trace.logits).unwrap();
            let whole = mul(&pass.logits, &seed).unwrap().sum().unwrap().backward().unwrap();
            let close = |a: &Tensor, b: &Tensor| {
                let (a, b) = (a.to_vec_f64(), b.to_vec_f64());
                let scale = a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                assert!(scale > 0.0, "{name}: no gradient arrives");
                assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-4 * scale), "{name}");
            };
            close(whole.get(&leaf).unwrap(), trace.gradients[0].as_ref().unwrap());
            let kernel = model.parameters.iter().position(|p| p.path.ends_with("kernel")).unwrap();
            let traced = trace.parameter_gradients[kernel].as_ref().unwrap();
            close(whole.get(&pass.leaves[kernel]).unwrap(), traced);
        }
    }

    #[test]
    fn of_pixels_the_class_that_most_are_given_is_explained_and_background_only_alone() {
        let logits = |classes: [usize; 4]| {
            let one_hot =
                classes.iter().flat_map(|&c| (0..3).map(move |i| if i == c { 1.0f32 } else { 0.0 }));
            Tensor::from_slice(&one_hot.collect::<Vec<_>>(), [1, 2, 2, 3]).unwrap()
        };
        let target = Target::likeliest(&logits([0, 0, 2, 0]));
        assert_eq!((target.class, target.pixels), (2, Some(vec![false, false, true, false])));
        assert_eq!(Target::likeliest(&logits([0; 4])).class, 0);
        let absent = Target::of_class(&logits([0, 0, 2, 0]), 1);
        assert_eq!(absent.pixels, Some(vec![true; 4]));
    }

    #[test]
    fn several_images_and_unknown_classes_are_errors() {
        let model = Model::new(by_name("mobilenetv2", 32, 20).unwrap(), 3);
        let likeliest = |logits: &Tensor| Ok(Target::likeliest(logits));
        let error = Trace::new(&model, &Tensor::zeros([2, 32, 32, 3]), likeliest).err().unwrap();
        assert!(
            error.to_string().contains("expected one image [1, H, W, 3], got [2×32×32×3]"),
            "{error}"
        );
        let unknown = |_: &Tensor| Ok(Target { class: 20, pixels: None });
        let error = Trace::new(&model, &Tensor::zeros([1, 32, 32, 3]), unknown).err().unwrap();
        assert!(error.to_string().contains("expected one of 20 classes, got 20"), "{error}");
    }
}
