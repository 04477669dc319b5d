//! Horizontal bars: a name, and a value of each series.

use super::{LEGEND_LINE, draw_legend, legend_rows};
use crate::report::canvas::{Anchor, Rgb, Surface};
use crate::report::style::{EMPTY, INK, SERIES, SOFT, fitted};

/// Bars of some things (classes), one for each series.
///
/// [`Plot`](super::Plot) has an example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// From top to bottom.
    pub names: Vec<String>,
    /// A name, and as many values; None where there is none. A legend is drawn for several.
    pub series: Vec<(String, Vec<Option<f64>>)>,
    /// The value of a bar over the whole width.
    pub most: f64,
}

const WIDTH: f64 = 440.0;
const NAMES: f64 = 104.0;
const VALUES: f64 = 40.0;

impl Bars {
    fn row(&self) -> f64 {
        if self.series.len() > 1 { 6.0 + 12.0 * self.series.len() as f64 } else { 21.0 }
    }

    fn legend(&self) -> Vec<&str> {
        let names: Vec<&str> = self.series.iter().map(|(name, _)| &name[..]).collect();
        if names.len() > 1 { names } else { Vec::new() }
    }

    fn above(&self) -> f64 {
        legend_rows(&self.legend(), WIDTH).len() as f64 * LEGEND_LINE
    }

    pub(super) fn size(&self) -> (f64, f64) {
        (WIDTH, self.above() + self.names.len() as f64 * self.row())
    }

    pub(super) fn draw(&self, surface: &mut dyn Surface, left: f64, top: f64) {
        let colours: Vec<Rgb> = (0..self.series.len()).map(|i| SERIES[i % SERIES.len()]).collect();
        draw_legend(surface, &self.legend(), &colours, [left, top, WIDTH]);
        let (start, full) = (left + NAMES, WIDTH - NAMES - VALUES);
        let thick = if self.series.len() > 1 { 10.0 } else { 14.0 };
        for (i, name) in self.names.iter().enumerate() {
            let y = top + self.above() + i as f64 * self.row();
            let middle = y + (self.row() - 6.0) / 2.0;
            surface.text(left, middle + 4.0, 12.0, Anchor::Start, INK, &fitted(name, 12.0, NAMES - 8.0));
            for (s, (_, values)) in self.series.iter().enumerate() {
                let y = y + s as f64 * 12.0;
                surface.rectangle(start, y, full, thick, EMPTY);
                let value = values.get(i).copied().flatten().filter(|value| value.is_finite());
                let Some(value) = value else {
                    surface.text(start + 4.0, y + thick - 2.5, 10.0, Anchor::Start, SOFT, "none");
                    continue;
                };
                let share = (value / self.most).clamp(0.0, 1.0);
                surface.rectangle(start, y, full * share, thick, colours[s]);
                let label = format!("{value:.2}");
                surface.text(left + WIDTH, y + thick - 2.5, 11.0, Anchor::End, SOFT, &label);
            }
        }
    }
}
