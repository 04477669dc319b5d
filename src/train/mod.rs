//! Training: the loop, its state on disk, its history.
//!
//! A [`Trainer`] owns a model, an optimizer and where it stands; [`Trainer::fit`] drives it to the
//! last epoch. Everything that decides the next bit is in what [`save`] writes, so a run
//! that was killed goes on as if nothing had been.

mod callbacks;
mod captured;
mod checkpoint;
mod config;
mod evaluate;
mod fit;
mod history;
mod presets;
mod step;

pub use callbacks::{CallbackOutcome, Callbacks, Plateau, Schedule};
pub(crate) use checkpoint::load_network;
pub use checkpoint::{Saved, load, parse, save, seal};
pub use config::{MonitorMetric, TrainConfig, Unfreeze};
pub use evaluate::{Scores, evaluate};
pub use fit::{CheckpointPolicy, Event, Monitor, TrainState, Trainer};
pub use history::{Epoch, History};
pub use presets::Preset;
