//! Everything that is wrong with a folder of images, found in one pass.

mod contents;
#[cfg(feature = "pictures")]
mod devkit;
#[cfg(feature = "pictures")]
mod own;

use crate::backend::cpu::threads;
use crate::data::voc_npy::{self, Row, Split, Table};
use crate::data::{Classes, Image, Labels, Mask, id, is_there, read_file};
#[cfg(feature = "pictures")]
use crate::data::{
    source::{Layout, Source},
    voc_devkit,
};
use crate::error::{Error, Result, printable};
use contents::Contents;
use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What [`check`] found in a folder; printed, it is the text of `atrous data check`.
///
/// ```
/// use atrous::Error;
/// use atrous::data::check::Report;
///
/// let mut report = Report::default();
/// assert_eq!(report.to_string(), "nothing is wrong\n");
/// report.notes.push("there is no `test` folder".into());
/// assert!(report.is_fine());
/// report.problems.push(Error::file("train/train_set.csv", "expected a file, got none"));
/// assert!(!report.is_fine());
/// assert!(report.to_string().contains("problems (1):\n  train/train_set.csv: expected a file"));
/// ```
#[derive(Debug, Default)]
pub struct Report {
    /// A summary for each table or list of images that could be read.
    pub splits: Vec<Summary>,
    /// What keeps the data from being used, with file and row.
    pub problems: Vec<Error>,
    /// What is worth knowing and hinders nothing.
    pub notes: Vec<String>,
}

/// Counts and sizes of one split.
#[derive(Debug, Default)]
pub struct Summary {
    /// `train` or `test`; in a VOCdevkit the list, `Main, train`.
    pub split: String,
    /// Rows of the table that are right.
    pub rows: usize,
    /// Rows among them whose labels are not known.
    pub unlabelled: usize,
    /// Images that could be read.
    pub images: usize,
    /// Masks that could be read.
    pub masks: usize,
    /// Masks among them in which every pixel is void.
    pub void: usize,
    /// The classes, and how many rows have each.
    pub classes: Vec<(String, usize)>,
    /// Smallest and largest height, in pixels, of the images that could be read; None where none
    /// could.
    pub heights: Option<(usize, usize)>,
    /// Smallest and largest width of those images, in pixels.
    pub widths: Option<(usize, usize)>,
}

impl Report {
    /// Whether there is no problem; notes do not count.
    pub fn is_fine(&self) -> bool {
        self.problems.is_empty()
    }

    /// Takes a split's summary, and says what is to be known of its masks.
    fn add(&mut self, summary: Summary) {
        let Summary { split, masks, void, .. } = &summary;
        if *void > 0 {
            let consequence = match void == masks {
                true => "nothing can be learnt from them or measured with them",
                false => "they teach and measure nothing",
            };
            let note =
                format!("{void} of {masks} masks of {split} are void (255) throughout: {consequence}");
            self.notes.push(note);
        }
        self.splits.push(summary);
    }

    /// What a training set without labels is good for.
    fn judge_labels(&mut self, summary: &Summary, list: &Path) {
        let Summary { split, rows, unlabelled, masks, .. } = summary;
        if *rows == 0 || unlabelled < rows {
            return;
        }
        if *masks == 0 {
            let message =
                "expected labels or masks to train on, got none: the labels of no picture are known";
            self.problems.push(Error::file(list, message));
        } else {
            let note =
                format!("the labels of no picture of {split} are known: no classifier can be trained");
            self.notes.push(note);
        }
    }

    fn note_capitals<'a>(&mut self, split: &str, ids: impl Iterator<Item = &'a str>) {
        let note = |(a, b)| {
            format!(
                "{split}: only capitals tell `{a}` from `{b}`: some file systems have one file for both"
            )
        };
        self.notes.extend(id::differ_by_capitals(ids).into_iter().map(note));
    }
}

/// Reads the whole folder. Only a folder that is not there at all is an error here; all else is
/// in the report.
///
/// ```
/// use atrous::data::voc_npy::{self, Split};
/// use atrous::data::{Classes, Image, Mask, check};
///
/// let folder = tempfile::tempdir()?;
/// let root = folder.path();
/// # for folder in ["train/img", "train/seg"] {
/// #     std::fs::create_dir_all(root.join(folder))?;
/// # }
/// let classes = Classes::new(["cat", "dog"])?;
/// voc_npy::write_csv(Split::Train.csv(root), &classes, [("7", Some(vec![true, false]))])?;
/// voc_npy::write_image(Split::Train.image(root, "7"), &Image::new(2, 2, vec![90; 12])?)?;
/// voc_npy::write_mask(Split::Train.mask(root, "7"), &Mask::new(2, 2, vec![0, 1, 1, 3])?)?;
///
/// let report = check::check(root)?;
/// assert!(!report.is_fine());
/// assert_eq!((report.splits[0].rows, &report.splits[0].classes[0]), (1, &("cat".to_owned(), 1)));
/// assert!(report.problems[0].to_string().ends_with("expected 0 to 2 or 255, got 3 at row 1, column 1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn check(root: impl AsRef<Path>) -> Result<Report> {
    let root = root.as_ref();
    if !root.is_dir() {
        return Err(Error::file(root, "expected a folder with `train` and `test`, got none"));
    }
    let mut report = Report::default();
    #[cfg(feature = "pictures")]
    if let Some(below) = voc_devkit::locate(root) {
        // A folder in both layouts is in none.
        report.problems.extend(Source::open(root).err());
        devkit::check(&below, &mut report);
        return Ok(report);
    }
    #[cfg(feature = "pictures")]
    if let Ok(Source { layout: Layout::Own(layout), .. }) = Source::open(root) {
        own::check(root, layout, &mut report);
        return Ok(report);
    }
    let mut contents = Contents::default();
    let mut classes: Option<Classes> = None;
    for split in [Split::Train, Split::Test] {
        if root.join(split.name()).is_dir() {
            let own = check_split(root, split, &mut report, &mut contents);
            let known = classes.get_or_insert_with(|| own.clone());
            if *known != own {
                let message =
                    format!("expected the classes of the training set, {known:?}, got {own:?}");
                report.problems.push(Error::file(split.csv(root), message));
            }
        } else if split == Split::Train {
            report.problems.push(Error::file(root.join("train"), "expected a folder, got none"));
        } else {
            report.notes.push("there is no `test` folder".to_owned());
        }
    }
    report.notes.extend(contents.notes());
    Ok(report)
}

/// What one row's files are, and what is wrong with them.
#[derive(Default)]
struct Found {
    size: Option<(usize, usize)>,
    /// What its image's file holds, in short.
    content: Option<u64>,
    mask: bool,
    void: bool,
    problems: Vec<Error>,
    note: Option<String>,
}

/// Its classes are returned.
fn check_split(root: &Path, split: Split, report: &mut Report, contents: &mut Contents) -> Classes {
    let csv = split.csv(root);
    let (Table { classes, rows }, problems) = match read_file(&csv) {
        Ok(bytes) => voc_npy::parse_csv(&csv, &bytes),
        Err(error) => (Table { classes: Classes::voc(), rows: Vec::new() }, vec![error]),
    };
    let table_is_fine = problems.is_empty();
    report.problems.extend(problems);
    if table_is_fine && rows.is_empty() {
        report.problems.push(Error::file(&csv, "expected at least one row below the header"));
    }

    let mut summary = Summary::new(split.name().to_owned(), rows.len(), &classes);
    let found = threads::map(rows.len(), |i| check_row(root, split, &csv, &rows[i], &classes));
    for (row, found) in rows.iter().zip(found) {
        contents.add(split.name(), &row.id, found.content);
        summary.add(row.labels.as_ref(), found, report);
    }
    report.note_capitals(split.name(), rows.iter().map(|row| row.id.as_str()));

    // Files of rows that are wrong would be called strays only because of that.
    if table_is_fine {
        let known: HashSet<PathBuf> = rows
            .iter()
            .flat_map(|row| [split.image(root, &row.id), split.mask(root, &row.id)])
            .collect();
        for path in [split.image(root, ""), split.mask(root, "")] {
            let files = path.parent().and_then(|folder| fs::read_dir(folder).ok());
            let files = files.into_iter().flatten().flatten().map(|entry| entry.path());
            let mut strays: Vec<PathBuf> = files.filter(|path| !known.contains(path)).collect();
            strays.sort();
            let note = |path: PathBuf| format!("{}: no row of {} has it", path.display(), csv.display());
            report.notes.extend(strays.into_iter().map(note));
        }
    }
    if split == Split::Train {
        if summary.masks > 0 && summary.masks < summary.rows {
            report.notes.push(format!(
                "{} of {} pictures of train have a mask: segmentation trains on those",
                summary.masks, summary.rows
            ));
        }
        if table_is_fine {
            report.judge_labels(&summary, &csv);
        }
    }
    report.add(summary);
    classes
}

fn check_row(root: &Path, split: Split, csv: &Path, row: &Row, classes: &Classes) -> Found {
    let mut found = Found::default();
    if let Err(error) = voc_npy::image_exists(root, split, csv, row) {
        found.problems.push(error);
    } else {
        match voc_npy::read_image(split.image(root, &row.id)) {
            Ok(Image { height, width, .. }) => found.size = Some((height, width)),
            Err(error) => found.problems.push(error),
        }
        found.content = contents::of(&split.image(root, &row.id));
    }
    let path = split.mask(root, &row.id);
    let mask = is_there(&path).then(|| voc_npy::read_mask(&path));
    found.judge(&path, mask, row.labels.as_ref(), classes);
    found
}

impl Summary {
    fn new(split: String, rows: usize, classes: &Classes) -> Self {
        let classes = classes.iter().map(|name| (name.to_owned(), 0)).collect();
        Summary { split, rows, classes, ..Summary::default() }
    }

    fn add(&mut self, labels: Option<&Labels>, found: Found, report: &mut Report) {
        match labels {
            None => self.unlabelled += 1,
            Some(labels) => {
                self.classes.iter_mut().zip(labels).for_each(|((_, n), &set)| *n += set as usize)
            }
        }
        if let Some((height, width)) = found.size {
            let widened = |range: Option<(usize, usize)>, value: usize| {
                Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
            };
            self.heights = widened(self.heights, height);
            self.widths = widened(self.widths, width);
            self.images += 1;
        }
        self.masks += found.mask as usize;
        self.void += found.void as usize;
        report.problems.extend(found.problems);
        report.notes.extend(found.note);
    }
}

impl Found {
    fn judge(
        &mut self,
        path: &Path,
        mask: Option<Result<Mask>>,
        labels: Option<&Labels>,
        classes: &Classes,
    ) {
        match mask {
            None => {}
            Some(Ok(mask)) => {
                self.mask = true;
                check_mask(path, &mask, labels, classes, self);
            }
            Some(Err(error)) => self.problems.push(error),
        }
    }
}

fn check_mask(path: &Path, mask: &Mask, labels: Option<&Labels>, classes: &Classes, found: &mut Found) {
    if let Err(message) = mask.check(classes.len()) {
        found.problems.push(Error::file(path, message));
        return;
    }
    found.void = mask.is_void();
    if let Some((height, width)) = found.size
        && let Err(message) = mask.fits(height, width)
    {
        found.problems.push(Error::file(path, message));
    }
    // A mask that is void throughout does not say that what is labelled is not there.
    if let Some(labels) = labels.filter(|_| !found.void) {
        let shown = mask.labels(classes.len());
        let only = |a: &Labels, b: &Labels| {
            let only: Labels = a.iter().zip(b).map(|(&a, &b)| a && !b).collect();
            classes.named(&only).collect::<Vec<_>>().join(", ")
        };
        let (label_only, mask_only) = (only(labels, &shown), only(&shown, labels));
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
        list("notes", self.notes.iter().map(|note| printable(note).into_owned()).collect())?;
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
        write!(f, ", {} pictures, {} masks", self.images, self.masks)?;
        if let (Some((low, high)), Some((left, right))) = (self.heights, self.widths) {
            write!(f, ", {low} to {high} high, {left} to {right} wide")?;
        }
        writeln!(f)?;
        if self.unlabelled == self.rows {
            return Ok(());
        }
        for names in self.classes.chunks(5) {
            let cells: Vec<String> =
                names.iter().map(|(name, n)| format!("{name:>12} {n:>4}")).collect();
            writeln!(f, "  {}", cells.join(" "))?;
        }
        Ok(())
    }
}
