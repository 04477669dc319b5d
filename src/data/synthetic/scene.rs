//! What is in an image, before it is drawn: its size, its objects, and where they are.

use crate::data::Labels;
use crate::data::synthetic::Contents;
use crate::random::{Stream, domain};

/// PASCAL VOC's most frequent class.
const PERSON: usize = 14;

pub(crate) struct Scene {
    pub height: usize,
    pub width: usize,
    /// From back to front.
    pub objects: Vec<Object>,
}

/// One object: what, and where (in pixels).
#[derive(Clone, Copy, Debug)]
pub struct Object {
    pub class: usize,
    pub x: f32,
    pub y: f32,
    /// Half of its larger side.
    pub half: f32,
    /// Radians.
    pub angle: f32,
    pub flipped: bool,
    /// Its width is multiplied by this.
    pub stretch: f32,
}

impl Scene {
    /// Every class is the main one of one image in each twenty (or as many classes as there are), and
    /// alone in at least one of its images in each sixty.
    pub(crate) fn plan(seed: u64, index: usize, contents: Contents) -> Self {
        let Contents { classes: kinds, single } = contents;
        let mut stream = Stream::new(seed, &[domain::SYNTHETIC, index as u64]);
        let (height, width) = size(&mut stream);
        let (round, slot) = (index / kinds, index % kinds);
        let mut classes = Stream::new(seed, &[domain::SYNTHETIC, u64::MAX, round as u64]);
        let main = classes.permutation(kinds)[slot];
        let number = match ((main + round) % 3, stream.below(20)) {
            _ if single => 1,
            (0, _) | (_, 0..=9) => 1,
            (_, 10..=17) => 2,
            _ => 3,
        };
        let short = height.min(width) as f32;
        let mut objects: Vec<Object> = Vec::with_capacity(number);
        for i in 0..number {
            let class = match i {
                0 => main,
                _ if stream.unit() < 0.3 && PERSON < kinds => PERSON,
                _ => stream.below(kinds),
            };
            let share = match (i, number) {
                (0, 1) => stream.uniform(0.64, 0.75),
                (0, _) => stream.uniform(0.54, 0.66),
                _ => stream.uniform(0.44, 0.56),
            };
            let mut object = Object {
                class,
                x: 0.0,
                y: 0.0,
                half: share * short / 2.0,
                angle: stream.uniform(-12.0, 12.0).to_radians(),
                flipped: stream.unit() < 0.5,
                stretch: stream.uniform(0.9, 1.1),
            };
            // A little of an object may lie outside the image, and a little behind another:
            // the emptiest of a few places is taken.
            let mut best = f32::NEG_INFINITY;
            for _ in 0..12 {
                let place = |stream: &mut Stream, side: usize| {
                    let margin = object.half * stream.uniform(0.85, 1.3);
                    stream.uniform(
                        margin.min(side as f32 / 2.0),
                        (side as f32 - margin).max(side as f32 / 2.0),
                    )
                };
                let (x, y) = (place(&mut stream, width), place(&mut stream, height));
                let gap = |other: &Object| {
                    let far = ((x - other.x).powi(2) + (y - other.y).powi(2)).sqrt();
                    far / (object.half + other.half)
                };
                let room = objects.iter().map(gap).fold(1.0, f32::min);
                if room > best {
                    (object.x, object.y, best) = (x, y, room);
                }
                if best > 0.75 {
                    break;
                }
            }
            // No room: rather an object less than one that hides another.
            if best > 0.5 {
                objects.push(object);
            }
        }
        Scene { height, width, objects }
    }

    /// Of so many classes, those of the objects.
    pub(crate) fn labels(&self, classes: usize) -> Labels {
        let mut labels = vec![false; classes];
        self.objects.iter().for_each(|object| labels[object.class] = true);
        labels
    }
}

/// VOC's sizes: most images have a long side of 500, few are small, most lie on their side.
fn size(stream: &mut Stream) -> (usize, usize) {
    let long = if stream.unit() < 0.7 { 500 } else { 300 + stream.below(200) };
    let ratio = match stream.below(4) {
        0 => 0.75,
        1 => 2.0 / 3.0,
        _ => stream.uniform(0.66, 1.0),
    };
    let short = ((long as f32 * ratio).round() as usize).max(200);
    if stream.unit() < 0.72 { (short, long) } else { (long, short) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::first_label;

    #[test]
    fn every_class_is_a_first_label_among_any_hundred() {
        for (seed, start) in [(0, 0), (1, 0), (2, 1000), (3, 1_000_000_000)] {
            let mut seen = [0; 20];
            for index in start..start + 100 {
                let labels = Scene::plan(seed, index, Contents::default()).labels(20);
                seen[first_label(&labels).unwrap()] += 1;
            }
            assert!(seen.iter().all(|&n| n > 0), "seed {seed}: {seen:?}");
        }
    }

    #[test]
    fn the_statistics_are_vocs() {
        let scenes: Vec<Scene> =
            (0..1000).map(|index| Scene::plan(5, index, Contents::default())).collect();
        let mut counts = [0; 20];
        for scene in &scenes {
            scene.labels(20).iter().zip(&mut counts).for_each(|(&set, n)| *n += set as usize);
            assert!((200..=500).contains(&scene.height) && (200..=500).contains(&scene.width));
            for object in &scene.objects {
                let share = 2.0 * object.half / scene.height.min(scene.width) as f32;
                assert!((0.44..=0.75).contains(&share));
            }
        }
        let rest: Vec<usize> = (0..20).filter(|&c| c != PERSON).map(|c| counts[c]).collect();
        assert!(rest.iter().all(|n| (50..100).contains(n)), "{counts:?}");
        assert!((130..260).contains(&counts[PERSON]), "{counts:?}");
        let labels: usize = counts.iter().sum();
        assert!((1300..1700).contains(&labels), "{labels} labels on 1000 pictures");
    }
}
