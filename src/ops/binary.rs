//! The scaffold of functions of two numbers, element by element: y = f(a, b), broadcast as in NumPy.
//!
//! The gradient of an operand that was broadcast is summed over the axes along which it was.
//!
//! A function says its value and its gradients ([`Binary`]). The rest is here and in [`Broadcast`]: the
//! reference, the fast pass, the node on the tape, the launches of `kernels/binary.cu`.
//!
//! Bytes bind: an f32 element of the result costs 4 bytes, and 4 for each operand that is as large.

use crate::autograd::{Needs, record};
use crate::backend::cpu::simd;
use crate::backend::cpu::threads;
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, Memory, Value, arguments, is_wide};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::broadcast::{Broadcast, Row, right_aligned};
use crate::ops::elementwise::scale_owned;
use crate::ops::reduce::sum_where;
use crate::ops::{Route, route, sum_axes};
use crate::pool::Buffer;
use crate::tensor::{DType, MAX_RANK, Real, Shape, Tensor};

/// y = f(a, b). Mark the methods `#[inline(always)]`: the loops they end up in are compiled once an
/// instruction set.
pub(crate) trait Binary: Copy + Send + Sync + 'static {
    /// The operator, in errors and on the tape.
    const NAME: &'static str;
    /// The function's number in `kernels/binary.cu`.
    const CODE: i32;
    /// Whether the gradient of a, and that of b, is made of [a, b]: those the node keeps.
    const USES: [[bool; 2]; 2];

    fn value<T: Real>(self, a: T, b: T) -> T;

    /// [g · ∂y/∂a, g · ∂y/∂b]; what [`Binary::USES`] does not name is 0.
    fn gradients<T: Real>(self, g: T, a: T, b: T) -> [T; 2];
}

/// f(a, b), on the tape.
pub(crate) fn apply<F: Binary>(a: &Tensor, b: &Tensor, f: F) -> Result<Tensor> {
    let output = map(a, b, f)?;
    let needs = Needs::of([a, b]).0;
    let [of_a, of_b] = F::USES;
    let used = |i: usize| (needs[0] && of_a[i]) || (needs[1] && of_b[i]);
    let saved = [used(0).then(|| a.detach()), used(1).then(|| b.detach())];
    let shapes = [a.shape(), b.shape()];
    Ok(record(F::NAME, [a, b], output, move |g| {
        let share = |i: usize| match needs[i] {
            true => Ok(Some(gradient(i, shapes, [&saved[0], &saved[1]], &g, f)?)),
            false => Ok::<_, Error>(None),
        };
        Ok([share(0)?, share(1)?])
    }))
}

/// f(a, b), off the tape.
pub(crate) fn map<F: Binary>(a: &Tensor, b: &Tensor, f: F) -> Result<Tensor> {
    let broadcast = Broadcast::new(F::NAME, a.shape(), b.shape())?;
    Ok(match route(F::NAME, &[a, b])? {
        Route::F64 => reference::<f64, F>(&broadcast, a, b, f),
        Route::Reference => reference::<f32, F>(&broadcast, a, b, f),
        Route::Fast => fast(&broadcast, a, b, f),
        Route::Cuda(cuda) => device(cuda, &broadcast, a, b, f)?,
    })
}

/// The gradient of operand i (0 is a, 1 is b), whose shape is `shapes[i]`.
fn gradient<F: Binary>(
    i: usize,
    shapes: [Shape; 2],
    saved: [&Option<Tensor>; 2],
    g: &Tensor,
    f: F,
) -> Result<Tensor> {
    if F::USES[i] == [false; 2] {
        // g times what is the same everywhere: once the sums are made, there is less of it.
        let (share, factor) = (unbroadcast(g.detach(), shapes[i])?, f.gradients(1.0f64, 0.0, 0.0)[i]);
        return if factor == 1.0 { Ok(share) } else { scale_owned(share, factor) };
    }
    let operand = |k: usize| saved[k].as_ref().filter(|_| F::USES[i][k]);
    let operands = [operand(0), operand(1)];
    let mut broadcast = Broadcast::new(F::NAME, shapes[0], shapes[1])?;
    // One that is not there does not move.
    for (operand, strides) in operands.iter().zip(&mut broadcast.strides) {
        if operand.is_none() {
            *strides = [0; MAX_RANK];
        }
    }
    let used: Vec<&Tensor> = [g].into_iter().chain(operands.into_iter().flatten()).collect();
    let full = match route(F::NAME, &used)? {
        Route::F64 => reference_gradient::<f64, F>(i, &broadcast, operands, g, f),
        Route::Reference => reference_gradient::<f32, F>(i, &broadcast, operands, g, f),
        Route::Fast if i == 0 => fast_gradient::<F, 0>(&broadcast, operands, g, f),
        Route::Fast => fast_gradient::<F, 1>(&broadcast, operands, g, f),
        Route::Cuda(cuda) => device_gradient(cuda, i, &broadcast, operands, g, f)?,
    };
    unbroadcast(full, shapes[i])
}

/// out = f(a, b)
#[inline(always)]
fn of_two<T: Real>(out: &mut [T], a: Row<T>, b: Row<T>, f: impl Fn(T, T) -> T) {
    match (a, b) {
        (Row::Each(a), Row::Each(b)) => {
            out.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = f(a, b))
        }
        (Row::Each(a), Row::Same(b)) => out.iter_mut().zip(a).for_each(|(y, &a)| *y = f(a, b)),
        (Row::Same(a), Row::Each(b)) => out.iter_mut().zip(b).for_each(|(y, &b)| *y = f(a, b)),
        (Row::Same(a), Row::Same(b)) => out.fill(f(a, b)),
    }
}

/// out = f(g, a, b)
#[inline(always)]
fn of_three<T: Real>(out: &mut [T], g: &[T], a: Row<T>, b: Row<T>, f: impl Fn(T, T, T) -> T) {
    let out = out.iter_mut().zip(g);
    match (a, b) {
        (Row::Each(a), Row::Each(b)) => {
            out.zip(a.iter().zip(b)).for_each(|((d, &g), (&a, &b))| *d = f(g, a, b))
        }
        (Row::Each(a), Row::Same(b)) => out.zip(a).for_each(|((d, &g), &a)| *d = f(g, a, b)),
        (Row::Same(a), Row::Each(b)) => out.zip(b).for_each(|((d, &g), &b)| *d = f(g, a, b)),
        (Row::Same(a), Row::Same(b)) => out.for_each(|(d, &g)| *d = f(g, a, b)),
    }
}

fn reference<T: Real, F: Binary>(broadcast: &Broadcast, a: &Tensor, b: &Tensor, f: F) -> Tensor {
    let (a, b) = (a.values::<T>(), b.values::<T>());
    let mut out = Buffer::<T>::new(broadcast.shape.elements());
    for (i, y) in out.iter_mut().enumerate() {
        let [at_a, at_b] = broadcast.offsets(i);
        *y = f.value(a[at_a], b[at_b]);
    }
    Tensor::from_buffer(out, broadcast.shape)
}

fn reference_gradient<T: Real, F: Binary>(
    which: usize,
    broadcast: &Broadcast,
    operands: [Option<&Tensor>; 2],
    g: &Tensor,
    f: F,
) -> Tensor {
    let nothing = [T::ZERO];
    let [a, b] = operands.map(|operand| operand.map_or(&nothing[..], |values| values.values()));
    let mut out = Buffer::<T>::new(g.shape().elements());
    for (i, (d, &g)) in out.iter_mut().zip(g.values::<T>()).enumerate() {
        let [at_a, at_b] = broadcast.offsets(i);
        *d = f.gradients(g, a[at_a], b[at_b])[which];
    }
    Tensor::from_buffer(out, g.shape())
}

fn fast<F: Binary>(broadcast: &Broadcast, a: &Tensor, b: &Tensor, f: F) -> Tensor {
    let (a, b) = (a.values::<f32>(), b.values::<f32>());
    let (broadcast, isa) = (*broadcast, isa());
    let mut out = Buffer::<f32>::new(broadcast.shape.elements());
    let non_temporal = simd::wants_non_temporal(&out, threads::GRAIN_SIZE);
    threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |i, out| {
        simd::write(
            isa,
            out,
            non_temporal,
            #[inline(always)]
            |at, out| {
                broadcast.rows(
                    i * threads::GRAIN_SIZE + at,
                    out.len(),
                    #[inline(always)]
                    |range, [at_a, at_b]| {
                        let a = broadcast.operand(0, a, at_a, range.len());
                        let b = broadcast.operand(1, b, at_b, range.len());
                        of_two(
                            &mut out[range],
                            a,
                            b,
                            #[inline(always)]
                            |a, b| f.value(a, b),
                        );
                    },
                )
            },
        );
    });
    Tensor::from_buffer(out, broadcast.shape)
}

fn fast_gradient<F: Binary, const WHICH: usize>(
    broadcast: &Broadcast,
    operands: [Option<&Tensor>; 2],
    g: &Tensor,
    f: F,
) -> Tensor {
    let [a, b] = operands.map(|operand| operand.map_or(&[0.0][..], |values| values.values()));
    let (broadcast, isa, gradient) = (*broadcast, isa(), g.values::<f32>());
    let mut out = Buffer::<f32>::new(gradient.len());
    let non_temporal = simd::wants_non_temporal(&out, threads::GRAIN_SIZE);
    threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |i, out| {
        simd::write(
            isa,
            out,
            non_temporal,
            #[inline(always)]
            |at, out| {
                let first = i * threads::GRAIN_SIZE + at;
                broadcast.rows(
                    first,
                    out.len(),
                    #[inline(always)]
                    |range, [at_a, at_b]| {
                        let a = broadcast.operand(0, a, at_a, range.len());
                        let b = broadcast.operand(1, b, at_b, range.len());
                        let g = &gradient[first + range.start..first + range.end];
                        of_three(
                            &mut out[range],
                            g,
                            a,
                            b,
                            #[inline(always)]
                            |g, a, b| f.gradients(g, a, b)[WHICH],
                        );
                    },
                )
            },
        );
    });
    Tensor::from_buffer(out, g.shape())
}

/// `struct Broadcast` of `kernels/binary.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct OnDevice([[i64; MAX_RANK]; 3]);
// SAFETY: numbers without padding.
unsafe impl Value for OnDevice {}

impl Broadcast {
    fn on_device(&self) -> OnDevice {
        let [a, b] = self.strides;
        OnDevice([self.sizes, a, b].map(|axes| axes.map(|length| length as i64)))
    }

    /// Threads for n elements: four each, where rows are a multiple of it.
    fn threads(&self) -> LaunchConfig {
        let n = self.shape.elements();
        LaunchConfig::elements(if is_wide(self.sizes[MAX_RANK - 1]) { n / 4 } else { n })
    }
}

fn device<F: Binary>(
    cuda: &'static Cuda,
    broadcast: &Broadcast,
    a: &Tensor,
    b: &Tensor,
    _: F,
) -> Result<Tensor> {
    let n = broadcast.shape.elements();
    let y = cuda.allocate(n, DType::F32)?;
    let all = arguments![a.memory(), b.memory(), &y, n as i64, broadcast.on_device(), F::CODE];
    // SAFETY: y is n floats, new; the offsets of its elements are within a and b, of whose shapes the strides
    // are.
    unsafe { cuda.launch(Kernel::of("binary", "binary_forward"), broadcast.threads(), &all)? };
    Ok(Tensor::from_memory(y, broadcast.shape))
}

fn device_gradient<F: Binary>(
    cuda: &'static Cuda,
    which: usize,
    broadcast: &Broadcast,
    operands: [Option<&Tensor>; 2],
    g: &Tensor,
    _: F,
) -> Result<Tensor> {
    let n = g.shape().elements();
    let d = cuda.allocate(n, DType::F32)?;
    // Where an operand is not used, any memory does.
    let [a, b]: [&Memory; 2] = operands.map(|operand| operand.unwrap_or(g).memory());
    let (which, strides) = (which as i32, broadcast.on_device());
    let all = arguments![g.memory(), a, b, &d, n as i64, strides, F::CODE, which];
    // SAFETY: g and d are n floats, d new; offsets as above, and 0 in what is not used.
    unsafe { cuda.launch(Kernel::of("binary", "binary_gradient"), broadcast.threads(), &all)? };
    Ok(Tensor::from_memory(d, g.shape()))
}

/// The sum of g over the axes along which an operand of this shape was broadcast.
pub(crate) fn unbroadcast(g: Tensor, shape: Shape) -> Result<Tensor> {
    if g.shape().elements() == shape.elements() {
        return Ok(g.with_shape(shape));
    }
    if shape.len() <= 1 || shape.elements() == 1 {
        return Ok(fold(&g, shape.elements())?.with_shape(shape));
    }
    let (from, to) = (right_aligned(g.shape()), right_aligned(shape));
    let first = MAX_RANK - g.shape().len();
    let axes: Vec<bool> = (first..MAX_RANK).map(|axis| to[axis] == 1 && from[axis] != 1).collect();
    Ok(sum_where(&g, &axes)?.with_shape(shape))
}

/// Sums every `period`-th element: [period] from any multiple of it, in order, in f64.
fn fold(g: &Tensor, period: usize) -> Result<Tensor> {
    fn run<T: Real>(g: &[T], period: usize) -> Buffer<T> {
        let mut sums = vec![0.0f64; period];
        for row in g.chunks(period.max(1)) {
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
            let rows = g.shape().elements() / period.max(1);
            sum_axes(&g.with_shape([rows, period].into()), 0..1)?
        }
        _ => Tensor::from_buffer(run::<f32>(g.values(), period), [period]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;
    use crate::ops::{add, sub};
    use proptest::prelude::*;

    #[test]
    fn shapes_that_do_not_broadcast_are_refused_with_both() {
        let error = |a: &[usize], b: &[usize]| {
            add(&Tensor::zeros(Shape::of(a)), &Tensor::zeros(Shape::of(b))).unwrap_err().to_string()
        };
        let rule = "(axes, from the last one on, equal or 1)";
        let expected =
            format!("add: expected a right operand that broadcasts with [2×3] {rule}, got [2]");
        assert_eq!(error(&[2, 3], &[2]), expected);
        assert!(error(&[2, 3, 1, 1], &[3, 3, 1, 1]).ends_with("got [3×3×1×1]"));
        // Each fits memory, and their result would not.
        let (wide, high) = (Tensor::zeros([0, 1 << 40, 1]), Tensor::zeros([0, 1, 1 << 40]));
        assert!(add(&wide, &high).unwrap_err().to_string().contains("at most"));
    }

    /// Lengths of an axis of two operands that broadcast.
    fn any_pair() -> impl Strategy<Value = (usize, usize)> {
        (1usize..5, 0u8..3).prop_map(|(n, which)| match which {
            0 => (n, n),
            1 => (1, n),
            _ => (n, 1),
        })
    }

    proptest! {
        #[test]
        fn every_way_to_broadcast_is_the_one_by_indices(
            pairs in proptest::collection::vec(any_pair(), 0..5),
            drop_a in 0usize..5,
        ) {
            let (a_axes, b_axes): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
            // Leading axes of length 1 may be missing.
            let leading = a_axes.iter().take_while(|&&n| n == 1).count().min(drop_a);
            let a_axes = &a_axes[leading..];
            let fill = |axes: &[usize], k: f32| {
                let n = axes.iter().product::<usize>();
                let values: Vec<f32> = (0..n).map(|i| k * i as f32 + k).collect();
                Tensor::from_slice(&values, axes).unwrap().leaf()
            };
            let (a, b) = (fill(a_axes, 1.0), fill(&b_axes, 1000.0));
            for isa in supported() {
                let y = with_isa(isa, || sub(&a, &b)).unwrap();
                let rank = y.shape().len();
                let mut sums = [vec![0.0; a.shape().elements()], vec![0.0; b.shape().elements()]];
                for (i, &got) in y.to_vec_f64().iter().enumerate() {
                    let mut place = vec![0; rank];
                    let mut rest = i;
                    for axis in (0..rank).rev() {
                        place[axis] = rest % y.shape()[axis];
                        rest /= y.shape()[axis];
                    }
                    let at = |axes: &[usize]| {
                        let own = &place[rank - axes.len()..];
                        axes.iter().zip(own).fold(0, |at, (&n, &i)| at * n + if n == 1 { 0 } else { i })
                    };
                    let (at_a, at_b) = (at(a_axes), at(&b_axes));
                    prop_assert_eq!(got, (at_a as f64 + 1.0) - 1000.0 * (at_b as f64 + 1.0));
                    sums[0][at_a] += 1.0;
                    sums[1][at_b] -= 1.0;
                }
                let g = Tensor::full(y.shape(), 1.0);
                let gradients = with_isa(isa, || y.backward_from(g)).unwrap();
                prop_assert_eq!(gradients.get(&a).unwrap().to_vec_f64(), sums[0].clone());
                prop_assert_eq!(gradients.get(&b).unwrap().to_vec_f64(), sums[1].clone());
            }
        }
    }
}
