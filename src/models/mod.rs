//! The networks, each declared as a graph of named layers.
//!
//! A classifier is a base that makes features of images, and a [`Head`] that makes class
//! probabilities of features. Layers carry Keras' names, so that Keras' weights load by name.

mod alexnet;
mod attack_generator;
mod deeplab_v3_plus;
mod mobilenet;
mod mobilenet_v2;
mod resnet50_v2;
mod vgg16;

pub use alexnet::alexnet;
pub use attack_generator::attack_generator;
pub use deeplab_v3_plus::deeplab_v3_plus;
pub use mobilenet::mobilenet;
pub use mobilenet_v2::mobilenet_v2;
pub use resnet50_v2::resnet50_v2;
pub use vgg16::vgg16;

use crate::activation::Activation;
use crate::data::CLASSES;
use crate::data::image::Preprocess;
use crate::error::{Error, Result, names};
use crate::nn::layers::Layer;
use crate::nn::{Graph, Id};

/// The networks' names, as [`Spec::name`] and the command line take them.
///
/// ```
/// for name in atrous::models::NAMES {
///     let graph = atrous::models::by_name(name, 224, 20)?;
///     assert_eq!(graph.name, name);
/// }
/// # Ok::<(), atrous::Error>(())
/// ```
pub const NAMES: [&str; 6] =
    ["alexnet", "vgg16", "resnet50v2", "mobilenet", "mobilenetv2", "deeplabv3plus"];

/// Height and width of images at most, in pixels: what is trained can be saved and read again.
///
/// ```
/// use atrous::models::{LARGEST_SIDE, by_name};
///
/// assert!(by_name("alexnet", LARGEST_SIDE, 20).is_ok());
/// assert!(by_name("alexnet", LARGEST_SIDE + 1, 20).is_err());
/// ```
pub const LARGEST_SIDE: usize = 4096;

/// Classes at most that a network is built for.
///
/// ```
/// use atrous::models::{LARGEST_CLASSES, by_name};
///
/// assert!(by_name("alexnet", 150, LARGEST_CLASSES).is_ok());
/// assert!(by_name("alexnet", 150, LARGEST_CLASSES + 1).is_err());
/// ```
pub const LARGEST_CLASSES: usize = crate::data::classes::MOST;

/// What makes classes of a base's features.
///
/// ```
/// use atrous::models::{Head, mobilenet};
///
/// let base = mobilenet(64, 20, Head::None)?;
/// let pooled = mobilenet(64, 20, Head::Pooled)?;
/// assert_eq!(base.node(base.output()).output_shape, [2, 2, 1024]); // features, at 1/32 of the side
/// assert_eq!(pooled.node(pooled.output()).output_shape, [20]);
/// assert_eq!(pooled.cost().parameters - base.cost().parameters, 1024 * 20 + 20);
/// assert_eq!("pooled".parse::<Head>()?, Head::Pooled); // as files and the command line name it
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "checkpoint", serde(rename_all = "lowercase"))]
pub enum Head {
    /// The one each network was published with in the notebook this pipeline replaces: hidden
    /// layers where it had some, softmax or sigmoid as it had it.
    #[default]
    Notebook,
    /// Global average pool, dropout .2, one sigmoid a class: labels are not exclusive, and few
    /// images do not carry a head with more parameters than the base.
    Pooled,
    /// The 1000 exclusive classes of ImageNet, as `keras.applications` builds it for each base.
    ImageNet,
    /// No head: features.
    None,
}

names! { "head" Head { Notebook: "notebook", Pooled: "pooled", ImageNet: "imagenet", None: "none" } }

/// Which network, for which images and classes: enough to build its graph again.
///
/// ```
/// use atrous::models::{Head, Spec};
///
/// let spec = Spec::new("deeplabv3plus", 96, 21);
/// assert!(spec.segments());
/// let graph = spec.graph()?;
/// assert_eq!(graph.node(graph.output()).output_shape, [96, 96, 21]); // logits of each pixel's classes
///
/// let spec = Spec { head: Head::Pooled, ..Spec::new("mobilenet", 96, 20) };
/// assert_eq!(spec.graph()?.find("dropout").is_some(), !spec.segments());
/// assert!(Spec { head: Head::Pooled, ..Spec::new("alexnet", 150, 20) }.graph().is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize, serde::Deserialize))]
pub struct Spec {
    /// One of [`NAMES`].
    pub name: String,
    /// Height and width of the images, in pixels.
    pub size: usize,
    /// How many it tells apart: 20 of VOC, 21 with the background where it labels every pixel.
    pub classes: usize,
    /// What makes classes of the base's features.
    pub head: Head,
}

impl Spec {
    /// The network with the notebook's head.
    pub fn new(name: &str, size: usize, classes: usize) -> Self {
        Spec { name: name.into(), size, classes, head: Head::Notebook }
    }

    /// An error where pixels or classes are none, or more than there are networks for.
    pub(crate) fn check(&self) -> Result<()> {
        check_side(self.size)?;
        match self.classes {
            1..=LARGEST_CLASSES => Ok(()),
            got => Err(Error::argument(
                "classes",
                format!("expected 1 to {LARGEST_CLASSES} (`--classes`), got {got}"),
            )),
        }
    }

    /// The graph; an error for a name that is unknown, a head the network does not come with, a size above
    /// [`LARGEST_SIDE`] or too small for it, and for no or more than [`LARGEST_CLASSES`] classes.
    pub fn graph(&self) -> Result<Graph> {
        self.check()?;
        let Spec { size, classes, head, .. } = *self;
        match self.name.as_str() {
            "alexnet" if head == Head::Notebook => alexnet(size, classes),
            "deeplabv3plus" if head == Head::Notebook => deeplab_v3_plus(size, classes),
            "alexnet" | "deeplabv3plus" => Err(no_head(&self.name, head)),
            "vgg16" => vgg16(size, classes, head),
            "resnet50v2" => resnet50_v2(size, classes, head),
            "mobilenet" => mobilenet(size, classes, head),
            "mobilenetv2" => mobilenet_v2(size, classes, head),
            name => Err(Error::unknown("model", name, &NAMES)),
        }
    }

    /// True for a network that labels every pixel.
    pub fn segments(&self) -> bool {
        segments(&self.name)
    }
}

fn segments(name: &str) -> bool {
    name == "deeplabv3plus"
}

/// A network with the notebook's head, by its name, for images of the given side and this many
/// classes; errors as in [`Spec::graph`].
///
/// ```
/// use atrous::models::by_name;
///
/// assert_eq!(by_name("alexnet", 150, 20)?.cost().parameters, 777_695);
/// let error = by_name("lenet", 150, 20).unwrap_err().to_string();
/// assert!(error.contains("`lenet` is none of `alexnet`, `vgg16`"), "{error}");
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn by_name(name: &str, side: usize, classes: usize) -> Result<Graph> {
    Spec::new(name, side, classes).graph()
}

/// The side of the images a network of this name was designed for, in pixels.
///
/// ```
/// use atrous::models::default_side;
///
/// assert_eq!(["alexnet", "vgg16", "mobilenetv2"].map(default_side), [150, 224, 256]);
/// ```
pub fn default_side(name: &str) -> usize {
    match name {
        "alexnet" => 150,
        "mobilenetv2" => 256,
        _ => 224,
    }
}

/// The classes of VOC as a network of this name tells them apart: 20; a network that labels every pixel
/// has the background as one more.
///
/// ```
/// use atrous::models::default_classes;
///
/// assert_eq!(["vgg16", "deeplabv3plus"].map(default_classes), [20, 21]);
/// ```
pub fn default_classes(name: &str) -> usize {
    CLASSES.len() + segments(name) as usize
}

/// The range of pixel values that a network's pre-trained weights expect.
///
/// ```
/// use atrous::data::image::Preprocess;
/// use atrous::models::preprocess;
///
/// assert_eq!(preprocess("alexnet"), Preprocess::Unit); // 0 to 1
/// assert_eq!(preprocess("mobilenet"), Preprocess::Symmetric); // −1 to 1
/// ```
pub fn preprocess(name: &str) -> Preprocess {
    match name {
        "vgg16" => Preprocess::Caffe,
        "alexnet" => Preprocess::Unit,
        _ => Preprocess::Symmetric,
    }
}

fn check_side(side: usize) -> Result<()> {
    match side {
        1..=LARGEST_SIDE => Ok(()),
        got => Err(Error::argument(
            "size",
            format!("expected pictures of 1 to {LARGEST_SIDE} pixels a side (`--size`), got {got}"),
        )),
    }
}

fn no_head(name: &str, head: Head) -> Error {
    Error::argument("head", format!("`{name}` does not come with the head `{head}`"))
}

/// A dense layer with an activation of its own.
fn dense(units: usize, activation: Activation) -> Layer {
    Layer::dense(units).with_activation(activation)
}

/// The classes of ImageNet's challenge, ILSVRC 2012.
const IMAGENET: usize = 1000;

/// Layers with the names that Keras gives them.
type Named = (&'static str, Layer);

/// ImageNet's head on the mean of each feature: a logit a class, and the softmax over them.
fn pooled_imagenet(pooling: &'static str) -> [Named; 2] {
    let predictions = dense(IMAGENET, Activation::Softmax);
    [(pooling, Layer::GlobalAveragePooling2D), ("predictions", predictions)]
}

/// Ends the base in `features` and puts the head on it; `notebook` is what the notebook had there, `imagenet`
/// what Keras has.
fn add_head(
    g: &mut Graph,
    features: Id,
    classes: usize,
    head: Head,
    notebook: &[Layer],
    imagenet: &[Named],
) -> Result<()> {
    g.end_base();
    let pooled =
        [Layer::GlobalAveragePooling2D, Layer::Dropout(0.2), dense(classes, Activation::Sigmoid)];
    let layers = match head {
        Head::None => &[],
        Head::Pooled => &pooled[..],
        Head::Notebook => notebook,
        Head::ImageNet if classes != IMAGENET => {
            let message = format!("`{head}` tells {IMAGENET} classes apart, not {classes}");
            return Err(Error::argument("head", message));
        }
        Head::ImageNet => {
            let named = |x: Id, (name, layer): &Named| g.add_named(name, *layer, &[x]);
            return imagenet.iter().try_fold(features, named).map(|_| ());
        }
    };
    g.chain(features, layers.iter().copied()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_the_largest_is_refused_by_every_network_and_the_largest_is_not() {
        for name in NAMES {
            let graph = |size, classes| by_name(name, size, classes);
            for size in [0, LARGEST_SIDE + 1, 1 << 32, usize::MAX] {
                let error = graph(size, 20).unwrap_err().to_string();
                assert!(error.contains("1 to 4096 pixels a side (`--size`), got "), "{error}");
                assert!(error.ends_with(&size.to_string()), "{error}");
            }
            for classes in [0, LARGEST_CLASSES + 1, usize::MAX] {
                let error = graph(224, classes).unwrap_err().to_string();
                assert!(error.contains("1 to 100000 (`--classes`), got "), "{error}");
            }
            let cost = graph(LARGEST_SIDE, LARGEST_CLASSES).unwrap().cost();
            assert!(cost.flops > 1 << 30 && cost.activation_bytes > 1 << 30, "{name}: {cost:?}");
        }
        assert!(attack_generator(LARGEST_SIDE + 1).is_err() && attack_generator(usize::MAX).is_err());
    }

    /// (The numbers are those of `keras.applications`' table of models.)
    #[test]
    fn with_imagenets_heads_networks_have_as_many_parameters_as_those_of_keras() {
        let keras = [
            ("vgg16", 138_357_544, "predictions"),
            ("resnet50v2", 25_613_800, "predictions"),
            ("mobilenet", 4_253_864, "conv_preds"),
            ("mobilenetv2", 3_538_984, "predictions"),
        ];
        let spec = |name, classes| Spec { head: Head::ImageNet, ..Spec::new(name, 224, classes) };
        for (name, parameters, last) in keras {
            let graph = spec(name, 1000).graph().unwrap();
            let own = |node: &crate::nn::Node| -> usize {
                node.parameters.iter().map(|p| p.shape.iter().product::<usize>()).sum()
            };
            assert_eq!(graph.nodes().iter().map(own).sum::<usize>(), parameters, "{name}");
            assert_eq!(graph.node(graph.output()).output_shape, [1000]);
            let above: usize = graph.nodes()[graph.base().len()..].iter().map(own).sum();
            assert!(graph.find(last).is_some() && above > 1_000_000, "{name}: {above}");
            let error = spec(name, 20).graph().unwrap_err().to_string();
            assert!(error.contains("tells 1000 classes apart, not 20"), "{error}");
        }
        for name in ["alexnet", "deeplabv3plus"] {
            assert!(spec(name, 1000).graph().is_err());
        }
    }
}
