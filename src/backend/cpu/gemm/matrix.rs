//! C = A·B with A a plain matrix: a 1×1 convolution, or a dense layer of many rows.
//!
//! Nothing of A is copied. A tile's rows are read where they lie, all steps of k in one go, for one panel of
//! B after the other, so that the rows come into L1 once; meanwhile the next tile's rows are brought near. C
//! is written once.

use super::micro_kernel::{ANY, B_PACKED, MicroKernel, ONE_RUN, for_each_tile};
use super::{BOperand, Dense, Init, KC, Matrix, PackedB, even_blocks, product};
use crate::activation::Activation;
use crate::backend::cpu::simd::{Isa, Kernel, Vector, dispatch, wants_non_temporal};
use crate::backend::cpu::threads::{self, Shared};
use std::ops::Range;

/// Bytes of B that a task goes through for each tile of rows: they come from L2 (1 MiB at least on the
/// processors this is tuned for) beside the rows.
const GROUP_BYTES: usize = 768 << 10;

/// C [rows, columns] = A [rows, depth]·B + bias, with B packed for this once.
pub fn multiply(isa: Isa, a: &[f32], right: &BOperand, bias: Option<&[f32]>, out: &mut [f32]) {
    /// So long are rows that 14 of them still fit L2, where each panel reads them again.
    const LONG: usize = 8 * KC;
    let start = bias.map_or(Init::Zero, Init::Bias);
    let (depth, columns) = (right.depth(), right.columns);
    if depth <= LONG {
        return matrix_product(a, &PackedB::whole(isa, right), start, Activation::Linear, out);
    }
    let rows = Matrix::new(a, out.len() / columns.max(1), depth);
    // SAFETY: dense rows of `columns` elements.
    unsafe { product(&rows, &PackedB::new(isa, right), start, Activation::Linear, &Dense(columns), out) }
}

/// C [rows, columns] = then(A [rows, depth]·B + start), with B [`PackedB::whole`].
pub fn matrix_product(a: &[f32], right: &PackedB, start: Init, activation: Activation, out: &mut [f32]) {
    if out.is_empty() {
        return;
    }
    let rows = out.len() / right.columns;
    let depth = right.depth();
    assert_eq!((rows * right.columns, rows * depth), (out.len(), a.len()));
    assert_eq!(right.blocks.len(), 1);
    let panels = right.panels();
    let block = even_blocks(rows, right.isa.mr());
    let blocks = rows.div_ceil(block);
    // Few rows: more groups than must be, so that there is work for every core.
    let groups = groups(right).max(16 / blocks).min(panels);
    let non_temporal = !start.reads_output() && wants_non_temporal(out, right.columns);
    let shared = Shared::new(out);
    threads::for_each(groups * blocks, |task| {
        let (group, b) = (task / blocks, task % blocks);
        let rows = b * block..rows.min((b + 1) * block);
        let panels = panels * group / groups..panels * (group + 1) / groups;
        let a = &a[rows.start * depth..rows.end * depth];
        // SAFETY: the task's own rows of C.
        let out = unsafe { shared.at(rows.start * right.columns) };
        dispatch(
            right.isa,
            Block { a, right, start, activation, non_temporal, out, rows: rows.len(), panels },
        );
    });
}

/// The same of a few rows of C, on this thread. To `non_temporal`, they are aligned (see
/// [`wants_non_temporal`]) and not read.
pub fn multiply_rows(
    a: &[f32],
    right: &PackedB,
    start: Init,
    activation: Activation,
    non_temporal: bool,
    out: &mut [f32],
) {
    let rows = out.len() / right.columns;
    assert_eq!((rows * right.columns, rows * right.depth()), (out.len(), a.len()));
    assert_eq!(right.blocks.len(), 1);
    let (panels, groups, out) = (right.panels(), groups(right), out.as_mut_ptr());
    for group in 0..groups {
        let panels = panels * group / groups..panels * (group + 1) / groups;
        dispatch(right.isa, Block { a, right, start, activation, non_temporal, out, rows, panels });
    }
}

/// Groups of panels, each of which stays in L2.
fn groups(right: &PackedB) -> usize {
    let fitting = (GROUP_BYTES / (4 * right.width * right.depth().max(1))).max(1);
    right.panels().div_ceil(fitting)
}

/// Some rows of a product, and the columns of some panels.
struct Block<'a> {
    /// These rows of A.
    a: &'a [f32],
    right: &'a PackedB,
    start: Init<'a>,
    activation: Activation,
    non_temporal: bool,
    /// Where these rows of C begin, all columns of them.
    out: *mut f32,
    rows: usize,
    panels: Range<usize>,
}

impl Kernel for Block<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (right, depth) = (self.right, self.right.depth());
        for_each_tile::<V>(
            self.rows,
            #[inline(always)]
            |row, count| {
                let next = self.a.as_ptr().wrapping_add((row + count) * depth);
                // The next tile's `count · depth` floats, shared out among the steps of all panels.
                let ahead_step = count.div_ceil(self.panels.len());
                for panel in self.panels.clone() {
                    let column = panel * right.width;
                    let columns = right.width.min(right.columns - column);
                    let share = (panel - self.panels.start) * ahead_step * depth;
                    let tile = MicroKernel {
                        steps: depth,
                        runs: ONE_RUN,
                        a: self.a[row * depth..].as_ptr(),
                        row_step: depth,
                        k_step: 1,
                        b: right.panel(0, panel).as_ptr(),
                        b_step: 0,
                        columns,
                        start: self.start.of(column..column + columns),
                        activation: self.activation,
                        non_temporal: self.non_temporal,
                        ahead: next.wrapping_add(share),
                        ahead_step,
                    };
                    // SAFETY: A has `count` rows of `depth` floats from `row` on, the panel `depth` rows of
                    // full width; C's rows and columns are this task's alone.
                    unsafe {
                        tile.run_inlined::<V, ANY, B_PACKED>(
                            count,
                            #[inline(always)]
                            |r| self.out.add((row + r) * right.columns + column),
                        )
                    };
                }
            },
        );
    }
}
