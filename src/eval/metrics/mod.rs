//! Scores of predictions against the truth: plain slices in, one f64 out.
//!
//! A table is a flat slice, row-major, with its number of columns (classes). [`labels`] are Keras'
//! accuracies and the Hamming loss, [`ranking`] is PASCAL VOC's average precision, [`binned_ranking`] the
//! same of more scores than can be sorted, [`overlap`] is the Dice coefficient and the confusion matrix of
//! masks, [`calibration`] whether confidences are probabilities, [`uncertainty`] says how much of a score is
//! chance.

pub mod binned_ranking;
pub mod calibration;
mod cuda;
pub mod labels;
pub mod overlap;
pub mod ranking;
pub mod uncertainty;

pub use binned_ranking::BinnedRanking;
pub use calibration::{Calibration, CalibrationBin};
pub use cuda::accuracy;
pub(crate) use labels::count_right;
pub use labels::{
    arg_max, binary_accuracy, categorical_accuracy, hamming_loss, sparse_categorical_accuracy,
};
pub use overlap::{Confusion, dice, dice_of_classes};
pub use ranking::{
    Interpolation, PrecisionRecall, average_precision, average_precisions, mean_average_precision,
    precision_recall_curve,
};
pub use uncertainty::{Control, Interval, bootstrap, permutation_control};

use crate::error::{Error, Result};

/// Two slices that go together element by element, and are not empty.
fn same_length<A, B>(op: &'static str, truth: &[A], predicted: &[B]) -> Result<()> {
    if truth.len() != predicted.len() {
        let expected = format!("as many predictions as there are true values ({})", truth.len());
        return Err(Error::shape(op, expected, predicted.len()));
    }
    if truth.is_empty() {
        return Err(Error::shape(op, "at least one element", 0));
    }
    Ok(())
}

/// A slice that is whole rows of `columns`.
fn whole_rows<T>(op: &'static str, table: &[T], columns: usize) -> Result<()> {
    if columns == 0 || table.is_empty() || !table.len().is_multiple_of(columns) {
        let expected = format!("one or more whole rows of {columns} columns");
        return Err(Error::shape(op, expected, format!("{} elements", table.len())));
    }
    Ok(())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}
