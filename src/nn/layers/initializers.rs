//! How parameters start, as Keras computes it. The numbers come from this crate's own streams,
//! one a parameter, named by the parameter's path.

use crate::pool::Buffer;
use crate::random::{Stream, domain, hash_name};
use crate::tensor::{Shape, Tensor};

/// The distribution that a parameter's first values are drawn from.
///
/// ```
/// use atrous::nn::layers::Initializer;
///
/// let kernel = Initializer::GlorotUniform.fill([2, 4].into(), 7, "dense/kernel");
/// assert!(kernel.to_vec_f64().iter().all(|w| w.abs() <= 1.0)); // √(6 / (2 + 4))
/// let another = Initializer::GlorotUniform.fill([2, 4].into(), 7, "dense_1/kernel");
/// assert_ne!(kernel.to_vec_f64(), another.to_vec_f64()); // one seed, but another path
/// assert_eq!(Initializer::HeNormal.name(), "he_normal");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initializer {
    /// All 0: biases, beta, moving means.
    Zeros,
    /// All 1: gamma, moving variances.
    Ones,
    /// U(−l, l) with l = √(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
    GlorotUniform,
    /// A normal distribution cut off at two standard deviations, with variance 2 / fan_in after
    /// the cut (He et al., 2015).
    HeNormal,
}

impl Initializer {
    /// Keras' name: `glorot_uniform`.
    pub fn name(self) -> &'static str {
        match self {
            Initializer::Zeros => "zeros",
            Initializer::Ones => "ones",
            Initializer::GlorotUniform => "glorot_uniform",
            Initializer::HeNormal => "he_normal",
        }
    }

    /// The values of the parameter with this path under this seed.
    pub fn fill(self, shape: Shape, seed: u64, path: &str) -> Tensor {
        let mut stream = Stream::new(seed, &[domain::INITIALIZER, hash_name(path)]);
        let (fan_in, fan_out) = fans(shape);
        let mut values = Buffer::<f32>::new(shape.elements());
        match self {
            Initializer::Zeros => values.fill(0.0),
            Initializer::Ones => values.fill(1.0),
            Initializer::GlorotUniform => {
                let limit = (6.0 / (fan_in + fan_out)).sqrt() as f32;
                values.fill_with(|| stream.uniform(-limit, limit));
            }
            Initializer::HeNormal => {
                // The standard deviation of a unit normal cut off at ±2.
                const CUT: f64 = 0.879_625_661_034_239_8;
                let deviation = ((2.0 / fan_in).sqrt() / CUT) as f32;
                values.fill_with(|| {
                    loop {
                        let z = stream.normal();
                        if z.abs() <= 2.0 {
                            return z * deviation;
                        }
                    }
                });
            }
        }
        Tensor::from_buffer(values, shape)
    }
}

/// Keras' rule: the last two axes are inputs and outputs, the ones before them a window. For a
/// depthwise kernel [3, 3, C, 1] that makes fan_in 9·C, though each output sees 9 inputs.
fn fans(shape: Shape) -> (f64, f64) {
    match shape[..] {
        [.., inputs, outputs] => {
            let window: usize = shape[..shape.len() - 2].iter().product();
            ((inputs * window) as f64, (outputs * window) as f64)
        }
        _ => (shape.elements() as f64, shape.elements() as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glorot_stays_within_its_limit_and_fills_it() {
        let values = Initializer::GlorotUniform.fill([3, 3, 16, 32].into(), 1, "a/kernel").to_vec_f64();
        let limit = (6.0f64 / (9.0 * 48.0)).sqrt();
        let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(largest <= limit + 1e-6 && largest > 0.99 * limit);
    }

    #[test]
    fn he_normal_has_its_variance_after_the_cut() {
        let values = Initializer::HeNormal.fill([3, 3, 64, 64].into(), 1, "a/kernel").to_vec_f64();
        let variance = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        let expected = 2.0 / (9.0 * 64.0);
        assert!((variance / expected - 1.0).abs() < 0.03, "{variance} against {expected}");
        let cut = 2.0 * (expected.sqrt() / 0.8796);
        assert!(values.iter().all(|v| v.abs() <= cut * 1.001));
    }

    #[test]
    fn seeds_and_paths_give_different_values() {
        let fill = |seed, path| Initializer::GlorotUniform.fill([4, 4].into(), seed, path).to_vec_f64();
        assert_eq!(fill(1, "a/kernel"), fill(1, "a/kernel"));
        assert_ne!(fill(1, "a/kernel"), fill(2, "a/kernel"));
        assert_ne!(fill(1, "a/kernel"), fill(1, "b/kernel"));
    }
}
