//! What masks are worth, at the images' own size.

use super::Predictions;
use crate::data::{Classes, Dataset, Mask};
use crate::error::{Error, Result};
use crate::eval::metrics::Confusion;
use crate::predict::submission::Runs;
use crate::tensor::Tensor;
use std::fmt;

/// Masks against the truth.
///
/// ```
/// use atrous::data::Dataset;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::models::Spec;
/// use atrous::predict::{MaskOptions, MaskScores, Networks, Trained};
/// use atrous::prelude::*;
/// use atrous::train::TrainConfig;
/// use std::sync::Arc;
///
/// // In place of what training leaves: a network to which all is background.
/// let mut graph = Graph::new("background", "input", [16, 16, 3]);
/// graph.add(Layer::conv2d(21, 1), &[graph.input()])?;
/// let mut model = Model::new(graph, 1);
/// model.set("conv2d/kernel", Tensor::zeros([1, 1, 3, 21]))?; // of equal logits the first is the largest
/// let config = TrainConfig::new(Spec::new("deeplabv3plus", 16, 21));
/// let mut networks = Networks::default();
/// networks.add(Trained { model, config, thresholds: None, path: "mine".into(), checksum: "".into() })?;
///
/// let dataset: Arc<dyn Dataset> = Arc::new(Synthetic::test(7, 1));
/// let predictions = networks.predict(&dataset, &[0], &MaskOptions::default(), None, &mut |_| {})?;
/// let mut background = 0;
/// let scores = MaskScores::measure(&predictions, &*dataset, &[0], &mut |measured| {
///     background = measured.truth.classes.iter().filter(|&&class| class == 0).count();
///     assert!(measured.mask.classes.iter().all(|&class| class == 0));
///     Ok(())
/// })?;
/// assert_eq!((scores.images, scores.dice), (1, 0.0)); // no pixel of an object was found
/// let (_, probabilities) = predictions.mask_with_probabilities(0)?.unwrap();
/// assert!((probabilities.unwrap().max()?.item()? - 1.0 / 21.0).abs() < 1e-6); // as likely as any other
/// assert_eq!(scores.confusion.count(0, 0), background as u64);
/// # Ok::<(), Error>(())
/// ```
pub struct MaskScores {
    /// Pixel by pixel over all images, void left out.
    pub confusion: Confusion,
    /// The submission's: the mean over images of the Dice of all class masks together, 0 to 1.
    pub dice: f64,
    /// How many images had a true mask.
    pub images: usize,
    /// What kind of images they are, for whoever reads the table.
    pub kind: &'static str,
    /// What the classes are called.
    pub classes: Classes,
}

/// One image's mask against its truth.
///
/// [`MaskScores`] has an example.
pub struct MeasuredMask {
    /// Its place among the samples that were measured, from 0.
    pub place: usize,
    /// The true mask.
    pub truth: Mask,
    /// The predicted one.
    pub mask: Mask,
    /// What the mask was made of, where that is probabilities: [1, height, width, classes], on the CPU.
    pub probabilities: Option<Tensor>,
    /// Of this image alone.
    pub confusion: Confusion,
    /// The submission's, of this image alone, 0 to 1.
    pub dice: f64,
}

impl MaskScores {
    /// Makes the masks and compares them; `each` is shown every image with what was made of it. Images
    /// without a true mask are not counted; an error where none has one.
    pub fn measure(
        predictions: &Predictions,
        dataset: &dyn Dataset,
        indices: &[usize],
        each: &mut dyn FnMut(MeasuredMask) -> Result<()>,
    ) -> Result<Self> {
        let classes = dataset.classes();
        let (mut confusion, mut dice, mut images) = (Confusion::of_masks(classes.len()), 0.0, 0);
        for (i, &index) in indices.iter().enumerate() {
            if let Some(truth) = dataset.mask(index)?
                && let Some((mask, probabilities)) = predictions.mask_with_probabilities(i)?
            {
                let mut own = Confusion::of_masks(classes.len());
                own.add(&truth.classes, &mask.classes)?;
                confusion.merge(&own)?;
                let runs = |pixels: &[u8]| Runs::of_classes(pixels, classes.len() as u8);
                let of_image = runs(&truth.classes).dice(&runs(&mask.classes));
                dice += of_image;
                images += 1;
                each(MeasuredMask {
                    place: i,
                    truth,
                    mask,
                    probabilities,
                    confusion: own,
                    dice: of_image,
                })?;
            }
        }
        if images == 0 {
            return Err(Error::argument("scores", "no picture has a true mask to compare with"));
        }
        Ok(MaskScores { confusion, dice: dice / images as f64, images, kind: "pictures", classes })
    }

    /// (mean IoU, pixel accuracy) of masks that are nothing but background.
    fn all_background(&self) -> (f64, f64) {
        let truth = |class: usize| -> u64 {
            (0..self.confusion.classes()).map(|predicted| self.confusion.count(class, predicted)).sum()
        };
        let sizes: Vec<u64> = (0..self.confusion.classes()).map(truth).collect();
        let share = sizes[0] as f64 / sizes.iter().sum::<u64>().max(1) as f64;
        let present = sizes.iter().enumerate().filter(|&(class, &n)| class == 0 || n > 0).count();
        (share / present as f64, share)
    }
}

impl fmt::Display for MaskScores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |value: Result<f64>| value.map_or("-".into(), |v| format!("{v:.3}"));
        let (background, accuracy) = self.all_background();
        writeln!(f, "masks of {} {}, at their own size", self.images, self.kind)?;
        writeln!(
            f,
            "  mean IoU         {}   (all background: {background:.3})",
            figure(self.confusion.mean_iou())
        )?;
        let own = figure(self.confusion.pixel_accuracy());
        writeln!(f, "  pixel accuracy   {own}   (all background: {accuracy:.3})")?;
        writeln!(f, "  mean Dice        {}", figure(self.confusion.mean_dice()))?;
        writeln!(f, "  submission Dice  {:.3}   (mean over pictures)", self.dice)?;
        write!(f, "  IoU by class    ")?;
        let names = ["background"].into_iter().chain(self.classes.iter());
        for (i, (name, iou)) in names.zip(self.confusion.iou()).enumerate() {
            if i > 0 && i % 5 == 0 {
                write!(f, "\n                  ")?;
            }
            match iou {
                Some(iou) => write!(f, " {name} {iou:.2}")?,
                None => write!(f, " {name} -")?,
            }
        }
        Ok(())
    }
}
