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

/// DeepLabV3+ from the base's two maps to the classes, with the shapes of its own table.
pub fn pyramid() -> Result<String> {
    let table = Summary::new(&models::by_name("deeplabv3plus", 224, 21)?);
    let shape = |name: &str| {
        let row = table.rows.iter().find(|row| row.name == name);
        row.map_or_else(String::new, |row| {
            row.output_shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
        })
    };
    let mut svg = Svg::new(780.0, 400.0, "DeepLabV3+: the pyramid and the decoder");
    let node = |svg: &mut Svg, [x, y]: [f64; 2], width: f64, fill: &str, words: &str, layer: &str| {
        svg.rect([x, y], [width, 38.0], fill, GREY);
        svg.centred([x + width / 2.0, y + 12.0], 12.0, words);
        svg.centred([x + width / 2.0, y + 27.0], 11.0, &shape(layer));
    };
    node(&mut svg, [20.0, 128.0], 116.0, ORANGE, "base, at 1/16", "conv_pw_11_bn");
    node(&mut svg, [20.0, 340.0], 116.0, ORANGE, "base, at 1/4", "conv_pw_3_bn");
    let branches = [
        ("mean of all, repeated", "up_sampling2d"),
        ("1×1", "conv2d_1"),
        ("3×3, dilation 6", "conv2d_2"),
        ("3×3, dilation 12", "conv2d_3"),
        ("3×3, dilation 18", "conv2d_4"),
    ];
    for (i, (words, layer)) in branches.into_iter().enumerate() {
        let y = 24.0 + 52.0 * i as f64;
        node(&mut svg, [190.0, y], 140.0, BLUE, words, layer);
        svg.arrow([136.0, 147.0], [188.0, y + 19.0], GREY);
        svg.arrow([330.0, y + 19.0], [382.0, 147.0], GREY);
    }
    node(&mut svg, [384.0, 128.0], 116.0, FAINT, "side by side", "concatenate");
    svg.arrow([500.0, 147.0], [536.0, 147.0], INK);
    node(&mut svg, [538.0, 128.0], 100.0, BLUE, "1×1", "conv2d_5");
    svg.arrow([588.0, 166.0], [588.0, 226.0], INK);
    node(&mut svg, [530.0, 228.0], 116.0, GREEN, "4 times as large", "up_sampling2d_1");
    node(&mut svg, [190.0, 340.0], 140.0, BLUE, "1×1", "conv2d_6");
    svg.arrow([136.0, 359.0], [188.0, 359.0], INK);
    svg.arrow([330.0, 359.0], [364.0, 359.0], INK);
    node(&mut svg, [366.0, 340.0], 116.0, FAINT, "side by side", "concatenate_1");
    svg.arrow([530.0, 258.0], [440.0, 338.0], INK);
    svg.arrow([482.0, 359.0], [508.0, 359.0], INK);
    node(&mut svg, [510.0, 340.0], 104.0, BLUE, "3×3, 3×3", "conv2d_8");
    svg.arrow([614.0, 359.0], [640.0, 359.0], INK);
    node(&mut svg, [642.0, 340.0], 122.0, GREEN, "4 times as large", "up_sampling2d_2");
    svg.arrow([703.0, 338.0], [703.0, 320.0], INK);
    node(&mut svg, [642.0, 280.0], 122.0, RED, "1×1: the classes", "conv2d_9");
    Ok(svg.finish())
}
