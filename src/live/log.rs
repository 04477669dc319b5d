//! The events of a run on disk: written a line at a time, read while they are written.

use super::events::LogRecord;
use crate::error::{Error, Result};
use crate::files::{cannot_be_written, explain};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The file of a run's events, in the run's folder.
///
/// [`EventLog`] has an example.
pub const EVENTS: &str = "events.jsonl";

/// A file that events are appended to.
///
/// Each line is one write to the system, so that it is there whatever happens to this process afterwards.
/// What cannot be written ends no training: the first error is kept until [`EventLog::finish`].
///
/// ```
/// use atrous::live::{EVENTS, EventLog, EventReader, LogEvent, LogRecord};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join(EVENTS);
/// let mut log = EventLog::open(&path)?;
/// let mut reader = EventReader::new(&path); // in another process, say
/// assert!(reader.read()?.is_empty());
/// let record = LogRecord { time: 1.5, event: LogEvent::Done { seconds: 7.0 } };
/// log.write(&record);
/// assert_eq!(reader.read()?, [record]);
/// log.finish()?;
/// assert!(reader.read()?.is_empty()); // nothing since
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct EventLog {
    path: PathBuf,
    file: File,
    failed: Option<Error>,
}

impl EventLog {
    /// Opens the file, or makes it. The half of a line that a full disk or a power cut left at its end is
    /// cut off. An error where it cannot be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let cannot = |error: io::Error| cannot_be_written(path, &error);
        let mut file =
            OpenOptions::new().create(true).append(true).read(true).open(path).map_err(cannot)?;
        let whole = end_of_last_line(&mut file).map_err(cannot)?;
        if whole < file.metadata().map_err(cannot)?.len() {
            file.set_len(whole).map_err(cannot)?;
        }
        Ok(EventLog { path: path.to_owned(), file, failed: None })
    }

    /// Appends one line; nothing more once one could not be appended.
    pub fn write(&mut self, record: &LogRecord) {
        if self.failed.is_none() {
            let line = record.line() + "\n";
            self.failed =
                self.file.write_all(line.as_bytes()).err().map(|e| cannot_be_written(&self.path, &e));
        }
    }

    /// An error where a line could not be written.
    pub fn finish(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// The position after the last line that is whole.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let begin = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(block)?;
        if let Some(at) = block.iter().rposition(|&byte| byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

/// Reads a file of events while another process writes it.
///
/// [`EventLog`] has an example.
pub struct EventReader {
    path: PathBuf,
    /// The end of the last line that was read.
    position: u64,
}

impl EventReader {
    /// Begins at the first line.
    pub fn new(path: impl AsRef<Path>) -> Self {
        EventReader { path: path.as_ref().to_owned(), position: 0 }
    }

    /// The lines that were added since the last time. What is not whole yet is left for the next time, and
    /// what is no event is passed over. A file that has become shorter is another one: it is read from its
    /// beginning. An error where it cannot be read.
    pub fn read(&mut self) -> Result<Vec<LogRecord>> {
        let cannot = |error: io::Error| Error::file(&self.path, explain(&error));
        let there = std::fs::metadata(&self.path).map_err(cannot)?;
        if !there.is_file() {
            return Err(Error::file(&self.path, "expected a file, got a folder or a device"));
        }
        if there.len() < self.position {
            self.position = 0;
        }
        let mut file = File::open(&self.path).map_err(cannot)?;
        file.seek(SeekFrom::Start(self.position)).map_err(cannot)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(cannot)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.position += whole as u64;
        let text = String::from_utf8_lossy(&bytes[..whole]);
        Ok(text.lines().filter_map(LogRecord::parse).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LogEvent;

    fn message(text: &str) -> LogRecord {
        LogRecord { time: 0.25, event: LogEvent::Message { text: text.into() } }
    }

    #[test]
    fn a_reader_sees_each_line_once_and_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        let (mut log, mut reader) = (EventLog::open(&path).unwrap(), EventReader::new(&path));
        assert_eq!(reader.read().unwrap(), []);
        log.write(&message("a"));
        log.write(&message("b"));
        assert_eq!(reader.read().unwrap(), [message("a"), message("b")]);
        let line = message("c").line();
        log.file.write_all(&line.as_bytes()[..9]).unwrap();
        assert_eq!(reader.read().unwrap(), []);
        log.file.write_all(&line.as_bytes()[9..]).unwrap();
        log.file.write_all(b"\nno event\n").unwrap();
        assert_eq!(reader.read().unwrap(), [message("c")]);
        log.finish().unwrap();
    }

    #[test]
    fn half_a_line_that_a_killed_run_left_is_cut_off_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        for (left, kept) in [("", 0), ("{\"half", 0), ("{}\n", 3), ("{}\n{\"half", 3)] {
            // (Longer than what is looked through at once.)
            let half = if left.ends_with('f') { "x".repeat(10_000) } else { String::new() };
            std::fs::write(&path, left.to_owned() + &half).unwrap();
            EventLog::open(&path).unwrap().write(&message("after"));
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(text, left[..kept].to_owned() + &message("after").line() + "\n");
        }
    }

    #[test]
    fn a_file_that_has_become_shorter_is_read_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        let mut reader = EventReader::new(&path);
        std::fs::write(&path, message("a long one").line() + "\n").unwrap();
        assert_eq!(reader.read().unwrap().len(), 1);
        std::fs::write(&path, message("b").line() + "\n").unwrap();
        assert_eq!(reader.read().unwrap(), [message("b")]);
    }

    #[test]
    fn what_cannot_be_opened_or_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = EventLog::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("could not be written") && error.contains("it is a folder"), "{error}");
        let error = EventLog::open(folder.path().join("nowhere/e")).err().unwrap().to_string();
        assert!(error.contains("no such file or folder"), "{error}");
        let missing = EventReader::new(folder.path().join("e")).read().unwrap_err().to_string();
        assert!(missing.contains("no such file or folder"), "{missing}");
        assert!(EventReader::new(folder.path()).read().is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_when_the_work_is_done() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut log = EventLog { path: "events.jsonl".into(), file, failed: None };
        (0..3).for_each(|_| log.write(&message("a")));
        let error = log.finish().unwrap_err().to_string();
        assert!(error.starts_with("events.jsonl: could not be written: the disk is full"), "{error}");
    }
}
