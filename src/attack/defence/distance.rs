//! Feature squeezing as an alarm (Xu, Evans and Qi, NDSS 2018): a clean image means the same after it
//! was squeezed, a perturbed one something else.
//!
//! With a network's predictions p(x), and squeezers s₁, s₂, …: d(x) = maxᵢ Σ_c |p_c(x) − p_c(sᵢ(x))|. For
//! a softmax d is at most 2, for sigmoids at most the number of classes. The threshold is where 5 % of
//! clean images are false alarms.
//!
//! d is on the tape (the sign of each difference, of the squeezer that differs most), so that an
//! adaptive attacker has its gradient; He et al. (WOOT 2017) got past several squeezers at once in that
//! way.

use super::Transform;
use super::detector::{Detector, scores, threshold};
use crate::attack::Victim;
use crate::autograd::record_all;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::Tensor;

/// The distance between what a classifier says with and without squeezing.
///
/// ```
/// use atrous::attack::defence::detector::FALSE_ALARMS;
/// use atrous::attack::defence::{Detector, Distance, Squeeze};
///
#[doc = include_str!("../brightness.txt")]
/// // Class 1 has the probability of a sigmoid of 6(mean − ½).
/// let classifier = brightness(4)?;
/// let clean = Tensor::from_slice(&[[0.0f32; 48], [0.1; 48]].concat(), [2, 4, 4, 3])?;
/// let detector = Distance::new(&classifier, vec![Box::new(Squeeze::Bits(1))])?;
/// assert_eq!(detector.name(), "distance of bits1");
/// let detector = detector.calibrated(&clean, FALSE_ALARMS)?;
/// // One bit makes 0 of .45: what is said changes, for both classes alike.
/// let distance = detector.score(&Tensor::full([1, 4, 4, 3], 0.45))?.item()?;
/// let p = |mean: f64| 1.0 / (1.0 + (-6.0 * (mean - 0.5)).exp());
/// assert!((distance - 2.0 * (p(0.45) - p(0.0))).abs() < 1e-5);
/// assert!(distance > detector.threshold() as f64);
/// # Ok::<(), Error>(())
/// ```
pub struct Distance<'a> {
    classifier: &'a dyn Victim,
    squeezers: Vec<Box<dyn Transform>>,
    threshold: f32,
}

impl<'a> Distance<'a> {
    /// A detector with a threshold that is never exceeded, until it is [calibrated](Self::calibrated). An
    /// error without squeezers.
    pub fn new(classifier: &'a dyn Victim, squeezers: Vec<Box<dyn Transform>>) -> Result<Self> {
        if squeezers.is_empty() {
            return Err(Error::argument("distance", "expected at least one way to squeeze, got none"));
        }
        Ok(Distance { classifier, squeezers, threshold: f32::MAX })
    }

    /// The detector with the threshold at which this share of these clean images is a false alarm, at
    /// most. An error without images, and for a share that is not from 0 to below 1.
    pub fn calibrated(mut self, clean: &Tensor, false_alarms: f64) -> Result<Self> {
        self.threshold = threshold(&self.scores(clean)?, false_alarms)? as f32;
        Ok(self)
    }

    /// The distances of images [N, side, side, 3].
    pub(crate) fn scores(&self, x: &Tensor) -> Result<Vec<f64>> {
        scores(self, self.classifier.device(), x)
    }

    fn predictions(&self, x: &Tensor) -> Result<Tensor> {
        let logits = self.classifier.logits(x)?;
        if logits.shape().len() != 2 {
            return Err(Error::shape("distance", "a classifier's logits [N, classes]", logits.shape()));
        }
        match self.classifier.exclusive() {
            true => ops::softmax(&logits),
            false => ops::sigmoid(&logits),
        }
    }
}

impl Detector for Distance<'_> {
    fn name(&self) -> String {
        let names: Vec<String> = self.squeezers.iter().map(|squeezer| squeezer.name()).collect();
        format!("distance of {}", names.join(", "))
    }

    fn score(&self, x: &Tensor) -> Result<Tensor> {
        let plain = self.predictions(x)?;
        let squeezed = self.squeezers.iter().map(|squeezer| self.predictions(&squeezer.apply(x)?));
        largest_distance(&plain, &squeezed.collect::<Result<Vec<Tensor>>>()?)
    }

    fn threshold(&self) -> f32 {
        self.threshold
    }
}

/// maxᵢ Σ |p − qᵢ| along rows of [N, classes] → [N, 1]. The gradient goes to the first of the largest;
/// where two values are the same it is 0. Computed on the CPU.
fn largest_distance(p: &Tensor, others: &[Tensor]) -> Result<Tensor> {
    let (shape, device) = (p.shape(), p.device());
    let columns = shape.last_length();
    let here = |t: &Tensor| Ok::<_, Error>(t.to_device(Device::Cpu)?.to_vec_f64());
    let (plain, squeezed) = (here(p)?, others.iter().map(here).collect::<Result<Vec<_>>>()?);
    let row = |all: &[f64], i: usize| all[i * columns..][..columns].to_vec();
    // For each row the one that differs most, and the signs of its differences.
    let mut found: Vec<(usize, f64, Vec<f32>)> = Vec::with_capacity(shape[0]);
    for i in 0..shape[0] {
        let mut best = (0, f64::NEG_INFINITY, Vec::new());
        for (which, all) in squeezed.iter().enumerate() {
            let differences: Vec<f64> =
                row(&plain, i).iter().zip(row(all, i)).map(|(p, q)| p - q).collect();
            let distance = differences.iter().map(|d| d.abs()).sum();
            if distance > best.1 {
                let sign = |&d: &f64| if d == 0.0 { 0.0 } else { d.signum() as f32 };
                best = (which, distance, differences.iter().map(sign).collect());
            }
        }
        found.push(best);
    }
    let distances: Vec<f32> = found.iter().map(|(_, distance, _)| *distance as f32).collect();
    let output = Tensor::from_slice(&distances, [shape[0], 1])?.to_device(device)?;
    let inputs: Vec<&Tensor> = [p].into_iter().chain(others).collect();
    let count = others.len();
    Ok(record_all("largest_distance", &inputs, output, move |g| {
        let g = g.to_device(Device::Cpu)?.to_vec_f64();
        // The rows' gradients for the input of this number; 0 is p.
        let share = |input: usize| -> Result<Option<Tensor>> {
            let rows = found.iter().zip(&g).flat_map(|((which, _, signs), &g)| {
                let factor = match input {
                    0 => g as f32,
                    _ if input == which + 1 => -g as f32,
                    _ => 0.0,
                };
                signs.iter().map(move |sign| factor * sign)
            });
            Ok(Some(Tensor::from_slice(&rows.collect::<Vec<f32>>(), shape)?.to_device(device)?))
        };
        (0..=count).map(share).collect()
    }))
}

#[cfg(test)]
mod tests {
    use super::super::detector::{Detection, FALSE_ALARMS, Guarded, Undetected};
    use super::super::{Evaluator, Squeeze, measure, toy};
    use super::*;
    use crate::attack::{EpsBall, Iterative, Network, victim};
    use crate::data::image::Preprocess;

    #[test]
    fn the_largest_distance_by_hand_and_its_gradient() {
        let tensor = |values: &[f32]| Tensor::from_slice(values, [2, 3]).unwrap().leaf();
        let p = tensor(&[0.2, 0.3, 0.5, 1.0, 0.0, 0.0]);
        let a = tensor(&[0.2, 0.2, 0.6, 0.5, 0.5, 0.0]);
        let b = tensor(&[0.6, 0.3, 0.1, 0.9, 0.1, 0.0]);
        let d = largest_distance(&p, &[a.clone(), b.clone()]).unwrap();
        let values = d.to_vec_f64();
        assert!((values[0] - 0.8).abs() < 1e-6 && (values[1] - 1.0).abs() < 1e-6);
        let g = d.backward_from(Tensor::from_slice(&[1.0f32, 2.0], [2, 1]).unwrap()).unwrap();
        let of = |leaf: &Tensor| g.get(leaf).unwrap().to_vec_f64();
        assert_eq!(of(&p), [-1.0, 0.0, 1.0, 2.0, -2.0, 0.0]);
        assert_eq!(of(&a), [0.0, 0.0, 0.0, -2.0, 2.0, 0.0]);
        assert_eq!(of(&b), [1.0, 0.0, -1.0, 0.0, 0.0, 0.0]);
    }

    fn distance(network: &Network) -> Distance<'_> {
        Distance::new(network, vec![Box::new(Squeeze::Bits(3)), Box::new(Squeeze::Median(3))]).unwrap()
    }

    #[test]
    fn its_gradient_reaches_the_images() {
        let network = Network::new(&toy::sharp_model(), Preprocess::Symmetric).unwrap();
        // The median alone: bits have a gradient that is not theirs.
        let median = Distance::new(&network, vec![Box::new(Squeeze::Median(3))]).unwrap();
        let images = toy::images(1);
        // Near where the network is of two minds, and no two values of a window within a step of each
        // other.
        let values: Vec<f32> = toy::random([1, toy::SIDE, toy::SIDE, 3], 3)
            .values::<f32>()
            .iter()
            .zip(images.values(0))
            .map(|(r, p)| 0.5 + 0.02 * (p - 0.5) + 0.01 * (r - 0.5))
            .collect();
        let x = Tensor::from_slice(&values, [1, toy::SIDE, toy::SIDE, 3]).unwrap();
        let (_, gradient) =
            victim::gradient(&Guarded { classifier: &network, detector: &median }, &x, |_, _, up| {
                up[20] = 1.0
            })
            .unwrap();
        let g = gradient.values::<f32>();
        let length = g.iter().map(|g| (g * g) as f64).sum::<f64>().sqrt();
        assert!(length > 0.0);
        // Along the gradient the distance rises by as much as its length says.
        let at = |h: f64| {
            let moved: Vec<f32> =
                values.iter().zip(g).map(|(&v, &g)| v + (h * g as f64 / length) as f32).collect();
            median.scores(&Tensor::from_slice(&moved, x.shape()).unwrap()).unwrap()[0]
        };
        let slope = (at(2e-4) - at(-2e-4)) / 4e-4;
        assert!((slope / length - 1.0).abs() < 0.1, "{slope} {length}");
    }

    #[test]
    fn perturbed_images_lie_further_and_an_attacker_can_come_nearer() {
        let network = Network::new(&toy::sharp_model(), Preprocess::Symmetric).unwrap();
        let (images, objective) = (toy::images(24), toy::objective(24));
        let ball = EpsBall::linf(toy::EPSILON);
        let attack = Iterative::pgd(ball, 10);
        let perturbed = attack.perturb(&network, &images, &objective).unwrap();
        let detector = distance(&network).calibrated(&images.x, FALSE_ALARMS).unwrap();
        let (clean, found) =
            (detector.scores(&images.x).unwrap(), detector.scores(&perturbed.x).unwrap());
        let detection = Detection::at(&clean, &found, detector.threshold() as f64).unwrap();
        assert!(detection.false_alarms <= 0.05 && (0.0..=1.0).contains(&detection.auc));
        assert!(found.iter().chain(&clean).all(|d| (0.0..=2.0 + 1e-6).contains(d)));
        let guarded = Guarded { classifier: &network, detector: &detector };
        let undetected = Undetected { weight: 10.0, ..Undetected::new(objective.clone(), &detector) };
        let judge = Evaluator::new(&guarded, &undetected);
        let unaware = attack.perturb(&network, &images, &objective).unwrap().x;
        let adaptive = attack.perturb(&guarded, &images, &undetected).unwrap().x;
        let [clean, unaware, adaptive] = measure(&images, &unaware, &adaptive, judge).unwrap().rates();
        assert!(clean == 0.0 && adaptive >= unaware, "{clean} {unaware} {adaptive}");
        assert!(detector.name().contains("bits3, median3"));
        assert!(Distance::new(&network, Vec::new()).is_err());
    }
}
