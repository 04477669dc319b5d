//! The network that is looked into: from a checkpoint, or by name with a file of weights.

use crate::cli::values::networks;
use atrous::data::image::{Fit, Preprocess};
use atrous::error::did_you_mean;
use atrous::files::explain;
use atrous::models::{self, Head, Spec};
use atrous::nn::Model;
use atrous::predict::{Trained, locate};
use atrous::train::TrainConfig;
use atrous::weights::names::Base;
use atrous::weights::{self, WeightFile};
use atrous::{Error, Result};
use clap::{Args, ValueHint};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct NetworkOptions {
    /// The network
    #[arg(
        help_heading = HEADING,
        long,
        value_name = "NETWORK",
        value_parser = networks(),
        required_unless_present = "checkpoint",
        conflicts_with = "checkpoint"
    )]
    model: Option<String>,
    /// A checkpoint instead, or a folder that `train` left: its best epoch
    #[arg(long, help_heading = HEADING, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    #[arg(conflicts_with_all = ["weights", "size"])]
    checkpoint: Option<PathBuf>,
    /// Pre-trained weights: .h5, .keras, .safetensors or .npz [default: at random]
    #[arg(long, help_heading = HEADING, value_name = "FILE", value_hint = ValueHint::FilePath)]
    weights: Option<PathBuf>,
    /// Side of the square the image is fitted into [default: the network's own]
    #[arg(long, help_heading = HEADING, value_name = "PIXELS")]
    size: Option<usize>,
    /// A text file with a class a line [default: VOC's where there are as many, else numbers]
    ///
    /// The lines are in the order of the network's outputs.
    #[arg(long, help_heading = HEADING, value_name = "FILE", value_hint = ValueHint::FilePath)]
    class_names: Option<PathBuf>,
}

/// The section of the help.
const HEADING: &str = "Network";

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

impl NetworkOptions {
    pub fn load(&self) -> Result<Network> {
        let mut network = match (&self.checkpoint, &self.model) {
            (Some(path), _) => of_checkpoint(path)?,
            (None, Some(model)) => self.named(model)?,
            (None, None) => {
                return Err(Error::argument("--model", "expected --model or --checkpoint, got neither"));
            }
        };
        if let Some(path) = &self.class_names {
            network.classes = class_names(path, network.classes.len())?;
        }
        Ok(network)
    }

    /// A network by its name, with weights from a file where one is given.
    fn named(&self, name: &str) -> Result<Network> {
        let size = self.size.unwrap_or(models::default_side(name));
        let spec = Spec::new(name, size, models::default_classes(name));
        spec.graph()?;
        let Some(path) = &self.weights else {
            let words = vec![format!("no --weights: {name} is as it begins, at random")];
            return Ok(network(&TrainConfig::new(spec.clone()), Model::new(spec.graph()?, 0), words));
        };
        let file = weights::read(path)?;
        // A classifier's file may have its own head, of ImageNet's classes.
        let imagenet = Spec { head: Head::ImageNet, classes: 1000, ..spec.clone() };
        if let Ok(loaded) = with_weights(&imagenet, &file, path) {
            return Ok(loaded);
        }
        with_weights(&spec, &file, path)
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

/// The network with a file's weights: of a head for ImageNet all of them, else those of the base.
fn with_weights(spec: &Spec, file: &WeightFile, path: &Path) -> Result<Network> {
    let mut model = Model::new(file.origin.configure(&spec.graph()?)?, 0);
    let heads: Vec<String> = weights::heads(&model.graph).into_iter().map(str::to_string).collect();
    let optional: Vec<&str> = match spec.head {
        Head::ImageNet => Vec::new(),
        _ => heads.iter().map(String::as_str).collect(),
    };
    let report = weights::load(&mut model, file, &optional)?;
    let mut config = TrainConfig::new(spec.clone());
    if let Some(base) = Base::of(&model.graph) {
        config.preprocess = file.origin.preprocess(base);
    }
    let mut words = vec![format!(
        "weights: {} of {} numbers from {}",
        report.matched.len(),
        report.numbers,
        path.display()
    )];
    let untold = model.parameters.len() - report.matched.len();
    if untold > 0 {
        words.push(format!("note: {untold} parameters of the head are as they begin, at random"));
    }
    words.extend(report.remarks.iter().map(|remark| format!("note: {remark}")));
    Ok(network(&config, model, words))
}

fn network(config: &TrainConfig, model: Model, words: Vec<String>) -> Network {
    let Spec { size, classes, .. } = config.network;
    let background = config.network.segments().then(|| "background".to_string());
    let named = background.into_iter().chain(config.classes.iter().map(str::to_owned));
    let names = match classes == config.classes.len() + config.network.segments() as usize {
        true => named.collect(),
        false => (0..classes).map(|class| format!("class {class}")).collect(),
    };
    let (preprocess, fit) = (config.preprocess, config.fit);
    Network { model, size, preprocess, fit, classes: names, words }
}

/// One name a line; numbers of synsets before them, and quotes around the line, are left out.
fn class_names(path: &Path, expected: usize) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, explain(&error)))?;
    let is_synset =
        |word: &str| word.len() == 9 && word.starts_with('n') && word[1..].parse::<u32>().is_ok();
    let name = |line: &str| match line.trim_matches('\'').split_once(' ') {
        Some((synset, name)) if is_synset(synset) => name.to_string(),
        _ => line.to_string(),
    };
    let names: Vec<String> = text.lines().map(name).collect();
    match names.len() == expected {
        true => Ok(names),
        false => Err(Error::file(
            path,
            format!("expected {expected} lines, one a class, got {}", names.len()),
        )),
    }
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
