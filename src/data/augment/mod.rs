//! Random augmentation: affine as Keras' `ImageDataGenerator` has it (here), crops ([`crop`]) and
//! colours ([`jitter`]).
//!
//! On (row, column) coordinates, with R a rotation by θ, Sh a shear and Z a zoom:
//!
//! M = R(θ)·Sh·Z, R = [[cos θ, −sin θ], [sin θ, cos θ]], Sh = [[1, −sin φ], [0, cos φ]],
//! Z = diag(zx, zy), about a centre o: M' = T(o)·M·T(−o)
//!
//! The output pixel p takes the input at M'·p ([`affine`](crate::ops::affine())); a flip turns the result
//! round. The rules differ in o, see [`AffineOrder`].

use crate::context::isa;
use crate::data::Mask;
use crate::error::{Error, Result};
use crate::ops::affine::{self, Matrix};
use crate::random::{Stream, domain};

pub mod crop;
pub mod jitter;
mod on_device;

pub use on_device::Warp;

/// How far each affine parameter may go: Keras' `ImageDataGenerator` arguments of these names.
///
/// ```
/// use atrous::data::augment::Ranges;
///
/// let keras = Ranges::default();
/// assert_eq!((keras.rotation, keras.horizontal_flip), (20.0, true));
/// keras.check()?;
/// Ranges::FLIP.check()?;
/// assert!(Ranges { zoom: 1.0, ..keras }.check().is_err()); // an image of no size
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranges {
    /// Largest rotation to either side, in degrees, 0 to 180.
    pub rotation: f64,
    /// Largest shear to either side, in degrees, below 90.
    pub shear: f64,
    /// Each axis is zoomed by 1 − zoom to 1 + zoom; below 1.
    pub zoom: f64,
    /// Whether every other image, by chance, is flipped left to right.
    pub horizontal_flip: bool,
}

impl Default for Ranges {
    /// The competition notebook's; its shear of 0.2 was meant as radians, but is taken as degrees.
    fn default() -> Self {
        Ranges { rotation: 20.0, shear: 0.2, zoom: 0.2, horizontal_flip: true }
    }
}

impl Ranges {
    /// Half of the images are flipped, and nothing else.
    pub const FLIP: Self = Ranges { rotation: 0.0, shear: 0.0, zoom: 0.0, horizontal_flip: true };

    /// An error unless rotation is 0 to 180°, shear below 90° and zoom below 1.
    pub fn check(&self) -> Result<()> {
        let fine = (0.0..=180.0).contains(&self.rotation)
            && (0.0..90.0).contains(&self.shear)
            && (0.0..1.0).contains(&self.zoom);
        let expected = "expected a rotation of 0 to 180°, a shear below 90°, a zoom below 1";
        if fine {
            Ok(())
        } else {
            Err(Error::argument("augmentation", format!("{expected}, got {self:?}")))
        }
    }
}

/// The affine change of one image: what [`matrix`] makes a matrix of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// Rotation in degrees; above 0 the image turns clockwise.
    pub theta: f64,
    /// Shear in degrees.
    pub shear: f64,
    /// Zoom of rows, a factor; above 1 the image shrinks.
    pub zx: f64,
    /// Zoom of columns, likewise.
    pub zy: f64,
    /// Left and right change places, after all else.
    pub flip_horizontal: bool,
}

impl Parameters {
    /// Leaves an image as it is.
    pub const IDENTITY: Self =
        Parameters { theta: 0.0, shear: 0.0, zx: 1.0, zy: 1.0, flip_horizontal: false };

    /// Drawn for one sample of one epoch: the same whoever asks, and when.
    pub(crate) fn draw(ranges: &Ranges, seed: u64, epoch: u64, sample: u64) -> Self {
        let mut stream = Stream::new(seed, &[domain::AUGMENT, epoch, sample]);
        let mut within = |range: f64| (2.0 * stream.unit() as f64 - 1.0) * range;
        Parameters {
            theta: within(ranges.rotation),
            shear: within(ranges.shear),
            zx: 1.0 + within(ranges.zoom),
            zy: 1.0 + within(ranges.zoom),
            flip_horizontal: ranges.horizontal_flip && within(1.0) < 0.0,
        }
    }
}

/// About which centre rotation, shear and zoom act: Keras changed its mind twice.
///
/// A quarter turn of 2×2 pixels about their centre, and as Keras 2.6 has it, one pixel off:
///
/// ```
/// use atrous::data::augment::{AffineOrder, Parameters, matrix, warp};
///
/// let quarter = Parameters { theta: 90.0, ..Parameters::IDENTITY };
/// let x = [1.0, 2.0, 3.0, 4.0]; // [2, 2, 1]
/// let turned = |order| -> Vec<f32> {
///     let turned = warp(&x, [2, 2, 1], &matrix(&quarter, 2, 2, order));
///     turned.into_iter().map(f32::round).collect()
/// };
/// assert_eq!(turned(AffineOrder::Centred), [3.0, 1.0, 4.0, 2.0]); // clockwise
/// assert_ne!(turned(AffineOrder::Keras26), turned(AffineOrder::Centred));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffineOrder {
    /// About the true centre, ((h − 1)/2, (w − 1)/2).
    #[default]
    Centred,
    /// Keras 2.6: about (h/2 + ½, w/2 + ½), one pixel further down and right.
    Keras26,
    /// Later Keras: about (h/2 − ½, w/2 − ½), then rows and columns change roles (the centre with
    /// them, so on images that are not square it is off).
    Keras3,
}

/// The 2 × 3 matrix that takes an output pixel (row, column, 1) of an image of h × w pixels to its
/// place in the input.
///
/// ```
/// use atrous::data::augment::{AffineOrder, Parameters, matrix};
///
/// // Half as far from the centre, (1.5, 1.5): an image of 4×4 is enlarged to twice its size.
/// let twice = Parameters { zx: 0.5, zy: 0.5, ..Parameters::IDENTITY };
/// assert_eq!(matrix(&twice, 4, 4, AffineOrder::Centred), [[0.5, 0.0, 0.75], [0.0, 0.5, 0.75]]);
/// // A flip takes column 0 from column 3.
/// let flip = Parameters { flip_horizontal: true, ..Parameters::IDENTITY };
/// assert_eq!(matrix(&flip, 4, 4, AffineOrder::Centred), [[1.0, 0.0, 0.0], [0.0, -1.0, 3.0]]);
/// ```
pub fn matrix(parameters: &Parameters, h: usize, w: usize, rule: AffineOrder) -> Matrix {
    let (sin, cos) = parameters.theta.to_radians().sin_cos();
    let (shear_sin, shear_cos) = parameters.shear.to_radians().sin_cos();
    let (zx, zy) = (parameters.zx, parameters.zy);
    let linear = [
        [cos * zx, (-cos * shear_sin - sin * shear_cos) * zy],
        [sin * zx, (-sin * shear_sin + cos * shear_cos) * zy],
    ];
    let beyond = if rule == AffineOrder::Keras26 { 0.5 } else { -0.5 };
    let centre = [h as f64 / 2.0 + beyond, w as f64 / 2.0 + beyond];
    let row = |i: usize| {
        let [a, b]: [f64; 2] = linear[i];
        [a, b, centre[i] - a * centre[0] - b * centre[1]]
    };
    let [[rr, rc, r], [cr, cc, c]]: Matrix = [row(0), row(1)];
    let matrix = if rule == AffineOrder::Keras3 {
        [[cc, cr, c], [rc, rr, r]]
    } else {
        [[rr, rc, r], [cr, cc, c]]
    };
    if !parameters.flip_horizontal {
        return matrix;
    }
    // Column j of the result is column w − 1 − j of what the matrix gives.
    matrix.map(|[row, column, constant]| [row, -column, constant + column * (w as f64 - 1.0)])
}

/// The image `[h, w, channels]` seen through a matrix: bilinear, of the same size; beside the image
/// its nearest pixel counts.
///
/// ```
/// use atrous::data::augment::warp;
///
/// // Every pixel takes the one half a column to its right: the mean of two, and at the border the last.
/// let y = warp(&[0.0, 4.0, 8.0], [1, 3, 1], &[[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]]);
/// assert_eq!(y, [2.0, 6.0, 8.0]);
/// ```
pub fn warp(x: &[f32], [h, w, channels]: [usize; 3], matrix: &Matrix) -> Vec<f32> {
    let (isa, mut out) = (isa(), vec![0.0; x.len()]);
    for (row, out) in out.chunks_exact_mut((w * channels).max(1)).enumerate() {
        affine::warp_row(isa, x, [h, w, channels], matrix, row, out);
    }
    out
}

/// The mask seen through the same matrix; no label is blended.
pub(crate) fn warp_mask(mask: &Mask, matrix: &Matrix) -> Mask {
    let mut classes = vec![0; mask.classes.len()];
    affine::warp_nearest(isa(), &mask.classes, [mask.height, mask.width], matrix, &mut classes);
    Mask { classes, ..*mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_ranges_and_depend_on_all_keys() {
        let ranges = Ranges::default();
        let mut flips = 0;
        for sample in 0..1000 {
            let p = Parameters::draw(&ranges, 1, 0, sample);
            assert!(p.theta.abs() <= 20.0 && p.shear.abs() <= 0.2);
            assert!((0.8..=1.2).contains(&p.zx) && (0.8..=1.2).contains(&p.zy));
            flips += p.flip_horizontal as usize;
        }
        assert!((420..580).contains(&flips), "{flips} of 1000 flipped");
        let draw = |seed, epoch, sample| Parameters::draw(&ranges, seed, epoch, sample);
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        for other in [draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(1, 3, 2)] {
            assert_ne!(draw(1, 2, 3), other);
        }
    }

    #[test]
    fn a_flip_alone_reverses_each_row_exactly() {
        let flip = Parameters { flip_horizontal: true, ..Parameters::IDENTITY };
        for rule in [AffineOrder::Centred, AffineOrder::Keras26, AffineOrder::Keras3] {
            let matrix = matrix(&flip, 2, 3, rule);
            let x = [0.5f32, 1.5, 2.5, 3.5, 4.5, 5.5];
            assert_eq!(warp(&x, [2, 3, 1], &matrix), [2.5, 1.5, 0.5, 5.5, 4.5, 3.5]);
            let mask = Mask::new(2, 3, vec![0, 1, 2, 3, 4, 255]).unwrap();
            assert_eq!(warp_mask(&mask, &matrix).classes, [2, 1, 0, 255, 4, 3]);
        }
    }

    #[test]
    fn the_centred_rule_keeps_the_centre_where_it_is() {
        let p = Parameters { theta: 13.0, shear: 0.1, zx: 0.9, zy: 1.15, flip_horizontal: false };
        let m = matrix(&p, 11, 21, AffineOrder::Centred);
        let at = |row: [f64; 3]| row[0] * 5.0 + row[1] * 10.0 + row[2];
        assert!((at(m[0]) - 5.0).abs() < 1e-12 && (at(m[1]) - 10.0).abs() < 1e-12);
    }

    #[test]
    fn ranges_without_meaning_are_refused() {
        assert!(Ranges::default().check().is_ok());
        assert!(Ranges { zoom: 1.0, ..Ranges::default() }.check().is_err());
        assert!(Ranges { rotation: f64::NAN, ..Ranges::default() }.check().is_err());
    }
}
