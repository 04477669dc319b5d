//! The layer graph: a network as data.
//!
//! A [`Graph`] is a list of named layers, each after the layers that feed it. A [`Model`] is a
//! graph with values for its parameters. Running a model lowers each layer to operators on the
//! tape; summaries, parameter names and rewrites come from the graph itself.

use crate::activation::Activation;
use crate::error::{Error, Result};
use crate::nn::layers::{BatchNormalization, Dense, Layer, ParameterSpec};
use crate::tensor::Shape;
use std::collections::HashMap;

/// A layer of a graph, by its position.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let flat = graph.add(Layer::Flatten, &[graph.input()])?;
/// assert_eq!(graph.find("flatten"), Some(flat));
/// assert!(flat == graph.output() && flat != graph.input());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id(pub(crate) usize);

/// A layer in its place: what it is called, what feeds it, and what shape comes out.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let conv = graph.add(Layer::conv2d(4, 3), &[graph.input()])?;
/// let node = graph.node(conv);
/// assert_eq!((node.name.as_str(), &node.output_shape[..]), ("conv2d", &[6, 6, 4][..]));
/// assert_eq!(node.inputs, [graph.input()]);
/// let kinds: Vec<&str> = node.parameters.iter().map(|spec| spec.kind).collect();
/// assert_eq!(kinds, ["kernel", "bias"]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique in its graph, as in Keras (`conv2d_1`); the first part of its parameters' paths.
    pub name: String,
    /// Its type and settings.
    pub layer: Layer,
    /// The layers whose outputs it reads, all of them before it; empty for the input layer alone.
    pub inputs: Vec<Id>,
    /// Without the batch axis.
    pub output_shape: Vec<usize>,
    /// In Keras' order: kernel, bias; or gamma, beta, moving mean, moving variance.
    pub parameters: Vec<ParameterSpec>,
    /// Its parameters, memory and arithmetic, for one image.
    pub cost: Cost,
}

/// What a layer comes to, or a network, for one image forward.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let conv = graph.add(Layer::conv2d(4, 3).with_padding(Padding::Same), &[graph.input()])?;
/// let cost = graph.node(conv).cost;
/// assert_eq!(cost.parameters, 3 * 3 * 3 * 4 + 4);
/// assert_eq!(cost.activation_bytes, 4 * (8 * 8 * 4));
/// assert_eq!(cost.flops, (2 * 27 + 1) * (8 * 8 * 4)); // an output: 27 products, as many sums, and the bias
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Numbers in all parameters.
    pub parameters: u64,
    /// Those that train.
    pub trainable: u64,
    /// Of the output in f32; of a network, of all layers'.
    pub activation_bytes: u64,
    /// Multiplications and additions.
    pub flops: u64,
}

impl Cost {
    /// None where there is more of something than can be counted; so for [`Cost::plus`].
    fn of(
        layer: Layer,
        input: &[usize],
        output: &[usize],
        parameters: &[ParameterSpec],
    ) -> Option<Self> {
        let numbers = |trainable: bool| {
            let wanted = parameters.iter().filter(|spec| spec.trainable || !trainable);
            // (A layer has four parameters at most, whose sum is no more than there are addresses.)
            wanted.map(|spec| spec.shape.elements() as u64).sum()
        };
        Some(Cost {
            parameters: numbers(false),
            trainable: numbers(true),
            activation_bytes: 4 * Shape::checked(output).ok()?.elements() as u64,
            flops: layer.flops(input, output)?,
        })
    }

    fn plus(self, other: Self) -> Option<Self> {
        Some(Cost {
            parameters: self.parameters.checked_add(other.parameters)?,
            trainable: self.trainable.checked_add(other.trainable)?,
            activation_bytes: self.activation_bytes.checked_add(other.activation_bytes)?,
            flops: self.flops.checked_add(other.flops)?,
        })
    }
}

/// A network's layers, each after those that feed it; one input, one output, no values.
///
/// ```
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "images", [8, 8, 3]);
/// let stem = graph.add_named("stem", Layer::conv2d(4, 3), &[graph.input()])?;
/// graph.end_base(); // pre-trained weights are for what is there so far
/// graph.chain(stem, [Layer::GlobalAveragePooling2D, Layer::dense(2)])?;
///
/// assert_eq!(graph.find("stem"), Some(stem));
/// assert_eq!(graph.node(stem).output_shape, [6, 6, 4]);
/// assert_eq!(graph.node(graph.output()).name, "dense");
/// let names: Vec<&str> = graph.nodes().iter().map(|node| node.name.as_str()).collect();
/// assert_eq!(names, ["images", "stem", "global_average_pooling2d", "dense"]);
/// assert_eq!(graph.base().len(), 2); // the input is one of them
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Graph {
    /// The network's, as in Keras (`mobilenet`): for tables, files and error messages.
    pub name: String,
    nodes: Vec<Node>,
    /// How many layers of each type were named by default.
    counts: HashMap<&'static str, usize>,
    /// How many of the layers are the pre-trained base.
    base: usize,
    /// Of all layers together.
    cost: Cost,
}

impl Graph {
    /// A graph whose input layer, of images [height, width, channels], has the given name.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let layers = [Layer::conv2d(4, 3), Layer::Flatten, Layer::dense(2)];
    /// graph.chain(graph.input(), layers)?;
    /// assert_eq!(graph.node(graph.output()).output_shape, [2]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(name: &str, input_name: &str, input: [usize; 3]) -> Self {
        // (Of what is no shape, the first layer's is an error.)
        let cost = Cost::of(Layer::Input(input), &[], &input, &[]).unwrap_or_default();
        let node = Node {
            name: input_name.into(),
            layer: Layer::Input(input),
            inputs: Vec::new(),
            output_shape: input.to_vec(),
            parameters: Vec::new(),
            cost,
        };
        Graph { name: name.into(), nodes: vec![node], counts: HashMap::new(), base: 0, cost }
    }

    /// The layer that gives the images [height, width, channels]: always the first.
    pub fn input(&self) -> Id {
        Id(0)
    }

    /// The last layer added: what the network computes.
    pub fn output(&self) -> Id {
        Id(self.nodes.len() - 1)
    }

    /// All layers in the order they were added, which is one they can run in; an [`Id`] is a place in it.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The layer at a place of this graph. Panics with another graph's `Id` where that lies past the end.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0]
    }

    /// What all layers come to.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3)])?;
    /// assert_eq!(graph.cost().parameters, 3 * 3 * 3 * 4 + 4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The layer of that name.
    pub fn find(&self, name: &str) -> Option<Id> {
        self.nodes.iter().position(|node| node.name == name).map(Id)
    }

    /// What has been added so far is the base: what pre-trained weights are for.
    pub fn end_base(&mut self) {
        self.base = self.nodes.len();
    }

    /// The layers of the base; none where a network is trained from scratch as a whole.
    pub fn base(&self) -> &[Node] {
        &self.nodes[..self.base]
    }

    /// Adds a layer under the name Keras would give it: its type, numbered in order of creation.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let a = graph.add(Layer::conv2d(4, 3).with_padding(Padding::Same), &[graph.input()])?;
    /// let b = graph.add(Layer::conv2d(4, 1), &[graph.input()])?;
    /// let sum = graph.add(Layer::Add, &[a, b])?; // two branches meet
    /// assert_eq!(graph.node(sum).output_shape, [8, 8, 4]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add(&mut self, layer: Layer, inputs: &[Id]) -> Result<Id> {
        self.add_as(layer.default_name(), layer, inputs)
    }

    /// Adds a layer under a name that is numbered in order of creation.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let a = graph.add_as("block", Layer::conv2d(4, 3), &[graph.input()])?;
    /// let b = graph.add_as("block", Layer::conv2d(4, 3), &[a])?;
    /// assert_eq!([a, b].map(|id| graph.node(id).name.as_str()), ["block", "block_1"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add_as(&mut self, base: &'static str, layer: Layer, inputs: &[Id]) -> Result<Id> {
        let count = self.counts.entry(base).or_default();
        let name = if *count == 0 { base.to_string() } else { format!("{base}_{count}") };
        *count += 1;
        self.add_named(&name, layer, inputs)
    }

    /// Adds a layer under a name of its own.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.add_named("stem", Layer::conv2d(4, 3), &[graph.input()])?;
    /// assert!(graph.find("stem").is_some());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn add_named(&mut self, name: &str, layer: Layer, inputs: &[Id]) -> Result<Id> {
        if self.nodes.iter().any(|node| node.name == name) {
            return Err(Error::argument("graph", format!("two layers are called `{name}`")));
        }
        let shapes: Vec<&[usize]> =
            inputs.iter().map(|id| self.nodes[id.0].output_shape.as_slice()).collect();
        for shape in &shapes {
            Shape::checked(shape)?;
        }
        let output_shape = layer.output_shape(name, &shapes)?;
        let input = shapes.first().copied().unwrap_or(&[]);
        let parameters = layer.parameters(input)?;
        let uncounted = || {
            let message =
                format!("with layer `{name}` its size or arithmetic is more than can be counted");
            Error::argument("graph", message)
        };
        let cost = Cost::of(layer, input, &output_shape, &parameters).ok_or_else(uncounted)?;
        self.cost = self.cost.plus(cost).ok_or_else(uncounted)?;
        let (name, inputs) = (name.into(), inputs.to_vec());
        self.nodes.push(Node { name, layer, inputs, output_shape, parameters, cost });
        Ok(self.output())
    }

    /// Adds layers one after the other, each fed by the one before; the first by `input`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// graph.chain(graph.input(), [Layer::conv2d(4, 3), Layer::GlobalAveragePooling2D])?;
    /// assert_eq!(graph.nodes().len(), 3); // with the input
    /// # Ok::<(), Error>(())
    /// ```
    pub fn chain(&mut self, input: Id, layers: impl IntoIterator<Item = Layer>) -> Result<Id> {
        layers.into_iter().try_fold(input, |last, layer| self.add(layer, &[last]))
    }

    /// The same with another momentum for its batch norms' moving statistics.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// use atrous::nn::layers::BatchNormalization;
    ///
    /// let mut graph = Graph::new("small", "input", [8, 8, 3]);
    /// let norm = graph.add(Layer::batch_normalization(), &[graph.input()])?;
    /// let graph = graph.with_batch_norm_momentum(0.5); // exact as f32 and as f64
    /// let layer = BatchNormalization { epsilon: 1e-3, momentum: 0.5 };
    /// assert_eq!(graph.node(norm).layer, Layer::BatchNormalization(layer));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn with_batch_norm_momentum(mut self, value: f32) -> Self {
        for node in &mut self.nodes {
            if let Layer::BatchNormalization(BatchNormalization { momentum, .. }) = &mut node.layer {
                *momentum = value.into();
            }
        }
        self
    }

    /// The same with another activation at its output. An error where the last layer has none of its own.
    pub fn with_output_activation(mut self, value: Activation) -> Result<Self> {
        match self.nodes.last_mut().map(|node| &mut node.layer) {
            Some(Layer::Dense(Dense { activation, .. })) => *activation = value,
            Some(Layer::Activation(activation)) => *activation = value,
            other => {
                let expected = "expected a dense layer or an activation at the output";
                return Err(Error::argument("activation", format!("{expected}, got {other:?}")));
            }
        }
        Ok(self)
    }

    /// A graph of the same name and input, with no layers yet.
    pub(super) fn emptied(&self) -> Self {
        let mut graph = self.clone();
        graph.nodes.truncate(1);
        (graph.base, graph.counts, graph.cost) = (0, HashMap::new(), graph.nodes[0].cost);
        graph
    }

    /// For each layer, how many read it.
    pub(super) fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.nodes.len()];
        self.nodes.iter().flat_map(|node| &node.inputs).for_each(|id| readers[id.0] += 1);
        readers
    }
}
