//! A threshold for each class of a classifier, fitted on pictures whose labels are known.
//!
//! The rule of prediction is that of [`crate::submission`]: every class whose probability is over
//! its threshold; where none is, the most probable. Thresholds are fitted to one of two scores:
//!
//! - **F1** of each class by itself, `2 tp / (2 tp + fp + fn)`: the best cut of its ranking, found by
//!   looking at all of them;
//! - **Dice** of each picture's label bits, mean over pictures, as submissions are scored. There the
//!   classes depend on each other, so they are taken in turn, each to its best cut given the others,
//!   until none moves. The score never falls on the way and there are finitely many cuts, so it ends.
//!
//! A class with fewer than [`FEW`] positives says nothing about its threshold and takes the shared
//! one: the best single threshold for all classes.
//!
//! A cut lies halfway between two neighbouring probabilities. Of equally good cuts the highest is
//! taken. What fitting gains has to be judged on pictures it has not seen: [`cross_validated`].

use crate::data::{CLASSES, Labels};
use crate::error::{Error, Result};
use crate::metrics::{arg_max, overlap::dice_of_sizes};
use crate::random::{Stream, domain};
use crate::submission::labels_from_probabilities_by_class;
#[cfg(feature = "checkpoint")]
use serde::{Deserialize, Serialize};

/// A class with fewer positives takes the shared threshold.
pub const FEW: usize = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "checkpoint", derive(Serialize, Deserialize), serde(rename_all = "lowercase"))]
pub enum Objective {
    F1,
    #[default]
    Dice,
}

#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "checkpoint", derive(Serialize, Deserialize))]
pub struct Thresholds {
    pub objective: Objective,
    /// The best single threshold.
    pub shared: f32,
    /// One a class.
    pub per_class: Vec<f32>,
}

/// Means of the objective over the same pictures under different thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Under the one threshold that was used before.
    pub before: f64,
    /// Under one shared threshold, fitted on other pictures.
    pub shared: f64,
    /// Under a threshold for each class, fitted on other pictures.
    pub per_class: f64,
    /// Under thresholds fitted on the very pictures: more than can be hoped for.
    pub fitted: f64,
}

impl Thresholds {
    /// The same for all classes.
    pub fn uniform(threshold: f32, classes: usize) -> Self {
        Thresholds {
            objective: Objective::default(),
            shared: threshold,
            per_class: vec![threshold; classes],
        }
    }

    /// Fits to probabilities [pictures, classes] and the labels of the same pictures.
    pub fn fit(labels: &[Labels], probabilities: &[f32], objective: Objective) -> Result<Self> {
        let table = Table::new(labels, probabilities)?;
        Ok(table.fit(&(0..table.rows()).collect::<Vec<_>>(), objective))
    }

    /// The labels of one picture.
    pub fn apply(&self, row: &[f32]) -> Result<Vec<u8>> {
        labels_from_probabilities_by_class(row, &self.per_class)
    }

    /// The objective's mean under these thresholds.
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

/// Fits on all folds but one and scores on that one, for each fold in turn.
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
/// whichever has the best Dice on pictures it was not fitted on. Of fewer than 5 pictures
/// nothing is learned.
pub fn choose(
    labels: &[Labels],
    probabilities: &[f32],
    before: f32,
    seed: u64,
) -> Result<(Thresholds, Option<Gain>)> {
    let uniform = |threshold| Thresholds::uniform(threshold, CLASSES.len());
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

/// Parts that validation pictures are cut into, to fit on all but one.
const FOLDS: usize = 5;

/// Labels and probabilities of the same pictures, seen to fit together.
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

    /// The mean of the objective where picture i is given the labels `predicted[i]`.
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
                // Of all classes' labels together: rare classes alone would decide a mean of F1s.
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

fn or_most_probable(row: &[f32], mut over: Vec<bool>) -> Vec<bool> {
    if !over.contains(&true) && !over.is_empty() {
        over[arg_max(row)] = true;
    }
    over
}

fn dice(truth: &[bool], predicted: &[bool]) -> f64 {
    let size = |set: &[bool]| set.iter().filter(|&&member| member).count() as u64;
    let both = truth.iter().zip(predicted).filter(|&(&a, &b)| a && b).count() as u64;
    dice_of_sizes(size(truth), size(predicted), both)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: usize = crate::data::CLASSES.len();

    /// Labels, and probabilities that know something of them: rounded, so that there are ties.
    fn pictures(n: usize, seed: u64) -> (Vec<Labels>, Vec<f32>) {
        let mut stream = Stream::new(seed, &[domain::TEST]);
        let (mut labels, mut probabilities) = (Vec::new(), Vec::new());
        for _ in 0..n {
            // The first classes are frequent, the last never there.
            let row: Labels = std::array::from_fn(|class| {
                class < CLASSES - 2 && stream.unit() < 0.4 / (1.0 + class as f32)
            });
            for (class, set) in row.into_iter().enumerate() {
                let level = 0.1 + 0.02 * class as f32 + if set { 0.15 } else { 0.0 };
                probabilities
                    .push(((level + 0.12 * stream.normal()).clamp(0.0, 1.0) * 50.0).round() / 50.0);
            }
            labels.push(row);
        }
        (labels, probabilities)
    }

    fn f1(labels: &[Labels], probabilities: &[f32], class: usize, threshold: f32) -> f64 {
        let truth: Vec<bool> = labels.iter().map(|row| row[class]).collect();
        let over: Vec<bool> = probabilities.chunks(CLASSES).map(|row| row[class] > threshold).collect();
        dice(&truth, &over)
    }

    /// Every threshold that can matter: the probabilities lie at multiples of 0.02.
    fn all_cuts() -> impl Iterator<Item = f32> {
        (0..=50).map(|step| step as f32 / 50.0 + 0.01)
    }

    #[test]
    fn no_threshold_has_a_higher_f1_than_the_fitted_one() {
        for seed in 0..10 {
            let (labels, probabilities) = pictures(60, seed);
            let fitted = Thresholds::fit(&labels, &probabilities, Objective::F1).unwrap();
            let mut several = 0;
            for class in 0..CLASSES {
                if labels.iter().filter(|row| row[class]).count() < FEW {
                    assert_eq!(fitted.per_class[class], fitted.shared);
                    continue;
                }
                several += 1;
                let best = all_cuts().map(|t| f1(&labels, &probabilities, class, t)).fold(0.0, f64::max);
                assert_eq!(f1(&labels, &probabilities, class, fitted.per_class[class]), best);
            }
            assert!(several > 2);
        }
    }

    #[test]
    fn no_threshold_of_one_class_can_be_moved_to_a_higher_dice() {
        for seed in 0..6 {
            let (labels, probabilities) = pictures(50, seed);
            let score = |t: &Thresholds| t.score(&labels, &probabilities, Objective::Dice).unwrap();
            let fitted = Thresholds::fit(&labels, &probabilities, Objective::Dice).unwrap();
            for class in (0..CLASSES).filter(|&c| labels.iter().filter(|row| row[c]).count() >= FEW) {
                for threshold in all_cuts() {
                    let mut moved = fitted.clone();
                    moved.per_class[class] = threshold;
                    assert!(score(&moved) <= score(&fitted) + 1e-12, "class {class}, {threshold}");
                }
            }
            let best = all_cuts().map(|t| score(&Thresholds::uniform(t, CLASSES))).fold(0.0, f64::max);
            let shared = score(&Thresholds::uniform(fitted.shared, CLASSES));
            assert!((shared - best).abs() < 1e-12, "{shared}, brute force {best}");
            assert!(score(&fitted) >= shared);
        }
    }

    #[test]
    fn the_shared_threshold_has_the_highest_f1_of_all_labels_together() {
        let (labels, probabilities) = pictures(60, 3);
        let truth: Vec<bool> = labels.iter().flatten().copied().collect();
        let micro = |t: f32| dice(&truth, &probabilities.iter().map(|&p| p > t).collect::<Vec<_>>());
        let fitted = Thresholds::fit(&labels, &probabilities, Objective::F1).unwrap();
        assert_eq!(micro(fitted.shared), all_cuts().map(micro).fold(0.0, f64::max));
    }

    #[test]
    fn the_score_is_that_of_a_submissions_label_rows() {
        let (labels, probabilities) = pictures(40, 4);
        let thresholds = Thresholds::fit(&labels, &probabilities, Objective::Dice).unwrap();
        let rows = labels.iter().zip(probabilities.chunks(CLASSES)).map(|(labels, row)| {
            let truth = labels.map(|set| set as u8);
            crate::metrics::dice(&truth, &thresholds.apply(row).unwrap()).unwrap()
        });
        let expected = rows.sum::<f64>() / 40.0;
        let score = thresholds.score(&labels, &probabilities, Objective::Dice).unwrap();
        assert!((score - expected).abs() < 1e-12);
    }

    #[test]
    fn labels_over_their_thresholds_or_else_the_most_probable() {
        let mut thresholds = Thresholds::uniform(0.5, 3);
        thresholds.per_class[2] = 0.1;
        assert_eq!(thresholds.apply(&[0.4, 0.6, 0.2]).unwrap(), [0, 1, 1]);
        assert_eq!(thresholds.apply(&[0.4, 0.5, 0.1]).unwrap(), [0, 1, 0]);
        assert!(thresholds.apply(&[0.4]).is_err());
    }

    #[test]
    fn where_nothing_is_known_nothing_is_invented() {
        let (_, probabilities) = pictures(10, 5);
        let none = vec![[false; CLASSES]; 10];
        for objective in [Objective::F1, Objective::Dice] {
            let fitted = Thresholds::fit(&none, &probabilities, objective).unwrap();
            assert!(fitted.per_class.iter().all(|&t| t == fitted.shared));
        }
    }

    #[test]
    fn the_gain_on_pictures_not_seen_is_told_beside_the_gain_on_those_that_were() {
        let (labels, probabilities) = pictures(300, 6);
        for objective in [Objective::F1, Objective::Dice] {
            let run = |seed| cross_validated(&labels, &probabilities, objective, 0.05, 5, seed);
            let gain = run(1).unwrap();
            assert_eq!(gain, run(1).unwrap());
            assert!(gain.shared > gain.before, "{objective:?}: {gain:?}");
            assert!(gain.per_class > gain.shared, "{objective:?}: {gain:?}");
            assert!(gain.fitted >= gain.per_class, "{objective:?}: {gain:?}");
        }
    }

    #[test]
    fn probabilities_that_know_nothing_gain_nothing_on_pictures_not_seen() {
        let mut stream = Stream::new(8, &[domain::TEST]);
        let labels: Vec<Labels> =
            (0..200).map(|_| std::array::from_fn(|_| stream.unit() < 0.1)).collect();
        let noise: Vec<f32> = (0..200 * CLASSES).map(|_| stream.unit()).collect();
        let gain = cross_validated(&labels, &noise, Objective::Dice, 0.5, 5, 0).unwrap();
        assert!(gain.fitted > gain.per_class + 0.01 && gain.per_class < gain.shared + 0.02, "{gain:?}");
    }

    #[test]
    fn neighbouring_floats_can_still_be_parted() {
        let low = 0.3f32;
        let high = low.next_up();
        let threshold = halfway(low, high);
        assert!(high > threshold && threshold >= low);
        assert_eq!(halfway(0.25, 0.75), 0.5);
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        let (labels, mut probabilities) = pictures(4, 7);
        let fit = |labels: &[Labels], p: &[f32]| {
            Thresholds::fit(labels, p, Objective::F1).unwrap_err().to_string()
        };
        assert!(fit(&labels, &probabilities[1..]).contains("4 pictures × 20"));
        assert!(fit(&[], &[]).contains("not none"));
        assert!(cross_validated(&labels, &probabilities, Objective::F1, 0.5, 5, 0).is_err());
        assert!(cross_validated(&labels, &probabilities, Objective::F1, 0.5, 1, 0).is_err());
        let few = Thresholds::uniform(0.5, 3);
        assert!(few.score(&labels, &probabilities, Objective::F1).is_err());
        for bad in [f32::NAN, 1.5, -0.1] {
            probabilities[2 * CLASSES + 7] = bad;
            let error = fit(&labels, &probabilities);
            assert!(
                error.contains("class 7 of picture 2") && error.contains(&bad.to_string()),
                "{error}"
            );
        }
    }

    #[cfg(feature = "checkpoint")]
    #[test]
    fn thresholds_come_back_from_json_to_the_bit() {
        let (labels, probabilities) = pictures(40, 9);
        let thresholds = Thresholds::fit(&labels, &probabilities, Objective::Dice).unwrap();
        let text = serde_json::to_string(&thresholds).unwrap();
        assert!(text.contains(r#""objective":"dice""#), "{text}");
        assert_eq!(serde_json::from_str::<Thresholds>(&text).unwrap(), thresholds);
    }
}
