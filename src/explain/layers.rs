//! Layers by name, and the part of a network that ends in one.

use crate::error::{Error, Result};
use crate::nn::layers::Layer;
use crate::nn::{Graph, Id, Model};
use std::collections::HashSet;

/// The layer of that name.
pub(super) fn find(graph: &Graph, name: &str) -> Result<Id> {
    graph.find(name).ok_or_else(|| {
        let net = &graph.name;
        Error::argument(
            "layer",
            format!("expected one of `{net}` (`atrous summary {net}`), got `{name}`"),
        )
    })
}

/// Height, width and channels of a layer's feature map; an error where it has none.
pub(super) fn feature_map(graph: &Graph, name: &str) -> Result<[usize; 3]> {
    match graph.node(find(graph, name)?).output_shape[..] {
        [h, w, c] => Ok([h, w, c]),
        ref other => {
            let expected = format!("a feature map [height, width, channels] of layer `{name}`");
            Err(Error::shape("explain", expected, format!("{other:?}")))
        }
    }
}

/// The model whose output is that layer's: all that the layer is computed from, and nothing else. Parameters
/// share their memory.
pub(super) fn up_to(model: &Model, name: &str) -> Result<Model> {
    let graph = &model.graph;
    find(graph, name)?;
    let mut needed = HashSet::from([name]);
    for node in graph.nodes().iter().rev() {
        if needed.contains(node.name.as_str()) {
            needed.extend(node.inputs.iter().map(|id| graph.node(*id).name.as_str()));
        }
    }
    let input = graph.node(graph.input());
    let Layer::Input(shape) = input.layer else {
        return Err(Error::argument("model", "expected an input layer as its first"));
    };
    let mut part = Graph::new(&graph.name, &input.name, shape);
    for node in graph.nodes().iter().skip(1).filter(|node| needed.contains(node.name.as_str())) {
        let inputs = node.inputs.iter().map(|id| find(&part, &graph.node(*id).name));
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        part.add_named(&node.name, node.layer, &inputs)?;
    }
    let unknown = |path: &str| Error::argument("parameter", format!("the model has no `{path}`"));
    let paths = part
        .nodes()
        .iter()
        .flat_map(|node| node.parameters.iter().map(|spec| format!("{}/{}", node.name, spec.kind)));
    let values = paths.map(|path| match model.parameter(&path) {
        Some(parameter) => Ok(parameter.value.detach()),
        None => Err(unknown(&path)),
    });
    let mut values = values.collect::<Result<Vec<_>>>()?.into_iter();
    Ok(Model::with(part, |_, shape, initializer| {
        values.next().unwrap_or_else(|| initializer.fill(shape, 0, ""))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::by_name;
    use crate::nn::Mode;
    use crate::tensor::Tensor;

    #[test]
    fn a_model_up_to_a_layer_makes_that_layers_output_and_no_other() {
        let model = Model::new(by_name("deeplabv3plus", 32, 21).unwrap(), 1);
        let x = Tensor::rand_uniform([1, 32, 32, 3], -1.0, 1.0, 2);
        let mut seen = None;
        let observe = &mut |name: &str, output: &Tensor| {
            if name == "tf.nn.relu_3" {
                seen = Some(output.to_vec_f64());
            }
        };
        model.run_observed(&x, Mode::infer(), observe).unwrap();
        let part = up_to(&model, "tf.nn.relu_3").unwrap();
        let output = part.run(&x, Mode::infer()).unwrap().output;
        let seen = seen.unwrap();
        assert!(output.to_vec_f64().iter().zip(&seen).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!(part.graph.find("tf.nn.relu_2").is_none() && part.graph.find("conv_pw_11_bn").is_some());
        assert!(up_to(&model, "nothing").err().unwrap().to_string().contains("got `nothing`"));
        assert!(up_to(&model, "input_1").unwrap().graph.nodes().len() == 1);
    }
}
