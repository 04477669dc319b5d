//! What Adam remembers: a small network trains, and one of its weights is watched. Its gradient g, the means
//! m and √v that Adam keeps of it, and the change that they make of the weight.
//!
//!     cargo run --release --example moments -- moments.svg

mod drawing;

use atrous::data::loader::{Batch, Loader};
use atrous::data::synthetic::Synthetic;
use atrous::data::transforms::Transforms;
use atrous::prelude::*;
use drawing::{Line, draw};
use std::sync::Arc;

const STEPS: u64 = 240;
const RATE: f32 = 1e-3;
const BETAS: [f64; 2] = [0.9, 0.999];

/// Of the watched weight, after a step.
struct Moments {
    gradient: f64,
    /// Means of the gradient and of its square's root, corrected for having begun at zero.
    m: f64,
    root_v: f64,
    /// What the weight changed by, in learning rates.
    change: f64,
}

fn network() -> Result<Model> {
    let mut graph = Graph::new("small", "input", [32, 32, 3]);
    let mut last = graph.input();
    for filters in [8, 16, 32] {
        let convolution = Layer::conv2d(filters, 3).with_padding(Padding::Same);
        let layers = [convolution.with_activation(Activation::Relu), Layer::max_pooling2d(2)];
        last = graph.chain(last, layers)?;
    }
    graph.chain(last, [Layer::GlobalAveragePooling2D, Layer::dense(20)])?;
    Ok(Model::new(graph, 1))
}

/// A step of the network on a batch: the loss, and what became of one element of its first kernel.
fn step(
    model: &mut Model,
    adam: &mut Optimizer,
    batch: &Batch,
    weight: usize,
) -> Result<(f64, Moments)> {
    let slots = |adam: &Optimizer| -> Vec<f64> {
        let first = adam.slots().take_while(|(index, ..)| *index == 0);
        first.map(|(.., slot)| slot.to_vec_f64()[weight]).collect()
    };
    let value = |model: &Model| model.parameters[0].value.to_vec_f64()[weight];
    let (before, m_before) = (value(model), slots(adam).first().copied().unwrap_or(0.0));
    let pass = model.run(&batch.images, Mode::train(1, adam.steps()))?;
    let loss = pass.logits.binary_cross_entropy_with_logits(&batch.labels)?;
    let loss_value = loss.item()?;
    adam.begin_step();
    adam.backward_and_step(model, loss, pass, None)?;
    let (after, slots) = (value(model), slots(adam));
    let correction = BETAS.map(|beta| 1.0 - beta.powi(adam.steps() as i32));
    let moments = Moments {
        // m ← m + (1 − β₁)(g − m), solved for g.
        gradient: m_before + (slots[0] - m_before) / (1.0 - BETAS[0]),
        m: slots[0] / correction[0],
        root_v: (slots[1] / correction[1]).sqrt(),
        change: (after - before) / RATE as f64,
    };
    Ok((loss_value, moments))
}

fn main() -> Result<()> {
    let loader = Loader::shuffled(Arc::new(Synthetic::train(0, 320)), Transforms::plain(32), 16, 7);
    let batches: Vec<Batch> = loader.epoch(0, 0)?.collect::<Result<_>>()?;
    let (mut model, mut adam) = (network()?, Optimizer::adam(RATE)?);
    let mut all = Vec::new();
    println!("step    loss          g          m         √v    change / rate");
    for at in 1..=STEPS {
        let batch = &batches[at as usize % batches.len()];
        let (loss, moments) = step(&mut model, &mut adam, batch, 100)?;
        if [1, 2, 3, 5, 10, 20, 50, 100, 150, 200, STEPS].contains(&at) {
            let Moments { gradient, m, root_v, change } = moments;
            println!("{at:4}  {loss:.4}  {gradient:+.2e}  {m:+.2e}  {root_v:.2e}  {change:+.3}");
        }
        all.push(moments);
    }
    let Some(path) = std::env::args().nth(1) else { return Ok(()) };
    let line = |name, colour, of: fn(&Moments) -> f64| Line::new(name, colour, all.iter().map(of));
    let above = [
        line("g, the gradient", "#b8c4d6", |at| at.gradient),
        line("m, its mean", "#1f5fbf", |at| at.m),
        line("√v, its size", "#c2571a", |at| at.root_v),
    ];
    let below = [line("change of the weight / learning rate", "#2a7f4f", |at| at.change)];
    draw(&path, "step", [&above, &below]).map_err(|error| Error::file(path, error))
}
