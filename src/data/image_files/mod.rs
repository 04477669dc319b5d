//! Image files: images in and out, masks in and out.
//!
//! An image is read by what it is, whatever its name ends in: JPEG, PNG or WebP. It is RGB of 8 bits
//! then, and upright: what Exif data says of how the camera was held has been done. A mask is a PNG
//! whose pixels say classes by numbers or by VOC's colours ([`decode_mask_png`] has the rules); where
//! two readings contradict it is refused.
//!
//! Whatever a file claims, sizes are looked at before memory is taken: more than [`MOST_PIXELS`] are
//! refused, and more than a file of its length can hold. A file that is cut off is an error, never a
//! image that is grey in part.

use crate::data::{Image, Mask};
use crate::error::{Error, Result};
use crate::files::{explain, write_atomically};
use exif::Orientation;
use jpeg_encoder::SamplingFactor;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

mod exif;
mod jpeg;
mod masks;
mod palette;
mod png;
mod webp;

pub use masks::{decode_mask_png, decode_numbered_png};
pub use palette::voc_palette;
pub use png::{encode_mask_png, encode_png, encode_rgba_png};

/// More pixels than this are refused before memory is taken for them: a few bytes of a header may
/// claim any number.
///
/// ```
/// use atrous::data::image_files::{MOST_PIXELS, decode_image};
///
/// // The header of a PNG that claims 65,536×65,536 pixels
/// let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x01\0\0\0\x01\0\0\x08\x02\0\0\0".to_vec();
/// # let mut crc = !0u32;
/// # for &byte in &header[12..] {
/// #     crc ^= byte as u32;
/// #     (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 });
/// # }
/// # header.extend((!crc).to_be_bytes());
/// let error = decode_image(&header).unwrap_err();
/// assert!(error.contains(&format!("expected 1 to {MOST_PIXELS} pixels, got 65536×65536")), "{error}");
/// ```
pub const MOST_PIXELS: usize = 1 << 26;

/// A JPEG file holds no longer side.
const MOST_SIDE: usize = u16::MAX as usize;

/// Quality of the JPEG files that are written, 1 to 100.
pub(crate) const JPEG_QUALITY: u8 = 95;

fn read<T>(path: &Path, decode: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T> {
    let bytes = fs::read(path).map_err(|error| Error::file(path, explain(&error)))?;
    decode(&bytes).map_err(|message| Error::file(path, message))
}

/// Whether a file that begins so says it is a JPEG, PNG or WebP: twelve bytes are enough to know.
pub fn is_image(start: &[u8]) -> bool {
    let webp = start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WEBP");
    webp || start.starts_with(&[0xff, 0xd8, 0xff]) || start.starts_with(b"\x89PNG\r\n\x1a\n")
}

/// An image from a JPEG, PNG or WebP file, upright. An error where it is none of these, is cut off
/// or damaged, or has more than [`MOST_PIXELS`].
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image_files::{read_image, write_png};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("red.png");
/// let red = Image::new(1, 2, [255, 0, 0].repeat(2))?;
/// write_png(&path, &red)?;
/// // What it is counts, not what it is called.
/// let renamed = folder.path().join("red.jpg");
/// std::fs::rename(&path, &renamed)?;
/// assert_eq!(read_image(&renamed)?, red);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_image(path: impl AsRef<Path>) -> Result<Image> {
    read(path.as_ref(), decode_image)
}

/// A mask from a PNG file, by its numbers or by VOC's colours.
///
/// ```
/// use atrous::data::image_files::{read_mask_png, write_mask_png};
/// use atrous::data::{Mask, VOID};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("mask.png");
/// let mask = Mask::new(1, 3, vec![0, 8, VOID])?;
/// write_mask_png(&path, &mask)?;
/// assert_eq!(read_mask_png(&path)?, mask);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read_mask_png(path: impl AsRef<Path>) -> Result<Mask> {
    read(path.as_ref(), decode_mask_png)
}

fn reasonable(height: usize, width: usize) -> Result<(), String> {
    if height.checked_mul(width).is_some_and(|pixels| (1..=MOST_PIXELS).contains(&pixels)) {
        return Ok(());
    }
    Err(format!("expected 1 to {MOST_PIXELS} pixels, got {height}×{width}"))
}

/// What a crate makes of a file. A damaged file may make it panic: that ends here.
fn guarded<T>(kind: &str, decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let damaged =
        |_| Err(format!("expected a {kind} file that is whole and right, got one that is damaged"));
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(damaged)
}

/// RGB, upright, from the bytes of a JPEG, PNG or WebP file.
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image_files::{decode_image, encode_png};
///
/// let red = Image::new(1, 2, [255, 0, 0].repeat(2))?;
/// let mut bytes = Vec::new();
/// encode_png(&mut bytes, &red)?;
/// assert_eq!(decode_image(&bytes)?, red);
/// bytes.truncate(bytes.len() / 2);
/// assert!(decode_image(&bytes).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode_image(bytes: &[u8]) -> Result<Image, String> {
    let (image, orientation) = match bytes {
        [0xff, 0xd8, ..] => jpeg::decode(bytes)?,
        [0x89, b'P', b'N', b'G', ..] => png::decode(bytes)?,
        [b'R', b'I', b'F', b'F', ..] => webp::decode(bytes)?,
        _ => {
            let start: Vec<String> = bytes.iter().take(4).map(|byte| format!("{byte:02X}")).collect();
            let start = if start.is_empty() { "nothing".to_owned() } else { start.join(" ") };
            return Err(format!(
                "expected a JPEG file (FF D8 …), PNG or WebP, got one that starts with {start}"
            ));
        }
    };
    upright(image, orientation)
}

fn upright(image: Image, orientation: Orientation) -> Result<Image, String> {
    let ([height, width], rgb) = orientation.apply([image.height, image.width], 3, image.rgb);
    Image::new(height, width, rgb).map_err(|error| error.to_string())
}

/// Can an image of this size be written as a JPEG that is read again?
pub(crate) fn jpeg_holds(height: usize, width: usize) -> Result<(), String> {
    if height.max(width) > MOST_SIDE {
        return Err(format!("expected sides of at most {MOST_SIDE} for a JPEG, got {height}×{width}"));
    }
    reasonable(height, width)
}

/// Writes an image as a JPEG, whole or not at all; every pixel keeps its colour (4:4:4).
///
/// ```
/// use atrous::data::Image;
/// use atrous::data::image_files::{read_image, write_jpeg};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("red.jpg");
/// write_jpeg(&path, &Image::new(8, 8, [200, 0, 0].repeat(64))?)?;
/// // Nearly what it was
/// let rgb = read_image(&path)?.rgb;
/// assert!(rgb.chunks(3).all(|pixel| pixel[0].abs_diff(200) < 4 && pixel[1] < 4 && pixel[2] < 4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_jpeg(path: impl AsRef<Path>, image: &Image) -> Result<()> {
    let path = path.as_ref();
    let bytes = encode_jpeg(image, JPEG_QUALITY, SamplingFactor::F_1_1)
        .map_err(|message| Error::file(path, message))?;
    write_atomically(path, |file| file.write_all(&bytes))
}

/// The bytes of a JPEG of a quality of 1 to 100, in which every pixel keeps its colour (`F_1_1`, 4:4:4) or
/// four share one (`F_2_2`, 4:2:0); says why where an image is none that a JPEG holds.
pub(crate) fn encode_jpeg(
    image: &Image,
    quality: u8,
    sampling: SamplingFactor,
) -> Result<Vec<u8>, String> {
    let Image { height, width, .. } = *image;
    jpeg_holds(height, width)?;
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(sampling);
    encoder
        .encode(&image.rgb, width as u16, height as u16, jpeg_encoder::ColorType::Rgb)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Writes an image as a PNG, whole or not at all.
///
/// ```
/// use atrous::data::image_files::{read_image, write_png};
/// use atrous::data::synthetic;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("scene.png");
/// let image = synthetic::generate(1, 0).image;
/// write_png(&path, &image)?;
/// assert_eq!(read_image(&path)?, image); // without loss
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_png(path: impl AsRef<Path>, image: &Image) -> Result<()> {
    write_atomically(path, |file| encode_png(file, image))
}

/// Writes an image with an opacity a pixel, 0 to 255, as a PNG of RGBA, whole or not at all. An error where
/// there are not as many opacities as pixels.
pub fn write_rgba_png(path: impl AsRef<Path>, image: &Image, alpha: &[u8]) -> Result<()> {
    let pixels = image.height * image.width;
    if alpha.len() != pixels {
        return Err(Error::shape("write_rgba_png", format!("{pixels} opacities"), alpha.len()));
    }
    write_atomically(path, |file| encode_rgba_png(file, image, alpha))
}

/// Writes a mask as a PNG in VOC's palette, whole or not at all.
///
/// ```
/// use atrous::data::Mask;
/// use atrous::data::image_files::{read_image, voc_palette, write_mask_png};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("cat.png");
/// write_mask_png(&path, &Mask::new(1, 1, vec![8])?)?;
/// // As an image it has VOC's colours.
/// assert_eq!(read_image(&path)?.rgb, voc_palette()[8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_mask_png(path: impl AsRef<Path>, mask: &Mask) -> Result<()> {
    write_atomically(path, |file| encode_mask_png(file, mask))
}

#[cfg(test)]
mod tests;
