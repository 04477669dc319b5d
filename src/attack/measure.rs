//! How visible a perturbation is.

use super::ball::Norm;
use crate::error::{Error, Result};

/// How far one image is from its original, both of 0 to 1.
///
/// ```
/// use atrous::attack::Visibility;
///
/// let origin = [0.5; 4 * 4 * 3];
/// let x = origin.map(|v| v + 0.1);
/// let seen = Visibility::of(&x, &origin, 4, 4)?;
/// assert!((seen.linf - 0.1).abs() < 1e-6);
/// assert!((seen.l2 - 0.1 * 48f64.sqrt()).abs() < 1e-5);
/// assert!((seen.psnr.unwrap() - 20.0).abs() < 1e-4); // 10·log₁₀(1 / .01)
/// assert_eq!(Visibility::of(&origin, &origin, 4, 4)?.psnr, None);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(serde::Serialize))]
pub struct Visibility {
    /// The largest change of a value.
    pub linf: f64,
    /// The root of the sum of squared changes.
    pub l2: f64,
    /// Peak signal-to-noise ratio in dB: 10·log₁₀(1 / mean squared change). None where nothing changed.
    pub psnr: Option<f64>,
    /// Structural similarity ([`ssim`]): 1 for the same image.
    pub ssim: f64,
}

impl Visibility {
    /// Measures images [height, width, 3]; an error where they are not of that size.
    pub fn of(x: &[f32], origin: &[f32], height: usize, width: usize) -> Result<Self> {
        let l2 = Norm::L2.of(x, origin);
        let mean_square = l2 * l2 / x.len().max(1) as f64;
        let psnr = (mean_square > 0.0).then(|| -10.0 * mean_square.log10());
        Ok(Visibility {
            linf: Norm::Linf.of(x, origin),
            l2,
            psnr,
            ssim: ssim(x, origin, height, width)?,
        })
    }
}

/// Side and deviation of SSIM's Gaussian window.
const WINDOW: usize = 11;
const DEVIATION: f64 = 1.5;
/// (0.01)² and (0.03)²: they keep quotients of small numbers tame.
const C1: f64 = 1e-4;
const C2: f64 = 9e-4;

/// Structural similarity (Wang, Bovik, Sheikh and Simoncelli, 2004), the mean over the channels and over
/// all windows that lie inside. With the window's means μ, variances σ² and covariance:
///
/// (2μ_xμ_y + C₁)(2σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂))
///
/// Images are [height, width, 3], 0 to 1; an error where they are not of that size. The window is a
/// Gaussian of 11×11 with a deviation of 1.5, or as large as the image where that is smaller.
///
/// ```
/// use atrous::attack::measure::ssim;
///
/// // Images of one grey level have means, .5 and .6, and no variance.
/// let similarity = ssim(&[0.5; 48], &[0.6; 48], 4, 4)?;
/// assert!((similarity - (2.0 * 0.5 * 0.6 + 1e-4) / (0.25 + 0.36 + 1e-4)).abs() < 1e-6);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn ssim(x: &[f32], y: &[f32], height: usize, width: usize) -> Result<f64> {
    if height == 0 || width == 0 || x.len() != height * width * 3 || y.len() != x.len() {
        let got = format!("{} and {}", x.len(), y.len());
        return Err(Error::shape("ssim", format!("two pictures of {height}×{width}×3 values"), got));
    }
    let (rows, columns) = (gaussian(height), gaussian(width));
    let mut sum = 0.0;
    for channel in 0..3 {
        let plane = |of: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
            let pixels = x.chunks_exact(3).zip(y.chunks_exact(3));
            pixels.map(|(x, y)| of(x[channel] as f64, y[channel] as f64)).collect()
        };
        let blurred = |of: &dyn Fn(f64, f64) -> f64| blur(&plane(of), width, &rows, &columns);
        let (mx, my) = (blurred(&|x, _| x), blurred(&|_, y| y));
        let (xx, yy, xy) = (blurred(&|x, _| x * x), blurred(&|_, y| y * y), blurred(&|x, y| x * y));
        let each = (0..mx.len()).map(|i| {
            let (a, b) = (mx[i], my[i]);
            let (vx, vy, cov) = (xx[i] - a * a, yy[i] - b * b, xy[i] - a * b);
            (2.0 * a * b + C1) * (2.0 * cov + C2) / ((a * a + b * b + C1) * (vx + vy + C2))
        });
        sum += each.sum::<f64>() / mx.len() as f64;
    }
    Ok(sum / 3.0)
}

/// The window's weights along one axis; as long as the axis where that is shorter.
fn gaussian(side: usize) -> Vec<f64> {
    let n = WINDOW.min(side);
    let at = |i: usize| (i as f64 - (n - 1) as f64 / 2.0) / DEVIATION;
    let all: Vec<f64> = (0..n).map(|i| (-at(i) * at(i) / 2.0).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|w| w / sum).collect()
}

fn blur(plane: &[f64], width: usize, rows: &[f64], columns: &[f64]) -> Vec<f64> {
    let across: Vec<f64> = plane
        .chunks_exact(width)
        .flat_map(|row| {
            row.windows(columns.len()).map(|w| w.iter().zip(columns).map(|(a, b)| a * b).sum())
        })
        .collect();
    let narrow = width + 1 - columns.len();
    let height = across.len() / narrow;
    let down = |i: usize| {
        let (y, x) = (i / narrow, i % narrow);
        rows.iter().enumerate().map(|(k, w)| w * across[(y + k) * narrow + x]).sum()
    };
    (0..(height + 1 - rows.len()) * narrow).map(down).collect()
}

/// The middle of sorted numbers; None of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (n > 0).then(|| (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0)
}

pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, domain};

    fn image(seed: u64, height: usize, width: usize) -> Vec<f32> {
        let mut stream = Stream::new(seed, &[domain::TEST]);
        (0..height * width * 3).map(|_| stream.unit()).collect()
    }

    #[test]
    fn the_same_image_is_alike_and_noise_is_not() {
        let x = image(1, 20, 17);
        assert!((ssim(&x, &x, 20, 17).unwrap() - 1.0).abs() < 1e-12);
        assert!(ssim(&x, &image(2, 20, 17), 20, 17).unwrap().abs() < 0.1);
        assert!(ssim(&x, &x, 20, 18).is_err());
        // Smaller than a window: one of the image's own size.
        let small = image(3, 4, 5);
        assert!((ssim(&small, &small, 4, 5).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn two_flat_images_differ_by_their_means_alone() {
        let flat = |v: f32| vec![v; 15 * 15 * 3];
        let (a, b) = (0.5f64, 0.25f64);
        let expected = (2.0 * a * b + C1) / (a * a + b * b + C1);
        assert!((ssim(&flat(0.5), &flat(0.25), 15, 15).unwrap() - expected).abs() < 1e-9);
    }

    #[test]
    fn figures_of_a_known_change() {
        let origin = vec![0.5; 12 * 12 * 3];
        let x: Vec<f32> = origin.iter().map(|v| v + 0.1).collect();
        let seen = Visibility::of(&x, &origin, 12, 12).unwrap();
        assert!((seen.linf - 0.1).abs() < 1e-6 && (seen.l2 - 0.1 * 432f64.sqrt()).abs() < 1e-5);
        assert!((seen.psnr.unwrap() - 20.0).abs() < 1e-4);
        assert_eq!(Visibility::of(&origin, &origin, 12, 12).unwrap().psnr, None);
        assert_eq!((median(&[3.0, 1.0, 2.0, 10.0]), mean(&[]), median(&[])), (Some(2.5), None, None));
    }
}
