//! DeepLabV3+ (Chen et al., 2018) on MobileNet v1: an atrous spatial pyramid on features at 1/16 of
//! the images' size, and a decoder that sharpens its answer with features at 1/4.

use super::mobilenet;
use crate::activation::Activation;
use crate::error::{Error, Result};
use crate::nn::layers::{Initializer, Layer};
use crate::nn::{Graph, Id};
use crate::ops::Padding;

/// Images [side, side, 3] in −1..1 → logits [side, side, classes], in Keras' order of layers
/// (the rewrites make it cheap: [`crate::nn::classify_before_upsampling`]). 7,067,029 parameters
/// with 21 classes. An error for a side that is no multiple of 16.
///
/// ```
/// use atrous::models::deeplab_v3_plus;
///
/// let graph = deeplab_v3_plus(96, 21)?;
/// assert_eq!(graph.cost().parameters, 7_067_029);
/// assert_eq!(graph.node(graph.output()).output_shape, [96, 96, 21]);
/// assert!(deeplab_v3_plus(100, 21).is_err()); // no multiple of 16
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn deeplab_v3_plus(side: usize, classes: usize) -> Result<Graph> {
    if side == 0 || !side.is_multiple_of(16) {
        let message = format!("`deeplabv3plus` takes sides that are multiples of 16, not {side}");
        return Err(Error::argument("size", message));
    }
    let mut graph = Graph::new("deeplabv3plus", "input_1", [side, side, 3]);
    let g = &mut graph;
    let high = mobilenet::base(g, 11)?; // both features are taken before the activation
    let low = find(g, "conv_pw_3_bn")?;
    g.end_base();
    let cells = side / 16;

    // The pyramid. Convolutions are created in this order, which gives their names.
    let pooled = g.add(Layer::average_pooling2d(cells), &[high])?;
    let he = |layer: Layer| layer.with_padding(Padding::Same).with_initializer(Initializer::HeNormal);
    let block = |filters, kernel| he(Layer::conv2d(filters, kernel)).with_bias(false);
    let pooled = convolution_block(g, pooled, he(Layer::conv2d(256, 1)))?;
    let pooled = g.add(Layer::UpSampling2D([cells; 2]), &[pooled])?;
    let mut branches = vec![pooled, convolution_block(g, high, block(256, 1))?];
    for dilation in [6, 12, 18] {
        branches.push(convolution_block(g, high, block(256, 3).with_dilation(dilation))?);
    }
    let pyramid = g.add(Layer::Concatenate, &branches)?;
    let pyramid = convolution_block(g, pyramid, block(256, 1))?;

    // The decoder.
    let pyramid = g.add(Layer::UpSampling2D([4; 2]), &[pyramid])?;
    let low = convolution_block(g, low, block(48, 1))?;
    let x = g.add(Layer::Concatenate, &[pyramid, low])?;
    let x = convolution_block(g, x, block(256, 3))?;
    let x = convolution_block(g, x, block(256, 3))?;
    let x = g.add(Layer::UpSampling2D([4; 2]), &[x])?;
    g.add(Layer::conv2d(classes, 1).with_padding(Padding::Same), &[x])?;
    Ok(graph)
}

fn convolution_block(g: &mut Graph, x: Id, conv: Layer) -> Result<Id> {
    let x = g.add(conv, &[x])?;
    let x = g.add(Layer::batch_normalization(), &[x])?;
    // Keras' functional graph names a bare `tf.nn.relu` so.
    g.add_as("tf.nn.relu", Layer::Activation(Activation::Relu), &[x])
}

fn find(g: &Graph, name: &str) -> Result<Id> {
    g.find(name).ok_or_else(|| Error::argument("graph", format!("there is no layer `{name}`")))
}
