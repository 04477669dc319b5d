//! Constants like another tensor, on its device.

use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, arguments};
use crate::device::Device;
use crate::error::Result;
use crate::pool::Buffer;
use crate::tensor::{DType, Shape, Tensor};

/// An f32 tensor on a device other than the CPU, all elements `value`.
fn fill(device: Device, shape: Shape, value: f32) -> Result<Tensor> {
    let (cuda, n) = (Cuda::get(device)?, shape.elements());
    let y = cuda.allocate(n, DType::F32)?;
    let kernel = Kernel::of("elementwise", "elementwise_fill");
    // SAFETY: y is n floats, new.
    unsafe { cuda.launch(kernel, LaunchConfig::elements(n), &arguments![&y, n as i64, value])? };
    Ok(Tensor::from_memory(y, shape))
}

impl Tensor {
    /// A tensor of `self`'s shape, type and device, filled with `value`; off the tape. u8 truncates it as
    /// [`Tensor::to_dtype`] does. An error where a device fails.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).full_like(7.0)?.to_string(), "[7. 7.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn full_like(&self, value: f64) -> Result<Self> {
        let (shape, n) = (self.shape(), self.shape().elements());
        match (self.device(), self.dtype()) {
            (Device::Cpu, DType::F32) => Ok(Tensor::full(shape, value as f32)),
            (Device::Cpu, DType::F64) => Ok(Tensor::from_buffer(Buffer::filled(n, value), shape)),
            (device, DType::U8) => Tensor::from_u8(&vec![value as u8; n], shape)?.to_device(device),
            (device, _) => fill(device, shape, value as f32),
        }
    }

    /// [`Tensor::full_like`] with zeros.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::ones([2]).zeros_like()?.to_string(), "[0. 0.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn zeros_like(&self) -> Result<Self> {
        self.full_like(0.0)
    }

    /// [`Tensor::full_like`] with ones.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::zeros([2]).ones_like()?.to_string(), "[1. 1.]");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn ones_like(&self) -> Result<Self> {
        self.full_like(1.0)
    }
}
