//! The innermost loop: a tile of C in registers.

use super::Start;
use crate::cpu::simd::Vector;
use crate::ops::Then;

/// One tile: up to `V::TILE_ROWS` rows and two vectors of columns, over `steps` of k.
pub(crate) struct Tile<'a> {
    pub steps: usize,
    /// Element (row r, step k) is at `r · ROW_STEP + k · K_STEP`.
    pub a: *const f32,
    /// Two full vectors a step.
    pub b: *const f32,
    /// Floats from one step's vectors to the next.
    pub b_step: usize,
    /// Columns to write, at most two vectors.
    pub columns: usize,
    pub start: Start<'a>,
    /// The activation of what is written.
    pub then: Then,
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
    pub unsafe fn run<V: Vector, const ROW_STEP: usize, const K_STEP: usize>(
        &self,
        rows: usize,
        c: impl Fn(usize) -> *mut f32,
    ) {
        unsafe { self.run_strided::<V, ROW_STEP>(rows, K_STEP, c) }
    }

    /// [`Tile::run`] with a number of floats from one step of `a` to the next that is known at run time.
    ///
    /// # Safety
    /// As [`Tile::run`].
    #[inline(always)]
    pub unsafe fn run_strided<V: Vector, const ROW_STEP: usize>(
        &self,
        rows: usize,
        k_step: usize,
        c: impl Fn(usize) -> *mut f32,
    ) {
        // The number of rows must be known to the compiler for the tile to stay in registers.
        macro_rules! of {
            ($($n:literal)*) => {
                match rows {
                    $($n => unsafe { self.rows::<V, $n, ROW_STEP>(k_step, c) },)*
                    _ => unreachable!("a tile has 1 to 14 rows"),
                }
            };
        }
        of!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }

    #[inline(always)]
    unsafe fn rows<V: Vector, const ROWS: usize, const ROW_STEP: usize>(
        &self,
        k_step: usize,
        c: impl Fn(usize) -> *mut f32,
    ) {
        unsafe {
            let mut sum = [[V::splat(0.0); 2]; ROWS];
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.steps {
                let right = [V::load(b), V::load(b.add(V::LANES))];
                for (row, sum) in sum.iter_mut().enumerate() {
                    let left = V::splat(*a.add(row * ROW_STEP));
                    sum[0] = left.mul_add(right[0], sum[0]);
                    sum[1] = left.mul_add(right[1], sum[1]);
                }
                a = a.add(k_step);
                b = b.add(self.b_step);
            }
            let full = self.columns == 2 * V::LANES;
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
                        self.then.of(value).store(c.add(at));
                    } else if at < self.columns {
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
