//! What there is to report in a folder.

use super::attack::{AttackSummary, Attacked};
use super::evaluation::Scored;
use super::parts::{heading, sheet, table, tiles, warning};
use super::training::{Run, TrainingRecord};
use super::{PLOTS, Plots, read, read_json};
use crate::error::{Error, Result};
use crate::report::evaluation::{self, EVALUATION};
use crate::report::page::{Markup, fill};
use crate::report::plots::Plot;
use crate::train::History;
use serde_json::json;
use std::path::{Path, PathBuf};

const HISTORY: &str = "history.json";
const SUMMARY: &str = "summary.json";
/// The folders that a `run` leaves within its own.
pub(super) const PARTS: [&str; 4] = ["classify", "segment", "attack/classify", "attack/segment"];
/// Sheets of images, and what they show.
const SHEETS: [(&str, &str); 3] = [
    ("gallery.png", "What is in the data, a column a class"),
    ("validation.png", "Validation images, their truth, and what was predicted"),
    ("panel.png", "Images, and what was predicted of them"),
];

pub(super) struct Found {
    pub(super) name: String,
    folder: PathBuf,
    pub(super) trainings: Vec<Run>,
    pub(super) evaluations: Vec<Scored>,
    pub(super) attacks: Vec<Attacked>,
    /// Folders within it that have a page of their own.
    parts: Vec<String>,
}

/// Whether the folder itself holds a file that a page is made of.
pub(super) fn has_anything(folder: &Path) -> bool {
    [HISTORY, EVALUATION, SUMMARY].iter().any(|name| folder.join(name).is_file())
}

impl Found {
    /// The folder's own files, and those of its parts, where it is what `run` left.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut found = Found {
            name: name(folder),
            folder: folder.to_owned(),
            trainings: Vec::new(),
            evaluations: Vec::new(),
            attacks: Vec::new(),
            parts: Vec::new(),
        };
        found.take(folder, "")?;
        for part in PARTS {
            let within = folder.join(part);
            if has_anything(&within) {
                found.take(&within, part)?;
                found.parts.push(part.into());
            }
        }
        if found.trainings.is_empty() && found.evaluations.is_empty() && found.attacks.is_empty() {
            let message = format!(
                "expected what `train`, `run`, `attack` or `evaluate --out` left, got none of {HISTORY}, \
                 {EVALUATION} and {SUMMARY} (nor in {})",
                PARTS.join(", ")
            );
            return Err(Error::file(folder, message));
        }
        Ok(found)
    }

    /// What is in one folder; `part` is what it is called within the report's, or empty.
    fn take(&mut self, folder: &Path, part: &str) -> Result<()> {
        let history: Option<History> = read_json(&folder.join(HISTORY))?;
        let record = TrainingRecord::read(folder)?;
        if let Some(history) = history.filter(|history| record.is_some() || !history.epochs.is_empty()) {
            self.trainings.push(Run { part: part.into(), record, history });
        }
        if let Some(summary) = read_json::<AttackSummary>(&folder.join(SUMMARY))? {
            self.attacks.push(Attacked { part: part.into(), folder: folder.into(), summary });
        }
        for evaluation in evaluation::read(folder)?.unwrap_or_default() {
            // A run scores both networks again, with controls: that is the one to show.
            let same = |other: &Scored| other.evaluation.task == evaluation.task;
            if part.is_empty() || !self.evaluations.iter().any(same) {
                self.evaluations.push(Scored { folder: folder.into(), evaluation });
            }
        }
        Ok(())
    }

    /// Who wrote it, in a line.
    pub(super) fn subtitle(&self) -> String {
        let records = self.trainings.iter().filter_map(|run| run.record.as_ref());
        let mut words: Vec<String> = records.map(TrainingRecord::line).collect();
        words.extend(
            self.attacks.iter().map(|attacked| format!("attack on {}", attacked.summary.victim)),
        );
        if words.is_empty() {
            let networks = self.evaluations.iter().map(|scored| scored.line());
            words.extend(networks);
        }
        words.join(" · ")
    }

    /// The figures that count most.
    pub(super) fn overview(&self) -> Result<Markup> {
        let mut all: Vec<(String, String)> = Vec::new();
        self.evaluations.iter().for_each(|scored| all.extend(scored.tiles()));
        self.attacks.iter().for_each(|attacked| all.extend(attacked.tiles()));
        self.trainings.iter().for_each(|run| all.extend(run.tiles()));
        let ended = self.trainings.iter().filter_map(Run::ended);
        let mut parts = ended.map(|text| warning(&text)).collect::<Result<Vec<_>>>()?;
        parts.push(tiles(&all)?);
        if let Some(text) = read(&self.folder.join("scores.txt"))? {
            let text = String::from_utf8_lossy(&text).into_owned();
            parts.push(heading("Beside controls that do not look at shapes")?);
            parts.push(fill("<pre>{{ text }}</pre>", &json!({ "text": text.trim_end() }))?);
        }
        Ok(Markup::join(parts))
    }

    /// Sheets of images.
    pub(super) fn images(&self) -> Result<Option<Markup>> {
        let mut parts = Vec::new();
        for (file, caption) in SHEETS {
            // An attack's own panel stands with its figures.
            if file == "panel.png" && self.folder.join(SUMMARY).is_file() {
                continue;
            }
            parts.extend(sheet(&self.folder.join(file), caption)?);
        }
        Ok((!parts.is_empty()).then(|| Markup::join(parts)))
    }

    /// Where everything is: plots, and the pages of the folders within.
    pub(super) fn files(&self, plots: &Plots) -> Result<Markup> {
        let plot = |(name, plot): &(String, Plot)| {
            let file = |ending: &str| format!("{PLOTS}/{name}.{ending}");
            json!({ "title": plot.title, "svg": file("svg"), "png": file("png") })
        };
        let rows: Vec<_> = plots.0.iter().map(plot).collect();
        let values = json!({ "parts": self.parts, "plots": rows });
        fill(include_str!("templates/files.html"), &values)
    }
}

/// The folder's last name; of `.` the one it has.
pub(super) fn name(folder: &Path) -> String {
    let known = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let whole = || std::fs::canonicalize(folder).ok();
    known
        .or_else(|| whole()?.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| folder.display().to_string())
}

/// Rows of names and values.
pub(super) fn pairs(head: [&str; 2], rows: &[(String, String)]) -> Result<Markup> {
    let rows: Vec<Vec<String>> = rows.iter().map(|(a, b)| vec![a.clone(), b.clone()]).collect();
    table(&head, &rows)
}
