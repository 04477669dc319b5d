//! What the machine can do at most.

use crate::bench::{Machine, time_on};
use crate::context::no_grad;
use crate::device::Device;
use crate::error::Result;
use crate::nn::PassCost;
use crate::ops;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The two limits of the roofline model, measured just before what they are compared with.
///
/// ```
/// use atrous::nn::PassCost;
/// use atrous::profile::Limits;
///
/// // (`Limits::measure` takes seconds to find these.)
/// let limits = Limits { measured_by: "hand".into(), gflops: 100.0, gbps: 10.0, threads: 1 };
/// assert_eq!(limits.ridge(), 10.0); // FLOPs a byte
/// let least = |flops, bytes| limits.least_ms(PassCost { flops, bytes });
/// assert_eq!(least(300_000_000, 10_000_000), 3.0); // arithmetic is the bottleneck
/// assert_eq!(least(300_000_000, 50_000_000), 5.0); // memory is
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// How they were measured.
    pub measured_by: String,
    /// Arithmetic, in 10⁹ operations a second (two to a multiply-add).
    pub gflops: f64,
    /// Bandwidth of memory, in 10⁹ bytes a second.
    pub gbps: f64,
    /// Threads of the CPU.
    pub threads: usize,
}

impl Limits {
    /// Measures them; takes some seconds.
    ///
    /// Of the CPU, by loops that do nothing else ([`Machine`]). Of other devices there are no such loops: the
    /// engine's own largest matrix product and sum stand for them, in the precision that is set now. Those
    /// may be below what the hardware can do, and percentages of them too high.
    pub fn measure(device: Device) -> Result<Self> {
        match device {
            Device::Cpu => {
                let Machine { isa, threads, fma_gflops, triad_gbps } = Machine::measure();
                let measured_by = format!("{isa:?} multiply-adds in registers, stream triad");
                Ok(Limits { measured_by, gflops: fma_gflops, gbps: triad_gbps, threads })
            }
            // What the emulator takes for larger ones is minutes.
            Device::Emulated => Limits::of_operators(device, 64, 1 << 12),
            Device::Cuda(_) => Limits::of_operators(device, 4096, 1 << 26),
        }
    }

    /// By a product of two matrices of `side` × `side`, and a sum of two tensors of so many elements.
    fn of_operators(device: Device, side: usize, elements: usize) -> Result<Self> {
        let tensors = |shape: [usize; 2]| -> Result<[Tensor; 2]> {
            let there = |seed| Tensor::rand(shape, seed).to_device(device);
            Ok([there(1)?, there(2)?])
        };
        let [a, b] = tensors([side, side])?;
        let product = time_on(device, 1.0, || no_grad(|| ops::matmul(&a, &b)).map(drop))?;
        let [a, b] = tensors([elements / 64, 64])?;
        let sum = time_on(device, 1.0, || no_grad(|| ops::add(&a, &b)).map(drop))?;
        let flops = 2.0 * (side as f64).powi(3);
        Ok(Limits {
            measured_by: format!(
                "the engine's own product of {side}×{side} matrices, and sum of two tensors"
            ),
            gflops: flops / product.median / 1e9,
            gbps: 12.0 * elements as f64 / sum.median / 1e9,
            threads: crate::backend::cpu::threads::count(),
        })
    }

    /// The intensity from which on arithmetic is the bottleneck, in FLOPs a byte: the *ridge point*.
    pub fn ridge(&self) -> f64 {
        self.gflops / self.gbps
    }

    /// The least time for so much work, in milliseconds.
    pub fn least_ms(&self, PassCost { flops, bytes }: PassCost) -> f64 {
        (flops as f64 / self.gflops).max(bytes as f64 / self.gbps) / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_time_is_that_of_the_bottleneck() {
        let limits = Limits { measured_by: String::new(), gflops: 100.0, gbps: 10.0, threads: 1 };
        assert_eq!(limits.ridge(), 10.0);
        let least = |flops, bytes| limits.least_ms(PassCost { flops, bytes });
        assert_eq!((least(100_000_000, 0), least(0, 10_000_000)), (1.0, 1.0));
        assert_eq!((least(300_000_000, 10_000_000), least(300_000_000, 50_000_000)), (3.0, 5.0));
    }

    #[test]
    fn a_device_s_limits_are_those_of_its_own_operators() {
        let limits = Limits::of_operators(Device::Cpu, 64, 1 << 12).unwrap();
        assert!(limits.gflops > 0.0 && limits.gbps > 0.0 && limits.ridge().is_finite());
        assert!(limits.measured_by.contains("64×64"));
    }
}
