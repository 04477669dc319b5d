//! A warp's reads, and the rungs that they make possible.

use crate::svg::*;
use atrous::prelude::*;
use std::fs;

/// Lanes of a warp, numbers of a line of 128 bytes, and banks of shared memory: all 32.
const LANES: usize = 32;

/// Which lines of memory the lanes of a warp ask for, if lane i reads number `stride`·i.
fn lines(svg: &mut Svg, top: f64, title: &str, stride: usize) {
    let touched: Vec<usize> = (0..LANES).map(|lane| lane * stride).collect();
    let mut all: Vec<usize> = touched.iter().map(|place| place / LANES).collect();
    all.dedup();
    let shown = all.len().min(5);
    svg.text([20.0, top], title);
    svg.grid([20.0, top + 12.0], 11.0, [shown, LANES], |line, column| {
        let read = touched.contains(&(all[line] * LANES + column));
        (if read { ORANGE } else { FAINT }, PAPER, String::new())
    });
    if shown < all.len() {
        svg.centred([196.0, top + 20.0 + 11.0 * shown as f64], 14.0, "⋮");
    }
    let bytes = all.len() * 128;
    let words = match all.len() {
        1 => "1 line".to_owned(),
        many => format!("{many} lines"),
    };
    svg.text([392.0, top + 22.0], &format!("{words}: {bytes} bytes come for 128 that are used"));
}

/// How many lanes ask each bank of shared memory, if a fragment's lines are `stride` numbers long.
fn banks(svg: &mut Svg, top: f64, title: &str, stride: usize) {
    let mut asked = [0usize; LANES];
    for lane in 0..LANES {
        asked[((lane / 4) * stride + lane % 4) % LANES] += 1;
    }
    svg.text([20.0, top], title);
    svg.grid([20.0, top + 12.0], 22.0, [1, LANES], |_, bank| {
        let fill = if asked[bank] > 1 {
            RED
        } else if asked[bank] == 1 {
            GREEN
        } else {
            FAINT
        };
        (fill, GREY, format!("{}", asked[bank]))
    });
}

/// Neighbouring lanes, neighbouring numbers; and the banks that a padding spreads them over.
pub fn warp() -> String {
    let mut svg =
        Svg::new(760.0, 360.0, "The lines of memory and the banks that the lanes of a warp ask for");
    lines(&mut svg, 28.0, "32 lanes read 32 channels of one pixel (a line is 32 numbers):", 1);
    lines(&mut svg, 84.0, "32 lanes read one channel of 32 pixels that have 32 channels:", LANES);
    let words =
        "32 banks of shared memory: lane i reads row i/4, number i mod 4. How many ask each bank?";
    svg.text([20.0, 202.0], words);
    banks(
        &mut svg,
        232.0,
        "rows of 16 numbers: eight banks, four lanes one after the other at each",
        16,
    );
    banks(&mut svg, 294.0, "rows of 16 and 4 of padding: every lane has a bank of its own", 20);
    svg.finish()
}

/// What the card did, 2026-11-26.
const MEASURED: &str = "benches/results/2026-11-26-gpu.md";

/// TFLOP/s of the rungs below a heading of the table "Ladders": the rung's name, and its best number.
fn rungs(table: &str, first: &str) -> Vec<(String, f64)> {
    let all = table.lines().skip_while(|line| !line.starts_with(first));
    let rungs = all.enumerate().take_while(|(i, line)| {
        *i == 0 || line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit)
    });
    let read = rungs.filter_map(|(_, line)| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let name = cells.get(1)?.split(": ").last()?.trim_start_matches(|c: char| c.is_ascii_digit());
        let numbers = cells.get(3)?.split(" / ").filter_map(|number| number.parse().ok());
        let name = name.split(", tile of").next()?.trim().replace("mma.sync, ", "");
        Some((name, numbers.fold(0.0, f64::max)))
    });
    read.collect()
}

/// The GPU's ladders under the limits of its data sheet.
pub fn ladder() -> Result<String> {
    let measured = fs::read_to_string(MEASURED).map_err(|error| Error::file(MEASURED, error))?;
    let along = |tflops: f64| 240.0 + 480.0 * (tflops / 2.0).ln() / 512f64.ln();
    let mut svg = Svg::new(760.0, 416.0, "Rungs of the GPU's ladders, in TFLOP/s");
    for tflops in [2.0, 8.0, 32.0, 128.0, 512.0] {
        svg.line([along(tflops), 40.0], [along(tflops), 366.0], FAINT);
        svg.centred([along(tflops), 382.0], 12.0, &format!("{tflops}"));
    }
    svg.centred([480.0, 402.0], 13.0, "TFLOP/s, on a logarithmic axis");
    let limits = [(67.0, 28.0, "f32: 67"), (495.0, 28.0, "tf32: 495"), (989.0, 14.0, "bf16: 989")];
    for (limit, y, name) in limits {
        svg.line([along(limit), y + 8.0], [along(limit), 366.0], STRONG_ORANGE);
        svg.centred([along(limit) - 16.0, y], 11.0, name);
    }
    let works = [("a product of 4096³", "| gemm 4096"), ("3×3, 256 channels, 28×28", "| conv2d 3×3")];
    let mut y = 50.0;
    for (title, first) in works {
        svg.text([20.0, y + 8.0], title);
        y += 18.0;
        for (name, tflops) in rungs(&measured, first) {
            svg.note([20.0, y + 13.0], &name);
            svg.rect([along(2.0), y], [along(tflops) - along(2.0), 18.0], BLUE, GREY);
            svg.note([along(tflops) + 5.0, y + 13.0], &format!("{tflops}"));
            y += 22.0;
        }
        y += 8.0;
    }
    Ok(svg.finish())
}
