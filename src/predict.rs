//! From pictures to probabilities, and to masks.

use crate::autograd::no_grad;
use crate::data::image::{self, Fit};
use crate::data::loader::Loader;
use crate::data::{Mask, Picture};
use crate::error::Result;
use crate::graph::{Model, Run, for_inference};
use crate::metrics::arg_max;
use crate::ops::{Method, resize};
use crate::tensor::Tensor;

/// The network's outputs for a loader's samples, in its order: [samples, classes]. `progress` is
/// told the number of samples done after each batch.
pub fn probabilities(
    model: &Model,
    loader: &Loader,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    let model = for_inference(model)?;
    let mut all = Vec::new();
    let mut done = 0;
    no_grad(|| {
        for batch in loader.epoch(0, 0)? {
            let batch = batch?;
            let output = model.run(&batch.images, Run::infer())?.output;
            all.extend_from_slice(output.values::<f32>());
            done += batch.indices.len();
            progress(done);
        }
        Ok(all)
    })
}

/// Labels the pixels of pictures of any size.
pub struct Segmenter {
    model: Model,
    preprocess: image::Preprocess,
    fit: Fit,
}

impl Segmenter {
    /// A network of logits for every pixel, and how its pictures are prepared.
    pub fn new(model: &Model, preprocess: image::Preprocess, fit: Fit) -> Result<Self> {
        Ok(Segmenter { model: for_inference(model)?, preprocess, fit })
    }

    /// The class of each pixel. The logits are scaled up to the picture's own size before the
    /// largest is taken, so that borders do not come in blocks.
    pub fn mask(&self, picture: &Picture) -> Result<Mask> {
        let size = self.model.graph.nodes()[0].output_shape[0];
        let mut values = image::fit(picture, size, self.fit)?;
        self.preprocess.apply(&mut values);
        let x = Tensor::from_slice(&values, [1, size, size, 3])?;
        let logits = no_grad(|| self.model.run(&x, Run::infer()))?.logits;
        let classes = logits.shape().last_axis();
        // Only where the picture was laid: a padded square has a border that is not its own.
        let at = self.fit.placement(picture.height, picture.width, size);
        let rows = (at.top..at.top + at.height).flat_map(|y| {
            let first = (y * size + at.left) * classes;
            logits.values::<f32>()[first..first + at.width * classes].iter().copied()
        });
        let inner: Vec<f32> = rows.collect();
        let inner = Tensor::from_slice(&inner, [1, at.height, at.width, classes])?;
        let full = no_grad(|| resize(&inner, picture.height, picture.width, Method::Bilinear))?;
        let labels = full.values::<f32>().chunks(classes).map(|row| arg_max(row) as u8).collect();
        Mask::new(picture.height, picture.width, labels)
    }
}
