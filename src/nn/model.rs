//! A graph with values for its parameters.

use super::graph::Graph;
use super::layers::{BatchNormalization, Initializer, Layer, Mode};
use super::network::{Edit, ForwardOutput, Network};
use super::parameters::{Binding, Bindings, ParamId, Parameter, find};
use super::plan::PlanCache;
use crate::context::on_threads;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pool;
use crate::tensor::{DType, Shape, Tensor};

/// A network that can run: its layers, and a tensor for each parameter they declare.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("linear", "input", [1, 1, 2]);
/// graph.chain(graph.input(), [Layer::Flatten, Layer::dense(1)])?;
/// let model = Model::with(graph, |path, shape, _| match path {
///     "dense/kernel" => Tensor::from([[2.0f32], [3.0]]),
///     _ => Tensor::ones(shape), // the bias
/// });
/// let x = Tensor::from([[[[10.0f32, 100.0]]]]);
/// assert_eq!(model.run(&x, Mode::infer())?.output.item()?, 2.0 * 10.0 + 3.0 * 100.0 + 1.0);
///
/// let paths: Vec<&str> = model.layer_parameters(2).map(|parameter| parameter.path.as_str()).collect();
/// assert_eq!(paths, ["dense/kernel", "dense/bias"]);
/// assert_eq!(model.device(), Device::Cpu);
/// let exact = model.to_dtype(DType::F64);
/// assert_eq!(exact.run(&x.to_dtype(DType::F64), Mode::infer())?.output.dtype(), DType::F64);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Model {
    /// The layers as they were declared; a pass may run a rewrite of them on the same parameters.
    pub graph: Graph,
    /// In the order of the layers, each layer's as it declares them: what a pass tells by number
    /// ([`ForwardOutput::moving`]) is a place here.
    pub parameters: Vec<Parameter>,
    bindings: Bindings,
    plans: PlanCache,
}

impl Model {
    /// A model with parameters as their initializers give them under this seed.
    ///
    /// # Panics
    /// With [`pool::OutOfMemory`] where there is no room for all of them, before the first is made.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let model = Model::new(graph, 1); // initial values from seed 1
    /// assert_eq!(model.parameters.len(), 4); // two kernels, two biases
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(graph: Graph, seed: u64) -> Self {
        pool::require(graph.cost().parameters.saturating_mul(4));
        Self::with(graph, |path, shape, initializer| initializer.fill(shape, seed, path))
    }

    /// A model whose parameters are given by path and shape (and the layer's initializer).
    pub fn with(graph: Graph, mut value: impl FnMut(&str, Shape, Initializer) -> Tensor) -> Self {
        let mut parameters = Vec::new();
        for node in graph.nodes() {
            for spec in &node.parameters {
                let path = format!("{}/{}", node.name, spec.kind);
                let value = value(&path, spec.shape, spec.initializer);
                parameters.push(Parameter::new(path, value, spec.trainable));
            }
        }
        Self::of(graph, parameters)
    }

    /// A graph and its parameters, in the order of its layers.
    pub(super) fn of(graph: Graph, parameters: Vec<Parameter>) -> Self {
        let bindings = Bindings::in_order(&graph);
        Model { graph, parameters, bindings, plans: PlanCache::default() }
    }

    fn network(&self) -> Network<'_> {
        let Model { graph, parameters, bindings, plans } = self;
        Network { graph, bindings, store: parameters, plans }
    }

    /// The parameters of the i-th layer.
    pub fn layer_parameters(&self, i: usize) -> impl Iterator<Item = &Parameter> {
        self.bindings.of(i).iter().map(|binding| binding.parameter(&self.parameters))
    }

    /// Whether nothing of the i-th layer trains.
    pub(crate) fn is_frozen(&self, i: usize) -> bool {
        !self.layer_parameters(i).any(|parameter| parameter.trainable)
    }

    /// How many of the parameters, which come first, are the base's.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let base = graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::batch_normalization()])?;
    /// graph.end_base();
    /// graph.chain(base, [Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let model = Model::new(graph, 1);
    /// assert_eq!((model.base_parameters(), model.parameters.len()), (2 + 4, 2 + 4 + 2));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn base_parameters(&self) -> usize {
        self.graph.base().iter().map(|node| node.parameters.len()).sum()
    }

    /// The parameter with this Keras path (`conv2d/kernel`), if there is one.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let model = Model::new(graph, 1);
    /// assert_eq!(model.parameter("conv2d/kernel").unwrap().value.shape()[..], [3, 3, 3, 4]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn parameter(&self, path: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.path == path)
    }

    /// Replaces a value; an error when the path is unknown or the shape another.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let mut model = Model::new(graph, 1);
    /// model.set("conv2d/bias", Tensor::ones([4]))?;
    /// assert!(model.set("conv2d/bias", Tensor::ones([5])).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn set(&mut self, path: &str, value: Tensor) -> Result<()> {
        let at = find(&self.parameters, path)?;
        let parameter = &mut self.parameters[at];
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
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.add(Layer::conv2d(4, 3), &[graph.input()])?;
    /// let model = Model::new(graph, 1);
    /// assert_eq!(model.to_device(Device::Cpu)?.device(), Device::Cpu);
    /// assert!(model.to_device(Device::Cuda(999)).is_err()); // there is no such GPU
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_device(&self, device: Device) -> Result<Self> {
        let mut model = self.clone();
        for parameter in &mut model.parameters {
            parameter.value = parameter.value.to_device(device)?;
        }
        Ok(model)
    }

    /// What a batch norm adds to the variances that are this parameter; None for all other parameters.
    pub(crate) fn variance_epsilon(&self, parameter: usize) -> Option<f64> {
        let stored = |bound: &Binding| bound.stored() == Some(ParamId(parameter));
        let layer = self.bindings.layers().position(|layer| layer.iter().any(stored))?;
        match self.graph.nodes()[layer].layer {
            Layer::BatchNormalization(BatchNormalization { epsilon, .. }) => {
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
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 2]);
    /// graph.add(Layer::batch_normalization(), &[graph.input()])?;
    /// let mut model = Model::new(graph, 1);
    /// assert_eq!(model.first_unusable(), None);
    /// model.set("batch_normalization/moving_variance", Tensor::from([1.0f32, -1.0]))?;
    /// let message = model.first_unusable().unwrap();
    /// assert!(message.ends_with("which is added to them, got -1 at 1"), "{message}");
    /// # Ok::<(), Error>(())
    /// ```
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
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let model = Model::new(graph, 1);
    /// assert_eq!(model.count_parameters(), (122, 122)); // all, those that train
    /// # Ok::<(), Error>(())
    /// ```
    pub fn count_parameters(&self) -> (usize, usize) {
        let count = |trainable_only: bool| {
            let wanted = |p: &&Parameter| p.trainable || !trainable_only;
            self.parameters.iter().filter(wanted).map(|p| p.value.shape().elements()).sum()
        };
        (count(false), count(true))
    }

    /// Makes the first `layers` layers keep their weights (and batch norms their statistics), and
    /// the others train.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let mut model = Model::new(graph, 1);
    /// model.freeze_first(2); // the input and the convolution
    /// assert_eq!(model.parameters.iter().filter(|parameter| parameter.trainable).count(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn freeze_first(&mut self, layers: usize) {
        for i in 0..self.graph.nodes().len() {
            self.train_layer(i, i >= layers);
        }
    }

    /// Makes all batch norms of the base keep weights and statistics: those of a small batch are
    /// worse than the ones a base comes with.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let base = graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::batch_normalization()])?;
    /// graph.end_base();
    /// graph.chain(base, [Layer::batch_normalization()])?;
    /// let mut model = Model::new(graph, 1);
    /// model.freeze_batch_norms();
    /// assert!(model.parameter("conv2d/kernel").unwrap().trainable);
    /// assert!(!model.parameter("batch_normalization/gamma").unwrap().trainable);
    /// assert!(model.parameter("batch_normalization_1/gamma").unwrap().trainable); // of the head
    /// # Ok::<(), Error>(())
    /// ```
    pub fn freeze_batch_norms(&mut self) {
        for i in 0..self.graph.base().len() {
            if matches!(self.graph.nodes()[i].layer, Layer::BatchNormalization(_)) {
                self.train_layer(i, false);
            }
        }
    }

    fn train_layer(&mut self, i: usize, trainable: bool) {
        let ids = self.bindings.of(i).iter().filter_map(Binding::stored);
        for (ParamId(id), spec) in ids.zip(&self.graph.nodes()[i].parameters) {
            let parameter = &mut self.parameters[id];
            parameter.trainable = trainable && spec.trainable;
            if parameter.trainable {
                // Of what changes in every step nothing is kept.
                parameter.prepack = Default::default();
            }
        }
    }

    /// Takes over moving statistics that a pass computed. On a device they go where the old ones were: a
    /// captured graph finds its parameters in one place.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [2, 2, 1]);
    /// graph.add(Layer::batch_normalization(), &[graph.input()])?; // momentum 0.99
    /// let mut model = Model::new(graph, 1);
    /// let forward = model.run(&Tensor::full([4, 2, 2, 1], 3.0), Mode::train(1, 0))?;
    /// model.update_moving(forward.moving)?;
    /// let mean = model.parameter("batch_normalization/moving_mean").unwrap().value.item()?;
    /// assert!((mean - 0.01 * 3.0).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
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

    /// Runs the network on images [N, H, W, C].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let model = Model::new(graph, 1);
    /// let forward = model.run(&Tensor::rand([5, 8, 8, 3], 7), Mode::infer())?;
    /// assert_eq!(forward.output.shape()[..], [5, 2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run(&self, x: &Tensor, mode: Mode) -> Result<ForwardOutput> {
        on_threads(x.device(), || self.network().run(x, mode, None))
    }

    /// [`Model::run`], showing every layer's output as soon as it is there.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let mut names = Vec::new();
    /// let x = Tensor::rand([1, 8, 8, 3], 7);
    /// Model::new(graph, 1).run_observed(&x, Mode::infer(), &mut |name, output| {
    ///     names.push(format!("{name} {}", output.shape()));
    /// })?;
    /// assert_eq!(names[1], "conv2d [1×6×6×4]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run_observed(
        &self,
        x: &Tensor,
        mode: Mode,
        observe: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<ForwardOutput> {
        self.run_edited(x, mode, &mut |name, output| {
            observe(name, &output);
            Ok(output)
        })
    }

    /// [`Model::run`], where what `edit` makes of a layer's output goes on in its place: to see
    /// what follows from a feature, take it away.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// let model = Model::new(graph, 1);
    /// let without = model.run_edited(&Tensor::rand([1, 8, 8, 3], 7), Mode::infer(), &mut |name, output| {
    ///     if name == "conv2d" { output.scale(0.0) } else { Ok(output) }
    /// })?;
    /// assert_eq!(without.output.to_vec_f64(), [0.0; 2]); // nothing but the bias, which starts at 0
    /// # Ok::<(), Error>(())
    /// ```
    pub fn run_edited(&self, x: &Tensor, mode: Mode, edit: &mut Edit) -> Result<ForwardOutput> {
        self.network().run(x, mode, Some(edit))
    }
}
