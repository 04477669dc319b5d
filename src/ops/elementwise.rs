//! Element by element: add, sub, mul, scale, clip, sign.
//!
//! The right operand of `add`, `sub` and `mul` has the left one's shape, or is a vector over its
//! last axis (channels), or has one element. With y = a ∘ b and g = ∂L/∂y:
//!
//! | op    | y                 | ∂L/∂a                | ∂L/∂b  |
//! |-------|-------------------|----------------------|--------|
//! | add   | a + b             | g                    | Σ g    |
//! | sub   | a − b             | g                    | −Σ g   |
//! | mul   | a · b             | g · b                | Σ g·a  |
//! | scale | c · a             | c · g                |        |
//! | clip  | min(max(a, l), h) | g where l ≤ a ≤ h    |        |
//! | sign  | −1, 0, 1          | 0                    |        |
//!
//! Σ runs over the elements that one element of b was used for. `clip` passes the gradient at its
//! bounds, as TensorFlow's `clip_by_value` does.
//!
//! Bytes bind: an f32 element costs 12 bytes of traffic and one operation.

use crate::autograd::{Needs, record};
use crate::backend::cpu::simd;
use crate::backend::cpu::threads;
use crate::backend::cuda::{Cuda, Kernel, Size, arguments};
use crate::cases::{self, Case, Fill, Input};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::unary::{self, Saves, Unary};
use crate::ops::{Route, functions, route, sum_axes};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Binary {
    Add,
    Sub,
    Mul,
}

impl Binary {
    fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
        }
    }

    #[inline(always)]
    fn apply<T: Real>(self, a: T, b: T) -> T {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
        }
    }
}

/// a + b
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary(Binary::Add, a, b)
}

/// a − b
pub fn sub(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary(Binary::Sub, a, b)
}

/// a · b
pub fn mul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    binary(Binary::Mul, a, b)
}

/// c · a
pub fn scale(a: &Tensor, factor: f64) -> Result<Tensor> {
    unary::apply(a, Scale(factor))
}

/// c · a off the tape, in the memory of `a` where nobody else holds it.
pub(crate) fn scale_owned(a: Tensor, factor: f64) -> Result<Tensor> {
    unary::map(a, Scale(factor))
}

/// min(max(a, low), high)
pub fn clip(a: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    if low > high || low.is_nan() || high.is_nan() {
        return Err(Error::argument("clip", format!("expected low ≤ high, got {low} and {high}")));
    }
    unary::apply(a, Clip { low, high })
}

/// −1, 0 or 1; the sign of ±0 is 0. Its gradient is zero, so it leaves the tape.
pub fn sign(a: &Tensor) -> Result<Tensor> {
    unary::map(a.detach(), Sign)
}

impl Tensor {
    /// `factor` · x of each element.
    pub fn scale(&self, factor: f64) -> Result<Tensor> {
        scale(self, factor)
    }

    /// min(max(x, low), high) of each element; the gradient passes where low ≤ x ≤ high. An error unless low ≤ high.
    pub fn clip(&self, low: f64, high: f64) -> Result<Tensor> {
        clip(self, low, high)
    }

    /// −1, 0 or 1 of each element, off the tape: the gradient is zero.
    pub fn sign(&self) -> Result<Tensor> {
        sign(self)
    }
}

/// How the right operand is laid over the left one.
fn period(op: &'static str, a: &Tensor, b: &Tensor) -> Result<usize> {
    let (left, right) = (a.shape(), b.shape());
    if left == right {
        return Ok(left.elements());
    }
    match right.elements() {
        1 => Ok(1),
        n if right.len() == 1 && n == left.last_axis() => Ok(n),
        _ => Err(Error::shape(
            op,
            format!("a right operand of shape {left}, [{}] or one element", left.last_axis()),
            right,
        )),
    }
}

fn binary(op: Binary, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let period = period(op.name(), a, b)?;
    let output = match route(op.name(), &[a, b])? {
        Route::F64 => reference::<f64>(op, a, b, period),
        Route::Reference => reference::<f32>(op, a, b, period),
        Route::Fast => fast(op, a, b, period),
        Route::Cuda(cuda) => device(cuda, op, a, b, period)?,
    };
    let needs = Needs::of([a, b]);
    let saved_a = (needs.0[1] && op == Binary::Mul).then(|| a.detach());
    let saved_b = (needs.0[0] && op == Binary::Mul).then(|| b.detach());
    let shape = b.shape();
    Ok(record(op.name(), [a, b], output, move |g| {
        let for_b = match (needs.0[1], &saved_a) {
            (false, _) => None,
            (true, None) => Some(fold(&g, period)?.with_shape(shape)),
            (true, Some(a)) => Some(fold(&mul(&g, a)?, period)?.with_shape(shape)),
        };
        let for_b = match for_b {
            Some(share) if op == Binary::Sub => Some(scale(&share, -1.0)?),
            other => other,
        };
        let for_a = match (needs.0[0], saved_b) {
            (false, _) => None,
            (true, None) => Some(g),
            (true, Some(b)) => Some(mul(&g, &b)?),
        };
        Ok([for_a, for_b])
    }))
}

fn reference<T: Real>(op: Binary, a: &Tensor, b: &Tensor, period: usize) -> Tensor {
    let (left, right) = (a.values::<T>(), b.values::<T>());
    let mut out = Buffer::<T>::new(left.len());
    for (i, y) in out.iter_mut().enumerate() {
        *y = op.apply(left[i], right[i % period]);
    }
    Tensor::from_buffer(out, a.shape())
}

fn fast(op: Binary, a: &Tensor, b: &Tensor, period: usize) -> Tensor {
    let (left, right, isa) = (a.values::<f32>(), b.values::<f32>(), isa());
    let mut out = Buffer::<f32>::new(left.len());
    let same = period == left.len();
    // Pieces of whole periods, so that every piece starts at the right operand's first element.
    let whole = if same { threads::PASS } else { (threads::PASS / period).max(1) * period };
    let stream = same && simd::streams(&out, whole);
    threads::for_each_chunk(&mut out, whole, |i, out| {
        let left = &left[i * whole..][..out.len()];
        simd::write(
            isa,
            out,
            stream,
            #[inline(always)]
            |at, out| {
                if same {
                    let pairs = left[at..].iter().zip(&right[i * whole + at..]);
                    out.iter_mut().zip(pairs).for_each(|(y, (&a, &b))| *y = op.apply(a, b));
                } else {
                    for (out, left) in out.chunks_mut(period).zip(left.chunks(period)) {
                        out.iter_mut()
                            .zip(left)
                            .zip(right)
                            .for_each(|((y, &a), &b)| *y = op.apply(a, b));
                    }
                }
            },
        );
    });
    Tensor::from_buffer(out, a.shape())
}

const MODULE: &str = "elementwise";

fn device(cuda: &'static Cuda, op: Binary, a: &Tensor, b: &Tensor, period: usize) -> Result<Tensor> {
    let n = a.shape().elements();
    let y = cuda.allocate(n, DType::F32)?;
    let (left, right) = (a.memory(), b.memory());
    if n == period && n.is_multiple_of(4) {
        let (kernel, size) = (Kernel::of(MODULE, "elementwise_binary_same"), Size::elements(n / 4));
        // SAFETY: all three are n floats, that is n/4 vectors of four; y is new.
        unsafe { cuda.launch(kernel, size, &arguments![left, right, &y, (n / 4) as i64, op as i32])? };
    } else {
        let (kernel, size) = (Kernel::of(MODULE, "elementwise_binary"), Size::elements(n));
        let all = arguments![left, right, &y, n as i64, period as i64, op as i32];
        // SAFETY: a and y are n floats, b is `period`; y is new.
        unsafe { cuda.launch(kernel, size, &all)? };
    }
    Ok(Tensor::from_memory(y, a.shape()))
}

/// Sums every `period`-th element: [period] from any multiple of it, in order, in f64.
fn fold(g: &Tensor, period: usize) -> Result<Tensor> {
    fn run<T: Real>(g: &[T], period: usize) -> Buffer<T> {
        let mut sums = vec![0.0f64; period];
        for row in g.chunks(period) {
            sums.iter_mut().zip(row).for_each(|(sum, &g)| *sum += g.to_f64());
        }
        let sums: Vec<T> = sums.into_iter().map(T::from_f64).collect();
        Buffer::from_slice(&sums)
    }
    if period == g.shape().elements() {
        return Ok(g.detach());
    }
    Ok(match route("fold", &[g])? {
        Route::F64 => Tensor::from_buffer(run::<f64>(g.values(), period), [period]),
        Route::Cuda(_) => {
            let rows = g.shape().elements() / period;
            sum_axes(&g.with_shape([rows, period].into()), 0..1)?
        }
        _ => Tensor::from_buffer(run::<f32>(g.values(), period), [period]),
    })
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

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    type Op = fn(&Tensor, &Tensor) -> Result<Tensor>;
    for (op, f) in [("add", add as Op), ("sub", sub as Op), ("mul", mul as Op)] {
        for (name, right) in
            [("same", &[2, 5, 3, 7][..]), ("channels", &[7][..]), ("one", &[1][..]), ("scalar", &[][..])]
        {
            let inputs = vec![Input::new("a", [2, 5, 3, 7]), Input::new("b", right)];
            cases.push(Case::new(op, name, cases::Size::Tiny, inputs, move |t| f(&t[0], &t[1])));
        }
        // A multiple of four: vectors on devices.
        let inputs = vec![Input::new("a", [3, 20]), Input::new("b", [3, 20])];
        cases.push(Case::new(op, "same_60", cases::Size::Tiny, inputs, move |t| f(&t[0], &t[1])));
        let inputs = vec![Input::new("a", [16, 112, 112, 64]), Input::new("b", [16, 112, 112, 64])];
        cases.push(Case::new(op, "16x112x112x64", cases::Size::Real, inputs, move |t| f(&t[0], &t[1])));
    }
    // Longer than one piece of a parallel pass, and no multiple of it.
    let long = || vec![Input::new("a", [3, 23001]), Input::new("b", [23001])];
    cases.push(Case::new("mul", "pieces", cases::Size::Tiny, long(), |t| mul(&t[0], &t[1])));
    let long = || vec![Input::new("a", [2, 70003]), Input::new("b", [70003])];
    cases.push(Case::new("add", "long_period", cases::Size::Tiny, long(), |t| add(&t[0], &t[1])));
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
    fn sign_of_zero_is_zero_and_clip_keeps_nan() {
        let x = Tensor::from_slice(&[-2.0f32, -0.0, 0.0, 3.0], [4]).unwrap();
        assert_eq!(sign(&x).unwrap().to_vec_f64(), [-1.0, 0.0, 0.0, 1.0]);
        let nan = Tensor::from_slice(&[f32::NAN], [1]).unwrap();
        assert!(clip(&nan, 0.0, 1.0).unwrap().item().unwrap().is_nan());
    }
}
