//! The command among other processes: who reads what it prints, which signals reach it, what limits it
//! is given, and where its files go.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use command::{BINARY, atrous, done};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// Six training and three test images, and in `net` what training on them left.
fn trained() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    done(&["data", "make", data.to_str().unwrap(), "--train", "6", "--test", "3"]);
    let out = atrous(folder.path(), &train("net", "1")).output().unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    folder
}

fn train<'a>(out: &'a str, epochs: &'a str) -> Vec<&'a str> {
    let network = ["--size", "118", "--val-fraction", "0.2", "--batch-size", "8"];
    let command = ["train", "classify", "--data", "data", "--out", out, "--epochs", epochs];
    [&command[..], &network].concat()
}

const PREDICT: [&str; 5] = ["predict", "--data", "data", "--checkpoint", "net"];

fn predict(folder: &Path, arguments: &[&str]) -> Output {
    atrous(folder, &[&PREDICT[..], arguments].concat()).output().unwrap()
}

/// The command by a shell that sets limits or ignores signals before.
fn after(folder: &Path, before: &str, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{before} \"$0\" \"$@\" --threads 1"), BINARY]);
    shell.args(arguments).current_dir(folder);
    shell
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A device on which there is never room.
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// The files of a folder, hidden ones too; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn one_error(output: &Output, wanted: &[&str]) {
    let error = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{error}");
    assert!(error.starts_with("error: ") && error.trim_end().lines().count() == 1, "{error}");
    for part in wanted {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn work_goes_on_when_nobody_reads_what_is_printed() {
    let folder = trained();
    let folder = folder.path();
    for (arguments, left) in [
        (train("again", "2"), "again/panel.png"),
        ([&PREDICT[..], &["--out", "p/s.csv"]].concat(), "p/panel.png"),
        (vec!["data", "make", "more", "--train", "2", "--test", "1"], "more/test/test_set.csv"),
        (vec!["data", "check", "data"], "data"),
        (vec!["summary", "alexnet"], "data"),
        (vec!["--help"], "data"),
    ] {
        let status = atrous(folder, &arguments).stdout(closed()).stderr(closed()).status().unwrap();
        assert!(status.success(), "{arguments:?}: {status}");
        assert!(folder.join(left).exists(), "{left}");
    }
    let net = |net: &str| names(&folder.join(net));
    assert_eq!(net("again"), net("net"));
    assert_eq!(fs::read_to_string(folder.join("again/history.csv")).unwrap().lines().count(), 3);
}

#[test]
fn what_a_full_device_lost_is_an_error_when_the_work_is_done() {
    let folder = trained();
    let folder = folder.path();
    let to_file = [&PREDICT[..], &["--out", "s.csv"]].concat();
    let to_stdout = [&PREDICT[..], &["--out", "-"]].concat();
    for arguments in [to_file, train("again", "1"), vec!["summary", "alexnet"], vec!["--version"]] {
        one_error(
            &atrous(folder, &arguments).stdout(full()).output().unwrap(),
            &["standard output", "disk is full"],
        );
    }
    assert_eq!(fs::read_to_string(folder.join("s.csv")).unwrap().lines().count(), 7);
    assert_eq!(names(&folder.join("again")), names(&folder.join("net")));
    let output = atrous(folder, &to_stdout).stdout(full()).output().unwrap();
    assert!(
        text(&output.stderr).contains("error: standard output: could not be written: the disk is full")
    );
    for arguments in [vec!["summary", "alexnet"], vec!["data", "check", "/nowhere"]] {
        let status = atrous(folder, &arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}

/// Training in a shell that did this before; when the first epoch is done it gets the signal.
fn signalled(folder: &Path, before: &str, signal: &str, epochs: &str) -> Output {
    let mut command = after(folder, before, &train("run", epochs));
    let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("epoch   1/") {
        line.clear();
        assert!(printed.read_line(&mut line).unwrap() > 0, "training ended before its first epoch");
    }
    let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    printed.read_to_end(&mut Vec::new()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn signals_that_the_parent_ignores_stay_ignored() {
    for signal in ["HUP", "INT", "TERM"] {
        let folder = trained();
        let output = signalled(folder.path(), &format!("trap '' {signal}; exec"), signal, "20");
        assert!(output.status.success(), "{signal}: {}", text(&output.stderr));
        let history = fs::read_to_string(folder.path().join("run/history.csv")).unwrap();
        assert_eq!(history.lines().count(), 21);
    }
}

#[test]
fn signals_that_ask_to_stop_save_and_stop() {
    for signal in ["HUP", "INT", "TERM"] {
        let folder = trained();
        let output = signalled(folder.path(), "exec env --default-signal", signal, "1000");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{signal}: {error}");
        assert!(
            error.contains("stopping after this step") && error.contains("go on with --resume"),
            "{error}"
        );
        assert!(folder.path().join("run/checkpoint.safetensors").exists());
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_that_says_so() {
    let folder = trained();
    let output = after(folder.path(), "ulimit -f 2000; exec", &train("run", "1")).output().unwrap();
    one_error(&output, &["checkpoint.safetensors", "larger than is allowed here"]);
    assert!(!names(&folder.path().join("run")).iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn memory_that_there_is_not_is_an_error_that_says_so() {
    let folder = trained();
    let large =
        ["train", "classify", "--data", "data", "--out", "run", "--epochs", "1", "--size", "1000"];
    let output = after(folder.path(), "ulimit -v 400000; exec", &large).output().unwrap();
    one_error(&output, &["out of memory", "smaller"]);
}

#[test]
fn a_submission_on_standard_output_is_alone_there() {
    let folder = trained();
    let folder = folder.path();
    let before = names(folder);
    for out in ["-", "/dev/stdout", "/proc/self/fd/1"] {
        let output = predict(folder, &["--out", out]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let rows = text(&output.stdout);
        assert_eq!(rows.lines().count(), 7, "{rows}");
        assert!(rows.starts_with("Id,Predicted\n0_classification,"), "{rows}");
        assert!(text(&output.stderr).contains("(3 pictures)"));
        assert_eq!(names(folder), before);
    }
    // A file that standard output goes to is written to, not replaced.
    let file = File::create(folder.join("rows.csv")).unwrap();
    (&file).write_all(b"before\n").unwrap();
    let to_file = [&PREDICT[..], &["--out", "/dev/stdout"]].concat();
    assert!(atrous(folder, &to_file).stdout(file).status().unwrap().success());
    let rows = fs::read_to_string(folder.join("rows.csv")).unwrap();
    assert!(rows.starts_with("before\nId,Predicted\n") && rows.lines().count() == 8, "{rows}");
    let to_nobody = [&PREDICT[..], &["--out", "-"]].concat();
    assert!(atrous(folder, &to_nobody).stdout(closed()).status().unwrap().success());
}

#[test]
fn devices_and_pipes_are_written_to_and_have_no_siblings() {
    let folder = trained();
    let folder = folder.path();
    let output = predict(folder, &["--out", "/dev/stderr"]);
    assert!(output.status.success() && text(&output.stderr).contains("\n2_segmentation,"));
    assert!(!text(&output.stdout).contains("_segmentation"));
    one_error(&predict(folder, &["--out", "/dev/full"]), &["/dev/full", "the disk is full"]);
    for sibling in ["probabilities.csv", "panel.png"] {
        assert!(!Path::new("/dev").join(sibling).exists());
    }
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    let before = names(folder);
    let pipe = folder.join("pipe");
    let reader = std::thread::spawn(move || fs::read_to_string(pipe).unwrap());
    assert!(predict(folder, &["--out", "pipe"]).status.success());
    assert_eq!(reader.join().unwrap().lines().count(), 7);
    assert_eq!(names(folder), before);
}

#[test]
fn files_that_are_there_already_are_overwritten_only_by_force() {
    let folder = trained();
    let folder = folder.path();
    for file in ["s.csv", "probabilities.csv", "panel.png"] {
        fs::write(folder.join(file), "mine").unwrap();
        let output = predict(folder, &["--out", "s.csv"]);
        one_error(&output, &[file, "there already", "--force"]);
        assert!(output.stdout.is_empty(), "it is found out before the work");
        assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), "mine");
        assert!(predict(folder, &["--out", "s.csv", "--force"]).status.success());
        for file in ["s.csv", "probabilities.csv", "panel.png"] {
            assert_ne!(fs::read(folder.join(file)).unwrap(), b"mine");
            fs::remove_file(folder.join(file)).unwrap();
        }
    }
    one_error(&predict(folder, &["--out", "panel.png"]), &["--out", "panel.png"]);
}

#[test]
fn names_as_long_as_they_can_be_are_written_and_others_refused_before_the_work() {
    let folder = trained();
    let folder = folder.path();
    let longest = "n".repeat(251) + ".csv";
    assert!(predict(folder, &["--out", &longest]).status.success());
    assert!(folder.join(&longest).is_file());
    fs::write(folder.join("file"), "kept").unwrap();
    std::os::unix::fs::symlink("ring", folder.join("ring")).unwrap();
    fs::create_dir(folder.join("taken")).unwrap();
    let before = names(folder);
    for (out, wanted) in [
        (&*(longest + "x"), "name is too long"),
        ("file/s.csv", "file: it is there already, and not a folder"),
        ("new/", "it is a folder"),
        ("taken", "it is a folder"),
        ("ring", "symbolic links"),
        ("/proc/s.csv", "no such file or folder"),
    ] {
        let output = predict(folder, &["--force", "--out", out]);
        one_error(&output, &[wanted]);
        assert!(output.stdout.is_empty(), "{out}: it is found out before the work");
    }
    assert_eq!(names(folder), before);
}

#[test]
fn a_link_to_a_file_that_is_not_there_yet_stays_a_link() {
    let folder = trained();
    let link: PathBuf = folder.path().join("link.csv");
    fs::create_dir(folder.path().join("there")).unwrap();
    std::os::unix::fs::symlink("there/s.csv", &link).unwrap();
    assert!(predict(folder.path(), &["--out", "link.csv"]).status.success());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(folder.path().join("there/s.csv").is_file());
}

#[test]
fn probabilities_of_an_id_with_a_comma_have_as_many_columns_as_others() {
    let folder = trained();
    let test = folder.path().join("data/test");
    let table = fs::read_to_string(test.join("test_set.csv")).unwrap();
    fs::write(test.join("test_set.csv"), table.replacen("\n0,", "\n\"a,b\",", 1)).unwrap();
    fs::rename(test.join("img/test_0.npy"), test.join("img/test_a,b.npy")).unwrap();
    let output = predict(folder.path(), &["--out", "s.csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut rows = csv::Reader::from_path(folder.path().join("probabilities.csv")).unwrap();
    let rows: Vec<csv::StringRecord> = rows.records().collect::<Result<_, _>>().unwrap();
    assert_eq!((rows.len(), rows[0].len(), &rows[0][0]), (3, 21, "a,b"));
}
