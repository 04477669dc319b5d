//! `atrous run`: the whole pipeline in one folder.

use super::data::check_or_fail;
use super::options::{Configured, TrainOptions};
use super::predict::{THRESHOLD, check_threshold, write_submission};
use super::train::{Job, open, scoring_loader};
use atrous::Result;
use atrous::controls::Controls;
use atrous::data::Dataset;
use atrous::data::source::Source;
use atrous::files::write_atomically;
use atrous::train::{Trainer, evaluate};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
#[command(after_help = "\
Example:
  atrous run --data voc --out result

It leaves in the output folder: checkpoint.safetensors, best.safetensors, history.csv,
history.json, scores.txt, probabilities.csv, submission.csv.")]
pub struct Run {
    /// Folder in the competition's layout (train/ and test/) or in VOCdevkit's
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for the results
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on with the run in the output folder
    #[arg(long)]
    resume: bool,
    /// A class is predicted where its probability is above this; the likeliest one always is
    #[arg(long, default_value_t = THRESHOLD, value_name = "P")]
    threshold: f32,
    #[command(flatten)]
    training: Configured,
}

impl Run {
    pub fn run(self) -> Result<()> {
        check_threshold(self.threshold)?;
        check_or_fail(&self.data)?;
        pipeline(&self.data, self.out, self.resume, self.threshold, self.training.read()?)
    }
}

/// Train, score, predict, submit.
pub fn pipeline(
    data: &Path,
    out: PathBuf,
    resume: bool,
    threshold: f32,
    options: TrainOptions,
) -> Result<()> {
    let source = Source::open(data)?;
    let training = open(data, false)?;
    let test = source.test(source.natural_task())?;
    let dataset = training.dataset.clone();
    let job = Job { data: training, out: out.clone(), resume, options, segments: false };
    let trainer = job.run()?;
    if !trainer.plan.val_indices.is_empty() {
        score(&trainer, &dataset, &out)?;
    }
    write_submission(&trainer, &test, threshold, &out.join("submission.csv"))
}

fn score(trainer: &Trainer, dataset: &Arc<dyn Dataset>, out: &Path) -> Result<()> {
    let plan = &trainer.plan;
    let loader = scoring_loader(dataset, plan, plan.val_indices.clone());
    let scores = evaluate(&trainer.model, plan.loss()?, &loader)?;
    let controls = Controls::measure(
        &**dataset,
        &plan.train_indices,
        &plan.val_indices,
        &scores.probabilities,
        plan.seed,
    )?;
    println!("{controls}");
    write_atomically(out.join("scores.txt"), |file| writeln!(file, "{controls}"))
}
