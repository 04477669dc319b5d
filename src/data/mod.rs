//! Images, masks and labels: where they come from and how they become batches.
//!
//! A [`Dataset`] hands out images as they are on disk ([`voc_npy`]) or as they are made up
//! ([`synthetic`]). A [`transforms::Transforms`] turns one into the numbers a network takes ([`image`],
//! [`augment`]), and a [`loader::Loader`] does so for whole batches, ahead of time.

use crate::error::{Error, Result, printable};
use crate::files::explain;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub mod augment;
pub mod check;
pub mod class_weights;
pub mod classes;
#[cfg(feature = "pictures")]
pub mod convert;
pub mod id;
pub mod image;
#[cfg(feature = "pictures")]
pub mod image_files;
#[cfg(feature = "pictures")]
pub mod image_set;
pub mod in_memory;
pub mod loader;
#[cfg(feature = "checkpoint")]
pub mod manifest;
pub(crate) mod npy;
pub(crate) mod partial;
#[cfg(feature = "pictures")]
pub mod source;
pub mod synthetic;
pub(crate) mod table;
pub mod transforms;
pub mod usable;
#[cfg(feature = "pictures")]
pub mod voc_devkit;
pub mod voc_npy;

pub use classes::{CLASSES, Classes};

/// In a mask: no object.
pub const BACKGROUND: u8 = 0;
/// In a mask: not to be judged (the borders of objects).
pub const VOID: u8 = 255;

/// Which classes are in an image, one flag a class of the data set.
pub type Labels = Vec<bool>;

/// An image as it is stored: RGB, a byte a channel, row by row.
///
/// ```
/// use atrous::data::Image;
///
/// let image = Image::new(1, 2, vec![255, 0, 0, 0, 0, 255])?; // red, blue
/// assert_eq!(image.mirrored().rgb, [0, 0, 255, 255, 0, 0]);
/// assert!(Image::new(1, 2, vec![255, 0, 0]).is_err()); // one pixel of two
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Rows, at least one.
    pub height: usize,
    /// Columns, at least one.
    pub width: usize,
    /// `[height, width, 3]`, 0 to 255, sRGB as files have it.
    pub rgb: Vec<u8>,
}

/// The class of each pixel, row by row: 0 is background, from 1 on classes, 255 void.
///
/// ```
/// use atrous::data::{BACKGROUND, Classes, Mask, VOID};
///
/// let mask = Mask::new(2, 2, vec![BACKGROUND, 8, 8, VOID])?;
/// let classes = Classes::voc();
/// let labels = mask.labels(classes.len());
/// assert_eq!(classes.named(&labels).collect::<Vec<_>>(), ["cat"]); // class 7, which is 8 in a mask
/// assert_eq!(mask.fits(2, 3).unwrap_err(), "expected the picture's size, 2×3, got 2×2");
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    /// Rows, at least one.
    pub height: usize,
    /// Columns, at least one.
    pub width: usize,
    /// `[height, width]`: class i of [`Classes`] is i + 1.
    pub classes: Vec<u8>,
}

impl Image {
    /// An error where a side is zero or `rgb` has not height · width · 3 bytes.
    pub fn new(height: usize, width: usize, rgb: Vec<u8>) -> Result<Self> {
        sized("Picture", height, width, 3, rgb.len())?;
        Ok(Image { height, width, rgb })
    }

    /// The image flipped left to right.
    pub fn mirrored(&self) -> Self {
        let rows = self.rgb.chunks_exact(self.width * 3);
        let rgb = rows.flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
        Image { rgb, ..*self }
    }
}

impl Mask {
    /// An error where a side is zero or `classes` has not height · width bytes. Whether each is a
    /// class is not looked at.
    pub fn new(height: usize, width: usize, classes: Vec<u8>) -> Result<Self> {
        sized("Mask", height, width, 1, classes.len())?;
        Ok(Mask { height, width, classes })
    }

    /// Which of so many classes have at least one pixel.
    pub fn labels(&self, classes: usize) -> Labels {
        let mut seen = [false; 256];
        self.classes.iter().for_each(|&class| seen[class as usize] = true);
        (1..=classes).map(|class| class < VOID.into() && seen[class]).collect()
    }

    /// Is every pixel void? Then it says nothing, not even that there is no object.
    pub(crate) fn is_void(&self) -> bool {
        self.classes.iter().all(|&class| class == VOID)
    }

    /// The first value that is none of so many classes, background or void: (row, column, value).
    pub(crate) fn first_unknown(&self, classes: usize) -> Option<(usize, usize, u8)> {
        let unknown = |&class: &u8| class as usize > classes && class != VOID;
        let at = self.classes.iter().position(unknown)?;
        Some((at / self.width, at % self.width, self.classes[at]))
    }

    /// What is wrong with the first value that is none of so many classes, if there is one.
    pub(crate) fn check(&self, classes: usize) -> Result<(), String> {
        match self.first_unknown(classes) {
            None => Ok(()),
            Some((y, x, value)) => {
                Err(format!("expected 0 to {classes} or 255, got {value} at row {y}, column {x}"))
            }
        }
    }

    /// An error where it is of another size than its image, height × width.
    pub fn fits(&self, height: usize, width: usize) -> Result<(), String> {
        if (self.height, self.width) == (height, width) {
            return Ok(());
        }
        let expected = format!("expected the picture's size, {height}×{width}");
        Err(format!("{expected}, got {}×{}", self.height, self.width))
    }
}

fn sized(what: &'static str, height: usize, width: usize, channels: usize, got: usize) -> Result<()> {
    let values = height.checked_mul(width).and_then(|n| n.checked_mul(channels));
    if height == 0 || width == 0 {
        return Err(Error::shape(what, "a height and width above zero", format!("{height}×{width}")));
    }
    match values {
        Some(n) if n == got => Ok(()),
        _ => Err(Error::shape(what, format!("{height}×{width}×{channels} values"), got)),
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture {}×{}", self.height, self.width)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask {}×{}", self.height, self.width)
    }
}

/// Samples by number, each read (or made) when it is asked for, from any thread.
///
/// A data set of one's own:
///
/// ```
/// use atrous::data::{Classes, Dataset, Image, Labels, Mask};
/// use atrous::error::Result;
///
/// /// Images of one colour.
/// struct Colours(Vec<[u8; 3]>);
///
/// impl Dataset for Colours {
///     fn len(&self) -> usize {
///         self.0.len()
///     }
///
///     fn classes(&self) -> Classes {
///         Classes::new(["red", "blue"]).unwrap()
///     }
///
///     fn id(&self, index: usize) -> String {
///         format!("colour {index}")
///     }
///
///     fn labels(&self, index: usize) -> Option<Labels> {
///         let [red, _, blue] = self.0[index];
///         Some(vec![red > 0, blue > 0])
///     }
///
///     fn image(&self, index: usize) -> Result<Image> {
///         Image::new(4, 6, self.0[index].repeat(24))
///     }
///
///     fn mask(&self, _index: usize) -> Result<Option<Mask>> {
///         Ok(None)
///     }
/// }
///
/// let colours = Colours(vec![[255, 0, 0], [0, 0, 255]]);
/// assert!(!colours.is_empty() && !colours.has_mask(0));
/// assert_eq!((colours.id(1).as_str(), colours.size(1)?), ("colour 1", (4, 6)));
/// # Ok::<(), atrous::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// How many samples there are; their numbers are 0 to len − 1.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What labels and masks tell apart.
    fn classes(&self) -> Classes;

    /// Whether every image is of exactly one class: then a network's outputs are a softmax, and accuracy
    /// tells how good it is. Else an image may be of several classes, or of none.
    fn exclusive(&self) -> bool {
        false
    }

    /// What the sample is called in tables and submissions.
    fn id(&self, index: usize) -> String;

    /// The classes in the image, one flag for each of [`Dataset::classes`]; None where they are not known
    /// (a competition's test images).
    fn labels(&self, index: usize) -> Option<Labels>;

    /// The image at its own size; an error where its file cannot be read or decoded.
    fn image(&self, index: usize) -> Result<Image>;

    /// The image's height and width, for which a file need not be read whole.
    fn size(&self, index: usize) -> Result<(usize, usize)> {
        self.image(index).map(|image| (image.height, image.width))
    }

    /// The mask, of the image's size; None where there is none, an error where it cannot be read.
    fn mask(&self, index: usize) -> Result<Option<Mask>>;

    /// The file a mask is read from, for messages; None where masks are not in files.
    fn mask_file(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Is there a mask? Where masks are files, none is read; one that cannot be read is there too.
    fn has_mask(&self, index: usize) -> bool {
        match self.mask_file(index) {
            Some(path) => is_there(&path),
            None => !matches!(self.mask(index), Ok(None)),
        }
    }
}

/// The labels of some samples; an error that names the first whose labels are not known.
///
/// ```
/// use atrous::data::synthetic::Synthetic;
/// use atrous::data::{Dataset, known_labels};
///
/// let dataset = Synthetic::train(1, 3);
/// let labels = known_labels(&dataset, &[2, 0])?;
/// assert_eq!(labels[0], dataset.labels(2).unwrap());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn known_labels(dataset: &dyn Dataset, indices: &[usize]) -> Result<Vec<Labels>> {
    let labels = |&index: &usize| {
        dataset.labels(index).ok_or_else(|| {
            let id = dataset.id(index);
            Error::argument("labels", format!("those of sample `{id}` are not known"))
        })
    };
    indices.iter().map(labels).collect()
}

/// An error, with the mask's file, where it is of another size than its image.
pub(crate) fn mask_fits(dataset: &dyn Dataset, index: usize, mask: &Mask, image: &Image) -> Result<()> {
    mask.fits(image.height, image.width).map_err(|message| match dataset.mask_file(index) {
        Some(path) => Error::file(path, message),
        None => {
            let id = dataset.id(index);
            Error::argument("mask", format!("of sample `{}`: {message}", printable(&id)))
        }
    })
}

/// Is there anything of this name? A link to nowhere, a folder and what may not be looked at are
/// there: reading them says what is wrong, where "not there" would leave them out without a word.
fn is_there(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

/// What a file holds. A folder, a pipe or a device in an image's or a table's place is refused: the
/// last two may never end.
fn read_file(path: &Path) -> Result<Vec<u8>> {
    let unread = |error: std::io::Error| Error::file(path, explain(&error));
    match fs::metadata(path).map_err(unread)?.is_file() {
        true => fs::read(path).map_err(unread),
        false => Err(Error::file(path, "expected a file, got a folder or a device")),
    }
}

/// The mask in a file, if there is one; an error where a label of it is no class.
fn mask_if_there(
    path: &Path,
    classes: usize,
    read: impl FnOnce(&Path) -> Result<Mask>,
) -> Result<Option<Mask>> {
    if !is_there(path) {
        return Ok(None);
    }
    let mask = read(path)?;
    mask.check(classes).map_err(|message| Error::file(path, message))?;
    Ok(Some(mask))
}

/// The position of the first label that is set: the class that an image counts as where only one
/// can be (class weights, categorical accuracy).
pub(crate) fn first_label(labels: &[bool]) -> Option<usize> {
    labels.iter().position(|&set| set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_image_has_as_many_values_as_its_size_says() {
        assert!(Image::new(2, 3, vec![0; 18]).is_ok());
        let error = Image::new(2, 3, vec![0; 17]).unwrap_err().to_string();
        assert!(error.contains("2×3×3 values") && error.ends_with("got 17"), "{error}");
        assert!(Mask::new(0, 3, Vec::new()).is_err());
        assert!(Mask::new(usize::MAX, 2, vec![0; 2]).is_err());
    }

    #[test]
    fn void_and_background_are_no_labels() {
        assert!(Mask::new(1, 2, vec![255, 255]).unwrap().is_void());
        assert!(!Mask::new(1, 2, vec![255, 0]).unwrap().is_void());
        let mask = Mask::new(1, 4, vec![0, 255, 20, 1]).unwrap();
        let classes: Vec<_> = (0..20).filter(|&class| mask.labels(20)[class]).collect();
        assert_eq!((classes, mask.first_unknown(20)), (vec![0, 19], None));
        assert_eq!(Mask::new(2, 2, vec![0, 1, 2, 21]).unwrap().first_unknown(20), Some((1, 1, 21)));
    }
}
