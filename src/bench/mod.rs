//! Timings of operators and networks: medians, beside the limits of the machine measured in the same run.
//!
//! Each result is a line of JSON under the names that `benches/peers` gives the same work in other
//! engines, so that the two sides can be put side by side ([`Peers`]). Machines are noisy: compare
//! ratios within one run, never milliseconds of two.

pub mod accuracy;
mod cpu;
mod custom;
#[cfg(feature = "pictures")]
pub mod loader;
mod nets;
mod ops;

pub use cpu::Cpu;
pub use custom::{CustomShape, OPERATORS, parse_shape};
pub use nets::{NETS, Net};
pub use ops::{Op, ops};

use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::{limits, threads};
use crate::backend::cuda::Cuda;
use crate::context::isa;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pool;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// How long one run took, in seconds, over several runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// The middle one of the sorted times.
    pub median: f64,
    /// First and third quartile: how noisy the machine was.
    pub quarters: [f64; 2],
}

/// Times `run` after two runs to warm up: 15 times, or as often as fits in `seconds`, but thrice at least.
pub(crate) fn time(seconds: f64, mut run: impl FnMut() -> Result<()>) -> Result<Timing> {
    run()?;
    run()?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || (times.len() < 15 && begin.elapsed().as_secs_f64() < seconds) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(Timing::of(times))
}

impl Timing {
    /// Of times in seconds, at least one.
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let n = times.len();
        Timing { median: times[n / 2], quarters: [times[n / 4], times[3 * n / 4]] }
    }
}

/// Times work for a device, which is waited for. On a GPU by its own clock, ten runs asked for one after
/// the other each time: what counts is the work, or the asking where that takes longer.
pub(crate) fn time_on(
    device: Device,
    seconds: f64,
    mut run: impl FnMut() -> Result<()>,
) -> Result<Timing> {
    const RUNS: usize = 10;
    if !matches!(device, Device::Cuda(_)) {
        return time(seconds, || {
            run()?;
            device.synchronize()
        });
    }
    run()?;
    let cuda = Cuda::get(device)?;
    let mut ten = || (0..RUNS).try_for_each(|_| run());
    cuda.timed(&mut ten)?;
    let times = (0..15).map(|_| Ok(cuda.timed(&mut ten)? / RUNS as f64)).collect::<Result<Vec<_>>>()?;
    Ok(Timing::of(times))
}

/// Limits of the CPU, measured now: the roofline that percentages refer to.
///
/// ```no_run
/// use atrous::Device;
/// use atrous::bench::{Machine, Net, accuracy::comparisons};
///
/// let machine = Machine::measure(); // some seconds
/// let line = Net::find("alexnet")?.measure(&machine, Device::Cpu)?; // about half a minute
/// println!("{} of {:.0} GFLOP/s", line["train_ms"], machine.fma_gflops);
/// for comparison in comparisons() {
///     println!("{}: {}", comparison.name(), comparison.measure(Device::Cpu)?["error_forward"]);
/// }
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The instruction set that kernels use.
    pub isa: Isa,
    /// Threads that kernels use.
    pub threads: usize,
    /// Multiply-adds from registers on all threads, in 10⁹ operations a second (two to a
    /// multiply-add).
    pub fma_gflops: f64,
    /// Bandwidth of memory in 10⁹ bytes a second, by the STREAM triad a = b + s·c.
    pub triad_gbps: f64,
}

impl Machine {
    /// Measures both limits, best of five; takes some seconds, and gives the pool's memory back.
    pub fn measure() -> Self {
        let machine = Machine {
            isa: isa(),
            threads: threads::count(),
            fma_gflops: limits::fma_gflops(5),
            triad_gbps: limits::triad_gbps(5),
        };
        // The triad's arrays are no part of what is measured next.
        pool::trim();
        machine
    }
}

fn milliseconds(seconds: f64) -> Value {
    // To a tenth of a microsecond: more digits are noise.
    json!((seconds * 1e7).round() / 1e4)
}

/// As tables show it.
fn tenths(value: f64) -> Value {
    json!((value * 10.0).round() / 10.0)
}

/// Most memory this process ever held, in MiB, where the system tells it (Linux).
///
/// ```
/// use atrous::bench::peak_rss_mib;
///
/// if let Some(mib) = peak_rss_mib() {
///     assert!(mib > 1.0);
/// }
/// ```
pub fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}

/// What other engines, or other runs, took and how far off they were: by name of the work and of the
/// number, the best of their configurations; of a configuration that was measured several times, the
/// median.
///
/// ```
/// use atrous::bench::Peers;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("peers.jsonl");
/// std::fs::write(&path, r#"{"op": "relu", "shape": "[1] 3", "fwd_ms": 4.0}"#).unwrap();
/// let peers = Peers::read(&path)?;
/// let ours = serde_json::json!({"op": "relu", "shape": "[1] 3", "fwd_ms": 2.5});
/// let ours = ours.as_object().unwrap();
/// assert_eq!(peers.number(ours, "fwd_ms"), Some(4.0));
/// assert_eq!(peers.ratio(ours, "fwd_ms"), Some(1.6)); // they took longer
/// assert_eq!(peers.ratio(ours, "fwdbwd_ms"), None);
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct Peers(BTreeMap<(String, String), f64>);

impl Peers {
    /// The times that are compared.
    pub(crate) const TIMES: [&'static str; 5] =
        ["fwd_ms", "fwdbwd_ms", "infer_ms", "infer1_ms", "train_ms"];

    /// Reads lines of JSON as `benches/peers` and `atrous bench --save` write them. Lines without a name
    /// are passed over.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
        let mut times: BTreeMap<(String, String), BTreeMap<String, Vec<f64>>> = BTreeMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line: Map<String, Value> = serde_json::from_str(line)
                .map_err(|error| Error::file(path, format!("line {}: {error}", i + 1)))?;
            let Some(name) = name(&line) else { continue };
            let part = |key: &str| line.get(key).map(Value::to_string).unwrap_or_default();
            let configuration = ["framework", "layout", "mode", "alloc", "jit"].map(part).join(" ");
            for (key, value) in &line {
                let compared = Peers::TIMES.contains(&key.as_str()) || key.starts_with("error_");
                if let (true, Some(value)) = (compared, value.as_f64()) {
                    let all = times.entry((name.clone(), key.clone())).or_default();
                    all.entry(configuration.clone()).or_default().push(value);
                }
            }
        }
        let median = |mut times: Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let best = |all: BTreeMap<String, Vec<f64>>| {
            all.into_values().map(median).fold(f64::INFINITY, f64::min)
        };
        Ok(Peers(times.into_iter().map(|(key, all)| (key, best(all))).collect()))
    }

    /// Their number to a line's own of this key: None where they have no such work.
    pub fn number(&self, line: &Map<String, Value>, key: &str) -> Option<f64> {
        self.0.get(&(name(line)?, key.into())).copied()
    }

    /// How many times longer they took than a line's own times say: None where they have no such work.
    pub fn ratio(&self, line: &Map<String, Value>, time: &str) -> Option<f64> {
        Some(self.number(line, time)? / line.get(time)?.as_f64()?)
    }
}

/// `net`, or `op` and `shape`.
fn name(line: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| line.get(key).and_then(Value::as_str);
    match (text("net"), text("op")) {
        (Some(net), _) => Some(net.into()),
        (None, Some(op)) => Some(format!("{op} {}", text("shape").unwrap_or_default())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_configuration_of_a_peer_is_the_one_compared_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.jsonl");
        let lines = r#"{"torch": "2", "threads": 2}
{"op": "relu", "shape": "[1] 3", "layout": "nchw", "fwd_ms": 4.0, "fwdbwd_ms": null}
{"op": "relu", "shape": "[1] 3", "layout": "nchw", "fwd_ms": 9.0}
{"op": "relu", "shape": "[1] 3", "layout": "nchw", "fwd_ms": 5.0}
{"op": "relu", "shape": "[1] 3", "layout": "channels_last", "fwd_ms": 6.0}
{"net": "alexnet", "batch": 16, "train_ms": 300.0}
"#;
        std::fs::write(&path, lines).unwrap();
        let peers = Peers::read(&path).unwrap();
        let ours = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let relu = ours(r#"{"op": "relu", "shape": "[1] 3", "fwd_ms": 2.5, "fwdbwd_ms": 1.0}"#);
        assert_eq!(peers.ratio(&relu, "fwd_ms"), Some(2.0));
        assert_eq!(peers.ratio(&relu, "fwdbwd_ms"), None);
        let net = ours(r#"{"net": "alexnet", "shape": "150", "train_ms": 150.0}"#);
        assert_eq!(peers.ratio(&net, "train_ms"), Some(2.0));
        std::fs::write(&path, "{\"op\": ").unwrap();
        assert!(Peers::read(&path).err().unwrap().to_string().contains("line 1"));
    }

    #[test]
    fn a_timing_is_the_median_of_at_least_three_runs() {
        let mut runs = 0;
        let timing = time(0.0, || {
            runs += 1;
            Ok(())
        });
        assert_eq!(runs, 5);
        assert!(timing.unwrap().median >= 0.0);
    }
}
