//! The outputs that sent a number its gradient.

use super::{Pixel, Windows, interpolation};
use crate::error::Result;
use crate::explain::trace::{Trace, makes_probabilities, slope, values};
use crate::nn::layers::Layer;
use crate::nn::{Id, Node};

/// An output that a number went to, and what came back from it.
///
/// [`Trace::backpropagation`] has an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Whose output it is.
    pub layer: Id,
    /// Where in that output.
    pub pixel: Pixel,
    /// The target's gradient by that output (before the layer's own activation, where it has one).
    pub gradient: f64,
    /// The output's derivative by the number: what it was multiplied by on its way there.
    pub factor: f64,
}

/// The gradient of a number, summed again in f64 over all it went to.
///
/// [`Trace::backpropagation`] has an example.
#[derive(Clone, Debug)]
pub struct Backpropagation {
    /// One an output that it went to.
    pub shares: Vec<Share>,
    /// Σ gradient × factor
    pub sum: f64,
    /// What the tape computed, in f32; 0 where the target does not depend on it.
    pub tape: f64,
}

impl Trace<'_> {
    /// Where the gradient of a number came from. A last layer's comes from the target itself: it has no
    /// shares, and its sum is the tape's. An error where there is no such pixel.
    ///
    /// ```
    /// # use atrous::explain::pixel::Pixel;
    /// # use atrous::explain::{Target, Trace};
    /// # use atrous::prelude::*;
    /// # let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let conv = graph.add(Layer::conv2d(4, 3), &[graph.input()])?;
    /// let mean = graph.add(Layer::GlobalAveragePooling2D, &[conv])?;
    /// # graph.add(Layer::dense(2), &[mean])?;
    /// # let model = Model::new(graph, 1);
    /// # let x = Tensor::rand([1, 8, 8, 3], 7);
    /// let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits)))?;
    /// let back = trace.backpropagation(conv, Pixel::new(2, 3, 1))?;
    /// let [share] = &back.shares[..] else { unreachable!() }; // it goes into one mean
    /// assert_eq!((share.layer, share.pixel), (mean, Pixel::new(0, 0, 1)));
    /// assert!((share.factor - 1.0 / 36.0).abs() < 1e-9);
    /// assert!((back.sum - back.tape).abs() < 1e-6); // the tape's, in f32
    /// # Ok::<(), Error>(())
    /// ```
    pub fn backpropagation(&self, layer: Id, pixel: Pixel) -> Result<Backpropagation> {
        self.check(layer, pixel)?;
        let number = |values: &[f32], sides| f64::from(values[pixel.offset(sides)]);
        let tape = self.gradients[layer.0].as_ref().map(values);
        let tape = tape.map_or(0.0, |values| number(&values, self.sides(layer)));
        let mut shares = Vec::new();
        for (i, node) in self.model.graph.nodes().iter().enumerate() {
            // (An addition may read one output twice.)
            let times = node.inputs.iter().filter(|&&input| input == layer).count();
            if times > 0
                && let Some(gradient) = self.inner_gradient(Id(i))
            {
                let reader = Reader { trace: self, node, id: Id(i), gradient: &gradient };
                reader.shares(layer, pixel, times, &mut shares);
            }
        }
        let last = layer == self.model.graph.output();
        let sum = shares.iter().map(|share| share.gradient * share.factor).sum();
        Ok(Backpropagation { shares, sum: if last { tape } else { sum }, tape })
    }
}

/// A layer that reads the number, and the gradient it got.
struct Reader<'a> {
    trace: &'a Trace<'a>,
    node: &'a Node,
    id: Id,
    gradient: &'a [f32],
}

impl Reader<'_> {
    fn shares(&self, from: Id, pixel: Pixel, times: usize, all: &mut Vec<Share>) {
        let (trace, node) = (self.trace, self.node);
        let (sides, own) = (trace.sides(from), trace.sides(self.id));
        let Pixel { y, x, channel } = pixel;
        let mut send = |pixel: Pixel, factor: f64| {
            let gradient = self.gradient[pixel.offset(own)].into();
            all.push(Share { layer: self.id, pixel, gradient, factor });
        };
        let outputs = || {
            let windows = Windows::of(&node.layer, sides, own);
            windows.map_or(Vec::new(), |windows| windows.outputs(y, x))
        };
        let number =
            |place, at: usize| trace.parameter(self.id, place).map_or(0.0, |values| values[at].into());
        match node.layer {
            Layer::Conv2D(conv) => {
                for tap in outputs() {
                    let row = ((tap.ky * conv.kernel[1] + tap.kx) * sides[2] + channel) * conv.filters;
                    for filter in 0..conv.filters {
                        send(Pixel::new(tap.y, tap.x, filter), number(0, row + filter));
                    }
                }
            }
            Layer::DepthwiseConv2D(conv) => {
                for tap in outputs() {
                    let at = (tap.ky * conv.kernel[1] + tap.kx) * sides[2] + channel;
                    send(Pixel::new(tap.y, tap.x, channel), number(0, at));
                }
            }
            Layer::Dense(dense) => {
                for unit in 0..dense.units {
                    send(Pixel::new(0, 0, unit), number(0, channel * dense.units + unit));
                }
            }
            Layer::BatchNormalization(norm) => {
                send(pixel, number(0, channel) / (number(3, channel) + norm.epsilon).sqrt());
            }
            Layer::Activation(activation) => {
                let last = self.id == trace.model.graph.output();
                let skipped = last && makes_probabilities(activation);
                let factor = if skipped { 1.0 } else { slope(activation, trace.value(self.id, pixel)) };
                send(pixel, factor);
            }
            Layer::MaxPooling2D(_) | Layer::GlobalMaxPooling2D => {
                for tap in outputs() {
                    let output = Pixel::new(tap.y, tap.x, channel);
                    let terms = trace.computation(self.id, output).map_or(Vec::new(), |made| made.terms);
                    let won = terms.iter().any(|term| term.pixel == pixel && term.factor == 1.0);
                    send(output, if won { 1.0 } else { 0.0 });
                }
            }
            Layer::AveragePooling2D(_) | Layer::GlobalAveragePooling2D => {
                if let Some(windows) = Windows::of(&node.layer, sides, own) {
                    for tap in outputs() {
                        let cells = windows.taps(tap.y, tap.x).len();
                        send(Pixel::new(tap.y, tap.x, channel), 1.0 / cells as f64);
                    }
                }
            }
            Layer::ZeroPadding2D([[top, _], [left, _]]) => {
                send(Pixel::new(y + top, x + left, channel), 1.0);
            }
            Layer::UpSampling2D([fy, fx]) => {
                let weight = |taps: &[(usize, f64)], at: usize| {
                    taps.iter().filter(|(from, _)| *from == at).map(|(_, weight)| weight).sum::<f64>()
                };
                let columns = interpolation(sides[1], sides[1] * fx);
                for (oy, row) in interpolation(sides[0], sides[0] * fy).iter().enumerate() {
                    for (ox, column) in columns.iter().enumerate() {
                        let factor = weight(row, y) * weight(column, x);
                        if factor != 0.0 {
                            send(Pixel::new(oy, ox, channel), factor);
                        }
                    }
                }
            }
            Layer::Flatten | Layer::Reshape(_) => send(Pixel::at(pixel.offset(sides), own), 1.0),
            Layer::Add => (0..times).for_each(|_| send(pixel, 1.0)),
            Layer::Concatenate => {
                let mut before = 0;
                for &input in &node.inputs {
                    if input == from {
                        send(Pixel { channel: before + channel, ..pixel }, 1.0);
                    }
                    before += trace.sides(input)[2];
                }
            }
            Layer::Dropout(_) => send(pixel, 1.0),
            Layer::Input(_) | Layer::Refused(_) => {}
        }
    }
}
