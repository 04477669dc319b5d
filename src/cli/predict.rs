//! `atrous predict`

mod images;
mod inputs;
mod outputs;
mod rows;
mod stems;

use super::folder::refuse_files;
use super::live::LogOptions;
use super::network::NamedOptions;
use super::progress::bar;
use super::version::VERSION;
use super::{device, output};
use atrous::data::source::Source;
use atrous::data::{Classes, Dataset};
use atrous::files::{check_writable, explain, is_stream, write_atomically};
use atrous::predict::quickshift::QuickShift;
use atrous::predict::submission;
use atrous::predict::{MaskOptions, Networks, Prediction, Predictions, THRESHOLD};
use atrous::report::{self, PanelRow};
use atrous::{Error, Result};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum, ValueHint};
use images::Job;
use rows::Format;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Args)]
#[command(after_long_help = "\
A line an image tells its classes with their probabilities, and of masks the share of pixels. With --out a \
folder gets predictions.csv, panel.png, and of each image NAME_mask.png (VOC's palette), NAME_overlay.png \
and NAME_cutout.png (what is not background; the rest is transparent). What cannot be read is told and left \
out. The keys of --json are in docs/schemas/predict_images.json.

With --data a submission is written instead, and beside it probabilities.csv (one row an image, one column a \
class) and panel.png (the first images with what was predicted). With `--out -` the submission alone goes to \
standard output, and messages to standard error. Without a classifier an image's labels are those of its \
mask; without a network for masks their rows are empty. The keys of --json are in docs/schemas/predict.json.

Files that are there already are not overwritten unless --force says so.

Examples:
  atrous predict holiday/ cat.jpg --checkpoint result --out predicted
  atrous predict '*.JPG' --model mobilenet --weights mobilenet.h5 \\
      --classes imagenet.txt --top 3
  atrous predict --data voc --checkpoint result --out submission.csv
  atrous predict --data voc --checkpoint classify/best.safetensors \\
      --checkpoint segment
  atrous predict --data voc --checkpoint result --task segment \\
      --flip --scales 0.75,1,1.25
  atrous predict --data voc --checkpoint result --json | jq '.images[0]'")]
pub struct Predict {
    /// Images, folders of them, lists (.txt), patterns, or - for standard input
    ///
    /// An image is a JPEG, PNG or WebP, by what it holds. A folder is taken with all below it. A list has a
    /// path a line, and so may standard input, if it is no image.
    #[arg(value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    #[arg(required_unless_present = "data", conflicts_with = "data")]
    images: Vec<PathBuf>,
    /// Test images of a data set instead, for a submission [default: none]
    ///
    /// A folder with test/test_set.csv and test/img/, or VOCdevkit's.
    #[arg(long, value_name = "DIR", conflicts_with = "model", value_hint = ValueHint::DirPath)]
    data: Option<PathBuf>,
    /// A checkpoint, or a folder that `train` or `run` left; twice for two tasks
    ///
    /// Of a folder the best epoch is taken.
    #[arg(long, value_name = "PATH", required_unless_present = "model", value_hint = ValueHint::AnyPath)]
    checkpoint: Vec<PathBuf>,
    #[command(flatten)]
    network: NamedOptions,
    /// Which rows to fill [default: all that the checkpoints can]
    #[arg(long, value_enum, value_name = "TASK")]
    task: Option<Task>,
    /// A folder to write to; with --data a file [default: none; submission.csv]
    ///
    /// With --data `-` is standard output.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    out: Option<PathBuf>,
    /// Overwrite files that are there already
    #[arg(long)]
    force: bool,
    /// How many of the likeliest classes are told [default: those predicted]
    #[arg(long, value_name = "N", conflicts_with = "data", value_parser = above_zero())]
    top: Option<usize>,
    /// Print JSON: what was predicted of each image; anything else on standard error
    #[arg(long, conflicts_with_all = ["csv", "log_format"])]
    json: bool,
    /// Print a table: a row an image and class; anything else on standard error
    #[arg(long, conflicts_with_all = ["data", "log_format"])]
    csv: bool,
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
    /// Least probability of a class [default: fitted by training, else 0.15]
    ///
    /// A class is predicted where its probability is above this; the likeliest one always is. Training fits
    /// it on its validation images, for all classes or for each.
    #[arg(long, help_heading = HEADING, value_name = "P")]
    pub threshold: Option<f32>,
    /// Masks: see the image at these multiples of the network's size, and average
    #[arg(long, help_heading = HEADING, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    pub scales: Vec<f32>,
    /// Masks: see the image in a mirror, too, and average
    #[arg(long, help_heading = HEADING)]
    pub flip: bool,
    /// Masks: scale up labels instead of logits, as the notebook did
    #[arg(long, help_heading = HEADING)]
    pub nearest: bool,
    /// Masks: each superpixel (quick shift) takes one class
    #[arg(long, help_heading = HEADING)]
    pub superpixels: bool,
}

/// The section of the help.
const HEADING: &str = "Predictions";

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
        if self.json && self.data.is_some() && self.out.as_deref() == Some(Path::new("-")) {
            let message = "standard output has the submission; choose another --out, or leave it out";
            return Err(Error::argument("--json", message));
        }
        if self.json || self.csv {
            // What is said from now on goes to standard error.
            output::for_json();
        }
        self.how.check()?;
        let networks = self.networks()?;
        match &self.data {
            Some(data) => self.submission(&networks, data),
            None => {
                let (how, top, out, force) = (&self.how, self.top, self.out.as_deref(), self.force);
                Job { networks: &networks, how, top, format: self.format(), out, force }
                    .run(&self.images)
            }
        }
    }

    fn networks(&self) -> Result<Networks> {
        let Some(name) = &self.network.model else {
            if self.network.class_names.is_some() {
                let message = "a checkpoint has its classes' names; they go with --model";
                return Err(Error::argument("--class-names", message));
            }
            return load(&self.checkpoint, self.task);
        };
        let mut networks = Networks::default();
        networks.add(self.network.trained(name)?.to_device(device())?)?;
        only(networks, self.task)
    }

    fn submission(&self, networks: &Networks, data: &Path) -> Result<()> {
        let source = Source::open(data)?;
        let dataset = source.test(source.natural_task())?;
        networks.check_classes(&*dataset)?;
        let out = self.out.as_deref().unwrap_or(Path::new("submission.csv"));
        let files = Files::of(out, networks)?;
        if !self.force {
            refuse_files(files.all())?;
        }
        let images = write_submission(networks, &dataset, &self.how, out)?;
        match self.json {
            true => output::json(&files.json(images)),
            false => Ok(()),
        }
    }

    fn format(&self) -> Format {
        match (self.json, self.csv) {
            (true, _) => Format::Json,
            (_, true) => Format::Csv,
            _ => Format::Text,
        }
    }
}

fn above_zero() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// The networks of the checkpoints that are wanted for the task.
pub fn load(paths: &[PathBuf], task: Option<Task>) -> Result<Networks> {
    only(Networks::load(paths, device())?, task)
}

fn only(mut networks: Networks, task: Option<Task>) -> Result<Networks> {
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

    /// As docs/schemas/predict.json has it.
    fn json(&self, images: Vec<Value>) -> Value {
        json!({
            "version": VERSION,
            "submission": self.submission,
            "probabilities": self.probabilities,
            "panel": self.panel,
            "images": images,
        })
    }

    /// Before any work.
    fn check_writable(&self) -> Result<()> {
        self.all().try_for_each(check_writable)
    }
}

/// Predicts every picture, and writes the submission with probabilities and a panel beside it; an object for
/// each of them.
pub fn write_submission(
    networks: &Networks,
    dataset: &Arc<dyn Dataset>,
    how: &PredictOptions,
    out: &Path,
) -> Result<Vec<Value>> {
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
    }
    let files = Files::of(out, networks)?;
    files.check_writable()?;
    let stdout = files.submission.is_none().then(output::for_rows);
    let indices: Vec<usize> = (0..dataset.len()).collect();
    let predictions = predictions(networks, dataset, &indices, how)?;
    if let Some(table) = &files.probabilities {
        write_probabilities(&predictions, networks.classes()?, &**dataset, table)?;
    }
    if networks.classifier.is_some() && predictions.exclusive {
        println!("the likeliest class is predicted");
    } else if networks.classifier.is_some() {
        tell_thresholds(&predictions.thresholds.per_class, how.threshold.is_none());
    }
    let bar = bar(predictions.len(), if predictions.segments() { "masks" } else { "writing" });
    let (mut rows, mut images) = (Vec::new(), Vec::new());
    let entries = (0..predictions.len()).map(|i| {
        let prediction = predictions.get(i)?;
        let entry = prediction.entry();
        images.push(image_json(&prediction, networks.classes()?));
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
            Err(_) if output::unread() => return Ok(images),
            written => written?,
        },
    }
    bar.finish_and_clear();
    println!("submission: {} ({} pictures)", out.display(), predictions.len());
    let classes = networks.classes()?;
    files.panel.map_or(Ok(()), |panel| write_panel(&rows, classes, &panel))?;
    Ok(images)
}

/// The classes that are predicted for an image, with their probabilities where a classifier has some.
fn image_json(prediction: &Prediction, classes: &Classes) -> Value {
    let of = |class: usize| prediction.probabilities.get(class);
    let class = |class: usize| json!({ "class": &classes[class], "probability": of(class) });
    let predicted = (0..classes.len()).filter(|&class| prediction.labels[class]);
    json!({ "id": prediction.id, "classes": predicted.map(class).collect::<Vec<_>>() })
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

fn write_probabilities(
    predictions: &Predictions,
    classes: &Classes,
    dataset: &dyn Dataset,
    path: &Path,
) -> Result<()> {
    write_atomically(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(std::iter::once("Id").chain(classes.iter()))?;
        for (i, row) in predictions.probabilities.chunks(classes.len()).enumerate() {
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
    write_panel(&panel_rows(networks, predictions, dataset, indices)?, networks.classes()?, path)
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

fn write_panel(rows: &[PanelRow], classes: &Classes, path: &Path) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    report::panel(rows, classes, path)?;
    println!("pictures: {}", path.display());
    Ok(())
}
