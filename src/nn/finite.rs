//! Numbers that are none: where the first one comes from.

use super::Model;
use super::layers::Mode;
use crate::context::no_grad;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

impl Model {
    /// The path of the first parameter that holds a number that is not finite, and the number.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.add(Layer::conv2d(2, 3), &[graph.input()])?;
    /// let mut model = Model::new(graph, 1);
    /// assert_eq!(model.parameter_not_finite()?, None);
    /// model.set("conv2d/bias", Tensor::from([0.0f32, f32::INFINITY]))?;
    /// assert_eq!(model.parameter_not_finite()?, Some(("conv2d/bias", f64::INFINITY)));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn parameter_not_finite(&self) -> Result<Option<(&str, f64)>> {
        for parameter in &self.parameters {
            if let Some(value) = not_finite(&parameter.value)? {
                return Ok(Some((&parameter.path, value)));
            }
        }
        Ok(None)
    }

    /// What is the first to hold numbers that are not finite when the network sees these images: a
    /// parameter, the images, or a layer's output. None where all are finite.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(2, 3), Layer::conv2d(2, 3)])?;
    /// let mut model = Model::new(graph, 1);
    /// let x = Tensor::ones([1, 8, 8, 3]);
    /// assert_eq!(model.first_not_finite(&x, Mode::infer())?, None);
    /// // Each weight is a number, but not the sum of 27 of them.
    /// model.set("conv2d/kernel", Tensor::full([3, 3, 3, 2], f32::MAX))?;
    /// let first = model.first_not_finite(&x, Mode::infer())?.unwrap();
    /// assert_eq!(first, "the output of the layer `conv2d` holds inf");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn first_not_finite(&self, x: &Tensor, mode: Mode) -> Result<Option<String>> {
        if let Some((path, value)) = self.parameter_not_finite()? {
            return Ok(Some(format!("the parameter `{path}` holds {value}")));
        }
        let mut first = None;
        no_grad(|| {
            self.run_edited(x, mode, &mut |layer, output| {
                if first.is_none()
                    && let Some(value) = not_finite(&output)?
                {
                    first = Some(format!("the output of the layer `{layer}` holds {value}"));
                }
                Ok(output)
            })
        })?;
        Ok(first)
    }

    /// An error that names the first layer where what the network makes of images, its `logits`, is not
    /// finite. (A sigmoid makes 1 of an infinite logit: the output does not show it.)
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.add(Layer::conv2d(2, 3), &[graph.input()])?;
    /// let mut model = Model::new(graph, 1);
    /// model.set("conv2d/bias", Tensor::full([2], f32::NAN))?;
    /// let x = Tensor::ones([1, 8, 8, 3]);
    /// let error = model.require_finite(&x, &model.run(&x, Mode::infer())?.logits).unwrap_err().to_string();
    /// assert!(error.contains("the parameter `conv2d/bias` holds NaN"), "{error}");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn require_finite(&self, x: &Tensor, logits: &Tensor) -> Result<()> {
        let Some(value) = not_finite(logits)? else { return Ok(()) };
        let first = self.first_not_finite(x, Mode::infer())?;
        let first = first.map_or(String::new(), |first| format!("; first, {first}"));
        let message = format!("it makes {value} of these pictures{first}: its weights cannot be used");
        Err(Error::argument("network", message))
    }
}

/// The first number of a tensor that is not finite, wherever it is.
///
/// ```
/// use atrous::Tensor;
/// use atrous::nn::not_finite;
///
/// assert_eq!(not_finite(&Tensor::from([1.0f32, 2.0]))?, None);
/// assert_eq!(not_finite(&Tensor::from([1.0f32, f32::NEG_INFINITY, f32::NAN]))?, Some(f64::NEG_INFINITY));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn not_finite(tensor: &Tensor) -> Result<Option<f64>> {
    let here = tensor.to_device(Device::Cpu)?;
    Ok(match here.dtype() {
        DType::F32 => here.values::<f32>().iter().find(|value| !value.is_finite()).map(|&v| v as f64),
        DType::F64 => here.values::<f64>().iter().find(|value| !value.is_finite()).copied(),
        DType::U8 => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::nn::Graph;
    use crate::nn::layers::Layer;

    fn network() -> Model {
        let mut graph = Graph::new("small", "input", [4, 4, 3]);
        for layer in [
            Layer::conv2d(2, 3).with_activation(Activation::Relu),
            Layer::conv2d(2, 1),
            Layer::Flatten,
            Layer::dense(2).with_activation(Activation::Sigmoid),
        ] {
            let last = graph.output();
            graph.add(layer, &[last]).unwrap();
        }
        Model::new(graph, 1)
    }

    fn images() -> Tensor {
        Tensor::from_slice(&[0.5f32; 48], [1, 4, 4, 3]).unwrap()
    }

    fn check(model: &Model) -> Result<()> {
        let logits = model.run(&images(), Mode::infer())?.logits;
        model.require_finite(&images(), &logits)
    }

    #[test]
    fn a_sound_network_is_let_through() {
        check(&network()).unwrap();
        assert_eq!(network().first_not_finite(&images(), Mode::infer()).unwrap(), None);
    }

    #[test]
    fn the_parameter_that_is_no_number_is_named() {
        let mut model = network();
        let name = model.parameters[2].path.clone();
        let shape = model.parameters[2].value.shape();
        model.set(&name, Tensor::full(shape, f32::NAN)).unwrap();
        let error = check(&model).unwrap_err().to_string();
        assert!(error.contains("NaN") && error.contains(&format!("the parameter `{name}`")), "{error}");
    }

    #[test]
    fn the_layer_that_overflows_is_named_although_a_sigmoid_hides_it() {
        let mut model = network();
        let name = model.parameters[2].path.clone();
        let (shape, layer) = (model.parameters[2].value.shape(), name.rsplit_once('/').unwrap().0);
        model.set(&name, Tensor::full(shape, f32::MAX)).unwrap();
        let first = model.parameters[0].path.clone();
        let shape = model.parameters[0].value.shape();
        model.set(&first, Tensor::full(shape, 1e3f32)).unwrap();
        let error = check(&model).unwrap_err().to_string();
        assert!(error.contains(&format!("the output of the layer `{layer}` holds inf")), "{error}");
    }
}
