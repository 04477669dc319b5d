//! Whether a classifier's probabilities are shares: of everything it says with .3, is about a third true?
//! Reads what `atrous predict` leaves and the truth of images that were made up.
//!
//!     cargo run --release --example calibration -- out/probabilities.csv out/shapes/test/truth.csv

use std::collections::HashMap;
use std::error::Error;

/// A prediction of one class of one image: its probability, and whether it is true.
type Prediction = (f64, bool);

/// A file of an Id and twenty numbers a row.
fn table(path: &str) -> Result<HashMap<String, Vec<f64>>, Box<dyn Error>> {
    let mut rows = HashMap::new();
    for record in csv::Reader::from_path(path)?.records() {
        let record = record?;
        let mut cells = record.iter();
        let id = cells.next().unwrap_or_default().to_owned();
        rows.insert(id, cells.map(str::parse).collect::<Result<_, _>>()?);
    }
    Ok(rows)
}

/// Mean probability, share that is true, and how many there are, of those between two probabilities.
fn bin(all: &[Prediction], low: f64, high: f64) -> Option<(f64, f64, usize)> {
    let inside: Vec<_> = all.iter().filter(|(p, _)| (low..high).contains(p)).collect();
    let n = inside.len() as f64;
    let mean = inside.iter().map(|(p, _)| p).sum::<f64>() / n;
    let share = inside.iter().filter(|(_, is_true)| *is_true).count() as f64 / n;
    (!inside.is_empty()).then_some((mean, share, inside.len()))
}

/// The mean binary cross-entropy with all logits divided by a temperature.
fn loss(all: &[Prediction], temperature: f64) -> f64 {
    let of = |&(p, is_true): &Prediction| {
        let logit = (p / (1.0 - p)).ln() / temperature;
        let p = 1.0 / (1.0 + (-logit).exp());
        -if is_true { p } else { 1.0 - p }.ln()
    };
    all.iter().map(of).sum::<f64>() / all.len() as f64
}

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [probabilities, truth] = &paths[..] else {
        return Err("expected two files: probabilities.csv and truth.csv".into());
    };
    let (probabilities, truth) = (table(probabilities)?, table(truth)?);
    let mut all: Vec<Prediction> = Vec::new();
    for (id, row) in &probabilities {
        let labels = truth.get(id).ok_or_else(|| format!("there is no truth of image `{id}`"))?;
        all.extend(row.iter().zip(labels).map(|(&p, &label)| (p.clamp(1e-7, 1.0 - 1e-7), label > 0.0)));
    }
    let edges = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];
    println!("said          mean    true   of");
    let mut error = 0.0;
    for pair in edges.windows(2) {
        let Some((mean, share, n)) = bin(&all, pair[0], pair[1]) else { continue };
        println!("{:.2} to {:.2}  {mean:.3}   {share:.3}  {n:4}", pair[0], pair[1]);
        error += n as f64 * (mean - share).abs() / all.len() as f64;
    }
    println!("expected calibration error {error:.4}");
    let temperatures = (5..=60).map(|tenths| tenths as f64 / 10.0);
    let best = temperatures.min_by(|a, b| loss(&all, *a).total_cmp(&loss(&all, *b))).unwrap_or(1.0);
    println!("loss {:.4}, with temperature {best:.1} {:.4}", loss(&all, 1.0), loss(&all, best));
    Ok(())
}
