//! Average precision of PASCAL VOC: how well a class's scores rank its images.
//!
//! Walking down the ranking, `recall = found / positives` and `precision = found / seen`. Precision
//! is made monotone, `p(r) = max over r' >= r of precision(r')`, and averaged over recall.
//! Source: Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective" (2015),
//! and the development kits: up to VOC 2009 at eleven points, from VOC 2010 on over all of them.
//!
//! Images with the same score are seen together: no threshold could part them, and so the order
//! of the images does not matter. A class whose scores are all equal gets its share of positives.

use super::{same_length, whole_rows};
use crate::error::{Error, Result};

/// How precision is averaged over recall.
///
/// ```
/// use atrous::eval::metrics::{Interpolation, average_precision};
///
/// // Right, wrong, right: precision 1 up to a recall of ½, then ⅔.
/// let (truth, scores) = ([1.0, 0.0, 1.0], [0.9, 0.8, 0.7]);
/// let area = average_precision(&truth, &scores, Interpolation::Area)?.unwrap();
/// assert!((area - (0.5 * 1.0 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
/// let eleven = average_precision(&truth, &scores, Interpolation::ElevenPoints)?.unwrap();
/// assert!((eleven - (6.0 * 1.0 + 5.0 * 2.0 / 3.0) / 11.0).abs() < 1e-12);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// The area under the monotone precision (VOC 2010 and later).
    #[default]
    Area,
    /// The mean of precision at recall 0, 0.1, … 1 (VOC 2007 to 2009).
    ElevenPoints,
}

/// Average precision of one class, 0 to 1; None for a class without positives, where it has no meaning.
/// `truth` is not 0 for a positive. An error for slices of other lengths and scores that are NaN.
///
/// ```
/// use atrous::eval::metrics::{Interpolation, average_precision};
///
/// let of = |truth: &[f32], scores: &[f32]| average_precision(truth, scores, Interpolation::Area);
/// assert_eq!(of(&[1.0, 0.0, 0.0], &[0.9, 0.5, 0.1])?, Some(1.0));
/// assert_eq!(of(&[0.0, 0.0, 1.0, 0.0], &[0.5; 4])?, Some(0.25)); // who cannot tell gets the share
/// assert_eq!(of(&[0.0, 0.0], &[0.9, 0.1])?, None);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn average_precision(
    truth: &[f32],
    scores: &[f32],
    interpolation: Interpolation,
) -> Result<Option<f64>> {
    let ranked = ranked("average_precision", truth, scores)?;
    let positives = truth.iter().filter(|&&y| y != 0.0).count();
    if positives == 0 {
        return Ok(None);
    }
    let mut curve: Vec<(usize, f64)> =
        ranked.iter().map(|group| (group.found, group.found as f64 / group.seen as f64)).collect();
    let mut best = 0.0f64;
    for (_, precision) in curve.iter_mut().rev() {
        best = best.max(*precision);
        *precision = best;
    }
    Ok(Some(match interpolation {
        Interpolation::Area => {
            let mut before = 0;
            let area = curve.iter().map(|&(found, precision)| {
                let step = found - before;
                before = found;
                step as f64 * precision
            });
            area.sum::<f64>() / positives as f64
        }
        Interpolation::ElevenPoints => {
            // In whole numbers: found / positives >= point / 10.
            let at = |point| curve.iter().find(|(found, _)| found * 10 >= point * positives);
            (0..=10).map(|point| at(point).map_or(0.0, |&(_, precision)| precision)).sum::<f64>() / 11.0
        }
    }))
}

/// A point of a precision–recall curve: what would be found with this threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// Positive is said of scores from this on.
    pub threshold: f32,
    /// The share of those that are positive of those that were said to be.
    pub precision: f64,
    /// The share of the positives that was found.
    pub recall: f64,
}

/// The precision–recall curve, from the highest threshold down: one point a score that occurs, as in
/// scikit-learn's `precision_recall_curve`. Empty without positives. Errors as in [`average_precision`].
///
/// ```
/// use atrous::eval::metrics::precision_recall_curve;
///
/// let curve = precision_recall_curve(&[1.0, 0.0, 1.0], &[0.9, 0.8, 0.7])?;
/// assert_eq!((curve[0].precision, curve[0].recall), (1.0, 0.5));
/// assert_eq!((curve[1].precision, curve[1].recall), (0.5, 0.5));
/// assert_eq!((curve[2].threshold, curve[2].precision, curve[2].recall), (0.7, 2.0 / 3.0, 1.0));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn precision_recall_curve(truth: &[f32], scores: &[f32]) -> Result<Vec<PrecisionRecall>> {
    let ranked = ranked("precision_recall_curve", truth, scores)?;
    let positives = ranked.last().map_or(0, |all| all.found);
    let point = |group: &Ranked| PrecisionRecall {
        threshold: group.score,
        precision: group.found as f64 / group.seen as f64,
        recall: group.found as f64 / positives as f64,
    };
    Ok(if positives == 0 { Vec::new() } else { ranked.iter().map(point).collect() })
}

/// Down to the images of one score: how many were seen, and how many positives were among them.
struct Ranked {
    score: f32,
    seen: usize,
    found: usize,
}

fn ranked(op: &'static str, truth: &[f32], scores: &[f32]) -> Result<Vec<Ranked>> {
    same_length(op, truth, scores)?;
    if let Some(row) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::argument(op, format!("the score of row {row} is not a number")));
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Not `total_cmp`: 0 and -0 are the same score.
    order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(std::cmp::Ordering::Equal));
    let (mut found, mut seen) = (0, 0);
    let groups = order.chunk_by(|&a, &b| scores[a] == scores[b]);
    let sum = groups.map(|group| {
        found += group.iter().filter(|&&i| truth[i] != 0.0).count();
        seen += group.len();
        Ranked { score: scores[group[0]], seen, found }
    });
    Ok(sum.collect())
}

/// Average precision of every column of [images, columns]; errors as in [`average_precision`].
///
/// ```
/// use atrous::eval::metrics::{Interpolation, average_precisions};
///
/// // Two images, two classes; nothing shows the second.
/// let (truth, scores) = ([1.0, 0.0, 0.0, 0.0], [0.9, 0.2, 0.3, 0.8]);
/// let each = average_precisions(&truth, &scores, 2, Interpolation::default())?;
/// assert_eq!(each, [Some(1.0), None]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn average_precisions(
    truth: &[f32],
    scores: &[f32],
    columns: usize,
    interpolation: Interpolation,
) -> Result<Vec<Option<f64>>> {
    same_length("average_precisions", truth, scores)?;
    whole_rows("average_precisions", truth, columns)?;
    let column =
        |table: &[f32], c: usize| table.iter().skip(c).step_by(columns).copied().collect::<Vec<_>>();
    (0..columns)
        .map(|c| average_precision(&column(truth, c), &column(scores, c), interpolation))
        .collect()
}

/// The mean of [`average_precisions`] over the classes that have positives; an error if none has.
///
/// ```
/// use atrous::eval::metrics::{Interpolation, mean_average_precision};
///
/// // The first class's image has the higher score, the second class's the lower.
/// let (truth, scores) = ([1.0, 0.0, 0.0, 1.0], [0.9, 0.8, 0.3, 0.2]);
/// let map = mean_average_precision(&truth, &scores, 2, Interpolation::default())?;
/// assert_eq!(map, (1.0 + 0.5) / 2.0);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn mean_average_precision(
    truth: &[f32],
    scores: &[f32],
    columns: usize,
    interpolation: Interpolation,
) -> Result<f64> {
    let per_class = average_precisions(truth, scores, columns, interpolation)?;
    let present: Vec<f64> = per_class.into_iter().flatten().collect();
    if present.is_empty() {
        return Err(Error::argument("mean_average_precision", "no class has a positive row"));
    }
    Ok(super::mean(present.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_recall_curve_has_a_point_a_score_and_ends_with_all_found() {
        // Worked out by hand: 1 of 1, then 2 of 4 (two share a score), then all 3 of 5.
        let (truth, scores) = ([1.0, 0.0, 1.0, 0.0, 1.0], [0.9, 0.5, 0.5, 0.5, 0.1]);
        let curve = precision_recall_curve(&truth, &scores).unwrap();
        let points: Vec<_> = curve.iter().map(|p| (p.threshold, p.precision, p.recall)).collect();
        let third = 1.0 / 3.0;
        assert_eq!(points, [(0.9, 1.0, third), (0.5, 0.5, 2.0 * third), (0.1, 0.6, 1.0)]);
        assert!(precision_recall_curve(&[0.0, 0.0], &[0.1, 0.2]).unwrap().is_empty());
        assert!(precision_recall_curve(&[1.0], &[f32::NAN]).is_err());
    }
    use Interpolation::*;

    fn ap(truth: &[u8], scores: &[f32], interpolation: Interpolation) -> f64 {
        let truth: Vec<f32> = truth.iter().map(|&y| y as f32).collect();
        average_precision(&truth, scores, interpolation).unwrap().unwrap()
    }

    #[test]
    fn the_area_is_under_the_monotone_precision() {
        // Precision 1, 1/2, 2/3, 1/2, 3/5 at recall 1/3, 1/3, 2/3, 2/3, 1.
        let (truth, scores) = ([1, 0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6, 0.5]);
        let expected = (1.0 + 2.0 / 3.0 + 3.0 / 5.0) / 3.0;
        assert!((ap(&truth, &scores, Area) - expected).abs() < 1e-12);
        // 0 … 0.3: precision 1; 0.4, 0.5, 0.6: 2/3; 0.7 … 1: 3/5.
        let expected = (4.0 + 3.0 * 2.0 / 3.0 + 4.0 * 3.0 / 5.0) / 11.0;
        assert!((ap(&truth, &scores, ElevenPoints) - expected).abs() < 1e-12);
    }

    #[test]
    fn a_later_higher_precision_counts_for_the_earlier_recall() {
        // Precision 0, 1/2, 2/3: both positives at 2/3.
        assert!((ap(&[0, 1, 1], &[3.0, 2.0, 1.0], Area) - 2.0 / 3.0).abs() < 1e-12);
        assert!((ap(&[0, 1, 1], &[3.0, 2.0, 1.0], ElevenPoints) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn perfect_and_worst_rankings_have_their_values() {
        for interpolation in [Area, ElevenPoints] {
            assert!((ap(&[1, 1, 0, 0], &[4.0, 3.0, 2.0, 1.0], interpolation) - 1.0).abs() < 1e-12);
            assert!((ap(&[0, 0, 0, 1], &[4.0, 3.0, 2.0, 1.0], interpolation) - 0.25).abs() < 1e-12);
        }
    }

    #[test]
    fn exactly_ten_positives_reach_every_one_of_the_eleven_points() {
        // One positive, then a negative, …: at 0.3 recall (3 of 10) precision is 3/5 already.
        let truth: Vec<u8> = (0..20).map(|i| (i % 2 == 0) as u8).collect();
        let scores: Vec<f32> = (0..20).map(|i| -(i as f32)).collect();
        let at = |k: usize| k.max(1) as f64 / (2 * k.max(1) - 1) as f64;
        let expected = (0..=10).map(at).sum::<f64>() / 11.0;
        assert!((ap(&truth, &scores, ElevenPoints) - expected).abs() < 1e-12);
    }

    #[test]
    fn equal_scores_do_not_depend_on_the_order_of_the_rows() {
        for truth in [[1, 0, 0, 0], [0, 0, 0, 1]] {
            assert_eq!(ap(&truth, &[0.5; 4], Area), 0.25);
            assert_eq!(ap(&truth, &[0.0, -0.0, 0.0, -0.0], Area), 0.25);
        }
    }

    #[test]
    fn a_class_without_positives_is_left_out_of_the_mean() {
        let truth = [1.0, 0.0, 0.0, 0.0]; // two rows, two classes, the second class never
        let scores = [0.1, 0.5, 0.2, 0.6];
        assert_eq!(average_precisions(&truth, &scores, 2, Area).unwrap(), [Some(0.5), None]);
        assert_eq!(mean_average_precision(&truth, &scores, 2, Area).unwrap(), 0.5);
        assert!(mean_average_precision(&[0.0; 4], &scores, 2, Area).is_err());
    }

    #[test]
    fn a_score_that_is_not_a_number_is_refused_with_its_row() {
        let error = average_precision(&[1.0, 0.0], &[0.5, f32::NAN], Area).unwrap_err().to_string();
        assert!(error.contains("row 1"), "{error}");
        assert!(average_precision(&[1.0], &[], Area).is_err());
    }
}
