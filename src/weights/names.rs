//! Name tables: what the frameworks call the layers that Keras gives their names.
//!
//! **Keras.** The path of a weight is its layer and its kind, `conv1/kernel`. Files decorate it:
//! `conv1/conv1/kernel:0` (the group of the layer before it), `mobilenet/conv1/kernel:0` (a network
//! within another), `block1_conv1/block1_conv1_W_1:0` (the VGG16 file of 2016),
//! `layers/conv1/vars/0` (Keras 3, numbered). The last two parts say it all. Keras 3 calls a
//! depthwise kernel `kernel`, Keras 2 `depthwise_kernel`.
//!
//! **torchvision and timm.** A module and a tensor of it, `features.1.conv.0.0.weight`; the tables
//! of [`Base::modules`] give each module its Keras layer. Tensors are turned round:
//!
//! | layer      | there                         | here                              |
//! |------------|-------------------------------|-----------------------------------|
//! | Conv2D     | `weight` \[O, I, h, w\]       | `kernel` \[h, w, I, O\]           |
//! | depthwise  | `weight` \[C, 1, h, w\]       | `depthwise_kernel` \[h, w, C, 1\] |
//! | Dense      | `weight` \[O, I\]             | `kernel` \[I, O\]                 |
//! | batch norm | `weight`, `bias`              | `gamma`, `beta`                   |
//! |            | `running_mean`, `running_var` | `moving_mean`, `moving_variance`  |

use super::Origin;
use super::wrappers::Wrapping;
use crate::error::{Error, Result};
use crate::nn::Graph;

/// The networks that pre-trained weights are for, known by the names of their layers, whatever
/// stands on top of them.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::weights::{Origin, names::Base};
///
/// let graph = Spec::new("mobilenetv2", 32, 20).graph()?;
/// let base = Base::of(&graph).unwrap();
/// assert_eq!(base, Base::MobileNetV2);
/// let first = &base.modules(Origin::Timm)?[0];
/// assert_eq!((first.0.as_str(), first.1.as_str()), ("conv_stem", "Conv1"));
/// assert!(Base::MobileNet.modules(Origin::Torchvision).is_err()); // which has no first MobileNet
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Simonyan and Zisserman, 2014: 13 convolutions in five blocks.
    Vgg16,
    /// He et al., "Identity Mappings in Deep Residual Networks", 2016.
    ResNet50V2,
    /// Howard et al., 2017: depthwise separable convolutions. The base of DeepLabV3+ here, too.
    MobileNet,
    /// Sandler et al., 2018: inverted residuals.
    MobileNetV2,
}

/// Blocks of each part of VGG16, and where its convolutions are in torchvision's `features`.
const VGG16: [&[usize]; 5] = [&[0, 2], &[5, 7], &[10, 12, 14], &[17, 19, 21], &[24, 26, 28]];
/// Blocks of each stage.
const MOBILENET: [usize; 5] = [1, 2, 2, 6, 2];
const MOBILENET_V2: [usize; 7] = [1, 2, 3, 4, 3, 3, 1];

impl Base {
    /// The base of a graph, by a layer that only it has; None where there is none (AlexNet).
    pub fn of(graph: &Graph) -> Option<Base> {
        let has = |name: &str| graph.find(name).is_some();
        let known = [
            (Base::Vgg16, "block1_conv1"),
            (Base::ResNet50V2, "conv2_block1_preact_bn"),
            (Base::MobileNet, "conv_dw_1"),
            (Base::MobileNetV2, "expanded_conv_depthwise"),
        ];
        known.into_iter().find(|(_, first)| has(first)).map(|(base, _)| base)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Base::Vgg16 => "VGG16",
            Base::ResNet50V2 => "ResNet50V2",
            Base::MobileNet => "MobileNet",
            Base::MobileNetV2 => "MobileNetV2",
        }
    }

    /// The modules of another framework and the Keras layers they are; an error where the framework
    /// has no network that is the same function.
    pub fn modules(self, origin: Origin) -> Result<Vec<(String, String)>> {
        let mut modules = Vec::new();
        let mut is = |module: String, layer: String| modules.push((module, layer));
        match (self, origin) {
            (_, Origin::Keras) => {}
            // timm's VGG keeps torchvision's names.
            (Base::Vgg16, _) => {
                for (block, places) in VGG16.iter().enumerate() {
                    for (i, place) in places.iter().enumerate() {
                        is(format!("features.{place}"), format!("block{}_conv{}", block + 1, i + 1));
                    }
                }
            }
            (Base::MobileNetV2, Origin::Torchvision) => {
                is("features.0.0".into(), "Conv1".into());
                is("features.0.1".into(), "bn_Conv1".into());
                for i in 0..MOBILENET_V2.iter().sum() {
                    let module = |part: &str| format!("features.{}.conv.{part}", i + 1);
                    let (layer, first) = (v2_block(i), usize::from(i > 0));
                    if i > 0 {
                        is(module("0.0"), format!("{layer}_expand"));
                        is(module("0.1"), format!("{layer}_expand_BN"));
                    }
                    is(module(&format!("{first}.0")), format!("{layer}_depthwise"));
                    is(module(&format!("{first}.1")), format!("{layer}_depthwise_BN"));
                    is(module(&format!("{}", first + 1)), format!("{layer}_project"));
                    is(module(&format!("{}", first + 2)), format!("{layer}_project_BN"));
                }
                is("features.18.0".into(), "Conv_1".into());
                is("features.18.1".into(), "Conv_1_bn".into());
                is("classifier.1".into(), "predictions".into());
            }
            (Base::MobileNetV2, Origin::Timm) => {
                is("conv_stem".into(), "Conv1".into());
                is("bn1".into(), "bn_Conv1".into());
                for (i, block) in blocks(&MOBILENET_V2).enumerate() {
                    let layer = v2_block(i);
                    // The first block does not expand: its numbers are one lower.
                    let parts: &[_] = match i {
                        0 => &[("conv_dw", "bn1", "depthwise"), ("conv_pw", "bn2", "project")],
                        _ => &[
                            ("conv_pw", "bn1", "expand"),
                            ("conv_dw", "bn2", "depthwise"),
                            ("conv_pwl", "bn3", "project"),
                        ],
                    };
                    for (conv, norm, part) in parts {
                        is(format!("{block}.{conv}"), format!("{layer}_{part}"));
                        is(format!("{block}.{norm}"), format!("{layer}_{part}_BN"));
                    }
                }
                is("conv_head".into(), "Conv_1".into());
                is("bn2".into(), "Conv_1_bn".into());
                is("classifier".into(), "predictions".into());
            }
            (Base::MobileNet, Origin::Timm) => {
                is("conv_stem".into(), "conv1".into());
                is("bn1".into(), "conv1_bn".into());
                for (i, block) in blocks(&MOBILENET).enumerate() {
                    for (conv, norm, part) in [("conv_dw", "bn1", "dw"), ("conv_pw", "bn2", "pw")] {
                        is(format!("{block}.{conv}"), format!("conv_{part}_{}", i + 1));
                        is(format!("{block}.{norm}"), format!("conv_{part}_{}_bn", i + 1));
                    }
                }
                is("classifier".into(), "conv_preds".into());
            }
            (Base::MobileNet, Origin::Torchvision) => {
                return Err(no_counterpart(self, origin, "torchvision has no first MobileNet"));
            }
            (Base::ResNet50V2, Origin::Torchvision) => {
                let why = "its resnet50 normalises after each convolution, Keras' ResNet50V2 before";
                return Err(no_counterpart(self, origin, why));
            }
            (Base::ResNet50V2, Origin::Timm) => {
                let why = "its resnetv2_50 halves the picture in the first block of a stage, Keras' \
                           ResNet50V2 in the last, and its convolutions have no biases";
                return Err(no_counterpart(self, origin, why));
            }
        }
        Ok(modules)
    }
}

fn no_counterpart(base: Base, origin: Origin, why: &str) -> Error {
    let name = base.name();
    let message =
        format!("{origin}'s weights do not fit {name}: {why}. Use a file of {name} that Keras wrote");
    Error::argument("weights", message)
}

/// Keras' name of MobileNetV2's i-th block.
fn v2_block(i: usize) -> String {
    if i == 0 { "expanded_conv".into() } else { format!("block_{i}") }
}

/// timm's names of blocks: `blocks.STAGE.BLOCK`.
fn blocks(stages: &[usize]) -> impl Iterator<Item = String> {
    let stage = |(i, &n): (usize, &usize)| (0..n).map(move |block| format!("blocks.{i}.{block}"));
    stages.iter().enumerate().flat_map(stage)
}

/// How a tensor of a file is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As here: HWIO, \[in, out\].
    Keras,
    /// OIHW, \[out, in\].
    Torch,
}

/// What a name in a file means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The parameter with this Keras path.
    Parameter(String, Layout),
    /// No weight of a layer: an optimizer's state, a counter of steps.
    Aside,
    /// A weight of a layer that the network does not have.
    Unknown,
}

/// Knows the parameters of a graph by the names of an origin.
pub(crate) struct Names<'a> {
    graph: &'a Graph,
    modules: Vec<(String, String)>,
    wrapping: Wrapping,
}

impl<'a> Names<'a> {
    pub(crate) fn new(graph: &'a Graph, origin: Origin) -> Result<Self> {
        let modules = match Base::of(graph) {
            Some(base) => base.modules(origin)?,
            None => Vec::new(),
        };
        Ok(Names { graph, modules, wrapping: Wrapping::default() })
    }

    /// Knows them under the prefix that a file has in front of them, too.
    pub(super) fn wrapped_as<'b>(self, names: impl Iterator<Item = &'b str>) -> Result<Self, String> {
        let modules = self.modules.iter().map(|(module, _)| module.as_str());
        let wrapping = Wrapping::of(names, modules)?;
        Ok(Names { wrapping, ..self })
    }

    /// What is taken off a name before it is looked up, or nothing.
    pub(super) fn taken_off(&self, name: &str) -> String {
        self.wrapping.taken_off(name)
    }

    /// Names with slashes are Keras' in files of any origin: [`save`](super::save) writes such.
    pub(crate) fn meaning(&self, name: &str) -> Meaning {
        match name.contains('/') {
            true => self.of_keras(name),
            false => self.of_torch(&self.wrapping.bare(name)),
        }
    }

    /// The kinds of a layer's parameters, in Keras' order.
    fn kinds(&self, layer: &str) -> Option<Vec<&'static str>> {
        let node = self.graph.node(self.graph.find(layer)?);
        node.inputs.first()?;
        Some(node.parameters.iter().map(|spec| spec.kind).collect())
    }

    fn of_keras(&self, name: &str) -> Meaning {
        if name.starts_with("optimizer") {
            return Meaning::Aside;
        }
        let mut parts = name.rsplit('/');
        let mut kind = parts.next().unwrap_or_default();
        kind = kind.split_once(':').map_or(kind, |(kind, _)| kind);
        let mut layer = parts.next().unwrap_or_default();
        let numbered = layer == "vars";
        if numbered {
            layer = parts.next().unwrap_or_default();
        }
        let Some(kinds) = self.kinds(layer) else { return Meaning::Unknown };
        let old = kind.strip_prefix(layer).unwrap_or_default();
        let kind = match kind {
            _ if numbered => kind.parse().ok().and_then(|i: usize| kinds.get(i).copied()),
            "kernel" if kinds.contains(&"depthwise_kernel") => Some("depthwise_kernel"),
            _ if old.starts_with("_W") => Some("kernel"),
            _ if old.starts_with("_b") => Some("bias"),
            _ => kinds.iter().find(|&&known| known == kind).copied(),
        };
        match kind.filter(|kind| kinds.contains(kind)) {
            Some(kind) => Meaning::Parameter(format!("{layer}/{kind}"), Layout::Keras),
            None => Meaning::Unknown,
        }
    }

    fn of_torch(&self, name: &str) -> Meaning {
        let Some((module, tensor)) = name.rsplit_once('.') else { return Meaning::Unknown };
        if tensor == "num_batches_tracked" {
            return Meaning::Aside;
        }
        let layer = self.modules.iter().find(|(known, _)| known == module).map(|(_, layer)| layer);
        let kinds = layer.and_then(|layer| self.kinds(layer)).unwrap_or_default();
        let wanted = match tensor {
            "weight" => &["kernel", "depthwise_kernel", "gamma"][..],
            "bias" => &["bias", "beta"],
            "running_mean" => &["moving_mean"],
            "running_var" => &["moving_variance"],
            _ => &[],
        };
        match (layer, kinds.iter().find(|kind| wanted.contains(kind))) {
            (Some(layer), Some(kind)) => Meaning::Parameter(format!("{layer}/{kind}"), Layout::Torch),
            _ => Meaning::Unknown,
        }
    }
}

/// The order of axes in which a file holds a parameter: axis i of the file is axis `order[i]` here.
pub(super) fn order(layout: Layout, kind: &str, rank: usize) -> &'static [usize] {
    match (layout, kind, rank) {
        (Layout::Torch, "kernel", 4) => &[3, 2, 0, 1],
        (Layout::Torch, "depthwise_kernel", 4) => &[2, 3, 0, 1],
        (Layout::Torch, "kernel", 2) => &[1, 0],
        _ => &[0, 1, 2, 3][..rank],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::layers::Layer;
    use std::collections::HashSet;

    /// The first layers of MobileNet, enough to be known as it.
    fn graph() -> Graph {
        let mut g = Graph::new("mobilenet", "input_1", [8, 8, 3]);
        let conv = Layer::conv2d(4, 3);
        let x = g.add_named("conv1", conv, &[g.input()]).unwrap();
        let x = g.add_named("conv1_bn", Layer::batch_normalization(), &[x]).unwrap();
        g.add_named("conv_dw_1", Layer::depthwise_conv2d(), &[x]).unwrap();
        g
    }

    #[test]
    fn keras_names_are_found_under_all_their_decorations() {
        let graph = graph();
        let names = Names::new(&graph, Origin::Keras).unwrap();
        let is = |name: &str, path: &str| {
            let expected = Meaning::Parameter(path.to_owned(), Layout::Keras);
            assert_eq!(names.meaning(name), expected, "{name}");
        };
        is("conv1/kernel", "conv1/kernel");
        is("conv1/conv1/kernel:0", "conv1/kernel");
        is("mobilenet/conv1/bias:0", "conv1/bias");
        is("dense/sequential/conv1/bias", "conv1/bias");
        is("conv1/conv1_W_1:0", "conv1/kernel");
        is("conv1/conv1_b_1:0", "conv1/bias");
        is("layers/conv1_bn/vars/2", "conv1_bn/moving_mean");
        is("conv_dw_1/kernel", "conv_dw_1/depthwise_kernel");
        is("conv_dw_1/conv_dw_1/depthwise_kernel:0", "conv_dw_1/depthwise_kernel");
        is("model/conv1_bn/gamma", "conv1_bn/gamma");
        for unknown in ["conv2/kernel:0", "conv_dw_1/bias:0", "layers/conv1/vars/2", "conv1/gamma"] {
            assert_eq!(names.meaning(unknown), Meaning::Unknown, "{unknown}");
        }
        assert_eq!(names.meaning("optimizer/m/conv1/kernel"), Meaning::Aside);
    }

    #[test]
    fn torch_names_take_their_kind_from_the_layer() {
        let graph = graph();
        let names = Names::new(&graph, Origin::Timm).unwrap();
        let is = |name: &str, path: &str| {
            let expected = Meaning::Parameter(path.to_owned(), Layout::Torch);
            assert_eq!(names.meaning(name), expected, "{name}");
        };
        is("conv_stem.weight", "conv1/kernel");
        is("bn1.weight", "conv1_bn/gamma");
        is("bn1.running_var", "conv1_bn/moving_variance");
        is("blocks.0.0.conv_dw.weight", "conv_dw_1/depthwise_kernel");
        assert_eq!(names.meaning("bn1.num_batches_tracked"), Meaning::Aside);
        assert_eq!(names.meaning("blocks.0.0.conv_pw.weight"), Meaning::Unknown);
        assert_eq!(names.meaning("weight"), Meaning::Unknown);
    }

    #[test]
    fn no_module_and_no_layer_is_in_a_table_twice() {
        for base in [Base::Vgg16, Base::MobileNet, Base::MobileNetV2] {
            for origin in [Origin::Torchvision, Origin::Timm] {
                let Ok(modules) = base.modules(origin) else { continue };
                let count = |one: fn(&(String, String)) -> &String| {
                    modules.iter().map(one).collect::<HashSet<_>>().len()
                };
                assert!(!modules.is_empty());
                assert_eq!((count(|m| &m.0), count(|m| &m.1)), (modules.len(), modules.len()));
            }
        }
    }

    #[test]
    fn networks_that_are_other_functions_are_refused_with_the_reason() {
        let error = |base: Base, origin| base.modules(origin).unwrap_err().to_string();
        let timm = error(Base::ResNet50V2, Origin::Timm);
        assert!(timm.contains("first block of a stage") && timm.contains("Keras wrote"), "{timm}");
        assert!(error(Base::ResNet50V2, Origin::Torchvision).contains("normalises after"));
        assert!(error(Base::MobileNet, Origin::Torchvision).contains("no first MobileNet"));
    }
}
