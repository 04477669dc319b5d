//! What helps a classifier against perturbations, and how much of it is left once the attacker knows.
//!
//! - [`squeeze`]: fewer bits, or a median filter, in front of the network (Xu, Evans and Qi, NDSS 2018).
//! - [`pca`]: only the strongest principal components of blocks (Bhagoji et al., 2018).
//! - `adversarial`: training on perturbed images (Goodfellow et al., 2015; Madry et al., 2018).
//! - `distillation`: a student of softened probabilities (Papernot et al., 2016). It hides gradients.
//! - [`detector`], [`learnt`], [`distance`]: not a better answer, but an alarm.
//!
//! A defence is judged three times ([`measure`]): on clean images, on those of an attacker who does
//! not know of it, and on those of one who does. Only the last number says whether it defends: most that
//! were published fell to attackers who took them into account (Athalye, Carlini and Wagner, ICML 2018;
//! Tramèr et al., NeurIPS 2020). So a defence that changes images is a [`Victim`] of its own,
//! [`Defended`], with its change on the tape: attacking it is attacking the whole.

#[cfg(feature = "checkpoint")]
pub mod adversarial;
pub mod detector;
pub mod distance;
#[cfg(feature = "checkpoint")]
pub mod distillation;
mod eigen;
pub mod learnt;
pub mod pca;
pub mod squeeze;

#[cfg(feature = "checkpoint")]
pub use adversarial::Adversarial;
pub use detector::{Detection, Detector, Guarded, Undetected};
pub use distance::Distance;
#[cfg(feature = "checkpoint")]
pub use distillation::Distillation;
pub use learnt::LearnedDetector;
pub use pca::{CovarianceSums, Keep, Pca};
pub use squeeze::Squeeze;

use super::images::Images;
use super::iterative::Attacked;
use super::objective::{AttackStatus, Objective};
use super::victim::{self, Victim};
use crate::autograd::record;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What is done to images in front of a network.
///
/// ```
/// use atrous::attack::defence::{Defended, Transform};
/// use atrous::attack::logits;
///
#[doc = include_str!("../brightness.txt")]
/// struct Negative;
///
/// impl Transform for Negative {
///     fn name(&self) -> String {
///         "negative".into()
///     }
///
///     fn apply(&self, x: &Tensor) -> Result<Tensor> {
///         1.0 - x
///     }
/// }
///
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let defended = Defended::new(&victim, Negative);
/// let (dark, bright) = (Tensor::full([1, 4, 4, 3], 0.25), Tensor::full([1, 4, 4, 3], 0.75));
/// assert_eq!(logits(&defended, &dark)?.to_vec_f64(), logits(&victim, &bright)?.to_vec_f64());
/// # Ok::<(), Error>(())
/// ```
pub trait Transform: Send + Sync {
    /// What it is called in tables.
    fn name(&self) -> String;

    /// Images [N, H, W, 3], 0 to 1 → as many of the same size, on the tape where the images are.
    fn apply(&self, x: &Tensor) -> Result<Tensor>;
}

impl<T: Transform + ?Sized> Transform for &T {
    fn name(&self) -> String {
        (**self).name()
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        (**self).apply(x)
    }
}

impl<T: Transform + ?Sized> Transform for Box<T> {
    fn name(&self) -> String {
        (**self).name()
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        (**self).apply(x)
    }
}

/// A network behind a transformation. Who attacks `inner` does not know of it, who attacks this does.
///
/// ```
/// use atrous::attack::defence::{Defended, Squeeze};
/// use atrous::attack::{EpsBall, Images, Iterative};
///
#[doc = include_str!("../brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// // Four levels a value: 0, ⅓, ⅔ and 1.
/// let defended = Defended::new(&victim, Squeeze::Bits(2));
/// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.45)); // becomes ⅓
/// let pgd = Iterative::pgd(EpsBall::linf(0.0625), 10);
/// // The attack goes through the squeezing, and beyond ½ a value becomes ⅔.
/// assert!(pgd.perturb(&defended, &images, &away_from_dark(1))?.statuses[0].reached);
/// # Ok::<(), Error>(())
/// ```
pub struct Defended<'a, T> {
    /// The network itself, undefended.
    pub inner: &'a dyn Victim,
    /// What images go through first.
    pub transform: T,
}

impl<'a, T: Transform> Defended<'a, T> {
    /// Puts the transformation in front of the network.
    pub fn new(inner: &'a dyn Victim, transform: T) -> Self {
        Defended { inner, transform }
    }
}

impl<T: Transform> Victim for Defended<'_, T> {
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        self.inner.logits(&self.transform.apply(x)?)
    }

    fn side(&self) -> usize {
        self.inner.side()
    }

    fn device(&self) -> Device {
        self.inner.device()
    }

    fn exclusive(&self) -> bool {
        self.inner.exclusive()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

/// A network that somebody attacks, or is judged by, and what it is to be led to.
#[derive(Clone, Copy)]
pub struct Evaluator<'a> {
    /// The network, with whatever defends it.
    pub victim: &'a dyn Victim,
    /// What it is to be led to; images are numbered as in the batch that is judged.
    pub objective: &'a dyn Objective,
}

impl<'a> Evaluator<'a> {
    /// A network together with what it is to be led to.
    pub fn new(victim: &'a dyn Victim, objective: &'a dyn Objective) -> Self {
        Evaluator { victim, objective }
    }

    /// How far images [N, side, side, 3] are on their way to what the objective wishes.
    pub(crate) fn judge(&self, x: &Tensor) -> Result<Attacked> {
        let statuses = victim::statuses(self.victim, x, self.objective)?;
        Ok(Attacked { x: x.to_device(Device::Cpu)?, statuses })
    }
}

/// A defence judged three times.
pub struct Measured {
    /// The images as they are.
    pub clean: Attacked,
    /// Perturbed by somebody who does not know the defence.
    pub unaware: Attacked,
    /// Perturbed by somebody who does: for each image the better of this one's and the unaware one's,
    /// since who knows more can do what who knows less does.
    pub adaptive: Attacked,
}

impl Measured {
    /// The shares of images that err as wished: clean, unaware, adaptive. 0 to 1.
    pub fn rates(&self) -> [f64; 3] {
        [&self.clean, &self.unaware, &self.adaptive].map(|attacked| {
            let reached = attacked.statuses.iter().filter(|status| status.reached).count();
            reached as f64 / attacked.statuses.len().max(1) as f64
        })
    }
}

/// Judges images as they are and two attacks on them by a defence.
///
/// `unaware` are the images of who does not know it: perturbed against the network without it.
/// `adaptive` are those of who does, mostly perturbed against the judge itself. An attack that stops at
/// the first success on the undefended network carries over less often than one that goes on; the
/// adaptive number does not have that weakness.
///
/// ```
/// use atrous::attack::defence::{Defended, Evaluator, Transform, measure};
/// use atrous::attack::{DeepFool, Images};
///
#[doc = include_str!("../brightness.txt")]
/// /// A defence that is none: it makes images darker.
/// struct Darker;
///
/// impl Transform for Darker {
///     fn name(&self) -> String {
///         "darker".into()
///     }
///
///     fn apply(&self, x: &Tensor) -> Result<Tensor> {
///         x - 0.1
///     }
/// }
///
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let defended = Defended::new(&victim, Darker);
/// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.45));
/// let (deepfool, objective) = (DeepFool::default(), away_from_dark(1));
/// // Who does not know of it stops just above ½, who does goes on to .6.
/// let unaware = deepfool.perturb(&victim, &images, &objective)?;
/// let adaptive = deepfool.perturb(&defended, &images, &objective)?;
/// let judge = Evaluator::new(&defended, &objective);
/// let measured = measure(&images, &unaware.x, &adaptive.x, judge)?;
/// assert_eq!(measured.rates(), [0.0, 0.0, 1.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn measure(
    images: &Images,
    unaware: &Tensor,
    adaptive: &Tensor,
    judge: Evaluator,
) -> Result<Measured> {
    let clean = judge.judge(&images.x)?;
    let unaware = judge.judge(unaware)?;
    let mut best = judge.judge(adaptive)?;
    let each = best.x.shape().elements() / images.len().max(1);
    let mut values = best.x.values::<f32>().to_vec();
    for (i, other) in unaware.statuses.iter().enumerate() {
        if other.is_better_than(&best.statuses[i]) {
            let range = i * each..(i + 1) * each;
            values[range.clone()].copy_from_slice(&unaware.x.values::<f32>()[range]);
            best.statuses[i] = *other;
        }
    }
    best.x = Tensor::from_slice(&values, best.x.shape())?;
    Ok(Measured { clean, unaware, adaptive: best })
}

/// An objective of logits divided by a temperature: the attacker's answer to `distillation`, whose
/// networks are as sure as T times their training. What counts as reached is what the logits themselves
/// say.
///
/// ```
/// use atrous::attack::Objective;
/// use atrous::attack::defence::TemperatureScaled;
///
#[doc = include_str!("../brightness.txt")]
/// // So sure that the softmax of it has no gradient left in f32; divided by 100 it is that of 5 and 0.
/// let mut logits = [0.0; CLASSES.len()];
/// logits[0] = 500.0;
/// let cooled = TemperatureScaled { inner: away_from_dark(1), temperature: 100.0 };
/// let mut gradient = [0.0; CLASSES.len()];
/// cooled.inner.upstream(0, &logits, 0.0, &mut gradient);
/// assert_eq!(gradient, [0.0; CLASSES.len()]);
/// cooled.upstream(0, &logits, 0.0, &mut gradient);
/// assert!(gradient[0] < 0.0 && gradient[1] > 0.0);
/// assert!(!cooled.status(0, &logits).reached);
/// # Ok::<(), Error>(())
/// ```
pub struct TemperatureScaled<O> {
    /// What is to be reached.
    pub inner: O,
    /// T, above 0.
    pub temperature: f32,
}

impl<O: Objective> TemperatureScaled<O> {
    fn cooled(&self, logits: &[f32]) -> Vec<f32> {
        logits.iter().map(|z| z / self.temperature).collect()
    }
}

impl<O: Objective> Objective for TemperatureScaled<O> {
    fn status(&self, image: usize, logits: &[f32]) -> AttackStatus {
        let AttackStatus { reached, sure, .. } = self.inner.status(image, logits);
        AttackStatus { reached, sure, ..self.inner.status(image, &self.cooled(logits)) }
    }

    fn upstream(&self, image: usize, logits: &[f32], done: f32, gradient: &mut [f32]) {
        self.inner.upstream(image, &self.cooled(logits), done, gradient);
        gradient.iter_mut().for_each(|g| *g /= self.temperature);
    }
}

/// Puts a function of images that is computed on the CPU on the tape. `forward` makes of values
/// [N, H, W, 3] as many, and what makes of a gradient by those the gradient by the images. Images on a
/// device are fetched and the results sent back.
fn on_tape<B>(
    op: &'static str,
    x: &Tensor,
    forward: impl FnOnce(&[f32], [usize; 4]) -> (Vec<f32>, B),
) -> Result<Tensor>
where
    B: FnOnce(&[f32]) -> Vec<f32> + Send + 'static,
{
    let shape = x.shape();
    let &[n, h, w, 3] = &*shape else {
        return Err(Error::shape(op, "pictures [N, H, W, 3]", shape));
    };
    let device = x.device();
    let here = x.to_device(Device::Cpu)?;
    let Some(values) = here.as_slice::<f32>() else {
        return Err(Error::DType { op, expected: "F32".into(), got: format!("{:?}", x.dtype()) });
    };
    let (y, backward) = forward(values, [n, h, w, 3]);
    let output = Tensor::from_slice(&y, shape)?.to_device(device)?;
    Ok(record(op, [x], output, move |g| {
        let g = g.to_device(Device::Cpu)?;
        let gradient = backward(g.values::<f32>());
        Ok([Some(Tensor::from_slice(&gradient, shape)?.to_device(device)?)])
    }))
}

#[cfg(test)]
pub(super) mod toy;

#[cfg(test)]
mod tests {
    use super::toy::*;
    use super::*;
    use crate::attack::{EpsBall, Iterative, Network};
    use crate::data::image::Preprocess;

    #[test]
    fn who_knows_a_defence_does_no_worse_than_who_does_not() {
        let model = sharp_model();
        let network = Network::new(&model, Preprocess::Symmetric).unwrap();
        let (images, objective) = (images(24), objective(24));
        let defended = Defended::new(&network, Squeeze::Median(3));
        let attack = Iterative::pgd(EpsBall::linf(EPSILON), 8);
        let judge = Evaluator::new(&defended, &objective);
        let by = |victim: &dyn Victim| attack.perturb(victim, &images, &objective).unwrap().x;
        let measured = measure(&images, &by(&network), &by(&defended), judge).unwrap();
        let [clean, unaware, adaptive] = measured.rates();
        assert!(clean <= unaware && unaware <= adaptive, "{clean} {unaware} {adaptive}");
        // The images are those that were judged, and in the ball.
        let again = judge.judge(&measured.adaptive.x).unwrap();
        assert_eq!(again.statuses, measured.adaptive.statuses);
        let (x, origin) = (measured.adaptive.x.values::<f32>(), images.x.values::<f32>());
        assert!(x.iter().zip(origin).all(|(x, o)| (x - o).abs() <= EPSILON + 1e-6));
    }

    #[test]
    fn cooled_logits_have_a_gradient_where_hot_ones_have_none() {
        let truth = objective(1);
        let mut z = vec![-3000.0; 20];
        z[truth.truth[0].iter().position(|&set| set).unwrap()] = 3000.0;
        let mut gradient = vec![0.0; 20];
        truth.upstream(0, &z, 0.0, &mut gradient);
        assert!(gradient.iter().all(|&g| g == 0.0));
        let cooled = TemperatureScaled { inner: truth, temperature: 100.0 };
        cooled.upstream(0, &z, 0.0, &mut gradient);
        assert!(gradient.iter().any(|&g| g != 0.0));
        assert!(!cooled.status(0, &z).reached);
        // ∂score/∂z, the division by T included.
        let z: Vec<f32> = (0..20).map(|i| (i % 7) as f32).collect();
        cooled.upstream(0, &z, 0.0, &mut gradient);
        for class in 0..20 {
            let at = |h: f32| {
                let mut z = z.clone();
                z[class] += h;
                cooled.status(0, &z).score
            };
            let slope = (at(0.5) - at(-0.5)) as f32;
            assert!((slope - gradient[class]).abs() < 1e-5, "{class}: {slope} {}", gradient[class]);
        }
    }
}
