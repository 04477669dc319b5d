//! The table of a network's layers: shapes, parameters, arithmetic, memory.

use super::graph::{Cost, Graph, Node};
#[cfg(feature = "checkpoint")]
use crate::nn::layers::ParameterSpec;
use std::fmt;

/// One layer, as a line of the table.
///
/// [`Summary`] has an example.
pub struct Row {
    /// The layer's, unique in its network.
    pub name: String,
    /// Keras' class name: `Conv2D`.
    pub type_name: &'static str,
    /// Without the batch axis.
    pub output_shape: Vec<usize>,
    /// Parameters, FLOPs and bytes of output, for one image.
    pub cost: Cost,
    /// The names of the layers that feed it; none for the input layer.
    pub inputs: Vec<String>,
}

/// A network's layers and their costs, before it runs: displayed as `atrous summary` prints it.
///
/// ```
/// use atrous::nn::Summary;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::Flatten, Layer::dense(10)])?;
/// let summary = Summary::new(&graph);
/// assert_eq!(summary.total.parameters, (27 * 4 + 4) + (6 * 6 * 4 * 10 + 10));
/// assert_eq!((summary.rows[1].type_name, &summary.rows[1].inputs[..]), ("Conv2D", &["input".into()][..]));
/// let table = summary.to_string();
/// assert!(table.starts_with("small\nlayer ") && table.contains("parameters: 1,562 (0.0 MiB)"), "{table}");
/// # Ok::<(), Error>(())
/// ```
pub struct Summary {
    /// The network's name.
    pub model: String,
    /// One a layer, in the order of the graph.
    pub rows: Vec<Row>,
    /// Of all rows.
    pub total: Cost,
}

impl Summary {
    /// Of a network before any of it is frozen. Its parameters need no values for that.
    pub fn new(graph: &Graph) -> Self {
        let row = |node: &Node| Row {
            name: node.name.clone(),
            type_name: node.layer.type_name(),
            output_shape: node.output_shape.clone(),
            cost: node.cost,
            inputs: node.inputs.iter().map(|id| graph.node(*id).name.clone()).collect(),
        };
        let rows = graph.nodes().iter().map(row).collect();
        Summary { model: graph.name.clone(), rows, total: graph.cost() }
    }
}

/// (224, 224, 3)
fn shape(axes: &[usize]) -> String {
    format!("({})", axes.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}

/// 1234567 → 1,234,567
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.model)?;
        let header = ("layer", "type", "output shape", "parameters", "trainable", "MFLOP", "KiB");
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(12);
        let (a, b, c, d, e, g, h) = header;
        writeln!(f, "{a:<width$}  {b:<20} {c:<18} {d:>12} {e:>12} {g:>10} {h:>9}")?;
        for row in &self.rows {
            writeln!(
                f,
                "{:<width$}  {:<20} {:<18} {:>12} {:>12} {:>10.2} {:>9.1}",
                row.name,
                row.type_name,
                shape(&row.output_shape),
                grouped(row.cost.parameters),
                grouped(row.cost.trainable),
                row.cost.flops as f64 / 1e6,
                row.cost.activation_bytes as f64 / 1024.0,
            )?;
        }
        let Cost { parameters: all, trainable, flops, activation_bytes } = self.total;
        writeln!(f, "parameters: {} ({:.1} MiB)", grouped(all), all as f64 * 4.0 / (1 << 20) as f64)?;
        writeln!(f, "trainable: {}, not: {}", grouped(trainable), grouped(all - trainable))?;
        writeln!(f, "one picture forward: {:.3} GFLOP", flops as f64 / 1e9)?;
        let mib = activation_bytes as f64 / (1 << 20) as f64;
        write!(f, "activations of one picture: {mib:.1} MiB")
    }
}

#[cfg(feature = "checkpoint")]
impl Summary {
    /// The table as JSON: one object a layer, and totals. The batch axis is `null`.
    ///
    /// ```
    /// # use atrous::nn::Summary;
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.add(Layer::conv2d(4, 3), &[graph.input()])?;
    /// let json = Summary::new(&graph).to_json(&graph);
    /// let conv = &json["layers"][1];
    /// assert_eq!((&conv["type"], &conv["params"]), (&"Conv2D".into(), &112.into()));
    /// assert_eq!(conv["weights"][0]["name"], "conv2d/kernel");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn to_json(&self, graph: &Graph) -> serde_json::Value {
        use serde_json::{Value, json};
        let shape = |shape: &[usize]| -> Vec<Option<usize>> {
            [None].into_iter().chain(shape.iter().map(|&n| Some(n))).collect()
        };
        let layers: Vec<Value> = self
            .rows
            .iter()
            .zip(graph.nodes())
            .map(|(row, node)| {
                let weight = |spec: &ParameterSpec| {
                    let path = format!("{}/{}", node.name, spec.kind);
                    json!({"name": path, "shape": spec.shape.to_vec(), "trainable": spec.trainable})
                };
                json!({
                    "name": row.name,
                    "type": row.type_name,
                    "output_shape": shape(&row.output_shape),
                    "params": row.cost.parameters,
                    "trainable_params": row.cost.trainable,
                    "flops": row.cost.flops,
                    "activation_bytes": row.cost.activation_bytes,
                    "inputs": row.inputs,
                    "config": node.layer.config(),
                    "weights": node.parameters.iter().map(weight).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "model": self.model,
            "layers": layers,
            "total_params": self.total.parameters,
            "trainable_params": self.total.trainable,
            "flops": self.total.flops,
            "activation_bytes": self.total.activation_bytes,
        })
    }
}
