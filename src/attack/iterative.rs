//! Attacks that follow the gradient's sign: FGSM, PGD, MIM.
//!
//! - **FGSM** (Goodfellow, Shlens and Szegedy, 2015): one step, x + ε·sign(∂L/∂x).
//! - **PGD** (Madry et al., 2018): many smaller ones, each followed by a projection into the ball; from
//!   several random points of it, since a loss has many hills.
//! - **MIM** (Dong et al., 2018): the gradients, each divided by its mean size, are summed with a momentum
//!   μ, and the sum's sign is followed. What it finds carries over to other networks more often.
//!
//! In a ball of L2 the step goes along the gradient, not its sign.
//!
//! The best image of all steps is kept, and one that errs as wished (by its margin) leaves the batch: what
//! is left of the work is for those that still resist. PGD's first start is FGSM's image, so it never does
//! worse.

use super::ball::{EpsBall, host};
use super::images::Images;
use super::objective::{AttackStatus, Objective};
use super::victim::{self, Victim, rows, standings_of};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops;
use crate::random::{Stream, domain};
use crate::tensor::Tensor;

/// What an attack made of a batch.
pub struct Attacked {
    /// The perturbed images, [N, side, side, 3], 0 to 1, on the CPU.
    pub x: Tensor,
    /// How far each of them is led.
    pub statuses: Vec<AttackStatus>,
}

/// The settings of such an attack.
///
/// ```
/// use atrous::attack::{EpsBall, Images, Iterative, Norm};
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.45));
/// let (ball, objective) = (EpsBall::linf(0.0625), away_from_dark(1));
/// for attack in [Iterative::fgsm(ball), Iterative::pgd(ball, 10), Iterative::mim(ball, 10)] {
///     let attacked = attack.perturb(&victim, &images, &objective)?;
///     assert!(attacked.statuses[0].reached);
///     let change = Norm::Linf.of(images.with(attacked.x).values(0), images.values(0));
///     assert!(0.05 <= change && change < 0.0625 + 1e-6);
/// }
/// assert_eq!(Iterative::pgd(ball, 10).step, 2.5 * 0.0625 / 10.0);
/// assert_eq!(Iterative::mim(ball, 10).momentum, Some(1.0));
///
/// // To the boundary it is .05.
/// let attacked = Iterative::pgd(EpsBall::linf(0.04), 10).perturb(&victim, &images, &objective)?;
/// assert!(!attacked.statuses[0].reached);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Iterative {
    /// What it may change.
    pub ball: EpsBall,
    /// Length of a step, in the ball's norm and units.
    pub step: f32,
    /// Steps from each start, above 0.
    pub steps: usize,
    /// MIM's μ, 0 to 10: how much of the sum of gradients stays from step to step. None: no sum.
    pub momentum: Option<f32>,
    /// Starts at random points of the ball, after the one from FGSM's image; 0: one from the original.
    pub restarts: usize,
    /// Draws the random starts.
    pub seed: u64,
}

impl Iterative {
    /// One step of ε from the original, as Goodfellow et al. have it; an image that it makes no worse for
    /// the network stays as it was (unlike in [`Iterative::one_step`]).
    pub fn fgsm(ball: EpsBall) -> Self {
        Iterative { ball, step: ball.epsilon, steps: 1, momentum: None, restarts: 0, seed: 0 }
    }

    /// Steps of 2.5·ε over their number: enough to cross the ball and come back, as Madry et al. have it.
    pub fn pgd(ball: EpsBall, steps: usize) -> Self {
        let step = 2.5 * ball.epsilon / steps.max(1) as f32;
        Iterative { ball, step, steps, momentum: None, restarts: 1, seed: 0 }
    }

    /// Steps of ε over their number, μ = 1, as Dong et al. have it.
    pub fn mim(ball: EpsBall, steps: usize) -> Self {
        let step = ball.epsilon / steps.max(1) as f32;
        Iterative { ball, step, steps, momentum: Some(1.0), restarts: 0, seed: 0 }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.ball.check()?;
        if self.steps == 0 || !(self.step >= 0.0 && self.step.is_finite()) {
            let message =
                format!("expected at least one step of at least 0, got {} of {}", self.steps, self.step);
            return Err(Error::argument("attack", message));
        }
        match self.momentum {
            Some(momentum) if !(0.0..=10.0).contains(&momentum) => {
                Err(Error::argument("momentum", format!("expected 0 to 10, got {momentum}")))
            }
            _ => Ok(()),
        }
    }

    /// FGSM as it is: the image after the one step of ε, better or not.
    ///
    /// ```
    /// # use atrous::attack::{EpsBall, Images, Iterative};
    #[doc = include_str!("brightness.txt")]
    /// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
    /// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.25));
    /// let attacked = Iterative::one_step(EpsBall::linf(0.125), &victim, &images, &away_from_dark(1))?;
    /// // As far as ε allows, whether that is enough or not.
    /// assert!(attacked.x.to_vec_f64().iter().all(|&v| v == 0.375));
    /// assert!(!attacked.statuses[0].reached);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn one_step(
        ball: EpsBall,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
    ) -> Result<Attacked> {
        ball.check()?;
        let all: Vec<usize> = (0..images.len()).collect();
        let origin = images.x.to_device(victim.device())?;
        let (_, gradient) = ascent(victim, &origin, &all, objective, 0.0, images.inside.as_ref())?;
        let x = ball.step(&origin, &gradient, &origin, ball.epsilon)?.to_device(Device::Cpu)?;
        let statuses = victim::statuses(victim, &x, objective)?;
        Ok(Attacked { x, statuses })
    }

    /// The best images of all starts and steps. An error for settings out of range, and where the victim
    /// gives logits or gradients that are not finite.
    pub fn perturb(
        &self,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
    ) -> Result<Attacked> {
        self.check()?;
        let mut best = Best::new(victim, images, objective)?;
        if self.ball.epsilon == 0.0 {
            return best.done(images);
        }
        if self.restarts == 0 {
            self.climb(&images.x, victim, images, objective, &mut best)?;
            return best.done(images);
        }
        let fgsm = Self::one_step(self.ball, victim, images, objective)?;
        let all: Vec<usize> = (0..images.len()).collect();
        best.consider(&all, &fgsm.x, fgsm.statuses)?;
        self.climb(&fgsm.x, victim, images, objective, &mut best)?;
        for restart in 0..self.restarts {
            let start = |i: usize| {
                let inside = images.inside.as_ref().map(|inside| {
                    let each = images.values(i).len();
                    &inside.values::<f32>()[i * each..][..each]
                });
                // By what is in the image, so that its perturbation does not depend on its batch.
                let own = hash(images.values(i));
                let mut stream = Stream::new(self.seed, &[domain::ATTACK, restart as u64, own]);
                self.ball.random(images.values(i), inside, &mut stream)
            };
            let starts: Vec<f32> = (0..images.len()).flat_map(start).collect();
            let start = Tensor::from_slice(&starts, images.x.shape())?;
            self.climb(&start, victim, images, objective, &mut best)?;
        }
        best.done(images)
    }

    /// [`perturb`](Self::perturb) from one start alone, and that a given one: an image of each ball, of the
    /// shape of the images.
    pub fn perturb_from(
        &self,
        start: &Tensor,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
    ) -> Result<Attacked> {
        self.check()?;
        if start.shape() != images.x.shape() {
            return Err(Error::shape("attack", images.x.shape(), start.shape()));
        }
        let mut best = Best::new(victim, images, objective)?;
        if self.ball.epsilon > 0.0 {
            self.climb(start, victim, images, objective, &mut best)?;
        }
        best.done(images)
    }

    /// Steps from a start, for the images that are not where they should be.
    fn climb(
        &self,
        start: &Tensor,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
        best: &mut Best,
    ) -> Result<()> {
        let mut batch = ActiveBatch::new(start, images, best.resisting())?;
        for step in 0..self.steps {
            if batch.numbers.is_empty() {
                return Ok(());
            }
            batch.to(victim)?;
            let done = step as f32 / self.steps as f32;
            let inside = batch.inside.as_ref();
            let (logits, gradient) = ascent(victim, &batch.x, &batch.numbers, objective, done, inside)?;
            let statuses = standings_of(&logits, &batch.numbers, objective);
            best.consider(&batch.numbers, &batch.x, statuses)?;
            let direction = match self.momentum {
                Some(momentum) => batch.accumulate(&gradient, momentum)?,
                None => gradient,
            };
            batch.x = self.ball.step(&batch.x, &direction, &batch.origin, self.step)?;
            batch.keep(|i| !best.statuses[i].sure)?;
        }
        if !batch.numbers.is_empty() {
            let logits = victim::logits(victim, &batch.x)?;
            let statuses = standings_of(&logits, &batch.numbers, objective);
            best.consider(&batch.numbers, &batch.x, statuses)?;
        }
        Ok(())
    }
}

/// The logits of images, and the gradient of the objective's loss by them, 0 where `inside` is.
///
/// Row i of `x`, [N, side, side, 3], is image `numbers[i]` of the objective; `done` is the share of the
/// attack's steps that are over.
///
/// ```
/// use atrous::attack::iterative::ascent;
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let x = Tensor::full([1, 4, 4, 3], 0.45);
/// let (_, gradient) = ascent(&victim, &x, &[0], &away_from_dark(1), 0.0, None)?;
/// // Brighter is what leads away from class 0, each of the 48 values by as much.
/// let g = gradient.to_vec_f64();
/// assert!(g[0] > 0.0 && g.iter().all(|&other| (other - g[0]).abs() < 1e-7));
/// # Ok::<(), Error>(())
/// ```
pub fn ascent(
    victim: &dyn Victim,
    x: &Tensor,
    numbers: &[usize],
    objective: &dyn Objective,
    done: f32,
    inside: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let upstream = |i: usize, row: &[f32], up: &mut [f32]| objective.upstream(numbers[i], row, done, up);
    let (logits, gradient) = victim::gradient(victim, x, upstream)?;
    match inside {
        Some(inside) => Ok((logits, ops::mul(&gradient, &inside.to_device(gradient.device())?)?)),
        None => Ok((logits, gradient)),
    }
}

/// FNV-1a over the bits of an image's values: a number of its own for each.
pub(super) fn hash(values: &[f32]) -> u64 {
    values
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, v| (h ^ v.to_bits() as u64).wrapping_mul(0x100_0000_01b3))
}

/// The images that are still on their way, and where they are.
struct ActiveBatch {
    numbers: Vec<usize>,
    x: Tensor,
    origin: Tensor,
    inside: Option<Tensor>,
    /// MIM's sum of gradients.
    sum: Option<Vec<f32>>,
}

impl ActiveBatch {
    fn new(start: &Tensor, images: &Images, numbers: Vec<usize>) -> Result<Self> {
        let Images { x: origin, inside, .. } = images.some(&numbers)?;
        Ok(ActiveBatch { x: rows(start, &numbers)?, origin, inside, sum: None, numbers })
    }

    fn to(&mut self, victim: &dyn Victim) -> Result<()> {
        let device = victim.device();
        (self.x, self.origin) = (self.x.to_device(device)?, self.origin.to_device(device)?);
        Ok(())
    }

    /// μ·sum + gradient / mean|gradient|, for each image.
    fn accumulate(&mut self, gradient: &Tensor, momentum: f32) -> Result<Tensor> {
        let g = host(gradient)?;
        let sum = self.sum.get_or_insert_with(|| vec![0.0; g.len()]);
        let each = g.len() / self.numbers.len();
        for (sum, g) in sum.chunks_exact_mut(each).zip(g.chunks_exact(each)) {
            let mean = g.iter().map(|g| g.abs() as f64).sum::<f64>() / each as f64;
            let scale = if mean > 0.0 { 1.0 / mean } else { 0.0 };
            sum.iter_mut().zip(g).for_each(|(s, &g)| *s = momentum * *s + (g as f64 * scale) as f32);
        }
        Tensor::from_slice(sum, gradient.shape())?.to_device(gradient.device())
    }

    /// Lets those go that need not be moved on.
    fn keep(&mut self, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let kept: Vec<usize> = (0..self.numbers.len()).filter(|&i| wanted(self.numbers[i])).collect();
        if kept.len() == self.numbers.len() {
            return Ok(());
        }
        let each = self.x.shape().elements() / self.numbers.len();
        self.x = rows(&self.x, &kept)?;
        self.origin = rows(&self.origin, &kept)?;
        self.inside = self.inside.as_ref().map(|inside| rows(inside, &kept)).transpose()?;
        self.sum = self
            .sum
            .take()
            .map(|sum| kept.iter().flat_map(|&i| sum[i * each..][..each].to_vec()).collect());
        self.numbers = kept.iter().map(|&i| self.numbers[i]).collect();
        Ok(())
    }
}

/// The best that was seen of each image.
struct Best {
    x: Vec<f32>,
    statuses: Vec<AttackStatus>,
}

impl Best {
    /// The originals: they are in every ball.
    fn new(victim: &dyn Victim, images: &Images, objective: &dyn Objective) -> Result<Self> {
        let statuses = victim::statuses(victim, &images.x, objective)?;
        Ok(Best { x: host(&images.x)?, statuses })
    }

    fn resisting(&self) -> Vec<usize> {
        (0..self.statuses.len()).filter(|&i| !self.statuses[i].sure).collect()
    }

    fn take(&mut self, i: usize, x: &[f32], status: AttackStatus) {
        if status.is_better_than(&self.statuses[i]) {
            self.x[i * x.len()..][..x.len()].copy_from_slice(x);
            self.statuses[i] = status;
        }
    }

    /// Images, each by its number.
    fn consider(&mut self, numbers: &[usize], x: &Tensor, statuses: Vec<AttackStatus>) -> Result<()> {
        let x = x.to_device(Device::Cpu)?;
        let each = x.shape().elements() / numbers.len().max(1);
        let images = x.values::<f32>().chunks_exact(each.max(1)).zip(statuses);
        numbers.iter().zip(images).for_each(|(&i, (x, status))| self.take(i, x, status));
        Ok(())
    }

    fn done(self, images: &Images) -> Result<Attacked> {
        Ok(Attacked { x: Tensor::from_slice(&self.x, images.x.shape())?, statuses: self.statuses })
    }
}
