//! Attribution: which pixels, or which places of a feature map, spoke for a class.
//!
//! Each method is a struct of its settings, with `attribute(model, image, target)`, as in Captum. A
//! [`Target`] says which number of the network is explained.
//!
//! - [`GradCam`] (Selvaraju et al., 2017): which channels of a late layer raise the logit, and where they are
//!   active. One pass forward, part of one back.
//! - [`IntegratedGradients`] (Sundararajan et al., 2017): the gradient, summed on the way from a baseline to
//!   the image; the shares add up to the logit's change. 50 passes both ways, or more, or
//!   [as many as it takes](AdaptiveIntegratedGradients), where the logit changes.
//! - [`SmoothGrad`] (Smilkov et al., 2017): the gradient, mean of noisy copies of the image. 50 passes both
//!   ways.
//! - [`Occlusion`] (Zeiler and Fergus, 2014): how the logit falls when a window is covered, without
//!   gradients. A pass for each window.
//!
//! A map that looks right may be the image's edges and no more. The [`sanity_check()`] (Adebayo et al., 2018)
//! randomises the weights from the last layer to the first: a map that depends on them must change.

mod adaptive;
mod grad_cam;
mod gradients;
mod integrated_gradients;
mod occlusion;
mod quadrature;
mod sanity_check;
mod smooth_grad;

/// What each method takes: which number of the network is explained.
pub use crate::explain::target::Target;
pub use adaptive::AdaptiveIntegratedGradients;
pub use grad_cam::{GradCam, GradCamMap, last_feature_map};
pub use integrated_gradients::{IntegratedAttributions, IntegratedGradients};
pub use occlusion::{Occlusion, OcclusionMap};
pub use quadrature::Rule;
pub use sanity_check::{RandomizedStage, SanityCheck, sanity_check, spearman};
pub use smooth_grad::SmoothGrad;

use crate::error::{Error, Result};
use crate::nn::Model;
use crate::tensor::Tensor;

/// Attributions of values, [1, H, W, C], as those of pixels, [H, W]: the sum of each pixel's channels.
///
/// An error for another number of axes or more than one image.
pub fn of_pixels(attributions: &Tensor) -> Result<Tensor> {
    let [h, w, c] = one_image(attributions)?;
    let values = attributions.to_vec_f64();
    let sums: Vec<f32> = values.chunks_exact(c).map(|pixel| pixel.iter().sum::<f64>() as f32).collect();
    Tensor::from_slice(&sums, [h, w])
}

/// Height, width and channels of one image [1, H, W, C].
fn one_image(x: &Tensor) -> Result<[usize; 3]> {
    match x.shape()[..] {
        [1, h, w, c] if h * w * c > 0 => Ok([h, w, c]),
        _ => Err(Error::shape("attribution", "one image [1, height, width, channels]", x.shape())),
    }
}

/// How many images run together: more where one does not keep all cores busy, fewer where the activations of
/// many, which a backward pass keeps, would only fill memory.
fn batch_size(model: &Model) -> usize {
    const ROOM: u64 = 128 << 20;
    const MOST: u64 = 16;
    (ROOM / model.graph.cost().activation_bytes.max(1)).clamp(1, MOST) as usize
}

/// Images of these values, [N, H, W, C], of the type and on the device that the model computes in.
fn images_for(model: &Model, values: &[f64], [h, w, c]: [usize; 3]) -> Result<Tensor> {
    let dtype = model.parameters.first().map_or(crate::DType::F32, |first| first.value.dtype());
    let images = Tensor::from_slice(values, [values.len() / (h * w * c), h, w, c])?;
    images.to_dtype(dtype).to_device(model.device())
}

/// A whole number of at least 1.
fn at_least_one(what: &'static str, value: usize) -> Result<()> {
    match value {
        0 => Err(Error::argument(what, "expected at least 1, got 0")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
