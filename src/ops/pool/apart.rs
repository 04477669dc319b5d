//! The gradient of max pooling where windows lie side by side: a cell is in one window at most, so each is written
//! once, and of each window g and the position of its maximum are read once.

use crate::cpu::simd::{Kernel, Vector, dispatch, isa, store, streams};
use crate::cpu::threads::{self, Shared};
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
        let stream = streams(&out, self.channels);
        assert_eq!((positions.len(), g.len()), (g.len(), self.output_shape().iter().product()));
        let (to, isa) = (Shared::new(&mut out), isa());
        threads::for_each(self.batch * self.output[0], |row| {
            dispatch(isa, Row { windows: *self, positions, g, out: to, stream, row });
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
    stream: bool,
    row: usize,
}

impl Kernel for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Windows { input: [h, w], output: [oh, ow], pool, channels, .. } = self.windows;
        let (n, oy) = (self.row / oh, self.row % oh);
        let (rows, ky) = self.windows.cells_along(0, oy);
        for ox in 0..ow {
            let (columns, kx) = self.windows.cells_along(1, ox);
            let window = (self.row * ow + ox) * channels;
            let (g, positions) = (&self.g[window..][..channels], &self.positions[window..][..channels]);
            let whole = channels / V::LANES * V::LANES;
            for c in (0..whole).step_by(V::LANES) {
                // SAFETY: inside `dispatch`; whole vectors of the window's channels.
                let (g, here) = unsafe { (V::load(&g[c]), V::load_bytes(&positions[c])) };
                for (i, y) in rows.clone().enumerate() {
                    for (j, x) in columns.clone().enumerate() {
                        let place = ((ky + i) * pool[1] + kx + j) as f32;
                        // SAFETY: inside `dispatch`; the cells of this row of windows are this task's alone.
                        unsafe {
                            let at = self.out.at(self.windows.at(n, y, x) + c);
                            let d = g
                                .where_less(V::splat(place - 0.5), here)
                                .where_less(here, V::splat(place + 0.5));
                            store::<V, true>(d, at, V::LANES, self.stream);
                        }
                    }
                }
            }
            for c in whole..channels {
                for (i, y) in rows.clone().enumerate() {
                    for (j, x) in columns.clone().enumerate() {
                        let place = (ky + i) * pool[1] + kx + j;
                        let d = if positions[c] as usize == place { g[c] } else { 0.0 };
                        // SAFETY: as above.
                        unsafe { *self.out.at(self.windows.at(n, y, x) + c) = d };
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
