//! What counts as small: all images within ε of the original, by the largest change (L∞) or the
//! Euclidean one (L2), and within 0 to 1.

use crate::device::Device;
use crate::error::{Error, Result, names};
use crate::ops::{self, Bounds};
use crate::random::Stream;
use crate::tensor::Tensor;

/// How large a perturbation is: what ε limits. By name `linf` or `l2`.
///
/// ```
/// use atrous::attack::Norm;
///
/// let (origin, x) = ([0.5, 0.5], [0.2, 0.9]);
/// assert!((Norm::Linf.of(&x, &origin) - 0.4).abs() < 1e-6);
/// assert!((Norm::L2.of(&x, &origin) - 0.5).abs() < 1e-6); // √(.3² + .4²)
/// assert_eq!("l2".parse::<Norm>()?, Norm::L2);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Norm {
    /// The largest change of a value.
    #[default]
    Linf,
    /// The root of the sum of squared changes, of a whole image.
    L2,
}

impl Norm {
    /// The norm of one image's perturbation x − origin, computed in f64.
    pub fn of(self, x: &[f32], origin: &[f32]) -> f64 {
        let changes = x.iter().zip(origin).map(|(&x, &o)| x as f64 - o as f64);
        match self {
            Norm::Linf => changes.map(f64::abs).fold(0.0, f64::max),
            Norm::L2 => changes.map(|d| d * d).sum::<f64>().sqrt(),
        }
    }
}

names! { "norm" Norm { Linf: "linf", L2: "l2" } }

/// All perturbations of at most ε, in units of images from 0 to 1.
///
/// ```
/// use atrous::Tensor;
/// use atrous::attack::EpsBall;
///
/// let x = Tensor::full([1, 1, 1, 3], 0.5);
/// let gradient = Tensor::from([[[[3.0f32, 0.0, -4.0]]]]); // 5 long
/// // Along the signs, .3 each; but no further than ε.
/// let y = EpsBall::linf(0.1).step(&x, &gradient, &x, 0.3)?;
/// assert_eq!(y.to_string(), "[[[[0.6 0.5 0.4]]]]");
/// // Along the gradient, .25 in all.
/// let y = EpsBall::l2(0.5).step(&x, &gradient, &x, 0.25)?;
/// assert_eq!(y.to_string(), "[[[[0.65 0.5  0.3 ]]]]");
///
/// // Eight steps of an image file are 8/255, not 8.
/// EpsBall::linf(8.0 / 255.0).check_for(224)?;
/// assert!(EpsBall::linf(8.0).check_for(224).is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpsBall {
    /// What is limited.
    pub norm: Norm,
    /// The most it may be: 8/255 is eight steps of an image file. 0 allows no change.
    pub epsilon: f32,
}

impl EpsBall {
    /// No value changes by more than ε.
    pub fn linf(epsilon: f32) -> Self {
        EpsBall { norm: Norm::Linf, epsilon }
    }

    /// The squared changes of an image sum to at most ε².
    pub fn l2(epsilon: f32) -> Self {
        EpsBall { norm: Norm::L2, epsilon }
    }

    /// An error where ε is no number of at least 0, or more than the whole range of images.
    pub(crate) fn check(&self) -> Result<()> {
        let epsilon = self.epsilon;
        if !(epsilon >= 0.0 && epsilon.is_finite()) {
            let message = format!("expected a number of at least 0, got {epsilon}");
            return Err(Error::argument("epsilon", message));
        }
        match self.norm == Norm::Linf && epsilon > 1.0 {
            true => Err(Error::argument("epsilon", beyond("1", epsilon, epsilon <= 255.0))),
            false => Ok(()),
        }
    }

    /// An error where ε is no number of at least 0, or more than the distance of any two images
    /// [side, side, 3].
    pub fn check_for(&self, side: usize) -> Result<()> {
        self.check()?;
        let most = 3f64.sqrt() * side as f64;
        match self.norm == Norm::L2 && self.epsilon as f64 > most {
            true => {
                let most = format!("{most:.1} at side {side}");
                Err(Error::argument("epsilon", beyond(&most, self.epsilon, false)))
            }
            false => Ok(()),
        }
    }

    /// One step of length `size` up the gradient and back into the ball: along the gradient's signs for
    /// L∞, along its direction for L2. All are [N, side, side, 3]; `origin` is the ball's centre.
    pub fn step(&self, x: &Tensor, gradient: &Tensor, origin: &Tensor, size: f32) -> Result<Tensor> {
        if self.norm == Norm::Linf {
            let bounds = Bounds { epsilon: self.epsilon, low: 0.0, high: 1.0 };
            return ops::sign_step(x, gradient, origin, size, bounds);
        }
        let device = x.device();
        let (mut y, gradient, origin) = (host(x)?, host(gradient)?, host(origin)?);
        let each = y.len() / x.shape()[0].max(1);
        let images =
            y.chunks_exact_mut(each).zip(gradient.chunks_exact(each)).zip(origin.chunks_exact(each));
        for ((y, g), o) in images {
            let length = g.iter().map(|&g| g as f64 * g as f64).sum::<f64>().sqrt();
            // No direction: nothing to follow.
            let scale = if length > 0.0 { size as f64 / length } else { 0.0 };
            y.iter_mut().zip(g).for_each(|(y, &g)| *y = (*y as f64 + scale * g as f64) as f32);
            self.project(y, o);
        }
        Tensor::from_slice(&y, x.shape())?.to_device(device)
    }

    /// Brings one image into the ball around its original, and into 0 to 1.
    pub(crate) fn project(&self, x: &mut [f32], origin: &[f32]) {
        match self.norm {
            Norm::Linf => {
                for (x, &o) in x.iter_mut().zip(origin) {
                    *x = x.clamp(o - self.epsilon, o + self.epsilon).clamp(0.0, 1.0);
                }
            }
            Norm::L2 => {
                let length = self.norm.of(x, origin);
                let share =
                    if length > self.epsilon as f64 { self.epsilon as f64 / length } else { 1.0 };
                for (x, &o) in x.iter_mut().zip(origin) {
                    let d = (*x as f64 - o as f64) * share;
                    // Both are in 0 to 1 or on their way there: the distance only shrinks.
                    *x = ((o as f64 + d) as f32).clamp(0.0, 1.0);
                }
            }
        }
    }

    /// A perturbation to begin with: uniform in the ball of L∞; in that of L2 uniform in direction and
    /// volume. Values whose `inside` is 0 stay as they are.
    pub(crate) fn random(
        &self,
        origin: &[f32],
        inside: Option<&[f32]>,
        stream: &mut Stream,
    ) -> Vec<f32> {
        let within = |i: usize| inside.is_none_or(|inside| inside[i] > 0.0);
        let mut x = origin.to_vec();
        match self.norm {
            Norm::Linf => {
                for (i, x) in x.iter_mut().enumerate() {
                    let change = stream.uniform(-self.epsilon, self.epsilon);
                    *x += if within(i) { change } else { 0.0 };
                }
            }
            Norm::L2 => {
                let all: Vec<f32> =
                    (0..x.len()).map(|i| if within(i) { stream.normal() } else { 0.0 }).collect();
                let length = Norm::L2.of(&all, &vec![0.0; all.len()]).max(f64::MIN_POSITIVE);
                let dimensions = all.iter().filter(|&&v| v != 0.0).count().max(1) as f64;
                let radius = self.epsilon as f64 * (stream.unit() as f64).powf(1.0 / dimensions);
                x.iter_mut().zip(&all).for_each(|(x, &d)| *x += (radius / length * d as f64) as f32);
            }
        }
        self.project(&mut x, origin);
        x
    }
}

/// An ε in steps of an image file is what is mostly meant by one above 1.
fn beyond(most: &str, epsilon: f32, steps: bool) -> String {
    let asked = if steps { format!("; did you mean {epsilon}/255?") } else { String::new() };
    format!(
        "expected at most {most}, the distance of black from white in pictures of 0 to 1, \
         got {epsilon}{asked}"
    )
}

/// A tensor's numbers, wherever they are.
pub(super) fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(Device::Cpu)?.values::<f32>().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epsilon_beyond_the_range_of_images_is_asked_about() {
        let error = |ball: EpsBall| ball.check_for(100).unwrap_err().to_string();
        assert!(error(EpsBall::linf(8.0)).contains("did you mean 8/255?"));
        assert!(!error(EpsBall::linf(300.0)).contains("did you mean"));
        assert!(error(EpsBall::l2(174.0)).contains("at most 173.2"), "{}", error(EpsBall::l2(174.0)));
        for ball in [EpsBall::linf(0.0), EpsBall::linf(1.0), EpsBall::l2(8.0), EpsBall::l2(173.0)] {
            ball.check_for(100).unwrap();
        }
        for epsilon in [-0.1, f32::NAN, f32::INFINITY] {
            assert!(error(EpsBall::linf(epsilon)).contains("at least 0"));
            assert!(error(EpsBall::l2(epsilon)).contains("at least 0"));
        }
    }
}
