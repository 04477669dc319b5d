//! PNG files.

use super::exif::{self, Orientation};
use super::{guarded, reasonable};
use crate::data::{Image, Mask};
use png::ColorType;
use std::io::{self, Cursor, Write};

/// Decoded bytes of one file, at most; and for each byte of the file (DEFLATE packs 258 bytes in two
/// bits, no more).
const MOST_BYTES: usize = 1 << 28;
const MOST_PACKED: usize = 1032;

/// What a PNG holds: numbers, and what they stand for.
pub(super) struct Png {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) color: ColorType,
    pub(super) bits: usize,
    /// One byte a sample: in full, or (of 16 bits) its high half.
    pub(super) samples: Vec<u8>,
    pub(super) palette: Vec<[u8; 3]>,
    /// The chunk `tRNS`: the palette's opacities, or the one colour that is transparent.
    pub(super) transparent: Vec<u8>,
    pub(super) orientation: Orientation,
}

/// Reads a file if its kind is `accepted`, which is asked before memory is taken for it.
pub(super) fn read(
    bytes: &[u8],
    accepted: impl Fn(ColorType, usize) -> Result<(), String>,
) -> Result<Png, String> {
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err("expected a PNG file, which starts with \\x89PNG".to_owned());
    }
    guarded("PNG", || {
        let broken = |error| format!("expected a PNG file that is whole and right, got: {error}");
        let mut decoder = png::Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::IDENTITY);
        let header = decoder.read_header_info().map_err(broken)?;
        let (height, width) = (header.height as usize, header.width as usize);
        let (color, bits) = (header.color_type, header.bit_depth as usize);
        reasonable(height, width)?;
        accepted(color, bits)?;
        let size = height * (width * color.samples() * bits).div_ceil(8);
        if size > MOST_BYTES {
            return Err(format!(
                "expected at most {MOST_BYTES} bytes of pixels, got {size} ({height}×{width})"
            ));
        }
        if size > bytes.len().saturating_mul(MOST_PACKED) {
            let length = bytes.len();
            return Err(format!(
                "expected a PNG file that is whole and right, got: {length} bytes, \
                 too few for {height}×{width} pixels"
            ));
        }
        let mut reader = decoder.read_info().map_err(broken)?;
        let size = reader.output_buffer_size().ok_or("expected a picture that fits in memory")?;
        let mut pixels = vec![0; size];
        let line = reader.next_frame(&mut pixels).map_err(broken)?.line_size;
        // The rest of the file is looked at too: whether it is whole, and for Exif data.
        reader.finish().map_err(broken)?;
        let info = reader.info();
        let samples = match bits {
            8 => pixels,
            16 => pixels.chunks_exact(2).map(|sample| sample[0]).collect(),
            // Such samples stand alone. The first is in the highest bits; each row begins in a byte of
            // its own.
            _ => (0..height * width)
                .map(|i| {
                    let column = i % width;
                    let byte = pixels[i / width * line + column * bits / 8];
                    byte >> (8 - bits - column * bits % 8) & ((1 << bits) - 1)
                })
                .collect(),
        };
        let palette = info.palette.as_deref().unwrap_or_default();
        if color == ColorType::Indexed && (palette.is_empty() || palette.len() % 3 != 0) {
            let length = palette.len();
            return Err(format!("expected a palette of three bytes a colour, got {length} bytes"));
        }
        Ok(Png {
            height,
            width,
            color,
            bits,
            samples,
            palette: palette.as_chunks().0.to_vec(),
            transparent: info.trns.as_deref().unwrap_or_default().to_vec(),
            orientation: exif::orientation(info.exif_metadata.as_deref().unwrap_or_default()),
        })
    })
}

/// The image as it is stored, and how it is to be turned; what is transparent keeps its colour, and of
/// 16 bits the higher 8 are taken.
pub(super) fn decode(bytes: &[u8]) -> Result<(Image, Orientation), String> {
    let Png { height, width, color, bits, samples, palette, orientation, .. } =
        read(bytes, |_, _| Ok(()))?;
    let rgb = match color {
        ColorType::Rgb => samples,
        ColorType::Rgba => {
            samples.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
        }
        ColorType::Grayscale => {
            let scale = 255 / ((1_u16 << bits.min(8)) - 1) as u8;
            samples.iter().flat_map(|&value| [value * scale; 3]).collect()
        }
        ColorType::GrayscaleAlpha => samples.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        ColorType::Indexed => {
            let beyond = samples.iter().position(|&number| usize::from(number) >= palette.len());
            if let Some(at) = beyond {
                let (count, number, row, column) = (palette.len(), samples[at], at / width, at % width);
                return Err(format!(
                    "expected numbers of a palette of {count} colours, got {number} at row {row}, \
                     column {column}"
                ));
            }
            samples.iter().flat_map(|&number| palette[usize::from(number)]).collect()
        }
    };
    let image = Image::new(height, width, rgb).map_err(|error| error.to_string())?;
    Ok((image, orientation))
}

/// Writes a PNG of 8-bit RGB; an error is the writer's own (a full disk).
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image_files::{decode_image, encode_png};
///
/// let image = Image::new(1, 2, vec![1, 2, 3, 4, 5, 6])?;
/// let mut bytes = Vec::new();
/// encode_png(&mut bytes, &image)?;
/// assert!(bytes.starts_with(b"\x89PNG"));
/// assert_eq!(decode_image(&bytes)?, image);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode_png(file: impl Write, image: &Image) -> io::Result<()> {
    let size = [image.height, image.width];
    encode(file, size, ColorType::Rgb, |_| {}, &image.rgb)
}

/// Writes a PNG of 8-bit RGBA; `alpha` is each pixel's opacity, row by row. An error is the writer's own (a
/// full disk). Panics where there are fewer opacities than pixels.
pub fn encode_rgba_png(file: impl Write, image: &Image, alpha: &[u8]) -> io::Result<()> {
    let pixels = image.rgb.chunks_exact(3).zip(&alpha[..image.height * image.width]);
    let rgba: Vec<u8> = pixels.flat_map(|(rgb, &a)| [rgb[0], rgb[1], rgb[2], a]).collect();
    encode(file, [image.height, image.width], ColorType::Rgba, |_| {}, &rgba)
}

/// Writes a palette PNG as VOC has its masks: each pixel is the class, the palette is
/// [`voc_palette`](super::voc_palette).
///
/// ```
/// use atrous::data::Mask;
/// use atrous::data::image_files::{decode_mask_png, encode_mask_png};
///
/// let mask = Mask::new(2, 1, vec![0, 15])?;
/// let mut bytes = Vec::new();
/// encode_mask_png(&mut bytes, &mask)?;
/// assert_eq!(decode_mask_png(&bytes)?, mask);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode_mask_png(file: impl Write, mask: &Mask) -> io::Result<()> {
    let palette: Vec<u8> = super::voc_palette().concat();
    let size = [mask.height, mask.width];
    encode(file, size, ColorType::Indexed, |encoder| encoder.set_palette(palette), &mask.classes)
}

fn encode<W: Write>(
    file: W,
    size: [usize; 2],
    color: ColorType,
    set: impl FnOnce(&mut png::Encoder<'_, W>),
    values: &[u8],
) -> io::Result<()> {
    let [height, width] = size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let mut encoder = png::Encoder::new(file, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    set(&mut encoder);
    let write = |encoder: png::Encoder<'_, W>| -> Result<(), png::EncodingError> {
        let mut writer = encoder.write_header()?;
        writer.write_image_data(values)?;
        writer.finish()
    };
    // The crate's own conversion would lose the kind of the error (a full disk).
    write(encoder).map_err(|error| match error {
        png::EncodingError::IoError(error) => error,
        error => io::Error::other(error),
    })
}
