//! Seeing inside: what a network's answer comes from.
//!
//! [`attribution`] says which pixels spoke for a class, [`receptive_field`] which pixels a value of a feature
//! map can see at all, and how strongly; [`feature_visualization`] draws what a channel answers to,
//! [`attack_sweep`] how an answer changes with the size of a perturbation, [`atrous_branches`] what each
//! branch of an atrous spatial pyramid is for. Maps become images by [`heat_map`]. Images are NHWC, in the
//! scale that the network takes ([`Preprocess`](crate::data::image::Preprocess)), unless it says otherwise.

pub mod atrous_branches;
pub mod attack_sweep;
pub mod attribution;
pub mod feature_visualization;
pub mod heat_map;
mod layers;
pub mod receptive_field;
