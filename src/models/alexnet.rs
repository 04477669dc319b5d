//! An AlexNet-like classifier, trained from scratch (after Krizhevsky, Sutskever and Hinton, 2012).
//!
//! Five convolutions without padding, batch norm *after* the activation, three max-pools, two
//! dense layers of 64 and one sigmoid a class: labels are not exclusive.

use crate::activation::Activation;
use crate::error::Result;
use crate::nn::Graph;
use crate::nn::layers::Layer;

/// Images [side, side, 3] → `classes` probabilities. Designed for 150 and 20: 777,695 parameters. An error
/// for a side that is too small to be pooled.
///
/// ```
/// use atrous::models::alexnet;
///
/// let graph = alexnet(150, 20)?;
/// assert_eq!(graph.cost().parameters, 777_695);
/// assert_eq!(graph.node(graph.output()).output_shape, [20]);
/// assert!(graph.base().is_empty()); // there are no weights to start from
/// assert!(alexnet(100, 20).is_err()); // nothing is left of an image for the last pool
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn alexnet(side: usize, classes: usize) -> Result<Graph> {
    let mut g = Graph::new("alexnet", "conv2d_input", [side, side, 3]);
    let relu = Layer::Activation(Activation::Relu);
    let bn = Layer::batch_normalization();
    let layers = [
        Layer::conv2d(64, 7), // 150 → 144
        relu,
        bn,
        Layer::max_pooling2d(3), // 48
        Layer::conv2d(128, 5),   // 44
        relu,
        bn,
        Layer::max_pooling2d(3), // 14
        Layer::conv2d(145, 3),   // 12
        relu,
        Layer::conv2d(145, 3), // 10
        relu,
        Layer::conv2d(128, 3), // 8
        relu,
        bn,
        Layer::max_pooling2d(4), // 2
        Layer::Flatten,          // 512
        Layer::dense(64),
        relu,
        Layer::dense(64),
        relu,
        Layer::Dropout(0.5),
        Layer::dense(classes),
        Layer::Activation(Activation::Sigmoid),
    ];
    g.chain(g.input(), layers)?;
    Ok(g)
}
