//! The arithmetic of the tape itself: gradients begin as ones, and shares are added up.

use crate::backend::cpu::{simd, threads};
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, arguments};
use crate::context::isa;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

impl Tensor {
    /// As many elements of this value as `self` has, of its type and on its device; an error where a device fails.
    pub fn full_like(&self, value: f64) -> Result<Self> {
        let (shape, n) = (self.shape(), self.shape().elements());
        match (self.device(), self.dtype()) {
            (Device::Cpu, DType::F32) => Ok(Tensor::full(shape, value as f32)),
            (Device::Cpu, DType::F64) => Ok(Tensor::from_buffer(Buffer::filled(n, value), shape)),
            (device, DType::U8) => Tensor::from_u8(&vec![value as u8; n], shape)?.to_device(device),
            (device, _) => {
                let cuda = Cuda::get(device)?;
                let y = cuda.allocate(n, DType::F32)?;
                let kernel = Kernel::of("elementwise", "elementwise_fill");
                // SAFETY: y is n floats, new.
                unsafe {
                    cuda.launch(
                        kernel,
                        LaunchConfig::elements(n),
                        &arguments![&y, n as i64, value as f32],
                    )?
                };
                Ok(Tensor::from_memory(y, shape))
            }
        }
    }

    /// [`Tensor::full_like`] with zeros.
    pub fn zeros_like(&self) -> Result<Self> {
        self.full_like(0.0)
    }

    /// [`Tensor::full_like`] with ones.
    pub fn ones_like(&self) -> Result<Self> {
        self.full_like(1.0)
    }
}

/// sum + share, of one shape, type and device, into the memory of `sum` when nobody else sees it.
pub(crate) fn accumulate(mut sum: Tensor, share: &Tensor) -> Result<Tensor> {
    let of = |t: &Tensor| (t.shape(), t.dtype(), t.device());
    if of(&sum) != of(share) {
        let tell = |t: &Tensor| format!("{} {:?} on `{}`", t.shape(), t.dtype(), t.device());
        return Err(Error::shape("backward", format!("a gradient of {}", tell(&sum)), tell(share)));
    }
    if sum.device() != Device::Cpu {
        let (cuda, n) = (Cuda::get(sum.device())?, sum.shape().elements());
        let out = match sum.is_unique() {
            true => sum.detach(),
            false => Tensor::from_memory(cuda.allocate(n, DType::F32)?, sum.shape()),
        };
        let kernel = Kernel::of("elementwise", "elementwise_accumulate");
        let all = arguments![sum.memory(), share.memory(), out.memory(), n as i64];
        // SAFETY: all are n floats; the last is new, or the sum's own and nobody else's.
        unsafe { cuda.launch(kernel, LaunchConfig::elements(n), &all)? };
        return Ok(out);
    }
    Ok(match sum.dtype() {
        DType::F64 => add::<f64>(sum, share),
        _ => add::<f32>(sum, share),
    })
}

fn add<T: Real>(mut sum: Tensor, share: &Tensor) -> Tensor {
    let (isa, shape, share) = (isa(), sum.shape(), share.values::<T>());
    let piece = |i: usize, len: usize| i * threads::PASS..i * threads::PASS + len;
    if sum.is_unique() {
        threads::for_each_chunk(sum.values_mut::<T>(), threads::PASS, |i, sum| {
            let share = &share[piece(i, sum.len())];
            simd::vectorize(
                isa,
                #[inline(always)]
                || sum.iter_mut().zip(share).for_each(|(s, &x)| *s += x),
            );
        });
        return sum;
    }
    let (mut out, sum) = (Buffer::<T>::new(share.len()), sum.values::<T>());
    threads::for_each_chunk(&mut out, threads::PASS, |i, out| {
        let (sum, share) = (&sum[piece(i, out.len())], &share[piece(i, out.len())]);
        simd::vectorize(
            isa,
            #[inline(always)]
            || out.iter_mut().zip(sum).zip(share).for_each(|((out, &s), &x)| *out = s + x),
        );
    });
    Tensor::from_buffer(out, shape)
}
