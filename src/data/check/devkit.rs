//! A VOCdevkit folder: each of its lists, and what the lists say together.

use super::contents::{self, Contents};
use super::{Found, Report, Summary};
use crate::backend::cpu::threads;
use crate::data::voc_devkit::{Task, VocDevkit};
use crate::data::{Dataset, Image, image_files, is_there};
use crate::error::Error;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// A list that was read.
struct List {
    task: Task,
    set: &'static str,
    dataset: VocDevkit,
    /// Is nothing wrong with its lines and labels?
    whole: bool,
}

/// Every list of a VOCdevkit folder. Of a list with a line that is wrong only that line is told.
pub(super) fn check(root: &Path, report: &mut Report) {
    let lists = read(root, report);
    // Whether the image can be read, of all that were looked at.
    let mut listed = HashMap::new();
    let mut contents = Contents::default();
    for list in &lists {
        let summary = check_list(list, &mut listed, &mut contents, report);
        report.note_capitals(&summary.split, list.ids());
        // Where a list is wrong in part, what is missing may be what is wrong.
        if list.whole && list.is_trained_on(&lists) {
            report.judge_labels(&summary, &list.task.list(root, list.set));
        } else if list.whole && list.set == "val" && summary.unlabelled == summary.rows {
            let split = &summary.split;
            report
                .notes
                .push(format!("the labels of no picture of {split} are known: it measures nothing"));
        }
        report.add(summary);
    }
    judge_together(&lists, report);
    // A file that is wrong may have been read for several lists.
    let mut told = HashSet::new();
    report.problems.retain(|problem| told.insert(problem.to_string()));
    report.notes.extend(contents.notes());
    if report.splits.is_empty() && report.problems.is_empty() {
        let message = "expected lists in ImageSets/Main or ImageSets/Segmentation, got none";
        report.problems.push(Error::file(root, message));
    }
    let images = fs::read_dir(root.join("JPEGImages")).into_iter().flatten().flatten();
    let strays = images
        .filter(|entry| {
            entry.path().file_stem().is_some_and(|id| !listed.contains_key(&*id.to_string_lossy()))
        })
        .count();
    if strays > 0 && report.is_fine() {
        report.notes.push(format!("{strays} files of JPEGImages are in no list"));
    }
}

fn read(root: &Path, report: &mut Report) -> Vec<List> {
    let mut lists = Vec::new();
    for task in [Task::Segmentation, Task::Main] {
        for set in ["train", "val", "trainval", "test"] {
            // The union of two lists is only looked at where they are not there.
            let parts = ["train", "val"].iter().any(|part| task.has(root, part));
            if !task.has(root, set) || (set == "trainval" && parts) {
                continue;
            }
            match VocDevkit::survey(root, task, set) {
                Ok((dataset, problems)) => {
                    lists.push(List { task, set, dataset, whole: problems.is_empty() });
                    report.problems.extend(problems);
                }
                Err(error) => report.problems.push(error),
            }
        }
    }
    lists
}

fn check_list(
    list: &List,
    listed: &mut HashMap<String, bool>,
    contents: &mut Contents,
    report: &mut Report,
) -> Summary {
    let dataset = &list.dataset;
    let mut summary = Summary::new(list.name(), dataset.rows.len(), &dataset.classes());
    let found = threads::map(dataset.rows.len(), |i| {
        let mut found = Found::default();
        let path = dataset.mask_path(i);
        // Images of both tasks are told about once.
        if listed.contains_key(&dataset.rows[i].id) {
            found.mask = path.is_file();
            return found;
        }
        match image_files::read_image(dataset.image_path(i)) {
            Ok(Image { height, width, .. }) => found.size = Some((height, width)),
            Err(error) => found.problems.push(error),
        }
        found.content = contents::of(&dataset.image_path(i));
        let mask = is_there(&path).then(|| image_files::read_mask_png(&path));
        found.judge(&path, mask, dataset.rows[i].labels.as_ref(), &dataset.classes());
        found
    });
    for (row, found) in dataset.rows.iter().zip(found) {
        contents.add(&summary.split, &row.id, found.content);
        let readable = found.size.is_some();
        match listed.get(&row.id) {
            Some(&readable) => summary.images += readable as usize,
            None => _ = listed.insert(row.id.clone(), readable),
        }
        summary.add(row.labels.as_ref(), found, report);
    }
    if dataset.named_in_part > 0 {
        let (n, split) = (dataset.named_in_part, &summary.split);
        report.notes.push(format!(
            "{n} pictures of {split} are in some of the twenty classes' lists and not in all: their labels \
             are taken from annotations or masks, or are not known"
        ));
    }
    summary
}

impl List {
    fn name(&self) -> String {
        format!("{}, {}", self.task.name(), self.set)
    }

    fn trains(&self) -> bool {
        matches!(self.set, "train" | "trainval")
    }

    /// Is it the list that a classifier is trained on? The one for segmentation goes before `Main`.
    fn is_trained_on(&self, lists: &[List]) -> bool {
        let goes_before = |other: &List| other.trains() && other.task == Task::Segmentation;
        self.trains() && (self.task == Task::Segmentation || !lists.iter().any(goes_before))
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        self.dataset.rows.iter().map(|row| row.id.as_str())
    }
}

/// What is to be said of several lists.
fn judge_together(lists: &[List], report: &mut Report) {
    for first in lists.iter().filter(|list| list.set != "test") {
        for second in lists.iter().filter(|list| list.task == first.task) {
            match (first.set, second.set) {
                ("train", "val") => report.problems.extend(second.dataset.shared_with(&first.dataset)),
                (_, "test") => {
                    let shared = second.dataset.shared_with(&first.dataset).count();
                    if shared > 0 {
                        let (first, second) = (first.name(), second.name());
                        report.notes.push(format!("{shared} pictures of {first} are in {second} too"));
                    }
                }
                _ => {}
            }
        }
    }
    let of = |task: Task| lists.iter().filter(move |list| list.task == task && list.set != "test");
    if of(Task::Segmentation).any(List::trains) {
        let segmented: HashSet<&str> = of(Task::Segmentation).flat_map(List::ids).collect();
        let others = of(Task::Main).flat_map(List::ids).filter(|id| !segmented.contains(id)).count();
        if others > 0 {
            report.notes.push(format!(
                "{others} pictures of Main's lists are not in Segmentation's: where there are lists for \
                 segmentation, those are trained on"
            ));
        }
    }
}
