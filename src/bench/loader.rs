//! Whether images come as fast as a network takes them: reading, decoding, resizing and augmentation
//! alone, on made-up images of VOC's sizes in both layouts, beside the training step that waits for
//! them.

use super::nets::Net;
use super::{tenths, time};
use crate::backend::cpu::threads;
use crate::data::convert::convert;
use crate::data::loader::Loader;
use crate::data::source::{Layout, Source, Training};
use crate::data::synthetic;
use crate::data::transforms::Augment;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::train::TrainConfig;
use serde_json::{Map, Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Synthetic images in a temporary folder, which is removed when this is dropped.
///
/// ```no_run
/// use atrous::bench::loader::{Images, feeds};
/// use atrous::data::source::Layout;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let images = Images::make(folder.path(), 64)?;
/// let training = images.training(Layout::VocNpy)?;
/// for feed in feeds()? {
///     let rates = feed.rates(&training, 4)?; // some six seconds
///     println!("{}: {:.0} read, {:.0} made into batches a second", feed.name(), rates.read, rates.all);
/// }
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct Images {
    folder: PathBuf,
}

impl Images {
    /// Writes `count` images in both layouts below `parent`; an error where that fails.
    pub fn make(parent: &Path, count: usize) -> Result<Self> {
        let folder = parent.join(format!("atrous-bench-{}", std::process::id()));
        if folder.exists() {
            return Err(Error::file(folder, "expected a name that is not taken"));
        }
        let images = Images { folder };
        let whole = |_, _| ControlFlow::Continue(());
        let contents = synthetic::Contents::default();
        synthetic::make(&images.root(Layout::VocNpy), count, 1, 0, contents, &whole)?;
        let [npy, devkit] = [Layout::VocNpy, Layout::VocDevkit].map(|layout| images.root(layout));
        convert(&npy, &devkit, Layout::VocDevkit, &whole)?;
        Ok(images)
    }

    fn root(&self, layout: Layout) -> PathBuf {
        self.folder.join(name(layout))
    }

    /// The training samples of the folder in one layout.
    pub fn training(&self, layout: Layout) -> Result<Training> {
        let source = Source::open(self.root(layout))?;
        source.training(source.natural_task())
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        // Made-up images that cannot be removed now are the system's to remove with its other
        // temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The layout's name in `atrous data convert`: `npy` or `voc`.
///
/// ```
/// use atrous::bench::loader::name;
/// use atrous::data::source::Layout;
///
/// assert_eq!([Layout::VocNpy, Layout::VocDevkit].map(name), ["npy", "voc"]);
/// ```
pub fn name(layout: Layout) -> &'static str {
    match layout {
        Layout::VocNpy => "npy",
        Layout::VocDevkit => "voc",
        Layout::Own(layout) => layout.name(),
    }
}

/// A network and how its images are augmented.
///
/// [`feeds`] and [`Images`] have examples.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    /// Decides size, batch and the rate that is needed.
    pub net: Net,
    /// Decides the cost of an image.
    pub augment: Augment,
}

/// The networks that take images fastest, and the recipes of the presets and of the dearest
/// augmentation.
///
/// ```
/// use atrous::bench::loader::feeds;
///
/// let first = feeds()?[0];
/// assert_eq!((first.name(), first.net.batch), ("alexnet keras".to_string(), 16));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn feeds() -> Result<Vec<Feed>> {
    let all = [
        ("alexnet", Augment::Keras),
        ("alexnet", Augment::Colour),
        ("mobilenetv2_frozen", Augment::Keras),
        ("deeplabv3plus", Augment::Flip),
        ("deeplabv3plus", Augment::Colour),
    ];
    all.into_iter().map(|(net, augment)| Ok(Feed { net: Net::find(net)?, augment })).collect()
}

/// Images a second.
///
/// [`Images`] has an example.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// One thread, from files to pixels (and masks).
    pub read: f64,
    /// One worker, from files to batches.
    pub one: f64,
    /// All workers, from files to batches.
    pub all: f64,
}

impl Feed {
    /// Network and augmentation: `deeplabv3plus colour`.
    pub fn name(&self) -> String {
        format!("{} {}", self.net.name, self.augment)
    }

    /// Images a second that training steps take on a device.
    pub fn need(&self, device: Device) -> Result<f64> {
        Ok(self.net.batch as f64 / self.net.training_step(device)?.median)
    }

    /// Measures reading and loading for some two seconds each; an error where an image cannot be
    /// read.
    pub fn rates(&self, training: &Training, workers: usize) -> Result<Rates> {
        let config = TrainConfig { augment: self.augment, ..self.net.config()? };
        let (dataset, transforms) = (&training.dataset, config.training_transforms());
        let indices = &training.train;
        let read = time(2.0, || {
            for &index in indices {
                dataset.image(index)?;
                if transforms.masks {
                    dataset.mask(index)?;
                }
            }
            Ok(())
        })?;
        let mut epoch = 0;
        let mut loaded = |workers| {
            let all = Loader::shuffled(dataset.clone(), transforms, config.batch_size, 1);
            let all = Loader { indices: indices.clone(), workers, ..all };
            time(2.0, || {
                epoch += 1;
                all.epoch(epoch, 0)?.try_for_each(|batch| batch.map(drop))
            })
        };
        let (one, all) = (loaded(1)?, loaded(workers)?);
        let rate = |seconds: f64| indices.len() as f64 / seconds;
        Ok(Rates { read: rate(read.median), one: rate(one.median), all: rate(all.median) })
    }

    /// The line of what was measured. `share`: of a step's processor time, what making its images costs.
    pub fn line(&self, layout: Layout, rates: Rates, workers: usize, need: f64) -> Map<String, Value> {
        let share = 100.0 * need / rates.one / threads::count() as f64;
        let all = [
            ("loader", json!(self.name())),
            ("layout", json!(name(layout))),
            ("workers", json!(workers)),
            ("threads", json!(threads::count())),
            ("read_per_second", tenths(rates.read)),
            ("one_worker_per_second", tenths(rates.one)),
            ("all_per_second", tenths(rates.all)),
            ("step_per_second", tenths(need)),
            ("share", tenths(share)),
        ];
        all.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_there_in_both_layouts_and_go_again() {
        let parent = tempfile::tempdir().unwrap();
        let images = Images::make(parent.path(), 4).unwrap();
        for layout in [Layout::VocNpy, Layout::VocDevkit] {
            let training = images.training(layout).unwrap();
            assert_eq!(training.train.len(), 4);
            assert!(training.dataset.mask(3).unwrap().is_some());
        }
        assert!(Images::make(parent.path(), 4).err().unwrap().to_string().contains("not taken"));
        drop(images);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_share_is_what_a_image_costs_of_what_its_step_costs() {
        let feed = feeds().unwrap()[0];
        let rates = Rates { read: 900.0, one: 400.0, all: 700.0 };
        let line = threads::with(2, || feed.line(Layout::VocNpy, rates, 2, 100.0)).unwrap();
        assert_eq!(line["share"], 12.5);
        assert_eq!((&line["loader"], &line["layout"]), (&"alexnet keras".into(), &"npy".into()));
    }
}
