//! From images to probabilities ([`probabilities`]), to masks ([`Segmenter`]), and to what a submission
//! says of an image (`Predictions`).

mod masks;
#[cfg(feature = "checkpoint")]
mod networks;
pub mod quickshift;
#[cfg(feature = "checkpoint")]
mod scores;
pub mod submission;
pub mod thresholds;

pub use masks::{MaskOptions, Segmenter, masks_of};
#[cfg(feature = "checkpoint")]
pub use networks::{Networks, Prediction, Predictions, THRESHOLD, Trained, fit_thresholds, locate};
#[cfg(feature = "checkpoint")]
pub use scores::{MaskScores, MeasuredMask};

use crate::context::no_grad;
use crate::data::loader::Loader;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Mode, Model, for_inference};

/// The network's outputs for a loader's samples, in its order: [samples, classes]. `progress` is
/// told the number of samples done after each batch. An error where an image cannot be read, or a logit is
/// not finite.
///
/// ```
/// use atrous::data::loader::Loader;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::data::transforms::Transforms;
/// use atrous::predict::probabilities;
/// use atrous::prelude::*;
/// use std::sync::Arc;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let classify = Layer::dense(20).with_activation(Activation::Sigmoid);
/// graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, classify])?;
/// let loader = Loader::new(Arc::new(Synthetic::test(7, 3)), Transforms::plain(8), 2); // batches of 2
/// let mut done = Vec::new();
/// let rows = probabilities(&Model::new(graph, 1), &loader, &mut |samples| done.push(samples))?;
/// assert_eq!((rows.len(), done), (3 * 20, vec![2, 3]));
/// assert!(rows.iter().all(|p| (0.0..=1.0).contains(p)));
/// # Ok::<(), Error>(())
/// ```
pub fn probabilities(
    model: &Model,
    loader: &Loader,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    let original = model;
    let model = for_inference(original)?;
    let mut all = Vec::new();
    let mut done = 0;
    no_grad(|| {
        for batch in loader.epoch(0, 0)? {
            let batch = batch?;
            let images = batch.images.to_device(model.device())?;
            let pass = model.run(&images, Mode::infer())?;
            original.require_finite(&images, &pass.logits)?;
            let output = pass.output.to_device(Device::Cpu)?;
            all.extend_from_slice(output.values::<f32>());
            done += batch.indices.len();
            progress(done);
        }
        Ok(all)
    })
}
