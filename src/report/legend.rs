//! What the colours of masks mean, below images.

use super::canvas::{Anchor, Canvas, Surface};
use super::style::{INK, fitted, palette};
use crate::data::Classes;

/// The values of masks that are explained, in a width.
pub(crate) struct Legend<'a> {
    values: &'a [u8],
    classes: &'a Classes,
    /// Entries a line.
    entries: usize,
}

const ENTRY: f64 = 124.0;
const LINE: f64 = 21.0;
/// Space above.
const ABOVE: f64 = 10.0;

impl<'a> Legend<'a> {
    pub(crate) fn new(values: &'a [u8], classes: &'a Classes, width: f64) -> Self {
        Legend { values, classes, entries: (width / ENTRY).floor().max(1.0) as usize }
    }

    pub(crate) fn height(&self) -> f64 {
        match self.values.len() {
            0 => 0.0,
            n => ABOVE + n.div_ceil(self.entries) as f64 * LINE,
        }
    }

    /// Draws it with its upper left corner there.
    pub(crate) fn draw(&self, canvas: &mut Canvas, left: f64, top: f64) {
        for (i, &value) in self.values.iter().enumerate() {
            let name = fitted(self.classes.of_mask(value), 12.0, ENTRY - 24.0);
            let x = left + (i % self.entries) as f64 * ENTRY;
            let y = top + ABOVE + (i / self.entries) as f64 * LINE;
            canvas.rectangle(x, y, 14.0, 14.0, palette(value));
            canvas.text(x + 21.0, y + 11.0, 12.0, Anchor::Start, INK, &name);
        }
    }
}
