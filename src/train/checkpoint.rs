//! A run on disk: one `.safetensors` file, readable by any tool that knows the format.
//!
//! - `model/<path>`: parameters and moving statistics, f32;
//! - `optimizer/<slot>/<path>`: the optimizer's state;
//! - metadata `atrous`: one JSON text with the rest (one key, because several come out of a map in
//!   random order, and the same run has to give the same bytes).

use super::callbacks::Callbacks;
use super::fit::{Position, Trainer};
use super::history::History;
use super::plan::Plan;
use crate::error::{Error, Result};
use crate::files::explain;
use crate::graph::Model;
use crate::optimizers::Optimizer;
use crate::tensor::Tensor;
use crate::weights::safetensors;
use ::safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;

const KEY: &str = "atrous";
const VERSION: u32 = 2;

/// What the metadata says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    pub plan: Plan,
    pub position: Position,
    pub callbacks: Callbacks,
    pub history: History,
    optimizer_step: u64,
    learning_rate: f32,
}

impl Saved {
    /// An error where a number can only come from damage. What passes makes no memory be asked for:
    /// tensors are as large as the file shows them to be.
    fn check(&self) -> Result<(), String> {
        let Saved { plan, position, .. } = self;
        plan.network.check().map_err(|error| error.to_string())?;
        let steps = plan.train_indices.len().div_ceil(plan.batch_size);
        let all = plan.epochs as u64 * steps as u64;
        if position.epoch > plan.epochs || position.step > steps || position.global_step > all {
            return Err(format!("{position:?} is beyond {} epochs of {steps} steps", plan.epochs));
        }
        if self.optimizer_step != position.global_step {
            let (optimizer, run) = (self.optimizer_step, position.global_step);
            return Err(format!("the optimizer took {optimizer} steps, the run {run}"));
        }
        Ok(())
    }
}

/// Writes the trainer's state: to a temporary file, synced, renamed over the old one.
pub fn save(path: &Path, trainer: &Trainer) -> Result<()> {
    let model = &trainer.model;
    let saved = Saved {
        version: VERSION,
        plan: trainer.plan.clone(),
        position: trainer.position,
        callbacks: trainer.callbacks,
        history: trainer.history.clone(),
        optimizer_step: trainer.optimizer.step(),
        learning_rate: trainer.optimizer.learning_rate,
    };
    let parameters = model.parameters.iter().map(|p| (format!("model/{}", p.path), p.value.clone()));
    let slots = trainer.optimizer.slots().map(|(index, slot, tensor)| {
        (format!("optimizer/{slot}/{}", model.parameters[index].path), tensor.clone())
    });
    let arrays: Vec<(String, Tensor)> = parameters.chain(slots).collect();
    let text = serde_json::to_string(&saved)
        .map_err(|error| Error::file(path, format!("cannot be written: {error}")))?;
    safetensors::write(path, &arrays, KEY, text)
}

/// Reads what [`save`] wrote: a trainer that goes on from there.
pub fn load(path: &Path) -> Result<(Trainer, Saved)> {
    let bytes = std::fs::read(path).map_err(|error| Error::file(path, explain(&error)))?;
    parse(&bytes).map_err(|message| Error::file(path, format!("not a usable checkpoint: {message}")))
}

/// [`load`] from memory; the error is without the path.
pub fn parse(bytes: &[u8]) -> Result<(Trainer, Saved), String> {
    let text = safetensors::text(bytes, KEY)?;
    let text = text.ok_or_else(|| format!("it has no `{KEY}` metadata, so atrous did not write it"))?;
    let saved: Saved = serde_json::from_str(&text).map_err(|error| format!("metadata: {error}"))?;
    if saved.version != VERSION {
        return Err(format!("it has version {}, this program reads {VERSION}", saved.version));
    }
    saved.plan.check().map_err(|error| error.to_string())?;
    saved.check()?;
    let graph = saved.plan.graph().map_err(|error| error.to_string())?;
    let arrays = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut problems = Vec::new();
    let mut read = |name: &str, shape: &[usize]| -> Tensor {
        match safetensors::f32_tensor(&arrays, name, shape) {
            Ok(tensor) => tensor,
            Err(problem) => {
                problems.push(problem);
                Tensor::zeros([0])
            }
        }
    };
    let model = Model::with(graph, |path, shape, _| read(&format!("model/{path}"), &shape));
    let mut optimizer =
        Optimizer::new(saved.plan.rule(), saved.learning_rate).map_err(|error| error.to_string())?;
    let mut slots = Vec::new();
    for (index, parameter) in model.parameters.iter().enumerate() {
        // What has been frozen so far has no state yet: that is made at its first update.
        let named = |slot: &&str| format!("optimizer/{slot}/{}", parameter.path);
        let names = optimizer.rule().slot_names();
        let known = names.iter().any(|slot| arrays.tensor(&named(slot)).is_ok());
        let needed = saved.optimizer_step > 0 && parameter.trainable && saved.plan.unfreeze.is_empty();
        let frozen = saved.plan.freeze_batch_norm && !known;
        for slot in names.iter().filter(|_| known || (needed && !frozen)) {
            slots.push((index, slot.to_string(), read(&named(slot), &parameter.value.shape())));
        }
    }
    if let [first, rest @ ..] = &problems[..] {
        return Err(match rest.len() {
            0 => first.clone(),
            more => format!("{first} (and {more} more)"),
        });
    }
    optimizer.load(saved.optimizer_step, slots).map_err(|error| error.to_string())?;
    let mut trainer = Trainer::at(model, optimizer, saved.plan.clone(), saved.position);
    (trainer.callbacks, trainer.history) = (saved.callbacks, saved.history.clone());
    Ok((trainer, saved))
}
