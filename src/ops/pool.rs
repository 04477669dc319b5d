//! Pooling over windows of an [N, H, W, C] tensor, to [N, H', W', C]; [`Padding`] gives H' and W'.
//!
//! - max: y = max of the window's real cells (a padded cell never wins); g goes to the first
//!   maximum in row-major order.
//! - average: y = mean of the window's real cells (padded ones are not counted); each real cell
//!   gets g / count.
//! - global ones: the window is the whole picture, the result [N, C].
//!
//! Max pooling saves the position of the maximum in its window: one byte an output element (four
//! where windows have over 256 cells). Windows may overlap, so the backward pass gathers: an input
//! row belongs to one thread, which visits the windows over it in a fixed order.

use crate::autograd::{Needs, record};
use crate::cases::{Case, Fill, Input, Size};
use crate::cpu::simd::{self, Isa, isa};
use crate::cpu::threads;
use crate::error::{Error, Result};
use crate::ops::common_dtype;
use crate::ops::padding::Padding;
use crate::ops::reduce::mean_axes;
use crate::ops::reshape::reshape;
use crate::pool::{Buffer, Plain};
use crate::tensor::{DType, Real, Tensor};
use std::ops::Range;

/// Sizes are [height, width].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    pub pool: [usize; 2],
    pub stride: [usize; 2],
    pub padding: Padding,
}

impl PoolOptions {
    /// Square windows, side by side, `valid`: Keras' defaults.
    pub fn new(pool: usize) -> Self {
        PoolOptions { pool: [pool; 2], stride: [pool; 2], padding: Padding::Valid }
    }

    pub fn stride(self, stride: usize) -> Self {
        PoolOptions { stride: [stride; 2], ..self }
    }

    pub fn padding(self, padding: Padding) -> Self {
        PoolOptions { padding, ..self }
    }
}

/// The largest element of every window.
pub fn max_pool2d(x: &Tensor, options: PoolOptions) -> Result<Tensor> {
    let dtype = common_dtype("max_pool2d", &[x])?;
    let windows = Windows::of("max_pool2d", x, options)?;
    if options.pool[0].saturating_mul(options.pool[1]) <= 256 {
        max_pool::<u8>(x, dtype, windows)
    } else {
        max_pool::<u32>(x, dtype, windows)
    }
}

/// The mean of every window's real cells.
pub fn average_pool2d(x: &Tensor, options: PoolOptions) -> Result<Tensor> {
    let dtype = common_dtype("average_pool2d", &[x])?;
    let windows = Windows::of("average_pool2d", x, options)?;
    let output = match dtype {
        DType::F64 => windows.average_reference::<f64>(x.values()),
        _ if isa() == Isa::Reference => windows.average_reference::<f32>(x.values()),
        _ => windows.average(x.values()),
    };
    Ok(record("average_pool2d", [x], output, move |g| {
        Ok([Some(match dtype {
            DType::F64 => windows.average_reference_backward::<f64>(g.values()),
            _ if isa() == Isa::Reference => windows.average_reference_backward::<f32>(g.values()),
            _ => windows.average_backward(g.values()),
        })])
    }))
}

/// [N, H, W, C] → [N, C]: the mean over H and W.
pub fn global_average_pool(x: &Tensor) -> Result<Tensor> {
    picture("global_average_pool", x)?;
    mean_axes(x, 1..3)
}

/// [N, H, W, C] → [N, C]: the maximum over H and W.
pub fn global_max_pool(x: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = picture("global_max_pool", x)?;
    let options = PoolOptions { pool: [h, w], stride: [1, 1], padding: Padding::Valid };
    reshape(&max_pool2d(x, options)?, [n, c])
}

fn picture(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    <[usize; 4]>::try_from(&*x.shape()).map_err(|_| Error::shape(op, "[N, H, W, C]", x.shape()))
}

/// Where a window was largest, counted row-major in the window: u8 or u32.
trait Position: Plain + Eq {
    fn from_usize(position: usize) -> Self;
    fn to_usize(self) -> usize;
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
            _ => windows.max_backward(&positions, g.values()),
        })])
    }))
}

/// The geometry: [height, width] each.
#[derive(Clone, Copy)]
struct Windows {
    batch: usize,
    channels: usize,
    input: [usize; 2],
    output: [usize; 2],
    pool: [usize; 2],
    stride: [usize; 2],
    before: [usize; 2],
}

/// The real cells of one window: input rows and columns, and the position of the first of them
/// in the whole window.
#[derive(Clone)]
struct Cells {
    rows: Range<usize>,
    columns: Range<usize>,
    first: usize,
}

impl Windows {
    fn of(op: &'static str, x: &Tensor, options: PoolOptions) -> Result<Self> {
        let [batch, h, w, channels] = picture(op, x)?;
        let PoolOptions { pool, stride, padding } = options;
        let (oh, top, _) = padding.resolve(h, pool[0], stride[0])?;
        let (ow, left, _) = padding.resolve(w, pool[1], stride[1])?;
        let (input, output, before) = ([h, w], [oh, ow], [top, left]);
        Ok(Windows { batch, channels, input, output, pool, stride, before })
    }

    fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.output[0], self.output[1], self.channels]
    }

    fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.input[0], self.input[1], self.channels]
    }

    /// The input cells of the o-th window along an axis, and the first one's place in the window.
    #[inline(always)]
    fn cells_along(&self, axis: usize, o: usize) -> (Range<usize>, usize) {
        let (start, before) = (o * self.stride[axis], self.before[axis]);
        let end = (start + self.pool[axis] - before).min(self.input[axis]);
        (start.saturating_sub(before)..end, before.saturating_sub(start))
    }

    #[inline(always)]
    fn cells(&self, oy: usize, ox: usize) -> Cells {
        let ((rows, ky), (columns, kx)) = (self.cells_along(0, oy), self.cells_along(1, ox));
        Cells { rows, columns, first: ky * self.pool[1] + kx }
    }

    /// The windows that hold the i-th input cell along an axis.
    #[inline(always)]
    fn over(&self, axis: usize, i: usize) -> Range<usize> {
        let (padded, stride) = (i + self.before[axis], self.stride[axis]);
        let first = (padded + 1).saturating_sub(self.pool[axis]).div_ceil(stride);
        first..(padded / stride + 1).min(self.output[axis])
    }

    /// The offset of a cell's channels in the input.
    #[inline(always)]
    fn at(&self, n: usize, y: usize, x: usize) -> usize {
        ((n * self.input[0] + y) * self.input[1] + x) * self.channels
    }

    /// Calls `f` with (n, oy, ox) and the offset of its channels in the output.
    fn for_each_window(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let [oh, ow] = self.output;
        for i in 0..self.batch * oh * ow {
            f(i / (oh * ow), i / ow % oh, i % ow, i * self.channels);
        }
    }

    /// Rows of the given length to hand to a thread at a time.
    fn rows_per_piece(&self, row: usize) -> usize {
        (threads::PASS / 4 / row.max(1)).max(1)
    }
}

/// The references.
impl Windows {
    fn max_reference<T: Real, P: Position>(&self, x: &[T]) -> (Tensor, Buffer<P>) {
        let n = self.output_shape().iter().product();
        let (mut out, mut positions) = (Buffer::<T>::new(n), Buffer::<P>::new(n));
        self.for_each_window(|n, oy, ox, o| {
            let cells = self.cells(oy, ox);
            for c in 0..self.channels {
                let mut best = x[self.at(n, cells.rows.start, cells.columns.start) + c];
                let mut position = cells.first;
                for (ky, y) in cells.rows.clone().enumerate() {
                    for (kx, x_) in cells.columns.clone().enumerate() {
                        let value = x[self.at(n, y, x_) + c];
                        if value > best {
                            (best, position) = (value, cells.first + ky * self.pool[1] + kx);
                        }
                    }
                }
                (out[o + c], positions[o + c]) = (best, P::from_usize(position));
            }
        });
        (Tensor::from_buffer(out, self.output_shape()), positions)
    }

    fn max_reference_backward<T: Real, P: Position>(&self, positions: &[P], g: &[T]) -> Tensor {
        let mut d = Buffer::filled(self.input_shape().iter().product(), T::ZERO);
        self.for_each_window(|n, oy, ox, o| {
            for c in 0..self.channels {
                let position = positions[o + c].to_usize();
                let y = oy * self.stride[0] + position / self.pool[1] - self.before[0];
                let x = ox * self.stride[1] + position % self.pool[1] - self.before[1];
                d[self.at(n, y, x) + c] += g[o + c];
            }
        });
        Tensor::from_buffer(d, self.input_shape())
    }

    fn average_reference<T: Real>(&self, x: &[T]) -> Tensor {
        let mut out = Buffer::filled(self.output_shape().iter().product(), T::ZERO);
        self.for_each_window(|n, oy, ox, o| {
            let Cells { rows, columns, .. } = self.cells(oy, ox);
            let count = T::from_f64((rows.len() * columns.len()) as f64);
            for c in 0..self.channels {
                let cells = rows.clone().flat_map(|y| columns.clone().map(move |x| (y, x)));
                out[o + c] = cells.map(|(y, x_)| x[self.at(n, y, x_) + c]).sum::<T>() / count;
            }
        });
        Tensor::from_buffer(out, self.output_shape())
    }

    fn average_reference_backward<T: Real>(&self, g: &[T]) -> Tensor {
        let mut d = Buffer::filled(self.input_shape().iter().product(), T::ZERO);
        self.for_each_window(|n, oy, ox, o| {
            let Cells { rows, columns, .. } = self.cells(oy, ox);
            let count = T::from_f64((rows.len() * columns.len()) as f64);
            for y in rows {
                for x in columns.clone() {
                    for c in 0..self.channels {
                        d[self.at(n, y, x) + c] += g[o + c] / count;
                    }
                }
            }
        });
        Tensor::from_buffer(d, self.input_shape())
    }
}

/// The fast kernels: vectors run over the channels, threads over rows.
impl Windows {
    /// Values and positions. Blocks of channels keep both in registers over a window.
    fn max<P: Position>(&self, x: &[f32]) -> (Tensor, Buffer<P>) {
        let n = self.output_shape().iter().product();
        let (mut out, mut positions) = (Buffer::<f32>::new(n), Buffer::<P>::new(n));
        let ([oh, ow], channels, isa) = (self.output, self.channels, isa());
        let rows = self.rows_per_piece(ow * channels);
        let size = (rows * ow * channels).max(1);
        let mut pieces: Vec<_> = out.chunks_mut(size).zip(positions.chunks_mut(size)).collect();
        threads::for_each_chunk(&mut pieces, 1, |i, pieces| {
            let (out, positions) = &mut pieces[0];
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    let outputs = out.chunks_mut(channels).zip(positions.chunks_mut(channels));
                    for (o, (out, positions)) in outputs.enumerate() {
                        let row = i * rows + o / ow;
                        let (n, cells) = (row / oh, self.cells(row % oh, o % ow));
                        let mut c = 0;
                        while c + 32 <= channels {
                            self.max_of_block::<32, P>(x, n, &cells, c, out, positions);
                            c += 32;
                        }
                        while c + 8 <= channels {
                            self.max_of_block::<8, P>(x, n, &cells, c, out, positions);
                            c += 8;
                        }
                        while c < channels {
                            self.max_of_block::<1, P>(x, n, &cells, c, out, positions);
                            c += 1;
                        }
                    }
                },
            );
        });
        (Tensor::from_buffer(out, self.output_shape()), positions)
    }

    #[inline(always)]
    fn max_of_block<const WIDTH: usize, P: Position>(
        &self,
        x: &[f32],
        n: usize,
        cells: &Cells,
        c: usize,
        out: &mut [f32],
        positions: &mut [P],
    ) {
        let start = self.at(n, cells.rows.start, cells.columns.start) + c;
        let mut best: [f32; WIDTH] = std::array::from_fn(|i| x[start + i]);
        let mut position = [cells.first as u32; WIDTH];
        for (ky, y) in cells.rows.clone().enumerate() {
            let start = self.at(n, y, cells.columns.start) + c;
            for kx in 0..cells.columns.len() {
                let values = &x[start + kx * self.channels..][..WIDTH];
                let here = (cells.first + ky * self.pool[1] + kx) as u32;
                for i in 0..WIDTH {
                    let larger = values[i] > best[i];
                    best[i] = if larger { values[i] } else { best[i] };
                    position[i] = if larger { here } else { position[i] };
                }
            }
        }
        out[c..c + WIDTH].copy_from_slice(&best);
        let positions = &mut positions[c..c + WIDTH];
        for i in 0..WIDTH {
            positions[i] = P::from_usize(position[i] as usize);
        }
    }

    /// Values alone, where no gradient will be asked for.
    fn max_alone(&self, x: &[f32]) -> Tensor {
        self.fold(x, |a, b| if b > a { b } else { a }, |_| 1.0)
    }

    fn average(&self, x: &[f32]) -> Tensor {
        self.fold(x, |a, b| a + b, |count| 1.0 / count as f32)
    }

    /// Combines the cells of every window by `f`, and scales by a function of their number.
    fn fold(
        &self,
        x: &[f32],
        f: impl Fn(f32, f32) -> f32 + Sync + Send,
        scale: impl Fn(usize) -> f32 + Sync + Send,
    ) -> Tensor {
        let ([oh, ow], channels, isa) = (self.output, self.channels, isa());
        let rows = self.rows_per_piece(ow * channels);
        let mut out = Buffer::<f32>::new(self.output_shape().iter().product());
        threads::for_each_chunk(&mut out, (rows * ow * channels).max(1), |i, out| {
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    for (o, out) in out.chunks_mut(channels).enumerate() {
                        let row = i * rows + o / ow;
                        let (n, cells) = (row / oh, self.cells(row % oh, o % ow));
                        let first = self.at(n, cells.rows.start, cells.columns.start);
                        out.copy_from_slice(&x[first..first + channels]);
                        for y in cells.rows.clone() {
                            for x_ in cells.columns.clone() {
                                let start = self.at(n, y, x_);
                                if start != first {
                                    let cell = &x[start..start + channels];
                                    out.iter_mut().zip(cell).for_each(|(o, &v)| *o = f(*o, v));
                                }
                            }
                        }
                        let scale = scale(cells.rows.len() * cells.columns.len());
                        if scale != 1.0 {
                            out.iter_mut().for_each(|o| *o *= scale);
                        }
                    }
                },
            );
        });
        Tensor::from_buffer(out, self.output_shape())
    }

    fn max_backward<P: Position>(&self, positions: &[P], g: &[f32]) -> Tensor {
        let channels = self.channels;
        self.gather(
            #[inline(always)]
            |window, _, position, d| {
                let here = P::from_usize(position);
                let pairs =
                    positions[window..window + channels].iter().zip(&g[window..window + channels]);
                for (d, (&position, &g)) in d.iter_mut().zip(pairs) {
                    *d += if position == here { g } else { 0.0 };
                }
            },
        )
    }

    fn average_backward(&self, g: &[f32]) -> Tensor {
        let channels = self.channels;
        self.gather(
            #[inline(always)]
            |window, count, _, d| {
                let scale = 1.0 / count as f32;
                d.iter_mut().zip(&g[window..window + channels]).for_each(|(d, &g)| *d += g * scale);
            },
        )
    }

    /// Calls `f(offset of the window's channels in the output, the window's number of real cells,
    /// position of the cell in the window, gradient of the cell's channels)` for every window over
    /// every cell.
    fn gather(&self, f: impl Fn(usize, usize, usize, &mut [f32]) + Sync + Send) -> Tensor {
        let ([h, w], [oh, ow], channels, isa) = (self.input, self.output, self.channels, isa());
        let rows = self.rows_per_piece(w * channels);
        let mut out = Buffer::<f32>::new(self.input_shape().iter().product());
        threads::for_each_chunk(&mut out, (rows * w * channels).max(1), |i, out| {
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    for (row, out) in out.chunks_mut(w * channels).enumerate() {
                        let (n, y) = ((i * rows + row) / h, (i * rows + row) % h);
                        out.fill(0.0);
                        for oy in self.over(0, y) {
                            let ky = y + self.before[0] - oy * self.stride[0];
                            let height = self.cells_along(0, oy).0.len();
                            for ox in 0..ow {
                                let (columns, kx) = self.cells_along(1, ox);
                                let (count, position) = (height * columns.len(), ky * self.pool[1] + kx);
                                let window = ((n * oh + oy) * ow + ox) * channels;
                                let cells = &mut out[columns.start * channels..columns.end * channels];
                                for (k, cell) in cells.chunks_mut(channels).enumerate() {
                                    f(window, count, position + k, cell);
                                }
                            }
                        }
                    }
                },
            );
        });
        Tensor::from_buffer(out, self.input_shape())
    }
}

pub fn cases() -> Vec<Case> {
    let same = Padding::Same;
    let options = |pool, stride| PoolOptions::new(pool).stride(stride);
    let uneven = PoolOptions { pool: [2, 3], stride: [3, 1], padding: same };
    let all: [(&str, Size, [usize; 4], PoolOptions); 13] = [
        ("2s2", Size::Tiny, [2, 8, 9, 3], options(2, 2)),
        ("2s2_channels_75", Size::Tiny, [2, 7, 6, 75], options(2, 2)),
        ("3s2_channels_43", Size::Tiny, [1, 9, 8, 43], options(3, 2)),
        ("3s2_same_even", Size::Tiny, [2, 8, 6, 5], options(3, 2).padding(same)),
        ("3s2_same_odd", Size::Tiny, [1, 7, 9, 9], options(3, 2).padding(same)),
        ("3s1_same", Size::Tiny, [2, 4, 5, 8], options(3, 1).padding(same)),
        ("1s2", Size::Tiny, [2, 7, 8, 3], options(1, 2)),
        ("2x3_3x1_same", Size::Tiny, [2, 7, 5, 4], uneven),
        ("5_same_larger_than_the_picture", Size::Tiny, [1, 2, 3, 3], options(5, 1).padding(same)),
        ("17_over_256_cells", Size::Tiny, [1, 19, 18, 3], options(17, 1)),
        ("2s2_vgg16", Size::Real, [16, 224, 224, 64], options(2, 2)),
        ("3s3_alexnet", Size::Real, [16, 144, 144, 64], options(3, 3)),
        ("3s2_resnet", Size::Real, [16, 114, 114, 64], options(3, 2)),
    ];
    let mut cases = Vec::new();
    for (name, size, shape, options) in all {
        let inputs = || vec![Input::new("x", shape).fill(Fill::Distinct)];
        cases.push(Case::new("max_pool2d", name, size, inputs(), move |t| max_pool2d(&t[0], options)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::no_grad;
    use crate::cpu::simd::{supported, with_isa};

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
    fn a_picture_smaller_than_a_valid_window_is_refused() {
        let error =
            max_pool2d(&Tensor::zeros([1, 2, 5, 1]), PoolOptions::new(3)).unwrap_err().to_string();
        assert!(error.contains("`valid`"), "{error}");
        let error =
            average_pool2d(&Tensor::zeros([2, 5, 1]), PoolOptions::new(1)).unwrap_err().to_string();
        assert_eq!(error, "average_pool2d: expected [N, H, W, C], got [2×5×1]");
        assert!(max_pool2d(&Tensor::zeros([1, 2, 5, 1]), PoolOptions::new(2).stride(0)).is_err());
        assert_eq!(
            max_pool2d(&Tensor::zeros([0, 4, 4, 3]), PoolOptions::new(2)).unwrap().to_vec_f64(),
            []
        );
        assert_eq!(
            max_pool2d(&Tensor::zeros([1, 4, 4, 0]), PoolOptions::new(2)).unwrap().to_vec_f64(),
            []
        );
    }
}
