//! A block of threads as the emulator runs it: chapter 18's kernel with its barrier and without.

use crate::svg::*;
use atrous::random::Stream;

const THREADS: usize = 8;

/// What a thread does: it writes x into shared memory, and reads what the thread opposite wrote.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    Write,
    Read,
}

/// Who works when, and what comes out; None where nobody had written yet.
fn run(order: &[usize], barrier: bool) -> (Vec<(usize, Work)>, [Option<usize>; THREADS]) {
    let work: Vec<(usize, Work)> = match barrier {
        true => {
            [Work::Write, Work::Read].iter().flat_map(|work| order.iter().map(|t| (*t, *work))).collect()
        }
        false => order.iter().flat_map(|t| [(*t, Work::Write), (*t, Work::Read)]).collect(),
    };
    let (mut tile, mut y) = ([None; THREADS], [None; THREADS]);
    for (thread, work) in &work {
        match work {
            Work::Write => tile[*thread] = Some(*thread),
            Work::Read => y[*thread] = tile[THREADS - 1 - thread],
        }
    }
    (work, y)
}

/// The steps of all threads over time.
fn timeline(svg: &mut Svg, left: f64, title: &str, barrier: bool) {
    let order: Vec<usize> = (0..THREADS).collect();
    let (work, y) = run(&order, barrier);
    let column = |step: usize| {
        left + 52.0 + 17.0 * step as f64 + if barrier && step >= THREADS { 10.0 } else { 0.0 }
    };
    svg.text([left, 28.0], title);
    for (thread, result) in y.iter().enumerate() {
        let at = 44.0 + 20.0 * thread as f64;
        svg.note([left, at + 12.0], &format!("thread {thread}"));
        svg.line([column(0), at + 8.0], [column(2 * THREADS - 1) + 16.0, at + 8.0], FAINT);
        let words = result.map_or("NaN".to_owned(), |value| format!("{value}"));
        svg.note([column(2 * THREADS) + 4.0, at + 12.0], &words);
    }
    for (step, (thread, work)) in work.iter().enumerate() {
        let missing = *work == Work::Read && y[*thread].is_none();
        let fill = if missing {
            RED
        } else if *work == Work::Write {
            BLUE
        } else {
            GREEN
        };
        svg.rect([column(step), 44.0 + 20.0 * *thread as f64], [16.0, 16.0], fill, GREY);
    }
    if barrier {
        let x = column(THREADS) - 6.0;
        svg.line([x, 40.0], [x, 206.0], STRONG_ORANGE);
        svg.centred([x, 216.0], 11.0, "barrier");
    }
    svg.note([column(2 * THREADS) + 4.0, 38.0], "y");
}

/// Forward with the barrier and without, and what three orders make of the kernel without.
pub fn fibers() -> String {
    let mut svg = Svg::new(760.0, 360.0, "Eight threads and a barrier, one fiber at a time");
    timeline(&mut svg, 20.0, "with its barrier: a fiber stops in the middle and goes on", true);
    timeline(&mut svg, 410.0, "without: each runs to its end", false);
    let marks = [
        (BLUE, "writes x into shared memory"),
        (GREEN, "reads what the thread opposite wrote"),
        (RED, "reads before it is written"),
    ];
    for (i, (fill, words)) in marks.into_iter().enumerate() {
        let x = 20.0 + [0.0, 230.0, 506.0][i];
        svg.rect([x, 228.0], [14.0, 14.0], fill, GREY);
        svg.text([x + 20.0, 240.0], words);
    }
    svg.text([20.0, 272.0], "y without the barrier, in three orders:");
    let forward: Vec<usize> = (0..THREADS).collect();
    let reverse = forward.iter().rev().copied().collect();
    let random = Stream::new(2, &[]).permutation(THREADS);
    for (i, (name, order)) in
        [("forward", forward), ("reverse", reverse), ("random", random)].into_iter().enumerate()
    {
        let (_, y) = run(&order, false);
        let at = 284.0 + 24.0 * i as f64;
        svg.text([20.0, at + 15.0], name);
        for (thread, value) in y.iter().enumerate() {
            let cell = [90.0 + 44.0 * thread as f64, at];
            svg.rect(cell, [44.0, 22.0], if value.is_some() { GREEN } else { RED }, PAPER);
            let words = value.map_or("NaN".to_owned(), |value| format!("{value}"));
            svg.centred([cell[0] + 22.0, at + 11.0], 12.0, &words);
        }
    }
    svg.text([470.0, 299.0], "With it every order gives");
    let right: Vec<String> = run(&(0..THREADS).rev().collect::<Vec<_>>(), true)
        .1
        .iter()
        .map(|value| value.map_or("NaN".to_owned(), |v| format!("{v}")))
        .collect();
    svg.text([470.0, 319.0], &right.join("  "));
    svg.finish()
}
