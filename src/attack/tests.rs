//! All attacks, on a small network and images that are made up.

use super::masks::MaskObjective;
use super::trial::{self, Attack, AttackTarget, VictimOutput};
use super::*;
use crate::activation::Activation;
use crate::data::image::{Fit, Preprocess, fit_mask};
use crate::data::synthetic::Synthetic;
use crate::data::{Dataset, VOID};
use crate::nn::layers::Layer;
use crate::nn::{Graph, Model};
use crate::ops::Padding;
use crate::random::{Stream, domain};
use crate::tensor::Tensor;
use proptest::prelude::*;

const SIDE: usize = 24;

/// A network of 20 classes with weights at random, made to tell the images it is given apart a little.
fn network(activation: Activation, seed: u64) -> Network {
    let mut g = Graph::new("victim", "input", [SIDE, SIDE, 3]);
    let conv = |filters| {
        Layer::conv2d(filters, 3).with_padding(Padding::Same).with_activation(Activation::Relu)
    };
    let last = Layer::dense(20).with_activation(activation);
    g.chain(
        g.input(),
        [
            conv(8),
            Layer::max_pooling2d(2),
            conv(16),
            Layer::batch_normalization(),
            Layer::GlobalAveragePooling2D,
            last,
        ],
    )
    .unwrap();
    let scale = |tensor: Tensor, by| crate::ops::scale(&tensor, by).unwrap();
    let model = Model::with(g, |path, shape, initializer| {
        let values = initializer.fill(shape, seed, path);
        if path.ends_with("dense/kernel") { scale(values, 6.0) } else { scale(values, 1.5) }
    });
    Network::new(&model, Preprocess::Symmetric).unwrap()
}

fn images(indices: &[usize]) -> Images {
    Images::of(&Synthetic::train(5, 64), indices, SIDE, Fit::Pad).unwrap()
}

/// Away from what the network says of the images as they are.
fn away(victim: &Network, images: &Images) -> LabelObjective {
    let mut objective = LabelObjective {
        truth: vec![vec![false; 20]; images.len()],
        goal: Goal::Untargeted,
        exclusive: victim.exclusive(),
        thresholds: vec![0.5; 20],
        margin: 0.0,
        all_classes: false,
    };
    let logits = logits(victim, &images.x).unwrap();
    for (truth, row) in objective.truth.iter_mut().zip(logits.values::<f32>().chunks_exact(20)) {
        truth[crate::eval::metrics::arg_max(row)] = true;
    }
    objective
}

fn all(ball: EpsBall) -> Vec<Attack> {
    let mut attacks = vec![
        Attack::Fgsm(ball),
        Attack::Iterative(Iterative::pgd(ball, 6)),
        Attack::Iterative(Iterative::mim(ball, 6)),
    ];
    if ball.norm == Norm::Linf {
        attacks.push(Attack::Square(Square::new(ball, 30)));
    }
    attacks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_attack_leaves_its_ball_or_the_range_of_images(
        epsilon in 0f32..0.4,
        l2 in any::<bool>(),
        softmax in any::<bool>(),
        first in 0usize..60,
        count in 1usize..4,
        target in proptest::option::of(0usize..20),
    ) {
        let norm = if l2 { Norm::L2 } else { Norm::Linf };
        let ball = EpsBall { norm, epsilon: if l2 { epsilon * 10.0 } else { epsilon } };
        let victim = network(if softmax { Activation::Softmax } else { Activation::Sigmoid }, 1);
        let indices: Vec<usize> = (first..first + count).collect();
        let images = images(&indices);
        let mut objective = away(&victim, &images);
        if let Some(class) = target {
            objective.goal = Goal::Targeted(class);
        }
        for attack in all(ball) {
            let x = attack.perturb(&victim, &images, &AttackTarget::Labels(objective.clone())).unwrap().x;
            let after = images.with(x);
            for i in 0..images.len() {
                let (x, origin) = (after.values(i), images.values(i));
                prop_assert!(x.iter().all(|v| (0.0..=1.0).contains(v)));
                // Beyond ε by no more than the rounding of numbers near 1.
                let far = norm.of(x, origin);
                let most = ball.epsilon as f64 * (1.0 + 1e-5) + 1e-6;
                prop_assert!(far <= most, "{attack:?}: {far} of {}", ball.epsilon);
                if let Some(inside) = &images.inside {
                    let around = inside.values::<f32>()[i * x.len()..].iter().zip(x.iter().zip(origin));
                    prop_assert!(around.into_iter().all(|(&inside, (x, o))| inside > 0.0 || x == o));
                }
            }
        }
    }
}

#[test]
fn what_is_told_of_a_image_is_what_the_network_says_of_it() {
    for activation in [Activation::Softmax, Activation::Sigmoid] {
        let victim = network(activation, 2);
        let images = images(&[0, 1, 2, 3, 4]);
        let objective = away(&victim, &images);
        for attack in all(EpsBall::linf(0.1)) {
            let attacked =
                attack.perturb(&victim, &images, &AttackTarget::Labels(objective.clone())).unwrap();
            let again = statuses(&victim, &attacked.x, &objective).unwrap();
            for (told, again) in attacked.statuses.iter().zip(&again) {
                assert_eq!(told.reached, again.reached);
                assert!((told.score - again.score).abs() < 1e-4, "{told:?} {again:?}");
            }
        }
    }
}

/// How many of the images an attack fools; each is told of on its own.
fn fooled(attack: &Attack, victim: &Network, images: &Images, objective: &LabelObjective) -> Vec<bool> {
    let attacked = attack.perturb(victim, images, &AttackTarget::Labels(objective.clone())).unwrap();
    attacked.statuses.iter().map(|status| status.reached).collect()
}

#[test]
fn pgd_fools_whatever_fgsm_fools_and_goes_further() {
    let victim = network(Activation::Softmax, 3);
    let images = images(&(0..32).collect::<Vec<_>>());
    let objective = away(&victim, &images);
    let (mut further, mut resisting) = (0, 0);
    for levels in [0.5, 1.0, 2.0, 4.0, 8.0] {
        for ball in [EpsBall::linf(levels / 255.0), EpsBall::l2(levels / 25.0)] {
            let of = |attack: Attack| {
                attack
                    .perturb(&victim, &images, &AttackTarget::Labels(objective.clone()))
                    .unwrap()
                    .statuses
            };
            let fgsm = of(Attack::Fgsm(ball));
            let pgd = of(Attack::Iterative(Iterative::pgd(ball, 10)));
            for (fgsm, pgd) in fgsm.iter().zip(&pgd) {
                assert!(pgd.reached || !fgsm.reached);
                if !pgd.reached {
                    assert!(pgd.score >= fgsm.score);
                    resisting += 1;
                    further += (pgd.score > fgsm.score) as usize;
                }
            }
        }
    }
    assert!(resisting > 20 && further * 2 > resisting, "{further} of {resisting}");
}

#[test]
fn a_images_perturbation_does_not_depend_on_its_batch() {
    let victim = network(Activation::Sigmoid, 4);
    let together = images(&[3, 4, 5, 6]);
    let objective = away(&victim, &together);
    let alone = images(&[5]);
    let own = LabelObjective { truth: vec![objective.truth[2].clone()], ..objective.clone() };
    for attack in all(EpsBall::linf(6.0 / 255.0)) {
        let a = attack.perturb(&victim, &together, &AttackTarget::Labels(objective.clone())).unwrap();
        let b = attack.perturb(&victim, &alone, &AttackTarget::Labels(own.clone())).unwrap();
        assert!(together.with(a.x).values(2) == b.x.values::<f32>(), "{attack:?}");
    }
}

#[test]
fn what_a_network_says_of_a_image_does_not_depend_on_its_batch() {
    use crate::models;
    let graphs = [
        (models::alexnet(118, 20), 118),
        (models::mobilenet_v2(64, 20, models::Head::Pooled), 64),
        (models::deeplab_v3_plus(64, 21), 64),
    ];
    for (graph, side) in graphs {
        let model = Model::new(graph.unwrap(), 3);
        let victim = Network::new(&model, Preprocess::Symmetric).unwrap();
        let all: Vec<usize> = (0..5).collect();
        let data = Synthetic::train(2, 8);
        let together = Images::of(&data, &all, side, Fit::Stretch).unwrap();
        let upstream = |_: usize, logits: &[f32], up: &mut [f32]| {
            up.iter_mut().zip(logits).enumerate().for_each(|(i, (up, z))| *up = (z + i as f32).sin());
        };
        let parts = |tensor: &Tensor| -> Vec<Vec<f32>> {
            let values = tensor.values::<f32>();
            values.chunks_exact(values.len() / tensor.shape()[0]).map(<[f32]>::to_vec).collect()
        };
        let (logits, gradient) = victim::gradient(&victim, &together.x, upstream).unwrap();
        let (logits, gradient) = (parts(&logits), parts(&gradient));
        for some in [&all[..1], &all[2..3], &all[1..3], &all[2..5]] {
            let x = together.some(some).unwrap().x;
            let (own_logits, own) = victim::gradient(&victim, &x, upstream).unwrap();
            let name = &model.graph.name;
            assert!(parts(&own_logits) == logits[some[0]..][..some.len()], "{name} {some:?}");
            assert!(parts(&own) == gradient[some[0]..][..some.len()], "{name} {some:?}");
        }
    }
}

/// An image that was right before; `reached` tells whether it was led astray.
fn made(index: usize, reached: bool) -> AttackResult {
    let seen = |reached: bool| VictimOutput {
        status: AttackStatus { reached, sure: reached, score: 0.0 },
        said: vec![false; 20],
        probabilities: vec![0.5; 20],
        mask: None,
        led: reached as u8 as f64,
        kept: 1.0,
    };
    let image = crate::data::Image::new(1, 1, vec![9; 3]).unwrap();
    AttackResult {
        index,
        before: seen(false),
        after: seen(reached),
        rounded: seen(reached),
        visible: Visibility { linf: 0.1, l2: 1.0, psnr: None, ssim: 1.0 },
        seconds: 0.0,
        original: image.clone(),
        perturbed: image,
    }
}

#[test]
fn the_best_so_far_never_rises_beside_figures_that_do() {
    let data = Synthetic::train(5, 8);
    let mut so_far = SoFar::default();
    // A larger ε fools fewer images, and the next one others.
    let rising = [[true, false, false], [false, false, false], [false, true, true]];
    let mut told = Vec::new();
    for reached in rising {
        let trials: Vec<AttackResult> = (0..3).map(|i| made(i, reached[i])).collect();
        let alone = Summary::of(&trials, &SoFar::default(), &data, Fit::Pad).unwrap();
        let listed = Summary::of(&trials, &so_far, &data, Fit::Pad).unwrap();
        assert_eq!(
            (alone.robust, alone.success, alone.led),
            (listed.robust, listed.success, listed.led)
        );
        assert_eq!((alone.robust_so_far, alone.led_so_far), (alone.robust, alone.led));
        let thirds = |share: Option<f64>| (3.0 * share.unwrap()).round() as usize;
        told.push((thirds(listed.robust), thirds(listed.robust_so_far), thirds(listed.success_so_far)));
        so_far.add(&trials);
    }
    assert_eq!(told, [(2, 2, 1), (3, 2, 1), (1, 0, 3)]);
}

#[test]
fn a_network_whose_logits_are_no_numbers_is_not_attacked() {
    let mut g = Graph::new("broken", "input", [SIDE, SIDE, 3]);
    let last = Layer::dense(20).with_activation(Activation::Sigmoid);
    g.chain(g.input(), [Layer::GlobalAveragePooling2D, last]).unwrap();
    let images = images(&[0, 1]);
    for value in [f32::NAN, f32::INFINITY] {
        let model = Model::with(g.clone(), |path, shape, _| match path.ends_with("bias") {
            true => Tensor::full(shape, value),
            false => Tensor::zeros(shape),
        });
        let victim = Network::new(&model, Preprocess::Unit).unwrap();
        let objective = LabelObjective {
            truth: vec![vec![true; 20]; 2],
            goal: Goal::Untargeted,
            exclusive: false,
            thresholds: vec![0.5; 20],
            margin: 0.0,
            all_classes: false,
        };
        let mut attacks = all(EpsBall::linf(0.1));
        attacks.push(Attack::DeepFool(DeepFool::default()));
        attacks.push(Attack::Universal(Universal::new(EpsBall::linf(0.1), SIDE).unwrap()));
        for attack in attacks {
            let aim = AttackTarget::Labels(objective.clone());
            let error = attack.perturb(&victim, &images, &aim).err().unwrap().to_string();
            // (The universal one takes image after image.)
            assert!(error.contains("the logits of `broken` are not finite ("), "{error}");
        }
        assert!(trial::seen(&victim, &images.x, &AttackTarget::Labels(objective.clone())).is_err());
    }
}

#[test]
fn deepfool_finds_the_nearest_point_of_a_plane() {
    // A linear network: logits = W·mean(x), whose boundary is known.
    let mut g = Graph::new("linear", "input", [4, 4, 3]);
    g.chain(
        g.input(),
        [Layer::GlobalAveragePooling2D, Layer::dense(20).with_activation(Activation::Softmax)],
    )
    .unwrap();
    let mut stream = Stream::new(9, &[domain::TEST]);
    let model = Model::with(g, |path, shape, _| {
        let values: Vec<f32> = (0..shape.elements()).map(|_| stream.normal()).collect();
        if path.ends_with("bias") {
            Tensor::zeros(shape)
        } else {
            Tensor::from_slice(&values, shape).unwrap()
        }
    });
    let victim = Network::new(&model, Preprocess::Unit).unwrap();
    let x: Vec<f32> = (0..16).flat_map(|i| [0.5, 0.3 + 0.01 * i as f32, 0.6]).collect();
    let images = Images::whole(Tensor::from_slice(&x, [1, 4, 4, 3]).unwrap());
    let objective = away(&victim, &images);
    let deepfool = DeepFool { candidates: 19, ..DeepFool::default() };
    let attacked = deepfool.perturb(&victim, &images, &objective).unwrap();
    assert!(attacked.statuses[0].reached);
    // Each of the 16 pixels has a share of 1/16 in the mean: ‖∂z/∂x‖ = ‖w‖/4.
    let z = logits(&victim, &images.x).unwrap();
    let z = z.values::<f32>();
    let now = crate::eval::metrics::arg_max(z);
    let kernel = model.parameter("dense/kernel").unwrap().value.to_vec_f64();
    let w = |class: usize| [0, 1, 2].map(|c| kernel[c * 20 + class]);
    let distance = |class: usize| {
        let (a, b) = (w(now), w(class));
        let length = (0..3).map(|c| (a[c] - b[c]).powi(2)).sum::<f64>().sqrt() / 4.0;
        (z[now] - z[class]) as f64 / length
    };
    let nearest = (0..20).filter(|&class| class != now).map(distance).fold(f64::INFINITY, f64::min);
    let found = Norm::L2.of(attacked.x.values(), &x);
    assert!((found / nearest - 1.02).abs() < 5e-3, "{found} {nearest}");
}

#[test]
fn deepfool_needs_less_than_pgd_gives() {
    for activation in [Activation::Softmax, Activation::Sigmoid] {
        let victim = network(activation, 6);
        let images = images(&(0..12).collect::<Vec<_>>());
        let objective = away(&victim, &images);
        let attacked = DeepFool::default().perturb(&victim, &images, &objective).unwrap();
        let after = images.with(attacked.x);
        assert!(attacked.statuses.iter().filter(|s| s.reached).count() >= 11);
        for i in 0..images.len() {
            let length = Norm::L2.of(after.values(i), images.values(i)) as f32;
            let half = Attack::Iterative(Iterative::pgd(EpsBall::l2(length * 0.5), 20));
            let one = images.some(&[i]).unwrap();
            let own = LabelObjective { truth: vec![objective.truth[i].clone()], ..objective.clone() };
            assert!(!attacked.statuses[i].reached || !fooled(&half, &victim, &one, &own)[0], "{length}");
        }
    }
}

#[test]
fn the_square_attack_and_the_universal_one_beat_noise_of_their_size() {
    let victim = network(Activation::Softmax, 7);
    let images = images(&(0..24).collect::<Vec<_>>());
    let objective = away(&victim, &images);
    let ball = EpsBall::linf(10.0 / 255.0);
    let count = |flags: Vec<bool>| flags.into_iter().filter(|&f| f).count();
    let mut stream = Stream::new(1, &[domain::TEST]);
    let noise: Vec<f32> = (0..images.len())
        .flat_map(|i| {
            let mut x = images.values(i).to_vec();
            x.iter_mut()
                .for_each(|v| *v += if stream.unit() < 0.5 { -ball.epsilon } else { ball.epsilon });
            ball.project(&mut x, images.values(i));
            x
        })
        .collect();
    let noise = Tensor::from_slice(&noise, images.x.shape()).unwrap();
    let noise = statuses(&victim, &noise, &objective).unwrap().iter().filter(|s| s.reached).count();
    let square = count(fooled(&Attack::Square(Square::new(ball, 400)), &victim, &images, &objective));
    let mut universal = Universal::new(ball, SIDE).unwrap();
    for _ in 0..20 {
        universal.step(&victim, &images, &objective, ball.epsilon / 5.0).unwrap();
    }
    assert!(universal.delta().iter().all(|d| d.abs() <= ball.epsilon));
    let universal = count(fooled(&Attack::Universal(universal), &victim, &images, &objective));
    assert!(square > noise + 4 && universal > noise + 4, "{noise} {square} {universal}");
}

#[test]
fn a_mask_follows_a_wish_and_errs_more_with_more_epsilon() {
    let mut g = Graph::new("masks", "input", [32, 32, 3]);
    let conv = |filters, kernel| Layer::conv2d(filters, kernel).with_padding(Padding::Same);
    let relu = Layer::Activation(Activation::Relu);
    let features = [conv(8, 3), relu, Layer::max_pooling2d(2), conv(16, 3), relu];
    g.chain(g.input(), features.into_iter().chain([conv(21, 1), Layer::UpSampling2D([2; 2])])).unwrap();
    let model = Model::new(g, 3);
    let victim = Network::new(&model, Preprocess::Symmetric).unwrap();
    let data = Synthetic::train(2, 8);
    let images = Images::of(&data, &[0, 1], 32, Fit::Stretch).unwrap();
    let truth = |i| fit_mask(&data.mask(i).unwrap().unwrap(), 32, Fit::Stretch, VOID).unwrap();
    let now: Vec<_> = {
        let aim = AttackTarget::Masks(MaskObjective::untargeted(vec![truth(0), truth(1)], false));
        let seen = trial::seen(&victim, &images.x, &aim).unwrap();
        seen.into_iter().map(|seen| seen.mask.unwrap()).collect()
    };
    let from = now[0].classes[300];
    let to = (from + 3) % 21;
    let wish = MaskObjective::turn(now.clone(), from, to).unwrap();
    let before = statuses(&victim, &images.x, &wish).unwrap();
    let ball = EpsBall::linf(16.0 / 255.0);
    let pgd = Attack::Iterative(Iterative { restarts: 0, ..Iterative::pgd(ball, 10) });
    let after = pgd.perturb(&victim, &images, &AttackTarget::Masks(wish)).unwrap();
    assert!(
        after.statuses.iter().zip(&before).any(|(a, b)| a.score > b.score + 0.05),
        "{before:?} {:?}",
        after.statuses
    );
    let away = MaskObjective::untargeted(now, true);
    let mut last = -1.0;
    for levels in [0.0, 2.0, 16.0] {
        let ball = EpsBall::linf(levels / 255.0);
        let segpgd = Attack::Iterative(Iterative { restarts: 0, ..Iterative::pgd(ball, 10) });
        let attacked = segpgd.perturb(&victim, &images, &AttackTarget::Masks(away.clone())).unwrap();
        let score = attacked.statuses.iter().map(|s| s.score).sum::<f64>();
        assert!(score > last, "{levels}: {score} {last}");
        last = score;
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let victim = network(Activation::Softmax, 1);
    let images = images(&[0]);
    let aim = AttackTarget::Labels(away(&victim, &images));
    for epsilon in [-0.1, f32::NAN, f32::INFINITY] {
        for attack in all(EpsBall::linf(epsilon)) {
            let error = attack.perturb(&victim, &images, &aim).err().unwrap().to_string();
            assert!(error.contains("epsilon") || error.contains("expected"), "{error}");
        }
    }
    let none = Iterative { steps: 0, ..Iterative::pgd(EpsBall::linf(0.1), 1) };
    assert!(Attack::Iterative(none).perturb(&victim, &images, &aim).is_err());
    assert!(Attack::Square(Square::new(EpsBall::l2(0.1), 5)).perturb(&victim, &images, &aim).is_err());
    assert!(Universal::new(EpsBall::l2(1.0), 8).is_err());
    assert!("l1".parse::<Norm>().unwrap_err().to_string().contains("`linf`, `l2`"));
}
