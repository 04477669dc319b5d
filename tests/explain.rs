//! `atrous explain`: the page in a real browser, its numbers computed again here from the image and the
//! weights.
#![cfg(feature = "cli")]

mod command;

use assert_cmd::Command;
use atrous::data::image::fit;
use atrous::data::image_files::{read_image, write_png};
use atrous::data::synthetic;
use atrous::models;
use atrous::nn::Model;
use atrous::nn::layers::{Conv2D, Layer, Mode};
use atrous::prelude::*;
use atrous::train::TrainConfig;
use atrous::weights::{self, Origin};
use command::{BINARY, done};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SIDE: usize = 64;

/// A folder with a made-up image.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image.png");
    write_png(&image, &synthetic::generate(1, 3).image).unwrap();
    (folder, image)
}

/// The page of a network as it begins, and what was printed.
fn explained(folder: &Path, image: &Path, model: &str, more: &[&str]) -> (PathBuf, String) {
    let (out, side) = (folder.join(model), SIDE.to_string());
    let mut arguments = vec!["explain", image.to_str().unwrap(), "--model", model, "--size", &side];
    arguments.extend(["--out", out.to_str().unwrap()]);
    arguments.extend(more);
    let printed = done(&arguments);
    (out.join("explain.html"), printed)
}

fn refused(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).arg("explain").args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_terminal_has_classes_and_a_line_a_layer_and_the_page_is_one_file() {
    let (folder, image) = folder();
    let more = ["--pixel", "Conv1:3:5:7", "--quick"];
    let (page, printed) = explained(folder.path(), &image, "mobilenetv2", &more);
    for part in
        ["no --weights", "class ", "probability", "explained: the logit of ", "output shape", "dead"]
    {
        assert!(printed.contains(part), "{part} is not in\n{printed}");
    }
    let graph = models::by_name("mobilenetv2", SIDE, 20).unwrap();
    for node in graph.nodes() {
        assert!(
            printed.lines().any(|line| line.starts_with(&format!("{} ", node.name))),
            "{}",
            node.name
        );
    }
    assert!(
        printed.contains("`Conv1` (5, 7) of channel 3") && printed.contains("the engine: "),
        "{printed}"
    );
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.len() < 8_000_000, "{} bytes", html.len());
    assert!(!html.contains("http://") && !html.contains("https://"), "the page fetches something");
    assert_eq!(html.matches("</html>").count(), 1);
}

#[test]
fn what_cannot_be_explained_is_an_error_that_says_what_to_do() {
    let (folder, image) = folder();
    let (image, text) = (image.to_str().unwrap(), folder.path().join("a.txt"));
    fs::write(&text, "no image").unwrap();
    let net = ["--model", "mobilenetv2", "--size", "64"];
    let with = |image, more: &[&'static str]| refused(&[&[image], &net[..], more].concat());
    let cases = [
        (with(text.to_str().unwrap(), &[]), "expected a JPEG file (FF D8 …), PNG or WebP"),
        (with(image, &["--channel", "Conv9:1"]), "got `Conv9`"),
        (with(image, &["--channel", "Conv1"]), "expected LAYER:CHANNEL, got `Conv1`"),
        (with(image, &["--channel", "Conv1:32"]), "expected 0 to 31 for `Conv1`"),
        (with(image, &["--pixel", "Conv1:0:32:0"]), "got 32 in `Conv1:0:32:0`"),
        (with(image, &["--class", "unicorn"]), "got `unicorn`"),
        (refused(&[image, "--model", "deeplabv3plus", "--size", "50"]), "multiples of 16, not 50"),
        (refused(&[image, "--model", "alexnet", "--size", "20"]), "at least"),
        (refused(&[image]), "--model"),
        (refused(&[image, "--model", "mobilenet", "--checkpoint", "x"]), "cannot be used with"),
    ];
    for (error, part) in cases {
        assert!(error.contains(part), "expected `{part}` in: {error}");
    }
}

/// What the browser shows: elements by id, with their data attributes.
struct Shown {
    html: String,
}

impl Shown {
    /// Opens a page at a hash in headless Chromium; nothing may have been told on the console.
    fn open(page: &Path, hash: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let output = std::process::Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
                "--dump-dom",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("--virtual-time-budget=20000")
            .arg(format!("file://{}#{hash}", page.display()))
            .output()
            .expect("chromium");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let console: Vec<&str> = told.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(console.is_empty(), "{hash}: {console:?}");
        Shown { html: String::from_utf8(output.stdout).unwrap() }
    }

    /// The data attributes of the first tag that has this text in it.
    fn data(&self, tag: &str) -> HashMap<String, String> {
        let at = self.html.find(tag).unwrap_or_else(|| panic!("no {tag}"));
        let from = self.html[..=at].rfind('<').unwrap();
        let text = &self.html[from..from + self.html[from..].find('>').unwrap()];
        let pairs = text.split("data-").skip(1).filter_map(|part| part.split_once("=\""));
        pairs
            .map(|(key, value)| (key.to_string(), value.split('"').next().unwrap().to_string()))
            .collect()
    }

    fn number(&self, tag: &str, key: &str) -> f64 {
        self.data(tag)[key].parse().unwrap()
    }
}

/// A network that the command is given, and every layer's output.
struct Reference {
    model: Model,
    x: Tensor,
    outputs: HashMap<String, Tensor>,
}

impl Reference {
    fn new(name: &str, image: &Path) -> Self {
        let spec = models::Spec::new(name, SIDE, models::default_classes(name));
        let config = TrainConfig::new(spec.clone());
        let mut values = fit(&read_image(image).unwrap(), SIDE, config.fit).unwrap();
        config.preprocess.apply(&mut values);
        let x = Tensor::from_slice(&values, [1, SIDE, SIDE, 3]).unwrap();
        // Through random weights signals fade: the statistics of this very image hold them up.
        let mut model = Model::new(spec.graph().unwrap().with_batch_norm_momentum(0.0), 0);
        let own = Mode { batch_statistics: true, ..Mode::infer() };
        let moving = model.run(&x, own).unwrap().moving;
        model.update_moving(moving).unwrap();
        let mut outputs = HashMap::new();
        let mut keep =
            |name: &str, output: &Tensor| drop(outputs.insert(name.to_string(), output.detach()));
        model.run_observed(&x, Mode::infer(), &mut keep).unwrap();
        Reference { model, x, outputs }
    }

    /// Its weights as a file for the command.
    fn save(&self, folder: &Path) -> PathBuf {
        let path = folder.join("weights.safetensors");
        let parameters = self.model.parameters.iter();
        let tensors: Vec<(String, Tensor)> =
            parameters.map(|parameter| (parameter.path.clone(), parameter.value.clone())).collect();
        weights::save(&path, &tensors, Origin::Keras).unwrap();
        path
    }

    fn layer(&self, name: &str) -> (Layer, Vec<&str>, Vec<usize>) {
        let graph = &self.model.graph;
        let node = graph.nodes().iter().find(|node| node.name == name).unwrap();
        let inputs = node.inputs.iter().map(|id| graph.node(*id).name.as_str()).collect();
        (node.layer, inputs, node.output_shape.clone())
    }

    fn parameter(&self, path: String) -> Vec<f64> {
        self.model.parameter(&path).unwrap().value.to_vec_f64()
    }

    /// The products of a number, straight from the definition, and the bias.
    fn products(&self, name: &str, [y, x, c]: [usize; 3]) -> (Vec<[f64; 2]>, f64) {
        let (layer, inputs, _) = self.layer(name);
        let input = &self.outputs[inputs[0]];
        let (values, shape) = (input.to_vec_f64(), input.shape());
        let at = |y: usize, x: usize, c: usize| values[(y * shape[2] + x) * shape[3] + c];
        let window = |kernel: [usize; 2], stride: [usize; 2], padding: Padding| {
            let before =
                |axis: usize| padding.resolve(shape[axis + 1], kernel[axis], stride[axis]).unwrap().1;
            let (top, left) = (before(0), before(1));
            let mut cells = Vec::new();
            for ky in 0..kernel[0] {
                for kx in 0..kernel[1] {
                    let iy = (y * stride[0] + ky).wrapping_sub(top);
                    let ix = (x * stride[1] + kx).wrapping_sub(left);
                    if iy < shape[1] && ix < shape[2] {
                        cells.push((ky * kernel[1] + kx, iy, ix));
                    }
                }
            }
            cells
        };
        match layer {
            Layer::Conv2D(Conv2D { kernel, stride, padding, filters, use_bias, .. }) => {
                let weights = self.parameter(format!("{name}/kernel"));
                let cells = window(kernel, stride, padding);
                let all = cells.iter().flat_map(|&(tap, iy, ix)| {
                    let (weights, at) = (&weights, &at);
                    (0..shape[3])
                        .map(move |i| [at(iy, ix, i), weights[(tap * shape[3] + i) * filters + c]])
                });
                (all.collect(), if use_bias { self.parameter(format!("{name}/bias"))[c] } else { 0.0 })
            }
            Layer::DepthwiseConv2D(layer) => {
                let weights = self.parameter(format!("{name}/depthwise_kernel"));
                let cells = window(layer.kernel, layer.stride, layer.padding);
                let all =
                    cells.iter().map(|&(tap, iy, ix)| [at(iy, ix, c), weights[tap * shape[3] + c]]);
                (all.collect(), 0.0)
            }
            Layer::BatchNormalization(norm) => {
                let of = |kind: &str| self.parameter(format!("{name}/{kind}"))[c];
                let scale = of("gamma") / (of("moving_variance") + norm.epsilon).sqrt();
                (vec![[at(y, x, c), scale]], of("beta") - scale * of("moving_mean"))
            }
            Layer::Dense(dense) => {
                let weights = self.parameter(format!("{name}/kernel"));
                let all = values.iter().enumerate().map(|(i, &v)| [v, weights[i * dense.units + c]]);
                (all.collect(), self.parameter(format!("{name}/bias"))[c])
            }
            Layer::Add => {
                let values = |from: &&str| {
                    let output = &self.outputs[*from];
                    [output.to_vec_f64()[(y * output.shape()[2] + x) * output.shape()[3] + c], 1.0]
                };
                (inputs.iter().map(values).collect(), 0.0)
            }
            Layer::GlobalAveragePooling2D => {
                let n = shape[1] * shape[2];
                ((0..n).map(|i| [values[i * shape[3] + c], 1.0 / n as f64]).collect(), 0.0)
            }
            _ => panic!("{name}"),
        }
    }

    /// The gradient of a class's logit by a number, by central differences in f64: no tape. A ReLU6 decides as
    /// it did in f32: near 0 and 6 another rounding decides otherwise, and then the gradient is another.
    fn gradient(&self, name: &str, [y, x, c]: [usize; 3], class: usize) -> f64 {
        let (model, image) = (self.model.to_dtype(DType::F64), self.x.to_dtype(DType::F64));
        let logit = |change: f64| {
            let mut seen = HashMap::<String, Vec<f64>>::new();
            let pass = model.run_edited(&image, Mode::infer(), &mut |layer, output| {
                let (mut values, shape) = (output.to_vec_f64(), output.shape());
                if let (Layer::Activation(Activation::Relu6), inputs, _) = self.layer(layer) {
                    let decided = self.outputs[layer].to_vec_f64();
                    for ((value, decided), &x) in values.iter_mut().zip(decided).zip(&seen[inputs[0]]) {
                        *value = if decided > 0.0 && decided < 6.0 { x } else { decided };
                    }
                }
                if layer == name {
                    values[if shape.len() == 4 { (y * shape[2] + x) * shape[3] + c } else { c }] +=
                        change;
                }
                let edited = Tensor::from_slice(&values, shape);
                seen.insert(layer.to_string(), values);
                edited
            });
            let logits = pass.unwrap().logits.to_vec_f64();
            let classes =
                self.model.graph.node(self.model.graph.output()).output_shape.last().copied().unwrap();
            logits.iter().skip(class).step_by(classes).sum::<f64>()
        };
        let step = 1e-5;
        (logit(step) - logit(-step)) / (2.0 * step)
    }
}

#[test]
fn integrated_gradients_are_complete_within_one_percent_and_the_attack_has_nine_sizes() {
    let (folder, image) = folder();
    let out = folder.path().to_str().unwrap();
    done(&["explain", image.to_str().unwrap(), "--model", "alexnet", "--out", out]);
    let page = folder.path().join("explain.html");
    let html = fs::read_to_string(&page).unwrap();
    let number = |before: &str| -> f64 {
        let rest = html.split(before).nth(1).unwrap_or_else(|| panic!("no `{before}`"));
        rest.split([';', ':']).next().unwrap().parse().unwrap()
    };
    let (sum, rise) = (number("They sum to "), number("the logit rises by "));
    let side = models::default_side("alexnet");
    let spec = models::Spec::new("alexnet", side, models::default_classes("alexnet"));
    let (model, config) = (Model::new(spec.graph().unwrap(), 0), TrainConfig::new(spec));
    let logits = |mut values: Vec<f32>| {
        config.preprocess.apply(&mut values);
        let x = Tensor::from_slice(&values, [1, side, side, 3]).unwrap();
        model.run(&x, Mode::infer()).unwrap().logits.to_vec_f64()
    };
    let seen = logits(fit(&read_image(&image).unwrap(), side, config.fit).unwrap());
    let black = logits(vec![0.0; side * side * 3]);
    let class = (0..seen.len()).max_by(|&a, &b| seen[a].total_cmp(&seen[b])).unwrap();
    let expected = seen[class] - black[class];
    assert!((rise - expected).abs() <= 0.002 * expected.abs(), "{rise} {expected}");
    assert!((sum - expected).abs() <= 0.012 * expected.abs(), "{sum} {expected}");
    let sizes: Vec<&str> =
        html.split("data-epsilon=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(sizes, ["0", "1", "2", "3", "4", "6", "8", "12", "16"]);
}

#[test]
#[ignore = "needs chromium"]
fn the_numbers_that_a_browser_shows_are_those_computed_here_from_image_and_weights() {
    let (folder, image) = folder();
    let reference = Reference::new("mobilenetv2", &image);
    let weights = reference.save(folder.path());
    let more = ["--quick", "--weights", weights.to_str().unwrap()];
    let (page, _) = explained(folder.path(), &image, "mobilenetv2", &more);
    let mut gradients = 0;
    for name in [
        "Conv1",
        "bn_Conv1",
        "expanded_conv_depthwise",
        "block_2_expand",
        "block_3_depthwise",
        "block_5_add",
        "block_12_project_BN",
        "Conv_1",
        "global_average_pooling2d",
        "dense",
    ] {
        let shown = Shown::open(&page, &format!("layer={name}&y=3&x=2"));
        assert_eq!(
            shown.data("<html")["images"],
            shown.data("<html")["loaded"],
            "{name}: an image is missing"
        );
        let place = shown.data("id=\"where\"");
        assert_eq!(place["layer-name"], name);
        let at = ["y", "x", "channel-number"].map(|key| place[key].parse::<usize>().unwrap());
        let (products, bias) = reference.products(name, at);
        let sum: f64 = products.iter().map(|[a, b]| a * b).sum::<f64>() + bias;
        let size: f64 = products.iter().map(|[a, b]| (a * b).abs()).sum::<f64>() + bias.abs() + 1e-6;

        let forward = |key: &str| shown.number("id=\"forward\"", key);
        assert_eq!(forward("terms") as usize, products.len(), "{name}");
        assert!((forward("sum") - sum).abs() <= 1e-6 * size, "{name}: {} {sum}", forward("sum"));
        // Of the last layer the browser makes a probability, as the engine does.
        assert!((forward("value") - forward("engine")).abs() <= 1e-5 * size, "{name}");
        if name != "dense" {
            assert!((forward("value") - sum).abs() <= 1e-6 * size, "{name}");
        }
        let largest = products.iter().map(|[a, b]| (a * b).abs()).fold(0.0, f64::max);
        let first = shown.number("<tr data-a", "a") * shown.number("<tr data-a", "b");
        assert!((first.abs() - largest).abs() <= 1e-6 * size, "{name}: {first} {largest}");

        let backward = |key: &str| shown.number("id=\"backward\"", key);
        let class = shown.number("id=\"where\"", "class") as usize;
        let expected = match name {
            // The gradient of logits by logits.
            "dense" => f64::from(u8::from(at[2] == class)),
            _ => reference.gradient(name, at, class),
        };
        for key in ["sum", "tape"] {
            let off = (backward(key) - expected).abs();
            assert!(off <= 1e-3 * expected.abs() + 1e-7, "{name} {key}: {} {expected}", backward(key));
        }
        gradients += usize::from(expected.abs() > 1e-5);
    }
    assert!(gradients >= 5, "{gradients} gradients that are no zeros");
}

#[test]
#[ignore = "needs chromium"]
fn a_page_of_a_network_that_labels_pixels_has_its_branches_and_follows_links_and_unknown_places() {
    let (folder, image) = folder();
    let (page, _) = explained(folder.path(), &image, "deeplabv3plus", &[]);
    for (hash, told) in [
        ("layer=concatenate", ""),
        ("layer=conv2d_3&y=1&x=1", "tap"),
        ("layer=up_sampling2d_2", "bilinear"),
        ("layer=nowhere", "There is no layer “nowhere”."),
        ("layer=conv2d_3&channel=99999", "This page has no numbers of channel 99999"),
        ("theme=dark", "Under attack"),
    ] {
        let shown = Shown::open(&page, hash);
        assert!(shown.html.contains(told), "{hash}: {told}");
        assert_eq!(shown.data("<html")["images"], shown.data("<html")["loaded"], "{hash}");
        let off = shown.number("id=\"forward\"", "value") - shown.number("id=\"forward\"", "engine");
        assert!(off.abs() < 1e-3, "{hash}: {off}");
        let (sum, tape) =
            (shown.number("id=\"backward\"", "sum"), shown.number("id=\"backward\"", "tape"));
        assert!((sum - tape).abs() <= 1e-3 * tape.abs() + 1e-6, "{hash}: {sum} {tape}");
    }
    let html = fs::read_to_string(&page).unwrap();
    for part in ["Atrous branches", "Sanity check", "Receptive fields", "Integrated gradients"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(html.len() < 8_000_000, "{} bytes", html.len());
}
