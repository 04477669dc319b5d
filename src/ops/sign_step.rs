//! The step of an attack, in one pass: with o the original image and g = ∂L/∂x,
//!
//! y = clip(clip(x + step·sign(g), o − ε, o + ε), low, high)
//!
//! With x = o and step = ε it is FGSM (Goodfellow et al., 2015); repeated with smaller steps PGD (Madry et
//! al., 2018). Bytes bind: 16 an element, where sign, scale, add and two clips would move 44.

use crate::backend::cuda::{Kernel, LaunchConfig, arguments};
use crate::cases::{self, Case, Fill, Input};
use crate::error::{Error, Result};
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// Bounds of an attack's step: the ball around the original image, and the range of images.
///
/// [`Tensor::sign_step`] has an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// L∞ distance from the original, at most.
    pub epsilon: f32,
    /// The least value a pixel may have: 0 for images in [0, 1].
    pub low: f32,
    /// The greatest value a pixel may have.
    pub high: f32,
}

/// One step of an attack (FGSM, PGD): x + step·sign(gradient), back into the ball around `origin`, then
/// into the range. `step` is below 0 where the loss is to fall. Leaves the tape.
///
/// See [`Tensor::sign_step`], which has an example.
pub fn sign_step(
    x: &Tensor,
    gradient: &Tensor,
    origin: &Tensor,
    step: f32,
    bounds: Bounds,
) -> Result<Tensor> {
    let op = "sign_step";
    for other in [gradient, origin] {
        if other.shape() != x.shape() {
            return Err(Error::shape(op, x.shape(), other.shape()));
        }
    }
    let Bounds { epsilon, low, high } = bounds;
    if !(epsilon >= 0.0 && low <= high && step.is_finite()) {
        let message = format!("expected ε ≥ 0, low ≤ high and a finite step, got {bounds:?}, {step}");
        return Err(Error::argument(op, message));
    }
    fn each<T: Real>(x: &Tensor, g: &Tensor, origin: &Tensor, step: f32, b: Bounds) -> Tensor {
        let real = |v: f32| T::from_f64(v as f64);
        let (step, epsilon, low, high) = (real(step), real(b.epsilon), real(b.low), real(b.high));
        let mut out = Buffer::<T>::new(x.shape().elements());
        let all = x.values::<T>().iter().zip(g.values::<T>()).zip(origin.values::<T>());
        for (y, ((&x, &g), &o)) in out.iter_mut().zip(all) {
            let bounded = |v: T, l: T, h: T| match () {
                _ if v < l => l,
                _ if v > h => h,
                _ => v,
            };
            let sign = if g > T::ZERO {
                T::ONE
            } else if g < T::ZERO {
                -T::ONE
            } else {
                g * T::ZERO
            };
            *y = bounded(bounded(x + step * sign, o - epsilon, o + epsilon), low, high);
        }
        Tensor::from_buffer(out, x.shape())
    }
    Ok(match route(op, &[x, gradient, origin])? {
        Route::F64 => each::<f64>(x, gradient, origin, step, bounds),
        Route::Cuda(cuda) => {
            let n = x.shape().elements();
            let y = cuda.allocate(n, DType::F32)?;
            let (x_memory, g, o) = (x.memory(), gradient.memory(), origin.memory());
            let all = arguments![x_memory, g, o, &y, n as i64, step, epsilon, low, high];
            let kernel = Kernel::of("sign_step", "sign_step");
            // SAFETY: all three are n floats, as y is, which is new.
            unsafe { cuda.launch(kernel, LaunchConfig::elements(n), &all)? };
            Tensor::from_memory(y, x.shape())
        }
        _ => each::<f32>(x, gradient, origin, step, bounds),
    })
}

impl Tensor {
    /// One step of an attack (FGSM, PGD) from this image, off the tape: see [`sign_step`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// use atrous::ops::Bounds;
    ///
    /// let image = Tensor::from([0.5f32, 0.5, 1.0]);
    /// let gradient = Tensor::from([3.0f32, -0.01, 7.0]);
    /// let bounds = Bounds { epsilon: 0.25, low: 0.0, high: 1.0 };
    /// let fgsm = image.sign_step(&gradient, &image, 0.25, bounds)?;
    /// assert_eq!(fgsm.to_vec_f64(), [0.75, 0.25, 1.0]); // no pixel is brighter than 1
    /// let again = fgsm.sign_step(&gradient, &image, 0.25, bounds)?;
    /// assert_eq!(again.to_vec_f64(), fgsm.to_vec_f64()); // the edge of the ball
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sign_step(
        &self,
        gradient: &Tensor,
        origin: &Tensor,
        step: f32,
        bounds: Bounds,
    ) -> Result<Tensor> {
        sign_step(self, gradient, origin, step, bounds)
    }
}

pub(crate) fn cases() -> Vec<Case> {
    // Away from where a sign or a bound changes its mind: rounding would decide there.
    let away = |points| Fill::Avoiding { low: 0.0, high: 1.0, points, margin: 0.01 };
    let gradient = Fill::Avoiding { low: -1.0, high: 1.0, points: &[0.0], margin: 0.01 };
    let inputs = vec![
        Input::new("x", [2, 5, 7, 3]).fill(away(&[0.15, 0.95])).constant(),
        Input::new("gradient", [2, 5, 7, 3]).fill(gradient).constant(),
        Input::new("origin", [2, 5, 7, 3]).fill(away(&[0.5])).constant(),
    ];
    let bounds = Bounds { epsilon: 0.25, low: 0.0, high: 1.0 };
    vec![Case::new("sign_step", "pgd", cases::Size::Tiny, inputs, move |t| {
        sign_step(&t[0], &t[1], &t[2], 0.125, bounds)
    })]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, [values.len()]).unwrap()
    }

    #[test]
    fn it_follows_the_sign_and_stays_in_ball_and_range() {
        let (x, o) = (tensor(&[0.5, 0.5, 0.5, 0.98, 0.3]), tensor(&[0.5, 0.5, 0.5, 0.98, 0.5]));
        let g = tensor(&[2.0, -0.1, 0.0, 1.0, -1.0]);
        let bounds = Bounds { epsilon: 0.25, low: 0.0, high: 1.0 };
        let y = sign_step(&x, &g, &o, 0.125, bounds).unwrap().to_vec_f64();
        assert_eq!(y[..4], [0.625, 0.375, 0.5, 1.0]);
        assert_eq!(y[4], 0.25); // 0.175, back to the ball
        let away = sign_step(&x, &g, &o, -0.125, bounds).unwrap().to_vec_f64();
        assert_eq!(away[..2], [0.375, 0.625]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let x = tensor(&[0.5]);
        let bounds = Bounds { epsilon: 0.1, low: 0.0, high: 1.0 };
        for wrong in [
            Bounds { epsilon: -0.1, ..bounds },
            Bounds { epsilon: f32::NAN, ..bounds },
            Bounds { low: 2.0, ..bounds },
        ] {
            assert!(sign_step(&x, &x, &x, 0.1, wrong).is_err());
        }
        assert!(sign_step(&x, &x, &x, f32::NAN, bounds).is_err());
        assert!(sign_step(&x, &tensor(&[0.1, 0.2]), &x, 0.1, bounds).is_err());
    }
}
