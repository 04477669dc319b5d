//! A score's gradients: by the images, and by what a layer makes of them.

use super::Target;
use crate::autograd::no_grad;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Mode, Model};
use crate::tensor::Tensor;

/// The logits of images [N, H, W, C], on the CPU and off the tape; an error where one is not finite.
pub(super) fn logits(model: &Model, x: &Tensor) -> Result<Tensor> {
    let x = x.to_device(model.device())?;
    let logits = no_grad(|| model.run(&x.detach(), Mode::infer()))?.logits;
    model.require_finite(&x, &logits)?;
    logits.to_device(Device::Cpu)
}

/// The score of each image.
pub(super) fn scores(model: &Model, x: &Tensor, target: &Target) -> Result<Vec<f64>> {
    target.scores(&logits(model, x)?)
}

/// The score of each image [N, H, W, C], and the gradients of all by the images. (The gradient of a score by
/// another image is 0.)
pub(super) fn by_images(model: &Model, x: &Tensor, target: &Target) -> Result<(Vec<f64>, Tensor)> {
    let leaf = x.to_device(model.device())?.leaf();
    let logits = model.run(&leaf, Mode::infer())?.logits;
    model.require_finite(&leaf, &logits)?;
    let gradient = logits.backward_from(target.upstream(&logits)?)?.take(&leaf);
    let gradient = gradient.ok_or_else(|| independent("the images"))?;
    Ok((target.scores(&logits)?, gradient.to_device(Device::Cpu)?))
}

/// What a layer makes of images, and the score's gradient by it.
///
/// The layer's output goes on as a leaf of the tape: only what comes after it is recorded, and its gradient
/// is kept as any leaf's is.
pub(super) fn by_layer(
    model: &Model,
    x: &Tensor,
    target: &Target,
    layer: &str,
) -> Result<(Tensor, Tensor)> {
    let x = x.to_device(model.device())?.detach();
    let mut leaf = None;
    let pass = model.run_edited(&x, Mode::infer(), &mut |name, output| {
        if name != layer {
            return Ok(output);
        }
        Ok(leaf.insert(output.leaf()).clone())
    })?;
    model.require_finite(&x, &pass.logits)?;
    let what = || independent(&format!("layer `{layer}`"));
    let leaf = leaf.ok_or_else(what)?;
    let gradient = pass.logits.backward_from(target.upstream(&pass.logits)?)?.take(&leaf);
    let gradient = gradient.ok_or_else(what)?;
    Ok((leaf.to_device(Device::Cpu)?, gradient.to_device(Device::Cpu)?))
}

fn independent(what: &str) -> Error {
    Error::argument("attribution", format!("the target's logits do not depend on {what}"))
}
