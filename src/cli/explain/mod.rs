//! `atrous explain`

mod table;

use super::device;
use super::folder::refuse_files;
use super::network::{Network, NetworkOptions};
use atrous::data::Image;
use atrous::data::image::fit;
use atrous::data::image_files::read_image;
use atrous::error::did_you_mean;
use atrous::explain::page::{Analyses, Explanation, likeliest};
use atrous::explain::pixel::Pixel;
use atrous::explain::{Target, Trace};
use atrous::files::{check_writable, explain, write_atomically};
use atrous::nn::{Id, Model, Purpose};
use atrous::profile::{PassProfile, profile};
use atrous::{Error, Result, Tensor};
use clap::{Args, ValueHint};
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Args)]
#[command(after_long_help = "\
It writes explain.html: the graph, feature maps, and each number's computation, forward and backward. The \
page is one file and fetches nothing.

Examples:
  atrous explain cat.jpg --model mobilenet --weights mobilenet.h5 \\
      --class-names imagenet.txt
  atrous explain cat.jpg --checkpoint result/classify --class dog --out why
  atrous explain cat.jpg --model alexnet --pixel conv2d_1:17:4:6")]
pub struct Explain {
    /// A JPEG, PNG or WebP file
    #[arg(value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    image: PathBuf,
    #[command(flatten)]
    network: NetworkOptions,
    /// The class that is explained, by name or number [default: the likeliest]
    ///
    /// Of a network that labels pixels the likeliest is the one that most are given, background aside.
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Open the page with this channel, and an image it answers to [default: the first]
    ///
    /// The image is made by gradient ascent. `atrous summary` lists the layers; channels count from 0.
    #[arg(long, value_name = "LAYER:CHANNEL")]
    channel: Option<String>,
    /// Print how a number was computed, and where its gradient came from [default: none]
    ///
    /// Channels, rows and columns count from 0.
    #[arg(long, value_name = "LAYER:CHANNEL:Y:X")]
    pixel: Option<String>,
    /// Leave out what takes more passes than one
    ///
    /// These are attributions, receptive fields, branches and the attack.
    #[arg(long)]
    quick: bool,
    /// Measure the times of each step, too: ten seconds more
    #[arg(long)]
    profile: bool,
    /// Folder for explain.html
    #[arg(long, value_name = "DIR", default_value = "explain", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Overwrite a page that is there already
    #[arg(long)]
    force: bool,
}

impl Explain {
    pub fn run(self) -> Result<()> {
        let began = Instant::now();
        let image = read_image(&self.image)?;
        let network = self.network.load()?;
        let graph = &network.model.graph;
        let start = self.channel.as_deref().map(|text| channel(&network.model, text)).transpose()?;
        let pixel = self.pixel.as_deref().map(|text| pixel(&network.model, text)).transpose()?;
        let class = self.class.as_deref().map(|text| network.class(text)).transpose()?;
        let page = self.out.join("explain.html");
        if !self.force {
            refuse_files([&page])?;
        }
        std::fs::create_dir_all(&self.out).map_err(|error| Error::file(&self.out, explain(&error)))?;
        check_writable(&page)?;

        let (seen, x) = prepared(&network, &image)?;
        let target = |logits: &Tensor| {
            class.map_or_else(|| Ok(Target::likeliest(logits)), |class| Target::of_class(logits, class))
        };
        let trace = Trace::new(&network.model, &x, target)?;
        let name = self.image.file_name().unwrap_or_default().to_string_lossy();
        network.words.iter().for_each(|line| println!("{line}"));
        println!("{name}: {} at {side}×{side}", graph.name, side = network.size);
        print!(
            "{}",
            table::predictions(&likeliest(&trace, &network.classes), trace.target.pixels.is_some())
        );
        println!(
            "explained: the logit of {}{}",
            network.classes[trace.target.class],
            table::over(&trace.target)
        );
        print!("{}", table::layers(&trace));
        if let Some((layer, pixel)) = pixel {
            print!("{}", table::computation(&trace, layer, pixel)?);
        }
        let analyses = Analyses {
            trace: &trace,
            x: &x,
            image: &seen,
            preprocess: network.preprocess,
            classes: &network.classes,
        };
        let mut sections = if self.quick { Vec::new() } else { analyses.sections()? };
        if let Some((layer, channel)) = start {
            sections.insert(0, analyses.visualized(&graph.node(layer).name, channel)?);
        }
        let html = Explanation {
            trace: &trace,
            image: &seen,
            name: &name,
            classes: &network.classes,
            device: device(),
            measured: if self.profile { measured(&network.model)? } else { Vec::new() },
            start,
            sections,
        };
        write(&page, &html.render()?, began)
    }
}

/// The image at the network's size, as it is seen and as the network takes it: `[1, size, size, 3]`.
fn prepared(network: &Network, image: &Image) -> Result<(Image, Tensor)> {
    let size = network.size;
    let mut values = fit(image, size, network.fit)?;
    let bytes = values.iter().map(|&v| v.round().clamp(0.0, 255.0) as u8).collect();
    network.preprocess.apply(&mut values);
    Ok((Image::new(size, size, bytes)?, Tensor::from_slice(&values, [1, size, size, 3])?))
}

/// By layer: how long the step of it takes, and how near that is to the roofline.
fn measured(model: &Model) -> Result<Vec<Vec<(String, String)>>> {
    let (profile, _) = profile(model, 1, Purpose::Training)?;
    let pass = |name: &str, pass: &PassProfile| {
        let percent =
            pass.roofline_percent.map_or(String::new(), |p| format!(", {p:.0} % of the roofline"));
        let intensity = pass.intensity.map_or(String::new(), |i| format!("; {i:.1} FLOP a byte"));
        let moved = format!("{:.2} MB{intensity}", pass.bytes as f64 / 1e6);
        [
            (format!("{name} (step)"), format!("{:.3} ms{percent}", pass.time.median_ms)),
            (format!("{name} moves"), moved),
        ]
    };
    let of_layer = |name: &String| {
        let step = profile.steps.iter().find(|step| step.layers.contains(name));
        let step = step.into_iter();
        let passes = step.flat_map(|step| {
            let forward = pass("forward", &step.forward);
            forward
                .into_iter()
                .chain(step.backward.iter().flat_map(|backward| pass("backward", backward)))
        });
        passes.collect()
    };
    Ok(model.graph.nodes().iter().map(|node| of_layer(&node.name)).collect())
}

fn write(path: &Path, html: &str, began: Instant) -> Result<()> {
    write_atomically(path, |file| file.write_all(html.as_bytes()))?;
    let (megabytes, seconds) = (html.len() as f64 / 1e6, began.elapsed().as_secs_f64());
    println!("page: {} ({megabytes:.1} MB, {seconds:.1} s)", path.display());
    Ok(())
}

/// LAYER:CHANNEL
fn channel(model: &Model, text: &str) -> Result<(Id, usize)> {
    let (layer, [channel]) = place("--channel", "LAYER:CHANNEL", model, text)?;
    Ok((layer, channel))
}

/// LAYER:CHANNEL:Y:X
fn pixel(model: &Model, text: &str) -> Result<(Id, Pixel)> {
    let (layer, [channel, y, x]) = place("--pixel", "LAYER:CHANNEL:Y:X", model, text)?;
    Ok((layer, Pixel { y, x, channel }))
}

/// A layer's name, and numbers that are within its output: channel, row, column, as far as there are some.
fn place<const N: usize>(
    flag: &'static str,
    form: &str,
    model: &Model,
    text: &str,
) -> Result<(Id, [usize; N])> {
    let wrong = |message: String| Error::argument(flag, message);
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let numbers: Option<Vec<usize>> = parts.map(|part| part.parse().ok()).collect();
    let numbers: Option<[usize; N]> = numbers.and_then(|numbers| numbers.try_into().ok());
    let numbers = numbers.ok_or_else(|| wrong(format!("expected {form}, got `{text}`")))?;
    let layer = model.graph.find(name).ok_or_else(|| wrong(unknown_layer(model, name)))?;
    let shape = &model.graph.node(layer).output_shape;
    let sides = match shape[..] {
        [h, w, c] => [c, h, w],
        _ => [shape.iter().product(), 1, 1],
    };
    match numbers.iter().zip(sides).find(|(at, side)| *at >= side) {
        None => Ok((layer, numbers)),
        Some((at, side)) => Err(wrong(format!(
            "expected 0 to {} for `{name}` {shape:?}, got {at} in `{text}`",
            side - 1
        ))),
    }
}

/// With the layers whose names are most like the one that there is not.
fn unknown_layer(model: &Model, name: &str) -> String {
    let shared = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let mut names: Vec<&str> = model.graph.nodes().iter().map(|node| node.name.as_str()).collect();
    names.sort_by_key(|other| std::cmp::Reverse(shared(other)));
    format!(
        "expected a layer of `{}` (`atrous summary` lists them; `{}`, …), got `{name}`{}",
        model.graph.name,
        names[..names.len().min(3)].join("`, `"),
        did_you_mean(name, names.iter().copied()),
    )
}
