//! Bad input: each gives one clear error that names the place, a non-zero exit code, and overwrites
//! nothing.
#![cfg(feature = "cli")]

use assert_cmd::Command;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn atrous(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atrous"));
    command.args(arguments);
    command
}

/// Twelve training and three test pictures in a folder of their own.
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
    assert_eq!(output.status.code(), Some(1), "{error}");
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
fn a_truncated_picture() {
    let spoil = |folder: &TempDir| {
        let file = path(folder, "train/img/train_3.npy");
        let bytes = fs::read(&file).unwrap();
        fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    };
    spoiled(spoil, &["train_3.npy"]);
}

#[test]
fn a_picture_of_another_type() {
    let spoil = |folder: &TempDir| {
        let bytes = npy("<f8", "(4, 4, 3)", &[0; 4 * 4 * 3 * 8]);
        fs::write(path(folder, "train/img/train_5.npy"), bytes).unwrap();
    };
    spoiled(spoil, &["train_5.npy", "uint8", "<f8"]);
}

#[test]
fn a_picture_without_rows() {
    let spoil = |folder: &TempDir| {
        fs::write(path(folder, "train/img/train_2.npy"), npy("|u1", "(0, 7, 3)", &[])).unwrap();
    };
    spoiled(spoil, &["train_2.npy", "0"]);
}

#[test]
fn a_row_without_its_picture() {
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
    fs::write(path(&folder, "train/img/train_0.npy"), b"nothing").unwrap();
    fs::write(path(&folder, "train/img/train_1.npy"), npy("<f4", "(2, 2, 3)", &[0; 48])).unwrap();
    fs::write(path(&folder, "train/seg/train_2.npy"), npy("|u1", "(2, 2)", &[21; 4])).unwrap();
    fs::remove_file(path(&folder, "test/img/test_1.npy")).unwrap();
    let output = atrous(&["data", "check", folder.path().to_str().unwrap()]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    for part in ["img/train_0.npy", "img/train_1.npy", "seg/train_2.npy", "img/test_1.npy"] {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }
    assert_eq!(output.status.code(), Some(1));
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
    let cases: [(&[&str], &str); 8] = [
        (&["--epochs", "0"], "epoch"),
        (&["--batch-size", "0"], "batch"),
        (&["--val-fraction", "1.5"], "val-fraction"),
        (&["--learning-rate=-1"], "learning_rate"),
        (&["--learning-rate", "nan"], "learning_rate"),
        (&["--optimizer", "adamant"], "adamant"),
        (&["--model", "alexnot"], "alexnot"),
        (&["--size", "20"], "conv2d"),
    ];
    for (extra, wanted) in cases {
        refused(atrous(&train).args(extra), &[wanted]);
        assert!(!out.join("checkpoint.safetensors").exists());
    }
    refused(&mut atrous(&["summary", "alexnet", "--device", "cuda"]), &["cuda:0"]);
    refused(&mut atrous(&["summary", "alexnet", "--threads", "0"]), &["--threads"]);
    let config = path(&folder, "a.toml");
    fs::write(&config, "epoch = 3\n").unwrap();
    refused(atrous(&train).args(["--config", config.to_str().unwrap()]), &["a.toml", "epoch"]);
}

#[test]
fn a_damaged_checkpoint_is_refused_and_kept() {
    let folder = data();
    let data = folder.path().to_str().unwrap();
    let checkpoint = path(&folder, "checkpoint.safetensors");
    let submission = path(&folder, "submission.csv");
    fs::write(&submission, "kept").unwrap();
    for bytes in [&b""[..], b"garbage that is no checkpoint", &[0xFF; 64]] {
        fs::write(&checkpoint, bytes).unwrap();
        let file = checkpoint.to_str().unwrap();
        let out = submission.to_str().unwrap();
        let mut predict = atrous(&["predict", "--data", data, "--checkpoint", file, "--out", out]);
        refused(&mut predict, &["checkpoint.safetensors"]);
        let train = ["train", "classify", "--data", data, "--out", data, "--resume"];
        refused(&mut atrous(&train), &["checkpoint.safetensors"]);
        assert_eq!(fs::read(&checkpoint).unwrap(), bytes);
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
#[ignore = "needs root to mount a small file system"]
fn a_full_disk() {
    let folder = data();
    let small = tempfile::tempdir().unwrap();
    let mount = |arguments: &[&str]| {
        let status = std::process::Command::new(arguments[0]).args(&arguments[1..]).status().unwrap();
        assert!(status.success(), "{arguments:?}");
    };
    let at = small.path().to_str().unwrap();
    mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", at]);
    // A checkpoint of this network takes 3 MB before its first step.
    let train = ["train", "classify", "--data", folder.path().to_str().unwrap(), "--out", at];
    let output = atrous(&train).output().unwrap();
    let left: Vec<PathBuf> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
    mount(&["umount", at]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("checkpoint.safetensors") && error.contains("full"), "{error}");
    assert!(left.is_empty(), "{left:?}");
}
