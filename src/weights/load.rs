//! From a file's tensors to a model's parameters.

use super::names::{Layout, Meaning, Names, order};
use super::report::{Report, called};
use super::{Entry, WeightFile};
use crate::error::{Error, Result, printable};
use crate::nn::{Graph, Model};
use crate::tensor::{Shape, Tensor};
use std::collections::{HashMap, HashSet};

/// The layers that stand on a pre-trained base, and that its files do not have; none where there is
/// no base.
///
/// ```
/// use atrous::models::Spec;
/// use atrous::weights::heads;
///
/// let graph = Spec::new("vgg16", 64, 20).graph()?;
/// let heads = heads(&graph);
/// assert!(!heads.is_empty() && !heads.iter().any(|name| name.starts_with("block")));
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn heads(graph: &Graph) -> Vec<&str> {
    let base = graph.base().len();
    let above = graph.nodes().iter().skip(if base == 0 { graph.nodes().len() } else { base });
    above.map(|node| node.name.as_str()).collect()
}

/// Puts the file's weights into the model, or nothing if anything is wrong with them.
///
/// Every parameter has to be in the file, save those of the `optional` layers (often [`heads`]).
/// What the file has besides is left out. Wrong shapes, wrong types, values that are not finite and
/// variances that are none are errors, in optional layers too. The model's padding and epsilon are not
/// touched: its graph comes from [`Origin::configure`](super::Origin::configure).
///
/// ```
/// use atrous::prelude::*;
/// use atrous::weights::{self, Origin};
///
/// let mut graph = Graph::new("small", "input", [2, 2, 3]);
/// graph.chain(graph.input(), [Layer::Flatten, Layer::dense(4)])?;
/// let (trained, mut model) = (Model::new(graph.clone(), 1), Model::new(graph, 2));
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// let tensors: Vec<_> = trained.parameters.iter().map(|p| (p.path.clone(), p.value.clone())).collect();
/// weights::save(&path, &tensors, Origin::Keras)?;
/// let report = weights::load(&mut model, &weights::read(&path)?, &[])?;
/// assert_eq!((report.matched, report.numbers), (vec!["dense/kernel".into(), "dense/bias".into()], 52));
/// assert_eq!(model.parameters[0].value.to_vec_f64(), trained.parameters[0].value.to_vec_f64());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn load(model: &mut Model, file: &WeightFile, optional: &[&str]) -> Result<Report> {
    let (report, values) = compare(model, file, optional)?;
    report.check()?;
    for (index, value) in values {
        let parameter = &mut model.parameters[index];
        parameter.value = value.to_dtype(parameter.value.dtype());
    }
    Ok(report)
}

/// What [`load`] would do: the report, and the values by the parameters' positions.
///
/// ```
/// use atrous::prelude::*;
/// use atrous::weights::{self, Origin};
///
/// let mut graph = Graph::new("small", "input", [2, 2, 3]);
/// graph.chain(graph.input(), [Layer::Flatten, Layer::dense(4)])?;
/// let model = Model::new(graph, 1);
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// let (kernel, bias) = (Tensor::zeros([12, 5]), Tensor::zeros([4]));
/// weights::save(&path, &[("dense/kernel".into(), kernel), ("dense/bias".into(), bias)], Origin::Keras)?;
///
/// let (report, values) = weights::compare(&model, &weights::read(&path)?, &[])?;
/// assert_eq!(report.wrong_shape, ["`dense/kernel`: expected shape [12×4], got [12×5]"]);
/// assert_eq!(values.len(), 1); // the bias, which would fit
/// assert!(report.check().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compare(
    model: &Model,
    file: &WeightFile,
    optional: &[&str],
) -> Result<(Report, Vec<(usize, Tensor)>)> {
    let told = |message: String| Error::file(&file.path, message);
    if let Some(first) = &file.nameless {
        return Err(told(format!(
            "expected names of layers, but the file has only numbers, as {} shows (older versions of Keras 3 \
             write such): save the model as .keras, or its weights again with a newer Keras",
            called(first)
        )));
    }
    let names = Names::new(&model.graph, file.origin)
        .map_err(|error| told(error.to_string().replacen("weights: ", "", 1)))?
        .wrapped_as(file.entries.iter().map(|entry| entry.name.as_str()))
        .map_err(told)?;
    let mut report = Report::new(model, file);
    let places: HashMap<&str, usize> =
        model.parameters.iter().enumerate().map(|(i, p)| (p.path.as_str(), i)).collect();
    // For each parameter the tensor's name, and its values if nothing is wrong with them.
    let mut found: Vec<Option<&str>> = vec![None; model.parameters.len()];
    let mut values: Vec<Option<Tensor>> = vec![None; model.parameters.len()];
    let mut taken_off: Vec<(String, usize)> = Vec::new();
    for entry in &file.entries {
        let name = &entry.name;
        let (path, layout) = match names.meaning(name) {
            Meaning::Parameter(path, layout) => (path, layout),
            Meaning::Aside => continue,
            Meaning::Unknown => {
                report.unexpected.push(name.clone());
                continue;
            }
        };
        let Some(&place) = places.get(path.as_str()) else {
            report.unexpected.push(name.clone());
            continue;
        };
        let off = names.taken_off(name);
        match taken_off.iter_mut().find(|(known, _)| *known == off) {
            Some((_, count)) => *count += 1,
            None => taken_off.push((off, 1)),
        }
        if let Some(first) = found[place].replace(name) {
            report.doubled.push(format!("{} and {} are both `{path}`", called(first), called(name)));
            continue;
        }
        let there = in_file(model.parameters[place].value.shape(), &path, layout);
        let stored = match usable(entry, &there, model.variance_epsilon(place), &mut report) {
            Some(stored) => stored,
            None => continue,
        };
        let shape = model.parameters[place].value.shape();
        report.numbers += stored.len();
        values[place] = Some(turned(stored, shape, &there, &path, layout)?);
    }
    for (prefix, count) in taken_off.into_iter().filter(|(prefix, _)| !prefix.is_empty()) {
        let prefix = printable(&prefix);
        report.remarks.push(format!("`{prefix}` is taken off the names of {count} tensors"));
    }
    let layers =
        || model.parameters.iter().map(|p| p.path.rsplit_once('/').map_or("", |(layer, _)| layer));
    // The first few of numbered weights are not known to be the first few: all or none of a layer.
    let numbered = |name: &&str| name.rsplit('/').nth(1) == Some("vars");
    let counted: HashSet<&str> = layers()
        .zip(&found)
        .filter(|(_, name)| name.as_ref().is_some_and(numbered))
        .map(|(layer, _)| layer)
        .collect();
    for (i, (parameter, layer)) in model.parameters.iter().zip(layers()).enumerate() {
        let list = match (&values[i], found[i]) {
            (Some(_), _) => &mut report.matched,
            // Told already, with what is wrong.
            (None, Some(_)) => continue,
            (None, None) if optional.contains(&layer) && !counted.contains(layer) => &mut report.left,
            (None, None) => &mut report.missing,
        };
        list.push(parameter.path.clone());
    }
    let values = values.into_iter().enumerate().filter_map(|(i, value)| Some((i, value?)));
    Ok((report, values.collect()))
}

/// The numbers of an array that has a place, with the shape it must have; or a line in the report that
/// says what is wrong with it. `epsilon` is what is added to a variance.
fn usable<'a>(
    entry: &'a Entry,
    shape: &[usize],
    epsilon: Option<f64>,
    report: &mut Report,
) -> Option<&'a [f32]> {
    let name = called(&entry.name);
    if !same(&entry.shape, shape) {
        let (expected, got) = (times(shape), times(&entry.shape));
        report.wrong_shape.push(format!("{name}: expected shape {expected}, got {got}"));
        return None;
    }
    let Some(tensor) = &entry.tensor else {
        let got = printable(&entry.dtype);
        report
            .wrong_type
            .push(format!("{name}: expected float16, bfloat16, float32 or float64, got {got}"));
        return None;
    };
    let at = |flat: usize| format!("{:?}", index(flat, &entry.shape));
    let stored = tensor.values::<f32>();
    if let Some((first, number)) = entry.beyond {
        let largest = f32::MAX;
        report.unusable.push(format!(
            "{name}: expected numbers of at most {largest:e}, which float32 holds, got {number:e} at {}",
            at(first)
        ));
        return None;
    }
    let of_all = |count: usize| format!("({count} of {}", stored.len());
    if let Some(first) = stored.iter().position(|v| !v.is_finite()) {
        let count = of_all(stored.iter().filter(|v| !v.is_finite()).count());
        let (got, at) = (stored[first], at(first));
        let line = format!("{name}: expected finite numbers, got {got} at {at} {count} are not finite)");
        report.unusable.push(line);
        return None;
    }
    if let Some(epsilon) = epsilon {
        let none = |v: &f32| !Model::is_variance(*v, epsilon);
        if let Some(first) = stored.iter().position(&none) {
            let count = of_all(stored.iter().filter(|v| none(v)).count());
            let (got, at) = (stored[first], at(first));
            report.unusable.push(format!(
                "{name}: expected variances above −{epsilon}, which is added to them, got {got} at {at} \
                 {count} are not)"
            ));
            return None;
        }
        if let Some(first) = stored.iter().position(|&v| v < 0.0) {
            let count = of_all(stored.iter().filter(|&&v| v < 0.0).count());
            let (got, at) = (stored[first], at(first));
            report.remarks.push(format!(
                "{name}: a variance is never negative, and this has {got} at {at} {count} are): what \
                 wrote it may be at fault"
            ));
        }
    }
    Some(stored)
}

/// The shape that a parameter of this shape has in the file.
fn in_file(shape: Shape, path: &str, layout: Layout) -> Vec<usize> {
    order_of(shape, path, layout).iter().map(|&axis| shape[axis]).collect()
}

fn order_of(shape: Shape, path: &str, layout: Layout) -> &'static [usize] {
    order(layout, path.rsplit('/').next().unwrap_or_default(), shape.len())
}

/// One shape, up to axes of one where a dense layer stands for a convolution of one cell: the
/// numbers lie in the same order.
fn same(got: &[usize], expected: &[usize]) -> bool {
    let long = |shape: &[usize]| shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
    let kernels = matches!((got.len(), expected.len()), (2, 4) | (4, 2));
    got == expected || kernels && long(got) == long(expected)
}

/// The values in the order of axes that they have here.
fn turned(stored: &[f32], shape: Shape, there: &[usize], path: &str, layout: Layout) -> Result<Tensor> {
    if layout == Layout::Keras || shape.len() < 2 {
        return Tensor::from_slice(stored, shape);
    }
    // How far apart in the file are neighbours along each axis from here.
    let mut steps = [0; 4];
    let mut step = 1;
    for (&axis, &length) in order_of(shape, path, layout).iter().zip(there).rev() {
        steps[axis] = step;
        step *= length;
    }
    let mut at = [0; 4];
    let values: Vec<f32> = (0..stored.len())
        .map(|_| {
            let value = stored[at.iter().zip(steps).map(|(i, step)| i * step).sum::<usize>()];
            for axis in (0..shape.len()).rev() {
                at[axis] += 1;
                if at[axis] < shape[axis] {
                    break;
                }
                at[axis] = 0;
            }
            value
        })
        .collect();
    Tensor::from_slice(&values, shape)
}

/// Where the element with this flat number is.
fn index(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&length| {
            let at = flat % length;
            flat /= length;
            at
        })
        .collect();
    index.reverse();
    index
}

fn times(shape: &[usize]) -> String {
    format!("[{}]", shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×"))
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Origin};
    use super::*;
    use crate::nn::layers::Layer;

    fn model() -> Model {
        let mut g = Graph::new("net", "input_1", [6, 6, 3]);
        let layers = [
            ("conv1", Layer::conv2d(4, 3)),
            ("conv1_bn", Layer::batch_normalization()),
            ("conv_dw_1", Layer::depthwise_conv2d()),
            ("flatten", Layer::Flatten),
            ("dense", Layer::dense(2)),
        ];
        layers.into_iter().fold(g.input(), |x, (name, layer)| g.add_named(name, layer, &[x]).unwrap());
        Model::new(g, 0)
    }

    fn entry(name: &str, shape: &[usize], value: impl Fn(usize) -> f32) -> Entry {
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        let tensor = Some(Tensor::from_slice(&values, shape).unwrap());
        Entry { name: name.into(), dtype: "float32".into(), shape: shape.to_vec(), tensor, beyond: None }
    }

    fn file(origin: Origin, entries: Vec<Entry>) -> WeightFile {
        let (path, remarks) = ("a.npz".into(), Vec::new());
        WeightFile { path, format: Format::Npz, origin, entries, remarks, nameless: None }
    }

    fn timm() -> WeightFile {
        let number = |i: usize| i as f32;
        let entries = vec![
            entry("conv_stem.weight", &[4, 3, 3, 3], number),
            entry("bn1.weight", &[4], number),
            entry("bn1.bias", &[4], number),
            entry("bn1.running_mean", &[4], number),
            entry("bn1.running_var", &[4], number),
            Entry {
                name: "bn1.num_batches_tracked".into(),
                dtype: "int64".into(),
                shape: vec![],
                tensor: None,
                beyond: None,
            },
            entry("blocks.0.0.conv_dw.weight", &[4, 1, 3, 3], number),
            entry("classifier.weight", &[9, 4], number),
        ];
        file(Origin::Timm, entries)
    }

    #[test]
    fn kernels_of_pytorch_are_turned_round() {
        let mut model = model();
        let report = load(&mut model, &timm(), &["dense", "conv1"]).unwrap();
        let value = |path: &str, at: [usize; 4]| {
            let value = &model.parameter(path).unwrap().value;
            let shape = value.shape();
            let flat = at.iter().zip(shape.iter()).fold(0, |flat, (i, n)| flat * n + i);
            value.to_vec_f64()[flat] as usize
        };
        for at in [[0, 0, 0, 0], [2, 1, 0, 3], [1, 2, 2, 1], [2, 2, 2, 3]] {
            let [h, w, i, o] = at;
            assert_eq!(value("conv1/kernel", at), ((o * 3 + i) * 3 + h) * 3 + w, "{at:?}");
        }
        assert_eq!(value("conv_dw_1/depthwise_kernel", [1, 2, 3, 0]), (3 * 3 + 1) * 3 + 2);
        assert_eq!(report.matched.len(), 6);
        assert_eq!(report.left, ["conv1/bias", "dense/kernel", "dense/bias"]);
        assert_eq!(report.unexpected, ["classifier.weight"]);
        let text = report.to_string();
        assert!(text.contains("matched         6 tensors, 160 numbers"), "{text}");
        assert!(text.contains("not used        1: classifier.weight"), "{text}");
    }

    #[test]
    fn a_numbered_layer_is_whole_or_an_error_even_where_it_may_be_missing() {
        let three = |i| entry(&format!("layers/conv1_bn/vars/{i}"), &[4], |_| 1.0);
        // A batch norm without its scale: the first of these is no gamma.
        let entries = (0..3).map(three).collect();
        let all = ["conv1", "conv1_bn", "conv_dw_1", "dense"];
        let error = load(&mut model(), &file(Origin::Keras, entries), &all).unwrap_err().to_string();
        assert!(error.contains("`conv1_bn/moving_variance` is missing"), "{error}");
        assert!(load(&mut model(), &file(Origin::Keras, (0..4).map(three).collect()), &all).is_ok());
    }

    #[test]
    fn dense_kernels_of_pytorch_are_transposed_and_stand_for_convolutions_of_one_cell() {
        let stored: Vec<f32> = (0..6).map(|v| v as f32).collect();
        let torch = |shape: Shape| {
            let there = in_file(shape, "a/kernel", Layout::Torch);
            assert!(same(&[2, 3], &there), "{there:?}");
            turned(&stored, shape, &there, "a/kernel", Layout::Torch).unwrap().to_vec_f64()
        };
        assert_eq!(torch([3, 2].into()), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(torch([1, 1, 3, 2].into()), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert!(!same(&[2, 3], &[3, 2]) && !same(&[6], &[1, 1, 6, 1]) && !same(&[3, 2], &[2, 3, 1, 1]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_name_and_nothing_is_loaded() {
        let keras = |change: &dyn Fn(&mut Vec<Entry>)| {
            let mut model = model();
            let before = model.parameters[0].value.to_vec_f64();
            let mut entries = model
                .parameters
                .iter()
                .map(|p| entry(&p.path, &p.value.shape(), |i| i as f32))
                .collect::<Vec<_>>();
            change(&mut entries);
            let error = load(&mut model, &file(Origin::Keras, entries), &[]).unwrap_err().to_string();
            assert_eq!(model.parameters[0].value.to_vec_f64(), before);
            assert!(error.starts_with("a.npz: "), "{error}");
            error
        };
        let shape = keras(&|entries| entries[0].shape = vec![3, 3, 4, 3]);
        assert!(shape.contains("`conv1/kernel`: expected shape [3×3×3×4], got [3×3×4×3]"), "{shape}");
        let nan = keras(&|entries| {
            entries[0] = entry("conv1/kernel", &[3, 3, 3, 4], |i| if i == 50 { f32::NAN } else { 0.0 });
        });
        assert!(
            nan.contains("`conv1/kernel`: expected finite numbers, got NaN at [1, 1, 0, 2] (1 of 108"),
            "{nan}"
        );
        let missing = keras(&|entries| drop(entries.drain(1..3)));
        assert!(missing.contains("`conv1/bias` is missing (and 1 more"), "{missing}");
        let doubled = keras(&|entries| entries.push(entry("x/conv1/bias:0", &[4], |_| 0.0)));
        assert!(
            doubled.contains("`conv1/bias` and `x/conv1/bias:0` are both `conv1/bias`"),
            "{doubled}"
        );
        let integers = keras(&|entries| (entries[1].tensor, entries[1].dtype) = (None, "int32".into()));
        assert!(
            integers.contains("`conv1/bias`: expected float16, bfloat16, float32 or float64, got int32"),
            "{integers}"
        );
        let strange = keras(&|entries| entries.iter_mut().for_each(|e| e.name.insert_str(0, "a.")));
        assert!(
            strange.contains("nothing in it fits `net`, the first it has is `a.conv1/kernel`"),
            "{strange}"
        );
    }
}
