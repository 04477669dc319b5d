//! A convolution of each channel by itself: [`crate::ops::depthwise_conv2d()`].

use super::conv2d::convolution;
use super::forward::one;
use super::shape::each;
use super::{Forward, Initializer, LayerOutput, LayerType, ParameterSpec, Shapes};
use crate::error::Result;
use crate::ops::depthwise_conv2d::depthwise_conv2d_fused;
use crate::ops::{Conv2dOptions, Padding};
use crate::tensor::Tensor;

/// `[y, x]` on each axis.
///
/// ```
/// use atrous::nn::layers::DepthwiseConv2D;
/// use atrous::prelude::*;
///
/// let Layer::DepthwiseConv2D(defaults) = Layer::depthwise_conv2d() else { unreachable!() };
/// let layer = Layer::DepthwiseConv2D(DepthwiseConv2D { stride: [2, 1], use_bias: true, ..defaults });
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let conv = graph.add(layer, &[graph.input()])?;
/// assert_eq!(graph.node(conv).output_shape, [4, 8, 3]);
/// assert_eq!(graph.cost().parameters, 3 * 3 * 3 + 3); // nine taps and a bias a channel
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DepthwiseConv2D {
    /// Taps a window; the parameter is `[kh, kw, C, 1]`, Keras' depth multiplier always 1.
    pub kernel: [usize; 2],
    /// Input pixels from one window to the next; [1, 1] by default.
    pub stride: [usize; 2],
    /// What lies past the image's edge; Keras' default is `valid`.
    pub padding: Padding,
    /// Input pixels from one tap to the next: [1, 1] are side by side, more is "atrous".
    pub dilation: [usize; 2],
    /// Whether each channel adds a number of its own; needless before a batch normalisation.
    pub use_bias: bool,
}

impl DepthwiseConv2D {
    pub(crate) fn options(&self) -> Conv2dOptions {
        Conv2dOptions { stride: self.stride, padding: self.padding, dilation: self.dilation }
    }
}

impl LayerType for DepthwiseConv2D {
    fn type_name(&self) -> &'static str {
        "DepthwiseConv2D"
    }

    fn default_name(&self) -> &'static str {
        "depthwise_conv2d"
    }

    fn parameters(&self, input: &[usize]) -> Result<Vec<ParameterSpec>> {
        let (channels, [kh, kw]) = (input.last().copied().unwrap_or(1), self.kernel);
        let (shape, initializer) = ([kh, kw, channels, 1], Initializer::GlorotUniform);
        let kernel = ParameterSpec::weight("depthwise_kernel", &shape, initializer);
        ParameterSpec::kernel_and_bias(kernel, self.use_bias, channels)
    }

    fn output_shape(&self, inputs: &Shapes) -> Result<Vec<usize>> {
        let [h, w] = inputs.dilated_windows(self.kernel, self.dilation, self.stride, self.padding)?;
        Ok(vec![h, w, inputs.image()?[2]])
    }

    fn flops(&self, _: &[usize], output: &[usize]) -> Option<u64> {
        each(output, &[2, self.kernel[0], self.kernel[1]], self.use_bias)
    }

    fn forward(&self, inputs: Vec<Tensor>, forward: Forward) -> Result<LayerOutput> {
        let x = one(inputs, forward.name)?;
        let convolution = convolution(forward.parameters, self.options());
        let result = depthwise_conv2d_fused(&x, convolution, forward.epilogue)?;
        Ok(LayerOutput { statistics: result.statistics, ..LayerOutput::from(result.y) })
    }

    #[cfg(feature = "checkpoint")]
    fn config(&self) -> serde_json::Value {
        serde_json::json!({
            "kernel_size": self.kernel,
            "strides": self.stride,
            "padding": super::shape::keras_padding(self.padding),
            "dilation_rate": self.dilation,
            "use_bias": self.use_bias,
            "activation": "linear",
            "depth_multiplier": 1,
        })
    }
}
