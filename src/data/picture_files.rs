//! JPEG and PNG files: pictures in, pictures and masks out.
//!
//! A mask is a PNG whose pixels are numbers of a palette: the number is the class, the palette
//! ([`voc_palette`]) is only there to be looked at. So a mask whose colours were written instead of
//! numbers (RGB), or that has more than 256 numbers (16 bits), is refused, not guessed at.

use crate::data::{Mask, Picture};
use crate::error::{Error, Result};
use crate::files::{explain, write_atomically};
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::Path;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// More pixels than this are refused before memory is taken for them: a few bytes of a header may
/// claim any number.
const MOST_PIXELS: usize = 1 << 26;

/// A JPEG file holds no longer side.
const MOST_SIDE: usize = u16::MAX as usize;

/// Quality of the JPEG files that are written, 1 to 100.
pub const JPEG_QUALITY: u8 = 95;

/// PASCAL VOC's colours: bit k of the red (green, blue) channel, from the highest down, is bit 3k
/// (3k + 1, 3k + 2) of the number.
pub fn voc_palette() -> [[u8; 3]; 256] {
    std::array::from_fn(|number| {
        std::array::from_fn(|channel| {
            (0..3).map(|k| ((number >> (3 * k + channel) & 1) as u8) << (7 - k)).sum()
        })
    })
}

fn read<T>(path: &Path, decode: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T> {
    let bytes = fs::read(path).map_err(|error| Error::file(path, explain(&error)))?;
    decode(&bytes).map_err(|message| Error::file(path, message))
}

/// A picture from a JPEG file.
pub fn read_jpeg(path: impl AsRef<Path>) -> Result<Picture> {
    read(path.as_ref(), decode_jpeg)
}

/// A picture from a PNG file.
pub fn read_png(path: impl AsRef<Path>) -> Result<Picture> {
    read(path.as_ref(), decode_png)
}

/// A mask from a PNG file with a palette (or an 8-bit grey one that holds the classes' numbers).
pub fn read_mask_png(path: impl AsRef<Path>) -> Result<Mask> {
    read(path.as_ref(), decode_mask_png)
}

fn reasonable(height: usize, width: usize) -> Result<(), String> {
    if height.checked_mul(width).is_some_and(|pixels| (1..=MOST_PIXELS).contains(&pixels)) {
        return Ok(());
    }
    Err(format!("expected 1 to {MOST_PIXELS} pixels, got {height}×{width}"))
}

/// RGB from a JPEG's bytes; grey becomes RGB, CMYK is refused.
pub fn decode_jpeg(bytes: &[u8]) -> Result<Picture, String> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return Err("expected a JPEG file, which starts with the bytes FF D8".to_owned());
    }
    let broken = |error| format!("expected a JPEG file that is whole and right, got: {error}");
    let options = DecoderOptions::default().set_strict_mode(true);
    let options = options.set_max_width(MOST_SIDE).set_max_height(MOST_SIDE);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let info = decoder.info().ok_or("expected a JPEG file, got one without a header")?;
    let (height, width) = (info.height as usize, info.width as usize);
    reasonable(height, width)?;
    let space = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => ColorSpace::Luma,
        Some(ColorSpace::YCbCr | ColorSpace::RGB) => ColorSpace::RGB,
        Some(ColorSpace::CMYK | ColorSpace::YCCK) => {
            return Err("expected a grey or RGB picture, got four colours (CMYK)".to_owned());
        }
        other => return Err(format!("expected a grey or RGB picture, got {other:?}")),
    };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let values = decoder.decode().map_err(broken)?;
    let rgb = if space == ColorSpace::Luma { grey_to_rgb(&values) } else { values };
    Picture::new(height, width, rgb).map_err(|error| error.to_string())
}

fn grey_to_rgb(values: &[u8]) -> Vec<u8> {
    values.iter().flat_map(|&value| [value; 3]).collect()
}

/// The pixels as the file has them, but for `transformations`.
fn png_pixels(
    bytes: &[u8],
    transformations: png::Transformations,
) -> Result<(png::OutputInfo, Vec<u8>), String> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err("expected a PNG file, which starts with \\x89PNG".to_owned());
    }
    let broken = |error| format!("expected a PNG file that is whole and right, got: {error}");
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(transformations);
    let header = decoder.read_header_info().map_err(broken)?;
    reasonable(header.height as usize, header.width as usize)?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let size = reader.output_buffer_size().ok_or("expected a picture that fits in memory")?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(broken)?;
    pixels.truncate(info.buffer_size());
    Ok((info, pixels))
}

/// RGB from a PNG's bytes; what is transparent keeps its colour.
pub fn decode_png(bytes: &[u8]) -> Result<Picture, String> {
    let (info, pixels) = png_pixels(bytes, png::Transformations::normalize_to_color8())?;
    let rgb = match info.color_type {
        png::ColorType::Rgb => pixels,
        png::ColorType::Rgba => {
            pixels.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
        }
        png::ColorType::Grayscale => grey_to_rgb(&pixels),
        png::ColorType::GrayscaleAlpha => {
            pixels.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect()
        }
        png::ColorType::Indexed => return Err("expected colours, got a palette's numbers".to_owned()),
    };
    Picture::new(info.height as usize, info.width as usize, rgb).map_err(|error| error.to_string())
}

/// Classes from a PNG's bytes; whether they are classes is not looked at here.
pub fn decode_mask_png(bytes: &[u8]) -> Result<Mask, String> {
    let (info, pixels) = png_pixels(bytes, png::Transformations::IDENTITY)?;
    let (height, width) = (info.height as usize, info.width as usize);
    let bits = info.bit_depth as usize;
    let classes = match (info.color_type, bits) {
        (png::ColorType::Indexed | png::ColorType::Grayscale, 8) => pixels,
        (png::ColorType::Indexed, 1 | 2 | 4) => {
            // The first pixel is in the highest bits; each row begins in a byte of its own.
            let at = |row: usize, column: usize| {
                let byte = pixels[row * info.line_size + column * bits / 8];
                byte >> (8 - bits - column * bits % 8) & ((1 << bits) - 1)
            };
            (0..height * width).map(|i| at(i / width, i % width)).collect()
        }
        (kind, bits) => {
            let kind = match kind {
                png::ColorType::Indexed => "a palette",
                png::ColorType::Grayscale => "grey",
                png::ColorType::GrayscaleAlpha => "grey and alpha",
                png::ColorType::Rgb => "RGB",
                png::ColorType::Rgba => "RGBA",
            };
            let expected = "expected a mask of palette numbers (or 8-bit grey ones), 0 background, \
                            1 to 20 classes, 255 void";
            return Err(format!("{expected}; got {kind} of {bits} bits a channel"));
        }
    };
    Mask::new(height, width, classes).map_err(|error| error.to_string())
}

/// Can a picture of this size be written as a JPEG that is read again?
pub fn jpeg_holds(height: usize, width: usize) -> Result<(), String> {
    if height.max(width) > MOST_SIDE {
        return Err(format!("expected sides of at most {MOST_SIDE} for a JPEG, got {height}×{width}"));
    }
    reasonable(height, width)
}

/// Writes a picture as a JPEG, whole or not at all; every pixel keeps its colour (4:4:4).
pub fn write_jpeg(path: impl AsRef<Path>, picture: &Picture) -> Result<()> {
    let path = path.as_ref();
    let Picture { height, width, .. } = *picture;
    jpeg_holds(height, width).map_err(|message| Error::file(path, message))?;
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, JPEG_QUALITY);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    encoder
        .encode(&picture.rgb, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
        .map_err(|error| Error::file(path, error))?;
    write_atomically(path, |file| file.write_all(&bytes))
}

/// Writes a picture as a PNG, whole or not at all.
pub fn write_png(path: impl AsRef<Path>, picture: &Picture) -> Result<()> {
    write_atomically(path, |file| encode_png(file, picture))
}

/// Writes a mask as a PNG in VOC's palette, whole or not at all.
pub fn write_mask_png(path: impl AsRef<Path>, mask: &Mask) -> Result<()> {
    write_atomically(path, |file| encode_mask_png(file, mask))
}

pub fn encode_png(file: impl Write, picture: &Picture) -> io::Result<()> {
    let size = [picture.height, picture.width];
    encode(file, size, png::ColorType::Rgb, |_| {}, &picture.rgb)
}

pub fn encode_mask_png(file: impl Write, mask: &Mask) -> io::Result<()> {
    let palette: Vec<u8> = voc_palette().concat();
    let size = [mask.height, mask.width];
    encode(file, size, png::ColorType::Indexed, |encoder| encoder.set_palette(palette), &mask.classes)
}

fn encode<W: Write>(
    file: W,
    size: [usize; 2],
    color: png::ColorType,
    set: impl FnOnce(&mut png::Encoder<'_, W>),
    values: &[u8],
) -> io::Result<()> {
    let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    set(&mut encoder);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(values)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Smooth enough for a JPEG.
    fn picture(height: usize, width: usize) -> Picture {
        let value = |i: usize| {
            let (pixel, channel) = (i / 3, i % 3);
            (40 + pixel / width * 5 + pixel % width * 3 + channel * 20) as u8
        };
        Picture::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
    }

    /// A PNG of any kind.
    fn png(
        color: png::ColorType,
        depth: png::BitDepth,
        [height, width]: [u32; 2],
        data: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette(voc_palette().concat());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

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
    }

    #[test]
    fn pictures_and_masks_come_back_from_png_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        write_png(&path, &picture(7, 5)).unwrap();
        assert!(read_png(&path).unwrap() == picture(7, 5));
        let mask = Mask::new(3, 4, vec![0, 1, 2, 3, 20, 255, 0, 9, 19, 255, 0, 1]).unwrap();
        write_mask_png(&path, &mask).unwrap();
        assert!(read_mask_png(&path).unwrap() == mask);
        // Seen as a picture, the mask has the palette's colours.
        assert_eq!(read_png(&path).unwrap().rgb[15..18], voc_palette()[255]);
    }

    #[test]
    fn a_jpeg_comes_back_nearly_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jpg");
        write_jpeg(&path, &picture(17, 30)).unwrap();
        let (got, expected) = (read_jpeg(&path).unwrap(), picture(17, 30));
        assert_eq!((got.height, got.width), (17, 30));
        let off = got.rgb.iter().zip(&expected.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(off <= 4, "off by {off}");
    }

    fn jpeg(color: jpeg_encoder::ColorType, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
        encoder.encode(data, 16, 16, color).unwrap();
        bytes
    }

    #[test]
    fn a_grey_jpeg_becomes_rgb_and_cmyk_is_refused() {
        let grey: Vec<u8> = (0..=255).map(|i| i / 16 * 8 + 60).collect();
        let picture = decode_jpeg(&jpeg(jpeg_encoder::ColorType::Luma, &grey)).unwrap();
        assert_eq!((picture.height, picture.width, picture.rgb.len()), (16, 16, 768));
        for (pixel, &value) in picture.rgb.chunks(3).zip(&grey) {
            assert!(pixel[0] == pixel[1] && pixel[1] == pixel[2] && pixel[0].abs_diff(value) <= 3);
        }
        for color in [jpeg_encoder::ColorType::Cmyk, jpeg_encoder::ColorType::CmykAsYcck] {
            let error = decode_jpeg(&jpeg(color, &[90; 1024])).unwrap_err();
            assert!(error.contains("CMYK"), "{error}");
        }
    }

    #[test]
    fn a_jpeg_that_is_cut_off_or_none_at_all_is_refused() {
        let noise: Vec<u8> = (0..768u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = jpeg(jpeg_encoder::ColorType::Rgb, &noise);
        assert!(decode_jpeg(&whole).is_ok());
        for length in [0, 1, 2, 20, whole.len() / 2, whole.len() * 3 / 4] {
            assert!(decode_jpeg(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
        assert!(decode_jpeg(b"\x93NUMPY").unwrap_err().contains("FF D8"));
    }

    #[test]
    fn palettes_of_few_bits_and_grey_masks_hold_classes() {
        use png::{BitDepth, ColorType};
        // Five pixels a row: the last bytes of a row are partly empty.
        let one = png(ColorType::Indexed, BitDepth::One, [2, 5], &[0b1011_0000, 0b0000_1000]);
        assert_eq!(decode_mask_png(&one).unwrap().classes, [1, 0, 1, 1, 0, 0, 0, 0, 0, 1]);
        let two = png(ColorType::Indexed, BitDepth::Two, [1, 5], &[0b00_01_10_11, 0b10_000000]);
        assert_eq!(decode_mask_png(&two).unwrap().classes, [0, 1, 2, 3, 2]);
        let four = png(ColorType::Indexed, BitDepth::Four, [1, 3], &[0x0f, 0x70]);
        assert_eq!(decode_mask_png(&four).unwrap().classes, [0, 15, 7]);
        let grey = png(ColorType::Grayscale, BitDepth::Eight, [1, 3], &[0, 20, 255]);
        assert_eq!(decode_mask_png(&grey).unwrap().classes, [0, 20, 255]);
    }

    #[test]
    fn masks_of_colours_or_of_16_bits_are_refused() {
        use png::{BitDepth, ColorType};
        let kinds = [
            (ColorType::Rgb, BitDepth::Eight, 3, "got RGB of 8 bits"),
            (ColorType::Rgba, BitDepth::Eight, 4, "got RGBA of 8 bits"),
            (ColorType::Grayscale, BitDepth::Sixteen, 2, "got grey of 16 bits"),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, 2, "got grey and alpha of 8 bits"),
        ];
        for (color, depth, bytes, part) in kinds {
            let error = decode_mask_png(&png(color, depth, [2, 2], &vec![1; 4 * bytes])).unwrap_err();
            assert!(error.starts_with("expected a mask of palette numbers"), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_png_that_is_cut_off_or_claims_too_much_is_refused() {
        let mut whole = Vec::new();
        encode_png(&mut whole, &picture(9, 9)).unwrap();
        for length in [0, 7, 8, 20, whole.len() / 2] {
            assert!(decode_png(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
            assert!(decode_mask_png(&whole[..length]).is_err());
        }
        let mut claims = Vec::new();
        let encoder = png::Encoder::new(&mut claims, 1 << 20, 1 << 20);
        drop(encoder.write_header().unwrap());
        assert!(decode_png(&claims).unwrap_err().contains("67108864 pixels"));
    }
}
