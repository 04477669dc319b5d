//! A data set that is made up: VOC-like images with exact masks, as many as one wants, the same
//! from the same seed. Everything in this crate can be tried with it where there is no data.
//!
//! Each of VOC's twenty classes has a silhouette (`classes.rs`) and a texture (`texture.rs`) of its
//! own; colours are drawn alike for all, so that a histogram of colours says little. An image holds
//! one to three objects (`scene.rs`), turned, partly hidden or cut off, before clutter (`draw.rs`).

use crate::backend::cpu::threads;
use crate::data::partial::Partial;
use crate::data::voc_npy::{self, Split};
use crate::data::{CLASSES, Classes, Dataset, Image, Labels, Mask};
use crate::error::{Error, Result};
use crate::files::explain;
use scene::Scene;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

mod classes;
mod draw;
mod outline;
mod scene;
mod texture;

/// Test images are numbered from here, so that they are never among the training images.
pub const FIRST_TEST: usize = 1_000_000_000;

/// A scene that was drawn, and what is true of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// RGB, 200 to 500 pixels a side, as VOC's images have.
    pub image: Image,
    /// The exact class of each pixel; void (255) along the outlines, as in VOC.
    pub mask: Mask,
    /// The classes of the objects in it.
    pub labels: Labels,
}

/// What the images of a made-up data set show.
///
/// ```
/// use atrous::data::Dataset;
/// use atrous::data::synthetic::{Contents, Synthetic};
///
/// let set = Synthetic::train(1, 100).with(Contents { classes: 7, single: true })?;
/// assert!(set.exclusive() && set.classes().len() == 7);
/// let labels = |i| set.labels(i).unwrap().iter().filter(|&&set| set).count();
/// assert!((0..100).all(|i| labels(i) == 1));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// How many of the classes there are, from the first on: 2 to 20.
    pub classes: usize,
    /// One object an image, so that an image is of one class; else one to three.
    pub single: bool,
}

impl Default for Contents {
    /// All twenty classes, one to three objects an image.
    fn default() -> Self {
        Contents { classes: CLASSES.len(), single: false }
    }
}

impl Contents {
    /// The classes' names.
    fn names(self) -> Result<Classes> {
        match self.classes {
            2..=20 => Classes::new(CLASSES[..self.classes].iter().copied()),
            got => Err(Error::argument("classes", format!("expected 2 to 20 (`--classes`), got {got}"))),
        }
    }
}

/// Image number `index` of the endless set called `seed`, with all twenty classes.
///
/// ```
/// use atrous::data::synthetic::generate;
///
/// let sample = generate(1, 0);
/// assert_eq!(sample.mask.labels(20), sample.labels);
/// sample.mask.fits(sample.image.height, sample.image.width)?;
/// assert_eq!(generate(1, 0).image, sample.image); // the same ever after
/// assert_ne!(generate(2, 0).image, sample.image);
/// # Ok::<(), String>(())
/// ```
pub fn generate(seed: u64, index: usize) -> Sample {
    generate_with(seed, index, Contents::default())
}

fn generate_with(seed: u64, index: usize, contents: Contents) -> Sample {
    let scene = Scene::plan(seed, index, contents);
    let (image, mask) = draw::draw(seed, index, &scene);
    Sample { image, mask, labels: scene.labels(contents.classes) }
}

/// A stretch of the endless set, made when it is asked for.
///
/// ```
/// use atrous::data::synthetic::{FIRST_TEST, Synthetic, generate};
/// use atrous::data::{Dataset, Image};
///
/// let (train, test) = (Synthetic::train(1, 1000), Synthetic::test(1, 1000));
/// assert_eq!(train.len(), 1000); // none of them made yet
/// assert_eq!(train.labels(999), Some(generate(1, 999).labels));
/// assert_eq!(test.labels(0), Some(generate(1, FIRST_TEST).labels));
/// assert!(train.has_mask(5));
/// ```
#[derive(Clone, Debug)]
pub struct Synthetic {
    seed: u64,
    first: usize,
    len: usize,
    contents: Contents,
    classes: Classes,
}

impl Synthetic {
    /// The first `len` images of the endless set.
    pub fn train(seed: u64, len: usize) -> Self {
        Synthetic { seed, first: 0, len, contents: Contents::default(), classes: Classes::voc() }
    }

    /// `len` images from number [`FIRST_TEST`] on.
    pub fn test(seed: u64, len: usize) -> Self {
        Synthetic { first: FIRST_TEST, ..Synthetic::train(seed, len) }
    }

    /// The same stretch with other contents; an error for other than 2 to 20 classes.
    pub fn with(self, contents: Contents) -> Result<Self> {
        Ok(Synthetic { classes: contents.names()?, contents, ..self })
    }

    fn sample(&self, index: usize) -> Sample {
        generate_with(self.seed, self.first + index, self.contents)
    }
}

impl Dataset for Synthetic {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    fn exclusive(&self) -> bool {
        self.contents.single
    }

    fn id(&self, index: usize) -> String {
        index.to_string()
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        let scene = Scene::plan(self.seed, self.first + index, self.contents);
        Some(scene.labels(self.contents.classes))
    }

    fn image(&self, index: usize) -> Result<Image> {
        Ok(self.sample(index).image)
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        Ok(Some(self.sample(index).mask))
    }

    fn has_mask(&self, _index: usize) -> bool {
        true
    }
}

/// Where [`make`] puts the labels of the test images; their masks are in `test/seg`.
///
/// ```
/// use atrous::data::synthetic::truth_csv;
/// use std::path::Path;
///
/// assert_eq!(truth_csv(Path::new("made-up")), Path::new("made-up/test/truth.csv"));
/// ```
pub fn truth_csv(root: &Path) -> PathBuf {
    root.join("test").join("truth.csv")
}

/// Makes a folder, new or empty, with a data set in the competition's layout ([`voc_npy`]), whole or
/// not at all; `progress(done, of)` is called now and then, and may ask to stop. Test labels are not
/// in `test_set.csv` (−1), but in `test/truth.csv`. No test images, no `test`.
///
/// ```
/// use atrous::data::synthetic::{self, Contents, Synthetic};
/// use atrous::data::voc_npy::{self, Split, VocNpy};
/// use atrous::data::Dataset;
/// use std::ops::ControlFlow;
///
/// let folder = tempfile::tempdir()?;
/// let root = folder.path().join("made-up");
/// synthetic::make(&root, 1, 1, 3, Contents::default(), &|_done, _of| ControlFlow::Continue(()))?;
/// let train = VocNpy::open(&root, Split::Train)?;
/// assert_eq!(train.image(0)?, synthetic::generate(3, 0).image);
/// // What the test images show is told apart from them.
/// assert_eq!(VocNpy::open(&root, Split::Test)?.labels(0), None);
/// let truth = voc_npy::read_csv(synthetic::truth_csv(&root))?;
/// assert_eq!(truth.rows[0].labels, Synthetic::test(3, 1).labels(0));
/// // Nobody's files are overwritten.
/// assert!(synthetic::make(&root, 1, 1, 3, Contents::default(), &|_, _| ControlFlow::Continue(())).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn make(
    root: &Path,
    train: usize,
    test: usize,
    seed: u64,
    contents: Contents,
    progress: &dyn Fn(usize, usize) -> ControlFlow<()>,
) -> Result<()> {
    if !(1..=FIRST_TEST).contains(&train) || test > FIRST_TEST {
        let message = format!(
            "expected 1 to {FIRST_TEST} training pictures and at most as many test pictures, got {train} \
             and {test}"
        );
        return Err(Error::argument("synthetic", message));
    }
    let classes = contents.names()?;
    let partial = Partial::of(root)?;
    let count = |done: usize| match progress(done, train + test) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted("nothing was made".into())),
    };
    let labels =
        write(&partial.path, Split::Train, &Synthetic::train(seed, train).with(contents)?, &count)?;
    voc_npy::write_csv(Split::Train.csv(&partial.path), &classes, table(&labels, true))?;
    if test > 0 {
        let count = |done: usize| count(train + done);
        let labels =
            write(&partial.path, Split::Test, &Synthetic::test(seed, test).with(contents)?, &count)?;
        voc_npy::write_csv(Split::Test.csv(&partial.path), &classes, table(&labels, false))?;
        voc_npy::write_csv(truth_csv(&partial.path), &classes, table(&labels, true))?;
    }
    partial.become_whole()
}

/// The images and masks of a split; their Ids and labels.
fn write(
    root: &Path,
    split: Split,
    set: &Synthetic,
    count: &dyn Fn(usize) -> Result<()>,
) -> Result<Vec<(String, Labels)>> {
    for path in [split.image(root, ""), split.mask(root, "")] {
        let folder = path.parent().unwrap_or(root);
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
    }
    let mut labels = Vec::new();
    for start in (0..set.len).step_by(16) {
        let results = threads::map(16.min(set.len - start), |i| -> Result<(String, Labels)> {
            let sample = set.sample(start + i);
            let id = set.id(start + i);
            voc_npy::write_image(split.image(root, &id), &sample.image)?;
            voc_npy::write_mask(split.mask(root, &id), &sample.mask)?;
            Ok((id, sample.labels))
        });
        for result in results {
            labels.push(result?);
        }
        count(labels.len())?;
    }
    Ok(labels)
}

/// The rows of a table with the labels, or with none known.
fn table(labels: &[(String, Labels)], known: bool) -> impl Iterator<Item = (&str, Option<Labels>)> {
    labels.iter().map(move |(id, labels)| (id.as_str(), known.then(|| labels.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BACKGROUND, VOID};

    #[test]
    fn labels_are_what_the_mask_shows() {
        for index in (0..60).chain(FIRST_TEST..FIRST_TEST + 20) {
            let sample = generate(3, index);
            assert_eq!(sample.mask.labels(20), sample.labels, "picture {index}");
            assert_eq!(
                (sample.mask.height, sample.mask.width),
                (sample.image.height, sample.image.width)
            );
            assert_eq!(sample.mask.first_unknown(20), None);
        }
    }

    #[test]
    fn objects_can_be_seen_and_are_bordered_by_void() {
        for index in 0..60 {
            let mask = generate(8, index).mask;
            let n = mask.classes.len() as f32;
            let share = |value| mask.classes.iter().filter(|&&c| c == value).count() as f32 / n;
            assert!(share(BACKGROUND) > 0.4, "picture {index}");
            assert!((0.002..0.12).contains(&share(VOID)), "picture {index}: {} void", share(VOID));
            for class in (1..=20).filter(|&class| mask.labels(20)[class as usize - 1]) {
                assert!(
                    share(class) > 0.004,
                    "picture {index}: {} {}",
                    CLASSES[class as usize - 1],
                    share(class)
                );
            }
            // No object touches the background.
            let side_by_side = mask.classes.chunks(mask.width).flat_map(|row| row.windows(2));
            assert!(side_by_side.into_iter().all(|pair| pair[0] == pair[1] || pair.contains(&VOID)));
        }
    }

    #[test]
    fn the_same_seed_and_number_give_the_same_image() {
        let [a, b] = [(); 2].map(|()| generate(11, 4));
        assert!(a.image == b.image && a.mask == b.mask);
        assert!(generate(12, 4).image != a.image && generate(11, 24).image != a.image);
    }
}
