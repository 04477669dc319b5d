//! NumPy's `.npz`: a zip archive of `.npy` files, stored or deflated.

use super::float::Float;
use super::{Entry, allowance, entry};
use crate::data::npy;
use std::io::{Cursor, Read};
use zip::ZipArchive;

pub(super) fn read(bytes: Vec<u8>) -> Result<Vec<Entry>, String> {
    let mut left = allowance(bytes.len());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    for i in 0..archive.len() {
        let file = archive.by_index(i).map_err(|error| error.to_string())?;
        let member = file.name().map_err(|error| error.to_string())?.into_owned();
        let name = member.strip_suffix(".npy").ok_or_else(|| {
            let hint =
                "PyTorch's .pth and Keras' .keras are other archives: save as .safetensors or .h5";
            format!("expected .npy files in it, got `{member}` ({hint})")
        })?;
        // Read no further than the arrays may go, whatever the archive says of itself.
        let mut bytes = Vec::new();
        let read = file.take(left as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("`{member}`: {error}"))?;
        if bytes.len() > left {
            return Err(format!("`{member}`: it unpacks to far more than a file of weights"));
        }
        left -= bytes.len();
        let array = array(name, &bytes).map_err(|message| format!("`{member}`: {message}"))?;
        entries.push(array);
    }
    Ok(entries)
}

fn array(name: &str, bytes: &[u8]) -> Result<Entry, String> {
    let npy = npy::parse(bytes)?;
    let (dtype, float) = match npy.descr {
        "<f2" => ("float16", Some(Float::F16)),
        "<f4" => ("float32", Some(Float::F32)),
        "<f8" => ("float64", Some(Float::F64)),
        other => (other, None),
    };
    let values = float.map_or(Ok(Vec::new()), |float| npy.row_major(float.size()))?;
    entry(name.to_owned(), dtype, npy.shape, float, &values)
}
