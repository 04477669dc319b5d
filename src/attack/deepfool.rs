//! DeepFool (Moosavi-Dezfooli, Fawzi and Frossard, 2016): how little is enough?
//!
//! Where a class boundary is a plane, the nearest point of it is known: with f the margin by which the
//! true class leads another and w the margin's gradient, it lies at −f·w/‖w‖². A network's boundary is
//! bent, so the step is repeated, to the nearest of the boundaries as they seem from each new point,
//! until the network errs. The sum of the steps, made 2 % longer, is the perturbation. There is no ε: its
//! length is the measure.
//!
//! With sigmoids there is one plane a label: the step takes the true label that leads by most below its
//! threshold (or the wished one above).

use super::images::Images;
use super::iterative::Attacked;
use super::objective::{Goal, LabelObjective, Objective};
use super::victim::{self, Victim, rows};
use crate::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;
use crate::tensor::Tensor;

/// The attack's settings; [`DeepFool::default`] has the authors'.
///
/// ```
/// use atrous::attack::{DeepFool, Images, Norm};
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.45));
/// let attacked = DeepFool::default().perturb(&victim, &images, &away_from_dark(1))?;
/// assert!(attacked.statuses[0].reached);
/// // To the boundary it is .05, and 2 % more are behind it.
/// let change = Norm::Linf.of(images.with(attacked.x).values(0), images.values(0));
/// assert!((change - 0.051).abs() < 1e-4);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeepFool {
    /// By which share the perturbation is made longer than needed, 0 to 1, so that the boundary is
    /// behind it.
    pub overshoot: f32,
    /// Steps at most, above 0.
    pub steps: usize,
    /// With a softmax only this many other classes are tried, the likeliest.
    pub candidates: usize,
}

impl Default for DeepFool {
    /// The authors' numbers.
    fn default() -> Self {
        DeepFool { overshoot: 0.02, steps: 50, candidates: 10 }
    }
}

impl DeepFool {
    pub(crate) fn check(&self) -> Result<()> {
        if self.steps == 0 || self.candidates == 0 || !(0.0..=1.0).contains(&self.overshoot) {
            let message = format!("expected steps, candidates and an overshoot of 0 to 1, got {self:?}");
            return Err(Error::argument("deepfool", message));
        }
        Ok(())
    }

    /// Perturbs each image by itself until the network errs. An error for settings out of range and an
    /// objective that [`LabelObjective::check`] refuses.
    pub fn perturb(
        &self,
        victim: &dyn Victim,
        images: &Images,
        objective: &LabelObjective,
    ) -> Result<Attacked> {
        self.check()?;
        objective.check()?;
        let (mut x, mut statuses) = (Vec::new(), Vec::new());
        for i in 0..images.len() {
            let one = self.one(victim, images, i, objective)?;
            let tensor = Tensor::from_slice(&one, [1, images.side(), images.side(), 3])?;
            statuses.push(objective.status(i, victim::logits(victim, &tensor)?.values()));
            x.extend(one);
        }
        Ok(Attacked { x: Tensor::from_slice(&x, images.x.shape())?, statuses })
    }

    fn one(
        &self,
        victim: &dyn Victim,
        images: &Images,
        i: usize,
        objective: &LabelObjective,
    ) -> Result<Vec<f32>> {
        let origin = images.values(i);
        let inside = match &images.inside {
            Some(inside) => Some(rows(inside, &[i])?),
            None => None,
        };
        let within = |at: usize| inside.as_ref().map_or(1.0, |inside| inside.values::<f32>()[at] as f64);
        let mut x = origin.to_vec();
        let longer = |x: &[f32]| -> Vec<f32> {
            let far = |(&x, &o): (&f32, &f32)| (o + (1.0 + self.overshoot) * (x - o)).clamp(0.0, 1.0);
            x.iter().zip(origin).map(far).collect()
        };
        for _ in 0..self.steps {
            let side = images.side();
            let here = Tensor::from_slice(&longer(&x), [1, side, side, 3])?;
            let logits = victim::logits(victim, &here)?;
            let logits = logits.values::<f32>();
            if objective.status(i, logits).reached {
                break;
            }
            // A copy of the image for each boundary: one pass gives all gradients.
            let planes = self.planes(i, logits, objective);
            let copies: Vec<f32> = planes.iter().flat_map(|_| x.iter().copied()).collect();
            let copies = Tensor::from_slice(&copies, [planes.len(), side, side, 3])?;
            let (there, gradient) = victim::gradient(victim, &copies, |plane, _, up| {
                up.fill(0.0);
                planes[plane].parts.iter().for_each(|&(class, sign)| up[class] = sign);
            })?;
            let gradient = gradient.to_device(Device::Cpu)?;
            let gradients = gradient.values::<f32>().chunks_exact(x.len());
            let widths = there.shape().last_length();
            let logits = there.values::<f32>().chunks_exact(widths);
            let steps = planes.iter().zip(gradients).zip(logits).map(|((plane, w), logits)| {
                let margin = plane.offset
                    + plane.parts.iter().map(|&(c, sign)| (sign * logits[c]) as f64).sum::<f64>();
                let square: f64 =
                    w.iter().enumerate().map(|(at, &w)| within(at) * w as f64 * w as f64).sum();
                (margin.abs() / square.sqrt().max(f64::MIN_POSITIVE), margin, square, w)
            });
            let Some((_, margin, square, w)) = steps.min_by(|a, b| a.0.total_cmp(&b.0)) else { break };
            if square == 0.0 {
                break;
            }
            // Lest the plane is approached for ever.
            let scale = margin.abs().max(1e-5) / square;
            for (at, (x, &w)) in x.iter_mut().zip(w).enumerate() {
                *x = (*x as f64 + within(at) * scale * w as f64).clamp(0.0, 1.0) as f32;
            }
        }
        Ok(longer(&x))
    }

    /// The boundaries that may be crossed from here.
    fn planes(&self, i: usize, logits: &[f32], objective: &LabelObjective) -> Vec<Plane> {
        match (objective.exclusive, objective.goal) {
            (true, goal) => {
                let now = arg_max(logits);
                let mut others: Vec<usize> = match goal {
                    Goal::Targeted(class) => vec![class],
                    Goal::Untargeted => (0..logits.len()).filter(|&class| class != now).collect(),
                };
                others.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
                others.truncate(self.candidates);
                let plane = |class| Plane { parts: vec![(class, 1.0), (now, -1.0)], offset: 0.0 };
                others.into_iter().map(plane).collect()
            }
            (false, Goal::Untargeted) => {
                let lead = |class: usize| logits[class] as f64 - objective.boundary(class);
                let truth = (0..logits.len()).filter(|&class| objective.truth[i][class]);
                let last = truth.max_by(|&a, &b| lead(a).total_cmp(&lead(b)));
                last.map(|class| Plane { parts: vec![(class, -1.0)], offset: objective.boundary(class) })
                    .into_iter()
                    .collect()
            }
            (false, Goal::Targeted(class)) => {
                vec![Plane { parts: vec![(class, 1.0)], offset: -objective.boundary(class) }]
            }
        }
    }
}

/// The margin Σ sign·z + offset, to be raised to 0.
struct Plane {
    parts: Vec<(usize, f32)>,
    offset: f64,
}
