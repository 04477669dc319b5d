//! What is made of a weight once and used again: its packed panels, its transform.
//!
//! A network that predicts one picture after the other multiplies each weight with a few hundred pixels, and bringing the
//! weights into the order in which kernels read them would cost as much as that. So a tensor keeps such forms of itself,
//! until its values change.

use crate::backend::cpu::simd::Isa;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// Which form it is: what it was made by and for.
pub type Form = (&'static str, Isa);

#[derive(Default)]
pub struct Kept(Mutex<Vec<(Form, Arc<dyn Any + Send + Sync>)>>);

impl Kept {
    /// The form of this name, made now if it is not there.
    pub fn get<T: Send + Sync + 'static>(&self, form: Form, make: impl FnOnce() -> T) -> Arc<T> {
        let found = |all: &[(Form, Arc<dyn Any + Send + Sync>)]| {
            let made = all.iter().find(|(name, _)| *name == form).map(|(_, made)| made.clone());
            made.and_then(|made| made.downcast().ok())
        };
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = found(&lock()) {
            return made;
        }
        // Not under the lock: making is a parallel loop, whose thread may take up other work while it waits, and come by
        // here again.
        let made = Arc::new(make());
        let mut all = lock();
        if found(&all).is_none() {
            all.push((form, made.clone()));
        }
        made
    }

    pub fn clear(&mut self) {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A convolution's kernel, and where its forms may be kept: nowhere if it is about to change.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    pub values: &'a [f32],
    pub kept: Option<&'a Kept>,
}

impl Weights<'_> {
    /// A form of the weights, kept for the next time if they meet few pixels: of many, making it is little of the work,
    /// and its memory is worth more.
    pub fn form<T: Send + Sync + 'static>(
        &self,
        pixels: usize,
        form: Form,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        match self.keeps(pixels) {
            Some(kept) => kept.get(form, make),
            None => Arc::new(make()),
        }
    }

    /// Where forms that meet so many pixels are kept.
    pub fn keeps(&self, pixels: usize) -> Option<&Kept> {
        /// Making a form moves 8 bytes a weight, multiplying it with a pixel takes two operations: with so many pixels
        /// they are 5 % of the time where a byte costs as much as 8 operations.
        const FEW: usize = 640;
        self.kept.filter(|_| pixels <= FEW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn a_form_is_made_once_until_the_values_change() {
        let mut x = Tensor::zeros([2]);
        let form = |x: &Tensor, made: i32| *x.kept().get(("test", Isa::Portable), || made);
        assert_eq!([form(&x, 1), form(&x, 2)], [1, 1]);
        x.values_mut::<f32>()[0] = 5.0;
        assert_eq!(form(&x, 3), 3);
        let weights = Weights { values: &[], kept: Some(x.kept()) };
        assert_eq!(*weights.form(100, ("test", Isa::Portable), || 4), 3);
        assert_eq!(*weights.form(100_000, ("test", Isa::Portable), || 5), 5);
    }
}
