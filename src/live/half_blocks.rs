//! An image in a terminal: two pixels a character.

use super::tiles::Tiles;
use crate::data::Image;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::widgets::Widget;

/// Draws tiles of one size, which stand side by side in an image, as upper half blocks (▀): the letter's
/// colour is the upper pixel, the ground's the lower one, each of 24 bits. The tiles are arranged so that
/// they become as large as the area allows, with their proportions kept.
///
/// ```
/// use atrous::data::Image;
/// use atrous::live::HalfBlocks;
/// use ratatui::{buffer::Buffer, layout::Rect, style::Color, widgets::Widget};
///
/// let image = Image::new(2, 1, vec![255, 0, 0, 0, 0, 255])?; // red above blue
/// let mut screen = Buffer::empty(Rect::new(0, 0, 1, 1));
/// HalfBlocks { image: &image, tiles: 1 }.render(screen.area, &mut screen);
/// let cell = &screen[(0, 0)];
/// assert_eq!((cell.symbol(), cell.fg, cell.bg), ("▀", Color::Rgb(255, 0, 0), Color::Rgb(0, 0, 255)));
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct HalfBlocks<'a> {
    /// The tiles side by side.
    pub image: &'a Image,
    /// How many there are, at least one.
    pub tiles: usize,
}

impl Widget for HalfBlocks<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let Some(tiles) = Tiles::new(self.image, self.tiles) else { return };
        let (columns, size) = tiles.arrangement(area.width as usize, 2 * area.height as usize);
        // Whole characters.
        let size = (size.0, size.1 / 2 * 2);
        if size.0 == 0 || size.1 == 0 {
            return;
        }
        for tile in 0..self.tiles {
            let (left, top) = (tile % columns * size.0, tile / columns * size.1 / 2);
            for y in 0..size.1 / 2 {
                for x in 0..size.0 {
                    let place = (area.x + (left + x) as u16, area.y + (top + y) as u16);
                    if let Some(cell) = buffer.cell_mut(place) {
                        let [above, below] = [2 * y, 2 * y + 1].map(|y| {
                            let [r, g, b] = tiles.pixel(tile, (x, y), size);
                            Color::Rgb(r, g, b)
                        });
                        cell.set_symbol("▀").set_fg(above).set_bg(below);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tiles::tests::two;
    use super::*;

    fn drawn(width: u16, height: u16) -> Buffer {
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        HalfBlocks { image: &two(), tiles: 2 }.render(buffer.area, &mut buffer);
        buffer
    }

    fn colours(buffer: &Buffer, x: u16, y: u16) -> [Color; 2] {
        [buffer[(x, y)].fg, buffer[(x, y)].bg]
    }

    const RED: Color = Color::Rgb(255, 0, 0);
    const BLACK: Color = Color::Rgb(0, 0, 0);
    const WHITE: Color = Color::Rgb(255, 255, 255);

    #[test]
    fn a_character_shows_two_pixels() {
        let buffer = drawn(8, 2);
        assert_eq!((buffer[(0, 0)].symbol(), colours(&buffer, 3, 1)), ("▀", [RED, RED]));
        assert_eq!([colours(&buffer, 4, 0), colours(&buffer, 7, 1)], [[BLACK; 2], [WHITE; 2]]);
    }

    #[test]
    fn a_smaller_image_has_the_mean_colour_of_what_it_covers() {
        // Each tile in 2 × 2 pixels, then in 1 × 1 (which is no whole character).
        let buffer = drawn(4, 1);
        assert_eq!([colours(&buffer, 0, 0), colours(&buffer, 2, 0)], [[RED, RED], [BLACK, WHITE]]);
        assert_eq!(drawn(2, 1)[(0, 0)].symbol(), " ");
    }

    #[test]
    fn tiles_are_arranged_to_fill_the_area() {
        // Narrow and high: one below the other.
        let buffer = drawn(4, 4);
        assert_eq!([colours(&buffer, 0, 0), colours(&buffer, 0, 2)], [[RED; 2], [BLACK; 2]]);
        assert_eq!(colours(&buffer, 0, 3), [WHITE; 2]);
    }
}
