//! Which number of a network is explained.

use super::gradients;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::explain::trace::winners;
use crate::nn::Model;
use crate::tensor::Tensor;

/// A weighted sum of an image's logits: that of one class of a classifier; of a network that segments, those
/// of a class in some of the pixels. Logits, since of two exclusive classes the probability of one rises
/// also where the other's logit falls.
///
/// ```
/// use atrous::explain::attribution::Target;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("classifier", "input", [4, 4, 3]);
/// graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, Layer::dense(3)])?;
/// let (model, x) = (Model::new(graph, 1), Tensor::rand([1, 4, 4, 3], 7));
/// let logits = model.run(&x, Mode::infer())?.logits;
/// let class = Target::likeliest(&model, &x)?;
/// assert_eq!(Target::class(&model, class)?.scores(&logits)?, [logits.max()?.item()?]);
///
/// let mut graph = Graph::new("segmenter", "input", [1, 2, 3]);
/// graph.add(Layer::conv2d(2, 1), &[graph.input()])?;
/// let model = Model::new(graph, 1);
/// let logits = Tensor::from([[[[1.0f32, 10.0], [2.0, 20.0]]]]); // two pixels of two classes
/// assert_eq!(Target::pixels(&model, 1, &[true, true])?.scores(&logits)?, [30.0]);
/// assert_eq!(Target::pixels(&model, 0, &[false, true])?.scores(&logits)?, [2.0]);
/// assert!(Target::class(&model, 1).is_err()); // of which pixels?
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// One a logit of an image.
    weights: Vec<f32>,
}

impl Target {
    /// The logit of a class of a classifier. An error for a class that it has not, and for a network that
    /// segments.
    pub fn class(model: &Model, class: usize) -> Result<Self> {
        match pixels_and_classes(model) {
            (1, classes) => Self::weighted(&[true], class, classes),
            (pixels, classes) => {
                let got =
                    format!("{pixels} pixels of {classes} logits: say of which (`Target::pixels`)");
                Err(Error::shape("target", "a classifier", got))
            }
        }
    }

    /// The logits of a class summed over the pixels, row by row, that are true: which says whose class is
    /// explained (Vinogradova, Dibrov and Myers, 2020). An error for another number of pixels than the
    /// network labels, for none that is true, and for a class that it has not.
    pub fn pixels(model: &Model, class: usize, pixels: &[bool]) -> Result<Self> {
        let (expected, classes) = pixels_and_classes(model);
        if pixels.len() != expected {
            return Err(Error::shape("target", format!("{expected} pixels"), pixels.len()));
        }
        let target = Self::weighted(pixels, class, classes)?;
        match pixels.contains(&true) {
            true => Ok(target),
            false => Err(Error::argument("target", "expected at least one pixel to explain, got none")),
        }
    }

    /// The class in the pixels that the network says are of it, in this image [1, H, W, C]; of a classifier,
    /// its logit. An error where no pixel is of that class.
    ///
    /// ```
    /// # use atrous::explain::attribution::Target;
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("segmenter", "input", [1, 2, 3]);
    /// graph.add(Layer::conv2d(2, 1), &[graph.input()])?;
    /// let mut model = Model::new(graph, 1);
    /// let red = Tensor::from([[[[0.0f32, 1.0], [0.0, 0.0], [0.0, 0.0]]]]); // of class 1
    /// model.set("conv2d/kernel", red)?;
    /// let x = Tensor::from([[[[1.0f32, 0.0, 0.0], [-1.0, 0.0, 0.0]]]]); // a red pixel, and one that is not
    /// assert_eq!(Target::predicted(&model, &x, 1)?, Target::pixels(&model, 1, &[true, false])?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn predicted(model: &Model, x: &Tensor, class: usize) -> Result<Self> {
        let (pixels, classes) = pixels_and_classes(model);
        if pixels == 1 {
            return Self::class(model, class);
        }
        let said = predictions(model, x)?;
        let region: Vec<bool> = said.iter().map(|&said| said == class).collect();
        if class < classes && !region.contains(&true) {
            let message = format!("expected a class with a pixel in the predicted mask, got {class}");
            return Err(Error::argument("target", message));
        }
        Self::pixels(model, class, &region)
    }

    /// The likeliest class of an image [1, H, W, C]; of a network that segments, that of most pixels which
    /// are not background (0), where there are such.
    pub fn likeliest(model: &Model, x: &Tensor) -> Result<usize> {
        let (pixels, classes) = pixels_and_classes(model);
        let said = predictions(model, x)?;
        if pixels == 1 {
            return Ok(said[0]);
        }
        let mut counts = vec![0usize; classes];
        said.iter().for_each(|&class| counts[class] += 1);
        let objects = (1..classes).filter(|&class| counts[class] > 0);
        Ok(objects.max_by_key(|&class| counts[class]).unwrap_or(0))
    }

    fn weighted(pixels: &[bool], class: usize, classes: usize) -> Result<Self> {
        if class >= classes {
            let message = format!("expected a class below {classes}, got {class}");
            return Err(Error::argument("target", message));
        }
        let mut weights = vec![0.0; pixels.len() * classes];
        let counted = weights.chunks_exact_mut(classes).zip(pixels).filter(|(_, counts)| **counts);
        counted.for_each(|(logits, _)| logits[class] = 1.0);
        Ok(Target { weights })
    }

    /// The number that is explained, for each image of logits [N, …].
    pub fn scores(&self, logits: &Tensor) -> Result<Vec<f64>> {
        self.check(logits)?;
        let values = logits.to_device(Device::Cpu)?.to_vec_f64();
        let score = |logits: &[f64]| logits.iter().zip(&self.weights).map(|(z, &w)| z * w as f64).sum();
        Ok(values.chunks_exact(self.weights.len()).map(score).collect())
    }

    /// ∂score/∂logits, of the logits' shape, type and device.
    pub(super) fn upstream(&self, logits: &Tensor) -> Result<Tensor> {
        self.check(logits)?;
        let weights = self.weights.repeat(logits.shape()[0]);
        Tensor::from_slice(&weights, logits.shape())?.to_dtype(logits.dtype()).to_device(logits.device())
    }

    fn check(&self, logits: &Tensor) -> Result<()> {
        let got = logits.shape().elements() / logits.shape()[0].max(1);
        match got == self.weights.len() {
            true => Ok(()),
            false => Err(Error::shape("target", format!("{} logits an image", self.weights.len()), got)),
        }
    }
}

/// How many pixels a network labels (1: the image), and how many logits each has.
fn pixels_and_classes(model: &Model) -> (usize, usize) {
    let shape = &model.graph.node(model.graph.output()).output_shape;
    let classes = shape.last().copied().unwrap_or(1).max(1);
    (shape.iter().product::<usize>() / classes, classes)
}

/// The class with the largest logit, of each pixel.
fn predictions(model: &Model, x: &Tensor) -> Result<Vec<usize>> {
    super::one_image(x)?;
    Ok(winners(&gradients::logits(model, x)?))
}
