//! Values that are one of a few names: the help lists them, shells complete them, and what is like one of
//! them is answered with it.

use atrous::Error;
use atrous::data::transforms::Augment;
use atrous::models;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::str::FromStr;

/// One of these names, as text.
pub fn names(known: &[&'static str]) -> PossibleValuesParser {
    PossibleValuesParser::new(known.iter().copied())
}

/// One of these names, as what it names.
pub fn among<T>(known: &[&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = Error> + Clone + Send + Sync + 'static,
{
    names(known).try_map(|name| name.parse::<T>())
}

/// A network's name.
pub fn networks() -> PossibleValuesParser {
    names(&models::NAMES)
}

/// A name with what it means: `--help` has a line for each.
pub fn explained(known: &[(&'static str, &'static str)]) -> PossibleValuesParser {
    PossibleValuesParser::new(known.iter().map(|(name, help)| PossibleValue::new(*name).help(*help)))
}

/// How training images vary.
pub fn augmentations() -> PossibleValuesParser {
    let all = [
        ("none", "They do not"),
        ("flip", "Half of them are flipped left to right"),
        ("keras", "Rotated by up to 20°, sheared, zoomed by up to 20 %, flipped"),
        ("crop", "A part of the image at a random scale, flipped or not"),
        ("colour", "A crop, with brightness, contrast and saturation changed"),
    ];
    debug_assert!(all.iter().all(|(name, _)| name.parse::<Augment>().is_ok()));
    explained(&all)
}
