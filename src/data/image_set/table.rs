//! A table of labels beside image files, as competitions hand them out: `train.csv` (or `labels.csv`),
//! images in `train/`, `images/` or beside the table, perhaps a `val.csv` and a `test.csv`.
//!
//! The column of image names is called `id`, `image`, `image_id`, `filename`, `file` or `path` (in any
//! letters), or is the first one; names go with or without their ending. Labels are either a column a
//! class, each cell 0 or 1 (−1 in all of them: not known), or one column called `label`, `class` or
//! `category` with a class's name, or `labels`, `classes` or `tags` with several (divided by `;`, `|`, `,`
//! or blanks).

use super::{ByName, Entry, ImageSet, Part, classes_txt, flags, id_of, images_of, is_image, wrong};
use crate::data::table::Records;
use crate::data::{Classes, Labels, read_file};
use crate::error::{Error, Result, printable};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The table of a part; None where the folder has none.
pub(super) fn file(root: &Path, part: Part) -> Option<PathBuf> {
    let named = part.names().iter().flat_map(|name| {
        [format!("{name}.csv"), format!("{name}_labels.csv"), format!("{name}/{name}.csv")]
    });
    let any = ["labels.csv", "annotations.csv", "classes.csv"].map(str::to_owned);
    let any = any.into_iter().filter(|_| part == Part::Train);
    named.chain(any).map(|name| root.join(name)).find(|path| path.is_file())
}

/// What an image's labels are in a row.
enum Cells {
    /// 0 or 1, a column a class.
    Flags(Vec<usize>),
    /// Names in one column; several of them.
    Words { at: usize, several: bool },
    /// Nothing but images' names.
    None,
}

/// A table that was read.
struct Table {
    path: PathBuf,
    /// Lines, images' names, and what stands in the classes' cells.
    rows: Vec<(usize, String, Vec<String>)>,
    /// The columns of those cells, where each is a class.
    columns: Vec<String>,
    several: bool,
}

impl Table {
    fn read(path: PathBuf) -> Result<Self> {
        let bytes = read_file(&path)?;
        let mut records = Records::new(&bytes);
        let (line, header) = match records.next() {
            Some((line, header)) => (line, header.map_err(|message| wrong(&path, line, None, message))?),
            None => return Err(wrong(&path, 1, None, "expected a header, got an empty file")),
        };
        let names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let mut seen = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(wrong(&path, line, Some(twice), "expected each column once, got it twice"));
        }
        let (name_at, cells) = columns(&names);
        let (wanted, several) = match &cells {
            Cells::Flags(columns) => (columns.clone(), true),
            Cells::Words { at, several } => (vec![*at], *several),
            Cells::None => (Vec::new(), true),
        };
        let columns = match cells {
            Cells::Flags(columns) => columns.iter().map(|&at| names[at].clone()).collect(),
            _ => Vec::new(),
        };
        let mut rows = Vec::new();
        for (line, record) in records {
            let record = record.map_err(|message| wrong(&path, line, None, message))?;
            if record.len() != names.len() {
                let message = format!("expected {} fields, got {}", names.len(), record.len());
                return Err(wrong(&path, line, None, message));
            }
            let cells = wanted.iter().map(|&at| record[at].trim().to_owned()).collect();
            rows.push((line, record[name_at].trim().to_owned(), cells));
        }
        match rows.is_empty() {
            true => Err(Error::file(path, "expected at least one row below the header")),
            false => Ok(Table { path, rows, columns, several }),
        }
    }

    /// The names in a cell of words.
    fn words<'a>(&self, cell: &'a str) -> Vec<&'a str> {
        if !self.several {
            return Some(cell).filter(|cell| !cell.is_empty()).into_iter().collect();
        }
        let divided = cell.contains([';', '|', ',']);
        let divides = |c: char| if divided { matches!(c, ';' | '|' | ',') } else { c.is_whitespace() };
        cell.split(divides).map(str::trim).filter(|word| !word.is_empty()).collect()
    }

    /// The classes that the table itself tells of: its columns, else the words in alphabetical order.
    fn classes(&self) -> Result<Classes> {
        let names: Vec<String> = match self.columns.is_empty() {
            false => self.columns.clone(),
            true => {
                let cells = self.rows.iter().flat_map(|(_, _, cells)| cells);
                let words: BTreeSet<&str> = cells.flat_map(|cell| self.words(cell)).collect();
                words.into_iter().map(str::to_owned).collect()
            }
        };
        Classes::new(names).map_err(|error| Error::file(&self.path, error))
    }

    /// The labels of a row; None where they are not known.
    fn labels(&self, row: usize, classes: &Classes) -> Result<Option<Labels>> {
        let (line, _, cells) = &self.rows[row];
        let class = |name: &str, column: Option<&str>| {
            classes.position(name).map_err(|error| wrong(&self.path, *line, column, error.to_string()))
        };
        if self.columns.is_empty() {
            let Some(cell) = cells.first() else { return Ok(None) };
            let set: Vec<usize> =
                self.words(cell).into_iter().map(|name| class(name, None)).collect::<Result<_>>()?;
            return Ok((self.several || !set.is_empty()).then(|| flags(classes, set)));
        }
        let mut labels = vec![false; classes.len()];
        let mut unknown = 0;
        for (name, cell) in self.columns.iter().zip(cells) {
            labels[class(name, Some(name))?] = match cell.to_lowercase().as_str() {
                "1" | "1.0" | "true" => true,
                "0" | "0.0" | "false" => false,
                "-1" | "" => {
                    unknown += 1;
                    false
                }
                _ => {
                    let message = format!("expected 0, 1 or -1 (not known), got `{}`", printable(cell));
                    return Err(wrong(&self.path, *line, Some(name), message));
                }
            };
        }
        match unknown {
            0 => Ok(Some(labels)),
            n if n == cells.len() => Ok(None),
            n => {
                let all = cells.len();
                let message =
                    format!("expected -1 (not known) in all {all} columns or in none, got {n}");
                Err(wrong(&self.path, *line, None, message))
            }
        }
    }
}

/// Which column names images, and what says their classes.
fn columns(names: &[String]) -> (usize, Cells) {
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let find = |known: &[&str]| lower.iter().position(|name| known.contains(&name.as_str()));
    let images =
        ["id", "image", "image_id", "filename", "file_name", "file", "path", "image_name", "img"];
    let image = find(&images).unwrap_or(0);
    let other = |at: &usize| *at != image;
    let one = find(&["label", "class", "category", "target", "breed", "species"]).filter(other);
    let many = find(&["labels", "classes", "categories", "tags", "attributes"]).filter(other);
    let cells = match (one, many) {
        (Some(at), _) => Cells::Words { at, several: false },
        (None, Some(at)) => Cells::Words { at, several: true },
        (None, None) => match (0..names.len()).filter(other).collect::<Vec<_>>() {
            rest if rest.is_empty() => Cells::None,
            rest => Cells::Flags(rest),
        },
    };
    (image, cells)
}

/// Where the images of a part may be, the likeliest first.
fn image_folders(root: &Path, part: Part) -> Vec<PathBuf> {
    let own = part.folder(root).into_iter();
    let suffixed = part.names().iter().map(|name| root.join(format!("{name}_images")));
    let shared = ["images", "img", "imgs", "pictures", "photos"].map(|name| root.join(name));
    let all = own.chain(suffixed).chain(shared).filter(|folder| folder.is_dir());
    all.chain([root.to_owned()]).collect()
}

/// The images of a part; None where the folder has neither a table nor (for testing) a folder of it. An
/// error, with file, row and column, for a row whose image is not there or whose cells are none of the
/// classes.
pub fn open(root: &Path, part: Part) -> Result<Option<ImageSet>> {
    let training = file(root, Part::Train)
        .ok_or_else(|| Error::file(root, "expected train.csv or labels.csv, got neither"))
        .and_then(Table::read)?;
    let classes = match classes_txt(root)? {
        Some(classes) => classes,
        None => training.classes()?,
    };
    let exclusive = is_exclusive(&training, &classes)?;
    let table = match part {
        Part::Train => training,
        _ => match file(root, part) {
            Some(path) => Table::read(path)?,
            None => return without_table(untold(root, part), classes, exclusive),
        },
    };
    let mut paths = Vec::new();
    for folder in image_folders(root, part) {
        // The folder itself is only looked into for images that lie in it.
        paths.extend(images_of(&folder, folder != root)?);
    }
    let files = ByName::new(&paths);
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines: HashMap<PathBuf, usize> = HashMap::new();
    for (row, (line, name, _)) in table.rows.iter().enumerate() {
        let own = root.join(name);
        let path = if own.is_file() { Some(&own) } else { files.get(name) };
        let Some(path) = path else {
            let message = format!("expected the picture `{}`, got no such file", printable(name));
            return Err(wrong(&table.path, *line, None, message));
        };
        if let Some(first) = lines.insert(path.clone(), *line) {
            let message = format!("the picture `{}` was in line {first} before", printable(name));
            return Err(wrong(&table.path, *line, None, message));
        }
        // (`scan.1` without an ending is whole.)
        let whole =
            if is_image(Path::new(name)) { Path::new(name).with_extension("") } else { name.into() };
        let id = whole.to_string_lossy().trim().replace(['/', '\\'], "_");
        let labels = table.labels(row, &classes)?;
        entries.push(Entry { id, path: path.clone(), labels, mask: None });
    }
    ImageSet::new(&table.path, entries, classes, exclusive).map(Some)
}

/// Whether every row of the table has exactly one class.
fn is_exclusive(table: &Table, classes: &Classes) -> Result<bool> {
    for row in 0..table.rows.len() {
        let labels = table.labels(row, classes)?;
        if labels.is_some_and(|labels| labels.iter().filter(|&&set| set).count() != 1) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The folder of images that no table tells of: for testing alone.
pub(super) fn untold(root: &Path, part: Part) -> Option<PathBuf> {
    part.folder(root).filter(|_| part == Part::Test)
}

/// A folder of images for testing, of which no table tells.
fn without_table(
    folder: Option<PathBuf>,
    classes: Classes,
    exclusive: bool,
) -> Result<Option<ImageSet>> {
    let Some(folder) = folder else { return Ok(None) };
    let entry = |path: PathBuf| Ok(Entry { id: id_of(&folder, &path)?, path, labels: None, mask: None });
    let entries = images_of(&folder, true)?.into_iter().map(entry).collect::<Result<_>>()?;
    ImageSet::new(&folder, entries, classes, exclusive).map(Some)
}
