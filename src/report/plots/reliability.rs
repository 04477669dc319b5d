//! Confidence against what was so: Niculescu-Mizil & Caruana, "Predicting Good Probabilities with Supervised
//! Learning" (2005); Guo et al., "On Calibration of Modern Neural Networks" (2017).

use super::axis::Axis;
use super::lines::draw_axes;
use crate::report::canvas::{Anchor, Surface};
use crate::report::style::{AXIS, SERIES, SOFT};

/// Predictions of about the same confidence.
///
/// [`ReliabilityDiagram`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReliabilityBin {
    /// The least confidence.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// The mean.
    pub confidence: f64,
    /// The share of them that was so.
    pub accuracy: f64,
    /// Their share of all predictions.
    pub share: f64,
}

/// Bars of what was so, beside the diagonal on which confidence would be right.
///
/// ```
/// use atrous::report::plots::{Chart, Plot, ReliabilityBin, ReliabilityDiagram};
///
/// // Of what was said with 0.9, half was so: a network that is too sure.
/// let sure = ReliabilityBin { low: 0.8, high: 1.0, confidence: 0.9, accuracy: 0.5, share: 1.0 };
/// let chart = Chart::Reliability(ReliabilityDiagram { bins: vec![sure] });
/// assert!(Plot { title: "Calibration".into(), chart }.png()?.starts_with(b"\x89PNG"));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReliabilityDiagram {
    /// Without those that nothing fell into.
    pub bins: Vec<ReliabilityBin>,
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 300.0;
const INSET: [f64; 4] = [10.0, 14.0, 38.0, 54.0];

impl ReliabilityDiagram {
    pub(super) fn size(&self) -> (f64, f64) {
        (WIDTH, HEIGHT)
    }

    pub(super) fn draw(&self, surface: &mut dyn Surface, left: f64, top: f64) {
        let [above, right, below, before] = INSET;
        let (x0, x1) = (left + before, left + WIDTH - right);
        let (y0, y1) = (top + HEIGHT - below, top + above);
        let unit = Axis::linear([0.0, 1.0].into_iter(), 5, true);
        draw_axes(surface, [&unit, &unit], [x0, x1], [y0, y1]);
        let text = "confidence; numbers: percent of all predictions";
        surface.text((x0 + x1) / 2.0, y0 + 32.0, 11.0, Anchor::Middle, SOFT, text);
        let (width, height) = (x1 - x0, y0 - y1);
        for bin in &self.bins {
            let x = x0 + bin.low * width + 2.0;
            let wide = (bin.high - bin.low) * width - 4.0;
            let tall = bin.accuracy * height;
            surface.rectangle(x, y0 - tall, wide, tall, SERIES[0]);
            let at = (y0 - tall - 8.0).max(y1 + 10.0);
            let share = 100.0 * bin.share;
            let share = if share < 0.95 { format!("{share:.1}") } else { format!("{share:.0}") };
            surface.text(x + wide / 2.0, at, 10.0, Anchor::Middle, SOFT, &share);
        }
        surface.line(&[(x0, y0), (x1, y1)], 1.0, AXIS);
        for bin in &self.bins {
            let point = (x0 + bin.confidence * width, y0 - bin.accuracy * height);
            surface.line(&[point], 6.0, SERIES[1]);
        }
    }
}
