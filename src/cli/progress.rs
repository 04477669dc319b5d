//! What a person sees while it works: a live line on a terminal, plain lines in a log.

use super::{output, signals};
use atrous::duration::clock;
use atrous::live::{LogEvent, terminal};
use atrous::train::{Epoch, Event};
use atrous::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
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
    /// When the last event was told.
    told: Mutex<Instant>,
}

/// Between two events of progress.
const PACE: Duration = Duration::from_secs(1);

/// A bar over a known number of things.
pub fn bar(total: usize, what: &'static str) -> Bar {
    let told = Mutex::new(Instant::now());
    if output::is_json() {
        let bar = ProgressBar::hidden();
        bar.set_length(total as u64);
        return Bar { bar, what, told };
    }
    let bar = ProgressBar::new(total as u64);
    let template = "{prefix} [{bar:28}] {pos}/{len} {msg} ({elapsed} so far, {eta} left)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(500));
    Bar { bar, what, told }
}

impl Bar {
    pub fn set_length(&self, total: u64) {
        self.bar.set_length(total);
    }

    pub fn set_position(&self, done: u64) {
        self.bar.set_position(done);
        self.tell();
    }

    pub fn inc(&self, more: u64) {
        self.bar.inc(more);
        self.tell();
    }

    pub fn set_message(&self, message: String) {
        self.bar.set_message(message);
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
    bar: Option<ProgressBar>,
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
                let bar = ProgressBar::new(steps as u64);
                if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:28}] {pos}/{len} {msg}")
                {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(format!("epoch {epoch}/{of}"));
                bar.set_position(step as u64);
                self.bar = Some(bar);
            }
            Event::Step { step, samples, loss, accuracy, .. } => {
                self.images += samples;
                self.steps_done += 1;
                self.steps_left = self.steps_left.saturating_sub(1);
                let rate = self.images as f64 / self.began.elapsed().as_secs_f64();
                if let Some(bar) = &self.bar {
                    bar.set_position(step as u64);
                    bar.set_message(format!(
                        "loss {loss:.4}  accuracy {accuracy:.3}  {rate:.0} pictures/s  {} left",
                        self.time_left()
                    ));
                }
            }
            Event::Saved { .. } => {}
            Event::EpochEnds { record, .. } => {
                if let Some(bar) = self.bar.take() {
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
        let number =
            |name: &str, value: Option<f64>| value.map_or(String::new(), |v| format!("  {name} {v:.4}"));
        let left = if std::io::stdout().is_terminal() {
            String::new()
        } else {
            format!("  {} left", self.time_left())
        };
        format!(
            "epoch {:>3}/{}  loss {:.4}  accuracy {:.3}{}{}{}{}  ({:.1} s){left}",
            e.epoch,
            self.epochs,
            e.loss,
            e.accuracy,
            number("val_loss", e.val_loss),
            number("val_accuracy", e.val_accuracy),
            number("val_mAP", e.val_map),
            number("val_mIoU", e.val_miou),
            self.began.elapsed().as_secs_f64() - self.seconds,
        )
    }
}
