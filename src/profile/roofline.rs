//! A profile as a drawing: the roofline, and where below it each step is.
//!
//! Both axes are logarithmic. A dot is a pass of a step: as far right as its arithmetic intensity, as high as
//! the FLOP/s it reached, as large as its share of the time. The slope is memory's limit and the level the
//! arithmetic's: the distance of a dot from them is what is left to win. A step without arithmetic
//! (concatenation, padding) has no place here.

use super::table::{cut, sides};
use super::{PassProfile, Profile, ProfiledStep};
use std::fmt::Write;

/// The axes' box: left, top, width, height.
const BOX: [f64; 4] = [70.0, 64.0, 760.0, 600.0];
/// Where the names of steps stand, and how wide a column of them is.
const KEY: [f64; 2] = [856.0, 250.0];
/// Of a line of the key.
const LINE: f64 = 13.0;

/// Follows the reader's dark or light scheme.
const STYLE: &str = "\
text{font:11px system-ui,sans-serif;fill:#222}.title{font-size:16px;font-weight:600}.small{font-size:10px}\
.number{font-size:9px;text-anchor:middle}.end{text-anchor:end}.middle{text-anchor:middle}\
.paper{fill:#fff}.grid{stroke:#ddd;stroke-width:1}.fine{stroke:#f1f1f1;stroke-width:1}\
.limit{stroke:#b3261e;stroke-width:2;fill:none}.limit-text{fill:#b3261e}.leader{stroke:#999;stroke-width:.7}\
.forward{fill:#1f6fb2;fill-opacity:.65;stroke:#0d4f86}.backward{fill:none;stroke:#c7700a;stroke-width:1.6}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.paper{fill:#16181c}.grid{stroke:#3a3d44}\
.fine{stroke:#24272c}.limit{stroke:#ff8a80}.limit-text{fill:#ff8a80}.forward{fill:#64b5f6;stroke:#90caf9}\
.backward{stroke:#ffb74d}}";

/// A logarithmic axis whose ends are 1, 2 or 5 times a power of ten.
struct Axis {
    ends: [f64; 2],
    /// Pixels at its ends.
    pixels: [f64; 2],
}

impl Axis {
    /// All of the values on it, which are positive, with some room around them.
    fn over(values: impl Iterator<Item = f64> + Clone, pixels: [f64; 2]) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min) / 1.3;
        let high = values.fold(0.0, f64::max) * 1.3;
        let decade = |value: f64| 10f64.powi(value.log10().floor() as i32);
        let below = [5.0, 2.0, 1.0].map(|n| n * decade(low)).into_iter().find(|&n| n <= low);
        let above = [1.0, 2.0, 5.0, 10.0].map(|n| n * decade(high)).into_iter().find(|&n| n >= high);
        Axis { ends: [below.unwrap_or(low), above.unwrap_or(high)], pixels }
    }

    fn at(&self, value: f64) -> f64 {
        let [low, high] = self.ends.map(f64::log10);
        let share = (value.log10() - low) / (high - low);
        self.pixels[0] + share * (self.pixels[1] - self.pixels[0])
    }

    /// Values of grid lines, and whether each is written: powers of ten, and of a short axis 2 and 5 times
    /// them.
    fn lines(&self) -> impl Iterator<Item = (f64, bool)> {
        let [low, high] = self.ends;
        let short = high / low < 1e3;
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let all =
            decades.flat_map(move |decade| (1..10).map(move |n| (n, n as f64 * 10f64.powi(decade))));
        let within = all.filter(move |(_, value)| (low / 1.001..=high * 1.001).contains(value));
        within.map(move |(n, value)| (value, n == 1 || (short && (n == 2 || n == 5))))
    }
}

/// A pass of a step with a place in the drawing.
struct Dot<'a> {
    step: &'a ProfiledStep,
    pass: PassProfile,
    backward: bool,
    center: [f64; 2],
    radius: f64,
}

/// The drawing, as an SVG of its own: no fonts, no scripts.
pub(super) fn svg(profile: &Profile) -> String {
    let passes: Vec<(&ProfiledStep, PassProfile, bool)> = profile
        .steps
        .iter()
        .flat_map(|step| {
            let backward = step.backward.map(|pass| (step, pass, true));
            [Some((step, step.forward, false)), backward].into_iter().flatten()
        })
        .filter(|(_, pass, _)| pass.flops > 0 && pass.bytes > 0 && pass.time.median_ms > 0.0)
        .collect();
    let limits = &profile.limits;
    let [left, top, width, height] = BOX;
    let intensities = passes.iter().filter_map(|(_, pass, _)| pass.intensity);
    let x = Axis::over(intensities.chain([limits.ridge()]), [left, left + width]);
    let rates = passes.iter().map(|(_, pass, _)| pass.gflops());
    let y = Axis::over(rates.chain([limits.gflops]), [top + height, top]);
    let longest = passes.iter().map(|(_, pass, _)| pass.time.median_ms).fold(0.0, f64::max);
    let mut dots: Vec<Dot> = passes
        .into_iter()
        .map(|(step, pass, backward)| Dot {
            step,
            pass,
            backward,
            center: [x.at(pass.intensity.unwrap_or(1.0)), y.at(pass.gflops())],
            radius: 2.0 + 9.0 * (pass.time.median_ms / longest).sqrt(),
        })
        .collect();
    // Small ones lie on large ones.
    dots.sort_by(|a, b| b.radius.total_cmp(&a.radius));
    let (key, size) = key(profile);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" role=\"img\">\
         <title>Roofline of {}</title><style>{STYLE}</style>\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>",
        size[0],
        size[1],
        escaped(&profile.model)
    );
    out += &heading(profile);
    out += &grid(&x, &y);
    out += &roof(profile, &x, &y);
    dots.iter().for_each(|dot| out += &dot.svg());
    out += &numbers(&dots);
    out + &key + "</svg>\n"
}

fn heading(profile: &Profile) -> String {
    let backward = match profile.loss {
        Some(_) => "; filled: forward, ring: backward",
        None => "",
    };
    let line = format!(
        "{} of {} on {} ({}), {} steps; a dot's area: its share of the time{backward}",
        profile.purpose,
        sides(&profile.input),
        profile.device,
        profile.precision,
        profile.steps.len()
    );
    text("title", [BOX[0], 26.0], &profile.model) + &text("", [BOX[0], 46.0], &line)
}

fn grid(x: &Axis, y: &Axis) -> String {
    let [left, top, width, height] = BOX;
    let (right, bottom) = (left + width, top + height);
    let mut out = String::new();
    for (value, whole) in x.lines() {
        let (class, at) = (if whole { "grid" } else { "fine" }, x.at(value));
        out += &line(class, [at, top, at, bottom]);
        if whole {
            out += &text("middle", [at, bottom + 16.0], &number(value));
        }
    }
    for (value, whole) in y.lines() {
        let (class, at) = (if whole { "grid" } else { "fine" }, y.at(value));
        out += &line(class, [left, at, right, at]);
        if whole {
            out += &text("end", [left - 6.0, at + 4.0], &number(value));
        }
    }
    out += &text("middle", [left + width / 2.0, bottom + 36.0], "arithmetic intensity, FLOP/byte");
    let [a, b] = [16.0, top + height / 2.0];
    let _ = write!(
        out,
        "<text class=\"middle\" transform=\"translate({a} {b}) rotate(-90)\">GFLOP/s</text>"
    );
    out
}

/// The two limits, up to where they meet.
fn roof(profile: &Profile, x: &Axis, y: &Axis) -> String {
    let limits = &profile.limits;
    let ([first, last], [low, _]) = (x.ends, y.ends);
    // The slope begins where it enters the box.
    let begin = first.max(low / limits.gbps);
    let (ridge, level) = (x.at(limits.ridge()), y.at(limits.gflops));
    let [bx, by] = [x.at(begin), y.at(begin * limits.gbps)];
    let mut out = format!(
        "<path class=\"limit\" d=\"M{bx:.1} {by:.1}L{ridge:.1} {level:.1}H{:.1}\"/>",
        x.at(last)
    );
    let arithmetic = format!("arithmetic: {:.1} GFLOP/s", limits.gflops);
    out += &text("limit-text end", [x.at(last) - 4.0, level - 6.0], &arithmetic);
    let angle = (level - by).atan2(ridge - bx).to_degrees();
    // Near its upper end, where few steps are.
    let [mx, my] = [bx + 0.8 * (ridge - bx), by + 0.8 * (level - by)];
    let _ = write!(
        out,
        "<text class=\"limit-text middle\" transform=\"translate({mx:.1} {my:.1}) rotate({angle:.1})\" \
         dy=\"-6\">memory: {:.1} GB/s</text>",
        limits.gbps
    );
    out
}

impl Dot<'_> {
    fn svg(&self) -> String {
        let [cx, cy] = self.center;
        let (class, pass) = match self.backward {
            true => ("backward", "backward"),
            false => ("forward", "forward"),
        };
        let title = format!(
            "{}. {}, {pass}: {:.3} ms, {:.1} GFLOP/s, {:.1} FLOP/byte, {:.0} % of the roofline",
            self.step.number,
            self.step.layers.join(" + "),
            self.pass.time.median_ms,
            self.pass.gflops(),
            self.pass.intensity.unwrap_or(0.0),
            self.pass.roofline_percent.unwrap_or(0.0)
        );
        format!(
            "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"{:.1}\"><title>{}</title></circle>",
            self.radius,
            escaped(&title)
        )
    }
}

/// The dots' numbers, each where no other and no dot is, as near as can be; a line leads to one that is far
/// off. A step's ring has one of its own where it takes a hundredth of the time.
fn numbers(dots: &[Dot]) -> String {
    let mut out = String::new();
    let all: f64 = dots.iter().map(|dot| dot.pass.time.median_ms).sum();
    let numbered = |dot: &&Dot| !dot.backward || dot.pass.time.median_ms > 0.01 * all;
    let mut taken: Vec<[f64; 4]> = dots.iter().map(|dot| around(dot.center, [dot.radius; 2])).collect();
    for dot in dots.iter().filter(numbered) {
        let label = dot.step.number.to_string();
        let half = [3.0 * label.len() as f64, 5.0];
        let free = |place: &[f64; 2]| {
            let own = around(*place, half);
            inside(own) && taken.iter().all(|other| !overlap(own, *other))
        };
        // (Where there is no room at all, the number stands on its dot.)
        let [px, py] = places(dot).find(free).unwrap_or(dot.center);
        taken.push(around([px, py], half));
        let [cx, cy] = dot.center;
        if (px - cx).hypot(py - cy) > dot.radius + 12.0 {
            out += &line("leader", [cx, cy, px, py]);
        }
        out += &text("number", [px, py + 3.0], &label);
    }
    out
}

/// Where a dot's number may stand: on wider and wider rings around it.
fn places(dot: &Dot) -> impl Iterator<Item = [f64; 2]> {
    let ([cx, cy], radius) = (dot.center, dot.radius);
    (0..14).flat_map(move |ring| {
        let distance = radius + 7.0 + 8.0 * ring as f64;
        (0..12 + 4 * ring).map(move |i| {
            let angle = -1.0 + i as f64 * std::f64::consts::TAU / (12 + 4 * ring) as f64;
            [cx + distance * angle.cos(), cy + distance * angle.sin()]
        })
    })
}

/// A box from its middle and half its sides.
fn around([x, y]: [f64; 2], [w, h]: [f64; 2]) -> [f64; 4] {
    [x - w, y - h, x + w, y + h]
}

fn inside([x0, y0, x1, y1]: [f64; 4]) -> bool {
    let [left, top, width, height] = BOX;
    x0 > left && y0 > top && x1 < left + width && y1 < top + height
}

fn overlap(a: [f64; 4], b: [f64; 4]) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// What the numbers stand for, in as many columns as it takes, and the drawing's size with them.
fn key(profile: &Profile) -> (String, [f64; 2]) {
    let [left, width] = KEY;
    let bottom = BOX[1] + BOX[3] + 50.0;
    let rows = ((bottom - BOX[1]) / LINE) as usize;
    let mut out = text("small", [left, BOX[1] - 6.0], "step: time forward, % of the roofline");
    for (i, step) in profile.steps.iter().enumerate() {
        let (column, row) = (i / rows, i % rows);
        let at = [left + width * column as f64, BOX[1] + 10.0 + LINE * row as f64];
        let percent = step.forward.roofline_percent.map_or(String::new(), |p| format!(", {p:.0} %"));
        let ms = step.forward.time.median_ms;
        let words = format!("{}. {}: {ms:.2} ms{percent}", step.number, cut(&step.label(), 24));
        out += &text("small", at, &words);
    }
    let columns = profile.steps.len().div_ceil(rows).max(1);
    (out, [left + width * columns as f64, bottom + 10.0])
}

fn text(class: &str, [x, y]: [f64; 2], words: &str) -> String {
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(words))
}

fn line(class: &str, [x1, y1, x2, y2]: [f64; 4]) -> String {
    format!("<path class=\"{class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>")
}

/// 0.01, 1, 1000
fn number(value: f64) -> String {
    let digits = (-value.log10()).ceil().max(0.0) as usize;
    format!("{value:.digits$}")
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_round_numbers_and_is_even_in_logarithms() {
        let axis = Axis::over([0.3, 45.0].into_iter(), [0.0, 300.0]);
        assert_eq!(axis.ends, [0.2, 100.0]);
        assert!((axis.at(0.2), axis.at(100.0)) == (0.0, 300.0));
        assert!((axis.at(2.0) - axis.at(0.2) - (axis.at(20.0) - axis.at(2.0))).abs() < 1e-9);
        let written: Vec<f64> = axis.lines().filter(|(_, written)| *written).map(|(n, _)| n).collect();
        assert_eq!(written.len(), 9, "{written:?}"); // 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100
        let long = Axis::over([1e-3, 1e3].into_iter(), [0.0, 1.0]);
        assert!(long.lines().filter(|(_, written)| *written).count() <= 7);
    }

    #[test]
    fn numbers_of_an_axis_have_the_digits_they_need_and_names_are_escaped() {
        assert_eq!([0.01, 0.1, 1.0, 1000.0].map(number), ["0.01", "0.1", "1", "1000"]);
        assert_eq!(escaped("a<b & \"c\""), "a&lt;b &amp; &quot;c&quot;");
    }
}
