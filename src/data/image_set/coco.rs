//! COCO's layout: `annotations/instances_train2017.json` and the images it names in `train2017/` (or
//! `train/`, `images/`); `val` likewise. An image's labels are the categories of its objects, its mask
//! their outlines, those that come later in the file on top; a crowd's region is void.
//!
//! Outlines are filled as COCO's own tools fill them, so that masks agree pixel by pixel: a polygon's
//! corners go to a grid five times as fine, its edges are walked there, and where an edge passes the middle
//! of a pixel's column inside and outside change ([Lin et al., "Microsoft
//! COCO"](https://arxiv.org/abs/1405.0312), mask API).

use super::{ByName, Entry, ImageSet, MaskSource, Part, classes_txt, entries_of, flags, images_of};
use crate::data::{BACKGROUND, Classes, Mask, VOID, read_file};
use crate::error::{Error, Result, printable};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The objects of one image, from back to front.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlines {
    /// Rows of the image.
    pub height: usize,
    /// Columns of the image.
    pub width: usize,
    /// A mask's value, and where it is.
    pub objects: Vec<(u8, Region)>,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Region {
    /// Corners x, y, x, y, … of each part.
    Polygons(Vec<Vec<f64>>),
    /// Runs of outside and inside in turn, column by column.
    Runs {
        /// As they are, or packed into a text.
        counts: Counts,
        /// Height and width.
        size: [usize; 2],
    },
}

/// Lengths of runs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Counts {
    /// As numbers.
    Plain(Vec<u32>),
    /// Six bits a character from `0` on: five of a number, the sixth says whether it goes on; from the third
    /// number on differences to the one two before.
    Packed(String),
}

#[derive(Deserialize)]
struct Instances {
    images: Vec<ImageRecord>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct ImageRecord {
    id: u64,
    file_name: String,
    height: usize,
    width: usize,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
    #[serde(default)]
    segmentation: Option<Region>,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
}

/// The file of a part; None where the folder has none.
pub(super) fn file(root: &Path, part: Part) -> Option<PathBuf> {
    let folders = [root.join("annotations"), root.to_owned()];
    let names = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let stem =
            name.strip_suffix(".json")?.strip_prefix("instances").unwrap_or(&name[..name.len() - 5]);
        let stem = stem.trim_start_matches(['_', '-']).to_owned();
        Some(stem)
    };
    let is_part = |path: &PathBuf| {
        names(path).is_some_and(|stem| {
            let digits = stem.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
            part.names().contains(&digits)
                || (part == Part::Train && ["", "annotations", "coco"].contains(&digits))
        })
    };
    folders
        .iter()
        .filter_map(|folder| entries_of(folder).ok())
        .flatten()
        .find(|path| path.is_file() && is_part(path))
}

fn read(path: &Path) -> Result<Instances> {
    serde_json::from_slice(&read_file(path)?)
        .map_err(|error| Error::file(path, format!("expected COCO's instances: {error}")))
}

/// Where the images of a part may be.
fn images(root: &Path, part: Part) -> Result<Vec<PathBuf>> {
    let begins = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        part.names().iter().any(|part| name.trim_end_matches(|c: char| c.is_ascii_digit()) == *part)
    };
    let shared = ["images", "img", "JPEGImages"].map(|name| root.join(name));
    let mut found = Vec::new();
    for folder in
        super::folders_of(root)?.into_iter().filter(begins).chain(shared).filter(|f| f.is_dir())
    {
        found.extend(images_of(&folder, true)?);
    }
    found.extend(images_of(root, false)?);
    Ok(found)
}

/// The images of a part; None where the folder has no such part. Classes are the categories in the order of
/// their numbers, or those of `classes.txt`: then other categories are passed over. An error that names
/// what is wrong, for an image that is not there, an annotation of no image or category, and outlines that
/// are none.
pub fn open(root: &Path, part: Part) -> Result<Option<ImageSet>> {
    let Some(path) = file(root, part) else { return Ok(None) };
    let refuse = |message: String| Err(Error::file(&path, message));
    let mut instances = read(&path)?;
    instances.categories.sort_by_key(|category| category.id);
    let classes = match classes_txt(root)? {
        Some(classes) => classes,
        None => Classes::new(instances.categories.iter().map(|category| category.name.clone()))
            .map_err(|error| Error::file(&path, error))?,
    };
    if classes.len() >= VOID.into() {
        return refuse(format!(
            "expected at most 254 categories, got {}: name some in classes.txt",
            classes.len()
        ));
    }
    let class: HashMap<u64, Option<usize>> = instances
        .categories
        .iter()
        .map(|category| (category.id, classes.iter().position(|name| name == category.name)))
        .collect();
    let mut objects: HashMap<u64, Vec<(usize, Annotation)>> = HashMap::new();
    for annotation in instances.annotations {
        match class.get(&annotation.category_id) {
            None => {
                return refuse(format!(
                    "an annotation is of category {}, which is none",
                    annotation.category_id
                ));
            }
            Some(None) => {}
            Some(Some(class)) => {
                objects.entry(annotation.image_id).or_default().push((*class, annotation))
            }
        }
    }
    let files = ByName::new(&images(root, part)?);
    let mut entries = Vec::new();
    for record in instances.images {
        let own = root.join(&record.file_name);
        let Some(image) = (if own.is_file() { Some(&own) } else { files.get(&record.file_name) }) else {
            return refuse(format!(
                "expected the picture `{}`, got no such file",
                printable(&record.file_name)
            ));
        };
        let found = objects.remove(&record.id).unwrap_or_default();
        let labels =
            flags(&classes, found.iter().filter(|(_, a)| a.iscrowd == 0).map(|(class, _)| *class));
        let ImageRecord { height, width, .. } = record;
        let outlines = Outlines {
            height,
            width,
            objects: found
                .into_iter()
                .filter_map(|(class, a)| {
                    let value = if a.iscrowd == 0 { class as u8 + 1 } else { VOID };
                    a.segmentation.map(|region| (value, region))
                })
                .collect(),
        };
        outlines.check().map_err(|message| {
            Error::file(&path, format!("the picture `{}`: {message}", printable(&record.file_name)))
        })?;
        entries.push(Entry {
            id: Path::new(&record.file_name)
                .with_extension("")
                .to_string_lossy()
                .replace(['/', '\\'], "_"),
            path: image.clone(),
            labels: Some(labels),
            mask: Some(MaskSource::Outlines(Arc::new(outlines))),
        });
    }
    if let Some(stray) = objects.keys().min() {
        return refuse(format!("an annotation is of picture {stray}, which is not among the images"));
    }
    ImageSet::new(&path, entries, classes, false).map(Some)
}

impl Outlines {
    fn check(&self) -> Result<(), String> {
        if self.height == 0
            || self.width == 0
            || self.height.saturating_mul(self.width) > crate::data::image_files::MOST_PIXELS
        {
            return Err(format!(
                "expected a height and width of a picture, got {}×{}",
                self.height, self.width
            ));
        }
        for (_, region) in &self.objects {
            match region {
                Region::Polygons(parts) => {
                    let fine = |part: &Vec<f64>| {
                        part.len() >= 6
                            && part.len().is_multiple_of(2)
                            && part.iter().all(|v| v.abs() < 1e6)
                    };
                    if let Some(part) = parts.iter().find(|part| !fine(part)) {
                        return Err(format!(
                            "expected x, y of three corners or more, got {} numbers",
                            part.len()
                        ));
                    }
                }
                Region::Runs { counts, size } => {
                    if *size != [self.height, self.width] {
                        let [height, width] = size;
                        let expected = format!("expected runs of {}×{}", self.height, self.width);
                        return Err(format!("{expected}, got those of {height}×{width}"));
                    }
                    let total: u64 = counts.lengths()?.iter().map(|&n| u64::from(n)).sum();
                    let pixels = (self.height * self.width) as u64;
                    if total > pixels {
                        return Err(format!("expected runs of {pixels} pixels, got {total}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Every pixel's class; of objects one on the other the later one's.
    pub fn mask(&self) -> Result<Mask> {
        let wrong = |message| Error::argument("outlines", message);
        self.check().map_err(wrong)?;
        let mut classes = vec![BACKGROUND; self.height * self.width];
        for (value, region) in &self.objects {
            for inside in region.inside(self.height, self.width).map_err(wrong)? {
                classes[inside] = *value;
            }
        }
        Mask::new(self.height, self.width, classes)
    }
}

impl Region {
    /// The pixels that are inside, by their places row by row.
    fn inside(&self, height: usize, width: usize) -> Result<Vec<usize>, String> {
        let mut inside = vec![false; height * width];
        match self {
            Region::Polygons(parts) => {
                parts.iter().for_each(|part| fill(part, height, width, &mut inside))
            }
            Region::Runs { counts, .. } => {
                let mut at = 0;
                for (i, length) in counts.lengths()?.into_iter().enumerate() {
                    let end = (at + length as usize).min(inside.len());
                    inside[at..end].fill(i % 2 == 1);
                    at = end;
                }
            }
        }
        // From columns to rows.
        let place = |(i, &set): (usize, &bool)| set.then_some(i % height * width + i / height);
        Ok(inside.iter().enumerate().filter_map(place).collect())
    }
}

/// How much finer the grid is on which edges are walked.
const FINER: f64 = 5.0;

/// Marks what is inside a polygon, column by column.
fn fill(corners: &[f64], height: usize, width: usize, inside: &mut [bool]) {
    let corner = |i: usize| {
        let i = i % (corners.len() / 2);
        let [x, y] = [corners[2 * i], corners[2 * i + 1]];
        ((FINER * x + 0.5) as i64, (FINER * y + 0.5) as i64)
    };
    let edges = (0..corners.len() / 2).flat_map(|i| walk(corner(i), corner(i + 1)));
    let points: Vec<(i64, i64)> = edges.collect();
    // Where the boundary goes from one fine column to the next, inside and outside change below it.
    let mut changes = vec![false; height * width + 1];
    for pair in points.windows(2) {
        let ((before, above), (x, y)) = (pair[0], pair[1]);
        if x == before {
            continue;
        }
        let left = if x < before { x } else { x - 1 };
        let column = (left as f64 + 0.5) / FINER - 0.5;
        if column.floor() != column || column < 0.0 || column > width as f64 - 1.0 {
            continue;
        }
        let row = ((above.min(y) as f64 + 0.5) / FINER - 0.5).clamp(0.0, height as f64).ceil();
        let place = column as usize * height + row as usize;
        changes[place] = !changes[place];
    }
    let mut now = false;
    for (pixel, change) in inside.iter_mut().zip(changes) {
        now ^= change;
        *pixel |= now;
    }
}

/// The points of an edge, a step of the longer side each, from its first corner to its second.
fn walk((x0, y0): (i64, i64), (x1, y1): (i64, i64)) -> Vec<(i64, i64)> {
    let (dx, dy) = ((x1 - x0).abs(), (y1 - y0).abs());
    let wide = dx >= dy;
    // Rounding goes by the direction: edges are walked to the right, or downwards, whichever way they are
    // given.
    let turned = if wide { x0 > x1 } else { y0 > y1 };
    let ((xs, ys), (xe, ye)) = if turned { ((x1, y1), (x0, y0)) } else { ((x0, y0), (x1, y1)) };
    let longest = dx.max(dy);
    let slope = match longest {
        0 => 0.0,
        _ if wide => (ye - ys) as f64 / dx as f64,
        _ => (xe - xs) as f64 / dy as f64,
    };
    let point = |step: i64| match wide {
        true => (xs + step, (ys as f64 + slope * step as f64 + 0.5) as i64),
        false => ((xs as f64 + slope * step as f64 + 0.5) as i64, ys + step),
    };
    (0..=longest).map(|i| point(if turned { longest - i } else { i })).collect()
}

impl Counts {
    /// The runs' lengths; says what is wrong with a text that packs none.
    pub fn lengths(&self) -> Result<Vec<u32>, String> {
        let text = match self {
            Counts::Plain(lengths) => return Ok(lengths.clone()),
            Counts::Packed(text) => text.as_bytes(),
        };
        let mut lengths: Vec<u32> = Vec::new();
        let mut characters = text.iter();
        while characters.len() > 0 {
            let (mut number, mut shift) = (0i64, 0);
            loop {
                let &character =
                    characters.next().ok_or("expected packed runs, got a text that is cut off")?;
                if !(48..48 + 64).contains(&character) || shift > 30 {
                    return Err(
                        "expected packed runs, got a character that is none of theirs".to_owned()
                    );
                }
                let bits = i64::from(character) - 48;
                number |= (bits & 31) << shift;
                shift += 5;
                if bits & 32 == 0 {
                    if bits & 16 != 0 {
                        number |= -1 << shift;
                    }
                    break;
                }
            }
            if lengths.len() > 2 {
                number += i64::from(lengths[lengths.len() - 2]);
            }
            let length =
                u32::try_from(number).map_err(|_| format!("expected a run's length, got {number}"))?;
            lengths.push(length);
        }
        Ok(lengths)
    }
}
