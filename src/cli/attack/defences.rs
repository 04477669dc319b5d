//! The table of defences: each judged on pictures as they are, attacked by somebody who does not know of
//! it, and by somebody who does.

use super::experiment::{Experiment, NamedVictim};
use super::output::of_255;
use crate::cli::progress::{self, asked_to_stop, bar, check_interrupted};
use atrous::attack::defence::detector::{FALSE_ALARMS, scores};
use atrous::attack::defence::distance::Distance;
use atrous::attack::defence::learnt::{DetectorConfig, LearnedDetector};
use atrous::attack::defence::{
    Adversarial, CovarianceSums, Defended, Detection, Detector, Distillation, Evaluator, Guarded, Keep,
    Pca, Squeeze, TemperatureScaled, Transform, Undetected, measure,
};
use atrous::attack::{AttackTarget, EpsBall, Images, Iterative, LabelObjective, Network, Victim};
use atrous::nn::Model;
use atrous::ops;
use atrous::predict::{self, THRESHOLD};
use atrous::train::{CheckpointPolicy, TrainConfig, Trainer};
use atrous::{Error, Result, Tensor};
use serde_json::{Value, json};
use std::path::Path;

/// A defence's line: shares of pictures that are right.
pub struct Row {
    name: String,
    clean: f64,
    unaware: f64,
    adaptive: f64,
    note: String,
}

/// Training pictures that PCA and the detector learn from.
const LEARN: usize = 320;
/// Pictures at once, and threads that read them.
const BATCH: usize = 16;
const WORKERS: usize = 2;
/// Papernot et al.'s range is 1 to 100.
const TEMPERATURE: f32 = 20.0;

const TABLE: &str = "the table of defences";

pub struct Defences<'a> {
    experiment: &'a Experiment<'a>,
    victim: &'a NamedVictim,
    attack: Iterative,
    epochs: usize,
    /// The pictures that are attacked.
    batches: Vec<Subjects>,
    rows: Vec<Row>,
}

/// A batch of pictures, what the network should say of them, and what PGD against the network alone
/// makes of them: every defence but those that change the thresholds is judged on the same.
struct Subjects {
    images: Images,
    objective: LabelObjective,
    unaware: Tensor,
}

impl<'a> Defences<'a> {
    pub fn new(experiment: &'a Experiment<'a>, ball: EpsBall, epochs: usize) -> Self {
        let attack = experiment.pgd(ball);
        let victim = &experiment.contenders[0];
        Defences { experiment, victim, attack, epochs, batches: Vec::new(), rows: Vec::new() }
    }

    /// Judges all of them; nets that learn are kept in `out`.
    pub fn run(mut self, out: &Path) -> Result<Vec<Row>> {
        println!(
            "defences, against pgd at {} ({} steps); shares of pictures that are right",
            of_255(self.attack.ball.epsilon, self.attack.ball.norm),
            self.attack.steps
        );
        println!("  {:<24} {:>7} {:>9} {:>9}", "", "clean", "attacked", "adaptive");
        self.perturb()?;
        self.judged("none", &self.victim.victim, |o| o, |o| o, String::new())?;
        for squeeze in [Squeeze::Bits(5), Squeeze::Bits(3), Squeeze::Median(2), Squeeze::Median(3)] {
            self.transformed(squeeze, String::new())?;
        }
        self.pca()?;
        self.adversarial(out)?;
        self.distillation(out)?;
        self.detectors()?;
        Ok(self.rows)
    }

    /// What who knows of no defence does.
    fn perturb(&mut self) -> Result<()> {
        let bar = bar(self.experiment.indices.len(), "perturbing");
        for chunk in self.experiment.indices.chunks(BATCH) {
            let (images, objective) = self.batch(chunk, true)?;
            let unaware = self.attack.perturb(&self.victim.victim, &images, &objective)?.x;
            self.batches.push(Subjects { images, objective, unaware });
            bar.inc(chunk.len() as u64);
            check_interrupted(TABLE)?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn batch(&self, chunk: &[usize], attacked: bool) -> Result<(Images, LabelObjective)> {
        let dataset = if attacked { &self.experiment.dataset } else { &self.experiment.learn };
        let (side, fit) = (self.victim.victim.side(), self.victim.trained.config.fit);
        let images = Images::of(&**dataset, chunk, side, fit)?;
        match self.experiment.aim(self.victim, &**dataset, chunk, &images, false)? {
            // Far beyond the boundary: what only just fools one network is no test of another.
            AttackTarget::Labels(labels) => Ok((images, LabelObjective { margin: 5.0, ..labels })),
            AttackTarget::Masks(_) => Err(Error::argument("--defences", "they are for classifiers")),
        }
    }

    /// The training pictures that something is learned from.
    fn lessons(&self) -> Result<Vec<usize>> {
        Ok(self.experiment.learners(self.victim)?.into_iter().take(LEARN).collect())
    }

    fn judged<A, U>(
        &mut self,
        name: &str,
        defended: &dyn Victim,
        adaptive: impl Fn(LabelObjective) -> A,
        judge: impl Fn(LabelObjective) -> U,
        note: String,
    ) -> Result<()>
    where
        A: atrous::attack::Objective,
        U: atrous::attack::Objective,
    {
        let (mut sums, mut n) = ([0.0; 3], 0.0);
        let bar = bar(self.experiment.indices.len(), "defences");
        for Subjects { images, objective, unaware } in &self.batches {
            let (knows, judge) = (adaptive(objective.clone()), judge(objective.clone()));
            let adaptive = self.attack.perturb(defended, images, &knows)?.x;
            let measured = measure(images, unaware, &adaptive, Evaluator::new(defended, &judge))?;
            let size = images.len() as f64;
            sums.iter_mut().zip(measured.rates()).for_each(|(sum, rate)| *sum += (1.0 - rate) * size);
            n += size;
            bar.inc(images.len() as u64);
            check_interrupted(TABLE)?;
        }
        bar.finish_and_clear();
        let [clean, unaware, adaptive] = sums.map(|sum| sum / n);
        println!("  {name:<24} {clean:>7.3} {unaware:>9.3} {adaptive:>9.3}  {note}");
        self.rows.push(Row { name: name.into(), clean, unaware, adaptive, note });
        Ok(())
    }

    fn transformed(&mut self, transform: impl Transform, note: String) -> Result<()> {
        let name = transform.name();
        let victim = &self.victim.victim;
        let defended = Defended::new(victim, transform);
        self.judged(&name, &defended, |o| o, |o| o, note)
    }

    fn pca(&mut self) -> Result<()> {
        let mut moments = CovarianceSums::new(8)?;
        let (side, fit) = (self.victim.victim.side(), self.victim.trained.config.fit);
        for chunk in self.lessons()?.chunks(BATCH) {
            moments.add(&Images::of(&*self.experiment.learn, chunk, side, fit)?)?;
        }
        for share in [0.99, 0.95] {
            let pca = Pca::of(&moments, side, Keep::Share(share))?;
            let note =
                format!("{} of 192 components of 8×8 blocks, {share} of the variance", pca.components());
            self.transformed(pca, note)?;
        }
        Ok(())
    }

    /// Goes on training the victim for a few epochs, half of each batch perturbed.
    fn adversarial(&mut self, out: &Path) -> Result<()> {
        let config = TrainConfig {
            epochs: self.epochs,
            learning_rate: self.victim.trained.config.learning_rate * 0.3,
            patience: None,
            warmup: 0.0,
            ..self.victim.trained.config.clone()
        };
        let mut trainer = Trainer::new(self.victim.trained.model.clone(), config)?;
        // A few steps find most of what twenty do, at a fifth of the price.
        let attack = Iterative { restarts: 0, ..Iterative::pgd(self.attack.ball, 4) };
        let training = trainer.config.training_loader(&self.experiment.learn, WORKERS);
        let bar = bar(self.epochs * training.steps(), "adversarial training");
        Adversarial::new(attack, self.attack.seed).fit(
            &mut trainer,
            &training,
            None,
            &CheckpointPolicy::default(),
            &mut |event| {
                if let atrous::train::Event::Step { .. } = event {
                    bar.inc(1);
                }
                asked_to_stop()
            },
        )?;
        bar.finish_and_clear();
        atrous::train::save(&out.join("adversarial.safetensors"), &trainer)?;
        let note =
            format!("{} epochs more, half of each batch perturbed by pgd of 4 steps", self.epochs);
        self.network("adversarial training", &trainer.model, |o| o, note)
    }

    fn distillation(&mut self, out: &Path) -> Result<()> {
        let config = TrainConfig { patience: None, ..self.victim.trained.config.clone() };
        let mut student = Model::new(config.graph()?, self.attack.seed + 1)
            .to_device(self.victim.trained.model.device())?;
        let training = config.training_loader(&self.experiment.learn, WORKERS);
        let bar = bar(config.epochs * training.steps(), "distillation");
        let distillation = Distillation::new(TEMPERATURE);
        distillation.train_student(
            &self.victim.trained.model,
            &mut student,
            &config,
            &training,
            &mut |event| {
                if let atrous::train::Event::Step { .. } = event {
                    bar.inc(1);
                }
                asked_to_stop()
            },
        )?;
        bar.finish_and_clear();
        let note = format!("a student of {} epochs, T = {TEMPERATURE}", config.epochs);
        let trainer = Trainer::new(student, config)?;
        atrous::train::save(&out.join("distilled.safetensors"), &trainer)?;
        let cooled = |inner| TemperatureScaled { inner, temperature: TEMPERATURE };
        self.network("distillation", &trainer.model, cooled, note)
    }

    /// Another network in the victim's place, with thresholds fitted as the victim's were.
    fn network<A: atrous::attack::Objective>(
        &mut self,
        name: &str,
        model: &Model,
        adaptive: impl Fn(LabelObjective) -> A,
        note: String,
    ) -> Result<()> {
        let config = &self.victim.trained.config;
        let network = Network::new(model, config.preprocess)?;
        let own = match &self.victim.trained.thresholds {
            None => vec![THRESHOLD; config.classes.len()],
            Some(_) => predict::fit_thresholds(model, config, &self.experiment.learn)?.0.per_class,
        };
        let with_own = |o: LabelObjective| LabelObjective { thresholds: own.clone(), ..o };
        self.judged(name, &network, |o| adaptive(with_own(o)), with_own, note)
    }

    fn detectors(&mut self) -> Result<()> {
        let victim = &self.victim.victim;
        // Pairs of training pictures, and clean ones apart for the threshold.
        let lessons = self.lessons()?;
        let (pairs, apart) = lessons.split_at(lessons.len() * 3 / 4);
        let attack = Iterative { restarts: 0, ..Iterative::pgd(self.attack.ball, 10) };
        let (mut clean, mut perturbed) = (Vec::new(), Vec::new());
        let bar = progress::bar(pairs.len(), "perturbed lessons");
        for chunk in pairs.chunks(BATCH) {
            let (images, objective) = self.batch(chunk, false)?;
            perturbed.push(attack.perturb(victim, &images, &objective)?.x);
            clean.push(images.x);
            bar.inc(chunk.len() as u64);
            check_interrupted(TABLE)?;
        }
        bar.finish_and_clear();
        let together = |parts: &[Tensor]| ops::concat(&parts.iter().collect::<Vec<_>>(), 0);
        let (clean, perturbed) = (together(&clean)?, together(&perturbed)?);
        let fit = self.victim.trained.config.fit;
        let other = Images::of(&*self.experiment.learn, apart, victim.side(), fit)?.x;
        let lessons = DetectorConfig { seed: self.attack.seed, ..DetectorConfig::default() };
        let bar = progress::bar(lessons.epochs, "detector");
        let learnt = LearnedDetector::train(&clean, &perturbed, lessons, victim.device(), &mut |_| {
            bar.inc(1);
            asked_to_stop()
        })?
        .calibrated(&other, FALSE_ALARMS)?;
        bar.finish_and_clear();
        self.detector("detector, learnt", &learnt)?;
        let squeezers: Vec<Box<dyn Transform>> =
            Squeeze::PHOTOGRAPHS.into_iter().map(|s| Box::new(s) as Box<dyn Transform>).collect();
        let distance = Distance::new(victim, squeezers)?.calibrated(&other, FALSE_ALARMS)?;
        self.detector("detector, squeezing", &distance)
    }

    /// A picture counts as right where the classifier is right, or where a wrong answer raises the alarm.
    fn detector(&mut self, name: &str, detector: &dyn Detector) -> Result<()> {
        let victim = &self.victim.victim;
        let (mut clean, mut perturbed) = (Vec::new(), Vec::new());
        for Subjects { images, unaware, .. } in &self.batches {
            clean.extend(scores(detector, victim.device(), &images.x)?);
            perturbed.extend(scores(detector, victim.device(), unaware)?);
        }
        let found = Detection::at(&clean, &perturbed, detector.threshold() as f64)?;
        let note = format!(
            "detects {:.3} at {:.3} false alarms, AUC {:.3}",
            found.detected, found.false_alarms, found.auc
        );
        let guarded = Guarded { classifier: victim, detector };
        // A distance goes from 0 to 2, a logit has no end.
        let undetected = |inner| Undetected { selective: true, ..Undetected::new(inner, detector) };
        let judge = |inner| Undetected::new(inner, detector);
        self.judged(name, &guarded, undetected, judge, note)
    }
}

/// For the summary.
pub fn json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        json!({
            "defence": row.name,
            "clean": row.clean,
            "attacked": row.unaware,
            "adaptive": row.adaptive,
            "note": row.note,
        })
    };
    rows.iter().map(row).collect()
}
