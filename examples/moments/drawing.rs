//! Curves as SVG, in two panels one above the other.

use std::fmt::Write;
use std::{fs, io};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 84.0;
const SPACE: f64 = 40.0;

/// A curve: values at 1, 2, 3, …
pub struct Line {
    name: &'static str,
    colour: &'static str,
    values: Vec<f64>,
}

impl Line {
    pub fn new(name: &'static str, colour: &'static str, values: impl Iterator<Item = f64>) -> Self {
        Line { name, colour, values: values.collect() }
    }
}

/// Writes two panels that share the axis of steps.
pub fn draw(path: &str, axis: &str, panels: [&[Line]; 2]) -> io::Result<()> {
    let all = 2.0 * (HEIGHT + SPACE) + SPACE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {all}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (i, lines) in panels.into_iter().enumerate() {
        panel(&mut svg, SPACE + i as f64 * (HEIGHT + SPACE), lines);
    }
    let steps = panels[0].first().map_or(0, |line| line.values.len());
    let base = all - SPACE / 2.0;
    label(&mut svg, [LEFT, base], "start", "#555", axis);
    for step in (20..=steps).step_by(20) {
        let x = LEFT + (step - 1) as f64 * width_of(steps);
        let anchor = if step == steps { "end" } else { "middle" };
        label(&mut svg, [x, base], anchor, "#555", &step.to_string());
    }
    svg += "</svg>\n";
    fs::write(path, svg)
}

fn panel(svg: &mut String, top: f64, lines: &[Line]) {
    let values = || lines.iter().flat_map(|line| &line.values).copied();
    let (low, high) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
    let y = |value: f64| top + HEIGHT * (high - value) / (high - low).max(1e-30);
    for value in ticks(low, high) {
        let at = y(value);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - 10.0);
        label(svg, [LEFT - 8.0, at + 4.0], "end", "#555", &number(value));
    }
    let mut name_at = LEFT;
    for line in lines {
        let step = width_of(line.values.len());
        let points = line.values.iter().enumerate();
        let points: Vec<String> =
            points.map(|(i, &value)| format!("{:.1},{:.1}", LEFT + i as f64 * step, y(value))).collect();
        let (points, colour) = (points.join(" "), line.colour);
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>"
        );
        label(svg, [name_at, top - 10.0], "start", colour, line.name);
        name_at += 150.0;
    }
}

/// From one value to the next along the axis.
fn width_of(values: usize) -> f64 {
    (WIDTH - 10.0 - LEFT) / (values.max(2) - 1) as f64
}

/// Round numbers within a range, three to six of them: multiples of 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low).max(1e-30) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [5.0, 2.0, 1.0].map(|times| times * power).into_iter().find(|step| *step <= rough);
    let step = step.unwrap_or(power);
    ((low / step).ceil() as i64..=(high / step).floor() as i64).map(|i| i as f64 * step).collect()
}

fn label(svg: &mut String, [x, y]: [f64; 2], anchor: &str, colour: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
    );
}

fn number(value: f64) -> String {
    if value == 0.0 || value.abs() >= 0.1 { format!("{value:.1}") } else { format!("{value:.0e}") }
}
