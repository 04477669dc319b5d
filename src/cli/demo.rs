//! `atrous demo`: the pipeline on pictures that it makes up.

use super::data::make_with_progress;
use super::live::LiveOptions;
use super::options::TaskOptions;
use super::predict::{PredictOptions, Task};
use super::run::{ATTACKED, Pipeline};
use super::train::refuse_to_overwrite;
use atrous::Result;
use atrous::data::synthetic::Contents;
use clap::{Args, ValueHint};
use std::path::PathBuf;

#[derive(Args)]
#[command(after_long_help = "\
It makes up a data set (20 classes, several objects an image, exact masks), trains the AlexNet-like \
network to classify and DeepLabV3+ to segment, scores them on images they have not seen, beside controls, \
writes submission.csv, and attacks both networks. Two cores take 8 minutes.

Examples:
  atrous demo
  atrous demo --out small --train 200 --epochs 4 --mask-epochs 2
  atrous demo --resume")]
pub struct Demo {
    /// Folder for the images and the results
    #[arg(long, default_value = "out/demo", value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Training images, validation included
    #[arg(long, default_value_t = TRAIN, value_name = "N")]
    train: usize,
    /// Test images
    #[arg(long, default_value_t = 100, value_name = "N")]
    test: usize,
    /// Epochs of the classifier
    #[arg(long, default_value_t = EPOCHS, value_name = "N")]
    epochs: usize,
    /// Epochs of the network for masks
    #[arg(long, default_value_t = MASK_EPOCHS, value_name = "N")]
    mask_epochs: usize,
    /// The same seed gives the same bits, on any number of threads
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Go on with a demo that was stopped
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    live: LiveOptions,
}

/// Chosen so that the demo, build included, stays under 8 minutes on two cores.
const TRAIN: usize = 1000;
const EPOCHS: usize = 12;
const MASK_EPOCHS: usize = 6;
/// Side of the pictures that become masks: a quarter of the arithmetic of the 224 that is usual.
const SIDE: usize = 112;

impl Demo {
    pub fn run(self) -> Result<()> {
        self.live.log.apply();
        self.live.check()?;
        for task in ["classify", "segment"] {
            refuse_to_overwrite(&self.out.join(task), self.resume)?;
        }
        let data = self.out.join("data");
        if !(self.resume && data.join("train/train_set.csv").is_file()) {
            make_with_progress(&data, self.train, self.test, self.seed, Contents::default())?;
        }
        let training = TaskOptions {
            classify: vec![format!("epochs={}", self.epochs)],
            segment: vec![format!("epochs={}", self.mask_epochs), format!("size={SIDE}")],
            seed: Some(self.seed),
            val_fraction: Some(0.2),
            ..TaskOptions::default()
        };
        let (out, task, resume) = (&self.out, Task::Both, self.resume);
        Pipeline {
            data: &data,
            out,
            task,
            resume,
            force: false,
            attack_images: ATTACKED,
            how: PredictOptions::default(),
            training,
            live: self.live,
        }
        .run()
    }
}
