//! The sanity check (Adebayo et al., 2018): does a map depend on what the network has learnt?
//!
//! The weights are randomised layer by layer, from the last one down (*cascading randomisation*), and the
//! map is made again. One that stays as it was shows the image's edges, whatever the network.

use super::at_least_one;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::explain::trace::values;
use crate::nn::Model;
use crate::random::{Stream, domain, hash_name};
use crate::tensor::Tensor;

/// A map, and the same of networks that have forgotten more and more.
#[derive(Clone)]
pub struct SanityCheck {
    /// The map of the network as it is.
    pub original: Tensor,
    /// From the last layers randomised to all of them.
    pub stages: Vec<RandomizedStage>,
}

/// What is left of a map.
#[derive(Clone)]
pub struct RandomizedStage {
    /// The first of the layers that are randomised; all after it are, too.
    pub layer: String,
    /// The map of that network.
    pub map: Tensor,
    /// Spearman's with the original map: 1 the same order, 0 none. None where one of the two maps is the same
    /// everywhere.
    pub rank_correlation: Option<f64>,
}

/// Randomises a network from its last layer to its first and makes the map anew at each of `stages` points
/// on the way, evenly apart in layers with parameters; at the last of them all is random. `map` may be of
/// any shape.
///
/// Each parameter's values are shuffled: their distribution stays, so that signals neither vanish nor
/// explode, and a variance stays one; what was learnt goes. An error for no stages, a network without
/// parameters and what `map` fails with.
///
/// ```
/// use atrous::explain::attribution::{GradCam, Target, sanity_check};
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [16, 16, 3]);
/// let features = Layer::conv2d(8, 3).with_activation(Activation::Relu);
/// graph.chain(graph.input(), [features, Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
/// let (model, image) = (Model::new(graph, 1), Tensor::rand([1, 16, 16, 3], 7));
/// let target = Target::class(&model, 0)?;
///
/// let map = |model: &Model| Ok(GradCam::default().attribute(model, &image, &target)?.attributions);
/// let check = sanity_check(&model, 2, 7, map)?;
/// assert_eq!([&check.stages[0].layer, &check.stages[1].layer], ["dense", "conv2d"]);
/// # Ok::<(), Error>(())
/// ```
pub fn sanity_check(
    model: &Model,
    stages: usize,
    seed: u64,
    mut map: impl FnMut(&Model) -> Result<Tensor>,
) -> Result<SanityCheck> {
    at_least_one("stages", stages)?;
    let layers: Vec<&str> = model
        .graph
        .nodes()
        .iter()
        .rev()
        .filter(|node| !node.parameters.is_empty())
        .map(|node| node.name.as_str())
        .collect();
    if layers.is_empty() {
        return Err(Error::argument("sanity check", "the network has no parameters to randomise"));
    }
    let original = map(model)?;
    let (mut model, mut done) = (model.clone(), 0);
    let stages = stages.min(layers.len());
    let stage = |stage: usize| {
        let end = (stage + 1) * layers.len() / stages;
        for layer in &layers[done..end] {
            shuffle_parameters(&mut model, layer, seed)?;
        }
        done = end;
        let map = map(&model)?;
        let rank_correlation = spearman(&original.to_vec_f64(), &map.to_vec_f64());
        Ok(RandomizedStage { layer: layers[end - 1].to_owned(), map, rank_correlation })
    };
    let stages = (0..stages).map(stage).collect::<Result<Vec<_>>>()?;
    Ok(SanityCheck { original, stages })
}

/// Puts the values of each of a layer's parameters into a random order.
fn shuffle_parameters(model: &mut Model, layer: &str, seed: u64) -> Result<()> {
    let prefix = format!("{layer}/");
    for parameter in model.parameters.iter_mut().filter(|parameter| parameter.path.starts_with(&prefix))
    {
        let value = &parameter.value;
        let mut stream = Stream::new(seed, &[domain::EXPLAIN, hash_name(&parameter.path)]);
        let shuffled = shuffled(&values(&value.to_device(Device::Cpu)?), &mut stream);
        let shuffled = Tensor::from_slice(&shuffled, value.shape())?.to_dtype(value.dtype());
        parameter.value = shuffled.to_device(value.device())?;
    }
    Ok(())
}

/// The values in a random order, each as likely as any other: a bucket is drawn for each, and those of a
/// bucket are shuffled (Rao, 1961; Sandelius, 1962). Fisher and Yates's method alone would go to and fro in
/// the memory of a large layer, and take ten times as long.
fn shuffled(values: &[f32], stream: &mut Stream) -> Vec<f32> {
    /// What a core's own cache holds.
    const BUCKET: usize = 1 << 16;
    let mut buckets = vec![Vec::new(); values.len().div_ceil(BUCKET)];
    for &value in values {
        let drawn = stream.below(buckets.len());
        buckets[drawn].push(value);
    }
    for bucket in &mut buckets {
        for i in (1..bucket.len()).rev() {
            bucket.swap(i, stream.below(i + 1));
        }
    }
    buckets.concat()
}

/// Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs. None for two
/// lists of different length, and where one has no two different values.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (a, b) = (ranks(a), ranks(b));
    // The mean of ranks 0 to n − 1, whatever is equal.
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let product =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let spread = product(&a, &a) * product(&b, &b);
    (spread > 0.0).then(|| product(&a, &b) / spread.sqrt())
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let rank = first as f64 + (equal.len() as f64 - 1.0) / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_of_many_values_loses_none_and_leaves_none_near_where_it_was() {
        let values: Vec<f32> = (0..300_000).map(|i| i as f32).collect();
        let shuffle = |seed| shuffled(&values, &mut Stream::new(seed, &[domain::TEST]));
        let order = shuffle(1);
        assert!(order == shuffle(1) && order != shuffle(2));
        let mut sorted = order.clone();
        sorted.sort_by(f32::total_cmp);
        assert!(sorted == values);
        // Of two uniform places the mean distance is a third of the length.
        let distance = order.iter().zip(&values).map(|(to, from)| f64::from((to - from).abs()));
        let mean = distance.sum::<f64>() / 300_000.0 / 300_000.0;
        assert!((mean - 1.0 / 3.0).abs() < 0.005, "{mean}");
        assert!(shuffled(&[], &mut Stream::new(1, &[])).is_empty());
    }
}
