//! `atrous data make`, `atrous data check`, `atrous data convert`

use super::convert::Convert;
use super::progress::{asked_to_stop, bar, interruptible};
use super::train::open;
use atrous::data::synthetic::Contents;
use atrous::data::{check, synthetic};
use atrous::report;
use atrous::{Error, Result};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Data {
    /// Make up a data set: 20 classes, several objects a picture, exact masks
    Make(Make),
    /// Tell everything that is wrong with a folder, in one pass
    Check(Check),
    /// Turn one layout into the other: the competition's npy and VOCdevkit
    Convert(Convert),
}

#[derive(Args)]
#[command(after_help = "Example:\n  atrous data make pictures --train 749 --test 750")]
pub struct Make {
    /// The folder to make
    dir: PathBuf,
    #[arg(long, default_value_t = 749, value_name = "N")]
    train: usize,
    #[arg(long, default_value_t = 750, value_name = "N")]
    test: usize,
    /// The same seed makes the same pictures
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// How many classes of object there are, 2 to 20
    #[arg(long, default_value_t = 20, value_name = "N")]
    classes: usize,
    /// One object a picture, so that a picture is of one class; else one to three
    #[arg(long)]
    single: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  atrous data check voc --gallery gallery.png")]
pub struct Check {
    /// Folder in the competition's layout (train/ and test/) or VOCdevkit's
    dir: PathBuf,
    /// Draw training pictures and their masks, one column a class
    #[arg(long, value_name = "FILE")]
    gallery: Option<PathBuf>,
}

/// Pictures of each class in a gallery.
pub const GALLERY: usize = 3;

impl Data {
    pub fn run(self) -> Result<()> {
        match self {
            Data::Make(make) => make.run(),
            Data::Check(check) => {
                check_or_fail(&check.dir)?;
                let Some(path) = check.gallery else { return Ok(()) };
                report::gallery(&*open(&check.dir, false)?.dataset, &path, GALLERY)?;
                println!("gallery: {}", path.display());
                Ok(())
            }
            Data::Convert(convert) => convert.run(),
        }
    }
}

impl Make {
    /// Into a new folder or an empty one: pictures that are there already are worth more than made
    /// up ones.
    fn run(self) -> Result<()> {
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
    let report = check::check(dir)?;
    println!("{report}");
    match report.problems.len() {
        0 => Ok(()),
        1 => Err(Error::file(dir, "one problem, told above")),
        n => Err(Error::file(dir, format!("{n} problems, told above"))),
    }
}
