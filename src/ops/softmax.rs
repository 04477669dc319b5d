//! Softmax over the last axis. For a row x with m = maxₖ xₖ:
//!
//! yⱼ = e^(xⱼ − m) / Σₖ e^(xₖ − m);  ∂L/∂xⱼ = yⱼ (gⱼ − Σₖ gₖ yₖ).
//!
//! To train on, take [`crate::ops::cross_entropy`], which goes from logits to the loss at once.

use crate::autograd::record;
use crate::backend::cpu::simd::{self, Kernel, Vector};
use crate::backend::cpu::transpose::{self, TransposedRows};
use crate::backend::cpu::{math, threads};
use crate::backend::cuda::{self, Cuda, arguments};
use crate::cases::{Case, Fill, Input, Size};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// Softmax over the last axis.
///
/// See [`Tensor::softmax`], which has an example.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    if x.shape().is_empty() {
        return Err(Error::shape("softmax", "at least one axis", "a scalar"));
    }
    let output = match route("softmax", &[x])? {
        Route::F64 => rows::<f64, 1>([x], |[x], y| reference(x, y)),
        Route::Reference => rows::<f32, 1>([x], |[x], y| reference(x, y)),
        Route::Fast => match TransposedRows::new(x.shape().last_length()) {
            Some(turn) => turned(&turn, [x]),
            None => rows::<f32, 1>(
                [x],
                #[inline(always)]
                |[x], y| fast(x, y),
            ),
        },
        Route::Cuda(cuda) => device(cuda, &[x])?,
    };
    let saved = output.detach();
    Ok(record("softmax", [x], output, move |g| {
        Ok([Some(match route("softmax", &[&saved, &g])? {
            Route::F64 => rows::<f64, 2>([&saved, &g], |[y, g], d| reference_backward(y, g, d)),
            Route::Reference => rows::<f32, 2>([&saved, &g], |[y, g], d| reference_backward(y, g, d)),
            Route::Fast => match TransposedRows::new(saved.shape().last_length()) {
                Some(turn) => turned(&turn, [&saved, &g]),
                None => rows::<f32, 2>(
                    [&saved, &g],
                    #[inline(always)]
                    |[y, g], d| fast_backward(y, g, d),
                ),
            },
            Route::Cuda(cuda) => device(cuda, &[&saved, &g])?,
        })])
    }))
}

impl Tensor {
    /// eˣ / Σ eˣ over the last axis. An error for a scalar.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let p = Tensor::from([[0.0f32, 0.0], [0.0, 3f32.ln()]]).softmax()?;
    /// assert_eq!(p.to_string(), "[[0.5  0.5 ]\n [0.25 0.75]]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn softmax(&self) -> Result<Tensor> {
        softmax(self)
    }
}

/// `kernels/softmax.cu`: of x, or of y and g.
fn device(cuda: &'static Cuda, inputs: &[&Tensor]) -> Result<Tensor> {
    let shape = inputs[0].shape();
    let columns = shape.last_length();
    let rows = shape.elements() / columns.max(1);
    let width = i32::try_from(columns)
        .map_err(|_| Error::argument("softmax", format!("{columns} columns are too many")))?;
    let out = cuda.allocate(shape.elements(), DType::F32)?;
    let mut all: Vec<cuda::Argument> = inputs.iter().map(|input| input.memory().into()).collect();
    all.extend(arguments![&out, rows as i64, width]);
    let (name, size) = match inputs.len() {
        1 => {
            let (size, staged) = cuda::LaunchConfig::rows(rows, columns);
            all.push((staged as i32).into());
            ("softmax_forward", size)
        }
        _ => ("softmax_backward", cuda::LaunchConfig::elements(rows)),
    };
    // SAFETY: all are rows · columns floats, the last one new; the shared memory is what the kernel asks for.
    unsafe { cuda.launch(cuda::Kernel::of("softmax", name), size, &all)? };
    Ok(Tensor::from_memory(out, shape))
}

/// Runs `f` on the rows of inputs of one shape, each into its row of the result.
fn rows<T: Real, const N: usize>(
    inputs: [&Tensor; N],
    f: impl Fn([&[T]; N], &mut [T]) + Sync + Send,
) -> Tensor {
    let (shape, isa) = (inputs[0].shape(), isa());
    let columns = shape.last_length().max(1);
    let piece = (threads::GRAIN_SIZE / 4).div_ceil(columns) * columns;
    let inputs = inputs.map(|input| input.values::<T>());
    let mut out = Buffer::<T>::new(shape.elements());
    threads::for_each_chunk(&mut out, piece, |i, out| {
        simd::vectorize(
            isa,
            #[inline(always)]
            || {
                for (row, out) in out.chunks_mut(columns).enumerate() {
                    let start = i * piece + row * columns;
                    f(inputs.map(|input| &input[start..start + columns]), out);
                }
            },
        );
    });
    Tensor::from_buffer(out, shape)
}

fn reference<T: Real>(x: &[T], y: &mut [T]) {
    let largest = x.iter().fold(x[0], |m, &x| m.max(x));
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - largest).exp());
    let total: T = y.iter().copied().sum();
    y.iter_mut().for_each(|y| *y = *y / total);
}

fn reference_backward<T: Real>(y: &[T], g: &[T], d: &mut [T]) {
    let dot: T = y.iter().zip(g).map(|(&y, &g)| y * g).sum();
    d.iter_mut().zip(y.iter().zip(g)).for_each(|(d, (&y, &g))| *d = y * (g - dot));
}

#[inline(always)]
fn fast(x: &[f32], y: &mut [f32]) {
    let largest = math::max(x);
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = math::exp(x - largest));
    let scale = 1.0 / math::sum(y);
    y.iter_mut().for_each(|y| *y *= scale);
}

#[inline(always)]
fn fast_backward(y: &[f32], g: &[f32], d: &mut [f32]) {
    d.iter_mut().zip(y.iter().zip(g)).for_each(|(d, (&y, &g))| *d = y * g);
    let dot = math::sum(d);
    d.iter_mut().zip(y.iter().zip(g)).for_each(|(d, (&y, &g))| *d = y * (g - dot));
}

/// [`rows`] for short ones.
fn turned<const N: usize>(turn: &TransposedRows, inputs: [&Tensor; N]) -> Tensor
where
    for<'a> Turned<'a, N>: Kernel<Output = ()>,
{
    let (shape, isa) = (inputs[0].shape(), isa());
    let group = transpose::ROWS * shape.last_length();
    let piece = (threads::GRAIN_SIZE / 4).div_ceil(group) * group;
    let inputs = inputs.map(|input| input.values::<f32>());
    let mut out = Buffer::<f32>::new(shape.elements());
    threads::for_each_chunk(&mut out, piece, |i, out| {
        let inputs = inputs.map(|input| &input[i * piece..][..out.len()]);
        simd::dispatch(isa, Turned { turn, inputs, out });
    });
    Tensor::from_buffer(out, shape)
}

/// Some rows: of x, or of y and g.
struct Turned<'a, const N: usize> {
    turn: &'a TransposedRows,
    inputs: [&'a [f32]; N],
    out: &'a mut [f32],
}

impl Kernel for Turned<'_, 1> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: inside `dispatch`.
        unsafe {
            self.turn.each::<V, 1>(
                self.inputs,
                Some(self.out),
                #[inline(always)]
                |_, [x]| {
                    let scale = transpose::exp_and_sum::<V>(x).1.map(|total| 1.0 / total);
                    transpose::scale(x, &scale);
                },
            )
        };
    }
}

impl Kernel for Turned<'_, 2> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: as above.
        unsafe {
            self.turn.each::<V, 2>(
                self.inputs,
                Some(self.out),
                #[inline(always)]
                |_, [y, g]| {
                    let mut dot = [0.0f32; transpose::ROWS];
                    for (y, g) in y.iter().zip(&*g) {
                        (0..transpose::ROWS).for_each(|r| dot[r] += y[r] * g[r]);
                    }
                    for (y, g) in y.iter_mut().zip(g) {
                        (0..transpose::ROWS).for_each(|r| y[r] *= g[r] - dot[r]);
                    }
                },
            )
        };
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &'static str, size, shape: &[usize]| {
        let inputs = vec![Input::new("x", shape).fill(Fill::Uniform(-6.0, 6.0))];
        Case::new("softmax", name, size, inputs, |t| softmax(&t[0]))
    };
    vec![
        case("classes_20", Size::Tiny, &[5, 20]),
        case("pixels", Size::Tiny, &[2, 3, 5, 21]),
        case("vector", Size::Tiny, &[37]),
        case("one_class", Size::Tiny, &[4, 1]),
        case("long_rows", Size::Tiny, &[3, 61]),
        case("pieces", Size::Tiny, &[997, 21]),
        case("too_long_to_turn", Size::Tiny, &[19, 71]),
        case("16x224x224x21", Size::Real, &[16, 224, 224, 21]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logits_neither_overflow_nor_vanish_together() {
        let x = Tensor::from_slice(&[1e30f32, 0.0, -1e30, -5000.0, -5000.0, -5000.0], [2, 3]).unwrap();
        let y = softmax(&x).unwrap().to_vec_f64();
        assert_eq!(y[..3], [1.0, 0.0, 0.0]);
        assert!(y[3..].iter().all(|y| (y - 1.0 / 3.0).abs() < 1e-6), "{y:?}");
        assert!(softmax(&Tensor::scalar(1.0f32)).is_err());
    }

    #[test]
    fn one_nan_makes_its_row_nan_and_no_other() {
        let x = Tensor::from_slice(&[f32::NAN, 0.0, 1.0, 2.0], [2, 2]).unwrap();
        let y = softmax(&x).unwrap().to_vec_f64();
        assert!(y[0].is_nan() && y[1].is_nan() && y[2].is_finite() && y[3].is_finite());
    }
}
