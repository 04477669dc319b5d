//! Colours that all pictures share.

use super::canvas::Rgb;
use crate::data::{CLASSES, Mask, Picture, VOID};

pub const INK: Rgb = [38, 43, 51];
pub const SOFT: Rgb = [104, 112, 124];
pub const AXIS: Rgb = [170, 176, 186];
pub const GRID: Rgb = [230, 233, 237];
pub const EMPTY: Rgb = [243, 244, 246];
pub const RIGHT: Rgb = [72, 150, 98];
pub const WRONG: Rgb = [193, 84, 74];
pub const BAR: Rgb = [154, 171, 194];

/// Train, validation, and others.
pub const SERIES: [Rgb; 6] =
    [[49, 104, 166], [217, 119, 49], [72, 150, 98], [140, 96, 168], [193, 84, 74], [106, 116, 128]];

/// VOC's colour of a value in a mask: its bits, from the lowest, are dealt to red, green and blue in
/// turn, from the highest bit down. Void comes to cream.
pub fn palette(value: u8) -> Rgb {
    let mut colour = [0u8; 3];
    for bit in 0..8 {
        colour[bit % 3] |= (value >> bit & 1) << (7 - bit / 3);
    }
    colour
}

/// The mask in its colours.
pub fn coloured(mask: &Mask) -> Picture {
    let rgb = mask.classes.iter().flat_map(|&class| palette(class)).collect();
    Picture { height: mask.height, width: mask.width, rgb }
}

/// The classes that have a pixel in one of the masks, or a mark in one of the labels.
pub fn present<'a>(masks: impl Iterator<Item = &'a Mask>) -> (Vec<usize>, bool) {
    let mut seen = [false; 256];
    masks.flat_map(|mask| &mask.classes).for_each(|&class| seen[class as usize] = true);
    ((0..CLASSES.len()).filter(|&class| seen[class + 1]).collect(), seen[VOID as usize])
}

/// The text, cut to a width with an ellipsis.
pub fn fitted(text: &str, size: f64, width: f64) -> String {
    if super::font::width(text) * size <= width {
        return text.to_owned();
    }
    let mut short: String = text.to_owned();
    while short.pop().is_some() {
        let cut = format!("{}…", short.trim_end());
        if super::font::width(&cut) * size <= width {
            return cut;
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_is_vocs() {
        for (value, colour) in [
            (0, [0, 0, 0]),
            (1, [128, 0, 0]),
            (7, [128, 128, 128]),
            (8, [64, 0, 0]),
            (15, [192, 128, 128]),
            (20, [0, 64, 128]),
            (255, [224, 224, 192]),
        ] {
            assert_eq!(palette(value), colour, "{value}");
        }
    }

    #[test]
    fn a_text_too_long_is_cut_to_its_width() {
        assert_eq!(fitted("cat", 10.0, 100.0), "cat");
        let cut = fitted("a very long name of a picture", 10.0, 60.0);
        assert!(cut.ends_with('…') && super::super::font::width(&cut) * 10.0 <= 60.0, "{cut}");
        assert_eq!(fitted("abc", 10.0, 0.0), "");
    }
}
