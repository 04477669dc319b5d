//! `atrous completions`

use super::{Cli, output};
use atrous::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Args)]
#[command(after_long_help = "\
The script goes to standard output. A new shell has it when it lies where that shell looks for such \
scripts, as below; commands, options, the names of networks, attacks and presets, and files are then \
completed by the Tab key.

Examples:
  atrous completions bash > ~/.local/share/bash-completion/completions/atrous
  atrous completions zsh > ~/.zfunc/_atrous       # with fpath+=~/.zfunc
  atrous completions fish > ~/.config/fish/completions/atrous.fish
  source <(atrous completions bash)               # for this shell alone")]
pub struct Completions {
    /// The shell that reads it
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "atrous", &mut script);
        output::document(&script);
        Ok(())
    }
}
