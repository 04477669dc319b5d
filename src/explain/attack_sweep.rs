//! One image under attacks of growing size: what a network says at each ε.
//!
//! By FGSM (Goodfellow, Shlens and Szegedy, 2015), one step, and by PGD (Madry et al., 2018), many; both
//! away from what the network says of the image as it is. The one step has the same direction for every ε:
//! it takes one gradient for all.

use crate::attack::iterative::ascent;
use crate::attack::{
    AttackStatus, EpsBall, Images, Iterative, MaskObjective, Objective, Victim, logits,
};
use crate::data::{Image, Mask};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;
use crate::ops;
use crate::predict::masks_of;
use crate::tensor::Tensor;

/// The sizes that a sweep goes through by default: 0 to 16 of the 255 steps of an image file.
pub const EPSILONS: [f32; 9] = [
    0.0,
    1.0 / 255.0,
    2.0 / 255.0,
    3.0 / 255.0,
    4.0 / 255.0,
    6.0 / 255.0,
    8.0 / 255.0,
    12.0 / 255.0,
    16.0 / 255.0,
];

/// The settings of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct AttackSweep {
    /// The most a value may change by, of L∞, of images from 0 to 1.
    pub epsilons: Vec<f32>,
    /// PGD's steps from FGSM's image; 10 by default. 0: FGSM alone.
    pub steps: usize,
    /// How many of the likeliest classes are told; 5 by default.
    pub top: usize,
}

impl Default for AttackSweep {
    fn default() -> Self {
        AttackSweep { epsilons: EPSILONS.to_vec(), steps: 10, top: 5 }
    }
}

/// What a network says of an image at one ε.
#[derive(Clone)]
pub struct SweepStep {
    /// The most that a value was changed by.
    pub epsilon: f32,
    /// The perturbed image, [1, side, side, 3], 0 to 1, with what is around it in its square.
    pub x: Tensor,
    /// The same in bytes, without what is around it.
    pub image: Image,
    /// The likeliest classes and their probabilities, the likeliest first; of a network that segments, the
    /// classes of most pixels and their shares.
    pub top: Vec<(usize, f32)>,
    /// What a network that segments says; None for a classifier.
    pub mask: Option<Mask>,
    /// Whether it says something else than of the image as it was; of a network that segments, of all pixels.
    pub fooled: bool,
}

/// A step for each ε, in order.
#[derive(Clone)]
pub struct Swept {
    /// One step along the gradient's sign.
    pub fgsm: Vec<SweepStep>,
    /// The best of many steps, FGSM's among them; empty without steps.
    pub pgd: Vec<SweepStep>,
}

impl AttackSweep {
    /// Attacks one image at each ε. An error for another number of images, an ε out of range, and a network
    /// whose logits are not finite.
    ///
    /// ```
    /// use atrous::attack::{Images, Network};
    /// use atrous::data::image::Preprocess;
    /// use atrous::explain::attack_sweep::AttackSweep;
    /// use atrous::prelude::*;
    ///
    /// let mut graph = Graph::new("small", "input", [16, 16, 3]);
    /// let features = Layer::conv2d(4, 3).with_activation(Activation::Relu);
    /// let classes = Layer::dense(3).with_activation(Activation::Softmax);
    /// graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, classes])?;
    /// let network = Network::new(&Model::new(graph, 1), Preprocess::Symmetric)?;
    /// let image = Images::whole(Tensor::rand([1, 16, 16, 3], 7));
    ///
    /// let sweep = AttackSweep { epsilons: vec![0.0, 8.0 / 255.0], ..AttackSweep::default() };
    /// let swept = sweep.attack(&network, &image)?;
    /// let [before, after] = [0, 1].map(|i| &swept.pgd[i]);
    /// let class = before.top[0].0;
    /// let probability = |of: &[(usize, f32)]| of.iter().find(|(c, _)| *c == class).unwrap().1;
    /// assert!(probability(&after.top) < probability(&before.top));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn attack(&self, victim: &dyn Victim, image: &Images) -> Result<Swept> {
        if image.len() != 1 {
            return Err(Error::shape("attack sweep", "one image", image.len()));
        }
        let said = logits(victim, &image.x)?;
        let away = away_from(&said, victim.exclusive())?;
        let objective = &*away;
        let step = |epsilon: f32, x: Tensor| self.step(victim, image, objective, epsilon, x);
        let origin = image.x.to_device(victim.device())?;
        let (_, gradient) = ascent(victim, &origin, &[0], objective, 0.0, image.inside.as_ref())?;
        let mut swept = Swept { fgsm: Vec::new(), pgd: Vec::new() };
        for &epsilon in &self.epsilons {
            let ball = EpsBall::linf(epsilon);
            ball.check_for(image.side())?;
            let fgsm = ball.step(&origin, &gradient, &origin, epsilon)?.to_device(Device::Cpu)?;
            swept.fgsm.push(step(epsilon, fgsm.clone())?);
            if self.steps > 0 {
                let pgd = Iterative::pgd(ball, self.steps);
                let pgd = pgd.perturb_from(&fgsm, victim, image, objective)?;
                swept.pgd.push(step(epsilon, pgd.x)?);
            }
        }
        Ok(swept)
    }

    fn step(
        &self,
        victim: &dyn Victim,
        original: &Images,
        objective: &dyn Objective,
        epsilon: f32,
        x: Tensor,
    ) -> Result<SweepStep> {
        let logits = logits(victim, &x)?;
        let values: Vec<f32> = logits.to_vec_f64().into_iter().map(|z| z as f32).collect();
        let mask = match logits.shape().rank() {
            4 => masks_of(&logits)?.pop(),
            _ => None,
        };
        let scores = match &mask {
            Some(mask) => shares(mask, logits.shape()[3]),
            None if victim.exclusive() => floats(&ops::softmax(&logits)?),
            None => floats(&ops::sigmoid(&logits)?),
        };
        let mut top: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
        top.sort_by(|a, b| b.1.total_cmp(&a.1));
        top.truncate(self.top);
        let fooled = objective.status(0, &values).reached;
        Ok(SweepStep { epsilon, image: original.with(x.clone()).image(0)?, x, top, mask, fooled })
    }
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.to_vec_f64().into_iter().map(|v| v as f32).collect()
}

/// The share of a mask's pixels that each class has.
fn shares(mask: &Mask, classes: usize) -> Vec<f32> {
    let mut counts = vec![0usize; classes];
    mask.classes.iter().for_each(|&class| counts[class as usize] += 1);
    counts.iter().map(|&count| count as f32 / mask.classes.len() as f32).collect()
}

/// Away from what these logits, of one image, say.
fn away_from(logits: &Tensor, exclusive: bool) -> Result<Box<dyn Objective>> {
    if logits.shape().rank() == 4 {
        return Ok(Box::new(MaskObjective::untargeted(masks_of(logits)?, true)));
    }
    Ok(Box::new(AwayFrom { class: arg_max(&floats(logits)), exclusive }))
}

/// A classifier led away from a class, whatever the number of classes. It goes on when it is, so that of
/// each ε the most is seen.
struct AwayFrom {
    class: usize,
    /// A softmax; else a sigmoid each, where the class is said to be there above a half.
    exclusive: bool,
}

impl AwayFrom {
    /// The probability of all but the class.
    fn missing(&self, logits: &[f32]) -> f64 {
        let own = logits[self.class] as f64;
        let others = logits.iter().enumerate().filter(|&(class, _)| class != self.class);
        match self.exclusive {
            // Σ eᶻ of the others over that of all, divided by the class's own.
            true => {
                let others: f64 = others.map(|(_, &z)| (z as f64 - own).exp()).sum();
                if others.is_finite() { others / (1.0 + others) } else { 1.0 }
            }
            false => 1.0 / (1.0 + own.exp()),
        }
    }
}

impl Objective for AwayFrom {
    fn status(&self, _: usize, logits: &[f32]) -> AttackStatus {
        let reached = match self.exclusive {
            true => arg_max(logits) != self.class,
            false => logits[self.class] <= 0.0,
        };
        AttackStatus { reached, sure: false, score: self.missing(logits) }
    }

    /// That of the cross-entropy with the class: p − 1 of its own logit, p of the others'.
    fn upstream(&self, _: usize, logits: &[f32], _: f32, gradient: &mut [f32]) {
        gradient.fill(0.0);
        let missing = self.missing(logits);
        gradient[self.class] = -missing as f32;
        if self.exclusive {
            let others = || logits.iter().enumerate().filter(|&(class, _)| class != self.class);
            let most = others().map(|(_, &z)| z as f64).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = others().map(|(_, &z)| (z as f64 - most).exp()).sum();
            for (class, &z) in others() {
                gradient[class] = (missing * (z as f64 - most).exp() / sum) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::attack::Network;
    use crate::data::image::Preprocess;
    use crate::models::by_name;
    use crate::nn::layers::Layer;
    use crate::nn::{Graph, Model};

    fn classifier(activation: Activation) -> Network {
        let mut graph = Graph::new("small", "input", [16, 16, 3]);
        let features = Layer::conv2d(8, 3).with_activation(Activation::Relu);
        let classes = Layer::dense(30).with_activation(activation);
        graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, classes]).unwrap();
        Network::new(&Model::new(graph, 1), Preprocess::Symmetric).unwrap()
    }

    fn image() -> Images {
        Images::whole(Tensor::rand([1, 16, 16, 3], 7))
    }

    #[test]
    fn the_probability_of_what_was_said_falls_with_epsilon_and_no_value_changes_by_more() {
        for activation in [Activation::Softmax, Activation::Sigmoid] {
            let network = classifier(activation);
            let swept =
                AttackSweep { top: 30, ..AttackSweep::default() }.attack(&network, &image()).unwrap();
            let class = swept.fgsm[0].top[0].0;
            let probability = |step: &SweepStep| step.top.iter().find(|(c, _)| *c == class).unwrap().1;
            let origin = image().x.to_vec_f64();
            for (steps, name) in [(&swept.fgsm, "fgsm"), (&swept.pgd, "pgd")] {
                assert_eq!(steps.iter().map(|step| step.epsilon).collect::<Vec<_>>(), EPSILONS);
                assert!(!steps[0].fooled && steps[0].x.to_vec_f64() == origin, "{name}");
                for pair in steps.windows(2) {
                    let [before, after] = [0, 1].map(|i| probability(&pair[i]));
                    assert!(after < before, "{activation:?} {name}: {before} {after}");
                }
                for step in steps {
                    let changes =
                        step.x.to_vec_f64().into_iter().zip(&origin).map(|(x, o)| (x - o).abs());
                    assert!(changes.fold(0.0, f64::max) <= step.epsilon as f64 + 1e-7);
                    let sum: f32 = step.top.iter().map(|(_, p)| p).sum();
                    assert!(activation == Activation::Sigmoid || (sum - 1.0).abs() < 1e-5);
                    assert!(step.mask.is_none() && step.image.width == 16);
                }
            }
            let least = |steps: &[SweepStep]| probability(&steps[EPSILONS.len() - 1]);
            assert!(least(&swept.pgd) <= least(&swept.fgsm));
        }
    }

    #[test]
    fn the_one_step_is_fgsms_and_without_more_steps_there_is_nothing_else() {
        let network = classifier(Activation::Softmax);
        let swept = AttackSweep { steps: 0, ..AttackSweep::default() }.attack(&network, &image());
        let swept = swept.unwrap();
        assert!(swept.pgd.is_empty());
        let away = away_from(&logits(&network, &image().x).unwrap(), true).unwrap();
        for step in &swept.fgsm {
            let ball = EpsBall::linf(step.epsilon);
            let alone = Iterative::one_step(ball, &network, &image(), &*away).unwrap();
            assert_eq!(step.x.to_vec_f64(), alone.x.to_vec_f64());
        }
    }

    #[test]
    fn of_a_network_that_segments_the_mask_goes_away() {
        let model = Model::new(by_name("deeplabv3plus", 32, 21).unwrap(), 1);
        let network = Network::new(&model, Preprocess::Symmetric).unwrap();
        let sweep = AttackSweep { epsilons: vec![0.0, 0.1], steps: 2, top: 3 };
        let swept = sweep.attack(&network, &Images::whole(Tensor::rand([1, 32, 32, 3], 7))).unwrap();
        let [before, after] = [0, 1].map(|i| swept.pgd[i].mask.as_ref().unwrap());
        let changed = before.classes.iter().zip(&after.classes).filter(|(a, b)| a != b).count();
        assert!(changed > 32, "{changed}");
        let shares: f32 = swept.pgd[0].top.iter().map(|(_, share)| share).sum();
        assert!(shares > 0.0 && shares <= 1.0 + 1e-6 && swept.pgd[0].top.len() == 3);
    }

    #[test]
    fn upstream_is_the_gradient_of_the_cross_entropy() {
        for exclusive in [true, false] {
            let objective = AwayFrom { class: 1, exclusive };
            let (z, mut gradient) = ([0.3f32, 1.1, -0.4, 0.9], [0.0; 4]);
            objective.upstream(0, &z, 0.0, &mut gradient);
            let loss = |z: &[f32]| -(1.0 - objective.missing(z)).ln();
            for i in 0..4 {
                let at = |h: f32| {
                    let mut z = z;
                    z[i] += h;
                    loss(&z)
                };
                let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((slope - gradient[i] as f64).abs() < 1e-4, "{i}: {slope} {}", gradient[i]);
            }
        }
        // It does not vanish where the network is sure.
        let mut gradient = [0.0; 2];
        AwayFrom { class: 0, exclusive: true }.upstream(0, &[40.0, -40.0], 0.0, &mut gradient);
        assert!(gradient[0] < 0.0 && gradient[1] > 0.0, "{gradient:?}");
    }

    #[test]
    fn two_images_and_an_epsilon_in_steps_are_refused() {
        let network = classifier(Activation::Softmax);
        let two = Images::whole(Tensor::rand([2, 16, 16, 3], 7));
        let error = |sweep: AttackSweep, images: &Images| {
            sweep.attack(&network, images).err().unwrap().to_string()
        };
        assert!(error(AttackSweep::default(), &two).contains("expected one image, got 2"));
        let steps = AttackSweep { epsilons: vec![8.0], ..AttackSweep::default() };
        assert!(error(steps, &image()).contains("did you mean 8/255?"));
    }
}
