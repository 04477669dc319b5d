//! `atrous watch`

use super::progress::{asked_to_stop, interruptible};
use atrous::live::events::now;
use atrous::live::{Follower, terminal};
use atrous::{Error, Result};
use clap::{Args, ValueHint};
use std::path::PathBuf;

#[derive(Args)]
#[command(after_long_help = "\
It follows events.jsonl, which every run leaves in its folder: curves, how far it is, images a second, \
time left, memory. q leaves, and the run goes on. Predictions are shown where the run draws some after \
each epoch: with --tui or --tensorboard. Of a run that is over it shows the end.

Examples:
  atrous watch result
  atrous watch result --once")]
pub struct Watch {
    /// Folder that `train` or `run` writes to, or has left
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Print one frame as plain text, and leave
    #[arg(long)]
    once: bool,
}

impl Watch {
    pub fn run(self) -> Result<()> {
        let mut follower = Follower::open(&self.dir)?;
        if self.once {
            let (width, height) = terminal::size();
            print!("{}", follower.view.plain(width, height, now()));
            return Ok(());
        }
        if !terminal::is_terminal() {
            let message = "expected a terminal on standard output, got none; --once prints one frame";
            return Err(Error::argument("watch", message));
        }
        interruptible(|| terminal::watch(&mut follower, || asked_to_stop().is_break()))
    }
}
