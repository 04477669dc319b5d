//! The seam between what is to run and what runs it.

use super::{Argument, Size};
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
    unsafe fn launch(&self, kernel: Kernel, size: Size, arguments: &[Argument]) -> Result<()>;

    fn synchronize(&self) -> Result<()>;

    /// Seconds that what `run` asks for takes, by the device's own clock.
    fn timed(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<f64>;
}
