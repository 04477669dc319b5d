//! MobileNet v1 (Howard et al., 2017): depthwise separable convolutions, a 3×3 depthwise one that
//! filters each channel and a 1×1 one that mixes them.

use super::{Head, IMAGENET, add_head, dense};
use crate::activation::Activation;
use crate::error::Result;
use crate::nn::layers::Layer;
use crate::nn::{Graph, Id};
use crate::ops::Padding;

/// Filters and stride of the blocks 1 to 13.
const BLOCKS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// Images [side, side, 3] in −1..1 → class probabilities. The base has 3,228,864 parameters.
/// An error for a side that is too small, and for [`Head::ImageNet`] with other than 1000 classes.
///
/// ```
/// use atrous::models::{Head, mobilenet};
///
/// let graph = mobilenet(224, 20, Head::Pooled)?;
/// let base: u64 = graph.base().iter().map(|node| node.cost.parameters).sum();
/// assert_eq!((base, graph.cost().parameters - base), (3_228_864, 1024 * 20 + 20));
/// let imagenet = mobilenet(224, 1000, Head::ImageNet)?;
/// assert_eq!(imagenet.node(imagenet.output()).output_shape, [1000]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn mobilenet(side: usize, classes: usize, head: Head) -> Result<Graph> {
    let mut g = Graph::new("mobilenet", "input_1", [side, side, 3]);
    let normed = base(&mut g, BLOCKS.len())?;
    let features = g.add_named("conv_pw_13_relu", Layer::Activation(Activation::Relu6), &[normed])?;
    let notebook = [Layer::GlobalAveragePooling2D, dense(classes, Activation::Softmax)];
    let imagenet = [
        ("global_average_pooling2d", Layer::GlobalAveragePooling2D),
        ("reshape_1", Layer::Reshape([1, 1, 1024])),
        ("dropout", Layer::Dropout(0.001)),
        ("conv_preds", Layer::conv2d(IMAGENET, 1).with_padding(Padding::Same)),
        ("reshape_2", Layer::Flatten),
        ("predictions", Layer::Activation(Activation::Softmax)),
    ];
    add_head(&mut g, features, classes, head, &notebook, &imagenet)?;
    Ok(g)
}

/// The network up to the batch norm that ends the given block, before its activation.
pub(super) fn base(g: &mut Graph, blocks: usize) -> Result<Id> {
    let relu6 = Layer::Activation(Activation::Relu6);
    let norm = Layer::batch_normalization();
    let conv = Layer::conv2d(32, 3).with_stride(2).with_padding(Padding::Same).with_bias(false);
    let x = g.add_named("conv1", conv, &[g.input()])?;
    let x = g.add_named("conv1_bn", norm, &[x])?;
    let mut x = g.add_named("conv1_relu", relu6, &[x])?;
    for (i, (filters, stride)) in (1..).zip(BLOCKS).take(blocks) {
        if i > 1 {
            x = g.add_named(&format!("conv_pw_{}_relu", i - 1), relu6, &[x])?;
        }
        let mut depthwise = Layer::depthwise_conv2d();
        if stride == 2 {
            // Always bottom and right, whereas `same` looks at the size.
            let pad = Layer::ZeroPadding2D([[0, 1]; 2]);
            x = g.add_named(&format!("conv_pad_{i}"), pad, &[x])?;
            depthwise = depthwise.with_stride(2).with_padding(Padding::Valid);
        }
        x = g.add_named(&format!("conv_dw_{i}"), depthwise, &[x])?;
        x = g.add_named(&format!("conv_dw_{i}_bn"), norm, &[x])?;
        x = g.add_named(&format!("conv_dw_{i}_relu"), relu6, &[x])?;
        let pointwise = Layer::conv2d(filters, 1).with_padding(Padding::Same).with_bias(false);
        x = g.add_named(&format!("conv_pw_{i}"), pointwise, &[x])?;
        x = g.add_named(&format!("conv_pw_{i}_bn"), norm, &[x])?;
    }
    Ok(x)
}
