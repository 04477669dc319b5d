//! Images as a network sees them, 0 to 1, and back to bytes.

use super::ball::{EpsBall, Norm};
use super::victim::rows;
use crate::data::image::{self, Fit, Placement};
use crate::data::{Dataset, Image};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// A batch of images fitted into a square. What the fit puts around them is not theirs: no attack
/// changes it.
///
/// ```
/// use atrous::attack::{EpsBall, Images};
/// use atrous::prelude::*;
///
/// let step = 1.0 / 255.0; // of an image file
/// let images = Images::whole(Tensor::full([2, 1, 1, 3], 8.0 * step));
/// assert_eq!((images.len(), images.side(), images.is_empty()), (2, 1, false));
/// assert_eq!(images.image(0)?.rgb, [8, 8, 8]);
///
/// // Rounded to what a file can hold, a perturbation must not leave its ball: here that ends at 10.
/// let perturbed = images.with(Tensor::full([2, 1, 1, 3], 10.6 * step));
/// let rounded = perturbed.rounded(&images, Some(EpsBall::linf(2.0 * step)))?;
/// assert_eq!(rounded.image(1)?.rgb, [10, 10, 10]);
/// assert_eq!(rounded.values(1), [10.0 * step; 3]);
/// assert_eq!(perturbed.rounded(&images, None)?.image(1)?.rgb, [11, 11, 11]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Images {
    /// [N, side, side, 3], 0 to 1
    pub x: Tensor,
    /// 1 where a value belongs to its image, 0 around it, of the same shape; None where all do.
    pub inside: Option<Tensor>,
    /// Where each image lies in its square, in pixels.
    pub places: Vec<Placement>,
}

impl Images {
    /// Reads images of a data set, in the order of `indices`. An error where one cannot be read, or there
    /// is none.
    ///
    /// ```
    /// # use atrous::attack::Images;
    /// # use atrous::data::image::Fit;
    /// # use atrous::data::{Dataset, synthetic::Synthetic};
    /// let dataset = Synthetic::train(1, 4);
    /// let images = Images::of(&dataset, &[3, 0], 16, Fit::Pad)?;
    /// assert_eq!(images.x.shape()[..], [2, 16, 16, 3]);
    /// // A wide image has its zeros above and below.
    /// let (height, width) = dataset.size(3)?;
    /// assert!(width > height && images.places[0].width == 16 && images.places[0].height < 16);
    /// assert!(images.inside.is_some());
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn of(dataset: &dyn Dataset, indices: &[usize], side: usize, fit: Fit) -> Result<Self> {
        let (mut values, mut places) = (Vec::new(), Vec::new());
        for &index in indices {
            let image = dataset.image(index)?;
            places.push(fit.placement(image.height, image.width, side));
            values.extend(image::fit(&image, side, fit)?.into_iter().map(|v| v * (1.0 / 255.0)));
        }
        Self::new(values, side, places)
    }

    fn new(values: Vec<f32>, side: usize, places: Vec<Placement>) -> Result<Self> {
        if places.is_empty() {
            return Err(Error::argument("attack", "there is no picture to perturb"));
        }
        let shape = [places.len(), side, side, 3];
        let full = places.iter().all(|at| (at.height, at.width) == (side, side));
        let mask = |at: &Placement| {
            let (rows, columns) = (at.top..at.top + at.height, at.left..at.left + at.width);
            let cell =
                |i: usize| (rows.contains(&(i / side)) && columns.contains(&(i % side))) as u8 as f32;
            (0..side * side).flat_map(move |i| [cell(i); 3]).collect::<Vec<f32>>()
        };
        let inside = match full {
            true => None,
            false => {
                Some(Tensor::from_slice(&places.iter().flat_map(mask).collect::<Vec<f32>>(), shape)?)
            }
        };
        Ok(Images { x: Tensor::from_slice(&values, shape)?, inside, places })
    }

    /// Images [N, side, side, 3] of 0 to 1 that fill their squares.
    pub fn whole(x: Tensor) -> Self {
        let (n, side) = (x.shape()[0], x.shape()[1]);
        let place = Placement { height: side, width: side, top: 0, left: 0 };
        Images { x, inside: None, places: vec![place; n] }
    }

    /// The images of these numbers.
    pub(crate) fn some(&self, numbers: &[usize]) -> Result<Self> {
        Ok(Images {
            x: rows(&self.x, numbers)?,
            inside: self.inside.as_ref().map(|inside| rows(inside, numbers)).transpose()?,
            places: numbers.iter().map(|&i| self.places[i]).collect(),
        })
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Height and width of the squares, in pixels.
    pub fn side(&self) -> usize {
        self.x.shape()[1]
    }

    /// The values of one image's square, [side, side, 3], 0 to 1.
    pub fn values(&self, i: usize) -> &[f32] {
        let each = self.side() * self.side() * 3;
        &self.x.values::<f32>()[i * each..][..each]
    }

    /// These images with other values, [N, side, side, 3].
    pub fn with(&self, x: Tensor) -> Self {
        Images { x, inside: self.inside.clone(), places: self.places.clone() }
    }

    /// The values of one image, without what is around it: [height, width, 3].
    pub(crate) fn own(&self, i: usize) -> Vec<f32> {
        let (at, side) = (self.places[i], self.side());
        let row = |y: usize| &self.values(i)[(y * side + at.left) * 3..][..at.width * 3];
        (at.top..at.top + at.height).flat_map(row).copied().collect()
    }

    /// One image in bytes, without what is around it.
    pub fn image(&self, i: usize) -> Result<Image> {
        let at = self.places[i];
        let bytes = self.own(i).iter().map(|&v| (v * 255.0).round().clamp(0.0, 255.0) as u8).collect();
        Image::new(at.height, at.width, bytes)
    }

    /// The values as an image file keeps them, in steps of 1/255: the nearest, or with L∞ the nearest inside
    /// the ball around the original (there is one from ε = .5/255 on; below that an image stays as near as
    /// it can).
    pub fn rounded(&self, origin: &Images, ball: Option<EpsBall>) -> Result<Self> {
        let round = |(&x, &o): (&f32, &f32)| {
            let nearest = (x * 255.0).round().clamp(0.0, 255.0);
            let (low, high) = match ball {
                Some(EpsBall { norm: Norm::Linf, epsilon }) => {
                    (((o - epsilon) * 255.0 - 1e-3).ceil(), ((o + epsilon) * 255.0 + 1e-3).floor())
                }
                _ => (0.0, 255.0),
            };
            let level = if low <= high {
                nearest.clamp(low.max(0.0), high.min(255.0))
            } else {
                (o * 255.0).round()
            };
            level * (1.0 / 255.0)
        };
        let values: Vec<f32> =
            self.x.values::<f32>().iter().zip(origin.x.values::<f32>()).map(round).collect();
        Ok(self.with(Tensor::from_slice(&values, self.x.shape())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic::Synthetic;

    #[test]
    fn what_is_around_a_image_is_not_its_own() {
        let data = Synthetic::train(1, 4);
        let images = Images::of(&data, &[0, 1, 2, 3], 40, Fit::Pad).unwrap();
        let inside = images.inside.as_ref().unwrap().values::<f32>();
        for (i, at) in images.places.iter().enumerate() {
            let own = inside[i * 4800..][..4800].iter().sum::<f32>();
            assert_eq!(own as usize, at.height * at.width * 3);
            let image = images.image(i).unwrap();
            assert_eq!((image.height, image.width), (at.height, at.width));
        }
        assert!(Images::of(&data, &[0], 40, Fit::Stretch).unwrap().inside.is_none());
        assert!(Images::of(&data, &[], 40, Fit::Pad).is_err());
    }

    #[test]
    fn rounded_to_bytes_it_stays_in_the_ball() {
        let at = Placement { height: 4, width: 4, top: 0, left: 0 };
        let origin: Vec<f32> = (0..48).map(|i| i as f32 * 0.0213).collect();
        let of = |values: &[f32]| Images::new(values.to_vec(), 4, vec![at]).unwrap();
        for levels in [1.0, 2.0, 8.0] {
            let ball = EpsBall::linf(levels / 255.0);
            for sign in [-1.0, 1.0] {
                let moved: Vec<f32> =
                    origin.iter().map(|o| (o + sign * ball.epsilon).clamp(0.0, 1.0)).collect();
                let rounded = of(&moved).rounded(&of(&origin), Some(ball)).unwrap();
                for (&x, &o) in rounded.values(0).iter().zip(&origin) {
                    assert!((x - o).abs() <= ball.epsilon + 1e-5, "{x} {o}");
                    assert!(((x * 255.0) - (x * 255.0).round()).abs() < 1e-4);
                }
            }
        }
    }
}
