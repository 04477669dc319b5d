//! `cargo bench --bench train_step`: a training step and an inference batch of whole networks, in
//! milliseconds and in percent of the machine's multiply-add peak, measured in the same run.
//!
//! A line of JSON a network on standard output, under the names of the peers' scripts.

use atrous::autograd::no_grad;
use atrous::cpu::{limits, simd::isa, threads};
use atrous::data::loader::Batch;
use atrous::graph::{Model, Run, Summary, fold_batch_norm};
use atrous::random::{Stream, domain};
use atrous::train::{Plan, Trainer};
use atrous::{Tensor, models, pool};
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
    let (name, size, n) = ("alexnet", 150, 16);
    let model = Model::new(models::by_name(name, size, 20).expect("known"), 1);
    let mut stream = Stream::new(1, &[domain::TEST]);
    let pixels: Vec<f32> = (0..n * size * size * 3).map(|_| stream.unit()).collect();
    let flags: Vec<f32> = (0..n * 20).map(|_| (stream.unit() < 0.1) as u8 as f32).collect();
    let batch = Batch {
        images: Tensor::from_slice(&pixels, [n, size, size, 3]).expect("sized"),
        labels: Tensor::from_slice(&flags, [n, 20]).expect("sized"),
        masks: None,
        indices: (0..n).collect(),
    };
    let plan = Plan {
        epochs: 1,
        batch_size: n,
        learning_rate: 1e-3,
        optimizer: "adam".into(),
        momentum: 0.0,
        loss: "binary_crossentropy".into(),
        seed: 1,
        augment: false,
        class_weights: None,
        train_indices: Vec::new(),
        val_indices: Vec::new(),
    };
    let forward = Summary::new(&model).flops() as f64 * n as f64;
    // The gradient by the input of the first layer is not computed.
    let first = Summary::new(&model).rows[1].flops as f64 * n as f64;
    let folded = fold_batch_norm(&model, &[]).expect("folds");
    let infer = median(|| {
        no_grad(|| folded.run(&batch.images, Run::infer())).expect("runs");
    });
    let mut trainer = Trainer::new(model, plan).expect("a valid plan");
    let train = median(|| {
        trainer.step(&batch).expect("steps");
    });
    let gflop = (3.0 * forward - first) / 1e9;
    println!(
        "{{\"net\":\"{name}\",\"shape\":[{size},{size},3],\"batch\":{n},\"device\":\"cpu\",\"threads\":{},\
         \"infer_ms\":{:.2},\"train_ms\":{:.2},\"train_gflop\":{gflop:.1},\"train_gflops\":{:.1},\
         \"train_percent_of_peak\":{:.1},\"pool_peak_mib\":{:.1}}}",
        threads::count(),
        infer * 1e3,
        train * 1e3,
        gflop / train,
        100.0 * gflop / train / peak,
        pool::usage().peak as f64 / (1 << 20) as f64,
    );
}
