//! A convolution: [`crate::ops::conv2d()`].

use super::forward::one;
use super::shape::each;
use super::{Forward, Initializer, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::activation::Activation;
use crate::error::Result;
use crate::ops::conv2d::conv2d_fused;
use crate::ops::separable_conv2d::{Separable, separable_conv2d_fused};
use crate::ops::{Conv2dOptions, Convolution, Padding};
use crate::tensor::Tensor;

/// `[y, x]` on each axis.
///
/// A window that is not square, with all else as Keras has it:
///
/// ```
/// use atrous::nn::layers::Conv2D;
/// use atrous::prelude::*;
///
/// let Layer::Conv2D(defaults) = Layer::conv2d(16, 3) else { unreachable!() };
/// let layer = Layer::Conv2D(Conv2D { kernel: [1, 5], ..defaults });
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let conv = graph.add(layer, &[graph.input()])?;
/// assert_eq!(graph.node(conv).output_shape, [8, 4, 16]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2D {
    /// Output channels.
    pub filters: usize,
    /// Taps a window: [3, 3] sees nine pixels, however far apart `dilation` sets them.
    pub kernel: [usize; 2],
    /// Input pixels from one window to the next; [1, 1] by default.
    pub stride: [usize; 2],
    /// What lies past the image's edge; in Keras `valid` by default: nothing.
    pub padding: Padding,
    /// Input pixels from one tap to the next; [1, 1], side by side, by default.
    pub dilation: [usize; 2],
    /// Whether each filter adds a number of its own; needless before a batch normalisation.
    pub use_bias: bool,
    /// Applied to the result; kept apart from it where it makes probabilities of logits.
    pub activation: Activation,
    /// Of the kernel; Glorot's by default, as in Keras. A bias starts at 0.
    pub initializer: Initializer,
}

impl Conv2D {
    pub(crate) fn options(&self) -> Conv2dOptions {
        Conv2dOptions { stride: self.stride, padding: self.padding, dilation: self.dilation }
    }
}

impl LayerType for Conv2D {
    fn type_name(&self) -> &'static str {
        "Conv2D"
    }

    fn default_name(&self) -> &'static str {
        "conv2d"
    }

    fn parameters(&self, input: &[usize]) -> Result<Vec<ParameterSpec>> {
        let (channels, [kh, kw]) = (input.last().copied().unwrap_or(1), self.kernel);
        let shape = [kh, kw, channels, self.filters];
        let kernel = ParameterSpec::weight("kernel", &shape, self.initializer);
        ParameterSpec::kernel_and_bias(kernel, self.use_bias, self.filters)
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        let [h, w] = inputs.dilated_windows(self.kernel, self.dilation, self.stride, self.padding)?;
        Ok(vec![h, w, self.filters])
    }

    fn flops(&self, input: &[usize], output: &[usize]) -> Option<u64> {
        let channels = input.last().copied().unwrap_or(1);
        each(output, &[2, self.kernel[0], self.kernel[1], channels], self.use_bias)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let x = one(inputs, forward.name)?;
        let Forward { parameters, mut epilogue, prepack, .. } = forward;
        let this = Convolution { prepack, ..convolution(parameters, self.options()) };
        // Its own activation comes in the place of that of a layer after it.
        let (fused, after) = self.activation.split();
        if fused != Activation::Linear {
            epilogue.activation = fused;
        }
        if let Some((depthwise, between)) = forward.depthwise {
            let layers = Separable { depthwise, between, pointwise: this };
            return LayerOutput::activated(separable_conv2d_fused(x, layers, epilogue)?, after);
        }
        let result = conv2d_fused(&x, this, epilogue)?;
        drop(x);
        Ok(LayerOutput { statistics: result.statistics, ..LayerOutput::activated(result.y, after)? })
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({
            "filters": self.filters,
            "kernel_size": self.kernel,
            "strides": self.stride,
            "padding": super::shape::keras_padding(self.padding),
            "dilation_rate": self.dilation,
            "use_bias": self.use_bias,
            "activation": self.activation.name(),
        })
    }
}

/// A convolution's operands, depthwise or not: kernel, and bias where there is one.
pub(crate) fn convolution(parameters: &[Tensor], options: Conv2dOptions) -> Convolution<'_> {
    Convolution::new(&parameters[0], parameters.get(1), options)
}
