//! `atrous weights inspect`, `atrous weights convert`

use atrous::graph::Model;
use atrous::models::{self, Head, Spec};
use atrous::weights::{self, WeightFile};
use atrous::{Error, Result, Tensor};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Weights {
    /// Show the tensors of a .h5, .safetensors or .npz file, or how they fit a network
    Inspect(Inspect),
    /// Write a file's weights under Keras' names, as .safetensors
    Convert(Convert),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  atrous weights inspect mobilenet_1_0_224_tf_no_top.h5
  atrous weights inspect mobilenet_v2.safetensors --model mobilenetv2
  atrous weights inspect mobilenet_1_0_224_tf.h5 --model mobilenet --head imagenet")]
pub struct Inspect {
    /// .h5, .safetensors or .npz
    file: PathBuf,
    /// Compare with this network instead of showing the tensors
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    #[command(flatten)]
    network: Network,
}

#[derive(Args)]
#[command(after_help = "\
Example:
  atrous weights convert vgg16-397923af.safetensors --model vgg16 --out vgg16.safetensors

The new file has Keras' names and order of axes, and says where the weights are from: a network
with weights of torchvision or timm has their padding and their batch norm's epsilon.")]
pub struct Convert {
    /// .h5, .safetensors or .npz
    file: PathBuf,
    /// The network the weights are for
    #[arg(long, value_name = "NAME")]
    model: String,
    #[command(flatten)]
    network: Network,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args)]
struct Network {
    /// What stands on the base: notebook, pooled, imagenet or none [default: none, if there is a base]
    #[arg(long, value_name = "NAME")]
    head: Option<Head>,
    #[arg(long, value_name = "N", help = "[default: 1000 with --head imagenet, else 20]")]
    classes: Option<usize>,
}

impl Network {
    fn model(&self, name: &str) -> Result<Model> {
        let whole = name == "alexnet" || name == "deeplabv3plus";
        let head = self.head.unwrap_or(if whole { Head::Notebook } else { Head::None });
        let classes = self.classes.unwrap_or(if head == Head::ImageNet { 1000 } else { 20 });
        let size = models::default_side(name);
        let graph = Spec { name: name.to_owned(), size, classes, head }.graph()?;
        Ok(Model::with(graph, |_, shape, _| Tensor::zeros(shape)))
    }
}

impl Weights {
    pub fn run(self) -> Result<()> {
        match self {
            Weights::Inspect(inspect) => inspect.run(),
            Weights::Convert(convert) => convert.run(),
        }
    }
}

impl Inspect {
    fn run(self) -> Result<()> {
        let file = weights::read(&self.file)?;
        let Some(name) = &self.model else {
            show(&file);
            return Ok(());
        };
        let model = self.network.model(name)?;
        let (report, _) = weights::compare(&model, &file, &weights::heads(&model.graph))?;
        println!("{report}");
        report.check()
    }
}

impl Convert {
    fn run(self) -> Result<()> {
        let file = weights::read(&self.file)?;
        let mut model = self.network.model(&self.model)?;
        let heads: Vec<String> = weights::heads(&model.graph).into_iter().map(str::to_owned).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let report = weights::load(&mut model, &file, &heads)?;
        if self.out.extension().is_none_or(|extension| extension != "safetensors") {
            return Err(Error::file(&self.out, "expected a name that ends in .safetensors"));
        }
        let matched = model.parameters.iter().filter(|p| report.matched.contains(&p.path));
        let tensors: Vec<(String, Tensor)> =
            matched.map(|p| (p.path.clone(), p.value.clone())).collect();
        weights::save(&self.out, &tensors, file.origin)?;
        println!("{report}\nwritten to {}", self.out.display());
        Ok(())
    }
}

fn show(file: &WeightFile) {
    let width = file.entries.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0).max(6);
    println!("{:<width$}  {:<9} {:<18} {:>12} {:>12}", "tensor", "type", "shape", "least", "largest");
    let mut numbers = 0;
    for entry in &file.entries {
        let shape = entry.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let [least, largest] = match entry.tensor.as_ref().and_then(|tensor| tensor.as_slice::<f32>()) {
            Some(values) if !values.is_empty() => {
                // NaN is the least and the largest: it should be seen.
                let end = |pick: fn(f32, f32) -> f32| {
                    let both = |a: f32, b: f32| if a.is_nan() { a } else { pick(a, b) };
                    let end =
                        values.iter().fold(values[0], |a, &b| if b.is_nan() { b } else { both(a, b) });
                    format!("{end:.5}")
                };
                [end(f32::min), end(f32::max)]
            }
            _ => Default::default(),
        };
        let (name, dtype) = (&entry.name, &entry.dtype);
        println!("{name:<width$}  {dtype:<9} {:<18} {least:>12} {largest:>12}", format!("({shape})"));
        numbers += entry.tensor.as_ref().map_or(0, |tensor| tensor.shape().elements());
    }
    let (format, origin, count) = (file.format, file.origin, file.entries.len());
    println!("{count} tensors, {numbers} numbers; {format}, from {origin}");
}
