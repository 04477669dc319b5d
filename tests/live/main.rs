//! Runs that are watched: what they print, what they leave, and what a terminal sees.
#![cfg(all(feature = "cli", target_os = "linux"))]

#[path = "../command/mod.rs"]
mod command;
mod ends;
mod log;
mod pty;
mod screen;
mod sixels;
mod tensorboard;

use command::{atrous, done};
use serde_json::{Map, Value};
use std::process::Output;
use tempfile::TempDir;

/// Twelve training and three test images in `data`.
fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    done(&["data", "make", path.to_str().unwrap(), "--train", "12", "--test", "3"]);
    folder
}

/// A small run into `out`.
fn train<'a>(out: &'a str, epochs: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    train_task("classify", out, epochs, more)
}

fn train_task<'a>(task: &'a str, out: &'a str, epochs: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let size = if task == "segment" { "64" } else { "118" };
    let small = ["--size", size, "--val-fraction", "0.34", "--batch-size", "4"];
    let command = ["train", task, "--data", "data", "--out", out, "--epochs", epochs];
    [&command[..], &small, more].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: Output) -> Output {
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// A log of JSON and nothing else.
fn lines(output: &[u8]) -> Vec<Map<String, Value>> {
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text(output).lines().map(object).collect()
}

fn named<'a>(lines: &'a [Map<String, Value>], name: &str) -> Vec<&'a Map<String, Value>> {
    lines.iter().filter(|line| line["event"] == name).collect()
}
