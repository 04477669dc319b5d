//! `cargo bench --bench ops [-- FILTER]`: the `real` cases of every operator, forward and forward +
//! backward, beside the machine's limits measured in the same run and the naive reference.
//!
//! `ATROUS_BENCH_REFERENCE=1` times the references too (seconds a case); `ATROUS_THREADS=N` sets
//! the threads; `ATROUS_BENCH_DEVICE=cuda` runs on a GPU (the limits are the CPU's all the same).
//! Timings are for this machine, now: compare ratios, not milliseconds.

use atrous::autograd::no_grad;
use atrous::cases::{self, Case, Size};
use atrous::cpu::simd::{Isa, isa, with_isa};
use atrous::cpu::{limits, threads};
use atrous::{DType, Device, Tensor};
use std::time::Instant;

/// Median seconds of up to 15 runs after one to warm up, or of what fits in a second.
fn median(mut run: impl FnMut()) -> f64 {
    run();
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || (times.len() < 15 && begin.elapsed().as_secs_f64() < 1.0) {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn forward(case: &Case, inputs: &[Tensor], device: Device) -> f64 {
    median(|| {
        no_grad(|| (case.run)(inputs)).expect("a valid case");
        device.synchronize().expect("a device that works");
    })
}

fn main() {
    if let Ok(count) = std::env::var("ATROUS_THREADS") {
        threads::set(count.parse().expect("ATROUS_THREADS is a number")).expect("set once");
    }
    let device: Device = match std::env::var("ATROUS_BENCH_DEVICE") {
        Ok(name) => name.parse().expect("ATROUS_BENCH_DEVICE is a device's name"),
        Err(_) => Device::Cpu,
    };
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let filter = filter.unwrap_or_default();
    let (peak, triad) = (limits::fma_gflops(5), limits::triad_gbps(5));
    println!(
        "{:?}, {} threads: FMA peak {peak:.0} GFLOP/s, triad {triad:.1} GB/s",
        isa(),
        threads::count()
    );
    println!(
        "{:<40} {:>9} {:>8} {:>6} {:>7} {:>6} {:>10} {:>6} {:>10}",
        "case", "fwd ms", "GFLOP/s", "% FMA", "GB/s", "% tri", "fwd+bwd ms", "% FMA", "× reference"
    );
    for case in cases::all().into_iter().filter(|case| case.size == Size::Real) {
        if !case.full_name().contains(&filter) {
            continue;
        }
        let place = |input: &Tensor| {
            let there = input.to_device(device).expect("memory for a case");
            if input.needs_grad() { there.leaf() } else { there }
        };
        let inputs: Vec<Tensor> = case.tensors(DType::F32).iter().map(place).collect();
        let output = no_grad(|| (case.run)(&inputs)).expect("a valid case");
        let upstream = case.upstream(&output).to_device(device).expect("memory for a case");
        let bytes = case.least_bytes(&output);
        drop(output);
        let one_way = forward(&case, &inputs, device);
        let both = median(|| {
            let output = (case.run)(&inputs).expect("a valid case");
            output.backward_from(upstream.clone()).expect("a valid case");
            device.synchronize().expect("a device that works");
        });
        let percent = |work: f64, seconds: f64, limit: f64| 100.0 * work / seconds / 1e9 / limit;
        let reference = match std::env::var_os("ATROUS_BENCH_REFERENCE") {
            None => "-".into(),
            Some(_) => with_isa(Isa::Reference, || {
                let start = Instant::now();
                no_grad(|| (case.run)(&inputs)).expect("a valid case");
                format!("{:.1}", start.elapsed().as_secs_f64() / one_way)
            }),
        };
        println!(
            "{:<40} {:>9.3} {:>8.1} {:>6.1} {:>7.1} {:>6.1} {:>10.3} {:>6.1} {:>10}",
            case.full_name(),
            one_way * 1e3,
            case.flops / one_way / 1e9,
            percent(case.flops, one_way, peak),
            bytes / one_way / 1e9,
            percent(bytes, one_way, triad),
            both * 1e3,
            percent(3.0 * case.flops, both, peak),
            reference
        );
    }
}
