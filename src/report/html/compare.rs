//! Runs side by side: what was set otherwise, and what came of it.

use super::found::{Found, name};
use super::parts::{heading, note, plots};
use super::{Plots, put};
use crate::error::{Error, Result};
use crate::files::explain;
use crate::report::curves::from_history;
use crate::report::evaluation::{ClassScores, Evaluation};
use crate::report::page::{Markup, Page, fill};
use crate::report::plots::{Bars, Chart, Curve, Lines, Plot};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a comparison came to.
///
/// [`compare`] has an example.
pub struct Comparison {
    /// The page.
    pub page: PathBuf,
    /// The same rows for a terminal.
    pub table: String,
}

/// A row: a name, and a cell of each run; numbers are kept for telling the best.
struct Row {
    name: String,
    cells: Vec<Option<String>>,
    best: Option<usize>,
}

/// Writes a page on which the runs of these folders stand side by side to `out`, and its plots beside it.
/// An error for fewer than two folders, one without anything to report, and where nothing can be written.
///
/// ```
/// use atrous::report::evaluation::{self, Evaluation};
/// use atrous::report::html::compare;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// let mut folders = Vec::new();
/// for (name, score) in [("one", 0.25), ("two", 0.75)] {
///     let scores = vec![("mean IoU".to_string(), score)];
///     let evaluation = Evaluation { task: "segment".into(), scores, ..Evaluation::default() };
///     folders.push(folder.join(name));
///     std::fs::create_dir(folder.join(name)).unwrap();
///     evaluation::write(&[evaluation], &folder.join(name))?;
/// }
/// let comparison = compare(&folders, &folder.join("compare.html"))?;
/// assert!(comparison.table.contains("one") && comparison.table.contains("0.75"), "{}", comparison.table);
/// assert!(comparison.page.is_file());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn compare(folders: &[PathBuf], out: &Path) -> Result<Comparison> {
    if folders.len() < 2 {
        return Err(Error::argument(
            "compare",
            format!("expected two folders or more, got {}", folders.len()),
        ));
    }
    let runs = folders.iter().map(|folder| Found::read(folder)).collect::<Result<Vec<_>>>()?;
    let names = distinct_names(folders);
    let (scores, settings) = (scores(&runs), differing_settings(&runs));
    let mut all = Plots::default();
    let within = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(within).map_err(|error| Error::file(within, explain(&error)))?;
    let same = "Nothing that was recorded differs.";
    let mut page = Page::new("Runs side by side")
        .subtitle(names.join(" · "))
        .section("scores", "Final scores", table(&names, &scores, "No score was found in any of them.")?)
        .section("settings", "Settings that differ", table(&names, &settings, same)?);
    if let Some(body) = curves(&runs, &names, &mut all)? {
        page = page.section("curves", "Curves", body);
    }
    if let Some(body) = classes(&runs, &names, &mut all)? {
        page = page.section("classes", "Classes", body);
    }
    all.write(within)?;
    let page = put(&page, out)?;
    Ok(Comparison {
        page,
        table: text(&names, &[("scores", &scores), ("settings that differ", &settings)]),
    })
}

/// Last names where they tell the folders apart, whole paths where not.
fn distinct_names(folders: &[PathBuf]) -> Vec<String> {
    let short: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    let unique = short.iter().enumerate().all(|(i, name)| !short[..i].contains(name));
    if unique { short } else { folders.iter().map(|folder| folder.display().to_string()).collect() }
}

/// Every figure by its name, of each run.
fn scores(runs: &[Found]) -> Vec<Row> {
    let mut names: Vec<String> = Vec::new();
    let figures: Vec<BTreeMap<String, f64>> = runs
        .iter()
        .map(|run| {
            let all = figures(run);
            for (name, _) in &all {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            all.into_iter().collect()
        })
        .collect();
    let row = |name: String| {
        let values: Vec<Option<f64>> = figures.iter().map(|run| run.get(&name).copied()).collect();
        let known = values.iter().enumerate().filter_map(|(i, value)| Some((i, (*value)?)));
        let lower_is_better = name.contains("loss") || name.contains("error");
        let key = |value: f64| if lower_is_better { -value } else { value };
        let best = known.clone().max_by(|a, b| key(a.1).total_cmp(&key(b.1))).filter(|best| {
            // Of equals none is the best; how long it took is told, not judged.
            let equal = known.clone().filter(|other| other.1 == best.1).count();
            known.clone().count() > 1 && equal == 1 && !name.contains("seconds")
        });
        let cells = values.iter().map(|value| value.map(|value| format!("{value:.4}"))).collect();
        Row { name, cells, best: best.map(|best| best.0) }
    };
    names.into_iter().map(row).collect()
}

fn figures(run: &Found) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    for scored in &run.evaluations {
        let Evaluation { task, kind, scores, calibration_error, .. } = &scored.evaluation;
        let named = |name: &str| match &kind[..] {
            "validation pictures" => format!("{task}: {name}"),
            other => format!("{task}: {name} ({other})"),
        };
        all.extend(scores.iter().map(|(name, value)| (named(name), *value)));
        all.extend(calibration_error.map(|error| (named("expected calibration error"), error)));
    }
    for training in &run.trainings {
        let task = training.record.as_ref().map_or("", |record| &record.task);
        let named = |name: &str| if task.is_empty() { name.into() } else { format!("{task}: {name}") };
        all.extend(training.score().map(|(name, _, value)| (named(&format!("best {name}")), value)));
        all.extend(training.history.epochs.last().map(|last| (named("last training loss"), last.loss)));
        all.extend(
            training.record.as_ref().map(|record| (named("seconds of training"), record.seconds)),
        );
    }
    for attacked in &run.attacks {
        for attack in &attacked.summary.attacks {
            let method = attack.get("method").and_then(|method| method.as_str()).unwrap_or_default();
            let by = format!("{method} {}", attacked.summary.epsilon(attack));
            let key = if attacked.summary.task == "segment" { "score" } else { "robust" };
            let value = attack.get(key).and_then(|value| value.as_f64());
            all.extend(
                value.map(|value| (format!("{}: {key} under {by}", attacked.summary.task), value)),
            );
        }
    }
    all
}

/// Settings that are not the same in all runs of a task; those of a task that only one run had say nothing.
fn differing_settings(runs: &[Found]) -> Vec<Row> {
    let mut names: Vec<String> = Vec::new();
    let mut all: Vec<BTreeMap<String, String>> = Vec::new();
    for run in runs {
        let mut settings = BTreeMap::new();
        for record in run.trainings.iter().filter_map(|training| training.record.as_ref()) {
            let own = [
                ("version", record.version.clone()),
                ("parameters", record.parameters.to_string()),
                ("training images", record.train_images.to_string()),
                ("validation images", record.validation_images.to_string()),
                ("threads", record.threads.to_string()),
            ];
            let own = own.map(|(name, value)| (name.to_owned(), value));
            for (name, value) in own.into_iter().chain(record.flat_settings()) {
                let name = format!("{}: {name}", record.task);
                if !names.contains(&name) {
                    names.push(name.clone());
                }
                settings.insert(name, value);
            }
        }
        all.push(settings);
    }
    let row = |name: String| {
        let cells: Vec<Option<String>> = all.iter().map(|run| run.get(&name).cloned()).collect();
        Row { name, cells, best: None }
    };
    let differs = |row: &Row| {
        let mut known = row.cells.iter().flatten();
        let first = known.next();
        known.any(|cell| Some(cell) != first)
    };
    names.into_iter().map(row).filter(differs).collect()
}

fn table(names: &[String], rows: &[Row], without: &str) -> Result<Markup> {
    if rows.is_empty() {
        return note(without);
    }
    let cell = |row: &Row, i: usize| {
        let text = row.cells[i].clone().unwrap_or_else(|| "–".into());
        serde_json::json!({ "text": text, "best": row.best == Some(i) })
    };
    let row = |row: &Row| {
        let cells: Vec<_> = (0..names.len()).map(|i| cell(row, i)).collect();
        serde_json::json!({ "name": row.name, "cells": cells })
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let values = serde_json::json!({ "names": names, "rows": rows });
    fill(include_str!("templates/runs.html"), &values)
}

/// A plot for each figure of the histories, with a curve a run: validation, where there is some.
fn curves(runs: &[Found], names: &[String], all: &mut Plots) -> Result<Option<Markup>> {
    let mut titles: Vec<(String, bool, Vec<Curve>)> = Vec::new();
    for (run, name) in runs.iter().zip(names) {
        for training in &run.trainings {
            let task = training.record.as_ref().map_or("", |record| &record.task);
            for panel in from_history(&training.history)? {
                let validation = panel.curves.iter().find(|curve| curve.name == "validation");
                let Some(curve) = validation.or(panel.curves.first()) else { continue };
                let of = if validation.is_some() { "validation" } else { "training" };
                let of = if panel.title == "Learning rate" { "" } else { of };
                let words: Vec<&str> = [task, of].into_iter().filter(|word| !word.is_empty()).collect();
                let title = match words.is_empty() {
                    true => panel.title.clone(),
                    false => format!("{} ({})", panel.title, words.join(", ")),
                };
                let curve = Curve { name: name.clone(), points: curve.points.clone() };
                match titles.iter_mut().find(|known| known.0 == title) {
                    Some(known) => known.2.push(curve),
                    None => titles.push((title, panel.log, vec![curve])),
                }
            }
        }
    }
    let drawn = titles.into_iter().enumerate().map(|(i, (title, log, curves))| {
        let lines = Lines { curves, x: "epoch".into(), log, ..Lines::default() };
        let plot = Plot { title, chart: Chart::Lines(lines) };
        (all.add(format!("compare-curves-{}", i + 1), plot), String::new())
    });
    let drawn: Vec<_> = drawn.collect();
    (!drawn.is_empty()).then(|| plots(&drawn)).transpose()
}

/// Bars a class and run, for each task of which several runs have scores.
fn classes(runs: &[Found], names: &[String], all: &mut Plots) -> Result<Option<Markup>> {
    let mut parts = Vec::new();
    for task in ["classify", "segment"] {
        let of = |run: &'_ Found| -> Option<Evaluation> {
            run.evaluations.iter().map(|scored| &scored.evaluation).find(|e| e.task == task).cloned()
        };
        let scored: Vec<(&String, Evaluation)> =
            runs.iter().zip(names).filter_map(|(run, name)| Some((name, of(run)?))).collect();
        let [(first, base), others @ ..] = &scored[..] else { continue };
        if others.is_empty() {
            continue;
        }
        let values = |e: &Evaluation| e.classes.iter().map(ClassScores::score).collect::<Vec<_>>();
        let bars = Bars {
            names: base.classes.iter().map(|class| class.name.clone()).collect(),
            series: scored.iter().map(|(name, e)| ((*name).clone(), values(e))).collect(),
            most: 1.0,
        };
        let what = if task == "segment" { "IoU" } else { "Average precision" };
        let plot = Plot { title: format!("{what} of each class ({task})"), chart: Chart::Bars(bars) };
        let plot = all.add(format!("compare-classes-{task}"), plot);
        let rows = differences(base, &scored);
        let columns: Vec<String> = scored
            .iter()
            .enumerate()
            .map(|(i, (name, _))| if i == 0 { (*name).clone() } else { format!("{name} − {first}") })
            .collect();
        parts.extend([heading(&format!("{what}, {task}"))?, plots(&[(plot, String::new())])?]);
        parts.push(table(&columns, &rows, "")?);
    }
    Ok((!parts.is_empty()).then(|| Markup::join(parts)))
}

/// The first run's score of each class, and by how much the others differ from it.
fn differences(base: &Evaluation, scored: &[(&String, Evaluation)]) -> Vec<Row> {
    let row = |(i, class): (usize, &ClassScores)| {
        let cell = |(run, (_, e)): (usize, &(&String, Evaluation))| {
            let score = e.classes.get(i)?.score()?;
            match run {
                0 => Some(format!("{score:.3}")),
                _ => Some(format!("{:+.3}", score - class.score()?)),
            }
        };
        Row {
            name: class.name.clone(),
            cells: scored.iter().enumerate().map(cell).collect(),
            best: None,
        }
    };
    base.classes.iter().enumerate().map(row).collect()
}

/// The rows in columns, for a terminal.
fn text(names: &[String], tables: &[(&str, &[Row])]) -> String {
    let rows = || tables.iter().flat_map(|(_, rows)| rows.iter());
    let length = |text: &str| text.chars().count();
    let first = rows().map(|row| length(&row.name)).chain([20]).max().unwrap_or(0);
    let width = |i: usize| {
        let cells = rows().filter_map(|row| row.cells[i].as_deref()).map(length);
        cells.chain([length(&names[i]), 8]).max().unwrap_or(0) + 2
    };
    let widths: Vec<usize> = (0..names.len()).map(width).collect();
    let mut lines = Vec::new();
    for (title, rows) in tables.iter().filter(|(_, rows)| !rows.is_empty()) {
        let heads = names.iter().zip(&widths).map(|(name, &width)| format!("{name:>width$}"));
        lines.push(format!("{title:<first$}{}", heads.collect::<String>()));
        for row in *rows {
            let cells = row.cells.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| {
                let mark = if row.best == Some(i) { "*" } else { "" };
                format!("{:>width$}", format!("{mark}{}", cell.as_deref().unwrap_or("-")))
            });
            lines.push(format!("{:<first$}{}", row.name, cells.collect::<String>()));
        }
        lines.push(String::new());
    }
    lines.pop();
    lines.join("\n")
}
