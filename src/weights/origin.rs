//! Whose weights: what a framework does in another way than Keras, the model does too.
//!
//! A convolution of stride 2 over an even number of cells needs one cell of padding. Keras puts it
//! after the last cell, PyTorch pads one cell on each side and does not reach the last: the same
//! weights see other pixels. Batch norm divides by √(v + ε) with ε = 1e-3 in Keras' MobileNets,
//! 1e-5 in PyTorch's. VGG16 has neither strides nor batch norm and is the same function everywhere,
//! up to the flattening in front of a dense layer (CHW there, HWC here), which is the head's.

use super::names::Base;
use crate::data::image::Preprocess;
use crate::error::{Error, Result};
use crate::nn::layers::{BatchNormalization, Conv2D, DepthwiseConv2D, Layer};
use crate::nn::{Graph, Id};
use crate::ops::Padding;
use std::fmt;
use std::str::FromStr;

/// The framework whose conventions weights follow.
///
/// ```
/// use atrous::data::image::Preprocess;
/// use atrous::models::Spec;
/// use atrous::nn::layers::Layer;
/// use atrous::weights::{Origin, names::Base};
///
/// let origin: Origin = "torchvision".parse()?;
/// assert_eq!(origin.preprocess(Base::MobileNetV2), Preprocess::Torch);
/// // Keras pads after the last cell, PyTorch on both sides.
/// let graph = Spec::new("mobilenetv2", 32, 20).graph()?;
/// let padding = |graph: &atrous::nn::Graph| {
///     let layers = graph.nodes().iter().map(|node| node.layer);
///     layers.filter(|layer| matches!(layer, Layer::ZeroPadding2D(_))).next()
/// };
/// assert_ne!(padding(&origin.configure(&graph)?), padding(&graph));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `keras.applications`, and whatever has Keras' names.
    #[default]
    Keras,
    /// `torchvision.models`.
    Torchvision,
    /// The library timm (PyTorch Image Models).
    Timm,
}

/// ε of PyTorch's batch norm.
const EPSILON: f64 = 1e-5;

impl Origin {
    /// As the names look, whatever wraps the network they are from. Whoever's names are not PyTorch's
    /// counts as Keras.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Origin {
        let torch = |name: &str| !name.contains('/') && name.ends_with(".weight");
        let of_timm = |part: &str| ["conv_stem", "blocks", "stem", "stages"].contains(&part);
        let timm = |name: &str| name.split('.').any(of_timm);
        match names.clone().any(torch) {
            true if names.clone().any(timm) => Origin::Timm,
            true => Origin::Torchvision,
            false => Origin::Keras,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Origin::Keras => "keras",
            Origin::Torchvision => "torchvision",
            Origin::Timm => "timm",
        }
    }

    /// The range of values that images have to have for weights of this origin.
    pub fn preprocess(self, base: Base) -> Preprocess {
        match (self, base) {
            (Origin::Keras, Base::Vgg16) => Preprocess::Caffe,
            (Origin::Keras, _) => Preprocess::Symmetric,
            // timm trained it with mean and deviation ½: x / 127.5 − 1.
            (Origin::Timm, Base::MobileNet) => Preprocess::Symmetric,
            (Origin::Torchvision | Origin::Timm, _) => Preprocess::Torch,
        }
    }

    /// The graph with this origin's padding and epsilon in the base's layers. The heads on top of it,
    /// and all names, stay as they are; a convolution that Keras pads on its own gets a layer
    /// `NAME_pad` in front of it.
    pub fn configure(self, graph: &Graph) -> Result<Graph> {
        if self == Origin::Keras {
            return Ok(graph.clone());
        }
        let base = Base::of(graph).ok_or_else(|| {
            Error::argument("weights", format!("`{}` is no network that {self} has", graph.name))
        })?;
        base.modules(self)?;
        let nodes = graph.nodes();
        let Layer::Input(shape) = nodes[0].layer else {
            return Err(Error::argument("weights", "a graph begins with its input"));
        };
        let mut out = Graph::new(&graph.name, &nodes[0].name, shape);
        let mut ids = vec![out.input()];
        for (i, node) in nodes.iter().enumerate().skip(1) {
            let mut inputs: Vec<Id> = node.inputs.iter().map(|id| ids[id.0]).collect();
            let mut layer = node.layer;
            if i < graph.base().len() {
                match &mut layer {
                    Layer::BatchNormalization(BatchNormalization { epsilon, .. }) => *epsilon = EPSILON,
                    Layer::ZeroPadding2D(pad) => {
                        let mut readers = nodes.iter().filter(|reader| reader.inputs.contains(&Id(i)));
                        if let Some(kernel) = readers.find_map(|reader| strided(&reader.layer)) {
                            *pad = around(kernel);
                        }
                    }
                    Layer::Conv2D(Conv2D { padding, .. })
                    | Layer::DepthwiseConv2D(DepthwiseConv2D { padding, .. }) => {
                        if let (Padding::Same, Some(kernel)) = (*padding, strided(&node.layer)) {
                            *padding = Padding::Valid;
                            let pad = Layer::ZeroPadding2D(around(kernel));
                            inputs = vec![out.add_named(&format!("{}_pad", node.name), pad, &inputs)?];
                        }
                    }
                    _ => {}
                }
            }
            ids.push(out.add_named(&node.name, layer, &inputs)?);
            if i + 1 == graph.base().len() {
                out.end_base();
            }
        }
        Ok(out)
    }
}

/// The window of a convolution whose stride is above 1 and for which padding matters.
fn strided(layer: &Layer) -> Option<[usize; 2]> {
    match *layer {
        Layer::Conv2D(Conv2D { kernel, stride, .. })
        | Layer::DepthwiseConv2D(DepthwiseConv2D { kernel, stride, .. }) => {
            (stride != [1, 1] && kernel != [1, 1]).then_some(kernel)
        }
        _ => None,
    }
}

/// PyTorch's usual padding: half the window on each side.
fn around([kh, kw]: [usize; 2]) -> [[usize; 2]; 2] {
    [[kh / 2; 2], [kw / 2; 2]]
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Origin {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Origin::Keras, Origin::Torchvision, Origin::Timm]
            .into_iter()
            .find(|origin| origin.name() == name)
            .ok_or_else(|| {
                let message = format!("expected `keras`, `torchvision` or `timm`, got `{name}`");
                Error::argument("origin", message)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of MobileNet, and a head with layers of the same types.
    fn graph() -> Graph {
        let mut g = Graph::new("mobilenet", "input_1", [8, 8, 3]);
        let conv = Layer::conv2d(4, 3).with_stride(2).with_padding(Padding::Same);
        let depthwise = Layer::depthwise_conv2d();
        let bn = Layer::batch_normalization();
        let layers = [
            ("conv1", conv),
            ("conv1_bn", bn),
            ("conv_dw_1", depthwise),
            ("conv_pad_2", Layer::ZeroPadding2D([[0, 1], [0, 1]])),
            ("conv_dw_2", depthwise.with_stride(2).with_padding(Padding::Valid)),
            ("conv2d", conv),
            ("batch_normalization", bn),
        ];
        for (i, (name, layer)) in layers.into_iter().enumerate() {
            g.add_named(name, layer, &[g.output()]).unwrap();
            if i == 4 {
                g.end_base();
            }
        }
        g
    }

    #[test]
    fn a_network_of_pytorch_pads_on_both_sides_and_has_its_epsilon_but_its_head_is_the_users() {
        let configured = Origin::Timm.configure(&graph()).unwrap();
        let layer = |name: &str| {
            configured.nodes().iter().find(|node| node.name == name).map(|node| node.layer).unwrap()
        };
        let both = Layer::ZeroPadding2D([[1, 1], [1, 1]]);
        assert_eq!((layer("conv1_pad"), layer("conv_pad_2")), (both, both));
        assert!(matches!(layer("conv1"), Layer::Conv2D(Conv2D { padding: Padding::Valid, .. })));
        assert!(matches!(
            layer("conv_dw_1"),
            Layer::DepthwiseConv2D(DepthwiseConv2D { padding: Padding::Same, .. })
        ));
        assert!(matches!(layer("conv2d"), Layer::Conv2D(Conv2D { padding: Padding::Same, .. })));
        let epsilon = |name| match layer(name) {
            Layer::BatchNormalization(BatchNormalization { epsilon, .. }) => epsilon,
            other => panic!("{other:?}"),
        };
        assert_eq!((epsilon("conv1_bn"), epsilon("batch_normalization")), (1e-5, 1e-3));
        let shape = |g: &Graph| g.node(g.output()).output_shape.clone();
        assert_eq!(shape(&configured), shape(&graph()));
        assert_eq!(configured.base().len(), graph().base().len() + 1);
    }

    #[test]
    fn a_network_of_keras_stays_as_it_is() {
        let (before, after) = (graph(), Origin::Keras.configure(&graph()).unwrap());
        let layers = |g: &Graph| g.nodes().iter().map(|node| node.layer).collect::<Vec<_>>();
        assert_eq!(layers(&before), layers(&after));
        assert!(Origin::Torchvision.configure(&graph()).is_err());
    }

    #[test]
    fn origins_are_known_by_their_names() {
        let of = |names: &[&'static str]| Origin::of(names.iter().copied());
        assert_eq!(of(&["conv1/conv1/kernel:0", "conv1_bn/gamma"]), Origin::Keras);
        assert_eq!(of(&["features.0.0.weight", "features.0.1.running_mean"]), Origin::Torchvision);
        assert_eq!(of(&["bn1.weight", "blocks.0.0.conv_dw.weight"]), Origin::Timm);
        assert_eq!(of(&["module.model.conv_stem.weight", "module.model.bn1.weight"]), Origin::Timm);
        assert_eq!(of(&["_orig_mod.features.0.0.weight"]), Origin::Torchvision);
        assert_eq!("timm".parse::<Origin>().unwrap(), Origin::Timm);
        assert!("theano".parse::<Origin>().unwrap_err().to_string().contains("`theano`"));
    }
}
