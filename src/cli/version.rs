//! `atrous --version`: what was built, and what it finds here.

use atrous::backend::cpu::simd;
use std::sync::LazyLock;

/// The crate's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from; empty where that was not known (see `build.rs`).
pub const COMMIT: &str = env!("ATROUS_BUILT_FROM");

/// `0.1.0 (5348ed38f7a2)`
pub fn short() -> &'static str {
    static SHORT: LazyLock<String> = LazyLock::new(|| match COMMIT {
        "" => VERSION.to_owned(),
        commit => format!("{VERSION} ({commit})"),
    });
    &SHORT
}

/// Several lines, of which the first is the [`short`] one.
pub fn long() -> &'static str {
    static LONG: LazyLock<String> = LazyLock::new(|| {
        let commit = if COMMIT.is_empty() { "not known" } else { COMMIT };
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        format!(
            "{}\ncommit    {commit}\nbuilt     {profile}, for {}-{}\nfeatures  {}\ncpu       {}",
            short(),
            std::env::consts::ARCH,
            std::env::consts::OS,
            features().join(", "),
            instruction_sets().join(", "),
        )
    });
    &LONG
}

/// The crate's features it was built with.
pub fn features() -> Vec<&'static str> {
    let all = [
        (cfg!(feature = "checkpoint"), "checkpoint"),
        (cfg!(feature = "cli"), "cli"),
        (cfg!(feature = "cuda"), "cuda"),
        (cfg!(feature = "emulator"), "emulator"),
        (cfg!(feature = "live"), "live"),
        (cfg!(feature = "pictures"), "pictures"),
        (cfg!(feature = "report"), "report"),
        (cfg!(feature = "weights"), "weights"),
    ];
    all.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect()
}

/// What of this machine's instructions the kernels are written for; the one in use is marked.
fn instruction_sets() -> Vec<String> {
    let used = simd::preferred().ok();
    let name = |isa: simd::Isa| match Some(isa) == used {
        true => format!("{isa:?} (in use)"),
        false => format!("{isa:?}"),
    };
    simd::supported().into_iter().map(name).collect()
}
