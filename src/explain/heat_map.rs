//! Maps of numbers as colours, alone or over the image they are of.

use crate::data::Image;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Which colours stand for which numbers.
///
/// ```
/// use atrous::explain::heat_map::ColourMap;
///
/// assert_eq!(ColourMap::Inferno.colour(0.0), [0, 0, 4]);
/// assert_eq!(ColourMap::Inferno.colour(f64::NAN), [0, 0, 4]);
/// assert_eq!(ColourMap::Diverging.colour(0.5), [247, 246, 246]); // what is 0 is nearly white
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColourMap {
    /// For maps of what is 0 and more: from black over red to pale yellow, each step as much brighter as the
    /// last (Matplotlib's `inferno`).
    #[default]
    Inferno,
    /// For maps of either sign: blue below 0, white at 0, red above (Matplotlib's `RdBu_r`).
    Diverging,
}

/// Matplotlib's, at 0, ⅛, … 1.
const INFERNO: [[u8; 3]; 9] = [
    [0, 0, 4],
    [33, 12, 74],
    [87, 16, 110],
    [138, 34, 106],
    [188, 55, 84],
    [227, 89, 51],
    [249, 140, 10],
    [249, 201, 50],
    [252, 255, 164],
];
const DIVERGING: [[u8; 3]; 9] = [
    [5, 48, 97],
    [42, 113, 178],
    [107, 172, 209],
    [194, 221, 236],
    [247, 246, 246],
    [251, 206, 183],
    [229, 131, 104],
    [187, 42, 52],
    [103, 0, 31],
];

/// The colour at 0 to 1 along a table, between its entries.
pub(super) fn interpolated(stops: &[[u8; 3]; 9], value: f64) -> [u8; 3] {
    let at = value * (stops.len() - 1) as f64;
    let low = (at as usize).min(stops.len() - 2);
    let between = |a: u8, b: u8| (a as f64 + (at - low as f64) * (b as f64 - a as f64)).round() as u8;
    std::array::from_fn(|channel| between(stops[low][channel], stops[low + 1][channel]))
}

impl ColourMap {
    /// The colour of a number from 0 to 1 (0.5 is the middle of `Diverging`), between those of the table.
    /// What is outside is as the end, NaN as 0.
    pub fn colour(self, value: f64) -> [u8; 3] {
        let stops = match self {
            ColourMap::Inferno => INFERNO,
            ColourMap::Diverging => DIVERGING,
        };
        interpolated(&stops, if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) })
    }

    /// Numbers brought to the range of [`ColourMap::colour`]: the one that 1 of 100 is above (in size) is the
    /// end of the range, so that a single pixel does not make all others dark.
    fn scaled(self, values: &[f64]) -> Vec<f64> {
        let mut sizes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let end = match sizes.get((sizes.len() * 99 / 100).min(sizes.len().saturating_sub(1))) {
            Some(&end) if end > 0.0 => end,
            _ => sizes.last().copied().filter(|&most| most > 0.0).unwrap_or(1.0),
        };
        let scale = |value: &f64| match self {
            ColourMap::Inferno => value / end,
            ColourMap::Diverging => 0.5 + 0.5 * value / end,
        };
        values.iter().map(scale).collect()
    }
}

/// A map [height, width] in colours. An error for another number of axes, or no pixel.
///
/// ```
/// use atrous::Tensor;
/// use atrous::explain::heat_map::{ColourMap, heat_map};
///
/// let image = heat_map(&Tensor::from([[0.0f32, 1.0]]), ColourMap::Inferno)?;
/// assert_eq!((image.height, image.width, &image.rgb[..3]), (1, 2, &[0, 0, 4][..]));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn heat_map(map: &Tensor, colours: ColourMap) -> Result<Image> {
    let [height, width] = sides(map)?;
    let scaled = colours.scaled(&map.to_vec_f64());
    Image::new(height, width, scaled.into_iter().flat_map(|value| colours.colour(value)).collect())
}

/// A map [height, width] in colours over the image of its size, in grey. `opacity` is the share of the map's
/// colour, 0 to 1. An error for a map of another size than the image.
///
/// ```
/// use atrous::Tensor;
/// use atrous::data::Image;
/// use atrous::explain::heat_map::{ColourMap, heat_map, overlay};
///
/// let map = Tensor::from([[0.0f32, 1.0]]);
/// let image = Image::new(1, 2, vec![255, 0, 0, 0, 0, 0])?; // red, black
/// let grey = overlay(&map, ColourMap::Inferno, &image, 0.0)?;
/// assert_eq!(grey.rgb, [76, 76, 76, 0, 0, 0]); // 0.299 · 255
/// assert_eq!(overlay(&map, ColourMap::Inferno, &image, 1.0)?, heat_map(&map, ColourMap::Inferno)?);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn overlay(map: &Tensor, colours: ColourMap, image: &Image, opacity: f64) -> Result<Image> {
    let [height, width] = sides(map)?;
    if (height, width) != (image.height, image.width) {
        let expected = format!("a map of the image's {}×{}", image.height, image.width);
        return Err(Error::shape("overlay", expected, format!("{height}×{width}")));
    }
    let mut heat = heat_map(map, colours)?;
    for (colour, pixel) in heat.rgb.chunks_exact_mut(3).zip(image.rgb.chunks_exact(3)) {
        // Rec. 601's share of each channel in what an eye sees as brightness.
        let grey = 0.299 * pixel[0] as f64 + 0.587 * pixel[1] as f64 + 0.114 * pixel[2] as f64;
        for value in colour {
            *value = (opacity * *value as f64 + (1.0 - opacity) * grey).round() as u8;
        }
    }
    Ok(heat)
}

fn sides(map: &Tensor) -> Result<[usize; 2]> {
    match map.shape()[..] {
        [height, width] => Ok([height, width]),
        _ => Err(Error::shape("heat map", "a map [height, width]", map.shape())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_table_and_between_them() {
        for (map, stops) in [(ColourMap::Inferno, INFERNO), (ColourMap::Diverging, DIVERGING)] {
            for (i, stop) in stops.into_iter().enumerate() {
                assert_eq!(map.colour(i as f64 / 8.0), stop);
            }
            let [a, b] = [stops[2], stops[3]].map(|stop| stop[1] as f64);
            assert_eq!(map.colour(2.5 / 8.0)[1], ((a + b) / 2.0).round() as u8);
            assert_eq!((map.colour(-3.0), map.colour(9.0)), (stops[0], stops[8]));
            assert_eq!(map.colour(f64::NAN), stops[0]);
        }
    }

    #[test]
    fn one_large_value_does_not_make_all_others_dark_and_nothing_is_white_between_signs() {
        let mut values = vec![1.0f32; 400];
        values[7] = 1e6;
        let map = Tensor::from_slice(&values, [20, 20]).unwrap();
        assert_eq!(heat_map(&map, ColourMap::Inferno).unwrap().rgb[..3], INFERNO[8]);
        let zero = heat_map(&Tensor::zeros([2, 2]), ColourMap::Diverging).unwrap();
        assert_eq!(zero.rgb, DIVERGING[4].repeat(4));
        let signs = heat_map(&Tensor::from([[-2.0f32, 2.0]]), ColourMap::Diverging).unwrap();
        assert_eq!(signs.rgb, [DIVERGING[0], DIVERGING[8]].concat());
    }

    #[test]
    fn an_overlay_is_the_map_where_it_is_opaque_and_the_grey_image_where_it_is_not() {
        let image = Image::new(1, 2, vec![10, 20, 30, 200, 200, 200]).unwrap();
        let map = Tensor::from([[0.0f32, 1.0]]);
        let at = |opacity| overlay(&map, ColourMap::Inferno, &image, opacity).unwrap().rgb;
        assert_eq!(at(1.0), heat_map(&map, ColourMap::Inferno).unwrap().rgb);
        assert_eq!(at(0.0), [18, 18, 18, 200, 200, 200]);
        let error = overlay(&Tensor::zeros([2, 2]), ColourMap::Inferno, &image, 0.5).unwrap_err();
        assert!(error.to_string().contains("1×2, got 2×2"), "{error}");
        assert!(heat_map(&Tensor::zeros([4]), ColourMap::Inferno).is_err());
    }
}
