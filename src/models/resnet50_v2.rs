//! ResNet50V2 (He et al., "Identity Mappings in Deep Residual Networks", 2016), as Keras has it:
//! batch norm and ReLU in front of the convolutions, and the stride in the *last* block of a stack.

use super::{Head, add_head, dense, pooled_imagenet};
use crate::activation::Activation;
use crate::error::Result;
use crate::nn::layers::{BatchNormalization, Layer};
use crate::nn::{Graph, Id};

const BATCH_NORM: Layer =
    Layer::BatchNormalization(BatchNormalization { epsilon: 1.001e-5, momentum: 0.99 });
const RELU: Layer = Layer::Activation(Activation::Relu);

/// Images [side, side, 3] in −1..1 → class probabilities. The base has 23,564,800 parameters;
/// with the notebook's head at 224 and 20 classes 75,218,452. An error for [`Head::ImageNet`] with other than
/// 1000 classes.
///
/// ```
/// use atrous::models::{Head, resnet50_v2};
///
/// assert_eq!(resnet50_v2(224, 20, Head::Notebook)?.cost().parameters, 75_218_452);
/// let pooled = resnet50_v2(224, 20, Head::Pooled)?; // a head of one layer, on the same base
/// assert_eq!(pooled.cost().parameters, 23_564_800 + 2048 * 20 + 20);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn resnet50_v2(side: usize, classes: usize, head: Head) -> Result<Graph> {
    let mut g = Graph::new("resnet50v2", "input_1", [side, side, 3]);
    let features = base(&mut g)?;
    let notebook = [
        Layer::Flatten, // 100,352 at 224
        dense(512, Activation::Relu),
        Layer::Dropout(0.3),
        dense(512, Activation::Relu),
        Layer::Dropout(0.3),
        dense(classes, Activation::Sigmoid),
    ];
    let imagenet = pooled_imagenet("avg_pool");
    add_head(&mut g, features, classes, head, &notebook, &imagenet)?;
    Ok(g)
}

fn base(g: &mut Graph) -> Result<Id> {
    let x = g.input();
    let x = g.add_named("conv1_pad", Layer::ZeroPadding2D([[3; 2]; 2]), &[x])?;
    let x = g.add_named("conv1_conv", Layer::conv2d(64, 7).with_stride(2), &[x])?; // 112
    let x = g.add_named("pool1_pad", Layer::ZeroPadding2D([[1; 2]; 2]), &[x])?;
    let mut x = g.add_named("pool1_pool", Layer::max_pooling2d(3).with_stride(2), &[x])?; // 56
    let stacks = [(64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)];
    for (stack, (filters, blocks, stride)) in (2..).zip(stacks) {
        for block in 1..=blocks {
            let name = format!("conv{stack}_block{block}");
            let stride = if block == blocks { stride } else { 1 };
            x = bottleneck(g, x, &name, filters, stride, block == 1)?;
        }
    }
    let x = g.add_named("post_bn", BATCH_NORM, &[x])?;
    g.add_named("post_relu", RELU, &[x])
}

/// 1×1 down to `filters`, 3×3, 1×1 up to four times as many, added to a shortcut: a 1×1 convolution
/// of the activated input in a stack's first block, elsewhere the input itself.
fn bottleneck(
    g: &mut Graph,
    x: Id,
    name: &str,
    filters: usize,
    stride: usize,
    project: bool,
) -> Result<Id> {
    let named = |part: &str| format!("{name}_{part}");
    let wide = Layer::conv2d(4 * filters, 1);
    let pre = g.add_named(&named("preact_bn"), BATCH_NORM, &[x])?;
    let pre = g.add_named(&named("preact_relu"), RELU, &[pre])?;
    let shortcut = match project {
        true => Some(g.add_named(&named("0_conv"), wide.with_stride(stride), &[pre])?),
        false => None,
    };
    let y = g.add_named(&named("1_conv"), Layer::conv2d(filters, 1).with_bias(false), &[pre])?;
    let y = g.add_named(&named("1_bn"), BATCH_NORM, &[y])?;
    let y = g.add_named(&named("1_relu"), RELU, &[y])?;
    let y = g.add_named(&named("2_pad"), Layer::ZeroPadding2D([[1; 2]; 2]), &[y])?;
    let conv = Layer::conv2d(filters, 3).with_stride(stride).with_bias(false);
    let y = g.add_named(&named("2_conv"), conv, &[y])?;
    let y = g.add_named(&named("2_bn"), BATCH_NORM, &[y])?;
    let y = g.add_named(&named("2_relu"), RELU, &[y])?;
    let shortcut = match shortcut {
        Some(projected) => projected,
        // A pool of size 1 is plain subsampling.
        None if stride > 1 => g.add(Layer::max_pooling2d(1).with_stride(stride), &[x])?,
        None => x,
    };
    let y = g.add_named(&named("3_conv"), wide, &[y])?;
    g.add_named(&named("out"), Layer::Add, &[shortcut, y])
}
