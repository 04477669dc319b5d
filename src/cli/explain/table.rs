//! What `atrous explain` prints.

use atrous::Result;
use atrous::explain::page::Prediction;
use atrous::explain::pixel::Pixel;
use atrous::explain::statistics::by_channel;
use atrous::explain::{Target, Trace};
use atrous::nn::Id;
use std::fmt::Write;

/// Terms of a sum that are printed.
const TERMS: usize = 12;

/// The likeliest classes.
pub fn predictions(top: &[Prediction], of_pixels: bool) -> String {
    let width = top.iter().map(|one| one.name.chars().count()).max().unwrap_or(0).max(5);
    let columns = if of_pixels { ["pixels", "mean logit"] } else { ["probability", "logit"] };
    let mut text = format!("{:<width$}  {:>11}  {:>10}\n", "class", columns[0], columns[1]);
    for Prediction { name, probability, logit, .. } in top {
        let _ = writeln!(text, "{name:<width$}  {:>9.1} %  {logit:>10.3}", probability * 100.0);
    }
    text
}

/// What a target's logit is summed over, as the rest of a sentence.
pub fn over(target: &Target) -> String {
    let count = |pixels: &Vec<bool>| pixels.iter().filter(|&&own| own).count();
    target
        .pixels
        .as_ref()
        .map_or(String::new(), |pixels| format!(", summed over {} pixels", count(pixels)))
}

/// One line a layer.
pub fn layers(trace: &Trace) -> String {
    let nodes = trace.model.graph.nodes();
    let width = nodes.iter().map(|node| node.name.len()).max().unwrap_or(0).max(5);
    let header = ["output shape", "mean |a|", "dead", "parameters", "MFLOP"];
    let [a, b, c, d, e] = header;
    let mut text = format!("{:<width$}  {a:<18} {b:>10} {c:>10} {d:>12} {e:>10}\n", "layer");
    for (node, output) in nodes.iter().zip(&trace.outputs) {
        let channels = node.output_shape.last().copied().unwrap_or(1);
        let values: Vec<f32> = output.to_vec_f64().into_iter().map(|v| v as f32).collect();
        let statistics = by_channel(&values, channels);
        let mean = statistics.iter().map(|s| s.mean_absolute).sum::<f64>() / channels as f64;
        let dead = match statistics.iter().filter(|s| s.is_dead()).count() {
            0 => String::new(),
            n => format!("{n}/{channels}"),
        };
        let shape = node.output_shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "{:<width$}  {:<18} {mean:>10.4} {dead:>10} {:>12} {:>10.2}",
            node.name,
            format!("({shape})"),
            node.cost.parameters,
            node.cost.flops as f64 / 1e6,
        );
    }
    text
}

/// A number's sum and its gradient's, the largest terms of each.
pub fn computation(trace: &Trace, layer: Id, pixel: Pixel) -> Result<String> {
    let name = |id: Id| &trace.model.graph.node(id).name;
    let row = |id: Id, at: Pixel, a: f64, b: f64| (format!("{} {at}", name(id)), a, b);
    let mut text = format!("`{}` {pixel}\n", name(layer));
    if layer != trace.model.graph.input() {
        let made = trace.computation(layer, pixel)?;
        let terms = made.terms.iter().map(|term| row(term.layer, term.pixel, term.value, term.factor));
        text += &products(terms.collect(), ["value", "weight"]);
        let _ = writeln!(text, "  + bias {:.6} = {:.6}", made.bias, made.sum);
        if made.activation != atrous::Activation::Linear {
            let _ = writeln!(text, "  {}: {:.6}", made.activation.name(), made.value);
        }
        let _ = writeln!(
            text,
            "  the engine: {:.6}, difference {:.1e}",
            made.engine,
            made.value - made.engine
        );
    }
    let back = trace.backpropagation(layer, pixel)?;
    let _ = writeln!(text, "gradient of the explained logit by it:");
    let shares =
        back.shares.iter().map(|share| row(share.layer, share.pixel, share.gradient, share.factor));
    text += &products(shares.collect(), ["gradient", "factor"]);
    let _ = writeln!(text, "  = {:.6e}; the tape: {:.6e}", back.sum, back.tape);
    Ok(text)
}

/// One line a product, the largest first; the others in one.
fn products(mut rows: Vec<(String, f64, f64)>, [a, b]: [&str; 2]) -> String {
    rows.sort_by(|x, y| (y.1 * y.2).abs().total_cmp(&(x.1 * x.2).abs()));
    let width = rows.iter().take(TERMS).map(|row| row.0.chars().count()).max().unwrap_or(0);
    let mut text = format!("  {:<width$}  {a:>12}  {b:>12}  {:>12}\n", "", "product");
    for (name, value, factor) in rows.iter().take(TERMS) {
        let _ =
            writeln!(text, "  {name:<width$}  {value:>12.6}  {factor:>12.6}  {:>12.6}", value * factor);
    }
    if let Some(others @ [_, ..]) = rows.get(TERMS..) {
        let rest: f64 = others.iter().map(|row| row.1 * row.2).sum();
        let label = format!("the other {} sum to", others.len());
        let _ = writeln!(text, "  {label:<width$}  {:>12}  {:>12}  {rest:>12.6}", "", "");
    }
    text
}
