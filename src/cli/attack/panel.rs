//! The pictures of a report: originals, perturbations, and what is said of them.

use super::methods::{Method, Variant};
use atrous::Result;
use atrous::attack::trial::VictimOutput;
use atrous::attack::{AttackResult, Norm};
use atrous::data::{Classes, Image, Labels, Mask};
use atrous::report::{self, GridCell, GridRow, Tone};
use std::path::Path;

/// How many pictures are shown.
const SHOWN: usize = 8;
/// Cells of perturbations in a row: of several ε some are left out, of several methods none.
const ROOM: usize = 12;

/// Rows of pictures; in each the original and what every variant that is shown makes of it.
pub struct Sheet {
    norm: Norm,
    segments: bool,
    classes: Classes,
    /// Pixels of a class are to be turned.
    turned: bool,
    shown: Vec<Variant>,
    /// The one that comes first chooses the pictures.
    first: Option<Variant>,
    rows: Vec<Row>,
    legend: Vec<u8>,
}

struct Row {
    index: usize,
    name: String,
    original: Vec<GridCell>,
    perturbed: Vec<(Variant, Vec<GridCell>)>,
}

impl Sheet {
    pub fn new(
        methods: &[Method],
        epsilons: &[f32],
        norm: Norm,
        (segments, classes): (bool, Classes),
        turned: bool,
    ) -> Self {
        let shown = chosen(methods, epsilons, ROOM / if segments { 3 } else { 2 });
        Sheet {
            norm,
            segments,
            classes,
            turned,
            shown,
            first: None,
            rows: Vec::new(),
            legend: Vec::new(),
        }
    }

    /// Takes one picture, if it is to be shown: the first ones that were right before.
    pub fn add(
        &mut self,
        id: &str,
        labels: Option<&Labels>,
        variant: Variant,
        trial: &AttackResult,
    ) -> Result<()> {
        let first = *self.first.get_or_insert(variant) == variant;
        if first && self.rows.len() < SHOWN && !trial.before.status.reached {
            let original = self.original(labels, trial);
            let (index, name) = (trial.index, id.to_owned());
            self.rows.push(Row { index, name, original, perturbed: Vec::new() });
        }
        let known = self.rows.iter().position(|row| row.index == trial.index);
        if let Some(row) = known.filter(|_| self.shown.contains(&variant)) {
            let cells = self.perturbed(labels, variant, trial)?;
            self.rows[row].perturbed.push((variant, cells));
        }
        Ok(())
    }

    fn original(&mut self, labels: Option<&Labels>, trial: &AttackResult) -> Vec<GridCell> {
        let mut cells = vec![cell(trial.original.clone(), lines(&self.classes, &trial.before, labels))];
        if let Some(mask) = &trial.before.mask {
            cells.push(cell(self.over(mask, &trial.original), self.told(&trial.before)));
        }
        cells
    }

    fn perturbed(
        &mut self,
        labels: Option<&Labels>,
        variant: Variant,
        trial: &AttackResult,
    ) -> Result<Vec<GridCell>> {
        let visible = &trial.visible;
        let size = format!("max {:.4}, L2 {:.3}, SSIM {:.3}", visible.linf, visible.l2, visible.ssim);
        let gain = gain(variant, self.norm);
        let amplified = report::difference(&trial.perturbed, &trial.original, gain)?;
        let mut cells = vec![
            cell(trial.perturbed.clone(), lines(&self.classes, &trial.rounded, labels)),
            cell(amplified, vec![(size, Tone::Plain)]),
        ];
        if let Some(mask) = &trial.rounded.mask {
            cells.push(cell(self.over(mask, &trial.perturbed), self.told(&trial.rounded)));
        }
        Ok(cells)
    }

    fn told(&self, seen: &VictimOutput) -> Vec<(String, Tone)> {
        let share = if self.turned { "turned" } else { "wrong" };
        let mut lines = vec![(format!("{share} {:.1} %", 100.0 * seen.led), Tone::Plain)];
        if self.turned {
            lines.push((format!("others unchanged {:.1} %", 100.0 * seen.kept), Tone::Plain));
        }
        lines
    }

    /// Masks are of the network's square, as the pictures of a network that stretches them are.
    fn over(&mut self, mask: &Mask, image: &Image) -> Image {
        self.legend.extend(&mask.classes);
        self.legend.sort_unstable();
        self.legend.dedup();
        let same = (image.height, image.width) == (mask.height, mask.width);
        report::blended(mask, same.then_some(image))
    }

    /// The columns that every picture has, and their cells.
    fn grid(&self) -> (Vec<String>, Vec<GridRow>) {
        let of = |row: &'_ Row, variant: Variant| -> Option<Vec<GridCell>> {
            row.perturbed.iter().find(|(v, _)| *v == variant).map(|(_, cells)| cells.clone())
        };
        let complete: Vec<Variant> = self
            .shown
            .iter()
            .copied()
            .filter(|&variant| self.rows.iter().all(|row| of(row, variant).is_some()))
            .collect();
        let mut headings = vec!["original".to_owned()];
        headings.extend(self.segments.then(|| "mask before".to_owned()));
        for &variant in &complete {
            headings.push(variant.name(self.norm));
            headings.push(format!("its perturbation × {:.0}", gain(variant, self.norm)));
            headings.extend(self.segments.then(|| "mask after".to_owned()));
        }
        let cells = |row: &Row| {
            let perturbed = complete.iter().filter_map(|&variant| of(row, variant)).flatten();
            row.original.iter().cloned().chain(perturbed).collect()
        };
        let row = |row: &Row| GridRow { name: row.name.clone(), cells: cells(row) };
        (headings, self.rows.iter().map(row).collect())
    }

    /// Writes what there is to see; false where there is nothing.
    pub fn write(&self, path: &Path) -> Result<bool> {
        let (headings, rows) = self.grid();
        let originals = if self.segments { 2 } else { 1 };
        if rows.is_empty() || headings.len() == originals {
            return Ok(false);
        }
        report::grid(&headings, &rows, (&self.legend, &self.classes), path).map(|()| true)
    }
}

/// What there is room for: of each method as many ε, the largest among them.
fn chosen(methods: &[Method], epsilons: &[f32], room: usize) -> Vec<Variant> {
    let n = epsilons.len();
    let step = n.div_ceil((room / methods.len().max(1)).clamp(1, n));
    let of = |&method: &Method| {
        let all = (n - 1) % step..n;
        let mut variants: Vec<Variant> =
            all.step_by(step).map(|i| Variant::new(method, epsilons[i])).collect();
        variants.dedup();
        variants
    };
    methods.iter().flat_map(of).collect()
}

/// What a perturbation is multiplied with to be seen: ε becomes half the range.
fn gain(variant: Variant, norm: Norm) -> f32 {
    match (norm, variant.epsilon) {
        (Norm::Linf, Some(epsilon)) if epsilon > 0.0 => (0.5 / epsilon).clamp(1.0, 64.0).round(),
        _ => 16.0,
    }
}

fn cell(image: Image, lines: Vec<(String, Tone)>) -> GridCell {
    GridCell { image, lines }
}

/// The classes that are said to be there, with their confidences, the surest first; of a mask those that
/// have a part of it, the largest first.
pub fn classes(seen: &VictimOutput) -> Vec<(usize, Option<f32>)> {
    if let Some(mask) = &seen.mask {
        let mut sizes = vec![0usize; seen.said.len()];
        for &class in &mask.classes {
            // (The background is before the first, void beyond the last.)
            if let Some(size) = usize::from(class).checked_sub(1).and_then(|class| sizes.get_mut(class))
            {
                *size += 1;
            }
        }
        // A stray pixel is not worth a word.
        let seen = (0..sizes.len()).filter(|&class| sizes[class] * 200 > mask.classes.len());
        let mut order: Vec<usize> = seen.collect();
        order.sort_by_key(|&class| std::cmp::Reverse(sizes[class]));
        return order.into_iter().map(|class| (class, None)).collect();
    }
    let mut order: Vec<usize> = (0..seen.said.len()).collect();
    order.sort_by(|&a, &b| seen.probabilities[b].total_cmp(&seen.probabilities[a]));
    order.iter().filter(|&&c| seen.said[c]).map(|&c| (c, Some(seen.probabilities[c]))).collect()
}

/// What is said of a picture, in lines below it.
fn lines(names: &Classes, seen: &VictimOutput, labels: Option<&Labels>) -> Vec<(String, Tone)> {
    let tone = |class: usize| match labels {
        Some(labels) if labels[class] => Tone::Right,
        Some(_) => Tone::Wrong,
        None => Tone::Plain,
    };
    let line = |&(class, confidence): &(usize, Option<f32>)| {
        let sure = confidence.map_or(String::new(), |p| format!(" {p:.2}"));
        (format!("{}{sure}", &names[class]), tone(class))
    };
    let all = classes(seen);
    match all.is_empty() {
        true => vec![("nothing".into(), if labels.is_some() { Tone::Wrong } else { Tone::Plain })],
        false => all.iter().take(3).map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atrous::attack::{AttackStatus, Visibility};

    const ALL: [f32; 4] = [0.0, 2.0 / 255.0, 8.0 / 255.0, 16.0 / 255.0];

    /// A picture of one byte, right before, changed by `step`.
    fn trial(index: usize, step: u8) -> AttackResult {
        let seen = |reached| VictimOutput {
            status: AttackStatus { reached, sure: reached, score: 0.0 },
            said: vec![false; 20],
            probabilities: vec![0.0; 20],
            mask: None,
            led: 0.0,
            kept: 1.0,
        };
        let image = |value| Image::new(1, 1, vec![value; 3]).unwrap();
        AttackResult {
            index,
            before: seen(false),
            after: seen(true),
            rounded: seen(true),
            visible: Visibility { linf: 0.0, l2: 0.0, psnr: None, ssim: 1.0 },
            seconds: 0.0,
            original: image(100),
            perturbed: image(100 + step),
        }
    }

    #[test]
    fn of_every_method_the_largest_epsilon_is_shown() {
        use Method::{Deepfool, Fgsm, Pgd, Square};
        let of = |methods: &[Method], room| -> Vec<String> {
            chosen(methods, &ALL, room).iter().map(|v| v.name(Norm::Linf)).collect()
        };
        assert_eq!(of(&[Pgd], 2), ["pgd, ε = 2/255", "pgd, ε = 16/255"]);
        assert_eq!(of(&[Pgd], 9).len(), 4);
        let two = ["fgsm, ε = 2/255", "fgsm, ε = 16/255", "deepfool"];
        assert_eq!(of(&[Fgsm, Deepfool], 4), two);
        let all = of(&[Fgsm, Pgd, Square, Deepfool], 1);
        assert_eq!(all, ["fgsm, ε = 16/255", "pgd, ε = 16/255", "square, ε = 16/255", "deepfool"]);
    }

    #[test]
    fn a_sheet_of_several_methods_shows_all_of_them_beside_the_original() {
        let methods = [Method::Fgsm, Method::Pgd, Method::Deepfool];
        let mut sheet = Sheet::new(&methods, &ALL[2..], Norm::Linf, (false, Classes::voc()), false);
        let variants = chosen(&methods, &ALL[2..], 6);
        assert_eq!(variants.len(), 5);
        for (step, &variant) in variants.iter().enumerate() {
            for index in 0..SHOWN + 3 {
                sheet.add(&format!("p{index}"), None, variant, &trial(index, step as u8)).unwrap();
            }
        }
        let (headings, rows) = sheet.grid();
        let expected = [
            "original",
            "fgsm, ε = 8/255",
            "its perturbation × 16",
            "fgsm, ε = 16/255",
            "its perturbation × 8",
            "pgd, ε = 8/255",
            "its perturbation × 16",
            "pgd, ε = 16/255",
            "its perturbation × 8",
            "deepfool",
            "its perturbation × 16",
        ];
        assert_eq!(headings, expected);
        assert_eq!(rows.len(), SHOWN);
        for row in &rows {
            assert_eq!(row.cells.len(), headings.len());
            // Under each name is that variant's own picture, and its difference from the original.
            for (step, at) in (1..headings.len()).step_by(2).enumerate() {
                assert_eq!(row.cells[at].image.rgb[0], 100 + step as u8);
                let gain = gain(variants[step], Norm::Linf);
                let grey = (127.5 + gain * step as f32).round() as u8;
                assert_eq!(row.cells[at + 1].image.rgb[0], grey);
            }
        }
    }

    #[test]
    fn a_method_that_was_not_finished_has_no_column() {
        let methods = [Method::Fgsm, Method::Pgd];
        let mut sheet = Sheet::new(&methods, &ALL[2..3], Norm::Linf, (false, Classes::voc()), false);
        let [fgsm, pgd] = methods.map(|method| Variant::new(method, ALL[2]));
        for index in 0..2 {
            sheet.add("a", None, fgsm, &trial(index, 1)).unwrap();
        }
        sheet.add("a", None, pgd, &trial(0, 2)).unwrap();
        assert_eq!(sheet.grid().0, ["original", "fgsm, ε = 8/255", "its perturbation × 16"]);
        let folder = tempfile::tempdir().unwrap();
        assert!(sheet.write(&folder.path().join("panel.png")).unwrap());
        let empty = Sheet::new(&methods, &ALL[2..3], Norm::Linf, (false, Classes::voc()), false);
        assert!(!empty.write(&folder.path().join("none.png")).unwrap());
    }
}
