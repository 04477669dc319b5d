//! Images for examples: made up by the crate, each with an object of one of four classes.

use atrous::data::image::{Fit, fit};
use atrous::data::synthetic::Synthetic;
use atrous::data::{CLASSES, Dataset};
use atrous::random::{Stream, domain};
use atrous::{Result, Tensor};

/// Height and width.
pub const SIDE: usize = 48;
/// Of the twenty classes that are made up.
pub const NAMES: [&str; 4] = ["aeroplane", "bicycle", "bottle", "tvmonitor"];

/// Images from 0 to 1, and the number of what each shows.
pub struct Images {
    pixels: Vec<Vec<f32>>,
    classes: Vec<f32>,
}

impl Images {
    /// The first `count` images of a set that show an object of one of the classes, and nothing else.
    pub fn new(set: Synthetic, count: usize) -> Result<Self> {
        let mut images = Images { pixels: Vec::new(), classes: Vec::new() };
        for i in 0..set.len() {
            let labels = set.labels(i).unwrap_or_default();
            let shown: Vec<&str> =
                (0..CLASSES.len()).filter(|&c| labels[c]).map(|c| CLASSES[c]).collect();
            let class = NAMES.iter().position(|name| shown == [*name]);
            if let Some(class) = class.filter(|_| images.classes.len() < count) {
                let values = fit(&set.image(i)?, SIDE, Fit::Stretch)?;
                images.pixels.push(values.iter().map(|value| value / 255.0).collect());
                images.classes.push(class as f32);
            }
        }
        Ok(images)
    }

    /// These of the images, [N, SIDE, SIDE, 3], and their classes, [N].
    pub fn batch(&self, chosen: &[usize]) -> Result<(Tensor, Tensor)> {
        let pixels: Vec<f32> = chosen.iter().flat_map(|&i| self.pixels[i].iter().copied()).collect();
        let classes: Vec<f32> = chosen.iter().map(|&i| self.classes[i]).collect();
        let n = chosen.len();
        Ok((Tensor::from_slice(&pixels, [n, SIDE, SIDE, 3])?, Tensor::from_slice(&classes, [n])?))
    }

    /// All of them.
    pub fn all(&self) -> Result<(Tensor, Tensor)> {
        self.batch(&(0..self.classes.len()).collect::<Vec<_>>())
    }

    /// Batches that hold every image once, in another order each epoch.
    pub fn shuffled(&self, size: usize, epoch: u64) -> Vec<Vec<usize>> {
        let order = Stream::new(epoch, &[domain::SHUFFLE]).permutation(self.classes.len());
        order.chunks(size).map(<[usize]>::to_vec).collect()
    }
}

/// The share of rows of logits whose largest value is at the class.
pub fn accuracy(logits: &Tensor, classes: &Tensor) -> f64 {
    let (values, classes) = (logits.to_vec_f64(), classes.to_vec_f64());
    let rows = values.chunks(NAMES.len()).zip(&classes);
    let right = rows.filter(|(row, class)| {
        let largest = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        largest == Some(**class as usize)
    });
    right.count() as f64 / classes.len() as f64
}
