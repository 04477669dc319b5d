//! `atrous train classify` and `atrous train segment`

mod plan;

use super::device;
use super::evaluate::Validated;
use super::folder::refuse_full;
use super::live::{self, LiveOptions, LiveRun};
use super::options::{Configured, TrainOptions};
use super::predict::{PredictOptions, predicted_panel, predictions};
use super::progress::{self, bar, interruptible};
use super::report as page;
use atrous::backend::cpu::threads;
use atrous::data::source::{Source, Training};
use atrous::data::voc_devkit::Task;
use atrous::data::{Dataset, known_labels};
use atrous::files::lock::FolderLock;
use atrous::files::{check_writable, explain};
use atrous::live::EVENTS;
use atrous::nn::Model;
use atrous::predict::thresholds::{self, Gain};
use atrous::predict::{Networks, Predictions, THRESHOLD, Trained};
use atrous::report::evaluation::{self, Evaluation};
use atrous::report::{self, html::TrainingRecord};
use atrous::train::{self, CheckpointPolicy, History, TrainConfig, TrainState, Trainer};
use atrous::{Error, Result, weights};
use clap::{Args, ValueHint};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[derive(Args)]
#[command(after_long_help = "\
The data is a folder in one of these layouts; `atrous data check` tells what is wrong with it.
  train/CLASS/*.jpg               a folder a class; val/ and test/ likewise
  train.csv or labels.csv         a table: a column a class, or class names in a column
  images/*, masks/*.png           masks of the same names, numbers as classes; classes.txt
  annotations/instances_*.json    COCO, its images in train2017/ and val2017/
  JPEGImages, ImageSets           VOCdevkit
  train/train_set.csv, train/img  the competition's .npy files

It leaves in the output folder: checkpoint.safetensors (the last epoch), best.safetensors (the one with \
the best validation), history.csv, history.json, curves.svg, curves.png, panel.png (validation images with \
their truth and the best epoch's word), run.json (how it was trained), evaluation.json (what the best \
epoch's predictions are worth, by class and by image), report.html (all of it, in one page; its plots in \
plots/, its images in examples/), events.jsonl (what happened when, for `atrous watch`), and of a \
classifier thresholds.json (over which probability a class is predicted).

Ctrl-C saves and stops; --resume goes on from there, to the same bits.

Examples:
  atrous train classify --data voc --out result
  atrous train classify --data voc --out result --resume
  atrous train classify --data voc --out tuned --model mobilenetv2 \\
      --weights no_top.h5 --unfreeze 0:0,5:30
  atrous train segment --data VOCdevkit --out masks \\
      --weights mobilenet_v1.h5
  atrous watch result                  # from another terminal")]
pub struct Command {
    /// Folder with the images
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: PathBuf,
    /// Folder for what training leaves
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Go on with the run in the output folder
    #[arg(long)]
    resume: bool,
    /// Begin anew in a folder that is not empty, in place of a run there
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    #[command(flatten)]
    training: Configured,
    #[command(flatten)]
    live: LiveOptions,
}

impl Command {
    pub fn run(self, segments: bool) -> Result<()> {
        self.live.log.apply();
        let (out, resume, force, options) = (self.out, self.resume, self.force, self.training.read()?);
        let data = open(&self.data, segments)?;
        Job { data, folder: self.data, out, resume, force, options, segments, live: self.live }
            .run()
            .map(drop)
    }
}

/// The training pictures of a folder.
pub fn open(folder: &Path, segments: bool) -> Result<Training> {
    let source = Source::open(folder)?;
    source.training(if segments { Task::Segmentation } else { source.natural_task() })
}

/// A training run in a folder.
pub struct Job {
    pub data: Training,
    /// Where the data are from.
    pub folder: PathBuf,
    pub out: PathBuf,
    pub resume: bool,
    /// In place of what is in the output folder.
    pub force: bool,
    pub options: TrainOptions,
    /// Pixels, not pictures, are labelled.
    pub segments: bool,
    /// Who watches.
    pub live: LiveOptions,
}

/// The file a run is saved in.
pub fn checkpoint_path(out: &Path) -> PathBuf {
    out.join("checkpoint.safetensors")
}

/// The file of its best epoch.
fn best_path(out: &Path) -> PathBuf {
    out.join("best.safetensors")
}

/// An error where the folder holds a run that nobody asked to go on with, or the best epoch of one that
/// nobody can go on with: it would be taken for the new run's.
pub fn refuse_to_overwrite(out: &Path, resume: bool) -> Result<()> {
    let (path, best) = (checkpoint_path(out), best_path(out));
    match (path.exists(), resume) {
        (true, true) => Ok(()),
        (true, false) => {
            let message = "there is a run already; go on with --resume, begin anew in its place with \
                           --force, or choose another --out";
            Err(Error::file(path, message))
        }
        (false, _) if best.is_file() => {
            let message = "it is the best epoch of a run whose checkpoint.safetensors is gone; move it away, \
                           or choose another --out";
            Err(Error::file(best, message))
        }
        (false, _) => Ok(()),
    }
}

/// A folder to work in alone.
pub fn lock(folder: &Path) -> Result<FolderLock> {
    let lock = FolderLock::acquire(folder)?;
    if let Some(why) = lock.unsupported() {
        println!("note: {} cannot be locked ({why}): let no other run write there", folder.display());
    }
    Ok(lock)
}

/// On what a step is computed.
fn arithmetic() -> String {
    match device() {
        atrous::Device::Cpu => {
            let fast = if atrous::context::fast_math() { " with --fast-math" } else { "" };
            format!("cpu ({:?}){fast}", atrous::context::isa())
        }
        device => format!("{device} in {}", atrous::context::precision()),
    }
}

/// Removes what an earlier run left that a new one would be taken together with.
fn remove_run(out: &Path) -> Result<()> {
    let left = ["history.csv", "history.json", "run.json", "evaluation.json", "thresholds.json", EVENTS];
    let left = left.map(|name| out.join(name)).into_iter().chain([checkpoint_path(out), best_path(out)]);
    for file in left.filter(|file| file.is_file()) {
        std::fs::remove_file(&file).map_err(|error| Error::file(&file, explain(&error)))?;
    }
    Ok(())
}

impl Job {
    /// An error where the output folder has something that nobody said a word about.
    fn refuse(&self) -> Result<()> {
        if self.force {
            return Ok(());
        }
        refuse_to_overwrite(&self.out, self.resume)?;
        match self.resume {
            true => Ok(()),
            false => refuse_full(&self.out, "write into it with --force, or choose another --out"),
        }
    }

    /// Everything that can be refused is refused, before this job or one before it has worked for nothing.
    pub fn check(&self) -> Result<()> {
        self.refuse()?;
        let path = checkpoint_path(&self.out);
        match self.resume && path.exists() {
            true => self.resumed(&path).map(drop),
            false => self.begun().map(drop),
        }
    }

    /// Trains (or goes on training) to the end, and leaves checkpoint, history and report; what the best
    /// epoch's network said of the validation pictures, if it is a classifier.
    pub fn run(mut self) -> Result<Option<Validated>> {
        let began = Instant::now();
        let _lock = lock(&self.out)?;
        self.refuse()?;
        let path = checkpoint_path(&self.out);
        let workers = self.options.workers.unwrap_or(2);
        if !(1..=256).contains(&workers) {
            return Err(Error::argument("--workers", format!("expected 1 to 256, got {workers}")));
        }
        self.live.check()?;
        check_writable(self.out.join(EVENTS))?;
        let mut trainer = self.trainer(&path)?;
        trainer.to_device(device())?;
        let config = trainer.config.clone();
        let dataset = &self.data.dataset;
        let training = config.training_loader(dataset, workers);
        let validation = config.scoring_loader(dataset, config.val_indices.clone());
        let (all, trainable) = trainer.model.count_parameters();
        let there = match device() {
            atrous::Device::Cpu if !atrous::context::fast_math() => String::new(),
            _ => format!(", on {}", arithmetic()),
        };
        if !config.arithmetic.is_empty() && config.arithmetic != arithmetic() {
            let (before, now) = (&config.arithmetic, arithmetic());
            println!(
                "the run began on {before}, and goes on on {now}: its last digits are others from here on"
            );
        }
        println!(
            "training {} ({trainable} of {all} parameters) on {} pictures, validating on {}, {} \
             steps an epoch{there}",
            trainer.model.graph.name,
            config.train_indices.len(),
            config.val_indices.len(),
            training.steps()
        );
        let every_steps = Some(self.options.checkpoint_steps.unwrap_or(50)).filter(|&n| n > 0);
        let best = (!config.val_indices.is_empty()).then(|| best_path(&self.out));
        if config.val_indices.is_empty() {
            println!("no picture is left to validate on: the last epoch counts as the best");
        }
        let pace = CheckpointPolicy { checkpoint: Some(path.clone()), every_steps, best };
        let start = live::start(&trainer, &self.folder, arithmetic(), training.steps());
        // (A display asks the terminal first, which may be silent for a second: a signal finds it as it was.)
        let begin = || LiveRun::begin(&self.live, &self.out, start, dataset, &config);
        let mut watchers = interruptible(begin)?;
        let result = interruptible(|| {
            trainer.fit(&training, Some(&validation), &pace, &mut |event| watchers.show(&event))
        });
        let watched = watchers.end(&result);
        let history = trainer.history.write(&self.out);
        // A run that failed has its own error to tell; pictures of it would only fill the disk.
        let interrupted = matches!(result, Err(Error::Interrupted(_)));
        if result.is_ok() || interrupted {
            let TrainState { epoch, step, .. } = trainer.position;
            let stopped = || TrainingRecord::stopped("Interrupted", [epoch, config.epochs, step]);
            let record = TrainingRecord {
                parameters: all,
                trainable,
                arithmetic: arithmetic(),
                threads: threads::count(),
                seconds: began.elapsed().as_secs_f64(),
                ended: if interrupted { stopped() } else { String::new() },
                ..TrainingRecord::of(&config)?
            };
            self.tell(&trainer.history, &record)?;
        }
        if interrupted {
            page::write(&self.out)?;
        }
        // Why the run ended goes before what could not be written of it.
        result?;
        history?;
        watched?;
        println!("checkpoint: {}{}", path.display(), progress::elapsed(began));
        drop(trainer);
        let best = pace.best.filter(|best| best.is_file());
        let validated = match best {
            Some(best) => self.look_back(Trained::load(&best)?.to_device(device())?)?,
            None => None,
        };
        page::write(&self.out)?;
        Ok(validated)
    }

    /// What a page tells of the training itself.
    fn tell(&self, history: &History, record: &TrainingRecord) -> Result<()> {
        if !history.epochs.is_empty() {
            report::curves(history, &self.out)?;
        }
        record.write(&self.out)
    }

    /// What the best epoch's network says of the validation pictures, which it sees once: thresholds, a
    /// panel, an evaluation.
    fn look_back(&self, trained: Trained) -> Result<Option<Validated>> {
        let (dataset, began) = (&self.data.dataset, Instant::now());
        let (config, checksum) = (trained.config.clone(), trained.checksum.clone());
        let indices = &config.val_indices[..];
        let mut networks = Networks::default();
        networks.add(trained)?;
        let mut all = predictions(&networks, dataset, indices, &PredictOptions::default())?;
        let seconds = began.elapsed().as_secs_f64();
        if !self.segments && !config.exclusive && config.preset != "notebook" {
            let labels = known_labels(&**dataset, indices)?;
            let (chosen, gain) = thresholds::choose(
                &labels,
                &all.probabilities,
                config.classes.len(),
                THRESHOLD,
                config.seed,
            )?;
            if let Some(Gain { before, shared, per_class, .. }) = gain {
                println!(
                    "thresholds: Dice {before:.3} at {THRESHOLD}, {shared:.3} with one fitted, \
                     {per_class:.3} with one fitted a class (on validation pictures they were not fitted on)"
                );
            }
            chosen.write(&self.out, &checksum)?;
            all.thresholds = chosen;
        }
        predicted_panel(&networks, &all, dataset, indices, &self.out.join("panel.png"))?;
        let mut scored = match self.segments {
            false => Evaluation { seconds, ..Evaluation::of_labels(&all, &**dataset, indices)? },
            true => self.scored_masks(&all, indices)?,
        };
        let best = best_path(&self.out);
        scored.network = config.network.name.clone();
        (scored.checkpoint, scored.kind) = (best.display().to_string(), "validation pictures".into());
        scored.write_examples(&all, &**dataset, indices, &self.out)?;
        evaluation::write(&[scored], &self.out)?;
        let probabilities = all.probabilities;
        Ok((!self.segments).then_some(Validated { probabilities, seconds }))
    }

    fn scored_masks(&self, all: &Predictions, indices: &[usize]) -> Result<Evaluation> {
        let (bar, began) = (bar(indices.len(), "masks"), Instant::now());
        let mut progress = |done| bar.set_position(done as u64);
        let (_, scored) = Evaluation::of_masks(all, &*self.data.dataset, indices, &mut progress)?;
        bar.finish_and_clear();
        Ok(Evaluation { seconds: began.elapsed().as_secs_f64(), ..scored })
    }

    /// The run in the output folder, and its samples in the folder of today.
    fn resumed(&self, path: &Path) -> Result<(Trainer, Arc<dyn Dataset>)> {
        let (trainer, saved) = train::load(path)?;
        if saved.config.network.segments() != self.segments {
            let task = if self.segments { "classify" } else { "segment" };
            let message = format!("the run is one of `atrous train {task}`: go on with that");
            return Err(Error::file(path, message));
        }
        self.refuse_changes(path, &saved.config)?;
        let dataset = saved.config.find_samples(&self.data.dataset, path)?;
        Ok((trainer, dataset))
    }

    /// From here on the data are the run's samples, under the run's numbers.
    fn trainer(&mut self, path: &Path) -> Result<Trainer> {
        if self.resume && path.exists() {
            let (trainer, dataset) = self.resumed(path)?;
            self.data.dataset = dataset;
            let TrainState { epoch, step, .. } = trainer.position;
            println!("going on after epoch {epoch}, step {step}");
            return Ok(trainer);
        }
        let Begun { trainer, dataset, words } = self.begun()?;
        words.iter().for_each(|line| println!("{line}"));
        self.data.dataset = dataset;
        std::fs::create_dir_all(&self.out).map_err(|error| Error::file(&self.out, explain(&error)))?;
        if self.force {
            remove_run(&self.out)?;
        }
        // Before any work: a folder that cannot be written shows now, not after an epoch.
        train::save(path, &trainer)?;
        Ok(trainer)
    }

    /// A run as the options have it, before its first step.
    fn begun(&self) -> Result<Begun> {
        let mut words = Vec::new();
        if self.resume {
            words.push(format!("{} has no run to go on with: a new one begins", self.out.display()));
        }
        let (mut config, dataset) = self.config(&mut words)?;
        let model = self.model(&mut config, &mut words)?;
        Ok(Begun { trainer: Trainer::new(model, config)?, dataset, words })
    }

    /// The network, its base from the file with weights where one is named.
    fn model(&self, config: &mut TrainConfig, words: &mut Vec<String>) -> Result<Model> {
        let Some(path) = &self.options.weights else {
            let model = Model::new(config.graph()?, config.seed);
            if !model.graph.base().is_empty() {
                words.push(format!("no --weights: the base of {} begins at random", model.graph.name));
            }
            return Ok(model);
        };
        let file = weights::read(path)?;
        config.origin = file.origin;
        let mut model = Model::new(config.graph()?, config.seed);
        // Weights want the range of values they were trained with, unless the notebook's is wanted.
        if self.options.preset.as_deref() != Some("notebook")
            && let Some(base) = weights::names::Base::of(&model.graph)
        {
            config.preprocess = file.origin.preprocess(base);
        }
        let heads: Vec<String> = weights::heads(&model.graph).into_iter().map(str::to_string).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let report = weights::load(&mut model, &file, &heads)?;
        let (tensors, numbers) = (report.matched.len(), report.numbers);
        words.push(format!("weights: {tensors} of {numbers} numbers from {}", path.display()));
        words.extend(report.remarks.iter().map(|remark| format!("note: {remark}")));
        Ok(model)
    }
}

/// A run before its first step, the samples it numbers, and what there is to say of both.
struct Begun {
    trainer: Trainer,
    dataset: Arc<dyn Dataset>,
    words: Vec<String>,
}
