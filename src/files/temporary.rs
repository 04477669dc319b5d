//! Files that are written under a name of their own before they get the name that is wanted.

use super::folder_of;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

const BEGIN: &str = ".atrous-";
const END: &str = ".tmp";

/// A file that is removed again unless it is kept: on errors, and when a writer panics.
///
/// While its process lives the file is locked. One that is not was left by a process that was
/// killed, on whatever machine: the next process that writes into the folder removes it.
pub(super) struct Temporary {
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    pub(super) fn beside(path: &Path) -> io::Result<(Self, File)> {
        if path.file_name().is_none() {
            let message = "the path does not end in a file's name";
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        let folder = folder_of(path);
        remove_leftovers_once(folder);
        loop {
            let path = folder.join(name());
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            let temporary = Temporary { path, kept: false };
            // Where the file system has no locks, leftovers stay.
            let _ = file.lock();
            // Before it was locked another process may have taken it for a leftover.
            if temporary.path.exists() {
                return Ok((temporary, file));
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn keep(mut self) {
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

/// Nothing of the final name is in it, which may be as long as names can be. Two machines that share
/// a folder may have processes of one number.
fn name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    format!("{BEGIN}{}-{now:x}-{count}{END}", std::process::id())
}

/// Once a process and folder: a data set is thousands of files in one folder.
fn remove_leftovers_once(folder: &Path) {
    static DONE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if DONE.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
        remove_leftovers(folder);
    }
}

fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(BEGIN) && name.ends_with(END));
        if ours && entry.file_type().is_ok_and(|there| there.is_file()) {
            // What cannot be removed is in nobody's way.
            let _ = remove_leftover(&entry.path());
        }
    }
}

fn remove_leftover(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.try_lock()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_atomically;
    use std::ffi::OsString;
    use std::process::{Command, Stdio};

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_nobody_writes_any_more_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "half a checkpoint").unwrap();
            path
        };
        write(".atrous-1-2-3.tmp");
        let others = [write(".atrous-1.csv"), write("a.tmp")];
        fs::create_dir(folder.path().join(".atrous-folder.tmp")).unwrap();
        let (alive, _file) = Temporary::beside(&folder.path().join("a.txt")).unwrap();
        remove_leftovers(folder.path());
        assert!(alive.path().exists() && others.iter().all(|other| other.exists()));
        assert_eq!(names(folder.path()).len(), 4);
        drop(alive);
        assert_eq!(names(folder.path()), [".atrous-1.csv", ".atrous-folder.tmp", "a.tmp"]);
    }

    #[test]
    fn a_name_as_long_as_names_can_be_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        write_atomically(folder.path().join(&name), |w| w.write_all(b"x")).unwrap();
        assert_eq!(names(folder.path()), [&*name]);
    }

    const FOLDER: &str = "ATROUS_TEST_FOLDER";

    #[test]
    fn what_a_process_leaves_that_is_killed_while_it_writes_the_next_one_removes() {
        let folder = tempfile::tempdir().unwrap();
        let test = "files::temporary::tests::writes_until_it_is_killed";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let half_written = || {
            fs::read_dir(folder.path())
                .unwrap()
                .flatten()
                .any(|entry| entry.metadata().is_ok_and(|there| there.len() > 0))
        };
        while !half_written() {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        // While it lives its file is its own.
        remove_leftovers(folder.path());
        assert_eq!(names(folder.path()).len(), 1);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(names(folder.path()).len(), 1);
        write_atomically(folder.path().join("other.txt"), |w| w.write_all(b"x")).unwrap();
        assert_eq!(names(folder.path()), ["other.txt"]);
    }

    #[test]
    #[ignore = "a process for the test above to kill"]
    fn writes_until_it_is_killed() {
        let Some(folder) = std::env::var_os(FOLDER) else { return };
        let _ = write_atomically(Path::new(&folder).join("a.txt"), |w| {
            w.write_all(&[b'x'; 1 << 20])?;
            loop {
                std::thread::park();
            }
        });
    }
}
