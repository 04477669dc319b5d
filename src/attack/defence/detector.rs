//! An alarm in front of a classifier, what it is worth, and who attacks both.
//!
//! A [`Detector`] gives each image a score, and says "perturbed" above its threshold. There are two: a
//! small network ([`super::learnt`]) and the distance between predictions with and without squeezing
//! ([`super::distance`]). Its measures are the area under the ROC curve, and the share of perturbed
//! images that it finds while it raises a false alarm for 5 % of clean ones ([`Detection`]).
//!
//! Who knows of the detector has to lead two networks astray at once. [`Guarded`] shows both to the
//! attack, the detector's score as one more logit, and [`Undetected`] raises
//!
//! L(z) − λ·softplus(s − t)
//!
//! with the classifier's logits z, the score s and the threshold t: the classifier's loss less the
//! cross-entropy of "clean" (Carlini and Wagner, AISec 2017, broke ten detectors so). A fixed λ wastes
//! steps on what is reached already; with [`Undetected::selective`] each step follows the one of the two
//! that is not (Bryniarski et al., ICLR 2022).

use crate::attack::objective::softplus;
use crate::attack::{AttackStatus, Objective, Victim, victim};
use crate::context::no_grad;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::Tensor;

/// The share of clean images that raise a false alarm where detectors are compared: 5 %.
pub const FALSE_ALARMS: f64 = 0.05;

/// Says which images were perturbed.
///
/// ```
/// use atrous::attack::defence::{Detector, detector};
/// use atrous::prelude::*;
///
/// /// Takes bright images for perturbed.
/// struct Bright;
///
/// impl Detector for Bright {
///     fn name(&self) -> String {
///         "bright".into()
///     }
///
///     fn score(&self, x: &Tensor) -> Result<Tensor> {
///         x.flatten()?.mean_keepdim([1])
///     }
///
///     fn threshold(&self) -> f32 {
///         0.5
///     }
/// }
///
/// let x = Tensor::from_slice(&[[0.25f32; 48], [0.75; 48]].concat(), [2, 4, 4, 3])?;
/// assert_eq!(detector::scores(&Bright, Device::Cpu, &x)?, [0.25, 0.75]);
/// # Ok::<(), Error>(())
/// ```
pub trait Detector: Sync {
    /// What it is called in tables.
    fn name(&self) -> String;

    /// Images [N, side, side, 3], 0 to 1 → scores [N, 1], on the tape where the images are. More is
    /// more suspicious.
    fn score(&self, x: &Tensor) -> Result<Tensor>;

    /// Images of a higher score are taken for perturbed.
    fn threshold(&self) -> f32;
}

/// Images of a batch of scores.
const BATCH: usize = 16;

/// The scores of images [N, side, side, 3], 0 to 1, in batches on that device, without a tape.
///
/// ```
/// use atrous::attack::defence::{Distance, Squeeze, detector};
///
#[doc = include_str!("../brightness.txt")]
/// let classifier = brightness(4)?;
/// let distance = Distance::new(&classifier, vec![Box::new(Squeeze::Bits(1))])?;
/// let x = Tensor::from_slice(&[[0.0f32; 48], [0.45; 48]].concat(), [2, 4, 4, 3])?;
/// let scores = detector::scores(&distance, Device::Cpu, &x)?;
/// assert!(scores[0] == 0.0 && scores[1] > 0.5); // one bit changes nothing of black
/// # Ok::<(), Error>(())
/// ```
pub fn scores(detector: &dyn Detector, device: Device, x: &Tensor) -> Result<Vec<f64>> {
    let all: Vec<usize> = (0..x.shape()[0]).collect();
    let mut scores = Vec::with_capacity(all.len());
    for batch in all.chunks(BATCH) {
        let x = victim::rows(x, batch)?.to_device(device)?;
        scores.extend(no_grad(|| detector.score(&x))?.to_device(Device::Cpu)?.to_vec_f64());
    }
    Ok(scores)
}

/// The lowest threshold above which there are no more than this share of clean images. An error
/// without scores, or with a share that is not from 0 to below 1.
pub(crate) fn threshold(clean: &[f64], false_alarms: f64) -> Result<f64> {
    check("threshold", clean)?;
    if !(0.0..1.0).contains(&false_alarms) {
        let message = format!("expected a share of 0 to below 1, got {false_alarms}");
        return Err(Error::argument("threshold", message));
    }
    let mut falling = clean.to_vec();
    falling.sort_by(|a, b| b.total_cmp(a));
    // Just so many are above the next one; of equal scores none is.
    Ok(falling[((clean.len() as f64 * false_alarms + 1e-9) as usize).min(clean.len() - 1)])
}

/// The area under the ROC curve: how often a perturbed image has a higher score than a clean one, ties
/// counting half (Mann and Whitney's U over both numbers; Hanley and McNeil, 1982).
fn auc(clean: &[f64], perturbed: &[f64]) -> Result<f64> {
    check("auc", clean)?;
    check("auc", perturbed)?;
    let mut sorted = clean.to_vec();
    sorted.sort_by(f64::total_cmp);
    let wins = perturbed.iter().map(|&score| {
        let below = sorted.partition_point(|&c| c < score);
        let not_above = sorted.partition_point(|&c| c <= score);
        (below + not_above) as f64 / 2.0
    });
    Ok(wins.sum::<f64>() / clean.len() as f64 / perturbed.len() as f64)
}

fn check(what: &'static str, scores: &[f64]) -> Result<()> {
    match scores.iter().find(|score| score.is_nan()) {
        _ if scores.is_empty() => Err(Error::argument(what, "there are no scores")),
        Some(bad) => Err(Error::argument(what, format!("expected numbers, got {bad}"))),
        None => Ok(()),
    }
}

/// What a detector is worth on clean images and their perturbed likes.
///
/// ```
/// use atrous::attack::defence::Detection;
///
/// let (clean, perturbed) = ([0.0, 1.0, 2.0, 3.0], [2.5, 4.0, 5.0, 6.0]);
/// let detection = Detection::at(&clean, &perturbed, 3.0)?;
/// assert_eq!((detection.detected, detection.false_alarms), (0.75, 0.0));
/// // Of the 16 pairs of a perturbed image and a clean one, 15 have the perturbed one's score above.
/// assert_eq!(detection.auc, 15.0 / 16.0);
/// // One of the four clean ones may be a false alarm.
/// let detection = Detection::with(&clean, &perturbed, 0.25)?;
/// assert_eq!((detection.threshold, detection.detected, detection.false_alarms), (2.0, 1.0, 0.25));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// The area under the ROC curve, over all thresholds: 0.5 is chance, 1 is perfect.
    pub auc: f64,
    /// What the two shares below are measured at.
    pub threshold: f64,
    /// The share of perturbed images above the threshold (the true positive rate).
    pub detected: f64,
    /// The share of clean images above the threshold (the false positive rate).
    pub false_alarms: f64,
}

impl Detection {
    /// Scores of clean and perturbed images measured at a threshold that was found on other images. An
    /// error without scores, or with one that is NaN.
    pub fn at(clean: &[f64], perturbed: &[f64], threshold: f64) -> Result<Self> {
        let above = |scores: &[f64]| {
            scores.iter().filter(|&&score| score > threshold).count() as f64 / scores.len() as f64
        };
        let auc = auc(clean, perturbed)?;
        let (detected, false_alarms) = (above(perturbed), above(clean));
        Ok(Detection { auc, threshold, detected, false_alarms })
    }

    /// [`Detection::at`] the threshold where no more than this share of these clean images are false
    /// alarms; an error, too, where the share is not from 0 to below 1.
    pub fn with(clean: &[f64], perturbed: &[f64], false_alarms: f64) -> Result<Self> {
        Self::at(clean, perturbed, threshold(clean, false_alarms)?)
    }
}

/// A classifier with a detector in front of it: logits [N, classes + 1], the last of them the detector's
/// score.
///
/// ```
/// use atrous::attack::defence::{Detector, Distance, Guarded, Squeeze};
/// use atrous::attack::logits;
///
#[doc = include_str!("../brightness.txt")]
/// let classifier = brightness(4)?;
/// let detector = Distance::new(&classifier, vec![Box::new(Squeeze::Bits(1))])?;
/// let guarded = Guarded { classifier: &classifier, detector: &detector };
/// let x = Tensor::full([1, 4, 4, 3], 0.45);
/// let all = logits(&guarded, &x)?;
/// assert_eq!(all.shape()[..], [1, CLASSES.len() + 1]);
/// assert_eq!(all.to_vec_f64()[CLASSES.len()], detector.score(&x)?.item()?);
/// # Ok::<(), Error>(())
/// ```
pub struct Guarded<'a> {
    /// Logits [N, classes].
    pub classifier: &'a dyn Victim,
    /// Its score becomes the last logit.
    pub detector: &'a dyn Detector,
}

impl Victim for Guarded<'_> {
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let (logits, score) = (self.classifier.logits(x)?, self.detector.score(x)?);
        if logits.shape().len() != 2 {
            let expected = "a classifier's logits [N, classes]";
            return Err(Error::shape("guarded", expected, logits.shape()));
        }
        ops::concat(&[&logits, &score], 1)
    }

    fn side(&self) -> usize {
        self.classifier.side()
    }

    fn device(&self) -> Device {
        self.classifier.device()
    }

    fn exclusive(&self) -> bool {
        self.classifier.exclusive()
    }

    fn name(&self) -> &str {
        self.classifier.name()
    }
}

/// An objective for what a [`Guarded`] classifier says: reached where `inner` is, by an image that is
/// taken for clean.
///
/// ```
/// use atrous::attack::Objective;
/// use atrous::attack::defence::{Distance, Squeeze, Undetected};
///
#[doc = include_str!("../brightness.txt")]
/// let classifier = brightness(4)?;
/// let clean = Tensor::full([1, 4, 4, 3], 0.25);
/// let squeezers: Vec<Box<dyn defence::Transform>> = vec![Box::new(Squeeze::Bits(1))];
/// let detector = Distance::new(&classifier, squeezers)?.calibrated(&clean, 0.0)?;
/// let undetected = Undetected::new(away_from_dark(1), &detector);
/// let mut logits = [0.0; CLASSES.len() + 1];
/// logits[1] = 1.0; // as wished
/// logits[CLASSES.len()] = undetected.threshold + 0.1; // but found out
/// assert!(!undetected.status(0, &logits).reached);
/// // Down with the score, up with the wished class.
/// let mut gradient = [0.0; CLASSES.len() + 1];
/// undetected.upstream(0, &logits, 0.0, &mut gradient);
/// assert!(gradient[CLASSES.len()] < 0.0 && gradient[1] > 0.0);
/// logits[CLASSES.len()] = undetected.threshold;
/// assert!(undetected.status(0, &logits).reached);
/// # Ok::<(), Error>(())
/// ```
pub struct Undetected<O> {
    /// For the classifier's logits.
    pub inner: O,
    /// The detector's: an image is detected where its score is above.
    pub threshold: f32,
    /// λ: how much not being detected weighs. For a [`super::Distance`], whose scores go from 0 to 2,
    /// more than for a logit.
    pub weight: f64,
    /// Each step follows the classifier's loss until it errs as wished, then the detector's until it is
    /// silent.
    pub selective: bool,
}

impl<O> Undetected<O> {
    /// Follows both losses at once, with λ = 1 and the detector's own threshold.
    pub fn new(inner: O, detector: &dyn Detector) -> Self {
        Undetected { inner, threshold: detector.threshold(), weight: 1.0, selective: false }
    }
}

impl<O: Objective> Objective for Undetected<O> {
    fn status(&self, image: usize, logits: &[f32]) -> AttackStatus {
        let Some((&score, classes)) = logits.split_last() else {
            return AttackStatus { reached: false, sure: false, score: f64::NEG_INFINITY };
        };
        let inner = self.inner.status(image, classes);
        let above = score as f64 - self.threshold as f64;
        AttackStatus {
            reached: inner.reached && above <= 0.0,
            sure: inner.sure && above <= 0.0,
            score: inner.score - self.weight * softplus(above),
        }
    }

    fn upstream(&self, image: usize, logits: &[f32], done: f32, gradient: &mut [f32]) {
        let (Some((&score, classes)), Some((by_score, by_classes))) =
            (logits.split_last(), gradient.split_last_mut())
        else {
            return;
        };
        let above = score - self.threshold;
        *by_score = (-self.weight / (1.0 + (-above as f64).exp())) as f32;
        self.inner.upstream(image, classes, done, by_classes);
        if self.selective {
            match self.inner.status(image, classes).reached {
                true => by_classes.fill(0.0),
                false => *by_score = 0.0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy;
    use super::*;

    #[test]
    fn areas_by_hand() {
        assert_eq!(auc(&[1.0, 2.0], &[3.0, 4.0]).unwrap(), 1.0);
        assert_eq!(auc(&[3.0, 4.0], &[1.0, 2.0]).unwrap(), 0.0);
        assert_eq!(auc(&[1.0; 5], &[1.0; 3]).unwrap(), 0.5);
        // Pairs won: 2 of 1.5, 1½ of 1 (a tie with 1), 2 of 5, of 2×3.
        assert_eq!(auc(&[0.0, 1.0], &[1.5, 1.0, 5.0]).unwrap(), 5.5 / 6.0);
        assert!(auc(&[], &[1.0]).is_err() && auc(&[1.0], &[]).is_err());
        assert!(auc(&[f64::NAN], &[1.0]).unwrap_err().to_string().contains("NaN"));
    }

    #[test]
    fn a_threshold_has_no_more_false_alarms_than_it_may() {
        let clean: Vec<f64> = (0..100).map(|i| ((i * 37) % 100) as f64).collect();
        let perturbed: Vec<f64> = (0..100).map(|i| i as f64 + 50.0).collect();
        let detection = Detection::with(&clean, &perturbed, FALSE_ALARMS).unwrap();
        assert_eq!(
            (detection.threshold, detection.false_alarms, detection.detected),
            (94.0, 0.05, 0.55)
        );
        // Many equal scores: fewer alarms, not more.
        let same = Detection::with(&[2.0; 10], &[2.0, 3.0], 0.5).unwrap();
        assert_eq!((same.false_alarms, same.detected), (0.0, 0.5));
        for share in [0.0, 0.01, 0.2, 0.99] {
            assert!(Detection::with(&clean, &perturbed, share).unwrap().false_alarms <= share + 1e-12);
        }
        assert!(threshold(&clean, 1.0).is_err() && threshold(&[], 0.05).is_err());
    }

    /// The mean of the images.
    struct Brightness;

    impl Detector for Brightness {
        fn name(&self) -> String {
            "brightness".into()
        }

        fn score(&self, x: &Tensor) -> Result<Tensor> {
            let n = x.shape()[0];
            ops::reshape(
                &ops::mean_axes(&ops::reshape(x, [n, toy::SIDE * toy::SIDE * 3])?, 1..2)?,
                [n, 1],
            )
        }

        fn threshold(&self) -> f32 {
            0.5
        }
    }

    #[test]
    fn upstream_is_the_gradient_of_the_score() {
        let objective = Undetected::new(toy::objective(1), &Brightness);
        let objective = Undetected { weight: 3.0, ..objective };
        let mut z: Vec<f32> = (0..20).map(|i| ((i * 7 + 3) % 11) as f32 * 0.5).collect();
        z.push(0.9);
        let mut gradient = vec![0.0; 21];
        objective.upstream(0, &z, 0.0, &mut gradient);
        for i in 0..21 {
            let at = |h: f32| {
                let mut z = z.clone();
                z[i] += h;
                objective.status(0, &z).score
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - gradient[i] as f64).abs() < 1e-4, "{i}: {slope} {}", gradient[i]);
        }
        assert!(gradient[20] < 0.0);
    }

    #[test]
    fn reached_is_erring_unseen_and_selective_steps_follow_what_is_missing() {
        let mut objective = Undetected::new(toy::objective(1), &Brightness);
        objective.selective = true;
        let class = objective.inner.truth[0].iter().position(|&set| set).unwrap();
        let mut z = vec![0.0; 21];
        (z[class], z[20]) = (5.0, 0.7);
        let mut gradient = vec![0.0; 21];
        objective.upstream(0, &z, 0.0, &mut gradient);
        assert!(!objective.status(0, &z).reached && gradient[class] < 0.0 && gradient[20] == 0.0);
        z[class] = -5.0; // Errs, and is seen.
        objective.upstream(0, &z, 0.0, &mut gradient);
        assert!(!objective.status(0, &z).reached);
        assert!(gradient[..20].iter().all(|&g| g == 0.0) && gradient[20] < 0.0);
        z[20] = 0.5; // At the threshold, not above it.
        assert!(objective.status(0, &z).reached);
    }

    #[test]
    fn a_guarded_classifier_has_both_gradients() {
        let model = toy::sharp_model();
        let network =
            crate::attack::Network::new(&model, crate::data::image::Preprocess::Symmetric).unwrap();
        let guarded = Guarded { classifier: &network, detector: &Brightness };
        let x = toy::images(3).x;
        let logits = victim::logits(&guarded, &x).unwrap();
        assert_eq!(logits.shape()[..], [3, 21]);
        let alone = victim::logits(&network, &x).unwrap();
        let scores = scores(&Brightness, Device::Cpu, &x).unwrap();
        for (i, row) in logits.values::<f32>().chunks_exact(21).enumerate() {
            assert_eq!(row[..20], alone.values::<f32>()[i * 20..][..20]);
            assert_eq!(row[20] as f64, scores[i]);
        }
        let (_, gradient) = victim::gradient(&guarded, &x, |_, _, up| up[20] = 1.0).unwrap();
        let share = 1.0 / (toy::SIDE * toy::SIDE * 3) as f32;
        assert!(gradient.values::<f32>().iter().all(|g| (g - share).abs() < 1e-9));
    }
}
