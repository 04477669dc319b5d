//! Element types, and the memory of elements.

use crate::device::Device;
use crate::error::Result;
use crate::pool::{Buffer, Plain};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Types of elements. Devices other than the CPU hold f32 and u8, no f64.
///
/// ```
/// use atrous::{DType, Tensor};
///
/// let bytes = Tensor::from_u8(&[0, 255], [2])?;
/// assert_eq!(bytes.dtype(), DType::U8);
/// assert_eq!(bytes.to_dtype(DType::F32).scale(1.0 / 255.0)?.to_string(), "[0. 1.]");
/// assert!(bytes.scale(1.0 / 255.0).is_err()); // operators compute in f32 and f64
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// The working type.
    F32,
    /// For tests: the plain loops that fast kernels are compared with (each operator's *reference*) run in
    /// it, and a whole network can. On the CPU alone.
    F64,
    /// Images and masks.
    U8,
}

/// The two types operators compute in. Reference kernels are written once, generic over it.
///
/// ```
/// use atrous::tensor::Real;
///
/// /// Σ xᵢyᵢ, as a reference kernel has it.
/// fn dot<T: Real>(x: &[T], y: &[T]) -> T {
///     x.iter().zip(y).map(|(&x, &y)| x * y).sum()
/// }
///
/// assert_eq!(dot(&[1.0f32, 2.0], &[3.0, 4.0]), 11.0);
/// let third = f64::from_f64(1.0 / 3.0);
/// assert_eq!(dot(&[third], &[3.0]), 1.0);
/// ```
pub trait Real:
    Plain
    + fmt::Debug
    + Default
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + std::iter::Sum
{
    /// The type, as a value.
    const DTYPE: DType;
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// Rounded to this type.
    fn from_f64(value: f64) -> Self;
    /// As it is.
    fn to_f64(self) -> f64;
    /// eˣ
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// |x|
    fn abs(self) -> Self;
    /// The larger; where one is NaN, the other (unlike NumPy's `maximum`).
    fn max(self, other: Self) -> Self;
    /// The smaller; where one is NaN, the other (unlike NumPy's `minimum`).
    fn min(self, other: Self) -> Self;
    /// The largest whole number that is not above x.
    fn floor(self) -> Self;
    /// The elements, if they are of this type and in the CPU's memory.
    fn slice_of(storage: &Storage) -> Option<&[Self]>;
    /// [`Real::slice_of`], for writing.
    fn slice_of_mut(storage: &mut Storage) -> Option<&mut [Self]>;
    /// A buffer as a tensor's memory.
    fn into_storage(buffer: Buffer<Self>) -> Storage;
}

macro_rules! real {
    ($type:ident, $variant:ident) => {
        impl Real for $type {
            const DTYPE: DType = DType::$variant;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $type::exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                $type::ln(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $type::sqrt(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $type::tanh(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $type::abs(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                $type::max(self, other)
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                $type::min(self, other)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                $type::floor(self)
            }
            fn slice_of(storage: &Storage) -> Option<&[Self]> {
                match storage {
                    Storage::$variant(buffer) => Some(buffer),
                    _ => None,
                }
            }
            fn slice_of_mut(storage: &mut Storage) -> Option<&mut [Self]> {
                match storage {
                    Storage::$variant(buffer) => Some(buffer),
                    _ => None,
                }
            }
            fn into_storage(buffer: Buffer<Self>) -> Storage {
                Storage::$variant(buffer)
            }
        }
    };
}
real!(f32, F32);
real!(f64, F64);

/// The memory of a tensor.
pub enum Storage {
    /// In the CPU's memory.
    F32(Buffer<f32>),
    /// In the CPU's memory.
    F64(Buffer<f64>),
    /// In the CPU's memory.
    U8(Buffer<u8>),
    /// Of another device than the CPU: f32 or u8.
    Device(Box<dyn DeviceMemory>),
}

/// Memory of another device than the CPU, as its backend holds it; `Any`, so that the backend finds its own
/// type again.
pub trait DeviceMemory: Any + Send + Sync {
    /// Whose it is.
    fn device(&self) -> Device;
    /// Type of the elements.
    fn dtype(&self) -> DType;
    /// The number of elements.
    fn elements(&self) -> usize;
    /// Waits for what is still to be computed, and copies all elements to `to`, which has exactly their bytes
    /// (4 an f32, 1 a u8); panics for another length. An error where the device fails.
    fn download(&self, to: &mut [u8]) -> Result<()>;
}

/// A tensor's memory with a version number, new at every write from the CPU and never used twice
/// ([`super::Tensor`]'s `version`).
pub(super) struct Versioned {
    pub values: Storage,
    pub version: u64,
}

impl Versioned {
    pub fn new(values: Storage) -> Self {
        Versioned { values, version: next_version() }
    }

    /// For writing.
    pub fn values_mut(&mut self) -> &mut Storage {
        self.version = next_version();
        &mut self.values
    }
}

fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Storage {
    pub(super) fn dtype(&self) -> DType {
        match self {
            Storage::F32(_) => DType::F32,
            Storage::F64(_) => DType::F64,
            Storage::U8(_) => DType::U8,
            Storage::Device(memory) => memory.dtype(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Storage::F32(buffer) => buffer.len(),
            Storage::F64(buffer) => buffer.len(),
            Storage::U8(buffer) => buffer.len(),
            Storage::Device(memory) => memory.elements(),
        }
    }
}
