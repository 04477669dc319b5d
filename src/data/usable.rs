//! Which samples have a truth to learn from, or to be scored by.

use super::{Dataset, VOID};
use crate::backend::cpu::threads;
use crate::error::Result;

/// The samples a network can learn from or be scored on, and why the others are left out.
///
/// ```
/// use atrous::data::usable::Usable;
/// use atrous::data::{Dataset, Image, Labels, Mask, VOID};
/// # use atrous::error::Result;
///
/// /// One image has a mask, one a mask that is void throughout, one none.
/// struct Three;
/// # impl Dataset for Three {
/// #     fn len(&self) -> usize {
/// #         3
/// #     }
/// #     fn classes(&self) -> atrous::data::Classes {
/// #         atrous::data::Classes::voc()
/// #     }
/// #     fn id(&self, index: usize) -> String {
/// #         index.to_string()
/// #     }
/// #     fn labels(&self, _index: usize) -> Option<Labels> {
/// #         Some(Labels::default())
/// #     }
/// #     fn image(&self, _index: usize) -> Result<Image> {
/// #         Image::new(1, 1, vec![0; 3])
/// #     }
/// #     fn mask(&self, index: usize) -> Result<Option<Mask>> {
/// #         [Some(8), Some(VOID), None][index].map(|class| Mask::new(1, 1, vec![class])).transpose()
/// #     }
/// # }
///
/// let usable = Usable::of(&Three, &[0, 1, 2], true)?;
/// assert_eq!(usable, Usable { indices: vec![0], unknown: 1, void: 1 });
/// let why = "1 of 3 have no mask, 1 of 3 have a mask that is void throughout";
/// assert_eq!(usable.left_out(true).as_deref(), Some(why));
/// // A classifier needs labels alone.
/// assert_eq!(Usable::of(&Three, &[0, 1, 2], false)?.left_out(false), None);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usable {
    /// Their numbers, in the order they were asked about.
    pub indices: Vec<usize>,
    /// How many have no known labels, or no mask.
    pub unknown: usize,
    /// How many have a mask that is void throughout.
    pub void: usize,
}

impl Usable {
    /// Those whose truth is known: labels, or a mask with a pixel that is to be judged. Reads the masks.
    pub fn of(dataset: &dyn Dataset, indices: &[usize], masks: bool) -> Result<Self> {
        let look = |i: usize| -> Result<Truth> {
            let index = indices[i];
            Ok(match masks {
                false if dataset.labels(index).is_some() => Truth::Known,
                false => Truth::Unknown,
                true => match dataset.mask(index)? {
                    None => Truth::Unknown,
                    Some(mask) if mask.classes.iter().all(|&class| class == VOID) => Truth::Void,
                    Some(_) => Truth::Known,
                },
            })
        };
        let mut usable = Usable::default();
        for (truth, &index) in threads::map(indices.len(), look).into_iter().zip(indices) {
            match truth? {
                Truth::Known => usable.indices.push(index),
                Truth::Unknown => usable.unknown += 1,
                Truth::Void => usable.void += 1,
            }
        }
        Ok(usable)
    }

    /// How many are left out and why, in words; None where none is.
    pub fn left_out(&self, masks: bool) -> Option<String> {
        let all = self.indices.len() + self.unknown + self.void;
        let unknown = if masks { "have no mask" } else { "have no labels" };
        let reasons = [(self.unknown, unknown), (self.void, "have a mask that is void throughout")];
        let reasons = reasons.into_iter().filter(|(count, _)| *count > 0);
        let reasons: Vec<String> =
            reasons.map(|(count, reason)| format!("{count} of {all} {reason}")).collect();
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }
}

enum Truth {
    Known,
    Unknown,
    Void,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Classes, Image, Labels, Mask};

    /// Samples with such labels and masks.
    struct Known(Vec<(Option<Labels>, Option<Vec<u8>>)>, Classes);

    impl Dataset for Known {
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
            self.0[index].0.clone()
        }

        fn image(&self, _: usize) -> Result<Image> {
            Image::new(1, 2, vec![0; 6])
        }

        fn mask(&self, index: usize) -> Result<Option<Mask>> {
            self.0[index].1.clone().map(|classes| Mask::new(1, 2, classes)).transpose()
        }
    }

    #[test]
    fn samples_whose_truth_is_not_known_are_counted_and_left_out() {
        let none = || Some(vec![false; 20]);
        let data = Known(
            vec![
                (None, Some(vec![0, 255])),
                (none(), None),
                (None, Some(vec![255, 255])),
                (none(), Some(vec![3, 3])),
            ],
            Classes::voc(),
        );
        let labelled = Usable::of(&data, &[3, 2, 1, 0], false).unwrap();
        assert_eq!((labelled.indices.as_slice(), labelled.unknown), (&[3, 1][..], 2));
        assert_eq!(labelled.left_out(false).unwrap(), "2 of 4 have no labels");
        let masked = Usable::of(&data, &[0, 1, 2, 3], true).unwrap();
        assert_eq!((masked.indices.as_slice(), masked.unknown, masked.void), (&[0, 3][..], 1, 1));
        let said = masked.left_out(true).unwrap();
        assert_eq!(said, "1 of 4 have no mask, 1 of 4 have a mask that is void throughout");
        assert_eq!(Usable::of(&data, &[3], true).unwrap().left_out(true), None);
    }
}
