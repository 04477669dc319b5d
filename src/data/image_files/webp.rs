//! WebP files, lossy and lossless ones.

use super::exif::{self, Orientation};
use super::{guarded, reasonable};
use crate::data::Image;
use std::io::Cursor;

/// The image as it is stored, and how it is to be turned; what is transparent keeps its colour.
pub(super) fn decode(bytes: &[u8]) -> Result<(Image, Orientation), String> {
    if !(bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP")) {
        return Err("expected a WebP file, which starts with RIFF and WEBP".to_owned());
    }
    guarded("WebP", || {
        let broken = |error| format!("expected a WebP file that is whole and right, got: {error}");
        let size = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        if size.saturating_add(8) > bytes.len() {
            let (expected, got) = (size.saturating_add(8), bytes.len());
            return Err(format!("expected a WebP file that is whole, of {expected} bytes, got {got}"));
        }
        let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).map_err(broken)?;
        let (width, height) = decoder.dimensions();
        let (height, width) = (height as usize, width as usize);
        reasonable(height, width)?;
        // A lossy image's own header has its size again, for which memory would be taken.
        if let Some([own_height, own_width]) = lossy_size(bytes)
            && [own_height, own_width] != [height, width]
        {
            return Err(format!(
                "expected a WebP of {height}×{width} pixels, got {own_height}×{own_width}"
            ));
        }
        decoder.set_memory_limit(bytes.len());
        if decoder.is_animated() {
            return Err("expected one picture, got a film (an animated WebP)".to_owned());
        }
        let exif = decoder.exif_metadata().map_err(broken)?.unwrap_or_default();
        // Some programs write a JPEG's header of Exif data before it.
        let orientation = exif::orientation(exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif));
        let size = decoder.output_buffer_size().ok_or("expected a picture that fits in memory")?;
        let mut values = vec![0; size];
        decoder.read_image(&mut values).map_err(broken)?;
        if decoder.has_alpha() {
            values = values.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        }
        let image = Image::new(height, width, values).map_err(|error| error.to_string())?;
        Ok((image, orientation))
    })
}

/// Height and width in the header of the lossy image, if there is one.
fn lossy_size(bytes: &[u8]) -> Option<[usize; 2]> {
    let mut at = 12;
    loop {
        let head = bytes.get(at..)?.first_chunk::<8>()?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if head.starts_with(b"VP8 ") {
            // After three bytes and a mark of three: 14 bits of width and of height.
            let sides = bytes.get(at + 14..)?.first_chunk::<4>()?;
            let side = |low: u8, high: u8| usize::from(u16::from_le_bytes([low, high]) & 0x3fff);
            return Some([side(sides[2], sides[3]), side(sides[0], sides[1])]);
        }
        at = at.checked_add(8)?.checked_add(length)?.checked_add(length % 2)?;
    }
}
