//! What a score is worth: the same score for predictors that did not look at shapes.
//!
//! - **shuffled labels**: the network's own predictions against truth rows in a random order;
//! - **class priors**: every picture gets each class's share of the training pictures;
//! - **colour histogram**: a linear model on how often each colour occurs.
//!
//! A network has learned something if the lower end of its score's bootstrap interval is above
//! all three.

use crate::cpu::threads;
use crate::data::{CLASSES, Dataset};
use crate::error::Result;
use crate::linear::{LogisticRegression, colour_histogram};
use crate::metrics::{self, Control, Interpolation, Interval};
use std::fmt;

/// Resamples of the bootstrap and of the shuffled control: the 2.5th percentile of 1000 rests on
/// 25 of them.
const REPEATS: usize = 1000;

/// Mean average precision of a network and of the controls, on the same samples.
pub struct Controls {
    /// 95 % bootstrap interval over samples.
    pub network: Interval,
    pub map: f64,
    pub shuffled: Control,
    pub priors: f64,
    pub histogram: f64,
    pub samples: usize,
}

impl Controls {
    /// `probabilities` [val.len(), classes] are the network's, in the order of `val`.
    pub fn measure(
        dataset: &dyn Dataset,
        train: &[usize],
        val: &[usize],
        probabilities: &[f32],
        seed: u64,
    ) -> Result<Self> {
        let columns = CLASSES.len();
        let flags = |indices: &[usize]| -> Vec<f32> {
            let labels = |&i: &usize| dataset.labels(i).unwrap_or_default().map(|set| set as u8 as f32);
            indices.iter().flat_map(labels).collect()
        };
        let (train_labels, truth) = (flags(train), flags(val));
        // On a resample a class may have no positive left; the mean runs over those that have.
        let map = |truth: &[f32], scores: &[f32]| -> f64 {
            metrics::mean_average_precision(truth, scores, columns, Interpolation::default())
                .unwrap_or(0.0)
        };
        let rows = |values: &[f32], indices: &[usize]| -> Vec<f32> {
            indices
                .iter()
                .flat_map(|&i| values[i * columns..(i + 1) * columns].iter().copied())
                .collect()
        };
        let n = val.len();
        let network = metrics::bootstrap(n, REPEATS, seed, |indices| {
            map(&rows(&truth, indices), &rows(probabilities, indices))
        })?;
        let shuffled = metrics::permutation_control(n, REPEATS, seed, |order| {
            map(&rows(&truth, order), probabilities)
        })?;

        let mut shares = vec![0.0f32; columns];
        for row in train_labels.chunks(columns) {
            shares.iter_mut().zip(row).for_each(|(share, flag)| *share += flag / train.len() as f32);
        }
        let priors = map(&truth, &shares.repeat(n));

        let histograms = |indices: &[usize]| -> Result<Vec<Vec<f32>>> {
            threads::map(indices.len(), |i| Ok(colour_histogram(&dataset.picture(indices[i])?.rgb)))
                .into_iter()
                .collect()
        };
        let (train_features, val_features) = (histograms(train)?.concat(), histograms(val)?);
        let inputs = val_features.first().map_or(0, Vec::len);
        let linear = LogisticRegression::fit(&train_features, inputs, &train_labels, columns, 1.0)?;
        let histogram = map(&truth, &linear.predict(&val_features.concat())?);

        Ok(Controls {
            map: map(&truth, probabilities),
            network,
            shuffled,
            priors,
            histogram,
            samples: n,
        })
    }

    /// True when the lower bound is above every control.
    pub fn passed(&self) -> bool {
        [self.shuffled.upper, self.priors, self.histogram]
            .iter()
            .all(|&control| self.network.low > control)
    }
}

impl fmt::Display for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interval { low, high, .. } = self.network;
        writeln!(f, "mean average precision on {} validation pictures", self.samples)?;
        writeln!(
            f,
            "  network                        {:.3}   (95 % bootstrap {low:.3} to {high:.3})",
            self.map
        )?;
        let Control { mean, upper } = self.shuffled;
        writeln!(f, "  control: shuffled labels       {mean:.3}   (95 % of shuffles below {upper:.3})")?;
        writeln!(f, "  control: class priors          {:.3}", self.priors)?;
        writeln!(f, "  control: colour histogram      {:.3}   (linear model)", self.histogram)?;
        write!(
            f,
            "  the lower bound is {} all controls",
            if self.passed() { "above" } else { "NOT above" }
        )
    }
}
