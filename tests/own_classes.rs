//! Classes of one's own, from training to explanation: nothing knows of VOC's twenty.
#![cfg(feature = "cli")]

mod command;

use atrous::data::image_files::{write_jpeg, write_mask_png};
use atrous::data::synthetic::{Contents, Synthetic};
use atrous::data::{Dataset, Mask};
use command::{BINARY, done};
use std::fs;
use std::path::Path;

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// Says nothing of VOC, nor of a class that is not in the data.
fn silent(what: &str, text: &str) {
    for word in ["VOC", "person", "tvmonitor", "of 20", "twenty"] {
        assert!(!text.contains(word), "{what} says `{word}`:\n{text}");
    }
}

#[test]
fn of_exclusive_classes_every_command_speaks_of_those_alone() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (data, out) = (at("data"), at("out"));
    let make = ["--train", "28", "--test", "4", "--classes", "7", "--single"];
    done(&[&["data", "make", &data][..], &make].concat());
    let header = text(dir.path().join("data/train/train_set.csv"));
    assert_eq!(header.lines().next().unwrap(), "Id,aeroplane,bicycle,bird,boat,bottle,bus,car");
    silent("data check", &done(&["data", "check", &data]));

    let train = ["--size", "108", "--epochs", "1", "--val-fraction", "0.25"];
    silent(
        "train",
        &done(&[&["train", "classify", "--data", &data, "--out", &out][..], &train].concat()),
    );
    assert!(!dir.path().join("out/thresholds.json").exists(), "the likeliest class needs no threshold");

    let scores = done(&["evaluate", "--data", &data, "--checkpoint", &out, "--out", &at("scores")]);
    silent("evaluate", &scores);
    assert!(scores.contains("accuracy on 7 validation pictures"), "{scores}");
    assert!(scores.contains("taken for    a    b    c    d    e    f    g"), "{scores}");
    let report = text(dir.path().join("scores/report.html"));
    assert!(report.contains("accuracy") && !report.contains("An image may have several classes"));

    let submission = at("submission.csv");
    let predict = ["predict", "--data", &data, "--checkpoint", &out, "--out", &submission];
    silent("predict", &done(&predict));
    let probabilities = text(dir.path().join("probabilities.csv"));
    let rows: Vec<&str> = probabilities.lines().collect();
    assert_eq!((rows[0], rows.len()), ("Id,aeroplane,bicycle,bird,boat,bottle,bus,car", 5));
    for row in &rows[1..] {
        let sum: f64 = row.split(',').skip(1).map(|cell| cell.parse::<f64>().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "a softmax, got {row}");
    }

    let attack = ["--images", "2", "--method", "fgsm", "--out", &at("attack")];
    let attack = [&["attack", "--data", &data, "--checkpoint", &out][..], &attack].concat();
    silent("attack", &done(&attack));
    silent("attack.csv", &text(dir.path().join("attack/attack.csv")));

    let picture = at("a picture.jpg");
    let set = Synthetic::test(0, 1).with(Contents { classes: 7, single: true }).unwrap();
    write_jpeg(&picture, &set.image(0).unwrap()).unwrap();
    let page = at("explained");
    silent("explain", &done(&["explain", &picture, "--checkpoint", &out, "--out", &page, "--quick"]));
}

#[test]
fn a_folder_a_class_trains_and_is_refused_by_a_network_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let set = Synthetic::train(1, 12).with(Contents { classes: 2, single: true }).unwrap();
    for i in 0..set.len() {
        let class = if set.labels(i).unwrap()[0] { "planes" } else { "my bikes" };
        let folder = dir.path().join("trees/train").join(class);
        fs::create_dir_all(&folder).unwrap();
        write_jpeg(folder.join(format!("{i}.JPG")), &set.image(i).unwrap()).unwrap();
    }
    let (data, out) = (at("trees"), at("out"));
    let said = done(&["data", "check", &data]);
    assert!(said.contains("my bikes") && said.contains("nothing is wrong"), "{said}");
    let train = ["--size", "108", "--epochs", "1", "--val-fraction", "0.5"];
    done(&[&["train", "classify", "--data", &data, "--out", &out][..], &train].concat());
    let scores = done(&["evaluate", "--data", &data, "--checkpoint", &out]);
    assert!(scores.contains("my bikes"), "{scores}");

    fs::rename(dir.path().join("trees/train/planes"), dir.path().join("trees/train/ships")).unwrap();
    let output = std::process::Command::new(BINARY)
        .args(["evaluate", "--data", &data, "--checkpoint", &out])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        error.contains(r#"its classes, ["my bikes", "planes"]"#) && error.contains("ships"),
        "{error}"
    );
}

#[test]
fn masks_of_three_classes_train_and_are_scored_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let set = Synthetic::train(2, 6).with(Contents { classes: 3, single: false }).unwrap();
    for folder in ["images", "masks"] {
        fs::create_dir_all(dir.path().join("roads").join(folder)).unwrap();
    }
    for i in 0..set.len() {
        let mask: Mask = set.mask(i).unwrap().unwrap();
        write_jpeg(at(&format!("roads/images/{i}.jpg")), &set.image(i).unwrap()).unwrap();
        write_mask_png(at(&format!("roads/masks/{i}.png")), &mask).unwrap();
    }
    fs::write(at("roads/classes.txt"), "road\nkerb\ntree\n").unwrap();
    let (data, out) = (at("roads"), at("out"));
    silent("data check", &done(&["data", "check", &data]));
    let train = ["--size", "32", "--epochs", "1", "--val-fraction", "0.34"];
    done(&[&["train", "segment", "--data", &data, "--out", &out][..], &train].concat());
    let scores = done(&["evaluate", "--data", &data, "--checkpoint", &out]);
    silent("evaluate", &scores);
    for name in ["background", "road", "kerb", "tree"] {
        assert!(scores.contains(name), "{scores}");
    }
}
