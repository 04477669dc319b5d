//! The command, run as a person would.

use assert_cmd::Command;
use std::path::Path;

pub const BINARY: &str = env!("CARGO_BIN_EXE_atrous");

/// Runs the command, which must succeed; what it printed.
pub fn done(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The command in a folder, on one thread where it computes.
#[allow(dead_code)] // Not every test has a folder of its own.
pub fn atrous(folder: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(BINARY);
    command.args(arguments).current_dir(folder);
    let computes = ["train", "run", "demo", "evaluate", "predict", "attack", "explain"];
    if arguments.first().is_some_and(|first| computes.contains(first)) {
        command.args(["--threads", "1"]);
    }
    command
}
