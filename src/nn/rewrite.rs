//! Rewrites: other graphs that compute the same, with the parameters of the graph they are made of.

use super::graph::{Graph, Id};
use super::layers::{BatchNormalization, Conv2D, DepthwiseConv2D, Layer};
use super::model::Model;
use super::parameters::{Bindings, Fold, ParamId, Source};
use crate::activation::Activation;
use crate::error::Result;
use crate::ops::Padding;
use std::collections::{HashMap, HashSet};

/// Folds each batch norm, at inference, into the convolution or dense layer in front of it.
///
/// With a = γ/√(v + ε): a·(W·x + b − m) + β = (a·W)·x + (a·(b − m) + β), so that the batch norm
/// becomes part of weights and bias, and a pass over the activations is saved. A batch norm is
/// left alone where its producer feeds something else too, or where either is `observed` by name.
///
/// ```
/// use atrous::nn::fold_batch_norm;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// graph.chain(graph.input(), [Layer::conv2d(4, 3).with_bias(false), Layer::batch_normalization()])?;
/// let mut model = Model::new(graph, 1);
/// model.set("batch_normalization/beta", Tensor::full([4], 0.5))?;
/// let folded = fold_batch_norm(&model, &[])?;
/// assert_eq!(folded.graph.nodes().len(), 2);
/// assert_eq!(folded.parameter("conv2d/bias").unwrap().value.to_vec_f64(), [0.5; 4]);
///
/// let x = Tensor::rand([1, 8, 8, 3], 7);
/// let [a, b] = [&model, &folded].map(|model| model.run(&x, Mode::infer()).map(|forward| forward.output));
/// assert!((a? - &b?)?.abs()?.max()?.item()? < 1e-5);
/// assert_eq!(fold_batch_norm(&model, &["conv2d"])?.graph.nodes().len(), 3); // somebody looks at it
/// # Ok::<(), Error>(())
/// ```
pub fn fold_batch_norm(model: &Model, observed: &[&str]) -> Result<Model> {
    Rewrite::new(&model.graph).fold_batch_norms(observed)?.model(model)
}

/// [`fold_batch_norm`] for training: only where both the batch norm and its producer are frozen.
///
/// ```
/// # use atrous::nn::fold_frozen_batch_norm;
/// # use atrous::prelude::*;
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let block = [Layer::conv2d(4, 3), Layer::batch_normalization()];
/// graph.chain(graph.input(), block.into_iter().chain(block))?;
/// let mut model = Model::new(graph, 1);
/// model.freeze_first(3); // the input and the first block
/// let folded = fold_frozen_batch_norm(&model)?;
/// let names: Vec<&str> = folded.graph.nodes().iter().map(|node| node.name.as_str()).collect();
/// assert_eq!(names, ["input", "conv2d", "conv2d_1", "batch_normalization_1"]);
/// # Ok::<(), Error>(())
/// ```
pub fn fold_frozen_batch_norm(model: &Model) -> Result<Model> {
    Rewrite::new(&model.graph).fold_where(|layer| model.is_frozen(layer))?.model(model)
}

/// Puts a 1×1 convolution in front of the bilinear upsampling that feeds it, if it has fewer
/// outputs than inputs: a network then classifies at the small size and scales up its logits.
///
/// The two commute, since the convolution is linear in each pixel and the weights of a bilinear
/// interpolation add up to 1, so that even the bias comes through unchanged. For DeepLabV3+ at 224
/// that is 16 times less arithmetic and memory in its last layer, and 256 channels less to upsample.
///
/// ```
/// # use atrous::nn::classify_before_upsampling;
/// # use atrous::prelude::*;
/// let mut graph = Graph::new("small", "input", [8, 8, 64]);
/// graph.chain(graph.input(), [Layer::UpSampling2D([4; 2]), Layer::conv2d(21, 1)])?;
/// let model = Model::new(graph, 1);
/// let rewritten = classify_before_upsampling(&model, &[])?;
/// let names: Vec<&str> = rewritten.graph.nodes().iter().map(|node| node.name.as_str()).collect();
/// assert_eq!(names, ["input", "conv2d", "up_sampling2d"]);
/// let pixels = |model: &Model| model.graph.node(model.graph.find("conv2d").unwrap()).cost.flops;
/// assert_eq!(pixels(&model), 16 * pixels(&rewritten));
/// # Ok::<(), Error>(())
/// ```
pub fn classify_before_upsampling(model: &Model, observed: &[&str]) -> Result<Model> {
    Rewrite::new(&model.graph).classify_before_upsampling(observed)?.model(model)
}

/// Makes the zeros in front of a valid convolution its own padding: the padded image is never written.
///
/// Where nobody else reads it, and both axes are padded alike, as the MobileNets and ResNets pad.
///
/// ```
/// # use atrous::nn::pad_within_convolutions;
/// # use atrous::prelude::*;
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// graph.chain(graph.input(), [Layer::ZeroPadding2D([[0, 1]; 2]), Layer::conv2d(4, 3).with_stride(2)])?;
/// let rewritten = pad_within_convolutions(&Model::new(graph, 1), &[])?;
/// let [_, conv] = rewritten.graph.nodes() else { unreachable!() };
/// assert_eq!(conv.output_shape, [4, 4, 4]);
/// assert_eq!(conv.layer, Layer::conv2d(4, 3).with_stride(2).with_padding(Padding::Cells([0, 1])));
/// # Ok::<(), Error>(())
/// ```
pub fn pad_within_convolutions(model: &Model, observed: &[&str]) -> Result<Model> {
    Rewrite::new(&model.graph).pad_within_convolutions(observed)?.model(model)
}

/// The model for scoring and predicting: every rewrite that keeps what it computes.
///
/// ```
/// use atrous::nn::for_inference;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let zeros = Layer::ZeroPadding2D([[1; 2]; 2]);
/// graph.chain(graph.input(), [zeros, Layer::conv2d(4, 3), Layer::batch_normalization()])?;
/// let model = Model::new(graph, 1);
/// let fast = for_inference(&model)?;
/// assert_eq!(fast.graph.nodes().len(), 2); // the input, and a convolution that does it all
/// let x = Tensor::rand([1, 8, 8, 3], 7);
/// let [a, b] = [&model, &fast].map(|model| model.run(&x, Mode::infer()).map(|forward| forward.output));
/// assert!((a? - &b?)?.abs()?.max()?.item()? < 1e-5);
/// # Ok::<(), Error>(())
/// ```
pub fn for_inference(model: &Model) -> Result<Model> {
    Rewrite::for_inference(&model.graph)?.model(model)
}

/// A graph made of another, and where its layers have their parameters from.
pub(crate) struct Rewrite {
    pub graph: Graph,
    /// For each layer its parameters, in the original's store.
    pub sources: Vec<Vec<Source>>,
}

impl Rewrite {
    /// The graph as it is.
    pub fn new(graph: &Graph) -> Self {
        let mut ids = (0..).map(|i| Source::Stored(ParamId(i)));
        let nodes = graph.nodes().iter();
        let sources = nodes.map(|node| ids.by_ref().take(node.parameters.len()).collect()).collect();
        Rewrite { graph: graph.clone(), sources }
    }

    /// As a network scores and predicts.
    pub fn for_inference(graph: &Graph) -> Result<Self> {
        Rewrite::new(graph).fold_batch_norms(&[])?.with_less_traffic()
    }

    /// As a network trains, of which these layers are frozen.
    pub fn for_training(graph: &Graph, frozen: impl Fn(usize) -> bool) -> Result<Self> {
        Rewrite::new(graph).fold_where(frozen)?.with_less_traffic()
    }

    /// Where the layers find their parameters among the original's, as they are now.
    pub fn bind(&self, original: &Model) -> Result<Bindings> {
        Bindings::new(&self.sources, &original.parameters)
    }

    /// A model of its own, whose values share the original's memory, but for those that are made of others.
    fn model(self, original: &Model) -> Result<Model> {
        let parameters = self.bind(original)?.collect(&original.parameters);
        Ok(Model::of(self.graph, parameters))
    }

    /// What neither batch norms nor training hinder.
    fn with_less_traffic(self) -> Result<Self> {
        self.classify_before_upsampling(&[])?.pad_within_convolutions(&[])
    }

    fn fold_batch_norms(self, observed: &[&str]) -> Result<Self> {
        let names: Vec<String> = self.graph.nodes().iter().map(|node| node.name.clone()).collect();
        self.fold_where(|layer| !observed.contains(&names[layer].as_str()))
    }

    /// Where both the batch norm and its producer are `wanted`.
    fn fold_where(self, wanted: impl Fn(usize) -> bool) -> Result<Self> {
        let nodes = self.graph.nodes();
        let readers = self.graph.readers();
        // For each batch norm that folds, the layer it folds into.
        let mut folds: HashMap<usize, usize> = HashMap::new();
        // For the latter, what is made of their parameters.
        let mut folded: HashMap<usize, Fold> = HashMap::new();
        for (norm, node) in nodes.iter().enumerate() {
            let Layer::BatchNormalization(BatchNormalization { epsilon, .. }) = node.layer else {
                continue;
            };
            let producer = node.inputs[0].0;
            let layer = nodes[producer].layer;
            let folding =
                matches!(layer, Layer::Conv2D(_) | Layer::DepthwiseConv2D(_) | Layer::Dense(_));
            let linear = layer.activation() == Activation::Linear;
            let alone = readers[producer] == 1 && wanted(norm) && wanted(producer);
            if let (true, Some(fold)) = (folding && linear && alone, self.fold(producer, norm, epsilon))
            {
                folds.insert(norm, producer);
                folded.insert(producer, fold);
            }
        }
        self.rebuilt(|new, i, inputs| {
            if folds.contains_key(&i) {
                return Ok(inputs[0]);
            }
            let Some(&fold) = folded.get(&i) else { return new.copy(i, inputs) };
            let sources = vec![Source::FoldedKernel(fold), Source::FoldedBias(fold)];
            new.add(i, nodes[i].layer.with_bias(true), sources, inputs)
        })
    }

    /// None where either has something folded into it already.
    fn fold(&self, producer: usize, norm: usize, epsilon: f64) -> Option<Fold> {
        let stored = |layer: usize| -> Option<Vec<ParamId>> {
            let sources = self.sources[layer].iter();
            sources
                .map(|source| if let Source::Stored(id) = source { Some(*id) } else { None })
                .collect()
        };
        let (of_producer, norm) = (stored(producer)?, stored(norm)?.try_into().ok()?);
        Some(Fold { kernel: *of_producer.first()?, bias: of_producer.get(1).copied(), norm, epsilon })
    }

    fn classify_before_upsampling(self, observed: &[&str]) -> Result<Self> {
        let nodes = self.graph.nodes();
        let readers = self.graph.readers();
        let seen = |i: usize| observed.contains(&nodes[i].name.as_str());
        // For each convolution that moves, the upsampling in front of it.
        let moves: HashMap<usize, usize> = nodes
            .iter()
            .enumerate()
            .filter_map(|(i, node)| match node.layer {
                Layer::Conv2D(Conv2D {
                    filters,
                    kernel: [1, 1],
                    stride: [1, 1],
                    activation: Activation::Linear,
                    ..
                }) => Some((i, node.inputs[0].0, filters)),
                _ => None,
            })
            .filter(|&(i, up, filters)| {
                matches!(nodes[up].layer, Layer::UpSampling2D(_))
                    && readers[up] == 1
                    && filters < nodes[up].output_shape[2]
                    && !seen(i)
                    && !seen(up)
            })
            .map(|(i, up, _)| (i, up))
            .collect();
        let upsamplings: HashSet<usize> = moves.values().copied().collect();
        self.rebuilt(|new, i, inputs| match moves.get(&i) {
            // Comes after its convolution instead.
            _ if upsamplings.contains(&i) => Ok(inputs[0]),
            Some(&up) => {
                let small = new.copy(i, inputs)?;
                new.copy(up, &[small])
            }
            None => new.copy(i, inputs),
        })
    }

    fn pad_within_convolutions(self, observed: &[&str]) -> Result<Self> {
        let nodes = self.graph.nodes();
        let readers = self.graph.readers();
        let seen = |i: usize| observed.contains(&nodes[i].name.as_str());
        // For each layer of zeros that goes, the cells before and after of each axis.
        let gone: HashMap<usize, [usize; 2]> = nodes
            .iter()
            .filter_map(|node| match node.layer {
                Layer::Conv2D(Conv2D { padding: Padding::Valid, .. })
                | Layer::DepthwiseConv2D(DepthwiseConv2D { padding: Padding::Valid, .. }) => {
                    Some(node.inputs[0].0)
                }
                _ => None,
            })
            .filter_map(|zeros| match nodes[zeros].layer {
                Layer::ZeroPadding2D([y, x]) if y == x && readers[zeros] == 1 && !seen(zeros) => {
                    Some((zeros, y))
                }
                _ => None,
            })
            .collect();
        self.rebuilt(|new, i, inputs| {
            if gone.contains_key(&i) {
                return Ok(inputs[0]);
            }
            // Its only reader is the convolution that takes it over.
            match nodes[i].inputs.first().and_then(|id| gone.get(&id.0)) {
                Some(&cells) => {
                    let layer = nodes[i].layer.with_padding(Padding::Cells(cells));
                    new.add(i, layer, self.sources[i].clone(), inputs)
                }
                None => new.copy(i, inputs),
            }
        })
    }

    /// The graph layer by layer as `place` adds them: it gets a layer's position and what feeds it in the new
    /// graph, and says what stands for it there.
    fn rebuilt(&self, mut place: impl FnMut(&mut Rebuilt, usize, &[Id]) -> Result<Id>) -> Result<Self> {
        let mut new = Rebuilt { of: self, graph: self.graph.emptied(), sources: vec![Vec::new()] };
        let mut ids: Vec<Id> = vec![new.graph.input()];
        for (i, node) in self.graph.nodes().iter().enumerate().skip(1) {
            let inputs: Vec<Id> = node.inputs.iter().map(|id| ids[id.0]).collect();
            ids.push(place(&mut new, i, &inputs)?);
        }
        let Rebuilt { graph, sources, .. } = new;
        Ok(Rewrite { graph, sources })
    }
}

/// A rewrite under way.
struct Rebuilt<'a> {
    of: &'a Rewrite,
    graph: Graph,
    sources: Vec<Vec<Source>>,
}

impl Rebuilt<'_> {
    /// Adds the i-th layer as it was.
    fn copy(&mut self, i: usize, inputs: &[Id]) -> Result<Id> {
        self.add(i, self.of.graph.nodes()[i].layer, self.of.sources[i].clone(), inputs)
    }

    /// Adds another under its name.
    fn add(&mut self, i: usize, layer: Layer, sources: Vec<Source>, inputs: &[Id]) -> Result<Id> {
        let id = self.graph.add_named(&self.of.graph.nodes()[i].name, layer, inputs)?;
        self.sources.push(sources);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Input, relative_deviation};
    use crate::nn::Mode;
    use crate::nn::{ForwardOutput, TrainingGraph};
    use crate::ops::Padding;
    use crate::tensor::{DType, Tensor};

    /// A network with a foldable convolution, depthwise convolution and dense layer, a batch norm
    /// after an activation, and one whose convolution feeds two layers.
    fn network() -> Model {
        let mut g = Graph::new("mixed", "input", [9, 9, 3]);
        let bn = Layer::BatchNormalization(BatchNormalization { epsilon: 1e-3, momentum: 0.9 });
        let conv = Layer::conv2d(5, 3)
            .with_padding(Padding::Same)
            .with_bias(false)
            .with_initializer(crate::nn::layers::Initializer::HeNormal);
        let depthwise = Layer::depthwise_conv2d().with_stride(2);
        let x = g
            .chain(g.input(), [conv, bn, Layer::Activation(Activation::Relu), bn, depthwise, bn])
            .unwrap();
        let shared = g.add(conv, &[x]).unwrap();
        let normed = g.add(bn, &[shared]).unwrap();
        let sum = g.add(Layer::Add, &[shared, normed]).unwrap();
        g.chain(sum, [Layer::Flatten, Layer::dense(4), bn, Layer::Activation(Activation::Sigmoid)])
            .unwrap();
        Model::with(g, |path, shape, initializer| match path.rsplit('/').next() {
            Some("gamma" | "moving_variance") => {
                let noise = initializer.fill(shape, 3, path);
                let extra = crate::nn::layers::Initializer::GlorotUniform.fill(shape, 3, path);
                crate::ops::add(&noise, &crate::ops::scale(&extra, 0.3).unwrap()).unwrap()
            }
            _ => crate::nn::layers::Initializer::GlorotUniform.fill(shape, 3, path),
        })
    }

    #[test]
    fn a_folded_network_computes_the_same() {
        let model = network();
        let values: Vec<f64> =
            Input::new("x", [2, 9, 9, 3]).sample("fold").iter().map(|&v| v as f64).collect();
        let x = Tensor::from_slice(&values, [2, 9, 9, 3]).unwrap();
        for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
            let (model, x) = (model.to_dtype(dtype), x.to_dtype(dtype));
            let folded = fold_batch_norm(&model, &[]).unwrap();
            let norms = |m: &Model| {
                m.graph
                    .nodes()
                    .iter()
                    .filter(|n| n.layer.default_name() == "batch_normalization")
                    .count()
            };
            assert_eq!((norms(&model), norms(&folded)), (5, 2));
            let expected = model.run(&x, Mode::infer()).unwrap().output;
            let got = folded.run(&x, Mode::infer()).unwrap().output;
            let deviation = relative_deviation(&got, &expected);
            assert!(deviation < tolerance, "{dtype:?}: {deviation:e}");
        }
    }

    fn image(shape: [usize; 4]) -> Tensor {
        let values: Vec<f64> = Input::new("x", shape).sample("x").iter().map(|&v| v as f64).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    #[test]
    fn classifying_before_upsampling_computes_the_same() {
        let mut g = Graph::new("up", "input", [5, 4, 3]);
        let conv = Layer::conv2d(8, 3);
        let classes = Layer::conv2d(3, 1).with_padding(Padding::Same);
        g.chain(g.input(), [conv, Layer::UpSampling2D([4, 3]), classes]).unwrap();
        let glorot = crate::nn::layers::Initializer::GlorotUniform;
        let model = Model::with(g, |path, shape, _| glorot.fill(shape, 1, path)).to_dtype(DType::F64);
        let rewritten = classify_before_upsampling(&model, &[]).unwrap();
        let names: Vec<&str> = rewritten.graph.nodes().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["input", "conv2d", "conv2d_1", "up_sampling2d"]);
        let x = image([2, 5, 4, 3]);
        let expected = model.run(&x, Mode::infer()).unwrap().output;
        let got = rewritten.run(&x, Mode::infer()).unwrap().output;
        assert!(relative_deviation(&got, &expected) < 1e-14);
        let kept = classify_before_upsampling(&model, &["conv2d_1"]).unwrap();
        assert_eq!(kept.graph.nodes()[3].name, "conv2d_1");
    }

    #[test]
    fn padding_within_convolutions_computes_the_same() {
        let mut g = Graph::new("pad", "input", [8, 9, 3]);
        let zeros = Layer::ZeroPadding2D;
        let x = g
            .chain(
                g.input(),
                [
                    zeros([[1; 2]; 2]),
                    Layer::conv2d(8, 3).with_stride(2),
                    zeros([[0, 1]; 2]),
                    Layer::depthwise_conv2d().with_padding(Padding::Valid).with_stride(2),
                    zeros([[1, 0], [0, 1]]),
                    Layer::conv2d(4, 2),
                ],
            )
            .unwrap();
        let padded = g.add(zeros([[1; 2]; 2]), &[x]).unwrap();
        let (a, b) = (
            g.add(Layer::conv2d(4, 3), &[padded]).unwrap(),
            g.add(Layer::conv2d(4, 3), &[padded]).unwrap(),
        );
        g.add(Layer::Add, &[a, b]).unwrap();
        let glorot = crate::nn::layers::Initializer::GlorotUniform;
        let mut model =
            Model::with(g, |path, shape, _| glorot.fill(shape, 1, path)).to_dtype(DType::F64);
        model.freeze_first(3);
        let zeros_in = |m: &Model| {
            m.graph.nodes().iter().filter(|n| matches!(n.layer, Layer::ZeroPadding2D(_))).count()
        };
        let rewritten = pad_within_convolutions(&model, &[]).unwrap();
        // What has unequal sides or two readers stays.
        assert_eq!((zeros_in(&model), zeros_in(&rewritten)), (4, 2));
        let x = image([2, 8, 9, 3]);
        let expected = model.run(&x, Mode::infer()).unwrap().output;
        let got = rewritten.run(&x, Mode::infer()).unwrap().output;
        assert!(relative_deviation(&got, &expected) < 1e-14);
        for parameter in &model.parameters {
            let same = rewritten.parameter(&parameter.path).unwrap();
            assert_eq!(same.trainable, parameter.trainable, "{}", parameter.path);
        }
        let kept = pad_within_convolutions(&model, &["zero_padding2d"]).unwrap();
        assert_eq!(zeros_in(&kept), 3);
    }

    #[test]
    fn a_training_graph_gives_the_gradients_and_statistics_of_its_original() {
        let mut model = network().to_dtype(DType::F64);
        model.freeze_first(4);
        assert!(fold_frozen_batch_norm(&model).unwrap().graph.find("batch_normalization").is_none());
        let training = TrainingGraph::new(&model).unwrap();
        let x = image([2, 9, 9, 3]);
        let run = Mode { dropout: None, ..Mode::train(1, 0) };
        let of = |pass: &ForwardOutput| {
            let loss = crate::ops::sum(&crate::ops::mul(&pass.output, &pass.output).unwrap()).unwrap();
            let gradients = loss.backward().unwrap();
            let all = pass.leaves.iter().map(|leaf| gradients.get(leaf).cloned());
            all.collect::<Vec<Option<Tensor>>>()
        };
        let expected = model.run(&x, run).unwrap();
        let got = training.run(&model, &x, run).unwrap();
        assert!(relative_deviation(&got.output, &expected.output) < 1e-12);
        let (a, b) = (of(&expected), of(&got));
        assert_eq!(a.iter().flatten().count(), 12);
        for (p, (a, b)) in model.parameters.iter().zip(a.iter().zip(&b)) {
            assert_eq!((a.is_some(), b.is_some()), (p.trainable, p.trainable), "{}", p.path);
            if let (Some(a), Some(b)) = (a, b) {
                assert!(relative_deviation(b, a) < 1e-10, "{}", p.path);
            }
        }
        assert_eq!(expected.moving.len(), got.moving.len());
        for ((i, a), (j, b)) in expected.moving.iter().zip(&got.moving) {
            assert!(i == j && relative_deviation(b, a) < 1e-12);
        }
    }

    #[test]
    fn an_observed_layer_is_left_alone() {
        let model = network();
        let folded = fold_batch_norm(&model, &["batch_normalization", "dense"]).unwrap();
        let names: Vec<&str> = folded.graph.nodes().iter().map(|n| n.name.as_str()).collect();
        assert!(names.contains(&"batch_normalization") && names.contains(&"batch_normalization_4"));
        assert!(!names.contains(&"batch_normalization_2"));
    }
}
