use super::*;
use crate::backend::cpu::simd::supported;
use crate::context::with_isa;
use crate::data::synthetic;
use crate::random::{Stream, domain};

/// Patches of colour with noise: plateaus, borders, and near ties.
fn image(height: usize, width: usize, seed: u64) -> Image {
    let mut stream = Stream::new(seed, &[domain::TEST]);
    let patches: Vec<[u8; 3]> = (0..12).map(|_| [(); 3].map(|()| stream.below(256) as u8)).collect();
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let patch = patches[(y / 5 * 4 + x / 6) % patches.len()];
            rgb.extend(patch.map(|v| v.saturating_add(stream.below(4) as u8)));
        }
    }
    Image::new(height, width, rgb).unwrap()
}

/// The definition, pixel against pixel.
fn naive(image: &Image, settings: &QuickShift) -> (Vec<f32>, Vec<u32>) {
    let (w, n) = (image.width, image.height * image.width);
    let linear = linear_light();
    let point = |i: usize| -> ([f32; 3], [isize; 2]) {
        let rgb = &image.rgb[3 * i..][..3];
        let colour = match settings.colour {
            Colour::Lab => lab(&linear, rgb),
            Colour::Rgb => [rgb[0] as f32, rgb[1] as f32, rgb[2] as f32],
        };
        (colour.map(|v| v * settings.ratio), [(i / w) as isize, (i % w) as isize])
    };
    let distance = |i: usize, j: usize| {
        let ((a, [ay, ax]), (b, [by, bx])) = (point(i), point(j));
        let colour: f32 = (0..3).map(|c| (a[c] - b[c]) * (a[c] - b[c])).sum();
        let way = ((ay - by) * (ay - by) + (ax - bx) * (ax - bx)) as f32;
        (colour + way, (ay - by).abs().max((ax - bx).abs()))
    };
    let radius = (3.0 * settings.kernel).ceil() as isize;
    let density: Vec<f32> = (0..n)
        .map(|i| {
            let near = (0..n).map(|j| distance(i, j)).filter(|&(_, reach)| reach <= radius);
            near.map(|(d, _)| math::exp(d * (-0.5 / (settings.kernel * settings.kernel))))
                .fold(0.0, |sum, term| sum + term)
        })
        .collect();
    let parents = (0..n)
        .map(|i| {
            let higher = |j: &usize| (density[*j], Reverse(*j)) > (density[i], Reverse(i));
            let candidates = (0..n).filter(higher).map(|j| (distance(i, j).0, j));
            let allowed = |&(d, _): &(f32, usize)| d <= settings.max_distance * settings.max_distance;
            let nearest = candidates.filter(allowed).min_by(|a, b| a.partial_cmp(b).unwrap());
            nearest.map_or(i, |(_, j)| j) as u32
        })
        .collect();
    (density, parents)
}

fn settings() -> Vec<QuickShift> {
    let default = QuickShift::default();
    vec![
        default,
        QuickShift { kernel: 1.0, max_distance: 4.5, ..default },
        QuickShift { kernel: 2.0, max_distance: 6.0, ratio: 0.3, colour: Colour::Rgb },
        QuickShift { kernel: 0.7, max_distance: 40.0, ratio: 0.0, ..default },
    ]
}

#[test]
fn densities_and_links_are_those_of_the_definition_in_every_instruction_set() {
    for (height, width, seed) in [(13, 17, 1), (21, 9, 2), (1, 30, 3), (24, 1, 4), (2, 2, 5)] {
        let image = image(height, width, seed);
        for settings in settings() {
            let (density, parents) = naive(&image, &settings);
            for isa in supported() {
                with_isa(isa, || {
                    let points = Points::new(&image, &settings);
                    let found = points.densities(settings.kernel);
                    assert_eq!(found, density, "{height}×{width}, {settings:?}, {isa:?}");
                    let links = points.parents(&found, settings.max_distance);
                    assert_eq!(links, parents, "{height}×{width}, {settings:?}, {isa:?}");
                });
            }
        }
    }
}

#[test]
fn superpixels_are_a_partition_into_trees_each_with_one_root() {
    let image = image(30, 40, 7);
    for settings in settings() {
        let (_, parents) = naive(&image, &settings);
        let superpixels = settings.segment(&image).unwrap();
        assert_eq!(superpixels.labels.len(), 30 * 40);
        let mut roots = vec![0; superpixels.count];
        let mut next = 0;
        for (i, &label) in superpixels.labels.iter().enumerate() {
            assert_eq!(label, superpixels.labels[parents[i] as usize], "a link leaves its tree");
            roots[label as usize] += (parents[i] as usize == i) as usize;
            assert!(label <= next, "numbered by first appearance");
            next = next.max(label + 1);
        }
        assert!(roots.iter().all(|&n| n == 1), "{settings:?}: {roots:?}");
    }
}

#[test]
fn a_image_of_one_colour_is_one_superpixel() {
    for (height, width) in [(1, 1), (9, 40), (33, 33)] {
        let image = Image::new(height, width, vec![90; height * width * 3]).unwrap();
        assert_eq!(QuickShift::default().segment(&image).unwrap().count, 1, "{height}×{width}");
    }
}

#[test]
fn no_superpixel_crosses_a_strong_border() {
    // Black left, white right: 100 in L, far more than any link.
    let rgb = (0..20 * 24).flat_map(|i| if i % 24 < 11 { [0; 3] } else { [255; 3] }).collect();
    let superpixels = QuickShift::default().segment(&Image::new(20, 24, rgb).unwrap()).unwrap();
    assert_eq!(superpixels.count, 2);
    let left = |i: usize| i % 24 < 11;
    assert!(superpixels.labels.iter().enumerate().all(|(i, &label)| (label == 0) == left(i)));
}

#[test]
fn links_of_length_zero_leave_every_pixel_alone() {
    let settings = QuickShift { max_distance: 0.0, ..QuickShift::default() };
    assert_eq!(settings.segment(&image(6, 7, 1)).unwrap().count, 42);
}

#[test]
fn the_same_superpixels_come_out_at_any_thread_count() {
    let image = synthetic::generate(5, 0).image;
    let run = |threads| threads::with(threads, || QuickShift::default().segment(&image)).unwrap();
    let one = run(1).unwrap();
    assert!(one.count > 10 && one.count < image.rgb.len() / 3 / 10, "{}", one.count);
    assert!(one == run(2).unwrap() && one == run(3).unwrap());
}

#[test]
fn lab_has_the_known_values_of_white_grey_and_red() {
    let linear = linear_light();
    for (rgb, expected) in [
        ([255u8; 3], [100.0, 0.0, 0.0]),
        ([0; 3], [0.0, 0.0, 0.0]),
        ([119; 3], [50.03, 0.0, 0.0]),
        ([255, 0, 0], [53.24, 80.09, 67.20]),
        ([0, 0, 255], [32.30, 79.19, -107.86]),
    ] {
        for (found, expected) in lab(&linear, &rgb).into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.02, "{rgb:?}: {found}, expected {expected}");
        }
    }
}

fn two(labels: [u32; 8]) -> Superpixels {
    Superpixels { height: 2, width: 4, labels: labels.to_vec(), count: 2 }
}

#[test]
fn the_majority_wins_void_is_silent_and_ties_go_to_the_lower_class() {
    let superpixels = two([0, 0, 1, 1, 0, 0, 1, 1]);
    let vote = |classes: [u8; 8]| {
        vote(&Mask::new(2, 4, classes.to_vec()).unwrap(), &superpixels).unwrap().classes
    };
    assert_eq!(vote([3, 3, 7, 0, 3, 9, 0, 0]), [3, 3, 0, 0, 3, 3, 0, 0]);
    assert_eq!(vote([9, 3, 7, 0, 3, 9, 0, 7]), [3, 3, 0, 0, 3, 3, 0, 0]);
    assert_eq!(vote([255, 255, 255, 255, 255, 5, 255, 255]), [5, 5, 255, 255, 5, 5, 255, 255]);
}

#[test]
fn probabilities_outweigh_counts() {
    let superpixels = two([0, 0, 1, 1, 0, 0, 1, 1]);
    // Left: three pixels lean to class 0, one is sure of class 1. Right: all alike.
    let ones = [0.45, 0.45, 0.5, 0.5, 0.45, 1.0, 0.5, 0.5];
    let probabilities: Vec<f32> = ones.iter().flat_map(|&p| [1.0 - p, p]).collect();
    let mask = vote_probabilities(&probabilities, 2, &superpixels).unwrap();
    assert_eq!(mask.classes, [1, 1, 0, 0, 1, 1, 0, 0]);
}

#[test]
fn settings_and_sizes_that_do_not_fit_are_refused() {
    let image = image(4, 4, 1);
    let default = QuickShift::default();
    for (settings, part) in [
        (QuickShift { kernel: 0.0, ..default }, "kernel size from 0.1"),
        (QuickShift { kernel: f32::NAN, ..default }, "got NaN"),
        (QuickShift { max_distance: -1.0, ..default }, "largest distance from 0"),
        (QuickShift { ratio: f32::INFINITY, ..default }, "got inf"),
    ] {
        let error = settings.segment(&image).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let superpixels = two([0; 8]);
    let mask = Mask::new(4, 2, vec![0; 8]).unwrap();
    assert!(vote(&mask, &superpixels).unwrap_err().to_string().contains("got 4×2"));
    let refused =
        |p: &[f32], classes| vote_probabilities(p, classes, &superpixels).unwrap_err().to_string();
    assert!(refused(&[0.0; 15], 2).contains("2×4×2"));
    assert!(refused(&[], 0).contains("got 0"));
    let mut p = [0.5; 16];
    p[13] = f32::NAN;
    assert!(refused(&p, 2).contains("class 1 at row 1, column 2 is NaN"), "{}", refused(&p, 2));
}
