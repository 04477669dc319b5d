//! Which number of a network is explained.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;
use crate::nn::Model;
use crate::tensor::Tensor;

/// One number that a network makes of an image: the logit of a class; of a network that labels pixels, the
/// sum of those in some of the pixels, which says whose class is explained (Vinogradova, Dibrov and Myers,
/// 2020).
///
/// Logits, since of two exclusive classes the probability of one rises also where the other's logit falls.
///
/// ```
/// use atrous::explain::Target;
/// use atrous::prelude::*;
///
/// // Of four pixels [2, 2], each with three logits, two are of class 2.
/// let pixel = |class: usize| (0..3).map(move |c| if c == class { 1.5f32 } else { 0.0 });
/// let logits: Vec<f32> = [0, 2, 1, 2].into_iter().flat_map(pixel).collect();
/// let logits = Tensor::from_slice(&logits, [1, 2, 2, 3])?;
/// let target = Target::likeliest(&logits);
/// assert_eq!((target.class, target.pixels.as_deref()), (2, Some(&[false, true, false, true][..])));
/// assert_eq!(target.scores(&logits)?, [3.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The class whose logit it is.
    pub class: usize,
    /// Of a network that labels pixels: those `[H, W]`, row by row, over which the logit is summed.
    pub pixels: Option<Vec<bool>>,
}

impl Target {
    /// The logit of a class of a classifier. An error for a class that it has not, and for a network that
    /// labels pixels.
    pub fn class(model: &Model, class: usize) -> Result<Self> {
        let (pixels, classes) = pixels_and_classes(model);
        if pixels > 1 {
            let got = format!("{pixels} pixels of {classes} logits: say of which (`Target::pixels`)");
            return Err(Error::shape("target", "a classifier", got));
        }
        check_class(class, classes)?;
        Ok(Target { class, pixels: None })
    }

    /// The logits of a class summed over the pixels, row by row, that are true. An error for another number
    /// of pixels than the network labels, for none that is true, and for a class that it has not.
    pub fn pixels(model: &Model, class: usize, pixels: &[bool]) -> Result<Self> {
        let (expected, classes) = pixels_and_classes(model);
        if pixels.len() != expected {
            return Err(Error::shape("target", format!("{expected} pixels"), pixels.len()));
        }
        check_class(class, classes)?;
        match pixels.contains(&true) {
            true => Ok(Target { class, pixels: Some(pixels.to_vec()) }),
            false => Err(Error::argument("target", "expected at least one pixel to explain, got none")),
        }
    }

    /// The likeliest class of one image, by its logits `[1, classes]`; of a network that labels pixels
    /// `[1, H, W, classes]`, the one that most pixels are given, over these pixels. Background (class 0 of
    /// such a network) only where there is nothing else; of equals the first.
    pub fn likeliest(logits: &Tensor) -> Self {
        let winners = winners(logits);
        if logits.shape().len() == 2 {
            return Target { class: winners[0], pixels: None };
        }
        let mut counts = vec![0.0f32; logits.shape().last_length()];
        winners.iter().for_each(|&class| counts[class] += 1.0);
        let class = match counts[1..].iter().any(|&count| count > 0.0) {
            true => 1 + arg_max(&counts[1..]),
            false => 0,
        };
        Target::among(winners, class)
    }

    /// A class of one image, by its logits as in [`likeliest`](Self::likeliest); of a network that labels
    /// pixels, over the pixels that it gives that class, or over all where there is none. An error for a
    /// class that there is not.
    pub fn of_class(logits: &Tensor, class: usize) -> Result<Self> {
        check_class(class, logits.shape().last_length())?;
        Ok(match logits.shape().len() {
            2 => Target { class, pixels: None },
            _ => Target::among(winners(logits), class),
        })
    }

    /// A class over the pixels that are given it, or over all.
    fn among(winners: Vec<usize>, class: usize) -> Self {
        let any = winners.contains(&class);
        let pixels = winners.into_iter().map(|winner| winner == class || !any).collect();
        Target { class, pixels: Some(pixels) }
    }

    /// The number that is explained, for each image of logits `[N, classes]` or `[N, H, W, classes]`. An
    /// error for logits of other pixels, and of fewer classes.
    pub fn scores(&self, logits: &Tensor) -> Result<Vec<f64>> {
        let [pixels, classes] = self.check(logits)?;
        let values = logits.to_device(Device::Cpu)?.to_vec_f64();
        let score = |image: &[f64]| {
            let rows = image.chunks_exact(classes).enumerate();
            rows.filter(|(pixel, _)| self.counts(*pixel)).map(|(_, row)| row[self.class]).sum()
        };
        Ok(values.chunks_exact(pixels * classes).map(score).collect())
    }

    /// ∂score/∂logits, of the logits' shape, type and device: ones and zeros.
    pub(super) fn upstream(&self, logits: &Tensor) -> Result<Tensor> {
        let [pixels, classes] = self.check(logits)?;
        let mut ones = vec![0.0f32; logits.shape().elements()];
        for (row, logits) in ones.chunks_exact_mut(classes).enumerate() {
            if self.counts(row % pixels) {
                logits[self.class] = 1.0;
            }
        }
        Tensor::from_slice(&ones, logits.shape())?.to_dtype(logits.dtype()).to_device(logits.device())
    }

    fn counts(&self, pixel: usize) -> bool {
        self.pixels.as_ref().is_none_or(|pixels| pixels[pixel])
    }

    /// How many pixels an image has, and how many logits each of them.
    fn check(&self, logits: &Tensor) -> Result<[usize; 2]> {
        let shape = logits.shape();
        let got = match shape.len() {
            0 | 1 => 0,
            axes => shape[1..axes - 1].iter().product(),
        };
        let (expected, what) = match &self.pixels {
            None => (1, "the logits of a classifier".to_string()),
            Some(pixels) => (pixels.len(), format!("logits of {} pixels an image", pixels.len())),
        };
        if got != expected || got == 0 {
            return Err(Error::shape("target", what, format!("those of {got} pixels")));
        }
        check_class(self.class, shape.last_length())?;
        Ok([got, shape.last_length()])
    }
}

fn check_class(class: usize, classes: usize) -> Result<()> {
    match class < classes {
        true => Ok(()),
        false => {
            Err(Error::argument("target", format!("expected a class below {classes}, got {class}")))
        }
    }
}

/// How many pixels a network labels (1: the image), and how many logits each has.
fn pixels_and_classes(model: &Model) -> (usize, usize) {
    let shape = &model.graph.node(model.graph.output()).output_shape;
    let classes = shape.last().copied().unwrap_or(1).max(1);
    (shape.iter().product::<usize>() / classes, classes)
}

/// For each row of the last axis, where its largest number is; of equals the first.
pub(super) fn winners(logits: &Tensor) -> Vec<usize> {
    let values: Vec<f32> = logits.to_vec_f64().into_iter().map(|logit| logit as f32).collect();
    values.chunks_exact(logits.shape().last_length()).map(arg_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::by_name;

    /// Logits [1, 2, 2, 3] in which each pixel is of one class.
    fn mask(classes: [usize; 4]) -> Tensor {
        let one_hot =
            classes.iter().flat_map(|&c| (0..3).map(move |i| if i == c { 1.0f32 } else { 0.0 }));
        Tensor::from_slice(&one_hot.collect::<Vec<_>>(), [1, 2, 2, 3]).unwrap()
    }

    #[test]
    fn of_pixels_the_class_that_most_are_given_is_explained_and_background_only_alone() {
        let target = Target::likeliest(&mask([0, 0, 2, 0]));
        assert_eq!((target.class, target.pixels), (2, Some(vec![false, false, true, false])));
        assert_eq!(Target::likeliest(&mask([0; 4])).class, 0);
        let absent = Target::of_class(&mask([0, 0, 2, 0]), 1).unwrap();
        assert_eq!(absent.pixels, Some(vec![true; 4]));
    }

    #[test]
    fn of_equals_the_first_class_is_the_likeliest() {
        assert_eq!(Target::likeliest(&mask([2, 1, 0, 0])).class, 1);
        assert_eq!(Target::likeliest(&mask([2, 1, 1, 2])).class, 1);
        let equal = Tensor::from([[0.5f32, 2.0, 2.0]]);
        assert_eq!(Target::likeliest(&equal).class, 1);
        // Of a pixel, too, the first of the largest is what it is given.
        assert_eq!(Target::likeliest(&Tensor::zeros([1, 2, 2, 3])).class, 0);
    }

    #[test]
    fn the_score_is_the_sum_of_the_pixels_logits_image_by_image_and_upstream_its_gradient() {
        let logits = Tensor::rand_uniform([3, 2, 2, 3], -1.0, 1.0, 7);
        let target = Target { class: 2, pixels: Some(vec![true, false, false, true]) };
        let (values, scores) = (logits.to_vec_f64(), target.scores(&logits).unwrap());
        let upstream = target.upstream(&logits).unwrap().to_vec_f64();
        for (image, score) in scores.iter().enumerate() {
            let own = image * 12..(image + 1) * 12;
            assert!((score - (values[own.start + 2] + values[own.start + 11])).abs() < 1e-12);
            let weighted = values[own.clone()].iter().zip(&upstream[own]).map(|(z, w)| z * w);
            assert!((score - weighted.sum::<f64>()).abs() < 1e-12);
        }
        assert_eq!(upstream.iter().sum::<f64>(), 6.0);
    }

    #[test]
    fn a_target_is_a_class_that_there_is_over_pixels_that_there_are() {
        let classifier = Model::new(by_name("mobilenetv2", 32, 20).unwrap(), 3);
        let pixels = Model::new(by_name("deeplabv3plus", 32, 21).unwrap(), 3);
        let error = |target: Result<Target>| target.unwrap_err().to_string();
        assert!(error(Target::class(&classifier, 20)).contains("expected a class below 20, got 20"));
        assert!(error(Target::class(&pixels, 0)).contains("expected a classifier, got 1024 pixels"));
        assert!(error(Target::pixels(&pixels, 0, &[true])).contains("expected 1024 pixels, got 1"));
        assert!(error(Target::pixels(&pixels, 21, &[true; 1024])).contains("below 21, got 21"));
        assert!(error(Target::pixels(&pixels, 0, &[false; 1024])).contains("at least one pixel"));
        assert!(error(Target::of_class(&mask([0; 4]), 3)).contains("below 3, got 3"));
        let of_image = Target::class(&classifier, 1).unwrap();
        let error = of_image.scores(&mask([0; 4])).unwrap_err().to_string();
        assert!(error.contains("expected the logits of a classifier, got those of 4 pixels"), "{error}");
        assert!(of_image.scores(&Tensor::zeros([0, 3])).unwrap().is_empty());
    }
}
