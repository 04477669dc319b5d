//! Defensive distillation (Papernot et al., IEEE S&P 2016): a student of what a teacher says, trained
//! hot and used cold.
//!
//! In training the student's logits z are divided by a temperature T, and softmax(z/T) (or a sigmoid
//! each) is to be the teacher's probabilities: Σ −p_c ln softmax(z/T)_c. So z grows to T times what says
//! the same at a temperature of 1, where it is used: probabilities of nearly 0 and 1, whose gradient is
//! 0 in f32.
//!
//! **This hides gradients, it does not defend.** Carlini and Wagner (IEEE S&P 2017) found distilled
//! networks no harder to lead astray than others: an attack on logits does not see the softmax at all. The
//! gradients of [`crate::attack`] are computed in f64 from logits and vanish later than a network's own; an
//! attacker who knows T divides the logits by it ([`super::TemperatureScaled`]) and has the gradients of an
//! ordinary network back.

use crate::activation::Activation;
use crate::data::loader::{Batch, Loader};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::count_right;
use crate::losses::Loss;
use crate::nn::{Mode, Model, for_inference};
use crate::ops::{self, CategoricalGradient};
use crate::optimizers::Optimizer;
use crate::tensor::Tensor;
use crate::train::{Epoch, Event, Monitor, TrainConfig};

/// How a student learns from a teacher.
///
/// ```
/// use atrous::attack::defence::Distillation;
/// use atrous::data::transforms::Augment;
/// use atrous::models::Spec;
/// use atrous::train::{Event, TrainConfig};
/// use std::ops::ControlFlow;
/// use std::sync::Arc;
///
#[doc = include_str!("../brightness.txt")]
/// let config = TrainConfig {
///     epochs: 3,
///     learning_rate: 0.01,
///     augment: Augment::None,
///     train_indices: (0..4).collect(),
///     ..TrainConfig::new(Spec::new("alexnet", 4, CLASSES.len()))
/// };
/// let mut graph = Graph::new("small", "input", [4, 4, 3]);
/// let dense = Layer::dense(CLASSES.len()).with_activation(Activation::Sigmoid);
/// graph.chain(graph.input(), [Layer::Flatten, dense])?;
/// let (mut teacher, mut student) = (Model::new(graph.clone(), 1), Model::new(graph, 2));
///
/// let dataset: Arc<dyn Dataset> = Arc::new(Greys(vec![20, 60, 100, 140]));
/// let loader = config.training_loader(&dataset, 1);
/// let mut losses = Vec::new();
/// let mut monitor = |event: Event| {
///     if let Event::EpochEnds { record, .. } = event {
///         losses.push(record.loss);
///     }
///     ControlFlow::Continue(())
/// };
/// let hot = Distillation { teacher_temperature: 20.0, ..Distillation::new(20.0) };
/// hot.train_teacher(&mut teacher, &config, &loader, &mut monitor)?;
/// hot.train_student(&teacher, &mut student, &config, &loader, &mut monitor)?;
/// assert!(losses[2] < losses[0] && losses[5] < losses[3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// T: 1 to 1000; Papernot et al. used up to 100.
    pub temperature: f32,
    /// That of the teacher's probabilities: 1 for a network that was trained as usual, T for one that was
    /// [trained hot](Self::train_teacher), as Papernot et al. did. (The teacher's logits over T where it
    /// was not trained so would teach the student the teacher's own logits, and hide nothing.)
    pub teacher_temperature: f32,
}

/// What a student is told.
enum Truth<'a> {
    /// The labels.
    Labels,
    /// What this network, rewritten for inference, says at a temperature.
    Says(&'a Model, f32),
}

impl Distillation {
    /// Distillation at T from a teacher that was trained as usual, whose temperature is 1.
    pub fn new(temperature: f32) -> Self {
        Distillation { temperature, teacher_temperature: 1.0 }
    }

    pub(crate) fn check(&self) -> Result<()> {
        for temperature in [self.temperature, self.teacher_temperature] {
            if !(1.0..=1000.0).contains(&temperature) {
                let message = format!("expected 1 to 1000, got {temperature}");
                return Err(Error::argument("temperature", message));
            }
        }
        Ok(())
    }

    /// Trains `student`, of the teacher's graph, for the plan's epochs from the weights it has:
    /// optimizer, rates, schedule and clipping are the plan's, augmentation the loader's. Validation,
    /// patience, class weights and label smoothing have no part in it. `monitor` is told as in training;
    /// if it asks to stop, that is an error, and the student has the weights it had then. The gradient
    /// by z is 1/T of what it is at a temperature of 1, which plain SGD needs a higher rate for and Adam
    /// does not.
    ///
    /// An error for temperatures out of range, for networks of other outputs than each other's, for a
    /// network that segments and for a loss that is not finite ([`Error::Diverged`]).
    pub fn train_student(
        &self,
        teacher: &Model,
        student: &mut Model,
        config: &TrainConfig,
        training: &Loader,
        monitor: &mut Monitor,
    ) -> Result<()> {
        let shape = |model: &Model| model.graph.node(model.graph.output()).output_shape.clone();
        if shape(teacher) != shape(student) || head(teacher) != head(student) {
            let of = |model: &Model| format!("{:?} of {:?}", head(model), shape(model));
            return Err(Error::shape("distillation", of(teacher), of(student)));
        }
        let teacher = for_inference(teacher)?;
        let truth = Truth::Says(&teacher, self.teacher_temperature);
        self.train(student, config, training, monitor, truth)
    }

    /// Trains a teacher on the labels, at the same temperature as its student; errors as in
    /// [`Distillation::train_student`].
    pub fn train_teacher(
        &self,
        teacher: &mut Model,
        config: &TrainConfig,
        training: &Loader,
        monitor: &mut Monitor,
    ) -> Result<()> {
        self.train(teacher, config, training, monitor, Truth::Labels)
    }

    fn train(
        &self,
        model: &mut Model,
        config: &TrainConfig,
        training: &Loader,
        monitor: &mut Monitor,
        truth: Truth,
    ) -> Result<()> {
        self.check()?;
        config.check()?;
        if config.network.segments() || training.steps() == 0 {
            let message = "expected a classifier, and samples to train it on";
            return Err(Error::argument("distillation", message));
        }
        let mut optimizer = Optimizer::new(config.rule(), config.learning_rate)?;
        let steps = training.steps() as u64;
        let warmup = (config.warmup as f64 * steps as f64).round() as u64;
        let mut done = 0;
        for epoch in 0..config.epochs {
            let (of, steps) = (config.epochs, training.steps());
            let mut stop = monitor(Event::EpochBegins { epoch: epoch + 1, of, steps, step: 0 });
            let (mut loss_sum, mut accuracy_sum, mut samples) = (0.0, 0.0, 0.0);
            let mut factor = 1.0;
            for (step, batch) in training.epoch(epoch as u64, 0)?.enumerate() {
                if stop.is_break() {
                    return Err(stopped(epoch, step));
                }
                let batch = batch?;
                let n = batch.indices.len();
                factor = config.schedule.factor(done, warmup, config.epochs as u64 * steps as u64);
                optimizer.factors = [factor, factor * config.base_rate];
                let run = Mode::train(config.seed, done);
                let (loss, accuracy) = self.step(model, &mut optimizer, config, &batch, &truth, run)?;
                if !loss.is_finite() {
                    let at = format!("epoch {}, step {}", epoch + 1, step + 1);
                    return Err(Error::Diverged(format!("the loss of {at} is {loss}")));
                }
                done += 1;
                loss_sum += loss * n as f64;
                accuracy_sum += accuracy * n as f64;
                samples += n as f64;
                let (loss, accuracy) = (loss_sum / samples, accuracy_sum / samples);
                let learning_rate = optimizer.learning_rate * factor;
                stop =
                    monitor(Event::Step { step: step + 1, samples: n, loss, accuracy, learning_rate });
            }
            if stop.is_break() {
                return Err(stopped(epoch, steps));
            }
            let record = Epoch {
                epoch: epoch + 1,
                learning_rate: optimizer.learning_rate * factor,
                loss: loss_sum / samples,
                accuracy: accuracy_sum / samples,
                val_loss: None,
                val_accuracy: None,
                val_map: None,
                val_miou: None,
                val_dice: None,
            };
            if monitor(Event::EpochEnds { record: &record, model }).is_break() {
                return Err(stopped(epoch + 1, 0));
            }
        }
        Ok(())
    }

    /// One step: the loss at the temperature, and how often the likeliest class is the first label.
    fn step(
        &self,
        model: &mut Model,
        optimizer: &mut Optimizer,
        config: &TrainConfig,
        batch: &Batch,
        truth: &Truth,
        run: Mode,
    ) -> Result<(f64, f64)> {
        let device = model.device();
        let images = batch.images.to_device(device)?;
        let targets = match truth {
            Truth::Labels => batch.labels.clone(),
            Truth::Says(teacher, temperature) => {
                probabilities(teacher, &batch.images.to_device(teacher.device())?, *temperature)?
            }
        };
        let pass = model.run(&images, run)?;
        let output = pass.output.to_device(Device::Cpu)?;
        let columns = output.shape().last_length();
        let (all, right) = count_right(batch.labels.values(), output.values(), columns, f32::NAN)?;
        let cooled = ops::scale(&pass.logits, 1.0 / self.temperature as f64)?;
        // Where the targets of a row sum to 1 the two rules are the same; labels of several classes are
        // not such.
        let gradient = Some(CategoricalGradient::Keras);
        let loss = match head(model) {
            Activation::Softmax => Loss::CategoricalCrossentropy { gradient },
            _ => Loss::BinaryCrossentropy,
        };
        let loss = loss.from_logits(&cooled, &targets.to_device(device)?, None)?;
        let value = loss.item()?;
        drop(cooled);
        optimizer.begin_step();
        optimizer.backward_and_step(model, loss, pass, config.clip_norm)?;
        Ok((value, right as f64 / all.max(1) as f64))
    }
}

fn stopped(epoch: usize, step: usize) -> Error {
    Error::Interrupted(format!("distillation stopped after epoch {epoch}, step {step}"))
}

/// What makes probabilities of the network's logits.
fn head(model: &Model) -> Activation {
    match model.graph.node(model.graph.output()).layer.activation() {
        Activation::Softmax => Activation::Softmax,
        _ => Activation::Sigmoid,
    }
}

/// What a network says of prepared images at a temperature, [N, classes], on the CPU.
fn probabilities(model: &Model, images: &Tensor, temperature: f32) -> Result<Tensor> {
    let logits = model.run(images, Mode::infer())?.logits.detach();
    let cooled = ops::scale(&logits, 1.0 / temperature as f64)?;
    let probabilities = match head(model) {
        Activation::Softmax => ops::softmax(&cooled)?,
        _ => ops::sigmoid(&cooled)?,
    };
    probabilities.to_device(Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::super::toy::{EPSILON, SIDE, Toy, images, linear_model, objective, sharp_model};
    use super::super::{Evaluator, TemperatureScaled, measure};
    use super::*;
    use crate::attack::{EpsBall, Iterative, Network, logits};
    use crate::data::CLASSES;
    use crate::data::image::Preprocess;
    use crate::data::transforms::Augment;
    use crate::models::Spec;
    use crate::nn::Graph;
    use crate::nn::layers::Layer;
    use std::ops::ControlFlow::{Break, Continue};
    use std::sync::Arc;

    const T: f32 = 20.0;

    fn config() -> TrainConfig {
        TrainConfig {
            epochs: 60,
            batch_size: 32,
            learning_rate: 0.1,
            augment: Augment::None,
            preprocess: Preprocess::Symmetric,
            ..TrainConfig::new(Spec::new("alexnet", SIDE, CLASSES.len()))
        }
    }

    fn loader(config: &TrainConfig) -> Loader {
        let data = Arc::new(Toy { first: 0, len: 64 });
        Loader::shuffled(data, config.training_transforms(), config.batch_size, config.seed)
    }

    #[test]
    fn a_student_says_the_same_and_is_far_surer_and_no_safer() {
        let (teacher, mut student) = (sharp_model(), linear_model());
        let config = config();
        let mut losses = Vec::new();
        let mut monitor = |event: Event| {
            if let Event::EpochEnds { record, .. } = event {
                losses.push(record.loss);
            }
            Continue(())
        };
        let how = Distillation::new(T);
        how.train_student(&teacher, &mut student, &config, &loader(&config), &mut monitor).unwrap();
        assert!(losses.len() == 60 && losses[59] < 0.5 * losses[0], "{losses:?}");
        let (images, objective) = (images(24), objective(24));
        let of = |model: &Model| Network::new(model, Preprocess::Symmetric).unwrap();
        let (taught, learnt) = (of(&teacher), of(&student));
        // By how much the two classes differ.
        let margin = |network: &Network| {
            let logits = logits(network, &images.x).unwrap();
            let rows = logits.values::<f32>().chunks_exact(CLASSES.len());
            rows.map(|z| (z[0] - z[1]).abs() as f64).sum::<f64>() / 24.0
        };
        let (before, after) = (margin(&taught), margin(&learnt));
        assert!(after > 5.0 * before, "{before} {after}");
        let clean = Evaluator::new(&learnt, &objective).judge(&images.x).unwrap();
        assert!(clean.statuses.iter().all(|status| !status.reached));
        // Who divides by T leads it astray.
        let cooled = TemperatureScaled { inner: objective.clone(), temperature: T };
        let attack = Iterative::pgd(EpsBall::linf(EPSILON), 10);
        let judge = Evaluator::new(&learnt, &objective);
        let unaware = attack.perturb(&taught, &images, &objective).unwrap().x;
        let adaptive = attack.perturb(&learnt, &images, &cooled).unwrap().x;
        let [clean, unaware, adaptive] = measure(&images, &unaware, &adaptive, judge).unwrap().rates();
        assert!(clean == 0.0 && adaptive > 0.8 && adaptive >= unaware, "{clean} {unaware} {adaptive}");
    }

    /// A sigmoid a class.
    fn independent() -> Model {
        let mut g = Graph::new("toy", "input", [SIDE, SIDE, 3]);
        let dense = Layer::dense(CLASSES.len()).with_activation(Activation::Sigmoid);
        g.chain(g.input(), [Layer::Flatten, dense]).unwrap();
        Model::with(g, |_, shape, _| Tensor::zeros(shape))
    }

    #[test]
    fn a_teacher_trained_hot_and_sigmoids_are_distilled_too() {
        let how = Distillation { temperature: T, teacher_temperature: T };
        let config = TrainConfig { epochs: 30, learning_rate: 0.5, ..config() };
        let run = || {
            let (mut teacher, mut student) = (independent(), independent());
            how.train_teacher(&mut teacher, &config, &loader(&config), &mut |_| Continue(())).unwrap();
            how.train_student(&teacher, &mut student, &config, &loader(&config), &mut |_| Continue(()))
                .unwrap();
            (teacher, student)
        };
        let (teacher, student) = run();
        let batch = loader(&config).epoch(0, 0).unwrap().next().unwrap().unwrap();
        let soft = |model: &Model| probabilities(model, &batch.images, T).unwrap().to_vec_f64();
        let apart: f64 = soft(&teacher).iter().zip(soft(&student)).map(|(a, b)| (a - b).abs()).sum();
        assert!(apart / (32.0 * CLASSES.len() as f64) < 0.1, "{apart}");
        let output = student.run(&batch.images, Mode::infer()).unwrap().output;
        let (all, right) =
            count_right(batch.labels.values(), output.values(), CLASSES.len(), f32::NAN).unwrap();
        assert_eq!(all, right);
        for (a, b) in run().1.parameters.iter().zip(&student.parameters) {
            assert_eq!(a.value.to_vec_f64(), b.value.to_vec_f64());
        }
    }

    #[test]
    fn it_stops_when_asked_and_says_what_does_not_fit() {
        let (teacher, mut student, config) = (sharp_model(), linear_model(), config());
        let mut error = |how: Distillation, teacher: &Model| {
            let monitor = &mut |event: Event| match event {
                Event::Step { step: 2, .. } => Break(()),
                _ => Continue(()),
            };
            how.train_student(teacher, &mut student, &config, &loader(&config), monitor)
                .unwrap_err()
                .to_string()
        };
        assert!(error(Distillation::new(T), &teacher).contains("epoch 0, step 2"));
        assert!(error(Distillation::new(0.5), &teacher).contains("got 0.5"));
        assert!(error(Distillation::new(T), &independent()).contains("Sigmoid"));
    }
}
