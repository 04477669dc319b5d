//! What a file of an operator says, and who reads it.

use crate::svg::*;
use atrous::cases::Size;
use atrous::ops;

pub fn operator() -> String {
    let cases = ops::cases();
    let of =
        |size: Size| cases.iter().filter(|case| case.op == "leaky_relu" && case.size == size).count();
    let mut svg = Svg::new(760.0, 400.0, "What the file of an operator says, and who reads it");
    svg.text([20.0, 26.0], "src/ops/leaky_relu.rs");
    let says = [
        ("value: y from x", BLUE),
        ("slope: ∂y/∂x from what is saved", BLUE),
        ("SAVES: Input", BLUE),
        ("CODE: 15", BLUE),
        ("leaky_relu(x, slope)", GREEN),
        ("cases()", ORANGE),
    ];
    let left = |i: usize| 40.0 + 58.0 * i as f64;
    for (i, (words, fill)) in says.into_iter().enumerate() {
        svg.rect([20.0, left(i)], [230.0, 34.0], fill, GREY);
        svg.text([30.0, left(i) + 22.0], words);
    }
    let readers = [
        ("the reference: a loop, f32 and f64", "naive, never optimised", &[0, 1][..]),
        ("the fast kernel: pieces on all threads,", "compiled for every instruction set", &[0, 1]),
        ("the node on the tape:", "keeps x, gives g · slope", &[1, 2]),
        ("a line of kernels/unary.cu", "finds it by its number", &[3]),
        ("callers, and Tensor::leaky_relu", "errors before any work", &[4]),
        ("agreement, gradients, devices:", "the same loop for all operators", &[5]),
        ("the benchmark", "atrous bench ops leaky_relu", &[5]),
    ];
    for (i, (words, more, from)) in readers.into_iter().enumerate() {
        let y = 40.0 + 49.0 * i as f64;
        svg.rect([430.0, y], [310.0, 40.0], FAINT, GREY);
        svg.text([440.0, y + 17.0], words);
        svg.note([440.0, y + 33.0], more);
        for part in from {
            svg.arrow([252.0, left(*part) + 17.0], [426.0, y + 20.0], GREY);
        }
    }
    svg.note([262.0, left(5) + 34.0], &format!("{} small ones for tests,", of(Size::Tiny)));
    svg.note([262.0, left(5) + 48.0], &format!("{} as large as networks have", of(Size::Real)));
    svg.finish()
}
