//! PASCAL VOC's own layout, VOCdevkit.
//!
//! ```text
//! JPEGImages/{id}.jpg
//! SegmentationClass/{id}.png       palette: 0 background, 1..=20 classes, 255 void
//! ImageSets/Segmentation/{set}.txt one id a line: the images that have a mask
//! ImageSets/Main/{set}.txt         one id a line
//! ImageSets/Main/{class}_{set}.txt id and 1 (in the image), 0 (there, but difficult), −1 (not)
//! Annotations/{id}.xml             <object><name>class</name><difficult>0</difficult>…
//! ```
//!
//! Labels come from the class lists where all twenty name the image, else from its annotation,
//! else from its mask, unless that is void throughout. What is difficult is in the image all the same,
//! and counts as such.

mod annotation;
mod lists;

pub use annotation::read_annotation;
pub(crate) use lists::without_value;

use crate::backend::cpu::threads;
use crate::data::image_files::{read_image, read_mask_png};
use crate::data::{CLASSES, Classes, Dataset, Image, Labels, Mask, is_there, mask_if_there};
use crate::error::{Error, Result, printable};
use lists::ClassLists;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The task whose lists name the images.
///
/// ```
/// use atrous::data::voc_devkit::Task;
/// use std::path::Path;
///
/// let list = Task::Segmentation.list(Path::new("VOC2012"), "val");
/// assert_eq!(list, Path::new("VOC2012/ImageSets/Segmentation/val.txt"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Images with labels: `ImageSets/Main`.
    Main,
    /// Images with masks: `ImageSets/Segmentation`.
    Segmentation,
}

impl Task {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Task::Main => "Main",
            Task::Segmentation => "Segmentation",
        }
    }

    /// Path of the list of a set, `train`, `val`, `trainval` or `test`:
    /// `ImageSets/{task}/{set}.txt`.
    pub fn list(self, root: &Path, set: &str) -> PathBuf {
        root.join("ImageSets").join(self.name()).join(format!("{set}.txt"))
    }

    /// Is there a list of this set? Of `Main`, the classes' lists are enough.
    pub(crate) fn has(self, root: &Path, set: &str) -> bool {
        let by_class = || self == Task::Main && class_list(root, CLASSES[0], set).is_file();
        self.list(root, set).is_file() || by_class()
    }
}

/// `ImageSets/Main/{class}_{set}.txt`
///
/// ```
/// use atrous::data::voc_devkit::class_list;
/// use std::path::Path;
///
/// let list = class_list(Path::new("VOC2012"), "cat", "train");
/// assert_eq!(list, Path::new("VOC2012/ImageSets/Main/cat_train.txt"));
/// ```
pub fn class_list(root: &Path, class: &str, set: &str) -> PathBuf {
    Task::Main.list(root, &format!("{class}_{set}"))
}

/// `JPEGImages/{id}.jpg`
///
/// ```
/// use atrous::data::voc_devkit::image_path;
/// use std::path::Path;
///
/// let path = image_path(Path::new("VOC2012"), "2007_000032");
/// assert_eq!(path, Path::new("VOC2012/JPEGImages/2007_000032.jpg"));
/// ```
pub fn image_path(root: &Path, id: &str) -> PathBuf {
    root.join("JPEGImages").join(format!("{id}.jpg"))
}

/// `SegmentationClass/{id}.png`
///
/// ```
/// use atrous::data::voc_devkit::mask_path;
/// use std::path::Path;
///
/// let path = mask_path(Path::new("VOC2012"), "2007_000032");
/// assert_eq!(path, Path::new("VOC2012/SegmentationClass/2007_000032.png"));
/// ```
pub fn mask_path(root: &Path, id: &str) -> PathBuf {
    root.join("SegmentationClass").join(format!("{id}.png"))
}

/// `Annotations/{id}.xml`
///
/// ```
/// use atrous::data::voc_devkit::annotation_path;
/// use std::path::Path;
///
/// let path = annotation_path(Path::new("VOC2012"), "2007_000032");
/// assert_eq!(path, Path::new("VOC2012/Annotations/2007_000032.xml"));
/// ```
pub fn annotation_path(root: &Path, id: &str) -> PathBuf {
    root.join("Annotations").join(format!("{id}.xml"))
}

/// The folder with `JPEGImages` and `ImageSets`: this one, or one or two below it
/// (`VOCdevkit/VOC2012`). None where there is none, or more than one.
///
/// ```
/// use atrous::data::voc_devkit::locate;
///
/// let folder = tempfile::tempdir()?;
/// let voc = folder.path().join("VOCdevkit/VOC2012");
/// for part in ["JPEGImages", "ImageSets"] {
///     std::fs::create_dir_all(voc.join(part))?;
/// }
/// assert_eq!(locate(folder.path()), Some(voc));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn locate(folder: impl AsRef<Path>) -> Option<PathBuf> {
    let mut level = vec![folder.as_ref().to_owned()];
    for _ in 0..3 {
        let is_one =
            |folder: &&PathBuf| folder.join("JPEGImages").is_dir() && folder.join("ImageSets").is_dir();
        let found: Vec<&PathBuf> = level.iter().filter(is_one).collect();
        match found[..] {
            [] => {}
            [one] => return Some(one.clone()),
            _ => return None,
        }
        // Below the folder itself only names that VOC uses: a home folder is not searched.
        let below = level.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("VOC") && path.is_dir()
        };
        level = below.map(|entry| entry.path()).filter(ours).collect();
    }
    None
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The file name of the image, without `.jpg`.
    pub id: String,
    /// None where neither lists, annotation nor mask say them.
    pub labels: Option<Labels>,
    /// Its line in the list, from 1.
    pub line: usize,
}

/// One set of a folder, its lists read.
///
/// ```
/// use atrous::data::voc_devkit::{Task, VocDevkit, annotation_path, image_path};
/// use atrous::data::{Dataset, Image, image_files::write_jpeg};
///
/// let folder = tempfile::tempdir()?;
/// let root = folder.path();
/// # for part in ["JPEGImages", "ImageSets/Main", "Annotations"] {
/// #     std::fs::create_dir_all(root.join(part))?;
/// # }
/// std::fs::write(Task::Main.list(root, "train"), "2007_000032\n")?;
/// write_jpeg(image_path(root, "2007_000032"), &Image::new(4, 6, vec![90; 72])?)?;
/// let cat = "<annotation><object><name>cat</name></object></annotation>";
/// std::fs::write(annotation_path(root, "2007_000032"), cat)?;
///
/// let train = VocDevkit::open(root, Task::Main, "train")?;
/// assert_eq!((train.len(), train.id(0).as_str(), train.size(0)?), (1, "2007_000032", (4, 6)));
/// assert_eq!(train.labels(0).unwrap().iter().position(|&set| set), Some(train.classes().position("cat")?));
/// // A list without its images is refused as a whole.
/// std::fs::write(Task::Main.list(root, "val"), "2007_000033\n")?;
/// assert!(VocDevkit::open(root, Task::Main, "val").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct VocDevkit {
    root: PathBuf,
    classes: Classes,
    /// The list that names the images.
    list: PathBuf,
    /// In the order of the list.
    pub rows: Vec<Row>,
    /// Images that some class lists name and others do not, so that the lists say nothing of them.
    pub named_in_part: usize,
}

impl VocDevkit {
    /// Reads a set's list and labels and looks that each image is there, and in the list for
    /// segmentation (but for `test`) each mask.
    pub fn open(folder: impl AsRef<Path>, task: Task, set: &str) -> Result<Self> {
        let (dataset, problems) = Self::survey(folder, task, set)?;
        problems.into_iter().next().map_or(Ok(dataset), Err)
    }

    /// The images of a set that all is right with, and what is wrong with the others.
    pub(crate) fn survey(folder: impl AsRef<Path>, task: Task, set: &str) -> Result<(Self, Vec<Error>)> {
        let folder = folder.as_ref();
        let root = locate(folder).ok_or_else(|| {
            Error::file(folder, "expected one folder with JPEGImages and ImageSets, got none or several")
        })?;
        let classes = ClassLists::read(&root, set)?;
        let (list, ids) = lists::ids(&root, task, set, &classes)?;
        let named_in_part = ids.iter().filter(|(id, _)| classes.names_in_part(id)).count();
        let masks = task == Task::Segmentation && set != "test";
        let found = threads::map(ids.len(), |i| -> Result<Row> {
            lists::files_exist(&root, &list, &ids[i], masks)?;
            let (id, line) = ids[i].clone();
            let labels = match classes.labels(&id) {
                Some(labels) => Some(labels),
                None => elsewhere(&root, &id, set)?,
            };
            Ok(Row { id, labels, line })
        });
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        for row in found {
            match row {
                Ok(row) => rows.push(row),
                Err(error) => problems.push(error),
            }
        }
        Ok((VocDevkit { root, classes: Classes::voc(), list, rows, named_in_part }, problems))
    }

    /// The images that another set has too, each as an error with its line in this set's list.
    pub(crate) fn shared_with<'a>(&'a self, other: &'a VocDevkit) -> impl Iterator<Item = Error> + 'a {
        let lines: HashMap<&str, usize> =
            other.rows.iter().map(|row| (row.id.as_str(), row.line)).collect();
        self.rows.iter().filter_map(move |row| {
            let (id, other_line) = (printable(&row.id), lines.get(row.id.as_str())?);
            let other_list = other.list.display();
            let message = format!(
                "expected pictures that are in one set only, got `{id}`, which is in line {other_line} of \
                 {other_list} too: what is trained on would be validated on"
            );
            Some(wrong(&self.list, row.line, message))
        })
    }

    pub(crate) fn image_path(&self, index: usize) -> PathBuf {
        image_path(&self.root, &self.rows[index].id)
    }

    pub(crate) fn mask_path(&self, index: usize) -> PathBuf {
        mask_path(&self.root, &self.rows[index].id)
    }
}

impl Dataset for VocDevkit {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    fn id(&self, index: usize) -> String {
        self.rows[index].id.clone()
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.rows[index].labels.clone()
    }

    fn image(&self, index: usize) -> Result<Image> {
        read_image(self.image_path(index))
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        mask_if_there(&self.mask_path(index), self.classes.len(), |path| read_mask_png(path))
    }

    fn mask_file(&self, index: usize) -> Option<PathBuf> {
        Some(self.mask_path(index))
    }
}

fn wrong(path: &Path, line: usize, message: impl Into<String>) -> Error {
    Error::Row { path: path.to_owned(), line, column: None, message: message.into() }
}

/// Labels from the annotation, else from the mask, else none.
fn elsewhere(root: &Path, id: &str, set: &str) -> Result<Option<Labels>> {
    let path = annotation_path(root, id);
    // VOC 2012's annotations of test images name people alone (for the layout of their parts).
    if set != "test" && is_there(&path) {
        return read_annotation(&path).map(Some);
    }
    let path = mask_path(root, id);
    let mask = mask_if_there(&path, CLASSES.len(), |path| read_mask_png(path))?;
    Ok(mask.filter(|mask| !mask.is_void()).map(|mask| mask.labels(CLASSES.len())))
}
