//! How errors of long sums grow, and what a machine that moves does to a comparison.

use crate::svg::*;
use atrous::prelude::*;
use std::fs;

/// Root mean square of f32 sums' errors, relative to the sums': 64 dot products of n terms, added in pieces.
fn error(n: usize, piece: usize) -> f64 {
    let [mut off, mut size] = [0.0f64; 2];
    for trial in 0..64 {
        let [a, b] = [0, 1].map(|which| Tensor::randn([n], 2 * trial + which).to_vec_f64());
        let exact: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        let terms: Vec<f32> = a.iter().zip(&b).map(|(a, b)| *a as f32 * *b as f32).collect();
        // `sum` adds one after the other.
        let sum: f32 = terms.chunks(piece).map(|piece| piece.iter().sum::<f32>()).sum();
        off += (f64::from(sum) - exact).powi(2);
        size += exact.powi(2);
    }
    (off / size).sqrt()
}

pub fn rounding() -> String {
    let lengths: Vec<usize> = (4..=16).map(|power| 1 << power).collect();
    let place =
        |n: f64, error: f64| [80.0 + 40.0 * (n / 16.0).log2(), 300.0 - 80.0 * (error / 1e-8).log10()];
    let mut svg = Svg::new(760.0, 350.0, "Errors of f32 sums over the number of terms");
    for (i, error) in [1e-8, 1e-7, 1e-6, 1e-5].into_iter().enumerate() {
        svg.line(place(16.0, error), place(65536.0, error), FAINT);
        svg.centred([46.0, place(16.0, error)[1]], 12.0, ["1e-8", "1e-7", "1e-6", "1e-5"][i]);
    }
    for n in lengths.iter().step_by(2) {
        svg.centred([place(*n as f64, 1e-8)[0], 316.0], 12.0, &format!("{n}"));
    }
    svg.centred([320.0, 338.0], 13.0, "terms in the sum");
    svg.text([20.0, 30.0], "rms error, relative to the sums");
    let ways = [
        (usize::MAX, STRONG_ORANGE, "one after the other"),
        (256, STRONG_BLUE, "in pieces of 256"),
        (16, STRONG_GREEN, "in pieces of 16"),
    ];
    for (piece, colour, name) in ways {
        let errors: Vec<f64> = lengths.iter().map(|n| error(*n, piece.min(*n))).collect();
        svg.curve(lengths.iter().zip(&errors).map(|(n, error)| place(*n as f64, *error)), colour);
        for (n, error) in lengths.iter().zip(&errors) {
            svg.circle(place(*n as f64, *error), 3.0, colour);
        }
        let end = place(65536.0, errors[errors.len() - 1]);
        svg.text([end[0] + 12.0, end[1] + 4.0], name);
    }
    let unit = 2f64.powi(-24);
    svg.line(place(16.0, unit), place(65536.0, unit), GREY);
    svg.note([place(65536.0, unit)[0] + 12.0, place(1.0, unit)[1] + 4.0], "2⁻²⁴: one rounding, at most");
    svg.finish()
}

/// The four lines of section 19.3.
const MEASURED: &str = "docs/19-measuring-honestly.md";

/// One program under two names, A and B: all runs of A and then all of B, or in turn.
pub fn in_turn() -> Result<String> {
    let page = fs::read_to_string(MEASURED).map_err(|error| Error::file(MEASURED, error))?;
    let speeds: Vec<f64> = page
        .lines()
        .filter_map(|line| line.strip_prefix("multiply-adds ")?.split(' ').next()?.parse().ok())
        .collect();
    let mut svg = Svg::new(760.0, 330.0, "One program measured as A and as B, on a machine that moves");
    svg.text([20.0, 28.0], "the machine, GFLOP/s");
    for (i, speed) in speeds.iter().enumerate() {
        let x = 220.0 + 120.0 * i as f64;
        svg.rect([x, 90.0 - speed / 8.0], [60.0, speed / 8.0], FAINT, GREY);
        svg.centred([x + 30.0, 80.0 - speed / 8.0], 12.0, &format!("{speed}"));
    }
    // What takes a second at the first speed.
    let time = |moment: usize| speeds[0] / speeds[moment];
    let dot = |svg: &mut Svg, x: f64, y: f64, name: &str, moment: usize| {
        let fill = if name == "A" { BLUE } else { ORANGE };
        let height = 14.0 * time(moment);
        svg.rect([x, y - height], [26.0, height], fill, GREY);
        svg.centred([x + 13.0, y - height - 9.0], 12.0, &format!("{:.1}", time(moment)));
        svg.centred([x + 13.0, y + 10.0], 12.0, name);
    };
    let mean = |moments: &[usize]| moments.iter().map(|m| time(*m)).sum::<f64>() / moments.len() as f64;
    svg.text([20.0, 150.0], "A, then B: seconds");
    svg.text([20.0, 250.0], "in turn: seconds");
    for moment in 0..speeds.len() {
        let x = 220.0 + 120.0 * moment as f64;
        let name = if moment < 2 { "A" } else { "B" };
        dot(&mut svg, x, 180.0, name, moment);
        dot(&mut svg, x + 32.0, 180.0, name, moment);
        dot(&mut svg, x, 290.0, "A", moment);
        dot(&mut svg, x + 32.0, 290.0, "B", moment);
    }
    svg.note([20.0, 168.0], &format!("B / A = {:.1}", mean(&[2, 3]) / mean(&[0, 1])));
    svg.note([20.0, 268.0], "B / A = 1.0 in each pair");
    let words =
        "A and B are the same program: what takes 1 s at the first speed takes so long at the others.";
    svg.text([20.0, 322.0], words);
    Ok(svg.finish())
}
