//! One image through a network, forward and backward, with everything kept.
//!
//! A training step keeps what the gradients of parameters need and forgets the rest. Here each layer's
//! output is made a leaf of the tape, so that the tape is cut into one piece a layer; then the pieces are
//! gone through from the last to the first, and the gradient of every output is there to be read: what
//! `retain_grad()` on every tensor is in PyTorch.

use crate::activation::Activation;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::explain::target::Target;
use crate::nn::{Id, Mode, Model};
use crate::ops;
use crate::tensor::Tensor;

/// Everything that one pass through a network computed, and the gradients of the [`Target`] by it.
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
        let seed = trace.target.upstream(&pass.logits)?;
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
            let seed = trace.target.upstream(&trace.logits).unwrap();
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
        assert!(error.to_string().contains("expected a class below 20, got 20"), "{error}");
    }
}
