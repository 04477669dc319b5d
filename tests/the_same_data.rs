//! A run and its images: found again by their Ids, refused where they are others, left out where their
//! truth is not known. With the command, as a person has it.
#![cfg(feature = "cli")]

mod command;

use assert_cmd::Command;
use command::{BINARY, done};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with a made-up data set in `d`.
struct Scratch(TempDir);

impl Scratch {
    fn new(train: usize) -> Self {
        let scratch = Scratch(tempfile::tempdir().unwrap());
        scratch.make("d", train, 1);
        scratch
    }

    fn make(&self, name: &str, train: usize, seed: usize) {
        let (train, seed) = (train.to_string(), seed.to_string());
        let folder = self.path(name);
        let made = ["data", "make", folder.to_str().unwrap(), "--train", &train, "--test", "2"];
        done(&[&made[..], &["--seed", &seed]].concat());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What the command says and writes to both its outputs, and whether it ended well.
    fn run(&self, arguments: &str) -> (bool, String) {
        let mut command = Command::new(BINARY);
        let output = command.current_dir(self.0.path()).args(arguments.split(' ')).output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.success(), text.concat())
    }

    fn done(&self, arguments: &str) -> String {
        let (well, text) = self.run(arguments);
        assert!(well, "{arguments}: {text}");
        text
    }

    fn refused(&self, arguments: &str) -> String {
        let (well, text) = self.run(arguments);
        assert!(!well && text.contains("error: "), "{arguments}: {text}");
        text
    }

    fn classify(&self, out: &str) -> String {
        let run = "train classify --size 108 --epochs 1 --batch-size 4 --val-fraction 0.3";
        self.done(&format!("{run} --data d --out {out}"))
    }
}

/// The rows of a table in another order.
fn reverse(table: &Path) {
    let text = fs::read_to_string(table).unwrap();
    let (header, rows) = text.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().rev().collect();
    fs::write(table, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
}

#[test]
fn images_are_found_again_after_the_table_is_sorted_anew() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    let before = scratch.done("evaluate --data d --checkpoint a");
    reverse(&scratch.path("d/train/train_set.csv"));
    assert_eq!(scratch.done("evaluate --data d --checkpoint a"), before);
    let attacked = scratch.done("attack --data d --checkpoint a --steps 1 --method pgd --out at");
    assert!(attacked.contains("3 of 3") || attacked.contains("3 pictures"), "{attacked}");
    scratch.done("train classify --data d --out a --resume");
}

#[test]
fn other_images_other_labels_and_other_masks_are_refused_by_name() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    let segment =
        "train segment --size 32 --epochs 1 --batch-size 4 --val-fraction 0.3 --data d --out s";
    scratch.done(segment);
    scratch.make("e", 10, 9);
    let resume = "train classify --data e --out a --resume";
    for command in
        ["evaluate --data e --checkpoint a", resume, "attack --data e --checkpoint a --out at"]
    {
        let error = scratch.refused(command);
        assert!(error.contains("not the pictures of the run") && error.contains("`0`"), "{error}");
    }
    // An image more changes nothing, an image less does.
    let table = scratch.path("d/train/train_set.csv");
    let text = fs::read_to_string(&table).unwrap();
    let last = text.lines().last().unwrap();
    fs::write(&table, text.replace(&format!("{last}\n"), "")).unwrap();
    assert!(scratch.refused("evaluate --data d --checkpoint a").contains("`9` is not there"));
    fs::write(&table, &text).unwrap();
    // Another label, and another mask.
    let flags = last.split_once(',').unwrap().1;
    let inverse: String = flags
        .chars()
        .map(|c| {
            if c == '0' {
                '1'
            } else if c == '1' {
                '0'
            } else {
                c
            }
        })
        .collect();
    fs::write(&table, text.replace(last, &format!("9,{inverse}"))).unwrap();
    assert!(scratch.refused("evaluate --data d --checkpoint a").contains("the labels of `9` were"));
    fs::write(&table, &text).unwrap();
    let mask = scratch.path("d/train/seg/train_4.npy");
    let mut bytes = fs::read(&mask).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&mask, bytes).unwrap();
    assert!(scratch.refused("evaluate --data d --checkpoint s").contains("the mask of `4` is another"));
    scratch.done("evaluate --data d --checkpoint a");
}

#[test]
fn any_labelled_images_are_scored_and_those_trained_on_are_told() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    let all = scratch.done("evaluate --data d --checkpoint a --split all");
    for wanted in [
        "of 10 pictures it was trained on 7, 3 told its best epoch, 0 are new to it",
        "10 pictures, some of which it was trained on",
        "3 pictures that it was not trained on",
    ] {
        assert!(all.contains(wanted), "{wanted}: {all}");
    }
    scratch.make("e", 6, 9);
    let other = scratch.done("evaluate --data e --checkpoint a --split all");
    assert!(other.contains("6 are new to it") && other.contains("priors          -"), "{other}");
    fs::write(scratch.path("list"), "\u{feff}3\r1\r\n\n7\n").unwrap();
    let listed = scratch.done("evaluate --data d --checkpoint a --split list");
    assert!(listed.contains("of 3 pictures"), "{listed}");
    for (text, wanted) in [("1\n12\n", "line 2"), ("1\n1\n", "before"), ("\n", "empty")] {
        fs::write(scratch.path("list"), text).unwrap();
        let error = scratch.refused("evaluate --data d --checkpoint a --split list");
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
    assert!(scratch.refused("evaluate --data d --checkpoint a --split tset").contains("`val`, `all`"));
}

#[test]
fn images_without_labels_or_masks_are_counted_and_left_out() {
    let scratch = Scratch::new(10);
    let table = scratch.path("d/train/train_set.csv");
    let text = fs::read_to_string(&table).unwrap();
    let unknown = |line: &str| format!("{},{}", line.split_once(',').unwrap().0, ["-1"; 20].join(","));
    let rows: Vec<String> = text.lines().skip(1).map(unknown).collect();
    let header = text.lines().next().unwrap();
    let known: Vec<&str> = text.lines().skip(1).collect();
    fs::write(&table, format!("{header}\n{}\n{}\n", known[..8].join("\n"), rows[8..].join("\n")))
        .unwrap();
    let said = scratch.classify("a");
    assert!(said.contains("left out of the training pictures: 2 of 10 have no labels"), "{said}");
    fs::write(&table, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
    let error = scratch.refused("train classify --data d --out b --size 108");
    assert!(error.contains("expected labels") && error.contains("10 training pictures"), "{error}");
    assert!(!scratch.path("b").exists());
    fs::write(&table, &text).unwrap();

    fs::remove_file(scratch.path("d/train/seg/train_2.npy")).unwrap();
    void(&scratch.path("d/train/seg/train_5.npy"));
    let segment = "train segment --data d --size 32 --epochs 1 --batch-size 4";
    let said = scratch.done(&format!("{segment} --out s"));
    let wanted = "1 of 10 have no mask, 1 of 10 have a mask that is void throughout";
    assert!(said.contains(wanted), "{said}");
    (0..10).filter(|&i| i != 2).for_each(|i| void(&scratch.path(&format!("d/train/seg/train_{i}.npy"))));
    assert!(scratch.refused(&format!("{segment} --out t")).contains("expected a mask with a pixel"));
    assert!(!scratch.path("t").exists());
}

/// Makes all of a mask void.
fn void(mask: &Path) {
    let mut bytes = fs::read(mask).unwrap();
    let begin = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    bytes[begin..].fill(255);
    fs::write(mask, bytes).unwrap();
}

#[test]
fn a_second_network_that_cannot_be_trained_is_refused_before_the_first_one_is() {
    let scratch = Scratch::new(10);
    let run = "run --data d --out r --task both --classify size=108 --classify epochs=1 --segment";
    for (option, wanted) in
        [("weights=missing.h5", "missing.h5"), ("size=33", "33"), ("epochs=0", "epochs")]
    {
        let error = scratch.refused(&format!("{run} {option}"));
        assert!(error.contains(wanted), "{error}");
        assert!(!scratch.path("r/classify/checkpoint.safetensors").exists(), "{option}");
    }
}

#[test]
fn what_a_resumed_run_may_not_change_is_refused_by_its_flag() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    let resume = "train classify --data d --out a --resume";
    // As it was, and what may change.
    scratch.done(&format!("{resume} --val-fraction 0.3 --workers 1 --checkpoint-steps 7"));
    for (flag, value) in [
        ("--val-fraction", "0.5"),
        ("--preset", "notebook"),
        ("--epochs", "2"),
        ("--seed", "1"),
        ("--model", "vgg16"),
        ("--size", "112"),
        ("--class-weights", "false"),
        ("--weights", "x.h5"),
        ("--augment", "none"),
    ] {
        let error = scratch.refused(&format!("{resume} {flag} {value}"));
        assert!(error.contains("the run began with another") && error.contains(flag), "{flag}: {error}");
    }
    let error = scratch.refused("train segment --data d --out a --resume");
    assert!(error.contains("`atrous train classify`"), "{error}");
}

#[test]
fn the_best_epoch_of_another_run_is_not_taken_for_the_new_ones() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    fs::remove_file(scratch.path("a/checkpoint.safetensors")).unwrap();
    for more in ["--val-fraction 0", "--resume"] {
        let error = scratch.refused(&format!("train classify --data d --out a --size 108 {more}"));
        assert!(error.contains("best.safetensors: it is the best epoch of a run"), "{error}");
    }
}

#[test]
fn a_folder_takes_one_training_at_a_time() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    let lock = atrous::files::lock::FolderLock::acquire(scratch.path("a")).unwrap();
    let resume = "train classify --data d --out a --resume";
    let error = scratch.refused(resume);
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    let error = scratch.refused("train classify --data d --out a/../a --size 108");
    assert!(error.contains("is training") || error.contains("process"), "{error}");
    drop(lock);
    scratch.done(resume);
}

#[test]
fn a_run_that_goes_on_with_another_instruction_set_says_so() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    let resume = ["train", "classify", "--data", "d", "--out", "a", "--resume"];
    let mut command = Command::new(BINARY);
    let command = command.current_dir(scratch.0.path()).env("ATROUS_ISA", "portable").args(resume);
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(said.contains("goes on on cpu (Portable)"), "{said}");
    assert!(!scratch.done(&resume.join(" ")).contains("goes on on"));
}

#[test]
fn what_an_attack_learns_against_another_network_it_learns_from_images_of_the_first() {
    let scratch = Scratch::new(10);
    scratch.make("e", 30, 1);
    scratch.classify("a");
    scratch
        .done("train classify --size 108 --epochs 1 --batch-size 4 --val-fraction 0.3 --data e --out b");
    let attack = "attack --data d --checkpoint a --transfer b --method universal --images 2 --steps 1";
    let (_, said) = scratch.run(&format!("{attack} --labels predicted --out at"));
    assert!(!said.contains("mistake in atrous"), "{said}");
}

#[test]
fn a_run_whose_validation_shows_nothing_is_done_all_the_same() {
    let scratch = Scratch::new(10);
    let table = scratch.path("d/train/train_set.csv");
    let text = fs::read_to_string(&table).unwrap();
    let run = "run --data d --out r --task classify --classify size=108 --classify epochs=1 \
               --val-fraction 0.1";
    let header = text.lines().next().unwrap();
    let none = |line: &str| format!("{},{}", line.split_once(',').unwrap().0, ["0"; 20].join(","));
    let rows: Vec<String> = text.lines().skip(1).map(none).collect();
    fs::write(&table, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
    let said = scratch.done(&format!("{run} --attack-images 1"));
    for wanted in ["no class is in any of 1 validation pictures", "classify: no attack: "] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(scratch.path("r/submission.csv").is_file());
}

#[test]
fn a_image_in_two_lists_of_voc_is_scored_once() {
    let scratch = Scratch::new(10);
    scratch.done("data convert --from d --to v --layout voc");
    let segment = "train segment --size 32 --epochs 1 --batch-size 4 --val-fraction 0.3";
    scratch.done(&format!("{segment} --data v --out s"));
    let list = scratch.path("v/ImageSets/Segmentation/test.txt");
    let text = fs::read_to_string(&list).unwrap();
    fs::write(&list, format!("{text}train_0\n")).unwrap();
    let all = scratch.done("evaluate --data v --checkpoint s --split all");
    assert!(all.contains("it was trained on 7, 3 told its best epoch"), "{all}");
}

#[test]
fn validation_images_that_are_training_images_under_another_id_are_told() {
    let scratch = Scratch::new(10);
    assert!(!scratch.classify("a").contains("under another Id"));
    let image = |i: usize| scratch.path(&format!("d/train/img/train_{i}.npy"));
    for i in 1..10 {
        fs::copy(image(0), image(i)).unwrap();
    }
    let said = scratch.classify("b");
    assert!(
        said.contains("3 of 3 validation pictures are training pictures under another Id (`"),
        "{said}"
    );
}

#[cfg(unix)]
#[test]
fn thresholds_that_are_a_link_to_nowhere_or_a_folder_are_not_the_same_as_none() {
    let scratch = Scratch::new(10);
    scratch.classify("a");
    let thresholds = scratch.path("a/thresholds.json");
    let predict = "predict --data d --checkpoint a --out x.csv --force";
    scratch.done(predict);
    fs::remove_file(&thresholds).unwrap();
    std::os::unix::fs::symlink("nowhere", &thresholds).unwrap();
    assert!(scratch.refused(predict).contains("thresholds.json"));
    fs::remove_file(&thresholds).unwrap();
    fs::create_dir(&thresholds).unwrap();
    assert!(scratch.refused(predict).contains("thresholds.json"));
    fs::remove_dir(&thresholds).unwrap();
    scratch.done(predict);
}
