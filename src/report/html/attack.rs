//! Of an attack: robustness over ε, classes, transfer, defences, perturbed images.

use super::found::pairs;
use super::parts::{heading, note, plots, sheet, table};
use super::{Plots, read};
use crate::data::Classes;
use crate::error::{Error, Result};
use crate::report::curves::Panel;
use crate::report::page::Markup;
use crate::report::plots::{Bars, Chart, Curve, HeatMap, Lines, Plot};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// What a page reads of an attack's `summary.json`.
///
/// [`robustness_curves`] has an example.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AttackSummary {
    /// The network, and where it is from.
    pub victim: String,
    /// `classify` or `segment`.
    #[serde(default)]
    pub task: String,
    /// `linf` or `l2`.
    pub norm: String,
    /// What the network tells apart.
    #[serde(default, skip_serializing_if = "Classes::is_voc")]
    pub classes: Classes,
    /// The class that was to be seen.
    #[serde(default)]
    pub target: Option<String>,
    /// The class whose pixels were to be turned.
    #[serde(default)]
    pub from: Option<String>,
    /// One a method and ε: its figures by name.
    pub attacks: Vec<Map<String, Value>>,
    /// One a method.
    #[serde(default)]
    pub curves: Vec<RobustnessCurve>,
    /// What each network gets right of each network's images.
    #[serde(default)]
    pub transfer: Option<Vec<TransferRow>>,
    /// Defences, and what is right without an attack and under two.
    #[serde(default)]
    pub defences: Vec<DefenceRow>,
    /// The program's version.
    #[serde(default)]
    pub version: String,
    /// Steps, restarts, images and the like, by name.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

/// A method's figures over ε (in steps of 255 for L∞).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RobustnessCurve {
    /// The method.
    pub method: String,
    /// Of each ε on its own.
    pub points: Vec<(f64, f64)>,
    /// Of the best of each ε and the smaller ones.
    #[serde(default)]
    pub so_far: Vec<(f64, f64)>,
    /// Mean average precision.
    #[serde(default)]
    pub score: Vec<(f64, f64)>,
}

/// One network's perturbed images before all networks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TransferRow {
    /// Whose images.
    pub pictures: String,
    /// A share a network.
    pub right: Vec<Option<f64>>,
}

/// A defence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DefenceRow {
    /// Its name.
    pub defence: String,
    /// Right without an attack.
    pub clean: f64,
    /// Right under an attack that does not know of it.
    pub attacked: f64,
    /// Right under one that does.
    pub adaptive: f64,
    /// What else there is to say.
    #[serde(default)]
    pub note: String,
}

/// The curves of an attack over ε: those that have points.
///
/// ```
/// use atrous::report::html::{AttackSummary, robustness_curves};
///
/// // As `atrous attack` writes its `summary.json`, with what is read here.
/// let summary: AttackSummary = serde_json::from_str(r#"{
///     "victim": "mobilenet", "task": "classify", "norm": "linf", "attacks": [],
///     "curves": [{"method": "pgd", "points": [[0, 0.9], [4, 0.1]]}]
/// }"#).unwrap();
/// let panels = robustness_curves(&summary);
/// assert_eq!((panels.len(), summary.axis()), (1, "ε · 255"));
/// assert_eq!(panels[0].curves[0].points, [(0.0, 0.9), (4.0, 0.1)]);
/// ```
pub fn robustness_curves(summary: &AttackSummary) -> Vec<Panel> {
    let title = match (&summary.task[..], summary.from.is_some()) {
        ("segment", true) => "Pixels that follow the wish",
        ("segment", false) => "Mean IoU",
        _ => "Pictures that resist",
    };
    let panel = |title: &str, points: fn(&RobustnessCurve) -> &Vec<(f64, f64)>| {
        let some = summary.curves.iter().filter(|curve| !points(curve).is_empty());
        let curve = |curve: &RobustnessCurve| Curve {
            name: curve.method.clone(),
            points: points(curve).clone(),
        };
        Panel { title: title.into(), curves: some.map(curve).collect(), log: false }
    };
    let mut panels = vec![
        panel(&format!("{title}, each ε alone"), |curve| &curve.points),
        panel(&format!("{title}, best so far"), |curve| &curve.so_far),
        panel("Mean average precision, each ε alone", |curve| &curve.score),
    ];
    panels.retain(|panel| !panel.curves.is_empty());
    panels
}

impl AttackSummary {
    /// What runs along the bottom of its curves.
    pub fn axis(&self) -> &'static str {
        if self.norm == "linf" { "ε · 255" } else { "ε (L2)" }
    }

    pub(super) fn epsilon(&self, attack: &Map<String, Value>) -> String {
        let value = attack.get("epsilon").and_then(Value::as_f64);
        match value {
            Some(epsilon) if self.norm == "linf" => {
                let steps = (epsilon * 255.0 * 100.0).round() / 100.0;
                format!("{steps}/255")
            }
            Some(epsilon) => format!("{}", epsilon as f32),
            None => "–".into(),
        }
    }
}

/// What is shown of an attack on a classifier: a key of the summary, and its heading.
const OF_LABELS: [(&str, &str); 11] = [
    ("clean", "right before"),
    ("robust", "robust"),
    ("robust_so_far", "best so far"),
    ("robust_rounded", "robust, rounded"),
    ("success", "success"),
    ("score_clean", "mAP before"),
    ("score", "mAP after"),
    ("median_linf", "median L∞"),
    ("median_l2", "median L2"),
    ("mean_ssim", "SSIM"),
    ("seconds_per_picture", "s an image"),
];

/// Of an attack on masks.
const OF_MASKS: [(&str, &str); 10] = [
    ("score_clean", "mean IoU before"),
    ("score", "mean IoU after"),
    ("score_rounded", "rounded"),
    ("led", "pixels led astray"),
    ("led_so_far", "best so far"),
    ("kept", "others kept"),
    ("mean_linf", "mean L∞"),
    ("mean_l2", "mean L2"),
    ("mean_ssim", "SSIM"),
    ("seconds_per_picture", "s an image"),
];

/// An attack that was found.
pub(super) struct Attacked {
    pub(super) part: String,
    pub(super) folder: PathBuf,
    pub(super) summary: AttackSummary,
}

impl Attacked {
    pub(super) fn id(&self) -> String {
        if self.part.is_empty() { "attack".into() } else { self.part.replace('/', "-") }
    }

    pub(super) fn heading(&self) -> String {
        match self.part.strip_prefix("attack/") {
            Some(task) => format!("Robustness: {task}"),
            None => "Robustness".into(),
        }
    }

    pub(super) fn tiles(&self) -> Vec<(String, String)> {
        let Some(last) = self.summary.attacks.last() else { return Vec::new() };
        let text = |key: &str| last.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let by = format!("{} of {}", text("method"), self.summary.epsilon(last));
        let segments = self.summary.task == "segment";
        let shown = match segments {
            true => [("score_clean", "mean IoU before"), ("score", "mean IoU under")],
            false => [("clean", "right before"), ("robust", "still right under")],
        };
        let tile = |(key, name): (&str, &str)| {
            let value = last.get(key).and_then(Value::as_f64)?;
            Some((format!("{name} {by}"), format!("{value:.3}")))
        };
        shown.into_iter().filter_map(tile).collect()
    }

    pub(super) fn section(&self, all: &mut Plots) -> Result<Markup> {
        let mut parts = vec![self.table()?];
        let mut drawn = Vec::new();
        for (i, panel) in robustness_curves(&self.summary).iter().enumerate() {
            // A point alone is no curve; the table has it.
            if panel.curves.iter().any(|curve| curve.points.len() > 1) {
                let lines = Lines {
                    curves: panel.curves.clone(),
                    x: self.summary.axis().into(),
                    dots: true,
                    ..Lines::default()
                };
                let plot = Plot { title: panel.title.clone(), chart: Chart::Lines(lines) };
                drawn
                    .push((all.add(format!("{}-robustness-{}", self.id(), i + 1), plot), String::new()));
            }
        }
        drawn.extend(
            self.per_class()?
                .map(|(plot, caption)| (all.add(format!("{}-per-class", self.id()), plot), caption)),
        );
        if !drawn.is_empty() {
            parts.push(plots(&drawn)?);
        }
        parts.extend(self.transfer(all)?);
        parts.extend(self.defences()?);
        parts.extend(sheet(
            &self.folder.join("panel.png"),
            "Originals, and what each attack makes of them",
        )?);
        if !self.summary.settings.is_empty() {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let settings = self.summary.settings.iter().map(|(key, v)| (key.clone(), text(v)));
            let rows: Vec<(String, String)> = [("atrous".to_owned(), self.summary.version.clone())]
                .into_iter()
                .chain(settings)
                .collect();
            parts.extend([heading("Settings")?, pairs(["setting", "value"], &rows)?]);
        }
        Ok(Markup::join(parts))
    }

    fn table(&self) -> Result<Markup> {
        let value = |attack: &Map<String, Value>, key: &str| attack.get(key).and_then(Value::as_f64);
        let attacks = &self.summary.attacks;
        let columns = if self.summary.task == "segment" { &OF_MASKS[..] } else { &OF_LABELS };
        let columns: Vec<_> =
            columns.iter().filter(|(key, _)| attacks.iter().any(|a| value(a, key).is_some())).collect();
        let mut head = vec!["method", "ε", "images"];
        head.extend(columns.iter().map(|(_, name)| *name));
        let row = |attack: &Map<String, Value>| {
            let method = attack.get("method").and_then(Value::as_str).unwrap_or_default();
            let images = attack.get("pictures").map_or("–".into(), Value::to_string);
            let mut row = vec![method.to_owned(), self.summary.epsilon(attack), images];
            row.extend(columns.iter().map(|(key, _)| super::parts::share(value(attack, key))));
            row
        };
        table(&head, &attacks.iter().map(row).collect::<Vec<_>>())
    }

    /// Of a classifier: the share of each class' images that is right before and after the last attack.
    fn per_class(&self) -> Result<Option<(Plot, String)>> {
        let path = self.folder.join("attack.csv");
        let Some(text) = read(&path)? else { return Ok(None) };
        if self.summary.task == "segment" {
            return Ok(None);
        }
        let wrong = |error: csv::Error| match error.position() {
            Some(position) => Error::Row {
                path: path.clone(),
                line: position.line() as usize,
                column: None,
                message: "expected a row of the attack's table".into(),
            },
            None => Error::file(&path, error),
        };
        let mut table = csv::Reader::from_reader(&text[..]);
        let rows = table.deserialize::<Row>().collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let Some(last) = rows.last() else { return Ok(None) };
        let of_last: Vec<&Row> = rows
            .iter()
            .filter(|row| (&row.method, &row.epsilon) == (&last.method, &last.epsilon))
            .collect();
        let share = |class: &str, right: fn(&Row) -> bool| {
            let with: Vec<_> =
                of_last.iter().filter(|row| row.truth.split("; ").any(|c| c == class)).collect();
            let n = with.iter().filter(|row| right(row)).count();
            (!with.is_empty()).then(|| n as f64 / with.len() as f64)
        };
        let series = |name: &str, right: fn(&Row) -> bool| {
            (name.to_owned(), self.summary.classes.iter().map(|class| share(class, right)).collect())
        };
        let bars = Bars {
            names: self.summary.classes.iter().map(str::to_owned).collect(),
            series: vec![
                series("before", |row| row.right == 1),
                series("after", |row| row.right == 1 && row.success == 0),
            ],
            most: 1.0,
        };
        let plot = Plot { title: "Images that are right, by class".into(), chart: Chart::Bars(bars) };
        Ok(Some((plot, format!("Before and after the last attack of the table, {}.", last.method))))
    }

    fn transfer(&self, all: &mut Plots) -> Result<Vec<Markup>> {
        let Some(rows) = self.summary.transfer.as_ref().filter(|rows| !rows.is_empty()) else {
            return Ok(Vec::new());
        };
        let map = HeatMap {
            rows: rows.iter().map(|row| row.pictures.clone()).collect(),
            columns: rows.iter().skip(1).map(|row| row.pictures.clone()).collect(),
            values: rows.iter().map(|row| row.right.clone()).collect(),
            row_axis: "images".into(),
            column_axis: "networks, in the rows' order".into(),
        };
        let plot = Plot { title: "Still right, in percent".into(), chart: Chart::HeatMap(map) };
        let plot = all.add(format!("{}-transfer", self.id()), plot);
        Ok(vec![heading("Shown to other networks")?, plots(&[(plot, String::new())])?])
    }

    fn defences(&self) -> Result<Vec<Markup>> {
        if self.summary.defences.is_empty() {
            return Ok(Vec::new());
        }
        let row = |row: &DefenceRow| {
            let shares = [row.clean, row.attacked, row.adaptive].map(|v| format!("{v:.3}"));
            std::iter::once(row.defence.clone()).chain(shares).chain([row.note.clone()]).collect()
        };
        let rows: Vec<Vec<String>> = self.summary.defences.iter().map(row).collect();
        let head = ["defence", "clean", "attacked unaware", "attacked adaptively", "note"];
        let words = "The share that is right: without an attack, under one that does not know of the \
                     defence, and under one that does.";
        Ok(vec![heading("Defences")?, table(&head, &rows)?, note(words)?])
    }
}

/// What is read of a row of `attack.csv`.
#[derive(Deserialize)]
struct Row {
    method: String,
    epsilon: String,
    truth: String,
    right: u8,
    success: u8,
}
