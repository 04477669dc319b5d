//! `atrous doctor`

use super::compute::Place;
use super::output::{self, Quiet};
use super::version;
use atrous::backend::cpu::{simd, threads};
use atrous::backend::cuda;
use atrous::{Device, Error, Result};
use clap::Args;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_long_help = "\
It looks for devices, drivers and compilers, and says what is missing for what. It changes nothing. Where \
the device of --device is not there, the exit status is 1. With --quiet the device in use is told alone. \
The keys of --json are in docs/schemas/doctor.json.

Examples:
  atrous doctor
  atrous doctor --device cuda --quiet
  atrous doctor --json | jq .cpu.in_use")]
pub struct Doctor {
    /// Print JSON, and anything else on standard error
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
    #[command(flatten)]
    pub place: Place,
}

impl Doctor {
    pub fn run(self) -> Result<()> {
        self.quiet.apply();
        let machine = Machine::here(self.place.device);
        if self.json {
            output::for_json();
            output::json(&machine.json())?;
        } else {
            machine.print();
        }
        let used = machine.used?;
        if !self.json {
            result!("{}in use: {used}", if output::is_quiet() { "" } else { "\n" });
        }
        Ok(())
    }
}

/// What there is on this machine, of everything that could be.
struct Machine {
    model: Option<String>,
    /// In all, and free, in KiB.
    memory: Option<(u64, u64)>,
    cuda: Result<cuda::Found>,
    compiler: Result<(i32, i32)>,
    kernels: Vec<&'static str>,
    emulated: Result<Device>,
    /// The one that was asked for.
    used: Result<Device>,
}

impl Machine {
    fn here(device: Device) -> Self {
        let total = of_proc("/proc/meminfo", "MemTotal").and_then(kilobytes);
        let free = of_proc("/proc/meminfo", "MemAvailable").and_then(kilobytes).unwrap_or(0);
        Machine {
            model: of_proc("/proc/cpuinfo", "model name"),
            memory: total.map(|total| (total, free)),
            cuda: cuda::devices(),
            compiler: cuda::compiler_version(),
            kernels: cuda::built_in_architectures(),
            emulated: Device::Emulated.require(),
            used: device.require(),
        }
    }

    fn print(&self) {
        println!("atrous {}", version::short());
        println!("\ncpu");
        let line = |what: &str, value: String| println!("  {what:<22}{value}");
        if let Some(model) = &self.model {
            line("model", model.clone());
        }
        line("threads", threads::count().to_string());
        let known = instruction_sets().join(", ");
        line("instruction sets", format!("{known} (in use: {:?})", atrous::context::isa()));
        if let Some((total, free)) = self.memory {
            line("memory", format!("{} MiB, {} MiB of it free", total / 1024, free / 1024));
        }
        println!("\ncuda");
        match &self.cuda {
            Err(error) => line("devices", missing(error)),
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
        match &self.compiler {
            Ok((major, minor)) => line("compiler", format!("NVRTC {major}.{minor}")),
            Err(error) => line("compiler", missing(error)),
        }
        let built_in = match &self.kernels[..] {
            [] => "none: kernels are compiled at their first use".into(),
            all => all.join(", "),
        };
        line("kernels in the binary", built_in);
        println!("\nemulated");
        line(
            "device",
            match &self.emulated {
                Ok(_) => "CUDA kernels as C++ on the CPU: for tests, not for speed".into(),
                Err(error) => missing(error),
            },
        );
    }

    /// As docs/schemas/doctor.json has it.
    fn json(&self) -> Value {
        let why = |error: Option<&Error>| error.map(reason);
        let devices = self.cuda.as_ref().map_or(Vec::new(), |found| {
            let device = |d: &cuda::DeviceInfo| {
                let (major, minor) = d.generation;
                json!({
                    "name": d.name,
                    "generation": format!("{major}.{minor}"),
                    "memory_mib": d.memory >> 20,
                    "usable": major >= 8,
                })
            };
            found.devices.iter().map(device).collect()
        });
        let version = |(major, minor): (i32, i32)| format!("{major}.{minor}");
        json!({
            "version": version::VERSION,
            "commit": (!version::COMMIT.is_empty()).then_some(version::COMMIT),
            "features": version::features(),
            "cpu": {
                "model": self.model,
                "threads": threads::count(),
                "instruction_sets": instruction_sets(),
                "in_use": format!("{:?}", atrous::context::isa()),
                "memory_mib": self.memory.map(|(total, _)| total / 1024),
                "free_mib": self.memory.map(|(_, free)| free / 1024),
            },
            "cuda": {
                "driver": self.cuda.as_ref().ok().map(|found| version(found.driver)),
                "devices": devices,
                "why_none": why(self.cuda.as_ref().err()),
                "compiler": self.compiler.as_ref().ok().map(|&found| version(found)),
                "why_no_compiler": why(self.compiler.as_ref().err()),
                "kernels_in_the_binary": self.kernels,
            },
            "emulated": { "there": self.emulated.is_ok(), "why_not": why(self.emulated.as_ref().err()) },
            "in_use": self.used.as_ref().ok().map(Device::to_string),
        })
    }
}

fn instruction_sets() -> Vec<String> {
    simd::supported().iter().map(|isa| format!("{isa:?}")).collect()
}

fn missing(error: &Error) -> String {
    format!("none: {}", reason(error))
}

fn reason(error: &Error) -> String {
    error.to_string().trim_start_matches("device: ").to_owned()
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
