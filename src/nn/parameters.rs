//! Parameters: one store of them a model, which its graph and every rewrite of its graph refer to.

use super::graph::Graph;
use crate::backend::cpu::prepack::PrepackCache;
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};
use std::sync::Arc;

/// A parameter's place in its model's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ParamId(pub(crate) usize);

/// A tensor that a layer keeps from pass to pass: learned, or a moving statistic.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// graph.add(Layer::batch_normalization(), &[graph.input()])?;
/// let model = Model::new(graph, 1);
/// let [gamma, _, mean, _] = &model.parameters[..] else { unreachable!() };
/// assert_eq!((gamma.path.as_str(), gamma.trainable), ("batch_normalization/gamma", true));
/// assert_eq!((mean.path.as_str(), mean.trainable), ("batch_normalization/moving_mean", false));
/// assert_eq!(gamma.value.to_vec_f64(), [1.0; 3]); // as their initializers give them
/// assert_eq!(mean.value.to_vec_f64(), [0.0; 3]);
/// # Ok::<(), Error>(())
/// ```
pub struct Parameter {
    /// Its Keras path: `conv2d/kernel`.
    pub path: String,
    /// In the layer's own layout, as Keras has it: a convolution's kernel is `[kh, kw, C, F]`.
    pub value: Tensor,
    /// False for moving statistics, and for what is frozen.
    pub trainable: bool,
    /// Layouts of the value that the CPU's kernels read.
    pub(crate) prepack: Arc<PrepackCache>,
}

impl Parameter {
    pub(crate) fn new(path: String, value: Tensor, trainable: bool) -> Self {
        Parameter { path, value, trainable, prepack: Arc::default() }
    }
}

/// A copy makes its own layouts: its value may become another.
impl Clone for Parameter {
    fn clone(&self) -> Self {
        Parameter::new(self.path.clone(), self.value.clone(), self.trainable)
    }
}

/// Where a layer of a rewritten graph has a parameter from: what it is before any parameter has a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    Stored(ParamId),
    /// A layer's kernel with the batch norm after it in it.
    FoldedKernel(Fold),
    /// The bias of the same.
    FoldedBias(Fold),
}

/// A convolution or dense layer, and the batch norm that is folded into it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fold {
    pub kernel: ParamId,
    pub bias: Option<ParamId>,
    /// γ, β, mean, variance
    pub norm: [ParamId; 4],
    pub epsilon: f64,
}

/// A layer's parameter.
#[derive(Clone)]
pub(crate) enum Binding {
    Stored(ParamId),
    /// A value of the rewrite's own.
    Constant(Parameter),
}

/// For each layer of a graph its parameters, in the order of its declaration.
#[derive(Clone, Default)]
pub(crate) struct Bindings(Vec<Vec<Binding>>);

impl Bindings {
    /// Those of a graph whose parameters are in the store one after the other.
    pub fn in_order(graph: &Graph) -> Self {
        let mut ids = (0..).map(|i| Binding::Stored(ParamId(i)));
        let nodes = graph.nodes().iter();
        Bindings(nodes.map(|node| ids.by_ref().take(node.parameters.len()).collect()).collect())
    }

    /// With the values that the store has now. Those of a device stay on it: only what is folded comes to the
    /// CPU.
    pub fn new(sources: &[Vec<Source>], store: &[Parameter]) -> Result<Self> {
        let bind = |source: &Source| {
            Ok(match source {
                Source::Stored(id) => Binding::Stored(*id),
                Source::FoldedKernel(fold) => Binding::Constant(fold.kernel(store)?),
                Source::FoldedBias(fold) => Binding::Constant(fold.bias(store)?),
            })
        };
        let layers = sources.iter().map(|layer| layer.iter().map(bind).collect::<Result<_>>());
        Ok(Bindings(layers.collect::<Result<_>>()?))
    }

    pub fn of(&self, layer: usize) -> &[Binding] {
        &self.0[layer]
    }

    pub fn layers(&self) -> impl Iterator<Item = &[Binding]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The parameters of all layers in their order, as a store of their own. Values share their memory.
    pub fn collect(&self, store: &[Parameter]) -> Vec<Parameter> {
        self.0.iter().flatten().map(|binding| binding.parameter(store).clone()).collect()
    }
}

impl Binding {
    pub fn parameter<'a>(&'a self, store: &'a [Parameter]) -> &'a Parameter {
        match self {
            Binding::Stored(id) => &store[id.0],
            Binding::Constant(parameter) => parameter,
        }
    }

    pub fn stored(&self) -> Option<ParamId> {
        match self {
            Binding::Stored(id) => Some(*id),
            Binding::Constant(_) => None,
        }
    }
}

impl Fold {
    /// γ/√(v + ε) of each channel.
    fn factor(&self, store: &[Parameter]) -> Vec<f64> {
        let [gamma, _, _, variance] = self.norm.map(|id| store[id.0].value.to_vec_f64());
        gamma.iter().zip(&variance).map(|(gamma, v)| gamma / (v + self.epsilon).sqrt()).collect()
    }

    fn kernel(&self, store: &[Parameter]) -> Result<Parameter> {
        let (kernel, factor) = (&store[self.kernel.0], self.factor(store));
        // The last axis holds the outputs; of a depthwise kernel [kh, kw, C, 1] the third does, which is the
        // fastest moving one all the same.
        let values = kernel.value.to_vec_f64();
        let scaled: Vec<f64> =
            values.iter().enumerate().map(|(i, w)| w * factor[i % factor.len()]).collect();
        let value = self.like_the_kernel(&scaled, kernel.value.shape(), store)?;
        Ok(Parameter::new(kernel.path.clone(), value, kernel.trainable))
    }

    fn bias(&self, store: &[Parameter]) -> Result<Parameter> {
        let (kernel, factor) = (&store[self.kernel.0], self.factor(store));
        let [_, beta, mean, _] = self.norm.map(|id| store[id.0].value.to_vec_f64());
        let channels = factor.len();
        let bias = match self.bias {
            Some(id) => store[id.0].value.to_vec_f64(),
            None => vec![0.0; channels],
        };
        let bias: Vec<f64> = (0..channels).map(|i| factor[i] * (bias[i] - mean[i]) + beta[i]).collect();
        let (layer, _) = kernel.path.rsplit_once('/').unwrap_or((&kernel.path, ""));
        let value = self.like_the_kernel(&bias, [channels].into(), store)?;
        Ok(Parameter::new(format!("{layer}/bias"), value, kernel.trainable))
    }

    /// A tensor of the kernel's type, where the kernel is.
    fn like_the_kernel(&self, values: &[f64], shape: Shape, store: &[Parameter]) -> Result<Tensor> {
        let kernel = &store[self.kernel.0].value;
        Tensor::from_slice(values, shape)?.to_dtype(kernel.dtype()).to_device(kernel.device())
    }
}

/// The place of a path among parameters; an error where there is none.
pub(super) fn find(parameters: &[Parameter], path: &str) -> Result<usize> {
    parameters
        .iter()
        .position(|parameter| parameter.path == path)
        .ok_or_else(|| Error::argument("parameter", format!("the model has no `{path}`")))
}
