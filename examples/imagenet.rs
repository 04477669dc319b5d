//! What MobileNet v1 sees in a picture, of ImageNet's 1000 classes.
//!
//!     cargo run --release --example imagenet -- WEIGHTS CLASSES PICTURE...
//!
//! WEIGHTS: MobileNet v1 (α 1, 224 pixels) with its head, .h5 or .safetensors or .npz. CLASSES: a text
//! file with one class a line, in the head's order. PICTURE: JPEG, PNG or WebP.

use atrous::context::no_grad;
use atrous::data::image::{Fit, fit};
use atrous::data::picture_files::read_picture;
use atrous::models::{Head, Spec};
use atrous::nn::{Model, Run, for_inference};
use atrous::weights::{self, names::Base};
use atrous::{Error, Result, Tensor};
use std::path::Path;
use std::process::ExitCode;

const SIDE: usize = 224;
const SHOWN: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, classes, pictures @ ..] = &arguments[..] else {
        eprintln!("usage: imagenet WEIGHTS CLASSES PICTURE...");
        return ExitCode::from(2);
    };
    match name(Path::new(weights), Path::new(classes), pictures) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn name(weights: &Path, classes: &Path, pictures: &[String]) -> Result<()> {
    let text = std::fs::read_to_string(classes).map_err(|error| Error::file(classes, error))?;
    let names: Vec<&str> = text.lines().map(|line| line.trim_matches('\'')).collect();
    if names.len() != 1000 {
        return Err(Error::file(classes, format!("expected 1000 lines, got {}", names.len())));
    }
    // Padding and batch norm's ε are those of the framework that the weights come from.
    let file = weights::read(weights)?;
    let spec = Spec { head: Head::ImageNet, ..Spec::new("mobilenet", SIDE, names.len()) };
    let mut model = Model::new(file.origin.configure(&spec.graph()?)?, 0);
    weights::load(&mut model, &file, &[])?;
    let model = for_inference(&model)?;
    let preprocess = file.origin.preprocess(Base::MobileNet);
    for path in pictures {
        let mut values = fit(&read_picture(path)?, SIDE, Fit::Stretch)?;
        preprocess.apply(&mut values);
        let x = Tensor::from_slice(&values, [1, SIDE, SIDE, 3])?;
        let pass = no_grad(|| model.run(&x, Run::infer()))?;
        model.require_finite(&x, &pass.logits)?;
        let mut ranked: Vec<(f64, &str)> =
            pass.output.to_vec_f64().into_iter().zip(names.iter().copied()).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        println!("{path}");
        for (p, name) in &ranked[..SHOWN] {
            // "n02124075 Egyptian cat" without the synset's number.
            println!("  {p:.3}  {}", name.split_once(' ').map_or(*name, |(_, words)| words));
        }
    }
    Ok(())
}
