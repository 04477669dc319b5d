//! The best, the worst and the middle of what was predicted, to look at.

use super::{Evaluation, Example};
use crate::data::{Dataset, Image};
use crate::error::{Error, Result};
use crate::files::explain;
use crate::predict::Predictions;
use crate::report::canvas::Canvas;
use crate::report::panels::blended;
use std::path::Path;

/// Of each kind.
const EACH: usize = 4;
/// The longer side of an image in the page, in pixels.
const SIDE: f64 = 320.0;
/// The folder they are in.
const FOLDER: &str = "examples";

impl Evaluation {
    /// Chooses a few samples and writes them into the folder's `examples`: the image, and where there are
    /// masks the true and the predicted one over it. `indices` are the samples that were predicted.
    ///
    /// [`Evaluation::of_labels`] has an example.
    pub fn write_examples(
        &mut self,
        predictions: &Predictions,
        dataset: &dyn Dataset,
        indices: &[usize],
        folder: &Path,
    ) -> Result<()> {
        let within = folder.join(FOLDER);
        std::fs::create_dir_all(&within).map_err(|error| Error::file(&within, explain(&error)))?;
        let place = |id: &str| indices.iter().position(|&index| dataset.id(index) == id);
        for (group, n, sample) in self.chosen() {
            let id = self.samples[sample].id.clone();
            let Some(i) = place(&id) else { continue };
            let image = dataset.image(indices[i])?;
            let mut seen = vec![("image", image.clone())];
            if self.segments()
                && let (Some(truth), Some(mask)) = (dataset.mask(indices[i])?, predictions.get(i)?.mask)
            {
                seen.push(("truth", blended(&truth, Some(&image))));
                seen.push(("prediction", blended(&mask, Some(&image))));
            }
            let mut images = Vec::new();
            for (what, image) in seen {
                let file = format!("{FOLDER}/{}-{group}-{n}-{what}.jpg", self.task);
                crate::data::image_files::write_jpeg(folder.join(&file), &thumbnail(&image)?)?;
                images.push((what.to_owned(), file));
            }
            self.examples.push(Example { group: group.into(), id, images });
        }
        Ok(())
    }

    /// (group, number within it, sample) of those to look at; none twice.
    fn chosen(&self) -> Vec<(&'static str, usize, usize)> {
        let mut order: Vec<usize> = (0..self.samples.len()).collect();
        let key = |i: usize| (self.samples[i].score, -self.samples[i].loss.unwrap_or_default());
        order.sort_by(|&a, &b| {
            let (a, b) = (key(a), key(b));
            b.0.total_cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
        let n = order.len();
        let each = EACH.min((n / 3).max(1)).min(n);
        let middle = ((n - each) / 2).max(each);
        let worst = (n - each).max(middle + each).min(n);
        let groups = [("best", 0..each), ("typical", middle.min(n)..(middle + each).min(n))];
        let groups = groups.into_iter().chain([("worst", worst..n)]);
        let of = |(group, places): (&'static str, std::ops::Range<usize>)| {
            let order = &order;
            places.enumerate().map(move |(n, place)| (group, n + 1, order[place])).collect::<Vec<_>>()
        };
        groups.flat_map(of).collect()
    }
}

/// An image no larger than a page shows it.
fn thumbnail(image: &Image) -> Result<Image> {
    let (height, width) = (image.height as f64, image.width as f64);
    let ratio = (SIDE / height.max(width)).min(1.0);
    let (height, width) = ((height * ratio).round().max(1.0), (width * ratio).round().max(1.0));
    let mut canvas = Canvas::new(width, height, 1.0)?;
    canvas.image(0.0, 0.0, width, height, image);
    Ok(canvas.into_image())
}

#[cfg(test)]
mod tests {
    use super::super::Sample;
    use super::*;

    #[test]
    fn no_sample_is_chosen_twice_and_the_best_and_worst_are_among_them() {
        for n in 0..40 {
            let sample = |i: usize| Sample { score: (i * 7 % 40) as f64, ..Sample::default() };
            let samples: Vec<Sample> = (0..n).map(sample).collect();
            let evaluation = Evaluation { samples, ..Evaluation::default() };
            let chosen = evaluation.chosen();
            let mut numbers: Vec<usize> = chosen.iter().map(|c| c.2).collect();
            let score = |i: usize| evaluation.samples[i].score;
            if n > 2 {
                let all = (0..n).map(score);
                assert_eq!(score(chosen[0].2), all.clone().fold(0.0, f64::max));
                assert_eq!(score(chosen[chosen.len() - 1].2), all.fold(100.0, f64::min), "{n}");
                assert!(["best", "typical", "worst"].iter().all(|g| chosen.iter().any(|c| c.0 == *g)));
            }
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), chosen.len(), "{n}: {chosen:?}");
        }
    }

    #[test]
    fn a_thumbnail_keeps_its_proportions_and_small_images_stay() {
        let image = |h: usize, w: usize| Image::new(h, w, vec![7; 3 * h * w]).unwrap();
        let size = |image: Image| (image.height, image.width);
        assert_eq!(size(thumbnail(&image(640, 320)).unwrap()), (320, 160));
        assert_eq!(size(thumbnail(&image(5, 9)).unwrap()), (5, 9));
        assert!(thumbnail(&image(400, 400)).unwrap().rgb.iter().all(|&v| v == 7));
    }
}
