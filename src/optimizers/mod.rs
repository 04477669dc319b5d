//! Optimizers: gradients into changes of the parameters. With t the step (from 1), η the learning
//! rate and g the gradient:
//!
//! | rule               | update                                                             |
//! |--------------------|--------------------------------------------------------------------|
//! | SGD                | w ← w − ηg                                                         |
//! | SGD, momentum      | m ← μm − ηg; w ← w + m                                             |
//! | RMSprop            | v ← ρv + (1 − ρ)g²; w ← w − ηg / (√v + ε)                          |
//! | RMSprop, momentum  | v as above; m ← μm + ηg / √(v + ε); w ← w − m                      |
//! | Adam               | m ← m + (1 − β₁)(g − m); v ← v + (1 − β₂)(g² − v);                 |
//! |                    | w ← w − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε)                    |
//!
//! These are TensorFlow 2.6's, where ε is outside the root without momentum and inside with it.
//! Keras 3 has it inside in both (`epsilon_inside`): for gradients below 1e-3 not the same thing.
//!
//! A parameter is one pass over memory, whatever the rule: it, its gradient and its state are each
//! read once, and what changes is written once.

mod cpu;
mod cuda;

use crate::autograd::Gradients;
use crate::backend::cuda::Cuda;
use crate::context::on_threads;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{ForwardOutput, Model};
use crate::tensor::{DType, Gradient, Shape, Tensor};
use std::fmt;
use std::str::FromStr;

/// A rule and its constants.
///
/// ```
/// use atrous::optimizers::OptimizerKind;
///
/// let rule: OptimizerKind = "rmsprop".parse()?;
/// assert_eq!((rule.name(), rule.default_learning_rate()), ("rmsprop", 0.001));
/// assert_eq!(rule.slot_names(), ["velocity"]);
/// // Keras 3 adds ε inside of the root where TensorFlow 2.6 does not.
/// assert_ne!(rule.keras3(), rule);
/// assert_eq!(OptimizerKind::rmsprop(0.9).keras3(), OptimizerKind::rmsprop(0.9));
///
/// let OptimizerKind::Adam { beta_1, .. } = OptimizerKind::adam() else { unreachable!() };
/// assert_eq!(beta_1, 0.9);
/// assert_eq!(OptimizerKind::sgd(0.9).slot_names(), ["momentum"]);
/// assert_eq!(OptimizerKind::NAMES, ["sgd", "rmsprop", "adam"]);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptimizerKind {
    /// Gradient descent; μ of the table is `momentum` (0: none).
    Sgd {
        /// μ
        momentum: f64,
    },
    /// Tieleman and Hinton, 2012.
    RmsProp {
        /// ρ
        rho: f64,
        /// μ
        momentum: f64,
        /// ε
        epsilon: f64,
        /// Whether ε is added to v, or to its root.
        epsilon_inside: bool,
    },
    /// Kingma and Ba, 2015.
    Adam {
        /// β₁
        beta_1: f64,
        /// β₂
        beta_2: f64,
        /// ε
        epsilon: f64,
    },
}

impl OptimizerKind {
    /// Their names, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["sgd", "rmsprop", "adam"];

    /// Keras' constants.
    pub fn sgd(momentum: f64) -> Self {
        OptimizerKind::Sgd { momentum }
    }

    /// Keras' constants, in TensorFlow 2.6's form.
    pub fn rmsprop(momentum: f64) -> Self {
        OptimizerKind::RmsProp { rho: 0.9, momentum, epsilon: 1e-7, epsilon_inside: momentum > 0.0 }
    }

    /// Keras' constants.
    pub fn adam() -> Self {
        OptimizerKind::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }

    /// As Keras 3 computes it, where that differs.
    pub fn keras3(self) -> Self {
        match self {
            OptimizerKind::RmsProp { rho, momentum, epsilon, .. } => {
                OptimizerKind::RmsProp { rho, momentum, epsilon, epsilon_inside: true }
            }
            other => other,
        }
    }

    /// One of [`OptimizerKind::NAMES`].
    pub fn name(&self) -> &'static str {
        match self {
            OptimizerKind::Sgd { .. } => OptimizerKind::NAMES[0],
            OptimizerKind::RmsProp { .. } => OptimizerKind::NAMES[1],
            OptimizerKind::Adam { .. } => OptimizerKind::NAMES[2],
        }
    }

    /// Keras' default learning rate.
    pub fn default_learning_rate(&self) -> f32 {
        match self {
            OptimizerKind::Sgd { .. } => 0.01,
            OptimizerKind::RmsProp { .. } | OptimizerKind::Adam { .. } => 0.001,
        }
    }

    /// What is remembered about every parameter.
    pub fn slot_names(&self) -> &'static [&'static str] {
        match *self {
            OptimizerKind::Sgd { momentum: 0.0 } => &[],
            OptimizerKind::Sgd { .. } => &["momentum"],
            OptimizerKind::RmsProp { momentum: 0.0, .. } => &["velocity"],
            OptimizerKind::RmsProp { .. } => &["velocity", "momentum"],
            OptimizerKind::Adam { .. } => &["m", "v"],
        }
    }

    /// Decay rates in 0..1, and an ε above 0.
    fn check(&self) -> Result<()> {
        let (rates, epsilon) = match *self {
            OptimizerKind::Sgd { momentum } => ([momentum, 0.0], 1.0),
            OptimizerKind::RmsProp { rho, momentum, epsilon, .. } => ([rho, momentum], epsilon),
            OptimizerKind::Adam { beta_1, beta_2, epsilon } => ([beta_1, beta_2], epsilon),
        };
        if rates.iter().all(|rate| (0.0..1.0).contains(rate)) && epsilon > 0.0 {
            return Ok(());
        }
        let message =
            format!("expected momentum, rho and betas in 0..1 and epsilon above 0, got {self:?}");
        Err(Error::argument("optimizer", message))
    }
}

impl fmt::Display for OptimizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rule of that name, with Keras' constants and no momentum.
impl FromStr for OptimizerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [OptimizerKind::sgd(0.0), OptimizerKind::rmsprop(0.0), OptimizerKind::adam()];
        let found = all.into_iter().find(|rule| rule.name() == name);
        found.ok_or_else(|| Error::unknown("optimizer", name, &OptimizerKind::NAMES))
    }
}

/// Parameters that share a learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// What a network has of its own.
    #[default]
    Head,
    /// What it took over.
    Base,
}

/// A parameter that is to change, by its position in the network, and its gradient.
pub struct Update<'a> {
    /// Its position, by which its state is found again.
    pub index: usize,
    /// What changes: f32 or f64, on any device.
    pub parameter: &'a mut Tensor,
    /// Of the parameter's shape, type and device.
    pub gradient: Gradient,
    /// Which learning rate it has.
    pub group: Group,
}

fn kind(tensor: &Tensor) -> (Shape, DType, Device) {
    (tensor.shape(), tensor.dtype(), tensor.device())
}

impl Gradient {
    fn kind(&self) -> (Shape, DType, Device) {
        match self {
            Gradient::Dense(tensor) => kind(tensor),
            Gradient::LowRank(factors) => (factors.shape(), DType::F32, Device::Cpu),
        }
    }
}

/// A rule with its state. Parameters are told apart by their position in the network.
///
/// ```
/// use atrous::optimizers::{Optimizer, OptimizerKind};
/// use atrous::prelude::*;
///
/// let mut x = Tensor::from([1.0f32]).leaf();
/// let mut sgd = Optimizer::new(OptimizerKind::sgd(0.5), 0.25)?;
/// for _ in 0..2 {
///     let loss = (&x * &x)?.sum()?;
///     sgd.step([&mut x], &loss.backward()?)?;
/// }
/// // m = −.25·2, x = 1 − .5; then m = .5·m − .25·1 = −.5 and x = 0.
/// assert_eq!(x.item()?, 0.0);
/// assert_eq!((sgd.rule(), sgd.steps()), (OptimizerKind::sgd(0.5), 2));
/// let state: Vec<_> = sgd.slots().map(|(i, name, slot)| (i, name.to_string(), slot.clone())).collect();
/// assert_eq!((state[0].1.as_str(), state[0].2.item()?), ("momentum", -0.5));
///
/// // What a checkpoint keeps is enough to go on.
/// let mut resumed = Optimizer::new(OptimizerKind::sgd(0.5), 0.25)?;
/// resumed.load(sgd.steps(), state)?;
/// resumed.to_device(Device::Cpu)?;
/// let loss = (&x * &x)?.sum()?;
/// resumed.step([&mut x], &loss.backward()?)?;
/// assert_eq!(x.item()?, -0.25); // .5·m alone: at 0 there is no gradient
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: OptimizerKind,
    /// f32, as Keras stores it: callbacks compare and halve it in that type.
    pub learning_rate: f32,
    /// What it is multiplied by for each [`Group`]: a schedule's share, a base's slower pace.
    pub factors: [f32; 2],
    step: u64,
    /// By position, then in the order of the rule's slot names; empty before its first update.
    slots: Vec<Vec<Tensor>>,
}

impl Optimizer {
    /// An optimizer that has made no step. An error for rates out of their range and a learning rate that is
    /// negative or not finite.
    pub fn new(rule: OptimizerKind, learning_rate: f32) -> Result<Self> {
        rule.check()?;
        if !(learning_rate >= 0.0 && learning_rate.is_finite()) {
            let message = format!("expected a finite number of at least 0, got {learning_rate}");
            return Err(Error::argument("learning_rate", message));
        }
        Ok(Optimizer { rule, learning_rate, factors: [1.0; 2], step: 0, slots: Vec::new() })
    }

    /// Its rule.
    pub fn rule(&self) -> OptimizerKind {
        self.rule
    }

    /// [`OptimizerKind::sgd`] at this learning rate; errors as [`Optimizer::new`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut parameters = [Tensor::from([1.0f32]).leaf()];
    /// let loss = parameters[0].square()?.sum()?; // its gradient is 2
    /// Optimizer::sgd(0.25, 0.0)?.step(&mut parameters, &loss.backward()?)?;
    /// assert_eq!(parameters[0].item()?, 0.5); // 1 − .25 · 2
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sgd(learning_rate: f32, momentum: f64) -> Result<Self> {
        Self::new(OptimizerKind::sgd(momentum), learning_rate)
    }

    /// [`OptimizerKind::rmsprop`] without momentum, at this learning rate; errors as [`Optimizer::new`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut parameters = [Tensor::from([1.0f32]).leaf()];
    /// let loss = parameters[0].square()?.sum()?; // its gradient is 2
    /// Optimizer::rmsprop(0.1)?.step(&mut parameters, &loss.backward()?)?;
    /// assert!(parameters[0].item()? < 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rmsprop(learning_rate: f32) -> Result<Self> {
        Self::new(OptimizerKind::rmsprop(0.0), learning_rate)
    }

    /// [`OptimizerKind::adam`] at this learning rate; errors as [`Optimizer::new`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut parameters = [Tensor::from([1.0f32]).leaf()];
    /// let loss = parameters[0].square()?.sum()?; // its gradient is 2
    /// Optimizer::adam(0.1)?.step(&mut parameters, &loss.backward()?)?;
    /// assert!((parameters[0].item()? - 0.9).abs() < 1e-4); // the first step is as long as the rate
    /// # Ok::<(), Error>(())
    /// ```
    pub fn adam(learning_rate: f32) -> Result<Self> {
        Self::new(OptimizerKind::adam(), learning_rate)
    }

    /// Steps begun so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step of a training loop of one's own: changes the parameters, which are leaves ([`Tensor::leaf`])
    /// and stay the same leaves, by the gradients of a loss. Those that the loss does not depend on stay as
    /// they are.
    ///
    /// State (momentum, means) is kept by position: every step is to name the same parameters in the same
    /// order.
    ///
    /// An error for a parameter that is no leaf, for gradients of none of them (a loss of other tensors), and
    /// for those of another shape, type or device.
    ///
    /// ```
    /// use atrous::{Tensor, optimizers::Optimizer};
    ///
    /// let mut x = Tensor::from([4.0f32, -2.0]).leaf();
    /// let mut sgd = Optimizer::sgd(0.25, 0.0)?;
    /// for _ in 0..2 {
    ///     let loss = (&x * &x)?.sum()?;
    ///     sgd.step([&mut x], &loss.backward()?)?;
    /// }
    /// assert_eq!(x.to_vec_f64(), [1.0, -0.5]);
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn step<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = &'a mut Tensor>,
        gradients: &Gradients,
    ) -> Result<()> {
        let mut updates = Vec::new();
        for (index, parameter) in parameters.into_iter().enumerate() {
            if !parameter.requires_grad() {
                let message = format!("expected leaves (`Tensor::leaf`), got none at parameter {index}");
                return Err(Error::argument("optimizer", message));
            }
            if let Some(gradient) = gradients.get_gradient(parameter).cloned() {
                updates.push(Update { index, parameter, gradient, group: Group::Head });
            }
        }
        if updates.is_empty() {
            let message = "expected gradients by these parameters, got those of a loss of none of them";
            return Err(Error::argument("optimizer", message));
        }
        self.begin_step();
        self.update(updates, None).inspect_err(|_| self.step -= 1)
    }

    /// Counts a step. To be called before its updates.
    pub fn begin_step(&mut self) {
        self.step += 1;
    }

    /// Changes parameters by their gradients, all of one device and type. First the gradients are scaled
    /// down so that all together are no longer than `clip`, if it is given.
    ///
    /// ```
    /// use atrous::optimizers::{Group, Optimizer, OptimizerKind, Update};
    /// use atrous::prelude::*;
    ///
    /// let (mut base, mut head) = (Tensor::from([1.0f32]), Tensor::from([1.0f32]));
    /// let mut sgd = Optimizer::new(OptimizerKind::sgd(0.0), 1.0)?;
    /// sgd.factors[Group::Base as usize] = 0.1; // ten times slower
    /// sgd.begin_step();
    /// let of = |index, parameter, gradient: f32, group| {
    ///     Update { index, parameter, gradient: Tensor::from([gradient]).into(), group }
    /// };
    /// let updates = vec![of(0, &mut base, 3.0, Group::Base), of(1, &mut head, 4.0, Group::Head)];
    /// // Together the gradients are √(3² + 4²) = 5 long; both are shortened to a fifth.
    /// sgd.update(updates, Some(1.0))?;
    /// assert!((base.item()? - (1.0 - 0.1 * 0.6)).abs() < 1e-6);
    /// assert!((head.item()? - (1.0 - 0.8)).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn update(&mut self, mut updates: Vec<Update>, clip: Option<f32>) -> Result<()> {
        if self.step == 0 {
            return Err(Error::argument("optimizer", "an update before the first step was begun"));
        }
        let Some(device) = updates.first().map(|first| first.parameter.device()) else { return Ok(()) };
        let mut positions: Vec<usize> = updates.iter().map(|update| update.index).collect();
        positions.sort_unstable();
        if let Some(twice) = positions.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("parameter {} comes twice in one update", twice[0]);
            return Err(Error::argument("optimizer", message));
        }
        for Update { index, parameter, gradient, .. } in &mut updates {
            let (index, shape, dtype) = (*index, parameter.shape(), parameter.dtype());
            if self.slots.len() <= index {
                self.slots.resize(index + 1, Vec::new());
            }
            let slots = &mut self.slots[index];
            if slots.is_empty() {
                let zero = |_: &&str| Tensor::zeros(shape).to_dtype(dtype).to_device(parameter.device());
                *slots = self.rule.slot_names().iter().map(zero).collect::<Result<_>>()?;
            }
            let others = slots.iter().map(kind).chain([gradient.kind()]);
            if let Some((.., elsewhere)) =
                others.clone().chain([kind(parameter)]).find(|k| k.2 != device)
            {
                return Err(Error::Device(format!(
                    "parameters of one step are on one device: parameter {index} is on `{elsewhere}`, \
                     others on `{device}`"
                )));
            }
            for (other, of, _) in others {
                if other != shape || of != dtype || dtype == DType::U8 {
                    return Err(Error::shape(
                        "optimizer",
                        format!("a gradient and state of shape {shape} {dtype:?} at parameter {index}"),
                        format!("{other} {of:?}"),
                    ));
                }
            }
        }
        if device != Device::Cpu {
            return cuda::update(Cuda::get(device)?, self, updates, clip);
        }
        // Gradients are scaled where they are read (Pascanu et al., 2013).
        let shrink = clip.map_or(1.0, |most| {
            let norm = cpu::sum_of_squares(&updates).sqrt();
            if norm > most as f64 { most as f64 / norm } else { 1.0 }
        });
        let rates = self.factors.map(|factor| self.learning_rate * factor);
        let step = cpu::Step { rule: self.rule, rates, number: self.step, shrink };
        on_threads(device, || cpu::update(step, &mut self.slots, updates));
        Ok(())
    }

    /// Moves a model by a loss's gradients, and its statistics by what its pass found: the loss is of this
    /// pass.
    ///
    /// ```
    /// use atrous::prelude::*;
    ///
    /// let mut graph = Graph::new("line", "input", [1, 1, 1]);
    /// graph.chain(graph.input(), [Layer::Flatten, Layer::dense(1)])?;
    /// let mut model = Model::new(graph, 1);
    /// let x = Tensor::from_slice(&[0.0f32, 1.0, 2.0], [3, 1, 1, 1])?;
    /// let y = Tensor::from([[1.0f32], [3.0], [5.0]]); // 2x + 1
    /// let mut adam = Optimizer::adam(0.1)?;
    /// for _ in 0..200 {
    ///     let pass = model.run(&x, Mode::train(1, adam.steps()))?;
    ///     let loss = (&pass.output - &y)?.square()?.mean()?;
    ///     adam.begin_step();
    ///     adam.backward_and_step(&mut model, loss, pass, None)?;
    /// }
    /// let kernel = model.parameter("dense/kernel").unwrap().value.item()?;
    /// assert!((kernel - 2.0).abs() < 0.05);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn backward_and_step(
        &mut self,
        model: &mut Model,
        loss: Tensor,
        pass: ForwardOutput,
        clip: Option<f32>,
    ) -> Result<()> {
        let mut gradients = loss.backward()?;
        let gradients = pass.leaves.iter().map(|leaf| gradients.take_gradient(leaf)).collect();
        let moving = pass.moving;
        // The leaves share the parameters' memory: gone, the parameters can change in place.
        drop((pass.leaves, pass.output, pass.logits, loss));
        self.move_model(model, gradients, moving, clip)
    }

    /// [`Optimizer::backward_and_step`] with gradients that are known, one a parameter. Nobody should hold
    /// the pass's leaves any more.
    pub(crate) fn move_model(
        &mut self,
        model: &mut Model,
        gradients: Vec<Option<impl Into<Gradient>>>,
        moving: Vec<(usize, Tensor)>,
        clip: Option<f32>,
    ) -> Result<()> {
        let base = model.base_parameters();
        let parameters = model.parameters.iter_mut().zip(gradients).enumerate();
        let updates = parameters.filter_map(|(index, (parameter, gradient))| {
            let group = if index < base { Group::Base } else { Group::Head };
            Some(Update { index, parameter: &mut parameter.value, gradient: gradient?.into(), group })
        });
        self.update(updates.collect(), clip)?;
        model.update_moving(moving)
    }

    /// What a group's gradients are multiplied by in this step: Adam's correction is in it.
    pub(crate) fn rate(&self, group: Group) -> f32 {
        let rate = self.learning_rate * self.factors[group as usize];
        match self.rule {
            OptimizerKind::Adam { beta_1, beta_2, .. } => {
                corrected(rate, self.step, beta_1, beta_2) as f32
            }
            _ => rate,
        }
    }

    /// Moves the state to another device.
    pub fn to_device(&mut self, device: Device) -> Result<()> {
        for slot in self.slots.iter_mut().flatten() {
            *slot = slot.to_device(device)?;
        }
        Ok(())
    }

    /// The state, for a checkpoint: position of the parameter, name of the slot, values.
    pub fn slots(&self) -> impl Iterator<Item = (usize, &'static str, &Tensor)> {
        let names = self.rule.slot_names();
        self.slots.iter().enumerate().flat_map(move |(index, slots)| {
            names.iter().zip(slots).map(move |(&name, slot)| (index, name, slot))
        })
    }

    /// The state itself.
    #[cfg_attr(not(feature = "checkpoint"), allow(dead_code))] // Training, a feature of its own, does it.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Tensor> {
        self.slots.iter_mut().flatten()
    }

    /// Puts back what [`Optimizer::steps`] and [`Optimizer::slots`] gave.
    pub fn load(
        &mut self,
        step: u64,
        state: impl IntoIterator<Item = (usize, String, Tensor)>,
    ) -> Result<()> {
        let names = self.rule.slot_names();
        let mut loaded: Vec<Vec<Option<Tensor>>> = Vec::new();
        for (index, name, slot) in state {
            let place = names.iter().position(|known| *known == name).ok_or_else(|| {
                let message = format!("`{}` has the slots {names:?}, not `{name}`", self.rule);
                Error::argument("optimizer state", message)
            })?;
            if loaded.len() <= index {
                loaded.resize(index + 1, vec![None; names.len()]);
            }
            loaded[index][place] = Some(slot.detach());
        }
        let mut slots = Vec::with_capacity(loaded.len());
        for (index, all) in loaded.into_iter().enumerate() {
            let present = all.iter().flatten().count();
            if present != 0 && present != names.len() {
                let message = format!("parameter {index} has {present} of the slots {names:?}");
                return Err(Error::argument("optimizer state", message));
            }
            slots.push(all.into_iter().flatten().collect());
        }
        (self.step, self.slots) = (step, slots);
        Ok(())
    }
}

/// Adam's learning rate at a step: η √(1 − β₂ᵗ) / (1 − β₁ᵗ).
fn corrected(learning_rate: f32, step: u64, beta_1: f64, beta_2: f64) -> f64 {
    let t = step as f64;
    learning_rate as f64 * (1.0 - beta_2.powf(t)).sqrt() / (1.0 - beta_1.powf(t))
}

#[cfg(test)]
mod tests;
