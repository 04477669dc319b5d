//! Axes in another order. The gradient is g with its axes back in theirs.
//!
//! Axes that stay neighbours are one, which leaves three cases: nothing moves (the memory is shared); rows
//! move as a whole (they are copied); or the last axis is another one than before. Then squares are
//! transposed, in registers, along the two last axes of before and after: read and written one after the
//! other, a square fills the cache lines that it touches.
//!
//! Bytes bind: 8 an element.

use crate::autograd::record;
use crate::backend::cpu::simd::{Kernel, Vector, dispatch};
use crate::backend::cpu::threads::{self, Shared};
use crate::backend::cpu::transpose::transpose_tile;
use crate::backend::cuda::{self, Cuda, Value, arguments};
use crate::cases::{Case, Input, Size};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::strided::{Box4, strides};
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{DType, MAX_RANK, Real, Shape, Tensor};

/// Axis i of the result is axis `axes[i]` of x: [0, 3, 1, 2] makes NCHW of NHWC. An error unless each axis is
/// named once.
///
/// See [`Tensor::permute`], which has an example.
pub fn permute(x: &Tensor, axes: impl AsRef<[usize]>) -> Result<Tensor> {
    let (shape, axes) = (x.shape(), axes.as_ref());
    let mut sorted = axes.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..shape.len()) {
        return Err(Error::shape("permute", format!("each axis of {shape} once"), format!("{axes:?}")));
    }
    let mut back = vec![0; axes.len()];
    axes.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    let output = reordered(x, axes)?;
    Ok(record("permute", [x], output, move |g| Ok([Some(reordered(&g, &back)?)])))
}

/// Two axes in each other's place.
///
/// See [`Tensor::transpose`], which has an example.
pub fn transpose(x: &Tensor, a: usize, b: usize) -> Result<Tensor> {
    let rank = x.shape().len();
    if a.max(b) >= rank {
        return Err(Error::shape("transpose", format!("axes {a} and {b}"), x.shape()));
    }
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(a, b);
    permute(x, axes)
}

impl Tensor {
    /// Axis i of the result is axis `axes[i]` of this: `[0, 3, 1, 2]` makes NCHW of NHWC. An error unless
    /// each axis is named once.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let nchw = Tensor::zeros([1, 8, 6, 3]).permute([0, 3, 1, 2])?;
    /// assert_eq!(nchw.shape()[..], [1, 3, 8, 6]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn permute(&self, axes: impl AsRef<[usize]>) -> Result<Tensor> {
        permute(self, axes)
    }

    /// Two axes in each other's place: `x.transpose(0, 1)`. An error where there is no such axis.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]);
    /// assert_eq!(x.transpose(0, 1)?.to_string(), "[[1. 3.]\n [2. 4.]]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        transpose(self, a, b)
    }
}

/// Off the tape.
fn reordered(x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let lengths: Vec<usize> = axes.iter().map(|&axis| x.shape()[axis]).collect();
    let shape = Shape::of(&lengths);
    let route = route("permute", &[x])?;
    let order = Order::new(&x.shape(), axes);
    if order.is_identity() || shape.elements() == 0 {
        return Ok(x.with_shape(shape));
    }
    Ok(match route {
        Route::F64 => order.naive::<f64>(x, shape),
        Route::Reference => order.naive::<f32>(x, shape),
        _ if order.strides[MAX_RANK - 1] == 1 => {
            let rows = Box4 { sizes: order.sizes, strides: order.strides, start: 0 };
            rows.gather("permute", x, shape)?
        }
        Route::Fast => order.tiles(x, shape),
        Route::Cuda(cuda) => order.device(cuda, x, shape)?,
    })
}

/// Lengths of the result's axes, and elements of x from one place along them to the next: neighbours that
/// stay neighbours are one axis, and there are four in all.
#[derive(Clone, Copy, Debug)]
struct Order {
    sizes: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
}

impl Order {
    fn new(shape: &Shape, axes: &[usize]) -> Self {
        let (_, of_x) = strides(shape);
        let first = MAX_RANK - shape.len();
        let (mut sizes, mut to_strides) = ([1; MAX_RANK], [0; MAX_RANK]);
        let mut to = MAX_RANK;
        for &axis in axes.iter().rev().filter(|&&axis| shape[axis] != 1) {
            let (size, stride) = (shape[axis], of_x[first + axis]);
            if to == MAX_RANK || stride != sizes[to] * to_strides[to] {
                to -= 1;
                to_strides[to] = stride;
            }
            sizes[to] *= size;
        }
        Order { sizes, strides: to_strides }
    }

    fn is_identity(&self) -> bool {
        self.sizes[..MAX_RANK - 1] == [1; MAX_RANK - 1] && self.strides[MAX_RANK - 1] <= 1
    }

    fn naive<T: Real>(&self, x: &Tensor, shape: Shape) -> Tensor {
        let x = x.values::<T>();
        let mut out = Buffer::<T>::new(x.len());
        for (i, y) in out.iter_mut().enumerate() {
            let (mut rest, mut at) = (i, 0);
            for axis in (0..MAX_RANK).rev() {
                at += rest % self.sizes[axis] * self.strides[axis];
                rest /= self.sizes[axis];
            }
            *y = x[at];
        }
        Tensor::from_buffer(out, shape)
    }

    /// The planes in which squares are transposed: the last axis of x is not the last of the result.
    fn planes(&self) -> Planes {
        let last = MAX_RANK - 1;
        let mut to_strides = [1; MAX_RANK];
        for axis in (0..last).rev() {
            to_strides[axis] = to_strides[axis + 1] * self.sizes[axis + 1];
        }
        let width_axis = (0..last).find(|&axis| self.strides[axis] == 1 && self.sizes[axis] > 1);
        let width_axis = width_axis.expect("an axis of x runs along its memory");
        let mut outer = (0..last).filter(|&axis| axis != width_axis);
        let outer = [outer.next(), outer.next()].map(|axis| axis.expect("two of three"));
        Planes {
            width: self.sizes[width_axis],
            height: self.sizes[last],
            from_step: self.strides[last],
            to_step: to_strides[width_axis],
            outer: outer.map(|axis| self.sizes[axis]),
            from_outer: outer.map(|axis| self.strides[axis]),
            to_outer: outer.map(|axis| to_strides[axis]),
        }
    }

    fn tiles(&self, x: &Tensor, shape: Shape) -> Tensor {
        let (planes, x, isa) = (self.planes(), x.values::<f32>(), isa());
        let mut out = Buffer::<f32>::new(x.len());
        let to = Shared::new(&mut out);
        let strips = planes.width.div_ceil(STRIP);
        threads::for_each(planes.outer[0] * planes.outer[1] * strips, |task| {
            let (plane, strip) = (task / strips, task % strips);
            let place = [plane / planes.outer[1], plane % planes.outer[1]];
            let at = |strides: [usize; 2]| place[0] * strides[0] + place[1] * strides[1];
            let columns = STRIP.min(planes.width - strip * STRIP);
            let from = &x[at(planes.from_outer) + strip * STRIP..];
            // SAFETY: within the result; a strip is rows of it, which are this task's alone.
            let to = unsafe { to.at(at(planes.to_outer) + strip * STRIP * planes.to_step) };
            dispatch(isa, Strip { planes: &planes, columns, from, to });
        });
        Tensor::from_buffer(out, shape)
    }

    fn device(&self, cuda: &'static Cuda, x: &Tensor, shape: Shape) -> Result<Tensor> {
        let planes = self.planes();
        let n = shape.elements();
        let y = cuda.allocate(n, DType::F32)?;
        let [outer, inner] = planes.outer;
        let tiles = planes.width.div_ceil(32) * planes.height.div_ceil(32);
        let size = cuda::LaunchConfig::grid([tiles * outer * inner, 1, 1], [32, 8, 1])?;
        let numbers = [
            [planes.width, planes.height],
            [planes.from_step, planes.to_step],
            planes.outer,
            planes.from_outer,
            planes.to_outer,
        ];
        let numbers = OnDevice(numbers.map(|pair| pair.map(|n| n as i64)));
        let all = arguments![x.memory(), &y, numbers];
        // SAFETY: x and y are n floats, y new; each block reads and writes a square of its own.
        unsafe { cuda.launch(cuda::Kernel::of("permute", "permute_tiles"), size, &all)? };
        Ok(Tensor::from_memory(y, shape))
    }
}

/// Columns of x a task: a few squares side by side.
const STRIP: usize = 64;

/// Planes [height, width] of x, transposed to [width, height] of the result, and where they are.
#[derive(Clone, Copy, Debug)]
struct Planes {
    width: usize,
    height: usize,
    /// From one row of x to the next.
    from_step: usize,
    /// From one row of the result to the next.
    to_step: usize,
    outer: [usize; 2],
    from_outer: [usize; 2],
    to_outer: [usize; 2],
}

/// `struct Planes` of `kernels/permute.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct OnDevice([[i64; 2]; 5]);
// SAFETY: numbers without padding.
unsafe impl Value for OnDevice {}

/// Some columns of a plane.
struct Strip<'a> {
    planes: &'a Planes,
    columns: usize,
    from: &'a [f32],
    to: *mut f32,
}

impl Kernel for Strip<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Planes { height, from_step, to_step, .. } = *self.planes;
        assert!(self.from.len() >= (height - 1) * from_step + self.columns);
        let (from, to) = (self.from.as_ptr(), self.to);
        let whole = |n: usize| n / V::LANES * V::LANES;
        for row in (0..whole(height)).step_by(V::LANES) {
            for column in (0..whole(self.columns)).step_by(V::LANES) {
                // SAFETY: LANES rows and columns of the plane from here on, and as many of the result.
                unsafe {
                    let from = from.add(row * from_step + column);
                    transpose_tile::<V>(
                        from,
                        from_step,
                        V::LANES,
                        to.add(column * to_step + row),
                        to_step,
                    );
                }
            }
        }
        for column in 0..self.columns {
            let first = if column < whole(self.columns) { whole(height) } else { 0 };
            for row in first..height {
                // SAFETY: within the plane, and within the result.
                unsafe { *to.add(column * to_step + row) = *from.add(row * from_step + column) };
            }
        }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &'static str, size, shape: &[usize], axes: &'static [usize]| {
        Case::new("permute", name, size, vec![Input::new("x", shape)], move |t| permute(&t[0], axes))
    };
    let matrix = || vec![Input::new("x", [33, 70])];
    vec![
        case("nhwc_to_nchw", Size::Tiny, &[2, 5, 7, 19], &[0, 3, 1, 2]),
        case("nchw_to_nhwc", Size::Tiny, &[2, 19, 5, 7], &[0, 2, 3, 1]),
        case("backwards", Size::Tiny, &[3, 17, 2, 35], &[3, 2, 1, 0]),
        case("rows_move", Size::Tiny, &[3, 5, 2, 8], &[2, 0, 1, 3]),
        case("odd_rows_move", Size::Tiny, &[3, 5, 7], &[1, 0, 2]),
        case("nothing_moves", Size::Tiny, &[3, 5, 7], &[0, 1, 2]),
        case("only_ones_move", Size::Tiny, &[3, 1, 7], &[1, 0, 2]),
        case("inner_pair", Size::Tiny, &[2, 3, 16, 67], &[0, 1, 3, 2]),
        case("outer_last", Size::Tiny, &[40, 3, 2, 33], &[1, 3, 2, 0]),
        case("scalar", Size::Tiny, &[], &[]),
        Case::new("transpose", "matrix", Size::Tiny, matrix(), |t| transpose(&t[0], 0, 1)),
        case("nhwc_to_nchw_16x112x112x64", Size::Real, &[16, 112, 112, 64], &[0, 3, 1, 2]),
        case("matrix_4096x4096", Size::Real, &[4096, 4096], &[1, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;
    use proptest::prelude::*;

    #[test]
    fn axes_that_are_not_each_there_once_are_refused() {
        let x = Tensor::zeros([2, 3]);
        let error = x.permute([0, 0]).unwrap_err().to_string();
        assert_eq!(error, "permute: expected each axis of [2×3] once, got [0, 0]");
        assert!(x.permute([0]).is_err() && x.permute([0, 2]).is_err() && x.permute([0, 1, 2]).is_err());
        assert!(x.transpose(0, 2).is_err());
        assert_eq!(Tensor::zeros([2, 0, 3]).permute([2, 1, 0]).unwrap().shape()[..], [3, 0, 2]);
    }

    #[test]
    fn what_does_not_move_is_not_copied() {
        let x = Tensor::zeros([1, 3, 1, 2]);
        let y = x.permute([1, 0, 3, 2]).unwrap();
        assert_eq!(y.shape()[..], [3, 1, 2, 1]);
        assert_eq!(x.values::<f32>().as_ptr(), y.values::<f32>().as_ptr());
    }

    proptest! {
        #[test]
        fn every_order_is_the_one_by_indices_and_comes_back(
            lengths in proptest::collection::vec(1usize..40, 4),
            order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        ) {
            let shorter = |(i, n): (usize, &usize)| n.div_ceil(1 + i % 3);
            let lengths: Vec<usize> = lengths.iter().enumerate().map(shorter).collect();
            let n: usize = lengths.iter().product();
            let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let x = Tensor::from_slice(&values, &lengths[..]).unwrap();
            let mut back = [0; 4];
            order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
            let expected = x.to_dtype(DType::F64).permute(&order).unwrap().to_vec_f64();
            for isa in supported() {
                let y = with_isa(isa, || x.permute(&order)).unwrap();
                prop_assert_eq!(y.to_vec_f64(), expected.clone());
                prop_assert_eq!(with_isa(isa, || y.permute(back)).unwrap().to_vec_f64(), x.to_vec_f64());
            }
        }
    }
}
