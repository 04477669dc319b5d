//! A folder that one process at a time works in.

use super::explain;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// The file that is locked. It holds the number of the process that holds the lock.
const NAME: &str = ".atrous.lock";

const ATTEMPTS: usize = 100;

/// A folder that no other process gets until this is dropped.
///
/// The lock is the system's (`flock`, or what the platform has for it), so that a process that is
/// killed does not keep it: what it leaves is a small file that anyone may lock again. When the lock
/// is dropped the file goes, and a folder that was only made for it goes too.
///
/// ```
/// use atrous::files::lock::FolderLock;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path().join("run");
/// let lock = FolderLock::acquire(&folder)?; // makes the folder
/// if lock.unsupported().is_none() {
///     let error = FolderLock::acquire(&folder).unwrap_err().to_string();
///     assert!(error.contains("is at work in it"), "{error}");
/// }
/// drop(lock);
/// assert!(!folder.exists()); // it was made for the lock alone
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Debug)]
pub struct FolderLock {
    file: PathBuf,
    // Held open: closing it gives the lock back.
    _locked: File,
    /// The folders that were made for the lock, the outermost first.
    made: Vec<PathBuf>,
    unsupported: Option<String>,
}

impl FolderLock {
    /// Locks the folder, which is made if it is not there.
    ///
    /// An error where another process has it, which is named by its number if that is known.
    pub fn acquire(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let cannot = |error: io::Error| {
            Error::file(folder, format!("the folder could not be locked: {}", explain(&error)))
        };
        let file = folder.join(NAME);
        // Again and again only where other processes make and remove the folder meanwhile.
        for _ in 0..ATTEMPTS {
            let made = make(folder).map_err(|error| Error::file(folder, explain(&error)))?;
            let mut locked = match open(&file) {
                Ok(file) => file,
                // The process that made the folder has just gone, and the folder with it.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    remove_empty(&made);
                    return Err(cannot(error));
                }
            };
            let unsupported = match locked.try_lock() {
                Ok(()) => None,
                Err(TryLockError::WouldBlock) => return Err(Error::file(folder, taken(&mut locked))),
                Err(TryLockError::Error(error)) => Some(error.to_string()),
            };
            // Another process that gave the lock back in between has removed the file: then this is
            // the lock of a file that nobody finds again.
            if unsupported.is_none() && !is_at(&locked, &file) {
                continue;
            }
            // Who holds the lock is a courtesy: a full disk does not take it away.
            let _ = locked.set_len(0).and_then(|()| writeln!(locked, "{}", std::process::id()));
            return Ok(FolderLock { file, _locked: locked, made, unsupported });
        }
        Err(cannot(ErrorKind::NotFound.into()))
    }

    /// Why the folder is not really locked: some network file systems have no locks.
    pub fn unsupported(&self) -> Option<&str> {
        self.unsupported.as_deref()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // While it is locked still, so that whoever gets the lock next finds out.
        let _ = fs::remove_file(&self.file);
        remove_empty(&self.made);
    }
}

fn open(file: &Path) -> io::Result<File> {
    // Not truncated: until it is locked, the number in it is another process's.
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(file)
}

fn taken(locked: &mut File) -> String {
    let mut holder = String::new();
    // On some systems a locked file cannot be read.
    let number =
        locked.take(20).read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
    let process = number.map_or(String::new(), |number: u32| format!(" (process {number})"));
    format!("another atrous{process} is at work in it; wait for its end, or choose another folder")
}

/// Makes the folder and those above it; which of them were not there.
fn make(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let mut made: Vec<PathBuf> = folder.ancestors().take_while(missing).map(Path::to_owned).collect();
    made.reverse();
    fs::create_dir_all(folder).inspect_err(|_| remove_empty(&made))?;
    Ok(made)
}

/// Folders that something was put into stay.
fn remove_empty(folders: &[PathBuf]) {
    for folder in folders.iter().rev() {
        let _ = fs::remove_dir(folder);
    }
}

/// Whether the open file is the one of this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    file.metadata().and_then(|a| Ok(same(a, fs::metadata(path)?))).unwrap_or(false)
}

/// Elsewhere a file that is open keeps its name.
#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_again_when_the_lock_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(folder.path()).unwrap();
        assert_eq!(first.unsupported(), None);
        let refused = FolderLock::acquire(folder.path()).unwrap_err();
        assert!(matches!(&refused, Error::File { path, .. } if path == folder.path()));
        let holder = format!("another atrous (process {}) is at work", std::process::id());
        assert!(refused.to_string().contains(&holder), "{refused}");
        drop(first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        FolderLock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn folders_made_for_the_lock_go_unless_something_is_in_them() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("a/b");
        drop(FolderLock::acquire(&folder).unwrap());
        assert!(!above.path().join("a").exists());
        let lock = FolderLock::acquire(&folder).unwrap();
        fs::write(folder.join("kept"), "").unwrap();
        drop(lock);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_process_left_is_locked_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "4194304 and more than a number").unwrap();
        let lock = FolderLock::acquire(folder.path()).unwrap();
        let written = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert_eq!(written, format!("{}\n", std::process::id()));
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_path_through_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        let error = FolderLock::acquire(file.join("out")).unwrap_err().to_string();
        assert!(error.contains("not a folder"), "{error}");
        let error = FolderLock::acquire(&file).unwrap_err().to_string();
        assert!(error.contains("not a folder"), "{error}");
    }

    #[test]
    fn of_many_at_once_one_has_the_lock() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(_lock) = FolderLock::acquire(folder.path()) {
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
