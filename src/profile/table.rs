//! A profile as a terminal shows it.

use super::{LossTimes, PassProfile, Profile, ProfiledStep, Time, Whole};
use crate::nn::Purpose;
use std::fmt::{Display, Formatter, Result};

/// A column: its title and width; text is set left, numbers right.
struct Column(&'static str, usize, bool);

const TEXT: bool = true;
const NUMBER: bool = false;

const STEP: [Column; 6] = [
    Column("step", 4, NUMBER),
    Column("layers", 34, TEXT),
    Column("output", 13, TEXT),
    Column("MFLOP", 9, NUMBER),
    Column("MB", 8, NUMBER),
    Column("FLOP/B", 7, NUMBER),
];
const FORWARD: [Column; 3] =
    [Column("ms fwd", 9, NUMBER), Column("±%", 5, NUMBER), Column("% roof", 7, NUMBER)];
const BACKWARD: [Column; 3] =
    [Column("ms bwd", 9, NUMBER), Column("±%", 5, NUMBER), Column("% roof", 7, NUMBER)];
const LAST: [Column; 2] = [Column("pool MB", 8, NUMBER), Column("algorithm", 0, TEXT)];

/// Rows of cells under their columns.
struct Layout {
    columns: Vec<Column>,
    training: bool,
}

impl Layout {
    fn new(training: bool) -> Self {
        let backward = BACKWARD.into_iter().filter(|_| training);
        Layout {
            columns: STEP.into_iter().chain(FORWARD).chain(backward).chain(LAST).collect(),
            training,
        }
    }

    fn head(&self) -> String {
        self.row(&self.columns.iter().map(|column| column.0.to_string()).collect::<Vec<_>>())
    }

    fn row(&self, cells: &[String]) -> String {
        let mut row = String::new();
        for (Column(_, width, is_text), cell) in self.columns.iter().zip(cells) {
            let cell = match *is_text {
                TEXT => format!("{cell:<width$}  "),
                NUMBER => format!("{cell:>width$}  "),
            };
            row += &cell;
        }
        row.trim_end().to_string()
    }

    /// Cells before the times, the cells of both directions, cells after them.
    fn join(
        &self,
        first: Vec<String>,
        forward: [String; 3],
        backward: [String; 3],
        last: [String; 2],
    ) -> String {
        let backward = backward.into_iter().filter(|_| self.training);
        self.row(&first.into_iter().chain(forward).chain(backward).chain(last).collect::<Vec<_>>())
    }

    fn step(&self, step: &ProfiledStep) -> String {
        let PassProfile { flops, bytes, intensity, .. } = step.forward;
        let first = vec![
            step.number.to_string(),
            cut(&step.label(), STEP[1].1),
            sides(&step.output_shape),
            decimals(flops as f64 / 1e6, 1),
            decimals(bytes as f64 / 1e6, 2),
            intensity.map_or_else(String::new, |i| decimals(i, 1)),
        ];
        let backward = step.backward.as_ref().map_or_else(Default::default, pass);
        let memory = step.pool_bytes.unwrap_or(step.live_bytes);
        let last = [decimals(memory as f64 / 1e6, 1), step.algorithm()];
        self.join(first, pass(&step.forward), backward, last)
    }

    fn loss(&self, loss: &LossTimes) -> String {
        let mut first = vec![String::new(); STEP.len()];
        first[1] = "loss (cross entropy)".into();
        let bare = |time: Time| [decimals(time.median_ms, 3), spread(time), String::new()];
        self.join(first, bare(loss.forward), bare(loss.backward), Default::default())
    }

    /// The totals of all columns that add up.
    fn sum(&self, profile: &Profile) -> String {
        let sum = |number: &dyn Fn(&ProfiledStep) -> f64| profile.steps.iter().map(number).sum::<f64>();
        let loss = profile.loss.map_or([0.0; 2], |l| [l.forward.median_ms, l.backward.median_ms]);
        let mut first = vec![String::new(); STEP.len()];
        first[1] = "sum".into();
        first[3] = decimals(sum(&|step| step.forward.flops as f64) / 1e6, 1);
        first[4] = decimals(sum(&|step| step.forward.bytes as f64) / 1e6, 2);
        let forward = sum(&|step| step.forward.time.median_ms) + loss[0];
        let backward = sum(&|step| step.backward.map_or(0.0, |b| b.time.median_ms)) + loss[1];
        let bare = |ms: f64| [decimals(ms, 3), String::new(), String::new()];
        self.join(first, bare(forward), bare(backward), Default::default())
    }
}

fn pass(pass: &PassProfile) -> [String; 3] {
    let percent = pass.roofline_percent.map_or_else(String::new, |p| decimals(p, 0));
    [decimals(pass.time.median_ms, 3), spread(pass.time), percent]
}

fn spread(time: Time) -> String {
    decimals(time.spread_percent() / 2.0, 0)
}

fn decimals(value: f64, digits: usize) -> String {
    format!("{value:.digits$}")
}

pub(super) fn sides(axes: &[usize]) -> String {
    axes.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

/// At most so many characters, the last of which says that some are missing.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.to_string(),
    }
}

impl ProfiledStep {
    /// The layer whose operator it is by its type, or the first one, and how many more it computes.
    pub fn label(&self) -> String {
        match &self.layers[..] {
            [] => self.operator.clone(),
            [only] => only.clone(),
            [first, rest @ ..] => format!("{first} +{}", rest.len()),
        }
    }

    /// How it is computed: one algorithm, or those of y, ∂x and ∂w where they differ.
    fn algorithm(&self) -> String {
        let mut names: Vec<&str> = self.algorithms.iter().map(|a| a.algorithm.as_str()).collect();
        if names.windows(2).all(|pair| pair[0] == pair[1]) {
            names.truncate(1);
        }
        names.join(" / ")
    }
}

impl Display for Profile {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let training = self.purpose == Purpose::Training;
        let limits = &self.limits;
        writeln!(
            f,
            "{}: {} of {} on {} ({}), {} layers in {} steps; medians of {} passes",
            self.model,
            self.purpose,
            sides(&self.input),
            self.device,
            self.precision,
            self.layers,
            self.steps.len(),
            self.repeats
        )?;
        writeln!(
            f,
            "limits: {:.1} GFLOP/s, {:.1} GB/s ({}; {} threads): arithmetic binds from {:.1} FLOP/B on\n",
            limits.gflops,
            limits.gbps,
            limits.measured_by,
            limits.threads,
            limits.ridge()
        )?;
        let layout = Layout::new(training);
        writeln!(f, "{}", layout.head())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{}", layout.step(step)))?;
        self.loss.iter().try_for_each(|loss| writeln!(f, "{}", layout.loss(loss)))?;
        writeln!(f, "{}\n", layout.sum(self))?;
        write!(f, "{}", check("forward", &self.forward))?;
        let both = self.forward_backward.iter();
        both.map(|both| check("forward and backward", both))
            .try_for_each(|line| write!(f, "\n{line}"))?;
        match self.pool_peak_bytes {
            Some(peak) => write!(f, "\npool: {:.1} MB at most", peak as f64 / 1e6),
            None => Ok(()),
        }
    }
}

fn check(what: &str, whole: &Whole) -> String {
    let [steps, all] = [whole.steps, whole.time].map(|time| time.median_ms);
    format!(
        "{what}: the steps of a pass take {steps:.3} ms, the whole {all:.3} ms: {:.1} % (sum of the steps' \
         medians: {:.3} ms)",
        100.0 * whole.ratio(),
        whole.medians_ms
    )
}
