//! Zip archives: NumPy's `.npz`, which holds `.npy` files, stored or deflated, and Keras 3's `.keras`, which
//! holds the weights as the HDF5 file `model.weights.h5`, beside the network's description.

use super::{Contents, Format, hdf5, npz};
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// The member of a `.keras` file that has the numbers.
const WEIGHTS: &str = "model.weights.h5";
/// The member that describes the network.
const CONFIG: &str = "config.json";

struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    /// Bytes that members may still unpack to.
    left: usize,
}

pub(super) fn format(bytes: &[u8]) -> Format {
    let keras = |zip: ZipArchive<Cursor<&[u8]>>| {
        [WEIGHTS, CONFIG].iter().any(|member| zip.index_for_name(member).is_some())
    };
    match ZipArchive::new(Cursor::new(bytes)).is_ok_and(keras) {
        true => Format::Keras,
        false => Format::Npz,
    }
}

/// Arrays of an `.npz`, if they unpack to no more than so many bytes.
pub(super) fn npz(bytes: Vec<u8>, allowed: usize) -> Result<Contents, String> {
    let mut archive = Archive::new(bytes, allowed)?;
    let mut entries = Vec::new();
    for i in 0..archive.zip.len() {
        let (member, bytes) = archive.member(i)?;
        let name = member.strip_suffix(".npy").ok_or_else(|| {
            let hint = "PyTorch's .pth is another archive: save as .safetensors";
            format!("expected .npy files in it, got `{member}` ({hint})")
        })?;
        let array = npz::array(name, &bytes).map_err(|message| format!("`{member}`: {message}"))?;
        entries.push(array);
    }
    Ok(Contents { entries, ..Contents::default() })
}

/// Arrays of a `.keras`, if they unpack to no more than so many bytes.
pub(super) fn keras(bytes: Vec<u8>, allowed: usize) -> Result<Contents, String> {
    let mut archive = Archive::new(bytes, allowed)?;
    let mut named = |name: &str| match archive.zip.index_for_name(name) {
        Some(i) => Ok(Some(archive.member(i)?.1)),
        None => Ok::<_, String>(None),
    };
    let weights = named(WEIGHTS)?.ok_or_else(|| {
        format!(
            "expected `{WEIGHTS}` in it, got none (in shards, or of another format): save the model in \
             one file"
        )
    })?;
    let config = named(CONFIG)?.unwrap_or_default();
    hdf5::read(weights, archive.left, &config).map_err(|message| format!("`{WEIGHTS}`: {message}"))
}

impl Archive {
    fn new(bytes: Vec<u8>, left: usize) -> Result<Self, String> {
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
        Ok(Archive { zip, left })
    }

    /// A member's name and bytes: read no further than is allowed, whatever the archive says of itself.
    fn member(&mut self, i: usize) -> Result<(String, Vec<u8>), String> {
        let file = self.zip.by_index(i).map_err(|error| error.to_string())?;
        let name = file.name().map_err(|error| error.to_string())?.into_owned();
        let mut bytes = Vec::new();
        let read = file.take(self.left as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("`{name}`: {error}"))?;
        match self.left.checked_sub(bytes.len()) {
            Some(left) => self.left = left,
            None => return Err(format!("`{name}`: it unpacks to far more than a file of weights")),
        }
        Ok((name, bytes))
    }
}
