//! Which samples a run has: by what they are, not by where they stand in a folder.
//!
//! A table can be sorted anew, a list can lose a line, a folder can be another one of the same length.
//! So a run keeps a [`Manifest`] of its samples: Id, size, a checksum of the pixels, labels and, where
//! masks are learned, a checksum of the mask. (Of pixels, not of files: a folder that was converted to
//! the other layout holds the same images.) Whoever takes the run up again asks `Manifest::find`,
//! which gives the samples under the numbers that the run knows them by, or says what is another.

use super::{Classes, Dataset, Image, Labels, Mask};
use crate::backend::cpu::threads;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// The samples of a run, by the numbers it knows them by.
///
/// ```
/// use atrous::data::manifest::{Manifest, Selected};
/// use atrous::data::synthetic::Synthetic;
/// use std::sync::Arc;
///
/// let dataset = Arc::new(Synthetic::train(1, 3));
/// let manifest = Manifest::of(&*dataset, &[0, 2], false)?;
/// assert_eq!(manifest.samples[1].id, "2");
/// // In another order, and with a sample the run does not know.
/// let sorted = Selected::new(dataset, vec![2, 1, 0]);
/// assert_eq!(manifest.numbers(&sorted, &[0, 1, 2])?, [Some(1), None, Some(0)]);
/// // The same Ids for other images
/// let other = Synthetic::train(2, 3);
/// assert_eq!(manifest.numbers(&other, &[0])?, [None]);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    /// A plan's indices are positions in this list.
    pub samples: Vec<Sample>,
}

/// What tells a sample from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The name in tables, unique within a manifest.
    pub id: String,
    /// Height and width of the image, in pixels.
    pub size: [usize; 2],
    /// CRC-32 of its RGB bytes.
    pub pixels: u32,
    /// The numbers of its classes; None where they are not known, or a run learns masks.
    pub labels: Option<Vec<usize>>,
    /// CRC-32 of the mask's classes; None where a run learns no masks, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<u32>,
}

impl Sample {
    fn of(dataset: &dyn Dataset, index: usize, masks: bool) -> Result<Self> {
        // A run on masks reads no labels: a table that was corrected is not its business.
        let labels = dataset.labels(index).filter(|_| !masks).map(|labels| classes(&labels));
        let mask = if masks { dataset.mask(index)? } else { None };
        let Image { height, width, rgb } = dataset.image(index)?;
        Ok(Sample {
            id: dataset.id(index),
            size: [height, width],
            pixels: crc32fast::hash(&rgb),
            labels,
            mask: mask.map(|mask| crc32fast::hash(&mask.classes)),
        })
    }

    /// What of the sample is another now, in words.
    fn difference(&self, now: &Sample, all: &Classes) -> Option<String> {
        let names = |labels: &Option<Vec<usize>>| match labels.as_deref() {
            None => "not known".to_owned(),
            Some([]) => "none".to_owned(),
            Some(classes) => {
                let name = |class: &usize| all.iter().nth(*class).unwrap_or("?");
                classes.iter().map(name).collect::<Vec<_>>().join(", ")
            }
        };
        let id = &self.id;
        if self.size != now.size {
            let [before, after] = [self.size, now.size].map(|[h, w]| format!("{h}×{w}"));
            Some(format!("the picture of `{id}` was {before}, and is {after}"))
        } else if self.pixels != now.pixels {
            Some(format!("the picture of `{id}` is another"))
        } else if self.labels != now.labels {
            let [before, after] = [&self.labels, &now.labels].map(names);
            Some(format!("the labels of `{id}` were {before}, and are {after}"))
        } else if self.mask.is_some() && self.mask != now.mask {
            Some(format!("the mask of `{id}` is another"))
        } else {
            None
        }
    }
}

fn classes(labels: &Labels) -> Vec<usize> {
    (0..labels.len()).filter(|&class| labels[class]).collect()
}

impl Manifest {
    /// What some samples are. Reads their images, and for a run on `masks` those.
    pub fn of(dataset: &dyn Dataset, indices: &[usize], masks: bool) -> Result<Self> {
        let samples = threads::map(indices.len(), |i| Sample::of(dataset, indices[i], masks));
        Ok(Manifest { samples: samples.into_iter().collect::<Result<_>>()? })
    }

    /// The run's samples in a data set, under the run's numbers. An error where one is missing there, is
    /// there twice, or is no longer what it was.
    pub(crate) fn find(&self, dataset: &Arc<dyn Dataset>) -> Result<Arc<dyn Dataset>> {
        let known = Known::new(&**dataset);
        let there = self.samples.iter().map(|sample| known.index(&sample.id));
        let there: Vec<Option<usize>> = there.collect();
        let missing = self.samples.iter().zip(&there).filter(|(_, index)| index.is_none());
        refuse(
            missing.map(|(sample, _)| format!("`{}` is not there", sample.id)).collect(),
            self.samples.len(),
        )?;
        let indices: Vec<usize> = there.into_iter().flatten().collect();
        let twice = self.samples.iter().filter(|sample| known.twice.contains(&sample.id));
        refuse(twice.map(|s| format!("`{}` is there twice", s.id)).collect(), indices.len())?;
        let masks = self.samples.iter().any(|sample| sample.mask.is_some());
        let now = Manifest::of(&**dataset, &indices, masks)?;
        let pairs = self.samples.iter().zip(&now.samples);
        let differences = pairs.filter_map(|(before, now)| before.difference(now, &dataset.classes()));
        refuse(differences.collect(), indices.len())?;
        Ok(Arc::new(Selected { dataset: dataset.clone(), indices }))
    }

    /// Which of the run's samples each sample of a data set is, by Id and pixels: None for those that
    /// the run does not know. Labels may be others: the image was seen all the same.
    pub fn numbers(&self, dataset: &dyn Dataset, indices: &[usize]) -> Result<Vec<Option<usize>>> {
        let by_id: HashMap<&str, usize> =
            self.samples.iter().enumerate().map(|(i, sample)| (sample.id.as_str(), i)).collect();
        let number = |&index: &usize| {
            let Some(&number) = by_id.get(dataset.id(index).as_str()) else { return Ok(None) };
            let now = Sample::of(dataset, index, false)?;
            let known = &self.samples[number];
            Ok((known.size == now.size && known.pixels == now.pixels).then_some(number))
        };
        threads::map(indices.len(), |i| number(&indices[i])).into_iter().collect()
    }

    /// An error where an Id stands there twice: which of the two a number means could not be told.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        match self.samples.iter().find(|sample| !seen.insert(&sample.id)) {
            Some(sample) => Err(format!("`{}` is among its samples twice", sample.id)),
            None => Ok(()),
        }
    }
}

/// How many differences a message names.
const NAMED: usize = 3;

fn refuse(differences: Vec<String>, of: usize) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let named = differences[..differences.len().min(NAMED)].join("; ");
    let more = match differences.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more of {of}"),
    };
    Err(Error::argument("data", format!("these are not the pictures of the run: {named}{more}")))
}

/// The places of a data set's Ids.
struct Known {
    indices: HashMap<String, usize>,
    twice: HashSet<String>,
}

impl Known {
    fn new(dataset: &dyn Dataset) -> Self {
        let mut known = Known { indices: HashMap::new(), twice: HashSet::new() };
        for index in 0..dataset.len() {
            let id = dataset.id(index);
            if known.indices.insert(id.clone(), index).is_some() {
                known.twice.insert(id);
            }
        }
        known
    }

    fn index(&self, id: &str) -> Option<usize> {
        self.indices.get(id).copied()
    }
}

/// Some samples of a data set, under new numbers.
///
/// ```
/// use atrous::data::manifest::Selected;
/// use atrous::data::{Dataset, synthetic::Synthetic};
/// use std::sync::Arc;
///
/// let some = Selected::new(Arc::new(Synthetic::train(1, 9)), vec![7, 4]);
/// assert_eq!((some.len(), some.id(0).as_str()), (2, "7"));
/// ```
pub struct Selected {
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
}

impl Selected {
    /// `indices` are the samples' numbers in the data set.
    pub fn new(dataset: Arc<dyn Dataset>, indices: Vec<usize>) -> Self {
        Selected { dataset, indices }
    }
}

impl Dataset for Selected {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> Classes {
        self.dataset.classes()
    }

    fn exclusive(&self) -> bool {
        self.dataset.exclusive()
    }

    fn id(&self, index: usize) -> String {
        self.dataset.id(self.indices[index])
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.dataset.labels(self.indices[index])
    }

    fn image(&self, index: usize) -> Result<Image> {
        self.dataset.image(self.indices[index])
    }

    fn size(&self, index: usize) -> Result<(usize, usize)> {
        self.dataset.size(self.indices[index])
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        self.dataset.mask(self.indices[index])
    }

    fn mask_file(&self, index: usize) -> Option<PathBuf> {
        self.dataset.mask_file(self.indices[index])
    }

    fn has_mask(&self, index: usize) -> bool {
        self.dataset.has_mask(self.indices[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic::Synthetic;

    fn data(seed: u64, n: usize) -> Arc<dyn Dataset> {
        Arc::new(Synthetic::train(seed, n))
    }

    #[test]
    fn samples_are_found_again_in_another_order_and_among_others() {
        let dataset = data(1, 9);
        let manifest = Manifest::of(&*dataset, &[1, 2, 3, 6], true).unwrap();
        let reversed: Arc<dyn Dataset> =
            Arc::new(Selected::new(dataset.clone(), (0..9).rev().collect()));
        let found = manifest.find(&reversed).unwrap();
        let ids: Vec<String> = (0..4).map(|i| found.id(i)).collect();
        assert_eq!(ids, [1, 2, 3, 6].map(|i| dataset.id(i)));
        assert_eq!(found.image(3).unwrap(), dataset.image(6).unwrap());
    }

    #[test]
    fn samples_that_are_missing_or_twice_or_others_are_refused_by_name() {
        let dataset = data(1, 6);
        let manifest = Manifest::of(&*dataset, &[0, 1, 2, 3, 4, 5], false).unwrap();
        let of =
            |indices: Vec<usize>| -> Arc<dyn Dataset> { Arc::new(Selected::new(data(1, 6), indices)) };
        let refused = |dataset| manifest.find(&dataset).err().unwrap().to_string();
        let missing = refused(of(vec![5, 4, 3]));
        assert!(missing.contains("`0` is not there") && missing.contains("`2` is not"), "{missing}");
        assert!(refused(of(vec![0])).contains("and 2 more of 6"));
        let twice = refused(of(vec![0, 1, 2, 3, 4, 5, 3]));
        assert!(twice.contains("`3` is there twice"), "{twice}");
        let other = refused(data(2, 6));
        assert!(other.contains("the picture of `0` ") && other.contains("`1`"), "{other}");
    }

    #[test]
    fn a_mask_that_changed_is_noticed_where_masks_are_learned() {
        struct Repainted(Arc<dyn Dataset>);
        impl Dataset for Repainted {
            fn len(&self) -> usize {
                self.0.len()
            }
            fn classes(&self) -> Classes {
                self.0.classes()
            }
            fn id(&self, index: usize) -> String {
                self.0.id(index)
            }
            fn labels(&self, index: usize) -> Option<Labels> {
                self.0.labels(index)
            }
            fn image(&self, index: usize) -> Result<Image> {
                self.0.image(index)
            }
            fn mask(&self, index: usize) -> Result<Option<Mask>> {
                let mut mask = self.0.mask(index)?;
                if let (1, Some(mask)) = (index, &mut mask) {
                    mask.classes[0] ^= 1;
                }
                Ok(mask)
            }
        }
        let repainted: Arc<dyn Dataset> = Arc::new(Repainted(data(1, 3)));
        let find = |masks| Manifest::of(&*data(1, 3), &[0, 1, 2], masks).unwrap().find(&repainted).err();
        assert!(find(false).is_none());
        assert!(find(true).unwrap().to_string().contains("the mask of `1` is another"));
    }

    #[test]
    fn samples_that_were_trained_on_are_known_by_id_and_pixels() {
        let dataset = data(1, 5);
        let manifest = Manifest::of(&*dataset, &[3, 1], false).unwrap();
        let numbers = manifest.numbers(&*dataset, &[0, 1, 2, 3]).unwrap();
        assert_eq!(numbers, [None, Some(1), None, Some(0)]);
        let other = manifest.numbers(&*data(2, 5), &[1, 3]).unwrap();
        assert_eq!(other, [None, None]);
    }
}
