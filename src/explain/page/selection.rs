//! Which channels and which pixels of a layer a page has the numbers of: all would be gigabytes.
//!
//! Layers that keep channels apart (batch norms, activations, depthwise convolutions, pools, additions) show
//! the same channels as the layer before them, so that a number can be followed through them. Half of a
//! layer's channels are those that the channels shown after it are made of most, Σ |weight| · mean |x|: so
//! there is a way back from the logit to the image. The others are the most active.

use crate::explain::pixel::Pixel;
use crate::explain::statistics::ChannelStatistics;
use crate::explain::target::winners;
use crate::explain::trace::{Trace, sides, values};
use crate::nn::layers::Layer;
use crate::nn::{Graph, Id, Node};
use serde::Serialize;

/// Channels shown of a layer, if it has as many.
const SHOWN: usize = 12;
/// Weights of one layer's shown channels at most, in numbers, where the network is not too large for it.
pub(super) const WEIGHTS: usize = 40_000;

/// Why a channel is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Why {
    /// There are no more.
    All,
    /// Whoever asked for the page asked for it.
    Asked,
    /// One of the likeliest classes.
    Class,
    /// The channels shown after it are made of it.
    Feeds,
    /// Its values are large.
    Active,
    /// A branch that is joined to others shows it.
    Branch,
}

/// By layer: the channels that are shown, among them one that is asked for; of each layer as many as have
/// together at most so many `weights`, and at least one.
pub(super) fn channels(
    trace: &Trace,
    statistics: &[Vec<ChannelStatistics>],
    asked: Option<(Id, usize)>,
    weights: usize,
) -> Vec<Vec<(usize, Why)>> {
    let graph = &trace.model.graph;
    let groups = groups(graph);
    let mut shown: Vec<Vec<(usize, Why)>> = vec![Vec::new(); graph.nodes().len()];
    for i in (0..graph.nodes().len()).rev().filter(|&i| groups[i] == i) {
        let members: Vec<usize> = (0..=i).filter(|&j| groups[j] == i).collect();
        let mut chosen = choose(trace, &shown, &members, &statistics[i], weights);
        let asked = asked.filter(|(layer, _)| members.contains(&layer.0));
        if let Some((_, channel)) = asked.filter(|(_, c)| chosen.iter().all(|(known, _)| known != c)) {
            chosen.insert(0, (channel, Why::Asked));
        }
        members.into_iter().for_each(|member| shown[member].clone_from(&chosen));
    }
    join_branches(trace, &groups, &mut shown);
    shown
}

/// By layer the shown channels, without why.
pub(super) fn without_why(shown: &[Vec<(usize, Why)>]) -> Vec<Vec<usize>> {
    shown.iter().map(|shown| shown.iter().map(|(channel, _)| *channel).collect()).collect()
}

/// How many channels of each layer are shown, whichever they are, where none is asked for.
pub(super) fn counts(trace: &Trace, weights: usize) -> Vec<usize> {
    let groups = groups(&trace.model.graph);
    let members = |i: usize| (0..groups.len()).filter(|&j| groups[j] == groups[i]).collect::<Vec<_>>();
    let channels = |i: usize| trace.sides(Id(i))[2];
    let mut counts: Vec<usize> =
        (0..groups.len()).map(|i| room(trace, &members(i), weights).min(channels(i))).collect();
    for (i, node) in trace.model.graph.nodes().iter().enumerate() {
        if matches!(node.layer, Layer::Concatenate) {
            let joined: usize = node.inputs.iter().map(|input| counts[input.0]).sum();
            members(i).into_iter().for_each(|j| counts[j] = (counts[j] + joined).min(channels(j)));
        }
    }
    counts
}

/// How many channels have together at most so many weights, in each of these layers.
fn room(trace: &Trace, members: &[usize], weights: usize) -> usize {
    let of_one = members.iter().map(|&i| weights_a_channel(trace, i)).max().unwrap_or(1);
    (weights / of_one.max(1)).clamp(1, SHOWN)
}

/// For each layer the last one that has the same channels.
fn groups(graph: &Graph) -> Vec<usize> {
    let nodes = graph.nodes();
    let mut group: Vec<usize> = (0..nodes.len()).collect();
    for (i, node) in nodes.iter().enumerate() {
        if keeps_channels(graph, node) {
            for input in &node.inputs {
                let (old, new) = (group[input.0], group[i].max(group[input.0]).max(i));
                let own = group[i];
                group.iter_mut().filter(|g| **g == old || **g == own).for_each(|g| *g = new);
            }
        }
    }
    group
}

/// Whether each output channel is made of the same channel of its inputs.
fn keeps_channels(graph: &Graph, node: &Node) -> bool {
    match node.layer {
        Layer::Input(_) | Layer::Conv2D(_) | Layer::Dense(_) | Layer::Concatenate => false,
        // Of a single pixel the channels stay what they are.
        Layer::Flatten | Layer::Reshape(_) => {
            let pixels = |shape: &[usize]| sides(shape)[0] * sides(shape)[1];
            pixels(&graph.node(node.inputs[0]).output_shape) == 1 && pixels(&node.output_shape) == 1
        }
        _ => true,
    }
}

fn choose(
    trace: &Trace,
    shown: &[Vec<(usize, Why)>],
    members: &[usize],
    statistics: &[ChannelStatistics],
    weights: usize,
) -> Vec<(usize, Why)> {
    let graph = &trace.model.graph;
    let channels = statistics.len();
    let room = room(trace, members, weights);
    if members.contains(&graph.output().0) {
        return likeliest(trace).into_iter().take(room).map(|class| (class, Why::Class)).collect();
    }
    if channels <= room {
        return (0..channels).map(|channel| (channel, Why::All)).collect();
    }
    let feeds = feeds(trace, shown, members);
    let mut chosen: Vec<(usize, Why)> = ranked(&feeds)
        .into_iter()
        .filter(|&c| feeds[c] > 0.0)
        .take(room / 2)
        .map(|channel| (channel, Why::Feeds))
        .collect();
    let activity: Vec<f64> = statistics.iter().map(|s| s.mean_absolute).collect();
    for channel in ranked(&activity) {
        if chosen.len() < room && chosen.iter().all(|(known, _)| *known != channel) {
            chosen.push((channel, Why::Active));
        }
    }
    chosen
}

/// Weights of one channel of a layer's output.
fn weights_a_channel(trace: &Trace, i: usize) -> usize {
    let node = &trace.model.graph.nodes()[i];
    match node.layer {
        Layer::Conv2D(_) | Layer::Dense(_) => {
            node.parameters[0].shape.elements() / trace.sides(Id(i))[2].max(1)
        }
        _ => 1,
    }
}

/// Classes: the explained one, then by pixels that are given it, then by logit.
fn likeliest(trace: &Trace) -> Vec<usize> {
    let classes = trace.logits.shape().last_length();
    let mut score = vec![0.0f64; classes];
    let logits = trace.logits.to_vec_f64();
    let rows = logits.len() / classes;
    for (i, logit) in logits.iter().enumerate() {
        score[i % classes] += logit / rows as f64;
    }
    if rows > 1 {
        winners(&trace.logits).into_iter().for_each(|class| score[class] += 1e6);
    }
    score[trace.target.class] = f64::INFINITY;
    ranked(&score)
}

fn ranked(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// How much of what is shown after these layers is made of each of their channels.
fn feeds(trace: &Trace, shown: &[Vec<(usize, Why)>], members: &[usize]) -> Vec<f64> {
    let graph = &trace.model.graph;
    let mut all = vec![0.0f64; trace.sides(Id(members[0]))[2]];
    for (i, node) in graph.nodes().iter().enumerate().filter(|(i, _)| !members.contains(i)) {
        for &input in node.inputs.iter().filter(|id| members.contains(&id.0)) {
            let own = reads(trace, Id(i), node, input, &shown[i]);
            let most = own.iter().fold(f64::MIN_POSITIVE, |most, &v| most.max(v));
            all.iter_mut().zip(own).for_each(|(sum, v)| *sum += v / most);
        }
    }
    all
}

/// How much of a layer's shown channels is made of each channel of an input.
fn reads(trace: &Trace, id: Id, node: &Node, input: Id, shown: &[(usize, Why)]) -> Vec<f64> {
    let [h, w, channels] = trace.sides(input);
    let mut all = vec![0.0; channels];
    let is_output = id == trace.model.graph.output();
    let wanted = |channel: usize| !is_output || channel == trace.target.class;
    let shown = shown.iter().map(|(channel, _)| *channel).filter(|&channel| wanted(channel));
    match node.layer {
        Layer::Conv2D(_) | Layer::Dense(_) => {
            let kernel = trace.model.layer_parameters(id.0).next().map(|p| values(&p.value));
            let (kernel, outputs) = (kernel.unwrap_or_default(), trace.sides(id)[2]);
            let values = values(&trace.outputs[input.0]);
            let mut size = vec![0.0f64; channels];
            values.iter().enumerate().for_each(|(i, v)| size[i % channels] += f64::from(v.abs()));
            for channel in shown {
                for (i, weight) in kernel.iter().skip(channel).step_by(outputs).enumerate() {
                    all[i % channels] += f64::from(weight.abs()) * size[i % channels] / (h * w) as f64;
                }
            }
        }
        Layer::Concatenate => {
            for channel in shown {
                let (from, channel) = trace.concatenated(node, channel);
                if from == input {
                    all[channel] += 1.0;
                }
            }
        }
        _ => {
            for offset in shown {
                all[Pixel::at(offset, [h, w, channels]).channel] += 1.0;
            }
        }
    }
    all
}

/// What is shown of a branch is shown of what joins it to others, too: its gradient comes from there.
fn join_branches(trace: &Trace, groups: &[usize], shown: &mut [Vec<(usize, Why)>]) {
    for (i, node) in trace.model.graph.nodes().iter().enumerate() {
        if !matches!(node.layer, Layer::Concatenate) {
            continue;
        }
        let (mut before, mut wanted) = (0, Vec::new());
        for input in &node.inputs {
            wanted.extend(shown[input.0].iter().map(|(channel, _)| before + channel));
            before += trace.sides(*input)[2];
        }
        for member in (0..shown.len()).filter(|&j| groups[j] == groups[i]) {
            for &channel in &wanted {
                if shown[member].iter().all(|(known, _)| *known != channel) {
                    shown[member].push((channel, Why::Branch));
                }
            }
        }
    }
}

/// Pixels `y · width + x` in a lattice of at most n × n, in the middles of n equal parts of each side.
pub(super) fn lattice(height: usize, width: usize, n: usize) -> Vec<usize> {
    let along = |side: usize| -> Vec<usize> {
        let n = n.min(side);
        (0..n).map(|i| (2 * i + 1) * side / (2 * n)).collect()
    };
    let columns = along(width);
    along(height).into_iter().flat_map(|y| columns.iter().map(move |x| y * width + x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Target;
    use crate::explain::statistics::by_channel;
    use crate::models::by_name;
    use crate::nn::Model;
    use crate::tensor::Tensor;

    #[test]
    fn a_lattice_is_all_of_a_small_map_and_the_middles_of_a_large_one() {
        assert_eq!(lattice(2, 3, 7), [0, 1, 2, 3, 4, 5]);
        assert_eq!(lattice(14, 14, 2), [3 * 14 + 3, 3 * 14 + 10, 10 * 14 + 3, 10 * 14 + 10]);
        assert_eq!(lattice(112, 112, 7)[..2], [8 * 112 + 8, 8 * 112 + 24]);
    }

    #[test]
    fn layers_that_keep_channels_apart_show_those_of_the_layer_before_them() {
        for name in ["mobilenetv2", "deeplabv3plus"] {
            let model = Model::new(by_name(name, 32, 20).unwrap(), 3);
            let x = Tensor::rand_uniform([1, 32, 32, 3], -1.0, 1.0, 7);
            let trace = Trace::new(&model, &x, |logits| Ok(Target::likeliest(logits))).unwrap();
            let outputs = trace.outputs.iter().enumerate();
            let statistics: Vec<_> =
                outputs.map(|(i, output)| by_channel(&values(output), trace.sides(Id(i))[2])).collect();
            let shown = channels(&trace, &statistics, Some((Id(2), 13)), WEIGHTS);
            for (i, node) in model.graph.nodes().iter().enumerate() {
                assert!(!shown[i].is_empty() && shown[i].len() <= 5 * SHOWN, "{name} {}", node.name);
                let mut sorted: Vec<usize> = shown[i].iter().map(|(channel, _)| *channel).collect();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), shown[i].len());
                for input in node.inputs.iter().filter(|_| keeps_channels(&model.graph, node)) {
                    assert_eq!(shown[i], shown[input.0], "{name} {}", node.name);
                }
            }
            assert_eq!(shown[model.graph.output().0][0].0, trace.target.class);
            assert!(shown[2].iter().any(|(channel, _)| *channel == 13));
        }
    }
}
