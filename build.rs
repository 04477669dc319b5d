//! With the feature `emulator`: compiles the CUDA kernels as C++ for the emulated device.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "emulator")]
    emulator::build();
}

#[cfg(feature = "emulator")]
mod emulator {
    use std::path::Path;
    use std::{env, fs};

    pub fn build() {
        let kernels = Path::new("kernels");
        let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
        println!("cargo:rerun-if-changed=kernels");
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .opt_level(3)
            .flag("-march=x86-64-v3")
            // A multiply and an add stay two roundings, as in kernels that must match Keras' floors.
            .flag("-ffp-contract=off")
            .flag("-Wno-unknown-pragmas")
            .include(kernels)
            // Kernels register themselves from static initialisers, which nothing refers to.
            .link_lib_modifier("+whole-archive");
        for file in sorted(&kernels.join("emulator"), "cpp") {
            if file != "replay.cpp" {
                build.file(kernels.join("emulator").join(file));
            }
        }
        // One translation unit a kernel file: their helpers may share names.
        let rungs =
            sorted(&kernels.join("ladder"), "cu").into_iter().map(|file| format!("ladder/{file}"));
        for file in sorted(kernels, "cu").into_iter().chain(rungs) {
            let source = fs::read_to_string(kernels.join(&file)).expect("a kernel file is text");
            // Also the name of a linker section.
            let stem = file.trim_end_matches(".cu").replace('/', "_");
            let mut unit = format!("#define ATROUS_UNIT \"{stem}\"\n#include \"{file}\"\n");
            for name in kernel_names(&source) {
                unit += &format!("ATROUS_KERNEL({name});\n");
            }
            let path = Path::new(&out).join(format!("{stem}_emulated.cpp"));
            fs::write(&path, unit).expect("OUT_DIR can be written");
            build.file(path);
        }
        build.compile("atrous_emulated");
    }

    fn sorted(folder: &Path, extension: &str) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder is part of the crate");
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| Path::new(name).extension().is_some_and(|e| e == extension))
            .collect();
        names.sort();
        names
    }

    /// The names of the functions that are declared `extern "C" __global__ void NAME(`, whatever
    /// stands between.
    fn kernel_names(source: &str) -> Vec<&str> {
        let declared = source.split("extern \"C\" __global__ void").skip(1);
        declared
            .filter_map(|rest| {
                let rest = rest.trim_start();
                // Launch bounds are in parentheses, too.
                let rest = match rest.strip_prefix("__launch_bounds__(") {
                    Some(bounds) => bounds.split_once(')')?.1.trim_start(),
                    None => rest,
                };
                Some(rest.split_once('(')?.0.trim())
            })
            .collect()
    }
}
