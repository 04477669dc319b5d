//! `atrous predict`

use super::progress::bar;
use super::train::{saved_classes, scoring_loader};
use atrous::data::source::Source;
use atrous::data::{CLASSES, Dataset};
use atrous::files::write_atomically;
use atrous::predict::Segmenter;
use atrous::submission::{self, Entry, labels_from_probabilities};
use atrous::train::Trainer;
use atrous::{Error, Result, predict, train};
use clap::Args;
use indicatif::ProgressBar;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
#[command(after_help = "\
Example:
  atrous predict --data voc --checkpoint result/checkpoint.safetensors --out submission.csv

Beside the submission it writes probabilities.csv: one row a picture, one column a class.")]
pub struct Predict {
    /// Folder with test/test_set.csv and test/img/, or in VOCdevkit's layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// What `train` left
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "submission.csv")]
    out: PathBuf,
    /// A class is predicted where its probability is above this; the likeliest one always is
    #[arg(long, default_value_t = THRESHOLD, value_name = "P")]
    threshold: f32,
}

/// The pipeline's: .15.
pub const THRESHOLD: f32 = 0.15;

impl Predict {
    pub fn run(self) -> Result<()> {
        check_threshold(self.threshold)?;
        let (trainer, saved) = train::load(&self.checkpoint)?;
        saved_classes(&self.checkpoint, saved.plan.network.classes)?;
        let source = Source::open(&self.data)?;
        let dataset = source.test(source.natural_task())?;
        write_submission(&trainer, &dataset, self.threshold, &self.out)
    }
}

/// An error where the threshold is no probability.
pub fn check_threshold(threshold: f32) -> Result<()> {
    match (0.0..=1.0).contains(&threshold) {
        true => Ok(()),
        false => Err(Error::argument("--threshold", format!("expected 0 to 1, got {threshold}"))),
    }
}

/// Predicts every picture and writes the submission, and `probabilities.csv` beside it.
pub fn write_submission(
    trainer: &Trainer,
    dataset: &Arc<dyn Dataset>,
    threshold: f32,
    out: &Path,
) -> Result<()> {
    let network = &trainer.plan.network;
    let bar = bar(dataset.len(), "predicting");
    if network.segments() {
        let entries = masks(trainer, dataset, &bar)?;
        bar.finish_and_clear();
        submission::write(out, entries.into_iter().map(Ok))?;
        println!("submission: {} ({} pictures)", out.display(), dataset.len());
        return Ok(());
    }
    let loader = scoring_loader(dataset, &trainer.plan, (0..dataset.len()).collect());
    let probabilities =
        predict::probabilities(&trainer.model, &loader, &mut |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let rows: Vec<&[f32]> = probabilities.chunks(CLASSES.len()).collect();
    let table = out.with_file_name("probabilities.csv");
    write_atomically(&table, |file| {
        writeln!(file, "Id,{}", CLASSES.join(","))?;
        for (i, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().map(f32::to_string).collect();
            writeln!(file, "{},{}", dataset.id(i), cells.join(","))?;
        }
        Ok(())
    })?;
    let entry = |(i, row): (usize, &&[f32])| {
        Ok(Entry::new(dataset.id(i), &labels_from_probabilities(row, threshold), None))
    };
    submission::write(out, rows.iter().enumerate().map(entry))?;
    println!("submission: {} ({} pictures)", out.display(), rows.len());
    Ok(())
}

/// The masks of all pictures, and the classes seen in them.
fn masks(trainer: &Trainer, dataset: &Arc<dyn Dataset>, bar: &ProgressBar) -> Result<Vec<Entry>> {
    let mut segmenter = Segmenter::new(trainer)?;
    let mut entries = Vec::with_capacity(dataset.len());
    for i in 0..dataset.len() {
        let mask = segmenter.mask(&dataset.picture(i)?)?;
        entries.push(Entry::new(
            dataset.id(i),
            &mask.labels().map(|set| set as u8),
            Some(&mask.classes),
        ));
        bar.set_position(i as u64 + 1);
    }
    Ok(entries)
}
