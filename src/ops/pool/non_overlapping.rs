//! The gradient of max pooling where windows lie side by side: a cell is in one window at most, so each is
//! written once, and of each window g and the position of its maximum are read once.

use crate::backend::cpu::simd::{Kernel, Vector, dispatch, store, wants_non_temporal};
use crate::backend::cpu::threads::{self, Shared};
use crate::context::isa;
use crate::ops::pool::windows::Windows;
use crate::pool::Buffer;
use crate::tensor::Tensor;
use std::ops::Range;

impl Windows {
    pub(super) fn are_apart(&self) -> bool {
        self.stride == self.pool && !self.output.contains(&0)
    }

    /// [`Windows::max_backward`] of such windows.
    pub(super) fn max_backward_apart(&self, positions: &[u8], g: &[f32]) -> Tensor {
        let mut out = Buffer::<f32>::new(self.input_shape().iter().product());
        let non_temporal = wants_non_temporal(&out, self.channels);
        assert_eq!((positions.len(), g.len()), (g.len(), self.output_shape().iter().product()));
        let (to, isa) = (Shared::new(&mut out), isa());
        threads::for_each(self.batch * self.output[0], |row| {
            dispatch(isa, Row { windows: *self, positions, g, out: to, non_temporal, row });
        });
        Tensor::from_buffer(out, self.input_shape())
    }
}

/// A row of windows.
struct Row<'a> {
    windows: Windows,
    positions: &'a [u8],
    g: &'a [f32],
    out: Shared<f32>,
    non_temporal: bool,
    row: usize,
}

impl Kernel for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Windows { input: [h, w], output: [oh, ow], pool, channels, .. } = self.windows;
        let (n, oy) = (self.row / oh, self.row % oh);
        let (rows, ky) = self.windows.cells_along(0, oy);
        // One row of cells after the other, though each reads the windows again: they are in cache, and with
        // 3×3 windows both passes take 13 % less than where stores hop between rows (with 2×2 the same).
        let whole = channels / V::LANES * V::LANES;
        for (i, y) in rows.clone().enumerate() {
            for ox in 0..ow {
                let (columns, kx) = self.windows.cells_along(1, ox);
                let window = (self.row * ow + ox) * channels;
                let (g, positions) =
                    (&self.g[window..][..channels], &self.positions[window..][..channels]);
                for (j, x) in columns.enumerate() {
                    let (place, at) = ((ky + i) * pool[1] + kx + j, self.windows.at(n, y, x));
                    for c in (0..whole).step_by(V::LANES) {
                        // SAFETY: inside `dispatch`; whole vectors of the window's channels, and of a cell
                        // of this row of windows, which is this task's alone.
                        unsafe {
                            let (g, here) = (V::load(&g[c]), V::load_bytes(&positions[c]));
                            let d = g
                                .where_less(V::splat(place as f32 - 0.5), here)
                                .where_less(here, V::splat(place as f32 + 0.5));
                            store::<V, true>(d, self.out.at(at + c), V::LANES, self.non_temporal);
                        }
                    }
                    for c in whole..channels {
                        let d = if positions[c] as usize == place { g[c] } else { 0.0 };
                        // SAFETY: as above.
                        unsafe { *self.out.at(at + c) = d };
                    }
                }
            }
        }
        // Cells that no window reached lie behind the last ones.
        let right = self.windows.cells_along(1, ow - 1).0.end;
        for y in rows.clone() {
            self.clear(n, y, right..w);
        }
        if oy + 1 == oh {
            for y in rows.end..h {
                self.clear(n, y, 0..w);
            }
        }
    }
}

impl Row<'_> {
    fn clear(&self, n: usize, y: usize, columns: Range<usize>) {
        if columns.is_empty() {
            return;
        }
        let (at, cells) = (self.windows.at(n, y, columns.start), columns.len());
        // SAFETY: cells of this task's alone.
        unsafe { self.out.at(at).write_bytes(0, cells * self.windows.channels) };
    }
}
