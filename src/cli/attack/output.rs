//! What an experiment leaves: a table, pictures to look at, the perturbed pictures themselves.

use super::Attack as Options;
use super::defences;
use super::experiment::Contender;
use super::methods::Method;
use atrous::attack::trial::{Seen, robust_within};
use atrous::attack::{Norm, Summary, Trial};
use atrous::data::voc_npy::{self, Split};
use atrous::data::{CLASSES, Dataset, Labels};
use atrous::files::{explain, write_atomically};
use atrous::report::{self, Curve, GridRow, Panel};
use atrous::{Error, Result};
use serde_json::{Value, json};
use std::path::PathBuf;

pub struct Outcome {
    pub method: Method,
    /// None for an attack that has none.
    pub epsilon: Option<f32>,
    pub summary: Summary,
}

pub struct Report<'a> {
    pub options: &'a Options,
    pub victim: &'a Contender,
    /// One method and one ε: the pictures are kept.
    pub whole: bool,
    pub epsilons: Vec<f32>,
    pub turned: bool,
    pub outcomes: Vec<Outcome>,
    /// By method: (ε, share of pictures that resist, or mean IoU, or share of pixels that follow).
    pub curves: Vec<(Method, Vec<(f64, f64)>)>,
    /// By method, of a classifier: (ε, mean average precision).
    pub scores: Vec<(Method, Vec<(f64, f64)>)>,
    pub table: String,
    pub rows: Vec<GridRow>,
    pub legend: Vec<u8>,
    /// Of each network's pictures: what each network still gets right.
    pub transfer: Option<Vec<(String, Vec<f64>)>>,
    pub defences: Vec<defences::Row>,
    pub written: Vec<(String, Option<Labels>)>,
}

impl<'a> Report<'a> {
    pub fn new(
        options: &'a Options,
        victim: &'a Contender,
        methods: &[Method],
        epsilons: &[f32],
        turned: bool,
    ) -> Result<Self> {
        let whole = methods.len() == 1 && epsilons.len() == 1;
        let report = Report {
            options,
            victim,
            whole,
            epsilons: epsilons.to_vec(),
            turned,
            outcomes: Vec::new(),
            curves: Vec::new(),
            scores: Vec::new(),
            table: "method,epsilon,Id,truth,said,said_attacked,said_rounded,right,success,success_rounded,led,kept,\
                    linf,l2,psnr,ssim,seconds\n"
                .into(),
            rows: Vec::new(),
            legend: Vec::new(),
            transfer: None,
            defences: Vec::new(),
            written: Vec::new(),
        };
        if whole {
            let folder = report.perturbed();
            let pictures = folder.join("test/img");
            std::fs::create_dir_all(&pictures)
                .map_err(|error| Error::file(&pictures, explain(&error)))?;
        }
        println!("attacking {}, side {}", victim.name, victim.trained.plan.network.size);
        println!("{:<10} {}", "", report.heading());
        Ok(report)
    }

    fn perturbed(&self) -> PathBuf {
        self.options.out.join("perturbed")
    }

    /// Takes what is wanted of one picture.
    pub fn keep(
        &mut self,
        dataset: &dyn Dataset,
        method: Method,
        epsilon: f32,
        trial: &Trial,
    ) -> Result<()> {
        let id = dataset.id(trial.index);
        let labels = dataset.labels(trial.index);
        let said = |seen: &Seen| said(&self.classes(seen));
        let figure = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.5}"));
        let epsilon_cell =
            if method == Method::Deepfool { String::new() } else { format!("{epsilon:.6}") };
        self.table += &format!(
            "{},{epsilon_cell},{id},{},{},{},{},{},{},{},{:.5},{:.5},{:.6},{:.5},{},{:.5},{:.5}\n",
            method.name(),
            labels.map_or(String::new(), |labels| said_labels(&labels)),
            said(&trial.before),
            said(&trial.after),
            said(&trial.rounded),
            !trial.before.standing.reached as u8,
            trial.succeeded() as u8,
            (!trial.before.standing.reached && trial.rounded.standing.reached) as u8,
            trial.after.led,
            trial.after.kept,
            trial.visible.linf,
            trial.visible.l2,
            figure(trial.visible.psnr),
            trial.visible.ssim,
            trial.seconds,
        );
        if self.whole {
            let path = Split::Test.picture(&self.perturbed(), &id);
            voc_npy::write_picture(path, &trial.perturbed)?;
            self.written.push((id.clone(), labels));
            self.show_whole(id, labels, trial)
        } else {
            self.show_one_of_many(id, labels, method, epsilon, trial)
        }
    }

    fn heading(&self) -> String {
        match (self.victim.segments(), self.turned) {
            (false, _) => format!(
                "{:>9} {:>7} {:>7} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>6} {:>9}",
                "epsilon",
                "clean",
                "robust",
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
                "{:>9} {:>7} {:>7} {:>8} {:>8} {:>8} {:>7} {:>7} {:>6} {:>9}",
                "epsilon",
                "mIoU",
                "mIoU'",
                "rounded",
                if self.turned { "turned" } else { "wrong" },
                "kept",
                "mean L∞",
                "mean L2",
                "SSIM",
                "s/picture"
            ),
        }
    }

    /// One attack is over: its line, and its points of the curves.
    pub fn add(&mut self, outcome: Outcome, trials: &[Trial], own: Option<&[f32]>) {
        let s = &outcome.summary;
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let epsilon = outcome.epsilon.map_or("-".into(), |epsilon| of_255(epsilon, self.options.norm));
        let line = match self.victim.segments() {
            false => format!(
                "{:>9} {:>7.3} {:>7.3} {:>8.3} {:>8.3} {:>7} {:>7} {:>7} {:>7} {:>6} {:>9.3}",
                epsilon,
                s.clean,
                s.robust,
                s.robust_rounded,
                s.success,
                number(s.score_clean, 3),
                number(s.score, 3),
                number(s.median_linf, 4),
                number(s.median_l2, 3),
                number(s.mean_ssim, 3),
                s.seconds_per_picture
            ),
            true => format!(
                "{:>9} {:>7} {:>7} {:>8} {:>8.3} {:>8.3} {:>7} {:>7} {:>6} {:>9.3}",
                epsilon,
                number(s.score_clean, 3),
                number(s.score, 3),
                number(s.score_rounded, 3),
                s.led,
                s.kept,
                number(s.mean_linf, 4),
                number(s.mean_l2, 3),
                number(s.mean_ssim, 3),
                s.seconds_per_picture
            ),
        };
        println!("{:<10} {line}", outcome.method.name());
        let at = |epsilon: f32| match self.options.norm {
            Norm::Linf => epsilon as f64 * 255.0,
            Norm::L2 => epsilon as f64,
        };
        let points: Vec<(f64, f64)> = match own {
            Some(epsilons) => {
                epsilons.iter().map(|&e| (at(e), robust_within(trials, self.options.ball(e)))).collect()
            }
            None => {
                let value = match (self.victim.segments(), self.turned) {
                    (false, _) => Some(s.robust),
                    (true, true) => Some(s.led),
                    (true, false) => s.score,
                };
                value.map(|value| (at(outcome.epsilon.unwrap_or_default()), value)).into_iter().collect()
            }
        };
        if let (false, Some(epsilon), Some(score)) = (self.victim.segments(), outcome.epsilon, s.score) {
            extend(&mut self.scores, outcome.method, vec![(at(epsilon), score)]);
        }
        extend(&mut self.curves, outcome.method, points);
        self.outcomes.push(outcome);
    }

    /// Writes everything; what was made is printed.
    pub fn write(&mut self, dataset: &dyn Dataset) -> Result<()> {
        let out = &self.options.out;
        let table = out.join("attack.csv");
        write_atomically(&table, |file| file.write_all(self.table.as_bytes()))?;
        println!("every picture: {}", table.display());
        if self.whole {
            let folder = self.perturbed();
            // A test set's labels are not known to a network that predicts it.
            let rows = self.written.iter().map(|(id, _)| (id.as_str(), None));
            voc_npy::write_csv(Split::Test.csv(&folder), rows)?;
            let truth = self.written.iter().map(|(id, labels)| (id.as_str(), *labels));
            voc_npy::write_csv(atrous::data::synthetic::truth_csv(&folder), truth)?;
            println!(
                "perturbed pictures: {} ({} of {})",
                folder.display(),
                self.written.len(),
                dataset.len()
            );
        }
        let headings = self.headings();
        self.rows.retain(|row| row.cells.len() == headings.len());
        if !self.rows.is_empty() {
            let panel = out.join("panel.png");
            report::grid(&headings, &self.rows, &self.legend, &panel)?;
            println!("pictures: {}", panel.display());
        }
        if self.epsilons.len() > 1 && !self.curves.is_empty() {
            let title = match (self.victim.segments(), self.turned) {
                (false, _) => "Pictures that resist",
                (true, true) => "Pixels that follow the wish",
                (true, false) => "Mean IoU",
            };
            let curve = |(method, points): &(Method, Vec<(f64, f64)>)| Curve {
                name: method.name().into(),
                points: points.clone(),
            };
            let panel = |title: &str, curves: &[(Method, Vec<(f64, f64)>)]| Panel {
                title: title.into(),
                curves: curves.iter().map(curve).collect(),
                log: false,
            };
            let mut panels = vec![panel(title, &self.curves)];
            if !self.scores.is_empty() {
                panels.push(panel("Mean average precision", &self.scores));
            }
            let x = if self.options.norm == Norm::Linf { "ε · 255" } else { "ε (L2)" };
            for path in report::draw(&panels, x, out)? {
                println!("curves: {}", path.display());
            }
        }
        if let Some(rows) = &self.transfer {
            println!(
                "what each network (columns, in the rows' order) still gets right of pictures perturbed"
            );
            for (name, values) in rows {
                let cells: Vec<String> = values.iter().map(|v| format!("{v:>7.3}")).collect();
                println!("  {name:<48} {}", cells.join(" "));
            }
        }
        let path = out.join("summary.json");
        let text =
            serde_json::to_string_pretty(&self.json()).map_err(|error| Error::file(&path, error))?;
        write_atomically(&path, |file| writeln!(file, "{text}"))?;
        println!("summary: {}", path.display());
        Ok(())
    }

    fn json(&self) -> Value {
        let outcome = |outcome: &Outcome| {
            let mut fields = json!({ "method": outcome.method.name(), "epsilon": outcome.epsilon });
            let summary = serde_json::to_value(&outcome.summary).unwrap_or_default();
            if let (Some(fields), Value::Object(summary)) = (fields.as_object_mut(), summary) {
                fields.extend(summary);
            }
            fields
        };
        let curve = |(method, points): &(Method, Vec<(f64, f64)>)| json!({ "method": method.name(), "points": points });
        let transfer = self.transfer.as_ref().map(|rows| {
            rows.iter()
                .map(|(name, values)| json!({ "pictures": name, "right": values }))
                .collect::<Vec<_>>()
        });
        json!({
            "victim": self.victim.name,
            "side": self.victim.trained.plan.network.size,
            "norm": self.options.norm.to_string(),
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

fn extend(curves: &mut Vec<(Method, Vec<(f64, f64)>)>, method: Method, points: Vec<(f64, f64)>) {
    match curves.iter_mut().find(|(known, _)| *known == method) {
        Some((_, known)) => known.extend(points),
        None => curves.push((method, points)),
    }
}

fn said(classes: &[(usize, Option<f32>)]) -> String {
    let one = |&(class, sure): &(usize, Option<f32>)| match sure {
        Some(sure) => format!("{} {sure:.3}", CLASSES[class]),
        None => CLASSES[class].to_owned(),
    };
    classes.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn said_labels(labels: &Labels) -> String {
    let set = (0..CLASSES.len()).filter(|&class| labels[class]);
    set.map(|class| CLASSES[class]).collect::<Vec<_>>().join("; ")
}

/// `8/255`, where it is a whole number of them; else digits.
pub fn of_255(epsilon: f32, norm: Norm) -> String {
    let steps = epsilon * 255.0;
    match norm == Norm::Linf && (steps - steps.round()).abs() < 1e-3 {
        true => format!("{:.0}/255", steps),
        false => format!("{epsilon:.4}"),
    }
}
