//! Images in one folder, masks of the same names in another: `images/a.jpg`, `masks/a.png`, right in the
//! folder or below `train`, `val` and `test`. A mask is a PNG with a palette or of 8-bit grey, whose
//! numbers are classes: 0 is the background, 255 is void (not judged).

use super::{Entry, ImageSet, MaskSource, Part, classes_txt, id_of, images_of, numbers_of};
use crate::backend::cpu::threads;
use crate::data::{BACKGROUND, Classes, Mask, VOID};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What the folders may be called.
const IMAGES: [&str; 5] = ["images", "imgs", "img", "image", "JPEGImages"];
const MASKS: [&str; 7] =
    ["masks", "mask", "labels", "annotations", "segmentations", "SegmentationClass", "gt"];

/// What the numbers of a folder's masks mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// A number is a class, 255 is void.
    Classes,
    /// Nothing but 0 and 255 in all masks: 255 is the one class there is. (Void throughout, masks would say
    /// nothing.)
    Binary,
}

impl Numbers {
    /// A mask, its numbers being classes.
    pub(super) fn read(self, path: &Path) -> Result<Mask> {
        let mut mask = numbers_of(path)?;
        if self == Numbers::Binary {
            mask.classes.iter_mut().for_each(|number| *number = (*number != BACKGROUND) as u8);
        }
        Ok(mask)
    }
}

/// The folders of images and of masks.
fn pair(base: &Path) -> Option<(PathBuf, Option<PathBuf>)> {
    let of = |names: &[&str]| names.iter().map(|name| base.join(name)).find(|path| path.is_dir());
    Some((of(&IMAGES)?, of(&MASKS)))
}

/// The folders of a part: below the part's own folder, else (for training) right in the folder.
pub(super) fn folders(root: &Path, part: Part) -> Option<(PathBuf, Option<PathBuf>)> {
    let own = part.folder(root).and_then(|folder| pair(&folder));
    // The other order is as common: images/train, masks/train.
    let turned = || {
        let (images, masks) = pair(root)?;
        Some((part.folder(&images)?, masks.and_then(|masks| part.folder(&masks))))
    };
    own.or_else(turned).or_else(|| if part == Part::Train { pair(root) } else { None })
}

/// Whether the folder is laid out like this.
pub(crate) fn is_one(root: &Path) -> bool {
    folders(root, Part::Train).is_some_and(|(_, masks)| masks.is_some())
}

/// The masks of a folder by their names without ending; some tools put `_mask` behind it.
fn by_stem(folder: &Path) -> Result<HashMap<String, PathBuf>> {
    let stem = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        stem.strip_suffix("_mask").map(str::to_owned).unwrap_or(stem)
    };
    let pngs =
        images_of(folder, true)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "png"));
    Ok(pngs.map(|path| (stem(&path), path)).collect())
}

/// Which numbers occur in all masks of training.
fn seen(masks: &[PathBuf]) -> Result<[bool; 256]> {
    let mut seen = [false; 256];
    for mask in threads::map(masks.len(), |i| numbers_of(&masks[i])) {
        mask?.classes.iter().for_each(|&number| seen[usize::from(number)] = true);
    }
    Ok(seen)
}

/// The classes and what numbers mean: of `classes.txt`; else classes called by their numbers, as many as
/// the masks for training have.
fn classes(root: &Path) -> Result<(Classes, Numbers)> {
    let Some((_, Some(folder))) = folders(root, Part::Train) else {
        return Err(Error::file(root, "expected folders `images` and `masks`, got none"));
    };
    let masks: Vec<PathBuf> = by_stem(&folder)?.into_values().collect();
    let seen = seen(&masks)?;
    let most = (1..VOID).rev().find(|&number| seen[usize::from(number)]);
    let numbers = match most {
        None if seen[usize::from(VOID)] => Numbers::Binary,
        _ => Numbers::Classes,
    };
    let classes = match classes_txt(root)? {
        Some(classes) => classes,
        None => Classes::new((1..=most.unwrap_or(1)).map(|number| format!("class {number}")))?,
    };
    if classes.len() >= VOID.into() {
        let message =
            format!("expected at most 254 classes, a mask has a byte a pixel; got {}", classes.len());
        return Err(Error::file(root, message));
    }
    match numbers {
        Numbers::Binary if classes.len() != 1 => Ok((classes, Numbers::Classes)),
        numbers => Ok((classes, numbers)),
    }
}

/// The images of a part; None where the folder has no such part. Labels are the classes that a mask shows;
/// images without a mask have none. An error where masks are of no image, or cannot be read.
pub fn open(root: &Path, part: Part) -> Result<Option<ImageSet>> {
    let Some((images, masks)) = folders(root, part) else { return Ok(None) };
    let (classes, numbers) = classes(root)?;
    let mut masks = masks.map(|folder| by_stem(&folder)).transpose()?.unwrap_or_default();
    let paths = images_of(&images, true)?;
    let found: Vec<Option<PathBuf>> = paths
        .iter()
        .map(|path| masks.remove(path.file_stem().unwrap_or_default().to_string_lossy().as_ref()))
        .collect();
    if let Some((_, stray)) = masks.into_iter().min() {
        let message = format!("expected a picture of this name in {}, got none", images.display());
        return Err(Error::file(stray, message));
    }
    let entry = |i: usize| -> Result<Entry> {
        let (path, mask) = (&paths[i], &found[i]);
        let labels = match mask {
            None => None,
            Some(file) => {
                let mask = numbers.read(file)?;
                mask.check(classes.len()).map_err(|message| Error::file(file, message))?;
                (!mask.is_void()).then(|| mask.labels(classes.len()))
            }
        };
        let mask = mask.clone().map(|file| MaskSource::File(file, numbers));
        Ok(Entry { id: id_of(&images, path)?, path: path.clone(), labels, mask })
    };
    let entries = threads::map(paths.len(), entry).into_iter().collect::<Result<Vec<_>>>()?;
    ImageSet::new(&images, entries, classes, false).map(Some)
}
