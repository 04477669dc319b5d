//! What TensorBoard is given.

use super::log::check_schema;
use super::pty::Terminal;
use super::{atrous, data, lines, named, succeeded, text, train, train_task};
use atrous::live::tensorboard::{self, messages::What};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tags of a folder's event file, and the steps of each.
fn tags(board: PathBuf) -> BTreeMap<String, Vec<i64>> {
    let mut files = fs::read_dir(board).unwrap();
    let events = tensorboard::read(files.next().unwrap().unwrap().path()).unwrap();
    assert!(files.next().is_none());
    let mut tags: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events {
        if let Some(What::Summary(summary)) = event.what {
            for value in summary.value {
                tags.entry(value.tag).or_default().push(event.step);
            }
        }
    }
    tags
}

#[test]
fn event_files_of_tensorboard_have_scalars_images_and_histograms() {
    let folder = data();
    let folder = folder.path();
    succeeded(atrous(folder, &train("net", "2", &["--tensorboard", "a/board"])).output().unwrap());
    let tags = tags(folder.join("a/board"));
    for tag in ["loss/train", "loss/validation", "predictions", "conv2d/kernel", "conv2d/bias"] {
        assert_eq!(tags.get(tag).map(Vec::as_slice), Some(&[1, 2][..]), "{tag} of {:?}", tags.keys());
    }
    assert_eq!(tags["step/loss"].last(), Some(&4));
}

#[test]
fn masks_are_watched_as_labels_are() {
    let folder = data();
    let folder = folder.path();
    let run = train_task("segment", "net", "2", &["--tensorboard", "board", "--log-format", "json"]);
    let log = lines(&succeeded(atrous(folder, &run).output().unwrap()).stdout);
    log.iter().for_each(check_schema);
    let panel = named(&log, "panel")[0];
    let captions: Vec<&str> =
        panel["captions"].as_array().unwrap().iter().map(|caption| caption.as_str().unwrap()).collect();
    assert!(
        captions.len() == 3
            && captions[1].starts_with("truth: ")
            && captions[2].starts_with("prediction: "),
        "{captions:?}"
    );
    let tags = tags(folder.join("board"));
    for tag in ["loss/validation", "mean_iou/validation", "mean_dice/validation", "predictions"] {
        assert_eq!(tags.get(tag).map(Vec::as_slice), Some(&[1, 2][..]), "{tag} of {:?}", tags.keys());
    }
    assert!(!tags.contains_key("mean_average_precision/validation"));
    // The same drawn: the image, its true mask and the predicted one.
    let mut terminal = Terminal::run(atrous(folder, &train_task("segment", "shown", "500", &["--tui"])));
    for drawn in ["segment · ", "mean IoU", "prediction:", "▀"] {
        terminal.wait_for(drawn);
    }
    terminal.press(b"q");
    assert_eq!(terminal.end().0, Some(130));
}

#[test]
#[ignore = "needs tensorboard"]
fn tensorboard_itself_reads_the_values_of_both_tasks_histories() {
    let folder = data();
    let folder = folder.path();
    for (task, out, board) in [("classify", "a", "b/a"), ("segment", "m", "b/m")] {
        let run = train_task(task, out, "3", &["--tensorboard", board]);
        succeeded(atrous(folder, &run).output().unwrap());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tensorboard.py");
        let output = Command::new("python3").arg(script).args([board, out]).current_dir(folder).output();
        println!("{}", text(&succeeded(output.unwrap()).stdout));
    }
}
