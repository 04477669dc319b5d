//! Largest and smallest elements, over all elements or over any set of axes, and where the largest are.
//!
//! y = max x: the gradient goes to the elements that are the largest; where several are, they share it
//! evenly, as in TensorFlow: ∂L/∂x = g / n for each of n, and 0 for all others. `argmax` names the first of
//! them, and has no gradient. A NaN is larger (and smaller) than every number, as in NumPy: where there is
//! one, it is the result.
//!
//! Nothing is rounded, so the order does not matter: axes that are no neighbours are reduced one run after
//! the other. Bytes bind: 4 an element forward.

use crate::autograd::{Needs, record};
use crate::backend::cpu::simd;
use crate::backend::cpu::{math, threads};
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, arguments};
use crate::cases::{self, Case, Fill, Input};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::elementwise::Equal;
use crate::ops::reduce::{Axes, MAX_GRID, View, left_over, sum_where};
use crate::ops::{Route, binary, div, mul, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// The largest of all elements: a scalar.
///
/// See [`Tensor::max`], which has an example.
pub fn max(x: &Tensor) -> Result<Tensor> {
    reduce::<Largest>("max", x, 0..x.shape().len(), false)
}

/// The smallest of all elements: a scalar.
///
/// See [`Tensor::min`], which has an example.
pub fn min(x: &Tensor) -> Result<Tensor> {
    reduce::<Smallest>("min", x, 0..x.shape().len(), false)
}

/// The largest elements over these axes, which the result does not have any more.
///
/// See [`Tensor::max_axes`], which has an example.
pub fn max_axes(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce::<Largest>("max_axes", x, axes, false)
}

/// The smallest elements over these axes, which the result does not have any more.
///
/// See [`Tensor::min_axes`], which has an example.
pub fn min_axes(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce::<Smallest>("min_axes", x, axes, false)
}

/// The largest elements over these axes, which have length 1 in the result.
///
/// See [`Tensor::max_keepdim`], which has an example.
pub fn max_keepdim(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce::<Largest>("max_keepdim", x, axes, true)
}

/// The smallest elements over these axes, which have length 1 in the result.
///
/// See [`Tensor::min_keepdim`], which has an example.
pub fn min_keepdim(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce::<Smallest>("min_keepdim", x, axes, true)
}

impl Tensor {
    /// The largest of all elements: a scalar. An error where there are none.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [4.0, 3.0]]).max()?.item()?, 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn max(&self) -> Result<Tensor> {
        max(self)
    }

    /// The smallest of all elements: a scalar. An error where there are none.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [4.0, 3.0]]).min()?.item()?, 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn min(&self) -> Result<Tensor> {
        min(self)
    }

    /// The largest elements over these axes (`1..3`, `[0, 2]`), which the result does not have any more.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [4.0, 3.0]]).max_axes([1])?.to_string(), "[2. 4.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn max_axes(&self, axes: impl Axes) -> Result<Tensor> {
        max_axes(self, axes)
    }

    /// The smallest elements over these axes (`1..3`, `[0, 2]`), which the result does not have any more.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [4.0, 3.0]]).min_axes([1])?.to_string(), "[1. 3.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn min_axes(&self, axes: impl Axes) -> Result<Tensor> {
        min_axes(self, axes)
    }

    /// The largest elements over these axes, which have length 1 in the result: it broadcasts with `self`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32, 2.0], [4.0, 3.0]]);
    /// assert_eq!(x.max_keepdim([1])?.shape()[..], [2, 1]); // broadcasts with x
    /// # Ok::<(), Error>(())
    /// ```
    pub fn max_keepdim(&self, axes: impl Axes) -> Result<Tensor> {
        max_keepdim(self, axes)
    }

    /// The smallest elements over these axes, which have length 1 in the result: it broadcasts with `self`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32, 2.0], [4.0, 3.0]]);
    /// assert_eq!(x.min_keepdim([1])?.shape()[..], [2, 1]); // broadcasts with x
    /// # Ok::<(), Error>(())
    /// ```
    pub fn min_keepdim(&self, axes: impl Axes) -> Result<Tensor> {
        min_keepdim(self, axes)
    }

    /// Where along an axis the largest elements are: whole numbers in the tensor's own type, without that
    /// axis.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [4.0, 3.0]]).argmax(1)?.to_string(), "[1. 0.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn argmax(&self, axis: usize) -> Result<Tensor> {
        argmax(self, axis)
    }
}

/// Which of two is wanted.
trait Wanted: 'static {
    /// For `kernels/extremes.cu`.
    const SMALLEST: bool;
    /// Whether b takes a's place.
    fn is_ahead<T: Real>(b: T, a: T) -> bool;
    /// What every number is ahead of.
    const START: f32;

    #[inline(always)]
    #[allow(clippy::eq_op, reason = "a NaN is not itself")]
    fn pick<T: Real>(a: T, b: T) -> T {
        if Self::is_ahead(b, a) || b != b { b } else { a }
    }
}

struct Largest;
impl Wanted for Largest {
    const SMALLEST: bool = false;
    const START: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn is_ahead<T: Real>(b: T, a: T) -> bool {
        b > a
    }
}

struct Smallest;
impl Wanted for Smallest {
    const SMALLEST: bool = true;
    const START: f32 = f32::INFINITY;
    #[inline(always)]
    fn is_ahead<T: Real>(b: T, a: T) -> bool {
        b < a
    }
}

fn reduce<W: Wanted>(op: &'static str, x: &Tensor, axes: impl Axes, keepdim: bool) -> Result<Tensor> {
    let shape = x.shape();
    let reduced = axes.reduced(op, shape)?;
    let views = View::runs(&shape, &reduced, false);
    if views.iter().any(|view| view.reduced == 0) {
        return Err(Error::shape(op, "at least one element along the axes", shape));
    }
    let mut output = x.detach();
    for view in views {
        output = match route(op, &[&output])? {
            Route::F64 => reference::<f64, W>(view, output.values()),
            Route::Reference => reference::<f32, W>(view, output.values()),
            Route::Fast if view.inner == 1 => rows::<W>(view, output.values()),
            Route::Fast => columns::<W>(view, output.values()),
            Route::Cuda(cuda) => device::<W>(cuda, view, output)?,
        };
    }
    let output = output.with_shape(left_over(&shape, &reduced, keepdim));
    let saved = Needs::of([x]).any().then(|| (x.detach(), output.detach()));
    Ok(record(op, [x], output, move |g| {
        let (x, y) = saved.expect("saved when the input needs a gradient");
        let kept = left_over(&shape, &reduced, true);
        // 1 for each that is the largest; g, shared among so many, to each.
        let mask = binary::map(&x, &y.with_shape(kept), Equal)?;
        let count = sum_where(&mask, &reduced)?.with_shape(kept);
        Ok([Some(mul(&mask, &div(&g.with_shape(kept), &count)?)?)])
    }))
}

fn reference<T: Real, W: Wanted>(view: View, x: &[T]) -> Tensor {
    let View { outer, reduced, inner, .. } = view;
    let mut out = Buffer::<T>::new(outer * inner);
    for (at, y) in out.iter_mut().enumerate() {
        let (o, i) = (at / inner, at % inner);
        let values = (0..reduced).map(|r| x[(o * reduced + r) * inner + i]);
        *y = values.reduce(W::pick).unwrap_or_default();
    }
    Tensor::from_buffer(out, [outer * inner])
}

/// Of whole rows.
fn rows<W: Wanted>(view: View, x: &[f32]) -> Tensor {
    let (reduced, isa) = (view.reduced, isa());
    let mut out = Buffer::<f32>::new(view.outer);
    let piece = |x: &[f32]| {
        simd::vectorize(
            isa,
            #[inline(always)]
            || math::fold(x, W::START, W::pick),
        )
    };
    if view.outer < threads::count() && reduced > threads::GRAIN_SIZE {
        for (x, y) in x.chunks(reduced).zip(out.iter_mut()) {
            let pieces = reduced.div_ceil(threads::GRAIN_SIZE);
            let part = |i: usize| {
                piece(&x[i * threads::GRAIN_SIZE..reduced.min((i + 1) * threads::GRAIN_SIZE)])
            };
            *y = threads::map(pieces, part).into_iter().fold(W::START, W::pick);
        }
        return Tensor::from_buffer(out, [view.outer]);
    }
    let rows = (threads::GRAIN_SIZE / reduced).max(1);
    threads::for_each_chunk(&mut out, rows, |i, out| {
        for (row, y) in out.iter_mut().enumerate() {
            *y = piece(&x[(i * rows + row) * reduced..][..reduced]);
        }
    });
    Tensor::from_buffer(out, [view.outer])
}

/// Row against row.
fn columns<W: Wanted>(view: View, x: &[f32]) -> Tensor {
    let View { outer, reduced, inner, .. } = view;
    let rows = (threads::GRAIN_SIZE / inner.max(1)).max(16);
    let pieces = reduced.div_ceil(rows);
    let isa = isa();
    let mut partial = Buffer::<f32>::new(outer * pieces * inner);
    // Few rows: several parts are one thread's piece of work.
    let group = (threads::GRAIN_SIZE / (rows.min(reduced) * inner).max(1)).max(1);
    threads::for_each_chunk(&mut partial, (group * inner).max(1), |i, partial| {
        simd::vectorize(
            isa,
            #[inline(always)]
            || {
                for (k, most) in partial.chunks_mut(inner).enumerate() {
                    let (o, piece) = ((i * group + k) / pieces, (i * group + k) % pieces);
                    let rows = piece * rows..reduced.min((piece + 1) * rows);
                    let start = (o * reduced + rows.start) * inner;
                    most.fill(W::START);
                    for row in x[start..start + rows.len() * inner].chunks_exact(inner) {
                        most.iter_mut().zip(row).for_each(|(most, &x)| *most = W::pick(*most, x));
                    }
                }
            },
        );
    });
    match pieces {
        1 => Tensor::from_buffer(partial, [outer * inner]),
        _ => reference::<f32, W>(View { reduced: pieces, ..view }, &partial),
    }
}

/// `kernels/extremes.cu`: parts of the reduced axis first, then the largest of those.
fn device<W: Wanted>(cuda: &'static Cuda, view: View, x: Tensor) -> Result<Tensor> {
    let View { outer, reduced, inner, .. } = view;
    let n = outer * inner;
    // Enough blocks to fill the device, few enough that the second pass is short.
    let length = reduced.div_ceil(256).max(2048 / inner.clamp(1, 256)).max(1);
    let parts = reduced.div_ceil(length).max(1);
    let one = |x: &Tensor, reduced: usize, length: usize, parts: usize| {
        let y = cuda.allocate(n * parts, DType::F32)?;
        let (r, i, l) = (reduced as i64, inner as i64, length as i64);
        for first in (0..outer).step_by(MAX_GRID) {
            let count = (outer - first).min(MAX_GRID);
            let (grid, block, name) = match inner {
                1 => ([parts, count, 1], [256, 1, 1], "extremes_rows"),
                _ => ([inner.div_ceil(32), parts, count], [32, 8, 1], "extremes_columns"),
            };
            let x = x.memory().address() + 4 * (first * reduced * inner) as u64;
            let y = y.address() + 4 * (first * parts * inner) as u64;
            let all = arguments![x, y, r, i, l, W::SMALLEST as i32];
            // SAFETY: x is outer · reduced · inner floats, of which these are `count` · reduced · inner; each
            // block writes its own of the outer · parts · inner results, new.
            unsafe {
                cuda.launch(Kernel::of("extremes", name), LaunchConfig::grid(grid, block)?, &all)?
            };
        }
        Ok::<_, Error>(Tensor::from_memory(y, [n * parts]))
    };
    let partial = one(&x, reduced, length, parts)?;
    if parts == 1 { Ok(partial) } else { one(&partial, parts, parts, 1) }
}

/// Where along an axis the largest elements are, the first where several are equal: whole numbers in the type
/// of x, without that axis. Off the tape.
///
/// See [`Tensor::argmax`], which has an example.
pub fn argmax(x: &Tensor, axis: usize) -> Result<Tensor> {
    let shape = x.shape();
    let reduced = [axis].reduced("argmax", shape)?;
    let [view] = View::runs(&shape, &reduced, false)[..] else {
        unreachable!("one axis is one run");
    };
    if view.reduced == 0 {
        return Err(Error::shape("argmax", "at least one element along the axis", shape));
    }
    let output = match route("argmax", &[x])? {
        Route::F64 => places::<f64>(view, x.values()),
        Route::Cuda(cuda) => device_places(cuda, view, x)?,
        _ => places::<f32>(view, x.values()),
    };
    Ok(output.with_shape(left_over(&shape, &reduced, false)))
}

fn places<T: Real>(view: View, x: &[T]) -> Tensor {
    let View { outer, reduced, inner, .. } = view;
    let mut out = Buffer::<T>::new(outer * inner);
    let results = (threads::GRAIN_SIZE / (4 * reduced)).max(1);
    threads::for_each_chunk(&mut out, results, |i, out| {
        for (k, y) in out.iter_mut().enumerate() {
            let (o, column) = ((i * results + k) / inner, (i * results + k) % inner);
            let value = |r: usize| x[(o * reduced + r) * inner + column];
            let (mut place, mut most) = (0, value(0));
            for r in 1..reduced {
                let next = value(r);
                if next > most || (is_nan(next) && !is_nan(most)) {
                    (place, most) = (r, next);
                }
            }
            *y = T::from_f64(place as f64);
        }
    });
    Tensor::from_buffer(out, [outer * inner])
}

#[allow(clippy::eq_op, reason = "a NaN is not itself")]
fn is_nan<T: Real>(x: T) -> bool {
    x != x
}

fn device_places(cuda: &'static Cuda, view: View, x: &Tensor) -> Result<Tensor> {
    let n = view.outer * view.inner;
    let y = cuda.allocate(n, DType::F32)?;
    let all = arguments![x.memory(), &y, n as i64, view.reduced as i64, view.inner as i64];
    // SAFETY: x is outer · reduced · inner floats, y is outer · inner, new.
    unsafe { cuda.launch(Kernel::of("extremes", "extremes_places"), LaunchConfig::elements(n), &all)? };
    Ok(Tensor::from_memory(y, [n]))
}

pub(crate) fn cases() -> Vec<Case> {
    type Op = fn(&Tensor, &[usize], bool) -> Result<Tensor>;
    let max: Op = |x, axes, keepdim| if keepdim { max_keepdim(x, axes) } else { max_axes(x, axes) };
    let min: Op = |x, axes, keepdim| if keepdim { min_keepdim(x, axes) } else { min_axes(x, axes) };
    let mut all = Vec::new();
    for (op, f) in [("max", max), ("min", min)] {
        for (name, size, shape, axes, keepdim) in [
            ("all", cases::Size::Tiny, &[2, 3, 5, 7][..], &[0, 1, 2, 3][..], false),
            ("rows", cases::Size::Tiny, &[3, 4, 37], &[2], false),
            ("columns", cases::Size::Tiny, &[5, 3, 8], &[0], false),
            ("apart", cases::Size::Tiny, &[3, 5, 7, 11], &[0, 2], true),
            ("none", cases::Size::Tiny, &[3, 5], &[], false),
            ("rows_in_pieces", cases::Size::Tiny, &[2, 70001], &[1], false),
            ("columns_in_pieces", cases::Size::Tiny, &[2, 9001, 11], &[1], true),
            ("16x112x112x64_all", cases::Size::Real, &[16, 112, 112, 64], &[0, 1, 2, 3], false),
            ("16x112x112x64_by_channel", cases::Size::Real, &[16, 112, 112, 64], &[0, 1, 2], false),
        ] {
            let inputs = vec![Input::new("x", shape).fill(Fill::Distinct)];
            all.push(Case::new(op, name, size, inputs, move |t| f(&t[0], axes, keepdim)));
        }
    }
    for (name, size, shape, axis) in [
        ("classes", cases::Size::Tiny, &[2, 5, 7, 21][..], 3),
        ("channels", cases::Size::Tiny, &[3, 9, 4], 1),
        ("16x224x224x21", cases::Size::Real, &[16, 224, 224, 21], 3),
    ] {
        let inputs = vec![Input::new("x", shape).fill(Fill::Distinct).constant()];
        all.push(Case::new("argmax", name, size, inputs, move |t| argmax(&t[0], axis)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;

    fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(values, shape).unwrap()
    }

    #[test]
    fn equal_ones_share_the_gradient_evenly() {
        let x = tensor(&[1.0, 4.0, 4.0, 2.0, 3.0, 2.0], &[2, 3]).leaf();
        for isa in supported() {
            let gradient = |y: Tensor| {
                let g = tensor(&[6.0, 8.0], &[2]).to_dtype(y.dtype());
                with_isa(isa, || y.backward_from(g)).unwrap().take(&x).unwrap().to_vec_f64()
            };
            let largest = with_isa(isa, || x.max_axes([1])).unwrap();
            assert_eq!(largest.to_vec_f64(), [4.0, 3.0]);
            assert_eq!(gradient(largest), [0.0, 3.0, 3.0, 0.0, 8.0, 0.0]);
            let smallest = with_isa(isa, || x.min_axes([1])).unwrap();
            assert_eq!(gradient(smallest), [6.0, 0.0, 0.0, 4.0, 0.0, 4.0]);
        }
    }

    #[test]
    fn a_nan_is_the_result_wherever_it_stands_and_infinities_are_numbers() {
        let low = f32::NEG_INFINITY;
        for isa in supported() {
            with_isa(isa, || {
                for place in 0..40 {
                    let mut values = vec![low; 40];
                    values[place] = f32::NAN;
                    for x in [tensor(&values, &[40]), tensor(&values, &[40, 1])] {
                        assert!(x.max().unwrap().item().unwrap().is_nan());
                        assert!(x.min_axes([0]).unwrap().item().unwrap().is_nan());
                    }
                    assert_eq!(tensor(&values, &[40]).argmax(0).unwrap().item().unwrap(), place as f64);
                }
                assert_eq!(tensor(&[low; 3], &[3]).max().unwrap().item().unwrap(), f64::NEG_INFINITY);
            });
        }
    }

    #[test]
    fn argmax_is_the_first_of_equal_ones() {
        let x = tensor(&[1.0, 5.0, 5.0, 7.0, 7.0, 0.0], &[2, 3]);
        assert_eq!(x.argmax(1).unwrap().to_vec_f64(), [1.0, 0.0]);
        assert_eq!(x.argmax(0).unwrap().to_vec_f64(), [1.0, 1.0, 0.0]);
        assert!(!x.leaf().argmax(0).unwrap().requires_grad());
    }

    #[test]
    fn of_nothing_there_is_no_largest() {
        let x = Tensor::zeros([2, 0]);
        let error = x.max_axes([1]).unwrap_err().to_string();
        assert_eq!(error, "max_axes: expected at least one element along the axes, got [2×0]");
        assert_eq!(x.max_axes([0]).unwrap().shape()[..], [0]);
        assert!(x.argmax(1).is_err() && x.argmax(2).is_err() && Tensor::zeros([0]).min().is_err());
    }
}
