//! A run on disk: one `.safetensors` file, readable by any tool that knows the format.
//!
//! - `model/<path>`: parameters and moving statistics, f32;
//! - `optimizer/<slot>/<path>`: the optimizer's state;
//! - metadata `atrous`: one JSON text with the rest (one key, because several come out of a map in
//!   random order, and the same run has to give the same bytes).
//!
//! The JSON begins with a checksum over the whole file, so that a bit that flipped on a disk is no weight.

use super::callbacks::Callbacks;
use super::config::TrainConfig;
use super::fit::{TrainState, Trainer};
use super::history::History;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::nn::Model;
use crate::optimizers::Optimizer;
use crate::tensor::Tensor;
use crate::weights::{regular, safetensors};
use ::safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::path::Path;

const KEY: &str = "atrous";
const VERSION: u32 = 3;

/// What a checkpoint's metadata says: all of a run but its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Checksum of the file: see [`seal`].
    #[serde(default)]
    checksum: String,
    version: u32,
    /// What the run was started with.
    #[serde(rename = "plan")]
    pub config: TrainConfig,
    /// Where it goes on.
    pub position: TrainState,
    /// Best values and how long ago they were.
    pub callbacks: Callbacks,
    /// The epochs completed.
    pub history: History,
    optimizer_step: u64,
    learning_rate: f32,
}

impl Saved {
    /// Checksum of the file it was read from: tells one checkpoint from another.
    pub(crate) fn checksum(&self) -> &str {
        &self.checksum
    }

    /// An error where a number can only come from damage. What passes makes no memory be asked for:
    /// tensors are as large as the file shows them to be.
    fn check(&self) -> Result<(), String> {
        let Saved { config, position, .. } = self;
        config.network.check().map_err(|error| error.to_string())?;
        config.check_samples()?;
        let steps = config.train_indices.len().div_ceil(config.batch_size);
        let all = config.epochs as u64 * steps as u64;
        if position.epoch > config.epochs || position.step > steps || position.global_step > all {
            let TrainState { epoch, step, global_step, .. } = position;
            let at = format!("epoch {epoch}, step {step}, {global_step} steps in all");
            return Err(format!("{at}: beyond {} epochs of {steps} steps", config.epochs));
        }
        if self.optimizer_step != position.global_step {
            let (optimizer, run) = (self.optimizer_step, position.global_step);
            return Err(format!("the optimizer took {optimizer} steps, the run {run}"));
        }
        Ok(())
    }
}

/// Writes the trainer's state: to a temporary file, synced, renamed over the old one.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::nn::Model;
/// use atrous::train::{TrainConfig, Trainer, load, save};
///
/// let spec = Spec::new("alexnet", 108, 2); // the smallest there is
/// let model = Model::new(spec.graph()?, 1);
/// let config = TrainConfig { train_indices: vec![0, 1], ..TrainConfig::new(spec) };
/// let trainer = Trainer::new(model, config)?;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("run.safetensors");
/// save(&path, &trainer)?;
/// let (again, saved) = load(&path)?;
/// assert_eq!((saved.config, saved.position), (trainer.config, trainer.position));
/// let kernel = |model: &Model| model.parameters[0].value.to_vec_f64();
/// assert_eq!(kernel(&again.model), kernel(&trainer.model));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save(path: &Path, trainer: &Trainer) -> Result<()> {
    let model = &trainer.model;
    let saved = Saved {
        checksum: NO_CHECKSUM.into(),
        version: VERSION,
        config: trainer.config.clone(),
        position: trainer.position,
        callbacks: trainer.callbacks,
        history: trainer.history.clone(),
        optimizer_step: trainer.optimizer.steps(),
        learning_rate: trainer.optimizer.learning_rate,
    };
    let parameters = model.parameters.iter().map(|p| (format!("model/{}", p.path), p.value.clone()));
    let slots = trainer.optimizer.slots().map(|(index, slot, tensor)| {
        (format!("optimizer/{slot}/{}", model.parameters[index].path), tensor.clone())
    });
    let arrays: Vec<(String, Tensor)> = parameters.chain(slots).collect();
    let text = serde_json::to_string(&saved)
        .map_err(|error| Error::file(path, format!("cannot be written: {error}")))?;
    let mut bytes = safetensors::serialize(&arrays, KEY, text)
        .map_err(|error| Error::file(path, format!("cannot be written: {error}")))?;
    seal(&mut bytes).map_err(|error| Error::file(path, error))?;
    write_atomically(path, |out| out.write_all(&bytes))
}

/// Eight digits in the checksum's place while it is computed.
const NO_CHECKSUM: &str = "00000000";

/// What stands before the checksum: a key of the JSON, as it looks within the header's JSON. No text can
/// hold it: the quotes of a text within a text have more backslashes.
const BEFORE: &[u8] = br#"\"checksum\":\""#;

/// Writes into a checkpoint the checksum of its bytes: CRC-32 of the file with zeros in the checksum's
/// own place. It finds every flipped bit, and every run of up to 32.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::nn::Model;
/// use atrous::train::{TrainConfig, Trainer, parse, save, seal};
///
/// # let spec = Spec::new("alexnet", 108, 2);
/// # let model = Model::new(spec.graph()?, 1);
/// # let config = TrainConfig { train_indices: vec![0, 1], ..TrainConfig::new(spec) };
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("run.safetensors");
/// # save(&path, &Trainer::new(model, config)?)?;
/// let mut bytes = std::fs::read(&path)?;
/// // Who changes a checkpoint on purpose seals it anew.
/// let last = bytes.len() - 1;
/// bytes[last] ^= 1;
/// assert!(parse(&bytes).is_err());
/// seal(&mut bytes)?;
/// assert!(parse(&bytes).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn seal(bytes: &mut [u8]) -> Result<(), String> {
    let at = checksum_at(bytes)?;
    bytes[at..at + NO_CHECKSUM.len()].copy_from_slice(NO_CHECKSUM.as_bytes());
    let checksum = format!("{:08x}", crc32fast::hash(bytes));
    bytes[at..at + NO_CHECKSUM.len()].copy_from_slice(checksum.as_bytes());
    Ok(())
}

/// An error where the bytes are not those that were sealed.
fn check_seal(bytes: &[u8]) -> Result<(), String> {
    let at = checksum_at(bytes)?;
    let end = at + NO_CHECKSUM.len();
    let mut hasher = crc32fast::Hasher::new();
    [&bytes[..at], NO_CHECKSUM.as_bytes(), &bytes[end..]].iter().for_each(|part| hasher.update(part));
    match format!("{:08x}", hasher.finalize()).as_bytes() == &bytes[at..end] {
        true => Ok(()),
        false => {
            Err("its checksum is wrong: the file was damaged, or changed by another program".into())
        }
    }
}

fn checksum_at(bytes: &[u8]) -> Result<usize, String> {
    let none = || "it has no checksum".to_owned();
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length)).ok_or_else(none)?;
    let header = bytes[8..].get(..usize::try_from(length).map_err(|_| none())?).ok_or_else(none)?;
    let found = header.windows(BEFORE.len()).position(|window| window == BEFORE).ok_or_else(none)?;
    let at = 8 + found + BEFORE.len();
    if at + NO_CHECKSUM.len() > bytes.len() { Err(none()) } else { Ok(at) }
}

/// Reads what [`save`] wrote: a trainer that goes on from there.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::nn::Model;
/// use atrous::train::{TrainConfig, Trainer, load, save};
///
/// # let spec = Spec::new("alexnet", 108, 2);
/// # let model = Model::new(spec.graph()?, 1);
/// # let config = TrainConfig { train_indices: vec![0, 1], ..TrainConfig::new(spec) };
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("run.safetensors");
/// # save(&path, &Trainer::new(model, config)?)?;
/// let (trainer, saved) = load(&path)?;
/// // `Trainer::fit` goes on from there.
/// assert_eq!((trainer.config.train_indices.len(), saved.position.epoch), (2, 0));
///
/// std::fs::write(&path, "something else")?;
/// assert!(load(&path).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load(path: &Path) -> Result<(Trainer, Saved)> {
    let bytes = regular::read(path)?;
    parse(&bytes).map_err(|message| unusable(path, message))
}

/// Reads the network alone, for those who predict: the optimizer's state, twice its size, stays where it is.
pub(crate) fn load_network(path: &Path) -> Result<(Model, Saved)> {
    let bytes = regular::read(path)?;
    let network = || {
        let file = File::open(&bytes)?;
        let model = file.network()?;
        Ok((model, file.saved))
    };
    network().map_err(|message| unusable(path, message))
}

fn unusable(path: &Path, message: String) -> Error {
    Error::file(path, format!("not a usable checkpoint: {message}"))
}

/// [`load`] from memory; the error is without the path.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::nn::Model;
/// use atrous::train::{TrainConfig, Trainer, parse, save};
///
/// # let spec = Spec::new("alexnet", 108, 2);
/// # let model = Model::new(spec.graph()?, 1);
/// # let config = TrainConfig { train_indices: vec![0, 1], ..TrainConfig::new(spec) };
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("run.safetensors");
/// # save(&path, &Trainer::new(model, config)?)?;
/// let mut bytes = std::fs::read(&path)?;
/// assert_eq!(parse(&bytes)?.0.config.train_indices, [0, 1]);
/// // One bit of a weight
/// let last = bytes.len() - 1;
/// bytes[last] ^= 1;
/// assert!(parse(&bytes).is_err_and(|message| message.starts_with("its checksum is wrong")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn parse(bytes: &[u8]) -> Result<(Trainer, Saved), String> {
    let file = File::open(bytes)?;
    let model = file.network()?;
    let optimizer = file.optimizer(&model)?;
    let saved = file.saved;
    let mut trainer = Trainer::at(model, optimizer, saved.config.clone(), saved.position);
    (trainer.callbacks, trainer.history) = (saved.callbacks, saved.history.clone());
    Ok((trainer, saved))
}

/// A checkpoint whose metadata is sound.
struct File<'a> {
    saved: Saved,
    arrays: SafeTensors<'a>,
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let text = safetensors::text(bytes, KEY)?;
        let text =
            text.ok_or_else(|| format!("it has no `{KEY}` metadata, so atrous did not write it"))?;
        let saved: Saved = serde_json::from_str(&text).map_err(|error| format!("metadata: {error}"))?;
        if saved.version != VERSION {
            return Err(format!("it has version {}, this program reads {VERSION}", saved.version));
        }
        check_seal(bytes)?;
        saved.config.check().map_err(|error| error.to_string())?;
        saved.check()?;
        let arrays = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        Ok(File { saved, arrays })
    }

    fn network(&self) -> Result<Model, String> {
        let graph = self.saved.config.graph().map_err(|error| error.to_string())?;
        let mut problems = Vec::new();
        let model = Model::with(graph, |path, shape, _| {
            let read = safetensors::f32_tensor(&self.arrays, &format!("model/{path}"), &shape);
            read.unwrap_or_else(|problem| {
                problems.push(problem);
                Tensor::zeros([0])
            })
        });
        first_of(problems)?;
        model.first_unusable().map_or(Ok(model), Err)
    }

    fn optimizer(&self, model: &Model) -> Result<Optimizer, String> {
        let File { saved, arrays } = self;
        let mut optimizer = Optimizer::new(saved.config.rule(), saved.learning_rate)
            .map_err(|error| error.to_string())?;
        let (mut slots, mut problems) = (Vec::new(), Vec::new());
        for (index, parameter) in model.parameters.iter().enumerate() {
            // What has been frozen so far has no state yet: that is made at its first update.
            let named = |slot: &&str| format!("optimizer/{slot}/{}", parameter.path);
            let names = optimizer.rule().slot_names();
            let known = names.iter().any(|slot| arrays.tensor(&named(slot)).is_ok());
            let needed =
                saved.optimizer_step > 0 && parameter.trainable && saved.config.unfreeze.is_empty();
            let frozen = saved.config.freeze_batch_norm && !known;
            for slot in names.iter().filter(|_| known || (needed && !frozen)) {
                match safetensors::f32_tensor(arrays, &named(slot), &parameter.value.shape()) {
                    Ok(tensor) => slots.push((index, slot.to_string(), tensor)),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        first_of(problems)?;
        optimizer.load(saved.optimizer_step, slots).map_err(|error| error.to_string())?;
        Ok(optimizer)
    }
}

/// An error where there are problems: the first, and how many more.
fn first_of(problems: Vec<String>) -> Result<(), String> {
    match &problems[..] {
        [] => Ok(()),
        [first] => Err(first.clone()),
        [first, rest @ ..] => Err(format!("{first} (and {} more)", rest.len())),
    }
}
