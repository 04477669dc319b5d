//! The pictures of a report: originals, perturbations and what is said of them.

use super::methods::Method;
use super::output::{Report, of_255};
use atrous::Result;
use atrous::attack::trial::Seen;
use atrous::attack::{Norm, Trial};
use atrous::data::{CLASSES, Labels};
use atrous::report::{self, GridCell, GridRow, Tone};

/// How many pictures are shown.
const SHOWN: usize = 8;
/// Columns of ε in a picture of several.
const COLUMNS: usize = 6;

impl Report<'_> {
    /// The columns of epsilons that are shown.
    fn shown(&self) -> Vec<f32> {
        let n = self.epsilons.len();
        let step = n.div_ceil(COLUMNS);
        // The last one is among them.
        ((n - 1) % step..n).step_by(step).map(|i| self.epsilons[i]).collect()
    }

    /// The classes that are said to be there, with their confidences, the surest first; of a mask those that
    /// have a part of it, the largest first.
    pub fn classes(&self, seen: &Seen) -> Vec<(usize, Option<f32>)> {
        if let Some(mask) = &seen.mask {
            let mut sizes = [0usize; CLASSES.len()];
            let of_classes =
                mask.classes.iter().filter(|class| (1..=CLASSES.len() as u8).contains(class));
            of_classes.for_each(|&class| sizes[class as usize - 1] += 1);
            // A stray pixel is not worth a word.
            let seen = (0..CLASSES.len()).filter(|&class| sizes[class] * 200 > mask.classes.len());
            let mut order: Vec<usize> = seen.collect();
            order.sort_by_key(|&class| std::cmp::Reverse(sizes[class]));
            return order.into_iter().map(|class| (class, None)).collect();
        }
        let mut order: Vec<usize> = (0..CLASSES.len()).collect();
        order.sort_by(|&a, &b| seen.probabilities[b].total_cmp(&seen.probabilities[a]));
        order.iter().filter(|&&c| seen.said[c]).map(|&c| (c, Some(seen.probabilities[c]))).collect()
    }

    /// What is said of a picture, in lines below it.
    fn lines(&self, seen: &Seen, labels: Option<Labels>) -> Vec<(String, Tone)> {
        let tone = |class: usize| match labels {
            Some(labels) if labels[class] => Tone::Right,
            Some(_) => Tone::Wrong,
            None => Tone::Plain,
        };
        let line = |&(class, confidence): &(usize, Option<f32>)| {
            let sure = confidence.map_or(String::new(), |p| format!(" {p:.2}"));
            (format!("{}{sure}", CLASSES[class]), tone(class))
        };
        let all = self.classes(seen);
        match all.is_empty() {
            true => vec![("nothing".into(), if labels.is_some() { Tone::Wrong } else { Tone::Plain })],
            false => all.iter().take(3).map(line).collect(),
        }
    }

    pub fn headings(&self) -> Vec<String> {
        if !self.whole {
            return self
                .shown()
                .iter()
                .map(|&epsilon| format!("ε = {}", of_255(epsilon, self.options.norm)))
                .collect();
        }
        let gain = gain(self.epsilons[0], self.options.norm);
        let mut all =
            vec!["original".to_owned(), format!("perturbation × {gain:.0}"), "perturbed".to_owned()];
        if self.victim.segments() {
            all.insert(1, "mask before".into());
            all.push("mask after".into());
        }
        all
    }

    pub fn show_whole(&mut self, id: String, labels: Option<Labels>, trial: &Trial) -> Result<()> {
        if self.rows.len() >= SHOWN || trial.before.standing.reached {
            return Ok(());
        }
        let visible = &trial.visible;
        let size = format!("max {:.4}, L2 {:.3}, SSIM {:.3}", visible.linf, visible.l2, visible.ssim);
        let cell = |picture, lines| GridCell { picture, lines };
        let gain = gain(self.epsilons[0], self.options.norm);
        let amplified = report::difference(&trial.perturbed, &trial.original, gain)?;
        let before = self.lines(&trial.before, labels);
        let after = self.lines(&trial.rounded, labels);
        let mut cells = vec![
            cell(trial.original.clone(), before),
            cell(amplified, vec![(size, Tone::Plain)]),
            cell(trial.perturbed.clone(), after),
        ];
        if let (Some(before), Some(after)) = (&trial.before.mask, &trial.rounded.mask) {
            let share = if self.turned { "turned" } else { "wrong" };
            let told = |seen: &Seen| {
                let mut lines = vec![(format!("{share} {:.1} %", 100.0 * seen.led), Tone::Plain)];
                if self.turned {
                    lines.push((format!("others unchanged {:.1} %", 100.0 * seen.kept), Tone::Plain));
                }
                lines
            };
            for mask in [before, after] {
                self.legend.extend(&mask.classes);
            }
            self.legend.sort_unstable();
            self.legend.dedup();
            // Masks are of the network's square, as the pictures of a network that stretches them are.
            let over = |mask: &atrous::data::Mask, picture: &atrous::data::Picture| {
                let same = (picture.height, picture.width) == (mask.height, mask.width);
                report::blended(mask, same.then_some(picture))
            };
            cells.insert(1, cell(over(before, &trial.original), told(&trial.before)));
            cells.push(cell(over(after, &trial.perturbed), told(&trial.rounded)));
        }
        self.rows.push(GridRow { name: id, cells });
        Ok(())
    }

    /// A column an ε, of the first method.
    pub fn show_one_of_many(
        &mut self,
        id: String,
        labels: Option<Labels>,
        method: Method,
        epsilon: f32,
        trial: &Trial,
    ) -> Result<()> {
        let shown = self.shown();
        let first = self.outcomes.first().is_none_or(|outcome| outcome.method == method);
        let Some(column) =
            shown.iter().position(|&e| e == epsilon).filter(|_| first && method != Method::Deepfool)
        else {
            return Ok(());
        };
        let at = self.rows.iter().position(|row| row.name == id);
        let row = match at {
            Some(at) => at,
            None if column == 0 && self.rows.len() < SHOWN && !trial.before.standing.reached => {
                self.rows.push(GridRow { name: id, cells: Vec::new() });
                self.rows.len() - 1
            }
            None => return Ok(()),
        };
        let mut lines = self.lines(&trial.rounded, labels);
        if self.victim.segments() {
            lines = vec![(format!("led {:.1} %", 100.0 * trial.rounded.led), Tone::Plain)];
        }
        self.rows[row].cells.push(GridCell { picture: trial.perturbed.clone(), lines });
        Ok(())
    }
}

/// What a perturbation is multiplied with to be seen: ε becomes half the range.
fn gain(epsilon: f32, norm: Norm) -> f32 {
    match norm {
        Norm::Linf if epsilon > 0.0 => (0.5 / epsilon).clamp(1.0, 64.0).round(),
        _ => 16.0,
    }
}
