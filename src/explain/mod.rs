//! Seeing inside a network: what it computed for one image, number by number, and why.
//!
//! [`trace`] runs one image forward and backward and keeps everything. [`pixel`] computes any number of any
//! layer again from what it was made of, and its gradient from where it was sent. [`statistics`] sums up, and
//! [`layout`] draws the graph. `page` puts all of it into one HTML file.

pub mod layout;
#[cfg(feature = "report")]
pub mod page;
pub mod pixel;
pub mod statistics;
pub mod trace;

pub use trace::{Target, Trace};
