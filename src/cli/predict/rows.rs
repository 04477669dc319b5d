//! What is said of an image: a line for people, JSON, CSV.

use crate::cli::output;
use crate::cli::version::VERSION;
use atrous::data::{Classes, Mask};
use atrous::error::printable;
use atrous::predict::Prediction;
use atrous::{Error, Result};
use serde::Serialize;
use std::io::{self, Write};

/// Columns of a line for people.
const WIDTH: usize = 80;
/// At most so many of them for the name.
const NAME: usize = 30;

/// One class, and how sure a network is of it.
#[derive(Debug, Serialize)]
pub struct Said<'a> {
    class: &'a str,
    /// Whether it is said to be in the image; with `--top` others are told, too.
    predicted: bool,
    /// None without a classifier.
    probability: Option<f32>,
    /// Its share of the mask, 0 to 1; None without a network that segments.
    pixels: Option<f64>,
}

/// The files that were written for an image.
#[derive(Debug, Default, Serialize)]
pub struct Written {
    pub mask: Option<String>,
    pub overlay: Option<String>,
    pub cutout: Option<String>,
}

/// An image's row, as docs/schemas/predict_images.json has it.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    id: &'a str,
    height: usize,
    width: usize,
    /// From the one that is surest.
    classes: Vec<Said<'a>>,
    #[serde(flatten)]
    pub files: Written,
}

impl<'a> Row<'a> {
    /// What is predicted, and what has a place in the mask; with `top` so many of the likeliest instead.
    pub fn new(
        prediction: &'a Prediction,
        [height, width]: [usize; 2],
        classes: &'a Classes,
        top: Option<usize>,
    ) -> Self {
        let shares = prediction.mask.as_ref().map(|mask| shares(mask, classes.len()));
        let said = |class: usize| Said {
            class: &classes[class],
            predicted: prediction.labels[class],
            probability: prediction.probabilities.get(class).copied(),
            pixels: shares.as_ref().map(|shares| shares[class]),
        };
        let mut all: Vec<Said> = (0..classes.len()).map(said).collect();
        let sure = |said: &Said| said.probability.map_or(said.pixels.unwrap_or(0.0), f64::from);
        all.sort_by(|a, b| sure(b).total_cmp(&sure(a)));
        match top {
            Some(top) => all.truncate(top),
            None => all.retain(|said| said.predicted || said.pixels.is_some_and(|share| share > 0.0)),
        }
        Row { id: &prediction.id, height, width, classes: all, files: Written::default() }
    }

    /// A line of at most 80 columns: the name, cut at its beginning where it is long, and classes as far as
    /// there is room.
    fn line(&self, name_width: usize) -> String {
        let name: Vec<char> = printable(self.id).chars().collect();
        let name: String = match name.len() <= name_width {
            true => name.iter().collect(),
            false => std::iter::once(&'…').chain(&name[name.len() + 1 - name_width..]).collect(),
        };
        let room = WIDTH - name_width - 2;
        let (mut text, mut length) = (String::new(), 0);
        let items: Vec<String> = self.classes.iter().map(Said::text).collect();
        for (i, item) in items.iter().enumerate() {
            let (between, more) = (if i > 0 { ", " } else { "" }, i + 1 < items.len());
            let after = length + between.len() + item.chars().count();
            if i > 0 && after + if more { 3 } else { 0 } > room {
                text += ", …";
                break;
            }
            text = text + between + item;
            length = after;
        }
        if items.is_empty() {
            text = "nothing but background".into();
        }
        format!("{name:<name_width$}  {text}")
    }

    /// Rows of a table: one a class; one without a class where there is none.
    pub fn write_csv(&self, table: &mut csv::Writer<impl Write>) -> io::Result<()> {
        let number = |value: Option<String>| value.unwrap_or_default();
        for said in &self.classes {
            let probability = number(said.probability.map(|p| p.to_string()));
            let pixels = number(said.pixels.map(|share| share.to_string()));
            let predicted = u8::from(said.predicted).to_string();
            table.write_record([self.id, said.class, &predicted, &probability, &pixels])?;
        }
        if self.classes.is_empty() {
            table.write_record([self.id, "", "", "", ""])?;
        }
        table.flush()
    }
}

/// The columns of [`Row::write_csv`].
pub const COLUMNS: [&str; 5] = ["image", "class", "predicted", "probability", "pixels"];

impl Said<'_> {
    fn text(&self) -> String {
        let share = self.pixels.filter(|_| self.predicted || self.pixels > Some(0.0)).map(percent);
        let class = short(self.class);
        match (self.probability, share) {
            (Some(p), Some(share)) => format!("{class} {p:.2} ({share})"),
            (Some(p), None) => format!("{class} {p:.2}"),
            (None, share) => format!("{class} {}", share.unwrap_or_else(|| percent(0.0))),
        }
    }
}

fn percent(share: f64) -> String {
    match share {
        s if s > 0.0 && s < 0.005 => "<1 %".into(),
        s => format!("{:.0} %", 100.0 * s),
    }
}

/// The first of several names (ImageNet's are synonyms), and no more of it than fits a line.
fn short(name: &str) -> String {
    let most = WIDTH - NAME - 20;
    let name = name.split(", ").next().unwrap_or(name);
    match name.chars().count() > most {
        true => name.chars().take(most - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

/// The share of a mask's pixels that each class has.
fn shares(mask: &Mask, classes: usize) -> Vec<f64> {
    let mut counts = [0_usize; 256];
    mask.classes.iter().for_each(|&value| counts[usize::from(value)] += 1);
    let share = |class: usize| counts[class] as f64 / mask.classes.len() as f64;
    (1..=classes).map(share).collect()
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
    Csv,
}

/// An image that was not predicted.
#[derive(Debug, Serialize)]
pub struct Failed {
    pub id: String,
    pub error: String,
}

/// Prints rows as they come.
pub enum Printer {
    Text { name_width: usize },
    Json { out: Box<dyn Write>, rows: usize },
    Csv(Box<csv::Writer<Box<dyn Write>>>),
}

impl Printer {
    /// For images of these names. Where rows are for a program, all else is told on standard error.
    pub fn new(format: Format, names: impl Iterator<Item = String>) -> Result<Self> {
        Ok(match format {
            Format::Text => {
                let longest = names.map(|name| printable(&name).chars().count()).max().unwrap_or(0);
                Printer::Text { name_width: longest.min(NAME) }
            }
            Format::Json => {
                let mut out: Box<dyn Write> = Box::new(output::for_rows());
                printed(write!(out, "{{\"version\": \"{VERSION}\", \"images\": ["))?;
                Printer::Json { out, rows: 0 }
            }
            Format::Csv => {
                let out: Box<dyn Write> = Box::new(output::for_rows());
                let mut table = csv::Writer::from_writer(out);
                printed(table.write_record(COLUMNS).map_err(io::Error::from))?;
                Printer::Csv(Box::new(table))
            }
        })
    }

    pub fn row(&mut self, row: &Row) -> Result<()> {
        printed(match self {
            Printer::Text { name_width } => {
                result!("{}", row.line(*name_width));
                Ok(())
            }
            Printer::Json { out, rows } => {
                let between = if *rows > 0 { ",\n" } else { "\n" };
                *rows += 1;
                let text = serde_json::to_string(row).map_err(io::Error::from);
                text.and_then(|text| write!(out, "{between}{text}").and_then(|()| out.flush()))
            }
            Printer::Csv(table) => row.write_csv(table),
        })
    }

    /// After the last row.
    pub fn finish(self, failed: &[Failed]) -> Result<()> {
        let Printer::Json { mut out, .. } = self else { return Ok(()) };
        let text = serde_json::to_string(failed).map_err(io::Error::from);
        printed(
            text.and_then(|text| writeln!(out, "\n], \"failed\": {text}}}").and_then(|()| out.flush())),
        )
    }
}

/// Whoever reads the rows may have seen enough: that is no error.
fn printed(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if !output::unread() => Err(Error::file(output::STDOUT, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(id: &str, probabilities: &[f32], mask: Option<Mask>) -> Prediction {
        let labels = match &mask {
            Some(mask) if probabilities.is_empty() => mask.labels(3),
            _ => probabilities.iter().map(|&p| p > 0.5).collect(),
        };
        Prediction { id: id.into(), probabilities: probabilities.to_vec(), labels, mask }
    }

    fn classes() -> Classes {
        Classes::new(["cat", "Pembroke, Pembroke Welsh corgi", "hen"]).unwrap()
    }

    fn line(prediction: &Prediction, top: Option<usize>, width: usize) -> String {
        Row::new(prediction, [4, 5], &classes(), top).line(width)
    }

    #[test]
    fn a_line_has_the_surest_first_and_of_masks_their_shares() {
        let mask = Mask::new(1, 10, vec![0, 0, 0, 0, 0, 0, 0, 3, 3, 1]).unwrap();
        let both = prediction("a.jpg", &[0.9, 0.2, 0.95], Some(mask.clone()));
        assert_eq!(line(&both, None, 6), "a.jpg   hen 0.95 (20 %), cat 0.90 (10 %)");
        assert_eq!(line(&both, Some(1), 6), "a.jpg   hen 0.95 (20 %)");
        assert_eq!(line(&prediction("a", &[], Some(mask)), None, 1), "a  hen 20 %, cat 10 %");
        let none = Mask::new(1, 2, vec![0, 0]).unwrap();
        assert_eq!(line(&prediction("a", &[], Some(none)), None, 1), "a  nothing but background");
        let named = prediction("a", &[0.1, 0.7, 0.2], None);
        assert_eq!(line(&named, Some(2), 1), "a  Pembroke 0.70, hen 0.20");
    }

    #[test]
    fn no_line_is_wider_than_80_columns() {
        let name = "folder of holidays/another folder/Zürich am Mittwoch (7).JPG";
        let classes =
            Classes::new((0..40).map(|i| format!("{}{i}", "a long class's name ".repeat(3)))).unwrap();
        for count in [1, 2, 3, 40] {
            let probabilities: Vec<f32> = (0..40).map(|i| if i < count { 0.9 } else { 0.1 }).collect();
            let prediction = prediction(name, &probabilities, None);
            let row = Row::new(&prediction, [1, 1], &classes, None);
            let line = row.line(NAME);
            assert!(line.chars().count() <= WIDTH && line.starts_with("…"), "{line}");
            assert!(line.contains("Mittwoch (7).JPG  a long") && line.contains("0.9"), "{line}");
        }
    }

    #[test]
    fn a_table_has_a_row_a_class_and_one_for_an_image_without() {
        let mut table = csv::Writer::from_writer(Vec::new());
        let with = prediction("a, b.jpg", &[0.9, 0.2, 0.75], None);
        Row::new(&with, [1, 1], &classes(), None).write_csv(&mut table).unwrap();
        let empty = prediction("c.jpg", &[], Some(Mask::new(1, 1, vec![0]).unwrap()));
        Row::new(&empty, [1, 1], &classes(), None).write_csv(&mut table).unwrap();
        let text = String::from_utf8(table.into_inner().unwrap()).unwrap();
        assert_eq!(text, "\"a, b.jpg\",cat,1,0.9,\n\"a, b.jpg\",hen,1,0.75,\nc.jpg,,,,\n");
    }
}
