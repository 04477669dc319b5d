//! Networks that segment, led astray: every pixel has a say.
//!
//! Untargeted, the loss is the pixels' mean cross-entropy. Most of its gradient soon comes from pixels
//! that are wrong already, which is wasted: **SegPGD** (Gu et al., ECCV 2022) weighs the right ones by
//! 1 − λ and the wrong ones by λ, with λ rising from 0 to ½ over the steps. Targeted, a wish is given for
//! every pixel, and the cross-entropy with it falls.

use super::objective::{AttackStatus, Objective, cross_entropy, softmax};
use crate::data::{Mask, VOID};
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;

/// A network for masks led astray.
///
/// ```
/// use atrous::attack::{MaskObjective, Objective};
/// use atrous::data::{Mask, VOID};
///
/// // A row of three pixels: two of background, and one that is not judged.
/// let truth = Mask::new(1, 3, vec![0, 0, VOID])?;
/// let away = MaskObjective::untargeted(vec![truth], true);
/// let logits = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]; // [1, 3, 2]: class 0, class 1, class 1
/// assert_eq!(away.share(0, &logits), 0.5);
///
/// // What is of class 1 is to be said to be of class 0, and the rest to stay.
/// let now = Mask::new(1, 3, vec![1, 1, 0])?;
/// let turn = MaskObjective::turn(vec![now], 1, 0)?;
/// assert_eq!(turn.share(0, &logits), 0.5);
/// let logits = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
/// assert!(turn.status(0, &logits).reached);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MaskObjective {
    /// What each pixel of each image is taken for, or wished to be; void ones have no say.
    goal: Vec<Mask>,
    /// With a wish, the pixels that are to change. All others are to stay.
    turned: Option<Vec<Vec<bool>>>,
    /// Untargeted: weigh right and wrong pixels as SegPGD does.
    pub weighted: bool,
}

impl MaskObjective {
    /// Away from the truth, masks at the network's size; `weighted` as [`MaskObjective::weighted`].
    pub fn untargeted(truth: Vec<Mask>, weighted: bool) -> Self {
        MaskObjective { goal: truth, turned: None, weighted }
    }

    /// To turn the pixels of class `from` into `to` and leave the others as they are. `now` is what the
    /// network says of each image. An error where no pixel is there to be turned.
    pub fn turn(mut now: Vec<Mask>, from: u8, to: u8) -> Result<Self> {
        let turned: Vec<Vec<bool>> =
            now.iter().map(|mask| mask.classes.iter().map(|&class| class == from).collect()).collect();
        if !turned.iter().flatten().any(|&t| t) {
            let message = format!("the network sees no pixel of class {from} in these pictures");
            return Err(Error::argument("target", message));
        }
        for (mask, turned) in now.iter_mut().zip(&turned) {
            let pixels = mask.classes.iter_mut().zip(turned);
            pixels.filter(|(_, turned)| **turned).for_each(|(class, _)| *class = to);
        }
        Ok(MaskObjective { goal: now, turned: Some(turned), weighted: false })
    }

    /// The share of the pixels with a say that err; with a wish, of those to be turned, that are. `logits`
    /// [height, width, classes]; 0 to 1.
    pub fn share(&self, image: usize, logits: &[f32]) -> f64 {
        let goal = &self.goal[image].classes;
        let width = logits.len() / goal.len();
        let pixels = logits.chunks_exact(width).zip(goal).enumerate();
        let (mut all, mut led) = (0usize, 0usize);
        for (i, (row, &class)) in pixels {
            let counts = match &self.turned {
                Some(turned) => turned[image][i],
                None => class != VOID,
            };
            let follows = (arg_max(row) == class as usize) == self.turned.is_some();
            all += counts as usize;
            led += (counts && follows) as usize;
        }
        led as f64 / all.max(1) as f64
    }

    /// With a wish, the share of the pixels that are to stay that do; without one, 1.
    pub(crate) fn kept(&self, image: usize, logits: &[f32]) -> f64 {
        let goal = &self.goal[image].classes;
        let Some(turned) = &self.turned else { return 1.0 };
        let width = logits.len() / goal.len();
        let stay =
            logits.chunks_exact(width).zip(goal).zip(&turned[image]).filter(|(_, turned)| !**turned);
        let (mut all, mut same) = (0usize, 0usize);
        for ((row, &class), _) in stay {
            all += 1;
            same += (arg_max(row) == class as usize) as usize;
        }
        same as f64 / all.max(1) as f64
    }
}

impl Objective for MaskObjective {
    /// Reached where every pixel errs, or where all follow a wish: an attack goes on to its last step. The
    /// score is the share of them that do; with a wish, less those that were to stay and do not.
    fn status(&self, image: usize, logits: &[f32]) -> AttackStatus {
        let goal = &self.goal[image].classes;
        let width = logits.len() / goal.len();
        let share = self.share(image, logits);
        let score = match &self.turned {
            Some(_) => share + self.kept(image, logits),
            None => share,
        };
        // With as many wrong pixels, the image with the higher loss is the better one.
        let sign = if self.turned.is_some() { -1.0 } else { 1.0 };
        let pixels = logits.chunks_exact(width).zip(goal).filter(|(_, class)| **class != VOID);
        let loss: f64 = pixels.map(|(row, &class)| cross_entropy(row, class as usize)).sum();
        let reached = score >= if self.turned.is_some() { 2.0 } else { 1.0 };
        AttackStatus {
            reached,
            sure: reached,
            score: score + sign * 1e-6 * (loss / goal.len() as f64).min(100.0),
        }
    }

    fn upstream(&self, image: usize, logits: &[f32], done: f32, gradient: &mut [f32]) {
        let goal = &self.goal[image].classes;
        let width = logits.len() / goal.len();
        let lambda = done / 2.0;
        let share = 1.0 / goal.len() as f64;
        let pixels = logits.chunks_exact(width).zip(gradient.chunks_exact_mut(width)).zip(goal);
        for ((row, g), &class) in pixels {
            if class == VOID {
                g.fill(0.0);
                continue;
            }
            let weight = match (&self.turned, self.weighted) {
                (Some(_), _) => -1.0,
                (None, false) => 1.0,
                (None, true) if arg_max(row) == class as usize => 1.0 - lambda,
                (None, true) => lambda,
            };
            let weight = weight as f64 * share;
            let mut others = 0.0;
            for (c, (g, p)) in g.iter_mut().zip(softmax(row)).enumerate() {
                *g = (weight * p) as f32;
                others += if c == class as usize { 0.0 } else { weight * p };
            }
            g[class as usize] = -others as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits() -> Vec<f32> {
        (0..4 * 21).map(|i| ((i * 13 + 5) % 23) as f32 * 0.3 - 3.0).collect()
    }

    fn said() -> Mask {
        let classes = logits().chunks_exact(21).map(|row| arg_max(row) as u8).collect();
        Mask::new(2, 2, classes).unwrap()
    }

    #[test]
    fn upstream_is_the_gradient_of_the_mean_cross_entropy() {
        let mut truth = said();
        (truth.classes[1], truth.classes[2]) = (VOID, 3);
        let objective = MaskObjective::untargeted(vec![truth.clone()], false);
        let (z, mut gradient) = (logits(), vec![0.0; 84]);
        objective.upstream(0, &z, 0.0, &mut gradient);
        let loss = |z: &[f32]| {
            let pixels = z.chunks_exact(21).zip(&truth.classes).filter(|(_, c)| **c != VOID);
            pixels.map(|(row, &c)| cross_entropy(row, c as usize)).sum::<f64>() / 4.0
        };
        for i in 0..84 {
            let at = |h: f32| {
                let mut z = z.clone();
                z[i] += h;
                loss(&z)
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - gradient[i] as f64).abs() < 1e-4, "{i}: {slope} {}", gradient[i]);
        }
    }

    #[test]
    fn segpgd_leaves_wrong_pixels_alone_at_first() {
        let mut truth = said();
        truth.classes[0] = (truth.classes[0] + 1) % 21;
        let objective = MaskObjective::untargeted(vec![truth], true);
        let (z, mut gradient) = (logits(), vec![0.0; 84]);
        objective.upstream(0, &z, 0.0, &mut gradient);
        assert!(gradient[..21].iter().all(|&g| g == 0.0) && gradient[21..42].iter().any(|&g| g != 0.0));
        objective.upstream(0, &z, 0.9, &mut gradient);
        assert!(gradient[..21].iter().any(|&g| g != 0.0));
        assert_eq!(objective.share(0, &z), 0.25);
    }

    #[test]
    fn a_wish_counts_what_is_turned_and_what_stays() {
        let now = said();
        let from = now.classes[0];
        let to = (from + 1) % 21;
        let objective = MaskObjective::turn(vec![now.clone()], from, to).unwrap();
        let z = logits();
        assert_eq!((objective.share(0, &z), objective.kept(0, &z)), (0.0, 1.0));
        let mut turned = z.clone();
        for (row, &class) in turned.chunks_exact_mut(21).zip(&now.classes) {
            if class == from {
                row[to as usize] = 9.0;
            }
        }
        assert_eq!((objective.share(0, &turned), objective.kept(0, &turned)), (1.0, 1.0));
        assert!(objective.status(0, &turned).reached && !objective.status(0, &z).reached);
        let mut gradient = vec![0.0; 84];
        objective.upstream(0, &z, 0.0, &mut gradient);
        assert!(gradient[to as usize] > 0.0 && gradient[from as usize] < 0.0);
        let missing = (0..21).find(|class| !now.classes.contains(class)).unwrap();
        assert!(
            MaskObjective::turn(vec![now], missing, 0).unwrap_err().to_string().contains("no pixel")
        );
    }
}
