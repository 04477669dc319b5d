//! Where the windows of convolutions and pools lie along an axis: TensorFlow's two rules.
//!
//! With n cells, a window that spans k cells (dilation included) and stride s:
//!
//! | rule  | windows        | padded cells                                                  |
//! |-------|----------------|---------------------------------------------------------------|
//! | valid | ⌊(n − k)/s⌋ + 1 | none                                                         |
//! | same  | ⌈n/s⌉          | max((windows − 1)·s + k − n, 0), the odd one after the last cell |
//!
//! and what a ZeroPadding2D in front of a valid convolution comes to: so many cells before and after, said
//! outright.

use crate::error::{Error, Result};

/// The rule for an axis' ends; both axes of an image have the same.
///
/// ```
/// use atrous::ops::Padding;
///
/// // 7 cells, a window of 3, stride 2: (windows, cells before the first, cells after the last)
/// assert_eq!(Padding::Valid.resolve(7, 3, 2)?, (3, 0, 0));
/// assert_eq!(Padding::Same.resolve(7, 3, 2)?, (4, 1, 1));
/// assert_eq!(Padding::Same.resolve(8, 3, 2)?, (4, 0, 1)); // an odd one comes after the last
/// assert_eq!(Padding::Cells([1, 0]).resolve(8, 3, 2)?.0, 4);
/// assert!(Padding::Valid.resolve(2, 3, 1).is_err()); // no window fits
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Zeros around the input, so that stride 1 keeps its size; an odd one goes after, as TensorFlow's.
    Same,
    /// No padding: only windows that lie within the input, and cells that fill none are dropped.
    Valid,
    /// Cells [before the first, after the last] of each axis; then as `Valid`.
    Cells([usize; 2]),
}

/// What a window, a stride or a padded axis may be at most: what devices count in, and beyond any image.
/// Offsets that kernels make of them and of a tensor's axes stay far from where whole numbers end.
const LARGEST: usize = i32::MAX as usize;

/// The length of an axis with cells before and after it.
pub(crate) fn padded(n: usize, [before, after]: [usize; 2]) -> Result<usize> {
    let length = n.checked_add(before).and_then(|length| length.checked_add(after));
    length.filter(|&length| length <= LARGEST || before + after == 0).ok_or_else(|| {
        let message = format!("expected at most {LARGEST} cells, got {before} + {n} + {after}");
        Error::argument("padding", message)
    })
}

/// What a kernel of so many taps spans where they are `dilation` cells apart.
pub(crate) fn span(kernel: usize, dilation: usize) -> Result<usize> {
    let span = kernel
        .checked_sub(1)
        .filter(|_| (1..=LARGEST).contains(&dilation))
        .and_then(|gaps| gaps.checked_mul(dilation));
    span.filter(|&span| span < LARGEST).map(|span| span + 1).ok_or_else(|| {
        let message = format!(
            "expected a kernel and a dilation above 0 that span at most {LARGEST} cells, got {kernel} and {dilation}"
        );
        Error::argument("padding", message)
    })
}

impl Padding {
    /// (number of windows, padded cells before the first cell, padded cells after the last one).
    pub fn resolve(self, n: usize, window: usize, stride: usize) -> Result<(usize, usize, usize)> {
        if n == 0 || window == 0 || stride == 0 {
            return Err(Error::argument(
                "padding",
                format!("expected cells, window and stride above 0, got {n}, {window} and {stride}"),
            ));
        }
        if window > LARGEST || stride > LARGEST {
            return Err(Error::argument(
                "padding",
                format!(
                    "expected a window and a stride of at most {LARGEST} cells, got {window} and {stride}"
                ),
            ));
        }
        match self {
            Padding::Same => {
                let windows = n.div_ceil(stride);
                // The last window begins before the axis ends.
                let total = ((windows - 1) * stride + window).saturating_sub(n);
                Ok((windows, total / 2, total - total / 2))
            }
            Padding::Valid if n < window => Err(Error::argument(
                "padding",
                format!("`valid` needs at least as many cells as the window spans: {window}, got {n}"),
            )),
            Padding::Valid => Ok(((n - window) / stride + 1, 0, 0)),
            Padding::Cells([before, after]) => {
                let (windows, ..) =
                    Padding::Valid.resolve(padded(n, [before, after])?, window, stride)?;
                Ok((windows, before, after))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_puts_the_odd_cell_after_and_depends_on_parity() {
        let same = |n, k, s| Padding::Same.resolve(n, k, s).unwrap();
        assert_eq!((same(8, 3, 2), same(7, 3, 2)), ((4, 0, 1), (4, 1, 1)));
        assert_eq!((same(8, 1, 2), same(6, 2, 1)), ((4, 0, 0), (6, 0, 1)));
        assert_eq!((same(14, 37, 1), same(9, 2, 4)), ((14, 18, 18), (3, 0, 1)));
    }

    #[test]
    fn cells_are_as_a_padded_input() {
        let cells = |n, k, s, c| Padding::Cells(c).resolve(n, k, s).unwrap();
        assert_eq!((cells(56, 3, 2, [1, 1]), cells(7, 3, 2, [0, 1])), ((28, 1, 1), (3, 0, 1)));
        assert!(Padding::Cells([1, 0]).resolve(2, 5, 1).is_err());
    }

    #[test]
    fn valid_drops_what_does_not_fill_a_window_and_refuses_a_too_small_input() {
        assert_eq!(Padding::Valid.resolve(9, 3, 2).unwrap(), (4, 0, 0));
        assert_eq!(Padding::Valid.resolve(10, 3, 2).unwrap(), (4, 0, 0));
        let error = Padding::Valid.resolve(2, 3, 1).unwrap_err().to_string();
        assert!(error.contains("`valid`") && error.contains("3, got 2"), "{error}");
        assert!(Padding::Same.resolve(4, 3, 0).is_err());
    }
}
