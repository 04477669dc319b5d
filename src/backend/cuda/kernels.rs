//! The sources of all kernels, in the binary, for the compiler that runs with it.

// `MODULES`: (file, source), one file an operator and one a rung of the ladder. `HEADERS`: what they
// include. Listed by `build.rs` from the folder `kernels`.
include!(concat!(env!("OUT_DIR"), "/kernel_sources.rs"));

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
