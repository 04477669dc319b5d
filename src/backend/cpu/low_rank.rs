//! A gradient in two factors ([`LowRankGrad`]) multiplied out, some rows at a time or all.

use super::simd::Isa;
use super::skinny_gradients::TransposeTimes;
use crate::context::isa;
use crate::pool::Buffer;
use crate::tensor::{Gradient, LowRankGrad, Tensor};

/// xᵀ·g, as Aᵀ·B with A = x [batch, in] and B = g [batch, out].
fn product(factors: &LowRankGrad, isa: Isa) -> TransposeTimes<'_> {
    let shape = factors.shape();
    let (a, b) = (factors.x.values(), factors.g.values());
    TransposeTimes { isa, a, out_rows: shape[0], b, columns: shape[1] }
}

/// Rows of the product xᵀ·g, from `first` on: as many as fit `out`. Called inside parallel loops, so `isa`
/// was asked for before them.
pub fn rows(factors: &LowRankGrad, isa: Isa, first: usize, out: &mut [f32]) {
    product(factors, isa).rows(first, out);
}

/// All elements, multiplied out at the first call.
pub fn to_dense(factors: &LowRankGrad) -> &Tensor {
    if let Some(dense) = factors.dense.get() {
        return dense;
    }
    // Not inside `get_or_init`: a thread that waits for rayon's loop may steal a task that calls this on the
    // same factors, and a `OnceLock` that is entered again while it initialises deadlocks.
    let dense = multiply(factors);
    factors.dense.get_or_init(|| dense)
}

/// [`to_dense`], by value.
pub fn into_dense(mut factors: LowRankGrad) -> Tensor {
    factors.dense.take().unwrap_or_else(|| multiply(&factors))
}

fn multiply(factors: &LowRankGrad) -> Tensor {
    let mut out = Buffer::<f32>::new(factors.shape().elements());
    product(factors, isa()).all(&mut out);
    Tensor::from_buffer(out, factors.shape())
}

impl Gradient {
    /// All elements: of factors, multiplied out at the first call and kept.
    pub fn to_dense(&self) -> &Tensor {
        match self {
            Gradient::Dense(tensor) => tensor,
            Gradient::LowRank(factors) => to_dense(factors),
        }
    }

    /// [`Gradient::to_dense`], by value.
    pub fn into_dense(self) -> Tensor {
        match self {
            Gradient::Dense(tensor) => tensor,
            Gradient::LowRank(factors) => into_dense(*factors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;

    #[test]
    fn rows_are_the_whole_products_to_the_bit() {
        let fill = |n: usize, m: usize| {
            let values: Vec<f32> = (0..n * m).map(|i| (i as f32 * 0.37).sin()).collect();
            Tensor::from_slice(&values, [n, m]).unwrap()
        };
        let (x, g) = (fill(9, 201), fill(9, 37));
        for isa in supported() {
            with_isa(isa, || {
                let factors = LowRankGrad::new(&x, &g);
                for range in [0..7, 5..40, 100..201, 201..201] {
                    let mut some = vec![f32::NAN; range.len() * 37];
                    rows(&factors, isa, range.start, &mut some);
                    // Rows alone do not make the whole. (In later rounds it is there: the first asked for
                    // it.)
                    assert!(factors.dense.get().is_none() || range.start > 0);
                    let all = to_dense(&factors).values::<f32>();
                    assert_eq!(some, all[range.start * 37..range.end * 37], "{isa:?} {range:?}");
                }
                let all = to_dense(&factors).to_vec_f64();
                let fresh = Gradient::LowRank(Box::new(LowRankGrad::new(&x, &g)));
                assert_eq!(fresh.into_dense().to_vec_f64(), all);
                assert_eq!(into_dense(factors).to_vec_f64(), all);
            });
        }
    }
}
