//! One error type. Every variant says what was expected, what came, and where.

use std::fmt;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Error {
    /// An operator was handed tensors whose shapes do not fit together.
    Shape { op: &'static str, expected: String, got: String },
    /// An operator was handed a tensor of an element type it does not take.
    DType { op: &'static str, expected: String, got: String },
    /// A setting (stride, rate, threshold, name) is outside what is meaningful.
    Argument { what: &'static str, message: String },
    /// A file or folder could not be read or written, or does not hold what it should.
    File { path: PathBuf, message: String },
    /// One row (1-based, header included) of a table is wrong.
    Row { path: PathBuf, line: usize, column: Option<String>, message: String },
    /// The device that was asked for is not there.
    Device(String),
    /// Training produced something that cannot go on (a loss that is not a number).
    Diverged(String),
    /// The user asked to stop; what was done so far is saved.
    Interrupted(String),
}

impl Error {
    pub fn shape(op: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Shape { op, expected: expected.to_string(), got: got.to_string() }
    }

    pub fn argument(what: &'static str, message: impl fmt::Display) -> Self {
        Error::Argument { what, message: message.to_string() }
    }

    pub fn file(path: impl AsRef<Path>, message: impl fmt::Display) -> Self {
        Error::File { path: path.as_ref().to_owned(), message: message.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Shape { op, expected, got } => write!(f, "{op}: expected {expected}, got {got}"),
            Error::DType { op, expected, got } => {
                write!(f, "{op}: expected element type {expected}, got {got}")
            }
            Error::Argument { what, message } => write!(f, "{what}: {message}"),
            Error::File { path, message } => write!(f, "{}: {message}", path.display()),
            Error::Row { path, line, column, message } => {
                write!(f, "{}, line {line}", path.display())?;
                if let Some(column) = column {
                    write!(f, ", column `{column}`")?;
                }
                write!(f, ": {message}")
            }
            Error::Device(message) => write!(f, "device: {message}"),
            Error::Diverged(message) => write!(f, "training diverged: {message}"),
            Error::Interrupted(message) => write!(f, "interrupted: {message}"),
        }
    }
}

impl std::error::Error for Error {}
