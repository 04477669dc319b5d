//! What a person sees while it works: a live line on a terminal, plain lines in a log.

use super::signals;
use atrous::train::{Epoch, Event};
use atrous::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
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

fn stop() {
    if !WORKING.load(Ordering::SeqCst) || STOP.swap(true, Ordering::SeqCst) {
        std::process::exit(130);
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

/// A bar over a known number of things.
pub fn bar(total: usize, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    let template = "{prefix} [{bar:28}] {pos}/{len} {msg} ({elapsed} so far, {eta} left)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// `  (3:12, at most 543 MiB)`: the time since, and the most memory this process ever held, where the
/// system tells it (Linux).
pub fn elapsed(began: Instant) -> String {
    let seconds = began.elapsed().as_secs();
    let peak = atrous::bench::peak_rss_mib();
    let memory = peak.map_or(String::new(), |mib| format!(", at most {mib:.0} MiB"));
    format!("  ({}:{:02}{memory})", seconds / 60, seconds % 60)
}

/// Shows a training run: epoch, step, loss, accuracy, pictures a second, time left.
pub struct Training {
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
    pub fn new() -> Self {
        Training {
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
        let seconds = (a_step * self.steps_left as f64) as u64;
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }

    pub fn show(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::EpochBegins { epoch, of, steps, step } => {
                self.epochs = of;
                self.steps_left = steps * (of + 1 - epoch) - step;
                self.seconds = self.began.elapsed().as_secs_f64();
                let bar = ProgressBar::new(steps as u64);
                if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:28}] {pos}/{len} {msg}")
                {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_prefix(format!("epoch {epoch}/{of}"));
                bar.set_position(step as u64);
                self.bar = Some(bar);
            }
            Event::Step { step, samples, loss, accuracy } => {
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
            Event::EpochEnds(record) => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                println!("{}", self.line(record));
            }
            Event::StopsEarly { epoch, best_epoch } => {
                println!("stopped after epoch {epoch}: no better validation since epoch {best_epoch}");
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
