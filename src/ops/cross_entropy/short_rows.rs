//! Sparse softmax cross-entropy of short rows, sixteen at a time: what segmentation computes on every pixel.

use super::kernels::IGNORED;
use crate::backend::cpu::math;
use crate::backend::cpu::simd::{Kernel, Vector};
use crate::backend::cpu::transpose::{ROWS, TransposedRows, exp_and_sum, scale};

/// Some rows; gives Σ w·L.
pub(super) struct ShortRows<'a> {
    pub turn: &'a TransposedRows,
    pub z: &'a [f32],
    /// One a row, as `weights` are.
    pub classes: &'a [u32],
    pub weights: Option<&'a [f32]>,
    /// Where it goes, if it is wanted, and what it is multiplied by beside the weight.
    pub gradient: Option<&'a mut [f32]>,
    pub scale: f32,
}

impl Kernel for ShortRows<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<V: Vector>(self) -> f64 {
        let wanted = self.gradient.is_some();
        let mut total = [0.0f64; ROWS];
        // SAFETY: inside `dispatch`.
        unsafe {
            self.turn.each::<V, 1>(
                [self.z],
                self.gradient,
                #[inline(always)]
                |first, [z]| {
                    // Rows that only fill up the last group count as ignored.
                    let group = self.classes[first..].first_chunk().copied();
                    let classes: [u32; ROWS] = group.unwrap_or_else(|| {
                        let class = |r: usize| self.classes.get(first + r).copied();
                        std::array::from_fn(|r| class(r).unwrap_or(IGNORED))
                    });
                    // (Of an ignored row some element.)
                    let last = z.len() as u32 - 1;
                    let at: [u32; ROWS] =
                        std::array::from_fn(|r| classes[r].min(last) * ROWS as u32 + r as u32);
                    let mut chosen = [0.0f32; ROWS];
                    for half in (0..ROWS).step_by(V::LANES) {
                        let at = at.as_ptr().add(half);
                        V::gather(z.as_ptr().cast(), at).store(chosen.as_mut_ptr().add(half));
                    }
                    let mut weight = [1.0f32; ROWS];
                    if let Some(weights) = self.weights {
                        let weights = &weights[first..weights.len().min(first + ROWS)];
                        weight[..weights.len()].copy_from_slice(weights);
                    }
                    let (largest, sum) = exp_and_sum::<V>(z);
                    // (Loops of one thing each: the compiler makes sixteen lanes of them.)
                    let mut loss = [0.0f32; ROWS];
                    for r in 0..ROWS {
                        // From 1 (of the largest) to the number of columns, or NaN.
                        let log = math::ln_normal(sum[r]);
                        let log = if sum[r].is_nan() { sum[r] } else { log };
                        loss[r] = weight[r] * (log - (chosen[r] - largest[r]));
                    }
                    for r in 0..ROWS {
                        total[r] += if classes[r] == IGNORED { 0.0 } else { loss[r] as f64 };
                    }
                    if !wanted {
                        return;
                    }
                    let factor: [f32; ROWS] = std::array::from_fn(|r| weight[r] * self.scale / sum[r]);
                    scale(z, &factor);
                    for r in 0..ROWS {
                        match z.get_mut(classes[r] as usize) {
                            Some(z) => z[r] -= weight[r] * self.scale,
                            None => z.iter_mut().for_each(|z| z[r] = 0.0),
                        }
                    }
                },
            )
        };
        total.iter().sum()
    }
}
