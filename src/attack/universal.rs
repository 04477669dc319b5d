//! One perturbation for all images (Moosavi-Dezfooli et al., 2017), found by stochastic gradients (Shafahi
//! et al., 2020).
//!
//! δ ← clip(δ + step·sign(Σ ∂L(xᵢ + δ)/∂δ), −ε, ε) over batches of images. An image that errs as wished has
//! no say any more: those that resist are what is left to learn from. It needs no gradient of the image it
//! is put on.

use super::ball::{EpsBall, Norm, host};
use super::images::Images;
use super::iterative::{Attacked, ascent};
use super::objective::{AttackStatus, Objective};
use super::victim::{self, Victim, standings_of};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A perturbation that fits any image of its side.
///
/// ```
/// use atrous::attack::{EpsBall, Images, Universal};
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let images = Images::whole(Tensor::full([2, 4, 4, 3], 0.45));
/// let mut universal = Universal::new(EpsBall::linf(0.1), 4)?;
/// // Two steps until both images err; then there is nothing to be learnt from them.
/// let mut erred = Vec::new();
/// for _ in 0..3 {
///     erred.push(universal.step(&victim, &images, &away_from_dark(2), 0.03)?);
/// }
/// assert_eq!(erred, [0.0, 0.0, 1.0]);
/// assert!(universal.delta().iter().all(|d| (d - 0.06).abs() < 1e-6));
/// // It is made for any image.
/// let other = Images::whole(Tensor::full([1, 4, 4, 3], 0.47));
/// assert!(universal.perturb(&victim, &other, &away_from_dark(1))?.statuses[0].reached);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Universal {
    /// What it may change at most, of L∞.
    pub ball: EpsBall,
    /// [side, side, 3]
    delta: Vec<f32>,
    side: usize,
}

impl Universal {
    /// No perturbation yet, for images [side, side, 3]. An error for an ε out of range and a ball that is
    /// not of L∞.
    pub fn new(ball: EpsBall, side: usize) -> Result<Self> {
        ball.check()?;
        match ball.norm {
            Norm::Linf => Ok(Universal { ball, delta: vec![0.0; side * side * 3], side }),
            Norm::L2 => Err(Error::argument("norm", "the universal perturbation is for linf alone")),
        }
    }

    /// The perturbation, [side, side, 3], −ε to ε.
    pub fn delta(&self) -> &[f32] {
        &self.delta
    }

    /// One step of `size` (in units of images from 0 to 1) on a batch of images; gives the share of them
    /// that erred as wished before it. An error for images of another side.
    pub fn step(
        &mut self,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
        size: f32,
    ) -> Result<f64> {
        let x = self.added(images)?;
        let all: Vec<usize> = (0..images.len()).collect();
        let resisting = Resisting(objective);
        let (logits, gradient) = ascent(victim, &x, &all, &resisting, 0.0, images.inside.as_ref())?;
        let gradient = host(&gradient)?;
        let mut sum = vec![0.0f64; self.delta.len()];
        for g in gradient.chunks_exact(sum.len()) {
            sum.iter_mut().zip(g).for_each(|(sum, &g)| *sum += g as f64);
        }
        for (d, sum) in self.delta.iter_mut().zip(sum) {
            let sign = if sum > 0.0 {
                size
            } else if sum < 0.0 {
                -size
            } else {
                0.0
            };
            *d = (*d + sign).clamp(-self.ball.epsilon, self.ball.epsilon);
        }
        let led = standings_of(&logits, &all, objective).iter().filter(|s| s.reached).count();
        Ok(led as f64 / all.len() as f64)
    }

    /// The images with it added.
    fn added(&self, images: &Images) -> Result<Tensor> {
        if images.side() != self.side {
            return Err(Error::shape(
                "universal",
                format!("pictures of side {}", self.side),
                images.side(),
            ));
        }
        let mut x = images.x.values::<f32>().to_vec();
        let inside = images.inside.as_ref().map(|inside| inside.values::<f32>());
        for (i, x) in x.iter_mut().enumerate() {
            if inside.is_none_or(|inside| inside[i] > 0.0) {
                *x = (*x + self.delta[i % self.delta.len()]).clamp(0.0, 1.0);
            }
        }
        Tensor::from_slice(&x, images.x.shape())
    }

    /// The images with it added, and what the network makes of them; an error for images of another side.
    pub fn perturb(
        &self,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
    ) -> Result<Attacked> {
        let x = self.added(images)?;
        let statuses = victim::statuses(victim, &x, objective)?;
        Ok(Attacked { x, statuses })
    }
}

/// The objective of those images that have not reached it.
struct Resisting<'a>(&'a dyn Objective);

impl Objective for Resisting<'_> {
    fn status(&self, image: usize, logits: &[f32]) -> AttackStatus {
        self.0.status(image, logits)
    }

    fn upstream(&self, image: usize, logits: &[f32], done: f32, gradient: &mut [f32]) {
        match self.0.status(image, logits).reached {
            true => gradient.fill(0.0),
            false => self.0.upstream(image, logits, done, gradient),
        }
    }
}
