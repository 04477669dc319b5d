//! A classifier's evaluation: several classes may be in an image.

use super::curves::{ALL, points};
use super::{ClassScores, Evaluation, PrecisionRecallPoints, Sample};
use crate::data::{Classes, Dataset, Labels, known_labels};
use crate::error::Result;
use crate::eval::metrics::{
    Calibration, Interpolation, average_precisions, dice, precision_recall_curve,
};
use crate::predict::Predictions;

/// Bins of the reliability diagram.
pub(super) const BINS: usize = 10;

impl Evaluation {
    /// Scores a classifier's predictions of these samples. An error where one of them has no labels.
    ///
    /// ```
    /// use atrous::data::Dataset;
    /// use atrous::data::synthetic::Synthetic;
    /// use atrous::models::Spec;
    /// use atrous::predict::{MaskOptions, Networks, Trained};
    /// use atrous::prelude::*;
    /// use atrous::report::evaluation::Evaluation;
    /// use atrous::train::TrainConfig;
    /// use std::sync::Arc;
    ///
    /// # let mut graph = Graph::new("small", "input", [32, 32, 3]);
    /// # let classify = Layer::dense(20).with_activation(Activation::Sigmoid);
    /// # graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, classify])?;
    /// # let (model, checksum) = (Model::new(graph, 1), String::new());
    /// # let config = TrainConfig::new(Spec::new("mobilenet", 32, 20));
    /// # let trained = Trained { model, config, thresholds: None, path: "mine".into(), checksum };
    /// let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::test(7, 2));
    /// let networks = Networks { classifier: Some(trained), segmenter: None }; // `Networks::load` reads some
    /// let all = [0, 1];
    /// // Every class is said to be in every image.
    /// let predictions = networks.predict(&dataset, &all, &MaskOptions::default(), Some(0.0), &mut |_| {})?;
    /// let mut evaluation = Evaluation::of_labels(&predictions, &*dataset, &all)?;
    /// assert_eq!((evaluation.samples.len(), evaluation.classes.len()), (2, 20));
    /// assert!(evaluation.classes.iter().all(|class| class.recall().is_none_or(|recall| recall == 1.0)));
    /// let sample = &evaluation.samples[0];
    /// let classes = sample.truth.len() as f64;
    /// assert!((sample.score - 2.0 * classes / (classes + 20.0)).abs() < 1e-9); // Dice of the labels
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let folder = folder.path();
    /// evaluation.write_examples(&predictions, &*dataset, &all, folder)?;
    /// assert!(folder.join(&evaluation.examples[0].images[0].1).is_file());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of_labels(
        predictions: &Predictions,
        dataset: &dyn Dataset,
        indices: &[usize],
    ) -> Result<Self> {
        let labels = known_labels(dataset, indices)?;
        let (names, said) = (&dataset.classes(), said(predictions)?);
        let truth: Vec<f32> = labels.iter().flatten().map(|&set| set as u8 as f32).collect();
        let scores = &predictions.probabilities[..];
        let mut evaluation = Evaluation {
            task: "classify".into(),
            exclusive: predictions.exclusive,
            images: indices.len(),
            classes: classes(names, &labels, &said, &truth, predictions)?,
            confusion: co_occurrence(&labels, &said, names.len()),
            precision_recall: curves(names, &truth, scores)?,
            ..Evaluation::default()
        };
        let mut calibration = Calibration::new(BINS);
        for (&p, &y) in scores.iter().zip(&truth) {
            calibration.add(p, y != 0.0)?;
        }
        evaluation.calibrate(&calibration);
        for (i, (row, said)) in labels.iter().zip(&said).enumerate() {
            let (id, own) = (dataset.id(indices[i]), &scores[i * names.len()..][..names.len()]);
            evaluation.samples.push(sample(id, names, row, said, own)?);
        }
        evaluation.scores = evaluation.label_scores();
        Ok(evaluation)
    }

    fn label_scores(&self) -> Vec<(String, f64)> {
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let of_classes = |of: fn(&ClassScores) -> Option<f64>| -> Vec<f64> {
            self.classes.iter().filter(|class| class.support > 0).filter_map(of).collect()
        };
        let exact = self.samples.iter().filter(|s| s.truth == s.predicted).count();
        let right = exact as f64 / self.samples.len().max(1) as f64;
        let precision = ("mean average precision", mean(of_classes(|class| class.average_precision)));
        let f1 = ("F1, mean over classes", mean(of_classes(ClassScores::f1)));
        let dice = || mean(self.samples.iter().map(|sample| sample.score).collect());
        let scores = match self.exclusive {
            true => vec![("accuracy", right), f1, precision],
            false => {
                vec![precision, ("Dice, mean over images", dice()), f1, ("all labels right", right)]
            }
        };
        scores.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// What is said of each image.
fn said(predictions: &Predictions) -> Result<Vec<Labels>> {
    (0..predictions.len()).map(|i| predictions.labels(i)).collect()
}

fn classes(
    names: &Classes,
    labels: &[Labels],
    said: &[Labels],
    truth: &[f32],
    predictions: &Predictions,
) -> Result<Vec<ClassScores>> {
    let scores = &predictions.probabilities;
    let precisions = average_precisions(truth, scores, names.len(), Interpolation::default())?;
    let count = |c: usize, y: bool, p: bool| {
        labels.iter().zip(said).filter(|(row, said)| row[c] == y && said[c] == p).count() as u64
    };
    let of_class = |c: usize| ClassScores {
        name: names[c].into(),
        support: labels.iter().filter(|row| row[c]).count() as u64,
        true_positives: count(c, true, true),
        false_positives: count(c, false, true),
        false_negatives: count(c, true, false),
        threshold: (!predictions.exclusive).then(|| predictions.thresholds.per_class[c]),
        average_precision: precisions[c],
        iou: None,
    };
    Ok((0..names.len()).map(of_class).collect())
}

/// Of the images with class i (rows) those in which class j was predicted.
fn co_occurrence(labels: &[Labels], said: &[Labels], n: usize) -> Vec<Vec<u64>> {
    let mut counts = vec![vec![0; n]; n];
    for (row, said) in labels.iter().zip(said) {
        for i in (0..n).filter(|&i| row[i]) {
            (0..n).filter(|&j| said[j]).for_each(|j| counts[i][j] += 1);
        }
    }
    counts
}

fn curves(names: &Classes, truth: &[f32], scores: &[f32]) -> Result<Vec<PrecisionRecallPoints>> {
    let n = names.len();
    let column = |table: &[f32], c: usize| table.iter().skip(c).step_by(n).copied().collect::<Vec<_>>();
    let curve = |name: &str, truth: &[f32], scores: &[f32]| {
        Ok(points(name, &precision_recall_curve(truth, scores)?))
    };
    let all = curve(ALL, truth, scores);
    let each = (0..n).map(|c| curve(&names[c], &column(truth, c), &column(scores, c)));
    std::iter::once(all).chain(each).collect()
}

fn sample(
    id: String,
    classes: &Classes,
    truth: &Labels,
    said: &Labels,
    probabilities: &[f32],
) -> Result<Sample> {
    let bits = |labels: &Labels| labels.iter().map(|&set| set as u8).collect::<Vec<u8>>();
    let names = |labels: &Labels| classes.named(labels).map(str::to_owned).collect();
    // As Keras: a probability of exactly 0 is no infinite loss.
    let loss = |(&p, &y): (&f32, &bool)| {
        let p = (p as f64).clamp(1e-7, 1.0 - 1e-7);
        -(if y { p } else { 1.0 - p }).ln()
    };
    Ok(Sample {
        id,
        score: dice(&bits(truth), &bits(said))?,
        loss: Some(probabilities.iter().zip(truth).map(loss).sum::<f64>() / classes.len() as f64),
        truth: names(truth),
        predicted: names(said),
        probabilities: probabilities.to_vec(),
        pixel_accuracy: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_co_occurrences_counts_what_was_said_of_the_images_with_its_class() {
        let labels = |classes: &[usize]| -> Labels { (0..20).map(|c| classes.contains(&c)).collect() };
        let counts = co_occurrence(
            &[labels(&[0]), labels(&[0, 1]), labels(&[2])],
            &[labels(&[0]), labels(&[1]), labels(&[0, 2])],
            20,
        );
        assert_eq!((&counts[0][..3], &counts[1][..3]), (&[1, 1, 0][..], &[0, 1, 0][..]));
        assert_eq!(counts[2][..3], [1, 0, 1]);
    }

    #[test]
    fn a_sample_that_is_half_right_scores_half() {
        let labels = |classes: &[usize]| -> Labels { (0..20).map(|c| classes.contains(&c)).collect() };
        let (classes, mut probabilities) = (Classes::voc(), [0.0; 20]);
        (probabilities[0], probabilities[1]) = (0.5, 0.5);
        let sample =
            sample("a".into(), &classes, &labels(&[0, 2]), &labels(&[0, 1]), &probabilities).unwrap();
        assert_eq!(sample.score, 0.5);
        assert_eq!(sample.truth, [&classes[0], &classes[2]]);
        // Two coins, and one certainty that is wrong: (2 ln 2 + 7 ln 10) / 20.
        let expected = (2.0 * 2f64.ln() + 7.0 * 10f64.ln()) / 20.0;
        assert!((sample.loss.unwrap() - expected).abs() < 1e-5, "{:?}", sample.loss);
    }
}
