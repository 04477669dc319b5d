//! What each epoch came to, as CSV and as JSON.

use crate::error::{Error, Result};
use crate::files::write_atomically;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: usize,
    pub learning_rate: f32,
    /// Means over the epoch's samples, while training: with dropout, augmentation, and the weights
    /// of before each step.
    pub loss: f64,
    pub accuracy: f64,
    /// On the validation samples, after the epoch; absent where there are none.
    pub val_loss: Option<f64>,
    pub val_accuracy: Option<f64>,
    pub val_map: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    pub epochs: Vec<Epoch>,
}

impl History {
    /// Writes `history.csv` and `history.json` into the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_atomically(folder.join("history.csv"), |file| {
            writeln!(file, "epoch,learning_rate,loss,accuracy,val_loss,val_accuracy,val_map")?;
            let cell = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            for e in &self.epochs {
                let (rate, loss, accuracy) = (e.learning_rate, e.loss, e.accuracy);
                let (val_loss, val_accuracy) = (cell(e.val_loss), cell(e.val_accuracy));
                let map = cell(e.val_map);
                writeln!(file, "{},{rate},{loss},{accuracy},{val_loss},{val_accuracy},{map}", e.epoch)?;
            }
            Ok(())
        })?;
        let path = folder.join("history.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::file(&path, error))?;
        write_atomically(&path, |file| writeln!(file, "{text}"))
    }
}
