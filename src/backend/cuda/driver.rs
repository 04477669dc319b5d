//! The seam between what is to run and what runs it.

use super::{Argument, LaunchConfig};
use crate::error::Result;

/// A function of `kernels/<module>.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    pub module: &'static str,
    pub name: &'static str,
}

impl Kernel {
    pub const fn of(module: &'static str, name: &'static str) -> Self {
        Kernel { module, name }
    }
}

/// What a device can be asked for. Requests of one device are carried out in their order; launches
/// and copies on the device return before they are done.
pub(crate) trait Driver: Send + Sync {
    /// Must every buffer be exactly as large as what is in it? (The emulator's: overruns show.)
    fn exact_sizes(&self) -> bool;

    /// Memory, aligned to at least 256 bytes.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    fn free(&self, address: u64);

    fn upload(&self, from: &[u8], to: u64) -> Result<()>;

    /// Waits for everything before it.
    fn download(&self, from: u64, to: &mut [u8]) -> Result<()>;

    /// From one buffer of the device to another.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// # Safety
    /// [`super::Cuda::launch`]'s contract.
    unsafe fn launch(&self, kernel: Kernel, size: LaunchConfig, arguments: &[Argument]) -> Result<()>;

    /// Kernels that were launched, how often, and their seconds, where somebody asked for that
    /// (`ATROUS_CUDA_PROFILE`).
    #[cfg_attr(not(feature = "cli"), allow(dead_code))] // The command shows it.
    fn profile(&self) -> Vec<(Kernel, u64, f64)> {
        Vec::new()
    }

    /// Bytes of memory that are free, and all there are; None where nobody tells.
    fn memory(&self) -> Option<[usize; 2]> {
        None
    }

    fn synchronize(&self) -> Result<()>;

    /// Can requests be captured?
    #[cfg_attr(not(feature = "checkpoint"), allow(dead_code))] // Training, a feature of its own, does it.
    fn can_capture(&self) -> bool {
        true
    }

    /// From now on, what this thread asks for is written down and not done.
    fn begin_capture(&self) -> Result<()>;

    /// Ends that; gives what was written down a number.
    fn end_capture(&self) -> Result<u64>;

    /// Asks for all of it to be done.
    fn replay(&self, graph: u64) -> Result<()>;

    /// Nobody will ask for it again.
    fn release(&self, graph: u64);

    /// A way for batches of this many bytes.
    #[cfg_attr(not(feature = "checkpoint"), allow(dead_code))] // Training, a feature of its own, does it.
    fn stage(&self, bytes: usize) -> Result<Box<dyn PinnedBuffer>>;

    /// Seconds that what `run` asks for takes, by the device's own clock.
    fn timed(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<f64>;
}

/// A way for batches to the device beside the device's other work: a buffer there, and one here that the
/// device reads by itself.
#[cfg_attr(not(feature = "checkpoint"), allow(dead_code))] // Training, a feature of its own, does it.
pub(crate) trait PinnedBuffer: Send {
    /// Sends bytes off, as many as the stage is for; returns before they are there.
    fn fill(&mut self, from: &[u8]) -> Result<()>;

    /// Copies what was sent last to `to`, after everything the device was asked for before.
    fn empty(&mut self, to: u64) -> Result<()>;
}
