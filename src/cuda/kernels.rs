//! The sources of all kernels, in the binary, for the compiler that runs with it.

/// (module, source) of every `kernels/*.cu`, and the headers they include.
macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../kernels/", $name)))),*]
    };
}

/// One file an operator, and one a rung of the ladder.
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
    "graph.cu",
    "metrics.cu",
    "optimizers.cu",
    "pad.cu",
    "pool.cu",
    "reduce.cu",
    "resize.cu",
    "sign_step.cu",
    "softmax.cu",
    "ladder/batch_norm_1_channel.cu",
    "ladder/batch_norm_2_tiles.cu",
    "ladder/conv2d_1_direct.cu",
    "ladder/conv2d_2_tiled.cu",
    "ladder/conv2d_3_implicit_gemm.cu",
    "ladder/depthwise_conv2d_1_naive.cu",
    "ladder/depthwise_conv2d_2_vectors.cu",
    "ladder/gemm_1_naive.cu",
    "ladder/gemm_2_tiled.cu",
    "ladder/gemm_3_registers.cu",
    "ladder/gemm_4_cp_async.cu",
    "ladder/gemm_5_mma.cu",
    "ladder/reduce_1_row.cu",
    "ladder/reduce_2_tree.cu",
    "ladder/reduce_3_shuffles.cu",
];

/// What they include.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
pub(crate) const HEADERS: &[(&str, &str)] = sources![
    "common.cuh",
    "conv2d.cuh",
    "depthwise_conv2d.cuh",
    "mma.cuh",
    "product.cuh",
    "random.cuh",
    "rows.cuh",
    "vector.cuh",
    "ladder/gemm.cuh",
];

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
        let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut found: Vec<String> = ["", "ladder/"]
            .iter()
            .flat_map(|folder| {
                let names = std::fs::read_dir(kernels.join(folder)).unwrap();
                names.map(move |entry| folder.to_string() + entry.unwrap().file_name().to_str().unwrap())
            })
            .filter(|name| name.ends_with(".cu") || name.ends_with(".cuh"))
            .collect();
        found.sort();
        let mut known: Vec<&str> = MODULES.iter().chain(HEADERS).map(|(name, _)| *name).collect();
        known.sort();
        assert_eq!(found, known);
        assert!(source("elementwise").unwrap().contains("__global__") && source("x").is_none());
    }
}
