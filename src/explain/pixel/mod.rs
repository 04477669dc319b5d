//! How one number of a feature map was computed, and where its gradient came from.
//!
//! Nearly every layer is a sum: an output is Σ value × factor + bias over the numbers it reads. For a
//! convolution the factors are weights, for a batch norm γ / √(σ² + ε), for a mean 1 / n, for a sum of
//! branches 1; a maximum takes one value with the factor 1 and leaves the others. ([`Trace::computation`])
//!
//! The gradient goes the same ways with the same factors (the chain rule): a number that goes to several
//! outputs is sent Σ gradient × factor over them. ([`Trace::backpropagation`])

mod backward;
mod forward;
#[cfg(test)]
mod tests;
mod windows;

pub use backward::{Backpropagation, Share};
pub use forward::{Computation, Term};
pub use windows::{Tap, Windows, interpolation};

use super::trace::Trace;
use crate::error::{Error, Result};
use crate::nn::Id;
use std::fmt;

/// A number of a layer's output. Of a flat output row and column are 0.
///
/// ```
/// use atrous::explain::pixel::Pixel;
///
/// let (pixel, sides) = (Pixel::new(1, 2, 3), [4, 5, 6]);
/// assert_eq!(pixel.offset(sides), (1 * 5 + 2) * 6 + 3);
/// assert_eq!(Pixel::at(45, sides), pixel);
/// assert_eq!(pixel.to_string(), "(1, 2) of channel 3");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pixel {
    /// Row, from the top.
    pub y: usize,
    /// Column, from the left.
    pub x: usize,
    /// Channel, or place in a flat output.
    pub channel: usize,
}

impl Pixel {
    /// Row, column and channel.
    pub fn new(y: usize, x: usize, channel: usize) -> Self {
        Pixel { y, x, channel }
    }

    /// Its place in `[H, W, C]` of these sides.
    pub fn offset(self, [_, w, c]: [usize; 3]) -> usize {
        (self.y * w + self.x) * c + self.channel
    }

    /// The other way about.
    pub fn at(offset: usize, [_, w, c]: [usize; 3]) -> Self {
        Pixel { y: offset / c / w, x: offset / c % w, channel: offset % c }
    }
}

impl fmt::Display for Pixel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}) of channel {}", self.y, self.x, self.channel)
    }
}

impl Trace<'_> {
    /// What the engine computed there. Panics where there is no such pixel.
    ///
    /// [`Trace::computation`] has an example.
    pub fn value(&self, layer: Id, pixel: Pixel) -> f64 {
        let output = &self.outputs[layer.0];
        let offset = pixel.offset(self.sides(layer));
        output
            .as_slice::<f32>()
            .map_or_else(|| output.to_vec_f64()[offset], |values| values[offset].into())
    }

    fn check(&self, layer: Id, pixel: Pixel) -> Result<()> {
        let [h, w, c] = self.sides(layer);
        if pixel.y < h && pixel.x < w && pixel.channel < c {
            return Ok(());
        }
        let name = &self.model.graph.node(layer).name;
        let message = format!("expected a pixel of `{name}` [{h}, {w}, {c}], got {pixel}");
        Err(Error::argument("pixel", message))
    }

    /// A parameter of a layer by its place among them; 0 everywhere where there is none.
    fn parameter(&self, layer: Id, place: usize) -> Option<&[f32]> {
        self.model.layer_parameters(layer.0).nth(place)?.value.as_slice::<f32>()
    }
}
