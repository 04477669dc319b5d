//! A graph with values for its parameters.

use super::passes::{Extras, Passes};
use super::{Graph, Id};
use crate::context::on_threads;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::layers::{Along, Layer, Lowered, Run};
use crate::ops::batch_norm::Statistics;
use crate::pool;
use crate::tensor::{DType, Shape, Tensor};

#[derive(Clone)]
pub struct Parameter {
    /// Its Keras path: `conv2d/kernel`.
    pub path: String,
    pub value: Tensor,
    /// False for moving statistics, and for what is frozen.
    pub trainable: bool,
}

#[derive(Clone)]
pub struct Model {
    pub graph: Graph,
    pub parameters: Vec<Parameter>,
    /// For each layer, where its parameters begin.
    offsets: Vec<usize>,
}

/// What one pass through a network leaves.
pub struct Pass {
    pub output: Tensor,
    /// What the last layer's sigmoid or softmax was applied to; else the output.
    pub logits: Tensor,
    /// The parameters as this pass used them: leaves of the tape where they have a gradient.
    pub leaves: Vec<Tensor>,
    /// New values of moving statistics, by parameter.
    pub moving: Vec<(usize, Tensor)>,
}

impl Model {
    /// A model with parameters as their initializers give them under this seed.
    ///
    /// # Panics
    /// With [`pool::OutOfMemory`] where there is no room for all of them, before the first is made.
    pub fn new(graph: Graph, seed: u64) -> Self {
        pool::require(graph.cost().parameters.saturating_mul(4));
        Self::with(graph, |path, shape, initializer| initializer.fill(shape, seed, path))
    }

    /// A model whose parameters are given by path and shape (and the layer's initializer).
    pub fn with(
        graph: Graph,
        mut value: impl FnMut(&str, Shape, crate::nn::layers::Initializer) -> Tensor,
    ) -> Self {
        let (mut parameters, mut offsets) = (Vec::new(), Vec::new());
        for node in graph.nodes() {
            offsets.push(parameters.len());
            for spec in &node.parameters {
                let path = format!("{}/{}", node.name, spec.kind);
                let value = value(&path, spec.shape, spec.initializer);
                parameters.push(Parameter { path, value, trainable: spec.trainable });
            }
        }
        offsets.push(parameters.len());
        Model { graph, parameters, offsets }
    }

    /// The parameters of the i-th layer.
    pub fn layer_parameters(&self, i: usize) -> &[Parameter] {
        &self.parameters[self.offsets[i]..self.offsets[i + 1]]
    }

    /// How many of the parameters, which come first, are the base's.
    pub fn base_parameters(&self) -> usize {
        self.offsets[self.graph.base().len()]
    }

    pub fn parameter(&self, path: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.path == path)
    }

    /// Replaces a value; an error when the path is unknown or the shape another.
    pub fn set(&mut self, path: &str, value: Tensor) -> Result<()> {
        let parameter = self
            .parameters
            .iter_mut()
            .find(|parameter| parameter.path == path)
            .ok_or_else(|| Error::argument("parameter", format!("the model has no `{path}`")))?;
        if parameter.value.shape() != value.shape() {
            let expected = format!("{} for parameter `{path}`", parameter.value.shape());
            return Err(Error::shape("model", expected, value.shape()));
        }
        parameter.value = value.detach();
        Ok(())
    }

    /// The same model in another element type: f64 runs the reference kernels.
    pub fn to_dtype(&self, dtype: DType) -> Self {
        let mut model = self.clone();
        for parameter in &mut model.parameters {
            parameter.value = parameter.value.to_dtype(dtype);
        }
        model
    }

    /// Where the parameters are, and where it runs.
    pub fn device(&self) -> Device {
        self.parameters.first().map_or(Device::Cpu, |parameter| parameter.value.device())
    }

    /// The same model on another device.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        let mut model = self.clone();
        for parameter in &mut model.parameters {
            parameter.value = parameter.value.to_device(device)?;
        }
        Ok(model)
    }

    /// What a batch norm adds to the variances that are this parameter; None for all other parameters.
    pub(crate) fn variance_epsilon(&self, parameter: usize) -> Option<f64> {
        let layer = self.offsets.partition_point(|&offset| offset <= parameter) - 1;
        match self.graph.nodes().get(layer)?.layer {
            Layer::BatchNormalization { epsilon, .. } => {
                let variance = self.parameters[parameter].path.ends_with("/moving_variance");
                variance.then_some(epsilon)
            }
            _ => None,
        }
    }

    /// Whether a root can be taken of a variance and the epsilon that is added to it, in f32 as in f64.
    pub(crate) fn is_variance(value: f32, epsilon: f64) -> bool {
        f64::from(value) + epsilon > 0.0 && value + epsilon as f32 > 0.0
    }

    /// The first number among the parameters with which nothing can be computed, in words: one that is not
    /// finite, or a variance that stays no variance when the layer's epsilon is added.
    pub fn first_unusable(&self) -> Option<String> {
        self.parameters.iter().enumerate().find_map(|(i, Parameter { path, value, .. })| {
            let values = value.to_vec_f64();
            let wrong = |expected: &str, at: usize| {
                format!("`{path}`: expected {expected}, got {} at {at}", values[at])
            };
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                return Some(wrong("finite numbers", at));
            }
            let epsilon = self.variance_epsilon(i)?;
            let at = values.iter().position(|&v| !Self::is_variance(v as f32, epsilon))?;
            Some(wrong(&format!("variances above −{epsilon}, which is added to them"), at))
        })
    }

    /// Numbers in all parameters, and in the trainable ones.
    pub fn count_parameters(&self) -> (usize, usize) {
        let count = |trainable_only: bool| {
            let wanted = |p: &&Parameter| p.trainable || !trainable_only;
            self.parameters.iter().filter(wanted).map(|p| p.value.shape().elements()).sum()
        };
        (count(false), count(true))
    }

    /// Makes the first `layers` layers keep their weights (and batch norms their statistics), and
    /// the others train.
    pub fn freeze_first(&mut self, layers: usize) {
        for i in 0..self.graph.nodes().len() {
            self.train_layer(i, i >= layers);
        }
    }

    /// Makes all batch norms of the base keep weights and statistics: those of a small batch are
    /// worse than the ones a base comes with.
    pub fn freeze_batch_norms(&mut self) {
        for i in 0..self.graph.base().len() {
            if matches!(self.graph.nodes()[i].layer, Layer::BatchNormalization { .. }) {
                self.train_layer(i, false);
            }
        }
    }

    fn train_layer(&mut self, i: usize, trainable: bool) {
        let specs = &self.graph.nodes()[i].parameters;
        let parameters = &mut self.parameters[self.offsets[i]..self.offsets[i + 1]];
        for (parameter, spec) in parameters.iter_mut().zip(specs) {
            parameter.trainable = trainable && spec.trainable;
        }
    }

    /// Takes over moving statistics that a pass computed. On a device they go where the old ones were: a
    /// captured graph finds its parameters in one place.
    pub fn update_moving(&mut self, moving: Vec<(usize, Tensor)>) -> Result<()> {
        for (i, value) in moving {
            let parameter = &mut self.parameters[i].value;
            match value.device() {
                Device::Cpu => *parameter = value,
                _ => parameter.overwrite(&value)?,
            }
        }
        Ok(())
    }

    /// Runs the network on pictures [N, H, W, C].
    pub fn run(&self, x: &Tensor, run: Run) -> Result<Pass> {
        on_threads(x.device(), || self.run_through(x, run, None))
    }

    /// [`Model::run`], showing every layer's output as soon as it is there.
    pub fn run_observed(
        &self,
        x: &Tensor,
        run: Run,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Pass> {
        self.run_edited(x, run, &mut |name, output| {
            observe(name, &output);
            Ok(output)
        })
    }

    /// [`Model::run`], where what `edit` makes of a layer's output goes on in its place: to see
    /// what follows from a feature, take it away.
    pub fn run_edited(
        &self,
        x: &Tensor,
        run: Run,
        edit: &mut dyn FnMut(&str, Tensor) -> Result<Tensor>,
    ) -> Result<Pass> {
        self.run_through(x, run, Some(edit))
    }

    fn run_through(&self, x: &Tensor, run: Run, mut edit: Option<&mut Edit>) -> Result<Pass> {
        let nodes = self.graph.nodes();
        let expected = &nodes[0].output_shape;
        if x.shape().len() != 4 || x.shape()[1..] != expected[..] {
            let expected = format!("pictures [N, {}]", join(expected));
            return Err(Error::shape(
                "model",
                format!("{expected} for `{}`", self.graph.name),
                x.shape(),
            ));
        }
        let leaf = |parameter: &Parameter| match run.gradients && parameter.trainable {
            true => parameter.value.leaf(),
            false => parameter.value.clone(),
        };
        let leaves: Vec<Tensor> = self.parameters.iter().map(leaf).collect();
        let passes = match edit {
            None => Passes::together(&self.graph),
            Some(_) => Passes::apart(&self.graph),
        };
        let last_uses = self.graph.last_uses();
        let mut values: Vec<Option<Tensor>> = vec![None; nodes.len()];
        let mut statistics: Vec<Option<Statistics>> = nodes.iter().map(|_| None).collect();
        let mut moving = Vec::new();
        let mut logits = None;
        for (i, node) in nodes.iter().enumerate() {
            let made = passes.made_by[i].and_then(|id| values[id.0].take());
            let inputs: Vec<Tensor> = match node.layer {
                Layer::Input(_) => vec![x.clone()],
                _ => node.inputs.iter().filter_map(|id| values[id.0].clone()).collect(),
            };
            // What is read for the last time is given away: the tape holds what its gradients
            // need and no more, and an activation can work in place.
            for id in &node.inputs {
                if last_uses[id.0] == i {
                    values[id.0] = None;
                }
            }
            let range = self.offsets[i]..self.offsets[i + 1];
            // A frozen batch norm keeps its moving statistics, whatever the others do.
            let of_batch = |i: usize| {
                let range = self.offsets[i]..self.offsets[i + 1];
                run.batch_statistics && self.parameters[range].iter().any(|p| p.trainable)
            };
            let run = Run { batch_statistics: of_batch(i), ..run };
            let lowered = match made {
                Some(output) => Lowered { output, logits: None, moving: None, statistics: None },
                None => {
                    let Extras { activation, onto, last, pooled, depthwise, later, statistics_for } =
                        passes.extras[i];
                    let onto = onto.and_then(|id| match last {
                        true => values[id.0].take(),
                        false => values[id.0].clone(),
                    });
                    let depthwise = depthwise.map(|Id(i)| {
                        let its = &leaves[self.offsets[i]..self.offsets[i + 1]];
                        nodes[i].layer.convolution(its, passes.extras[i].activation)
                    });
                    let known = node.inputs.first().and_then(|id| statistics[id.0].take());
                    let statistics = statistics_for.is_some_and(|Id(norm)| of_batch(norm));
                    let along = Along { activation, onto, pooled, depthwise, later, statistics, known };
                    node.layer.lower(&node.name, inputs, &leaves[range.clone()], run, along)?
                }
            };
            let Lowered { output, logits: raw, moving: moved, statistics: told } = lowered;
            statistics[i] = told;
            if let Some((mean, variance)) = moved {
                moving.extend([(range.end - 2, mean), (range.end - 1, variance)]);
            }
            logits = raw;
            values[i] = Some(match &mut edit {
                Some(edit) => edit(&node.name, output)?,
                None => output,
            });
        }
        let output = values.pop().flatten().expect("the last layer's output");
        Ok(Pass { logits: logits.unwrap_or_else(|| output.clone()), output, leaves, moving })
    }
}

/// Sees every layer's output, and gives what goes on in its place.
type Edit<'a> = dyn FnMut(&str, Tensor) -> Result<Tensor> + 'a;

pub(super) fn join(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
