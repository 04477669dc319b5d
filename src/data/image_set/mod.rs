//! Folders of image files with classes of one's own, in the layouts people have them in.
//!
//! | layout | what names the classes | what an image says |
//! |---|---|---|
//! | [`image_folder`]: `train/cat/*.jpg` | folders | the folder's class, and no other |
//! | [`table`]: `train.csv`, images beside it | columns, or the words of one column | rows |
//! | [`mask_folder`]: `images/*`, `masks/*.png` | `classes.txt`, else numbers | masks of palette numbers |
//! | [`coco`]: `annotations/instances_*.json` | its categories | boxes' categories, masks of outlines |
//!
//! Each may have a part for validation (`val`) and one for testing (`test`). Which images there are, their
//! labels and which file holds their mask is known when a set is open; files are read when asked for.

pub mod coco;
pub mod image_folder;
pub mod mask_folder;
pub mod table;

use crate::data::image_files::{self, read_image};
use crate::data::{Classes, Dataset, Image, Labels, Mask, mask_if_there};
use crate::error::{Error, Result, printable};
use crate::files::explain;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a folder is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A folder a class.
    ImageFolder,
    /// A table of labels beside image files.
    Table,
    /// Images and masks of the same names.
    MaskFolder,
    /// COCO's instances.
    Coco,
}

impl Layout {
    /// The layout whose names are in the folder; None where none's are.
    pub fn of(root: &Path) -> Option<Self> {
        let is_one = |layout: &Layout| match layout {
            Layout::MaskFolder => mask_folder::is_one(root),
            layout => layout.has(root, Part::Train),
        };
        // From the one whose names say most to the one that any two folders of images look like.
        [Layout::Coco, Layout::Table, Layout::MaskFolder, Layout::ImageFolder].into_iter().find(is_one)
    }

    /// The images of a part; None where the folder has no such part, an error where it cannot be used.
    pub fn open(self, root: &Path, part: Part) -> Result<Option<ImageSet>> {
        match self {
            Layout::ImageFolder => image_folder::open(root, part),
            Layout::Table => table::open(root, part),
            Layout::MaskFolder => mask_folder::open(root, part),
            Layout::Coco => coco::open(root, part),
        }
    }

    /// Whether the folder has a part, by the names in it: what is there may still be of no use.
    pub fn has(self, root: &Path, part: Part) -> bool {
        match self {
            Layout::ImageFolder => image_folder::folder(root, part).is_some(),
            Layout::Table => table::file(root, part).or_else(|| table::untold(root, part)).is_some(),
            Layout::MaskFolder => mask_folder::folders(root, part).is_some(),
            Layout::Coco => coco::file(root, part).is_some(),
        }
    }

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Layout::ImageFolder => "a folder a class",
            Layout::Table => "a table of labels",
            Layout::MaskFolder => "pictures and masks",
            Layout::Coco => "COCO",
        }
    }
}

/// Which part of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is learned from.
    Train,
    /// What the folder itself keeps for validation.
    Val,
    /// What is to be predicted; it may have no labels.
    Test,
}

impl Part {
    /// The names of its folder or table, the usual one first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Part::Train => &["train", "training"],
            Part::Val => &["val", "valid", "validation"],
            Part::Test => &["test", "testing"],
        }
    }

    /// The folder of this part, where there is one.
    fn folder(self, root: &Path) -> Option<PathBuf> {
        self.names().iter().map(|name| root.join(name)).find(|path| path.is_dir())
    }
}

/// Where an image's mask comes from.
#[derive(Clone, Debug)]
enum MaskSource {
    /// A PNG whose numbers are classes.
    File(PathBuf, mask_folder::Numbers),
    /// Outlines.
    Outlines(Arc<coco::Outlines>),
}

/// One image, and what is known of it.
#[derive(Clone, Debug)]
struct Entry {
    id: String,
    path: PathBuf,
    labels: Option<Labels>,
    mask: Option<MaskSource>,
}

/// Images of a folder's part.
#[derive(Clone, Debug)]
pub struct ImageSet {
    entries: Vec<Entry>,
    classes: Classes,
    exclusive: bool,
}

impl ImageSet {
    /// In the order of their names. An error, naming the folder, where there is none, or two have one Id.
    fn new(root: &Path, mut entries: Vec<Entry>, classes: Classes, exclusive: bool) -> Result<Self> {
        if entries.is_empty() {
            return Err(Error::file(root, "expected pictures (.jpg, .png or .webp), got none"));
        }
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].id == pair[1].id) {
            let [first, second] = [&pair[0], &pair[1]].map(|entry| entry.path.display());
            let message = format!("expected one picture a name, got {first} and {second}");
            return Err(Error::file(root, message));
        }
        Ok(ImageSet { entries, classes, exclusive })
    }

    /// The file an image is read from.
    pub fn path(&self, index: usize) -> &Path {
        &self.entries[index].path
    }
}

impl Dataset for ImageSet {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    fn exclusive(&self) -> bool {
        self.exclusive
    }

    fn id(&self, index: usize) -> String {
        self.entries[index].id.clone()
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.entries[index].labels.clone()
    }

    fn image(&self, index: usize) -> Result<Image> {
        read_image(&self.entries[index].path)
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        match &self.entries[index].mask {
            None => Ok(None),
            Some(MaskSource::Outlines(outlines)) => outlines.mask().map(Some),
            Some(MaskSource::File(path, numbers)) => {
                mask_if_there(path, self.classes.len(), |path| numbers.read(path))
            }
        }
    }

    fn mask_file(&self, index: usize) -> Option<PathBuf> {
        match &self.entries[index].mask {
            Some(MaskSource::File(path, _)) => Some(path.clone()),
            _ => None,
        }
    }

    fn has_mask(&self, index: usize) -> bool {
        self.entries[index].mask.is_some()
    }
}

/// Whether a file's name says that it holds an image.
pub(crate) fn is_image(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ["jpg", "jpeg", "jpe", "png", "webp"].contains(&ending.as_str())
}

/// What is in a folder, sorted by name; hidden files are left out.
fn entries_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let unread = |error: std::io::Error| Error::file(folder, explain(&error));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        if !path.file_name().unwrap_or_default().to_string_lossy().starts_with('.') {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The image files of a folder, of those below it too where asked.
fn images_of(folder: &Path, below: bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries_of(folder)? {
        if path.is_dir() {
            if below {
                found.extend(images_of(&path, true)?);
            }
        } else if is_image(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The subfolders of a folder.
fn folders_of(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries_of(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// A file's or folder's name as text; an error where it is none.
fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| Error::file(path, "expected a name in UTF-8"))
}

/// An image's Id: its name without the ending, after the folders that lead to it from `root`, with `_` for
/// what may not be in an Id.
fn id_of(root: &Path, path: &Path) -> Result<String> {
    let within = path.strip_prefix(root).unwrap_or(path).with_extension("");
    let text = within.to_str().ok_or_else(|| Error::file(path, "expected a name in UTF-8"))?;
    Ok(text.trim().replace(['/', '\\'], "_"))
}

/// The names in a `classes.txt`: one a line; `background` in the first line is left out. None where there
/// is no such file.
fn classes_txt(root: &Path) -> Result<Option<Classes>> {
    let path = root.join("classes.txt");
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|error| Error::file(&path, explain(&error)))?;
    let lines =
        text.trim_start_matches('\u{feff}').lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<&str> = lines.collect();
    let background = names.first().is_some_and(|name| name.eq_ignore_ascii_case("background"));
    let names = names.into_iter().skip(background as usize);
    Classes::new(names).map(Some).map_err(|error| Error::file(&path, error))
}

/// Image files by the names a table may give them: with and without the ending.
struct ByName(HashMap<String, PathBuf>);

impl ByName {
    fn new(paths: &[PathBuf]) -> Self {
        let mut names = HashMap::new();
        for path in paths {
            for name in [path.file_name(), path.file_stem()].into_iter().flatten() {
                names.entry(name.to_string_lossy().into_owned()).or_insert_with(|| path.clone());
            }
        }
        ByName(names)
    }

    fn get(&self, name: &str) -> Option<&PathBuf> {
        self.0.get(name).or_else(|| self.0.get(Path::new(name).file_name()?.to_str()?))
    }
}

/// The flags of these classes.
fn flags(classes: &Classes, set: impl IntoIterator<Item = usize>) -> Labels {
    let mut labels = vec![false; classes.len()];
    set.into_iter().for_each(|class| labels[class] = true);
    labels
}

/// An error in a line of a file.
fn wrong(path: &Path, line: usize, column: Option<&str>, message: impl Into<String>) -> Error {
    let (path, column) = (path.to_owned(), column.map(|column| printable(column).into_owned()));
    Error::Row { path, line, column, message: message.into() }
}

/// A mask by its numbers, read by [`mask_folder::Numbers`].
fn numbers_of(path: &Path) -> Result<Mask> {
    let bytes = crate::data::read_file(path)?;
    image_files::decode_numbered_png(&bytes).map_err(|message| Error::file(path, message))
}
