//! `atrous doctor`

use atrous::backend::cpu::{simd, threads};
use atrous::backend::cuda;
use atrous::{Device, Error, Result};
use clap::Args;

#[derive(Args)]
#[command(after_help = "\
Example:
  atrous doctor

It looks for devices, drivers and compilers, and says what is missing for what. It changes nothing.")]
pub struct Doctor {}

impl Doctor {
    pub fn run(self, device: Device) -> Result<()> {
        println!("atrous {}", env!("CARGO_PKG_VERSION"));
        println!("\ncpu");
        let line = |what: &str, value: String| println!("  {what:<22}{value}");
        if let Some(model) = of_proc("/proc/cpuinfo", "model name") {
            line("model", model);
        }
        line("threads", threads::count().to_string());
        let known: Vec<String> = simd::supported().iter().map(|isa| format!("{isa:?}")).collect();
        line("instruction sets", format!("{} (in use: {:?})", known.join(", "), atrous::context::isa()));
        if let Some(kib) = of_proc("/proc/meminfo", "MemTotal").and_then(kilobytes) {
            let free = of_proc("/proc/meminfo", "MemAvailable").and_then(kilobytes).unwrap_or(0);
            line("memory", format!("{} MiB, {} MiB of it free", kib / 1024, free / 1024));
        }

        println!("\ncuda");
        match cuda::devices() {
            Err(error) => line("devices", missing(&error)),
            Ok(found) => {
                line("driver", format!("CUDA {}.{}", found.driver.0, found.driver.1));
                for (i, d) in found.devices.iter().enumerate() {
                    let (major, minor) = d.generation;
                    let fit = if major < 8 { ", too old: 8.0 is the least" } else { "" };
                    line(
                        &format!("cuda:{i}"),
                        format!("{}, generation {major}.{minor}{fit}, {} MiB", d.name, d.memory >> 20),
                    );
                }
            }
        }
        match cuda::compiler_version() {
            Ok((major, minor)) => line("compiler", format!("NVRTC {major}.{minor}")),
            Err(error) => line("compiler", missing(&error)),
        }
        let built_in = match cuda::built_in_architectures() {
            all if all.is_empty() => "none: kernels are compiled at their first use".into(),
            all => all.join(", "),
        };
        line("kernels in the binary", built_in);
        println!("\nemulated");
        line(
            "device",
            match Device::Emulated.require() {
                Ok(_) => "CUDA kernels as C++ on the CPU: for tests, not for speed".into(),
                Err(error) => missing(&error),
            },
        );
        println!("\nin use: {}", device.require()?);
        Ok(())
    }
}

fn missing(error: &Error) -> String {
    format!("none: {}", error.to_string().trim_start_matches("device: "))
}

/// The value of a line `key : value` in a file of the system's.
fn of_proc(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

fn kilobytes(text: String) -> Option<u64> {
    text.trim_end_matches(" kB").parse().ok()
}
