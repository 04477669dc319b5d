//! Left factors: plain matrices, and the patches of pixels under a convolution's window.

use super::{OutputMap, Rows};
use crate::backend::cpu::simd::Vector;

/// A row-major matrix.
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    depth: usize,
}

impl<'a> Matrix<'a> {
    pub fn new(values: &'a [f32], rows: usize, depth: usize) -> Self {
        assert_eq!(values.len(), rows * depth);
        Matrix { values, rows, depth }
    }
}

impl Rows for Matrix<'_> {
    fn rows(&self) -> usize {
        self.rows
    }
    fn depth(&self) -> usize {
        self.depth
    }
    fn in_place(&self) -> Option<&[f32]> {
        Some(self.values)
    }
    #[inline(always)]
    fn gather<V: Vector>(&self, row: usize, from: usize, out: &mut [f32]) {
        copy::<V>(&self.values[row * self.depth + from..][..out.len()], out);
    }
}

/// The patches of an NHWC image batch: row (n, gy, gx) of the factor is what a window of
/// taps [th, tw] sees, channels last, zero outside the image.
///
/// Tap (ty, tx) of grid point (gy, gx) reads pixel
/// (gy · step + origin + ty · tap_step) on each axis.
#[derive(Clone)]
pub struct Patches<'a> {
    pub x: &'a [f32],
    pub batch: usize,
    /// Height, width and channels of the images.
    pub size: [usize; 2],
    pub channels: usize,
    pub grid: [usize; 2],
    pub step: [usize; 2],
    pub origin: [isize; 2],
    pub taps: [usize; 2],
    pub tap_step: [usize; 2],
}

impl Rows for Patches<'_> {
    fn rows(&self) -> usize {
        self.batch * self.grid[0] * self.grid[1]
    }

    fn depth(&self) -> usize {
        self.taps[0] * self.taps[1] * self.channels
    }

    #[inline(always)]
    fn gather<V: Vector>(&self, row: usize, from: usize, out: &mut [f32]) {
        let [height, width] = self.size;
        let c = self.channels;
        let gx = row % self.grid[1];
        let gy = row / self.grid[1] % self.grid[0];
        let image = row / (self.grid[1] * self.grid[0]) * height * width * c;
        let left = (gx * self.step[1]) as isize + self.origin[1];
        let top = (gy * self.step[0]) as isize + self.origin[0];
        // Where taps are neighbours, a row of taps is one run of memory; else each tap is one.
        let (run_taps, runs) = if self.tap_step[1] == 1 { (self.taps[1], 1) } else { (1, self.taps[1]) };
        let run = run_taps * c;
        let mut index = from / run;
        let mut skip = from % run;
        let mut out = out;
        while !out.is_empty() {
            let n = (run - skip).min(out.len());
            let (piece, rest) = out.split_at_mut(n);
            let y = top + ((index / runs) * self.tap_step[0]) as isize;
            let x = left + ((index % runs) * self.tap_step[1]) as isize;
            if y < 0 || y >= height as isize {
                piece.fill(0.0);
            } else {
                // In floats from the start of the image's row.
                let start = x * c as isize + skip as isize;
                let end = (width * c) as isize;
                let row = &self.x[image + y as usize * width * c..][..width * c];
                if start >= 0 && start + n as isize <= end {
                    copy::<V>(&row[start as usize..start as usize + n], piece);
                } else {
                    let before = (-start).clamp(0, n as isize) as usize;
                    let valid = (end - start).clamp(before as isize, n as isize) as usize;
                    piece[..before].fill(0.0);
                    if valid > before {
                        let at = (start + before as isize) as usize;
                        copy::<V>(&row[at..at + valid - before], &mut piece[before..valid]);
                    }
                    piece[valid..].fill(0.0);
                }
            }
            out = rest;
            index += 1;
            skip = 0;
        }
    }
}

/// Runs are often a few dozen floats: too short for a call into the C library.
#[inline(always)]
fn copy<V: Vector>(from: &[f32], to: &mut [f32]) {
    let n = from.len();
    assert_eq!(n, to.len());
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    let mut i = 0;
    // SAFETY: both slices have n elements and do not overlap (one is borrowed mutably).
    unsafe {
        while i + V::LANES <= n {
            V::load(from.add(i)).store(to.add(i));
            i += V::LANES;
        }
        if i < n {
            V::load_partial(from.add(i), n - i).store_partial(to.add(i), n - i);
        }
    }
}

/// Rows of C that are points of a grid laid over an NHWC output: point (n, gy, gx) is pixel
/// (gy · step + origin) on each axis.
pub struct GridMap {
    pub grid: [usize; 2],
    pub size: [usize; 2],
    pub channels: usize,
    pub step: [usize; 2],
    pub origin: [usize; 2],
}

impl OutputMap for GridMap {
    #[inline(always)]
    fn offset(&self, row: usize) -> usize {
        let gx = row % self.grid[1];
        let gy = row / self.grid[1] % self.grid[0];
        let n = row / (self.grid[1] * self.grid[0]);
        let y = gy * self.step[0] + self.origin[0];
        let x = gx * self.step[1] + self.origin[1];
        ((n * self.size[0] + y) * self.size[1] + x) * self.channels
    }
}
