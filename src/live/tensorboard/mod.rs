//! TensorBoard's event files: scalars, images and histograms of a run.
//!
//! A file is a row of records ([`records`]), each a protocol buffer ([`messages`]); TensorBoard shows all
//! files whose names have `tfevents` in them, a folder a run. Scalars of steps are `step/…` over the number
//! of the step in the run, those of epochs `loss/train`, `loss/validation`, … over the epoch.

pub mod messages;
pub mod records;

use super::events::{EpochEnd, LogEvent, LogRecord, Step, now};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::{cannot_be_written, explain};
use crate::nn::Model;
use messages::{Data, Event, Histogram, PngImage, SessionLog, Summary, Value, What};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Columns of a histogram, all of one width.
const BUCKETS: usize = 64;

/// A file that TensorBoard reads while it is written.
///
/// What cannot be written ends no training: the first error is kept until [`TensorBoard::finish`].
///
/// ```
/// use atrous::live::{LogEvent, LogRecord, TensorBoard};
/// use atrous::live::tensorboard::{messages::What, read};
/// use atrous::prelude::*;
/// use atrous::report::plots::{Chart, Lines, Plot};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// graph.add(Layer::conv2d(4, 3), &[graph.input()])?;
/// let chart = Chart::Lines(Lines::default());
/// let mut board = TensorBoard::create(folder)?;
/// board.log(&LogRecord::now(LogEvent::Done { seconds: 7.0 })); // (of steps and epochs there are scalars)
/// board.histograms(1, &Model::new(graph, 1))?; // after the first epoch
/// board.image(1, "predictions", Plot { title: "two".into(), chart }.png()?);
/// let path = board.path().to_owned();
/// board.finish()?;
/// let summaries = read(&path)?.into_iter().filter_map(|event| match event.what {
///     Some(What::Summary(summary)) => Some(summary),
///     _ => None, // the version of the format, at the beginning
/// });
/// let tags: Vec<String> = summaries.flat_map(|summary| summary.value).map(|value| value.tag).collect();
/// assert_eq!(tags, ["conv2d/kernel", "conv2d/bias", "predictions"]);
/// # Ok::<(), Error>(())
/// ```
pub struct TensorBoard {
    path: PathBuf,
    file: File,
    failed: Option<Error>,
}

impl TensorBoard {
    /// Makes a file of its own in the folder, which is made if it is not there. An error where it cannot be.
    pub fn create(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
        // Files of a run are read in the order of their names: by seconds, and within one by numbers.
        let (seconds, process) = (now() as u64, std::process::id());
        let mut number = 0;
        loop {
            let name = format!("events.out.tfevents.{seconds:010}.atrous.{process}.{number}");
            let path = folder.join(name);
            match OpenOptions::new().create_new(true).append(true).open(&path) {
                Ok(file) => return Self { path, file, failed: None }.begun(),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(cannot_be_written(&path, &error)),
            }
        }
    }

    /// The first record says which version of the format it is.
    fn begun(mut self) -> Result<Self> {
        self.write(now(), 0, What::FileVersion("brain.Event:2".into()));
        match self.failed.take() {
            Some(error) => {
                let _ = std::fs::remove_file(&self.path);
                Err(error)
            }
            None => Ok(self),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Scalars of steps and epochs; of a run that goes on, that what a killed one did after its checkpoint is
    /// to be forgotten.
    pub fn log(&mut self, record: &LogRecord) {
        match &record.event {
            LogEvent::Start(start) => {
                if let Some(from) = start.resumed {
                    let step = (from.epoch * start.steps + from.step + 1) as i64;
                    self.write(
                        record.time,
                        step,
                        What::SessionLog(SessionLog { status: SessionLog::START }),
                    );
                }
            }
            LogEvent::Step(step) => self.summary(record.time, step.global_step as i64, of_step(step)),
            LogEvent::Epoch(epoch) => {
                self.summary(record.time, epoch.metrics.epoch as i64, of_epoch(epoch));
            }
            _ => {}
        }
    }

    /// An RGB image, as a PNG file has it.
    pub fn image(&mut self, epoch: usize, tag: &str, png: Vec<u8>) {
        // (Bytes 16 to 24 of every PNG are its width and height. Whoever shows it decodes it anyway.)
        let side = |at: usize| png.get(at..at + 4)?.try_into().ok().map(i32::from_be_bytes);
        let (width, height) = (side(16).unwrap_or(0), side(20).unwrap_or(0));
        let image = PngImage { height, width, colorspace: PngImage::RGB, encoded_image_string: png };
        self.summary(now(), epoch as i64, [(tag.to_owned(), Data::Image(image))]);
    }

    /// A histogram of each parameter. An error where a device does not hand them out.
    pub fn histograms(&mut self, epoch: usize, model: &Model) -> Result<()> {
        for parameter in &model.parameters {
            let values = parameter.value.to_device(Device::Cpu)?.to_vec_f64();
            let data = Data::Histogram(histogram(&values));
            self.summary(now(), epoch as i64, [(parameter.path.clone(), data)]);
        }
        Ok(())
    }

    fn summary(&mut self, time: f64, step: i64, values: impl IntoIterator<Item = (String, Data)>) {
        let value = |(tag, data)| Value { tag, data: Some(data) };
        let summary = Summary { value: values.into_iter().map(value).collect() };
        self.write(time, step, What::Summary(summary));
    }

    fn write(&mut self, wall_time: f64, step: i64, what: What) {
        if self.failed.is_none() {
            let event = Event { wall_time, step, what: Some(what) }.encode_to_vec();
            let written = self.file.write_all(&records::framed(&event));
            self.failed = written.err().map(|error| cannot_be_written(&self.path, &error));
        }
    }

    /// An error where something could not be written.
    pub fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// The events in a file. An error where it cannot be read, or is not what TensorBoard reads.
///
/// [`TensorBoard`] has an example.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Event>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|error| Error::file(path, explain(&error)))?;
    let events = records::unframed(&bytes).map_err(|message| Error::file(path, message))?;
    let decoded = events.into_iter().map(Event::decode).collect::<Result<_, _>>();
    decoded.map_err(|error| Error::file(path, format!("expected an Event in each record, got: {error}")))
}

fn of_step(step: &Step) -> Vec<(String, Data)> {
    let values = [
        ("loss", step.loss),
        ("accuracy", step.accuracy),
        ("learning_rate", step.learning_rate as f64),
        ("images_per_second", step.images_per_second),
    ];
    values.map(|(name, value)| (format!("step/{name}"), Data::Scalar(value as f32))).into()
}

fn of_epoch(epoch: &EpochEnd) -> Vec<(String, Data)> {
    let e = &epoch.metrics;
    let values = [
        ("loss/train", Some(e.loss)),
        ("loss/validation", e.val_loss),
        ("accuracy/train", Some(e.accuracy)),
        ("accuracy/validation", e.val_accuracy),
        ("mean_average_precision/validation", e.val_map),
        ("mean_iou/validation", e.val_miou),
        ("mean_dice/validation", e.val_dice),
        ("learning_rate", Some(e.learning_rate as f64)),
        ("seconds", Some(epoch.seconds)),
    ];
    let known = values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.map(|(name, value)| (name, Data::Scalar(value as f32))).collect()
}

/// How many of the values are in each of [`BUCKETS`] ranges of one width from the least to the greatest;
/// what is not finite is left out.
fn histogram(values: &[f64]) -> Histogram {
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let mut h = Histogram { min: f64::INFINITY, max: f64::NEG_INFINITY, ..Histogram::default() };
    for value in finite() {
        (h.min, h.max) = (h.min.min(value), h.max.max(value));
        (h.num, h.sum, h.sum_squares) = (h.num + 1.0, h.sum + value, h.sum_squares + value * value);
    }
    if h.num == 0.0 {
        return Histogram::default();
    }
    let width = (h.max - h.min) / BUCKETS as f64;
    if width == 0.0 {
        (h.bucket_limit, h.bucket) = (vec![h.max], vec![h.num]);
        return h;
    }
    h.bucket = vec![0.0; BUCKETS];
    finite().for_each(|value| h.bucket[(((value - h.min) / width) as usize).min(BUCKETS - 1)] += 1.0);
    h.bucket_limit = (1..=BUCKETS).map(|i| h.min + i as f64 * width).collect();
    h
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::events::Position;
    use crate::live::state::tests::{at, epoch, start, step};

    fn scalars(event: &Event) -> Vec<(&str, f32)> {
        let Some(What::Summary(summary)) = &event.what else { return Vec::new() };
        let scalar = |value: &'_ Value| match value.data {
            Some(Data::Scalar(number)) => number,
            _ => panic!("{value:?}"),
        };
        summary.value.iter().map(|value| (value.tag.as_str(), scalar(value))).collect()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(folder.path().join("new/runs")).unwrap();
        board.log(&at(5.0, start(Some(Position { epoch: 1, step: 3 }))));
        board.log(&at(6.0, step(14)));
        board.log(&at(7.0, LogEvent::Message { text: "no scalar".into() }));
        board.log(&at(8.0, epoch(2)));
        let mut png = Vec::new();
        let photo = crate::data::Image::new(3, 4, vec![0; 36]).unwrap();
        crate::data::image_files::encode_png(&mut png, &photo).unwrap();
        board.image(2, "panel", png);
        let events = read(board.path()).unwrap();
        board.finish().unwrap();
        assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
        assert_eq!(events[1].what, Some(What::SessionLog(SessionLog { status: 1 })));
        assert_eq!((events[1].step, events[1].wall_time), (14, 5.0));
        let LogEvent::Step(expected) = step(14) else { unreachable!() };
        assert_eq!((events[2].step, scalars(&events[2])[0]), (14, ("step/loss", expected.loss as f32)));
        let LogEvent::Epoch(expected) = epoch(2) else { unreachable!() };
        let validation = ("loss/validation", expected.metrics.val_loss.unwrap() as f32);
        assert_eq!((events[3].step, scalars(&events[3])[1]), (2, validation));
        assert!(scalars(&events[3]).iter().all(|(tag, _)| *tag != "mean_iou/validation"));
        let image =
            |data: &Option<Data>| matches!(data, Some(Data::Image(i)) if (i.height, i.width) == (3, 4));
        assert!(
            matches!(&events[4].what, Some(What::Summary(s)) if image(&s.value[0].data)),
            "{events:?}"
        );
        assert_eq!(events.len(), 5);
    }

    #[test]
    fn two_files_of_one_second_have_two_names() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = (0..3).map(|_| TensorBoard::create(folder.path()).unwrap()).collect();
        assert!(files[0].path() < files[1].path() && files[1].path() < files[2].path());
    }

    #[test]
    fn a_histogram_counts_each_finite_value_once() {
        let values: Vec<f64> =
            (0..1000).map(|i| i as f64 / 999.0).chain([f64::NAN, f64::INFINITY]).collect();
        let h = histogram(&values);
        assert_eq!((h.min, h.max, h.num), (0.0, 1.0, 1000.0));
        assert!((h.sum - 500.0).abs() < 1e-9 && h.bucket.iter().sum::<f64>() == 1000.0);
        assert!(h.bucket.iter().all(|&count| (15.0..=16.0).contains(&count)), "{:?}", h.bucket);
        assert!(h.bucket_limit.len() == BUCKETS && (h.bucket_limit[BUCKETS - 1] - 1.0).abs() < 1e-12);
        let same = histogram(&[2.0; 5]);
        assert_eq!((&same.bucket_limit[..], &same.bucket[..]), (&[2.0][..], &[5.0][..]));
        assert_eq!(histogram(&[f64::NAN]), Histogram::default());
    }

    #[test]
    fn a_folder_that_cannot_be_made_or_written_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = TensorBoard::create(folder.path().join("file")).err().unwrap().to_string();
        assert!(error.contains("it is there already, and not a folder"), "{error}");
    }
}
