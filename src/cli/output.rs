//! What the command prints.
//!
//! The standard library's macros panic where nothing can be printed: `| head -1` would end a night of
//! training. Here stand macros of the same names in their place, for all modules that are declared
//! below this one, so that nobody has to remember. What cannot be printed is dropped and the work
//! goes on. A reader that has gone (a pipe that is closed) wanted no more; anything else, such as a
//! full disk, is an [`error`](finish) when the work is done.

use anstream::{AutoStream, ColorChoice};
use atrous::error::printable;
use atrous::files::explain;
use atrous::live::{LogEvent, LogRecord};
use atrous::{Error, Result};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

macro_rules! print {
    ($($message:tt)*) => { $crate::cli::output::to_stdout(format!($($message)*)) };
}

macro_rules! println {
    () => { $crate::cli::output::to_stdout("\n".to_owned()) };
    ($($message:tt)*) => { $crate::cli::output::to_stdout(format!($($message)*) + "\n") };
}

macro_rules! eprint {
    ($($message:tt)*) => { $crate::cli::output::to_stderr(format_args!($($message)*)) };
}

macro_rules! eprintln {
    ($($message:tt)*) => { $crate::cli::output::to_stderr(format_args!("{}\n", format_args!($($message)*))) };
}

/// A line that `--quiet` leaves: what was asked for, not what there is to say about it.
macro_rules! result {
    ($($message:tt)*) => { $crate::cli::output::result(format!($($message)*) + "\n") };
}

/// `--quiet`
#[derive(Args, Clone, Debug, Default)]
pub struct Quiet {
    /// Print results and errors alone
    #[arg(short, long)]
    pub quiet: bool,
}

impl Quiet {
    pub fn apply(&self) {
        if self.quiet {
            without_progress();
            quiet();
        }
    }
}

/// Why something that was to be printed is not.
static LOST: OnceLock<String> = OnceLock::new();
/// Nobody reads standard output any more.
static UNREAD: AtomicBool = AtomicBool::new(false);
/// Standard output is for a file's rows alone.
static FOR_ROWS: AtomicBool = AtomicBool::new(false);

/// Standard output is for events, one object of JSON a line.
static JSON: AtomicBool = AtomicBool::new(false);

/// No progress is shown.
static STILL: AtomicBool = AtomicBool::new(false);
/// Nothing is printed but results and errors.
static QUIET: AtomicBool = AtomicBool::new(false);

/// What standard output is called in messages.
pub const STDOUT: &str = "standard output";

pub fn to_stdout(message: String) {
    if !is_quiet() {
        result(message);
    }
}

pub fn result(message: String) {
    // Where standard output has a document, that is the result.
    if is_quiet() && FOR_ROWS.load(Ordering::Relaxed) {
        return;
    }
    let message = shown(&message);
    match is_json() {
        true if message.trim().is_empty() => {}
        true => event(LogEvent::Message { text: message.trim_end_matches('\n').to_owned() }),
        false => line(message),
    }
}

fn line(message: String) {
    match FOR_ROWS.load(Ordering::Relaxed) {
        true => to_stderr(format_args!("{message}")),
        false => printed(io::stdout().write_all(message.as_bytes())),
    }
}

pub fn to_stderr(message: fmt::Arguments) {
    // There is no other place to tell it.
    let _ = io::stderr().write_fmt(message);
}

/// From now on what is printed is an event, one object of JSON a line.
pub fn log_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Whether [`log_json`] was asked for.
pub fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// A line of JSON, if that was asked for.
pub fn event(event: LogEvent) {
    record(&LogRecord::now(event));
}

/// The same of an event that has its time already.
pub fn record(record: &LogRecord) {
    if is_json() {
        line(record.line() + "\n");
    }
}

/// From now on no progress is shown.
pub fn without_progress() {
    STILL.store(true, Ordering::Relaxed);
}

/// From now on nothing is printed but results and errors.
pub fn quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether [`quiet`] was asked for.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Whether lines may be drawn over one another on standard error: on a terminal that can, where nobody asked
/// for quiet.
pub fn shows_progress() -> bool {
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stderr().is_terminal() && !dumb && !STILL.load(Ordering::Relaxed)
}

/// Something to be known on standard error.
pub fn tell(message: &impl fmt::Display) {
    eprintln!("{}", shown(&message.to_string()));
}

/// An error on standard error, in colour where that is wanted (`NO_COLOR`, `CLICOLOR_FORCE`, `TERM=dumb`).
pub fn tell_error(message: &str) {
    let colour = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    let (on, off) = if colour { ("\x1b[1m\x1b[31m", "\x1b[0m") } else { ("", "") };
    eprintln!("{on}error:{off} {}", shown(message));
}

/// A message line by line: its own line ends are meant, what else a file may have put into it is not.
fn shown(message: &str) -> String {
    message.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Standard output, for the rows of a file; from now on messages go to standard error.
pub fn for_rows() -> impl Write {
    FOR_ROWS.store(true, Ordering::Relaxed);
    Rows
}

/// Standard output is for one document of JSON; until it comes, and after it, messages go to standard error.
pub fn for_json() {
    FOR_ROWS.store(true, Ordering::Relaxed);
}

/// A document of JSON on standard output.
pub fn json(document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(document);
    let text = text.map_err(|error| Error::file(STDOUT, format!("could not be written: {error}")))?;
    self::document((text + "\n").as_bytes());
    Ok(())
}

/// A whole text on standard output, as it is.
pub fn document(text: &[u8]) {
    printed(io::stdout().write_all(text));
}

/// Whether rows were lost only because their reader has gone.
pub fn unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// When the work is done: an error where something that was printed has not arrived.
pub fn finish() -> Result<()> {
    printed(io::stdout().flush());
    match LOST.get() {
        Some(why) => Err(Error::file(STDOUT, format!("could not be written: {why}"))),
        None => Ok(()),
    }
}

/// Remembers, if it failed, that something printed has not arrived.
pub fn printed(result: io::Result<()>) {
    if let Err(error) = result {
        match error.kind() {
            ErrorKind::BrokenPipe => UNREAD.store(true, Ordering::Relaxed),
            _ => drop(LOST.set(explain(&error))),
        }
    }
}

struct Rows;

impl Write for Rows {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
        io::stdout().write(bytes).inspect_err(|error| UNREAD.store(gone(error), Ordering::Relaxed))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_a_terminal_are_printed_as_text() {
        assert_eq!(shown("\x1b[2J\u{9b}1mé\rä\nb\n"), "\\u{1b}[2J\\u{9b}1mé\\rä\nb\n");
    }
}
