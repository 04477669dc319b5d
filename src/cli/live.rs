//! Who watches a run: `--log-format`, `--tui`, `--tensorboard`, and the file of its events.

use super::output::{self, Quiet};
use super::predict::panel_rows;
use super::progress::{Shown, Training, asked_to_stop, stop};
use atrous::data::image::{Fit, fit};
use atrous::data::image_files::encode_png;
use atrous::data::{Classes, Dataset, Image};
use atrous::files::{check_writable, explain, write_atomically};
use atrous::live::events::{Panel, Position, Start};
use atrous::live::{EVENTS, EventLog, LogEvent, LogRecord, Recorder, Screen, TensorBoard, terminal};
use atrous::nn::Model;
use atrous::predict::{MaskOptions, Networks, Trained};
use atrous::report::{self, PanelRow, blended};
use atrous::train::{Event, TrainConfig, TrainState, Trainer};
use atrous::{Error, Result};
use clap::{Args, ValueEnum, ValueHint};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

#[derive(Args, Clone, Debug, Default)]
pub struct LogOptions {
    /// What standard output is: text, or events as JSON, one a line
    ///
    /// The events are told in docs/events.md. Errors are on standard error, too.
    #[arg(long, help_heading = WATCHING, value_enum, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    #[command(flatten)]
    pub quiet: Quiet,
}

impl LogOptions {
    pub fn apply(&self) {
        self.quiet.apply();
        if self.log_format == LogFormat::Json {
            output::log_json();
        }
    }
}

#[derive(Args, Clone, Debug, Default)]
pub struct LiveOptions {
    #[command(flatten)]
    pub log: LogOptions,
    /// Draw the run in the terminal: curves, predictions, time left, memory
    ///
    /// Predictions are drawn after each epoch, as sixels where the terminal says that it shows them, else as
    /// blocks; ATROUS_GRAPHICS=sixel or blocks decides. q saves and stops, as Ctrl-C does.
    #[arg(long, help_heading = WATCHING)]
    pub tui: bool,
    /// Folder for TensorBoard's files [default: they are not written]
    ///
    /// Scalars, panels of predictions and histograms of weights.
    #[arg(long, help_heading = WATCHING, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub tensorboard: Option<PathBuf>,
}

/// The section of the help.
const WATCHING: &str = "Watching";

impl LiveOptions {
    /// An error where options contradict each other, or TensorBoard's folder cannot be written, before any
    /// work.
    pub fn check(&self) -> Result<()> {
        if self.tui && output::is_json() {
            let message = "it draws on standard output, where --log-format json prints; leave one out";
            return Err(Error::argument("--tui", message));
        }
        if let Some(folder) = &self.tensorboard {
            std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
            check_writable(folder.join("events.out.tfevents"))?;
        }
        Ok(())
    }

    /// Those of one of a pipeline's networks: for TensorBoard each is a run of its own.
    pub fn of(&self, segments: bool) -> Self {
        let task = if segments { "segment" } else { "classify" };
        let tensorboard = self.tensorboard.as_ref().map(|folder| folder.join(task));
        LiveOptions { tensorboard, ..self.clone() }
    }
}

/// What there is to say of a run before its next step; `device` says on what it is computed, `steps` how many
/// an epoch has.
pub fn start(trainer: &Trainer, data: &Path, device: String, steps: usize) -> Start {
    let (config, TrainState { epoch, step, global_step, .. }) = (&trainer.config, trainer.position);
    let (parameters, trainable) = trainer.model.count_parameters();
    let mut settings = serde_json::to_value(config).unwrap_or_default();
    // Lists as long as the data.
    for key in ["samples", "train_indices", "val_indices"] {
        settings.as_object_mut().and_then(|settings| settings.remove(key));
    }
    Start {
        version: env!("CARGO_PKG_VERSION").into(),
        network: trainer.model.graph.name.clone(),
        task: if config.network.segments() { "segment" } else { "classify" }.into(),
        device,
        data: data.display().to_string(),
        training_images: config.train_indices.len(),
        validation_images: config.val_indices.len(),
        parameters,
        trainable,
        epochs: config.epochs,
        steps,
        batch_size: config.batch_size,
        seed: config.seed,
        resumed: (global_step > 0).then_some(Position { epoch, step }),
        settings,
    }
}

/// All who watch a run, from its first step to its last.
pub struct LiveRun {
    began: Instant,
    recorder: Recorder,
    log: EventLog,
    board: Option<TensorBoard>,
    screen: Option<Screen>,
    text: Training,
    predictions: Option<Predictions>,
    /// Why there are no more predictions.
    failed: Option<Error>,
}

impl LiveRun {
    /// An error where one of them cannot be told anything.
    pub fn begin(
        options: &LiveOptions,
        out: &Path,
        start: Start,
        dataset: &Arc<dyn Dataset>,
        config: &TrainConfig,
    ) -> Result<Self> {
        let log = EventLog::open(out.join(EVENTS))?;
        let board = options.tensorboard.as_ref().map(TensorBoard::create).transpose()?;
        let screen = if options.tui { screen(out) } else { None };
        let shown = match &screen {
            Some(_) => Shown::Later,
            None if output::is_json() => Shown::Not,
            None => Shown::Lines,
        };
        let indices = config.val_indices.iter().copied().take(SHOWN).collect();
        let predictions = (screen.is_some() || board.is_some()) && !config.val_indices.is_empty();
        let predictions = predictions.then(|| Predictions {
            dataset: dataset.clone(),
            config: config.clone(),
            indices,
            out: out.to_owned(),
        });
        let (began, recorder) = (Instant::now(), Recorder::new(super::device()));
        let text = Training::new(shown);
        let mut live = LiveRun { began, recorder, log, board, screen, text, predictions, failed: None };
        live.tell(LogEvent::Start(Box::new(start)));
        Ok(live)
    }

    /// Tells all of them what happened.
    pub fn show(&mut self, event: &Event) -> ControlFlow<()> {
        if let Some(event) = self.recorder.record(event) {
            self.tell(event);
        }
        if let Event::EpochEnds { record, model } = event
            && self.failed.is_none()
        {
            self.failed = self.after_epoch(record.epoch, model).err();
        }
        let _ = self.text.show(event);
        asked_to_stop()
    }

    fn tell(&mut self, event: LogEvent) {
        let record = LogRecord::now(event);
        output::record(&record);
        self.tell_watchers(&record);
    }

    fn tell_watchers(&mut self, record: &LogRecord) {
        self.log.write(record);
        self.board.iter_mut().for_each(|board| board.log(record));
        self.screen.iter().for_each(|screen| screen.apply(record));
    }

    /// What takes more than a line.
    fn after_epoch(&mut self, epoch: usize, model: &Model) -> Result<()> {
        if let Some(board) = &mut self.board {
            board.histograms(epoch, model)?;
        }
        let Some(predictions) = &self.predictions else { return Ok(()) };
        let (panel, captions) = predictions.draw(model)?;
        if let Some(board) = &mut self.board {
            let png = std::fs::read(&panel).map_err(|error| Error::file(&panel, explain(&error)))?;
            board.image(epoch, "predictions", png);
        }
        self.tell(LogEvent::Panel(Panel { epoch, image: TILES.into(), captions }));
        Ok(())
    }

    /// Tells them how it ended (the program's own output says so at its end). An error where one of them was
    /// not told everything.
    pub fn end(mut self, result: &Result<()>) -> Result<()> {
        self.tell_watchers(&LogRecord::now(match result {
            Ok(()) => LogEvent::Done { seconds: self.began.elapsed().as_secs_f64() },
            Err(Error::Interrupted(message)) => LogEvent::Interrupted { message: message.clone() },
            Err(error) => LogEvent::Error { message: error.to_string() },
        }));
        // What is printed from here on is to stay.
        drop(self.screen);
        self.text.release();
        self.log.finish()?;
        self.board.map_or(Ok(()), TensorBoard::finish)?;
        self.failed.map_or(Ok(()), Err)
    }
}

/// None, with a word why, where there is no terminal to draw on.
fn screen(out: &Path) -> Option<Screen> {
    if !terminal::is_terminal() {
        println!("note: --tui needs a terminal on standard output, and there is none: progress is text");
        return None;
    }
    let opened = Screen::open(out, stop, hint);
    opened.inspect_err(|error| println!("note: --tui: {error}: progress is text")).ok()
}

fn hint() -> &'static str {
    match asked_to_stop().is_break() {
        true => "stopping after this step; q again: at once, without saving",
        false => "q: save and stop",
    }
}

/// Validation images whose predictions are drawn after each epoch.
const SHOWN: usize = 4;
/// The same for terminals: tiles side by side, and a tile's side.
const TILES: &str = "live.png";
const SIDE: usize = 96;

/// Draws what the network says of some validation images.
struct Predictions {
    dataset: Arc<dyn Dataset>,
    config: TrainConfig,
    indices: Vec<usize>,
    out: PathBuf,
}

impl Predictions {
    /// Writes `panel.png` and `live.png`; gives the first one's path, and what each tile of the second is.
    fn draw(&self, model: &Model) -> Result<(PathBuf, Vec<String>)> {
        let mut networks = Networks::default();
        let path = self.out.join("panel.png");
        networks.add(Trained {
            model: model.clone(),
            config: self.config.clone(),
            thresholds: None,
            path: path.clone(),
            checksum: String::new(),
        })?;
        let masks = MaskOptions::default();
        let predicted = networks.predict(&self.dataset, &self.indices, &masks, None, &mut |_| {})?;
        let rows = panel_rows(&networks, &predicted, &self.dataset, &self.indices)?;
        let classes = &self.config.classes;
        report::panel(&rows, classes, &path)?;
        let (tiles, captions) = tiles(&rows, classes).into_iter().unzip();
        let image = side_by_side(tiles)?;
        write_atomically(self.out.join(TILES), |file| encode_png(file, &image))?;
        Ok((path, captions))
    }
}

/// Of masks the first row's image, truth and prediction; else each row's image.
fn tiles(rows: &[PanelRow], classes: &Classes) -> Vec<(Image, String)> {
    let names = |labels: &Vec<bool>| classes.listed(labels);
    let shown = |row: &PanelRow| {
        let image = row.image.clone()?;
        let (truth, predicted) = (row.labels.as_ref().map(names), row.predicted.as_ref().map(names));
        let words = [("true", truth), ("predicted", predicted)];
        let words = words.into_iter().filter_map(|(what, names)| Some(format!("{what}: {}", names?)));
        Some((image, words.collect::<Vec<_>>().join("; ")))
    };
    match rows.first() {
        Some(first) if first.prediction.is_some() => {
            let image = first.image.as_ref();
            let masks = [("truth", &first.truth), ("prediction", &first.prediction)];
            let masks = masks.into_iter().filter_map(|(what, mask)| {
                let mask = mask.as_ref()?;
                Some((blended(mask, image), format!("{what}: {}", names(&mask.labels(classes.len())))))
            });
            image.map(|image| (image.clone(), first.name.clone())).into_iter().chain(masks).collect()
        }
        _ => rows.iter().filter_map(shown).collect(),
    }
}

/// Squares of one size in a row.
fn side_by_side(images: Vec<Image>) -> Result<Image> {
    let width = SIDE * images.len();
    let mut rgb = vec![0; 3 * SIDE * width];
    for (i, image) in images.iter().enumerate() {
        let tile = fit(image, SIDE, Fit::Pad)?;
        for (row, values) in rgb.chunks_exact_mut(3 * width).zip(tile.chunks_exact(3 * SIDE)) {
            let place = row[3 * SIDE * i..].iter_mut().zip(values);
            place.for_each(|(byte, value)| *byte = value.round().clamp(0.0, 255.0) as u8);
        }
    }
    Image::new(SIDE, width, rgb)
}
