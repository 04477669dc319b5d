//! `cargo bench --bench train_step`: a training step and an inference batch of whole networks, in
//! milliseconds and in percent of the machine's multiply-add peak, measured in the same run.
//!
//! A line of JSON a network on standard output, under the names of the peers' scripts; networks can
//! be named (`-- deeplabv3plus`). The memory's peak is that of the process: name one to see its own.
//!
//! `ATROUS_BENCH_DEVICE=cuda` runs on a GPU, in the precision that `ATROUS_BENCH_PRECISION` names (f32, tf32,
//! bf16): a step there is a captured graph with everything in it, upload and loss included. Percentages are
//! of the CPU's peak all the same, and the pool's peak is the CPU's.

use atrous::autograd::no_grad;
use atrous::cpu::{limits, simd::isa, threads};
use atrous::data::loader::Batch;
use atrous::graph::{Model, Run, Summary, classify_before_upsampling, fold_batch_norm};
use atrous::models::Spec;
use atrous::ops::{Precision, precision, with_precision};
use atrous::random::{Stream, domain};
use atrous::train::{Plan, Trainer, Unfreeze};
use atrous::{Device, Tensor, pool};
use std::time::Instant;

fn median(mut run: impl FnMut()) -> f64 {
    for _ in 0..2 {
        run();
    }
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    if let Ok(count) = std::env::var("ATROUS_THREADS") {
        threads::set(count.parse().expect("ATROUS_THREADS is a number")).expect("set once");
    }
    let peak = limits::fma_gflops(5);
    eprintln!("{:?}, {} threads: FMA peak {peak:.0} GFLOP/s", isa(), threads::count());
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let variable = |name| std::env::var(name).ok();
    let device: Device = variable("ATROUS_BENCH_DEVICE")
        .map_or(Device::Cpu, |name| name.parse().expect("ATROUS_BENCH_DEVICE is a device's name"));
    let precision: Precision = variable("ATROUS_BENCH_PRECISION")
        .map_or(Precision::F32, |name| name.parse().expect("ATROUS_BENCH_PRECISION is a precision"));
    for (name, size, n) in NETS {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            with_precision(precision, || measure(name, size, n, peak, device));
        }
    }
}

/// The network's name, the pictures' side, the batch. A base named `-frozen` is.
const NETS: [(&str, usize, usize); 6] = [
    ("alexnet", 150, 16),
    ("vgg16-frozen", 224, 10),
    ("resnet50v2-frozen", 224, 16),
    ("mobilenetv2-frozen", 256, 16),
    ("mobilenetv2", 256, 16),
    ("deeplabv3plus", 224, 4),
];

fn measure(net: &str, size: usize, n: usize, peak: f64, device: Device) {
    let name = net.trim_end_matches("-frozen");
    let frozen = name != net;
    let segments = name == "deeplabv3plus";
    let spec = Spec::new(name, size, 20 + segments as usize);
    let mut stream = Stream::new(1, &[domain::TEST]);
    let pixels: Vec<f32> = (0..n * size * size * 3).map(|_| stream.unit()).collect();
    let flags: Vec<f32> = (0..n * 20).map(|_| (stream.unit() < 0.1) as u8 as f32).collect();
    let mask: Vec<f32> = (0..n * size * size).map(|_| (stream.unit() * 21.0).floor()).collect();
    let batch = Batch {
        images: Tensor::from_slice(&pixels, [n, size, size, 3]).expect("sized"),
        labels: Tensor::from_slice(&flags, [n, 20]).expect("sized"),
        warp: None,
        masks: segments.then(|| Tensor::from_slice(&mask, [n, size, size]).expect("sized")),
        indices: (0..n).collect(),
    };
    let unfreeze = if frozen { vec![Unfreeze { epoch: 0, layers: 0 }] } else { Vec::new() };
    let plan = Plan { epochs: 1, batch_size: n, seed: 1, unfreeze, ..Plan::new(spec) };
    let model = Model::new(plan.graph().expect("known"), 1);
    let forward = Summary::new(&model).flops() as f64 * n as f64;
    // The gradient by the input of the first layer is not computed.
    let first = Summary::new(&model).rows[1].flops as f64 * n as f64;
    let folded = fold_batch_norm(&model, &[]).expect("folds");
    let folded = classify_before_upsampling(&folded, &[]).expect("moves");
    // A frozen base runs forward alone.
    let rows = &Summary::new(&model).rows[model.graph.base().len()..];
    let head = rows.iter().map(|row| row.flops).sum::<u64>() as f64 * n as f64;
    let folded = folded.to_device(device).expect("memory for the network");
    let infer = median(|| {
        let images = batch.images.to_device(device).expect("memory for a batch");
        no_grad(|| folded.run(&images, Run::infer())).expect("runs");
        device.synchronize().expect("a device that works");
    });
    let mut trainer = Trainer::new(model, plan).expect("a valid plan");
    trainer.to_device(device).expect("memory for the network");
    let train = median(|| {
        trainer.step(&batch).expect("steps");
    });
    let gflop = if frozen { forward + 2.0 * head } else { 3.0 * forward - first } / 1e9;
    println!(
        "{{\"net\":\"{net}\",\"shape\":[{size},{size},3],\"batch\":{n},\"device\":\"{device}\",\"precision\":\"{}\",\"threads\":{},\
         \"infer_ms\":{:.2},\"train_ms\":{:.2},\"train_gflop\":{gflop:.1},\"train_gflops\":{:.1},\
         \"train_percent_of_peak\":{:.1},\"pool_peak_mib\":{:.1}}}",
        precision(),
        threads::count(),
        infer * 1e3,
        train * 1e3,
        gflop / train,
        100.0 * gflop / train / peak,
        pool::usage().peak as f64 / (1 << 20) as f64,
    );
}
