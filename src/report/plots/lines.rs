//! Curves on the same axes.

use super::axis::Axis;
use super::{LEGEND_LINE, draw_legend, legend_rows};
use crate::report::canvas::{Anchor, Rgb, Surface};
use crate::report::style::{AXIS, GRID, SERIES, SOFT};

/// One line of a plot. Points that are not finite (or, on a logarithmic scale, not above zero) are
/// left out, and the line is broken there.
///
/// [`Lines`] has an example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// (x, y), from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Curves, and the axes they share.
///
/// ```
/// use atrous::report::plots::{Chart, Curve, Lines, Plot};
///
/// let curve = Curve { name: "cat".into(), points: vec![(0.0, 1.0), (0.5, 0.9), (1.0, 0.3)] };
/// let lines = Lines { curves: vec![curve], x: "recall".into(), unit_square: true, ..Lines::default() };
/// let svg = Plot { title: "Precision".into(), chart: Chart::Lines(lines) }.svg();
/// assert!(svg.as_str().contains("recall") && svg.as_str().contains("cat"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// In the order of their colours.
    pub curves: Vec<Curve>,
    /// What runs along the bottom.
    pub x: String,
    /// A logarithmic vertical scale.
    pub log: bool,
    /// Both axes go from 0 to 1, whatever the values.
    pub unit_square: bool,
    /// A dot at each point: few were measured.
    pub dots: bool,
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 240.0;
/// Around the axes: top (with one row of a legend), right, bottom, left.
const INSET: [f64; 4] = [16.0, 14.0, 38.0, 54.0];

impl Lines {
    fn names(&self) -> Vec<&str> {
        self.curves.iter().map(|curve| &curve.name[..]).collect()
    }

    /// One row of names stands above the axes; several below.
    fn below(&self) -> f64 {
        match legend_rows(&self.names(), WIDTH - INSET[3]).len() {
            0 | 1 => 0.0,
            rows => rows as f64 * LEGEND_LINE,
        }
    }

    pub(super) fn size(&self) -> (f64, f64) {
        (WIDTH, HEIGHT + self.below())
    }

    /// Draws the axes, the curves and their names.
    pub(crate) fn draw(&self, surface: &mut dyn Surface, left: f64, top: f64) {
        let [above, right, below, before] = INSET;
        let (x0, x1) = (left + before, left + WIDTH - right);
        let (y0, y1) = (top + HEIGHT - below, top + above);
        let drawn = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (!self.log || y > 0.0);
        let points: Vec<(f64, f64)> =
            self.curves.iter().flat_map(|curve| &curve.points).copied().filter(drawn).collect();
        if points.is_empty() {
            surface.text((x0 + x1) / 2.0, (y0 + y1) / 2.0, 13.0, Anchor::Middle, SOFT, "no values");
            return;
        }
        let unit = [0.0, 1.0].into_iter();
        let (xs, ys) = (points.iter().map(|p| p.0), points.iter().map(|p| p.1));
        let (horizontal, vertical) = match (self.unit_square, self.log) {
            (true, _) => (Axis::linear(unit.clone(), 5, true), Axis::linear(unit, 5, true)),
            (false, true) => (Axis::linear(xs, 8, false), Axis::log(ys)),
            (false, false) => (Axis::linear(xs, 8, false), Axis::linear(ys, 5, true)),
        };
        let place = |&(x, y): &(f64, f64)| {
            (x0 + horizontal.share(x) * (x1 - x0), y0 + vertical.share(y) * (y1 - y0))
        };
        draw_axes(surface, [&horizontal, &vertical], [x0, x1], [y0, y1]);
        surface.text((x0 + x1) / 2.0, y0 + 32.0, 11.0, Anchor::Middle, SOFT, &self.x);
        let colours: Vec<Rgb> =
            self.curves.iter().enumerate().map(|(i, curve)| colour(i, curve)).collect();
        for (curve, &colour) in self.curves.iter().zip(&colours) {
            for run in curve.points.split(|point| !drawn(point)).filter(|run| !run.is_empty()) {
                let line: Vec<(f64, f64)> = run.iter().map(place).collect();
                surface.line(&line, 2.0, colour);
                // One value alone would be too small to be seen as a line.
                if self.dots || line.len() == 1 {
                    line.iter().for_each(|&point| surface.line(&[point], 5.0, colour));
                }
            }
        }
        let names = self.names();
        let below = self.below() > 0.0;
        let width = names.iter().map(|name| super::entry_width(name)).sum::<f64>() - 18.0;
        let start = if below { x0 } else { x1 - width };
        let top = if below { top + HEIGHT } else { top - 10.0 };
        draw_legend(surface, &names, &colours, [start, top, WIDTH - INSET[3]]);
    }
}

/// Lines at the vertical ticks, labels at both; `y0` is below.
pub(super) fn draw_axes(
    surface: &mut dyn Surface,
    axes: [&Axis; 2],
    [x0, x1]: [f64; 2],
    [y0, y1]: [f64; 2],
) {
    let [horizontal, vertical] = axes;
    for (value, label) in &vertical.ticks {
        let y = y0 + vertical.share(*value) * (y1 - y0);
        surface.line(&[(x0, y), (x1, y)], 0.75, GRID);
        surface.text(x0 - 8.0, y + 4.0, 11.0, Anchor::End, SOFT, label);
    }
    for (value, label) in &horizontal.ticks {
        let x = x0 + horizontal.share(*value) * (x1 - x0);
        surface.line(&[(x, y0), (x, y0 + 4.0)], 1.0, AXIS);
        surface.text(x, y0 + 17.0, 11.0, Anchor::Middle, SOFT, label);
    }
    surface.line(&[(x0, y0), (x1, y0)], 1.0, AXIS);
}

/// Validation has the same colour in every plot, also where it is alone.
fn colour(i: usize, curve: &Curve) -> Rgb {
    if curve.name == "validation" { SERIES[1] } else { SERIES[i % SERIES.len()] }
}
