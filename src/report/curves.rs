//! Curves in panels, side by side, as SVG and as PNG.

use super::canvas::{Anchor, Canvas, Rgb, Surface, Svg};
use super::style::{AXIS, GRID, INK, SERIES, SOFT};
use crate::error::{Error, Result};
#[cfg(feature = "checkpoint")]
use crate::train::History;
use std::path::{Path, PathBuf};

/// One line of a panel. Points that are not finite (or, on a logarithmic scale, not above zero) are
/// left out, and the line is broken there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// What the panel's legend calls it.
    pub name: String,
    /// (x, y), from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Curves on the same axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// Above the axes.
    pub title: String,
    /// In the order of their colours.
    pub curves: Vec<Curve>,
    /// A logarithmic vertical scale.
    pub log: bool,
}

/// Writes `curves.svg` and `curves.png` into the folder: what the epochs of a run came to. Gives
/// their paths; an error for a history without epochs, and where they cannot be written.
#[cfg(feature = "checkpoint")]
pub fn curves(history: &History, folder: &Path) -> Result<Vec<PathBuf>> {
    draw(&from_history(history)?, "epoch", folder)
}

/// A panel for each figure of the history: `x` while training beside `val_x`, whatever the figures
/// are. The loss comes first and the learning rate last. No panels for a history without epochs.
#[cfg(feature = "checkpoint")]
pub fn from_history(history: &History) -> Result<Vec<Panel>> {
    let mut names: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for epoch in &history.epochs {
        let row = serde_json::to_value(epoch).map_err(|error| Error::argument("history", error))?;
        for (name, value) in row.as_object().into_iter().flatten() {
            let base = name.strip_prefix("val_").unwrap_or(name);
            if base != "epoch" && value.is_number() && !names.iter().any(|known| known == base) {
                names.push(base.to_owned());
            }
        }
        rows.push((epoch.epoch as f64, row));
    }
    names.sort_by_key(|name| match name.as_str() {
        "loss" => (0, String::new()),
        "learning_rate" => (2, String::new()),
        other => (1, other.to_owned()),
    });
    let curve = |name: &str, key: &str| {
        let value = |row: &serde_json::Value| row.get(key).and_then(serde_json::Value::as_f64);
        let points: Vec<(f64, f64)> =
            rows.iter().filter_map(|(epoch, row)| Some((*epoch, value(row)?))).collect();
        (!points.is_empty()).then(|| Curve { name: name.to_owned(), points })
    };
    let panel = |name: &String| {
        let validation = curve("validation", &format!("val_{name}"));
        Panel {
            title: title(name),
            curves: curve(while_training(name), name).into_iter().chain(validation).collect(),
            log: name == "learning_rate",
        }
    };
    Ok(names.iter().map(panel).collect())
}

/// A rate is set, not measured on the training images.
#[cfg(feature = "checkpoint")]
fn while_training(name: &str) -> &str {
    if name == "learning_rate" { "as set" } else { "train" }
}

#[cfg(feature = "checkpoint")]
fn title(name: &str) -> String {
    match name {
        "map" => "Mean average precision".to_owned(),
        "miou" | "mean_iou" => "Mean IoU".to_owned(),
        _ => {
            let words = name.replace('_', " ");
            let mut letters = words.chars();
            letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
        }
    }
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 280.0;
const MARGIN: f64 = 20.0;
/// Around the plot of a panel: top, right, bottom, left.
const INSET: [f64; 4] = [46.0, 14.0, 40.0, 62.0];
/// Pixels to the point in the PNG.
const SCALE: f64 = 2.0;

/// Writes `curves.svg` and `curves.png` into the folder; `x` says what runs along the bottom. Gives
/// their paths; an error for no panels, and where they cannot be written.
pub fn draw(panels: &[Panel], x: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    if panels.is_empty() {
        return Err(Error::argument("curves", "there is nothing to draw: no epoch is finished"));
    }
    let columns = match panels.len() {
        n @ 1..=3 => n,
        4 => 2,
        _ => 3,
    };
    let rows = panels.len().div_ceil(columns);
    let (width, height) = (columns as f64 * WIDTH + 2.0 * MARGIN, rows as f64 * HEIGHT + 2.0 * MARGIN);
    let on = |surface: &mut dyn Surface| {
        for (i, panel) in panels.iter().enumerate() {
            let (column, row) = ((i % columns) as f64, (i / columns) as f64);
            draw_panel(surface, panel, x, MARGIN + column * WIDTH, MARGIN + row * HEIGHT);
        }
    };
    let (svg_path, png_path) = (folder.join("curves.svg"), folder.join("curves.png"));
    let mut svg = Svg::new(width, height);
    on(&mut svg);
    svg.write(&svg_path)?;
    let mut canvas = Canvas::new(width, height, SCALE)?;
    on(&mut canvas);
    canvas.write_png(&png_path)?;
    Ok(vec![svg_path, png_path])
}

fn draw_panel(surface: &mut dyn Surface, panel: &Panel, x_name: &str, left: f64, top: f64) {
    let [above, right, below, before] = INSET;
    let (x0, x1) = (left + before, left + WIDTH - right);
    let (y0, y1) = (top + HEIGHT - below, top + above);
    surface.text(x0, top + 18.0, 15.0, Anchor::Start, INK, &panel.title);

    let drawn = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (!panel.log || y > 0.0);
    let points: Vec<(f64, f64)> =
        panel.curves.iter().flat_map(|curve| &curve.points).copied().filter(drawn).collect();
    if points.is_empty() {
        surface.text((x0 + x1) / 2.0, (y0 + y1) / 2.0, 13.0, Anchor::Middle, SOFT, "no values");
        return;
    }
    let horizontal = Axis::linear(points.iter().map(|p| p.0), 8, false);
    let vertical = if panel.log {
        Axis::log(points.iter().map(|p| p.1))
    } else {
        Axis::linear(points.iter().map(|p| p.1), 5, true)
    };
    let place = |&(x, y): &(f64, f64)| {
        (x0 + horizontal.share(x) * (x1 - x0), y0 + vertical.share(y) * (y1 - y0))
    };
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
    surface.text((x0 + x1) / 2.0, y0 + 32.0, 11.0, Anchor::Middle, SOFT, x_name);

    for (i, curve) in panel.curves.iter().enumerate() {
        let colour = colour(i, curve);
        for run in curve.points.split(|point| !drawn(point)).filter(|run| !run.is_empty()) {
            let line: Vec<(f64, f64)> = run.iter().map(place).collect();
            // One value alone would be too small to be seen as a line.
            surface.line(&line, if line.len() == 1 { 5.0 } else { 2.0 }, colour);
        }
    }
    legend(surface, &panel.curves, x1, top + 36.0);
}

/// Validation has the same colour in every panel, also where it is alone.
fn colour(i: usize, curve: &Curve) -> Rgb {
    if curve.name == "validation" { SERIES[1] } else { SERIES[i % SERIES.len()] }
}

/// Names of the curves, from the right edge to the left.
fn legend(surface: &mut dyn Surface, curves: &[Curve], right: f64, baseline: f64) {
    let mut x = right;
    for (i, curve) in curves.iter().enumerate().rev().filter(|(_, curve)| !curve.points.is_empty()) {
        let colour = colour(i, curve);
        surface.text(x, baseline, 11.0, Anchor::End, SOFT, &curve.name);
        x -= super::font::width(&curve.name) * 11.0 + 8.0;
        surface.line(&[(x - 16.0, baseline - 4.0), (x, baseline - 4.0)], 2.5, colour);
        x -= 34.0;
    }
}

/// From values to shares of a length.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn share(&self, value: f64) -> f64 {
        let f = |v: f64| if self.log { v.log10() } else { v };
        (f(value) - f(self.low)) / (f(self.high) - f(self.low))
    }

    /// About `count` ticks at 1, 2 or 5 times a power of ten; `whole`: the axis ends at ticks.
    fn linear(values: impl Iterator<Item = f64> + Clone, count: usize, whole: bool) -> Self {
        let (mut low, mut high) = range(values);
        if low == high {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
            (low, high) = if whole { (low - room, high + room) } else { (low - 1.0, high + 1.0) };
        }
        let rough = (high - low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|&s| s >= rough * 0.999);
        // Epochs are whole.
        let step = if whole { step.unwrap_or(rough) } else { step.unwrap_or(rough).max(1.0) };
        if whole {
            (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        }
        let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
        let ticks = (first..=last.min(first + 50)).map(|i| i as f64 * step);
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let label = |v: f64| {
            if high.abs().max(low.abs()) >= 1e5 || step < 1e-4 {
                format!("{v:.1e}")
            } else {
                format!("{v:.decimals$}")
            }
        };
        Axis { low, high, log: false, ticks: ticks.map(|v| (v, label(v))).collect() }
    }

    /// Ticks at powers of ten, and between them where there are few.
    fn log(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = range(values);
        // A little room, and a range of its own for a rate that never changed.
        let (low, high) =
            if high / low < 2.0 { (low / 2.0, high * 2.0) } else { (low / 1.2, high * 1.2) };
        let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let decades = high.log10() - low.log10();
        let every = (decades / 6.0).ceil().max(1.0) as usize;
        let between: &[f64] = if decades < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let values = (first..=last).step_by(every).flat_map(|p| between.iter().map(move |m| (*m, p)));
        let ticks = values
            .map(|(m, p)| (m * 10f64.powi(p), format!("{m}e{p}")))
            .filter(|(v, _)| (low..=high).contains(v))
            .collect();
        Axis { low, high, log: true, ticks }
    }
}

fn range(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_the_values_between_them() {
        let axis = Axis::linear([0.137, 0.83].into_iter(), 5, true);
        let labels: Vec<&str> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let epochs = Axis::linear([1.0, 40.0].into_iter(), 8, false);
        assert_eq!(
            epochs.ticks.iter().map(|t| t.0).collect::<Vec<_>>(),
            [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0]
        );
        assert_eq!((epochs.share(1.0), epochs.share(40.0)), (0.0, 1.0));
    }

    #[test]
    fn axes_of_one_value_of_tiny_and_of_huge_values_have_a_length() {
        for values in [[0.0, 0.0], [3.0, 3.0], [-1e-7, 1e-7], [1e7, 9e9], [-5.0, -5.0]] {
            let axis = Axis::linear(values.into_iter(), 5, true);
            assert!(axis.high > axis.low && axis.ticks.len() >= 2, "{values:?}");
            assert!(values.iter().all(|&v| (0.0..=1.0).contains(&axis.share(v))), "{values:?}");
        }
        let axis = Axis::log([1e-4, 1e-4].into_iter());
        assert!((axis.share(1e-4) - 0.5).abs() < 1e-9 && !axis.ticks.is_empty());
    }

    #[test]
    fn decades_are_equally_long_on_a_logarithmic_axis() {
        let axis = Axis::log([1e-6, 1e-2].into_iter());
        let labels: Vec<&str> = axis.ticks.iter().map(|(_, label)| label.as_str()).collect();
        assert_eq!(labels, ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]);
        let step = |a, b| axis.share(b) - axis.share(a);
        assert!((step(1e-6, 1e-5) - step(1e-3, 1e-2)).abs() < 1e-12);
    }
}
