//! Where a network's time goes: each step of its plan timed, forward and backward, beside what the machine
//! could do at most ([`profile`]; `atrous profile`).
//!
//! A step ([`crate::nn::PlannedStep`]) does so many FLOPs and moves so many bytes ([`crate::nn::StepCost`]
//! has the formulas). Their ratio, FLOPs a byte, is its *arithmetic intensity*. A processor of so many
//! FLOP/s and a memory of so many bytes/s need at least
//!
//! t = max(FLOPs / (FLOP/s), bytes / (bytes/s))
//!
//! for it, whichever is the bottleneck: the *roofline model* (Williams, Waterman and Patterson, 2009). Both
//! limits are measured in the same run ([`Limits`]), for a machine is another one an hour later. t as a
//! percentage of the measured time says what is left to win. It can be above 100: Winograd's algorithm does
//! fewer multiplications than the definition, which is what is counted; and what fits into a cache is not
//! moved through memory.
//!
//! Passes with and without somebody looking take turns. Times are medians over them, with quartiles; the sum
//! over all steps stands beside the time of the whole pass without a look at its parts ([`Whole`]), so that a
//! reader sees how much falls between the steps, and what looking costs.

mod limits;
mod measure;
mod roofline;
mod table;
mod trace;

pub use limits::Limits;
pub use measure::profile;
pub use trace::Trace;

use crate::bench::Timing;
use crate::error::{Error, Result};
use crate::nn::{PassCost, Purpose};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What [`profile`] measured. As JSON (`profile.json`), times are in milliseconds and memory is in bytes.
///
/// [`profile()`] has an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The network's name.
    pub model: String,
    /// Where it ran.
    pub device: String,
    /// `f32`, `tf32` or `bf16`: what a GPU's products were made in.
    pub precision: String,
    /// What it ran for.
    pub purpose: Purpose,
    /// `[N, H, W, C]`
    pub input: Vec<usize>,
    /// Layers of the network as it is declared.
    pub layers: usize,
    /// What the machine can do at most.
    pub limits: Limits,
    /// How many passes there were, of which the times are medians; as many again went unobserved.
    pub repeats: usize,
    /// In the order in which they run.
    pub steps: Vec<ProfiledStep>,
    /// In training: cross entropy, which is no step of the plan.
    pub loss: Option<LossTimes>,
    /// From images to the network's output.
    pub forward: Whole,
    /// In training: from images to all gradients, loss included.
    pub forward_backward: Option<Whole>,
    /// The most that the CPU's pool had lent out during a pass, weights included; none of a device.
    pub pool_peak_bytes: Option<u64>,
}

/// A step of the plan, with its times.
///
/// [`profile()`] has an example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfiledStep {
    /// Its place among the steps, from 1 on.
    pub number: usize,
    /// The layers that it computes.
    pub layers: Vec<String>,
    /// The type of the layer whose operator it is: `Conv2D`.
    pub operator: String,
    /// What is made in its pass besides its own result.
    pub fused: Vec<String>,
    /// Without the batch axis.
    pub output_shape: Vec<usize>,
    /// Of a convolution: how each pass is computed.
    pub algorithms: Vec<AlgorithmOf>,
    /// Numbers in all its layers' parameters.
    pub parameters: u64,
    /// From inputs to output.
    pub forward: PassProfile,
    /// From the output's gradient to those of inputs and parameters: in training, where there are any.
    pub backward: Option<PassProfile>,
    /// Bytes of the outputs that later steps still read when it is over, its own among them.
    pub live_bytes: u64,
    /// Bytes that the pass had taken from the CPU's pool when the step was over: live outputs, and in
    /// training what the tape saved. None of a device.
    pub pool_bytes: Option<u64>,
    /// The same at most while it ran: with what kernels need among themselves.
    pub pool_peak_bytes: Option<u64>,
}

/// The algorithm of a pass of a convolution.
///
/// [`profile()`] has an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlgorithmOf {
    /// `forward`, `dgrad` or `wgrad`.
    pub pass: String,
    /// `implicit GEMM`
    pub algorithm: String,
    /// Why this one.
    pub reason: String,
}

/// One direction of a step: what there was to do, and how long it took.
///
/// ```
/// use atrous::profile::{PassProfile, Time};
///
/// let time = Time { median_ms: 2.0, quartiles_ms: [1.9, 2.1] };
/// let (flops, bytes) = (300_000_000, 10_000_000);
/// let pass = PassProfile { flops, bytes, intensity: Some(30.0), time, roofline_percent: None };
/// assert_eq!(pass.gflops(), 150.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassProfile {
    /// Of the definition, for the batch.
    pub flops: u64,
    /// That have to move at least, for the batch.
    pub bytes: u64,
    /// FLOPs a byte: none where nothing moves.
    pub intensity: Option<f64>,
    /// How long it took.
    pub time: Time,
    /// The least time by the roofline model, as a percentage of the time it took; none where there is nothing
    /// to do.
    pub roofline_percent: Option<f64>,
}

/// A median over several passes, in milliseconds.
///
/// ```
/// use atrous::profile::Time;
///
/// let time = Time { median_ms: 4.0, quartiles_ms: [3.5, 4.5] };
/// assert_eq!(time.spread_percent(), 25.0);
/// assert_eq!(Time::default().spread_percent(), 0.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// The middle one of the sorted times.
    pub median_ms: f64,
    /// First and third quartile.
    pub quartiles_ms: [f64; 2],
}

/// What the loss took.
///
/// [`profile()`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossTimes {
    /// From logits to a number.
    pub forward: Time,
    /// Back to the logits.
    pub backward: Time,
}

/// A pass as a whole.
///
/// ```
/// use atrous::profile::{Time, Whole};
///
/// let ms = |median_ms| Time { median_ms, quartiles_ms: [median_ms; 2] };
/// assert_eq!(Whole { time: ms(5.0), steps: ms(4.0), medians_ms: 3.9 }.ratio(), 0.8);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Whole {
    /// From beginning to end, of passes that nobody observed.
    pub time: Time,
    /// The sum of all steps within a pass that was observed.
    pub steps: Time,
    /// The sum of the steps' own medians, in milliseconds. On a busy machine it is less: each step is left
    /// alone in most passes, but hardly a pass as a whole is.
    pub medians_ms: f64,
}

impl Whole {
    /// The steps' sum by the time from beginning to end: 1 where nothing falls between the steps.
    pub fn ratio(&self) -> f64 {
        self.steps.median_ms / self.time.median_ms
    }
}

impl From<Timing> for Time {
    fn from(timing: Timing) -> Self {
        Time { median_ms: timing.median * 1e3, quartiles_ms: timing.quarters.map(|s| s * 1e3) }
    }
}

impl Time {
    /// From the first to the third quartile, as a percentage of the median; 0 where that is 0.
    pub fn spread_percent(&self) -> f64 {
        let [low, high] = self.quartiles_ms;
        if self.median_ms > 0.0 { 100.0 * (high - low) / self.median_ms } else { 0.0 }
    }
}

impl PassProfile {
    fn new(cost: PassCost, time: Time, limits: &Limits) -> Self {
        let PassCost { flops, bytes } = cost;
        let least = limits.least_ms(cost);
        PassProfile {
            flops,
            bytes,
            intensity: (bytes > 0).then(|| flops as f64 / bytes as f64),
            time,
            roofline_percent: (least > 0.0 && time.median_ms > 0.0)
                .then(|| 100.0 * least / time.median_ms),
        }
    }

    /// FLOPs in 10⁹ a second.
    pub fn gflops(&self) -> f64 {
        self.flops as f64 / self.time.median_ms / 1e6
    }
}

impl Profile {
    /// FLOPs of all steps, forward and backward, for the batch.
    pub fn flops(&self) -> [u64; 2] {
        let forward = self.steps.iter().map(|step| step.forward.flops).sum();
        let backward = self.steps.iter().filter_map(|step| step.backward).map(|b| b.flops).sum();
        [forward, backward]
    }

    /// All of it, as `profile.json` has it.
    pub fn to_json(&self) -> Result<serde_json::Value> {
        serde_json::to_value(self).map_err(|error| Error::argument("profile", error))
    }

    /// The roofline with a dot for each step, as a drawing of its own (`roofline.svg`).
    pub fn to_svg(&self) -> String {
        roofline::svg(self)
    }

    /// Reads a `profile.json`; an error where it is none.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::file(path, crate::files::explain(&error)))?;
        serde_json::from_str(&text).map_err(|error| Error::file(path, error))
    }
}

#[cfg(test)]
mod tests;
