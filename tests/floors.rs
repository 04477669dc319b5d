//! The house has floors: what is below knows nothing of what is above. So a reader meets no circle, and
//! the lower floors can be read alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the ground up. A module may use those before it, and itself; a path belongs to the longest entry
/// that it begins with. (The command, `main.rs` and `cli`, stands on top of the library and sees its
/// public face alone.)
const FLOORS: &[&str] = &[
    "error",
    "device",
    "duration",
    "activation",
    "random",
    "files",
    "pool",
    "spans",
    "tensor",
    "backend::cpu::simd",
    "backend::cpu::threads",
    "context",
    "backend::cpu",
    "backend::cuda",
    "backend",
    "autograd",
    "cases",
    "ops",
    "nn",
    "losses",
    "optimizers",
    "data",
    "eval",
    "models",
    "weights",
    "train",
    "predict",
    "attack",
    "report",
    "explain",
    "live",
    "ladder",
    "bench",
    "profile",
    "prelude",
];

/// What `lib.rs` hands on by name, and where it comes from.
const HANDED_ON: [(&str, &str); 8] = [
    ("Tensor", "tensor"),
    ("DType", "tensor"),
    ("Shape", "tensor"),
    ("IntoShape", "tensor"),
    ("Error", "error"),
    ("Result", "error"),
    ("Device", "device"),
    ("Activation", "activation"),
];

/// The floor of a module: its number, or None where the list does not know it.
fn floor(module: &str) -> Option<usize> {
    let holds = |entry: &str| module == entry || module.starts_with(&format!("{entry}::"));
    let found = FLOORS.iter().enumerate().filter(|(_, entry)| holds(entry));
    found.max_by_key(|(_, entry)| entry.len()).map(|(number, _)| number)
}

/// The library's modules and their text, without comments and tests.
fn modules() -> BTreeMap<String, String> {
    fn walk(folder: &Path, name: &str, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_string();
            let within = if name.is_empty() { stem.clone() } else { format!("{name}::{stem}") };
            if path.is_dir() {
                walk(&path, &within, all);
            } else if !matches!(within.as_str(), "lib" | "main") && stem != "tests" {
                let module = if stem == "mod" { name.to_string() } else { within };
                all.insert(module, without_tests(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut all);
    all.retain(|module, _| module != "cli" && !module.starts_with("cli::"));
    all
}

/// The text up to its test module, comments taken out. (Some files are a test module as a whole: see
/// `cfg(test)` in the file above them.)
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// `a::{b, c::{d, e}}` → a::b, a::c::d, a::c::e
fn expand(tree: &str) -> Vec<String> {
    let Some((before, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().trim().to_string()];
    };
    let inner = &rest[..rest.rfind('}').unwrap()];
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&inner[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&inner[from..]);
    let parts = parts.into_iter().map(str::trim).filter(|part| !part.is_empty());
    parts.flat_map(|part| expand(&format!("{}{part}", before.trim()))).collect()
}

/// All paths of a module's text that begin with `crate::` or `super::`.
fn paths(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "super::"] {
        for (at, _) in text.match_indices(root) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let statement = text[..at].rfind(['\n', ';', '}']).map_or(0, |from| from + 1);
            let in_use = text[statement..at].split_whitespace().any(|word| word == "use");
            let rest = &text[at..];
            let end = match in_use {
                true => rest.find(';'),
                false => rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')),
            };
            found.extend(expand(&rest[..end.unwrap_or(rest.len())]));
        }
    }
    found
}

/// The path from the library's root on; `from` is the module it stands in.
fn absolute(path: &str, from: &str) -> String {
    let parts: Vec<&str> = path.split("::").collect();
    let supers = parts.iter().take_while(|part| **part == "super").count();
    let within: Vec<&str> = from.split("::").collect();
    let base = if supers > 0 { &within[..within.len().saturating_sub(supers)] } else { &[] };
    let rest = &parts[supers.max(1)..];
    if base.is_empty()
        && let Some((_, module)) = HANDED_ON.iter().find(|(name, _)| rest.first() == Some(name))
    {
        return module.to_string();
    }
    base.iter().chain(rest).copied().collect::<Vec<_>>().join("::")
}

#[test]
fn no_module_uses_one_above_it() {
    let modules = modules();
    assert!(modules.len() > 200, "{} modules", modules.len());
    let (mut upward, mut arrows) = (Vec::new(), 0);
    for (module, text) in &modules {
        let here = floor(module).unwrap_or_else(|| panic!("`{module}` is on no floor of the list"));
        for path in paths(text) {
            let to = absolute(&path, module);
            let Some(there) = floor(&to) else {
                // (From a module within the file, whose name is not in the path.)
                assert!(path.starts_with("super::"), "`{module}`: `{path}` is on no floor");
                continue;
            };
            arrows += 1;
            if there > here {
                upward.push(format!("{module} ({}) uses {to} ({})", FLOORS[here], FLOORS[there]));
            }
        }
    }
    assert!(arrows > 1000, "{arrows} arrows");
    assert!(upward.is_empty(), "upward:\n{}", upward.join("\n"));
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let text = without_tests(
        "use crate::a::{b, c::{D, e as f}}; // crate::no::comment\nfn g() { crate::x::y() + super::z() }\n\
         impl crate::T {}\n#[cfg(test)]\nmod tests {\n use crate::not::this;\n}",
    );
    let found: Vec<String> = paths(&text).into_iter().collect();
    let expected =
        ["crate::T", "crate::a::b", "crate::a::c::D", "crate::a::c::e", "crate::x::y", "super::z"];
    assert_eq!(found, expected);
    assert_eq!(absolute("super::z", "m::n"), "m::z");
    assert_eq!(absolute("crate::Tensor", "m"), "tensor");
    assert_eq!(floor("backend::cpu::simd::x86"), floor("backend::cpu::simd"));
    assert!(floor("backend::cpu::gemm") > floor("context") && floor("unknown").is_none());
}
