//! What training left, put to use: at most one network a task, and what they say of images together.

use super::{MaskOptions, Segmenter, probabilities};
use crate::data::{Classes, Dataset, Labels, Mask, known_labels};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;
use crate::nn::Model;
use crate::predict::submission::Entry;
use crate::predict::thresholds::{self, Gain, Thresholds};
use crate::tensor::Tensor;
use crate::train::{self, TrainConfig};
use crate::weights::regular;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A class is predicted where its probability is above this, if no thresholds were fitted. The
/// pipeline's.
///
/// ```
/// use atrous::predict::THRESHOLD;
/// use atrous::predict::submission::labels_from_probabilities;
///
/// assert_eq!(labels_from_probabilities(&[0.1, 0.2, 0.9], THRESHOLD), [0, 1, 1]);
/// ```
pub const THRESHOLD: f32 = 0.15;

/// A trained network, and how it was trained. A copy shares the parameters.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::predict::Trained;
/// use atrous::prelude::*;
/// use atrous::train::{self, TrainConfig, Trainer};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("checkpoint.safetensors");
/// let config = TrainConfig::new(Spec::new("alexnet", 108, 20));
/// let trainer = Trainer::new(Model::new(config.graph()?, 1), config)?;
/// train::save(&path, &trainer)?;
///
/// let trained = Trained::load(&path)?.to_device(Device::Cpu)?;
/// assert_eq!(trained.config.network.name, "alexnet");
/// assert_eq!(trained.model.parameters.len(), trainer.model.parameters.len());
/// assert_eq!(trained.thresholds, None); // no `thresholds.json` beside it
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Trained {
    /// The network with its parameters.
    pub model: Model,
    /// How it was trained: its size, classes, preprocessing and fit are in it.
    pub config: TrainConfig,
    /// A classifier's, where there are some beside it.
    pub thresholds: Option<Thresholds>,
    /// The checkpoint's file.
    pub path: PathBuf,
    /// That file's checksum, which its thresholds name.
    pub checksum: String,
}

impl Trained {
    /// Reads a checkpoint, and `thresholds.json` beside it. An error where either cannot be used.
    pub fn load(path: &Path) -> Result<Self> {
        let (model, saved) = train::load_network(path)?;
        let config = saved.config.clone();
        let beside = path.with_file_name(THRESHOLDS);
        // Whatever stands there is meant: a link to nowhere, a folder or a pipe is an error, not the same
        // as nothing.
        let thresholds = match !config.network.segments() && beside.symlink_metadata().is_ok() {
            true => Thresholds::read(&beside, saved.checksum(), config.classes.len())?,
            false => None,
        };
        Ok(Trained {
            model,
            config,
            thresholds,
            path: path.to_owned(),
            checksum: saved.checksum().into(),
        })
    }

    /// Moves the network's parameters to a device.
    pub fn to_device(self, device: Device) -> Result<Self> {
        Ok(Trained { model: self.model.to_device(device)?, ..self })
    }

    /// What makes masks of images of any size. An error for options that [`MaskOptions::check`] refuses, and
    /// a network that does not label pixels of other sizes.
    ///
    /// ```
    /// # use atrous::data::Image;
    /// # use atrous::models::Spec;
    /// # use atrous::predict::{MaskOptions, Trained};
    /// # use atrous::prelude::*;
    /// # use atrous::train::TrainConfig;
    /// let config = TrainConfig::new(Spec::new("deeplabv3plus", 16, 21));
    /// // In place of what training leaves: logits that are their biases, the highest that of class 15.
    /// let mut graph = Graph::new("person", "input", [16, 16, 3]);
    /// graph.add(Layer::conv2d(21, 1), &[graph.input()])?;
    /// let mut model = Model::new(graph, 1);
    /// model.set("conv2d/kernel", Tensor::zeros([1, 1, 3, 21]))?;
    /// model.set("conv2d/bias", Tensor::eye(21).slice([15..16])?.reshape([21])?)?;
    /// let trained =
    ///     Trained { model, config, thresholds: None, path: "mine".into(), checksum: String::new() };
    ///
    /// let segmenter = trained.segmenter(&MaskOptions::default())?;
    /// assert_eq!(segmenter.mask(&Image::new(1, 3, vec![0; 9])?)?.classes, [15; 3]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn segmenter(&self, options: &MaskOptions) -> Result<Segmenter> {
        let config = &self.config;
        let graph = |size| {
            let mut config = config.clone();
            config.network.size = size;
            config.graph()
        };
        Segmenter::new(&self.model, graph, config.preprocess, config.fit, options.clone())
    }
}

/// The thresholds to use with a network: [`THRESHOLD`] for all classes, one fitted for all, or one fitted
/// for each, whichever has the best Dice over its validation images when fitted on others of them. The gain
/// is None where those are too few. An error where one of them cannot be read or has no labels.
///
/// ```
/// use atrous::data::Dataset;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::models::Spec;
/// use atrous::predict::thresholds::Thresholds;
/// use atrous::predict::{THRESHOLD, fit_thresholds};
/// use atrous::prelude::*;
/// use atrous::train::TrainConfig;
/// use std::sync::Arc;
///
/// # let mut graph = Graph::new("small", "input", [32, 32, 3]);
/// # let classify = Layer::dense(20).with_activation(Activation::Sigmoid);
/// # graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, classify])?;
/// # let model = Model::new(graph, 1);
/// let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::train(7, 10));
/// let spec = Spec::new("mobilenet", 32, 20);
/// let config = TrainConfig { val_indices: vec![8, 9], ..TrainConfig::new(spec) };
/// let (thresholds, gain) = fit_thresholds(&model, &config, &dataset)?;
/// assert_eq!((thresholds, gain), (Thresholds::uniform(THRESHOLD, 20), None)); // of two images learn nothing
/// # Ok::<(), Error>(())
/// ```
pub fn fit_thresholds(
    model: &Model,
    config: &TrainConfig,
    dataset: &Arc<dyn Dataset>,
) -> Result<(Thresholds, Option<Gain>)> {
    let val = &config.val_indices;
    let loader = config.scoring_loader(dataset, val.clone());
    let probabilities = probabilities(model, &loader, &mut |_| {})?;
    let labels = known_labels(&**dataset, val)?;
    thresholds::choose(&labels, &probabilities, config.classes.len(), THRESHOLD, config.seed)
}

const THRESHOLDS: &str = "thresholds.json";

/// Thresholds as their file has them.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// The checksum of the checkpoint that they were fitted for.
    network: String,
    #[serde(flatten)]
    thresholds: Thresholds,
}

impl Thresholds {
    /// Reads what [`Thresholds::write`] wrote for the network of this checksum; None where it was for
    /// another, as beside a run's last checkpoint, whose thresholds were fitted for its best. An error where
    /// the file is missing or does not hold a threshold of 0 to 1 for each of so many classes.
    ///
    /// [`Thresholds::write`] has an example.
    pub fn read(path: &Path, network: &str, classes: usize) -> Result<Option<Self>> {
        let Stored { network: own, thresholds } =
            serde_json::from_slice(&regular::read(path)?).map_err(|error| Error::file(path, error))?;
        let fine = |t: &f32| (0.0..=1.0).contains(t);
        if thresholds.per_class.len() != classes || !thresholds.per_class.iter().all(fine) {
            let message = format!("expected {classes} thresholds of 0 to 1");
            return Err(Error::file(path, message));
        }
        Ok((own == network).then_some(thresholds))
    }

    /// Writes `thresholds.json` into the folder of the network they belong to, whose checkpoint has this
    /// checksum: complete, or not at all.
    ///
    /// ```
    /// # use atrous::predict::thresholds::Thresholds;
    /// # let folder = tempfile::tempdir().unwrap();
    /// let thresholds = Thresholds::uniform(0.25, 20);
    /// thresholds.write(folder.path(), "a checksum")?;
    /// let path = folder.path().join("thresholds.json");
    /// assert_eq!(Thresholds::read(&path, "a checksum", 20)?, Some(thresholds));
    /// assert_eq!(Thresholds::read(&path, "another", 20)?, None);
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn write(&self, folder: &Path, network: &str) -> Result<()> {
        let path = folder.join(THRESHOLDS);
        let stored = Stored { network: network.to_owned(), thresholds: self.clone() };
        let text = serde_json::to_string_pretty(&stored).map_err(|error| Error::file(&path, error))?;
        crate::files::write_atomically(&path, |file| writeln!(file, "{text}"))
    }
}

/// The checkpoints that a path means: a file itself; of a folder that `train` left the best one
/// (the last, where none was validated); of a folder that `run` left those of both tasks. An error for a
/// folder without one.
///
/// ```
/// use atrous::predict::locate;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// assert!(locate(folder).is_err()); // nothing was trained there
/// for task in ["classify", "segment"] {
///     std::fs::create_dir(folder.join(task)).unwrap();
///     std::fs::write(folder.join(task).join("checkpoint.safetensors"), "").unwrap();
/// }
/// std::fs::write(folder.join("segment/best.safetensors"), "").unwrap();
/// let found = locate(folder)?;
/// assert_eq!(found, ["classify/checkpoint", "segment/best"].map(|file| {
///     folder.join(file).with_extension("safetensors")
/// }));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn locate(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let of_folder = |folder: PathBuf| {
        let files = ["best.safetensors", "checkpoint.safetensors"].map(|name| folder.join(name));
        files.into_iter().find(|file| file.is_file())
    };
    let folders = [path.to_owned(), path.join("classify"), path.join("segment")];
    let found: Vec<PathBuf> = folders.into_iter().filter_map(of_folder).collect();
    match found.is_empty() {
        true => Err(Error::file(path, "expected what `train` or `run` left, got no checkpoint in it")),
        false => Ok(found),
    }
}

/// At most one network a task.
///
/// ```
/// use atrous::data::Dataset;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::models::Spec;
/// use atrous::predict::{MaskOptions, Networks, Trained};
/// use atrous::prelude::*;
/// use atrous::train::TrainConfig;
/// use std::sync::Arc;
///
/// let config = TrainConfig::new(Spec::new("mobilenet", 32, 20));
/// // A network in place of a trained one; `Networks::load` reads those from files.
/// let mut graph = Graph::new("small", "input", [32, 32, 3]);
/// let classify = Layer::dense(20).with_activation(Activation::Sigmoid);
/// graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, classify])?;
/// let of = |model| Trained {
///     model,
///     config: config.clone(),
///     thresholds: None,
///     path: "mine".into(),
///     checksum: String::new(),
/// };
/// let model = Model::new(graph, 1);
/// let mut networks = Networks::default();
/// networks.add(of(model.clone()))?;
/// assert!(networks.add(of(model)).is_err()); // there is one that classifies
///
/// let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::test(7, 3));
/// let options = MaskOptions::default();
/// let predictions = networks.predict(&dataset, &[0, 2], &options, Some(0.0), &mut |_| {})?;
/// assert_eq!((predictions.len(), predictions.is_empty(), predictions.segments()), (2, false, false));
/// let last = predictions.get(1)?;
/// assert_eq!((last.id.as_str(), &last.labels), (&*dataset.id(2), &vec![true; 20])); // all are above 0
/// assert_eq!(last.probabilities, predictions.probabilities[20..]);
/// assert_eq!(last.entry().classification.to_string(), "1 20"); // a run of 20 from the first on
/// let known = predictions.probabilities.clone(); // another threshold, without another look
/// let strict = networks.predict_from(known, &dataset, &[0, 2], &options, Some(1.0))?;
/// assert_eq!(strict.get(1)?.labels.iter().filter(|&&set| set).count(), 1); // the most probable
/// # Ok::<(), Error>(())
/// ```
#[derive(Default)]
pub struct Networks {
    /// Says which classes are in an image.
    pub classifier: Option<Trained>,
    /// Says which class each pixel is of.
    pub segmenter: Option<Trained>,
}

impl Networks {
    /// Reads all checkpoints that the paths mean, for a device; an error where two are of one task.
    pub fn load(paths: &[PathBuf], device: Device) -> Result<Self> {
        let mut networks = Networks::default();
        for path in paths {
            for file in locate(path)? {
                networks.add(Trained::load(&file)?.to_device(device)?)?;
            }
        }
        Ok(networks)
    }

    /// Adds a network for its task; an error where there is one for that already, or one of other classes.
    pub fn add(&mut self, trained: Trained) -> Result<()> {
        let others = self.classifier.as_ref().or(self.segmenter.as_ref());
        if let Some(other) = others.filter(|other| other.config.classes != trained.config.classes) {
            let message = format!(
                "it tells {:?} apart, {} tells {:?}; predict with one after the other",
                trained.config.classes,
                other.path.display(),
                other.config.classes
            );
            return Err(Error::file(trained.path, message));
        }
        let (slot, task) = match trained.config.network.segments() {
            true => (&mut self.segmenter, "segments"),
            false => (&mut self.classifier, "classifies"),
        };
        if let Some(other) = slot {
            let message = format!("it {task}, and so does {}; give one of them", other.path.display());
            return Err(Error::file(trained.path, message));
        }
        *slot = Some(trained);
        Ok(())
    }

    /// What the networks tell apart. An error where there is no network.
    pub fn classes(&self) -> Result<&Classes> {
        let network = self.classifier.as_ref().or(self.segmenter.as_ref());
        let none = || Error::argument("networks", "expected at least one, got none");
        network.map(|trained| &trained.config.classes).ok_or_else(none)
    }

    /// An error, naming a checkpoint, where a data set tells other classes apart than the networks.
    pub fn check_classes(&self, dataset: &dyn Dataset) -> Result<()> {
        let all = [&self.classifier, &self.segmenter].into_iter().flatten();
        all.into_iter().try_for_each(|trained| trained.config.check_classes(dataset, &trained.path))
    }

    /// What the networks say of some samples. The classifier sees all of them now, and `progress` is
    /// told how many it has seen; masks are made when they are asked for. `threshold`, 0 to 1, goes before
    /// the classifier's own. An error where an image cannot be read, or a logit is not finite.
    pub fn predict(
        &self,
        dataset: &Arc<dyn Dataset>,
        indices: &[usize],
        options: &MaskOptions,
        threshold: Option<f32>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Predictions> {
        let probabilities = match &self.classifier {
            Some(classifier) => {
                let loader = classifier.config.scoring_loader(dataset, indices.to_vec());
                probabilities(&classifier.model, &loader, progress)?
            }
            None => Vec::new(),
        };
        self.predict_from(probabilities, dataset, indices, options, threshold)
    }

    /// [`Networks::predict`] where the classifier's probabilities of these samples, [samples, classes], are
    /// known from before: it does not see them again. An error for another number of them.
    pub fn predict_from(
        &self,
        probabilities: Vec<f32>,
        dataset: &Arc<dyn Dataset>,
        indices: &[usize],
        options: &MaskOptions,
        threshold: Option<f32>,
    ) -> Result<Predictions> {
        let classes = self.classes()?.len();
        let expected = self.classifier.as_ref().map_or(0, |_| indices.len() * classes);
        if probabilities.len() != expected {
            let expected = format!("{expected} probabilities of {} samples", indices.len());
            return Err(Error::shape("predict_from", expected, probabilities.len()));
        }
        let fitted = self.classifier.as_ref().and_then(|classifier| classifier.thresholds.clone());
        let uniform = || Thresholds::uniform(threshold.unwrap_or(THRESHOLD), classes);
        Ok(Predictions {
            classes,
            exclusive: self.classifier.as_ref().is_some_and(|trained| trained.config.exclusive),
            dataset: dataset.clone(),
            indices: indices.to_vec(),
            probabilities,
            thresholds: fitted.filter(|_| threshold.is_none()).unwrap_or_else(uniform),
            segmenter: self.segmenter.as_ref().map(|trained| trained.segmenter(options)).transpose()?,
        })
    }
}

/// What the networks say of some samples of a data set.
///
/// [`Networks`] has an example.
pub struct Predictions {
    classes: usize,
    /// An image is of one class, the likeliest; thresholds say nothing then.
    pub exclusive: bool,
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
    /// [samples, classes]; empty without a classifier.
    pub probabilities: Vec<f32>,
    /// A class is said to be there above its one.
    pub thresholds: Thresholds,
    segmenter: Option<Segmenter>,
}

/// What is said of one image.
///
/// ```
/// use atrous::data::Mask;
/// use atrous::predict::Prediction;
///
/// let mut labels = vec![false; 20];
/// labels[0] = true;
/// let mask = Some(Mask::new(1, 4, vec![0, 1, 1, 0])?);
/// let said = Prediction { id: "2007_000032".into(), probabilities: Vec::new(), labels, mask };
/// let entry = said.entry();
/// assert_eq!(entry.classification.to_string(), "1 1"); // class 1 of 20
/// assert_eq!(entry.segmentation.to_string(), "2 2"); // its pixels 2 and 3
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prediction {
    /// What the data set calls it.
    pub id: String,
    /// One a class; empty without a classifier.
    pub probabilities: Vec<f32>,
    /// The classes in the image: the classifier's, else those of the mask.
    pub labels: Labels,
    /// At the image's own size; None without a network that segments.
    pub mask: Option<Mask>,
}

impl Prediction {
    /// Its two rows of a submission.
    pub fn entry(&self) -> Entry {
        let mask = self.mask.as_ref().map(|mask| &mask.classes[..]);
        let labels: Vec<u8> = self.labels.iter().map(|&set| set as u8).collect();
        Entry::new(self.id.clone(), &labels, mask)
    }
}

impl Predictions {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Are there masks among them, which take their time?
    pub fn segments(&self) -> bool {
        self.segmenter.is_some()
    }

    /// The `i`-th sample's mask, and the probabilities it was made of
    /// ([`Segmenter::mask_with_probabilities`]); None without a network that segments. Errors and panics as
    /// [`Predictions::get`].
    pub fn mask_with_probabilities(&self, i: usize) -> Result<Option<(Mask, Option<Tensor>)>> {
        let Some(segmenter) = &self.segmenter else { return Ok(None) };
        segmenter.mask_with_probabilities(&self.dataset.image(self.indices[i])?).map(Some)
    }

    /// The classes that the classifier says are in the `i`-th of the samples: the likeliest where an image is
    /// of one, else those above their thresholds. An error where a probability is none. Panics without a
    /// classifier, and where there is no such sample.
    pub fn labels(&self, i: usize) -> Result<Labels> {
        let row = &self.probabilities[i * self.classes..][..self.classes];
        if self.exclusive {
            let likeliest = arg_max(row);
            return Ok((0..row.len()).map(|class| class == likeliest).collect());
        }
        Ok(self.thresholds.apply(row)?.iter().map(|&label| label == 1).collect())
    }

    /// What is said of the `i`-th of the samples, from 0; makes its mask. An error where its image cannot be
    /// read, or a logit is not finite. Panics where there is no such sample.
    pub fn get(&self, i: usize) -> Result<Prediction> {
        let index = self.indices[i];
        let mask = match &self.segmenter {
            Some(segmenter) => Some(segmenter.mask(&self.dataset.image(index)?)?),
            None => None,
        };
        let mut prediction = Prediction {
            id: self.dataset.id(index),
            labels: mask.as_ref().map(|mask| mask.labels(self.classes)).unwrap_or_default(),
            probabilities: Vec::new(),
            mask,
        };
        if let Some(row) = self.probabilities.chunks_exact(self.classes).nth(i) {
            prediction.labels = self.labels(i)?;
            prediction.probabilities = row.to_vec();
        }
        Ok(prediction)
    }
}
