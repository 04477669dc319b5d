//! VOC's colours, and palettes that hold them under other numbers.

use super::masks::is_class;
use crate::data::{CLASSES, VOID};
use std::collections::HashMap;
use std::sync::LazyLock;

pub(super) type Rgb = [u8; 3];

const BLACK: Rgb = [0; 3];

/// PASCAL VOC's colours: bit k of the red (green, blue) channel, from the highest down, is bit 3k
/// (3k + 1, 3k + 2) of the number.
///
/// ```
/// use atrous::data::image_files::voc_palette;
///
/// let palette = voc_palette();
/// assert_eq!(palette[0], [0, 0, 0]);
/// assert_eq!(palette[1], [128, 0, 0]); // aeroplane
/// assert_eq!(palette[8], [64, 0, 0]); // cat: bit 3 is the red channel's second
/// assert_eq!(palette[255], [224, 224, 192]); // void
/// ```
pub fn voc_palette() -> [[u8; 3]; 256] {
    std::array::from_fn(voc_colour)
}

fn voc_colour(number: usize) -> Rgb {
    std::array::from_fn(|channel| {
        (0..3).map(|k| ((number >> (3 * k + channel) & 1) as u8) << (7 - k)).sum()
    })
}

/// The class (or background, or void) that VOC's palette shows in this colour.
pub(super) fn class(colour: Rgb) -> Option<u8> {
    static CLASSES_OF: LazyLock<HashMap<Rgb, u8>> = LazyLock::new(|| {
        let numbers = (0..=255).filter(|&number| is_class(number));
        numbers.map(|number| (voc_colour(number.into()), number)).collect()
    });
    CLASSES_OF.get(&colour).copied()
}

/// The class of each number that is used: the number itself, or what its colour says where the palette
/// holds VOC's colours under other numbers, as optimisers leave it. An error where both cannot be right.
pub(super) fn classes(samples: &[u8], palette: &[Rgb], opacities: &[u8]) -> Result<[u8; 256], String> {
    let mut used = [false; 256];
    samples.iter().for_each(|&number| used[usize::from(number)] = true);
    // Black at another number than 0 says nothing: palettes are filled up with it.
    let shown: Vec<(usize, Rgb)> =
        palette.iter().copied().enumerate().filter(|&(number, _)| used[number]).collect();
    let coloured = || shown.iter().copied().filter(|&(_, colour)| colour != BLACK);
    let other = |number: usize, class: u8| usize::from(class) != number;

    let mut classes: [u8; 256] = std::array::from_fn(|number| number as u8);
    let moved = coloured().find_map(|(number, colour)| {
        class(colour).filter(|&class| other(number, class)).map(|class| (number, colour, class))
    });
    let Some((number, colour, known)) = moved else {
        let level = |[r, g, b]: Rgb| (r == g && g == b && is_class(r)).then_some(r);
        let ramp = coloured().all(|(_, colour)| level(colour).is_some());
        let moved =
            coloured().find(|&(number, colour)| level(colour).is_some_and(|level| other(number, level)));
        return match moved {
            Some((number, colour)) if ramp => Err(format!(
                "expected a palette that says the same as its numbers, got the grey level {} under \
                 {number}: either may be the class; store the mask with VOC's palette",
                colour[0]
            )),
            _ => Ok(classes),
        };
    };
    let refused = |what: String| {
        Err(format!(
            "expected the colours of VOC's classes alone, since {colour:?}, which is {}, has the number \
             {number}; got {what}; store the mask with VOC's palette",
            name(known)
        ))
    };
    let mut owners = [None; 256];
    for number in (0..256).filter(|&number| used[number]) {
        let Some(&colour) = palette.get(number) else {
            return refused(format!("the number {number}, which has no colour"));
        };
        if opacities.get(number).is_some_and(|&opacity| opacity != 255) {
            return refused(format!("the transparent colour {colour:?} under {number}"));
        }
        let Some(class) = class(colour) else {
            return refused(format!("the colour {colour:?} under {number}"));
        };
        if let Some(owner) = owners[usize::from(class)].replace(number) {
            return refused(format!("the colour {colour:?} under {owner} and {number}"));
        }
        classes[number] = class;
    }
    Ok(classes)
}

fn name(class: u8) -> String {
    match class {
        0 => "background".to_owned(),
        VOID => "void".to_owned(),
        class => format!("class {class} ({})", CLASSES[usize::from(class) - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_is_vocs() {
        let palette = voc_palette();
        let known = [
            (0, [0, 0, 0]),
            (1, [128, 0, 0]),
            (2, [0, 128, 0]),
            (7, [128, 128, 128]),
            (8, [64, 0, 0]),
            (15, [192, 128, 128]),
            (20, [0, 64, 128]),
            (255, [224, 224, 192]),
        ];
        assert!(known.iter().all(|&(number, colour)| palette[number] == colour));
        let mut distinct = palette.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 256);
        assert_eq!(class([64, 0, 0]), Some(8));
        assert_eq!(class(palette[21]), None);
    }

    fn grey(levels: &[u8]) -> Vec<Rgb> {
        levels.iter().map(|&level| [level; 3]).collect()
    }

    #[test]
    fn vocs_colours_under_other_numbers_are_mapped_by_colour() {
        let void = [224, 224, 192];
        let found = classes(&[0, 1, 2, 1], &[BLACK, void, [192, 128, 128]], &[]).unwrap();
        assert_eq!(found[..3], [0, 255, 15]);
        // By frequency: void first, black last. What is not used does not count.
        let palette = [void, [64, 128, 0], [1, 2, 3], BLACK];
        let found = classes(&[3, 0, 1], &palette, &[]).unwrap();
        assert_eq!([found[0], found[1], found[3]], [255, 10, 0]);
        // Some in their place.
        let found = classes(&[1, 2], &[BLACK, [128, 0, 0], [64, 0, 0]], &[]).unwrap();
        assert_eq!(found[1..3], [1, 8]);
        // One class and nothing else.
        assert_eq!(classes(&[0; 4], &[[128, 0, 0]], &[]).unwrap()[0], 1);
        // Opaque entries may be said to be.
        assert_eq!(classes(&[0], &[[128, 0, 0]], &[255]).unwrap()[0], 1);
    }

    #[test]
    fn numbers_count_where_the_palette_does_not_contradict_them() {
        let all: Vec<u8> = (0..=20).chain([255]).collect();
        let identity: [u8; 256] = std::array::from_fn(|i| i as u8);
        let levels: Vec<u8> = (0..=255).collect();
        let other: Vec<Rgb> = (0..=255).map(|i| [i, 255 - i, 7]).collect();
        let short = voc_palette()[..21].to_vec();
        let mut padded = short.clone();
        padded.resize(256, BLACK);
        let mut white = voc_palette().to_vec();
        white[255] = [255; 3];
        let stretched: Vec<Rgb> = (0..=20).map(|i| [12 * i; 3]).collect();
        let palettes = [
            voc_palette().to_vec(),
            grey(&levels),
            other,
            vec![BLACK; 256],
            short,
            padded,
            white,
            stretched,
        ];
        for palette in palettes {
            assert_eq!(classes(&all, &palette, &[0]).unwrap(), identity, "{:?}", &palette[1]);
        }
    }

    #[test]
    fn palettes_that_contradict_their_numbers_are_refused_by_colour_and_number() {
        let cases = [
            (
                &[0, 1, 2][..],
                vec![BLACK, [0, 128, 0], [9, 9, 200]],
                &[][..],
                "the colour [9, 9, 200] under 2",
            ),
            (&[0, 1, 2], vec![BLACK, [0, 128, 0], BLACK], &[], "[0, 0, 0] under 0 and 2"),
            (&[0, 1, 9], vec![BLACK, [0, 128, 0]], &[], "the number 9, which has no colour"),
            (&[0, 1], vec![BLACK, [0, 128, 0]], &[255, 7], "transparent colour [0, 128, 0] under 1"),
            (&[0, 1, 2], grey(&[0, 15, 255]), &[], "the grey level 15 under 1"),
        ];
        for (samples, palette, opacities, part) in cases {
            let error = classes(samples, &palette, opacities).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
