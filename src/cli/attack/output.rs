//! What an experiment leaves: a table, pictures to look at, the perturbed pictures themselves.

use super::Attack as Options;
use super::defences;
use super::experiment::NamedVictim;
use super::methods::{Method, Variant};
use super::panel::{Sheet, classes};
use super::transfer::Transfer;
use crate::cli::report as page;
use atrous::attack::trial::{Led, VictimOutput, robust_within};
use atrous::attack::{AttackResult, Norm, Summary};
use atrous::data::voc_npy::{self, Split};
use atrous::data::{Classes, Dataset, Labels};
use atrous::files::{explain, write_atomically};
use atrous::report;
use atrous::report::html::{AttackSummary, robustness_curves};
use atrous::{Error, Result};
use serde_json::{Value, json};
use std::path::PathBuf;

pub struct Outcome {
    pub variant: Variant,
    pub summary: Summary,
}

type Points = Vec<(f64, f64)>;

/// A method's figures over ε.
struct Curves {
    method: Method,
    /// The share of pictures that resist, mean IoU, or the share of pixels that follow: of each ε on its own.
    own: Points,
    /// The same with the best of each ε and the smaller ones; empty for mean IoU.
    so_far: Points,
    /// Of a classifier: mean average precision.
    score: Points,
}

pub struct Report<'a> {
    options: &'a Options,
    victim: &'a NamedVictim,
    /// One method and one ε: the pictures are kept.
    whole: bool,
    several: bool,
    turned: bool,
    pub outcomes: Vec<Outcome>,
    curves: Vec<Curves>,
    table: csv::Writer<Vec<u8>>,
    sheet: Sheet,
    /// Of each network's pictures: what each network still gets right.
    pub transfer: Option<Transfer>,
    pub defences: Vec<defences::Row>,
    written: Vec<(String, Option<Labels>)>,
}

const TABLE: &str = "attack.csv";

const COLUMNS: [&str; 19] = [
    "method",
    "epsilon",
    "Id",
    "truth",
    "said",
    "said_attacked",
    "said_rounded",
    "right",
    "success",
    "success_so_far",
    "success_rounded",
    "led",
    "led_so_far",
    "kept",
    "linf",
    "l2",
    "psnr",
    "ssim",
    "seconds",
];

impl<'a> Report<'a> {
    pub fn new(
        options: &'a Options,
        victim: &'a NamedVictim,
        methods: &[Method],
        epsilons: &[f32],
        turned: bool,
    ) -> Result<Self> {
        let mut report = Report {
            options,
            victim,
            whole: methods.len() == 1 && epsilons.len() == 1,
            several: epsilons.len() > 1,
            turned,
            outcomes: Vec::new(),
            curves: Vec::new(),
            table: csv::Writer::from_writer(Vec::new()),
            sheet: Sheet::new(methods, epsilons, options.norm, victim.kind(), turned),
            transfer: None,
            defences: Vec::new(),
            written: Vec::new(),
        };
        report.row(COLUMNS)?;
        if report.whole {
            let images = report.perturbed().join("test/img");
            std::fs::create_dir_all(&images).map_err(|error| Error::file(&images, explain(&error)))?;
        }
        println!("attacking {}, side {}", victim.name, victim.trained.config.network.size);
        println!("{:<10} {}", "", report.heading());
        Ok(report)
    }

    fn perturbed(&self) -> PathBuf {
        self.options.out.join("perturbed")
    }

    fn row(&mut self, cells: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<()> {
        self.table.write_record(cells).map_err(|error| Error::file(self.options.out.join(TABLE), error))
    }

    /// Takes what is wanted of one picture; `so_far` is the best of this and of the smaller ε.
    pub fn keep(
        &mut self,
        dataset: &dyn Dataset,
        variant: Variant,
        trial: &AttackResult,
        so_far: Led,
    ) -> Result<()> {
        let id = dataset.id(trial.index);
        let labels = dataset.labels(trial.index);
        let names = &dataset.classes();
        let said = |seen: &VictimOutput| said(names, &classes(seen));
        let flag = |flag: bool| (flag as u8).to_string();
        let right = !trial.before.status.reached;
        self.row([
            variant.method.name().to_owned(),
            variant.epsilon.map_or(String::new(), |epsilon| epsilon.to_string()),
            id.clone(),
            labels.as_ref().map_or(String::new(), |l| names.named(l).collect::<Vec<_>>().join("; ")),
            said(&trial.before),
            said(&trial.after),
            said(&trial.rounded),
            flag(right),
            flag(trial.succeeded()),
            flag(right && so_far.reached),
            flag(right && trial.rounded.status.reached),
            format!("{:.5}", trial.after.led),
            format!("{:.5}", so_far.share),
            format!("{:.5}", trial.after.kept),
            format!("{:.6}", trial.visible.linf),
            format!("{:.5}", trial.visible.l2),
            trial.visible.psnr.map_or(String::new(), |psnr| format!("{psnr:.5}")),
            format!("{:.5}", trial.visible.ssim),
            format!("{:.5}", trial.seconds),
        ])?;
        if self.whole {
            let path = Split::Test.image(&self.perturbed(), &id);
            voc_npy::write_image(path, &trial.perturbed)?;
            self.written.push((id.clone(), labels.clone()));
        }
        self.sheet.add(&id, labels.as_ref(), variant, trial)
    }

    fn heading(&self) -> String {
        match (self.victim.segments(), self.turned) {
            (false, _) => format!(
                "{:>9} {:>7} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>6} {:>9}",
                "epsilon",
                "clean",
                "robust",
                "so far",
                "rounded",
                "success",
                "mAP",
                "mAP'",
                "med L∞",
                "med L2",
                "SSIM",
                "s/picture"
            ),
            (true, _) => format!(
                "{:>9} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>6} {:>9}",
                "epsilon",
                "mIoU",
                "mIoU'",
                "rounded",
                if self.turned { "turned" } else { "wrong" },
                "so far",
                "kept",
                "mean L∞",
                "mean L2",
                "SSIM",
                "s/picture"
            ),
        }
    }

    /// Takes an attack's figures; `own` are the ε that a method without one is told of.
    pub fn add(&mut self, outcome: Outcome, trials: &[AttackResult], own: Option<&[f32]>) {
        self.print(&outcome);
        let Outcome { variant, summary: s } = &outcome;
        let at = |epsilon: f32| match self.options.norm {
            Norm::Linf => epsilon as f64 * 255.0,
            Norm::L2 => epsilon as f64,
        };
        let point = |value: Option<f64>| -> Points {
            value.map(|value| (at(variant.epsilon.unwrap_or_default()), value)).into_iter().collect()
        };
        let within = |epsilons: &[f32]| -> Points {
            // It fools with one perturbation what it fools at all: the best so far is itself.
            let all = epsilons.iter().filter(|_| s.robust.is_some());
            all.map(|&e| (at(e), robust_within(trials, self.options.ball(e)))).collect()
        };
        let (own, so_far) = match (own, self.victim.segments(), self.turned) {
            (Some(epsilons), ..) => (within(epsilons), within(epsilons)),
            (None, false, _) => (point(s.robust), point(s.robust_so_far)),
            (None, true, true) => (point(Some(s.led)), point(Some(s.led_so_far))),
            (None, true, false) => (point(s.score), Points::new()),
        };
        let score = point(s.score.filter(|_| !self.victim.segments() && variant.epsilon.is_some()));
        let method = variant.method;
        match self.curves.iter_mut().find(|curves| curves.method == method) {
            Some(curves) => {
                curves.own.extend(own);
                curves.so_far.extend(so_far);
                curves.score.extend(score);
            }
            None => self.curves.push(Curves { method, own, so_far, score }),
        }
        self.outcomes.push(outcome);
    }

    fn print(&self, Outcome { variant, summary: s }: &Outcome) {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let epsilon = variant.epsilon.map_or("-".into(), |epsilon| of_255(epsilon, self.options.norm));
        let line = match self.victim.segments() {
            false => format!(
                "{:>9} {:>7.3} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>6} {:>9.3}",
                epsilon,
                s.clean,
                number(s.robust, 3),
                number(s.robust_so_far, 3),
                number(s.robust_rounded, 3),
                number(s.success, 3),
                number(s.score_clean, 3),
                number(s.score, 3),
                number(s.median_linf, 4),
                number(s.median_l2, 3),
                number(s.mean_ssim, 3),
                s.seconds_per_image
            ),
            true => format!(
                "{:>9} {:>7} {:>7} {:>8} {:>8.3} {:>8.3} {:>8.3} {:>7} {:>7} {:>6} {:>9.3}",
                epsilon,
                number(s.score_clean, 3),
                number(s.score, 3),
                number(s.score_rounded, 3),
                s.led,
                s.led_so_far,
                s.kept,
                number(s.mean_linf, 4),
                number(s.mean_l2, 3),
                number(s.mean_ssim, 3),
                s.seconds_per_image
            ),
        };
        println!("{:<10} {line}", variant.method.name());
    }

    /// Writes everything; what was made is printed.
    pub fn write(&mut self, dataset: &dyn Dataset) -> Result<()> {
        let out = &self.options.out;
        let table = out.join(TABLE);
        self.table.flush().map_err(|error| Error::file(&table, explain(&error)))?;
        write_atomically(&table, |file| file.write_all(self.table.get_ref()))?;
        println!("every picture: {}", table.display());
        if self.whole {
            let folder = self.perturbed();
            // A test set's labels are not known to a network that predicts it.
            let rows = self.written.iter().map(|(id, _)| (id.as_str(), None));
            voc_npy::write_csv(Split::Test.csv(&folder), &dataset.classes(), rows)?;
            let truth = self.written.iter().map(|(id, labels)| (id.as_str(), labels.clone()));
            voc_npy::write_csv(atrous::data::synthetic::truth_csv(&folder), &dataset.classes(), truth)?;
            println!(
                "perturbed pictures: {} ({} of {})",
                folder.display(),
                self.written.len(),
                dataset.len()
            );
        }
        let panel = out.join("panel.png");
        if self.sheet.write(&panel)? {
            println!("pictures: {}", panel.display());
        }
        let json = self.json();
        if self.several {
            let wrong = |error| Error::file(out.join("summary.json"), error);
            self.draw(&serde_json::from_value(json.clone()).map_err(wrong)?)?;
        }
        if let Some(Transfer { by, rows }) = &self.transfer {
            println!(
                "what each network (columns, in the rows' order) still gets right of pictures \
                 perturbed by {}",
                by.name(self.options.norm)
            );
            for (name, values) in rows {
                let cell = |value: &Option<f64>| match value {
                    Some(value) => format!("{value:>7.3}"),
                    None => format!("{:>7}", "-"),
                };
                let cells: Vec<String> = values.iter().map(cell).collect();
                println!("  {name:<48} {}", cells.join(" "));
            }
        }
        let path = out.join("summary.json");
        let text = serde_json::to_string_pretty(&json).map_err(|error| Error::file(&path, error))?;
        write_atomically(&path, |file| writeln!(file, "{text}"))?;
        println!("summary: {}", path.display());
        page::write(out)
    }

    fn draw(&self, summary: &AttackSummary) -> Result<()> {
        let panels = robustness_curves(summary);
        if panels.is_empty() {
            return Ok(());
        }
        for path in report::draw(&panels, summary.axis(), &self.options.out)? {
            println!("curves: {}", path.display());
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let outcome = |Outcome { variant, summary }: &Outcome| {
            let mut fields = json!({ "method": variant.method.name(), "epsilon": variant.epsilon });
            let summary = serde_json::to_value(summary).unwrap_or_default();
            if let (Some(fields), Value::Object(summary)) = (fields.as_object_mut(), summary) {
                fields.extend(summary);
            }
            fields
        };
        let curve = |curves: &Curves| {
            let name = curves.method.name();
            json!({
                "method": name,
                "points": curves.own,
                "so_far": curves.so_far,
                "score": curves.score,
            })
        };
        let transfer = self.transfer.as_ref().map(|Transfer { by, rows }| {
            let row = |(name, values): &(String, Vec<Option<f64>>)| {
                json!({
                    "pictures": name,
                    "method": by.method.name(),
                    "epsilon": by.epsilon,
                    "right": values,
                })
            };
            rows.iter().map(row).collect::<Vec<_>>()
        });
        let o = self.options;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "task": if self.victim.segments() { "segment" } else { "classify" },
            "settings": {
                "steps": o.steps,
                "step": o.step.map(|step| step.0),
                "restarts": o.restarts,
                "queries": o.queries,
                "images at most": o.images,
                "batch size": o.batch_size,
                "seed": o.seed,
                "norm": o.norm.to_string(),
                "target": o.target,
                "from": o.from,
            },
            "victim": self.victim.name,
            "side": self.victim.trained.config.network.size,
            "norm": self.options.norm.to_string(),
            "classes": self.victim.trained.config.classes,
            "target": self.options.target,
            "from": self.options.from,
            "seed": self.options.seed,
            "attacks": self.outcomes.iter().map(outcome).collect::<Vec<_>>(),
            "curves": self.curves.iter().map(curve).collect::<Vec<_>>(),
            "transfer": transfer,
            "defences": defences::json(&self.defences),
        })
    }
}

fn said(names: &Classes, classes: &[(usize, Option<f32>)]) -> String {
    let one = |&(class, sure): &(usize, Option<f32>)| match sure {
        Some(sure) => format!("{} {sure:.3}", &names[class]),
        None => names[class].to_owned(),
    };
    classes.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// `8/255`, where it is a whole number of them; else digits that tell it from every other.
pub fn of_255(epsilon: f32, norm: Norm) -> String {
    let steps = epsilon as f64 * 255.0;
    let whole = steps.round();
    // (An f32 is right to 6·10⁻⁸ of itself.)
    match norm == Norm::Linf && (steps - whole).abs() <= 1e-6 * whole {
        true => format!("{whole:.0}/255"),
        false => epsilon.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epsilon_is_named_truly() {
        let named = |steps: f32| of_255(steps / 255.0, Norm::Linf);
        for steps in 0..=255 {
            assert_eq!(named(steps as f32), format!("{steps}/255"));
        }
        assert_eq!(of_255(0.055, Norm::Linf), "0.055");
        assert_eq!(of_255(1e-6, Norm::Linf), "0.000001");
        assert_eq!(
            (of_255(2.0, Norm::L2), of_255(8.0 / 255.0, Norm::L2)),
            ("2".into(), "0.03137255".into())
        );
    }
}
