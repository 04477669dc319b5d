//! Element by element: add, sub, mul, div, maximum, minimum of two tensors, broadcast as in NumPy; scale,
//! clip, sign of one.
//!
//! With y = f(a, b) and g = ∂L/∂y:
//!
//! | op      | y                 | ∂L/∂a                            | ∂L/∂b                    |
//! |---------|-------------------|----------------------------------|--------------------------|
//! | add     | a + b             | g                                | g                        |
//! | sub     | a − b             | g                                | −g                       |
//! | mul     | a · b             | g · b                            | g · a                    |
//! | div     | a / b             | g / b                            | −(g / b) · (a / b)       |
//! | maximum | a or b            | g where a > b, g/2 where a = b   | the same, the other way  |
//! | minimum | a or b            | g where a < b, g/2 where a = b   | the same, the other way  |
//! | scale   | c · a             | c · g                            |                          |
//! | clip    | min(max(a, l), h) | g where l ≤ a ≤ h                |                          |
//! | sign    | −1, 0, 1          | 0                                |                          |
//!
//! An operand that was broadcast gets the sum over the elements that it was used for. Where a maximum has
//! two, both get half, as in PyTorch and JAX (TensorFlow gives all to a); where one is a NaN, y is. `clip`
//! passes the gradient at its bounds, as TensorFlow's `clip_by_value` does.
//!
//! Loops, tape and launches: `crate::ops::binary` and `crate::ops::unary`.

use crate::cases::{self, Case, Fill, Input};
use crate::error::{Error, Result};
use crate::ops::binary::{self, Binary};
use crate::ops::functions;
use crate::ops::unary::{self, Saves, Unary};
use crate::tensor::{Real, Tensor};

/// Functions of two numbers: name, number, what the gradients are made of, value, gradients; and what an
/// example shows, of the columns (4, 6) and the rows (2, 4).
macro_rules! functions {
    ($($(#[$doc:meta])* $op:ident $code:literal $uses:tt $function:ident $shown:literal:
        |$a:ident, $b:ident| $value:expr, |$g:ident, $p:ident, $q:ident| $gradients:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $function;

        impl Binary for $function {
            const NAME: &'static str = stringify!($op);
            const CODE: i32 = $code;
            const USES: [[bool; 2]; 2] = $uses;

            #[inline(always)]
            fn value<T: Real>(self, $a: T, $b: T) -> T {
                $value
            }

            #[inline(always)]
            fn gradients<T: Real>(self, $g: T, $p: T, $q: T) -> [T; 2] {
                $gradients
            }
        }

        $(#[$doc])*
        ///
        /// Broadcast as in NumPy: axes, from the last one on, are equal or 1; else an error.
        ///
        #[doc = concat!("See [`Tensor::", stringify!($op), "`], which has an example.")]
        pub fn $op(a: &Tensor, b: &Tensor) -> Result<Tensor> {
            binary::apply(a, b, $function)
        }

        impl Tensor {
            $(#[$doc])*
            ///
            /// Broadcast as in NumPy: axes, from the last one on, are equal or 1; else an error.
            ///
            /// ```
            /// # use atrous::prelude::*;
            /// let (a, b) = (Tensor::from([[4.0f32], [6.0]]), Tensor::from([2.0f32, 4.0]));
            #[doc = concat!("assert_eq!(a.", stringify!($op), "(&b)?.to_vec_f64(), ", $shown, ");")]
            /// # Ok::<(), Error>(())
            /// ```
            pub fn $op(&self, b: &Tensor) -> Result<Tensor> {
                $op(self, b)
            }
        }
    )*};
}

/// Both gradients are g, but for a factor.
const NOTHING: [[bool; 2]; 2] = [[false; 2]; 2];
/// Both are made of both.
const BOTH: [[bool; 2]; 2] = [[true; 2]; 2];
/// That of one is made of the other.
const OTHER: [[bool; 2]; 2] = [[false, true], [true, false]];

functions! {
    /// a + b, element by element.
    add 0 NOTHING Add "[6.0, 8.0, 8.0, 10.0]": |a, b| a + b, |g, _a, _b| [g, g];
    /// a − b, element by element.
    sub 1 NOTHING Sub "[2.0, 0.0, 4.0, 2.0]": |a, b| a - b, |g, _a, _b| [g, -g];
    /// a · b, element by element.
    mul 2 OTHER Mul "[8.0, 16.0, 12.0, 24.0]": |a, b| a * b, |g, a, b| [g * b, g * a];
    /// a / b, element by element: as IEEE 754 has it where b is 0.
    div 3 DIV Div "[2.0, 1.0, 3.0, 1.5]": |a, b| a / b, |g, a, b| [g / b, -(g / b) * (a / b)];
    /// The larger of a and b, element by element; a NaN where either is one.
    maximum 4 BOTH Maximum "[4.0, 4.0, 6.0, 6.0]": |a, b| larger(a, b),
        |g, a, b| [share(g, b < a, a == b), share(g, a < b, a == b)];
    /// The smaller of a and b, element by element; a NaN where either is one.
    minimum 5 BOTH Minimum "[2.0, 4.0, 2.0, 4.0]": |a, b| -larger(-a, -b),
        |g, a, b| [share(g, a < b, a == b), share(g, b < a, a == b)];
}

/// 1/b has no a in it.
const DIV: [[bool; 2]; 2] = [[false, true], [true, true]];

/// The larger one, or a NaN.
#[inline(always)]
pub(crate) fn larger<T: Real>(a: T, b: T) -> T {
    if a > b {
        a
    } else if b >= a {
        b
    } else {
        a + b
    }
}

/// What of the gradient goes to one of two.
#[inline(always)]
fn share<T: Real>(g: T, is_first: bool, is_equal: bool) -> T {
    if is_first {
        g
    } else if is_equal {
        g * T::from_f64(0.5)
    } else {
        T::ZERO
    }
}

/// 1 where two are equal, else 0; off the tape ([`binary::map`]).
#[derive(Clone, Copy)]
pub(crate) struct Equal;
impl Binary for Equal {
    const NAME: &'static str = "equal";
    const CODE: i32 = 6;
    const USES: [[bool; 2]; 2] = NOTHING;
    #[inline(always)]
    fn value<T: Real>(self, a: T, b: T) -> T {
        if a == b { T::ONE } else { T::ZERO }
    }
    #[inline(always)]
    fn gradients<T: Real>(self, _: T, _: T, _: T) -> [T; 2] {
        [T::ZERO; 2]
    }
}

/// c · a
///
/// See [`Tensor::scale`], which has an example.
pub fn scale(a: &Tensor, factor: f64) -> Result<Tensor> {
    unary::apply(a, Scale(factor))
}

/// c · a off the tape, in the memory of `a` where nobody else holds it.
pub(crate) fn scale_owned(a: Tensor, factor: f64) -> Result<Tensor> {
    unary::map(a, Scale(factor))
}

/// min(max(a, low), high)
///
/// See [`Tensor::clip`], which has an example.
pub fn clip(a: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    if low > high || low.is_nan() || high.is_nan() {
        return Err(Error::argument("clip", format!("expected low ≤ high, got {low} and {high}")));
    }
    unary::apply(a, Clip { low, high })
}

/// −1, 0 or 1; the sign of ±0 is 0. Its gradient is zero, so it leaves the tape.
///
/// See [`Tensor::sign`], which has an example.
pub fn sign(a: &Tensor) -> Result<Tensor> {
    unary::map(a.detach(), Sign)
}

impl Tensor {
    /// `factor` · x of each element.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([1.0f32, 2.0]).scale(3.0)?.to_string(), "[3. 6.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn scale(&self, factor: f64) -> Result<Tensor> {
        scale(self, factor)
    }

    /// min(max(x, low), high) of each element; the gradient passes where low ≤ x ≤ high. An error unless low
    /// ≤ high.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([-2.0f32, 0.5, 9.0]).clip(0.0, 1.0)?.to_string(), "[0.  0.5 1. ]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn clip(&self, low: f64, high: f64) -> Result<Tensor> {
        clip(self, low, high)
    }

    /// −1, 0 or 1 of each element, off the tape: the gradient is zero.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([-2.0f32, 0.0, 9.0]).sign()?.to_string(), "[-1.  0.  1.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn sign(&self) -> Result<Tensor> {
        sign(self)
    }
}

/// c · x; the slope is c.
#[derive(Clone, Copy)]
pub(crate) struct Scale(pub f64);
impl Unary for Scale {
    const NAME: &'static str = "scale";
    const CODE: i32 = 5;
    const SAVES: Saves = Saves::Nothing;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        x * T::from_f64(self.0)
    }
    #[inline(always)]
    fn slope<T: Real>(self, _: T) -> T {
        T::from_f64(self.0)
    }
    fn constants(self) -> [f64; 2] {
        [self.0, 0.0]
    }
}

#[derive(Clone, Copy)]
struct Clip {
    low: f64,
    high: f64,
}
impl Unary for Clip {
    const NAME: &'static str = "clip";
    const CODE: i32 = 6;
    const SAVES: Saves = Saves::Input;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        // Comparisons, not `max`: a NaN stays a NaN.
        let (low, high) = (T::from_f64(self.low), T::from_f64(self.high));
        if x < low {
            low
        } else if x > high {
            high
        } else {
            x
        }
    }
    #[inline(always)]
    fn slope<T: Real>(self, x: T) -> T {
        let inside = x >= T::from_f64(self.low) && x <= T::from_f64(self.high);
        if inside { T::ONE } else { T::ZERO }
    }
    fn constants(self) -> [f64; 2] {
        [self.low, self.high]
    }
}

#[derive(Clone, Copy)]
struct Sign;
impl Unary for Sign {
    const NAME: &'static str = "sign";
    const CODE: i32 = 7;
    const SAVES: Saves = Saves::Nothing;
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        functions::sign(x)
    }
    #[inline(always)]
    fn slope<T: Real>(self, _: T) -> T {
        T::ZERO
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let all: [(&str, Op); 6] = [
        ("add", add),
        ("sub", sub),
        ("mul", mul),
        ("div", div),
        ("maximum", maximum),
        ("minimum", minimum),
    ];
    for (op, f) in all {
        // A quotient's denominator is kept from 0.
        let points: &[f32] = if op == "div" { &[0.0] } else { &[] };
        let right = Fill::Avoiding { low: -1.0, high: 1.0, points, margin: 0.3 };
        for (name, left, shape, size) in [
            ("same", &[2, 5, 3, 7][..], &[2, 5, 3, 7][..], cases::Size::Tiny),
            ("channels", &[2, 5, 3, 7], &[7], cases::Size::Tiny),
            ("one", &[2, 5, 3, 7], &[1], cases::Size::Tiny),
            ("scalar", &[2, 5, 3, 7], &[], cases::Size::Tiny),
            // A multiple of four: vectors on devices.
            ("same_60", &[3, 20], &[3, 20], cases::Size::Tiny),
            ("16x112x112x64", &[16, 112, 112, 64], &[16, 112, 112, 64], cases::Size::Real),
            ("left_channels", &[8], &[2, 5, 8], cases::Size::Tiny),
            ("pixels", &[2, 5, 3, 7], &[2, 5, 3, 1], cases::Size::Tiny),
            ("images", &[2, 5, 3, 8], &[2, 1, 1, 8], cases::Size::Tiny),
            ("outer", &[5, 1], &[1, 9], cases::Size::Tiny),
            ("both_ways", &[2, 1, 3, 1], &[1, 4, 1, 8], cases::Size::Tiny),
        ] {
            let inputs = vec![Input::new("a", left), Input::new("b", shape).fill(right.clone())];
            cases.push(Case::new(op, name, size, inputs, move |t| f(&t[0], &t[1])));
        }
    }
    let inputs = vec![Input::new("a", [16, 112, 112, 64]), Input::new("b", [16, 1, 1, 64])];
    cases.push(Case::new("add", "of_images_16x112x112x64", cases::Size::Real, inputs, |t| {
        add(&t[0], &t[1])
    }));
    // Longer than one piece of a parallel pass, and no multiple of it.
    let long = || vec![Input::new("a", [3, 23001]), Input::new("b", [23001])];
    cases.push(Case::new("mul", "pieces", cases::Size::Tiny, long(), |t| mul(&t[0], &t[1])));
    let long = || vec![Input::new("a", [2, 70003]), Input::new("b", [70003])];
    cases.push(Case::new("add", "long_period", cases::Size::Tiny, long(), |t| add(&t[0], &t[1])));
    let long = || vec![Input::new("a", [2, 1, 35003]), Input::new("b", [1, 2, 1])];
    cases.push(Case::new("div", "pieces", cases::Size::Tiny, long(), |t| div(&t[0], &t[1])));
    let inputs = vec![Input::new("a", [2, 9])];
    cases.push(Case::new("mul", "with_itself", cases::Size::Tiny, inputs, |t| mul(&t[0], &t[0])));
    let inputs = vec![Input::new("a", [3, 11])];
    cases.push(Case::new("scale", "by_minus_2.5", cases::Size::Tiny, inputs, |t| scale(&t[0], -2.5)));
    let kinks = Fill::Avoiding { low: -1.0, high: 1.0, points: &[-0.5, 0.25], margin: 0.01 };
    let inputs = vec![Input::new("a", [3, 37]).fill(kinks)];
    cases.push(Case::new("clip", "both_sides", cases::Size::Tiny, inputs, |t| clip(&t[0], -0.5, 0.25)));
    let kinks = Fill::Avoiding { low: -1.0, high: 1.0, points: &[0.0], margin: 0.01 };
    let inputs = vec![Input::new("a", [3, 37]).fill(kinks)];
    cases.push(Case::new("sign", "both_sides", cases::Size::Tiny, inputs, |t| sign(&t[0])));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_refused_by_name() {
        let error = add(&Tensor::zeros([2, 3]), &Tensor::zeros([2])).unwrap_err().to_string();
        assert!(error.starts_with("add: expected") && error.ends_with("got [2]"), "{error}");
        assert!(clip(&Tensor::zeros([2]), 1.0, 0.0).is_err());
        assert!(add(&Tensor::zeros([2]), &Tensor::scalar(1.0f64)).is_err());
        assert!(sign(&Tensor::from_u8(&[1], [1]).unwrap()).is_err());
    }

    #[test]
    fn equal_ones_share_the_gradient_of_a_maximum_and_a_nan_stays_one() {
        let leaf = |values: &[f32]| Tensor::from_slice(values, [values.len()]).unwrap().leaf();
        let (a, b) = (leaf(&[1.0, 2.0, 3.0]), leaf(&[3.0, 2.0, 1.0]));
        for (f, of_a) in
            [(maximum as fn(&Tensor, &Tensor) -> _, [0.0, 2.0, 4.0]), (minimum, [4.0, 2.0, 0.0])]
        {
            let gradients = f(&a, &b).unwrap().backward_from(Tensor::full([3], 4.0)).unwrap();
            assert_eq!(gradients.get(&a).unwrap().to_vec_f64(), of_a);
            let of_b: Vec<f64> = of_a.iter().rev().copied().collect();
            assert_eq!(gradients.get(&b).unwrap().to_vec_f64(), of_b);
            let nan = leaf(&[f32::NAN; 3]);
            assert!(f(&a, &nan).unwrap().to_vec_f64().iter().all(|y| y.is_nan()));
            assert!(f(&nan, &a).unwrap().to_vec_f64().iter().all(|y| y.is_nan()));
        }
        assert_eq!(
            maximum(&leaf(&[-1.0]), &leaf(&[f32::INFINITY])).unwrap().to_vec_f64(),
            [f64::INFINITY]
        );
    }

    #[test]
    fn a_quotient_by_zero_is_infinite() {
        let y = div(&Tensor::full([2], 1.0), &Tensor::zeros([1])).unwrap();
        assert_eq!(y.to_vec_f64(), [f64::INFINITY; 2]);
    }

    #[test]
    fn sign_of_zero_is_zero_and_clip_keeps_nan() {
        let x = Tensor::from_slice(&[-2.0f32, -0.0, 0.0, 3.0], [4]).unwrap();
        assert_eq!(sign(&x).unwrap().to_vec_f64(), [-1.0, 0.0, 0.0, 1.0]);
        let nan = Tensor::from_slice(&[f32::NAN], [1]).unwrap();
        assert!(clip(&nan, 0.0, 1.0).unwrap().item().unwrap().is_nan());
    }
}
