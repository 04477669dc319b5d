//! Points and weights of an integral from 0 to 1.

use std::f64::consts::PI;

/// How an integral is made a sum, by Captum's names.
///
/// ```
/// use atrous::explain::attribution::Rule;
///
/// assert_eq!(Rule::RiemannMiddle.points(2), [(0.25, 0.5), (0.75, 0.5)]); // point, weight
/// assert_eq!(Rule::RiemannLeft.points(2)[0], (0.0, 0.5));
/// // Two points of Gauss' are enough for ∫ x³ = 1/4.
/// let sum: f64 = Rule::GaussLegendre.points(2).iter().map(|(x, weight)| weight * x.powi(3)).sum();
/// assert!((sum - 0.25).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The zeros of a Legendre polynomial: exact for polynomials of degree up to 2·steps − 1
    /// (`gausslegendre`).
    #[default]
    GaussLegendre,
    /// Equal steps, the value at the start of each (`riemann_left`).
    RiemannLeft,
    /// Equal steps, the value in the middle of each (`riemann_middle`).
    RiemannMiddle,
    /// Equal steps, the value at the end of each (`riemann_right`).
    RiemannRight,
}

impl Rule {
    /// (point, weight) of each of `steps` points, in order; the weights sum to 1.
    pub fn points(self, steps: usize) -> Vec<(f64, f64)> {
        let riemann = |offset: f64| {
            (0..steps).map(|i| ((i as f64 + offset) / steps as f64, 1.0 / steps as f64)).collect()
        };
        match self {
            Rule::GaussLegendre => gauss_legendre(steps),
            Rule::RiemannLeft => riemann(0.0),
            Rule::RiemannMiddle => riemann(0.5),
            Rule::RiemannRight => riemann(1.0),
        }
    }
}

/// The zeros of Pₙ by Newton's method, from −1..1 to 0..1; a zero x has the weight 2 / ((1 − x²)·Pₙ′(x)²).
fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let point = |i: usize| {
        let mut x = -(PI * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
        for _ in 0..100 {
            let (value, slope) = legendre(n, x);
            x -= value / slope;
            if (value / slope).abs() < 1e-15 {
                break;
            }
        }
        let (_, slope) = legendre(n, x);
        ((x + 1.0) / 2.0, 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..n).map(point).collect()
}

/// Pₙ(x) and its slope, by Bonnet's recursion: k·Pₖ = (2k − 1)·x·Pₖ₋₁ − (k − 1)·Pₖ₋₂.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut before, mut value) = (0.0, 1.0);
    for k in 1..=n {
        let k = k as f64;
        (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
    }
    (value, n as f64 * (x * value - before) / (x * x - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn integral(rule: Rule, steps: usize, f: impl Fn(f64) -> f64) -> f64 {
        rule.points(steps).into_iter().map(|(x, weight)| weight * f(x)).sum()
    }

    #[test]
    fn gauss_legendre_is_exact_for_polynomials_of_twice_the_degree() {
        for steps in [1, 2, 3, 8, 50, 333] {
            for degree in [0, 1, 2 * steps - 1] {
                let got = integral(Rule::GaussLegendre, steps, |x| x.powi(degree as i32));
                assert!((got * (degree + 1) as f64 - 1.0).abs() < 1e-11, "{steps} {degree}: {got}");
            }
            let inexact = integral(Rule::GaussLegendre, steps, |x| x.powi(2 * steps as i32));
            assert!(steps > 8 || (inexact * (2 * steps + 1) as f64 - 1.0).abs() > 1e-12);
        }
        // numpy.polynomial.legendre.leggauss(3), moved to 0..1.
        let expected = [(0.112_701_665_379_258_3, 5.0 / 18.0), (0.5, 8.0 / 18.0)];
        for ((x, weight), (expected, share)) in Rule::GaussLegendre.points(3).into_iter().zip(expected) {
            assert!((x - expected).abs() < 1e-14 && (weight - share).abs() < 1e-14, "{x} {weight}");
        }
    }

    #[test]
    fn riemann_sums_are_of_the_start_middle_and_end_of_each_step() {
        let sum = |rule| integral(rule, 4, |x| x);
        assert_eq!(sum(Rule::RiemannLeft), 0.375);
        assert_eq!(sum(Rule::RiemannMiddle), 0.5);
        assert_eq!(sum(Rule::RiemannRight), 0.625);
    }
}
