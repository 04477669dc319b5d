//! What is attacked: logits as a function of images from 0 to 1, and their gradients.

use super::ball::host;
use super::objective::{AttackStatus, Objective};
use crate::activation::Activation;
use crate::context::no_grad;
use crate::data::image::Preprocess;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Mode, Model, for_inference};
use crate::ops::{self, Conv2dOptions};
use crate::tensor::{DType, Tensor};

/// A network as an attacker sees it.
///
/// Anything that makes logits of images can be attacked; attacks that use gradients need operators whose
/// gradients are recorded.
///
/// ```
/// use atrous::attack::{Victim, logits};
/// use atrous::prelude::*;
///
/// /// Class 0 where there is more red, class 1 where there is more blue.
/// struct RedOrBlue;
///
/// impl Victim for RedOrBlue {
///     fn logits(&self, x: &Tensor) -> Result<Tensor> {
///         let weights = Tensor::from([[1.0f32, 0.0], [0.0, 0.0], [0.0, 1.0]]);
///         x.global_average_pool()?.matmul(&weights)
///     }
///
///     fn side(&self) -> usize {
///         1
///     }
///
///     fn device(&self) -> Device {
///         Device::Cpu
///     }
///
///     fn exclusive(&self) -> bool {
///         true
///     }
/// }
///
/// let orange = Tensor::from([[[[1.0f32, 0.5, 0.0]]]]);
/// assert_eq!(logits(&RedOrBlue, &orange)?.to_string(), "[[1. 0.]]");
/// # Ok::<(), Error>(())
/// ```
pub trait Victim: Sync {
    /// Images [N, side, side, 3], 0 to 1 → logits [N, …, classes], on the tape where the images are.
    fn logits(&self, x: &Tensor) -> Result<Tensor>;

    /// Height and width of the images, in pixels.
    fn side(&self) -> usize;

    /// Where it runs: images are brought there.
    fn device(&self) -> Device;

    /// Whether an image (or a pixel) is of one class alone: a softmax. Else a sigmoid each.
    fn exclusive(&self) -> bool;

    /// What it is called in messages.
    fn name(&self) -> &str {
        "the victim"
    }
}

/// A network with its preprocessing in front of it, batch norms folded.
///
/// ```
/// use atrous::attack::{Network, Victim, logits};
/// use atrous::data::image::Preprocess;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("red_or_blue", "input", [4, 4, 3]);
/// let dense = Layer::dense(2).with_activation(Activation::Softmax);
/// graph.chain(graph.input(), [Layer::GlobalAveragePooling2D, dense])?;
/// let mut model = Model::new(graph, 0);
/// model.set("dense/kernel", Tensor::from([[1.0f32, 0.0], [0.0, 0.0], [0.0, 1.0]]))?;
///
/// // Its weights expect values of −1 to 1; an attack sees images of 0 to 1 all the same.
/// let network = Network::new(&model, Preprocess::Symmetric)?.named("mine");
/// assert_eq!((network.name(), network.side(), network.exclusive()), ("mine", 4, true));
/// let x = Tensor::full([1, 4, 4, 3], 0.75);
/// assert_eq!(logits(&network, &x)?.to_string(), "[[0.5 0.5]]");
/// // There is nothing to fold in it.
/// let as_it_is = Network::as_it_is(&model, Preprocess::Symmetric)?;
/// assert_eq!(logits(&as_it_is, &x)?.to_string(), "[[0.5 0.5]]");
/// # Ok::<(), Error>(())
/// ```
pub struct Network {
    name: String,
    model: Model,
    /// Kernel [1, 1, 3, 3] and bias [3] of the preprocessing, None where there is none.
    preprocess: Option<(Tensor, Tensor)>,
    exclusive: bool,
}

impl Network {
    /// A classifier, or a network that segments, rewritten for inference; `preprocess` is what its weights
    /// expect of pixel values.
    pub fn new(model: &Model, preprocess: Preprocess) -> Result<Self> {
        Self::as_it_is(&for_inference(model)?, preprocess)
    }

    /// [`Network::new`] with the layers as they are declared. Folding rounds otherwise: where a ReLU stands
    /// on a knife's edge, that changes the signs of some gradients of small size.
    pub fn as_it_is(model: &Model, preprocess: Preprocess) -> Result<Self> {
        let last = &model.graph.nodes()[model.graph.nodes().len() - 1];
        let exclusive = last.layer.activation() != Activation::Sigmoid;
        let mut model = model.clone();
        // An attack asks for the gradient by the images and for no other.
        model.parameters.iter_mut().for_each(|parameter| parameter.trainable = false);
        let device = model.device();
        let preprocess = match linear(preprocess) {
            Some((kernel, bias)) => Some((
                Tensor::from_slice(&kernel, [1, 1, 3, 3])?.to_device(device)?,
                Tensor::from_slice(&bias, [3])?.to_device(device)?,
            )),
            None => None,
        };
        Ok(Network { name: model.graph.name.clone(), model, preprocess, exclusive })
    }

    /// This network under another name: two networks may be of one kind.
    pub fn named(self, name: impl Into<String>) -> Self {
        Network { name: name.into(), ..self }
    }
}

impl Victim for Network {
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let x = match &self.preprocess {
            Some((kernel, bias)) => ops::conv2d(x, kernel, Some(bias), Conv2dOptions::default())?,
            None => x.clone(),
        };
        Ok(self.model.run(&x, Mode::infer())?.logits)
    }

    fn side(&self) -> usize {
        self.model.graph.nodes()[0].output_shape[0]
    }

    fn device(&self) -> Device {
        self.model.device()
    }

    fn exclusive(&self) -> bool {
        self.exclusive
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The preprocessing of values from 0 to 1 as a 1×1 convolution, [in, out] and [out]: each kind of it is
/// linear in a pixel. None for the identity.
fn linear(preprocess: Preprocess) -> Option<([f32; 9], [f32; 3])> {
    let of = |mut pixel: [f32; 3]| {
        preprocess.apply(&mut pixel);
        pixel
    };
    let bias = of([0.0; 3]);
    let mut kernel = [0.0; 9];
    for channel in 0..3 {
        let mut pixel = [0.0; 3];
        pixel[channel] = 255.0;
        for (k, (with, without)) in kernel[3 * channel..][..3].iter_mut().zip(of(pixel).iter().zip(bias))
        {
            *k = with - without;
        }
    }
    let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    ((kernel, bias) != (identity, [0.0; 3])).then_some((kernel, bias))
}

/// The logits of images [N, side, side, 3], on the CPU and without a tape; an error where one is no finite
/// number.
///
/// ```
/// use atrous::attack::logits;
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let z = logits(&victim, &Tensor::full([1, 4, 4, 3], 0.75))?;
/// assert_eq!(z.slice([0..1, 0..2])?.to_string(), "[[-0.75  0.75]]");
/// # Ok::<(), Error>(())
/// ```
pub fn logits(victim: &dyn Victim, x: &Tensor) -> Result<Tensor> {
    let x = x.to_device(victim.device())?;
    let logits = no_grad(|| victim.logits(&x.detach()))?.to_device(Device::Cpu)?;
    check_finite(victim, "logits", &logits)?;
    Ok(logits)
}

/// A comparison with NaN is false: a network of NaN would err, or resist, in every image.
fn check_finite(victim: &dyn Victim, what: &str, values: &Tensor) -> Result<()> {
    let values = values.to_device(Device::Cpu)?.to_dtype(DType::F32);
    let values = values.values::<f32>();
    let bad = values.iter().filter(|v| !v.is_finite()).count();
    if bad == 0 {
        return Ok(());
    }
    let message = format!(
        "the {what} of `{}` are not finite ({bad} of {}): its weights are broken; take another checkpoint, \
         or train it again",
        victim.name(),
        values.len()
    );
    Err(Error::argument("attack", message))
}

/// The logits of images, and the gradient by the images of what has the gradient that `upstream` makes of
/// each image's logits: `upstream(image, logits, gradient)`. One pass forward and one backward; no weight
/// has a gradient. An error where logits or gradients are not finite.
///
/// ```
/// use atrous::attack::gradient;
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let x = Tensor::full([1, 4, 4, 3], 0.25);
/// // By how much class 1 leads, z₁ − z₀ = 6(mean − ½), grows alike with each of the 48 values.
/// let lead = |_image: usize, _logits: &[f32], up: &mut [f32]| up[..2].copy_from_slice(&[-1.0, 1.0]);
/// let (logits, gradient) = gradient(&victim, &x, lead)?;
/// assert_eq!(logits.slice([0..1, 0..2])?.to_string(), "[[ 0.75 -0.75]]");
/// assert!(gradient.to_vec_f64().iter().all(|g| (g - 6.0 / 48.0).abs() < 1e-6));
/// # Ok::<(), Error>(())
/// ```
pub fn gradient(
    victim: &dyn Victim,
    x: &Tensor,
    mut upstream: impl FnMut(usize, &[f32], &mut [f32]),
) -> Result<(Tensor, Tensor)> {
    let device = victim.device();
    let leaf = x.to_device(device)?.detach().leaf();
    let output = victim.logits(&leaf)?;
    // An objective reads f32 and writes it, also where a network runs in f64.
    let logits = output.detach().to_device(Device::Cpu)?.to_dtype(DType::F32);
    check_finite(victim, "logits", &logits)?;
    let each = logits.shape().elements() / logits.shape()[0].max(1);
    let mut up = vec![0.0; logits.shape().elements()];
    let rows = logits.values::<f32>().chunks_exact(each).zip(up.chunks_exact_mut(each));
    rows.enumerate().for_each(|(i, (row, up))| upstream(i, row, up));
    let up = Tensor::from_slice(&up, logits.shape())?.to_dtype(output.dtype()).to_device(device)?;
    let gradient = output.backward_from(up)?.take(&leaf);
    let gradient = gradient
        .ok_or_else(|| Error::argument("attack", "the victim's logits do not depend on its pictures"))?;
    check_finite(victim, "gradients by the pictures", &gradient)?;
    Ok((logits, gradient))
}

/// How far each image of [N, side, side, 3] is led.
///
/// ```
/// use atrous::attack::statuses;
///
#[doc = include_str!("brightness.txt")]
/// let victim = brightness(4)?; // class 0 up to a mean of ½, class 1 from there on
/// let x = Tensor::from_slice(&[[0.25f32; 48], [0.75; 48]].concat(), [2, 4, 4, 3])?;
/// let statuses = statuses(&victim, &x, &away_from_dark(2))?;
/// assert_eq!([statuses[0].reached, statuses[1].reached], [false, true]);
/// # Ok::<(), Error>(())
/// ```
pub fn statuses(
    victim: &dyn Victim,
    x: &Tensor,
    objective: &dyn Objective,
) -> Result<Vec<AttackStatus>> {
    let all: Vec<usize> = (0..x.shape()[0]).collect();
    Ok(standings_of(&logits(victim, x)?, &all, objective))
}

/// [`statuses`] from logits; each image goes by its number.
pub(super) fn standings_of(
    logits: &Tensor,
    numbers: &[usize],
    objective: &dyn Objective,
) -> Vec<AttackStatus> {
    let each = logits.shape().elements() / numbers.len().max(1);
    let rows = numbers.iter().zip(logits.values::<f32>().chunks_exact(each.max(1)));
    rows.map(|(&number, row)| objective.status(number, row)).collect()
}

/// Some images of a batch.
pub(super) fn rows(x: &Tensor, wanted: &[usize]) -> Result<Tensor> {
    let each = x.shape().elements() / x.shape()[0].max(1);
    let all = host(x)?;
    let values: Vec<f32> =
        wanted.iter().flat_map(|&i| all[i * each..][..each].iter().copied()).collect();
    let shape: Vec<usize> = [wanted.len()].into_iter().chain(x.shape()[1..].iter().copied()).collect();
    Tensor::from_slice(&values, &shape[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preprocessing_is_a_convolution_of_pixels() {
        let pixels: Vec<f32> = (0..48).map(|i| (i * 37 % 256) as f32).collect();
        let unit: Vec<f32> = pixels.iter().map(|v| v / 255.0).collect();
        let x = Tensor::from_slice(&unit, [1, 4, 4, 3]).unwrap();
        assert!(linear(Preprocess::Unit).is_none());
        for preprocess in [Preprocess::Symmetric, Preprocess::Caffe, Preprocess::Torch] {
            let (kernel, bias) = linear(preprocess).unwrap();
            let kernel = Tensor::from_slice(&kernel, [1, 1, 3, 3]).unwrap();
            let bias = Tensor::from_slice(&bias, [3]).unwrap();
            let y = ops::conv2d(&x, &kernel, Some(&bias), Conv2dOptions::default()).unwrap();
            let mut expected = pixels.clone();
            preprocess.apply(&mut expected);
            for (a, b) in y.values::<f32>().iter().zip(&expected) {
                assert!((a - b).abs() <= 2e-6 * b.abs().max(10.0), "{preprocess:?}: {a} {b}");
            }
        }
    }
}
