//! Keras' `.h5` files.
//!
//! Keras 2 and 3 write weights by layer: the dataset `conv1/conv1/kernel:0` is the weight
//! `conv1/kernel:0` in the group of the layer `conv1`. A whole model has such groups in its group
//! `model_weights`, beside an optimizer's. Keras 3's `.weights.h5` numbers instead:
//! `layers/conv2d/vars/0`, where the group `vars` has the layer's own name as its attribute `name`,
//! and the optimizer stands beside `layers`. Older versions of Keras 3 write no such attribute; the
//! description in a `.keras` file has the names then. Keras never compresses.
//!
//! h5py has no bfloat16: Keras 3 writes two bytes of no type, and the dataset's attribute `dtype` says
//! what they are.

use super::float::{BF16, Bits, Float};
use super::keras_config::layer_names;
use super::{Contents, entry};
use hdf5_reader::error::ByteOrder;
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions, group::Group};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Models in models in models: Keras' own files are at most six groups deep.
const DEPTH: usize = 16;

/// All arrays of a file, or of the group in it that holds the layers, if they have no more than so many
/// bytes together; `config` is what a `.keras` file says of the network, or empty. A damaged file may make
/// the reading crate panic: that ends here.
pub(super) fn read(bytes: Vec<u8>, allowed: usize, config: &[u8]) -> Result<Contents, String> {
    let walk = AssertUnwindSafe(|| Walk::new(bytes, allowed, config)?.all());
    catch_unwind(walk).unwrap_or_else(|_| Err("its structure is damaged".to_owned()))
}

struct Walk {
    file: Hdf5File,
    /// Bytes that arrays may still have.
    left: usize,
    /// Names of layers by their groups, where the groups themselves may not say them.
    names: HashMap<String, String>,
    /// Where the groups lie that were walked through: a damaged file may hold itself.
    seen: HashSet<u64>,
    contents: Contents,
}

impl Walk {
    fn new(bytes: Vec<u8>, left: usize, config: &[u8]) -> Result<Self, String> {
        let length = bytes.len();
        let options = OpenOptions::default()
            .with_chunk_cache_bytes(0)
            .with_max_chunk_bytes(left)
            .with_max_read_bytes(left);
        let file = Hdf5File::from_vec_with_options(bytes, options).map_err(|e| e.to_string())?;
        // A download that broke off may still have all the file's tables, and lack numbers.
        let whole = file.superblock().eof_address;
        if whole > length as u64 {
            return Err(format!("it ends too early: expected {whole} bytes, got {length}"));
        }
        let (names, contents) = (layer_names(config), Contents::default());
        Ok(Walk { file, left, names, seen: HashSet::new(), contents })
    }

    fn all(mut self) -> Result<Contents, String> {
        let root = self.file.root_group().map_err(|e| e.to_string())?;
        let (groups, _) = root.member_names().map_err(|e| e.to_string())?;
        let has = |wanted: &str| groups.iter().any(|name| name == wanted);
        let inner = ["model_weights", "layers"].into_iter().find(|name| has(name));
        match inner {
            Some(name) => {
                let path = if name == "layers" { "layers/" } else { "" };
                self.group(&root.group(name).map_err(|e| e.to_string())?, path, path, 0)?;
            }
            None => self.group(&root, "", "", 0)?,
        }
        Ok(self.contents)
    }

    /// `there` is where the group is in the file, `path` with the names of layers in it.
    fn group(&mut self, group: &Group, there: &str, path: &str, depth: usize) -> Result<(), String> {
        if depth > DEPTH {
            return Err(format!("expected groups at most {DEPTH} deep, got deeper ones in `{there}`"));
        }
        if !self.seen.insert(group.address()) {
            return Err(format!("the group `{there}` is there twice"));
        }
        let (groups, datasets) =
            group.members().map_err(|error| format!("in the group `/{there}`: {error}"))?;
        for dataset in &datasets {
            self.dataset(dataset, &format!("{path}{}", dataset.name()))?;
        }
        for group in &groups {
            let inside = format!("{there}{}/", group.name());
            let numbered = group.name() == "vars";
            let layer = if numbered { self.layer(group, there) } else { None };
            let below = match &layer {
                // `layers/conv2d/` of Keras 3 becomes `layers/conv1/`.
                Some(name) => match path.trim_end_matches('/').rsplit_once('/') {
                    Some((before, _)) => format!("{before}/{name}/vars/"),
                    None => format!("{name}/vars/"),
                },
                None => format!("{path}{}/", group.name()),
            };
            let before = self.contents.entries.len();
            self.group(group, &inside, &below, depth + 1)?;
            if numbered && layer.is_none() && !there.starts_with("optimizer") {
                let first = self.contents.entries.get(before).map(|entry| entry.name.clone());
                self.contents.nameless = self.contents.nameless.take().or(first);
            }
        }
        Ok(())
    }

    /// The name of the layer that has the numbered variables of a group.
    fn layer(&self, group: &Group, there: &str) -> Option<String> {
        let own = group.attribute("name").ok().and_then(|name| name.read_string().ok());
        own.or_else(|| self.names.get(there.trim_end_matches('/')).cloned())
    }

    fn dataset(&mut self, dataset: &Dataset, path: &str) -> Result<(), String> {
        let within = |message: String| format!("`{path}`: {message}");
        let shape = dataset.shape().iter().map(|&n| usize::try_from(n));
        let shape: Vec<usize> = shape.collect::<Result<_, _>>().map_err(|e| within(e.to_string()))?;
        let (dtype, float, order) = element(dataset);
        let mut bytes = Vec::new();
        if let Some(float) = float {
            // As they are in the file or as f32 here, whatever is more.
            let size = shape.iter().try_fold(float.size().max(4), |n, &axis| n.checked_mul(axis));
            let size = size.filter(|&size| size <= self.left).ok_or_else(|| {
                within(format!("its shape {shape:?} has more elements than the file can hold"))
            })?;
            self.left -= size;
            bytes = dataset.read_raw_bytes().map_err(|error| within(error.to_string()))?;
            if order == ByteOrder::BigEndian {
                bytes.chunks_exact_mut(float.size()).for_each(<[u8]>::reverse);
            }
        }
        self.contents.entries.push(entry(path.to_owned(), &dtype, shape, float, &bytes)?);
        Ok(())
    }
}

/// A dataset's element type: what it is called, how its numbers are decoded, and the order of their bytes.
fn element(dataset: &Dataset) -> (String, Option<Float>, ByteOrder) {
    let little = ByteOrder::LittleEndian;
    match dataset.dtype() {
        Datatype::FloatingPoint { size, .. } => {
            match dataset.raw_datatype().ok().as_deref().and_then(float) {
                Some((float, order)) => (float.name(), Some(float), order),
                None => (format!("a float of {size} bytes of an unknown layout"), None, little),
            }
        }
        Datatype::FixedPoint { size, signed, byte_order } => {
            let sign = if *signed { "" } else { "u" };
            (format!("{sign}int{}", 8 * u32::from(*size)), None, *byte_order)
        }
        Datatype::Opaque { size: 2, .. } if said(dataset).is_some_and(|dtype| dtype == "bfloat16") => {
            (BF16.name(), Some(BF16), little)
        }
        Datatype::Opaque { size, .. } => (format!("{size} bytes of no type"), None, little),
        Datatype::String { .. } => ("text".to_owned(), None, little),
        _ => ("no number".to_owned(), None, little),
    }
}

/// What Keras says of an element type that h5py does not have.
fn said(dataset: &Dataset) -> Option<String> {
    dataset.attribute("dtype").ok()?.read_string().ok()
}

/// A floating-point type from its message, which the reading crate's [`Datatype`] makes only a size of:
/// class and version, three bytes of flags, the size, the place and number of the bits that are used, then
/// exponent and mantissa (place and number of bits each) and the exponent's bias.
/// <https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html>, "Datatype Message", class 1.
///
/// None for what no [`Float`] is: a VAX' order of bytes, a mantissa whose leading one is written, bits on
/// both sides that belong to no number.
fn float(message: &[u8]) -> Option<(Float, ByteOrder)> {
    let ([class, flags, sign, _], rest) = message.split_first_chunk()?;
    let (fields, _) = rest.split_first_chunk::<16>()?;
    let four =
        |at: usize| u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
    let bits = |at: usize| Bits { at: fields[at].into(), count: fields[at + 1].into() };
    let (size, offset) = (four(0) as usize, u16::from_le_bytes([fields[4], fields[5]]));
    let (vax, leading_one_implied) = (flags & 0x40 != 0, flags >> 4 & 3 == 2);
    if class & 15 != 1 || vax || !leading_one_implied || offset != 0 {
        return None;
    }
    let order = if flags & 1 == 1 { ByteOrder::BigEndian } else { ByteOrder::LittleEndian };
    Some((Float::new(size, (*sign).into(), bits(8), bits(10), four(12))?, order))
}
