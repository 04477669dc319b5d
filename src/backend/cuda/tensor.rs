//! Tensors whose memory is a device's.

use super::{Cuda, Memory};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pool;
use crate::tensor::{DType, DeviceMemory, Shape, Storage, Tensor};
use std::any::Any;

impl DeviceMemory for Memory {
    fn device(&self) -> Device {
        self.cuda.device
    }

    fn dtype(&self) -> DType {
        Memory::dtype(self)
    }

    fn elements(&self) -> usize {
        Memory::len(self)
    }

    fn download(&self, to: &mut [u8]) -> Result<()> {
        Memory::download(self, to)
    }
}

impl Tensor {
    /// A copy of the values on another device (off the tape). Waits for them, where they come back to the
    /// CPU. An error where there is no such device, or it does not hold the element type.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::ones([2]).to_device(Device::Cpu)?; // where it is already: the memory is shared
    /// assert_eq!(x.device(), Device::Cpu);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_device(&self, device: Device) -> Result<Self> {
        if device == self.device() {
            return Ok(self.detach());
        }
        let memory = match self.storage() {
            Storage::Device(_) => {
                let here = self.on_cpu()?;
                return if device == Device::Cpu { Ok(here) } else { here.to_device(device) };
            }
            Storage::F32(buffer) => {
                Cuda::get(device)?.upload(pool::bytes(buffer), buffer.len(), DType::F32)?
            }
            Storage::U8(buffer) => Cuda::get(device)?.upload(buffer, buffer.len(), DType::U8)?,
            Storage::F64(_) => {
                return Err(Error::Device(format!("f64 runs on the CPU, not on `{device}`")));
            }
        };
        Ok(Self::from_memory(memory, self.shape()))
    }

    /// Takes over memory of a device, of as many elements as the shape has.
    pub(crate) fn from_memory(memory: Memory, shape: impl Into<Shape>) -> Self {
        Self::from_storage(Storage::Device(Box::new(memory)), shape.into())
    }

    /// The memory of a tensor that is on a device, for kernels: the public function in `ops` has checked.
    pub(crate) fn memory(&self) -> &Memory {
        let memory = match self.storage() {
            Storage::Device(memory) => (&**memory as &dyn Any).downcast_ref(),
            _ => None,
        };
        memory.expect("the public function in `ops` checks the device")
    }

    /// The memory of a result that nobody else holds.
    pub(crate) fn into_memory(self) -> Result<Memory> {
        let held = || Error::argument("into_memory", "somebody else holds this tensor");
        let Storage::Device(memory) = self.into_storage().ok_or_else(held)? else {
            return Err(Error::Device("`cpu` is no CUDA device".into()));
        };
        let memory: Box<dyn Any> = memory;
        let other = |_| Error::Device("the memory is of another backend".into());
        Ok(*memory.downcast().map_err(other)?)
    }

    /// Copies the memory where somebody else sees it, so that it may be overwritten.
    pub(crate) fn make_unique(&mut self) -> Result<()> {
        if !self.is_unique() {
            let memory = self.memory();
            let copy = memory.cuda.copied(memory)?;
            // The same leaf of the tape, if it is one.
            let node = self.node.take();
            *self = Tensor::from_memory(copy, self.shape());
            self.node = node;
        }
        Ok(())
    }

    /// Puts the values of another tensor of this device into this one's own memory.
    pub(crate) fn overwrite(&mut self, values: &Tensor) -> Result<()> {
        assert_eq!((self.shape(), self.dtype()), (values.shape(), values.dtype()));
        self.make_unique()?;
        let memory = self.memory();
        memory.cuda.copy(values.memory(), memory)
    }
}
