//! The effective receptive field (Luo et al., 2016): what a value listens to, of all that it can see.

use super::check_pixel;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::explain::layers::up_to;
use crate::nn::{Mode, Model, for_inference};
use crate::tensor::Tensor;

/// The effective receptive field of a layer's pixel [y, x]: the size of the gradient of its values' sum by
/// each pixel of the image (summed over the image's channels), mean over the images x [N, H, W, C]; [H, W].
/// With a `channel`, of that one's value alone.
///
/// An error for a layer that is no feature map, and a pixel or channel beyond it.
///
/// ```
/// use atrous::explain::receptive_field::{effective_receptive_field, effective_size};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [32, 32, 3]);
/// let convolution = Layer::conv2d(4, 3).with_padding(Padding::Same);
/// graph.chain(graph.input(), [convolution; 6])?;
/// let model = Model::new(graph, 1);
/// let images = Tensor::randn([2, 32, 32, 3], 7);
/// let field = effective_receptive_field(&model, &images, "conv2d_5", [16, 16], None)?;
/// // Of the 13×13 pixels that it can see, it listens to fewer.
/// assert!(effective_size(&field) < 13.0);
/// # Ok::<(), Error>(())
/// ```
pub fn effective_receptive_field(
    model: &Model,
    x: &Tensor,
    layer: &str,
    pixel: [usize; 2],
    channel: Option<usize>,
) -> Result<Tensor> {
    let [h, w, channels] = check_pixel(&model.graph, layer, pixel)?;
    if let Some(channel) = channel.filter(|&channel| channel >= channels) {
        let message = format!("expected one below {channels} of `{layer}`, got {channel}");
        return Err(Error::argument("channel", message));
    }
    let model = for_inference(&up_to(model, layer)?)?;
    let leaf = x.to_device(model.device())?.leaf();
    let output = model.run(&leaf, Mode::infer())?.output;
    let mut upstream = vec![0.0f32; h * w * channels];
    let at = (pixel[0] * w + pixel[1]) * channels;
    let wanted = channel.map_or(0..channels, |channel| channel..channel + 1);
    upstream[at + wanted.start..at + wanted.end].fill(1.0);
    let upstream = Tensor::from_slice(&upstream.repeat(x.shape()[0]), output.shape())?;
    let upstream = upstream.to_dtype(output.dtype()).to_device(output.device())?;
    let gradient = output.backward_from(upstream)?.take(&leaf);
    let gradient = gradient
        .ok_or_else(|| Error::argument("layer", format!("`{layer}` does not depend on the images")))?;
    mean_size(&gradient.to_device(Device::Cpu)?)
}

/// [N, H, W, C] → [H, W]: sizes, summed over channels, mean over images.
fn mean_size(gradient: &Tensor) -> Result<Tensor> {
    let &[n, h, w, c] = &*gradient.shape() else {
        return Err(Error::shape("receptive field", "images [N, H, W, C]", gradient.shape()));
    };
    let mut map = vec![0.0; h * w];
    for image in gradient.to_vec_f64().chunks_exact(h * w * c) {
        for (mean, pixel) in map.iter_mut().zip(image.chunks_exact(c)) {
            *mean += pixel.iter().map(|g| g.abs()).sum::<f64>() / n as f64;
        }
    }
    Tensor::from_slice(&map.iter().map(|&v| v as f32).collect::<Vec<_>>(), [h, w])
}

/// The side of a square of as many pixels as a map [H, W] has above 4.55 % of its largest (Luo et al.:
/// outside two standard deviations of a normal distribution).
///
/// ```
/// use atrous::Tensor;
/// use atrous::explain::receptive_field::effective_size;
///
/// let map = Tensor::from([[0.0f32, 0.0, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 0.0]]);
/// assert_eq!(effective_size(&map), 2.0); // four pixels, as many as a square of 2 × 2
/// ```
pub fn effective_size(map: &Tensor) -> f64 {
    let values = map.to_vec_f64();
    let most = values.iter().copied().fold(0.0, f64::max);
    let counted = values.iter().filter(|&&value| most > 0.0 && value > 0.0455 * most).count();
    (counted as f64).sqrt()
}
