//! Run-length code: `start length start length …`, starts counted from 1, of the ones of a
//! flattened mask. No ones, no code.

use crate::error::{Error, Result};
use crate::eval::metrics::overlap::dice_of_sizes;
use std::fmt;
use std::str::FromStr;

/// Consecutive ones of a mask; `start` counts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The position of the first one.
    pub start: u64,
    /// How many there are, above 0.
    pub length: u64,
}

impl Run {
    fn end(self) -> u64 {
        self.start + self.length
    }
}

/// A mask as its runs: in order, apart from each other, none of them empty.
///
/// ```
/// use atrous::predict::submission::Runs;
///
/// let runs = Runs::of_mask(&[0, 1, 1, 0, 1]);
/// assert_eq!(runs.to_string(), "2 2 5 1"); // from the second on, two; from the fifth on, one
/// assert_eq!("2 2 5 1".parse::<Runs>()?, runs);
/// assert_eq!(runs.to_mask(6)?, [0, 1, 1, 0, 1, 0]);
/// assert_eq!(runs.dice(&Runs::of_mask(&[1, 1, 0, 0, 0])), 2.0 * 1.0 / (3.0 + 2.0));
///
/// let labels = [0, 2, 1, 1]; // a label map: the masks of class 1 and of class 2, one after the other
/// let stacked = Runs::of_classes(&labels, 2);
/// assert_eq!(stacked, Runs::of_mask(&[0, 0, 1, 1, 0, 1, 0, 0]));
/// assert_eq!(stacked.to_classes(4, 2)?, labels);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// The runs of a flat mask or a row of labels: whatever is not zero is a one.
    pub fn of_mask(mask: &[u8]) -> Self {
        let mut runs = Runs::default();
        for (i, _) in mask.iter().enumerate().filter(|&(_, &value)| value != 0) {
            runs.push(Run { start: i as u64, length: 1 });
        }
        runs
    }

    /// The runs of a label map: those of the masks of class 1, 2, … `classes`, stacked and flattened. Other
    /// labels (background, void) are in no mask. Runs may cross rows and, at the very end and start, masks.
    pub fn of_classes(labels: &[u8], classes: u8) -> Self {
        // One pass over the map instead of one a class: runs are kept by class, then joined.
        let mut planes = vec![Runs::default(); classes as usize + 1];
        let mut start = 0;
        for group in labels.chunk_by(|a, b| a == b) {
            if let (1.., Some(plane)) = (group[0], planes.get_mut(group[0] as usize)) {
                plane.push(Run { start, length: group.len() as u64 });
            }
            start += group.len() as u64;
        }
        let mut stacked = Runs::default();
        for (i, plane) in planes[1..].iter().enumerate() {
            let offset = i as u64 * labels.len() as u64;
            plane.0.iter().for_each(|run| stacked.push(Run { start: offset + run.start, ..*run }));
        }
        stacked
    }

    /// Appends a run that does not start before the last one ends, joined to it if they touch.
    fn push(&mut self, run: Run) {
        match self.0.last_mut() {
            Some(last) if last.end() == run.start => last.length += run.length,
            _ => self.0.push(run),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Run> {
        self.0.iter().copied()
    }

    /// The number of ones.
    pub(crate) fn ones(&self) -> u64 {
        self.0.iter().map(|run| run.length).sum()
    }

    /// The position behind the last one.
    pub(crate) fn end(&self) -> u64 {
        self.0.last().map_or(0, |run| run.end())
    }

    /// The ones that both have.
    pub(crate) fn intersection(&self, other: &Runs) -> u64 {
        let (mut a, mut b) = (self.iter().peekable(), other.iter().peekable());
        let mut both = 0;
        while let (Some(&x), Some(&y)) = (a.peek(), b.peek()) {
            both += x.end().min(y.end()).saturating_sub(x.start.max(y.start));
            if x.end() <= y.end() {
                a.next()
            } else {
                b.next()
            };
        }
        both
    }

    /// `2|A ∩ B| / (|A| + |B|)`, 1 where both are empty.
    pub fn dice(&self, other: &Runs) -> f64 {
        dice_of_sizes(self.ones(), other.ones(), self.intersection(other))
    }

    /// The flat mask of `length` elements, 0 or 1; an error where a run ends behind it.
    pub fn to_mask(&self, length: usize) -> Result<Vec<u8>> {
        if self.end() > length as u64 {
            let message = format!("a run ends at {}, but the mask has {length} elements", self.end());
            return Err(Error::argument("run-length code", message));
        }
        let mut mask = vec![0; length];
        for run in &self.0 {
            mask[run.start as usize..run.end() as usize].fill(1);
        }
        Ok(mask)
    }

    /// The label map of `pixels` elements whose class masks these are, stacked. An error where a
    /// pixel is in two masks, or a run ends behind the last.
    pub fn to_classes(&self, pixels: usize, classes: u8) -> Result<Vec<u8>> {
        let elements = pixels.checked_mul(classes as usize).ok_or_else(|| {
            let message = format!("{classes} masks of {pixels} elements are more than there can be");
            Error::argument("run-length code", message)
        })?;
        let stacked = self.to_mask(elements)?;
        let mut labels = vec![0; pixels];
        if pixels == 0 {
            return Ok(labels);
        }
        for (class, plane) in (1..=classes).zip(stacked.chunks_exact(pixels)) {
            for (pixel, (label, _)) in
                labels.iter_mut().zip(plane).enumerate().filter(|(_, (_, m))| **m == 1)
            {
                if *label != 0 {
                    let message =
                        format!("pixel {pixel} is in the masks of class {label} and class {class}");
                    return Err(Error::argument("run-length code", message));
                }
                *label = class;
            }
        }
        Ok(labels)
    }
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, run) in self.0.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{} {}", run.start + 1, run.length)?;
        }
        Ok(())
    }
}

impl FromStr for Runs {
    type Err = Error;

    fn from_str(code: &str) -> Result<Self> {
        let wrong = |message: String| Error::argument("run-length code", message);
        let number = |word: &str| {
            let number = word.parse::<u64>().ok().filter(|&n| n > 0);
            number.ok_or_else(|| {
                wrong(format!("expected a whole number from 1, got `{}`", shortened(word)))
            })
        };
        let mut runs = Runs::default();
        let mut words = code.split_ascii_whitespace();
        while let Some(start) = words.next() {
            let start = number(start)?;
            let length =
                words.next().ok_or_else(|| wrong(format!("the run at {start} has no length")))?;
            let run = Run { start: start - 1, length: number(length)? };
            if run.start.checked_add(run.length).is_none() {
                return Err(wrong(format!("the run at {start} is too long: {}", run.length)));
            }
            if run.start < runs.end() {
                let message =
                    format!("the run at {start} starts before the last one ends ({})", runs.end());
                return Err(wrong(message));
            }
            runs.push(run);
        }
        Ok(runs)
    }
}

/// The beginning of a text that may be anything, for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn starts_count_from_one() {
        assert_eq!(Runs::of_mask(&[0, 1, 1, 0, 1]).to_string(), "2 2 5 1");
        assert_eq!(Runs::of_mask(&[1; 16]).to_string(), "1 16");
        assert_eq!(Runs::of_mask(&[0; 4]).to_string(), "");
        assert_eq!(Runs::of_mask(&[]), "".parse().unwrap());
    }

    #[test]
    fn a_run_may_cross_from_one_class_to_the_next() {
        // Class 1 is the last pixel, class 2 the first: the stacked masks are 001 100.
        assert_eq!(Runs::of_classes(&[2, 0, 1], 2).to_string(), "3 2");
        assert_eq!(Runs::of_classes(&[255, 0, 7, 0], 2).to_string(), "");
        assert_eq!(Runs::of_classes(&[1], 0).to_string(), "");
    }

    #[test]
    fn codes_that_mean_nothing_are_refused_with_the_reason() {
        for (code, reason) in [
            ("1", "the run at 1 has no length"),
            ("0 3", "from 1, got `0`"),
            ("3 0", "from 1, got `0`"),
            ("3 -1", "got `-1`"),
            ("one 2", "got `one`"),
            ("1 3 3 1", "the run at 3 starts before the last one ends (3)"),
            ("5 1 2 1", "starts before"),
            ("2 18446744073709551615", "too long"),
            ("18446744073709551616 1", "got `18446744073709551616`"),
        ] {
            let error = code.parse::<Runs>().unwrap_err().to_string();
            assert!(error.contains(reason), "{code}: {error}");
        }
    }

    #[test]
    fn masks_too_short_and_pixels_in_two_classes_are_refused() {
        let runs: Runs = "4 2".parse().unwrap();
        assert!(runs.to_mask(4).unwrap_err().to_string().contains("ends at 5"));
        assert_eq!(runs.to_mask(5).unwrap(), [0, 0, 0, 1, 1]);
        let twice: Runs = "1 1 4 1".parse().unwrap();
        let error = twice.to_classes(3, 2).unwrap_err().to_string();
        assert!(error.contains("pixel 0 is in the masks of class 1 and class 2"), "{error}");
    }

    #[test]
    fn sizes_that_a_file_claims_do_not_overflow() {
        let most: Runs = "1 18446744073709551615".parse().unwrap();
        assert_eq!((most.dice(&most), most.dice(&Runs::default())), (1.0, 0.0));
        assert_eq!(most.to_string().parse::<Runs>().unwrap(), most);
        assert!(most.to_mask(4).is_err());
        let error = Runs::default().to_classes(usize::MAX, 20).unwrap_err().to_string();
        assert!(error.contains("more than there can be"), "{error}");
    }

    #[test]
    fn touching_runs_are_one() {
        let runs: Runs = "1 2 3 4".parse().unwrap();
        assert_eq!(runs.iter().collect::<Vec<_>>(), [Run { start: 0, length: 6 }]);
    }

    proptest! {
        #[test]
        fn a_mask_comes_back_from_its_code(mask in proptest::collection::vec(0u8..=1, 0..300)) {
            let runs: Runs = Runs::of_mask(&mask).to_string().parse().unwrap();
            prop_assert_eq!(runs.to_mask(mask.len()).unwrap(), mask);
        }

        #[test]
        fn a_label_map_comes_back_from_its_code(labels in proptest::collection::vec(0u8..=20, 0..300)) {
            let runs: Runs = Runs::of_classes(&labels, 20).to_string().parse().unwrap();
            prop_assert_eq!(runs.to_classes(labels.len(), 20).unwrap(), labels);
        }

        #[test]
        fn one_pass_over_a_map_is_the_code_of_its_stacked_masks(
            labels in proptest::collection::vec(prop_oneof![0u8..=3, Just(255u8)], 0..100),
        ) {
            let planes: Vec<u8> =
                (1..=3).flat_map(|c| labels.iter().map(move |&v| (v == c) as u8)).collect();
            prop_assert_eq!(Runs::of_classes(&labels, 3), Runs::of_mask(&planes));
        }

        #[test]
        fn dice_of_codes_is_dice_of_masks(
            pairs in proptest::collection::vec((0u8..=1, 0u8..=1), 0..200),
        ) {
            let (a, b): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let dice = Runs::of_mask(&a).dice(&Runs::of_mask(&b));
            prop_assert_eq!(dice, crate::eval::metrics::dice(&a, &b).unwrap());
        }

        #[test]
        fn any_text_is_read_or_refused(code in "[0-9 -]{0,40}|.{0,40}") {
            if let Ok(runs) = code.parse::<Runs>() {
                prop_assert_eq!(&runs.to_string().parse::<Runs>().unwrap(), &runs);
                let _ = runs.to_mask(1000);
                let _ = runs.to_classes(50, 20);
            }
        }
    }
}
