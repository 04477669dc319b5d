//! Where tensors live and operators run. A device is a value, not a type parameter.
//!
//! Where the docs of this crate set *a device* against the CPU ("where a device fails", "waits for those of a
//! device"), they mean a CUDA device, real or emulated.

use crate::error::{Error, Result, did_you_mean};
use std::fmt;
use std::str::FromStr;

/// A place for tensors. Its name is `cpu`, `cuda:N` or `emulated`; `cuda` is read as `cuda:0`, and another
/// name is an [`Error::Device`]. Naming a device does not open it: [`Device::require`] (in `backend/mod.rs`,
/// with `synchronize`) says whether it is there.
///
/// ```
/// use atrous::Device;
///
/// assert_eq!("cuda".parse::<Device>()?, Device::Cuda(0));
/// assert_eq!(Device::Cuda(1).to_string(), "cuda:1");
/// assert!("gpu".parse::<Device>().is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU, on rayon's threads: one a core, or as many as [`crate::backend::cpu::threads::set`] was told
    /// (the command's `--threads`).
    Cpu,
    /// The n-th CUDA device, counted from 0. Needs the feature `cuda`.
    Cuda(usize),
    /// The CUDA kernels compiled as C++ and run on the CPU, for tests. It has a name of its own, so that
    /// nobody takes its times for a GPU's. Needs the feature `emulator`.
    Emulated,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => write!(f, "cpu"),
            Device::Cuda(n) => write!(f, "cuda:{n}"),
            Device::Emulated => write!(f, "emulated"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            let meant = did_you_mean(text, ["cpu", "cuda", "emulated"]);
            Error::Device(format!("`{text}` is none of `cpu`, `cuda`, `cuda:N`, `emulated`{meant}"))
        };
        match text {
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            "emulated" => Ok(Device::Emulated),
            _ => {
                let n = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                Ok(Device::Cuda(n.parse().map_err(|_| unknown())?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_ones_are_refused() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3), Device::Emulated] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for bad in ["gpu", "cuda:", "cuda:x", ""] {
            assert!(bad.parse::<Device>().is_err());
        }
    }
}
