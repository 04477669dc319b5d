//! Writing a file so that it is either complete or not there at all.
//!
//! A temporary sibling is written, flushed and synced, then renamed over the old file (one atomic
//! step on a POSIX file system), then the folder is synced, so that the new name survives a power
//! cut too. Whatever fails before the rename leaves the old file as it was, and no temporary; what a
//! killed process leaves, the next one that writes into the folder removes.

pub mod lock;
mod temporary;

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use temporary::Temporary;

/// Calls `write` with a buffered writer and puts what it wrote at `path`.
///
/// What [cannot be replaced](is_stream) is written to directly.
///
/// ```
/// use atrous::files::write_atomically;
/// use std::io::{Error, Write};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("scores.txt");
/// write_atomically(&path, |file| writeln!(file, "0.84"))?;
/// let stopped = write_atomically(&path, |file| {
///     write!(file, "0.")?;
///     Err(Error::other("stopped"))
/// });
/// assert!(stopped.is_err());
/// assert_eq!(std::fs::read_to_string(&path).unwrap(), "0.84\n"); // the old file, all of it
/// # assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let done = if is_stream(path) { write_through(path, write) } else { replace(path, write) };
    done.map_err(|error| cannot_be_written(path, &error))
}

/// An error where nothing could be written at `path`, so that it shows before the work of which the
/// result is to go there: the folder is missing or closed, the name is too long, the disk is full.
///
/// ```
/// use atrous::files::check_writable;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// assert!(check_writable(folder.join("scores.txt")).is_ok());
/// assert!(!folder.join("scores.txt").exists()); // nothing is made yet
/// let error = check_writable(folder.join("missing/scores.txt")).unwrap_err().to_string();
/// assert!(error.contains("could not be written: no such file or folder"), "{error}");
/// ```
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let tried = if is_stream(path) {
        // To open a pipe would wait for its reader.
        if is_pipe(path) { Ok(()) } else { open_stream(path).map(drop) }
    } else {
        place(path).and_then(|place| Temporary::beside(&place)).map(drop)
    };
    tried.map_err(|error| cannot_be_written(path, &error))
}

/// Whether what is at the path can be written to but not be replaced: a device, a pipe, or the name
/// of an open file (`/dev/stderr`, `/dev/fd/3`). It has no siblings either.
///
/// ```
/// use atrous::files::is_stream;
///
/// assert_eq!(is_stream("/dev/null"), cfg!(unix));
/// assert!(!is_stream("Cargo.toml") && !is_stream("a file that is not there"));
/// ```
pub fn is_stream(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let special = fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
    let of_system = |there: io::Result<PathBuf>| there.is_ok_and(|there| there.starts_with("/proc"));
    special || of_system(fs::read_link(path)) || of_system(fs::canonicalize(folder_of(path)))
}

pub(crate) fn cannot_be_written(path: &Path, error: &io::Error) -> Error {
    Error::file(path, format!("could not be written: {}", explain(error)))
}

/// The cause of an input or output error in plain words, with the system's own words behind it.
///
/// ```
/// use atrous::files::explain;
/// use std::io::{Error, ErrorKind};
///
/// assert!(explain(&Error::from(ErrorKind::StorageFull)).starts_with("the disk is full ("));
/// assert_eq!(explain(&Error::other("the cable was cut")), "the cable was cut");
/// ```
pub fn explain(error: &io::Error) -> String {
    let plain = match error.kind() {
        ErrorKind::StorageFull => "the disk is full",
        ErrorKind::QuotaExceeded => "the user's disk quota is used up",
        ErrorKind::FileTooLarge => "the file is larger than is allowed here",
        ErrorKind::PermissionDenied => "no permission",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        ErrorKind::NotFound => "no such file or folder",
        ErrorKind::NotADirectory => "a part of the path is a file, not a folder",
        ErrorKind::AlreadyExists => "it is there already, and not a folder",
        ErrorKind::IsADirectory => "it is a folder, not a file",
        ErrorKind::InvalidFilename => "the name is too long, or not allowed here",
        ErrorKind::BrokenPipe => "whoever read it has stopped",
        ErrorKind::UnexpectedEof => "the file ends too early",
        _ => return error.to_string(),
    };
    format!("{plain} ({error})")
}

fn write_through(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    fill(open_stream(path)?, write).map(drop)
}

/// What was written to an open file before stays, and what follows goes behind it.
fn open_stream(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

#[cfg(unix)]
fn is_pipe(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo())
}

#[cfg(not(unix))]
fn is_pipe(_path: &Path) -> bool {
    false
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let path = &place(path)?;
    let (temporary, file) = Temporary::beside(path)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    fill(file, write)?.sync_all()?;
    fs::rename(temporary.path(), path)?;
    temporary.keep();
    // The new file is complete and in place. A file system that cannot sync a folder (some network
    // ones) only leaves open which of two complete files a power cut would bring back.
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Where the file is to be: behind a symbolic link the file is replaced, not the link.
fn place(path: &Path) -> io::Result<PathBuf> {
    if names_a_folder(path) || path.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    match fs::canonicalize(path) {
        // A link to a file that is not there yet. A ring of links is another error.
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => place(&folder_of(path).join(target)),
            Err(_) => Ok(path.to_owned()),
        },
        there => there,
    }
}

/// `Path` has no eye for a slash at the end: it would make a file called `out` of `out/`.
fn names_a_folder(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.ends_with(b"/.") || bytes.last().is_some_and(|&last| std::path::is_separator(last.into()))
}

/// Lets `write` write into the file.
///
/// Where something fails, the file's own error counts: writers on the way (of CSV, of PNG) make others
/// of it, or forget it.
fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<File> {
    let mut writer = BufWriter::with_capacity(1 << 16, Watched { file, failed: None });
    let done = write(&mut writer).and_then(|()| writer.flush());
    let (Watched { file, failed }, _) = writer.into_parts();
    failed.map_or(done, Err)?;
    Ok(file)
}

/// A file that remembers the first error of writing to it.
struct Watched {
    file: File,
    failed: Option<io::Error>,
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            if error.kind() != ErrorKind::Interrupted && self.failed.is_none() {
                let same = error.raw_os_error().map(io::Error::from_raw_os_error);
                self.failed = Some(same.unwrap_or_else(|| error.kind().into()));
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A folder with `old.txt` in it.
    fn folder_with_old_file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.txt");
        fs::write(&path, "old").unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_is_created_and_then_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for content in ["first", "second, longer", "3"] {
            write_atomically(&path, |w| w.write_all(content.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(folder.path()), ["a.txt"]);
        }
    }

    #[test]
    fn a_write_that_fails_halfway_leaves_the_old_file_and_nothing_else() {
        let (folder, path) = folder_with_old_file();
        let error = write_atomically(&path, |w| {
            w.write_all(&[b'x'; 200_000])?;
            Err(io::Error::other("the source dried up"))
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("old.txt") && error.contains("the source dried up"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["old.txt"]);
    }

    #[test]
    fn a_full_disk_is_called_by_its_name_and_leaves_the_old_file() {
        let (folder, path) = folder_with_old_file();
        let error = write_atomically(&path, |w| {
            w.write_all(b"new")?;
            Err(ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert!(matches!(error, Error::File { path: named, .. } if named == path));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["old.txt"]);
    }

    #[test]
    fn a_panic_while_writing_leaves_no_temporary_file() {
        let (folder, path) = folder_with_old_file();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            write_atomically(&path, |_| -> io::Result<()> { panic!("on purpose") })
        }));
        assert!(panicked.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["old.txt"]);
    }

    #[test]
    fn a_missing_folder_and_a_folder_in_the_files_place_are_errors_that_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &Path| write_atomically(path, |w| w.write_all(b"x")).unwrap_err().to_string();
        let missing = write(&folder.path().join("nowhere/a.txt"));
        assert!(missing.contains("no such file or folder"), "{missing}");
        let taken = write(folder.path());
        assert!(taken.contains("it is a folder"), "{taken}");
        assert!(write(Path::new("..")).contains("it is a folder"));
        assert!(write(&folder.path().join("a/")).contains("it is a folder"));
        assert!(write(&folder.path().join("a/.")).contains("it is a folder"));
        assert!(write(Path::new("")).contains("file's name"));
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (folder, path) = folder_with_old_file();
        let link = folder.path().join("link.txt");
        symlink(&path, &link).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_atomically(&link, |w| w.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        symlink("new.txt", folder.path().join("early.txt")).unwrap();
        write_atomically(folder.path().join("early.txt"), |w| w.write_all(b"x")).unwrap();
        assert!(fs::symlink_metadata(folder.path().join("early.txt")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(folder.path().join("new.txt")).unwrap(), "x");
        symlink("ring", folder.path().join("ring")).unwrap();
        assert!(write_atomically(folder.path().join("ring"), |w| w.write_all(b"x")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        check_writable("/dev/null").unwrap();
        write_atomically("/dev/null", |w| w.write_all(b"x")).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_files_own_error_is_told_whatever_a_writer_on_the_way_makes_of_it() {
        let forgets = |w: &mut dyn Write| {
            let _ = w.write_all(&[b'x'; 200_000]);
            Ok(())
        };
        let renames = |w: &mut dyn Write| {
            w.write_all(&[b'x'; 200_000]).map_err(|_| io::Error::other("the encoder gave up"))
        };
        for error in [write_atomically("/dev/full", forgets), write_atomically("/dev/full", renames)] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("the disk is full") && !error.contains("encoder"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_found_without_writing_it() {
        let (folder, path) = folder_with_old_file();
        let long = "n".repeat(256);
        for (name, wanted) in [
            ("nowhere/a.txt", "no such file or folder"),
            ("old.txt/a.txt", "not a folder"),
            ("new/", "it is a folder"),
            (&*long, "name is too long"),
        ] {
            let error = check_writable(folder.path().join(name)).unwrap_err().to_string();
            assert!(error.contains("could not be written") && error.contains(wanted), "{name}: {error}");
        }
        check_writable(&path).unwrap();
        check_writable(folder.path().join("new.txt")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["old.txt"]);
    }

    /// Unmounts the file system when the test ends, however it ends.
    #[cfg(target_os = "linux")]
    struct Mounted(tempfile::TempDir);

    #[cfg(target_os = "linux")]
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(self.0.path()).status();
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    #[ignore = "needs root to mount a small file system"]
    fn a_disk_that_really_fills_up_leaves_the_old_file() {
        let small = Mounted(tempfile::tempdir().unwrap());
        let folder = small.0.path();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder)
            .status();
        assert!(mount.unwrap().success(), "mount failed: this test needs root");
        let path = folder.join("old.txt");
        write_atomically(&path, |w| w.write_all(b"old")).unwrap();
        // Once when the buffer spills, once only at the last flush.
        for size in [200_000, 65_000] {
            let error = write_atomically(&path, |w| w.write_all(&vec![b'x'; size])).unwrap_err();
            assert!(error.to_string().contains("the disk is full"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(names(folder), ["old.txt"]);
        }
    }
}
