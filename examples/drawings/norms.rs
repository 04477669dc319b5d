//! Batch norm's two ways.

use crate::svg::*;
use atrous::prelude::*;

/// A number that every batch has.
const SAME: f64 = 12.0;

/// Samples about a mean of 10 with a variance of 4, the first of them [`SAME`].
fn batch(seed: u64, count: usize) -> Result<Tensor> {
    let drawn = ((2.0 * Tensor::randn([count, 1], seed))? + 10.0)?.to_dtype(DType::F64);
    let mut values = drawn.to_vec_f64();
    values[0] = SAME;
    Tensor::from_slice(&values, [count, 1])
}

/// One number in four batches: what it becomes in training and in inference.
fn two_ways(svg: &mut Svg) -> Result<()> {
    let [one, zero] = [Tensor::ones([1]), Tensor::zeros([1])].map(|tensor| tensor.to_dtype(DType::F64));
    let moving = [10.0f64, 4.0].map(|value| Tensor::from([value]));
    let along = |value: f64| 110.0 + 190.0 * (value - 4.0) / 12.0;
    let normed = |left: f64, value: f64| left + 170.0 * (value + 3.0) / 6.0;
    svg.text([110.0, 28.0], "one channel, eight numbers");
    svg.text([340.0, 28.0], "training: its own m and v");
    svg.text([560.0, 28.0], "inference: m = 10, v = 4");
    for (left, at) in [(110.0, along(10.0)), (340.0, normed(340.0, 0.0)), (560.0, normed(560.0, 0.0))] {
        svg.line([left, 200.0], [left + if left < 200.0 { 190.0 } else { 170.0 }, 200.0], GREY);
        svg.line([at, 44.0], [at, 204.0], FAINT);
        svg.centred([at, 214.0], 12.0, if left < 200.0 { "10" } else { "0" });
    }
    for (i, seed) in [3, 4, 5, 6].into_iter().enumerate() {
        let y = 60.0 + 38.0 * i as f64;
        let x = batch(seed, 8)?;
        let of_batch = x.batch_norm_train(&one, &zero, 1e-3)?;
        let (mean, deviation) = (of_batch.mean.item()?, of_batch.variance.item()?.sqrt());
        svg.text([20.0, y + 5.0], &format!("batch {}", i + 1));
        svg.line([along(mean - deviation), y + 12.0], [along(mean + deviation), y + 12.0], STRONG_BLUE);
        svg.line([along(mean), y + 8.0], [along(mean), y + 16.0], STRONG_BLUE);
        let inferred = x.batch_norm_infer(&one, &zero, [&moving[0], &moving[1]], 1e-3)?.to_vec_f64();
        let (values, trained) = (x.to_vec_f64(), of_batch.y.to_vec_f64());
        for n in (0..8).rev() {
            let (fill, radius) = if n == 0 { (STRONG_ORANGE, 5.0) } else { (GREY, 3.5) };
            svg.circle([along(values[n]), y], radius, fill);
            svg.circle([normed(340.0, trained[n]), y], radius, fill);
            svg.circle([normed(560.0, inferred[n]), y], radius, fill);
        }
        svg.note([normed(340.0, trained[0]) - 10.0, y + 17.0], &format!("{:.2}", trained[0]));
        svg.note([normed(560.0, inferred[0]) - 10.0, y + 17.0], &format!("{:.2}", inferred[0]));
    }
    svg.text(
        [20.0, 238.0],
        &format!("Orange: the same {SAME} in four batches. Blue: the batch's m, and √v to both sides."),
    );
    Ok(())
}

/// The way from the one to the other: moving averages of 500 batches.
fn remembered(svg: &mut Svg) -> Result<()> {
    let [one, zero] = [Tensor::ones([1]), Tensor::zeros([1])].map(|tensor| tensor.to_dtype(DType::F64));
    let (mut mean, mut variance) = (zero.clone(), one.clone());
    let mut path = Vec::new();
    for step in 0..=500 {
        path.push([mean.item()?, variance.item()?]);
        let x = ((2.0 * Tensor::randn([32, 1], step))? + 10.0)?.to_dtype(DType::F64);
        (mean, variance) = x.batch_norm_train(&one, &zero, 1e-3)?.moving(&mean, &variance, 0.99)?;
    }
    let place = |step: usize, value: f64| [110.0 + 1.1 * step as f64, 420.0 - 13.0 * value];
    svg.text([20.0, 276.0], "the moving averages, from 0 and 1, over 500 batches (momentum 0.99)");
    for value in [0.0, 4.0, 10.0] {
        svg.line(place(0, value), place(500, value), FAINT);
        svg.centred([92.0, place(0, value)[1]], 12.0, &format!("{value}"));
    }
    for step in (0..=500).step_by(100) {
        svg.centred([place(step, 0.0)[0], 434.0], 12.0, &format!("{step}"));
    }
    for (which, name, colour) in [(0, "mean", STRONG_BLUE), (1, "variance", STRONG_GREEN)] {
        svg.curve((0..=500).step_by(5).map(|step| place(step, path[step][which])), colour);
        let end = place(500, path[500][which]);
        svg.text([end[0] + 8.0, end[1] + 4.0], name);
    }
    let [early, value] = [place(100, 0.0), place(100, path[100][0])];
    svg.line(early, value, STRONG_ORANGE);
    svg.note([value[0] + 8.0, value[1] + 30.0], &format!("after 100: {:.1} of 10", path[100][0]));
    Ok(())
}

pub fn batch_norm() -> Result<String> {
    let mut svg = Svg::new(760.0, 450.0, "Batch norm in training, in inference, and on the way between");
    two_ways(&mut svg)?;
    remembered(&mut svg)?;
    Ok(svg.finish())
}
