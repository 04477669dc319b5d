//! Whether a confidence of 0.8 is right eight times in ten.
//!
//! Predictions are put into bins of equal width by their confidence. The expected calibration error is
//! `ECE = Σ (nᵢ / n) · |accuracyᵢ − confidenceᵢ|` over the bins.
//! Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks" (2017).

use crate::error::{Error, Result};

/// Counts of predictions by their confidence, in bins of equal width.
///
/// ```
/// use atrous::eval::metrics::Calibration;
///
/// let mut calibration = Calibration::new(2);
/// for (confidence, so) in [(0.75, true), (0.75, true), (0.75, false), (0.75, false), (0.25, false)] {
///     calibration.add(confidence, so)?;
/// }
/// let bins = calibration.bins();
/// assert_eq!((bins[1].low, bins[1].count, bins[1].confidence, bins[1].accuracy), (0.5, 4, 0.75, 0.5));
/// // A quarter too sure, in both bins, of four and of one
/// assert_eq!(calibration.expected_error(), Some(0.25));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// (predictions, sum of their confidences, those that were so)
    bins: Vec<(u64, f64, u64)>,
}

/// The predictions whose confidence is from `low` to below `high` (to 1 itself, in the last).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationBin {
    /// The least confidence that belongs here.
    pub low: f64,
    /// The confidence that belongs to the next.
    pub high: f64,
    /// How many predictions there were.
    pub count: u64,
    /// The mean of their confidences; 0 without any.
    pub confidence: f64,
    /// The share of them that was so, 0 to 1; 0 without any.
    pub accuracy: f64,
}

impl Calibration {
    /// Nothing counted yet; at least one bin.
    pub fn new(bins: usize) -> Self {
        Calibration { bins: vec![(0, 0.0, 0); bins.max(1)] }
    }

    /// Counts one prediction: with what confidence it was made, and whether it was so. An error for a
    /// confidence that is not from 0 to 1.
    pub fn add(&mut self, confidence: f32, so: bool) -> Result<()> {
        if !(0.0..=1.0).contains(&confidence) {
            let message = format!("expected a confidence of 0 to 1, got {confidence}");
            return Err(Error::argument("calibration", message));
        }
        let last = self.bins.len() - 1;
        let bin = ((confidence as f64 * self.bins.len() as f64) as usize).min(last);
        let (count, sum, right) = &mut self.bins[bin];
        *count += 1;
        *sum += confidence as f64;
        *right += u64::from(so);
        Ok(())
    }

    /// From the lowest confidences to the highest; empty ones too.
    pub fn bins(&self) -> Vec<CalibrationBin> {
        let n = self.bins.len() as f64;
        let mean = |sum: f64, count: u64| if count == 0 { 0.0 } else { sum / count as f64 };
        let bin = |(i, &(count, sum, right)): (usize, &(u64, f64, u64))| CalibrationBin {
            low: i as f64 / n,
            high: (i + 1) as f64 / n,
            count,
            confidence: mean(sum, count),
            accuracy: mean(right as f64, count),
        };
        self.bins.iter().enumerate().map(bin).collect()
    }

    /// The expected calibration error, 0 to 1; None where nothing was counted.
    pub fn expected_error(&self) -> Option<f64> {
        let all: u64 = self.bins.iter().map(|bin| bin.0).sum();
        let gap = |bin: &CalibrationBin| bin.count as f64 * (bin.accuracy - bin.confidence).abs();
        (all > 0).then(|| self.bins().iter().map(gap).sum::<f64>() / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_calibration_error_is_the_mean_gap_weighted_by_count() {
        let mut calibration = Calibration::new(10);
        assert_eq!(calibration.expected_error(), None);
        for (confidence, so) in [(0.75, true), (0.75, false), (0.25, false), (1.0, true)] {
            calibration.add(confidence, so).unwrap();
        }
        // By hand: (2·|0.5 − 0.75| + 1·|0 − 0.25| + 1·|1 − 1|) / 4
        assert!((calibration.expected_error().unwrap() - 0.1875).abs() < 1e-12);
        let bins = calibration.bins();
        assert_eq!(bins.len(), 10);
        assert_eq!((bins[7].count, bins[7].confidence, bins[7].accuracy), (2, 0.75, 0.5));
        assert_eq!((bins[9].count, bins[9].high), (1, 1.0));
        assert_eq!(bins[0].count, 0);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for wrong in [-0.1, 1.1, f32::NAN] {
            assert!(Calibration::new(5).add(wrong, true).is_err());
        }
    }
}
