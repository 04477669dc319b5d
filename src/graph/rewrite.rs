//! Rewrites: other graphs that compute the same.

use super::{Graph, Id, Model};
use crate::error::Result;
use crate::layers::Layer;
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;

/// Folds each batch norm, at inference, into the convolution or dense layer in front of it.
///
/// With a = γ/√(v + ε): a·(W·x + b − m) + β = (a·W)·x + (a·(b − m) + β), so that the batch norm
/// becomes part of weights and bias, and a pass over the activations is saved. A batch norm is
/// left alone where its producer feeds something else too, or where either is `observed` by name.
pub fn fold_batch_norm(model: &Model, observed: &[&str]) -> Result<Model> {
    let nodes = model.graph.nodes();
    let mut readers = vec![0; nodes.len()];
    nodes.iter().flat_map(|node| &node.inputs).for_each(|id| readers[id.0] += 1);
    let seen = |i: usize| observed.contains(&nodes[i].name.as_str());
    // For each batch norm that folds, the layer it folds into.
    let folds: HashMap<usize, usize> = nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| matches!(node.layer, Layer::BatchNormalization { .. }))
        .map(|(i, node)| (i, node.inputs[0].0))
        .filter(|&(i, producer)| {
            let folding = matches!(
                nodes[producer].layer,
                Layer::Conv2D { .. } | Layer::DepthwiseConv2D { .. } | Layer::Dense { .. }
            );
            folding && readers[producer] == 1 && !seen(i) && !seen(producer)
        })
        .collect();

    let mut graph = Graph::new(
        &model.graph.name,
        &nodes[0].name,
        match nodes[0].layer {
            Layer::Input(shape) => shape,
            _ => unreachable!("a graph begins with its input"),
        },
    );
    let folded_by: HashMap<usize, usize> =
        folds.iter().map(|(&norm, &producer)| (producer, norm)).collect();
    let mut ids: Vec<Id> = vec![graph.input()];
    for (i, node) in nodes.iter().enumerate().skip(1) {
        if let Some(&producer) = folds.get(&i) {
            ids.push(ids[producer]);
            continue;
        }
        let inputs: Vec<Id> = node.inputs.iter().map(|id| ids[id.0]).collect();
        let layer = if folded_by.contains_key(&i) { with_bias(node.layer) } else { node.layer };
        ids.push(graph.add_named(&node.name, layer, &inputs)?);
    }

    let mut values: HashMap<String, Tensor> =
        model.parameters.iter().map(|p| (p.path.clone(), p.value.clone())).collect();
    for (&producer, &norm) in &folded_by {
        fold(model, producer, norm, &mut values)?;
    }
    Ok(Model::with(graph, |path, _, _| values[path].clone()))
}

fn with_bias(mut layer: Layer) -> Layer {
    if let Layer::Conv2D { use_bias, .. }
    | Layer::DepthwiseConv2D { use_bias, .. }
    | Layer::Dense { use_bias, .. } = &mut layer
    {
        *use_bias = true;
    }
    layer
}

/// Puts the folded kernel and bias of `producer` into `values`.
fn fold(
    model: &Model,
    producer: usize,
    norm: usize,
    values: &mut HashMap<String, Tensor>,
) -> Result<()> {
    let nodes = model.graph.nodes();
    let Layer::BatchNormalization { epsilon, .. } = nodes[norm].layer else { return Ok(()) };
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
    values.insert(kernel.path.clone(), tensor(&scaled, kernel.value.shape())?);
    values.insert(format!("{name}/bias"), tensor(&bias, [channels].into())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{Input, relative_deviation};
    use crate::graph::Run;
    use crate::layers::Activation;
    use crate::ops::Padding;

    /// A network with a foldable convolution, depthwise convolution and dense layer, a batch norm
    /// after an activation, and one whose convolution feeds two layers.
    fn network() -> Model {
        let mut g = Graph::new("mixed", "input", [9, 9, 3]);
        let bn = Layer::BatchNormalization { epsilon: 1e-3, momentum: 0.9 };
        let conv = Layer::Conv2D {
            filters: 5,
            kernel: [3, 3],
            stride: [1, 1],
            padding: Padding::Same,
            dilation: [1, 1],
            use_bias: false,
            initializer: crate::layers::Initializer::HeNormal,
        };
        let depthwise = Layer::DepthwiseConv2D {
            kernel: [3, 3],
            stride: [2, 2],
            padding: Padding::Same,
            dilation: [1, 1],
            use_bias: false,
        };
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
                let extra = crate::layers::Initializer::GlorotUniform.fill(shape, 3, path);
                crate::ops::add(&noise, &crate::ops::scale(&extra, 0.3).unwrap()).unwrap()
            }
            _ => crate::layers::Initializer::GlorotUniform.fill(shape, 3, path),
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

    #[test]
    fn an_observed_layer_is_left_alone() {
        let model = network();
        let folded = fold_batch_norm(&model, &["batch_normalization", "dense"]).unwrap();
        let names: Vec<&str> = folded.graph.nodes().iter().map(|n| n.name.as_str()).collect();
        assert!(names.contains(&"batch_normalization") && names.contains(&"batch_normalization_4"));
        assert!(!names.contains(&"batch_normalization_2"));
    }
}
