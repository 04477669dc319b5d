//! Matrix products on packed panels: what convolution and dense layers run on.
//!
//! Three products cover every layer, forward and backward,
//!
//! - [`matrix_product`]: C = A·B, where A is a plain matrix that is read where it lies;
//! - [`product`]: C = A·B, where A's rows are *gathered* on the fly (a row is the patch of pixels
//!   under a convolution's window, copied a run at a time) and B is packed once. No matrix of all
//!   patches ever exists: a task gathers a block that fits in its L2 cache.
//! - [`gemm_tn`]: C = Aᵀ·B, the weight gradient, with the same gathered A.
//!
//! and [`skinny_gemm`] is the first for the few rows of a dense layer ([`multiply`] chooses for many).
//!
//! **Blocking** (after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
//! 2008). The innermost tile keeps ROWS × 2 vectors of C in registers; each step of k loads two
//! vectors of B and broadcasts ROWS elements of A. With AVX-512, 14 × 2 accumulators, 2 vectors of
//! B and 1 broadcast are 31 of 32 registers; 16 loads feed 28 FMAs, so the two FMA units never wait
//! for the two load units. With AVX2, 6 × 2 + 2 + 1 of 16.
//!
//! - KC = 256 steps of k: a panel of B (256 × 32 × 4 B = 32 KiB) stays in a 48 KiB L1 cache (16 KiB
//!   with AVX2) while the tiles of A pass by;
//! - a block of A has 8 tiles of rows (112 × 256 × 4 B = 112 KiB with AVX-512), well inside L2;
//! - the rest of B streams from L3 once for each block of rows.
//!
//! Each KC block is summed from zero and then added to C, which keeps rounding errors down; the
//! order of summation depends on the shape alone.

mod gemm_tn;
mod matrix;
pub(crate) mod micro_kernel;
mod patches;
mod skinny;

pub use gemm_tn::gemm_tn;
pub use matrix::{matrix_product, multiply, multiply_rows};
pub use patches::{GridMap, Matrix, Patches};
pub use skinny::{is_skinny, skinny_gemm};

use crate::activation::Activation;
use crate::backend::cpu::elements;
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch, wants_non_temporal};
use crate::backend::cpu::threads::{self, Shared};
use crate::backend::cpu::transpose::transpose_tile;
use crate::pool::Buffer;
pub(crate) use micro_kernel::{
    ANY, B_PACKED, B_STRIDED, MicroKernel, ONE_RUN, for_each_tile, for_each_tile_of,
};
use std::ops::Range;

/// Steps of k a block.
pub(crate) const KC: usize = 256;
/// Floats from one row of a gathered block to the next: 17 cache lines, so that the 14 rows of a
/// tile fall into different sets of the L1 cache.
pub(crate) const ROW: usize = KC + 16;
/// Tiles of rows in a gathered block.
const MC_TILES: usize = 8;

/// A left factor whose rows are copied out on demand.
pub trait Rows: Sync {
    /// Number of rows.
    fn rows(&self) -> usize;
    /// Elements a row.
    fn depth(&self) -> usize;
    /// All rows, one after the other, where they lie in memory like that.
    fn in_place(&self) -> Option<&[f32]> {
        None
    }
    /// Writes elements `from..from + out.len()` of a row.
    fn gather<V: Vector>(&self, row: usize, from: usize, out: &mut [f32]);
}

/// Where the rows of C lie in the output.
pub trait OutputMap: Sync {
    fn offset(&self, row: usize) -> usize;
}

/// Row r of C starts at r · width.
pub struct Dense(pub usize);

impl OutputMap for Dense {
    #[inline(always)]
    fn offset(&self, row: usize) -> usize {
        row * self.0
    }
}

/// The right factor before packing: `taps.len() · inner` rows of `columns` elements. Row k is row
/// (k mod inner) of the matrix that starts at `taps[k / inner]`, or its column when `transposed`.
pub struct BOperand<'a> {
    pub values: &'a [f32],
    pub taps: Vec<usize>,
    pub inner: usize,
    pub columns: usize,
    /// Elements from one row of a tap's stored matrix to the next.
    pub stride: usize,
    pub transposed: bool,
}

impl<'a> BOperand<'a> {
    /// A plain matrix [k, columns].
    pub fn matrix(values: &'a [f32], k: usize, columns: usize) -> Self {
        BOperand { values, taps: vec![0], inner: k, columns, stride: columns, transposed: false }
    }

    /// The transpose of a plain matrix [columns, k].
    pub fn transpose(values: &'a [f32], k: usize, columns: usize) -> Self {
        BOperand { values, taps: vec![0], inner: k, columns, stride: k, transposed: true }
    }

    fn depth(&self) -> usize {
        self.taps.len() * self.inner
    }

    /// Where step k begins.
    fn at(&self, k: usize) -> usize {
        let inner = k % self.inner;
        self.taps[k / self.inner] + if self.transposed { inner } else { inner * self.stride }
    }

    /// Blocks of at most KC / 2 steps, none of which has steps of two taps: for convolutions tap by tap.
    /// (Few taps are few terms; with sums of 256 of them the error was twice that of engines which add up in
    /// short runs.)
    pub fn per_tap(&self) -> Vec<Range<usize>> {
        let steps = (0..self.taps.len()).map(|tap| tap * self.inner..(tap + 1) * self.inner);
        steps.flat_map(|steps| cut(steps, KC / 2)).collect()
    }
}

/// A right factor in panels of two vectors' width: `[block of k][panel][k][2 · LANES]`, the last
/// panel filled up with zeros.
pub struct PackedB {
    values: Buffer<f32>,
    columns: usize,
    width: usize,
    /// Steps of k, from 0 on without gaps.
    blocks: Vec<Range<usize>>,
    isa: Isa,
}

impl PackedB {
    /// Packs for the tiles of one instruction set, in blocks of KC steps: for [`product`].
    pub fn new(isa: Isa, right: &BOperand) -> Self {
        PackedB::in_blocks(isa, right, cut(0..right.depth(), KC))
    }

    /// In panels of all steps: for [`matrix_product`].
    pub fn whole(isa: Isa, right: &BOperand) -> Self {
        PackedB::in_blocks(isa, right, std::iter::once(0..right.depth()).collect())
    }

    /// In the blocks of [`BOperand::per_tap`].
    pub fn per_tap(isa: Isa, right: &BOperand) -> Self {
        PackedB::in_blocks(isa, right, right.per_tap())
    }

    fn in_blocks(isa: Isa, right: &BOperand, blocks: Vec<Range<usize>>) -> Self {
        let (columns, width) = (right.columns, 2 * isa.lanes());
        let panels = columns.div_ceil(width);
        let mut values = Buffer::<f32>::new(elements(&[right.taps.len(), right.inner, panels, width]));
        let shared = Shared::new(&mut values);
        // A piece is some steps of a panel.
        let pieces: Vec<(usize, Range<usize>)> = (0..blocks.len())
            .flat_map(|block| {
                cut(blocks[block].clone(), KC).into_iter().map(move |steps| (block, steps))
            })
            .collect();
        threads::for_each(panels * pieces.len(), |task| {
            let (panel, (block, steps)) = (task / pieces.len(), &pieces[task % pieces.len()]);
            let block = &blocks[*block];
            let at = (block.start * panels + panel * block.len() + steps.start - block.start) * width;
            // SAFETY: inside the panel of the block that the steps belong to; every piece has its own steps.
            let out = unsafe { std::slice::from_raw_parts_mut(shared.at(at), steps.len() * width) };
            dispatch(isa, Panel { right, first: steps.start, column: panel * width, width, out });
        });
        PackedB { values, columns, width, blocks, isa }
    }

    fn depth(&self) -> usize {
        self.blocks.last().map_or(0, |block| block.end)
    }

    pub fn panels(&self) -> usize {
        self.columns.div_ceil(self.width)
    }

    /// The panel of the given block of steps.
    #[inline(always)]
    pub(crate) fn panel(&self, block: usize, panel: usize) -> &[f32] {
        let Range { start, end } = self.blocks[block];
        let at = (start * self.panels() + panel * (end - start)) * self.width;
        &self.values[at..at + (end - start) * self.width]
    }
}

/// A range in pieces of some size; the last may be shorter.
fn cut(range: Range<usize>, size: usize) -> Vec<Range<usize>> {
    range.clone().step_by(size).map(|start| start..range.end.min(start + size)).collect()
}

/// Some steps of a panel, from step `first` on: `width` floats of each, from a column on.
pub(crate) struct Panel<'a> {
    pub right: &'a BOperand<'a>,
    pub first: usize,
    pub column: usize,
    pub width: usize,
    pub out: &'a mut [f32],
}

impl Kernel for Panel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Panel { right, width, .. } = self;
        let valid = width.min(right.columns - self.column);
        let (mut step, end) = (self.first, self.first + self.out.len() / width);
        let mut out = self.out;
        while step < end {
            // Steps of one tap, as many as are turned at a time.
            let steps = V::LANES.min(right.inner - step % right.inner).min(end - step);
            let (rows, rest) = out.split_at_mut(steps * width);
            match right.transposed {
                true => {
                    let from = &right.values[right.at(step) + self.column * right.stride..];
                    // SAFETY: inside `dispatch`.
                    unsafe { transpose_rows::<V>(from, right.stride, valid, steps, width, rows) }
                }
                false => {
                    let from = &right.values[right.at(step) + self.column..];
                    for (k, row) in rows.chunks_exact_mut(width).enumerate() {
                        row[..valid].copy_from_slice(&from[k * right.stride..][..valid]);
                        row[valid..].fill(0.0);
                    }
                }
            }
            (step, out) = (step + steps, rest);
        }
    }
}

/// `valid` rows of some steps, `stride` apart, into columns: rows of `width` floats, the last of which are
/// zero.
///
/// # Safety
/// Inside [`dispatch`].
#[inline(always)]
unsafe fn transpose_rows<V: Vector>(
    from: &[f32],
    stride: usize,
    valid: usize,
    steps: usize,
    width: usize,
    to: &mut [f32],
) {
    assert!(from.len() >= (valid.max(1) - 1) * stride + steps && valid <= width);
    let squares = if steps == V::LANES { valid / V::LANES * V::LANES } else { 0 };
    assert_eq!(to.len(), steps * width);
    for column in (0..squares).step_by(V::LANES) {
        // SAFETY: LANES steps of the rows from `column` on; LANES floats of each step's row.
        unsafe {
            let from = from.as_ptr().add(column * stride);
            transpose_tile::<V>(from, stride, V::LANES, to.as_mut_ptr().add(column), width);
        }
    }
    for (k, row) in to.chunks_exact_mut(width).enumerate() {
        for (column, value) in row[..valid].iter_mut().enumerate().skip(squares) {
            *value = from[column * stride + k];
        }
        row[valid..].fill(0.0);
    }
}

/// What the first KC block of a product starts from.
#[derive(Clone, Copy)]
pub enum Init<'a> {
    Zero,
    /// One value a column.
    Bias(&'a [f32]),
    /// What the output holds already.
    Accumulate,
    /// The same, and one value a column.
    Onto(&'a [f32]),
}

impl Init<'_> {
    /// That of some columns.
    fn of(self, columns: Range<usize>) -> Self {
        match self {
            Init::Bias(bias) => Init::Bias(&bias[columns]),
            Init::Onto(bias) => Init::Onto(&bias[columns]),
            other => other,
        }
    }

    /// Whether the output is read before it is written.
    fn reads_output(self) -> bool {
        matches!(self, Init::Accumulate | Init::Onto(_))
    }
}

/// Rows a task: about BLOCK_TILES tiles, and nearly the same for all, so that few cores are done together.
fn even_blocks(rows: usize, tile: usize) -> usize {
    let tiles = rows.div_ceil(tile);
    let blocks = tiles.div_ceil(MC_TILES);
    let even = if blocks > 2 { blocks.next_multiple_of(4) } else { blocks };
    tiles.div_ceil(even.clamp(1, tiles.max(1))) * tile
}

/// C = then(A·B + start), with row r of C written to `out[place.offset(r)..]`.
///
/// # Safety
/// `place` must give each row its own `columns` elements inside `out`.
pub unsafe fn product(
    rows: &impl Rows,
    right: &PackedB,
    start: Init,
    activation: Activation,
    place: &impl OutputMap,
    out: &mut [f32],
) {
    struct Block<'a, R, P> {
        rows: &'a R,
        right: &'a PackedB,
        start: Init<'a>,
        activation: Activation,
        place: &'a P,
        non_temporal: bool,
        out: Shared<f32>,
        range: std::ops::Range<usize>,
        panels: std::ops::Range<usize>,
    }
    impl<R: Rows, P: OutputMap> Kernel for Block<'_, R, P> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let (right, rows) = (self.right, self.rows);
            // Where rows meet only a panel or two, they come and go in pieces that fit L1 beside them.
            let part = if self.panels.len() <= 2 { 2 * V::MR } else { self.range.len() };
            let mut gathered = Buffer::<f32>::new(part * ROW);
            let mut offsets = Vec::with_capacity(part);
            let last = right.blocks.len() - 1;
            for (first, i) in
                self.range.clone().step_by(part).flat_map(|first| (0..=last).map(move |i| (first, i)))
            {
                let Range { start: from, end } = right.blocks[i];
                let steps = end - from;
                let range = first..self.range.end.min(first + part);
                if i == 0 {
                    offsets.clear();
                    offsets.extend(range.clone().map(|row| self.place.offset(row)));
                }
                for (row, out) in range.clone().zip(gathered.chunks_mut(ROW)) {
                    rows.gather::<V>(row, from, &mut out[..steps]);
                }
                for panel in self.panels.clone() {
                    let column = panel * right.width;
                    let columns = right.width.min(right.columns - column);
                    let b = right.panel(i, panel);
                    let start = match self.start {
                        _ if i > 0 => Init::Accumulate,
                        start => start.of(column..column + columns),
                    };
                    let ahead_step = right.width.div_ceil(range.len().div_ceil(V::MR));
                    for_each_tile::<V>(
                        range.len(),
                        #[inline(always)]
                        |first, count| {
                            let tile = MicroKernel {
                                steps,
                                runs: ONE_RUN,
                                a: gathered[first * ROW..].as_ptr(),
                                row_step: 0,
                                k_step: 1,
                                b: b.as_ptr(),
                                b_step: 0,
                                columns,
                                start,
                                activation: if i == last { self.activation } else { Activation::Linear },
                                non_temporal: self.non_temporal,
                                // The next panel, a share a tile.
                                ahead: b
                                    .as_ptr()
                                    .wrapping_add(b.len() + first * ahead_step / V::MR * steps),
                                ahead_step,
                            };
                            let offsets = &offsets[first..first + count];
                            // SAFETY: `gathered` holds `count` rows of ROW floats from `first`, the
                            // panel holds `steps` rows of full width, and by the caller's contract the
                            // offsets name elements of `out` that no other row and no other task touch.
                            unsafe {
                                tile.run::<V, ROW, B_PACKED>(
                                    count,
                                    #[inline(always)]
                                    |row| self.out.at(offsets[row] + column),
                                )
                            };
                        },
                    );
                }
            }
        }
    }
    let count = rows.rows();
    assert_eq!(right.depth(), rows.depth());
    assert!(right.blocks.iter().all(|block| block.len() <= KC));
    if count == 0 || right.columns == 0 {
        return;
    }
    let block = even_blocks(count, right.isa.mr());
    let blocks = count.div_ceil(block);
    if right.blocks.is_empty() {
        for row in 0..count {
            let out = &mut out[place.offset(row)..][..right.columns];
            match start {
                Init::Zero => out.fill(0.0),
                Init::Bias(bias) => out.copy_from_slice(bias),
                Init::Accumulate | Init::Onto(_) => {}
            }
            activation.in_place(right.isa, out);
        }
        return;
    }
    // Few rows: cut the columns as well, so that there is work for a few cores; each cut gathers the rows
    // again.
    let cuts = (4 / blocks).clamp(1, right.panels());
    let cut = right.panels().div_ceil(cuts);
    let cuts = right.panels().div_ceil(cut);
    // What is added to is read again soon.
    let once = right.blocks.len() <= 1 && !start.reads_output();
    let non_temporal = once && wants_non_temporal(out, right.columns);
    let shared = Shared::new(out);
    threads::for_each(blocks * cuts, |task| {
        let (b, c) = (task / cuts, task % cuts);
        let range = b * block..count.min((b + 1) * block);
        let panels = c * cut..right.panels().min((c + 1) * cut);
        dispatch(
            right.isa,
            Block { rows, right, start, activation, place, non_temporal, out: shared, range, panels },
        );
    });
}

#[cfg(test)]
mod tests;
