//! An attack on many images, and what it comes to.

use super::ball::{EpsBall, Norm};
use super::baseline::Doubt;
use super::deepfool::DeepFool;
use super::generator::Generator;
use super::images::Images;
use super::iterative::{Attacked, Iterative};
use super::masks::MaskObjective;
use super::measure::{Visibility, mean, median};
use super::objective::{AttackStatus, LabelObjective, Objective, sigmoid, softmax};
use super::square::Square;
use super::universal::Universal;
use super::victim::{self, Victim};
use crate::data::image::Fit;
use crate::data::{Dataset, Image, Labels, Mask};
use crate::error::{Error, Result};
use crate::eval::metrics::{Confusion, Interpolation, average_precisions};
use crate::predict::masks_of;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::time::Instant;

/// A way to perturb images, with its settings.
///
/// ```
/// use atrous::attack::{Attack, AttackTarget, EpsBall, Images, Iterative};
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let images = Images::whole(Tensor::full([1, 4, 4, 3], 0.45));
/// let attack = Attack::Iterative(Iterative::pgd(EpsBall::linf(0.0625), 10));
/// attack.check(victim.side())?;
/// let target = AttackTarget::Labels(away_from_dark(1));
/// assert!(attack.perturb(&victim, &images, &target)?.statuses[0].reached);
/// // Eight steps of an image file are 8/255, not 8.
/// assert!(Attack::Fgsm(EpsBall::linf(8.0)).check(victim.side()).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Attack {
    /// One step of ε ([`Iterative::one_step`]).
    Fgsm(EpsBall),
    /// PGD, MIM: steps along the gradient's sign.
    Iterative(Iterative),
    /// The least change that leads a classifier astray; no ε.
    DeepFool(DeepFool),
    /// Queries, no gradients.
    Square(Square),
    /// One perturbation for all images, found before.
    Universal(Universal),
    /// A network that perturbs, trained before.
    Generator(Box<Generator>),
}

/// What the victim's answers are compared with.
///
/// ```
/// use atrous::attack::AttackTarget;
///
#[doc = include_str!("brightness.txt")]
/// let target = AttackTarget::Labels(away_from_dark(1));
/// let mut logits = [0.0; CLASSES.len()];
/// logits[1] = 1.0;
/// assert!(target.objective().status(0, &logits).reached);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum AttackTarget {
    /// A classifier's, with labels.
    Labels(LabelObjective),
    /// Those of a network that segments, with masks.
    Masks(MaskObjective),
}

impl AttackTarget {
    /// The objective of either kind.
    pub fn objective(&self) -> &dyn Objective {
        match self {
            AttackTarget::Labels(objective) => objective,
            AttackTarget::Masks(objective) => objective,
        }
    }
}

impl Attack {
    /// Perturbs a batch of images, which `aim` numbers alike. An error for settings out of range, for
    /// DeepFool on masks, and where the victim gives numbers that are not finite.
    pub fn perturb(&self, victim: &dyn Victim, images: &Images, aim: &AttackTarget) -> Result<Attacked> {
        let objective = aim.objective();
        match (self, aim) {
            (Attack::Fgsm(ball), _) => Iterative::one_step(*ball, victim, images, objective),
            (Attack::Iterative(iterative), _) => iterative.perturb(victim, images, objective),
            (Attack::DeepFool(deepfool), AttackTarget::Labels(labels)) => {
                deepfool.perturb(victim, images, labels)
            }
            (Attack::DeepFool(_), AttackTarget::Masks(_)) => {
                Err(Error::argument("attack", "deepfool is for classifiers: a mask has no one boundary"))
            }
            (Attack::Square(square), _) => square.perturb(victim, images, objective),
            (Attack::Universal(universal), _) => universal.perturb(victim, images, objective),
            (Attack::Generator(generator), _) => generator.attack(victim, images, objective),
        }
    }

    /// An error where its settings make no sense for images of a side.
    pub fn check(&self, side: usize) -> Result<()> {
        match self {
            Attack::Iterative(iterative) => iterative.check()?,
            Attack::Square(square) => square.check()?,
            Attack::DeepFool(deepfool) => deepfool.check()?,
            Attack::Fgsm(_) | Attack::Universal(_) | Attack::Generator(_) => {}
        }
        self.ball().map_or(Ok(()), |ball| ball.check_for(side))
    }

    /// What it may change, where that is limited.
    pub(crate) fn ball(&self) -> Option<EpsBall> {
        match self {
            Attack::Fgsm(ball) => Some(*ball),
            Attack::Iterative(iterative) => Some(iterative.ball),
            Attack::Square(square) => Some(square.ball),
            Attack::Universal(universal) => Some(universal.ball),
            Attack::Generator(generator) => Some(generator.ball()),
            Attack::DeepFool(_) => None,
        }
    }
}

/// The images of an experiment.
pub struct Subjects<'a> {
    /// Where they are read from.
    pub dataset: &'a dyn Dataset,
    /// Which of its samples.
    pub indices: &'a [usize],
    /// Height and width that the network takes, in pixels.
    pub side: usize,
    /// How images are brought to that size.
    pub fit: Fit,
    /// What the network is to be led to, for a batch of samples.
    pub aim: &'a dyn Fn(&[usize], &Images) -> Result<AttackTarget>,
    /// Images that are attacked together.
    pub batch: usize,
}

impl Subjects<'_> {
    /// Batches of sample numbers, their images and what is wanted of them.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<(&[usize], Images, AttackTarget)>> {
        self.indices.chunks(self.batch.max(1)).map(|indices| {
            let images = Images::of(self.dataset, indices, self.side, self.fit)?;
            let aim = (self.aim)(indices, &images)?;
            Ok((indices, images, aim))
        })
    }
}

/// What a network says of one image.
#[derive(Clone, Debug)]
pub struct VictimOutput {
    /// How far it is led.
    pub status: AttackStatus,
    /// The classes that are said to be there.
    pub said: Labels,
    /// A classifier's, one a class; empty for masks.
    pub probabilities: Vec<f32>,
    /// What a network that segments says, at its own size; None for a classifier.
    pub mask: Option<Mask>,
    /// The share of a mask's pixels that are as wished, among those that are to change; for a classifier 1
    /// where its goal is reached, else 0.
    pub led: f64,
    /// The share of a mask's pixels that are what they were, among those that are to stay; else 1.
    pub kept: f64,
}

/// One image, before and after.
#[derive(Clone, Debug)]
pub struct AttackResult {
    /// Its number in the data set.
    pub index: usize,
    /// What the network says of it as it is.
    pub before: VictimOutput,
    /// What it says of the perturbed image.
    pub after: VictimOutput,
    /// What it says after the perturbed image's values were rounded to bytes.
    pub rounded: VictimOutput,
    /// How visible the perturbation is, before rounding.
    pub visible: Visibility,
    /// What the attack took, its batch's time over the images in it.
    pub seconds: f64,
    /// The image as the network saw it, in bytes.
    pub original: Image,
    /// The perturbed image, in bytes.
    pub perturbed: Image,
}

impl AttackResult {
    /// It was as it should be before, and errs as wished now.
    pub fn succeeded(&self) -> bool {
        !self.before.status.reached && self.after.status.reached
    }
}

/// What one attack did within each ε so far, from the smallest on: whatever fools a network within a smaller
/// ball is in the larger ones, too. Each ε is attacked on its own; this is for reporting the best of them
/// beside it.
///
/// ```
/// use atrous::attack::{Attack, EpsBall, SoFar};
///
#[doc = include_str!("brightness.txt")]
/// let data = Greys(vec![120]); // 7.5 of 255 steps below where the network changes its mind
/// let found = results(&Attack::Fgsm(EpsBall::linf(10.0 / 255.0)), &data)?;
/// let failed = results(&Attack::Fgsm(EpsBall::linf(0.0)), &data)?;
/// let mut so_far = SoFar::default();
/// so_far.add(&found);
/// // An attack within a larger ball that finds nothing changes nothing of what is known.
/// assert!(!failed[0].after.status.reached && so_far.with(&failed[0]).reached);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SoFar(HashMap<usize, Led>);

/// How far one image was led.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Led {
    /// The network errs as wished.
    pub reached: bool,
    /// See [`VictimOutput::led`].
    pub share: f64,
}

impl SoFar {
    /// The best that is known of a trial's image, this trial among it.
    pub fn with(&self, trial: &AttackResult) -> Led {
        let now = Led { reached: trial.after.status.reached, share: trial.after.led };
        self.0.get(&trial.index).map_or(now, |before| Led {
            reached: before.reached || now.reached,
            share: before.share.max(now.share),
        })
    }

    /// Takes note of the trials within one ε.
    pub fn add(&mut self, trials: &[AttackResult]) {
        for trial in trials {
            let best = self.with(trial);
            self.0.insert(trial.index, best);
        }
    }
}

/// What a network says of each image of [N, side, side, 3], 0 to 1; an error where a logit is not finite.
///
/// ```
/// use atrous::attack::{AttackTarget, trial};
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let target = AttackTarget::Labels(away_from_dark(1));
/// let said = trial::seen(&victim, &Tensor::full([1, 4, 4, 3], 0.75), &target)?;
/// assert!(said[0].said[1] && said[0].status.reached);
/// // The softmax of −.75 and .75
/// assert!((said[0].probabilities[1] - 1.0 / (1.0 + (-1.5f32).exp())).abs() < 1e-6);
/// # Ok::<(), Error>(())
/// ```
pub fn seen(victim: &dyn Victim, x: &Tensor, aim: &AttackTarget) -> Result<Vec<VictimOutput>> {
    let logits = victim::logits(victim, x)?;
    let each = logits.shape().elements() / x.shape()[0].max(1);
    let rows = logits.values::<f32>().chunks_exact(each.max(1)).enumerate();
    match aim {
        AttackTarget::Labels(objective) => {
            let probabilities = |row: &[f32]| -> Vec<f32> {
                match victim.exclusive() {
                    true => softmax(row).iter().map(|&p| p as f32).collect(),
                    false => row.iter().map(|&z| sigmoid(z) as f32).collect(),
                }
            };
            let one = |(i, row): (usize, &[f32])| {
                let status = objective.status(i, row);
                let (said, probabilities) = (objective.said(row), probabilities(row));
                let led = status.reached as u8 as f64;
                VictimOutput { status, said, probabilities, mask: None, led, kept: 1.0 }
            };
            Ok(rows.map(one).collect())
        }
        AttackTarget::Masks(objective) => {
            let classes = logits.shape().last_length() - 1;
            let one = |((i, row), mask): ((usize, &[f32]), Mask)| {
                let (led, kept) = (objective.share(i, row), objective.kept(i, row));
                let status = objective.status(i, row);
                let (said, probabilities) = (mask.labels(classes), Vec::new());
                VictimOutput { status, said, probabilities, mask: Some(mask), led, kept }
            };
            Ok(rows.zip(masks_of(&logits)?).map(one).collect())
        }
    }
}

/// Attacks all images; each is given to `done` as soon as it is there, which may end the experiment with
/// an error. An error, too, for no images, and where [`Attack::perturb`] has one.
///
/// ```
/// use atrous::attack::{Attack, AttackResult, AttackTarget, EpsBall, Images, Subjects, trial};
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let data = Greys(vec![100, 120, 200]); // a grey level each, of 255
/// let aim = |indices: &[usize], _: &Images| Ok(AttackTarget::Labels(away_from_dark(indices.len())));
/// let (indices, fit) = (&[0, 1, 2], Fit::Stretch);
/// let subjects = Subjects { dataset: &data, indices, side: 4, fit, aim: &aim, batch: 2 };
/// let mut results = Vec::new();
/// let attack = Attack::Fgsm(EpsBall::linf(10.0 / 255.0));
/// trial::run(&attack, &victim, &subjects, &mut |result| Ok(results.push(result)))?;
/// // 100 + 10 is still dark, 120 + 10 is not, and 200 never was.
/// let succeeded: Vec<bool> = results.iter().map(AttackResult::succeeded).collect();
/// assert_eq!(succeeded, [false, true, false]);
/// assert_eq!(results[1].perturbed.rgb[..3], [130; 3]);
/// # Ok::<(), Error>(())
/// ```
pub fn run(
    attack: &Attack,
    victim: &dyn Victim,
    subjects: &Subjects,
    done: &mut dyn FnMut(AttackResult) -> Result<()>,
) -> Result<()> {
    if subjects.indices.is_empty() {
        return Err(Error::argument("attack", "there is no picture to attack"));
    }
    for batch in subjects.batches() {
        let (indices, images, aim) = batch?;
        let before = seen(victim, &images.x, &aim)?;
        let began = Instant::now();
        let attacked = attack.perturb(victim, &images, &aim)?;
        let seconds = began.elapsed().as_secs_f64() / indices.len() as f64;
        let after = seen(victim, &attacked.x, &aim)?;
        let perturbed = images.with(attacked.x);
        let rounded = perturbed.rounded(&images, attack.ball())?;
        let said = seen(victim, &rounded.x, &aim)?;
        let all = indices.iter().zip(before).zip(after).zip(said).enumerate();
        for (i, (((&index, before), after), said)) in all {
            let at = images.places[i];
            let visible = Visibility::of(&perturbed.own(i), &images.own(i), at.height, at.width)?;
            let (original, perturbed) = (images.image(i)?, rounded.image(i)?);
            done(AttackResult {
                index,
                before,
                after,
                rounded: said,
                visible,
                seconds,
                original,
                perturbed,
            })?;
        }
    }
    Ok(())
}

/// What an attack came to.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize))]
pub struct Summary {
    /// How many images were attacked.
    #[cfg_attr(feature = "checkpoint", serde(rename = "pictures"))]
    pub images: usize,
    /// The share of images of which the network says what it should (or does not say what was wished), as
    /// they are.
    pub clean: f64,
    /// That share of the perturbed images; None where a [`Doubt`] leaves nothing to tell.
    pub robust: Option<f64>,
    /// That share of the perturbed images rounded to bytes; None as in `robust`.
    pub robust_rounded: Option<f64>,
    /// The share of the images that were right that are not any more; None as in `robust`, and where none
    /// was right.
    pub success: Option<f64>,
    /// The mean of [`VictimOutput::led`] over the perturbed images.
    pub led: f64,
    /// The mean of [`VictimOutput::kept`] over the perturbed images.
    pub kept: f64,
    /// `robust` with the best of this ε and the smaller ones for each image.
    pub robust_so_far: Option<f64>,
    /// `success` with the best of this ε and the smaller ones for each image.
    pub success_so_far: Option<f64>,
    /// `led` with the best of this ε and the smaller ones for each image.
    pub led_so_far: f64,
    /// What the figures do not tell, in words.
    pub doubt: Option<String>,
    /// Mean average precision of a classifier, mean IoU of masks with the truth, of the images as they are;
    /// None where it cannot be told.
    pub score_clean: Option<f64>,
    /// That score of the perturbed images.
    pub score: Option<f64>,
    /// That score of the perturbed images rounded to bytes.
    pub score_rounded: Option<f64>,
    /// The mean of [`Visibility::linf`] over a classifier's successful perturbations, or over all of masks';
    /// None where there are none. So are the next five.
    pub mean_linf: Option<f64>,
    /// The median of the largest changes.
    pub median_linf: Option<f64>,
    /// The mean Euclidean change of an image.
    pub mean_l2: Option<f64>,
    /// The median Euclidean change of an image.
    pub median_l2: Option<f64>,
    /// The mean peak signal-to-noise ratio, in dB.
    pub mean_psnr: Option<f64>,
    /// The mean structural similarity.
    pub mean_ssim: Option<f64>,
    /// What the attack took for an image, in the mean.
    #[cfg_attr(feature = "checkpoint", serde(rename = "seconds_per_picture"))]
    pub seconds_per_image: f64,
}

impl Summary {
    /// Sums up trials on one data set, after those with a smaller ε. An error for no trials, and where a
    /// true mask cannot be read.
    ///
    /// ```
    /// use atrous::attack::{Attack, EpsBall, SoFar, Summary};
    ///
    #[doc = include_str!("brightness.txt")]
    /// // Of grey levels (of 255) below 127.5 the network says class 0, which is right of all here.
    /// let data = Greys(vec![100, 120, 200]);
    /// let results = results(&Attack::Fgsm(EpsBall::linf(10.0 / 255.0)), &data)?;
    /// let summary = Summary::of(&results, &SoFar::default(), &data, Fit::Stretch)?;
    /// assert_eq!(summary.clean, 2.0 / 3.0); // 100 and 120
    /// assert_eq!(summary.robust, Some(1.0 / 3.0)); // 100
    /// assert_eq!(summary.success, Some(0.5)); // one of the two
    /// # Ok::<(), Error>(())
    /// ```
    pub fn of(trials: &[AttackResult], so_far: &SoFar, dataset: &dyn Dataset, fit: Fit) -> Result<Self> {
        let n = trials.len();
        if n == 0 {
            return Err(Error::argument("attack", "there is no picture to tell of"));
        }
        let count = |of: &dyn Fn(&AttackResult) -> bool| trials.iter().filter(|t| of(t)).count() as f64;
        let was_right = |t: &AttackResult| !t.before.status.reached;
        let right = count(&was_right);
        let all = trials.iter().map(|t| (&t.before, dataset.labels(t.index)));
        let doubt = Doubt::in_what_is_said(all, &dataset.classes());
        let told = !doubt.as_ref().is_some_and(Doubt::leaves_no_figures);
        let share = |of: &dyn Fn(&AttackResult) -> bool| told.then(|| count(of) / n as f64);
        let of_right = |of: &dyn Fn(&AttackResult) -> bool| {
            (told && right > 0.0).then(|| count(&|t| was_right(t) && of(t)) / right)
        };
        let masks = trials[0].before.mask.is_some();
        let counted: Vec<&AttackResult> = trials.iter().filter(|t| masks || t.succeeded()).collect();
        let figures = |of: &dyn Fn(&AttackResult) -> Option<f64>| -> Vec<f64> {
            counted.iter().filter_map(|t| of(t)).collect()
        };
        let (linf, l2) = (figures(&|t| Some(t.visible.linf)), figures(&|t| Some(t.visible.l2)));
        let score = |of: fn(&AttackResult) -> &VictimOutput| -> Result<Option<f64>> {
            match masks {
                true => mean_iou(trials, of, dataset, fit),
                false => mean_average_precision(trials, of, dataset),
            }
        };
        Ok(Summary {
            images: n,
            clean: right / n as f64,
            robust: share(&|t| !t.after.status.reached),
            robust_rounded: share(&|t| !t.rounded.status.reached),
            success: of_right(&|t| t.after.status.reached),
            led: trials.iter().map(|t| t.after.led).sum::<f64>() / n as f64,
            kept: trials.iter().map(|t| t.after.kept).sum::<f64>() / n as f64,
            robust_so_far: share(&|t| !so_far.with(t).reached),
            success_so_far: of_right(&|t| so_far.with(t).reached),
            led_so_far: trials.iter().map(|t| so_far.with(t).share).sum::<f64>() / n as f64,
            doubt: doubt.map(|doubt| doubt.to_string()),
            score_clean: score(|t| &t.before)?,
            score: score(|t| &t.after)?,
            score_rounded: score(|t| &t.rounded)?,
            mean_linf: mean(&linf),
            median_linf: median(&linf),
            mean_l2: mean(&l2),
            median_l2: median(&l2),
            mean_psnr: mean(&figures(&|t| t.visible.psnr)),
            mean_ssim: mean(&figures(&|t| Some(t.visible.ssim))),
            seconds_per_image: trials.iter().map(|t| t.seconds).sum::<f64>() / n as f64,
        })
    }
}

fn mean_average_precision(
    trials: &[AttackResult],
    of: fn(&AttackResult) -> &VictimOutput,
    dataset: &dyn Dataset,
) -> Result<Option<f64>> {
    let classes = dataset.classes().len();
    let (mut truth, mut probabilities) = (Vec::new(), Vec::new());
    for trial in trials {
        let Some(labels) = dataset.labels(trial.index) else { return Ok(None) };
        truth.extend(labels.iter().map(|&set| set as u8 as f32));
        probabilities.extend_from_slice(&of(trial).probabilities);
    }
    let each = average_precisions(&truth, &probabilities, classes, Interpolation::default())?;
    Ok(mean(&each.into_iter().flatten().collect::<Vec<_>>()))
}

fn mean_iou(
    trials: &[AttackResult],
    of: fn(&AttackResult) -> &VictimOutput,
    dataset: &dyn Dataset,
    fit: Fit,
) -> Result<Option<f64>> {
    let mut confusion = Confusion::of_masks(dataset.classes().len());
    for trial in trials {
        let (Some(truth), Some(mask)) = (dataset.mask(trial.index)?, &of(trial).mask) else {
            return Ok(None);
        };
        let truth = crate::data::image::fit_mask(&truth, mask.height, fit, crate::data::VOID)?;
        confusion.add(&truth.classes, &mask.classes)?;
    }
    Ok(confusion.mean_iou().ok())
}

/// The share of images that resist perturbations of at most ε, for one attack that has no ε of its own.
///
/// ```
/// use atrous::attack::{Attack, DeepFool, EpsBall, trial};
///
#[doc = include_str!("brightness.txt")]
/// // The network changes its mind at a grey level of 127.5: 27.5 and 7.5 steps away.
/// let data = Greys(vec![100, 120]);
/// let results = results(&Attack::DeepFool(DeepFool::default()), &data)?;
/// let robust = |steps: f32| trial::robust_within(&results, EpsBall::linf(steps / 255.0));
/// assert_eq!([4.0, 16.0, 64.0].map(robust), [1.0, 0.5, 0.0]);
/// # Ok::<(), Error>(())
/// ```
pub fn robust_within(trials: &[AttackResult], ball: EpsBall) -> f64 {
    let small = |t: &AttackResult| match ball.norm {
        Norm::Linf => t.visible.linf <= ball.epsilon as f64,
        Norm::L2 => t.visible.l2 <= ball.epsilon as f64,
    };
    let fooled = |t: &&AttackResult| t.before.status.reached || t.after.status.reached && small(t);
    1.0 - trials.iter().filter(fooled).count() as f64 / trials.len().max(1) as f64
}
