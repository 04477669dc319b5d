//! A folder of images, in whichever layout it is.

use crate::data::image_set::{self, Part};
use crate::data::voc_devkit::{self, Task, VocDevkit};
use crate::data::voc_npy::{Split, VocNpy};
use crate::data::{Classes, Dataset, Image, Labels, Mask};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a folder is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The competition's tables and `.npy` files ([`voc_npy`](crate::data::voc_npy)).
    VocNpy,
    /// PASCAL VOC's own ([`voc_devkit`]).
    VocDevkit,
    /// Image files with classes of one's own ([`image_set`]).
    Own(image_set::Layout),
}

/// A folder whose layout is known; nothing else in it has been looked at.
///
/// ```
/// use atrous::data::source::{Layout, Source};
/// use atrous::data::voc_devkit::Task;
/// use atrous::data::{Dataset, synthetic};
/// use std::ops::ControlFlow;
///
/// let folder = tempfile::tempdir()?;
/// let root = folder.path().join("made-up");
/// synthetic::make(&root, 2, 1, 1, synthetic::Contents::default(), &|_, _| ControlFlow::Continue(()))?;
///
/// let source = Source::open(&root)?;
/// assert_eq!((source.layout, source.natural_task()), (Layout::VocNpy, Task::Main));
/// let training = source.training(Task::Main)?;
/// assert_eq!((training.train, training.val), (vec![0, 1], None));
/// assert!(source.has_test(Task::Main));
/// let test = source.test(Task::Main)?;
/// assert_eq!((test.len(), test.labels(0)), (1, None)); // a competition does not tell them
/// let (all, test) = source.everything()?;
/// assert_eq!((all.len(), test.unwrap().len()), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Source {
    /// Which it is.
    pub layout: Layout,
    /// The folder that the layout begins in, which may be below the one that was named.
    pub root: PathBuf,
}

/// A data set that several hold.
type Shared = Arc<dyn Dataset>;

/// What there is to learn from.
#[derive(Clone)]
pub struct Training {
    /// The training set, followed by the validation set where the folder has one.
    pub dataset: Arc<dyn Dataset>,
    /// Numbers of the samples to train on.
    pub train: Vec<usize>,
    /// The folder's own choice for validation; None where it makes none, and a share of the
    /// training samples should be kept.
    pub val: Option<Vec<usize>>,
}

impl Source {
    /// Recognizes the layout by the names in the folder. An error where they are those of none, or of both of
    /// VOC's.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::file(folder, "expected a folder with pictures, got no such folder"));
        }
        // A folder with a table or the images is meant as this layout even if the rest is missing.
        let npy = [Split::Train, Split::Test].iter().any(|split| {
            let images = split.image(folder, "");
            split.csv(folder).is_file() || images.parent().is_some_and(Path::is_dir)
        });
        let own = |layout| Ok(Source { layout, root: folder.to_owned() });
        match (npy, voc_devkit::locate(folder)) {
            (true, None) => own(Layout::VocNpy),
            (false, Some(root)) => Ok(Source { layout: Layout::VocDevkit, root }),
            (true, Some(_)) => Err(Error::file(
                folder,
                "expected one layout, got train/train_set.csv and train/img (the competition's) and JPEGImages \
                 and ImageSets (VOCdevkit)",
            )),
            (false, None) => match image_set::Layout::of(folder) {
                Some(layout) => own(Layout::Own(layout)),
                None => Err(Error::file(folder, UNKNOWN)),
            },
        }
    }

    /// The training set, followed by the validation set where the folder has one of its own; an
    /// error where an image is in both, or there is nothing to train on.
    pub fn training(&self, task: Task) -> Result<Training> {
        let whole = |dataset: Arc<dyn Dataset>| {
            let train = (0..dataset.len()).collect();
            Training { dataset, train, val: None }
        };
        if let Layout::Own(layout) = self.layout {
            let part = |part| layout.open(&self.root, part);
            let none = || Error::file(&self.root, "expected pictures to train on, got none");
            let train: Arc<dyn Dataset> = Arc::new(part(Part::Train)?.ok_or_else(none)?);
            return match part(Part::Val)? {
                None => Ok(whole(train)),
                Some(val) => followed(train, Arc::new(val)),
            };
        }
        if self.layout == Layout::VocNpy {
            return Ok(whole(Arc::new(VocNpy::open(&self.root, Split::Train)?)));
        }
        let open = |set| VocDevkit::open(&self.root, task, set);
        if !task.has(&self.root, "train") && task.has(&self.root, "trainval") {
            return Ok(whole(Arc::new(open("trainval")?)));
        }
        let train = open("train")?;
        if !task.has(&self.root, "val") {
            return Ok(whole(Arc::new(train)));
        }
        let val = open("val")?;
        if let Some(shared) = val.shared_with(&train).next() {
            return Err(shared);
        }
        followed(Arc::new(train), Arc::new(val))
    }

    /// Every image that lists for training or validation name, those for segmentation first, and
    /// every one that lists for testing name, if there are such.
    pub fn everything(&self) -> Result<(Shared, Option<Shared>)> {
        let tasks: &[Task] = match self.layout {
            Layout::VocDevkit => &[Task::Segmentation, Task::Main],
            _ => &[Task::Main],
        };
        let trains = |task: &Task| {
            let lists = ["train", "trainval"].iter().any(|set| task.has(&self.root, set));
            self.layout != Layout::VocDevkit || lists
        };
        let mut training = Vec::new();
        for &task in tasks.iter().filter(|task| trains(task)) {
            training.push(self.training(task)?.dataset);
        }
        if training.is_empty() {
            // The error says which lists there are.
            training.push(self.training(self.natural_task())?.dataset);
        }
        let mut test = Vec::new();
        for &task in tasks.iter().filter(|&&task| self.has_test(task)) {
            test.push(self.test(task)?);
        }
        let once = |parts| -> Result<Arc<dyn Dataset>> { Ok(Arc::new(Joined::each_once(parts)?)) };
        let test = if test.is_empty() { None } else { Some(once(test)?) };
        Ok((once(training)?, test))
    }

    /// The images to predict; an error where there are none.
    pub fn test(&self, task: Task) -> Result<Arc<dyn Dataset>> {
        Ok(match self.layout {
            Layout::VocNpy => Arc::new(VocNpy::open(&self.root, Split::Test)?),
            Layout::VocDevkit => Arc::new(VocDevkit::open(&self.root, task, "test")?),
            Layout::Own(layout) => {
                let none = || Error::file(&self.root, "expected pictures to predict (`test`), got none");
                Arc::new(layout.open(&self.root, Part::Test)?.ok_or_else(none)?)
            }
        })
    }

    /// Whether the folder has images to predict: a test split, or a list of them.
    pub fn has_test(&self, task: Task) -> bool {
        match self.layout {
            Layout::VocNpy => Split::Test.csv(&self.root).is_file(),
            Layout::VocDevkit => task.has(&self.root, "test"),
            Layout::Own(layout) => layout.has(&self.root, Part::Test),
        }
    }

    /// The task whose lists the folder has: those of images with masks, if there are such.
    pub fn natural_task(&self) -> Task {
        let masks = ["train", "trainval"].iter().any(|set| Task::Segmentation.has(&self.root, set));
        if masks { Task::Segmentation } else { Task::Main }
    }
}

const UNKNOWN: &str = "expected a folder in one of these layouts, got none of them:
  train/CLASS/*.jpg               a folder a class (also without train/)
  train.csv or labels.csv         a table of labels beside pictures
  images/* and masks/*.png        pictures and masks of the same names, classes.txt
  annotations/instances_*.json    COCO
  JPEGImages and ImageSets        VOCdevkit
  train/train_set.csv, train/img  the competition's .npy files";

/// Samples for training followed by those for validation.
fn followed(train: Shared, val: Shared) -> Result<Training> {
    let first = train.len();
    let dataset: Shared = Arc::new(Joined::new(vec![train, val])?);
    let rest = (first..dataset.len()).collect();
    Ok(Training { dataset, train: (0..first).collect(), val: Some(rest) })
}

/// Samples of several data sets under one numbering.
///
/// ```
/// use atrous::data::source::Joined;
/// use atrous::data::{Dataset, synthetic::Synthetic};
/// use std::sync::Arc;
///
/// // The Ids of both are 0, 1, …
/// let (two, three) = (Arc::new(Synthetic::train(1, 2)), Arc::new(Synthetic::train(2, 3)));
/// let parts: Vec<Arc<dyn Dataset>> = vec![two, three];
/// let joined = Joined::new(parts.clone())?;
/// assert_eq!((joined.len(), joined.id(2).as_str()), (5, "0"));
/// let once = Joined::each_once(parts)?;
/// assert_eq!((once.len(), once.id(2).as_str()), (3, "2"));
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct Joined {
    /// Each as a data set and its place there.
    samples: Vec<(Arc<dyn Dataset>, usize)>,
    classes: Classes,
}

impl Joined {
    /// Data sets one after the other. An error where there is none, or they tell other classes apart.
    pub fn new(parts: Vec<Arc<dyn Dataset>>) -> Result<Self> {
        let classes = match &parts[..] {
            [] => return Err(Error::argument("parts", "expected at least one data set, got none")),
            [first, rest @ ..] => {
                if let Some(other) = rest.iter().find(|part| part.classes() != first.classes()) {
                    let message =
                        format!("expected the same classes in all parts, {:?}", first.classes());
                    return Err(Error::argument(
                        "parts",
                        format!("{message}, got {:?}", other.classes()),
                    ));
                }
                first.classes().clone()
            }
        };
        let samples = |part: Arc<dyn Dataset>| (0..part.len()).map(move |i| (part.clone(), i));
        Ok(Joined { samples: parts.into_iter().flat_map(samples).collect(), classes })
    }

    /// Data sets one after the other, without the samples whose Ids were there before. Errors as
    /// [`Joined::new`].
    pub fn each_once(parts: Vec<Arc<dyn Dataset>>) -> Result<Self> {
        let mut joined = Self::new(parts)?;
        let mut ids = HashSet::new();
        joined.samples.retain(|(part, index)| ids.insert(part.id(*index)));
        Ok(joined)
    }

    fn part(&self, index: usize) -> (&dyn Dataset, usize) {
        let (part, index) = &self.samples[index];
        (&**part, *index)
    }
}

impl Dataset for Joined {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> Classes {
        self.classes.clone()
    }

    fn exclusive(&self) -> bool {
        self.samples.iter().all(|(part, _)| part.exclusive())
    }

    fn id(&self, index: usize) -> String {
        let (part, index) = self.part(index);
        part.id(index)
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        let (part, index) = self.part(index);
        part.labels(index)
    }

    fn image(&self, index: usize) -> Result<Image> {
        let (part, index) = self.part(index);
        part.image(index)
    }

    fn size(&self, index: usize) -> Result<(usize, usize)> {
        let (part, index) = self.part(index);
        part.size(index)
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        let (part, index) = self.part(index);
        part.mask(index)
    }

    fn mask_file(&self, index: usize) -> Option<PathBuf> {
        let (part, index) = self.part(index);
        part.mask_file(index)
    }

    fn has_mask(&self, index: usize) -> bool {
        let (part, index) = self.part(index);
        part.has_mask(index)
    }
}
