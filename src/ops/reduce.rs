//! Sums and means, over all elements or over any set of axes.
//!
//! y = s · Σ x with s = 1, or 1/n for a mean of n elements; ∂L/∂x = s · g for every x that went
//! into y.
//!
//! The order of additions depends on the shape alone: short runs are added in vectors of f32, and
//! the runs' sums in f64. So a sum over a million elements is as exact as one over a few dozen,
//! and the same bits come out at any thread count. Axes that are no neighbours are summed one run of
//! neighbours after the other, the last run first.

use crate::autograd::record;
use crate::backend::cpu::simd;
use crate::backend::cpu::{math, threads};
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, arguments};
use crate::cases::{self, Case, Input};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Shape, Tensor};
use std::ops::Range;

/// Which axes a reduction goes over: a range of neighbours (`1..3`), or a list in any order (`[0, 2]`).
///
/// ```
/// use atrous::ops::Axes;
/// use atrous::prelude::*;
///
/// fn l2_norm(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
///     x.square()?.sum_axes(axes)?.sqrt()
/// }
///
/// let x = Tensor::from([[3.0f32, 4.0], [0.0, 5.0]]);
/// assert_eq!(l2_norm(&x, [1])?.to_string(), "[5. 5.]");
/// assert_eq!(l2_norm(&x, 0..2)?.item()?, 50f64.sqrt() as f32 as f64);
/// assert!(l2_norm(&x, [0, 0]).is_err()); // an axis twice
/// # Ok::<(), Error>(())
/// ```
pub trait Axes {
    /// True of each axis of the shape that is reduced. An error where there is no such axis, or one is named
    /// twice.
    fn reduced(self, op: &'static str, shape: Shape) -> Result<Vec<bool>>;
}

impl Axes for Range<usize> {
    fn reduced(self, op: &'static str, shape: Shape) -> Result<Vec<bool>> {
        match self.start <= self.end && self.end <= shape.len() {
            true => Ok((0..shape.len()).map(|axis| self.contains(&axis)).collect()),
            false => Err(Error::shape(op, format!("axes {self:?}"), shape)),
        }
    }
}

impl Axes for &[usize] {
    fn reduced(self, op: &'static str, shape: Shape) -> Result<Vec<bool>> {
        let mut reduced = vec![false; shape.len()];
        for &axis in self {
            match reduced.get_mut(axis) {
                None => return Err(Error::shape(op, format!("axes {self:?}"), shape)),
                Some(true) => {
                    return Err(Error::argument(op, format!("expected different axes, got {self:?}")));
                }
                Some(axis) => *axis = true,
            }
        }
        Ok(reduced)
    }
}

impl<const N: usize> Axes for [usize; N] {
    fn reduced(self, op: &'static str, shape: Shape) -> Result<Vec<bool>> {
        self[..].reduced(op, shape)
    }
}

/// The sum of all elements: a scalar.
///
/// See [`Tensor::sum`], which has an example.
pub fn sum(x: &Tensor) -> Result<Tensor> {
    reduce("sum", x, 0..x.shape().len(), false, false)
}

/// The mean of all elements: a scalar.
///
/// See [`Tensor::mean`], which has an example.
pub fn mean(x: &Tensor) -> Result<Tensor> {
    reduce("mean", x, 0..x.shape().len(), true, false)
}

/// The sum over these axes, which the result does not have any more.
///
/// See [`Tensor::sum_axes`], which has an example.
pub fn sum_axes(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce("sum_axes", x, axes, false, false)
}

/// The mean over these axes, which the result does not have any more.
///
/// See [`Tensor::mean_axes`], which has an example.
pub fn mean_axes(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce("mean_axes", x, axes, true, false)
}

/// The sum over these axes, which have length 1 in the result.
///
/// See [`Tensor::sum_keepdim`], which has an example.
pub fn sum_keepdim(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce("sum_keepdim", x, axes, false, true)
}

/// The mean over these axes, which have length 1 in the result.
///
/// See [`Tensor::mean_keepdim`], which has an example.
pub fn mean_keepdim(x: &Tensor, axes: impl Axes) -> Result<Tensor> {
    reduce("mean_keepdim", x, axes, true, true)
}

impl Tensor {
    /// The sum of all elements: a scalar.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]).sum()?.item()?, 10.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sum(&self) -> Result<Tensor> {
        sum(self)
    }

    /// The mean of all elements: a scalar; NaN of none.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]).mean()?.item()?, 2.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mean(&self) -> Result<Tensor> {
        mean(self)
    }

    /// The sum over these axes (`1..3`, `[0, 2]`), which the result does not have any more.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]).sum_axes([0])?.to_string(), "[4. 6.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sum_axes(&self, axes: impl Axes) -> Result<Tensor> {
        sum_axes(self, axes)
    }

    /// The mean over these axes (`1..3`, `[0, 2]`), which the result does not have any more.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]).mean_axes([1])?.to_string(), "[1.5 3.5]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mean_axes(&self, axes: impl Axes) -> Result<Tensor> {
        mean_axes(self, axes)
    }

    /// The sum over these axes, which have length 1 in the result: it broadcasts with `self`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32, 3.0], [1.0, 1.0]]);
    /// assert_eq!((&x / x.sum_keepdim([1])?)?.to_string(), "[[0.25 0.75]\n [0.5  0.5 ]]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sum_keepdim(&self, axes: impl Axes) -> Result<Tensor> {
        sum_keepdim(self, axes)
    }

    /// The mean over these axes, which have length 1 in the result: it broadcasts with `self`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32, 3.0], [1.0, 1.0]]);
    /// assert_eq!((&x - x.mean_keepdim([1])?)?.to_string(), "[[-1.  1.]\n [ 0.  0.]]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn mean_keepdim(&self, axes: impl Axes) -> Result<Tensor> {
        mean_keepdim(self, axes)
    }
}

fn reduce(op: &'static str, x: &Tensor, axes: impl Axes, mean: bool, keepdim: bool) -> Result<Tensor> {
    let shape = x.shape();
    let reduced = axes.reduced(op, shape)?;
    let views = View::runs(&shape, &reduced, mean);
    let mut output = x.detach();
    for view in &views {
        output = view.sum(op, &output)?;
    }
    let output = output.with_shape(left_over(&shape, &reduced, keepdim));
    Ok(record(op, [x], output, move |g| {
        let mut d = g;
        for view in views.iter().rev() {
            d = view.backward(op, &d)?;
        }
        Ok([Some(d.with_shape(shape))])
    }))
}

/// Sums off the tape over the axes that are marked: [`sum_axes`].
pub(crate) fn sum_where(x: &Tensor, reduced: &[bool]) -> Result<Tensor> {
    let mut output = x.detach();
    for view in View::runs(&x.shape(), reduced, false) {
        output = view.sum("sum_axes", &output)?;
    }
    Ok(output.with_shape(left_over(&x.shape(), reduced, false)))
}

/// The axes that are not reduced, and with `keepdim` the others with length 1.
pub(crate) fn left_over(shape: &Shape, reduced: &[bool], keepdim: bool) -> Shape {
    let axes = shape.iter().zip(reduced).filter(|(_, reduced)| keepdim || !**reduced);
    let axes: Vec<usize> = axes.map(|(&length, &reduced)| if reduced { 1 } else { length }).collect();
    Shape::of(&axes)
}

/// x as [outer, reduced, inner].
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub outer: usize,
    pub reduced: usize,
    pub inner: usize,
    /// What the sums are multiplied by.
    pub factor: f64,
}

/// Blocks of a grid along its second and third axis.
pub(crate) const MAX_GRID: usize = 65535;

impl View {
    /// One for each run of neighbouring axes that are reduced, to be applied in this order: the last run
    /// first.
    pub(crate) fn runs(shape: &Shape, reduced: &[bool], mean: bool) -> Vec<View> {
        let product = |axes: &[usize]| axes.iter().product::<usize>();
        let mut lengths = shape.to_vec();
        let mut views = Vec::new();
        let mut end = shape.len();
        while end > 0 {
            let start = (0..end).rev().find(|&axis| !reduced[axis]).map_or(0, |axis| axis + 1);
            if start < end {
                let reduced = product(&lengths[start..end]);
                views.push(View {
                    outer: product(&lengths[..start]),
                    reduced,
                    inner: product(&lengths[end..]),
                    factor: if mean { 1.0 / reduced as f64 } else { 1.0 },
                });
                lengths.drain(start..end);
            }
            end = start.saturating_sub(1);
        }
        if views.is_empty() {
            views.push(View { outer: product(&lengths), reduced: 1, inner: 1, factor: 1.0 });
        }
        views
    }

    fn sum(&self, op: &'static str, x: &Tensor) -> Result<Tensor> {
        Ok(match route(op, &[x])? {
            Route::F64 => self.reference::<f64>(x.values()),
            Route::Reference => self.reference::<f32>(x.values()),
            Route::Fast if self.inner == 1 => self.rows(x.values()),
            Route::Fast => self.columns(x.values()),
            Route::Cuda(cuda) => self.device(cuda, x)?,
        })
    }

    /// Every g to all the elements that were summed.
    fn backward(&self, op: &'static str, g: &Tensor) -> Result<Tensor> {
        Ok(match route(op, &[g])? {
            Route::F64 => self.spread::<f64>(g.values()),
            Route::Cuda(cuda) => self.device_spread(cuda, g)?,
            _ => self.spread::<f32>(g.values()),
        })
    }
}

/// Elements added in f32 before their sum is added in f64.
const RUN: usize = 512;

/// The sum of a slice in f64, on all threads.
pub(crate) fn total(x: &[f32]) -> f64 {
    let isa = isa();
    let piece = |x: &[f32]| {
        simd::vectorize(
            isa,
            #[inline(always)]
            || x.chunks(RUN).map(|run| math::sum(run) as f64).sum::<f64>(),
        )
    };
    if x.len() <= threads::GRAIN_SIZE {
        return piece(x);
    }
    let part = |i: usize| piece(&x[i * threads::GRAIN_SIZE..x.len().min((i + 1) * threads::GRAIN_SIZE)]);
    threads::map(x.len().div_ceil(threads::GRAIN_SIZE), part).into_iter().sum()
}

/// The rows of x (of the length of `sums`) added to each other: 32 of them in f32, these in f64.
#[inline(always)]
fn add_rows(x: &[f32], sums: &mut [f64]) {
    const WIDTH: usize = 256;
    let columns = sums.len();
    for (tile, sums) in sums.chunks_mut(WIDTH).enumerate() {
        sums.fill(0.0);
        for rows in x.chunks(32 * columns) {
            let mut run = [0.0f32; WIDTH];
            let run = &mut run[..sums.len()];
            for row in rows.chunks(columns) {
                let row = &row[tile * WIDTH..][..run.len()];
                run.iter_mut().zip(row).for_each(|(run, &x)| *run += x);
            }
            sums.iter_mut().zip(run).for_each(|(sum, &mut run)| *sum += run as f64);
        }
    }
}

impl View {
    fn reference<T: Real>(&self, x: &[T]) -> Tensor {
        let View { outer, reduced, inner, factor } = *self;
        let mut out = Buffer::<T>::new(outer * inner);
        for (i, y) in out.iter_mut().enumerate() {
            let (o, i) = (i / inner, i % inner);
            let sum: f64 = (0..reduced).map(|r| x[(o * reduced + r) * inner + i].to_f64()).sum();
            *y = T::from_f64(sum * factor);
        }
        Tensor::from_buffer(out, [outer * inner])
    }

    /// Where whole rows are summed.
    fn rows(&self, x: &[f32]) -> Tensor {
        let reduced = self.reduced;
        let mut out = Buffer::<f32>::new(self.outer);
        let rows = (threads::GRAIN_SIZE / reduced.max(1)).max(1);
        threads::for_each_chunk(&mut out, rows, |i, out| {
            for (row, y) in out.iter_mut().enumerate() {
                *y = (total(&x[(i * rows + row) * reduced..][..reduced]) * self.factor) as f32;
            }
        });
        Tensor::from_buffer(out, [self.outer])
    }

    /// Where rows are added to each other: a few hundred rows make a partial sum, and the partial
    /// sums are added in a second stage.
    fn columns(&self, x: &[f32]) -> Tensor {
        let View { outer, reduced, inner, factor } = *self;
        let rows = (threads::GRAIN_SIZE / inner.max(1)).max(RUN);
        let pieces = reduced.div_ceil(rows).max(1);
        let mut partial = Buffer::<f64>::new(outer * pieces * inner);
        // Few rows: several partial sums are one thread's piece of work.
        let group = (threads::GRAIN_SIZE / (rows.min(reduced) * inner).max(1)).max(1);
        let isa = isa();
        threads::for_each_chunk(&mut partial, (group * inner).max(1), |i, partial| {
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    for (k, sums) in partial.chunks_mut(inner).enumerate() {
                        let (o, piece) = ((i * group + k) / pieces, (i * group + k) % pieces);
                        let rows = piece * rows..reduced.min((piece + 1) * rows);
                        let start = (o * reduced + rows.start) * inner;
                        add_rows(&x[start..start + rows.len() * inner], sums);
                    }
                },
            );
        });
        let mut out = Buffer::<f32>::new(outer * inner);
        for (i, y) in out.iter_mut().enumerate() {
            let (o, column) = (i / inner, i % inner);
            let sum: f64 = (0..pieces).map(|piece| partial[(o * pieces + piece) * inner + column]).sum();
            *y = (sum * factor) as f32;
        }
        Tensor::from_buffer(out, [outer * inner])
    }

    fn device(&self, cuda: &'static Cuda, x: &Tensor) -> Result<Tensor> {
        let View { outer, reduced, inner, factor } = *self;
        let n = outer * inner;
        // Enough blocks to fill the device, few enough that the second stage is short.
        let length = reduced.div_ceil(256).max(2048 / inner.clamp(1, 256)).max(1).next_multiple_of(4);
        let parts = reduced.div_ceil(length).max(1);
        let (out, partial) = (cuda.allocate(n, DType::F32)?, cuda.scratch(8 * n * parts)?);
        let (r, i, l) = (reduced as i64, inner as i64, length as i64);
        // A grid is at most so long along its second and third axis.
        for first in (0..outer).step_by(MAX_GRID) {
            let count = (outer - first).min(MAX_GRID);
            let (grid, block, name) = match inner {
                1 => ([parts, count, 1], [256, 1, 1], "reduce_rows"),
                _ => ([inner.div_ceil(32), parts, count], [32, 8, 1], "reduce_columns"),
            };
            let size = LaunchConfig::grid(grid, block)?;
            let x = x.memory().address() + 4 * (first * reduced * inner) as u64;
            let partial = partial.address() + 8 * (first * parts * inner) as u64;
            let all = match inner {
                1 => arguments![x, partial, r, l].into_iter().collect::<Vec<_>>(),
                _ => arguments![x, partial, r, i, l].into_iter().collect(),
            };
            // SAFETY: x is outer · reduced · inner floats, of which these are `count` · reduced · inner; each
            // block writes its own part of the partial sums, of which there are outer · parts · inner.
            unsafe { cuda.launch(Kernel::of("reduce", name), size, &all)? };
        }
        let all = arguments![&partial, &out, n as i64, parts as i64, i, factor];
        // SAFETY: as above, and `out` is n floats, new.
        unsafe { cuda.launch(Kernel::of("reduce", "reduce_parts"), LaunchConfig::elements(n), &all)? };
        Ok(Tensor::from_memory(out, [n]))
    }

    fn device_spread(&self, cuda: &'static Cuda, g: &Tensor) -> Result<Tensor> {
        let n = self.outer * self.reduced * self.inner;
        let d = cuda.allocate(n, DType::F32)?;
        let (reduced, inner) = (self.reduced as i64, self.inner as i64);
        let all = arguments![g.memory(), &d, n as i64, reduced, inner, self.factor as f32];
        // SAFETY: g is outer · inner floats, d is n, new.
        unsafe { cuda.launch(Kernel::of("reduce", "reduce_spread"), LaunchConfig::elements(n), &all)? };
        Ok(Tensor::from_memory(d, [n]))
    }

    fn spread<T: Real>(&self, g: &[T]) -> Tensor {
        let View { outer, reduced, inner, factor } = *self;
        let factor = T::from_f64(factor);
        let mut out = Buffer::<T>::new(outer * reduced * inner);
        let rows = (threads::GRAIN_SIZE / inner.max(1)).max(1);
        threads::for_each_chunk(&mut out, (rows * inner).max(1), |i, mut out| {
            let mut row = i * rows;
            while !out.is_empty() {
                // The rows from here on that belong to the same g.
                let (o, place) = (row / reduced, row % reduced);
                let len = ((reduced - place) * inner).min(out.len());
                let (same, rest) = out.split_at_mut(len);
                if inner == 1 {
                    same.fill(g[o] * factor);
                } else {
                    let g = &g[o * inner..(o + 1) * inner];
                    for row in same.chunks_mut(inner) {
                        row.iter_mut().zip(g).for_each(|(d, &g)| *d = g * factor);
                    }
                }
                row += len / inner;
                out = rest;
            }
        });
        Tensor::from_buffer(out, [outer * reduced * inner])
    }
}

pub(crate) fn cases() -> Vec<Case> {
    type Op = fn(&Tensor) -> Result<Tensor>;
    type OverAxes = fn(&Tensor, Range<usize>) -> Result<Tensor>;
    let mut cases = Vec::new();
    for (op, f) in [("sum", sum as Op), ("mean", mean as Op)] {
        for (name, size, shape) in [
            ("all", cases::Size::Tiny, &[2, 3, 5, 7][..]),
            ("scalar", cases::Size::Tiny, &[]),
            ("pieces", cases::Size::Tiny, &[3, 70001]),
            ("16x112x112x64", cases::Size::Real, &[16, 112, 112, 64]),
        ] {
            cases.push(Case::new(op, name, size, vec![Input::new("x", shape)], move |t| f(&t[0])));
        }
    }
    for (op, f) in [("sum_axes", sum_axes as OverAxes), ("mean_axes", mean_axes as OverAxes)] {
        for (name, size, shape, axes) in [
            ("last", cases::Size::Tiny, &[3, 4, 37][..], 2..3),
            ("first", cases::Size::Tiny, &[5, 3, 7], 0..1),
            ("middle", cases::Size::Tiny, &[2, 5, 7, 37], 1..3),
            ("none", cases::Size::Tiny, &[3, 5], 1..1),
            ("columns_in_pieces", cases::Size::Tiny, &[2, 9001, 11], 1..2),
            ("columns_in_tiles", cases::Size::Tiny, &[2, 300, 523], 1..2),
            ("rows_in_pieces", cases::Size::Tiny, &[2, 70001], 1..2),
            ("16x112x112x64", cases::Size::Real, &[16, 112, 112, 64], 0..3),
            ("16x7x7x2048", cases::Size::Real, &[16, 7, 7, 2048], 1..3),
        ] {
            let inputs = vec![Input::new("x", shape)];
            cases.push(Case::new(op, name, size, inputs, move |t| f(&t[0], axes.clone())));
        }
    }
    for (name, shape, axes) in [
        ("apart", &[3, 5, 7, 11][..], &[0, 2][..]),
        ("apart_too", &[3, 5, 7, 12], &[3, 1]),
        ("ends", &[4, 5, 8], &[2, 0]),
    ] {
        let inputs = || vec![Input::new("x", shape)];
        let tiny = cases::Size::Tiny;
        cases.push(Case::new("sum_axes", name, tiny, inputs(), move |t| sum_axes(&t[0], axes)));
        cases.push(Case::new("mean_axes", name, tiny, inputs(), move |t| mean_axes(&t[0], axes)));
        cases.push(Case::new("sum_keepdim", name, tiny, inputs(), move |t| sum_keepdim(&t[0], axes)));
        cases.push(Case::new("mean_keepdim", name, tiny, inputs(), move |t| mean_keepdim(&t[0], axes)));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sum_loses_nothing() {
        // Added one after another in f32, these would stop at 2²⁴.
        let x = Tensor::full([(1 << 24) + 1000], 1.0);
        assert_eq!(sum(&x).unwrap().item().unwrap(), ((1 << 24) + 1000) as f64);
        assert_eq!(mean(&x).unwrap().item().unwrap(), 1.0);
    }

    #[test]
    fn the_bits_do_not_depend_on_the_thread_count() {
        let values: Vec<f32> = (0..300_000).map(|i| (i as f32).sin()).collect();
        let x = Tensor::from_slice(&values, [3000, 100]).unwrap();
        let all = |threads| {
            let run =
                || [sum(&x), sum_axes(&x, 0..1), sum_axes(&x, 1..2)].map(|y| y.unwrap().to_vec_f64());
            threads::with(threads, run).unwrap()
        };
        assert_eq!(all(1), all(3));
    }

    #[test]
    fn axes_that_are_not_there_are_refused_and_empty_ones_sum_to_zero() {
        let error = sum_axes(&Tensor::zeros([2, 3]), 1..3).unwrap_err().to_string();
        assert_eq!(error, "sum_axes: expected axes 1..3, got [2×3]");
        let x = Tensor::zeros([2, 3]);
        let error = x.sum_axes([0, 2]).unwrap_err().to_string();
        assert_eq!(error, "sum_axes: expected axes [0, 2], got [2×3]");
        let error = x.mean_axes([1, 1]).unwrap_err().to_string();
        assert_eq!(error, "mean_axes: expected different axes, got [1, 1]");
        assert_eq!(x.sum_keepdim([0, 1]).unwrap().shape()[..], [1, 1]);
        assert_eq!(x.sum_axes([]).unwrap().shape()[..], [2, 3]);
        assert_eq!(sum_axes(&Tensor::zeros([0, 3]), 0..1).unwrap().to_vec_f64(), [0.0; 3]);
        assert_eq!(sum(&Tensor::zeros([0])).unwrap().item().unwrap(), 0.0);
        assert!(mean(&Tensor::zeros([0])).unwrap().item().unwrap().is_nan());
    }
}
