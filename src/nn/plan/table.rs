//! A plan as people and programs read it: `atrous summary NET --plan`.

use super::cost::{StepCost, costs};
use super::{Fusion, Plan, Step, Target, geometry};
use crate::activation::Activation;
use crate::backend::cpu::simd::Isa;
use crate::context::{fast_math, isa};
use crate::device::Device;
use crate::error::Result;
use crate::nn::graph::{Graph, Id, Node};
use crate::nn::layers::Layer;
use crate::nn::rewrite::Rewrite;
use crate::ops::conv2d::{Conv2dGeometry, Pass, choose};
use crate::ops::epilogue::Kernels;
use crate::tensor::Shape;
use std::fmt;

/// What a network is run for.
///
/// ```
/// use atrous::nn::{PlanTable, Purpose};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// graph.add(Layer::conv2d(4, 3), &[graph.input()])?;
/// let flops = |purpose| {
///     let plan = PlanTable::new(&graph, Device::Cpu, purpose, 1)?;
///     let cost = plan.steps[1].cost;
///     Ok::<_, Error>([cost.forward.flops, cost.backward.flops])
/// };
/// let forward = (2 * 27 + 1) * (6 * 6 * 4);
/// assert_eq!(flops(Purpose::Inference)?, [forward, 0]);
/// assert_eq!(flops(Purpose::Training)?, [forward; 2]); // the gradient of the weights, not of the images
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "lowercase"))]
pub enum Purpose {
    /// Moving statistics, folded into the layers before them; no gradients.
    Inference,
    /// Batch statistics, and gradients by all that trains.
    Training,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Purpose::Inference => "inference",
            Purpose::Training => "training",
        })
    }
}

/// The steps that compute a network.
///
/// ```
/// use atrous::nn::{PlanTable, Purpose};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let relu = Layer::Activation(Activation::Relu);
/// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::batch_normalization(), relu])?;
/// let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Inference, 16)?;
/// assert_eq!((plan.layers, plan.steps.len()), (4, 2)); // the input, and one operator
/// let step = &plan.steps[1];
/// assert_eq!((step.operator, &step.fused[..]), ("Conv2D", &["activation (relu)".into()][..]));
/// assert_eq!(step.layers, ["conv2d", "activation"]); // the batch norm is in the weights
/// assert_eq!(step.cost.parameters, 27 * 4 + 4);
///
/// let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Training, 16)?;
/// assert_eq!(plan.steps.len(), 3); // whose batch statistics need the convolution's whole output first
/// # Ok::<(), Error>(())
/// ```
pub struct PlanTable {
    /// The network's name.
    pub model: String,
    /// Where it would run: what can be fused differs from device to device.
    pub device: Device,
    /// Training keeps what gradients read, and fuses less.
    pub purpose: Purpose,
    /// Images [N, H, W, C].
    pub input: Shape,
    /// Of the network as it is declared.
    pub layers: usize,
    /// In the order they run, fewer than layers where several are fused into one.
    pub steps: Vec<PlannedStep>,
}

/// One operator, and what it makes in its pass.
///
/// ```
/// use atrous::nn::{PlanTable, Purpose};
/// use atrous::ops::conv2d::Pass;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 32]);
/// let conv = Layer::conv2d(32, 1).with_activation(Activation::Relu);
/// graph.chain(graph.input(), [conv, Layer::max_pooling2d(2)])?;
/// let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Training, 4)?;
/// let step = &plan.steps[1];
/// let [forward, kernel] = &step.algorithms[..] else { unreachable!() }; // two `ChosenAlgorithm`s
/// assert_eq!((forward.pass, kernel.pass), (Pass::Forward, Pass::KernelGrad));
/// assert_eq!(forward.algorithm, "1×1 GEMM");
/// let unfused = &step.unfused[0]; // an `UnfusedLayer`
/// assert_eq!((unfused.layer.as_str(), unfused.part), ("max_pooling2d", "max pooling"));
/// assert_eq!(unfused.why, "its gradient needs what lies between");
/// # Ok::<(), Error>(())
/// ```
pub struct PlannedStep {
    /// The names of the layers that it computes.
    pub layers: Vec<String>,
    /// The type of the layer whose operator it is.
    pub operator: &'static str,
    /// Of what it makes, without the batch axis.
    pub output_shape: Vec<usize>,
    /// What is made in its pass besides its own result.
    pub fused: Vec<String>,
    /// Layers that could have been part of this step, each with the reason why not.
    pub unfused: Vec<UnfusedLayer>,
    /// Of a convolution, pass by pass.
    pub algorithms: Vec<ChosenAlgorithm>,
    /// Layers whose outputs nobody reads after it.
    pub frees: Vec<String>,
    /// Its arithmetic and memory, for the batch.
    pub cost: StepCost,
}

/// A layer that is a step of its own although it might have been part of this one.
///
/// [`PlannedStep`] has an example.
pub struct UnfusedLayer {
    /// Its name in the graph.
    pub layer: String,
    /// As what.
    pub part: &'static str,
    /// The reason, to be read after the part: `its gradient needs what lies between`.
    pub why: &'static str,
}

/// How a pass of a convolution is computed.
///
/// [`PlannedStep`] has an example.
pub struct ChosenAlgorithm {
    /// y, ∂x or ∂w; at inference y alone.
    pub pass: Pass,
    /// Its name for readers: `implicit GEMM`.
    pub algorithm: String,
    /// Why this one: a sentence for readers.
    pub reason: String,
}

impl PlanTable {
    /// The plan of a network, none of which is frozen, for so many images at once. Its parameters need no
    /// values for that, and the device need not be there.
    pub fn new(graph: &Graph, device: Device, purpose: Purpose, batch: usize) -> Result<Self> {
        let rewrite = match purpose {
            Purpose::Inference => Rewrite::for_inference(graph)?,
            Purpose::Training => Rewrite::for_training(graph, |_| false)?,
        };
        let training = purpose == Purpose::Training;
        let kernels = match (device, isa()) {
            (Device::Cuda(_) | Device::Emulated, _) => Kernels::Cuda,
            (Device::Cpu, Isa::Reference) => Kernels::Reference,
            (Device::Cpu, isa) => Kernels::Cpu(isa),
        };
        let image = &rewrite.graph.node(rewrite.graph.input()).output_shape;
        let trains = |node: &Node| node.parameters.iter().any(|spec| spec.trainable);
        let target = Target {
            kernels,
            input: Shape::checked(&[&[batch], &image[..]].concat())?,
            input_gradient: false,
            gradients: training,
            batch_statistics: training,
            trains: rewrite.graph.nodes().iter().map(trains).collect(),
            observed: false,
        };
        let reader = Reader { graph: &rewrite.graph, target: &target };
        let plan = Plan::new(&rewrite.graph, &target);
        let costs = costs(&rewrite.graph, &target, &plan);
        let steps = plan.steps.iter().zip(costs).map(|(step, cost)| reader.step(step, cost)).collect();
        let (model, layers) = (graph.name.clone(), graph.nodes().len());
        Ok(PlanTable { model, device, purpose, input: target.input, layers, steps })
    }
}

/// Puts steps into words.
struct Reader<'a> {
    graph: &'a Graph,
    target: &'a Target,
}

impl Reader<'_> {
    fn step(&self, step: &Step, cost: StepCost) -> PlannedStep {
        let unfused = step.unfused.iter();
        PlannedStep {
            layers: step.layers().into_iter().map(|id| self.name(id)).collect(),
            operator: self.graph.node(step.layer).layer.type_name(),
            output_shape: self.graph.node(step.output).output_shape.clone(),
            fused: self.fused(step),
            unfused: unfused
                .map(|u| UnfusedLayer { layer: self.name(u.layer), part: u.part, why: u.why })
                .collect(),
            algorithms: self.algorithms(step),
            frees: step.frees.iter().map(|&id| self.name(id)).collect(),
            cost,
        }
    }

    fn name(&self, id: Id) -> String {
        self.graph.node(id).name.clone()
    }

    fn fused(&self, step: &Step) -> Vec<String> {
        let Fusion { depthwise, residual, activation, pool, statistics, .. } = &step.fusion;
        let named = |what: &str, activation: Activation| format!("{what} ({})", activation.name());
        let own = match self.graph.node(step.layer).layer {
            Layer::Conv2D(layer) => layer.activation.split().0,
            _ => Activation::Linear,
        };
        let depthwise = depthwise.map(|(id, between)| match between {
            Activation::Linear => format!("depthwise convolution `{}`", self.name(id)),
            between => named(&format!("depthwise convolution `{}`", self.name(id)), between),
        });
        let activation = [own, *activation].into_iter().find(|&a| a != Activation::Linear);
        [
            depthwise,
            residual.map(|id| format!("residual `{}`", self.name(id))),
            activation.map(|activation| named("activation", activation)),
            pool.then(|| "max pooling 2×2".into()),
            statistics.map(|id| format!("statistics for `{}`", self.name(id))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Of the passes that there will be: a gradient by images nobody asks for has none.
    fn algorithms(&self, step: &Step) -> Vec<ChosenAlgorithm> {
        let (i, batch) = (step.layer.0, self.target.input[0]);
        let Some(g) = geometry(self.graph, batch, i) else { return Vec::new() };
        let first = step.inputs.iter().all(|id| *id == self.graph.input());
        let gradients = self.target.gradients;
        let wanted = |pass: &Pass| match pass {
            Pass::Forward => true,
            Pass::InputGrad => gradients && !first,
            Pass::KernelGrad => gradients && self.target.trains[i],
        };
        Pass::ALL.into_iter().filter(wanted).map(|pass| self.algorithm(pass, &g)).collect()
    }

    fn algorithm(&self, pass: Pass, g: &Conv2dGeometry) -> ChosenAlgorithm {
        let (algorithm, reason) = match self.target.kernels {
            Kernels::Cpu(isa) => {
                let choice = choose(pass, isa, g, fast_math());
                (choice.algorithm.to_string(), choice.reason)
            }
            Kernels::Cuda => ("implicit GEMM".into(), "the one that CUDA has kernels for".into()),
            Kernels::Reference => ("naive".into(), "the definition, loop by loop".into()),
        };
        ChosenAlgorithm { pass, algorithm, reason }
    }
}

fn sides(axes: &[usize]) -> String {
    axes.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

impl fmt::Display for PlanTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlanTable { model, device, purpose, input, layers, steps } = self;
        let images = sides(input);
        write!(
            f,
            "{model}: {purpose} of {images} on {device}, {layers} layers in {} steps",
            steps.len()
        )?;
        let width = steps.iter().map(|step| step.operator.len()).max().unwrap_or(0);
        for (number, step) in (1..).zip(steps) {
            let (operator, shape) = (step.operator, sides(&step.output_shape));
            write!(f, "\n{number:>4}  {operator:<width$}  {shape:<12}  {}", step.layers.join(" + "))?;
            if !step.fused.is_empty() {
                write!(f, "\n        fused: {}", step.fused.join(", "))?;
            }
            for UnfusedLayer { layer, part, why } in &step.unfused {
                write!(f, "\n        not fused: {part} `{layer}`: {why}")?;
            }
            for ChosenAlgorithm { pass, algorithm, reason } in &step.algorithms {
                write!(f, "\n        {pass}: {algorithm} ({reason})")?;
            }
        }
        Ok(())
    }
}

#[cfg(feature = "checkpoint")]
impl PlanTable {
    /// The plan as JSON: one object a step.
    ///
    /// ```
    /// # use atrous::nn::{PlanTable, Purpose};
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::Flatten, Layer::dense(2)])?;
    /// let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Inference, 1)?.to_json();
    /// assert_eq!(plan["input_shape"].to_string(), "[1,8,8,3]");
    /// assert_eq!(plan["steps"][3]["layers"][0], "dense");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::{Value, json};
        let step = |step: &PlannedStep| {
            let unfused = step.unfused.iter();
            let unfused = unfused.map(|u| json!({"layer": u.layer, "part": u.part, "why": u.why}));
            let algorithms = step.algorithms.iter().map(|chosen| {
                let ChosenAlgorithm { pass, algorithm, reason } = chosen;
                json!({"pass": pass.to_string(), "algorithm": algorithm, "reason": reason})
            });
            json!({
                "layers": step.layers,
                "operator": step.operator,
                "output_shape": step.output_shape,
                "fused": step.fused,
                "not_fused": unfused.collect::<Vec<Value>>(),
                "algorithms": algorithms.collect::<Vec<Value>>(),
                "frees": step.frees,
            })
        };
        json!({
            "device": self.device.to_string(),
            "pass": self.purpose.to_string(),
            "input_shape": self.input.to_vec(),
            "steps": self.steps.iter().map(step).collect::<Vec<Value>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::with_isa;
    use crate::ops::Padding;

    fn network() -> Graph {
        let mut g = Graph::new("small", "input", [64, 64, 3]);
        let relu = Layer::Activation(Activation::Relu);
        let conv = Layer::conv2d(32, 3).with_padding(Padding::Same);
        let x = g.chain(g.input(), [conv, Layer::batch_normalization(), relu]).unwrap();
        let point = Layer::conv2d(32, 1);
        let y = g.chain(x, [point, Layer::depthwise_conv2d(), relu, point]).unwrap();
        let sum = g.add(Layer::Add, &[x, y]).unwrap();
        g.chain(sum, [conv, relu, Layer::max_pooling2d(2), Layer::Flatten, Layer::dense(4)]).unwrap();
        g
    }

    fn text(device: Device, purpose: Purpose) -> String {
        let table = || PlanTable::new(&network(), device, purpose, 8).unwrap().to_string();
        with_isa(Isa::Portable, table)
    }

    #[test]
    fn what_is_fused_and_what_is_not_and_each_algorithm_are_said_with_their_reasons() {
        let inference = text(Device::Cpu, Purpose::Inference);
        for line in [
            "small: inference of 8×64×64×3 on cpu, 14 layers in 7 steps",
            "conv2d + activation\n        fused: activation (relu)",
            "depthwise_conv2d + activation_1 + conv2d_2 + add\n        fused: depthwise convolution \
             `depthwise_conv2d` (relu), residual `activation`",
            "forward: 1×1 GEMM (1×1, stride 1: a matrix product, nothing to gather)",
            "fused: activation (relu), max pooling 2×2",
        ] {
            assert!(inference.contains(line), "{line}\n{inference}");
        }
        assert!(!inference.contains("not fused"), "{inference}");
        let training = text(Device::Cpu, Purpose::Training);
        for line in [
            "not fused: max pooling `max_pooling2d`: its gradient needs what lies between",
            "not fused: residual `add`: its gradient needs what lies between",
            "not fused: depthwise convolution `depthwise_conv2d`: its gradient needs what lies between",
            "wgrad: ",
            "dgrad: ",
        ] {
            assert!(training.contains(line), "{line}\n{training}");
        }
        let on_cuda = text(Device::Cuda(0), Purpose::Inference);
        for line in [
            "not fused: residual `add`: no CUDA kernel does",
            "not fused: max pooling `max_pooling2d`: no CUDA kernel does",
            "forward: implicit GEMM (",
        ] {
            assert!(on_cuda.contains(line), "{line}\n{on_cuda}");
        }
    }
}
