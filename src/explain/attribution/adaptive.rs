//! Integrated gradients with steps where the score changes.
//!
//! On the way from black to an image the score of a network of many layers hardly moves for long, and then
//! leaps. A rule of fixed places spends most of its steps where nothing happens, and misses the leap. Here
//! the way is cut into pieces, each by the trapezoidal rule, and the pieces that are furthest off are halved,
//! again and again. How far a piece is off is known: its share must be the score's change from one of its
//! ends to the other. No step is lost, as one is when a whole sum is made anew with more of them.
//!
//! (Bhat and Raychowdhury, 2023, set their steps by the score's change, too, in one go.)

use super::Target;
use super::integrated_gradients::{IntegratedAttributions, Line};
use crate::error::{Error, Result};
use crate::nn::Model;
use crate::tensor::Tensor;

/// Pieces to begin with.
const FIRST: usize = 8;
/// Pieces that are halved before all are looked at again.
const AT_A_TIME: usize = 8;

/// The settings of adaptive integrated gradients.
///
/// ```
/// use atrous::explain::attribution::{AdaptiveIntegratedGradients, Target};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// let features = Layer::conv2d(4, 3).with_activation(Activation::Relu);
/// graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
/// let model = Model::new(graph, 1);
/// let image = Tensor::rand([1, 16, 16, 3], 7);
///
/// let black = Tensor::zeros([1, 16, 16, 3]);
/// let target = Target::class(&model, 0)?;
/// let shares = AdaptiveIntegratedGradients::from(black).attribute(&model, &image, &target)?;
/// assert_eq!(shares.attributions.shape()[..], [1, 16, 16, 3]);
/// assert!(shares.completeness_gap() <= 0.01);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct AdaptiveIntegratedGradients {
    /// x′, [1, H, W, C] in the network's scale: an image from which nothing can be seen.
    pub baseline: Tensor,
    /// It stops when the completeness gap is at most this; 0.01 by default.
    pub gap: f64,
    /// And after so many gradients, at least 2; 256 by default. Each is kept, 4·H·W·C bytes.
    pub most_steps: usize,
}

/// Within 1 %, from this baseline.
impl From<Tensor> for AdaptiveIntegratedGradients {
    fn from(baseline: Tensor) -> Self {
        AdaptiveIntegratedGradients { baseline, gap: 0.01, most_steps: 256 }
    }
}

/// A place on the way.
struct Point {
    t: f64,
    score: f64,
    /// ∂score/∂t
    slope: f64,
    /// ∂score/∂x
    gradient: Vec<f32>,
}

impl AdaptiveIntegratedGradients {
    /// The shares of one image [1, H, W, C]. Where shares of either sign nearly cancel, so that the score
    /// hardly changes between baseline and image, the steps may not be enough: look at
    /// [`completeness_gap`](IntegratedAttributions::completeness_gap). An error for a baseline of another
    /// shape, fewer than two steps, and what is not finite.
    pub fn attribute(
        &self,
        model: &Model,
        x: &Tensor,
        target: &Target,
    ) -> Result<IntegratedAttributions> {
        if self.most_steps < 2 {
            let message = format!("expected at least 2, got {}", self.most_steps);
            return Err(Error::argument("steps", message));
        }
        let line = Line::new(&self.baseline, x, model, target)?;
        let pieces = FIRST.min(self.most_steps - 1);
        let places: Vec<f64> = (0..=pieces).map(|i| i as f64 / pieces as f64).collect();
        let mut points = points(&line, &places)?;
        while let Some(places) = self.next(&points) {
            points.extend(self::points(&line, &places)?);
            points.sort_by(|a, b| a.t.total_cmp(&b.t));
        }
        line.shares(&mean_gradient(&points), ends(&points), points.len())
    }

    /// Where to look next: the middles of the pieces that are furthest off. None when all together are near
    /// enough, or no step is left.
    fn next(&self, points: &[Point]) -> Option<Vec<f64>> {
        let deltas: Vec<f64> = points.windows(2).map(|piece| delta(&piece[0], &piece[1])).collect();
        let [before, after] = ends(points);
        let complete = deltas.iter().sum::<f64>().abs() <= self.gap * (after - before).abs();
        let room = self.most_steps.saturating_sub(points.len());
        if complete || room == 0 {
            return None;
        }
        let mut worst: Vec<usize> = (0..deltas.len()).collect();
        worst.sort_by(|&a, &b| deltas[b].abs().total_cmp(&deltas[a].abs()));
        worst.truncate(AT_A_TIME.min(room));
        Some(worst.into_iter().map(|i| (points[i].t + points[i + 1].t) / 2.0).collect())
    }
}

/// By how much the trapezoidal rule on a piece misses the score's change.
fn delta(a: &Point, b: &Point) -> f64 {
    (a.slope + b.slope) / 2.0 * (b.t - a.t) - (b.score - a.score)
}

/// The scores of the first and the last point.
fn ends(points: &[Point]) -> [f64; 2] {
    [points[0].score, points[points.len() - 1].score]
}

fn points(line: &Line, places: &[f64]) -> Result<Vec<Point>> {
    let mut all = Vec::with_capacity(places.len());
    for places in places.chunks(line.batch()) {
        let (scores, gradients) = line.gradients(places)?;
        let gradients = gradients.chunks_exact(line.way.len());
        for ((&t, score), gradient) in places.iter().zip(scores).zip(gradients) {
            let slope = gradient.iter().zip(&line.way).map(|(g, way)| g * way).sum();
            let gradient = gradient.iter().map(|&g| g as f32).collect();
            all.push(Point { t, score, slope, gradient });
        }
    }
    Ok(all)
}

/// The mean over the way: each point stands for half of the pieces on its two sides.
fn mean_gradient(points: &[Point]) -> Vec<f64> {
    let mut mean = vec![0.0; points[0].gradient.len()];
    for (i, point) in points.iter().enumerate() {
        let before = points[i.saturating_sub(1)].t;
        let after = points[(i + 1).min(points.len() - 1)].t;
        let weight = (after - before) / 2.0;
        mean.iter_mut().zip(&point.gradient).for_each(|(mean, &g)| *mean += weight * f64::from(g));
    }
    mean
}
