//! Weights that make rare classes count as much as frequent ones ('balanced', as scikit-learn's).

use crate::data::{Labels, first_label};

/// weight(c) = n / (classes present · count(c)), counted over each image's first label, so that
/// every class present has the same total weight. A class that is never first keeps weight 1;
/// images without labels are not counted. One weight a class, of which there are `classes`.
///
/// ```
/// use atrous::data::class_weights::balanced;
///
/// // Three cats and a dog: each class comes to 2 in all.
/// let [cat, dog] = [vec![true, false, false], vec![false, true, false]];
/// let weights = balanced([cat.clone(), cat.clone(), cat, dog], 3);
/// assert_eq!(weights, [4.0 / (2.0 * 3.0), 4.0 / 2.0, 1.0]);
/// ```
pub fn balanced(labels: impl IntoIterator<Item = Labels>, classes: usize) -> Vec<f64> {
    let mut counts = vec![0usize; classes];
    labels.into_iter().filter_map(|labels| first_label(&labels)).for_each(|class| counts[class] += 1);
    let n: usize = counts.iter().sum();
    let present = counts.iter().filter(|&&count| count > 0).count();
    let weight = |&count: &usize| if count == 0 { 1.0 } else { n as f64 / (present * count) as f64 };
    counts.iter().map(weight).collect()
}

/// How much oftener each sample should be seen: 1 / count of its rarest class, counting every
/// class of every sample. Samples without a class are a class of their own; those whose labels are
/// not known are in none, and weigh as much as the others do in the mean.
pub(crate) fn sample_weights(labels: &[Option<Labels>]) -> Vec<f64> {
    let none = labels.iter().flatten().map(Vec::len).max().unwrap_or(0);
    let classes = |labels: &Labels| {
        let mut classes: Vec<usize> = (0..labels.len()).filter(|&class| labels[class]).collect();
        if classes.is_empty() {
            classes.push(none);
        }
        classes
    };
    let mut counts = vec![0usize; none + 1];
    labels.iter().flatten().flat_map(classes).for_each(|class| counts[class] += 1);
    let weight = |labels: &Labels| {
        let rarest = classes(labels).into_iter().map(|class| counts[class]).min();
        1.0 / rarest.unwrap_or(1) as f64
    };
    let known: Vec<f64> = labels.iter().flatten().map(weight).collect();
    let mean = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    labels.iter().map(|labels| labels.as_ref().map_or(mean, weight)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_weighs_as_its_rarest_class() {
        let with = |classes: &[usize]| Some((0..6).map(|class| classes.contains(&class)).collect());
        let labels = [with(&[0]), with(&[0, 3]), with(&[0]), with(&[3]), with(&[5]), with(&[])];
        let third = 1.0 / 3.0;
        assert_eq!(sample_weights(&labels), [third, 0.5, third, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn what_is_not_known_is_no_class_and_changes_no_weight() {
        let with = |classes: &[usize]| Some((0..6).map(|class| classes.contains(&class)).collect());
        let known = [with(&[0]), with(&[0]), with(&[3]), with(&[])];
        assert_eq!(sample_weights(&known), [0.5, 0.5, 1.0, 1.0]);
        let labels = [None, with(&[0]), None, with(&[0]), with(&[3]), with(&[]), None];
        assert_eq!(sample_weights(&labels), [0.75, 0.5, 0.75, 0.5, 1.0, 1.0, 0.75]);
        assert_eq!(sample_weights(&[None, None]), [1.0, 1.0]);
    }

    #[test]
    fn every_class_present_has_the_same_total_weight() {
        let mut labels = vec![vec![false; 20]; 7];
        labels[0][3] = true;
        labels[1..6].iter_mut().for_each(|labels| labels[14] = true);
        labels[1][3] = true;
        let weights = balanced(labels, 20);
        assert_eq!((weights[3] * 2.0, weights[14] * 4.0, weights[0]), (3.0, 3.0, 1.0));
    }

    #[test]
    fn no_labels_give_weights_of_one() {
        assert_eq!(balanced([], 20), [1.0; 20]);
    }
}
