//! How a command failed: its exit status, and a message that names the option that would mend it.

use super::Cli;
use atrous::Error;
use clap::{Command, CommandFactory};
use std::path::Path;

/// What is told of an error.
pub struct Failure {
    /// 2 where the command line asks for what is not possible, as for an option that there is not; else 1.
    pub status: u8,
    /// The error's text, behind the option that it is about.
    pub message: String,
}

impl Failure {
    /// Of this program's command line.
    pub fn new(error: &Error) -> Self {
        let words: Vec<String> =
            std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        Failure::of(error, &words)
    }

    fn of(error: &Error, words: &[String]) -> Self {
        let status = if matches!(error, Error::Argument { .. }) { 2 } else { 1 };
        let text = error.to_string();
        let command = chosen(words);
        let message = match error {
            Error::Argument { what, .. } => match option(&command, what) {
                Some(flag) => format!("{flag}{}", text.strip_prefix(what).unwrap_or(&text)),
                None => text,
            },
            Error::File { path, .. } => match giver(&command, words, path) {
                Some(flag) => format!("{flag}: {text}"),
                None => text,
            },
            _ => text,
        };
        Failure { status, message }
    }
}

/// The command that the words begin with.
fn chosen(words: &[String]) -> Command {
    let mut command = Cli::command();
    for word in words {
        match command.find_subcommand(word) {
            Some(next) => command = next.clone(),
            None => break,
        }
    }
    command
}

/// The option that sets what the library calls so: `batch_size` is `--batch-size`.
fn option(command: &Command, setting: &str) -> Option<String> {
    let name = setting.replace('_', "-");
    let known = command.get_arguments().any(|option| option.get_long() == Some(&name[..]));
    known.then(|| format!("--{name}"))
}

/// The option whose value the path is, or is in.
fn giver(command: &Command, words: &[String], path: &Path) -> Option<String> {
    let is_it = |value: &str| !value.is_empty() && path.starts_with(value);
    words.iter().enumerate().find_map(|(i, word)| {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, value),
            None => (&word[..], words.get(i + 1)?.as_str()),
        };
        let name = flag.strip_prefix("--")?;
        let known = command.get_arguments().find(|option| option.get_long() == Some(name))?;
        (known.get_action().takes_values() && is_it(value)).then(|| flag.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: &Error, line: &str) -> (u8, String) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let failure = Failure::of(error, &words);
        (failure.status, failure.message)
    }

    #[test]
    fn a_setting_is_called_as_the_option_of_the_command_that_has_one() {
        let error = Error::argument("batch_size", "expected 1, got 0");
        let train = told(&error, "train classify --batch-size 0");
        assert_eq!(train, (2, "--batch-size: expected 1, got 0".to_owned()));
        assert_eq!(told(&error, "run --data d").1, "batch_size: expected 1, got 0");
        let error = Error::argument("--size", "expected 1, got 0");
        assert_eq!(told(&error, "train classify").1, "--size: expected 1, got 0");
    }

    #[test]
    fn a_path_is_told_with_the_option_that_gave_it() {
        let error = Error::file("voc/train/train_set.csv", "no such file");
        let wanted = "voc/train/train_set.csv: no such file";
        for (line, flag) in [
            ("train classify --data voc --out a", "--data: "),
            ("train classify --data=voc --out a", "--data: "),
            ("train classify --data vo --out a", ""),
            ("data check voc", ""),
            ("no such command", ""),
        ] {
            assert_eq!(told(&error, line), (1, format!("{flag}{wanted}")), "{line}");
        }
    }
}
