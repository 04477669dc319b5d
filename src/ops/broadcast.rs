//! How two tensors are laid over each other, as in NumPy.
//!
//! Axes are matched from the last one on; where one operand has length 1 (or no such axis), its element is
//! used all along the other's.

use crate::error::{Error, Result};
use crate::tensor::{MAX_RANK, Real, Shape};
use std::ops::Range;

/// How two operands are laid over each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broadcast {
    /// The result's.
    pub shape: Shape,
    /// Lengths of axes, neighbours along which both operands run on (or stay where they are) as one.
    pub sizes: [usize; MAX_RANK],
    /// Elements from one place along an axis to the next, in a and in b: 0 where the operand is broadcast.
    pub strides: [[usize; MAX_RANK]; 2],
}

impl Broadcast {
    pub fn new(op: &'static str, a: Shape, b: Shape) -> Result<Self> {
        let rank = a.len().max(b.len());
        let (long_a, long_b) = (right_aligned(a), right_aligned(b));
        let mut lengths = [1; MAX_RANK];
        for (length, (&a_length, &b_length)) in lengths.iter_mut().zip(long_a.iter().zip(&long_b)) {
            *length = match (a_length, b_length) {
                (1, other) | (other, 1) => other,
                (one, other) if one == other => one,
                _ => {
                    let rule = "axes, from the last one on, equal or 1";
                    return Err(Error::shape(
                        op,
                        format!("a right operand that broadcasts with {a} ({rule})"),
                        b,
                    ));
                }
            };
        }
        let shape = Shape::checked(&lengths[MAX_RANK - rank..])?;
        let (mut sizes, mut strides) = ([1; MAX_RANK], [[0; MAX_RANK]; 2]);
        // From the last axis on: `to` is the one in hand, and what an operand has moved on by at its end.
        let (mut to, mut steps) = (MAX_RANK, [1, 1]);
        for axis in (0..MAX_RANK).rev().filter(|&axis| lengths[axis] != 1) {
            let moves = [long_a[axis] != 1, long_b[axis] != 1];
            let goes_on = to < MAX_RANK && (0..2).all(|k| moves[k] == (strides[k][to] > 0));
            if !goes_on {
                to -= 1;
                (0..2).for_each(|k| strides[k][to] = if moves[k] { steps[k] } else { 0 });
            }
            sizes[to] *= lengths[axis];
            (0..2).filter(|&k| moves[k]).for_each(|k| steps[k] *= lengths[axis]);
        }
        Ok(Broadcast { shape, sizes, strides })
    }

    /// Where the operands of element i of the result are.
    #[inline(always)]
    pub fn offsets(&self, i: usize) -> [usize; 2] {
        let (mut rest, mut offsets) = (i, [0; 2]);
        for axis in (0..MAX_RANK).rev() {
            let place = rest % self.sizes[axis];
            rest /= self.sizes[axis];
            (0..2).for_each(|k| offsets[k] += place * self.strides[k][axis]);
        }
        offsets
    }

    /// Cuts `length` elements of the result, from `first` on, where the last axis ends: calls `row(range, a,
    /// b)` with a range of those elements and where their operands begin.
    #[inline(always)]
    pub fn rows(&self, first: usize, length: usize, mut row: impl FnMut(Range<usize>, [usize; 2])) {
        const LAST: usize = MAX_RANK - 1;
        let inner = self.sizes[LAST];
        let mut column = first % inner;
        let mut starts = self.offsets(first - column);
        let (mut place, mut rest) = ([0; LAST], first / inner);
        for axis in (0..LAST).rev() {
            place[axis] = rest % self.sizes[axis];
            rest /= self.sizes[axis];
        }
        let mut at = 0;
        while at < length {
            let end = length.min(at + inner - column);
            row(at..end, [0, 1].map(|k| starts[k] + column * self.strides[k][LAST]));
            (at, column) = (end, 0);
            // The next row, counted up: a division a row would take longer than a short row.
            for axis in (0..LAST).rev() {
                place[axis] += 1;
                (0..2).for_each(|k| starts[k] += self.strides[k][axis]);
                if place[axis] < self.sizes[axis] {
                    break;
                }
                place[axis] = 0;
                (0..2).for_each(|k| starts[k] -= self.sizes[axis] * self.strides[k][axis]);
            }
        }
    }

    /// The operands of `length` elements that begin at `offset` of `values` and lie along the last axis.
    #[inline(always)]
    pub fn operand<'a, T: Real>(
        &self,
        k: usize,
        values: &'a [T],
        offset: usize,
        length: usize,
    ) -> Row<'a, T> {
        match self.strides[k][MAX_RANK - 1] {
            0 => Row::Same(values[offset]),
            _ => Row::Each(&values[offset..offset + length]),
        }
    }
}

/// Lengths of axes, 1 before the first.
pub(crate) fn right_aligned(shape: Shape) -> [usize; MAX_RANK] {
    let mut axes = [1; MAX_RANK];
    axes[MAX_RANK - shape.len()..].copy_from_slice(&shape);
    axes
}

/// An operand along the last axis.
pub(crate) enum Row<'a, T> {
    Each(&'a [T]),
    Same(T),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_both_operands_run_along_are_one_axis() {
        let of = |a: &[usize], b: &[usize]| {
            let laid = Broadcast::new("add", Shape::of(a), Shape::of(b)).unwrap();
            (laid.sizes, laid.strides)
        };
        assert_eq!(of(&[2, 3, 4], &[2, 3, 4]), ([1, 1, 1, 24], [[0, 0, 0, 1], [0, 0, 0, 1]]));
        assert_eq!(of(&[2, 3, 4], &[4]), ([1, 1, 6, 4], [[0, 0, 4, 1], [0, 0, 0, 1]]));
        assert_eq!(of(&[2, 3, 4, 5], &[2, 1, 1, 5]), ([1, 2, 12, 5], [[0, 60, 5, 1], [0, 5, 0, 1]]));
        assert_eq!(of(&[2, 1], &[1, 3]), ([1, 1, 2, 3], [[0, 0, 1, 0], [0, 0, 0, 1]]));
        assert_eq!(of(&[], &[1, 1]), ([1; 4], [[0; 4]; 2]));
    }
}
