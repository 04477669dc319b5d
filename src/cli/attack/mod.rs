//! `atrous attack`

mod defences;
mod experiment;
mod methods;
mod output;
mod panel;
mod subjects;
mod transfer;

use super::live::LogOptions;
use super::progress::interruptible;
use atrous::attack::{EpsBall, Norm};
use atrous::data::Classes;
use atrous::files::explain;
use atrous::{Error, Result};
use clap::{Args, FromArgMatches, ValueEnum};
use experiment::Experiment;
use methods::Method;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous attack --data voc --checkpoint result
  atrous attack --data voc --checkpoint result --method fgsm,pgd,mim,square --curve
  atrous attack --data voc --checkpoint result --target cat --epsilon 4/255
  atrous attack --data voc --checkpoint result --task segment --from person --target background
  atrous attack --data voc --checkpoint a --transfer b --transfer c
  atrous attack --data voc --checkpoint result --defences
  atrous attack --data voc --checkpoint result --preset notebook

It perturbs pictures by no more than ε, so that the network errs: a classifier says none of the true
labels any more (or says --target), each pixel of a mask is wrong (or those of --from become
--target). Perturbations are made at the network's size, on values from 0 to 1; 8/255 means eight of
the 255 steps of a picture file. Each ε is attacked on its own: its figures are the same alone and
among others; `so far` is the best of it and of the smaller ones beside it. It leaves in the output \
folder: perturbed/ (the pictures, rounded to
bytes, as a test set that `atrous predict --data` reads), attack.csv (one row a picture),
summary.json, panel.png, report.html (all of it, in one page); with several ε curves.png and curves.svg. \
Ctrl-C keeps what is done.")]
pub struct Attack {
    /// Folder with the pictures that the network was trained on
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The victim: a checkpoint, or a folder that `train` or `run` left (of which the best is taken)
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// Which network of the folder [default: the classifier, if there is one]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// One or several, with commas: fgsm, pgd, mim, deepfool, square (asks, and needs no gradient),
    /// universal (one perturbation for all pictures), generator (a network that perturbs); for masks
    /// fgsm, pgd, segpgd, mim, universal, generator [default: pgd; segpgd for masks]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    method: Vec<Method>,
    /// How much a value may change (linf), or the root of all squared changes (l2), of pictures from 0 to 1.
    /// Several with commas make a curve, from the smallest on [default: 8/255; 2 for l2]
    #[arg(long, value_name = "E", value_delimiter = ',', allow_hyphen_values = true)]
    epsilon: Vec<Epsilon>,
    /// A curve over eight ε up to twice the usual one, 0 before them
    #[arg(long, conflicts_with = "epsilon")]
    curve: bool,
    /// linf or l2
    #[arg(long, value_name = "NORM", default_value = "linf")]
    norm: Norm,
    /// Steps of pgd, segpgd and mim
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: usize,
    /// Length of a step [default: 2.5 ε / steps; ε / steps for mim]
    #[arg(long, value_name = "E")]
    step: Option<Epsilon>,
    /// Random starts of pgd, after the one from FGSM's picture
    #[arg(long, value_name = "N", default_value_t = 1)]
    restarts: usize,
    /// Times that square asks the network about a picture
    #[arg(long, value_name = "N", default_value_t = 300)]
    queries: usize,
    /// A generator that was trained before; else one is trained at 8/255, and left in the output folder.
    /// At another ε its perturbation is made larger or smaller
    #[arg(long, value_name = "FILE")]
    generator: Option<PathBuf>,
    /// Steps of the generator's training
    #[arg(long, value_name = "N", default_value_t = GENERATOR_STEPS)]
    generator_steps: usize,
    /// The class that the network is to see: one of VOC's, or background for masks
    #[arg(long, value_name = "CLASS")]
    target: Option<String>,
    /// Masks: the class whose pixels are to become --target
    #[arg(long, value_name = "CLASS", requires = "target")]
    from: Option<String>,
    /// How many pictures; 0 for all
    #[arg(long, value_name = "N", default_value_t = 200)]
    images: usize,
    /// Which pictures
    #[arg(long, value_enum, value_name = "SPLIT", default_value = "validation")]
    split: Split,
    /// What counts as right: the true labels (or masks), or what the network says of the picture as it is
    #[arg(long, value_enum, value_name = "WHICH", default_value = "true")]
    labels: Truth,
    /// Another network that is shown the pictures that the first method perturbs by the largest ε; any
    /// number of times
    #[arg(long, value_name = "PATH")]
    transfer: Vec<PathBuf>,
    /// Measure defences of a classifier against pgd at the largest ε: bit depth, median, PCA,
    /// adversarial training, distillation, detectors. Trains three networks
    #[arg(long)]
    defences: bool,
    /// Epochs of adversarial training
    #[arg(long, value_name = "N", default_value_t = 6, requires = "defences")]
    defence_epochs: usize,
    /// notebook: FGSM with its four ε, 0, .11, .17 and .28 on a scale from -1 to 1
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// Pictures at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    /// The same seed gives the same perturbations
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder for the results
    #[arg(long, value_name = "DIR", default_value = "out/attack")]
    out: PathBuf,
    #[command(flatten)]
    log: LogOptions,
}

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
        match (Attack { images, out: out.join("attack").join(name), ..attack }.run()) {
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
        match self.preset.as_deref() {
            None => {}
            Some("notebook") => {
                if !self.method.is_empty() || !self.epsilon.is_empty() || self.curve {
                    let message = "notebook sets method and epsilon itself";
                    return Err(Error::argument("--preset", message));
                }
                self.method = vec![Method::Fgsm];
                self.epsilon = NOTEBOOK.map(Epsilon).to_vec();
            }
            Some(other) => {
                return Err(Error::argument(
                    "--preset",
                    format!("`{other}` is unknown; there is `notebook`"),
                ));
            }
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
