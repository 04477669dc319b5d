//! The scaffold of functions of one number, element by element: y = f(x), ∂L/∂x = g · dy/dx.
//!
//! A function says its value, its slope, and what the slope is made of ([`Unary`]). The rest is here: the
//! reference, the fast pass (in place where nobody else holds the memory, past the caches where a result is
//! larger than they are), the node on the tape, the launches of `kernels/unary.cu`, and the cases.
//!
//! Bytes bind: 8 a forward element, 12 a backward one (8 where the slope is the same everywhere).

use crate::autograd::{Needs, record};
use crate::backend::cpu::simd;
use crate::backend::cpu::threads;
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, arguments};
use crate::cases::{self, Case, Fill, Input};
use crate::context::isa;
use crate::error::Result;
use crate::ops::elementwise::Scale;
use crate::ops::{Route, add, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// What a slope is a function of: the node keeps it until the gradient has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Saves {
    /// The slope is the same everywhere.
    Nothing,
    /// x
    Input,
    /// y, which the operator after it most often keeps as well.
    Output,
}

/// y = f(x). Mark the methods `#[inline(always)]`: the loops they end up in are compiled once an instruction
/// set.
pub(crate) trait Unary: Copy + Send + Sync + 'static {
    /// The operator, in errors and on the tape.
    const NAME: &'static str;
    /// The function's number in `kernels/unary.cu`.
    const CODE: i32;
    const SAVES: Saves;

    /// y, from x.
    fn value<T: Real>(self, x: T) -> T;

    /// y without calls into the C library, for the compiler to vectorise.
    #[inline(always)]
    fn fast(self, x: f32) -> f32 {
        self.value(x)
    }

    /// dy/dx, from what [`Unary::SAVES`] names.
    fn slope<T: Real>(self, saved: T) -> T;

    /// The function's constants, `p` and `q` of the kernel.
    fn constants(self) -> [f64; 2] {
        [0.0; 2]
    }
}

/// f(x), on the tape.
pub(crate) fn apply<F: Unary>(x: &Tensor, f: F) -> Result<Tensor> {
    apply_owned(x.clone(), f)
}

/// [`apply`] in the memory of `x`, where nobody else holds it.
pub(crate) fn apply_owned<F: Unary>(mut x: Tensor, f: F) -> Result<Tensor> {
    let needs = Needs::of([&x]).any();
    let input = (needs && F::SAVES == Saves::Input).then(|| x.detach());
    let output = evaluate(&mut x, f)?;
    let saved = match F::SAVES {
        Saves::Output if needs => Some(output.detach()),
        _ => input,
    };
    Ok(record(F::NAME, [&x], output, move |g| Ok([Some(backward(saved.as_ref(), g, f)?)])))
}

/// f(x) off the tape, in the memory of `x` where nobody else holds it.
pub(crate) fn map<F: Unary>(mut x: Tensor, f: F) -> Result<Tensor> {
    evaluate(&mut x, f)
}

/// g · dy/dx, from what the function saves; in the memory of g where nobody else holds it.
pub(crate) fn backward<F: Unary>(saved: Option<&Tensor>, g: Tensor, f: F) -> Result<Tensor> {
    let Some(saved) = saved else {
        return map(g, Scale(f.slope(0.0f64)));
    };
    Ok(match route(F::NAME, &[saved, &g])? {
        Route::F64 => reference_backward::<f64, F>(saved, &g, f),
        Route::Reference => reference_backward::<f32, F>(saved, &g, f),
        Route::Fast => fast_backward(saved, g, f),
        Route::Cuda(cuda) => device_backward(cuda, saved, g, f)?,
    })
}

/// What is left in `x` is the result's memory, or x as it was.
fn evaluate<F: Unary>(x: &mut Tensor, f: F) -> Result<Tensor> {
    Ok(match route(F::NAME, &[x])? {
        Route::F64 => reference::<f64, F>(x, f),
        Route::Reference => reference::<f32, F>(x, f),
        Route::Fast if x.is_unique() => {
            fast_in_place(x.values_mut(), f);
            x.detach()
        }
        Route::Fast => fast(x, f),
        Route::Cuda(cuda) => device(cuda, x, f)?,
    })
}

fn reference<T: Real, F: Unary>(x: &Tensor, f: F) -> Tensor {
    let mut out = Buffer::<T>::new(x.shape().elements());
    out.iter_mut().zip(x.values::<T>()).for_each(|(y, &x)| *y = f.value(x));
    Tensor::from_buffer(out, x.shape())
}

fn reference_backward<T: Real, F: Unary>(saved: &Tensor, g: &Tensor, f: F) -> Tensor {
    let mut out = Buffer::<T>::new(g.shape().elements());
    let pairs = saved.values::<T>().iter().zip(g.values::<T>());
    out.iter_mut().zip(pairs).for_each(|(d, (&s, &g))| *d = g * f.slope(s));
    Tensor::from_buffer(out, g.shape())
}

fn fast_in_place<F: Unary>(x: &mut [f32], f: F) {
    let isa = isa();
    threads::for_each_chunk(x, threads::GRAIN_SIZE, |_, x| {
        simd::vectorize(
            isa,
            #[inline(always)]
            || x.iter_mut().for_each(|x| *x = f.fast(*x)),
        )
    });
}

fn fast<F: Unary>(x: &Tensor, f: F) -> Tensor {
    let (input, isa) = (x.values::<f32>(), isa());
    let mut out = Buffer::<f32>::new(input.len());
    let non_temporal = simd::wants_non_temporal_alone(&out, threads::GRAIN_SIZE);
    threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |i, out| {
        let input = &input[i * threads::GRAIN_SIZE..][..out.len()];
        simd::write(
            isa,
            out,
            non_temporal,
            #[inline(always)]
            |at, out| out.iter_mut().zip(&input[at..]).for_each(|(y, &x)| *y = f.fast(x)),
        );
    });
    Tensor::from_buffer(out, x.shape())
}

fn fast_backward<F: Unary>(saved: &Tensor, mut g: Tensor, f: F) -> Tensor {
    let (saved, isa) = (saved.values::<f32>(), isa());
    if g.is_unique() {
        threads::for_each_chunk(g.values_mut::<f32>(), threads::GRAIN_SIZE, |i, g| {
            let saved = &saved[i * threads::GRAIN_SIZE..][..g.len()];
            simd::vectorize(
                isa,
                #[inline(always)]
                || g.iter_mut().zip(saved).for_each(|(g, &s)| *g *= f.slope(s)),
            );
        });
        return g;
    }
    let gradient = g.values::<f32>();
    let mut out = Buffer::<f32>::new(saved.len());
    let non_temporal = simd::wants_non_temporal_alone(&out, threads::GRAIN_SIZE);
    threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |i, out| {
        let saved = &saved[i * threads::GRAIN_SIZE..][..out.len()];
        let gradient = &gradient[i * threads::GRAIN_SIZE..][..out.len()];
        simd::write(
            isa,
            out,
            non_temporal,
            #[inline(always)]
            |at, out| {
                let pairs = saved[at..].iter().zip(&gradient[at..]);
                out.iter_mut().zip(pairs).for_each(|(d, (&s, &g))| *d = g * f.slope(s));
            },
        );
    });
    Tensor::from_buffer(out, g.shape())
}

/// The memory of `x` where nobody else holds it, or new.
fn in_place_or_new(cuda: &'static Cuda, x: &mut Tensor) -> Result<Tensor> {
    match x.is_unique() {
        true => Ok(x.detach()),
        false => Ok(Tensor::from_memory(cuda.allocate(x.shape().elements(), DType::F32)?, x.shape())),
    }
}

fn device<F: Unary>(cuda: &'static Cuda, x: &mut Tensor, f: F) -> Result<Tensor> {
    let (n, [p, q]) = (x.shape().elements(), f.constants().map(|c| c as f32));
    let y = in_place_or_new(cuda, x)?;
    let all = arguments![x.memory(), y.memory(), n as i64, F::CODE, p, q];
    // SAFETY: both are n floats; y is new, or x's own and nobody else's.
    unsafe {
        cuda.launch(Kernel::of("unary", "unary_forward"), LaunchConfig::elements(n.div_ceil(4)), &all)?
    };
    Ok(y)
}

fn device_backward<F: Unary>(
    cuda: &'static Cuda,
    saved: &Tensor,
    mut g: Tensor,
    f: F,
) -> Result<Tensor> {
    let (n, [p, q]) = (g.shape().elements(), f.constants().map(|c| c as f32));
    let d = in_place_or_new(cuda, &mut g)?;
    let all = arguments![saved.memory(), g.memory(), d.memory(), n as i64, F::CODE, p, q];
    // SAFETY: all three are n floats; d is new, or g's own and nobody else's.
    unsafe {
        cuda.launch(Kernel::of("unary", "unary_backward"), LaunchConfig::elements(n.div_ceil(4)), &all)?
    };
    Ok(d)
}

/// The cases of a function whose input is filled like this.
pub(crate) fn cases(
    op: &'static str,
    fill: Fill,
    f: impl Fn(&Tensor) -> Result<Tensor> + Copy + Send + Sync + 'static,
) -> Vec<Case> {
    // Longer than one piece of a parallel pass, and no multiple of it or of a vector.
    let shapes = [
        ("odd", &[3, 5, 7, 3][..], cases::Size::Tiny),
        ("one", &[1], cases::Size::Tiny),
        ("pieces", &[7, 23003], cases::Size::Tiny),
        ("16x112x112x64", &[16, 112, 112, 64], cases::Size::Real),
    ];
    let mut all: Vec<Case> = shapes
        .into_iter()
        .map(|(name, shape, size)| {
            let inputs = vec![Input::new("x", shape).fill(fill.clone())];
            Case::new(op, name, size, inputs, move |t| f(&t[0])).peer(op, "[16] 64 112x112")
        })
        .collect();
    // The gradient reaches two consumers, so that it may not be overwritten.
    let inputs = vec![Input::new("x", [3, 19]).fill(fill), Input::new("y", [3, 19])];
    let shared = move |t: &[Tensor]| add(&f(&t[0])?, &t[1]);
    all.push(Case::new(op, "shared_gradient", cases::Size::Tiny, inputs, shared));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;
    use crate::ops::{abs, exp, scale};

    #[test]
    fn what_the_slope_is_made_of_is_not_overwritten() {
        for isa in supported() {
            with_isa(isa, || {
                let x = Tensor::from_slice(&[-2.0f32, 3.0], [2]).unwrap().leaf();
                // Both inputs are results that nobody else holds.
                let y = abs(&scale(&x, 2.0).unwrap()).unwrap();
                let y = apply_owned(y, Scale(3.0)).unwrap();
                let gradients = y.backward_from(Tensor::full([2], 1.0)).unwrap();
                assert_eq!(gradients.get(&x).unwrap().to_vec_f64(), [-6.0, 6.0], "{isa:?}");
            });
        }
    }

    #[test]
    fn memory_that_nobody_else_holds_is_used_again_and_others_see_no_change() {
        let mine = Tensor::from_slice(&[1.0f32, 2.0], [2]).unwrap();
        let place = mine.values::<f32>().as_ptr();
        let other = mine.clone();
        assert_ne!(exp(&mine).unwrap().values::<f32>().as_ptr(), place);
        assert_eq!(other.to_vec_f64(), [1.0, 2.0]);
        drop(other);
        let twice = apply_owned(mine, Scale(2.0)).unwrap();
        assert_eq!((twice.values::<f32>().as_ptr(), twice.to_vec_f64()), (place, vec![2.0, 4.0]));
    }
}
