//! `atrous bench ops OPERATOR --shape …`

use atrous::bench::{CustomShape, Op, parse_shape};
use atrous::{Error, Result};
use clap::{Args, ValueEnum};

/// What one operator is timed on.
#[derive(Args)]
pub struct ShapeOptions {
    /// Time one operator on an input of this shape [default: shapes of networks]
    ///
    /// For conv2d, depthwise_conv2d, dense, max_pool2d, average_pool2d, batch_norm, relu, add and softmax.
    #[arg(long, help_heading = HEADING, value_name = "NxHxWxC", conflicts_with_all = ["ladder", "against"])]
    shape: Option<String>,
    /// Filters of a convolution, units of a dense layer [default: as many as channels]
    #[arg(long, help_heading = HEADING, value_name = "N", requires = "shape")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    filters: Option<u32>,
    /// Side of a kernel or a pool's window [default: 3; of a pool 2]
    #[arg(long, help_heading = HEADING, value_name = "CELLS", requires = "shape")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    kernel: Option<u32>,
    /// Cells from window to window [default: 1; of a pool the window's side]
    #[arg(long, help_heading = HEADING, value_name = "CELLS", requires = "shape")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    stride: Option<u32>,
    /// Cells from tap to tap of a convolution's kernel [default: 1]
    #[arg(long, help_heading = HEADING, value_name = "CELLS", requires = "shape")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    dilation: Option<u32>,
    /// Windows at the edge: with zeros around the image, or none [default: same]
    #[arg(long, help_heading = HEADING, value_name = "RULE", requires = "shape")]
    padding: Option<Padding>,
}

/// The section of the help.
const HEADING: &str = "An operator on a shape of one's own";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Padding {
    Same,
    Valid,
}

impl ShapeOptions {
    /// The one operator of this name, where a shape is given.
    pub fn op(&self, names: &[String]) -> Result<Option<Op>> {
        let Some(shape) = &self.shape else { return Ok(None) };
        let [operator] = names else {
            let message = format!("expected one operator before it, got {}", names.len());
            return Err(Error::argument("--shape", message));
        };
        let number = |option: Option<u32>| option.map(|n| n as usize);
        let own = CustomShape {
            input: parse_shape(shape)?,
            filters: number(self.filters),
            kernel: number(self.kernel),
            stride: number(self.stride),
            dilation: number(self.dilation),
            valid: self.padding == Some(Padding::Valid),
        };
        own.op(operator).map(Some)
    }

    pub fn is_given(&self) -> bool {
        self.shape.is_some()
    }
}
