//! `atrous train classify`

use super::options::{Configured, TrainOptions};
use super::progress::{Training, interruptible};
use atrous::data::augment::{Ranges, Rule};
use atrous::data::class_weights::balanced;
use atrous::data::loader::{Loader, Recipe};
use atrous::data::voc_npy::{Split, VocNpy};
use atrous::data::{CLASSES, Dataset};
use atrous::files::explain;
use atrous::graph::Model;
use atrous::random::{Stream, domain};
use atrous::train::{self, Pace, Plan, Trainer};
use atrous::{Error, Result, models};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous train classify --data voc --out result
  atrous train classify --data voc --out result --resume
  atrous train classify --data voc --out result --config alexnet.toml --epochs 150

It leaves in the output folder: checkpoint.safetensors, history.csv, history.json.
Ctrl-C saves and stops; --resume goes on from there, to the same bits.")]
pub struct Classify {
    /// Folder with train/train_set.csv and train/img/
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder for what training leaves
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on with the run in the output folder
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    training: Configured,
}

impl Classify {
    pub fn run(self) -> Result<()> {
        let dataset: Arc<dyn Dataset> = Arc::new(VocNpy::open(&self.data, Split::Train)?);
        let job = Job { dataset, out: self.out, resume: self.resume, options: self.training.read()? };
        job.run().map(|_| ())
    }
}

/// A training run in a folder.
pub struct Job {
    pub dataset: Arc<dyn Dataset>,
    pub out: PathBuf,
    pub resume: bool,
    pub options: TrainOptions,
}

/// An error where a checkpoint is of a network for other classes than the data's.
pub fn saved_classes(path: &Path, classes: usize) -> Result<()> {
    if classes == CLASSES.len() {
        return Ok(());
    }
    let message = format!("expected a network for {} classes, got one for {classes}", CLASSES.len());
    Err(Error::file(path, message))
}

/// The file a run is saved in.
pub fn checkpoint_path(out: &Path) -> PathBuf {
    out.join("checkpoint.safetensors")
}

/// An error where the folder holds a run that nobody asked to go on with.
pub fn refuse_to_overwrite(out: &Path, resume: bool) -> Result<()> {
    let path = checkpoint_path(out);
    if resume || !path.exists() {
        return Ok(());
    }
    let message = "there is a run already; go on with --resume, or choose another --out";
    Err(Error::file(path, message))
}

impl Job {
    /// Trains (or goes on training) to the end, and leaves checkpoint and history.
    pub fn run(self) -> Result<Trainer> {
        let path = checkpoint_path(&self.out);
        let workers = self.options.workers.unwrap_or(2);
        if !(1..=256).contains(&workers) {
            return Err(Error::argument("--workers", format!("expected 1 to 256, got {workers}")));
        }
        let mut trainer = self.trainer(&path)?;
        let size = trainer.model.graph.nodes()[0].output_shape[0];
        let plan = trainer.plan.clone();
        let augment = plan.augment.then(|| (Ranges::default(), Rule::default()));
        let training = Loader {
            indices: plan.train_indices.clone(),
            workers,
            ..Loader::shuffled(
                self.dataset.clone(),
                Recipe { augment, ..Recipe::plain(size) },
                plan.batch_size,
                plan.seed,
            )
        };
        let validation = Loader {
            indices: plan.val_indices.clone(),
            workers,
            ..Loader::new(self.dataset.clone(), Recipe::plain(size), plan.batch_size)
        };
        println!(
            "training {} on {} pictures, validating on {}, {} steps an epoch",
            trainer.model.graph.name,
            plan.train_indices.len(),
            plan.val_indices.len(),
            training.steps()
        );
        let every_steps = Some(self.options.checkpoint_steps.unwrap_or(50)).filter(|&n| n > 0);
        let pace = Pace { checkpoint: Some(path.clone()), every_steps };
        let mut progress = Training::new();
        let result = interruptible(|| {
            trainer.fit(&training, Some(&validation), &pace, &mut |event| progress.show(event))
        });
        trainer.history.write(&self.out)?;
        result?;
        println!("checkpoint: {}", path.display());
        Ok(trainer)
    }

    fn trainer(&self, path: &Path) -> Result<Trainer> {
        if self.resume && path.exists() {
            let (trainer, saved) = train::load(path)?;
            saved_classes(path, saved.classes)?;
            let known = self.dataset.len();
            let indices = saved.plan.train_indices.iter().chain(&saved.plan.val_indices);
            if let Some(missing) = indices.clone().find(|&&i| i >= known) {
                let message = format!("the run needs picture number {missing}, the data has {known}");
                return Err(Error::file(path, message));
            }
            self.refuse_changes(path, &saved.plan, &saved.model, saved.size)?;
            println!("going on after epoch {}, step {}", saved.position.epoch, saved.position.step);
            return Ok(trainer);
        }
        refuse_to_overwrite(&self.out, self.resume)?;
        let name = self.options.model.as_deref().unwrap_or("alexnet");
        let size = self.options.size.unwrap_or(models::default_side(name));
        let plan = self.plan()?;
        let model = Model::new(models::by_name(name, size, CLASSES.len())?, plan.seed);
        let trainer = Trainer::new(model, plan)?;
        std::fs::create_dir_all(&self.out).map_err(|error| Error::file(&self.out, explain(&error)))?;
        // Before any work: a folder that cannot be written shows now, not after an epoch.
        train::save(path, &trainer)?;
        Ok(trainer)
    }

    /// A resumed run keeps the plan it began with; options that say otherwise are refused.
    fn refuse_changes(&self, path: &Path, plan: &Plan, model: &str, size: usize) -> Result<()> {
        let o = &self.options;
        let differs = [
            ("--model", o.model.as_deref().is_some_and(|m| m != model)),
            ("--size", o.size.is_some_and(|s| s != size)),
            ("--epochs", o.epochs.is_some_and(|e| e != plan.epochs)),
            ("--batch-size", o.batch_size.is_some_and(|b| b != plan.batch_size)),
            ("--learning-rate", o.learning_rate.is_some_and(|r| r != plan.learning_rate)),
            ("--optimizer", o.optimizer.as_ref().is_some_and(|n| *n != plan.optimizer)),
            ("--momentum", o.momentum.is_some_and(|m| m != plan.momentum)),
            ("--loss", o.loss.as_ref().is_some_and(|n| *n != plan.loss)),
            ("--augment", o.augment.is_some_and(|a| a != plan.augment)),
            ("--class-weights", o.class_weights.is_some_and(|w| w != plan.class_weights.is_some())),
            ("--seed", o.seed.is_some_and(|s| s != plan.seed)),
        ];
        match differs.iter().find(|(_, differs)| *differs) {
            Some((flag, _)) => {
                let message = format!("the run began with another {flag}; leave it out to go on");
                Err(Error::file(path, message))
            }
            None => Ok(()),
        }
    }

    fn plan(&self) -> Result<Plan> {
        let o = &self.options;
        let seed = o.seed.unwrap_or(0);
        let optimizer = o.optimizer.clone().unwrap_or("adam".into());
        let share = o.val_fraction.unwrap_or(0.1);
        if !(0.0..1.0).contains(&share) {
            return Err(Error::argument(
                "--val-fraction",
                format!("expected 0 ≤ share < 1, got {share}"),
            ));
        }
        let labelled: Vec<usize> =
            (0..self.dataset.len()).filter(|&i| self.dataset.labels(i).is_some()).collect();
        // Label 0 keeps this permutation apart from those of the epochs.
        let mut order = Stream::new(seed, &[domain::SHUFFLE]).permutation(labelled.len());
        let val = (labelled.len() as f64 * share).round() as usize;
        let mut split = |n: usize| {
            let mut part: Vec<usize> = order.drain(..n).map(|i| labelled[i]).collect();
            part.sort_unstable();
            part
        };
        let val_indices = split(val);
        let train_indices = split(labelled.len() - val);
        if train_indices.is_empty() {
            let message = format!(
                "of {} labelled pictures {val} are kept for validation, and none is left to train on",
                labelled.len()
            );
            return Err(Error::argument("--val-fraction", message));
        }
        let labels = train_indices.iter().filter_map(|&i| self.dataset.labels(i));
        let class_weights = o
            .class_weights
            .unwrap_or(true)
            .then(|| balanced(labels).iter().map(|&w| w as f32).collect());
        let learning_rate = o.learning_rate.unwrap_or(if optimizer == "sgd" { 0.01 } else { 0.001 });
        Ok(Plan {
            epochs: o.epochs.unwrap_or(40),
            batch_size: o.batch_size.unwrap_or(16),
            learning_rate,
            optimizer,
            momentum: o.momentum.unwrap_or(0.0),
            loss: o.loss.clone().unwrap_or("binary_crossentropy".into()),
            seed,
            augment: o.augment.unwrap_or(true),
            class_weights,
            train_indices,
            val_indices,
        })
    }
}
