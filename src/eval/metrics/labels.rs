//! Accuracies as Keras defines them, and the Hamming loss of TensorFlow Addons.

use super::{mean, same_length, whole_rows};
use crate::error::{Error, Result};

/// The position of the maximum; of several, the first. Zero for an empty row.
///
/// ```
/// use atrous::eval::metrics::arg_max;
///
/// assert_eq!(arg_max(&[0.1, 0.7, 0.7]), 1); // the first of several
/// ```
pub fn arg_max(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &value) in row.iter().enumerate() {
        if value > row[best] {
            best = i;
        }
    }
    best
}

/// The share of rows whose largest prediction is in the column of the largest truth.
///
/// Where a row has several labels only the first counts. An error for slices of other lengths and rows
/// that are not whole.
///
/// ```
/// use atrous::eval::metrics::categorical_accuracy;
///
/// let truth = [0.0, 1.0, /**/ 1.0, 0.0];
/// let predicted = [0.3, 0.7, /**/ 0.4, 0.6];
/// assert_eq!(categorical_accuracy(&truth, &predicted, 2)?, 0.5);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn categorical_accuracy(truth: &[f32], predicted: &[f32], columns: usize) -> Result<f64> {
    same_length("categorical_accuracy", truth, predicted)?;
    whole_rows("categorical_accuracy", truth, columns)?;
    let (all, right) = count_right(truth, predicted, columns, f32::NAN)?;
    Ok(right as f64 / all as f64)
}

/// How many rows count, and in how many of those the largest score is the right one. The truth is a row of
/// flags as long as the scores', where the first of the largest counts, or a class, where `ignore` does
/// not count.
pub(crate) fn count_right(
    truth: &[f32],
    scores: &[f32],
    columns: usize,
    ignore: f32,
) -> Result<(usize, usize)> {
    whole_rows("count_right", scores, columns)?;
    let rows = scores.chunks_exact(columns);
    let (mut all, mut right) = (0, 0);
    let mut count = |is_right: bool| {
        all += 1;
        right += is_right as usize;
    };
    match truth.len() {
        n if n == scores.len() => {
            truth.chunks_exact(columns).zip(rows).for_each(|(y, p)| count(arg_max(y) == arg_max(p)));
        }
        n if n == rows.len() => {
            let known = truth.iter().zip(rows).filter(|(class, _)| **class != ignore);
            known.for_each(|(class, p)| count(arg_max(p) as f32 == *class));
        }
        n => {
            let expected = format!("a truth for each of {} rows of {columns}", rows.len());
            return Err(Error::shape("count_right", expected, n));
        }
    }
    Ok((all, right))
}

/// The share of elements where `p > 0.5` is the label. Labels are rare, so that predicting none
/// at all already scores high. An error for slices of other lengths.
///
/// ```
/// use atrous::eval::metrics::binary_accuracy;
///
/// let truth = [1.0, 0.0, 0.0, 0.0];
/// assert_eq!(binary_accuracy(&truth, &[0.6, 0.4, 0.1, 0.9])?, 0.75);
/// assert_eq!(binary_accuracy(&truth, &[0.0; 4])?, 0.75); // says nothing of anything, and scores as well
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn binary_accuracy(truth: &[f32], predicted: &[f32]) -> Result<f64> {
    same_length("binary_accuracy", truth, predicted)?;
    let elements = truth.iter().zip(predicted);
    Ok(mean(elements.map(|(&y, &p)| ((p > 0.5) as u8 as f32 == y) as u8 as f64)))
}

/// The share of rows whose largest score is in the column that the label names.
///
/// Labels are compared as floats: 7.5 (two classes blended by a resize) is never right. An
/// error for slices of other lengths and rows that are not whole.
///
/// ```
/// use atrous::eval::metrics::sparse_categorical_accuracy;
///
/// let scores = [0.1, 0.9, /**/ 0.8, 0.2];
/// assert_eq!(sparse_categorical_accuracy(&[1.0, 0.0], &scores, 2)?, 1.0);
/// assert_eq!(sparse_categorical_accuracy(&[1.0, 0.5], &scores, 2)?, 0.5);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn sparse_categorical_accuracy(labels: &[f32], scores: &[f32], columns: usize) -> Result<f64> {
    whole_rows("sparse_categorical_accuracy", scores, columns)?;
    let found: Vec<f32> = scores.chunks_exact(columns).map(|row| arg_max(row) as f32).collect();
    same_length("sparse_categorical_accuracy", labels, &found)?;
    Ok(mean(labels.iter().zip(&found).map(|(label, found)| (label == found) as u8 as f64)))
}

/// The share of labels that are wrong, over all rows and columns.
///
/// A label is predicted where `p > threshold`; without a threshold, where `p` is its row's maximum
/// (all of them, if several) and not zero. An error for slices of other lengths and rows that are not
/// whole.
///
/// ```
/// use atrous::eval::metrics::hamming_loss;
///
/// let truth = [1.0, 1.0, 0.0, 0.0];
/// let predicted = [0.9, 0.4, 0.6, 0.1]; // at ½: the second is missed, the third is too much
/// assert_eq!(hamming_loss(&truth, &predicted, 4, Some(0.5))?, 0.5);
/// assert_eq!(hamming_loss(&truth, &predicted, 4, None)?, 0.25); // the row's maximum alone
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn hamming_loss(
    truth: &[f32],
    predicted: &[f32],
    columns: usize,
    threshold: Option<f32>,
) -> Result<f64> {
    same_length("hamming_loss", truth, predicted)?;
    whole_rows("hamming_loss", truth, columns)?;
    let mut wrong = 0usize;
    for (y, p) in truth.chunks_exact(columns).zip(predicted.chunks_exact(columns)) {
        let highest = p[arg_max(p)];
        let positive = |p: f32| match threshold {
            Some(threshold) => p > threshold,
            None => p >= highest && p.abs() > 1e-12,
        };
        wrong += y.iter().zip(p).filter(|&(&y, &p)| (y != 0.0) != positive(p)).count();
    }
    Ok(wrong as f64 / truth.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: [f32; 6] = [0.0, 1.0, 1.0, 1.0, 0.0, 0.0];

    #[test]
    fn categorical_accuracy_sees_only_the_first_label_and_takes_the_first_of_equals() {
        // Row 0: the second label is predicted, not the first: wrong. Row 1: a tie, first: right.
        let predicted = [0.1, 0.2, 0.9, 0.4, 0.4, 0.4];
        assert_eq!(categorical_accuracy(&TRUTH, &predicted, 3).unwrap(), 0.5);
    }

    #[test]
    fn binary_accuracy_needs_more_than_one_half() {
        let predicted = [0.5, 0.5, 0.51, 1.0, 0.6, 0.0]; // right, wrong, right, right, wrong, right
        assert_eq!(binary_accuracy(&TRUTH, &predicted).unwrap(), 4.0 / 6.0);
    }

    #[test]
    fn a_blended_label_is_never_right() {
        let scores = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0];
        assert_eq!(sparse_categorical_accuracy(&[1.0, 1.5], &scores, 3).unwrap(), 0.5);
    }

    #[test]
    fn hamming_loss_counts_wrong_labels() {
        let predicted = [0.3, 0.3, 0.0, 0.2, 0.1, 0.4];
        // Over 0.15: 110, 101 against 011, 100: three of six are wrong.
        assert_eq!(hamming_loss(&TRUTH, &predicted, 3, Some(0.15)).unwrap(), 0.5);
        // Row maxima: 110 (both of the tie), 001: two and two are wrong.
        assert_eq!(hamming_loss(&TRUTH, &predicted, 3, None).unwrap(), 4.0 / 6.0);
        // A row of zeros has no maximum that counts.
        assert_eq!(hamming_loss(&[1.0, 0.0], &[0.0, 0.0], 2, None).unwrap(), 0.5);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for message in [
            categorical_accuracy(&TRUTH, &TRUTH[..3], 3).unwrap_err().to_string(),
            categorical_accuracy(&TRUTH, &TRUTH, 4).unwrap_err().to_string(),
            categorical_accuracy(&TRUTH, &TRUTH, 0).unwrap_err().to_string(),
            categorical_accuracy(&[], &[], 3).unwrap_err().to_string(),
            binary_accuracy(&TRUTH, &[]).unwrap_err().to_string(),
            sparse_categorical_accuracy(&[1.0], &TRUTH, 3).unwrap_err().to_string(),
            hamming_loss(&TRUTH, &TRUTH, 5, None).unwrap_err().to_string(),
        ] {
            assert!(message.contains("expected"), "{message}");
        }
    }
}
