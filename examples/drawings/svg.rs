//! As much of SVG as the drawings need.

use std::fmt::Write;

pub const INK: &str = "#1f2933";
pub const PAPER: &str = "#ffffff";
pub const FAINT: &str = "#eceff3";
pub const GREY: &str = "#9aa5b1";
pub const BLUE: &str = "#cfe0f5";
pub const ORANGE: &str = "#fddcb5";
pub const GREEN: &str = "#cdebc9";
pub const RED: &str = "#f7c9c7";

/// Strong colours, for lines and dots.
pub const STRONG_BLUE: &str = "#2b6cb0";
pub const STRONG_ORANGE: &str = "#c2571a";
pub const STRONG_GREEN: &str = "#2f8f3a";

/// To a tenth, without zeros at the end.
fn short(x: f64) -> f64 {
    (10.0 * x).round() / 10.0
}

fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

/// The colour of a number, in sixteen steps: white at 0, ink at 1, and blue at -1.
fn tint(value: f64) -> String {
    let end = if value < 0.0 { [43.0, 108.0, 176.0] } else { [31.0, 41.0, 51.0] };
    let part = (16.0 * value.abs().min(1.0)).round() / 16.0;
    let [r, g, b] = end.map(|channel| (255.0 + (channel - 255.0) * part).round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// A drawing under way, on white paper: dark pages show it as well as light ones.
pub struct Svg {
    size: [f64; 2],
    body: String,
}

impl Svg {
    /// `title` is what those hear who do not see it.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        let mut svg = Svg { size: [width, height], body: format!("<title>{title}</title>\n") };
        svg.rect([0.0, 0.0], [width, height], PAPER, "none");
        svg
    }

    pub fn rect(&mut self, [x, y]: [f64; 2], [w, h]: [f64; 2], fill: &str, stroke: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{}" y="{}" width="{}" height="{}" fill="{fill}" stroke="{stroke}"/>"#,
            short(x),
            short(y),
            short(w),
            short(h)
        );
    }

    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], stroke: &str) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{stroke}" stroke-width="1.5"/>"#
        );
    }

    /// A line with a head at its end.
    pub fn arrow(&mut self, from: [f64; 2], to: [f64; 2], stroke: &str) {
        self.line(from, to, stroke);
        let angle = (to[1] - from[1]).atan2(to[0] - from[0]);
        for turn in [2.6, -2.6] {
            let (sin, cos) = (angle + turn).sin_cos();
            self.line(to, [to[0] + 8.0 * cos, to[1] + 8.0 * sin], stroke);
        }
    }

    pub fn circle(&mut self, [x, y]: [f64; 2], r: f64, fill: &str) {
        let _ = writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{r:.1}" fill="{fill}"/>"#);
    }

    fn words(&mut self, [x, y]: [f64; 2], size: f64, anchor: &str, words: &str) {
        let _ = writeln!(
            self.body,
            r#"<text x="{}" y="{}" font-size="{}" text-anchor="{anchor}">{}</text>"#,
            short(x),
            short(y),
            short(size),
            escaped(words)
        );
    }

    /// Beginning at a point, on its line.
    pub fn text(&mut self, at: [f64; 2], words: &str) {
        self.words(at, 13.0, "start", words);
    }

    /// Beginning at a point, small.
    pub fn note(&mut self, at: [f64; 2], words: &str) {
        self.words(at, 11.0, "start", words);
    }

    /// About a point, in both directions.
    pub fn centred(&mut self, [x, y]: [f64; 2], size: f64, words: &str) {
        self.words([x, y + 0.35 * size], size, "middle", words);
    }

    /// A table of cells: what `cell(row, column)` says is its colour, its frame and its words.
    pub fn grid<'a>(
        &mut self,
        at: [f64; 2],
        side: f64,
        [rows, columns]: [usize; 2],
        cell: impl Fn(usize, usize) -> (&'a str, &'a str, String),
    ) {
        let corner = |i: usize| [(i % columns) as f64, (i / columns) as f64].map(|steps| steps * side);
        let cells: Vec<_> = (0..rows * columns).map(|i| cell(i / columns, i % columns)).collect();
        let tints = cells.iter().map(|(fill, stroke, _)| [*fill, *stroke]);
        self.cells(tints.enumerate().map(|(i, tint)| (tint, add(at, corner(i)))), side);
        let _ = writeln!(self.body, r#"<g font-size="{}" text-anchor="middle">"#, short(0.42 * side));
        for (i, (.., words)) in cells.iter().enumerate().filter(|(_, (.., words))| !words.is_empty()) {
            let [x, y] = add(add(at, corner(i)), [side / 2.0, 0.647 * side]).map(short);
            let _ = writeln!(self.body, r#"<text x="{x}" y="{y}">{}</text>"#, escaped(words));
        }
        let _ = writeln!(self.body, "</g>");
    }

    /// An image of numbers: white at 0, ink at 1, blue at -1.
    pub fn heat(&mut self, at: [f64; 2], side: f64, columns: usize, values: &[f64]) {
        let tints: Vec<String> = values.iter().map(|value| tint(*value)).collect();
        let corner = |i: usize| [(i % columns) as f64, (i / columns) as f64].map(|steps| steps * side);
        let cells =
            tints.iter().enumerate().map(|(i, fill)| ([fill.as_str(), FAINT], add(at, corner(i))));
        self.cells(cells, side);
    }

    /// Squares, those of one colour and frame as one shape: a file of half the size.
    fn cells<'a>(&mut self, cells: impl Iterator<Item = ([&'a str; 2], [f64; 2])>, side: f64) {
        let mut shapes: Vec<([&str; 2], String)> = Vec::new();
        for (tint, at) in cells {
            let known = shapes.iter().position(|(other, _)| *other == tint);
            let shape = known.unwrap_or_else(|| {
                shapes.push((tint, String::new()));
                shapes.len() - 1
            });
            let ([x, y], side) = (at.map(short), short(side));
            let _ = write!(shapes[shape].1, "M{x} {y}h{side}v{side}h-{side}z");
        }
        for ([fill, stroke], shape) in shapes {
            let _ = writeln!(self.body, r#"<path fill="{fill}" stroke="{stroke}" d="{shape}"/>"#);
        }
    }

    /// A curve through points.
    pub fn curve(&mut self, points: impl Iterator<Item = [f64; 2]>, stroke: &str) {
        let points: Vec<String> =
            points.map(|at| format!("{},{}", short(at[0]), short(at[1]))).collect();
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" fill="none" stroke="{stroke}" stroke-width="1.8"/>"#,
            points.join(" ")
        );
    }

    pub fn finish(self) -> String {
        let [w, h] = self.size;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             font-family=\"system-ui, sans-serif\" fill=\"{INK}\">\n{}</svg>\n",
            self.body
        )
    }
}
