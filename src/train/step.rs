//! One training step: forward, loss, backward, update.
//!
//! On a device the CPU asks and does not wait: [`Trainer::launch`] returns at once, the next batch is
//! sent off while the device works, and [`Trainer::finish`] fetches two numbers, the loss and the
//! accuracy. What a device keeps between steps is in `captured.rs`; the mathematics is the same.

use super::config::TrainConfig;
use super::evaluate::accuracy;
use super::fit::{ADVICE, Trainer};
use crate::backend::cuda::Cuda;
use crate::data::VOID;
use crate::data::augment::Warp;
use crate::data::loader::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics;
use crate::losses::{sample_weights, smooth};
use crate::nn::{ForwardOutput, Mode, TrainingGraph};
use crate::ops;
use crate::tensor::Tensor;

/// What a step reads of a batch.
#[derive(Clone)]
pub(super) struct Inputs {
    pub(super) images: Tensor,
    /// As the loss takes them: smoothed.
    pub(super) targets: Tensor,
    /// Of the samples.
    pub(super) weights: Option<Tensor>,
    /// What is still to be done to images and masks.
    pub(super) warp: Option<Warp>,
}

impl Inputs {
    pub(super) fn new(config: &TrainConfig, batch: &Batch) -> Result<Self> {
        let weights = match &config.class_weights {
            Some(weights) => Some(sample_weights(weights, &batch.labels)?),
            None => None,
        };
        let targets = batch.targets(config.network.segments())?;
        let targets = smooth(targets, config.label_smoothing, config.loss()?)?;
        Ok(Inputs { images: batch.images.clone(), targets, weights, warp: batch.warp.clone() })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Tensor> {
        let matrices = self.warp.iter().map(|warp| &warp.matrices);
        [&self.images, &self.targets].into_iter().chain(&self.weights).chain(matrices)
    }

    /// With nothing left to be done to images and masks.
    pub(super) fn warped(&self) -> Result<Self> {
        let Some(warp) = &self.warp else { return Ok(self.clone()) };
        let segments = self.targets.shape().len() == 3;
        Ok(Inputs {
            images: warp.images(&self.images)?,
            targets: if segments { warp.masks(&self.targets)? } else { self.targets.clone() },
            weights: self.weights.clone(),
            warp: None,
        })
    }

    pub(super) fn to_device(&self, device: Device) -> Result<Self> {
        let weights = self.weights.as_ref().map(|weights| weights.to_device(device));
        let warp =
            self.warp.as_ref().map(|warp| Ok(warp.with_matrices(warp.matrices.to_device(device)?)));
        Ok(Inputs {
            images: self.images.to_device(device)?,
            targets: self.targets.to_device(device)?,
            weights: weights.transpose()?,
            warp: warp.transpose()?,
        })
    }
}

/// A step that was asked for.
pub(super) struct Pending {
    epoch: usize,
    step: usize,
    scores: Scores,
}

enum Scores {
    Known(f64, f64),
    /// Loss and accuracy, [2].
    DeviceState(Tensor),
}

impl Trainer {
    /// One step on one batch: (loss, accuracy) with the weights of before the step.
    ///
    /// A loop of one's own:
    ///
    /// ```
    /// use atrous::data::{Dataset, synthetic::Synthetic};
    /// # use atrous::data::transforms::Augment;
    /// # use atrous::models::Spec;
    /// # use atrous::prelude::*;
    /// # use atrous::train::{TrainConfig, Trainer};
    /// # use std::sync::Arc;
    ///
    /// # let config = TrainConfig {
    /// #     augment: Augment::None,
    /// #     train_indices: (0..4).collect(),
    /// #     ..TrainConfig::new(Spec::new("alexnet", 8, 20))
    /// # };
    /// # let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// # let dense = Layer::dense(20).with_activation(Activation::Sigmoid);
    /// # graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, dense])?;
    /// # let mut trainer = Trainer::new(Model::new(graph, 1), config)?;
    /// # let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::train(1, 4));
    /// let loader = trainer.config.training_loader(&dataset, 1);
    /// let batch = loader.epoch(0, 0)?.next().unwrap()?;
    /// let (before, _accuracy) = trainer.step(&batch)?;
    /// let (after, _accuracy) = trainer.step(&batch)?;
    /// assert!(after < before);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn step(&mut self, batch: &Batch) -> Result<(f64, f64)> {
        self.launch(batch)?;
        self.finish()
    }

    /// Begins a step; on a device it may not be over when this returns.
    pub(super) fn launch(&mut self, batch: &Batch) -> Result<()> {
        if self.pending.is_some() {
            return Err(Error::argument("training", "a step before the last one was finished"));
        }
        self.optimizer.factors = [self.rate_factor, self.rate_factor * self.config.base_rate];
        let scores = match self.model.device() {
            Device::Cpu => {
                let inputs = Inputs::new(&self.config, batch)?.warped()?;
                let (loss, pass) = self.forward(&inputs)?;
                let value = loss.item()?;
                if !value.is_finite() {
                    let run = Mode::train(self.config.seed, self.position.global_step);
                    let first = self.model.first_not_finite(&inputs.images, run)?;
                    return Err(self.diverged(value, self.position.epoch, self.position.step, first));
                }
                let right = accuracy(&inputs.targets, &pass.output)?;
                self.optimizer.begin_step();
                self.optimizer.backward_and_step(&mut self.model, loss, pass, self.config.clip_norm)?;
                Scores::Known(value, right)
            }
            device => Scores::DeviceState(self.launch_on_device(Cuda::get(device)?, batch)?),
        };
        let (epoch, step) = (self.position.epoch, self.position.step);
        self.pending = Some(Pending { epoch, step, scores });
        self.position.global_step += 1;
        self.position.step += 1;
        Ok(())
    }

    /// Waits for the step that was begun: its loss and its accuracy.
    pub(super) fn finish(&mut self) -> Result<(f64, f64)> {
        let pending = self.pending.take();
        let Pending { epoch, step, scores } =
            pending.ok_or_else(|| Error::argument("training", "no step was begun"))?;
        match scores {
            Scores::Known(loss, accuracy) => Ok((loss, accuracy)),
            Scores::DeviceState(scores) => {
                let scores = scores.to_device(Device::Cpu)?.to_vec_f64();
                if !scores[0].is_finite() {
                    // The step was done with it: what it left in the parameters is all there is to see.
                    let first = self.model.parameter_not_finite()?;
                    let first = first.map(|(path, _)| format!("the parameter `{path}`"));
                    return Err(self.diverged(scores[0], epoch, step, first));
                }
                Ok((scores[0], scores[1]))
            }
        }
    }

    /// `first`: what was the first that is not finite.
    fn diverged(&self, loss: f64, epoch: usize, step: usize, first: Option<String>) -> Error {
        let first = first.map_or(String::new(), |first| format!("; not finite first: {first}"));
        let (epoch, step) = (epoch + 1, step + 1);
        Error::Diverged(format!("the loss of epoch {epoch}, step {step} is {loss}{first}; {ADVICE}"))
    }

    /// A whole step on a device, of which nothing comes back: its loss and accuracy, [2], are there.
    pub(super) fn run_eager(&mut self, inputs: &Inputs) -> Result<Tensor> {
        let inputs = &inputs.warped()?;
        let (loss, pass) = self.forward(inputs)?;
        let output = pass.output.detach();
        let right = metrics::accuracy(&inputs.targets, &output, VOID as f32)?;
        let scores = ops::concat(&[&ops::reshape(&loss.detach(), [1])?, &right], 0)?;
        drop(output);
        self.optimizer.backward_and_step(&mut self.model, loss, pass, self.config.clip_norm)?;
        Ok(scores)
    }

    fn forward(&mut self, inputs: &Inputs) -> Result<(Tensor, ForwardOutput)> {
        let graph = match self.training_graph.take().filter(|graph| graph.is_current(&self.model)) {
            Some(graph) => graph,
            None => TrainingGraph::new(&self.model)?,
        };
        let run = Mode::train(self.config.seed, self.position.global_step);
        let graph = self.training_graph.insert(graph);
        let pass = graph.run(&self.model, &inputs.images, run)?;
        let (loss, targets) = (self.config.loss()?, &inputs.targets);
        let loss = match self.config.focal > 0.0 {
            true => loss.focal_from_logits(&pass.logits, targets, self.config.focal)?,
            false => loss.from_logits(&pass.logits, targets, inputs.weights.as_ref())?,
        };
        Ok((loss, pass))
    }
}
