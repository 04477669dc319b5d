//! Everything that is wrong with a folder in the competition's layout, found in one pass.

use crate::cpu::threads;
use crate::data::voc_npy::{self, Row, Split};
use crate::data::{CLASSES, Labels, Mask, Picture};
use crate::error::{Error, Result};
use crate::files::explain;
use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
pub struct Report {
    pub splits: Vec<Summary>,
    /// What keeps the data from being used.
    pub problems: Vec<Error>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// What is in one split.
#[derive(Debug, Default)]
pub struct Summary {
    pub split: &'static str,
    /// Rows of the table that are right.
    pub rows: usize,
    /// Rows among them whose labels are not known.
    pub unlabelled: usize,
    pub pictures: usize,
    pub masks: usize,
    /// Rows with each class.
    pub classes: [usize; CLASSES.len()],
    /// Smallest and largest height, and width, of the pictures that could be read.
    pub heights: Option<(usize, usize)>,
    pub widths: Option<(usize, usize)>,
}

impl Report {
    pub fn is_fine(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads the whole folder. Only a folder that is not there at all is an error here; all else is
/// in the report.
pub fn check(root: impl AsRef<Path>) -> Result<Report> {
    let root = root.as_ref();
    if !root.is_dir() {
        return Err(Error::file(root, "expected a folder with `train` and `test`, got none"));
    }
    let mut report = Report::default();
    for split in [Split::Train, Split::Test] {
        if root.join(split.name()).is_dir() {
            check_split(root, split, &mut report);
        } else if split == Split::Train {
            report.problems.push(Error::file(root.join("train"), "expected a folder, got none"));
        } else {
            report.notes.push("there is no `test` folder".to_owned());
        }
    }
    Ok(report)
}

/// What one row's files are, and what is wrong with them.
#[derive(Default)]
struct Found {
    size: Option<(usize, usize)>,
    mask: bool,
    problems: Vec<Error>,
    note: Option<String>,
}

fn check_split(root: &Path, split: Split, report: &mut Report) {
    let csv = split.csv(root);
    let (rows, problems) = match fs::read(&csv) {
        Ok(bytes) => voc_npy::parse_csv(&csv, &bytes),
        Err(error) => (Vec::new(), vec![Error::file(&csv, explain(&error))]),
    };
    let table_is_fine = problems.is_empty();
    report.problems.extend(problems);
    if table_is_fine && rows.is_empty() {
        report.problems.push(Error::file(&csv, "expected at least one row below the header"));
    }

    let mut summary = Summary { split: split.name(), rows: rows.len(), ..Summary::default() };
    let found = threads::map(rows.len(), |i| check_row(root, split, &csv, &rows[i]));
    for (row, found) in rows.iter().zip(found) {
        match row.labels {
            None => summary.unlabelled += 1,
            Some(labels) => {
                summary.classes.iter_mut().zip(labels).for_each(|(count, set)| *count += set as usize)
            }
        }
        if let Some((height, width)) = found.size {
            let widened = |range: Option<(usize, usize)>, value: usize| {
                Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
            };
            summary.heights = widened(summary.heights, height);
            summary.widths = widened(summary.widths, width);
            summary.pictures += 1;
        }
        summary.masks += found.mask as usize;
        report.problems.extend(found.problems);
        report.notes.extend(found.note);
    }

    // Files of rows that are wrong would be called strays only because of that.
    if table_is_fine {
        let known: HashSet<PathBuf> = rows
            .iter()
            .flat_map(|row| [split.picture(root, &row.id), split.mask(root, &row.id)])
            .collect();
        for path in [split.picture(root, ""), split.mask(root, "")] {
            let files = path.parent().and_then(|folder| fs::read_dir(folder).ok());
            let files = files.into_iter().flatten().flatten().map(|entry| entry.path());
            let mut strays: Vec<PathBuf> = files.filter(|path| !known.contains(path)).collect();
            strays.sort();
            let note = |path: PathBuf| format!("{}: no row of {} has it", path.display(), csv.display());
            report.notes.extend(strays.into_iter().map(note));
        }
    }
    if split == Split::Train && summary.masks > 0 && summary.masks < summary.rows {
        report.notes.push(format!("{} of {} rows of train have a mask", summary.masks, summary.rows));
    }
    report.splits.push(summary);
}

fn check_row(root: &Path, split: Split, csv: &Path, row: &Row) -> Found {
    let mut found = Found::default();
    if let Err(error) = voc_npy::picture_exists(root, split, csv, row) {
        found.problems.push(error);
    } else {
        match voc_npy::read_picture(split.picture(root, &row.id)) {
            Ok(Picture { height, width, .. }) => found.size = Some((height, width)),
            Err(error) => found.problems.push(error),
        }
    }
    let path = split.mask(root, &row.id);
    if path.exists() {
        match voc_npy::read_mask(&path) {
            Ok(mask) => {
                found.mask = true;
                check_mask(&path, &mask, row, &mut found);
            }
            Err(error) => found.problems.push(error),
        }
    }
    found
}

fn check_mask(path: &Path, mask: &Mask, row: &Row, found: &mut Found) {
    if let Some((y, x, value)) = mask.first_unknown() {
        let message =
            format!("expected 0 to {} or 255, got {value} at row {y}, column {x}", CLASSES.len());
        found.problems.push(Error::file(path, message));
        return;
    }
    if let Some((height, width)) = found.size
        && (height, width) != (mask.height, mask.width)
    {
        let message =
            format!("expected the picture's size, {height}×{width}, got {}×{}", mask.height, mask.width);
        found.problems.push(Error::file(path, message));
    }
    if let Some(labels) = row.labels {
        let shown = mask.labels();
        let only = |a: &Labels, b: &Labels| {
            let names = (0..CLASSES.len()).filter(|&class| a[class] && !b[class]);
            names.map(|class| CLASSES[class]).collect::<Vec<_>>().join(", ")
        };
        let (label_only, mask_only) = (only(&labels, &shown), only(&shown, &labels));
        let parts: Vec<String> =
            [(label_only, "a label but no pixel"), (mask_only, "pixels but no label")]
                .into_iter()
                .filter(|(names, _)| !names.is_empty())
                .map(|(names, what)| format!("{what}: {names}"))
                .collect();
        if !parts.is_empty() {
            found.note = Some(format!("{}: {}", path.display(), parts.join("; ")));
        }
    }
}

/// More than this many of a kind are counted, not listed.
const LISTED: usize = 50;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for summary in &self.splits {
            write!(f, "{summary}")?;
        }
        let mut list = |title: &str, lines: Vec<String>| -> fmt::Result {
            if lines.is_empty() {
                return Ok(());
            }
            writeln!(f, "{title} ({}):", lines.len())?;
            lines.iter().take(LISTED).try_for_each(|line| writeln!(f, "  {line}"))?;
            match lines.len().saturating_sub(LISTED) {
                0 => Ok(()),
                more => writeln!(f, "  … and {more} more"),
            }
        };
        list("notes", self.notes.clone())?;
        list("problems", self.problems.iter().map(Error::to_string).collect())?;
        if self.is_fine() {
            writeln!(f, "nothing is wrong")?;
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} rows", self.split, self.rows)?;
        if self.unlabelled > 0 {
            write!(f, " ({} without labels)", self.unlabelled)?;
        }
        write!(f, ", {} pictures, {} masks", self.pictures, self.masks)?;
        if let (Some((low, high)), Some((left, right))) = (self.heights, self.widths) {
            write!(f, ", {low} to {high} high, {left} to {right} wide")?;
        }
        writeln!(f)?;
        if self.unlabelled == self.rows {
            return Ok(());
        }
        for names in CLASSES.iter().zip(self.classes).collect::<Vec<_>>().chunks(5) {
            let cells: Vec<String> =
                names.iter().map(|(name, n)| format!("{name:>12} {n:>4}")).collect();
            writeln!(f, "  {}", cells.join(" "))?;
        }
        Ok(())
    }
}
