//! `atrous profile`

use super::device;
use super::values::networks;
use atrous::files::{check_writable, explain, write_atomically};
use atrous::models::{self, Spec};
use atrous::nn::{Model, Purpose};
use atrous::predict::{Trained, locate};
use atrous::profile::{Trace, profile};
use atrous::{Error, Result, profile, weights};
use clap::{Args, ValueHint};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_long_help = "\
A step is what one kernel's pass makes: layers that are fused (see `atrous summary NET --plan`). MB is \
what has to move at least: inputs, weights and output, each once. FLOP/B is arithmetic intensity, and % \
roof the least time by the roofline model, whose limits are measured in the same run, as a share of the \
measured time. It is above 100 where an algorithm multiplies less than the definition (Winograd), or where \
a cache spares the memory.

--out writes roofline.svg, profile.json and trace.json; the last opens in https://ui.perfetto.dev and in \
chrome://tracing. The keys of --json, and of profile.json, are in docs/schemas/profile.json.

Examples:
  atrous profile mobilenetv2             an image, step by step
  atrous profile resnet50v2 --train --batch 4
  atrous profile vgg16 --out vgg16       and a roofline, a trace, JSON
  atrous profile --checkpoint result/best.safetensors --batch 16")]
pub struct Profile {
    /// The network
    #[arg(
        value_name = "NETWORK",
        value_parser = networks(),
        required_unless_present = "checkpoint",
        conflicts_with = "checkpoint"
    )]
    model: Option<String>,
    /// A trained one instead: a checkpoint, or a folder that `train` left
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    checkpoint: Option<PathBuf>,
    /// Pre-trained weights of the base: .h5, .keras, .safetensors or .npz [default: at random]
    ///
    /// Times hardly depend on them.
    #[arg(long, value_name = "FILE", conflicts_with = "checkpoint", value_hint = ValueHint::FilePath)]
    weights: Option<PathBuf>,
    /// Images at once [default: 1; with --train 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// Side of the images [default: the network's own]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Forward and backward, as training runs it
    #[arg(long)]
    train: bool,
    /// Folder for roofline.svg, profile.json and trace.json [default: they are not written]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

impl Profile {
    pub fn run(self) -> Result<()> {
        let files = self.out.as_deref().map(Files::new).transpose()?;
        let model = self.model()?.to_device(device())?;
        let (purpose, batch) = match self.train {
            false => (Purpose::Inference, 1),
            true => (Purpose::Training, 16),
        };
        let (profile, trace) = profile(&model, self.batch.map_or(batch, usize::from), purpose)?;
        match self.json {
            true => println!("{:#}", profile.to_json()?),
            false => println!("{profile}"),
        }
        files.map_or(Ok(()), |files| files.write(&profile, &trace, self.json))
    }

    fn model(&self) -> Result<Model> {
        match (&self.checkpoint, &self.model) {
            (Some(path), _) => self.trained(path),
            (None, Some(name)) => self.untrained(name),
            (None, None) => Err(Error::argument("profile", "expected a network or --checkpoint")),
        }
    }

    /// A network by its name, with weights from a file or made up.
    fn untrained(&self, name: &str) -> Result<Model> {
        let size = self.size.unwrap_or(models::default_side(name));
        let graph = Spec::new(name, size, models::default_classes(name)).graph()?;
        let Some(path) = &self.weights else { return Ok(Model::new(graph, 1)) };
        let file = weights::read(path)?;
        let mut model = Model::new(file.origin.configure(&graph)?, 1);
        let heads: Vec<String> = weights::heads(&graph).into_iter().map(str::to_string).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        weights::load(&mut model, &file, &heads)?;
        Ok(model)
    }

    /// What training left, for images of another size where one is asked for.
    fn trained(&self, path: &Path) -> Result<Model> {
        let [file] = &locate(path)?[..] else {
            let message = "expected one network, got two: name classify or segment within it";
            return Err(Error::file(path, message));
        };
        let Trained { model, mut config, .. } = Trained::load(file)?;
        let Some(size) = self.size else { return Ok(model) };
        config.network.size = size;
        let mut resized = Model::new(config.graph()?, 1);
        model.parameters.into_iter().try_for_each(|p| resized.set(&p.path, p.value))?;
        Ok(resized)
    }
}

/// What is left in a folder.
struct Files {
    roofline: PathBuf,
    profile: PathBuf,
    trace: PathBuf,
}

impl Files {
    /// The folder is made, and it is known to take files, before any work.
    fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, explain(&error)))?;
        let file = |name: &str| {
            let path = folder.join(name);
            check_writable(&path).map(|()| path)
        };
        Ok(Files {
            roofline: file("roofline.svg")?,
            profile: file("profile.json")?,
            trace: file("trace.json")?,
        })
    }

    /// Where they are is told, but not in the midst of JSON.
    fn write(&self, profile: &profile::Profile, trace: &Trace, quiet: bool) -> Result<()> {
        let json = profile.to_json()?;
        write_atomically(&self.roofline, |file| file.write_all(profile.to_svg().as_bytes()))?;
        write_atomically(&self.profile, |file| writeln!(file, "{json:#}"))?;
        write_atomically(&self.trace, |file| writeln!(file, "{}", trace.to_json()))?;
        if !quiet {
            [&self.roofline, &self.profile, &self.trace]
                .into_iter()
                .for_each(|path| println!("written: {}", path.display()));
        }
        Ok(())
    }
}
