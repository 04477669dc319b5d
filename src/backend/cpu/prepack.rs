//! What is made of a weight once and used again: its packed panels, its transform.
//!
//! A network that predicts one image after the other multiplies each weight with a few hundred pixels, and
//! bringing the weights into the order in which kernels read them would cost as much as that. So who owns a
//! weight keeps a cache of such layouts beside it and hands it to the operator. Every change of a tensor's
//! values gives them another version (`Tensor::version`), and layouts are of one version: what is old is
//! never served.

use crate::backend::cpu::simd::Isa;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// Which layout it is: what it was made by and for.
pub type LayoutKey = (&'static str, Isa);

/// The layouts of one weight.
#[derive(Default)]
pub struct PrepackCache(Mutex<Layouts>);

#[derive(Default)]
struct Layouts {
    /// Of the values that they were made of.
    version: u64,
    all: Vec<(LayoutKey, Arc<dyn Any + Send + Sync>)>,
}

impl Layouts {
    fn find<T: Send + Sync + 'static>(&self, key: LayoutKey) -> Option<Arc<T>> {
        let (_, made) = self.all.iter().find(|(known, _)| *known == key)?;
        made.clone().downcast().ok()
    }
}

impl PrepackCache {
    /// The layout of values of this version, made now if it is not there. Those of another version go.
    pub fn get<T: Send + Sync + 'static>(
        &self,
        version: u64,
        key: LayoutKey,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        let of_version = || {
            let mut layouts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if layouts.version != version {
                *layouts = Layouts { version, all: Vec::new() };
            }
            layouts
        };
        if let Some(made) = of_version().find(key) {
            return made;
        }
        // Not under the lock: making is a parallel loop, whose thread may take up other work while it waits,
        // and come by here again.
        let made = Arc::new(make());
        let mut layouts = of_version();
        if layouts.find::<T>(key).is_none() {
            layouts.all.push((key, made.clone()));
        }
        made
    }
}

/// A convolution's kernel, and where its layouts may be kept: nowhere if it is about to change.
#[derive(Clone, Copy)]
pub struct WeightView<'a> {
    pub values: &'a [f32],
    /// The cache, and the version of the values.
    pub cache: Option<(&'a PrepackCache, u64)>,
}

impl WeightView<'_> {
    /// A layout of the weights, kept for the next time if they meet few pixels.
    pub fn layout<T: Send + Sync + 'static>(
        &self,
        pixels: usize,
        key: LayoutKey,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        match self.cache.filter(|_| pays(pixels)) {
            Some((cache, version)) => cache.get(version, key, make),
            None => Arc::new(make()),
        }
    }

    /// The same where it is kept; None where it would be made anew each time.
    pub fn kept_layout<T: Send + Sync + 'static>(
        &self,
        pixels: usize,
        key: LayoutKey,
        make: impl FnOnce() -> T,
    ) -> Option<Arc<T>> {
        let (cache, version) = self.cache.filter(|_| pays(pixels))?;
        Some(cache.get(version, key, make))
    }
}

/// Whether weights that meet so many pixels are worth the memory of another layout of them: of many pixels,
/// making it is little of the work.
fn pays(pixels: usize) -> bool {
    /// Making a layout moves 8 bytes a weight, multiplying it with a pixel takes two operations: with so many
    /// pixels they are 5 % of the time where a byte costs as much as 8 operations.
    const FEW: usize = 640;
    pixels <= FEW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    const KEY: LayoutKey = ("test", Isa::Portable);

    #[test]
    fn a_layout_is_made_once_until_the_values_change() {
        let cache = PrepackCache::default();
        let mut x = Tensor::zeros([2]);
        let layout = |x: &Tensor, made: i32| *cache.get(x.version(), KEY, || made);
        assert_eq!([layout(&x, 1), layout(&x, 2), layout(&x.detach(), 3)], [1, 1, 1]);
        x.values_mut::<f32>()[0] = 5.0;
        assert_eq!([layout(&x, 4), layout(&x, 5)], [4, 4]);
        // Another tensor of the same values, and one that was copied to be written.
        assert_eq!(layout(&Tensor::zeros([2]), 6), 6);
        let shared = x.clone();
        x.values_mut::<f32>()[0] = 6.0;
        assert_eq!([layout(&x, 7), layout(&shared, 8)], [7, 8]);
    }

    #[test]
    fn layouts_that_meet_many_pixels_are_not_kept() {
        let cache = PrepackCache::default();
        let weights = WeightView { values: &[], cache: Some((&cache, 1)) };
        let layout = |pixels, made: i32| *weights.layout(pixels, KEY, || made);
        assert_eq!([layout(100, 1), layout(100_000, 2), layout(100, 3)], [1, 2, 1]);
        assert_eq!(weights.kept_layout(100, KEY, || 4).map(|made| *made), Some(1));
        assert!(weights.kept_layout(100_000, KEY, || 5).is_none());
        assert!(WeightView { values: &[], cache: None }.kept_layout(100, KEY, || 6).is_none());
    }
}
