//! `report.html`: everything that a folder's files tell of a run, in one page; and runs side by side.
//!
//! A page is made of files alone (histories, evaluations, summaries, images), so that it can be made again,
//! to the same bytes.

mod attack;
mod compare;
mod evaluation;
mod found;
mod parts;
mod training;

use super::page::Page;
use super::plots::Plot;
use crate::error::{Error, Result};
use crate::files::{explain, write_atomically};
pub use attack::{AttackSummary, robustness_curves};
pub use compare::{Comparison, compare};
use found::Found;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
pub use training::TrainingRecord;

/// The page's name.
///
/// [`write()`] has an example.
pub const REPORT: &str = "report.html";
/// The folder of its plots, as SVG and PNG.
const PLOTS: &str = "plots";

/// Writes `report.html` into a folder that `train`, `run`, `attack` or `evaluate` left, and each of its plots
/// as SVG and PNG into `plots/`; gives the page's path. An error for a folder without anything to report, for
/// a file that is not what these commands write, and where nothing can be written.
///
/// ```
/// use atrous::report::evaluation::{self, Evaluation};
/// use atrous::report::html::{REPORT, write};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// assert!(write(folder).is_err()); // there is nothing to report
/// let scores = vec![("mean IoU".to_string(), 0.71)];
/// let evaluation = Evaluation { task: "segment".into(), scores, ..Evaluation::default() };
/// evaluation::write(&[evaluation], folder)?;
/// let page = write(folder)?;
/// assert_eq!(page, folder.join(REPORT));
/// assert!(std::fs::read_to_string(page).unwrap().contains("0.71"));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn write(folder: &Path) -> Result<PathBuf> {
    let found = Found::read(folder)?;
    let mut plots = Plots::default();
    let mut page = Page::new(format!("Report: {}", found.name)).subtitle(found.subtitle());
    page = page.section("overview", "Overview", found.overview()?);
    for run in &found.trainings {
        page = page.section(run.id("training"), run.heading("Training"), run.section(&mut plots)?);
    }
    for scored in &found.evaluations {
        page = scored.sections(page, &mut plots)?;
    }
    for attacked in &found.attacks {
        let (id, heading) = (attacked.id(), attacked.heading());
        page = page.section(id, heading, attacked.section(&mut plots)?);
    }
    if let Some(body) = found.images()? {
        page = page.section("images", "Images", body);
    }
    for run in found.trainings.iter().filter(|run| run.record.is_some()) {
        page = page.section(run.id("settings"), run.heading("Settings"), run.settings()?);
    }
    page = page.section("files", "Files", found.files(&plots)?);
    plots.write(folder)?;
    put(&page, &folder.join(REPORT))
}

/// [`write()`] for a folder and for those that a `run` left within it; the folder's own page is the last.
///
/// ```
/// use atrous::report::evaluation::{self, Evaluation};
/// use atrous::report::html::write_all;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// std::fs::create_dir(folder.join("segment")).unwrap(); // as `run` leaves it
/// let evaluation = Evaluation { task: "segment".into(), ..Evaluation::default() };
/// evaluation::write(&[evaluation], &folder.join("segment"))?;
/// assert_eq!(write_all(folder)?, ["segment/report.html", "report.html"].map(|page| folder.join(page)));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn write_all(folder: &Path) -> Result<Vec<PathBuf>> {
    let within = found::PARTS.map(|part| folder.join(part));
    let within = within.iter().filter(|part| found::has_anything(part));
    within.map(|part| write(part)).chain([write(folder)]).collect()
}

fn put(page: &Page, path: &Path) -> Result<PathBuf> {
    let html = page.render()?;
    write_atomically(path, |file| file.write_all(html.as_bytes()))?;
    Ok(path.to_owned())
}

/// The plots of a page, by the names of their files.
#[derive(Default)]
struct Plots(Vec<(String, Plot)>);

impl Plots {
    /// Remembers a plot for its files.
    fn add(&mut self, name: impl Into<String>, plot: Plot) -> Plot {
        self.0.push((name.into(), plot.clone()));
        plot
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let within = folder.join(PLOTS);
        if !self.0.is_empty() {
            std::fs::create_dir_all(&within).map_err(|error| Error::file(&within, explain(&error)))?;
        }
        self.0.iter().try_for_each(|(name, plot)| plot.write(&within, name).map(drop))
    }
}

/// What a JSON file holds; None where it is not there. An error that names its line.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        Error::Row { path: path.into(), line: error.line(), column: None, message: message.into() }
    })
}

/// A file's bytes; None where it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.is_file() {
        return Ok(None);
    }
    std::fs::read(path).map(Some).map_err(|error| Error::file(path, explain(&error)))
}
