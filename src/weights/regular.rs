//! Reading a file whole, without believing that it is one.

use crate::error::{Error, Result};
use crate::files::explain;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

/// The most bytes a file of weights may have: twenty times the largest network here, an optimizer's two
/// moments included.
pub(crate) const MOST: u64 = 4 << 30;

/// All bytes of a regular file of at most [`MOST`] bytes. What has no end (a device, a pipe), what is larger,
/// and what changes its length meanwhile are errors.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    at_most(path, MOST)
}

fn at_most(path: &Path, most: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::file(path, explain(&error));
    // Before it is opened: that waits at a pipe until somebody writes. And after, because it may be another.
    length(path, &std::fs::metadata(path).map_err(failed)?, most)?;
    let file = File::open(path).map_err(failed)?;
    let length = length(path, &file.metadata().map_err(failed)?, most)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length as usize + 1).map_err(|_| {
        Error::file(
            path,
            format!(
                "expected memory for its {length} bytes, got none: it is too large for this machine"
            ),
        )
    })?;
    file.take(length + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != length {
        let message = format!("expected {length} bytes, as when it was opened, got {}", bytes.len());
        let more = if bytes.len() as u64 > length { " and more" } else { "" };
        return Err(Error::file(path, format!("{message}{more}: is it still being written?")));
    }
    Ok(bytes)
}

fn length(path: &Path, there: &Metadata, most: u64) -> Result<u64> {
    if there.is_dir() {
        return Err(Error::file(path, "expected a file of weights, but it is a folder"));
    }
    if !there.is_file() {
        let message = "expected a regular file, got a device or a pipe, which may have no end: \
                       save it to a file first";
        return Err(Error::file(path, message));
    }
    match there.len() {
        length if length <= most => Ok(length),
        length => {
            let message = format!("expected a file of at most {most} bytes, got {length}");
            Err(Error::file(path, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_read_whole_up_to_the_limit_and_a_larger_one_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, [7; 10]).unwrap();
        assert_eq!(at_most(&path, 10).unwrap(), [7; 10]);
        let error = at_most(&path, 9).unwrap_err().to_string();
        assert!(error.contains("at most 9 bytes, got 10"), "{error}");
        // A file may say that it is huge and take no room on the disk.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("at most 4294967296 bytes, got 1099511627776"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn devices_pipes_and_folders_are_refused_before_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [Path::new("/dev/zero"), Path::new("/dev/null"), &pipe] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.contains("expected a regular file, got a device or a pipe"), "{error}");
        }
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("it is a folder"), "{error}");
        let error = read(&folder.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("no such file"), "{error}");
    }

    /// Files of `/proc` say that they are empty, as a file does to which another program is about to write.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_has_more_than_it_said_is_refused() {
        let error = read(Path::new("/proc/self/status")).unwrap_err().to_string();
        assert!(error.contains("expected 0 bytes, as when it was opened, got 1 and more"), "{error}");
    }
}
