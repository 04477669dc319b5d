//! How much of a score is chance: a bootstrap interval, and the score of a ranking that cannot know.

use super::mean;
use crate::backend::cpu::threads;
use crate::error::{Error, Result};
use crate::random::{Stream, domain};

/// The middle 95 % of a score over resampled test sets, and its mean over them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// 2.5 % of the scores are below.
    pub low: f64,
    /// The mean of the scores.
    pub mean: f64,
    /// 2.5 % of the scores are above.
    pub high: f64,
}

/// What the score comes to when the truth belongs to other images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Control {
    /// The mean over the shuffles.
    pub mean: f64,
    /// 95 % of the shuffles score less: a real score should be above.
    pub upper: f64,
}

/// The percentile bootstrap (Efron 1979): `samples` indices are drawn with replacement, scored, and
/// again. A draw that has no score (not a number, e.g. no positives in it) is left out; an error where no
/// draw has one, and for no samples or repeats. The same seed gives the same draws.
///
/// ```
/// use atrous::eval::metrics::bootstrap;
///
/// // 80 of 100 answers are right. The deviation of such a share is √(.8 · .2 / 100) = .04.
/// let right: Vec<f64> = (0..100).map(|i| (i < 80) as u8 as f64).collect();
/// let share = |drawn: &[usize]| drawn.iter().map(|&i| right[i]).sum::<f64>() / 100.0;
/// let interval = bootstrap(100, 1000, 1, share)?;
/// assert!((interval.mean - 0.8).abs() < 0.01);
/// assert!((interval.low - (0.8 - 1.96 * 0.04)).abs() < 0.02);
/// assert!((interval.high - (0.8 + 1.96 * 0.04)).abs() < 0.02);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn bootstrap(
    samples: usize,
    repeats: usize,
    seed: u64,
    score: impl Fn(&[usize]) -> f64 + Sync + Send,
) -> Result<Interval> {
    let scores = repeated("bootstrap", samples, repeats, |repeat| {
        let mut stream = Stream::new(seed, &[domain::BOOTSTRAP, 0, repeat as u64]);
        let drawn: Vec<usize> = (0..samples).map(|_| stream.below(samples)).collect();
        score(&drawn)
    })?;
    Ok(Interval {
        low: quantile(&scores, 0.025),
        mean: mean(scores.iter().copied()),
        high: quantile(&scores, 0.975),
    })
}

/// The permutation control: `score(order)` pairs prediction `i` with the truth of `order[i]`.
/// Errors as in [`bootstrap`].
///
/// ```
/// use atrous::eval::metrics::permutation_control;
///
/// // Half of 100 labels are 1, and all are predicted. With another image's labels it is chance.
/// let label = |i: usize| i % 2;
/// let score = |order: &[usize]| {
///     let right = order.iter().enumerate().filter(|&(i, &other)| label(i) == label(other));
///     right.count() as f64 / 100.0
/// };
/// let control = permutation_control(100, 200, 1, score)?;
/// assert!((control.mean - 0.5).abs() < 0.02 && control.upper < 0.7);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn permutation_control(
    samples: usize,
    repeats: usize,
    seed: u64,
    score: impl Fn(&[usize]) -> f64 + Sync + Send,
) -> Result<Control> {
    let scores = repeated("permutation control", samples, repeats, |repeat| {
        score(&Stream::new(seed, &[domain::BOOTSTRAP, 1, repeat as u64]).permutation(samples))
    })?;
    Ok(Control { mean: mean(scores.iter().copied()), upper: quantile(&scores, 0.95) })
}

/// The scores that are numbers, sorted. Each repeat has a stream of its own, so that the threads
/// may take them in any order.
fn repeated(
    what: &'static str,
    samples: usize,
    repeats: usize,
    score: impl Fn(usize) -> f64 + Sync + Send,
) -> Result<Vec<f64>> {
    if samples == 0 || repeats == 0 {
        let message = format!("needs samples and repeats, got {samples} samples and {repeats} repeats");
        return Err(Error::argument(what, message));
    }
    let mut scores = threads::map(repeats, score);
    scores.retain(|score| !score.is_nan());
    if scores.is_empty() {
        return Err(Error::argument(what, format!("none of the {repeats} repeats has a score")));
    }
    scores.sort_by(f64::total_cmp);
    Ok(scores)
}

/// Linear between the two nearest of the sorted values (NumPy's default).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numpys() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&values, 0.5), 3.0);
        assert!((quantile(&values, 0.95) - 7.4).abs() < 1e-12);
        assert_eq!((quantile(&values, 0.0), quantile(&values, 1.0)), (1.0, 8.0));
    }

    #[test]
    fn the_interval_of_a_mean_has_the_width_that_theory_gives() {
        // 400 coin flips, half of them heads: the mean's deviation is 0.5 / 20 = 0.025.
        let value = |i: usize| (i % 2) as f64;
        let score = |order: &[usize]| mean(order.iter().map(|&i| value(i)));
        let interval = bootstrap(400, 2000, 7, score).unwrap();
        assert!((interval.mean - 0.5).abs() < 0.003, "{interval:?}");
        assert!((interval.low - (0.5 - 1.96 * 0.025)).abs() < 0.006, "{interval:?}");
        assert!((interval.high - (0.5 + 1.96 * 0.025)).abs() < 0.006, "{interval:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval_at_any_thread_count() {
        let score = |order: &[usize]| mean(order.iter().map(|&i| (i * i) as f64));
        let run =
            |threads, seed| threads::with(threads, || bootstrap(50, 200, seed, score)).unwrap().unwrap();
        assert_eq!(run(1, 3), run(3, 3));
        assert_ne!(run(1, 3), run(1, 4));
    }

    #[test]
    fn shuffled_truth_agrees_by_chance_only() {
        // Half the truths are 1; a perfect prediction of them agrees with a shuffle half the time.
        let label = |i: usize| i % 2;
        let agree = |order: &[usize]| {
            mean(order.iter().enumerate().map(|(i, &j)| (label(i) == label(j)) as u8 as f64))
        };
        let control = permutation_control(400, 500, 7, agree).unwrap();
        assert!((control.mean - 0.5).abs() < 0.01, "{control:?}");
        assert!(control.upper > control.mean && control.upper < 0.6, "{control:?}");
    }

    #[test]
    fn draws_without_a_score_are_left_out_and_none_at_all_is_an_error() {
        let sometimes = |order: &[usize]| if order.contains(&0) { 1.0 } else { f64::NAN };
        assert_eq!(bootstrap(5, 100, 1, sometimes).unwrap().mean, 1.0);
        assert!(bootstrap(5, 100, 1, |_| f64::NAN).is_err());
        assert!(bootstrap(0, 100, 1, |_| 1.0).is_err());
        assert!(permutation_control(5, 0, 1, |_| 1.0).is_err());
    }
}
