//! SmoothGrad (Smilkov et al., 2017): the gradient by the image, without its flicker.
//!
//! The gradient of a network with ReLUs jumps from pixel to pixel and from image to image. Its mean over
//! copies of the image with noise is that of a smoothed network: (1/n) Σ ∂y/∂x (x + N(0, σ²)).

use super::gradients;
use super::{Target, at_least_one, batch_size, images_for, one_image};
use crate::error::{Error, Result};
use crate::nn::{Model, for_inference};
use crate::random::{Stream, domain};
use crate::tensor::Tensor;

/// The settings of SmoothGrad.
///
/// ```
/// use atrous::explain::attribution::{SmoothGrad, Target};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// let features = Layer::conv2d(4, 3).with_activation(Activation::Relu);
/// graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
/// let model = Model::new(graph, 1);
/// let image = Tensor::rand([1, 16, 16, 3], 7);
///
/// let gradient = SmoothGrad::default().attribute(&model, &image, &Target::class(&model, 0)?)?;
/// assert_eq!(gradient.shape()[..], [1, 16, 16, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SmoothGrad {
    /// Copies with noise, at least 1; 50 by default. One without noise gives the plain gradient (Simonyan,
    /// Vedaldi and Zisserman, 2014).
    pub samples: usize,
    /// σ as a share of the range of the image's values; the paper takes 0.1 to 0.2.
    pub noise_level: f64,
    /// Draws the noise.
    pub seed: u64,
}

impl Default for SmoothGrad {
    fn default() -> Self {
        SmoothGrad { samples: 50, noise_level: 0.15, seed: 0 }
    }
}

impl SmoothGrad {
    /// The mean gradient of the score by one image [1, H, W, C], of its shape. An error for no samples, a
    /// noise level below 0, and what is not finite.
    pub fn attribute(&self, model: &Model, x: &Tensor, target: &Target) -> Result<Tensor> {
        let shape = one_image(x)?;
        at_least_one("samples", self.samples)?;
        if !(self.noise_level >= 0.0 && self.noise_level.is_finite()) {
            let message = format!("expected at least 0, got {}", self.noise_level);
            return Err(Error::argument("noise level", message));
        }
        let model = for_inference(model)?;
        let values = x.to_vec_f64();
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        let deviation = self.noise_level * (high - low);
        let noisy = |sample: usize| {
            // By its number alone, so that it does not depend on how many run together.
            let mut stream = Stream::new(self.seed, &[domain::EXPLAIN, sample as u64]);
            values.iter().map(|v| v + deviation * stream.normal() as f64).collect::<Vec<f64>>()
        };
        let mut mean = vec![0.0; values.len()];
        let samples: Vec<usize> = (0..self.samples).collect();
        for samples in samples.chunks(batch_size(&model)) {
            let images: Vec<f64> = samples.iter().flat_map(|&sample| noisy(sample)).collect();
            let (_, gradient) =
                gradients::by_images(&model, &images_for(&model, &images, shape)?, target)?;
            for gradient in gradient.to_vec_f64().chunks_exact(values.len()) {
                mean.iter_mut().zip(gradient).for_each(|(mean, g)| *mean += g / self.samples as f64);
            }
        }
        Tensor::from_slice(&mean.iter().map(|&g| g as f32).collect::<Vec<_>>(), x.shape())
    }
}
