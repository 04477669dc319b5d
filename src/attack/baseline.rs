//! What a network says of images as they are: whether there is anything to attack.
//!
//! A network that says every class of every image resists every attack that leads away from labels,
//! and one that is right nowhere cannot be led anywhere. Their shares of images that resist, 1 and 0,
//! say nothing.

use super::trial::VictimOutput;
use crate::data::{Classes, Labels};
use std::fmt;

/// The share of images, and of classes, that counts as nearly all of them.
const NEARLY: f64 = 0.9;
/// Fewer images may well be alike.
const ENOUGH: usize = 4;

/// Why an attack's figures tell less than they seem to.
///
/// ```
/// use atrous::attack::{AttackTarget, Doubt, trial};
/// use atrous::data::Classes;
///
#[doc = include_str!("brightness.txt")]
/// # let victim = brightness(4)?;
/// // A network that takes bright images for class 1, asked about one that is said to be of class 0.
/// let dark: Labels = (0..CLASSES.len()).map(|class| class == 0).collect();
/// let target = AttackTarget::Labels(away_from_dark(1));
/// let said = trial::seen(&victim, &Tensor::full([1, 4, 4, 3], 0.9), &target)?;
/// let doubt = Doubt::in_what_is_said(said.iter().map(|said| (said, Some(dark.clone()))), &Classes::voc());
/// assert_eq!(doubt, Some(Doubt::NothingRight { images: 1 }));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The network is right about no image before the attack.
    NothingRight {
        /// How many images were looked at.
        images: usize,
    },
    /// All classes, or nearly so, are said of nearly all images.
    Everything {
        /// The images of which that is so.
        of: usize,
        /// How many images were looked at.
        images: usize,
    },
    /// One answer is given for nearly all images, whose labels differ.
    TheSame {
        /// That answer.
        said: Vec<String>,
        /// The images it is given for.
        of: usize,
        /// How many images were looked at.
        images: usize,
    },
}

impl Doubt {
    /// The doubt there is in what a network said of images before they were perturbed, given their true
    /// labels, where they are known.
    pub fn in_what_is_said<'a>(
        images: impl IntoIterator<Item = (&'a VictimOutput, Option<Labels>)>,
        classes: &Classes,
    ) -> Option<Doubt> {
        let all: Vec<(&VictimOutput, Option<Labels>)> = images.into_iter().collect();
        let images = all.len();
        let nearly_all = |count: usize| count as f64 >= NEARLY * images as f64;
        let full = |seen: &VictimOutput| {
            seen.said.iter().filter(|&&said| said).count() as f64 >= NEARLY * seen.said.len() as f64
        };
        let of = all.iter().filter(|(seen, _)| full(seen)).count();
        if of > 0 && nearly_all(of) {
            return Some(Doubt::Everything { of, images });
        }
        if all.iter().all(|(seen, _)| seen.status.reached) {
            return (images > 0).then_some(Doubt::NothingRight { images });
        }
        let alike = |said: &'_ Labels| {
            let said = said.clone();
            all.iter().filter(move |(seen, _)| seen.said == said)
        };
        let (said, of) = all
            .iter()
            .map(|(seen, _)| (&seen.said, alike(&seen.said).count()))
            .max_by_key(|&(_, of)| of)?;
        let mut truths = alike(said).filter_map(|(_, truth)| truth.as_ref());
        let first = truths.next();
        let differ = truths.any(|truth| Some(truth) != first);
        (of >= ENOUGH && nearly_all(of) && differ).then(|| Doubt::TheSame {
            said: classes.named(said).map(str::to_owned).collect(),
            of,
            images,
        })
    }

    /// The shares that resist and that are led astray mean nothing at all.
    pub(crate) fn leaves_no_figures(&self) -> bool {
        !matches!(self, Doubt::TheSame { .. })
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::NothingRight { images } => write!(
                f,
                "nothing to attack: none of the {images} pictures is right before the attack, so that \
                 no share of them can resist it; train the network for longer, or attack another one or \
                 other pictures"
            ),
            Doubt::Everything { of, images } => write!(
                f,
                "untrained: of {of} of {images} pictures the network says all classes, or nearly so, \
                 and resists whatever is done to it; train it for longer, or fit its thresholds"
            ),
            Doubt::TheSame { said, of, images } => {
                let names = if said.is_empty() { "nothing".to_owned() } else { said.join(", ") };
                write!(
                    f,
                    "hardly trained: of {of} of {images} pictures the network says the same ({names}), \
                     whatever is in them; the figures tell of that one answer. Train it for longer"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::AttackStatus;

    fn seen(said: &[usize], right: bool) -> VictimOutput {
        let mut labels = vec![false; 20];
        said.iter().for_each(|&class| labels[class] = true);
        VictimOutput {
            status: AttackStatus { reached: !right, sure: false, score: 0.0 },
            said: labels,
            probabilities: vec![0.5; 20],
            mask: None,
            led: 0.0,
            kept: 1.0,
        }
    }

    fn truth(class: usize) -> Option<Labels> {
        let mut labels = vec![false; 20];
        labels[class] = true;
        Some(labels)
    }

    fn doubt(all: &[(VictimOutput, Option<Labels>)]) -> Option<Doubt> {
        Doubt::in_what_is_said(all.iter().map(|(seen, truth)| (seen, truth.clone())), &Classes::voc())
    }

    #[test]
    fn a_network_that_says_everything_is_untrained() {
        let every: Vec<usize> = (0..20).collect();
        let most = &every[..18];
        let all = [(seen(&every, true), truth(1)), (seen(most, true), truth(2))];
        let found = doubt(&all).unwrap();
        assert_eq!(found, Doubt::Everything { of: 2, images: 2 });
        assert!(found.leaves_no_figures() && found.to_string().starts_with("untrained: of 2 of 2"));
        let all = [(seen(&every, true), truth(1)), (seen(&every[..17], true), truth(2))];
        assert_eq!(doubt(&all), None);
    }

    #[test]
    fn where_no_image_is_right_there_is_nothing_to_attack() {
        let all = [(seen(&[3], false), truth(1)), (seen(&[4], false), None)];
        let found = doubt(&all).unwrap();
        assert_eq!(found, Doubt::NothingRight { images: 2 });
        assert!(found.leaves_no_figures() && found.to_string().starts_with("nothing to attack"));
        assert_eq!(doubt(&[(seen(&[3], true), truth(3)), (seen(&[4], false), truth(1))]), None);
        assert_eq!(doubt(&[]), None);
    }

    #[test]
    fn one_answer_for_images_of_all_kinds_is_told() {
        let one = |class| (seen(&[14], class == 14), truth(class));
        let found = doubt(&[one(14), one(2), one(14), one(5)]).unwrap();
        assert!(!found.leaves_no_figures());
        assert!(found.to_string().contains("of 4 of 4 pictures the network says the same (person)"));
        // Images of one kind, and those of which nobody knows what they are of.
        assert_eq!(doubt(&[one(14), one(14), one(14), one(14)]), None);
        let unknown = || (seen(&[14], true), None);
        assert_eq!(doubt(&[unknown(), unknown(), unknown(), unknown()]), None);
    }
}
