//! What kernels run on: the CPU's instruction sets, threads and matrix products, and CUDA devices.

pub(crate) mod accumulate;
pub mod cpu;
pub mod cuda;
mod full_like;

use crate::device::Device;
use crate::error::Result;
use cuda::Cuda;

impl Device {
    /// An error that says why, where this build or this machine does not have the device.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert!(Device::Cpu.require().is_ok());
    /// assert!(Device::Cuda(99).require().is_err());
    /// ```
    pub fn require(self) -> Result<Self> {
        match self {
            Device::Cpu => Ok(self),
            other => Cuda::get(other).map(|_| self),
        }
    }

    /// Waits until the device has done all it was asked for; an error where something went wrong on
    /// the way.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// use std::time::Instant;
    ///
    /// let device = Device::Cpu; // a GPU only takes orders: without the wait its work is not in the time
    /// let x = Tensor::rand([64, 64], 7).to_device(device)?;
    /// let start = Instant::now();
    /// let y = x.matmul(&x)?;
    /// device.synchronize()?;
    /// let seconds = start.elapsed().as_secs_f64();
    /// assert!(seconds > 0.0 && y.shape() == x.shape());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn synchronize(self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            other => Cuda::get(other)?.synchronize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_is_refused_by_name() {
        assert!(Device::Cuda(99).require().unwrap_err().to_string().contains("`cuda"));
        assert_eq!(Device::Cpu.require().unwrap(), Device::Cpu);
    }
}
