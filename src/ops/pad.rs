//! Zeros around images: [N, H, W, C] → [N, top + H + bottom, left + W + right, C]. The gradient
//! is g without its border.

use crate::autograd::record;
use crate::backend::cpu::threads;
use crate::backend::cuda::{Cuda, Value, arguments};
use crate::cases::{Case, Input, Size};
use crate::error::{Error, Result};
use crate::ops::{Route, padded, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Shape, Tensor};

/// `pad` is [[top, bottom], [left, right]], as Keras' ZeroPadding2D takes it.
///
/// See [`Tensor::zero_pad2d`], which has an example.
pub fn zero_pad2d(x: &Tensor, pad: [[usize; 2]; 2]) -> Result<Tensor> {
    let Ok([n, h, w, c]) = <[usize; 4]>::try_from(&*x.shape()) else {
        return Err(Error::shape("zero_pad2d", "[N, H, W, C]", x.shape()));
    };
    let [[top, _], [left, _]] = pad;
    let inner = [n, h, w, c];
    let outer = [n, padded(h, pad[0])?, padded(w, pad[1])?, c];
    Shape::checked(&outer)?;
    let output = match route("zero_pad2d", &[x])? {
        Route::F64 => place::<f64>(x, inner, outer, [top, left]),
        Route::Cuda(cuda) => on_device(cuda, x, inner, outer, [top, left], false)?,
        _ => place::<f32>(x, inner, outer, [top, left]),
    };
    Ok(record("zero_pad2d", [x], output, move |g| {
        Ok([Some(match route("zero_pad2d", &[&g])? {
            Route::F64 => crop::<f64>(&g, outer, inner, [top, left]),
            Route::Cuda(cuda) => on_device(cuda, &g, inner, outer, [top, left], true)?,
            _ => crop::<f32>(&g, outer, inner, [top, left]),
        })])
    }))
}

impl Tensor {
    /// [N, H, W, C] with zeros around each image: `pad` is [[top, bottom], [left, right]]. An error for
    /// another rank.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let y = Tensor::ones([1, 2, 2, 1]).zero_pad2d([[1, 0], [0, 2]])?; // above, below; left, right
    /// assert_eq!((&y.shape()[..], y.sum()?.item()?), (&[1, 3, 4, 1][..], 4.0));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn zero_pad2d(&self, pad: [[usize; 2]; 2]) -> Result<Tensor> {
        zero_pad2d(self, pad)
    }
}

/// x on zeros, from the corner on.
fn place<T: Real>(x: &Tensor, from: [usize; 4], to: [usize; 4], corner: [usize; 2]) -> Tensor {
    let x = x.values::<T>();
    let ([_, h, w, c], [_, height, width, _]) = (from, to);
    let (start, length) = (corner[1] * c, w * c);
    let mut out = Buffer::<T>::new(to.iter().product());
    threads::for_each_chunk(&mut out, (width * c).max(1), |i, out| {
        let (n, y) = (i / height, (i % height).wrapping_sub(corner[0]));
        if y < h {
            out[..start].fill(T::ZERO);
            out[start..start + length].copy_from_slice(&x[(n * h + y) * length..][..length]);
            out[start + length..].fill(T::ZERO);
        } else {
            out.fill(T::ZERO);
        }
    });
    Tensor::from_buffer(out, to)
}

/// The part of x from the corner on.
fn crop<T: Real>(x: &Tensor, from: [usize; 4], to: [usize; 4], corner: [usize; 2]) -> Tensor {
    let x = x.values::<T>();
    let ([_, height, width, _], [_, h, w, c]) = (from, to);
    let mut out = Buffer::<T>::new(to.iter().product());
    threads::for_each_chunk(&mut out, (w * c).max(1), |i, out| {
        let row = i / h * height + corner[0] + i % h;
        out.copy_from_slice(&x[(row * width + corner[1]) * c..][..w * c]);
    });
    Tensor::from_buffer(out, to)
}

/// `struct Border` of `kernels/pad.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Border([i32; 7]);
// SAFETY: numbers without padding.
unsafe impl Value for Border {}

/// x on zeros, or (crop) the part of the larger image that x was.
fn on_device(
    cuda: &'static Cuda,
    from: &Tensor,
    inner: [usize; 4],
    outer: [usize; 4],
    corner: [usize; 2],
    crop: bool,
) -> Result<Tensor> {
    let sizes = [inner[1], inner[2], inner[3], outer[1], outer[2], corner[0], corner[1]];
    let mut numbers = [0; 7];
    for (number, size) in numbers.iter_mut().zip(sizes) {
        *number = i32::try_from(size)
            .map_err(|_| Error::argument("zero_pad2d", format!("{size} is too large a size")))?;
    }
    let (names, shape) = match crop {
        true => (["pad_crop", "pad_crop_4"], inner),
        false => (["pad_place", "pad_place_4"], outer),
    };
    let n = shape.iter().product();
    let to = cuda.allocate(n, DType::F32)?;
    let all = arguments![from.memory(), &to, Border(numbers), n as i64];
    // SAFETY: `from` has the other of the two shapes; `to` is n floats, new.
    unsafe { cuda.launch_pass("pad", names, n, inner[3], &all)? };
    Ok(Tensor::from_memory(to, shape))
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &'static str, size, shape: [usize; 4], pad| {
        Case::new("zero_pad2d", name, size, vec![Input::new("x", shape)], move |t| {
            zero_pad2d(&t[0], pad)
        })
    };
    vec![
        case("01", Size::Tiny, [2, 4, 5, 3], [[0, 1], [0, 1]]),
        case("uneven", Size::Tiny, [1, 3, 2, 5], [[2, 1], [0, 3]]),
        case("in_fours", Size::Tiny, [2, 3, 4, 8], [[1, 2], [3, 0]]),
        case("none", Size::Tiny, [2, 3, 2, 1], [[0, 0], [0, 0]]),
        case("resnet_pool1_pad", Size::Real, [16, 112, 112, 64], [[1, 1], [1, 1]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_lie_where_they_should() {
        let x = Tensor::full([1, 1, 2, 1], 5.0);
        let y = zero_pad2d(&x, [[1, 0], [0, 1]]).unwrap();
        assert_eq!(y.to_vec_f64(), [0.0, 0.0, 0.0, 5.0, 5.0, 0.0]);
        assert!(zero_pad2d(&Tensor::zeros([2, 3]), [[1, 1], [1, 1]]).is_err());
    }
}
