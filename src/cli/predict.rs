//! `atrous predict`

use super::classify::saved_classes;
use super::progress::bar;
use atrous::data::loader::{Loader, Recipe};
use atrous::data::voc_npy::{Split, VocNpy};
use atrous::data::{CLASSES, Dataset};
use atrous::files::write_atomically;
use atrous::graph::Model;
use atrous::submission::{self, Entry, labels_from_probabilities};
use atrous::{Error, Result, predict, train};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
#[command(after_help = "\
Example:
  atrous predict --data voc --checkpoint result/checkpoint.safetensors --out submission.csv

Beside the submission it writes probabilities.csv: one row a picture, one column a class.")]
pub struct Predict {
    /// Folder with test/test_set.csv and test/img/
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
        saved_classes(&self.checkpoint, saved.classes)?;
        let dataset: Arc<dyn Dataset> = Arc::new(VocNpy::open(&self.data, Split::Test)?);
        write_submission(&trainer.model, &dataset, self.threshold, &self.out)
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
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    threshold: f32,
    out: &Path,
) -> Result<()> {
    let size = model.graph.nodes()[0].output_shape[0];
    let loader = Loader { workers: 2, ..Loader::new(dataset.clone(), Recipe::plain(size), 16) };
    let bar = bar(dataset.len(), "predicting");
    let probabilities =
        predict::probabilities(model, &loader, &mut |done| bar.set_position(done as u64))?;
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
