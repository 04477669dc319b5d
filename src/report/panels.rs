//! Predictions to look at: one row an image, with what is true, what was predicted, and how sure
//! the network was.

use super::canvas::{Anchor, Canvas, Surface};
use super::legend::Legend;
use super::style::{AXIS, BAR, EMPTY, INK, RIGHT, SOFT, WRONG, coloured, fitted, present};
use crate::data::{BACKGROUND, Classes, Image, Labels, Mask, VOID};
use crate::error::{Error, Result};
use std::path::Path;

/// One row of a panel. What is not known is left empty; a column that no row has is left out.
///
/// [`panel()`] has an example.
#[derive(Clone, Debug, Default)]
pub struct PanelRow {
    /// Printed above the row: what the image is called.
    pub name: String,
    /// The image itself.
    pub image: Option<Image>,
    /// The true mask, of the image's size.
    pub truth: Option<Mask>,
    /// The predicted mask, of the image's size.
    pub prediction: Option<Mask>,
    /// The classes that are in the image.
    pub labels: Option<Labels>,
    /// The classes that were predicted.
    pub predicted: Option<Labels>,
    /// One a class, 0 to 1, or none at all.
    pub probabilities: Vec<f32>,
}

const CELL: f64 = 190.0;
const SPACE: f64 = 16.0;
const MARGIN: f64 = 28.0;
const HEADING: f64 = 34.0;
/// A row: its name above, the images, and space.
const CAPTION: f64 = 24.0;
const ROW: f64 = CAPTION + CELL * 0.75 + SPACE;
const BARS: f64 = 300.0;
const LINE: f64 = 21.0;
/// So many classes are shown with their confidences.
const SHOWN: usize = 5;
const SCALE: f64 = 1.5;

/// Writes a PNG: a row an image, a legend of the masks' classes below. An error for no rows, labels,
/// probabilities or masks that do not fit, and where the PNG cannot be written.
///
/// ```
/// use atrous::data::{Classes, Image, Mask};
/// use atrous::report::{PanelRow, panel};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("panel.png");
/// let row = PanelRow {
///     name: "2007_000032".into(),
///     image: Some(Image::new(2, 2, vec![128; 12])?),
///     truth: Some(Mask::new(2, 2, vec![0, 0, 15, 15])?),
///     prediction: Some(Mask::new(2, 2, vec![0, 15, 15, 15])?),
///     ..PanelRow::default()
/// };
/// panel(&[row.clone()], &Classes::voc(), &path)?;
/// assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
/// let wrong = PanelRow { truth: Some(Mask::new(1, 1, vec![0])?), ..row };
/// assert!(panel(&[wrong], &Classes::voc(), &path).is_err()); // a mask of another size
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn panel(rows: &[PanelRow], classes: &Classes, path: &Path) -> Result<()> {
    if rows.is_empty() {
        return Err(Error::argument("panel", "expected at least one row"));
    }
    rows.iter().enumerate().try_for_each(|(i, row)| check(i, row, classes.len()))?;
    let any = |has: fn(&PanelRow) -> bool| rows.iter().any(has);
    let columns: Vec<&str> = [
        ("picture", any(|row| row.image.is_some())),
        ("truth", any(|row| row.truth.is_some())),
        ("prediction", any(|row| row.prediction.is_some())),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect();
    let bars = any(|row| !row.probabilities.is_empty());
    let masks = rows.iter().flat_map(|row| row.truth.iter().chain(&row.prediction));
    let (shown, void) = present(masks);
    let mut explained: Vec<u8> = shown.iter().map(|&class| class as u8 + 1).collect();
    if columns.len() > 1 || columns.first().is_some_and(|&name| name != "picture") {
        explained.insert(0, BACKGROUND);
    }
    if void {
        explained.push(VOID);
    }

    let images = columns.len() as f64 * (CELL + SPACE);
    let inner = images + if bars { BARS } else { -SPACE };
    let inner = inner.max(2.0 * CELL);
    let legend = Legend::new(&explained, classes, inner);
    let height = 2.0 * MARGIN + HEADING + rows.len() as f64 * ROW + legend.height() - SPACE / 2.0;
    let mut canvas = Canvas::new(inner + 2.0 * MARGIN, height, SCALE)?;

    for (i, name) in columns.iter().enumerate() {
        let x = MARGIN + i as f64 * (CELL + SPACE);
        canvas.text(x, MARGIN + 14.0, 14.0, Anchor::Start, INK, name);
    }
    if bars {
        canvas.text(MARGIN + images, MARGIN + 14.0, 14.0, Anchor::Start, INK, "confidence");
    }
    canvas.rectangle(MARGIN, MARGIN + HEADING - 12.0, inner, 1.0, AXIS);
    for (i, row) in rows.iter().enumerate() {
        let top = MARGIN + HEADING + i as f64 * ROW;
        let name = fitted(&row.name, 12.0, inner);
        canvas.text(MARGIN, top + 12.0, 12.0, Anchor::Start, SOFT, &name);
        let top = top + CAPTION;
        for (column, name) in columns.iter().enumerate() {
            let x = MARGIN + column as f64 * (CELL + SPACE);
            let shown = match *name {
                "picture" => row.image.clone(),
                "truth" => row.truth.as_ref().map(|mask| blended(mask, row.image.as_ref())),
                _ => row.prediction.as_ref().map(|mask| blended(mask, row.image.as_ref())),
            };
            canvas.rectangle(x, top, CELL, CELL * 0.75, EMPTY);
            match shown {
                Some(shown) => canvas.image(x, top, CELL, CELL * 0.75, &shown),
                None => {
                    let (x, y) = (x + CELL / 2.0, top + CELL * 0.375 + 4.0);
                    canvas.text(x, y, 12.0, Anchor::Middle, SOFT, "not known");
                }
            }
        }
        if !row.probabilities.is_empty() {
            draw_bars(&mut canvas, row, classes, MARGIN + images, top);
        }
    }
    legend.draw(&mut canvas, MARGIN, height - MARGIN - legend.height());
    canvas.write_png(path)
}

fn check(i: usize, row: &PanelRow, classes: usize) -> Result<()> {
    if !row.probabilities.is_empty() && row.probabilities.len() != classes {
        let expected = format!("{classes} probabilities in row {i}, or none");
        return Err(Error::shape("panel", expected, row.probabilities.len()));
    }
    if let Some(labels) = row.labels.iter().chain(&row.predicted).find(|l| l.len() != classes) {
        return Err(Error::shape(
            "panel",
            format!("{classes} labels in row {i}, or none"),
            labels.len(),
        ));
    }
    let Some(image) = &row.image else { return Ok(()) };
    for mask in row.truth.iter().chain(&row.prediction) {
        if (mask.height, mask.width) != (image.height, image.width) {
            let expected = format!("masks of the picture's {}×{} in row {i}", image.height, image.width);
            return Err(Error::shape("panel", expected, format!("{}×{}", mask.height, mask.width)));
        }
    }
    Ok(())
}

/// The mask's colours over an image of its size that is paler and without colours of its own; the mask's
/// alone without an image.
///
/// ```
/// use atrous::data::Mask;
/// use atrous::report::blended;
///
/// let image = blended(&Mask::new(1, 2, vec![0, 15])?, None);
/// assert_eq!(image.rgb, [0, 0, 0, 192, 128, 128]); // VOC's black of the background and pink of persons
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn blended(mask: &Mask, image: Option<&Image>) -> Image {
    let mut colours = coloured(mask);
    let Some(image) = image else { return colours };
    let pixels = colours.rgb.chunks_exact_mut(3).zip(image.rgb.chunks_exact(3));
    for ((colour, pixel), &class) in pixels.zip(&mask.classes) {
        // Rec. 601's share of each channel in what an eye sees as brightness.
        let grey = 0.299 * pixel[0] as f32 + 0.587 * pixel[1] as f32 + 0.114 * pixel[2] as f32;
        let share = if class == BACKGROUND { 0.35 } else { 0.72 };
        for value in colour {
            *value = (share * *value as f32 + (1.0 - share) * grey).round() as u8;
        }
    }
    colours
}

/// The most probable classes and their probabilities; true ones marked, and those that are missing
/// named below.
fn draw_bars(canvas: &mut Canvas, row: &PanelRow, classes: &Classes, x: f64, top: f64) {
    let probability = |class: usize| row.probabilities[class];
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by(|&a, &b| probability(b).total_cmp(&probability(a)));
    let is_true = |class: usize| row.labels.as_ref().map(|labels| labels[class]);
    let is_predicted = |class: usize| row.predicted.as_ref().is_some_and(|labels| labels[class]);
    let (bar, full) = (x + 112.0, BARS - 112.0 - 44.0);
    for (i, &class) in order.iter().take(SHOWN).enumerate() {
        let y = top + 2.0 + i as f64 * LINE;
        let colour = match is_true(class) {
            Some(true) => RIGHT,
            Some(false) if is_predicted(class) => WRONG,
            _ => BAR,
        };
        let ink = if is_predicted(class) || is_true(class) == Some(true) { INK } else { SOFT };
        if is_true(class) == Some(true) {
            canvas.text(x, y + 11.5, 12.0, Anchor::Start, RIGHT, "✓");
        }
        canvas.text(x + 15.0, y + 11.5, 12.0, Anchor::Start, ink, &fitted(&classes[class], 12.0, 94.0));
        canvas.rectangle(bar, y, full, 14.0, EMPTY);
        let share = (probability(class) as f64).clamp(0.0, 1.0);
        canvas.rectangle(bar, y, full * share, 14.0, colour);
        let value = format!("{:.2}", probability(class));
        canvas.text(x + BARS, y + 11.5, 12.0, Anchor::End, ink, &value);
    }
    let names = |some: Vec<usize>| {
        let named = |&class: &usize| format!("{} {:.2}", &classes[class], probability(class));
        some.iter().map(named).collect::<Vec<_>>().join(", ")
    };
    let y = top + SHOWN as f64 * LINE + 16.0;
    let all =
        |wanted: &dyn Fn(usize) -> bool| (0..classes.len()).filter(|&c| wanted(c)).collect::<Vec<_>>();
    if let Some(predicted) = &row.predicted {
        let said = classes.listed(predicted);
        let text = fitted(&format!("predicted: {said}"), 11.0, BARS);
        canvas.text(x, y, 11.0, Anchor::Start, SOFT, &text);
    }
    // True, but neither predicted nor, where predictions are not known, among those shown.
    let missing = all(&|class| {
        let seen = if row.predicted.is_some() {
            is_predicted(class)
        } else {
            order.iter().take(SHOWN).any(|&shown| shown == class)
        };
        is_true(class) == Some(true) && !seen
    });
    if !missing.is_empty() {
        let text = fitted(&format!("missed: {}", names(missing)), 11.0, BARS);
        canvas.text(x, y + 16.0, 11.0, Anchor::Start, WRONG, &text);
    }
}
