//! Whole networks against values computed by Keras in float64: every layer's output, the loss, all
//! gradients, the moving statistics. In f32 within the format's tolerances, in f64 (for images of
//! 96 pixels and less: the references are slow) to 1e-9.

mod common;

use atrous::activation::Activation;
use atrous::autograd::Gradients;
use atrous::context::no_grad;
use atrous::eval::metrics;
use atrous::models::{Head, Spec};
use atrous::nn::layers::Layer;
use atrous::nn::{
    ForwardOutput, Graph, Mode, Model, Node, TrainingGraph, classify_before_upsampling, fold_batch_norm,
};
use atrous::ops::{self, CategoricalGradient, PoolOptions};
use atrous::{DType, Device, Tensor, losses::Loss};
use common::{Gains, Npz, fill, hash_unit, input, json, numbers, sample_positions, text, variants};
use serde_json::Value;
use std::collections::HashMap;

/// A network of the golden files, under every tag there is.
fn nets(name: &str) -> Vec<(Value, Npz)> {
    let folders = variants().into_iter().map(|folder| folder.join("nets")).filter(|f| f.is_dir());
    let nets: Vec<_> = folders
        .map(|f| (json(f.join(format!("{name}.json"))), Npz::open(f.join(format!("{name}.npz")))))
        .collect();
    assert!(!nets.is_empty());
    nets
}

/// The graph behind a name like `mobilenetv2_96`, `vgg16_notop_224` or `deeplab_224`.
fn graph(name: &str) -> Graph {
    let (name, side) = name.rsplit_once('_').unwrap();
    let (name, head) = match name.strip_suffix("_notop") {
        Some(name) => (name, Head::None),
        None => (name, Head::Notebook),
    };
    let (name, classes) = match name {
        "mobilenet_v1" => ("mobilenet", 20),
        "deeplab" => ("deeplabv3plus", 21),
        _ => (name, 20),
    };
    Spec { head, ..Spec::new(name, side.parse().unwrap(), classes) }.graph().unwrap()
}

fn model(net: &Value, dtype: DType) -> Model {
    let (tag, gains) = (text(&net["seed_tag"]), Gains::of(net));
    let value = |path: &str, shape: atrous::Shape, _| {
        Tensor::from_slice(&fill(tag, path, &shape, &gains), shape).unwrap()
    };
    Model::with(graph(text(&net["net"])), value).to_dtype(dtype)
}

/// |got − expected| within `tolerance` · `scale`.
fn close(what: &str, got: f64, expected: f64, tolerance: f64, scale: f64) {
    let deviation = (got - expected).abs() / scale;
    assert!(
        deviation <= tolerance,
        "{what}: {got} and {expected}, off by {deviation:e} of {tolerance:e}"
    );
}

/// Values beside those expected: all are looked at before the first that is too far off ends the test.
#[derive(Default)]
struct Deviations(Vec<(String, [f64; 4])>);

impl Deviations {
    fn add(&mut self, what: &str, got: f64, expected: f64, tolerance: f64, scale: f64) {
        self.0.push((what.into(), [got, expected, tolerance, scale]));
    }

    fn check(&self, name: &str) {
        let off = |&(_, [got, expected, _, scale]): &(String, [f64; 4])| (got - expected).abs() / scale;
        let furthest = self.0.iter().max_by(|a, b| off(a).total_cmp(&off(b))).unwrap();
        println!("{name} {} is off by {:.1e}, others less", furthest.0, off(furthest));
        for (what, [got, expected, tolerance, scale]) in &self.0 {
            close(&format!("{name} {what}"), *got, *expected, *tolerance, *scale);
        }
    }
}

/// What the format allows in one mode and type.
struct Tolerance {
    layer: f64,
    l2: f64,
    loss: f64,
    gradient: f64,
    /// For what is stored as float32.
    stored: f64,
}

impl Tolerance {
    fn of(net: &Value, mode: &str, dtype: DType) -> Self {
        if dtype == DType::F64 {
            return Tolerance { layer: 1e-9, l2: 1e-9, loss: 1e-9, gradient: 1e-9, stored: 1e-6 };
        }
        match mode {
            "infer" => {
                let layer = if text(&net["net"]).starts_with("mobilenetv2") { 5e-5 } else { 2e-5 };
                Tolerance { layer, l2: 1e-5, loss: 1e-5, gradient: 1e-4, stored: layer }
            }
            _ => Tolerance { layer: 1e-3, l2: 1e-3, loss: 2e-4, gradient: 1e-3, stored: 1e-3 },
        }
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn absmax(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// The model with each activation that is part of a layer as a layer of its own.
fn with_separate_activations(model: &Model) -> Model {
    let nodes = model.graph.nodes();
    let side = nodes[0].output_shape[0];
    let mut graph = Graph::new(&model.graph.name, &nodes[0].name, [side, side, 3]);
    let mut ids = vec![graph.input()];
    for node in &nodes[1..] {
        let inputs: Vec<_> = node
            .inputs
            .iter()
            .map(|id| ids[nodes.iter().position(|n| n.name == model.graph.node(*id).name).unwrap()])
            .collect();
        let activation = node.layer.activation();
        let plain = node.layer.with_activation(Activation::Linear);
        let mut id = graph.add_named(&node.name, plain, &inputs).unwrap();
        if plain != node.layer {
            let name = format!("{}_activation", node.name);
            id = graph.add_named(&name, Layer::Activation(activation), &[id]).unwrap();
        }
        ids.push(id);
    }
    Model::with(graph, |path, _, _| model.parameter(path).unwrap().value.clone())
}

/// Where the first maximum of a window is not the same in both: (that of a, that of b).
fn first_maxima(a: &[f64], b: &[f64], shape: &[usize], size: usize, step: usize) -> Vec<(usize, usize)> {
    let &[height, width, channels] = shape else { panic!("pictures") };
    let mut differ = Vec::new();
    for image in 0..a.len() / (height * width * channels) {
        for (y, x) in (0..height - size + 1)
            .step_by(step)
            .flat_map(|y| (0..width - size + 1).step_by(step).map(move |x| (y, x)))
        {
            for channel in 0..channels {
                let cells = (0..size * size).map(|i| {
                    let row = (image * height + y + i / size) * width + x + i % size;
                    row * channels + channel
                });
                let first = |v: &[f64]| {
                    cells.clone().reduce(|best, i| if v[i] > v[best] { i } else { best }).unwrap()
                };
                let (of_a, of_b) = (first(a), first(b));
                if of_a != of_b {
                    differ.push((of_a, of_b));
                }
            }
        }
    }
    differ
}

/// Every layer's output in float64.
fn exact_layers(net: &Value, model: &Model, mode: &str) -> HashMap<String, Vec<f64>> {
    let (shape, values) = input(net);
    let x = Tensor::from_slice(&values, &shape[..]).unwrap().to_dtype(DType::F64);
    let mut layers = HashMap::new();
    let observe = &mut |name: &str, output: &Tensor| {
        layers.insert(name.to_string(), output.to_vec_f64());
    };
    let model = model.to_device(Device::Cpu).unwrap().to_dtype(DType::F64);
    let run = Mode { batch_statistics: mode == "train", gradients: false, dropout: None };
    no_grad(|| model.run_observed(&x, run, observe)).unwrap();
    layers
}

/// Decisions of ReLUs and maxima that rounding takes otherwise than float64 does: one of them moves gradients
/// by 1e-3 and more, which says nothing about the kernels. There may be a few, each on a value that
/// rounding explains.
struct Decisions<'a> {
    graph: &'a Graph,
    exact: HashMap<String, Vec<f64>>,
    /// How far a value may be from float64's, as a share of its layer's largest.
    rounding: f64,
    taken: usize,
    furthest: f64,
}

impl Decisions<'_> {
    /// What must be added to which elements of a layer's output, so that those who read it decide as float64.
    fn nudges(&mut self, name: &str, output: &[f64]) -> Vec<(usize, f32)> {
        let exact = &self.exact[name];
        let scale = absmax(exact);
        let node =
            |node: &&Node| !node.inputs.is_empty() && self.graph.node(node.inputs[0]).name == name;
        let mut nudges = Vec::new();
        for reader in self.graph.nodes().iter().filter(node) {
            let wrong = match reader.layer {
                Layer::MaxPooling2D(PoolOptions { pool: [size, _], stride: [step, _], .. }) => {
                    let shape = &self.graph.node(reader.inputs[0]).output_shape;
                    maxima_as(exact, output, shape, size, step)
                }
                Layer::Activation(Activation::Relu) => kinks_as(exact, output, f64::INFINITY),
                Layer::Activation(Activation::Relu6) => kinks_as(exact, output, 6.0),
                _ => continue,
            };
            for &(i, gap, _) in &wrong {
                let gap = gap / scale;
                assert!(
                    gap < self.rounding,
                    "{name}: {} and {} are no rounding apart",
                    output[i],
                    exact[i]
                );
                self.furthest = self.furthest.max(gap);
            }
            self.taken += wrong.len();
            nudges.extend(wrong.into_iter().map(|(i, _, by)| (i, by)));
        }
        nudges
    }
}

/// Elements that a ReLU (with a second kink at `six`) passes in one and not in the other, how far apart they
/// are, and the step that takes `got` beyond the kink, to the side where `exact` is.
fn kinks_as(exact: &[f64], got: &[f64], six: f64) -> Vec<(usize, f64, f32)> {
    let passes = |v: f64| v > 0.0 && v < six;
    let wrong = (0..got.len()).filter(|&i| passes(got[i]) != passes(exact[i]));
    let step = |i: usize| {
        let (g, e) = (got[i], exact[i]);
        let kink = if g.abs() < 3.0 { 0.0 } else { six };
        let by = if g == kink { 1e-6 * (e - g).signum() } else { 2.0 * (kink - g) } as f32;
        assert_eq!(passes((g as f32 + by) as f64), passes(e), "{g} moved by {by}, not to {e}");
        (i, (g - e).abs(), by)
    };
    wrong.map(step).collect()
}

/// The elements that are the first maximum of a window in `exact`, but not in `got`; how much smaller the
/// other is there; and the step that makes each the largest in `got`.
fn maxima_as(
    exact: &[f64],
    got: &[f64],
    shape: &[usize],
    size: usize,
    step: usize,
) -> Vec<(usize, f64, f32)> {
    let by = |g: usize, e: usize| 2.0 * (got[g] - got[e]) as f32 + f32::MIN_POSITIVE;
    let differ = first_maxima(got, exact, shape, size, step);
    differ.into_iter().map(|(g, e)| (e, exact[e] - exact[g], by(g, e))).collect()
}

/// What rounding explains in a mode: how far a value may be off, and how many decisions that may turn.
///
/// Normalized by its batch's own moments, a value has a share in the rounding of all others: TensorFlow's own
/// f32 is off by up to 1.6e-4 there.
fn rounding(mode: &str) -> (f64, usize) {
    if mode == "train" { (1e-3, 100000) } else { (1e-4, 1000) }
}

/// In f32, deciding as float64.
fn replay_deciding_as_f64(net: &Value, model: &Model, mode: &str) -> Replay {
    let model = with_separate_activations(model);
    let exact = exact_layers(net, &model, mode);
    let (rounding, most) = rounding(mode);
    let mut decisions = Decisions { graph: &model.graph, exact, rounding, taken: 0, furthest: 0.0 };
    let replayed =
        replay(net, &model, mode, DType::F32, &mut |name, output| decisions.nudges(name, output));
    let Decisions { taken, furthest, .. } = decisions;
    let name = text(&net["net"]);
    println!("{name} {mode}: {taken} decisions of f32 are not float64's, the furthest by {furthest:e}");
    assert!(taken <= most, "{name} {mode}: {taken} decisions differ from float64's");
    replayed
}

/// DeepLab's label map: one random class a block of 16×16 pixels.
fn pixel_labels(net: &Value) -> Tensor {
    let [batch, side] = ["batch", "size"].map(|key| net[key].as_u64().unwrap() as usize);
    let unit = hash_unit(text(&net["seed_tag"]), "labels");
    let blocks = side / 16;
    let label = |b: usize, y: usize, x: usize| {
        (21.0 * unit((b * blocks + y / 16) * blocks + x / 16)).floor() as f32
    };
    let places = (0..batch * side * side).map(|i| (i / side / side, i / side % side, i % side));
    let labels: Vec<f32> = places.map(|(b, y, x)| label(b, y, x)).collect();
    Tensor::from_slice(&labels, [batch, side, side]).unwrap()
}

struct Replay {
    pass: ForwardOutput,
    layers: HashMap<String, Vec<f64>>,
    loss: f64,
    gradients: Gradients,
    x: Tensor,
}

/// What is added to single elements of a layer's output, by the layer's name and that output:
/// (element, difference).
type Nudges<'a> = &'a mut dyn FnMut(&str, &[f64]) -> Vec<(usize, f32)>;

fn replay(net: &Value, model: &Model, mode: &str, dtype: DType, nudges: Nudges) -> Replay {
    let (shape, values) = input(net);
    let there = |tensor: Tensor| tensor.to_dtype(dtype).to_device(model.device()).unwrap();
    let x = there(Tensor::from_slice(&values, &shape[..]).unwrap()).leaf();
    let rows = shape[0];
    let labels = match text(&net["loss"]) {
        "scce" => pixel_labels(net),
        _ => {
            let labels = numbers(&net["labels"]);
            Tensor::from_slice(&labels, [rows, labels.len() / rows]).unwrap()
        }
    };
    let labels = there(labels);
    let weights =
        net.get("sw").map(|weights| there(Tensor::from_slice(&numbers(weights), [rows]).unwrap()));
    let run = Mode { batch_statistics: mode == "train", gradients: true, dropout: None };
    let mut layers = HashMap::new();
    let pass = model
        .run_edited(&x, run, &mut |name, output| {
            let values = output.to_vec_f64();
            let nudges = nudges(name, &values);
            layers.insert(name.to_string(), values);
            if nudges.is_empty() {
                return Ok(output);
            }
            let mut difference = vec![0.0; output.shape().elements()];
            nudges.iter().for_each(|&(i, by)| difference[i] = by);
            ops::add(&output, &there(Tensor::from_slice(&difference, output.shape())?))
        })
        .unwrap();
    let loss = match text(&net["loss"]) {
        "bce" => Loss::BinaryCrossentropy,
        "cce" => Loss::CategoricalCrossentropy { gradient: Some(CategoricalGradient::Keras) },
        "scce" => Loss::SparseCategoricalCrossentropy { ignore: None },
        other => panic!("no loss `{other}`"),
    };
    let loss = loss.from_logits(&pass.logits, &labels, weights.as_ref()).unwrap();
    let gradients = loss.backward().unwrap();
    Replay { pass, layers, loss: loss.item().unwrap(), gradients, x }
}

fn check(net: &Value, arrays: &mut Npz, mode: &str, dtype: DType, device: Device) {
    let model = model(net, dtype).to_device(device).unwrap();
    let replayed = replay(net, &model, mode, dtype, &mut |_, _| Vec::new());
    let t = Tolerance::of(net, mode, dtype);
    let name = format!("{} {mode} {dtype:?} on {device}", text(&net["net"]));
    let mut get = |key: &str| arrays.get(&format!("{mode}_{key}")).values;

    let rewritten = rewritten_logits(&model, &replayed.x, mode);
    for (what, key, got) in [
        ("output", "output", &replayed.pass.output),
        ("logits", "logits", &replayed.pass.logits),
        ("logits of the rewritten graph", "logits", &rewritten),
    ] {
        let (got, expected) = (got.to_vec_f64(), get(key));
        let positions = sample_positions(got.len(), if got.len() <= 200 { got.len() } else { 2048 });
        assert_eq!(positions.len(), expected.len(), "{name} {what}");
        let scale = absmax(&got);
        for (position, e) in positions.iter().zip(&expected) {
            close(&format!("{name} {what}"), got[*position], *e, t.layer, scale);
        }
    }
    if text(&net["loss"]) == "scce" {
        let classes = replayed.pass.logits.shape().last_length();
        let expected = get("argmax_u8");
        for logits in [&replayed.pass.logits, &rewritten] {
            let logits: Vec<f32> = logits.to_vec_f64().iter().map(|&v| v as f32).collect();
            let same = logits.chunks(classes).zip(&expected);
            let same = same.filter(|(row, e)| metrics::arg_max(row) as f64 == **e).count();
            let share = same as f64 / expected.len() as f64;
            assert!(share > 0.999, "{name}: the label maps agree on {share} of the pixels");
        }
    }
    close(
        &format!("{name} loss"),
        replayed.loss,
        net[format!("{mode}_loss")].as_f64().unwrap(),
        t.loss,
        net[format!("{mode}_loss")].as_f64().unwrap(),
    );

    let (l2, mean, samples) = (get("layer_l2"), get("layer_mean"), get("layer_samples"));
    let names = net["layer_names"].as_array().unwrap();
    assert_eq!(names.len(), l2.len());
    for (i, layer) in names.iter().enumerate() {
        let what = format!("{name} layer {}", text(layer));
        let got = &replayed.layers[text(layer)];
        close(&format!("{what} l2"), norm(got), l2[i], t.l2, l2[i]);
        let scale = absmax(got);
        let average = got.iter().sum::<f64>() / got.len() as f64;
        close(&format!("{what} mean"), average, mean[i], t.layer, scale);
        for (position, expected) in sample_positions(got.len(), 16).iter().zip(&samples[16 * i..]) {
            close(&what, got[*position], *expected, t.stored, scale);
        }
    }

    let replayed = match dtype == DType::F32 {
        true => replay_deciding_as_f64(net, &model, mode),
        false => replayed,
    };
    let (l2, largest, samples) = (get("grad_l2"), get("grad_absmax"), get("grad_samples"));
    let zero: Vec<&str> =
        net[format!("{mode}_grad_numerically_zero")].as_array().unwrap().iter().map(text).collect();
    let mut gradients = Deviations::default();
    for (i, path) in net["param_names"].as_array().unwrap().iter().enumerate() {
        let path = text(path);
        if zero.contains(&path) {
            continue;
        }
        let at = model.parameters.iter().position(|p| p.path == path).unwrap();
        let got = replayed.gradients.get(&replayed.pass.leaves[at]).unwrap().to_vec_f64();
        gradients.add(path, norm(&got), l2[i], t.gradient, l2[i]);
        let stored = if dtype == DType::F64 { t.stored } else { t.gradient };
        for (position, expected) in sample_positions(got.len(), 12).iter().zip(&samples[12 * i..]) {
            gradients.add(path, got[*position], *expected, stored, largest[i]);
        }
    }
    let by_input = replayed.gradients.get(&replayed.x).unwrap().to_vec_f64();
    let l2 = net[format!("{mode}_input_grad_l2")].as_f64().unwrap();
    let largest = net[format!("{mode}_input_grad_absmax")].as_f64().unwrap();
    gradients.add("the input", norm(&by_input), l2, t.gradient, l2);
    let samples = get("input_grad_samples");
    for (position, expected) in sample_positions(by_input.len(), 512).iter().zip(&samples) {
        gradients.add("the input", by_input[*position], *expected, t.gradient, largest);
    }
    gradients.check(&format!("{name} gradient of"));

    if mode == "train" {
        let (means, variances) = (get("new_moving_mean"), get("new_moving_variance"));
        let tolerance = if dtype == DType::F64 { 1e-6 } else { 1e-4 };
        for (i, bn) in net["bn_names"].as_array().unwrap().iter().enumerate() {
            for (kind, expected) in [("moving_mean", &means), ("moving_variance", &variances)] {
                let path = format!("{}/{kind}", text(bn));
                let at = model.parameters.iter().position(|p| p.path == path).unwrap();
                let got = replayed.pass.moving.iter().find(|(i, _)| *i == at).unwrap().1.to_vec_f64();
                for (position, expected) in sample_positions(got.len(), 8).iter().zip(&expected[8 * i..])
                {
                    let slack = tolerance * expected.abs() + 1e-6;
                    close(&format!("{name} {path}"), got[*position], *expected, 1.0, slack);
                }
            }
        }
    }
}

/// The logits of the graph with everything folded and moved that can be.
fn rewritten_logits(model: &Model, x: &Tensor, mode: &str) -> Tensor {
    let x = x.detach();
    if mode == "train" {
        let run = Mode { batch_statistics: true, gradients: false, dropout: None };
        return TrainingGraph::new(model).unwrap().run(model, &x, run).unwrap().logits;
    }
    let device = model.device();
    let folded = fold_batch_norm(&model.to_device(Device::Cpu).unwrap(), &[]).unwrap();
    let before = (model.graph.nodes().len(), folded.graph.nodes().len());
    let has_norms = model.parameters.iter().any(|p| p.path.ends_with("moving_mean"));
    // AlexNet's batch norms stand behind activations: nothing to fold them into.
    assert_eq!(before.1 < before.0, has_norms && !model.graph.name.starts_with("alexnet"));
    let rewritten = classify_before_upsampling(&folded, &[]).unwrap().to_device(device).unwrap();
    rewritten.run(&x, Mode::infer()).unwrap().logits
}

fn golden(name: &str, dtype: DType) {
    for (net, mut arrays) in nets(name) {
        for mode in net["modes"].as_array().unwrap() {
            check(&net, &mut arrays, text(mode), dtype, Device::Cpu);
        }
    }
}

/// The same through the CUDA kernels.
#[cfg(any(feature = "cuda", feature = "emulator"))]
fn golden_on_device(name: &str, modes: &[&str]) {
    let Some(device) = common::test_device() else { return };
    for (net, mut arrays) in nets(name) {
        for mode in net["modes"].as_array().unwrap().iter().map(text).filter(|m| modes.contains(m)) {
            check(&net, &mut arrays, mode, DType::F32, device);
        }
    }
}

macro_rules! golden {
    ($($test:ident: $net:literal $dtype:ident)*) => {
        $(#[test] fn $test() { golden($net, DType::$dtype) })*
    };
}

// The references take their time: in f64 the networks for images of 96 pixels and less, and the
// AlexNet-like one.
golden! {
    golden_alexnet_150_in_f32: "alexnet_150" F32
    golden_alexnet_150_in_f64: "alexnet_150" F64
    golden_vgg16_64_in_f32: "vgg16_64" F32
    golden_vgg16_64_in_f64: "vgg16_64" F64
    golden_vgg16_224_in_f32: "vgg16_224" F32
    golden_resnet50v2_64_in_f32: "resnet50v2_64" F32
    golden_resnet50v2_64_in_f64: "resnet50v2_64" F64
    golden_mobilenet_64_in_f32: "mobilenet_64" F32
    golden_mobilenet_64_in_f64: "mobilenet_64" F64
    golden_mobilenetv2_96_in_f32: "mobilenetv2_96" F32
    golden_mobilenetv2_96_in_f64: "mobilenetv2_96" F64
    golden_mobilenetv2_256_in_f32: "mobilenetv2_256" F32
    golden_deeplab_224_in_f32: "deeplab_224" F32
}

#[cfg(any(feature = "cuda", feature = "emulator"))]
mod on_device {
    use super::golden_on_device;

    #[test]
    fn golden_alexnet_150_on_device() {
        golden_on_device("alexnet_150", &["infer"]);
    }

    #[test]
    fn golden_mobilenet_64_on_device() {
        golden_on_device("mobilenet_64", &["infer", "train"]);
    }

    #[test]
    fn golden_deeplab_224_on_device() {
        golden_on_device("deeplab_224", &["infer"]);
    }

    /// All networks in all modes: hours in the emulator, seconds on a GPU.
    #[test]
    fn golden_networks_on_real_device() {
        if crate::common::real_device().is_none() {
            return;
        }
        let all = "alexnet_150 vgg16_64 vgg16_224 resnet50v2_64 mobilenet_64 \
                   mobilenetv2_96 mobilenetv2_256 deeplab_224";
        for name in all.split(' ') {
            golden_on_device(name, &["infer", "train"]);
        }
    }
}

#[test]
#[cfg(feature = "checkpoint")]
fn golden_layer_tables() {
    let folder = common::golden().join("layers");
    let summary = json(folder.join("SUMMARY.json"));
    let mut tables = 0;
    for file in common::files(&folder, "json") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        if name == "SUMMARY" {
            continue;
        }
        tables += 1;
        let expected = json(&file);
        let graph = graph(name);
        let got = atrous::nn::Summary::new(&graph).to_json(&graph);
        assert_eq!(got["total_params"], expected["total_params"], "{name}");
        assert_eq!(got["trainable_params"], expected["trainable_params_unfrozen"], "{name}");
        if let Some(of_all) = summary.get(name) {
            assert_eq!(got["total_params"], of_all["total"], "{name}");
        }
        let rows = |table: &Value| {
            let rows = table["layers"].as_array().unwrap().clone().into_iter();
            // The input is not among Keras' layers of a sequential model.
            let rows = rows.filter(|layer| layer["type"] != "InputLayer");
            rows.map(|layer| (text(&layer["name"]).to_string(), layer)).collect::<Vec<_>>()
        };
        let (got, expected) = (rows(&got), rows(&expected));
        assert_eq!(got.len(), expected.len(), "{name}");
        // Keras lists the layers of parallel branches by their depth; here they come as made.
        let by_name: HashMap<String, Value> = got.into_iter().collect();
        for (layer, mut expected) in expected {
            let got = by_name.get(&layer).unwrap_or_else(|| panic!("{name} has no `{layer}`"));
            if expected["type"] == "TFOpLambda" {
                // A bare function in Keras, a layer with a type and a setting here.
                expected["type"] = "Activation".into();
                expected["config"] = serde_json::json!({"activation": "relu"});
            }
            if expected["config"].get("rate").is_some() {
                // The tables were made with dropout switched off.
                expected["config"]["rate"] = got["config"]["rate"].clone();
            }
            for key in
                ["type", "output_shape", "params", "trainable_params", "inputs", "weights", "config"]
            {
                assert_eq!(got[key], expected[key], "{key} of `{layer}` in {name}");
            }
        }
    }
    assert_eq!(tables, 13);
}

#[test]
fn golden_parameter_counts() {
    for (name, all, trainable) in [
        ("alexnet_150", 777_695, 777_055),
        ("vgg16_224", 27_570_516, 27_570_516),
        ("resnet50v2_224", 75_218_452, 75_173_012),
        ("mobilenetv2_256", 2_283_604, 2_249_492),
        ("mobilenet_v1_notop_224", 3_228_864, 3_206_976),
        ("deeplab_224", 7_067_029, 7_048_117),
    ] {
        let model = Model::new(graph(name), 0);
        assert_eq!(model.count_parameters(), (all, trainable), "{name}");
        assert_eq!(model.graph.cost().parameters, all as u64, "{name}");
    }
}

/// With the base frozen, what trains is the head alone, as in the notebook.
#[test]
fn golden_trainable_counts_of_frozen_bases() {
    for (name, trainable) in
        [("vgg16_224", 12_855_828), ("resnet50v2_224", 51_653_652), ("mobilenetv2_256", 25_620)]
    {
        let mut model = Model::new(graph(name), 0);
        model.freeze_first(model.graph.base().len());
        assert_eq!(model.count_parameters().1, trainable, "{name}");
    }
}

fn bits(bytes: &[f64], n: usize) -> Vec<bool> {
    (0..n).map(|i| (bytes[i / 8] as u8) & (0x80 >> (i % 8)) != 0).collect()
}

/// The signs of the loss's gradient by the image, and what adding them does to the network.
#[test]
fn golden_fgsm() {
    for folder in variants().into_iter().filter(|f| f.join("fgsm.json").is_file()) {
        let golden = json(folder.join("fgsm.json"));
        let mut arrays = Npz::open(folder.join("fgsm.npz"));
        let mut net = golden["config"].clone();
        let fields = net.as_object_mut().unwrap();
        fields.insert("seed_tag".into(), golden["seed_tag"].clone());
        fields.entry("input_name").or_insert("input".into());
        let (tag, gains) = (text(&golden["seed_tag"]), Gains::of(&net));
        let model = Model::with(graph("mobilenetv2_224"), |path, shape, _| {
            Tensor::from_slice(&fill(tag, path, &shape, &gains), shape).unwrap()
        });
        let (shape, clean) = input(&net);
        let probabilities = |values: &[f32]| {
            let x = Tensor::from_slice(values, &shape[..]).unwrap();
            no_grad(|| model.run(&x, Mode::infer())).unwrap().output.to_vec_f64()
        };
        for (got, expected) in probabilities(&clean).iter().zip(numbers(&golden["probs_clean"])) {
            close("clean probability", *got, expected, 1e-5, 1.0);
        }
        for label in ["top", "other", "seedzero"] {
            let mut row = vec![0.0f32; 20];
            if label != "seedzero" {
                row[golden["classes"][label].as_u64().unwrap() as usize] = 1.0;
            }
            let x = Tensor::from_slice(&clean, &shape[..]).unwrap().leaf();
            let pass = model.run(&x, Mode::infer()).unwrap();
            let row = Tensor::from_slice(&row, [1, 20]).unwrap();
            let loss = Loss::CategoricalCrossentropy { gradient: Some(CategoricalGradient::Keras) }
                .from_logits(&pass.logits, &row, None)
                .unwrap();
            let gradient = loss.backward().unwrap().get(&x).unwrap().to_vec_f64();
            let expected = &golden[label];
            close(label, loss.item().unwrap(), expected["loss"].as_f64().unwrap(), 1e-5, 1.0);
            let n = gradient.len();
            let negative = bits(&arrays.get(&format!("{label}_sign_negative_bits")).values, n);
            let reliable = bits(&arrays.get(&format!("{label}_reliable_bits")).values, n);
            let right = |wanted: &dyn Fn(usize) -> bool| {
                let all: Vec<usize> = (0..n).filter(|&i| wanted(i)).collect();
                let same = all.iter().filter(|&&i| (gradient[i] < 0.0) == negative[i]).count();
                same as f64 / all.len() as f64
            };
            let (sure, all) = (right(&|i| reliable[i]), right(&|_| true));
            println!("{label}: signs {sure:.6} of the reliable pixels, {all:.6} of all");
            assert!(sure >= 0.999 && all >= 0.995, "{label}: signs agree on {sure} and {all}");
            let at_eps = arrays.get(&format!("{label}_adv_probs")).values;
            for (i, eps) in numbers(&golden["eps"]).into_iter().enumerate() {
                let step = |by: &dyn Fn(usize) -> bool| -> Vec<f32> {
                    let sign = |i: usize| if by(i) { -1.0 } else { 1.0 };
                    let moved = |i: usize| clean[i] + (eps * sign(i)) as f32;
                    (0..n).map(|i| moved(i).clamp(-1.0, 1.0)).collect()
                };
                for (tolerance, adversarial) in
                    [(1e-5, step(&|i| negative[i])), (2e-2, step(&|i| gradient[i] < 0.0))]
                {
                    let got = probabilities(&adversarial);
                    for (got, expected) in got.iter().zip(&at_eps[20 * i..]) {
                        close(&format!("{label} at {eps}"), *got, *expected, tolerance, 1.0);
                    }
                }
            }
        }
    }
}
