//! `atrous evaluate`

use super::predict::{How, Task, load, predictions, validation_panel};
use super::progress::bar;
use super::train::open;
use atrous::controls::Controls;
use atrous::data::source::Training;
use atrous::data::{CLASSES, Labels};
use atrous::files::{explain, write_atomically};
use atrous::predict::{MaskOptions, MaskScores, Networks, THRESHOLD, Trained};
use atrous::thresholds::{Objective, Thresholds};
use atrous::{Error, Result};
use clap::Args;
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous evaluate --data voc --checkpoint result
  atrous evaluate --data voc --checkpoint result --task segment --superpixels

It scores on the pictures that training kept for validation. A classifier's mean average
precision stands beside three controls that do not look at shapes; masks are compared at the
pictures' own size, beside masks of nothing but background. Options that change masks are
measured beside the plain ones.")]
pub struct Evaluate {
    /// Folder with the pictures that the networks were trained on
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A checkpoint, or a folder that `train` or `run` left (of which the best is taken)
    #[arg(long, value_name = "PATH", required = true)]
    checkpoint: Vec<PathBuf>,
    /// Which networks to score [default: all there are]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// Folder to write scores.txt and validation.png to [default: they are not written]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

impl Evaluate {
    pub fn run(self) -> Result<()> {
        self.how.check()?;
        let networks = load(&self.checkpoint, self.task)?;
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out).map_err(|error| Error::file(out, explain(&error)))?;
        }
        evaluate(&networks, &self.data, &self.how, self.out.as_deref())
    }
}

/// Prints the scores of the networks on their validation pictures, and writes them into a folder.
pub fn evaluate(networks: &Networks, data: &Path, how: &How, out: Option<&Path>) -> Result<()> {
    let mut report = String::new();
    for trained in [&networks.classifier, &networks.segmenter].into_iter().flatten() {
        let training = open(data, trained.plan.network.segments())?;
        trained.plan.samples_are_in(training.dataset.len(), &trained.path)?;
        if trained.plan.val_indices.is_empty() {
            println!("{}: no pictures were kept for validation", trained.path.display());
            continue;
        }
        let text = match trained.plan.network.segments() {
            true => masks(trained, &training, how)?,
            false => labels(trained, &training, how)?,
        };
        println!("{text}");
        let _ = writeln!(report, "{text}");
    }
    let Some(out) = out else { return Ok(()) };
    if !report.is_empty() {
        write_atomically(out.join("scores.txt"), |file| file.write_all(report.as_bytes()))?;
    }
    if let Some(trained) = networks.segmenter.as_ref().or(networks.classifier.as_ref()) {
        let training = open(data, trained.plan.network.segments())?;
        let indices = &trained.plan.val_indices;
        validation_panel(networks, &training.dataset, indices, &out.join("validation.png"))?;
    }
    Ok(())
}

/// A network alone, as [`predictions`] takes it.
fn alone(trained: &Trained) -> Result<Networks> {
    let mut networks = Networks::default();
    networks.add(Trained::load(&trained.path)?.to_device(trained.model.device())?)?;
    Ok(networks)
}

fn labels(trained: &Trained, training: &Training, how: &How) -> Result<String> {
    let plan = &trained.plan;
    let (dataset, val) = (&training.dataset, &plan.val_indices);
    let predictions = predictions(&alone(trained)?, dataset, val, how)?;
    let controls =
        Controls::measure(&**dataset, &plan.train_indices, val, &predictions.probabilities, plan.seed)?;
    let columns = CLASSES.len();
    let labels: Vec<Labels> = val.iter().map(|&i| dataset.labels(i).unwrap_or_default()).collect();
    let dice =
        |thresholds: &Thresholds| thresholds.score(&labels, &predictions.probabilities, Objective::Dice);
    let at = how.threshold.unwrap_or(THRESHOLD);
    let mut line =
        format!("  submission Dice                {:.3}", dice(&Thresholds::uniform(at, columns))?);
    line += &format!("   (mean over pictures, at {at})");
    if how.threshold.is_none() && trained.thresholds.is_some() {
        let own = dice(&predictions.thresholds)?;
        line +=
            &format!("\n  with its own thresholds        {own:.3}   (fitted on these very pictures)");
    }
    Ok(format!("{controls}\n{line}"))
}

fn masks(trained: &Trained, training: &Training, how: &How) -> Result<String> {
    let (dataset, val) = (&training.dataset, &trained.plan.val_indices);
    let networks = alone(trained)?;
    let measure = |how: &How| {
        let predictions = predictions(&networks, dataset, val, how)?;
        let bar = bar(val.len(), "masks");
        let mut progress = |done| bar.set_position(done as u64);
        let scores = MaskScores::measure(&predictions, &**dataset, val, &mut progress)?;
        bar.finish_and_clear();
        Ok::<_, Error>(scores)
    };
    let options = how.masks();
    if options == MaskOptions::default() {
        return Ok(measure(how)?.to_string());
    }
    let plain = measure(&How::default())?;
    let mut names = Vec::new();
    if options.scales != [1.0] {
        names.push(format!("scales {:?}", options.scales));
    }
    for (set, name) in [(how.flip, "flip"), (how.nearest, "nearest"), (how.superpixels, "superpixels")] {
        names.extend(set.then(|| name.to_string()));
    }
    let changed = measure(how)?;
    Ok(format!("plain: {plain}\nwith {}: {changed}", names.join(", ")))
}
