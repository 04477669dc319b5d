//! What each branch of an atrous spatial pyramid sees, and what it is for (DeepLabV3+; Chen et al., 2018).
//!
//! The branches read the same feature map with kernels whose taps are further and further apart. On a small
//! map most taps of a large dilation fall into the padding: at 14×14 and dilation 18, a 3×3 kernel is a 1×1
//! one everywhere. Which is why the authors count valid weights (Chen et al., 2017, section 3.2).

use super::layers::feature_map;
use crate::autograd::no_grad;
use crate::data::Mask;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::layers::{Conv2D, Layer};
use crate::nn::{Graph, Id, Mode, Model, Node};
use crate::predict::masks_of;
use crate::tensor::{DType, Tensor};

/// One of the feature maps that a pyramid joins.
///
/// [`atrous_branches()`] has an example.
#[derive(Clone, Debug, PartialEq)]
pub struct AtrousBranch {
    /// The layer whose output is joined with the others'.
    pub output: String,
    /// The convolution that it is made by.
    pub convolution: String,
    /// [height, width] of its kernel, in taps.
    pub kernel: [usize; 2],
    /// Pixels of the feature map from one tap to the next.
    pub dilation: [usize; 2],
    /// Whether it sees the mean of the whole map (image pooling).
    pub pools_image: bool,
}

/// The taps of a branch's kernel that are within the feature map, for each pixel of its output.
///
/// ```
/// use atrous::explain::atrous_branches::taps;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [5, 5, 3]);
/// let atrous = Layer::conv2d(4, 3).with_padding(Padding::Same).with_dilation(2);
/// graph.add(atrous, &[graph.input()])?;
/// let map = taps(&graph, "conv2d")?;
/// assert_eq!((map.counts()[0], map.counts()[12]), (4, 9)); // a corner, and the middle
/// assert!(map.touches([0, 0], [1, 1]) && !map.touches([0, 0], [0, 1]));
/// // Of the five places of an axis one has three taps on the image, the others two.
/// assert!((map.share() - (11.0f64 / 15.0).powi(2)).abs() < 1e-9);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapMap {
    /// Rows of the output.
    pub height: usize,
    /// Columns of the output.
    pub width: usize,
    /// [height, width] of the kernel.
    pub kernel: [usize; 2],
    /// For each pixel, row by row, whether each tap, row by row, touches data: bit 0 is the first tap.
    pub touching: Vec<u64>,
}

impl TapMap {
    /// How many taps touch data at each pixel, row by row: 1 to 9 of a 3×3 kernel with `same` padding.
    pub fn counts(&self) -> Vec<u32> {
        self.touching.iter().map(|taps| taps.count_ones()).collect()
    }

    /// Whether a tap [row, column] of the kernel touches data at the pixel [y, x].
    pub fn touches(&self, [y, x]: [usize; 2], [row, column]: [usize; 2]) -> bool {
        self.touching[y * self.width + x] >> (row * self.kernel[1] + column) & 1 == 1
    }

    /// The share of all taps of all pixels that touch data, 0 to 1.
    pub fn share(&self) -> f64 {
        let all = self.touching.len() * self.kernel[0] * self.kernel[1];
        self.counts().iter().map(|&count| count as f64).sum::<f64>() / all.max(1) as f64
    }
}

/// What a network says without one of its branches.
///
/// [`without_branches`] has an example.
#[derive(Clone)]
pub struct WithoutBranch {
    /// The branch whose output was set to 0.
    pub branch: AtrousBranch,
    /// What the network says then.
    pub mask: Mask,
    /// The share of pixels that are of another class than with all branches, 0 to 1.
    pub changed: f64,
}

/// The branches of a network's atrous spatial pyramid, in the order in which it joins them: the inputs of the
/// first concatenation of which one is made by a dilated convolution. An error where there is none.
///
/// ```
/// use atrous::explain::atrous_branches::atrous_branches;
/// use atrous::models::deeplab_v3_plus;
///
/// let branches = atrous_branches(&deeplab_v3_plus(224, 21)?)?;
/// let dilations: Vec<usize> = branches.iter().map(|branch| branch.dilation[0]).collect();
/// assert_eq!(dilations, [1, 1, 6, 12, 18]);
/// assert!(branches[0].pools_image);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn atrous_branches(graph: &Graph) -> Result<Vec<AtrousBranch>> {
    let joins = graph.nodes().iter().filter(|node| node.layer == Layer::Concatenate);
    let pyramid = joins.map(|node| branches_of(graph, node)).find(|branches| {
        branches.iter().any(|branch| branch.dilation.iter().any(|&dilation| dilation > 1))
    });
    pyramid.ok_or_else(|| {
        let message = format!("`{}` joins no dilated convolutions: expected DeepLabV3+", graph.name);
        Error::argument("atrous branches", message)
    })
}

/// The inputs of a concatenation that are made by a convolution.
fn branches_of(graph: &Graph, concatenation: &Node) -> Vec<AtrousBranch> {
    concatenation.inputs.iter().filter_map(|&id| branch(graph, id)).collect()
}

/// Back from a joined feature map to its convolution, and a little further: is there a pool in front of it?
fn branch(graph: &Graph, output: Id) -> Option<AtrousBranch> {
    let mut node = graph.node(output);
    let Conv2D { kernel, dilation, .. } = loop {
        node = match node.layer {
            Layer::Conv2D(convolution) => break convolution,
            Layer::BatchNormalization(_) | Layer::Activation(_) | Layer::UpSampling2D(_) => {
                graph.node(*node.inputs.first()?)
            }
            _ => return None,
        };
    };
    let before = &graph.node(*node.inputs.first()?).layer;
    let pools_image = matches!(before, Layer::AveragePooling2D(_));
    let (output, convolution) = (graph.node(output).name.clone(), node.name.clone());
    Some(AtrousBranch { output, convolution, kernel, dilation, pools_image })
}

/// Which taps of a convolution's kernel touch data, by the layer's name ([`AtrousBranch::convolution`]). An
/// error for a layer that is no convolution, and a kernel of more than 64 taps.
///
/// ```
/// use atrous::explain::atrous_branches::taps;
/// use atrous::models::deeplab_v3_plus;
///
/// let graph = deeplab_v3_plus(224, 21)?;
/// let [at_6, at_18] = [taps(&graph, "conv2d_2")?, taps(&graph, "conv2d_4")?];
/// assert_eq!((at_6.counts()[0], at_6.counts()[6 * 14 + 6]), (4, 9));
/// // Of 14×14 pixels none has a neighbour 18 away.
/// assert!(at_18.counts().iter().all(|&count| count == 1));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn taps(graph: &Graph, convolution: &str) -> Result<TapMap> {
    let [height, width, _] = feature_map(graph, convolution)?;
    let node = graph.nodes().iter().find(|node| node.name == convolution);
    let (layer, input) = match node.map(|node| (node.layer, &node.inputs[..])) {
        Some((Layer::Conv2D(layer), &[input])) => (layer, graph.node(input)),
        _ => {
            let message = format!("expected a convolution, got `{convolution}`");
            return Err(Error::argument("taps", message));
        }
    };
    let kernel @ [rows, columns] = layer.kernel;
    if rows * columns > 64 {
        let message = format!("expected a kernel of at most 64 taps, got {rows}×{columns}");
        return Err(Error::argument("taps", message));
    }
    let touching_y = touching(&layer, 0, height, input.output_shape[0])?;
    let touching_x = touching(&layer, 1, width, input.output_shape[1])?;
    let pixel = |y: usize, x: usize| {
        let taps = (0..rows * columns).filter(|tap| {
            touching_y[y] >> (tap / columns) & 1 == 1 && touching_x[x] >> (tap % columns) & 1 == 1
        });
        taps.fold(0, |bits, tap| bits | 1 << tap)
    };
    let touching = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let touching = touching.map(|(y, x)| pixel(y, x)).collect();
    Ok(TapMap { height, width, kernel, touching })
}

/// Along an axis, for each of `outputs` pixels, which taps are within the `inputs` there are: bit 0 is the
/// first.
fn touching(layer: &Conv2D, axis: usize, outputs: usize, inputs: usize) -> Result<Vec<u64>> {
    let (taps, dilation, stride) = (layer.kernel[axis], layer.dilation[axis], layer.stride[axis]);
    let (_, before, _) = layer.padding.resolve(inputs, (taps - 1) * dilation + 1, stride)?;
    let inside = |i: usize, tap: usize| {
        (i * stride + tap * dilation).checked_sub(before).is_some_and(|at| at < inputs)
    };
    let bits = |i: usize| (0..taps).fold(0, |bits, tap| bits | (inside(i, tap) as u64) << tap);
    Ok((0..outputs).map(bits).collect())
}

/// What a network says of an image [1, H, W, C] with all branches, and what without each of them: its output
/// set to 0, as if none of its channels had found anything. One pass each.
///
/// ```
/// use atrous::explain::atrous_branches::without_branches;
/// use atrous::models::deeplab_v3_plus;
/// use atrous::prelude::*;
///
/// let model = Model::new(deeplab_v3_plus(32, 21)?, 1);
/// let (mask, without) = without_branches(&model, &Tensor::rand([1, 32, 32, 3], 7))?;
/// assert_eq!((mask.width, without.len()), (32, 5));
/// # Ok::<(), Error>(())
/// ```
pub fn without_branches(model: &Model, x: &Tensor) -> Result<(Mask, Vec<WithoutBranch>)> {
    let branches = atrous_branches(&model.graph)?;
    let whole = mask_without(model, x, None)?;
    let without = |branch: AtrousBranch| {
        let mask = mask_without(model, x, Some(&branch.output))?;
        let changed = whole.classes.iter().zip(&mask.classes).filter(|(a, b)| a != b).count();
        let changed = changed as f64 / whole.classes.len() as f64;
        Ok(WithoutBranch { branch, mask, changed })
    };
    let without = branches.into_iter().map(without).collect::<Result<Vec<_>>>()?;
    Ok((whole, without))
}

/// The mask of one image where a layer's output is 0.
fn mask_without(model: &Model, x: &Tensor, layer: Option<&str>) -> Result<Mask> {
    let x = x.to_device(model.device())?;
    let pass = no_grad(|| {
        model.run_edited(&x.detach(), Mode::infer(), &mut |name, output| match Some(name) == layer {
            true => output.zeros_like(),
            false => Ok(output),
        })
    })?;
    model.require_finite(&x, &pass.logits)?;
    let logits = pass.logits.to_device(Device::Cpu)?.to_dtype(DType::F32);
    match &masks_of(&logits)?[..] {
        [mask] => Ok(mask.clone()),
        masks => Err(Error::shape("atrous branches", "one image", masks.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::models::deeplab_v3_plus;
    use crate::ops::{self, Conv2dOptions, Padding};

    #[test]
    fn the_branches_of_deeplab_are_found_in_their_order() {
        let found = atrous_branches(&deeplab_v3_plus(64, 21).unwrap()).unwrap();
        let told: Vec<(&str, &str, usize, usize)> = found
            .iter()
            .map(|b| (&b.output[..], &b.convolution[..], b.kernel[0], b.dilation[0]))
            .collect();
        let expected = [
            ("up_sampling2d", "conv2d", 1, 1),
            ("tf.nn.relu_1", "conv2d_1", 1, 1),
            ("tf.nn.relu_2", "conv2d_2", 3, 6),
            ("tf.nn.relu_3", "conv2d_3", 3, 12),
            ("tf.nn.relu_4", "conv2d_4", 3, 18),
        ];
        assert_eq!(told, expected);
        let pooled: Vec<bool> = found.iter().map(|branch| branch.pools_image).collect();
        assert_eq!(pooled, [true, false, false, false, false]);
        let error = atrous_branches(&crate::models::vgg16(64, 20, Default::default()).unwrap());
        assert!(error.unwrap_err().to_string().contains("`vgg16` joins no dilated"));
    }

    /// A kernel of ones over an image of ones counts the taps that are within.
    #[test]
    fn the_number_of_taps_is_what_a_kernel_of_ones_makes_of_ones() {
        for (side, dilation, stride, padding) in [
            (14, 6, 1, Padding::Same),
            (9, 2, 2, Padding::Same),
            (11, 3, 1, Padding::Cells([4, 1])),
            (8, 1, 1, Padding::Valid),
        ] {
            let mut graph = Graph::new("counted", "input", [side, side + 3, 1]);
            let layer = Layer::conv2d(1, 3).with_dilation(dilation).with_stride(stride);
            graph.chain(graph.input(), [layer.with_padding(padding)]).unwrap();
            let map = taps(&graph, "conv2d").unwrap();
            let options = Conv2dOptions { stride: [stride; 2], padding, dilation: [dilation; 2] };
            let image = Tensor::ones([1, side, side + 3, 1]);
            let counts = ops::conv2d(&image, &Tensor::ones([3, 3, 1, 1]), None, options).unwrap();
            let expected: Vec<u32> = counts.to_vec_f64().iter().map(|&count| count as u32).collect();
            assert_eq!(map.counts(), expected, "{side} {dilation} {stride} {padding:?}");
            // And each tap by itself.
            for tap in 0..9 {
                let mut kernel = vec![0.0f32; 9];
                kernel[tap] = 1.0;
                let kernel = Tensor::from_slice(&kernel, [3, 3, 1, 1]).unwrap();
                let touched = ops::conv2d(&image, &kernel, None, options).unwrap().to_vec_f64();
                for (i, touched) in touched.iter().enumerate() {
                    let (pixel, tap) = ([i / map.width, i % map.width], [tap / 3, tap % 3]);
                    assert_eq!(map.touches(pixel, tap), *touched == 1.0);
                }
            }
        }
        let graph = deeplab_v3_plus(64, 21).unwrap();
        assert!(taps(&graph, "tf.nn.relu").unwrap_err().to_string().contains("expected a convolution"));
        assert!((taps(&graph, "conv2d_2").unwrap().share() - 1.0 / 9.0).abs() < 1e-12);
    }

    /// A pyramid of four branches with eight channels each, and a classifier of its pixels.
    fn pyramid() -> Model {
        let mut g = Graph::new("pyramid", "input", [24, 24, 3]);
        let conv = |filters, kernel| Layer::conv2d(filters, kernel).with_padding(Padding::Same);
        let branch = |kernel| conv(8, kernel).with_activation(Activation::Relu);
        let features = g.add(branch(3), &[g.input()]).unwrap();
        let pooled = [Layer::average_pooling2d(24), branch(1), Layer::UpSampling2D([24; 2])];
        let mut branches = vec![g.chain(features, pooled).unwrap()];
        for layer in [branch(1), branch(3).with_dilation(2), branch(3).with_dilation(5)] {
            branches.push(g.add(layer, &[features]).unwrap());
        }
        let joined = g.add(Layer::Concatenate, &branches).unwrap();
        g.add_named("classify", conv(5, 1), &[joined]).unwrap();
        Model::new(g, 1)
    }

    #[test]
    fn a_branch_that_is_off_changes_the_mask_as_weights_of_zero_for_it_do() {
        let model = pyramid();
        let x = Tensor::rand_uniform([1, 24, 24, 3], -1.0, 1.0, 2);
        let (whole, without) = without_branches(&model, &x).unwrap();
        assert_eq!(without.len(), 4);
        for (i, without) in without.iter().enumerate() {
            // Of the classifier, 8 rows of 5 weights are for each branch.
            let mut other = model.clone();
            let kernel = &other.parameter("classify/kernel").unwrap().value;
            let (mut weights, shape) = (kernel.as_slice::<f32>().unwrap().to_vec(), kernel.shape());
            weights[i * 8 * 5..(i + 1) * 8 * 5].fill(0.0);
            other.set("classify/kernel", Tensor::from_slice(&weights, shape).unwrap()).unwrap();
            let expected = mask_without(&other, &x, None).unwrap();
            assert!(without.mask == expected, "{}", without.branch.output);
            let changed = whole.classes.iter().zip(&expected.classes).filter(|(a, b)| a != b).count();
            assert_eq!(without.changed, changed as f64 / (24.0 * 24.0));
        }
        let changed: Vec<f64> = without.iter().map(|without| without.changed).collect();
        assert!(changed.iter().all(|&changed| changed > 0.01), "{changed:?}");
    }

    #[test]
    fn two_images_are_refused() {
        let two = Tensor::zeros([2, 24, 24, 3]);
        let error = without_branches(&pyramid(), &two).err().unwrap().to_string();
        assert!(error.contains("expected one image, got 2"), "{error}");
    }
}
