//! What each epoch came to, as CSV and as JSON.

use crate::error::{Error, Result};
use crate::files::write_atomically;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What one epoch came to: a row of `history.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: usize,
    /// The rate of its last step, the schedule's factor included.
    pub learning_rate: f32,
    /// Mean loss over the epoch's samples, while training: with dropout, augmentation, and the
    /// weights of before each step.
    pub loss: f64,
    /// Categorical accuracy, or pixel accuracy of a segmentation, 0 to 1; a mean likewise.
    pub accuracy: f64,
    /// Mean loss on the validation samples, after the epoch; None where there are none.
    pub val_loss: Option<f64>,
    /// Accuracy on the validation samples, 0 to 1.
    pub val_accuracy: Option<f64>,
    /// Mean average precision of a classifier, 0 to 1.
    pub val_map: Option<f64>,
    /// Mean intersection over union of a segmentation, 0 to 1.
    #[serde(default)]
    pub val_miou: Option<f64>,
    /// Mean Dice coefficient of a segmentation, 0 to 1.
    #[serde(default)]
    pub val_dice: Option<f64>,
}

/// The epochs of a run so far.
///
/// ```
/// use atrous::train::{Epoch, History};
///
/// let epoch = Epoch {
///     epoch: 1,
///     learning_rate: 0.001,
///     loss: 0.5,
///     accuracy: 0.75,
///     val_loss: Some(0.625),
///     val_accuracy: Some(0.5),
///     val_map: None,
///     val_miou: None,
///     val_dice: None,
/// };
/// let folder = tempfile::tempdir()?;
/// History { epochs: vec![epoch] }.write(folder.path())?;
/// let table = std::fs::read_to_string(folder.path().join("history.csv"))?;
/// assert_eq!(table.lines().nth(1), Some("1,0.001,0.5,0.75,0.625,0.5,,,"));
/// assert!(folder.path().join("history.json").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    /// In their order, the first is epoch 1.
    pub epochs: Vec<Epoch>,
}

const COLUMNS: &str =
    "epoch,learning_rate,loss,accuracy,val_loss,val_accuracy,val_map,val_miou,val_dice";

impl History {
    /// Writes `history.csv` and `history.json` into the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_atomically(folder.join("history.csv"), |file| {
            writeln!(file, "{COLUMNS}")?;
            let cell = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            for e in &self.epochs {
                write!(file, "{},{},{},{}", e.epoch, e.learning_rate, e.loss, e.accuracy)?;
                for value in [e.val_loss, e.val_accuracy, e.val_map, e.val_miou, e.val_dice] {
                    write!(file, ",{}", cell(value))?;
                }
                writeln!(file)?;
            }
            Ok(())
        })?;
        let path = folder.join("history.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::file(&path, error))?;
        write_atomically(&path, |file| writeln!(file, "{text}"))
    }
}
