//! The inverse cosine transform, in whole numbers: libjpeg's "islow", to the bit.

use super::frame::Component;
use std::num::Wrapping;

/// Fractional bits of the constants, and those kept between the two passes.
const FRACTION: usize = 13;
const KEPT: usize = 2;

/// Damaged files have coefficients of any size: they may wrap around, not panic.
type Number = Wrapping<i32>;

const fn fixed(value: f64) -> Number {
    Wrapping((value * (1 << FRACTION) as f64 + 0.5) as i32)
}

/// Eight numbers (`read(0)` to `read(7)`) transformed, before the division by 2^FRACTION.
fn eight(read: impl Fn(usize) -> Number) -> [Number; 8] {
    let shared = (read(2) + read(6)) * fixed(0.541196100);
    let (low, high) = (shared - read(6) * fixed(1.847759065), shared + read(2) * fixed(0.765366865));
    let (sum, difference) = ((read(0) + read(4)) << FRACTION, (read(0) - read(4)) << FRACTION);
    let even = [sum + high, difference + low, difference - low, sum - high];

    let shared = (read(7) + read(3) + read(5) + read(1)) * fixed(1.175875602);
    let a = (read(7) + read(1)) * -fixed(0.899976223);
    let b = (read(5) + read(3)) * -fixed(2.562915447);
    let c = (read(7) + read(3)) * -fixed(1.961570560) + shared;
    let d = (read(5) + read(1)) * -fixed(0.390180644) + shared;
    let odd = [
        read(1) * fixed(1.501321110) + a + d,
        read(3) * fixed(3.072711026) + b + c,
        read(5) * fixed(2.053119869) + b + d,
        read(7) * fixed(0.298631336) + a + c,
    ];
    let mut all = [Wrapping(0); 8];
    for i in 0..4 {
        all[i] = even[i] + odd[i];
        all[7 - i] = even[i] - odd[i];
    }
    all
}

fn rounded(value: Number, bits: usize) -> Number {
    (value + Wrapping(1 << (bits - 1))) >> bits
}

/// One block's 8×8 samples.
fn block(coefficients: &[i16; 64], quantization: &[u16; 64]) -> [[u8; 8]; 8] {
    let value = |i: usize| Wrapping(i32::from(coefficients[i])) * Wrapping(i32::from(quantization[i]));
    let mut between = [[Wrapping(0); 8]; 8];
    for x in 0..8 {
        let column = if (1..8).all(|y| coefficients[8 * y + x] == 0) {
            [value(x) << KEPT; 8]
        } else {
            let mut column = eight(|y| value(8 * y + x));
            column.iter_mut().for_each(|sum| *sum = rounded(*sum, FRACTION - KEPT));
            column
        };
        (0..8).for_each(|y| between[y][x] = column[y]);
    }
    let mut samples = [[0; 8]; 8];
    for (samples, row) in samples.iter_mut().zip(&between) {
        for (sample, sum) in samples.iter_mut().zip(eight(|x| row[x])) {
            *sample = rounded(sum, FRACTION + KEPT + 3).0.wrapping_add(128).clamp(0, 255) as u8;
        }
    }
    samples
}

/// Samples, row by row.
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    samples: Vec<u8>,
    stride: usize,
}

impl Plane {
    /// A component's samples; its coefficients are given back.
    pub(super) fn new(component: &mut Component) -> Self {
        let coefficients = std::mem::take(&mut component.coefficients);
        let quantization = component.quantization.unwrap_or([1; 64]);
        let stride = component.columns * 8;
        let mut samples = vec![0; coefficients.len() * 64];
        for (blocks, rows) in coefficients.chunks(component.columns).zip(samples.chunks_mut(stride * 8))
        {
            for (x, coefficients) in blocks.iter().enumerate() {
                for (y, values) in block(coefficients, &quantization).iter().enumerate() {
                    rows[y * stride + 8 * x..][..8].copy_from_slice(values);
                }
            }
        }
        let [height, width] = component.size;
        Plane { height, width, samples, stride }
    }

    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.samples[row.min(self.height - 1) * self.stride..][..self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_cosine_transform_rounded() {
        let coefficients: [i16; 64] =
            std::array::from_fn(|i| [310, -90, 41, 0, -17, 5, 0, 2][i % 8] / (i as i16 / 8 + 1));
        let quantization = [1; 64];
        let samples = block(&coefficients, &quantization);
        let basis = |n: usize, k: usize| {
            let scale = if k == 0 { 0.5_f64.sqrt() } else { 1.0 };
            scale / 2.0 * ((2 * n + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos()
        };
        for (y, x) in (0..64).map(|i| (i / 8, i % 8)) {
            let sum: f64 =
                (0..64).map(|i| f64::from(coefficients[i]) * basis(y, i / 8) * basis(x, i % 8)).sum();
            let exact = (sum + 128.0).clamp(0.0, 255.0);
            assert!((exact - f64::from(samples[y][x])).abs() < 0.6, "{exact} and {}", samples[y][x]);
        }
    }
}
