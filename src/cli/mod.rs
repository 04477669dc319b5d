//! One file a subcommand; what several of them share stands in files of its own.

// First of all: its macros hold for the modules below.
#[macro_use]
pub mod output;

mod attack;
mod bench;
mod completions;
mod compute;
mod convert;
mod data;
mod demo;
mod doctor;
mod evaluate;
mod explain;
mod failure;
mod folder;
#[cfg(test)]
mod help;
mod live;
mod man;
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
mod values;
mod version;
mod watch;
mod weights;

use atrous::Result;
use atrous::backend::cpu::{simd, threads};
use clap::{Parser, Subcommand};
use compute::{Compute, Computing, device};
pub use failure::{Failure, with_a_suggestion};

/// A deep-learning engine written from scratch, and a vision pipeline on it
#[derive(Parser)]
#[command(
    version = version::short(),
    long_version = version::long(),
    arg_required_else_help = true,
    // A line of a text that is read is no longer than that.
    max_term_width = 100,
    after_long_help = "\
`atrous COMMAND -h` is a command's help in short; `atrous COMMAND --help` says more, with examples.

Exit status:
  0    done
  1    failed: a file, the data or a device is not as it should be
  2    not understood: an option or a value that there is not, or out of range
  101  a mistake in atrous itself: please report it
  130  interrupted by Ctrl-C; what is kept of the work is said

Colours are used where output goes to a terminal. NO_COLOR=1 and TERM=dumb leave them out, and \
CLICOLOR_FORCE=1 has them everywhere.

Examples:
  atrous demo                               everything, on images it makes up
  atrous run --data voc --out result        check, train, score, predict
  atrous train classify --data voc --out result --epochs 150
  atrous evaluate --data voc --checkpoint result
  atrous predict --data voc --checkpoint result --out submission.csv
  atrous attack --data voc --checkpoint result --epsilon 8/255
  atrous explain cat.jpg --checkpoint result/classify
  atrous summary alexnet"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

// There is one of it: its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
enum Command {
    /// Run the whole pipeline on images that it makes up: a few minutes
    Demo(Computing<demo::Demo>),
    /// Run the whole pipeline on a folder: check, train, score, predict
    Run(Computing<run::Run>),
    /// Train a network
    #[command(subcommand)]
    Train(Train),
    /// Show a run while it trains, from another terminal, or how it went
    Watch(watch::Watch),
    /// Score trained networks on images whose truth is known
    Evaluate(Computing<evaluate::Evaluate>),
    /// Predict images, or a data set's test images into submission.csv
    Predict(Computing<predict::Predict>),
    /// Perturb images so that a network errs; measure how it resists
    Attack(Computing<attack::Attack>),
    /// Make report.html again from the files that a command left
    Report(report::Report),
    /// Put runs side by side: settings, scores, curves, classes
    Compare(report::Compare),
    /// Show what a network computed for one image, down to every number
    Explain(Computing<explain::Explain>),
    /// Time operators, networks, the loader, or an operator's kernels
    Bench(Computing<bench::Bench>),
    /// Time each step of a network beside the machine's limits
    Profile(Computing<profile::Profile>),
    /// Show which devices, drivers and compilers there are
    Doctor(doctor::Doctor),
    /// Show a network's layers, parameters, arithmetic and memory
    Summary(Computing<summary::Summary>),
    /// Make up, check or convert a data set
    #[command(subcommand)]
    Data(data::Data),
    /// Look into files of pre-trained weights, or convert them
    #[command(subcommand)]
    Weights(weights::Weights),
    /// Print a script with which a shell completes commands and options
    Completions(completions::Completions),
    /// Print the manual page, or write one for each command
    Man(man::Man),
}

#[derive(Subcommand)]
enum Train {
    /// Learn which classes are in an image
    Classify(Computing<train::Command>),
    /// Learn which class each pixel is of
    Segment(Computing<train::Command>),
}

pub fn run(cli: Cli) -> Result<()> {
    simd::preferred()?;
    let compute = cli.command.compute();
    threads::set(compute.place.threads.threads)?;
    compute.run(cli.command.needs_its_device(), || cli.command.run())
}

impl Command {
    /// Where and how it computes.
    fn compute(&self) -> Compute {
        match self {
            Command::Demo(Computing { compute, .. })
            | Command::Run(Computing { compute, .. })
            | Command::Train(
                Train::Classify(Computing { compute, .. }) | Train::Segment(Computing { compute, .. }),
            )
            | Command::Evaluate(Computing { compute, .. })
            | Command::Predict(Computing { compute, .. })
            | Command::Attack(Computing { compute, .. })
            | Command::Explain(Computing { compute, .. })
            | Command::Bench(Computing { compute, .. })
            | Command::Profile(Computing { compute, .. })
            | Command::Summary(Computing { compute, .. }) => compute.clone(),
            Command::Doctor(doctor) => Compute { place: doctor.place.clone(), ..Compute::default() },
            Command::Data(data) => Compute::on_threads(data.threads()),
            _ => Compute::default(),
        }
    }

    /// Whether it fails at once where its device is not there.
    fn needs_its_device(&self) -> bool {
        match self {
            Command::Doctor(_) => false,
            Command::Summary(summary) => !summary.command.is_of_any_device(),
            _ => true,
        }
    }

    fn run(self) -> Result<()> {
        match self {
            Command::Demo(demo) => demo.command.run(),
            Command::Run(run) => run.command.run(),
            Command::Train(Train::Classify(train)) => train.command.run(false),
            Command::Train(Train::Segment(train)) => train.command.run(true),
            Command::Watch(watch) => watch.run(),
            Command::Evaluate(evaluate) => evaluate.command.run(),
            Command::Predict(predict) => predict.command.run(),
            Command::Attack(attack) => attack.command.run(),
            Command::Report(report) => report.run(),
            Command::Compare(compare) => compare.run(),
            Command::Explain(explain) => explain.command.run(),
            Command::Bench(bench) => bench.command.run(device()),
            Command::Profile(profile) => profile.command.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Summary(summary) => summary.command.run(device()),
            Command::Data(data) => data.run(),
            Command::Weights(weights) => weights.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
        }
    }
}
