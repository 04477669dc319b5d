//! One HTML file in which a trace can be looked through: graph, feature maps, and every number's computation.
//!
//! The page has data (`Data`, below) and a script that draws it; the script computes pixels again from the
//! numbers that `store` chose. Where the reader is stands in the address: `#layer=NAME&channel=3&y=5&x=7`.

mod analyses;
mod maps;
mod selection;
mod store;

pub use analyses::{Analyses, Section};

use super::layout::Layout;
use super::pixel::Windows;
use super::statistics::{ChannelStatistics, Histogram, by_channel};
use super::target::winners;
use super::trace::{Trace, values};
use crate::data::{Image, Mask};
use crate::device::Device;
use crate::error::Result;
use crate::nn::layers::Layer;
use crate::nn::{Id, Node, PassCost, PlanTable, Purpose};
use crate::report::page::{Markup, Page, fill, image_data_uri};
use base64::{Engine, engine::general_purpose::STANDARD};
use maps::{Sprite, filters, sprite};
use selection::Why;
use serde::Serialize;
use store::{Numbers, Store};

const PREDICTION: &str = include_str!("prediction.html");
const NETWORK: &str = include_str!("network.html");
/// The style, in the order of the page's parts.
const STYLES: [&str; 5] = [
    include_str!("prediction.css"),
    include_str!("explorer.css"),
    include_str!("detail.css"),
    include_str!("pixel.css"),
    include_str!("analyses.css"),
];
/// The script, in the order in which its parts need each other.
const SCRIPTS: [&str; 7] = [
    include_str!("numbers.js"),
    include_str!("computation.js"),
    include_str!("drawing.js"),
    include_str!("state.js"),
    include_str!("pixel.js"),
    include_str!("detail.js"),
    include_str!("panes.js"),
];

/// Ranges of a histogram.
const RANGES: usize = 40;
/// Classes listed as predictions.
const CLASSES_LISTED: usize = 5;

/// What a page is made of.
pub struct Explanation<'a> {
    /// The pass.
    pub trace: &'a Trace<'a>,
    /// What the network saw, at its size, before its values were prepared.
    pub image: &'a Image,
    /// What the image is called.
    pub name: &'a str,
    /// Names of the classes, one an output channel.
    pub classes: &'a [String],
    /// For which the plan is shown.
    pub device: Device,
    /// By layer: names and values of what was measured of it, shown among its facts; may be empty.
    pub measured: Vec<Vec<(String, String)>>,
    /// The layer and channel that the page opens with; else the explained logit.
    pub start: Option<(Id, usize)>,
    /// Further sections, after the network: anchor, heading, body.
    pub sections: Vec<Section>,
}

/// A class and how likely it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Its place among the outputs.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Its probability; of a network that labels pixels, the share of them that are given it.
    pub probability: f64,
    /// What the probability was made of; of pixels, the mean.
    pub logit: f64,
}

#[derive(Serialize)]
struct Data<'a> {
    model: &'a str,
    layers: Vec<LayerData>,
    layout: Layout,
    target: Target<'a>,
    start: Option<[usize; 2]>,
    classes: &'a [String],
    /// By step of the plan: bytes of outputs that are still to be read after it.
    live_bytes: Vec<u64>,
    /// Of a classifier.
    logits: Vec<f32>,
    /// f32, little-endian, base64.
    numbers: String,
}

#[derive(Serialize)]
struct Target<'a> {
    class: usize,
    name: &'a str,
    /// Of a network that labels pixels: how many the logit is summed over.
    pixels: Option<usize>,
    /// Whether these are pixels that are given the class.
    given: bool,
}

#[derive(Serialize)]
struct LayerData {
    name: String,
    kind: &'static str,
    inputs: Vec<usize>,
    /// Height, width, channels; 1, 1 and the length of what is flat.
    sides: [usize; 3],
    flat: bool,
    parameters: u64,
    flops: u64,
    bytes: u64,
    windows: Option<Windows>,
    /// Rows and columns of zeros before the image: [top, left].
    pad: Option<[usize; 2]>,
    factors: Option<[usize; 2]>,
    epsilon: Option<f64>,
    activation: &'static str,
    channels: Vec<Channel>,
    dead: usize,
    mean_absolute: f64,
    activations: Histogram,
    gradients: Option<Histogram>,
    weights: Option<Histogram>,
    weight_gradients: Option<Histogram>,
    maps: Option<Sprite>,
    gradient_maps: Option<Sprite>,
    filters: Option<Sprite>,
    /// In words, and its place among the steps.
    step: Option<(usize, String)>,
    measured: Vec<(String, String)>,
    numbers: Numbers,
}

#[derive(Serialize)]
struct Channel {
    channel: usize,
    why: Why,
    #[serde(flatten)]
    statistics: ChannelStatistics,
}

impl Explanation<'_> {
    /// The page, one file. An error where the graph has no plan for the device.
    pub fn render(&self) -> Result<String> {
        let trace = self.trace;
        let graph = &trace.model.graph;
        let prediction = PredictionValues {
            image: image_data_uri(self.image)?,
            mask: self.mask()?,
            top: likeliest(trace, self.classes),
            target: self.target(),
            pixels: trace.target.pixels.is_some(),
        };
        let data = self.data()?;
        let title = format!("{}: what {} sees", self.name, graph.name);
        let subtitle = format!(
            "{} layers, {:.2} million parameters, {:.2} GFLOP forward. Every layer's numbers, forward and backward.",
            graph.nodes().len(),
            graph.cost().parameters as f64 / 1e6,
            graph.cost().flops as f64 / 1e9,
        );
        let mut page = Page::new(title)
            .subtitle(subtitle)
            .section("prediction", "Prediction", fill(PREDICTION, &prediction)?)
            .section("network", "Network", fill(NETWORK, &self.target())?);
        for (id, heading, body) in &self.sections {
            page = page.section(*id, heading.clone(), body.clone());
        }
        page = STYLES.into_iter().fold(page, Page::style).data("explanation", &data)?;
        SCRIPTS.into_iter().fold(page, Page::script).render()
    }

    fn target(&self) -> Target<'_> {
        let target = &self.trace.target;
        let pixels = target.pixels.as_ref().map(|pixels| pixels.iter().filter(|&&own| own).count());
        let name = self.classes.get(target.class).map_or("", String::as_str);
        let given = winners(&self.trace.logits).contains(&target.class);
        Target { class: target.class, name, pixels, given }
    }

    /// Of a network that labels pixels: the mask over the image, in VOC's colours.
    fn mask(&self) -> Result<Option<Markup>> {
        let &[_, height, width, _] = &self.trace.logits.shape()[..] else { return Ok(None) };
        let classes = winners(&self.trace.logits).into_iter().map(|class| class as u8).collect();
        let mask = Mask { height, width, classes };
        Ok(Some(image_data_uri(&masked(self.image, &mask)?)?))
    }

    fn data(&self) -> Result<Data<'_>> {
        let trace = self.trace;
        let outputs: Vec<Vec<f32>> = trace.outputs.iter().map(values).collect();
        let by_layer = outputs.iter().enumerate();
        let statistics: Vec<Vec<ChannelStatistics>> =
            by_layer.map(|(i, output)| by_channel(output, trace.sides(Id(i))[2])).collect();
        let shown = store::fitting_channels(trace, &statistics, self.start);
        let channels = selection::without_why(&shown);
        let store = Store::new(trace, &channels);
        let plan = PlanTable::new(&trace.model.graph, self.device, Purpose::Inference, 1)?;
        let numbers: Vec<u8> = store.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let layers = store.layers.into_iter().enumerate().map(|(i, numbers)| {
            let layer = Described {
                trace,
                id: Id(i),
                node: &trace.model.graph.nodes()[i],
                output: &outputs[i],
                statistics: &statistics[i],
            };
            let measured = self.measured.get(i).cloned().unwrap_or_default();
            Ok(LayerData { measured, ..layer.data(&shown[i], &channels[i], &plan, numbers)? })
        });
        Ok(Data {
            model: &trace.model.graph.name,
            layers: layers.collect::<Result<_>>()?,
            layout: Layout::new(&trace.model.graph),
            target: self.target(),
            start: self.start.map(|(layer, channel)| [layer.0, channel]),
            classes: self.classes,
            live_bytes: plan.steps.iter().map(|step| step.cost.live_bytes).collect(),
            logits: if trace.logits.shape().len() == 2 { values(&trace.logits) } else { Vec::new() },
            numbers: STANDARD.encode(numbers),
        })
    }
}

/// A mask over its image, in VOC's colours; what is background stays as it is.
fn masked(image: &Image, mask: &Mask) -> Result<Image> {
    let palette = crate::data::image_files::voc_palette();
    let mut rgb = image.rgb.clone();
    for (pixel, &class) in rgb.chunks_exact_mut(3).zip(&mask.classes).filter(|(_, class)| **class > 0) {
        let colour = palette[usize::from(class)];
        pixel
            .iter_mut()
            .zip(colour)
            .for_each(|(v, c)| *v = ((u16::from(*v) + 2 * u16::from(c)) / 3) as u8);
    }
    Image::new(mask.height, mask.width, rgb)
}

#[derive(Serialize)]
struct PredictionValues<'a> {
    image: Markup,
    mask: Option<Markup>,
    top: Vec<Prediction>,
    target: Target<'a>,
    pixels: bool,
}

/// The likeliest classes, the first the likeliest. Of pixels: the classes that most are given.
pub fn likeliest(trace: &Trace, classes: &[String]) -> Vec<Prediction> {
    let logits = trace.logits.to_vec_f64();
    let count = trace.logits.shape().last_length();
    let rows = (logits.len() / count).max(1) as f64;
    let mut mean = vec![0.0; count];
    logits.iter().enumerate().for_each(|(i, logit)| mean[i % count] += logit / rows);
    let probability: Vec<f64> = match trace.logits.shape().len() {
        2 => {
            let output = trace.outputs[trace.model.graph.output().0].to_vec_f64();
            if output.len() == count { output } else { mean.clone() }
        }
        _ => {
            let mut share = vec![0.0; count];
            winners(&trace.logits).into_iter().for_each(|class| share[class] += 1.0 / rows);
            share
        }
    };
    let mut all: Vec<Prediction> = (0..count)
        .map(|class| Prediction {
            class,
            name: classes.get(class).cloned().unwrap_or_else(|| format!("class {class}")),
            probability: probability[class],
            logit: mean[class],
        })
        .collect();
    all.sort_by(|a, b| b.probability.total_cmp(&a.probability).then(b.logit.total_cmp(&a.logit)));
    all.truncate(CLASSES_LISTED);
    all
}

/// A layer, about to be described.
struct Described<'a> {
    trace: &'a Trace<'a>,
    id: Id,
    node: &'a Node,
    output: &'a [f32],
    statistics: &'a [ChannelStatistics],
}

impl Described<'_> {
    fn data(
        &self,
        shown: &[(usize, Why)],
        channels: &[usize],
        plan: &PlanTable,
        numbers: Numbers,
    ) -> Result<LayerData> {
        let Described { trace, id, node, output, statistics } = *self;
        let sides = trace.sides(id);
        let input = node.inputs.first().map(|&input| trace.sides(input));
        let gradient = trace.gradients[id.0].as_ref().map(values);
        let is_image = sides[0] * sides[1] > 1;
        let map = |values: &[f32]| is_image.then(|| sprite(values, sides, channels)).transpose();
        let statistics_of =
            |&(channel, why): &(usize, Why)| Channel { channel, why, statistics: statistics[channel] };
        let mean = statistics.iter().map(|s| s.mean_absolute).sum::<f64>() / statistics.len() as f64;
        Ok(LayerData {
            name: node.name.clone(),
            kind: node.layer.type_name(),
            inputs: node.inputs.iter().map(|id| id.0).collect(),
            sides,
            flat: node.output_shape.len() == 1,
            parameters: node.cost.parameters,
            flops: node.cost.flops,
            bytes: node.cost.activation_bytes,
            windows: input.and_then(|input| Windows::of(&node.layer, input, sides)),
            pad: match node.layer {
                Layer::ZeroPadding2D([[top, _], [left, _]]) => Some([top, left]),
                _ => None,
            },
            factors: match node.layer {
                Layer::UpSampling2D(factors) => Some(factors),
                _ => None,
            },
            epsilon: match node.layer {
                Layer::BatchNormalization(norm) => Some(norm.epsilon),
                _ => None,
            },
            activation: node.layer.activation().name(),
            channels: shown.iter().map(statistics_of).collect(),
            dead: statistics.iter().filter(|s| s.is_dead()).count(),
            mean_absolute: mean,
            activations: Histogram::of(output, RANGES),
            gradients: gradient.as_ref().map(|gradient| Histogram::of(gradient, RANGES)),
            weights: self.kernel().map(|(kernel, _)| Histogram::of(&kernel, RANGES)),
            weight_gradients: self
                .kernel()
                .and_then(|(_, gradient)| Some(Histogram::of(&gradient?, RANGES))),
            maps: map(output)?,
            gradient_maps: gradient.as_ref().map(|gradient| map(gradient)).transpose()?.flatten(),
            filters: self.filters(input)?,
            step: step(plan, &node.name),
            measured: Vec::new(),
            numbers,
        })
    }

    /// A convolution's or dense layer's kernel, and its gradient.
    fn kernel(&self) -> Option<(Vec<f32>, Option<Vec<f32>>)> {
        let kernel = self.trace.model.layer_parameters(self.id.0).next()?;
        let place = self.trace.model.parameters.iter().position(|p| p.path == kernel.path)?;
        let gradient = self.trace.parameter_gradients[place].as_ref().map(values);
        let is_kernel = kernel.path.ends_with("kernel");
        is_kernel.then(|| (values(&kernel.value), gradient))
    }

    /// The filters of a convolution that reads the image itself.
    fn filters(&self, input: Option<[usize; 3]>) -> Result<Option<Sprite>> {
        let (Layer::Conv2D(conv), Some([_, _, 3])) = (self.node.layer, input) else { return Ok(None) };
        let [kh, kw] = conv.kernel;
        if kh * kw == 1 || conv.filters > 128 {
            return Ok(None);
        }
        let kernel = self.kernel().map(|(kernel, _)| filters(&kernel, [kh, kw, conv.filters]));
        kernel.transpose()
    }
}

/// The step of the plan that computes a layer: its place, and in words.
fn step(plan: &PlanTable, name: &str) -> Option<(usize, String)> {
    let (number, step) =
        plan.steps.iter().enumerate().find(|(_, step)| step.layers.iter().any(|layer| layer == name))?;
    let mut words = format!("step {} of {}: {}", number + 1, plan.steps.len(), step.operator);
    if !step.fused.is_empty() {
        words += &format!(" with {}", step.fused.join(", "));
    }
    for algorithm in &step.algorithms {
        words += &format!("; {} ({})", algorithm.algorithm, algorithm.reason);
    }
    let PassCost { flops, bytes } = step.cost.forward;
    words += &format!("; {:.2} MFLOP, {:.2} MB moved", flops as f64 / 1e6, bytes as f64 / 1e6);
    if bytes > 0 {
        words += &format!(", {:.1} FLOP a byte", flops as f64 / bytes as f64);
    }
    Some((number, words))
}
