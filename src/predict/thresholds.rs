//! A threshold for each class of a classifier, fitted on images whose labels are known.
//!
//! The rule of prediction is that of [`crate::predict::submission`]: every class whose probability is over
//! its threshold; where none is, the most probable. Thresholds are fitted to one of two scores:
//!
//! - **F1** of each class by itself, `2 tp / (2 tp + fp + fn)`: the best cut of its ranking, found by
//!   looking at all of them;
//! - **Dice** of each image's label bits, mean over images, as submissions are scored. There the
//!   classes depend on each other, so they are taken in turn, each to its best cut given the others,
//!   until none moves. The score never falls on the way and there are finitely many cuts, so it ends.
//!
//! A class with fewer than 3 positives says nothing about its threshold and takes the shared
//! one: the best single threshold for all classes.
//!
//! A cut lies halfway between two neighbouring probabilities. Of equally good cuts the highest is
//! taken. What fitting gains has to be judged on images it has not seen: [`cross_validated`].

use crate::data::Labels;
use crate::error::{Error, Result};
use crate::eval::metrics::overlap::{dice_of_members, dice_of_sizes};
use crate::predict::submission::{labels_from_probabilities_by_class, or_most_probable};
use crate::random::{Stream, domain};
#[cfg(feature = "checkpoint")]
use serde::{Deserialize, Serialize};

/// A class with fewer positives takes the shared threshold.
const FEW: usize = 3;

/// What thresholds are fitted to.
///
/// [`Thresholds`] has an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(Serialize, Deserialize), serde(rename_all = "lowercase"))]
pub enum Objective {
    /// F1 of each class by itself.
    F1,
    /// Dice of each image's label bits.
    #[default]
    Dice,
}

/// Thresholds of probabilities, 0 to 1.
///
/// ```
/// use atrous::predict::thresholds::{Objective, Thresholds};
///
/// // Five images: class 0 is in three, class 1 in the others, in which class 0 is not out of the question.
/// let p = [[0.9, 0.0], [0.8, 0.0], [0.7, 0.0], [0.3, 0.4], [0.1, 0.4]];
/// let only = |class: usize| (0..20).map(|other| other == class).collect::<Vec<_>>();
/// let labels = p.map(|[zero, one]| only(usize::from(one > zero)));
/// let rows: Vec<f32> = p.iter().flat_map(|p| p.iter().copied().chain([0.0; 18])).collect(); // 20 classes
///
/// let fitted = Thresholds::fit(&labels, &rows, Objective::F1)?;
/// assert_eq!(fitted.per_class[0], 0.5); // halfway between 0.3 and 0.7
/// let (before, fourth) = (Thresholds::uniform(0.15, 20), &rows[3 * 20..4 * 20]);
/// assert_eq!(before.apply(fourth)?[..2], [1, 1]);
/// assert_eq!(fitted.apply(fourth)?[..2], [0, 1]);
/// let score = |thresholds: &Thresholds| thresholds.score(&labels, &rows, Objective::F1);
/// assert!((score(&before)? - (6.0 / 7.0 + 1.0) / 2.0).abs() < 1e-9); // class 0: three right, one wrong
/// assert_eq!(score(&fitted)?, 1.0);
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(Serialize, Deserialize))]
pub struct Thresholds {
    /// What they were fitted to.
    pub objective: Objective,
    /// The best single threshold.
    pub shared: f32,
    /// One a class: it is predicted above.
    pub per_class: Vec<f32>,
}

/// Means of the objective over the same images under different thresholds.
///
/// [`cross_validated`] has an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Under the one threshold that was used before.
    pub before: f64,
    /// Under one shared threshold, fitted on other images.
    pub shared: f64,
    /// Under a threshold for each class, fitted on other images.
    pub per_class: f64,
    /// Under thresholds fitted on the very images: more than can be hoped for.
    pub fitted: f64,
}

impl Thresholds {
    /// One threshold for all classes, fitted to nothing.
    pub fn uniform(threshold: f32, classes: usize) -> Self {
        Thresholds {
            objective: Objective::default(),
            shared: threshold,
            per_class: vec![threshold; classes],
        }
    }

    /// Fits to probabilities [images, classes] and the labels of the same images. An error for no images, a
    /// number of probabilities that does not fit, and one that is not 0 to 1.
    pub fn fit(labels: &[Labels], probabilities: &[f32], objective: Objective) -> Result<Self> {
        let table = Table::new(labels, probabilities)?;
        Ok(table.fit(&(0..table.rows()).collect::<Vec<_>>(), objective))
    }

    /// The labels of one image, 0 or 1 a class; an error for another number of probabilities than
    /// thresholds.
    pub fn apply(&self, row: &[f32]) -> Result<Vec<u8>> {
        labels_from_probabilities_by_class(row, &self.per_class)
    }

    /// The objective's mean under these thresholds; errors as in [`Thresholds::fit`].
    pub fn score(&self, labels: &[Labels], probabilities: &[f32], objective: Objective) -> Result<f64> {
        let table = Table::new(labels, probabilities)?;
        if self.per_class.len() != table.classes() {
            let expected = format!("{} thresholds, one a class", table.classes());
            return Err(Error::shape("thresholds", expected, self.per_class.len()));
        }
        let predicted: Vec<Vec<bool>> =
            (0..table.rows()).map(|row| table.predict(row, &self.per_class)).collect();
        Ok(table.score(&predicted, objective))
    }
}

/// Fits on all folds but one and scores on that one, for each fold in turn; `before` is the threshold used
/// so far, `seed` draws the folds. Errors as in [`Thresholds::fit`], and for folds that are not 2 to one an
/// image.
///
/// ```
/// use atrous::predict::thresholds::{Objective, cross_validated};
///
/// // Six images of one class each, 0.9 probable where all others are 0.2.
/// let is = |image: usize, class: usize| class == image % 2;
/// let of = |image| (0..20).map(|class| is(image, class)).collect();
/// let labels: Vec<Vec<bool>> = (0..6).map(of).collect();
/// let row = |image| (0..20).map(move |class| if is(image, class) { 0.9 } else { 0.2 });
/// let rows: Vec<f32> = (0..6).flat_map(row).collect();
///
/// let gain = cross_validated(&labels, &rows, Objective::Dice, 0.15, 3, 7)?;
/// assert!((gain.before - 2.0 / 21.0).abs() < 1e-9); // all 20 classes are above 0.15, and one is right
/// assert_eq!((gain.shared, gain.fitted), (1.0, 1.0)); // also on images it was not fitted on
/// assert!(cross_validated(&labels, &rows, Objective::Dice, 0.15, 7, 7).is_err()); // seven parts of six
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn cross_validated(
    labels: &[Labels],
    probabilities: &[f32],
    objective: Objective,
    before: f32,
    folds: usize,
    seed: u64,
) -> Result<Gain> {
    let table = Table::new(labels, probabilities)?;
    let rows = table.rows();
    if folds < 2 || folds > rows {
        let message = format!("expected 2 to {rows} folds (one picture each), got {folds}");
        return Err(Error::argument("thresholds", message));
    }
    let order = Stream::new(seed, &[domain::BOOTSTRAP, 2]).permutation(rows);
    let (mut shared, mut per_class) = (vec![Vec::new(); rows], vec![Vec::new(); rows]);
    for fold in 0..folds {
        let (held, rest): (Vec<_>, Vec<_>) =
            order.iter().enumerate().partition(|(place, _)| place % folds == fold);
        let rest: Vec<usize> = rest.into_iter().map(|(_, &row)| row).collect();
        let fitted = table.fit(&rest, objective);
        for (_, &row) in held {
            shared[row] = table.predict(row, &vec![fitted.shared; table.classes()]);
            per_class[row] = table.predict(row, &fitted.per_class);
        }
    }
    let all: Vec<usize> = (0..rows).collect();
    let under = |thresholds: &[f32]| {
        let predicted: Vec<Vec<bool>> = all.iter().map(|&row| table.predict(row, thresholds)).collect();
        table.score(&predicted, objective)
    };
    Ok(Gain {
        before: under(&vec![before; table.classes()]),
        shared: table.score(&shared, objective),
        per_class: table.score(&per_class, objective),
        fitted: under(&table.fit(&all, objective).per_class),
    })
}

/// The thresholds to use: `before` for all classes, one fitted for all, or one fitted for each,
/// whichever has the best Dice on images it was not fitted on. From fewer than 5 images
/// nothing is learned, and there is no gain to tell of. Errors as in [`Thresholds::fit`].
///
/// ```
/// use atrous::predict::thresholds::{Objective, Thresholds, choose};
///
/// # let is = |image: usize, class: usize| class == image % 2;
/// # let of = |image| (0..20).map(|class| is(image, class)).collect();
/// # let labels: Vec<Vec<bool>> = (0..6).map(of).collect();
/// # let row = |image| (0..20).map(move |class| if is(image, class) { 0.9 } else { 0.2 });
/// # let rows: Vec<f32> = (0..6).flat_map(row).collect();
/// // The six images of the example at `cross_validated`, then the first four of them.
/// let (chosen, gain) = choose(&labels, &rows, 20, 0.15, 7)?;
/// assert!(gain.unwrap().shared > gain.unwrap().before);
/// assert_eq!(chosen.score(&labels, &rows, Objective::Dice)?, 1.0);
/// assert_eq!(choose(&labels[..4], &rows[..80], 20, 0.15, 7)?, (Thresholds::uniform(0.15, 20), None));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn choose(
    labels: &[Labels],
    probabilities: &[f32],
    classes: usize,
    before: f32,
    seed: u64,
) -> Result<(Thresholds, Option<Gain>)> {
    let uniform = |threshold| Thresholds::uniform(threshold, classes);
    if labels.len() < FOLDS {
        return Ok((uniform(before), None));
    }
    let gain = cross_validated(labels, probabilities, Objective::Dice, before, FOLDS, seed)?;
    let fitted = Thresholds::fit(labels, probabilities, Objective::Dice)?;
    let best = gain.before.max(gain.shared).max(gain.per_class);
    let chosen = match best {
        best if best == gain.before => uniform(before),
        best if best == gain.shared => uniform(fitted.shared),
        _ => fitted,
    };
    Ok((chosen, Some(gain)))
}

/// Parts that validation images are cut into, to fit on all but one.
const FOLDS: usize = 5;

/// Labels and probabilities of the same images, seen to fit together.
struct Table<'a> {
    labels: &'a [Labels],
    probabilities: &'a [f32],
}

impl<'a> Table<'a> {
    fn new(labels: &'a [Labels], probabilities: &'a [f32]) -> Result<Self> {
        let table = Table { labels, probabilities };
        let classes = table.classes();
        if labels.is_empty() || probabilities.len() != labels.len() * classes {
            let expected = format!("{} pictures × {classes} probabilities, not none", labels.len());
            return Err(Error::shape("thresholds", expected, probabilities.len()));
        }
        if let Some(at) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
            let (row, class) = (at / classes, at % classes);
            let got = probabilities[at];
            let message =
                format!("expected a probability for class {class} of picture {row}, got {got}");
            return Err(Error::argument("thresholds", message));
        }
        Ok(table)
    }

    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> usize {
        self.labels.first().map_or(0, |labels| labels.len())
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.probabilities[row * self.classes()..][..self.classes()]
    }

    fn predict(&self, row: usize, thresholds: &[f32]) -> Vec<bool> {
        let row = self.row(row);
        or_most_probable(row, row.iter().zip(thresholds).map(|(p, t)| p > t).collect())
    }

    /// The mean of the objective where image i is given the labels `predicted[i]`.
    fn score(&self, predicted: &[Vec<bool>], objective: Objective) -> f64 {
        match objective {
            Objective::Dice => {
                let dice = |(labels, predicted): (&Labels, &Vec<bool>)| dice(labels, predicted);
                self.labels.iter().zip(predicted).map(dice).sum::<f64>() / self.rows() as f64
            }
            Objective::F1 => {
                let of_class = |class: usize| {
                    let truth: Vec<bool> = self.labels.iter().map(|labels| labels[class]).collect();
                    let predicted: Vec<bool> = predicted.iter().map(|row| row[class]).collect();
                    truth.contains(&true).then(|| dice(&truth, &predicted))
                };
                let present: Vec<f64> = (0..self.classes()).filter_map(of_class).collect();
                present.iter().sum::<f64>() / present.len().max(1) as f64
            }
        }
    }

    fn fit(&self, rows: &[usize], objective: Objective) -> Thresholds {
        let shared = self.shared(rows, objective);
        let positives = |class: usize| rows.iter().filter(|&&row| self.labels[row][class]).count();
        let fitted: Vec<usize> = (0..self.classes()).filter(|&class| positives(class) >= FEW).collect();
        let mut per_class = vec![shared; self.classes()];
        for &class in &fitted {
            per_class[class] = self.best_f1(rows, class);
        }
        if objective == Objective::Dice {
            per_class = self.ascend(rows, &fitted, vec![shared; self.classes()], per_class);
        }
        Thresholds { objective, shared, per_class }
    }

    /// The best single threshold.
    fn shared(&self, rows: &[usize], objective: Objective) -> f32 {
        let all = rows.iter().flat_map(|&row| self.row(row).iter().copied());
        let mut sweep = Sweep::new(self, rows, vec![f32::INFINITY; self.classes()]);
        let pairs: Vec<(f32, usize, usize)> =
            all.enumerate().map(|(at, p)| (p, at / self.classes(), at % self.classes())).collect();
        let (mut found, mut predicted) = (0u64, 0u64);
        let positives: u64 =
            rows.iter().map(|&row| self.labels[row].iter().filter(|&&set| set).count() as u64).sum();
        // Dice has a value where nothing is over its threshold, too: that of the most probable.
        let start = if objective == Objective::Dice { sweep.total } else { 0.0 };
        sweep.best_cut(pairs, start, |sweep, at, class| {
            predicted += 1;
            found += self.labels[rows[at]][class] as u64;
            match objective {
                Objective::Dice => sweep.total,
                // F1 of all classes' labels together: rare classes alone would decide a mean of F1s.
                Objective::F1 => dice_of_sizes(positives, predicted, found),
            }
        })
    }

    /// The cut of one class's ranking with the highest F1.
    fn best_f1(&self, rows: &[usize], class: usize) -> f32 {
        let mut sweep = Sweep::new(self, rows, vec![f32::INFINITY; self.classes()]);
        let positives = rows.iter().filter(|&&row| self.labels[row][class]).count() as u64;
        let (mut found, mut predicted) = (0u64, 0u64);
        sweep.best_cut(self.column(rows, class), 0.0, |_, at, _| {
            predicted += 1;
            found += self.labels[rows[at]][class] as u64;
            dice_of_sizes(positives, predicted, found)
        })
    }

    fn column(&self, rows: &[usize], class: usize) -> Vec<(f32, usize, usize)> {
        rows.iter().enumerate().map(|(at, &row)| (self.row(row)[class], at, class)).collect()
    }

    /// Coordinate ascent of the mean Dice from both starts; the better end.
    fn ascend(&self, rows: &[usize], fitted: &[usize], a: Vec<f32>, b: Vec<f32>) -> Vec<f32> {
        let climb = |mut thresholds: Vec<f32>| {
            let mut best = Sweep::new(self, rows, thresholds.clone()).total;
            loop {
                let mut moved = false;
                for &class in fitted {
                    let mut tried = thresholds.clone();
                    tried[class] = f32::INFINITY;
                    let mut sweep = Sweep::new(self, rows, tried.clone());
                    let start = sweep.total;
                    tried[class] =
                        sweep.best_cut(self.column(rows, class), start, |sweep, _, _| sweep.total);
                    // Scored anew, so that rounding in running sums cannot pass for a gain.
                    let total = Sweep::new(self, rows, tried.clone()).total;
                    if total > best {
                        (best, thresholds, moved) = (total, tried, true);
                    }
                }
                if !moved {
                    return (best, thresholds);
                }
            }
        };
        let (a, b) = (climb(a), climb(b));
        if b.0 > a.0 { b.1 } else { a.1 }
    }
}

/// The predictions of some rows while thresholds are lowered, and the sum of their Dice.
struct Sweep<'a> {
    table: &'a Table<'a>,
    rows: &'a [usize],
    /// Over their thresholds; the most probable is not in here.
    over: Vec<Vec<bool>>,
    dice: Vec<f64>,
    total: f64,
}

impl<'a> Sweep<'a> {
    fn new(table: &'a Table<'a>, rows: &'a [usize], thresholds: Vec<f32>) -> Self {
        let over = |&row: &usize| table.row(row).iter().zip(&thresholds).map(|(p, t)| p > t).collect();
        let mut sweep = Sweep {
            table,
            rows,
            over: rows.iter().map(over).collect(),
            dice: vec![0.0; rows.len()],
            total: 0.0,
        };
        (0..rows.len()).for_each(|at| sweep.judge(at));
        sweep
    }

    fn judge(&mut self, at: usize) {
        let row = self.rows[at];
        let predicted = or_most_probable(self.table.row(row), self.over[at].clone());
        let new = dice(&self.table.labels[row], &predicted);
        self.total += new - self.dice[at];
        self.dice[at] = new;
    }

    /// Lets the given (probability, position in `rows`, class) come over the threshold one after the
    /// other from the highest down, asks for the score after each, and gives the best cut: 1 where
    /// none is better than `start`, the score of nothing over the threshold. Equal probabilities are
    /// never parted.
    fn best_cut(
        &mut self,
        mut pairs: Vec<(f32, usize, usize)>,
        start: f64,
        mut score: impl FnMut(&Self, usize, usize) -> f64,
    ) -> f32 {
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best = (start, 1.0);
        for i in 0..pairs.len() {
            let (p, at, class) = pairs[i];
            self.over[at][class] = true;
            self.judge(at);
            let value = score(self, at, class);
            let below = pairs.get(i + 1).map_or(0.0, |next| next.0);
            // A running sum's rounding must not decide between equal cuts.
            if below < p && value > best.0 + 1e-9 {
                best = (value, halfway(below, p));
            }
        }
        best.1
    }
}

/// A threshold that is not below `low`, and below `high`.
fn halfway(low: f32, high: f32) -> f32 {
    let middle = 0.5 * low + 0.5 * high;
    if middle < high { middle } else { low }
}

fn dice(truth: &[bool], predicted: &[bool]) -> f64 {
    dice_of_members(truth.iter().copied().zip(predicted.iter().copied()))
}

#[cfg(test)]
mod tests;
