//! The terms of a number.

use super::{Pixel, Windows, interpolation};
use crate::activation::Activation;
use crate::error::{Error, Result};
use crate::explain::trace::Trace;
use crate::nn::layers::Layer;
use crate::nn::{Id, Node};

/// A number that was read, and what it was multiplied by.
///
/// [`Trace::computation`] has an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// Whose output it is.
    pub layer: Id,
    /// Where in that output.
    pub pixel: Pixel,
    /// The number.
    pub value: f64,
    /// The weight.
    pub factor: f64,
}

/// A number of a layer's output, computed again in f64.
///
/// [`Trace::computation`] has an example.
#[derive(Clone, Debug)]
pub struct Computation {
    /// What it is the sum of; cells of padding, which are zeros, are left out.
    pub terms: Vec<Term>,
    /// Added to the sum; of a batch norm β − γ·μ / √(σ² + ε).
    pub bias: f64,
    /// Σ value × factor + bias
    pub sum: f64,
    /// What is applied to the sum.
    pub activation: Activation,
    /// Its result.
    pub value: f64,
    /// What the engine computed, in f32.
    pub engine: f64,
}

impl Trace<'_> {
    /// How a number of a layer's output was computed. An error where there is no such pixel, for parameters
    /// that are not f32 on the CPU, and for the input layer, whose numbers are given.
    ///
    /// ```
    /// # use atrous::explain::pixel::Pixel;
    /// # use atrous::explain::{Target, Trace};
    /// # use atrous::prelude::*;
    /// # let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let conv = graph.add(Layer::conv2d(4, 3).with_activation(Activation::Relu), &[graph.input()])?;
    /// # graph.chain(conv, [Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
    /// # let model = Model::new(graph, 1);
    /// # let x = Tensor::rand([1, 8, 8, 3], 7);
    /// let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits)))?;
    /// let pixel = Pixel::new(2, 3, 1);
    /// let computed = trace.computation(conv, pixel)?;
    /// assert_eq!(computed.terms.len(), 3 * 3 * 3); // values and weights
    /// let by_hand: f64 = computed.terms.iter().map(|term| term.value * term.factor).sum();
    /// assert_eq!(computed.sum, by_hand + computed.bias);
    /// assert_eq!(computed.value, computed.sum.max(0.0));
    /// assert!((computed.value - trace.value(conv, pixel)).abs() < 1e-6); // the engine's, in f32
    /// # Ok::<(), Error>(())
    /// ```
    pub fn computation(&self, layer: Id, pixel: Pixel) -> Result<Computation> {
        self.check(layer, pixel)?;
        let (terms, bias) = self.terms(layer, pixel)?;
        let sum = terms.iter().map(|term| term.value * term.factor).sum::<f64>() + bias;
        let node = self.model.graph.node(layer);
        let activation = node.layer.activation();
        let value = match activation {
            Activation::Softmax => self.softmax(node, pixel, sum),
            _ => apply(activation, sum),
        };
        Ok(Computation { terms, bias, sum, activation, value, engine: self.value(layer, pixel) })
    }

    fn terms(&self, layer: Id, pixel: Pixel) -> Result<(Vec<Term>, f64)> {
        let node = self.model.graph.node(layer);
        let Pixel { y, x, channel } = pixel;
        let Some(&input) = node.inputs.first() else {
            return Err(Error::argument(
                "pixel",
                format!("`{}` is the image: it is not computed", node.name),
            ));
        };
        let sides = self.sides(input);
        let term = |layer: Id, pixel: Pixel, factor: f64| Term {
            layer,
            pixel,
            value: self.value(layer, pixel),
            factor,
        };
        let same = |factor: f64| term(input, pixel, factor);
        let cells = || {
            let windows = Windows::of(&node.layer, sides, self.sides(layer));
            windows.map_or(Vec::new(), |windows| windows.taps(y, x))
        };
        let number = |place: usize, at: usize| {
            self.parameter(layer, place).map(|values| f64::from(values[at])).ok_or_else(|| {
                let message = format!("expected parameters of `{}` in f32 on the CPU", node.name);
                Error::argument("pixel", message)
            })
        };
        let bias = |wanted: bool| if wanted { number(1, channel) } else { Ok(0.0) };
        Ok(match node.layer {
            Layer::Conv2D(conv) => {
                let mut terms = Vec::new();
                for tap in cells() {
                    for c in 0..sides[2] {
                        let at =
                            ((tap.ky * conv.kernel[1] + tap.kx) * sides[2] + c) * conv.filters + channel;
                        terms.push(term(input, Pixel::new(tap.y, tap.x, c), number(0, at)?));
                    }
                }
                (terms, bias(conv.use_bias)?)
            }
            Layer::DepthwiseConv2D(conv) => {
                let mut terms = Vec::new();
                for tap in cells() {
                    let at = (tap.ky * conv.kernel[1] + tap.kx) * sides[2] + channel;
                    terms.push(term(input, Pixel::new(tap.y, tap.x, channel), number(0, at)?));
                }
                (terms, bias(conv.use_bias)?)
            }
            Layer::Dense(dense) => {
                let terms = (0..sides[2]).map(|i| {
                    Ok(term(input, Pixel::new(0, 0, i), number(0, i * dense.units + channel)?))
                });
                (terms.collect::<Result<_>>()?, bias(dense.use_bias)?)
            }
            Layer::BatchNormalization(norm) => {
                let [gamma, beta, mean, variance] =
                    [number(0, channel)?, number(1, channel)?, number(2, channel)?, number(3, channel)?];
                let scale = gamma / (variance + norm.epsilon).sqrt();
                (vec![same(scale)], beta - scale * mean)
            }
            Layer::MaxPooling2D(_) | Layer::GlobalMaxPooling2D => {
                let pixels = cells().into_iter().map(|tap| Pixel::new(tap.y, tap.x, channel));
                let mut terms: Vec<Term> = pixels.map(|pixel| term(input, pixel, 0.0)).collect();
                // Of equal ones the first wins.
                let best =
                    (0..terms.len()).reduce(|a, b| if terms[b].value > terms[a].value { b } else { a });
                best.into_iter().for_each(|best| terms[best].factor = 1.0);
                (terms, 0.0)
            }
            Layer::AveragePooling2D(_) | Layer::GlobalAveragePooling2D => {
                let cells = cells();
                let share = 1.0 / cells.len() as f64;
                let pixels = cells.iter().map(|tap| Pixel::new(tap.y, tap.x, channel));
                (pixels.map(|pixel| term(input, pixel, share)).collect(), 0.0)
            }
            Layer::ZeroPadding2D([[top, _], [left, _]]) => {
                let inside =
                    |i: usize, before: usize, side: usize| i.checked_sub(before).filter(|&i| i < side);
                let at = inside(y, top, sides[0]).zip(inside(x, left, sides[1]));
                (at.map(|(y, x)| term(input, Pixel::new(y, x, channel), 1.0)).into_iter().collect(), 0.0)
            }
            Layer::UpSampling2D([fy, fx]) => {
                let rows = &interpolation(sides[0], sides[0] * fy)[y];
                let columns = &interpolation(sides[1], sides[1] * fx)[x];
                let pairs = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
                let terms =
                    pairs.map(|(&(y, a), &(x, b))| term(input, Pixel::new(y, x, channel), a * b));
                (terms.collect(), 0.0)
            }
            Layer::Flatten | Layer::Reshape(_) => {
                let from = Pixel::at(pixel.offset(self.sides(layer)), sides);
                (vec![term(input, from, 1.0)], 0.0)
            }
            Layer::Add => (node.inputs.iter().map(|&from| term(from, pixel, 1.0)).collect(), 0.0),
            Layer::Concatenate => {
                let (from, channel) = self.concatenated(node, channel);
                (vec![term(from, Pixel { channel, ..pixel }, 1.0)], 0.0)
            }
            Layer::Activation(_) | Layer::Dropout(_) | Layer::Input(_) | Layer::Refused(_) => {
                (vec![same(1.0)], 0.0)
            }
        })
    }

    /// Which input a channel of a concatenation is from, and which of its channels it is.
    pub(crate) fn concatenated(&self, node: &Node, mut channel: usize) -> (Id, usize) {
        for &input in &node.inputs {
            let channels = self.sides(input)[2];
            if channel < channels {
                return (input, channel);
            }
            channel -= channels;
        }
        (node.inputs[0], 0)
    }

    /// eˣ / Σ eˣ over the channels of a pixel, of which one is `own`.
    fn softmax(&self, node: &Node, pixel: Pixel, own: f64) -> f64 {
        let row: Vec<f64> = match (node.layer, node.inputs.first()) {
            (Layer::Activation(_), Some(&input)) => {
                let channels = self.sides(input)[2];
                (0..channels).map(|channel| self.value(input, Pixel { channel, ..pixel })).collect()
            }
            _ => {
                let channels = self.logits.shape().last_length();
                let from = (pixel.y * self.sides(self.model.graph.output())[1] + pixel.x) * channels;
                self.logits.to_vec_f64()[from..from + channels].to_vec()
            }
        };
        let high = row.iter().fold(f64::NEG_INFINITY, |high, &z| high.max(z));
        (own - high).exp() / row.iter().map(|z| (z - high).exp()).sum::<f64>()
    }
}

/// An activation of one number, in f64. (Softmax is one of many.)
fn apply(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Linear | Activation::Softmax => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}
