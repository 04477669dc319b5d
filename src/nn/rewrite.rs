//! Rewrites: other graphs that compute the same.

use super::{Graph, Id, Model, Pass};
use crate::activation::Activation;
use crate::device::Device;
use crate::error::Result;
use crate::nn::layers::{BatchNormalization, Conv2D, DepthwiseConv2D, Layer};
use crate::ops::Padding;
use crate::tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};

/// Folds each batch norm, at inference, into the convolution or dense layer in front of it.
///
/// With a = γ/√(v + ε): a·(W·x + b − m) + β = (a·W)·x + (a·(b − m) + β), so that the batch norm
/// becomes part of weights and bias, and a pass over the activations is saved. A batch norm is
/// left alone where its producer feeds something else too, or where either is `observed` by name.
pub fn fold_batch_norm(model: &Model, observed: &[&str]) -> Result<Model> {
    let nodes = model.graph.nodes();
    let seen = |i: usize| observed.contains(&nodes[i].name.as_str());
    fold_where(model, |norm, producer| !seen(norm) && !seen(producer))
}

/// [`fold_batch_norm`] for training: only where both the batch norm and its producer are frozen.
pub fn fold_frozen_batch_norm(model: &Model) -> Result<Model> {
    let frozen = |i: usize| !model.layer_parameters(i).iter().any(|p| p.trainable);
    fold_where(model, |norm, producer| frozen(norm) && frozen(producer))
}

fn fold_where(model: &Model, wanted: impl Fn(usize, usize) -> bool) -> Result<Model> {
    let nodes = model.graph.nodes();
    let readers = model.graph.readers();
    // For each batch norm that folds, the layer it folds into.
    let folds: HashMap<usize, usize> = nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| matches!(node.layer, Layer::BatchNormalization(_)))
        .map(|(i, node)| (i, node.inputs[0].0))
        .filter(|&(i, producer)| {
            let layer = &nodes[producer].layer;
            let folding =
                matches!(layer, Layer::Conv2D(_) | Layer::DepthwiseConv2D(_) | Layer::Dense(_));
            let linear = layer.activation() == Activation::Linear;
            folding && linear && readers[producer] == 1 && wanted(i, producer)
        })
        .collect();

    let folded_by: HashMap<usize, usize> =
        folds.iter().map(|(&norm, &producer)| (producer, norm)).collect();
    let graph = rebuilt(model, |graph, i, inputs| {
        if folds.contains_key(&i) {
            return Ok(inputs[0]);
        }
        let layer = nodes[i].layer;
        let layer = if folded_by.contains_key(&i) { layer.with_bias(true) } else { layer };
        graph.add_named(&nodes[i].name, layer, inputs)
    })?;

    let mut values: HashMap<String, (Tensor, bool)> =
        model.parameters.iter().map(|p| (p.path.clone(), (p.value.clone(), p.trainable))).collect();
    for (&producer, &norm) in &folded_by {
        fold(model, producer, norm, &mut values)?;
    }
    let mut folded = Model::with(graph, |path, _, _| values[path].0.clone());
    for parameter in &mut folded.parameters {
        parameter.trainable = values[&parameter.path].1;
    }
    Ok(folded)
}

/// Puts a 1×1 convolution in front of the bilinear upsampling that feeds it, if it has fewer
/// outputs than inputs: a network then classifies at the small size and scales up its logits.
///
/// The two commute, since the convolution is linear in each pixel and the weights of a bilinear
/// interpolation add up to 1, so that even the bias comes through unchanged. For DeepLabV3+ at 224
/// that is 16 times less arithmetic and memory in its last layer, and 256 channels less to upsample.
pub fn classify_before_upsampling(model: &Model, observed: &[&str]) -> Result<Model> {
    let nodes = model.graph.nodes();
    let readers = model.graph.readers();
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
    let graph = rebuilt(model, |graph, i, inputs| match moves.get(&i) {
        // Comes after its convolution instead.
        _ if upsamplings.contains(&i) => Ok(inputs[0]),
        Some(&up) => {
            let small = graph.add_named(&nodes[i].name, nodes[i].layer, inputs)?;
            graph.add_named(&nodes[up].name, nodes[up].layer, &[small])
        }
        None => graph.add_named(&nodes[i].name, nodes[i].layer, inputs),
    })?;
    Ok(with_values_of(model, graph))
}

/// Makes the zeros in front of a valid convolution its own padding: the padded picture is never written.
///
/// Where nobody else reads it, and both axes are padded alike, as the MobileNets and ResNets pad.
pub fn pad_within_convolutions(model: &Model, observed: &[&str]) -> Result<Model> {
    let nodes = model.graph.nodes();
    let readers = model.graph.readers();
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
    let graph = rebuilt(model, |graph, i, inputs| {
        if gone.contains_key(&i) {
            return Ok(inputs[0]);
        }
        // Its only reader is the convolution that takes it over.
        let layer = match nodes[i].inputs.first().and_then(|id| gone.get(&id.0)) {
            Some(&cells) => nodes[i].layer.with_padding(Padding::Cells(cells)),
            None => nodes[i].layer,
        };
        graph.add_named(&nodes[i].name, layer, inputs)
    })?;
    Ok(with_values_of(model, graph))
}

/// The graph layer by layer as `place` adds them: it gets a layer's position and what feeds it in the new graph, and says
/// what stands for it there.
fn rebuilt(
    model: &Model,
    mut place: impl FnMut(&mut Graph, usize, &[Id]) -> Result<Id>,
) -> Result<Graph> {
    let mut graph = model.graph.emptied();
    let mut ids: Vec<Id> = vec![graph.input()];
    for (i, node) in model.graph.nodes().iter().enumerate().skip(1) {
        let inputs: Vec<Id> = node.inputs.iter().map(|id| ids[id.0]).collect();
        ids.push(place(&mut graph, i, &inputs)?);
    }
    Ok(graph)
}

/// A rewritten graph with its original's values, by name.
fn with_values_of(model: &Model, graph: Graph) -> Model {
    let mut rewritten = Model::with(graph, |path, shape, _| match model.parameter(path) {
        Some(parameter) => parameter.value.clone(),
        None => Tensor::zeros(shape),
    });
    for parameter in &mut rewritten.parameters {
        parameter.trainable = model.parameter(&parameter.path).is_some_and(|of| of.trainable);
    }
    rewritten
}

/// What neither batch norms nor training hinder.
fn with_less_traffic(model: &Model) -> Result<Model> {
    pad_within_convolutions(&classify_before_upsampling(model, &[])?, &[])
}

/// The model for scoring and predicting: every rewrite that keeps what it computes.
pub fn for_inference(model: &Model) -> Result<Model> {
    let folded = fold_batch_norm(&model.to_device(Device::Cpu)?, &[])?;
    with_less_traffic(&folded)?.to_device(model.device())
}

/// The model as a training step runs it: see [`fold_frozen_batch_norm`],
/// [`classify_before_upsampling`] and [`pad_within_convolutions`]. What trains is lent to it for the time of a step.
pub struct Live {
    model: Model,
    /// (parameter of the original, the same one here), for all that can change.
    links: Vec<(usize, usize)>,
    /// The same the other way.
    back: HashMap<usize, usize>,
}

impl Live {
    pub fn new(original: &Model) -> Result<Self> {
        let folded = fold_frozen_batch_norm(&original.to_device(Device::Cpu)?)?;
        let model = with_less_traffic(&folded)?.to_device(original.device())?;
        let place: HashMap<&str, usize> =
            original.parameters.iter().enumerate().map(|(i, p)| (p.path.as_str(), i)).collect();
        let frozen_norms: HashSet<String> = (0..original.graph.nodes().len())
            .filter(|&i| !original.layer_parameters(i).iter().any(|p| p.trainable))
            .map(|i| original.graph.nodes()[i].name.clone())
            .collect();
        let links: Vec<(usize, usize)> = model
            .parameters
            .iter()
            .enumerate()
            .filter(|(_, p)| {
                let layer = p.path.rsplit_once('/').map_or("", |(layer, _)| layer);
                !frozen_norms.contains(layer)
            })
            .filter_map(|(i, p)| Some((*place.get(p.path.as_str())?, i)))
            .collect();
        let back = links.iter().map(|&(of, here)| (here, of)).collect();
        Ok(Live { model, links, back })
    }

    /// Runs `original` through the rewritten graph: leaves and moving statistics of the pass are
    /// numbered as the original's parameters are.
    pub fn run(&mut self, original: &mut Model, x: &Tensor, run: super::Run) -> Result<Pass> {
        self.swap(original);
        let pass = self.model.run(x, run);
        self.swap(original);
        let mut pass = pass?;
        let mut leaves: Vec<Tensor> = original.parameters.iter().map(|_| Tensor::zeros([0])).collect();
        for &(of, here) in &self.links {
            leaves[of] = pass.leaves[here].clone();
        }
        pass.leaves = leaves;
        pass.moving = pass.moving.into_iter().map(|(i, value)| (self.back[&i], value)).collect();
        Ok(pass)
    }

    fn swap(&mut self, original: &mut Model) {
        for &(of, here) in &self.links {
            std::mem::swap(&mut original.parameters[of].value, &mut self.model.parameters[here].value);
        }
    }
}

/// Puts the folded kernel and bias of `producer` into `values`.
fn fold(
    model: &Model,
    producer: usize,
    norm: usize,
    values: &mut HashMap<String, (Tensor, bool)>,
) -> Result<()> {
    let nodes = model.graph.nodes();
    let Layer::BatchNormalization(BatchNormalization { epsilon, .. }) = nodes[norm].layer else {
        return Ok(());
    };
    let of = |i: usize, k: usize| model.layer_parameters(i)[k].value.to_vec_f64();
    let (gamma, beta, mean, variance) = (of(norm, 0), of(norm, 1), of(norm, 2), of(norm, 3));
    let factor: Vec<f64> =
        gamma.iter().zip(&variance).map(|(gamma, v)| gamma / (v + epsilon).sqrt()).collect();
    let channels = factor.len();
    let kernel = &model.layer_parameters(producer)[0];
    // The last axis holds the outputs; of a depthwise kernel [kh, kw, C, 1] the third does, which
    // is the fastest moving one all the same.
    let scaled: Vec<f64> =
        kernel.value.to_vec_f64().iter().enumerate().map(|(i, w)| w * factor[i % channels]).collect();
    let bias = match model.layer_parameters(producer).get(1) {
        Some(bias) => bias.value.to_vec_f64(),
        None => vec![0.0; channels],
    };
    let bias: Vec<f64> = (0..channels).map(|i| factor[i] * (bias[i] - mean[i]) + beta[i]).collect();
    let dtype: DType = kernel.value.dtype();
    let name = &nodes[producer].name;
    let tensor = |values: &[f64], shape| {
        Ok::<_, crate::Error>(Tensor::from_slice(values, shape)?.to_dtype(dtype))
    };
    let trainable = kernel.trainable;
    values.insert(kernel.path.clone(), (tensor(&scaled, kernel.value.shape())?, trainable));
    values.insert(format!("{name}/bias"), (tensor(&bias, [channels].into())?, trainable));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Input, relative_deviation};
    use crate::nn::Run;
    use crate::ops::Padding;

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
            let expected = model.run(&x, Run::infer()).unwrap().output;
            let got = folded.run(&x, Run::infer()).unwrap().output;
            let deviation = relative_deviation(&got, &expected);
            assert!(deviation < tolerance, "{dtype:?}: {deviation:e}");
        }
    }

    fn picture(shape: [usize; 4]) -> Tensor {
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
        let x = picture([2, 5, 4, 3]);
        let expected = model.run(&x, Run::infer()).unwrap().output;
        let got = rewritten.run(&x, Run::infer()).unwrap().output;
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
        let x = picture([2, 8, 9, 3]);
        let expected = model.run(&x, Run::infer()).unwrap().output;
        let got = rewritten.run(&x, Run::infer()).unwrap().output;
        assert!(relative_deviation(&got, &expected) < 1e-14);
        for parameter in &model.parameters {
            let same = rewritten.parameter(&parameter.path).unwrap();
            assert_eq!(same.trainable, parameter.trainable, "{}", parameter.path);
        }
        let kept = pad_within_convolutions(&model, &["zero_padding2d"]).unwrap();
        assert_eq!(zeros_in(&kept), 3);
    }

    #[test]
    fn a_live_model_gives_the_gradients_and_statistics_of_its_original() {
        let mut model = network().to_dtype(DType::F64);
        model.freeze_first(4);
        assert!(fold_frozen_batch_norm(&model).unwrap().graph.find("batch_normalization").is_none());
        let mut live = Live::new(&model).unwrap();
        let x = picture([2, 9, 9, 3]);
        let run = Run { dropout: None, ..Run::train(1, 0) };
        let of = |pass: &Pass| {
            let loss = crate::ops::sum(&crate::ops::mul(&pass.output, &pass.output).unwrap()).unwrap();
            let gradients = loss.backward().unwrap();
            let all = pass.leaves.iter().map(|leaf| gradients.get(leaf).cloned());
            all.collect::<Vec<Option<Tensor>>>()
        };
        let expected = model.run(&x, run).unwrap();
        let got = live.run(&mut model, &x, run).unwrap();
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
        // What was lent is back.
        assert!(model.parameters.iter().all(|p| p.value.shape().elements() > 0));
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
