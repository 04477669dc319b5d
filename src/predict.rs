//! From pictures to probabilities.

use crate::autograd::no_grad;
use crate::data::loader::Loader;
use crate::error::Result;
use crate::graph::{Model, Run, fold_batch_norm};

/// The network's outputs for a loader's samples, in its order: [samples, classes]. `progress` is
/// told the number of samples done after each batch.
pub fn probabilities(
    model: &Model,
    loader: &Loader,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    let model = fold_batch_norm(model, &[])?;
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
