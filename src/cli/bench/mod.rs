//! `atrous bench`

mod accuracy;
mod ladder;
mod loader;
mod shape;

use atrous::bench::{Cpu, Machine, NETS, Net, Peers, ops};
use atrous::context::fast_math;
use atrous::{Device, Error, Result};
use clap::Args;
use serde_json::{Map, Value, json};
use shape::ShapeOptions;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous bench ops                              every operator at the sizes networks have
  atrous bench ops conv2d/3x3                   those whose name has this in it
  atrous bench ops conv2d --shape 16x56x56x64 --filters 128 --dilation 2   one on a shape of your own
  atrous bench nets --save here.jsonl           an inference batch and a training step of each network
  atrous bench nets deeplabv3plus --threads 1
  atrous bench nets --against peers.jsonl       beside what benches/peers measured on this machine, \
just before
  atrous bench accuracy --against torch.jsonl   errors against f64, beside benches/peers/torch_accuracy.py's
  atrous bench loader                           pictures a second, read and augmented, beside what \
training takes
  atrous bench loader deeplab --need 2000       beside a number of your own
  atrous bench conv2d --ladder                  one operator's kernels on the CPU, from the naive one on
  atrous bench conv2d --ladder --device cuda    the same of the GPU's
  ATROUS_CUDA_PROFILE=1 atrous bench nets alexnet --device cuda   what each kernel takes (of any command)

Times are medians, in `ops` beside their first and third quartiles; percentages are of a loop of multiply-adds
and of a stream triad, measured in the same run.
Machines are noisy: compare within one run. A network runs in a process of its own, so that its \
memory's peak is its own.
`accuracy` is the rms error of f32 results and gradients relative to the rms of an f64 reference, which runs \
beside them (a
minute); inputs come of a formula that peers compute too, and pictures are fewer and smaller than in `ops`.
A rung of the ladder is one of the numbered kernels of src/ladder/cpu, or of kernels/ladder for GPUs; \
each file's header
says what it adds over the one before, and what would bind it. On the CPU the naive rungs run on one thread, \
the others on
all; --threads 1 shows what is left without them.")]
pub struct Bench {
    /// `ops`, `nets`, `accuracy`, `loader`, or with --ladder an operator: conv2d, depthwise_conv2d,
    /// gemm; batch_norm, reduce on GPUs
    #[arg(value_name = "WHAT")]
    what: String,
    /// Only operators whose name has one of these in it, or only these networks
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Time the kernels on the way from the naive one to the one that runs
    #[arg(long)]
    ladder: bool,
    /// Runs a rung, of which the median counts; fewer on the CPU where they would take more than two seconds
    #[arg(long, default_value_t = 15, value_name = "N", requires = "ladder")]
    times: usize,
    /// Time the naive references too (seconds an operator)
    #[arg(long, conflicts_with = "ladder")]
    reference: bool,
    /// Add the results to a file, a line of JSON each
    #[arg(long, value_name = "FILE", conflicts_with = "ladder")]
    save: Option<PathBuf>,
    /// Show how many times longer the same work took there, or how many times larger the errors are here, in
    /// the best configuration there: lines of JSON, of benches/peers or of --save
    #[arg(long, value_name = "FILE", conflicts_with = "ladder")]
    against: Option<PathBuf>,
    /// Pictures a batch, instead of the network's own (nets)
    #[arg(long, value_name = "N", conflicts_with = "ladder")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// Side of the pictures, instead of the network's own (nets)
    #[arg(long, value_name = "PIXELS", conflicts_with = "ladder")]
    #[arg(value_parser = clap::value_parser!(u16).range(32..))]
    size: Option<u16>,
    /// Pictures a second to put the loader beside, instead of a training step's
    #[arg(long, value_name = "N", conflicts_with = "ladder")]
    need: Option<f64>,
    /// Threads of the loader
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "ladder")]
    workers: usize,
    /// Pictures that the loader makes up, in a folder of its own among the system's temporary ones
    #[arg(long = "pictures", value_name = "N", default_value_t = 64, conflicts_with = "ladder")]
    images: usize,
    #[command(flatten)]
    shape: ShapeOptions,
    /// Print JSON instead of the table: the machine, and a line for each result (ops, nets)
    #[arg(long, conflicts_with_all = ["ladder", "against"])]
    json: bool,
    /// The line of JSON instead of the table: one network, in this process
    #[arg(long, hide = true)]
    line: bool,
}

impl Bench {
    pub fn run(self, device: Device) -> Result<()> {
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
                let message = format!(
                    "`{other}` is none of `ops`, `nets`, `accuracy`, `loader`; one operator's \
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
            "nets" => Ok(()),
            _ if self.json => refused("--json", "bench ops` or `bench nets"),
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
        let mut table = Table::new(44, &columns, &rates, peers, self.json);
        table.head();
        for op in all {
            says(&format!("timing {} …", op.name()));
            let line = op.measure(&machine, device, self.reference)?;
            self.keep(&line)?;
            table.row(&op.name(), line);
        }
        table.end(&machine);
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
        let machine = self.header();
        let columns = [("infer_ms", "infer ms"), ("train_ms", "train ms"), ("infer1_ms", "of 1 ms")];
        let memory = [
            ("train_percent_fma", "% FMA"),
            ("pool_peak_mib", "pool MiB"),
            ("train_rss_mib", "RSS MiB"),
        ];
        let mut table = Table::new(20, &columns, &memory, peers, self.json);
        table.head();
        for net in nets {
            says(&format!("timing {} …", net.name));
            let line = in_a_process_of_its_own(net)?;
            self.keep(&line)?;
            table.row(net.name, line);
        }
        table.end(&machine);
        Ok(())
    }

    /// The machine's limits, told unless JSON has them.
    fn header(&self) -> Machine {
        if self.json { Machine::measure() } else { header() }
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

    fn keep(&self, line: &Map<String, Value>) -> Result<()> {
        let Some(path) = &self.save else { return Ok(()) };
        let mut line = line.clone();
        if fast_math() {
            line.insert("fast_math".into(), true.into());
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{}", Value::Object(line)))
            .map_err(|error| Error::file(path, error))
    }
}

/// What is being done, on standard error where people see it, until something else is said in its place.
fn says(what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}

fn header() -> Machine {
    let machine = Machine::measure();
    let Machine { isa, threads, fma_gflops, triad_gbps } = machine;
    println!("{isa:?}, {threads} threads on {}", Cpu::now());
    println!("limits: multiply-adds {fma_gflops:.0} GFLOP/s, triad {triad_gbps:.1} GB/s");
    machine
}

/// The same command for one network, with the same global options.
fn in_a_process_of_its_own(net: Net) -> Result<Map<String, Value>> {
    let failed = |message: String| Error::argument("bench", format!("{}: {message}", net.name));
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let mut command = Command::new(program);
    command.args(["bench", "nets", net.name, "--line"]).args(crate::cli::global_arguments());
    command.args(["--batch", &net.batch.to_string(), "--size", &net.size.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("its process ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

/// Rows as they come, with ratios to the peers' times and their geometric mean; or JSON at the end.
struct Table<'a> {
    width: usize,
    /// (key, title)
    columns: Vec<(&'static str, &'static str)>,
    /// The first two columns are times, which peers have too.
    peers: Option<&'a Peers>,
    logarithms: [Vec<f64>; 2],
    /// The lines so far, where they are all that is wanted.
    json: Option<Vec<Value>>,
}

impl<'a> Table<'a> {
    fn new(
        width: usize,
        columns: &[(&'static str, &'static str)],
        more: &[(&'static str, &'static str)],
        peers: Option<&'a Peers>,
        json: bool,
    ) -> Self {
        let (columns, json) = ([columns, more].concat(), json.then(Vec::new));
        Table { width, columns, peers, logarithms: Default::default(), json }
    }

    fn head(&self) {
        if self.json.is_some() {
            return;
        }
        print!("{:<1$}", "", self.width);
        self.columns.iter().for_each(|(key, title)| print!("{title:>0$}", width_of(key)));
        if self.peers.is_some() {
            self.columns[..2].iter().for_each(|(_, title)| print!("{:>12}", title.replace("ms", "×")));
        }
        println!();
    }

    fn row(&mut self, name: &str, line: Map<String, Value>) {
        says("");
        if let Some(lines) = &mut self.json {
            lines.push(Value::Object(line));
            return;
        }
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

    fn end(&self, machine: &Machine) {
        if let Some(lines) = &self.json {
            println!("{:#}", json!({"machine": described(machine), "results": lines}));
        }
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
