//! Which pixels of the image a value of a feature map can see, and which it listens to.
//!
//! The *theoretical* receptive field follows from the graph alone (Araujo, Norris and Sim, 2019). Along an
//! axis, a layer with kernel k, dilation d, stride s and p cells of padding before the first makes of its
//! input's field
//!
//! size ← size + (k − 1)·d·jump, start ← start − p·jump, jump ← jump·s
//!
//! where pixel i sees the image's pixels from start + i·jump on, `size` of them. Through branches it is the
//! union. The *effective* one (Luo et al., 2016) is the gradient of a pixel by the image: far smaller,
//! brightest in the middle.

mod effective;
#[cfg(test)]
mod tests;

pub use effective::{effective_receptive_field, effective_size};

use super::layers::{feature_map, find};
use crate::error::{Error, Result};
use crate::nn::layers::Layer;
use crate::nn::{Graph, Node};
use crate::ops::Padding;
use std::collections::HashMap;
use std::ops::Range;

/// What the pixels of a feature map see along one axis of the image, in pixels of it. All is whole but for
/// feature maps that were enlarged, where a pixel's field is up to half a jump away from where `start` and
/// `jump` put it: [`pixel_field`] is exact there.
///
/// ```
/// use atrous::explain::receptive_field::AxisField;
///
/// let field = AxisField { start: -1.0, size: 3.0, jump: 2.0 }; // a convolution of 3 taps, stride 2
/// assert_eq!([field.of(0), field.of(1)], [(-1.0, 1.0), (1.0, 3.0)]); // first and last pixel, both seen
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisField {
    /// The first pixel that pixel 0 sees; below 0 where it sees padding.
    pub start: f64,
    /// How many pixels each sees, padding counted.
    pub size: f64,
    /// From one pixel's field to the next one's; 0 where all see the same.
    pub jump: f64,
}

/// The theoretical receptive field of a layer.
///
/// [`receptive_field`] has an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReceptiveField {
    /// Along y.
    pub rows: AxisField,
    /// Along x.
    pub columns: AxisField,
}

/// What a layer's output pixel sees of its input, along one axis.
enum Reach {
    /// The pixel in its place.
    Same,
    /// `taps` pixels, `dilation` apart; those of pixel i from i·stride − before on.
    Window { taps: usize, dilation: usize, stride: usize, before: usize },
    /// The two pixels it lies between, in an image enlarged by this.
    Between(usize),
    /// All there are.
    All,
}

/// The reach of a layer, of an input of `n` pixels along the axis (0: y, 1: x).
fn reach(layer: &Layer, axis: usize, n: usize) -> Result<Reach> {
    let window = |taps: usize, dilation: usize, stride: usize, padding: Padding| {
        let (_, before, _) = padding.resolve(n, (taps - 1) * dilation + 1, stride)?;
        Ok(Reach::Window { taps, dilation, stride, before })
    };
    match *layer {
        Layer::Conv2D(conv) => {
            window(conv.kernel[axis], conv.dilation[axis], conv.stride[axis], conv.padding)
        }
        Layer::DepthwiseConv2D(conv) => {
            window(conv.kernel[axis], conv.dilation[axis], conv.stride[axis], conv.padding)
        }
        Layer::MaxPooling2D(pool) | Layer::AveragePooling2D(pool) => {
            window(pool.pool[axis], 1, pool.stride[axis], pool.padding)
        }
        Layer::ZeroPadding2D(cells) => {
            Ok(Reach::Window { taps: 1, dilation: 1, stride: 1, before: cells[axis][0] })
        }
        Layer::UpSampling2D(factors) => Ok(Reach::Between(factors[axis])),
        Layer::Dense(_)
        | Layer::GlobalAveragePooling2D
        | Layer::GlobalMaxPooling2D
        | Layer::Flatten
        | Layer::Reshape(_) => Ok(Reach::All),
        Layer::Input(_)
        | Layer::BatchNormalization(_)
        | Layer::Activation(_)
        | Layer::Dropout(_)
        | Layer::Add
        | Layer::Concatenate
        | Layer::Refused(_) => Ok(Reach::Same),
    }
}

/// Length of a layer's output along an axis; what is no image is one pixel.
fn length(node: &Node, axis: usize) -> usize {
    if node.output_shape.len() == 3 { node.output_shape[axis] } else { 1 }
}

impl AxisField {
    /// The field of the image's own pixels.
    const PIXEL: AxisField = AxisField { start: 0.0, size: 1.0, jump: 1.0 };

    /// The first and the last pixel of the image that pixel `i` sees; beyond the image where it sees padding.
    pub fn of(&self, i: usize) -> (f64, f64) {
        let first = self.start + i as f64 * self.jump;
        (first, first + self.size - 1.0)
    }

    /// What is seen through one layer more, of whose input, `n` pixels long, this is the field.
    fn through(self, reach: &Reach, n: usize) -> Self {
        let AxisField { start, size, jump } = self;
        match *reach {
            Reach::Same => self,
            Reach::Window { taps, dilation, stride, before } => AxisField {
                start: start - before as f64 * jump,
                size: size + ((taps - 1) * dilation) as f64 * jump,
                jump: stride as f64 * jump,
            },
            Reach::Between(_) if n == 1 => AxisField { jump: 0.0, ..self },
            Reach::Between(1) => self,
            Reach::Between(factor) => {
                // Pixel 0 lies at 1/(2·factor) − ½ of the input; the two around it begin half a pixel before.
                let first = 0.5 / factor as f64 - 1.0;
                AxisField { start: start + first * jump, size: size + jump, jump: jump / factor as f64 }
            }
            Reach::All => self.all(n),
        }
    }

    /// The field of `n` pixels together.
    fn all(self, n: usize) -> Self {
        AxisField { size: self.size + n.saturating_sub(1) as f64 * self.jump, jump: 0.0, ..self }
    }

    /// What either of two sees, along an axis of `n` pixels. Where one sees the same from everywhere, so
    /// does what they make together.
    fn union(self, other: Self, n: usize) -> Self {
        if (self.jump - other.jump).abs() > 1e-9 {
            return self.all(n).union(other.all(n), n);
        }
        let start = self.start.min(other.start);
        let end = (self.start + self.size).max(other.start + other.size);
        AxisField { start, size: end - start, jump: self.jump }
    }
}

/// The theoretical receptive field of a layer, by name.
///
/// ```
/// use atrous::explain::receptive_field::receptive_field;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// let atrous = Layer::conv2d(4, 3).with_padding(Padding::Same).with_dilation(2);
/// graph.chain(graph.input(), [Layer::max_pooling2d(2), atrous])?;
/// let rows = receptive_field(&graph, "conv2d")?.rows;
/// // Three taps, two pooled pixels apart, each of two pixels.
/// assert_eq!((rows.start, rows.size, rows.jump), (-4.0, 10.0, 2.0));
/// # Ok::<(), Error>(())
/// ```
pub fn receptive_field(graph: &Graph, layer: &str) -> Result<ReceptiveField> {
    find(graph, layer)?;
    let fields = receptive_fields(graph)?;
    let found = graph.nodes().iter().zip(fields).find(|(node, _)| node.name == layer);
    found
        .map(|(_, field)| field)
        .ok_or_else(|| Error::argument("layer", format!("`{layer}` is unknown")))
}

/// Those of all layers, in the graph's order.
///
/// ```
/// use atrous::explain::receptive_field::receptive_fields;
/// use atrous::models::{Head, vgg16};
///
/// let graph = vgg16(224, 20, Head::None)?;
/// let fields = receptive_fields(&graph)?;
/// let of = |layer: &str| fields[graph.nodes().iter().position(|node| node.name == layer).unwrap()].rows;
/// assert_eq!([of("block1_conv1").size, of("block1_conv2").size], [3.0, 5.0]);
/// assert_eq!((of("block5_pool").size, of("block5_pool").jump), (212.0, 32.0));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn receptive_fields(graph: &Graph) -> Result<Vec<ReceptiveField>> {
    let mut known: HashMap<&str, ReceptiveField> = HashMap::new();
    let mut all = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let along = |axis: usize| -> Result<AxisField> {
            let mut union = None;
            for input in node.inputs.iter().map(|id| graph.node(*id)) {
                let field = &known[input.name.as_str()];
                let field = [field.rows, field.columns][axis];
                let n = length(input, axis);
                let field = field.through(&reach(&node.layer, axis, n)?, n);
                union = Some(union.map_or(field, |other: AxisField| other.union(field, n)));
            }
            Ok(union.unwrap_or(AxisField::PIXEL))
        };
        let field = ReceptiveField { rows: along(0)?, columns: along(1)? };
        known.insert(&node.name, field);
        all.push(field);
    }
    Ok(all)
}

/// The [rows, columns] of the image that a pixel [y, x] of a layer sees, without padding: the smallest
/// rectangle around them. Exact at the image's edges and after upsampling. Empty where it sees padding
/// alone. An error for a layer that is no feature map, and a pixel beyond it.
///
/// ```
/// use atrous::explain::receptive_field::pixel_field;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// graph.add(Layer::conv2d(4, 5).with_padding(Padding::Same), &[graph.input()])?;
/// assert_eq!(pixel_field(&graph, "conv2d", [8, 8])?, [6..11, 6..11]);
/// assert_eq!(pixel_field(&graph, "conv2d", [0, 8])?, [0..3, 6..11]); // rows above are padding
/// # Ok::<(), Error>(())
/// ```
pub fn pixel_field(graph: &Graph, layer: &str, pixel: [usize; 2]) -> Result<[Range<usize>; 2]> {
    check_pixel(graph, layer, pixel)?;
    let [rows, columns] = [0, 1].map(|axis| axis_of_pixel(graph, layer, pixel[axis], axis));
    let (rows, columns) = (rows?, columns?);
    let sees_padding = rows.is_empty() || columns.is_empty();
    Ok(if sees_padding { [0..0, 0..0] } else { [rows, columns] })
}

fn axis_of_pixel(graph: &Graph, layer: &str, pixel: usize, axis: usize) -> Result<Range<usize>> {
    let mut wanted: HashMap<&str, Range<usize>> = HashMap::from([(layer, pixel..pixel + 1)]);
    for node in graph.nodes().iter().rev() {
        let Some(range) = wanted.get(node.name.as_str()).cloned() else { continue };
        for input in node.inputs.iter().map(|id| graph.node(*id)) {
            let n = length(input, axis);
            let Some(seen) = seen(&range, &reach(&node.layer, axis, n)?, n) else { continue };
            let entry = wanted.entry(&input.name).or_insert_with(|| seen.clone());
            *entry = entry.start.min(seen.start)..entry.end.max(seen.end);
        }
    }
    Ok(wanted.remove(graph.node(graph.input()).name.as_str()).unwrap_or(0..0))
}

/// The pixels, of `n`, that those of a range see through a layer.
fn seen(range: &Range<usize>, reach: &Reach, n: usize) -> Option<Range<usize>> {
    match *reach {
        Reach::Same => Some(range.clone()),
        Reach::All => Some(0..n),
        Reach::Between(factor) => {
            let at = |i: usize| (i as f64 + 0.5) / factor as f64 - 0.5;
            let index = |at: f64| at.clamp(0.0, (n - 1) as f64) as usize;
            Some(index(at(range.start).floor())..index(at(range.end - 1).ceil()) + 1)
        }
        Reach::Window { taps, dilation, stride, before } => {
            let tap = move |i: usize| {
                (0..taps).filter_map(move |tap| (i * stride + tap * dilation).checked_sub(before))
            };
            let inside = || range.clone().flat_map(tap).filter(|&at| at < n);
            Some(inside().min()?..inside().max()? + 1)
        }
    }
}

fn check_pixel(graph: &Graph, layer: &str, [y, x]: [usize; 2]) -> Result<[usize; 3]> {
    let [h, w, channels] = feature_map(graph, layer)?;
    match y < h && x < w {
        true => Ok([h, w, channels]),
        false => {
            let expected = format!("a pixel of `{layer}`, {h}×{w}");
            Err(Error::shape("receptive field", expected, format!("row {y}, column {x}")))
        }
    }
}
