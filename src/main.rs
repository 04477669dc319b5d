//! The command. Everything it does is in the library; here are the options and the messages.

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(atrous::Error::Interrupted(message)) => {
            eprintln!("{message}");
            // 128 + SIGINT, as shells report it.
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
