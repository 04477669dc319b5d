//! What happens after an epoch, by how the validation went. The rules are Keras', to the bit: the
//! three keep a "best" of their own.

use serde::{Deserialize, Serialize};

/// Best values so far, and for how long there was no better one: the state of early stopping,
/// plateaus and the best checkpoint. Smaller is better; a score is watched as its negative.
///
/// ```
/// use atrous::train::{Callbacks, Plateau};
///
/// let (mut callbacks, mut rate) = (Callbacks::default(), 0.1);
/// let plateau = Some(Plateau { patience: 2, factor: 0.5, floor: 0.01 });
/// let mut stops = Vec::new();
/// for (epoch, loss) in [1.0, 0.8, 0.9, 0.85].into_iter().enumerate() {
///     let outcome = callbacks.epoch_ends(epoch + 1, loss, Some(3), plateau, &mut rate);
///     stops.push(outcome.stop);
/// }
/// // The third and the fourth were no better than the second: half the rate, but not yet the end.
/// assert_eq!((callbacks.best, callbacks.best_epoch, rate), (Some(0.8), 2, 0.05));
/// assert_eq!(stops, [false; 4]);
/// assert!(callbacks.epoch_ends(5, 0.81, Some(3), plateau, &mut rate).stop);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Callbacks {
    /// The best value so far, for the checkpoint of the best epoch.
    pub best: Option<f64>,
    /// The epoch it was reached in, from 1.
    pub best_epoch: usize,
    stop_best: Option<f64>,
    stop_wait: usize,
    plateau_best: Option<f64>,
    plateau_wait: usize,
}

/// What an epoch's value led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallbackOutcome {
    /// It is the best so far: worth keeping.
    pub improved: bool,
    /// There was no better one for as long as the patience is.
    pub stop: bool,
}

/// Lower the learning rate where the watched value no longer falls (Keras' `ReduceLROnPlateau`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// Epochs without a fall of at least 1e-4 before the rate is lowered.
    pub patience: usize,
    /// What the rate is multiplied by then, below 1.
    pub factor: f32,
    /// The lowest rate.
    pub floor: f32,
}

impl Default for Plateau {
    fn default() -> Self {
        Plateau { patience: 3, factor: 0.5, floor: 1e-6 }
    }
}

/// How much lower a value has to be to count on a plateau (Keras' `min_delta`).
const PLATEAU_DELTA: f64 = 1e-4;

impl Callbacks {
    /// After the given epoch (from 1) came to `value`. The rate is changed in f32, as Keras keeps it.
    pub fn epoch_ends(
        &mut self,
        epoch: usize,
        value: f64,
        patience: Option<usize>,
        plateau: Option<Plateau>,
        learning_rate: &mut f32,
    ) -> CallbackOutcome {
        let below = |best: Option<f64>, delta: f64| best.is_none_or(|best| value < best - delta);
        let improved = below(self.best, 0.0);
        if improved {
            (self.best, self.best_epoch) = (Some(value), epoch);
        }
        self.stop_wait += 1;
        if below(self.stop_best, 0.0) {
            (self.stop_best, self.stop_wait) = (Some(value), 0);
        }
        let stop = patience.is_some_and(|patience| self.stop_wait >= patience);
        if let Some(Plateau { patience, factor, floor }) = plateau {
            if below(self.plateau_best, PLATEAU_DELTA) {
                (self.plateau_best, self.plateau_wait) = (Some(value), 0);
            } else {
                self.plateau_wait += 1;
                if self.plateau_wait >= patience && *learning_rate > floor {
                    *learning_rate = (*learning_rate * factor).max(floor);
                    self.plateau_wait = 0;
                }
            }
        }
        CallbackOutcome { improved, stop }
    }
}

/// How the learning rate changes within a run, beside what callbacks do to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// The plan's rate throughout.
    #[default]
    Constant,
    /// Half a cosine from the full rate to 1 % of it (Loshchilov and Hutter, 2017).
    Cosine,
}

impl Schedule {
    /// The factor on the rate at step `step` of `steps`, of which the first `warmup` climb linearly.
    pub(crate) fn factor(self, step: u64, warmup: u64, steps: u64) -> f32 {
        if step < warmup {
            return ((step + 1) as f64 / warmup as f64) as f32;
        }
        match self {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let done = (step - warmup) as f64 / (steps.max(warmup + 1) - warmup) as f64;
                let cosine = (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()) / 2.0;
                (0.01 + 0.99 * cosine) as f32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_improvement_stops_after_its_patience() {
        let mut callbacks = Callbacks::default();
        let mut rate = 1.0;
        let values = [3.0, 2.0, 2.0, 2.5, 2.1];
        let verdicts = values.map(|v| callbacks.epoch_ends(1, v, Some(3), None, &mut rate));
        assert_eq!(verdicts.map(|v| v.improved), [true, true, false, false, false]);
        assert_eq!(verdicts.map(|v| v.stop), [false, false, false, false, true]);
        assert_eq!(rate, 1.0);
    }

    #[test]
    fn a_plateau_halves_the_rate_down_to_the_floor() {
        let mut callbacks = Callbacks::default();
        let plateau = Some(Plateau { patience: 1, factor: 0.5, floor: 0.3 });
        let mut rate = 1.0;
        // 0.99995 is no gain of 1e-4.
        for (value, expected) in [(1.0, 1.0), (0.99995, 0.5), (0.9, 0.5), (0.9, 0.3), (0.9, 0.3)] {
            callbacks.epoch_ends(1, value, None, plateau, &mut rate);
            assert_eq!(rate, expected, "{value}");
        }
    }

    #[test]
    fn a_cosine_begins_after_the_warm_up_and_ends_at_one_percent() {
        let at = |step| Schedule::Cosine.factor(step, 4, 104);
        assert_eq!((at(0), at(3), at(4)), (0.25, 1.0, 1.0));
        assert!((at(54) - 0.505).abs() < 1e-6 && (at(104) - 0.01).abs() < 1e-6);
        assert_eq!(Schedule::Constant.factor(7, 0, 10), 1.0);
    }
}
