//! The evaluation of masks: every pixel has one class.

use super::curves::{ALL, points};
use super::labels::BINS;
use super::{ClassScores, Evaluation, Sample};
use crate::data::{Classes, Dataset, Mask, VOID};
use crate::error::Result;
use crate::eval::metrics::{BinnedRanking, Calibration, Confusion};
use crate::predict::{MaskScores, MeasuredMask, Predictions};

impl Evaluation {
    /// Makes the masks of these samples, once, and scores them; `progress` is told how many are done. An
    /// error where none has a true mask.
    ///
    /// ```
    /// # use atrous::data::Dataset;
    /// # use atrous::data::synthetic::Synthetic;
    /// # use atrous::models::Spec;
    /// # use atrous::predict::{MaskOptions, Networks, Trained};
    /// # use atrous::prelude::*;
    /// # use atrous::report::evaluation::Evaluation;
    /// # use atrous::train::TrainConfig;
    /// # use std::sync::Arc;
    /// // In place of what training leaves: a network to which all is background.
    /// let mut graph = Graph::new("background", "input", [16, 16, 3]);
    /// graph.add(Layer::conv2d(21, 1), &[graph.input()])?;
    /// let mut model = Model::new(graph, 1);
    /// model.set("conv2d/kernel", Tensor::zeros([1, 1, 3, 21]))?;
    /// # let (config, checksum) = (TrainConfig::new(Spec::new("deeplabv3plus", 16, 21)), String::new());
    /// # let trained = Trained { model, config, thresholds: None, path: "mine".into(), checksum };
    /// let networks = Networks { classifier: None, segmenter: Some(trained) };
    /// let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::test(7, 1));
    /// let predictions = networks.predict(&dataset, &[0], &MaskOptions::default(), None, &mut |_| {})?;
    /// let (scores, evaluation) = Evaluation::of_masks(&predictions, &*dataset, &[0], &mut |_| {})?;
    /// let background = &evaluation.classes[0];
    /// assert_eq!(background.false_negatives, 0);
    /// assert_eq!(Some(scores.confusion.pixel_accuracy()?), background.precision()); // all was said to be it
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of_masks(
        predictions: &Predictions,
        dataset: &dyn Dataset,
        indices: &[usize],
        progress: &mut dyn FnMut(usize),
    ) -> Result<(MaskScores, Self)> {
        let (mut calibration, mut samples) = (Calibration::new(BINS), Vec::new());
        let mut rankings = vec![BinnedRanking::default(); dataset.classes().len() + 1];
        let scores = MaskScores::measure(predictions, dataset, indices, &mut |measured| {
            count(&measured, &mut calibration, &mut rankings)?;
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
        evaluation.rank(&rankings);
        Ok((scores, evaluation))
    }

    /// Average precision over pixels and its curves, class by class; nothing where no probability was
    /// counted.
    fn rank(&mut self, rankings: &[BinnedRanking]) {
        let mut all = BinnedRanking::default();
        rankings.iter().for_each(|ranking| all.merge(ranking));
        let curve = all.precision_recall_curve();
        if curve.is_empty() {
            return;
        }
        self.precision_recall.push(points(ALL, &curve));
        for (class, ranking) in self.classes.iter_mut().zip(rankings) {
            class.average_precision = ranking.average_precision();
            self.average_precision_error = self.average_precision_error.max(ranking.error_bound());
            self.precision_recall.push(points(&class.name, &ranking.precision_recall_curve()));
        }
        let present: Vec<f64> =
            self.classes.iter().filter_map(|class| class.average_precision).collect();
        let mean = present.iter().sum::<f64>() / present.len().max(1) as f64;
        self.scores.push(("mean average precision of pixels".into(), mean));
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

/// Counts an image's pixels, where there are probabilities: how sure each is, and how each class ranks it.
fn count(
    measured: &MeasuredMask,
    calibration: &mut Calibration,
    rankings: &mut [BinnedRanking],
) -> Result<()> {
    let Some(probabilities) = &measured.probabilities else { return Ok(()) };
    let rows = probabilities.values::<f32>().chunks_exact(rankings.len());
    let pixels = measured.truth.classes.iter().zip(&measured.mask.classes).zip(rows);
    for ((&y, &p), row) in pixels.filter(|((y, _), _)| **y != VOID) {
        // (A mean of probabilities may be 1 and a last digit.)
        calibration.add(row.iter().copied().fold(0.0, f32::max).min(1.0), y == p)?;
        for (class, (ranking, &probability)) in rankings.iter_mut().zip(row).enumerate() {
            ranking.add(probability.min(1.0), class == y as usize)?;
        }
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
