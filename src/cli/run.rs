//! `atrous run`: the whole pipeline in one folder.

use super::attack;
use super::data::{GALLERY, check_or_fail};
use super::device;
use super::evaluate::{Split, evaluate};
use super::folder::refuse_full;
use super::live::LiveOptions;
use super::options::TaskOptions;
use super::predict::{PredictOptions, Task, write_submission};
use super::report as page;
use super::train::{Job, lock, open};
use atrous::data::source::Source;
use atrous::predict::{Networks, Trained, locate};
use atrous::{Error, Result, report};
use clap::{Args, ValueHint};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_long_help = "\
It checks the folder, trains a classifier and a network for masks, scores both on images kept for \
validation, predicts the test images, and attacks both networks.

It leaves in the output folder: classify/ and segment/ (what `train` leaves), gallery.png, scores.txt, \
evaluation.json, validation.png, submission.csv with the rows of both tasks, probabilities.csv, panel.png, \
attack/ (what `attack` leaves), report.html (all of it, in one page; its plots in plots/, its images in \
examples/). Ctrl-C saves; --resume goes on from there.

Examples:
  atrous run --data voc --out result
  atrous run --data voc --out result --classify model=mobilenetv2 \\
      --classify weights=mobilenetv2.h5 --segment epochs=12
  atrous run --data voc --out result --config pipeline.toml --resume")]
pub struct Run {
    /// Folder with images, in any layout (`atrous train classify --help`)
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: PathBuf,
    /// Folder for the results
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Which networks to train [default: both; classify where no image has a mask]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// Go on with the run in the output folder
    #[arg(long)]
    resume: bool,
    /// Begin anew in a folder that is not empty, in place of a run there
    #[arg(long, conflicts_with = "resume")]
    force: bool,
    /// Validation images to attack the networks on; 0: no attack
    #[arg(long, value_name = "N", default_value_t = ATTACKED)]
    attack_images: usize,
    #[command(flatten)]
    how: PredictOptions,
    #[command(flatten)]
    training: TaskOptions,
    #[command(flatten)]
    live: LiveOptions,
}

/// Validation pictures that a run attacks its networks on: seconds beside minutes of training.
pub const ATTACKED: usize = 32;

impl Run {
    pub fn run(self) -> Result<()> {
        self.live.log.apply();
        self.how.check()?;
        self.live.check()?;
        if !self.resume && !self.force {
            let instead =
                "go on with --resume, begin anew in its place with --force, or choose another --out";
            refuse_full(&self.out, instead)?;
        }
        check_or_fail(&self.data)?;
        let task = match self.task {
            Some(task) => task,
            None if has_masks(&self.data)? => Task::Both,
            None => {
                println!("no training picture has a mask: classification alone");
                Task::Classify
            }
        };
        Pipeline {
            data: &self.data,
            out: &self.out,
            task,
            resume: self.resume,
            force: self.force,
            attack_images: self.attack_images,
            how: self.how,
            training: self.training,
            live: self.live,
        }
        .run()
    }
}

fn has_masks(data: &Path) -> Result<bool> {
    let training = open(data, false)?;
    Ok(training.train.iter().any(|&index| training.dataset.has_mask(index)))
}

/// Train, score, predict, submit.
pub struct Pipeline<'a> {
    pub data: &'a Path,
    pub out: &'a Path,
    pub task: Task,
    pub resume: bool,
    pub force: bool,
    pub attack_images: usize,
    pub how: PredictOptions,
    pub training: TaskOptions,
    pub live: LiveOptions,
}

impl Pipeline<'_> {
    fn job(&self, segments: bool) -> Result<Job> {
        Ok(Job {
            data: open(self.data, segments)?,
            folder: self.data.to_owned(),
            out: self.out.join(if segments { "segment" } else { "classify" }),
            resume: self.resume,
            force: self.force,
            options: self.training.of(segments)?,
            segments,
            live: self.live.of(segments),
        })
    }

    pub fn run(mut self) -> Result<()> {
        let _lock = lock(self.out)?;
        let source = Source::open(self.data)?;
        let task = source.natural_task();
        // Before any work: test pictures that cannot be read show now.
        let test = if source.has_test(task) { Some(source.test(task)?) } else { None };
        let jobs = [(self.task.classifies(), false), (self.task.segments(), true)];
        let jobs =
            jobs.into_iter().filter(|(wanted, _)| *wanted).map(|(_, segments)| self.job(segments));
        let jobs = jobs.collect::<Result<Vec<Job>>>()?;
        // The second network's options, weights and masks are looked at before the first one is trained
        // for nothing.
        jobs.iter().try_for_each(Job::check)?;
        let mut networks = Networks::default();
        for job in jobs {
            let out = job.out.clone();
            job.run()?;
            let [file] = &locate(&out)?[..] else {
                return Err(Error::file(&out, "expected one network, got several"));
            };
            let trained = Trained::load(file)?.to_device(device())?;
            // The notebook's masks were scaled up by OpenCV's nearest.
            self.how.nearest |= trained.config.network.segments()
                && trained.config.preset == "notebook"
                && self.how.masks() == Default::default();
            networks.add(trained)?;
        }
        let gallery = self.out.join("gallery.png");
        report::gallery(&*open(self.data, false)?.dataset, &gallery, GALLERY)?;
        println!("gallery: {}", gallery.display());
        evaluate(&networks, self.data, &Split::Validation, &self.how, Some(self.out))?;
        match test {
            Some(test) => {
                write_submission(&networks, &test, &self.how, &self.out.join("submission.csv"))?;
            }
            None => println!("{} has no test pictures: there is no submission", self.data.display()),
        }
        // What validation pictures there are was chosen when training began: there may be none.
        let trained = [&networks.classifier, &networks.segmenter];
        if self.attack_images > 0
            && trained.into_iter().flatten().all(|t| !t.config.val_indices.is_empty())
        {
            let tasks = [
                networks.classifier.as_ref().map(|_| "classify"),
                networks.segmenter.as_ref().map(|_| "segment"),
            ];
            let tasks: Vec<&str> = tasks.into_iter().flatten().collect();
            drop(networks);
            attack::of_run(self.data, self.out, &tasks, self.attack_images)?;
        }
        page::write(self.out)
    }
}
