//! Projection on principal components: images without what clean images hardly have (Bhagoji et al.,
//! CISS 2018; Shaham et al., 2018).
//!
//! An image is cut into blocks of b×b pixels with their three channels, 3b² values. Over the blocks of
//! clean images there is a mean m and a covariance C = VΛVᵀ (`eigen.rs`); what is left of a block x is
//!
//! y = m + VₖVₖᵀ(x − m)
//!
//! with the k components of the most variance: low frequencies mostly, while perturbations are spread
//! over all. The projection P = VₖVₖᵀ is symmetric, so the gradient by x is P·g, exact: who knows the
//! defence attacks through it, in the space that is left (Carlini and Wagner, AISec 2017, found that to
//! be all it takes).
//!
//! Where b does not divide the side, the blocks along the right and the lower border are smaller. They
//! have projections of their own, made of the same statistics: the rows and columns of C that belong to
//! their pixels, and as many components as explain the share of variance that the k ones do. So the
//! whole is one symmetric projection, linear but for the mean, of any side; all components together
//! leave images as they are. What is left may lie a little outside of 0 to 1.

use super::eigen::{self, Eigen};
use super::{Transform, on_tape};
use crate::attack::Images;
use crate::backend::cpu::threads;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Larger blocks' covariance would take minutes to decompose.
const MOST: usize = 16;

/// How many components are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// This many, at least one.
    Components(usize),
    /// The fewest that explain this share of the variance, above 0; all of them where it is 1.
    Share(f64),
}

/// Sums over the blocks of clean images: what their mean and covariance are made of. Images come
/// batch by batch.
///
/// ```
/// use atrous::attack::Images;
/// use atrous::attack::defence::{CovarianceSums, Keep, Pca};
/// use atrous::prelude::*;
///
/// // Blocks of 2×2 of images of 8×8, batch by batch.
/// let mut sums = CovarianceSums::new(2)?;
/// for seed in 0..4 {
///     sums.add(&Images::whole(Tensor::rand([1, 8, 8, 3], seed)))?;
/// }
/// assert_eq!(sums.blocks(), 4 * 16);
/// let pca = Pca::of(&sums, 8, Keep::Components(5))?;
/// assert_eq!(pca.components(), 5);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct CovarianceSums {
    block: usize,
    blocks: usize,
    sum: Vec<f64>,
    /// Σ xxᵀ, all of it.
    products: Vec<f64>,
}

impl CovarianceSums {
    /// No blocks yet, of `block`×`block` pixels; an error where that is not 1 to 16.
    pub fn new(block: usize) -> Result<Self> {
        if !(1..=MOST).contains(&block) {
            return Err(Error::argument("pca", format!("expected blocks of 1 to {MOST}, got {block}")));
        }
        let n = 3 * block * block;
        Ok(CovarianceSums { block, blocks: 0, sum: vec![0.0; n], products: vec![0.0; n * n] })
    }

    /// Adds the whole blocks of images, from their upper left corner on. What is around an image does
    /// not count: blocks that reach into it are left out.
    pub fn add(&mut self, images: &Images) -> Result<()> {
        let (b, side) = (self.block, images.side());
        let n = self.sum.len();
        let mut all: Vec<f32> = Vec::new();
        for (i, at) in images.places.iter().enumerate() {
            let values = images.values(i);
            let first = |from: usize| from.div_ceil(b) * b;
            for top in (first(at.top)..).step_by(b).take_while(|top| top + b <= at.top + at.height) {
                let lefts = (first(at.left)..).step_by(b);
                for left in lefts.take_while(|left| left + b <= at.left + at.width) {
                    let rows = (top..top + b).map(|y| &values[(y * side + left) * 3..][..3 * b]);
                    rows.for_each(|row| all.extend_from_slice(row));
                }
            }
        }
        self.blocks += all.len() / n;
        for block in all.chunks_exact(n) {
            self.sum.iter_mut().zip(block).for_each(|(sum, &v)| *sum += v as f64);
        }
        threads::for_each_chunk(&mut self.products, n, |i, line| {
            for block in all.chunks_exact(n) {
                let of = block[i] as f64;
                line.iter_mut().zip(block).for_each(|(sum, &v)| *sum += of * v as f64);
            }
        });
        Ok(())
    }

    /// Blocks added so far.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| sum / self.blocks as f64).collect()
    }

    fn covariance(&self, mean: &[f64]) -> Vec<f64> {
        let rows = self.products.chunks_exact(mean.len()).zip(mean);
        let cell = |(sum, m): (&f64, f64)| sum / self.blocks as f64 - m;
        rows.flat_map(|(row, &a)| row.iter().zip(mean.iter().map(move |&b| a * b)).map(cell)).collect()
    }
}

/// The decomposition for blocks of one size.
struct Part {
    height: usize,
    width: usize,
    mean: Vec<f64>,
    eigen: Eigen,
}

impl Part {
    fn total(&self) -> f64 {
        self.eigen.values.iter().map(|v| v.max(0.0)).sum()
    }

    /// Shares of variance that the first one, two, … components explain; the last is 1.
    fn explained(&self) -> Vec<f64> {
        let total = self.total();
        let mut sum = 0.0;
        let mut shares: Vec<f64> = self
            .eigen
            .values
            .iter()
            .map(|v| {
                sum += v.max(0.0);
                if total > 0.0 { (sum / total).min(1.0) } else { 1.0 }
            })
            .collect();
        // Whatever rounding says.
        if let Some(last) = shares.last_mut() {
            *last = 1.0;
        }
        shares
    }

    fn fewest(&self, share: f64) -> usize {
        let explained = self.explained();
        explained.iter().position(|&e| e >= share).map_or(explained.len(), |i| i + 1)
    }
}

/// Principal components of the blocks of clean images, and how many of them are kept.
///
/// ```
/// use atrous::attack::Images;
/// use atrous::attack::defence::{Keep, Pca, Transform};
/// use atrous::prelude::*;
///
/// // Pixels of one colour, more or less of it: all their variance is along (1, 2, 2)/3.
/// let colour = Tensor::from([1.0f32, 2.0, 2.0]);
/// let x = (0.5 * &Tensor::rand([1, 8, 8, 1], 1) * colour)?;
/// let images = Images::whole(x.clone());
/// let pca = Pca::fit(&images, 1, Keep::Share(0.99))?;
/// assert_eq!(pca.components(), 1);
/// assert!(pca.explained()[0] > 0.9999);
/// let first = pca.component(0).unwrap();
/// assert!((first[0] - 1.0 / 3.0).abs() < 1e-6 && (first[1] - 2.0 / 3.0).abs() < 1e-6);
///
/// // What they do not have is taken away: here red alone, of which 1/9 is along that colour.
/// let red = Tensor::from([0.9f32, 0.0, 0.0]);
/// let change = (pca.apply(&(&x + &red)?)? - &x)?.to_vec_f64();
/// assert!((change[0] - 0.1).abs() < 1e-5 && (change[1] - 0.2).abs() < 1e-5);
/// // With all three components nothing is.
/// let all = pca.keeping(Keep::Components(3))?;
/// let change = (all.apply(&(&x + &red)?)? - &x)?.to_vec_f64();
/// assert!((change[0] - 0.9).abs() < 1e-5 && change[1].abs() < 1e-5);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Pca {
    block: usize,
    side: usize,
    /// For whole blocks, then for those at the right, the lower border and the corner, where there are
    /// such.
    parts: Arc<Vec<Part>>,
    /// Components of each part.
    kept: Vec<usize>,
}

impl Pca {
    /// The components of clean images, for images of the same side; errors as in [`CovarianceSums::new`],
    /// [`Pca::of`] and [`Pca::keeping`].
    pub fn fit(images: &Images, block: usize, keep: Keep) -> Result<Self> {
        let mut moments = CovarianceSums::new(block)?;
        moments.add(images)?;
        Self::of(&moments, images.side(), keep)
    }

    /// The components of summed blocks, for images of the given side. An error where there were fewer
    /// than two blocks, or the side is less than a block's.
    pub fn of(moments: &CovarianceSums, side: usize, keep: Keep) -> Result<Self> {
        let block = moments.block;
        if moments.blocks < 2 || side < block {
            let message = format!(
                "expected two blocks of {block}×{block} at least and pictures no smaller than one, got {} \
                 blocks and a side of {side}",
                moments.blocks
            );
            return Err(Error::argument("pca", message));
        }
        let mean = moments.mean();
        let covariance = moments.covariance(&mean);
        let rest = side % block;
        let sizes = [(block, block), (block, rest), (rest, block), (rest, rest)];
        let all = mean.len();
        let part = |(height, width): (usize, usize)| -> Result<Part> {
            // The block's values that such a part has.
            let own: Vec<usize> =
                (0..height).flat_map(|y| (0..width * 3).map(move |x| y * block * 3 + x)).collect();
            let cells = own.iter().flat_map(|&i| own.iter().map(move |&j| i * all + j));
            let matrix: Vec<f64> = cells.map(|cell| covariance[cell]).collect();
            let eigen = eigen::symmetric(&matrix, own.len())?;
            Ok(Part { height, width, mean: own.iter().map(|&i| mean[i]).collect(), eigen })
        };
        let parts = sizes.into_iter().filter(|&(h, w)| h > 0 && w > 0).map(part);
        let parts: Arc<Vec<Part>> = Arc::new(parts.collect::<Result<_>>()?);
        Pca { block, side, parts, kept: Vec::new() }.keeping(keep)
    }

    /// These components with another number of them kept: nothing is fitted anew. An error where there
    /// are not that many.
    pub fn keeping(&self, keep: Keep) -> Result<Self> {
        let whole = &self.parts[0];
        let all = whole.mean.len();
        let first = match keep {
            Keep::Components(k) if (1..=all).contains(&k) => k,
            Keep::Share(1.0) => all,
            Keep::Share(share) if share > 0.0 && share < 1.0 => whole.fewest(share),
            _ => {
                let message =
                    format!("expected 1 to {all} components, or a share above 0 to 1, got {keep:?}");
                return Err(Error::argument("pca", message));
            }
        };
        let share = whole.explained()[first - 1];
        let others = self.parts[1..].iter().map(|part| match first == all {
            true => part.mean.len(),
            false => part.fewest(share),
        });
        let kept = [first].into_iter().chain(others).collect();
        Ok(Pca { kept, ..self.clone() })
    }

    /// How many components of a whole block are kept.
    pub fn components(&self) -> usize {
        self.kept[0]
    }

    /// The shares of variance that the first one, two, … components of a whole block explain.
    pub fn explained(&self) -> Vec<f64> {
        self.parts[0].explained()
    }

    /// The component number `i` of a whole block, [block, block, 3], of length 1; None where there is
    /// none.
    pub fn component(&self, i: usize) -> Option<&[f64]> {
        let part = &self.parts[0];
        part.eigen.vectors.chunks_exact(part.mean.len()).nth(i)
    }

    /// Projects values [N, side, side, 3]; without the mean where they are a gradient.
    fn project(&self, x: &[f32], centred: bool) -> Vec<f32> {
        let (side, b) = (self.side, self.block);
        let each = side * side * 3;
        let mut y = vec![0.0; x.len()];
        threads::for_each_chunk(&mut y, each, |i, y| {
            let x = &x[i * each..][..each];
            for top in (0..side).step_by(b) {
                for left in (0..side).step_by(b) {
                    self.project_block(x, y, top, left, centred);
                }
            }
        });
        y
    }

    fn project_block(&self, x: &[f32], y: &mut [f32], top: usize, left: usize, centred: bool) {
        let size = |from: usize| self.block.min(self.side - from);
        let (height, width) = (size(top), size(left));
        let mut parts = self.parts.iter().zip(&self.kept);
        let own = parts.find(|(part, _)| (part.height, part.width) == (height, width));
        let Some((part, &kept)) = own else { return };
        let row = |r: usize| ((top + r) * self.side + left) * 3;
        let mean = |i: usize| if centred { part.mean[i] } else { 0.0 };
        let line = width * 3;
        let values = (0..height).flat_map(|r| &x[row(r)..][..line]).enumerate();
        let values: Vec<f64> = values.map(|(i, &v)| v as f64 - mean(i)).collect();
        let mut left_over: Vec<f64> = (0..values.len()).map(mean).collect();
        for component in part.eigen.vectors.chunks_exact(values.len()).take(kept) {
            let weight: f64 = component.iter().zip(&values).map(|(c, v)| c * v).sum();
            left_over.iter_mut().zip(component).for_each(|(y, c)| *y += weight * c);
        }
        for (r, values) in left_over.chunks_exact(line).enumerate() {
            let out = &mut y[row(r)..][..line];
            out.iter_mut().zip(values).for_each(|(y, &v)| *y = v as f32);
        }
    }
}

impl Transform for Pca {
    fn name(&self) -> String {
        format!("pca{}", self.components())
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let side = self.side;
        let &[_, h, w, _] = &*x.shape() else {
            return Err(Error::shape("pca", "pictures [N, H, W, 3]", x.shape()));
        };
        if (h, w) != (side, side) {
            return Err(Error::shape("pca", format!("pictures [N, {side}, {side}, 3]"), x.shape()));
        }
        on_tape("pca", x, |x, _| {
            let own = self.clone();
            (self.project(x, true), move |g: &[f32]| own.project(g, false))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy::{check_gradient, random};
    use super::*;
    use crate::attack::Norm;
    use crate::data::image::Fit;
    use crate::data::synthetic::Synthetic;

    fn images(side: usize, fit: Fit) -> Images {
        let indices: Vec<usize> = (0..12).collect();
        Images::of(&Synthetic::train(4, 12), &indices, side, fit).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        Norm::Linf.of(a.values(), b.values())
    }

    #[test]
    fn all_components_leave_images_as_they_are_whatever_their_side() {
        for side in [24, 22, 17] {
            let clean = images(side, Fit::Stretch);
            let one = Pca::fit(&clean, 8, Keep::Components(1)).unwrap();
            for keep in [Keep::Components(192), Keep::Share(1.0)] {
                let pca = one.keeping(keep).unwrap();
                let x = random([2, side, side, 3], 5);
                let y = pca.apply(&x).unwrap();
                assert!(pca.components() == 192 && distance(&x, &y) < 1e-6, "{side} {keep:?}");
            }
        }
    }

    #[test]
    fn projected_twice_is_projected_once() {
        for side in [16, 22] {
            let pca = Pca::fit(&images(side, Fit::Stretch), 8, Keep::Components(20)).unwrap();
            let x = random([2, side, side, 3], 6);
            let y = pca.apply(&x).unwrap();
            assert!(distance(&x, &y) > 0.1);
            assert!(distance(&y, &pca.apply(&y).unwrap()) < 1e-6);
        }
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        for side in [8, 14] {
            let pca = Pca::fit(&images(side, Fit::Stretch), 8, Keep::Components(10)).unwrap();
            check_gradient(&random([1, side, side, 3], 7), 0.25, 1e-5, |x| pca.apply(x));
        }
    }

    #[test]
    fn it_keeps_clean_images_and_takes_noise_away() {
        let clean = images(32, Fit::Stretch);
        let pca = Pca::fit(&clean, 8, Keep::Share(0.95)).unwrap();
        let (k, explained) = (pca.components(), pca.explained());
        assert!(explained[k - 1] >= 0.95 && (k == 1 || explained[k - 2] < 0.95));
        assert!(k < 150, "{k} of 192");
        let energy = |x: &Tensor| x.values::<f32>().iter().map(|v| (v * v) as f64).sum::<f64>();
        let (x, n) = (&clean.x, random([12, 32, 32, 3], 8));
        let n = crate::ops::scale(&n, 0.1).unwrap();
        let with = pca.apply(&crate::ops::add(x, &n).unwrap()).unwrap();
        let noise = crate::ops::sub(&with, &pca.apply(x).unwrap()).unwrap();
        let (mean, centred) = (0.05f64.powi(2) * n.shape().elements() as f64, energy(&n));
        // Of noise about its mean (a component of its own) k in 192 is left.
        let left = (energy(&noise) - mean) / (centred - mean);
        assert!(left < k as f64 / 192.0 + 0.05, "{left} with {k}");
        let lost = energy(&crate::ops::sub(x, &pca.apply(x).unwrap()).unwrap());
        let variance: f64 = pca.parts[0].total() * 12.0 * 16.0;
        assert!((lost - (1.0 - explained[k - 1]) * variance).abs() < 1e-3 * variance);
        // Fewer components, the same fit.
        let fewer = pca.keeping(Keep::Components(3)).unwrap();
        assert_eq!((fewer.components(), fewer.name().as_str()), (3, "pca3"));
        let length: f64 = fewer.component(2).unwrap().iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-12 && fewer.component(192).is_none());
    }

    #[test]
    fn batches_add_up_and_what_is_around_a_image_does_not_count() {
        let all = images(40, Fit::Pad);
        let mut whole_of = CovarianceSums::new(8).unwrap();
        whole_of.add(&all).unwrap();
        let mut parts = CovarianceSums::new(8).unwrap();
        for i in 0..all.len() {
            let one = Images {
                x: Tensor::from_slice(all.values(i), [1, 40, 40, 3]).unwrap(),
                inside: None,
                places: vec![all.places[i]],
            };
            parts.add(&one).unwrap();
        }
        assert!(whole_of.blocks() == parts.blocks() && parts.blocks() < 12 * 25);
        let near = whole_of.products.iter().zip(&parts.products).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let clean = images(16, Fit::Stretch);
        let error = |keep| Pca::fit(&clean, 8, keep).map(drop).unwrap_err().to_string();
        assert!(error(Keep::Components(0)).contains("1 to 192"));
        assert!(error(Keep::Components(193)).contains("193"));
        assert!(error(Keep::Share(1.5)).contains("1.5"));
        assert!(CovarianceSums::new(0).is_err() && CovarianceSums::new(17).is_err());
        let none = Pca::of(&CovarianceSums::new(8).unwrap(), 16, Keep::Components(1)).map(drop);
        assert!(none.unwrap_err().to_string().contains("got 0 blocks"));
        let pca = Pca::fit(&clean, 8, Keep::Components(1)).unwrap();
        assert!(pca.apply(&random([1, 8, 8, 3], 1)).unwrap_err().to_string().contains("16"));
        assert_eq!(Images::whole(random([1, 8, 8, 3], 1)).len(), 1);
    }
}
