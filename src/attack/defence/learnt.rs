//! A detector that is learnt: a small network, trained on clean against perturbed images (Gong, Wang
//! and Ku, 2017; Metzen et al., ICLR 2017, put one on a classifier's features).
//!
//! It finds the attack that it was trained on nearly always, others less, and an attacker who has its
//! weights leads it astray along with the classifier (Carlini and Wagner, AISec 2017): see
//! [`super::detector`].

use super::detector::{Detector, scores, threshold};
use crate::activation::Activation;
use crate::attack::victim::{Network, Victim, rows};
use crate::data::image::Preprocess;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::losses::Loss;
use crate::nn::layers::{Initializer, Layer};
use crate::nn::{Graph, Mode, Model};
use crate::ops::{self, Padding};
use crate::optimizers::{Optimizer, OptimizerKind};
use crate::random::{Stream, domain};
use crate::tensor::Tensor;
use std::ops::ControlFlow;

/// Small changes are learnt sooner where values lie about zero.
const PREPROCESS: Preprocess = Preprocess::Symmetric;

/// How a detector is trained: Adam on batches of pairs, each an image and its perturbed like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorConfig {
    /// Passes over all pairs, above 0.
    pub epochs: usize,
    /// Pairs in a batch, above 0: twice as many images.
    pub pairs: usize,
    /// Adam's, above 0.
    pub learning_rate: f32,
    /// Draws the first weights and the order of the pairs.
    pub seed: u64,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        DetectorConfig { epochs: 20, pairs: 16, learning_rate: 1e-3, seed: 0 }
    }
}

impl DetectorConfig {
    fn check(&self) -> Result<()> {
        match self.epochs > 0 && self.pairs > 0 && self.learning_rate > 0.0 {
            true => Ok(()),
            false => {
                let message = format!("expected epochs, pairs and a rate above zero, got {self:?}");
                Err(Error::argument("detector", message))
            }
        }
    }
}

/// An epoch of a detector's training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lesson {
    /// Its number, from 1.
    pub epoch: usize,
    /// How many epochs there will be.
    pub of: usize,
    /// Mean binary cross-entropy, with the weights of before each step.
    pub loss: f64,
    /// Share of images that were taken for what they are, 0 to 1.
    pub accuracy: f64,
}

/// Images [side, side, 3] of −1 to 1 → the probability that they were perturbed: three convolutions
/// 3×3 of 16, 32 and 64 filters, the last two of stride 2, the mean of each filter, a dense layer.
/// 23,649 parameters, whatever the side, which is at least 4.
fn graph(side: usize) -> Result<Graph> {
    if side < 4 {
        return Err(Error::argument("detector", format!("expected a side of at least 4, got {side}")));
    }
    let mut g = Graph::new("detector", "input", [side, side, 3]);
    let conv = |filters: usize, stride: usize| {
        Layer::conv2d(filters, 3)
            .with_padding(Padding::Same)
            .with_stride(stride)
            .with_initializer(Initializer::HeNormal)
    };
    let relu = Layer::Activation(Activation::Relu);
    let last = Layer::dense(1).with_activation(Activation::Sigmoid);
    let pooled = Layer::GlobalAveragePooling2D;
    let layers = [conv(16, 1), relu, conv(32, 2), relu, conv(64, 2), relu, pooled, last];
    g.chain(g.input(), layers)?;
    Ok(g)
}

/// A trained detector.
///
/// ```
/// use atrous::attack::defence::learnt::DetectorConfig;
/// use atrous::attack::defence::{Detector, LearnedDetector, detector};
/// use atrous::prelude::*;
/// use std::ops::ControlFlow;
///
/// let clean = Tensor::full([8, 8, 8, 3], 0.5);
/// let perturbed = (&clean + 0.1 * Tensor::randn([8, 8, 8, 3], 1).sign()?)?;
/// let config = DetectorConfig { epochs: 8, pairs: 4, learning_rate: 0.01, seed: 1 };
/// let mut losses = Vec::new();
/// let detector = LearnedDetector::train(&clean, &perturbed, config, Device::Cpu, &mut |lesson| {
///     losses.push(lesson.loss);
///     ControlFlow::Continue(())
/// })?;
/// assert!(losses[7] < losses[0]);
/// let detector = detector.calibrated(&clean, 0.0)?;
/// let scores = detector::scores(&detector, Device::Cpu, &perturbed)?;
/// assert!(scores.iter().all(|&score| score > detector.threshold() as f64));
/// # Ok::<(), Error>(())
/// ```
pub struct LearnedDetector {
    /// Images [N, side, side, 3] of −1 to 1 → the probability that they were perturbed, [N, 1].
    pub model: Model,
    network: Network,
    /// The logit above which an image is taken for perturbed.
    threshold: f32,
}

impl LearnedDetector {
    /// A detector of such a network, which takes images of −1 to 1; the threshold is that of its
    /// logit: 0 is a probability of ½.
    pub(crate) fn new(model: Model, threshold: f32) -> Result<Self> {
        let network = Network::new(&model, PREPROCESS)?;
        Ok(LearnedDetector { model, network, threshold })
    }

    /// A detector trained on pairs: `clean` and `perturbed`, [N, side, side, 3] each, 0 to 1, image i of
    /// one belonging to image i of the other. The same seed gives the same detector. Its threshold is 0
    /// until it is [calibrated](Self::calibrated).
    ///
    /// `progress` is told of each epoch; if it asks to stop, that is an [`Error::Interrupted`]. A loss
    /// that is not finite is an [`Error::Diverged`].
    pub fn train(
        clean: &Tensor,
        perturbed: &Tensor,
        lessons: DetectorConfig,
        device: Device,
        progress: &mut dyn FnMut(Lesson) -> ControlFlow<()>,
    ) -> Result<Self> {
        lessons.check()?;
        let &[n, side, width, 3] = &*clean.shape() else {
            return Err(Error::shape("detector", "pictures [N, side, side, 3]", clean.shape()));
        };
        if n == 0 || side != width || clean.shape() != perturbed.shape() {
            let expected = format!("as many clean and perturbed squares, {}", clean.shape());
            return Err(Error::shape("detector", expected, perturbed.shape()));
        }
        let mut model = Model::new(graph(side)?, lessons.seed).to_device(device)?;
        let mut optimizer = Optimizer::new(OptimizerKind::adam(), lessons.learning_rate)?;
        for epoch in 0..lessons.epochs {
            // The third label keeps this order apart from a loader's.
            let labels = [domain::SHUFFLE, epoch as u64, 2];
            let order = Stream::new(lessons.seed, &labels).permutation(n);
            let (mut loss, mut right) = (0.0, 0);
            for pairs in order.chunks(lessons.pairs) {
                let (of_batch, sure) = step(&mut model, &mut optimizer, clean, perturbed, pairs)?;
                loss += of_batch * pairs.len() as f64;
                right += sure;
            }
            let (loss, accuracy) = (loss / n as f64, right as f64 / (2 * n) as f64);
            if !loss.is_finite() {
                let message = format!("the detector's loss of epoch {} is {loss}", epoch + 1);
                return Err(Error::Diverged(message));
            }
            let lesson = Lesson { epoch: epoch + 1, of: lessons.epochs, loss, accuracy };
            if progress(lesson).is_break() {
                let message = format!("the detector's training stopped after epoch {}", epoch + 1);
                return Err(Error::Interrupted(message));
            }
        }
        Self::new(model, 0.0)
    }

    /// The detector with the threshold at which this share of these clean images is a false alarm, at
    /// most. They should be others than it was trained on. An error without images, and for a share that
    /// is not from 0 to below 1.
    pub fn calibrated(mut self, clean: &Tensor, false_alarms: f64) -> Result<Self> {
        self.threshold = threshold(&self.scores(clean)?, false_alarms)? as f32;
        Ok(self)
    }

    /// The logits of images [N, side, side, 3].
    pub(crate) fn scores(&self, x: &Tensor) -> Result<Vec<f64>> {
        scores(self, self.network.device(), x)
    }
}

impl Detector for LearnedDetector {
    fn name(&self) -> String {
        "learnt".into()
    }

    fn score(&self, x: &Tensor) -> Result<Tensor> {
        self.network.logits(x)
    }

    fn threshold(&self) -> f32 {
        self.threshold
    }
}

/// The mean loss of a batch of pairs with the weights of before, and how many of its images were taken
/// for what they are.
fn step(
    model: &mut Model,
    optimizer: &mut Optimizer,
    clean: &Tensor,
    perturbed: &Tensor,
    pairs: &[usize],
) -> Result<(f64, usize)> {
    let device = model.device();
    let x = ops::concat(&[&rows(clean, pairs)?, &rows(perturbed, pairs)?], 0)?;
    let labels: Vec<f32> = (0..2 * pairs.len()).map(|i| (i >= pairs.len()) as u8 as f32).collect();
    let targets = Tensor::from_slice(&labels, [labels.len(), 1])?.to_device(device)?;
    let run = Mode { dropout: None, ..Mode::train(0, 0) };
    // As PREPROCESS has it.
    let x = ops::add(&ops::scale(&x, 2.0)?, &Tensor::full([1], -1.0))?;
    let pass = model.run(&x.to_device(device)?, run)?;
    let logits = pass.logits.to_device(Device::Cpu)?;
    let right = logits.values::<f32>().iter().zip(&labels).filter(|(z, y)| (**z > 0.0) == (**y > 0.5));
    let right = right.count();
    let loss = Loss::BinaryCrossentropy.from_logits(&pass.logits, &targets, None)?;
    let value = loss.item()?;
    optimizer.begin_step();
    optimizer.backward_and_step(model, loss, pass, None)?;
    Ok((value, right))
}

#[cfg(test)]
mod tests {
    use super::super::detector::{Detection, FALSE_ALARMS, Guarded, Undetected};
    use super::super::{Evaluator, measure, toy};
    use super::*;
    use crate::attack::{EpsBall, Images, Iterative};

    const PAIRS: usize = 48;

    /// Clean images and what PGD makes of them.
    fn pairs(victim: &dyn Victim, ball: EpsBall) -> (Tensor, Tensor) {
        let images = toy::images(PAIRS);
        let attack = Iterative { restarts: 0, ..Iterative::pgd(ball, 4) };
        let perturbed = attack.perturb(victim, &images, &toy::objective(PAIRS)).unwrap();
        (images.x, perturbed.x)
    }

    fn part(x: &Tensor, range: std::ops::Range<usize>) -> Tensor {
        rows(x, &range.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn it_finds_the_attack_that_it_learnt_and_falls_to_who_knows_it() {
        let model = toy::sharp_model();
        let network = Network::new(&model, Preprocess::Symmetric).unwrap();
        let ball = EpsBall::linf(2.0 * toy::EPSILON);
        let (clean, perturbed) = pairs(&network, ball);
        let lessons = DetectorConfig { epochs: 60, pairs: 8, learning_rate: 5e-3, seed: 1 };
        let mut losses = Vec::new();
        let learnt = |losses: &mut Vec<f64>| {
            let (x, y) = (part(&clean, 0..24), part(&perturbed, 0..24));
            let mut progress = |lesson: Lesson| {
                losses.push(lesson.loss);
                ControlFlow::Continue(())
            };
            LearnedDetector::train(&x, &y, lessons, Device::Cpu, &mut progress).unwrap()
        };
        let detector = learnt(&mut losses);
        assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
        let detector = detector.calibrated(&part(&clean, 24..48), FALSE_ALARMS).unwrap();
        let of = |x: &Tensor| detector.scores(&part(x, 24..48)).unwrap();
        let found = Detection::at(&of(&clean), &of(&perturbed), detector.threshold() as f64).unwrap();
        assert!(found.auc > 0.9 && found.detected > 0.7 && found.false_alarms <= 0.2, "{found:?}");

        let images = Images::whole(part(&clean, 24..48));
        let mut classes = toy::objective(PAIRS);
        classes.truth.drain(..24);
        let guarded = Guarded { classifier: &network, detector: &detector };
        let undetected = Undetected { selective: true, ..Undetected::new(classes.clone(), &detector) };
        let attack = Iterative::pgd(ball, 30);
        let judge = Evaluator::new(&guarded, &undetected);
        let unaware = attack.perturb(&network, &images, &classes).unwrap().x;
        let adaptive = attack.perturb(&guarded, &images, &undetected).unwrap().x;
        let [_, unaware, adaptive] = measure(&images, &unaware, &adaptive, judge).unwrap().rates();
        assert!(unaware < 0.4 && adaptive > unaware + 0.2, "{unaware} {adaptive}");

        // The same bits under the same seed.
        let again = learnt(&mut Vec::new());
        for (a, b) in again.model.parameters.iter().zip(&detector.model.parameters) {
            assert_eq!(a.value.to_vec_f64(), b.value.to_vec_f64(), "{}", a.path);
        }
    }

    #[test]
    fn it_stops_when_asked_and_says_what_does_not_fit() {
        let x = toy::random([4, 8, 8, 3], 1);
        let train = |x: &Tensor, y: &Tensor, lessons| {
            let mut stop = |_: Lesson| ControlFlow::Break(());
            LearnedDetector::train(x, y, lessons, Device::Cpu, &mut stop)
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        assert!(train(&x, &x, DetectorConfig::default()).contains("after epoch 1"));
        let other = toy::random([3, 8, 8, 3], 1);
        assert!(train(&x, &other, DetectorConfig::default()).contains("got [3×8×8×3]"));
        assert!(
            train(&x, &x, DetectorConfig { pairs: 0, ..DetectorConfig::default() })
                .contains("above zero")
        );
        assert!(graph(3).unwrap_err().to_string().contains("got 3"));
        let parameters = Model::new(graph(8).unwrap(), 0).count_parameters();
        assert_eq!(parameters, (23_649, 23_649));
    }
}
