//! What a score is worth: the same score for predictors that did not look at shapes.
//!
//! - **shuffled labels**: the network's own predictions against truth rows in a random order;
//! - **class priors**: every image gets each class's share of the training images;
//! - **colour histogram**: a linear model on how often each colour occurs.
//!
//! A network has learned something if the lower end of its score's bootstrap interval is above
//! all three.

use crate::backend::cpu::threads;
use crate::data::{Dataset, known_labels};
use crate::error::Result;
use crate::eval::logistic_regression::{LogisticRegression, colour_histogram};
use crate::eval::metrics::{self, Control, Interpolation, Interval};
use std::fmt;

/// Resamples of the bootstrap and of the shuffled control: the 2.5th percentile of 1000 rests on
/// 25 of them.
const REPEATS: usize = 1000;

/// What the controls learn from: samples of a data set.
#[derive(Clone, Copy)]
pub struct TrainingSet<'a> {
    /// Labelled images to train on.
    pub dataset: &'a dyn Dataset,
    /// Which of its samples.
    pub indices: &'a [usize],
}

/// Mean average precision of a network and of the controls, on the same samples.
///
/// ```
/// use atrous::data::{Dataset, synthetic::Synthetic};
/// use atrous::eval::baselines::{Controls, TrainingSet};
///
/// let dataset = Synthetic::train(1, 22);
/// let flags = |labels: Vec<bool>| labels.iter().map(|&set| set as u8 as f32).collect::<Vec<_>>();
/// let truth = |index| flags(dataset.labels(index).unwrap());
/// let val: Vec<usize> = (0..20).collect();
/// // A network that knows the answers, and one that says the same of every image.
/// let knows: Vec<f32> = val.iter().flat_map(|&index| truth(index)).collect();
/// let knows = Controls::measure(None, &dataset, &val, &knows, 1)?.unwrap();
/// assert_eq!((knows.map, knows.network.low, knows.passed()), (1.0, 1.0, true));
/// assert!(knows.shuffled.upper < 1.0);
/// let says = Controls::measure(None, &dataset, &val, &[0.5; 20 * 20], 1)?.unwrap();
/// // Whose labels they are makes no difference.
/// assert!(!says.passed() && (says.map - says.shuffled.mean).abs() < 1e-9);
///
/// // What two more images teach.
/// let lessons = Some(TrainingSet { dataset: &dataset, indices: &[20, 21] });
/// let knows = [truth(0), truth(1)].concat();
/// let knows = Controls::measure(lessons, &dataset, &[0, 1], &knows, 1)?.unwrap();
/// assert!(knows.priors.is_some() && knows.histogram.is_some());
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct Controls {
    /// 95 % bootstrap interval over samples; it holds `map` in any case.
    pub network: Interval,
    /// The network's mean average precision, 0 to 1.
    pub map: f64,
    /// What the network's predictions score on the labels of other images.
    pub shuffled: Control,
    /// What the classes' shares score; None where there was nothing to learn from.
    pub priors: Option<f64>,
    /// What a linear model on colours scores; None where there was nothing to learn from.
    pub histogram: Option<f64>,
    /// How many samples were scored.
    pub samples: usize,
    /// What kind of images the samples are, for whoever reads the table.
    pub kind: &'static str,
}

impl Controls {
    /// Scores the network and the controls on the samples `val` of `dataset`. `probabilities`
    /// [val.len(), classes] are the network's, in the order of `val`. Without lessons there are no controls
    /// that learn. None where no class occurs in `val`: there is no precision to take the mean of. An error
    /// where a sample has no labels, or its image cannot be read.
    pub fn measure(
        lessons: Option<TrainingSet>,
        dataset: &dyn Dataset,
        val: &[usize],
        probabilities: &[f32],
        seed: u64,
    ) -> Result<Option<Self>> {
        let columns = dataset.classes().len();
        let truth = flags(dataset, val)?;
        if !truth.contains(&1.0) {
            return Ok(None);
        }
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

        let (mut priors, mut histogram) = (None, None);
        if let Some(TrainingSet { dataset: from, indices }) = lessons {
            let labels = flags(from, indices)?;
            let mut shares = vec![0.0f32; columns];
            for row in labels.chunks(columns) {
                shares
                    .iter_mut()
                    .zip(row)
                    .for_each(|(share, flag)| *share += flag / indices.len() as f32);
            }
            priors = Some(map(&truth, &shares.repeat(n)));
            let features = histograms(dataset, val)?;
            let inputs = features.first().map_or(0, Vec::len);
            let lessons = histograms(from, indices)?.concat();
            let linear = LogisticRegression::fit(&lessons, inputs, &labels, columns, 1.0)?;
            histogram = Some(map(&truth, &linear.predict(&features.concat())?));
        }
        let map = map(&truth, probabilities);
        // A resample that lacks a rare class scores higher without any merit: of few samples all of them may be
        // above the score itself.
        let (low, high) = (network.low.min(map), network.high.max(map));
        let (network, kind) = (Interval { low, high, ..network }, "pictures");
        Ok(Some(Controls { map, network, shuffled, priors, histogram, samples: n, kind }))
    }

    /// True when the lower bound is above every control.
    pub fn passed(&self) -> bool {
        let controls = [Some(self.shuffled.upper), self.priors, self.histogram];
        controls.into_iter().flatten().all(|control| self.network.low > control)
    }
}

/// [samples, classes]: 1 where a class is in the image.
fn flags(dataset: &dyn Dataset, indices: &[usize]) -> Result<Vec<f32>> {
    let labels = known_labels(dataset, indices)?;
    Ok(labels.iter().flatten().map(|&set| set as u8 as f32).collect())
}

fn histograms(dataset: &dyn Dataset, indices: &[usize]) -> Result<Vec<Vec<f32>>> {
    let histogram = |i: usize| Ok(colour_histogram(&dataset.image(indices[i])?.rgb));
    threads::map(indices.len(), histogram).into_iter().collect()
}

impl fmt::Display for Controls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interval { low, high, .. } = self.network;
        writeln!(f, "mean average precision on {} {}", self.samples, self.kind)?;
        writeln!(
            f,
            "  network                        {:.3}   (95 % bootstrap {low:.3} to {high:.3})",
            self.map
        )?;
        let Control { mean, upper } = self.shuffled;
        writeln!(f, "  control: shuffled labels       {mean:.3}   (95 % of shuffles below {upper:.3})")?;
        let learned = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.3}"));
        writeln!(f, "  control: class priors          {}", learned(self.priors))?;
        writeln!(f, "  control: colour histogram      {}   (linear model)", learned(self.histogram))?;
        if self.priors.is_none() {
            writeln!(f, "  (-: learned from training pictures, which are not in this folder)")?;
        }
        write!(
            f,
            "  the lower bound is {} all controls",
            if self.passed() { "above" } else { "NOT above" }
        )
    }
}
