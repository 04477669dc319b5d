//! From one layout to the other.
//!
//! To npy: `train` becomes the images of the folder's lists for training followed by those for
//! validation, `test` those for testing; lists for segmentation come before those of `Main`, and a
//! image that both name comes once. Images have the JPEGs' decoded pixels, ids stay. To
//! VOCdevkit: ids get the name of their split before them (both splits may have a `7`), images
//! become JPEGs (so their pixels are no longer quite the same), masks palette PNGs, exact;
//! `ImageSets` get `train` and `test`. Labels that are not known are the masks' there.
//!
//! What the other layout cannot hold is refused before anything is written. Then everything is
//! written under a hidden name and moved at the end: a conversion that fails leaves nothing.

use crate::backend::cpu::threads;
use crate::data::image_files::{jpeg_holds, write_jpeg, write_mask_png};
use crate::data::partial::Partial;
use crate::data::source::{Layout, Source};
use crate::data::voc_devkit::{self, Task};
use crate::data::voc_npy::{self, Split};
use crate::data::{CLASSES, Dataset, Labels, mask_fits};
use crate::error::{Error, Result, printable};
use crate::files::{explain, write_atomically};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many samples were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Training samples, those for validation among them.
    pub train: usize,
    /// Test samples.
    pub test: usize,
    /// Samples of either split that have a mask.
    pub masks: usize,
}

/// A new folder `to` with what `from` has; `progress(done, of)` is called now and then, and may ask
/// to stop, which leaves nothing.
///
/// ```
/// use atrous::data::convert::{Converted, convert};
/// use atrous::data::source::{Layout, Source};
/// use atrous::data::voc_npy::{self, Split};
/// use atrous::data::{Classes, Image, voc_devkit};
/// use std::ops::ControlFlow;
///
/// let folder = tempfile::tempdir()?;
/// let (npy, devkit) = (folder.path().join("npy"), folder.path().join("devkit"));
/// # std::fs::create_dir_all(npy.join("train/img"))?;
/// voc_npy::write_csv(Split::Train.csv(&npy), &Classes::voc(), [("7", Some(vec![false; 20]))])?;
/// voc_npy::write_image(Split::Train.image(&npy, "7"), &Image::new(2, 2, vec![90; 12])?)?;
///
/// let progress = |_done: usize, _of: usize| ControlFlow::Continue(());
/// let converted = convert(&npy, &devkit, Layout::VocDevkit, &progress)?;
/// assert_eq!(converted, Converted { train: 1, test: 0, masks: 0 });
/// assert_eq!(Source::open(&devkit)?.layout, Layout::VocDevkit);
/// assert!(voc_devkit::image_path(&devkit, "train_7").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    let (train, test) = source.everything()?;
    let total = train.len() + test.as_ref().map_or(0, |test| test.len());
    let sets = [(Split::Train, Some(train)), (Split::Test, test)];
    let sets = || sets.iter().filter_map(|(split, set)| Some((*split, set.as_ref()?)));
    if layout == Layout::VocDevkit {
        sets().try_for_each(|(split, dataset)| fits_devkit(to, split, &**dataset))?;
    }

    let partial = Partial::of(to)?;
    sets().try_for_each(|(split, dataset)| reserve(&partial.path, layout, split, &**dataset))?;
    let mut done = Converted::default();
    for (split, dataset) in sets() {
        let before = done.train;
        let count = |n: usize| progress(before + n, total);
        let masks = match layout {
            Layout::VocNpy => to_npy(&partial.path, split, dataset, &count)?,
            Layout::VocDevkit => to_devkit(&partial.path, split, dataset, &count)?,
            Layout::Own(_) => return Err(only_vocs(to)),
        };
        done.masks += masks;
        match split {
            Split::Train => done.train = dataset.len(),
            Split::Test => done.test = dataset.len(),
        }
    }
    partial.become_whole()?;
    Ok(done)
}

fn only_vocs(to: &Path) -> Error {
    Error::file(to, "folders are converted to the competition's layout or to VOCdevkit's")
}

/// An image's name in VOCdevkit.
fn devkit_id(split: Split, id: &str) -> String {
    format!("{}_{id}", split.name())
}

/// An error where VOCdevkit cannot hold an image, before anything is written.
fn fits_devkit(to: &Path, split: Split, dataset: &dyn Dataset) -> Result<()> {
    let refused = |i: usize, message: String| {
        let (split, id) = (split.name(), dataset.id(i));
        Error::file(to, format!("the {split} picture `{}` does not fit: {message}", printable(&id)))
    };
    if !dataset.classes().is_voc() {
        let message = "VOCdevkit has VOC's twenty classes, the pictures have others";
        return Err(Error::file(to, format!("{message}: {:?}", dataset.classes())));
    }
    let ids: HashSet<String> = (0..dataset.len()).map(|i| dataset.id(i)).collect();
    let sizes = threads::map(dataset.len(), |i| dataset.size(i));
    for (i, size) in sizes.into_iter().enumerate() {
        let (height, width) = size?;
        jpeg_holds(height, width).map_err(|message| refused(i, message))?;
        if let Some(other) = voc_devkit::without_value(&dataset.id(i)).filter(|id| ids.contains(*id)) {
            let message = format!(
                "expected Ids that a list tells apart, got `{}` too, to which a list may add a value",
                printable(other)
            );
            return Err(refused(i, message));
        }
    }
    Ok(())
}

/// Makes the empty file of every image and mask: names that the file system does not take, or that
/// it does not tell apart, show before the work.
fn reserve(root: &Path, layout: Layout, split: Split, dataset: &dyn Dataset) -> Result<()> {
    let files = |id: &str| match layout {
        Layout::VocNpy => [split.image(root, id), split.mask(root, id)],
        _ => {
            let id = devkit_id(split, id);
            [voc_devkit::image_path(root, &id), voc_devkit::mask_path(root, &id)]
        }
    };
    files("").iter().try_for_each(|path| folder_for(path))?;
    for i in 0..dataset.len() {
        let id = dataset.id(i);
        let wanted = if dataset.has_mask(i) { 2 } else { 1 };
        for path in &files(&id)[..wanted] {
            File::create_new(path).map_err(|error| {
                let message = match error.kind() {
                    ErrorKind::AlreadyExists => {
                        "expected Ids that this file system tells apart, got two with one file"
                            .to_owned()
                    }
                    _ => explain(&error),
                };
                Error::file(
                    path,
                    format!("the {} picture `{}`: {message}", split.name(), printable(&id)),
                )
            })?;
        }
    }
    Ok(())
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
    let write = |i: usize| {
        let (id, image) = (dataset.id(i), dataset.image(i)?);
        voc_npy::write_image(split.image(root, &id), &image)?;
        let Some(mask) = dataset.mask(i)? else { return Ok(false) };
        mask_fits(&**dataset, i, &mask, &image)?;
        voc_npy::write_mask(split.mask(root, &id), &mask)?;
        Ok(true)
    };
    let masks = each(dataset.len(), write, count)?;
    let rows: Vec<(String, Option<Labels>)> =
        (0..dataset.len()).map(|i| (dataset.id(i), dataset.labels(i))).collect();
    let rows = rows.iter().map(|(id, labels)| (id.as_str(), labels.clone()));
    voc_npy::write_csv(split.csv(root), &dataset.classes(), rows)?;
    Ok(masks.iter().filter(|&&mask| mask).count())
}

fn to_devkit(
    root: &Path,
    split: Split,
    dataset: &Arc<dyn Dataset>,
    count: &dyn Fn(usize) -> ControlFlow<()>,
) -> Result<usize> {
    let name = |i: usize| devkit_id(split, &dataset.id(i));
    let write = |i: usize| {
        let (id, image) = (name(i), dataset.image(i)?);
        write_jpeg(voc_devkit::image_path(root, &id), &image)?;
        let Some(mask) = dataset.mask(i)? else { return Ok(false) };
        mask_fits(&**dataset, i, &mask, &image)?;
        write_mask_png(voc_devkit::mask_path(root, &id), &mask)?;
        Ok(true)
    };
    let masks = each(dataset.len(), write, count)?;

    let list = |path: PathBuf, lines: Vec<String>| -> Result<()> {
        folder_for(&path)?;
        write_atomically(path, |file| lines.iter().try_for_each(|line| writeln!(file, "{line}")))
    };
    list(Task::Main.list(root, split.name()), (0..dataset.len()).map(name).collect())?;
    // Test images are asked for masks whether the masks are there or not.
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
