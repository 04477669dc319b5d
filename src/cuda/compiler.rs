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

/// The name of an architecture: `sm_90a`.
pub fn architecture(major: i32, minor: i32) -> String {
    // The `a` opens what only this generation has (wgmma).
    let only_here = if (major, minor) == (9, 0) { "a" } else { "" };
    format!("sm_{major}{minor}{only_here}")
}

/// Is NVRTC on this machine?
pub fn is_there() -> bool {
    // SAFETY: it tries to open a library of NVIDIA's.
    unsafe { sys::is_culib_present() }
}

/// (13, 0)
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

/// Options of one module. Keras' roundings are matched step by step where a fused multiply-add would
/// be another number.
fn options(module: &str, architecture: &str) -> Vec<String> {
    let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()];
    if ["affine", "resize"].contains(&module) {
        options.push("--fmad=false".into());
    }
    options
}

/// The names of all modules: `conv2d` for `kernels/conv2d.cu`.
pub fn modules() -> Vec<&'static str> {
    MODULES.iter().filter_map(|(name, _)| name.strip_suffix(".cu")).collect()
}

/// The machine code of a module for an architecture, compiled now.
pub fn compile(module: &str, architecture: &str) -> Result<Vec<u8>> {
    require()?;
    let text =
        source(module).ok_or_else(|| Error::Device(format!("there is no kernel file `{module}.cu`")))?;
    let c_string = |text: &str| CString::new(text).expect("sources have no zero in them");
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
    let options: Vec<CString> = options(module, architecture).iter().map(|o| c_string(o)).collect();
    let option_pointers = pointers(&options);
    // SAFETY: the program was created above.
    let compiled =
        unsafe { sys::nvrtcCompileProgram(program.0, options.len() as c_int, option_pointers.as_ptr()) };
    if compiled != nvrtcResult::NVRTC_SUCCESS {
        let log = program.log();
        return Err(Error::Device(format!("{module}.cu for {architecture}: {compiled:?}\n{log}")));
    }
    let mut bytes = 0;
    // SAFETY: the program is compiled; its size is asked for before its code.
    check("nvrtcGetCUBINSize", unsafe { sys::nvrtcGetCUBINSize(program.0, &mut bytes) })?;
    let mut code = vec![0u8; bytes];
    // SAFETY: `code` is as long as NVRTC said.
    check("nvrtcGetCUBIN", unsafe { sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) })?;
    Ok(code)
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

/// [`compile`], or the same from the cache. A cache that cannot be read or written is none.
pub(super) fn compiled(module: &str, architecture: &str) -> Result<Vec<u8>> {
    let (major, minor) = version()?;
    let Some(folder) = cache() else { return compile(module, architecture) };
    let mut text: String = HEADERS.iter().map(|(_, text)| *text).collect();
    text += source(module).unwrap_or_default();
    text += &options(module, architecture).join(" ");
    let name = module.replace('/', "-");
    let path =
        folder.join(format!("{name}-{architecture}-{major}.{minor}-{:016x}.cubin", hash_name(&text)));
    if let Ok(code) = std::fs::read(&path)
        && code.starts_with(b"\x7fELF")
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
