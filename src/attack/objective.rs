//! What a network is to be led to: a loss of an image's logits that rises, and whether it is reached.

use crate::data::Labels;
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;

/// How far an attack is with one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttackStatus {
    /// The network errs as wished.
    pub reached: bool,
    /// It does so by a margin, if one is asked for: the attack need not go on.
    pub sure: bool,
    /// Between two perturbations that both reach it, or both do not, the one with more of this is kept.
    pub score: f64,
}

impl AttackStatus {
    pub(crate) fn is_better_than(&self, other: &AttackStatus) -> bool {
        (self.reached, self.score) > (other.reached, other.score)
    }
}

/// What a network is to be led to, for a batch of images, each by its number in it. Logits are those of
/// one image: `[classes]`, or [height, width, classes] of a network that segments.
///
/// To make a network unsure between its first two classes:
///
/// ```
/// use atrous::attack::{AttackStatus, EpsBall, Images, Iterative, Objective};
///
#[doc = include_str!("brightness.txt")]
/// struct Unsure;
///
/// impl Objective for Unsure {
///     fn status(&self, _image: usize, logits: &[f32]) -> AttackStatus {
///         let apart = (logits[0] - logits[1]).abs() as f64;
///         AttackStatus { reached: apart < 0.1, sure: apart < 0.1, score: -apart }
///     }
///
///     /// Of −(z₀ − z₁)².
///     fn upstream(&self, _image: usize, logits: &[f32], _done: f32, gradient: &mut [f32]) {
///         let apart = logits[0] - logits[1];
///         gradient.fill(0.0);
///         gradient[..2].copy_from_slice(&[-2.0 * apart, 2.0 * apart]);
///     }
/// }
///
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.45));
/// let pgd = Iterative::pgd(EpsBall::linf(0.0625), 10);
/// assert!(pgd.perturb(&victim, &images, &Unsure)?.statuses[0].reached);
/// # Ok::<(), Error>(())
/// ```
pub trait Objective: Sync {
    /// Whether these logits are what is wished, and how near they are to it.
    fn status(&self, image: usize, logits: &[f32]) -> AttackStatus;

    /// Fills `gradient`, as long as `logits`, with ∂loss/∂logits of the loss that is to rise. `done` is the
    /// share of the attack's steps that are over, 0 to 1.
    fn upstream(&self, image: usize, logits: &[f32], done: f32, gradient: &mut [f32]);
}

/// What a classifier is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Anything else: with a softmax another class, with sigmoids none of the true labels.
    Untargeted,
    /// This class: with a softmax as the likeliest, with sigmoids above its threshold.
    Targeted(usize),
}

/// A classifier led astray.
///
/// ```
/// use atrous::attack::{Goal, LabelObjective, Objective};
/// use atrous::data::CLASSES;
///
/// let (cat, dog) = (7, 11);
/// let objective = LabelObjective {
///     truth: vec![(0..CLASSES.len()).map(|class| class == cat).collect()],
///     goal: Goal::Untargeted,
///     exclusive: true,
///     thresholds: vec![0.5; CLASSES.len()],
///     margin: 1.0,
///     all_classes: false,
/// };
/// objective.check()?;
/// let mut logits = [0.0; CLASSES.len()];
/// (logits[cat], logits[dog]) = (2.0, 2.5);
/// // A dog, by half a logit; a whole one is asked for.
/// let status = objective.status(0, &logits);
/// assert!(objective.said(&logits)[dog] && status.reached && !status.sure);
///
/// let dogs = LabelObjective { goal: Goal::Targeted(dog), ..objective };
/// let mut gradient = [0.0; CLASSES.len()];
/// dogs.upstream(0, &logits, 0.0, &mut gradient);
/// assert!(gradient[dog] > 0.0 && gradient[cat] < 0.0);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LabelObjective {
    /// The true labels of each image.
    pub truth: Vec<Labels>,
    /// What it is to say instead.
    pub goal: Goal,
    /// A softmax: an image is of one class, its first label.
    pub exclusive: bool,
    /// With sigmoids, a class is said to be there above this probability, one a class.
    pub thresholds: Vec<f32>,
    /// How many logits beyond the boundary an attack goes on to (Carlini and Wagner's κ), so that the
    /// perturbation survives being rounded to bytes.
    pub margin: f32,
    /// With sigmoids, untargeted: raise the loss of all classes (Keras' binary cross-entropy), as far as
    /// others are put in the image. Else of the true ones alone, which is what success asks for.
    pub all_classes: bool,
}

impl LabelObjective {
    /// An error where an image has no label to lead away from, or the target is no class.
    pub fn check(&self) -> Result<()> {
        let classes = self.thresholds.len();
        if let Goal::Targeted(class) = self.goal
            && class >= classes
        {
            return Err(Error::argument(
                "target",
                format!("expected a class below {classes}, got {class}"),
            ));
        }
        match self.truth.iter().position(|labels| !labels.contains(&true)) {
            Some(i) if self.goal == Goal::Untargeted => Err(Error::argument(
                "attack",
                format!("picture number {i} has no label to lead away from"),
            )),
            _ => Ok(()),
        }
    }

    /// The labels that a row of logits means.
    pub fn said(&self, logits: &[f32]) -> Labels {
        let mut labels = vec![false; self.thresholds.len()];
        match self.exclusive {
            true => labels[arg_max(logits)] = true,
            false => {
                for (label, (&z, &threshold)) in
                    labels.iter_mut().zip(logits.iter().zip(&self.thresholds))
                {
                    *label = sigmoid(z) > threshold as f64;
                }
            }
        }
        labels
    }

    /// The logit above which a class is said to be there, with sigmoids.
    pub(crate) fn boundary(&self, class: usize) -> f64 {
        let p = (self.thresholds[class] as f64).clamp(1e-6, 1.0 - 1e-6);
        (p / (1.0 - p)).ln()
    }

    /// How many logits the network is beyond the boundary; below 0 where it does not err as wished.
    fn lead(&self, image: usize, logits: &[f32]) -> f64 {
        let truth = &self.truth[image];
        let over = |class: usize| logits[class] as f64 - self.boundary(class);
        let best = |besides: usize| {
            let others = (0..logits.len()).filter(|&class| class != besides);
            others.map(|class| logits[class] as f64).fold(f64::NEG_INFINITY, f64::max)
        };
        match (self.exclusive, self.goal) {
            (true, Goal::Untargeted) => match self.true_class(image) {
                Some(class) => best(class) - logits[class] as f64,
                None => f64::NEG_INFINITY,
            },
            (true, Goal::Targeted(class)) => logits[class] as f64 - best(class),
            (false, Goal::Untargeted) => {
                let truth = (0..logits.len()).filter(|&class| truth[class]);
                -truth.map(over).fold(f64::NEG_INFINITY, f64::max)
            }
            (false, Goal::Targeted(class)) => over(class),
        }
    }

    fn true_class(&self, image: usize) -> Option<usize> {
        self.truth[image].iter().position(|&set| set)
    }
}

pub(super) fn sigmoid(z: f32) -> f64 {
    1.0 / (1.0 + (-z as f64).exp())
}

/// ln(1 + eᶻ): the cross-entropy −ln(1 − p) of p = sigmoid(z).
pub(super) fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// softmax(logits), in f64.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let powers: Vec<f64> = logits.iter().map(|&z| (z as f64 - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// −ln softmax(logits)[class]
pub(super) fn cross_entropy(logits: &[f32], class: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = logits.iter().map(|&z| (z as f64 - most).exp()).sum();
    most + sum.ln() - logits[class] as f64
}

impl Objective for LabelObjective {
    fn status(&self, image: usize, logits: &[f32]) -> AttackStatus {
        let truth = &self.truth[image];
        let (reached, score) = match (self.exclusive, self.goal) {
            (true, Goal::Untargeted) => match self.true_class(image) {
                Some(class) => (arg_max(logits) != class, cross_entropy(logits, class)),
                None => (false, 0.0),
            },
            (true, Goal::Targeted(class)) => (arg_max(logits) == class, -cross_entropy(logits, class)),
            (false, Goal::Untargeted) => {
                let said = self.said(logits);
                let left = (0..logits.len()).any(|class| truth[class] && said[class]);
                let loss = |class: usize| {
                    softplus(if truth[class] { -logits[class] } else { logits[class] } as f64)
                };
                let counted = (0..logits.len()).filter(|&class| self.all_classes || truth[class]);
                (!left, counted.map(loss).sum())
            }
            (false, Goal::Targeted(class)) => {
                (self.said(logits)[class], -softplus(-logits[class] as f64))
            }
        };
        let sure = reached && self.lead(image, logits) >= self.margin as f64;
        AttackStatus { reached, sure, score }
    }

    fn upstream(&self, image: usize, logits: &[f32], _done: f32, gradient: &mut [f32]) {
        gradient.fill(0.0);
        let truth = &self.truth[image];
        match (self.exclusive, self.goal) {
            // The cross-entropy of a class: p − y; it is to rise for the true class, to fall for the
            // wished one. Without a label that is p: the loss is 0, and the step follows what the network
            // says already.
            (true, goal) => {
                let (class, sign) = match goal {
                    Goal::Untargeted => (self.true_class(image), 1.0),
                    Goal::Targeted(class) => (Some(class), -1.0),
                };
                for (g, p) in gradient.iter_mut().zip(softmax(logits)) {
                    *g = (sign * p) as f32;
                }
                // 1 − p of what is likely loses its digits: the sum of the others does not.
                if let Some(class) = class {
                    let others = gradient.iter().enumerate().filter(|&(c, _)| c != class);
                    gradient[class] = -others.map(|(_, &g)| g).sum::<f32>();
                }
            }
            (false, Goal::Untargeted) => {
                for (class, (g, &z)) in gradient.iter_mut().zip(logits).enumerate() {
                    if truth[class] {
                        *g = -sigmoid(-z) as f32;
                    } else if self.all_classes {
                        *g = sigmoid(z) as f32;
                    }
                }
            }
            (false, Goal::Targeted(class)) => gradient[class] = sigmoid(-logits[class]) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: usize = 20;

    fn objective(exclusive: bool, goal: Goal, all_classes: bool) -> LabelObjective {
        let mut truth = vec![false; CLASSES];
        (truth[2], truth[7]) = (true, true);
        LabelObjective {
            truth: vec![truth],
            goal,
            exclusive,
            thresholds: vec![0.3; CLASSES],
            margin: 0.0,
            all_classes,
        }
    }

    fn logits() -> Vec<f32> {
        (0..CLASSES).map(|i| ((i * 7 + 3) % 11) as f32 * 0.5 - 2.5).collect()
    }

    #[test]
    fn upstream_is_the_gradient_of_the_score() {
        for exclusive in [true, false] {
            for (goal, all) in
                [(Goal::Untargeted, false), (Goal::Untargeted, true), (Goal::Targeted(5), false)]
            {
                let objective = objective(exclusive, goal, all);
                let (z, mut gradient) = (logits(), vec![0.0; CLASSES]);
                objective.upstream(0, &z, 0.0, &mut gradient);
                for class in 0..z.len() {
                    let at = |h: f32| {
                        let mut z = z.clone();
                        z[class] += h;
                        objective.status(0, &z).score
                    };
                    let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
                    let g = gradient[class] as f64;
                    assert!((slope - g).abs() < 1e-4, "{exclusive} {goal:?} {all} {class}: {slope} {g}");
                }
            }
        }
    }

    #[test]
    fn the_gradient_of_a_sure_network_does_not_vanish() {
        let mut z = vec![-60.0; CLASSES];
        z[2] = 40.0;
        let mut gradient = vec![0.0; CLASSES];
        objective(true, Goal::Untargeted, false).upstream(0, &z, 0.0, &mut gradient);
        assert!(gradient[2] < 0.0 && gradient[3] > 0.0, "{gradient:?}");
        objective(false, Goal::Untargeted, false).upstream(0, &z, 0.0, &mut gradient);
        assert!(gradient[2] < 0.0 && gradient[7] == -1.0);
    }

    #[test]
    fn success_is_none_of_the_true_labels_or_the_wished_one() {
        let untargeted = objective(false, Goal::Untargeted, false);
        let mut z = vec![-5.0; CLASSES];
        assert!(untargeted.status(0, &z).reached);
        z[7] = -0.8; // .31, above .3
        assert!(!untargeted.status(0, &z).reached);
        let targeted = objective(false, Goal::Targeted(4), false);
        assert!(!targeted.status(0, &z).reached);
        z[4] = 0.0;
        assert!(targeted.status(0, &z).reached);
        assert!(!objective(true, Goal::Targeted(7), false).status(0, &z).reached);
        assert!(objective(true, Goal::Targeted(4), false).status(0, &z).reached);
    }

    #[test]
    fn a_margin_is_counted_in_logits_beyond_the_boundary() {
        for (exclusive, goal) in [
            (false, Goal::Untargeted),
            (false, Goal::Targeted(4)),
            (true, Goal::Untargeted),
            (true, Goal::Targeted(4)),
        ] {
            let mut objective = objective(exclusive, goal, false);
            objective.margin = 0.5;
            let threshold = (0.3f32 / 0.7).ln();
            let at = |beyond: f32| {
                let mut z = vec![-9.0; CLASSES];
                match (exclusive, goal) {
                    (false, Goal::Untargeted) => (z[2], z[7]) = (threshold - beyond, -8.0),
                    (false, Goal::Targeted(class)) => z[class] = threshold + beyond,
                    (true, _) => (z[2], z[4]) = (1.0, 1.0 + beyond),
                }
                let status = objective.status(0, &z);
                (status.reached, status.sure)
            };
            assert_eq!([at(-0.1), at(0.4), at(0.6)], [(false, false), (true, false), (true, true)]);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut objective = objective(false, Goal::Targeted(20), false);
        assert!(objective.check().unwrap_err().to_string().contains("below 20, got 20"));
        (objective.goal, objective.truth) = (Goal::Untargeted, vec![vec![false; 20]]);
        assert!(objective.check().unwrap_err().to_string().contains("no label"));
    }
}
