//! Copies between a tensor and a box within another one: rows that lie apart, to rows one after the other and
//! back.
//!
//! Bytes bind: 8 an element.

use crate::backend::cpu::threads::{self, Shared};
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, Memory, Value, arguments, is_wide};
use crate::error::Result;
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{DType, MAX_RANK, Real, Shape, Tensor};

/// A box: lengths of its axes, and where its elements are within a tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Box4 {
    pub sizes: [usize; MAX_RANK],
    /// Elements from one place along an axis to the next; 1 along the last.
    pub strides: [usize; MAX_RANK],
    /// The first element.
    pub start: usize,
}

impl Box4 {
    /// All of a tensor.
    fn whole(sizes: [usize; MAX_RANK]) -> Self {
        let mut strides = [1; MAX_RANK];
        for axis in (0..MAX_RANK - 1).rev() {
            strides[axis] = strides[axis + 1] * sizes[axis + 1];
        }
        Box4 { sizes, strides, start: 0 }
    }

    /// Neighbours that lie one after the other are one axis: rows are as long as they can be.
    fn merged(self) -> Self {
        let last = MAX_RANK - 1;
        let (mut sizes, mut strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        (sizes[last], strides[last]) = (self.sizes[last], self.strides[last]);
        let mut to = last;
        for axis in (0..last).rev().filter(|&axis| self.sizes[axis] != 1) {
            if self.strides[axis] != sizes[to] * strides[to] {
                to -= 1;
                strides[to] = self.strides[axis];
            }
            sizes[to] *= self.sizes[axis];
        }
        Box4 { sizes, strides, start: self.start }
    }

    fn elements(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Where row i begins.
    fn row(&self, i: usize) -> usize {
        let (mut rest, mut at) = (i, self.start);
        for axis in (0..MAX_RANK - 1).rev() {
            at += rest % self.sizes[axis] * self.strides[axis];
            rest /= self.sizes[axis];
        }
        at
    }

    /// The box of `from`, as a tensor of this shape.
    pub(crate) fn gather(self, op: &'static str, from: &Tensor, shape: Shape) -> Result<Tensor> {
        Ok(match route(op, &[from])? {
            Route::F64 => self.gather_rows::<f64>(from, shape),
            Route::Cuda(cuda) => {
                let to = cuda.allocate(shape.elements(), DType::F32)?;
                // SAFETY: the box is within `from`; `to` is as many floats as it has, new.
                unsafe { self.copy(cuda, from.memory(), &to, false)? };
                Tensor::from_memory(to, shape)
            }
            _ => self.gather_rows::<f32>(from, shape),
        })
    }

    /// Zeros of this shape, with `from` in the box.
    pub(crate) fn scatter(self, op: &'static str, from: &Tensor, shape: Shape) -> Result<Tensor> {
        Ok(match route(op, &[from])? {
            Route::F64 => self.scatter_rows::<f64>(from, shape),
            Route::Cuda(cuda) => {
                let n = shape.elements();
                let to = cuda.allocate(n, DType::F32)?;
                let fill = Kernel::of("elementwise", "elementwise_fill");
                // SAFETY: `to` is n floats, new; the box is within them, and `from` has as many as it.
                unsafe {
                    cuda.launch(fill, LaunchConfig::elements(n), &arguments![&to, n as i64, 0.0f32])?;
                    self.copy(cuda, from.memory(), &to, true)?;
                }
                Tensor::from_memory(to, shape)
            }
            _ => self.scatter_rows::<f32>(from, shape),
        })
    }

    fn gather_rows<T: Real>(self, from: &Tensor, shape: Shape) -> Tensor {
        let (merged, from) = (self.merged(), from.values::<T>());
        let length = merged.sizes[MAX_RANK - 1];
        let mut out = Buffer::<T>::new(shape.elements());
        // One long row is cut, short ones go together.
        if length == out.len() {
            threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |i, out| {
                let start = merged.start + i * threads::GRAIN_SIZE;
                out.copy_from_slice(&from[start..start + out.len()]);
            });
            return Tensor::from_buffer(out, shape);
        }
        let rows = (threads::GRAIN_SIZE / length.max(1)).max(1);
        threads::for_each_chunk(&mut out, (rows * length).max(1), |i, out| {
            for (row, out) in out.chunks_exact_mut(length).enumerate() {
                out.copy_from_slice(&from[merged.row(i * rows + row)..][..length]);
            }
        });
        Tensor::from_buffer(out, shape)
    }

    fn scatter_rows<T: Real>(self, from: &Tensor, shape: Shape) -> Tensor {
        let (merged, from) = (self.merged(), from.values::<T>());
        let length = merged.sizes[MAX_RANK - 1];
        let mut out = Buffer::<T>::new(shape.elements());
        threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |_, out| out.fill(T::ZERO));
        if from.is_empty() {
            return Tensor::from_buffer(out, shape);
        }
        let rows = (threads::GRAIN_SIZE / length).max(1);
        let to = Shared::new(&mut out);
        threads::for_each(from.len().div_ceil(rows * length), |i| {
            let from = &from[i * rows * length..from.len().min((i + 1) * rows * length)];
            for (row, from) in from.chunks_exact(length).enumerate() {
                // SAFETY: the box is within the tensor, and its rows do not overlap.
                let to =
                    unsafe { std::slice::from_raw_parts_mut(to.at(merged.row(i * rows + row)), length) };
                to.copy_from_slice(from);
            }
        });
        Tensor::from_buffer(out, shape)
    }

    /// From the box to as many elements one after the other, or back; in fours, where all are.
    ///
    /// # Safety
    /// [`Cuda::launch`]'s contract.
    unsafe fn copy(self, cuda: &Cuda, from: &Memory, to: &Memory, back: bool) -> Result<()> {
        let (merged, n) = (self.merged(), self.elements());
        let last = MAX_RANK - 1;
        let wide = is_wide(merged.start)
            && is_wide(merged.sizes[last])
            && merged.strides[..last].iter().all(|&stride| is_wide(stride));
        let (name, by) = if wide { ("strided_copy_4", 4) } else { ("strided_copy", 1) };
        let place = OnDevice([merged.sizes, merged.strides].map(|axes| axes.map(|n| n as i64)));
        let all = arguments![from, to, n as i64, place, merged.start as i64, back as i32];
        // SAFETY: the caller's.
        unsafe { cuda.launch(Kernel::of("strided", name), LaunchConfig::elements(n / by), &all) }
    }
}

/// `struct Box` of `kernels/strided.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct OnDevice([[i64; MAX_RANK]; 2]);
// SAFETY: numbers without padding.
unsafe impl Value for OnDevice {}

/// Elements from one place along each axis of a tensor to the next; axes before the first are of length 1.
pub(crate) fn strides(shape: &Shape) -> ([usize; MAX_RANK], [usize; MAX_RANK]) {
    let mut sizes = [1; MAX_RANK];
    sizes[MAX_RANK - shape.len()..].copy_from_slice(shape);
    (sizes, Box4::whole(sizes).strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_box_are_as_long_as_they_can_be() {
        let whole = Box4::whole([2, 3, 4, 5]).merged();
        assert_eq!((whole.sizes, whole.row(0)), ([1, 1, 1, 120], 0));
        // The middle two of three rows of 4 · 5, twice.
        let part = Box4 { sizes: [2, 2, 4, 5], strides: [60, 20, 5, 1], start: 20 }.merged();
        assert_eq!((part.sizes, part.strides[2]), ([1, 1, 2, 40], 60));
        assert_eq!([part.row(0), part.row(1)], [20, 80]);
    }
}
