//! Training options: from the command line, else from `--config FILE.toml`, else the default.

use atrous::files::explain;
use atrous::{Error, Result};
use clap::Args;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Every field is optional, so that a file can fill in what the command line leaves out. In the
/// file the names are the flags', with `_` for `-`.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// The network [default: alexnet]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Side of the square the pictures are fitted into [default: the network's own, 150]
    #[arg(long, value_name = "PIXELS")]
    pub size: Option<usize>,
    /// Passes over the training pictures [default: 40]
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Pictures a step [default: 16]
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// [default: 0.001 for adam and rmsprop, 0.01 for sgd]
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f32>,
    /// adam, sgd or rmsprop [default: adam]
    #[arg(long, value_name = "NAME")]
    pub optimizer: Option<String>,
    /// For sgd and rmsprop [default: 0]
    #[arg(long, value_name = "MOMENTUM")]
    pub momentum: Option<f64>,
    /// binary_crossentropy, or categorical_crossentropy with Keras' gradient [default: binary_crossentropy]
    #[arg(long, value_name = "NAME")]
    pub loss: Option<String>,
    /// Share of the training pictures kept for validation [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    pub val_fraction: Option<f64>,
    /// Rotate, shear, zoom and flip the training pictures at random [default: true]
    #[arg(long, value_name = "BOOL")]
    pub augment: Option<bool>,
    /// Weigh rare classes up ('balanced') [default: true]
    #[arg(long, value_name = "BOOL")]
    pub class_weights: Option<bool>,
    /// The same seed gives the same bits, at any number of threads [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Save the run every so many steps, besides after every epoch [default: 50]
    #[arg(long, value_name = "N")]
    pub checkpoint_steps: Option<usize>,
    /// Threads that read and augment pictures ahead of time [default: 2]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct Configured {
    #[command(flatten)]
    pub options: TrainOptions,
    /// A TOML file with any of the options above (`batch_size = 32`)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Configured {
    /// The options of the command line, filled up from the file.
    pub fn read(&self) -> Result<TrainOptions> {
        let file = match &self.config {
            Some(path) => from_file(path)?,
            None => TrainOptions::default(),
        };
        Ok(self.options.clone().or(file))
    }
}

fn from_file(path: &Path) -> Result<TrainOptions> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, explain(&error)))?;
    toml::from_str(&text).map_err(|error| Error::file(path, error.to_string().trim_end()))
}

impl TrainOptions {
    /// Takes from `other` what is missing here.
    pub fn or(self, other: Self) -> Self {
        TrainOptions {
            model: self.model.or(other.model),
            size: self.size.or(other.size),
            epochs: self.epochs.or(other.epochs),
            batch_size: self.batch_size.or(other.batch_size),
            learning_rate: self.learning_rate.or(other.learning_rate),
            optimizer: self.optimizer.or(other.optimizer),
            momentum: self.momentum.or(other.momentum),
            loss: self.loss.or(other.loss),
            val_fraction: self.val_fraction.or(other.val_fraction),
            augment: self.augment.or(other.augment),
            class_weights: self.class_weights.or(other.class_weights),
            seed: self.seed.or(other.seed),
            checkpoint_steps: self.checkpoint_steps.or(other.checkpoint_steps),
            workers: self.workers.or(other.workers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_goes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "epochs = 3\nbatch_size = 8\noptimizer = \"sgd\"\n").unwrap();
        let options = TrainOptions { epochs: Some(5), ..Default::default() };
        let read = Configured { options, config: Some(path.clone()) }.read().unwrap();
        assert_eq!((read.epochs, read.batch_size), (Some(5), Some(8)));
        std::fs::write(&path, "epoch = 3\n").unwrap();
        let error = Configured { options: Default::default(), config: Some(path) }.read().unwrap_err();
        assert!(error.to_string().contains("epoch"), "{error}");
    }
}
