//! A class for every pixel of images of any size.

use crate::backend::cpu::{simd, threads};
use crate::context::{isa, no_grad};
use crate::data::image::{self, Fit, Nearest, Preprocess, resize_mask};
use crate::data::{Image, Mask};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::metrics::arg_max;
use crate::nn::{Graph, Mode, Model, for_inference};
use crate::ops::resize::BilinearRows;
use crate::ops::{Method, resize, softmax};
use crate::predict::quickshift::{QuickShift, vote_probabilities};
use crate::tensor::Tensor;

/// How masks are made of a network's logits.
///
/// ```
/// use atrous::predict::MaskOptions;
///
/// let often = MaskOptions { scales: vec![0.75, 1.0, 1.25], flip: true, ..MaskOptions::default() };
/// assert!(often.check().is_ok()); // six views of an image, whose answers are averaged
/// assert!(MaskOptions { nearest: true, ..often.clone() }.check().is_err()); // but not those of labels
/// assert!(MaskOptions { scales: vec![8.0], ..often }.check().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MaskOptions {
    /// The image is seen at these multiples of the network's size, and what is said of it averaged: 1 to
    /// 16 of them, 0.25 to 4.
    pub scales: Vec<f32>,
    /// It is seen in a mirror, too, and what is said averaged.
    pub flip: bool,
    /// The mask, not the logits, is brought to the image's size: each pixel takes the label of the nearest
    /// (OpenCV's nearest, as the notebook did). Borders come in blocks. Goes with none of the others.
    pub nearest: bool,
    /// Each superpixel of the image takes one class.
    pub superpixels: Option<QuickShift>,
}

impl Default for MaskOptions {
    fn default() -> Self {
        MaskOptions { scales: vec![1.0], flip: false, nearest: false, superpixels: None }
    }
}

impl MaskOptions {
    /// An error where scales are out of range or options do not go together.
    pub fn check(&self) -> Result<()> {
        let fine = |scale: &f32| (0.25..=4.0).contains(scale);
        if self.scales.is_empty() || self.scales.len() > 16 || !self.scales.iter().all(fine) {
            let message = format!("expected 1 to 16 scales of 0.25 to 4, got {:?}", self.scales);
            return Err(Error::argument("scales", message));
        }
        if self.nearest && (self.views() > 1 || self.superpixels.is_some()) {
            let message = "labels cannot be averaged: leave out scales, flip and superpixels";
            return Err(Error::argument("nearest", message));
        }
        Ok(())
    }

    /// How often the network sees an image.
    fn views(&self) -> usize {
        self.scales.len() * (1 + self.flip as usize)
    }
}

/// Labels the pixels of images of any size.
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image::{Fit, Preprocess};
/// use atrous::predict::{MaskOptions, Segmenter};
/// use atrous::prelude::*;
///
/// // What is red is of class 1: its logit is twice the red of a pixel, that of class 0 always 1.
/// let graph = |side: usize| -> Result<Graph> {
///     let mut graph = Graph::new("red", "input", [side, side, 3]);
///     graph.add(Layer::conv2d(2, 1), &[graph.input()])?;
///     Ok(graph)
/// };
/// let mut model = Model::new(graph(16)?, 1);
/// model.set("conv2d/kernel", Tensor::from([[[[0.0f32, 2.0], [0.0, 0.0], [0.0, 0.0]]]]))?;
/// model.set("conv2d/bias", Tensor::from([1.0f32, 0.0]))?;
///
/// let options = MaskOptions::default();
/// let segmenter = Segmenter::new(&model, graph, Preprocess::Unit, Fit::Stretch, options)?;
/// let image = Image::new(1, 4, vec![255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0])?; // two red pixels, two black
/// assert_eq!(segmenter.mask(&image)?.classes, [1, 1, 0, 0]);
/// let (_, probabilities) = segmenter.mask_with_probabilities(&image)?; // [1, 1, 4, 2]
/// let sure = 2f64.exp() / (1f64.exp() + 2f64.exp());
/// assert!((probabilities.unwrap().to_vec_f64()[1] - sure).abs() < 1e-5); // class 1 of the first pixel
/// # Ok::<(), Error>(())
/// ```
pub struct Segmenter {
    /// One a scale, with the same parameters.
    models: Vec<Model>,
    preprocess: Preprocess,
    fit: Fit,
    options: MaskOptions,
}

/// Networks that segment take sides that are multiples of this: of what they shrink an image by.
const STRIDE: f32 = 16.0;

impl Segmenter {
    /// A network of logits for every pixel, and how its images are prepared. `graph` gives the network for
    /// images of another side, with the same parameters. An error for options that
    /// [`MaskOptions::check`] refuses.
    pub fn new(
        model: &Model,
        graph: impl Fn(usize) -> Result<Graph>,
        preprocess: Preprocess,
        fit: Fit,
        options: MaskOptions,
    ) -> Result<Self> {
        options.check()?;
        let own = side(model);
        let at_scale = |&scale: &f32| {
            let size = ((own as f32 * scale / STRIDE).round().max(1.0) * STRIDE) as usize;
            if size == own {
                return for_inference(model);
            }
            let graph = graph(size)?;
            for_inference(&Model::with(graph, |path, shape, _| match model.parameter(path) {
                Some(parameter) => parameter.value.clone(),
                None => Tensor::zeros(shape),
            }))
        };
        let models = options.scales.iter().map(at_scale).collect::<Result<Vec<_>>>()?;
        Ok(Segmenter { models, preprocess, fit, options })
    }

    /// The class of each pixel, at the image's own size. Logits are scaled up to that before the largest is
    /// taken, so that borders do not come in blocks. An error where logits are not finite.
    pub fn mask(&self, image: &Image) -> Result<Mask> {
        let Image { height, width, .. } = *image;
        if self.options.nearest {
            let small = arg_max_of(&self.logits(&self.models[0], image)?)?;
            return resize_mask(&small, height, width, Nearest::Corner);
        }
        if self.options.views() == 1 && self.options.superpixels.is_none() {
            return enlarged(&self.logits(&self.models[0], image)?, height, width);
        }
        let scores = self.scores(image)?;
        let Some(quick_shift) = &self.options.superpixels else { return arg_max_of(&scores) };
        let superpixels = quick_shift.segment(image)?;
        vote_probabilities(scores.values::<f32>(), scores.shape().last_length(), &superpixels)
    }

    /// The mask, and the probabilities it was made of, [1, height, width, classes] on the CPU; None where
    /// labels, not probabilities, make the mask ([`MaskOptions::nearest`], superpixels). (A mean over several
    /// views may be 1 and a last digit.) An error where logits are not finite.
    pub fn mask_with_probabilities(&self, image: &Image) -> Result<(Mask, Option<Tensor>)> {
        if self.options.nearest || self.options.superpixels.is_some() {
            return Ok((self.mask(image)?, None));
        }
        let scores = self.scores(image)?;
        let averaged = self.options.views() > 1;
        let probabilities = if averaged { scores.clone() } else { no_grad(|| softmax(&scores))? };
        Ok((arg_max_of(&scores)?, Some(probabilities)))
    }

    /// [1, height, width, classes]: the mean probabilities of all views, or, where there is one view
    /// and nobody wants probabilities, its logits, which are largest at the same class.
    fn scores(&self, image: &Image) -> Result<Tensor> {
        let Image { height, width, .. } = *image;
        let full = |logits: &Tensor| no_grad(|| resize(logits, height, width, Method::Bilinear));
        if self.options.views() == 1 && self.options.superpixels.is_none() {
            return full(&self.logits(&self.models[0], image)?);
        }
        let mirror = self.options.flip.then(|| image.mirrored());
        let mut sum: Vec<f32> = Vec::new();
        let mut classes = 0;
        for model in &self.models {
            for image in [Some(image), mirror.as_ref()].into_iter().flatten() {
                let scores = no_grad(|| softmax(&full(&self.logits(model, image)?)?))?;
                classes = scores.shape().last_length();
                sum.resize(height * width * classes, 0.0);
                let mirrored = mirror.as_ref().is_some_and(|mirror| std::ptr::eq(mirror, image));
                let rows = scores.values::<f32>().chunks_exact(width * classes);
                for (sums, row) in sum.chunks_exact_mut(width * classes).zip(rows) {
                    let pixels = sums.chunks_exact_mut(classes);
                    let add = |(sum, pixel): (&mut [f32], &[f32])| {
                        sum.iter_mut().zip(pixel).for_each(|(sum, p)| *sum += p);
                    };
                    match mirrored {
                        true => pixels.zip(row.chunks_exact(classes).rev()).for_each(add),
                        false => pixels.zip(row.chunks_exact(classes)).for_each(add),
                    }
                }
            }
        }
        let share = 1.0 / self.options.views() as f32;
        sum.iter_mut().for_each(|p| *p *= share);
        Tensor::from_slice(&sum, [1, height, width, classes])
    }

    /// The network's logits [1, h, w, classes], only of where the image lies: a padded square has a border
    /// that is not its own.
    fn logits(&self, model: &Model, image: &Image) -> Result<Tensor> {
        let size = side(model);
        let mut values = image::fit(image, size, self.fit)?;
        self.preprocess.apply(&mut values);
        let x = Tensor::from_slice(&values, [1, size, size, 3])?;
        let x = x.to_device(model.device())?;
        let logits = no_grad(|| model.run(&x, Mode::infer()))?.logits.to_device(Device::Cpu)?;
        model.require_finite(&x, &logits)?;
        let classes = logits.shape().last_length();
        let at = self.fit.placement(image.height, image.width, size);
        if (at.height, at.width) == (size, size) {
            return Ok(logits);
        }
        let rows = (at.top..at.top + at.height).flat_map(|y| {
            let first = (y * size + at.left) * classes;
            logits.values::<f32>()[first..first + at.width * classes].iter().copied()
        });
        Tensor::from_slice(&rows.collect::<Vec<f32>>(), [1, at.height, at.width, classes])
    }
}

fn side(model: &Model) -> usize {
    model.graph.nodes()[0].output_shape[0]
}

/// Scores [N, h, w, classes], on the CPU → the class with the largest score at each pixel of each image. An
/// error for another number of axes.
///
/// ```
/// use atrous::Tensor;
/// use atrous::predict::masks_of;
///
/// let scores = Tensor::from([[[[0.1f32, 0.7, 0.2], [3.0, -1.0, 2.0]]]]); // an image of two pixels
/// let masks = masks_of(&scores)?;
/// assert_eq!((masks.len(), &masks[0].classes[..]), (1, &[1, 0][..]));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn masks_of(scores: &Tensor) -> Result<Vec<Mask>> {
    let &[_, height, width, classes] = &*scores.shape() else {
        return Err(Error::shape("masks", "scores [N, h, w, classes]", scores.shape()));
    };
    let mask = |scores: &[f32]| {
        let labels = scores.chunks_exact(classes).map(|row| arg_max(row) as u8);
        Mask::new(height, width, labels.collect())
    };
    scores.values::<f32>().chunks_exact(height * width * classes).map(mask).collect()
}

/// Rows of a mask that are made at a time.
const BAND: usize = 16;

/// The mask, height × width, of logits [1, h, w, classes] that are scaled up to it: as [`masks_of`] has it
/// of what [`resize`] makes, bit for bit. But that would be 21 floats for each of a camera's twelve million
/// pixels; here some rows are scaled up, and of those the labels are kept.
fn enlarged(logits: &Tensor, height: usize, width: usize) -> Result<Mask> {
    let &[1, h, w, c] = &*logits.shape() else {
        return Err(Error::shape("masks", "logits [1, h, w, classes]", logits.shape()));
    };
    let rows = Method::Bilinear.taps::<f32>(h, height);
    let columns = Method::Bilinear.taps::<f32>(w, width);
    let (x, columns, isa) = (logits.values::<f32>(), &columns[..], isa());
    let bands = threads::map(height.div_ceil(BAND), |band| {
        let rows = &rows[band * BAND..height.min((band + 1) * BAND)];
        let mut scores = vec![0.0; rows.len() * width * c];
        let out = &mut scores[..];
        simd::dispatch(isa, BilinearRows { x, w, c, rows, columns, out, non_temporal: false });
        scores.chunks_exact(c).map(|row| arg_max(row) as u8).collect::<Vec<u8>>()
    });
    Mask::new(height, width, bands.concat())
}

/// The mask of one image's scores, [1, h, w, classes].
fn arg_max_of(scores: &Tensor) -> Result<Mask> {
    let mask = masks_of(scores)?.pop();
    mask.ok_or_else(|| Error::shape("masks", "scores of one picture", scores.shape()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::VOID;
    use crate::models::deeplab_v3_plus;
    use crate::random::{Stream, domain};

    fn image(height: usize, width: usize, seed: u64) -> Image {
        let mut stream = Stream::new(seed, &[domain::TEST]);
        let rgb = (0..height * width * 3).map(|_| stream.below(256) as u8).collect();
        Image::new(height, width, rgb).unwrap()
    }

    fn segmenter(fit: Fit, options: MaskOptions) -> Segmenter {
        let graph = |side| deeplab_v3_plus(side, 21);
        let model = Model::new(graph(32).unwrap(), 3);
        Segmenter::new(&model, graph, Preprocess::Symmetric, fit, options).unwrap()
    }

    /// The definition: each view on its own, probabilities averaged pixel by pixel.
    fn averaged(image: &Image, fit: Fit, scales: &[f32]) -> Vec<f32> {
        let (mut sum, mut views) = (vec![0.0; image.height * image.width * 21], 0.0);
        for &scale in scales {
            for mirrored in [false, true] {
                let options = MaskOptions { scales: vec![scale], ..MaskOptions::default() };
                let one = segmenter(fit, options);
                let seen = if mirrored { image.mirrored() } else { image.clone() };
                let scores = no_grad(|| softmax(&one.scores(&seen).unwrap())).unwrap();
                for (i, &p) in scores.values::<f32>().iter().enumerate() {
                    let (y, x, c) = (i / 21 / seen.width, i / 21 % seen.width, i % 21);
                    let x = if mirrored { seen.width - 1 - x } else { x };
                    sum[(y * seen.width + x) * 21 + c] += p;
                }
                views += 1.0;
            }
        }
        sum.iter().map(|p| p / views).collect()
    }

    #[test]
    fn several_views_are_averaged_where_they_lie() {
        let image = image(21, 37, 1);
        for fit in [Fit::Stretch, Fit::Pad] {
            let scales = vec![0.5, 1.0, 1.6];
            let options = MaskOptions { scales: scales.clone(), flip: true, ..MaskOptions::default() };
            let seen = segmenter(fit, options).scores(&image).unwrap();
            for (a, b) in seen.values::<f32>().iter().zip(averaged(&image, fit, &scales)) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_mirrored_image_gives_the_mirrored_mask_where_both_are_seen() {
        let image = image(20, 33, 2);
        let options = MaskOptions { flip: true, ..MaskOptions::default() };
        let segmenter = segmenter(Fit::Stretch, options);
        let (mask, mirrored) = (segmenter.mask(&image), segmenter.mask(&image.mirrored()));
        let rows = mirrored.unwrap().classes;
        let back: Vec<u8> = rows.chunks(33).flat_map(|row| row.iter().rev().copied()).collect();
        let mask = mask.unwrap().classes;
        // A pixel whose two best classes are equally likely may go either way.
        let differ = mask.iter().zip(&back).filter(|(a, b)| a != b).count();
        assert!(differ * 200 <= mask.len() && mask.iter().any(|&c| c != mask[0]), "{differ}");
    }

    #[test]
    fn a_mask_is_of_the_images_size_and_a_superpixel_of_one_class() {
        for (height, width) in [(1, 1), (17, 50), (60, 31)] {
            let image = image(height, width, 3);
            for fit in [Fit::Stretch, Fit::Pad] {
                for nearest in [false, true] {
                    let options = MaskOptions { nearest, ..MaskOptions::default() };
                    let mask = segmenter(fit, options).mask(&image).unwrap();
                    assert_eq!((mask.height, mask.width), (height, width));
                    assert!(mask.classes.iter().all(|&c| c < 21 && c != VOID));
                }
            }
            let quick_shift = QuickShift::default();
            let options = MaskOptions { superpixels: Some(quick_shift), ..MaskOptions::default() };
            let mask = segmenter(Fit::Stretch, options).mask(&image).unwrap();
            let superpixels = quick_shift.segment(&image).unwrap();
            let mut classes = vec![None; superpixels.count];
            for (&label, &class) in superpixels.labels.iter().zip(&mask.classes) {
                assert_eq!(*classes[label as usize].get_or_insert(class), class);
            }
        }
    }

    #[test]
    fn probabilities_sum_to_one_and_are_largest_at_the_pixels_own_class() {
        let image = image(19, 30, 5);
        for flip in [false, true] {
            let options = MaskOptions { flip, ..MaskOptions::default() };
            let segmenter = segmenter(Fit::Stretch, options);
            let (mask, probabilities) = segmenter.mask_with_probabilities(&image).unwrap();
            assert_eq!(mask.classes, segmenter.mask(&image).unwrap().classes);
            let probabilities = probabilities.unwrap();
            assert_eq!(probabilities.shape()[..], [1, 19, 30, 21]);
            for (row, &class) in probabilities.values::<f32>().chunks_exact(21).zip(&mask.classes) {
                let most = row.iter().copied().fold(0.0, f32::max);
                assert!(
                    (row.iter().sum::<f32>() - 1.0).abs() < 1e-5 && row[class as usize] > most - 1e-6
                );
            }
        }
        let blocks = MaskOptions { nearest: true, ..MaskOptions::default() };
        assert!(segmenter(Fit::Pad, blocks).mask_with_probabilities(&image).unwrap().1.is_none());
    }

    #[test]
    fn a_mask_made_some_rows_at_a_time_is_that_of_all_scores() {
        for (height, width) in [(1, 1), (16, 90), (33, 7), (70, 101)] {
            let image = image(height, width, 6);
            for fit in [Fit::Stretch, Fit::Pad] {
                let segmenter = segmenter(fit, MaskOptions::default());
                let whole = arg_max_of(&segmenter.scores(&image).unwrap()).unwrap();
                assert!(segmenter.mask(&image).unwrap() == whole, "{height}×{width}");
            }
        }
    }

    #[test]
    fn nearest_takes_whole_labels_of_the_networks_mask() {
        let image = image(53, 71, 4);
        let options = MaskOptions { nearest: true, ..MaskOptions::default() };
        let segmenter = segmenter(Fit::Stretch, options);
        let logits = segmenter.logits(&segmenter.models[0], &image).unwrap();
        let small = arg_max_of(&logits).unwrap().classes;
        let mask = segmenter.mask(&image).unwrap();
        for (i, &class) in mask.classes.iter().enumerate() {
            let (y, x) = (i / 71 * 32 / 53, i % 71 * 32 / 71);
            assert_eq!(class, small[y * 32 + x]);
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let of = |options: MaskOptions| options.check().unwrap_err().to_string();
        for scales in [vec![], vec![0.1], vec![1.0, f32::NAN], vec![1.0; 17]] {
            assert!(of(MaskOptions { scales, ..MaskOptions::default() }).contains("scales"));
        }
        let blocks = MaskOptions { nearest: true, ..MaskOptions::default() };
        assert!(blocks.check().is_ok());
        assert!(of(MaskOptions { flip: true, ..blocks.clone() }).contains("averaged"));
        let superpixels = Some(QuickShift::default());
        assert!(of(MaskOptions { superpixels, ..blocks }).contains("averaged"));
    }
}
