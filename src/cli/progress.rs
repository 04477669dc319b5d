//! What a person sees while it works: a live line on a terminal, plain lines in a log.

pub mod line;

use super::{output, signals};
use atrous::duration::clock;
use atrous::live::{LogEvent, terminal};
use atrous::train::{Epoch, Event};
use atrous::{Error, Result};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use line::{Line, time_left};
use std::fmt;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

static WORKING: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs `work`, in which the first Ctrl-C (or SIGTERM) asks to stop after the current step. The
/// second, and any before or after, ends the program at once: there is nothing to save.
pub fn interruptible<T>(work: impl FnOnce() -> T) -> T {
    static LISTENING: Once = Once::new();
    // Without a listener the first Ctrl-C ends the program: the work itself can be done.
    LISTENING.call_once(|| drop(signals::on_stop(stop)));
    WORKING.store(true, Ordering::SeqCst);
    let result = work();
    WORKING.store(false, Ordering::SeqCst);
    result
}

/// Ctrl-C, by the key or by the signal.
pub fn stop() {
    if !WORKING.load(Ordering::SeqCst) || STOP.swap(true, Ordering::SeqCst) {
        terminal::restore();
        std::process::exit(130);
    }
    // A display says so itself.
    if terminal::is_active() {
        return;
    }
    eprintln!("\nstopping after this step; press Ctrl-C again to stop at once");
}

/// Break once Ctrl-C was pressed.
pub fn asked_to_stop() -> ControlFlow<()> {
    match STOP.load(Ordering::SeqCst) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// An error once Ctrl-C was pressed, which says what is not done.
pub fn check_interrupted(with: &str) -> Result<()> {
    match asked_to_stop().is_break() {
        true => Err(Error::Interrupted(format!("{with} is not finished"))),
        false => Ok(()),
    }
}

/// How much of a known number of things is done: a bar on a terminal, events in a log of JSON.
pub struct Bar {
    bar: ProgressBar,
    what: &'static str,
    /// What else there is to say.
    words: Arc<Mutex<String>>,
    /// When the last event was told.
    told: Mutex<Instant>,
}

/// Between two events of progress.
const PACE: Duration = Duration::from_secs(1);

/// A bar over a known number of things.
pub fn bar(total: usize, what: &'static str) -> Bar {
    let (told, words) = (Mutex::new(Instant::now()), Arc::<Mutex<String>>::default());
    if output::is_json() {
        let bar = ProgressBar::hidden();
        bar.set_length(total as u64);
        return Bar { bar, what, words, told };
    }
    let bar = live_line(total);
    let more = words.clone();
    if let Ok(style) = ProgressStyle::with_template("{line}") {
        bar.set_style(style.with_key("line", move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&of_bar(what, state, &more).fit(line::width()));
        }));
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    Bar { bar, what, words, told }
}

/// Drawn on a terminal; nowhere else, and not where nobody wants it.
fn live_line(total: usize) -> ProgressBar {
    match output::shows_progress() {
        true => ProgressBar::new(total as u64),
        false => ProgressBar::hidden(),
    }
}

fn of_bar<'a>(what: &'a str, state: &ProgressState, more: &Mutex<String>) -> Line<'a> {
    let (elapsed, done, of) = (state.elapsed(), state.pos(), state.len().unwrap_or(0));
    let left =
        time_left(elapsed, done, of).map(|left| (1, format!("{} left", clock(left.as_secs_f64()))));
    let so_far = (3, format!("{} so far", clock(elapsed.as_secs_f64())));
    let more = more.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let more = (!more.is_empty()).then_some((2, more));
    Line { what, done, of, words: more.into_iter().chain(left).chain([so_far]).collect() }
}

impl Bar {
    pub fn set_length(&self, total: u64) {
        self.bar.set_length(total);
    }

    pub fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.tell();
    }

    /// Takes the bar away while something is printed.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    pub fn inc(&self, more: u64) {
        self.bar.inc(more);
        self.tell();
    }

    pub fn set_message(&self, message: String) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }

    pub fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }

    fn tell(&self) {
        if !output::is_json() {
            return;
        }
        let (done, of) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if done == of || told.elapsed() >= PACE {
            *told = Instant::now();
            output::event(LogEvent::Progress { task: self.what.into(), done, of });
        }
    }
}

/// `  (3:12, at most 543 MiB)`: the time since, and the most memory this process ever held, where the
/// system tells it (Linux).
pub fn elapsed(began: Instant) -> String {
    let peak = atrous::bench::peak_rss_mib();
    let memory = peak.map_or(String::new(), |mib| format!(", at most {mib:.0} MiB"));
    format!("  ({}{memory})", clock(began.elapsed().as_secs_f64()))
}

/// How a training run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// As lines, with a live one below them on a terminal.
    Lines,
    /// As lines when it is over: a display has the terminal.
    Later,
    /// Not at all: events are printed.
    Not,
}

/// Shows a training run: epoch, step, loss, accuracy, pictures a second, time left.
pub struct Training {
    shown: Shown,
    /// What is shown later.
    held: Vec<String>,
    /// The live line, and what it is of.
    bar: Option<(ProgressBar, String)>,
    began: Instant,
    /// Pictures seen since then.
    images: usize,
    steps_done: usize,
    steps_left: usize,
    epochs: usize,
    seconds: f64,
}

impl Training {
    pub fn new(shown: Shown) -> Self {
        Training {
            shown,
            held: Vec::new(),
            bar: None,
            began: Instant::now(),
            images: 0,
            steps_done: 0,
            steps_left: 0,
            epochs: 0,
            seconds: 0.0,
        }
    }

    fn time_left(&self) -> String {
        let a_step = self.began.elapsed().as_secs_f64() / self.steps_done.max(1) as f64;
        clock(a_step * self.steps_left as f64)
    }

    fn draw(&self, step: usize, words: Vec<(u8, String)>) {
        let Some((bar, epoch)) = &self.bar else { return };
        let (done, of) = (step as u64, bar.length().unwrap_or(0));
        bar.set_position(done);
        bar.set_message(Line { what: epoch, done, of, words }.fit(line::width()));
    }

    fn say(&mut self, line: String) {
        match self.shown {
            Shown::Lines => println!("{line}"),
            Shown::Later => self.held.push(line),
            Shown::Not => {}
        }
    }

    /// Prints what was held back.
    pub fn release(&mut self) {
        self.shown = Shown::Lines;
        std::mem::take(&mut self.held).into_iter().for_each(|line| self.say(line));
    }

    pub fn show(&mut self, event: &Event) -> ControlFlow<()> {
        match *event {
            Event::EpochBegins { epoch, of, steps, step } => {
                self.epochs = of;
                self.steps_left = steps * (of + 1 - epoch) - step;
                self.seconds = self.began.elapsed().as_secs_f64();
                if self.shown != Shown::Lines {
                    return asked_to_stop();
                }
                let bar = live_line(steps);
                if let Ok(style) = ProgressStyle::with_template("{msg}") {
                    bar.set_style(style);
                }
                self.bar = Some((bar, format!("epoch {epoch}/{of}")));
                self.draw(step, Vec::new());
            }
            Event::Step { step, samples, loss, accuracy, .. } => {
                self.images += samples;
                self.steps_done += 1;
                self.steps_left = self.steps_left.saturating_sub(1);
                let rate = self.images as f64 / self.began.elapsed().as_secs_f64();
                let steps = self.steps_done + self.steps_left;
                let settled =
                    time_left(self.began.elapsed(), self.steps_done as u64, steps as u64).is_some();
                let mut words = vec![
                    (1, format!("loss {loss:.4}")),
                    (2, format!("accuracy {accuracy:.3}")),
                    (3, format!("{rate:.0} pictures/s")),
                ];
                words.extend(settled.then(|| (0, format!("{} left", self.time_left()))));
                self.draw(step, words);
            }
            Event::Saved { .. } => {}
            Event::EpochEnds { record, .. } => {
                if let Some((bar, _)) = self.bar.take() {
                    bar.finish_and_clear();
                }
                self.say(self.line(record));
            }
            Event::StopsEarly { epoch, best_epoch } => {
                self.say(format!(
                    "stopped after epoch {epoch}: no better validation since epoch {best_epoch}"
                ));
            }
        }
        asked_to_stop()
    }

    fn line(&self, e: &Epoch) -> String {
        let number = |rank: u8, name: &str, value: Option<f64>| {
            value.map(|value| (rank, format!("{name} {value:.4}")))
        };
        let seconds = self.began.elapsed().as_secs_f64() - self.seconds;
        let is_log = !std::io::stdout().is_terminal();
        let words = [
            number(1, "loss", Some(e.loss)),
            Some((3, format!("accuracy {:.3}", e.accuracy))),
            number(2, "val_loss", e.val_loss),
            number(4, "val_accuracy", e.val_accuracy),
            number(0, "val_mAP", e.val_map),
            number(0, "val_mIoU", e.val_miou),
            Some((1, format!("({seconds:.1} s)"))),
            is_log.then(|| (1, format!("{} left", self.time_left()))),
        ];
        let words: Vec<(u8, String)> = words.into_iter().flatten().collect();
        line::printed(&format!("epoch {:>3}/{}", e.epoch, self.epochs), &words)
    }
}
