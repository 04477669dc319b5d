//! Feature squeezing (Xu, Evans and Qi, NDSS 2018): images that say less leave an attacker less to
//! change.
//!
//! - **Bit depth**: each value is rounded to the nearest of 2ᵇ levels, y = round(x·(2ᵇ − 1)) / (2ᵇ − 1).
//!   Its gradient is zero almost everywhere, which stops no attacker: what is nearly the identity is
//!   given the identity's gradient (straight through; BPDA of Athalye, Carlini and Wagner, ICML 2018).
//!   So it is here.
//! - **Median filter**: each value becomes the median of a window of k×k, k being 2 or 3, each channel
//!   by itself. Beyond the border images are mirrored, their edge included. A window of 3 is centred,
//!   one of 2 reaches up and to the left, and its median is the larger of the two middle values (SciPy's
//!   `median_filter`, which the authors used). The gradient goes to the one pixel that was the median,
//!   of equal ones to the first.
//!
//! Perturbations of many small changes are squeezed well, few large ones by the median; who knows of
//! them needs a little more ε (He et al., WOOT 2017).

use super::{Transform, on_tape};
use crate::backend::cpu::threads;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use std::fmt;
use std::str::FromStr;

/// One way to squeeze.
///
/// ```
/// use atrous::attack::defence::{Squeeze, Transform};
/// use atrous::prelude::*;
///
/// // Two bits are four levels: 0, ⅓, ⅔ and 1.
/// let x = Tensor::from([[[[0.1f32, 0.4, 0.6]]]]);
/// assert_eq!("bits2".parse::<Squeeze>()?.apply(&x)?.to_vec_f64()[0], 0.0);
/// assert!((Squeeze::Bits(2).apply(&x)?.to_vec_f64()[2] - 2.0 / 3.0).abs() < 1e-6);
///
/// // One pixel that stands out is no median.
/// let mut values = [0.5f32; 27];
/// values[12..15].fill(1.0); // the one in the middle of 3×3
/// let x = Tensor::from_slice(&values, [1, 3, 3, 3])?;
/// assert_eq!(Squeeze::Median(3).apply(&x)?.to_vec_f64(), [0.5; 27]);
/// assert_eq!(Squeeze::PHOTOGRAPHS[1].name(), "median2");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squeeze {
    /// 1 to 8 bits a value.
    Bits(u32),
    /// A median over windows of this side: 2 or 3.
    Median(usize),
}

impl Squeeze {
    /// What the authors joined for photographs: 5 bits and a median of 2×2 (their third, non-local
    /// means, is not here).
    pub const PHOTOGRAPHS: [Squeeze; 2] = [Squeeze::Bits(5), Squeeze::Median(2)];

    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Squeeze::Bits(bits) if !(1..=8).contains(&bits) => {
                Err(Error::argument("bit_depth", format!("expected 1 to 8 bits, got {bits}")))
            }
            Squeeze::Median(size) if !(2..=3).contains(&size) => {
                Err(Error::argument("median", format!("expected a window of 2 or 3, got {size}")))
            }
            _ => Ok(()),
        }
    }
}

impl Transform for Squeeze {
    fn name(&self) -> String {
        self.to_string()
    }

    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match *self {
            Squeeze::Bits(bits) => bit_depth(x, bits),
            Squeeze::Median(size) => median(x, size),
        }
    }
}

/// `bits5`, `median2`
impl fmt::Display for Squeeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Squeeze::Bits(bits) => write!(f, "bits{bits}"),
            Squeeze::Median(size) => write!(f, "median{size}"),
        }
    }
}

impl FromStr for Squeeze {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || {
            let message = format!("expected `bits1` to `bits8`, `median2` or `median3`, got `{name}`");
            Error::argument("squeeze", message)
        };
        let squeeze = match (name.strip_prefix("bits"), name.strip_prefix("median")) {
            (Some(bits), _) => Squeeze::Bits(bits.parse().map_err(|_| unknown())?),
            (_, Some(size)) => Squeeze::Median(size.parse().map_err(|_| unknown())?),
            _ => return Err(unknown()),
        };
        squeeze.check().map_err(|_| unknown())?;
        Ok(squeeze)
    }
}

/// Images [N, H, W, 3] of 0 to 1 rounded to 2ᵇ levels, b from 1 to 8; the gradient passes straight
/// through.
fn bit_depth(x: &Tensor, bits: u32) -> Result<Tensor> {
    Squeeze::Bits(bits).check()?;
    let levels = ((1u32 << bits) - 1) as f32;
    on_tape("bit_depth", x, |x, _| {
        let y = x.iter().map(|v| (v * levels).round() / levels).collect();
        (y, |g: &[f32]| g.to_vec())
    })
}

/// The median of each window of `size`×`size` (2 or 3) of images [N, H, W, 3].
fn median(x: &Tensor, size: usize) -> Result<Tensor> {
    Squeeze::Median(size).check()?;
    on_tape("median", x, |x, [_, h, w, _]| {
        let each = h * w * 3;
        // For each value the one of its image that it takes over.
        let mut from = vec![0u32; x.len()];
        threads::for_each_chunk(&mut from, each.max(1), |i, from| {
            let x = &x[i * each..][..each];
            let mut window = Vec::with_capacity(size * size);
            for (at, from) in from.iter_mut().enumerate() {
                let (row, column, channel) = (at / (w * 3), at / 3 % w, at % 3);
                window.clear();
                for i in 0..size * size {
                    let y = mirrored(row as isize + (i / size) as isize - (size / 2) as isize, h);
                    let x = mirrored(column as isize + (i % size) as isize - (size / 2) as isize, w);
                    window.push((y * w + x) * 3 + channel);
                }
                // A stable sort: of equal values the first of the window comes first.
                window.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
                *from = window[size * size / 2] as u32;
            }
        });
        let start = move |i: usize| i / each.max(1) * each;
        let y = from.iter().enumerate().map(|(i, &at)| x[start(i) + at as usize]).collect();
        let backward = move |g: &[f32]| {
            let mut gradient = vec![0.0; g.len()];
            for (i, (&at, g)) in from.iter().zip(g).enumerate() {
                gradient[start(i) + at as usize] += g;
            }
            gradient
        };
        (y, backward)
    })
}

/// The pixel that stands at a place just outside 0..n: the image seen in a mirror at its edge.
fn mirrored(at: isize, n: usize) -> usize {
    let n = n as isize;
    let inside = if at < 0 {
        -1 - at
    } else if at >= n {
        2 * n - 1 - at
    } else {
        at
    };
    inside as usize
}

#[cfg(test)]
mod tests {
    use super::super::toy::{check_gradient, random};
    use super::*;

    fn plane(values: &[f32], h: usize, w: usize) -> Tensor {
        let all: Vec<f32> = values.iter().flat_map(|&v| [v, v + 0.01, 1.0 - v]).collect();
        Tensor::from_slice(&all, [1, h, w, 3]).unwrap()
    }

    #[test]
    fn bits_are_the_nearest_of_evenly_spaced_levels() {
        let x = random([2, 5, 4, 3], 1);
        for bits in 1..=8 {
            let y = bit_depth(&x, bits).unwrap();
            let steps = (1 << bits) - 1;
            for (&x, &y) in x.values::<f32>().iter().zip(y.values::<f32>()) {
                let nearest = (0..=steps)
                    .map(|level| level as f32 / steps as f32)
                    .min_by(|a, b| (a - x).abs().total_cmp(&(b - x).abs()))
                    .unwrap();
                assert!((y - nearest).abs() < 1e-6, "{bits} bits of {x}: {y}, not {nearest}");
            }
        }
        // Eight bits are what an image file has.
        let bytes: Vec<f32> = (0..48).map(|i| (i * 5) as f32 / 255.0).collect();
        let bytes = Tensor::from_slice(&bytes, [1, 4, 4, 3]).unwrap();
        assert_eq!(bit_depth(&bytes, 8).unwrap().to_vec_f64(), bytes.to_vec_f64());
    }

    #[test]
    fn the_gradient_of_bits_passes_straight_through() {
        let x = random([1, 3, 3, 3], 2).leaf();
        let g = random([1, 3, 3, 3], 3);
        let y = bit_depth(&x, 3).unwrap();
        let gradient = y.backward_from(g.clone()).unwrap().take(&x).unwrap();
        assert_eq!(gradient.to_vec_f64(), g.to_vec_f64());
    }

    #[test]
    fn the_median_is_that_of_a_naive_definition() {
        for size in [2, 3] {
            for [h, w] in [[4, 5], [1, 3], [2, 2]] {
                let x = random([2, h, w, 3], 4);
                let y = median(&x, size).unwrap();
                let (x, y) = (x.values::<f32>(), y.values::<f32>());
                let reach = size as isize / 2;
                for n in 0..2 {
                    for i in 0..h * w * 3 {
                        let (row, column, c) = (i / 3 / w, i / 3 % w, i % 3);
                        let mut all = Vec::new();
                        for dy in -reach..size as isize - reach {
                            for dx in -reach..size as isize - reach {
                                let edge = |at: isize, n: usize| at.clamp(0, n as isize - 1) as usize;
                                // One pixel beyond the edge the mirror shows the edge.
                                let (r, k) = (edge(row as isize + dy, h), edge(column as isize + dx, w));
                                all.push(x[((n * h + r) * w + k) * 3 + c]);
                            }
                        }
                        all.sort_by(f32::total_cmp);
                        assert_eq!(y[n * h * w * 3 + i], all[size * size / 2]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_median_takes_single_pixels_away_and_keeps_edges() {
        let dot = plane(&[0.2, 0.2, 0.2, 0.2, 0.9, 0.2, 0.2, 0.2, 0.2], 3, 3);
        let y = median(&dot, 3).unwrap();
        assert!(y.values::<f32>().chunks_exact(3).all(|pixel| pixel == [0.2, 0.2 + 0.01, 1.0 - 0.2]));
        let edge = plane(&[0.1, 0.1, 0.7, 0.7, 0.1, 0.1, 0.7, 0.7, 0.1, 0.1, 0.7, 0.7], 3, 4);
        assert_eq!(median(&edge, 3).unwrap().to_vec_f64(), edge.to_vec_f64());
    }

    #[test]
    fn the_gradient_of_a_median_is_that_of_finite_differences() {
        // All values apart by more than twice the step: no median changes its pixel.
        for (size, n) in [(2, 60), (3, 75)] {
            let values: Vec<f32> = (0..n).map(|i| ((i * 37) % n) as f32 / n as f32).collect();
            let x = Tensor::from_slice(&values, [1, 5, n / 15, 3]).unwrap();
            check_gradient(&x, 0.004, 1e-3, |x| median(x, size));
        }
    }

    #[test]
    fn of_equal_pixels_the_first_of_the_window_has_the_gradient() {
        let x = Tensor::full([1, 3, 3, 3], 0.5).leaf();
        let y = median(&x, 3).unwrap();
        let mut up = vec![0.0f32; 27];
        up[12] = 1.0; // The middle: its window is all nine pixels, its median the fifth of them.
        let gradient = y.backward_from(Tensor::from_slice(&up, [1, 3, 3, 3]).unwrap()).unwrap();
        assert_eq!(gradient.get(&x).unwrap().values::<f32>()[12], 1.0);
    }

    #[test]
    fn names_round_trip_and_what_makes_no_sense_is_refused() {
        for squeeze in [Squeeze::Bits(5), Squeeze::Median(2)] {
            assert_eq!(squeeze.to_string().parse::<Squeeze>().unwrap(), squeeze);
        }
        for bad in ["bits0", "bits9", "median4", "medianx", "blur"] {
            assert!(bad.parse::<Squeeze>().unwrap_err().to_string().contains(bad));
        }
        let x = Tensor::zeros([1, 2, 2, 3]);
        assert!(bit_depth(&x, 0).unwrap_err().to_string().contains("1 to 8 bits, got 0"));
        assert!(median(&x, 5).unwrap_err().to_string().contains("2 or 3, got 5"));
        assert!(median(&Tensor::zeros([2, 2, 3]), 3).unwrap_err().to_string().contains("[N, H, W, 3]"));
        let f64 = Tensor::from_slice(&[0.0f64; 12], [1, 2, 2, 3]).unwrap();
        assert!(bit_depth(&f64, 4).unwrap_err().to_string().contains("F32"));
    }
}
