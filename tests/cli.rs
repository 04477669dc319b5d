//! The command as a person uses it.
#![cfg(feature = "cli")]

use assert_cmd::Command;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_atrous");

/// Runs the command, which must succeed; what it printed.
fn done(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    done(&["data", "make", folder.path().to_str().unwrap(), "--train", "20", "--test", "3"]);
    folder
}

/// A small run: two epochs of five steps at the smallest side the network takes, saved every step.
fn small<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["train", "classify", "--data", data, "--out", out, "--size", "108"];
    arguments.extend(["--epochs", "2", "--batch-size", "4", "--val-fraction", "0"]);
    arguments.extend(["--checkpoint-steps", "1"]);
    arguments
}

fn checkpoint(out: &Path) -> Vec<u8> {
    fs::read(out.join("checkpoint.safetensors")).unwrap()
}

#[test]
fn every_subcommand_explains_itself() {
    let all: [&[&str]; 8] = [
        &[],
        &["demo"],
        &["run"],
        &["train", "classify"],
        &["predict"],
        &["summary"],
        &["data", "make"],
        &["data", "check"],
    ];
    for subcommand in all {
        let help = done(&[subcommand, &["--help"]].concat());
        assert!(help.contains("Usage: atrous"), "{help}");
        assert!(help.contains("Example") || subcommand == ["demo"], "{subcommand:?}: {help}");
    }
}

#[test]
fn the_summary_counts_the_parameters() {
    let table = done(&["summary", "alexnet"]);
    assert!(table.contains("777,695") && table.contains("777,055"), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&done(&["summary", "alexnet", "--json"])).unwrap();
    assert_eq!(json["total_params"], 777_695);
    assert_eq!(json["layers"][1]["flops"], 2 * 144 * 144 * 64 * 147 + 144 * 144 * 64);
}

#[test]
fn a_run_goes_from_pictures_to_a_submission() {
    let data = data();
    let out = tempfile::tempdir().unwrap();
    let config = out.path().join("small.toml");
    fs::write(&config, "size = 108\nepochs = 1\nval_fraction = 0.3\n").unwrap();
    let result = out.path().join("result");
    let printed = done(&[
        "run",
        "--data",
        data.path().to_str().unwrap(),
        "--out",
        result.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
    ]);
    assert!(printed.contains("control: class priors"), "{printed}");
    let submission = fs::read_to_string(result.join("submission.csv")).unwrap();
    let lines: Vec<&str> = submission.lines().collect();
    assert_eq!((lines.len(), lines[0]), (7, "Id,Predicted"));
    for (i, pair) in lines[1..].chunks(2).enumerate() {
        // Some class is always predicted; masks are not predicted yet.
        let classes = pair[0].strip_prefix(&format!("{i}_classification,")).unwrap();
        assert!(!classes.is_empty(), "{submission}");
        assert_eq!(pair[1], format!("{i}_segmentation,"));
    }
    for file in ["history.csv", "history.json", "scores.txt", "probabilities.csv"] {
        assert!(fs::metadata(result.join(file)).unwrap().len() > 0, "{file}");
    }
    let history = fs::read_to_string(result.join("history.csv")).unwrap();
    assert_eq!(history.lines().count(), 2, "{history}");
}

#[test]
fn one_two_and_three_threads_write_the_same_checkpoint() {
    let data = data();
    let written: Vec<Vec<u8>> = ["1", "2", "3"]
        .iter()
        .map(|threads| {
            let out = tempfile::tempdir().unwrap();
            let mut arguments = small(data.path().to_str().unwrap(), out.path().to_str().unwrap());
            arguments.extend(["--threads", threads]);
            done(&arguments);
            checkpoint(out.path())
        })
        .collect();
    assert!(written[0] == written[1] && written[0] == written[2]);
}

/// Starts a small run, and ends it with a signal once `after` has passed and a checkpoint is there.
fn ended_by(signal: &str, after: Duration, data: &str, out: &Path) -> std::process::ExitStatus {
    let mut child: Child = std::process::Command::new(BINARY)
        .args(small(data, out.to_str().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !out.join("checkpoint.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(after);
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    child.wait().unwrap()
}

#[test]
fn a_run_that_is_interrupted_or_killed_ends_with_the_same_bits() {
    let data = data();
    let data = data.path().to_str().unwrap();
    let whole = tempfile::tempdir().unwrap();
    done(&small(data, whole.path().to_str().unwrap()));
    let whole = checkpoint(whole.path());
    // Moments of no particular meaning, in a run of a second or so.
    for (signal, milliseconds) in [("-INT", 230), ("-KILL", 110), ("-KILL", 370)] {
        let out = tempfile::tempdir().unwrap();
        let status = ended_by(signal, Duration::from_millis(milliseconds), data, out.path());
        let unfinished = checkpoint(out.path()) != whole;
        if signal == "-INT" && unfinished {
            assert_eq!(status.code(), Some(130));
        }
        let mut arguments = small(data, out.path().to_str().unwrap());
        arguments.push("--resume");
        done(&arguments);
        assert!(checkpoint(out.path()) == whole, "{signal} after {milliseconds} ms");
        println!("{signal} after {milliseconds} ms: unfinished {unfinished}, and the same in the end");
    }
}

#[test]
#[ignore = "needs ../shared/voc_npy"]
fn real_pictures_go_through_the_whole_pipeline() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/voc_npy");
    let data = data.to_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    assert!(done(&["data", "check", data]).contains("nothing is wrong"));
    let result = out.path().join("result");
    let result = result.to_str().unwrap();
    done(&["train", "classify", "--data", data, "--out", result, "--epochs", "2"]);
    let checkpoint = format!("{result}/checkpoint.safetensors");
    let submission = format!("{result}/submission.csv");
    done(&["predict", "--data", data, "--checkpoint", &checkpoint, "--out", &submission]);
    let text = fs::read_to_string(submission).unwrap();
    assert_eq!(text.lines().count(), 1 + 2 * 16, "{text}");
}
