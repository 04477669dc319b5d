//! `atrous man`

use super::folder::refuse_files;
use super::version::VERSION;
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
    // What a machine has belongs into `--version`, not into a page.
    let command = command.clone().display_name(name(command)).long_version(None::<&str>);
    let text = command.get_after_long_help().map(|text| notes(&text.to_string()));
    let has_others = command.has_subcommands();
    let page = Page::new(command).source(format!("atrous {VERSION}")).manual("atrous");
    let mut roff = Vec::new();
    // (A vector takes everything.)
    let _ = page.render_title(&mut roff);
    let _ = page.render_name_section(&mut roff);
    let _ = page.render_synopsis_section(&mut roff);
    let _ = page.render_description_section(&mut roff);
    let _ = page.render_options_section(&mut roff);
    if has_others {
        let _ = page.render_subcommands_section(&mut roff);
    }
    roff.extend(text.unwrap_or_default().bytes());
    roff
}

/// The text behind the options; lines that begin with a blank keep their ends.
fn notes(text: &str) -> String {
    let mut roff = String::from(".SH NOTES\n");
    for paragraph in text.trim().split("\n\n") {
        let exact = paragraph.lines().any(|line| line.starts_with(' '));
        roff += if exact { ".PP\n.nf\n" } else { ".PP\n" };
        paragraph.lines().for_each(|line| roff += &(escaped(line) + "\n"));
        roff += if exact { ".fi\n" } else { "" };
    }
    roff
}

/// A line that roff takes for nothing but text.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_and_nothing_is_taken_for_a_command_of_roff() {
        let text = "It is\nso.\n\nExample:\n  atrous a --b \\\n      c\n\n.nf";
        let wanted = ".SH NOTES\n.PP\nIt is\nso.\n.PP\n.nf\nExample:\n  atrous a \\-\\-b \\e\n      c\n.fi\n\
                      .PP\n\\&.nf\n";
        assert_eq!(notes(text), wanted);
    }
}
