//! The network of a command that needs no training before: from a checkpoint, or by name with a file of
//! weights, which may have ImageNet's head.

use crate::cli::values::networks;
use atrous::data::Classes;
use atrous::data::image::{Fit, Preprocess};
use atrous::error::did_you_mean;
use atrous::files::explain;
use atrous::models::{self, Head, Spec};
use atrous::nn::Model;
use atrous::predict::{Trained, locate};
use atrous::train::TrainConfig;
use atrous::weights::names::Base;
use atrous::weights::{self, WeightFile};
use atrous::{Error, Result, Tensor};
use clap::{Args, ValueHint};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A network by its name, of a command that has `--checkpoint` too.
#[derive(Args)]
pub struct NamedOptions {
    /// The network
    #[arg(
        help_heading = HEADING,
        long,
        value_name = "NETWORK",
        value_parser = networks(),
        required_unless_present = "checkpoint",
        conflicts_with = "checkpoint"
    )]
    pub model: Option<String>,
    /// Pre-trained weights: .h5, .keras, .safetensors or .npz [default: at random]
    #[arg(long, help_heading = HEADING, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with = "checkpoint")]
    weights: Option<PathBuf>,
    /// Side of the square the image is fitted into [default: the network's own]
    #[arg(long, help_heading = HEADING, value_name = "PIXELS", conflicts_with = "checkpoint")]
    size: Option<usize>,
    /// A text file with a class a line [default: VOC's where there are as many, else numbers]
    ///
    /// The lines are in the order of the network's outputs.
    #[arg(long, help_heading = HEADING, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(visible_alias = "classes")]
    pub class_names: Option<PathBuf>,
}

/// The section of the help.
const HEADING: &str = "Network";

/// One network, either way.
#[derive(Args)]
pub struct NetworkOptions {
    #[command(flatten)]
    named: NamedOptions,
    /// A checkpoint instead, or a folder that `train` left: its best epoch
    #[arg(long, help_heading = HEADING, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    checkpoint: Option<PathBuf>,
}

/// A network with parameters, and how its images are prepared.
pub struct Named {
    pub model: Model,
    /// Its classes are those of the file of names.
    pub config: TrainConfig,
    /// Where the parameters are from.
    pub path: PathBuf,
    /// What there is to say of them.
    words: Vec<String>,
    /// Whether a file had them all.
    whole: bool,
}

/// A network, and what has to be known to show it an image.
pub struct Network {
    pub model: Model,
    pub size: usize,
    pub preprocess: Preprocess,
    pub fit: Fit,
    pub classes: Vec<String>,
    /// What there is to say of its parameters.
    pub words: Vec<String>,
}

impl NamedOptions {
    /// The network with all its parameters from a file. An error where there is none, and where it has no
    /// head that makes classes of the base's features.
    pub fn trained(&self, name: &str) -> Result<Trained> {
        if self.weights.is_none() {
            let message = format!("expected the file with the parameters of `{name}`, got none");
            return Err(Error::argument("--weights", message));
        }
        let Named { model, config, path, words, whole } = self.load(name)?;
        if !whole {
            let task = if config.network.segments() { "segment" } else { "classify" };
            let message = format!(
                "expected all of `{name}`, got its base without a head that makes classes of features; train \
                 one: `atrous train {task} --model {name} --weights {}`",
                path.display()
            );
            return Err(Error::file(path, message));
        }
        words.iter().for_each(|line| println!("{line}"));
        Ok(Trained { model, config, thresholds: None, path, checksum: String::new() })
    }

    /// The network, with parameters from a file where one is given, else as it begins.
    fn load(&self, name: &str) -> Result<Named> {
        let names = self.class_names.as_deref().map(class_names).transpose()?;
        let size = self.size.unwrap_or(models::default_side(name));
        let outputs = names.as_ref().map_or(models::default_classes(name), Vec::len);
        let spec = Spec::new(name, size, outputs);
        spec.graph()?;
        let Some(path) = &self.weights else {
            let words = vec![format!("no --weights: {name} is as it begins, at random")];
            let (config, model) = (config(&spec, names.as_deref())?, Model::new(spec.graph()?, 0));
            return Ok(Named { model, config, path: PathBuf::new(), words, whole: false });
        };
        let file = weights::read(path)?;
        let named = |spec: &Spec, (model, words): (Model, Vec<String>), whole| {
            let mut config = config(spec, names.as_deref())?;
            config.origin = file.origin;
            if let Some(base) = Base::of(&model.graph) {
                config.preprocess = file.origin.preprocess(base);
            }
            Ok(Named { model, config, path: path.to_owned(), words, whole })
        };
        // The file may have a head of its own: ImageNet's, or one that was trained here.
        let imagenet = Spec { head: Head::ImageNet, classes: 1000, ..spec.clone() };
        let pooled = Spec { head: Head::Pooled, ..spec.clone() };
        for whole in [&imagenet, &spec, &pooled] {
            if let Ok(loaded) = with_weights(whole, &file, true) {
                return named(whole, loaded, true);
            }
        }
        named(&spec, with_weights(&spec, &file, false)?, false)
    }
}

impl NetworkOptions {
    pub fn load(&self) -> Result<Network> {
        let mut network = match (&self.checkpoint, &self.named.model) {
            (Some(path), _) => of_checkpoint(path)?,
            (None, Some(name)) => {
                let Named { model, config, words, .. } = self.named.load(name)?;
                return Ok(network(&config, model, words));
            }
            (None, None) => {
                return Err(Error::argument("--model", "expected --model or --checkpoint, got neither"));
            }
        };
        if let Some(path) = &self.named.class_names {
            let (names, expected) = (class_names(path)?, network.classes.len());
            if names.len() != expected {
                let message = format!("expected {expected} lines, one a class, got {}", names.len());
                return Err(Error::file(path, message));
            }
            network.classes = names;
        }
        Ok(network)
    }
}

fn of_checkpoint(path: &Path) -> Result<Network> {
    let file = match &locate(path)?[..] {
        [file] => file.clone(),
        files => {
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            let message = format!("expected one network, got {}: give one of them", names.join(" and "));
            return Err(Error::file(path, message));
        }
    };
    let trained = Trained::load(&file)?;
    Ok(network(&trained.config, trained.model, vec![format!("checkpoint: {}", file.display())]))
}

/// The network with a file's parameters, all of them or those of the base at least, and what there is to
/// say of them.
fn with_weights(spec: &Spec, file: &WeightFile, whole: bool) -> Result<(Model, Vec<String>)> {
    let graph = file.origin.configure(&spec.graph()?)?;
    let (mut model, heads) = match whole {
        // What is read in full need not be drawn at random before.
        true => (Model::with(graph, |_, shape, _| Tensor::zeros(shape)), Vec::new()),
        false => {
            let model = Model::new(graph, 0);
            let heads = weights::heads(&model.graph).into_iter().map(str::to_owned).collect();
            (model, heads)
        }
    };
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let report = weights::load(&mut model, file, &heads)?;
    let mut words = vec![format!(
        "weights: {} of {} numbers from {}",
        report.matched.len(),
        report.numbers,
        file.path.display()
    )];
    let untold = model.parameters.len() - report.matched.len();
    if untold > 0 {
        words.push(format!("note: {untold} parameters of the head are as they begin, at random"));
    }
    words.extend(report.remarks.iter().map(|remark| format!("note: {remark}")));
    Ok((model, words))
}

/// How a network that was not trained here is used: with these names of its outputs, else VOC's or numbers.
fn config(spec: &Spec, names: Option<&[String]>) -> Result<TrainConfig> {
    let mut config = TrainConfig::new(spec.clone());
    config.exclusive = spec.head == Head::ImageNet;
    // A network that labels pixels has the background in front of its classes.
    let background = usize::from(spec.segments());
    config.classes = match names {
        Some(names) if names.len() == spec.classes => Classes::new(&names[background..])?,
        Some(names) => {
            let message = format!("expected {}, one a class, got {}", spec.classes, names.len());
            return Err(Error::argument("--class-names", message));
        }
        None if spec.classes == Classes::voc().len() + background => Classes::voc(),
        None => Classes::new((0..spec.classes - background).map(|class| format!("class {class}")))?,
    };
    Ok(config)
}

fn network(config: &TrainConfig, model: Model, words: Vec<String>) -> Network {
    let background = config.network.segments().then_some("background");
    let classes = background.into_iter().chain(config.classes.iter()).map(str::to_owned).collect();
    Network {
        model,
        size: config.network.size,
        preprocess: config.preprocess,
        fit: config.fit,
        classes,
        words,
    }
}

/// One name a line; numbers of synsets before them, and quotes around the line, are left out. Of two of the
/// same name (ImageNet has two kinds of crane) the second has its synset, or its place, behind it.
fn class_names(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, explain(&error)))?;
    let is_synset =
        |word: &str| word.len() == 9 && word.starts_with('n') && word[1..].parse::<u32>().is_ok();
    let mut seen = HashSet::new();
    let name = |(i, line): (usize, &str)| {
        let line = line.trim().trim_matches('\'').trim();
        let (synset, name) = match line.split_once(' ') {
            Some((synset, name)) if is_synset(synset) => (synset.to_string(), name.trim()),
            _ => (i.to_string(), line),
        };
        match seen.insert(name.to_owned()) {
            true => name.to_owned(),
            false => format!("{name} ({synset})"),
        }
    };
    let names: Vec<String> = text.lines().enumerate().map(name).collect();
    Classes::new(&names).map_err(|error| Error::file(path, error))?;
    Ok(names)
}

impl Network {
    /// A class by its name or number.
    pub fn class(&self, text: &str) -> Result<usize> {
        let named = self.classes.iter().position(|name| name == text);
        let numbered = || text.parse().ok().filter(|&class: &usize| class < self.classes.len());
        named.or_else(numbered).ok_or_else(|| {
            let most = self.classes.len() - 1;
            let names = self.classes.iter().take(21).cloned().collect::<Vec<_>>().join(", ");
            let more = if most > 20 { ", …" } else { "" };
            let meant = did_you_mean(text, self.classes.iter().map(String::as_str));
            let message = format!("expected 0 to {most} or one of {names}{more}, got `{text}`{meant}");
            Error::argument("--class", message)
        })
    }
}
