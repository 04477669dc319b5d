//! Files, read whole and written so that nobody ever sees half of one.

use crate::error::{Error, Result};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    fs::read(&path).map_err(|error| Error::file(&path, error))
}

pub fn create_dir(path: impl AsRef<Path>) -> Result<()> {
    fs::create_dir_all(&path).map_err(|error| Error::file(&path, error))
}

/// Writes to a temporary file beside `path`, syncs it, and renames it: after a crash there is the
/// old file or the new one.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let path = path.as_ref();
    let name = path.file_name().ok_or_else(|| Error::file(path, "expected the name of a file"))?;
    let unique = format!(".{}.{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut temporary = name.to_owned();
    temporary.push(unique);
    let temporary = path.with_file_name(temporary);
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // The first error is the one to report; the leftover may not even exist.
        let _ = fs::remove_file(&temporary);
        Error::file(path, error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_replaces_the_file_and_leaves_nothing_else_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/such.txt");
        let error = write_atomically(&path, b"").unwrap_err().to_string();
        assert!(error.contains("such.txt"), "{error}");
        assert!(read(&path).is_err());
    }
}
