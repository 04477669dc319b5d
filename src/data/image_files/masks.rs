//! Masks in PNG files.

use super::palette::{self, Rgb};
use super::png::{self, Png};
use crate::data::{CLASSES, Mask, VOID};
use ::png::ColorType;

/// Classes from a PNG's bytes, upright; whether numbers are classes is not looked at here.
///
/// | the file holds | its classes |
/// |---|---|
/// | 8-bit grey | the grey levels are the numbers (a) |
/// | a palette that does not contradict its numbers: VOC's, another one's, a grey ramp | the numbers |
/// | a palette with a colour of VOC (other than black) at another number | the colours (b) |
/// | a palette of greys at other numbers, all of them possible classes | refused: they contradict |
/// | RGB, RGBA of 8 bits | the colours, if all are VOC's and opaque; else refused |
/// | grey of 1, 2, 4 bits | refused (c), but for nothing but background |
/// | 16 bits a channel, grey with alpha | refused |
///
/// (a) Where one is no class and all are greys of VOC (0, and 128 for class 7), the colours count.
/// (b) If all that are used are VOC's, opaque and different; else refused.
/// (c) 1 may stand for class 1, or for white: void.
///
/// VOC's colours are those of background, the 20 classes and void (224, 224, 192). Only entries that are
/// used count. Black at another number is no colour (palettes are filled up with it), nor is what is
/// beyond the palette. Where numbers count, transparency does not.
///
/// ```
/// use atrous::data::image_files::{decode_mask_png, encode_png, voc_palette};
/// use atrous::data::{Image, VOID};
///
/// // VOC's colours of background, a cat and void, as RGB
/// let palette = voc_palette();
/// let colours = [palette[0], palette[8], palette[255]].concat();
/// let mut bytes = Vec::new();
/// encode_png(&mut bytes, &Image::new(1, 3, colours)?)?;
/// assert_eq!(decode_mask_png(&bytes)?.classes, [0, 8, VOID]);
/// // Pink is the colour of no class.
/// let mut bytes = Vec::new();
/// encode_png(&mut bytes, &Image::new(1, 1, vec![255, 192, 203])?)?;
/// assert!(decode_mask_png(&bytes).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode_mask_png(bytes: &[u8]) -> Result<Mask, String> {
    let png = png::read(bytes, accepted)?;
    let classes = match (png.color, png.bits) {
        (ColorType::Indexed, _) => {
            numbers(&png, &palette::classes(&png.samples, &png.palette, &png.transparent)?)
        }
        (ColorType::Grayscale, 8) => grey(png.samples),
        (ColorType::Grayscale, bits) => match png.samples.iter().all(|&value| value == 0) {
            true => png.samples,
            false => {
                let message = "levels of grey that may stand for themselves or for parts of white";
                return Err(format!("{EXPECTED}; got {message} ({bits} bits)"));
            }
        },
        _ => coloured(&png)?,
    };
    let ([height, width], classes) = png.orientation.apply([png.height, png.width], 1, classes);
    Mask::new(height, width, classes).map_err(|error| error.to_string())
}

/// The numbers of a PNG's pixels, upright: a palette's, or levels of 8-bit grey. Colours mean nothing, so
/// that masks of any classes can be read; RGB and other depths of grey are refused.
pub fn decode_numbered_png(bytes: &[u8]) -> Result<Mask, String> {
    let png = png::read(bytes, |color, bits| match (color, bits) {
        (ColorType::Indexed, _) | (ColorType::Grayscale, 8) => Ok(()),
        (kind, bits) => Err(format!(
            "expected a mask of palette numbers or of 8-bit grey, got {kind:?} of {bits} bits a channel"
        )),
    })?;
    let ([height, width], classes) = png.orientation.apply([png.height, png.width], 1, png.samples);
    Mask::new(height, width, classes).map_err(|error| error.to_string())
}

const EXPECTED: &str = "expected a mask of palette numbers (or 8-bit grey ones), 0 background, 1 to 20 \
                        classes, 255 void, or one in VOC's colours";

fn accepted(color: ColorType, bits: usize) -> Result<(), String> {
    let kind = match (color, bits) {
        (ColorType::Indexed | ColorType::Grayscale, 1..=8) | (ColorType::Rgb | ColorType::Rgba, 8) => {
            return Ok(());
        }
        (ColorType::Indexed, _) => "a palette",
        (ColorType::Grayscale, _) => "grey",
        (ColorType::GrayscaleAlpha, _) => "grey and alpha",
        (ColorType::Rgb, _) => "RGB",
        (ColorType::Rgba, _) => "RGBA",
    };
    Err(format!("{EXPECTED}; got {kind} of {bits} bits a channel"))
}

fn numbers(png: &Png, classes: &[u8; 256]) -> Vec<u8> {
    png.samples.iter().map(|&number| classes[usize::from(number)]).collect()
}

/// Is it a class, background or void?
pub(super) fn is_class(number: u8) -> bool {
    usize::from(number) <= CLASSES.len() || number == VOID
}

/// Grey levels are classes. Optimisers write the colours of a mask of background and class 7 as grey too.
fn grey(levels: Vec<u8>) -> Vec<u8> {
    let class = |level: u8| palette::class([level; 3]);
    if levels.iter().all(|&level| is_class(level)) || levels.iter().any(|&level| class(level).is_none())
    {
        return levels;
    }
    levels.into_iter().filter_map(class).collect()
}

/// Classes of VOC's colours.
fn coloured(png: &Png) -> Result<Vec<u8>, String> {
    let key = png.transparent.first_chunk::<3>();
    let pixels = png.samples.chunks_exact(png.color.samples());
    pixels
        .enumerate()
        .map(|(i, pixel)| {
            let colour: Rgb = [pixel[0], pixel[1], pixel[2]];
            let opaque = pixel.get(3).is_none_or(|&alpha| alpha == 255) && key != Some(&colour);
            let class = palette::class(colour).filter(|_| opaque);
            class.ok_or_else(|| {
                let kind = if pixel.len() == 4 { "RGBA" } else { "RGB" };
                let how = if opaque { "" } else { "transparent " };
                let (row, column) = (i / png.width, i % png.width);
                format!(
                    "{EXPECTED}; got the {how}colour {colour:?} ({kind}) at row {row}, column {column}"
                )
            })
        })
        .collect()
}
