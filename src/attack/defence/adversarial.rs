//! Adversarial training: a network learns from images that were perturbed against it (Goodfellow,
//! Shlens and Szegedy, ICLR 2015; Madry et al., ICLR 2018).
//!
//! min_w E [ max_{‖δ‖ ≤ ε} L(w, x + δ) ]: the inner maximum is what FGSM or PGD find with the weights of
//! before each step. As Goodfellow et al. had it, a share of each batch is perturbed and the rest left
//! clean, here different images: half of the attack's work, and clean images are not forgotten.
//!
//! It is the one defence here that attackers who know it have not undone; it costs accuracy on clean
//! images, and a training step costs as many passes more as the attack has. One step of FGSM is cheap,
//! but networks can learn to fool that one step alone (Kurakin, Goodfellow and Bengio, ICLR 2017; Wong,
//! Rice and Kolter, ICLR 2020): judge by PGD.

use crate::attack::{AttackStatus, Images, Iterative, LabelObjective, Network, Objective, Victim};
use crate::attack::{Goal, victim};
use crate::data::Labels;
use crate::data::image::Preprocess;
use crate::data::loader::{Batch, Loader};
use crate::error::{Error, Result};
use crate::random::{Stream, domain};
use crate::tensor::Tensor;
use crate::train::{CheckpointPolicy, Monitor, Trainer};

/// Training of a classifier on images that are perturbed as it goes.
///
/// ```
/// use atrous::attack::defence::Adversarial;
/// use atrous::attack::{EpsBall, Iterative};
/// use atrous::data::transforms::Augment;
/// use atrous::models::Spec;
/// use atrous::train::{CheckpointPolicy, TrainConfig, Trainer};
/// use std::ops::ControlFlow;
/// use std::sync::Arc;
///
#[doc = include_str!("../brightness.txt")]
/// let config = TrainConfig {
///     epochs: 3,
///     augment: Augment::None,
///     train_indices: (0..4).collect(),
///     ..TrainConfig::new(Spec::new("alexnet", 4, CLASSES.len()))
/// };
/// let mut graph = Graph::new("small", "input", [4, 4, 3]);
/// let dense = Layer::dense(CLASSES.len()).with_activation(Activation::Sigmoid);
/// graph.chain(graph.input(), [Layer::Flatten, dense])?;
/// let mut trainer = Trainer::new(Model::new(graph, 1), config)?;
///
/// let dataset: Arc<dyn Dataset> = Arc::new(Greys(vec![20, 60, 100, 140]));
/// let loader = trainer.config.training_loader(&dataset, 1);
/// let pgd = Iterative::pgd(EpsBall::linf(8.0 / 255.0), 3);
/// let half = Adversarial::new(pgd, 1);
/// assert_eq!(half.share, 0.5);
/// let never = &CheckpointPolicy::default();
/// half.fit(&mut trainer, &loader, None, never, &mut |_| ControlFlow::Continue(()))?;
/// let losses: Vec<f64> = trainer.history.epochs.iter().map(|epoch| epoch.loss).collect();
/// assert!(losses.len() == 3 && losses[2] < losses[0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adversarial {
    /// What perturbs them; ε in units of images from 0 to 1.
    pub attack: Iterative,
    /// The share of each batch that is perturbed, 0 to 1.
    pub share: f32,
    /// Draws which images of a batch are.
    pub seed: u64,
}

impl Adversarial {
    /// Perturbs half of each batch, as Goodfellow et al. did.
    pub fn new(attack: Iterative, seed: u64) -> Self {
        Adversarial { attack, share: 0.5, seed }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.attack.check()?;
        match (0.0..=1.0).contains(&self.share) {
            true => Ok(()),
            false => Err(Error::argument("share", format!("expected 0 to 1, got {}", self.share))),
        }
    }

    /// Goes on training to the plan's last epoch, as [`Trainer::fit`] does: `training` is the plan's
    /// loader, and monitor, schedule, validation (on clean images), checkpoints are the trainer's own.
    /// A run that was stopped and loaded goes on with the same bits if this is called again. A network
    /// that is trained already goes on in a new trainer, under a plan of a few epochs and a small
    /// learning rate.
    ///
    /// An error for a network that is no classifier of VOC's classes. The padding of padded images is
    /// perturbed too: what augmentation has turned has no border that is known.
    pub fn fit(
        &self,
        trainer: &mut Trainer,
        training: &Loader,
        validation: Option<&Loader>,
        pace: &CheckpointPolicy,
        monitor: &mut Monitor,
    ) -> Result<()> {
        self.check()?;
        if trainer.config.network.segments() {
            return Err(Error::argument("adversarial training", "expected a classifier, got masks"));
        }
        if training.transforms.preprocess != trainer.config.preprocess {
            let (config, got) = (trainer.config.preprocess, training.transforms.preprocess);
            let message = format!("expected pictures prepared as `{config:?}`, got `{got:?}`");
            return Err(Error::argument("adversarial training", message));
        }
        trainer.fit_changed(training, validation, pace, monitor, &mut |trainer, batch| {
            self.perturbed(trainer, batch)
        })
    }

    /// The batch with a share of its images perturbed against the trainer's present weights, batch
    /// norms with their moving statistics. Which ones depends on seed and step; images without a known
    /// label are left as they are, and so is every bit of those that are not perturbed.
    pub(crate) fn perturbed(&self, trainer: &Trainer, mut batch: Batch) -> Result<Batch> {
        let n = batch.indices.len();
        if batch.warp.is_some() {
            return Err(Error::argument(
                "adversarial training",
                "expected a batch that is warped already",
            ));
        }
        let labels = batch.labels.to_vec_f64();
        let mut stream = Stream::new(self.seed, &[domain::ATTACK, trainer.position.global_step]);
        let wanted = (n as f32 * self.share).round() as usize;
        let mut chosen: Vec<usize> = stream.permutation(n).into_iter().take(wanted).collect();
        let classes = batch.labels.shape().last_length();
        let row = |i: usize| &labels[i * classes..][..classes];
        chosen.retain(|&i| row(i).contains(&1.0));
        chosen.sort_unstable();
        if chosen.is_empty() {
            return Ok(batch);
        }
        let truth = |&i: &usize| -> Labels { row(i).iter().map(|&label| label == 1.0).collect() };
        let preprocess = trainer.config.preprocess;
        let network = Network::new(&trainer.model, preprocess)?;
        let output = trainer.model.graph.node(trainer.model.graph.output()).output_shape.clone();
        if output != [classes] {
            let expected = format!("a classifier of {classes} classes");
            return Err(Error::shape("adversarial training", expected, format!("{output:?}")));
        }
        let objective = Loss(LabelObjective {
            truth: chosen.iter().map(truth).collect(),
            goal: Goal::Untargeted,
            exclusive: network.exclusive(),
            thresholds: vec![0.5; classes],
            margin: 0.0,
            all_classes: true,
        });
        let images = undone(&victim::rows(&batch.images, &chosen)?, preprocess)?;
        let attacked = self.attack.perturb(&network, &images, &objective)?;
        let mut values = attacked.x.values::<f32>().to_vec();
        values.iter_mut().for_each(|v| *v *= 255.0);
        preprocess.apply(&mut values);
        let each = values.len() / chosen.len();
        let images = batch.images.values_mut::<f32>();
        for (&i, image) in chosen.iter().zip(values.chunks_exact(each)) {
            images[i * each..][..each].copy_from_slice(image);
        }
        Ok(batch)
    }
}

/// Prepared images as they were, 0 to 1.
fn undone(images: &Tensor, preprocess: Preprocess) -> Result<Images> {
    let mut values = images.values::<f32>().to_vec();
    preprocess.undo(&mut values);
    // Rounding may have left a value a little outside.
    values.iter_mut().for_each(|v| *v = (*v / 255.0).clamp(0.0, 1.0));
    Ok(Images::whole(Tensor::from_slice(&values, images.shape())?))
}

/// The highest loss there is, whether the network errs already or not: an attack with this goes all its
/// steps.
struct Loss(LabelObjective);

impl Objective for Loss {
    fn status(&self, image: usize, logits: &[f32]) -> AttackStatus {
        AttackStatus { reached: false, sure: false, ..self.0.status(image, logits) }
    }

    fn upstream(&self, image: usize, logits: &[f32], done: f32, gradient: &mut [f32]) {
        self.0.upstream(image, logits, done, gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::{EPSILON, SIDE, Toy, images, linear_model, objective};
    use super::*;
    use crate::attack::EpsBall;
    use crate::data::transforms::Augment;
    use crate::models::Spec;
    use crate::train::{Event, Schedule, TrainConfig};
    use std::ops::ControlFlow::{Break, Continue};
    use std::sync::Arc;

    fn config(preprocess: Preprocess) -> TrainConfig {
        TrainConfig {
            epochs: 20,
            batch_size: 16,
            learning_rate: 0.005,
            schedule: Schedule::Cosine,
            loss: "categorical_crossentropy".into(),
            augment: Augment::None,
            preprocess,
            train_indices: (0..96).collect(),
            ..TrainConfig::new(Spec::new("alexnet", SIDE, 20))
        }
    }

    fn loader(config: &TrainConfig) -> Loader {
        let data = Arc::new(Toy { first: 0, len: 96 });
        Loader::shuffled(data, config.training_transforms(), config.batch_size, config.seed)
    }

    /// Trains the linear network; with adversarial images or without.
    fn trained(preprocess: Preprocess, with: Option<Adversarial>) -> Trainer {
        let mut trainer = Trainer::new(linear_model(), config(preprocess)).unwrap();
        let loader = loader(&trainer.config);
        let (pace, monitor) = (CheckpointPolicy::default(), &mut |_: Event| Continue(()));
        match with {
            Some(how) => how.fit(&mut trainer, &loader, None, &pace, monitor).unwrap(),
            None => trainer.fit(&loader, None, &pace, monitor).unwrap(),
        }
        trainer
    }

    /// The shares of clean and of attacked images that err.
    fn errors(trainer: &Trainer) -> [f64; 2] {
        let network = Network::new(&trainer.model, trainer.config.preprocess).unwrap();
        let (images, objective) = (images(40), objective(40));
        let share = |statuses: &[AttackStatus]| {
            statuses.iter().filter(|s| s.reached).count() as f64 / statuses.len() as f64
        };
        let clean = super::super::Evaluator::new(&network, &objective).judge(&images.x).unwrap();
        let attack = Iterative::pgd(EpsBall::linf(EPSILON), 10);
        let attacked = attack.perturb(&network, &images, &objective).unwrap();
        [share(&clean.statuses), share(&attacked.statuses)]
    }

    #[test]
    fn it_makes_a_network_that_resists() {
        let attack = Iterative { restarts: 0, ..Iterative::pgd(EpsBall::linf(EPSILON), 4) };
        let preprocess = Preprocess::Symmetric;
        let [clean, attacked] = errors(&trained(preprocess, None));
        assert!(clean == 0.0 && attacked > 0.8, "{clean} {attacked}");
        let robust = trained(preprocess, Some(Adversarial::new(attack, 1)));
        let [clean, attacked] = errors(&robust);
        assert!(clean < 0.05 && attacked < 0.3, "{clean} {attacked}");
        // Optimizer and history are the trainer's own.
        assert_eq!((robust.history.epochs.len(), robust.optimizer.steps()), (20, 120));
    }

    #[test]
    fn a_stopped_run_goes_on_with_the_same_bits() {
        let how = Adversarial::new(Iterative::pgd(EpsBall::linf(EPSILON), 2), 4);
        let whole = trained(Preprocess::Symmetric, Some(how));
        let mut trainer = Trainer::new(linear_model(), config(Preprocess::Symmetric)).unwrap();
        let (loader, pace) = (loader(&trainer.config), CheckpointPolicy::default());
        let mut steps = 0;
        let stopped = how.fit(&mut trainer, &loader, None, &pace, &mut |event| {
            steps += matches!(event, Event::Step { .. }) as usize;
            if steps == 9 { Break(()) } else { Continue(()) }
        });
        assert!(stopped.unwrap_err().to_string().contains("epoch 1, step 3"));
        how.fit(&mut trainer, &loader, None, &pace, &mut |_| Continue(())).unwrap();
        for (a, b) in whole.model.parameters.iter().zip(&trainer.model.parameters) {
            assert_eq!(a.value.to_vec_f64(), b.value.to_vec_f64(), "{}", a.path);
        }
        let other = trained(Preprocess::Symmetric, Some(Adversarial { seed: 5, ..how }));
        assert_ne!(
            whole.model.parameters[0].value.to_vec_f64(),
            other.model.parameters[0].value.to_vec_f64()
        );
    }

    #[test]
    fn half_of_a_batch_moves_by_no_more_than_epsilon_and_the_rest_by_nothing() {
        // Weights so small that no preprocessing makes the network too sure to have a gradient.
        let mut model = super::super::toy::sharp_model();
        let kernel = crate::ops::scale(&model.parameters[0].value, 4e-4).unwrap();
        model.set("dense/kernel", kernel).unwrap();
        for preprocess in [
            Preprocess::None,
            Preprocess::Unit,
            Preprocess::Symmetric,
            Preprocess::Caffe,
            Preprocess::Torch,
        ] {
            let trainer = Trainer::new(model.clone(), config(preprocess)).unwrap();
            let batch = loader(&trainer.config).epoch(0, 0).unwrap().next().unwrap().unwrap();
            let before = batch.images.clone();
            let how = Adversarial::new(Iterative::fgsm(EpsBall::linf(EPSILON)), 2);
            let after = how.perturbed(&trainer, batch).unwrap();
            let each = SIDE * SIDE * 3;
            let rows = |t: &Tensor| -> Vec<Vec<f32>> {
                t.values::<f32>().chunks_exact(each).map(<[f32]>::to_vec).collect()
            };
            let mut moved = 0;
            for (mut a, mut b) in rows(&before).into_iter().zip(rows(&after.images)) {
                if a == b {
                    continue;
                }
                moved += 1;
                preprocess.undo(&mut a);
                preprocess.undo(&mut b);
                let most = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / 255.0;
                assert!((most - EPSILON).abs() < 1e-5, "{preprocess:?}: {most}");
                assert!(b.iter().all(|&v| (-1e-3..=255.001).contains(&v)));
            }
            assert_eq!((moved, after.labels.to_vec_f64().len()), (8, 16 * 20));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let how = Adversarial::new(Iterative::fgsm(EpsBall::linf(EPSILON)), 2);
        let mut trainer = Trainer::new(linear_model(), config(Preprocess::Unit)).unwrap();
        let mut error = |how: Adversarial, loader: &Loader| {
            how.fit(&mut trainer, loader, None, &CheckpointPolicy::default(), &mut |_| Continue(()))
                .unwrap_err()
                .to_string()
        };
        let right = loader(&config(Preprocess::Unit));
        assert!(error(Adversarial { share: 1.5, ..how }, &right).contains("got 1.5"));
        assert!(error(how, &loader(&config(Preprocess::Torch))).contains("`Unit`, got `Torch`"));
    }
}
