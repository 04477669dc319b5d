//! From one layout to the other.
//!
//! To npy: `train` becomes the folder's training set followed by its validation set, `test` its
//! test set; pictures have the JPEGs' decoded pixels, ids stay. To VOCdevkit: ids get the name of
//! their split before them (both splits may have a `7`), pictures become JPEGs (so their pixels are
//! no longer quite the same), masks palette PNGs, exact; `ImageSets` get `train` and `test`.
//!
//! Everything is written beside the target under a hidden name and moved there at the end: a
//! conversion that fails leaves nothing.

use crate::cpu::threads;
use crate::data::picture_files::{write_jpeg, write_mask_png};
use crate::data::source::{Layout, Source};
use crate::data::voc_devkit::{self, Task};
use crate::data::voc_npy::{self, Split};
use crate::data::{CLASSES, Dataset, Labels, mask_fits};
use crate::error::{Error, Result};
use crate::files::{explain, write_atomically};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many samples were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    pub train: usize,
    pub test: usize,
    pub masks: usize,
}

/// A new folder `to` with what `from` has; `progress(done, of)` is called now and then, and may ask
/// to stop, which leaves nothing.
pub fn convert(
    from: &Path,
    to: &Path,
    layout: Layout,
    progress: &dyn Fn(usize, usize) -> ControlFlow<()>,
) -> Result<Converted> {
    let source = Source::open(from)?;
    if fs::symlink_metadata(to).is_ok() {
        return Err(Error::file(to, "expected a name that is not taken, got one that is there already"));
    }
    let task = source.natural_task();
    let train = source.training(task)?.dataset;
    let test = if source.has_test(task) { Some(source.test(task)?) } else { None };
    let total = train.len() + test.as_ref().map_or(0, |test| test.len());

    let partial = Partial::beside(to)?;
    let mut done = Converted::default();
    let sets = [(Split::Train, Some(train)), (Split::Test, test)];
    for (split, dataset) in sets.iter().filter_map(|(split, set)| Some((*split, set.as_ref()?))) {
        let before = done.train;
        let count = |n: usize| progress(before + n, total);
        let masks = match layout {
            Layout::VocNpy => to_npy(&partial.path, split, dataset, &count)?,
            Layout::VocDevkit => to_devkit(&partial.path, split, dataset, &count)?,
        };
        done.masks += masks;
        match split {
            Split::Train => done.train = dataset.len(),
            Split::Test => done.test = dataset.len(),
        }
    }
    partial.become_whole(to)?;
    Ok(done)
}

/// Calls `write` for every sample, some at a time; true where a mask was written.
fn each(
    len: usize,
    write: impl Fn(usize) -> Result<bool> + Sync,
    count: &dyn Fn(usize) -> ControlFlow<()>,
) -> Result<Vec<bool>> {
    let mut masks = Vec::with_capacity(len);
    for start in (0..len).step_by(16) {
        for result in threads::map(16.min(len - start), |i| write(start + i)) {
            masks.push(result?);
        }
        if count(masks.len()).is_break() {
            return Err(Error::Interrupted("stopped: nothing was converted".into()));
        }
    }
    Ok(masks)
}

fn folder_for(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))
}

fn to_npy(
    root: &Path,
    split: Split,
    dataset: &Arc<dyn Dataset>,
    count: &dyn Fn(usize) -> ControlFlow<()>,
) -> Result<usize> {
    folder_for(&split.picture(root, ""))?;
    folder_for(&split.mask(root, ""))?;
    let write = |i: usize| {
        let (id, picture) = (dataset.id(i), dataset.picture(i)?);
        voc_npy::write_picture(split.picture(root, &id), &picture)?;
        let Some(mask) = dataset.mask(i)? else { return Ok(false) };
        mask_fits(&**dataset, i, &mask, &picture)?;
        voc_npy::write_mask(split.mask(root, &id), &mask)?;
        Ok(true)
    };
    let masks = each(dataset.len(), write, count)?;
    let rows: Vec<(String, Option<Labels>)> =
        (0..dataset.len()).map(|i| (dataset.id(i), dataset.labels(i))).collect();
    voc_npy::write_csv(split.csv(root), rows.iter().map(|(id, labels)| (id.as_str(), *labels)))?;
    Ok(masks.iter().filter(|&&mask| mask).count())
}

fn to_devkit(
    root: &Path,
    split: Split,
    dataset: &Arc<dyn Dataset>,
    count: &dyn Fn(usize) -> ControlFlow<()>,
) -> Result<usize> {
    let name = |i: usize| format!("{}_{}", split.name(), dataset.id(i));
    folder_for(&voc_devkit::picture_path(root, ""))?;
    folder_for(&voc_devkit::mask_path(root, ""))?;
    let write = |i: usize| {
        let (id, picture) = (name(i), dataset.picture(i)?);
        write_jpeg(voc_devkit::picture_path(root, &id), &picture)?;
        let Some(mask) = dataset.mask(i)? else { return Ok(false) };
        mask_fits(&**dataset, i, &mask, &picture)?;
        write_mask_png(voc_devkit::mask_path(root, &id), &mask)?;
        Ok(true)
    };
    let masks = each(dataset.len(), write, count)?;

    let list = |path: PathBuf, lines: Vec<String>| -> Result<()> {
        folder_for(&path)?;
        write_atomically(path, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))
    };
    list(Task::Main.list(root, split.name()), (0..dataset.len()).map(name).collect())?;
    // Test pictures are asked for masks whether the masks are there or not.
    let asked = |i: &usize| split == Split::Test || masks[*i];
    let segmented: Vec<String> = (0..dataset.len()).filter(asked).map(name).collect();
    if !segmented.is_empty() {
        list(Task::Segmentation.list(root, split.name()), segmented)?;
    }
    let known: Vec<(String, Labels)> =
        (0..dataset.len()).filter_map(|i| Some((name(i), dataset.labels(i)?))).collect();
    if !known.is_empty() {
        for (class, class_name) in CLASSES.iter().enumerate() {
            let line = |(id, labels): &(String, Labels)| {
                format!("{id} {:>2}", if labels[class] { 1 } else { -1 })
            };
            list(
                voc_devkit::class_list(root, class_name, split.name()),
                known.iter().map(line).collect(),
            )?;
        }
    }
    Ok(masks.iter().filter(|&&mask| mask).count())
}

/// A folder that is removed again unless it becomes whole.
struct Partial {
    path: PathBuf,
    whole: bool,
}

impl Partial {
    fn beside(to: &Path) -> Result<Self> {
        let name = to.file_name().ok_or_else(|| Error::file(to, "expected a new folder's name"))?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.partial", std::process::id()));
        let path = to.with_file_name(hidden);
        fs::create_dir_all(&path).map_err(|error| Error::file(&path, explain(&error)))?;
        Ok(Partial { path, whole: false })
    }

    fn become_whole(mut self, to: &Path) -> Result<()> {
        fs::rename(&self.path, to).map_err(|error| Error::file(to, explain(&error)))?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
