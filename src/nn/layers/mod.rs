//! Layers: what a network is declared with. Names, defaults and initializers are Keras'.
//!
//! A layer says what parameters it has, what shape it makes, what it costs, and how it is lowered
//! to operators. What it is called and what feeds it is the graph's ([`crate::nn`]).

mod initializers;
mod lower;
mod shape;

pub use initializers::Initializer;
pub use lower::Run;
pub(crate) use lower::{Along, Lowered};

use crate::activation::Activation;
use crate::error::Result;
use crate::ops::Padding;
use crate::tensor::Shape;

/// `[y, x]` on each axis, as everywhere.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layer {
    /// Pictures [height, width, channels].
    Input([usize; 3]),
    Conv2D {
        filters: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
        dilation: [usize; 2],
        use_bias: bool,
        /// Applied to the result; kept apart from it where it makes probabilities of logits.
        activation: Activation,
        initializer: Initializer,
    },
    DepthwiseConv2D {
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
        dilation: [usize; 2],
        use_bias: bool,
    },
    Dense {
        units: usize,
        use_bias: bool,
        activation: Activation,
    },
    BatchNormalization {
        epsilon: f64,
        momentum: f64,
    },
    Activation(Activation),
    MaxPooling2D {
        pool: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
    },
    AveragePooling2D {
        pool: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
    },
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    /// [[top, bottom], [left, right]]
    ZeroPadding2D([[usize; 2]; 2]),
    /// Bilinear, by whole factors.
    UpSampling2D([usize; 2]),
    Flatten,
    /// To pictures [height, width, channels] of as many elements.
    Reshape([usize; 3]),
    Dropout(f32),
    Add,
    Concatenate,
}

impl Layer {
    /// A convolution with stride 1, valid padding, a bias, no activation and Glorot's initializer.
    pub fn conv2d(filters: usize, kernel: usize) -> Self {
        Layer::Conv2D {
            filters,
            kernel: [kernel; 2],
            stride: [1, 1],
            padding: Padding::Valid,
            dilation: [1, 1],
            use_bias: true,
            activation: Activation::Linear,
            initializer: Initializer::GlorotUniform,
        }
    }

    /// A 3×3 depthwise convolution with stride 1, same padding and no bias, as the MobileNets have.
    pub fn depthwise_conv2d() -> Self {
        Layer::DepthwiseConv2D {
            kernel: [3, 3],
            stride: [1, 1],
            padding: Padding::Same,
            dilation: [1, 1],
            use_bias: false,
        }
    }

    pub fn dense(units: usize) -> Self {
        Layer::Dense { units, use_bias: true, activation: Activation::Linear }
    }

    /// The layer with another stride, on both axes.
    pub fn with_stride(mut self, steps: usize) -> Self {
        if let Layer::Conv2D { stride, .. }
        | Layer::DepthwiseConv2D { stride, .. }
        | Layer::MaxPooling2D { stride, .. }
        | Layer::AveragePooling2D { stride, .. } = &mut self
        {
            *stride = [steps; 2];
        }
        self
    }

    /// The layer with another padding.
    pub fn with_padding(mut self, rule: Padding) -> Self {
        if let Layer::Conv2D { padding, .. }
        | Layer::DepthwiseConv2D { padding, .. }
        | Layer::MaxPooling2D { padding, .. }
        | Layer::AveragePooling2D { padding, .. } = &mut self
        {
            *padding = rule;
        }
        self
    }

    /// The convolution with its taps this far apart, on both axes.
    pub fn with_dilation(mut self, steps: usize) -> Self {
        if let Layer::Conv2D { dilation, .. } | Layer::DepthwiseConv2D { dilation, .. } = &mut self {
            *dilation = [steps; 2];
        }
        self
    }

    pub fn with_bias(mut self, wanted: bool) -> Self {
        if let Layer::Conv2D { use_bias, .. }
        | Layer::DepthwiseConv2D { use_bias, .. }
        | Layer::Dense { use_bias, .. } = &mut self
        {
            *use_bias = wanted;
        }
        self
    }

    pub fn with_activation(mut self, wanted: Activation) -> Self {
        if let Layer::Conv2D { activation, .. } | Layer::Dense { activation, .. } = &mut self {
            *activation = wanted;
        }
        self
    }

    pub fn with_initializer(mut self, wanted: Initializer) -> Self {
        if let Layer::Conv2D { initializer, .. } = &mut self {
            *initializer = wanted;
        }
        self
    }

    /// What is applied to the layer's result; an activation layer's own.
    pub fn activation(&self) -> Activation {
        match *self {
            Layer::Conv2D { activation, .. }
            | Layer::Dense { activation, .. }
            | Layer::Activation(activation) => activation,
            _ => Activation::Linear,
        }
    }

    /// Keras' defaults: ε 1e-3, momentum 0.99.
    pub fn batch_normalization() -> Self {
        Layer::BatchNormalization { epsilon: 1e-3, momentum: 0.99 }
    }

    /// A pool whose stride is its size, valid padding.
    pub fn max_pooling2d(pool: usize) -> Self {
        Layer::MaxPooling2D { pool: [pool; 2], stride: [pool; 2], padding: Padding::Valid }
    }

    /// Keras' class name.
    pub fn type_name(&self) -> &'static str {
        match self {
            Layer::Input(_) => "InputLayer",
            Layer::Conv2D { .. } => "Conv2D",
            Layer::DepthwiseConv2D { .. } => "DepthwiseConv2D",
            Layer::Dense { .. } => "Dense",
            Layer::BatchNormalization { .. } => "BatchNormalization",
            Layer::Activation(Activation::Relu6) => "ReLU",
            Layer::Activation(_) => "Activation",
            Layer::MaxPooling2D { .. } => "MaxPooling2D",
            Layer::AveragePooling2D { .. } => "AveragePooling2D",
            Layer::GlobalAveragePooling2D => "GlobalAveragePooling2D",
            Layer::GlobalMaxPooling2D => "GlobalMaxPooling2D",
            Layer::ZeroPadding2D(_) => "ZeroPadding2D",
            Layer::UpSampling2D(_) => "UpSampling2D",
            Layer::Flatten => "Flatten",
            Layer::Reshape(_) => "Reshape",
            Layer::Dropout(_) => "Dropout",
            Layer::Add => "Add",
            Layer::Concatenate => "Concatenate",
        }
    }

    /// The name Keras gives the first layer of this type: `conv2d`, then `conv2d_1`, …
    pub fn default_name(&self) -> &'static str {
        match self {
            Layer::Input(_) => "input",
            Layer::Conv2D { .. } => "conv2d",
            Layer::DepthwiseConv2D { .. } => "depthwise_conv2d",
            Layer::Dense { .. } => "dense",
            Layer::BatchNormalization { .. } => "batch_normalization",
            Layer::Activation(Activation::Relu6) => "re_lu",
            Layer::Activation(_) => "activation",
            Layer::MaxPooling2D { .. } => "max_pooling2d",
            Layer::AveragePooling2D { .. } => "average_pooling2d",
            Layer::GlobalAveragePooling2D => "global_average_pooling2d",
            Layer::GlobalMaxPooling2D => "global_max_pooling2d",
            Layer::ZeroPadding2D(_) => "zero_padding2d",
            Layer::UpSampling2D(_) => "up_sampling2d",
            Layer::Flatten => "flatten",
            Layer::Reshape(_) => "reshape",
            Layer::Dropout(_) => "dropout",
            Layer::Add => "add",
            Layer::Concatenate => "concatenate",
        }
    }

    /// The parameters of a layer fed with tensors of this shape (without the batch axis); an error where one could not
    /// be a tensor.
    pub fn parameters(&self, input: &[usize]) -> Result<Vec<ParameterSpec>> {
        let channels = input.last().copied().unwrap_or(1);
        let weight = |kind, shape: &[usize], initializer| {
            Ok(ParameterSpec { kind, shape: Shape::checked(shape)?, initializer, trainable: true })
        };
        let bias = |n: usize| weight("bias", &[n], Initializer::Zeros);
        match *self {
            Layer::Conv2D { filters, kernel: [kh, kw], use_bias, initializer, .. } => {
                let kernel = weight("kernel", &[kh, kw, channels, filters], initializer);
                [kernel].into_iter().chain(use_bias.then(|| bias(filters))).collect()
            }
            Layer::DepthwiseConv2D { kernel: [kh, kw], use_bias, .. } => {
                let shape = [kh, kw, channels, 1];
                let kernel = weight("depthwise_kernel", &shape, Initializer::GlorotUniform);
                [kernel].into_iter().chain(use_bias.then(|| bias(channels))).collect()
            }
            Layer::Dense { units, use_bias, .. } => {
                let kernel = weight("kernel", &[channels, units], Initializer::GlorotUniform);
                [kernel].into_iter().chain(use_bias.then(|| bias(units))).collect()
            }
            Layer::BatchNormalization { .. } => {
                let vector = |kind, initializer| weight(kind, &[channels], initializer);
                let moving = |kind, initializer| {
                    Ok(ParameterSpec { trainable: false, ..vector(kind, initializer)? })
                };
                Ok(vec![
                    vector("gamma", Initializer::Ones)?,
                    vector("beta", Initializer::Zeros)?,
                    moving("moving_mean", Initializer::Zeros)?,
                    moving("moving_variance", Initializer::Ones)?,
                ])
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// A parameter as its layer declares it.
#[derive(Clone, Debug)]
pub struct ParameterSpec {
    /// The last part of its Keras path: `kernel`, `gamma`, …
    pub kind: &'static str,
    pub shape: Shape,
    pub initializer: Initializer,
    /// False for moving statistics.
    pub trainable: bool,
}
