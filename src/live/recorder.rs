//! From what the training loop tells its monitor to events.

use super::events::{EpochEnd, LogEvent, Memory, Step};
use crate::device::Device;
use crate::train::{Event, TrainState};
use std::time::{Duration, Instant};

/// Between two events of steps.
const PACE: Duration = Duration::from_secs(1);

/// Turns what happens in training into events: few enough that nobody notices their cost.
///
/// ```
/// use atrous::Device;
/// use atrous::live::{LogEvent, Recorder};
/// use atrous::train::Event;
///
/// let mut recorder = Recorder::new(Device::Cpu);
/// assert_eq!(recorder.record(&Event::EpochBegins { epoch: 3, of: 4, steps: 5, step: 0 }), None);
/// let step = |step| Event::Step { step, samples: 8, loss: 0.5, accuracy: 0.25, learning_rate: 0.1 };
/// assert_eq!(recorder.record(&step(1)), None); // at most one a second
/// let Some(LogEvent::Step(last)) = recorder.record(&step(5)) else { panic!() }; // the epoch's last
/// assert_eq!((last.epoch, last.step, last.global_step), (3, 5, 15));
/// ```
pub struct Recorder {
    device: Device,
    /// Steps of an epoch, known from the first epoch's beginning on.
    steps: usize,
    /// Epochs completed.
    epochs: usize,
    epoch_began: Instant,
    /// The last event of a step, or the epoch's beginning.
    last: Instant,
    images: usize,
}

impl Recorder {
    /// For a run on a device.
    pub fn new(device: Device) -> Self {
        let now = Instant::now();
        Recorder { device, steps: 0, epochs: 0, epoch_began: now, last: now, images: 0 }
    }

    /// The event that is worth telling, if there is one.
    pub fn record(&mut self, event: &Event) -> Option<LogEvent> {
        match *event {
            Event::EpochBegins { epoch, steps, .. } => {
                (self.epochs, self.steps) = (epoch - 1, steps);
                (self.epoch_began, self.last) = (Instant::now(), Instant::now());
                self.images = 0;
                None
            }
            Event::Step { step, samples, loss, accuracy, learning_rate } => {
                self.images += samples;
                if self.last.elapsed() < PACE && step < self.steps {
                    return None;
                }
                let seconds = self.last.elapsed().as_secs_f64().max(1e-6);
                let images_per_second = self.images as f64 / seconds;
                (self.last, self.images) = (Instant::now(), 0);
                let global_step = (self.epochs * self.steps + step) as u64;
                Some(LogEvent::Step(Step {
                    epoch: self.epochs + 1,
                    step,
                    global_step,
                    loss,
                    accuracy,
                    learning_rate,
                    images_per_second,
                    memory: Memory::now(self.device),
                }))
            }
            Event::Saved { path, best, position: TrainState { epoch, step, .. } } => {
                let path = path.display().to_string();
                Some(LogEvent::Checkpoint { path, epoch, step, best })
            }
            Event::EpochEnds { record, .. } => {
                let seconds = self.epoch_began.elapsed().as_secs_f64();
                Some(LogEvent::Epoch(EpochEnd { seconds, metrics: *record }))
            }
            Event::StopsEarly { epoch, best_epoch } => Some(LogEvent::EarlyStop { epoch, best_epoch }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_steps_within_a_second_only_the_last_of_an_epoch_is_told() {
        let mut recorder = Recorder::new(Device::Cpu);
        recorder.record(&Event::EpochBegins { epoch: 3, of: 4, steps: 5, step: 2 });
        let mut told = Vec::new();
        for step in 3..=5 {
            let event = Event::Step { step, samples: 8, loss: 0.5, accuracy: 0.25, learning_rate: 0.1 };
            told.extend(recorder.record(&event));
        }
        let [LogEvent::Step(last)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((last.epoch, last.step, last.global_step), (3, 5, 15));
        assert!(last.images_per_second.is_finite() && last.images_per_second > 24.0, "{last:?}");
    }

    #[test]
    fn a_checkpoint_says_how_far_it_reaches() {
        let position = TrainState { epoch: 2, step: 7, ..TrainState::default() };
        let saved = Event::Saved { path: "a/b".as_ref(), best: true, position };
        let told = Recorder::new(Device::Cpu).record(&saved);
        let expected = LogEvent::Checkpoint { path: "a/b".into(), epoch: 2, step: 7, best: true };
        assert_eq!(told, Some(expected));
    }
}
