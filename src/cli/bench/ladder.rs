//! `atrous bench OPERATOR --ladder`

use super::{Bench, says};
use atrous::bench::Machine;
use atrous::ladder::{self, Rung, Work};
use atrous::{Device, Error, Result};
use serde_json::json;

impl Bench {
    pub fn ladder(&self, device: Device) -> Result<()> {
        let rungs = ladder::rungs(&self.what, device)?;
        // A GPU's limits are not measured: its table ends before them.
        let (works, machine) = match device {
            Device::Cpu => (ladder::real(&self.what, device)?, Some(self.header())),
            Device::Emulated => {
                println!("`emulated` runs kernels on the CPU: its times say nothing about a GPU,");
                println!("and the shapes are small ones.");
                (ladder::tiny(&self.what)?, None)
            }
            Device::Cuda(_) => (ladder::real(&self.what, device)?, None),
        };
        for work in works {
            self.climb(&work, &rungs, device, machine)?;
        }
        Ok(())
    }

    fn climb(
        &self,
        work: &Work,
        rungs: &[Rung],
        device: Device,
        machine: Option<&Machine>,
    ) -> Result<()> {
        let inputs = work.tensors(device)?;
        println!("\n{} {}", work.operator, work.name);
        print!(
            "{:>4}  {:<24}{:<10}{:>10}{:>10}{:>9}{:>9}",
            "rung", "", "precision", "ms", "GFLOP/s", "GB/s", "x first"
        );
        println!("{}", if machine.is_some() { "    % FMA  % triad" } else { "" });
        let mut first = None;
        for rung in rungs {
            let (number, name, precision) = (rung.number, rung.name, rung.precision.to_string());
            says(&format!("{} {}: rung {number}, {name}: {} …", work.operator, work.name, rung.adds));
            let seconds = rung.seconds(work, &inputs, self.times);
            says("");
            let seconds = match seconds {
                Ok(seconds) => seconds,
                Err(error @ Error::Argument { .. }) => {
                    println!("{number:>4}  {name:<24}{precision:<10}{error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let first = *first.get_or_insert(seconds);
            let (gflops, gbps) = (work.flops / seconds / 1e9, work.least_bytes() / seconds / 1e9);
            print!(
                "{number:>4}  {name:<24}{precision:<10}{:>10.4}{gflops:>10.1}{gbps:>9.1}{:>9.2}",
                seconds * 1e3,
                first / seconds,
            );
            let percent = |rate: f64, limit: f64| 100.0 * rate / limit;
            let of_fma = machine.map(|machine| percent(gflops, machine.fma_gflops));
            let of_triad = machine.map(|machine| percent(gbps, machine.triad_gbps));
            if let (Some(fma), Some(triad)) = (of_fma, of_triad) {
                print!("{fma:>9.1}{triad:>9.1}");
            }
            println!();
            let line = json!({
                "op": work.operator,
                "work": work.name,
                "rung": number,
                "name": name,
                "precision": precision,
                "ms": seconds * 1e3,
                "gflops": gflops,
                "gbps": gbps,
                "times_faster": first / seconds,
                "percent_fma": of_fma,
                "percent_triad": of_triad,
            });
            line.as_object().map_or(Ok(()), |line| self.keep(line))?;
        }
        Ok(())
    }
}
