//! Curves in panels, side by side, in one SVG and one PNG.

use super::canvas::{Canvas, Surface, Svg};
use super::plots::{Chart, Curve, Lines, Plot, SCALE};
use crate::error::{Error, Result};
#[cfg(feature = "checkpoint")]
use crate::train::History;
use std::path::{Path, PathBuf};

/// Curves on the same axes.
///
/// ```
/// use atrous::report::{Curve, Panel};
///
/// let curve = Curve { name: "training".into(), points: vec![(1.0, 0.9), (2.0, 0.4)] };
/// let panel = Panel { title: "loss".into(), curves: vec![curve], ..Panel::default() };
/// let svg = panel.plot("epoch").svg();
/// assert!(svg.as_str().starts_with("<svg"));
/// assert!(svg.as_str().contains("loss") && svg.as_str().contains("epoch"));
/// ```
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
///
/// ```
/// use atrous::report::{curves, from_history};
/// use atrous::train::{Epoch, History};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let epoch = |epoch: usize| Epoch {
///     epoch,
///     learning_rate: 1e-3,
///     loss: 1.0 / epoch as f64,
///     accuracy: 0.5,
///     val_loss: Some(1.2 / epoch as f64),
///     val_accuracy: None,
///     val_map: None,
///     val_miou: None,
///     val_dice: None,
/// };
/// let history = History { epochs: vec![epoch(1), epoch(2)] };
/// let panels = from_history(&history)?;
/// let titles: Vec<&str> = panels.iter().map(|panel| panel.title.as_str()).collect();
/// assert_eq!(titles, ["Loss", "Accuracy", "Learning rate"]);
/// assert_eq!(panels[0].curves[1].points, [(1.0, 1.2), (2.0, 0.6)]); // on the validation images
/// assert_eq!(curves(&history, folder.path())?.len(), 2); // an SVG and a PNG
/// # Ok::<(), atrous::Error>(())
/// ```
#[cfg(feature = "checkpoint")]
pub fn curves(history: &History, folder: &Path) -> Result<Vec<PathBuf>> {
    draw(&from_history(history)?, "epoch", folder)
}

/// A panel for each figure of the history: `x` while training beside `val_x`, whatever the figures
/// are. The loss comes first and the learning rate last. No panels for a history without epochs.
///
/// [`curves()`] has an example.
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
///
/// ```
/// use atrous::report::{Curve, Panel, draw};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// let curve = Curve { name: "test".into(), points: vec![(0.0, 0.9), (0.1, 0.2)] };
/// let panels = [Panel { title: "accuracy".into(), curves: vec![curve], ..Panel::default() }];
/// let paths = draw(&panels, "epsilon", folder)?;
/// assert_eq!(paths, [folder.join("curves.svg"), folder.join("curves.png")]);
/// assert!(std::fs::read(&paths[1]).unwrap().starts_with(b"\x89PNG"));
/// assert!(draw(&[], "epsilon", folder).is_err());
/// # Ok::<(), atrous::Error>(())
/// ```
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
