//! Affine image warp, as `scipy.ndimage.affine_transform(order=1, mode='nearest')` a channel.
//!
//! x [N, h, w, C] and one 2×3 matrix a sample → y [N, h, w, C]. The output pixel p = (row, column)
//! takes the input at q = M·(row, column, 1), each coordinate clamped to the image (so the edge
//! is repeated outwards), bilinearly between its four neighbours, with t = q − ⌊q⌋:
//!
//! y(p) = (1 − t_r)(1 − t_c)·a + (1 − t_r)t_c·b + t_r(1 − t_c)·c + t_r t_c·d
//!
//! Coordinates, weights and sums are f64, whatever the element type. Linear in x; the gradient is
//! the transpose: every output pixel adds its share to its four neighbours, sample by sample, in
//! the order of the pixels. The matrices have no gradient.

use crate::autograd::record;
use crate::backend::cpu::simd::{self, Isa};
use crate::backend::cpu::threads;
use crate::backend::cuda::{self, Cuda, Kernel, arguments};
use crate::cases::{Case, Input, Size};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::{Route, route};
use crate::pool::{self, Buffer};
use crate::tensor::{DType, Real, Shape, Tensor};

/// Rows give the input's row and column: [[rr, rc, r], [cr, cc, c]].
///
/// ```
/// use atrous::Tensor;
/// use atrous::ops::affine::Matrix;
///
/// let left: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]; // takes the pixel one column to the right
/// let x = Tensor::from([[[[1.0f32], [2.0], [3.0]]]]);
/// assert_eq!(x.affine(&[left])?.to_vec_f64(), [2.0, 3.0, 3.0]); // the edge is repeated
/// # Ok::<(), atrous::Error>(())
/// ```
pub type Matrix = [[f64; 3]; 2];

/// Leaves every pixel where it is.
///
/// ```
/// # use atrous::Tensor;
/// use atrous::ops::affine::IDENTITY;
///
/// let x = Tensor::rand([2, 3, 4, 1], 7);
/// assert_eq!(x.affine(&[IDENTITY; 2])?.to_vec_f64(), x.to_vec_f64());
/// # Ok::<(), atrous::Error>(())
/// ```
pub const IDENTITY: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];

/// Warps each sample of x [N, h, w, C] by its own matrix.
///
/// See [`Tensor::affine`], which has an example.
pub fn affine(x: &Tensor, matrices: &[Matrix]) -> Result<Tensor> {
    let &[n, h, w, c] = &*x.shape() else {
        return Err(Error::shape("affine", "[N×H×W×C]", x.shape()));
    };
    if matrices.len() != n {
        return Err(Error::shape("affine", format!("{n} matrices, one a sample"), matrices.len()));
    }
    if matrices.iter().flatten().flatten().any(|value| !value.is_finite()) {
        return Err(Error::argument("affine", format!("expected finite matrices, got {matrices:?}")));
    }
    let shape = x.shape();
    let output = match route("affine", &[x])? {
        Route::F64 => reference::<f64>(x, matrices),
        Route::Reference => reference::<f32>(x, matrices),
        Route::Cuda(cuda) => on_device(cuda, x, matrices, false)?,
        Route::Fast => {
            let (values, isa) = (x.values::<f32>(), isa());
            let mut out = Buffer::<f32>::new(values.len());
            threads::for_each_chunk(&mut out, (w * c).max(1), |i, out| {
                let image = &values[i / h * h * w * c..][..h * w * c];
                warp_row(isa, image, [h, w, c], &matrices[i / h], i % h, out);
            });
            Tensor::from_buffer(out, shape)
        }
    };
    let matrices = matrices.to_vec();
    Ok(record("affine", [x], output, move |g| {
        Ok([Some(match route("affine", &[&g])? {
            Route::F64 => reference_backward::<f64>(&g, &matrices),
            Route::Reference => reference_backward::<f32>(&g, &matrices),
            Route::Fast => fast_backward(&g, shape, &matrices),
            Route::Cuda(cuda) => on_device(cuda, &g, &matrices, true)?,
        })])
    }))
}

/// Where an output pixel looks: two rows, two columns, and the weight of the second of each.
#[derive(Clone, Copy)]
struct Place {
    rows: [usize; 2],
    columns: [usize; 2],
    t: [f64; 2],
}

impl Place {
    #[inline(always)]
    fn new(matrix: &Matrix, [h, w]: [usize; 2], row: usize, column: usize) -> Self {
        let along = |m: &[f64; 3], size: usize| {
            let last = (size - 1) as f64;
            let q = (m[0] * row as f64 + m[1] * column as f64 + m[2]).clamp(0.0, last);
            let below = q as usize;
            ([below, (below + 1).min(size - 1)], q - below as f64)
        };
        let (rows, row_t) = along(&matrix[0], h);
        let (columns, column_t) = along(&matrix[1], w);
        Place { rows, columns, t: [row_t, column_t] }
    }

    /// The offsets and weights of the four neighbours in an image of width w, c channels.
    #[inline(always)]
    fn neighbours(&self, w: usize, c: usize) -> [(usize, f64); 4] {
        let ([r0, r1], [c0, c1], [tr, tc]) = (self.rows, self.columns, self.t);
        [
            ((r0 * w + c0) * c, (1.0 - tr) * (1.0 - tc)),
            ((r0 * w + c1) * c, (1.0 - tr) * tc),
            ((r1 * w + c0) * c, tr * (1.0 - tc)),
            ((r1 * w + c1) * c, tr * tc),
        ]
    }
}

/// One row of one warped image (also what augmentation runs a sample at a time).
pub(crate) fn warp_row(
    isa: Isa,
    x: &[f32],
    [h, w, c]: [usize; 3],
    matrix: &Matrix,
    row: usize,
    out: &mut [f32],
) {
    if c == 3 && h.max(w) <= LONGEST {
        return simd::vectorize(
            isa,
            #[inline(always)]
            || warp_colours(x, [h, w], matrix, row, out),
        );
    }
    for (column, out) in out.chunks_exact_mut(c).enumerate() {
        let [a, b, d, e] = Place::new(matrix, [h, w], row, column).neighbours(w, c);
        for (channel, y) in out.iter_mut().enumerate() {
            let share = |(offset, weight): (usize, f64)| x[offset + channel] as f64 * weight;
            *y = (share(a) + share(b) + share(d) + share(e)) as f32;
        }
    }
}

/// The same of three channels, in vectors of pixels: places, then the four neighbours of each, one by one,
/// then sums.
#[inline(always)]
fn warp_colours(x: &[f32], [h, w]: [usize; 2], matrix: &Matrix, row: usize, out: &mut [f32]) {
    let mut values = [[[0.0f32; BLOCK]; 3]; 4];
    for (block, out) in out.chunks_mut(3 * BLOCK).enumerate() {
        let (first, n) = (block * BLOCK, out.len() / 3);
        let (rows, columns) = both(matrix, [h, w], row, first);
        for i in 0..n {
            for (k, values) in values.iter_mut().enumerate() {
                let row = if k < 2 { rows.low[i] } else { rows.high[i] };
                let column = if k % 2 == 0 { columns.low[i] } else { columns.high[i] };
                let pixel = &x[(row as usize * w + column as usize) * 3..][..3];
                values.iter_mut().zip(pixel).for_each(|(to, &value)| to[i] = value);
            }
        }
        let mut sums = [[0.0f32; BLOCK]; 3];
        for (channel, sums) in sums.iter_mut().enumerate() {
            for (i, sum) in sums.iter_mut().enumerate() {
                let (tr, tc) = (rows.t[i], columns.t[i]);
                let weights = [(1.0 - tr) * (1.0 - tc), (1.0 - tr) * tc, tr * (1.0 - tc), tr * tc];
                let mut all = values[0][channel][i] as f64 * weights[0];
                for k in 1..4 {
                    all += values[k][channel][i] as f64 * weights[k];
                }
                *sum = all as f32;
            }
        }
        for (i, out) in out.chunks_exact_mut(3).enumerate() {
            out.iter_mut().zip(&sums).for_each(|(y, sums)| *y = sums[i]);
        }
    }
}

/// Both axes of a block of pixels of an output row. (Not by `map`: the library's closures might not be
/// inlined into the instruction set of the caller.)
#[inline(always)]
fn both(matrix: &Matrix, [h, w]: [usize; 2], row: usize, first: usize) -> (Axis, Axis) {
    let [[rr, rc, r], [cr, cc, c]] = *matrix;
    let (row, first) = (row as f64, first as i32);
    let rows = Axis::clamped(
        h,
        #[inline(always)]
        |i| rr * row + rc * (first + i) as f64 + r,
    );
    let columns = Axis::clamped(
        w,
        #[inline(always)]
        |i| cr * row + cc * (first + i) as f64 + c,
    );
    (rows, columns)
}

/// Pixels whose places are found at a time.
pub(crate) const BLOCK: usize = 32;
/// Sides that [`Axis`] can count along: beyond any image, and far from where its whole numbers end.
pub(crate) const LONGEST: usize = 1 << 24;

/// Where the pixels of a block look along one axis: [`Place`]'s numbers, to the bit, for vectors.
pub(crate) struct Axis {
    pub low: [i32; BLOCK],
    pub high: [i32; BLOCK],
    pub t: [f64; BLOCK],
}

impl Axis {
    /// Of coordinates `q(i)`, clamped to the axis.
    #[inline(always)]
    pub(crate) fn clamped(size: usize, q: impl Fn(i32) -> f64) -> Self {
        /// 2^52: what is added to it has no place for anything behind the point.
        const WHOLE: f64 = 4_503_599_627_370_496.0;
        let mut axis = Axis { low: [0; BLOCK], high: [0; BLOCK], t: [0.0; BLOCK] };
        let last = (size - 1) as f64;
        for i in 0..BLOCK {
            let q = q(i as i32).clamp(0.0, last);
            // ⌊q⌋ without a conversion that vectors do not have, its lowest bits as a whole number.
            let near = (q + WHOLE) - WHOLE;
            let below = if near > q { near - 1.0 } else { near };
            let low = (below + WHOLE).to_bits() as u32 as i32;
            axis.low[i] = low;
            axis.high[i] = (low + 1).min(size as i32 - 1);
            axis.t[i] = q - low as f64;
        }
        axis
    }
}

/// The element nearest to where each output pixel looks: for masks, which may not be blended.
pub(crate) fn warp_nearest<T: Copy>(
    isa: Isa,
    x: &[T],
    [h, w]: [usize; 2],
    matrix: &Matrix,
    out: &mut [T],
) {
    assert!(h.max(w) <= LONGEST, "a mask of {h}×{w}");
    simd::vectorize(
        isa,
        #[inline(always)]
        || {
            for (row, out) in out.chunks_mut(w.max(1)).enumerate() {
                for (block, out) in out.chunks_mut(BLOCK).enumerate() {
                    let (rows, columns) = both(matrix, [h, w], row, block * BLOCK);
                    let nearest = |axis: &Axis, i: usize| match axis.t[i] >= 0.5 {
                        true => axis.high[i] as usize,
                        false => axis.low[i] as usize,
                    };
                    for (i, y) in out.iter_mut().enumerate() {
                        *y = x[nearest(&rows, i) * w + nearest(&columns, i)];
                    }
                }
            }
        },
    );
}

/// Calls `f(output offset, input offset, weight)` for the four neighbours of every element.
fn for_each_share(shape: Shape, matrices: &[Matrix], mut f: impl FnMut(usize, usize, f64)) {
    let [_, h, w, c] = [shape[0], shape[1], shape[2], shape[3]];
    for (n, matrix) in matrices.iter().enumerate() {
        for pixel in 0..h * w {
            let place = Place::new(matrix, [h, w], pixel / w, pixel % w);
            for channel in 0..c {
                for (from, weight) in place.neighbours(w, c) {
                    f((n * h * w + pixel) * c + channel, n * h * w * c + from + channel, weight);
                }
            }
        }
    }
}

fn reference<T: Real>(x: &Tensor, matrices: &[Matrix]) -> Tensor {
    let x_values = x.values::<T>();
    let mut sums = vec![0.0f64; x_values.len()];
    for_each_share(x.shape(), matrices, |to, from, weight| sums[to] += x_values[from].to_f64() * weight);
    rounded::<T>(&sums, x.shape())
}

fn reference_backward<T: Real>(g: &Tensor, matrices: &[Matrix]) -> Tensor {
    let g_values = g.values::<T>();
    let mut sums = vec![0.0f64; g_values.len()];
    for_each_share(g.shape(), matrices, |to, from, weight| sums[from] += g_values[to].to_f64() * weight);
    rounded::<T>(&sums, g.shape())
}

fn rounded<T: Real>(sums: &[f64], shape: Shape) -> Tensor {
    let mut out = Buffer::<T>::new(sums.len());
    out.iter_mut().zip(sums).for_each(|(y, &sum)| *y = T::from_f64(sum));
    Tensor::from_buffer(out, shape)
}

fn fast_backward(g: &Tensor, shape: Shape, matrices: &[Matrix]) -> Tensor {
    let [_, h, w, c] = [shape[0], shape[1], shape[2], shape[3]];
    let g = g.values::<f32>();
    let mut out = Buffer::<f32>::new(g.len());
    threads::for_each_chunk(&mut out, (h * w * c).max(1), |n, out| {
        let g = &g[n * h * w * c..][..h * w * c];
        let mut sums = vec![0.0f64; g.len()];
        for (pixel, g) in g.chunks_exact(c).enumerate() {
            let place = Place::new(&matrices[n], [h, w], pixel / w, pixel % w);
            for (offset, weight) in place.neighbours(w, c) {
                let sums = &mut sums[offset..][..c];
                sums.iter_mut().zip(g).for_each(|(sum, &g)| *sum += g as f64 * weight);
            }
        }
        out.iter_mut().zip(&sums).for_each(|(y, &sum)| *y = sum as f32);
    });
    Tensor::from_buffer(out, shape)
}

/// `kernels/affine.cu`: x, or the output's gradient, to the other.
fn on_device(cuda: &'static Cuda, from: &Tensor, matrices: &[Matrix], backward: bool) -> Result<Tensor> {
    let shape = from.shape();
    let n = shape.elements();
    let number = |size: usize| {
        i32::try_from(size).map_err(|_| Error::argument("affine", format!("{size} is too large a size")))
    };
    let (h, w, c) = (number(shape[1])?, number(shape[2])?, number(shape[3])?);
    let numbers: Vec<f64> = matrices.iter().flatten().flatten().copied().collect();
    let bytes = pool::bytes(&numbers);
    let matrices = cuda.upload(bytes, bytes.len(), DType::U8)?;
    let to = cuda.allocate(n, DType::F32)?;
    match backward {
        false => {
            let all = arguments![from.memory(), &matrices, &to, n as i64, h, w, c];
            let kernel = Kernel::of("affine", "affine_forward");
            // SAFETY: from and to are n floats, six doubles a sample; `to` is new.
            unsafe { cuda.launch(kernel, cuda::LaunchConfig::elements(n), &all)? };
        }
        true => {
            let sums = cuda.scratch(8 * n)?;
            let all = arguments![from.memory(), &matrices, &sums, &to, n as i64, h, w, c];
            let kernel = Kernel::of("affine", "affine_backward");
            // SAFETY: as above, and `sums` is n doubles; each thread has its own channel of a sample.
            unsafe { cuda.launch(kernel, cuda::LaunchConfig::elements(shape[0] * shape[3]), &all)? };
        }
    }
    Ok(Tensor::from_memory(to, shape))
}

pub(crate) fn cases() -> Vec<Case> {
    // A turn by about 17° about the middle of an image, with a shift.
    let turn = |h: usize, w: usize, zoom: f64, shift: f64| -> Matrix {
        let (sin, cos) = 0.3f64.sin_cos();
        let (r, c) = ((h as f64 - 1.0) / 2.0, (w as f64 - 1.0) / 2.0);
        let (cos, sin) = (cos * zoom, sin * zoom);
        [[cos, -sin, r - cos * r + sin * c + shift], [sin, cos, c - sin * r - cos * c - shift]]
    };
    let mut cases = Vec::new();
    let mut add = |name: &str, size, shape: [usize; 4], matrices: Vec<Matrix>| {
        let inputs = vec![Input::new("x", shape)];
        cases.push(Case::new("affine", name, size, inputs, move |t| affine(&t[0], &matrices)));
    };
    add("turned", Size::Tiny, [2, 7, 9, 3], vec![turn(7, 9, 1.1, 0.2), turn(7, 9, 0.8, -0.3)]);
    add("beyond_the_edge", Size::Tiny, [1, 6, 5, 2], vec![turn(6, 5, 1.7, 3.4)]);
    add("identity", Size::Tiny, [1, 4, 5, 3], vec![IDENTITY]);
    add("one_pixel", Size::Tiny, [1, 1, 1, 4], vec![turn(1, 1, 1.0, 0.6)]);
    add("16x150x150x3", Size::Real, [16, 150, 150, 3], vec![turn(150, 150, 1.1, 2.0); 16]);
    cases
}

impl Tensor {
    /// [`affine`] of `[N, H, W, C]`, by a matrix a sample: of the same shape.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[[[1.0f32], [2.0]], [[3.0], [4.0]]]]); // a column a row of the output
    /// let transposed = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]];
    /// assert_eq!(x.affine(&[transposed])?.to_vec_f64(), [1.0, 3.0, 2.0, 4.0]);
    /// let between = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]; // half a pixel to the right
    /// assert_eq!(x.affine(&[between])?.to_vec_f64(), [1.5, 2.0, 3.5, 4.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn affine(&self, matrices: &[Matrix]) -> Result<Tensor> {
        affine(self, matrices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(shape: [usize; 4]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    #[test]
    fn a_shift_repeats_the_edge_and_blends_halves() {
        let x = counting([1, 1, 4, 1]);
        let shifted = |by| affine(&x, &[[[1.0, 0.0, 0.0], [0.0, 1.0, by]]]).unwrap().to_vec_f64();
        assert_eq!(shifted(2.0), [2.0, 3.0, 3.0, 3.0]);
        assert_eq!(shifted(-0.5), [0.0, 0.5, 1.5, 2.5]);
    }

    #[test]
    fn the_wrong_number_of_matrices_and_infinite_ones_are_refused() {
        let x = counting([2, 3, 3, 1]);
        let error = affine(&x, &[IDENTITY]).unwrap_err().to_string();
        assert!(error.contains("2 matrices") && error.ends_with("got 1"), "{error}");
        let mut broken = IDENTITY;
        broken[1][2] = f64::NAN;
        assert!(affine(&x, &[IDENTITY, broken]).is_err());
        assert!(affine(&counting([1, 1, 1, 1]).with_shape([1, 1].into()), &[]).is_err());
    }

    #[test]
    fn empty_images_stay_empty() {
        assert_eq!(affine(&Tensor::zeros([1, 0, 3, 2]), &[IDENTITY]).unwrap().shape().elements(), 0);
        assert_eq!(affine(&Tensor::zeros([1, 3, 3, 0]), &[IDENTITY]).unwrap().shape().elements(), 0);
    }

    #[test]
    fn masks_take_the_nearest_label_whole() {
        let mut out = [0u8; 4];
        warp_nearest(isa(), &[0, 7, 20, 255], [1, 4], &[[1.0, 0.0, 0.0], [0.0, 1.0, 0.6]], &mut out);
        assert_eq!(out, [7, 20, 255, 255]);
    }

    /// Every way to place a pixel: beyond the edges, between pixels, on them, and nowhere.
    #[test]
    fn vectors_of_pixels_have_the_bits_of_the_definition() {
        let (h, w) = (37, 71);
        let values: Vec<f32> = (0..h * w * 3).map(|i| (i as f32 * 0.37).sin() * 255.0).collect();
        let classes: Vec<u8> = (0..h * w).map(|i| (i * 31 % 256) as u8).collect();
        let nowhere = f64::MAX;
        let matrices = [
            IDENTITY,
            [[0.9, -0.2, 3.0], [0.25, 1.1, -7.5]],
            [[-1.3, 0.01, 40.0], [0.0, -1.0, w as f64 - 1.0]],
            [[-0.0, 0.5, -0.0], [0.5, -0.0, 0.5]],
            [[nowhere, -nowhere, 0.0], [1.0, 1e-9, 0.499_999_999]],
        ];
        for matrix in matrices {
            let place = |row, column| Place::new(&matrix, [h, w], row, column);
            for isa in simd::supported() {
                let mut nearest = vec![0; h * w];
                warp_nearest(isa, &classes, [h, w], &matrix, &mut nearest);
                for row in 0..h {
                    let mut got = vec![0.0; w * 3];
                    warp_row(isa, &values, [h, w, 3], &matrix, row, &mut got);
                    for (i, got) in got.iter().enumerate() {
                        let at = place(row, i / 3);
                        let share =
                            |(offset, weight): (usize, f64)| values[offset + i % 3] as f64 * weight;
                        let [a, b, d, e] = at.neighbours(w, 3).map(share);
                        let expected = (a + b + d + e) as f32;
                        let same =
                            got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                        assert!(same, "{isa:?} {matrix:?} {row}, {i}: {got} and {expected}");
                    }
                    for column in 0..w {
                        let at = place(row, column);
                        let side = |t: f64| (t >= 0.5) as usize;
                        let from = at.rows[side(at.t[0])] * w + at.columns[side(at.t[1])];
                        assert_eq!(nearest[row * w + column], classes[from], "{isa:?} {matrix:?}");
                    }
                }
            }
        }
    }
}
