//! The competition's `submission.csv`: which labels to predict, and writing, reading and scoring.
//!
//! Header `Id,Predicted`; per image a row `{id}_classification` (the label bits) and a row
//! `{id}_segmentation` (the class masks, stacked), both as [`Runs`]. Scored by the mean of the
//! Dice coefficients `2|A ∩ B| / (|A| + |B|)` of all rows, 1 where both are empty.

mod file;
mod runs;

pub use file::{Entry, Score, Submission, score, write, write_to};
pub use runs::Runs;

use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;

/// The labels of one image, 0 or 1 a class: every class over the threshold; where none is, the most
/// probable.
///
/// "Over" is strict, and among several equally probable classes the first is taken.
///
/// ```
/// use atrous::predict::submission::labels_from_probabilities;
///
/// assert_eq!(labels_from_probabilities(&[0.1, 0.2, 0.9], 0.15), [0, 1, 1]);
/// assert_eq!(labels_from_probabilities(&[0.1, 0.12, 0.05], 0.15), [0, 1, 0]); // no image has no class
/// ```
pub fn labels_from_probabilities(row: &[f32], threshold: f32) -> Vec<u8> {
    or_most_probable(row, row.iter().map(|&p| u8::from(p > threshold)).collect())
}

/// [`labels_from_probabilities`] with a threshold for each class.
pub(crate) fn labels_from_probabilities_by_class(row: &[f32], thresholds: &[f32]) -> Result<Vec<u8>> {
    if row.len() != thresholds.len() {
        let expected = format!("{} thresholds, one a class", row.len());
        return Err(Error::shape("labels_from_probabilities_by_class", expected, thresholds.len()));
    }
    Ok(or_most_probable(row, row.iter().zip(thresholds).map(|(p, t)| u8::from(p > t)).collect()))
}

/// These labels of an image with such probabilities; where none is set, the most probable.
pub(super) fn or_most_probable<T: From<bool> + PartialEq>(row: &[f32], mut labels: Vec<T>) -> Vec<T> {
    if !row.is_empty() && !labels.contains(&true.into()) {
        labels[arg_max(row)] = true.into();
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probability_at_the_threshold_is_not_over_it() {
        assert_eq!(labels_from_probabilities(&[0.15, 0.16, 0.9], 0.15), [0, 1, 1]);
    }

    #[test]
    fn where_none_is_over_the_threshold_the_first_maximum_is_taken() {
        assert_eq!(labels_from_probabilities(&[0.05, 0.1, 0.1], 0.15), [0, 1, 0]);
        assert_eq!(labels_from_probabilities(&[0.0; 3], 0.15), [1, 0, 0]);
        assert!(labels_from_probabilities(&[], 0.15).is_empty());
    }

    #[test]
    fn every_class_may_have_its_own_threshold() {
        let labels = |thresholds: &[f32]| labels_from_probabilities_by_class(&[0.2, 0.4], thresholds);
        assert_eq!(labels(&[0.1, 0.5]).unwrap(), [1, 0]);
        assert_eq!(labels(&[0.9, 0.9]).unwrap(), [0, 1]);
        assert!(labels(&[0.5]).unwrap_err().to_string().contains("2 thresholds"));
    }
}
