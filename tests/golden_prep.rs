//! The golden files' own rules (deterministic numbers, weights, inputs), reproduced.

mod common;

use common::*;

#[test]
fn golden_hash_gives_the_documented_vectors() {
    assert_eq!(fnv1a64("a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(fnv1a64("open:input"), 0x966e_dcc1_f8f2_d50f);
    let first = |name, n| (0..n).map(hash_unit("open", name)).collect::<Vec<f64>>();
    assert_eq!(
        first("input", 4),
        [0.12270760536193848, 0.8387694954872131, 0.5450427532196045, 0.23895740509033203]
    );
    assert_eq!(first("conv2d/kernel", 2), [0.7726307511329651, 0.4652542471885681]);
    let kernel = fill("open", "conv2d/kernel", &[7, 7, 3, 64], &Gains::default());
    assert_eq!(kernel[..3], [0.110_159_457f32, -0.014_039_405, -0.151_848_21]);
    let variance = fill("open", "batch_normalization/moving_variance", &[64], &Gains::default());
    assert_eq!(variance[0], 0.853_501_9);
}

#[test]
fn golden_weights_and_inputs_of_every_network_are_reproduced() {
    let (mut weights, mut networks) = (0, 0);
    for folder in variants() {
        for path in files(folder.join("nets"), "json") {
            let net = json(&path);
            let (input_shape, values) = input(&net);
            assert_eq!(input_shape.len(), 4);
            let expected: Vec<f32> = numbers(&net["input_first8"]).iter().map(|&v| v as f32).collect();
            assert_eq!(values[..8], expected, "input of {}", path.display());
            let gains = Gains::of(&net);
            for check in net["weights_check"].as_array().unwrap() {
                let name = text(&check["name"]);
                let got = fill(text(&net["seed_tag"]), name, &shape(&check["shape"]), &gains);
                let expected: Vec<f32> = numbers(&check["first3"]).iter().map(|&v| v as f32).collect();
                assert_eq!(got[..expected.len()], expected, "{name} of {}", path.display());
                weights += 1;
            }
            networks += 1;
        }
    }
    assert!(networks > 0 && weights >= networks, "{weights} weights of {networks} networks");
    println!("{weights} weights of {networks} networks");
}

#[test]
fn golden_arrays_are_all_readable_and_finite_where_they_should_be() {
    let mut arrays = 0;
    for folder in ["ops", "optim"] {
        for path in files(golden().join(folder), "npz") {
            let mut npz = Npz::open(&path);
            for name in npz.names() {
                let array = npz.get(&name);
                assert_eq!(array.shape.iter().product::<usize>(), array.values.len());
                assert!(array.values.iter().all(|v| v.is_finite()), "{}: {name}", path.display());
                arrays += 1;
            }
        }
    }
    assert!(arrays > 100, "{arrays} arrays");
}

#[test]
fn golden_sample_positions_follow_the_rule() {
    assert_eq!(sample_positions(3, 8), [0, 1, 2]);
    assert_eq!(sample_positions(10, 4), [1, 3, 6, 8]); // 1.25, 3.75, 6.25, 8.75
}
