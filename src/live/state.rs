//! What is known of a run from its events.

use super::events::{EpochEnd, LogEvent, LogRecord, Panel, Position, Start, Step};

/// A run as its events so far tell it.
///
/// ```
/// use atrous::live::events::{Memory, Position, Start, Step};
/// use atrous::live::{LogEvent, LogRecord, Outcome, RunState};
///
/// let mut state = RunState::default();
/// let mut at = |time, event| state.apply(&LogRecord { time, event });
/// at(100.0, LogEvent::Start(Box::new(Start { epochs: 2, steps: 10, ..Start::default() })));
/// let (epoch, step, global_step) = (1, 5, 5);
/// let (loss, accuracy, learning_rate, images_per_second) = (0.7, 0.5, 1e-3, 80.0);
/// let memory = Memory::default();
/// at(110.0, LogEvent::Step(Step {
///     epoch,
///     step,
///     global_step,
///     loss,
///     accuracy,
///     learning_rate,
///     images_per_second,
///     memory,
/// }));
/// assert_eq!((state.progress(), state.place()), ((5, 20), (1, 5)));
/// assert_eq!(state.position(), Position { epoch: 0, step: 5 }); // no epoch is completed
/// assert_eq!(state.seconds_left(), Some(30.0)); // 5 steps took 10 seconds, 15 are left
/// assert_eq!(state.training_loss(), [(0.5, 0.7)]); // in the middle of the first epoch
/// assert_eq!(state.training_accuracy(), [(0.5, 0.5)]);
/// assert!(state.of_epochs(|epoch| epoch.metrics.val_loss).is_empty()); // nothing was validated yet
/// assert_eq!(state.score(), ("accuracy", Vec::new()));
///
/// state.apply(&LogRecord { time: 120.0, event: LogEvent::Done { seconds: 20.0 } });
/// assert_eq!((state.outcome.clone(), state.seconds_left()), (Some(Outcome::Done), None));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// What it is; None before its first event.
    pub start: Option<Start>,
    /// The epochs completed.
    pub epochs: Vec<EpochEnd>,
    /// The steps that were told of, in the order of their numbers.
    pub steps: Vec<Step>,
    /// The last predictions that were drawn.
    pub panel: Option<Panel>,
    /// The last checkpoint to resume from: epochs completed, and steps after those.
    pub saved: Option<(usize, usize)>,
    /// How it ended; None while it goes on, or where it was killed.
    pub outcome: Option<Outcome>,
    /// When it began, or was taken up the last time: seconds since 1970.
    pub began: f64,
    /// When the last event was told: seconds since 1970.
    pub last: f64,
}

/// How a run ended.
///
/// [`RunState`] has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With its last epoch, or because it became no better.
    Done,
    /// The user stopped it; what is kept.
    Interrupted(String),
    /// It failed; why.
    Failed(String),
}

impl RunState {
    /// Takes in what happened.
    pub fn apply(&mut self, record: &LogRecord) {
        match &record.event {
            LogEvent::Start(start) => self.begin(start, record.time),
            LogEvent::Step(step) => self.steps.push(*step),
            LogEvent::Epoch(epoch) => self.epochs.push(*epoch),
            LogEvent::Checkpoint { epoch, step, best: false, .. } => self.saved = Some((*epoch, *step)),
            LogEvent::Panel(panel) => self.panel = Some(panel.clone()),
            LogEvent::Done { .. } => self.outcome = Some(Outcome::Done),
            LogEvent::Interrupted { message } => {
                self.outcome = Some(Outcome::Interrupted(message.clone()))
            }
            LogEvent::Error { message } => self.outcome = Some(Outcome::Failed(message.clone())),
            _ => {}
        }
        self.last = record.time;
    }

    /// A new run has no past; one that goes on has that before its checkpoint: what a killed run did after
    /// it is done again.
    fn begin(&mut self, start: &Start, time: f64) {
        let past = std::mem::take(self);
        (self.began, self.start) = (time, Some(start.clone()));
        let Some(from) = start.resumed else { return };
        let done = (from.epoch * start.steps + from.step) as u64;
        self.steps = past.steps.into_iter().filter(|step| step.global_step <= done).collect();
        self.epochs = past.epochs.into_iter().filter(|e| e.metrics.epoch <= from.epoch).collect();
        (self.panel, self.saved) = (past.panel, past.saved);
    }

    /// Steps done in the whole run, and all there are.
    pub fn progress(&self) -> (u64, u64) {
        let Some(start) = &self.start else { return (0, 0) };
        let of_epochs = self.epochs.last().map_or(0, |e| e.metrics.epoch * start.steps) as u64;
        let done = self.steps.last().map_or(0, |step| step.global_step).max(of_epochs);
        (done, (start.epochs * start.steps) as u64)
    }

    /// The epoch and the step in it that were done last, counted from 1; zeros before the first.
    pub fn place(&self) -> (usize, usize) {
        self.steps.last().map_or((0, 0), |step| (step.epoch, step.step))
    }

    /// Epochs completed, and the steps after those that were told of.
    pub fn position(&self) -> Position {
        let from = self.start.as_ref().and_then(|start| start.resumed);
        let from = from.unwrap_or(Position { epoch: 0, step: 0 });
        let epoch = self.epochs.last().map_or(from.epoch, |e| e.metrics.epoch.max(from.epoch));
        let after = |step: &&Step| step.epoch == epoch + 1;
        let least = if epoch == from.epoch { from.step } else { 0 };
        let step = self.steps.last().filter(after).map_or(least, |step| step.step.max(least));
        Position { epoch, step }
    }

    /// Seconds until the last epoch's end, as fast as the run went since it began or was taken up; None
    /// before its first step and after its end.
    pub fn seconds_left(&self) -> Option<f64> {
        let start = self.start.as_ref().filter(|_| self.outcome.is_none())?;
        let (done, of) = self.progress();
        let before = start.resumed.map_or(0, |from| from.epoch * start.steps + from.step) as u64;
        let here = done.checked_sub(before).filter(|&steps| steps > 0)?;
        Some((self.last - self.began) / here as f64 * (of - done.min(of)) as f64)
    }

    /// (epochs, loss) while training, at the steps that were told of.
    pub fn training_loss(&self) -> Vec<(f64, f64)> {
        self.of_steps(|step| step.loss)
    }

    /// (epochs, accuracy) while training.
    pub fn training_accuracy(&self) -> Vec<(f64, f64)> {
        self.of_steps(|step| step.accuracy)
    }

    fn of_steps(&self, value: impl Fn(&Step) -> f64) -> Vec<(f64, f64)> {
        let steps = self.start.as_ref().map_or(1, |start| start.steps.max(1)) as f64;
        let points = self.steps.iter().map(|step| (step.global_step as f64 / steps, value(step)));
        points.filter(|(_, value)| value.is_finite()).collect()
    }

    /// (epoch, value) for the epochs that have it.
    pub fn of_epochs(&self, value: impl Fn(&EpochEnd) -> Option<f64>) -> Vec<(f64, f64)> {
        let points = self.epochs.iter().filter_map(|e| Some((e.metrics.epoch as f64, value(e)?)));
        points.filter(|(_, value)| value.is_finite()).collect()
    }

    /// The score that says most of the task, what it is called, and its values: mean IoU, mean average
    /// precision, or accuracy on the validation images.
    pub fn score(&self) -> (&'static str, Vec<(f64, f64)>) {
        let scores = [
            ("mean IoU", self.of_epochs(|e| e.metrics.val_miou)),
            ("mAP", self.of_epochs(|e| e.metrics.val_map)),
        ];
        let found = scores.into_iter().find(|(_, values)| !values.is_empty());
        found.unwrap_or_else(|| ("accuracy", self.of_epochs(|e| e.metrics.val_accuracy)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::live::events::Memory;
    use crate::train::Epoch;

    pub fn at(time: f64, event: LogEvent) -> LogRecord {
        LogRecord { time, event }
    }

    pub fn start(resumed: Option<Position>) -> LogEvent {
        LogEvent::Start(Box::new(Start {
            version: "0.1.0".into(),
            network: "alexnet".into(),
            task: "classify".into(),
            device: "cpu (Avx2)".into(),
            data: "voc".into(),
            training_images: 900,
            validation_images: 100,
            parameters: 2_500_000,
            trainable: 2_500_000,
            epochs: 8,
            steps: 10,
            batch_size: 90,
            resumed,
            ..Start::default()
        }))
    }

    pub fn step(global_step: u64) -> LogEvent {
        let (epoch, step) = ((global_step as usize - 1) / 10 + 1, (global_step as usize - 1) % 10 + 1);
        let memory = Memory {
            resident: Some(512 << 20),
            pool: 300 << 20,
            pool_free: 40 << 20,
            device: None,
            device_total: None,
        };
        LogEvent::Step(Step {
            epoch,
            step,
            global_step,
            loss: 3.0 / (1.0 + global_step as f64 / 8.0),
            accuracy: 1.0 - 0.9 / (1.0 + global_step as f64 / 20.0),
            learning_rate: 1e-3,
            images_per_second: 123.4,
            memory,
        })
    }

    pub fn epoch(epoch: usize) -> LogEvent {
        let x = epoch as f64;
        LogEvent::Epoch(EpochEnd {
            seconds: 10.0,
            metrics: Epoch {
                epoch,
                learning_rate: 1e-3,
                loss: 3.0 / (1.0 + x),
                accuracy: 1.0 - 0.9 / (1.0 + x / 2.0),
                val_loss: Some(3.2 / (1.0 + x)),
                val_accuracy: Some(1.0 - 0.95 / (1.0 + x / 2.0)),
                val_map: Some(1.0 - 0.9 / (1.0 + x / 3.0)),
                val_miou: None,
                val_dice: None,
            },
        })
    }

    /// A run of one step a second that has done so many.
    pub fn run(steps: u64) -> RunState {
        let mut state = RunState::default();
        state.apply(&at(1000.0, start(None)));
        for n in 1..=steps {
            state.apply(&at(1000.0 + n as f64, step(n)));
            if n % 10 == 0 {
                state.apply(&at(1000.0 + n as f64, epoch(n as usize / 10)));
            }
        }
        state
    }

    #[test]
    fn time_left_is_that_of_the_steps_left() {
        assert_eq!(RunState::default().seconds_left(), None);
        assert_eq!(run(0).seconds_left(), None);
        let state = run(25);
        assert_eq!((state.progress(), state.place()), ((25, 80), (3, 5)));
        assert_eq!(state.seconds_left(), Some(55.0));
        assert_eq!(run(80).seconds_left(), Some(0.0));
    }

    #[test]
    fn a_run_that_goes_on_forgets_what_a_killed_one_did_after_its_checkpoint() {
        let mut state = run(25);
        let place = Position { epoch: 2, step: 2 };
        state.apply(&at(5000.0, start(Some(place))));
        assert_eq!((state.steps.len(), state.epochs.len(), state.progress().0), (22, 2, 22));
        assert_eq!(state.seconds_left(), None);
        state.apply(&at(5002.0, step(23)));
        assert_eq!(state.seconds_left(), Some(2.0 * 57.0));
        state.apply(&at(6000.0, start(None)));
        assert!(state.steps.is_empty() && state.epochs.is_empty());
    }

    #[test]
    fn a_position_is_the_epochs_completed_and_the_steps_after_them() {
        let of = |state: &RunState| (state.position().epoch, state.position().step);
        assert_eq!([run(0), run(3), run(10), run(25)].map(|r| of(&r)), [(0, 0), (0, 3), (1, 0), (2, 5)]);
        let mut resumed = RunState::default();
        resumed.apply(&at(1.0, start(Some(Position { epoch: 4, step: 7 }))));
        assert_eq!(of(&resumed), (4, 7));
    }

    #[test]
    fn the_score_is_the_one_of_the_task() {
        let mut state = run(20);
        assert_eq!(state.score().0, "mAP");
        assert_eq!(state.score().1.len(), 2);
        state
            .epochs
            .iter_mut()
            .for_each(|e| (e.metrics.val_map, e.metrics.val_miou) = (None, Some(0.5)));
        assert_eq!(state.score(), ("mean IoU", vec![(1.0, 0.5), (2.0, 0.5)]));
        state.epochs.iter_mut().for_each(|e| e.metrics.val_miou = None);
        assert_eq!(state.score().0, "accuracy");
    }

    #[test]
    fn a_run_ends_in_one_of_three_ways() {
        let mut state = run(3);
        assert_eq!(state.outcome, None);
        let message = || "why".to_string();
        for (event, outcome) in [
            (LogEvent::Done { seconds: 1.0 }, Outcome::Done),
            (LogEvent::Interrupted { message: message() }, Outcome::Interrupted(message())),
            (LogEvent::Error { message: message() }, Outcome::Failed(message())),
        ] {
            state.apply(&at(2000.0, event));
            assert_eq!((state.outcome.as_ref(), state.seconds_left()), (Some(&outcome), None));
        }
    }
}
