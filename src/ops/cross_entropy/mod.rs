//! Cross-entropy losses: each one node, from the last layer's logits z to the mean loss, a scalar.
//!
//! A row is the last axis; y are its labels, p its softmax or sigmoid, C its length:
//!
//! | loss                          | L of a row                                  | ∂L/∂zⱼ        |
//! |-------------------------------|---------------------------------------------|---------------|
//! | `binary_cross_entropy`        | 1/C Σⱼ max(zⱼ, 0) − zⱼyⱼ + ln(1 + e^−⎮zⱼ⎮)  | (pⱼ − yⱼ)/C   |
//! | `softmax_cross_entropy`       | −Σⱼ yⱼ ln pⱼ                                | see below     |
//! | `sparse_softmax_cross_entropy`| −ln pₖ, k the row's label                   | pⱼ − [j = k]  |
//!
//! The loss is Σᵢ wᵢLᵢ / N over all N rows: Keras' SUM_OVER_BATCH_SIZE, which does not divide by
//! the sum of the weights. (p − y) is the gradient of `softmax_cross_entropy` only where a row's
//! labels sum to 1; TensorFlow's fused kernel uses it always. [`CategoricalGradient`] says which.
//!
//! The `_of_probabilities` losses take p itself, after a softmax or sigmoid of one's own. They clip
//! it to [ε, 1 − ε] with ε = 1e-7, and have no gradient where they do: for use where there are no
//! logits. With q = p / Σp and c = clip(q), aⱼ = yⱼ/cⱼ where q is not clipped and else 0:
//! L = −Σ yⱼ ln cⱼ, ∂L/∂pⱼ = (Σₖ aₖqₖ − aⱼ) / Σp. With c = clip(p):
//! L = −1/C Σ yⱼ ln(cⱼ + ε) + (1 − yⱼ) ln(1 − cⱼ + ε), as TensorFlow 2.6 has it.
//!
//! The forward pass already has what the gradient is made of, so it computes and saves that, in
//! the place where p would have been saved; the backward pass only scales it.

use crate::autograd::{Needs, record};
use crate::backend::cpu::simd;
use crate::backend::cpu::threads;
use crate::backend::cpu::transpose::{self, TransposedRows};
use crate::cases::{Case, Fill, Input, Size};
use crate::context::isa;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::elementwise::scale_owned;
use crate::ops::{Route, common_dtype, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Shape, Tensor};
use cuda::Loss;
use kernels::*;
use short_rows::ShortRows;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

mod cuda;
mod kernels;
mod short_rows;

/// What the gradient of `softmax_cross_entropy` by the logits is, where the labels of a row do not
/// sum to 1 (several classes in one image).
///
/// ```
/// use atrous::ops::{self, CategoricalGradient};
/// use atrous::prelude::*;
///
/// let gradient = |kind| {
///     let z = Tensor::from([[0.0f32, 0.0, 0.0, 0.0]]).leaf(); // p = 1/4 each
///     let both = Tensor::from([[1.0f32, 1.0, 0.0, 0.0]]);
///     let loss = ops::softmax_cross_entropy(&z, &both, None, Some(kind))?;
///     Ok::<_, Error>(loss.backward()?.get(&z).unwrap().to_vec_f64())
/// };
/// assert_eq!(gradient(CategoricalGradient::True)?, [-0.5, -0.5, 0.5, 0.5]); // 2 · 1/4 − y
/// assert_eq!(gradient(CategoricalGradient::Keras)?, [-0.75, -0.75, 0.25, 0.25]); // 1/4 − y
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CategoricalGradient {
    /// p − y: not the derivative of the loss, but what TensorFlow and Keras train with.
    Keras,
    /// (Σy)·p − y: the derivative.
    True,
}

/// Σ over rows of w·(mean binary cross-entropy of a row), by the number of rows.
///
/// ```
/// # use atrous::{Tensor, ops};
/// let (logits, labels) = (Tensor::zeros([2, 3]), Tensor::ones([2, 3])); // ln 2 an element
/// let plain = ops::binary_cross_entropy(&logits, &labels, None)?.item()?;
/// assert!((plain - 2f64.ln()).abs() < 1e-6);
/// let weights = Tensor::from([3.0f32, 0.0]); // of the rows: the sum is by their number, not by 3
/// let weighted = ops::binary_cross_entropy(&logits, &labels, Some(&weights))?.item()?;
/// assert!((weighted - 1.5 * 2f64.ln()).abs() < 1e-6);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn binary_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
) -> Result<Tensor> {
    let op = "binary_cross_entropy";
    match dense(op, logits, labels)? {
        Route::F64 => rows::<f64>(op, logits, weights, |i, z, d| binary(z, row(labels, z, i), d)),
        Route::Cuda(cuda) => cuda::loss(cuda, op, logits, weights, Loss::Binary(labels, 0.0)),
        _ => rows::<f32>(op, logits, weights, |i, z, d| binary(z, row(labels, z, i), d)),
    }
}

/// Σ over rows of w·(cross-entropy of labels and softmax), by the number of rows. Where the labels
/// of a row do not sum to 1, the gradient has to be chosen.
///
/// ```
/// # use atrous::{Tensor, ops};
/// let (logits, labels) = (Tensor::zeros([2, 4]), Tensor::eye(4).slice([0..2])?);
/// let weights = Tensor::from([3.0f32, 0.0]); // of the rows
/// let loss = ops::softmax_cross_entropy(&logits, &labels, Some(&weights), None)?.item()?;
/// assert!((loss - 1.5 * 4f64.ln()).abs() < 1e-6);
/// // Two classes in one row: the loss is one, but which gradient it has must be said.
/// assert!(ops::softmax_cross_entropy(&logits, &Tensor::ones([2, 4]), None, None).is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn softmax_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
    gradient: Option<CategoricalGradient>,
) -> Result<Tensor> {
    let op = "softmax_cross_entropy";
    let route = dense(op, logits, labels)?;
    if gradient.is_none() {
        one_label_a_row(op, &labels.to_device(Device::Cpu)?)?;
    }
    let keras = gradient != Some(CategoricalGradient::True);
    match route {
        Route::F64 => {
            rows::<f64>(op, logits, weights, |i, z, d| categorical(z, row(labels, z, i), keras, d))
        }
        Route::Reference => {
            rows::<f32>(op, logits, weights, |i, z, d| categorical(z, row(labels, z, i), keras, d))
        }
        Route::Cuda(cuda) => cuda::loss(cuda, op, logits, weights, Loss::Categorical(labels, keras)),
        Route::Fast => rows::<f32>(
            op,
            logits,
            weights,
            #[inline(always)]
            |i, z, d| fast_categorical(z, row(labels, z, i), keras, d),
        ),
    }
}

/// Σ over rows of w·(−ln p of the row's label), by the number of rows, ignored ones included.
///
/// `labels` are floats, truncated toward zero as Keras does, or u8; of the shape of the logits
/// without the last axis, or with 1 there. A row labelled `ignore` has weight 0.
///
/// ```
/// # use atrous::{Tensor, ops};
/// let labels = Tensor::from_u8(&[0, 255], [2])?; // the border of an object, which is no class
/// let logits = Tensor::zeros([2, 4]);
/// let loss = ops::sparse_softmax_cross_entropy(&logits, &labels, None, Some(255))?.item()?;
/// assert!((loss - 4f64.ln() / 2.0).abs() < 1e-6); // one row counts, by the number of both
/// assert!(ops::sparse_softmax_cross_entropy(&logits, &labels, None, None).is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn sparse_softmax_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
    ignore: Option<i64>,
) -> Result<Tensor> {
    let op = "sparse_softmax_cross_entropy";
    let route = route(op, &[logits])?;
    if let Route::Cuda(cuda) = route {
        one_label(op, logits, labels)?;
        return cuda::loss(cuda, op, logits, weights, Loss::Sparse(labels, ignore, 0.0));
    }
    let classes = classes(op, logits, labels, ignore)?;
    match route {
        Route::F64 => rows::<f64>(op, logits, weights, |i, z, d| sparse(z, classes[i], d)),
        Route::Reference => rows::<f32>(op, logits, weights, |i, z, d| sparse(z, classes[i], d)),
        _ => match TransposedRows::new(logits.shape().last_length()) {
            Some(turn) => {
                let (isa, turn) = (isa(), &turn);
                pieces::<f32>(op, logits, weights, |rows, z, weights, gradient, scale| {
                    let classes = &classes[rows];
                    simd::dispatch(isa, ShortRows { turn, z, classes, weights, gradient, scale })
                })
            }
            None => rows::<f32>(
                op,
                logits,
                weights,
                #[inline(always)]
                |i, z, d| fast_sparse(z, classes[i], d),
            ),
        },
    }
}

/// [`binary_cross_entropy`] with each element's share ℓ = −ln p weighted by (1 − p)^γ: what is right
/// already counts for little (Lin et al., "Focal Loss for Dense Object Detection", 2017). Labels
/// between 0 and 1 make no focal loss in the paper; here they take e^(−ℓ) for p.
///
/// ```
/// # use atrous::{Tensor, ops};
/// let (logits, labels) = (Tensor::zeros([1, 2]), Tensor::ones([1, 2])); // p = 1/2
/// let loss = ops::binary_focal_cross_entropy(&logits, &labels, 2.0)?.item()?;
/// assert!((loss - 0.25 * 2f64.ln()).abs() < 1e-6); // (1 − 1/2)²
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn binary_focal_cross_entropy(logits: &Tensor, labels: &Tensor, gamma: f64) -> Result<Tensor> {
    let op = "binary_focal_cross_entropy";
    match dense(op, logits, labels)? {
        Route::Cuda(cuda) => cuda::loss(cuda, op, logits, None, Loss::Binary(labels, gamma as f32)),
        Route::F64 => {
            rows::<f64>(op, logits, None, |i, z, d| focal_binary(z, row(labels, z, i), gamma, d))
        }
        _ => {
            rows::<f32>(op, logits, None, |i, z, d| focal_binary(z, row(labels, z, i), gamma as f32, d))
        }
    }
}

/// [`sparse_softmax_cross_entropy`] with each row weighted by (1 − p)^γ.
///
/// ```
/// # use atrous::{Tensor, ops};
/// let (logits, labels) = (Tensor::zeros([1, 2]), Tensor::from([1.0f32])); // p = 1/2
/// let loss = ops::sparse_focal_cross_entropy(&logits, &labels, 2.0, None)?.item()?;
/// assert!((loss - 0.25 * 2f64.ln()).abs() < 1e-6);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn sparse_focal_cross_entropy(
    logits: &Tensor,
    labels: &Tensor,
    gamma: f64,
    ignore: Option<i64>,
) -> Result<Tensor> {
    let op = "sparse_focal_cross_entropy";
    let route = route(op, &[logits])?;
    if let Route::Cuda(cuda) = route {
        one_label(op, logits, labels)?;
        return cuda::loss(cuda, op, logits, None, Loss::Sparse(labels, ignore, gamma as f32));
    }
    let classes = classes(op, logits, labels, ignore)?;
    match route {
        Route::F64 => rows::<f64>(op, logits, None, |i, z, d| focal_sparse(z, classes[i], gamma, d)),
        _ => rows::<f32>(op, logits, None, |i, z, d| focal_sparse(z, classes[i], gamma as f32, d)),
    }
}

/// [`binary_cross_entropy`] of probabilities instead of logits.
///
/// ```
/// # use atrous::{Tensor, ops};
/// let (p, y) = (Tensor::from([[0.25f32, 0.25]]), Tensor::from([[1.0f32, 0.0]]));
/// let loss = ops::binary_cross_entropy_of_probabilities(&p, &y, None)?.item()?;
/// assert!((loss + (0.25f64.ln() + 0.75f64.ln()) / 2.0).abs() < 1e-6);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn binary_cross_entropy_of_probabilities(
    probabilities: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
) -> Result<Tensor> {
    let (op, p) = ("binary_cross_entropy_of_probabilities", probabilities);
    match dense(op, p, labels)? {
        Route::Cuda(cuda) => cuda::loss(cuda, op, p, weights, Loss::RawBinary(labels)),
        Route::F64 => rows::<f64>(op, p, weights, |i, p, d| raw_binary(p, row(labels, p, i), d)),
        _ => rows::<f32>(op, p, weights, |i, p, d| raw_binary(p, row(labels, p, i), d)),
    }
}

/// [`softmax_cross_entropy`] of probabilities instead of logits; they are divided by their sum.
///
/// ```
/// # use atrous::{Tensor, ops};
/// let (p, y) = (Tensor::from([[0.5f32, 1.5]]), Tensor::from([[1.0f32, 0.0]])); // of a sum of 2
/// let loss = ops::categorical_cross_entropy_of_probabilities(&p, &y, None)?.item()?;
/// assert!((loss - 4f64.ln()).abs() < 1e-6);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn categorical_cross_entropy_of_probabilities(
    probabilities: &Tensor,
    labels: &Tensor,
    weights: Option<&Tensor>,
) -> Result<Tensor> {
    let (op, p) = ("categorical_cross_entropy_of_probabilities", probabilities);
    match dense(op, p, labels)? {
        Route::Cuda(cuda) => cuda::loss(cuda, op, p, weights, Loss::RawCategorical(labels)),
        Route::F64 => rows::<f64>(op, p, weights, |i, p, d| raw_categorical(p, row(labels, p, i), d)),
        _ => rows::<f32>(op, p, weights, |i, p, d| raw_categorical(p, row(labels, p, i), d)),
    }
}

/// Checks a label an element.
fn dense(op: &'static str, logits: &Tensor, labels: &Tensor) -> Result<Route> {
    if labels.shape() != logits.shape() {
        return Err(Error::shape(op, format!("labels of shape {}", logits.shape()), labels.shape()));
    }
    route(op, &[logits, labels])
}

/// The i-th row of the labels, as long as a row of the logits.
#[inline(always)]
fn row<'a, T: Real>(labels: &'a Tensor, logits: &[T], i: usize) -> &'a [T] {
    &labels.values()[i * logits.len()..(i + 1) * logits.len()]
}

fn one_label_a_row(op: &'static str, labels: &Tensor) -> Result<()> {
    fn find<T: Real>(labels: &Tensor) -> Option<(usize, f64)> {
        let rows = labels.values::<T>().chunks(labels.shape().last_length().max(1));
        let mut sums = rows.map(|row| row.iter().map(|y| y.to_f64()).sum::<f64>()).enumerate();
        // Labels divided by their sum are off by rounding. Written so that a NaN is found, too.
        sums.find(|(_, sum)| (sum - 1.0).abs().partial_cmp(&1e-4).is_none_or(|o| o.is_gt()))
    }
    let found = if labels.dtype() == DType::F64 { find::<f64>(labels) } else { find::<f32>(labels) };
    match found {
        None => Ok(()),
        Some((row, sum)) => Err(Error::argument(
            op,
            format!(
                "the labels of row {row} sum to {sum}, not to 1: choose the gradient to train with, \
                 `keras` (p − y) or `true` (Σy·p − y), or take binary cross-entropy"
            ),
        )),
    }
}

/// Checks that there is a label a row, on the logits' device; how many classes there are, and the
/// logits' other axes.
fn one_label(op: &'static str, logits: &Tensor, labels: &Tensor) -> Result<(usize, Vec<usize>)> {
    let shape = logits.shape();
    let Some((&count, leading)) = shape.split_last() else {
        return Err(Error::shape(op, "logits of at least one axis", shape));
    };
    let with_one = labels.shape().split_last() == Some((&1, leading));
    if *labels.shape() != *leading && !with_one {
        let expected = format!("labels of shape {}", Shape::of(leading));
        return Err(Error::shape(op, expected, labels.shape()));
    }
    if labels.device() != logits.device() {
        let (z, y) = (logits.device(), labels.device());
        return Err(Error::Device(format!("{op}: the logits are on `{z}`, the labels on `{y}`")));
    }
    Ok((count, leading.to_vec()))
}

/// Truncates the labels and checks their range.
fn classes(
    op: &'static str,
    logits: &Tensor,
    labels: &Tensor,
    ignore: Option<i64>,
) -> Result<Buffer<u32>> {
    let (count, leading) = one_label(op, logits, labels)?;
    let mut out = Buffer::<u32>::new(leading.iter().product());
    let wrong = match labels.dtype() {
        DType::F32 => truncate(labels.values::<f32>(), count, ignore, |&y| y as f64, &mut out),
        DType::F64 => truncate(labels.values::<f64>(), count, ignore, |&y| y, &mut out),
        DType::U8 => {
            truncate(labels.as_u8().unwrap_or_default(), count, ignore, |&y| y as f64, &mut out)
        }
    };
    let Some((i, label)) = wrong else { return Ok(out) };
    let (mut rest, mut place) = (i, leading);
    for axis in place.iter_mut().rev() {
        (rest, *axis) = (rest / *axis, rest % *axis);
    }
    let message = format!("expected a label in 0..{count}, got {label} at {place:?}");
    Err(Error::argument(op, message))
}

/// The first label that is no class, with its position.
fn truncate<T: Sync>(
    labels: &[T],
    count: usize,
    ignore: Option<i64>,
    number: impl Fn(&T) -> f64 + Sync + Send,
    out: &mut [u32],
) -> Option<(usize, f64)> {
    const WRONG: u32 = u32::MAX - 1;
    const PIECE: usize = threads::GRAIN_SIZE / 8;
    let (isa, count) = (isa(), count as f64);
    // What no label is equal to.
    let ignore = ignore.map_or(f64::NAN, |ignore| ignore as f64);
    let wrong = AtomicBool::new(false);
    threads::for_each_chunk(out, PIECE, |i, out| {
        let labels = &labels[i * PIECE..][..out.len()];
        simd::vectorize(
            isa,
            #[inline(always)]
            || {
                let mut all = 0;
                for (out, label) in out.iter_mut().zip(labels) {
                    let class = number(label).trunc();
                    let known = class >= 0.0 && class < count;
                    // Within the range of i32, or not used.
                    let narrow = class.clamp(-1.0, 2e9) as i32 as u32;
                    let class = if class == ignore {
                        IGNORED
                    } else if known {
                        narrow
                    } else {
                        WRONG
                    };
                    all |= (class == WRONG) as u32;
                    *out = class;
                }
                if all != 0 {
                    wrong.store(true, Ordering::Relaxed);
                }
            },
        );
    });
    let first = wrong.into_inner().then(|| out.iter().position(|&class| class == WRONG))??;
    Some((first, number(&labels[first])))
}

/// What the losses share. `f` gets the number of a row, its logits, and where to write the
/// gradient of its loss, which it returns.
fn rows<T: Real>(
    op: &'static str,
    logits: &Tensor,
    weights: Option<&Tensor>,
    f: impl Fn(usize, &[T], &mut [T]) -> T + Sync + Send,
) -> Result<Tensor> {
    let isa = isa();
    pieces::<T>(op, logits, weights, |rows, z, weights, mut gradient, scale| {
        let columns = z.len() / rows.len();
        // Without a gradient to keep, its rows are written to one scratch row.
        let mut scratch = vec![T::ZERO; if gradient.is_none() { columns } else { 0 }];
        simd::vectorize(
            isa,
            #[inline(always)]
            || {
                let mut total = 0.0;
                for (k, z) in z.chunks_exact(columns).enumerate() {
                    let weight = weights.map_or(T::ONE, |weights| weights[k]);
                    let d = match &mut gradient {
                        Some(gradient) => &mut gradient[k * columns..(k + 1) * columns],
                        None => &mut scratch,
                    };
                    total += (weight * f(rows.start + k, z, d)).to_f64();
                    let scale = weight * scale;
                    d.iter_mut().for_each(|d| *d *= scale);
                }
                total
            },
        )
    })
}

/// The mean loss, and its node. `f` gets some rows: their numbers, their logits and weights, where to write
/// the gradient, if it is wanted, and what to multiply it by beside the weight; it gives Σ w·L.
fn pieces<T: Real>(
    op: &'static str,
    logits: &Tensor,
    weights: Option<&Tensor>,
    f: impl Fn(Range<usize>, &[T], Option<&[T]>, Option<&mut [T]>, T) -> f64 + Sync + Send,
) -> Result<Tensor> {
    let shape = logits.shape();
    if shape.elements() == 0 {
        return Err(Error::shape(op, "at least one row of at least one element", shape));
    }
    let columns = shape.last_length();
    let n = shape.elements() / columns;
    if let Some(weights) = weights {
        common_dtype(op, &[logits, weights])?;
        if weights.shape().elements() != n {
            return Err(Error::shape(op, format!("{n} sample weights, one a row"), weights.shape()));
        }
    }
    let weights = weights.map(|weights| weights.values::<T>());
    let (values, wanted) = (logits.values::<T>(), Needs::of([logits]).any());
    let mut gradient = Buffer::<T>::new(if wanted { shape.elements() } else { 0 });
    let piece = (threads::GRAIN_SIZE / 4).div_ceil(columns).next_multiple_of(transpose::ROWS);
    let mut gradients = gradient.chunks_mut(piece * columns);
    let mut sums: Vec<_> = (0..n.div_ceil(piece)).map(|_| (0.0, gradients.next())).collect();
    threads::for_each_chunk(&mut sums, 1, |p, sums| {
        let (sum, gradient) = &mut sums[0];
        let rows = p * piece..n.min((p + 1) * piece);
        let z = &values[rows.start * columns..rows.end * columns];
        let weights = weights.map(|weights| &weights[rows.clone()]);
        *sum = f(rows, z, weights, gradient.as_deref_mut(), T::ONE / T::from_f64(n as f64));
    });
    let total: f64 = sums.iter().map(|(sum, _)| sum).sum();
    let output = Tensor::scalar(T::from_f64(total / n as f64));
    let gradient = wanted.then(|| Tensor::from_buffer(gradient, shape));
    Ok(record(op, [logits], output, move |g| {
        let gradient = gradient.map(|gradient| match g.item()? {
            1.0 => Ok(gradient),
            factor => scale_owned(gradient, factor),
        });
        Ok([gradient.transpose()?])
    }))
}

pub(crate) fn cases() -> Vec<Case> {
    type Run = fn(&[Tensor]) -> Result<Tensor>;
    let binary: Run = |t| binary_cross_entropy(&t[0], &t[1], t.get(2));
    let focal: Run = |t| binary_focal_cross_entropy(&t[0], &t[1], 2.0);
    let focal_sparse: Run = |t| sparse_focal_cross_entropy(&t[0], &t[1], 1.5, Some(3));
    let raw_binary: Run = |t| binary_cross_entropy_of_probabilities(&t[0], &t[1], t.get(2));
    let raw_categorical: Run = |t| categorical_cross_entropy_of_probabilities(&t[0], &t[1], t.get(2));
    let one_label: Run = |t| softmax_cross_entropy(&t[0], &t[1], t.get(2), None);
    let keras: Run = |t| softmax_cross_entropy(&t[0], &t[1], t.get(2), Some(CategoricalGradient::Keras));
    let derivative: Run =
        |t| softmax_cross_entropy(&t[0], &t[1], t.get(2), Some(CategoricalGradient::True));
    let sparse: Run = |t| sparse_softmax_cross_entropy(&t[0], &t[1], t.get(2), None);
    let ignoring: Run = |t| sparse_softmax_cross_entropy(&t[0], &t[1], t.get(2), Some(3));

    let (logits, probabilities) = (Fill::Uniform(-5.0, 5.0), Fill::Uniform(0.05, 0.95));
    // Shape and content of the logits and of the labels; shape of the weights.
    let case = |op, name, size, z: (&[usize], &Fill), y: (&[usize], Fill), w: Option<&[usize]>, run| {
        let mut inputs = vec![
            Input::new("logits", z.0).fill(z.1.clone()),
            Input::new("labels", y.0).fill(y.1).constant(),
        ];
        inputs.extend(w.map(|w| Input::new("weights", w).fill(Fill::Uniform(0.3, 2.0)).constant()));
        Case::new(op, name, size, inputs, run)
    };
    let row = |op, name, z: &Fill, y, w, run: Run| {
        case(op, name, Size::Tiny, (&[5, 23], z), (&[5, 23], y), w, run)
    };
    let batch =
        |op, y, run: Run| case(op, "64x20", Size::Real, (&[64, 20], &logits), (&[64, 20], y), None, run);
    let pixels = |name, size, z: &[usize], y: &[usize], w, run: Run| {
        let labels = Fill::Labels(z[z.len() - 1]);
        case("sparse_softmax_cross_entropy", name, size, (z, &logits), (y, labels), w, run)
    };
    let flags = || Fill::Flags(0.3);
    let w: Option<&[usize]> = Some(&[5]);
    vec![
        row("binary_cross_entropy", "flags", &logits, flags(), None, binary),
        row("binary_cross_entropy", "weighted", &logits, flags(), w, binary),
        batch("binary_cross_entropy", flags(), binary),
        row("softmax_cross_entropy", "one_hot", &logits, Fill::OneHot, None, one_label),
        row("softmax_cross_entropy", "weighted", &logits, Fill::OneHot, w, one_label),
        row("softmax_cross_entropy", "multi_hot_true", &logits, flags(), w, derivative),
        row("softmax_cross_entropy", "multi_hot_keras", &logits, flags(), w, keras).surrogate(),
        batch("softmax_cross_entropy", Fill::OneHot, one_label),
        row("binary_focal_cross_entropy", "flags", &logits, flags(), None, focal),
        case(
            "sparse_focal_cross_entropy",
            "ignored",
            Size::Tiny,
            (&[2, 3, 5, 7], &logits),
            (&[2, 3, 5], Fill::Labels(7)),
            None,
            focal_sparse,
        ),
        pixels("pixels", Size::Tiny, &[2, 4, 5, 21], &[2, 4, 5], None, sparse),
        pixels("ignored", Size::Tiny, &[2, 3, 5, 7], &[2, 3, 5, 1], Some(&[2, 3, 5]), ignoring),
        pixels("pieces", Size::Tiny, &[997, 21], &[997], None, sparse),
        pixels("long_rows", Size::Tiny, &[5, 61], &[5], None, sparse),
        pixels("4x224x224x21", Size::Real, &[4, 224, 224, 21], &[4, 224, 224], None, ignoring)
            .peer("softmax_cross_entropy", "[4] 21 classes 224x224"),
        pixels("rows_of_32", Size::Tiny, &[7, 32], &[7], None, sparse),
        pixels("rows_of_16", Size::Tiny, &[7, 16], &[7], None, sparse),
        row("binary_cross_entropy_of_probabilities", "flags", &probabilities, flags(), w, raw_binary),
        row(
            "categorical_cross_entropy_of_probabilities",
            "flags",
            &probabilities,
            flags(),
            w,
            raw_categorical,
        ),
    ]
}

/// The mean losses of rows of logits (what is in front of the sigmoid or softmax): scalars on the tape. The
/// functions have weights of samples besides.
impl Tensor {
    /// [`binary_cross_entropy`] of logits and labels `[N, ...]` from 0 to 1: any number of classes at once.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (logits, labels) = (Tensor::from([[0.0f32, 0.0]]), Tensor::from([[1.0f32, 0.0]]));
    /// let loss = logits.binary_cross_entropy_with_logits(&labels)?.item()?;
    /// assert!((loss - 2f64.ln()).abs() < 1e-6); // as good as a coin
    /// # Ok::<(), Error>(())
    /// ```
    pub fn binary_cross_entropy_with_logits(&self, labels: &Tensor) -> Result<Tensor> {
        binary_cross_entropy(self, labels, None)
    }

    /// [`softmax_cross_entropy`] of logits and labels `[..., classes]`: a row of flags with one class each.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (logits, labels) = (Tensor::from([[0.0f32, 0.0]]), Tensor::from([[1.0f32, 0.0]]));
    /// let loss = logits.softmax_cross_entropy(&labels)?.item()?;
    /// assert!((loss - 2f64.ln()).abs() < 1e-6); // as good as a coin
    /// # Ok::<(), Error>(())
    /// ```
    pub fn softmax_cross_entropy(&self, labels: &Tensor) -> Result<Tensor> {
        softmax_cross_entropy(self, labels, None, None)
    }

    /// [`sparse_softmax_cross_entropy`] of logits `[..., classes]` and labels `[...]`: the number of a class
    /// each.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (logits, labels) = (Tensor::from([[0.0f32, 0.0]]), Tensor::from([1.0f32])); // class 1
    /// let loss = logits.sparse_softmax_cross_entropy(&labels)?.item()?;
    /// assert!((loss - 2f64.ln()).abs() < 1e-6);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sparse_softmax_cross_entropy(&self, labels: &Tensor) -> Result<Tensor> {
        sparse_softmax_cross_entropy(self, labels, None, None)
    }
}

#[cfg(test)]
mod tests;
