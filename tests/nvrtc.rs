//! Every kernel through NVIDIA's run-time compiler, which needs no GPU: for the oldest generation that
//! is supported and for Hopper. Where libnvrtc is not found nothing is compiled, and
//! `ATROUS_NVRTC=require` makes that a failure.
#![cfg(feature = "cuda")]

use atrous::backend::cuda::compiler;

#[test]
fn every_kernel_compiles_for_every_architecture() {
    if !compiler::is_there() {
        let required = std::env::var("ATROUS_NVRTC").is_ok_and(|value| value == "require");
        assert!(!required, "libnvrtc was not found");
        println!("no libnvrtc: nothing was compiled");
        return;
    }
    let (major, minor) = compiler::version().unwrap();
    let mut count = 0;
    for module in compiler::modules() {
        for architecture in ["sm_80", "sm_90a"] {
            let code = compiler::compile(module, architecture).unwrap();
            assert!(code.starts_with(b"\x7fELF"), "{module} for {architecture}");
            count += 1;
        }
    }
    let ptx = compiler::compile("pool", "compute_80").unwrap();
    assert!(String::from_utf8_lossy(&ptx).contains(".target sm_80") && ptx.ends_with(b"\0"));
    println!("{count} modules compiled by NVRTC {major}.{minor}");
}

#[test]
fn an_unknown_module_is_an_error() {
    let error = compiler::compile("nothing", "sm_80").unwrap_err().to_string();
    let wanted = if compiler::is_there() { "nothing.cu" } else { "libnvrtc" };
    assert!(error.contains(wanted), "{error}");
}
