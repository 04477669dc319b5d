//! VGG16 (Simonyan and Zisserman, 2015): thirteen 3×3 convolutions in five blocks, each block
//! ending in a 2×2 max-pool.

use super::{Head, IMAGENET, add_head, dense};
use crate::activation::Activation;
use crate::error::Result;
use crate::nn::layers::Layer;
use crate::nn::{Graph, Id};
use crate::ops::Padding;

/// Images [side, side, 3], 'caffe' preprocessing → class probabilities. The base has 14,714,688
/// parameters; with the notebook's head at 224 and 20 classes 27,570,516. An error for a side that is too
/// small, and for [`Head::ImageNet`] with other than 1000 classes.
///
/// ```
/// use atrous::models::{Head, vgg16};
///
/// let graph = vgg16(224, 20, Head::None)?;
/// assert_eq!(graph.cost().parameters, 14_714_688);
/// assert_eq!(graph.node(graph.find("block1_conv2").unwrap()).output_shape, [224, 224, 64]);
/// assert_eq!(graph.node(graph.output()).output_shape, [7, 7, 512]); // five pools of 2
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn vgg16(side: usize, classes: usize, head: Head) -> Result<Graph> {
    let mut g = Graph::new("vgg16", "input_1", [side, side, 3]);
    let features = base(&mut g)?;
    let notebook = [
        Layer::Flatten, // 25,088 at 224
        dense(512, Activation::Relu),
        Layer::Dropout(0.5),
        dense(classes, Activation::Softmax),
    ];
    let imagenet = [
        ("flatten", Layer::Flatten),
        ("fc1", dense(4096, Activation::Relu)),
        ("fc2", dense(4096, Activation::Relu)),
        ("predictions", dense(IMAGENET, Activation::Softmax)),
    ];
    add_head(&mut g, features, classes, head, &notebook, &imagenet)?;
    Ok(g)
}

fn base(g: &mut Graph) -> Result<Id> {
    let mut x = g.input();
    let blocks = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)];
    for (block, (filters, convolutions)) in (1..).zip(blocks) {
        let conv =
            Layer::conv2d(filters, 3).with_padding(Padding::Same).with_activation(Activation::Relu);
        for i in 1..=convolutions {
            x = g.add_named(&format!("block{block}_conv{i}"), conv, &[x])?;
        }
        x = g.add_named(&format!("block{block}_pool"), Layer::max_pooling2d(2), &[x])?;
    }
    Ok(x)
}
