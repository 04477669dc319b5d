//! Each method on small networks, against its definition, differences and what must hold of it.

use super::*;
use crate::activation::Activation;
use crate::autograd::no_grad;
use crate::models::by_name;
use crate::nn::layers::Layer;
use crate::nn::{Graph, Mode};
use crate::ops::Padding;
use crate::tensor::DType;

const SIDE: usize = 12;

/// Convolution, pool, batch norm, dense: three classes.
fn classifier() -> Model {
    let mut g = Graph::new("small", "input", [SIDE, SIDE, 3]);
    let conv = |filters| Layer::conv2d(filters, 3).with_padding(Padding::Same);
    let layers = [
        conv(6).with_activation(Activation::Relu),
        Layer::max_pooling2d(2),
        conv(8).with_bias(false),
        Layer::batch_normalization(),
        Layer::Activation(Activation::Relu),
        Layer::GlobalAveragePooling2D,
        Layer::dense(3).with_activation(Activation::Softmax),
    ];
    g.chain(g.input(), layers).unwrap();
    Model::new(g, 5)
}

/// Logits of four classes for each pixel.
fn segmenter() -> Model {
    let mut g = Graph::new("pixels", "input", [SIDE, SIDE, 3]);
    let conv = |filters| Layer::conv2d(filters, 3).with_padding(Padding::Same);
    let features = conv(6).with_stride(2).with_activation(Activation::Relu);
    g.chain(g.input(), [features, conv(4), Layer::UpSampling2D([2; 2])]).unwrap();
    Model::new(g, 5)
}

fn image() -> Tensor {
    Tensor::rand_uniform([1, SIDE, SIDE, 3], -1.0, 1.0, 7)
}

fn score(model: &Model, x: &Tensor, target: &Target) -> f64 {
    target.scores(&no_grad(|| model.run(x, Mode::infer())).unwrap().logits).unwrap()[0]
}

fn close(got: &[f64], expected: &[f64], share: f64) {
    assert_eq!(got.len(), expected.len());
    let most = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= share * most, "{got} {expected}, of {most}");
    }
}

#[test]
fn gradients_by_the_image_are_differences_of_the_score() {
    for model in [classifier(), segmenter()] {
        let model = model.to_dtype(DType::F64);
        let x = image().to_dtype(DType::F64);
        let target = Target::likeliest(&gradients::logits(&model, &x).unwrap());
        let (scores, gradient) = gradients::by_images(&model, &x, &target).unwrap();
        assert!((scores[0] - score(&model, &x, &target)).abs() < 1e-12);
        let gradient = gradient.to_vec_f64();
        for at in [0, 100, 217, 300, 431] {
            let moved = |h: f64| {
                let mut values = x.to_vec_f64();
                values[at] += h;
                score(&model, &Tensor::from_slice(&values, x.shape()).unwrap(), &target)
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - gradient[at]).abs() < 1e-6, "{at}: {slope} {}", gradient[at]);
        }
    }
}

#[test]
fn gradients_by_a_layer_are_differences_of_the_score() {
    let model = classifier().to_dtype(DType::F64);
    let x = image().to_dtype(DType::F64);
    let target = Target::class(&model, 1).unwrap();
    for layer in ["max_pooling2d", "conv2d_1", "global_average_pooling2d"] {
        let (_, gradient) = gradients::by_layer(&model, &x, &target, layer).unwrap();
        let gradient = gradient.to_vec_f64();
        for at in [0, gradient.len() / 3, gradient.len() - 1] {
            let moved = |h: f64| {
                let edit = &mut |name: &str, output: Tensor| {
                    if name != layer {
                        return Ok(output);
                    }
                    let mut values = output.to_vec_f64();
                    values[at] += h;
                    Tensor::from_slice(&values, output.shape())
                };
                let logits = model.run_edited(&x, Mode::infer(), edit).unwrap().logits;
                target.scores(&logits).unwrap()[0]
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - gradient[at]).abs() < 1e-6, "{layer} {at}: {slope} {}", gradient[at]);
        }
    }
}

/// y₀ = mean over places of relu(A)·(2, −1), with A two 1×1 filters: all by hand.
#[test]
fn grad_cam_is_what_is_worked_out_by_hand() {
    let mut g = Graph::new("by hand", "input", [2, 2, 1]);
    let conv = Layer::conv2d(2, 1).with_bias(false).with_activation(Activation::Relu);
    let dense = Layer::dense(2).with_bias(false);
    g.chain(g.input(), [conv, Layer::GlobalAveragePooling2D, dense]).unwrap();
    let model = Model::with(g, |path, shape, _| {
        let values: &[f32] = if path == "conv2d/kernel" { &[1.0, -3.0] } else { &[2.0, 9.0, -1.0, 9.0] };
        Tensor::from_slice(values, shape).unwrap()
    });
    // A = relu(x·(1, −3)): (1, 0), (4, 0), (0, 3), (0, 6).
    let x = Tensor::from([[[[1.0f32], [4.0]], [[-1.0], [-2.0]]]]);
    let target = Target::class(&model, 0).unwrap();
    let map = GradCam::default().attribute(&model, &x, &target).unwrap();
    // α = (2, −1)/4: each place is a quarter of the mean.
    assert_eq!(map.weights.to_vec_f64(), [0.5, -0.25]);
    assert_eq!(map.attributions.to_vec_f64(), [0.5, 2.0, -0.75, -1.5]);
    assert_eq!(map.resized(2, 2).unwrap().to_vec_f64(), [0.5, 2.0, 0.0, 0.0]);
    assert_eq!(map.resized(4, 4).unwrap().shape()[..], [4, 4]);
}

#[test]
fn grad_cam_looks_at_the_last_convolution_with_its_batch_norm_and_activation() {
    for (name, side, layer) in [
        ("mobilenetv2", 96, "out_relu"),
        ("mobilenet", 96, "conv_pw_13_relu"),
        ("vgg16", 64, "block5_conv3"),
        ("resnet50v2", 64, "post_relu"),
        ("deeplabv3plus", 64, "tf.nn.relu_8"),
    ] {
        assert_eq!(last_feature_map(&by_name(name, side, 20).unwrap()).unwrap(), layer, "{name}");
    }
    assert_eq!(last_feature_map(&classifier().graph).unwrap(), "activation");
    assert_eq!(last_feature_map(&segmenter().graph).unwrap(), "conv2d");
}

#[test]
fn grad_cam_takes_any_layer_by_name_and_refuses_what_makes_no_map() {
    let (model, x) = (classifier(), image());
    let target = Target::class(&model, 2).unwrap();
    let of = |layer: &str| GradCam { layer: Some(layer.into()) }.attribute(&model, &x, &target);
    assert_eq!(of("conv2d").unwrap().attributions.shape()[..], [SIDE, SIDE]);
    assert!(of("dense").err().unwrap().to_string().contains("expected a feature map"));
    assert!(of("conv2d_7").err().unwrap().to_string().contains("got `conv2d_7`"));
    let two = Tensor::zeros([2, SIDE, SIDE, 3]);
    let error = GradCam::default().attribute(&model, &two, &target).err().unwrap().to_string();
    assert!(error.contains("one image [1, height, width, channels], got [2×12×12×3]"), "{error}");
}

#[test]
fn integrated_gradients_are_complete_by_every_rule() {
    let x = image();
    let classifier = classifier();
    let class = Target::class(&classifier, 2).unwrap();
    let segmenter = segmenter();
    let pixels = Target::likeliest(&gradients::logits(&segmenter, &x).unwrap());
    for (model, target) in [(classifier, class), (segmenter, pixels)] {
        let baseline = Tensor::full([1, SIDE, SIDE, 3], -1.0);
        let change = score(&model, &x, &target) - score(&model, &baseline, &target);
        let complete = |shares: &IntegratedAttributions| {
            assert!((shares.score - shares.baseline_score - change).abs() < 1e-3 * change.abs());
            let sum: f64 = shares.attributions.to_vec_f64().iter().sum();
            assert!((sum - change).abs() < 0.01 * change.abs(), "{sum} {change}");
            assert!(shares.completeness_gap() < 0.01, "{}", shares.completeness_gap());
        };
        for rule in [Rule::GaussLegendre, Rule::RiemannLeft, Rule::RiemannMiddle, Rule::RiemannRight] {
            let method = IntegratedGradients { baseline: baseline.clone(), steps: 800, rule };
            complete(&method.attribute(&model, &x, &target).unwrap());
        }
        let adaptive = AdaptiveIntegratedGradients::from(baseline);
        let shares = adaptive.attribute(&model, &x, &target).unwrap();
        assert!(shares.steps < 256, "{}", shares.steps);
        complete(&shares);
    }
}

#[test]
fn adaptive_steps_lead_to_the_shares_that_many_even_steps_lead_to() {
    let (model, x) = (classifier(), image());
    let target = Target::class(&model, 2).unwrap();
    let black = Tensor::full([1, SIDE, SIDE, 3], -1.0);
    let even = IntegratedGradients { steps: 2000, ..IntegratedGradients::from(black.clone()) };
    let even = even.attribute(&model, &x, &target).unwrap().attributions.to_vec_f64();
    let adaptive = AdaptiveIntegratedGradients { gap: 1e-4, ..black.into() };
    let adaptive = adaptive.attribute(&model, &x, &target).unwrap();
    close(&adaptive.attributions.to_vec_f64(), &even, 0.02);
}

#[test]
fn adaptive_steps_are_as_many_as_the_gap_asks_for_and_no_more_than_are_allowed() {
    let (model, x) = (classifier(), image());
    let target = Target::class(&model, 0).unwrap();
    let black = Tensor::full([1, SIDE, SIDE, 3], -1.0);
    let of = |gap, most_steps| {
        let method = AdaptiveIntegratedGradients { gap, most_steps, ..black.clone().into() };
        method.attribute(&model, &x, &target)
    };
    let steps = |gap, most_steps| of(gap, most_steps).unwrap().steps;
    assert_eq!([steps(1e9, 256), steps(0.0, 30), steps(0.0, 4), steps(0.0, 2)], [9, 30, 4, 2]);
    let few = of(1e9, 256).unwrap().completeness_gap();
    let more = of(0.5 * few, 256).unwrap();
    assert!(more.steps > 9 && more.steps < 256 && more.completeness_gap() <= 0.5 * few);
    assert!(of(0.01, 1).err().unwrap().to_string().contains("expected at least 2, got 1"));
}

/// y = max(0, x − 0.9) from 0 to 1: nothing happens on nine tenths of the way.
#[test]
fn adaptive_steps_are_where_the_score_changes() {
    let mut g = Graph::new("late", "input", [1, 1, 1]);
    g.chain(g.input(), [Layer::Flatten, Layer::dense(1).with_activation(Activation::Relu)]).unwrap();
    let model = Model::with(g, |path, shape, _| {
        Tensor::full(shape, if path == "dense/kernel" { 1.0 } else { -0.9 })
    });
    let target = Target::class(&model, 0).unwrap();
    let x = Tensor::ones([1, 1, 1, 1]);
    let method = AdaptiveIntegratedGradients { gap: 1e-3, ..Tensor::zeros([1, 1, 1, 1]).into() };
    let shares = method.attribute(&model, &x, &target).unwrap();
    // The bend is in one piece of eight: halved until it is a thousandth of 0.1, at most.
    assert!((shares.sum - 0.1).abs() <= 1e-4, "{}", shares.sum);
    let even = IntegratedGradients { steps: shares.steps, ..Tensor::zeros([1, 1, 1, 1]).into() };
    let even = even.attribute(&model, &x, &target).unwrap();
    assert!((even.sum - 0.1).abs() > 1e-4, "{}", even.sum);
}

/// y = w·x: the gradient is w everywhere, and one step is enough.
#[test]
fn the_shares_of_a_network_without_bends_are_gradient_times_change() {
    let mut g = Graph::new("linear", "input", [2, 2, 1]);
    g.chain(g.input(), [Layer::Flatten, Layer::dense(1)]).unwrap();
    let model = Model::with(g, |_, shape, _| Tensor::rand(shape, 3));
    let weights = model.parameter("dense/kernel").unwrap().value.to_vec_f64();
    let x = Tensor::from([[[[3.0f32], [-1.0]], [[0.0], [2.0]]]]);
    let baseline = Tensor::full([1, 2, 2, 1], 1.0);
    let method = IntegratedGradients { steps: 1, ..IntegratedGradients::from(baseline) };
    let shares = method.attribute(&model, &x, &Target::class(&model, 0).unwrap()).unwrap();
    let expected: Vec<f64> =
        [2.0, -2.0, -1.0, 1.0].iter().zip(&weights).map(|(change, weight)| change * weight).collect();
    close(&shares.attributions.to_vec_f64(), &expected, 1e-6);
    assert!(shares.convergence_delta().abs() < 1e-6);
}

#[test]
fn how_many_images_run_together_changes_no_gradient() {
    let (model, x) = (classifier(), image());
    let target = Target::class(&model, 1).unwrap();
    let points = [0.0, 0.25, 0.5, 1.0].map(|t| x.to_vec_f64().iter().map(|v| t * v).collect::<Vec<_>>());
    let shape = [SIDE, SIDE, 3];
    let together = images_for(&model, &points.concat(), shape).unwrap();
    let (scores, gradients) = gradients::by_images(&model, &together, &target).unwrap();
    let gradients = gradients.to_vec_f64();
    for (i, point) in points.iter().enumerate() {
        let alone = images_for(&model, point, shape).unwrap();
        let (score, gradient) = gradients::by_images(&model, &alone, &target).unwrap();
        assert!((score[0] - scores[i]).abs() < 1e-5);
        close(&gradients[i * point.len()..][..point.len()], &gradient.to_vec_f64(), 1e-5);
    }
}

#[test]
fn smooth_grad_without_noise_is_the_gradient_and_with_noise_its_mean() {
    let (model, x) = (classifier(), image());
    let target = Target::class(&model, 0).unwrap();
    let of = |samples, noise_level, seed| {
        let method = SmoothGrad { samples, noise_level, seed };
        method.attribute(&model, &x, &target).unwrap().to_vec_f64()
    };
    let gradient = gradients::by_images(&model, &x, &target).unwrap().1.to_vec_f64();
    close(&of(3, 0.0, 1), &gradient, 1e-5);
    assert_eq!(of(20, 0.2, 1), of(20, 0.2, 1));
    assert_ne!(of(20, 0.2, 1), of(20, 0.2, 2));
    // 20 samples are the mean of 20 that run alone, whatever their batches were.
    let deviation = 0.2 * {
        let values = x.to_vec_f64();
        values.iter().copied().fold(f64::MIN, f64::max) - values.iter().copied().fold(f64::MAX, f64::min)
    };
    let mut mean = vec![0.0; gradient.len()];
    for sample in 0..20 {
        let mut stream = crate::random::Stream::new(1, &[crate::random::domain::EXPLAIN, sample]);
        let noisy: Vec<f64> =
            x.to_vec_f64().iter().map(|v| v + deviation * stream.normal() as f64).collect();
        let noisy = images_for(&model, &noisy, [SIDE, SIDE, 3]).unwrap();
        let gradient = gradients::by_images(&model, &noisy, &target).unwrap().1.to_vec_f64();
        mean.iter_mut().zip(gradient).for_each(|(mean, g)| *mean += g / 20.0);
    }
    close(&of(20, 0.2, 1), &mean, 1e-4);
}

#[test]
fn occlusion_is_the_score_less_that_of_images_that_are_covered() {
    for model in [classifier(), segmenter()] {
        let x = image();
        let target = Target::likeliest(&gradients::logits(&model, &x).unwrap());
        let method = Occlusion { window: [5, 4], stride: [3, 4], fill: vec![0.0, 0.5, -1.0] };
        let map = method.attribute(&model, &x, &target).unwrap();
        // ⌈(12 − 5)/3⌉ + 1 and (12 − 4)/4 + 1.
        assert_eq!(map.drops.shape()[..], [4, 3]);
        let whole = score(&model, &x, &target);
        assert!((map.score - whole).abs() < 1e-4 * whole.abs().max(1.0));
        let (mut expected, mut sums) = (Vec::new(), vec![(0.0, 0.0); SIDE * SIDE]);
        for (top, left) in [0, 3, 6, 9].iter().flat_map(|top| [0, 4, 8].map(|left| (*top, left))) {
            let mut values = x.to_vec_f64();
            for (pixel, value) in values.chunks_exact_mut(3).enumerate() {
                if (top..top + 5).contains(&(pixel / SIDE)) && (left..left + 4).contains(&(pixel % SIDE))
                {
                    value.copy_from_slice(&[0.0, 0.5, -1.0]);
                }
            }
            let covered = images_for(&model, &values, [SIDE, SIDE, 3]).unwrap();
            let drop = whole - score(&model, &covered, &target);
            expected.push(drop);
            for (pixel, (sum, count)) in sums.iter_mut().enumerate() {
                if (top..top + 5).contains(&(pixel / SIDE)) && (left..left + 4).contains(&(pixel % SIDE))
                {
                    (*sum, *count) = (*sum + drop, *count + 1.0);
                }
            }
        }
        close(&map.drops.to_vec_f64(), &expected, 1e-4);
        let means: Vec<f64> = sums.iter().map(|(sum, count)| sum / count).collect();
        close(&map.attributions.to_vec_f64(), &means, 1e-4);
    }
}

#[test]
fn randomised_weights_change_a_map_of_the_network_and_not_one_of_edges() {
    let (model, x) = (classifier(), image());
    let target = Target::class(&model, 0).unwrap();
    let gradient = |model: &Model| {
        let method = SmoothGrad { samples: 1, noise_level: 0.0, seed: 0 };
        of_pixels(&method.attribute(model, &x, &target)?)
    };
    let check = sanity_check(&model, 4, 3, gradient).unwrap();
    let layers: Vec<&str> = check.stages.iter().map(|stage| &stage.layer[..]).collect();
    assert_eq!(layers, ["dense", "batch_normalization", "conv2d_1", "conv2d"]);
    let last = check.stages[3].rank_correlation.unwrap();
    assert!(last.abs() < 0.4, "{last}");
    assert_eq!(spearman(&check.original.to_vec_f64(), &check.stages[3].map.to_vec_f64()), Some(last));
    // What looks at the image alone is found out.
    let edges = |_: &Model| of_pixels(&x.abs()?);
    let check = sanity_check(&model, 2, 3, edges).unwrap();
    assert!(check.stages.iter().all(|stage| stage.rank_correlation == Some(1.0)));
    // Layers are fewer than the stages that are asked for.
    assert_eq!(sanity_check(&model, 100, 3, gradient).unwrap().stages.len(), 4);
    assert!(
        sanity_check(&model, 0, 3, gradient).err().unwrap().to_string().contains("at least 1, got 0")
    );
}

#[test]
fn the_weights_of_the_model_that_is_checked_stay_and_those_of_the_copy_are_shuffled() {
    let model = classifier();
    let before: Vec<Vec<f64>> = model.parameters.iter().map(|p| p.value.to_vec_f64()).collect();
    let mut last = None;
    let keep = |model: &Model| {
        last = Some(model.clone());
        Ok(Tensor::zeros([1]))
    };
    let check = sanity_check(&model, 1, 3, keep).unwrap();
    assert_eq!(check.stages[0].rank_correlation, None);
    for ((original, parameter), before) in
        model.parameters.iter().zip(&last.unwrap().parameters).zip(before)
    {
        assert_eq!(original.value.to_vec_f64(), before);
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let shuffled = parameter.value.to_vec_f64();
        let alike = before.iter().all(|v| *v == before[0]);
        assert!(alike || shuffled != before, "{}", parameter.path);
        assert_eq!(sorted(shuffled), sorted(before));
    }
}

/// scipy.stats.spearmanr's.
#[test]
fn rank_correlation_shares_the_ranks_of_equal_values() {
    assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 100.0, 1000.0]), Some(1.0));
    assert_eq!(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
    let got = spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]).unwrap();
    assert!((got - 0.763_157_894_736_842_1).abs() < 1e-12, "{got}");
    assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
    assert_eq!(spearman(&[1.0], &[1.0, 2.0]), None);
}

#[test]
fn a_target_of_another_network_is_an_error() {
    let class = Target::class(&classifier(), 0).unwrap();
    let error = IntegratedGradients::from(image()).attribute(&segmenter(), &image(), &class);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("expected the logits of a classifier, got those of 144 pixels"), "{error}");
}

#[test]
fn settings_out_of_range_are_refused() {
    let (model, x) = (classifier(), image());
    let target = Target::class(&model, 0).unwrap();
    let black = Tensor::zeros([1, 4, 4, 3]);
    let error = IntegratedGradients::from(black).attribute(&model, &x, &target).err().unwrap();
    assert!(error.to_string().contains("baseline: expected [1×12×12×3], got [1×4×4×3]"), "{error}");
    let none = IntegratedGradients { steps: 0, ..IntegratedGradients::from(x.clone()) };
    assert!(none.attribute(&model, &x, &target).is_err());
    let noise = SmoothGrad { noise_level: f64::NAN, ..SmoothGrad::default() };
    assert!(
        noise.attribute(&model, &x, &target).err().unwrap().to_string().contains("at least 0, got NaN")
    );
    let occlusion = |window, stride, fill: &[f32]| {
        let method = Occlusion { window: [window; 2], stride: [stride; 2], fill: fill.to_vec() };
        method.attribute(&model, &x, &target).err().unwrap().to_string()
    };
    assert!(occlusion(2, 3, &[0.0; 3]).contains("got [3, 3] of [2, 2]"));
    assert!(occlusion(2, 0, &[0.0; 3]).contains("expected a stride from 1"));
    assert!(occlusion(2, 2, &[0.0]).contains("expected 3 fill values, got 1"));
}

#[test]
fn a_network_of_broken_weights_is_an_error_and_no_map() {
    let mut model = classifier();
    model.set("dense/bias", Tensor::full([3], f32::NAN)).unwrap();
    let error = GradCam::default().attribute(&model, &image(), &Target::class(&model, 0).unwrap());
    assert!(error.err().unwrap().to_string().contains("the parameter `dense/bias` holds NaN"));
}
