//! Layers: what a network is declared with. Names, defaults and initializers are Keras'.
//!
//! A layer is one file: its settings, its parameters, the shape it makes, what it costs, how it runs, and how
//! Keras writes it down (`LayerType`). What it is called and what feeds it is the graph's ([`crate::nn`]).
//!
//! A new one is a file here, a variant of [`Layer`] and a line in `Layer::with`.

mod activation;
mod add;
mod average_pooling2d;
mod batch_normalization;
mod builders;
mod concatenate;
mod conv2d;
mod dense;
mod depthwise_conv2d;
mod dropout;
mod flatten;
mod forward;
mod global_average_pooling2d;
mod global_max_pooling2d;
mod initializers;
mod input;
mod max_pooling2d;
mod refused;
mod reshape;
mod shape;
mod up_sampling2d;
mod zero_padding2d;

pub use batch_normalization::BatchNormalization;
pub use conv2d::Conv2D;
pub(crate) use conv2d::convolution;
pub use dense::Dense;
pub use depthwise_conv2d::DepthwiseConv2D;
pub use forward::Mode;
pub(crate) use forward::{Forward, LayerOutput};
pub use initializers::Initializer;
pub use refused::Refused;

use crate::activation::Activation;
use crate::error::Result;
use crate::ops::PoolOptions;
use crate::tensor::{Shape, Tensor};
use shape::Shapes;

/// `[y, x]` on each axis, as everywhere.
///
/// ```
/// use atrous::prelude::*;
///
/// let layer = Layer::conv2d(16, 3).with_stride(2).with_padding(Padding::Same);
/// assert_eq!((layer.type_name(), layer.default_name()), ("Conv2D", "conv2d"));
/// assert_eq!(layer.output_shape("conv2d", &[&[8, 8, 3]])?, [4, 4, 16]);
/// assert_eq!(layer.flops(&[8, 8, 3], &[4, 4, 16]), Some((2 * 27 + 1) * (4 * 4 * 16)));
/// let shapes: Vec<Shape> = layer.parameters(&[8, 8, 3])?.iter().map(|spec| spec.shape).collect();
/// assert_eq!(shapes, [Shape::from([3, 3, 3, 16]), Shape::from([16])]);
///
/// let error = Layer::Add.output_shape("add", &[&[8, 8, 3], &[8, 8, 4]]).unwrap_err().to_string();
/// assert!(error.contains("for layer `add`"), "{error}");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    /// Images [height, width, channels].
    Input([usize; 3]),
    /// `[H, W, C] → [H', W', filters]`: every window by every filter, over all channels.
    Conv2D(Conv2D),
    /// `[H, W, C] → [H', W', C]`: one filter for each channel, which sees no other.
    DepthwiseConv2D(DepthwiseConv2D),
    /// `[I] → [units]`: every output a weighted sum of all inputs.
    Dense(Dense),
    /// Each channel to mean 0 and variance 1, then times gamma plus beta (Ioffe and Szegedy, 2015).
    BatchNormalization(BatchNormalization),
    /// Element by element; softmax over the last axis.
    Activation(Activation),
    /// `[H, W, C] → [H', W', C]`: the largest value of each window; cells of padding never win.
    MaxPooling2D(PoolOptions),
    /// `[H, W, C] → [H', W', C]`: the mean of each window; cells of padding do not count.
    AveragePooling2D(PoolOptions),
    /// `[H, W, C] → [C]`: the mean of each channel over the whole image (Lin et al., 2013).
    GlobalAveragePooling2D,
    /// `[H, W, C] → [C]`: the largest value of each channel in the whole image.
    GlobalMaxPooling2D,
    /// [[top, bottom], [left, right]]
    ZeroPadding2D([[usize; 2]; 2]),
    /// Bilinear, by whole factors.
    UpSampling2D([usize; 2]),
    /// `[H, W, C] → [H·W·C]`, row by row, the channels of a pixel side by side.
    Flatten,
    /// To images [height, width, channels] of as many elements.
    Reshape([usize; 3]),
    /// The share of elements that are dropped.
    Dropout(f32),
    /// The sum of two or more inputs of one shape: a residual connection (He et al., 2015).
    Add,
    /// Two or more inputs of one height and width, their channels one after the other.
    Concatenate,
    /// A layer that was told what it cannot be: an error where it is added to a graph.
    Refused(Refused),
}

/// What a layer says of itself. Nothing has a default: a new layer answers all of it.
///
/// Shapes are without the batch axis.
pub(crate) trait LayerType {
    /// Keras' class name.
    fn type_name(&self) -> &'static str;

    /// The name Keras gives the first layer of this type: `conv2d`, then `conv2d_1`, …
    fn default_name(&self) -> &'static str;

    /// What it holds when its (first) input has this shape; an error where a parameter could not be a tensor.
    fn parameters(&self, input: &[usize]) -> Result<Vec<ParameterSpec>>;

    /// The shape it makes of its inputs' shapes.
    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>>;

    /// Multiplications and additions for one image, forward. Element-wise layers count one an element, pools
    /// one a cell of a window, batch norm two an element. None where there are more than can be counted.
    fn flops(&self, input: &[usize], output: &[usize]) -> Option<u64>;

    /// Its operators on the tape. Inputs are given away: an activation overwrites one that nobody else holds.
    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput>;

    /// Its settings under Keras' names.
    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value;
}

impl Layer {
    /// Calls `f` with the layer's own type.
    fn with<R>(&self, f: impl FnOnce(&dyn LayerType) -> R) -> R {
        match *self {
            Layer::Input(shape) => f(&input::Input(shape)),
            Layer::Conv2D(layer) => f(&layer),
            Layer::DepthwiseConv2D(layer) => f(&layer),
            Layer::Dense(layer) => f(&layer),
            Layer::BatchNormalization(layer) => f(&layer),
            Layer::Activation(activation) => f(&activation),
            Layer::MaxPooling2D(windows) => f(&max_pooling2d::MaxPooling2D(windows)),
            Layer::AveragePooling2D(windows) => f(&average_pooling2d::AveragePooling2D(windows)),
            Layer::GlobalAveragePooling2D => f(&global_average_pooling2d::GlobalAveragePooling2D),
            Layer::GlobalMaxPooling2D => f(&global_max_pooling2d::GlobalMaxPooling2D),
            Layer::ZeroPadding2D(cells) => f(&zero_padding2d::ZeroPadding2D(cells)),
            Layer::UpSampling2D(factors) => f(&up_sampling2d::UpSampling2D(factors)),
            Layer::Flatten => f(&flatten::Flatten),
            Layer::Reshape(shape) => f(&reshape::Reshape(shape)),
            Layer::Dropout(rate) => f(&dropout::Dropout(rate)),
            Layer::Add => f(&add::Add),
            Layer::Concatenate => f(&concatenate::Concatenate),
            Layer::Refused(refused) => f(&refused),
        }
    }

    /// Keras' class name.
    pub fn type_name(&self) -> &'static str {
        self.with(|layer| layer.type_name())
    }

    /// The name Keras gives the first layer of this type: `conv2d`, then `conv2d_1`, …
    pub fn default_name(&self) -> &'static str {
        self.with(|layer| layer.default_name())
    }

    /// The parameters of a layer fed with tensors of this shape (without the batch axis); an error where one
    /// could not be a tensor.
    pub fn parameters(&self, input: &[usize]) -> Result<Vec<ParameterSpec>> {
        self.with(|layer| layer.parameters(input))
    }

    /// The shape this layer makes of its inputs' shapes, without the batch axis; `name` is for the error.
    pub fn output_shape(&self, name: &str, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let inputs = Shapes { layer: self.type_name(), name, all: inputs };
        let shape = self.with(|layer| layer.output_shape(&inputs))?;
        Shape::checked(&shape)?;
        Ok(shape)
    }

    /// Multiplications and additions for one image, forward. None where there are more than can be counted.
    pub fn flops(&self, input: &[usize], output: &[usize]) -> Option<u64> {
        self.with(|layer| layer.flops(input, output))
    }

    /// Applies the layer to its inputs.
    pub(crate) fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        self.with(|layer| layer.forward(inputs, forward))
    }

    /// The layer's settings under Keras' names.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn config(&self) -> serde_json::Value {
        self.with(|layer| layer.config())
    }

    /// What is applied to the layer's result; an activation layer's own.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Layer::dense(2).with_activation(Activation::Softmax).activation(), Activation::Softmax);
    /// assert_eq!(Layer::Activation(Activation::Relu).activation(), Activation::Relu);
    /// assert_eq!(Layer::Flatten.activation(), Activation::Linear);
    /// ```
    pub fn activation(&self) -> Activation {
        match *self {
            Layer::Conv2D(Conv2D { activation, .. })
            | Layer::Dense(Dense { activation, .. })
            | Layer::Activation(activation) => activation,
            Layer::Input(_)
            | Layer::DepthwiseConv2D(_)
            | Layer::BatchNormalization(_)
            | Layer::MaxPooling2D(_)
            | Layer::AveragePooling2D(_)
            | Layer::GlobalAveragePooling2D
            | Layer::GlobalMaxPooling2D
            | Layer::ZeroPadding2D(_)
            | Layer::UpSampling2D(_)
            | Layer::Flatten
            | Layer::Reshape(_)
            | Layer::Dropout(_)
            | Layer::Add
            | Layer::Concatenate
            | Layer::Refused(_) => Activation::Linear,
        }
    }
}

/// A parameter as its layer declares it.
///
/// ```
/// use atrous::prelude::*;
/// use atrous::nn::layers::Initializer;
///
/// let [kernel, bias] = &Layer::dense(10).parameters(&[128])?[..] else { unreachable!() };
/// assert_eq!((kernel.kind, kernel.shape), ("kernel", Shape::from([128, 10])));
/// assert_eq!((bias.kind, bias.initializer, bias.trainable), ("bias", Initializer::Zeros, true));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ParameterSpec {
    /// The last part of its Keras path: `kernel`, `gamma`, …
    pub kind: &'static str,
    /// `[kh, kw, C, F]` for a convolution's kernel, `[I, O]` for a dense one, `[F]` for a bias.
    pub shape: Shape,
    /// What fills it where no weights are loaded.
    pub initializer: Initializer,
    /// False for moving statistics.
    pub trainable: bool,
}

impl ParameterSpec {
    /// A trainable one; an error where there is no such shape.
    fn weight(kind: &'static str, shape: &[usize], initializer: Initializer) -> Result<Self> {
        Ok(ParameterSpec { kind, shape: Shape::checked(shape)?, initializer, trainable: true })
    }

    /// A kernel, and a bias of `outputs` numbers where there is one.
    fn kernel_and_bias(kernel: Result<Self>, bias: bool, outputs: usize) -> Result<Vec<Self>> {
        let bias = bias.then(|| Self::weight("bias", &[outputs], Initializer::Zeros));
        [kernel].into_iter().chain(bias).collect()
    }
}
