//! The fast kernels: vectors run over the channels, threads over rows.

use crate::backend::cpu::simd;
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::ops::pool::Position;
use crate::ops::pool::windows::{Cells, Windows};
use crate::pool::Buffer;
use crate::tensor::Tensor;

impl Windows {
    /// Values and positions. Blocks of channels keep both in registers over a window.
    pub(super) fn max<P: Position>(&self, x: &[f32]) -> (Tensor, Buffer<P>) {
        let n = self.output_shape().iter().product();
        let (mut out, mut positions) = (Buffer::<f32>::new(n), Buffer::<P>::new(n));
        let ([oh, ow], channels, isa) = (self.output, self.channels, isa());
        let rows = self.rows_per_piece(ow * channels);
        let size = (rows * (ow * channels)).max(1);
        let mut pieces: Vec<_> = out.chunks_mut(size).zip(positions.chunks_mut(size)).collect();
        threads::for_each_chunk(&mut pieces, 1, |i, pieces| {
            let (out, positions) = &mut pieces[0];
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    let outputs = out.chunks_mut(channels).zip(positions.chunks_mut(channels));
                    for (o, (out, positions)) in outputs.enumerate() {
                        let row = i * rows + o / ow;
                        let (n, cells) = (row / oh, self.cells(row % oh, o % ow));
                        let mut c = 0;
                        while c + 32 <= channels {
                            self.max_of_block::<32, P>(x, n, &cells, c, out, positions);
                            c += 32;
                        }
                        while c + 8 <= channels {
                            self.max_of_block::<8, P>(x, n, &cells, c, out, positions);
                            c += 8;
                        }
                        while c < channels {
                            self.max_of_block::<1, P>(x, n, &cells, c, out, positions);
                            c += 1;
                        }
                    }
                },
            );
        });
        (Tensor::from_buffer(out, self.output_shape()), positions)
    }

    #[inline(always)]
    pub(super) fn max_of_block<const WIDTH: usize, P: Position>(
        &self,
        x: &[f32],
        n: usize,
        cells: &Cells,
        c: usize,
        out: &mut [f32],
        positions: &mut [P],
    ) {
        let start = self.at(n, cells.rows.start, cells.columns.start) + c;
        let mut best: [f32; WIDTH] = std::array::from_fn(|i| x[start + i]);
        let mut position = [cells.first as u32; WIDTH];
        for (ky, y) in cells.rows.clone().enumerate() {
            let start = self.at(n, y, cells.columns.start) + c;
            for kx in 0..cells.columns.len() {
                let values = &x[start + kx * self.channels..][..WIDTH];
                let here = (cells.first + ky * self.pool[1] + kx) as u32;
                for i in 0..WIDTH {
                    let larger = values[i] > best[i];
                    best[i] = if larger { values[i] } else { best[i] };
                    position[i] = if larger { here } else { position[i] };
                }
            }
        }
        out[c..c + WIDTH].copy_from_slice(&best);
        let positions = &mut positions[c..c + WIDTH];
        for i in 0..WIDTH {
            positions[i] = P::from_usize(position[i] as usize);
        }
    }

    /// Values alone, where no gradient will be asked for.
    pub(super) fn max_alone(&self, x: &[f32]) -> Tensor {
        self.fold(x, |a, b| if b > a { b } else { a }, |_| 1.0)
    }

    pub(super) fn average(&self, x: &[f32]) -> Tensor {
        self.fold(x, |a, b| a + b, |count| 1.0 / count as f32)
    }

    /// Combines the cells of every window by `f`, and scales by a function of their number.
    pub(super) fn fold(
        &self,
        x: &[f32],
        f: impl Fn(f32, f32) -> f32 + Sync + Send,
        scale: impl Fn(usize) -> f32 + Sync + Send,
    ) -> Tensor {
        let ([oh, ow], channels, isa) = (self.output, self.channels, isa());
        let rows = self.rows_per_piece(ow * channels);
        let mut out = Buffer::<f32>::new(self.output_shape().iter().product());
        threads::for_each_chunk(&mut out, (rows * (ow * channels)).max(1), |i, out| {
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    for (o, out) in out.chunks_mut(channels).enumerate() {
                        let row = i * rows + o / ow;
                        let (n, cells) = (row / oh, self.cells(row % oh, o % ow));
                        let first = self.at(n, cells.rows.start, cells.columns.start);
                        out.copy_from_slice(&x[first..first + channels]);
                        for y in cells.rows.clone() {
                            for x_ in cells.columns.clone() {
                                let start = self.at(n, y, x_);
                                if start != first {
                                    let cell = &x[start..start + channels];
                                    out.iter_mut().zip(cell).for_each(|(o, &v)| *o = f(*o, v));
                                }
                            }
                        }
                        let scale = scale(cells.rows.len() * cells.columns.len());
                        if scale != 1.0 {
                            out.iter_mut().for_each(|o| *o *= scale);
                        }
                    }
                },
            );
        });
        Tensor::from_buffer(out, self.output_shape())
    }

    pub(super) fn max_backward<P: Position>(&self, positions: &[P], g: &[f32]) -> Tensor {
        let channels = self.channels;
        self.gather(
            #[inline(always)]
            |window, _, position, d| {
                let here = P::from_usize(position);
                let pairs =
                    positions[window..window + channels].iter().zip(&g[window..window + channels]);
                for (d, (&position, &g)) in d.iter_mut().zip(pairs) {
                    *d += if position == here { g } else { 0.0 };
                }
            },
        )
    }

    pub(super) fn average_backward(&self, g: &[f32]) -> Tensor {
        let channels = self.channels;
        self.gather(
            #[inline(always)]
            |window, count, _, d| {
                let scale = 1.0 / count as f32;
                d.iter_mut().zip(&g[window..window + channels]).for_each(|(d, &g)| *d += g * scale);
            },
        )
    }

    /// Calls `f(offset of the window's channels in the output, the window's number of real cells,
    /// position of the cell in the window, gradient of the cell's channels)` for every window over
    /// every cell.
    pub(super) fn gather(&self, f: impl Fn(usize, usize, usize, &mut [f32]) + Sync + Send) -> Tensor {
        let ([h, w], [oh, ow], channels, isa) = (self.input, self.output, self.channels, isa());
        let rows = self.rows_per_piece(w * channels);
        let mut out = Buffer::<f32>::new(self.input_shape().iter().product());
        threads::for_each_chunk(&mut out, (rows * (w * channels)).max(1), |i, out| {
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    for (row, out) in out.chunks_mut(w * channels).enumerate() {
                        let (n, y) = ((i * rows + row) / h, (i * rows + row) % h);
                        out.fill(0.0);
                        for oy in self.over(0, y) {
                            let ky = y + self.before[0] - oy * self.stride[0];
                            let height = self.cells_along(0, oy).0.len();
                            for ox in 0..ow {
                                let (columns, kx) = self.cells_along(1, ox);
                                let (count, position) = (height * columns.len(), ky * self.pool[1] + kx);
                                let window = ((n * oh + oy) * ow + ox) * channels;
                                let cells = &mut out[columns.start * channels..columns.end * channels];
                                for (k, cell) in cells.chunks_mut(channels).enumerate() {
                                    f(window, count, position + k, cell);
                                }
                            }
                        }
                    }
                },
            );
        });
        Tensor::from_buffer(out, self.input_shape())
    }
}
