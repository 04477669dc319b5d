//! The `real` cases of the operators, and the optimizers.

use super::{Machine, Timing, milliseconds, tenths, time_on};
use crate::backend::cpu::simd::Isa;
use crate::cases::{Case, Size};
use crate::context::{no_grad, on_threads, with_isa};
use crate::device::Device;
use crate::error::Result;
use crate::optimizers::{Group, Optimizer, OptimizerKind, Update};
use crate::tensor::{DType, Tensor};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Work to time, with its name here; its peers' name is in the line that comes out.
///
/// ```
/// use atrous::Device;
/// use atrous::backend::cpu::simd::Isa;
/// use atrous::bench::{CustomShape, Machine};
///
/// // (`Machine::measure` takes seconds to find the last two.)
/// let machine = Machine { isa: Isa::Portable, threads: 1, fma_gflops: 100.0, triad_gbps: 10.0 };
/// let shape = CustomShape { input: vec![4, 32], ..CustomShape::default() };
/// let line = shape.op("relu")?.measure(&machine, Device::Cpu, false)?;
/// assert!(line["fwd_ms"].as_f64().is_some());
/// # Ok::<(), atrous::Error>(())
/// ```
pub enum Op {
    /// Forward and backward pass of an operator on a `real` case.
    Case(Box<Case>),
    /// One update by the rule of this name.
    Optimizer(&'static str),
}

/// All `real` cases of the operators, and an update by each optimizer.
///
/// ```
/// use atrous::bench::ops;
///
/// let names: Vec<String> = ops().iter().map(|op| op.name()).collect();
/// assert!(names.iter().any(|name| name.starts_with("conv2d/")));
/// assert!(names.contains(&"optimizer/adam".into()));
/// ```
pub fn ops() -> Vec<Op> {
    let cases = crate::ops::cases().into_iter().filter(|case| case.size == Size::Real);
    let optimizers = OptimizerKind::NAMES.into_iter().map(Op::Optimizer);
    cases.map(|case| Op::Case(Box::new(case))).chain(optimizers).collect()
}

impl Op {
    /// `conv2d/3x3_same` or `optimizer/adam`.
    pub fn name(&self) -> String {
        match self {
            Op::Case(case) => case.full_name(),
            Op::Optimizer(rule) => format!("optimizer/{rule}"),
        }
    }

    /// A line of JSON with its times in milliseconds. With `reference` the naive reference's
    /// forward pass is timed too (seconds a case).
    pub fn measure(
        &self,
        machine: &Machine,
        device: Device,
        reference: bool,
    ) -> Result<Map<String, Value>> {
        let mut line = Map::new();
        line.insert("case".into(), json!(self.name()));
        line.insert("device".into(), json!(device.to_string()));
        line.insert("threads".into(), json!(machine.threads));
        match self {
            Op::Case(case) => measure_case(case, machine, device, reference, &mut line)?,
            Op::Optimizer(rule) => measure_optimizer(rule, device, &mut line)?,
        }
        Ok(line)
    }
}

fn measure_case(
    case: &Case,
    machine: &Machine,
    device: Device,
    reference: bool,
    line: &mut Map<String, Value>,
) -> Result<()> {
    let [op, shape] = case.peer.unwrap_or([case.op, &case.name]);
    line.insert("op".into(), json!(op));
    line.insert("shape".into(), json!(shape));
    line.insert("batch".into(), json!(case.inputs[0].shape.first()));
    let place = |input: &Tensor| {
        let there = input.to_device(device)?;
        Ok(if input.requires_grad() { there.leaf() } else { there })
    };
    let inputs = case.tensors(DType::F32).iter().map(place).collect::<Result<Vec<Tensor>>>()?;
    let output = no_grad(|| (case.run)(&inputs))?;
    let upstream = case.upstream(&output).to_device(device)?;
    let bytes = case.least_bytes(&output);
    drop(output);
    let forward = || no_grad(|| (case.run)(&inputs)).map(drop);
    let both = || {
        let gradients = (case.run)(&inputs)?.backward_from(upstream.clone())?;
        // A gradient may be a product that is multiplied out when somebody asks for its elements.
        for gradient in inputs.iter().filter_map(|input| gradients.get(input)) {
            std::hint::black_box(gradient.as_slice::<f32>());
        }
        Ok(())
    };
    // As within a network: begun by a thread of the pool.
    let forward = on_threads(device, || time_on(device, 1.0, forward))?;
    let both = on_threads(device, || time_on(device, 1.0, both))?;
    times(line, "fwd", forward);
    times(line, "fwdbwd", both);
    let rate = |work: f64, limit: f64| {
        (work / forward.median / 1e9, 100.0 * work / forward.median / 1e9 / limit)
    };
    let (gflops, of_peak) = rate(case.flops, machine.fma_gflops);
    let (gbps, of_triad) = rate(bytes, machine.triad_gbps);
    line.insert("gflops".into(), tenths(gflops));
    line.insert("gbps".into(), tenths(gbps));
    // The limits are the CPU's.
    if device == Device::Cpu {
        line.insert("percent_fma".into(), tenths(of_peak));
        line.insert("percent_triad".into(), tenths(of_triad));
    }
    if reference {
        let start = Instant::now();
        with_isa(Isa::Reference, || no_grad(|| (case.run)(&inputs)))?;
        let ratio = start.elapsed().as_secs_f64() / forward.median;
        line.insert("reference_ratio".into(), tenths(ratio));
    }
    Ok(())
}

fn times(line: &mut Map<String, Value>, pass: &str, timing: Timing) {
    line.insert(format!("{pass}_ms"), milliseconds(timing.median));
    line.insert(format!("{pass}_quarters_ms"), timing.quarters.map(milliseconds).to_vec().into());
}

/// One update of 11 million parameters in 44 tensors.
fn measure_optimizer(rule: &str, device: Device, line: &mut Map<String, Value>) -> Result<()> {
    const PARAMETERS: usize = 11_000_000;
    const TENSORS: usize = 44;
    let (name, kind) = match rule {
        "sgd" => ("optimizer_sgd_momentum", OptimizerKind::sgd(0.9)),
        "rmsprop" => ("optimizer_rmsprop", OptimizerKind::rmsprop(0.0)),
        _ => ("optimizer_adam", OptimizerKind::adam()),
    };
    line.insert("op".into(), json!(name));
    line.insert("shape".into(), json!(format!("{PARAMETERS} parameters in {TENSORS} tensors")));
    let mut optimizer = Optimizer::new(kind, 1e-4)?;
    let tensors = |value: f32| {
        let tensor = |_| Tensor::full([PARAMETERS / TENSORS], value).to_device(device);
        (0..TENSORS).map(tensor).collect::<Result<Vec<Tensor>>>()
    };
    let (mut parameters, gradients) = (tensors(0.5)?, tensors(0.1)?);
    let timing = time_on(device, 1.0, || {
        optimizer.begin_step();
        let pairs = parameters.iter_mut().zip(&gradients).enumerate();
        let updates = pairs.map(|(index, (parameter, gradient))| Update {
            index,
            parameter,
            gradient: gradient.clone().into(),
            group: Group::default(),
        });
        optimizer.update(updates.collect(), None)
    })?;
    times(line, "fwd", timing);
    Ok(())
}
