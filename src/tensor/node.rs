//! A tensor's place on the tape. What is done with it: [`crate::autograd`].

use super::Tensor;
use super::gradient::Gradient;
use crate::error::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Takes the gradient of the output, gives one gradient per input (None where none is needed).
pub(crate) type Backward = Box<dyn FnOnce(Tensor) -> Result<Vec<Option<Gradient>>> + Send>;

/// The operator that a value came from; of a leaf, nothing but its identity.
pub(crate) struct Node {
    /// In the order of creation: an input is older than what was made of it.
    pub id: u64,
    /// The operator's name, for errors.
    pub op: &'static str,
    /// By input of the operator; None for one that is off the tape. Empty: a leaf.
    pub inputs: Vec<Option<Arc<Node>>>,
    /// None for a leaf, and for a node whose backward has run.
    backward: Mutex<Option<Backward>>,
}

impl Node {
    pub fn leaf() -> Arc<Self> {
        Self::new("leaf", Vec::new(), None)
    }

    pub fn new(
        op: &'static str,
        inputs: Vec<Option<Arc<Node>>>,
        backward: Option<Backward>,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Node { id, op, inputs, backward: Mutex::new(backward) })
    }

    /// The closure with all it saved, which can run once.
    pub fn take_backward(&self) -> Option<Backward> {
        self.backward.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Nodes hold their inputs: a chain of 100,000 operators, dropped recursively as the compiler does it, would
/// overflow the stack. So they are dropped in a loop.
impl Drop for Node {
    fn drop(&mut self) {
        let mut waiting = std::mem::take(&mut self.inputs);
        // The closure may hold tensors with these same nodes. `waiting` still holds them while it is dropped,
        // so none goes recursively.
        drop(self.take_backward());
        while let Some(input) = waiting.pop() {
            if let Some(mut node) = input.and_then(Arc::into_inner) {
                waiting.append(&mut node.inputs);
            }
        }
    }
}
