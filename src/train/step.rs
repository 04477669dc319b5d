//! One training step: forward, loss, backward, update.
//!
//! On a device the CPU asks and does not wait: [`Trainer::launch`] returns at once, the next batch is
//! sent off while the device works, and [`Trainer::finish`] fetches two numbers, the loss and the
//! accuracy. From its second time on a step of the same shapes is a captured graph: one request instead
//! of hundreds.

use super::evaluate::accuracy;
use super::fit::{ADVICE, Trainer};
use super::plan::Plan;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::graph::{Graph, Now};
use crate::backend::cuda::staging::Staging;
use crate::context::{Precision, precision};
use crate::data::VOID;
use crate::data::augment::Warp;
use crate::data::loader::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics;
use crate::losses::{sample_weights, smooth};
use crate::nn::{ForwardOutput, Mode, TrainingGraph};
use crate::ops;
use crate::optimizers::Group;
use crate::tensor::Tensor;

/// What a step reads of a batch.
#[derive(Clone)]
struct Inputs {
    images: Tensor,
    /// As the loss takes them: smoothed.
    targets: Tensor,
    /// Of the samples.
    weights: Option<Tensor>,
    /// What is still to be done to pictures and masks.
    warp: Option<Warp>,
}

impl Inputs {
    fn new(plan: &Plan, batch: &Batch) -> Result<Self> {
        let weights = match &plan.class_weights {
            Some(weights) => Some(sample_weights(weights, &batch.labels)?),
            None => None,
        };
        let targets = batch.targets(plan.network.segments())?;
        let targets = smooth(targets, plan.label_smoothing, plan.loss()?)?;
        Ok(Inputs { images: batch.images.clone(), targets, weights, warp: batch.warp.clone() })
    }

    fn all(&self) -> impl Iterator<Item = &Tensor> {
        let matrices = self.warp.iter().map(|warp| &warp.matrices);
        [&self.images, &self.targets].into_iter().chain(&self.weights).chain(matrices)
    }

    /// With nothing left to be done to pictures and masks.
    fn warped(&self) -> Result<Self> {
        let Some(warp) = &self.warp else { return Ok(self.clone()) };
        let segments = self.targets.shape().len() == 3;
        Ok(Inputs {
            images: warp.pictures(&self.images)?,
            targets: if segments { warp.masks(&self.targets)? } else { self.targets.clone() },
            weights: self.weights.clone(),
            warp: None,
        })
    }

    fn to_device(&self, device: Device) -> Result<Self> {
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
    OnDevice(Tensor),
}

/// What a trainer keeps on a device between steps. A step that fails leaves none of it: a graph reads memory of
/// [`Trainer::training_graph`], too.
pub(super) struct OnDevice {
    /// Under which steps look as they do.
    plan: Plan,
    precision: Precision,
    images: Staging,
    targets: Staging,
    weights: Option<Staging>,
    warp: Option<(Staging, Warp)>,
    /// The samples that were sent last, and not received yet.
    sent: Option<Vec<usize>>,
    captured: Option<Captured>,
}

struct Captured {
    graph: Graph,
    scores: Tensor,
    /// Where parameters and optimizer state were.
    addresses: Vec<u64>,
}

impl OnDevice {
    fn new(cuda: &'static Cuda, plan: &Plan, inputs: &Inputs) -> Result<Self> {
        Ok(OnDevice {
            plan: plan.clone(),
            precision: precision(),
            images: Staging::new(cuda, &inputs.images)?,
            targets: Staging::new(cuda, &inputs.targets)?,
            weights: inputs.weights.as_ref().map(|w| Staging::new(cuda, w)).transpose()?,
            warp: match &inputs.warp {
                Some(warp) => Some((Staging::new(cuda, &warp.matrices)?, warp.clone())),
                None => None,
            },
            sent: None,
            captured: None,
        })
    }

    fn stages(&mut self) -> impl Iterator<Item = &mut Staging> {
        let matrices = self.warp.iter_mut().map(|(stage, _)| stage);
        [&mut self.images, &mut self.targets].into_iter().chain(&mut self.weights).chain(matrices)
    }

    /// Is it for such batches?
    fn fits(&mut self, inputs: &Inputs) -> bool {
        let how = |warp: &Warp| warp.preprocess;
        self.weights.is_some() == inputs.weights.is_some()
            && self.warp.as_ref().map(|(_, warp)| how(warp)) == inputs.warp.as_ref().map(how)
            && self.stages().zip(inputs.all()).all(|(stage, values)| stage.fits(values))
    }

    fn send(&mut self, inputs: &Inputs, batch: &Batch) -> Result<()> {
        self.stages().zip(inputs.all()).try_for_each(|(stage, values)| stage.send(values))?;
        self.sent = Some(batch.indices.clone());
        Ok(())
    }

    fn receive(&mut self) -> Result<Inputs> {
        self.sent = None;
        self.stages().try_for_each(Staging::receive)?;
        Ok(self.inputs())
    }

    /// What was received last.
    fn inputs(&self) -> Inputs {
        Inputs {
            images: self.images.tensor.clone(),
            targets: self.targets.tensor.clone(),
            weights: self.weights.as_ref().map(|stage| stage.tensor.clone()),
            warp: self.warp.as_ref().map(|(stage, warp)| warp.with_matrices(stage.tensor.clone())),
        }
    }
}

impl Trainer {
    /// One step on one batch: (loss, accuracy) with the weights of before the step.
    pub fn step(&mut self, batch: &Batch) -> Result<(f64, f64)> {
        self.launch(batch)?;
        self.finish()
    }

    /// Are its steps on a device replays of a captured graph by now?
    pub fn replays(&self) -> bool {
        self.there.as_ref().is_some_and(|there| there.captured.is_some())
    }

    /// Begins a step; on a device it may not be over when this returns.
    pub(super) fn launch(&mut self, batch: &Batch) -> Result<()> {
        if self.pending.is_some() {
            return Err(Error::argument("training", "a step before the last one was finished"));
        }
        self.optimizer.factors = [self.rate_factor, self.rate_factor * self.plan.base_rate];
        let scores = match self.model.device() {
            Device::Cpu => {
                let inputs = Inputs::new(&self.plan, batch)?.warped()?;
                let (loss, pass) = self.forward(&inputs)?;
                let value = loss.item()?;
                if !value.is_finite() {
                    let run = Mode::train(self.plan.seed, self.position.global_step);
                    let first = self.model.first_not_finite(&inputs.images, run)?;
                    return Err(self.diverged(value, self.position.epoch, self.position.step, first));
                }
                let right = accuracy(&inputs.targets, &pass.output)?;
                self.optimizer.begin_step();
                self.optimizer.descend(&mut self.model, loss, pass, self.plan.clip_norm)?;
                Scores::Known(value, right)
            }
            device => Scores::OnDevice(self.launch_there(Cuda::get(device)?, batch)?),
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
            Scores::OnDevice(scores) => {
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

    /// Sends the next batch off while the device still works on this one.
    pub(super) fn send_ahead(&mut self, batch: &Batch) -> Result<()> {
        if let Some(there) = &mut self.there {
            let inputs = Inputs::new(&self.plan, batch)?;
            if there.fits(&inputs) {
                there.send(&inputs, batch)?;
            }
        }
        Ok(())
    }

    fn launch_there(&mut self, cuda: &'static Cuda, batch: &Batch) -> Result<Tensor> {
        self.optimizer.begin_step();
        let still = |there: &OnDevice| there.plan == self.plan && there.precision == precision();
        let Some(mut there) = self.there.take().filter(still) else {
            // The first step of its kind is asked for one by one: kernels are compiled, state is made.
            let inputs = Inputs::new(&self.plan, batch)?;
            let there = OnDevice::new(cuda, &self.plan, &inputs)?;
            let scores = self.ask(&there.inputs())?;
            self.there = Some(there);
            return Ok(scores);
        };
        if there.sent.as_ref() != Some(&batch.indices) {
            let inputs = Inputs::new(&self.plan, batch)?;
            if !there.fits(&inputs) {
                // An epoch's last batch is smaller.
                let scores = self.ask(&inputs.to_device(cuda.device)?)?;
                self.there = Some(there);
                return Ok(scores);
            }
            there.send(&inputs, batch)?;
        }
        let inputs = there.receive()?;
        if self.eager || !cuda.can_capture() {
            let scores = self.ask(&inputs)?;
            self.there = Some(there);
            return Ok(scores);
        }
        // Somebody may hold what the graph changes, or have put something else in its place.
        let addresses = self.own_memory(cuda.device)?;
        if there.captured.as_ref().is_some_and(|captured| captured.addresses != addresses) {
            there.captured = None;
        }
        let captured = match there.captured.take() {
            Some(captured) => captured,
            None => {
                let (scores, graph) = Graph::capture(cuda.device, || self.ask(&inputs))?;
                if self.own_memory(cuda.device)? != addresses {
                    return Err(Error::Device("a captured step moved its parameters".into()));
                }
                Captured { graph, scores, addresses }
            }
        };
        let rates = [Group::Head, Group::Base].map(|group| self.optimizer.rate(group));
        captured.graph.replay(Now { step: self.position.global_step, rates })?;
        // The graph writes its scores to one place, again and again.
        let scores = captured.scores.clone();
        there.captured = Some(captured);
        self.there = Some(there);
        Ok(scores)
    }

    /// Makes parameters and optimizer state this trainer's alone; gives their addresses.
    fn own_memory(&mut self, device: Device) -> Result<Vec<u64>> {
        let parameters = self.model.parameters.iter_mut().map(|p| &mut p.value);
        let own = |tensor: &mut Tensor| {
            if tensor.device() != device {
                let message =
                    format!("a parameter is on `{}`, the network on `{device}`", tensor.device());
                return Err(Error::Device(message));
            }
            tensor.make_unique()?;
            Ok(tensor.memory().address())
        };
        parameters.chain(self.optimizer.slots_mut()).map(own).collect()
    }

    /// A whole step on a device, of which nothing comes back: its loss and accuracy, [2], are there.
    fn ask(&mut self, inputs: &Inputs) -> Result<Tensor> {
        let inputs = &inputs.warped()?;
        let (loss, pass) = self.forward(inputs)?;
        let output = pass.output.detach();
        let right = metrics::accuracy(&inputs.targets, &output, VOID as f32)?;
        let scores = ops::concat(&[&ops::reshape(&loss.detach(), [1])?, &right], 0)?;
        drop(output);
        self.optimizer.descend(&mut self.model, loss, pass, self.plan.clip_norm)?;
        Ok(scores)
    }

    fn forward(&mut self, inputs: &Inputs) -> Result<(Tensor, ForwardOutput)> {
        let graph = match self.training_graph.take() {
            Some(graph) => graph,
            None => TrainingGraph::new(&self.model)?,
        };
        let run = Mode::train(self.plan.seed, self.position.global_step);
        let graph = self.training_graph.insert(graph);
        let pass = graph.run(&self.model, &inputs.images, run)?;
        let (loss, targets) = (self.plan.loss()?, &inputs.targets);
        let loss = match self.plan.focal > 0.0 {
            true => loss.focal_from_logits(&pass.logits, targets, self.plan.focal)?,
            false => loss.from_logits(&pass.logits, targets, inputs.weights.as_ref())?,
        };
        Ok((loss, pass))
    }
}
