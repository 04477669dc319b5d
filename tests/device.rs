//! Every case of every operator on a CUDA device: on the emulated one where the feature `emulator` is
//! on, and on a real one where `ATROUS_TEST_DEVICE=cuda` says so.
#![cfg(any(feature = "emulator", feature = "cuda"))]

mod common;

use atrous::cases::{Case, Size, relative_deviation};
use atrous::context::{Precision, with_conv_tile, with_precision};
use atrous::eval::metrics;
use atrous::ladder;
use atrous::ops;
use atrous::{DType, Device, Error, Tensor};
use common::{real_device, test_device};
use std::collections::BTreeSet;

/// Operators that run on the CPU alone so far, and say so.
const NOT_YET: [&str; 0] = [];

/// What a device made of a case.
struct Results {
    output: Tensor,
    gradients: Vec<Option<Tensor>>,
}

impl Results {
    fn bits(&self) -> Vec<u64> {
        let all = [Some(&self.output)].into_iter().chain(self.gradients.iter().map(Option::as_ref));
        all.flatten().flat_map(|tensor| tensor.to_vec_f64()).map(f64::to_bits).collect()
    }
}

/// Runs all tiny cases; those that agree with the f64 reference. Operators that are not on the device
/// must be the known ones, and refuse with an error that says so.
fn agree(device: Device) -> Vec<(Case, Results)> {
    let (mut missing, mut agreeing, mut wrong) = (BTreeSet::new(), Vec::new(), Vec::new());
    for case in atrous::ops::cases().into_iter().filter(|case| case.size == Size::Tiny) {
        let name = case.full_name();
        let (output, gradients) = match case.forward_backward_on(device) {
            Ok(results) => results,
            Err(Error::Device(message)) if message.contains("yet, only on `cpu`") => {
                missing.insert(case.op);
                continue;
            }
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let (expected, expected_gradients) = case.forward_backward(DType::F64).unwrap();
        let mut check = |what: &str, got: &Tensor, expected: &Tensor| {
            let deviation = relative_deviation(got, expected);
            if deviation > case.tolerance || deviation.is_nan() {
                wrong.push(format!("{name} {what}: off by {deviation:e}"));
            }
        };
        check("output", &output, &expected);
        for ((input, got), expected) in case.inputs.iter().zip(&gradients).zip(&expected_gradients) {
            match (got, expected) {
                (Some(got), Some(expected)) => check(input.name, got, expected),
                (None, None) => {}
                _ => panic!("{name}: gradient of {} on one side only", input.name),
            }
        }
        agreeing.push((case, Results { output, gradients }));
    }
    assert!(wrong.is_empty(), "on {device}:\n{}", wrong.join("\n"));
    assert_eq!(missing, BTreeSet::from(NOT_YET), "operators that are not on {device}");
    agreeing
}

fn same_bits(before: &[(Case, Results)], after: &[(Case, Results)], how: &str) {
    for ((case, before), (_, after)) in before.iter().zip(after) {
        assert!(before.bits() == after.bits(), "{}: other bits {how}", case.full_name());
    }
}

#[cfg(feature = "emulator")]
#[test]
fn every_case_agrees_on_the_emulated_device_in_every_order_of_threads() {
    use atrous::backend::cuda::emulated::{Order, set_order};
    set_order(Order::Forward);
    let forward = agree(Device::Emulated);
    let (rungs, tiles) = (climb(Device::Emulated), all_tiles(Device::Emulated));
    assert!(rungs.len() > 50 && tiles.len() > 300);
    for order in [Order::Reverse, Order::Random(1)] {
        set_order(order);
        same_bits(&forward, &agree(Device::Emulated), &format!("in {order:?} order"));
        assert!(rungs == climb(Device::Emulated), "a rung has other bits in {order:?} order");
        assert!(tiles == all_tiles(Device::Emulated), "a tile has other bits in {order:?} order");
    }
    set_order(Order::Forward);
    let gradients: usize = forward.iter().map(|(_, r)| r.gradients.iter().flatten().count()).sum();
    println!("{} cases and {gradients} gradients agree, in three orders", forward.len());
    println!("so do {} results of rungs, {} of tiles and precisions", rungs.len(), tiles.len());
}

/// `ATROUS_RECORD=FILE`: all launches of all tiny cases, for `kernels/emulator/replay.sh`.
#[cfg(feature = "emulator")]
#[test]
#[ignore = "writes a file for kernels/emulator/replay.sh"]
fn launches_are_recorded() {
    use atrous::backend::cuda::emulated::record_to;
    let path = std::env::var("ATROUS_RECORD").expect("ATROUS_RECORD names a file");
    record_to(Some(path.as_ref())).unwrap();
    let cases = agree(Device::Emulated).len();
    climb(Device::Emulated);
    let widest =
        atrous::ops::cases().into_iter().find(|case| case.full_name() == "conv2d/3x3_same_wide");
    let widest = widest.expect("conv2d has it");
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        for tile in [64, 128] {
            let run = || with_precision(precision, || widest.forward_backward_on(Device::Emulated));
            with_conv_tile(tile, run).unwrap();
        }
    }
    let products = atrous::ops::cases().into_iter();
    for case in products.filter(|case| case.op == "matmul" && case.size == Size::Tiny) {
        for precision in [Precision::Tf32, Precision::Bf16] {
            with_precision(precision, || case.forward_backward_on(Device::Emulated)).unwrap();
        }
    }
    replay_on(Device::Emulated);
    accuracies_agree_on(Device::Emulated);
    let warp = atrous::data::augment::Warp::new(
        &[[[0.9, 0.2, 0.3], [-0.1, 1.1, 0.5]]],
        atrous::data::image::Preprocess::Torch,
    );
    let warp = warp.unwrap();
    let warp = warp.with_matrices(warp.matrices.to_device(Device::Emulated).unwrap());
    warp.images(&Tensor::zeros([1, 5, 7, 3]).to_device(Device::Emulated).unwrap()).unwrap();
    warp.masks(&Tensor::zeros([1, 5, 7]).to_device(Device::Emulated).unwrap()).unwrap();
    let x = Tensor::zeros([3]).to_device(Device::Emulated).unwrap().leaf();
    ops::sum(&x).unwrap().backward().unwrap();
    // What no operator's case launches: updates and moving statistics.
    use atrous::Activation;
    use atrous::ops::batch_norm_train;
    use atrous::optimizers::{Group, Optimizer, OptimizerKind, Update};
    let there = |values: &[f32]| {
        Tensor::from_slice(values, [values.len()]).unwrap().to_device(Device::Emulated).unwrap()
    };
    let (rms, momentum) = (OptimizerKind::rmsprop(0.0), OptimizerKind::rmsprop(0.9));
    for rule in [OptimizerKind::sgd(0.0), OptimizerKind::sgd(0.9), rms, momentum, OptimizerKind::adam()]
    {
        let mut optimizer = Optimizer::new(rule, 0.01).unwrap();
        optimizer.begin_step();
        let (parameter, gradient) = (&mut there(&[1.0; 77]), there(&[0.5; 77]));
        let update = Update { index: 0, parameter, gradient: gradient.into(), group: Group::Head };
        optimizer.update(vec![update], Some(1.0)).unwrap();
    }
    let (x, one) = (there(&[3.0, 1.0, 2.0]), there(&[1.0; 3]));
    let statistics = batch_norm_train(&x, &one, &one, 1e-3, Activation::Linear).unwrap();
    statistics.moving(&one, &one, 0.9).unwrap();
    record_to(None).unwrap();
    println!("{cases} cases recorded");
}

/// How far a factor of this precision may be off, as a share of a result's largest value: tf32 rounds a
/// factor by up to 2⁻¹¹ of it, bf16 by up to 2⁻⁹, and a product has two of them.
fn allowed(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 1e-5,
        Precision::Tf32 => 2.0 * 2f64.powi(-11),
        Precision::Bf16 => 2.0 * 2f64.powi(-9),
    }
}

/// All values' bits, for comparisons from run to run.
fn bits<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<u64> {
    tensors.into_iter().flat_map(|tensor| tensor.to_vec_f64()).map(f64::to_bits).collect()
}

/// Every rung of every ladder computes the same; the bits of each.
fn climb(device: Device) -> Vec<Vec<u64>> {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for &operator in ladder::operators(device) {
        for work in ladder::tiny(operator).unwrap() {
            let inputs = work.tensors(device).unwrap();
            let expected = work.expected().unwrap();
            for rung in ladder::rungs(operator, device).unwrap() {
                let name = format!("{operator} {}: {} {}", work.name, rung.number, rung.name);
                let got = rung.run(&work, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
                let deviation = relative_deviation(&got, &expected);
                if deviation > allowed(rung.precision) || deviation.is_nan() {
                    wrong.push(format!("{name}: off by {deviation:e}"));
                }
                all.push(bits([&got]));
            }
        }
    }
    assert!(wrong.is_empty(), "on {device}:\n{}", wrong.join("\n"));
    all
}

/// Convolutions and dense layers, forward and both gradients, in every precision and both sizes of tile; the
/// bits of each.
fn all_tiles(device: Device) -> Vec<Vec<u64>> {
    let (mut every, mut wrong) = (Vec::new(), Vec::new());
    for case in atrous::ops::cases() {
        if case.size != Size::Tiny || !["conv2d", "dense", "matmul"].contains(&case.op) {
            continue;
        }
        let (expected, gradients) = case.forward_backward(DType::F64).unwrap();
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            // A factor that is rounded puts some results on an activation's other side, whose gradient is
            // another one.
            if precision != Precision::F32 && case.name.contains("relu") {
                continue;
            }
            for tile in [64, 128] {
                let run = || with_precision(precision, || case.forward_backward_on(device));
                let (output, got) = with_conv_tile(tile, run).unwrap();
                let all = [(&output, &expected)].into_iter();
                let all = all.chain(got.iter().flatten().zip(gradients.iter().flatten()));
                for (got, expected) in all {
                    let deviation = relative_deviation(got, expected);
                    let most = allowed(precision).max(case.tolerance);
                    if deviation > most || deviation.is_nan() {
                        let name = case.full_name();
                        wrong.push(format!("{name} {precision}, tile of {tile}: off by {deviation:e}"));
                    }
                    every.push(bits([got]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "on {device}:\n{}", wrong.join("\n"));
    every
}

#[test]
fn every_rung_and_every_tile_agrees_on_a_real_device() {
    if let Some(device) = real_device() {
        let (rungs, tiles) = (climb(device), all_tiles(device));
        assert!(rungs == climb(device) && tiles == all_tiles(device), "other bits in a second run");
        let (rungs, tiles) = (rungs.len(), tiles.len());
        println!("{rungs} results of rungs, {tiles} of tiles and precisions agree on {device}");
    }
}

/// A captured graph does nothing until it is replayed, and then works on what its inputs hold and on the
/// numbers it is given; what would freeze a value is refused.
fn replay_on(device: Device) {
    use atrous::backend::cuda::graph::{Graph, ReplayParams};
    let values: Vec<f32> = (0..1000).map(|i| i as f32 / 100.0).collect();
    let x = Tensor::from_slice(&values, [1000]).unwrap().to_device(device).unwrap();
    let dropped = |step| ops::dropout(&x, 0.5, 7, step, 9).unwrap().to_vec_f64();
    let (y, graph) = Graph::capture(device, || {
        let refused = x.to_device(Device::Cpu).unwrap_err().to_string();
        assert!(refused.contains("captured graph"), "{refused}");
        assert!(Tensor::zeros([2]).to_device(device).is_err() && device.synchronize().is_err());
        let twice = ops::scale(&ops::dropout(&x, 0.5, 7, 0, 9)?, 2.0)?;
        ops::scale(&twice, 0.5)
    })
    .unwrap();
    for step in [3, 4, 3] {
        graph.replay(ReplayParams { step, rates: [0.0; 2] }).unwrap();
        assert_eq!(y.to_vec_f64(), dropped(step));
    }
    assert_ne!(dropped(3), dropped(4));
    assert!(Graph::capture(device, || Err::<(), _>(Error::Device("stop".into()))).is_err());
    let panics = || Graph::capture(device, || -> Result<(), Error> { panic!("on purpose") }).is_ok();
    assert!(std::panic::catch_unwind(panics).is_err());
    // After a capture that failed, others are fine.
    assert!(Graph::capture(device, || ops::add(&x, &x)).is_ok());
}

/// While one thread captures, the others wait with whatever they ask of the device, or its graph would
/// be spoiled.
fn others_wait_on(device: Device) {
    use atrous::backend::cuda::graph::{Graph, ReplayParams};
    let x = Tensor::full([1000], 1.0).to_device(device).unwrap();
    let add = || ops::add(&x, &x);
    let (_, old) = Graph::capture(device, add).unwrap();
    let (begun, at_work) = std::sync::mpsc::channel();
    let (twice, graph) = std::thread::scope(|scope| {
        let x = &x;
        scope.spawn(move || {
            at_work.recv().unwrap();
            drop(old);
            assert_eq!(Tensor::zeros([3]).to_device(device).unwrap().to_vec_f64(), [0.0; 3]);
            device.synchronize().unwrap();
            let (y, graph) = Graph::capture(device, || ops::scale(x, 3.0)).unwrap();
            graph.replay(ReplayParams::default()).unwrap();
            assert_eq!(y.to_vec_f64(), [3.0; 1000]);
        });
        Graph::capture(device, || {
            let y = add()?;
            begun.send(()).unwrap();
            // Time enough for the other thread to do harm.
            std::thread::sleep(std::time::Duration::from_millis(50));
            ops::add(&y, x)
        })
        .unwrap()
    });
    graph.replay(ReplayParams::default()).unwrap();
    assert_eq!(twice.to_vec_f64(), [3.0; 1000]);
}

fn accuracies_agree_on(device: Device) {
    let case = atrous::ops::cases().into_iter().find(|case| case.full_name() == "softmax/21_classes");
    let scores: Vec<f32> = match case {
        Some(case) => case.tensors(DType::F32)[0].as_slice().unwrap().to_vec(),
        None => (0..21 * 500).map(|i| ((i * 7919) % 1009) as f32).collect(),
    };
    let rows = scores.len() / 21;
    let classes: Vec<f32> =
        (0..rows).map(|i| if i % 7 == 0 { 255.0 } else { (i % 21) as f32 }).collect();
    let flags: Vec<f32> = (0..rows * 21).map(|i| (i % 5 == 0) as u8 as f32).collect();
    let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape).unwrap();
    let scores = tensor(&scores, &[rows, 21]);
    for labels in [tensor(&classes, &[rows]), tensor(&flags, &[rows, 21])] {
        let here = metrics::accuracy(&labels, &scores, 255.0).unwrap();
        let there = |t: &Tensor| t.to_device(device).unwrap();
        let there = metrics::accuracy(&there(&labels), &there(&scores), 255.0).unwrap();
        assert_eq!(here.to_vec_f64(), there.to_vec_f64());
        assert!(here.item().unwrap() > 0.0);
    }
    let void = tensor(&vec![255.0; rows], &[rows]).to_device(device).unwrap();
    let none = metrics::accuracy(&void, &scores.to_device(device).unwrap(), 255.0).unwrap();
    assert_eq!(none.item().unwrap(), 0.0);
}

#[cfg(feature = "emulator")]
#[test]
fn graphs_and_accuracies_on_the_emulated_device() {
    replay_on(Device::Emulated);
    others_wait_on(Device::Emulated);
    accuracies_agree_on(Device::Emulated);
}

#[test]
fn graphs_and_accuracies_on_a_real_device() {
    if let Some(device) = real_device() {
        replay_on(device);
        others_wait_on(device);
        accuracies_agree_on(device);
        println!("graphs and accuracies agree on {device}");
    }
}

/// A rounded factor shows: a precision that did nothing would pass for the better one.
#[test]
fn precisions_round_as_they_say() {
    let Some(device) = test_device() else { return };
    let work = &ladder::tiny("gemm").unwrap()[2];
    let (inputs, expected) = (work.tensors(device).unwrap(), work.expected().unwrap());
    let off = |number, precision| {
        let mut rungs = ladder::rungs("gemm", device).unwrap().into_iter();
        let rung = rungs.find(|rung| rung.number == number && rung.precision == precision).unwrap();
        relative_deviation(&rung.run(work, &inputs).unwrap(), &expected)
    };
    let (f32, tf32, bf16) = (off(4, Precision::F32), off(5, Precision::Tf32), off(5, Precision::Bf16));
    assert!(f32 < tf32 / 20.0 && tf32 < bf16 / 2.0, "{f32:e} {tf32:e} {bf16:e}");
}

/// Augmented images must not depend on where they were made.
#[test]
fn resized_and_warped_images_have_the_cpus_bits() {
    let Some(device) = test_device() else { return };
    let mut compared = 0;
    for case in atrous::ops::cases() {
        if case.size == Size::Tiny && ["resize", "affine"].contains(&case.op) {
            let (there, _) = case.forward_backward_on(device).unwrap();
            let (here, _) = case.forward_backward(DType::F32).unwrap();
            assert!(there.to_vec_f64() == here.to_vec_f64(), "{}", case.full_name());
            compared += 1;
        }
    }
    assert!(compared > 10);
}

/// The same of what training does to a batch: fitted into squares, warped, prepared for each kind of network,
/// masks too.
#[test]
fn a_batch_is_augmented_to_the_same_bits_on_a_device() {
    use atrous::data::augment::{AffineOrder, Ranges};
    use atrous::data::image::{Preprocess, resize_with_pad, resize_with_pad_of};
    use atrous::data::loader::batch;
    use atrous::data::transforms::Transforms;
    use atrous::data::{Dataset, synthetic::Synthetic};
    let Some(tested) = test_device() else { return };
    let data = Synthetic::train(5, 4);
    for preprocess in
        [Preprocess::None, Preprocess::Unit, Preprocess::Symmetric, Preprocess::Caffe, Preprocess::Torch]
    {
        let augment = Some((Ranges::default(), AffineOrder::default()));
        let now = Transforms { augment, preprocess, masks: true, ..Transforms::plain(33) };
        let later = Transforms { warp_later: true, ..now };
        let now = batch(&data, &now, &[0, 3, 1], 7, 2).unwrap();
        let later = batch(&data, &later, &[0, 3, 1], 7, 2).unwrap();
        let warp = later.warp.unwrap();
        for device in [Device::Cpu, tested] {
            let there = |tensor: &Tensor| tensor.to_device(device).unwrap();
            let warp = warp.with_matrices(there(&warp.matrices));
            let images = warp.images(&there(&later.images)).unwrap();
            let masks = warp.masks(&there(later.masks.as_ref().unwrap())).unwrap();
            assert!(images.to_vec_f64() == now.images.to_vec_f64(), "{preprocess:?} on {device}");
            assert!(masks.to_vec_f64() == now.masks.as_ref().unwrap().to_vec_f64());
        }
        assert!(now.warp.is_none() && later.images.to_vec_f64() != now.images.to_vec_f64());
    }
    for index in 0..data.len() {
        let image = data.image(index).unwrap();
        let values: Vec<f32> = image.rgb.iter().map(|&v| v as f32).collect();
        let x = Tensor::from_slice(&values, [1, image.height, image.width, 3]).unwrap();
        let there = resize_with_pad_of(&x.to_device(tested).unwrap(), 37).unwrap();
        let here: Vec<f64> = resize_with_pad(&image, 37).unwrap().iter().map(|&v| v as f64).collect();
        assert!(there.to_vec_f64() == here, "picture {index}");
    }
}

#[test]
fn every_case_agrees_on_a_real_device() {
    let Some(device) = real_device() else { return };
    let first = agree(device);
    same_bits(&first, &agree(device), "in a second run");
    println!("{} cases agree on {device}", first.len());
}

#[test]
fn what_is_not_there_is_said() {
    let x = Tensor::zeros([2]);
    if std::env::var("ATROUS_TEST_DEVICE").is_err() {
        let error = x.to_device(Device::Cuda(99)).unwrap_err().to_string();
        assert!(error.contains("`cuda"), "{error}");
    }
    if cfg!(feature = "emulator") {
        let there = x.to_device(Device::Emulated).unwrap();
        assert_eq!(there.device(), Device::Emulated);
        let error = atrous::ops::add(&x, &there).unwrap_err().to_string();
        assert!(error.contains("one input is on `cpu`, one on `emulated`"), "{error}");
        let error = Tensor::scalar(1.0f64).to_device(Device::Emulated).unwrap_err().to_string();
        assert!(error.contains("f64"), "{error}");
        assert_eq!(there.to_device(Device::Cpu).unwrap().to_vec_f64(), [0.0, 0.0]);
    }
}

/// Every rule, a few steps with changing gradients, more parameters than one launch takes, in two groups:
/// the CPU's values, and the same bits again.
#[test]
fn optimizers_take_the_same_steps_on_a_device() {
    use atrous::optimizers::{Group, Optimizer, OptimizerKind, Update};
    let Some(device) = test_device() else { return };
    let values = |seed: usize, n: usize| -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104729) % 2003) as f32 / 1001.0 - 1.0).collect()
    };
    // Longer than a block's share, shorter than a warp, one element, none.
    let sizes: Vec<usize> = [9001, 17, 1, 4096, 0].into_iter().cycle().take(70).collect();
    let run = |rule: OptimizerKind, device: Device| -> Vec<f64> {
        let mut optimizer = Optimizer::new(rule, 0.01).unwrap();
        optimizer.factors = [1.0, 0.25];
        let tensor = |seed, n: usize| {
            Tensor::from_slice(&values(seed, n), [n]).unwrap().to_device(device).unwrap()
        };
        let mut all: Vec<Tensor> = sizes.iter().enumerate().map(|(i, &n)| tensor(i, n)).collect();
        for step in 1..5 {
            optimizer.begin_step();
            // Somebody else holds a parameter: it must not see the change.
            let before = all[0].clone();
            let kept = before.to_vec_f64();
            let update = |(index, parameter)| {
                let group = if index % 3 == 0 { Group::Base } else { Group::Head };
                Update {
                    index,
                    parameter,
                    gradient: tensor(step * 100 + index, sizes[index]).into(),
                    group,
                }
            };
            let updates = all.iter_mut().enumerate().map(update).collect();
            // Once the gradients are clipped, once they are short enough as they are.
            optimizer.update(updates, Some(if step == 2 { 1e6 } else { 5.0 })).unwrap();
            assert!(before.to_vec_f64() == kept && all[0].to_vec_f64() != kept);
        }
        all.iter().flat_map(Tensor::to_vec_f64).collect()
    };
    let (rms, momentum) = (OptimizerKind::rmsprop(0.0), OptimizerKind::rmsprop(0.9));
    for rule in [
        OptimizerKind::sgd(0.0),
        OptimizerKind::sgd(0.9),
        rms,
        momentum,
        rms.keras3(),
        OptimizerKind::adam(),
    ] {
        let (here, there) = (run(rule, Device::Cpu), run(rule, device));
        for (a, b) in here.iter().zip(&there) {
            assert!((a - b).abs() <= 2e-6, "{rule:?}: {a} and {b}");
        }
        assert!(there == run(rule, device), "{rule:?}: other bits in a second run");
    }
}

#[test]
fn sums_and_maxima_of_more_rows_than_a_grid_is_long_are_the_cpus() {
    let Some(device) = test_device() else { return };
    let x = Tensor::rand([65_540, 2], 1);
    let there = x.to_device(device).unwrap();
    for f in [|x: &Tensor| x.sum_axes([1]), |x: &Tensor| x.max_axes([1])] {
        let (expected, got) = (f(&x).unwrap(), f(&there).unwrap().to_device(Device::Cpu).unwrap());
        assert!(relative_deviation(&got, &expected) < 1e-6);
    }
    let none = Tensor::zeros([3, 0]).to_device(device).unwrap();
    assert_eq!(none.sum_axes([0]).unwrap().shape()[..], [0]);
}
