//! Plots: a description of each, and one way to draw it as SVG and as PNG.
//!
//! The SVG has the colours of paper; a page gives those of ink, paper and series its own (`base.css`), so
//! that a plot within a page follows its light and dark.

mod axis;
mod bars;
mod heat_map;
mod lines;
mod reliability;

use super::canvas::{Anchor, Canvas, Surface, Svg};
use super::page::Markup;
use super::style::{INK, SOFT};
use crate::error::Result;
use crate::files::write_atomically;
pub use bars::Bars;
pub use heat_map::HeatMap;
pub use lines::{Curve, Lines};
pub use reliability::{ReliabilityBin, ReliabilityDiagram};
use std::path::{Path, PathBuf};

/// A plot: what it shows, and what it is called.
///
/// ```
/// use atrous::report::plots::{Bars, Chart, Plot};
///
/// let bars = Bars {
///     names: vec!["cat".into(), "dog".into()],
///     series: vec![("IoU".into(), vec![Some(0.7), None])],
///     most: 1.0,
/// };
/// let plot = Plot { title: "Classes".into(), chart: Chart::Bars(bars) };
/// assert!(plot.svg().as_str().contains("dog"));
/// assert!(plot.png()?.starts_with(b"\x89PNG"));
/// assert!(plot.size().0 > 440.0); // points, with margins
/// # let folder = tempfile::tempdir().unwrap();
/// # let folder = folder.path();
/// assert_eq!(plot.write(folder, "classes")?, ["classes.svg", "classes.png"].map(|name| folder.join(name)));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// What is drawn.
    pub chart: Chart,
}

/// What a plot shows.
///
/// [`Plot`], [`HeatMap`], [`Lines`] and [`ReliabilityDiagram`] have examples of each.
#[derive(Clone, Debug, PartialEq)]
pub enum Chart {
    /// Values over epochs, ε or recall.
    Lines(Lines),
    /// A value a class, or several.
    Bars(Bars),
    /// A matrix, such as one of confusions.
    HeatMap(HeatMap),
    /// How often what was said with a confidence was so.
    Reliability(ReliabilityDiagram),
}

/// Around a plot.
const MARGIN: f64 = 16.0;
/// Of a title, above the chart.
const TITLE: f64 = 30.0;
/// Pixels to the point in a PNG.
pub(super) const SCALE: f64 = 2.0;

impl Plot {
    /// Width and height in points, margins included.
    pub fn size(&self) -> (f64, f64) {
        let (width, height) = match &self.chart {
            Chart::Lines(lines) => lines.size(),
            Chart::Bars(bars) => bars.size(),
            Chart::HeatMap(map) => map.size(),
            Chart::Reliability(diagram) => diagram.size(),
        };
        (width + 2.0 * MARGIN, height + TITLE + 2.0 * MARGIN)
    }

    /// Draws it with its upper left corner there.
    pub(super) fn draw(&self, surface: &mut dyn Surface, left: f64, top: f64) {
        let left = left + MARGIN;
        surface.text(left, top + MARGIN + 14.0, 15.0, Anchor::Start, INK, &self.title);
        let top = top + MARGIN + TITLE;
        match &self.chart {
            Chart::Lines(lines) => lines.draw(surface, left, top),
            Chart::Bars(bars) => bars.draw(surface, left, top),
            Chart::HeatMap(map) => map.draw(surface, left, top),
            Chart::Reliability(diagram) => diagram.draw(surface, left, top),
        }
    }

    /// An SVG document, which can also stand within a page.
    pub fn svg(&self) -> Markup {
        let (width, height) = self.size();
        let mut svg = Svg::new(width, height);
        self.draw(&mut svg, 0.0, 0.0);
        Markup::trusted(svg.document(&self.title))
    }

    /// A PNG. An error where it would be too large to be looked at.
    pub fn png(&self) -> Result<Vec<u8>> {
        let (width, height) = self.size();
        let mut canvas = Canvas::new(width, height, SCALE)?;
        self.draw(&mut canvas, 0.0, 0.0);
        canvas.png()
    }

    /// Writes `name.svg` and `name.png` into the folder, which is there; gives their paths.
    pub fn write(&self, folder: &Path, name: &str) -> Result<[PathBuf; 2]> {
        let paths = ["svg", "png"].map(|ending| folder.join(format!("{name}.{ending}")));
        write_atomically(&paths[0], |file| file.write_all(self.svg().as_str().as_bytes()))?;
        let png = self.png()?;
        write_atomically(&paths[1], |file| file.write_all(&png))?;
        Ok(paths)
    }
}

/// The numbers of the series that are named in each row of a legend of this width.
fn legend_rows(names: &[&str], width: f64) -> Vec<Vec<usize>> {
    let mut rows: Vec<Vec<usize>> = Vec::new();
    let mut used = 0.0;
    for (i, name) in names.iter().enumerate() {
        let entry = entry_width(name);
        match rows.last_mut() {
            Some(row) if used + entry <= width => row.push(i),
            _ => {
                rows.push(vec![i]);
                used = 0.0;
            }
        }
        used += entry;
    }
    rows
}

const LEGEND_LINE: f64 = 18.0;

fn entry_width(name: &str) -> f64 {
    super::font::width(name) * 11.0 + 40.0
}

/// Draws names below each other where a row is full; `top` is the first row's upper edge.
fn draw_legend(
    surface: &mut dyn Surface,
    names: &[&str],
    colours: &[super::canvas::Rgb],
    [left, top, width]: [f64; 3],
) {
    for (i, row) in legend_rows(names, width).iter().enumerate() {
        let (mut x, y) = (left, top + i as f64 * LEGEND_LINE + 12.0);
        for &entry in row {
            surface.line(&[(x, y - 4.0), (x + 16.0, y - 4.0)], 2.5, colours[entry]);
            surface.text(x + 22.0, y, 11.0, Anchor::Start, SOFT, names[entry]);
            x += entry_width(names[entry]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plots() -> Vec<Plot> {
        let names = || vec!["cat <1>".to_owned(), "dog".to_owned(), "a & b".to_owned()];
        let curve = |name: &str| Curve { name: name.into(), points: vec![(0.0, 0.2), (1.0, 0.9)] };
        let charts = [
            Chart::Lines(Lines { curves: vec![curve("one"), curve("two")], ..Lines::default() }),
            Chart::Bars(Bars {
                names: names(),
                series: vec![("AP".into(), vec![Some(0.5), None, Some(1.0)])],
                most: 1.0,
            }),
            Chart::HeatMap(HeatMap {
                rows: names(),
                columns: names(),
                values: vec![vec![Some(1.0), Some(0.0), None]; 3],
                row_axis: "true".into(),
                column_axis: "predicted".into(),
            }),
            Chart::Reliability(ReliabilityDiagram {
                bins: vec![ReliabilityBin {
                    low: 0.0,
                    high: 0.5,
                    confidence: 0.2,
                    accuracy: 0.3,
                    share: 1.0,
                }],
            }),
        ];
        charts.map(|chart| Plot { title: "A <title> & more".into(), chart }).into()
    }

    #[test]
    fn every_kind_of_plot_is_an_svg_and_a_png_with_its_title_and_names_in_it() {
        let folder = tempfile::tempdir().unwrap();
        for (i, plot) in plots().iter().enumerate() {
            let [svg, png] = plot.write(folder.path(), &format!("plot{i}")).unwrap();
            let svg = std::fs::read_to_string(svg).unwrap();
            assert_eq!(svg.matches(">A &lt;title&gt; &amp; more</text>").count(), 1, "{svg}");
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"));
            if matches!(plot.chart, Chart::Bars(_) | Chart::HeatMap(_)) {
                assert!(svg.contains("cat &lt;1&gt;") && svg.contains("a &amp; b"), "{svg}");
            }
            let image = crate::data::image_files::read_image(png).unwrap();
            let (width, height) = plot.size();
            assert_eq!(
                (image.width, image.height),
                ((width * SCALE) as usize, (height * SCALE) as usize)
            );
            assert!(image.rgb.iter().any(|&value| value != 255));
        }
    }

    #[test]
    fn a_legend_that_is_too_wide_goes_on_in_the_next_row() {
        let names = ["a", "a much longer name", "b", "c"];
        assert_eq!(legend_rows(&names, 1e6), [[0, 1, 2, 3]]);
        let rows = legend_rows(&names, 160.0);
        assert!(rows.len() > 1 && rows.concat() == [0, 1, 2, 3], "{rows:?}");
        assert!(legend_rows(&[], 100.0).is_empty());
    }
}
