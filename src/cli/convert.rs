//! `atrous data convert`

use super::compute::Threads;
use super::output::Quiet;
use super::progress::{asked_to_stop, bar, interruptible};
use atrous::Result;
use atrous::data::convert::convert;
use atrous::data::source;
use clap::{Args, ValueEnum, ValueHint};
use std::path::PathBuf;

#[derive(Args)]
#[command(after_long_help = "\
To npy, the folder's training and validation sets become one training set. To voc, images become JPEGs, so \
that their pixels are not quite the same; masks stay exact. A folder that is not empty is not written to.

Examples:
  atrous data convert --from VOCdevkit --to voc --layout npy
  atrous data convert --from voc --to devkit --layout voc")]
pub struct Convert {
    /// Folder in any layout that `train` takes
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    from: PathBuf,
    /// The folder to make
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    to: PathBuf,
    /// The layout to make
    #[arg(long, value_enum, value_name = "LAYOUT")]
    layout: Layout,
    #[command(flatten)]
    quiet: Quiet,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Clone, Copy, ValueEnum)]
enum Layout {
    /// The competition's: tables and .npy files
    Npy,
    /// PASCAL VOC's own
    Voc,
}

impl Convert {
    pub fn run(self) -> Result<()> {
        self.quiet.apply();
        let layout = match self.layout {
            Layout::Npy => source::Layout::VocNpy,
            Layout::Voc => source::Layout::VocDevkit,
        };
        let bar = bar(0, "converting");
        let progress = |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            asked_to_stop()
        };
        let done = interruptible(|| convert(&self.from, &self.to, layout, &progress));
        bar.finish_and_clear();
        let done = done?;
        println!(
            "{}: {} training and {} test pictures, {} masks",
            self.to.display(),
            done.train,
            done.test,
            done.masks
        );
        Ok(())
    }
}
