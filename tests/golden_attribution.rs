//! Attributions against Captum's, of the same weights in f64 (`golden/make/make_attributions.py`).
#![cfg(feature = "report")]

mod common;

use atrous::explain::attribution::{GradCam, IntegratedGradients, Occlusion, Rule, SmoothGrad, Target};
use atrous::prelude::*;
use common::{Gains, Npz, fill, golden, json, numbers};
use serde_json::Value;

const SIDE: usize = 16;
/// Of the largest value of a map.
const TOLERANCE: f64 = 1e-5;

struct Reference {
    json: Value,
    arrays: Npz,
    model: Model,
}

impl Reference {
    fn open() -> Self {
        let folder = golden().join("attributions");
        let json = json(folder.join("attributions.json"));
        let model = model(&Gains::of(&json["config"]));
        Reference { json, arrays: Npz::open(folder.join("attributions.npz")), model }
    }

    /// Each image, and the class it is explained for.
    fn images(&mut self) -> Vec<(Tensor, Target)> {
        let values = self.arrays.get("input").f32();
        let images = values.chunks_exact(SIDE * SIDE * 3);
        let images = images.map(|image| Tensor::from_slice(image, [1, SIDE, SIDE, 3]).unwrap());
        let class = |class: f64| Target::class(&self.model, class as usize).unwrap();
        images.zip(numbers(&self.json["classes"]).into_iter().map(class)).collect()
    }

    /// Compares a map of each image with the reference's array.
    fn compare(&mut self, name: &str, map: impl Fn(&Model, &Tensor, &Target) -> Tensor) {
        let expected = self.arrays.get(name).values;
        let images = self.images();
        for (i, (image, target)) in images.iter().enumerate() {
            let got = map(&self.model, image, target).to_vec_f64();
            let expected = &expected[i * got.len()..][..got.len()];
            let most = expected.iter().fold(0.0f64, |most, v| most.max(v.abs()));
            let off = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            println!("{name}, image {i}: off by {:.1e} of the largest value", off / most);
            assert!(off <= TOLERANCE * most, "{name}, image {i}: {off} of {most}");
        }
        assert_eq!(expected.len() % images.len(), 0);
    }
}

fn model(gains: &Gains) -> Model {
    let mut g = Graph::new("attributions", "input", [SIDE, SIDE, 3]);
    let conv = |filters, kernel| Layer::conv2d(filters, kernel).with_padding(Padding::Same);
    let layers = [
        conv(8, 3).with_activation(Activation::Relu),
        Layer::max_pooling2d(2),
        conv(12, 3).with_bias(false),
        Layer::batch_normalization(),
        Layer::Activation(Activation::Relu),
        Layer::depthwise_conv2d().with_stride(2),
        conv(16, 1).with_activation(Activation::Relu),
        Layer::GlobalAveragePooling2D,
        Layer::dense(6).with_activation(Activation::Softmax),
    ];
    g.chain(g.input(), layers).unwrap();
    Model::with(g, |path, shape, _| {
        Tensor::from_slice(&fill("attributions", path, &shape, gains), shape).unwrap()
    })
}

#[test]
fn the_network_is_the_references() {
    let mut reference = Reference::open();
    let expected = reference.arrays.get("logits").values;
    for (i, (image, _)) in reference.images().iter().enumerate() {
        let logits = reference.model.run(image, Mode::infer()).unwrap().logits.to_vec_f64();
        for (got, expected) in logits.iter().zip(&expected[6 * i..]) {
            assert!((got - expected).abs() < 1e-5 * expected.abs().max(1.0), "{got} {expected}");
        }
    }
}

#[test]
fn integrated_gradients_are_captums_by_every_rule() {
    let mut reference = Reference::open();
    let baseline = Tensor::from_slice(&reference.arrays.get("baseline").f32(), [1, SIDE, SIDE, 3]);
    let baseline = baseline.unwrap();
    let deltas = reference.arrays.get("ig_delta").values;
    let rules = [
        ("ig_gausslegendre", Rule::GaussLegendre, 50),
        ("ig_riemann_left", Rule::RiemannLeft, 20),
        ("ig_riemann_middle", Rule::RiemannMiddle, 20),
        ("ig_riemann_right", Rule::RiemannRight, 20),
    ];
    for ((name, rule, steps), deltas) in rules.into_iter().zip(deltas.chunks_exact(2)) {
        let method = IntegratedGradients { baseline: baseline.clone(), steps, rule };
        reference.compare(name, |model, image, target| {
            method.attribute(model, image, target).unwrap().attributions
        });
        for ((image, target), expected) in reference.images().iter().zip(deltas) {
            let shares = method.attribute(&reference.model, image, target).unwrap();
            let (got, change) = (shares.convergence_delta(), shares.score - shares.baseline_score);
            assert!((got - expected).abs() < TOLERANCE * change.abs(), "{name}: {got} {expected}");
        }
    }
}

#[test]
fn grad_cam_is_captums_at_every_layer() {
    let mut reference = Reference::open();
    for layer in ["conv2d", "activation", "conv2d_2"] {
        let method = GradCam { layer: Some(layer.into()) };
        reference.compare(&format!("grad_cam_{layer}"), |model, image, target| {
            method.attribute(model, image, target).unwrap().attributions
        });
    }
    // The last convolution is the default.
    reference.compare("grad_cam_conv2d_2", |model, image, target| {
        GradCam::default().attribute(model, image, target).unwrap().attributions
    });
}

#[test]
fn the_gradient_and_occlusion_are_captums() {
    let mut reference = Reference::open();
    let gradient = SmoothGrad { samples: 1, noise_level: 0.0, seed: 0 };
    reference
        .compare("saliency", |model, image, target| gradient.attribute(model, image, target).unwrap());
    let pair = |key: &str| {
        let values = numbers(&reference.json["occlusion"][key]);
        [values[0] as usize, values[1] as usize]
    };
    let fill = numbers(&reference.json["occlusion"]["fill"]).iter().map(|&v| v as f32).collect();
    let occlusion = Occlusion { window: pair("window"), stride: pair("stride"), fill };
    reference.compare("occlusion", |model, image, target| {
        occlusion.attribute(model, image, target).unwrap().attributions
    });
}
