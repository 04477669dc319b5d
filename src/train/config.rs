//! What decides a run's bits, beside the data.

use super::callbacks::{Plateau, Schedule};
use crate::activation::Activation;
use crate::data::image::{Fit, MaskResize, Preprocess};
use crate::data::loader::{Loader, Sampling};
use crate::data::manifest::Manifest;
use crate::data::transforms::{Augment, Transforms};
use crate::data::{Classes, Dataset, VOID};
use crate::error::{Error, Result};
use crate::losses::Loss;
use crate::models::Spec;
use crate::nn::Graph;
use crate::ops::CategoricalGradient;
use crate::optimizers::OptimizerKind;
use crate::weights::Origin;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// What tells which epoch is the best, and when there is no more to gain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MonitorMetric {
    /// The validation loss.
    #[default]
    Loss,
    /// Mean IoU, or mean average precision; accuracy where an image is of one class.
    Score,
}

/// A stage of training: from this epoch on, so many of the base's last layers train too.
///
/// ```
/// use atrous::models::{Head, Spec};
/// use atrous::nn::Model;
/// use atrous::train::{TrainConfig, Trainer, Unfreeze};
///
/// // At first the head alone: 1280 features for each of 20 classes, and a bias. Four epochs later the base's
/// // last ten layers as well.
/// let network = Spec { head: Head::Pooled, ..Spec::new("mobilenetv2", 32, 20) };
/// let model = Model::new(network.graph()?, 1);
/// let unfreeze = vec![Unfreeze { epoch: 0, layers: 0 }, Unfreeze { epoch: 4, layers: 10 }];
/// let trainer = Trainer::new(model, TrainConfig { unfreeze, ..TrainConfig::new(network) })?;
/// let (_all, trainable) = trainer.model.count_parameters();
/// assert_eq!(trainable, 1280 * 20 + 20);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfreeze {
    /// The first epoch of the stage, counted from 0.
    pub epoch: usize,
    /// Layers of the base, counted from its end.
    pub layers: usize,
}

/// What decides a run's bits, beside the data. A run is resumed under the plan it began with.
///
/// ```
/// use atrous::data::loader::Sampling;
/// use atrous::data::{Dataset, synthetic::Synthetic};
/// use atrous::losses::Loss;
/// use atrous::models::Spec;
/// use atrous::train::TrainConfig;
/// use std::path::Path;
/// use std::sync::Arc;
///
/// let config = TrainConfig {
///     batch_size: 4,
///     train_indices: (0..10).collect(),
///     val_indices: vec![10, 11],
///     ..TrainConfig::new(Spec::new("mobilenetv2", 32, 20))
/// };
/// assert_eq!((config.graph()?.name.as_str(), config.loss()?), ("mobilenetv2", Loss::BinaryCrossentropy));
///
/// let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::train(1, 12));
/// let dataset = config.find_samples(&dataset, Path::new("run.safetensors"))?;
/// let training = config.training_loader(&dataset, 2);
/// assert_eq!((training.steps(), training.sampling), (3, Sampling::Shuffle));
/// assert_eq!(training.transforms, config.training_transforms());
/// // Nothing of what is scored is random.
/// let validation = config.scoring_loader(&dataset, config.val_indices.clone());
/// assert_eq!(validation.transforms, config.scoring_transforms());
/// assert!(training.transforms.augment.is_some() && validation.transforms.augment.is_none());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Architecture, input size, classes and head.
    pub network: Spec,
    /// What the classes are called: as many as the network has, but for the background of one that segments.
    #[serde(default, skip_serializing_if = "Classes::is_voc")]
    pub classes: Classes,
    /// An image is of one class: a classifier's outputs are a softmax, the likeliest class is predicted,
    /// and accuracy tells how good it is. Else classes are found each by itself.
    #[serde(default, skip_serializing_if = "no")]
    pub exclusive: bool,
    /// The preset that it was made from; empty where it was made otherwise.
    #[serde(default)]
    pub preset: String,
    /// Whose padding and epsilon the base has: that of the weights it began with.
    pub origin: Origin,
    /// On what it began, `cpu` or `cuda in tf32`: elsewhere the last digits are others. Empty where
    /// nobody said.
    #[serde(default)]
    pub arithmetic: String,
    /// The file those came from; None for a base that began at random.
    pub weights: Option<String>,
    /// Passes over the training samples.
    pub epochs: usize,
    /// Samples of a step.
    pub batch_size: usize,
    /// The full rate, before schedule and plateaus.
    pub learning_rate: f32,
    /// Factor on the rate for the layers of the base.
    pub base_rate: f32,
    /// How the rate falls within the run.
    pub schedule: Schedule,
    /// Epochs (and parts of one) in which the rate climbs linearly to its full height.
    pub warmup: f32,
    /// The update rule: `adam`, `sgd` or `rmsprop`, with Keras' defaults.
    pub optimizer: String,
    /// Momentum of `sgd` and `rmsprop`, 0 to below 1; `adam` has its own.
    pub momentum: f64,
    /// Largest norm of all gradients together, to which longer ones are scaled; None: any.
    pub clip_norm: Option<f32>,
    /// `binary_crossentropy`, `categorical_crossentropy` with Keras' gradient,
    /// `sparse_categorical_crossentropy` for networks that segment.
    pub loss: String,
    /// Share of a label that is spread over all classes, 0 to below 1.
    pub label_smoothing: f32,
    /// γ of the focal loss (Lin et al., 2017): 0 is cross-entropy.
    pub focal: f32,
    /// Decides initial weights, order, augmentation and dropout.
    pub seed: u64,
    /// The range of values that the network is given.
    pub preprocess: Preprocess,
    /// How images become squares where they are not cropped.
    pub fit: Fit,
    /// How training images are changed at random.
    pub augment: Augment,
    /// Whether masks are resized as quantities, as the notebook did ([`MaskResize::Bilinear`]).
    pub blended_masks: bool,
    /// Whether samples of rare classes come oftener ([`Sampling::Balanced`]).
    pub balanced: bool,
    /// Whether samples come in another order every epoch.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Whether a last batch that is not full is left out.
    pub drop_last: bool,
    /// A factor on the loss for each class; None: 1 for all.
    pub class_weights: Option<Vec<f32>>,
    /// When how much of the base trains; empty where all of the network does.
    pub unfreeze: Vec<Unfreeze>,
    /// The base's batch norms keep their statistics, even where its other layers train.
    pub freeze_batch_norm: bool,
    /// Instead of the network's own: how much of batch norms' moving statistics stays from step to
    /// step. Where a run has few steps, statistics that begin at 0 and 1 would not arrive: after 300
    /// steps with MobileNetV2's .999 they are three quarters of what they were.
    #[serde(default)]
    pub batch_norm_momentum: Option<f32>,
    /// Epochs without a better validation after which the run ends; None: it goes to its last.
    pub patience: Option<usize>,
    /// When to lower the rate; None: never.
    pub plateau: Option<Plateau>,
    /// By what the best epoch is chosen.
    pub monitor: MonitorMetric,
    /// The share that was asked for of the training samples to validate on; None: the data's own split,
    /// or a tenth.
    #[serde(default)]
    pub val_fraction: Option<f64>,
    /// The samples to train on: numbers of `samples`, or of the data set where those are empty.
    pub train_indices: Vec<usize>,
    /// The samples that are only scored, after each epoch; none is trained on.
    pub val_indices: Vec<usize>,
    /// What the samples are. Empty where nobody said: then numbers are taken as a data set has them.
    #[serde(default)]
    pub samples: Manifest,
}

fn yes() -> bool {
    true
}

fn no(flag: &bool) -> bool {
    !flag
}

impl TrainConfig {
    /// Keras' defaults for everything; no samples yet. A network of as many classes as PASCAL VOC has is
    /// one for VOC's; others are called by their numbers.
    pub fn new(network: Spec) -> Self {
        let segments = network.segments();
        let voc = Classes::voc();
        let classes = match network.classes.saturating_sub(segments as usize) {
            count if count == voc.len() => voc,
            count => Classes::numbered(count),
        };
        TrainConfig {
            classes,
            exclusive: false,
            preset: String::new(),
            arithmetic: String::new(),
            origin: Origin::default(),
            weights: None,
            epochs: 40,
            batch_size: if segments { 4 } else { 16 },
            learning_rate: 1e-3,
            base_rate: 1.0,
            schedule: Schedule::Constant,
            warmup: 0.0,
            optimizer: "adam".into(),
            momentum: 0.0,
            clip_norm: None,
            loss: Loss::NAMES[if segments { 2 } else { 0 }].into(),
            label_smoothing: 0.0,
            focal: 0.0,
            seed: 0,
            preprocess: crate::models::preprocess(&network.name),
            fit: if segments { Fit::Stretch } else { Fit::Pad },
            augment: if segments { Augment::Flip } else { Augment::Keras },
            blended_masks: false,
            balanced: false,
            shuffle: true,
            drop_last: false,
            class_weights: None,
            unfreeze: Vec::new(),
            freeze_batch_norm: false,
            batch_norm_momentum: None,
            patience: None,
            plateau: None,
            monitor: MonitorMetric::Loss,
            val_fraction: None,
            train_indices: Vec::new(),
            val_indices: Vec::new(),
            samples: Manifest::default(),
            network,
        }
    }

    /// An error where a setting is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what, message: String| Err(Error::argument(what, message));
        let named = self.classes.len() + self.network.segments() as usize;
        if self.network.classes != named {
            let message =
                format!("expected {named}, as many as are named, got {}", self.network.classes);
            return wrong("classes", message);
        }
        for (what, value, high) in
            [("epochs", self.epochs, 1 << 24), ("batch_size", self.batch_size, 1 << 16)]
        {
            if !(1..=high).contains(&value) {
                return wrong(what, format!("expected 1 to {high}, got {value}"));
            }
        }
        for (what, value, high) in [
            ("learning_rate", self.learning_rate, f32::MAX),
            ("clip_norm", self.clip_norm.unwrap_or(1.0), f32::MAX),
        ] {
            if !(value > 0.0 && value <= high) {
                return wrong(what, format!("expected a number above 0, got {value}"));
            }
        }
        for (what, value, high) in [
            ("base_rate", self.base_rate, 1e6),
            ("warmup", self.warmup, 1e6),
            ("label_smoothing", self.label_smoothing, 0.99),
            ("focal", self.focal, 10.0),
        ] {
            if !(0.0..=high).contains(&value) {
                return wrong(what, format!("expected 0 to {high}, got {value}"));
            }
        }
        if let Some(plateau) = self.plateau
            && !(plateau.patience > 0 && plateau.factor > 0.0 && plateau.factor < 1.0)
        {
            return wrong("plateau", format!("expected a patience and 0 < factor < 1, got {plateau:?}"));
        }
        if let Some(weights) = &self.class_weights
            && let Some(bad) = weights.iter().find(|w| !(**w >= 0.0 && w.is_finite()))
        {
            return wrong("class_weights", format!("expected numbers of at least 0, got {bad}"));
        }
        if self.exclusive
            && (self.network.segments() || !matches!(self.loss()?, Loss::CategoricalCrossentropy { .. }))
        {
            let message = "exclusive labels are a classifier's, and go with `categorical_crossentropy`";
            return wrong("loss", format!("{message}, got `{}`", self.loss));
        }
        if !OptimizerKind::NAMES.contains(&self.optimizer.as_str()) {
            return Err(Error::unknown("optimizer", &self.optimizer, &OptimizerKind::NAMES));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return wrong("momentum", format!("expected 0 ≤ momentum < 1, got {}", self.momentum));
        }
        let kept = self.batch_norm_momentum.unwrap_or(0.0);
        if !(0.0..1.0).contains(&kept) {
            return wrong("batch_norm_momentum", format!("expected 0 ≤ momentum < 1, got {kept}"));
        }
        if self.unfreeze.windows(2).any(|pair| pair[0].epoch >= pair[1].epoch) {
            return wrong("unfreeze", format!("expected rising epochs, got {:?}", self.unfreeze));
        }
        let sparse = matches!(self.loss()?, Loss::SparseCategoricalCrossentropy { .. });
        if sparse != self.network.segments() {
            let message = format!("`{}` is no loss for `{}`", self.loss, self.network.name);
            return wrong("loss", message);
        }
        if sparse && (self.class_weights.is_some() || self.label_smoothing > 0.0) {
            let message = "class weights and label smoothing are for classifiers";
            return wrong("plan", message.into());
        }
        if self.focal > 0.0 && self.class_weights.is_some() {
            return wrong("focal", "it takes no class weights".into());
        }
        let binary = self.loss()? == Loss::BinaryCrossentropy;
        if self.focal > 0.0 && !(binary || sparse) {
            return wrong("focal", format!("there is no focal form of `{}`", self.loss));
        }
        Ok(())
    }

    /// The network, with the padding and epsilon that the origin of its weights has. An error where
    /// there is no such network, or no such origin for it.
    pub fn graph(&self) -> Result<Graph> {
        let mut graph = self.origin.configure(&self.network.graph()?)?;
        if self.exclusive && !self.network.segments() {
            graph = graph.with_output_activation(Activation::Softmax)?;
        }
        match self.batch_norm_momentum {
            Some(momentum) => Ok(graph.with_batch_norm_momentum(momentum)),
            None => Ok(graph),
        }
    }

    /// The run's samples in a data set, under the numbers of the plan (`Manifest::find`); an error
    /// where they are not all there, or are others. `path` is the checkpoint's.
    pub fn find_samples(&self, dataset: &Arc<dyn Dataset>, path: &Path) -> Result<Arc<dyn Dataset>> {
        self.check_classes(&**dataset, path)?;
        if !self.samples.samples.is_empty() {
            return self.samples.find(dataset).map_err(|error| Error::file(path, error));
        }
        let known = dataset.len();
        match self.train_indices.iter().chain(&self.val_indices).find(|&&i| i >= known) {
            Some(missing) => {
                let message = format!("the run needs picture number {missing}, the data has {known}");
                Err(Error::file(path, message))
            }
            None => Ok(dataset.clone()),
        }
    }

    /// An error where a data set tells other classes apart than the run. `path` is the checkpoint's.
    pub fn check_classes(&self, dataset: &dyn Dataset, path: &Path) -> Result<()> {
        if dataset.classes() == self.classes {
            return Ok(());
        }
        let (own, given) = (&self.classes, dataset.classes());
        Err(Error::file(
            path,
            format!("expected pictures of its classes, {own:?}, got those of {given:?}"),
        ))
    }

    /// An error where a number is none of the plan's samples, or one is trained on and validated on.
    pub(super) fn check_samples(&self) -> Result<(), String> {
        self.samples.check()?;
        let known = self.samples.samples.len();
        let mut all = self.train_indices.iter().chain(&self.val_indices);
        if let (true, Some(missing)) = (known > 0, all.find(|&&i| i >= known)) {
            return Err(format!("it has {known} samples, and needs number {missing}"));
        }
        let train: HashSet<usize> = self.train_indices.iter().copied().collect();
        match self.val_indices.iter().find(|i| train.contains(i)) {
            Some(both) => Err(format!("sample {both} is both trained on and validated on")),
            None => Ok(()),
        }
    }

    pub(crate) fn rule(&self) -> OptimizerKind {
        match self.optimizer.as_str() {
            "sgd" => OptimizerKind::sgd(self.momentum),
            "rmsprop" => OptimizerKind::rmsprop(self.momentum),
            _ => OptimizerKind::adam(),
        }
    }

    /// The loss by its name, with Keras' gradient for rows of several flags, and void pixels
    /// ignored. An error where there is no such loss.
    pub fn loss(&self) -> Result<Loss> {
        Ok(match self.loss.parse()? {
            Loss::CategoricalCrossentropy { .. } => {
                Loss::CategoricalCrossentropy { gradient: Some(CategoricalGradient::Keras) }
            }
            Loss::SparseCategoricalCrossentropy { .. } => {
                Loss::SparseCategoricalCrossentropy { ignore: Some(VOID as i64) }
            }
            other => other,
        })
    }

    /// How samples are scored: fitted into the square, nothing random.
    pub fn scoring_transforms(&self) -> Transforms {
        Transforms {
            fit: self.fit,
            preprocess: self.preprocess,
            masks: self.network.segments(),
            mask_resize: match self.blended_masks {
                true => MaskResize::Bilinear { classes: self.classes.len() },
                false => MaskResize::Nearest,
            },
            ..Transforms::plain(self.network.size)
        }
    }

    /// Loads samples in their order, as they are scored.
    pub fn scoring_loader(&self, dataset: &Arc<dyn Dataset>, indices: Vec<usize>) -> Loader {
        let loader = Loader::new(dataset.clone(), self.scoring_transforms(), self.batch_size.min(16));
        Loader { indices, workers: 2, ..loader }
    }

    /// Loads the plan's training samples with its order, batches and augmentation, on so many
    /// threads.
    pub fn training_loader(&self, dataset: &Arc<dyn Dataset>, workers: usize) -> Loader {
        let transforms = self.training_transforms();
        Loader {
            indices: self.train_indices.clone(),
            workers,
            sampling: self.sampling(),
            drop_last: self.drop_last,
            ..Loader::shuffled(dataset.clone(), transforms, self.batch_size, self.seed)
        }
    }

    /// How samples are trained on: as they are scored, and augmented.
    pub fn training_transforms(&self) -> Transforms {
        self.scoring_transforms().augmented(self.augment)
    }

    pub(crate) fn sampling(&self) -> Sampling {
        match (self.balanced, self.shuffle) {
            (true, _) => Sampling::Balanced,
            (false, true) => Sampling::Shuffle,
            (false, false) => Sampling::Sequential,
        }
    }

    /// How many of the base's layers are frozen in an epoch (counted from 0).
    pub(crate) fn frozen_layers(&self, base: usize, epoch: usize) -> usize {
        let last = self.unfreeze.iter().rev().find(|unfreeze| unfreeze.epoch <= epoch);
        match (last, self.unfreeze.is_empty()) {
            (Some(unfreeze), _) => base.saturating_sub(unfreeze.layers),
            (None, false) => base,
            (None, true) => 0,
        }
    }
}
