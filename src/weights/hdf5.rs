//! Keras' `.h5` files.
//!
//! Keras 2 and 3 write weights by layer: the dataset `conv1/conv1/kernel:0` is the weight
//! `conv1/kernel:0` in the group of the layer `conv1`. A whole model has such groups in its group
//! `model_weights`, beside an optimizer's. Keras 3's `.weights.h5` numbers instead:
//! `layers/conv2d/vars/0`, where the group `vars` has the layer's own name as its attribute `name`.
//! Keras never compresses.

use super::float::Float;
use super::{Entry, allowance, entry};
use hdf5_reader::error::ByteOrder;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions, group::Group};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Models in models in models: Keras' own files are at most six groups deep.
const DEPTH: usize = 16;

/// All arrays of a file, or of its `model_weights`. A damaged file may make the reading crate
/// panic: that ends here.
pub(super) fn read(bytes: Vec<u8>) -> Result<Vec<Entry>, String> {
    let walk = AssertUnwindSafe(|| Walk::new(bytes)?.all());
    catch_unwind(walk).unwrap_or_else(|_| Err("its structure is damaged".to_owned()))
}

struct Walk {
    file: Hdf5File,
    /// Bytes that arrays may still have.
    left: usize,
    /// Where the groups lie that were walked through: a damaged file may hold itself.
    seen: HashSet<u64>,
    entries: Vec<Entry>,
}

impl Walk {
    fn new(bytes: Vec<u8>) -> Result<Self, String> {
        let left = allowance(bytes.len());
        let options = OpenOptions::default()
            .with_chunk_cache_bytes(0)
            .with_max_chunk_bytes(left)
            .with_max_read_bytes(left);
        let file = Hdf5File::from_vec_with_options(bytes, options).map_err(|e| e.to_string())?;
        Ok(Walk { file, left, seen: HashSet::new(), entries: Vec::new() })
    }

    fn all(mut self) -> Result<Vec<Entry>, String> {
        let root = self.file.root_group().map_err(|e| e.to_string())?;
        let (groups, _) = root.member_names().map_err(|e| e.to_string())?;
        let whole = groups.iter().any(|name| name == "model_weights");
        let top = if whole { root.group("model_weights").map_err(|e| e.to_string())? } else { root };
        self.group(&top, "", 0)?;
        Ok(self.entries)
    }

    fn group(&mut self, group: &Group, path: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH {
            return Err(format!("expected groups at most {DEPTH} deep, got deeper ones in `{path}`"));
        }
        if !self.seen.insert(group.address()) {
            return Err(format!("the group `{path}` is there twice"));
        }
        let (groups, datasets) =
            group.members().map_err(|error| format!("in the group `/{path}`: {error}"))?;
        for dataset in &datasets {
            self.dataset(dataset, &format!("{path}{}", dataset.name()))?;
        }
        for group in &groups {
            let below = match own_name(group) {
                // `layers/conv2d/` of Keras 3 becomes `layers/conv1/`.
                Some(name) => match path.trim_end_matches('/').rsplit_once('/') {
                    Some((before, _)) => format!("{before}/{name}/vars/"),
                    None => format!("{name}/vars/"),
                },
                None => format!("{path}{}/", group.name()),
            };
            self.group(group, &below, depth + 1)?;
        }
        Ok(())
    }

    fn dataset(&mut self, dataset: &Dataset, path: &str) -> Result<(), String> {
        let within = |message: String| format!("`{path}`: {message}");
        let shape = dataset.shape().iter().map(|&n| usize::try_from(n));
        let shape: Vec<usize> = shape.collect::<Result<_, _>>().map_err(|e| within(e.to_string()))?;
        let (dtype, float, order) = match *dataset.dtype() {
            Datatype::FloatingPoint { size, byte_order } => {
                let float = match size {
                    2 => Some(Float::F16),
                    4 => Some(Float::F32),
                    8 => Some(Float::F64),
                    _ => None,
                };
                (format!("float{}", 8 * size as u32), float, byte_order)
            }
            Datatype::FixedPoint { size, signed, byte_order } => {
                let sign = if signed { "" } else { "u" };
                (format!("{sign}int{}", 8 * size as u32), None, byte_order)
            }
            _ => ("other".to_owned(), None, ByteOrder::LittleEndian),
        };
        let mut bytes = Vec::new();
        if let Some(float) = float {
            let size = shape.iter().try_fold(float.size(), |n, &axis| n.checked_mul(axis));
            let size = size.filter(|&size| size <= self.left).ok_or_else(|| {
                within(format!("its shape {shape:?} has more elements than the file can hold"))
            })?;
            self.left -= size;
            bytes = dataset.read_raw_bytes().map_err(|error| within(error.to_string()))?;
            if order == ByteOrder::BigEndian {
                bytes.chunks_exact_mut(float.size()).for_each(<[u8]>::reverse);
            }
        }
        self.entries.push(entry(path.to_owned(), &dtype, shape, float, &bytes)?);
        Ok(())
    }
}

/// The layer's name that Keras 3 gives a group of numbered variables.
fn own_name(group: &Group) -> Option<String> {
    if group.name() != "vars" {
        return None;
    }
    group.attribute("name").ok()?.read_string().ok()
}
