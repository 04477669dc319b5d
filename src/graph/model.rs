//! A graph with values for its parameters.

use super::Graph;
use crate::error::{Error, Result};
use crate::layers::{Activation, Layer, Lowered, Run};
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
    pub fn new(graph: Graph, seed: u64) -> Self {
        Self::with(graph, |path, shape, initializer| initializer.fill(shape, seed, path))
    }

    /// A model whose parameters are given by path and shape (and the layer's initializer).
    pub fn with(
        graph: Graph,
        mut value: impl FnMut(&str, Shape, crate::layers::Initializer) -> Tensor,
    ) -> Self {
        let (mut parameters, mut offsets) = (Vec::new(), Vec::new());
        for node in graph.nodes() {
            offsets.push(parameters.len());
            let Some(input) = node.inputs.first() else { continue };
            for spec in node.layer.parameters(&graph.node(*input).output_shape) {
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

    /// Numbers in all parameters, and in the trainable ones.
    pub fn count_parameters(&self) -> (usize, usize) {
        let count = |trainable_only: bool| {
            let wanted = |p: &&Parameter| p.trainable || !trainable_only;
            self.parameters.iter().filter(wanted).map(|p| p.value.shape().elements()).sum()
        };
        (count(false), count(true))
    }

    /// Takes over moving statistics that a pass computed.
    pub fn update_moving(&mut self, moving: Vec<(usize, Tensor)>) {
        for (i, value) in moving {
            self.parameters[i].value = value;
        }
    }

    /// Runs the network on pictures [N, H, W, C].
    pub fn run(&self, x: &Tensor, run: Run) -> Result<Pass> {
        self.run_observed(x, run, &mut |_, _| {})
    }

    /// [`Model::run`], showing every layer's output as soon as it is there.
    pub fn run_observed(
        &self,
        x: &Tensor,
        run: Run,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Pass> {
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
        let last_uses = self.graph.last_uses();
        let mut values: Vec<Option<Tensor>> = vec![None; nodes.len()];
        let mut moving = Vec::new();
        let mut logits = None;
        for (i, node) in nodes.iter().enumerate() {
            let inputs: Vec<&Tensor> = match node.layer {
                Layer::Input(_) => vec![x],
                _ => node
                    .inputs
                    .iter()
                    .map(|id| values[id.0].as_ref().expect("kept until read"))
                    .collect(),
            };
            let head =
                matches!(node.layer, Layer::Activation(Activation::Sigmoid | Activation::Softmax));
            if i + 1 == nodes.len() && head {
                logits = Some(inputs[0].clone());
            }
            let range = self.offsets[i]..self.offsets[i + 1];
            let Lowered { output, moving: statistics } =
                node.layer.lower(&node.name, &inputs, &leaves[range.clone()], run)?;
            if let Some((mean, variance)) = statistics {
                moving.extend([(range.end - 2, mean), (range.end - 1, variance)]);
            }
            observe(&node.name, &output);
            // What is read no more is dropped: the tape holds what its gradients need.
            for id in &node.inputs {
                if last_uses[id.0] == i {
                    values[id.0] = None;
                }
            }
            values[i] = Some(output);
        }
        let output = values.pop().flatten().expect("the last layer's output");
        Ok(Pass { logits: logits.unwrap_or_else(|| output.clone()), output, leaves, moving })
    }
}

pub(super) fn join(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
