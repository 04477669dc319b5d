//! `atrous weights inspect`, `atrous weights convert`

use super::values::{among, networks};
use atrous::error::printable;
use atrous::files::explain;
use atrous::models::{self, Head, Spec};
use atrous::nn::Model;
use atrous::weights::{self, Entry, Report, WeightFile};
use atrous::{Error, Result, Tensor};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueHint};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Weights {
    /// Show the tensors of a .h5, .keras, .safetensors or .npz file, or how they fit a network
    Inspect(Inspect),
    /// Write a file's weights under Keras' names, as .safetensors
    Convert(Convert),
}

#[derive(Args)]
#[command(after_long_help = "\
Examples:
  atrous weights inspect mobilenet_1_0_224_tf_no_top.h5
  atrous weights inspect mobilenet_v2.safetensors --model mobilenetv2
  atrous weights inspect mobilenet_1_0_224_tf.h5 --model mobilenet --head imagenet")]
pub struct Inspect {
    /// A .h5, .keras, .safetensors or .npz file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Compare with this network [default: the tensors are shown]
    #[arg(long, value_name = "NETWORK", value_parser = networks())]
    model: Option<String>,
    #[command(flatten)]
    network: Network,
}

#[derive(Args)]
#[command(after_long_help = "\
The new file has Keras' names and order of axes, and says where the weights are from: a network with \
weights of torchvision or timm has their padding and their batch norm's epsilon.

Example:
  atrous weights convert vgg16-397923af.safetensors --model vgg16 \\
      --out vgg16.safetensors")]
pub struct Convert {
    /// A .h5, .keras, .safetensors or .npz file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The network the weights are for
    #[arg(long, value_name = "NETWORK", value_parser = networks())]
    model: String,
    #[command(flatten)]
    network: Network,
    /// The file to write: NAME.safetensors
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: PathBuf,
}

#[derive(Args)]
struct Network {
    /// What stands on the base [default: none, if there is a base]
    #[arg(long, value_name = "HEAD", value_parser = among::<Head>(&Head::NAMES))]
    head: Option<Head>,
    /// Classes [default: 1000 with --head imagenet; else VOC's 20, and the background for deeplabv3plus]
    #[arg(long, value_name = "N", value_parser = classes())]
    classes: Option<usize>,
}

/// As many as a checkpoint may have: more would be a network that no memory holds.
fn classes() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=100_000)
}

impl Network {
    fn spec(&self, name: &str) -> Spec {
        let whole = name == "alexnet" || name == "deeplabv3plus";
        let head = self.head.unwrap_or(if whole { Head::Notebook } else { Head::None });
        let classes = self.classes.unwrap_or(match head {
            Head::ImageNet => 1000,
            _ => models::default_classes(name),
        });
        Spec { name: name.to_owned(), size: models::default_side(name), classes, head }
    }
}

/// The network, as the file's framework has it, without weights.
fn model(spec: &Spec, file: &WeightFile) -> Result<Model> {
    let graph = file.origin.configure(&spec.graph()?).map_err(|error| match error {
        Error::Argument { message, .. } => Error::file(&file.path, message),
        other => other,
    })?;
    Ok(Model::with(graph, |_, shape, _| Tensor::zeros(shape)))
}

/// What to ask for to have more of the file's tensors: another head, if the file has a whole one.
fn fuller(spec: &Spec, file: &WeightFile, report: &Report) -> Option<String> {
    let unused = file.entries.iter().filter(|entry| report.unexpected.contains(&entry.name));
    // A bias of the last layer has as many numbers as there are classes.
    let classes: BTreeSet<usize> = unused
        .filter_map(|entry| match entry.shape[..] {
            [classes @ 1..=30_000] => Some(classes),
            _ => None,
        })
        .take(4)
        .collect();
    let heads =
        [Head::ImageNet, Head::Pooled, Head::Notebook].into_iter().filter(|&head| head != spec.head);
    let specs = heads.flat_map(|head| classes.iter().map(move |&classes| (head, classes)));
    specs
        .filter(|&(head, classes)| {
            let Ok(model) = model(&Spec { head, classes, ..spec.clone() }, file) else { return false };
            let compared = weights::compare(&model, file, &[]);
            compared.is_ok_and(|(with, _)| {
                with.check().is_ok() && with.unexpected.len() < report.unexpected.len()
            })
        })
        .map(|(head, classes)| format!("--head {head} --classes {classes}"))
        .next()
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
        let spec = self.model.as_deref().map(|name| self.network.spec(name));
        // An unknown name, or a head that the network has not, shows before a long file is read.
        spec.iter().try_for_each(|spec| spec.graph().map(drop))?;
        let file = weights::read(&self.file)?;
        let Some(spec) = &spec else {
            show(&file);
            return Ok(());
        };
        let model = model(spec, &file)?;
        let (report, _) = weights::compare(&model, &file, &weights::heads(&model.graph))?;
        println!("{report}");
        report.check()?;
        if let Some(options) = fuller(spec, &file, &report) {
            println!("to use more of it: {options}");
        }
        Ok(())
    }
}

impl Convert {
    fn run(self) -> Result<()> {
        let spec = self.network.spec(&self.model);
        spec.graph()?;
        self.check_out()?;
        let file = weights::read(&self.file)?;
        let mut model = model(&spec, &file)?;
        let heads: Vec<String> = weights::heads(&model.graph).into_iter().map(str::to_owned).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let report = weights::load(&mut model, &file, &heads)?;
        let matched = model.parameters.iter().filter(|p| report.matched.contains(&p.path));
        let tensors: Vec<(String, Tensor)> =
            matched.map(|p| (p.path.clone(), p.value.clone())).collect();
        weights::save(&self.out, &tensors, file.origin)?;
        println!("{report}\nwritten to {}", printable(&self.out.to_string_lossy()));
        if !report.unexpected.is_empty() {
            println!("left out: {}", left_out(&report));
            match fuller(&spec, &file, &report) {
                Some(options) => println!("to keep them: {options}"),
                None => println!("no head of {} here has a place for all of them", spec.name),
            }
        }
        Ok(())
    }

    /// Before any work: whether a file can be written there.
    fn check_out(&self) -> Result<()> {
        let refused = |message: &str| Err(Error::file(&self.out, message));
        if self.out.extension().is_none_or(|extension| extension != "safetensors") {
            return refused("expected a name that ends in .safetensors");
        }
        if self.out.is_dir() {
            return refused("expected a file to write, but it is a folder");
        }
        let folder = match self.out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !std::fs::metadata(folder).map_err(|error| Error::file(folder, explain(&error)))?.is_dir() {
            return Err(Error::file(folder, "expected a folder, but it is a file"));
        }
        let same = |a: &Path, b: &Path| {
            a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
        };
        if same(&self.out, &self.file) {
            return refused(
                "expected another name than that of the file that is read: it would be replaced",
            );
        }
        Ok(())
    }
}

/// All tensors that are not written, by name.
fn left_out(report: &Report) -> String {
    let name = |name: &String| match name.is_empty() {
        true => "one without a name".to_owned(),
        false => format!("`{}`", printable(name)),
    };
    report.unexpected.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn show(file: &WeightFile) {
    let width = |entry: &Entry| printable(&entry.name).chars().count();
    let width = file.entries.iter().map(width).max().unwrap_or(0).max(6);
    let type_width = file.entries.iter().map(|entry| printable(&entry.dtype).chars().count());
    let type_width = type_width.max().unwrap_or(0).max(9);
    println!(
        "{:<width$}  {:<type_width$} {:<18} {:>12} {:>12}",
        "tensor", "type", "shape", "least", "largest"
    );
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
        let (name, dtype) = (printable(&entry.name), printable(&entry.dtype));
        println!(
            "{name:<width$}  {dtype:<type_width$} {:<18} {least:>12} {largest:>12}",
            format!("({shape})")
        );
        numbers += entry.tensor.as_ref().map_or(0, |tensor| tensor.shape().elements());
    }
    let (format, origin, count) = (file.format, file.origin, file.entries.len());
    println!("{count} tensors, {numbers} numbers; {format}, from {origin}");
    for entry in &file.entries {
        if let Some((at, number)) = entry.beyond {
            let name = printable(&entry.name);
            println!(
                "`{name}`: {number:e} (number {at}) is more than float32 holds, and is shown as inf"
            );
        }
    }
    if let Some(first) = &file.nameless {
        println!(
            "`{}` and others have only numbers: of which layers, the file does not say",
            printable(first)
        );
    }
    for remark in &file.remarks {
        println!("{}", printable(remark));
    }
}
