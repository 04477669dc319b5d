//! Whose pass over memory makes what: layers that others make along with their own result.
//!
//! A convolution that is followed by an activation alone writes the activation's result; so it is with a sum of two, of
//! which it makes one, and with a max pooling of 2×2. A 1×1 convolution makes the depthwise one before it, if nobody else
//! reads that. What is left out between them is never written. A convolution in front of a batch norm takes the statistics of
//! its result while that is in cache. Where somebody looks at every layer's output, each is made
//! apart.

use super::{Graph, Id};
use crate::activation::Activation;
use crate::nn::layers::{Conv2D, Layer};
use crate::ops::{Padding, PoolOptions};

/// What a layer's operator makes along with its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The activation, of a batch norm or a convolution.
    pub activation: Activation,
    /// The layer that a convolution's result is added to.
    pub onto: Option<Id>,
    /// Whether the sum is the next to read that layer: its memory is free then.
    pub last: bool,
    /// Whether a convolution's result is max pooled, 2×2.
    pub pooled: bool,
    /// The depthwise convolution in front that a 1×1 convolution makes itself.
    pub depthwise: Option<Id>,
    /// Of that one: it hands on its input as it is.
    pub later: bool,
    /// The batch norm that alone reads a convolution's result, for which the convolution takes its statistics where the
    /// batch's are wanted.
    pub statistics_for: Option<Id>,
}

/// For each layer.
pub struct Passes {
    pub extras: Vec<Extras>,
    /// The layer whose value is this one's result already.
    pub made_by: Vec<Option<Id>>,
}

impl Passes {
    /// Each layer in a pass of its own.
    pub fn apart(graph: &Graph) -> Self {
        let n = graph.nodes().len();
        Passes { extras: vec![Extras::default(); n], made_by: vec![None; n] }
    }

    pub fn together(graph: &Graph) -> Self {
        let mut passes = Passes::apart(graph);
        let readers = graph.readers();
        for (i, node) in graph.nodes().iter().enumerate() {
            match (node.layer, &node.inputs[..]) {
                (Layer::Activation(activation), &[id]) => {
                    passes.activation(graph, &readers, i, id, activation);
                }
                (Layer::Conv2D(Conv2D { kernel: [1, 1], stride: [1, 1], .. }), &[id]) => {
                    passes.separable(graph, &readers, i, id);
                }
                (Layer::BatchNormalization(_), &[id]) => {
                    let producer = graph.node(id).layer;
                    let convolves = matches!(producer, Layer::Conv2D(_) | Layer::DepthwiseConv2D(_));
                    if convolves && readers[id.0] == 1 && producer.activation() == Activation::Linear {
                        passes.extras[id.0].statistics_for = Some(Id(i));
                    }
                }
                (Layer::Add, &[a, b]) => passes.sum(graph, &readers, i, [a, b]),
                (
                    Layer::MaxPooling2D(PoolOptions {
                        pool: [2, 2],
                        stride: [2, 2],
                        padding: Padding::Valid,
                    }),
                    &[id],
                ) => passes.pool(graph, &readers, i, id),
                _ => {}
            }
        }
        passes
    }

    /// The activation of a batch norm, or of a convolution without one.
    fn activation(
        &mut self,
        graph: &Graph,
        readers: &[usize],
        i: usize,
        id: Id,
        activation: Activation,
    ) {
        let producer = graph.node(id).layer;
        let can = matches!(
            producer,
            Layer::BatchNormalization(_) | Layer::Conv2D(_) | Layer::DepthwiseConv2D(_)
        );
        let linear = producer.activation() == Activation::Linear;
        if can
            && linear
            && readers[id.0] == 1
            && activation.is_fusable()
            && activation != Activation::Linear
        {
            self.extras[id.0].activation = activation;
            self.made_by[i] = Some(id);
        }
    }

    /// The depthwise convolution that a 1×1 convolution alone reads, or reads through its activation.
    fn separable(&mut self, graph: &Graph, readers: &[usize], i: usize, id: Id) {
        let depthwise = self.made_by[id.0].unwrap_or(id);
        let alone = readers[id.0] == 1 && readers[depthwise.0] == 1;
        if matches!(graph.node(depthwise).layer, Layer::DepthwiseConv2D(_)) && alone {
            self.extras[depthwise.0].later = true;
            self.extras[i].depthwise = Some(depthwise);
        }
    }

    /// Of two summands one that a 1×1 convolution makes for this sum alone, after the other is there.
    fn sum(&mut self, graph: &Graph, readers: &[usize], i: usize, [a, b]: [Id; 2]) {
        for (conv, other) in [(a, b), (b, a)] {
            let layer = graph.node(conv).layer;
            let pointwise =
                matches!(layer, Layer::Conv2D(Conv2D { kernel: [1, 1], stride: [1, 1], .. }));
            let linear = layer.activation() == Activation::Linear;
            if pointwise && linear && readers[conv.0] == 1 && other.0 < conv.0 {
                let after = &graph.nodes()[conv.0 + 1..];
                let last = after.iter().filter(|node| node.inputs.contains(&other)).count() == 1;
                let extras = &mut self.extras[conv.0];
                (extras.onto, extras.last) = (Some(other), last);
                self.made_by[i] = Some(conv);
            }
        }
    }

    /// The pooling of a convolution, or of the activation that is made with it.
    fn pool(&mut self, graph: &Graph, readers: &[usize], i: usize, id: Id) {
        let conv = self.made_by[id.0].unwrap_or(id);
        let layer = graph.node(conv).layer;
        let own = layer.activation();
        let can = own.is_fusable();
        let alone = readers[id.0] == 1 && readers[conv.0] == 1;
        let Extras { onto, depthwise, .. } = self.extras[conv.0];
        let free = onto.is_none() && depthwise.is_none();
        if matches!(layer, Layer::Conv2D(_)) && can && alone && free {
            self.extras[conv.0].pooled = true;
            self.made_by[i] = Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layers::BatchNormalization;

    #[test]
    fn what_nobody_else_reads_is_made_along() {
        let mut g = Graph::new("passes", "input", [8, 8, 4]);
        let conv = Layer::conv2d(4, 3).with_padding(Padding::Same);
        let relu = Layer::Activation(Activation::Relu);
        let a = g.chain(g.input(), [conv, relu, Layer::max_pooling2d(2)]).unwrap();
        let point = g.add(Layer::conv2d(4, 1), &[a]).unwrap();
        let sum = g.add(Layer::Add, &[a, point]).unwrap();
        let seen = g.add(conv, &[sum]).unwrap();
        let pooled = g.add(Layer::max_pooling2d(2), &[seen]).unwrap();
        let other = g.add(Layer::max_pooling2d(2), &[seen]).unwrap();
        g.add(Layer::Add, &[pooled, other]).unwrap();
        let Passes { extras, made_by } = Passes::together(&g);
        let made: Vec<usize> =
            made_by.iter().map(|id: &Option<Id>| id.map_or(usize::MAX, |id| id.0)).collect();
        let none = usize::MAX;
        assert_eq!(made, [none, none, 1, 2, none, 4, none, none, none, none]);
        assert_eq!(
            extras[1],
            Extras { activation: Activation::Relu, pooled: true, ..Extras::default() }
        );
        // Besides the sum the convolution itself reads a, and nobody after it.
        assert_eq!(extras[4], Extras { onto: Some(a), last: true, ..Extras::default() });
        assert_eq!(extras[6], Extras::default());
        assert!(Passes::apart(&g).made_by.iter().all(Option::is_none));
    }

    #[test]
    fn a_convolution_tells_the_batch_norm_that_alone_reads_it() {
        let mut g = Graph::new("norms", "input", [8, 8, 4]);
        let bn = Layer::BatchNormalization(BatchNormalization { epsilon: 1e-3, momentum: 0.9 });
        let conv = Layer::conv2d(4, 3).with_padding(Padding::Same);
        let a = g.add(conv, &[g.input()]).unwrap();
        let norm = g.add(bn, &[a]).unwrap();
        let seen = g.add(Layer::depthwise_conv2d(), &[norm]).unwrap();
        g.add(bn, &[seen]).unwrap();
        g.add(Layer::Add, &[seen, seen]).unwrap();
        let extras = Passes::together(&g).extras;
        assert_eq!(extras[a.0].statistics_for, Some(norm));
        assert_eq!(extras.iter().filter(|extras| extras.statistics_for.is_some()).count(), 1);
        assert!(Passes::apart(&g).extras.iter().all(|extras| extras.statistics_for.is_none()));
    }

    #[test]
    fn a_depthwise_convolution_is_left_to_the_pointwise_one_that_alone_reads_it() {
        let mut g = Graph::new("separable", "input", [8, 8, 4]);
        let (depthwise, point) =
            (Layer::depthwise_conv2d().with_padding(Padding::Same), Layer::conv2d(4, 1));
        let relu = Layer::Activation(Activation::Relu);
        let first = g.add(depthwise, &[g.input()]).unwrap();
        let activated = g.add(relu, &[first]).unwrap();
        let conv = g.add(point, &[activated]).unwrap();
        let pooled = g.chain(conv, [relu, Layer::max_pooling2d(2)]).unwrap();
        // Two readers, and a reader that is no pointwise convolution.
        let shared = g.add(depthwise, &[pooled]).unwrap();
        let other = g.add(point, &[shared]).unwrap();
        let sum = g.add(Layer::Add, &[shared, other]).unwrap();
        g.chain(sum, [depthwise, Layer::conv2d(4, 3).with_padding(Padding::Same)]).unwrap();
        let Passes { extras, made_by } = Passes::together(&g);
        assert_eq!(
            extras[first.0],
            Extras { activation: Activation::Relu, later: true, ..Extras::default() }
        );
        assert_eq!(made_by[activated.0], Some(first));
        let expected =
            Extras { activation: Activation::Relu, depthwise: Some(first), ..Extras::default() };
        assert_eq!(extras[conv.0], expected);
        assert_eq!(made_by[pooled.0], None);
        assert_eq!(extras.iter().filter(|extras| extras.later).count(), 1);
    }
}
