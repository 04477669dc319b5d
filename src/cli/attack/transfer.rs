//! Perturbed pictures shown to other networks.

use super::experiment::{Experiment, NamedVictim};
use super::methods::Variant;
use atrous::Result;
use atrous::attack::generator::Generator;
use atrous::attack::{Images, Victim, trial};
use atrous::data::{Classes, Dataset, Image, Labels, Mask};

/// What each network still gets right of each network's pictures.
pub struct Transfer {
    /// What they were perturbed by.
    pub by: Variant,
    /// A name, and a share a network; None where it sees nothing to be turned.
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Experiment<'_> {
    /// Of each network's perturbed pictures (rows), the share that each network (columns) still gets
    /// right; first a row of the pictures as they are. `subjects` are each network's, `generator` is the
    /// victim's.
    pub fn transfer(
        &self,
        by: Variant,
        epsilon: f32,
        subjects: &[Vec<usize>],
        generator: Option<&Generator>,
    ) -> Result<Transfer> {
        let judged = |shown: &Shown| -> Result<Vec<Option<f64>>> {
            let judges = self.contenders.iter().zip(subjects);
            judges.map(|(judge, known)| self.judged(judge, known, shown)).collect()
        };
        let dataset = &*self.dataset;
        let clean = Shown { dataset, indices: self.indices.clone(), perturbed: None };
        let mut rows = vec![("as they are".to_owned(), judged(&clean)?)];
        for (i, (contender, all)) in self.contenders.iter().zip(subjects).enumerate() {
            // A generator of the victim's is none of another network's; one of a file is for all.
            let generator = generator.filter(|_| i == 0 || self.options.generator.is_some());
            let attack = self.attack(by.method, epsilon, contender, generator)?;
            let (mut indices, mut perturbed) = (Vec::new(), Vec::new());
            self.trials(&attack, by.method, contender, all, &mut |trial| {
                indices.push(trial.index);
                perturbed.push(trial.perturbed);
                Ok(())
            })?;
            let shown = Shown { dataset, indices, perturbed: Some(perturbed) };
            rows.push((format!("against {}", contender.name), judged(&shown)?));
        }
        Ok(Transfer { by, rows })
    }

    /// The share of pictures of which a network says what it should; of pixels, where it segments. What
    /// it should say it is asked of the pictures as they are, where nothing else tells.
    fn judged(&self, judge: &NamedVictim, known: &[usize], shown: &Shown) -> Result<Option<f64>> {
        let (side, fit) = (judge.victim.side(), judge.trained.config.fit);
        let numbers: Vec<usize> =
            (0..shown.len()).filter(|&i| known.contains(&shown.indices[i])).collect();
        let mut right = 0.0;
        for chunk in numbers.chunks(self.options.batch_size) {
            let originals: Vec<usize> = chunk.iter().map(|&i| shown.indices[i]).collect();
            let clean = Images::of(shown.dataset, &originals, side, fit)?;
            let aim = self.aim(judge, shown.dataset, &originals, &clean, false)?;
            let images = Images::of(shown, chunk, side, fit)?;
            let seen = trial::seen(&judge.victim, &images.x, &aim)?;
            right += seen.iter().map(|seen| 1.0 - seen.led).sum::<f64>();
        }
        Ok((!numbers.is_empty()).then(|| right / numbers.len() as f64))
    }
}

/// Pictures, with the truth of those they were made of.
struct Shown<'a> {
    dataset: &'a dyn Dataset,
    /// The originals' numbers.
    indices: Vec<usize>,
    /// None: as they are.
    perturbed: Option<Vec<Image>>,
}

impl Dataset for Shown<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> Classes {
        self.dataset.classes()
    }

    fn id(&self, index: usize) -> String {
        self.dataset.id(self.indices[index])
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        self.dataset.labels(self.indices[index])
    }

    fn image(&self, index: usize) -> Result<Image> {
        match &self.perturbed {
            Some(perturbed) => Ok(perturbed[index].clone()),
            None => self.dataset.image(self.indices[index]),
        }
    }

    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        self.dataset.mask(self.indices[index])
    }
}
