//! `atrous bench`

use atrous::ladder::{self, Rung, Work};
use atrous::{Device, Error, Result};
use clap::Args;

#[derive(Args)]
#[command(after_help = "\
Example:
  atrous bench conv2d --ladder --device cuda

A rung is one of the numbered kernels of kernels/ladder; each file's header says what it adds over the one
before, and what would bind it. Times are medians by the device's own clock; compare them within one run.")]
pub struct Bench {
    /// Which operator: batch_norm, conv2d, depthwise_conv2d, gemm, reduce
    #[arg(value_name = "OPERATOR")]
    operator: String,
    /// Time the kernels on the way from the naive one to the one that runs
    #[arg(long, required = true)]
    ladder: bool,
    /// Runs a rung, of which the median counts
    #[arg(long, default_value_t = 15, value_name = "N")]
    times: usize,
}

impl Bench {
    pub fn run(self, device: Device) -> Result<()> {
        let rungs = ladder::rungs(&self.operator)?;
        let works = match device {
            Device::Cpu => {
                let message = "the ladder's kernels are CUDA's: --device cuda (or emulated) runs them";
                return Err(Error::Device(message.into()));
            }
            Device::Emulated => {
                println!("`emulated` runs kernels on the CPU: its times say nothing about a GPU,");
                println!("and the shapes are small ones.");
                ladder::tiny(&self.operator)?
            }
            Device::Cuda(_) => ladder::real(&self.operator)?,
        };
        for work in works {
            self.climb(&work, &rungs, device)?;
        }
        Ok(())
    }

    fn climb(&self, work: &Work, rungs: &[Rung], device: Device) -> Result<()> {
        let inputs = work.tensors(device)?;
        println!("\n{} {}", work.operator, work.name);
        println!(
            "{:>4}  {:<24}{:<10}{:>10}{:>10}{:>9}{:>9}",
            "rung", "", "precision", "ms", "GFLOP/s", "GB/s", "x first"
        );
        let mut first = None;
        for rung in rungs {
            let (number, name, precision) = (rung.number, rung.name, rung.precision.to_string());
            let seconds = match rung.seconds(work, &inputs, self.times) {
                Ok(seconds) => seconds,
                Err(error @ Error::Argument { .. }) => {
                    println!("{number:>4}  {name:<24}{precision:<10}{error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let first = *first.get_or_insert(seconds);
            println!(
                "{number:>4}  {name:<24}{precision:<10}{:>10.4}{:>10.0}{:>9.0}{:>9.2}",
                seconds * 1e3,
                work.flops / seconds / 1e9,
                work.least_bytes() / seconds / 1e9,
                first / seconds,
            );
        }
        Ok(())
    }
}
