//! The innermost loop: a tile of C in registers.

use super::Init;
use crate::activation::Activation;
use crate::backend::cpu::simd::{Kernel, Vector, prefetch};

/// One tile: up to `V::MR` rows and two vectors of columns, over `runs` runs of `steps` steps of k.
pub(crate) struct MicroKernel<'a> {
    pub steps: usize,
    /// Where in `a` each run begins.
    pub runs: &'a [usize],
    /// Of a run, element (row r, step k) is at `r · ROW_STEP + k`, or where ROW_STEP is 1, at `r + k ·
    /// k_step`, or where it is [`ANY`], at `r · row_step + k`.
    pub a: *const f32,
    pub row_step: usize,
    pub k_step: usize,
    /// Two full vectors a step, one step after the other, or where B is [`B_STRIDED`], `b_step` floats apart.
    pub b: *const f32,
    pub b_step: usize,
    /// Columns to write, at most two vectors.
    pub columns: usize,
    pub start: Init<'a>,
    /// The activation of what is written.
    pub activation: Activation,
    /// Whether whole vectors go past the caches ([`crate::backend::cpu::simd::wants_non_temporal`]).
    pub non_temporal: bool,
    /// What will be read soon is brought near meanwhile, so many floats a step.
    pub ahead: *const f32,
    pub ahead_step: usize,
}

/// A row step that is known at run time only: rows are read where they lie in a matrix.
pub(crate) const ANY: usize = 0;

/// How the steps of B lie: see [`MicroKernel::b`].
pub(crate) const B_PACKED: bool = true;
pub(crate) const B_STRIDED: bool = false;

/// Of the largest tile there is.
pub(crate) const MAX_MR: usize = 14;

/// The runs of a plain product.
pub(crate) const ONE_RUN: &[usize] = &[0];

/// Calls `f(first, count)` for every tile of rows: as few as there must be, of even size (a tile of two rows
/// takes nearly as long as one of six).
#[inline(always)]
pub(crate) fn for_each_tile<V: Vector>(rows: usize, f: impl FnMut(usize, usize)) {
    for_each_tile_of(V::MR, rows, f);
}

/// The same with at most so many rows a tile.
#[inline(always)]
pub(crate) fn for_each_tile_of(most: usize, rows: usize, mut f: impl FnMut(usize, usize)) {
    let tiles = rows.div_ceil(most);
    let mut first = 0;
    for tile in 0..tiles {
        let end = rows * (tile + 1) / tiles;
        f(first, end - first);
        first = end;
    }
}

impl MicroKernel<'_> {
    /// The tile as part of the caller's loop: 3 % less time where tiles have 64 steps, and 13 % where they
    /// have 16, for six seconds of compile time a caller.
    ///
    /// # Safety
    /// `a` and `b` are readable over the whole tile (`b` over two full vectors a step); `c(r)`
    /// points to `columns` floats for each r < rows that nothing else accesses meanwhile.
    #[inline(always)]
    pub unsafe fn run_inlined<V: Vector, const ROW_STEP: usize, const B: bool>(
        &self,
        rows: usize,
        c: impl Fn(usize) -> *mut f32,
    ) {
        // SAFETY: the caller's.
        unsafe { self.choose::<V, ROW_STEP, B, true>(rows, c) }
    }

    /// The tile as a function of its own.
    ///
    /// # Safety
    /// As [`MicroKernel::run_inlined`].
    #[inline(always)]
    pub unsafe fn run<V: Vector, const ROW_STEP: usize, const B: bool>(
        &self,
        rows: usize,
        c: impl Fn(usize) -> *mut f32,
    ) {
        // SAFETY: the caller's.
        unsafe { self.choose::<V, ROW_STEP, B, false>(rows, c) }
    }

    /// # Safety
    /// As [`MicroKernel::run_inlined`].
    #[inline(always)]
    unsafe fn choose<V: Vector, const ROW_STEP: usize, const B: bool, const INLINED: bool>(
        &self,
        rows: usize,
        c: impl Fn(usize) -> *mut f32,
    ) {
        assert!((1..=V::MR).contains(&rows));
        let mut to = [std::ptr::null_mut(); MAX_MR];
        for (row, to) in to.iter_mut().enumerate().take(rows) {
            *to = c(row);
        }
        let (tile, to) = (self, &to);
        // The number of rows must be known to the compiler for the tile to stay in registers.
        macro_rules! of {
            ($($n:literal)*) => {
                match (rows, self.columns > V::LANES) {
                    $(($n, true) if const { $n <= V::MR && INLINED } => unsafe {
                        self.rows::<V, $n, 2, ROW_STEP, B, true>(to)
                    },
                    ($n, false) if const { $n <= V::MR && INLINED } => unsafe {
                        self.rows::<V, $n, 1, ROW_STEP, B, true>(to)
                    },
                    ($n, true) if const { $n <= V::MR && !INLINED } => unsafe {
                        V::apart(Rows::<$n, 2, ROW_STEP, B> { tile, to })
                    },
                    ($n, false) if const { $n <= V::MR && !INLINED } => unsafe {
                        V::apart(Rows::<$n, 1, ROW_STEP, B> { tile, to })
                    },)*
                    _ => {}
                }
            };
        }
        of!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }

    /// # Safety
    /// As [`MicroKernel::run`], with ROWS rows of C at `to`.
    #[inline(always)]
    unsafe fn rows<
        V: Vector,
        const ROWS: usize,
        const WIDTH: usize,
        const ROW_STEP: usize,
        const B: bool,
        const INLINED: bool,
    >(
        &self,
        to: &[*mut f32; MAX_MR],
    ) {
        unsafe {
            if let Init::Onto(_) = self.start {
                // C comes from memory: asked for now, it is there when the sums are.
                for &c in &to[..ROWS] {
                    (0..WIDTH).for_each(|half| prefetch(c.wrapping_add(half * V::LANES)));
                }
            }
            let mut sum = [[V::splat(0.0); WIDTH]; ROWS];
            let (mut b, mut ahead) = (self.b, self.ahead);
            let b_step = if B == B_PACKED { 2 * V::LANES } else { self.b_step };
            let k_step = if ROW_STEP == 1 { self.k_step } else { 1 };
            for &run in self.runs {
                let mut left = Left::<ROW_STEP>::new(self.a.wrapping_add(run), self.row_step, k_step);
                for _ in 0..self.steps / UNROLL {
                    for u in 0..UNROLL {
                        prefetch(ahead);
                        ahead = ahead.wrapping_add(self.ahead_step);
                        left.step::<V, ROWS, WIDTH>(u, b.wrapping_add(u * b_step), &mut sum);
                    }
                    left.advance(UNROLL);
                    b = b.wrapping_add(UNROLL * b_step);
                }
                for _ in 0..self.steps % UNROLL {
                    left.step::<V, ROWS, WIDTH>(0, b, &mut sum);
                    left.advance(1);
                    b = b.wrapping_add(b_step);
                }
            }
            // Large results of few steps, which a first layer's are, go out of the registers.
            if B == B_PACKED && ROW_STEP != 1 && self.non_temporal && self.columns == WIDTH * V::LANES {
                match (self.start, self.activation) {
                    (Init::Zero, Activation::Linear) => {
                        return write_rows(&sum, to, Init::Zero, Activation::Linear, true);
                    }
                    (Init::Bias(bias), Activation::Linear) => {
                        return write_rows(&sum, to, Init::Bias(bias), Activation::Linear, true);
                    }
                    (Init::Bias(bias), Activation::Relu6) => {
                        return write_rows(&sum, to, Init::Bias(bias), Activation::Relu6, true);
                    }
                    _ => {}
                }
            }
            // Others are put down first: a loop over them is short code, of which there are hundreds of
            // copies. (Rows by number here and there: were one chosen at run time, all sums would be kept in
            // memory from the beginning, cleared there by a call and written back after every run.)
            let mut done = [[V::splat(0.0); WIDTH]; ROWS];
            macro_rules! rows {
                ($($row:literal)*) => {
                    $(if const { $row < ROWS } {
                        done[$row] = sum[$row];
                    })*
                };
            }
            rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
            // (A first layer's ∂w has tiles so short that the call would be a tenth of them.)
            if const { INLINED || (ROW_STEP == 1 && B == B_STRIDED) } {
                self.write(&done, to);
            } else {
                V::apart(Write::<WIDTH> { tile: self, sum: done.as_ptr().cast(), rows: ROWS, to });
            }
        }
    }

    /// # Safety
    /// As [`write_as`].
    #[inline(always)]
    unsafe fn write<V: Vector, const WIDTH: usize>(&self, sum: &[[V; WIDTH]], to: &[*mut f32; MAX_MR]) {
        // What is known when compiling costs nothing a vector: the common cases are compiled each for itself.
        let plain = self.columns == WIDTH * V::LANES && !self.non_temporal;
        macro_rules! of {
            ($(($start:pat, $activation:pat) => ($to_start:expr, $to_then:expr),)*) => {
                match (self.start, self.activation) {
                    $(($start, $activation) if plain => unsafe {
                        write_as(sum, to, WIDTH * V::LANES, $to_start, $to_then, false)
                    },)*
                    (start, activation) => unsafe {
                        write_as(sum, to, self.columns, start, activation, self.non_temporal)
                    },
                }
            };
        }
        of!(
            (Init::Zero, Activation::Linear) => (Init::Zero, Activation::Linear),
            (Init::Accumulate, Activation::Linear) => (Init::Accumulate, Activation::Linear),
            (Init::Onto(bias), Activation::Linear) => (Init::Onto(bias), Activation::Linear),
            (Init::Bias(bias), Activation::Linear) => (Init::Bias(bias), Activation::Linear),
            (Init::Bias(bias), Activation::Relu) => (Init::Bias(bias), Activation::Relu),
            (Init::Bias(bias), Activation::Relu6) => (Init::Bias(bias), Activation::Relu6),
        )
    }
}

/// Rows of C, of so many columns.
///
/// # Safety
/// As [`write_vector`]; `to` has as many rows of `columns` as there are sums.
#[inline(always)]
unsafe fn write_as<V: Vector, const WIDTH: usize>(
    sum: &[[V; WIDTH]],
    to: &[*mut f32; MAX_MR],
    columns: usize,
    start: Init,
    activation: Activation,
    non_temporal: bool,
) {
    for (sum, &c) in sum.iter().zip(to) {
        for (half, &sum) in sum.iter().enumerate() {
            let at = half * V::LANES;
            let n = V::LANES.min(columns - at);
            unsafe {
                if n == V::LANES {
                    write_vector(sum, c.add(at), start, at, activation, non_temporal);
                    continue;
                }
                let value = match start {
                    Init::Zero => sum,
                    Init::Bias(bias) => sum.add(V::load_partial(bias.as_ptr().add(at), n)),
                    Init::Accumulate => V::load_partial(c.add(at), n).add(sum),
                    Init::Onto(bias) => {
                        let bias = V::load_partial(bias.as_ptr().add(at), n);
                        V::load_partial(c.add(at), n).add(sum.add(bias))
                    }
                };
                activation.forward_lanes(value).store_partial(c.add(at), n);
            }
        }
    }
}

/// Whole vectors of C, row by row as the compiler sees it.
///
/// # Safety
/// As [`write_vector`].
#[inline(always)]
unsafe fn write_rows<V: Vector, const ROWS: usize, const WIDTH: usize>(
    sum: &[[V; WIDTH]; ROWS],
    to: &[*mut f32; MAX_MR],
    start: Init,
    activation: Activation,
    non_temporal: bool,
) {
    macro_rules! rows {
        ($($row:literal)*) => {
            $(if const { $row < ROWS } {
                for (half, &sum) in sum[$row].iter().enumerate() {
                    let at = half * V::LANES;
                    unsafe { write_vector(sum, to[$row].add(at), start, at, activation, non_temporal) };
                }
            })*
        };
    }
    rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
}

/// A vector of C, which is that of column `at`.
///
/// # Safety
/// Inside [`crate::backend::cpu::simd::dispatch`]; `c` is a vector of C, aligned where it goes past the
/// caches, and biases have one at `at`.
#[inline(always)]
unsafe fn write_vector<V: Vector>(
    sum: V,
    c: *mut f32,
    start: Init,
    at: usize,
    activation: Activation,
    non_temporal: bool,
) {
    unsafe {
        let value = match start {
            Init::Zero => sum,
            Init::Bias(bias) => sum.add(V::load(bias.as_ptr().add(at))),
            Init::Accumulate => V::load(c).add(sum),
            Init::Onto(bias) => V::load(c).add(sum.add(V::load(bias.as_ptr().add(at)))),
        };
        match non_temporal {
            true => activation.forward_lanes(value).non_temporal(c),
            false => activation.forward_lanes(value).store(c),
        }
    }
}

/// A tile of ROWS rows and WIDTH vectors as a function of its own, which all that read A and B alike share.
struct Rows<'a, const ROWS: usize, const WIDTH: usize, const ROW_STEP: usize, const B: bool> {
    tile: &'a MicroKernel<'a>,
    to: &'a [*mut f32; MAX_MR],
}

impl<const ROWS: usize, const WIDTH: usize, const ROW_STEP: usize, const B: bool> Kernel
    for Rows<'_, ROWS, WIDTH, ROW_STEP, B>
{
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: `MicroKernel::run` makes these, under the same contract.
        unsafe { self.tile.rows::<V, ROWS, WIDTH, ROW_STEP, B, false>(self.to) }
    }
}

/// The sums of a tile, which tiles of all sizes have written by the same function.
struct Write<'a, const WIDTH: usize> {
    tile: &'a MicroKernel<'a>,
    /// \[rows, WIDTH\] vectors.
    sum: *const f32,
    rows: usize,
    to: &'a [*mut f32; MAX_MR],
}

impl<const WIDTH: usize> Kernel for Write<'_, WIDTH> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: a tile of `rows` rows makes these, of such vectors, under the contract of
        // `MicroKernel::run`.
        unsafe {
            let sum = std::slice::from_raw_parts(self.sum.cast::<[V; WIDTH]>(), self.rows);
            self.tile.write(sum, self.to);
        }
    }
}

/// Steps a turn of the loop.
const UNROLL: usize = 4;

/// Where a tile's rows are read.
///
/// A step between rows that is known when compiling is part of an instruction's address. One that is not
/// takes registers: from each of five bases an address reaches rows 0, 1 and 2 (the step is scaled by 1 or
/// 2), which is 15 rows.
struct Left<const ROW_STEP: usize> {
    bases: [*const f32; 5],
    row_step: usize,
    k_step: usize,
}

impl<const ROW_STEP: usize> Left<ROW_STEP> {
    #[inline(always)]
    fn new(a: *const f32, row_step: usize, k_step: usize) -> Self {
        let bases = match ROW_STEP {
            ANY => [0, 3, 6, 9, 12].map(
                #[inline(always)]
                |row| a.wrapping_add(row * row_step),
            ),
            _ => [a; 5],
        };
        Left { bases, row_step, k_step }
    }

    #[inline(always)]
    fn at(&self, row: usize, k: usize) -> *const f32 {
        match ROW_STEP {
            ANY => self.bases[row / 3].wrapping_add(row % 3 * self.row_step + k),
            _ => self.bases[0].wrapping_add(row * ROW_STEP + k * self.k_step),
        }
    }

    /// # Safety
    /// Row r at step k is readable for each r < ROWS, and WIDTH vectors at `b`.
    #[inline(always)]
    unsafe fn step<V: Vector, const ROWS: usize, const WIDTH: usize>(
        &self,
        k: usize,
        b: *const f32,
        sums: &mut [[V; WIDTH]; ROWS],
    ) {
        unsafe {
            let mut right = [V::splat(0.0); WIDTH];
            for (half, right) in right.iter_mut().enumerate() {
                *right = V::load(b.add(half * V::LANES));
            }
            // (Written out: the compiler keeps the sums of a loop over rows in memory.)
            macro_rules! rows {
                ($($row:literal)*) => {
                    $(if const { $row < ROWS } {
                        let left = V::splat(*self.at($row, k));
                        for half in 0..WIDTH {
                            sums[$row][half] = left.mul_add(right[half], sums[$row][half]);
                        }
                    })*
                };
            }
            rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
        }
    }

    /// (What follows the last step may point past the end: it is not read.)
    #[inline(always)]
    fn advance(&mut self, steps: usize) {
        if ROW_STEP == ANY {
            let [a, b, c, d, e] = &mut self.bases;
            for base in [&mut *a, b, c, d, e] {
                *base = base.wrapping_add(steps);
            }
            #[allow(clippy::pointers_in_nomem_asm_block, reason = "no memory is touched through them")]
            // SAFETY: no instruction at all. It only keeps the compiler from knowing how the bases hang
            // together: it would compute an address a row from one of them, and run out of registers.
            #[cfg(target_arch = "x86_64")]
            unsafe {
                let [a, b, c, d, e] = &mut self.bases;
                std::arch::asm!(
                    "/* {0} {1} {2} {3} {4} */",
                    inout(reg) * a,
                    inout(reg) * b,
                    inout(reg) * c,
                    inout(reg) * d,
                    inout(reg) * e,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        } else {
            self.bases[0] = self.bases[0].wrapping_add(steps * self.k_step);
        }
    }
}
