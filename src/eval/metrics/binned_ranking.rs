//! A ranking of more scores than can be kept and sorted: the pixels of a data set, class by class.
//!
//! Probabilities are counted in bins as they come, in one pass and in memory that does not grow. Bins are
//! narrow where probabilities crowd, at both ends: 256 to a doubling of `p`, and above one half of `1 − p`
//! (which `f32` holds exactly there), down to 2⁻³².
//!
//! What is counted at the edges of bins is exact: each point of the curve is one of the curve of all scores
//! sorted. Within a bin the order is not known. In the worst one all negatives come first; since precision
//! is made monotone, each positive of the bin then has the precision at the bin's end, as if all scores
//! were the same. In the best one positives come first. So [`BinnedRanking::average_precision`] is never
//! above that of all scores sorted, and at most [`BinnedRanking::error_bound`] below it.
//!
//! torchmetrics' `BinnedPrecisionRecallCurve` counts the same, at thresholds of equal distance.

use super::ranking::{self, Interpolation, PrecisionRecall, Ranked};
use crate::error::{Error, Result};

/// Mantissa bits that tell bins apart: 256 bins a doubling.
const SHIFT: u32 = 23 - 8;
/// Bins from 2⁻³² to one half, and one for what is below.
const HALF: usize = 31 * 256 + 1;
/// The bin of 1.
const LAST: usize = 2 * HALF;
/// The bits of 2⁻³², one bin before which is all that is below.
const LEAST: usize = ((127 - 32) << 8) - 1;

/// Counts of one class' probabilities, from which its precision–recall curve and average precision follow.
///
/// ```
/// use atrous::eval::metrics::BinnedRanking;
///
/// let mut ranking = BinnedRanking::default();
/// for (probability, positive) in [(0.9, true), (0.8, false), (0.7, true)] {
///     ranking.add(probability, positive)?;
/// }
/// // Precision 1 at recall 1/2, then 2/3 at recall 1.
/// assert!((ranking.average_precision().unwrap() - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BinnedRanking {
    /// From the lowest probabilities to the highest: how many, and how many positives among them.
    bins: Vec<[u64; 2]>,
}

impl Default for BinnedRanking {
    fn default() -> Self {
        BinnedRanking { bins: vec![[0; 2]; LAST + 1] }
    }
}

impl BinnedRanking {
    /// Counts one element: the probability it was given, and whether it is a positive. An error for a
    /// probability that is not from 0 to 1.
    pub fn add(&mut self, probability: f32, positive: bool) -> Result<()> {
        if !(0.0..=1.0).contains(&probability) {
            let message = format!("expected a probability of 0 to 1, got {probability}");
            return Err(Error::argument("binned_ranking", message));
        }
        let [seen, found] = &mut self.bins[bin(probability)];
        *seen += 1;
        *found += u64::from(positive);
        Ok(())
    }

    /// Counts what another has counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (own, more) in self.bins.iter_mut().zip(&other.bins) {
            own.iter_mut().zip(more).for_each(|(own, more)| *own += more);
        }
    }

    /// [`precision_recall_curve`](super::precision_recall_curve) at those of its thresholds that are edges
    /// of bins; empty without positives.
    pub fn precision_recall_curve(&self) -> Vec<PrecisionRecall> {
        ranking::curve(&self.ranked(Ties::Last))
    }

    /// Average precision (the area under the monotone precision), 0 to 1; None without positives.
    pub fn average_precision(&self) -> Option<f64> {
        ranking::average(&self.ranked(Ties::Last), Interpolation::Area)
    }

    /// By how much the average precision of all scores sorted can be above [`Self::average_precision`], at
    /// most; 0 without positives.
    pub fn error_bound(&self) -> f64 {
        let best = ranking::average(&self.ranked(Ties::First), Interpolation::Area);
        best.zip(self.average_precision()).map_or(0.0, |(best, own)| best - own)
    }

    /// From the highest bin down, empty ones left out.
    fn ranked(&self, positives: Ties) -> Vec<Ranked> {
        let (mut seen, mut found) = (0, 0);
        let bins = self.bins.iter().enumerate().rev().filter(|(_, [n, _])| *n > 0);
        let ranked = bins.map(|(bin, &[n, of_them])| {
            let before = seen;
            (seen, found) = (seen + n as usize, found + of_them as usize);
            let at = match positives {
                Ties::First => (before + of_them as usize).max(1),
                Ties::Last => seen,
            };
            Ranked { score: threshold(bin), seen: at, found }
        });
        ranked.collect()
    }
}

/// Where a bin's positives stand among its elements.
enum Ties {
    First,
    Last,
}

fn bin(probability: f32) -> usize {
    match probability > 0.5 {
        true => LAST - half_bin(1.0 - probability),
        false => half_bin(probability),
    }
}

/// Of a probability of at most one half: bins of equal width in its exponent and its mantissa's first bits.
fn half_bin(probability: f32) -> usize {
    // (The sign of −0 is no part of it.)
    ((probability.abs().to_bits() >> SHIFT) as usize).saturating_sub(LEAST)
}

/// The least probability of a bin.
fn threshold(bin: usize) -> f32 {
    let least = |half_bin: usize| match half_bin {
        0 => 0.0,
        n => f32::from_bits(((n + LEAST) as u32) << SHIFT),
    };
    match bin <= HALF {
        true => least(bin),
        false => {
            // The first above it that `f32` has.
            let end = 1.0 - least(LAST - bin + 1) as f64;
            let nearest = end as f32;
            if nearest as f64 > end { nearest } else { nearest.next_up().min(1.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::{average_precision, precision_recall_curve};
    use crate::random::{Stream, domain};

    /// Probabilities as a network gives them, crowded at both ends, and truths that follow them somewhat.
    fn drawn(n: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
        let mut stream = Stream::new(seed, &[domain::TEST]);
        let mut uniform = || stream.below(1 << 24) as f64 / (1 << 24) as f64;
        let pair = |_| {
            let logit = 24.0 * (uniform() + uniform() + uniform() - 1.7);
            let positive = uniform() < 1.0 / (1.0 + (-0.3 * logit).exp());
            (f32::from(positive as u8), (1.0 / (1.0 + (-logit).exp())) as f32)
        };
        (0..n).map(pair).unzip()
    }

    fn counted(truth: &[f32], scores: &[f32]) -> BinnedRanking {
        let mut ranking = BinnedRanking::default();
        truth.iter().zip(scores).for_each(|(&y, &p)| ranking.add(p, y != 0.0).unwrap());
        ranking
    }

    #[test]
    fn the_average_is_within_its_bound_of_the_one_of_all_scores_sorted() {
        for (n, seed) in [(1, 1), (2, 7), (100, 2), (5_000, 3), (100_000, 4)] {
            let (mut truth, scores) = drawn(n, seed);
            truth[0] = 1.0;
            let ranking = counted(&truth, &scores);
            let exact = average_precision(&truth, &scores, Interpolation::Area).unwrap().unwrap();
            let (own, bound) = (ranking.average_precision().unwrap(), ranking.error_bound());
            assert!(own <= exact + 1e-12 && exact <= own + bound + 1e-12, "{n}: {own} {exact} {bound}");
            println!("{n}: {own:.6}, at most {bound:.1e} below {exact:.6}");
            // Of a hundred elements two that share a bin are much.
            assert!(n < 5_000 || bound < 1e-3, "{n}: {bound}");
        }
    }

    #[test]
    fn the_bound_is_reached_in_the_best_order_and_the_average_in_the_worst() {
        // One bin's scores, 1 % apart at most: positives above negatives, and below.
        let scores: Vec<f32> = (0..20).map(|i| 0.3 + 1e-5 * i as f32).collect();
        assert_eq!(bin(scores[0]), bin(scores[19]));
        let below: Vec<f32> = (0..20).map(|i| f32::from(i < 5)).collect();
        let above: Vec<f32> = below.iter().rev().copied().collect();
        let exact = |truth| average_precision(truth, &scores, Interpolation::Area).unwrap().unwrap();
        let ranking = counted(&below, &scores);
        assert_eq!(ranking, counted(&above, &scores));
        let own = ranking.average_precision().unwrap();
        assert!(
            (own - exact(&below)).abs() < 1e-12 && (own + ranking.error_bound() - 1.0).abs() < 1e-12
        );
        assert_eq!(exact(&above), 1.0);
    }

    #[test]
    fn every_point_is_one_of_the_curve_of_all_scores_sorted() {
        let (truth, scores) = drawn(3_000, 5);
        let curve = counted(&truth, &scores).precision_recall_curve();
        let exact = precision_recall_curve(&truth, &scores).unwrap();
        for point in &curve {
            // The last exact threshold that is not below the bin's edge.
            let same = exact.iter().take_while(|p| p.threshold >= point.threshold).last().unwrap();
            assert_eq!((same.precision, same.recall), (point.precision, point.recall), "{point:?}");
        }
        assert!(curve.len() > 1_000 && curve.last().unwrap().recall == 1.0, "{}", curve.len());
    }

    #[test]
    fn bins_follow_each_other_and_begin_at_their_thresholds() {
        let edges: Vec<f32> = (0..=LAST).map(threshold).collect();
        assert!(edges.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!([bin(0.0), bin(-0.0), bin(1e-30), bin(0.5), bin(1.0)], [0, 0, 0, HALF, LAST]);
        let (_, scores) = drawn(10_000, 6);
        for p in
            scores.into_iter().chain([0.0, 1e-10, 0.25, 0.5, 0.5f32.next_up(), 1.0f32.next_down(), 1.0])
        {
            let bin = bin(p);
            assert!(edges[bin] <= p, "{p} {bin}");
            assert!(bin == LAST || p < edges[bin + 1] || edges[bin + 1] == 1.0, "{p} {bin}");
        }
    }

    #[test]
    fn parts_merged_are_the_whole_and_without_positives_there_is_no_average() {
        let (truth, scores) = drawn(500, 8);
        let mut parts = counted(&truth[..200], &scores[..200]);
        parts.merge(&counted(&truth[200..], &scores[200..]));
        assert_eq!(parts, counted(&truth, &scores));
        let none = counted(&[0.0, 0.0], &[0.1, 0.9]);
        assert_eq!((none.average_precision(), none.error_bound()), (None, 0.0));
        assert!(none.precision_recall_curve().is_empty());
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for wrong in [-0.1, 1.0f32.next_up(), f32::NAN] {
            let error = BinnedRanking::default().add(wrong, true).unwrap_err().to_string();
            assert!(error.contains("expected a probability of 0 to 1, got"), "{error}");
        }
    }
}
