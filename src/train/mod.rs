//! Training: the loop, its state on disk, its history.
//!
//! A [`Trainer`] owns a model, an optimizer and where it stands; [`Trainer::fit`] drives it to the
//! last epoch. Everything that decides the next bit is in what [`save`] writes, so a run
//! that was killed goes on as if nothing had been.

mod checkpoint;
mod fit;
mod history;

pub use checkpoint::{Saved, load, parse, save};
pub use fit::{Event, Monitor, Pace, Plan, Position, Scores, Trainer, evaluate};
pub use history::{Epoch, History};
