//! A folder that is whole or not there at all: written under a hidden name, and moved to its own at
//! the end.
//!
//! What a killed process has left behind is removed when the same folder is made again. A folder
//! that another process is still writing is told from that by a lock, which ends with its process.

use crate::error::{Error, Result};
use crate::files::explain;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const ENDING: &str = ".partial";

/// A folder that is removed again unless it becomes whole.
#[derive(Debug)]
pub(crate) struct Partial {
    pub path: PathBuf,
    to: PathBuf,
    whole: bool,
    /// None where the file system has no locks, and so nothing is taken for a leftover.
    _lock: Option<File>,
}

impl Partial {
    /// Begins to make `to`, which is a new folder, or an empty one that is there (perhaps a file
    /// system of its own, or behind a link: it stays, and is filled at the end).
    pub(crate) fn of(to: &Path) -> Result<Self> {
        let failed = |path: &Path, error: io::Error| Error::file(path, explain(&error));
        let name = to.file_name().map_or_else(OsString::new, OsStr::to_owned);
        let there = fs::symlink_metadata(to).is_ok();
        let within = match there {
            true => to.to_owned(),
            false if name.is_empty() => return Err(Error::file(to, "expected a new folder's name")),
            false => to.parent().map_or_else(PathBuf::new, Path::to_owned),
        };
        if !there && !within.as_os_str().is_empty() {
            fs::create_dir_all(&within).map_err(|error| failed(&within, error))?;
        }
        let mut stem = OsString::from(".");
        stem.push(if there { OsStr::new("atrous") } else { &name });
        stem.push(".");
        remove_leftovers(&within, &stem);
        let is_empty = |folder| Ok(fs::read_dir(folder)?.next().is_none());
        if there && !is_empty(to).map_err(|error| failed(to, error))? {
            return Err(Error::file(to, "expected a new or an empty folder, got one with files"));
        }
        let (path, lock) = create(&within, &stem)?;
        Ok(Partial { path, to: to.to_owned(), whole: false, _lock: lock })
    }

    /// Gives the folder its own name.
    pub(crate) fn become_whole(mut self) -> Result<()> {
        let moved = match fs::symlink_metadata(&self.to).is_ok() {
            false => fs::rename(&self.path, &self.to),
            true => self.move_into(),
        };
        moved.map_err(|error| Error::file(&self.to, explain(&error)))?;
        self.whole = true;
        Ok(())
    }

    /// Moves what is in the folder into the one that is there. `train`, without which no layout is
    /// one, comes last by its name.
    fn move_into(&self) -> io::Result<()> {
        let entries = fs::read_dir(&self.path)?.map(|entry| entry.map(|entry| entry.file_name()));
        let mut names = entries.collect::<io::Result<Vec<OsString>>>()?;
        names.sort();
        for name in names {
            fs::rename(self.path.join(&name), self.to.join(&name))?;
        }
        fs::remove_dir(&self.path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A new folder `{stem}{number}.partial`, locked.
fn create(within: &Path, stem: &OsStr) -> Result<(PathBuf, Option<File>)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let mut name = stem.to_owned();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        name.push(format!("{}-{count}{ENDING}", std::process::id()));
        let path = within.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(Error::file(path, explain(&error))),
            Ok(()) => {}
        }
        let lock = File::open(&path).ok().filter(|folder| folder.try_lock().is_ok());
        // Another process may have taken it for a leftover just before it was locked.
        if path.is_dir() {
            return Ok((path, lock));
        }
    }
}

/// Removes the folders `{stem}{number}.partial` that no process holds.
fn remove_leftovers(within: &Path, stem: &OsStr) {
    let within = if within.as_os_str().is_empty() { Path::new(".") } else { within };
    let is_number = |name: &str| {
        let mut parts = name.split('-');
        let number = |part: Option<&str>| {
            part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        number(parts.next()) && number(parts.next()) && parts.next().is_none()
    };
    for entry in fs::read_dir(within).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes().strip_prefix(stem.as_encoded_bytes());
        let name = name.and_then(|name| std::str::from_utf8(name).ok());
        if !name.and_then(|name| name.strip_suffix(ENDING)).is_some_and(is_number) {
            continue;
        }
        if File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_there_once_it_is_whole_and_not_before() {
        let above = tempfile::tempdir().unwrap();
        let to = above.path().join("new/folder");
        let partial = Partial::of(&to).unwrap();
        fs::write(partial.path.join("file"), "x").unwrap();
        assert!(!to.exists());
        partial.become_whole().unwrap();
        assert_eq!(
            (names(&to), names(to.parent().unwrap())),
            (vec!["file".into()], vec!["folder".into()])
        );
        let failed = Partial::of(&above.path().join("failed")).unwrap();
        drop(failed);
        assert_eq!(names(above.path()), ["new"]);
    }

    #[test]
    fn an_empty_folder_is_filled_and_one_with_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let partial = Partial::of(folder.path()).unwrap();
        for name in ["train", "test"] {
            fs::create_dir(partial.path.join(name)).unwrap();
        }
        assert!(!names(folder.path()).contains(&"train".to_owned()));
        partial.become_whole().unwrap();
        assert_eq!(names(folder.path()), ["test", "train"]);
        let error = Partial::of(folder.path()).unwrap_err().to_string();
        assert!(error.contains("expected a new or an empty folder"), "{error}");
        assert_eq!(names(folder.path()), ["test", "train"]);
    }

    #[test]
    fn leftovers_of_the_killed_are_removed_and_what_is_being_written_is_not() {
        let above = tempfile::tempdir().unwrap();
        let to = above.path().join("x");
        for left in [".x.4194305-0.partial", ".x.17-3.partial"] {
            fs::create_dir_all(above.path().join(left).join("train")).unwrap();
        }
        let others = [".x.old.partial", ".x.1-2-3.partial", ".y.17-0.partial", ".x.17-0"];
        others.iter().for_each(|other| fs::create_dir(above.path().join(other)).unwrap());
        let [first, second] = [(); 2].map(|()| Partial::of(&to).unwrap());
        assert!(first.path.is_dir() && second.path.is_dir() && first.path != second.path);
        assert_eq!(names(above.path()).len(), others.len() + 2);
        first.become_whole().unwrap();
        fs::write(second.path.join("late"), "x").unwrap();
        drop(second);
        assert_eq!(names(above.path()).len(), others.len() + 1);
    }
}
