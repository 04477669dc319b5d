//! From a layer to operators on the tape.

use super::Layer;
use super::shape::scaled;
use crate::activation::Activation;
use crate::error::{Error, Result};
use crate::ops::batch_norm::{Statistics, batch_norm_train_with};
use crate::ops::conv2d::conv2d_with_statistics;
use crate::ops::depthwise_conv2d::depthwise_conv2d_with_statistics;
use crate::ops::{self, Conv2dOptions, Convolution, PoolOptions};
use crate::random::hash_name;
use crate::tensor::Tensor;

/// How a pass through the network behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Batch norm uses the batch's own statistics (and moves the moving ones).
    pub batch_statistics: bool,
    /// Trainable parameters are leaves of the tape.
    pub gradients: bool,
    /// Dropout is on, keyed by (seed, step).
    pub dropout: Option<(u64, u64)>,
}

impl Run {
    /// Moving statistics, no dropout, no gradients by parameters.
    pub fn infer() -> Self {
        Run { batch_statistics: false, gradients: false, dropout: None }
    }

    /// Batch statistics, gradients, dropout keyed by (seed, step).
    pub fn train(seed: u64, step: u64) -> Self {
        Run { batch_statistics: true, gradients: true, dropout: Some((seed, step)) }
    }
}

pub(crate) struct Lowered {
    pub output: Tensor,
    /// What a sigmoid or softmax was applied to.
    pub logits: Option<Tensor>,
    /// New values of the layer's moving mean and variance.
    pub moving: Option<(Tensor, Tensor)>,
    /// A convolution's, of its output.
    pub statistics: Option<Statistics>,
}

/// What a layer makes in its own pass, which layers after it would.
pub(crate) struct Along<'a> {
    /// The activation, of a batch norm or a convolution.
    pub activation: Activation,
    /// What a convolution's result is added to.
    pub onto: Option<Tensor>,
    /// Whether a convolution's result is max pooled, 2×2.
    pub pooled: bool,
    /// The depthwise convolution that a 1×1 convolution makes before itself.
    pub depthwise: Option<Convolution<'a>>,
    /// Of that one: its reader makes it.
    pub later: bool,
    /// Whether a convolution should tell the statistics of its result.
    pub statistics: bool,
    /// A batch norm's input's, where the convolution before it told them.
    pub known: Option<Statistics>,
}

impl Layer {
    /// A convolution, depthwise or not, with `then` after it if it has no activation of its own.
    pub(crate) fn convolution<'a>(
        &self,
        parameters: &'a [Tensor],
        activation: Activation,
    ) -> Convolution<'a> {
        let (Layer::Conv2D { stride, padding, dilation, .. }
        | Layer::DepthwiseConv2D { stride, padding, dilation, .. }) = *self
        else {
            unreachable!("a {} is no convolution", self.type_name())
        };
        let own = self.activation().split().0;
        let activation = if own == Activation::Linear { activation } else { own };
        let options = Conv2dOptions { stride, padding, dilation, activation };
        Convolution { kernel: &parameters[0], bias: parameters.get(1), options }
    }

    /// Applies the layer to its inputs. `parameters` are in the order of [`Layer::parameters`].
    /// Inputs are given away: an activation overwrites one that nobody else holds.
    pub(crate) fn lower(
        &self,
        name: &str,
        mut inputs: Vec<Tensor>,
        parameters: &[Tensor],
        run: Run,
        along: Along<'_>,
    ) -> Result<Lowered> {
        if inputs.is_empty() {
            return Err(Error::argument("layer", format!("`{name}` has no input")));
        }
        let x = match inputs.len() {
            1 => inputs.remove(0),
            _ => inputs[0].clone(),
        };
        let (mut moving, mut statistics) = (None, None);
        // What a convolution makes in its own pass: its own activation, or that of the layer after it.
        let mut activation = self.activation();
        let own = activation.split().0;
        let output = match *self {
            Layer::Input(_) => x,
            Layer::Conv2D { .. } => {
                let this = self.convolution(parameters, along.activation);
                let Convolution { kernel, bias, options } = this;
                match (along.depthwise, along.onto) {
                    (Some(first), onto) => ops::separable_conv2d(x, first, this, onto)?,
                    (None, Some(onto)) => ops::conv2d::conv2d_onto(&x, kernel, bias, options, onto)?,
                    (None, None) if along.pooled => {
                        ops::conv2d::conv2d_pooled(&x, kernel, bias, options)?
                    }
                    (None, None) => {
                        let y;
                        (y, statistics) =
                            conv2d_with_statistics(&x, kernel, bias, options, along.statistics)?;
                        y
                    }
                }
            }
            Layer::DepthwiseConv2D { .. } if along.later => x,
            Layer::DepthwiseConv2D { .. } => {
                let Convolution { kernel, bias, options } =
                    self.convolution(parameters, along.activation);
                let y;
                (y, statistics) =
                    depthwise_conv2d_with_statistics(&x, kernel, bias, options, along.statistics)?;
                y
            }
            Layer::Dense { .. } => ops::dense(&x, &parameters[0], parameters.get(1))?,
            Layer::BatchNormalization { epsilon, momentum } => {
                let [gamma, beta, mean, variance] = parameters else {
                    return Err(Error::argument(
                        "batch_norm",
                        format!("layer `{name}` has no statistics"),
                    ));
                };
                if run.batch_statistics {
                    let normed =
                        batch_norm_train_with(along.known, &x, gamma, beta, epsilon, along.activation)?;
                    moving = Some(normed.moving(mean, variance, momentum)?);
                    normed.y
                } else {
                    ops::batch_norm_infer(&x, gamma, beta, mean, variance, epsilon, along.activation)?
                }
            }
            Layer::Activation(_) => x,
            Layer::MaxPooling2D { pool, stride, padding } => {
                ops::max_pool2d(&x, PoolOptions { pool, stride, padding })?
            }
            Layer::AveragePooling2D { pool, stride, padding } => {
                ops::average_pool2d(&x, PoolOptions { pool, stride, padding })?
            }
            Layer::GlobalAveragePooling2D => ops::global_average_pool(&x)?,
            Layer::GlobalMaxPooling2D => ops::global_max_pool(&x)?,
            Layer::ZeroPadding2D(pad) => ops::zero_pad2d(&x, pad)?,
            Layer::UpSampling2D([fy, fx]) => {
                let (h, w) = (x.shape()[1], x.shape()[2]);
                ops::resize(&x, scaled(h, fy)?, scaled(w, fx)?, ops::Method::Bilinear)?
            }
            Layer::Flatten => ops::flatten(&x)?,
            Layer::Reshape([h, w, c]) => ops::reshape(&x, [x.shape()[0], h, w, c])?,
            Layer::Dropout(rate) => match run.dropout {
                Some((seed, step)) if rate > 0.0 => ops::dropout(&x, rate, seed, step, hash_name(name))?,
                _ => x,
            },
            Layer::Add => {
                let mut sum = ops::add(&x, &inputs[1])?;
                for input in &inputs[2..] {
                    sum = ops::add(&sum, input)?;
                }
                sum
            }
            Layer::Concatenate => {
                let inputs: Vec<&Tensor> = inputs.iter().collect();
                ops::concat(&inputs, x.shape().len() - 1)?
            }
        };
        if own != Activation::Linear
            && matches!(self, Layer::Conv2D { .. } | Layer::DepthwiseConv2D { .. })
        {
            activation = Activation::Linear;
        }
        let probabilities = matches!(activation, Activation::Sigmoid | Activation::Softmax);
        let logits = probabilities.then(|| output.clone());
        let output = activation.apply(output)?;
        Ok(Lowered { output, logits, moving, statistics })
    }
}
