//! Kernels from source to machine code, by NVIDIA's run-time compiler (NVRTC), and a cache of them on
//! disk: `$ATROUS_CACHE`, else `$XDG_CACHE_HOME/atrous`, else `~/.cache/atrous`.

use super::kernels::{HEADERS, MODULES, source};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use crate::random::hash_name;
use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};
use std::ffi::{CString, c_char, c_int};
use std::path::PathBuf;
use std::ptr::null_mut;

/// NVIDIA's name for a compute capability: `sm_80` for (8, 0), `sm_90a` for (9, 0).
///
/// ```
/// use atrous::backend::cuda::compiler::architecture;
///
/// assert_eq!(architecture(8, 6), "sm_86");
/// assert_eq!(architecture(9, 0), "sm_90a"); // with what only this generation has
/// ```
pub fn architecture(major: i32, minor: i32) -> String {
    // The `a` opens what only this generation has (wgmma).
    let only_here = if (major, minor) == (9, 0) { "a" } else { "" };
    format!("sm_{major}{minor}{only_here}")
}

/// Whether the compiler library, NVRTC, can be loaded on this machine.
///
/// [`compile`] has an example.
pub fn is_there() -> bool {
    // SAFETY: it tries to open a library of NVIDIA's.
    unsafe { sys::is_culib_present() }
}

/// NVRTC's version, (major, minor), e.g. (13, 0); an error where there is no NVRTC.
///
/// [`super::compiler_version`], which calls it, has an example.
pub fn version() -> Result<(i32, i32)> {
    require()?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there; two numbers are written.
    check("nvrtcVersion", unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
    Ok((major, minor))
}

fn require() -> Result<()> {
    match is_there() {
        true => Ok(()),
        false => Err(Error::Device(
            "CUDA kernels are compiled when the program runs, and libnvrtc was not found: install the \
             CUDA toolkit, or `pip install nvidia-cuda-nvrtc` and put its `lib` folder on LD_LIBRARY_PATH"
                .into(),
        )),
    }
}

fn check(what: &str, result: nvrtcResult) -> Result<()> {
    match result {
        nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(Error::Device(format!("{what}: {other:?}"))),
    }
}

/// Options of one module, those among them that its file asks for in a line `// options: …`: Keras' roundings
/// are matched step by step where a fused multiply-add would be another number.
fn options(text: &str, architecture: &str) -> Vec<String> {
    // Generic lambdas have no other way to be the device's.
    let device = "--device-as-default-execution-space".to_string();
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into(), device];
    let asked = text.lines().filter_map(|line| line.strip_prefix("// options: "));
    options.extend(asked.flat_map(str::split_whitespace).map(String::from));
    options
}

include!(concat!(env!("OUT_DIR"), "/cubins.rs"));

/// The architectures that machine code is in the binary for: what `ATROUS_CUBIN` said when it was built.
///
/// [`super::built_in_architectures`], which calls it, has an example.
pub fn built_in() -> Vec<&'static str> {
    let mut all: Vec<&str> = CUBINS.iter().map(|(_, architecture, _)| *architecture).collect();
    all.sort();
    all.dedup();
    all
}

/// The one among the architectures whose code runs on this one: itself, else the nearest before it of
/// the same generation (`sm_90a` runs on `sm_90a` alone), else the newest PTX that is not newer
/// (`compute_90`), which the driver compiles.
fn suitable<'a>(among: &[&'a str], architecture: &str) -> Option<&'a str> {
    if let Some(same) = among.iter().find(|known| **known == architecture) {
        return Some(same);
    }
    let number = |name: &str| name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    let wanted = number(architecture.trim_end_matches('a'))?;
    let nearest = |ptx: bool| {
        let runs = |known: &&&str| {
            let n = number(known).filter(|n| *n <= wanted && (ptx || n / 10 == wanted / 10));
            known.starts_with(if ptx { "compute_" } else { "sm_" }) && n.is_some()
        };
        among.iter().filter(runs).max_by_key(|known| number(known)).copied()
    };
    nearest(false).or_else(|| nearest(true))
}

/// What NVRTC is to compile for: the architecture itself, or PTX for the newest that this NVRTC knows,
/// where the device is newer.
fn target(architecture: &str) -> Result<String> {
    require()?;
    let mut count = 0;
    // SAFETY: the library is there; one number is written.
    check("nvrtcGetNumSupportedArchs", unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) })?;
    let mut known = vec![0; count.max(0) as usize];
    // SAFETY: as many numbers are written as there are.
    check("nvrtcGetSupportedArchs", unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    let wanted = architecture.trim_start_matches("sm_").trim_end_matches('a').parse().unwrap_or(0);
    Ok(match known.iter().max() {
        Some(&newest) if newest < wanted => format!("compute_{newest}"),
        _ => architecture.to_string(),
    })
}

/// The names of all modules: `conv2d` for `kernels/conv2d.cu`.
///
/// ```
/// use atrous::backend::cuda::compiler::modules;
///
/// assert!(modules().contains(&"conv2d")); // kernels/conv2d.cu
/// ```
pub fn modules() -> Vec<&'static str> {
    MODULES.iter().filter_map(|(name, _)| name.strip_suffix(".cu")).collect()
}

/// The machine code of a module for an architecture (`sm_90a`; PTX for `compute_90`), compiled now.
///
/// ```
/// use atrous::backend::cuda::compiler::{compile, is_there};
///
/// if is_there() {
///     let ptx = compile("unary", "compute_90")?; // a text, for whatever device comes later
///     assert!(String::from_utf8_lossy(&ptx).contains(".visible .entry"));
/// } else {
///     assert!(compile("unary", "compute_90").is_err());
/// }
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn compile(module: &str, architecture: &str) -> Result<Vec<u8>> {
    require()?;
    let text =
        source(module).ok_or_else(|| Error::Device(format!("there is no kernel file `{module}.cu`")))?;
    let c_string = |text: &str| CString::new(text).expect("sources have no zero in them");
    let options: Vec<CString> = options(text, architecture).iter().map(|o| c_string(o)).collect();
    let (text, name) = (c_string(text), c_string(&format!("{module}.cu")));
    let headers: Vec<CString> = HEADERS.iter().map(|(_, text)| c_string(text)).collect();
    let names: Vec<CString> = HEADERS.iter().map(|(name, _)| c_string(name)).collect();
    let pointers = |all: &[CString]| all.iter().map(|c| c.as_ptr()).collect::<Vec<*const c_char>>();
    let (header_pointers, name_pointers) = (pointers(&headers), pointers(&names));
    let mut program = Program(null_mut());
    // SAFETY: all pointers are to texts that live until the call is over; NVRTC copies them.
    check("nvrtcCreateProgram", unsafe {
        sys::nvrtcCreateProgram(
            &mut program.0,
            text.as_ptr(),
            name.as_ptr(),
            headers.len() as c_int,
            header_pointers.as_ptr(),
            name_pointers.as_ptr(),
        )
    })?;
    let option_pointers = pointers(&options);
    // SAFETY: the program was created above.
    let compiled =
        unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, option_pointers.as_ptr()) };
    if compiled != nvrtcResult::NVRTC_SUCCESS {
        let log = program.log();
        return Err(Error::Device(format!("{module}.cu for {architecture}: {compiled:?}\n{log}")));
    }
    let mut bytes = 0;
    // SAFETY: the program is compiled; its size is asked for before its code, and `code` is as long as
    // NVRTC said. (PTX ends with a zero, as the driver wants it.)
    unsafe {
        if architecture.starts_with("compute_") {
            check("nvrtcGetPTXSize", sys::nvrtcGetPTXSize(program.0, &mut bytes))?;
            let mut code = vec![0u8; bytes];
            check("nvrtcGetPTX", sys::nvrtcGetPTX(program.0, code.as_mut_ptr().cast()))?;
            return Ok(code);
        }
        check("nvrtcGetCUBINSize", sys::nvrtcGetCUBINSize(program.0, &mut bytes))?;
        let mut code = vec![0u8; bytes];
        check("nvrtcGetCUBIN", sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()))?;
        Ok(code)
    }
}

struct Program(nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        let mut bytes = 0;
        // SAFETY: the program exists; the log's size is asked for before the log.
        unsafe { sys::nvrtcGetProgramLogSize(self.0, &mut bytes) };
        let mut log = vec![0u8; bytes];
        // SAFETY: `log` is as long as NVRTC said.
        unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) };
        String::from_utf8_lossy(&log).trim_end_matches('\0').to_string()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: created by NVRTC, and destroyed once.
            unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
        }
    }
}

/// What is in the binary, else [`compile`], or the same from the cache. A cache that cannot be read or
/// written is none.
pub(super) fn compiled(module: &str, architecture: &str) -> Result<Vec<u8>> {
    if let Some(fits) = suitable(&built_in(), architecture)
        && let Some((_, _, code)) = CUBINS.iter().find(|(m, a, _)| (*m, *a) == (module, fits))
    {
        // PTX is a text that ends with a zero.
        return Ok(code.iter().copied().chain([0]).collect());
    }
    let architecture = &target(architecture)?;
    let (major, minor) = version()?;
    let Some(folder) = cache() else { return compile(module, architecture) };
    let mut text: String = HEADERS.iter().map(|(_, text)| *text).collect();
    text += source(module).unwrap_or_default();
    text += &options(&text, architecture).join(" ");
    let name = module.replace('/', "-");
    let path =
        folder.join(format!("{name}-{architecture}-{major}.{minor}-{:016x}.cubin", hash_name(&text)));
    if let Ok(code) = std::fs::read(&path)
        && (code.starts_with(b"\x7fELF") || code.ends_with(b"\0"))
    {
        return Ok(code);
    }
    let code = compile(module, architecture)?;
    let _ = std::fs::create_dir_all(&folder);
    let _ = write_atomically(&path, |file| file.write_all(&code));
    Ok(code)
}

fn cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("ATROUS_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("atrous")))
        .or_else(|| Some(variable("HOME")?.join(".cache/atrous")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_on_its_own_generation_and_not_before() {
        let all = ["sm_80", "sm_90", "sm_90a", "sm_87"];
        assert_eq!(suitable(&all, "sm_90a"), Some("sm_90a"));
        assert_eq!(suitable(&all[..2], "sm_90a"), Some("sm_90"));
        assert_eq!(suitable(&all, "sm_86"), Some("sm_80"));
        assert_eq!(suitable(&all, "sm_89"), Some("sm_87"));
        assert_eq!(suitable(&["sm_90a"], "sm_90"), None);
        assert_eq!(suitable(&all, "sm_75"), None);
        assert_eq!(suitable(&[], "sm_80"), None);
        assert_eq!(suitable(&["sm_80", "compute_80", "compute_90"], "sm_120"), Some("compute_90"));
        assert_eq!(suitable(&["sm_80", "compute_90"], "sm_86"), Some("sm_80"));
    }

    #[test]
    fn files_ask_for_options() {
        assert!(options(source("affine").unwrap(), "sm_80").contains(&"--fmad=false".to_string()));
        assert_eq!(options(source("pool").unwrap(), "sm_80").len(), 3);
    }
}
