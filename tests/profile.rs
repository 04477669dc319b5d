//! `atrous profile` and `atrous bench ops --shape` as a person uses them, and FLOPs counted a second time.
#![cfg(feature = "cli")]

mod command;

use assert_cmd::Command;
use atrous::models::{Head, Spec};
use atrous::nn::layers::Layer;
use atrous::nn::{Graph, PlanTable, Purpose};
use atrous::profile::Profile;
use atrous::{Device, models};
use command::{BINARY, done};
use serde_json::Value;
use std::fs;

/// What the command says on standard error when it refuses something.
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_network_is_profiled_step_by_step_and_leaves_a_drawing_a_trace_and_json() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a/b");
    let table = done(&["profile", "mobilenetv2", "--size", "32", "--out", out.to_str().unwrap()]);
    let profile = Profile::read(out.join("profile.json")).unwrap();
    assert_eq!((profile.model.as_str(), &profile.input[..]), ("mobilenetv2", &[1, 32, 32, 3][..]));
    for words in
        ["MFLOP", "FLOP/B", "% roof", "1×1 GEMM", "forward: the steps of a pass take", "roofline.svg"]
    {
        assert!(table.contains(words), "{words}\n{table}");
    }
    for step in &profile.steps {
        let row = format!("{:>4}  {}", step.number, step.label().chars().take(30).collect::<String>());
        assert!(table.contains(&row), "{row}\n{table}");
    }
    assert!(table.contains(&format!("ms: {:.1} %", 100.0 * profile.forward.ratio())), "{table}");
    let svg = fs::read_to_string(out.join("roofline.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("Conv1"), "{svg}");
    let trace: Value =
        serde_json::from_str(&fs::read_to_string(out.join("trace.json")).unwrap()).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > profile.steps.len());
}

#[test]
fn json_is_all_that_is_printed_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let arguments =
        ["profile", "alexnet", "--size", "108", "--train", "--batch", "2", "--json", "--out", out];
    let printed: Profile = serde_json::from_str(&done(&arguments)).unwrap();
    assert_eq!(printed, Profile::read(folder.path().join("profile.json")).unwrap());
    assert_eq!((printed.purpose, printed.input[0]), (Purpose::Training, 2));
    assert!(printed.loss.is_some() && printed.steps.iter().any(|step| step.backward.is_some()));
}

#[test]
fn what_cannot_be_profiled_is_refused_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, words) in [
        (&["profile", "lenet"][..], "'lenet'"),
        (&["profile", "vgg16", "--size", "16"], "of at least 2×2"),
        (&["profile", "vgg16", "--size", "0"], "expected pictures of 1 to 4096 pixels"),
        (&["profile", "alexnet", "--batch", "0"], "0 is not in 1..=65535"),
        (&["profile"], "<NETWORK>"),
        (&["profile", "alexnet", "--checkpoint", "x"], "cannot be used with"),
        (&["profile", "--checkpoint", "/no/such/file"], "/no/such/file"),
        (&["profile", "vgg16", "--weights", "/no/such/file.h5"], "/no/such/file.h5"),
        (&["profile", "alexnet", "--out", file], "not a folder"),
        (&["profile", "alexnet", "--out", "/proc/nowhere"], "/proc/nowhere"),
    ] {
        let error = refused(arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn an_operator_is_timed_on_a_shape_of_one_s_own_with_its_spread_and_the_machine() {
    let own = ["bench", "ops", "conv2d", "--shape", "1x16x16x8", "--filters", "4", "--dilation", "2"];
    let table = done(&own);
    assert!(
        table.contains("conv2d/1x16x16x8_f4_k3_s1_d2") && table.contains("fwd quartiles"),
        "{table}"
    );
    assert!(table.contains(" threads on ") && table.contains(" core"), "{table}");
    let json: Value = serde_json::from_str(&done(&[&own[..], &["--json"]].concat())).unwrap();
    assert!(
        json["machine"]["cores"].as_u64().unwrap() > 0 && json["machine"]["isa"].is_string(),
        "{json}"
    );
    let [line] = &json["results"].as_array().unwrap()[..] else { panic!("{json}") };
    let [low, high] = [0, 1].map(|i| line["fwd_quarters_ms"][i].as_f64().unwrap());
    let median = line["fwd_ms"].as_f64().unwrap();
    assert!(low <= median && median <= high && median > 0.0, "{json}");
}

#[test]
fn a_shape_that_is_none_or_does_not_fit_is_refused_with_what_was_expected() {
    let of = |arguments: &[&str]| refused(&[&["bench", "ops"], arguments].concat());
    for (arguments, words) in [
        (&["conv2d", "--shape", "16x56xx64"][..], "expected lengths like 16x56x56x64, got `16x56xx64`"),
        (&["conv2d", "--shape", "3x8"], "expected --shape [N, H, W, C], got 3x8"),
        (&["conv3d", "--shape", "3x8"], "`conv3d` is none of `conv2d`"),
        (&["--shape", "3x8"], "expected one operator before it, got 0"),
        (&["relu", "--shape", "3x8", "--kernel", "3"], "it has no --kernel"),
        (&["conv2d", "--kernel", "3"], "--shape"),
        (&["conv2d", "--shape", "1x4x4x3", "--kernel", "0"], "0 is not in 1.."),
        (&["conv2d", "--shape", "1x4x4x3", "--kernel", "5", "--padding", "valid"], "5"),
    ] {
        let error = of(arguments);
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
    assert!(refused(&["bench", "nets", "--shape", "3x8"]).contains("`bench ops OPERATOR`"));
}

/// Convolutions and dense layers as the papers' tables have them: multiply-adds and outputs with a bias.
#[derive(Default)]
struct Count {
    multiply_adds: u64,
    biases: u64,
}

impl Count {
    /// A convolution of `kernel`² taps that makes `side`² pixels of `filters` channels.
    fn conv(&mut self, side: u64, kernel: u64, channels: u64, filters: u64, bias: bool) {
        self.multiply_adds += side * side * filters * kernel * kernel * channels;
        self.biases += if bias { side * side * filters } else { 0 };
    }

    fn depthwise(&mut self, side: u64, channels: u64) {
        self.multiply_adds += side * side * channels * 9;
    }

    fn dense(&mut self, inputs: u64, units: u64) {
        self.multiply_adds += inputs * units;
        self.biases += units;
    }

    fn flops(&self) -> u64 {
        2 * self.multiply_adds + self.biases
    }
}

/// Table 2 of Sandler et al., 2018: expansion, channels, repeats, first stride.
fn mobilenet_v2() -> Count {
    let mut count = Count::default();
    count.conv(112, 3, 3, 32, false);
    let (mut side, mut channels) = (112, 32);
    let rows = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ];
    for (expansion, filters, repeats, first_stride) in rows {
        for repeat in 0..repeats {
            let wide = expansion * channels;
            if expansion > 1 {
                count.conv(side, 1, channels, wide, false);
            }
            side /= if repeat == 0 { first_stride } else { 1 };
            count.depthwise(side, wide);
            count.conv(side, 1, wide, filters, false);
            channels = filters;
        }
    }
    count.conv(7, 1, 320, 1280, false);
    count
}

/// Configuration D of Simonyan and Zisserman, 2015.
fn vgg16() -> Count {
    let mut count = Count::default();
    let mut channels = 3;
    for (side, filters, convolutions) in
        [(224, 64, 2), (112, 128, 2), (56, 256, 3), (28, 512, 3), (14, 512, 3)]
    {
        for _ in 0..convolutions {
            count.conv(side, 3, channels, filters, true);
            channels = filters;
        }
    }
    count
}

/// Table 1 of He et al., 2015, with the stride in a stack's last block, as Keras has it.
fn resnet50_v2() -> Count {
    let mut count = Count::default();
    count.conv(112, 7, 3, 64, true);
    let (mut side, mut channels) = (56, 64);
    for (filters, blocks) in [(64, 3), (128, 4), (256, 6), (512, 3)] {
        for block in 1..=blocks {
            let last = block == blocks && filters < 512;
            let small = if last { side / 2 } else { side };
            if block == 1 {
                count.conv(side, 1, channels, 4 * filters, true);
            }
            count.conv(side, 1, channels, filters, false);
            count.conv(small, 3, filters, filters, false);
            count.conv(small, 1, filters, 4 * filters, true);
            (side, channels) = (small, 4 * filters);
        }
    }
    count
}

/// FLOPs of a graph's layers with multiplications by weights.
fn weighted(graph: &Graph) -> u64 {
    let has_weights =
        |layer| matches!(layer, Layer::Conv2D(_) | Layer::DepthwiseConv2D(_) | Layer::Dense(_));
    graph.nodes().iter().filter(|node| has_weights(node.layer)).map(|node| node.cost.flops).sum()
}

#[test]
fn flops_are_those_counted_from_the_papers_tables_for_three_networks() {
    let published = |flops: u64, billions: f64| (flops as f64 / 2e9 / billions - 1.0).abs() < 0.01;
    for (name, mut count) in
        [("mobilenetv2", mobilenet_v2()), ("vgg16", vgg16()), ("resnet50v2", resnet50_v2())]
    {
        let base = Spec { head: Head::None, ..Spec::new(name, 224, 20) }.graph().unwrap();
        assert_eq!(weighted(&base), count.flops(), "{name}");
        // With ImageNet's classifiers on them, the figures that papers and model zoos give.
        match name {
            "mobilenetv2" => {
                count.dense(1280, 1000);
                assert!(published(count.flops(), 0.300), "{}", count.flops());
            }
            "vgg16" => {
                count.dense(25088, 4096);
                count.dense(4096, 4096);
                count.dense(4096, 1000);
                assert!(published(count.flops(), 15.47), "{}", count.flops());
            }
            _ => {}
        }
    }
}

#[test]
fn a_profile_s_steps_have_the_flops_of_all_layers_and_each_layer_once() {
    for (name, batch) in [("mobilenetv2", 1), ("vgg16", 3), ("resnet50v2", 2)] {
        let graph = models::by_name(name, 224, 20).unwrap();
        let plan = PlanTable::new(&graph, Device::Cpu, Purpose::Training, batch).unwrap();
        let steps: u64 = plan.steps.iter().map(|step| step.cost.forward.flops).sum();
        // What training leaves out are the layers of zeros that become a convolution's own padding.
        let left: u64 = plan.steps.iter().map(|step| step.layers.len() as u64).sum();
        let gone = graph.nodes().iter().filter(|node| {
            matches!(node.layer, Layer::ZeroPadding2D(_))
                && !plan.steps.iter().any(|step| step.layers.contains(&node.name))
        });
        let (gone, count) =
            gone.fold((0, 0), |(flops, count), node| (flops + node.cost.flops, count + 1));
        assert_eq!(steps, batch as u64 * (graph.cost().flops - gone), "{name}");
        assert_eq!(left + count, graph.nodes().len() as u64, "{name}");
    }
}
