//! The training loop.

use super::callbacks::Callbacks;
use super::captured::DeviceState;
use super::checkpoint;
use super::config::{MonitorMetric, TrainConfig};
use super::evaluate::evaluate;
use super::history::{Epoch, History};
use super::step::Pending;
use crate::data::loader::{Batch, Loader};
use crate::data::transforms::Transforms;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Model, TrainingGraph};
use crate::optimizers::Optimizer;
use crate::pool;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Where a run stands: the next step, and the sums of the epoch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Epochs completed.
    pub epoch: usize,
    /// Steps taken in the current epoch.
    pub step: usize,
    /// Steps taken in all.
    pub global_step: u64,
    /// Whether it ended before its last epoch, for want of improvement.
    #[serde(default)]
    pub stopped: bool,
    /// Σ over the epoch's samples so far of the loss of their batch.
    pub loss_sum: f64,
    /// Σ over the same samples of the accuracy of their batch.
    pub accuracy_sum: f64,
    /// Samples the epoch has trained on so far.
    pub samples: usize,
}

/// What tells how good an epoch is: of a segmentation mean IoU, of exclusive classes accuracy, of others mean
/// average precision.
fn score(epoch: &Epoch, exclusive: bool) -> Option<f64> {
    match exclusive {
        true => epoch.val_accuracy,
        false => epoch.val_miou.or(epoch.val_map),
    }
}

/// What to try where training diverged.
pub(super) const ADVICE: &str =
    "a smaller learning rate may help (--learning-rate), or --clip-norm 1, or --warmup 1";

/// Where and how often the state is written: after every epoch, and every so many steps.
///
/// A run that is stopped, and taken up again:
///
/// ```
/// use atrous::train::{CheckpointPolicy, Event, load};
/// # use atrous::data::{Dataset, synthetic::Synthetic};
/// # use atrous::models::Spec;
/// # use atrous::prelude::*;
/// # use atrous::train::{TrainConfig, Trainer};
/// use std::ops::ControlFlow;
/// # use std::sync::Arc;
///
/// # let spec = Spec::new("alexnet", 108, 20);
/// # let model = Model::new(spec.graph()?, 1);
/// # let config = TrainConfig { train_indices: vec![0], ..TrainConfig::new(spec) };
/// # let mut trainer = Trainer::new(model, config)?;
/// # let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::train(1, 1));
/// # let training = trainer.config.training_loader(&dataset, 1);
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("run.safetensors");
/// let policy = CheckpointPolicy { checkpoint: Some(path.clone()), ..CheckpointPolicy::default() };
/// // A monitor that has seen enough at once.
/// let mut monitor = |event: Event| match event {
///     Event::EpochBegins { .. } => ControlFlow::Break(()),
///     _ => ControlFlow::Continue(()),
/// };
/// let stopped = trainer.fit(&training, None, &policy, &mut monitor);
/// assert!(matches!(stopped, Err(Error::Interrupted(_))));
/// let (again, _) = load(&path)?;
/// assert_eq!(again.position, trainer.position);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CheckpointPolicy {
    /// The file to resume from, replaced each time; None: nothing is written.
    pub checkpoint: Option<PathBuf>,
    /// Also after every so many steps of an epoch, above zero.
    pub every_steps: Option<usize>,
    /// Where the best epoch's state is kept; None: nowhere.
    pub best: Option<PathBuf>,
}

/// A run in progress: all that decides its next bit, beside the data.
///
/// ```
/// use atrous::data::{Dataset, synthetic::Synthetic};
/// use atrous::models::Spec;
/// use atrous::prelude::*;
/// use atrous::train::{CheckpointPolicy, Event, TrainConfig, Trainer};
/// use std::ops::ControlFlow;
/// use std::sync::Arc;
///
/// let config = TrainConfig {
///     epochs: 2,
///     batch_size: 1,
///     train_indices: vec![0, 1],
///     val_indices: vec![2],
///     ..TrainConfig::new(Spec::new("alexnet", 8, 20))
/// };
/// // Any network that takes and makes what the plan's does.
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let dense = Layer::dense(20).with_activation(Activation::Sigmoid);
/// graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, dense])?;
/// let mut trainer = Trainer::new(Model::new(graph, 1), config)?;
/// trainer.to_device(Device::Cpu)?;
///
/// let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::train(1, 3));
/// let training = trainer.config.training_loader(&dataset, 1);
/// let validation = trainer.config.scoring_loader(&dataset, trainer.config.val_indices.clone());
/// let mut steps = 0;
/// let mut monitor = |event: Event| {
///     steps += matches!(event, Event::Step { .. }) as usize;
///     ControlFlow::Continue(())
/// };
/// // Without a file to resume from.
/// trainer.fit(&training, Some(&validation), &CheckpointPolicy::default(), &mut monitor)?;
/// assert_eq!((steps, trainer.position.epoch, trainer.optimizer.steps()), (2 * 2, 2, 4));
/// assert!(trainer.history.epochs[1].val_loss.is_some());
/// # Ok::<(), Error>(())
/// ```
pub struct Trainer {
    /// The weights as they are now, on the device that trains.
    pub model: Model,
    /// The update rule and its moments.
    pub optimizer: Optimizer,
    /// The settings of the run, which training does not change.
    pub config: TrainConfig,
    /// Epochs and steps done.
    pub position: TrainState,
    /// Best values so far, for early stopping and plateaus.
    pub callbacks: Callbacks,
    /// A row for each epoch completed.
    pub history: History,
    /// What the schedule makes of the learning rate in the present step.
    pub(super) rate_factor: f32,
    /// On a device, ask for every kernel of a step one by one, and capture no graph.
    pub eager: bool,
    /// The model's graph as a step runs it, for as long as the same layers train.
    pub(super) training_graph: Option<TrainingGraph>,
    /// What steps keep on a device, for as long.
    pub(super) device_state: Option<DeviceState>,
    /// A step that was begun and not waited for.
    pub(super) pending: Option<Pending>,
}

/// What a [`Monitor`] is told of a run.
pub enum Event<'a> {
    /// An epoch is about to begin, or to go on after a resume.
    EpochBegins {
        /// Counted from 1.
        epoch: usize,
        /// Epochs of the plan.
        of: usize,
        /// Steps of an epoch.
        steps: usize,
        /// Steps of this epoch that are done already.
        step: usize,
    },
    /// A step was done.
    Step {
        /// Its number in the epoch, counted from 1.
        step: usize,
        /// Samples in its batch.
        samples: usize,
        /// Mean loss of the epoch so far.
        loss: f64,
        /// Mean accuracy of the epoch so far, 0 to 1.
        accuracy: f64,
        /// The rate of this step, the schedule's factor included.
        learning_rate: f32,
    },
    /// The state was written. What the monitor answers is not looked at.
    Saved {
        /// The file.
        path: &'a Path,
        /// Whether it is the best epoch's, not the one to resume from.
        best: bool,
        /// Where the run stands in it.
        position: TrainState,
    },
    /// An epoch was completed, scored and saved.
    EpochEnds {
        /// What it came to.
        record: &'a Epoch,
        /// The network as it is now, on the device that trains.
        model: &'a Model,
    },
    /// The validation has not become better for as long as the plan's patience.
    StopsEarly {
        /// The last epoch, counted from 1.
        epoch: usize,
        /// The best one, counted from 1.
        best_epoch: usize,
    },
}

/// Watches a run; may ask it to stop, which saves the state first.
///
/// ```
/// use atrous::train::{Event, Monitor};
/// use std::ops::ControlFlow;
///
/// // Prints each epoch, and has seen enough once the loss is small.
/// let monitor: &mut Monitor = &mut |event| match event {
///     Event::EpochEnds { record, .. } => {
///         println!("{}: {}", record.epoch, record.loss);
///         if record.loss < 0.01 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
///     }
///     _ => ControlFlow::Continue(()),
/// };
/// assert!(monitor(Event::StopsEarly { epoch: 9, best_epoch: 6 }).is_continue());
/// ```
pub type Monitor<'a> = dyn FnMut(Event) -> ControlFlow<()> + 'a;

/// Makes another batch of one, just before the step on it: with the weights that the step begins with.
pub(crate) type Change<'a> = dyn FnMut(&Trainer, Batch) -> Result<Batch> + 'a;

impl Trainer {
    /// Begins a run. An error where the plan contradicts itself.
    ///
    /// # Panics
    /// With [`OutOfMemory`](pool::OutOfMemory), where gradients and optimizer state would not fit.
    pub fn new(model: Model, config: TrainConfig) -> Result<Self> {
        config.check()?;
        let optimizer = Optimizer::new(config.rule(), config.learning_rate)?;
        // Gradients and the optimizer's state, each of 4 bytes a trainable parameter: where there is no
        // memory for them, that shows now and not in the first step.
        let mut largest = model.clone();
        let base = model.graph.base().len();
        let epochs = config.unfreeze.iter().map(|stage| stage.epoch).chain([0]);
        let stages =
            epochs.filter(|&epoch| epoch < config.epochs).map(|epoch| config.frozen_layers(base, epoch));
        largest.freeze_first(stages.min().unwrap_or(0));
        let (_, trainable) = largest.count_parameters();
        let copies = 1 + optimizer.rule().slot_names().len();
        pool::require((trainable * copies) as u64 * 4);
        Ok(Self::at(model, optimizer, config, TrainState::default()))
    }

    /// A trainer that goes on from a position.
    pub(super) fn at(
        model: Model,
        optimizer: Optimizer,
        config: TrainConfig,
        position: TrainState,
    ) -> Self {
        let mut trainer = Trainer {
            model,
            optimizer,
            config,
            position,
            callbacks: Callbacks::default(),
            history: History::default(),
            rate_factor: 1.0,
            eager: false,
            training_graph: None,
            device_state: None,
            pending: None,
        };
        trainer.freeze();
        trainer
    }

    /// Moves weights and optimizer state to another device, where the run goes on. An error where
    /// there is no such device.
    pub fn to_device(&mut self, device: Device) -> Result<()> {
        self.model = self.model.to_device(device)?;
        self.optimizer.to_device(device)?;
        (self.training_graph, self.device_state) = (None, None);
        Ok(())
    }

    /// Freezes what the plan has frozen in the present epoch.
    fn freeze(&mut self) {
        let before: Vec<bool> = self.model.parameters.iter().map(|p| p.trainable).collect();
        let base = self.model.graph.base().len();
        self.model.freeze_first(self.config.frozen_layers(base, self.position.epoch));
        if self.config.freeze_batch_norm {
            self.model.freeze_batch_norms();
        }
        if self.model.parameters.iter().map(|p| p.trainable).ne(before) {
            (self.training_graph, self.device_state) = (None, None);
        }
    }

    /// Trains to the plan's last epoch, or until early stopping. `validation` is scored after every
    /// epoch.
    ///
    /// An error where there is nothing to train on, a sample or a file fails, the loss is no finite
    /// number ([`Error::Diverged`]), or the monitor asks to stop ([`Error::Interrupted`]; the state
    /// is saved before).
    pub fn fit(
        &mut self,
        training: &Loader,
        validation: Option<&Loader>,
        pace: &CheckpointPolicy,
        monitor: &mut Monitor,
    ) -> Result<()> {
        self.run(training, validation, pace, monitor, None)
    }

    /// [`Trainer::fit`] on what `change` makes of each batch. For a resumed run to go on with the same
    /// bits, that may depend on the batch and on the trainer alone.
    pub(crate) fn fit_changed(
        &mut self,
        training: &Loader,
        validation: Option<&Loader>,
        pace: &CheckpointPolicy,
        monitor: &mut Monitor,
        change: &mut Change,
    ) -> Result<()> {
        self.run(training, validation, pace, monitor, Some(change))
    }

    fn run(
        &mut self,
        training: &Loader,
        validation: Option<&Loader>,
        pace: &CheckpointPolicy,
        monitor: &mut Monitor,
        mut change: Option<&mut Change>,
    ) -> Result<()> {
        // A device warps images itself; who changes them is to see them as they will be.
        let warp_later = self.model.device() != Device::Cpu && change.is_none();
        let transforms = Transforms { warp_later, ..training.transforms };
        let training = &Loader { transforms, ..training.clone() };
        let steps = training.steps() as u64;
        if steps == 0 {
            return Err(Error::argument("training", "there is no sample to train on"));
        }
        let warmup = (self.config.warmup as f64 * steps as f64).round() as u64;
        let all = self.config.epochs as u64 * steps;
        let schedule = self.config.schedule;
        let factor = |step: u64| schedule.factor(step, warmup, all);
        while self.position.epoch < self.config.epochs && !self.position.stopped {
            self.freeze();
            let (epoch, step) = (self.position.epoch, self.position.step);
            let mut stop = monitor(Event::EpochBegins {
                epoch: epoch + 1,
                of: self.config.epochs,
                steps: training.steps(),
                step,
            });
            let mut batches = training.epoch(epoch as u64, step)?;
            let mut next = batches.next().transpose()?;
            while let Some(batch) = next {
                if stop.is_break() {
                    return self.interrupted(pace, monitor);
                }
                let n = batch.indices.len();
                self.rate_factor = factor(self.position.global_step);
                let batch = match &mut change {
                    Some(change) => change(self, batch)?,
                    None => batch,
                };
                self.launch(&batch)?;
                // While a device works, the next batch is on its way there, unless it is yet to be changed.
                next = batches.next().transpose()?;
                if let (Some(next), None) = (&next, &change) {
                    self.send_ahead(next)?;
                }
                let (loss, accuracy) = self.finish()?;
                self.position.loss_sum += loss * n as f64;
                self.position.accuracy_sum += accuracy * n as f64;
                self.position.samples += n;
                let samples = self.position.samples as f64;
                stop = monitor(Event::Step {
                    step: self.position.step,
                    samples: n,
                    loss: self.position.loss_sum / samples,
                    accuracy: self.position.accuracy_sum / samples,
                    learning_rate: self.optimizer.learning_rate * self.rate_factor,
                });
                if pace.every_steps.is_some_and(|every| self.position.step.is_multiple_of(every)) {
                    self.save(pace.checkpoint.as_deref(), false, monitor)?;
                }
            }
            if stop.is_break() {
                return self.interrupted(pace, monitor);
            }
            // The rate of the last step, also where a run is taken up after it.
            self.rate_factor = factor(self.position.global_step.saturating_sub(1));
            let (record, improved) = self.finish_epoch(validation)?;
            // The best first: where the run is killed between the two, the checkpoint is still before
            // the epoch's end, and whoever goes on from it writes both again. The other way round the
            // best would be lost.
            if improved {
                self.save(pace.best.as_deref(), true, monitor)?;
            }
            self.save(pace.checkpoint.as_deref(), false, monitor)?;
            if monitor(Event::EpochEnds { record: &record, model: &self.model }).is_break() {
                return self.interrupted(pace, monitor);
            }
        }
        if self.position.stopped {
            let (epoch, best_epoch) = (self.position.epoch, self.callbacks.best_epoch);
            let _ = monitor(Event::StopsEarly { epoch, best_epoch });
        }
        Ok(())
    }

    /// The epoch's record, and whether it is the best one so far.
    fn finish_epoch(&mut self, validation: Option<&Loader>) -> Result<(Epoch, bool)> {
        let samples = self.position.samples.max(1) as f64;
        let scores = match validation {
            Some(loader) if loader.steps() > 0 => {
                let scores = evaluate(&self.model, self.config.loss()?, loader);
                Some(scores.map_err(|error| self.diverged_after(error))?)
            }
            _ => None,
        };
        let scores = scores.as_ref();
        let record = Epoch {
            epoch: self.position.epoch + 1,
            learning_rate: self.optimizer.learning_rate * self.rate_factor,
            loss: self.position.loss_sum / samples,
            accuracy: self.position.accuracy_sum / samples,
            val_loss: scores.and_then(|scores| scores.loss),
            val_accuracy: scores.and_then(|scores| scores.accuracy),
            val_map: scores.and_then(|scores| scores.map),
            val_miou: scores.and_then(|scores| scores.confusion.as_ref()?.mean_iou().ok()),
            val_dice: scores.and_then(|scores| scores.confusion.as_ref()?.mean_dice().ok()),
        };
        self.history.epochs.push(record);
        let mut stopped = false;
        let mut improved = record.val_loss.is_none();
        if let Some(value) = record.val_loss {
            let verdict = self.callbacks.epoch_ends(
                record.epoch,
                match self.config.monitor {
                    MonitorMetric::Loss => value,
                    MonitorMetric::Score => -score(&record, self.config.exclusive).unwrap_or(-value),
                },
                self.config.patience,
                self.config.plateau,
                &mut self.optimizer.learning_rate,
            );
            (improved, stopped) = (verdict.improved, verdict.stop);
        }
        self.position = TrainState {
            epoch: self.position.epoch + 1,
            global_step: self.position.global_step,
            stopped,
            ..TrainState::default()
        };
        Ok((record, improved))
    }

    /// The validation is the first to see what the epoch's last step has spoiled.
    fn diverged_after(&self, error: Error) -> Error {
        match error {
            Error::Argument { what: "network", message } => {
                let epoch = self.position.epoch + 1;
                Error::Diverged(format!("after epoch {epoch}: {message}; {ADVICE}"))
            }
            other => other,
        }
    }

    /// A state that cannot be trained on never replaces one that can.
    fn save(&self, path: Option<&Path>, best: bool, monitor: &mut Monitor) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        match self.model.parameter_not_finite()? {
            Some((path, _)) => {
                let TrainState { epoch, step, .. } = self.position;
                Err(Error::Diverged(format!(
                    "after epoch {epoch}, step {step} `{path}` holds numbers that are not finite; {ADVICE}"
                )))
            }
            None => {
                checkpoint::save(path, self)?;
                let _ = monitor(Event::Saved { path, best, position: self.position });
                Ok(())
            }
        }
    }

    fn interrupted(&self, pace: &CheckpointPolicy, monitor: &mut Monitor) -> Result<()> {
        self.save(pace.checkpoint.as_deref(), false, monitor)?;
        let TrainState { epoch, step, .. } = self.position;
        let at = format!("stopped after epoch {epoch}, step {step}");
        Err(Error::Interrupted(match &pace.checkpoint {
            Some(path) => format!("{at}; saved in {}: go on with --resume", path.display()),
            None => at,
        }))
    }
}
