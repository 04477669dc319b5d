//! What a channel answers to: an image made by gradient ascent (Olah, Mordvintsev and Schubert, 2017).
//!
//! From noise, each step changes the image so that the mean of a channel rises. Left alone, that finds a
//! pattern of single pixels that no camera takes. Three things keep it from there:
//!
//! - the image is a sum of images at ever smaller sizes, coarse ones counted more (as spectra of photographs
//!   fall with 1/f), so that steps change large shapes first (the paper's preconditioning);
//! - jitter: the network sees it shifted by some pixels in each step, so that no pixel counts for itself;
//! - decay: in each step the image goes a little back to grey, so that only what is asked for in step after
//!   step stays (Simonyan, Vedaldi and Zisserman, 2014).

use super::layers::{find, up_to};
use crate::autograd::no_grad;
use crate::data::Image;
use crate::data::image::Preprocess;
use crate::error::{Error, Result};
use crate::nn::{Mode, Model, for_inference};
use crate::ops::{Method, resize};
use crate::optimizers::Optimizer;
use crate::random::{Stream, domain};
use crate::tensor::Tensor;

/// The settings of feature visualisation.
///
/// ```
/// use atrous::data::image::Preprocess;
/// use atrous::explain::feature_visualization::FeatureVisualization;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// graph.chain(graph.input(), [Layer::conv2d(4, 3).with_activation(Activation::Relu)])?;
/// let model = Model::new(graph, 1);
///
/// let settings = FeatureVisualization { steps: 20, ..FeatureVisualization::default() };
/// let seen = settings.maximize(&model, "conv2d", 2, Preprocess::Symmetric)?;
/// assert!(seen.after > seen.before);
/// assert_eq!((seen.image.height, seen.image.width), (16, 16));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureVisualization {
    /// Steps up the gradient, by Adam; 128 by default.
    pub steps: usize,
    /// Adam's, 0.1 by default, of numbers whose sigmoid is the image.
    pub learning_rate: f32,
    /// The most pixels it is shifted by on either axis, in either direction; 8 by default.
    pub jitter: usize,
    /// The share of the image's difference from grey that is taken away in each step, 0 to 1; 0.01 by
    /// default.
    pub decay: f32,
    /// Draws the first image and the shifts.
    pub seed: u64,
}

impl Default for FeatureVisualization {
    fn default() -> Self {
        FeatureVisualization { steps: 128, learning_rate: 0.1, jitter: 8, decay: 0.01, seed: 0 }
    }
}

/// An image that a channel answers to.
///
/// [`FeatureVisualization`] has an example.
#[derive(Clone, Debug, PartialEq)]
pub struct VisualizedFeature {
    /// Of the network's size.
    pub image: Image,
    /// The mean of the channel over its places for the noise at first.
    pub before: f64,
    /// That for the image.
    pub after: f64,
    /// The means that each step began with, of shifted images.
    pub history: Vec<f64>,
}

/// Images of half the sides, again and again, down to some pixels: so many in all.
const LEVELS: u32 = 5;

impl FeatureVisualization {
    /// Makes an image that raises a channel of a layer, by name. (Of a dense layer, a unit; of logits, a
    /// class.) `preprocess` is what the network's weights expect of pixels. An error for a layer or channel
    /// that there is not, for an input of other than three channels, and for settings out of range.
    pub fn maximize(
        &self,
        model: &Model,
        layer: &str,
        channel: usize,
        preprocess: Preprocess,
    ) -> Result<VisualizedFeature> {
        let feature = Feature::new(model, layer, channel, preprocess)?;
        self.check()?;
        let mut stream = Stream::new(self.seed, &[domain::EXPLAIN, 1]);
        let mut pyramid = self.noise(&feature, &mut stream)?;
        let first = no_grad(|| self.middle(&feature, &pyramid))?;
        let before = no_grad(|| feature.activation(&first)?.item())?;
        let mut adam = Optimizer::adam(self.learning_rate)?;
        let mut history = Vec::with_capacity(self.steps);
        for _ in 0..self.steps {
            let shift = [0; 2].map(|_| stream.below(2 * self.jitter + 1));
            let image = self.seen(&feature, &pyramid, shift)?;
            let activation = feature.activation(&image)?;
            history.push(activation.item()?);
            adam.step(&mut pyramid, &(-activation)?.backward()?)?;
            for level in &mut pyramid {
                *level = no_grad(|| (1.0 - self.decay as f64) * &*level)?.leaf();
            }
        }
        let image = no_grad(|| self.middle(&feature, &pyramid))?;
        let after = no_grad(|| feature.activation(&image)?.item())?;
        let rgb = image.to_vec_f64().into_iter().map(|v| (v * 255.0).round() as u8).collect();
        let image = Image::new(feature.sides[0], feature.sides[1], feature.in_rgb(rgb))?;
        Ok(VisualizedFeature { image, before, after, history })
    }

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.decay) {
            return Err(Error::argument("decay", format!("expected 0 to 1, got {}", self.decay)));
        }
        match self.jitter <= 1024 {
            true => Ok(()),
            false => {
                Err(Error::argument("jitter", format!("expected at most 1024, got {}", self.jitter)))
            }
        }
    }

    /// Images [1, h, w, 3] around 0 at each size, from the image's own (with room for shifts) down.
    fn noise(&self, feature: &Feature, stream: &mut Stream) -> Result<Vec<Tensor>> {
        let level = |level: u32| {
            let [h, w] = feature.sides.map(|side| ((side + 2 * self.jitter) >> level).max(1));
            let values: Vec<f32> = (0..h * w * 3).map(|_| 0.1 * stream.normal()).collect();
            Ok(Tensor::from_slice(&values, [1, h, w, 3])?.to_device(feature.model.device())?.leaf())
        };
        (0..LEVELS).map(level).collect()
    }

    /// The image as the network sees it, shifted: [1, h, w, 3], 0 to 1.
    fn seen(&self, feature: &Feature, pyramid: &[Tensor], [dy, dx]: [usize; 2]) -> Result<Tensor> {
        let [h, w] = feature.sides;
        let mut sum: Option<Tensor> = None;
        for (level, image) in (0..).zip(pyramid) {
            let image = resize(image, h + 2 * self.jitter, w + 2 * self.jitter, Method::Bilinear)?;
            let image = (2f64.powi(level) * image)?;
            sum = Some(match sum {
                Some(sum) => (sum + image)?,
                None => image,
            });
        }
        let sum = sum.ok_or_else(|| Error::argument("feature visualization", "expected a level"))?;
        // The coarsest level counts once.
        let sum = (0.5f64.powi(LEVELS as i32 - 1) * sum)?;
        sum.slice([0..1, dy..dy + h, dx..dx + w])?.sigmoid()
    }

    fn middle(&self, feature: &Feature, pyramid: &[Tensor]) -> Result<Tensor> {
        self.seen(feature, pyramid, [self.jitter; 2])
    }
}

/// The channel of a layer, as a function of images from 0 to 1.
struct Feature {
    /// Ends in the layer.
    model: Model,
    channel: usize,
    sides: [usize; 2],
    preprocess: Preprocess,
    /// `[3]`, in the network's order of channels: its value for 0, and what is added to that for 1.
    low: Tensor,
    range: Tensor,
}

impl Feature {
    fn new(model: &Model, layer: &str, channel: usize, preprocess: Preprocess) -> Result<Self> {
        let node = model.graph.node(find(&model.graph, layer)?);
        let channels = node.output_shape.last().copied().unwrap_or(0);
        if channel >= channels {
            let message = format!("expected one below {channels} of `{layer}`, got {channel}");
            return Err(Error::argument("channel", message));
        }
        let &[h, w, 3] = &model.graph.node(model.graph.input()).output_shape[..] else {
            let shape = &model.graph.node(model.graph.input()).output_shape;
            let expected = "a network of images [height, width, 3]";
            return Err(Error::shape("feature visualization", expected, format!("{shape:?}")));
        };
        let [mut low, mut high] = [[0.0f32; 3], [255.0; 3]];
        preprocess.apply(&mut low);
        preprocess.apply(&mut high);
        let range: [f32; 3] = std::array::from_fn(|i| high[i] - low[i]);
        let device = model.device();
        Ok(Feature {
            model: for_inference(&up_to(model, layer)?)?,
            channel,
            sides: [h, w],
            preprocess,
            low: Tensor::from(low).to_device(device)?,
            range: Tensor::from(range).to_device(device)?,
        })
    }

    /// What the layer makes of an image; logits, where it makes probabilities of them.
    fn output(&self, image: &Tensor) -> Result<Tensor> {
        let x = (image * &self.range + &self.low)?;
        Ok(self.model.run(&x, Mode::infer())?.logits)
    }

    /// The mean of the channel over all places, as a scalar.
    fn activation(&self, image: &Tensor) -> Result<Tensor> {
        let output = self.output(image)?;
        let mut ranges: Vec<_> = output.shape().iter().map(|&length| 0..length).collect();
        if let Some(channels) = ranges.last_mut() {
            *channels = self.channel..self.channel + 1;
        }
        output.slice(ranges)?.mean()
    }

    /// Pixels in the network's order of channels as RGB.
    fn in_rgb(&self, mut pixels: Vec<u8>) -> Vec<u8> {
        if self.preprocess == Preprocess::Caffe {
            pixels.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
        }
        pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Graph;
    use crate::nn::layers::Layer;

    /// A layer whose channel is the red of a pixel less its green, in the scale of the network.
    fn red_less_green() -> Model {
        let mut graph = Graph::new("colours", "input", [12, 16, 3]);
        graph.chain(graph.input(), [Layer::conv2d(2, 1).with_bias(false)]).unwrap();
        let kernel = [0.0f32, 1.0, 0.0, -1.0, 0.0, 0.0];
        Model::with(graph, |_, shape, _| Tensor::from_slice(&kernel, shape).unwrap())
    }

    #[test]
    fn a_channel_of_a_colour_is_answered_by_that_colour() {
        let settings = FeatureVisualization { learning_rate: 0.2, ..FeatureVisualization::default() };
        let seen = settings.maximize(&red_less_green(), "conv2d", 1, Preprocess::Symmetric).unwrap();
        // At most 1 − (−1).
        assert!(seen.before.abs() < 0.2 && seen.after > 1.5, "{} {}", seen.before, seen.after);
        assert_eq!(seen.history.len(), 128);
        assert!(seen.image.rgb.chunks_exact(3).all(|pixel| pixel[0] > 200 && pixel[1] < 55));
        // The first channel of Caffe's images is blue; no channel is cut at 0 or 255.
        let seen = settings.maximize(&red_less_green(), "conv2d", 1, Preprocess::Caffe).unwrap();
        assert!(seen.image.rgb.chunks_exact(3).all(|pixel| pixel[2] > 200 && pixel[1] < 55));
    }

    #[test]
    fn the_same_seed_makes_the_same_image_and_another_one_another() {
        let of = |seed| {
            let settings = FeatureVisualization { steps: 3, seed, ..FeatureVisualization::default() };
            settings.maximize(&red_less_green(), "conv2d", 1, Preprocess::Unit).unwrap()
        };
        assert!(of(1) == of(1) && of(1).image != of(2).image);
    }

    #[test]
    fn decay_keeps_an_image_near_grey() {
        let contrast = |decay| {
            let settings = FeatureVisualization { decay, ..FeatureVisualization::default() };
            let seen = settings.maximize(&red_less_green(), "conv2d", 1, Preprocess::Unit).unwrap();
            seen.image.rgb.iter().map(|&v| (v as f64 - 127.5).abs()).sum::<f64>()
        };
        let [free, held, none] = [0.0, 0.1, 1.0].map(contrast);
        assert!(held < 0.7 * free && none < 0.01 * free, "{free} {held} {none}");
    }

    #[test]
    fn what_there_is_not_is_an_error_that_names_it() {
        let of = |layer, channel, settings: FeatureVisualization| {
            settings
                .maximize(&red_less_green(), layer, channel, Preprocess::Unit)
                .unwrap_err()
                .to_string()
        };
        let settings = FeatureVisualization::default();
        assert!(of("conv2d_9", 0, settings).contains("got `conv2d_9`"));
        assert!(of("conv2d", 2, settings).contains("expected one below 2 of `conv2d`, got 2"));
        let negative = FeatureVisualization { decay: -1.0, ..settings };
        assert!(of("conv2d", 0, negative).contains("expected 0 to 1, got -1"));
        let far = FeatureVisualization { jitter: 4000, ..settings };
        assert!(of("conv2d", 0, far).contains("at most 1024, got 4000"));
    }
}
