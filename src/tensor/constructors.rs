//! Where tensors come from: values of one's own, constants, ranges, random numbers.
//! ([`Tensor::full_like`] and its kin, which need a device's kernel, are in `backend/full_like.rs`.)
//!
//! What is not given as values is f32, in the CPU's memory and off the tape; [`Tensor::to_dtype`],
//! [`Tensor::to_device`] and [`Tensor::leaf`] make it something else. A shape that a program writes down is
//! an array (`impl Into<Shape>`): the compiler refuses a fifth axis, and a size that cannot be panics. A
//! shape that a user or a file gives is a slice, a vector or an array (`impl IntoShape`,
//! [`Shape::checked`]): what is no shape is an error.

use super::{IntoShape, Real, Shape, Storage, Tensor};
use crate::error::{Error, Result};
use crate::pool::Buffer;
use crate::random::{Stream, domain};

/// The second label of a tensor's stream of random numbers ([`crate::random`]: a seed and labels name a
/// stream; different labels give independent numbers).
const UNIFORM: u64 = 0;
const NORMAL: u64 = 1;

impl Tensor {
    /// Copies `values`, in row-major order; an error when their number is not the shape's, or there is no
    /// such shape.
    ///
    /// ```
    /// use atrous::Tensor;
    ///
    /// let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], [2, 2])?;
    /// assert_eq!(x.to_string(), "[[1. 2.]\n [3. 4.]]");
    /// assert!(Tensor::from_slice(&[1.0f32], [2, 2]).is_err());
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn from_slice<T: Real>(values: &[T], shape: impl IntoShape) -> Result<Self> {
        let shape = shape_for("Tensor::from_slice", values.len(), shape)?;
        Ok(Self::from_buffer(Buffer::from_slice(values), shape))
    }

    /// Copies bytes, for images and masks: u8, which operators only hand on (`reshape`) or read as class
    /// labels (`sparse_softmax_cross_entropy`); for all else [`Tensor::to_dtype`] first. Errors as
    /// [`Tensor::from_slice`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from_u8(&[0, 127, 255], [3])?;
    /// assert_eq!((x.dtype(), x.to_string()), (DType::U8, "[  0 127 255]".to_string()));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn from_u8(values: &[u8], shape: impl IntoShape) -> Result<Self> {
        let shape = shape_for("Tensor::from_u8", values.len(), shape)?;
        Ok(Self::from_storage(Storage::U8(Buffer::from_slice(values)), shape))
    }

    /// A tensor without axes, of one element.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::scalar(2.5f32).shape().rank(), 0);
    /// ```
    pub fn scalar<T: Real>(value: T) -> Self {
        Self::from_buffer(Buffer::from_slice(&[value]), [])
    }

    /// All elements `value`, f32.
    ///
    /// # Panics
    /// Where lengths are no shape ([`Shape::checked`] has an error then); with [`crate::pool::OutOfMemory`]
    /// where there is no memory for so many elements, as everything that makes tensors in the
    /// CPU's memory.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::full([2, 2], 0.5).to_string(), "[[0.5 0.5]\n [0.5 0.5]]");
    /// ```
    pub fn full(shape: impl Into<Shape>, value: f32) -> Self {
        let shape = shape.into();
        Self::from_buffer(Buffer::filled(shape.elements(), value), shape)
    }

    /// All elements 0, f32.
    ///
    /// # Panics
    /// As [`Tensor::full`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::zeros([3]).to_string(), "[0. 0. 0.]");
    /// ```
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        Self::full(shape, 0.0)
    }

    /// All elements 1, f32.
    ///
    /// # Panics
    /// As [`Tensor::full`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::ones([3]).to_string(), "[1. 1. 1.]");
    /// ```
    pub fn ones(shape: impl Into<Shape>) -> Self {
        Self::full(shape, 1.0)
    }

    /// `[n, n]`: 1 on the diagonal, 0 elsewhere.
    ///
    /// # Panics
    /// As [`Tensor::full`].
    ///
    /// ```
    /// # use atrous::Tensor;
    /// assert_eq!(Tensor::eye(2).to_string(), "[[1. 0.]\n [0. 1.]]");
    /// ```
    pub fn eye(n: usize) -> Self {
        let mut eye = Self::zeros([n, n]);
        eye.values_mut::<f32>().iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
        eye
    }

    /// `[⌈(end − start)/step⌉]`, one fewer where the last element would round to `end`: start, start + step,
    /// … below `end` (above it, where the step is negative). An error for a step of 0, for what is not
    /// finite, and for more elements than a shape can have.
    ///
    /// ```
    /// # use atrous::Tensor;
    /// assert_eq!(Tensor::arange(0.0, 5.0, 2.0)?.to_string(), "[0. 2. 4.]");
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn arange(start: f32, end: f32, step: f32) -> Result<Self> {
        let [start, end, step] = [start, end, step].map(f64::from);
        if ![start, end, step].iter().all(|x| x.is_finite()) || step == 0.0 {
            let message = format!(
                "expected finite bounds and a finite step other than 0, got {start}, {end}, {step}"
            );
            return Err(Error::argument("Tensor::arange", message));
        }
        let mut count = ((end - start) / step).ceil().max(0.0);
        // .04f32 is below 1/25: ⌈1/.04⌉ is 26, whose last element rounds to `end`, which is excluded.
        if count > 1.0 && (start + (count - 1.0) * step) as f32 == end as f32 {
            count -= 1.0;
        }
        let shape = (count as usize).into_shape()?;
        Ok(Self::from_fn(shape, |i| (start + i as f64 * step) as f32))
    }

    /// `[count]`: evenly spaced from `start` to `end`, both included (`start` alone where `count` is 1,
    /// nothing where it is 0). An error for what is not finite, and for more elements than a shape can have.
    ///
    /// ```
    /// # use atrous::Tensor;
    /// assert_eq!(Tensor::linspace(0.0, 1.0, 5)?.to_string(), "[0.   0.25 0.5  0.75 1.  ]");
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn linspace(start: f32, end: f32, count: usize) -> Result<Self> {
        let [start, end] = [start, end].map(f64::from);
        if !(start.is_finite() && end.is_finite()) {
            let message = format!("expected finite bounds, got {start} and {end}");
            return Err(Error::argument("Tensor::linspace", message));
        }
        let gaps = count.saturating_sub(1).max(1) as f64;
        Ok(Self::from_fn(count.into_shape()?, |i| {
            let t = i as f64 / gaps;
            (start * (1.0 - t) + end * t) as f32
        }))
    }

    /// Uniform in [0, 1): the same numbers for the same seed, on every machine.
    ///
    /// # Panics
    /// As [`Tensor::full`].
    ///
    /// ```
    /// # use atrous::Tensor;
    /// let [a, b] = [7, 7].map(|seed| Tensor::rand([2, 3], seed));
    /// assert_eq!(a.to_vec_f64(), b.to_vec_f64());
    /// ```
    pub fn rand(shape: impl Into<Shape>, seed: u64) -> Self {
        let mut stream = Stream::new(seed, &[domain::TENSOR, UNIFORM]);
        Self::from_fn(shape.into(), |_| stream.unit())
    }

    /// low + u · (high − low) with the numbers u of [`Tensor::rand`] under this seed: uniform from `low` to
    /// `high`, where rounding may give `high` itself. That `low` is below `high` is not checked.
    ///
    /// # Panics
    /// As [`Tensor::full`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::rand_uniform([100], -1.0, 1.0, 7);
    /// assert!(x.min()?.item()? >= -1.0 && x.max()?.item()? < 1.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn rand_uniform(shape: impl Into<Shape>, low: f32, high: f32, seed: u64) -> Self {
        let mut stream = Stream::new(seed, &[domain::TENSOR, UNIFORM]);
        Self::from_fn(shape.into(), |_| stream.uniform(low, high))
    }

    /// Normal with mean 0 and variance 1: the same numbers for the same seed (between systems up to the
    /// rounding of their ln and cos).
    ///
    /// # Panics
    /// As [`Tensor::full`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::randn([10_000], 7);
    /// assert!(x.mean()?.item()?.abs() < 0.05);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn randn(shape: impl Into<Shape>, seed: u64) -> Self {
        let mut stream = Stream::new(seed, &[domain::TENSOR, NORMAL]);
        Self::from_fn(shape.into(), |_| stream.normal())
    }

    /// Element i is `value(i)`, which is called for i = 0, 1, … in order.
    fn from_fn(shape: Shape, mut value: impl FnMut(usize) -> f32) -> Self {
        let mut buffer = Buffer::new(shape.elements());
        buffer.iter_mut().enumerate().for_each(|(i, x)| *x = value(i));
        Self::from_buffer(buffer, shape)
    }
}

/// The shape, or an error where it has not `count` elements.
fn shape_for(op: &'static str, count: usize, shape: impl IntoShape) -> Result<Shape> {
    let shape = shape.into_shape()?;
    let expected = shape.elements();
    if count != expected {
        return Err(Error::shape(op, format!("{expected} values for shape {shape}"), count));
    }
    Ok(shape)
}

/// A number: a tensor without axes.
impl<T: Real> From<T> for Tensor {
    fn from(value: T) -> Self {
        Tensor::scalar(value)
    }
}

/// Values as they are written down, in arrays, nested for more axes: `Tensor::from([[1.0f32, 2.0], [3.0,
/// 4.0]])`.
///
/// A bare `1.0` is f64 in Rust, and operators take no f64 beside f32: one of the numbers is to be written
/// `1.0f32`.
impl<T: Real, const A: usize> From<[T; A]> for Tensor {
    fn from(values: [T; A]) -> Self {
        Tensor::from_buffer(Buffer::from_slice(&values), [A])
    }
}

impl<T: Real, const A: usize, const B: usize> From<[[T; B]; A]> for Tensor {
    fn from(values: [[T; B]; A]) -> Self {
        Tensor::from_buffer(Buffer::from_slice(values.as_flattened()), [A, B])
    }
}

impl<T: Real, const A: usize, const B: usize, const C: usize> From<[[[T; C]; B]; A]> for Tensor {
    fn from(values: [[[T; C]; B]; A]) -> Self {
        Tensor::from_buffer(Buffer::from_slice(values.as_flattened().as_flattened()), [A, B, C])
    }
}

impl<T: Real, const A: usize, const B: usize, const C: usize, const D: usize> From<[[[[T; D]; C]; B]; A]>
    for Tensor
{
    fn from(values: [[[[T; D]; C]; B]; A]) -> Self {
        let flat = values.as_flattened().as_flattened().as_flattened();
        Tensor::from_buffer(Buffer::from_slice(flat), [A, B, C, D])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use approx::assert_relative_eq;

    #[test]
    fn ranges_have_their_ends_where_numpy_has_them() {
        let range = |a, b, step| Tensor::arange(a, b, step).unwrap().to_vec_f64();
        assert_eq!(range(1.0, 4.0, 1.0), [1.0, 2.0, 3.0]);
        assert_eq!(range(0.0, 1.0, 0.25), [0.0, 0.25, 0.5, 0.75]);
        assert_eq!(range(2.0, -1.0, -1.5), [2.0, 0.5]);
        assert!(range(1.0, 0.0, 1.0).is_empty());
        assert_eq!(Tensor::linspace(-1.0, 1.0, 3).unwrap().to_vec_f64(), [-1.0, 0.0, 1.0]);
        assert_eq!(Tensor::linspace(3.0, 9.0, 1).unwrap().to_vec_f64(), [3.0]);
        // .04 is less than 1/25 as an f32; 1e17 + 1 is 1e17 even in f64.
        assert_eq!(range(0.0, 1.0, 0.04).len(), 25);
        assert_eq!(Tensor::linspace(1e17, 1.0, 2).unwrap().to_vec_f64()[1], 1.0);
    }

    #[test]
    fn ranges_without_an_end_are_errors() {
        for (a, b, step) in [
            (0.0, 1.0, 0.0),
            (0.0, f32::NAN, 1.0),
            (0.0, f32::INFINITY, 1.0),
            (0.0, 0.0, 0.0),
            (0.0, 5.0, f32::INFINITY),
        ] {
            let error = Tensor::arange(a, b, step).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("a finite step")), "{a} {b} {step}");
        }
        assert!(Tensor::arange(0.0, f32::MAX, f32::MIN_POSITIVE).is_err());
        assert!(Tensor::linspace(f32::NAN, 1.0, 2).is_err());
        assert!(Tensor::linspace(0.0, 1.0, usize::MAX).is_err());
    }

    #[test]
    fn random_numbers_are_their_seed_and_nothing_else() {
        let x = Tensor::rand([2, 3], 1).to_vec_f64();
        // Philox 4x32-10 in another language: 24 bits of the stream's first words.
        let words =
            [4_470_551, 4_931_315, 8_907_696, 8_098_736].map(|word| word as f64 / (1 << 24) as f64);
        assert_eq!(x[..4], words);
        assert_eq!(x, Tensor::rand([6], 1).to_vec_f64());
        let normal = Tensor::randn([2], 1).to_vec_f64();
        assert_relative_eq!(
            normal[..],
            [0.933_482_629_756_939_5, -0.824_171_667_903_864_4],
            epsilon = 1e-6
        );
        let scaled = Tensor::rand_uniform([6], -2.0, 2.0, 1).to_vec_f64();
        for (u, v) in x.iter().zip(scaled) {
            assert_relative_eq!(v, 4.0 * u - 2.0, epsilon = 1e-6);
        }
        let z = Tensor::randn([20_000], 3).to_vec_f64();
        let mean = z.iter().sum::<f64>() / z.len() as f64;
        let variance = z.iter().map(|z| z * z).sum::<f64>() / z.len() as f64;
        assert_relative_eq!(mean, 0.0, epsilon = 0.03);
        assert_relative_eq!(variance, 1.0, epsilon = 0.04);
    }

    #[test]
    fn arrays_become_tensors_of_as_many_axes() {
        assert_eq!(Tensor::from(2.0f64).shape().rank(), 0);
        assert_eq!(Tensor::from([1.0f32, 2.0]).shape()[..], [2]);
        assert_eq!(Tensor::from([[1.0f32, 2.0, 3.0]; 2]).shape()[..], [2, 3]);
        let x = Tensor::from([[[1.0f64], [2.0]], [[3.0], [4.0]]]);
        assert_eq!((&x.shape()[..], x.to_vec_f64()), (&[2, 2, 1][..], vec![1.0, 2.0, 3.0, 4.0]));
        let x = Tensor::from([[[[1.0f32, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]]]);
        assert_eq!((&x.shape()[..], x.to_vec_f64()[4]), (&[1, 3, 1, 2][..], 5.0));
    }

    #[test]
    fn what_is_like_another_has_its_shape_and_type() {
        let x = Tensor::from([[1.0f64, 2.0]]).ones_like().unwrap();
        assert_eq!(
            (x.dtype(), &x.shape()[..], x.to_vec_f64()),
            (DType::F64, &[1, 2][..], vec![1.0, 1.0])
        );
        let bytes = Tensor::from_u8(&[1, 2], [2]).unwrap().full_like(7.0).unwrap();
        assert_eq!(bytes.as_u8().unwrap(), [7, 7]);
        assert_eq!(Tensor::eye(3).to_vec_f64(), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(Tensor::eye(0).shape()[..], [0, 0]);
    }
}
