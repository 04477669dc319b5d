//! Training options: from the command line, else from `--config FILE.toml`, else the default.

use super::values::{augmentations, names, networks};
use atrous::data::Dataset;
use atrous::data::image::Fit;
use atrous::error::did_you_mean;
use atrous::files::explain;
use atrous::losses::Loss;
use atrous::models::{self, Spec};
use atrous::nn::Graph;
use atrous::optimizers::OptimizerKind;
use atrous::train::{MonitorMetric, Plateau, Preset, Schedule, TrainConfig, Unfreeze};
use atrous::{Error, Result};
use clap::{Args, ValueHint};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Every field is optional, so that a file can fill in what the command line leaves out. In the
/// file the names are the flags', with `_` for `-`.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// What the other options are by default [default: best]
    ///
    /// best: heads of one sigmoid a class, schedules, the range of values that the weights expect. notebook:
    /// as the notebook had it that this pipeline replaces.
    #[arg(long, value_name = "NAME", value_parser = names(&Preset::NAMES))]
    pub preset: Option<String>,
    /// The network [default: alexnet; deeplabv3plus for masks]
    #[arg(long, value_name = "NAME", value_parser = networks(), help_heading = NETWORK)]
    pub model: Option<String>,
    /// What stands on a base [default: the preset's]
    ///
    /// pooled: global average pool, dropout, one sigmoid a class. notebook: the layers the notebook had.
    #[arg(long, value_name = "NAME", value_parser = names(&["pooled", "notebook"]), help_heading = NETWORK)]
    pub head: Option<String>,
    /// Pre-trained weights of the base [default: at random]
    ///
    /// A .h5, .keras, .safetensors or .npz file; `atrous weights inspect` tells what of it fits.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = NETWORK)]
    pub weights: Option<PathBuf>,
    /// The base's last layers that train [default: 0 with --weights, else all]
    ///
    /// A number, `all`, a layer's name, or a schedule like `0:0,5:20,10:all`: from epoch 5 on the last 20,
    /// from epoch 10 on all. Of a network for masks all are trained by default, with --weights, too.
    #[arg(long, value_name = "LAYERS", help_heading = NETWORK)]
    pub unfreeze: Option<String>,
    /// The base's batch norms keep their statistics [default: false]
    #[arg(long, value_name = "BOOL", help_heading = NETWORK)]
    pub freeze_batch_norm: Option<bool>,
    /// Share of batch norms' statistics that a step keeps [default: 0.9]
    ///
    /// With --weights or the notebook's preset the default is the network's own.
    #[arg(long, value_name = "SHARE", help_heading = NETWORK)]
    pub batch_norm_momentum: Option<f32>,
    /// Side of the square the images are fitted into [default: the network's own]
    #[arg(long, value_name = "PIXELS", help_heading = IMAGES)]
    pub size: Option<usize>,
    /// Whether images keep their proportions [default: pad; stretch for masks]
    #[arg(long, value_name = "NAME", value_parser = names(&["pad", "stretch"]), help_heading = IMAGES)]
    pub fit: Option<String>,
    /// How training images vary [default: the preset's]
    #[arg(long, value_name = "NAME", value_parser = augmentations(), help_heading = IMAGES)]
    pub augment: Option<String>,
    /// Share of the training images kept for validation [default: 0.1]
    ///
    /// Where the data have a split of their own, that is the default.
    #[arg(long, value_name = "SHARE", help_heading = IMAGES)]
    pub val_fraction: Option<f64>,
    /// Show images of rare classes oftener [default: false]
    #[arg(long, value_name = "BOOL", help_heading = IMAGES)]
    pub balanced: Option<bool>,
    /// Threads that read and augment images ahead of time [default: 2]
    #[arg(long, value_name = "N", help_heading = IMAGES)]
    pub workers: Option<usize>,
    /// Passes over the training images [default: the preset's]
    #[arg(long, value_name = "N", help_heading = TRAINING)]
    pub epochs: Option<usize>,
    /// Images a step [default: the preset's]
    #[arg(long, value_name = "N", help_heading = TRAINING)]
    pub batch_size: Option<usize>,
    /// The update rule [default: the preset's]
    #[arg(long, value_name = "NAME", value_parser = names(&OptimizerKind::NAMES), help_heading = TRAINING)]
    pub optimizer: Option<String>,
    /// Length of a step [default: the preset's]
    ///
    /// With another optimizer than the preset's it is 0.001; 0.01 with sgd.
    #[arg(long, value_name = "RATE", help_heading = TRAINING)]
    pub learning_rate: Option<f32>,
    /// Times the learning rate for the layers of the base [default: 1]
    #[arg(long, value_name = "FACTOR", help_heading = TRAINING)]
    pub base_rate: Option<f32>,
    /// How the learning rate goes on [default: the preset's]
    #[arg(long, value_name = "NAME", value_parser = names(&["constant", "cosine"]), help_heading = TRAINING)]
    pub schedule: Option<String>,
    /// Epochs in which the rate climbs to its full height [default: the preset's]
    #[arg(long, value_name = "EPOCHS", help_heading = TRAINING)]
    pub warmup: Option<f32>,
    /// Share of the last update that goes on, of sgd and rmsprop [default: the preset's]
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    pub momentum: Option<f64>,
    /// Scale gradients down to this length all together [default: off]
    #[arg(long, value_name = "NORM", help_heading = TRAINING)]
    pub clip_norm: Option<f32>,
    /// Halve the rate where the validation loss stays [default: the preset's]
    #[arg(long, value_name = "BOOL", help_heading = TRAINING)]
    pub plateau: Option<bool>,
    /// Epochs without a better validation to stop after [default: the preset's]
    #[arg(long, value_name = "EPOCHS", help_heading = TRAINING)]
    pub patience: Option<usize>,
    /// What tells the best epoch: loss, or score (mAP, mean IoU) [default: the preset's]
    #[arg(long, value_name = "NAME", value_parser = names(&["loss", "score"]), help_heading = TRAINING)]
    pub monitor: Option<String>,
    /// The same seed gives the same bits, on any number of threads [default: 0]
    #[arg(long, value_name = "N", help_heading = TRAINING)]
    pub seed: Option<u64>,
    /// Save the run every so many steps, too; 0: after epochs alone [default: 50]
    #[arg(long, value_name = "N", help_heading = TRAINING)]
    pub checkpoint_steps: Option<usize>,
    /// What is minimised [default: the preset's]
    ///
    /// categorical_crossentropy comes with Keras' gradient; the sparse one is for masks.
    #[arg(long, value_name = "NAME", value_parser = names(&Loss::NAMES), help_heading = LOSS)]
    pub loss: Option<String>,
    /// An image is of one class: softmax and accuracy [default: what the labels say]
    ///
    /// Else each class has a probability by itself, and mAP tells how good they are.
    #[arg(long, value_name = "BOOL", help_heading = LOSS)]
    pub exclusive: Option<bool>,
    /// Share of a label that is spread over all classes [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = LOSS)]
    pub label_smoothing: Option<f32>,
    /// Focal loss: what is right already counts for little [default: 0, off]
    #[arg(long, value_name = "GAMMA", help_heading = LOSS)]
    pub focal: Option<f32>,
    /// Weigh rare classes up [default: the preset's]
    #[arg(long, value_name = "BOOL", help_heading = LOSS)]
    pub class_weights: Option<bool>,
}

/// Sections of the help.
const NETWORK: &str = "Network";
const IMAGES: &str = "Images";
const TRAINING: &str = "Training";
const LOSS: &str = "Loss";

#[derive(Args, Clone, Debug, Default)]
pub struct Configured {
    #[command(flatten)]
    pub options: TrainOptions,
    /// A TOML file with options of training, like `batch_size = 32` [default: none]
    ///
    /// Any of --preset and of those in the sections Network, Images, Training and Loss. The command line goes
    /// before the file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl Configured {
    /// The options of the command line, filled up from the file.
    pub fn read(&self) -> Result<TrainOptions> {
        let file = match &self.config {
            Some(path) => from_file(path)?,
            None => TrainOptions::default(),
        };
        Ok(self.options.clone().or(file))
    }
}

/// Training options of a command that trains for both tasks.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskOptions {
    /// What the other options are by default [default: best]
    #[arg(long, help_heading = TRAINING, value_name = "NAME", value_parser = names(&Preset::NAMES))]
    pub preset: Option<String>,
    /// Passes over the training images, for both networks [default: the preset's]
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    pub epochs: Option<usize>,
    /// Share of the training images kept for validation [default: 0.1]
    ///
    /// Where the data have a split of their own, that is the default.
    #[arg(long, help_heading = TRAINING, value_name = "SHARE")]
    pub val_fraction: Option<f64>,
    /// The same seed gives the same bits, on any number of threads [default: 0]
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    pub seed: Option<u64>,
    /// An option of `atrous train classify`, any number of times [default: none]
    ///
    /// Like `--classify epochs=30 --classify model=mobilenetv2`.
    #[arg(long, help_heading = TRAINING, value_name = "OPTION=VALUE")]
    pub classify: Vec<String>,
    /// An option of `atrous train segment`, any number of times [default: none]
    ///
    /// Like `--segment weights=mobilenet.h5`.
    #[arg(long, help_heading = TRAINING, value_name = "OPTION=VALUE")]
    pub segment: Vec<String>,
    /// A TOML file with such options [default: none]
    ///
    /// Options for both like `seed = 1`, and those for one network under `[classify]` and `[segment]`. The
    /// command line goes before the file.
    #[arg(long, help_heading = TRAINING, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

impl TaskOptions {
    /// The options of one task: its own, else those for both, else the file's in the same order.
    pub fn of(&self, segments: bool) -> Result<TrainOptions> {
        let (name, pairs) = match segments {
            false => ("classify", &self.classify),
            true => ("segment", &self.segment),
        };
        let mut options = TrainOptions::default();
        for pair in pairs {
            options = from_pair(pair)
                .map_err(|message| {
                    Error::argument(if segments { "--segment" } else { "--classify" }, message)
                })?
                .or(options);
        }
        let both = TrainOptions {
            preset: self.preset.clone(),
            epochs: self.epochs,
            val_fraction: self.val_fraction,
            seed: self.seed,
            ..TrainOptions::default()
        };
        options = options.or(both);
        let Some(path) = &self.config else { return Ok(options) };
        let wrong = |error: toml::de::Error| Error::file(path, told(&error));
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, explain(&error)))?;
        let mut both: toml::Table = toml::from_str(&text).map_err(wrong)?;
        let mut tables = ["classify", "segment"].map(|task| both.remove(task));
        let own = tables[segments as usize].take().unwrap_or(toml::Value::Table(Default::default()));
        let own: TrainOptions = own.try_into().map_err(|error: toml::de::Error| {
            Error::file(path, format!("[{name}]: {}", told(&error)))
        })?;
        let both: TrainOptions = both.try_into().map_err(wrong)?;
        Ok(options.or(own).or(both))
    }
}

/// `epochs=30`, `weights=a.h5`: a value that is no TOML is a text without its quotes.
fn from_pair(pair: &str) -> Result<TrainOptions, String> {
    let Some((key, value)) = pair.split_once('=') else {
        return Err(format!("expected OPTION=VALUE, got `{pair}`"));
    };
    let key = key.trim().trim_start_matches("--").replace('-', "_");
    let with = |value: toml::Value| {
        toml::Value::Table(toml::Table::from_iter([(key.clone(), value)])).try_into::<TrainOptions>()
    };
    let text = || with(toml::Value::String(value.into()));
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let read = match parsed.and_then(|mut table| table.remove("value")) {
        // A layer's count or a schedule is a text that may look like a number.
        Some(parsed) => with(parsed).or_else(|error| text().map_err(|_| error)),
        None => text(),
    };
    read.map_err(|error| format!("`{pair}`: {}", told(&error)))
}

/// What is wrong with a file, and what was perhaps meant where an option is not known.
fn told(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let unknown = text.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`'));
    let options = TrainOptions::augment_args(clap::Command::new("options"));
    let names = options.get_arguments().map(|option| option.get_id().as_str());
    let meant = unknown.map_or(String::new(), |(name, _)| did_you_mean(name, names));
    format!("{}{meant}", text.trim_end())
}

fn from_file(path: &Path) -> Result<TrainOptions> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, explain(&error)))?;
    toml::from_str(&text).map_err(|error| Error::file(path, told(&error)))
}

impl TrainOptions {
    /// Takes from `other` what is missing here.
    pub fn or(self, other: Self) -> Self {
        TrainOptions {
            model: self.model.or(other.model),
            preset: self.preset.or(other.preset),
            head: self.head.or(other.head),
            weights: self.weights.or(other.weights),
            unfreeze: self.unfreeze.or(other.unfreeze),
            freeze_batch_norm: self.freeze_batch_norm.or(other.freeze_batch_norm),
            batch_norm_momentum: self.batch_norm_momentum.or(other.batch_norm_momentum),
            size: self.size.or(other.size),
            fit: self.fit.or(other.fit),
            epochs: self.epochs.or(other.epochs),
            batch_size: self.batch_size.or(other.batch_size),
            learning_rate: self.learning_rate.or(other.learning_rate),
            base_rate: self.base_rate.or(other.base_rate),
            schedule: self.schedule.or(other.schedule),
            warmup: self.warmup.or(other.warmup),
            optimizer: self.optimizer.or(other.optimizer),
            momentum: self.momentum.or(other.momentum),
            clip_norm: self.clip_norm.or(other.clip_norm),
            loss: self.loss.or(other.loss),
            exclusive: self.exclusive.or(other.exclusive),
            label_smoothing: self.label_smoothing.or(other.label_smoothing),
            focal: self.focal.or(other.focal),
            val_fraction: self.val_fraction.or(other.val_fraction),
            augment: self.augment.or(other.augment),
            balanced: self.balanced.or(other.balanced),
            class_weights: self.class_weights.or(other.class_weights),
            patience: self.patience.or(other.patience),
            plateau: self.plateau.or(other.plateau),
            monitor: self.monitor.or(other.monitor),
            seed: self.seed.or(other.seed),
            checkpoint_steps: self.checkpoint_steps.or(other.checkpoint_steps),
            workers: self.workers.or(other.workers),
        }
    }

    /// The preset's plan for the network and the data, before anything else is said.
    pub fn preset(&self, segments: bool, data: &dyn Dataset) -> Result<Preset> {
        let default = if segments { "deeplabv3plus" } else { "alexnet" };
        let name = self.model.as_deref().unwrap_or(default);
        let size = self.size.unwrap_or(models::default_side(name));
        let spec = Spec::new(name, size, data.classes().len() + segments as usize);
        spec.graph()?;
        if spec.segments() != segments {
            let (is, command) = match segments {
                true => ("labels pictures, not pixels", "classify"),
                false => ("labels pixels, not pictures", "segment"),
            };
            let message = format!("`{name}` {is}: see `atrous train {command}`");
            return Err(Error::argument("--model", message));
        }
        let preset = self.preset.as_deref().unwrap_or(Preset::NAMES[0]);
        let mut preset = Preset::new(preset, spec, self.weights.is_some())?;
        preset.config.classes = data.classes().clone();
        if !segments && self.exclusive.unwrap_or(data.exclusive()) {
            preset.config.exclusive = true;
            preset.config.loss = "categorical_crossentropy".into();
        }
        Ok(preset)
    }

    /// Puts into the plan what was said.
    pub fn apply(&self, config: &mut TrainConfig) -> Result<()> {
        let o = self;
        if let Some(preset) = &o.preset {
            config.preset.clone_from(preset);
        }
        config.val_fraction = o.val_fraction.or(config.val_fraction);
        let set = |slot: &mut usize, value: Option<usize>| value.into_iter().for_each(|v| *slot = v);
        if let Some(model) = &o.model {
            config.network.name.clone_from(model);
        }
        set(&mut config.network.size, o.size);
        if let Some(head) = &o.head {
            config.network.head = head.parse()?;
        }
        if let Some(weights) = &o.weights {
            config.weights = weights.file_name().map(|name| name.to_string_lossy().into_owned());
        }
        if let Some(unfreeze) = &o.unfreeze {
            config.unfreeze = unfreeze_schedule(unfreeze, &config.network.graph()?)?;
        }
        if let Some(fit) = &o.fit {
            config.fit = named("--fit", fit, [("pad", Fit::Pad), ("stretch", Fit::Stretch)])?;
        }
        if let Some(name) = &o.schedule {
            let known = [("constant", Schedule::Constant), ("cosine", Schedule::Cosine)];
            config.schedule = named("--schedule", name, known)?;
        }
        if let Some(name) = &o.monitor {
            config.monitor = named(
                "--monitor",
                name,
                [("loss", MonitorMetric::Loss), ("score", MonitorMetric::Score)],
            )?;
        }
        if let Some(augment) = &o.augment {
            config.augment = augment.parse()?;
        }
        set(&mut config.epochs, o.epochs);
        set(&mut config.batch_size, o.batch_size);
        if let Some(optimizer) = &o.optimizer
            && *optimizer != config.optimizer
        {
            config.optimizer.clone_from(optimizer);
            config.learning_rate = if optimizer == "sgd" { 0.01 } else { 0.001 };
            config.momentum = 0.0;
        }
        config.exclusive = o.exclusive.unwrap_or(config.exclusive);
        if let Some(loss) = &o.loss {
            config.loss.clone_from(loss);
        }
        if let Some(plateau) = o.plateau {
            config.plateau = plateau.then(Plateau::default);
        }
        config.batch_norm_momentum = o.batch_norm_momentum.or(config.batch_norm_momentum);
        config.patience = o.patience.or(config.patience);
        config.clip_norm = o.clip_norm.or(config.clip_norm);
        config.learning_rate = o.learning_rate.unwrap_or(config.learning_rate);
        config.base_rate = o.base_rate.unwrap_or(config.base_rate);
        config.warmup = o.warmup.unwrap_or(config.warmup);
        config.momentum = o.momentum.unwrap_or(config.momentum);
        config.label_smoothing = o.label_smoothing.unwrap_or(config.label_smoothing);
        config.focal = o.focal.unwrap_or(config.focal);
        config.balanced = o.balanced.unwrap_or(config.balanced);
        config.freeze_batch_norm = o.freeze_batch_norm.unwrap_or(config.freeze_batch_norm);
        config.seed = o.seed.unwrap_or(config.seed);
        Ok(())
    }
}

fn named<T: Copy>(flag: &'static str, name: &str, known: [(&str, T); 2]) -> Result<T> {
    known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let message = format!("expected `{}` or `{}`, got `{name}`", known[0].0, known[1].0);
        Error::argument(flag, message)
    })
}

/// `20`, `all`, `block_13_expand`, or `0:0,5:20,10:all`.
fn unfreeze_schedule(text: &str, graph: &Graph) -> Result<Vec<Unfreeze>> {
    let base = graph.base();
    let layers = |what: &str| match what {
        "all" => Ok(base.len()),
        number if number.bytes().all(|b| b.is_ascii_digit()) && !number.is_empty() => {
            number.parse().map_err(|_| Error::argument("--unfreeze", format!("`{number}` is too large")))
        }
        name => match base.iter().position(|node| node.name == name) {
            Some(at) => Ok(base.len() - at),
            None => {
                let meant = did_you_mean(name, base.iter().map(|node| node.name.as_str()));
                let message = format!(
                    "expected a number, `all`, or a layer of `{}`'s base, got `{name}`{meant}",
                    graph.name
                );
                Err(Error::argument("--unfreeze", message))
            }
        },
    };
    let part = |part: &str| {
        let (epoch, what) = part.split_once(':').unwrap_or(("0", part));
        let epoch = epoch.parse().map_err(|_| {
            Error::argument("--unfreeze", format!("expected EPOCH:LAYERS, got `{part}`"))
        })?;
        Ok(Unfreeze { epoch, layers: layers(what)? })
    };
    text.split(',').map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_unfrozen_by_number_by_name_and_by_schedule() {
        let graph = models::by_name("mobilenetv2", 96, 20).unwrap();
        let of = |text| {
            let all = unfreeze_schedule(text, &graph).unwrap();
            all.iter().map(|u| (u.epoch, u.layers)).collect::<Vec<_>>()
        };
        assert_eq!(of("3"), [(0, 3)]);
        assert_eq!(of("out_relu"), [(0, 1)]);
        assert_eq!(of("0:0,5:Conv_1,9:all"), [(0, 0), (5, 3), (9, 154)]);
        for wrong in ["", "x:3", "dense", "-1"] {
            let error = unfreeze_schedule(wrong, &graph).unwrap_err().to_string();
            assert!(error.contains("--unfreeze"), "{error}");
        }
    }

    #[test]
    fn each_task_takes_its_own_options_before_those_for_both() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let text =
            "seed = 3\nepochs = 7\n[segment]\nsize = 64\nepochs = 8\n[classify]\nhead = \"pooled\"\n";
        std::fs::write(&path, text).unwrap();
        let pairs = |all: &[&str]| all.iter().map(|pair| pair.to_string()).collect();
        let options = TaskOptions {
            classify: pairs(&["epochs=2", "weights=a b.h5", "unfreeze=3", "batch-size=8"]),
            segment: pairs(&["augment=none", "--flip=true"]),
            config: Some(path),
            ..TaskOptions::default()
        };
        let classify = options.of(false).unwrap();
        assert_eq!((classify.epochs, classify.seed, classify.size), (Some(2), Some(3), None));
        assert_eq!(classify.weights.as_deref(), Some(Path::new("a b.h5")));
        assert_eq!((classify.unfreeze.as_deref(), classify.batch_size), (Some("3"), Some(8)));
        assert_eq!(classify.head.as_deref(), Some("pooled"));
        let error = options.of(true).unwrap_err().to_string();
        assert!(error.contains("--segment") && error.contains("flip"), "{error}");
        let options = TaskOptions { segment: pairs(&["augment=none"]), ..options };
        let segment = options.of(true).unwrap();
        assert_eq!((segment.epochs, segment.size, segment.seed), (Some(8), Some(64), Some(3)));
        for wrong in ["epochs", "epochs=many", "epoch=3"] {
            let options = TaskOptions { classify: pairs(&[wrong]), ..TaskOptions::default() };
            let error = options.of(false).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("--classify"), "{error}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "epochs = 3\nbatch_size = 8\noptimizer = \"sgd\"\n").unwrap();
        let options = TrainOptions { epochs: Some(5), ..Default::default() };
        let read = Configured { options, config: Some(path.clone()) }.read().unwrap();
        assert_eq!((read.epochs, read.batch_size), (Some(5), Some(8)));
        std::fs::write(&path, "epoch = 3\n").unwrap();
        let error = Configured { options: Default::default(), config: Some(path) }.read().unwrap_err();
        assert!(error.to_string().ends_with("; did you mean `epochs`?"), "{error}");
    }
}
