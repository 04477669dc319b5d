//! Which pictures are attacked, and what the networks say of them before.

use super::experiment::{Experiment, NamedVictim};
use crate::cli::progress::check_interrupted;
use atrous::attack::{self, Doubt, Images, Victim, trial};
use atrous::data::{Dataset, VOID, voc_npy};
use atrous::predict::masks_of;
use atrous::{Error, Result};
use std::collections::{BTreeMap, HashSet};

/// What has to be known of a picture for it to be attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its labels; one of them is set, where the attack leads away from them.
    Labels { set: bool },
    /// Its mask, with a pixel that is not void.
    Mask,
}

impl Known {
    /// What is not known of a picture, if anything is not.
    fn lacking(self, dataset: &dyn Dataset, index: usize) -> Result<Option<&'static str>> {
        Ok(match self {
            Known::Labels { set } => match dataset.labels(index) {
                None => Some("labels"),
                Some(labels) if set && !labels.contains(&true) => Some("label that is set"),
                Some(_) => None,
            },
            Known::Mask => match dataset.mask(index)? {
                None => Some("mask"),
                Some(mask) if mask.classes.iter().all(|&class| class == VOID) => {
                    Some("pixel that is not void in its mask")
                }
                Some(_) => None,
            },
        })
    }
}

pub fn missing(dataset: &dyn Dataset, index: usize, what: &str) -> Error {
    let message = format!(
        "picture `{}` has no {what}; give --labels predicted to go by what the network says of it",
        dataset.id(index)
    );
    Error::argument("--labels", message)
}

/// The first so many pictures of which enough is known. How many are passed over is printed; an error
/// where none is left.
pub fn first_known(
    known: Option<Known>,
    dataset: &dyn Dataset,
    indices: &[usize],
    limit: usize,
) -> Result<Vec<usize>> {
    let Some(known) = known else {
        return Ok(indices.iter().copied().take(limit).collect());
    };
    let (mut kept, mut left_out) = (Vec::new(), BTreeMap::new());
    for &index in indices {
        if kept.len() == limit {
            break;
        }
        match known.lacking(dataset, index)? {
            None => kept.push(index),
            Some(what) => left_out.entry(what).or_insert_with(Vec::new).push(index),
        }
    }
    for (what, images) in left_out {
        if kept.is_empty() {
            return Err(missing(dataset, images[0], what));
        }
        let (n, first) = (images.len(), dataset.id(images[0]));
        println!("left out: {n} pictures that have no {what} (the first is `{first}`)");
    }
    Ok(kept)
}

impl Experiment<'_> {
    /// Of each network the pictures that it is attacked on; with masks that are to be turned, those that
    /// have such pixels. An error where a network's answers to them are no numbers; words where there is
    /// little to attack.
    pub fn subjects(&self) -> Result<Vec<Vec<usize>>> {
        let of = |contender: &NamedVictim| {
            let all = match self.from {
                None => self.indices.clone(),
                Some(_) => self.with_from(contender, &*self.dataset, &self.indices)?,
            };
            if let Some(doubt) = self.doubt(contender, &all)? {
                println!("{}: {doubt}", contender.name);
            }
            Ok(all)
        };
        self.contenders.iter().map(of).collect()
    }

    fn doubt(&self, contender: &NamedVictim, indices: &[usize]) -> Result<Option<Doubt>> {
        let (side, fit) = (contender.victim.side(), contender.trained.config.fit);
        let mut all = Vec::new();
        for chunk in indices.chunks(self.options.batch_size) {
            check_interrupted("a look at the pictures as they are")?;
            let images = Images::of(&*self.dataset, chunk, side, fit)?;
            let aim = self.aim(contender, &*self.dataset, chunk, &images, false)?;
            let seen = trial::seen(&contender.victim, &images.x, &aim)?;
            all.extend(seen.into_iter().zip(chunk.iter().map(|&index| self.dataset.labels(index))));
        }
        let all = all.iter().map(|(seen, truth)| (seen, truth.clone()));
        Ok(Doubt::in_what_is_said(all, &self.dataset.classes()))
    }

    /// Those of which the network says that they have pixels of the class to be turned.
    fn with_from(
        &self,
        contender: &NamedVictim,
        dataset: &dyn Dataset,
        indices: &[usize],
    ) -> Result<Vec<usize>> {
        let from = self.from.unwrap_or_default();
        let mut kept = Vec::new();
        for chunk in indices.chunks(self.options.batch_size) {
            check_interrupted("a look at the pictures as they are")?;
            let config = &contender.trained.config;
            let images = Images::of(dataset, chunk, contender.victim.side(), config.fit)?;
            let masks = masks_of(&attack::logits(&contender.victim, &images.x)?)?;
            let seen = chunk.iter().zip(masks).filter(|(_, mask)| mask.classes.contains(&from));
            kept.extend(seen.map(|(&index, _)| index));
        }
        match kept.is_empty() {
            true => {
                let name = self.options.from.as_deref().unwrap_or_default();
                let message =
                    format!("the network sees no pixel of `{name}` in {} pictures", indices.len());
                Err(Error::argument("--from", message))
            }
            false => Ok(kept),
        }
    }

    /// What an attack that has to learn learns from: the pictures that the network was trained on.
    pub fn learners(&self, contender: &NamedVictim) -> Result<Vec<usize>> {
        let train = self.trained_on(contender)?;
        match self.from {
            None => first_known(self.known, &*self.learn, &train, usize::MAX),
            Some(_) => self.with_from(contender, &*self.learn, &train),
        }
    }

    /// The first network's training pictures, under its numbers: of them those that the contender was
    /// trained on, too. Another run numbers its samples otherwise, so they are told by what they are.
    /// All of them where it knows none.
    fn trained_on(&self, contender: &NamedVictim) -> Result<Vec<usize>> {
        let first = &self.contenders[0];
        let all = &first.trained.config.train_indices;
        if contender.trained.path == first.trained.path {
            return Ok(all.clone());
        }
        let config = &contender.trained.config;
        let train: HashSet<usize> = config.train_indices.iter().copied().collect();
        let numbers = config.samples.numbers(&*self.learn, all)?;
        let pairs = all.iter().zip(numbers);
        let both = pairs.filter(|(_, number)| number.is_some_and(|number| train.contains(&number)));
        let both: Vec<usize> = both.map(|(&index, _)| index).collect();
        if both.is_empty() {
            println!(
                "{} was trained on other pictures: what learns, learns from {}'s",
                contender.name, first.name
            );
            return Ok(all.clone());
        }
        Ok(both)
    }

    /// An error where an Id makes no name of a file of perturbed pictures.
    pub fn check_names(&self) -> Result<()> {
        self.indices.iter().try_for_each(|&index| check_name(&self.dataset.id(index)))
    }
}

/// The longest name of a file that common file systems have, in bytes.
const LONGEST: usize = 255;

fn check_name(id: &str) -> Result<()> {
    let file = voc_npy::Split::Test.image("".as_ref(), id);
    let length = file.file_name().map_or(0, |name| name.len());
    let fits = match length > LONGEST {
        true => Err(format!(
            "expected an Id whose file has a name of at most {LONGEST} bytes, not {length}, got `{id}`"
        )),
        false => atrous::data::id::check(id),
    };
    fits.map_err(|message| Error::argument("perturbed", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use atrous::data::{Image, Labels, Mask};

    /// The labels that are known, and a mask for each even picture; the first of them void.
    struct Half(Vec<Option<Labels>>);

    impl Dataset for Half {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn classes(&self) -> atrous::data::Classes {
            atrous::data::Classes::voc()
        }

        fn id(&self, index: usize) -> String {
            format!("p{index}")
        }

        fn labels(&self, index: usize) -> Option<Labels> {
            self.0[index].clone()
        }

        fn image(&self, _index: usize) -> Result<Image> {
            Image::new(1, 1, vec![0; 3])
        }

        fn mask(&self, index: usize) -> Result<Option<Mask>> {
            let class = if index == 0 { VOID } else { 3 };
            (index.is_multiple_of(2)).then(|| Mask::new(1, 1, vec![class])).transpose()
        }
    }

    fn half() -> Half {
        let mut cat = vec![false; 20];
        cat[7] = true;
        Half(vec![None, Some(cat.clone()), Some(vec![false; 20]), Some(cat.clone()), Some(cat)])
    }

    #[test]
    fn an_unknown_truth_is_never_taken_for_none() {
        let all = [0, 1, 2, 3, 4];
        let kept = |known, limit| first_known(known, &half(), &all, limit).unwrap();
        assert_eq!(kept(Some(Known::Labels { set: true }), 9), [1, 3, 4]);
        assert_eq!(kept(Some(Known::Labels { set: true }), 2), [1, 3]);
        assert_eq!(kept(Some(Known::Labels { set: false }), 9), [1, 2, 3, 4]);
        assert_eq!(kept(Some(Known::Mask), 9), [2, 4]);
        assert_eq!(kept(None, 9), all);
        let error = |known, indices: &[usize]| {
            first_known(Some(known), &half(), indices, 9).unwrap_err().to_string()
        };
        assert!(error(Known::Labels { set: false }, &[0]).contains("`p0` has no labels; give --labels"));
        assert!(error(Known::Mask, &[1, 3]).contains("`p1` has no mask"));
    }

    #[test]
    fn an_id_that_is_no_name_of_a_file_is_refused() {
        for id in ["7", "a,b", "a \"quoted\" one", &"x".repeat(246)] {
            check_name(id).unwrap();
        }
        for id in ["", "a/b", "..\\b", "a\0", &"x".repeat(247)] {
            assert!(check_name(id).is_err(), "{id:?}");
        }
    }
}
