//! `atrous bench`

mod accuracy;
mod ladder;
mod loader;
mod shape;

use super::output::{self, Quiet};
use super::progress::line;
use super::version::VERSION;
use atrous::bench::{Cpu, Machine, NETS, Net, Peers, ops};
use atrous::context::fast_math;
use atrous::error::did_you_mean;
use atrous::{Device, Error, Result};
use clap::{Args, ValueHint};
use serde_json::{Map, Value, json};
use shape::ShapeOptions;
use std::cell::{OnceCell, RefCell};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[derive(Args)]
#[command(after_long_help = "\
Times are medians, in `ops` beside their first and third quartiles; percentages are of a loop of \
multiply-adds and of a stream triad, measured in the same run. Machines are noisy: compare within one run. \
A network runs in a process of its own, so that its memory's peak is its own.

`accuracy` is the rms error of f32 results and gradients relative to the rms of an f64 reference, which \
runs beside them (a minute); inputs come of a formula that peers compute too, and images are fewer and \
smaller than in `ops`. `loader` is images a second, read and augmented, beside what training takes.

A rung of the ladder is one of the numbered kernels of src/ladder/cpu, or of kernels/ladder for GPUs; each \
file's header says what it adds over the one before, and what would bind it. On the CPU the naive rungs \
run on one thread, the others on all; --threads 1 shows what is left without them.

ATROUS_CUDA_PROFILE=1 in the environment tells what each kernel takes on a GPU, of any command. The keys \
of --json are in docs/schemas/bench.json.

Examples:
  atrous bench ops                    every operator, at the sizes of networks
  atrous bench ops conv2d/3x3         those whose name has this in it
  atrous bench ops conv2d --shape 16x56x56x64 --filters 128 --dilation 2
  atrous bench nets --save here.jsonl            inference and training
  atrous bench nets deeplabv3plus --threads 1
  atrous bench nets --against peers.jsonl        beside what benches/peers found
  atrous bench accuracy --against torch.jsonl
  atrous bench loader deeplab --need 2000        beside a rate of one's own
  atrous bench conv2d --ladder        one operator's kernels, from the naive on
  atrous bench conv2d --ladder --device cuda")]
pub struct Bench {
    /// ops, nets, accuracy, loader, or with --ladder an operator
    ///
    /// Operators with rungs are conv2d, depthwise_conv2d and gemm; on GPUs batch_norm and reduce, too.
    #[arg(value_name = "WHAT")]
    what: String,
    /// Only operators whose name has one of these in it, or only these networks
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Print JSON: the machine, and an object for each result
    #[arg(long, conflicts_with = "against")]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
    /// Add the results to a file, a line of JSON each [default: not saved]
    #[arg(long, value_name = "FILE", conflicts_with = "ladder", value_hint = ValueHint::FilePath)]
    save: Option<PathBuf>,
    /// Compare with lines of JSON: of benches/peers or --save [default: nothing]
    ///
    /// Shows how many times longer the same work took there, or how many times larger the errors are here, in
    /// the best configuration there.
    #[arg(long, value_name = "FILE", conflicts_with = "ladder", value_hint = ValueHint::FilePath)]
    against: Option<PathBuf>,
    /// ops: time the naive references, too (seconds an operator)
    #[arg(long, conflicts_with = "ladder")]
    reference: bool,
    /// nets: images a batch [default: the network's own]
    #[arg(long, value_name = "N", conflicts_with = "ladder", help_heading = NETWORKS)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// nets: side of the images [default: the network's own]
    #[arg(long, value_name = "PIXELS", conflicts_with = "ladder", help_heading = NETWORKS)]
    #[arg(value_parser = clap::value_parser!(u16).range(32..))]
    size: Option<u16>,
    /// loader: images a second to compare with [default: a training step's]
    #[arg(long, value_name = "N", conflicts_with = "ladder", help_heading = NETWORKS)]
    need: Option<f64>,
    /// loader: its threads
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "ladder", help_heading = NETWORKS)]
    workers: usize,
    /// loader: images that it makes up, in a temporary folder
    #[arg(long = "pictures", value_name = "N", default_value_t = 64, conflicts_with = "ladder")]
    #[arg(help_heading = NETWORKS)]
    images: usize,
    #[command(flatten)]
    shape: ShapeOptions,
    /// Time the kernels on the way from the naive one to the one that runs
    #[arg(long, help_heading = LADDER)]
    ladder: bool,
    /// Runs of a rung, of which the median counts
    ///
    /// They are fewer on the CPU where they would take more than two seconds.
    #[arg(long, default_value_t = 15, value_name = "N", requires = "ladder", help_heading = LADDER)]
    times: usize,
    /// The line of JSON instead of the table: one network, in this process
    #[arg(long, hide = true)]
    line: bool,
    /// What is printed at the end where JSON is wanted.
    #[arg(skip)]
    results: RefCell<Vec<Value>>,
    /// Its limits, once they were measured.
    #[arg(skip)]
    machine: OnceCell<Machine>,
}

/// Sections of the help.
const NETWORKS: &str = "Networks and the loader";
const LADDER: &str = "Kernels of an operator";

impl Bench {
    pub fn run(self, device: Device) -> Result<()> {
        if self.quiet.quiet {
            output::without_progress();
        }
        if self.json {
            output::for_json();
            // Tables are left out.
            output::quiet();
        }
        self.measure(device)?;
        match self.json {
            true => output::json(&self.document()),
            false => Ok(()),
        }
    }

    /// As docs/schemas/bench.json has it.
    fn document(&self) -> Value {
        json!({
            "version": VERSION,
            "benchmark": if self.ladder { "ladder" } else { &self.what },
            "machine": self.machine.get().map(described),
            "results": *self.results.borrow(),
        })
    }

    fn measure(&self, device: Device) -> Result<()> {
        if self.ladder {
            return self.ladder(device);
        }
        let peers = self.against.as_deref().map(Peers::read).transpose()?;
        self.check()?;
        match self.what.as_str() {
            "ops" => self.ops(device, peers.as_ref()),
            "nets" => self.nets(device, peers.as_ref()),
            "accuracy" => self.accuracy(device, peers.as_ref()),
            "loader" => self.loader(device),
            other => {
                let meant = did_you_mean(other, ["ops", "nets", "accuracy", "loader"]);
                let message = format!(
                    "`{other}` is none of `ops`, `nets`, `accuracy`, `loader`{meant}; one operator's \
                     kernels: --ladder"
                );
                Err(Error::argument("bench", message))
            }
        }
    }

    /// An error for options that only some benchmarks have.
    fn check(&self) -> Result<()> {
        let refused = |option, whose: &str| {
            Err(Error::argument(option, format!("expected `{whose}` before it, got `{}`", self.what)))
        };
        match self.what.as_str() {
            "ops" => Ok(()),
            _ if self.shape.is_given() => refused("--shape", "bench ops OPERATOR"),
            _ => Ok(()),
        }
    }

    fn ops(&self, device: Device, peers: Option<&Peers>) -> Result<()> {
        let all = match self.shape.op(&self.names)? {
            Some(own) => vec![own],
            None => self.named("operator", ops(), |op| op.name())?,
        };
        let machine = self.header();
        let columns = [
            ("fwd_ms", "fwd ms"),
            ("fwdbwd_ms", "fwd+bwd ms"),
            ("fwd_quarters_ms", "fwd quartiles"),
            ("fwdbwd_quarters_ms", "both quartiles"),
        ];
        // Only the CPU's limits are measured.
        let rates = match device {
            Device::Cpu => [("percent_fma", "% FMA"), ("percent_triad", "% triad")],
            _ => [("gflops", "GFLOP/s"), ("gbps", "GB/s")],
        };
        let mut table = Table::new(44, &columns, &rates, peers);
        table.head();
        for op in all {
            says(&format!("timing {} …", op.name()));
            let line = op.measure(machine, device, self.reference)?;
            self.keep(&line)?;
            table.row(&op.name(), line);
        }
        table.end();
        Ok(())
    }

    fn nets(&self, device: Device, peers: Option<&Peers>) -> Result<()> {
        let nets = match self.names.is_empty() {
            true => NETS.to_vec(),
            false => self.names.iter().map(|name| Net::find(name)).collect::<Result<_>>()?,
        };
        let (batch, size) = (self.batch.map(usize::from), self.size.map(usize::from));
        let nets: Vec<Net> = nets.into_iter().map(|net| net.with(batch, size)).collect();
        if let (true, [net]) = (self.line, &nets[..]) {
            println!("{}", Value::Object(net.measure(&Machine::measure(), device)?));
            return Ok(());
        }
        self.header();
        let columns = [("infer_ms", "infer ms"), ("train_ms", "train ms"), ("infer1_ms", "of 1 ms")];
        let memory = [
            ("train_percent_fma", "% FMA"),
            ("pool_peak_mib", "pool MiB"),
            ("train_rss_mib", "RSS MiB"),
        ];
        let mut table = Table::new(20, &columns, &memory, peers);
        table.head();
        for net in nets {
            says(&format!("timing {} …", net.name));
            let line = in_a_process_of_its_own(net)?;
            self.keep(&line)?;
            table.row(net.name, line);
        }
        table.end();
        Ok(())
    }

    /// The machine's limits, which are told, too.
    fn header(&self) -> &Machine {
        self.machine.get_or_init(|| {
            let machine = Machine::measure();
            let Machine { isa, threads, fma_gflops, triad_gbps } = machine;
            println!("{isa:?}, {threads} threads on {}", Cpu::now());
            println!("limits: multiply-adds {fma_gflops:.0} GFLOP/s, triad {triad_gbps:.1} GB/s");
            machine
        })
    }

    /// Those whose name has one of the given parts in it; `what` they are, where none has.
    fn named<T>(&self, what: &str, all: Vec<T>, name: impl Fn(&T) -> String) -> Result<Vec<T>> {
        let wanted =
            |name: String| self.names.is_empty() || self.names.iter().any(|part| name.contains(part));
        let found: Vec<T> = all.into_iter().filter(|one| wanted(name(one))).collect();
        if found.is_empty() {
            let message = format!("no {what}'s name has `{}` in it", self.names.join("` or `"));
            return Err(Error::argument("bench", message));
        }
        Ok(found)
    }

    /// Takes a result, for JSON and for --save.
    fn keep(&self, line: &Map<String, Value>) -> Result<()> {
        let mut line = line.clone();
        if fast_math() {
            line.insert("fast_math".into(), true.into());
        }
        if self.json {
            self.results.borrow_mut().push(Value::Object(line.clone()));
        }
        let Some(path) = &self.save else { return Ok(()) };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{}", Value::Object(line)))
            .map_err(|error| Error::file(path, error))
    }
}

/// What is being done, on standard error where people see it, until something else is said in its place.
fn says(what: &str) {
    if output::shows_progress() {
        eprint!("\r\x1b[K{}", line::cut(what, line::width()));
    }
}

/// The same command for one network, with the same global options.
fn in_a_process_of_its_own(net: Net) -> Result<Map<String, Value>> {
    let failed = |message: String| Error::argument("bench", format!("{}: {message}", net.name));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.args(["bench", "nets", net.name, "--line"]).args(crate::cli::compute::arguments());
    command.args(["--batch", &net.batch.to_string(), "--size", &net.size.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("its process ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Rows as they come, with ratios to the peers' times and their geometric mean.
struct Table<'a> {
    width: usize,
    /// (key, title)
    columns: Vec<(&'static str, &'static str)>,
    /// The first two columns are times, which peers have too.
    peers: Option<&'a Peers>,
    logarithms: [Vec<f64>; 2],
}

impl<'a> Table<'a> {
    fn new(
        width: usize,
        columns: &[(&'static str, &'static str)],
        more: &[(&'static str, &'static str)],
        peers: Option<&'a Peers>,
    ) -> Self {
        Table { width, columns: [columns, more].concat(), peers, logarithms: Default::default() }
    }

    fn head(&self) {
        print!("{:<1$}", "", self.width);
        self.columns.iter().for_each(|(key, title)| print!("{title:>0$}", width_of(key)));
        if self.peers.is_some() {
            self.columns[..2].iter().for_each(|(_, title)| print!("{:>12}", title.replace("ms", "×")));
        }
        println!();
    }

    fn row(&mut self, name: &str, line: Map<String, Value>) {
        says("");
        print!("{name:<0$}", self.width);
        for (key, _) in &self.columns {
            print!("{:>1$}", cell(key, line.get(*key)), width_of(key));
        }
        if let Some(peers) = self.peers {
            for (i, (key, _)) in self.columns[..2].iter().enumerate() {
                match peers.ratio(&line, key) {
                    Some(ratio) => {
                        self.logarithms[i].push(ratio.ln());
                        print!("{ratio:>12.2}");
                    }
                    None => print!("{:>12}", "-"),
                }
            }
        }
        println!();
    }

    fn end(&self) {
        if self.peers.is_some() {
            let blank = self.width + self.columns.iter().map(|(key, _)| width_of(key)).sum::<usize>();
            print!("{:<blank$}", "geometric mean");
            for all in &self.logarithms {
                match all.len() {
                    0 => print!("{:>12}", "-"),
                    n => print!("{:>12.2}", (all.iter().sum::<f64>() / n as f64).exp()),
                }
            }
            println!();
        }
    }
}

/// Two numbers take more room than one.
fn width_of(key: &str) -> usize {
    if key.ends_with("_quarters_ms") { 20 } else { 12 }
}

fn cell(key: &str, value: Option<&Value>) -> String {
    let number = |value: &Value| value.as_f64();
    match value {
        Some(Value::Array(ends)) => {
            let ends: Vec<String> =
                ends.iter().filter_map(number).map(|ms| format!("{ms:.3}")).collect();
            ends.join("–")
        }
        Some(value) => match (number(value), key.ends_with("_ms")) {
            (Some(ms), true) => format!("{ms:.3}"),
            (Some(value), false) => format!("{value:.1}"),
            (None, _) => String::new(),
        },
        None => String::new(),
    }
}

/// The machine as JSON has it.
fn described(machine: &Machine) -> Value {
    let Machine { isa, threads, fma_gflops, triad_gbps } = machine;
    let cpu = Cpu::now();
    json!({
        "isa": format!("{isa:?}"),
        "threads": threads,
        "cores": cpu.cores,
        "cpu": cpu.model,
        "mhz": cpu.mhz,
        "fma_gflops": fma_gflops,
        "triad_gbps": triad_gbps,
    })
}
