//! Seeing inside a network: what it computed for one image, number by number, and why.
//!
//! [`target`] says which number is explained. [`trace`] runs one image forward and backward and keeps everything. [`pixel`] computes any number of any
//! layer again from what it was made of, and its gradient from where it was sent. [`statistics`] sums up, and
//! [`layout`] draws the graph.
//!
//! [`attribution`] says which pixels spoke for a class, [`receptive_field`] which pixels a value of a feature
//! map can see at all, and how strongly; [`feature_visualization`] draws what a channel answers to,
//! [`attack_sweep`] how an answer changes with the size of a perturbation, [`atrous_branches`] what each
//! branch of an atrous spatial pyramid is for. Maps become images by [`heat_map`].
//!
//! [`page`] puts all of it into one HTML file. Images are NHWC, in the scale that the network takes
//! ([`Preprocess`](crate::data::image::Preprocess)), unless it says otherwise.

pub mod atrous_branches;
pub mod attack_sweep;
pub mod attribution;
pub mod feature_visualization;
pub mod heat_map;
mod layers;
pub mod layout;
pub mod page;
pub mod pixel;
pub mod receptive_field;
pub mod statistics;
pub mod target;
pub mod trace;

pub use target::Target;
pub use trace::Trace;
