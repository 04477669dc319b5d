//! The losses on a CUDA device: launches of `kernels/cross_entropy.cu`. A label that is no class makes
//! the loss NaN there: to say which it was, the CPU would have to wait.

use crate::autograd::{Needs, record};
use crate::backend::cuda::{Argument, Cuda, Kernel, LaunchConfig, Memory, arguments};
use crate::error::{Error, Result};
use crate::ops::{mean, mul, route};
use crate::tensor::{DType, Tensor};

/// Which loss, with its labels.
pub(super) enum Loss<'a> {
    /// γ, 0 for none.
    Binary(&'a Tensor, f32),
    /// Is the gradient p − y whatever the labels' sum?
    Categorical(&'a Tensor, bool),
    /// The ignored label, and γ, 0 for none.
    Sparse(&'a Tensor, Option<i64>, f32),
    RawBinary(&'a Tensor),
    RawCategorical(&'a Tensor),
}

/// Σ w·L / N of the rows of `logits`, a scalar on the device.
pub(super) fn loss(
    cuda: &'static Cuda,
    op: &'static str,
    logits: &Tensor,
    weights: Option<&Tensor>,
    loss: Loss,
) -> Result<Tensor> {
    let shape = logits.shape();
    if shape.elements() == 0 {
        return Err(Error::shape(op, "at least one row of at least one element", shape));
    }
    let columns = shape.last_length();
    let rows = shape.elements() / columns;
    if let Some(weights) = weights {
        route(op, &[logits, weights])?;
        if weights.shape().elements() != rows {
            return Err(Error::shape(op, format!("{rows} sample weights, one a row"), weights.shape()));
        }
    }
    let width = i32::try_from(columns)
        .map_err(|_| Error::argument("cross_entropy", format!("{columns} classes are too many")))?;
    let losses = cuda.allocate(rows, DType::F32)?;
    let gradient = match Needs::of([logits]).any() {
        true => Some(cuda.allocate(shape.elements(), DType::F32)?),
        false => None,
    };
    let address = |memory: Option<&Memory>| memory.map_or(0, Memory::address);
    let mut size = LaunchConfig::elements(rows);
    let (name, labels, rest): (_, &Tensor, Vec<Argument>) = match loss {
        Loss::Binary(labels, gamma) => ("cross_entropy_binary", labels, arguments![gamma].into()),
        Loss::Categorical(labels, keras) => {
            ("cross_entropy_categorical", labels, arguments![keras as i32].into())
        }
        Loss::Sparse(labels, ignore, gamma) => {
            let bytes = (labels.dtype() == DType::U8) as i32;
            let (ignores, ignored) = (ignore.is_some() as i32, ignore.unwrap_or(0));
            let staged = LaunchConfig::rows(rows, columns).1 as i32;
            let rest = arguments![bytes, ignores, ignored, gamma, staged];
            size = LaunchConfig::rows(rows, columns).0;
            ("cross_entropy_sparse", labels, rest.into())
        }
        Loss::RawBinary(labels) => ("cross_entropy_raw_binary", labels, Vec::new()),
        Loss::RawCategorical(labels) => ("cross_entropy_raw_categorical", labels, Vec::new()),
    };
    let mut all: Vec<Argument> = arguments![
        logits.memory(),
        labels.memory(),
        address(weights.map(Tensor::memory)),
        &losses,
        address(gradient.as_ref()),
        rows as i64,
        width,
    ]
    .into();
    all.extend(rest);
    // SAFETY: the callers checked the labels' shape; the weights are one a row or null; the results are
    // new, and the gradient is as large as the logits or null.
    unsafe { cuda.launch(Kernel::of("cross_entropy", name), size, &all)? };
    let output = mean(&Tensor::from_memory(losses, [rows]))?;
    let gradient = gradient.map(|gradient| Tensor::from_memory(gradient, shape));
    Ok(record(op, [logits], output, move |g| {
        Ok([gradient.map(|gradient| mul(&gradient, &g)).transpose()?])
    }))
}
