//! Training steps on a device, from batches that are sent ahead: from its second time on, a step of the same
//! shapes is a captured graph, one request instead of hundreds.

use super::config::TrainConfig;
use super::fit::Trainer;
use super::step::Inputs;
use crate::backend::cuda::Cuda;
use crate::backend::cuda::graph::{Graph, ReplayParams};
use crate::backend::cuda::staging::Staging;
use crate::context::{Precision, precision};
use crate::data::augment::Warp;
use crate::data::loader::Batch;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::optimizers::Group;
use crate::tensor::Tensor;

/// What a trainer keeps on a device between steps. A step that fails leaves none of it: a graph reads memory
/// of [`Trainer::training_graph`], too.
pub(super) struct DeviceState {
    /// Under which steps look as they do.
    config: TrainConfig,
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

impl DeviceState {
    fn new(cuda: &'static Cuda, config: &TrainConfig, inputs: &Inputs) -> Result<Self> {
        Ok(DeviceState {
            config: config.clone(),
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
    /// Are its steps on a device replays of a captured graph by now?
    pub fn replays(&self) -> bool {
        self.device_state.as_ref().is_some_and(|device_state| device_state.captured.is_some())
    }

    /// Sends the next batch off while the device still works on this one.
    pub(super) fn send_ahead(&mut self, batch: &Batch) -> Result<()> {
        if let Some(device_state) = &mut self.device_state {
            let inputs = Inputs::new(&self.config, batch)?;
            if device_state.fits(&inputs) {
                device_state.send(&inputs, batch)?;
            }
        }
        Ok(())
    }

    /// Begins a step on a device; its loss and accuracy, [2], will be there.
    pub(super) fn launch_on_device(&mut self, cuda: &'static Cuda, batch: &Batch) -> Result<Tensor> {
        self.optimizer.begin_step();
        let still = |device_state: &DeviceState| {
            device_state.config == self.config && device_state.precision == precision()
        };
        let Some(mut device_state) = self.device_state.take().filter(still) else {
            // The first step of its kind is asked for one by one: kernels are compiled, state is made.
            let inputs = Inputs::new(&self.config, batch)?;
            let device_state = DeviceState::new(cuda, &self.config, &inputs)?;
            let scores = self.run_eager(&device_state.inputs())?;
            self.device_state = Some(device_state);
            return Ok(scores);
        };
        if device_state.sent.as_ref() != Some(&batch.indices) {
            let inputs = Inputs::new(&self.config, batch)?;
            if !device_state.fits(&inputs) {
                // An epoch's last batch is smaller.
                let scores = self.run_eager(&inputs.to_device(cuda.device)?)?;
                self.device_state = Some(device_state);
                return Ok(scores);
            }
            device_state.send(&inputs, batch)?;
        }
        let inputs = device_state.receive()?;
        if self.eager || !cuda.can_capture() {
            let scores = self.run_eager(&inputs)?;
            self.device_state = Some(device_state);
            return Ok(scores);
        }
        // Somebody may hold what the graph changes, or have put something else in its place.
        let addresses = self.own_memory(cuda.device)?;
        let current = self.training_graph.as_ref().is_some_and(|graph| graph.is_current(&self.model));
        if device_state.captured.as_ref().is_some_and(|captured| captured.addresses != addresses)
            || !current
        {
            device_state.captured = None;
        }
        let captured = match device_state.captured.take() {
            Some(captured) => captured,
            None => {
                let (scores, graph) = Graph::capture(cuda.device, || self.run_eager(&inputs))?;
                if self.own_memory(cuda.device)? != addresses {
                    return Err(Error::Device("a captured step moved its parameters".into()));
                }
                Captured { graph, scores, addresses }
            }
        };
        let rates = [Group::Head, Group::Base].map(|group| self.optimizer.rate(group));
        captured.graph.replay(ReplayParams { step: self.position.global_step, rates })?;
        // The graph writes its scores to one place, again and again.
        let scores = captured.scores.clone();
        device_state.captured = Some(captured);
        self.device_state = Some(device_state);
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
}
