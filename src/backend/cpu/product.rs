//! A product of two thin matrices that nobody has multiplied out.
//!
//! The gradient of a dense layer's weights is xᵀ·g, with a row of x and of g a sample: 16 rows say what 100352 × 512
//! numbers would. Written out, those are 205 MB, written once and read once again by the optimizer, beside the weights
//! that it reads and writes anyway. So the gradient stays in its factors; an optimizer asks for a few rows at a time,
//! which stay in L2, and anybody else gets all of it when they ask for its elements.

use super::simd::Isa;
use super::skinny_gemm::{MOST, TransposeTimes};
use crate::pool::Buffer;
use crate::tensor::Tensor;
use std::sync::OnceLock;

/// xᵀ·g with x [rows, height] and g [rows, width]: [height, width].
pub struct Product {
    isa: Isa,
    x: Tensor,
    g: Tensor,
    values: OnceLock<Buffer<f32>>,
}

impl Product {
    /// Of matrices of f32 with equally many rows, at most [`MOST`].
    pub fn new(isa: Isa, x: &Tensor, g: &Tensor) -> Self {
        let rows = |t: &Tensor| t.shape()[0];
        assert!(rows(x) == rows(g) && rows(x) <= MOST);
        Product { isa, x: x.detach(), g: g.detach(), values: OnceLock::new() }
    }

    pub fn height(&self) -> usize {
        self.x.shape().last_axis()
    }

    pub fn width(&self) -> usize {
        self.g.shape().last_axis()
    }

    /// True once somebody has asked for all elements.
    pub fn is_multiplied(&self) -> bool {
        self.values.get().is_some()
    }

    /// Multiplies as many rows as fit `out`, from `first` on.
    pub fn rows(&self, first: usize, out: &mut [f32]) {
        self.factors().rows(first, out);
    }

    /// All elements, multiplied out at the first call.
    pub fn values(&self) -> &[f32] {
        if let Some(values) = self.values.get() {
            return values;
        }
        // Not inside `get_or_init`: the loop's thread may take up other work while it waits, and come by here again.
        let values = self.multiply();
        self.values.get_or_init(|| values)
    }

    pub fn into_values(mut self) -> Buffer<f32> {
        let made = self.values.take();
        made.unwrap_or_else(|| self.multiply())
    }

    fn multiply(&self) -> Buffer<f32> {
        let mut out = Buffer::<f32>::new(self.height() * self.width());
        self.factors().all(&mut out);
        out
    }

    fn factors(&self) -> TransposeTimes<'_> {
        let (a, b) = (self.x.values(), self.g.values());
        TransposeTimes { isa: self.isa, a, count: self.height(), b, columns: self.width() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;

    #[test]
    fn rows_are_the_whole_products_to_the_bit_and_writing_makes_it_plain() {
        let fill = |n: usize, m: usize| {
            let values: Vec<f32> = (0..n * m).map(|i| (i as f32 * 0.37).sin()).collect();
            Tensor::from_slice(&values, [n, m]).unwrap()
        };
        let (x, g) = (fill(9, 201), fill(9, 37));
        for isa in supported() {
            let product = Product::new(isa, &x, &g);
            for rows in [0..7, 5..40, 100..201, 201..201] {
                let mut some = vec![f32::NAN; rows.len() * 37];
                product.rows(rows.start, &mut some);
                assert!(!product.is_multiplied() || rows.start > 0);
                assert_eq!(some, product.values()[rows.start * 37..rows.end * 37], "{isa:?} {rows:?}");
            }
            let mut tensor = Tensor::from_product(Product::new(isa, &x, &g));
            let other = tensor.clone();
            assert!(tensor.product().is_some());
            tensor.values_mut::<f32>()[0] = 5.0;
            assert!(tensor.product().is_none() && tensor.values::<f32>()[0] == 5.0);
            assert_eq!(other.values::<f32>(), product.values());
            let mut alone = Tensor::from_product(Product::new(isa, &x, &g));
            alone.values_mut::<f32>()[1] = 6.0;
            assert_eq!(alone.to_vec_f64()[1], 6.0);
            assert_eq!(alone.to_vec_f64()[2], product.values()[2] as f64);
        }
    }
}
