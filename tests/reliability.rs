//! Bad input: each gives one clear error that names the place, a non-zero exit code, and overwrites
//! nothing.
#![cfg(feature = "cli")]

use assert_cmd::Command;
use atrous::data::transforms::Augment;
use atrous::models::{self, Spec};
use atrous::nn::Model;
use atrous::train::{self, TrainConfig, Trainer};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn atrous(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atrous"));
    command.args(arguments);
    command
}

/// Twelve training and three test images in a folder of their own.
fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    atrous(&["data", "make", path, "--train", "12", "--test", "3"]).assert().success();
    folder
}

fn path(folder: &TempDir, file: &str) -> PathBuf {
    folder.path().join(file)
}

/// Runs the command, which must fail with one line on standard error that holds all of `wanted`.
fn refused(command: &mut Command, wanted: &[&str]) {
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    assert_eq!(error.matches("error: ").count(), 1, "{error}");
    for part in wanted {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

/// Training, and the check, on a folder that was spoiled; what each must say.
fn spoiled(spoil: impl Fn(&TempDir), wanted: &[&str]) {
    let folder = data();
    spoil(&folder);
    let out = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().to_str().unwrap(), out.path().join("run"));
    let out = out.to_str().unwrap();
    let train =
        ["train", "classify", "--data", data, "--out", out, "--epochs", "1", "--val-fraction", "0"];
    refused(&mut atrous(&train), wanted);
    let check = atrous(&["data", "check", data]).output().unwrap();
    let told = String::from_utf8(check.stdout).unwrap();
    assert_eq!(check.status.code(), Some(1), "{told}");
    for part in wanted {
        assert!(told.contains(part), "`{part}` is not in what `data check` says: {told}");
    }
    refused(&mut atrous(&["run", "--data", data, "--out", out]), &["told above"]);
    assert!(!Path::new(out).join("submission.csv").exists());
}

/// The header of an `.npy` file of this description.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

fn edit(file: PathBuf, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, change(&text)).unwrap();
}

#[test]
fn a_truncated_image() {
    let spoil = |folder: &TempDir| {
        let file = path(folder, "train/img/train_3.npy");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    };
    spoiled(spoil, &["train_3.npy"]);
}

#[test]
fn a_image_of_another_type() {
    let spoil = |folder: &TempDir| {
        let bytes = npy("<f8", "(4, 4, 3)", &[0; 4 * 4 * 3 * 8]);
        fs::write(path(folder, "train/img/train_5.npy"), bytes).unwrap();
    };
    spoiled(spoil, &["train_5.npy", "uint8", "<f8"]);
}

#[test]
fn a_image_without_rows() {
    let spoil = |folder: &TempDir| {
        fs::write(path(folder, "train/img/train_2.npy"), npy("|u1", "(0, 7, 3)", &[])).unwrap();
    };
    spoiled(spoil, &["train_2.npy", "0"]);
}

#[test]
fn a_row_without_its_image() {
    let spoil = |folder: &TempDir| fs::remove_file(path(folder, "train/img/train_7.npy")).unwrap();
    spoiled(spoil, &["train_7.npy"]);
}

#[test]
fn a_table_without_a_column() {
    let spoil = |folder: &TempDir| {
        edit(path(folder, "train/train_set.csv"), |text| text.replacen(",sheep", ",goat", 1));
    };
    spoiled(spoil, &["train_set.csv", "sheep"]);
}

#[test]
fn an_id_that_stands_twice() {
    let spoil = |folder: &TempDir| {
        edit(path(folder, "train/train_set.csv"), |text| text.replacen("\n4,", "\n3,", 1));
    };
    spoiled(spoil, &["train_set.csv", "line 6", "3"]);
}

#[test]
fn a_label_of_two() {
    let spoil = |folder: &TempDir| {
        edit(path(folder, "train/train_set.csv"), |text| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let (id, rest) = lines[9].split_once(',').unwrap();
            lines[9] = format!("{id},2{}", &rest[1..]);
            lines.join("\n") + "\n"
        });
    };
    spoiled(spoil, &["train_set.csv", "line 10", "aeroplane", "2"]);
}

#[test]
fn the_check_tells_of_everything_in_one_pass() {
    let folder = data();
    let write = |file: &str, bytes: &[u8]| fs::write(path(&folder, file), bytes).unwrap();
    write("train/img/train_0.npy", b"nothing");
    write("train/img/train_1.npy", &npy("<f8", "(2, 2, 3)", &[0; 96]));
    write("train/seg/train_2.npy", &npy("|u1", "(2, 2)", &[21; 4]));
    write("train/img/train_3.npy", &npy("|u1", "(0, 7, 3)", &[]));
    write("train/img/train_4.npy", &npy("|u1", "(2, 2, 3)", &[0; 11]));
    write("train/seg/train_5.npy", &npy("|u1", "(1, 1)", &[0]));
    fs::remove_file(path(&folder, "train/img/train_6.npy")).unwrap();
    edit(path(&folder, "train/train_set.csv"), |text| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[8] = format!("7,2{}", ",0".repeat(19));
        lines[9] = format!("7,1{}", ",0".repeat(19));
        lines[10] = "9,0,0".to_owned();
        lines.join("\n") + "\n"
    });
    edit(path(&folder, "test/test_set.csv"), |text| text.replacen(",sheep", ",goat", 1));
    let output = atrous(&["data", "check", folder.path().to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let problems = [
        "img/train_0.npy: expected a .npy file",
        "img/train_1.npy: expected element type uint8 (|u1), got <f8",
        "seg/train_2.npy: expected 0 to 20 or 255, got 21 at row 0, column 0",
        "img/train_3.npy: expected shape [height, width, 3], none of them zero, got [0, 7, 3]",
        "img/train_4.npy: expected",
        "seg/train_5.npy: expected the picture's size",
        "train_set.csv, line 8, column `Id`: expected the picture of `6`",
        "train_set.csv, line 9, column `aeroplane`: expected 0, 1 or -1, got `2`",
        "train_set.csv, line 10, column `Id`: Id `7` was in line 9 before",
        "train_set.csv, line 11: expected 21 fields, got 3",
        "test_set.csv, line 1, column `sheep`: expected this column, got none",
        "test_set.csv, line 1, column `goat`: expected `Id` and the 20 classes, got this column too",
    ];
    for problem in problems {
        assert_eq!(told.matches(problem).count(), 1, "`{problem}` is not in: {told}");
    }
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains(&format!("{} problems, told above", problems.len())), "{error}{told}");
    assert_eq!((output.status.code(), error.matches("error: ").count()), (Some(1), 1));
}

#[test]
fn a_folder_that_is_not_there_or_cannot_be_written() {
    refused(&mut atrous(&["data", "check", "/no/such/folder"]), &["/no/such/folder"]);
    let folder = data();
    let file = path(&folder, "file");
    fs::write(&file, "kept").unwrap();
    let below = file.join("out");
    let data = folder.path().to_str().unwrap();
    let train = ["train", "classify", "--data", data, "--out", below.to_str().unwrap()];
    refused(&mut atrous(&train), &["file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

#[test]
fn settings_that_make_no_sense() {
    let folder = data();
    let data = folder.path().to_str().unwrap();
    let out = path(&folder, "run");
    let train = ["train", "classify", "--data", data, "--out", out.to_str().unwrap()];
    let cases: [(&[&str], &str); 12] = [
        (&["--epochs", "0"], "epoch"),
        (&["--epochs", "18446744073709551615"], "epoch"),
        (&["--workers", "0"], "--workers"),
        (&["--val-fraction", "nan"], "--val-fraction"),
        (&["--val-fraction", "0.99"], "none is left to train on"),
        (&["--batch-size", "0"], "batch"),
        (&["--val-fraction", "1.5"], "val-fraction"),
        (&["--learning-rate=-1"], "--learning-rate:"),
        (&["--learning-rate", "nan"], "--learning-rate:"),
        (&["--optimizer", "adamant"], "adamant"),
        (&["--model", "alexnot"], "alexnot"),
        (&["--size", "20"], "conv2d"),
    ];
    for (extra, wanted) in cases {
        refused(atrous(&train).args(extra), &[wanted]);
        assert!(!out.exists(), "{extra:?} left something behind");
    }
    // Before the checkpoint is read, before anything is trained.
    for threshold in ["nan", "1.5", "-0.1", "inf"] {
        let threshold = format!("--threshold={threshold}");
        let predict = ["predict", "--data", data, "--checkpoint", "/no/such/file", &threshold];
        refused(&mut atrous(&predict), &["--threshold", "0 to 1"]);
        let run = ["run", "--data", data, "--out", out.to_str().unwrap(), &threshold];
        refused(&mut atrous(&run), &["--threshold", "0 to 1"]);
        assert!(!out.exists());
    }
    refused(&mut atrous(&["summary", "alexnet", "--device", "cuda"]), &["`cuda"]);
    refused(&mut atrous(&["summary", "alexnet", "--threads", "0"]), &["--threads"]);
    let config = path(&folder, "a.toml");
    fs::write(&config, "epoch = 3\n").unwrap();
    refused(atrous(&train).args(["--config", config.to_str().unwrap()]), &["a.toml", "epoch"]);
}

/// The checkpoint of a network before its first step.
fn untrained(classes: usize) -> Vec<u8> {
    let config = TrainConfig {
        epochs: 1,
        batch_size: 4,
        learning_rate: 1e-3,
        optimizer: "adam".into(),
        momentum: 0.0,
        loss: "binary_crossentropy".into(),
        seed: 0,
        augment: Augment::None,
        class_weights: None,
        train_indices: (0..12).collect(),
        val_indices: Vec::new(),
        ..TrainConfig::new(Spec::new("alexnet", 108, classes))
    };
    let model = Model::new(models::alexnet(108, classes).unwrap(), 0);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint.safetensors");
    train::save(&file, &Trainer::new(model, config).unwrap()).unwrap();
    fs::read(file).unwrap()
}

#[test]
fn a_damaged_checkpoint_is_refused_and_kept() {
    let folder = data();
    let data = folder.path().to_str().unwrap();
    let checkpoint = path(&folder, "checkpoint.safetensors");
    let submission = path(&folder, "submission.csv");
    fs::write(&submission, "kept").unwrap();
    let whole = untrained(20);
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    let damaged = [
        b"".to_vec(),
        b"garbage that is no checkpoint".to_vec(),
        vec![0xFF; 64],
        whole[..500].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        flipped,
        // Nothing wrong with it, but not for these classes.
        untrained(3),
    ];
    for bytes in damaged {
        fs::write(&checkpoint, &bytes).unwrap();
        let file = checkpoint.to_str().unwrap();
        let out = submission.to_str().unwrap();
        let mut predict = atrous(&["predict", "--data", data, "--checkpoint", file, "--out", out]);
        refused(&mut predict, &["checkpoint.safetensors"]);
        let train = ["train", "classify", "--data", data, "--out", data, "--resume"];
        refused(&mut atrous(&train), &["checkpoint.safetensors"]);
        assert!(fs::read(&checkpoint).unwrap() == bytes);
    }
    assert_eq!(fs::read_to_string(&submission).unwrap(), "kept");
}

#[test]
fn a_run_that_is_there_already_is_not_overwritten() {
    let folder = data();
    let data = folder.path().to_str().unwrap();
    let checkpoint = path(&folder, "checkpoint.safetensors");
    fs::write(&checkpoint, "kept").unwrap();
    refused(&mut atrous(&["train", "classify", "--data", data, "--out", data]), &["--resume"]);
    assert_eq!(fs::read_to_string(&checkpoint).unwrap(), "kept");
}

#[test]
fn images_that_are_there_already_are_not_made_up_anew() {
    let folder = data();
    let table = path(&folder, "train/train_set.csv");
    let before = fs::read(&table).unwrap();
    let make = ["data", "make", folder.path().to_str().unwrap(), "--train", "2", "--test", "2"];
    refused(&mut atrous(&make), &[folder.path().to_str().unwrap(), "empty folder"]);
    assert_eq!(fs::read(table).unwrap(), before);
}

#[test]
fn a_submission_that_cannot_be_written_leaves_what_was_there() {
    let folder = data();
    let checkpoint = path(&folder, "checkpoint.safetensors");
    fs::write(&checkpoint, untrained(20)).unwrap();
    let file = path(&folder, "file");
    fs::write(&file, "kept").unwrap();
    let out = file.join("submission.csv");
    let (data, out) = (folder.path().to_str().unwrap(), out.to_str().unwrap());
    let checkpoint = checkpoint.to_str().unwrap();
    let predict = ["predict", "--data", data, "--checkpoint", checkpoint, "--out", out];
    refused(&mut atrous(&predict), &["file", "not a folder"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

/// A small file system of its own, unmounted when the test ends, however it ends.
struct Small(TempDir);

impl Small {
    fn mount(options: &str) -> Self {
        let small = Small(tempfile::tempdir().unwrap());
        small.run("mount", &["-t", "tmpfs", "-o", options, "tmpfs"]);
        small
    }

    fn run(&self, command: &str, arguments: &[&str]) {
        let mut command = std::process::Command::new(command);
        let status = command.args(arguments).arg(self.0.path()).status().unwrap();
        assert!(status.success(), "{command:?}: this test needs root");
    }

    /// The files in it, hidden ones too.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
#[ignore = "needs root to mount a small file system"]
fn a_full_disk() {
    let folder = data();
    // A checkpoint of this network takes 3 MB before its first step.
    let small = Small::mount("size=1m");
    let (data, out) = (folder.path().to_str().unwrap(), small.0.path().to_str().unwrap());
    let train = ["train", "classify", "--data", data, "--out", out];
    refused(&mut atrous(&train), &["checkpoint.safetensors", "the disk is full"]);
    assert!(small.names().is_empty(), "{:?}", small.names());
    refused(&mut atrous(&["data", "make", out, "--train", "100"]), &["the disk is full"]);
}

#[test]
#[ignore = "needs root to mount a small file system"]
fn a_disk_that_fills_up_while_training_keeps_the_last_checkpoint() {
    let folder = data();
    // From its first step on a checkpoint takes 9 MB: the optimizer's state is in it too.
    let small = Small::mount("size=6m");
    let (data, out) = (folder.path().to_str().unwrap(), small.0.path().to_str().unwrap());
    let train = ["train", "classify", "--data", data, "--out", out, "--size", "108", "--epochs", "1"];
    // The best epoch is written first; the checkpoint is still the one before the first step.
    refused(&mut atrous(&train), &["best.safetensors", "the disk is full"]);
    let left = ["checkpoint.safetensors", "events.jsonl", "history.csv", "history.json"];
    assert_eq!(small.names(), left);
    let (trainer, _) = train::load(&small.0.path().join(left[0])).unwrap();
    assert_eq!(trainer.position.global_step, 0);
    // With room, the run goes on from there.
    small.run("mount", &["-o", "remount,size=64m"]);
    let resume = ["train", "classify", "--data", data, "--out", out, "--resume"];
    atrous(&resume).assert().success();
    let (trainer, _) = train::load(&small.0.path().join(left[0])).unwrap();
    assert_eq!(trainer.position.epoch, 1);
}
