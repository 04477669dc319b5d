//! Integrated gradients (Sundararajan, Taly and Yan, 2017): a logit's change, shared out among the pixels.
//!
//! On the straight way from a baseline x′, an image that says nothing, to the image x, with y the score:
//!
//! aᵢ = (xᵢ − x′ᵢ) · ∫₀¹ ∂y/∂xᵢ (x′ + t·(x − x′)) dt
//!
//! By the fundamental theorem of calculus Σ aᵢ = y(x) − y(x′): the attributions are *complete*. The integral
//! is a sum of so many steps; how far the two sides are apart says whether these were enough.

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
/// let shares = IntegratedGradients::from(black).attribute_within(0.01, &model, &image, &target)?;
/// assert_eq!(shares.attributions.shape()[..], [1, 16, 16, 3]);
/// assert!(shares.completeness_gap() < 0.01);
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
///
/// ```
/// use atrous::Tensor;
/// use atrous::explain::attribution::IntegratedAttributions;
///
/// let attributions = Tensor::from([[[[1.0f32], [0.5]]]]);
/// let (sum, baseline_score, score, steps) = (1.5, 1.0, 3.0, 50);
/// let shares = IntegratedAttributions { attributions, sum, baseline_score, score, steps };
/// assert_eq!(shares.convergence_delta(), -0.5); // of a change of 2
/// assert_eq!(shares.completeness_gap(), 0.25); // more steps are needed
/// ```
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
    ///
    /// ```
    /// # use atrous::explain::attribution::{IntegratedGradients, Rule, Target};
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("linear", "input", [1, 1, 2]);
    /// graph.chain(graph.input(), [Layer::Flatten, Layer::dense(1)])?;
    /// let mut model = Model::new(graph, 1);
    /// model.set("dense/kernel", Tensor::from([[3.0f32], [-1.0]]))?;
    /// let x = Tensor::from([[[[2.0f32, 5.0]]]]);
    /// // Of a sum of weights times values each value's share is its product, after any number of steps.
    /// let (baseline, rule) = (Tensor::zeros([1, 1, 1, 2]), Rule::default());
    /// let settings = IntegratedGradients { baseline, steps: 1, rule };
    /// let shares = settings.attribute(&model, &x, &Target::class(&model, 0)?)?;
    /// assert_eq!(shares.attributions.to_vec_f64(), [6.0, -5.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn attribute(
        &self,
        model: &Model,
        x: &Tensor,
        target: &Target,
    ) -> Result<IntegratedAttributions> {
        let shape = one_image(x)?;
        if self.baseline.shape() != x.shape() {
            return Err(Error::shape("baseline", x.shape(), self.baseline.shape()));
        }
        at_least_one("steps", self.steps)?;
        let model = for_inference(model)?;
        let (from, to) = (self.baseline.to_vec_f64(), x.to_vec_f64());
        let way: Vec<f64> = to.iter().zip(&from).map(|(to, from)| to - from).collect();
        let mut integral = vec![0.0; way.len()];
        for points in self.rule.points(self.steps).chunks(batch_size(&model)) {
            let at = |&(t, _): &(f64, f64)| from.iter().zip(&way).map(move |(from, way)| from + t * way);
            let images: Vec<f64> = points.iter().flat_map(at).collect();
            let (_, gradient) =
                gradients::by_images(&model, &images_for(&model, &images, shape)?, target)?;
            for (gradient, (_, weight)) in gradient.to_vec_f64().chunks_exact(way.len()).zip(points) {
                integral.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += weight * g);
            }
        }
        let shares: Vec<f64> = integral.iter().zip(&way).map(|(integral, way)| integral * way).collect();
        let ends = images_for(&model, &[from, to].concat(), shape)?;
        let ends = gradients::scores(&model, &ends, target)?;
        let attributions: Vec<f32> = shares.iter().map(|&share| share as f32).collect();
        Ok(IntegratedAttributions {
            attributions: Tensor::from_slice(&attributions, x.shape())?,
            sum: shares.iter().sum(),
            baseline_score: ends[0],
            score: ends[1],
            steps: self.steps,
        })
    }

    /// [`attribute`](Self::attribute) with twice the steps, again and again, until the completeness gap is
    /// at most this, 0.01 say; at most 16 times as many as set. Where attributions of either sign nearly
    /// cancel, so that the score hardly changes between baseline and image, that may not be enough: look at
    /// the gap of what comes.
    pub fn attribute_within(
        &self,
        gap: f64,
        model: &Model,
        x: &Tensor,
        target: &Target,
    ) -> Result<IntegratedAttributions> {
        let complete = |shares: &IntegratedAttributions| {
            shares.convergence_delta().abs() <= gap * (shares.score - shares.baseline_score).abs()
        };
        let mut shares = self.attribute(model, x, target)?;
        while !complete(&shares) && shares.steps < 16 * self.steps {
            let more = IntegratedGradients { steps: 2 * shares.steps, ..self.clone() };
            shares = more.attribute(model, x, target)?;
        }
        Ok(shares)
    }
}
