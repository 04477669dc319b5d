//! The networks, each declared as a graph of named layers.

mod alexnet;

pub use alexnet::alexnet;

use crate::error::{Error, Result};
use crate::graph::Graph;

/// The names [`by_name`] knows.
pub const NAMES: [&str; 1] = ["alexnet"];

/// A network by its name, for pictures of the given side and this many classes.
pub fn by_name(name: &str, side: usize, classes: usize) -> Result<Graph> {
    match name {
        "alexnet" => alexnet(side, classes),
        _ => Err(Error::argument(
            "model",
            format!("`{name}` is unknown; there is {}", NAMES.map(|n| format!("`{n}`")).join(", ")),
        )),
    }
}

/// The side of the pictures a network was designed for.
pub fn default_side(name: &str) -> usize {
    match name {
        "alexnet" => 150,
        _ => 224,
    }
}
