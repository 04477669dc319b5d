//! The victim, its pictures, and what it is to be led to.

use super::defences::Defences;
use super::methods::{Method, Variant};
use super::output::{Outcome, Report};
use super::subjects::{self, Known};
use super::{Attack as Options, Split, Task, Truth, class};
use crate::cli::device;
use crate::cli::progress::{bar, check_interrupted};
use crate::cli::train::open;
use atrous::attack::generator::Generator;
use atrous::attack::{
    self, Attack, AttackResult, AttackTarget, Goal, Images, LabelObjective, MaskObjective, Network,
    SoFar, Subjects, Summary, Victim, trial,
};
use atrous::data::image::fit_mask;
use atrous::data::source::Source;
use atrous::data::{Classes, Dataset, VOID};
use atrous::eval::metrics::arg_max;
use atrous::predict::{THRESHOLD, Trained, locate, masks_of};
use atrous::{Error, Result};
use clap::ValueEnum;
use std::path::Path;
use std::sync::Arc;

/// A network and its name in tables.
pub struct NamedVictim {
    pub name: String,
    pub trained: Trained,
    pub victim: Network,
}

impl NamedVictim {
    fn load(path: &Path, task: Option<Task>) -> Result<Self> {
        let mut found = Vec::new();
        for file in locate(path)? {
            found.push(Trained::load(&file)?.to_device(device())?);
        }
        let wanted = |trained: &Trained| match task {
            Some(task) => trained.config.network.segments() == (task == Task::Segment),
            None => true,
        };
        let first = found.into_iter().find(wanted);
        let trained =
            first.ok_or_else(|| Error::file(path, "there is no network for this --task in it"))?;
        let name = format!("{} ({})", trained.config.network.name, path.display());
        let victim = Network::new(&trained.model, trained.config.preprocess)?.named(&name);
        Ok(NamedVictim { name, trained, victim })
    }

    pub fn segments(&self) -> bool {
        self.trained.config.network.segments()
    }

    /// What it tells apart: does it segment, and what are the classes called?
    pub fn kind(&self) -> (bool, Classes) {
        (self.segments(), self.trained.config.classes.clone())
    }
}

pub struct Experiment<'a> {
    pub options: &'a Options,
    pub methods: Vec<Method>,
    pub contenders: Vec<NamedVictim>,
    pub dataset: Arc<dyn Dataset>,
    pub indices: Vec<usize>,
    /// What the universal perturbation and the generator learn from.
    pub learn: Arc<dyn Dataset>,
    pub target: Option<u8>,
    pub from: Option<u8>,
    /// What has to be known of a picture.
    pub known: Option<Known>,
}

/// Logits beyond the boundary that an attack goes on to: rounding to bytes takes up to a 16th of 8/255 away.
const MARGIN: f32 = 0.5;

impl<'a> Experiment<'a> {
    pub fn new(options: &'a Options) -> Result<Self> {
        let first = NamedVictim::load(&options.checkpoint, options.task)?;
        let segments = first.segments();
        let task = Some(if segments { Task::Segment } else { Task::Classify });
        let mut contenders = vec![first];
        for path in &options.transfer {
            contenders.push(NamedVictim::load(path, task)?);
        }
        let names = &contenders[0].trained.config.classes;
        let number = |option: &'static str, name: &String| class(option, name, names);
        let target = options.target.as_ref().map(|name| number("--target", name)).transpose()?;
        let from = options.from.as_ref().map(|name| number("--from", name)).transpose()?;
        match (segments, target, from) {
            (false, Some(0), _) => {
                return Err(Error::argument("--target", "a classifier knows no background"));
            }
            (false, _, Some(_)) => {
                return Err(Error::argument(
                    "--from",
                    "it is for masks; a classifier needs --target alone",
                ));
            }
            (true, Some(_), None) => {
                let message = "masks need --from CLASS too: which pixels are to become this";
                return Err(Error::argument("--target", message));
            }
            _ => {}
        }
        if options.defences && (segments || options.defence_epochs == 0) {
            let message = "they are for classifiers, and train for at least one epoch";
            return Err(Error::argument("--defences", message));
        }
        let mut methods = match (&options.method[..], segments) {
            ([], false) => vec![Method::Pgd],
            ([], true) if target.is_some() => vec![Method::Pgd],
            ([], true) => vec![Method::Segpgd],
            (given, _) => given.to_vec(),
        };
        methods = (0..methods.len())
            .filter(|&i| !methods[..i].contains(&methods[i]))
            .map(|i| methods[i])
            .collect();
        for &method in &methods {
            let wrong =
                |message| Err(Error::argument("--method", format!("{}: {message}", method.name())));
            match method {
                Method::Segpgd if !segments => return wrong("it is for masks"),
                Method::Segpgd if target.is_some() => return wrong("it has no target; pgd has"),
                Method::Deepfool | Method::Square if segments => return wrong("it is for classifiers"),
                _ => {}
            }
        }
        let config = &contenders[0].trained.config;
        let training = open(&options.data, segments)?;
        let learn = config.find_samples(&training.dataset, &contenders[0].trained.path)?;
        let (dataset, indices) = match options.split {
            Split::Train => (learn.clone(), config.train_indices.clone()),
            Split::Validation => (learn.clone(), config.val_indices.clone()),
            Split::Test => {
                let source = Source::open(&options.data)?;
                let test = source.test(source.natural_task())?;
                let all = (0..test.len()).collect();
                (test, all)
            }
        };
        if indices.is_empty() {
            let which =
                options.split.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
            let message = format!("there is no picture to attack in `{which}`; give another --split");
            return Err(Error::argument("--split", message));
        }
        let known = match options.labels {
            Truth::Predicted => None,
            Truth::True if segments => from.is_none().then_some(Known::Mask),
            Truth::True => Some(Known::Labels { set: target.is_none() }),
        };
        let limit = if options.images > 0 { options.images } else { usize::MAX };
        let indices = subjects::first_known(known, &*dataset, &indices, limit)?;
        Ok(Experiment { options, methods, contenders, dataset, indices, learn, target, from, known })
    }

    /// What the network should say of samples, as the options have it.
    pub fn aim(
        &self,
        of: &NamedVictim,
        dataset: &dyn Dataset,
        indices: &[usize],
        images: &Images,
        weighted: bool,
    ) -> Result<AttackTarget> {
        let missing = |index: usize, what: &str| subjects::missing(dataset, index, what);
        let predicted = self.options.labels == Truth::Predicted;
        if of.segments() {
            let now = || masks_of(&attack::logits(&of.victim, &images.x)?);
            if let (Some(from), Some(to)) = (self.from, self.target) {
                return Ok(AttackTarget::Masks(MaskObjective::turn(now()?, from, to)?));
            }
            let truth = |&index: &usize| {
                let mask = dataset.mask(index)?.ok_or_else(|| missing(index, "mask"))?;
                fit_mask(&mask, images.side(), of.trained.config.fit, VOID)
            };
            let truth =
                if predicted { now()? } else { indices.iter().map(truth).collect::<Result<_>>()? };
            return Ok(AttackTarget::Masks(MaskObjective::untargeted(truth, weighted)));
        }
        let classes = of.trained.config.classes.len();
        let mut objective = LabelObjective {
            truth: vec![vec![false; classes]; indices.len()],
            goal: self.target.map_or(Goal::Untargeted, |class| Goal::Targeted(class as usize - 1)),
            exclusive: of.victim.exclusive(),
            thresholds: match &of.trained.thresholds {
                Some(thresholds) => thresholds.per_class.clone(),
                None => vec![THRESHOLD; classes],
            },
            margin: MARGIN,
            all_classes: false,
        };
        if predicted {
            let logits = attack::logits(&of.victim, &images.x)?;
            let rows = logits.as_slice::<f32>().unwrap_or_default().chunks_exact(classes);
            for (i, row) in rows.enumerate() {
                let mut said = objective.said(row);
                // The likeliest class counts where none is above its threshold.
                if !said.contains(&true) {
                    said[arg_max(row)] = true;
                }
                objective.truth[i] = said;
            }
        } else {
            for (truth, &index) in objective.truth.iter_mut().zip(indices) {
                *truth = dataset.labels(index).ok_or_else(|| missing(index, "labels"))?;
            }
        }
        objective.check()?;
        Ok(AttackTarget::Labels(objective))
    }

    pub fn trials(
        &self,
        attack: &Attack,
        method: Method,
        contender: &NamedVictim,
        indices: &[usize],
        done: &mut dyn FnMut(AttackResult) -> Result<()>,
    ) -> Result<()> {
        if indices.is_empty() {
            return Ok(());
        }
        let weighted = method == Method::Segpgd;
        let aim = |indices: &[usize], images: &Images| {
            self.aim(contender, &*self.dataset, indices, images, weighted)
        };
        let subjects = Subjects {
            dataset: &*self.dataset,
            indices,
            side: contender.victim.side(),
            fit: contender.trained.config.fit,
            aim: &aim,
            batch: self.options.batch_size,
        };
        let bar = bar(indices.len(), method.name());
        let result = trial::run(attack, &contender.victim, &subjects, &mut |trial| {
            bar.inc(1);
            done(trial)?;
            check_interrupted(method.name())
        });
        bar.finish_and_clear();
        result
    }

    pub fn run(&self, epsilons: &[f32]) -> Result<()> {
        let victim = &self.contenders[0];
        let subjects = self.subjects()?;
        let generator = match self.methods.contains(&Method::Generator) {
            true => Some(self.generator(victim)?),
            false => None,
        };
        let mut report =
            Report::new(self.options, victim, &self.methods, epsilons, self.from.is_some())?;
        let result = self.measure(epsilons, &subjects, generator.as_ref(), &mut report);
        if report.outcomes.is_empty() && !matches!(result, Ok(()) | Err(Error::Interrupted(_))) {
            return result;
        }
        // What was done before an error, or before Ctrl-C, is kept.
        let written = report.write(&*self.dataset);
        match result {
            Err(Error::Interrupted(unfinished)) => {
                written?;
                let kept = self.options.out.display();
                Err(Error::Interrupted(format!("{unfinished}; what is done is in {kept}")))
            }
            other => other.and(written),
        }
    }

    fn measure(
        &self,
        epsilons: &[f32],
        subjects: &[Vec<usize>],
        generator: Option<&Generator>,
        report: &mut Report,
    ) -> Result<()> {
        let victim = &self.contenders[0];
        for &method in &self.methods {
            // DeepFool has no ε: one run tells of all.
            let own = method == Method::Deepfool;
            let mut so_far = SoFar::default();
            let sizes = if own { &epsilons[epsilons.len() - 1..] } else { epsilons };
            for &epsilon in sizes {
                let variant = Variant::new(method, epsilon);
                let attack = self.attack(method, epsilon, victim, generator)?;
                let mut trials = Vec::new();
                let result = self.trials(&attack, method, victim, &subjects[0], &mut |trial| {
                    report.keep(&*self.dataset, variant, &trial, so_far.with(&trial))?;
                    trials.push(trial);
                    Ok(())
                });
                let interrupted = matches!(result, Err(Error::Interrupted(_)));
                if !interrupted {
                    result?;
                }
                // A few pictures are no point of a curve.
                let counts = !interrupted || self.methods.len() == 1 && epsilons.len() == 1;
                if !trials.is_empty() && counts {
                    let fit = victim.trained.config.fit;
                    let summary = Summary::of(&trials, &so_far, &*self.dataset, fit)?;
                    report.add(Outcome { variant, summary }, &trials, own.then_some(epsilons));
                }
                if interrupted {
                    let done = format!("after {} pictures of the last attack", trials.len());
                    return Err(Error::Interrupted(done));
                }
                so_far.add(&trials);
            }
        }
        let epsilon = epsilons[epsilons.len() - 1];
        if self.contenders.len() > 1 {
            let by = Variant::new(self.methods[0], epsilon);
            report.transfer = Some(self.transfer(by, epsilon, subjects, generator)?);
        }
        if self.options.defences {
            let ball = self.options.ball(epsilon);
            let defences = Defences::new(self, ball, self.options.defence_epochs);
            report.defences = defences.run(&self.options.out)?;
        }
        Ok(())
    }
}
