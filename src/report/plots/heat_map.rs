//! A matrix of shares, such as one of confusions.

use crate::report::canvas::{Anchor, Rgb, Surface};
use crate::report::style::{EMPTY, INK, SOFT, fitted};

/// A matrix of shares, 0 to 1: the deeper a cell's colour, the nearer to 1.
///
/// ```
/// use atrous::report::plots::{Chart, HeatMap, Plot};
///
/// let names = vec!["cat".to_string(), "dog".to_string()];
/// let map = HeatMap {
///     rows: names.clone(),
///     columns: names,
///     values: vec![vec![Some(0.9), Some(0.1)], vec![None, None]], // there was no dog
///     row_axis: "true".into(),
///     column_axis: "predicted".into(),
/// };
/// let svg = Plot { title: "Confusion".into(), chart: Chart::HeatMap(map) }.svg();
/// assert!(svg.as_str().contains("predicted"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMap {
    /// Names of the rows, from top to bottom.
    pub rows: Vec<String>,
    /// Names of the columns, from left to right.
    pub columns: Vec<String>,
    /// By rows; None where there is nothing to take a share of.
    pub values: Vec<Vec<Option<f64>>>,
    /// What a row is, e.g. `true`.
    pub row_axis: String,
    /// What a column is, e.g. `predicted`.
    pub column_axis: String,
}

const CELL: f64 = 30.0;
const NAMES: f64 = 92.0;
/// Of the axes' own names.
const AXES: f64 = 20.0;
/// Not the colour of a series: a page gives those others in the dark.
const DEEP: Rgb = [49, 104, 167];
const LIGHT: Rgb = [254, 254, 254];

impl HeatMap {
    pub(super) fn size(&self) -> (f64, f64) {
        let width = (self.columns.len() as f64 * CELL).max(120.0);
        (NAMES + width, AXES + NAMES + self.rows.len() as f64 * CELL)
    }

    pub(super) fn draw(&self, surface: &mut dyn Surface, left: f64, top: f64) {
        let (x0, y0) = (left + NAMES, top + AXES + NAMES);
        let axes = format!("rows: {}; columns: {}", self.row_axis, self.column_axis);
        surface.text(left, top + 8.0, 11.0, Anchor::Start, SOFT, &axes);
        for (j, name) in self.columns.iter().enumerate() {
            let x = x0 + (j as f64 + 0.5) * CELL + 4.0;
            surface.text_upwards(x, y0 - 6.0, 11.0, INK, &fitted(name, 11.0, NAMES - 10.0));
        }
        for (i, name) in self.rows.iter().enumerate() {
            let y = y0 + i as f64 * CELL;
            let name = fitted(name, 11.0, NAMES - 10.0);
            surface.text(x0 - 6.0, y + CELL / 2.0 + 4.0, 11.0, Anchor::End, INK, &name);
            for (j, value) in self.values.get(i).into_iter().flatten().enumerate() {
                let x = x0 + j as f64 * CELL;
                surface.rectangle(x + 0.5, y + 0.5, CELL - 1.0, CELL - 1.0, EMPTY);
                let Some(value) = value.filter(|value| value.is_finite()) else { continue };
                let share = value.clamp(0.0, 1.0);
                surface.shade(x + 0.5, y + 0.5, CELL - 1.0, CELL - 1.0, DEEP, share);
                // What rounds to 0 is left to its colour: numbers are for what there is.
                let percent = (100.0 * share).round();
                if percent > 0.0 {
                    let ink = if share > 0.5 { LIGHT } else { INK };
                    let (x, y) = (x + CELL / 2.0, y + CELL / 2.0 + 4.0);
                    surface.text(x, y, 10.0, Anchor::Middle, ink, &format!("{percent:.0}"));
                }
            }
        }
    }
}
