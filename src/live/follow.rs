//! A run that is watched from outside: its events as they come, and its last drawing.

use super::dashboard::Dashboard;
use super::events::{LogRecord, Panel};
use super::graphics::Graphics;
use super::log::{EVENTS, EventReader};
use super::state::RunState;
use crate::data::Image;
use crate::data::image_files::read_image;
use crate::error::{Error, Result};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use std::path::{Path, PathBuf};

/// What is shown of a run in a folder.
pub struct RunView {
    folder: PathBuf,
    /// What its events tell.
    pub state: RunState,
    /// The drawing that was read last; None as its image where it could not be.
    drawn: Option<(Panel, Option<Image>)>,
}

impl RunView {
    /// Of a run that has told nothing yet.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        RunView { folder: folder.as_ref().to_owned(), state: RunState::default(), drawn: None }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, record: &LogRecord) {
        self.state.apply(record);
    }

    /// What to draw at a time (seconds since 1970), with a hint on what the keys do.
    pub fn dashboard<'a>(&'a mut self, now: f64, hint: &'a str) -> Dashboard<'a> {
        if self.drawn.as_ref().map(|(panel, _)| panel) != self.state.panel.as_ref() {
            self.drawn = self.state.panel.clone().map(|panel| {
                // A name alone: the file is one of the run's folder, whatever its events say.
                let name = Path::new(&panel.image).file_name();
                let image = name.and_then(|name| read_image(self.folder.join(name)).ok());
                (panel, image)
            });
        }
        let panel = self.drawn.as_ref().and_then(|(panel, image)| Some((panel, image.as_ref()?)));
        Dashboard { state: &self.state, panel, now, hint, graphics: Graphics::default() }
    }

    /// The dashboard as plain text, without colours and therefore without images.
    pub fn plain(&mut self, width: u16, height: u16, now: f64) -> String {
        let dashboard = Dashboard { panel: None, ..self.dashboard(now, "") };
        let area = Rect::new(0, 0, width, height);
        let mut buffer = Buffer::empty(area);
        dashboard.render(area, &mut buffer);
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
    }
}

/// The file with the events of a run in a folder that `train` left; of one that `run` left, those of the
/// network that was trained last. A path to such a file is that file. An error where there is none.
///
/// ```
/// use atrous::live::{EVENTS, locate};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// assert!(locate(folder).is_err()); // no run has told anything there
/// std::fs::write(folder.join(EVENTS), "").unwrap();
/// assert_eq!(locate(folder)?, folder.join("events.jsonl"));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn locate(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let folders = [path.to_owned(), path.join("classify"), path.join("segment")];
    let files = folders.into_iter().map(|folder| folder.join(EVENTS)).filter(|file| file.is_file());
    let written = |file: &PathBuf| file.metadata().and_then(|there| there.modified()).ok();
    files.max_by_key(written).ok_or_else(|| {
        Error::file(path, format!("expected what `train` or `run` leaves, got no {EVENTS} in it"))
    })
}

/// Follows a run that another process may be writing.
///
/// ```
/// use atrous::live::{EVENTS, EventLog, Follower, LogEvent, LogRecord};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// let mut log = EventLog::open(folder.join(EVENTS))?; // in the process that trains
/// let mut follower = Follower::open(folder)?; // in another
/// assert!(!follower.update()?); // nothing was added
/// log.write(&LogRecord::now(LogEvent::Message { text: "20 images".into() }));
/// assert!(follower.update()?);
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct Follower {
    /// As it was asked for.
    path: PathBuf,
    file: PathBuf,
    reader: EventReader,
    /// The run.
    pub view: RunView,
}

impl Follower {
    /// Reads what the run in a folder has told so far. An error where there is none, or it cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let mut follower = Self::at(path.clone(), locate(&path)?);
        follower.update()?;
        Ok(follower)
    }

    fn at(path: PathBuf, file: PathBuf) -> Self {
        let folder = file.parent().unwrap_or(Path::new("."));
        let (reader, view) = (EventReader::new(&file), RunView::new(folder));
        Follower { path, file, reader, view }
    }

    /// Reads what was added; whether there was anything. Where `run` has gone on to its other network, that
    /// is followed from here on. An error where the file cannot be read any more.
    pub fn update(&mut self) -> Result<bool> {
        let file = locate(&self.path)?;
        if file != self.file {
            *self = Self::at(self.path.clone(), file);
        }
        let records = self.reader.read()?;
        records.iter().for_each(|record| self.view.apply(record));
        Ok(!records.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::EventLog;
    use crate::live::state::tests::{at, start, step};

    #[test]
    fn a_folder_of_both_tasks_is_followed_from_the_first_network_to_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let error = Follower::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("no events.jsonl in it"), "{error}");
        let log = |task: &str| {
            std::fs::create_dir_all(folder.path().join(task)).unwrap();
            EventLog::open(folder.path().join(task).join(EVENTS)).unwrap()
        };
        let mut first = log("classify");
        first.write(&at(1.0, start(None)));
        let mut follower = Follower::open(folder.path()).unwrap();
        first.write(&at(2.0, step(1)));
        assert!(follower.update().unwrap() && !follower.update().unwrap());
        assert_eq!(follower.view.state.progress().0, 1);
        // (File systems may tell times in hundredths of a second.)
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut second = log("segment");
        second.write(&at(3.0, start(None)));
        assert!(follower.update().unwrap());
        assert_eq!((follower.view.state.began, follower.view.state.progress().0), (3.0, 0));
        let file = folder.path().join("classify").join(EVENTS);
        assert_eq!(Follower::open(file).unwrap().view.state.progress().0, 1);
    }

    #[test]
    fn a_drawing_is_read_from_the_runs_own_folder_whatever_its_events_say() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let image = Image::new(2, 2, vec![7; 12]).unwrap();
        let draw = |path: &Path| {
            let file = std::fs::File::create(path).unwrap();
            crate::data::image_files::encode_png(file, &image).unwrap();
        };
        let mut view = RunView::new(&own);
        let panel = |name: &str| Panel { epoch: 1, image: name.into(), captions: vec!["a".into()] };
        draw(&folder.path().join("live.png"));
        view.state.panel = Some(panel("../live.png"));
        assert!(view.dashboard(0.0, "").panel.is_none());
        draw(&own.join("live.png"));
        view.state.panel = Some(panel("live.png"));
        assert!(view.dashboard(0.0, "").panel.is_some_and(|(_, shown)| *shown == image));
    }
}
