//! Grad-CAM (Selvaraju et al., 2017): where the channels that speak for a class are active.
//!
//! With A the feature map [h, w, K] of a layer and y the score: αₖ = mean over places of ∂y/∂Aₖ, and the map
//! is Σₖ αₖ·Aₖ. What is above 0 speaks for the class; the paper shows that part alone (a ReLU). It is as
//! coarse as the layer.

use super::{Target, gradients, one_image};
use crate::error::{Error, Result};
use crate::explain::layers::feature_map;
use crate::nn::layers::Layer;
use crate::nn::{Graph, Model};
use crate::ops::{Method, relu, resize};
use crate::tensor::Tensor;

/// The settings of Grad-CAM.
///
/// ```
/// use atrous::explain::attribution::{GradCam, Target};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// let features = Layer::conv2d(4, 3).with_activation(Activation::Relu);
/// graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
/// let model = Model::new(graph, 1);
/// let image = Tensor::rand([1, 16, 16, 3], 7);
///
/// let map = GradCam::default().attribute(&model, &image, &Target::class(&model, 0)?)?;
/// assert_eq!((map.layer.as_str(), &map.attributions.shape()[..]), ("conv2d", &[14, 14][..]));
/// assert_eq!(map.resized(16, 16)?.shape()[..], [16, 16]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GradCam {
    /// The layer whose feature map is looked at, by name; None: the last convolution's
    /// ([`last_feature_map`]).
    pub layer: Option<String>,
}

/// What Grad-CAM found.
///
/// [`GradCam`] has an example.
#[derive(Clone)]
pub struct GradCamMap {
    /// The layer it is of.
    pub layer: String,
    /// α, `[channels]`: how much each channel speaks for the class where it is active.
    pub weights: Tensor,
    /// [h, w] of the layer, before the ReLU: below 0 is what speaks against the class.
    pub attributions: Tensor,
}

impl GradCam {
    /// The map of one image [1, H, W, C]. An error for a layer that there is not, that makes no feature map,
    /// or that the target does not depend on.
    pub fn attribute(&self, model: &Model, x: &Tensor, target: &Target) -> Result<GradCamMap> {
        one_image(x)?;
        let layer = match &self.layer {
            Some(layer) => layer.clone(),
            None => last_feature_map(&model.graph)?,
        };
        let [h, w, channels] = feature_map(&model.graph, &layer)?;
        let (activation, gradient) = gradients::by_layer(model, x, target, &layer)?;
        let mut weights = vec![0.0; channels];
        for place in gradient.to_vec_f64().chunks_exact(channels) {
            weights.iter_mut().zip(place).for_each(|(weight, g)| *weight += g / (h * w) as f64);
        }
        let weighted =
            |place: &[f64]| place.iter().zip(&weights).map(|(a, w)| a * w).sum::<f64>() as f32;
        let map: Vec<f32> = activation.to_vec_f64().chunks_exact(channels).map(weighted).collect();
        let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
        Ok(GradCamMap {
            layer,
            weights: Tensor::from_slice(&weights, [channels])?,
            attributions: Tensor::from_slice(&map, [h, w])?,
        })
    }
}

impl GradCamMap {
    /// The paper's map at an image's size: what speaks for the class, [height, width], bilinear.
    pub fn resized(&self, height: usize, width: usize) -> Result<Tensor> {
        let [h, w] = [self.attributions.shape()[0], self.attributions.shape()[1]];
        let map = relu(&self.attributions.reshape([1, h, w, 1])?)?;
        resize(&map, height, width, Method::Bilinear)?.reshape([height, width])
    }
}

/// The layer that Grad-CAM looks at where none is named: the last convolution whose output is an image of
/// more than one pixel, with the batch norm, sum and activation that follow it; in a network that segments,
/// the one before the convolution that makes the logits. An error where there is no such convolution.
///
/// ```
/// use atrous::explain::attribution::last_feature_map;
/// use atrous::models::{Head, mobilenet};
///
/// assert_eq!(last_feature_map(&mobilenet(64, 20, Head::Pooled)?)?, "conv_pw_13_relu");
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn last_feature_map(graph: &Graph) -> Result<String> {
    let nodes = graph.nodes();
    let convolves = |layer: &Layer| matches!(layer, Layer::Conv2D(_) | Layer::DepthwiseConv2D(_));
    let large = |shape: &[usize]| matches!(shape, &[h, w, _] if h * w > 1);
    let segments = large(&nodes[nodes.len() - 1].output_shape);
    let convolutions = nodes.iter().filter(|node| convolves(&node.layer) && large(&node.output_shape));
    let Some(mut last) = convolutions.rev().nth(segments as usize) else {
        let message = format!("`{}` has no convolution whose output is a feature map", graph.name);
        return Err(Error::argument("layer", message));
    };
    loop {
        let reads = |id: &crate::nn::Id| graph.node(*id).name == last.name;
        let mut readers = nodes.iter().filter(|node| node.inputs.iter().any(reads));
        last = match (readers.next(), readers.next()) {
            (Some(next), None) if belongs_to_a_convolution(&next.layer) => next,
            _ => return Ok(last.name.clone()),
        };
    }
}

fn belongs_to_a_convolution(layer: &Layer) -> bool {
    matches!(layer, Layer::BatchNormalization(_) | Layer::Activation(_) | Layer::Add)
}
