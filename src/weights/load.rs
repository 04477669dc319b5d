//! From a file's tensors to a model's parameters, and what was found on the way.

use super::names::{Base, Layout, Meaning, Names, has_weights, order};
use super::{Origin, WeightFile};
use crate::error::{Error, Result};
use crate::graph::{Graph, Model};
use crate::tensor::{Shape, Tensor};
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

/// What a file and a model have in common, and what not. The lists are in the model's order, or
/// the file's.
#[derive(Debug)]
pub struct Report {
    pub path: PathBuf,
    pub model: String,
    pub origin: Origin,
    /// Keras paths of the parameters that the file has.
    pub matched: Vec<String>,
    /// Numbers in those.
    pub numbers: usize,
    /// Paths of parameters that the file should have, and has not.
    pub missing: Vec<String>,
    /// Paths of parameters of optional layers that the file has not: they stay as they are.
    pub left: Vec<String>,
    /// Names of tensors that the model has no place for: they are not used.
    pub unexpected: Vec<String>,
    /// What is wrong with tensors that the model has a place for, a line each: another shape,
    /// another element type, values that are not finite, two for one place.
    pub wrong_shape: Vec<String>,
    pub wrong_type: Vec<String>,
    pub not_finite: Vec<String>,
    pub doubled: Vec<String>,
}

/// The layers that stand on a pre-trained base, and that its files do not have.
pub fn heads(graph: &Graph) -> Vec<&str> {
    let nodes = graph.nodes().iter().filter(|node| has_weights(&node.layer));
    let base = Base::of(graph);
    nodes.map(|node| node.name.as_str()).filter(|name| base.is_some_and(|b| !b.covers(name))).collect()
}

/// Puts the file's weights into the model, or nothing if anything is wrong with them.
///
/// Every parameter has to be in the file, save those of the `optional` layers (often [`heads`]).
/// What the file has besides is left out. Wrong shapes, wrong types and values that are not finite
/// are errors, in optional layers too. The model's padding and epsilon are not touched: its graph
/// comes from [`Origin::configure`].
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
pub fn compare(
    model: &Model,
    file: &WeightFile,
    optional: &[&str],
) -> Result<(Report, Vec<(usize, Tensor)>)> {
    let names = Names::new(&model.graph, file.origin)
        .map_err(|error| Error::file(&file.path, error.to_string().replacen("weights: ", "", 1)))?;
    let mut report = Report {
        path: file.path.clone(),
        model: model.graph.name.clone(),
        origin: file.origin,
        matched: Vec::new(),
        numbers: 0,
        missing: Vec::new(),
        left: Vec::new(),
        unexpected: Vec::new(),
        wrong_shape: Vec::new(),
        wrong_type: Vec::new(),
        not_finite: Vec::new(),
        doubled: Vec::new(),
    };
    let places: HashMap<&str, usize> =
        model.parameters.iter().enumerate().map(|(i, p)| (p.path.as_str(), i)).collect();
    // For each parameter the tensor's name, and its values if nothing is wrong with them.
    let mut found: Vec<Option<&str>> = vec![None; model.parameters.len()];
    let mut values: Vec<Option<Tensor>> = vec![None; model.parameters.len()];
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
        if let Some(first) = found[place].replace(name) {
            report.doubled.push(format!("`{first}` and `{name}` are both `{path}`"));
            continue;
        }
        let expected = model.parameters[place].value.shape();
        let there = in_file(expected, &path, layout);
        if !same(&entry.shape, &there) {
            let (expected, got) = (times(&there), times(&entry.shape));
            report.wrong_shape.push(format!("`{name}`: expected shape {expected}, got {got}"));
            continue;
        }
        let Some(tensor) = &entry.tensor else {
            let got = &entry.dtype;
            report.wrong_type.push(format!("`{name}`: expected float16, 32 or 64, got {got}"));
            continue;
        };
        let stored = tensor.values::<f32>();
        if let Some(at) = stored.iter().position(|v| !v.is_finite()) {
            let count = stored.iter().filter(|v| !v.is_finite()).count();
            report.not_finite.push(format!(
                "`{name}`: expected finite numbers, got {} at {:?} ({count} of {} are not finite)",
                stored[at],
                index(at, &entry.shape),
                stored.len()
            ));
            continue;
        }
        report.numbers += stored.len();
        values[place] = Some(turned(stored, expected, &there, &path, layout)?);
    }
    for (i, parameter) in model.parameters.iter().enumerate() {
        let layer = parameter.path.rsplit_once('/').map_or("", |(layer, _)| layer);
        let list = match (&values[i], found[i]) {
            (Some(_), _) => &mut report.matched,
            // Told already, with what is wrong.
            (None, Some(_)) => continue,
            (None, None) if optional.contains(&layer) => &mut report.left,
            (None, None) => &mut report.missing,
        };
        list.push(parameter.path.clone());
    }
    let values = values.into_iter().enumerate().filter_map(|(i, value)| Some((i, value?)));
    Ok((report, values.collect()))
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

impl Report {
    /// An error that tells the first of what is wrong and counts the rest.
    pub fn check(&self) -> Result<()> {
        let missing = self.missing.iter().map(|path| format!("`{path}` is missing")).collect::<Vec<_>>();
        let lists = [&self.wrong_shape, &self.wrong_type, &self.not_finite, &self.doubled, &missing];
        let count: usize = lists.iter().map(|list| list.len()).sum();
        let Some(first) = lists.iter().find_map(|list| list.first()) else { return Ok(()) };
        let mut message = first.clone();
        if count > 1 {
            message += &format!(" (and {} more that are wrong or missing)", count - 1);
        }
        if self.matched.is_empty() {
            let unexpected = self.unexpected.first().map_or("", |name| name);
            message +=
                &format!("; nothing in it fits `{}`, the first it has is `{unexpected}`", self.model);
        }
        Err(Error::file(&self.path, message))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} ({})", self.model, self.path.display(), self.origin)?;
        let (matched, numbers) = (self.matched.len(), self.numbers);
        write!(f, "\n  {:<12} {matched:>4} tensors, {numbers} numbers", "matched")?;
        let lists = [
            ("missing", &self.missing),
            ("not in file", &self.left),
            ("not used", &self.unexpected),
            ("wrong shape", &self.wrong_shape),
            ("wrong type", &self.wrong_type),
            ("not finite", &self.not_finite),
            ("doubled", &self.doubled),
        ];
        const SHOWN: usize = 6;
        for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            let shown = list.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if list.len() > SHOWN { ", …" } else { "" };
            write!(f, "\n  {what:<12} {:>4}: {shown}{more}", list.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Format};
    use super::*;
    use crate::layers::Layer;
    use crate::ops::Padding;

    fn model() -> Model {
        let mut g = Graph::new("net", "input_1", [6, 6, 3]);
        let depthwise = Layer::DepthwiseConv2D {
            kernel: [3, 3],
            stride: [1, 1],
            padding: Padding::Valid,
            dilation: [1, 1],
            use_bias: false,
        };
        let layers = [
            ("conv1", Layer::conv2d(4, 3)),
            ("conv1_bn", Layer::batch_normalization()),
            ("conv_dw_1", depthwise),
            ("flatten", Layer::Flatten),
            ("dense", Layer::dense(2)),
        ];
        layers.into_iter().fold(g.input(), |x, (name, layer)| g.add_named(name, layer, &[x]).unwrap());
        Model::new(g, 0)
    }

    fn entry(name: &str, shape: &[usize], value: impl Fn(usize) -> f32) -> Entry {
        let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
        let tensor = Some(Tensor::from_slice(&values, shape).unwrap());
        Entry { name: name.into(), dtype: "float32".into(), shape: shape.to_vec(), tensor }
    }

    fn file(origin: Origin, entries: Vec<Entry>) -> WeightFile {
        WeightFile { path: "a.npz".into(), format: Format::Npz, origin, entries }
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
        assert!(integers.contains("`conv1/bias`: expected float16, 32 or 64, got int32"), "{integers}");
        let strange = keras(&|entries| entries.iter_mut().for_each(|e| e.name.insert_str(0, "a.")));
        assert!(
            strange.contains("nothing in it fits `net`, the first it has is `a.conv1/kernel`"),
            "{strange}"
        );
    }
}
