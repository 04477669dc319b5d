//! The fast kernels: vectors run over the channels, threads over blocks of rows.

use super::{Geometry, Method, Tap};
use crate::backend::cpu::simd::{self, Kernel, Vector, store};
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::pool::Buffer;
use crate::tensor::Tensor;
use std::ops::Range;

/// Output rows per piece of work: an input row that consecutive output rows share is interpolated
/// along x once per piece.
const ROWS: usize = 16;

pub(super) fn forward(x: &Tensor, geometry: Geometry, method: Method) -> Tensor {
    let Geometry { n, h, w, c, out_h, out_w } = geometry;
    let (rows, columns) = (method.taps::<f32>(h, out_h), method.taps::<f32>(w, out_w));
    let (x, isa) = (x.values::<f32>(), isa());
    let mut out = Buffer::<f32>::new(n * out_h * out_w * c);
    let (blocks, non_temporal) = (out_h.div_ceil(ROWS), simd::wants_non_temporal(&out, c));
    let shared = threads::Shared::new(&mut out);
    threads::for_each(if c == 0 { 0 } else { n * blocks }, |piece| {
        let (n, first) = (piece / blocks, piece % blocks * ROWS);
        let rows = &rows[first..out_h.min(first + ROWS)];
        let row = out_w * c;
        // SAFETY: piece (n, block) alone writes these rows of sample n.
        let out = unsafe {
            std::slice::from_raw_parts_mut(shared.at((n * out_h + first) * row), rows.len() * row)
        };
        let x = &x[n * h * w * c..][..h * w * c];
        let columns = &columns[..];
        match method {
            Method::Bilinear => {
                simd::dispatch(isa, BilinearRows { x, w, c, rows, columns, out, non_temporal })
            }
            Method::Nearest => nearest_rows(x, w, c, rows, columns, out),
        }
    });
    Tensor::from_buffer(out, geometry.output())
}

/// Bilinear rows of one image `x` (any height, width `w`, `c` channels, f32 or u8) into `out`.
pub(crate) struct BilinearRows<'a, S> {
    pub x: &'a [S],
    pub w: usize,
    pub c: usize,
    pub rows: &'a [Tap<f32>],
    pub columns: &'a [Tap<f32>],
    pub out: &'a mut [f32],
    /// Past the caches ([`simd::wants_non_temporal`]).
    pub non_temporal: bool,
}

impl<S: Copy + Into<f32>> Kernel for BilinearRows<'_, S> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        /// Floats of a piece of a row, of which two lie in L1 (but for a pixel of more channels).
        const PIECE: usize = 4096;
        let pixels = (PIECE / self.c).clamp(1, self.columns.len());
        let mut lines = Buffer::<f32>::new(2 * pixels * self.c);
        for (i, columns) in self.columns.chunks(pixels).enumerate() {
            let (low, high) = lines.split_at_mut(pixels * self.c);
            self.piece::<V>(columns, i * pixels * self.c, [low, high]);
        }
    }
}

impl<S: Copy + Into<f32>> BilinearRows<'_, S> {
    /// Some columns of all rows, which begin `at` floats into each.
    #[inline(always)]
    fn piece<V: Vector>(&mut self, columns: &[Tap<f32>], at: usize, mut lines: [&mut [f32]; 2]) {
        let (c, row) = (self.c, self.columns.len() * self.c);
        let length = columns.len() * c;
        // The input rows that the lines are, interpolated along x.
        let mut held = [usize::MAX; 2];
        for (tap, out) in self.rows.iter().zip(self.out.chunks_exact_mut(row)) {
            if held[1] == tap.low {
                lines.swap(0, 1);
                held.swap(0, 1);
            }
            for (side, from) in [tap.low, tap.high].into_iter().enumerate() {
                if held[side] == from {
                    continue;
                }
                held[side] = from;
                let from = &self.x[from * self.w * c..][..self.w * c];
                for (tap, out) in columns.iter().zip(lines[side].chunks_exact_mut(c)) {
                    let (low, high) = (&from[tap.low * c..][..c], &from[tap.high * c..][..c]);
                    for ((y, &a), &b) in out.iter_mut().zip(low).zip(high) {
                        let (a, b): (f32, f32) = (a.into(), b.into());
                        *y = a + (b - a) * tap.t;
                    }
                }
            }
            let out = &mut out[at..at + length];
            let (top, bottom) = (&lines[0][..length], &lines[1][..length]);
            let whole = length / V::LANES * V::LANES;
            for i in (0..whole).step_by(V::LANES) {
                // SAFETY: inside `dispatch`; whole vectors of all three. (No step fused, as the reference
                // has it.)
                unsafe {
                    let (top, bottom) = (V::load(&top[i]), V::load(&bottom[i]));
                    let y = top.add(bottom.sub(top).mul(V::splat(tap.t)));
                    store::<V, true>(y, &mut out[i], V::LANES, self.non_temporal);
                }
            }
            for i in whole..length {
                out[i] = top[i] + (bottom[i] - top[i]) * tap.t;
            }
        }
    }
}

/// Rows of one image or mask of any element type, picked.
pub(crate) fn nearest_rows<S: Copy>(
    x: &[S],
    w: usize,
    c: usize,
    rows: &[Tap<f32>],
    columns: &[Tap<f32>],
    out: &mut [S],
) {
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(columns.len() * c)) {
        let from = &x[row.low * w * c..][..w * c];
        for (column, out) in columns.iter().zip(out.chunks_exact_mut(c)) {
            out.copy_from_slice(&from[column.low * c..][..c]);
        }
    }
}

/// The transpose of one axis: for each input index, the output indices it went to, with weights.
struct Uses {
    start: Vec<usize>,
    uses: Vec<(usize, f32)>,
}

impl Uses {
    fn new(taps: &[Tap<f32>], input: usize) -> Self {
        let mut lists = vec![Vec::new(); input];
        for (j, tap) in taps.iter().enumerate() {
            tap.shares().into_iter().for_each(|(i, w)| lists[i].extend((w != 0.0).then_some((j, w))));
        }
        let start = std::iter::once(0).chain(lists.iter().scan(0, |sum, list| {
            *sum += list.len();
            Some(*sum)
        }));
        Uses { start: start.collect(), uses: lists.concat() }
    }

    fn of(&self, input: usize) -> &[(usize, f32)] {
        &self.uses[self.start[input]..self.start[input + 1]]
    }
}

impl Tap<f32> {
    /// The input pixels, and how much of each goes into the output pixel.
    fn shares(&self) -> [(usize, f32); 2] {
        [(self.low, 1.0 - self.t), (self.high, self.t)]
    }
}

/// Each output row's gradient, folded along x, goes to its two input rows: so a row is read once, and all
/// later additions are as short as the input.
pub(super) fn backward(g: &Tensor, geometry: Geometry, method: Method) -> Tensor {
    let Geometry { n, h, w, c, out_h, out_w } = geometry;
    let rows = method.taps::<f32>(h, out_h);
    let columns = Uses::new(&method.taps(w, out_w), w);
    let (g, isa) = (g.values::<f32>(), isa());
    let mut out = Buffer::<f32>::new(n * h * w * c);
    // Input rows of a piece. An output row between two pieces is read by both, so they are not too few.
    let height = h.div_ceil(4).max(7).min(h);
    let pieces = h.div_ceil(height);
    let shared = threads::Shared::new(&mut out);
    threads::for_each(if c == 0 { 0 } else { n * pieces }, |piece| {
        let (n, first) = (piece / pieces, piece % pieces * height);
        let range = first..h.min(first + height);
        // SAFETY: piece (n, block) alone writes these rows of sample n.
        let out = unsafe {
            std::slice::from_raw_parts_mut(shared.at((n * h + first) * w * c), range.len() * w * c)
        };
        let g = &g[n * out_h * out_w * c..][..out_h * out_w * c];
        simd::dispatch(isa, Gradient { g, rows: &rows, columns: &columns, w, c, out_w, range, out });
    });
    Tensor::from_buffer(out, geometry.input())
}

/// Some input rows of one sample.
struct Gradient<'a> {
    g: &'a [f32],
    rows: &'a [Tap<f32>],
    columns: &'a Uses,
    w: usize,
    c: usize,
    out_w: usize,
    range: Range<usize>,
    out: &'a mut [f32],
}

impl Kernel for Gradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        self.out.fill(0.0);
        for (j, tap) in self.rows.iter().enumerate() {
            // Where in `out` the row's shares go, and how much; nowhere if another piece has the input row.
            let length = self.w * self.c;
            let mut shares = tap.shares().map(|(row, weight)| {
                let here = self.range.contains(&row) && weight != 0.0;
                here.then(|| ((row - self.range.start) * length, weight))
            });
            // One input row has both where an edge is repeated.
            if let [Some((a, share)), Some((b, other))] = shares
                && a == b
            {
                shares = [Some((a, share + other)), None];
            }
            if shares == [None; 2] {
                continue;
            }
            for x in 0..self.w {
                let whole = self.c / V::LANES * V::LANES;
                let four = self.c / (4 * V::LANES) * 4 * V::LANES;
                // SAFETY: inside `dispatch`; whole vectors of a pixel's channels, then what is left of them.
                unsafe {
                    for c in (0..four).step_by(4 * V::LANES) {
                        self.pixel::<V, true, 4>(j, x, c, V::LANES, shares);
                    }
                    for c in (four..whole).step_by(V::LANES) {
                        self.pixel::<V, true, 1>(j, x, c, V::LANES, shares);
                    }
                    if whole < self.c {
                        self.pixel::<V, false, 1>(j, x, whole, self.c - whole, shares);
                    }
                }
            }
        }
    }
}

impl Gradient<'_> {
    /// N vectors of the channels of input pixel x, from output row j.
    ///
    /// # Safety
    /// Inside [`simd::dispatch`]; N · `lanes` channels are left from `c` on.
    #[inline(always)]
    unsafe fn pixel<V: Vector, const FULL: bool, const N: usize>(
        &mut self,
        j: usize,
        x: usize,
        c: usize,
        lanes: usize,
        shares: [Option<(usize, f32)>; 2],
    ) {
        unsafe {
            let mut sums = [V::splat(0.0); N];
            for &(column, weight) in self.columns.of(x) {
                let g = self.g.as_ptr().add((j * self.out_w + column) * self.c + c);
                for (k, sum) in sums.iter_mut().enumerate() {
                    let g = simd::load::<V, FULL>(g.add(k * V::LANES), lanes);
                    *sum = g.mul_add(V::splat(weight), *sum);
                }
            }
            for (row, weight) in shares.into_iter().flatten() {
                let to = self.out.as_mut_ptr().add(row + x * self.c + c);
                for (k, sum) in sums.iter().enumerate() {
                    let to = to.add(k * V::LANES);
                    let before = simd::load::<V, FULL>(to, lanes);
                    store::<V, FULL>(sum.mul_add(V::splat(weight), before), to, lanes, false);
                }
            }
        }
    }
}
