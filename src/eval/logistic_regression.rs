//! The control model: does a network see more than colour? Colour histograms and a linear,
//! multi-label logistic regression, which any network worth its time must beat.
//!
//! One regression a class, on features with mean 0 and deviation 1 (f in units of its deviation):
//! `p = 1 / (1 + exp(-(w·f + b)))`, minimising `Σ_i -log p(y_i) + l2/2 (|w|² + b²)` by Newton's
//! method with step halving. The function is strictly convex, so there is one answer and no
//! learning rate. Cost: `rows · features² · classes` a step, six to ten steps.

use crate::backend::cpu::threads;
use crate::error::{Error, Result};

/// Bins along each of red, green and blue.
const BINS: usize = 4;

/// Newton's method doubles the right digits each step; this many are never needed.
const MOST_STEPS: usize = 50;

/// The shares of an image's pixels (RGB, interleaved) in each of the `BINS³` boxes of the colour
/// cube, blue fastest. All zero for an image without pixels.
pub(crate) fn colour_histogram(rgb: &[u8]) -> Vec<f32> {
    let mut counts = vec![0u64; BINS * BINS * BINS];
    let bin = |value: u8| value as usize * BINS / 256;
    let (pixels, _) = rgb.as_chunks::<3>();
    for &[r, g, b] in pixels {
        counts[(bin(r) * BINS + bin(g)) * BINS + bin(b)] += 1;
    }
    let total = pixels.len().max(1) as f64;
    counts.into_iter().map(|count| (count as f64 / total) as f32).collect()
}

/// A linear multi-label classifier.
#[derive(Clone, Debug)]
pub(crate) struct LogisticRegression {
    features: usize,
    classes: usize,
    mean: Vec<f64>,
    /// One over the deviation; zero for a feature that never varies.
    scale: Vec<f64>,
    /// A row of weights and a bias for each class.
    weights: Vec<f64>,
}

impl LogisticRegression {
    /// `inputs` is rows of `features`, `labels` as many rows of `classes` zeros and ones. `l2` > 0
    /// is how strongly weights are drawn to zero; 1 is a good start, as much as one row's loss.
    pub(crate) fn fit(
        inputs: &[f32],
        features: usize,
        labels: &[f32],
        classes: usize,
        l2: f64,
    ) -> Result<Self> {
        const OP: &str = "LogisticRegression::fit";
        let rows = rows_of(OP, inputs, features)?;
        if classes == 0 || labels.len() != rows * classes {
            let expected = format!("{rows} rows of {classes} labels");
            return Err(Error::shape(OP, expected, format!("{} labels", labels.len())));
        }
        if let Some(i) = labels.iter().position(|&y| y != 0.0 && y != 1.0) {
            let (row, class, label) = (i / classes, i % classes, labels[i]);
            let message = format!("label {class} of row {row} is {label}, not 0 or 1");
            return Err(Error::argument(OP, message));
        }
        if !(l2 > 0.0 && l2.is_finite()) {
            return Err(Error::argument(OP, format!("l2 must be positive, got {l2}")));
        }
        let (mean, scale) = moments(inputs, features);
        let mut model = LogisticRegression { features, classes, mean, scale, weights: Vec::new() };
        let standardised: Vec<f64> =
            inputs.chunks_exact(features).flat_map(|row| model.standardise(row)).collect();
        let of_class = |class: usize| -> Vec<f64> {
            labels.iter().skip(class).step_by(classes).map(|&y| y as f64).collect()
        };
        let problem = |class| Problem { rows: &standardised, labels: of_class(class), l2 };
        model.weights = threads::map(classes, |class| problem(class).solve(features + 1)).concat();
        Ok(model)
    }

    /// A row of class probabilities for each row of `inputs`.
    pub(crate) fn predict(&self, inputs: &[f32]) -> Result<Vec<f32>> {
        rows_of("LogisticRegression::predict", inputs, self.features)?;
        let mut probabilities = Vec::with_capacity(inputs.len() / self.features * self.classes);
        for row in inputs.chunks_exact(self.features) {
            let row: Vec<f64> = self.standardise(row).collect();
            let of_class = |weights: &[f64]| sigmoid(dot(&row, weights)) as f32;
            probabilities.extend(self.weights.chunks_exact(row.len()).map(of_class));
        }
        Ok(probabilities)
    }

    /// The features in units of their deviations, and a one for the bias.
    fn standardise(&self, row: &[f32]) -> impl Iterator<Item = f64> {
        let centred = row.iter().zip(&self.mean).map(|(&value, mean)| value as f64 - mean);
        centred.zip(&self.scale).map(|(value, scale)| value * scale).chain([1.0])
    }
}

fn rows_of(op: &'static str, inputs: &[f32], features: usize) -> Result<usize> {
    if features == 0 || inputs.is_empty() || !inputs.len().is_multiple_of(features) {
        let expected = format!("one or more whole rows of {features} features");
        return Err(Error::shape(op, expected, format!("{} numbers", inputs.len())));
    }
    if let Some(i) = inputs.iter().position(|value| !value.is_finite()) {
        let message = format!("feature {} of row {} is {}", i % features, i / features, inputs[i]);
        return Err(Error::argument(op, message));
    }
    Ok(inputs.len() / features)
}

/// Mean and one over the deviation of every column.
fn moments(inputs: &[f32], features: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = (inputs.len() / features) as f64;
    let column = |j: usize| inputs.iter().skip(j).step_by(features).map(|&value| value as f64);
    (0..features)
        .map(|j| {
            let mean = column(j).sum::<f64>() / rows;
            let variance = column(j).map(|value| (value - mean).powi(2)).sum::<f64>() / rows;
            // A column of one value has a variance of rounding errors, or none.
            let varies = variance.sqrt() > 1e-9 * mean.abs().max(f64::MIN_POSITIVE);
            (mean, if varies { 1.0 / variance.sqrt() } else { 0.0 })
        })
        .unzip()
}

/// The regression of one class.
struct Problem<'a> {
    rows: &'a [f64],
    labels: Vec<f64>,
    l2: f64,
}

impl Problem<'_> {
    fn solve(&self, size: usize) -> Vec<f64> {
        let mut weights = vec![0.0; size];
        let mut loss = self.loss(&weights);
        for _ in 0..MOST_STEPS {
            let step = self.newton_step(&weights);
            let mut share = 1.0;
            let (next, next_loss) = loop {
                let next: Vec<f64> = weights.iter().zip(&step).map(|(w, s)| w - share * s).collect();
                let next_loss = self.loss(&next);
                if next_loss < loss {
                    break (next, next_loss);
                }
                share *= 0.5;
                if share < 1e-6 {
                    return weights; // at the minimum, to rounding
                }
            };
            let gained = loss - next_loss;
            (weights, loss) = (next, next_loss);
            if gained <= 1e-12 * loss {
                break;
            }
        }
        weights
    }

    fn loss(&self, weights: &[f64]) -> f64 {
        let rows = self.rows.chunks_exact(weights.len()).zip(&self.labels);
        // -log p(y) = log(1 + exp(z)) - y z, in the form that cannot overflow.
        let data = rows.map(|(row, y)| {
            let z = dot(row, weights);
            z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z
        });
        data.sum::<f64>() + 0.5 * self.l2 * dot(weights, weights)
    }

    /// `H⁻¹ g` with `g = Σ (p - y) f + l2 w` and `H = Σ p (1 - p) f fᵀ + l2 I`.
    fn newton_step(&self, weights: &[f64]) -> Vec<f64> {
        let n = weights.len();
        let mut gradient: Vec<f64> = weights.iter().map(|w| self.l2 * w).collect();
        let mut hessian = vec![0.0; n * n]; // its lower triangle
        for (row, y) in self.rows.chunks_exact(n).zip(&self.labels) {
            let p = sigmoid(dot(row, weights));
            gradient.iter_mut().zip(row).for_each(|(g, f)| *g += (p - y) * f);
            for (i, line) in hessian.chunks_exact_mut(n).enumerate() {
                let weighted = p * (1.0 - p) * row[i];
                line[..=i].iter_mut().zip(row).for_each(|(h, f)| *h += weighted * f);
            }
        }
        hessian.iter_mut().step_by(n + 1).for_each(|h| *h += self.l2);
        solve_positive_definite(&mut hessian, &mut gradient);
        gradient
    }
}

/// Replaces `b` by `A⁻¹ b` and the lower triangle of `a` by its Cholesky factor.
fn solve_positive_definite(a: &mut [f64], b: &mut [f64]) {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let rest = a[i * n + j] - dot(&a[i * n..i * n + j], &a[j * n..j * n + j]);
            a[i * n + j] = if i == j { rest.sqrt() } else { rest / a[j * n + j] };
        }
    }
    for i in 0..n {
        b[i] = (b[i] - dot(&a[i * n..i * n + i], &b[..i])) / a[i * n + i];
    }
    for i in (0..n).rev() {
        b[i] /= a[i * n + i];
        let solved = b[i];
        b[..i].iter_mut().zip(&a[i * n..i * n + i]).for_each(|(b, a)| *b -= a * solved);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::{Interpolation, mean_average_precision};
    use crate::random::{Stream, domain};

    fn map(labels: &[f32], scores: &[f32], classes: usize) -> f64 {
        mean_average_precision(labels, scores, classes, Interpolation::Area).unwrap()
    }

    /// Normal features, and labels drawn by `label(row, class)`.
    fn toy(
        rows: usize,
        features: usize,
        classes: usize,
        label: impl Fn(&[f32], usize, &mut Stream) -> bool,
    ) -> (Vec<f32>, Vec<f32>) {
        let mut stream = Stream::new(5, &[domain::TEST]);
        let inputs: Vec<f32> = (0..rows * features).map(|_| stream.normal()).collect();
        let rows = inputs.chunks_exact(features);
        let labels = rows.flat_map(|row| {
            (0..classes).map(|class| label(row, class, &mut stream) as u8 as f32).collect::<Vec<_>>()
        });
        let labels = labels.collect();
        (inputs, labels)
    }

    #[test]
    fn a_histogram_is_the_share_of_each_colour() {
        let histogram = colour_histogram(&[0, 0, 0, 255, 255, 255, 63, 0, 64, 255, 192, 255]);
        assert_eq!(histogram.len(), 64);
        assert_eq!((histogram[0], histogram[1], histogram[63]), (0.25, 0.25, 0.5));
        assert_eq!(histogram.iter().sum::<f32>(), 1.0);
        assert!(colour_histogram(&[]).iter().all(|&share| share == 0.0));
    }

    #[test]
    fn it_learns_classes_that_a_plane_separates() {
        let (inputs, labels) = toy(600, 6, 3, |row, class, _| row[class] + 2.0 * row[class + 3] > 0.5);
        let model = LogisticRegression::fit(&inputs[..400 * 6], 6, &labels[..400 * 3], 3, 1.0).unwrap();
        let scores = model.predict(&inputs[400 * 6..]).unwrap();
        let reached = map(&labels[400 * 3..], &scores, 3);
        assert!(reached > 0.99, "{reached}");
    }

    #[test]
    fn on_random_labels_new_rows_are_ranked_no_better_than_chance() {
        let (inputs, labels) = toy(4000, 8, 4, |_, _, stream| stream.unit() < 0.3);
        let model =
            LogisticRegression::fit(&inputs[..2000 * 8], 8, &labels[..2000 * 4], 4, 1.0).unwrap();
        let scores = model.predict(&inputs[2000 * 8..]).unwrap();
        let reached = map(&labels[2000 * 4..], &scores, 4);
        assert!((reached - 0.3).abs() < 0.03, "{reached}");
    }

    #[test]
    fn the_gradient_is_zero_at_the_answer() {
        let (inputs, labels) = toy(200, 5, 1, |row, _, stream| row[0] + stream.normal() > 0.0);
        let model = LogisticRegression::fit(&inputs, 5, &labels, 1, 0.5).unwrap();
        let mut gradient: Vec<f64> = model.weights.iter().map(|w| 0.5 * w).collect();
        for (row, &y) in inputs.chunks_exact(5).zip(&labels) {
            let row: Vec<f64> = model.standardise(row).collect();
            let error = sigmoid(dot(&row, &model.weights)) - y as f64;
            gradient.iter_mut().zip(&row).for_each(|(g, f)| *g += error * f);
        }
        assert!(gradient.iter().all(|g| g.abs() < 1e-5), "{gradient:?}");
    }

    #[test]
    fn a_class_that_never_occurs_and_a_feature_that_never_varies_do_no_harm() {
        let inputs = [0.0, 7.0, 1.0, 7.0, 2.0, 7.0, 3.0, 7.0];
        let labels = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let model = LogisticRegression::fit(&inputs, 2, &labels, 2, 0.01).unwrap();
        let p = model.predict(&inputs).unwrap();
        assert!(p.iter().all(|p| p.is_finite()));
        assert!(p[0] < 0.1 && p[6] > 0.9 && p[1] < 0.1 && p[7] < 0.1, "{p:?}");
    }

    #[test]
    fn the_answer_does_not_depend_on_the_number_of_threads() {
        let (inputs, labels) = toy(100, 5, 4, |row, class, _| row[class] > 0.3);
        let fit = |threads| {
            threads::with(threads, || LogisticRegression::fit(&inputs, 5, &labels, 4, 1.0))
                .unwrap()
                .unwrap()
        };
        assert_eq!(fit(1).weights, fit(3).weights);
    }

    #[test]
    fn what_cannot_be_fitted_is_refused_with_the_reason() {
        let fit = |inputs: &[f32], labels: &[f32], l2| {
            LogisticRegression::fit(inputs, 2, labels, 1, l2).map(drop).unwrap_err().to_string()
        };
        assert!(fit(&[1.0; 3], &[0.0], 1.0).contains("whole rows of 2 features"));
        assert!(fit(&[1.0; 4], &[0.0], 1.0).contains("2 rows of 1 labels"));
        assert!(fit(&[1.0; 2], &[0.5], 1.0).contains("label 0 of row 0 is 0.5"));
        assert!(fit(&[1.0, f32::NAN], &[1.0], 1.0).contains("feature 1 of row 0 is NaN"));
        assert!(fit(&[1.0; 2], &[1.0], 0.0).contains("l2 must be positive"));
    }
}
