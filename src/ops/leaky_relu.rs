//! y = x where x > 0, else slope · x (Maas et al., 2013); ∂L/∂x = g or slope · g, and slope · g at 0 as in
//! TensorFlow.

use crate::cases::{Case, Fill};
use crate::error::Result;
use crate::ops::unary::{self, Saves, Unary};
use crate::tensor::{Real, Tensor};

/// x where x > 0, else `slope` · x.
///
/// See [`Tensor::leaky_relu`], which has an example.
pub fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    unary::apply(x, LeakyRelu(slope as f64))
}

impl Tensor {
    /// x where x > 0, else `slope` · x; at 0 the derivative is `slope`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([-2.0f32, 3.0]).leaky_relu(0.5)?.to_string(), "[-1.  3.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn leaky_relu(&self, slope: f32) -> Result<Tensor> {
        leaky_relu(self, slope)
    }
}

#[derive(Clone, Copy)]
struct LeakyRelu(f64);
impl Unary for LeakyRelu {
    const NAME: &'static str = "leaky_relu";
    const CODE: i32 = 15;
    const SAVES: Saves = Saves::Input;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        if x > T::ZERO { x } else { x * T::from_f64(self.0) }
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        if x > T::ZERO { T::ONE } else { T::from_f64(self.0) }
    }
    fn constants(self) -> [f64; 2] {
        [self.0, 0.0]
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let fill = Fill::Avoiding { low: -3.0, high: 3.0, points: &[0.0], margin: 0.01 };
    unary::cases("leaky_relu", fill, |x| leaky_relu(x, 0.2))
}
