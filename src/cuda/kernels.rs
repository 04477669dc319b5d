//! The sources of all kernels, in the binary, for the compiler that runs with it.

/// (module, source) of every `kernels/*.cu`, and the headers they include.
macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../kernels/", $name)))),*]
    };
}

/// One file an operator.
pub(crate) const MODULES: &[(&str, &str)] = sources![
    "activation.cu",
    "affine.cu",
    "batch_norm.cu",
    "concat.cu",
    "conv2d.cu",
    "cross_entropy.cu",
    "depthwise_conv2d.cu",
    "dropout.cu",
    "elementwise.cu",
    "optimizers.cu",
    "pad.cu",
    "pool.cu",
    "reduce.cu",
    "resize.cu",
    "softmax.cu",
];

/// What they include.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) const HEADERS: &[(&str, &str)] = sources!["common.cuh", "mma.cuh", "random.cuh"];

/// The source of a module.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) fn source(module: &str) -> Option<&'static str> {
    MODULES.iter().find(|(name, _)| name.strip_suffix(".cu") == Some(module)).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_file_is_in_the_binary() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".cu") || name.ends_with(".cuh"))
            .collect();
        found.sort();
        let mut known: Vec<&str> = MODULES.iter().chain(HEADERS).map(|(name, _)| *name).collect();
        known.sort();
        assert_eq!(found, known);
        assert!(source("elementwise").unwrap().contains("__global__") && source("x").is_none());
    }
}
