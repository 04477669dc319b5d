//! Resizing images and feature maps, as `tf.image.resize` does (no antialiasing).
//!
//! x [N, h, w, C] → y [N, H, W, C]. Pixels are areas, so their centres sit at i + ½. Along each
//! axis, with scale = in / out:
//!
//! - nearest: y(i) = x(min(⌊(i + ½)·scale⌋, in − 1))
//! - bilinear: s = (i + ½)·scale − ½, t = s − ⌊s⌋, low = max(⌊s⌋, 0), high = min(⌈s⌉, in − 1);
//!   first along x: top = a + (b − a)·tₓ, bottom = c + (d − c)·tₓ, then y = top + (bottom − top)·t_y
//!
//! The order of operations is TensorFlow's and so are the bits in f32: no step may be fused.
//! An f64 tensor has its bilinear coordinates in f64; nearest picks its pixel in f32 always, so
//! that both types pick the same one.
//!
//! Both are linear in x, and the gradient is the transpose. In gather form: an input pixel adds up
//! the outputs it went to, ∂L/∂x(i) = Σⱼ weight(i, j)·g(j), in the order of j, with no two threads
//! writing to one place.
//!
//! Bytes bind: an output element costs three multiplications and six additions.

use crate::autograd::record;
use crate::backend::cuda::{Cuda, Value, arguments};
use crate::cases::{Case, Input, Size};
use crate::error::{Error, Result};
use crate::ops::affine::LONGEST;
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Shape, Tensor};
pub(crate) use cpu::{BilinearRows, nearest_rows};

mod cpu;

/// How an output pixel is made of input pixels.
///
/// ```
/// use atrous::Tensor;
/// use atrous::ops::Method;
///
/// let x = Tensor::from([[[[0.0f32], [8.0]]]]); // an image of one row
/// assert_eq!(x.resize(1, 4, Method::Bilinear)?.to_vec_f64(), [0.0, 2.0, 6.0, 8.0]);
/// assert_eq!(x.resize(1, 4, Method::Nearest)?.to_vec_f64(), [0.0, 0.0, 8.0, 8.0]);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The mean of the four pixels around it, weighted by how near they are: smooth, for feature maps.
    Bilinear,
    /// The pixel it falls in, unchanged: for label maps, whose numbers have no mean.
    Nearest,
}

/// The two pixels of one axis that an output pixel lies between, and how far it is to the second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tap<T> {
    pub low: usize,
    pub high: usize,
    pub t: T,
}

impl Method {
    pub(crate) fn taps<T: Real>(self, input: usize, output: usize) -> Vec<Tap<T>> {
        match self {
            Method::Bilinear => (0..output).map(|i| bilinear_tap(i, input, output)).collect(),
            Method::Nearest => (0..output)
                .map(|i| nearest_index(i, input, output))
                .map(|at| Tap { low: at, high: at, t: T::ZERO })
                .collect(),
        }
    }
}

fn bilinear_tap<T: Real>(i: usize, input: usize, output: usize) -> Tap<T> {
    let (half, number) = (T::from_f64(0.5), |n: usize| T::from_f64(n as f64));
    let scale = number(input) / number(output);
    let s = (number(i) + half) * scale - half;
    let below = s.floor();
    // ⌈s⌉ is ⌊s⌋ where s is whole.
    let above = if s == below { below } else { below + T::ONE };
    let index = |v: T| v.to_f64().clamp(0.0, (input - 1) as f64) as usize;
    Tap { low: index(below), high: index(above), t: s - below }
}

fn nearest_index(i: usize, input: usize, output: usize) -> usize {
    let scale = input as f32 / output as f32;
    (((i as f32 + 0.5) * scale).floor() as usize).min(input - 1)
}

/// x [N, h, w, C] → [N, out_h, out_w, C]
///
/// See [`Tensor::resize`], which has an example.
pub fn resize(x: &Tensor, out_h: usize, out_w: usize, method: Method) -> Result<Tensor> {
    let geometry = Geometry::new(x.shape(), out_h, out_w)?;
    // A single pixel (DeepLab's pooled branch) is broadcast: there is nothing to interpolate.
    let method = if geometry.h * geometry.w == 1 { Method::Nearest } else { method };
    let output = match route("resize", &[x])? {
        Route::F64 => reference::<f64>(x, geometry, method),
        Route::Reference => reference::<f32>(x, geometry, method),
        Route::Fast => cpu::forward(x, geometry, method),
        Route::Cuda(cuda) => on_device(cuda, x, geometry, method, false)?,
    };
    Ok(record("resize", [x], output, move |g| {
        Ok([Some(match route("resize", &[&g])? {
            Route::F64 => reference_backward::<f64>(&g, geometry, method),
            Route::Reference => reference_backward::<f32>(&g, geometry, method),
            Route::Fast => cpu::backward(&g, geometry, method),
            Route::Cuda(cuda) => on_device(cuda, &g, geometry, method, true)?,
        })])
    }))
}

#[derive(Clone, Copy)]
struct Geometry {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    out_h: usize,
    out_w: usize,
}

impl Geometry {
    fn new(shape: Shape, out_h: usize, out_w: usize) -> Result<Self> {
        let &[n, h, w, c] = &*shape else {
            return Err(Error::shape("resize", "[N×H×W×C]", shape));
        };
        // (Further along, coordinates in f32 would miss pixels.)
        let sides = 1..=LONGEST;
        if !sides.contains(&h) || !sides.contains(&w) {
            let expected = format!("a height and width above zero, and of at most {LONGEST}");
            return Err(Error::shape("resize", expected, shape));
        }
        if !sides.contains(&out_h) || !sides.contains(&out_w) {
            let message = format!("expected output sides of 1 to {LONGEST}, got {out_h}×{out_w}");
            return Err(Error::argument("resize", message));
        }
        Shape::checked(&[n, out_h, out_w, c])?;
        Ok(Geometry { n, h, w, c, out_h, out_w })
    }

    fn input(&self) -> [usize; 4] {
        [self.n, self.h, self.w, self.c]
    }

    fn output(&self) -> [usize; 4] {
        [self.n, self.out_h, self.out_w, self.c]
    }
}

/// Pixel by pixel: the four neighbours of each, as the formula has it.
fn reference<T: Real>(x: &Tensor, geometry: Geometry, method: Method) -> Tensor {
    let Geometry { n, h, w, c, out_h, out_w } = geometry;
    let (rows, columns) = (method.taps::<T>(h, out_h), method.taps::<T>(w, out_w));
    let x = x.values::<T>();
    let mut out = Buffer::<T>::new(n * out_h * out_w * c);
    let mut at = 0;
    for n in 0..n {
        for row in &rows {
            for column in &columns {
                for c in 0..geometry.c {
                    let pixel = |y: usize, x_: usize| x[((n * h + y) * w + x_) * geometry.c + c];
                    let lerp = |a: T, b: T, t: T| a + (b - a) * t;
                    let top = lerp(pixel(row.low, column.low), pixel(row.low, column.high), column.t);
                    let bottom =
                        lerp(pixel(row.high, column.low), pixel(row.high, column.high), column.t);
                    out[at] = lerp(top, bottom, row.t);
                    at += 1;
                }
            }
        }
    }
    Tensor::from_buffer(out, geometry.output())
}

/// Every output pixel hands its gradient to its four neighbours.
fn reference_backward<T: Real>(g: &Tensor, geometry: Geometry, method: Method) -> Tensor {
    let Geometry { n, h, w, c, out_h, out_w } = geometry;
    let (rows, columns) = (method.taps::<T>(h, out_h), method.taps::<T>(w, out_w));
    let g = g.values::<T>();
    let mut out = Buffer::<T>::filled(n * h * w * c, T::ZERO);
    for (at, &g) in g.iter().enumerate() {
        let (c, pixel) = (at % c, at / c);
        let (column, pixel) = (columns[pixel % out_w], pixel / out_w);
        let (row, n) = (rows[pixel % out_h], pixel / out_h);
        for (y, wy) in [(row.low, T::ONE - row.t), (row.high, row.t)] {
            for (x, wx) in [(column.low, T::ONE - column.t), (column.high, column.t)] {
                out[((n * h + y) * w + x) * geometry.c + c] += g * wy * wx;
            }
        }
    }
    Tensor::from_buffer(out, geometry.input())
}

/// `struct Resize` of `kernels/resize.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DeviceGeometry([i32; 7]);
// SAFETY: numbers without padding.
unsafe impl Value for DeviceGeometry {}

/// The forward pass on x, or the backward pass on the output's gradient.
fn on_device(
    cuda: &'static Cuda,
    from: &Tensor,
    geometry: Geometry,
    method: Method,
    backward: bool,
) -> Result<Tensor> {
    let Geometry { n, h, w, c, out_h, out_w } = geometry;
    let mut numbers = [0; 7];
    for (number, size) in numbers.iter_mut().zip([n, h, w, c, out_h, out_w]) {
        *number = i32::try_from(size)
            .map_err(|_| Error::argument("resize", format!("{size} is too large a size")))?;
    }
    numbers[6] = (method == Method::Nearest) as i32;
    let (names, shape) = match backward {
        false => (["resize_forward", "resize_forward_4"], geometry.output()),
        true => (["resize_backward", "resize_backward_4"], geometry.input()),
    };
    let count = shape.iter().product();
    let to = cuda.allocate(count, DType::F32)?;
    let all = arguments![from.memory(), &to, DeviceGeometry(numbers), count as i64];
    // SAFETY: `from` has the other shape of the geometry; `to` is `count` floats, new.
    unsafe { cuda.launch_pass("resize", names, count, c, &all)? };
    Ok(Tensor::from_memory(to, shape))
}

pub(crate) fn cases() -> Vec<Case> {
    let tiny = [
        ("up_odd", [2, 3, 5, 3], [7, 11]),
        ("down_odd", [1, 11, 9, 2], [4, 5]),
        ("up_and_down", [1, 9, 4, 5], [3, 9]),
        ("fours", [2, 3, 4, 8], [7, 6]),
        ("same", [1, 5, 6, 3], [5, 6]),
        ("x4", [1, 6, 7, 21], [24, 28]),
        ("from_1x1", [2, 1, 1, 19], [14, 14]),
        ("to_1x1", [1, 5, 4, 3], [1, 1]),
        ("pieces", [1, 4, 3, 2], [45, 6]),
    ];
    let methods = [("bilinear", Method::Bilinear), ("nearest", Method::Nearest)];
    let mut cases = Vec::new();
    let mut add = |name: String, size, shape: [usize; 4], [out_h, out_w]: [usize; 2], method| {
        let inputs = vec![Input::new("x", shape)];
        cases
            .push(Case::new("resize", name, size, inputs, move |t| resize(&t[0], out_h, out_w, method)));
    };
    for (kind, method) in methods {
        for (name, shape, out) in tiny {
            add(format!("{kind}_{name}"), Size::Tiny, shape, out, method);
        }
    }
    add("pyramid_x4".into(), Size::Real, [4, 14, 14, 256], [56, 56], Method::Bilinear);
    add("features_x4".into(), Size::Real, [4, 56, 56, 256], [224, 224], Method::Bilinear);
    add("logits_x4".into(), Size::Real, [4, 56, 56, 21], [224, 224], Method::Bilinear);
    add("picture_down".into(), Size::Real, [16, 375, 500, 3], [112, 150], Method::Bilinear);
    let peers = [
        ("pyramid_x4", "[4] 256 14x14"),
        ("features_x4", "[4] 256 56x56"),
        ("logits_x4", "[4] 21 56x56"),
    ];
    for case in &mut cases {
        let peer = peers.into_iter().find(|&(name, _)| name == case.name);
        case.peer = peer.map(|(_, shape)| ["bilinear_x4", shape]);
    }
    cases
}

impl Tensor {
    /// [`resize`] of `[N, H, W, C]`: `[N, height, width, C]`.
    ///
    /// ```
    /// # use atrous::{ops::Method, prelude::*};
    /// let x = Tensor::from([0.0f32, 1.0]).reshape([1, 1, 2, 1])?;
    /// let y = x.resize(1, 4, Method::Bilinear)?;
    /// assert_eq!(y.to_vec_f64(), [0.0, 0.25, 0.75, 1.0]); // pixels' centres at halves
    /// # Ok::<(), Error>(())
    /// ```
    pub fn resize(&self, height: usize, width: usize, method: Method) -> Result<Tensor> {
        resize(self, height, width, method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::{simd, threads};

    #[test]
    fn a_size_of_zero_and_a_wrong_rank_are_refused() {
        let x = Tensor::zeros([1, 2, 2, 3]);
        let message = |x: &Tensor, h, w| resize(x, h, w, Method::Bilinear).unwrap_err().to_string();
        assert!(message(&x, 0, 5).contains("got 0×5"), "{}", message(&x, 0, 5));
        assert!(message(&x, usize::MAX, 5).starts_with("resize: expected"));
        assert!(message(&Tensor::zeros([1, 0, 2, 3]), 4, 4).contains("above zero"));
        assert!(message(&Tensor::zeros([2, 2, 3]), 4, 4).contains("[N×H×W×C]"));
        assert!(
            resize(&Tensor::from_u8(&[1; 12], [1, 2, 2, 3]).unwrap(), 4, 4, Method::Nearest).is_err()
        );
    }

    #[test]
    fn the_same_size_gives_the_same_bits() {
        let values: Vec<f32> = (0..60).map(|i| (i as f32).sin()).collect();
        let x = Tensor::from_slice(&values, [1, 4, 5, 3]).unwrap();
        for method in [Method::Bilinear, Method::Nearest] {
            assert_eq!(resize(&x, 4, 5, method).unwrap().as_slice::<f32>(), x.as_slice::<f32>());
        }
    }

    #[test]
    fn every_instruction_set_and_thread_count_gives_the_bits_of_the_reference() {
        let values: Vec<f32> = (0..2 * 37 * 23 * 5).map(|i| (i as f32 * 0.7).sin() * 255.0).collect();
        let x = Tensor::from_slice(&values, [2, 37, 23, 5]).unwrap();
        let run = || resize(&x, 61, 17, Method::Bilinear).unwrap();
        let expected = crate::context::with_isa(simd::Isa::Reference, run);
        for isa in simd::supported() {
            for threads in [1, 2, 3] {
                let got = threads::with(threads, || crate::context::with_isa(isa, run)).unwrap();
                assert_eq!(
                    got.as_slice::<f32>(),
                    expected.as_slice::<f32>(),
                    "{isa:?}, {threads} threads"
                );
            }
        }
    }

    #[test]
    fn no_channels_give_no_elements() {
        let y = resize(&Tensor::zeros([1, 2, 2, 0]), 3, 3, Method::Bilinear).unwrap();
        assert_eq!(y.shape().elements(), 0);
    }
}
