//! Of predictions whose truth is known: scores, classes, confusions, curves, and images to look at.

use super::Plots;
use super::parts::{data_uri, details, heading, note, plots, share, table, tiles};
use crate::duration;
use crate::error::Result;
use crate::report::evaluation::{ClassScores, Evaluation, Example, Sample};
use crate::report::page::{Markup, Page, fill};
use crate::report::plots::{
    Bars, Chart, Curve, HeatMap, Lines, Plot, ReliabilityBin, ReliabilityDiagram,
};
use serde::Serialize;
use std::cmp::Ordering;
use std::path::PathBuf;

/// An evaluation that was found, and the folder that its images are in.
pub(super) struct Scored {
    pub(super) folder: PathBuf,
    pub(super) evaluation: Evaluation,
}

/// Classes with a curve of their own: the best and the worst of them.
const CURVES: usize = 2;

impl Scored {
    pub(super) fn line(&self) -> String {
        let Evaluation { network, images, kind, .. } = &self.evaluation;
        format!("{network} on {images} {kind}")
    }

    pub(super) fn tiles(&self) -> Vec<(String, String)> {
        let Evaluation { task, images, kind, scores, .. } = &self.evaluation;
        let of = |(name, value): &(String, f64)| {
            (format!("{name} ({task}, {images} {kind})"), format!("{value:.3}"))
        };
        scores.iter().take(1).map(of).collect()
    }

    /// Scores, and examples.
    pub(super) fn sections(&self, page: Page, all: &mut Plots) -> Result<Page> {
        let Evaluation { task, kind, .. } = &self.evaluation;
        let (id, of) = (self.id("scores"), format!("{task}, {kind}"));
        let page = page.section(id, format!("Scores: {of}"), self.scores(all)?);
        match self.examples()? {
            Some(body) => Ok(page.section(self.id("examples"), format!("Examples: {task}"), body)),
            None => Ok(page),
        }
    }

    /// Other parts of the same pictures (seen in training, not seen) have names of their own.
    fn id(&self, what: &str) -> String {
        let words = format!("{what}-{}-{}", self.evaluation.task, self.evaluation.kind);
        words.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    }

    fn scores(&self, all: &mut Plots) -> Result<Markup> {
        let e = &self.evaluation;
        let mut numbers: Vec<(String, String)> =
            e.scores.iter().map(|(name, value)| (name.clone(), format!("{value:.3}"))).collect();
        if let Some(error) = e.calibration_error {
            numbers.push(("expected calibration error".into(), format!("{error:.3}")));
        }
        numbers.push(("images".into(), e.images.to_string()));
        if e.images > 0 {
            numbers
                .push(("an image, prediction".into(), duration::with_unit(e.seconds / e.images as f64)));
        }
        let mut drawn = vec![(all.add(self.id("per-class"), per_class(e)), String::new())];
        if !e.precision_recall.is_empty() {
            let plot = all.add(self.id("precision-recall"), precision_recall(e));
            drawn.push((plot, precision_recall_caption(e)));
        }
        if e.segments() {
            let plot = all.add(self.id("precision-and-recall"), precision_and_recall(e));
            drawn.push((plot, PRECISION_AND_RECALL.into()));
        }
        if !e.calibration.is_empty() {
            drawn.push((all.add(self.id("calibration"), calibration(e)), calibration_caption(e)));
        }
        let confusion = (all.add(self.id("confusion"), confusion(e)), confusion_caption(e));
        Ok(Markup::join([
            tiles(&numbers)?,
            plots(&drawn)?,
            plots(&[confusion])?,
            details("Every class", classes(e)?)?,
            details("Every image, the worst first", samples(e)?)?,
        ]))
    }

    fn examples(&self) -> Result<Option<Markup>> {
        let mut parts = Vec::new();
        for (group, words) in [
            ("best", "Best"),
            ("typical", "Typical: from the middle of the ranking"),
            ("worst", "Worst"),
        ] {
            let of_group = self.evaluation.examples.iter().filter(|example| example.group == group);
            let shown = of_group.map(|example| self.example(example)).collect::<Result<Vec<_>>>()?;
            let shown: Vec<Shown> = shown.into_iter().flatten().collect();
            if !shown.is_empty() {
                parts.extend([heading(words)?, figures(shown)?]);
            }
        }
        let words = match self.evaluation.segments() {
            true => {
                "From left to right: the image, its true mask, the predicted one. The number is the image's \
                     own mean IoU."
            }
            false => {
                "The number is the Dice of an image's labels; of two with the same one that with the smaller \
                      loss is the better."
            }
        };
        parts.extend((!parts.is_empty()).then(|| note(words)).transpose()?);
        Ok((!parts.is_empty()).then(|| Markup::join(parts)))
    }

    /// None where its files are gone.
    fn example(&self, example: &Example) -> Result<Option<Shown>> {
        let sample = self.evaluation.samples.iter().find(|sample| sample.id == example.id);
        let mut images = Vec::new();
        for (what, file) in &example.images {
            match data_uri(&self.folder.join(file))? {
                Some(src) => images.push(Seen { what: what.clone(), src }),
                None => return Ok(None),
            }
        }
        Ok(sample.map(|sample| Shown {
            id: sample.id.clone(),
            score: format!("{:.3}", sample.score),
            truth: names(&sample.truth),
            predicted: words(&self.evaluation, sample),
            images,
        }))
    }
}

#[derive(Serialize)]
struct Seen {
    what: String,
    src: Markup,
}

#[derive(Serialize)]
struct Shown {
    id: String,
    score: String,
    truth: String,
    predicted: Vec<Word>,
    images: Vec<Seen>,
}

/// A predicted class, and whether it is there.
#[derive(Serialize)]
struct Word {
    text: String,
    right: bool,
}

/// Classes named below an image, the surest first: a network that has learnt little says all of them.
const WORDS: usize = 6;

fn names(names: &[String]) -> String {
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn words(evaluation: &Evaluation, sample: &Sample) -> Vec<Word> {
    let probability = |name: &String| {
        let class = evaluation.classes.iter().position(|class| class.name == *name)?;
        sample.probabilities.get(class)
    };
    let text = |name: &String| match probability(name) {
        Some(p) => format!("{name} {p:.2}"),
        None => name.clone(),
    };
    let word = |name: &String| Word { text: text(name), right: sample.truth.contains(name) };
    let mut names: Vec<&String> = sample.predicted.iter().collect();
    names.sort_by(|a, b| probability(b).partial_cmp(&probability(a)).unwrap_or(Ordering::Equal));
    let mut words: Vec<Word> = names.iter().take(WORDS).map(|name| word(name)).collect();
    if names.len() > WORDS {
        words.push(Word { text: format!("and {} more", names.len() - WORDS), right: false });
    }
    words
}

fn figures(shown: Vec<Shown>) -> Result<Markup> {
    #[derive(Serialize)]
    struct Values {
        strips: bool,
        shown: Vec<Shown>,
    }
    let strips = shown.iter().any(|one| one.images.len() > 1);
    fill(include_str!("templates/examples.html"), &Values { strips, shown })
}

fn score_name(e: &Evaluation) -> &'static str {
    if e.segments() { "IoU" } else { "Average precision" }
}

fn per_class(e: &Evaluation) -> Plot {
    let bars = Bars {
        names: e.classes.iter().map(|class| class.name.clone()).collect(),
        series: vec![(score_name(e).into(), e.classes.iter().map(ClassScores::score).collect())],
        most: 1.0,
    };
    Plot { title: format!("{} of each class", score_name(e)), chart: Chart::Bars(bars) }
}

/// Curves over all classes together, and of the best and the worst.
fn precision_recall(e: &Evaluation) -> Plot {
    let average = |class: &ClassScores| class.average_precision.unwrap_or_default();
    let mut ranked: Vec<&ClassScores> =
        e.classes.iter().filter(|class| class.average_precision.is_some()).collect();
    ranked.sort_by(|a, b| average(b).total_cmp(&average(a)));
    let last = ranked.len().saturating_sub(CURVES).max(CURVES.min(ranked.len()));
    let shown = ranked[..CURVES.min(ranked.len())].iter().chain(&ranked[last..]);
    let curve = |name: &str, told: String| {
        let found = e.precision_recall.iter().find(|curve| curve.name == name)?;
        Some(Curve { name: told, points: found.points.clone() })
    };
    let classes =
        shown.filter_map(|class| curve(&class.name, format!("{} {:.2}", class.name, average(class))));
    let all = curve("all classes", "all classes".into());
    let lines = Lines {
        curves: all.into_iter().chain(classes).collect(),
        x: "recall".into(),
        unit_square: true,
        ..Lines::default()
    };
    let title = if e.segments() { "Precision over recall of pixels" } else { "Precision over recall" };
    Plot { title: title.into(), chart: Chart::Lines(lines) }
}

/// What masks say, of each pixel its likeliest class: one point of each class.
fn precision_and_recall(e: &Evaluation) -> Plot {
    let series = |name: &str, of: fn(&ClassScores) -> Option<f64>| {
        (name.to_owned(), e.classes.iter().map(of).collect())
    };
    let bars = Bars {
        names: e.classes.iter().map(|class| class.name.clone()).collect(),
        series: vec![series("precision", ClassScores::precision), series("recall", ClassScores::recall)],
        most: 1.0,
    };
    Plot { title: "Precision and recall of pixels".into(), chart: Chart::Bars(bars) }
}

fn precision_recall_caption(e: &Evaluation) -> String {
    let words = "All classes together, and the best and worst of them with their average precision.";
    match e.segments() {
        true => format!(
            "{words} A class' threshold goes from 1 down to 0; probabilities are counted in bins, by which \
             an average precision is at most {:.0e} too small.",
            e.average_precision_error
        ),
        false => words.into(),
    }
}

const PRECISION_AND_RECALL: &str = "Where each pixel is given its likeliest class. Precision: the share of a \
    class' predicted pixels that are right. Recall: the share of its true pixels that were found.";

fn calibration(e: &Evaluation) -> Plot {
    let all: u64 = e.calibration.iter().map(|bin| bin.count).sum();
    let bins = e.calibration.iter().map(|bin| ReliabilityBin {
        low: bin.low,
        high: bin.high,
        confidence: bin.confidence,
        accuracy: bin.accuracy,
        share: bin.count as f64 / all.max(1) as f64,
    });
    let diagram = ReliabilityDiagram { bins: bins.collect() };
    Plot { title: "What a confidence is worth".into(), chart: Chart::Reliability(diagram) }
}

fn calibration_caption(e: &Evaluation) -> String {
    let of = match e.segments() {
        true => "Confidence is the probability of a pixel's own class.",
        false => "Each class of each image counts as one prediction.",
    };
    let error = share(e.calibration_error);
    format!(
        "Bars: how often what was said with this confidence was so; on the diagonal it would be a \
         probability. Dots: each bin's mean confidence. Expected calibration error {error}. {of}"
    )
}

fn confusion(e: &Evaluation) -> Plot {
    let rows: Vec<String> = e.classes.iter().map(|class| class.name.clone()).collect();
    let row = |(counts, class): (&Vec<u64>, &ClassScores)| -> Vec<Option<f64>> {
        let share = |&n: &u64| (class.support > 0).then(|| n as f64 / class.support as f64);
        counts.iter().map(share).collect()
    };
    let map = HeatMap {
        values: e.confusion.iter().zip(&e.classes).map(row).collect(),
        columns: rows.clone(),
        rows,
        row_axis: "true class".into(),
        column_axis: "predicted class".into(),
    };
    Plot { title: "Confusion, in percent of the true class".into(), chart: Chart::HeatMap(map) }
}

fn confusion_caption(e: &Evaluation) -> String {
    match e.segments() {
        true => "Of all pixels of the row's class, the percent that were taken for the column's.".into(),
        false => {
            "Of all images with the row's class, the percent in which the column's class was predicted. \
                  An image may have several classes: what stands beside the diagonal may be right."
                .into()
        }
    }
}

fn classes(e: &Evaluation) -> Result<Markup> {
    let what = if e.segments() { "pixels" } else { "images" };
    let mut head = vec!["class", what, score_name(e), "precision", "recall", "F1 (Dice)"];
    head.extend(["true positives", "false positives", "false negatives"]);
    head.push(if e.segments() { "average precision" } else { "threshold" });
    let row = |class: &ClassScores| {
        let mut row = vec![class.name.clone(), class.support.to_string()];
        row.extend([class.score(), class.precision(), class.recall(), class.f1()].map(share));
        let counts = [class.true_positives, class.false_positives, class.false_negatives];
        row.extend(counts.map(|n| n.to_string()));
        row.push(match e.segments() {
            true => share(class.average_precision),
            false => class.threshold.map_or("–".into(), |t| format!("{t:.3}")),
        });
        row
    };
    table(&head, &e.classes.iter().map(row).collect::<Vec<_>>())
}

/// Images in the table at most: a page is no data base.
const ROWS: usize = 200;

fn samples(e: &Evaluation) -> Result<Markup> {
    let mut order: Vec<&Sample> = e.samples.iter().collect();
    order.sort_by(|a, b| a.score.total_cmp(&b.score));
    let row = |sample: &&Sample| {
        let last = sample.loss.or(sample.pixel_accuracy);
        let score = format!("{:.3}", sample.score);
        vec![sample.id.clone(), score, share(last), names(&sample.truth), names(&sample.predicted)]
    };
    let score = if e.segments() { "mean IoU" } else { "Dice" };
    let other = if e.segments() { "pixel accuracy" } else { "loss" };
    let rows: Vec<Vec<String>> = order.iter().take(ROWS).map(row).collect();
    let body = table(&["image", score, other, "true", "predicted"], &rows)?;
    match e.samples.len() {
        n if n > ROWS => {
            let words = format!("{ROWS} of {n}; all of them are in evaluation.json.");
            Ok(Markup::join([body, note(&words)?]))
        }
        _ => Ok(body),
    }
}
