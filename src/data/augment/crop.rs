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
mod tests {
    use super::*;
    use crate::data::augment::{AffineOrder, Parameters, matrix};
    use crate::data::image::{Fit, Nearest, fit, resize_mask};
    use crate::ops::affine::IDENTITY;

    fn image(height: usize, width: usize) -> Image {
        let value = |i: usize| (i * 37 % 251) as u8;
        Image::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
    }

    fn plain(image: &Image, matrix: &Matrix, size: usize, fill: Fill) -> Vec<f32> {
        sample(image, matrix, size, fill, false, |_| {})
    }

    const SCALES: Crop = Crop::Scale { low: 0.5, high: 2.0 };

    #[test]
    fn a_crop_of_the_whole_image_is_the_stretched_image() {
        let whole = Crop::Area { low: 1.0, high: 1.0, ratio: 1.0 };
        for side in [5, 8, 20] {
            let crop = whole.draw([8, 8], side, 0, 0, 0);
            let image = image(8, 8);
            let expected = fit(&image, side, Fit::Stretch).unwrap();
            let got = plain(&image, &crop, side, Fill::Edge);
            let off = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-3, "side {side}: off by {off}");
            let mask = Mask::new(8, 8, (0..64).map(|i| i % 21).collect()).unwrap();
            let expected = resize_mask(&mask, side, side, Nearest::Centre).unwrap();
            assert!(sample_mask(&mask, &crop, side) == expected, "side {side}");
        }
    }

    #[test]
    fn scaled_images_keep_their_proportions_and_lie_in_the_square_or_fill_it() {
        let (mut smaller, mut larger) = (0, 0);
        for sample in 0..300 {
            let m = SCALES.draw([30, 60], 40, 3, 1, sample);
            let k = m[0][0];
            assert!(k == m[1][1] && (0.75..=3.0001).contains(&k), "{m:?}");
            // The square's edges, in the image, along the side that is as long as the square.
            let from = m[1][2] - (k - 1.0) / 2.0;
            let to = from + 40.0 * k;
            if k > 1.5 {
                assert!(from <= 1e-9 && to >= 60.0 - 1e-9, "{from} to {to}");
                smaller += 1;
            } else {
                assert!(from >= -1e-9 && to <= 60.0 + 1e-9, "{from} to {to}");
                larger += 1;
            }
        }
        assert!(smaller > 50 && larger > 50, "{smaller} smaller, {larger} larger");
    }

    #[test]
    fn parts_have_the_area_and_proportions_asked_for_and_lie_in_the_image() {
        for sample in 0..300 {
            let crop = Crop::CLASSIFY.draw([50, 80], 10, 7, 0, sample);
            let (h, w) = (crop[0][0] * 10.0, crop[1][1] * 10.0);
            let share = h * w / 4000.0;
            // Less only where ten draws did not fit and the part was cut.
            assert!((0.2499..=1.0001).contains(&share), "{share} of the area");
            assert!((0.7499..=1.6001).contains(&(w / h)), "{w}×{h}");
            for (axis, side, seen) in [(0, 50.0, h), (1, 80.0, w)] {
                let from = crop[axis][2] - (crop[axis][axis] - 1.0) / 2.0;
                assert!(from >= -1e-9 && from + seen <= side + 1e-9);
            }
        }
    }

    #[test]
    fn beside_the_image_is_void_and_the_fill() {
        let shifted = [[1.0, 0.0, -2.0], [0.0, 1.0, 1.0]];
        let mask = Mask::new(3, 3, vec![5; 9]).unwrap();
        let seen = sample_mask(&mask, &shifted, 3);
        assert_eq!(seen.classes, [255, 255, 255, 255, 255, 255, 5, 5, 255]);
        let image = Image::new(3, 3, vec![9; 27]).unwrap();
        let values = plain(&image, &shifted, 3, Fill::Color([1.0, 2.0, 3.0]));
        for (pixel, class) in values.chunks(3).zip(&seen.classes) {
            assert_eq!(pixel, if *class == 5 { [9.0; 3] } else { [1.0, 2.0, 3.0] });
        }
        assert_eq!(plain(&image, &shifted, 3, Fill::Edge), [9.0; 27]);
    }

    #[test]
    fn image_and_mask_stay_together_under_crop_rotation_and_flip() {
        // The image shows its mask: one colour a class, in blocks larger than the blending.
        let (h, w) = (60, 90);
        let class = |y: usize, x: usize| (1 + y / 20 * 3 + x / 30) as u8;
        let classes: Vec<u8> = (0..h * w).map(|i| class(i / w, i % w)).collect();
        let rgb = classes.iter().flat_map(|&class| [class * 20; 3]).collect();
        let (image, mask) = (Image::new(h, w, rgb).unwrap(), Mask::new(h, w, classes).unwrap());
        let (mut same, mut all) = (0, 0);
        for sample in 0..20 {
            let turned =
                Parameters { theta: 15.0, flip_horizontal: sample % 2 == 0, ..Parameters::IDENTITY };
            let crop = SCALES.draw([h, w], 48, 5, 0, sample);
            let matrix = compose(&crop, &matrix(&turned, 48, 48, AffineOrder::Centred));
            let values = plain(&image, &matrix, 48, Fill::BLACK);
            for (pixel, &class) in values.chunks(3).zip(&sample_mask(&mask, &matrix, 48).classes) {
                let expected = if class == VOID { 0.0 } else { class as f32 * 20.0 };
                same += ((pixel[0] - expected).abs() < 1e-3) as usize;
                all += 1;
                // Between two blocks the image is blended and the mask is not.
                assert_eq!(class == VOID, pixel[0] == 0.0);
            }
        }
        assert!(same * 10 > all * 9, "{same} of {all}");
    }

    #[test]
    fn matrices_are_applied_one_after_the_other() {
        let (a, b) = ([[2.0, 1.0, 3.0], [0.5, -1.0, 4.0]], [[1.0, 2.0, -1.0], [3.0, 0.0, 2.0]]);
        let [row, column] = place(&b, 5, 7);
        let expected = a.map(|[x, y, z]| x * row + y * column + z);
        assert_eq!(place(&compose(&a, &b), 5, 7), expected);
        assert_eq!(compose(&a, &IDENTITY), a);
    }

    #[test]
    fn a_reduced_image_holds_the_means_of_its_boxes() {
        let image = Image::new(3, 3, (0..27).collect()).unwrap();
        let reduced = reduce(&image, 2);
        assert_eq!((reduced.height, reduced.width), (2, 2));
        // Red: rows of 0 3 6, 9 12 15, 18 21 24; halves are rounded up.
        let red: Vec<u8> = reduced.rgb.iter().step_by(3).copied().collect();
        assert_eq!(red, [6, 11, 20, 24]);
        // Stripes of one pixel, seen four times smaller: grey with boxes, one of the stripes without.
        let stripes = (0..64 * 64).flat_map(|i| [if i % 2 == 0 { 0 } else { 200 }; 3]).collect();
        let stripes = Image::new(64, 64, stripes).unwrap();
        let quarter = [[4.0, 0.0, 2.0], [0.0, 4.0, 2.0]];
        let smooth = sample(&stripes, &quarter, 16, Fill::Edge, true, |_| {});
        assert_eq!(smooth, [100.0; 768]);
        assert_eq!(plain(&stripes, &quarter, 16, Fill::Edge), [0.0; 768]);
    }

    #[test]
    fn crops_without_meaning_are_refused() {
        assert!(Crop::SEGMENT.check().is_ok() && Crop::CLASSIFY.check().is_ok());
        for crop in [
            Crop::Scale { low: 0.0, high: 1.0 },
            Crop::Scale { low: 2.0, high: 1.0 },
            Crop::Scale { low: 1.0, high: f64::NAN },
            Crop::Area { low: 0.5, high: 1.5, ratio: 1.0 },
            Crop::Area { low: 0.5, high: 1.0, ratio: 0.5 },
        ] {
            assert!(crop.check().unwrap_err().to_string().contains("low ≤ high"), "{crop:?}");
        }
    }

    /// The definition, a pixel at a time.
    fn pixel(image: &Image, matrix: &Matrix, factor: usize, row: usize, column: usize) -> [f32; 3] {
        let along = |q: f64, side: usize| {
            let q = ((q + 0.5) / factor as f64 - 0.5).clamp(0.0, (side - 1) as f64);
            let low = q as usize;
            (low, (low + 1).min(side - 1), (q - low as f64) as f32)
        };
        let at = place(matrix, row, column);
        let (top, bottom, t_r) = along(at[0], image.height);
        let (left, right, t_c) = along(at[1], image.width);
        std::array::from_fn(|channel| {
            let value = |y: usize, x: usize| image.rgb[(y * image.width + x) * 3 + channel] as f32;
            let blend = |x: f32, y: f32, t: f32| x + (y - x) * t;
            let above = blend(value(top, left), value(top, right), t_c);
            blend(above, blend(value(bottom, left), value(bottom, right), t_c), t_r)
        })
    }

    #[test]
    fn vectors_of_pixels_have_the_bits_of_the_definition() {
        let image = image(41, 67);
        let mask = Mask::new(41, 67, (0..41 * 67).map(|i| (i * 7 % 21) as u8).collect()).unwrap();
        let turned = [[0.7, -0.9, 12.3], [0.4, 1.6, -20.0]];
        for (matrix, antialias) in [
            (SCALES.draw([41, 67], 71, 1, 2, 3), false),
            (turned, false),
            (turned, true),
            (IDENTITY, true),
        ] {
            let matrix =
                compose(&matrix, &[[if antialias { 2.6 } else { 1.0 }, 0.0, 0.3], [0.0, 1.7, 0.0]]);
            let factor = if antialias { (shrinkage(&matrix) as usize).max(1) } else { 1 };
            let reduced = reduce(&image, factor);
            let double = |pixels: &mut [f32]| pixels.iter_mut().for_each(|value| *value *= 2.0);
            for isa in simd::supported() {
                let fill = Fill::Color([1.0, 2.0, 3.0]);
                let [got, edge] = [fill, Fill::Edge].map(|fill| {
                    crate::context::with_isa(isa, || {
                        sample(&image, &matrix, 71, fill, antialias, double)
                    })
                });
                let labels = crate::context::with_isa(isa, || sample_mask(&mask, &matrix, 71));
                for i in 0..71 * 71 {
                    let at = place(&matrix, i / 71, i % 71);
                    let expected =
                        pixel(&reduced, &matrix, factor, i / 71, i % 71).map(|value| value * 2.0);
                    assert_eq!(edge[i * 3..][..3], expected, "{isa:?} {matrix:?} {i}");
                    let (fill, class) = match inside(at, [41, 67]) {
                        true => {
                            let nearest = |q: f64, side: usize| ((q + 0.5) as usize).min(side - 1);
                            (expected, mask.classes[nearest(at[0], 41) * 67 + nearest(at[1], 67)])
                        }
                        false => ([1.0, 2.0, 3.0], VOID),
                    };
                    assert_eq!(
                        (&got[i * 3..][..3], labels.classes[i]),
                        (&fill[..], class),
                        "{isa:?} {i}"
                    );
                }
            }
        }
    }
}
