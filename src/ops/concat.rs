//! Tensors side by side along one axis, the other axes being equal. The gradient of an input is
//! its part of g.

use crate::autograd::{Needs, record_all};
use crate::backend::cpu::threads;
use crate::cases::{Case, Input, Size};
use crate::error::{Error, Result};
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{Real, Shape, Tensor};

/// The inputs in order along `axis`.
///
/// See [`Tensor::concat`], which has an example.
pub fn concat(inputs: &[&Tensor], axis: usize) -> Result<Tensor> {
    let Some(first) = inputs.first().map(|input| input.shape()) else {
        return Err(Error::argument("concat", "expected at least one tensor, got none"));
    };
    let one = route("concat", inputs)?;
    let others = |shape: Shape| {
        let mut axes = shape.to_vec();
        (axis < axes.len()).then(|| axes.remove(axis)).map(|_| axes)
    };
    let wrong =
        inputs.iter().find(|input| others(input.shape()).is_none_or(|o| Some(o) != others(first)));
    if let Some(wrong) = wrong {
        let expected = format!("shapes like {first} but for axis {axis}");
        return Err(Error::shape("concat", expected, wrong.shape()));
    }
    // Every tensor is `outer` rows of its own length.
    let outer: usize = first[..axis].iter().product();
    let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape()).collect();
    let lengths: Vec<usize> = shapes.iter().map(|shape| shape[axis..].iter().product()).collect();
    let mut axes = first.to_vec();
    // (Each is below what a shape may have; of many that is no less.)
    axes[axis] = shapes.iter().fold(0usize, |sum, shape| sum.saturating_add(shape[axis]));
    let shape = Shape::checked(&axes)?;
    let output = match one {
        Route::F64 => join::<f64>(inputs, &lengths, shape),
        Route::Cuda(cuda) => cuda::join(cuda, inputs, &lengths, shape)?,
        _ => join::<f32>(inputs, &lengths, shape),
    };
    let needs: Vec<bool> = inputs.iter().map(|input| Needs::of([input]).any()).collect();
    Ok(record_all("concat", inputs, output, move |g| {
        let mut start = 0;
        let mut share = |i: usize| {
            let from = start;
            start += lengths[i];
            if !needs[i] {
                return Ok(None);
            }
            Ok(Some(match route("concat", &[&g])? {
                Route::F64 => part::<f64>(&g, outer, from, lengths[i], shapes[i]),
                Route::Cuda(cuda) => cuda::part(cuda, &g, outer, from, lengths[i], shapes[i])?,
                _ => part::<f32>(&g, outer, from, lengths[i], shapes[i]),
            }))
        };
        (0..needs.len()).map(&mut share).collect()
    }))
}

impl Tensor {
    /// Tensors side by side along `axis`: `Tensor::concat(&[&a, &b], 1)`. An error unless their other axes
    /// are equal.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let (a, b) = (Tensor::zeros([2, 1]), Tensor::ones([2, 2]));
    /// assert_eq!(Tensor::concat(&[&a, &b], 1)?.to_string(), "[[0. 1. 1.]\n [0. 1. 1.]]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn concat(inputs: &[&Tensor], axis: usize) -> Result<Tensor> {
        concat(inputs, axis)
    }
}

fn join<T: Real>(inputs: &[&Tensor], lengths: &[usize], shape: Shape) -> Tensor {
    let inputs: Vec<&[T]> = inputs.iter().map(|input| input.values()).collect();
    let row = lengths.iter().sum::<usize>().max(1);
    let rows = (threads::GRAIN_SIZE / row).max(1);
    let mut out = Buffer::<T>::new(shape.elements());
    threads::for_each_chunk(&mut out, rows * row, |i, out| {
        for (r, mut out) in out.chunks_mut(row).enumerate() {
            for (input, &length) in inputs.iter().zip(lengths) {
                let (mine, rest) = out.split_at_mut(length);
                mine.copy_from_slice(&input[(i * rows + r) * length..][..length]);
                out = rest;
            }
        }
    });
    Tensor::from_buffer(out, shape)
}

/// `length` elements from `start` of each of the `outer` rows of g.
fn part<T: Real>(g: &Tensor, outer: usize, start: usize, length: usize, shape: Shape) -> Tensor {
    let g = g.values::<T>();
    let row = g.len() / outer.max(1);
    let rows = (threads::GRAIN_SIZE / length.max(1)).max(1);
    let mut out = Buffer::<T>::new(outer * length);
    threads::for_each_chunk(&mut out, rows * length.max(1), |i, out| {
        for (r, out) in out.chunks_mut(length).enumerate() {
            out.copy_from_slice(&g[(i * rows + r) * row + start..][..length]);
        }
    });
    Tensor::from_buffer(out, shape)
}

/// Launches of `kernels/concat.cu`.
mod cuda {
    use super::*;
    use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, Memory, arguments, is_wide};
    use crate::tensor::DType;

    /// Copies n elements from or to rows: [length, from_row, from_start, to_row, to_start]. In fours, where
    /// all are.
    ///
    /// # Safety
    /// [`Cuda::launch`]'s contract.
    unsafe fn copy(cuda: &Cuda, from: &Memory, to: &Memory, n: usize, rows: [usize; 5]) -> Result<()> {
        let wide = rows.iter().all(|&size| is_wide(size));
        let (name, by) = if wide { ("concat_copy_4", 4) } else { ("concat_copy", 1) };
        let [length, from_row, from_start, to_row, to_start] = rows.map(|size| (size / by) as i64);
        let of_all = (n / by) as i64;
        let all = arguments![from, to, of_all, length, from_row, from_start, to_row, to_start];
        // SAFETY: the caller's.
        unsafe { cuda.launch(Kernel::of("concat", name), LaunchConfig::elements(n / by), &all) }
    }

    pub fn join(
        cuda: &'static Cuda,
        inputs: &[&Tensor],
        lengths: &[usize],
        shape: Shape,
    ) -> Result<Tensor> {
        let out = cuda.allocate(shape.elements(), DType::F32)?;
        let row = lengths.iter().sum::<usize>();
        let mut start = 0;
        for (input, &length) in inputs.iter().zip(lengths) {
            let n = input.shape().elements();
            // SAFETY: the input is n floats in rows of `length`, which have their own place in the
            // result's rows.
            unsafe { copy(cuda, input.memory(), &out, n, [length, length, 0, row, start])? };
            start += length;
        }
        Ok(Tensor::from_memory(out, shape))
    }

    pub fn part(
        cuda: &'static Cuda,
        g: &Tensor,
        outer: usize,
        start: usize,
        length: usize,
        shape: Shape,
    ) -> Result<Tensor> {
        let n = outer * length;
        let out = cuda.allocate(n, DType::F32)?;
        let row = g.shape().elements() / outer.max(1);
        // SAFETY: g is `outer` rows, in each of which the part lies; the result is n floats, new.
        unsafe { copy(cuda, g.memory(), &out, n, [length, row, start, length, 0])? };
        Ok(Tensor::from_memory(out, shape))
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &'static str, size, shapes: [&[usize]; 3], axis| {
        let inputs = ["a", "b", "c"].iter().zip(shapes).map(|(name, shape)| Input::new(name, shape));
        Case::new("concat", name, size, inputs.collect(), move |t| concat(&[&t[0], &t[1], &t[2]], axis))
    };
    let twice = vec![Input::new("a", [2, 3]), Input::new("b", [2, 5]).constant()];
    vec![
        case("channels", Size::Tiny, [&[2, 3, 5, 7], &[2, 3, 5, 1], &[2, 3, 5, 33]], 3),
        case("fours", Size::Tiny, [&[2, 3, 8], &[2, 3, 4], &[2, 3, 12]], 2),
        case("rows", Size::Tiny, [&[2, 3, 5], &[2, 1, 5], &[2, 4, 5]], 1),
        case("batch", Size::Tiny, [&[2, 3], &[1, 3], &[0, 3]], 0),
        case("pieces", Size::Tiny, [&[5003, 7], &[5003, 12], &[5003, 5]], 1),
        Case::new("concat", "with_itself", Size::Tiny, twice, |t| concat(&[&t[0], &t[1], &t[0]], 1)),
        case("deeplab", Size::Real, [&[16, 56, 56, 256], &[16, 56, 56, 24], &[16, 56, 56, 24]], 3),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (a, b) = (Tensor::zeros([2, 3]), Tensor::zeros([3, 3]));
        let error = concat(&[&a, &b], 1).unwrap_err().to_string();
        assert_eq!(error, "concat: expected shapes like [2×3] but for axis 1, got [3×3]");
        assert_eq!(*concat(&[&a, &b], 0).unwrap().shape(), [5, 3]);
        assert!(concat(&[&a, &Tensor::zeros([2])], 0).is_err());
        assert!(concat(&[&a], 2).is_err() && concat(&[], 0).is_err());
    }
}
