//! Pre-trained weights, from the files that people have.
//!
//! | file           | written by                                                              |
//! |----------------|-------------------------------------------------------------------------|
//! | `.h5`          | Keras: weights by layer, whole models (their `model_weights`)           |
//! | `.weights.h5`  | Keras 3                                                                 |
//! | `.keras`       | Keras 3: an archive with such a `.weights.h5` in it                     |
//! | `.safetensors` | PyTorch, timm, this crate                                               |
//! | `.npz`         | NumPy                                                                   |
//!
//! [`read`] gives the tensors under the names they have in the file. [`load`] puts them into a
//! [`Model`](crate::nn::Model) by the name tables of [`names`], transposed where the file's
//! framework lays them out in another order. What else the framework does in another way (padding,
//! batch norm's epsilon, what an image is multiplied by) is the model's configuration: [`Origin`]
//! sets it.

mod archive;
mod float;
mod hdf5;
mod keras_config;
mod load;
pub mod names;
mod npz;
mod origin;
pub(crate) mod regular;
mod report;
pub(crate) mod safetensors;
mod wrappers;

pub use load::{compare, heads, load};
pub use origin::Origin;
pub use report::Report;
pub use safetensors::save;

use crate::error::{Error, Result, printable};
use crate::tensor::{MAX_RANK, Tensor};
use float::{Decoded, Float};
use std::fmt;
use std::path::{Path, PathBuf};

/// An array of a file, under the name it has there.
#[derive(Debug)]
pub struct Entry {
    /// Path within the file, e.g. `conv1/conv1/kernel:0` or `features.0.weight`.
    pub name: String,
    /// As NumPy calls it: `float32`, `int64`.
    pub dtype: String,
    /// In the file's layout, whatever the framework's order of axes.
    pub shape: Vec<usize>,
    /// None if the elements are no floating-point numbers, or the axes more than four. Such arrays
    /// (counters, an optimizer's step) are common, and an error only where one is asked for.
    pub tensor: Option<Tensor>,
    /// The first number that is too large for the f32 of the tensor, where it is infinite; and its place.
    pub beyond: Option<(usize, f64)>,
}

/// What a file's format says of its arrays.
#[derive(Default)]
struct Contents {
    entries: Vec<Entry>,
    origin: Option<Origin>,
    remarks: Vec<String>,
    nameless: Option<String>,
}

/// A file's format, told from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// HDF5: Keras' `.h5` and `.weights.h5`.
    Hdf5,
    /// A zip archive with a `.weights.h5` in it: Keras 3's `.keras`.
    Keras,
    /// A JSON header followed by the elements.
    Safetensors,
    /// A zip archive of `.npy` files.
    Npz,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Hdf5 => "HDF5",
            Format::Keras => "Keras",
            Format::Safetensors => "safetensors",
            Format::Npz => "npz",
        })
    }
}

/// What a file holds.
#[derive(Debug)]
pub struct WeightFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// What its first bytes say, whatever its name ends in.
    pub format: Format,
    /// Whose weights these are: as the file says, else as the names look.
    pub origin: Origin,
    /// Its arrays, in the file's order.
    pub entries: Vec<Entry>,
    /// What a reader of a report should know of it, a line each.
    pub remarks: Vec<String>,
    /// The first array that has a number instead of a name, in a file that does not say which layer it
    /// belongs to. Such a file can be looked at, and is not loaded: its order is no name.
    pub nameless: Option<String>,
}

/// Reads all weights of a file. What it holds, not what it is called, says which format it has. Only a
/// regular file of at most 4 GiB is read.
///
/// ```
/// use atrous::Tensor;
/// use atrous::weights::{self, Format, Origin};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.bin");
/// let tensors = [("conv1/kernel".into(), Tensor::rand([3, 3, 3, 8], 1))];
/// weights::save(&path, &tensors, Origin::Timm)?;
/// let file = weights::read(&path)?;
/// assert_eq!((file.format, file.origin), (Format::Safetensors, Origin::Timm)); // whatever its name
/// let entry = &file.entries[0];
/// assert_eq!((entry.name.as_str(), entry.dtype.as_str()), ("conv1/kernel", "float32"));
/// assert_eq!(entry.tensor.as_ref().unwrap().to_vec_f64(), tensors[0].1.to_vec_f64());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read(path: impl AsRef<Path>) -> Result<WeightFile> {
    let path = path.as_ref();
    parse(path, regular::read(path)?).map_err(|message| Error::file(path, message))
}

/// [`read`] from memory; the error is without the path.
///
/// ```
/// use atrous::weights::{Format, Origin, parse};
/// use std::path::Path;
///
/// // A header as long as its first eight bytes say, then the numbers, little endian.
/// let header = br#"{"fc.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
/// let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
/// bytes.extend(header);
/// bytes.extend([1.0f32, 2.0].map(f32::to_le_bytes).concat());
/// let file = parse(Path::new("in memory"), bytes)?;
/// assert_eq!((file.format, file.origin), (Format::Safetensors, Origin::Torchvision)); // by the name
/// assert_eq!(file.entries[0].tensor.as_ref().unwrap().to_vec_f64(), [1.0, 2.0]);
/// # Ok::<(), String>(())
/// ```
pub fn parse(path: &Path, bytes: Vec<u8>) -> Result<WeightFile, String> {
    let format = Format::of(path, &bytes)?;
    let allowed = allowance(bytes.len());
    let contents = match format {
        Format::Hdf5 => hdf5::read(bytes, allowed, b""),
        Format::Keras => archive::keras(bytes, allowed),
        Format::Safetensors => safetensors::read(&bytes),
        Format::Npz => archive::npz(bytes, allowed),
    };
    let damaged = |message: String| format!("not a usable {format} file: {}", printable(&message));
    let Contents { entries, origin, remarks, nameless } = contents.map_err(damaged)?;
    if entries.is_empty() {
        return Err(format!("expected weights, but this {format} file holds no arrays"));
    }
    let origin = origin.unwrap_or_else(|| Origin::of(entries.iter().map(|entry| entry.name.as_str())));
    Ok(WeightFile { path: path.to_owned(), format, origin, entries, remarks, nameless })
}

impl Format {
    fn of(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        // A safetensors file begins with its header's length and the header's brace.
        let header = bytes.get(..8).map(|n| n.iter().rev().fold(0u64, |sum, &b| sum << 8 | b as u64));
        if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
            return Ok(Format::Hdf5);
        } else if bytes.starts_with(b"PK") {
            return Ok(archive::format(bytes));
        } else if bytes.get(8) == Some(&b'{') && header.is_some_and(|n| n <= bytes.len() as u64) {
            return Ok(Format::Safetensors);
        }
        let named = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let expected = match named.to_ascii_lowercase().as_str() {
            "h5" | "hdf5" => "an HDF5 file, as its name says, which starts with \\x89HDF",
            "npz" => "an .npz file, as its name says, which starts with PK",
            "keras" => "a .keras file, as its name says, which starts with PK",
            "safetensors" => {
                "a safetensors file, as its name says, which starts with its header's length"
            }
            _ => "a file of weights: .h5, .keras, .safetensors or .npz",
        };
        let start = &bytes[..bytes.len().min(8)];
        Err(format!(
            "expected {expected}, got {} bytes that start `{}`",
            bytes.len(),
            start.escape_ascii()
        ))
    }
}

/// How many bytes the arrays of a file may have. Compression makes some files larger than they
/// are, but weights are hardly compressible: what claims more than this is damaged.
fn allowance(file: usize) -> usize {
    file.saturating_mul(8).saturating_add(64 << 20)
}

/// An array of floating-point numbers, `bytes` of them, little endian and row by row; or one of
/// something else.
fn entry(
    name: String,
    dtype: &str,
    shape: Vec<usize>,
    float: Option<Float>,
    bytes: &[u8],
) -> Result<Entry, String> {
    let (tensor, beyond) = match float {
        Some(float) if shape.len() <= MAX_RANK => {
            let Decoded { values, beyond } = float.decode(bytes);
            let tensor = Tensor::from_slice(&values, &shape[..]);
            (Some(tensor.map_err(|error| format!("`{name}`: {error}"))?), beyond)
        }
        _ => (None, None),
    };
    Ok(Entry { name, dtype: dtype.to_owned(), shape, tensor, beyond })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, bytes: &[u8]) -> String {
        parse(Path::new(name), bytes.to_vec()).unwrap_err()
    }

    #[test]
    fn what_is_no_file_of_weights_is_called_that() {
        assert!(refused("a.h5", b"hello").contains("expected an HDF5 file"));
        assert!(refused("a.npz", b"").contains("0 bytes"));
        assert!(refused("a.safetensors", b"\xff\xff\xff\xff\0\0\0\0{").contains("header's length"));
        assert!(refused("a.txt", b"hello\n").contains(".h5, .keras, .safetensors or .npz, got 6 bytes"));
    }

    #[test]
    fn a_file_is_known_by_what_it_holds() {
        let error = refused("a.txt", b"\x89HDF\r\n\x1a\n and nothing");
        assert!(error.contains("not a usable HDF5 file"), "{error}");
        let error = refused("a.h5", b"PK and nothing");
        assert!(error.contains("not a usable npz file"), "{error}");
        let error = refused("a.npz", b"\x02\0\0\0\0\0\0\0{}");
        assert!(error.contains("safetensors file holds no arrays"), "{error}");
    }
}
