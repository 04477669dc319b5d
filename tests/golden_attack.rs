//! Attacks against values made by PyTorch in f64 (`golden/make/make_attacks.py`) and by Keras
//! (`golden/open/fgsm.json`): each step begins where the reference's last one ended.

mod common;

use atrous::Tensor;
use atrous::activation::Activation;
use atrous::attack::{
    Attack, AttackTarget, DeepFool, EpsBall, Goal, Images, Iterative, LabelObjective, MaskObjective,
    Network, Norm, Objective, gradient, iterative::ascent, logits,
};
use atrous::data::Mask;
use atrous::data::image::Preprocess;
use atrous::models::Head;
use atrous::models::mobilenet_v2;
use atrous::nn::layers::Layer;
use atrous::nn::{Graph, Model};
use atrous::ops::Padding;
use common::{Gains, Npz, fill, golden, hash_unit, json, numbers, sample_positions, text, variants};
use serde_json::Value;

const SIDE: usize = 32;
const N: usize = 4 * SIDE * SIDE * 3;

struct Reference {
    json: Value,
    arrays: Npz,
}

impl Reference {
    fn open() -> Self {
        let folder = golden().join("attacks");
        Reference {
            json: json(folder.join("attacks.json")),
            arrays: Npz::open(folder.join("attacks.npz")),
        }
    }

    fn number(&self, key: &str) -> f32 {
        self.json["config"][key].as_f64().unwrap() as f32
    }

    fn images(&mut self) -> Images {
        let x = Tensor::from_slice(&self.arrays.get("input").f32(), [4, SIDE, SIDE, 3]).unwrap();
        Images::whole(x)
    }

    fn model(&self, segments: bool) -> Model {
        let mut g = Graph::new("attacks", "input", [SIDE, SIDE, 3]);
        let conv = |filters, kernel| Layer::conv2d(filters, kernel).with_padding(Padding::Same);
        let relu = Layer::Activation(Activation::Relu);
        let features = [
            conv(16, 3).with_activation(Activation::Relu),
            Layer::max_pooling2d(2),
            conv(32, 3).with_bias(false),
            Layer::batch_normalization(),
            relu,
            Layer::depthwise_conv2d().with_stride(2),
            conv(48, 1).with_activation(Activation::Relu),
        ];
        let last = g.chain(g.input(), features).unwrap();
        match segments {
            false => {
                let dense = Layer::dense(20).with_activation(Activation::Softmax);
                g.chain(last, [Layer::GlobalAveragePooling2D, dense]).unwrap();
            }
            true => {
                let last = g.add_named("segment", conv(21, 1), &[last]).unwrap();
                g.add(Layer::UpSampling2D([4; 2]), &[last]).unwrap();
            }
        }
        let gains = Gains::of(&self.json["config"]);
        Model::with(g, |path, shape, _| {
            Tensor::from_slice(&fill("attacks", path, &shape, &gains), shape).unwrap()
        })
    }

    fn victim(&self) -> Network {
        Network::new(&self.model(false), Preprocess::Symmetric).unwrap()
    }

    fn classes(&self, key: &str) -> Vec<usize> {
        numbers(&self.json[key]).iter().map(|&v| v as usize).collect()
    }

    /// What `ce`, `target` and `bce` are, for one image each (a wish may differ from image to image).
    fn objectives(&self, loss: &str) -> Vec<LabelObjective> {
        let (class, target) = (self.classes("class"), self.classes("target"));
        let of = |i: usize| {
            let mut truth = vec![false; 20];
            match loss {
                "bce" => numbers(&self.json["labels"][i])
                    .iter()
                    .for_each(|&label| truth[label as usize] = true),
                _ => truth[class[i]] = true,
            }
            LabelObjective {
                truth: vec![truth],
                goal: if loss == "target" { Goal::Targeted(target[i]) } else { Goal::Untargeted },
                exclusive: loss != "bce",
                thresholds: vec![0.5; 20],
                margin: 0.0,
                all_classes: true,
            }
        };
        (0..4).map(of).collect()
    }

    /// Row s of an array of bits.
    fn bits(&mut self, name: &str, step: usize) -> Vec<bool> {
        let bytes = self.arrays.get(name).values;
        (0..N).map(|i| (bytes[step * N / 8 + i / 8] as u8) & (0x80 >> (i % 8)) != 0).collect()
    }
}

/// An objective of its own for each image.
struct Each<'a>(&'a [LabelObjective]);

impl Objective for Each<'_> {
    fn status(&self, image: usize, logits: &[f32]) -> atrous::attack::AttackStatus {
        self.0[image].status(0, logits)
    }

    fn upstream(&self, image: usize, logits: &[f32], done: f32, gradient: &mut [f32]) {
        self.0[image].upstream(0, logits, done, gradient);
    }
}

fn of(victim: &Network, x: &Tensor, objective: &dyn Objective, done: f32) -> Vec<f64> {
    ascent(victim, x, &[0, 1, 2, 3], objective, done, None).unwrap().1.to_vec_f64()
}

/// `falls`: the reference's bits are of a loss that falls, where ours is to rise.
fn compare_signs(
    name: &str,
    step: usize,
    got: &[f64],
    negative: &[bool],
    reliable: &[bool],
    falls: bool,
) {
    let sure: Vec<usize> = (0..N).filter(|&i| reliable[i]).collect();
    let same = sure.iter().filter(|&&i| (got[i] < 0.0) == (negative[i] != falls)).count();
    assert!(sure.len() > N / 2, "{name}: {} of {N} values are reliable", sure.len());
    let share = same as f64 / sure.len() as f64;
    println!("{name}, step {step}: {share:.6} of {} signs", sure.len());
    assert!(share >= 0.999, "{name}, step {step}: signs agree on {share}");
}

/// The reference's own step, from its bits.
fn follow(x: &mut [f32], origin: &[f32], negative: &[bool], step: f32, epsilon: f32) {
    for ((x, &o), &negative) in x.iter_mut().zip(origin).zip(negative) {
        let moved = *x + if negative { -step } else { step };
        *x = moved.clamp(o - epsilon, o + epsilon).clamp(0.0, 1.0);
    }
}

#[test]
fn the_victim_is_the_references() {
    let mut reference = Reference::open();
    let (victim, images) = (reference.victim(), reference.images());
    let got = logits(&victim, &images.x).unwrap().to_vec_f64();
    for (got, expected) in got.iter().zip(reference.arrays.get("clean_logits").values) {
        assert!((got - expected).abs() < 2e-5 * expected.abs().max(1.0), "{got} {expected}");
    }
    for (loss, scale) in [("ce", 1.0), ("bce", 1.0 / 20.0)] {
        let objectives = reference.objectives(loss);
        let got = of(&victim, &images.x, &Each(&objectives), 0.0);
        let expected = reference.arrays.get(&format!("grad_{loss}")).values;
        let most = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (got, expected) in got.iter().zip(expected) {
            assert!((got * scale - expected).abs() < 2e-5 * most, "{loss}: {got} {expected}");
        }
    }
}

#[test]
fn fgsm_takes_the_references_signs() {
    let mut reference = Reference::open();
    let (victim, images) = (reference.victim(), reference.images());
    let ball = EpsBall::linf(reference.number("epsilon"));
    for loss in ["ce", "bce", "target"] {
        let objectives = reference.objectives(loss);
        let got = of(&victim, &images.x, &Each(&objectives), 0.0);
        let negative = reference.bits(&format!("fgsm_{loss}_sign"), 0);
        let reliable = reference.bits(&format!("fgsm_{loss}_reliable"), 0);
        compare_signs(loss, 0, &got, &negative, &reliable, loss == "target");
        let x = Iterative::one_step(ball, &victim, &images, &Each(&objectives)).unwrap().x;
        let after = logits(&victim, &x).unwrap().to_vec_f64();
        for (got, expected) in
            after.iter().zip(reference.arrays.get(&format!("fgsm_{loss}_logits")).values)
        {
            assert!((got - expected).abs() < 2e-4 * expected.abs().max(1.0), "{loss}: {got} {expected}");
        }
    }
}

#[test]
fn pgd_and_mim_take_the_references_steps() {
    let mut reference = Reference::open();
    let (victim, images) = (reference.victim(), reference.images());
    let (epsilon, step) = (reference.number("epsilon"), reference.number("step"));
    let ball = EpsBall::linf(epsilon);
    let origin = images.x.as_slice::<f32>().unwrap().to_vec();
    let unit = hash_unit("attacks", "start");
    let start = |i: usize| origin[i] + (8.0 / 255.0 * (2.0 * unit(i) - 1.0)) as f32;
    let start: Vec<f32> = (0..N).map(|i| start(i).clamp(0.0, 1.0)).collect();
    for (name, loss) in
        [("pgd_ce", "ce"), ("pgd_target", "target"), ("pgd_bce", "bce"), ("mim_ce", "ce")]
    {
        let objectives = reference.objectives(loss);
        let mim = name == "mim_ce";
        let falls = loss == "target";
        let mut x = if mim { origin.clone() } else { start.clone() };
        let mut sum = vec![0.0f64; N];
        for s in 0..10 {
            let here = Tensor::from_slice(&x, images.x.shape()).unwrap();
            let mut got = of(&victim, &here, &Each(&objectives), 0.0);
            if mim {
                for (sum, got) in sum.chunks_mut(N / 4).zip(got.chunks_mut(N / 4)) {
                    let mean = got.iter().map(|g| g.abs()).sum::<f64>() / (N / 4) as f64;
                    sum.iter_mut().zip(got).for_each(|(sum, g)| {
                        *sum += *g / mean;
                        *g = *sum;
                    });
                }
            }
            let negative = reference.bits(&format!("{name}_sign"), s);
            let reliable = reference.bits(&format!("{name}_reliable"), s);
            compare_signs(name, s, &got, &negative, &reliable, falls);
            // Our own step is the reference's, to the bit, where the signs are.
            let signs: Vec<f32> =
                negative.iter().map(|&n| if n != falls { -1.0 } else { 1.0 }).collect();
            let signs = Tensor::from_slice(&signs, images.x.shape()).unwrap();
            let ours = ball.step(&here, &signs, &images.x, step).unwrap();
            let up: Vec<bool> = negative.iter().map(|&n| n != falls).collect();
            follow(&mut x, &origin, &up, step, epsilon);
            assert_eq!(ours.as_slice::<f32>().unwrap(), x);
        }
        let sum: f64 = x.iter().map(|&v| v as f64).sum();
        let expected = reference.json[name]["final_sum"].as_f64().unwrap();
        assert!((sum - expected).abs() < 1e-9 * expected, "{name}: {sum} {expected}");
    }
}

#[test]
fn mim_on_its_own_ends_where_the_reference_does() {
    let mut reference = Reference::open();
    let (victim, images) = (reference.victim(), reference.images());
    let objectives = reference.objectives("ce");
    let ball = EpsBall::linf(reference.number("epsilon"));
    let step = reference.number("step");
    // Never sure of itself, so that it takes all its steps; MIM's loss only rises here, so that its last
    // image is the best.
    let objectives: Vec<LabelObjective> =
        objectives.into_iter().map(|o| LabelObjective { margin: f32::INFINITY, ..o }).collect();
    let mim = Iterative { step, ..Iterative::mim(ball, 10) };
    let attacked = mim.perturb(&victim, &images, &Each(&objectives)).unwrap();
    let losses = reference.arrays.get("mim_ce_loss").values;
    for (i, status) in attacked.statuses.iter().enumerate() {
        let best = (0..=10).map(|s| losses[s * 4 + i]).fold(f64::NEG_INFINITY, f64::max);
        assert!((status.score - best).abs() < 1e-3 * best, "picture {i}: {} {best}", status.score);
    }
}

#[test]
fn pgd_in_l2_takes_the_references_steps() {
    let mut reference = Reference::open();
    let (victim, images) = (reference.victim(), reference.images());
    let objectives = reference.objectives("ce");
    let ball = EpsBall::l2(reference.number("l2_epsilon"));
    let size = reference.number("l2_step");
    let samples = reference.arrays.get("pgd_l2_ce_samples").values;
    let norms = reference.arrays.get("pgd_l2_ce_norm").values;
    let sums = reference.arrays.get("pgd_l2_ce_sum").values;
    let full = reference.arrays.get("pgd_l2_ce_full").f32();
    let origin = images.x.as_slice::<f32>().unwrap().to_vec();
    for (start, step) in [(&origin[..], 0), (&full[..N], 2), (&full[N..2 * N], 5)] {
        let x = Tensor::from_slice(start, images.x.shape()).unwrap();
        let g = ascent(&victim, &x, &[0, 1, 2, 3], &Each(&objectives), 0.0, None).unwrap().1;
        let y = ball.step(&x, &g, &images.x, size).unwrap();
        for (i, y) in y.as_slice::<f32>().unwrap().chunks_exact(N / 4).enumerate() {
            let o = &origin[i * N / 4..][..N / 4];
            for (j, at) in sample_positions(N / 4, 256).into_iter().enumerate() {
                let expected = samples[(step * 4 + i) * 256 + j];
                assert!((y[at] as f64 - expected).abs() < 2e-6, "step {step}: {} {expected}", y[at]);
            }
            let (norm, expected) = (Norm::L2.of(y, o), norms[step * 4 + i]);
            assert!((norm - expected).abs() < 1e-5, "step {step}: {norm} {expected}");
            for channel in 0..3 {
                let moved = |at: usize| y[at] as f64 - o[at] as f64;
                let sum: f64 = (channel..N / 4).step_by(3).map(moved).sum();
                assert!((sum - sums[(step * 4 + i) * 3 + channel]).abs() < 1e-3, "step {step}: {sum}");
            }
        }
    }
}

#[test]
fn deepfool_needs_as_little_as_the_reference() {
    let mut reference = Reference::open();
    let (victim, images) = (reference.victim(), reference.images());
    let (class, reached) = (reference.classes("class"), &reference.json["deepfool_mixed"]);
    let mut truth = vec![vec![false; 20]; 4];
    truth.iter_mut().zip(&class).for_each(|(truth, &class)| truth[class] = true);
    let objective = LabelObjective { truth, ..reference.objectives("ce").remove(0) };
    let deepfool = DeepFool { candidates: 19, ..DeepFool::default() };
    let attacked = deepfool.perturb(&victim, &images, &objective).unwrap();
    let after = logits(&victim, &attacked.x).unwrap().to_vec_f64();
    for (i, expected) in numbers(&reached["norm_overshoot"]).into_iter().enumerate() {
        let (a, b) = (attacked.x.as_slice::<f32>().unwrap(), images.x.as_slice::<f32>().unwrap());
        let part = i * N / 4..(i + 1) * N / 4;
        let norm = Norm::L2.of(&a[part.clone()], &b[part]);
        let row = &after[20 * i..][..20];
        let said = (0..20).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        println!("picture {i}: {norm:.6} beside {expected:.6}");
        assert!((norm / expected - 1.0).abs() < 0.05, "picture {i}: {norm} {expected}");
        assert_eq!(said as f64, numbers(&reached["class"])[i]);
    }
    // Sigmoids: away from all true labels.
    let each = reference.objectives("bce");
    let objective =
        LabelObjective { truth: each.iter().map(|o| o.truth[0].clone()).collect(), ..each[0].clone() };
    let attacked = DeepFool::default().perturb(&victim, &images, &objective).unwrap();
    let expected = &reference.json["labelfool"];
    for (i, norm) in numbers(&expected["norm_overshoot"]).into_iter().enumerate() {
        let part = i * N / 4..(i + 1) * N / 4;
        let (a, b) = (attacked.x.as_slice::<f32>().unwrap(), images.x.as_slice::<f32>().unwrap());
        let got = Norm::L2.of(&a[part.clone()], &b[part]);
        println!("picture {i}, all labels: {got:.4} beside {norm:.4}");
        assert!((got / norm - 1.0).abs() < 0.05, "picture {i}: {got} {norm}");
    }
}

#[test]
fn segpgd_takes_the_references_steps() {
    let mut reference = Reference::open();
    let victim = Network::new(&reference.model(true), Preprocess::Symmetric).unwrap();
    let images = reference.images();
    let labels = reference.arrays.get("seg_labels").u8();
    let truth = labels.chunks(SIDE * SIDE).map(|c| Mask::new(SIDE, SIDE, c.to_vec()).unwrap()).collect();
    let objective = MaskObjective::untargeted(truth, true);
    let (epsilon, step) = (reference.number("epsilon"), reference.number("step"));
    let origin = images.x.as_slice::<f32>().unwrap().to_vec();
    let mut x = origin.clone();
    let wrong = numbers(&reference.json["segpgd"]["wrong_pixels"]);
    let near = numbers(&reference.json["segpgd"]["pixels_within_1e-4"]);
    for s in 0..10 {
        let here = Tensor::from_slice(&x, images.x.shape()).unwrap();
        let got = of(&victim, &here, &objective, s as f32 / 10.0);
        let (negative, reliable) =
            (reference.bits("segpgd_sign", s), reference.bits("segpgd_reliable", s));
        compare_signs("segpgd", s, &got, &negative, &reliable, false);
        let said = logits(&victim, &here).unwrap();
        for (i, row) in said.as_slice::<f32>().unwrap().chunks_exact(SIDE * SIDE * 21).enumerate() {
            let got = objective.share(i, row) * (SIDE * SIDE) as f64;
            let (expected, slack) = (wrong[4 * s + i], near[4 * s + i]);
            assert!((got - expected).abs() <= slack + 1e-6, "step {s}, picture {i}: {got} {expected}");
        }
        follow(&mut x, &origin, &negative, step, epsilon);
    }
}

/// Keras' FGSM on MobileNetV2: both labels, and the notebook's label of zeros.
#[test]
fn fgsm_on_mobilenet_v2_is_kerass() {
    for folder in variants().into_iter().filter(|f| f.join("fgsm.json").is_file()) {
        let golden = json(folder.join("fgsm.json"));
        let mut arrays = Npz::open(folder.join("fgsm.npz"));
        let (config, tag) = (&golden["config"], text(&golden["seed_tag"]));
        let gains = Gains::of(config);
        let mut graph = mobilenet_v2(224, 20, Head::None).unwrap();
        let (pool, dense) =
            (Layer::GlobalAveragePooling2D, Layer::dense(20).with_activation(Activation::Softmax));
        graph.chain(graph.output(), [pool, dense]).unwrap();
        let model = Model::with(graph, |path, shape, _| {
            Tensor::from_slice(&fill(tag, path, &shape, &gains), shape).unwrap()
        });
        let victim = Network::as_it_is(&model, Preprocess::Symmetric).unwrap();
        // As attacks run it; its signs agree, but at ε = .28 the few that do not move a probability by .05.
        let folded = Network::new(&model, Preprocess::Symmetric).unwrap();
        let unit = hash_unit(tag, config["input_name"].as_str().unwrap_or("input"));
        let n = 224 * 224 * 3;
        // From [−1, 1] to [0, 1].
        let clean: Vec<f32> = (0..n).map(|i| ((2.0 * unit(i) - 1.0) as f32 + 1.0) / 2.0).collect();
        let x = Tensor::from_slice(&clean, [1, 224, 224, 3]).unwrap();
        let images = Images::whole(x);
        for label in ["top", "other", "seedzero"] {
            let mut truth = vec![false; 20];
            if label != "seedzero" {
                truth[golden["classes"][label].as_u64().unwrap() as usize] = true;
            }
            let objective = LabelObjective {
                truth: vec![truth],
                goal: Goal::Untargeted,
                exclusive: true,
                thresholds: vec![0.5; 20],
                margin: 0.0,
                all_classes: false,
            };
            let up = |i: usize, row: &[f32], up: &mut [f32]| objective.upstream(i, row, 0.0, up);
            let got = [&victim, &folded].map(|v| gradient(v, &images.x, up).unwrap().1.to_vec_f64());
            let bits = |name: &str, arrays: &mut Npz| -> Vec<bool> {
                let bytes = arrays.get(&format!("{label}_{name}")).values;
                (0..n).map(|i| (bytes[i / 8] as u8) & (0x80 >> (i % 8)) != 0).collect()
            };
            let negative = bits("sign_negative_bits", &mut arrays);
            let reliable = bits("reliable_bits", &mut arrays);
            for got in &got {
                let right = |wanted: &dyn Fn(usize) -> bool| {
                    let all: Vec<usize> = (0..n).filter(|&i| wanted(i)).collect();
                    let same = all.iter().filter(|&&i| (got[i] < 0.0) == negative[i]).count();
                    same as f64 / all.len() as f64
                };
                let (sure, all) = (right(&|i| reliable[i]), right(&|_| true));
                println!("{label}: {sure:.6} of the reliable signs, {all:.6} of all");
                assert!(sure >= 0.999 && all >= 0.995, "{label}: {sure} {all}");
            }
            let expected = arrays.get(&format!("{label}_adv_probs")).values;
            for (i, epsilon) in numbers(&golden["eps"]).into_iter().enumerate() {
                let ball = EpsBall::linf(epsilon as f32 / 2.0);
                let x = Attack::Fgsm(ball)
                    .perturb(&victim, &images, &AttackTarget::Labels(objective.clone()))
                    .unwrap()
                    .x;
                let row = logits(&victim, &x).unwrap().to_vec_f64();
                let sum: f64 = row.iter().map(|z| z.exp()).sum();
                for (z, expected) in row.iter().zip(&expected[20 * i..]) {
                    let p = z.exp() / sum;
                    assert!((p - expected).abs() < 2e-2, "{label} at {epsilon}: {p} {expected}");
                }
            }
        }
    }
}
