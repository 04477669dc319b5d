//! What a plan's steps come to: arithmetic, traffic to and from memory, memory held.

use super::{Plan, Step, Target};
use crate::nn::graph::{Graph, Id};
use crate::nn::layers::Layer;

/// What one direction of a step comes to, for a batch.
///
/// [`StepCost`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassCost {
    /// Multiplications and additions, as the definition counts them: an algorithm may do with fewer.
    pub flops: u64,
    /// Bytes that have to move between memory and processor at least, in f32, each tensor touched once.
    pub bytes: u64,
}

/// What a step comes to, for a batch of N images.
///
/// With x the elements of what it reads of an image, y those of what it writes, and P the numbers in the
/// parameters of all its layers:
///
/// - forward, it does its layers' FLOPs ([`crate::nn::Cost`]) for each image, and moves 4 · (N·x + P + N·y)
///   bytes. What only renames its input (flatten, reshape, dropout at inference) moves none;
/// - backward, each layer repeats its forward FLOPs once where a gradient by its input is wanted, and once
///   where its parameters train. The gradient of y, x and the parameters are read; the gradients of those
///   inputs that want one (x′ elements) and of what trains (T numbers) are written:
///   4 · (N·y + N·x + P + N·x′ + T) bytes, without N·x where no derivative depends on x (pooling, padding,
///   resizing, concatenation). A sum hands its gradient on as it is: that is nothing at all.
///
/// ```
/// use atrous::nn::{PassCost, PlanTable, Purpose};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [1, 1, 8]);
/// graph.chain(graph.input(), [Layer::Flatten, Layer::dense(2)])?;
/// let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Training, 16)?;
/// let cost = plan.steps[2].cost; // x = 8, P = 8 · 2 + 2, y = 2
/// assert_eq!(cost.parameters, 18);
/// assert_eq!(cost.forward, PassCost { flops: 16 * 2 * (2 * 8 + 1), bytes: 4 * (16 * 8 + 18 + 16 * 2) });
/// assert_eq!(cost.backward.bytes, 4 * (16 * 2 + 16 * 8 + 18 + 18)); // no gradient by the images
/// assert_eq!(cost.live_bytes, 4 * 16 * 2);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepCost {
    /// Numbers in all its layers' parameters.
    pub parameters: u64,
    /// From its inputs to its output.
    pub forward: PassCost,
    /// From its output's gradient to those of inputs and parameters; nothing at inference.
    pub backward: PassCost,
    /// Bytes of the outputs that a later step still reads when this one is over, its own among them.
    /// (What the tape saves for gradients is more.)
    pub live_bytes: u64,
}

/// The costs of a plan's steps, in their order.
pub(super) fn costs(graph: &Graph, target: &Target, plan: &Plan) -> Vec<StepCost> {
    let counter = Counter { graph, target, recorded: target.recorded(graph) };
    let mut live_bytes = 0u64;
    let step = |step: &Step| {
        live_bytes = live_bytes.saturating_add(counter.bytes(step.output));
        let freed: u64 = step.frees.iter().map(|&id| counter.bytes(id)).sum();
        live_bytes = live_bytes.saturating_sub(freed);
        StepCost { live_bytes, ..counter.cost(step) }
    };
    plan.steps.iter().map(step).collect()
}

struct Counter<'a> {
    graph: &'a Graph,
    target: &'a Target,
    /// Whether a gradient comes back to a layer's output.
    recorded: Vec<bool>,
}

impl Counter<'_> {
    fn cost(&self, step: &Step) -> StepCost {
        let layers = step.layers();
        let sum = |number: &dyn Fn(Id) -> u64| layers.iter().map(|&id| number(id)).sum::<u64>();
        let parameters = sum(&|id| self.graph.node(id).cost.parameters);
        let trainable = sum(&|id| match self.target.trains[id.0] {
            true => self.graph.node(id).cost.trainable,
            false => 0,
        });
        let reads: u64 = step.reads().map(|id| self.bytes(id)).sum();
        let wanted: u64 = step.reads().filter(|id| self.recorded[id.0]).map(|id| self.bytes(id)).sum();
        let writes = self.bytes(step.output);
        let saved = if layers.iter().any(|&id| self.derivative_reads_input(id)) { reads } else { 0 };
        let forward =
            PassCost { flops: sum(&|id| self.flops(id)), bytes: reads + 4 * parameters + writes };
        let backward = PassCost {
            flops: sum(&|id| self.backward_flops(id)),
            bytes: writes + saved + 4 * parameters + wanted + 4 * trainable,
        };
        let renames = layers.iter().all(|&id| self.renames(id));
        let moved = |pass: PassCost| PassCost { bytes: if renames { 0 } else { pass.bytes }, ..pass };
        let sum_alone = layers.iter().all(|&id| matches!(self.graph.node(id).layer, Layer::Add));
        let differentiated = self.target.gradients && self.recorded[step.output.0] && !sum_alone;
        StepCost {
            parameters,
            forward: moved(forward),
            backward: if differentiated { moved(backward) } else { PassCost::default() },
            live_bytes: 0,
        }
    }

    fn batch(&self) -> u64 {
        self.target.input[0] as u64
    }

    /// Of a layer's output.
    fn bytes(&self, id: Id) -> u64 {
        self.batch().saturating_mul(self.graph.node(id).cost.activation_bytes)
    }

    fn flops(&self, id: Id) -> u64 {
        self.batch().saturating_mul(self.graph.node(id).cost.flops)
    }

    fn backward_flops(&self, id: Id) -> u64 {
        let by_input = self.graph.node(id).inputs.iter().any(|input| self.recorded[input.0]);
        self.flops(id).saturating_mul(by_input as u64 + self.target.trains[id.0] as u64)
    }

    fn derivative_reads_input(&self, id: Id) -> bool {
        !matches!(
            self.graph.node(id).layer,
            Layer::Add
                | Layer::AveragePooling2D(_)
                | Layer::Concatenate
                | Layer::Dropout(_)
                | Layer::GlobalAveragePooling2D
                | Layer::GlobalMaxPooling2D
                | Layer::MaxPooling2D(_)
                | Layer::UpSampling2D(_)
                | Layer::ZeroPadding2D(_)
        )
    }

    /// Whether a layer's output is its input under another shape.
    fn renames(&self, id: Id) -> bool {
        match self.graph.node(id).layer {
            Layer::Input(_) | Layer::Flatten | Layer::Reshape(_) => true,
            Layer::Dropout(_) => !self.target.gradients,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::nn::{PlanTable, Purpose};
    use crate::ops::Padding;

    /// 8×8×3 → conv 3×3, 4 filters → conv 1×1, 5 filters → the two side by side → pixels in a row → dense 2.
    fn network() -> Graph {
        let mut g = Graph::new("small", "input", [8, 8, 3]);
        let a = g.add(Layer::conv2d(4, 3).with_padding(Padding::Same), &[g.input()]).unwrap();
        let b = g.add(Layer::conv2d(5, 1), &[a]).unwrap();
        let both = g.add(Layer::Concatenate, &[a, b]).unwrap();
        g.chain(both, [Layer::Flatten, Layer::dense(2)]).unwrap();
        g
    }

    fn costs_of(purpose: Purpose, batch: usize) -> Vec<StepCost> {
        let table = PlanTable::new(&network(), Device::Cpu, purpose, batch).unwrap();
        table.steps.iter().map(|step| step.cost).collect()
    }

    #[test]
    fn a_step_s_costs_are_those_that_its_shapes_give_by_hand() {
        let [input, conv, point, concat, flatten, dense] =
            costs_of(Purpose::Inference, 2).try_into().unwrap();
        let pass = |flops, bytes| PassCost { flops, bytes };
        // 2 images of 64 pixels; 2·27 + 1 and 2·4 + 1 operations an output; weights and biases.
        assert_eq!(conv.parameters, 27 * 4 + 4);
        assert_eq!(conv.forward, pass(2 * 64 * 4 * 55, 4 * (2 * 64 * 3 + 112 + 2 * 64 * 4)));
        assert_eq!(point.forward, pass(2 * 64 * 5 * 9, 4 * (2 * 64 * 4 + 25 + 2 * 64 * 5)));
        assert_eq!(concat.forward.bytes, 4 * 2 * 64 * (4 + 5 + 9));
        assert_eq!((input.forward.bytes, flatten.forward.bytes), (0, 0));
        assert_eq!(dense.forward, pass(2 * 2 * (2 * 576 + 1), 4 * (2 * 576 + 1154 + 4)));
        assert!(conv.backward == pass(0, 0) && dense.backward == pass(0, 0));
        // Images and a; a; a and b; both; both under another name; the answer.
        let live = [input, conv, point, concat, flatten, dense].map(|cost| cost.live_bytes / 4);
        assert_eq!(live, [2 * 64 * 3, 2 * 64 * 4, 2 * 64 * 9, 2 * 576, 2 * 576, 4]);
    }

    #[test]
    fn backward_a_layer_repeats_its_work_for_each_gradient_that_is_wanted() {
        let [_, conv, point, concat, _, _] = costs_of(Purpose::Training, 2).try_into().unwrap();
        let (first, second) = (conv.forward.flops, point.forward.flops);
        // Nobody asks for the images' gradient.
        assert_eq!((conv.backward.flops, point.backward.flops), (first, 2 * second));
        assert_eq!(conv.backward.bytes, 4 * (2 * 64 * 4 + 2 * 64 * 3 + 112 + 112));
        assert_eq!(point.backward.bytes, 4 * (2 * 64 * 5 + 2 * (2 * 64 * 4) + 2 * 25));
        // Shares of a gradient are copied; what was concatenated is not looked at.
        assert_eq!(concat.backward.bytes, 4 * 2 * (2 * 64 * 9));
    }
}
