//! `Tensor`: a shape, shared memory, and (when a gradient is wanted) its place on the tape.
//!
//! Contiguous, row-major, at most four axes: NHWC for pictures, HWIO for convolution kernels.
//! There are no strides and no views. Cloning and reshaping share the memory; everything else is
//! an operator in [`crate::ops`].

mod constructors;
mod display;
mod shape;
mod storage;

pub use shape::{IntoShape, MAX_RANK, Shape};
use storage::Held;
pub use storage::{DType, Real, Storage};

use crate::autograd::Node;
use crate::backend::cpu::kept::Kept;
use crate::backend::cpu::product::Product;
use crate::backend::cuda::{Cuda, Memory};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::pool::{self, Buffer};
use std::sync::Arc;

#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    storage: Arc<Held>,
    pub(crate) node: Option<Arc<Node>>,
}

impl Tensor {
    /// Takes over a buffer of as many elements as the shape has.
    pub(crate) fn from_buffer<T: Real>(buffer: Buffer<T>, shape: impl Into<Shape>) -> Self {
        Self::from_storage(T::into_storage(buffer), shape.into())
    }

    fn from_storage(storage: Storage, shape: Shape) -> Self {
        assert_eq!(storage.len(), shape.elements(), "buffer length against shape {shape}");
        Tensor { shape, storage: Arc::new(Held::new(storage)), node: None }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    pub fn dtype(&self) -> DType {
        self.storage.values.dtype()
    }

    /// [height, width] of a product.
    pub(crate) fn from_product(product: Product) -> Self {
        let shape = [product.height(), product.width()];
        Self::from_storage(Storage::Product(Box::new(product)), shape.into())
    }

    /// The factors, as long as nobody has asked for the elements.
    pub(crate) fn product(&self) -> Option<&Product> {
        match &self.storage.values {
            Storage::Product(product) if !product.is_multiplied() => Some(product),
            _ => None,
        }
    }

    /// Takes over memory of a device, of as many elements as the shape has.
    pub(crate) fn from_memory(memory: Memory, shape: impl Into<Shape>) -> Self {
        Self::from_storage(Storage::Device(memory), shape.into())
    }

    pub fn device(&self) -> Device {
        match &self.storage.values {
            Storage::Device(memory) => memory.cuda.device,
            _ => Device::Cpu,
        }
    }

    /// The same values on another device (off the tape). Waits for them, where they come back to the
    /// CPU.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        let storage = match &self.storage.values {
            _ if device == self.device() => return Ok(self.detach()),
            Storage::Device(memory) => {
                let cpu = match memory.dtype() {
                    DType::U8 => {
                        let mut buffer = Buffer::<u8>::new(memory.len());
                        memory.download(&mut buffer)?;
                        Storage::U8(buffer)
                    }
                    _ => {
                        let mut buffer = Buffer::<f32>::new(memory.len());
                        memory.download(pool::bytes_mut(&mut buffer))?;
                        Storage::F32(buffer)
                    }
                };
                match device {
                    Device::Cpu => cpu,
                    _ => return Self::from_storage(cpu, self.shape).to_device(device),
                }
            }
            Storage::F32(_) | Storage::Product(_) => {
                let values = self.values::<f32>();
                let bytes = pool::bytes(values);
                Storage::Device(Cuda::get(device)?.upload(bytes, values.len(), DType::F32)?)
            }
            Storage::U8(buffer) => {
                Storage::Device(Cuda::get(device)?.upload(buffer, buffer.len(), DType::U8)?)
            }
            Storage::F64(_) => {
                return Err(Error::Device(format!("f64 runs on the CPU, not on `{device}`")));
            }
        };
        Ok(Self::from_storage(storage, self.shape))
    }

    /// The memory of a tensor that is on a device, for kernels: the operator's entry has checked.
    pub(crate) fn memory(&self) -> &Memory {
        match &self.storage.values {
            Storage::Device(memory) => memory,
            _ => panic!("the operator's entry checks the device"),
        }
    }

    /// The memory of a result that nobody else holds.
    pub(crate) fn into_memory(self) -> Result<Memory> {
        match Arc::try_unwrap(self.storage).map(|held| held.values) {
            Ok(Storage::Device(memory)) => Ok(memory),
            Ok(_) => Err(Error::Device("`cpu` is no CUDA device".into())),
            Err(_) => Err(Error::argument("into_memory", "somebody else holds this tensor")),
        }
    }

    /// The elements, if they are of type T, in the CPU's memory.
    pub fn as_slice<T: Real>(&self) -> Option<&[T]> {
        T::slice_of(&self.storage.values)
    }

    pub fn as_u8(&self) -> Option<&[u8]> {
        match &self.storage.values {
            Storage::U8(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The elements, for kernels: the operator's entry has checked the type.
    pub(crate) fn values<T: Real>(&self) -> &[T] {
        self.as_slice().expect("the operator's entry checks the element type")
    }

    /// Other forms of these values.
    pub(crate) fn kept(&self) -> &Kept {
        &self.storage.kept
    }

    /// The elements for writing, copied first if another tensor shares them.
    pub(crate) fn values_mut<T: Real>(&mut self) -> &mut [T] {
        if !self.is_unique() {
            let copy = T::into_storage(Buffer::from_slice(self.values::<T>()));
            self.storage = Arc::new(Held::new(copy));
        }
        Arc::get_mut(&mut self.storage)
            .and_then(|held| {
                held.kept.clear();
                T::slice_of_mut(&mut held.values)
            })
            .expect("the operator's entry checks the element type")
    }

    /// Copies the memory where somebody else sees it, so that it may be overwritten.
    pub(crate) fn make_unique(&mut self) -> Result<()> {
        if !self.is_unique() {
            let memory = self.memory();
            let copy = memory.cuda.copied(memory)?;
            *self = Tensor::from_memory(copy, self.shape);
        }
        Ok(())
    }

    /// Puts the values of another tensor of this device into this one's own memory.
    pub(crate) fn overwrite(&mut self, values: &Tensor) -> Result<()> {
        assert_eq!((self.shape, self.dtype()), (values.shape, values.dtype()));
        self.make_unique()?;
        let memory = self.memory();
        memory.cuda.copy(values.memory(), memory)
    }

    /// True when nobody else sees this memory, so that it may be overwritten.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// The elements as f64, whatever the type. Those of a device are fetched; a device that fails
    /// meanwhile is a panic here, and an error of [`Tensor::to_device`].
    pub fn to_vec_f64(&self) -> Vec<f64> {
        match &self.storage.values {
            Storage::Device(memory) => {
                let here = self.to_device(Device::Cpu);
                here.unwrap_or_else(|error| panic!("{:?}: {error}", memory.cuda.device)).to_vec_f64()
            }
            Storage::F32(_) | Storage::Product(_) => {
                self.values::<f32>().iter().map(|&v| v as f64).collect()
            }
            Storage::F64(buffer) => buffer.to_vec(),
            Storage::U8(buffer) => buffer.iter().map(|&v| v as f64).collect(),
        }
    }

    /// The value of a one-element tensor.
    pub fn item(&self) -> Result<f64> {
        match self.storage.values.len() {
            1 => Ok(self.to_device(Device::Cpu)?.to_vec_f64()[0]),
            n => Err(Error::shape("item", "one element", n)),
        }
    }

    /// The same values in another element type (off the tape).
    pub fn to_dtype(&self, dtype: DType) -> Self {
        if dtype == self.dtype() {
            return self.detach();
        }
        let values = self.to_vec_f64();
        // The result is in the CPU's memory: on devices there is one type to compute in.
        let storage = match dtype {
            DType::F32 => {
                Storage::F32(Buffer::from_slice(&values.iter().map(|&v| v as f32).collect::<Vec<_>>()))
            }
            DType::F64 => Storage::F64(Buffer::from_slice(&values)),
            DType::U8 => {
                Storage::U8(Buffer::from_slice(&values.iter().map(|&v| v as u8).collect::<Vec<_>>()))
            }
        };
        Self::from_storage(storage, self.shape)
    }

    /// The same memory under another shape (off the tape; [`crate::ops::reshape`] is on it).
    pub(crate) fn with_shape(&self, shape: Shape) -> Self {
        assert_eq!(shape.elements(), self.shape.elements());
        Tensor { shape, storage: self.storage.clone(), node: None }
    }

    /// The same values, off the tape.
    pub fn detach(&self) -> Self {
        self.with_shape(self.shape)
    }

    /// The same values as a leaf of the tape: `backward` will report a gradient for it.
    pub fn leaf(&self) -> Self {
        Tensor { node: Some(Node::leaf()), ..self.detach() }
    }

    pub fn needs_grad(&self) -> bool {
        self.node.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_of_values_is_an_error_that_says_so() {
        let error = Tensor::from_slice(&[1.0f32; 5], [2, 3]).unwrap_err().to_string();
        assert!(error.contains("6 values for shape [2×3]") && error.ends_with("got 5"), "{error}");
    }

    #[test]
    fn values_for_a_shape_that_cannot_be_are_an_error() {
        // 2³² · 2³² elements would wrap to as many as there are: none.
        for axes in [&[1usize << 32, 1 << 32][..], &[1, 1, 1, 1, 1]] {
            assert!(Tensor::from_slice::<f32>(&[], axes).is_err());
            assert!(Tensor::from_u8(&[], axes).is_err());
            assert!(crate::ops::reshape(&Tensor::zeros([0]), axes).is_err());
        }
    }

    #[test]
    fn writing_to_shared_memory_copies_it_first() {
        let mut a = Tensor::full([3], 1.0);
        let b = a.clone();
        a.values_mut::<f32>()[0] = 9.0;
        assert_eq!((a.values::<f32>()[0], b.values::<f32>()[0]), (9.0, 1.0));
    }

    #[test]
    fn a_scalar_has_one_element_and_no_axes() {
        let s = Tensor::scalar(4.0f64);
        assert_eq!((s.shape().len(), s.item().unwrap()), (0, 4.0));
    }
}
