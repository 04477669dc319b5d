//! Running a graph: its plan, step by step.

use super::graph::{Graph, Id};
use super::layers::{Forward, Layer, LayerOutput, Mode, convolution};
use super::parameters::{Binding, Bindings, ParamId, Parameter};
use super::plan::{Fusion, PlanCache, Step, Target};
use crate::activation::Activation;
use crate::autograd::Needs;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::ops::Convolution;
use crate::ops::batch_norm::Statistics;
use crate::ops::epilogue::{Epilogue, Kernels};
use crate::spans;
use crate::tensor::Tensor;

/// What one pass through a network leaves.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let classify = Layer::dense(2).with_activation(Activation::Sigmoid);
/// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, classify])?;
/// let mut model = Model::new(graph, 1);
/// model.freeze_first(2); // the input and the convolution
/// let forward = model.run(&Tensor::rand([5, 8, 8, 3], 7), Mode::train(1, 0))?;
/// assert_eq!(forward.output.to_string(), forward.logits.sigmoid()?.to_string());
///
/// let loss = forward.logits.binary_cross_entropy_with_logits(&Tensor::ones([5, 2]))?;
/// let gradients = loss.backward()?;
/// let train: Vec<bool> = forward.leaves.iter().map(|leaf| gradients.get(leaf).is_some()).collect();
/// assert_eq!(train, [false, false, true, true]); // two kernels, each before its bias
/// assert!(forward.moving.is_empty()); // there is no batch norm
/// # Ok::<(), Error>(())
/// ```
pub struct ForwardOutput {
    /// What the last layer makes: for a classifier, probabilities `[N, classes]`.
    pub output: Tensor,
    /// What the last layer's sigmoid or softmax was applied to; else the output.
    pub logits: Tensor,
    /// The parameters as this pass used them: leaves of the tape where they have a gradient.
    pub leaves: Vec<Tensor>,
    /// New values of moving statistics, each with the place of its parameter among the model's.
    pub moving: Vec<(usize, Tensor)>,
}

/// Sees every layer's output, and gives what goes on in its place.
pub(crate) type Edit<'a> = dyn FnMut(&str, Tensor) -> Result<Tensor> + 'a;

/// A graph, where its parameters are, and the plans that were made for it.
#[derive(Clone, Copy)]
pub(crate) struct Network<'a> {
    pub graph: &'a Graph,
    pub bindings: &'a Bindings,
    pub store: &'a [Parameter],
    pub plans: &'a PlanCache,
}

/// A pass under way: what is known so far.
struct Progress {
    leaves: Vec<Tensor>,
    /// By layer: outputs that somebody still reads.
    values: Vec<Option<Tensor>>,
    /// By batch norm: what the convolution before it told of its input.
    statistics: Vec<Option<Statistics>>,
    moving: Vec<(usize, Tensor)>,
    logits: Option<Tensor>,
}

impl Network<'_> {
    /// Runs the network on images [N, H, W, C]. With `edit`, each layer is a step of its own.
    pub fn run(&self, x: &Tensor, mode: Mode, mut edit: Option<&mut Edit>) -> Result<ForwardOutput> {
        self.check(x)?;
        let plan = self.plans.get(self.graph, self.target(x, mode, edit.is_some()));
        let nodes = self.graph.nodes();
        let leaf = |parameter: &Parameter| match mode.gradients && parameter.trainable {
            true => parameter.value.leaf(),
            false => parameter.value.clone(),
        };
        let mut progress = Progress {
            leaves: self.store.iter().map(leaf).collect(),
            values: vec![None; nodes.len()],
            statistics: nodes.iter().map(|_| None).collect(),
            moving: Vec::new(),
            logits: None,
        };
        for (number, step) in plan.steps.iter().enumerate() {
            let output = spans::step(number, || self.step(step, x, mode, &mut progress))?;
            let output = match &mut edit {
                Some(edit) => edit(&self.graph.node(step.output).name, output)?,
                None => output,
            };
            let unread = step.frees.contains(&step.output);
            progress.values[step.output.0] = (!unread).then_some(output);
        }
        let Progress { leaves, mut values, moving, logits, .. } = progress;
        let output = values[self.graph.output().0].take();
        let output = output.ok_or_else(|| Error::argument("model", "no step made its output"))?;
        Ok(ForwardOutput { logits: logits.unwrap_or_else(|| output.clone()), output, leaves, moving })
    }

    fn step(&self, step: &Step, x: &Tensor, mode: Mode, progress: &mut Progress) -> Result<Tensor> {
        let node = self.graph.node(step.layer);
        let inputs = match node.layer {
            Layer::Input(_) => vec![x.clone()],
            _ => step.inputs.iter().filter_map(|id| progress.values[id.0].clone()).collect(),
        };
        let Fusion { activation, pool, statistics, .. } = step.fusion;
        let residual = step.fusion.residual.and_then(|id| progress.values[id.0].clone());
        let epilogue = Epilogue { residual, activation, pool, statistics: statistics.is_some() };
        // What is read for the last time is given away: the tape holds what its gradients need and no more,
        // and an activation or a sum can work in place.
        step.frees.iter().for_each(|id| progress.values[id.0] = None);
        let parameters = self.parameters(step.layer, &progress.leaves);
        let of_depthwise = step.fusion.depthwise.map(|(id, _)| self.parameters(id, &progress.leaves));
        let weight = self.bindings.of(step.layer.0).first();
        let forward = Forward {
            name: &node.name,
            parameters: &parameters,
            prepack: weight.map(|weight| &weight.parameter(self.store).prepack),
            mode: Mode { batch_statistics: step.batch_statistics, ..mode },
            epilogue,
            depthwise: of_depthwise.as_deref().and_then(|its| self.depthwise(step, its)),
            statistics: progress.statistics[step.layer.0].take(),
        };
        let LayerOutput { output, logits, moving, statistics: told } =
            node.layer.forward(inputs, forward)?;
        if let Some(norm) = statistics {
            progress.statistics[norm.0] = told;
        }
        progress.moving.extend(moving.into_iter().flat_map(|moving| self.moving(step.layer, moving)));
        progress.logits = logits;
        Ok(output)
    }

    /// The depthwise convolution that a step makes before its own.
    fn depthwise<'a>(
        &self,
        step: &Step,
        parameters: &'a [Tensor],
    ) -> Option<(Convolution<'a>, Activation)> {
        let (id, between) = step.fusion.depthwise?;
        match self.graph.node(id).layer {
            Layer::DepthwiseConv2D(layer) => Some((convolution(parameters, layer.options()), between)),
            _ => None,
        }
    }

    /// New moving statistics of a batch norm, whose last two parameters they are, with these' places.
    fn moving(&self, norm: Id, (mean, variance): (Tensor, Tensor)) -> Vec<(usize, Tensor)> {
        match self.bindings.of(norm.0) {
            [.., Binding::Stored(ParamId(a)), Binding::Stored(ParamId(b))] => {
                vec![(*a, mean), (*b, variance)]
            }
            _ => Vec::new(),
        }
    }

    /// A layer's, as this pass uses them.
    fn parameters(&self, layer: Id, leaves: &[Tensor]) -> Vec<Tensor> {
        let all = self.bindings.of(layer.0).iter();
        all.map(|binding| match binding.stored() {
            Some(id) => leaves[id.0].clone(),
            None => binding.parameter(self.store).value.clone(),
        })
        .collect()
    }

    fn target(&self, x: &Tensor, mode: Mode, observed: bool) -> Target {
        let trains =
            |layer: &[Binding]| layer.iter().any(|binding| binding.parameter(self.store).trainable);
        Target {
            kernels: Kernels::of(x),
            input: x.shape(),
            input_gradient: Needs::of([x]).any(),
            gradients: mode.gradients && Context::current().recording,
            batch_statistics: mode.batch_statistics,
            trains: self.bindings.layers().map(trains).collect(),
            observed,
        }
    }

    fn check(&self, x: &Tensor) -> Result<()> {
        if self.bindings.layers().count() != self.graph.nodes().len() {
            let message = "its graph was changed after it was made; make a new one of the graph";
            return Err(Error::argument("model", message));
        }
        let expected = &self.graph.node(self.graph.input()).output_shape;
        if x.shape().len() == 4 && x.shape()[1..] == expected[..] {
            return Ok(());
        }
        let sides = expected.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let expected = format!("pictures [N, {sides}] for `{}`", self.graph.name);
        Err(Error::shape("model", expected, x.shape()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::no_grad;
    use crate::models::by_name;
    use crate::nn::{Model, TrainingGraph, for_inference};
    use crate::ops::{self, Padding};

    fn noise(shape: [usize; 4]) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    #[test]
    fn fused_steps_give_the_bits_of_layers_one_by_one() {
        for (name, side) in [("mobilenetv2", 64), ("alexnet", 120)] {
            let model = Model::new(by_name(name, side, 20).unwrap(), 3);
            let folded = for_inference(&model).unwrap();
            let x = noise([2, side, side, 3]);
            for (model, run) in
                [(&folded, Mode::infer()), (&model, Mode::infer()), (&model, Mode::train(1, 2))]
            {
                let fused = model.run(&x, run).unwrap();
                let alone = model.run_observed(&x, run, &mut |_, _| {}).unwrap();
                assert_eq!(fused.logits.values::<f32>(), alone.logits.values::<f32>(), "{name}");
                assert_eq!(fused.output.values::<f32>(), alone.output.values::<f32>(), "{name}");
                assert_eq!(fused.moving.len(), alone.moving.len());
                for ((i, a), (j, b)) in fused.moving.iter().zip(&alone.moving) {
                    assert!(i == j && a.values::<f32>() == b.values::<f32>(), "{name}");
                }
            }
        }
    }

    #[test]
    fn of_two_poolings_after_a_convolution_one_is_made_with_it() {
        let mut g = Graph::new("pools", "input", [16, 16, 16]);
        let conv = Layer::conv2d(16, 3).with_padding(Padding::Same);
        let relu = Layer::Activation(crate::activation::Activation::Relu);
        let pool = Layer::max_pooling2d(2);
        g.chain(g.input(), [conv, relu, pool, pool]).unwrap();
        let model = Model::new(g, 1);
        let x = noise([2, 16, 16, 16]);
        let fused = model.run(&x, Mode::infer()).unwrap().output;
        let alone = model.run_observed(&x, Mode::infer(), &mut |_, _| {}).unwrap().output;
        assert_eq!(fused.shape()[..], [2, 4, 4, 16]);
        assert_eq!(fused.values::<f32>(), alone.values::<f32>());
    }

    #[test]
    fn a_graph_that_grew_after_its_model_was_made_is_an_error() {
        let mut model = Model::new(few_pixels(), 1);
        let output = model.graph.output();
        model.graph.add(Layer::Flatten, &[output]).unwrap();
        let error = model.run(&noise([1, 8, 8, 16]), Mode::infer()).err().unwrap().to_string();
        assert!(error.contains("its graph was changed"), "{error}");
    }

    #[test]
    fn a_training_graph_is_of_the_layers_that_train_and_of_frozen_values() {
        let mut model = Model::new(few_pixels(), 1);
        model.freeze_first(3);
        let graph = TrainingGraph::new(&model).unwrap();
        assert!(graph.is_current(&model));
        let last = model.parameters.len() - 1;
        let trains = model.parameters[last].path.clone();
        let shape = model.parameters[last].value.shape();
        model.set(&trains, Tensor::ones(shape)).unwrap();
        assert!(graph.is_current(&model));
        let (frozen, shape) = (model.parameters[0].path.clone(), model.parameters[0].value.shape());
        model.set(&frozen, Tensor::ones(shape)).unwrap();
        assert!(!graph.is_current(&model));
        let graph = TrainingGraph::new(&model).unwrap();
        model.freeze_first(0);
        assert!(!graph.is_current(&model));
    }

    /// A network whose convolutions meet few pixels, so that layouts of their weights are kept.
    fn few_pixels() -> Graph {
        let mut g = Graph::new("small", "input", [8, 8, 16]);
        let conv = |filters, kernel| Layer::conv2d(filters, kernel).with_padding(Padding::Same);
        let layers = [conv(32, 3), conv(16, 1), conv(16, 3).with_dilation(6), conv(4, 3)];
        g.chain(g.input(), layers).unwrap();
        g
    }

    #[test]
    fn layouts_of_old_weights_are_not_used_with_new_ones() {
        let x = noise([1, 8, 8, 16]).leaf();
        let run = |model: &Model| {
            let y = model.run(&x, Mode::infer()).unwrap().output;
            let gradient = ops::sum(&y).unwrap().backward().unwrap().get(&x).unwrap().to_vec_f64();
            let alone = no_grad(|| model.run(&x, Mode::infer())).unwrap().output;
            (y.to_vec_f64(), alone.to_vec_f64(), gradient)
        };
        let (mut model, other) = (Model::new(few_pixels(), 1), Model::new(few_pixels(), 2));
        let first = run(&model);
        assert!(run(&model) == first && first != run(&other));
        for parameter in &other.parameters {
            model.set(&parameter.path, parameter.value.clone()).unwrap();
        }
        assert!(run(&model) == run(&other));
        for parameter in &mut model.parameters {
            parameter.value.values_mut::<f32>().iter_mut().for_each(|w| *w *= 2.0);
        }
        let fresh = Model::with(few_pixels(), |path, _, _| model.parameter(path).unwrap().value.clone());
        assert!(run(&model) == run(&fresh) && run(&model) != run(&other));
    }

    #[test]
    fn a_training_graph_holds_no_parameter_of_its_model() {
        let mut model = Model::new(by_name("mobilenetv2", 32, 20).unwrap(), 3);
        model.freeze_first(model.graph.base().len());
        let graph = TrainingGraph::new(&model).unwrap();
        graph.run(&model, &noise([2, 32, 32, 3]), Mode::train(1, 0)).unwrap();
        assert!(model.parameters.iter_mut().all(|parameter| parameter.value.is_unique()));
    }
}
