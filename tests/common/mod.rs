//! The golden files: where they lie, how they are read, and the deterministic numbers their
//! weights and inputs are made of.
//!
//! `ATROUS_GOLDEN` names another root with the same layout (another variant of `open/`, say).

#![allow(dead_code)] // every test binary takes the part it needs

use ndarray_npy::{NpzReader, ReadableElement};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The device that `ATROUS_TEST_DEVICE` names.
pub fn real_device() -> Option<atrous::Device> {
    let name = std::env::var("ATROUS_TEST_DEVICE").ok();
    if name.is_none() {
        println!("no ATROUS_TEST_DEVICE: no real device was tested");
    }
    name.map(|name| name.parse().unwrap_or_else(|error| panic!("ATROUS_TEST_DEVICE: {error}")))
}

/// The device whose kernels are tested: a real one, else the emulated one in builds that have it.
pub fn test_device() -> Option<atrous::Device> {
    real_device().or(cfg!(feature = "emulator").then_some(atrous::Device::Emulated))
}

/// The root that holds `open/`, `ops/`, `optim/` and `layers/`.
pub fn golden() -> PathBuf {
    match std::env::var_os("ATROUS_GOLDEN") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
    }
}

/// The folders under the root that hold whole networks and preprocessing, whatever their names.
pub fn variants() -> Vec<PathBuf> {
    let root = golden();
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("nets").is_dir() || folder.join("prep").is_dir());
    folders.sort();
    assert!(!folders.is_empty(), "{}: no folder with nets/ or prep/", root.display());
    folders
}

/// The files of `folder` with this extension, sorted by name.
pub fn files(folder: impl AsRef<Path>, extension: &str) -> Vec<PathBuf> {
    let folder = folder.as_ref();
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == extension));
    files.sort();
    files
}

pub fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All numbers of a (nested) list, in order; booleans count as 0 and 1.
pub fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Bool(flag) => vec![*flag as u8 as f64],
        other => vec![other.as_f64().unwrap_or_else(|| panic!("not a number: {other}"))],
    }
}

pub fn shape(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|n| n as usize).collect()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

/// One array of an `.npz`, widened to f64 (exact for every type the files use).
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    pub fn u8(&self) -> Vec<u8> {
        self.values.iter().map(|&v| v as u8).collect()
    }
}

pub struct Npz {
    path: PathBuf,
    reader: NpzReader<File>,
}

impl Npz {
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let reader = NpzReader::new(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Npz { path, reader }
    }

    /// The arrays' names, without `.npy`.
    pub fn names(&mut self) -> Vec<String> {
        let names = self.reader.names().unwrap();
        names.into_iter().map(|name| name.trim_end_matches(".npy").to_owned()).collect()
    }

    pub fn has(&mut self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }

    pub fn get(&mut self, name: &str) -> Array {
        let found = self
            .read::<f32>(name, f64::from)
            .or_else(|| self.read::<f64>(name, |v| v))
            .or_else(|| self.read::<u8>(name, f64::from))
            .or_else(|| self.read::<i32>(name, f64::from))
            .or_else(|| self.read::<i64>(name, |v| v as f64));
        found.unwrap_or_else(|| {
            let names = self.names();
            panic!("{}: no readable array `{name}` among {names:?}", self.path.display())
        })
    }

    fn read<T: ReadableElement + Copy>(&mut self, name: &str, widen: fn(T) -> f64) -> Option<Array> {
        let array: ndarray::ArrayD<T> = self.reader.by_name(&format!("{name}.npy")).ok()?;
        // `iter` walks in logical (C) order whatever order the file was stored in.
        Some(Array { shape: array.shape().to_vec(), values: array.iter().map(|&v| widen(v)).collect() })
    }
}

/// FNV-1a, 64 bits.
pub fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}

/// The i-th number in [0, 1) of (tag, name): splitmix64 on a counter, its upper 24 bits.
pub fn hash_unit(tag: &str, name: &str) -> impl Fn(usize) -> f64 {
    let start = fnv1a64(&format!("{tag}:{name}"));
    move |i| {
        let z = start.wrapping_add((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// The i-th number in [-1, 1) of (tag, name).
pub fn hash_signed(tag: &str, name: &str) -> impl Fn(usize) -> f64 {
    let unit = hash_unit(tag, name);
    move |i| 2.0 * unit(i) - 1.0
}

/// The scales of a network's weights, chosen so that activations stay of order one.
#[derive(Clone, Copy, Debug)]
pub struct Gains {
    pub gain: f64,
    pub first_gain: Option<f64>,
    pub dense_gain: f64,
    pub gamma_mul: f64,
}

impl Default for Gains {
    fn default() -> Self {
        Gains { gain: 1.0, first_gain: None, dense_gain: 1.0, gamma_mul: 1.0 }
    }
}

impl Gains {
    /// From a network's json (or the `config` inside `fgsm.json`).
    pub fn of(config: &Value) -> Self {
        let read = |key: &str| config[key].as_f64();
        Gains {
            gain: read("gain").unwrap_or(1.0),
            first_gain: read("first_gain"),
            dense_gain: read("dense_gain").unwrap_or(1.0),
            gamma_mul: read("gamma_mul").unwrap_or(1.0),
        }
    }
}

/// The weight called `name` (`<layer>/<kind>`), computed in f64 and rounded once.
pub fn fill(tag: &str, name: &str, shape: &[usize], gains: &Gains) -> Vec<f32> {
    let n: usize = shape.iter().product();
    let (unit, signed) = (hash_unit(tag, name), hash_signed(tag, name));
    let kind = name.rsplit('/').next().unwrap_or(name);
    let value: Box<dyn Fn(usize) -> f64> = match kind {
        "kernel" | "depthwise_kernel" => {
            let gain = match gains.first_gain {
                _ if shape.len() == 2 => gains.dense_gain,
                Some(first) if name == "conv1/kernel" || name == "Conv1/kernel" => first,
                _ => gains.gain,
            };
            let fan_in: usize = match kind {
                "depthwise_kernel" => shape[..2].iter().product(),
                _ => shape[..shape.len() - 1].iter().product(),
            };
            let scale = gain * (6.0 / fan_in as f64).sqrt();
            Box::new(move |i| scale * signed(i))
        }
        "bias" => Box::new(move |i| 0.05 * signed(i)),
        "gamma" => {
            let scale = gains.gamma_mul;
            Box::new(move |i| scale * (1.0 + 0.1 * signed(i)))
        }
        "beta" | "moving_mean" => Box::new(move |i| 0.1 * signed(i)),
        "moving_variance" => Box::new(move |i| 0.5 + unit(i)),
        other => panic!("no rule for a weight of kind `{other}` ({name})"),
    };
    (0..n).map(|i| value(i) as f32).collect()
}

/// A network's input: (batch, size, size, 3) between `lo` and `hi`. `net` is the net's json.
pub fn input(net: &Value) -> (Vec<usize>, Vec<f32>) {
    input_named(text(&net["seed_tag"]), net["input_name"].as_str().unwrap_or("input"), net)
}

/// The same for a configuration that carries neither tag nor name (`config` in `fgsm.json`).
pub fn input_named(tag: &str, name: &str, config: &Value) -> (Vec<usize>, Vec<f32>) {
    let read = |key: &str| config[key].as_f64().unwrap_or_else(|| panic!("no number `{key}`"));
    let (batch, size, low, high) =
        (read("batch") as usize, read("size") as usize, read("lo"), read("hi"));
    let unit = hash_unit(tag, name);
    let values = (0..batch * size * size * 3).map(|i| (low + (high - low) * unit(i)) as f32);
    (vec![batch, size, size, 3], values.collect())
}

/// Flat positions of `k` samples of `n` elements: all of them if `n <= k`, else evenly spread.
pub fn sample_positions(n: usize, k: usize) -> Vec<usize> {
    if n <= k {
        return (0..n).collect();
    }
    (0..k).map(|j| (2 * j + 1) * n / (2 * k)).collect()
}
