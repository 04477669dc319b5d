//! The naive references.

use crate::ops::pool::Position;
use crate::ops::pool::windows::{Cells, Windows};
use crate::pool::Buffer;
use crate::tensor::{Real, Tensor};

impl Windows {
    pub(super) fn max_reference<T: Real, P: Position>(&self, x: &[T]) -> (Tensor, Buffer<P>) {
        let n = self.output_shape().iter().product();
        let (mut out, mut positions) = (Buffer::<T>::new(n), Buffer::<P>::new(n));
        self.for_each_window(|n, oy, ox, o| {
            let cells = self.cells(oy, ox);
            for c in 0..self.channels {
                let mut best = x[self.at(n, cells.rows.start, cells.columns.start) + c];
                let mut position = cells.first;
                for (ky, y) in cells.rows.clone().enumerate() {
                    for (kx, x_) in cells.columns.clone().enumerate() {
                        let value = x[self.at(n, y, x_) + c];
                        if value > best {
                            (best, position) = (value, cells.first + ky * self.pool[1] + kx);
                        }
                    }
                }
                (out[o + c], positions[o + c]) = (best, P::from_usize(position));
            }
        });
        (Tensor::from_buffer(out, self.output_shape()), positions)
    }

    pub(super) fn max_reference_backward<T: Real, P: Position>(
        &self,
        positions: &[P],
        g: &[T],
    ) -> Tensor {
        let mut d = Buffer::filled(self.input_shape().iter().product(), T::ZERO);
        self.for_each_window(|n, oy, ox, o| {
            for c in 0..self.channels {
                let position = positions[o + c].to_usize();
                let y = oy * self.stride[0] + position / self.pool[1] - self.before[0];
                let x = ox * self.stride[1] + position % self.pool[1] - self.before[1];
                d[self.at(n, y, x) + c] += g[o + c];
            }
        });
        Tensor::from_buffer(d, self.input_shape())
    }

    pub(super) fn average_reference<T: Real>(&self, x: &[T]) -> Tensor {
        let mut out = Buffer::filled(self.output_shape().iter().product(), T::ZERO);
        self.for_each_window(|n, oy, ox, o| {
            let Cells { rows, columns, .. } = self.cells(oy, ox);
            let count = T::from_f64((rows.len() * columns.len()) as f64);
            for c in 0..self.channels {
                let cells = rows.clone().flat_map(|y| columns.clone().map(move |x| (y, x)));
                out[o + c] = cells.map(|(y, x_)| x[self.at(n, y, x_) + c]).sum::<T>() / count;
            }
        });
        Tensor::from_buffer(out, self.output_shape())
    }

    pub(super) fn average_reference_backward<T: Real>(&self, g: &[T]) -> Tensor {
        let mut d = Buffer::filled(self.input_shape().iter().product(), T::ZERO);
        self.for_each_window(|n, oy, ox, o| {
            let Cells { rows, columns, .. } = self.cells(oy, ox);
            let count = T::from_f64((rows.len() * columns.len()) as f64);
            for y in rows {
                for x in columns.clone() {
                    for c in 0..self.channels {
                        d[self.at(n, y, x) + c] += g[o + c] / count;
                    }
                }
            }
        });
        Tensor::from_buffer(d, self.input_shape())
    }
}
