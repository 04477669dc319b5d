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

/// To a tenth, without zeros at the end.
fn short(x: f64) -> f64 {
    (10.0 * x).round() / 10.0
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
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            r#"<text x="{}" y="{}" font-size="{}" text-anchor="{anchor}">{words}</text>"#,
            short(x),
            short(y),
            short(size)
        );
    }

    /// Beginning at a point, on its line.
    pub fn text(&mut self, at: [f64; 2], words: &str) {
        self.words(at, 13.0, "start", words);
    }

    /// About a point, in both directions.
    pub fn centred(&mut self, [x, y]: [f64; 2], size: f64, words: &str) {
        self.words([x, y + 0.35 * size], size, "middle", words);
    }

    /// A table of cells: what `cell(row, column)` says is its colour, its frame and its words.
    pub fn grid<'a>(
        &mut self,
        [x, y]: [f64; 2],
        side: f64,
        [rows, columns]: [usize; 2],
        cell: impl Fn(usize, usize) -> (&'a str, &'a str, String),
    ) {
        for row in 0..rows {
            for column in 0..columns {
                let at = [x + column as f64 * side, y + row as f64 * side];
                let (fill, stroke, words) = cell(row, column);
                self.rect(at, [side, side], fill, stroke);
                self.centred([at[0] + side / 2.0, at[1] + side / 2.0], 0.42 * side, &words);
            }
        }
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
