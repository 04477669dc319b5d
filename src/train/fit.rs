//! The training loop.

use super::checkpoint;
use super::history::{Epoch, History};
use crate::autograd::no_grad;
use crate::data::loader::{Batch, Loader};
use crate::error::{Error, Result};
use crate::graph::{Model, Parameter, Run, fold_batch_norm};
use crate::losses::{Loss, sample_weights};
use crate::metrics;
use crate::ops::CategoricalGradient;
use crate::optimizers::{Optimizer, Rule};
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// What decides a run's bits, beside the data. A run is resumed under the plan it began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub epochs: usize,
    pub batch_size: usize,
    pub learning_rate: f32,
    /// `adam`, `sgd`, `rmsprop`
    pub optimizer: String,
    pub momentum: f64,
    /// `binary_crossentropy`, or `categorical_crossentropy` with Keras' gradient.
    pub loss: String,
    pub seed: u64,
    pub augment: bool,
    /// One weight a class, or none.
    pub class_weights: Option<Vec<f32>>,
    /// The training samples, and which samples are kept for validation.
    pub train_indices: Vec<usize>,
    pub val_indices: Vec<usize>,
}

impl Plan {
    /// An error where a setting is out of range.
    pub fn check(&self) -> Result<()> {
        let wrong = |what, message: String| Err(Error::argument(what, message));
        if self.epochs == 0 || self.batch_size == 0 || self.batch_size > 1 << 16 {
            let message = format!(
                "expected at least one epoch and batches of 1 to 65536, got {} and {}",
                self.epochs, self.batch_size
            );
            return wrong("plan", message);
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return wrong(
                "learning_rate",
                format!("expected a number above 0, got {}", self.learning_rate),
            );
        }
        if let Some(weights) = &self.class_weights
            && let Some(bad) = weights.iter().find(|w| !(**w >= 0.0 && w.is_finite()))
        {
            return wrong("class_weights", format!("expected numbers of at least 0, got {bad}"));
        }
        if !Rule::NAMES.contains(&self.optimizer.as_str()) {
            let known = Rule::NAMES.join("`, `");
            return wrong("optimizer", format!("`{}` is none of `{known}`", self.optimizer));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return wrong("momentum", format!("expected 0 ≤ momentum < 1, got {}", self.momentum));
        }
        self.loss().map(|_| ())
    }

    pub(crate) fn rule(&self) -> Rule {
        match self.optimizer.as_str() {
            "sgd" => Rule::sgd(self.momentum),
            "rmsprop" => Rule::rmsprop(self.momentum),
            _ => Rule::adam(),
        }
    }

    pub fn loss(&self) -> Result<Loss> {
        Ok(match self.loss.parse()? {
            Loss::CategoricalCrossentropy { .. } => {
                Loss::CategoricalCrossentropy { gradient: Some(CategoricalGradient::Keras) }
            }
            other => other,
        })
    }
}

/// Where a run stands: the next step, and the sums of the epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs completed.
    pub epoch: usize,
    /// Steps taken in the current epoch.
    pub step: usize,
    /// Steps taken in all.
    pub global_step: u64,
    pub loss_sum: f64,
    pub accuracy_sum: f64,
    pub samples: usize,
}

/// How often the state is written: after every epoch, and every so many steps.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    pub checkpoint: Option<PathBuf>,
    pub every_steps: Option<usize>,
}

pub struct Trainer {
    pub model: Model,
    pub optimizer: Optimizer,
    pub plan: Plan,
    pub position: Position,
    pub history: History,
}

/// What a [`Monitor`] is told.
pub enum Event<'a> {
    EpochBegins { epoch: usize, of: usize, steps: usize, step: usize },
    Step { step: usize, samples: usize, loss: f64, accuracy: f64 },
    EpochEnds(&'a Epoch),
}

/// Watches a run; may ask it to stop, which saves the state first.
pub type Monitor<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

impl Trainer {
    pub fn new(model: Model, plan: Plan) -> Result<Self> {
        plan.check()?;
        let optimizer = Optimizer::new(plan.rule(), plan.learning_rate)?;
        Ok(Trainer {
            model,
            optimizer,
            plan,
            position: Position::default(),
            history: History::default(),
        })
    }

    /// One step on one batch: (loss, categorical accuracy) with the weights of before the step.
    pub fn step(&mut self, batch: &Batch) -> Result<(f64, f64)> {
        let weights = match &self.plan.class_weights {
            Some(weights) => Some(sample_weights(weights, &batch.labels)?),
            None => None,
        };
        let run = Run::train(self.plan.seed, self.position.global_step);
        let pass = self.model.run(&batch.images, run)?;
        let loss = self.plan.loss()?.from_logits(&pass.logits, &batch.labels, weights.as_ref())?;
        let value = loss.item()?;
        if !value.is_finite() {
            return Err(Error::Diverged(format!(
                "the loss of epoch {}, step {} is {value}; a smaller learning rate may help",
                self.position.epoch + 1,
                self.position.step + 1
            )));
        }
        let accuracy = accuracy(&batch.labels, &pass.output)?;
        let mut gradients = loss.backward()?;
        let gradients: Vec<Option<Tensor>> =
            pass.leaves.iter().map(|leaf| gradients.take(leaf)).collect();
        let moving = pass.moving;
        // The leaves share the parameters' memory: gone, the parameters can change in place.
        drop((pass.leaves, pass.output, pass.logits, loss));
        self.optimizer.begin_step();
        for (index, gradient) in gradients.into_iter().enumerate() {
            if let Some(gradient) = gradient {
                self.optimizer.update(index, &mut self.model.parameters[index].value, &gradient)?;
            }
        }
        self.model.update_moving(moving);
        self.position.global_step += 1;
        self.position.step += 1;
        Ok((value, accuracy))
    }

    /// Trains to the plan's last epoch. `validation` is scored after every epoch.
    pub fn fit(
        &mut self,
        training: &Loader,
        validation: Option<&Loader>,
        pace: &Pace,
        monitor: &mut Monitor,
    ) -> Result<()> {
        if training.steps() == 0 {
            return Err(Error::argument("training", "there is no sample to train on"));
        }
        while self.position.epoch < self.plan.epochs {
            let (epoch, step) = (self.position.epoch, self.position.step);
            let mut stop = monitor(Event::EpochBegins {
                epoch: epoch + 1,
                of: self.plan.epochs,
                steps: training.steps(),
                step,
            });
            for batch in training.epoch(epoch as u64, step)? {
                if stop.is_break() {
                    return self.interrupted(pace);
                }
                let batch = batch?;
                let n = batch.indices.len();
                let (loss, accuracy) = self.step(&batch)?;
                self.position.loss_sum += loss * n as f64;
                self.position.accuracy_sum += accuracy * n as f64;
                self.position.samples += n;
                let samples = self.position.samples as f64;
                stop = monitor(Event::Step {
                    step: self.position.step,
                    samples: n,
                    loss: self.position.loss_sum / samples,
                    accuracy: self.position.accuracy_sum / samples,
                });
                if pace.every_steps.is_some_and(|every| self.position.step.is_multiple_of(every)) {
                    self.save(pace)?;
                }
            }
            if stop.is_break() {
                return self.interrupted(pace);
            }
            let record = self.finish_epoch(validation)?;
            self.save(pace)?;
            if monitor(Event::EpochEnds(&record)).is_break() {
                return self.interrupted(pace);
            }
        }
        Ok(())
    }

    fn finish_epoch(&mut self, validation: Option<&Loader>) -> Result<Epoch> {
        let samples = self.position.samples.max(1) as f64;
        let scores = match validation {
            Some(loader) if loader.steps() > 0 => {
                Some(evaluate(&self.model, self.plan.loss()?, loader)?)
            }
            _ => None,
        };
        let record = Epoch {
            epoch: self.position.epoch + 1,
            learning_rate: self.optimizer.learning_rate,
            loss: self.position.loss_sum / samples,
            accuracy: self.position.accuracy_sum / samples,
            val_loss: scores.as_ref().map(|scores| scores.loss),
            val_accuracy: scores.as_ref().map(|scores| scores.accuracy),
            val_map: scores.as_ref().and_then(|scores| scores.map),
        };
        self.history.epochs.push(record);
        self.position = Position {
            epoch: self.position.epoch + 1,
            global_step: self.position.global_step,
            ..Position::default()
        };
        Ok(record)
    }

    /// A state that cannot be trained on never replaces one that can.
    fn save(&self, pace: &Pace) -> Result<()> {
        let Some(path) = &pace.checkpoint else { return Ok(()) };
        let broken =
            |parameter: &&Parameter| !parameter.value.values::<f32>().iter().all(|v| v.is_finite());
        match self.model.parameters.iter().find(broken) {
            Some(Parameter { path, .. }) => {
                let Position { epoch, step, .. } = self.position;
                Err(Error::Diverged(format!(
                    "after epoch {epoch}, step {step} `{path}` holds numbers that are not finite; \
                     a smaller learning rate may help"
                )))
            }
            None => checkpoint::save(path, self),
        }
    }

    fn interrupted(&self, pace: &Pace) -> Result<()> {
        self.save(pace)?;
        let Position { epoch, step, .. } = self.position;
        let at = format!("stopped after epoch {epoch}, step {step}");
        Err(Error::Interrupted(match &pace.checkpoint {
            Some(path) => format!("{at}; saved in {}: go on with --resume", path.display()),
            None => at,
        }))
    }
}

/// Categorical accuracy: the share of rows whose largest output is at their first label.
fn accuracy(labels: &Tensor, output: &Tensor) -> Result<f64> {
    let columns = output.shape().last_axis();
    metrics::categorical_accuracy(labels.values(), output.values(), columns)
}

/// Scores on a loader's samples.
pub struct Scores {
    pub loss: f64,
    pub accuracy: f64,
    /// Mean average precision; None where no class has a positive sample.
    pub map: Option<f64>,
    /// [samples, classes], in the loader's order.
    pub probabilities: Vec<f32>,
    pub labels: Vec<f32>,
}

/// Runs the network, batch norms folded, over a loader in order: no augmentation of its own, no
/// class weights.
pub fn evaluate(model: &Model, loss: Loss, loader: &Loader) -> Result<Scores> {
    let model = fold_batch_norm(model, &[])?;
    let (mut loss_sum, mut accuracy_sum, mut samples) = (0.0, 0.0, 0.0);
    let (mut probabilities, mut labels) = (Vec::new(), Vec::new());
    let mut columns = 1;
    no_grad(|| {
        for batch in loader.epoch(0, 0)? {
            let batch = batch?;
            let n = batch.indices.len() as f64;
            let pass = model.run(&batch.images, Run::infer())?;
            loss_sum += n * loss.from_logits(&pass.logits, &batch.labels, None)?.item()?;
            accuracy_sum += n * accuracy(&batch.labels, &pass.output)?;
            samples += n;
            columns = pass.output.shape().last_axis();
            probabilities.extend_from_slice(pass.output.values::<f32>());
            labels.extend_from_slice(batch.labels.values::<f32>());
        }
        Ok::<_, Error>(())
    })?;
    if samples == 0.0 {
        return Err(Error::argument("evaluate", "there is no sample to score"));
    }
    let map = mean_average_precision(&labels, &probabilities, columns)?;
    let (loss, accuracy) = (loss_sum / samples, accuracy_sum / samples);
    Ok(Scores { loss, accuracy, map, probabilities, labels })
}

/// Mean average precision over the classes that occur; None where none does.
fn mean_average_precision(labels: &[f32], probabilities: &[f32], columns: usize) -> Result<Option<f64>> {
    let interpolation = metrics::Interpolation::default();
    let each = metrics::average_precisions(labels, probabilities, columns, interpolation)?;
    let known: Vec<f64> = each.into_iter().flatten().collect();
    Ok((!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64))
}
