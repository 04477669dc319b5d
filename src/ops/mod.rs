//! The registry: one module an operator, one line a module (`operators!`).
//!
//! Each module holds, in this order: the formula and its gradient; the shape rule; the naive
//! reference, generic over f32 and f64; the fast CPU kernel; the node on the tape; the cases.
//!
//! Most functions are methods of [`Tensor`] too, and the example of each is there. As functions:
//!
//! ```
//! use atrous::{Tensor, ops};
//!
//! let x = Tensor::from([[1.0f32, -2.0], [3.0, 4.0]]);
//! let y = ops::relu(&x)?;
//! assert_eq!(ops::sum_axes(&y, [0])?.to_string(), "[4. 4.]");
//! assert_eq!(ops::concat(&[&x, &y], 1)?.shape()[..], [2, 4]);
//! assert_eq!(ops::matmul(&x, &y)?.to_string(), "[[-5. -8.]\n [15. 16.]]");
//! # Ok::<(), atrous::Error>(())
//! ```

use crate::backend::cpu::simd::Isa;
use crate::backend::cuda::Cuda;
use crate::cases::Case;
use crate::context::isa;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

pub(crate) mod binary;
pub(crate) mod broadcast;
pub(crate) mod epilogue;
pub mod operators;
pub mod padding;
pub(crate) mod separable_conv2d;
pub(crate) mod strided;
pub(crate) mod unary;

pub(crate) use conv2d::Convolution;
pub(crate) use epilogue::Epilogue;
pub use padding::Padding;
pub(crate) use padding::{padded, span};

/// A line an operator: its module, and what of it is called `ops::…`. Its cases join those of all.
///
/// (rustfmt does not look for modules into a macro: `cargo fmt -- src/ops/*.rs src/ops/*/mod.rs` names them.)
macro_rules! operators {
    ($($module:ident { $($export:ident),* })*) => {
        $(pub mod $module;)*
        $(pub use $module::{$($export),*};)*

        /// The cases of all operators. [`Case`] has an example of one.
        pub fn cases() -> Vec<Case> {
            [$($module::cases()),*].into_iter().flatten().collect()
        }
    };
}

operators! {
    activation { relu, relu6, sigmoid, tanh }
    affine { affine }
    batch_norm { BatchNorm, batch_norm_infer, batch_norm_train }
    concat { concat }
    conv2d { Conv2dOptions, conv2d }
    cross_entropy {
        CategoricalGradient, binary_cross_entropy, binary_cross_entropy_of_probabilities,
        binary_focal_cross_entropy, categorical_cross_entropy_of_probabilities, softmax_cross_entropy,
        sparse_focal_cross_entropy, sparse_softmax_cross_entropy
    }
    dense { dense }
    depthwise_conv2d { depthwise_conv2d }
    dropout { dropout }
    elementwise { add, clip, div, maximum, minimum, mul, scale, sign, sub }
    extremes { argmax, max, max_axes, max_keepdim, min, min_axes, min_keepdim }
    functions { abs, exp, ln, neg, recip, sqrt, square }
    group_norm { group_norm }
    leaky_relu { leaky_relu }
    matmul { matmul }
    pad { zero_pad2d }
    permute { permute, transpose }
    pool { PoolOptions, average_pool2d, global_average_pool, global_max_pool, max_pool2d }
    reduce { Axes, mean, mean_axes, mean_keepdim, sum, sum_axes, sum_keepdim }
    reshape { flatten, reshape }
    resize { Method, resize }
    sign_step { Bounds, sign_step }
    slice { slice }
    softmax { softmax }
}

/// Where and how an operator computes.
pub(crate) enum Route {
    /// The reference, in f64.
    F64,
    /// The reference, in f32.
    Reference,
    /// The CPU's kernels.
    Fast,
    Cuda(&'static Cuda),
}

impl Route {
    /// Whether an operator makes the activation after it ([`Activation`]) in its own pass.
    pub(crate) fn fuses(&self) -> bool {
        matches!(self, Route::Fast | Route::Cuda(_))
    }
}

/// The way for these inputs: all of one type, f32 or f64, and on one device.
pub(crate) fn route(op: &'static str, inputs: &[&Tensor]) -> Result<Route> {
    let device = inputs[0].device();
    if let Some(other) = inputs.iter().find(|input| input.device() != device) {
        let other = other.device();
        return Err(Error::Device(format!("{op}: one input is on `{device}`, one on `{other}`")));
    }
    Ok(match (one_dtype(op, inputs)?, device) {
        (_, Device::Cuda(_) | Device::Emulated) => Route::Cuda(Cuda::get(device)?),
        (DType::F64, Device::Cpu) => Route::F64,
        _ if isa() == Isa::Reference => Route::Reference,
        _ => Route::Fast,
    })
}

/// The element type that all inputs of an operator have: f32 or f64. For operators that run on the
/// CPU alone so far: others ask for a [`route`].
pub(crate) fn common_dtype(op: &'static str, inputs: &[&Tensor]) -> Result<DType> {
    match inputs.iter().find(|input| input.device() != Device::Cpu) {
        Some(there) => {
            Err(Error::Device(format!("{op}: it is not on `{}` yet, only on `cpu`", there.device())))
        }
        None => one_dtype(op, inputs),
    }
}

fn one_dtype(op: &'static str, inputs: &[&Tensor]) -> Result<DType> {
    let first = inputs[0].dtype();
    let wrong = inputs.iter().find(|input| input.dtype() != first || input.dtype() == DType::U8);
    match wrong {
        None => Ok(first),
        Some(wrong) => Err(Error::DType {
            op,
            expected: if first == DType::U8 { "F32 or F64".into() } else { format!("{first:?}") },
            got: format!("{:?}", wrong.dtype()),
        }),
    }
}
