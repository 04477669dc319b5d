//! Textures: twenty patterns of two tones, one a class. Coordinates count periods.

use crate::data::synthetic::outline::Point;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Texture {
    /// Lines that run along u.
    Across,
    /// Lines that run along v.
    Upright,
    Diagonal,
    WavesAcross,
    WavesUpright,
    Zigzag,
    Checks,
    Diamonds,
    Triangles,
    Plaid,
    Crosses,
    Bricks,
    Windows,
    Dashes,
    Dots,
    Ringlets,
    Scales,
    Squares,
    Spokes,
    Blotches,
}

/// Random heights on a grid that repeats every 8 cells, for [`Texture::Blotches`].
pub(crate) type Heights = [f32; 64];

/// A triangle wave of period 1 between −1 and 1.
fn triangle(x: f32) -> f32 {
    (x - x.floor() - 0.5).abs() * 4.0 - 1.0
}

/// A rounder wave of the same period and height.
fn wave(x: f32) -> f32 {
    let t = triangle(x);
    t * (1.5 - 0.5 * t * t)
}

/// 0 or 1 by the sign, with a soft edge.
fn tone(x: f32) -> f32 {
    (0.5 + 2.5 * x).clamp(0.0, 1.0)
}

fn fraction(x: f32) -> f32 {
    x - x.floor()
}

/// The cell of a brick-like grid: every other row is shifted by half a cell.
fn staggered(x: f32, y: f32) -> Point {
    let shift = if y.floor() as i32 & 1 == 0 { 0.0 } else { 0.5 };
    [fraction(x + shift) - 0.5, fraction(y) - 0.5]
}

impl Texture {
    /// 0 (first colour) to 1 (second colour).
    pub(crate) fn tone(self, [x, y]: Point, heights: &Heights) -> f32 {
        match self {
            Texture::Across => tone(triangle(y)),
            Texture::Upright => tone(triangle(x)),
            Texture::Diagonal => tone(triangle((x + y) * 0.7)),
            Texture::WavesAcross => tone(triangle(y + 0.3 * wave(x * 0.5))),
            Texture::WavesUpright => tone(triangle(x + 0.3 * wave(y * 0.5))),
            Texture::Zigzag => tone(triangle(y * 0.8 + 0.5 * triangle(x * 0.6))),
            Texture::Checks => tone(triangle(x * 0.6) * triangle(y * 0.6) * 3.0),
            Texture::Diamonds => {
                tone(triangle(x * 0.55 + y * 0.28) * triangle(x * 0.55 - y * 0.28) * 3.0)
            }
            Texture::Triangles => {
                let [u, v] = staggered(x * 0.8, y * 0.9);
                tone(((v + 0.5) * 0.5 - u.abs()) * 3.0)
            }
            Texture::Plaid => 0.5 * (tone(triangle(x * 0.7)) + tone(triangle(y * 0.7))),
            Texture::Crosses => {
                let [u, v] = staggered(x * 0.6, y * 0.6).map(f32::abs);
                tone((0.15 - u.min(v)) * 5.0).min(tone((0.4 - u.max(v)) * 5.0))
            }
            Texture::Bricks => {
                let [u, v] = staggered(x * 0.45, y * 0.9);
                tone((0.32 - v.abs()) * 4.0).min(tone((0.42 - u.abs()) * 6.0))
            }
            Texture::Windows => {
                let pane = |t: f32| tone((0.3 - (fraction(t * 0.7) - 0.5).abs()) * 4.0);
                pane(x).min(pane(y))
            }
            Texture::Dashes => {
                let [v, u] = staggered(y * 0.5, x * 0.9);
                tone((0.17 - u.abs()) * 5.0).min(tone((0.3 - v.abs()) * 5.0))
            }
            Texture::Dots => {
                let [u, v] = staggered(x * 0.75, y * 0.75);
                tone((0.1 - u * u - v * v) * 8.0)
            }
            Texture::Ringlets => {
                let [u, v] = staggered(x * 0.55, y * 0.55);
                tone((0.12 - ((u * u + v * v).sqrt() - 0.33).abs()) * 6.0)
            }
            Texture::Scales => {
                let [u, v] = staggered(x * 0.6, y * 0.9);
                tone(triangle((u * u + (v + 0.5) * (v + 0.5)).sqrt() * 1.7))
            }
            Texture::Squares => tone(triangle(x.abs().max(y.abs()))),
            Texture::Spokes => tone(triangle(y.atan2(x) * (12.0 / std::f32::consts::TAU))),
            Texture::Blotches => tone((smooth(heights, x, y) - 0.5) * 4.0),
        }
    }
}

/// Heights between the grid's points.
fn smooth(heights: &Heights, x: f32, y: f32) -> f32 {
    let at = |i: i32, j: i32| heights[((j & 7) * 8 + (i & 7)) as usize];
    let (i, j) = (x.floor() as i32, y.floor() as i32);
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (s, t) = (ease(fraction(x)), ease(fraction(y)));
    let top = at(i, j) + (at(i + 1, j) - at(i, j)) * s;
    let bottom = at(i, j + 1) + (at(i + 1, j + 1) - at(i, j + 1)) * s;
    top + (bottom - top) * t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::synthetic::classes::FIGURES;

    #[test]
    fn every_texture_shows_both_tones_and_no_two_are_alike() {
        let heights: Heights = std::array::from_fn(|i| (i * 37 % 64) as f32 / 63.0);
        let tones = |texture: Texture| -> Vec<f32> {
            let point = |i: usize| [(i % 64) as f32 / 16.0 - 1.9, (i / 64) as f32 / 16.0 - 1.9];
            (0..4096).map(|i| texture.tone(point(i), &heights)).collect()
        };
        let all: Vec<Vec<f32>> = FIGURES.iter().map(|figure| tones(figure.texture)).collect();
        for (i, a) in all.iter().enumerate() {
            let mean = a.iter().sum::<f32>() / 4096.0;
            assert!((0.15..0.85).contains(&mean), "{:?}: mean {mean}", FIGURES[i].texture);
            assert!(a.iter().all(|tone| (0.0..=1.0).contains(tone)));
            for (j, b) in all.iter().enumerate().skip(i + 1) {
                let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / 4096.0;
                assert!(apart > 0.2, "{:?} and {:?}", FIGURES[i].texture, FIGURES[j].texture);
            }
        }
    }
}
