//! Layers with their defaults, and with other settings: `Layer::conv2d(8, 3).with_stride(2)`.
//!
//! A setting that a layer does not have makes a [`Layer::Refused`] of it, which no graph takes.

use super::{BatchNormalization, Conv2D, Dense, DepthwiseConv2D, Initializer, Layer, Refused};
use crate::activation::Activation;
use crate::ops::{Padding, PoolOptions};

impl Layer {
    /// A convolution with stride 1, valid padding, a bias, no activation and Glorot's initializer.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::conv2d(16, 3), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [6, 6, 16]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn conv2d(filters: usize, kernel: usize) -> Self {
        Layer::Conv2D(Conv2D {
            filters,
            kernel: [kernel; 2],
            stride: [1, 1],
            padding: Padding::Valid,
            dilation: [1, 1],
            use_bias: true,
            activation: Activation::Linear,
            initializer: Initializer::GlorotUniform,
        })
    }

    /// A 3×3 depthwise convolution with stride 1, same padding and no bias, as the MobileNets have.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::depthwise_conv2d(), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [8, 8, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn depthwise_conv2d() -> Self {
        Layer::DepthwiseConv2D(DepthwiseConv2D {
            kernel: [3, 3],
            stride: [1, 1],
            padding: Padding::Same,
            dilation: [1, 1],
            use_bias: false,
        })
    }

    /// A dense layer with a bias and no activation.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::Flatten, Layer::dense(10)])?;
    /// assert_eq!(graph.node(graph.output()).output_shape, [10]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dense(units: usize) -> Self {
        Layer::Dense(Dense { units, use_bias: true, activation: Activation::Linear })
    }

    /// Keras' defaults: ε 1e-3, momentum 0.99.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::batch_normalization(), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [8, 8, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn batch_normalization() -> Self {
        Layer::BatchNormalization(BatchNormalization { epsilon: 1e-3, momentum: 0.99 })
    }

    /// A pool whose stride is its size, valid padding.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::max_pooling2d(2), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [4, 4, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn max_pooling2d(pool: usize) -> Self {
        Layer::MaxPooling2D(PoolOptions::new(pool))
    }

    /// A pool whose stride is its size, valid padding.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::average_pooling2d(2), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [4, 4, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn average_pooling2d(pool: usize) -> Self {
        Layer::AveragePooling2D(PoolOptions::new(pool))
    }

    /// The convolution or pool with another stride, on both axes.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::conv2d(16, 2).with_stride(2), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [4, 4, 16]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_stride(mut self, steps: usize) -> Self {
        match &mut self {
            Layer::Conv2D(Conv2D { stride, .. })
            | Layer::DepthwiseConv2D(DepthwiseConv2D { stride, .. })
            | Layer::MaxPooling2D(PoolOptions { stride, .. })
            | Layer::AveragePooling2D(PoolOptions { stride, .. }) => *stride = [steps; 2],
            _ => return self.refuse("a stride"),
        }
        self
    }

    /// The convolution or pool with another padding.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::conv2d(16, 3).with_padding(Padding::Same), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [8, 8, 16]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_padding(mut self, rule: Padding) -> Self {
        match &mut self {
            Layer::Conv2D(Conv2D { padding, .. })
            | Layer::DepthwiseConv2D(DepthwiseConv2D { padding, .. })
            | Layer::MaxPooling2D(PoolOptions { padding, .. })
            | Layer::AveragePooling2D(PoolOptions { padding, .. }) => *padding = rule,
            _ => return self.refuse("a padding"),
        }
        self
    }

    /// The convolution with its taps this far apart, on both axes.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// let y = graph.add(Layer::conv2d(16, 3).with_dilation(2), &[graph.input()])?;
    /// assert_eq!(graph.node(y).output_shape, [4, 4, 16]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_dilation(mut self, steps: usize) -> Self {
        match &mut self {
            Layer::Conv2D(Conv2D { dilation, .. })
            | Layer::DepthwiseConv2D(DepthwiseConv2D { dilation, .. }) => *dilation = [steps; 2],
            _ => return self.refuse("a dilation"),
        }
        self
    }

    /// The convolution or dense layer with or without a bias.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// graph.add(Layer::conv2d(16, 3).with_bias(false), &[graph.input()])?;
    /// assert_eq!(graph.cost().parameters, 3 * 3 * 3 * 16);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_bias(mut self, wanted: bool) -> Self {
        match &mut self {
            Layer::Conv2D(Conv2D { use_bias, .. })
            | Layer::DepthwiseConv2D(DepthwiseConv2D { use_bias, .. })
            | Layer::Dense(Dense { use_bias, .. }) => *use_bias = wanted,
            _ => return self.refuse("a bias"),
        }
        self
    }

    /// The convolution or dense layer with this activation of its result. Linear is what all others have.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let layer = Layer::conv2d(16, 3).with_activation(Activation::Relu);
    /// assert_eq!(layer.activation(), Activation::Relu);
    /// ```
    pub fn with_activation(mut self, wanted: Activation) -> Self {
        match &mut self {
            Layer::Conv2D(Conv2D { activation, .. }) | Layer::Dense(Dense { activation, .. }) => {
                *activation = wanted;
            }
            _ if wanted == Activation::Linear => {}
            _ => return self.refuse("an activation"),
        }
        self
    }

    /// The convolution with another initializer of its kernel.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// use atrous::nn::layers::Initializer;
    ///
    /// let mut graph = Graph::new("one", "input", [8, 8, 3]);
    /// graph.add(Layer::conv2d(16, 3).with_initializer(Initializer::Ones), &[graph.input()])?;
    /// let model = Model::new(graph, 1);
    /// assert_eq!(model.parameter("conv2d/kernel").unwrap().value.mean()?.item()?, 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_initializer(mut self, wanted: Initializer) -> Self {
        match &mut self {
            Layer::Conv2D(Conv2D { initializer, .. }) => *initializer = wanted,
            _ => return self.refuse("an initializer"),
        }
        self
    }

    fn refuse(self, setting: &'static str) -> Self {
        match self {
            // What was wrong first is told.
            Layer::Refused(_) => self,
            _ => Layer::Refused(Refused { layer: self.type_name(), setting }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Graph;

    #[test]
    fn a_setting_that_a_layer_does_not_have_is_an_error_of_the_graph() {
        let add = |layer: Layer| {
            let mut graph = Graph::new("small", "input", [8, 8, 3]);
            graph.add(layer, &[graph.input()]).map(drop)
        };
        let refused = [
            (Layer::Flatten.with_activation(Activation::Relu), "an activation", "Flatten"),
            (Layer::depthwise_conv2d().with_activation(Activation::Relu), "an activation", "Depthwise"),
            (Layer::dense(3).with_stride(2), "a stride", "Dense"),
            (Layer::Add.with_padding(Padding::Same), "a padding", "Add"),
            (Layer::max_pooling2d(2).with_dilation(2), "a dilation", "MaxPooling2D"),
            (Layer::batch_normalization().with_bias(false), "a bias", "BatchNormalization"),
            (
                Layer::dense(3).with_initializer(Initializer::HeNormal).with_bias(true),
                "an init",
                "Dense",
            ),
        ];
        for (layer, setting, name) in refused {
            let error = add(layer).unwrap_err().to_string();
            assert!(error.contains(setting) && error.contains(name), "{error}");
        }
        add(Layer::Flatten.with_activation(Activation::Linear)).unwrap();
        let honoured = Layer::max_pooling2d(2).with_stride(1).with_padding(Padding::Same);
        add(honoured).unwrap();
    }
}
