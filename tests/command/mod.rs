//! The command, run as a person would.

use assert_cmd::Command;

pub const BINARY: &str = env!("CARGO_BIN_EXE_atrous");

/// Runs the command, which must succeed; what it printed.
pub fn done(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
