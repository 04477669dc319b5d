//! The two gradients of a dense layer with few rows ([`super::gemm::skinny_gemm`] is the way forward): the
//! bytes of the weights bind, so they are read once, and their gradient is written once, row by row where it
//! lies.

use super::gemm::micro_kernel::MAX_MR;
use super::simd::{self, Isa, Kernel, Vector, dispatch, prefetch};
use super::threads::{self, Shared};
use std::ops::Range;

/// C [rows, count] = A [rows, depth]·Bᵀ with B [count, depth]: each element is a product of two rows.
pub fn times_transpose(isa: Isa, a: &[f32], depth: usize, b: &[f32], out: &mut [f32]) {
    /// Rows of B a task.
    const BLOCK: usize = 128;
    if out.is_empty() || depth == 0 {
        return out.fill(0.0);
    }
    let rows = a.len() / depth;
    let count = out.len() / rows;
    assert_eq!((a.len(), b.len(), out.len()), (rows * depth, count * depth, rows * count));
    let out = Shared::new(out);
    threads::for_each(count.div_ceil(BLOCK), |block| {
        let range = block * BLOCK..count.min((block + 1) * BLOCK);
        dispatch(isa, Dots { a, rows, depth, b, count, range, out });
    });
}

struct Dots<'a> {
    a: &'a [f32],
    rows: usize,
    depth: usize,
    b: &'a [f32],
    count: usize,
    /// Rows of B, which are the columns of C that this task writes.
    range: Range<usize>,
    out: Shared<f32>,
}

impl Kernel for Dots<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        // Four rows of B; with as many of A as leave room for it, 24 or 12 sums.
        let most = if V::MR >= 14 { 6 } else { 3 };
        let height = self.rows.div_ceil(self.rows.div_ceil(most));
        let mut at = self.range.start;
        while at < self.range.end {
            let four = at + 4 <= self.range.end;
            for first in (0..self.rows).step_by(height) {
                // The number of rows must be known to the compiler for the sums to stay in registers.
                macro_rules! of {
                    ($($n:literal)*) => {
                        match (height.min(self.rows - first), four) {
                            // SAFETY: inside `dispatch`; so many rows of A from `first`, of B from `at`.
                            $(($n, true) => unsafe { self.tile::<V, $n, 4>(first, at) },)*
                            $(($n, false) => unsafe { self.tile::<V, $n, 1>(first, at) },)*
                            _ => unreachable!("a tile has 1 to 6 rows"),
                        }
                    };
                }
                of!(1 2 3 4 5 6)
            }
            at += if four { 4 } else { 1 };
        }
    }
}

impl Dots<'_> {
    /// # Safety
    /// Inside [`dispatch`]; A has M rows from `first` on, and B has N from `at` on, which are this task's.
    #[inline(always)]
    unsafe fn tile<V: Vector, const M: usize, const N: usize>(&self, first: usize, at: usize) {
        let (a, b) = (self.a[first * self.depth..].as_ptr(), self.b[at * self.depth..].as_ptr());
        let mut sums = [[unsafe { V::splat(0.0) }; N]; M];
        let whole = self.depth / V::LANES * V::LANES;
        for k in (0..whole).step_by(V::LANES) {
            if first == 0 {
                (0..N).for_each(|n| prefetch(b.wrapping_add((N + n) * self.depth + k)));
            }
            // SAFETY: k and the lanes from it on are within the rows.
            unsafe { self.step::<V, true, M, N>(a.add(k), b.add(k), V::LANES, &mut sums) };
        }
        if whole < self.depth {
            let rest = self.depth - whole;
            // SAFETY: as above.
            unsafe { self.step::<V, false, M, N>(a.add(whole), b.add(whole), rest, &mut sums) };
        }
        for (m, sums) in sums.iter().enumerate() {
            for (n, &sum) in sums.iter().enumerate() {
                // SAFETY: row first + m of C, and a column of this task's alone.
                unsafe { *self.out.at((first + m) * self.count + at + n) = sum.sum_lanes() };
            }
        }
    }

    /// # Safety
    /// As [`simd::load`], of M rows of A and N of B.
    #[inline(always)]
    unsafe fn step<V: Vector, const FULL: bool, const M: usize, const N: usize>(
        &self,
        a: *const f32,
        b: *const f32,
        lanes: usize,
        sums: &mut [[V; N]; M],
    ) {
        unsafe {
            let right: [V; N] =
                std::array::from_fn(|n| simd::load::<V, FULL>(b.add(n * self.depth), lanes));
            for (m, sums) in sums.iter_mut().enumerate() {
                let left = simd::load::<V, FULL>(a.add(m * self.depth), lanes);
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = left.mul_add(right, *sum);
                }
            }
        }
    }
}

/// Rows of A at most, for [`TransposeTimes`]: as many as [`super::gemm::is_skinny`] lets through, and some.
const MAX_ROWS: usize = 32;
const _: () = assert!(2 * MAX_MR <= MAX_ROWS);
/// Rows of C a task: a multiple of the tiles' 7 and 6.
const BLOCK: usize = 84;
/// Floats from one gathered row to the next.
const STEP: usize = BLOCK + 12;

/// C [out_rows, columns] = Aᵀ·B with A [rows, out_rows] and B [rows, columns].
#[derive(Clone, Copy)]
pub struct TransposeTimes<'a> {
    pub isa: Isa,
    pub a: &'a [f32],
    pub out_rows: usize,
    pub b: &'a [f32],
    pub columns: usize,
}

impl TransposeTimes<'_> {
    /// All of C.
    pub fn all(self, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        assert_eq!(out.len(), self.out_rows * self.columns);
        let non_temporal = simd::wants_non_temporal(out, self.columns);
        threads::for_each_chunk(out, BLOCK * self.columns, |i, out| {
            self.block(i * BLOCK, out, non_temporal)
        });
    }

    /// As many rows of C as fit `out`, from `first` on, on this thread.
    pub fn rows(self, first: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_mut((BLOCK * self.columns).max(1)).enumerate() {
            self.block(first + i * BLOCK, out, false);
        }
    }

    /// At most BLOCK rows.
    fn block(self, first: usize, out: &mut [f32], non_temporal: bool) {
        let TransposeTimes { isa, a, out_rows, b, columns } = self;
        let (rows, height) = (a.len() / out_rows, out.len() / columns);
        assert_eq!((a.len(), b.len(), out.len()), (rows * out_rows, rows * columns, height * columns));
        assert!(rows <= MAX_ROWS && height <= BLOCK && first + height <= out_rows);
        // A column of A is as long as A is wide: what this task needs of it, side by side.
        let mut gathered = [0.0f32; MAX_ROWS * STEP];
        for (row, to) in gathered.chunks_mut(STEP).take(rows).enumerate() {
            to[..height].copy_from_slice(&a[row * out_rows + first..][..height]);
        }
        dispatch(isa, Outer { a: &gathered, b, rows, columns, out, non_temporal });
    }
}

struct Outer<'a> {
    a: &'a [f32; MAX_ROWS * STEP],
    b: &'a [f32],
    rows: usize,
    columns: usize,
    out: &'a mut [f32],
    non_temporal: bool,
}

impl Kernel for Outer<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let height = self.out.len() / self.columns;
        let mut at = 0;
        while at < height {
            let (rest, wide) = (height - at, V::MR >= 14);
            // SAFETY: inside `dispatch`; so many rows of C are left. 28 or 12 sums, with 4 or 2 vectors of B
            // and one of A, fill the registers.
            unsafe {
                at += match () {
                    _ if wide && rest >= 7 => self.tile::<V, 7, 4>(at),
                    _ if !wide && rest >= 6 => self.tile::<V, 6, 2>(at),
                    _ => self.tile::<V, 1, 4>(at),
                }
            }
        }
    }
}

impl Outer<'_> {
    /// M rows of C from `at` on.
    ///
    /// # Safety
    /// Inside [`dispatch`]; C has so many.
    #[inline(always)]
    unsafe fn tile<V: Vector, const M: usize, const N: usize>(&mut self, at: usize) -> usize {
        let mut column = 0;
        while column < self.columns {
            let lanes = self.columns - column;
            // SAFETY: N vectors, one, or a part of one are left of the rows.
            unsafe {
                column += match () {
                    _ if lanes >= N * V::LANES => self.block::<V, true, M, N>(at, column, V::LANES),
                    _ if lanes >= V::LANES => self.block::<V, true, M, 1>(at, column, V::LANES),
                    _ => self.block::<V, false, M, 1>(at, column, lanes),
                }
            }
        }
        M
    }

    /// # Safety
    /// As [`Outer::tile`]; N · `lanes` columns are left from `column` on.
    #[inline(always)]
    unsafe fn block<V: Vector, const FULL: bool, const M: usize, const N: usize>(
        &mut self,
        at: usize,
        column: usize,
        lanes: usize,
    ) -> usize {
        unsafe {
            let mut sums = [[V::splat(0.0); N]; M];
            let (mut a, mut b) = (self.a.as_ptr().add(at), self.b.as_ptr().wrapping_add(column));
            for _ in 0..self.rows {
                let right: [V; N] =
                    std::array::from_fn(|n| simd::load::<V, FULL>(b.add(n * V::LANES), lanes));
                for (m, sums) in sums.iter_mut().enumerate() {
                    let left = V::splat(*a.add(m));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = left.mul_add(right, *sum);
                    }
                }
                // (The last of these may point past the end: it is not read.)
                (a, b) = (a.wrapping_add(STEP), b.wrapping_add(self.columns));
            }
            for (m, sums) in sums.iter().enumerate() {
                let out = self.out.as_mut_ptr().add((at + m) * self.columns + column);
                for (n, &sum) in sums.iter().enumerate() {
                    simd::store::<V, FULL>(sum, out.add(n * V::LANES), lanes, self.non_temporal);
                }
            }
        }
        N * lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;

    #[test]
    fn both_are_the_sums_they_say_whatever_the_sizes() {
        for isa in supported() {
            for (rows, out_rows, columns) in
                [(1, 1, 1), (3, 5, 16), (7, 130, 65), (16, 91, 100), (32, 7, 33)]
            {
                // Whole numbers, whose sums are exact in any order.
                let fill =
                    |n: usize, k: usize| (0..n).map(|i| (i * k % 7) as f32 - 3.0).collect::<Vec<_>>();
                let (x, dy, w) =
                    (fill(rows * out_rows, 3), fill(rows * columns, 5), fill(out_rows * columns, 2));
                let (mut dx, mut dw) = (vec![9.0; rows * out_rows], vec![9.0; out_rows * columns]);
                times_transpose(isa, &dy, columns, &w, &mut dx);
                TransposeTimes { isa, a: &x, out_rows, b: &dy, columns }.all(&mut dw);
                for (at, &got) in dx.iter().enumerate() {
                    let (n, i) = (at / out_rows, at % out_rows);
                    let sum: f32 = (0..columns).map(|o| dy[n * columns + o] * w[i * columns + o]).sum();
                    assert_eq!(got, sum, "{isa:?} {rows} {out_rows} {columns}");
                }
                for (at, &got) in dw.iter().enumerate() {
                    let (i, o) = (at / columns, at % columns);
                    let sum: f32 = (0..rows).map(|n| x[n * out_rows + i] * dy[n * columns + o]).sum();
                    assert_eq!(got, sum, "{isa:?} {rows} {out_rows} {columns}");
                }
            }
        }
    }

    #[test]
    fn nothing_gives_zeros() {
        let mut out = [1.0; 4];
        times_transpose(Isa::Portable, &[], 0, &[], &mut out);
        assert_eq!(out, [0.0; 4]);
        let mut out = [1.0; 6];
        TransposeTimes { isa: Isa::Portable, a: &[], out_rows: 2, b: &[], columns: 3 }.all(&mut out);
        assert_eq!(out, [0.0; 6]);
    }
}
