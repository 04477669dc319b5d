//! Which algorithm a depthwise convolution takes on the CPU, and why. All passes take the same.

use super::DepthwiseGeometry;
use crate::ops::conv2d::Choice;
use std::fmt;

/// How the windows of a channel are read.
///
/// [`choose`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// A block of neighbouring pixels at a time, whose windows overlap (`super::cpu`).
    Sliding,
    /// One tap of one pixel after the other.
    PerTap,
}

impl Algorithm {
    pub(super) fn of(g: &DepthwiseGeometry) -> Self {
        let square = g.stride[0] == g.stride[1];
        match g.kernel == [3, 3] && g.dilation == [1, 1] && square && g.stride[0] <= 2 {
            true => Algorithm::Sliding,
            false => Algorithm::PerTap,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Algorithm::Sliding => "sliding window",
            Algorithm::PerTap => "per tap",
        })
    }
}

/// The algorithm and the reason for it.
///
/// ```
/// use atrous::ops::Conv2dOptions;
/// use atrous::ops::depthwise_conv2d::{Algorithm, DepthwiseGeometry, choose};
///
/// let images = [1, 28, 28, 64].into();
/// let same = Conv2dOptions::default().same();
/// let choice = choose(&DepthwiseGeometry::new(images, [3, 3, 64, 1].into(), same)?);
/// assert_eq!(choice.algorithm, Algorithm::Sliding);
/// assert_eq!(choice.reason, "3×3, stride 1: 4 outputs read 18 pixels for 36");
/// let choice = choose(&DepthwiseGeometry::new(images, [5, 5, 64, 1].into(), same)?);
/// assert_eq!(choice.algorithm.to_string(), "per tap");
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn choose(g: &DepthwiseGeometry) -> Choice<Algorithm> {
    let ([kh, kw], [sy, sx], [dy, dx]) = (g.kernel, g.stride, g.dilation);
    let algorithm = Algorithm::of(g);
    let reason = match algorithm {
        // Three rows of as many pixels as four windows cover.
        Algorithm::Sliding => {
            format!("3×3, stride {sy}: 4 outputs read {} pixels for 36", 3 * (3 * sx + 3))
        }
        Algorithm::PerTap => {
            format!("{kh}×{kw}, stride {sy}×{sx}, dilation {dy}×{dx}: no blocks of pixels for it")
        }
    };
    Choice { algorithm, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Conv2dOptions, Padding};

    #[test]
    fn windows_of_three_slide_and_others_go_tap_by_tap() {
        let choice = |k: usize, stride, dilation| {
            let options = Conv2dOptions { stride, dilation, padding: Padding::Same };
            let g = DepthwiseGeometry::new([1, 9, 9, 4].into(), [k, k, 4, 1].into(), options).unwrap();
            choose(&g)
        };
        for (stride, pixels) in [(1, 18), (2, 27)] {
            let Choice { algorithm, reason } = choice(3, [stride; 2], [1; 2]);
            assert_eq!(algorithm, Algorithm::Sliding);
            assert_eq!(reason, format!("3×3, stride {stride}: 4 outputs read {pixels} pixels for 36"));
        }
        let others =
            [(3, [3; 2], [1; 2]), (3, [1, 2], [1; 2]), (3, [1; 2], [2; 2]), (5, [1; 2], [1; 2])];
        for (k, stride, dilation) in others {
            assert_eq!(choice(k, stride, dilation).algorithm, Algorithm::PerTap);
        }
    }
}
