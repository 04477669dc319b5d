//! What a run is to do: its settings, and which samples it trains on and which it is scored on.

use super::{Job, arithmetic};
use atrous::data::class_weights::balanced;
use atrous::data::manifest::{Manifest, Selected};
use atrous::data::source::Training;
use atrous::data::usable::Usable;
use atrous::data::{Dataset, known_labels};
use atrous::random::{Stream, domain};
use atrous::train::{Preset, TrainConfig};
use atrous::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

impl Job {
    /// A resumed run keeps the plan it began with; options that say otherwise are refused.
    pub(super) fn refuse_changes(&self, path: &Path, config: &TrainConfig) -> Result<()> {
        let mut asked = config.clone();
        self.options.apply(&mut asked)?;
        let mut differs = differing_setting(config, &asked);
        if self.options.class_weights.is_some_and(|w| w != config.class_weights.is_some()) {
            differs = Some("class-weights".into());
        }
        match differs {
            Some(flag) => {
                let message = format!("the run began with another --{flag}; leave it out to go on");
                Err(Error::file(path, message))
            }
            None => Ok(()),
        }
    }

    /// The plan as the options have it, and the samples it numbers.
    pub(super) fn config(&self, words: &mut Vec<String>) -> Result<(TrainConfig, Arc<dyn Dataset>)> {
        let o = &self.options;
        let Preset { mut config, class_weights } = o.preset(self.segments, &*self.data.dataset)?;
        o.apply(&mut config)?;
        config.arithmetic = arithmetic();
        let mut usable = |indices: &[usize], what: &str| -> Result<Vec<usize>> {
            let usable = Usable::of(&*self.data.dataset, indices, self.segments)?;
            let left_out = usable.left_out(self.segments);
            words.extend(left_out.map(|why| format!("left out of the {what} pictures: {why}")));
            Ok(usable.indices)
        };
        let train = usable(&self.data.train, "training")?;
        let (train, val) = match (&self.data.val, o.val_fraction) {
            (Some(val), None) => (train, usable(val, "validation")?),
            (own, share) => {
                let own = own.as_ref().map_or(0, Vec::len);
                if own > 0 {
                    words.push(format!(
                        "--val-fraction: the folder's own {own} validation pictures are not used"
                    ));
                }
                self.split(train, share.unwrap_or(0.1), config.seed)?
            }
        };
        if train.is_empty() {
            let (what, of) = match self.segments {
                true => ("a mask with a pixel that is not void", "masks"),
                false => ("labels (a table's, a class list's, an annotation's or a mask's)", "labels"),
            };
            let message = format!(
                "expected {what} for at least one of {} training pictures, got none: there are no {of} \
                 to learn from",
                self.data.train.len()
            );
            return Err(Error::argument("data", message));
        }
        let mut used = [&train[..], &val].concat();
        used.sort_unstable();
        let numbers =
            |indices: &[usize]| indices.iter().filter_map(|i| used.binary_search(i).ok()).collect();
        (config.train_indices, config.val_indices) = (numbers(&train), numbers(&val));
        let all: Vec<usize> = (0..used.len()).collect();
        let dataset: Arc<dyn Dataset> = Arc::new(Selected::new(self.data.dataset.clone(), used));
        config.samples = Manifest::of(&*dataset, &all, self.segments)?;
        words.extend(copies(&config));
        if !self.segments && o.class_weights.unwrap_or(class_weights) {
            let labels = known_labels(&*dataset, &config.train_indices)?;
            let weights = balanced(labels, config.classes.len());
            config.class_weights = Some(weights.iter().map(|&w| w as f32).collect());
        }
        Ok((config, dataset))
    }

    /// A share of the training pictures, drawn at random, is kept for validation.
    fn split(&self, usable: Vec<usize>, share: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
        if !(0.0..1.0).contains(&share) {
            return Err(Error::argument(
                "--val-fraction",
                format!("expected 0 ≤ share < 1, got {share}"),
            ));
        }
        if self.segments && self.options.preset.as_deref() == Some("notebook") {
            return Ok(notebook_split(&self.data, usable, share));
        }
        // Label 0 keeps this permutation apart from those of the epochs.
        let mut order = Stream::new(seed, &[domain::SHUFFLE]).permutation(usable.len());
        let val = (usable.len() as f64 * share).round() as usize;
        let mut part = |n: usize| {
            let mut part: Vec<usize> = order.drain(..n).map(|i| usable[i]).collect();
            part.sort_unstable();
            part
        };
        let val_indices = part(val);
        let train_indices = part(usable.len() - val);
        if train_indices.is_empty() && !usable.is_empty() {
            let message = format!(
                "of {} labelled pictures {val} are kept for validation, and none is left to train on",
                usable.len()
            );
            return Err(Error::argument("--val-fraction", message));
        }
        Ok((train_indices, val_indices))
    }
}

/// How many validation pictures are training pictures under another Id, in words; None where none is.
fn copies(config: &TrainConfig) -> Option<String> {
    let samples = &config.samples.samples;
    let pixels = |&number: &usize| (samples[number].size, samples[number].pixels);
    let train: HashMap<_, &usize> = config.train_indices.iter().map(|i| (pixels(i), i)).collect();
    let both = config.val_indices.iter().filter_map(|val| Some((val, *train.get(&pixels(val))?)));
    let both: Vec<(&usize, &usize)> = both.collect();
    let &(&val, &of) = both.first()?;
    let [id, of] = [val, of].map(|number| &samples[number].id);
    let (copies, all) = (both.len(), config.val_indices.len());
    Some(format!(
        "{copies} of {all} validation pictures are training pictures under another Id (`{id}` is `{of}`): \
         what they score says nothing of new pictures"
    ))
}

/// As the notebook split its masks: by name, sorted as texts (so that 10 comes before 2), the last
/// for validation.
fn notebook_split(data: &Training, mut usable: Vec<usize>, share: f64) -> (Vec<usize>, Vec<usize>) {
    usable.sort_by_cached_key(|&i| data.dataset.id(i));
    let val = (usable.len() as f64 * share) as usize;
    let val_indices = usable.split_off(usable.len() - val);
    (usable, val_indices)
}

/// The first setting that is not the same in both, as its flag is called.
fn differing_setting(a: &TrainConfig, b: &TrainConfig) -> Option<String> {
    let fields = |config: &TrainConfig| match serde_json::to_value(config) {
        Ok(serde_json::Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (a, b) = (fields(a), fields(b));
    let key = b.iter().find(|(key, value)| a.get(*key) != Some(value))?.0;
    if key != "network" {
        return Some(key.replace('_', "-"));
    }
    let names = [("name", "model"), ("size", "size"), ("head", "head")];
    let of = |part: &str| a[key].get(part) != b[key].get(part);
    names.iter().find(|(part, _)| of(part)).map(|(_, flag)| flag.to_string())
}
