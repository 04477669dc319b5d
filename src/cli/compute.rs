//! Where a command computes, and how: `--device`, `--precision`, `--fast-math`, `--threads`.

use super::values::among;
use atrous::backend::cpu::threads;
use atrous::context::{Precision, with_fast_math, with_precision};
use atrous::{Device, Error, Result};
use clap::Args;
use std::sync::OnceLock;

/// The section of the help.
const HEADING: &str = "Computing";

/// A command that computes: its own options, and those that all such commands share.
#[derive(Args)]
pub struct Computing<T: Args> {
    #[command(flatten)]
    pub command: T,
    #[command(flatten)]
    pub compute: Compute,
}

#[derive(Args, Clone, Debug, Default)]
pub struct Compute {
    #[command(flatten)]
    pub place: Place,
    /// With how many bits a GPU multiplies
    ///
    /// tf32 and bf16 use its tensor cores; sums, weights, statistics and losses are f32 all the same. The CPU
    /// multiplies in f32.
    #[arg(long, default_value = "f32", value_name = "TYPE", help_heading = HEADING)]
    #[arg(value_parser = among::<Precision>(&Precision::NAMES))]
    pub precision: Precision,
    /// Multiply less and round more on the CPU
    ///
    /// 3×3 convolutions of stride 1 go by Winograd's F(4×4, 3×3) where that is faster. Their results, and the
    /// gradients of images, are about three times as far off, and differ in the last digits from those
    /// without.
    #[arg(long, help_heading = HEADING)]
    pub fast_math: bool,
}

#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Where to compute: cpu, cuda, cuda:N or emulated
    ///
    /// cuda is the first GPU, cuda:1 the second. emulated runs the GPU's kernels on the CPU, for tests, in
    /// builds that have it. `atrous doctor` tells what there is.
    #[arg(long, default_value = "cpu", value_name = "DEVICE", help_heading = HEADING)]
    pub device: Device,
    #[command(flatten)]
    pub threads: Threads,
}

#[derive(Args, Clone, Debug, Default)]
pub struct Threads {
    /// Threads to compute on [default: one a core]
    ///
    /// The results do not depend on their number, to the last bit.
    #[arg(long, value_name = "N", help_heading = HEADING)]
    pub threads: Option<usize>,
}

/// As without options.
impl Default for Place {
    fn default() -> Self {
        Place { device: Device::Cpu, threads: Threads::default() }
    }
}

impl Compute {
    /// What a command computes with that uses the CPU's threads alone.
    pub fn on_threads(threads: &Threads) -> Self {
        Compute { place: Place { threads: threads.clone(), ..Place::default() }, ..Compute::default() }
    }

    /// Runs `f` so. `needed`: the device has to be there.
    pub fn run(&self, needed: bool, f: impl FnOnce() -> Result<()>) -> Result<()> {
        let Compute { place: Place { device, .. }, precision, fast_math } = *self;
        let _ = DEVICE.set(if needed { device.require()? } else { device });
        if precision != Precision::F32 && device == Device::Cpu {
            let message =
                format!("{precision} is for GPUs: it needs --device cuda; the CPU multiplies in f32");
            return Err(Error::argument("--precision", message));
        }
        if fast_math && device != Device::Cpu {
            let message = "it is for the CPU; a GPU multiplies faster with --precision tf32 or bf16";
            return Err(Error::argument("--fast-math", message));
        }
        let done = with_precision(precision, || with_fast_math(fast_math, f));
        if let Some(table) = atrous::backend::cuda::profile() {
            eprint!("{table}");
        }
        done
    }
}

/// What `--device` said, for as long as the program runs.
static DEVICE: OnceLock<Device> = OnceLock::new();

/// Where networks run.
pub fn device() -> Device {
    DEVICE.get().copied().unwrap_or(Device::Cpu)
}

/// These options as this program was given them, for a process of its own.
pub fn arguments() -> Vec<String> {
    let mut arguments = vec!["--device".into(), device().to_string()];
    arguments.extend(["--precision".into(), atrous::context::precision().to_string()]);
    arguments.extend(["--threads".into(), threads::count().to_string()]);
    arguments.extend(atrous::context::fast_math().then(|| "--fast-math".into()));
    arguments
}
