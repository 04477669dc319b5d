//! Functions of one number, element by element. With y = f(x) and g = ∂L/∂y:
//!
//! | op     | y    | ∂L/∂x                    | fast kernel (f32)                                   |
//! |--------|------|--------------------------|-----------------------------------------------------|
//! | exp    | eˣ   | g · y                    | Cephes' polynomial, within 2 units of the last place |
//! | ln     | ln x | g / x                    | the same                                            |
//! | sqrt   | √x   | g / (2·y)                | the processor's, rounded right                      |
//! | square | x²   | g · 2·x                  |                                                     |
//! | recip  | 1/x  | −g · y²                  |                                                     |
//! | abs    | ⎮x⎮  | g · sign x, and 0 at 0   |                                                     |
//! | neg    | −x   | −g                       |                                                     |
//!
//! What has no value is a NaN (ln and √ of what is below 0), and limits are infinite (ln 0 = −∞, 1/0 = ∞), as
//! in IEEE 754. Bytes bind, the two polynomials included: `crate::ops::unary`.

use crate::backend::cpu::math;
use crate::cases::{Case, Fill};
use crate::error::Result;
use crate::ops::unary::{self, Saves, Unary};
use crate::tensor::{Real, Tensor};

/// Functions without constants: name, number, what the slope is made of, value, fast value, slope; and two
/// numbers of an example, with what is made of them.
macro_rules! functions {
    ($($(#[$doc:meta])* $op:ident $code:literal $saves:ident $function:ident $given:literal $shown:literal:
        |$x:ident| $value:expr, |$f:ident| $fast:expr, |$s:ident| $slope:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $function;

        impl Unary for $function {
            const NAME: &'static str = stringify!($op);
            const CODE: i32 = $code;
            const SAVES: Saves = Saves::$saves;

            #[inline(always)]
            fn value<T: Real>(self, $x: T) -> T {
                $value
            }

            #[inline(always)]
            fn fast(self, $f: f32) -> f32 {
                $fast
            }

            #[inline(always)]
            fn slope<T: Real>(self, $s: T) -> T {
                $slope
            }
        }

        $(#[$doc])*
        ///
        #[doc = concat!("See [`Tensor::", stringify!($op), "`], which has an example.")]
        pub fn $op(x: &Tensor) -> Result<Tensor> {
            unary::apply(x, $function)
        }

        impl Tensor {
            $(#[$doc])*
            ///
            /// ```
            /// # use atrous::prelude::*;
            #[doc = concat!("let x = Tensor::from(", $given, ");")]
            #[doc = concat!("assert_eq!(x.", stringify!($op), "()?.to_string(), \"", $shown, "\");")]
            /// # Ok::<(), Error>(())
            /// ```
            pub fn $op(&self) -> Result<Tensor> {
                $op(self)
            }
        }
    )*};
}

functions! {
    /// eˣ of each element.
    exp 8 Output Exp "[0.0f32, 1.0]" "[1.     2.7183]":
        |x| x.exp(), |x| math::exp(x), |y| y;
    /// The natural logarithm of each element: −∞ of 0, NaN of what is below.
    ln 9 Input Ln "[1.0f32, 2.0]" "[0.     0.6931]":
        |x| x.ln(), |x| math::ln_everywhere(x), |x| T::ONE / x;
    /// √x of each element: NaN of what is below 0.
    sqrt 10 Output Sqrt "[4.0f32, 9.0]" "[2. 3.]":
        |x| x.sqrt(), |x| x.sqrt(), |y| T::from_f64(0.5) / y;
    /// x² of each element.
    square 11 Input Square "[-2.0f32, 3.0]" "[4. 9.]":
        |x| x * x, |x| x * x, |x| x + x;
    /// 1/x of each element: ±∞ of ±0.
    recip 12 Output Recip "[-0.5f32, 4.0]" "[-2.    0.25]":
        |x| T::ONE / x, |x| 1.0 / x, |y| -(y * y);
    /// ⎮x⎮ of each element. Its slope at 0 is 0.
    abs 13 Input Abs "[-2.0f32, 3.0]" "[2. 3.]":
        |x| x.abs(), |x| x.abs(), |x| sign(x);
    /// −x of each element.
    neg 14 Nothing Neg "[-2.0f32, 3.0]" "[ 2. -3.]":
        |x| -x, |x| -x, |_s| -T::ONE;
}

/// −1, 0 or 1; that of ±0 is ±0, and of a NaN a NaN.
#[inline(always)]
pub(crate) fn sign<T: Real>(x: T) -> T {
    if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        -T::ONE
    } else {
        x * T::ZERO
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let positive = || Fill::Uniform(0.1, 9.0);
    let not_zero = |margin| Fill::Avoiding { low: -3.0, high: 3.0, points: &[0.0], margin };
    [
        unary::cases("exp", Fill::Uniform(-5.0, 5.0), exp),
        unary::cases("ln", positive(), ln),
        unary::cases("sqrt", positive(), sqrt),
        unary::cases("square", Fill::Uniform(-3.0, 3.0), square),
        unary::cases("recip", not_zero(0.3), recip),
        unary::cases("abs", not_zero(0.01), abs),
        unary::cases("neg", Fill::Uniform(-3.0, 3.0), neg),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;

    #[test]
    fn limits_are_infinite_and_what_has_no_value_is_a_nan_in_every_instruction_set() {
        // As many as fill vectors, so that no element goes the way of a remainder.
        let of = |f: fn(&Tensor) -> Result<Tensor>, x: f32| {
            let y = f(&Tensor::full([64], x)).unwrap().to_vec_f64();
            assert!(y.iter().all(|&each| each == y[0] || each.is_nan()));
            y[0]
        };
        let infinity = f64::INFINITY;
        for isa in supported() {
            with_isa(isa, || {
                assert_eq!(
                    [of(ln, 0.0), of(ln, f32::INFINITY), of(ln, 1.0)],
                    [-infinity, infinity, 0.0]
                );
                assert_eq!([of(recip, 0.0), of(recip, -0.0)], [infinity, -infinity]);
                assert_eq!([of(exp, -200.0), of(exp, 200.0)], [0.0, infinity]);
                assert!(of(ln, -1.0).is_nan() && of(sqrt, -1.0).is_nan());
                for f in [exp, ln, sqrt, square, recip, abs, neg] {
                    assert!(of(f, f32::NAN).is_nan(), "{isa:?}");
                }
            });
        }
    }

    #[test]
    fn the_slope_of_abs_at_zero_is_zero() {
        let x = Tensor::from_slice(&[-2.0f32, 0.0, 5.0], [3]).unwrap().leaf();
        let gradients = x.abs().unwrap().backward_from(Tensor::full([3], 1.0)).unwrap();
        assert_eq!(gradients.get(&x).unwrap().to_vec_f64(), [-1.0, 0.0, 1.0]);
    }
}
