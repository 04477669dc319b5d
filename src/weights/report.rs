//! What was found when a file's tensors were compared with a model's parameters.

use super::{Origin, WeightFile};
use crate::error::{Error, Result, printable};
use crate::nn::Model;
use std::fmt;
use std::path::PathBuf;

/// What a file and a model have in common, and what not. The lists are in the model's order, or
/// the file's.
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
/// let tensors = ["kernel", "scale"].map(|name| (format!("dense/{name}"), Tensor::zeros([12, 4])));
/// weights::save(&path, &tensors, Origin::Keras)?;
///
/// let (report, _values) = weights::compare(&model, &weights::read(&path)?, &[])?;
/// assert_eq!((report.missing[0].as_str(), report.unexpected[0].as_str()), ("dense/bias", "dense/scale"));
/// let text = report.to_string(); // a line for each list that is not empty
/// assert!(text.contains("matched         1 tensors, 48 numbers"));
/// assert!(text.contains("missing         1: dense/bias"));
/// assert!(report.check().unwrap_err().to_string().ends_with("`dense/bias` is missing"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Report {
    /// The file compared.
    pub path: PathBuf,
    /// Name of the model's graph.
    pub model: String,
    /// The framework whose names were looked for.
    pub origin: Origin,
    /// Keras paths of the parameters that the file has.
    pub matched: Vec<String>,
    /// How many numbers those have together.
    pub numbers: usize,
    /// Paths of parameters that the file should have, and has not.
    pub missing: Vec<String>,
    /// Paths of parameters of optional layers that the file has not: they stay as they are.
    pub left: Vec<String>,
    /// Names of tensors that the model has no place for: they are not used.
    pub unexpected: Vec<String>,
    /// What is wrong with tensors that the model has a place for, a line each: another shape.
    pub wrong_shape: Vec<String>,
    /// Likewise: elements that are no floating-point numbers.
    pub wrong_type: Vec<String>,
    /// Likewise: values with which nothing can be computed.
    pub unusable: Vec<String>,
    /// Likewise: two tensors for one place.
    pub doubled: Vec<String>,
    /// What was done or seen that the reader should know, a line each.
    pub remarks: Vec<String>,
}

/// A tensor as messages call it; a file may have one with an empty name.
pub(super) fn called(name: &str) -> String {
    if name.is_empty() { "a tensor without a name".to_owned() } else { format!("`{}`", printable(name)) }
}

impl Report {
    pub(super) fn new(model: &Model, file: &WeightFile) -> Self {
        Report {
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
            unusable: Vec::new(),
            doubled: Vec::new(),
            remarks: file.remarks.clone(),
        }
    }

    /// An error that tells the first of what is wrong and counts the rest.
    pub fn check(&self) -> Result<()> {
        let missing = self.missing.iter().map(|path| format!("`{path}` is missing")).collect::<Vec<_>>();
        let lists = [&self.wrong_shape, &self.wrong_type, &self.unusable, &self.doubled, &missing];
        let count: usize = lists.iter().map(|list| list.len()).sum();
        let Some(first) = lists.iter().find_map(|list| list.first()) else { return Ok(()) };
        let mut message = first.clone();
        if count > 1 {
            message += &format!(" (and {} more that are wrong or missing)", count - 1);
        }
        if let ([], [first, ..]) = (&self.matched[..], &self.unexpected[..]) {
            let (model, first) = (&self.model, called(first));
            message += &format!("; nothing in it fits `{model}`, the first it has is {first}");
        }
        Err(Error::file(&self.path, message))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string_lossy();
        write!(f, "{} from {} ({})", self.model, printable(&path), self.origin)?;
        let (matched, numbers) = (self.matched.len(), self.numbers);
        write!(f, "\n  {:<12} {matched:>4} tensors, {numbers} numbers", "matched")?;
        let lists = [
            ("missing", &self.missing),
            ("not in file", &self.left),
            ("not used", &self.unexpected),
            ("wrong shape", &self.wrong_shape),
            ("wrong type", &self.wrong_type),
            ("unusable", &self.unusable),
            ("doubled", &self.doubled),
        ];
        const SHOWN: usize = 6;
        for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            let shown =
                |text: &String| if text.is_empty() { called(text) } else { printable(text).into() };
            let shown = list.iter().take(SHOWN).map(shown).collect::<Vec<_>>().join(", ");
            let more = if list.len() > SHOWN { ", …" } else { "" };
            write!(f, "\n  {what:<12} {:>4}: {shown}{more}", list.len())?;
        }
        for remark in &self.remarks {
            write!(f, "\n  {:<12} {}", "note", printable(remark))?;
        }
        Ok(())
    }
}
