//! Passes, observed and not, in turns.

use super::{AlgorithmOf, Limits, LossTimes, PassProfile, Profile, ProfiledStep, Time, Trace, Whole};
use crate::bench::Timing;
use crate::context::{no_grad, on_threads, precision};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Mode, Model, PlanTable, PlannedStep, Purpose, TrainingGraph, for_inference};
use crate::ops::sparse_softmax_cross_entropy;
use crate::pool;
use crate::spans::{self, Recorder, Span, What};
use crate::tensor::{Gradient, Shape, Tensor};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Passes of each kind: where they take long, and at most.
const REPEATS: [usize; 2] = [5, 75];
/// Seconds for all of them.
const SECONDS: f64 = 6.0;

/// Times each step of a network on noise, where its parameters are; and what ran when, in one more pass.
///
/// For [`Purpose::Inference`] the network runs as it predicts, its batch norms folded. For
/// [`Purpose::Training`] all of it trains, whatever is frozen, on a cross entropy with made-up labels; the
/// optimizer's update is not part of it. On a device each step is waited for, which its whole pass is not:
/// there the sum over short steps is more than the whole.
///
/// # Errors
/// Where the batch is empty or larger than a tensor can be, and what a pass gives.
///
/// ```no_run
/// use atrous::nn::Purpose;
/// use atrous::prelude::*;
/// use atrous::profile::{Profile, profile};
///
/// # fn main() -> Result<()> {
/// let model = Model::new(atrous::models::by_name("mobilenet", 224, 20)?, 1);
/// let (profile, trace) = profile(&model, 1, Purpose::Inference)?; // takes about ten seconds
/// println!("{profile}"); // a table of the steps
/// println!("{}", profile.steps[0].label());
/// let [flops, none] = profile.flops(); // forward and backward
/// let files = [
///     ("profile.json", profile.to_json()?.to_string()),
///     ("roofline.svg", profile.to_svg()),
///     ("trace.json", trace.to_json().to_string()),
/// ];
/// for (name, text) in files {
///     std::fs::write(name, text).expect("a folder to write to");
/// }
/// assert_eq!(Profile::read("profile.json")?, profile);
/// assert!(flops > 1 << 30 && none == 0);
/// # Ok(())
/// # }
/// ```
pub fn profile(model: &Model, batch: usize, purpose: Purpose) -> Result<(Profile, Trace)> {
    if batch == 0 {
        return Err(Error::argument("batch", "expected at least one image, got 0"));
    }
    let device = model.device();
    let plan = PlanTable::new(&model.graph, device, purpose, batch)?;
    let limits = Limits::measure(device)?;
    let subject = Subject::new(model, purpose, &plan)?;
    // Weights are laid out, and memory is taken from the system, at first.
    subject.pass(None)?;
    subject.pass(None)?;
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    let in_time = || begin.elapsed().as_secs_f64() < SECONDS;
    while parts.len() < REPEATS[0] || (parts.len() < REPEATS[1] && in_time()) {
        whole.push(subject.pass(None)?);
        let recorder = subject.recorder(false);
        subject.pass(Some(recorder.clone()))?;
        parts.push(Parts::of(&recorder.spans(), plan.steps.len())?);
    }
    let at_first = pool::usage().in_use;
    let recorder = subject.recorder(true);
    subject.pass(Some(recorder.clone()))?;
    let spans = recorder.spans();
    let profile = Measured { limits, whole, parts, memory: Memory::of(&spans, at_first, device) };
    Ok((profile.profile(&plan), Trace::new(&plan, spans)))
}

/// What runs, again and again.
struct Subject {
    model: Model,
    /// In training, the graph that a step runs.
    training: Option<TrainingGraph>,
    images: Tensor,
    /// For each parameter the step that it is of.
    steps: Vec<Option<usize>>,
    /// The number of steps: that of the loss.
    loss: usize,
}

/// Seconds of a pass: forward, and up to its end.
struct Seconds {
    forward: f64,
    all: f64,
}

impl Subject {
    fn new(model: &Model, purpose: Purpose, plan: &PlanTable) -> Result<Self> {
        let (model, training) = match purpose {
            Purpose::Inference => (for_inference(model)?, None),
            Purpose::Training => {
                let mut model = model.clone();
                model.freeze_first(0);
                let graph = TrainingGraph::new(&model)?;
                (model, Some(graph))
            }
        };
        let layers = plan.steps.iter().enumerate();
        let layers = layers.flat_map(|(i, step)| step.layers.iter().map(move |name| (name.as_str(), i)));
        let by_layer: HashMap<&str, usize> = layers.collect();
        let of = |path: &str| path.rsplit_once('/').and_then(|(layer, _)| by_layer.get(layer)).copied();
        let steps = model.parameters.iter().map(|parameter| of(&parameter.path)).collect();
        let images = Tensor::rand(plan.input, 1).to_device(model.device())?;
        Ok(Subject { model, training, images, steps, loss: plan.steps.len() })
    }

    fn recorder(&self, detailed: bool) -> Arc<Recorder> {
        let device = self.images.device();
        // (A fault of the device is told by the pass's own wait.)
        Recorder::new(detailed, move || drop(device.synchronize()))
    }

    /// One pass, of which the recorder takes down the steps.
    fn pass(&self, recorder: Option<Arc<Recorder>>) -> Result<Seconds> {
        let device = self.images.device();
        on_threads(device, || {
            spans::record(recorder, || match &self.training {
                None => self.infer(device),
                Some(graph) => self.train(graph, device),
            })
        })
    }

    fn infer(&self, device: Device) -> Result<Seconds> {
        let begin = Instant::now();
        let _pass = no_grad(|| self.model.run(&self.images, Mode::infer()))?;
        device.synchronize()?;
        let forward = begin.elapsed().as_secs_f64();
        Ok(Seconds { forward, all: forward })
    }

    fn train(&self, graph: &TrainingGraph, device: Device) -> Result<Seconds> {
        let begin = Instant::now();
        let pass = graph.run(&self.model, &self.images, Mode::train(1, 0))?;
        device.synchronize()?;
        let forward = begin.elapsed().as_secs_f64();
        let loss = spans::step(self.loss, || cross_entropy(&pass.logits))?;
        let gradients = loss.backward()?;
        for (leaf, step) in pass.leaves.iter().zip(&self.steps) {
            // One that is still in its factors is a layer's unfinished work.
            if let Some(gradient @ Gradient::LowRank(_)) = gradients.get_gradient(leaf) {
                spans::backward_of(*step, "product", || gradient.to_dense());
            }
        }
        device.synchronize()?;
        Ok(Seconds { forward, all: begin.elapsed().as_secs_f64() })
    }
}

/// With labels that are all the first class: what is learned does not matter here.
fn cross_entropy(logits: &Tensor) -> Result<Tensor> {
    let shape = logits.shape();
    let labels = Tensor::zeros(Shape::checked(&shape[..shape.rank() - 1])?);
    let labels = labels.to_device(logits.device())?;
    sparse_softmax_cross_entropy(logits, &labels, None, None)
}

/// Seconds by step, the loss last, of one observed pass.
struct Parts {
    forward: Vec<f64>,
    backward: Vec<f64>,
}

impl Parts {
    fn sum(&self) -> f64 {
        self.forward.iter().chain(&self.backward).sum()
    }

    /// An error where other steps ran than those of the plan.
    fn of(spans: &[Span], steps: usize) -> Result<Self> {
        let mut parts = Parts { forward: vec![0.0; steps + 1], backward: vec![0.0; steps + 1] };
        let mut ran = 0;
        for span in spans {
            let seconds = span.end - span.start;
            match span.what {
                What::Step(step) if step <= steps => {
                    ran += (step < steps) as usize;
                    parts.forward[step] += seconds;
                }
                What::Backward { step, .. } => {
                    parts.backward[step.unwrap_or(steps).min(steps)] += seconds
                }
                _ => {}
            }
        }
        match ran == steps {
            true => Ok(parts),
            false => {
                Err(Error::argument("profile", format!("expected {steps} steps to run, got {ran}")))
            }
        }
    }
}

/// Bytes of the CPU's pool, in one detailed pass.
struct Memory {
    /// By step, beyond what was lent out before the pass: when it was over, and at most meanwhile.
    steps: HashMap<usize, [u64; 2]>,
    peak: Option<u64>,
}

impl Memory {
    fn of(spans: &[Span], at_first: usize, device: Device) -> Self {
        let on_cpu = device == Device::Cpu;
        let beyond = |bytes: usize| bytes.saturating_sub(at_first) as u64;
        let steps = spans.iter().filter_map(|span| match (span.what, span.pool) {
            (What::Step(step), Some(pool)) if on_cpu => Some((step, pool.map(beyond))),
            _ => None,
        });
        let peak = spans.iter().filter_map(|span| span.pool).map(|[_, peak]| peak as u64).max();
        Memory { steps: steps.collect(), peak: peak.filter(|_| on_cpu) }
    }
}

/// All that was measured.
struct Measured {
    limits: Limits,
    whole: Vec<Seconds>,
    parts: Vec<Parts>,
    memory: Memory,
}

impl Measured {
    fn profile(self, plan: &PlanTable) -> Profile {
        let (loss, training) = (plan.steps.len(), plan.purpose == Purpose::Training);
        let forward = (0..loss).map(|step| self.forward(step).median_ms).sum();
        let all: f64 = (0..=loss).map(|i| self.forward(i).median_ms + self.backward(i).median_ms).sum();
        Profile {
            model: plan.model.clone(),
            device: plan.device.to_string(),
            precision: precision().to_string(),
            purpose: plan.purpose,
            input: plan.input.to_vec(),
            layers: plan.layers,
            repeats: self.parts.len(),
            steps: plan.steps.iter().enumerate().map(|(i, step)| self.step(i, step)).collect(),
            loss: training
                .then(|| LossTimes { forward: self.forward(loss), backward: self.backward(loss) }),
            forward: self.whole(|s| s.forward, |parts| parts.forward[..loss].iter().sum(), forward),
            forward_backward: training.then(|| self.whole(|s| s.all, Parts::sum, all)),
            pool_peak_bytes: self.memory.peak,
            limits: self.limits,
        }
    }

    fn whole(
        &self,
        seconds: impl Fn(&Seconds) -> f64,
        sum: impl Fn(&Parts) -> f64,
        medians_ms: f64,
    ) -> Whole {
        let (time, steps) = (time(self.whole.iter().map(seconds)), time(self.parts.iter().map(sum)));
        Whole { time, steps, medians_ms }
    }

    fn step(&self, i: usize, step: &PlannedStep) -> ProfiledStep {
        let cost = step.cost;
        let backward = self.backward(i);
        let goes_back = cost.backward.flops > 0 || cost.backward.bytes > 0 || backward.median_ms > 0.0;
        let algorithms = step.algorithms.iter().map(|chosen| AlgorithmOf {
            pass: chosen.pass.to_string(),
            algorithm: chosen.algorithm.clone(),
            reason: chosen.reason.clone(),
        });
        let memory = self.memory.steps.get(&i);
        ProfiledStep {
            number: i + 1,
            layers: step.layers.clone(),
            operator: step.operator.into(),
            fused: step.fused.clone(),
            output_shape: step.output_shape.clone(),
            algorithms: algorithms.collect(),
            parameters: cost.parameters,
            forward: PassProfile::new(cost.forward, self.forward(i), &self.limits),
            backward: goes_back.then(|| PassProfile::new(cost.backward, backward, &self.limits)),
            live_bytes: cost.live_bytes,
            pool_bytes: memory.map(|[after, _]| *after),
            pool_peak_bytes: memory.map(|[_, peak]| *peak),
        }
    }

    fn forward(&self, step: usize) -> Time {
        time(self.parts.iter().map(|parts| parts.forward[step]))
    }

    fn backward(&self, step: usize) -> Time {
        time(self.parts.iter().map(|parts| parts.backward[step]))
    }
}

fn time(seconds: impl Iterator<Item = f64>) -> Time {
    Timing::of(seconds.collect()).into()
}
