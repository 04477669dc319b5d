//! Gradients against finite differences.

use crate::context::no_grad;
use crate::error::{Error, Result};
use crate::random::{Stream, domain};
use crate::tensor::{DType, Tensor};

/// The most elements of an input that are perturbed.
const PROBES: usize = 64;

/// Compares the gradients of `f` with central differences, (f(x + h) − f(x − h)) / 2h: an error that names
/// the first input and element at which they differ. It is PyTorch's `gradcheck`.
///
/// The scalar whose gradients they are is the sum of the result's elements, each weighted by a random
/// number from −1 to 1, the same each time. Of each input at most 64 elements are perturbed, chosen at
/// random, the same each time. The difference allowed is tolerance · max(the input's largest |gradient|,
/// 10⁻³). With f64 inputs h is 10⁻⁵ and the tolerance 10⁻⁶; with f32 inputs both are 10⁻², which finds a
/// wrong formula and no more, and asks for inputs of the order of 1.
///
/// Inputs are f32 or f64, and `f` differentiable with respect to all of them: what has no gradient, as
/// labels, is to be captured by `f`. They should stay away from kinks (ReLU's 0), where there is no
/// derivative. An error, too, for a u8 input, an output off the tape, and a gradient that is not finite.
///
/// ```
/// use atrous::{Tensor, autograd::check_gradients, ops};
///
/// let [x, w] = [1, 2].map(|seed| Tensor::rand([3, 3], seed).to_dtype(atrous::DType::F64));
/// check_gradients(|[x, w]| ops::dense(x, w, None), [&x, &w])?;
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn check_gradients<const N: usize>(
    f: impl Fn([&Tensor; N]) -> Result<Tensor>,
    inputs: [&Tensor; N],
) -> Result<()> {
    if let Some(i) = inputs.iter().position(|input| input.dtype() == DType::U8) {
        let got = format!("U8 as input {i}");
        return Err(Error::DType { op: OP, expected: "F32 or F64".into(), got });
    }
    let leaves = inputs.map(Tensor::leaf);
    let output = f(leaves.each_ref())?;
    if !output.requires_grad() {
        return Err(Error::argument(
            OP,
            "expected a result on the tape, got one that depends on no input, or was computed \
             within `no_grad`",
        ));
    }
    let mut stream = Stream::new(0, &[domain::TEST]);
    let weights: Vec<f64> =
        (0..output.shape().elements()).map(|_| stream.uniform(-1.0, 1.0) as f64).collect();
    let upstream = with_values(&output, &weights)?;
    let gradients = output.backward_from(upstream.clone())?;
    // Read back, since they have been rounded to the output's type: the probes weigh by the same numbers.
    let weights = upstream.to_vec_f64();
    let probe = |i: usize, values: &[f64]| -> Result<f64> {
        let mut inputs = inputs.map(Tensor::detach);
        inputs[i] = with_values(&inputs[i], values)?;
        let output = no_grad(|| f(inputs.each_ref()))?.to_vec_f64();
        Ok(output.iter().zip(&weights).map(|(y, weight)| y * weight).sum())
    };
    for (i, leaf) in leaves.iter().enumerate() {
        let (h, tolerance) = match leaf.dtype() {
            DType::F64 => (1e-5, 1e-6),
            _ => (1e-2, 1e-2),
        };
        let mut values = leaf.to_vec_f64();
        let analytical = gradients.get(leaf).map_or(vec![0.0; values.len()], Tensor::to_vec_f64);
        if let Some(element) = analytical.iter().position(|gradient| !gradient.is_finite()) {
            let message =
                format!("input {i}, element {element}: expected a number, got {}", analytical[element]);
            return Err(Error::argument(OP, message));
        }
        let largest = analytical.iter().fold(1e-3f64, |most, gradient| most.max(gradient.abs()));
        for element in stream.permutation(values.len()).into_iter().take(PROBES) {
            let at = values[element];
            let mut beside = |x| {
                values[element] = x;
                probe(i, &values)
            };
            let numerical = (beside(at + h)? - beside(at - h)?) / (2.0 * h);
            values[element] = at;
            let got = analytical[element];
            let off = (got - numerical).abs();
            if off.is_nan() || off > tolerance * largest {
                let message = format!(
                    "input {i}, element {element}: expected {numerical} by central differences, got {got}"
                );
                return Err(Error::argument(OP, message));
            }
        }
    }
    Ok(())
}

const OP: &str = "check_gradients";

/// Other values in a tensor of the shape, type and device of `x`.
fn with_values(x: &Tensor, values: &[f64]) -> Result<Tensor> {
    Tensor::from_slice(values, x.shape())?.to_dtype(x.dtype()).to_device(x.device())
}

#[cfg(test)]
mod tests {
    use super::super::Function;
    use super::*;
    use crate::ops::{mul, scale, sum};

    /// a · b, with a gradient with respect to b that is `by_b` times what it should be, or of another
    /// shape.
    struct Product {
        by_b: f64,
        scalar: bool,
    }

    impl Function<2> for Product {
        const NAME: &'static str = "product";
        type Saved = [Tensor; 2];

        fn forward(&self, [a, b]: [&Tensor; 2]) -> Result<(Tensor, [Tensor; 2])> {
            assert!(!a.requires_grad() && !b.requires_grad());
            Ok((mul(a, b)?, [a.clone(), b.clone()]))
        }

        fn backward(&self, [a, b]: [Tensor; 2], g: Tensor) -> Result<[Option<Tensor>; 2]> {
            let by_b = scale(&mul(&g, &a)?, self.by_b)?;
            let by_b = if self.scalar { sum(&by_b)? } else { by_b };
            Ok([Some(mul(&g, &b)?), Some(by_b)])
        }
    }

    fn pair() -> [Tensor; 2] {
        [Tensor::from([1.0f64, -2.0, 0.5]), Tensor::from([0.3f64, 4.0, -1.0])]
    }

    #[test]
    fn a_right_gradient_passes_and_a_wrong_one_is_named() {
        let [a, b] = pair();
        let check = |by_b| check_gradients(|x| Product { by_b, scalar: false }.apply(x), [&a, &b]);
        check(1.0).unwrap();
        let error = check(1.001).unwrap_err().to_string();
        assert!(
            error.starts_with("check_gradients: input 1, element ") && error.contains("got "),
            "{error}"
        );
        assert!(check(f64::NAN).is_err() && check(f64::INFINITY).is_err());
        let single = [a.to_dtype(DType::F32), b.to_dtype(DType::F32)];
        check_gradients(|x| Product { by_b: 1.0, scalar: false }.apply(x), single.each_ref()).unwrap();
        assert!(
            check_gradients(|x| Product { by_b: 1.1, scalar: false }.apply(x), single.each_ref())
                .is_err()
        );
    }

    #[test]
    fn bytes_have_no_gradients_to_check() {
        let [a, bytes] = [Tensor::from([1.0f64, 2.0]), Tensor::from_u8(&[1, 2], [2]).unwrap()];
        let error = check_gradients(|[a, _]| Ok(a.clone()), [&a, &bytes]).unwrap_err();
        assert!(matches!(error, Error::DType { .. }) && error.to_string().ends_with("U8 as input 1"));
    }

    #[test]
    fn what_leaves_the_tape_has_no_gradients_to_check() {
        let [a, _] = pair();
        let error = check_gradients(|[a]| Ok(a.detach()), [&a]).unwrap_err().to_string();
        assert!(error.contains("depends on no input"), "{error}");
    }

    #[test]
    fn a_gradient_of_another_shape_is_an_error_that_names_the_function() {
        let [a, b] = pair().map(|x| x.leaf());
        let y = Product { by_b: 1.0, scalar: true }.apply([&a, &b]).unwrap();
        let error = sum(&y).unwrap().backward().err().unwrap().to_string();
        let expected = "product: expected a gradient of [3] F64 on cpu with respect to input 1, \
                        got [] F64 on cpu";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_function_leaves_nothing_on_the_tape_where_nothing_needs_a_gradient() {
        let [a, b] = pair();
        let product = || Product { by_b: 1.0, scalar: false };
        assert!(!product().apply([&a, &b]).unwrap().requires_grad());
        assert!(!no_grad(|| product().apply([&a.leaf(), &b])).unwrap().requires_grad());
        assert!(product().apply([&a.leaf(), &b]).unwrap().requires_grad());
    }

    #[test]
    fn a_function_may_hand_on_what_it_was_given() {
        struct Same;
        impl Function<1> for Same {
            const NAME: &'static str = "same";
            type Saved = ();
            fn forward(&self, [x]: [&Tensor; 1]) -> Result<(Tensor, ())> {
                Ok((x.clone(), ()))
            }
            fn backward(&self, (): (), gradient: Tensor) -> Result<[Option<Tensor>; 1]> {
                Ok([Some(gradient)])
            }
        }
        let [a, _] = pair();
        check_gradients(|x| Same.apply(x), [&a]).unwrap();
    }
}
