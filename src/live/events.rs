//! What happens in a run, as lines of JSON: an object a line, each with a `time` and the name of an
//! `event`. `docs/events.md` has a table of them for those who read them elsewhere.

use crate::device::Device;
use crate::pool;
use crate::train::Epoch;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// One line.
///
/// ```
/// use atrous::live::{LogEvent, LogRecord};
///
/// let text = "müde 🐈".to_string();
/// let record = LogRecord { time: 1.5, event: LogEvent::Message { text } };
/// let line = record.line();
/// assert_eq!(line, r#"{"time":1.5,"event":"message","text":"m\u00fcde \ud83d\udc08"}"#);
/// assert_eq!(LogRecord::parse(&line), Some(record));
/// assert!(LogRecord::now(LogEvent::Done { seconds: 2.0 }).time > 1.7e9);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Seconds since 1970-01-01 00:00 UTC, to a millisecond.
    pub time: f64,
    /// What happened.
    #[serde(flatten)]
    pub event: LogEvent,
}

/// What happened, by its name under `event`.
///
/// ```
/// use atrous::live::{LogEvent, LogRecord};
///
/// let line = r#"{"time": 7, "event": "early_stop", "epoch": 9, "best_epoch": 4}"#;
/// let event = LogRecord::parse(line).unwrap().event;
/// assert_eq!(event, LogEvent::EarlyStop { epoch: 9, best_epoch: 4 });
/// let later = LogRecord::parse(r#"{"time": 7, "event": "of a later version"}"#).unwrap().event;
/// assert_eq!(later, LogEvent::Unknown);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LogEvent {
    /// Training begins, or goes on.
    Start(Box<Start>),
    /// A step of training was done; at most one a second, and the last one of each epoch.
    Step(Step),
    /// An epoch was completed, scored and saved.
    Epoch(EpochEnd),
    /// The state was written.
    Checkpoint {
        /// The file, as it was asked for.
        path: String,
        /// Epochs completed.
        epoch: usize,
        /// Steps taken in the epoch after those.
        step: usize,
        /// Whether it is the best epoch's, not the one to resume from.
        best: bool,
    },
    /// Predictions on validation images were drawn.
    Panel(Panel),
    /// The validation has not become better for as long as the run's patience.
    EarlyStop {
        /// The last epoch, counted from 1.
        epoch: usize,
        /// The best one, counted from 1.
        best_epoch: usize,
    },
    /// So much of a task is done; at most one a second, and its end.
    Progress {
        /// What is being done.
        task: String,
        /// How much of it is done.
        done: u64,
        /// How much there is to do.
        of: u64,
    },
    /// What would have been printed as text.
    Message {
        /// Without its line end.
        text: String,
    },
    /// All went well: the last event.
    Done {
        /// Seconds it took.
        seconds: f64,
    },
    /// The user asked to stop: the last event.
    Interrupted {
        /// What is kept of the work, and how to go on.
        message: String,
    },
    /// The work failed: the last event.
    Error {
        /// What was expected, and what came.
        message: String,
    },
    /// An event that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a run is.
///
/// [`RunState`](super::RunState) has an example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// This program's version.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// `classify` or `segment`.
    pub task: String,
    /// Where it is computed, and how: `cpu (Avx2)`.
    pub device: String,
    /// The folder with the images.
    pub data: String,
    /// Images to train on.
    pub training_images: usize,
    /// Images to validate on.
    pub validation_images: usize,
    /// Numbers that the network has.
    pub parameters: usize,
    /// Those of them that are trained.
    pub trainable: usize,
    /// Epochs of the plan.
    pub epochs: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Images of a step.
    pub batch_size: usize,
    /// Decides initial weights, order, augmentation and dropout.
    pub seed: u64,
    /// Where a resumed run goes on; null for a new one.
    pub resumed: Option<Position>,
    /// All settings, as `checkpoint.safetensors` has them, without the lists of samples.
    pub settings: serde_json::Value,
}

/// A place in a run.
///
/// [`RunState`](super::RunState) has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs completed.
    pub epoch: usize,
    /// Steps taken in the epoch after those.
    pub step: usize,
}

/// A step of training.
///
/// [`RunState`](super::RunState) has an example.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The epoch it is of, counted from 1.
    pub epoch: usize,
    /// Its number in the epoch, counted from 1.
    pub step: usize,
    /// Its number in the run, counted from 1.
    pub global_step: u64,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Mean accuracy of the epoch so far, 0 to 1.
    pub accuracy: f64,
    /// The rate of this step.
    pub learning_rate: f32,
    /// Images a second since the last event of a step (or the epoch's beginning).
    pub images_per_second: f64,
    /// What the process holds now.
    pub memory: Memory,
}

/// An epoch's row of `history.csv`, and how long it took.
///
/// [`RunState`](super::RunState) has an example.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochEnd {
    /// Seconds it took here, validation and saving included.
    pub seconds: f64,
    /// Loss, scores and rate.
    #[serde(flatten)]
    pub metrics: Epoch,
}

/// A drawing of what the network says of validation images after an epoch.
///
/// ```
/// use atrous::live::{LogEvent, LogRecord};
///
/// let line = r#"{"time": 7, "event": "panel", "epoch": 2, "image": "panels/2.png", "captions": ["cat"]}"#;
/// let Some(LogEvent::Panel(panel)) = LogRecord::parse(line).map(|record| record.event) else { panic!() };
/// assert_eq!((panel.epoch, panel.captions.len()), (2, 1)); // one tile
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// Epochs completed.
    pub epoch: usize,
    /// A PNG in the run's folder: tiles of one size, side by side.
    pub image: String,
    /// What each tile is, from left to right.
    pub captions: Vec<String>,
}

/// Memory in bytes, where the system tells it.
///
/// ```
/// use atrous::live::events::Memory;
/// use atrous::{Device, Tensor};
///
/// let x = Tensor::zeros([1 << 18]); // 1 MiB
/// let memory = Memory::now(Device::Cpu);
/// assert!(memory.pool >= 1 << 20 && memory.device.is_none());
/// # drop(x);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Of the process, in main memory (its resident set).
    pub resident: Option<u64>,
    /// Lent out to tensors.
    pub pool: u64,
    /// Given back by tensors and kept for the next ones.
    pub pool_free: u64,
    /// Of the device, all programs together.
    pub device: Option<u64>,
    /// All that the device has.
    pub device_total: Option<u64>,
}

impl LogRecord {
    /// The event, now.
    pub fn now(event: LogEvent) -> Self {
        LogRecord { time: now(), event }
    }

    /// One line of JSON in ASCII, without its end: what is not ASCII is escaped, so that no terminal acts on
    /// what a file is called.
    pub fn line(&self) -> String {
        // (A record holds nothing that JSON cannot say: its keys are names, and infinities become null.)
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut line = String::with_capacity(json.len());
        for c in json.chars() {
            match c {
                '\0'..='~' => line.push(c),
                _ => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| line += &format!("\\u{unit:04x}"))
                }
            }
        }
        line
    }

    /// None for what is no such line.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// Seconds since 1970, to a millisecond.
///
/// ```
/// let now = atrous::live::events::now();
/// assert!(now > 1.7e9 && (now * 1e3 - (now * 1e3).round()).abs() < 1e-3); // after 2023
/// ```
pub fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1e3
}

impl Memory {
    /// What this process holds, and the device's memory where it is one that tells.
    pub fn now(device: Device) -> Self {
        let (usage, device) = (pool::usage(), crate::backend::cuda::memory(device));
        Memory {
            resident: resident(),
            pool: usage.in_use as u64,
            pool_free: usage.held as u64,
            device: device.map(|[used, _]| used as u64),
            device_total: device.map(|[_, total]| total as u64),
        }
    }
}

/// Linux tells it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_ascii_and_comes_back_as_it_was() {
        let text = "猫 \u{9b}2J \u{202e} 🐈 \"quoted\"\n".to_string();
        let record = LogRecord { time: 1.5, event: LogEvent::Message { text } };
        let line = record.line();
        assert!(line.is_ascii() && !line.contains('\n') && !line.contains('\u{7f}'), "{line}");
        assert!(line.starts_with(r#"{"time":1.5,"event":"message","text":"\u732b \u009b2J"#), "{line}");
        assert_eq!(LogRecord::parse(&line), Some(record));
    }

    #[test]
    fn events_of_later_versions_are_unknown_and_half_lines_are_none() {
        let later = LogRecord::parse(r#"{"time":1,"event":"telepathy","strength":3}"#).unwrap();
        assert_eq!(later.event, LogEvent::Unknown);
        assert_eq!(LogRecord::parse(r#"{"time":1,"event":"step","ep"#), None);
        assert_eq!(LogRecord::parse(r#"{"time":1,"event":"step"}"#), None, "a step without its numbers");
    }

    #[test]
    fn this_process_holds_memory() {
        let tensor = crate::Tensor::zeros([1 << 20]);
        let memory = Memory::now(Device::Cpu);
        assert!(
            memory.pool >= 4 << 20 && memory.device.is_none(),
            "{memory:?} {}",
            tensor.shape().len()
        );
        assert!(!cfg!(target_os = "linux") || memory.resident.unwrap() > memory.pool / 2, "{memory:?}");
    }
}
