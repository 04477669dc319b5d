//! Occlusion (Zeiler and Fergus, 2014): how the score falls when a window of the image is covered. It asks
//! the network itself and no gradient.

use super::gradients;
use super::{Target, batch_size, images_for, one_image};
use crate::error::{Error, Result};
use crate::nn::{Model, for_inference};
use crate::tensor::Tensor;
use std::ops::Range;

/// The settings of occlusion.
///
/// ```
/// use atrous::explain::attribution::{Occlusion, Target};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// let features = Layer::conv2d(4, 3).with_activation(Activation::Relu);
/// graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
/// let model = Model::new(graph, 1);
/// let image = Tensor::rand([1, 16, 16, 3], 7);
///
/// let occlusion = Occlusion { window: [4, 4], stride: [2, 2], fill: vec![0.5; 3] };
/// let map = occlusion.attribute(&model, &image, &Target::class(&model, 0)?)?;
/// assert_eq!((&map.drops.shape()[..], &map.attributions.shape()[..]), (&[7, 7][..], &[16, 16][..]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Occlusion {
    /// [height, width] of what is covered at a time, in pixels.
    pub window: [usize; 2],
    /// [y, x] from one window to the next, in pixels: at most the window, so that every pixel is covered.
    pub stride: [usize; 2],
    /// What covers it, one value a channel, in the network's scale.
    pub fill: Vec<f32>,
}

/// How much the score depends on each part of an image.
///
/// [`Occlusion`] has an example.
#[derive(Clone)]
pub struct OcclusionMap {
    /// [rows, columns] of windows: by how much the score falls when that one is covered.
    pub drops: Tensor,
    /// [H, W]: of each pixel the mean of the windows it lies in.
    pub attributions: Tensor,
    /// The score of the image as it is.
    pub score: f64,
}

impl Occlusion {
    /// The map of one image [1, H, W, C]; the last windows of an axis may reach beyond it. An error for
    /// windows or strides of 0, strides beyond the window, and another number of fill values than channels.
    pub fn attribute(&self, model: &Model, x: &Tensor, target: &Target) -> Result<OcclusionMap> {
        let shape @ [h, w, channels] = one_image(x)?;
        self.check(channels)?;
        let model = for_inference(model)?;
        let (rows, columns) = (self.windows(0, h), self.windows(1, w));
        let windows: Vec<(&Range<usize>, &Range<usize>)> =
            rows.iter().flat_map(|rows| columns.iter().map(move |columns| (rows, columns))).collect();
        let values = x.to_vec_f64();
        let score = gradients::scores(&model, &images_for(&model, &values, shape)?, target)?[0];
        let mut drops = Vec::with_capacity(windows.len());
        for windows in windows.chunks(batch_size(&model)) {
            let covered = |&(rows, columns): &(&Range<usize>, &Range<usize>)| {
                let mut image = values.clone();
                for pixel in pixels(rows, columns, w) {
                    let fill = self.fill.iter().map(|&fill| fill as f64);
                    image[pixel * channels..][..channels]
                        .iter_mut()
                        .zip(fill)
                        .for_each(|(v, fill)| *v = fill);
                }
                image
            };
            let images: Vec<f64> = windows.iter().flat_map(covered).collect();
            let scores = gradients::scores(&model, &images_for(&model, &images, shape)?, target)?;
            drops.extend(scores.into_iter().map(|covered| score - covered));
        }
        let (mut sums, mut counts) = (vec![0.0; h * w], vec![0.0; h * w]);
        for ((rows, columns), drop) in windows.iter().zip(&drops) {
            for pixel in pixels(rows, columns, w) {
                sums[pixel] += drop;
                counts[pixel] += 1.0;
            }
        }
        let means: Vec<f32> =
            sums.iter().zip(&counts).map(|(sum, count)| (sum / count) as f32).collect();
        let drops: Vec<f32> = drops.into_iter().map(|drop| drop as f32).collect();
        Ok(OcclusionMap {
            drops: Tensor::from_slice(&drops, [rows.len(), columns.len()])?,
            attributions: Tensor::from_slice(&means, [h, w])?,
            score,
        })
    }

    fn check(&self, channels: usize) -> Result<()> {
        let fits = |(&window, &stride): (&usize, &usize)| (1..=window).contains(&stride);
        if !self.window.iter().zip(&self.stride).all(fits) {
            let (window, stride) = (self.window, self.stride);
            let message = format!(
                "expected a stride from 1 to the window on each axis, got {stride:?} of {window:?}"
            );
            return Err(Error::argument("occlusion", message));
        }
        match self.fill.len() == channels {
            true => Ok(()),
            false => Err(Error::shape("occlusion", format!("{channels} fill values"), self.fill.len())),
        }
    }

    /// The windows along an axis of `n` pixels: the last is the first that reaches its end.
    fn windows(&self, axis: usize, n: usize) -> Vec<Range<usize>> {
        let (window, stride) = (self.window[axis], self.stride[axis]);
        let count = n.saturating_sub(window).div_ceil(stride) + 1;
        (0..count).map(|i| i * stride..(i * stride + window).min(n)).collect()
    }
}

fn pixels(rows: &Range<usize>, columns: &Range<usize>, width: usize) -> impl Iterator<Item = usize> {
    let columns = columns.clone();
    rows.clone().flat_map(move |y| columns.clone().map(move |x| y * width + x))
}
