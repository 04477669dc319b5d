//! `atrous data make`, `atrous data check`, `atrous data convert`

use super::compute::Threads;
use super::convert::Convert;
use super::output::{self, Quiet};
use super::progress::{asked_to_stop, bar, interruptible};
use super::train::open;
use super::version::VERSION;
use atrous::data::synthetic::Contents;
use atrous::data::{check, synthetic};
use atrous::report;
use atrous::{Error, Result};
use clap::{Args, Subcommand, ValueHint};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Data {
    /// Make up a data set: up to 20 classes, one or several objects an image, exact masks
    Make(Make),
    /// Tell everything that is wrong with a folder, in one pass
    Check(Check),
    /// Turn any layout into the competition's npy or into VOCdevkit
    Convert(Convert),
}

#[derive(Args)]
#[command(after_long_help = "\
Each image has objects of up to 20 classes, which differ in shape and texture and not in colour, partly \
hidden by one another and before clutter. Of each object every pixel is known. The folder is in the \
competition's layout: train/train_set.csv, images and masks as .npy files. A folder that is not empty is \
not written to.

Examples:
  atrous data make shapes
  atrous data make shapes --train 300 --test 100 --seed 5
  atrous data make seven --classes 7 --single")]
pub struct Make {
    /// The folder to make
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Training images
    #[arg(long, default_value_t = 749, value_name = "N")]
    train: usize,
    /// Test images
    #[arg(long, default_value_t = 750, value_name = "N")]
    test: usize,
    /// The same seed makes the same images
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Classes of objects, 2 to 20
    #[arg(long, default_value_t = 20, value_name = "N")]
    classes: usize,
    /// One object an image, so that an image is of one class; else one to three
    #[arg(long)]
    single: bool,
    #[command(flatten)]
    quiet: Quiet,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Args)]
#[command(after_long_help = "\
Tables, images and masks are all read. What keeps them from being used is told with file, line and column, \
all of it in one pass, and the exit status is 1; what is worth knowing and hinders nothing is a note. With \
--quiet problems alone are told. The keys of --json are in docs/schemas/check.json.

Examples:
  atrous data check voc
  atrous data check VOCdevkit --gallery gallery.png
  atrous data check voc --json | jq '.problems[].message'")]
pub struct Check {
    /// Folder with images, in any layout (`atrous train classify --help`)
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: PathBuf,
    /// Draw some images of each class, with their masks [default: not drawn]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    gallery: Option<PathBuf>,
    /// Print JSON, and anything else on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
    #[command(flatten)]
    pub threads: Threads,
}

/// Pictures of each class in a gallery.
pub const GALLERY: usize = 3;

impl Data {
    pub fn run(self) -> Result<()> {
        match self {
            Data::Make(make) => make.run(),
            Data::Check(check) => check.run(),
            Data::Convert(convert) => convert.run(),
        }
    }

    pub fn threads(&self) -> &Threads {
        match self {
            Data::Make(Make { threads, .. })
            | Data::Check(Check { threads, .. })
            | Data::Convert(Convert { threads, .. }) => threads,
        }
    }
}

impl Check {
    fn run(self) -> Result<()> {
        self.quiet.apply();
        if self.json {
            output::for_json();
        }
        let report = check::check(&self.dir)?;
        if self.json {
            output::json(&json(&self.dir, &report))?;
        } else if output::is_quiet() {
            report.problems.iter().for_each(|problem| result!("{problem}"));
        }
        told(&self.dir, &report, self.json)?;
        let Some(path) = self.gallery else { return Ok(()) };
        report::gallery(&*open(&self.dir, false)?.dataset, &path, GALLERY)?;
        println!("gallery: {}", path.display());
        Ok(())
    }
}

/// What was found, as docs/schemas/check.json has it.
fn json(dir: &Path, report: &check::Report) -> Value {
    let split = |split: &check::Summary| {
        let classes = split.classes.iter().map(|(name, n)| (name.clone(), json!(n)));
        json!({
            "split": split.split,
            "rows": split.rows,
            "unlabelled": split.unlabelled,
            "images": split.images,
            "masks": split.masks,
            "void_masks": split.void,
            "classes": classes.collect::<Map<_, _>>(),
            "heights": split.heights.map(|(least, most)| [least, most]),
            "widths": split.widths.map(|(least, most)| [least, most]),
        })
    };
    let problem = |error: &Error| {
        let (path, line, column, message) = match error {
            Error::Row { path, line, column, message } => {
                (Some(path), Some(line), column.as_ref(), message)
            }
            Error::File { path, message } => (Some(path), None, None, message),
            other => return json!({ "message": other.to_string() }),
        };
        json!({ "file": path, "line": line, "column": column, "message": message })
    };
    json!({
        "version": VERSION,
        "folder": dir,
        "fine": report.is_fine(),
        "splits": report.splits.iter().map(split).collect::<Vec<_>>(),
        "problems": report.problems.iter().map(problem).collect::<Vec<_>>(),
        "notes": report.notes,
    })
}

impl Make {
    /// Into a new folder or an empty one: pictures that are there already are worth more than made
    /// up ones.
    fn run(self) -> Result<()> {
        self.quiet.apply();
        let contents = Contents { classes: self.classes, single: self.single };
        make_with_progress(&self.dir, self.train, self.test, self.seed, contents)
    }
}

pub fn make_with_progress(
    dir: &Path,
    train: usize,
    test: usize,
    seed: u64,
    contents: Contents,
) -> Result<()> {
    let bar = bar(train.saturating_add(test), "making pictures");
    let progress = |done, _| {
        bar.set_position(done as u64);
        asked_to_stop()
    };
    let made = interruptible(|| synthetic::make(dir, train, test, seed, contents, &progress));
    bar.finish_and_clear();
    made?;
    println!("made {train} training and {test} test pictures in {}", dir.display());
    Ok(())
}

/// Prints what the folder holds; an error when something is wrong with it.
pub fn check_or_fail(dir: &Path) -> Result<()> {
    told(dir, &check::check(dir)?, false)
}

fn told(dir: &Path, report: &check::Report, is_json: bool) -> Result<()> {
    if !is_json {
        println!("{report}");
    }
    match report.problems.len() {
        0 => Ok(()),
        1 => Err(Error::file(dir, "one problem, told above")),
        n => Err(Error::file(dir, format!("{n} problems, told above"))),
    }
}
