//! The names of a network's layers, as the description in a `.keras` file has them.
//!
//! Keras 3 numbers variables under the class of their layer, `layers/conv2d_1/vars/0` for the second
//! convolution of the list. Newer versions write the layer's name beside them; older ones only into the
//! description.

use serde::Deserialize;
use std::collections::HashMap;

/// A layer, or a network, which is one too.
#[derive(Deserialize)]
struct Described {
    class_name: String,
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    name: String,
    /// A network's layers; a layer has none.
    #[serde(default)]
    layers: Vec<Described>,
}

/// The name of the layer whose variables are in a group, by the group's path: `layers/conv2d_1`. Empty
/// where the description says nothing.
pub(super) fn layer_names(config: &[u8]) -> HashMap<String, String> {
    let mut names = HashMap::new();
    if let Ok(network) = serde_json::from_slice::<Described>(config) {
        collect(network.config.layers, "layers", &mut names);
    }
    names
}

fn collect(layers: Vec<Described>, group: &str, names: &mut HashMap<String, String>) {
    let mut used: HashMap<String, usize> = HashMap::new();
    for Described { class_name, config } in layers {
        let class = snake_case(&class_name);
        let count = used.entry(class.clone()).or_default();
        let path = match *count {
            0 => format!("{group}/{class}"),
            n => format!("{group}/{class}_{n}"),
        };
        *count += 1;
        collect(config.layers, &format!("{path}/layers"), names);
        names.insert(path, config.name);
    }
}

/// As Keras does it: `DepthwiseConv2D` is `depthwise_conv2d`, `ReLU` is `re_lu`.
fn snake_case(class: &str) -> String {
    let letters: Vec<char> = class.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut name = String::new();
    for (i, &c) in letters.iter().enumerate() {
        let next_is_small = letters.get(i + 1).is_some_and(char::is_ascii_lowercase);
        let after_small = i > 0 && letters[i - 1].is_ascii_lowercase();
        if c.is_ascii_uppercase() && i > 0 && (next_is_small || after_small) {
            name.push('_');
        }
        name.extend(c.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_written_as_keras_writes_them() {
        for (class, name) in [
            ("Conv2D", "conv2d"),
            ("DepthwiseConv2D", "depthwise_conv2d"),
            ("BatchNormalization", "batch_normalization"),
            ("ReLU", "re_lu"),
            ("GlobalAveragePooling2D", "global_average_pooling2d"),
            ("Dense", "dense"),
            ("InputLayer", "input_layer"),
        ] {
            assert_eq!(snake_case(class), name);
        }
    }

    #[test]
    fn layers_of_a_class_are_numbered_in_their_order_network_by_network() {
        let config = br#"{"class_name": "Sequential", "config": {"name": "net", "layers": [
            {"class_name": "InputLayer", "config": {"name": "input_1"}},
            {"class_name": "Functional", "config": {"name": "base", "layers": [
                {"class_name": "Conv2D", "config": {"name": "conv1"}},
                {"class_name": "Conv2D", "config": {"name": "conv2"}}]}},
            {"class_name": "Conv2D", "config": {"name": "last"}}]}}"#;
        let names = layer_names(config);
        let name = |path: &str| names.get(path).map(String::as_str);
        assert_eq!(name("layers/functional/layers/conv2d"), Some("conv1"));
        assert_eq!(name("layers/functional/layers/conv2d_1"), Some("conv2"));
        assert_eq!(name("layers/conv2d"), Some("last"));
        assert_eq!(name("layers/conv2d_1"), None);
        assert!(layer_names(b"").is_empty() && layer_names(b"[1]").is_empty());
    }
}
