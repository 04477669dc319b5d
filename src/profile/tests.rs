use super::*;
use crate::device::Device;
use crate::nn::layers::Layer;
use crate::nn::{Graph, Model, PlanTable};
use crate::ops::Padding;
use quick_xml::events::Event;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A convolution with its batch norm and activation, a residual, a pooling, and a classifier.
fn model() -> Model {
    let mut g = Graph::new("small", "input", [32, 32, 3]);
    let conv = |filters| Layer::conv2d(filters, 3).with_padding(Padding::Same);
    let relu = Layer::Activation(crate::Activation::Relu);
    let first = [conv(32), Layer::batch_normalization(), relu];
    let a = g.chain(g.input(), first).unwrap();
    let b = g.chain(a, [Layer::depthwise_conv2d(), relu, Layer::conv2d(32, 1)]).unwrap();
    let sum = g.add(Layer::Add, &[a, b]).unwrap();
    g.chain(sum, [Layer::max_pooling2d(2), Layer::Flatten, Layer::dense(5)]).unwrap();
    Model::new(g, 1)
}

fn measured(purpose: Purpose) -> (Profile, Trace) {
    profile(&model(), 2, purpose).unwrap()
}

#[test]
fn an_inference_profile_has_a_line_for_each_step_of_the_plan_and_its_sums_are_those_of_its_lines() {
    let (profile, _) = measured(Purpose::Inference);
    let plan = PlanTable::new(&model().graph, Device::Cpu, Purpose::Inference, 2).unwrap();
    assert_eq!(profile.steps.len(), plan.steps.len());
    for (step, planned) in profile.steps.iter().zip(&plan.steps) {
        assert_eq!(step.layers, planned.layers);
        assert_eq!(step.forward.flops, planned.cost.forward.flops);
        assert!(step.forward.time.median_ms > 0.0 && step.backward.is_none());
        let [low, high] = step.forward.time.quartiles_ms;
        assert!(low <= step.forward.time.median_ms && step.forward.time.median_ms <= high);
        assert!(step.pool_bytes.unwrap() <= step.pool_peak_bytes.unwrap());
    }
    let sum: f64 = profile.steps.iter().map(|step| step.forward.time.median_ms).sum();
    assert!((profile.forward.medians_ms - sum).abs() < 1e-9);
    assert!(profile.forward_backward.is_none() && profile.loss.is_none());
    let table = profile.to_string();
    let rows = table.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    assert_eq!(rows.count(), profile.steps.len(), "{table}");
    let cells = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let total = table.lines().find(|line| line.trim_start().starts_with("sum")).map(cells).unwrap();
    assert_eq!(total[1], format!("{:.1}", profile.flops()[0] as f64 / 1e6), "{table}");
    assert_eq!(total[3], format!("{sum:.3}"), "{table}");
    assert!(table.contains("forward: the steps of a pass take") && !table.contains("ms bwd"), "{table}");
}

#[test]
fn a_training_profile_has_backward_times_of_all_steps_that_a_gradient_comes_to() {
    let (profile, _) = measured(Purpose::Training);
    let of = |operator: &str| profile.steps.iter().find(|step| step.operator == operator).unwrap();
    for operator in ["Conv2D", "BatchNormalization", "DepthwiseConv2D", "MaxPooling2D", "Dense"] {
        let backward = of(operator).backward.unwrap();
        assert!(backward.time.median_ms > 0.0 && backward.flops > 0, "{operator}");
    }
    assert!(of("InputLayer").backward.is_none());
    let loss = profile.loss.unwrap();
    assert!(loss.forward.median_ms > 0.0 && loss.backward.median_ms > 0.0);
    let both = profile.forward_backward.unwrap();
    let sums: f64 = profile
        .steps
        .iter()
        .map(|step| step.forward.time.median_ms + step.backward.map_or(0.0, |b| b.time.median_ms))
        .sum();
    assert!((both.medians_ms - sums - loss.forward.median_ms - loss.backward.median_ms).abs() < 1e-9);
    assert!(both.steps.median_ms > profile.forward.steps.median_ms);
    let table = profile.to_string();
    assert!(table.contains("ms bwd") && table.contains("loss (cross entropy)"), "{table}");
    assert!(table.contains("forward and backward: the steps of a pass take"), "{table}");
}

#[test]
fn a_profile_is_the_same_after_a_way_through_json() {
    let (profile, _) = measured(Purpose::Training);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("profile.json");
    std::fs::write(&path, profile.to_json().unwrap().to_string()).unwrap();
    assert_eq!(Profile::read(&path).unwrap(), profile);
    std::fs::write(&path, "{\"model\": 3}").unwrap();
    let error = Profile::read(&path).unwrap_err().to_string();
    assert!(error.contains("profile.json"), "{error}");
    assert!(Profile::read(folder.path().join("none.json")).is_err());
}

#[test]
fn a_batch_of_none_is_refused_before_anything_is_measured() {
    let error = profile(&model(), 0, Purpose::Inference).err().unwrap().to_string();
    assert!(error.starts_with("batch: expected at least one"), "{error}");
}

#[test]
fn the_drawing_is_well_formed_and_has_a_dot_for_each_pass_with_arithmetic() {
    let (profile, _) = measured(Purpose::Training);
    let svg = profile.to_svg();
    let mut reader = quick_xml::Reader::from_str(&svg);
    let (mut circles, mut words) = (0, String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) if tag.name().as_ref() == "circle" => circles += 1,
            Event::Text(text) => words += &text,
            Event::Eof => break,
            _ => {}
        }
    }
    let passes = profile.steps.iter().flat_map(|step| [Some(step.forward), step.backward]).flatten();
    let with_arithmetic = passes.filter(|pass| pass.flops > 0 && pass.bytes > 0).count();
    assert!(with_arithmetic > 8 && circles == with_arithmetic, "{circles} of {with_arithmetic}");
    assert!(words.contains("memory: ") && words.contains("arithmetic: "), "{words}");
}

/// What Perfetto and `chrome://tracing` ask of a file: known phases, numbers where they belong, names for
/// all rows, and in a row no event that is partly over another.
#[test]
fn the_trace_is_one_in_chrome_s_format_with_all_steps_and_threads() {
    let (profile, trace) = measured(Purpose::Training);
    let json = trace.to_json();
    let events = json["traceEvents"].as_array().unwrap();
    let mut rows = BTreeMap::<(u64, u64), Vec<[f64; 2]>>::new();
    let mut named = BTreeSet::new();
    for event in events {
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("{key} of {event}"));
        let row = (number("pid"), number("tid"));
        assert!(event["name"].is_string() && event["args"].is_object(), "{event}");
        match event["ph"].as_str() {
            Some("M") => {
                assert!(event["args"]["name"].is_string(), "{event}");
                named.insert(row);
            }
            Some("X") => {
                let [ts, dur] = ["ts", "dur"].map(|key| event[key].as_f64().unwrap());
                assert!(ts >= 0.0 && dur >= 0.0 && event["cat"].is_string(), "{event}");
                rows.entry(row).or_default().push([ts, ts + dur]);
            }
            Some("C") => assert!(event["ts"].is_number() && event["args"]["MB"].is_number(), "{event}"),
            _ => panic!("{event}"),
        }
    }
    for (row, mut times) in rows {
        assert!(named.contains(&row), "{row:?}");
        times.sort_by(|a, b| a[0].total_cmp(&b[0]).then(b[1].total_cmp(&a[1])));
        let mut open: Vec<f64> = Vec::new();
        for [start, end] in times {
            while open.last().is_some_and(|&last| last <= start + 1e-6) {
                open.pop();
            }
            assert!(open.last().is_none_or(|&last| end <= last + 1e-6), "{row:?}: {start} to {end}");
            open.push(end);
        }
    }
    let of =
        |category: &str| events.iter().filter(|event| event["cat"] == category).collect::<Vec<&Value>>();
    assert_eq!(of("step").len(), profile.steps.len() + 1);
    assert!(of("backward").len() > 5 && of("pass").len() == 2 && !of("pieces").is_empty());
    assert!(of("backward").iter().any(|e| e["args"]["operator"] == "conv2d" && e["args"]["step"] == 2));
}
