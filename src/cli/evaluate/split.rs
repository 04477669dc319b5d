//! Which pictures are scored, and what the network has to do with them.

use crate::cli::train::open;
use atrous::data::Dataset;
use atrous::data::source::{Joined, Layout, Source};
use atrous::data::usable::Usable;
use atrous::eval::baselines::TrainingSet;
use atrous::files::explain;
use atrous::predict::Trained;
use atrous::train::TrainConfig;
use atrous::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// What training kept for validation.
    Validation,
    /// Every picture of the folder whose truth is known.
    All,
    /// Those of a file with an Id a line.
    List(PathBuf),
}

impl FromStr for Split {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "val" => Split::Validation,
            "all" => Split::All,
            path => Split::List(path.into()),
        })
    }
}

/// Pictures to score a network on.
pub struct Subjects {
    pub split: Split,
    pub dataset: Arc<dyn Dataset>,
    pub indices: Vec<usize>,
    /// Those of them that the network was trained on, and that told its best epoch.
    trained_on: HashSet<usize>,
    validated_on: HashSet<usize>,
    /// The checkpoint says what its samples are.
    told: bool,
    /// The run's samples, where they are all in the folder.
    run: Option<Arc<dyn Dataset>>,
}

/// Some of the pictures, scored together.
pub struct Part {
    pub kind: &'static str,
    pub indices: Vec<usize>,
}

impl Subjects {
    pub fn of(trained: &Trained, data: &Path, split: &Split) -> Result<Self> {
        let config = &trained.config;
        let masks = config.network.segments();
        let folder = open(data, masks)?.dataset;
        config.check_classes(&*folder, &trained.path)?;
        if *split == Split::Validation {
            let dataset = config.find_samples(&folder, &trained.path)?;
            let indices = config.val_indices.clone();
            let validated_on = indices.iter().copied().collect();
            let run = Some(dataset.clone());
            let split = split.clone();
            return Ok(Subjects {
                split,
                dataset,
                indices,
                trained_on: HashSet::new(),
                validated_on,
                told: true,
                run,
            });
        }
        let dataset = with_test(data, folder.clone())?;
        let wanted = match split {
            Split::List(path) => listed(&*dataset, path, masks)?,
            _ => (0..dataset.len()).collect(),
        };
        let usable = Usable::of(&*dataset, &wanted, masks)?;
        if let Some(left_out) = usable.left_out(masks) {
            println!("left out: {left_out}");
        }
        let indices = usable.indices;
        if indices.is_empty() {
            let what = if masks { "a mask" } else { "labels" };
            let message = format!("expected pictures with {what}, got none among {}", wanted.len());
            return Err(Error::file(data, message));
        }
        let numbers = config.samples.numbers(&*dataset, &indices)?;
        let within = |set: &[usize]| -> HashSet<usize> {
            let set: HashSet<usize> = set.iter().copied().collect();
            let known = indices.iter().zip(&numbers);
            known.filter(|(_, n)| n.is_some_and(|n| set.contains(&n))).map(|(&i, _)| i).collect()
        };
        let (trained_on, validated_on) = (within(&config.train_indices), within(&config.val_indices));
        // Whose Ids are there by chance is not the run's folder; then controls have nothing to learn from.
        let run = config.find_samples(&folder, &trained.path).ok();
        let split = split.clone();
        let told = !config.samples.samples.is_empty();
        Ok(Subjects { split, dataset, indices, trained_on, validated_on, told, run })
    }

    /// How many of the pictures the network was trained on, in words; None for the run's own validation.
    pub fn known_to_the_network(&self) -> Option<String> {
        if self.split == Split::Validation {
            return None;
        }
        let (all, trained, chosen) =
            (self.indices.len(), self.trained_on.len(), self.validated_on.len());
        if !self.told {
            return Some(format!(
                "of {all} pictures it is not known which it was trained on: its checkpoint does not say"
            ));
        }
        let new = all - trained - chosen;
        Some(format!(
            "of {all} pictures it was trained on {trained}, {chosen} told its best epoch, {new} are new to it"
        ))
    }

    /// All of them, and those alone that it was not trained on where that is only a part.
    pub fn parts(&self) -> Vec<Part> {
        let kind = match self.split {
            Split::Validation => "validation pictures",
            _ if self.trained_on.is_empty() => "pictures",
            _ if self.trained_on.len() == self.indices.len() => "pictures that it was trained on",
            _ => "pictures, some of which it was trained on",
        };
        let mut parts = vec![Part { kind, indices: self.indices.clone() }];
        let rest = self.indices.iter().copied().filter(|i| !self.trained_on.contains(i));
        let rest: Vec<usize> = rest.collect();
        if !rest.is_empty() && rest.len() < self.indices.len() {
            parts.push(Part { kind: "pictures that it was not trained on", indices: rest });
        }
        parts
    }

    /// What the controls learn from: what the network did, where it is in the folder.
    pub fn lessons<'a>(&'a self, config: &'a TrainConfig) -> Option<TrainingSet<'a>> {
        let dataset = &**self.run.as_ref()?;
        Some(TrainingSet { dataset, indices: &config.train_indices })
    }
}

/// The folder's pictures, those for testing after the others where it has such.
fn with_test(data: &Path, folder: Arc<dyn Dataset>) -> Result<Arc<dyn Dataset>> {
    let source = Source::open(data)?;
    let task = source.natural_task();
    Ok(match (source.has_test(task), source.layout) {
        (false, _) => folder,
        // The competition's test pictures have files, and Ids, of their own; VOC's lists share both.
        (true, Layout::VocNpy | Layout::Own(_)) => {
            Arc::new(Joined::new(vec![folder, source.test(task)?])?)
        }
        (true, Layout::VocDevkit) => Arc::new(Joined::each_once(vec![folder, source.test(task)?])?),
    })
}

/// The pictures that a list names, an Id a line.
fn listed(dataset: &dyn Dataset, path: &Path, masks: bool) -> Result<Vec<usize>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::file(
            path,
            format!("expected `val`, `all`, or a file with an Id a line: {}", explain(&error)),
        )
    })?;
    // A test picture may have the Id of a training picture; its truth is not known, so it is not meant.
    let has_truth = |&index: &usize| match masks {
        true => dataset.has_mask(index),
        false => dataset.labels(index).is_some(),
    };
    let (first, last): (Vec<usize>, Vec<usize>) = (0..dataset.len()).partition(has_truth);
    let mut known: HashMap<String, Vec<usize>> = HashMap::new();
    first.into_iter().for_each(|index| known.entry(dataset.id(index)).or_default().push(index));
    last.into_iter().for_each(|index| _ = known.entry(dataset.id(index)).or_insert(vec![index]));
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for (line, id) in text.replace("\r\n", "\n").split(['\n', '\r']).enumerate() {
        let wrong = |message: String| {
            let path = path.to_owned();
            Err(Error::Row { path, line: line + 1, column: None, message })
        };
        let id = id.trim_start_matches('\u{feff}').trim();
        match known.get(id).map(Vec::as_slice) {
            _ if id.is_empty() => {}
            _ if !seen.insert(id) => return wrong(format!("`{id}` was in the list before")),
            Some(&[index]) => found.push(index),
            Some(_) => return wrong(format!("`{id}` is in the folder more than once")),
            None => return wrong(format!("expected the Id of a picture of the folder, got `{id}`")),
        }
    }
    match found.is_empty() {
        true => Err(Error::file(path, "expected an Id a line, got an empty file")),
        false => Ok(found),
    }
}
