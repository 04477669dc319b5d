//! What is in an output folder already is not written over without a word.

use atrous::error::printable;
use atrous::files::{explain, is_stream};
use atrous::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How many names an error tells.
const TOLD: usize = 3;

/// An error where there is anything in a folder that a command wants for itself. Hidden files do not count:
/// locks and what systems leave.
pub fn refuse_full(folder: &Path, instead: &str) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| Error::file(folder, explain(&error)))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    match names.is_empty() {
        true => Ok(()),
        false => {
            let message = format!("the folder is not empty: it has {}; {instead}", list(&names));
            Err(Error::file(folder, message))
        }
    }
}

/// An error where one of the files is there that a command is going to write.
pub fn refuse_files(files: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<()> {
    let files = files.into_iter().map(|file| file.as_ref().to_owned());
    let there: Vec<PathBuf> = files.filter(|file| file.is_file() && !is_stream(file)).collect();
    let Some((first, others)) = there.split_first() else { return Ok(()) };
    let others: Vec<String> = others.iter().map(|file| file.display().to_string()).collect();
    let others = match others.len() {
        0 => String::new(),
        1 => format!(", and so is {}", others[0]),
        _ => format!(", and so are {}", list(&others)),
    };
    let message =
        format!("it is there already{others}; overwrite with --force, or choose another --out");
    Err(Error::file(first, message))
}

/// The first names, and how many there are beside them.
fn list(names: &[String]) -> String {
    let told: Vec<_> = names.iter().take(TOLD).map(|name| printable(name)).collect();
    match (names.len().saturating_sub(TOLD), &told[..]) {
        (0, [first @ .., last]) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        (0, _) => told.join(", "),
        (more, _) => format!("{} and {more} more", told.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_full_with_anything_that_is_not_hidden_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let refused = || refuse_full(folder.path(), "do so").map_err(|error| error.to_string());
        assert!(refuse_full(&folder.path().join("none"), "").is_ok() && refused().is_ok());
        std::fs::write(folder.path().join(".lock"), "").unwrap();
        assert!(refused().is_ok());
        for (name, wanted) in [
            ("b", "it has b; do so"),
            ("a", "it has a and b; do so"),
            ("c", "it has a, b and c; do so"),
            ("d\n", "it has a, b, c and 1 more; do so"),
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
            let error = refused().unwrap_err();
            assert!(error.ends_with(wanted), "{error}");
        }
        let error = refuse_full(&folder.path().join("a"), "").unwrap_err().to_string();
        assert!(error.contains("not a folder"), "{error}");
    }

    #[test]
    fn files_that_are_there_are_told_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c"].map(|name| folder.path().join(name));
        assert!(refuse_files(&files).is_ok());
        std::fs::write(&files[1], "").unwrap();
        let error = refuse_files(&files).unwrap_err().to_string();
        assert!(error.contains("b: it is there already; overwrite with --force"), "{error}");
        std::fs::write(&files[2], "").unwrap();
        let error = refuse_files(&files).unwrap_err().to_string();
        assert!(
            error.contains("b: it is there already, and so is ") && error.contains("c; "),
            "{error}"
        );
    }
}
