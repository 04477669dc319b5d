//! The ways to perturb that the command knows, and those that have to learn first.

use super::USUAL;
use super::experiment::{Experiment, NamedVictim};
use super::output::of_255;
use crate::cli::device;
use crate::cli::progress::{asked_to_stop, bar, check_interrupted};
use atrous::attack::generator::{About, Generator, Training};
use atrous::attack::{
    Attack, AttackTarget, DeepFool, EpsBall, Images, Iterative, Norm, Objective, Square, Universal,
    Victim,
};
use atrous::random::{Stream, domain};
use atrous::{Error, Result};
use clap::ValueEnum;
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// One step along the gradient's signs
    Fgsm,
    /// Projected gradient descent, in small steps
    Pgd,
    /// The same for masks: pixels that are wrong already count less and less
    Segpgd,
    /// Steps along a momentum of gradients
    Mim,
    /// The nearest point beyond the decision boundary, as of a linear network
    Deepfool,
    /// Squares at random; it asks the network, and needs no gradient
    Square,
    /// One perturbation for all images
    Universal,
    /// A network that perturbs, trained first
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

/// A method at one ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Variant {
    pub method: Method,
    /// None for a method that has none.
    pub epsilon: Option<f32>,
}

impl Variant {
    pub fn new(method: Method, epsilon: f32) -> Self {
        Variant { method, epsilon: (method != Method::Deepfool).then_some(epsilon) }
    }

    /// `pgd, ε = 8/255`
    pub fn name(self, norm: Norm) -> String {
        match self.epsilon {
            Some(epsilon) => format!("{}, ε = {}", self.method.name(), of_255(epsilon, norm)),
            None => self.method.name().to_owned(),
        }
    }
}

/// Pictures that the universal perturbation learns from, and how often it sees them.
const LEARN: usize = 320;
const PASSES: usize = 5;

impl Experiment<'_> {
    /// An error where an option makes no sense for the victim, before any work.
    pub fn check(&self, epsilons: &[f32]) -> Result<()> {
        let side = self.contenders[0].victim.side();
        if let Some(step) = self.options.step {
            if step.0 == 0.0 {
                return Err(Error::argument("--step", "expected a step above 0, got 0"));
            }
            let told = |error| Error::argument("--step", error);
            self.options.ball(step.0).check_for(side).map_err(told)?;
        }
        for &epsilon in epsilons {
            let ball = self.options.ball(epsilon);
            ball.check_for(side)?;
            for &method in &self.methods {
                match method {
                    Method::Universal => drop(Universal::new(ball, side)?),
                    Method::Generator if ball.norm != Norm::Linf => {
                        return Err(Error::argument("--norm", "a generator is for linf alone"));
                    }
                    Method::Generator => self.training().check()?,
                    _ => self.attack(method, epsilon, &self.contenders[0], None)?.check(side)?,
                }
            }
        }
        if self.methods.len() * epsilons.len() == 1 {
            self.check_names()?;
        }
        Ok(())
    }

    fn training(&self) -> Training {
        Training {
            steps: self.options.generator_steps,
            batch: self.options.batch_size,
            seed: self.options.seed,
            ..Training::default()
        }
    }

    /// The one of the options' file, or one that is trained now. It is always trained at the same ε,
    /// whichever it is used at. The victim's is kept in the output folder.
    pub fn generator(&self, contender: &NamedVictim) -> Result<Generator> {
        let side = contender.victim.side();
        if let Some(path) = &self.options.generator {
            let generator = Generator::load(path)?.to_device(device())?;
            return match generator.side() == side {
                true => Ok(generator),
                false => {
                    let message =
                        format!("expected a generator of side {side}, got {}", generator.side());
                    Err(Error::file(path, message))
                }
            };
        }
        let config = &contender.trained.config;
        let ball = EpsBall::linf(USUAL);
        let goal = match (&self.options.from, &self.options.target) {
            (Some(from), Some(to)) => format!("{from} to {to}"),
            (None, Some(to)) => to.clone(),
            _ => "untargeted".into(),
        };
        let about = About { fit: config.fit, victim: contender.name.clone(), goal };
        let seed = self.options.seed;
        let mut generator = Generator::new(side, ball, about, seed)?;
        let samples = self.learners(contender)?;
        let training = self.training();
        let bar = bar(training.steps, "generator");
        let began = Instant::now();
        let batch = |numbers: &[usize]| -> Result<(Images, Box<dyn Objective>)> {
            let indices: Vec<usize> = numbers.iter().map(|&i| samples[i]).collect();
            let images = Images::of(&*self.learn, &indices, side, config.fit)?;
            let aim = self.aim(contender, &*self.learn, &indices, &images, false)?;
            let objective: Box<dyn Objective> = match aim {
                AttackTarget::Labels(labels) => Box::new(labels),
                AttackTarget::Masks(masks) => Box::new(masks),
            };
            Ok((images, objective))
        };
        let steps =
            training.run(&mut generator, &contender.victim, samples.len(), batch, |progress| {
                bar.inc(1);
                bar.set_message(format!("{:.3} err as wished", progress.success));
                asked_to_stop()
            })?;
        bar.finish_and_clear();
        let seconds = began.elapsed().as_secs_f64();
        if std::ptr::eq(contender, &self.contenders[0]) {
            let path = self.options.out.join("generator.safetensors");
            generator.save(&path)?;
            println!("generator: {} ({steps} steps, {seconds:.0} s)", path.display());
        }
        Ok(generator)
    }

    /// PGD as the options have it.
    pub fn pgd(&self, ball: EpsBall) -> Iterative {
        let restarts = self.options.restarts;
        self.with_options(Iterative { restarts, ..Iterative::pgd(ball, self.options.steps) })
    }

    fn with_options(&self, iterative: Iterative) -> Iterative {
        let step = self.options.step.map_or(iterative.step, |step| step.0);
        Iterative { step, seed: self.options.seed, ..iterative }
    }

    pub fn attack(
        &self,
        method: Method,
        epsilon: f32,
        contender: &NamedVictim,
        generator: Option<&Generator>,
    ) -> Result<Attack> {
        let (options, ball) = (self.options, self.options.ball(epsilon));
        let iterative = |iterative: Iterative| Attack::Iterative(self.with_options(iterative));
        Ok(match method {
            Method::Fgsm => Attack::Fgsm(ball),
            Method::Pgd => Attack::Iterative(self.pgd(ball)),
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
                    None => self.generator(contender)?,
                };
                // The same perturbation, larger or smaller.
                Attack::Generator(Box::new(Generator::of(own.model, ball, own.about)?))
            }
        })
    }

    /// Found on the pictures that the network was trained on.
    fn universal(&self, epsilon: f32, contender: &NamedVictim) -> Result<Universal> {
        let config = &contender.trained.config;
        let mut universal = Universal::new(self.options.ball(epsilon), contender.victim.side())?;
        let train = self.learners(contender)?;
        let bar = bar(PASSES * train.len().min(LEARN), "universal");
        for pass in 0..PASSES {
            let mut stream = Stream::new(self.options.seed, &[domain::ATTACK, 2 << 32, pass as u64]);
            let order = stream.permutation(train.len());
            let some: Vec<usize> = order.into_iter().take(LEARN).map(|i| train[i]).collect();
            for chunk in some.chunks(self.options.batch_size) {
                check_interrupted("the universal perturbation")?;
                let images = Images::of(&*self.learn, chunk, contender.victim.side(), config.fit)?;
                let aim = self.aim(contender, &*self.learn, chunk, &images, false)?;
                universal.step(&contender.victim, &images, aim.objective(), epsilon / 8.0)?;
                bar.inc(chunk.len() as u64);
            }
        }
        bar.finish_and_clear();
        Ok(universal)
    }
}
