//! A mask over its image, at the image's own size, with what its colours mean below.

use super::canvas::Canvas;
use super::legend::Legend;
use super::panels::blended;
use super::style::present;
use crate::data::{BACKGROUND, Classes, Image, Mask, VOID};
use crate::error::{Error, Result};
use std::path::Path;

/// Points of an image's longer side: the legend is as large in comparison, whatever the image's size.
const SIDE: f64 = 640.0;
/// The least width, in points, in which a legend can be read.
const LEGEND: f64 = 250.0;
/// Around the legend, in points.
const MARGIN: f64 = 10.0;

/// Writes a PNG of the mask's colours blended with the image ([`blended`]), pixel for pixel, and a legend
/// of the classes that are in it below. An error where the mask is of another size, and where the PNG
/// cannot be written.
///
/// ```
/// use atrous::data::{Classes, Image, Mask, image_files::read_image};
///
/// let image = Image::new(300, 400, vec![200; 300 * 400 * 3])?;
/// let mask = Mask::new(300, 400, (0..300 * 400).map(|i| if i % 400 < 200 { 12 } else { 0 }).collect())?;
/// let path = std::env::temp_dir().join(format!("overlay-{}.png", std::process::id()));
/// atrous::report::overlay(&image, &mask, &Classes::voc(), &path)?;
/// let drawn = read_image(&path)?;
/// assert!((drawn.width, drawn.height > 300) == (400, true));
/// assert_eq!(drawn.rgb[..3], atrous::report::blended(&mask, Some(&image)).rgb[..3]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn overlay(image: &Image, mask: &Mask, classes: &Classes, path: &Path) -> Result<()> {
    mask.fits(image.height, image.width).map_err(|message| Error::argument("overlay", message))?;
    let (shown, void) = present([mask].into_iter());
    let mut values = vec![BACKGROUND];
    values.extend(shown.iter().map(|&class| class as u8 + 1));
    values.extend(void.then_some(VOID));
    let scale = (image.height.max(image.width) as f64 / SIDE).max(1.0);
    let [height, width] = [image.height, image.width].map(|side| side as f64 / scale);
    let inner = (width - 2.0 * MARGIN).max(LEGEND);
    let legend = Legend::new(&values, classes, inner);
    let whole = [width.max(inner + 2.0 * MARGIN), height + legend.height() + MARGIN];
    // (Rounded down to a pixel's part, so that an image as wide as the canvas is not one pixel wider.)
    let mut canvas = Canvas::new(whole[0] - 1e-6, whole[1], scale)?;
    canvas.image(0.0, 0.0, width, height, &blended(mask, Some(image)));
    legend.draw(&mut canvas, MARGIN, height);
    canvas.write_png(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image_files::read_image;

    #[test]
    fn the_image_is_there_pixel_for_pixel_at_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("overlay.png");
        for (height, width) in [(1, 1), (9, 300), (700, 11), (641, 640), (1001, 997)] {
            let rgb = (0..height * width * 3).map(|i| (i * 31 % 251) as u8).collect();
            let image = Image::new(height, width, rgb).unwrap();
            let classes = (0..height * width).map(|i| [0, 3, 20, 255][i / 7 % 4]).collect();
            let mask = Mask::new(height, width, classes).unwrap();
            overlay(&image, &mask, &Classes::voc(), &path).unwrap();
            let (drawn, expected) = (read_image(&path).unwrap(), blended(&mask, Some(&image)));
            assert!(drawn.height > height && drawn.width >= width, "{drawn:?}");
            assert!(width < 270 || drawn.width == width, "{drawn:?} of {width}");
            for y in 0..height {
                let row = |image: &Image| image.rgb[y * image.width * 3..][..width * 3].to_vec();
                assert!(row(&drawn) == row(&expected), "row {y} of {height}×{width}");
            }
        }
        let (image, mask) =
            (Image::new(2, 3, vec![0; 18]).unwrap(), Mask::new(3, 2, vec![0; 6]).unwrap());
        assert!(overlay(&image, &mask, &Classes::voc(), &path).is_err());
    }
}
