//! Writing a file so that it is either complete or not there at all.
//!
//! A temporary sibling is written, flushed and synced, then renamed over the old file (one atomic
//! step on a POSIX file system), then the folder is synced, so that the new name survives a power
//! cut too. Whatever fails before the rename leaves the old file as it was, and no temporary.

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls `write` with a buffered writer and puts what it wrote at `path`.
///
/// What is not a regular file (a pipe, `/dev/stdout`) cannot be replaced and is written directly.
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let direct = fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
    let done = if direct { write_through(path, write) } else { replace(path, write) };
    done.map_err(|error| Error::file(path, format!("could not be written: {}", explain(&error))))
}

/// The cause of an input or output error in plain words, with the system's own words behind it.
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
        ErrorKind::UnexpectedEof => "the file ends too early",
        _ => return error.to_string(),
    };
    format!("{plain} ({error})")
}

fn write_through(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut writer = BufWriter::new(OpenOptions::new().write(true).open(path)?);
    write(&mut writer)?;
    writer.flush()
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // Behind a symbolic link the file is replaced, not the link.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if path.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let (temporary, file) = Temporary::beside(path)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    write(&mut writer)?;
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&temporary.path, path)?;
    temporary.keep();
    // The new file is complete and in place. A file system that cannot sync a folder (some network
    // ones) only leaves open which of two complete files a power cut would bring back.
    let _ = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file that is removed again unless it is kept: on errors, and when `write` panics.
struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    fn beside(path: &Path) -> io::Result<(Self, File)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidInput, "the path does not end in a file's name")
        })?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{count}.tmp", std::process::id()));
        let path = path.with_file_name(hidden);
        // A leftover of a process that was killed and had the same number is overwritten.
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        Ok((Temporary { path, kept: false }, file))
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
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
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        write_atomically("/dev/null", |w| w.write_all(b"x")).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
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
