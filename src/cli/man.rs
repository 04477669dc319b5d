//! `atrous man`

use super::folder::refuse_files;
use super::{Cli, output};
use atrous::files::{explain, write_atomically};
use atrous::{Error, Result};
use clap::{Args, Command, CommandFactory, ValueHint};
use clap_mangen::Man as Page;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_long_help = "\
Without --out the page of `atrous` itself goes to standard output. With it the folder gets that page, \
atrous.1, and one for each command, like atrous-train-classify.1.

Examples:
  atrous man | man -l -
  atrous man --out ~/.local/share/man/man1 && man atrous-train-classify")]
pub struct Man {
    /// Folder for the pages [default: the first one on standard output]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Overwrite pages that are there already
    #[arg(long, requires = "out")]
    force: bool,
}

impl Man {
    pub fn run(self) -> Result<()> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        let Some(out) = self.out else {
            output::document(&page(&command));
            return Ok(());
        };
        let pages = pages(&command);
        std::fs::create_dir_all(&out).map_err(|error| Error::file(&out, explain(&error)))?;
        if !self.force {
            refuse_files(pages.iter().map(|(name, _)| out.join(name)))?;
        }
        for (name, page) in &pages {
            write_atomically(out.join(name), |file| file.write_all(page))?;
        }
        println!("written: {} pages in {}", pages.len(), out.display());
        Ok(())
    }
}

/// The pages of a command and of all below it, with their names.
fn pages(command: &Command) -> Vec<(String, Vec<u8>)> {
    let own = (format!("{}.1", name(command)), page(command));
    std::iter::once(own).chain(command.get_subcommands().flat_map(pages)).collect()
}

/// `atrous-train-classify`
fn name(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-")
}

fn page(command: &Command) -> Vec<u8> {
    let mut text = Vec::new();
    // A vector takes everything.
    let _ = Page::new(command.clone().display_name(name(command))).render(&mut text);
    text
}
