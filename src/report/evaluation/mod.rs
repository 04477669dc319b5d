//! `evaluation.json`: what a network's predictions of some images are worth, in figures that a page, a plot
//! or another program can read.

mod curves;
mod examples;
mod labels;
mod masks;

use super::html::read_json;
use crate::error::{Error, Result};
use crate::eval::metrics::Calibration;
use crate::files::write_atomically;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file's name.
///
/// [`write()`] has an example.
pub const EVALUATION: &str = "evaluation.json";

/// One network on some images.
///
/// ```
/// use atrous::report::evaluation::Evaluation;
///
/// let scores = vec![("mean IoU".to_string(), 0.71), ("pixel accuracy".to_string(), 0.93)];
/// let evaluation = Evaluation { task: "segment".into(), scores, ..Evaluation::default() };
/// assert_eq!(evaluation.main_score(), Some(("mean IoU", 0.71)));
/// assert!(evaluation.segments());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// `classify` or `segment`.
    pub task: String,
    /// Every image is of one class, and one is predicted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// The network's name.
    pub network: String,
    /// Where its parameters are from.
    pub checkpoint: String,
    /// What kind of images they are, e.g. `validation pictures`.
    pub kind: String,
    /// How many.
    pub images: usize,
    /// For all predictions together, on this machine.
    pub seconds: f64,
    /// From the one that counts most: a name and a value, 0 to 1.
    pub scores: Vec<(String, f64)>,
    /// The Nth is of class N; where pixels are labelled the background is the first.
    pub classes: Vec<ClassScores>,
    /// Rows are true classes, columns predicted ones. Pixels; or images, where several classes may be in one:
    /// then of the images with the row's class those in which the column's is said to be.
    pub confusion: Vec<Vec<u64>>,
    /// The curve over all classes together, then of each class; of images, or of all pixels.
    pub precision_recall: Vec<PrecisionRecallPoints>,
    /// By how much the average precisions of masks can be too small, at most: pixels are too many to sort
    /// ([`BinnedRanking`](crate::eval::metrics::BinnedRanking)).
    #[serde(default)]
    pub average_precision_error: f64,
    /// How sure, and how right: one-vs-rest for each class of a classifier, of each pixel's class of a mask.
    pub calibration: Vec<Bin>,
    /// The expected calibration error, 0 to 1.
    pub calibration_error: Option<f64>,
    /// Image by image, in their order.
    pub samples: Vec<Sample>,
    /// A few of them to look at.
    pub examples: Vec<Example>,
}

/// What a class comes to; None where it has no meaning.
///
/// ```
/// use atrous::report::evaluation::ClassScores;
///
/// let (true_positives, false_positives, false_negatives) = (3, 1, 2);
/// let cat = ClassScores {
///     true_positives,
///     false_positives,
///     false_negatives,
///     iou: Some(0.5),
///     ..ClassScores::default()
/// };
/// assert_eq!([cat.precision(), cat.recall(), cat.f1()], [3.0 / 4.0, 3.0 / 5.0, 6.0 / 9.0].map(Some));
/// assert_eq!(cat.score(), Some(0.5));
/// assert_eq!(ClassScores::default().precision(), None); // nothing was said to be of that class
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Its name.
    pub name: String,
    /// Images with it, or its true pixels.
    pub support: u64,
    /// What was said to be it, and is.
    pub true_positives: u64,
    /// What was said to be it, and is not.
    pub false_positives: u64,
    /// What is it, and was not said to be.
    pub false_negatives: u64,
    /// The probability above which it is predicted; of a classifier.
    pub threshold: Option<f32>,
    /// Average precision over images of a classifier, over pixels of masks (of which it is at most
    /// [`Evaluation::average_precision_error`] too small).
    pub average_precision: Option<f64>,
    /// Intersection over union of masks.
    pub iou: Option<f64>,
}

impl ClassScores {
    /// `tp / (tp + fp)`; None where it was never predicted.
    pub fn precision(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// `tp / (tp + fn)`; None where it never was there.
    pub fn recall(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// `2 tp / (2 tp + fp + fn)`, Dice of the pixels or images; None where nothing was there or predicted.
    pub fn f1(&self) -> Option<f64> {
        let both = 2 * self.true_positives;
        share(both, both + self.false_positives + self.false_negatives)
    }

    /// What counts for the mean: IoU of masks, average precision of a classifier.
    pub fn score(&self) -> Option<f64> {
        self.iou.or(self.average_precision)
    }
}

fn share(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

/// A precision–recall curve; (recall, precision) from the surest on.
///
/// [`Evaluation::of_labels`] has an example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecallPoints {
    /// A class, or `all classes`.
    pub name: String,
    /// At most a hundred, from small recall to large.
    pub points: Vec<(f64, f64)>,
}

/// Predictions of about the same confidence.
///
/// [`Evaluation::of_labels`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// The least confidence.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// How many predictions.
    pub count: u64,
    /// Their mean confidence.
    pub confidence: f64,
    /// The share of them that was so.
    pub accuracy: f64,
}

/// One image.
///
/// [`Evaluation::of_labels`] has an example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What the data set calls it.
    pub id: String,
    /// By which images are called good and bad: Dice of the labels, or mean IoU of the mask, 0 to 1.
    pub score: f64,
    /// Mean binary cross-entropy over the classes; of a classifier.
    pub loss: Option<f64>,
    /// Share of pixels that are right; of a mask.
    pub pixel_accuracy: Option<f64>,
    /// The classes in it.
    pub truth: Vec<String>,
    /// The classes that were said to be in it.
    pub predicted: Vec<String>,
    /// One a class; of a classifier.
    pub probabilities: Vec<f32>,
}

/// An image to look at.
///
/// [`Evaluation::write_examples`] has an example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// `best`, `typical` or `worst`.
    pub group: String,
    /// Whose [`Sample`] it is.
    pub id: String,
    /// What is seen, and the file within the folder.
    pub images: Vec<(String, String)>,
}

impl Evaluation {
    /// The score that counts most.
    pub fn main_score(&self) -> Option<(&str, f64)> {
        self.scores.first().map(|(name, value)| (&name[..], *value))
    }

    /// Whether pixels were labelled.
    pub fn segments(&self) -> bool {
        self.task == "segment"
    }

    fn calibrate(&mut self, calibration: &Calibration) {
        let bins = calibration.bins().into_iter().filter(|bin| bin.count > 0);
        let bin = |bin: crate::eval::metrics::CalibrationBin| Bin {
            low: bin.low,
            high: bin.high,
            count: bin.count,
            confidence: bin.confidence,
            accuracy: bin.accuracy,
        };
        self.calibration = bins.map(bin).collect();
        self.calibration_error = calibration.expected_error();
    }
}

/// Writes `evaluation.json` into the folder.
///
/// ```
/// use atrous::report::evaluation::{EVALUATION, Evaluation, read, write};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// assert_eq!(read(folder)?, None);
/// let evaluations = vec![Evaluation { task: "classify".into(), images: 7, ..Evaluation::default() }];
/// write(&evaluations, folder)?;
/// assert_eq!(read(folder)?, Some(evaluations));
/// assert!(folder.join(EVALUATION).is_file());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn write(evaluations: &[Evaluation], folder: &Path) -> Result<()> {
    let path = folder.join(EVALUATION);
    let text = serde_json::to_string(evaluations).map_err(|error| Error::file(&path, error))?;
    write_atomically(&path, |file| writeln!(file, "{text}"))
}

/// Reads a folder's `evaluation.json`; None without one. An error that names the line where it is not what
/// [`write()`] writes.
///
/// [`write()`] has an example.
pub fn read(folder: &Path) -> Result<Option<Vec<Evaluation>>> {
    read_json(&folder.join(EVALUATION))
}
