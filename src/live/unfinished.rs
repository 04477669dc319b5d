//! Runs that did not come to their end: what a report needs of them, from their events.

use super::events::Start;
use super::log::{EVENTS, EventReader};
use super::state::{Outcome, RunState};
use crate::error::Result;
use crate::files::lock::FolderLock;
use crate::report::{self, html::TrainingRecord};
use crate::train::{Epoch, History};
use std::path::Path;

/// Writes `history.csv`, `history.json`, its curves and `run.json` into the folder of a training run that
/// was killed, failed or still goes on, as its `events.jsonl` tells them; whether it did. A run that came to
/// its end, or was interrupted and saved, has written them itself; and without events there is no run. An
/// error where a file cannot be read or written.
///
/// ```
/// use atrous::live::events::Start;
/// use atrous::live::{EVENTS, EventLog, LogEvent, LogRecord, complete};
/// use atrous::report::html::TrainingRecord;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// assert!(!complete(folder)?); // there is no run
/// let start = Start { network: "mobilenet".into(), epochs: 2, steps: 10, ..Start::default() };
/// let mut log = EventLog::open(folder.join(EVENTS))?;
/// log.write(&LogRecord::now(LogEvent::Start(Box::new(start)))); // and then it was killed
/// assert!(complete(folder)?);
/// assert_eq!(TrainingRecord::read(folder)?.unwrap().network, "mobilenet");
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn complete(folder: &Path) -> Result<bool> {
    let path = folder.join(EVENTS);
    if !path.is_file() {
        return Ok(false);
    }
    let mut state = RunState::default();
    EventReader::new(&path).read()?.iter().for_each(|record| state.apply(record));
    let (Some(start), record) = (&state.start, TrainingRecord::read(folder)?) else { return Ok(false) };
    let before = written(folder);
    let wrote_all = record.is_some() && before.epochs.len() >= state.position().epoch;
    if wrote_all && matches!(state.outcome, Some(Outcome::Done | Outcome::Interrupted(_))) {
        return Ok(false);
    }
    // Held until all is written: no other run begins here meanwhile.
    let lock = FolderLock::acquire(folder);
    let running = match &lock {
        Ok(lock) if lock.unsupported().is_none() => Some(false),
        Ok(_) => None,
        Err(_) => Some(true),
    };
    let history = History { epochs: rows(before, &state) };
    history.write(folder)?;
    if !history.epochs.is_empty() {
        report::curves(&history, folder)?;
    }
    record_of(start, record.unwrap_or_default(), &state, running).write(folder)?;
    Ok(true)
}

/// The history as an earlier session of the run left it; none where it left none.
fn written(folder: &Path) -> History {
    let text = std::fs::read(folder.join("history.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The epochs that events tell of, after those before them that only the file knows.
fn rows(written: History, state: &RunState) -> Vec<Epoch> {
    let told: Vec<Epoch> = state.epochs.iter().map(|epoch| epoch.metrics).collect();
    let first = told.first().map_or(usize::MAX, |epoch| epoch.epoch);
    written.epochs.into_iter().filter(|epoch| epoch.epoch < first).chain(told).collect()
}

/// What the run said of itself when it began; how many threads it has it does not say there.
fn record_of(
    start: &Start,
    before: TrainingRecord,
    state: &RunState,
    running: Option<bool>,
) -> TrainingRecord {
    let how = match (&state.outcome, running) {
        (Some(Outcome::Failed(_)), _) => "Failed",
        (Some(Outcome::Interrupted(_)), _) => "Interrupted",
        (Some(Outcome::Done), _) => "",
        (None, Some(false)) => "Killed",
        (None, Some(true)) => "Still running",
        (None, None) => "Killed, or still running,",
    };
    let position = state.position();
    let mut ended = match how {
        "" => String::new(),
        how => TrainingRecord::stopped(how, [position.epoch, start.epochs, position.step]),
    };
    if let Some(Outcome::Failed(why)) = &state.outcome {
        ended += &format!(": {why}");
    }
    TrainingRecord {
        task: start.task.clone(),
        version: start.version.clone(),
        network: start.network.clone(),
        parameters: start.parameters,
        trainable: start.trainable,
        arithmetic: start.device.clone(),
        threads: before.threads,
        train_images: start.training_images,
        validation_images: start.validation_images,
        seconds: state.last - state.began,
        settings: start.settings.clone(),
        ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::events::{LogEvent, Position};
    use crate::live::state::tests::{epoch, start, step};
    use crate::live::{EventLog, LogRecord};

    fn told(folder: &Path, events: &[LogEvent]) {
        let mut log = EventLog::open(folder.join(EVENTS)).unwrap();
        for (i, event) in events.iter().enumerate() {
            log.write(&LogRecord { time: 1000.0 + i as f64, event: event.clone() });
        }
    }

    fn ended(folder: &Path) -> String {
        TrainingRecord::read(folder).unwrap().unwrap().ended
    }

    /// A run of ten steps an epoch that has told of one epoch and four steps.
    fn begun() -> [LogEvent; 5] {
        [start(None), step(1), step(10), epoch(1), step(14)]
    }

    #[test]
    fn a_killed_run_has_the_epochs_of_its_events() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!complete(folder.path()).unwrap(), "no run");
        told(folder.path(), &begun());
        assert!(complete(folder.path()).unwrap());
        let LogEvent::Epoch(first) = epoch(1) else { unreachable!() };
        assert_eq!(written(folder.path()).epochs, [first.metrics]);
        let record = TrainingRecord::read(folder.path()).unwrap().unwrap();
        assert_eq!(record.ended, "Killed after epoch 1 of 8, step 4");
        assert_eq!((&record.network[..], record.seconds, record.train_images), ("alexnet", 4.0, 900));
        assert!(folder.path().join("curves.svg").is_file());
    }

    #[test]
    fn a_run_that_still_goes_on_is_not_called_killed() {
        let folder = tempfile::tempdir().unwrap();
        told(folder.path(), &begun()[..2]);
        let lock = FolderLock::acquire(folder.path()).unwrap();
        assert!(complete(folder.path()).unwrap());
        assert_eq!(ended(folder.path()), "Still running after epoch 0 of 8, step 1");
        drop(lock);
        assert!(complete(folder.path()).unwrap());
        assert_eq!(ended(folder.path()), "Killed after epoch 0 of 8, step 1");
    }

    #[test]
    fn a_failed_run_says_why_and_one_that_wrote_all_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        told(folder.path(), &begun());
        told(folder.path(), &[LogEvent::Error { message: "training diverged".into() }]);
        assert!(complete(folder.path()).unwrap());
        assert_eq!(ended(folder.path()), "Failed after epoch 1 of 8, step 4: training diverged");
        told(folder.path(), &begun());
        told(folder.path(), &[LogEvent::Interrupted { message: "saved".into() }]);
        assert!(!complete(folder.path()).unwrap());
        std::fs::remove_file(folder.path().join("history.json")).unwrap();
        assert!(complete(folder.path()).unwrap());
        assert_eq!(ended(folder.path()), "Interrupted after epoch 1 of 8, step 4");
    }

    #[test]
    fn epochs_that_only_the_file_of_an_earlier_session_knows_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = |n| match epoch(n) {
            LogEvent::Epoch(epoch) => epoch.metrics,
            _ => unreachable!(),
        };
        let earlier = History { epochs: vec![metrics(1), metrics(2), metrics(3)] };
        earlier.write(folder.path()).unwrap();
        let resumed = start(Some(Position { epoch: 2, step: 0 }));
        told(folder.path(), &[resumed, step(25), step(30), epoch(3), epoch(4), step(41)]);
        assert!(complete(folder.path()).unwrap());
        assert_eq!(written(folder.path()).epochs, [1, 2, 3, 4].map(metrics));
        assert_eq!(ended(folder.path()), "Killed after epoch 4 of 8, step 1");
    }
}
