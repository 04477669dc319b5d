//! Epilogues: what an operator makes of its result in the pass that writes it (CUTLASS' word for it).
//!
//! y = max_pool(activation(operator(x) + residual))
//!
//! A result that goes to memory and comes back for a comparison or a sum costs more than either. Each
//! operator that takes an [`Epilogue`] has one fused entry, which is total: what its kernels do not make in
//! their own pass, plain operators make after it, with the same bits. What they do make is asked for before
//! anything runs ([`Setting`]): by the entry, and by the network's plan.

use crate::activation::Activation;
use crate::backend::cpu::simd::Isa;
use crate::context::isa;
use crate::device::Device;
use crate::error::Result;
use crate::ops::batch_norm::Statistics;
use crate::ops::{Padding, PoolOptions, Route, add, max_pool2d};
use crate::tensor::{DType, Tensor};

/// The pooling that an epilogue can make: the largest of each square of 2×2.
pub(crate) const POOL: PoolOptions =
    PoolOptions { pool: [2; 2], stride: [2; 2], padding: Padding::Valid };

/// What is made of an operator's result, in this order.
#[derive(Default)]
pub(crate) struct Epilogue {
    /// Added to the result, whose shape it has; in its memory, where nobody else holds that.
    pub residual: Option<Tensor>,
    pub activation: Activation,
    /// Whether it is max pooled, 2×2 ([`POOL`]).
    pub pool: bool,
    /// Whether a batch norm comes next, and wants the statistics of what this gives.
    pub statistics: bool,
}

/// What a fused operator gives.
pub(crate) struct Fused {
    pub y: Tensor,
    /// Of y, if they were wanted and the kernel took them in passing.
    pub statistics: Option<Statistics>,
}

impl From<Activation> for Epilogue {
    fn from(activation: Activation) -> Self {
        Epilogue { activation, ..Epilogue::default() }
    }
}

impl From<Tensor> for Fused {
    fn from(y: Tensor) -> Self {
        Fused { y, statistics: None }
    }
}

impl Epilogue {
    /// The activation that the operator's kernel makes in its pass; what is left is in the epilogue. (A sum
    /// comes before it.)
    pub fn take_activation(&mut self) -> Activation {
        if self.residual.is_some() {
            return Activation::Linear;
        }
        let (fused, after) = self.activation.split();
        self.activation = after;
        fused
    }

    /// Whether nothing is made of the result.
    pub fn is_empty(&self) -> bool {
        self.residual.is_none() && self.activation == Activation::Linear && !self.pool
    }

    /// Whether pooling is all that is made of the result.
    pub fn only_pools(&self) -> bool {
        self.pool && self.residual.is_none() && self.activation == Activation::Linear
    }

    /// By plain operators, one after the other.
    pub fn apply(self, y: Tensor) -> Result<Tensor> {
        let y = match &self.residual {
            Some(residual) => add(&y, residual)?,
            None => y,
        };
        let y = self.activation.apply(y)?;
        if self.pool { max_pool2d(&y, POOL) } else { Ok(y) }
    }
}

/// Whose kernels an operator runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernels {
    /// The naive ones, in f32 or f64.
    Reference,
    Cpu(Isa),
    Cuda,
}

impl Kernels {
    /// Those that operators of this tensor run on.
    pub fn of(x: &Tensor) -> Self {
        match (x.device(), x.dtype(), isa()) {
            (Device::Cuda(_) | Device::Emulated, ..) => Kernels::Cuda,
            (Device::Cpu, DType::F32, isa) if isa != Isa::Reference => Kernels::Cpu(isa),
            (Device::Cpu, ..) => Kernels::Reference,
        }
    }
}

/// What decides, besides its geometry, which epilogues an operator's kernels make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Setting {
    pub kernels: Kernels,
    /// Whether the operator is on the tape: its gradient then needs what lies between it and its epilogue.
    pub recorded: bool,
}

/// Nothing, or why an operator does not make a part of an epilogue in its own pass.
pub(crate) type Fusable = std::result::Result<(), &'static str>;

impl Setting {
    pub fn new(route: &Route, recorded: bool) -> Self {
        let kernels = match route {
            Route::F64 | Route::Reference => Kernels::Reference,
            Route::Fast => Kernels::Cpu(isa()),
            Route::Cuda(_) => Kernels::Cuda,
        };
        Setting { kernels, recorded }
    }

    /// The instruction set, where the CPU's kernels run and no gradient is asked for.
    pub fn unrecorded_on_cpu(self) -> std::result::Result<Isa, &'static str> {
        let isa = self.on_cpu()?;
        if self.recorded { Err("its gradient needs what lies between") } else { Ok(isa) }
    }

    /// The instruction set of the CPU's kernels.
    pub fn on_cpu(self) -> std::result::Result<Isa, &'static str> {
        match self.kernels {
            Kernels::Cpu(isa) => Ok(isa),
            Kernels::Cuda => Err("no CUDA kernel does"),
            Kernels::Reference => Err("the reference kernels fuse nothing"),
        }
    }

    /// Whether an activation is made in the pass of a convolution or a batch norm.
    pub fn fuses_activation(self, activation: Activation) -> Fusable {
        match self.kernels {
            Kernels::Reference => Err("the reference kernels fuse nothing"),
            _ if activation.is_fusable() => Ok(()),
            _ => Err("it is more than comparisons"),
        }
    }
}
