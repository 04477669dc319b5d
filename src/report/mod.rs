//! Images for people: [`curves()`] of a run as SVG and PNG, a [`gallery()`] of a data set, panels of
//! predictions ([`panel()`]), grids of images ([`grid()`]) and masks over images ([`overlay()`]) as PNG;
//! [plots], an evaluation in figures (`evaluation`), and [HTML pages](page) that hold them, such as the report
//! of a run (`html`).
//!
//! Everything is drawn here, letters too (`font.rs`), so that it looks the same on every machine.
//! Masks are in VOC's palette, void in cream.

mod canvas;
mod curves;
#[cfg(feature = "checkpoint")]
pub mod evaluation;
mod font;
mod gallery;
mod grid;
#[cfg(feature = "checkpoint")]
pub mod html;
mod legend;
mod overlay;
pub mod page;
mod panels;
pub mod plots;
mod style;

pub use curves::{Panel, draw};
#[cfg(feature = "checkpoint")]
pub use curves::{curves, from_history};
pub use gallery::gallery;
pub use grid::{GridCell, GridRow, Tone, difference, grid};
pub use overlay::overlay;
pub use panels::{PanelRow, blended, panel};
pub use plots::Curve;
