//! Whether a classifier's probabilities are shares: of everything it says with .3, is about a third true?
//! Reads what `atrous predict` leaves and the truth of images that were made up.
//!
//!     cargo run --release --example calibration -- out/probabilities.csv out/shapes/test/truth.csv [SVG]

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
    let [probabilities, truth, drawing @ ..] = &paths[..] else {
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
    let (mut error, mut points) = (0.0, Vec::new());
    for pair in edges.windows(2) {
        let Some((mean, share, n)) = bin(&all, pair[0], pair[1]) else { continue };
        println!("{:.2} to {:.2}  {mean:.3}   {share:.3}  {n:4}", pair[0], pair[1]);
        points.push((mean, share, n));
        error += n as f64 * (mean - share).abs() / all.len() as f64;
    }
    println!("expected calibration error {error:.4}");
    let temperatures = (5..=60).map(|tenths| tenths as f64 / 10.0);
    let best = temperatures.min_by(|a, b| loss(&all, *a).total_cmp(&loss(&all, *b))).unwrap_or(1.0);
    println!("loss {:.4}, with temperature {best:.1} {:.4}", loss(&all, 1.0), loss(&all, best));
    if let [path] = drawing {
        std::fs::write(path, reliability(&points))?;
    }
    Ok(())
}

/// A reliability diagram as SVG: what was said along the axis, what is true upwards; an area a number of
/// predictions, which stands beside it. On the diagonal they are the same.
fn reliability(points: &[(f64, f64, usize)]) -> String {
    let (side, edge) = (400.0, 50.0);
    let most = points.iter().fold(0.1, |most: f64, (said, share, _)| most.max(*said).max(*share));
    let end = (10.0 * most).floor() / 10.0 + 0.1;
    let at = |x: f64, y: f64| (edge + x / end * side, 20.0 + (1.0 - y / end) * side);
    let text = |(x, y): (f64, f64), anchor: &str, text: &str| {
        format!("<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\" fill=\"#444\">{text}</text>\n")
    };
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 480 480\" width=\"480\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"480\" height=\"480\" fill=\"#fff\"/>\n\
         <path d=\"M50 20V420H450M50 420L450 20\" fill=\"none\" stroke=\"#bbb\"/>\n",
    );
    for &(said, share, n) in points {
        let ((x, y), radius) = (at(said, share), (n as f64).sqrt() / 2.0 + 1.5);
        svg += &format!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" fill=\"#1f5fbf33\" stroke=\"#1f5fbf\"/>\n"
        );
        svg += &text((x, y - radius - 4.0), "middle", &n.to_string());
    }
    for tenth in (0..=9).take_while(|tenth| f64::from(*tenth) / 10.0 < end) {
        let tick = f64::from(tenth) / 10.0;
        let ((x, _), (_, y)) = (at(tick, 0.0), at(0.0, tick));
        svg += &text((x, 438.0), "middle", &tick.to_string());
        svg += &text((edge - 8.0, y + 4.0), "end", &tick.to_string());
    }
    svg += &text((250.0, 460.0), "middle", "said");
    svg += &text((60.0, 34.0), "start", "share that is true");
    svg + "</svg>\n"
}
