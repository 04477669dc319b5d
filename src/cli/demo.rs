//! `atrous demo`: the pipeline on pictures that it makes up.

use super::data::make_with_progress;
use super::options::TrainOptions;
use super::predict::THRESHOLD;
use super::run::pipeline;
use super::train::refuse_to_overwrite;
use atrous::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "\
It makes up a data set (20 classes, several objects a picture, exact masks), trains the
AlexNet-like network, scores it on pictures it has not seen beside three controls, and
writes submission.csv.")]
pub struct Demo {
    /// Folder for the pictures and the results
    #[arg(long, default_value = "out/demo", value_name = "DIR")]
    out: PathBuf,
    /// Training pictures, validation included
    #[arg(long, default_value_t = TRAIN, value_name = "N")]
    train: usize,
    /// Test pictures
    #[arg(long, default_value_t = 100, value_name = "N")]
    test: usize,
    #[arg(long, default_value_t = EPOCHS, value_name = "N")]
    epochs: usize,
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Go on with a demo that was stopped
    #[arg(long)]
    resume: bool,
}

/// Chosen so that the demo, build included, stays under 8 minutes on two cores.
const TRAIN: usize = 1000;
const EPOCHS: usize = 16;

impl Demo {
    pub fn run(self) -> Result<()> {
        refuse_to_overwrite(&self.out, self.resume)?;
        let data = self.out.join("data");
        if !(self.resume && data.join("test/test_set.csv").exists()) {
            make_with_progress(&data, self.train, self.test, self.seed)?;
        }
        let options = TrainOptions {
            epochs: Some(self.epochs),
            seed: Some(self.seed),
            val_fraction: Some(0.2),
            ..TrainOptions::default()
        };
        pipeline(&data, self.out, self.resume, THRESHOLD, options)
    }
}
