//! Updates on a CUDA device: launches of `kernels/optimizers.cu`, each for many parameters.

use super::{Group, Optimizer, OptimizerKind, Update};
use crate::backend::cuda::{Argument, Cuda, Kernel, LaunchConfig, Memory, Value, arguments, graph};
use crate::error::{Error, Result};
use crate::tensor::{DType, Gradient};

/// The kernels' `MOST` and `SHARE`.
const MOST: usize = 64;
const SHARE: usize = 256 * 16;

/// `struct Parameters` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    parameter: [u64; MOST],
    gradient: [u64; MOST],
    first: [u64; MOST],
    second: [u64; MOST],
    length: [i64; MOST],
    first_block: [i32; MOST + 1],
    count: i32,
}
// SAFETY: numbers; 320 of 8 bytes, then 66 of 4: no padding.
unsafe impl Value for Parameters {}

/// `struct Changing` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
struct Changing {
    rate: f32,
    padding: i32,
    rate_at: u64,
    scale_at: u64,
}
// SAFETY: numbers without padding that is not named.
unsafe impl Value for Changing {}

/// Addresses of a parameter, its gradient and its state.
struct One {
    parameter: u64,
    gradient: u64,
    slots: [u64; 2],
    length: usize,
    group: Group,
}

impl Parameters {
    /// Up to [`MOST`] of them, and the blocks they take.
    fn new(all: &[&One]) -> Result<(Self, usize)> {
        let none = [0; MOST];
        let mut p = Parameters {
            parameter: none,
            gradient: none,
            first: none,
            second: none,
            length: [0; MOST],
            first_block: [0; MOST + 1],
            count: all.len() as i32,
        };
        let mut blocks = 0;
        for (i, one) in all.iter().enumerate() {
            (p.parameter[i], p.gradient[i]) = (one.parameter, one.gradient);
            [p.first[i], p.second[i]] = one.slots;
            p.length[i] = one.length as i64;
            blocks += one.length.div_ceil(SHARE);
            p.first_block[i + 1] = i32::try_from(blocks).map_err(|_| {
                Error::argument("optimizer", format!("{} elements are too many", one.length))
            })?;
        }
        Ok((p, blocks))
    }
}

/// One step, in place.
pub(super) fn update(
    cuda: &'static Cuda,
    optimizer: &mut Optimizer,
    mut updates: Vec<Update>,
    clip: Option<f32>,
) -> Result<()> {
    let mut all = Vec::with_capacity(updates.len());
    for Update { index, parameter, gradient, group } in &mut updates {
        parameter.make_unique()?;
        let mut slots = [0; 2];
        for (address, slot) in slots.iter_mut().zip(&mut optimizer.slots[*index]) {
            slot.make_unique()?;
            *address = slot.memory().address();
        }
        let length = parameter.shape().elements();
        let Gradient::Dense(gradient) = gradient else {
            return Err(Error::Device("gradients in factors are the CPU's".into()));
        };
        let (parameter, gradient) = (parameter.memory().address(), gradient.memory().address());
        if length > 0 {
            all.push(One { parameter, gradient, slots, length, group: *group });
        }
    }
    let scale = clip.map(|most| scale_of(cuda, &all, most)).transpose()?;
    for group in [Group::Head, Group::Base] {
        let members: Vec<&One> = all.iter().filter(|one| one.group == group).collect();
        let now = Changing {
            rate: optimizer.rate(group),
            padding: 0,
            rate_at: graph::rate_address(group as usize),
            scale_at: scale.as_ref().map_or(0, Memory::address),
        };
        for members in members.chunks(MOST) {
            let (parameters, blocks) = Parameters::new(members)?;
            let (name, all) = rule_arguments(optimizer.rule, parameters, now);
            // SAFETY: the caller saw that parameters, state and gradients are of one size each; parameters
            // and state are nobody else's (`Tensor::make_unique`).
            unsafe { cuda.launch(Kernel::of("optimizers", name), size(blocks)?, &all)? };
        }
    }
    Ok(())
}

fn size(blocks: usize) -> Result<LaunchConfig> {
    LaunchConfig::grid([blocks, 1, 1], [256, 1, 1])
}

/// The kernel of a rule, and its arguments.
fn rule_arguments(
    rule: OptimizerKind,
    parameters: Parameters,
    now: Changing,
) -> (&'static str, Vec<Argument>) {
    match rule {
        OptimizerKind::Sgd { momentum } => {
            ("optimizers_sgd", arguments![parameters, now, momentum as f32].to_vec())
        }
        OptimizerKind::RmsProp { rho, momentum, epsilon, epsilon_inside } => {
            let (inside, outside) =
                if epsilon_inside { (epsilon as f32, 0.0f32) } else { (0.0, epsilon as f32) };
            let (rho, left, momentum) = (rho as f32, (1.0 - rho) as f32, momentum as f32);
            let all = arguments![parameters, now, rho, left, momentum, inside, outside];
            ("optimizers_rmsprop", all.to_vec())
        }
        OptimizerKind::Adam { beta_1, beta_2, epsilon } => {
            let (first, second) = ((1.0 - beta_1) as f32, (1.0 - beta_2) as f32);
            let all = arguments![parameters, now, first, second, epsilon as f32];
            ("optimizers_adam", all.to_vec())
        }
    }
}

/// What all gradients are to be multiplied by, so that together they are no longer than `most`: a float on
/// the device.
fn scale_of(cuda: &'static Cuda, all: &[One], most: f32) -> Result<Memory> {
    let members: Vec<&One> = all.iter().collect();
    let blocks: usize = all.iter().map(|one| one.length.div_ceil(SHARE)).sum();
    let partial = cuda.allocate(2 * blocks.max(1), DType::F32)?;
    let mut before = 0u64;
    for members in members.chunks(MOST) {
        let (parameters, blocks) = Parameters::new(members)?;
        let all = arguments![parameters, &partial, before as i64];
        // SAFETY: gradients are as long as the table says; `partial` has a double for every block.
        unsafe { cuda.launch(Kernel::of("optimizers", "optimizers_squares"), size(blocks)?, &all)? };
        before += blocks as u64;
    }
    let scale = cuda.allocate(1, DType::F32)?;
    let all = arguments![&partial, &scale, before as i32, most];
    // SAFETY: `partial` holds `before` doubles; `scale` is one float, new.
    unsafe { cuda.launch(Kernel::of("optimizers", "optimizers_clip"), size(1)?, &all)? };
    Ok(scale)
}
