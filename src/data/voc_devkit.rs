//! PASCAL VOC's own layout, VOCdevkit.
//!
//! ```text
//! JPEGImages/{id}.jpg
//! SegmentationClass/{id}.png       palette: 0 background, 1..=20 classes, 255 void
//! ImageSets/Segmentation/{set}.txt one id a line: the pictures that have a mask
//! ImageSets/Main/{set}.txt         one id a line
//! ImageSets/Main/{class}_{set}.txt id and 1 (in the picture), 0 (there, but difficult), −1 (not)
//! Annotations/{id}.xml             <object><name>class</name><difficult>0</difficult>…
//! ```
//!
//! Labels come from the class lists where all twenty name the picture, else from its annotation,
//! else from its mask. What is difficult is in the picture all the same, and counts as such.

use crate::cpu::threads;
use crate::data::picture_files::{read_mask_png, read_picture};
use crate::data::{CLASSES, Dataset, Labels, Mask, Picture, mask_if_there};
use crate::error::{Error, Result};
use crate::files::explain;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Whose list of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// All pictures with labels: `ImageSets/Main`.
    Main,
    /// Those with masks: `ImageSets/Segmentation`.
    Segmentation,
}

impl Task {
    pub fn name(self) -> &'static str {
        match self {
            Task::Main => "Main",
            Task::Segmentation => "Segmentation",
        }
    }

    /// The list of a set, `train`, `val`, `trainval` or `test`.
    pub fn list(self, root: &Path, set: &str) -> PathBuf {
        root.join("ImageSets").join(self.name()).join(format!("{set}.txt"))
    }

    /// Is there a list of this set? Of `Main`, the classes' lists are enough.
    pub fn has(self, root: &Path, set: &str) -> bool {
        let by_class = || self == Task::Main && class_list(root, CLASSES[0], set).is_file();
        self.list(root, set).is_file() || by_class()
    }
}

/// The list of the pictures of a set with and without a class.
pub fn class_list(root: &Path, class: &str, set: &str) -> PathBuf {
    Task::Main.list(root, &format!("{class}_{set}"))
}

pub fn picture_path(root: &Path, id: &str) -> PathBuf {
    root.join("JPEGImages").join(format!("{id}.jpg"))
}

pub fn mask_path(root: &Path, id: &str) -> PathBuf {
    root.join("SegmentationClass").join(format!("{id}.png"))
}

pub fn annotation_path(root: &Path, id: &str) -> PathBuf {
    root.join("Annotations").join(format!("{id}.xml"))
}

/// The folder with `JPEGImages` and `ImageSets`: this one, or one or two below it
/// (`VOCdevkit/VOC2012`). None where there is none, or more than one.
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
    pub id: String,
    /// None: not known.
    pub labels: Option<Labels>,
    /// Where it is in its list, from 1.
    pub line: usize,
}

/// One set of a folder, its lists read.
#[derive(Clone, Debug)]
pub struct VocDevkit {
    root: PathBuf,
    pub rows: Vec<Row>,
}

impl VocDevkit {
    /// Reads a set's list and labels and looks that each picture is there, and in the list for
    /// segmentation (but for `test`) each mask.
    pub fn open(folder: impl AsRef<Path>, task: Task, set: &str) -> Result<Self> {
        let (dataset, problems) = Self::survey(folder, task, set)?;
        problems.into_iter().next().map_or(Ok(dataset), Err)
    }

    /// The pictures of a set that all is right with, and what is wrong with the others.
    pub fn survey(folder: impl AsRef<Path>, task: Task, set: &str) -> Result<(Self, Vec<Error>)> {
        let folder = folder.as_ref();
        let root = locate(folder).ok_or_else(|| {
            Error::file(folder, "expected one folder with JPEGImages and ImageSets, got none or several")
        })?;
        let classes = ClassLists::read(&root, set)?;
        let (list, lines) = ids(&root, task, set, &classes)?;
        let masks = task == Task::Segmentation && set != "test";
        let found = threads::map(lines.len(), |i| -> Result<Row> {
            let (id, line) = &lines[i];
            files_exist(&root, &list, id, *line, masks)?;
            let labels = match classes.labels(id) {
                Some(labels) => Some(labels),
                None => elsewhere(&root, id, set)?,
            };
            Ok(Row { id: id.clone(), labels, line: *line })
        });
        let (mut rows, mut problems) = (Vec::new(), Vec::new());
        for row in found {
            match row {
                Ok(row) => rows.push(row),
                Err(error) => problems.push(error),
            }
        }
        Ok((VocDevkit { root, rows }, problems))
    }

    pub fn picture_path(&self, index: usize) -> PathBuf {
        picture_path(&self.root, &self.rows[index].id)
    }

    pub fn mask_path(&self, index: usize) -> PathBuf {
        mask_path(&self.root, &self.rows[index].id)
    }
}

impl Dataset for VocDevkit {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn id(&self, index: usize) -> String {
        self.rows[index].id.clone()
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.rows[index].labels
    }

    fn picture(&self, index: usize) -> Result<Picture> {
        read_picture(self.picture_path(index))
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        mask_if_there(&self.mask_path(index), |path| read_mask_png(path))
    }

    fn mask_file(&self, index: usize) -> Option<PathBuf> {
        Some(self.mask_path(index))
    }
}

/// The ids of a set and the lines they are in, with the list that holds them.
fn ids(
    root: &Path,
    task: Task,
    set: &str,
    classes: &ClassLists,
) -> Result<(PathBuf, Vec<(String, usize)>)> {
    let path = task.list(root, set);
    let (path, lines) = if path.is_file() {
        let lines = read_list(&path)?;
        (path, lines)
    } else if let (Task::Main, Some((path, lines))) = (task, &classes.first) {
        (path.clone(), lines.clone())
    } else {
        let known: Vec<&str> =
            ["train", "val", "trainval", "test"].into_iter().filter(|set| task.has(root, set)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::file(
            path,
            format!("expected a list of pictures, got no such file (there are: {known})"),
        ));
    };
    let mut ids = Vec::with_capacity(lines.len());
    let mut first_line = HashMap::new();
    for (line, text) in lines {
        // In some years' lists for `Main` a value follows.
        let id = text.split_whitespace().next().unwrap_or_default().to_owned();
        if let Some(message) = id_problem(&id) {
            return Err(wrong(&path, line, message));
        }
        if let Some(first) = first_line.insert(id.clone(), line) {
            return Err(wrong(&path, line, format!("`{id}` was in line {first} before")));
        }
        ids.push((id, line));
    }
    match ids.is_empty() {
        true => Err(Error::file(path, "expected at least one picture, got an empty list")),
        false => Ok((path, ids)),
    }
}

fn id_problem(id: &str) -> Option<String> {
    let bad = id.contains(['/', '\\', '\0']) || id == "." || id == "..";
    bad.then(|| format!("expected a file's name without its ending, got `{id}`"))
}

fn wrong(path: &Path, line: usize, message: impl Into<String>) -> Error {
    Error::Row { path: path.to_owned(), line, column: None, message: message.into() }
}

/// The lines that are not empty, with their numbers from 1.
fn read_list(path: &Path) -> Result<Vec<(usize, String)>> {
    let bytes = fs::read(path).map_err(|error| Error::file(path, explain(&error)))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "expected a list in UTF-8"))?;
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let lines = lines.map(|(i, line)| (i + 1, line.trim().to_owned()));
    Ok(lines.filter(|(_, line)| !line.is_empty()).collect())
}

fn files_exist(root: &Path, list: &Path, id: &str, line: usize, masks: bool) -> Result<()> {
    let there = |what: &str, path: PathBuf| {
        if path.is_file() {
            return Ok(());
        }
        let path = path.display();
        Err(wrong(list, line, format!("expected the {what} of `{id}` at {path}, got no such file")))
    };
    there("picture", picture_path(root, id))?;
    if masks { there("mask", mask_path(root, id)) } else { Ok(()) }
}

/// What the classes' lists say: labels of the pictures that all twenty of them name.
#[derive(Default)]
struct ClassLists {
    labels: HashMap<String, (usize, Labels)>,
    /// The first class's list and its lines.
    first: Option<(PathBuf, Vec<(usize, String)>)>,
}

impl ClassLists {
    fn read(root: &Path, set: &str) -> Result<Self> {
        let mut lists = ClassLists::default();
        // A set for segmentation need not be the one of the same name for classification.
        let others: &[&str] = if set == "test" { &[] } else { &["trainval", "train", "val"] };
        let sets = std::iter::once(set).chain(others.iter().copied().filter(|other| *other != set));
        for one in sets {
            let paths = CLASSES.map(|class| class_list(root, class, one));
            let there = paths.iter().filter(|path| path.is_file()).count();
            if there == 0 {
                continue;
            }
            let mut found: HashMap<String, (usize, Labels)> = HashMap::new();
            for (class, path) in paths.iter().enumerate() {
                let lines = read_list(path)?;
                for (line, text) in &lines {
                    let mut parts = text.split_whitespace();
                    let (id, value) = (parts.next().unwrap_or_default(), parts.next());
                    let set = match value {
                        Some("1" | "0") => true,
                        Some("-1") => false,
                        _ => {
                            let message = format!("expected an id and 1, 0 or -1, got `{text}`");
                            return Err(wrong(path, *line, message));
                        }
                    };
                    let (seen, labels) = found.entry(id.to_owned()).or_default();
                    *seen += 1;
                    labels[class] = set;
                }
                if class == 0 && one == set {
                    lists.first = Some((path.clone(), lines));
                }
            }
            for (id, row) in found {
                lists.labels.entry(id).or_insert(row);
            }
        }
        Ok(lists)
    }

    fn labels(&self, id: &str) -> Option<Labels> {
        let &(seen, labels) = self.labels.get(id)?;
        (seen == CLASSES.len()).then_some(labels)
    }
}

/// Labels from the annotation, else from the mask, else none.
fn elsewhere(root: &Path, id: &str, set: &str) -> Result<Option<Labels>> {
    let path = annotation_path(root, id);
    // VOC 2012's annotations of test pictures name people alone (for the layout of their parts).
    if set != "test" && path.is_file() {
        return read_annotation(&path).map(Some);
    }
    let path = mask_path(root, id);
    if !path.is_file() {
        return Ok(None);
    }
    let mask = read_mask_png(&path)?;
    mask.check().map_err(|message| Error::file(path, message))?;
    Ok(Some(mask.labels()))
}

/// The classes that an annotation names.
pub fn read_annotation(path: impl AsRef<Path>) -> Result<Labels> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|error| Error::file(path, explain(&error)))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "expected XML in UTF-8"))?;
    let document = roxmltree::Document::parse(&text)
        .map_err(|error| Error::file(path, format!("expected XML, got: {error}")))?;
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        let name = root.tag_name().name();
        return Err(Error::file(path, format!("expected <annotation>, got <{name}>")));
    }
    let mut labels = [false; CLASSES.len()];
    for object in root.children().filter(|node| node.has_tag_name("object")) {
        let line = |node: roxmltree::Node<'_, '_>| document.text_pos_at(node.range().start).row as usize;
        let Some(name) = object.children().find(|node| node.has_tag_name("name")) else {
            return Err(wrong(path, line(object), "expected a <name> in <object>, got none"));
        };
        let text = name.text().unwrap_or_default().trim();
        match CLASSES.iter().position(|class| *class == text) {
            Some(class) => labels[class] = true,
            None => {
                let message = format!("expected one of VOC's 20 classes in <name>, got `{text}`");
                return Err(wrong(path, line(name), message));
            }
        }
    }
    Ok(labels)
}
