//! Pooling over windows of an [N, H, W, C] tensor, to [N, H', W', C]; [`Padding`] gives H' and W'.
//!
//! - max: y = max of the window's real cells (a padded cell never wins); g goes to the first
//!   maximum in row-major order.
//! - average: y = mean of the window's real cells (padded ones are not counted); each real cell
//!   gets g / count.
//! - global ones: the window is the whole image, the result [N, C].
//!
//! Max pooling saves the position of the maximum in its window: one byte an output element (four
//! where windows have over 256 cells). Windows may overlap, so the backward pass gathers: an input
//! row belongs to one thread, which visits the windows over it in a fixed order.

use crate::autograd::{Needs, record};
use crate::backend::cpu::simd::Isa;
use crate::cases::{Case, Fill, Input, Size};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::padding::Padding;
use crate::ops::reduce::mean_axes;
use crate::ops::reshape::reshape;
use crate::ops::{Route, route};
use crate::pool::Plain;
use crate::tensor::{DType, Tensor};
use windows::Windows;

mod cpu;
mod cuda;
mod non_overlapping;
mod reference;
mod windows;

/// Sizes are [height, width].
///
/// ```
/// use atrous::ops::{Padding, PoolOptions};
///
/// let options = PoolOptions::new(3);
/// assert_eq!((options.pool, options.stride, options.padding), ([3, 3], [3, 3], Padding::Valid));
/// assert_eq!(options.stride(1), PoolOptions { stride: [1, 1], ..options });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// Cells of one window.
    pub pool: [usize; 2],
    /// Cells from one window to the next; in Keras the window's own size by default.
    pub stride: [usize; 2],
    /// Which windows reach past the image; Keras' default is `valid`: none.
    pub padding: Padding,
}

impl PoolOptions {
    /// Square windows, side by side, `valid`: Keras' defaults.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let y = Tensor::ones([1, 6, 6, 1]).max_pool2d(PoolOptions::new(2))?;
    /// assert_eq!(y.shape()[..], [1, 3, 3, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(pool: usize) -> Self {
        PoolOptions { pool: [pool; 2], stride: [pool; 2], padding: Padding::Valid }
    }

    /// With windows that begin so many cells apart, on both axes: below the window's size they overlap.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let y = Tensor::ones([1, 6, 6, 1]).max_pool2d(PoolOptions::new(2).stride(1))?;
    /// assert_eq!(y.shape()[..], [1, 5, 5, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn stride(self, stride: usize) -> Self {
        PoolOptions { stride: [stride; 2], ..self }
    }

    /// With another rule for windows at the edge. Cells of padding are never the maximum, nor in a mean.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let y = Tensor::ones([1, 5, 5, 1]).max_pool2d(PoolOptions::new(2).padding(Padding::Same))?;
    /// assert_eq!(y.shape()[..], [1, 3, 3, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn padding(self, padding: Padding) -> Self {
        PoolOptions { padding, ..self }
    }
}

/// The largest element of every window.
///
/// See [`Tensor::max_pool2d`], which has an example.
pub fn max_pool2d(x: &Tensor, options: PoolOptions) -> Result<Tensor> {
    let route = route("max_pool2d", &[x])?;
    let windows = Windows::of("max_pool2d", x, options)?;
    if let Route::Cuda(cuda) = route {
        let wanted = Needs::of([x]).any();
        let (output, positions) = windows.max_on_device(cuda, x, wanted)?;
        return Ok(record("max_pool2d", [x], output, move |g| {
            let positions = positions.expect("kept when the input needs a gradient");
            Ok([Some(windows.max_backward_on_device(cuda, &positions, &g)?)])
        }));
    }
    let dtype = x.dtype();
    if options.pool[0].saturating_mul(options.pool[1]) <= 256 {
        max_pool::<u8>(x, dtype, windows)
    } else {
        max_pool::<u32>(x, dtype, windows)
    }
}

/// The mean of every window's real cells.
///
/// See [`Tensor::average_pool2d`], which has an example.
pub fn average_pool2d(x: &Tensor, options: PoolOptions) -> Result<Tensor> {
    let windows = Windows::of("average_pool2d", x, options)?;
    let output = match route("average_pool2d", &[x])? {
        Route::F64 => windows.average_reference::<f64>(x.values()),
        Route::Reference => windows.average_reference::<f32>(x.values()),
        Route::Fast => windows.average(x.values()),
        Route::Cuda(cuda) => windows.average_on_device(cuda, x, false)?,
    };
    Ok(record("average_pool2d", [x], output, move |g| {
        Ok([Some(match route("average_pool2d", &[&g])? {
            Route::F64 => windows.average_reference_backward::<f64>(g.values()),
            Route::Reference => windows.average_reference_backward::<f32>(g.values()),
            Route::Fast => windows.average_backward(g.values()),
            Route::Cuda(cuda) => windows.average_on_device(cuda, &g, true)?,
        })])
    }))
}

/// [N, H, W, C] → [N, C]: the mean over H and W.
///
/// See [`Tensor::global_average_pool`], which has an example.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    image("global_average_pool", x)?;
    mean_axes(x, 1..3)
}

/// [N, H, W, C] → [N, C]: the maximum over H and W.
///
/// See [`Tensor::global_max_pool`], which has an example.
pub fn global_max_pool(x: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = image("global_max_pool", x)?;
    let options = PoolOptions { pool: [h, w], stride: [1, 1], padding: Padding::Valid };
    reshape(&max_pool2d(x, options)?, [n, c])
}

fn image(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(&*x.shape()).map_err(|_| Error::shape(op, "[N, H, W, C]", x.shape()))
}

/// Where a window was largest, counted row-major in the window: u8 or u32.
trait Position: Plain + Eq {
    fn from_usize(position: usize) -> Self;
    fn to_usize(self) -> usize;
    /// If they are bytes.
    fn bytes(_: &[Self]) -> Option<&[u8]> {
        None
    }
}
impl Position for u8 {
    #[inline(always)]
    fn from_usize(position: usize) -> Self {
        position as u8
    }
    #[inline(always)]
    fn to_usize(self) -> usize {
        self as usize
    }
    fn bytes(positions: &[u8]) -> Option<&[u8]> {
        Some(positions)
    }
}
impl Position for u32 {
    #[inline(always)]
    fn from_usize(position: usize) -> Self {
        position as u32
    }
    #[inline(always)]
    fn to_usize(self) -> usize {
        self as usize
    }
}

fn max_pool<P: Position>(x: &Tensor, dtype: DType, windows: Windows) -> Result<Tensor> {
    if !Needs::of([x]).any() && dtype == DType::F32 && isa() != Isa::Reference {
        return Ok(windows.max_alone(x.values()));
    }
    let (output, positions) = match dtype {
        DType::F64 => windows.max_reference::<f64, P>(x.values()),
        _ if isa() == Isa::Reference => windows.max_reference::<f32, P>(x.values()),
        _ => windows.max(x.values()),
    };
    Ok(record("max_pool2d", [x], output, move |g| {
        Ok([Some(match dtype {
            DType::F64 => windows.max_reference_backward::<f64, P>(&positions, g.values()),
            _ if isa() == Isa::Reference => {
                windows.max_reference_backward::<f32, P>(&positions, g.values())
            }
            _ => match P::bytes(&positions) {
                Some(bytes) if windows.are_apart() => windows.max_backward_apart(bytes, g.values()),
                _ => windows.max_backward(&positions, g.values()),
            },
        })])
    }))
}

pub(crate) fn cases() -> Vec<Case> {
    let same = Padding::Same;
    let options = |pool, stride| PoolOptions::new(pool).stride(stride);
    let uneven = PoolOptions { pool: [2, 3], stride: [3, 1], padding: same };
    let all: [(&str, Size, [usize; 4], PoolOptions); 15] = [
        ("2s2", Size::Tiny, [2, 8, 9, 3], options(2, 2)),
        ("2s2_channels_75", Size::Tiny, [2, 7, 6, 75], options(2, 2)),
        ("3s3_same_channels_19", Size::Tiny, [2, 7, 8, 19], options(3, 3).padding(same)),
        (
            "3x2_side_by_side",
            Size::Tiny,
            [2, 11, 9, 32],
            PoolOptions { stride: [3, 2], pool: [3, 2], padding: Padding::Valid },
        ),
        ("3s2_channels_43", Size::Tiny, [1, 9, 8, 43], options(3, 2)),
        ("3s2_same_even", Size::Tiny, [2, 8, 6, 5], options(3, 2).padding(same)),
        ("3s2_same_odd", Size::Tiny, [1, 7, 9, 9], options(3, 2).padding(same)),
        ("3s1_same", Size::Tiny, [2, 4, 5, 8], options(3, 1).padding(same)),
        ("1s2", Size::Tiny, [2, 7, 8, 3], options(1, 2)),
        ("2x3_3x1_same", Size::Tiny, [2, 7, 5, 4], uneven),
        ("5_same_larger_than_the_picture", Size::Tiny, [1, 2, 3, 3], options(5, 1).padding(same)),
        ("17_over_256_cells", Size::Tiny, [1, 19, 18, 3], options(17, 1)),
        ("2s2_vgg16", Size::Real, [10, 224, 224, 64], options(2, 2)),
        ("3s3_alexnet", Size::Real, [16, 144, 144, 64], options(3, 3)),
        ("3s2_resnet", Size::Real, [16, 114, 114, 64], options(3, 2)),
    ];
    let mut cases = Vec::new();
    for (name, size, shape, options) in all {
        let inputs = || vec![Input::new("x", shape).fill(Fill::Distinct)];
        let mut max = Case::new("max_pool2d", name, size, inputs(), move |t| max_pool2d(&t[0], options));
        max.peer = match name {
            "2s2_vgg16" => Some(["maxpool2x2_s2", "[10] 64 224x224"]),
            "3s3_alexnet" => Some(["maxpool3x3_s3", "[16] 64 144x144"]),
            _ => None,
        };
        cases.push(max);
        cases.push(Case::new("average_pool2d", name, size, inputs(), move |t| {
            average_pool2d(&t[0], options)
        }));
    }
    for (name, size, shape) in [
        ("channels_37", Size::Tiny, [3, 5, 7, 37]),
        ("over_256_cells", Size::Tiny, [2, 17, 19, 3]),
        ("one_cell", Size::Tiny, [2, 1, 1, 5]),
        ("16x7x7x2048", Size::Real, [16, 7, 7, 2048]),
    ] {
        let inputs = || vec![Input::new("x", shape).fill(Fill::Distinct)];
        cases.push(Case::new("global_average_pool", name, size, inputs(), |t| {
            global_average_pool(&t[0])
        }));
        cases.push(Case::new("global_max_pool", name, size, inputs(), |t| global_max_pool(&t[0])));
    }
    cases
}

impl Tensor {
    /// [`max_pool2d`] of `[N, H, W, C]`: `[N, H', W', C]`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32, 2.0, 3.0, 4.0]).reshape([1, 2, 2, 1])?;
    /// assert_eq!(x.max_pool2d(PoolOptions::new(2))?.item()?, 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn max_pool2d(&self, options: PoolOptions) -> Result<Tensor> {
        max_pool2d(self, options)
    }

    /// [`average_pool2d`] of `[N, H, W, C]`: `[N, H', W', C]`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32, 2.0, 3.0, 4.0]).reshape([1, 2, 2, 1])?;
    /// assert_eq!(x.average_pool2d(PoolOptions::new(2))?.item()?, 2.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn average_pool2d(&self, options: PoolOptions) -> Result<Tensor> {
        average_pool2d(self, options)
    }

    /// [`global_max_pool`] of `[N, H, W, C]`: `[N, C]`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32, 2.0, 3.0, 4.0]).reshape([1, 2, 2, 1])?;
    /// assert_eq!(x.global_max_pool()?.item()?, 4.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn global_max_pool(&self) -> Result<Tensor> {
        global_max_pool(self)
    }

    /// [`global_average_pool`] of `[N, H, W, C]`: `[N, C]`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32, 2.0, 3.0, 4.0]).reshape([1, 2, 2, 1])?;
    /// assert_eq!(x.global_average_pool()?.item()?, 2.5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn global_average_pool(&self) -> Result<Tensor> {
        global_average_pool(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::no_grad;
    use crate::context::with_isa;

    #[test]
    fn of_equal_maxima_the_first_in_row_major_order_gets_the_gradient() {
        for isa in supported() {
            let x = Tensor::full([1, 4, 4, 40], 2.0).leaf();
            let y = with_isa(isa, || max_pool2d(&x, PoolOptions::new(2))).unwrap();
            let mut gradients =
                with_isa(isa, || y.backward_from(Tensor::full([1, 2, 2, 40], 3.0))).unwrap();
            let gradient = gradients.take(&x).unwrap().to_vec_f64();
            for (cell, channels) in gradient.chunks(40).enumerate() {
                let first = cell % 2 == 0 && cell / 4 % 2 == 0;
                assert!(channels.iter().all(|&g| g == if first { 3.0 } else { 0.0 }), "{isa:?} {cell}");
            }
        }
    }

    #[test]
    fn values_are_the_same_with_and_without_positions() {
        let x = Tensor::from_slice(
            &(0..2 * 9 * 7 * 45).map(|i| (i * 37 % 101) as f32).collect::<Vec<_>>(),
            [2, 9, 7, 45],
        )
        .unwrap();
        let options = PoolOptions::new(3).stride(2).padding(Padding::Same);
        let with = max_pool2d(&x.leaf(), options).unwrap();
        let without = no_grad(|| max_pool2d(&x, options)).unwrap();
        assert_eq!(with.to_vec_f64(), without.to_vec_f64());
    }

    #[test]
    fn negative_infinity_everywhere_does_not_send_the_gradient_into_the_padding() {
        let x = Tensor::full([1, 3, 3, 2], f32::NEG_INFINITY).leaf();
        let y = max_pool2d(&x, PoolOptions::new(3).stride(2).padding(Padding::Same)).unwrap();
        let mut gradients = y.backward_from(Tensor::full(y.shape(), 1.0)).unwrap();
        assert_eq!(gradients.take(&x).unwrap().to_vec_f64().iter().sum::<f64>(), 8.0);
    }

    #[test]
    fn a_image_smaller_than_a_valid_window_is_refused() {
        let error =
            max_pool2d(&Tensor::zeros([1, 2, 5, 1]), PoolOptions::new(3)).unwrap_err().to_string();
        assert!(error.contains("`valid`"), "{error}");
        let error =
            average_pool2d(&Tensor::zeros([2, 5, 1]), PoolOptions::new(1)).unwrap_err().to_string();
        assert_eq!(error, "average_pool2d: expected [N, H, W, C], got [2×5×1]");
        assert!(max_pool2d(&Tensor::zeros([1, 2, 5, 1]), PoolOptions::new(2).stride(0)).is_err());
        for empty in [[0, 4, 4, 3], [1, 4, 4, 0]] {
            let pooled = max_pool2d(&Tensor::zeros(empty), PoolOptions::new(2)).unwrap();
            assert_eq!(pooled.shape().elements(), 0);
        }
    }
}
