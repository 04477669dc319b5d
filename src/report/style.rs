//! Colours that all images share.

use super::canvas::Rgb;
use crate::data::image_files::voc_palette;
use crate::data::{Image, Mask, VOID};
use std::sync::LazyLock;

pub(crate) const INK: Rgb = [38, 43, 51];
pub(crate) const SOFT: Rgb = [104, 112, 124];
pub(crate) const AXIS: Rgb = [170, 176, 186];
pub(crate) const GRID: Rgb = [230, 233, 237];
pub(crate) const EMPTY: Rgb = [243, 244, 246];
pub(crate) const RIGHT: Rgb = [72, 150, 98];
pub(crate) const WRONG: Rgb = [193, 84, 74];
pub(crate) const BAR: Rgb = [154, 171, 194];

/// Train, validation, and others.
pub(crate) const SERIES: [Rgb; 6] =
    [[49, 104, 166], [217, 119, 49], [72, 150, 98], [140, 96, 168], [193, 84, 74], [106, 116, 128]];

/// VOC's colour of a value in a mask.
pub(crate) fn palette(value: u8) -> Rgb {
    static PALETTE: LazyLock<[Rgb; 256]> = LazyLock::new(voc_palette);
    PALETTE[value as usize]
}

/// The mask in its colours.
pub(crate) fn coloured(mask: &Mask) -> Image {
    let rgb = mask.classes.iter().flat_map(|&class| palette(class)).collect();
    Image { height: mask.height, width: mask.width, rgb }
}

/// The classes that have a pixel in one of the masks; and whether void has.
pub(crate) fn present<'a>(masks: impl Iterator<Item = &'a Mask>) -> (Vec<usize>, bool) {
    let mut seen = [false; 256];
    masks.flat_map(|mask| &mask.classes).for_each(|&class| seen[class as usize] = true);
    ((0..VOID as usize - 1).filter(|&class| seen[class + 1]).collect(), seen[VOID as usize])
}

/// The text, cut to a width with an ellipsis.
pub(crate) fn fitted(text: &str, size: f64, width: f64) -> String {
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
    fn a_text_too_long_is_cut_to_its_width() {
        assert_eq!(fitted("cat", 10.0, 100.0), "cat");
        let cut = fitted("a very long name of a picture", 10.0, 60.0);
        assert!(cut.ends_with('…') && super::super::font::width(&cut) * 10.0 <= 60.0, "{cut}");
        assert_eq!(fitted("abc", 10.0, 0.0), "");
    }
}
