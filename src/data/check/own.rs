//! Folders with classes of one's own: every image and mask of each part.

use super::contents::{self, Contents};
use super::{Found, Report, Summary};
use crate::backend::cpu::threads;
use crate::data::image_set::{ImageSet, Layout, Part};
use crate::data::{Dataset, Image};
use std::path::Path;

/// Every part of the folder. What keeps a part from being opened (a table's first wrong row) is told alone.
pub(super) fn check(root: &Path, layout: Layout, report: &mut Report) {
    let mut contents = Contents::default();
    for (part, name) in [(Part::Train, "train"), (Part::Val, "val"), (Part::Test, "test")] {
        match layout.open(root, part) {
            Ok(None) if part == Part::Test => {
                report.notes.push("there are no pictures to predict".to_owned())
            }
            Ok(None) => {}
            Ok(Some(set)) => {
                let summary = check_part(&set, name, &mut contents, report);
                if part == Part::Train {
                    report.judge_labels(&summary, root);
                }
                report.add(summary);
            }
            Err(error) => report.problems.push(error),
        }
    }
    report.notes.extend(contents.notes());
}

fn check_part(set: &ImageSet, name: &str, contents: &mut Contents, report: &mut Report) -> Summary {
    let classes = set.classes();
    let mut summary = Summary::new(name.to_owned(), set.len(), &classes);
    let labels = |i: usize| set.labels(i);
    let found = threads::map(set.len(), |i| {
        let mut found = Found::default();
        match set.image(i) {
            Ok(Image { height, width, .. }) => found.size = Some((height, width)),
            Err(error) => found.problems.push(error),
        }
        found.content = contents::of(set.path(i));
        let file = set.mask_file(i).unwrap_or_else(|| set.path(i).to_owned());
        found.judge(&file, set.mask(i).transpose(), labels(i).as_ref(), &classes);
        found
    });
    for (i, found) in found.into_iter().enumerate() {
        contents.add(name, &set.id(i), found.content);
        summary.add(labels(i).as_ref(), found, report);
    }
    summary
}
