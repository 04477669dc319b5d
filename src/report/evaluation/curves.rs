//! Precision–recall curves as a file keeps them: points enough to draw.

use super::PrecisionRecallPoints;
use crate::eval::metrics::PrecisionRecall;

/// The curve over all classes together is called this.
pub(super) const ALL: &str = "all classes";
/// Points of a curve at most: more than a plot has pixels for.
const POINTS: usize = 100;

/// A class' curve, thinned.
pub(super) fn points(name: &str, curve: &[PrecisionRecall]) -> PrecisionRecallPoints {
    let points: Vec<(f64, f64)> = curve.iter().map(|p| (p.recall, p.precision)).collect();
    PrecisionRecallPoints { name: name.into(), points: thinned(&points) }
}

/// At most [`POINTS`] of them, the first and the last among them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let last = points.len() - 1;
    (0..POINTS).map(|i| points[i * last / (POINTS - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_curve_keeps_its_ends() {
        let points: Vec<(f64, f64)> = (0..1234).map(|i| (i as f64, 0.0)).collect();
        let few = thinned(&points);
        assert_eq!((few.len(), few[0], few[99]), (100, points[0], points[1233]));
        assert!(few.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thinned(&points[..7]), points[..7]);
    }
}
