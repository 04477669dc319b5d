//! The competition's layout: a table of labels and one `.npy` file an image.
//!
//! ```text
//! train/train_set.csv       Id, then the classes, each 0 or 1
//! train/img/train_{Id}.npy  [height, width, 3] uint8, RGB
//! train/seg/train_{Id}.npy  [height, width] uint8: 0 background, from 1 on classes, 255 void
//! test/test_set.csv         the same, with −1 everywhere: not known
//! test/img/test_{Id}.npy
//! ```
//!
//! Columns are found by name. VOC's twenty are numbered in VOC's order, wherever they stand; a table of
//! other classes gives them their names and their order. `seg` may be missing, whole or in part. Images
//! are read when they are asked for.

use crate::data::table::Records;
use crate::data::{CLASSES, Classes, Dataset, Image, Labels, Mask, id, mask_if_there, npy, read_file};
use crate::error::{Error, Result, did_you_mean, printable};
use crate::files::{explain, write_atomically};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Which half of the folder.
///
/// ```
/// use atrous::data::voc_npy::Split;
/// use std::path::Path;
///
/// let (root, split) = (Path::new("voc"), Split::Train);
/// assert_eq!(split.name(), "train");
/// assert_eq!(split.csv(root), Path::new("voc/train/train_set.csv"));
/// assert_eq!(split.image(root, "7"), Path::new("voc/train/img/train_7.npy"));
/// assert_eq!(split.mask(root, "7"), Path::new("voc/train/seg/train_7.npy"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Labels are known, masks may be.
    Train,
    /// Nothing but the images is known.
    Test,
}

impl Split {
    /// `train` or `test`: the folder, and the beginning of its files' names.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }

    /// `{split}/{split}_set.csv`
    pub fn csv(self, root: &Path) -> PathBuf {
        root.join(self.name()).join(format!("{}_set.csv", self.name()))
    }

    /// `{split}/img/{split}_{id}.npy`
    pub fn image(self, root: &Path, id: &str) -> PathBuf {
        root.join(self.name()).join("img").join(format!("{}_{id}.npy", self.name()))
    }

    /// `{split}/seg/{split}_{id}.npy`
    pub fn mask(self, root: &Path, id: &str) -> PathBuf {
        root.join(self.name()).join("seg").join(format!("{}_{id}.npy", self.name()))
    }
}

/// One row of the table of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As the table has it, part of the file names.
    pub id: String,
    /// None where the table says −1: not known.
    pub labels: Option<Labels>,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// One split of a folder, its table read.
///
/// ```
/// use atrous::data::voc_npy::{self, Split, VocNpy};
/// use atrous::data::{Classes, Dataset, Image};
///
/// let folder = tempfile::tempdir()?;
/// let root = folder.path();
/// # std::fs::create_dir_all(root.join("train/img"))?;
/// let (classes, cat) = (Classes::new(["cat", "dog"])?, vec![true, false]);
/// voc_npy::write_csv(Split::Train.csv(root), &classes, [("7", Some(cat.clone())), ("8", None)])?;
/// let image = Image::new(2, 3, (0..18).collect())?;
/// voc_npy::write_image(Split::Train.image(root, "7"), &image)?;
/// // A row without an image
/// assert!(VocNpy::open(root, Split::Train).is_err());
///
/// voc_npy::write_image(Split::Train.image(root, "8"), &image.mirrored())?;
/// let train = VocNpy::open(root, Split::Train)?;
/// assert_eq!((train.labels(0), train.labels(1)), (Some(cat), None));
/// assert_eq!((train.size(0)?, train.image(0)?), ((2, 3), image));
/// assert_eq!(train.mask(0)?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct VocNpy {
    root: PathBuf,
    split: Split,
    classes: Classes,
    /// In the order of the table.
    pub rows: Vec<Row>,
}

impl VocNpy {
    /// Reads the table and looks that each row has its image; [`check`](crate::data::check)
    /// looks at everything.
    pub fn open(root: impl AsRef<Path>, split: Split) -> Result<Self> {
        let root = root.as_ref().to_owned();
        let csv = split.csv(&root);
        let Table { classes, rows } = read_csv(&csv)?;
        if rows.is_empty() {
            return Err(Error::file(csv, "expected at least one row below the header"));
        }
        for row in &rows {
            image_exists(&root, split, &csv, row)?;
        }
        Ok(VocNpy { root, split, classes, rows })
    }

    pub(crate) fn image_path(&self, index: usize) -> PathBuf {
        self.split.image(&self.root, &self.rows[index].id)
    }

    pub(crate) fn mask_path(&self, index: usize) -> PathBuf {
        self.split.mask(&self.root, &self.rows[index].id)
    }
}

impl Dataset for VocNpy {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    /// VOC's labels are not, whichever images there are; others are where no row says otherwise. (Of images
    /// for testing nothing is known, and nothing is asked.)
    fn exclusive(&self) -> bool {
        let one =
            |row: &Row| row.labels.as_ref().is_none_or(|l| l.iter().filter(|&&set| set).count() == 1);
        !self.classes.is_voc() && self.rows.iter().all(one)
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

    fn size(&self, index: usize) -> Result<(usize, usize)> {
        read_size(self.image_path(index))
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        mask_if_there(&self.mask_path(index), self.classes.len(), |path| read_mask(path))
    }

    fn mask_file(&self, index: usize) -> Option<PathBuf> {
        Some(self.mask_path(index))
    }
}

pub(crate) fn image_exists(root: &Path, split: Split, csv: &Path, row: &Row) -> Result<()> {
    let path = split.image(root, &row.id);
    if path.is_file() {
        return Ok(());
    }
    Err(Error::Row {
        path: csv.to_owned(),
        line: row.line,
        column: Some("Id".to_owned()),
        message: format!(
            "expected the picture of `{}` at {}, got no such file",
            printable(&row.id),
            path.display()
        ),
    })
}

/// Height and width from the beginning of an image's file. They are what its header says: whether
/// there are as many pixels is not looked at.
///
/// ```
/// use atrous::data::{Image, voc_npy};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("image.npy");
/// voc_npy::write_image(&path, &Image::new(2, 3, vec![0; 18])?)?;
/// assert_eq!(voc_npy::read_size(&path)?, (2, 3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_size(path: impl AsRef<Path>) -> Result<(usize, usize)> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(1 << 16).read_to_end(&mut bytes));
    file.map_err(|error| Error::file(path, explain(&error)))?;
    let shape = npy::parse(&bytes).map(|npy| npy.shape);
    let size = shape.and_then(|shape| match shape[..] {
        [height, width, 3] => Ok((height, width)),
        _ => Err(format!("expected shape [height, width, 3], got {shape:?}")),
    });
    size.map_err(|message| Error::file(path, message))
}

/// An image from a `.npy` file of shape `[height, width, 3]`, uint8; else an error.
///
/// ```
/// use atrous::data::{Image, Mask, voc_npy};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("image.npy");
/// let image = Image::new(1, 2, vec![1, 2, 3, 4, 5, 6])?;
/// voc_npy::write_image(&path, &image)?;
/// assert_eq!(voc_npy::read_image(&path)?, image);
/// // A mask has two axes.
/// voc_npy::write_mask(&path, &Mask::new(1, 2, vec![0, 8])?)?;
/// assert!(voc_npy::read_image(&path).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_image(path: impl AsRef<Path>) -> Result<Image> {
    let path = path.as_ref();
    parse_image(&read_file(path)?).map_err(|message| Error::file(path, message))
}

/// [`read_image`] from memory; the error is without the path.
///
/// ```
/// use atrous::data::voc_npy::parse_image;
///
/// // What NumPy writes of `np.array([[[1, 2, 3]]], np.uint8)`
/// let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 3), }";
/// let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
/// bytes.extend(format!("{header:<117}\n").bytes());
/// bytes.extend([1, 2, 3]);
/// let image = parse_image(&bytes)?;
/// assert_eq!((image.height, image.width, &image.rgb[..]), (1, 1, &[1, 2, 3][..]));
/// # Ok::<(), String>(())
/// ```
pub fn parse_image(bytes: &[u8]) -> Result<Image, String> {
    let npy = npy::parse(bytes)?;
    let data = npy.bytes()?;
    match npy.shape[..] {
        [height, width, 3] if height > 0 && width > 0 => Ok(Image { height, width, rgb: data }),
        _ => Err(format!("expected shape [height, width, 3], none of them zero, got {:?}", npy.shape)),
    }
}

/// A mask from a `.npy` file of shape `[height, width]`, uint8; else an error.
///
/// ```
/// use atrous::data::{Mask, VOID, voc_npy};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("mask.npy");
/// let mask = Mask::new(1, 3, vec![0, 8, VOID])?;
/// voc_npy::write_mask(&path, &mask)?;
/// assert_eq!(voc_npy::read_mask(&path)?, mask);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_mask(path: impl AsRef<Path>) -> Result<Mask> {
    let path = path.as_ref();
    parse_mask(&read_file(path)?).map_err(|message| Error::file(path, message))
}

/// [`read_mask`] from memory; the error is without the path.
///
/// ```
/// use atrous::data::voc_npy::parse_mask;
///
/// // What NumPy writes of `np.array([[0, 8]], np.uint8)`
/// let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2), }";
/// let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
/// bytes.extend(format!("{header:<117}\n").bytes());
/// bytes.extend([0, 8]);
/// assert_eq!(parse_mask(&bytes)?.classes, [0, 8]);
/// # Ok::<(), String>(())
/// ```
pub fn parse_mask(bytes: &[u8]) -> Result<Mask, String> {
    let npy = npy::parse(bytes)?;
    let data = npy.bytes()?;
    match npy.shape[..] {
        [height, width] if height > 0 && width > 0 => Ok(Mask { height, width, classes: data }),
        _ => Err(format!("expected shape [height, width], neither of them zero, got {:?}", npy.shape)),
    }
}

/// A table of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What its columns are called; VOC's where they say nothing.
    pub classes: Classes,
    /// The rows that are right, in order.
    pub rows: Vec<Row>,
}

/// The table of labels, or the first thing that is wrong with it.
///
/// ```
/// use atrous::data::Classes;
/// use atrous::data::voc_npy::{read_csv, write_csv};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("train_set.csv");
/// let classes = Classes::new(["cat", "dog"])?;
/// let cat = vec![true, false];
/// write_csv(&path, &classes, [("7", Some(cat.clone())), ("8", None)])?;
/// let table = read_csv(&path)?;
/// assert_eq!((table.classes, table.rows[0].id.as_str()), (classes, "7"));
/// assert_eq!((&table.rows[0].labels, &table.rows[1].labels), (&Some(cat), &None));
/// assert_eq!(table.rows[1].line, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_csv(path: impl AsRef<Path>) -> Result<Table> {
    let path = path.as_ref();
    let (table, problems) = parse_csv(path, &read_file(path)?);
    problems.into_iter().next().map_or(Ok(table), Err)
}

/// Where a table's columns are.
struct Columns {
    id: usize,
    classes: Classes,
    /// One a class.
    labels: Vec<usize>,
}

/// The columns of a table by their names. VOC's have VOC's order,
/// and a table with one of them is one of all twenty: a column that is missing or mistyped is an error
/// there. What is wrong is pairs of a column's name and a message.
fn columns(names: &[&str]) -> Result<Columns, Vec<(String, String)>> {
    let others = || names.iter().copied().filter(|&name| name != "Id");
    let voc = others().any(|name| CLASSES.contains(&name)) && others().count() >= CLASSES.len() - 1;
    let classes: Vec<&str> = if voc { CLASSES.to_vec() } else { others().collect() };
    let mut problems = Vec::new();
    for name in std::iter::once("Id").chain(if voc { CLASSES.to_vec() } else { Vec::new() }) {
        match names.iter().filter(|&&other| other == name).count() {
            0 => problems.push((name.to_owned(), "expected this column, got none".to_owned())),
            1 => {}
            n => {
                problems.push((name.to_owned(), format!("expected this column once, got it {n} times")))
            }
        }
    }
    for name in others().filter(|name| !classes.contains(name)) {
        let close = did_you_mean(name, std::iter::once("Id").chain(classes.iter().copied()));
        let message = format!("expected `Id` and the 20 classes, got this column too{close}");
        problems.push((name.to_owned(), message));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let wrong = |error: Error| vec![(names.join(","), error.to_string())];
    let position = |name: &str| names.iter().position(|&other| other == name).unwrap_or_default();
    Ok(Columns {
        id: position("Id"),
        classes: Classes::new(classes.iter().copied()).map_err(wrong)?,
        labels: classes.into_iter().map(position).collect(),
    })
}

/// The rows that are right, and everything that is wrong; `path` is for the messages.
///
/// Columns are found by name, so their order does not matter.
///
/// ```
/// use atrous::data::voc_npy::parse_csv;
/// use std::path::Path;
///
/// let (table, problems) = parse_csv(Path::new("train_set.csv"), b"Id,cat,dog\n7,0,1\n8,2,0\n");
/// assert_eq!((table.rows.len(), table.rows[0].id.as_str()), (1, "7"));
/// let problem = "train_set.csv, line 3, column `cat`: expected 0, 1 or -1, got `2`";
/// assert_eq!(problems[0].to_string(), problem);
/// ```
pub fn parse_csv(path: &Path, bytes: &[u8]) -> (Table, Vec<Error>) {
    let wrong = |line: usize, column: Option<&str>, message: String| Error::Row {
        path: path.to_owned(),
        line,
        column: column.map(str::to_owned),
        message,
    };
    let nothing = || Table { classes: Classes::voc(), rows: Vec::new() };
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    let mut records = Records::new(bytes);
    let (top, header) = match records.next() {
        None => {
            return (nothing(), vec![wrong(1, None, "expected a header, got an empty file".to_owned())]);
        }
        Some((line, Err(message))) => return (nothing(), vec![wrong(line, None, message)]),
        Some((line, Ok(header))) => (line, header),
    };
    let names: Vec<&str> = header.iter().collect();
    let Columns { id: id_at, classes, labels: label_at } = match columns(&names) {
        Ok(found) => found,
        Err(found) => {
            let problem = |(name, message): (String, String)| wrong(top, Some(&name), message);
            return (nothing(), found.into_iter().map(problem).collect());
        }
    };

    let mut first_line = HashMap::new();
    for (line, record) in records {
        let record = match record {
            Ok(record) => record,
            Err(message) => {
                problems.push(wrong(line, None, message));
                continue;
            }
        };
        if record.len() != names.len() {
            let message = format!("expected {} fields, got {}", names.len(), record.len());
            problems.push(wrong(line, None, message));
            continue;
        }
        let before = problems.len();
        let id = &record[id_at];
        if let Err(message) = id::check(id) {
            problems.push(wrong(line, Some("Id"), message));
        } else if let Some(first) = first_line.insert(id.to_owned(), line) {
            let message = format!("Id `{}` was in line {first} before", printable(id));
            problems.push(wrong(line, Some("Id"), message));
            first_line.insert(id.to_owned(), first);
        }
        let mut values = vec![0i8; classes.len()];
        for ((value, &at), name) in values.iter_mut().zip(&label_at).zip(classes.iter()) {
            match &record[at] {
                "0" => *value = 0,
                "1" => *value = 1,
                "-1" => *value = -1,
                got => {
                    problems.push(wrong(line, Some(name), format!("expected 0, 1 or -1, got `{got}`")))
                }
            }
        }
        let unknown = values.iter().filter(|&&value| value == -1).count();
        if unknown != 0 && unknown != classes.len() {
            let all = classes.len();
            let message =
                format!("expected -1 (not known) in all {all} columns or in none, got {unknown}");
            problems.push(wrong(line, None, message));
        }
        if problems.len() == before {
            let labels = (unknown == 0).then(|| values.iter().map(|&value| value == 1).collect());
            rows.push(Row { id: id.to_owned(), labels, line });
        }
    }
    (Table { classes, rows }, problems)
}

/// Writes an image as `[height, width, 3]` uint8, whole or not at all.
///
/// ```
/// use atrous::data::{Image, voc_npy};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("image.npy");
/// voc_npy::write_image(&path, &Image::new(1, 1, vec![1, 2, 3])?)?;
/// let bytes = std::fs::read(&path)?;
/// assert!(bytes.starts_with(b"\x93NUMPY") && bytes.ends_with(&[1, 2, 3]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_image(path: impl AsRef<Path>, image: &Image) -> Result<()> {
    let shape = [image.height, image.width, 3];
    write_atomically(path, |file| npy::write(file, &shape, &image.rgb))
}

/// Writes a mask as `[height, width]` uint8, whole or not at all.
///
/// ```
/// use atrous::data::{Mask, voc_npy};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("mask.npy");
/// voc_npy::write_mask(&path, &Mask::new(1, 2, vec![0, 8])?)?;
/// let bytes = std::fs::read(&path)?;
/// assert!(bytes.starts_with(b"\x93NUMPY") && bytes.ends_with(&[0, 8]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_mask(path: impl AsRef<Path>, mask: &Mask) -> Result<()> {
    write_atomically(path, |file| npy::write(file, &[mask.height, mask.width], &mask.classes))
}

/// Writes a table of labels; those not known as −1.
///
/// ```
/// use atrous::data::{Classes, voc_npy::write_csv};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("train_set.csv");
/// write_csv(&path, &Classes::new(["cat", "dog"])?, [("7", Some(vec![false, true])), ("8", None)])?;
/// assert_eq!(std::fs::read_to_string(&path)?, "Id,cat,dog\n7,0,1\n8,-1,-1\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_csv<'a>(
    path: impl AsRef<Path>,
    classes: &Classes,
    rows: impl IntoIterator<Item = (&'a str, Option<Labels>)>,
) -> Result<()> {
    let path = path.as_ref();
    let rows: Vec<(&str, Option<Labels>)> = rows.into_iter().collect();
    for (id, _) in &rows {
        id::check(id).map_err(|message| Error::file(path, message))?;
    }
    write_atomically(path, |file| {
        let mut writer =
            csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(file);
        writer.write_record(std::iter::once("Id").chain(classes.iter()))?;
        for (id, labels) in rows {
            let values = (0..classes.len()).map(|class| match &labels {
                None => "-1",
                Some(labels) if labels[class] => "1",
                Some(_) => "0",
            });
            writer.write_record(std::iter::once(id).chain(values))?;
        }
        writer.flush()
    })
}

#[cfg(test)]
mod tests;
