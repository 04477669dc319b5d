//! `atrous attack`

mod defences;
mod experiment;
mod methods;
mod output;
mod panel;
mod subjects;
mod transfer;

use super::folder::refuse_full;
use super::live::LogOptions;
use super::progress::interruptible;
use super::values::{among, names};
use atrous::attack::{EpsBall, Norm};
use atrous::data::Classes;
use atrous::files::explain;
use atrous::{Error, Result};
use clap::{Args, FromArgMatches, ValueEnum, ValueHint};
use experiment::Experiment;
use methods::Method;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[derive(Args)]
#[command(after_long_help = "\
It perturbs images by no more than ε, so that the network errs: a classifier says none of the true labels \
any more (or says --target), each pixel of a mask is wrong (or those of --from become --target). \
Perturbations are made at the network's size, on values from 0 to 1; 8/255 means eight of the 255 steps of \
an image file. Each ε is attacked on its own: its figures are the same alone and among others; `so far` is \
the best of it and of the smaller ones beside it.

It leaves in the output folder: perturbed/ (the images, rounded to bytes, as a test set that `atrous \
predict --data` reads), attack.csv (one row an image), summary.json, panel.png, report.html (all of it, in \
one page); with several ε curves.png and curves.svg. Ctrl-C keeps what is done.

Examples:
  atrous attack --data voc --checkpoint result
  atrous attack --data voc --checkpoint result --curve \\
      --method fgsm,pgd,mim,square
  atrous attack --data voc --checkpoint result --target cat --epsilon 4/255
  atrous attack --data voc --checkpoint result --task segment \\
      --from person --target background
  atrous attack --data voc --checkpoint a --transfer b --transfer c
  atrous attack --data voc --checkpoint result --defences
  atrous attack --data voc --checkpoint result --preset notebook")]
pub struct Attack {
    /// Folder with the images that the network was trained on
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data: PathBuf,
    /// The victim: a checkpoint, or a folder that `train` or `run` left
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    checkpoint: PathBuf,
    /// Which network of the folder [default: the classifier, if there is one]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// Folder for the results
    #[arg(long, value_name = "DIR", default_value = "out/attack", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Write into a folder that is not empty, over files that are there
    #[arg(long)]
    force: bool,
    /// How to attack; several with commas [default: pgd; segpgd for masks]
    ///
    /// For masks there are fgsm, pgd, segpgd, mim, universal and generator.
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = ATTACK)]
    method: Vec<Method>,
    /// How far a perturbation goes; several with commas [default: 8/255; 2 for l2]
    ///
    /// How much a value may change (linf), or the root of all squared changes (l2), of images from 0 to 1.
    /// Several make a curve, from the smallest on.
    #[arg(long, value_name = "E", value_delimiter = ',', allow_hyphen_values = true, help_heading = ATTACK)]
    epsilon: Vec<Epsilon>,
    /// A curve over eight ε up to twice the usual one, and 0 before them
    #[arg(long, conflicts_with = "epsilon", help_heading = ATTACK)]
    curve: bool,
    /// What ε measures: the largest change, or their length
    #[arg(long, value_name = "NORM", default_value = "linf", help_heading = ATTACK)]
    #[arg(value_parser = among::<Norm>(&Norm::NAMES))]
    norm: Norm,
    /// Steps of pgd, segpgd and mim
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = ATTACK)]
    steps: usize,
    /// Length of a step [default: 2.5 ε / steps; ε / steps for mim]
    #[arg(long, value_name = "E", help_heading = ATTACK)]
    step: Option<Epsilon>,
    /// Random starts of pgd, after the one from FGSM's image
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = ATTACK)]
    restarts: usize,
    /// Times that square asks the network about an image
    #[arg(long, value_name = "N", default_value_t = 300, help_heading = ATTACK)]
    queries: usize,
    /// A generator that was trained before [default: one is trained at 8/255]
    ///
    /// The one that is trained is left in the output folder. At another ε its perturbation is made larger or
    /// smaller.
    #[arg(long, value_name = "FILE", help_heading = ATTACK, value_hint = ValueHint::FilePath)]
    generator: Option<PathBuf>,
    /// Steps of the generator's training
    #[arg(long, value_name = "N", default_value_t = GENERATOR_STEPS, help_heading = ATTACK)]
    generator_steps: usize,
    /// Set method and ε as the notebook did [default: nothing is set]
    ///
    /// FGSM with its four ε, 0, .11, .17 and .28 on a scale from -1 to 1.
    #[arg(long, value_name = "NAME", help_heading = ATTACK, value_parser = names(&["notebook"]))]
    preset: Option<String>,
    /// The class that the network is to see [default: any but the true ones]
    ///
    /// One of VOC's, or background for masks.
    #[arg(long, value_name = "CLASS", help_heading = GOAL)]
    target: Option<String>,
    /// Masks: the class whose pixels are to become --target [default: all]
    #[arg(long, value_name = "CLASS", requires = "target", help_heading = GOAL)]
    from: Option<String>,
    /// What counts as right: the truth, or what the network says unattacked
    #[arg(long, value_enum, value_name = "WHICH", default_value = "true", help_heading = GOAL)]
    labels: Truth,
    /// Which images
    #[arg(long, value_enum, value_name = "SPLIT", default_value = "validation", help_heading = IMAGES)]
    split: Split,
    /// How many images; 0 for all
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = IMAGES)]
    images: usize,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = IMAGES)]
    batch_size: usize,
    /// The same seed gives the same perturbations
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = IMAGES)]
    seed: u64,
    /// Show perturbed images to this network, too; any number of times [default: none]
    ///
    /// They are those that the first method makes at the largest ε.
    #[arg(long, value_name = "PATH", help_heading = MORE, value_hint = ValueHint::AnyPath)]
    transfer: Vec<PathBuf>,
    /// Measure defences of a classifier; trains three networks
    ///
    /// Bit depth, median, PCA, adversarial training, distillation and detectors, against pgd at the largest
    /// ε.
    #[arg(long, help_heading = MORE)]
    defences: bool,
    /// Epochs of adversarial training
    #[arg(long, value_name = "N", default_value_t = 6, requires = "defences", help_heading = MORE)]
    defence_epochs: usize,
    #[command(flatten)]
    log: LogOptions,
}

/// Sections of the help.
const ATTACK: &str = "Attack";
const GOAL: &str = "Goal";
const IMAGES: &str = "Images";
const MORE: &str = "Transfer and defences";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    Classify,
    Segment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Split {
    Train,
    Validation,
    Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Truth {
    True,
    Predicted,
}

/// A size of a perturbation: `0.03` or `8/255`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epsilon(pub f32);

impl FromStr for Epsilon {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.trim().parse::<f64>().ok();
        let value = match text.split_once('/') {
            Some((above, below)) => number(above).zip(number(below)).map(|(a, b)| a / b),
            None => number(text),
        };
        match value {
            // (−0 + 0 is 0.)
            Some(value) if value >= 0.0 && value.is_finite() => match value as f32 + 0.0 {
                0.0 if value > 0.0 => {
                    Err(format!("expected a number that an f32 tells from 0, got `{text}`"))
                }
                small => Ok(Epsilon(small)),
            },
            _ => Err(format!("expected a number of at least 0 like 0.03 or 8/255, got `{text}`")),
        }
    }
}

/// The most steps, starts, queries or epochs: at a tenth of a second each, more than a day.
const MOST: usize = 1_000_000;

/// ε of L∞ where none is given.
const USUAL: f32 = 8.0 / 255.0;

/// Two to three minutes on two cores with the AlexNet-like network; with 400 and a penalty of .02 its
/// tanh had saturated.
const GENERATOR_STEPS: usize = 200;

/// The notebook's ε, of a picture from −1 to 1: half as much from 0 to 1.
const NOTEBOOK: [f32; 4] = [0.0, 0.055, 0.085, 0.14];

/// The networks of a run, by the names of their tasks, attacked on some of their validation pictures:
/// `attack/classify` and `attack/segment` in its folder.
pub fn of_run(data: &Path, out: &Path, tasks: &[&str], images: usize) -> Result<()> {
    for &name in tasks {
        let checkpoint = out.join(name);
        // What else there is to say is the command's default.
        let command = Attack::augment_args(clap::Command::new("attack"));
        let given: [&OsStr; 7] = [
            "attack".as_ref(),
            "--data".as_ref(),
            data.as_ref(),
            "--checkpoint".as_ref(),
            checkpoint.as_ref(),
            "--task".as_ref(),
            name.as_ref(),
        ];
        let matches = command.try_get_matches_from(given);
        let attack = matches.and_then(|matches| Attack::from_arg_matches(&matches));
        let attack = attack.map_err(|error| Error::argument("attack", error))?;
        match (Attack { images, out: out.join("attack").join(name), force: true, ..attack }.run()) {
            // Validation pictures that show nothing: the run is done all the same.
            Err(Error::Argument { what: "--labels" | "--split", message }) => {
                println!("{name}: no attack: {message}");
            }
            done => done?,
        }
    }
    Ok(())
}

impl Attack {
    pub fn run(mut self) -> Result<()> {
        self.log.apply();
        // (There is one.)
        if self.preset.is_some() {
            if !self.method.is_empty() || !self.epsilon.is_empty() || self.curve {
                let message = "notebook sets method and epsilon itself";
                return Err(Error::argument("--preset", message));
            }
            self.method = vec![Method::Fgsm];
            self.epsilon = NOTEBOOK.map(Epsilon).to_vec();
        }
        for (flag, asked) in [
            ("--steps", self.steps),
            ("--restarts", self.restarts),
            ("--queries", self.queries),
            ("--generator-steps", self.generator_steps),
            ("--defence-epochs", self.defence_epochs),
        ] {
            if asked > MOST {
                return Err(Error::argument(flag, format!("expected at most {MOST}, got {asked}")));
            }
        }
        if self.batch_size == 0 {
            return Err(Error::argument("--batch-size", "expected at least 1, got 0"));
        }
        if !self.force {
            let instead = "write into it with --force, or choose another --out";
            refuse_full(&self.out, instead)?;
        }
        let usual = if self.norm == Norm::Linf { USUAL } else { 2.0 };
        let mut epsilons: Vec<f32> = match (self.curve, &self.epsilon[..]) {
            // 1, 2, 3, 4, 6, 8, 12 and 16 of 255.
            (true, _) => {
                [0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0].map(|share| share * usual).to_vec()
            }
            (false, []) => vec![usual],
            (false, given) => given.iter().map(|epsilon| epsilon.0).collect(),
        };
        epsilons.sort_by(f32::total_cmp);
        epsilons.dedup();
        let experiment = Experiment::new(&self)?;
        experiment.check(&epsilons)?;
        std::fs::create_dir_all(&self.out).map_err(|error| Error::file(&self.out, explain(&error)))?;
        interruptible(|| experiment.run(&epsilons))
    }

    fn ball(&self, epsilon: f32) -> EpsBall {
        EpsBall { norm: self.norm, epsilon }
    }
}

/// A class by name, by the number it has in a mask.
fn class(option: &'static str, name: &str, classes: &Classes) -> Result<u8> {
    if name == "background" {
        return Ok(0);
    }
    match classes.iter().position(|class| class == name).and_then(|at| u8::try_from(at + 1).ok()) {
        Some(number) => Ok(number),
        None => {
            let known = classes.iter().collect::<Vec<_>>().join(", ");
            Err(Error::argument(option, format!("`{name}` is none of background, {known}")))
        }
    }
}
