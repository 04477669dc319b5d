//! Tiles of one size that stand side by side in an image, arranged to fill another area.

use crate::data::Image;

/// So many tiles, at least one, from left to right.
#[derive(Clone, Copy)]
pub(super) struct Tiles<'a> {
    pub(super) image: &'a Image,
    pub(super) count: usize,
}

impl<'a> Tiles<'a> {
    /// None where the image has no room for them.
    pub(super) fn new(image: &'a Image, count: usize) -> Option<Self> {
        (count > 0 && image.width >= count).then_some(Tiles { image, count })
    }

    fn width(&self) -> usize {
        self.image.width / self.count
    }

    /// Columns of tiles in an area of so many pixels, and a tile's size there (width, height): as large as
    /// they can be with their proportions kept.
    pub(super) fn arrangement(&self, width: usize, height: usize) -> (usize, (usize, usize)) {
        let size = |columns: usize| self.fitted(width / columns, height / self.count.div_ceil(columns));
        let choices = (1..=self.count).map(|columns| (columns, size(columns)));
        choices.max_by_key(|&(columns, (w, h))| (w * h, self.count - columns)).unwrap_or((1, (0, 0)))
    }

    /// The largest size (width, height) of one tile in so many pixels.
    pub(super) fn fitted(&self, width: usize, height: usize) -> (usize, usize) {
        let tile = (self.width() as f64, self.image.height as f64);
        let scale = (width as f64 / tile.0).min(height as f64 / tile.1);
        ((tile.0 * scale) as usize, (tile.1 * scale) as usize)
    }

    /// The mean colour of a tile's pixels under one of `size` pixels at (x, y).
    pub(super) fn pixel(&self, tile: usize, (x, y): (usize, usize), size: (usize, usize)) -> [u8; 3] {
        let range = |at: usize, of: usize, length: usize| {
            let begin = at * length / of;
            begin..((at + 1) * length).div_ceil(of).max(begin + 1).min(length)
        };
        let (mut sums, mut count) = ([0u32; 3], 0);
        for row in range(y, size.1, self.image.height) {
            for column in range(x, size.0, self.width()) {
                let at = 3 * (row * self.image.width + tile * self.width() + column);
                (0..3).for_each(|c| sums[c] += self.image.rgb[at + c] as u32);
                count += 1;
            }
        }
        sums.map(|sum| (sum / count.max(1)) as u8)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two tiles of 4 × 4: a red one, and one that is black above and white below.
    pub fn two() -> Image {
        let pixel = |x: usize, y: usize| match (x, y) {
            (0..4, _) => [255, 0, 0],
            (_, 0..2) => [0; 3],
            _ => [255; 3],
        };
        let rgb = (0..4).flat_map(|y| (0..8).flat_map(move |x| pixel(x, y))).collect();
        Image::new(4, 8, rgb).unwrap()
    }

    #[test]
    fn tiles_are_as_large_as_the_area_allows() {
        let image = two();
        let tiles = Tiles::new(&image, 2).unwrap();
        assert_eq!(tiles.arrangement(16, 8), (2, (8, 8)));
        assert_eq!(tiles.arrangement(8, 16), (1, (8, 8)));
        assert_eq!(tiles.arrangement(0, 5).1, (0, 0));
        assert!(Tiles::new(&image, 0).is_none() && Tiles::new(&image, 9).is_none());
    }

    #[test]
    fn a_pixel_has_the_mean_colour_of_what_it_covers() {
        let image = two();
        let tiles = Tiles::new(&image, 2).unwrap();
        assert_eq!(tiles.pixel(1, (0, 0), (1, 1)), [127; 3]);
        assert_eq!(
            [tiles.pixel(1, (0, 1), (2, 2)), tiles.pixel(0, (7, 7), (8, 8))],
            [[255; 3], [255, 0, 0]]
        );
    }
}
