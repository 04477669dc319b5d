use super::*;
use crate::backend::cpu::simd::supported;
use crate::random::{Stream, domain};

fn random(n: usize, label: u64) -> Vec<f32> {
    let mut non_temporal = Stream::new(1, &[domain::TEST, label]);
    (0..n).map(|_| non_temporal.uniform(-1.0, 1.0)).collect()
}

/// Σ_k a(i, k) · b(k, j) in f64.
fn naive(m: usize, k: usize, n: usize, a: impl Fn(usize, usize) -> f32, b: &[f32]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for p in 0..k {
            for j in 0..n {
                c[i * n + j] += a(i, p) as f64 * b[p * n + j] as f64;
            }
        }
    }
    c
}

fn close(got: &[f32], expected: &[f64], what: &str) {
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((*g as f64 - e).abs() < 1e-5 * (1.0 + e.abs()), "{what} at {i}: {g} and {e}");
    }
}

const SIZES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (3, 5, 7),
    (14, 256, 32),
    (15, 257, 33),
    (113, 300, 20),
    (7, 513, 65),
    (230, 64, 130),
    (2, 1000, 500),
    (600, 9, 17),
];

#[test]
fn products_agree_with_the_naive_sum_on_odd_sizes() {
    for isa in supported() {
        for (m, k, n) in SIZES {
            let (a, b, bias) = (random(m * k, 1), random(k * n, 2), random(n, 3));
            let mut few = vec![0.0; m.min(5) * n];
            skinny_gemm(isa, &a[..m.min(5) * k], k, &b, n, Some(&bias), &mut few);
            let expected = naive(m.min(5), k, n, |i, p| a[i * k + p], &b);
            let expected: Vec<f64> =
                expected.iter().enumerate().map(|(i, e)| e + bias[i % n] as f64).collect();
            close(&few, &expected, &format!("{isa:?} thin {m}×{k}×{n}"));
            let mut c = vec![0.0; m * n];
            let rows = Matrix::new(&a, m, k);
            let packed = PackedB::new(isa, &BOperand::matrix(&b, k, n));
            // SAFETY: dense rows of n elements in a buffer of m · n.
            unsafe { product(&rows, &packed, Init::Bias(&bias), Activation::Linear, &Dense(n), &mut c) };
            let mut expected = naive(m, k, n, |i, p| a[i * k + p], &b);
            expected.iter_mut().enumerate().for_each(|(i, e)| *e += bias[i % n] as f64);
            close(&c, &expected, &format!("{isa:?} {m}×{k}×{n}"));

            let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
            let packed = PackedB::new(isa, &BOperand::transpose(&transposed, k, n));
            // SAFETY: as above.
            unsafe { product(&rows, &packed, Init::Accumulate, Activation::Linear, &Dense(n), &mut c) };
            let product = naive(m, k, n, |i, p| a[i * k + p], &b);
            expected.iter_mut().zip(product).for_each(|(e, p)| *e += p);
            close(&c, &expected, "accumulated");
        }
    }
}

#[test]
fn gram_products_agree_with_the_naive_sum_on_odd_sizes() {
    for isa in supported() {
        for (k, m, n) in SIZES {
            // Aᵀ·B with A [m, k], B [m, n].
            let (a, b) = (random(m * k, 4), random(m * n, 5));
            let mut c = random(k * n, 6);
            gemm_tn(isa, &Matrix::new(&a, m, k), &b, n, &mut c);
            let expected = naive(k, m, n, |i, p| a[p * k + i], &b);
            close(&c, &expected, &format!("{isa:?} gram {k}×{m}×{n}"));
        }
    }
}

#[test]
fn the_thread_count_changes_no_bit() {
    let (m, k, n) = (500, 700, 90);
    let (a, b) = (random(m * k, 1), random(k.max(m) * n, 2));
    let run = || {
        let isa = crate::context::isa();
        let (mut c, mut d) = (vec![0.0; m * n], vec![0.0; k * n]);
        let rows = Matrix::new(&a, m, k);
        let packed = PackedB::new(isa, &BOperand::matrix(&b[..k * n], k, n));
        // SAFETY: dense rows of n elements in a buffer of m · n.
        unsafe { product(&rows, &packed, Init::Zero, Activation::Linear, &Dense(n), &mut c) };
        gemm_tn(isa, &rows, &b[..m * n], n, &mut d);
        (c, d)
    };
    let one = threads::with(1, run).unwrap();
    for count in 2..4 {
        assert!(threads::with(count, run).unwrap() == one);
    }
}
