//! What is in a data set: one column a class, images with their masks below.

use super::canvas::{Anchor, Canvas, Surface};
use super::style::{EMPTY, INK, SOFT, coloured, fitted, palette};
use crate::backend::cpu::threads;
use crate::data::{Dataset, Image, Mask};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::path::Path;

/// An image's place, and the space after it.
const CELL: f64 = 112.0;
const SPACE: f64 = 10.0;
const MARGIN: f64 = 26.0;
const TITLE: f64 = 44.0;
const HEADING: f64 = 38.0;
const CAPTION: f64 = 16.0;
/// Columns side by side; the rest of the classes are below them.
const COLUMNS: usize = 10;
const SCALE: f64 = 1.5;
/// More would be an image that nobody looks through.
const MOST: usize = 20;

/// Writes a PNG with `per_class` images of each class, 1 to 20: those with the fewest other classes in
/// them, none of them twice while there are others. An error where an image cannot be read, or the PNG
/// written.
///
/// ```
/// use atrous::data::synthetic::Synthetic;
/// use atrous::report::gallery;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("gallery.png");
/// gallery(&Synthetic::train(7, 2), &path, 1)?; // an image of each class that is in the two
/// assert!(std::fs::read(&path).unwrap().starts_with(b"\x89PNG"));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn gallery(dataset: &dyn Dataset, path: &Path, per_class: usize) -> Result<()> {
    if per_class == 0 || per_class > MOST {
        let message = format!("expected 1 to {MOST} pictures a class, got {per_class}");
        return Err(Error::argument("gallery", message));
    }
    let (chosen, counts) = choose(dataset, per_class);
    let classes = dataset.classes();
    let bands = classes.len().div_ceil(COLUMNS);
    let pair = 2.0 * CELL + CAPTION + SPACE + 4.0;
    let band = HEADING + per_class as f64 * pair + SPACE;
    let width = 2.0 * MARGIN + COLUMNS as f64 * (CELL + SPACE) - SPACE;
    let mut canvas = Canvas::new(width, 2.0 * MARGIN + TITLE + bands as f64 * band - SPACE, SCALE)?;

    canvas.text(MARGIN, MARGIN + 16.0, 20.0, Anchor::Start, INK, "What is in the data");
    let labelled = (0..dataset.len()).filter(|&i| dataset.labels(i).is_some()).count();
    let total = format!("{} pictures, {labelled} of them labelled", dataset.len());
    canvas.text(width - MARGIN, MARGIN + 16.0, 13.0, Anchor::End, SOFT, &total);

    for (class, (indices, count)) in chosen.iter().zip(counts).enumerate() {
        let x = MARGIN + (class % COLUMNS) as f64 * (CELL + SPACE);
        let top = MARGIN + TITLE + (class / COLUMNS) as f64 * band;
        canvas.rectangle(x, top, CELL, 3.0, palette(class as u8 + 1));
        canvas.text(
            x,
            top + 20.0,
            13.0,
            Anchor::Start,
            INK,
            &fitted(&classes[class], 13.0, CELL - 30.0),
        );
        canvas.text(x + CELL, top + 20.0, 11.0, Anchor::End, SOFT, &count.to_string());
        let top = top + HEADING - 8.0;
        if indices.is_empty() {
            canvas.rectangle(x, top, CELL, CELL, EMPTY);
            canvas.text(
                x + CELL / 2.0,
                top + CELL / 2.0 + 4.0,
                12.0,
                Anchor::Middle,
                SOFT,
                "no picture",
            );
        }
        let samples = threads::map(indices.len(), |i| -> Result<(Image, Option<Mask>)> {
            Ok((dataset.image(indices[i])?, dataset.mask(indices[i])?))
        });
        for (i, (&index, sample)) in indices.iter().zip(samples).enumerate() {
            let (image, mask) = sample?;
            let top = top + i as f64 * pair;
            canvas.rectangle(x, top, CELL, CELL, EMPTY);
            canvas.image(x, top, CELL, CELL, &image);
            let below = top + CELL + 4.0;
            canvas.rectangle(x, below, CELL, CELL, EMPTY);
            match mask {
                Some(mask) => canvas.image(x, below, CELL, CELL, &coloured(&mask)),
                None => {
                    let (x, y) = (x + CELL / 2.0, below + CELL / 2.0 + 4.0);
                    canvas.text(x, y, 12.0, Anchor::Middle, SOFT, "no mask");
                }
            }
            let name = fitted(&dataset.id(index), 10.0, CELL);
            canvas.text(x, below + CELL + 13.0, 10.0, Anchor::Start, SOFT, &name);
        }
    }
    canvas.write_png(path)
}

/// The samples to show of each class, and how many there are.
fn choose(dataset: &dyn Dataset, per_class: usize) -> (Vec<Vec<usize>>, Vec<usize>) {
    let labels = threads::map(dataset.len(), |i| dataset.labels(i));
    let (mut chosen, mut counts) = (Vec::new(), Vec::new());
    let mut used = HashSet::new();
    for class in 0..dataset.classes().len() {
        let with = |i: &usize| labels[*i].as_ref().is_some_and(|labels| labels[class]);
        let mut candidates: Vec<usize> = (0..labels.len()).filter(with).collect();
        counts.push(candidates.len());
        let others = |i: usize| labels[i].as_ref().map_or(0, |l| l.iter().filter(|&&set| set).count());
        candidates.sort_by_key(|&i| (used.contains(&i), others(i), i));
        candidates.truncate(per_class);
        used.extend(candidates.iter().copied());
        chosen.push(candidates);
    }
    (chosen, counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Classes, Labels};

    struct Only(Vec<Option<Labels>>, Classes);

    fn only(labels: Vec<Option<Labels>>) -> Only {
        Only(labels, Classes::voc())
    }

    impl Dataset for Only {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn classes(&self) -> Classes {
            self.1.clone()
        }
        fn id(&self, index: usize) -> String {
            index.to_string()
        }
        fn labels(&self, index: usize) -> Option<Labels> {
            self.0[index].clone()
        }
        fn image(&self, _: usize) -> Result<Image> {
            Image::new(3, 5, vec![100; 45])
        }
        fn mask(&self, _: usize) -> Result<Option<Mask>> {
            Ok(None)
        }
    }

    #[test]
    fn images_of_one_class_come_first_and_none_is_shown_twice_where_it_can_be_helped() {
        let labels = |classes: &[usize]| {
            let mut labels = vec![false; 20];
            classes.iter().for_each(|&class| labels[class] = true);
            Some(labels)
        };
        let set = only(vec![labels(&[0, 1]), None, labels(&[0]), labels(&[1, 2]), labels(&[0, 2])]);
        let (chosen, counts) = choose(&set, 2);
        assert_eq!((&chosen[0][..], &chosen[1][..]), (&[2, 0][..], &[3, 0][..]));
        assert_eq!((&chosen[2][..], &chosen[3][..]), (&[4, 3][..], &[][..]));
        assert_eq!(counts[..4], [3, 2, 2, 0]);
    }

    #[test]
    fn data_without_labels_or_masks_still_makes_a_gallery() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gallery.png");
        gallery(&only(vec![None]), &path, 1).unwrap();
        gallery(&only(Vec::new()), &path, 1).unwrap();
        assert!(path.is_file());
        for wrong in [0, MOST + 1] {
            assert!(gallery(&only(vec![None]), &path, wrong).is_err());
        }
    }
}
