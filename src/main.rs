//! The command. Everything it does is in the library; here are the options and the messages.

#[macro_use]
mod cli;

use atrous::Error;
use atrous::live::LogEvent;
use atrous::pool::OutOfMemory;
use clap::Parser;
use cli::{Cli, Failure, output, signals};
use std::panic;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Instant;

/// What was asked for when there was no more memory.
static NO_MEMORY: OnceLock<OutOfMemory> = OnceLock::new();

fn main() -> ExitCode {
    signals::survive_the_limit_of_file_sizes();
    tell_of_memory_as_of_other_errors();
    let code = match Cli::try_parse() {
        Ok(cli) => panic::catch_unwind(|| done(cli)).unwrap_or_else(|_| panicked()),
        // What was asked for may be help, which is no error.
        Err(message) => {
            output::printed(message.print());
            message.exit_code() as u8
        }
    };
    match output::finish() {
        Err(error) if code == 0 => told(&error).into(),
        _ => code.into(),
    }
}

/// Runs the command and tells of its error; the exit code.
fn done(cli: Cli) -> u8 {
    let began = Instant::now();
    match cli::run(cli) {
        Ok(()) => {
            output::event(LogEvent::Done { seconds: began.elapsed().as_secs_f64() });
            0
        }
        Err(Error::Interrupted(message)) => {
            output::tell(&message);
            output::event(LogEvent::Interrupted { message });
            // 128 + SIGINT, as shells report it.
            130
        }
        Err(error) => told(&error),
    }
}

fn told(error: &Error) -> u8 {
    let Failure { status, message } = Failure::new(error);
    output::tell_error(&message);
    output::event(LogEvent::Error { message });
    status
}

/// Memory that nobody has is asked for deep inside, by any thread: an error, not a mistake of the
/// program. That it is told is left to [`panicked`].
fn tell_of_memory_as_of_other_errors() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| match panic.payload().downcast_ref() {
        Some(&asked) => drop(NO_MEMORY.set(asked)),
        None => usual(panic),
    }));
}

fn panicked() -> u8 {
    if let Some(asked) = NO_MEMORY.get() {
        output::tell_error(&asked.to_string());
        output::event(LogEvent::Error { message: asked.to_string() });
        return 1;
    }
    let message = "this is a mistake in atrous: please report it, with the command and the lines above";
    output::tell(&message);
    output::event(LogEvent::Error { message: message.into() });
    101
}
