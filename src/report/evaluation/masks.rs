//! The evaluation of masks: every pixel has one class.

use super::labels::BINS;
use super::{ClassScores, Evaluation, Sample};
use crate::data::{Classes, Dataset, Mask, VOID};
use crate::error::Result;
use crate::eval::metrics::{Calibration, Confusion};
use crate::predict::{MaskScores, MeasuredMask, Predictions};

impl Evaluation {
    /// Makes the masks of these samples, once, and scores them; `progress` is told how many are done. An
    /// error where none has a true mask.
    pub fn of_masks(
        predictions: &Predictions,
        dataset: &dyn Dataset,
        indices: &[usize],
        progress: &mut dyn FnMut(usize),
    ) -> Result<(MaskScores, Self)> {
        let (mut calibration, mut samples) = (Calibration::new(BINS), Vec::new());
        let scores = MaskScores::measure(predictions, dataset, indices, &mut |measured| {
            calibrate(&mut calibration, &measured)?;
            let id = dataset.id(indices[measured.place]);
            samples.push(sample(id, &measured, &dataset.classes())?);
            progress(measured.place + 1);
            Ok(())
        })?;
        let confusion = &scores.confusion;
        let n = confusion.classes();
        let mut evaluation = Evaluation {
            task: "segment".into(),
            images: scores.images,
            scores: [
                ("mean IoU", confusion.mean_iou()?),
                ("pixel accuracy", confusion.pixel_accuracy()?),
                ("mean Dice", confusion.mean_dice()?),
                ("Dice of the submission", scores.dice),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            classes: classes(confusion, &dataset.classes()),
            confusion: (0..n).map(|y| (0..n).map(|p| confusion.count(y, p)).collect()).collect(),
            samples,
            ..Evaluation::default()
        };
        evaluation.calibrate(&calibration);
        Ok((scores, evaluation))
    }
}

fn classes(confusion: &Confusion, names: &Classes) -> Vec<ClassScores> {
    let (n, ious) = (confusion.classes(), confusion.iou());
    let of_class = |c: usize| {
        let truth: u64 = (0..n).map(|p| confusion.count(c, p)).sum();
        let predicted: u64 = (0..n).map(|y| confusion.count(y, c)).sum();
        let both = confusion.count(c, c);
        ClassScores {
            name: names.of_mask(c as u8).into(),
            support: truth,
            true_positives: both,
            false_positives: predicted - both,
            false_negatives: truth - both,
            threshold: None,
            average_precision: None,
            iou: ious[c],
        }
    };
    (0..n).map(of_class).collect()
}

fn calibrate(calibration: &mut Calibration, measured: &MeasuredMask) -> Result<()> {
    let Some(confidence) = &measured.confidence else { return Ok(()) };
    let pixels = measured.truth.classes.iter().zip(&measured.mask.classes).zip(confidence);
    for ((&y, &p), &confidence) in pixels.filter(|((y, _), _)| **y != VOID) {
        calibration.add(confidence, y == p)?;
    }
    Ok(())
}

fn sample(id: String, measured: &MeasuredMask, classes: &Classes) -> Result<Sample> {
    let names = |mask: &Mask| {
        let labels = mask.labels(classes.len());
        classes.named(&labels).map(str::to_owned).collect()
    };
    Ok(Sample {
        id,
        // An image of nothing but void has no pixel that counts.
        score: measured.confusion.mean_iou().unwrap_or_default(),
        pixel_accuracy: measured.confusion.pixel_accuracy().ok(),
        truth: names(&measured.truth),
        predicted: names(&measured.mask),
        ..Sample::default()
    })
}
