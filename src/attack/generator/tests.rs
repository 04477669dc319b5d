use super::*;
use crate::activation::Activation;
use crate::attack::masks::MaskObjective;
use crate::attack::objective::{Goal, LabelObjective};
use crate::attack::victim::Network;
use crate::backend::cpu::threads;
use crate::data::image::Preprocess;
use crate::data::synthetic::Synthetic;
use crate::data::{CLASSES, Labels, Mask};
use crate::eval::metrics::arg_max;
use crate::nn::Graph;
use crate::nn::layers::{Initializer, Layer};
use crate::random::{Stream, domain};
use crate::tensor::DType;
use std::ops::ControlFlow;

/// The ε of every generator in these tests.
pub(super) const ABOUT: Words = Words { victim: "a small network", goal: "dog" };

#[derive(Clone, Copy)]
pub(super) struct Words {
    victim: &'static str,
    goal: &'static str,
}

impl From<Words> for About {
    fn from(words: Words) -> About {
        About { fit: Fit::Pad, victim: words.victim.into(), goal: words.goal.into() }
    }
}

/// Made up, with something around each of them.
pub(super) fn images(side: usize, n: usize) -> Images {
    Images::of(&Synthetic::train(1, n), &(0..n).collect::<Vec<_>>(), side, Fit::Pad).unwrap()
}

fn generator(side: usize, epsilon: f32) -> Generator {
    Generator::new(side, EpsBall::linf(epsilon), ABOUT.into(), 5).unwrap()
}

const SIDE: usize = 22;

/// A classifier, or a network for masks, with weights as they start.
fn network(segments: bool) -> Model {
    let mut g = Graph::new("small", "input", [SIDE, SIDE, 3]);
    let relu = |layer: Layer| layer.with_activation(Activation::Relu);
    let body = [relu(Layer::conv2d(8, 5).with_padding(ops::Padding::Same))];
    let x = g.chain(g.input(), body).unwrap();
    match segments {
        true => g.chain(x, [Layer::conv2d(4, 1)]).unwrap(),
        false => {
            let dense = Layer::dense(CLASSES.len()).with_activation(Activation::Softmax);
            g.chain(x, [relu(Layer::conv2d(8, 4).with_stride(4)), Layer::Flatten, dense]).unwrap()
        }
    };
    Model::with(g, |path, shape, _| match path.ends_with("bias") {
        true => Tensor::zeros(shape),
        false => Initializer::GlorotUniform.fill(shape, 2, path),
    })
}

fn victim(segments: bool) -> Network {
    Network::new(&network(segments), Preprocess::Symmetric).unwrap()
}

/// What the victim says is the truth.
fn objective(victim: &dyn Victim, images: &Images) -> LabelObjective {
    let logits = victim::logits(victim, &images.x).unwrap();
    let truth = logits.values::<f32>().chunks_exact(CLASSES.len()).map(|row| {
        let mut labels: Labels = vec![false; CLASSES.len()];
        labels[arg_max(row)] = true;
        labels
    });
    LabelObjective {
        truth: truth.collect(),
        goal: Goal::Untargeted,
        exclusive: true,
        thresholds: vec![0.5; CLASSES.len()],
        margin: 0.0,
        all_classes: false,
    }
}

/// Trains against [`network`]; gives the last step's progress.
fn train(training: Training, generator: &mut Generator, segments: bool, all: &Images) -> Progress {
    let victim = victim(segments);
    let batch = |indices: &[usize]| {
        let images = all.some(indices).unwrap();
        let objective: Box<dyn Objective> = match segments {
            false => Box::new(objective(&victim, &images)),
            true => Box::new(masks(&victim, &images)),
        };
        Ok((images, objective))
    };
    let mut last = None;
    let watch = |progress: &Progress| {
        last = Some(*progress);
        ControlFlow::Continue(())
    };
    let steps = training.run(generator, &victim, all.len(), batch, watch).unwrap();
    assert_eq!(steps, training.steps);
    last.unwrap()
}

fn masks(victim: &dyn Victim, images: &Images) -> MaskObjective {
    let logits = victim::logits(victim, &images.x).unwrap();
    let classes: Vec<u8> =
        logits.values::<f32>().chunks_exact(4).map(|row| arg_max(row) as u8).collect();
    let masks = classes.chunks_exact(SIDE * SIDE).map(|c| Mask::new(SIDE, SIDE, c.to_vec()).unwrap());
    MaskObjective::untargeted(masks.collect(), false)
}

#[test]
fn a_perturbation_stays_in_the_ball_in_range_and_inside_its_image() {
    let images = images(37, 4);
    let inside = images.inside.as_ref().unwrap().values::<f32>();
    for epsilon in [0.0, 2.0 / 255.0, 0.1, 1.0] {
        let mut generator = generator(37, epsilon);
        for parameter in &mut generator.model.parameters {
            parameter.value = ops::scale(&parameter.value, 3.0).unwrap();
        }
        let y = generator.perturb(&images).unwrap();
        let mut changed = 0;
        for ((&y, &x), &inside) in y.values::<f32>().iter().zip(images.x.values::<f32>()).zip(inside) {
            // As every attack's: what f32 has for x ± ε.
            assert!((x - epsilon..=x + epsilon).contains(&y), "{epsilon}: {x} {y}");
            assert!((0.0..=1.0).contains(&y) && (inside == 1.0 || y == x));
            changed += (y != x) as usize;
        }
        assert_eq!(changed > y.shape().elements() / 4, epsilon > 0.0, "{epsilon}: {changed}");
    }
}

#[test]
fn a_image_is_perturbed_alike_in_any_batch() {
    let (all, generator) = (images(SIDE, 3), generator(SIDE, 0.1));
    let together = generator.perturb(&all).unwrap();
    let alone = generator.perturb(&all.some(&[1]).unwrap()).unwrap();
    let each = alone.shape().elements();
    assert_eq!(together.values::<f32>()[each..2 * each], *alone.values::<f32>());
}

#[test]
fn what_does_not_fit_is_refused() {
    let about = || About::from(ABOUT);
    for epsilon in [f32::NAN, -1.0, f32::INFINITY] {
        let error = Generator::new(SIDE, EpsBall::linf(epsilon), about(), 0).err().unwrap().to_string();
        assert!(error.contains("epsilon"), "{error}");
    }
    let error = Generator::new(SIDE, EpsBall::l2(1.0), about(), 0).err().unwrap().to_string();
    assert!(error.contains("not `l2`"), "{error}");
    assert!(Generator::of(network(false), EpsBall::linf(0.1), about()).is_err());
    let mut other = generator(SIDE + 1, 0.1);
    let (images, victim) = (images(SIDE, 1), victim(false));
    let error = other.perturb(&images).unwrap_err().to_string();
    assert!(error.contains("expected pictures of side 23, got 22"), "{error}");
    let objective = objective(&victim, &images);
    let error = other.attack(&victim, &images, &objective).err().unwrap().to_string();
    assert!(error.contains("expected a victim of side 23, got 22"), "{error}");
    let never = |_: &[usize]| -> Result<(Images, Box<dyn Objective>)> { panic!("no batch is needed") };
    let go = |_: &Progress| ControlFlow::Continue(());
    let training = Training::default();
    assert!(training.run(&mut other, &victim, 1, never, go).is_err());
    let mut fitting = generator(SIDE, 0.1);
    assert!(training.run(&mut fitting, &victim, 0, never, go).is_err());
    let none = Training { steps: 0, ..training };
    assert!(none.run(&mut fitting, &victim, 1, never, go).is_err());
    let no_number = Training { visibility: f32::NAN, ..training };
    assert!(no_number.run(&mut fitting, &victim, 1, never, go).is_err());
    assert!(training.run(&mut generator(SIDE, 0.0), &victim, 1, never, go).is_err());
}

/// The network's weights are as they began, so that its classes mean nothing and little carries over to
/// other images.
#[test]
fn a_trained_generator_beats_noise() {
    let epsilon = 16.0 / 255.0;
    let (all, victim) = (images(SIDE, 48), victim(false));
    let (seen, unseen): (Vec<_>, Vec<_>) = ((0..32).collect(), (32..48).collect());
    let (seen, unseen) = (all.some(&seen).unwrap(), all.some(&unseen).unwrap());
    let mut generator = generator(SIDE, epsilon);
    let training = Training { steps: 200, batch: 8, ..Training::default() };
    let last = train(training, &mut generator, false, &seen);
    assert_eq!((last.step, last.steps, generator.steps), (200, 200, 200));
    assert!(last.change > 0.1 && last.change <= 1.0, "{last:?}");
    // Noise at its strongest: ±ε. Share that errs, and mean loss.
    let figures = |images: &Images| {
        let objective = objective(&victim, images);
        let of = |statuses: &[crate::attack::AttackStatus]| {
            let reached = statuses.iter().filter(|status| status.reached).count() as f64;
            let score = statuses.iter().map(|status| status.score).sum::<f64>();
            [reached, score].map(|sum| sum / statuses.len() as f64)
        };
        let mut stream = Stream::new(1, &[domain::TEST]);
        let noisy = images.x.values::<f32>().iter().map(|x| {
            let change = if stream.unit() < 0.5 { -epsilon } else { epsilon };
            (x + change).clamp(0.0, 1.0)
        });
        let noisy = Tensor::from_slice(&noisy.collect::<Vec<f32>>(), images.x.shape()).unwrap();
        let ours = generator.attack(&victim, images, &objective).unwrap();
        [of(&ours.statuses), of(&victim::statuses(&victim, &noisy, &objective).unwrap())]
    };
    let ([[ours, score], [noise, noise_score]], other) = (figures(&seen), figures(&unseen));
    println!("{ours} {score} beside {noise} {noise_score}; {other:?} of others");
    assert!(ours >= noise + 0.3 && score > noise_score, "{ours} {score} beside {noise} {noise_score}");
    assert!(other[0][1] > other[1][1], "{other:?}");
}

#[test]
fn a_penalty_makes_a_perturbation_smaller() {
    let all = images(SIDE, 16);
    let change = |visibility: f32| {
        let training = Training { steps: 30, batch: 8, visibility, ..Training::default() };
        train(training, &mut generator(SIDE, 8.0 / 255.0), false, &all).change
    };
    let (none, much) = (change(0.0), change(5.0));
    assert!(much < 0.6 * none, "{none} {much}");
}

#[test]
fn masks_are_led_astray_too() {
    let all = images(SIDE, 16);
    let training = Training { steps: 40, batch: 8, ..Training::default() };
    let mut generator = generator(SIDE, 8.0 / 255.0);
    let victim = victim(true);
    let objective = masks(&victim, &all);
    let share = |generator: &Generator| {
        let logits = victim::logits(&victim, &generator.perturb(&all).unwrap()).unwrap();
        let rows = logits.values::<f32>().chunks_exact(SIDE * SIDE * 4).enumerate();
        rows.map(|(i, row)| objective.share(i, row)).sum::<f64>() / 16.0
    };
    let before = share(&generator);
    train(training, &mut generator, true, &all);
    let after = share(&generator);
    assert!(after > 1.5 * before && after > before + 0.05, "{before} {after}");
}

#[test]
fn training_is_the_same_at_any_thread_count_and_another_under_another_seed() {
    let all = images(SIDE, 12);
    let run = |seed: u64| {
        let mut generator = generator(SIDE, 0.1);
        train(Training { steps: 4, batch: 5, seed, ..Training::default() }, &mut generator, false, &all);
        generator.model.parameters.iter().flat_map(|p| p.value.to_vec_f64()).collect::<Vec<f64>>()
    };
    let one = threads::with(1, || run(1)).unwrap();
    assert_eq!(one, threads::with(3, || run(1)).unwrap());
    assert_ne!(one, run(2));
}

#[test]
fn whoever_watches_may_end_it() {
    let (all, victim) = (images(SIDE, 5), victim(false));
    let mut generator = generator(SIDE, 0.1);
    let mut seen = Vec::new();
    let batch = |indices: &[usize]| {
        seen.extend_from_slice(indices);
        let images = all.some(indices).unwrap();
        let objective: Box<dyn Objective> = Box::new(objective(&victim, &images));
        Ok((images, objective))
    };
    let watch = |progress: &Progress| match progress.step {
        3 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let training = Training { batch: 2, ..Training::default() };
    assert_eq!(training.run(&mut generator, &victim, 5, batch, watch).unwrap(), 3);
    assert_eq!(generator.steps, 3);
    // Each image once, before any comes twice.
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

/// A network in f64.
struct Exact(Model);

impl Victim for Exact {
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.0.run(x, Mode::infer())?.logits)
    }

    fn side(&self) -> usize {
        SIDE
    }

    fn device(&self) -> Device {
        Device::Cpu
    }

    fn exclusive(&self) -> bool {
        true
    }
}

#[test]
fn a_steps_gradients_are_those_of_the_loss() {
    let (ball, images) = (EpsBall::linf(0.1), images(SIDE, 2));
    let victim = Exact(network(false).to_dtype(DType::F64));
    let objective = objective(&super::tests::victim(false), &images);
    let training = Training { normalized: false, visibility: 0.7, reached: 1.0, ..Training::default() };
    let (x, inside) = (
        images.x.to_dtype(DType::F64),
        images.inside.as_ref().map(|inside| inside.to_dtype(DType::F64)),
    );
    let own: Vec<f64> = {
        let inside = images.inside.as_ref().unwrap().to_vec_f64();
        inside.chunks_exact(SIDE * SIDE * 3).map(|inside| inside.iter().sum()).collect()
    };
    // The loss as it is written, with nothing of the step in it.
    let loss = |model: &Model| {
        let (y, _) = no_grad(|| perturbed(model, ball, &x, inside.as_ref(), Mode::infer())).unwrap();
        let logits = no_grad(|| victim.logits(&y)).unwrap().to_vec_f64();
        let (y, x) = (y.to_vec_f64(), x.to_vec_f64());
        let each = SIDE * SIDE * 3;
        let of = |i: usize| {
            let row = &logits[i * CLASSES.len()..][..CLASSES.len()];
            let class = objective.truth[i].iter().position(|&set| set).unwrap();
            let cross_entropy = row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[class];
            let squares: f64 = (i * each..(i + 1) * each).map(|k| (y[k] - x[k]).powi(2)).sum();
            -cross_entropy
                + training.visibility as f64 * squares / (own[i] * 0.1f32 as f64 * 0.1f32 as f64)
        };
        (of(0) + of(1)) / 2.0
    };
    let model = generator(SIDE, 0.1).model.to_dtype(DType::F64);
    let found = training.step(&model, ball, &victim, &images, &objective, 0.0).unwrap();
    for (k, (parameter, gradient)) in model.parameters.iter().zip(&found.gradients).enumerate() {
        // Along the gradient the loss rises by the gradient's length.
        let gradient = gradient.as_ref().unwrap();
        let length = gradient.to_vec_f64().iter().map(|g| g * g).sum::<f64>().sqrt();
        let at = |h: f64| {
            let mut moved = model.clone();
            let step = ops::scale(gradient, h / length).unwrap();
            moved.parameters[k].value = ops::add(&parameter.value, &step).unwrap();
            loss(&moved)
        };
        let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!((slope - length).abs() < 1e-4 * length, "{}: {slope} {length}", parameter.path);
    }
}
