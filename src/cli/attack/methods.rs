//! The ways to perturb that the command knows, and those that have to learn first.

use super::experiment::{Contender, Experiment};
use crate::cli::device;
use crate::cli::progress::{asked_to_stop, bar, going_on};
use atrous::Result;
use atrous::attack::generator::{About, Generator, Training};
use atrous::attack::{Aim, Attack, DeepFool, Iterative, Objective, Pictures, Square, Universal, Victim};
use atrous::random::{Stream, domain};
use clap::ValueEnum;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    Fgsm,
    Pgd,
    Segpgd,
    Mim,
    Deepfool,
    Square,
    Universal,
    Generator,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Fgsm => "fgsm",
            Method::Pgd => "pgd",
            Method::Segpgd => "segpgd",
            Method::Mim => "mim",
            Method::Deepfool => "deepfool",
            Method::Square => "square",
            Method::Universal => "universal",
            Method::Generator => "generator",
        }
    }
}

/// Pictures that the universal perturbation learns from, and how often it sees them.
const LEARN: usize = 320;
const PASSES: usize = 5;

impl Experiment<'_> {
    /// The one of the options' file, or one that is trained now, at the ε nearest to 8/255.
    pub fn generator(&self, epsilons: &[f32], contender: &Contender) -> Result<Generator> {
        if let Some(path) = &self.options.generator {
            return Generator::load(path)?.to_device(device());
        }
        let plan = &contender.trained.plan;
        let far = |epsilon: &f32| (epsilon - 8.0 / 255.0).abs();
        let nearest = epsilons.iter().copied().min_by(|a, b| far(a).total_cmp(&far(b)));
        let ball = self.options.ball(nearest.unwrap_or(8.0 / 255.0));
        let goal = match (&self.options.from, &self.options.target) {
            (Some(from), Some(to)) => format!("{from} to {to}"),
            (None, Some(to)) => to.clone(),
            _ => "untargeted".into(),
        };
        let about = About { fit: plan.fit, victim: contender.name.clone(), goal };
        let seed = self.options.seed;
        let mut generator = Generator::new(contender.victim.side(), ball, about, seed)?;
        let samples = self.learners(contender)?;
        let training = Training {
            steps: self.options.generator_steps,
            batch: self.options.batch_size,
            seed,
            ..Training::default()
        };
        let bar = bar(training.steps, "generator");
        let began = Instant::now();
        let batch = |numbers: &[usize]| -> Result<(Pictures, Box<dyn Objective>)> {
            let indices: Vec<usize> = numbers.iter().map(|&i| samples[i]).collect();
            let pictures = Pictures::of(&*self.learn, &indices, contender.victim.side(), plan.fit)?;
            let aim = self.aim(contender, &*self.learn, &indices, &pictures, false)?;
            let objective: Box<dyn Objective> = match aim {
                Aim::Labels(labels) => Box::new(labels),
                Aim::Masks(masks) => Box::new(masks),
            };
            Ok((pictures, objective))
        };
        let steps =
            training.run(&mut generator, &contender.victim, samples.len(), batch, |progress| {
                bar.inc(1);
                bar.set_message(format!("{:.3} err as wished", progress.success));
                asked_to_stop()
            })?;
        bar.finish_and_clear();
        let path = self.options.out.join("generator.safetensors");
        generator.save(&path)?;
        println!(
            "generator: {} ({steps} steps, {:.0} s)",
            path.display(),
            began.elapsed().as_secs_f64()
        );
        Ok(generator)
    }

    pub fn attack(
        &self,
        method: Method,
        epsilon: f32,
        contender: &Contender,
        generator: Option<&Generator>,
    ) -> Result<Attack> {
        let (options, ball) = (self.options, self.options.ball(epsilon));
        let iterative = |iterative: Iterative| {
            let step = options.step.map_or(iterative.step, |step| step.0);
            Attack::Iterative(Iterative { step, seed: options.seed, ..iterative })
        };
        Ok(match method {
            Method::Fgsm => Attack::Fgsm(ball),
            Method::Pgd => iterative(Iterative {
                restarts: options.restarts,
                ..Iterative::pgd(ball, options.steps)
            }),
            Method::Segpgd => {
                iterative(Iterative { restarts: 0, ..Iterative::pgd(ball, options.steps) })
            }
            Method::Mim => iterative(Iterative::mim(ball, options.steps)),
            Method::Deepfool => Attack::DeepFool(DeepFool::default()),
            Method::Square => {
                Attack::Square(Square { seed: options.seed, ..Square::new(ball, options.queries) })
            }
            Method::Universal => Attack::Universal(self.universal(epsilon, contender)?),
            Method::Generator => {
                let own = match generator {
                    Some(generator) => generator.clone(),
                    None => self.generator(&[epsilon], contender)?,
                };
                // The same perturbation, larger or smaller.
                Attack::Generator(Box::new(Generator::of(own.model, ball, own.about)?))
            }
        })
    }

    /// Found on the pictures that the network was trained on.
    fn universal(&self, epsilon: f32, contender: &Contender) -> Result<Universal> {
        let plan = &contender.trained.plan;
        let mut universal = Universal::new(self.options.ball(epsilon), contender.victim.side())?;
        let train = self.learners(contender)?;
        let bar = bar(PASSES * train.len().min(LEARN), "universal");
        for pass in 0..PASSES {
            let mut stream = Stream::new(self.options.seed, &[domain::ATTACK, 2 << 32, pass as u64]);
            let order = stream.permutation(train.len());
            let some: Vec<usize> = order.into_iter().take(LEARN).map(|i| train[i]).collect();
            for chunk in some.chunks(self.options.batch_size) {
                going_on("the universal perturbation")?;
                let pictures = Pictures::of(&*self.learn, chunk, contender.victim.side(), plan.fit)?;
                let aim = self.aim(contender, &*self.learn, chunk, &pictures, false)?;
                universal.step(&contender.victim, &pictures, aim.objective(), epsilon / 8.0)?;
                bar.inc(chunk.len() as u64);
            }
        }
        bar.finish_and_clear();
        Ok(universal)
    }
}
