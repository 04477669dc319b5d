//! Pooling on a CUDA device: launches of `kernels/pool.cu`.

use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, Memory, Value, arguments};
use crate::error::{Error, Result};
use crate::ops::pool::windows::Windows;
use crate::tensor::{DType, Tensor};

/// `struct Pool` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
struct Geometry([i32; 12]);
// SAFETY: numbers without padding.
unsafe impl Value for Geometry {}

impl Geometry {
    /// An error where a size does not fit into 31 bits.
    fn new(w: &Windows) -> Result<Self> {
        let sizes = [w.batch, w.input[0], w.input[1], w.channels, w.output[0], w.output[1]];
        let pairs = [w.pool, w.stride, w.before];
        let mut numbers = [0; 12];
        for (number, size) in
            numbers.iter_mut().zip(sizes.into_iter().chain(pairs.into_iter().flatten()))
        {
            *number = i32::try_from(size)
                .map_err(|_| Error::argument("pool", format!("{size} is too large a size")))?;
        }
        Ok(Geometry(numbers))
    }
}

impl Windows {
    fn large(&self) -> bool {
        self.pool[0] * self.pool[1] > 256
    }

    /// The maxima, and where they were, if that is wanted.
    pub(super) fn max_on_device(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        positions: bool,
    ) -> Result<(Tensor, Option<Memory>)> {
        let shape = self.output_shape();
        let n = shape.iter().product();
        let y = cuda.allocate(n, DType::F32)?;
        let cell = if self.large() { 4 } else { 1 };
        let places = if positions { Some(cuda.scratch(cell * n)?) } else { None };
        let address = places.as_ref().map_or(0, Memory::address);
        let all = arguments![x.memory(), &y, address, Geometry::new(self)?, n as i64];
        // SAFETY: x has the windows' input shape; y is n floats, the positions n cells or null.
        unsafe {
            match self.large() {
                true => {
                    cuda.launch(Kernel::of("pool", "pool_max_large"), LaunchConfig::elements(n), &all)?
                }
                false => cuda.launch_pass("pool", ["pool_max", "pool_max_4"], n, self.channels, &all)?,
            }
        };
        Ok((Tensor::from_memory(y, shape), places))
    }

    pub(super) fn max_backward_on_device(
        &self,
        cuda: &'static Cuda,
        positions: &Memory,
        dy: &Tensor,
    ) -> Result<Tensor> {
        let shape = self.input_shape();
        let n = shape.iter().product();
        let dx = cuda.allocate(n, DType::F32)?;
        let all = arguments![dy.memory(), positions, &dx, Geometry::new(self)?, n as i64];
        let large = Kernel::of("pool", "pool_max_large_backward");
        let names = ["pool_max_backward", "pool_max_backward_4"];
        // SAFETY: dy and the positions have the windows' output shape; dx is n floats, new.
        unsafe {
            match self.large() {
                true => cuda.launch(large, LaunchConfig::elements(n), &all)?,
                false => cuda.launch_pass("pool", names, n, self.channels, &all)?,
            }
        };
        Ok(Tensor::from_memory(dx, shape))
    }

    /// The means of windows, or (backward) their gradients to the cells.
    pub(super) fn average_on_device(
        &self,
        cuda: &'static Cuda,
        from: &Tensor,
        backward: bool,
    ) -> Result<Tensor> {
        let (shape, names) = match backward {
            false => (self.output_shape(), ["pool_average", "pool_average_4"]),
            true => (self.input_shape(), ["pool_average_backward", "pool_average_backward_4"]),
        };
        let n = shape.iter().product();
        let to = cuda.allocate(n, DType::F32)?;
        let all = arguments![from.memory(), &to, Geometry::new(self)?, n as i64];
        // SAFETY: `from` has the windows' other shape; `to` is n floats, new.
        unsafe { cuda.launch_pass("pool", names, n, self.channels, &all)? };
        Ok(Tensor::from_memory(to, shape))
    }
}
