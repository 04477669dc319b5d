//! `atrous evaluate`

mod split;

use super::live::LogOptions;
use super::predict::{PredictOptions, Task, load, predictions, validation_panel};
use super::progress::bar;
use super::report as page;
use atrous::data::{CLASSES, Dataset, known_labels};
use atrous::eval::baselines::Controls;
use atrous::files::{check_writable, explain, write_atomically};
use atrous::predict::thresholds::{Objective, Thresholds};
use atrous::predict::{MaskOptions, MaskScores, Networks, Predictions, THRESHOLD, Trained};
use atrous::report::evaluation::{self, EVALUATION, Evaluation};
use atrous::report::html::REPORT;
use atrous::{Error, Result};
use clap::Args;
pub use split::Split;
use split::{Part, Subjects};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous evaluate --data voc --checkpoint result
  atrous evaluate --data voc --checkpoint result --task segment --superpixels
  atrous evaluate --data other_pictures --checkpoint result --split all
  atrous evaluate --data voc --checkpoint result --split hard_ones.txt

It scores on the pictures that training kept for validation, found again by their Ids wherever they stand \
now; pictures
that are missing, or are others than they were, are refused by name. With --split all, or a list of Ids, \
it scores any
pictures whose truth is known, of any folder, and tells which of them the network was trained on.

A classifier's mean average precision stands beside three controls that do not look at shapes; masks are \
compared at the
pictures' own size, beside masks of nothing but background. Options that change masks are measured \
beside the plain ones.")]
pub struct Evaluate {
    /// Folder with pictures whose truth is known
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A checkpoint, or a folder that `train` or `run` left (of which the best is taken)
    #[arg(long, value_name = "PATH", required = true)]
    checkpoint: Vec<PathBuf>,
    /// Which pictures: val (those that training kept for validation), all (every one whose truth is
    /// known), or a file with an Id a line
    #[arg(long, value_name = "val|all|FILE", default_value = "val")]
    split: Split,
    /// Which networks to score [default: all there are]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// Folder to write scores.txt, validation.png, evaluation.json (figures by class and by picture) and
    /// report.html to [default: they are not written]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: PredictOptions,
    #[command(flatten)]
    log: LogOptions,
}

/// What is written into the folder.
const SCORES: &str = "scores.txt";
const PANEL: &str = "validation.png";

impl Evaluate {
    pub fn run(self) -> Result<()> {
        self.log.apply();
        self.how.check()?;
        let networks = load(&self.checkpoint, self.task)?;
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out).map_err(|error| Error::file(out, explain(&error)))?;
            [SCORES, PANEL, EVALUATION, REPORT]
                .iter()
                .try_for_each(|name| check_writable(out.join(name)))?;
        }
        evaluate(&networks, &self.data, &self.split, &self.how, self.out.as_deref(), None)?;
        self.out.as_deref().map_or(Ok(()), page::write)
    }
}

/// What a classifier said of its run's validation pictures.
pub struct Validated {
    /// [pictures, classes], in the run's order.
    pub probabilities: Vec<f32>,
    /// It took.
    pub seconds: f64,
}

/// Prints the scores of the networks on pictures of a folder, and writes them into another. What the
/// classifier said of validation pictures before, it is not asked again.
pub fn evaluate(
    networks: &Networks,
    data: &Path,
    split: &Split,
    how: &PredictOptions,
    out: Option<&Path>,
    validated: Option<Validated>,
) -> Result<()> {
    let validated = validated.filter(|_| *split == Split::Validation);
    let mut report = String::new();
    let (mut shown, mut scored) = (None, Vec::new());
    for trained in [&networks.classifier, &networks.segmenter].into_iter().flatten() {
        if *split == Split::Validation && trained.config.val_indices.is_empty() {
            println!("{}: no pictures were kept for validation", trained.path.display());
            continue;
        }
        let subjects = Subjects::of(trained, data, split)?;
        if let Some(words) = subjects.known_to_the_network() {
            println!("{}: {words}", trained.path.display());
            let _ = writeln!(report, "{words}");
        }
        for (i, part) in subjects.parts().iter().enumerate() {
            let (text, mut measured) = match trained.config.network.segments() {
                true => masks(trained, &subjects, part, how)?,
                false => labels(trained, &subjects, part, how, validated.as_ref())?,
            };
            println!("{text}");
            let _ = writeln!(report, "{text}");
            // (Of a part's own part the examples are among these.)
            if let (Some(out), 0) = (out, i) {
                measured.write_examples(&*subjects.dataset, &part.indices, out)?;
            }
            scored.push(measured.evaluation);
        }
        shown = Some(subjects);
    }
    let Some(out) = out else { return Ok(()) };
    if !report.is_empty() {
        write_atomically(out.join(SCORES), |file| file.write_all(report.as_bytes()))?;
        evaluation::write(&scored, out)?;
    }
    if let Some(Subjects { dataset, indices, .. }) = shown {
        validation_panel(networks, &dataset, &indices, &out.join(PANEL))?;
    }
    Ok(())
}

/// A network alone, as [`predictions`] takes it.
fn alone(trained: &Trained) -> Result<Networks> {
    let mut networks = Networks::default();
    networks.add(trained.clone())?;
    Ok(networks)
}

/// Figures, and the predictions they are of.
struct Measured {
    evaluation: Evaluation,
    predictions: Predictions,
}

impl Measured {
    fn new(
        evaluation: Evaluation,
        predictions: Predictions,
        trained: &Trained,
        kind: &str,
        seconds: f64,
    ) -> Self {
        let evaluation = Evaluation {
            network: trained.config.network.name.clone(),
            checkpoint: trained.path.display().to_string(),
            kind: kind.into(),
            seconds,
            ..evaluation
        };
        Measured { evaluation, predictions }
    }

    fn write_examples(&mut self, dataset: &dyn Dataset, indices: &[usize], out: &Path) -> Result<()> {
        self.evaluation.write_examples(&self.predictions, dataset, indices, out)
    }
}

/// What a classifier comes to, in words and in figures.
fn labels(
    trained: &Trained,
    subjects: &Subjects,
    part: &Part,
    how: &PredictOptions,
    validated: Option<&Validated>,
) -> Result<(String, Measured)> {
    let (dataset, networks, began) = (&subjects.dataset, alone(trained)?, Instant::now());
    let predictions = match validated {
        Some(Validated { probabilities, .. }) => {
            let (probabilities, masks) = (probabilities.clone(), how.masks());
            networks.predict_from(probabilities, dataset, &part.indices, &masks, how.threshold)?
        }
        None => predictions(&networks, dataset, &part.indices, how)?,
    };
    let seconds = validated.map_or(began.elapsed().as_secs_f64(), |known| known.seconds);
    let evaluation = Evaluation::of_labels(&predictions, &**dataset, &part.indices)?;
    let measured = |predictions| Measured::new(evaluation, predictions, trained, part.kind, seconds);
    let (probabilities, seed) = (&predictions.probabilities, trained.config.seed);
    let lessons = subjects.lessons(&trained.config);
    let controls = Controls::measure(lessons, &**dataset, &part.indices, probabilities, seed)?;
    let controls = match controls {
        Some(controls) => Controls { kind: part.kind, ..controls }.to_string(),
        None => {
            let n = part.indices.len();
            format!("no class is in any of {n} {}: there is no mean average precision", part.kind)
        }
    };
    let columns = CLASSES.len();
    let labels = known_labels(&**dataset, &part.indices)?;
    let dice =
        |thresholds: &Thresholds| thresholds.score(&labels, &predictions.probabilities, Objective::Dice);
    let at = how.threshold.unwrap_or(THRESHOLD);
    let mut line =
        format!("  submission Dice                {:.3}", dice(&Thresholds::uniform(at, columns))?);
    line += &format!("   (mean over pictures, at {at})");
    if how.threshold.is_none() && trained.thresholds.is_some() {
        let own = dice(&predictions.thresholds)?;
        line += &format!("\n  with its own thresholds        {own:.3}");
        if subjects.split == Split::Validation {
            line += "   (fitted on these very pictures)";
        }
    }
    Ok((format!("{controls}\n{line}"), measured(predictions)))
}

/// What masks come to, in words and in figures.
fn masks(
    trained: &Trained,
    subjects: &Subjects,
    part: &Part,
    how: &PredictOptions,
) -> Result<(String, Measured)> {
    let (dataset, indices) = (&subjects.dataset, &part.indices[..]);
    let networks = alone(trained)?;
    let measure = |how: &PredictOptions| {
        let (predictions, began) = (predictions(&networks, dataset, indices, how)?, Instant::now());
        let bar = bar(indices.len(), "masks");
        let mut progress = |done| bar.set_position(done as u64);
        let (scores, evaluation) =
            Evaluation::of_masks(&predictions, &**dataset, indices, &mut progress)?;
        bar.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        let measured = Measured::new(evaluation, predictions, trained, part.kind, seconds);
        Ok::<_, Error>((MaskScores { kind: part.kind, ..scores }, measured))
    };
    let options = how.masks();
    if options == MaskOptions::default() {
        return measure(how).map(|(scores, measured)| (scores.to_string(), measured));
    }
    let (plain, _) = measure(&PredictOptions::default())?;
    let mut names = Vec::new();
    if options.scales != [1.0] {
        names.push(format!("scales {:?}", options.scales));
    }
    for (set, name) in [(how.flip, "flip"), (how.nearest, "nearest"), (how.superpixels, "superpixels")] {
        names.extend(set.then(|| name.to_string()));
    }
    let (changed, measured) = measure(how)?;
    Ok((format!("plain: {plain}\nwith {}: {changed}", names.join(", ")), measured))
}
