//! Feature maps, gradients and filters as small images.

use crate::error::{Error, Result};
use crate::explain::heat_map::interpolated;
use crate::report::page::{Markup, png_data_uri};
use serde::Serialize;

/// Pixels of a thumbnail's longer side at most.
const LARGEST: usize = 44;

/// Thumbnails side by side in one image.
#[derive(Serialize)]
pub(super) struct Sprite {
    /// A PNG, each thumbnail `width` wide.
    uri: Markup,
    width: usize,
    height: usize,
}

/// Colours of −1 to 1: blue below 0, white at 0, red above (ColorBrewer's RdBu).
fn palette() -> Vec<u8> {
    const STOPS: [[u8; 3]; 9] = [
        [5, 48, 97],
        [33, 102, 172],
        [67, 147, 195],
        [146, 197, 222],
        [250, 250, 250],
        [244, 165, 130],
        [214, 96, 77],
        [178, 24, 43],
        [103, 0, 31],
    ];
    (0..255).flat_map(|i| interpolated(&STOPS, i as f64 / 254.0)).collect()
}

/// Height and width of the thumbnail of a map: cells of so many pixels that it is small enough.
pub(super) fn thumbnail([h, w, _]: [usize; 3]) -> [usize; 2] {
    let scale = h.max(w).div_ceil(LARGEST);
    [h.div_ceil(scale), w.div_ceil(scale)]
}

/// Thumbnails of some channels of `[H, W, C]`, each in its own scale: from −m to m, where m is its largest
/// absolute value. Larger maps are averaged over cells.
pub(super) fn sprite(values: &[f32], [h, w, c]: [usize; 3], channels: &[usize]) -> Result<Sprite> {
    let scale = h.max(w).div_ceil(LARGEST);
    let [height, width] = thumbnail([h, w, c]);
    let row = width * channels.len();
    let mut pixels = vec![127u8; height * row];
    for (place, &channel) in channels.iter().enumerate() {
        let cell = |y: usize, x: usize| {
            let rows = y * scale..((y + 1) * scale).min(h);
            let columns = x * scale..((x + 1) * scale).min(w);
            let n = (rows.len() * columns.len()) as f32;
            let cells =
                rows.flat_map(|y| columns.clone().map(move |x| values[(y * w + x) * c + channel]));
            cells.sum::<f32>() / n
        };
        let cells: Vec<f32> = (0..height * width).map(|i| cell(i / width, i % width)).collect();
        let most = cells.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        for (i, v) in cells.into_iter().enumerate().filter(|_| most > 0.0) {
            pixels[i / width * row + place * width + i % width] =
                (127.0 + 127.0 * v / most).round() as u8;
        }
    }
    let uri = encode(&pixels, [height, row], png::ColorType::Indexed)?;
    Ok(Sprite { uri, width, height })
}

/// The filters `[kh, kw, 3, F]` of a layer that reads an image, in its colours: grey is 0, each in its own
/// scale.
pub(super) fn filters(kernel: &[f32], [kh, kw, filters]: [usize; 3]) -> Result<Sprite> {
    let mut rgb = vec![127u8; kh * kw * filters * 3];
    for filter in 0..filters {
        let own = kernel[filter..].iter().step_by(filters);
        let most = own.clone().fold(f32::MIN_POSITIVE, |most, v| most.max(v.abs()));
        for (i, v) in own.enumerate() {
            let (tap, colour) = (i / 3, i % 3);
            let at = (tap / kw * kw * filters + filter * kw + tap % kw) * 3 + colour;
            rgb[at] = (127.5 + 127.5 * v / most).round() as u8;
        }
    }
    Ok(Sprite { uri: encode(&rgb, [kh, kw * filters], png::ColorType::Rgb)?, width: kw, height: kh })
}

fn encode(pixels: &[u8], [height, width]: [usize; 2], colours: png::ColorType) -> Result<Markup> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(colours);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    if colours == png::ColorType::Indexed {
        encoder.set_palette(palette());
    }
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(pixels)?;
        writer.finish()
    });
    written.map_err(|error| Error::argument("explain", format!("a feature map is no PNG: {error}")))?;
    Ok(png_data_uri(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_white_and_the_signs_have_a_colour_each() {
        let palette = palette();
        let colour = |i: usize| [palette[3 * i], palette[3 * i + 1], palette[3 * i + 2]];
        assert_eq!(colour(127), [250; 3]);
        assert!(colour(0)[2] > colour(0)[0] && colour(254)[0] > colour(254)[2]);
    }

    #[test]
    fn large_maps_are_averaged_and_small_ones_are_not() {
        let values = vec![1.0f32; 100 * 60 * 2];
        let large = sprite(&values, [100, 60, 2], &[0, 1]).unwrap();
        assert_eq!((large.height, large.width), (34, 20));
        let small = sprite(&values, [10, 6, 2], &[1]).unwrap();
        assert_eq!((small.height, small.width), (10, 6));
        assert!(small.uri.as_str().starts_with("data:image/png;base64,"));
    }
}
