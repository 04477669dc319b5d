//! Recipes by name: the plan a network is trained by where nothing else is said.

use super::callbacks::{Plateau, Schedule};
use super::config::{MonitorMetric, TrainConfig, Unfreeze};
use crate::data::image::Preprocess;
use crate::data::transforms::Augment;
use crate::error::{Error, Result};
use crate::models::{Head, Spec};

/// A plan without samples, and whether classes are weighed by how rare they are.
///
/// ```
/// use atrous::models::{Head, Spec};
/// use atrous::train::{MonitorMetric, Preset, Schedule};
///
/// let network = || Spec::new("mobilenetv2", 96, 20);
/// let best = Preset::new("best", network(), false)?.config;
/// assert_eq!((best.network.head, best.schedule), (Head::Pooled, Schedule::Cosine));
/// assert_eq!(best.monitor, MonitorMetric::Score);
/// assert!(best.train_indices.is_empty()); // the samples are still to be named
/// let notebook = Preset::new("notebook", network(), false)?.config;
/// assert_eq!((notebook.batch_size, notebook.optimizer.as_str()), (64, "rmsprop"));
/// assert_eq!(Preset::NAMES, ["best", "notebook"]);
/// assert!(Preset::new("good", network(), false).is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Preset {
    /// Complete but for the samples.
    pub config: TrainConfig,
    /// Whether rare classes weigh more in the loss.
    pub class_weights: bool,
}

impl Preset {
    /// `best`: heads of one sigmoid a class, the range of values that the weights expect, schedules.
    /// `notebook`: as the notebook this pipeline replaces had it, for comparison.
    pub const NAMES: [&'static str; 2] = ["best", "notebook"];

    /// The plan of that name for a network. `pretrained`: the base's weights come from a file, so
    /// that it can stay as it is. An error where there is no such preset.
    pub fn new(name: &str, mut network: Spec, pretrained: bool) -> Result<Self> {
        if !Preset::NAMES.contains(&name) {
            return Err(Error::unknown("preset", name, &Preset::NAMES));
        }
        let scratch = network.name == "alexnet";
        if name == "best" && !(scratch || network.segments()) {
            network.head = Head::Pooled;
        }
        let frozen = match pretrained && !scratch && !network.segments() {
            true => vec![Unfreeze { epoch: 0, layers: 0 }],
            false => Vec::new(),
        };
        let config = TrainConfig { unfreeze: frozen, preset: name.into(), ..TrainConfig::new(network) };
        let name_of = config.network.name.clone();
        let best = |learning_rate| TrainConfig {
            learning_rate,
            schedule: Schedule::Cosine,
            monitor: MonitorMetric::Score,
            // A run from random weights has too few steps for statistics as slow as the networks'.
            batch_norm_momentum: (!pretrained).then_some(0.9),
            ..config.clone()
        };
        let config = match (name, name_of.as_str()) {
            ("notebook", "alexnet") => TrainConfig { epochs: 150, drop_last: true, ..config },
            ("notebook", "vgg16") => TrainConfig {
                batch_size: 10,
                learning_rate: 1e-4,
                momentum: 0.9,
                optimizer: "sgd".into(),
                loss: "categorical_crossentropy".into(),
                preprocess: Preprocess::Unit,
                epochs: 20,
                ..config
            },
            ("notebook", "resnet50v2") => TrainConfig {
                batch_size: 64,
                learning_rate: 0.01,
                optimizer: "sgd".into(),
                preprocess: Preprocess::Unit,
                epochs: 20,
                ..config
            },
            ("notebook", "mobilenet" | "mobilenetv2") => TrainConfig {
                batch_size: 64,
                optimizer: "rmsprop".into(),
                loss: "categorical_crossentropy".into(),
                preprocess: Preprocess::Unit,
                epochs: 20,
                ..config
            },
            ("notebook", "deeplabv3plus") => TrainConfig {
                learning_rate: 1e-4,
                augment: Augment::None,
                blended_masks: true,
                shuffle: false,
                drop_last: true,
                patience: Some(5),
                plateau: Some(Plateau::default()),
                ..config
            },
            // Small, and still learning when a short run ends: its rate does not fall.
            (_, "alexnet") => TrainConfig { schedule: Schedule::Constant, ..best(1e-3) },
            (_, "deeplabv3plus") => {
                // New layers on good features want care, random ones do not.
                TrainConfig { warmup: 0.5, epochs: 8, ..best(if pretrained { 1e-4 } else { 1e-3 }) }
            }
            // Without batch norm, as deep as this, larger steps kill its rectifiers.
            (_, "vgg16") if !pretrained => TrainConfig { batch_size: 32, epochs: 15, ..best(1e-4) },
            // With it, small networks take large ones.
            (_, "mobilenet" | "mobilenetv2") if !pretrained => {
                TrainConfig { batch_size: 32, epochs: 15, ..best(3e-3) }
            }
            // A head alone, on features that stay as they are, takes large steps.
            _ => TrainConfig {
                batch_size: 32,
                epochs: 15,
                ..best(if config.unfreeze.is_empty() { 1e-3 } else { 5e-3 })
            },
        };
        Ok(Preset { class_weights: scratch, config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models;

    #[test]
    fn every_preset_of_every_network_is_a_plan_and_a_graph() {
        for preset in Preset::NAMES {
            for name in models::NAMES {
                let classes = if name == "deeplabv3plus" { 21 } else { 20 };
                let spec = Spec::new(name, models::default_side(name), classes);
                let Preset { config, .. } = Preset::new(preset, spec, true).unwrap();
                config.check().unwrap();
                config.graph().unwrap();
            }
        }
        let spec = Spec::new("alexnet", 150, 20);
        assert!(Preset::new("worst", spec, false).unwrap_err().to_string().contains("worst"));
    }
}
