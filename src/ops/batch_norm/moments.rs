//! Means and variances of channels.
//!
//! Each tile of rows has its own mean and M2 = Σ(x − m)², in two passes over data that is in cache; tiles
//! are merged in order (Chan, Golub and LeVeque, 1979), in f64.
//!
//! An operator that makes its result some rows at a time can hand them over while its core still has them
//! ([`fill`]): the batch norm after it then reads its input once, to normalise it. Tiles are whole rows of
//! pixels, cut alike by both, and so are the bits.

use super::Statistics;
use crate::backend::cpu::simd::{
    self, Isa, Kernel, Vector, dispatch, load, prefetch, store, wants_non_temporal,
};
use crate::backend::cpu::threads;
use crate::pool::Buffer;
use crate::tensor::Shape;

/// What is known of the tiles of a tensor [..., C].
pub struct RunningStats {
    isa: Isa,
    channels: usize,
    /// Vectors of C in the tensor, and in a tile.
    rows: usize,
    tile: usize,
    /// A mean and an M2 of each channel, tile by tile.
    parts: Buffer<f32>,
}

impl RunningStats {
    /// Rows of a tile of a tensor: about 64, which with a thousand channels are 256 KiB and stay in L2
    /// between the two passes over them; whole rows of pixels, where those are not very long.
    pub fn tile(shape: &Shape) -> usize {
        const ROWS: usize = 64;
        let width = if shape.len() > 2 { shape[shape.len() - 2] } else { 1 };
        match width {
            1..=ROWS => ROWS / width * width,
            _ if width > 0 && width <= 16 * ROWS => width,
            _ => ROWS,
        }
    }

    /// Whether tiles of images [N, H, W, C] are whole rows of pixels.
    pub fn tile_is_whole_rows(shape: &Shape) -> bool {
        Self::tile(shape).is_multiple_of(shape[2].max(1))
    }

    /// Of a tensor that is still to be made.
    pub fn new(isa: Isa, shape: Shape) -> Self {
        let (channels, tile) = (shape.last_length(), RunningStats::tile(&shape));
        let rows = shape.elements() / channels.max(1);
        let parts = Buffer::new(rows.div_ceil(tile) * 2 * channels);
        RunningStats { isa, channels, rows, tile, parts }
    }

    /// Of a tensor that is there.
    pub fn of(isa: Isa, x: &[f32], shape: Shape) -> Self {
        let mut moments = RunningStats::new(isa, shape);
        let (channels, size) = (moments.channels, moments.tile * moments.channels);
        assert_eq!(x.len(), moments.rows * channels);
        threads::for_each_chunk(&mut moments.parts, 2 * channels, |tile, part| {
            let x = &x[tile * size..x.len().min((tile + 1) * size)];
            dispatch(isa, Tile { x, part, ahead: size, to: None });
        });
        moments
    }

    pub fn merge(self) -> Statistics {
        let channels = self.channels;
        let (mut n, mut mean, mut m2) = (0.0, vec![0.0f64; channels], vec![0.0f64; channels]);
        for (tile, part) in self.parts.chunks_exact(2 * channels).enumerate() {
            let count = self.tile.min(self.rows - tile * self.tile) as f64;
            let (share, spread) = (count / (n + count), n * count / (n + count));
            let (part_mean, part_m2) = part.split_at(channels);
            simd::vectorize(
                self.isa,
                #[inline(always)]
                || {
                    let sums = mean.iter_mut().zip(&mut m2);
                    for ((mean, m2), (&part_mean, &part_m2)) in sums.zip(part_mean.iter().zip(part_m2)) {
                        let delta = part_mean as f64 - *mean;
                        *mean += delta * share;
                        *m2 += part_m2 as f64 + delta * delta * spread;
                    }
                },
            );
            n += count;
        }
        Statistics { mean, variance: m2.into_iter().map(|m2| m2 / n).collect() }
    }
}

/// Fills a tensor of rows of `channels`: `make(first, non_temporal, rows)` makes as many as there is room
/// for, about `rows` a task, from row `first` on; to `non_temporal`, they are aligned
/// ([`wants_non_temporal`]). With moments, those of each tile are taken as soon as it is there; what is to
/// go past the caches then goes from the ones it is in.
pub fn fill(
    out: &mut [f32],
    channels: usize,
    rows: usize,
    moments: Option<&mut RunningStats>,
    make: impl Fn(usize, bool, &mut [f32]) + Sync + Send,
) {
    let non_temporal = wants_non_temporal(out, channels);
    let Some(moments) = moments else {
        return threads::for_each_chunk(out, rows * channels, |i, out| {
            make(i * rows, non_temporal, out)
        });
    };
    let RunningStats { isa, tile, .. } = *moments;
    assert_eq!((out.len(), channels), (moments.rows * channels, moments.channels));
    let rows = rows.next_multiple_of(tile);
    let parts = rows / tile * 2 * channels;
    threads::for_each_chunks(out, rows * channels, &mut moments.parts, parts, |i, out, parts| {
        let (size, first) = (tile * channels, i * rows);
        let parts = parts.chunks_exact_mut(2 * channels);
        if non_temporal {
            let mut near = Buffer::<f32>::new(out.len());
            make(first, false, &mut near);
            for ((x, part), to) in near.chunks(size).zip(parts).zip(out.chunks_mut(size)) {
                dispatch(isa, Tile { x, part, ahead: 0, to: Some(to) });
            }
        } else {
            make(first, false, out);
            for (x, part) in out.chunks(size).zip(parts) {
                dispatch(isa, Tile { x, part, ahead: 0, to: None });
            }
        }
    });
}

/// Means and Σ(x − m)² of some rows, into [mean, M2].
struct Tile<'a> {
    x: &'a [f32],
    part: &'a mut [f32],
    /// What is that far on is asked for meanwhile; 0 for nothing.
    ahead: usize,
    /// Where the rows go, past the caches.
    to: Option<&'a mut [f32]>,
}

impl Kernel for Tile<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let channels = self.part.len() / 2;
        self.part.fill(0.0);
        let (mean, m2) = self.part.split_at_mut(channels);
        let to = self.to.map(|to| {
            assert_eq!(to.len(), self.x.len());
            to.as_mut_ptr()
        });
        // SAFETY of both passes: n elements from c on of each of the rows' `channels` elements.
        // Four rows at a time: a quarter of the loads and stores of sums.
        let sums = mean.as_mut_ptr();
        for rows in self.x.chunks(4 * channels) {
            for_each_vector!(V, channels, FULL, c, n, unsafe {
                let row = |r: usize| load::<V, FULL>(rows.as_ptr().add(r * channels + c), n);
                let sum = match rows.len() / channels {
                    4 => row(0).add(row(1)).add(row(2).add(row(3))),
                    3 => row(0).add(row(1)).add(row(2)),
                    2 => row(0).add(row(1)),
                    _ => row(0),
                };
                store::<V, FULL>(load::<V, FULL>(sums.add(c), n).add(sum), sums.add(c), n, false);
            });
        }
        let count = (self.x.len() / channels) as f32;
        mean.iter_mut().for_each(|sum| *sum /= count);
        let (mean, m2) = (mean.as_ptr(), m2.as_mut_ptr());
        for (four, rows) in self.x.chunks(4 * channels).enumerate() {
            let to = to.map(|to| to.wrapping_add(four * 4 * channels));
            for_each_vector!(V, channels, FULL, c, n, unsafe {
                let m = load::<V, FULL>(mean.add(c), n);
                let mut sum = load::<V, FULL>(m2.add(c), n);
                for r in 0..rows.len() / channels {
                    let at = rows.as_ptr().add(r * channels + c);
                    // These rows are in cache; meanwhile, the next tile's come.
                    if self.ahead > 0 {
                        prefetch(at.wrapping_add(self.ahead));
                    }
                    let x = load::<V, FULL>(at, n);
                    if let Some(to) = to {
                        store::<V, FULL>(x, to.add(r * channels + c), n, true);
                    }
                    let d = x.sub(m);
                    sum = d.mul_add(d, sum);
                }
                store::<V, FULL>(sum, m2.add(c), n, false);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::supported;
    use crate::context::with_isa;
    use crate::ops::conv2d::{Convolution, conv2d_fused};
    use crate::ops::depthwise_conv2d::depthwise_conv2d_fused;
    use crate::ops::epilogue::{Epilogue, Fused};
    use crate::ops::{Conv2dOptions, Padding, conv2d, depthwise_conv2d};
    use crate::tensor::Tensor;

    fn noise(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| 3.0 + (i as f32 * 0.7).sin()).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    #[test]
    fn tiles_are_whole_rows_of_pixels() {
        let tile = |shape: &[usize]| RunningStats::tile(&Shape::of(shape));
        assert_eq!(tile(&[16, 112, 112, 64]), 112);
        assert_eq!(tile(&[1, 28, 28, 3]), 56);
        assert_eq!(tile(&[1, 7, 300, 3]), 300);
        assert_eq!(tile(&[1, 7, 5000, 3]), 64);
        assert_eq!(tile(&[1000, 3]), 64);
        assert_eq!(tile(&[0, 4, 0, 3]), 64);
    }

    #[test]
    fn statistics_taken_in_passing_are_those_of_a_pass_of_their_own_to_the_bit() {
        // First layers, 1×1 (one whose result goes past the caches) and depthwise; few pixels, and odd ones.
        let convolutions = [
            ([2, 31, 45, 3], [3, 3, 3, 32], 2),
            ([1, 40, 33, 3], [7, 7, 3, 16], 1),
            ([3, 61, 47, 24], [1, 1, 24, 35], 1),
            ([2, 300, 301, 5], [1, 1, 5, 48], 1),
            ([2, 7, 7, 8], [1, 1, 8, 16], 1),
            ([1, 9, 2000, 3], [3, 3, 3, 16], 1),
            ([2, 15, 14, 16], [3, 3, 16, 16], 1),
        ];
        for isa in supported() {
            let options = |stride| Conv2dOptions {
                stride: [stride; 2],
                padding: Padding::Same,
                ..Conv2dOptions::default()
            };
            let mut told = 0;
            let mut check = |Fused { y, statistics }: Fused, expected: Tensor| {
                assert_eq!(y.values::<f32>(), expected.values::<f32>());
                if let Some(Statistics { mean, variance }) = statistics {
                    let apart = RunningStats::of(isa, y.values(), y.shape()).merge();
                    assert_eq!((mean, variance), (apart.mean, apart.variance), "{}", y.shape());
                    told += 1;
                }
            };
            let told_along = || Epilogue { statistics: true, ..Epilogue::default() };
            with_isa(isa, || {
                for (x, w, stride) in convolutions {
                    let (x, w, options) = (noise(&x), noise(&w), options(stride));
                    let expected = conv2d(&x, &w, None, options).unwrap();
                    let convolution = Convolution::new(&w, None, options);
                    check(conv2d_fused(&x, convolution, told_along()).unwrap(), expected);
                }
                for (x, stride) in [([2, 33, 29, 35], 1), ([1, 300, 301, 96], 1), ([3, 40, 41, 16], 2)] {
                    let (x, w, options) = (noise(&x), noise(&[3, 3, x[3], 1]), options(stride));
                    let expected = depthwise_conv2d(&x, &w, None, options).unwrap();
                    let convolution = Convolution::new(&w, None, options);
                    check(depthwise_conv2d_fused(&x, convolution, told_along()).unwrap(), expected);
                }
            });
            // Not those of few pixels, of rows too long for a tile, and of a kernel that does not offer it.
            assert_eq!(told, if isa == Isa::Reference { 0 } else { 7 }, "{isa:?}");
        }
    }

    #[test]
    fn statistics_are_the_textbook_s() {
        let x = noise(&[3, 17, 19, 33]);
        let wide: Vec<f64> = x.to_vec_f64();
        let expected = Statistics::naive::<f64>(&wide, 33);
        for isa in supported() {
            let got = RunningStats::of(isa, x.values(), x.shape()).merge();
            for c in 0..33 {
                assert!((got.mean[c] - expected.mean[c]).abs() < 1e-6 * expected.mean[c].abs());
                assert!((got.variance[c] / expected.variance[c] - 1.0).abs() < 1e-5);
            }
        }
    }
}
