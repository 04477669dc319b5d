//! Images in rows and columns, with lines of text below each.

use super::canvas::{Anchor, Canvas, Rgb, Surface};
use super::legend::Legend;
use super::style::{AXIS, EMPTY, INK, RIGHT, SOFT, WRONG, fitted};
use crate::data::{Classes, Image};
use crate::error::{Error, Result};
use std::path::Path;

/// How a line is meant, and so its colour.
///
/// [`grid()`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Grey: it says what is there.
    #[default]
    Plain,
    /// Green: it is as it should be.
    Right,
    /// Red: it is not.
    Wrong,
}

/// An image with lines of text.
///
/// [`grid()`] has an example.
#[derive(Clone, Debug)]
pub struct GridCell {
    /// Fitted into the cell.
    pub image: Image,
    /// Below it, each cut to the cell's width.
    pub lines: Vec<(String, Tone)>,
}

/// One row: as many cells as there are headings.
///
/// [`grid()`] has an example.
#[derive(Clone, Debug)]
pub struct GridRow {
    /// Printed above the row.
    pub name: String,
    /// From left to right.
    pub cells: Vec<GridCell>,
}

const CELL: f64 = 190.0;
const HEIGHT: f64 = CELL * 0.75;
const SPACE: f64 = 16.0;
const MARGIN: f64 = 28.0;
const HEADING: f64 = 34.0;
const CAPTION: f64 = 24.0;
const LINE: f64 = 16.0;
const SCALE: f64 = 1.5;

/// Writes a PNG of rows below headings, one a column. `legend` lists values of masks whose colours are to be
/// explained, and what the classes are called. An error for no rows or columns, a row with another number of
/// cells, and where the PNG cannot be written.
///
/// ```
/// use atrous::data::{Classes, Image};
/// use atrous::report::{GridCell, GridRow, Tone, grid};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("grid.png");
/// let cell = |grey, line: &str, tone| -> atrous::Result<GridCell> {
///     Ok(GridCell { image: Image::new(2, 2, vec![grey; 12])?, lines: vec![(line.into(), tone)] })
/// };
/// let cells = vec![cell(0, "cat 0.9", Tone::Right)?, cell(9, "dog 0.6", Tone::Wrong)?];
/// let rows = [GridRow { name: "2007_000032".into(), cells }];
/// grid(&["clean".into(), "attacked".into()], &rows, (&[], &Classes::voc()), &path)?;
/// assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
/// assert!(grid(&["clean".into()], &rows, (&[], &Classes::voc()), &path).is_err()); // two cells below one heading
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn grid(
    headings: &[String],
    rows: &[GridRow],
    (legend, classes): (&[u8], &Classes),
    path: &Path,
) -> Result<()> {
    if rows.is_empty() || headings.is_empty() {
        return Err(Error::argument("grid", "expected at least one row and one column"));
    }
    if let Some((i, row)) = rows.iter().enumerate().find(|(_, row)| row.cells.len() != headings.len()) {
        let expected = format!("{} cells in row {i}", headings.len());
        return Err(Error::shape("grid", expected, row.cells.len()));
    }
    let inner = headings.len() as f64 * (CELL + SPACE) - SPACE;
    let legend = Legend::new(legend, classes, inner);
    let text =
        |row: &GridRow| row.cells.iter().map(|cell| cell.lines.len()).max().unwrap_or(0) as f64 * LINE;
    let tall = |row: &GridRow| CAPTION + HEIGHT + text(row) + SPACE;
    let height =
        2.0 * MARGIN + HEADING + rows.iter().map(tall).sum::<f64>() + legend.height() - SPACE / 2.0;
    let mut canvas = Canvas::new(inner + 2.0 * MARGIN, height, SCALE)?;

    for (i, heading) in headings.iter().enumerate() {
        let x = MARGIN + i as f64 * (CELL + SPACE);
        canvas.text(x, MARGIN + 14.0, 14.0, Anchor::Start, INK, &fitted(heading, 14.0, CELL));
    }
    canvas.rectangle(MARGIN, MARGIN + HEADING - 12.0, inner, 1.0, AXIS);
    let mut top = MARGIN + HEADING;
    for row in rows {
        canvas.text(MARGIN, top + 12.0, 12.0, Anchor::Start, SOFT, &fitted(&row.name, 12.0, inner));
        for (i, cell) in row.cells.iter().enumerate() {
            let (x, y) = (MARGIN + i as f64 * (CELL + SPACE), top + CAPTION);
            canvas.rectangle(x, y, CELL, HEIGHT, EMPTY);
            canvas.image(x, y, CELL, HEIGHT, &cell.image);
            for (line, (text, tone)) in cell.lines.iter().enumerate() {
                let y = y + HEIGHT + 13.0 + line as f64 * LINE;
                canvas.text(x, y, 11.0, Anchor::Start, ink(*tone), &fitted(text, 11.0, CELL));
            }
        }
        top += tall(row);
    }
    legend.draw(&mut canvas, MARGIN, height - MARGIN - legend.height());
    canvas.write_png(path)
}

fn ink(tone: Tone) -> Rgb {
    match tone {
        Tone::Plain => SOFT,
        Tone::Right => RIGHT,
        Tone::Wrong => WRONG,
    }
}

/// The difference of two images, `gain` times as large, around a middle grey; an error where their sizes
/// differ.
///
/// ```
/// use atrous::data::Image;
/// use atrous::report::difference;
///
/// let [before, after] = [100, 104].map(|grey| Image::new(1, 1, vec![grey; 3]));
/// let (before, after) = (before?, after?);
/// let grey = difference(&before, &before, 10.0)?.rgb[0];
/// assert_eq!(difference(&after, &before, 10.0)?.rgb[0] - grey, 40);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn difference(after: &Image, before: &Image, gain: f32) -> Result<Image> {
    if (after.height, after.width) != (before.height, before.width) {
        let expected = format!("pictures of one size, {}×{}", before.height, before.width);
        return Err(Error::shape("difference", expected, format!("{}×{}", after.height, after.width)));
    }
    let grey =
        |(&a, &b): (&u8, &u8)| (127.5 + gain * (a as f32 - b as f32)).round().clamp(0.0, 255.0) as u8;
    Image::new(after.height, after.width, after.rgb.iter().zip(&before.rgb).map(grey).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_amplified_around_grey() {
        let image = |v: [u8; 3]| Image::new(1, 1, v.to_vec()).unwrap();
        let seen = difference(&image([12, 10, 6]), &image([10, 10, 10]), 16.0).unwrap();
        assert_eq!(seen.rgb, [160, 128, 64]);
        let other = Image::new(1, 2, vec![0; 6]).unwrap();
        assert!(difference(&other, &image([0; 3]), 1.0).is_err());
    }

    #[test]
    fn rows_have_a_cell_a_heading() {
        let folder = tempfile::tempdir().unwrap();
        let cell = GridCell {
            image: Image::new(2, 2, vec![9; 12]).unwrap(),
            lines: vec![("a".into(), Tone::Wrong)],
        };
        let row = GridRow { name: "one".into(), cells: vec![cell.clone(), cell] };
        let path = folder.path().join("grid.png");
        let headings = ["a".to_owned(), "b".to_owned()];
        grid(&headings, std::slice::from_ref(&row), (&[0, 1, 255], &Classes::voc()), &path).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 500);
        let error = grid(&headings[..1], &[row], (&[], &Classes::voc()), &path).unwrap_err().to_string();
        assert!(error.contains("1 cells in row 0"), "{error}");
        assert!(grid(&headings, &[], (&[], &Classes::voc()), &path).is_err());
    }
}
