//! Where a graph's layers are drawn: rows from the image down, branches side by side.
//!
//! A layer's row is the longest way to it. Layers that follow each other form chains, each in a lane; an
//! edge that passes rows takes a lane of its own on its way (as dummy nodes do in Sugiyama's layered
//! drawings). A lane holds what does not overlap in it: the longest chain the first, the others the nearest
//! one that is free.

use crate::nn::{Graph, Id};
use std::collections::HashSet;

/// A drawing: places of layers, and edges between them.
///
/// ```
/// use atrous::explain::layout::Layout;
/// use atrous::prelude::*;
///
/// let mut graph = Graph::new("small", "input", [8, 8, 3]);
/// let conv = graph.add(Layer::conv2d(3, 3).with_padding(Padding::Same), &[graph.input()])?;
/// graph.add(Layer::Add, &[conv, graph.input()])?; // a residual connection
/// let layout = Layout::new(&graph);
/// assert_eq!((layout.rows, layout.edges.len()), (3, 3));
/// assert_eq!(layout.nodes, [[0, 0], [0, 1], [0, 2]]); // lane and row
/// assert_eq!(layout.lanes, 2); // the connection goes past the convolution
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Layout {
    /// By layer: its lane, from the left, and its row, from the top.
    pub nodes: Vec<[usize; 2]>,
    /// One an input of a layer.
    pub edges: Vec<Edge>,
    /// Lanes there are.
    pub lanes: usize,
    /// Rows there are.
    pub rows: usize,
}

/// From a layer to one that reads it.
///
/// [`Layout`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Edge {
    /// The layer that is read.
    pub from: usize,
    /// The layer that reads it.
    pub to: usize,
    /// The lane that it takes past the rows between; for neighbours that of the reader.
    pub lane: usize,
}

/// Something that takes a lane from one row to another, both included.
struct Span {
    first: usize,
    last: usize,
    /// The lane that it comes from.
    near: usize,
    /// An edge keeps to the right of what it passes, so that it is told from a chain.
    is_edge: bool,
}

impl Layout {
    /// The drawing of a graph.
    pub fn new(graph: &Graph) -> Self {
        let nodes = graph.nodes();
        let mut row = vec![0; nodes.len()];
        for (i, node) in nodes.iter().enumerate() {
            row[i] = node.inputs.iter().map(|id| row[id.0] + 1).max().unwrap_or(0);
        }
        let chains = chains(graph);
        let next: HashSet<(usize, usize)> =
            chains.iter().flat_map(|chain| chain.windows(2).map(|pair| (pair[0], pair[1]))).collect();
        let mut edges = Vec::new();
        let mut lane = vec![0; nodes.len()];
        let mut lanes = Lanes::default();
        // Chains first, in the order in which they begin; so a branch knows the lane that it leaves.
        for chain in &chains {
            let (first, last) = (row[chain[0]], row[chain[chain.len() - 1]]);
            let near = nodes[chain[0]].inputs.first().map_or(0, |id| lane[id.0]);
            let taken = lanes.take(Span { first, last, near, is_edge: false });
            chain.iter().for_each(|&i| lane[i] = taken);
        }
        for (to, node) in nodes.iter().enumerate() {
            for from in node.inputs.iter().map(|id| id.0) {
                let apart = row[to] - row[from];
                let lane = match apart <= 1 || next.contains(&(from, to)) {
                    true => lane[to],
                    false => {
                        let near = lane[from].max(lane[to]);
                        lanes.take(Span { first: row[from] + 1, last: row[to] - 1, near, is_edge: true })
                    }
                };
                edges.push(Edge { from, to, lane });
            }
        }
        let rows = row.iter().max().map_or(0, |last| last + 1);
        let nodes = lane.into_iter().zip(row).map(|(lane, row)| [lane, row]).collect();
        Layout { nodes, edges, lanes: lanes.taken.len(), rows }
    }
}

/// Rows that are taken, by lane.
#[derive(Default)]
struct Lanes {
    taken: Vec<Vec<[usize; 2]>>,
}

impl Lanes {
    /// The free lane that is nearest to where the span comes from; of two the one to the right.
    fn take(&mut self, span: Span) -> usize {
        let free = |lane: &Vec<[usize; 2]>| lane.iter().all(|&[a, b]| span.last < a || b < span.first);
        let from = if span.is_edge { span.near + 1 } else { 0 };
        let candidates = (from..self.taken.len()).filter(|&lane| free(&self.taken[lane]));
        let lane = candidates.min_by_key(|lane| (lane.abs_diff(span.near), usize::MAX - lane));
        let lane = lane.unwrap_or_else(|| {
            self.taken.push(Vec::new());
            self.taken.len() - 1
        });
        self.taken[lane].push([span.first, span.last]);
        lane
    }
}

/// Layers one after the other: from a layer to the reader with the longest way to the end. The first chain is
/// the one from the image to the output.
fn chains(graph: &Graph) -> Vec<Vec<usize>> {
    let nodes = graph.nodes();
    let mut readers = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&Id(input)| readers[input].push(i));
    }
    let mut to_end = vec![0usize; nodes.len()];
    for i in (0..nodes.len()).rev() {
        to_end[i] = readers[i].iter().map(|&reader| to_end[reader] + 1).max().unwrap_or(0);
    }
    let mut seen = vec![false; nodes.len()];
    let mut chains = Vec::new();
    for start in 0..nodes.len() {
        let mut chain = Vec::new();
        let mut at = Some(start).filter(|&i| !seen[i]);
        while let Some(i) = at {
            seen[i] = true;
            chain.push(i);
            let longest =
                readers[i].iter().copied().max_by_key(|&reader| (to_end[reader], usize::MAX - reader));
            at = longest.filter(|&reader| !seen[reader]);
        }
        if !chain.is_empty() {
            chains.push(chain);
        }
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::by_name;

    #[test]
    fn no_two_layers_share_a_place_and_edges_go_down() {
        for name in crate::models::NAMES {
            let graph = by_name(name, 128, 20).unwrap();
            let layout = Layout::new(&graph);
            assert_eq!(layout.nodes.iter().collect::<HashSet<_>>().len(), graph.nodes().len(), "{name}");
            let inputs: usize = graph.nodes().iter().map(|node| node.inputs.len()).sum();
            assert_eq!(layout.edges.len(), inputs);
            for edge in &layout.edges {
                let [[_, from], [_, to]] = [layout.nodes[edge.from], layout.nodes[edge.to]];
                assert!(from < to, "{name}: {edge:?}");
                // What an edge passes in its lane is no layer.
                let passed = (from + 1..to).any(|row| layout.nodes.contains(&[edge.lane, row]));
                assert!(!passed, "{name}: {edge:?}");
            }
        }
    }

    #[test]
    fn a_chain_is_one_lane_and_branches_of_a_pyramid_have_one_each() {
        let alexnet = Layout::new(&by_name("alexnet", 120, 20).unwrap());
        assert_eq!((alexnet.lanes, alexnet.rows), (1, alexnet.nodes.len()));
        let graph = by_name("deeplabv3plus", 128, 21).unwrap();
        let layout = Layout::new(&graph);
        let pyramid = graph.nodes().iter().find(|node| node.layer.type_name() == "Concatenate").unwrap();
        let lanes: HashSet<usize> = pyramid.inputs.iter().map(|id| layout.nodes[id.0][0]).collect();
        assert_eq!(lanes.len(), 5);
    }
}
