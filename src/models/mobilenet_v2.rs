//! MobileNetV2 (Sandler et al., 2018): inverted residuals, each widening to six times as many
//! channels, filtering them depthwise and narrowing again without an activation.

use super::{Head, add_head, dense, pooled_imagenet};
use crate::activation::Activation;
use crate::error::Result;
use crate::nn::layers::{BatchNormalization, Layer};
use crate::nn::{Graph, Id};
use crate::ops::Padding;

const BATCH_NORM: Layer =
    Layer::BatchNormalization(BatchNormalization { epsilon: 1e-3, momentum: 0.999 });
const RELU6: Layer = Layer::Activation(Activation::Relu6);

/// Output channels and stride of the blocks 1 to 16.
const BLOCKS: [(usize, usize); 16] = [
    (24, 2),
    (24, 1),
    (32, 2),
    (32, 1),
    (32, 1),
    (64, 2),
    (64, 1),
    (64, 1),
    (64, 1),
    (96, 1),
    (96, 1),
    (96, 1),
    (160, 2),
    (160, 1),
    (160, 1),
    (320, 1),
];

/// Images [side, side, 3] in −1..1 → class probabilities. The base has 2,257,984 parameters.
/// An error for [`Head::ImageNet`] with other than 1000 classes.
///
/// ```
/// use atrous::models::{Head, mobilenet_v2};
///
/// let graph = mobilenet_v2(256, 20, Head::Pooled)?;
/// let base: u64 = graph.base().iter().map(|node| node.cost.parameters).sum();
/// assert_eq!((base, graph.cost().parameters - base), (2_257_984, 1280 * 20 + 20));
/// assert!(mobilenet_v2(224, 1000, Head::ImageNet).is_ok() && mobilenet_v2(224, 20, Head::ImageNet).is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn mobilenet_v2(side: usize, classes: usize, head: Head) -> Result<Graph> {
    let mut g = Graph::new("mobilenetv2", "input_1", [side, side, 3]);
    let features = base(&mut g)?;
    let notebook = [Layer::GlobalAveragePooling2D, Layer::Flatten, dense(classes, Activation::Softmax)];
    let imagenet = pooled_imagenet("global_average_pooling2d");
    add_head(&mut g, features, classes, head, &notebook, &imagenet)?;
    Ok(g)
}

fn base(g: &mut Graph) -> Result<Id> {
    let conv = Layer::conv2d(32, 3).with_stride(2).with_padding(Padding::Same).with_bias(false);
    let x = g.add_named("Conv1", conv, &[g.input()])?;
    let x = g.add_named("bn_Conv1", BATCH_NORM, &[x])?;
    let x = g.add_named("Conv1_relu", RELU6, &[x])?;
    let mut x = filter_and_project(g, x, "expanded_conv", 16, 1)?;
    for (i, (filters, stride)) in (1..).zip(BLOCKS) {
        let name = format!("block_{i}");
        let channels = g.node(x).output_shape[2];
        let y = g.add_named(&format!("{name}_expand"), pointwise(6 * channels), &[x])?;
        let y = g.add_named(&format!("{name}_expand_BN"), BATCH_NORM, &[y])?;
        let y = g.add_named(&format!("{name}_expand_relu"), RELU6, &[y])?;
        let y = filter_and_project(g, y, &name, filters, stride)?;
        x = match stride == 1 && channels == filters {
            true => g.add_named(&format!("{name}_add"), Layer::Add, &[x, y])?,
            false => y,
        };
    }
    let x = g.add_named("Conv_1", Layer::conv2d(1280, 1).with_bias(false), &[x])?;
    let x = g.add_named("Conv_1_bn", BATCH_NORM, &[x])?;
    g.add_named("out_relu", RELU6, &[x])
}

fn pointwise(filters: usize) -> Layer {
    Layer::conv2d(filters, 1).with_padding(Padding::Same).with_bias(false)
}

/// The second half of a block: depthwise, then 1×1 to `filters` without an activation.
fn filter_and_project(
    g: &mut Graph,
    mut x: Id,
    name: &str,
    filters: usize,
    stride: usize,
) -> Result<Id> {
    let mut depthwise = Layer::depthwise_conv2d();
    if stride == 2 {
        // One cell at the bottom and right, and one at the top and left where the size is odd.
        let pad = |n: usize| [n % 2, 1];
        let [height, width] = [g.node(x).output_shape[0], g.node(x).output_shape[1]];
        let pad = Layer::ZeroPadding2D([pad(height), pad(width)]);
        x = g.add_named(&format!("{name}_pad"), pad, &[x])?;
        depthwise = depthwise.with_stride(2).with_padding(Padding::Valid);
    }
    let x = g.add_named(&format!("{name}_depthwise"), depthwise, &[x])?;
    let x = g.add_named(&format!("{name}_depthwise_BN"), BATCH_NORM, &[x])?;
    let x = g.add_named(&format!("{name}_depthwise_relu"), RELU6, &[x])?;
    let x = g.add_named(&format!("{name}_project"), pointwise(filters), &[x])?;
    g.add_named(&format!("{name}_project_BN"), BATCH_NORM, &[x])
}
