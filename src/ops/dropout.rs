//! Dropout, in training: with u uniform in [0, 1), drawn for every element,
//!
//! y = x / (1 − rate) where u ≥ rate, else 0; ∂L/∂x the same of g.
//!
//! Element i is decided by word i mod 4 of block ⌊i/4⌋ of the random stream of (seed, step, layer).
//! The backward pass draws the same numbers again, so nothing is saved, and the mask is the same
//! on every device and at any thread count.

use crate::autograd::record;
use crate::backend::cpu::simd;
use crate::backend::cpu::threads;
use crate::backend::cuda::{self, Cuda, Kernel, arguments, graph};
use crate::cases::{Case, Input, Size};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::random::{Stream, domain, unit_f32};
use crate::tensor::{DType, Real, Tensor};

/// Zeroes a share `rate` of the elements, and makes up for it. `layer` tells the dropouts of a
/// network apart ([`crate::random::hash_name`] of its name).
///
/// ```
/// # use atrous::{Tensor, ops, random};
/// let x = Tensor::ones([1000]);
/// let layer = random::hash_name("dropout");
/// let step = |step| ops::dropout(&x, 0.2, 7, step, layer).map(|y| y.to_vec_f64());
/// let zeros = step(0)?.iter().filter(|&&y| y == 0.0).count();
/// assert!((150..250).contains(&zeros), "{zeros}");
/// assert_eq!(step(0)?, step(0)?);
/// assert_ne!(step(0)?, step(1)?);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn dropout(x: &Tensor, rate: f32, seed: u64, step: u64, layer: u64) -> Result<Tensor> {
    if !(0.0..1.0).contains(&rate) {
        return Err(Error::argument("dropout", format!("expected a rate in 0..1, got {rate}")));
    }
    route("dropout", &[x])?;
    if rate == 0.0 {
        return Ok(x.clone());
    }
    let stream = Stream::new(seed, &[domain::DROPOUT, step, layer]);
    let mask = Mask { stream, rate, seed, step, layer };
    let output = mask.apply(x)?;
    Ok(record("dropout", [x], output, move |g| Ok([Some(mask.apply(&g)?)])))
}

struct Mask {
    stream: Stream,
    rate: f32,
    seed: u64,
    step: u64,
    layer: u64,
}

impl Mask {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match route("dropout", &[x])? {
            Route::F64 => self.reference::<f64>(x),
            Route::Reference => self.reference::<f32>(x),
            Route::Fast => self.fast(x),
            Route::Cuda(cuda) => self.device(cuda, x)?,
        })
    }

    fn device(&self, cuda: &'static Cuda, x: &Tensor) -> Result<Tensor> {
        let n = x.shape().elements();
        let y = cuda.allocate(n, DType::F32)?;
        let (rate, scale) = (self.rate, self.scale() as f32);
        // In a captured graph the step is another one each time.
        let before = Stream::id_after(3, &[domain::DROPOUT]);
        let (step, step_at) = (self.step, graph::step_address());
        let all = arguments![
            x.memory(),
            &y,
            n as i64,
            rate,
            scale,
            self.seed,
            before,
            step,
            step_at,
            self.layer
        ];
        let size = cuda::LaunchConfig::elements(n.div_ceil(4));
        // SAFETY: both are n floats, the second new.
        unsafe { cuda.launch(Kernel::of("dropout", "dropout_apply"), size, &all)? };
        Ok(Tensor::from_memory(y, x.shape()))
    }

    fn scale(&self) -> f64 {
        1.0 / (1.0 - self.rate as f64)
    }

    fn reference<T: Real>(&self, x: &Tensor) -> Tensor {
        let scale = T::from_f64(self.scale());
        let mut out = Buffer::<T>::new(x.shape().elements());
        for (i, (y, &x)) in out.iter_mut().zip(x.values::<T>()).enumerate() {
            let word = self.stream.block(i as u64 / 4)[i % 4];
            *y = if unit_f32(word) >= self.rate { x * scale } else { T::ZERO };
        }
        Tensor::from_buffer(out, x.shape())
    }

    /// A block at a time, sixteen blocks side by side.
    fn fast(&self, x: &Tensor) -> Tensor {
        const BLOCKS: usize = 16;
        let (values, scale, isa) = (x.values::<f32>(), self.scale() as f32, isa());
        let mut out = Buffer::<f32>::new(values.len());
        threads::for_each_chunk(&mut out, threads::GRAIN_SIZE, |i, out| {
            let values = &values[i * threads::GRAIN_SIZE..][..out.len()];
            let first = (i * threads::GRAIN_SIZE / 4) as u64;
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    let pieces = out.chunks_mut(4 * BLOCKS).zip(values.chunks(4 * BLOCKS));
                    for (piece, (out, values)) in pieces.enumerate() {
                        let first = first + (piece * BLOCKS) as u64;
                        let mut words = [[0u32; 4]; BLOCKS];
                        for (block, words) in words.iter_mut().enumerate() {
                            *words = self.stream.block(first + block as u64);
                        }
                        let pairs = values.iter().zip(words.as_flattened());
                        for (y, (&x, &word)) in out.iter_mut().zip(pairs) {
                            *y = if unit_f32(word) >= self.rate { x * scale } else { 0.0 };
                        }
                    }
                },
            );
        });
        Tensor::from_buffer(out, x.shape())
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &'static str, size, shape: &[usize], rate| {
        let inputs = vec![Input::new("x", shape)];
        Case::new("dropout", name, size, inputs, move |t| dropout(&t[0], rate, 7, 3, 1))
    };
    vec![
        case("half", Size::Tiny, &[3, 5, 37], 0.5),
        case("third", Size::Tiny, &[1001], 0.3),
        case("none", Size::Tiny, &[3, 7], 0.0),
        case("pieces", Size::Tiny, &[3, 23003], 0.9),
        case("64x4096", Size::Real, &[64, 4096], 0.5),
    ]
}

impl Tensor {
    /// [`dropout`], in training: zeroes a share `rate` (0 to 1, without 1) of the elements and multiplies
    /// the others by 1/(1 − rate). Every call is to have a seed of its own: the same seed zeroes the same
    /// elements.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let y = Tensor::ones([1000]).dropout(0.5, 7)?;
    /// assert!(y.to_vec_f64().iter().all(|&y| y == 0.0 || y == 2.0)); // the mean stays
    /// # Ok::<(), Error>(())
    /// ```
    pub fn dropout(&self, rate: f32, seed: u64) -> Result<Tensor> {
        dropout(self, rate, seed, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rate: f32, seed: u64, step: u64, layer: u64) -> Vec<f64> {
        dropout(&Tensor::full([40_000], 1.0), rate, seed, step, layer).unwrap().to_vec_f64()
    }

    #[test]
    fn the_share_that_is_kept_and_the_mean_are_right() {
        for rate in [0.1, 0.3, 0.5] {
            let y = mask(rate, 1, 2, 3);
            let kept = y.iter().filter(|&&y| y != 0.0).count() as f64 / y.len() as f64;
            assert!((kept - (1.0 - rate as f64)).abs() < 0.01, "{rate}: kept {kept}");
            assert!(y.iter().all(|&y| y == 0.0 || (y - 1.0 / (1.0 - rate as f64)).abs() < 1e-6));
        }
    }

    #[test]
    fn seed_step_and_layer_each_change_the_mask_and_nothing_else_does() {
        let first = mask(0.5, 1, 2, 3);
        assert_eq!(first, mask(0.5, 1, 2, 3));
        for other in [mask(0.5, 2, 2, 3), mask(0.5, 1, 3, 3), mask(0.5, 1, 2, 4)] {
            let differ = first.iter().zip(&other).filter(|(a, b)| a != b).count();
            assert!((15_000..25_000).contains(&differ));
        }
    }

    #[test]
    fn a_rate_outside_its_range_is_refused() {
        for rate in [-0.1, 1.0, f32::NAN] {
            assert!(dropout(&Tensor::zeros([2]), rate, 0, 0, 0).is_err());
        }
    }
}
