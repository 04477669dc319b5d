//! Losses and scores: a mistake's gradient, and average precision.

use crate::svg::*;
use atrous::eval::metrics::{Interpolation, average_precision};
use atrous::prelude::*;

/// The gradient by a logit whose label is 1, of the cross-entropy and of the squared error.
pub fn mistakes() -> Result<String> {
    let logits: Vec<f64> = (-32..=32).map(|quarter| f64::from(quarter) / 4.0).collect();
    let z = Tensor::from_slice(&logits, [logits.len()])?.leaf();
    let one = z.ones_like()?;
    let gradient = |loss: Tensor| -> Result<Vec<f64>> {
        let gradients = loss.backward()?;
        Ok(gradients.get(&z).map_or_else(Vec::new, Tensor::to_vec_f64))
    };
    // A loss of many labels is the mean of theirs: one label's gradient is `n` times as large.
    let n = logits.len() as f64;
    let rows = z.reshape([logits.len(), 1])?;
    let entropy =
        gradient((n * rows.binary_cross_entropy_with_logits(&one.reshape([logits.len(), 1])?)?)?)?;
    let squared = gradient((&z.sigmoid()? - &one)?.square()?.sum()?)?;
    let mut svg = Svg::new(700.0, 300.0, "The gradient by the logit of a class that is there");
    let place = |z: f64, gradient: f64| [360.0 + 36.0 * z, 40.0 - 200.0 * gradient];
    for gradient in [0.0, -0.5, -1.0] {
        svg.line(place(-8.0, gradient), place(8.0, gradient), FAINT);
        svg.centred([46.0, place(0.0, gradient)[1]], 12.0, &format!("{gradient}").replace('-', "−"));
    }
    for z in [-8, -4, 0, 4, 8] {
        let words = format!("{z}").replace('-', "−");
        svg.centred([place(f64::from(z), 0.0)[0], 256.0], 12.0, &words);
    }
    svg.text([20.0, 24.0], "∂L/∂z");
    svg.centred(
        [360.0, 280.0],
        13.0,
        "logit z of a class that is there: left the network is sure that it is not",
    );
    let curves = [
        (entropy, STRONG_BLUE, "cross-entropy: p − 1", [96.0, 222.0]),
        (squared, STRONG_ORANGE, "squared error: 2·(p − 1)·p·(1 − p)", [446.0, 108.0]),
    ];
    for (values, colour, name, at) in curves {
        svg.curve(logits.iter().zip(&values).map(|(z, gradient)| place(*z, *gradient)), colour);
        svg.text(at, name);
    }
    Ok(svg.finish())
}

/// Two rankings of ten images with three dogs: the precision at each, and the mean.
pub fn ranking() -> Result<String> {
    let mut svg = Svg::new(700.0, 250.0, "Average precision of two rankings");
    svg.text(
        [20.0, 26.0],
        "ten images, the likeliest first; orange are the dogs, below them the precision",
    );
    for (i, dogs) in [[0usize, 1, 4], [2, 5, 9]].into_iter().enumerate() {
        let y = 44.0 + 100.0 * i as f64;
        let is_dog = |place: usize| dogs.contains(&place);
        svg.grid([20.0, y], 44.0, [1, 10], |_, place| {
            (if is_dog(place) { ORANGE } else { FAINT }, PAPER, format!("{}", place + 1))
        });
        let precision = |(found, place): (usize, usize)| format!("{}/{}", found + 1, place + 1);
        for (found, place) in dogs.into_iter().enumerate() {
            svg.centred([42.0 + 44.0 * place as f64, y + 58.0], 12.0, &precision((found, place)));
        }
        let sum = dogs.into_iter().enumerate().map(precision).collect::<Vec<_>>().join(" + ");
        let truth: Vec<f32> = (0..10).map(|place| f32::from(u8::from(is_dog(place)))).collect();
        let scores: Vec<f32> = (0..10).map(|place| 1.0 - 0.1 * place as f32).collect();
        let area = average_precision(&truth, &scores, Interpolation::Area)?.unwrap_or(0.0);
        svg.text([480.0, y + 18.0], "average precision");
        svg.text([480.0, y + 38.0], &format!("({sum}) / 3 = {area:.2}"));
    }
    Ok(svg.finish())
}
