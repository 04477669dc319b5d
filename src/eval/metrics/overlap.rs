//! How much two masks, or two label maps, cover each other.

use super::same_length;
use crate::data::VOID;
use crate::error::{Error, Result};

/// The Dice coefficient `2|A ∩ B| / (|A| + |B|)` from three sizes; 1 where both sets are empty.
pub(crate) fn dice_of_sizes(a: u64, b: u64, both: u64) -> f64 {
    // Sizes may be a file's claims, and their sum more than fits.
    let all = a as u128 + b as u128;
    if all == 0 { 1.0 } else { 2.0 * both as f64 / all as f64 }
}

/// Dice of two sets: of each element, whether it is a member of the one and of the other.
pub(crate) fn dice_of_members(members: impl Iterator<Item = (bool, bool)>) -> f64 {
    let [mut a, mut b, mut both] = [0; 3];
    for (of_a, of_b) in members {
        a += u64::from(of_a);
        b += u64::from(of_b);
        both += u64::from(of_a && of_b);
    }
    dice_of_sizes(a, b, both)
}

/// The Dice coefficient of two masks or rows of labels: whatever is not zero is a member. An error where
/// one is longer.
///
/// ```
/// use atrous::eval::metrics::dice;
///
/// assert_eq!(dice(&[1, 1, 0, 0], &[0, 1, 1, 1])?, 2.0 * 1.0 / (2.0 + 3.0));
/// assert_eq!(dice(&[0, 0], &[0, 0])?, 1.0); // nothing is said, and nothing is there
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn dice(truth: &[u8], predicted: &[u8]) -> Result<f64> {
    if truth.len() != predicted.len() {
        return Err(Error::shape("dice", format!("{} elements", truth.len()), predicted.len()));
    }
    Ok(dice_of_members(truth.iter().zip(predicted).map(|(&a, &b)| (a != 0, b != 0))))
}

/// Dice of two label maps as the competition scores them: the planes of class `1..=classes`,
/// stacked. Background (0) and void (over `classes`) are in no plane. An error where one is larger.
///
/// ```
/// use atrous::eval::metrics::dice_of_classes;
///
/// // A cat (8) of two pixels, one of which is taken for a dog (12); void is in no plane.
/// let (truth, predicted) = ([8, 8, 0, 255], [8, 12, 0, 0]);
/// assert_eq!(dice_of_classes(&truth, &predicted, 20)?, 2.0 * 1.0 / (2.0 + 2.0));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn dice_of_classes(truth: &[u8], predicted: &[u8], classes: u8) -> Result<f64> {
    if truth.len() != predicted.len() {
        let expected = format!("{} pixels", truth.len());
        return Err(Error::shape("dice_of_classes", expected, predicted.len()));
    }
    let member = |label: u8| (1..=classes).contains(&label);
    let size = |map: &[u8]| map.iter().filter(|&&label| member(label)).count() as u64;
    let both = truth.iter().zip(predicted).filter(|&(&a, &b)| a == b && member(a)).count();
    Ok(dice_of_sizes(size(truth), size(predicted), both as u64))
}

/// Counts of (true class, predicted class) over the pixels of any number of label maps.
///
/// ```
/// use atrous::eval::metrics::Confusion;
///
/// let mut confusion = Confusion::new(3, Some(255));
/// confusion.add(&[0, 0, 1, 1, 255], &[0, 1, 1, 1, 0])?;
/// assert_eq!((confusion.count(0, 1), confusion.count(1, 1)), (1, 2));
/// assert_eq!(confusion.pixel_accuracy()?, 3.0 / 4.0);
/// // Class 1: two right, one too much. Class 2 is in neither map.
/// assert_eq!(confusion.iou(), [Some(1.0 / 2.0), Some(2.0 / 3.0), None]);
/// assert_eq!(confusion.dice(), [Some(2.0 / 3.0), Some(4.0 / 5.0), None]);
/// assert_eq!(confusion.mean_iou()?, (1.0 / 2.0 + 2.0 / 3.0) / 2.0);
/// assert_eq!(confusion.mean_dice()?, (2.0 / 3.0 + 4.0 / 5.0) / 2.0);
///
/// // Another image, counted elsewhere
/// let mut other = Confusion::new(3, Some(255));
/// other.add(&[2], &[2])?;
/// confusion.merge(&other)?;
/// assert_eq!(confusion.iou()[2], Some(1.0));
/// assert!(confusion.merge(&Confusion::of_masks(20)).is_err()); // VOC has more classes:
/// assert_eq!(Confusion::of_masks(20).classes(), 21);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    ignored: Option<u8>,
    counts: Vec<u64>,
}

impl Confusion {
    /// Nothing counted yet. Pixels whose true label is `ignored` (VOC's void, 255) will not be.
    pub fn new(classes: usize, ignored: Option<u8>) -> Self {
        Confusion { classes, ignored, counts: vec![0; classes * classes] }
    }

    /// The one for masks of so many classes: those and the background, void not counted.
    pub fn of_masks(classes: usize) -> Self {
        Confusion::new(classes + 1, Some(VOID))
    }

    /// How many classes are told apart, background among them.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Pixels of class `truth` that were taken for class `predicted`.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[truth * self.classes + predicted]
    }

    /// Counts one more pair of maps, flat. An error for maps that differ in size and labels that are
    /// no class; nothing of them is counted then.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) -> Result<()> {
        same_length("confusion", truth, predicted)?;
        let mut counts = vec![0u64; self.counts.len()];
        for (pixel, (&y, &p)) in truth.iter().zip(predicted).enumerate() {
            if Some(y) == self.ignored {
                continue;
            }
            for (what, label) in [("true", y), ("predicted", p)] {
                if label as usize >= self.classes {
                    let last = self.classes.saturating_sub(1);
                    let message =
                        format!("the {what} label of pixel {pixel} is {label}, not in 0..={last}");
                    return Err(Error::argument("confusion", message));
                }
            }
            counts[y as usize * self.classes + p as usize] += 1;
        }
        self.counts.iter_mut().zip(&counts).for_each(|(sum, new)| *sum += new);
        Ok(())
    }

    /// Adds the counts of another part of the same images; an error where classes differ in number.
    pub fn merge(&mut self, other: &Confusion) -> Result<()> {
        if self.classes != other.classes {
            let expected = format!("{} classes", self.classes);
            return Err(Error::shape("confusion", expected, other.classes));
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, new)| *sum += new);
        Ok(())
    }

    /// The share of counted pixels that are right, 0 to 1; an error where none was counted.
    pub fn pixel_accuracy(&self) -> Result<f64> {
        let total: u64 = self.counts.iter().sum();
        if total == 0 {
            return Err(Error::argument("pixel accuracy", "no pixel was counted"));
        }
        let right: u64 = (0..self.classes).map(|c| self.count(c, c)).sum();
        Ok(right as f64 / total as f64)
    }

    /// Pixels of class `c` by the truth, by the prediction, and by both.
    fn sizes(&self, c: usize) -> [u64; 3] {
        let truth = (0..self.classes).map(|p| self.count(c, p)).sum();
        let predicted = (0..self.classes).map(|y| self.count(y, c)).sum();
        [truth, predicted, self.count(c, c)]
    }

    /// `tp / (tp + fp + fn)` of each class; nothing for a class that is in neither map.
    pub fn iou(&self) -> Vec<Option<f64>> {
        let of_class = |c: usize| {
            let [truth, predicted, both] = self.sizes(c);
            let union = truth + predicted - both;
            (union > 0).then(|| both as f64 / union as f64)
        };
        (0..self.classes).map(of_class).collect()
    }

    /// `2 tp / (2 tp + fp + fn)` of each class over all pixels counted; nothing for a class that is
    /// in neither map.
    pub fn dice(&self) -> Vec<Option<f64>> {
        let of_class = |c: usize| {
            let [truth, predicted, both] = self.sizes(c);
            (truth + predicted > 0).then(|| dice_of_sizes(truth, predicted, both))
        };
        (0..self.classes).map(of_class).collect()
    }

    /// The mean IoU over the classes that are in one of the maps, background among them; an error where no
    /// pixel was counted.
    pub fn mean_iou(&self) -> Result<f64> {
        mean_of_present("mean IoU", self.iou())
    }

    /// The mean Dice over the classes that are in one of the maps, background among them; an error where no
    /// pixel was counted.
    pub fn mean_dice(&self) -> Result<f64> {
        mean_of_present("mean Dice", self.dice())
    }
}

fn mean_of_present(what: &'static str, per_class: Vec<Option<f64>>) -> Result<f64> {
    let present: Vec<f64> = per_class.into_iter().flatten().collect();
    if present.is_empty() {
        return Err(Error::argument(what, "no pixel was counted"));
    }
    Ok(super::mean(present.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_is_one_where_both_are_empty_and_zero_where_one_is() {
        assert_eq!(dice(&[0, 0], &[0, 0]).unwrap(), 1.0);
        assert_eq!(dice(&[0, 1], &[0, 0]).unwrap(), 0.0);
        assert_eq!(dice(&[1, 1, 1, 0], &[0, 1, 0, 0]).unwrap(), 0.5);
        assert!(dice(&[1], &[1, 0]).is_err());
    }

    #[test]
    fn sets_whose_sizes_do_not_add_up_in_whole_numbers_have_a_dice_too() {
        assert_eq!(dice_of_sizes(u64::MAX, u64::MAX, u64::MAX), 1.0);
        assert_eq!(dice_of_sizes(1 << 63, 1 << 63, 1 << 62), 0.5);
        assert_eq!(dice_of_sizes(u64::MAX, 1, 0), 0.0);
        assert_eq!(dice_of_sizes(0, 0, 0), 1.0);
    }

    #[test]
    fn dice_of_classes_is_dice_of_the_stacked_planes() {
        let truth = [0, 1, 2, 2, 255, 3];
        let predicted = [1, 1, 2, 0, 2, 1];
        let planes = |map: &[u8]| -> Vec<u8> {
            (1..=3).flat_map(|c| map.iter().map(move |&v| (v == c) as u8)).collect()
        };
        let stacked = dice(&planes(&truth), &planes(&predicted)).unwrap();
        assert_eq!(dice_of_classes(&truth, &predicted, 3).unwrap(), stacked);
        assert_eq!(stacked, 2.0 * 2.0 / (4.0 + 5.0));
    }

    #[test]
    fn confusion_gives_iou_per_class_and_skips_the_ignored_label() {
        let mut confusion = Confusion::new(4, Some(255));
        confusion.add(&[0, 0, 1, 255], &[0, 1, 1, 2]).unwrap();
        confusion.add(&[2], &[0]).unwrap();
        assert_eq!(confusion.count(0, 1), 1);
        assert_eq!(confusion.iou(), [Some(1.0 / 3.0), Some(0.5), Some(0.0), None]);
        assert!((confusion.mean_iou().unwrap() - (1.0 / 3.0 + 0.5) / 3.0).abs() < 1e-15);
        assert_eq!(confusion.pixel_accuracy().unwrap(), 0.5);
    }

    #[test]
    fn dice_of_a_class_is_that_of_its_planes_over_all_maps_and_follows_from_iou() {
        type Pair = ([u8; 5], [u8; 5]);
        let maps: [Pair; 2] = [([0, 0, 1, 2, 2], [0, 1, 1, 2, 0]), ([2, 2, 1, 0, 4], [2, 1, 1, 0, 0])];
        let mut confusion = Confusion::new(5, None);
        for (truth, predicted) in &maps {
            confusion.add(truth, predicted).unwrap();
        }
        let plane = |c: u8, side: fn(&Pair) -> [u8; 5]| -> Vec<u8> {
            maps.iter().flat_map(side).map(|v| (v == c) as u8).collect()
        };
        let expected: Vec<Option<f64>> = (0..5u8)
            .map(|c| (c != 3).then(|| dice(&plane(c, |m| m.0), &plane(c, |m| m.1)).unwrap()))
            .collect();
        assert_eq!(confusion.dice(), expected);
        for (dice, iou) in confusion.dice().iter().zip(confusion.iou()) {
            let from_iou = iou.map(|iou| 2.0 * iou / (1.0 + iou));
            assert!(dice.zip(from_iou).is_none_or(|(a, b)| (a - b).abs() < 1e-15));
            assert_eq!(dice.is_some(), iou.is_some());
        }
        let present: Vec<f64> = expected.into_iter().flatten().collect();
        assert_eq!(confusion.mean_dice().unwrap(), present.iter().sum::<f64>() / 4.0);
    }

    #[test]
    fn vocs_confusion_has_21_classes_and_does_not_count_void() {
        let mut confusion = Confusion::of_masks(20);
        confusion.add(&[0, 20, 255, 255], &[0, 20, 3, 0]).unwrap();
        assert_eq!((confusion.classes(), confusion.pixel_accuracy().unwrap()), (21, 1.0));
        assert_eq!((confusion.mean_iou().unwrap(), confusion.mean_dice().unwrap()), (1.0, 1.0));
        assert!(confusion.add(&[21], &[0]).is_err() && confusion.add(&[0], &[255]).is_err());
        assert!(Confusion::of_masks(20).mean_dice().is_err());
    }

    #[test]
    fn merged_counts_are_those_of_all_maps() {
        let maps = [([0u8, 1, 1], [0u8, 0, 1]), ([1, 1, 0], [1, 0, 0])];
        let mut all = Confusion::new(2, None);
        let mut merged = Confusion::new(2, None);
        for (truth, predicted) in &maps {
            all.add(truth, predicted).unwrap();
            let mut part = Confusion::new(2, None);
            part.add(truth, predicted).unwrap();
            merged.merge(&part).unwrap();
        }
        assert_eq!(all, merged);
        assert!(merged.merge(&Confusion::new(3, None)).is_err());
    }

    #[test]
    fn a_label_out_of_range_is_named_and_nothing_is_counted() {
        let mut confusion = Confusion::new(3, Some(255));
        let error = confusion.add(&[0, 7], &[0, 0]).unwrap_err().to_string();
        assert!(error.contains("true label of pixel 1 is 7") && error.contains("0..=2"), "{error}");
        let error = confusion.add(&[0, 1], &[0, 255]).unwrap_err().to_string();
        assert!(error.contains("predicted label of pixel 1 is 255"), "{error}");
        assert!(confusion.mean_iou().is_err() && confusion.pixel_accuracy().is_err());
    }
}
