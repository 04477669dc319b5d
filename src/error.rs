//! One error type, whose text says what was expected, what came, and where.
//!
//! (The CPU's memory that is not there is no `Error` but a panic, [`crate::pool::OutOfMemory`]; a GPU's is an
//! [`Error::Device`].)

mod nearest;

pub use nearest::nearest;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// A `Result` whose error is [`Error`] unless another is named.
///
/// ```
/// use atrous::{Error, Result};
///
/// fn rate(text: &str) -> Result<f32> {
///     text.parse().map_err(|error| Error::argument("rate", error))
/// }
///
/// assert_eq!(rate("0.5")?, 0.5);
/// assert_eq!(rate("half").unwrap_err().to_string(), "rate: invalid float literal");
/// # Ok::<(), Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: its text says what was expected, what came instead, and where.
///
/// ```
/// use atrous::{Error, Tensor};
///
/// let error = Tensor::ones([2, 3]).reshape([4]).unwrap_err();
/// assert!(matches!(error, Error::Shape { .. }));
/// let error = Error::shape("sort", "one axis", "[2×3]");
/// assert_eq!(error.to_string(), "sort: expected one axis, got [2×3]");
/// let error = Error::argument("rate", "expected 0 to 1, got 7");
/// assert_eq!(error.to_string(), "rate: expected 0 to 1, got 7");
/// assert_eq!(Error::file("a.npy", "it is empty").to_string(), "a.npy: it is empty");
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An operator was handed tensors whose shapes do not fit together, or a gradient that is not of its
    /// tensor's shape, type and device.
    Shape {
        /// The operator or function.
        op: &'static str,
        /// The shapes it takes.
        expected: String,
        /// The shapes it was given.
        got: String,
    },
    /// An operator was handed a tensor of an element type it does not take.
    DType {
        /// The operator or function.
        op: &'static str,
        /// The element types it takes.
        expected: String,
        /// The element types it was given.
        got: String,
    },
    /// A setting (stride, rate, threshold, name) is outside what is meaningful, or a call is not possible as
    /// things stand (a second backward pass through one graph, a gradient that `check_gradients` finds
    /// wrong).
    Argument {
        /// The setting or the function it belongs to, e.g. `augment`.
        what: &'static str,
        /// The value it had, and those it may have.
        message: String,
    },
    /// A file or folder could not be read or written, or does not hold what it should.
    File {
        /// As it was asked for.
        path: PathBuf,
        /// What the system said, or what was expected in the file.
        message: String,
    },
    /// A row of a CSV table is wrong.
    Row {
        /// The table's file.
        path: PathBuf,
        /// Counted from 1, header included, as editors do.
        line: usize,
        /// The header of the column, where the fault lies in one.
        column: Option<String>,
        /// What was expected there and what came.
        message: String,
    },
    /// A device is not there, failed, or cannot do what it was asked for; the tensors of one operator are on
    /// several devices; a name is no device's.
    Device(String),
    /// Training produced something that cannot go on (a loss that is not a number).
    Diverged(String),
    /// The user asked to stop; the text says what is kept of the work.
    Interrupted(String),
}

impl Error {
    /// [`Error::Shape`]: `op: expected …, got …`.
    pub fn shape(op: &'static str, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Error::Shape { op, expected: expected.to_string(), got: got.to_string() }
    }

    /// [`Error::Argument`]: `what: message`.
    pub fn argument(what: &'static str, message: impl fmt::Display) -> Self {
        Error::Argument { what, message: message.to_string() }
    }

    /// A name that is none of those there are, with the one that was perhaps meant.
    pub fn unknown(what: &'static str, name: &str, known: &[&str]) -> Self {
        let meant = did_you_mean(name, known.iter().copied());
        Error::argument(what, format!("`{name}` is none of `{}`{meant}", known.join("`, `")))
    }

    /// An [`Error::File`]; the message does not repeat the path.
    pub fn file(path: impl AsRef<Path>, message: impl fmt::Display) -> Self {
        Error::File { path: path.as_ref().to_owned(), message: message.to_string() }
    }
}

/// `; did you mean `NAME`?`, to be put behind a message: the known name that is [nearest]; nothing where none
/// is like it.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or(String::new(), |meant| format!("; did you mean `{meant}`?"))
}

/// The names of an enum without fields, for `Display` and `FromStr`:
/// `names! { "what it is" Type { Variant: "name" } }`.
macro_rules! names {
    ($what:literal $type:ident { $($variant:ident: $name:literal),* }) => {
        impl $type {
            /// The names that are parsed and displayed, in the order of the variants.
            pub const NAMES: [&'static str; [$($name),*].len()] = [$($name),*];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($type::$variant => $name,)* })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;

            fn from_str(name: &str) -> $crate::error::Result<Self> {
                match name {
                    $($name => Ok($type::$variant),)*
                    _ => Err($crate::error::Error::unknown($what, name, &Self::NAMES)),
                }
            }
        }
    };
}
pub(crate) use names;

/// What a file says, made safe to print: a sample's `Id` in a CSV table or a tensor's name in a weights file
/// may hold a terminal's escape sequences, line ends, or marks that turn the direction of writing round.
/// Those are written out (`\u{1b}`, `\n`); letters of all scripts stay as they are.
///
/// ```
/// use atrous::error::printable;
///
/// assert_eq!(printable("Fähre 7"), "Fähre 7");
/// assert_eq!(printable("\u{1b}[31mred\n"), r"\u{1b}[31mred\n");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(unprintable) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if unprintable(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal would act on this character instead of showing it.
fn unprintable(c: char) -> bool {
    let separator = matches!(c, '\u{2028}' | '\u{2029}');
    let direction = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || separator || direction
}

/// A message with its line ends kept and every other control character written out ([`printable`]).
struct Lines<'a>(&'a str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.0.split('\n').enumerate() {
            let end = if i > 0 { "\n" } else { "" };
            write!(f, "{end}{}", printable(line))?;
        }
        Ok(())
    }
}

/// Messages and paths quote what files hold and are called: [`printable`] here covers all of them.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &Path| printable(&path.to_string_lossy()).into_owned();
        match self {
            Error::Shape { op, expected, got } => {
                write!(f, "{op}: expected {}, got {}", Lines(expected), Lines(got))
            }
            Error::DType { op, expected, got } => {
                write!(f, "{op}: expected element type {}, got {}", Lines(expected), Lines(got))
            }
            Error::Argument { what, message } => write!(f, "{what}: {}", Lines(message)),
            Error::File { path, message } => write!(f, "{}: {}", shown(path), Lines(message)),
            Error::Row { path, line, column, message } => {
                write!(f, "{}, line {line}", shown(path))?;
                if let Some(column) = column {
                    write!(f, ", column `{}`", printable(column))?;
                }
                write!(f, ": {}", Lines(message))
            }
            Error::Device(message) => write!(f, "device: {}", Lines(message)),
            Error::Diverged(message) => write!(f, "training diverged: {}", Lines(message)),
            Error::Interrupted(message) => write!(f, "interrupted: {}", Lines(message)),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_are_written_out_and_letters_of_all_scripts_stay() {
        assert_eq!(printable("a\x1b[31mred\x07\r\n\u{9b}2J"), r"a\u{1b}[31mred\u{7}\r\n\u{9b}2J");
        assert_eq!(printable("cat\u{202e}gpj.exe"), r"cat\u{202e}gpj.exe");
        for plain in ["", "conv1/kernel:0", "Größe 猫 кот قطة 🐈 é", r"back\slash"] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain), "{plain}");
        }
    }

    #[test]
    fn an_error_shows_no_escape_sequence_of_a_file_and_keeps_its_own_lines() {
        let error =
            Error::file("a\x1b[2J\n.csv", "expected a name, got `\x1b]0;x\x07`\n  and a second line");
        assert_eq!(
            error.to_string(),
            "a\\u{1b}[2J\\n.csv: expected a name, got `\\u{1b}]0;x\\u{7}`\n  and a second line"
        );
        let row = Error::Row {
            path: "a.csv".into(),
            line: 2,
            column: Some("\t".into()),
            message: "\x1b".into(),
        };
        assert_eq!(row.to_string(), r"a.csv, line 2, column `\t`: \u{1b}");
    }
}
