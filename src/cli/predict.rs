//! `atrous predict`

use super::live::LogOptions;
use super::progress::bar;
use super::{device, output};
use atrous::data::source::Source;
use atrous::data::{CLASSES, Dataset};
use atrous::files::{check_writable, explain, is_stream, write_atomically};
use atrous::predict::quickshift::QuickShift;
use atrous::predict::submission;
use atrous::predict::{MaskOptions, Networks, Predictions, THRESHOLD};
use atrous::report::{self, PanelRow};
use atrous::{Error, Result};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous predict --data voc --checkpoint result --out submission.csv
  atrous predict --data voc --checkpoint classify/best.safetensors --checkpoint segment
  atrous predict --data voc --checkpoint result --task segment --flip --scales 0.75,1,1.25

Beside the submission it writes probabilities.csv (one row a picture, one column a class) and
panel.png (the first pictures with what was predicted). Files that are there already are not
overwritten unless --force says so. With `--out -` the submission alone goes to standard output,
and messages to standard error. Without a classifier a picture's labels are those of its mask;
without a network for masks their rows are empty.")]
pub struct Predict {
    /// Folder with test/test_set.csv and test/img/, or in VOCdevkit's layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A checkpoint, or a folder that `train` or `run` left (of which the best is taken). Twice for
    /// two tasks
    #[arg(long, value_name = "PATH", required = true)]
    checkpoint: Vec<PathBuf>,
    /// Which rows to fill [default: all that the checkpoints can]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "submission.csv")]
    out: PathBuf,
    /// Overwrite files that are there already
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: PredictOptions,
    #[command(flatten)]
    log: LogOptions,
}

/// What a command is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Task {
    Classify,
    Segment,
    Both,
}

impl Task {
    pub fn classifies(self) -> bool {
        self != Task::Segment
    }

    pub fn segments(self) -> bool {
        self != Task::Classify
    }
}

/// How probabilities become labels, and logits masks.
#[derive(Args, Clone, Debug)]
pub struct PredictOptions {
    /// A class is predicted where its probability is above this; the likeliest one always is
    /// [default: those that training fitted on its validation pictures, else 0.15]
    #[arg(long, value_name = "P")]
    pub threshold: Option<f32>,
    /// Masks: see the picture at these multiples of the network's size, and average
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    pub scales: Vec<f32>,
    /// Masks: see the picture in a mirror, too, and average
    #[arg(long)]
    pub flip: bool,
    /// Masks: scale up labels instead of logits, as the notebook did
    #[arg(long)]
    pub nearest: bool,
    /// Masks: each superpixel (quick shift) takes one class
    #[arg(long)]
    pub superpixels: bool,
}

impl Default for PredictOptions {
    fn default() -> Self {
        PredictOptions {
            threshold: None,
            scales: vec![1.0],
            flip: false,
            nearest: false,
            superpixels: false,
        }
    }
}

impl PredictOptions {
    pub fn masks(&self) -> MaskOptions {
        MaskOptions {
            scales: self.scales.clone(),
            flip: self.flip,
            nearest: self.nearest,
            superpixels: self.superpixels.then(QuickShift::default),
        }
    }

    /// An error where an option is out of range, before any work.
    pub fn check(&self) -> Result<()> {
        self.masks().check()?;
        match self.threshold {
            Some(p) if !(0.0..=1.0).contains(&p) => {
                Err(Error::argument("--threshold", format!("expected 0 to 1, got {p}")))
            }
            _ => Ok(()),
        }
    }
}

impl Predict {
    pub fn run(self) -> Result<()> {
        self.log.apply();
        self.how.check()?;
        let networks = load(&self.checkpoint, self.task)?;
        let source = Source::open(&self.data)?;
        let dataset = source.test(source.natural_task())?;
        if !self.force {
            Files::of(&self.out, &networks)?.refuse_existing()?;
        }
        write_submission(&networks, &dataset, &self.how, &self.out)
    }
}

/// The networks of the checkpoints that are wanted for the task.
pub fn load(paths: &[PathBuf], task: Option<Task>) -> Result<Networks> {
    let mut networks = Networks::load(paths, device())?;
    if let Some(task) = task {
        let missing = |what| Err(Error::argument("--task", format!("no checkpoint {what}")));
        if task.classifies() && networks.classifier.is_none() {
            return missing("classifies");
        }
        if task.segments() && networks.segmenter.is_none() {
            return missing("segments");
        }
        networks.classifier = networks.classifier.filter(|_| task.classifies());
        networks.segmenter = networks.segmenter.filter(|_| task.segments());
    }
    Ok(networks)
}

/// [`Networks::predict`] with a progress bar.
pub fn predictions(
    networks: &Networks,
    dataset: &Arc<dyn Dataset>,
    indices: &[usize],
    how: &PredictOptions,
) -> Result<Predictions> {
    let bar = bar(indices.len(), "classifying");
    let mut progress = |done| bar.set_position(done as u64);
    let predictions = networks.predict(dataset, indices, &how.masks(), how.threshold, &mut progress)?;
    bar.finish_and_clear();
    Ok(predictions)
}

/// How many pictures a panel shows.
const PANEL: usize = 8;

/// The files that a prediction leaves.
struct Files {
    /// None: standard output.
    submission: Option<PathBuf>,
    /// What stands beside a submission that is a file.
    probabilities: Option<PathBuf>,
    panel: Option<PathBuf>,
}

impl Files {
    fn of(out: &Path, networks: &Networks) -> Result<Self> {
        let stdout = ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].map(Path::new).contains(&out);
        let alone = stdout || is_stream(out);
        let beside = |name| match out.with_file_name(name) {
            path if path == out => {
                let message = format!("{name} is a file that is written beside the submission");
                Err(Error::argument("--out", message))
            }
            path => Ok((!alone).then_some(path)),
        };
        Ok(Files {
            submission: (!stdout).then(|| out.to_owned()),
            probabilities: beside("probabilities.csv")?.filter(|_| networks.classifier.is_some()),
            panel: beside("panel.png")?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.submission, &self.probabilities, &self.panel].into_iter().flatten()
    }

    fn refuse_existing(&self) -> Result<()> {
        let there: Vec<_> = self.all().filter(|file| file.is_file() && !is_stream(file)).collect();
        let Some((first, others)) = there.split_first() else { return Ok(()) };
        let others: String =
            others.iter().map(|file| format!(", and so is {}", file.display())).collect();
        let message =
            format!("it is there already{others}; overwrite with --force, or choose another --out");
        Err(Error::file(first, message))
    }

    /// Before any work.
    fn check_writable(&self) -> Result<()> {
        self.all().try_for_each(check_writable)
    }
}

/// Predicts every picture, and writes the submission with probabilities and a panel beside it.
pub fn write_submission(
    networks: &Networks,
    dataset: &Arc<dyn Dataset>,
    how: &PredictOptions,
    out: &Path,
) -> Result<()> {
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
    }
    let files = Files::of(out, networks)?;
    files.check_writable()?;
    let stdout = files.submission.is_none().then(output::for_rows);
    let indices: Vec<usize> = (0..dataset.len()).collect();
    let predictions = predictions(networks, dataset, &indices, how)?;
    if let Some(table) = &files.probabilities {
        write_probabilities(&predictions, &**dataset, table)?;
    }
    if networks.classifier.is_some() {
        tell_thresholds(&predictions.thresholds.per_class, how.threshold.is_none());
    }
    let bar = bar(predictions.len(), if predictions.segments() { "masks" } else { "writing" });
    let mut rows = Vec::new();
    let entries = (0..predictions.len()).map(|i| {
        let prediction = predictions.get(i)?;
        let entry = prediction.entry();
        if rows.len() < PANEL {
            rows.push(PanelRow {
                image: Some(dataset.image(i)?),
                predicted: Some(prediction.labels),
                probabilities: prediction.probabilities,
                prediction: prediction.mask,
                name: prediction.id,
                ..PanelRow::default()
            });
        }
        bar.set_position(i as u64 + 1);
        Ok(entry)
    });
    match stdout {
        None => submission::write(out, entries)?,
        Some(stdout) => match submission::write_to(stdout, output::STDOUT, entries) {
            // Whoever reads the rows has seen enough.
            Err(_) if output::unread() => return Ok(()),
            written => written?,
        },
    }
    bar.finish_and_clear();
    println!("submission: {} ({} pictures)", out.display(), predictions.len());
    files.panel.map_or(Ok(()), |panel| write_panel(&rows, &panel))
}

fn tell_thresholds(per_class: &[f32], fitted: bool) {
    match per_class {
        [first, rest @ ..] if rest.iter().all(|t| t == first) => println!(
            "a class is predicted above {first:.3}{}",
            if fitted && *first != THRESHOLD { ", fitted on the validation pictures" } else { "" }
        ),
        _ => println!("a class is predicted above its own threshold, fitted on the validation pictures"),
    }
}

fn write_probabilities(predictions: &Predictions, dataset: &dyn Dataset, path: &Path) -> Result<()> {
    write_atomically(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(["Id"].iter().chain(&CLASSES))?;
        for (i, row) in predictions.probabilities.chunks(CLASSES.len()).enumerate() {
            let id = dataset.id(i);
            table.write_record([id.to_string()].into_iter().chain(row.iter().map(f32::to_string)))?;
        }
        table.flush()
    })
}

/// The first validation samples with their truth, and what the networks say of them.
pub fn validation_panel(
    networks: &Networks,
    dataset: &Arc<dyn Dataset>,
    indices: &[usize],
    path: &Path,
) -> Result<()> {
    let indices = &indices[..indices.len().min(PANEL)];
    let predictions = predictions(networks, dataset, indices, &PredictOptions::default())?;
    predicted_panel(networks, &predictions, dataset, indices, path)
}

/// The same of predictions that are there already; `indices` are the samples they are of.
pub fn predicted_panel(
    networks: &Networks,
    predictions: &Predictions,
    dataset: &Arc<dyn Dataset>,
    indices: &[usize],
    path: &Path,
) -> Result<()> {
    let indices = &indices[..indices.len().min(PANEL)];
    write_panel(&panel_rows(networks, predictions, dataset, indices)?, path)
}

/// A row a sample: its truth, and what was predicted.
pub fn panel_rows(
    networks: &Networks,
    predictions: &Predictions,
    dataset: &Arc<dyn Dataset>,
    indices: &[usize],
) -> Result<Vec<PanelRow>> {
    let row = |(i, &index): (usize, &usize)| {
        let prediction = predictions.get(i)?;
        Ok(PanelRow {
            image: Some(dataset.image(index)?),
            truth: if predictions.segments() { dataset.mask(index)? } else { None },
            labels: dataset.labels(index),
            predicted: networks.classifier.is_some().then_some(prediction.labels),
            probabilities: prediction.probabilities,
            prediction: prediction.mask,
            name: prediction.id,
        })
    };
    indices.iter().enumerate().map(row).collect()
}

fn write_panel(rows: &[PanelRow], path: &Path) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    report::panel(rows, path)?;
    println!("pictures: {}", path.display());
    Ok(())
}
