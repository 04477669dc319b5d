//! A folder a class: `train/cat/*.jpg`, `train/dog/*.jpg`, and perhaps the same below `val` and `test`; or
//! the classes' folders right in the folder itself. What torchvision calls `ImageFolder` and Keras
//! `image_dataset_from_directory`.

use super::{Entry, ImageSet, Part, classes_txt, flags, folders_of, id_of, images_of, name_of};
use crate::data::Classes;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The folder with the classes' folders; None where there are no two of them with images.
fn base(root: &Path) -> Option<PathBuf> {
    let base = Part::Train.folder(root).unwrap_or_else(|| root.to_owned());
    let holds_images = |path: &&PathBuf| images_of(path, false).is_ok_and(|images| !images.is_empty());
    let with_images = folders_of(&base).ok()?.iter().filter(holds_images).count();
    (with_images >= 2).then_some(base)
}

/// The folder of a part. Where the classes lie right in the folder there are no others.
pub(super) fn folder(root: &Path, part: Part) -> Option<PathBuf> {
    let base = base(root)?;
    match part {
        Part::Train => Some(base),
        _ => part.folder(root).filter(|_| base != root),
    }
}

/// The classes: those of `classes.txt` where it is there, else the folders' names in alphabetical order.
fn classes(root: &Path, base: &Path) -> Result<Classes> {
    if let Some(classes) = classes_txt(root)? {
        return Ok(classes);
    }
    let names = folders_of(base)?.iter().map(|path| name_of(path)).collect::<Result<Vec<_>>>()?;
    Classes::new(names).map_err(|error| Error::file(base, error))
}

/// The images of a part; None where the folder has no such part. Images for testing may lie in classes'
/// folders or without any. An error for a folder that is no class, and for a part without images.
pub fn open(root: &Path, part: Part) -> Result<Option<ImageSet>> {
    let base = base(root).ok_or_else(|| Error::file(root, "expected a folder a class, got none"))?;
    let classes = classes(root, &base)?;
    let Some(folder) = folder(root, part) else { return Ok(None) };
    let mut entries = Vec::new();
    for path in folders_of(&folder)? {
        let class = classes.position(&name_of(&path)?);
        let class = match (class, part) {
            (Ok(class), _) => Some(class),
            (Err(_), Part::Test) => None,
            (Err(error), _) => return Err(Error::file(path, error)),
        };
        for image in images_of(&path, true)? {
            let labels = class.map(|class| flags(&classes, [class]));
            entries.push(Entry { id: id_of(&folder, &image)?, path: image, labels, mask: None });
        }
    }
    if part == Part::Test {
        for image in images_of(&folder, false)? {
            entries.push(Entry { id: id_of(&folder, &image)?, path: image, labels: None, mask: None });
        }
    }
    ImageSet::new(&folder, entries, classes, true).map(Some)
}
