//! The registry: one room an operator.
//!
//! Each room holds, in this order: the formula and its gradient; the shape rule; the naive
//! reference, generic over f32 and f64; the fast CPU kernel; the node on the tape; the cases.

use crate::cases::Case;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

pub mod affine;
pub mod elementwise;
pub mod reduce;
pub mod resize;

pub use affine::affine;
pub use elementwise::{add, clip, mul, scale, sign, sub};
pub use reduce::sum;
pub use resize::resize;

/// The cases of all operators.
pub fn cases() -> Vec<Case> {
    [affine::cases(), elementwise::cases(), reduce::cases(), resize::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// The element type that all inputs of an operator have: f32 or f64.
pub(crate) fn common_dtype(op: &'static str, inputs: &[&Tensor]) -> Result<DType> {
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
