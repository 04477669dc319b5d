//! Lengths of axes.

use std::fmt;
use std::ops::Deref;

pub const MAX_RANK: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    axes: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    pub fn new(axes: &[usize]) -> Self {
        assert!(axes.len() <= MAX_RANK, "a tensor has at most {MAX_RANK} axes, got {axes:?}");
        let mut shape = Shape { axes: [1; MAX_RANK], rank: axes.len() };
        shape.axes[..axes.len()].copy_from_slice(axes);
        shape
    }

    /// Number of elements; 1 for a scalar (no axes).
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Length of the last axis (channels, classes); 1 for a scalar.
    pub fn last_axis(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.axes[..self.rank]
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(axes: [usize; N]) -> Self {
        Shape::new(&axes)
    }
}

impl From<&[usize]> for Shape {
    fn from(axes: &[usize]) -> Self {
        Shape::new(axes)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.iter().map(usize::to_string).collect();
        write!(f, "[{}]", axes.join("×"))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
