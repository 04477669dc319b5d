//! One file a subcommand.

// First of all: its macros hold for the modules below.
#[macro_use]
pub mod output;

mod attack;
mod bench;
mod convert;
mod data;
mod demo;
mod doctor;
mod evaluate;
mod explain;
mod live;
mod network;
mod options;
mod predict;
mod profile;
mod progress;
mod report;
mod run;
pub mod signals;
mod summary;
mod train;
mod watch;
mod weights;

use atrous::backend::cpu::{simd, threads};
use atrous::context::{Precision, with_fast_math, with_precision};
use atrous::{Device, Error, Result};
use clap::{Args, Parser, Subcommand};
use std::sync::OnceLock;

/// A deep-learning engine written from scratch, and the computer-vision pipeline that runs on it.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  atrous demo                                     everything, on pictures it makes up itself
  atrous run --data voc --out result              check, train, predict, write submission.csv
  atrous train classify --data voc --out result --epochs 150
  atrous evaluate --data voc --checkpoint result
  atrous predict --data voc --checkpoint result --out submission.csv
  atrous attack --data voc --checkpoint result --epsilon 8/255
  atrous explain cat.jpg --checkpoint result/classify
  atrous summary alexnet"
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
pub struct Global {
    /// Where to compute: cpu, cuda, cuda:N, or emulated (see `atrous doctor`)
    #[arg(long, global = true, default_value = "cpu", value_name = "DEVICE")]
    device: Device,
    /// With how many bits a GPU multiplies: f32, tf32, bf16. Weights, sums, statistics and losses are f32
    #[arg(long, global = true, default_value = "f32", value_name = "PRECISION")]
    precision: Precision,
    /// Multiply less and round more on the CPU: 3x3 convolutions of stride 1 go by Winograd's F(4x4,
    /// 3x3) where that is faster. Their results and gradients by pictures are about three times as far
    /// off, and differ in the last digits from those without
    #[arg(long, global = true)]
    fast_math: bool,
    /// Threads to compute on [default: all cores]. Results do not depend on it
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
}

// There is one of it: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
enum Command {
    /// The whole pipeline on an embedded, made-up data set: a few minutes on two cores
    Demo(demo::Demo),
    /// The whole pipeline on a folder: check, train, predict, write submission.csv
    Run(run::Run),
    /// Train a network
    #[command(subcommand)]
    Train(Train),
    /// Show a run while it trains, from another terminal, or how it went
    Watch(watch::Watch),
    /// Score trained networks on the pictures that were kept for validation
    Evaluate(evaluate::Evaluate),
    /// Predict a folder's test pictures with trained networks and write submission.csv
    Predict(predict::Predict),
    /// Perturb pictures so that a network errs, and measure how well it resists
    Attack(attack::Attack),
    /// Make report.html again from the files that a command left
    Report(report::Report),
    /// Put runs side by side: settings that differ, scores, curves, classes
    Compare(report::Compare),
    /// Show what a network computed for one picture, and why, down to every number: one HTML page
    Explain(explain::Explain),
    /// Time operators, networks, or an operator's kernels from the naive one to the one that runs
    Bench(bench::Bench),
    /// Time each step of a network, forward and backward, beside the machine's limits
    Profile(profile::Profile),
    /// Show which devices, drivers and compilers there are, and what will be used
    Doctor(doctor::Doctor),
    /// Show a network's layers, parameters, arithmetic and memory
    Summary(summary::Summary),
    /// Make up, check or convert a data set
    #[command(subcommand)]
    Data(data::Data),
    /// Look into files of pre-trained weights, or convert them
    #[command(subcommand)]
    Weights(weights::Weights),
}

#[derive(Subcommand)]
enum Train {
    /// Which of the 20 classes are in a picture
    Classify(train::Command),
    /// Which class each pixel is of
    Segment(train::Command),
}

/// The global options as this program was given them, for a process of its own.
fn global_arguments() -> Vec<String> {
    let mut arguments = vec!["--device".into(), device().to_string()];
    arguments.extend(["--precision".into(), atrous::context::precision().to_string()]);
    arguments.extend(["--threads".into(), threads::count().to_string()]);
    arguments.extend(atrous::context::fast_math().then(|| "--fast-math".into()));
    arguments
}

/// What `--device` said, for as long as the program runs.
static DEVICE: OnceLock<Device> = OnceLock::new();

/// Where networks run.
fn device() -> Device {
    DEVICE.get().copied().unwrap_or(Device::Cpu)
}

pub fn run(cli: Cli) -> Result<()> {
    simd::preferred()?;
    threads::set(cli.global.threads)?;
    if let Command::Doctor(command) = cli.command {
        return command.run(cli.global.device);
    }
    let _ = DEVICE.set(match &cli.command {
        Command::Summary(summary) if summary.is_of_any_device() => cli.global.device,
        _ => cli.global.device.require()?,
    });
    let precision = cli.global.precision;
    if precision != Precision::F32 && device() == Device::Cpu {
        let message =
            format!("{precision} is for GPUs: it needs --device cuda; the CPU multiplies in f32");
        return Err(Error::argument("--precision", message));
    }
    let fast = cli.global.fast_math;
    if fast && device() != Device::Cpu {
        let message = "it is for the CPU; a GPU multiplies faster with --precision tf32 or bf16";
        return Err(Error::argument("--fast-math", message));
    }
    let done = with_precision(precision, || with_fast_math(fast, || command(cli.command)));
    if let Some(table) = atrous::backend::cuda::profile() {
        eprint!("{table}");
    }
    done
}

fn command(command: Command) -> Result<()> {
    match command {
        Command::Demo(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Train(Train::Classify(command)) => command.run(false),
        Command::Train(Train::Segment(command)) => command.run(true),
        Command::Watch(command) => command.run(),
        Command::Evaluate(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Attack(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Compare(command) => command.run(),
        Command::Explain(command) => command.run(),
        Command::Bench(command) => command.run(device()),
        Command::Profile(command) => command.run(),
        Command::Doctor(_) => Ok(()),
        Command::Summary(command) => command.run(device()),
        Command::Data(command) => command.run(),
        Command::Weights(command) => command.run(),
    }
}
