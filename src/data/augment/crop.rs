//! Random crops: the network's square laid on the image, somewhere and at some size.
//!
//! A crop is the matrix that takes a pixel of the square to its place in the image as it is on
//! disk. Whatever else turns the square ([`super::matrix`]) is multiplied to it, so that an image
//! is sampled once, and its mask at the same places:
//!
//! q = C·M·p, C = [[k_r, 0, o_r + (k_r − 1)/2], [0, k_c, o_c + (k_c − 1)/2]]
//!
//! with k image pixels to a pixel of the square, and the square's corner at o.

use crate::backend::cpu::simd;
use crate::context::isa;
use crate::data::{Image, Mask, VOID};
use crate::error::{Error, Result};
use crate::ops::affine::{Axis, BLOCK, Matrix};
use crate::random::{Stream, domain};

/// How the square is drawn.
///
/// ```
/// use atrous::data::augment::crop::{Crop, Fill};
/// use atrous::data::loader::batch;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::data::transforms::Transforms;
///
/// Crop::SEGMENT.check()?;
/// assert!(Crop::Scale { low: 2.0, high: 1.0 }.check().is_err());
/// // A quarter of the size that fits, anywhere in the square: 15 of 16 pixels are beside it.
/// let crop = Crop::Scale { low: 0.25, high: 0.25 };
/// let fill = Fill::Color([255.0, 0.0, 0.0]);
/// let transforms = Transforms { crop: Some(crop), fill, ..Transforms::plain(32) };
/// let images = batch(&Synthetic::train(1, 1), &transforms, &[0], 1, 0)?.images;
/// let pixels = images.to_vec_f64();
/// let red = pixels.chunks(3).filter(|pixel| pixel == &[1.0, 0.0, 0.0]).count();
/// assert!(red >= 32 * 32 - 8 * 8);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crop {
    /// Proportions kept; an image `low` to `high` times as large as the one that just fits into the
    /// square. A smaller one lies anywhere in the square, of a larger one any part is seen.
    Scale {
        /// Smallest scale, at least .05.
        low: f64,
        /// Largest scale, at most 20.
        high: f64,
    },
    /// A part of `low` to `high` of the image's area, its width 1/`ratio` to `ratio` of its height,
    /// stretched to the square (Inception's, and torchvision's RandomResizedCrop).
    Area {
        /// Smallest share of the area, at least .01.
        low: f64,
        /// Largest share of the area, at most 1.
        high: f64,
        /// Most elongated part, 1 to 10: width by height is between 1/`ratio` and `ratio`.
        ratio: f64,
    },
}

impl Crop {
    /// DeepLab's: half to twice the size that just fits.
    pub const SEGMENT: Self = Crop::Scale { low: 0.5, high: 2.0 };
    /// Milder than ImageNet's, whose parts of .08 often miss the object.
    pub const CLASSIFY: Self = Crop::Area { low: 0.25, high: 1.0, ratio: 4.0 / 3.0 };

    /// An error where a bound is out of its range or `low` is above `high`.
    pub fn check(&self) -> Result<()> {
        let (fine, expected) = match *self {
            Crop::Scale { low, high } => {
                (0.05 <= low && low <= high && high <= 20.0, "expected 0.05 ≤ low ≤ high ≤ 20")
            }
            Crop::Area { low, high, ratio } => (
                0.01 <= low && low <= high && high <= 1.0 && (1.0..=10.0).contains(&ratio),
                "expected 0.01 ≤ low ≤ high ≤ 1 and a ratio from 1 to 10",
            ),
        };
        if fine { Ok(()) } else { Err(Error::argument("crop", format!("{expected}, got {self:?}"))) }
    }

    /// Drawn for one sample of one epoch: the same whoever asks, and when.
    pub(crate) fn draw(
        &self,
        [h, w]: [usize; 2],
        size: usize,
        seed: u64,
        epoch: u64,
        sample: u64,
    ) -> Matrix {
        // The last label keeps these numbers apart from the affine parameters'.
        let mut stream = Stream::new(seed, &[domain::AUGMENT, epoch, sample, 1]);
        let mut between = |low: f64, high: f64| low + (high - low) * stream.unit() as f64;
        let (image, size) = ([h as f64, w as f64], size as f64);
        let seen = match *self {
            Crop::Scale { low, high } => [image[0].max(image[1]) / between(low, high); 2],
            Crop::Area { low, high, ratio } => {
                // A part that does not fit is drawn again, and in the end cut.
                let mut part = image;
                for _ in 0..10 {
                    let area = image[0] * image[1] * between(low, high);
                    let ratio = between(-ratio.ln(), ratio.ln()).exp();
                    part = [(area / ratio).sqrt(), (area * ratio).sqrt()];
                    if part[0] <= image[0] && part[1] <= image[1] {
                        break;
                    }
                }
                [part[0].min(image[0]), part[1].min(image[1])]
            }
        };
        // Below zero where more is seen than the image.
        let corner = [0, 1].map(|axis| between(0.0, 1.0) * (image[axis] - seen[axis]));
        let [k_r, k_c] = seen.map(|side| side / size);
        let at = |k: f64, corner: f64| corner + (k - 1.0) / 2.0;
        [[k_r, 0.0, at(k_r, corner[0])], [0.0, k_c, at(k_c, corner[1])]]
    }
}

/// The matrix that applies `inner` first.
pub(crate) fn compose(outer: &Matrix, inner: &Matrix) -> Matrix {
    outer.map(|[a, b, c]| {
        let column = |j: usize| a * inner[0][j] + b * inner[1][j];
        [column(0), column(1), column(2) + c]
    })
}

/// What a crop sees beside the image.
///
/// ```
/// use atrous::data::augment::crop::Fill;
/// use atrous::data::image::Preprocess;
///
/// let Fill::Color(mut mean) = Fill::MEAN else { unreachable!() };
/// Preprocess::Caffe.apply(&mut mean);
/// assert_eq!(mean, [0.0; 3]);
/// assert_eq!(Fill::BLACK, Fill::Color([0.0; 3]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// The nearest pixel of the image.
    Edge,
    /// One colour, RGB from 0 to 255.
    Color([f32; 3]),
}

impl Fill {
    /// Black, as around a padded image: a network that is shown padded images later knows it.
    pub const BLACK: Self = Fill::Color([0.0; 3]);
    /// ImageNet's mean colour, which preprocessing makes nearly zero.
    pub const MEAN: Self = Fill::Color([123.68, 116.779, 103.939]);
}

/// Is the place on the image? Its pixels reach half a pixel around their centres.
#[inline(always)]
fn inside([r, c]: [f64; 2], [h, w]: [usize; 2]) -> bool {
    r >= -0.5 && r < h as f64 - 0.5 && c >= -0.5 && c < w as f64 - 0.5
}

#[inline(always)]
fn place(matrix: &Matrix, row: usize, column: usize) -> [f64; 2] {
    // (As i32, which vectors convert.)
    let (row, column) = (row as i32 as f64, column as i32 as f64);
    let [[rr, rc, r], [cr, cc, c]] = *matrix;
    [rr * row + rc * column + r, cr * row + cc * column + c]
}

/// How many pixels of the image come to one of the result, along a side.
pub(crate) fn shrinkage(matrix: &Matrix) -> f64 {
    (matrix[0][0] * matrix[1][1] - matrix[0][1] * matrix[1][0]).abs().sqrt()
}

/// The image seen through the matrix, [size, size, 3], bilinear, values 0 to 255 that went
/// through `colour` where they are the image's own. With `antialias`, an image that shrinks by
/// more than 2 is averaged over boxes before.
pub(crate) fn sample(
    image: &Image,
    matrix: &Matrix,
    size: usize,
    fill: Fill,
    antialias: bool,
    colour: impl Fn(&mut [f32]),
) -> Vec<f32> {
    let whole = [image.height, image.width];
    let factor = if antialias { (shrinkage(matrix) as usize).max(1) } else { 1 };
    let reduced = (factor > 1).then(|| reduce(image, factor));
    let Image { height, width, rgb } = reduced.as_ref().unwrap_or(image);
    let mut out = vec![0.0f32; size * size * 3];
    let mut seen = vec![true; size];
    let isa = isa();
    for (row, out) in out.chunks_exact_mut(size * 3).enumerate() {
        simd::vectorize(
            isa,
            #[inline(always)]
            || {
                for (block, out) in out.chunks_mut(3 * BLOCK).enumerate() {
                    let first = block * BLOCK;
                    let at = |i: i32| place(matrix, row, first + i as usize);
                    let smaller = |q: f64| (q + 0.5) / factor as f64 - 0.5;
                    let rows = Axis::clamped(
                        *height,
                        #[inline(always)]
                        |i| smaller(at(i)[0]),
                    );
                    let columns = Axis::clamped(
                        *width,
                        #[inline(always)]
                        |i| smaller(at(i)[1]),
                    );
                    blend(rgb, *width, &rows, &columns, out);
                    for (i, seen) in seen[first..].iter_mut().take(BLOCK).enumerate() {
                        *seen = inside(at(i as i32), whole);
                    }
                }
            },
        );
        colour(out);
        if let Fill::Color(fill) = fill {
            let beside = out.chunks_exact_mut(3).zip(&seen).filter(|(_, seen)| !**seen);
            beside.for_each(|(pixel, _)| pixel.copy_from_slice(&fill));
        }
    }
    out
}

/// A block of pixels between four neighbours each: these are fetched one by one, and blended in vectors
/// of a channel.
#[inline(always)]
fn blend(rgb: &[u8], width: usize, rows: &Axis, columns: &Axis, out: &mut [f32]) {
    let mut values = [[[0u8; BLOCK]; 3]; 4];
    for i in 0..out.len() / 3 {
        for (k, values) in values.iter_mut().enumerate() {
            let row = if k < 2 { rows.low[i] } else { rows.high[i] };
            let column = if k % 2 == 0 { columns.low[i] } else { columns.high[i] };
            let pixel = &rgb[(row as usize * width + column as usize) * 3..][..3];
            values.iter_mut().zip(pixel).for_each(|(to, &value)| to[i] = value);
        }
    }
    let mut blended = [[0.0f32; BLOCK]; 3];
    for (channel, blended) in blended.iter_mut().enumerate() {
        let [[a, b], [c, d]] =
            [[&values[0][channel], &values[1][channel]], [&values[2][channel], &values[3][channel]]];
        for (i, y) in blended.iter_mut().enumerate() {
            let blend = |x: f32, y: f32, t: f32| x + (y - x) * t;
            let (t_r, t_c) = (rows.t[i] as f32, columns.t[i] as f32);
            let above = blend(a[i] as f32, b[i] as f32, t_c);
            let below = blend(c[i] as f32, d[i] as f32, t_c);
            *y = blend(above, below, t_r);
        }
    }
    for (i, pixel) in out.chunks_exact_mut(3).enumerate() {
        pixel.iter_mut().zip(&blended).for_each(|(y, blended)| *y = blended[i]);
    }
}

/// The mask seen through the matrix: of each place the nearest label, void beside the mask.
pub(crate) fn sample_mask(mask: &Mask, matrix: &Matrix, size: usize) -> Mask {
    let whole = [mask.height, mask.width];
    let mut classes = vec![VOID; size * size];
    simd::vectorize(
        isa(),
        #[inline(always)]
        || {
            for (row, classes) in classes.chunks_exact_mut(size).enumerate() {
                for (block, classes) in classes.chunks_mut(BLOCK).enumerate() {
                    let at = |i: i32| place(matrix, row, block * BLOCK + i as usize);
                    let rows = Axis::clamped(
                        whole[0],
                        #[inline(always)]
                        |i| at(i)[0] + 0.5,
                    );
                    let columns = Axis::clamped(
                        whole[1],
                        #[inline(always)]
                        |i| at(i)[1] + 0.5,
                    );
                    for (i, class) in classes.iter_mut().enumerate() {
                        if inside(at(i as i32), whole) {
                            *class = mask.classes
                                [rows.low[i] as usize * mask.width + columns.low[i] as usize];
                        }
                    }
                }
            }
        },
    );
    Mask { height: size, width: size, classes }
}

/// The image `factor` times smaller, each pixel the mean of a box (at the far edges of the part
/// of it that is there).
pub(crate) fn reduce(image: &Image, factor: usize) -> Image {
    let factor = factor.max(1);
    let (height, width) = (image.height.div_ceil(factor), image.width.div_ceil(factor));
    let mut rgb = Vec::with_capacity(height * width * 3);
    let mut sums = vec![0u32; width * 3];
    for rows in image.rgb.chunks(image.width * 3 * factor) {
        sums.fill(0);
        for row in rows.chunks_exact(image.width * 3) {
            for (sums, pixels) in sums.chunks_exact_mut(3).zip(row.chunks(3 * factor)) {
                for pixel in pixels.chunks_exact(3) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += value as u32);
                }
            }
        }
        let high = (rows.len() / (image.width * 3)) as u32;
        for (column, sums) in sums.chunks_exact(3).enumerate() {
            let count = high * factor.min(image.width - column * factor) as u32;
            rgb.extend(sums.iter().map(|sum| ((sum + count / 2) / count) as u8));
        }
    }
    Image { height, width, rgb }
}

#[cfg(test)]
mod tests;
