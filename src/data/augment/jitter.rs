//! Random changes of colour: brightness b, contrast c, saturation s, each a factor about 1.
//!
//! x₁ = b·x, x₂ = m + c·(x₁ − m), x₃ = g + s·(x₂ − g), each cut to 0..255, with m the grey of the
//! image's mean colour (times b) and g the pixel's own grey, .299 R + .587 G + .114 B
//! (as in torchvision's ColorJitter, in a fixed order).

use crate::backend::cpu::simd;
use crate::context::isa;
use crate::data::Image;
use crate::error::{Error, Result};
use crate::random::{Stream, domain};

/// How far each factor may be from 1: 0.3 draws from [0.7, 1.3).
///
/// ```
/// use atrous::data::augment::jitter::Jitter;
/// use atrous::data::loader::batch;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::data::transforms::Transforms;
///
/// Jitter::MILD.check()?;
/// assert!(Jitter { saturation: 1.5, ..Jitter::MILD }.check().is_err());
/// // Another brightness and nothing else: one factor for all values that stay below white.
/// let jitter = Some(Jitter { brightness: 0.5, contrast: 0.0, saturation: 0.0 });
/// let dataset = Synthetic::train(1, 1);
/// let plain = Transforms::plain(16);
/// let before = batch(&dataset, &plain, &[0], 1, 0)?.images.to_vec_f64();
/// let after = batch(&dataset, &Transforms { jitter, ..plain }, &[0], 1, 0)?.images.to_vec_f64();
/// let values = before.iter().zip(&after).filter(|(before, after)| **before > 0.1 && **after < 0.999);
/// let factors: Vec<f64> = values.map(|(before, after)| after / before).collect();
/// assert!((0.5..1.5).contains(&factors[0]));
/// assert!(factors.iter().all(|factor| (factor - factors[0]).abs() < 1e-5));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter {
    /// Range of b, 0 (never changed) to 1.
    pub brightness: f32,
    /// Range of c, 0 to 1.
    pub contrast: f32,
    /// Range of s, 0 to 1.
    pub saturation: f32,
}

impl Jitter {
    /// Each factor from .7 to 1.3: other weather and cameras, not another scene.
    pub const MILD: Self = Jitter { brightness: 0.3, contrast: 0.3, saturation: 0.3 };

    /// An error where a range is not 0 to 1.
    pub fn check(&self) -> Result<()> {
        if [self.brightness, self.contrast, self.saturation].iter().all(|r| (0.0..=1.0).contains(r)) {
            return Ok(());
        }
        Err(Error::argument("colour jitter", format!("expected ranges from 0 to 1, got {self:?}")))
    }

    /// Drawn for one sample of one epoch: the same whoever asks, and when.
    pub(crate) fn draw(&self, image: &Image, seed: u64, epoch: u64, sample: u64) -> ColorJitter {
        // The last label keeps these numbers apart from those of crops.
        let mut stream = Stream::new(seed, &[domain::AUGMENT, epoch, sample, 2]);
        let mut about_one = |range: f32| stream.uniform(1.0 - range, 1.0 + range);
        let [brightness, contrast, saturation] =
            [self.brightness, self.contrast, self.saturation].map(&mut about_one);
        let mean = if self.contrast == 0.0 { 0.0 } else { mean_grey(image) };
        ColorJitter { brightness, contrast, saturation, middle: (mean * brightness).min(255.0) }
    }
}

fn mean_grey(image: &Image) -> f32 {
    /// Whole pixels, and whole vectors of any instruction set.
    const BLOCK: usize = 48;
    let mut sums = [0u64; 3];
    let mut add =
        |lanes: &[u32]| lanes.iter().enumerate().for_each(|(i, &lane)| sums[i % 3] += lane as u64);
    // So many blocks of bytes fit into 32 bits.
    for part in image.rgb.chunks(BLOCK << 16) {
        let blocks = part.chunks_exact(BLOCK);
        add(&blocks.remainder().iter().map(|&value| value as u32).collect::<Vec<_>>());
        let mut lanes = [0u32; BLOCK];
        simd::vectorize(
            isa(),
            #[inline(always)]
            || {
                for block in blocks {
                    lanes.iter_mut().zip(block).for_each(|(lane, &value)| *lane += value as u32);
                }
            },
        );
        add(&lanes);
    }
    let pixels = (image.height * image.width) as f64;
    grey(sums.map(|sum| (sum as f64 / pixels) as f32))
}

#[inline(always)]
fn grey([r, g, b]: [f32; 3]) -> f32 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// The factors drawn for one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ColorJitter {
    /// The factor b on all channels.
    pub brightness: f32,
    /// The factor c on the distance from `middle`.
    pub contrast: f32,
    /// The factor s on the distance from the pixel's own grey.
    pub saturation: f32,
    /// The grey m, 0 to 255, that contrast leaves alone.
    pub middle: f32,
}

impl ColorJitter {
    pub(crate) const IDENTITY: Self =
        ColorJitter { brightness: 1.0, contrast: 1.0, saturation: 1.0, middle: 0.0 };

    /// In place, on any number of RGB pixels of 0 to 255.
    #[allow(clippy::needless_range_loop, reason = "a pixel is one place of three channels")]
    pub(crate) fn apply(&self, rgb: &mut [f32]) {
        /// Pixels whose channels lie apart for a moment, so that vectors hold one channel.
        const BLOCK: usize = 16;
        if *self == Self::IDENTITY {
            return;
        }
        simd::vectorize(
            isa(),
            #[inline(always)]
            || {
                for pixels in rgb.chunks_mut(3 * BLOCK) {
                    let mut channels = [[0.0f32; BLOCK]; 3];
                    for (i, pixel) in pixels.chunks_exact(3).enumerate() {
                        channels.iter_mut().zip(pixel).for_each(|(channel, &value)| channel[i] = value);
                    }
                    for i in 0..BLOCK {
                        let changed = self.of([channels[0][i], channels[1][i], channels[2][i]]);
                        for channel in 0..3 {
                            channels[channel][i] = changed[channel];
                        }
                    }
                    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
                        pixel.iter_mut().zip(&channels).for_each(|(y, channel)| *y = channel[i]);
                    }
                }
            },
        );
    }

    #[inline(always)]
    fn of(&self, pixel: [f32; 3]) -> [f32; 3] {
        let toward = |from: f32, x: f32, factor: f32| (from + factor * (x - from)).clamp(0.0, 255.0);
        // (Loops, not `map`: the library's closures might not be inlined into the instruction set of the
        // caller.)
        let mut x = pixel;
        for x in &mut x {
            *x = (self.brightness * *x).clamp(0.0, 255.0);
            *x = toward(self.middle, *x, self.contrast);
        }
        let grey = grey(x);
        for x in &mut x {
            *x = toward(grey, *x, self.saturation);
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_factor_does_its_part() {
        let apply = |brightness, contrast, saturation| {
            let mut rgb = [100.0, 50.0, 200.0];
            ColorJitter { brightness, contrast, saturation, middle: 80.0 }.apply(&mut rgb);
            rgb
        };
        let close = |got: [f32; 3], expected: [f32; 3]| {
            let fine = got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-3);
            assert!(fine, "{got:?}, expected {expected:?}");
        };
        close(apply(1.0, 1.0, 1.0), [100.0, 50.0, 200.0]);
        close(apply(1.5, 1.0, 1.0), [150.0, 75.0, 255.0]);
        close(apply(1.0, 0.5, 1.0), [90.0, 65.0, 140.0]);
        close(apply(1.0, 0.0, 1.0), [80.0; 3]);
        let grey = 29.9 + 29.35 + 22.8;
        close(apply(1.0, 1.0, 0.0), [grey; 3]);
        close(apply(1.0, 1.0, 0.5), [(100.0 + grey) / 2.0, (50.0 + grey) / 2.0, (200.0 + grey) / 2.0]);
    }

    #[test]
    fn draws_stay_in_their_ranges_and_the_middle_is_the_images_mean() {
        let image = Image::new(1, 2, vec![0, 0, 0, 200, 100, 50]).unwrap();
        let jitter = Jitter { brightness: 0.4, contrast: 0.2, saturation: 0.0 };
        for sample in 0..200 {
            let colour = jitter.draw(&image, 1, 2, sample);
            assert!((0.6..=1.4).contains(&colour.brightness) && (0.8..=1.2).contains(&colour.contrast));
            assert_eq!(colour.saturation, 1.0);
            let mean = (0.299 * 200.0 + 0.587 * 100.0 + 0.114 * 50.0) / 2.0;
            assert!((colour.middle - mean * colour.brightness).abs() < 1e-3);
        }
        assert_ne!(jitter.draw(&image, 1, 2, 3), jitter.draw(&image, 1, 3, 3));
        assert!(jitter.check().is_ok());
        assert!(Jitter { saturation: 1.1, ..jitter }.check().is_err());
        assert!(Jitter { contrast: f32::NAN, ..jitter }.check().is_err());
    }

    #[test]
    fn blocks_of_pixels_have_the_bits_of_pixels_one_by_one_and_sums_are_exact() {
        let colour = ColorJitter { brightness: 1.2, contrast: 0.8, saturation: 1.3, middle: 93.7 };
        let pixels: Vec<f32> = (0..37 * 3).map(|i| (i * 97 % 256) as f32 * 1.01).collect();
        let expected: Vec<f32> =
            pixels.chunks_exact(3).flat_map(|p| colour.of([p[0], p[1], p[2]])).collect();
        for isa in simd::supported() {
            let mut got = pixels.clone();
            crate::context::with_isa(isa, || colour.apply(&mut got));
            assert!(got.iter().zip(&expected).all(|(g, e)| g.to_bits() == e.to_bits()), "{isa:?}");
        }
        let rgb: Vec<u8> = (0..41 * 53 * 3).map(|i| (i * 131 % 256) as u8).collect();
        let mean = |channel: usize| {
            let sum: u64 = rgb.iter().skip(channel).step_by(3).map(|&value| value as u64).sum();
            (sum as f64 / (41.0 * 53.0)) as f32
        };
        let expected = grey([mean(0), mean(1), mean(2)]);
        assert_eq!(mean_grey(&Image::new(41, 53, rgb.clone()).unwrap()), expected);
    }
}
