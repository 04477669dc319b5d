//! The CPU's kernels. Vectors run along the channels, threads over rows.
//!
//! 3×3 windows of stride 1 and 2 go a block of pixels at a time: a block's windows overlap, so that 4
//! outputs of stride 1 need 18 pixels of x instead of 36, and its 9 weights are loaded once. With AVX-512
//! that is 27 loads for 36 multiply-adds: the multipliers bind, well above the speed of memory. Weights lie
//! vector by vector, each vector's taps one after the other: a block's addresses are few enough for the
//! registers.
//!
//! Rows are gone through in strips, so narrow that a window's three rows stay in L1 until the next row of
//! outputs reads them again. The strip's next row is asked for meanwhile: memory is far, and the processor's
//! own guess ends where the strip does.
//!
//! All gradients are one pass. ∂x at pixel i is Σₖ wₖ·g(i − k), and pixel i's share of ∂wₖ is x(i)·g(i − k):
//! the same gradients, read once for both; ∂b sums them while they are in cache.
//!
//! Other windows, and pixels at the edges, go tap by tap.

mod forward;
mod gradients;

pub use forward::{ByRows, forward};
pub use gradients::gradients;

use crate::backend::cpu::threads;
use crate::pool::Buffer;
use std::ops::Range;

/// Outputs, or pixels of ∂x, a block. With the 9 weights (and, backward, 9 sums) they fit AVX-512's
/// registers.
const BLOCK: usize = 4;

/// Floats a task: a mebibyte, so that little is read again at the seams.
const TASK: usize = 4 * threads::GRAIN_SIZE;

/// Rows a task, of `count` with `width` floats each: about `floats` of them; fewer where there are few, to
/// share them out.
fn rows(count: usize, width: usize, floats: usize) -> usize {
    (floats / width.max(1)).clamp(1, count.div_ceil(16).max(1))
}

/// Cuts a row of `width` pixels of `channels` floats into strips of whole blocks, `block` pixels each; what
/// is outside `blocks` goes with the first and the last.
fn strips(
    width: usize,
    blocks: &Range<usize>,
    block: usize,
    channels: usize,
) -> impl Iterator<Item = Range<usize>> + use<> {
    /// Floats of a strip's row: three of them, and three of what is made, are half of L1.
    const STRIP: usize = 2048;
    let pixels = (STRIP / (block * channels).max(1)).max(1) * block;
    let (first, count) = (blocks.start, blocks.len().div_ceil(pixels).max(1));
    (0..count).map(move |i| {
        let start = if i == 0 { 0 } else { first + i * pixels };
        let end = if i + 1 == count { width } else { first + (i + 1) * pixels };
        start..end
    })
}

/// [taps, C] as [C / lanes, taps, lanes], zeros past the last channel.
fn pack(values: &[f32], channels: usize, lanes: usize) -> Buffer<f32> {
    let taps = values.len() / channels.max(1);
    let mut packed = Buffer::filled(channels.div_ceil(lanes) * taps * lanes, 0.0);
    for (tap, values) in values.chunks_exact(channels.max(1)).enumerate() {
        for (vector, values) in values.chunks(lanes).enumerate() {
            packed[(vector * taps + tap) * lanes..][..values.len()].copy_from_slice(values);
        }
    }
    packed
}

/// The way back of [`pack`].
fn unpack(packed: &[f32], taps: usize, channels: usize, lanes: usize) -> Buffer<f32> {
    let mut values = Buffer::new(taps * channels);
    for (tap, values) in values.chunks_exact_mut(channels.max(1)).enumerate() {
        for (vector, values) in values.chunks_mut(lanes).enumerate() {
            values.copy_from_slice(&packed[(vector * taps + tap) * lanes..][..values.len()]);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_has_a_way_back() {
        for (taps, channels, lanes) in [(9, 35, 16), (9, 32, 8), (25, 3, 8), (9, 0, 8)] {
            let values: Vec<f32> = (0..taps * channels).map(|i| i as f32 + 1.0).collect();
            let packed = pack(&values, channels, lanes);
            assert_eq!(&unpack(&packed, taps, channels, lanes)[..], &values[..]);
            assert_eq!(packed.iter().filter(|&&value| value != 0.0).count(), values.len());
        }
    }

    #[test]
    fn strips_cover_a_row_once_and_cut_no_block() {
        for (width, blocks) in [(64, 1..63), (14, 1..13), (7, 0..0), (1, 1..1), (300, 2..298)] {
            let strips: Vec<_> = strips(width, &blocks, 4, 200).collect();
            assert_eq!((strips[0].start, strips[strips.len() - 1].end), (0, width));
            for pair in strips.windows(2) {
                assert_eq!(pair[0].end, pair[1].start);
                assert!((pair[1].start - blocks.start).is_multiple_of(4));
            }
        }
    }
}
