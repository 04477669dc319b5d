//! With the feature `emulator`: compiles the CUDA kernels as C++ for the emulated device.
//!
//! With the feature `cuda` and `ATROUS_CUBIN=sm_80,sm_90a`: compiles them for those architectures by
//! nvcc (`$NVCC`, or on the PATH), into the binary, for machines that have a driver and no run-time
//! compiler. `compute_90` gives PTX, which the driver of a newer device compiles.
//!
//! In release builds: the commit, for `atrous --version`. `ATROUS_COMMIT` says it where there is no git;
//! where it is set and empty, no commit is told, and none has everything compiled again.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    list_sources();
    tell_the_commit();
    #[cfg(feature = "cuda")]
    cubins::build();
    #[cfg(feature = "emulator")]
    emulator::build();
}

/// Writes the tables of `src/backend/cuda/kernels.rs`: every kernel file and every header, with its text.
fn list_sources() {
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=kernels/ladder");
    let kernels = env::current_dir().expect("cargo runs this in the crate's folder").join("kernels");
    let table = |names: Vec<String>| -> String {
        let line = |name: &String| format!("    ({name:?}, include_str!({:?})),\n", kernels.join(name));
        names.iter().map(line).collect()
    };
    let text = format!(
        "pub(crate) const MODULES: &[(&str, &str)] = &[\n{}];\n#[cfg_attr(not(feature = \"cuda\"), allow(dead_code))]\npub(crate) const HEADERS: &[(&str, &str)] = &[\n{}];\n",
        table(kernel_files("cu")),
        table(kernel_files("cuh")),
    );
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("kernel_sources.rs"), text).expect("OUT_DIR can be written");
}

fn tell_the_commit() {
    println!("cargo:rerun-if-env-changed=ATROUS_COMMIT");
    let commit = env::var("ATROUS_COMMIT").ok().or_else(commit_of_git).unwrap_or_default();
    println!("cargo:rustc-env=ATROUS_BUILT_FROM={commit}");
}

/// None in debug builds, which would be compiled again after each commit, without git, and of a repository
/// that this folder only lies in.
fn commit_of_git() -> Option<String> {
    if env::var("PROFILE").ok()? != "release" || !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    for file in ["HEAD", "logs/HEAD"] {
        // (A file that is not there would have the build begin anew each time.)
        let path = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists());
        path.iter().for_each(|path| println!("cargo:rerun-if-changed={path}"));
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

/// What git prints; None where it fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let printed = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| printed.trim().to_owned())
}

fn sorted(folder: &Path, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is part of the crate");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == extension))
        .collect();
    names.sort();
    names
}

/// Every kernel file (or header), the ladder's rungs included, from the folder `kernels` on.
fn kernel_files(extension: &str) -> Vec<String> {
    let kernels = Path::new("kernels");
    let rungs = sorted(&kernels.join("ladder"), extension);
    let rungs = rungs.into_iter().map(|file| format!("ladder/{file}"));
    sorted(kernels, extension).into_iter().chain(rungs).collect()
}

#[cfg(feature = "cuda")]
mod cubins {
    use std::path::Path;
    use std::process::Command;
    use std::{env, fs};

    pub fn build() {
        println!("cargo:rerun-if-env-changed=ATROUS_CUBIN");
        println!("cargo:rerun-if-env-changed=NVCC");
        let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
        let wanted = env::var("ATROUS_CUBIN").unwrap_or_default();
        let mut table = String::from(
            "/// (module, architecture, machine code)\nstatic CUBINS: &[(&str, &str, &[u8])] = &[\n",
        );
        for architecture in wanted.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            for file in crate::kernel_files("cu") {
                let path = compile(&file, architecture, Path::new(&out));
                let module = file.trim_end_matches(".cu");
                table += &format!("    ({module:?}, {architecture:?}, include_bytes!({path:?})),\n");
            }
        }
        table += "];\n";
        fs::write(Path::new(&out).join("cubins.rs"), table).expect("OUT_DIR can be written");
    }

    fn compile(file: &str, architecture: &str, out: &Path) -> String {
        let nvcc = env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
        let source = Path::new("kernels").join(file);
        let text = fs::read_to_string(&source).expect("a kernel file is text");
        let asked = text.lines().filter_map(|line| line.strip_prefix("// options: "));
        let to = out.join(format!("{}-{architecture}.cubin", file.replace('/', "-")));
        let result = Command::new(&nvcc)
            .args(["-std=c++17", "-Ikernels"])
            .arg(if architecture.starts_with("compute_") { "-ptx" } else { "-cubin" })
            .arg(format!("-arch={architecture}"))
            .args(asked.flat_map(str::split_whitespace))
            .arg("-o")
            .args([&to, &source])
            .output();
        match result {
            Ok(done) if done.status.success() => to.to_str().expect("OUT_DIR is UTF-8").into(),
            Ok(done) => {
                panic!("{nvcc}: {file} for {architecture}:\n{}", String::from_utf8_lossy(&done.stderr))
            }
            Err(error) => panic!("ATROUS_CUBIN needs nvcc (`{nvcc}`, or name it with NVCC): {error}"),
        }
    }
}

#[cfg(feature = "emulator")]
mod emulator {
    use std::path::Path;
    use std::{env, fs};

    pub fn build() {
        let kernels = Path::new("kernels");
        let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
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
        for file in crate::sorted(&kernels.join("emulator"), "cpp") {
            if file != "replay.cpp" {
                build.file(kernels.join("emulator").join(file));
            }
        }
        // One translation unit a kernel file: their helpers may share names.
        for file in crate::kernel_files("cu") {
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

    /// The names of a file's kernels: of the functions declared `extern "C" __global__ void NAME(`, whatever
    /// stands between, and of the lines `KERNEL(NAME, ...` of files that have such a macro.
    fn kernel_names(source: &str) -> Vec<&str> {
        let declared = source.split("extern \"C\" __global__ void").skip(1).filter_map(|rest| {
            let rest = rest.trim_start();
            // Launch bounds are in parentheses, too.
            let rest = match rest.strip_prefix("__launch_bounds__(") {
                Some(bounds) => bounds.split_once(')')?.1.trim_start(),
                None => rest,
            };
            Some(rest.split_once('(')?.0.trim())
        });
        let listed =
            source.lines().filter_map(|line| Some(line.strip_prefix("KERNEL(")?.split_once(',')?.0));
        // What the macro itself declares has no name yet.
        let is_name = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        declared.chain(listed).filter(is_name).collect()
    }
}
