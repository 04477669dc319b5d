//! A network that attacks a network: it is trained once, and then perturbs any image in one pass forward,
//! without the victim and without gradients (Baluja and Fischer, "Adversarial Transformation Networks",
//! AAAI 2018; Poursaeed et al., "Generative Adversarial Perturbations", CVPR 2018).
//!
//! With x in 0 to 1, the network G ([`crate::models::attack_generator`]), which ends in a tanh, and m,
//! which is 1 inside the image and 0 around it:
//!
//! x′ = clip(x + ε·m·G(2x − 1), 0, 1)
//!
//! A tanh is at most 1, so x′ is in the L∞ ball of ε whatever G's weights are. What it is trained for is
//! an [`Objective`], as with every attack: [`Training`].

#[cfg(feature = "checkpoint")]
mod file;
#[cfg(test)]
mod tests;
mod training;

pub use training::{Progress, Training};

use super::ball::{EpsBall, Norm};
use super::images::Images;
use super::iterative::Attacked;
use super::objective::Objective;
use super::victim::{self, Victim};
use crate::context::no_grad;
use crate::data::image::Fit;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models::attack_generator;
use crate::nn::{ForwardOutput, Mode, Model};
use crate::ops;
use crate::tensor::Tensor;
use std::fmt;

/// What a generator was trained for: what one has to know to use it, and to say what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct About {
    /// How images are fitted into its square.
    pub fit: Fit,
    /// The network it was trained against.
    pub victim: String,
    /// What that network was to say: `untargeted`, or a target.
    pub goal: String,
}

/// A network that perturbs images, and what it was trained for.
///
/// ```
/// use atrous::attack::generator::{About, Generator};
/// use atrous::attack::{EpsBall, Images, Norm};
/// use atrous::data::image::Fit;
/// use atrous::prelude::*;
///
/// let about = About { fit: Fit::Pad, victim: "mobilenet".into(), goal: "untargeted".into() };
/// let generator = Generator::new(8, EpsBall::linf(0.1), about, 1)?.to_device(Device::Cpu)?;
/// assert_eq!((generator.side(), generator.ball().epsilon), (8, 0.1));
/// // One pass forward; whatever the weights are (here random ones), no value moves by more than ε.
/// let images = Images::whole(Tensor::rand([2, 8, 8, 3], 7));
/// let perturbed = images.with(generator.perturb(&images)?);
/// assert!(Norm::Linf.of(perturbed.values(1), images.values(1)) < 0.1 + 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Generator {
    /// [side, side, 3] in −1..1 → as many values in −1..1.
    pub model: Model,
    ball: EpsBall,
    /// What it was trained for.
    pub about: About,
    /// Steps of training so far.
    pub steps: u64,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generator of side {}, ε {}", self.side(), self.ball.epsilon)
    }
}

impl Generator {
    /// A generator that is still to be trained, its weights drawn from `seed`. An error for a ball that is
    /// not of L∞, and for a side below 8 or above [`crate::models::LARGEST_SIDE`].
    pub fn new(side: usize, ball: EpsBall, about: About, seed: u64) -> Result<Self> {
        Self::of(Model::new(attack_generator(side)?, seed), ball, about)
    }

    /// A generator with a network of one's own. An error where that does not make [side, side, 3] of
    /// [side, side, 3], and for a ball that is not of L∞.
    ///
    /// ```
    /// use atrous::attack::generator::{About, Generator};
    /// use atrous::attack::{EpsBall, Images};
    /// use atrous::data::image::Fit;
    /// use atrous::prelude::*;
    ///
    /// // 2x − 1, multiplied by 3 and held to −1 to 1: dark pixels become darker, bright ones brighter.
    /// let mut graph = Graph::new("contrast", "input", [4, 4, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(3, 1).with_activation(Activation::Tanh)])?;
    /// let mut model = Model::new(graph, 0);
    /// model.set("conv2d/kernel", (3.0 * &Tensor::eye(3))?.reshape([1, 1, 3, 3])?)?;
    ///
    /// let about = About { fit: Fit::Stretch, victim: String::new(), goal: String::new() };
    /// let generator = Generator::of(model, EpsBall::linf(0.1), about)?;
    /// let x = generator.perturb(&Images::whole(Tensor::full([1, 4, 4, 3], 0.25)))?.to_vec_f64();
    /// assert!((x[0] - (0.25 + 0.1 * (-1.5f64).tanh())).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of(model: Model, ball: EpsBall, about: About) -> Result<Self> {
        ball.check()?;
        if ball.norm != Norm::Linf {
            return Err(Error::argument("norm", format!("a generator has `linf`, not `{}`", ball.norm)));
        }
        let nodes = model.graph.nodes();
        let (first, last) = (&nodes[0].output_shape[..], &nodes[nodes.len() - 1].output_shape[..]);
        match first {
            &[height, width, 3] if height == width && first == last => {
                Ok(Generator { model, ball, about, steps: 0 })
            }
            _ => {
                let got = format!("{first:?} → {last:?} of `{}`", model.graph.name);
                Err(Error::shape("generator", "[side, side, 3] → [side, side, 3]", got))
            }
        }
    }

    /// What it may change at most, of L∞.
    pub fn ball(&self) -> EpsBall {
        self.ball
    }

    /// Height and width of its images, in pixels.
    pub fn side(&self) -> usize {
        self.model.graph.nodes()[0].output_shape[0]
    }

    /// Moves the network's parameters to a device; an error where that cannot take
    /// them.
    pub fn to_device(self, device: Device) -> Result<Self> {
        Ok(Generator { model: self.model.to_device(device)?, ..self })
    }

    /// The perturbed images, [N, side, side, 3], 0 to 1, on the CPU; an error for images of another side.
    pub fn perturb(&self, images: &Images) -> Result<Tensor> {
        self.check_side("pictures", images.side())?;
        let device = self.model.device();
        let x = images.x.to_device(device)?;
        let inside = images.inside.as_ref().map(|inside| inside.to_device(device)).transpose()?;
        let (y, _) = no_grad(|| perturbed(&self.model, self.ball, &x, inside.as_ref(), Mode::infer()))?;
        y.to_device(Device::Cpu)
    }

    /// The perturbed images, and what a network makes of them.
    pub(crate) fn attack(
        &self,
        victim: &dyn Victim,
        images: &Images,
        objective: &dyn Objective,
    ) -> Result<Attacked> {
        self.check_side("a victim", victim.side())?;
        let x = self.perturb(images)?;
        let statuses = victim::statuses(victim, &x, objective)?;
        Ok(Attacked { x, statuses })
    }

    fn check_side(&self, whose: &str, side: usize) -> Result<()> {
        match side == self.side() {
            true => Ok(()),
            false => {
                let message = format!("expected {whose} of side {}, got {side}", self.side());
                Err(Error::argument("generator", message))
            }
        }
    }
}

/// x′, on the tape where the pass has gradients; and the pass.
fn perturbed(
    model: &Model,
    ball: EpsBall,
    x: &Tensor,
    inside: Option<&Tensor>,
    run: Mode,
) -> Result<(Tensor, ForwardOutput)> {
    let one = Tensor::full([1], 1.0).to_dtype(x.dtype()).to_device(x.device())?;
    let pass = model.run(&ops::sub(&ops::scale(x, 2.0)?, &one)?, run)?;
    let mut change = ops::scale(&pass.output, ball.epsilon.into())?;
    if let Some(inside) = inside {
        change = ops::mul(&change, inside)?;
    }
    // Rounding is monotonic: |change| ≤ ε gives a sum between x − ε and x + ε as f32 has them.
    let y = ops::clip(&ops::add(&change, x)?, 0.0, 1.0)?;
    Ok((y, pass))
}
