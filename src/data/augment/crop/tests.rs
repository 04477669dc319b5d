use super::*;
use crate::data::augment::{AffineOrder, Parameters, matrix};
use crate::data::image::{Fit, Nearest, fit, resize_mask};
use crate::ops::affine::IDENTITY;

fn image(height: usize, width: usize) -> Image {
    let value = |i: usize| (i * 37 % 251) as u8;
    Image::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
}

fn plain(image: &Image, matrix: &Matrix, size: usize, fill: Fill) -> Vec<f32> {
    sample(image, matrix, size, fill, false, |_| {})
}

const SCALES: Crop = Crop::Scale { low: 0.5, high: 2.0 };

#[test]
fn a_crop_of_the_whole_image_is_the_stretched_image() {
    let whole = Crop::Area { low: 1.0, high: 1.0, ratio: 1.0 };
    for side in [5, 8, 20] {
        let crop = whole.draw([8, 8], side, 0, 0, 0);
        let image = image(8, 8);
        let expected = fit(&image, side, Fit::Stretch).unwrap();
        let got = plain(&image, &crop, side, Fill::Edge);
        let off = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-3, "side {side}: off by {off}");
        let mask = Mask::new(8, 8, (0..64).map(|i| i % 21).collect()).unwrap();
        let expected = resize_mask(&mask, side, side, Nearest::Centre).unwrap();
        assert!(sample_mask(&mask, &crop, side) == expected, "side {side}");
    }
}

#[test]
fn scaled_images_keep_their_proportions_and_lie_in_the_square_or_fill_it() {
    let (mut smaller, mut larger) = (0, 0);
    for sample in 0..300 {
        let m = SCALES.draw([30, 60], 40, 3, 1, sample);
        let k = m[0][0];
        assert!(k == m[1][1] && (0.75..=3.0001).contains(&k), "{m:?}");
        // The square's edges, in the image, along the side that is as long as the square.
        let from = m[1][2] - (k - 1.0) / 2.0;
        let to = from + 40.0 * k;
        if k > 1.5 {
            assert!(from <= 1e-9 && to >= 60.0 - 1e-9, "{from} to {to}");
            smaller += 1;
        } else {
            assert!(from >= -1e-9 && to <= 60.0 + 1e-9, "{from} to {to}");
            larger += 1;
        }
    }
    assert!(smaller > 50 && larger > 50, "{smaller} smaller, {larger} larger");
}

#[test]
fn parts_have_the_area_and_proportions_asked_for_and_lie_in_the_image() {
    for sample in 0..300 {
        let crop = Crop::CLASSIFY.draw([50, 80], 10, 7, 0, sample);
        let (h, w) = (crop[0][0] * 10.0, crop[1][1] * 10.0);
        let share = h * w / 4000.0;
        // Less only where ten draws did not fit and the part was cut.
        assert!((0.2499..=1.0001).contains(&share), "{share} of the area");
        assert!((0.7499..=1.6001).contains(&(w / h)), "{w}×{h}");
        for (axis, side, seen) in [(0, 50.0, h), (1, 80.0, w)] {
            let from = crop[axis][2] - (crop[axis][axis] - 1.0) / 2.0;
            assert!(from >= -1e-9 && from + seen <= side + 1e-9);
        }
    }
}

#[test]
fn beside_the_image_is_void_and_the_fill() {
    let shifted = [[1.0, 0.0, -2.0], [0.0, 1.0, 1.0]];
    let mask = Mask::new(3, 3, vec![5; 9]).unwrap();
    let seen = sample_mask(&mask, &shifted, 3);
    assert_eq!(seen.classes, [255, 255, 255, 255, 255, 255, 5, 5, 255]);
    let image = Image::new(3, 3, vec![9; 27]).unwrap();
    let values = plain(&image, &shifted, 3, Fill::Color([1.0, 2.0, 3.0]));
    for (pixel, class) in values.chunks(3).zip(&seen.classes) {
        assert_eq!(pixel, if *class == 5 { [9.0; 3] } else { [1.0, 2.0, 3.0] });
    }
    assert_eq!(plain(&image, &shifted, 3, Fill::Edge), [9.0; 27]);
}

#[test]
fn image_and_mask_stay_together_under_crop_rotation_and_flip() {
    // The image shows its mask: one colour a class, in blocks larger than the blending.
    let (h, w) = (60, 90);
    let class = |y: usize, x: usize| (1 + y / 20 * 3 + x / 30) as u8;
    let classes: Vec<u8> = (0..h * w).map(|i| class(i / w, i % w)).collect();
    let rgb = classes.iter().flat_map(|&class| [class * 20; 3]).collect();
    let (image, mask) = (Image::new(h, w, rgb).unwrap(), Mask::new(h, w, classes).unwrap());
    let (mut same, mut all) = (0, 0);
    for sample in 0..20 {
        let turned =
            Parameters { theta: 15.0, flip_horizontal: sample % 2 == 0, ..Parameters::IDENTITY };
        let crop = SCALES.draw([h, w], 48, 5, 0, sample);
        let matrix = compose(&crop, &matrix(&turned, 48, 48, AffineOrder::Centred));
        let values = plain(&image, &matrix, 48, Fill::BLACK);
        for (pixel, &class) in values.chunks(3).zip(&sample_mask(&mask, &matrix, 48).classes) {
            let expected = if class == VOID { 0.0 } else { class as f32 * 20.0 };
            same += ((pixel[0] - expected).abs() < 1e-3) as usize;
            all += 1;
            // Between two blocks the image is blended and the mask is not.
            assert_eq!(class == VOID, pixel[0] == 0.0);
        }
    }
    assert!(same * 10 > all * 9, "{same} of {all}");
}

#[test]
fn matrices_are_applied_one_after_the_other() {
    let (a, b) = ([[2.0, 1.0, 3.0], [0.5, -1.0, 4.0]], [[1.0, 2.0, -1.0], [3.0, 0.0, 2.0]]);
    let [row, column] = place(&b, 5, 7);
    let expected = a.map(|[x, y, z]| x * row + y * column + z);
    assert_eq!(place(&compose(&a, &b), 5, 7), expected);
    assert_eq!(compose(&a, &IDENTITY), a);
}

#[test]
fn a_reduced_image_holds_the_means_of_its_boxes() {
    let image = Image::new(3, 3, (0..27).collect()).unwrap();
    let reduced = reduce(&image, 2);
    assert_eq!((reduced.height, reduced.width), (2, 2));
    // Red: rows of 0 3 6, 9 12 15, 18 21 24; halves are rounded up.
    let red: Vec<u8> = reduced.rgb.iter().step_by(3).copied().collect();
    assert_eq!(red, [6, 11, 20, 24]);
    // Stripes of one pixel, seen four times smaller: grey with boxes, one of the stripes without.
    let stripes = (0..64 * 64).flat_map(|i| [if i % 2 == 0 { 0 } else { 200 }; 3]).collect();
    let stripes = Image::new(64, 64, stripes).unwrap();
    let quarter = [[4.0, 0.0, 2.0], [0.0, 4.0, 2.0]];
    let smooth = sample(&stripes, &quarter, 16, Fill::Edge, true, |_| {});
    assert_eq!(smooth, [100.0; 768]);
    assert_eq!(plain(&stripes, &quarter, 16, Fill::Edge), [0.0; 768]);
}

#[test]
fn crops_without_meaning_are_refused() {
    assert!(Crop::SEGMENT.check().is_ok() && Crop::CLASSIFY.check().is_ok());
    for crop in [
        Crop::Scale { low: 0.0, high: 1.0 },
        Crop::Scale { low: 2.0, high: 1.0 },
        Crop::Scale { low: 1.0, high: f64::NAN },
        Crop::Area { low: 0.5, high: 1.5, ratio: 1.0 },
        Crop::Area { low: 0.5, high: 1.0, ratio: 0.5 },
    ] {
        assert!(crop.check().unwrap_err().to_string().contains("low ≤ high"), "{crop:?}");
    }
}

/// The definition, a pixel at a time.
fn pixel(image: &Image, matrix: &Matrix, factor: usize, row: usize, column: usize) -> [f32; 3] {
    let along = |q: f64, side: usize| {
        let q = ((q + 0.5) / factor as f64 - 0.5).clamp(0.0, (side - 1) as f64);
        let low = q as usize;
        (low, (low + 1).min(side - 1), (q - low as f64) as f32)
    };
    let at = place(matrix, row, column);
    let (top, bottom, t_r) = along(at[0], image.height);
    let (left, right, t_c) = along(at[1], image.width);
    std::array::from_fn(|channel| {
        let value = |y: usize, x: usize| image.rgb[(y * image.width + x) * 3 + channel] as f32;
        let blend = |x: f32, y: f32, t: f32| x + (y - x) * t;
        let above = blend(value(top, left), value(top, right), t_c);
        blend(above, blend(value(bottom, left), value(bottom, right), t_c), t_r)
    })
}

#[test]
fn vectors_of_pixels_have_the_bits_of_the_definition() {
    let image = image(41, 67);
    let mask = Mask::new(41, 67, (0..41 * 67).map(|i| (i * 7 % 21) as u8).collect()).unwrap();
    let turned = [[0.7, -0.9, 12.3], [0.4, 1.6, -20.0]];
    for (matrix, antialias) in
        [(SCALES.draw([41, 67], 71, 1, 2, 3), false), (turned, false), (turned, true), (IDENTITY, true)]
    {
        let matrix = compose(&matrix, &[[if antialias { 2.6 } else { 1.0 }, 0.0, 0.3], [0.0, 1.7, 0.0]]);
        let factor = if antialias { (shrinkage(&matrix) as usize).max(1) } else { 1 };
        let reduced = reduce(&image, factor);
        let double = |pixels: &mut [f32]| pixels.iter_mut().for_each(|value| *value *= 2.0);
        for isa in simd::supported() {
            let fill = Fill::Color([1.0, 2.0, 3.0]);
            let [got, edge] = [fill, Fill::Edge].map(|fill| {
                crate::context::with_isa(isa, || sample(&image, &matrix, 71, fill, antialias, double))
            });
            let labels = crate::context::with_isa(isa, || sample_mask(&mask, &matrix, 71));
            for i in 0..71 * 71 {
                let at = place(&matrix, i / 71, i % 71);
                let expected = pixel(&reduced, &matrix, factor, i / 71, i % 71).map(|value| value * 2.0);
                assert_eq!(edge[i * 3..][..3], expected, "{isa:?} {matrix:?} {i}");
                let (fill, class) = match inside(at, [41, 67]) {
                    true => {
                        let nearest = |q: f64, side: usize| ((q + 0.5) as usize).min(side - 1);
                        (expected, mask.classes[nearest(at[0], 41) * 67 + nearest(at[1], 67)])
                    }
                    false => ([1.0, 2.0, 3.0], VOID),
                };
                assert_eq!((&got[i * 3..][..3], labels.classes[i]), (&fill[..], class), "{isa:?} {i}");
            }
        }
    }
}
