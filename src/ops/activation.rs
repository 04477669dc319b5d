//! Activations. With y = f(x) and g = ∂L/∂y, every slope is a function of the output alone, so
//! that is all a node keeps:
//!
//! | op      | y                  | ∂L/∂x               |
//! |---------|--------------------|---------------------|
//! | relu    | max(x, 0)          | g where y > 0       |
//! | relu6   | min(max(x, 0), 6)  | g where 0 < y < 6   |
//! | sigmoid | 1 / (1 + e⁻ˣ)      | g · y · (1 − y)     |
//! | tanh    | tanh x             | g · (1 − y²)        |
//!
//! At the kinks the slope is 0, as TensorFlow has it. Bytes bind: 8 a forward element, 12 a
//! backward one (in place: the gradient's memory is reused when nobody else holds it).

use crate::activation::Activation;
use crate::autograd::{Needs, record};
use crate::backend::cpu::simd;
use crate::backend::cpu::{math, threads};
use crate::backend::cuda::{Cuda, Kernel, Size, arguments};
use crate::cases::{self, Case, Fill, Input};
use crate::context::isa;
use crate::error::Result;
use crate::ops::{Route, route, softmax};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// max(x, 0)
pub fn relu(x: &Tensor) -> Result<Tensor> {
    activate::<Relu>(x)
}

/// min(max(x, 0), 6)
pub fn relu6(x: &Tensor) -> Result<Tensor> {
    activate::<Relu6>(x)
}

/// 1 / (1 + e⁻ˣ)
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    activate::<Sigmoid>(x)
}

/// tanh x
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    activate::<Tanh>(x)
}

impl Activation {
    /// As an operator of its own.
    pub(crate) fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Activation::Linear => Ok(x),
            Activation::Relu => activate_owned::<Relu>(x),
            Activation::Relu6 => activate_owned::<Relu6>(x),
            Activation::Sigmoid => activate_owned::<Sigmoid>(x),
            Activation::Tanh => activate_owned::<Tanh>(x),
            Activation::Softmax => softmax(&x),
        }
    }

    /// What is left to do for the operator's result: nothing where its kernel made the activation in its pass.
    pub(crate) fn complete(self, fused: bool, y: Tensor) -> Result<Tensor> {
        match fused {
            true => Ok(y),
            false => self.apply(y),
        }
    }

    /// The result, where the operator's kernel made the activation in its pass and a gradient will have to
    /// know of it ([`Activation::through`]).
    pub(crate) fn made<const N: usize>(
        self,
        fused: bool,
        y: &Tensor,
        needs: &Needs<N>,
    ) -> Option<Tensor> {
        (self != Activation::Linear && needs.any() && fused).then(|| y.detach())
    }

    /// What of the gradient g comes through to the operator.
    pub(crate) fn through(self, made: Option<&Tensor>, g: Tensor) -> Result<Tensor> {
        match (self, made) {
            (Activation::Relu, Some(y)) => backward::<Relu>(y, g),
            (Activation::Relu6, Some(y)) => backward::<Relu6>(y, g),
            _ => Ok(g),
        }
    }
}

trait Function: 'static {
    const NAME: &'static str;
    /// Its number in `kernels/common.cuh`; [`Activation`]'s.
    const CODE: i32;
    fn value<T: Real>(x: T) -> T;
    /// The same without calls into the C library, for the compiler to vectorise.
    #[inline(always)]
    fn fast(x: f32) -> f32 {
        Self::value(x)
    }
    /// dy/dx, from y.
    fn slope<T: Real>(y: T) -> T;
}

struct Relu;
impl Function for Relu {
    const NAME: &'static str = "relu";
    const CODE: i32 = 1;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        // A comparison, not `max`: a NaN stays a NaN.
        if x <= T::ZERO { T::ZERO } else { x }
    }
    #[inline(always)]
    fn slope<T: Real>(y: T) -> T {
        if y > T::ZERO { T::ONE } else { T::ZERO }
    }
}

struct Relu6;
impl Function for Relu6 {
    const NAME: &'static str = "relu6";
    const CODE: i32 = 2;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        let six = T::from_f64(6.0);
        let x = if x <= T::ZERO { T::ZERO } else { x };
        if x >= six { six } else { x }
    }
    #[inline(always)]
    fn slope<T: Real>(y: T) -> T {
        if y > T::ZERO && y < T::from_f64(6.0) { T::ONE } else { T::ZERO }
    }
}

struct Sigmoid;
impl Function for Sigmoid {
    const NAME: &'static str = "sigmoid";
    const CODE: i32 = 3;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        T::ONE / (T::ONE + (-x).exp())
    }
    #[inline(always)]
    fn fast(x: f32) -> f32 {
        math::sigmoid(x)
    }
    #[inline(always)]
    fn slope<T: Real>(y: T) -> T {
        y * (T::ONE - y)
    }
}

struct Tanh;
impl Function for Tanh {
    const NAME: &'static str = "tanh";
    const CODE: i32 = 4;
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x.tanh()
    }
    #[inline(always)]
    fn fast(x: f32) -> f32 {
        math::tanh(x)
    }
    #[inline(always)]
    fn slope<T: Real>(y: T) -> T {
        T::ONE - y * y
    }
}

fn activate<A: Function>(x: &Tensor) -> Result<Tensor> {
    activate_owned::<A>(x.clone())
}

fn activate_owned<A: Function>(mut x: Tensor) -> Result<Tensor> {
    let output = match route(A::NAME, &[&x])? {
        Route::F64 => reference::<f64, A>(&x),
        Route::Reference => reference::<f32, A>(&x),
        Route::Fast if x.is_unique() => {
            fast_in_place::<A>(x.values_mut());
            x.detach()
        }
        Route::Fast => fast::<A>(&x),
        Route::Cuda(cuda) => device::<A>(cuda, &mut x)?,
    };
    let x = &x;
    let saved = output.detach();
    Ok(record(A::NAME, [x], output, move |g| Ok([Some(backward::<A>(&saved, g)?)])))
}

/// g · slope, from the output.
fn backward<A: Function>(y: &Tensor, g: Tensor) -> Result<Tensor> {
    Ok(match route(A::NAME, &[y, &g])? {
        Route::F64 => reference_backward::<f64, A>(y, &g),
        Route::Reference => reference_backward::<f32, A>(y, &g),
        Route::Fast => fast_backward::<A>(y, g),
        Route::Cuda(cuda) => device_backward::<A>(cuda, y, g)?,
    })
}

fn reference<T: Real, A: Function>(x: &Tensor) -> Tensor {
    let mut out = Buffer::<T>::new(x.shape().elements());
    out.iter_mut().zip(x.values::<T>()).for_each(|(y, &x)| *y = A::value(x));
    Tensor::from_buffer(out, x.shape())
}

fn reference_backward<T: Real, A: Function>(y: &Tensor, g: &Tensor) -> Tensor {
    let mut out = Buffer::<T>::new(y.shape().elements());
    let outputs = y.values::<T>().iter().zip(g.values::<T>());
    out.iter_mut().zip(outputs).for_each(|(d, (&y, &g))| *d = g * A::slope(y));
    Tensor::from_buffer(out, y.shape())
}

/// In the memory of `x`, where nobody else holds it.
fn device<A: Function>(cuda: &'static Cuda, x: &mut Tensor) -> Result<Tensor> {
    let (n, kernel) = (x.shape().elements(), Kernel::of("activation", "activation_forward"));
    let y = match x.is_unique() {
        true => x.detach(),
        false => Tensor::from_memory(cuda.allocate(n, DType::F32)?, x.shape()),
    };
    let all = arguments![x.memory(), y.memory(), n as i64, A::CODE];
    // SAFETY: both are n floats; y is new, or x's own and nobody else's.
    unsafe { cuda.launch(kernel, Size::elements(n), &all)? };
    Ok(y)
}

fn device_backward<A: Function>(cuda: &'static Cuda, y: &Tensor, mut g: Tensor) -> Result<Tensor> {
    let (n, kernel) = (g.shape().elements(), Kernel::of("activation", "activation_backward"));
    let d = match g.is_unique() {
        true => g.detach(),
        false => Tensor::from_memory(cuda.allocate(n, DType::F32)?, g.shape()),
    };
    let all = arguments![y.memory(), g.memory(), d.memory(), n as i64, A::CODE];
    // SAFETY: all three are n floats; d is new, or g's own and nobody else's.
    unsafe { cuda.launch(kernel, Size::elements(n), &all)? };
    Ok(d)
}

fn fast_in_place<A: Function>(x: &mut [f32]) {
    let isa = isa();
    threads::for_each_chunk(x, threads::PASS, |_, x| {
        simd::vectorize(
            isa,
            #[inline(always)]
            || x.iter_mut().for_each(|x| *x = A::fast(*x)),
        )
    });
}

fn fast<A: Function>(x: &Tensor) -> Tensor {
    let (input, isa) = (x.values::<f32>(), isa());
    let mut out = Buffer::<f32>::new(input.len());
    let stream = simd::streams_alone(&out, threads::PASS);
    threads::for_each_chunk(&mut out, threads::PASS, |i, out| {
        let input = &input[i * threads::PASS..][..out.len()];
        simd::write(
            isa,
            out,
            stream,
            #[inline(always)]
            |at, out| out.iter_mut().zip(&input[at..]).for_each(|(y, &x)| *y = A::fast(x)),
        );
    });
    Tensor::from_buffer(out, x.shape())
}

fn fast_backward<A: Function>(y: &Tensor, mut g: Tensor) -> Tensor {
    let (outputs, isa) = (y.values::<f32>(), isa());
    if g.is_unique() {
        threads::for_each_chunk(g.values_mut::<f32>(), threads::PASS, |i, g| {
            let outputs = &outputs[i * threads::PASS..][..g.len()];
            simd::vectorize(
                isa,
                #[inline(always)]
                || g.iter_mut().zip(outputs).for_each(|(g, &y)| *g *= A::slope(y)),
            );
        });
        return g;
    }
    let gradient = g.values::<f32>();
    let mut out = Buffer::<f32>::new(outputs.len());
    let stream = simd::streams_alone(&out, threads::PASS);
    threads::for_each_chunk(&mut out, threads::PASS, |i, out| {
        let outputs = &outputs[i * threads::PASS..][..out.len()];
        let gradient = &gradient[i * threads::PASS..][..out.len()];
        simd::write(
            isa,
            out,
            stream,
            #[inline(always)]
            |at, out| {
                let pairs = outputs[at..].iter().zip(&gradient[at..]);
                out.iter_mut().zip(pairs).for_each(|(d, (&y, &g))| *d = g * A::slope(y));
            },
        );
    });
    Tensor::from_buffer(out, y.shape())
}

pub fn cases() -> Vec<Case> {
    type Op = fn(&Tensor) -> Result<Tensor>;
    let all: [(&str, Op, &[f32]); 4] = [
        ("relu", relu, &[0.0]),
        ("relu6", relu6, &[0.0, 6.0]),
        ("sigmoid", sigmoid, &[]),
        ("tanh", tanh, &[]),
    ];
    let mut cases = Vec::new();
    for (op, f, points) in all {
        let fill = Fill::Avoiding { low: -9.0, high: 9.0, points, margin: 0.01 };
        // Longer than one piece of a parallel pass, and no multiple of it or of a vector.
        for (name, shape, size) in [
            ("odd", &[3, 5, 7, 3][..], cases::Size::Tiny),
            ("one", &[1], cases::Size::Tiny),
            ("pieces", &[7, 23003], cases::Size::Tiny),
            ("16x112x112x64", &[16, 112, 112, 64], cases::Size::Real),
        ] {
            let inputs = vec![Input::new("x", shape).fill(fill.clone())];
            let case = Case::new(op, name, size, inputs, move |t| f(&t[0]));
            cases.push(case.peer(op, "[16] 64 112x112"));
        }
        // The gradient reaches two consumers, so that it may not be overwritten.
        let inputs = vec![Input::new("x", [3, 19]).fill(fill), Input::new("y", [3, 19])];
        let shared = move |t: &[Tensor]| crate::ops::add(&f(&t[0])?, &t[1]);
        cases.push(Case::new(op, "shared_gradient", cases::Size::Tiny, inputs, shared));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kernel_makes_in_its_pass_is_made_after_it() {
        use crate::ops::conv2d::{Convolution, conv2d_fused};
        use crate::ops::depthwise_conv2d::depthwise_conv2d_fused;
        use crate::ops::{Conv2dOptions, batch_norm_infer};
        let fill = |shape: &[usize]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| (i as f32 * 0.7).sin()).collect();
            Tensor::from_slice(&values, shape).unwrap()
        };
        let (x, w, d, c) = (fill(&[1, 4, 4, 3]), fill(&[3, 3, 3, 3]), fill(&[3, 3, 3, 1]), fill(&[3]));
        let made = |activation: Activation| {
            let options = Conv2dOptions::default();
            let by = |kernel| Convolution::new(kernel, None, options);
            let variance = Tensor::full([3], 1.0);
            [
                conv2d_fused(&x, by(&w), activation.into()).unwrap().y,
                depthwise_conv2d_fused(&x, by(&d), activation.into()).unwrap().y,
                batch_norm_infer(&x, &c, &c, &c, &variance, 1e-3, activation).unwrap(),
            ]
        };
        let alone: [fn(&Tensor) -> Result<Tensor>; 3] = [sigmoid, tanh, softmax];
        for (activation, alone) in
            [Activation::Sigmoid, Activation::Tanh, Activation::Softmax].into_iter().zip(alone)
        {
            for (y, plain) in made(activation).iter().zip(made(Activation::Linear)) {
                assert_eq!(y.to_vec_f64(), alone(&plain).unwrap().to_vec_f64(), "{activation:?}");
            }
        }
    }

    #[test]
    fn the_slope_at_a_kink_is_zero() {
        let x = Tensor::from_slice(&[-0.0f32, 0.0, 6.0, 7.0, 3.0], [5]).unwrap().leaf();
        let gradient = |y: Tensor| {
            let mut gradients = y.backward_from(Tensor::full([5], 2.0)).unwrap();
            gradients.take(&x).unwrap().to_vec_f64()
        };
        assert_eq!(gradient(relu(&x).unwrap()), [0.0, 0.0, 2.0, 2.0, 2.0]);
        assert_eq!(gradient(relu6(&x).unwrap()), [0.0, 0.0, 0.0, 0.0, 2.0]);
    }

    #[test]
    fn a_nan_stays_a_nan() {
        let x = Tensor::full([20], f32::NAN);
        for f in [relu, relu6, sigmoid, tanh] {
            assert!(f(&x).unwrap().to_vec_f64().iter().all(|y| y.is_nan()));
        }
    }

    #[test]
    fn pictures_are_refused() {
        let error = relu(&Tensor::from_u8(&[1], [1]).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("relu: expected element type"), "{error}");
    }
}
