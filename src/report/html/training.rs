//! Of a training run: curves, figures, settings.

use super::found::pairs;
use super::parts::{details, note, plots, table};
use super::{Plots, read_json};
use crate::duration;
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::report::curves::from_history;
use crate::report::page::Markup;
use crate::train::{Epoch, History, TrainConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// `run.json`: how a network was trained, for whoever looks at the figures later.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::report::html::TrainingRecord;
/// use atrous::train::TrainConfig;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// let config = TrainConfig::new(Spec::new("mobilenet", 224, 20));
/// let record = TrainingRecord { seconds: 7.5, ..TrainingRecord::of(&config)? };
/// assert_eq!(record.task, "classify");
/// assert_eq!(record.settings["batch_size"], config.batch_size);
/// record.write(folder)?;
/// assert_eq!(TrainingRecord::read(folder)?, Some(record));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainingRecord {
    /// `classify` or `segment`.
    pub task: String,
    /// The program's version.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// All of its numbers.
    pub parameters: usize,
    /// Those that were trained.
    pub trainable: usize,
    /// On what it was computed, e.g. `cpu (Avx512)`.
    pub arithmetic: String,
    /// Threads of the CPU.
    pub threads: usize,
    /// Images trained on.
    pub train_images: usize,
    /// Images validated on.
    pub validation_images: usize,
    /// Of the last session, whole.
    pub seconds: f64,
    /// Every setting that decides the run's bits, by name.
    pub settings: Value,
    /// How and where it stopped, for people; empty for a run that came to its end.
    #[serde(default)]
    pub ended: String,
}

const RECORD: &str = "run.json";

impl TrainingRecord {
    /// What a configuration says; version included, counts and times not.
    pub fn of(config: &TrainConfig) -> Result<Self> {
        let value = serde_json::to_value(config).map_err(|error| Error::argument("settings", error))?;
        let Value::Object(mut settings) = value else { return Ok(TrainingRecord::default()) };
        // Thousands of names and numbers, which the checkpoint has.
        ["samples", "train_indices", "val_indices"].iter().for_each(|key| drop(settings.remove(*key)));
        Ok(TrainingRecord {
            task: if config.network.segments() { "segment" } else { "classify" }.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            network: config.network.name.clone(),
            train_images: config.train_indices.len(),
            validation_images: config.val_indices.len(),
            settings: Value::Object(settings),
            ..TrainingRecord::default()
        })
    }

    /// How a run stopped, and where: epochs completed, of how many, and steps after those.
    ///
    /// ```
    /// # use atrous::report::html::TrainingRecord;
    /// assert_eq!(TrainingRecord::stopped("Killed", [1, 8, 3]), "Killed after epoch 1 of 8, step 3");
    /// ```
    pub fn stopped(how: &str, [epoch, of, step]: [usize; 3]) -> String {
        format!("{how} after epoch {epoch} of {of}, step {step}")
    }

    /// Writes `run.json` into the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(RECORD);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::file(&path, error))?;
        write_atomically(&path, |file| writeln!(file, "{text}"))
    }

    /// Reads a folder's; None without one. An error that names the line.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RECORD))
    }

    pub(super) fn line(&self) -> String {
        format!("{} trained on {} images", self.network, self.train_images)
    }

    /// All settings by name; what is within another stands behind a dot.
    pub(super) fn flat_settings(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        flatten("", &self.settings, &mut all);
        all
    }
}

fn flatten(name: &str, value: &Value, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            flatten(&name, value, all);
        }),
        Value::Null => all.push((name.into(), "–".into())),
        Value::String(text) if text.is_empty() => all.push((name.into(), "–".into())),
        Value::String(text) => all.push((name.into(), text.clone())),
        // An f32 is written as the f64 it is: its own digits are enough.
        Value::Number(number) if number.is_f64() => {
            let value = number.as_f64().unwrap_or_default();
            all.push((name.into(), (value as f32).to_string()));
        }
        Value::Array(values) if values.len() > FEW => all.push((name.into(), range_of(values))),
        other => all.push((name.into(), other.to_string())),
    }
}

/// So many values of a list are told one by one.
const FEW: usize = 4;

/// A long list of numbers (weights of classes) in few words.
fn range_of(values: &[Value]) -> String {
    let numbers: Vec<f64> = values.iter().filter_map(Value::as_f64).collect();
    let n = numbers.len().max(1) as f64;
    let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match numbers.len() == values.len() {
        true => format!(
            "{} values, {low:.3} to {high:.3}, mean {:.3}",
            values.len(),
            numbers.iter().sum::<f64>() / n
        ),
        false => format!("{} values", values.len()),
    }
}

/// What a figure of an epoch is called, and where it stands.
type Column = (&'static str, fn(&Epoch) -> Option<f64>);

/// A training run that was found.
pub(super) struct Run {
    /// Within the report's folder; empty where it is its own.
    pub(super) part: String,
    pub(super) record: Option<TrainingRecord>,
    pub(super) history: History,
}

impl Run {
    pub(super) fn id(&self, what: &str) -> String {
        if self.part.is_empty() { what.into() } else { format!("{what}-{}", self.part) }
    }

    pub(super) fn heading(&self, what: &str) -> String {
        if self.part.is_empty() { what.into() } else { format!("{what}: {}", self.part) }
    }

    fn of_part(&self, name: &str) -> String {
        if self.part.is_empty() { name.into() } else { format!("{}: {name}", self.part) }
    }

    /// What its best epoch is told by: a name, and a value of each epoch.
    pub(super) fn score(&self) -> Option<(&'static str, usize, f64)> {
        let of: [Column; 3] = [
            ("validation mean average precision", |e| e.val_map),
            ("validation mean IoU", |e| e.val_miou),
            ("validation accuracy", |e| e.val_accuracy),
        ];
        let epochs = &self.history.epochs;
        let best = |value: fn(&Epoch) -> Option<f64>| {
            let values = epochs.iter().filter_map(|e| Some((e.epoch, value(e)?)));
            values.filter(|v| v.1.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        };
        of.into_iter().find_map(|(name, value)| best(value).map(|(epoch, v)| (name, epoch, v)))
    }

    pub(super) fn tiles(&self) -> Vec<(String, String)> {
        let mut tiles = Vec::new();
        if let Some((name, epoch, value)) = self.score() {
            tiles.push((self.of_part(&format!("best {name}, epoch {epoch}")), format!("{value:.3}")));
        }
        let Some(last) = self.history.epochs.last() else { return tiles };
        tiles.push((self.of_part("epochs"), last.epoch.to_string()));
        if let Some(record) = &self.record {
            tiles.push((self.of_part("training time"), duration::with_unit(record.seconds)));
            tiles.push((self.of_part("parameters"), millions(record.parameters)));
        }
        tiles
    }

    /// How it stopped, where it did not come to its end.
    pub(super) fn ended(&self) -> Option<String> {
        let ended = &self.record.as_ref()?.ended;
        (!ended.is_empty()).then(|| self.of_part(ended))
    }

    pub(super) fn section(&self, all: &mut Plots) -> Result<Markup> {
        if self.history.epochs.is_empty() {
            return note("No epoch was completed.");
        }
        let panels = from_history(&self.history)?;
        let drawn = panels.iter().map(|panel| {
            let name = panel.title.to_lowercase().replace(' ', "-");
            (all.add(self.id(&name), panel.plot("epoch")), String::new())
        });
        let drawn: Vec<_> = drawn.collect();
        Ok(Markup::join([plots(&drawn)?, details("Every epoch", self.epochs()?)?]))
    }

    fn epochs(&self) -> Result<Markup> {
        let columns: [Column; 8] = [
            ("learning rate", |e| Some(e.learning_rate as f64)),
            ("loss", |e| Some(e.loss)),
            ("accuracy", |e| Some(e.accuracy)),
            ("val loss", |e| e.val_loss),
            ("val accuracy", |e| e.val_accuracy),
            ("val mAP", |e| e.val_map),
            ("val mean IoU", |e| e.val_miou),
            ("val Dice", |e| e.val_dice),
        ];
        let epochs = &self.history.epochs;
        let columns: Vec<&Column> =
            columns.iter().filter(|(_, of)| epochs.iter().any(|e| of(e).is_some())).collect();
        let mut head = vec!["epoch"];
        head.extend(columns.iter().map(|(name, _)| *name));
        let cell = |name: &str, value: Option<f64>| match value {
            Some(value) if name == "learning rate" => format!("{value:.2e}"),
            Some(value) => format!("{value:.4}"),
            None => "–".into(),
        };
        let row = |e: &Epoch| {
            let cells = columns.iter().map(|(name, of)| cell(name, of(e)));
            std::iter::once(e.epoch.to_string()).chain(cells).collect()
        };
        table(&head, &epochs.iter().map(row).collect::<Vec<Vec<String>>>())
    }

    pub(super) fn settings(&self) -> Result<Markup> {
        let Some(record) = &self.record else { return Ok(Markup::default()) };
        let own = [
            ("atrous", record.version.clone()),
            ("network", record.network.clone()),
            ("parameters (trainable)", format!("{} ({})", record.parameters, record.trainable)),
            ("computed on", record.arithmetic.clone()),
            ("threads", if record.threads > 0 { record.threads.to_string() } else { "–".into() }),
            ("training images", record.train_images.to_string()),
            ("validation images", record.validation_images.to_string()),
            ("last session", duration::with_unit(record.seconds)),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let settings = pairs(["setting", "value"], &record.flat_settings())?;
        Ok(Markup::join([
            pairs(["of the run", "value"], &own)?,
            details("Every setting that decides its bits", settings)?,
        ]))
    }
}

fn millions(n: usize) -> String {
    match n {
        0..1_000_000 => format!("{:.0} k", n as f64 / 1e3),
        _ => format!("{:.1} M", n as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Spec;

    #[test]
    fn a_record_keeps_every_setting_but_the_lists_of_samples() {
        let mut config = TrainConfig::new(Spec::new("alexnet", 150, 20));
        (config.train_indices, config.val_indices) = (vec![1, 2, 3], vec![4]);
        config.learning_rate = 0.1;
        config.class_weights = Some((0..20).map(|class| class as f32 / 10.0).collect());
        let record = TrainingRecord::of(&config).unwrap();
        assert_eq!((record.train_images, record.validation_images, &*record.task), (3, 1, "classify"));
        let settings = record.flat_settings();
        let value = |name: &str| &settings.iter().find(|(key, _)| key == name).expect(name).1[..];
        assert_eq!((value("learning_rate"), value("network.size"), value("seed")), ("0.1", "150", "0"));
        assert_eq!((value("clip_norm"), value("batch_size")), ("–", "16"));
        assert_eq!(value("class_weights"), "20 values, 0.000 to 1.900, mean 0.950");
        assert!(!settings.iter().any(|(key, _)| key.starts_with("samples") || key.ends_with("indices")));
        let folder = tempfile::tempdir().unwrap();
        record.write(folder.path()).unwrap();
        assert_eq!(TrainingRecord::read(folder.path()).unwrap(), Some(record));
    }
}
