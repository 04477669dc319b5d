//! Batches on their way to a device while it still works on the one before: by way of memory that the
//! device's copy engine reads by itself (pinned), on a stream of their own, into a buffer beside the one
//! the work reads.

// Training, a feature of its own, does it.
#![cfg_attr(not(feature = "checkpoint"), allow(dead_code))]

use super::{Cuda, PinnedBuffer};
use crate::error::{Error, Result};
use crate::pool;
use crate::tensor::{DType, Tensor};

/// One tensor's place, and the way to it.
pub(crate) struct Staging {
    cuda: &'static Cuda,
    stage: Box<dyn PinnedBuffer>,
    /// What the work reads.
    pub tensor: Tensor,
}

impl Staging {
    /// For tensors of the shape and type of this one, whose values are there at once.
    pub fn new(cuda: &'static Cuda, values: &Tensor) -> Result<Self> {
        let tensor = values.to_device(cuda.device)?;
        let stage = cuda.stage(tensor.memory().bytes())?;
        Ok(Staging { cuda, stage, tensor })
    }

    /// Do these values fit?
    pub fn fits(&self, values: &Tensor) -> bool {
        values.shape() == self.tensor.shape() && values.dtype() == self.tensor.dtype()
    }

    /// Sends values off; returns before they are there.
    pub fn send(&mut self, values: &Tensor) -> Result<()> {
        if !self.fits(values) {
            return Err(Error::shape("staging", self.tensor.shape(), values.shape()));
        }
        let _capture_guard = self.cuda.not_while_capturing("sending a batch")?;
        self.stage.fill(match values.dtype() {
            DType::U8 => values.as_u8().unwrap_or_default(),
            _ => pool::bytes(values.as_slice::<f32>().unwrap_or_default()),
        })
    }

    /// Puts the values that were sent last into the tensor, after everything the device was asked before.
    pub fn receive(&mut self) -> Result<()> {
        let _capture_guard = self.cuda.not_while_capturing("receiving a batch")?;
        self.stage.empty(self.tensor.memory().address())
    }
}
