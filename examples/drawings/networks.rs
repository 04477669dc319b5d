//! Steps of a plan.

use crate::svg::*;
use atrous::models;
use atrous::nn::{PlanTable, Purpose, Summary};
use atrous::prelude::*;

/// The first blocks of MobileNetV2: what each layer alone would write, and what the plan's steps write.
pub fn fusion() -> Result<String> {
    let graph = models::by_name("mobilenetv2", 256, 20)?;
    let (rows, plan) =
        (Summary::new(&graph).rows, PlanTable::new(&graph, Device::Cpu, Purpose::Inference, 1)?);
    let kib = |shape: &[usize]| shape.iter().product::<usize>() as f64 * 4.0 / 1024.0;
    let end = rows.iter().position(|row| row.name == "block_2_add").map_or(rows.len(), |last| last + 1);
    let layers = &rows[1..end];
    let steps: Vec<_> = plan.steps[1..]
        .iter()
        .take_while(|step| step.layers.iter().all(|name| layers.iter().any(|row| row.name == *name)))
        .collect();
    let mut svg = Svg::new(
        760.0,
        70.0 + 22.0 * layers.len() as f64,
        "Layers of MobileNetV2 and the steps of its plan",
    );
    svg.text([20.0, 26.0], "layer, and KiB that it alone would write");
    svg.text([430.0, 26.0], "step of the plan, and KiB that it writes");
    let place = |i: usize| 40.0 + 22.0 * i as f64;
    let folded = |name: &str| !steps.iter().any(|step| step.layers.iter().any(|layer| layer == name));
    for (i, row) in layers.iter().enumerate() {
        let fill = if folded(&row.name) { FAINT } else { BLUE };
        svg.rect([20.0, place(i)], [330.0, 20.0], fill, PAPER);
        svg.text([26.0, place(i) + 15.0], &row.name);
        svg.text([286.0, place(i) + 15.0], &format!("{:.0}", kib(&row.output_shape)));
    }
    for (i, step) in steps.iter().enumerate() {
        let y = 40.0 + 22.0 * layers.len() as f64 / steps.len() as f64 * (i as f64 + 0.5);
        svg.rect([430.0, y - 14.0], [310.0, 28.0], ORANGE, PAPER);
        let last = step.layers.last().map_or("", String::as_str);
        svg.text([438.0, y + 5.0], &format!("up to {last}"));
        svg.text([690.0, y + 5.0], &format!("{:.0}", kib(&step.output_shape)));
        for name in &step.layers {
            if let Some(layer) = layers.iter().position(|row| row.name == *name) {
                svg.line([350.0, place(layer) + 10.0], [430.0, y], GREY);
            }
        }
    }
    let written = |shapes: Vec<&[usize]>| shapes.into_iter().map(kib).sum::<f64>() / 1024.0;
    let [alone, planned] = [
        written(layers.iter().map(|row| &row.output_shape[..]).collect()),
        written(steps.iter().map(|step| &step.output_shape[..]).collect()),
    ];
    let y = place(layers.len()) + 18.0;
    svg.text(
        [20.0, y],
        &format!("{} layers, {alone:.1} MiB (grey: folded into weights, or padding)", layers.len()),
    );
    svg.text([430.0, y], &format!("{} steps, {planned:.1} MiB", steps.len()));
    Ok(svg.finish())
}
