//! A run that can be watched while it goes on.
//!
//! What happens in a run is told as [`events`], which a [`Recorder`] makes of what the training loop tells
//! its monitor. All who watch are told the same events: the file `events.jsonl` beside the run
//! ([`EventLog`]), standard output with `--log-format json`, TensorBoard's files ([`tensorboard`]), and the
//! [`Dashboard`] in a terminal, which draws what a [`RunState`] has gathered of them: within the process that
//! trains (a [`Screen`]), or in another that follows the file (a [`Follower`]).
//!
//! Nobody who watches changes a bit of what is watched: none of this is known below, in `train`.

pub mod dashboard;
pub mod events;
mod follow;
mod graphics;
mod half_blocks;
mod log;
mod recorder;
mod sixel;
mod state;
pub mod tensorboard;
pub mod terminal;
mod tiles;
mod unfinished;

pub use dashboard::Dashboard;
pub use events::{LogEvent, LogRecord};
pub use follow::{Follower, locate};
pub use graphics::Graphics;
pub use half_blocks::HalfBlocks;
pub use log::{EVENTS, EventLog, EventReader};
pub use recorder::Recorder;
pub use sixel::Sixels;
pub use state::{Outcome, RunState};
pub use tensorboard::TensorBoard;
pub use terminal::Screen;
pub use unfinished::complete;
