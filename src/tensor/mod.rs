//! `Tensor`: a shape, shared memory, and (when a gradient is wanted) its place on the tape.
//!
//! Contiguous, row-major, at most four axes: images are [sample, row, column, channel] (NHWC), convolution
//! kernels [row, column, channel in, channel out] (HWIO). There are no strides and no views. Cloning and
//! reshaping share the memory, a [`Buffer`] of the pool ([`crate::pool`]): an array that goes back there
//! when the last tensor that shares it is dropped, to be handed to the next. Operators are in
//! [`crate::ops`]; `backward` is in [`crate::autograd`], `to_device` in `backend/cuda/tensor.rs`, `full_like`
//! in `backend/full_like.rs`: they need kernels, whose modules are built on this one.
//!
//! The *tape* is the graph of operators that a tensor came from (PyTorch's `grad_fn`), kept only where a
//! gradient is wanted: from a *leaf*, which [`Tensor::leaf`] makes of a tensor (PyTorch's
//! `x.detach().requires_grad_()`; the tensor itself stays as it was), on to all that operators make of it.
//! [`Tensor::backward`] goes back through it ([`crate::autograd`]).

mod constructors;
mod display;
mod gradient;
mod node;
mod shape;
mod storage;

pub use gradient::{Gradient, LowRankGrad};
pub(crate) use node::Node;
pub use shape::{IntoShape, MAX_RANK, Shape};
use storage::Versioned;
pub use storage::{DType, DeviceMemory, Real, Storage};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::pool::{self, Buffer};
use std::fmt;
use std::sync::Arc;

/// Shape, element type and device of a tensor, shown as `[2×3] F32 on cpu`. A gradient has its tensor's, and
/// gradients that are summed have the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub shape: Shape,
    pub dtype: DType,
    pub device: Device,
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} on {}", self.shape, self.dtype, self.device)
    }
}

/// An array of at most four axes, in the memory of a [`Device`]; what operators make of it may be on the
/// tape.
///
/// A clone shares the memory (and the place on the tape). How tensors are made: [`Tensor::from_slice`],
/// [`Tensor::zeros`], [`Tensor::randn`], …, and `Tensor::from` for arrays and numbers. What is done with
/// them: the methods here, `+ − * /`, and the functions of [`crate::ops`], where formulas and gradients
/// stand.
///
/// ```
/// use atrous::prelude::*;
///
/// let x = Tensor::from([[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!((x.shape(), x.dtype(), x.device()), (Shape::from([2, 3]), DType::F32, Device::Cpu));
/// let centred = (&x - x.mean_keepdim([1])?)?;
/// assert_eq!(centred.to_string(), "[[-1.  0.  1.]\n [-1.  0.  1.]]");
/// assert_eq!(x.transpose(0, 1)?.matmul(&x)?.shape()[..], [3, 3]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    storage: Arc<Versioned>,
    /// Its place on the tape; None off it.
    pub(crate) node: Option<Arc<Node>>,
}

impl Tensor {
    /// Takes over a buffer of as many elements as the shape has.
    pub(crate) fn from_buffer<T: Real>(buffer: Buffer<T>, shape: impl Into<Shape>) -> Self {
        Self::from_storage(T::into_storage(buffer), shape.into())
    }

    pub(crate) fn from_storage(storage: Storage, shape: Shape) -> Self {
        assert_eq!(storage.len(), shape.elements(), "buffer length against shape {shape}");
        Tensor { shape, storage: Arc::new(Versioned::new(storage)), node: None }
    }

    /// Lengths of the axes.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::zeros([2, 3]);
    /// assert_eq!(x.shape()[..], [2, 3]);
    /// assert_eq!(x.shape().to_string(), "[2×3]");
    /// ```
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Type of the elements.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([1.0f64]).dtype(), DType::F64);
    /// ```
    pub fn dtype(&self) -> DType {
        self.storage.values.dtype()
    }

    /// Where the elements are.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::zeros([1]).device(), Device::Cpu);
    /// ```
    pub fn device(&self) -> Device {
        match &self.storage.values {
            Storage::Device(memory) => memory.device(),
            _ => Device::Cpu,
        }
    }

    /// Shape, type and device.
    pub(crate) fn spec(&self) -> TensorSpec {
        TensorSpec { shape: self.shape, dtype: self.dtype(), device: self.device() }
    }

    /// The memory that holds the elements, by type and place.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage.values
    }

    /// The storage of a tensor that nobody else holds; None where somebody does.
    pub(crate) fn into_storage(self) -> Option<Storage> {
        Arc::try_unwrap(self.storage).ok().map(|held| held.values)
    }

    /// The same values in the CPU's memory (off the tape). Waits for those of a device.
    pub(crate) fn on_cpu(&self) -> Result<Self> {
        let Storage::Device(memory) = &self.storage.values else { return Ok(self.detach()) };
        let storage = match memory.dtype() {
            DType::U8 => {
                let mut buffer = Buffer::<u8>::new(memory.elements());
                memory.download(&mut buffer)?;
                Storage::U8(buffer)
            }
            // f32: devices hold no f64.
            _ => {
                let mut buffer = Buffer::<f32>::new(memory.elements());
                memory.download(pool::bytes_mut(&mut buffer))?;
                Storage::F32(buffer)
            }
        };
        Ok(Self::from_storage(storage, self.shape))
    }

    /// The elements, if they are of type T, in the CPU's memory.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32, 2.0]);
    /// assert_eq!(x.as_slice::<f32>(), Some(&[1.0, 2.0][..]));
    /// assert_eq!(x.as_slice::<f64>(), None);
    /// ```
    pub fn as_slice<T: Real>(&self) -> Option<&[T]> {
        T::slice_of(&self.storage.values)
    }

    /// The elements, if they are bytes in the CPU's memory.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from_u8(&[1, 2], [2])?.as_u8(), Some(&[1, 2][..]));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn as_u8(&self) -> Option<&[u8]> {
        match &self.storage.values {
            Storage::U8(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The elements, for kernels: the public function in `ops` has checked the type.
    pub(crate) fn values<T: Real>(&self) -> &[T] {
        self.as_slice().expect("the public function in `ops` checks the element type")
    }

    /// Which values these are, in the CPU's memory: others, or the same written anew, have another version.
    /// What is derived from them (a layer's weights, packed for a kernel) is cached under it. (PyTorch's
    /// `_version` counts the writes to one tensor; this number is unique among all.) Of a device's memory it
    /// says which memory it is and no more: kernels write there under the same version.
    pub(crate) fn version(&self) -> u64 {
        self.storage.version
    }

    /// The elements for writing, copied first if another tensor shares them; a leaf stays the leaf that it
    /// is. For kernels and optimizers.
    pub(crate) fn values_mut<T: Real>(&mut self) -> &mut [T] {
        if !self.is_unique() {
            let copy = T::into_storage(Buffer::from_slice(self.values::<T>()));
            self.storage = Arc::new(Versioned::new(copy));
        }
        Arc::get_mut(&mut self.storage)
            .and_then(|held| T::slice_of_mut(held.values_mut()))
            .expect("the public function in `ops` checks the element type")
    }

    /// True when nobody else sees this memory, so that it may be overwritten.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.storage).is_some()
    }

    /// The elements as f64, whatever the type. Those of a device are fetched.
    ///
    /// # Panics
    /// Where a device fails meanwhile; [`Tensor::to_device`] has an error for it.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([0.5f32, 2.0]).to_vec_f64(), [0.5, 2.0]);
    /// ```
    pub fn to_vec_f64(&self) -> Vec<f64> {
        match &self.storage.values {
            Storage::Device(memory) => {
                self.on_cpu().unwrap_or_else(|error| panic!("{}: {error}", memory.device())).to_vec_f64()
            }
            Storage::F32(buffer) => buffer.iter().map(|&v| v as f64).collect(),
            Storage::F64(buffer) => buffer.to_vec(),
            Storage::U8(buffer) => buffer.iter().map(|&v| v as f64).collect(),
        }
    }

    /// The value of a tensor of one element, of any rank. An error for another number of elements, and where
    /// a device fails.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// assert_eq!(Tensor::from([[3.0f32]]).item()?, 3.0);
    /// assert!(Tensor::zeros([2]).item().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn item(&self) -> Result<f64> {
        match self.storage.values.len() {
            1 => Ok(self.on_cpu()?.to_vec_f64()[0]),
            n => Err(Error::shape("item", "one element", n)),
        }
    }

    /// The same values in another element type, off the tape: in the CPU's memory, unless they are of that
    /// type already, when their memory is shared. To u8 they are truncated, and held to 0..=255 (NaN is 0).
    ///
    /// # Panics
    /// As [`Tensor::to_vec_f64`].
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let bytes = Tensor::from([-1.0f32, 2.9, 300.0]).to_dtype(DType::U8);
    /// assert_eq!(bytes.as_u8(), Some(&[0, 2, 255][..]));
    /// ```
    pub fn to_dtype(&self, dtype: DType) -> Self {
        if dtype == self.dtype() {
            return self.detach();
        }
        let values = self.to_vec_f64();
        // In the CPU's memory: a device computes in f32 alone, and would need a kernel for each other type.
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
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32]).leaf();
    /// assert!(x.square()?.requires_grad() && !x.square()?.detach().requires_grad());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn detach(&self) -> Self {
        self.with_shape(self.shape)
    }

    /// A leaf of the tape with these values, f32 or f64, in shared memory: [`Tensor::backward`] gives a
    /// gradient with respect to it. Each call makes another leaf; clones of one are the same leaf. `self`
    /// stays as it is, and what it was made of is not reached through the leaf. (A leaf of u8 is not
    /// refused, but no f32 or f64 loss gives it a gradient: operators only hand u8 on, as `reshape`, or read
    /// class labels from it.)
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([3.0f32]).leaf();
    /// assert_eq!(x.square()?.sum()?.backward()?.get(&x).unwrap().item()?, 6.0);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn leaf(&self) -> Self {
        Tensor { node: Some(Node::leaf()), ..self.detach() }
    }

    /// Whether it is on the tape: a leaf, or made of one by operators that recorded (PyTorch's
    /// `requires_grad`).
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([1.0f32]);
    /// assert!(!x.requires_grad() && x.leaf().requires_grad());
    /// ```
    pub fn requires_grad(&self) -> bool {
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
        assert_eq!((s.shape().rank(), s.item().unwrap()), (0, 4.0));
    }

    #[test]
    fn bytes_of_numbers_are_truncated_and_held_to_their_range() {
        let bytes = Tensor::from([-1.5f32, 0.9, 254.9, 300.0, f32::NAN]).to_dtype(DType::U8);
        assert_eq!(bytes.as_u8().unwrap(), [0, 0, 254, 255, 0]);
    }

    #[test]
    fn values_written_anew_have_another_version_and_shared_ones_the_same() {
        let mut a = Tensor::full([3], 1.0);
        let before = a.version();
        assert_eq!(a.detach().version(), before);
        a.values_mut::<f32>()[0] = 1.0;
        assert_ne!(a.version(), before);
    }
}
