//! Curves in panels, side by side, in one SVG and one PNG.

use super::canvas::{Canvas, Surface, Svg};
use super::plots::{Chart, Curve, Lines, Plot, SCALE};
use crate::error::{Error, Result};
#[cfg(feature = "checkpoint")]
use crate::train::History;
use std::path::{Path, PathBuf};

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

impl Panel {
    /// The plot it is on its own; `x` says what runs along the bottom.
    pub fn plot(&self, x: &str) -> Plot {
        let lines =
            Lines { curves: self.curves.clone(), x: x.into(), log: self.log, ..Lines::default() };
        Plot { title: self.title.clone(), chart: Chart::Lines(lines) }
    }
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

/// Writes `curves.svg` and `curves.png` into the folder; `x` says what runs along the bottom. Gives
/// their paths; an error for no panels, and where they cannot be written.
pub fn draw(panels: &[Panel], x: &str, folder: &Path) -> Result<Vec<PathBuf>> {
    if panels.is_empty() {
        return Err(Error::argument("curves", "there is nothing to draw: no epoch is finished"));
    }
    let plots: Vec<Plot> = panels.iter().map(|panel| panel.plot(x)).collect();
    let columns = match plots.len() {
        n @ 1..=3 => n,
        4 => 2,
        _ => 3,
    };
    let most = |of: fn((f64, f64)) -> f64| plots.iter().map(|plot| of(plot.size())).fold(0.0, f64::max);
    let (wide, tall) = (most(|size| size.0), most(|size| size.1));
    let (width, height) = (columns as f64 * wide, plots.len().div_ceil(columns) as f64 * tall);
    let on = |surface: &mut dyn Surface| {
        for (i, plot) in plots.iter().enumerate() {
            plot.draw(surface, (i % columns) as f64 * wide, (i / columns) as f64 * tall);
        }
    };
    let (svg_path, png_path) = (folder.join("curves.svg"), folder.join("curves.png"));
    let mut svg = Svg::new(width, height);
    on(&mut svg);
    svg.write(&svg_path, "Curves")?;
    let mut canvas = Canvas::new(width, height, SCALE)?;
    on(&mut canvas);
    canvas.write_png(&png_path)?;
    Ok(vec![svg_path, png_path])
}
