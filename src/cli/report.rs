//! `atrous report` and `atrous compare`

use atrous::{Result, live, report};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = "\
Example:
  atrous report result

`train`, `run`, `attack` and `evaluate --out` write report.html themselves. This makes it again from the
folder's files (run.json, history.json, evaluation.json, summary.json, attack.csv, scores.txt, images):
the same files give the same bytes. Of what `run` left, the pages of its parts are made again, too. Every
plot is also in plots/, as SVG and PNG. A page is one file, and fetches nothing. Of a training that was
killed or still goes on, history.json and run.json are written first, as its events.jsonl tells them.")]
pub struct Report {
    /// A folder that `train`, `run`, `attack` or `evaluate --out` left
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Report {
    pub fn run(self) -> Result<()> {
        for part in ["", "classify", "segment"] {
            live::complete(&self.folder.join(part))?;
        }
        report::html::write_all(&self.folder)?.iter().for_each(|page| tell(page));
        Ok(())
    }
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous compare result other
  atrous compare runs/* --out side_by_side.html

It tells the settings that differ and the final scores (the best of each is marked), and writes a page
that has the curves over each other and the classes beside each other, too.")]
pub struct Compare {
    /// Folders that `train`, `run`, `attack` or `evaluate --out` left: two or more
    #[arg(value_name = "DIR", required = true, num_args = 2..)]
    folders: Vec<PathBuf>,
    /// The page; its plots go into plots/ beside it
    #[arg(long, value_name = "FILE", default_value = "compare.html")]
    out: PathBuf,
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let comparison = report::html::compare(&self.folders, &self.out)?;
        println!("{}\n", comparison.table);
        tell(&comparison.page);
        Ok(())
    }
}

/// Writes the page of a folder that a command has just filled.
pub fn write(folder: &Path) -> Result<()> {
    tell(&report::html::write(folder)?);
    Ok(())
}

fn tell(page: &Path) {
    println!("report: {}", page.display());
}
