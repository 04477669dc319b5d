//! Integrated gradients (Sundararajan, Taly and Yan, 2017): a logit's change, shared out among the pixels.
//!
//! On the straight way from a baseline x′, an image that says nothing, to the image x, with y the score:
//!
//! aᵢ = (xᵢ − x′ᵢ) · ∫₀¹ ∂y/∂xᵢ (x′ + t·(x − x′)) dt
//!
//! By the fundamental theorem of calculus Σ aᵢ = y(x) − y(x′): the attributions are *complete*. The integral
//! is a sum of so many steps; how far the two sides are apart says whether these were enough.
//!
//! Here the steps are where a rule has them, the same for every image, as in Captum;
//! [`AdaptiveIntegratedGradients`](super::AdaptiveIntegratedGradients) sets them where the score changes.

use super::gradients;
use super::{Rule, Target, at_least_one, batch_size, images_for, one_image};
use crate::error::{Error, Result};
use crate::nn::{Model, for_inference};
use crate::tensor::Tensor;

/// The settings of integrated gradients.
///
/// ```
/// use atrous::explain::attribution::{IntegratedGradients, Target};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// let features = Layer::conv2d(4, 3).with_activation(Activation::Relu);
/// graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
/// let model = Model::new(graph, 1);
/// let image = Tensor::rand([1, 16, 16, 3], 7);
///
/// let black = Tensor::zeros([1, 16, 16, 3]);
/// let target = Target::class(&model, 0)?;
/// let shares = IntegratedGradients::from(black).attribute(&model, &image, &target)?;
/// assert_eq!((&shares.attributions.shape()[..], shares.steps), (&[1, 16, 16, 3][..], 50));
/// assert!(shares.completeness_gap() < 0.05);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct IntegratedGradients {
    /// x′, [1, H, W, C] in the network's scale: an image from which nothing can be seen. Black is −1 where
    /// pixels are −1 to 1, and what is black in the image itself then has no share.
    pub baseline: Tensor,
    /// Gradients that are computed, at least 1; 50 by default, as in Captum.
    pub steps: usize,
    /// Where on the way.
    pub rule: Rule,
}

/// Each value's share of a score's change.
#[derive(Clone)]
pub struct IntegratedAttributions {
    /// [1, H, W, C]
    pub attributions: Tensor,
    /// The sum of them, in f64.
    pub sum: f64,
    /// y(x′)
    pub baseline_score: f64,
    /// y(x)
    pub score: f64,
    /// How many gradients were summed.
    pub steps: usize,
}

impl IntegratedAttributions {
    /// Σ aᵢ − (y(x) − y(x′)), in units of the logits: Captum's convergence delta.
    pub fn convergence_delta(&self) -> f64 {
        self.sum - (self.score - self.baseline_score)
    }

    /// The size of [`convergence_delta`](Self::convergence_delta) as a share of the score's change: more
    /// steps make it smaller. NaN where both are 0.
    pub fn completeness_gap(&self) -> f64 {
        self.convergence_delta().abs() / (self.score - self.baseline_score).abs()
    }
}

/// Captum's settings, from this baseline.
impl From<Tensor> for IntegratedGradients {
    fn from(baseline: Tensor) -> Self {
        IntegratedGradients { baseline, steps: 50, rule: Rule::default() }
    }
}

impl IntegratedGradients {
    /// The shares of one image [1, H, W, C]. An error for a baseline of another shape, no steps, and what
    /// is not finite.
    pub fn attribute(
        &self,
        model: &Model,
        x: &Tensor,
        target: &Target,
    ) -> Result<IntegratedAttributions> {
        at_least_one("steps", self.steps)?;
        let line = Line::new(&self.baseline, x, model, target)?;
        let mut integral = vec![0.0; line.way.len()];
        for points in self.rule.points(self.steps).chunks(line.batch()) {
            let (places, weights): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
            let (_, gradients) = line.gradients(&places)?;
            for (gradient, weight) in gradients.chunks_exact(line.way.len()).zip(weights) {
                integral.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += weight * g);
            }
        }
        line.shares(&integral, line.scores_of_ends()?, self.steps)
    }
}

/// The straight way from a baseline to an image, and a network that is asked on it.
pub(super) struct Line<'a> {
    model: Model,
    target: &'a Target,
    /// Height, width and channels.
    shape: [usize; 3],
    /// x′
    from: Vec<f64>,
    /// x − x′
    pub way: Vec<f64>,
}

impl<'a> Line<'a> {
    pub fn new(baseline: &Tensor, x: &Tensor, model: &Model, target: &'a Target) -> Result<Self> {
        let shape = one_image(x)?;
        if baseline.shape() != x.shape() {
            return Err(Error::shape("baseline", x.shape(), baseline.shape()));
        }
        let from = baseline.to_vec_f64();
        let way = x.to_vec_f64().iter().zip(&from).map(|(to, from)| to - from).collect();
        Ok(Line { model: for_inference(model)?, target, shape, from, way })
    }

    /// How many points of the way are gone through together.
    pub fn batch(&self) -> usize {
        batch_size(&self.model)
    }

    /// The images at t = 0 (the baseline) to 1 (the image).
    fn images(&self, places: &[f64]) -> Result<Tensor> {
        let at = |&t: &f64| self.from.iter().zip(&self.way).map(move |(from, way)| from + t * way);
        let values: Vec<f64> = places.iter().flat_map(at).collect();
        images_for(&self.model, &values, self.shape)
    }

    /// The scores at some places of the way, and their gradients by the images, one after the other.
    pub fn gradients(&self, places: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
        let (scores, gradients) = gradients::by_images(&self.model, &self.images(places)?, self.target)?;
        Ok((scores, gradients.to_vec_f64()))
    }

    fn scores_of_ends(&self) -> Result<[f64; 2]> {
        let scores = gradients::scores(&self.model, &self.images(&[0.0, 1.0])?, self.target)?;
        Ok([scores[0], scores[1]])
    }

    /// Each value's share: its way times the mean gradient on it.
    pub fn shares(
        &self,
        mean: &[f64],
        [baseline_score, score]: [f64; 2],
        steps: usize,
    ) -> Result<IntegratedAttributions> {
        let shares: Vec<f64> = mean.iter().zip(&self.way).map(|(mean, way)| mean * way).collect();
        let [h, w, c] = self.shape;
        let attributions: Vec<f32> = shares.iter().map(|&share| share as f32).collect();
        Ok(IntegratedAttributions {
            attributions: Tensor::from_slice(&attributions, [1, h, w, c])?,
            sum: shares.iter().sum(),
            baseline_score,
            score,
            steps,
        })
    }
}
