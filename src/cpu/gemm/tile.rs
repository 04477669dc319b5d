//! The innermost loop: a tile of C in registers.

use super::Start;
use crate::cpu::simd::Vector;
use crate::ops::Then;

/// One tile: up to `V::TILE_ROWS` rows and two vectors of columns, over `runs` runs of `steps` steps of k.
pub(crate) struct Tile<'a> {
    pub steps: usize,
    pub runs: usize,
    /// Floats from one run of `a` to the next.
    pub run_step: usize,
    /// Of a run, element (row r, step k) is at `r · ROW_STEP + k · k_step`.
    pub a: *const f32,
    pub k_step: usize,
    /// Two full vectors a step.
    pub b: *const f32,
    /// Floats from one step's vectors to the next.
    pub b_step: usize,
    /// Columns to write, at most two vectors.
    pub columns: usize,
    pub start: Start<'a>,
    /// The activation of what is written.
    pub then: Then,
    /// Whether whole vectors go past the caches ([`crate::cpu::simd::streams`]).
    pub stream: bool,
}

/// Calls `f(first, count)` for every tile of rows.
#[inline(always)]
pub(crate) fn for_each_tile<V: Vector>(rows: usize, mut f: impl FnMut(usize, usize)) {
    let mut first = 0;
    while first < rows {
        let count = V::TILE_ROWS.min(rows - first);
        f(first, count);
        first += count;
    }
}

impl Tile<'_> {
    /// # Safety
    /// `a` and `b` are readable over the whole tile (`b` over two full vectors a step); `c(r)`
    /// points to `columns` floats for each r < rows that nothing else accesses meanwhile.
    #[inline(always)]
    pub unsafe fn run<V: Vector, const ROW_STEP: usize>(
        &self,
        rows: usize,
        c: impl Fn(usize) -> *mut f32,
    ) {
        // The number of rows must be known to the compiler for the tile to stay in registers.
        macro_rules! of {
            ($($n:literal)*) => {
                match (rows, self.columns > V::LANES) {
                    $(($n, true) => unsafe { self.rows::<V, $n, 2, ROW_STEP>(c) },)*
                    $(($n, false) => unsafe { self.rows::<V, $n, 1, ROW_STEP>(c) },)*
                    _ => unreachable!("a tile has 1 to 14 rows"),
                }
            };
        }
        of!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }

    #[inline(always)]
    unsafe fn rows<V: Vector, const ROWS: usize, const WIDTH: usize, const ROW_STEP: usize>(
        &self,
        c: impl Fn(usize) -> *mut f32,
    ) {
        unsafe {
            let mut sum = [[V::splat(0.0); WIDTH]; ROWS];
            let (mut run, mut b) = (self.a, self.b);
            for _ in 0..self.runs {
                // (A copy of the sums: kept where they are, the compiler writes them to memory every step.)
                let mut a = run;
                let mut sums = sum;
                for _ in 0..self.steps {
                    let mut right = [V::splat(0.0); WIDTH];
                    for (half, right) in right.iter_mut().enumerate() {
                        *right = V::load(b.add(half * V::LANES));
                    }
                    for (row, sum) in sums.iter_mut().enumerate() {
                        let left = V::splat(*a.add(row * ROW_STEP));
                        for (sum, &right) in sum.iter_mut().zip(&right) {
                            *sum = left.mul_add(right, *sum);
                        }
                    }
                    // (The last of these may point past the end: it is not read.)
                    a = a.wrapping_add(self.k_step);
                    b = b.wrapping_add(self.b_step);
                }
                sum = sums;
                run = run.wrapping_add(self.run_step);
            }
            let full = self.columns == WIDTH * V::LANES;
            for (row, sum) in sum.iter().enumerate() {
                let c = c(row);
                for (half, &sum) in sum.iter().enumerate() {
                    let at = half * V::LANES;
                    if full {
                        let value = match self.start {
                            Start::Zero => sum,
                            Start::Bias(bias) => sum.add(V::load(bias.as_ptr().add(at))),
                            Start::Accumulate => V::load(c.add(at)).add(sum),
                        };
                        match self.stream {
                            true => self.then.of(value).stream(c.add(at)),
                            false => self.then.of(value).store(c.add(at)),
                        }
                    } else {
                        let n = V::LANES.min(self.columns - at);
                        let value = match self.start {
                            Start::Zero => sum,
                            Start::Bias(bias) => sum.add(V::load_partial(bias.as_ptr().add(at), n)),
                            Start::Accumulate => V::load_partial(c.add(at), n).add(sum),
                        };
                        self.then.of(value).store_partial(c.add(at), n);
                    }
                }
            }
        }
    }
}
