//! From a sample to the numbers that a network takes: what of the image, at which size, changed how.
//!
//! Training, scoring and prediction each have theirs of one set of settings, so that a network sees
//! images as it learnt to see them.

use super::augment::crop::{Crop, Fill};
use super::augment::jitter::Jitter;
use super::augment::{AffineOrder, Ranges};
use super::image::{Fit, MaskResize, Preprocess};
use crate::error::{Result, names};

/// How training images differ from time to time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "weights",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Augment {
    /// They do not.
    None,
    /// Half of them are flipped left to right.
    Flip,
    /// Keras' generator as the notebook set it: rotation to 20°, shear, zoom to 20 %, flip.
    #[default]
    Keras,
    /// A part of the image at a random scale, flipped or not.
    Crop,
    /// A crop, with brightness, contrast and saturation changed.
    Colour,
}

names! { "augment" Augment { None: "none", Flip: "flip", Keras: "keras", Crop: "crop", Colour: "colour" } }

/// How a sample becomes numbers.
///
/// ```
/// use atrous::data::augment::Ranges;
/// use atrous::data::augment::crop::Crop;
/// use atrous::data::image::Preprocess;
/// use atrous::data::transforms::{Augment, Transforms};
///
/// let scoring = Transforms { preprocess: Preprocess::Torch, ..Transforms::plain(224) };
/// let training = scoring.augmented(Augment::Crop);
/// assert_eq!((training.preprocess, training.crop), (Preprocess::Torch, Some(Crop::CLASSIFY)));
/// // Masks are cut at other scales than images whose object has to be in sight.
/// let masks = Transforms { masks: true, ..scoring }.augmented("crop".parse()?);
/// assert_eq!(masks.crop, Some(Crop::SEGMENT));
/// training.check()?;
/// let ranges = Ranges { rotation: 200.0, ..Ranges::default() };
/// assert!(Transforms { augment: Some((ranges, Default::default())), ..scoring }.check().is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transforms {
    /// Height and width of the network's input, in pixels.
    pub size: usize,
    /// How an image becomes a square where it is not cropped.
    pub fit: Fit,
    /// A random crop in place of the fit, its affine parameters multiplied in.
    pub crop: Option<Crop>,
    /// What a crop sees beside the image.
    pub fill: Fill,
    /// Random affine parameters, and the centre they act about; None: no affine warp.
    pub augment: Option<(Ranges, AffineOrder)>,
    /// Leave the affine warp of what is not cropped, and the preprocessing, to the batch's taker
    /// ([`Batch::warp`](super::loader::Batch::warp)): a device does it faster, to the same bits.
    pub warp_later: bool,
    /// Random brightness, contrast and saturation; None: colours stay.
    pub jitter: Option<Jitter>,
    /// Average over boxes before an image shrinks by more than 2. TensorFlow's resize does not.
    pub antialias: bool,
    /// What makes of 0 to 255 the range that the network expects.
    pub preprocess: Preprocess,
    /// Read masks too, for segmentation.
    pub masks: bool,
    /// How masks are resized; crops take the nearest label in any case.
    pub mask_resize: MaskResize,
}

impl Transforms {
    /// Images padded to `[size, size, 3]`, 0 to 1, nothing random, no masks.
    pub fn plain(size: usize) -> Self {
        Transforms {
            size,
            fit: Fit::Pad,
            crop: None,
            fill: Fill::BLACK,
            augment: None,
            warp_later: false,
            jitter: None,
            antialias: false,
            preprocess: Preprocess::Unit,
            masks: false,
            mask_resize: MaskResize::Nearest,
        }
    }

    /// An error where a range of augmentation, crop or jitter is out of bounds.
    pub fn check(&self) -> Result<()> {
        self.augment.map_or(Ok(()), |(ranges, _)| ranges.check())?;
        self.crop.map_or(Ok(()), |crop| crop.check())?;
        self.jitter.map_or(Ok(()), |jitter| jitter.check())
    }

    /// This recipe made random for training. A crop has the range of sizes that suits masks where
    /// there are masks.
    pub fn augmented(self, augment: Augment) -> Self {
        let crop = Transforms {
            crop: Some(if self.masks { Crop::SEGMENT } else { Crop::CLASSIFY }),
            fill: Fill::MEAN,
            augment: Some((Ranges::FLIP, AffineOrder::default())),
            ..self
        };
        match augment {
            Augment::None => self,
            Augment::Flip => {
                Transforms { augment: Some((Ranges::FLIP, AffineOrder::default())), ..self }
            }
            Augment::Keras => {
                Transforms { augment: Some((Ranges::default(), AffineOrder::default())), ..self }
            }
            Augment::Crop => crop,
            Augment::Colour => Transforms { jitter: Some(Jitter::MILD), ..crop },
        }
    }
}
