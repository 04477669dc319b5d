//! The numbers that a page computes pixels from: what the windows of its lattices read, and the weights of
//! the channels it shows.
//!
//! Of every layer a lattice of pixels can be looked into. For each the page needs what the pixel was made
//! of: all channels of its window where a convolution or dense layer sums over them, else the channel
//! itself; and the gradients of the outputs it went to, in the same way. A layer's lattice is the finest
//! whose numbers fit into a share of the page; small maps have all of their pixels.

use super::maps::thumbnail;
use super::selection::{self, Why, lattice};
use crate::explain::pixel::{Pixel, Tap, Windows, interpolation};
use crate::explain::statistics::ChannelStatistics;
use crate::explain::trace::{Trace, values};
use crate::nn::layers::Layer;
use crate::nn::{Id, Node};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of numbers in a page at most; as base64 they are four thirds of that.
const MOST_BYTES: usize = 2_800_000;
/// Bytes of a page at most without its sections: numbers, and thumbnails with what is said of them.
const PAGE_BYTES: usize = 6_700_000;

/// Bytes of numbers that a page may have which shows these channels: many thumbnails leave less.
fn room(trace: &Trace, shown: &[Vec<usize>]) -> usize {
    let pixels = |(i, shown): (usize, &Vec<usize>)| {
        let [h, w] = thumbnail(trace.sides(Id(i)));
        // Of values and of gradients; what is flat has none.
        if h * w > 1 { 2 * shown.len() * h * w } else { 0 }
    };
    let pixels: usize = shown.iter().enumerate().map(pixels).sum();
    // 1.6 bytes a pixel were measured: noise is not compressed, and each has its statistics beside it.
    let left = PAGE_BYTES.saturating_sub(pixels * 8 / 5);
    (left * 3 / 4).min(MOST_BYTES)
}

/// A part of the page's numbers: where it begins, and its length.
pub(super) type Part = [usize; 2];

/// Numbers of some pixels of a layer, pixel by pixel.
#[derive(Debug, Default, Serialize)]
pub(super) struct Kept {
    /// Which pixels, `y · width + x`; None: all.
    at: Option<Part>,
    /// One a pixel and channel.
    data: Part,
}

/// What the page knows of a layer in numbers.
#[derive(Debug, Default, Serialize)]
pub(super) struct Numbers {
    /// The lattice: pixels that can be looked into.
    pixels: Part,
    /// Outputs, of the shown channels.
    values: Kept,
    /// Outputs, of all channels.
    wide_values: Kept,
    /// Gradients by the outputs, of the shown channels.
    gradients: Kept,
    /// Gradients before the layer's own activation, of all channels.
    wide_gradients: Kept,
    /// By shown channel, tap and input channel.
    weights: Option<Part>,
    /// By shown channel of the (first) input, tap and output channel.
    rows: Option<Part>,
    /// By shown channel.
    bias: Option<Part>,
    /// γ, β, μ and σ², by shown channel each.
    norm: Option<Part>,
}

/// All numbers of a page, and where each layer's are.
pub(super) struct Store {
    pub numbers: Vec<f32>,
    pub layers: Vec<Numbers>,
}

/// What is kept of a layer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Values,
    WideValues,
    Gradients,
    WideGradients,
}

/// Pixels that are needed, by layer and kind.
#[derive(Default)]
struct Needs(BTreeMap<(usize, Kind), BTreeSet<usize>>);

impl Needs {
    fn add(&mut self, layer: Id, kind: Kind, pixels: impl IntoIterator<Item = usize>) {
        self.0.entry((layer.0, kind)).or_default().extend(pixels);
    }

    fn take(&mut self, layer: usize, kind: Kind) -> BTreeSet<usize> {
        self.0.remove(&(layer, kind)).unwrap_or_default()
    }

    fn bytes(&self, plan: &Planner) -> usize {
        let size = |(&(layer, kind), pixels): (&(usize, Kind), &BTreeSet<usize>)| match kind {
            Kind::Values | Kind::Gradients => 4 * pixels.len() * plan.shown[layer].len(),
            Kind::WideValues | Kind::WideGradients => 4 * pixels.len() * plan.trace.sides(Id(layer))[2],
        };
        self.0.iter().map(size).sum()
    }
}

/// Says what each layer's pixels need.
struct Planner<'a> {
    trace: &'a Trace<'a>,
    shown: &'a [Vec<usize>],
    /// By layer, who reads it.
    readers: Vec<Vec<Id>>,
}

impl<'a> Planner<'a> {
    fn new(trace: &'a Trace<'a>, shown: &'a [Vec<usize>]) -> Self {
        let nodes = trace.model.graph.nodes();
        let mut readers = vec![Vec::new(); nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            for input in &node.inputs {
                if readers[input.0].last() != Some(&Id(i)) {
                    readers[input.0].push(Id(i));
                }
            }
        }
        Planner { trace, shown, readers }
    }

    /// Bytes of the weights of the shown channels, forward and backward.
    fn parameter_bytes(&self) -> usize {
        (0..self.readers.len()).map(|i| 4 * parameters(self, Id(i))).sum()
    }

    /// Everything that is needed to compute these pixels of a layer, and their gradients.
    fn need(&self, layer: Id, pixels: &[usize], needs: &mut Needs) {
        needs.add(layer, Kind::Values, pixels.iter().copied());
        needs.add(layer, Kind::Gradients, pixels.iter().copied());
        let node = self.trace.model.graph.node(layer);
        for &pixel in pixels {
            self.need_forward(layer, node, pixel, needs);
            for &reader in &self.readers[layer.0] {
                self.need_backward(layer, reader, pixel, needs);
            }
        }
    }

    fn need_forward(&self, layer: Id, node: &Node, pixel: usize, needs: &mut Needs) {
        let (Some(&input), [_, width, _]) = (node.inputs.first(), self.trace.sides(layer)) else {
            return;
        };
        let sides = self.trace.sides(input);
        let (y, x) = (pixel / width, pixel % width);
        let taps = || self.windows(input, layer).map_or(Vec::new(), |windows| windows.taps(y, x));
        match node.layer {
            Layer::Conv2D(_) => needs.add(input, Kind::WideValues, at(&taps(), sides[1])),
            Layer::Dense(_) => needs.add(input, Kind::WideValues, [0]),
            Layer::Activation(crate::activation::Activation::Softmax) => {
                needs.add(input, Kind::WideValues, [pixel]);
            }
            Layer::DepthwiseConv2D(_)
            | Layer::MaxPooling2D(_)
            | Layer::AveragePooling2D(_)
            | Layer::GlobalAveragePooling2D
            | Layer::GlobalMaxPooling2D => needs.add(input, Kind::Values, at(&taps(), sides[1])),
            Layer::ZeroPadding2D([[top, _], [left, _]]) => {
                let inside = y >= top && x >= left && y - top < sides[0] && x - left < sides[1];
                let from = inside.then(|| (y - top) * sides[1] + x - left);
                needs.add(input, Kind::Values, from);
            }
            Layer::UpSampling2D([fy, fx]) => {
                let rows = &interpolation(sides[0], sides[0] * fy)[y];
                let columns = &interpolation(sides[1], sides[1] * fx)[x];
                let pairs =
                    rows.iter().flat_map(|row| columns.iter().map(|column| row.0 * sides[1] + column.0));
                needs.add(input, Kind::Values, pairs);
            }
            Layer::Flatten | Layer::Reshape(_) => {
                let own = self.trace.sides(layer);
                for &channel in &self.shown[layer.0] {
                    let from = Pixel::at(Pixel::new(y, x, channel).offset(own), sides);
                    needs.add(input, Kind::WideValues, [from.y * sides[1] + from.x]);
                }
            }
            _ => node.inputs.iter().for_each(|&input| needs.add(input, Kind::Values, [pixel])),
        }
    }

    fn need_backward(&self, layer: Id, reader: Id, pixel: usize, needs: &mut Needs) {
        let (sides, own) = (self.trace.sides(layer), self.trace.sides(reader));
        let (y, x) = (pixel / sides[1], pixel % sides[1]);
        let windows = self.windows(layer, reader);
        let outputs = || windows.map_or(Vec::new(), |windows| windows.outputs(y, x));
        match self.trace.model.graph.node(reader).layer {
            Layer::Conv2D(_) => needs.add(reader, Kind::WideGradients, at(&outputs(), own[1])),
            Layer::Dense(_) | Layer::Flatten | Layer::Reshape(_) => {
                needs.add(reader, Kind::WideGradients, 0..own[0] * own[1]);
            }
            Layer::MaxPooling2D(_) | Layer::GlobalMaxPooling2D => {
                let outputs = outputs();
                needs.add(reader, Kind::Gradients, at(&outputs, own[1]));
                for output in outputs {
                    let taps = windows.map_or(Vec::new(), |windows| windows.taps(output.y, output.x));
                    needs.add(layer, Kind::Values, at(&taps, sides[1]));
                }
            }
            Layer::DepthwiseConv2D(_) | Layer::AveragePooling2D(_) | Layer::GlobalAveragePooling2D => {
                needs.add(reader, Kind::Gradients, at(&outputs(), own[1]));
            }
            Layer::ZeroPadding2D([[top, _], [left, _]]) => {
                needs.add(reader, Kind::Gradients, [(y + top) * own[1] + x + left]);
            }
            Layer::UpSampling2D([fy, fx]) => {
                let along = |side: usize, factor: usize, at: usize| -> Vec<usize> {
                    let all = interpolation(side, side * factor).into_iter().enumerate();
                    all.filter(|(_, taps)| taps.iter().any(|tap| tap.0 == at)).map(|(i, _)| i).collect()
                };
                let columns = along(sides[1], fx, x);
                for row in along(sides[0], fy, y) {
                    needs.add(
                        reader,
                        Kind::Gradients,
                        columns.iter().map(|column| row * own[1] + column),
                    );
                }
            }
            _ => {
                needs.add(reader, Kind::Gradients, [pixel]);
                // An activation's slope is told from what it made.
                needs.add(reader, Kind::Values, [pixel]);
            }
        }
    }

    fn windows(&self, input: Id, layer: Id) -> Option<Windows> {
        let node = self.trace.model.graph.node(layer);
        Windows::of(&node.layer, self.trace.sides(input), self.trace.sides(layer))
    }

    /// The lattices that there are for a layer, from fine to coarse, and the bytes that each takes.
    fn lattices(&self, layer: Id) -> Vec<(Vec<usize>, usize)> {
        let [h, w, _] = self.trace.sides(layer);
        let whole = (h * w <= 784).then_some(h.max(w));
        let sizes =
            whole.into_iter().chain([14, 10, 7, 5, 4, 3, 2, 1].into_iter().filter(|&n| n < h.max(w)));
        let sized = sizes.map(|n| {
            let (pixels, mut needs) = (lattice(h, w, n), Needs::default());
            self.need(layer, &pixels, &mut needs);
            (pixels, needs.bytes(self))
        });
        sized.collect()
    }
}

/// The pixels of taps, in an image of this width.
fn at(taps: &[Tap], width: usize) -> impl Iterator<Item = usize> {
    taps.iter().map(move |tap| tap.y * width + tap.x)
}

/// By layer the channels that a page shows, and why. Of a large network they are fewer, so that beside their
/// weights there is room for the numbers of more than one pixel.
pub(super) fn fitting_channels(
    trace: &Trace,
    statistics: &[Vec<ChannelStatistics>],
    asked: Option<(Id, usize)>,
) -> Vec<Vec<(usize, Why)>> {
    let fits = |weights: usize| {
        // Which channels they are hardly matters for the size, and takes time to find out.
        let counts = selection::counts(trace, weights);
        let first: Vec<Vec<usize>> = counts.into_iter().map(|count| (0..count).collect()).collect();
        least_bytes(trace, &first) <= room(trace, &first) * 4 / 5
    };
    let mut weights = selection::WEIGHTS;
    while weights > 0 && !fits(weights) {
        weights /= 2;
    }
    selection::channels(trace, statistics, asked, weights)
}

/// How large the numbers of a page are at least that shows these channels: one pixel a layer, and weights.
fn least_bytes(trace: &Trace, shown: &[Vec<usize>]) -> usize {
    let (plan, mut needs) = (Planner::new(trace, shown), Needs::default());
    for i in 0..shown.len() {
        let [h, w, _] = trace.sides(Id(i));
        plan.need(Id(i), &lattice(h, w, 1), &mut needs);
    }
    plan.parameter_bytes() + needs.bytes(&plan)
}

impl Store {
    /// The numbers of a page that shows these channels of each layer.
    pub fn new(trace: &Trace, shown: &[Vec<usize>]) -> Self {
        let plan = Planner::new(trace, shown);
        let nodes = trace.model.graph.nodes();
        // A layer's share of the page: less and less until all fit.
        let shares = std::iter::successors(Some(MOST_BYTES / 4), |share| Some(share * 4 / 5));
        let shares = shares.take_while(|&share| share > 2000).chain([0]);
        let (weights, room) = (plan.parameter_bytes(), room(trace, shown));
        let all: Vec<_> = (0..nodes.len()).map(|i| plan.lattices(Id(i))).collect();
        let (mut chosen, mut needs) = (Vec::new(), Needs::default());
        for share in shares {
            let fits = |of_layer: &&(Vec<usize>, usize)| of_layer.1 <= share;
            let finest = |of_layer: &Vec<(Vec<usize>, usize)>| {
                of_layer
                    .iter()
                    .find(fits)
                    .or(of_layer.last())
                    .map_or(vec![0], |(pixels, _)| pixels.clone())
            };
            (chosen, needs) = (all.iter().map(finest).collect::<Vec<_>>(), Needs::default());
            for (i, pixels) in chosen.iter().enumerate() {
                plan.need(Id(i), pixels, &mut needs);
            }
            if needs.bytes(&plan) + weights <= room {
                break;
            }
        }
        let mut numbers = Collected(Vec::new());
        let layers = chosen.iter().enumerate();
        let layers = layers.map(|(i, pixels)| numbers.layer(&plan, Id(i), pixels, &mut needs)).collect();
        Store { numbers: numbers.0, layers }
    }
}

/// How many numbers of a layer's parameters a page has.
fn parameters(plan: &Planner, layer: Id) -> usize {
    let node = plan.trace.model.graph.node(layer);
    let (Some(kernel), Some(input)) = (node.parameters.first(), node.inputs.first()) else { return 0 };
    let [inputs, outputs] = [plan.trace.sides(*input)[2], plan.trace.sides(layer)[2]];
    let size = kernel.shape.elements();
    match node.layer {
        Layer::Conv2D(_) | Layer::Dense(_) => {
            size / outputs * plan.shown[layer.0].len() + size / inputs * plan.shown[input.0].len()
        }
        _ => 4 * plan.shown[layer.0].len(),
    }
}

struct Collected(Vec<f32>);

impl Collected {
    fn part(&mut self, values: impl IntoIterator<Item = f32>) -> Part {
        let from = self.0.len();
        self.0.extend(values);
        [from, self.0.len() - from]
    }

    /// Of some pixels of `[H, W, C]` the channels that are wanted.
    fn kept(
        &mut self,
        pixels: &BTreeSet<usize>,
        all: &[f32],
        [h, w, c]: [usize; 3],
        of: &[usize],
    ) -> Kept {
        let complete = pixels.len() == h * w;
        let at = (!complete).then(|| self.part(pixels.iter().map(|&pixel| pixel as f32)));
        let pixels = if all.is_empty() { &BTreeSet::new() } else { pixels };
        let data =
            pixels.iter().flat_map(|pixel| of.iter().map(move |channel| all[pixel * c + channel]));
        Kept { at, data: self.part(data) }
    }

    fn layer(&mut self, plan: &Planner, id: Id, pixels: &[usize], needs: &mut Needs) -> Numbers {
        let (trace, node) = (plan.trace, plan.trace.model.graph.node(id));
        let (sides, shown) = (trace.sides(id), &plan.shown[id.0]);
        let every: Vec<usize> = (0..sides[2]).collect();
        let output = values(&trace.outputs[id.0]);
        let gradient = trace.gradients[id.0].as_ref().map(values).unwrap_or_default();
        let inner = trace.inner_gradient(id).unwrap_or_default();
        let wide = needs.take(id.0, Kind::WideValues);
        let narrow = needs.take(id.0, Kind::Values).difference(&wide).copied().collect();
        let (kernel, bias, norm) = self.parameters(plan, id, node);
        Numbers {
            pixels: self.part(pixels.iter().map(|&pixel| pixel as f32)),
            values: self.kept(&narrow, &output, sides, shown),
            wide_values: self.kept(&wide, &output, sides, &every),
            gradients: self.kept(&needs.take(id.0, Kind::Gradients), &gradient, sides, shown),
            wide_gradients: self.kept(&needs.take(id.0, Kind::WideGradients), &inner, sides, &every),
            weights: kernel.map(|[weights, _]| weights),
            rows: kernel.and_then(|[_, rows]| (rows[1] > 0).then_some(rows)),
            bias,
            norm,
        }
    }

    /// Weights and rows, bias, and a batch norm's parameters.
    fn parameters(
        &mut self,
        plan: &Planner,
        id: Id,
        node: &Node,
    ) -> (Option<[Part; 2]>, Option<Part>, Option<Part>) {
        let all: Vec<Vec<f32>> =
            plan.trace.model.layer_parameters(id.0).map(|parameter| values(&parameter.value)).collect();
        let (shown, &[ref kernel, ref others @ ..]) = (&plan.shown[id.0], &all[..]) else {
            return (None, None, None);
        };
        let of_shown =
            |values: &Vec<f32>| shown.iter().map(|&channel| values[channel]).collect::<Vec<_>>();
        let outputs = plan.trace.sides(id)[2];
        match node.layer {
            Layer::BatchNormalization(_) => {
                let norm = all.iter().flat_map(of_shown).collect::<Vec<_>>();
                (None, None, Some(self.part(norm)))
            }
            Layer::DepthwiseConv2D(_) => {
                let column = |&channel: &usize| kernel[channel..].iter().step_by(outputs).copied();
                let weights = self.part(shown.iter().flat_map(column));
                (Some([weights, [0, 0]]), others.first().map(|bias| self.part(of_shown(bias))), None)
            }
            _ => {
                let column = |&channel: &usize| kernel[channel..].iter().step_by(outputs).copied();
                let weights = self.part(shown.iter().flat_map(column));
                let inputs = plan.trace.sides(node.inputs[0])[2];
                let rows = plan.shown[node.inputs[0].0].iter().flat_map(|&channel| {
                    kernel.chunks_exact(outputs).skip(channel).step_by(inputs).flatten().copied()
                });
                let rows = self.part(rows);
                (Some([weights, rows]), others.first().map(|bias| self.part(of_shown(bias))), None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Target;
    use crate::explain::statistics::by_channel;
    use crate::models::by_name;
    use crate::nn::Model;
    use crate::tensor::Tensor;

    /// Its convolutions' weights alone would be larger than a page, with as many channels as others show.
    #[test]
    fn of_a_large_network_fewer_channels_are_shown_and_the_page_stays_small() {
        let model = Model::new(by_name("resnet50v2", 64, 20).unwrap(), 3);
        let x = Tensor::rand_uniform([1, 64, 64, 3], -1.0, 1.0, 7);
        let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits))).unwrap();
        let outputs = trace.outputs.iter().enumerate();
        let statistics: Vec<_> =
            outputs.map(|(i, output)| by_channel(&values(output), trace.sides(Id(i))[2])).collect();
        let many = selection::channels(&trace, &statistics, None, selection::WEIGHTS);
        assert!(least_bytes(&trace, &selection::without_why(&many)) > MOST_BYTES);
        let shown = selection::without_why(&fitting_channels(&trace, &statistics, None));
        assert!(shown.iter().all(|channels| !channels.is_empty()));
        let store = Store::new(&trace, &shown);
        assert!(4 * store.numbers.len() <= MOST_BYTES + MOST_BYTES / 20, "{}", store.numbers.len());
        // More than one pixel can be looked into, in most of the layers that have more.
        let large = |i: &usize| trace.sides(Id(*i))[0] > 1;
        let layers: Vec<usize> = (0..shown.len()).filter(large).collect();
        let several = layers.iter().filter(|&&i| store.layers[i].pixels[1] > 1).count();
        assert!(2 * several > layers.len(), "{several} of {}", layers.len());
    }
}
