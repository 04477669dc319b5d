//! Sections of the page that need more passes than one: attributions, receptive fields, an attack's sweep,
//! the branches of an atrous pyramid, a channel's visualisation.
//!
//! How many passes each takes follows from the network's FLOPs, so that the page is there in seconds; and
//! never from a clock, so that it is the same page on every machine.

use crate::attack::{Images, Network};
use crate::data::image::Preprocess;
use crate::data::image_files::encode_jpeg;
use crate::data::{Image, Mask};
use crate::error::{Error, Result};
use crate::explain::atrous_branches::{TapMap, atrous_branches, taps, without_branches};
use crate::explain::attack_sweep::{AttackSweep, EPSILONS, SweepStep};
use crate::explain::attribution::{
    AdaptiveIntegratedGradients, GradCam, Occlusion, SmoothGrad, Target, of_pixels, sanity_check,
};
use crate::explain::feature_visualization::FeatureVisualization;
use crate::explain::heat_map::{ColourMap, heat_map, overlay};
use crate::explain::receptive_field::{effective_receptive_field, effective_size, pixel_field};
use crate::explain::trace::Trace;
use crate::nn::layers::Layer;
use crate::nn::{Model, for_inference};
use crate::ops::{Method, relu, resize};
use crate::report::page::{Markup, fill, image_data_uri, jpeg_data_uri};
use crate::tensor::Tensor;
use jpeg_encoder::SamplingFactor;
use serde::Serialize;

const MAPS: &str = include_str!("maps.html");
const ATTACK: &str = include_str!("attack.html");

/// FLOPs that one analysis may take, all its passes together.
const FLOPS: u64 = 120_000_000_000;
/// The same of integrated gradients: as many steps as 1 % takes, where the network is not too large for it.
const INTEGRATED: u64 = 1_500_000_000_000;
/// The same of the attack, with each ε.
const SWEEP: u64 = 450_000_000_000;
/// How many FLOPs take as long as the way of a weight from memory, where it is read for one image alone.
const FLOPS_A_WEIGHT: u64 = 200;

/// A section of a page: anchor, heading, body.
///
/// [`Analyses`] has an example.
pub type Section = (&'static str, String, Markup);

/// What the analyses are of.
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image::Preprocess;
/// use atrous::explain::page::Analyses;
/// use atrous::explain::{Target, Trace};
/// use atrous::prelude::*;
///
/// # let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// # let features = Layer::conv2d(4, 3).with_activation(Activation::Relu);
/// # let classify = Layer::dense(2).with_activation(Activation::Softmax);
/// # graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, classify])?;
/// # let model = Model::new(graph, 1);
/// let x = Tensor::rand([1, 16, 16, 3], 7);
/// let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits)))?;
/// let analyses = Analyses {
///     trace: &trace,
///     x: &x,
///     image: &Image::new(16, 16, vec![128; 3 * 16 * 16])?,
///     preprocess: Preprocess::Unit,
///     classes: &["cat".to_string(), "dog".to_string()],
/// };
/// let (anchor, heading, _) = analyses.visualized("conv2d", 2)?;
/// assert_eq!((anchor, heading.as_str()), ("channel", "What channel 2 of conv2d answers to"));
/// let sections = analyses.sections()?; // for an `Explanation`
/// assert!(sections.iter().any(|(_, heading, _)| heading.contains("attack")), "{sections:?}");
/// # Ok::<(), Error>(())
/// ```
pub struct Analyses<'a> {
    /// The pass that is explained.
    pub trace: &'a Trace<'a>,
    /// The image `[1, side, side, 3]` as the network takes it.
    pub x: &'a Tensor,
    /// The same as it is seen.
    pub image: &'a Image,
    /// How the one becomes the other.
    pub preprocess: Preprocess,
    /// Names of the classes, one an output channel.
    pub classes: &'a [String],
}

/// A row of figures, and what there is to say before them.
#[derive(Serialize)]
struct Maps {
    paragraphs: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    heading: String,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    uri: Markup,
    title: String,
    note: String,
    /// Red and blue around a white 0.
    signed: bool,
}

#[derive(Serialize)]
struct Sweep {
    steps: usize,
    frames: Vec<Frame>,
}

#[derive(Serialize)]
struct Frame {
    epsilon: usize,
    figures: Vec<Figure>,
    says: String,
}

impl Figure {
    fn new(image: &Image, title: impl Into<String>, note: impl Into<String>) -> Result<Self> {
        Ok(Figure { uri: photograph(image)?, title: title.into(), note: note.into(), signed: false })
    }
}

/// An image as a JPEG: overlays on photographs are photographs.
fn photograph(image: &Image) -> Result<Markup> {
    let bytes = encode_jpeg(image, 85, SamplingFactor::F_2_2)
        .map_err(|error| Error::argument("explain", format!("an image cannot be a JPEG: {error}")))?;
    Ok(jpeg_data_uri(&bytes))
}

impl Analyses<'_> {
    /// The sections that there are for this network.
    pub fn sections(&self) -> Result<Vec<Section>> {
        let mut all = vec![self.why()?, self.fields()?];
        if atrous_branches(&self.trace.model.graph).is_ok() {
            all.push(self.branches()?);
        }
        all.push(self.attack()?);
        Ok(all)
    }

    fn class(&self) -> &str {
        self.classes.get(self.trace.target.class).map_or("the class", String::as_str)
    }

    /// Attributions side by side, and Grad-CAM's sanity check.
    fn why(&self) -> Result<Section> {
        let (x, image, target) = (self.x, self.image, &self.trace.target);
        // Once for all: each method would fold the batch norms anew.
        let model = &for_inference(self.trace.model)?;
        let [h, w] = [image.height, image.width];
        let mut figures = Vec::new();
        let cam = GradCam::default().attribute(self.trace.model, x, target);
        if let Ok(cam) = &cam {
            let map = overlay(&cam.resized(h, w)?, ColourMap::Inferno, image, 0.65)?;
            let note = format!("{}, its channels weighted by their mean gradient.", cam.layer);
            figures.push(Figure::new(&map, "Grad-CAM", note)?);
        }
        let black = self.black()?;
        figures.push(self.integrated(model, &black)?);
        let smooth = SmoothGrad { samples: passes(model, FLOPS, 3, 4, 24), ..SmoothGrad::default() };
        let map = heat_map(&of_pixels(&smooth.attribute(model, x, target)?)?, ColourMap::Diverging)?;
        let note = format!("The mean gradient of {} copies with noise.", smooth.samples);
        figures.push(Figure { signed: true, ..Figure::new(&map, "SmoothGrad", note)? });
        let occlusion = self.occlusion(model, &black, [h, w]);
        let dropped = occlusion.attribute(model, x, target)?;
        let map = overlay(&dropped.attributions, ColourMap::Diverging, image, 0.7)?;
        let [rows, columns] = occlusion.window;
        let note = format!("How far the logit falls where {rows} × {columns} pixels are covered.");
        figures.push(Figure::new(&map, "Occlusion", note)?);

        let mut rows =
            vec![Row { heading: format!("Where {} is, for the network", self.class()), figures }];
        if let Ok(cam) = cam {
            rows.push(self.sanity(&cam.layer, target)?);
        }
        let paragraphs = vec![
            "Four answers to the same question, which pixels the logit comes from. Red speaks for the class, \
             blue against it; Grad-CAM shows only what speaks for it."
                .to_string(),
        ];
        Ok(("why", format!("Why {}", self.class()), fill(MAPS, &Maps { paragraphs, rows })?))
    }

    /// Integrated gradients, within 1 % where the budget has room for the steps.
    fn integrated(&self, model: &Model, black: &Tensor) -> Result<Figure> {
        let method = AdaptiveIntegratedGradients {
            most_steps: passes(model, INTEGRATED, 2, 17, 256),
            ..black.clone().into()
        };
        let shares = method.attribute(model, self.x, &self.trace.target)?;
        let mut note = format!(
            "From black to the image in {} steps, most of them where the logit changes most. They sum to {}; \
             the logit rises by {}: {:.1} % apart.",
            shares.steps,
            text(shares.sum),
            text(shares.score - shares.baseline_score),
            shares.completeness_gap() * 100.0
        );
        if shares.completeness_gap() > method.gap {
            note += " More steps would bring them nearer, and take longer.";
        }
        let map = heat_map(&of_pixels(&shares.attributions)?, ColourMap::Diverging)?;
        Ok(Figure { signed: true, ..Figure::new(&map, "Integrated gradients", note)? })
    }

    fn occlusion(&self, model: &Model, black: &Tensor, [h, w]: [usize; 2]) -> Occlusion {
        // A grid of n × n windows, each twice as wide as the way to the next.
        let n = (passes(model, FLOPS, 1, 25, 196) as f64).sqrt() as usize;
        let stride = [h.div_ceil(n).max(1), w.div_ceil(n).max(1)];
        let fill = black.to_vec_f64()[..3].iter().map(|&v| v as f32).collect();
        Occlusion { window: [2 * stride[0], 2 * stride[1]], stride, fill }
    }

    /// Black, as the network takes it.
    fn black(&self) -> Result<Tensor> {
        let mut values = vec![0.0; self.x.shape().elements()];
        self.preprocess.apply(&mut values);
        Tensor::from_slice(&values, self.x.shape())
    }

    fn sanity(&self, layer: &str, target: &Target) -> Result<Row> {
        let (image, cam) = (self.image, GradCam { layer: Some(layer.to_string()) });
        let check = sanity_check(self.trace.model, 3, 0, |model| {
            Ok(cam.attribute(model, self.x, target)?.attributions)
        })?;
        let shown = |map: &Tensor| {
            let [h, w] = [map.shape()[0], map.shape()[1]];
            let map = resize(
                &relu(&map.reshape([1, h, w, 1])?)?,
                image.height,
                image.width,
                Method::Bilinear,
            )?;
            overlay(&map.reshape([image.height, image.width])?, ColourMap::Inferno, image, 0.65)
        };
        let mut figures = vec![Figure::new(&shown(&check.original)?, "As trained", "")?];
        for stage in &check.stages {
            let note = match stage.rank_correlation {
                Some(correlation) => format!("Rank correlation with the trained map {correlation:.2}."),
                None => "The map is the same everywhere.".to_string(),
            };
            figures.push(Figure::new(
                &shown(&stage.map)?,
                format!("Random from {} on", stage.layer),
                note,
            )?);
        }
        let heading =
            "Sanity check: the weights shuffled, from the last layer to the first. A map that stays \
                       would show the image's edges, not what was learnt."
                .to_string();
        Ok(Row { heading, figures })
    }

    /// Theoretical and effective receptive fields of a few layers' middle pixels.
    fn fields(&self) -> Result<Section> {
        let graph = &self.trace.model.graph;
        let convolutions: Vec<_> = graph
            .nodes()
            .iter()
            .filter(|node| matches!(node.layer, Layer::Conv2D(_) | Layer::DepthwiseConv2D(_)))
            .filter(|node| matches!(node.output_shape[..], [h, w, _] if h * w > 1))
            .collect();
        let last = convolutions.len().saturating_sub(1);
        let mut chosen: Vec<usize> = [0, last / 4, last / 2, last * 3 / 4, last].into();
        chosen.dedup();
        let mut figures = Vec::new();
        for node in chosen.into_iter().filter_map(|i| convolutions.get(i)) {
            let pixel = [node.output_shape[0] / 2, node.output_shape[1] / 2];
            let field = effective_receptive_field(self.trace.model, self.x, &node.name, pixel, None)?;
            let mut map = overlay(&field, ColourMap::Inferno, self.image, 0.75)?;
            let [rows, columns] = pixel_field(graph, &node.name, pixel)?;
            frame(&mut map, [rows.start, rows.end, columns.start, columns.end]);
            let (rows, columns, side) = (rows.len(), columns.len(), effective_size(&field));
            let note = format!(
                "({}, {}) can see {rows} × {columns} pixels, the frame; it listens to about {side:.0} × {side:.0}.",
                pixel[0], pixel[1]
            );
            figures.push(Figure::new(&map, &node.name, note)?);
        }
        let paragraphs = vec![
            "What the middle pixel of a feature map can see of the image, which follows from windows and \
             strides alone; and what it listens to: its gradient by each pixel of the image, which is brightest \
             in the middle and far smaller."
                .to_string(),
        ];
        let rows = vec![Row { heading: String::new(), figures }];
        Ok(("receptive", "Receptive fields".to_string(), fill(MAPS, &Maps { paragraphs, rows })?))
    }

    /// Which taps of each atrous branch touch data, and the mask without it.
    fn branches(&self) -> Result<Section> {
        let (whole, without) = without_branches(self.trace.model, self.x)?;
        let mut reach = Vec::new();
        let mut masks = vec![Figure::new(&self.masked(&whole)?, "All branches", "")?];
        for one in &without {
            let name = branch_name(one.branch.dilation, one.branch.kernel, one.branch.pools_image);
            let touching = taps(&self.trace.model.graph, &one.branch.convolution)?;
            let note =
                format!("{:.0} % of all taps of all pixels touch data.", touching.share() * 100.0);
            let title = format!("{name} ({})", one.branch.convolution);
            let uri = image_data_uri(&tap_image(&touching)?)?;
            reach.push(Figure { uri, title, note, signed: false });
            let note = format!("{:.1} % of the pixels are of another class.", one.changed * 100.0);
            masks.push(Figure::new(&self.masked(&one.mask)?, format!("Without {name}"), note)?);
        }
        let paragraphs = vec![
            "The branches of the atrous pyramid read one feature map, with taps further and further apart. \
             Where a tap falls outside the map it reads padding, zeros."
                .to_string(),
        ];
        let rows = vec![
            Row {
                heading: "Taps that touch data, per pixel: the brighter the more".to_string(),
                figures: reach,
            },
            Row { heading: "The mask with one branch switched off".to_string(), figures: masks },
        ];
        Ok(("branches", "Atrous branches".to_string(), fill(MAPS, &Maps { paragraphs, rows })?))
    }

    /// A mask over the image, in VOC's colours.
    fn masked(&self, mask: &Mask) -> Result<Image> {
        super::masked(self.image, mask)
    }

    /// What the network says of the image under attack, ε by ε.
    fn attack(&self) -> Result<Section> {
        let model = &for_inference(self.trace.model)?;
        let victim = Network::new(model, self.preprocess)?;
        let bytes: Vec<f32> = self.image.rgb.iter().map(|&v| f32::from(v) / 255.0).collect();
        let images = Images::whole(Tensor::from_slice(&bytes, self.x.shape())?);
        // Of large networks one step: the slider's many positions say more than a second one.
        let steps = match passes(model, SWEEP, 3 * EPSILONS.len() as u64, 0, 8) {
            0 | 1 => 0,
            steps => steps,
        };
        let swept = AttackSweep { steps, ..AttackSweep::default() }.attack(&victim, &images)?;
        let taken = if steps == 0 { &swept.fgsm } else { &swept.pgd };
        let frames = taken.iter().map(|step| self.frame(step)).collect::<Result<_>>()?;
        Ok(("attack", "Under attack".to_string(), fill(ATTACK, &Sweep { steps, frames })?))
    }

    fn frame(&self, step: &SweepStep) -> Result<Frame> {
        let mut values: Vec<f32> = step.x.to_vec_f64().into_iter().map(|v| v as f32 * 255.0).collect();
        let bytes = values.iter().map(|v| v.round() as u8).collect();
        let image = Image::new(self.image.height, self.image.width, bytes)?;
        self.preprocess.apply(&mut values);
        let x = Tensor::from_slice(&values, self.x.shape())?;
        let mut figures = vec![Figure::new(&image, "The image", "")?];
        if let Some(mask) = &step.mask {
            figures.push(Figure::new(&super::masked(&image, mask)?, "Its mask", "")?);
        }
        if let Ok(cam) = GradCam::default().attribute(self.trace.model, &x, &self.trace.target) {
            let map = cam.resized(image.height, image.width)?;
            let map = overlay(&map, ColourMap::Inferno, &image, 0.65)?;
            figures.push(Figure::new(&map, format!("Grad-CAM of {}", self.class()), "")?);
        }
        let name = |class: usize| self.classes.get(class).map_or("?", String::as_str);
        let says =
            step.top.iter().take(3).map(|&(class, p)| format!("{} {:.1} %", name(class), p * 100.0));
        let says = says.collect::<Vec<_>>().join(", ");
        let fooled = if step.fooled { ". Fooled" } else { "" };
        let epsilon = (step.epsilon * 255.0).round() as usize;
        Ok(Frame { epsilon, figures, says: format!("{says}{fooled}.") })
    }

    /// An image that a channel answers to most, made by gradient ascent.
    pub fn visualized(&self, layer: &str, channel: usize) -> Result<Section> {
        let settings = FeatureVisualization {
            steps: passes(self.trace.model, FLOPS, 3, 32, 128),
            ..FeatureVisualization::default()
        };
        let seen = settings.maximize(self.trace.model, layer, channel, self.preprocess)?;
        let note = format!(
            "The channel's mean rises from {:.3} for noise to {:.3}, in {} steps.",
            seen.before, seen.after, settings.steps
        );
        let figures = vec![Figure::new(&seen.image, format!("{layer}, channel {channel}"), note)?];
        let paragraphs = vec![
            "An image made for this channel: from noise, step by step up its gradient by the pixels."
                .to_string(),
        ];
        let rows = vec![Row { heading: String::new(), figures }];
        let heading = format!("What channel {channel} of {layer} answers to");
        Ok(("channel", heading, fill(MAPS, &Maps { paragraphs, rows })?))
    }
}

/// A number with three digits after the point, or four that count where these would be zeros.
fn text(v: f64) -> String {
    if v.abs() < 0.1 { format!("{v:.3e}") } else { format!("{v:.3}") }
}

/// How many passes of so many times a forward pass of a model a budget of FLOPs has room for, within bounds.
fn passes(model: &Model, budget: u64, cost: u64, least: usize, most: usize) -> usize {
    let of_network = model.graph.cost();
    let pass = of_network.flops + FLOPS_A_WEIGHT * of_network.parameters;
    ((budget / (pass * cost).max(1)) as usize).clamp(least, most)
}

fn branch_name([dilation, _]: [usize; 2], [kernel, _]: [usize; 2], pools_image: bool) -> String {
    match (pools_image, kernel) {
        (true, _) => "image pooling".to_string(),
        (_, 1) => "1×1".to_string(),
        _ => format!("3×3, dilation {dilation}"),
    }
}

/// How many taps touch data, pixel by pixel: enlarged, so that pixels are told apart.
fn tap_image(taps: &TapMap) -> Result<Image> {
    let most = (taps.kernel[0] * taps.kernel[1]) as f64;
    let scale = (112 / taps.width.max(1)).max(1);
    let counts = taps.counts();
    let (height, width) = (taps.height * scale, taps.width * scale);
    let colour = |i: usize| {
        let at = i / width / scale * taps.width + i % width / scale;
        ColourMap::Inferno.colour(0.1 + 0.85 * f64::from(counts[at]) / most)
    };
    Image::new(height, width, (0..height * width).flat_map(colour).collect())
}

/// A yellow frame around rows and columns of an image.
fn frame(image: &mut Image, [top, bottom, left, right]: [usize; 4]) {
    let (width, height) = (image.width, image.height);
    for y in top..bottom.min(height) {
        for x in left..right.min(width) {
            if y == top || x == left || y + 1 == bottom || x + 1 == right {
                image.rgb[(y * width + x) * 3..][..3].copy_from_slice(&[255, 210, 63]);
            }
        }
    }
}
