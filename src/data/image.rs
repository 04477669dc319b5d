//! From images as they are to the squares that networks take.
//!
//! `resize_with_pad` follows TensorFlow's to the bit, its float32 floors included: with
//! ratio = max(w/t, h/t), the image becomes ⌊h/ratio⌋ × ⌊w/ratio⌋ and sits ⌊(t − h/ratio)/2⌋,
//! ⌊(t − w/ratio)/2⌋ from the top and left, on zeros. For some sizes the floor loses a pixel even
//! on the long side (t = 224: 114, 121, … 491, 498).

use crate::backend::cpu::simd;
use crate::context::isa;
use crate::data::augment::crop::reduce;
use crate::data::{Image, Mask, VOID};
use crate::error::{Error, Result};
use crate::ops;
use crate::ops::resize::{BilinearRows, Method, Tap, nearest_rows};
use crate::tensor::Tensor;

/// Where an image lies in the square it was fitted into, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Rows of the resized image.
    pub height: usize,
    /// Columns of the resized image.
    pub width: usize,
    /// Rows of padding above it.
    pub top: usize,
    /// Columns of padding to the left of it.
    pub left: usize,
}

/// How an image becomes a square.
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image::{Fit, fit};
///
/// let white = Image::new(1, 2, vec![255; 6])?;
/// assert_eq!(fit(&white, 2, Fit::Stretch)?, [255.0; 12]);
/// // A row of the image, then one of zeros: there is no half row to put above it.
/// assert_eq!(fit(&white, 2, Fit::Pad)?, [[255.0; 6], [0.0; 6]].concat());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "lowercase"))]
pub enum Fit {
    /// Keep its proportions, fill up with zeros.
    Pad,
    /// Stretch it: its proportions are lost, nothing is padded.
    Stretch,
}

impl Fit {
    pub(crate) fn placement(self, height: usize, width: usize, size: usize) -> Placement {
        match self {
            Fit::Pad => padded(height, width, size),
            Fit::Stretch => Placement { height: size, width: size, top: 0, left: 0 },
        }
    }
}

/// Where `resize_with_pad` puts an image. A side that would come to nothing stays one pixel wide.
///
/// ```
/// use atrous::data::image::{Placement, padded};
///
/// // Half of 300×500 is 150×250; (250 − 150)/2 rows of zeros go above it.
/// assert_eq!(padded(300, 500, 250), Placement { height: 150, width: 250, top: 50, left: 0 });
/// ```
pub fn padded(height: usize, width: usize, size: usize) -> Placement {
    let (h, w, t) = (height as f32, width as f32, size as f32);
    let ratio = (w / t).max(h / t);
    let (h, w) = (h / ratio, w / ratio);
    let before = |side: f32| ((t - side) / 2.0).floor().max(0.0) as usize;
    let whole = |side: f32| (side.floor() as usize).clamp(1, size.max(1));
    Placement { height: whole(h), width: whole(w), top: before(h), left: before(w) }
}

/// The image at another size, `[height, width, 3]`, bilinear, values 0 to 255 (not rounded). An
/// error where a side is zero.
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image::resize;
///
/// let image = Image::new(1, 2, vec![0, 0, 0, 100, 100, 100])?;
/// // Pixel centres: the new ones lie at −¼, ¼, ¾ and 1¼ of the old, and beyond the border is the border.
/// let wider = resize(&image, 1, 4)?;
/// assert_eq!(wider.iter().step_by(3).copied().collect::<Vec<f32>>(), [0.0, 25.0, 75.0, 100.0]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn resize(image: &Image, height: usize, width: usize) -> Result<Vec<f32>> {
    above_zero(height, width)?;
    let mut out = vec![0.0; height * width * 3];
    bilinear(image, height, width, &mut out);
    Ok(out)
}

fn bilinear(image: &Image, height: usize, width: usize, out: &mut [f32]) {
    let rows = Method::Bilinear.taps::<f32>(image.height, height);
    let columns = Method::Bilinear.taps::<f32>(image.width, width);
    let (x, w, rows, columns) = (&image.rgb[..], image.width, &rows[..], &columns[..]);
    simd::dispatch(isa(), BilinearRows { x, w, c: 3, rows, columns, out, non_temporal: false });
}

/// The image in a square, `[size, size, 3]`, values 0 to 255, zeros around it. An error where
/// `size` is zero.
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image::resize_with_pad;
///
/// let white = Image::new(1, 4, vec![255; 12])?;
/// let square = resize_with_pad(&white, 4)?;
/// let rows: Vec<f32> = square.iter().step_by(12).copied().collect();
/// assert_eq!(rows, [0.0, 255.0, 0.0, 0.0]); // ⌊(4 − 1)/2⌋ rows above it
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn resize_with_pad(image: &Image, size: usize) -> Result<Vec<f32>> {
    fit(image, size, Fit::Pad)
}

/// [`resize_with_pad`] of images that are a tensor, `[N, h, w, C]` to `[N, size, size, C]`, on the
/// tape and where they are: on a device, too.
///
/// ```
/// use atrous::Tensor;
/// use atrous::data::image::resize_with_pad_of;
///
/// let x = Tensor::ones([1, 1, 4, 1]).leaf();
/// let y = resize_with_pad_of(&x, 4)?;
/// assert_eq!(y.to_vec_f64()[..8], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
/// // A gradient comes back through it.
/// let gradients = y.sum()?.backward()?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec_f64(), [1.0; 4]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn resize_with_pad_of(x: &Tensor, size: usize) -> Result<Tensor> {
    let &[_, h, w, _] = &*x.shape() else {
        return Err(Error::shape("resize_with_pad", "[N, h, w, C]", x.shape()));
    };
    above_zero(size, size)?;
    let at = padded(h, w, size);
    let inner = ops::resize(x, at.height, at.width, Method::Bilinear)?;
    let after = |before: usize, length: usize| size - before - length;
    let pad = [[at.top, after(at.top, at.height)], [at.left, after(at.left, at.width)]];
    ops::zero_pad2d(&inner, pad)
}

/// The image in a square, `[size, size, 3]`, values 0 to 255. An error where `size` is zero.
///
/// ```
/// use atrous::data::image::{Fit, fit};
/// use atrous::data::synthetic;
///
/// let image = synthetic::generate(1, 0).image;
/// let x = fit(&image, 32, Fit::Stretch)?;
/// assert_eq!(x.len(), 32 * 32 * 3);
/// assert!(x.iter().all(|v| (0.0..=255.0).contains(v)));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn fit(image: &Image, size: usize, fit: Fit) -> Result<Vec<f32>> {
    fit_changed(image, size, fit, false, |_| {})
}

/// As [`fit`], with something done to the pixels before zeros come around them. With `antialias`, a
/// image that shrinks by more than 2 is averaged over boxes before, which TensorFlow does not do.
pub(crate) fn fit_changed(
    image: &Image,
    size: usize,
    fit: Fit,
    antialias: bool,
    change: impl Fn(&mut [f32]),
) -> Result<Vec<f32>> {
    above_zero(size, size)?;
    let at = fit.placement(image.height, image.width, size);
    let factor = (image.height / at.height).min(image.width / at.width);
    let reduced = (antialias && factor > 1).then(|| reduce(image, factor));
    let mut inner = resize(reduced.as_ref().unwrap_or(image), at.height, at.width)?;
    change(&mut inner);
    if (at.height, at.width) == (size, size) {
        return Ok(inner);
    }
    let mut out = vec![0.0; size * size * 3];
    place(&inner, 3, at, size, &mut out);
    Ok(out)
}

/// Copies rows of a fitted image to their place in the square.
fn place<T: Copy>(inner: &[T], channels: usize, at: Placement, size: usize, out: &mut [T]) {
    for (y, row) in inner.chunks_exact(at.width * channels).enumerate() {
        out[((at.top + y) * size + at.left) * channels..][..row.len()].copy_from_slice(row);
    }
}

/// Which pixel "the nearest" is.
///
/// ```
/// use atrous::data::Mask;
/// use atrous::data::image::{Nearest, resize_mask};
///
/// let mask = Mask::new(1, 3, vec![1, 2, 3])?;
/// assert_eq!(resize_mask(&mask, 1, 1, Nearest::Centre)?.classes, [2]);
/// assert_eq!(resize_mask(&mask, 1, 1, Nearest::Corner)?.classes, [1]);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearest {
    /// ⌊(i + ½)·in/out⌋: TensorFlow's, and right.
    Centre,
    /// ⌊i·in/out⌋: OpenCV's `INTER_NEAREST`, half a pixel up and to the left.
    Corner,
}

impl Nearest {
    fn taps(self, input: usize, output: usize) -> Vec<Tap<f32>> {
        match self {
            Nearest::Centre => Method::Nearest.taps(input, output),
            Nearest::Corner => {
                let scale = 1.0 / (output as f64 / input as f64);
                let at = |i: usize| ((i as f64 * scale).floor() as usize).min(input - 1);
                (0..output).map(at).map(|at| Tap { low: at, high: at, t: 0.0 }).collect()
            }
        }
    }
}

/// The mask at another size; no label is blended.
///
/// ```
/// use atrous::data::Mask;
/// use atrous::data::image::{Nearest, resize_mask};
///
/// let mask = Mask::new(1, 2, vec![8, 12])?;
/// assert_eq!(resize_mask(&mask, 2, 4, Nearest::Centre)?.classes, [8, 8, 12, 12, 8, 8, 12, 12]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn resize_mask(mask: &Mask, height: usize, width: usize, nearest: Nearest) -> Result<Mask> {
    above_zero(height, width)?;
    let mut classes = vec![0; height * width];
    let (rows, columns) = (nearest.taps(mask.height, height), nearest.taps(mask.width, width));
    nearest_rows(&mask.classes, mask.width, 1, &rows, &columns, &mut classes);
    Ok(Mask { height, width, classes })
}

/// How a mask is resized for training.
///
/// ```
/// use atrous::data::Mask;
/// use atrous::data::image::{Fit, MaskResize, fit_mask_by};
///
/// let mask = Mask::new(2, 2, vec![0, 12, 0, 12])?;
/// let by = |how| Ok::<_, atrous::Error>(fit_mask_by(&mask, 4, Fit::Stretch, 0, how)?.classes);
/// assert_eq!(by(MaskResize::Nearest)?[..4], [0, 0, 12, 12]);
/// // Halfway between background and a dog there is a bird, and a chair.
/// assert_eq!(by(MaskResize::Bilinear { classes: 20 })?[..4], [0, 3, 9, 12]);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaskResize {
    /// The label of the nearest pixel.
    #[default]
    Nearest,
    /// As if labels were quantities: blended, then cut to whole numbers, so that along the border of
    /// a 12 and a 0 there are labels of classes that are not in the image. The competition
    /// notebook's. What comes out as none of so many classes (void is 255) is void.
    Bilinear {
        /// Classes, the background not among them.
        classes: usize,
    },
}

/// The mask in a square, as [`fit`] fits the image; `outside` is the label around it.
///
/// ```
/// use atrous::data::image::{Fit, fit_mask};
/// use atrous::data::{Mask, VOID};
///
/// // What is around an image is not to be judged.
/// let fitted = fit_mask(&Mask::new(1, 2, vec![8, 12])?, 2, Fit::Pad, VOID)?;
/// assert_eq!(fitted.classes, [8, 12, VOID, VOID]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn fit_mask(mask: &Mask, size: usize, fit: Fit, outside: u8) -> Result<Mask> {
    fit_mask_by(mask, size, fit, outside, MaskResize::Nearest)
}

/// As [`fit_mask`], by either rule.
///
/// ```
/// use atrous::data::image::{Fit, MaskResize, fit_mask_by};
/// use atrous::data::{Mask, VOID};
///
/// let mask = Mask::new(1, 2, vec![8, 12])?;
/// let fitted = fit_mask_by(&mask, 2, Fit::Stretch, VOID, MaskResize::Nearest)?;
/// assert_eq!(fitted.classes, [8, 12, 8, 12]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn fit_mask_by(mask: &Mask, size: usize, fit: Fit, outside: u8, by: MaskResize) -> Result<Mask> {
    above_zero(size, size)?;
    let at = fit.placement(mask.height, mask.width, size);
    let inner = match by {
        MaskResize::Nearest => resize_mask(mask, at.height, at.width, Nearest::Centre)?.classes,
        MaskResize::Bilinear { classes } => blended(mask, at.height, at.width, classes),
    };
    let mut classes = vec![outside; size * size];
    place(&inner, 1, at, size, &mut classes);
    Ok(Mask { height: size, width: size, classes })
}

fn blended(mask: &Mask, height: usize, width: usize, classes: usize) -> Vec<u8> {
    let rows = Method::Bilinear.taps::<f32>(mask.height, height);
    let columns = Method::Bilinear.taps::<f32>(mask.width, width);
    let mut values = vec![0.0f32; height * width];
    let (x, w, rows, columns, out) =
        (&mask.classes[..], mask.width, &rows[..], &columns[..], &mut values[..]);
    simd::dispatch(isa(), BilinearRows { x, w, c: 1, rows, columns, out, non_temporal: false });
    let whole = |value: f32| if value as usize > classes { VOID } else { value as u8 };
    values.into_iter().map(whole).collect()
}

fn above_zero(height: usize, width: usize) -> Result<()> {
    // 2^15 is far above any network's input, and its square of three channels fits in memory.
    if (1..=1 << 15).contains(&height) && (1..=1 << 15).contains(&width) {
        return Ok(());
    }
    let message = format!("expected a height and width from 1 to 32768, got {height}×{width}");
    Err(Error::argument("picture size", message))
}

/// What a network wants done to values of 0 to 255, RGB.
///
/// ```
/// use atrous::data::image::Preprocess;
///
/// let mut pixel = [255.0, 127.5, 0.0];
/// Preprocess::Symmetric.apply(&mut pixel);
/// assert_eq!(pixel, [1.0, 0.0, -1.0]);
/// Preprocess::Symmetric.undo(&mut pixel);
/// assert_eq!(pixel, [255.0, 127.5, 0.0]);
///
/// let mut pixel = [123.68, 116.779, 103.939]; // ImageNet's mean, red first
/// Preprocess::Caffe.apply(&mut pixel);
/// assert_eq!(pixel, [0.0; 3]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "lowercase"))]
pub enum Preprocess {
    /// As they are, 0 to 255.
    None,
    /// x / 255: 0 to 1.
    #[default]
    Unit,
    /// x / 127.5 − 1: −1 to 1 (Keras' MobileNet and ResNetV2).
    Symmetric,
    /// BGR, less ImageNet's mean (Keras' VGG).
    Caffe,
    /// (x / 255 − mean) / deviation of ImageNet's colours, RGB (torchvision).
    Torch,
}

/// ImageNet's mean colour, in the order of Caffe: blue, green, red.
pub(crate) const CAFFE_MEAN: [f32; 3] = [103.939, 116.779, 123.68];

/// ImageNet's mean colour and its deviation, of values from 0 to 1: red, green, blue.
pub(crate) const TORCH_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
pub(crate) const TORCH_DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

impl Preprocess {
    /// In place, on RGB pixels one after the other, 0 to 255 each.
    pub fn apply(self, rgb: &mut [f32]) {
        match self {
            Preprocess::None => {}
            // Multiplied, as Keras' `rescale=1/255` does.
            Preprocess::Unit => rgb.iter_mut().for_each(|v| *v *= 1.0 / 255.0),
            Preprocess::Symmetric => rgb.iter_mut().for_each(|v| *v = *v / 127.5 - 1.0),
            Preprocess::Caffe => {
                for pixel in rgb.chunks_exact_mut(3) {
                    pixel.swap(0, 2);
                    pixel.iter_mut().zip(CAFFE_MEAN).for_each(|(v, mean)| *v -= mean);
                }
            }
            Preprocess::Torch => {
                for pixel in rgb.chunks_exact_mut(3) {
                    for (v, (mean, deviation)) in
                        pixel.iter_mut().zip(TORCH_MEAN.iter().zip(TORCH_DEVIATION))
                    {
                        *v = (*v / 255.0 - mean) / deviation;
                    }
                }
            }
        }
    }

    /// Back to 0 to 255, RGB, for showing: the inverse of [`Preprocess::apply`] up to rounding.
    pub fn undo(self, values: &mut [f32]) {
        match self {
            Preprocess::None => {}
            Preprocess::Unit => values.iter_mut().for_each(|v| *v *= 255.0),
            Preprocess::Symmetric => values.iter_mut().for_each(|v| *v = (*v + 1.0) * 127.5),
            Preprocess::Caffe => {
                for pixel in values.chunks_exact_mut(3) {
                    pixel.iter_mut().zip(CAFFE_MEAN).for_each(|(v, mean)| *v += mean);
                    pixel.swap(0, 2);
                }
            }
            Preprocess::Torch => {
                for pixel in values.chunks_exact_mut(3) {
                    for (v, (mean, deviation)) in
                        pixel.iter_mut().zip(TORCH_MEAN.iter().zip(TORCH_DEVIATION))
                    {
                        *v = (*v * deviation + mean) * 255.0;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
