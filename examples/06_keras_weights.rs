//! Keras' weights in a network, and what it sees in an image.
//!
//!     cargo run --release --example 06_keras_weights -- WEIGHTS CLASSES IMAGE...
//!
//! WEIGHTS: MobileNet v1 (α 1, 224 pixels) with its head, as .h5, .safetensors or .npz. CLASSES: a text file
//! with one class a line, in the head's order. IMAGE: JPEG, PNG or WebP. Without them a file of random
//! weights under Keras' names is written and read, and an image made up: then the classes mean nothing.

use atrous::data::image::{Fit, fit};
use atrous::data::{image_files::read_image, synthetic};
use atrous::models::{Head, Spec};
use atrous::nn::for_inference;
use atrous::prelude::*;
use atrous::weights::{self, Origin, names::Base};
use std::path::{Path, PathBuf};

const SIDE: usize = 224;
const CLASSES: usize = 1000;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args().skip(1).map(PathBuf::from).collect();
    let spec = Spec { head: Head::ImageNet, ..Spec::new("mobilenet", SIDE, CLASSES) };
    let (path, classes, images) = match &arguments[..] {
        [weights, classes, images @ ..] => {
            let image = |path: &PathBuf| Ok((path.display().to_string(), read_image(path)?));
            (weights.clone(), names(classes)?, images.iter().map(image).collect::<Result<Vec<_>>>()?)
        }
        _ => {
            let numbers = (0..CLASSES).map(|i| format!("class {i}, of random weights")).collect();
            (random_weights(&spec)?, numbers, vec![("made up".into(), synthetic::generate(1, 0).image)])
        }
    };
    // What a file holds, and whose it is: padding and batch norm's ε are those of the framework that trained
    // it.
    let file = weights::read(&path)?;
    if arguments.is_empty() {
        std::fs::remove_file(&path).map_err(|error| Error::file(&path, error))?;
    }
    println!("{}: {} arrays of {}", path.display(), file.entries.len(), file.origin);
    let mut model = Model::new(file.origin.configure(&spec.graph()?)?, 0);
    weights::load(&mut model, &file, &[])?;
    // Batch norms become part of the convolutions before them.
    let model = for_inference(&model)?;
    for (name, image) in images {
        let mut values = fit(&image, SIDE, Fit::Stretch)?;
        file.origin.preprocess(Base::MobileNet).apply(&mut values);
        let x = Tensor::from_slice(&values, [1, SIDE, SIDE, 3])?;
        let probabilities = no_grad(|| model.run(&x, Mode::infer()))?.output.to_vec_f64();
        let mut ranked: Vec<(f64, &String)> = probabilities.into_iter().zip(&classes).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        println!("{name}");
        ranked[..5].iter().for_each(|(p, class)| println!("  {p:.3}  {class}"));
    }
    Ok(())
}

/// The classes of a file, without the numbers of synsets.
fn names(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    let words =
        |line: &str| line.trim_matches('\'').split_once(' ').map_or(line, |(_, words)| words).to_owned();
    let names: Vec<String> = text.lines().map(words).collect();
    match names.len() {
        CLASSES => Ok(names),
        n => Err(Error::file(path, format!("expected {CLASSES} lines, got {n}"))),
    }
}

/// A file of the network's parameters as they begin, under Keras' names.
fn random_weights(spec: &Spec) -> Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("atrous-{}.safetensors", std::process::id()));
    let parameters = Model::new(spec.graph()?, 1).parameters;
    let tensors: Vec<_> = parameters.into_iter().map(|p| (p.path, p.value)).collect();
    weights::save(&path, &tensors, Origin::Keras).map(|()| path)
}
