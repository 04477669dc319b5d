//! The sum of gradients that reach one value from several consumers. Each of them is called a *share*.

use crate::backend::cpu::{simd, threads};
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, arguments};
use crate::context::isa;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// sum + share, of one shape, type (f32 or f64) and device, into the memory of `sum` when nobody else sees
/// it.
pub(crate) fn accumulate(mut sum: Tensor, share: &Tensor) -> Result<Tensor> {
    let (op, spec) = ("backward", sum.spec());
    if spec != share.spec() {
        return Err(Error::shape(op, format!("a gradient of {spec}"), share.spec()));
    }
    match (spec.device, spec.dtype) {
        (Device::Cpu, DType::F32) => Ok(add::<f32>(sum, share)),
        (Device::Cpu, DType::F64) => Ok(add::<f64>(sum, share)),
        (device, DType::F32) => {
            let (cuda, n) = (Cuda::get(device)?, spec.shape.elements());
            let out = if sum.is_unique() {
                sum.detach()
            } else {
                Tensor::from_memory(cuda.allocate(n, DType::F32)?, spec.shape)
            };
            let kernel = Kernel::of("elementwise", "elementwise_accumulate");
            let all = arguments![sum.memory(), share.memory(), out.memory(), n as i64];
            // SAFETY: all are n floats, as their specs say; the last is new, or the sum's own and nobody
            // else's.
            unsafe { cuda.launch(kernel, LaunchConfig::elements(n), &all)? };
            Ok(out)
        }
        (_, dtype) => {
            let got = format!("gradients of {dtype:?} to add");
            Err(Error::DType { op, expected: "F32 or F64".into(), got })
        }
    }
}

fn add<T: Real>(mut sum: Tensor, share: &Tensor) -> Tensor {
    let (isa, shape, share) = (isa(), sum.shape(), share.values::<T>());
    // `for_each_chunk` cuts its slice into pieces of GRAIN_SIZE elements, the last shorter: the same range
    // of the other operand.
    let piece = |i: usize, len: usize| i * threads::GRAIN_SIZE..i * threads::GRAIN_SIZE + len;
    if sum.is_unique() {
        threads::for_each_chunk(sum.values_mut::<T>(), threads::GRAIN_SIZE, |i, sum| {
            let share = &share[piece(i, sum.len())];
            // `vectorize` compiles the loop for each instruction set, hence the inlining, and runs that of
            // `isa`.
            simd::vectorize(
                isa,
                #[inline(always)]
                || sum.iter_mut().zip(share).for_each(|(s, &x)| *s += x),
            );
        });
        return sum;
    }
    let (mut out, sum) = (Buffer::<T>::new(share.len()), sum.values::<T>());
    threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |i, out| {
        let (sum, share) = (&sum[piece(i, out.len())], &share[piece(i, out.len())]);
        simd::vectorize(
            isa,
            #[inline(always)]
            || out.iter_mut().zip(sum).zip(share).for_each(|((out, &s), &x)| *out = s + x),
        );
    });
    Tensor::from_buffer(out, shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_of_bytes_are_an_error_and_no_sum() {
        let bytes = Tensor::from_u8(&[1, 2], [2]).unwrap();
        let error = accumulate(bytes.clone(), &bytes).err().unwrap();
        let text = "backward: expected element type F32 or F64, got gradients of U8 to add";
        assert_eq!(error.to_string(), text);
        assert!(matches!(error, Error::DType { .. }));
    }

    #[test]
    fn shares_that_differ_are_an_error_that_describes_both() {
        let [a, b] = [Tensor::zeros([2]), Tensor::zeros([2]).to_dtype(DType::F64)];
        let error = accumulate(a, &b).err().unwrap().to_string();
        assert_eq!(error, "backward: expected a gradient of [2] F32 on cpu, got [2] F64 on cpu");
    }
}
