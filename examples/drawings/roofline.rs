//! The ladders' rungs under the limits of the machine that they were measured on.

use crate::svg::*;
use atrous::ladder;
use atrous::prelude::*;
use std::fs;

/// What `atrous bench … --ladder --threads 1` printed.
const MEASURED: &str = "benches/results/2026-11-29-ladder.md";

/// Operations a byte from the lowest to the highest, and GFLOP/s.
const RANGE: [[f64; 2]; 2] = [[0.5, 1024.0], [0.25, 1024.0]];

/// Where a point is on the drawing, both axes logarithmic.
fn place(intensity: f64, gflops: f64) -> [f64; 2] {
    let along = |value: f64, [low, high]: [f64; 2]| (value / low).ln() / (high / low).ln();
    [70.0 + 480.0 * along(intensity, RANGE[0]), 350.0 - 310.0 * along(gflops, RANGE[1])]
}

/// The number that stands before a unit.
fn before(line: &str, unit: &str) -> Option<f64> {
    line.split(unit).next()?.split_whitespace().last()?.parse().ok()
}

pub fn roofline() -> Result<String> {
    let measured = fs::read_to_string(MEASURED).map_err(|error| Error::file(MEASURED, error))?;
    let limits = measured.lines().find(|line| line.contains("triad")).unwrap_or_default();
    let (fma, triad) =
        (before(limits, " GFLOP/s").unwrap_or(1.0), before(limits, " GB/s").unwrap_or(1.0));
    let mut svg = Svg::new(760.0, 410.0, "The ladders' rungs under the roofline of one core");
    for (i, power) in (0..=9).step_by(3).enumerate() {
        let at = place(2f64.powi(power), RANGE[1][0]);
        svg.line(at, [at[0], 40.0], FAINT);
        svg.centred([at[0], at[1] + 14.0], 12.0, &format!("{}", 8usize.pow(i as u32)));
    }
    for power in 0..=4 {
        let at = place(RANGE[0][0], 4f64.powi(power));
        svg.line(at, [550.0, at[1]], FAINT);
        svg.centred([46.0, at[1]], 12.0, &format!("{}", 4usize.pow(power as u32)));
    }
    svg.centred([310.0, 388.0], 13.0, "operations for each byte that must move");
    svg.text([14.0, 26.0], "GFLOP/s");
    svg.line(place(0.5, 0.5 * triad), place(fma / triad, fma), INK);
    svg.line(place(fma / triad, fma), place(1024.0, fma), INK);
    svg.text([84.0, place(1.0, fma)[1] + 20.0], &format!("triad: {triad} GB/s"));
    svg.text([215.0, place(1.0, fma)[1] - 8.0], &format!("multiply-adds: {fma}"));
    let kinds = [("depthwise_conv2d", "#2f8f3a"), ("conv2d", "#c2571a"), ("gemm", "#2b6cb0")];
    for (i, (operator, colour)) in kinds.into_iter().enumerate() {
        svg.circle([580.0, 70.0 + 24.0 * i as f64], 5.0, colour);
        svg.text([592.0, 74.0 + 24.0 * i as f64], operator);
        for work in ladder::real(operator, Device::Cpu)? {
            let intensity = work.flops / work.least_bytes();
            let rungs = measured.lines().skip_while(|line| *line != format!("{operator} {}", work.name));
            for line in rungs.skip(2).take_while(|line| !line.is_empty() && !line.starts_with("```")) {
                if let Some(Ok(gflops)) = line.split_whitespace().nth(4).map(str::parse) {
                    svg.circle(place(intensity, gflops), 4.0, colour);
                }
            }
        }
    }
    svg.text([572.0, 160.0], "a column of dots is a work,");
    svg.text([572.0, 178.0], "a dot a rung of its ladder");
    Ok(svg.finish())
}
