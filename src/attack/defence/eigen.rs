//! Eigenvalues and eigenvectors of symmetric matrices, by cyclic Jacobi rotations (Jacobi, 1846; Golub
//! and Van Loan, "Matrix Computations", 4th edition, 8.5).
//!
//! A rotation in the plane of two axes p and q makes A[p, q] zero: with τ = (A[q, q] − A[p, p]) / 2A[p,
//! q], t = sign(τ) / (|τ| + √(1 + τ²)), c = 1/√(1 + t²), s = t·c, A ← JᵀAJ. It spoils other zeros, but
//! the sum of squares beside the diagonal falls by 2A[p, q]² each time; sweeps over all pairs converge
//! quadratically in the end, mostly within ten. About 6n³ operations a sweep: a fraction of a second for
//! the 192 values of a block of 8×8 pixels. Slower than Householder and QL, shorter, and as accurate as
//! any.

use crate::error::{Error, Result};

/// So many sweeps are never needed for a matrix of finite numbers.
const MOST_SWEEPS: usize = 60;

/// The decomposition A = Σ λᵢ vᵢvᵢᵀ.
#[derive(Clone, Debug)]
pub(crate) struct Eigen {
    /// λ, falling.
    pub values: Vec<f64>,
    /// Row i is the unit vector of value i; its largest component is above zero. [n, n]
    pub vectors: Vec<f64>,
}

/// The decomposition of a symmetric matrix, n×n row by row; an error where it is not symmetric, or holds
/// numbers that are not finite.
pub(crate) fn symmetric(matrix: &[f64], n: usize) -> Result<Eigen> {
    const OP: &str = "eigen";
    if n == 0 || matrix.len() != n * n {
        return Err(Error::shape(OP, format!("a matrix of {n}×{n}, n above zero"), matrix.len()));
    }
    if let Some(bad) = matrix.iter().find(|v| !v.is_finite()) {
        return Err(Error::argument(OP, format!("expected finite numbers, got {bad}")));
    }
    let norm = matrix.iter().map(|v| v * v).sum::<f64>().sqrt();
    for i in 0..n {
        for j in 0..i {
            let (a, b) = (matrix[i * n + j], matrix[j * n + i]);
            if (a - b).abs() > 1e-9 * norm {
                let message = format!("expected a symmetric matrix, got {a} and {b} at ({i}, {j})");
                return Err(Error::argument(OP, message));
            }
        }
    }
    let mut a = matrix.to_vec();
    let mut vectors = vec![0.0; n * n];
    vectors.iter_mut().step_by(n + 1).for_each(|v| *v = 1.0);
    let mut sweeps = 0;
    while beside_diagonal(&a, n) > 1e-14 * norm {
        if sweeps == MOST_SWEEPS {
            return Err(Error::argument(OP, format!("no convergence within {MOST_SWEEPS} sweeps")));
        }
        sweeps += 1;
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, n, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let row = |&i: &usize| {
        let row = &vectors[i * n..][..n];
        let largest = row.iter().fold(0.0f64, |m, &v| if v.abs() > m.abs() { v } else { m });
        row.iter().map(move |v| v * largest.signum()).collect::<Vec<f64>>()
    };
    Ok(Eigen {
        values: order.iter().map(|&i| a[i * n + i]).collect(),
        vectors: order.iter().flat_map(row).collect(),
    })
}

/// The length of what is beside the diagonal.
fn beside_diagonal(a: &[f64], n: usize) -> f64 {
    let all = a.iter().enumerate().filter(|(i, _)| !i.is_multiple_of(n + 1));
    all.map(|(_, v)| v * v).sum::<f64>().sqrt()
}

/// Makes a[p, q] zero (p < q) and turns the vectors along.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let tau = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    // The smaller one of the two angles.
    let t = tau.signum() / (tau.abs() + tau.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    a[p * n + p] -= t * apq;
    a[q * n + q] += t * apq;
    (a[p * n + q], a[q * n + p]) = (0.0, 0.0);
    for i in (0..n).filter(|&i| i != p && i != q) {
        let (x, y) = (a[p * n + i], a[q * n + i]);
        let (x, y) = (c * x - s * y, s * x + c * y);
        (a[p * n + i], a[i * n + p]) = (x, x);
        (a[q * n + i], a[i * n + q]) = (y, y);
    }
    let (above, below) = vectors.split_at_mut(q * n);
    for (x, y) in above[p * n..][..n].iter_mut().zip(&mut below[..n]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, domain};

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// A·v = λ·v, vᵢ·vⱼ = δᵢⱼ, Σλ = trace, λ falling.
    fn check(matrix: &[f64], n: usize) -> Eigen {
        let eigen = symmetric(matrix, n).unwrap();
        let scale = matrix.iter().fold(1e-300f64, |m, v| m.max(v.abs()));
        let vector = |i: usize| &eigen.vectors[i * n..][..n];
        for i in 0..n {
            for (j, &component) in vector(i).iter().enumerate() {
                let image = dot(&matrix[j * n..][..n], vector(i));
                assert!((image - eigen.values[i] * component).abs() < 1e-12 * scale * n as f64);
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((dot(vector(i), vector(j)) - expected).abs() < 1e-12 * n as f64);
            }
        }
        let trace: f64 = matrix.iter().step_by(n + 1).sum();
        assert!((eigen.values.iter().sum::<f64>() - trace).abs() < 1e-12 * scale * n as f64);
        assert!(eigen.values.windows(2).all(|pair| pair[0] >= pair[1]));
        eigen
    }

    #[test]
    fn matrices_whose_values_are_known() {
        let eigen = check(&[2.0, 1.0, 1.0, 2.0], 2);
        assert!((eigen.values[0] - 3.0).abs() < 1e-15 && (eigen.values[1] - 1.0).abs() < 1e-15);
        assert!((eigen.vectors[0] - eigen.vectors[1]).abs() < 1e-15);
        assert_eq!(check(&[5.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 7.0], 3).values, [7.0, 5.0, -2.0]);
        // Second differences: 2 − 2·cos(kπ / (n + 1)).
        let n = 24;
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            matrix[i * n + i] = 2.0;
            if i + 1 < n {
                (matrix[i * n + i + 1], matrix[(i + 1) * n + i]) = (-1.0, -1.0);
            }
        }
        for (k, value) in check(&matrix, n).values.iter().rev().enumerate() {
            let expected = 2.0 - 2.0 * ((k + 1) as f64 * std::f64::consts::PI / (n + 1) as f64).cos();
            assert!((value - expected).abs() < 1e-13, "{k}: {value} {expected}");
        }
    }

    #[test]
    fn random_covariances_and_those_of_low_rank() {
        let mut stream = Stream::new(2, &[domain::TEST]);
        for (n, rank) in [(1, 1), (12, 40), (48, 200), (30, 7)] {
            let rows: Vec<f64> = (0..n * rank).map(|_| stream.normal() as f64).collect();
            let mut matrix = vec![0.0; n * n];
            for row in rows.chunks_exact(n) {
                for (i, line) in matrix.chunks_exact_mut(n).enumerate() {
                    line.iter_mut().zip(row).for_each(|(m, v)| *m += row[i] * v);
                }
            }
            let eigen = check(&matrix, n);
            if rank < n {
                assert!(eigen.values[rank - 1] > 1e-3 && eigen.values[rank].abs() < 1e-10);
            }
        }
        // Equal values, and none.
        assert_eq!(check(&[1.0, 0.0, 0.0, 1.0], 2).values, [1.0, 1.0]);
        assert_eq!(check(&[0.0; 9], 3).values, [0.0; 3]);
    }

    #[test]
    fn what_is_no_symmetric_matrix_is_refused() {
        let error = |matrix: &[f64], n| symmetric(matrix, n).unwrap_err().to_string();
        assert!(error(&[1.0, 2.0, 3.0], 2).contains("2×2"));
        assert!(error(&[], 0).contains("n above zero"));
        assert!(error(&[1.0, 2.0, 3.0, 1.0], 2).contains("symmetric"));
        assert!(error(&[f64::NAN], 1).contains("NaN"));
    }
}
