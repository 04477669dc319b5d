//! Where the windows lie.

use crate::backend::cpu::threads;
use crate::error::{Error, Result};
use crate::ops::pool::{PoolOptions, image};
use crate::tensor::{Shape, Tensor};
use std::ops::Range;

/// The geometry: [height, width] each.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) input: [usize; 2],
    pub(super) output: [usize; 2],
    pub(super) pool: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) before: [usize; 2],
}

/// The real cells of one window: input rows and columns, and the position of the first of them
/// in the whole window.
#[derive(Clone)]
pub(super) struct Cells {
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) first: usize,
}

impl Windows {
    pub(super) fn of(op: &'static str, x: &Tensor, options: PoolOptions) -> Result<Self> {
        let [batch, h, w, channels] = image(op, x)?;
        let PoolOptions { pool, stride, padding } = options;
        let (oh, top, _) = padding.resolve(h, pool[0], stride[0])?;
        let (ow, left, _) = padding.resolve(w, pool[1], stride[1])?;
        let (input, output, before) = ([h, w], [oh, ow], [top, left]);
        Shape::checked(&[batch, oh, ow, channels])?;
        // A cell's place in its window is kept in 32 bits.
        if pool[0].checked_mul(pool[1]).is_none_or(|cells| cells > u32::MAX as usize) {
            let message =
                format!("expected windows of at most {} cells, got {}×{}", u32::MAX, pool[0], pool[1]);
            return Err(Error::argument(op, message));
        }
        Ok(Windows { batch, channels, input, output, pool, stride, before })
    }

    pub(super) fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.output[0], self.output[1], self.channels]
    }

    pub(super) fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.input[0], self.input[1], self.channels]
    }

    /// The input cells of the o-th window along an axis, and the first one's place in the window.
    #[inline(always)]
    pub(super) fn cells_along(&self, axis: usize, o: usize) -> (Range<usize>, usize) {
        let (start, before) = (o * self.stride[axis], self.before[axis]);
        let end = (start + self.pool[axis] - before).min(self.input[axis]);
        (start.saturating_sub(before)..end, before.saturating_sub(start))
    }

    #[inline(always)]
    pub(super) fn cells(&self, oy: usize, ox: usize) -> Cells {
        let ((rows, ky), (columns, kx)) = (self.cells_along(0, oy), self.cells_along(1, ox));
        Cells { rows, columns, first: ky * self.pool[1] + kx }
    }

    /// The windows that hold the i-th input cell along an axis.
    #[inline(always)]
    pub(super) fn over(&self, axis: usize, i: usize) -> Range<usize> {
        let (padded, stride) = (i + self.before[axis], self.stride[axis]);
        let first = (padded + 1).saturating_sub(self.pool[axis]).div_ceil(stride);
        first..(padded / stride + 1).min(self.output[axis])
    }

    /// The offset of a cell's channels in the input.
    #[inline(always)]
    pub(super) fn at(&self, n: usize, y: usize, x: usize) -> usize {
        ((n * self.input[0] + y) * self.input[1] + x) * self.channels
    }

    /// Calls `f` with (n, oy, ox) and the offset of its channels in the output.
    pub(super) fn for_each_window(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let [oh, ow] = self.output;
        for i in 0..self.batch * oh * ow {
            f(i / (oh * ow), i / ow % oh, i % ow, i * self.channels);
        }
    }

    /// Rows of the given length to hand to a thread at a time.
    pub(super) fn rows_per_piece(&self, row: usize) -> usize {
        (threads::GRAIN_SIZE / 4 / row.max(1)).max(1)
    }
}
