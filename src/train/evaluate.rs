//! Scores of a network on samples whose truth is known.

use crate::context::no_grad;
use crate::data::VOID;
use crate::data::loader::Loader;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::{self, Confusion};
use crate::losses::Loss;
use crate::nn::{Mode, Model, for_inference};
use crate::tensor::Tensor;

/// The share of rows whose largest output is at their first label; of pixels, void ones apart, whose
/// largest output is their class.
pub(super) fn accuracy(targets: &Tensor, output: &Tensor) -> Result<f64> {
    let columns = output.shape().last_length();
    let (all, right) = metrics::count_right(targets.values(), output.values(), columns, VOID as f32)?;
    Ok(right as f64 / all.max(1) as f64)
}

/// Scores on a loader's samples.
pub struct Scores {
    /// None where no pixel of a segmentation is to be judged: all masks are void.
    pub loss: Option<f64>,
    /// Categorical accuracy; of a segmentation the pixel accuracy, None as the loss is.
    pub accuracy: Option<f64>,
    /// A classifier's mean average precision; None where no class has a positive sample.
    pub map: Option<f64>,
    /// A classifier's output, `[samples, classes]`, in the loader's order; empty for a
    /// segmentation.
    pub probabilities: Vec<f32>,
    /// The truth to `probabilities`, of the same shape: 0 or 1.
    pub labels: Vec<f32>,
    /// A segmentation's truth against prediction, pixel by pixel at the network's size.
    pub confusion: Option<Confusion>,
}

/// Runs the network, rewritten for speed, over a loader in order: no augmentation of its own, no
/// class weights.
///
/// ```
/// use atrous::data::loader::Loader;
/// use atrous::data::transforms::Transforms;
/// use atrous::data::{Dataset, synthetic::Synthetic};
/// use atrous::losses::Loss;
/// use atrous::prelude::*;
/// use atrous::train::evaluate;
/// use std::sync::Arc;
///
/// // A network that says ½ of every class of every image.
/// let mut graph = Graph::new("unsure", "input", [8, 8, 3]);
/// let dense = Layer::dense(20).with_activation(Activation::Sigmoid);
/// graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, dense])?;
/// let model = Model::with(graph, |_, shape, _| Tensor::zeros(shape));
///
/// let dataset = Arc::new(Synthetic::train(1, 3));
/// let scores = evaluate(&model, Loss::BinaryCrossentropy, &Loader::new(dataset, Transforms::plain(8), 4))?;
/// assert_eq!((scores.probabilities.len(), scores.probabilities[0]), (3 * 20, 0.5));
/// assert!((scores.loss.unwrap() - std::f64::consts::LN_2).abs() < 1e-6);
/// assert!(scores.confusion.is_none()); // which is a segmentation's
/// # Ok::<(), Error>(())
/// ```
pub fn evaluate(model: &Model, loss: Loss, loader: &Loader) -> Result<Scores> {
    let (original, device) = (model, model.device());
    let model = for_inference(original)?;
    let segments = matches!(loss, Loss::SparseCategoricalCrossentropy { .. });
    let (mut loss_sum, mut accuracy_sum, mut samples) = (0.0, 0.0, 0.0);
    let (mut probabilities, mut labels) = (Vec::new(), Vec::new());
    let mut confusion = segments.then(|| Confusion::of_masks(loader.dataset.classes().len()));
    let mut columns = 1;
    no_grad(|| {
        for batch in loader.epoch(0, 0)? {
            let batch = batch?;
            let n = batch.indices.len() as f64;
            let images = batch.images.to_device(device)?;
            let pass = model.run(&images, Mode::infer())?;
            original.require_finite(&images, &pass.logits)?;
            let targets = batch.targets(segments)?;
            loss_sum += n * loss.from_logits(&pass.logits, &targets.to_device(device)?, None)?.item()?;
            let output = pass.output.to_device(Device::Cpu)?;
            columns = output.shape().last_length();
            samples += n;
            match &mut confusion {
                Some(confusion) => {
                    let scores = output.values::<f32>().chunks(columns);
                    let predicted: Vec<u8> = scores.map(|row| metrics::arg_max(row) as u8).collect();
                    let truth: Vec<u8> = targets.values::<f32>().iter().map(|&v| v as u8).collect();
                    confusion.add(&truth, &predicted)?;
                }
                None => {
                    accuracy_sum += n * accuracy(targets, &output)?;
                    probabilities.extend_from_slice(output.values::<f32>());
                    labels.extend_from_slice(targets.values::<f32>());
                }
            }
        }
        Ok::<_, Error>(())
    })?;
    if samples == 0.0 {
        return Err(Error::argument("evaluate", "there is no sample to score"));
    }
    let (accuracy, map) = match &confusion {
        Some(confusion) => (confusion.pixel_accuracy().ok(), None),
        None => {
            let map = mean_average_precision(&labels, &probabilities, columns)?;
            (Some(accuracy_sum / samples), map)
        }
    };
    let loss = accuracy.map(|_| loss_sum / samples);
    Ok(Scores { loss, accuracy, map, probabilities, labels, confusion })
}

/// Mean average precision over the classes that occur; None where none does.
fn mean_average_precision(labels: &[f32], probabilities: &[f32], columns: usize) -> Result<Option<f64>> {
    let interpolation = metrics::Interpolation::default();
    let each = metrics::average_precisions(labels, probabilities, columns, interpolation)?;
    let known: Vec<f64> = each.into_iter().flatten().collect();
    Ok((!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64))
}
