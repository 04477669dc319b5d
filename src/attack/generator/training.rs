//! How a generator is trained.
//!
//! With L the loss that the objective raises, d = x′ − x the perturbation and n the values of an image, a
//! batch of N images has the loss
//!
//! 1/N · Σ ( −w·L(x′) / (ε·Σ|∂L/∂x′|) + λ·Σd² / (n·ε²) )
//!
//! The divisor counts as a constant: it is what a step to the ball's border gains at first order (FGSM's),
//! so each image has the same say, whether the victim is sure of it (and its gradient small) or not. The
//! second term is what makes a perturbation visible: its mean square, as a share of the most that the ball
//! allows. With both in these units λ has a meaning: a value is best changed all the way where its
//! gradient is above 2λ times the image's mean, and less elsewhere. w is 1, and less for images that err
//! as wished: there what counts is to be seen less.
//!
//! A step has two tapes. The first goes from x through the generator to x′. The second goes from x′
//! through the victim to L, for ∂L/∂x′ alone: no weight of the victim has a gradient. Then the sum of both
//! terms' gradients by x′ goes backward through the first.

use super::{Generator, perturbed};
use crate::attack::ball::EpsBall;
use crate::attack::images::Images;
use crate::attack::iterative::ascent;
use crate::attack::objective::{AttackStatus, Objective};
use crate::attack::victim::{Victim, standings_of};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Mode, Model};
use crate::optimizers::{Optimizer, OptimizerKind};
use crate::random::{Stream, domain};
use crate::tensor::Tensor;
use std::ops::ControlFlow;

/// The settings of a generator's training with Adam.
///
/// ```
/// use atrous::attack::generator::{About, Generator, Training};
/// use std::ops::ControlFlow;
///
#[doc = include_str!("../brightness.txt")]
/// let victim = brightness(8)?; // class 0 up to a mean of ½, class 1 from there on
/// let about = About { fit: Fit::Stretch, victim: victim.name().into(), goal: "untargeted".into() };
/// let mut generator = Generator::new(8, EpsBall::linf(0.1), about, 1)?;
/// // Dark images, and away from class 0.
/// let batch = |numbers: &[usize]| -> Result<(Images, Box<dyn Objective>)> {
///     let n = numbers.len();
///     Ok((Images::whole(Tensor::full([n, 8, 8, 3], 0.45)), Box::new(away_from_dark(n))))
/// };
/// let training = Training { steps: 20, batch: 2, ..Training::default() };
/// training.check()?;
/// let mut success = Vec::new();
/// let steps = training.run(&mut generator, &victim, 4, batch, |progress| {
///     success.push(progress.success);
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!((steps, generator.steps), (20, 20));
/// assert_eq!((success[0], success[19]), (0.0, 1.0));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Steps of Adam, above 0.
    pub steps: usize,
    /// Images a step, above 0.
    pub batch: usize,
    /// Adam's at the first step; it falls in a line to 0 after the last.
    pub learning_rate: f32,
    /// λ: the weight of the mean squared perturbation, at least 0.
    pub visibility: f32,
    /// w of images that err as wished, at least 0.
    pub reached: f32,
    /// Divide each image's loss as above; else each counts as it is.
    pub normalized: bool,
    /// Draws the order of the images.
    pub seed: u64,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            steps: 200,
            batch: 16,
            learning_rate: 2e-3,
            visibility: 0.1,
            reached: 0.2,
            normalized: true,
            seed: 0,
        }
    }
}

/// A step of training that is over; its numbers are those of before the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Its number, from 1.
    pub step: usize,
    /// How many there will be.
    pub steps: usize,
    /// What the objective raises: the batch's mean score.
    pub score: f64,
    /// The share of the batch that errs as wished.
    pub success: f64,
    /// The root of the mean squared perturbation, in units of ε: 0 to 1.
    pub change: f64,
}

impl Training {
    /// An error for no steps or images, and for a rate or a weight that is no number of at least 0.
    pub fn check(&self) -> Result<()> {
        let Training { steps, batch, learning_rate, visibility, reached, .. } = *self;
        if steps == 0 || batch == 0 {
            let message = format!("expected at least one step of one picture, got {steps} of {batch}");
            return Err(Error::argument("training", message));
        }
        for (what, value) in
            [("learning_rate", learning_rate), ("visibility", visibility), ("reached", reached)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                let message = format!("expected a finite number of at least 0, got {value}");
                return Err(Error::argument(what, message));
            }
        }
        Ok(())
    }

    /// Trains a generator on images numbered from 0 to `samples` − 1, in another order each time round.
    /// `batch` makes images and their objective of numbers, and `watch` sees each step and may end the
    /// training: what is learned until then stays. Gives the steps taken.
    ///
    /// The generator moves to the victim's device. An error where [`Training::check`] has one, for no
    /// samples, an ε of 0, sides that differ and gradients that are not finite.
    pub fn run(
        &self,
        generator: &mut Generator,
        victim: &dyn Victim,
        samples: usize,
        mut batch: impl FnMut(&[usize]) -> Result<(Images, Box<dyn Objective>)>,
        mut watch: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<usize> {
        self.check()?;
        generator.check_side("a victim", victim.side())?;
        let ball = generator.ball();
        if samples == 0 || ball.epsilon == 0.0 {
            let message = format!(
                "expected pictures to train on and an ε above 0, got {samples} and {}",
                ball.epsilon
            );
            return Err(Error::argument("training", message));
        }
        if generator.model.device() != victim.device() {
            generator.model = generator.model.to_device(victim.device())?;
        }
        let mut optimizer = Optimizer::new(OptimizerKind::adam(), self.learning_rate)?;
        let mut order = Order { seed: self.seed, samples, round: 0, left: Vec::new() };
        for step in 0..self.steps {
            let (images, objective) = batch(&order.next(self.batch))?;
            generator.check_side("pictures", images.side())?;
            let done = step as f32 / self.steps as f32;
            let found = self.step(&generator.model, ball, victim, &images, &*objective, done)?;
            let progress = found.progress(step + 1, self.steps);
            optimizer.factors = [1.0 - done; 2];
            optimizer.begin_step();
            optimizer.move_model(&mut generator.model, found.gradients, found.moving, None)?;
            generator.steps += 1;
            if watch(&progress).is_break() {
                return Ok(step + 1);
            }
        }
        Ok(self.steps)
    }

    /// The gradients of a batch's loss by the generator's parameters.
    pub(super) fn step(
        &self,
        model: &Model,
        ball: EpsBall,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
        done: f32,
    ) -> Result<Found> {
        let (device, dtype) = (victim.device(), model.parameters[0].value.dtype());
        let there = |tensor: &Tensor| tensor.to_dtype(dtype).to_device(device);
        let x = there(&images.x)?;
        let inside = images.inside.as_ref().map(there).transpose()?;
        let (y, pass) = perturbed(model, ball, &x, inside.as_ref(), Mode::train(self.seed, 0))?;
        let numbers: Vec<usize> = (0..images.len()).collect();
        let (logits, gradient) =
            ascent(victim, &y.detach(), &numbers, objective, done, inside.as_ref())?;
        let statuses = standings_of(&logits, &numbers, objective);

        let host = |tensor: &Tensor| Ok::<_, Error>(tensor.to_device(Device::Cpu)?.to_vec_f64());
        let (before, after, mut up) = (host(&x)?, host(&y)?, host(&gradient)?);
        let inside = images.inside.as_ref().map(|inside| inside.to_vec_f64());
        let each = up.len() / images.len();
        let (epsilon, share) = (ball.epsilon as f64, 1.0 / images.len() as f64);
        let mut squares = 0.0;
        for (i, up) in up.chunks_exact_mut(each).enumerate() {
            let at = i * each..(i + 1) * each;
            let own = inside.as_ref().map_or(each as f64, |inside| inside[at.clone()].iter().sum());
            let total = epsilon * up.iter().map(|g| g.abs()).sum::<f64>();
            let weight = if statuses[i].reached { self.reached as f64 } else { 1.0 };
            let weight = match (self.normalized, total > 0.0) {
                (false, _) => weight,
                (true, true) => weight / total,
                // No direction to follow.
                (true, false) => 0.0,
            };
            let penalty = 1.0 / (own.max(1.0) * epsilon * epsilon);
            for (up, (after, before)) in up.iter_mut().zip(after[at.clone()].iter().zip(&before[at])) {
                let d = after - before;
                squares += penalty * d * d;
                *up = share * (-weight * *up + 2.0 * self.visibility as f64 * penalty * d);
            }
            if !total.is_finite() {
                let message = "the victim's gradient by a picture is not finite".to_string();
                return Err(Error::Diverged(message));
            }
        }
        let up = Tensor::from_slice(&up, y.shape())?.to_dtype(dtype).to_device(device)?;
        let mut all = y.backward_from(up)?;
        let gradients = pass.leaves.iter().map(|leaf| all.take(leaf)).collect();
        // The leaves share the parameters' memory: gone, the parameters can change in place.
        Ok(Found { gradients, moving: pass.moving, statuses, change: (squares * share).sqrt() })
    }
}

/// What a step found out.
pub(super) struct Found {
    /// One a parameter.
    pub gradients: Vec<Option<Tensor>>,
    moving: Vec<(usize, Tensor)>,
    statuses: Vec<AttackStatus>,
    change: f64,
}

impl Found {
    fn progress(&self, step: usize, steps: usize) -> Progress {
        let n = self.statuses.len() as f64;
        let score = self.statuses.iter().map(|status| status.score).sum::<f64>() / n;
        let success = self.statuses.iter().filter(|status| status.reached).count() as f64 / n;
        Progress { step, steps, score, success, change: self.change }
    }
}

/// Batches without end: all images once, in a random order, then again in another.
struct Order {
    seed: u64,
    samples: usize,
    round: u64,
    left: Vec<usize>,
}

impl Order {
    fn next(&mut self, batch: usize) -> Vec<usize> {
        if self.left.is_empty() {
            let mut stream = Stream::new(self.seed, &[domain::ATTACK, domain::SHUFFLE, self.round, 0]);
            (self.left, self.round) = (stream.permutation(self.samples), self.round + 1);
        }
        self.left.split_off(self.left.len().saturating_sub(batch))
    }
}
