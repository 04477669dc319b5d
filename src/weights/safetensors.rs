//! `.safetensors`: a JSON header of names, types, shapes and offsets, then the numbers.
//! <https://github.com/huggingface/safetensors>
//!
//! PyTorch, timm and this crate write it. The metadata `origin` of files written here says where
//! the weights are from, because their names are Keras' whatever their origin.

use super::float::{BF16, F16, F32, F64};
use super::{Contents, Origin, entry};
use crate::device::Device;
use crate::error::{Error, Result, printable};
use crate::files::write_atomically;
use crate::tensor::{DType, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::Path;

const KEY: &str = "origin";

/// Under a key that is so common, other programs write what they like: that is no origin, and no error.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, String> {
    let said = text(bytes, KEY)?;
    let origin: Option<Origin> = said.as_deref().and_then(|name| name.parse().ok());
    let foreign = said.filter(|_| origin.is_none()).map(|name| {
        let name = printable(&name);
        format!("its metadata has the origin `{name}`, which is not known here: the names decide")
    });
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut views = file.tensors();
    // As they lie in the file: the header has no order.
    views.sort_by(|(a, va), (b, vb)| (va.data().as_ptr(), a).cmp(&(vb.data().as_ptr(), b)));
    let entries = views.into_iter().map(|(name, view)| {
        let (dtype, float) = match view.dtype() {
            Dtype::F16 => (F16.name(), Some(F16)),
            Dtype::BF16 => (BF16.name(), Some(BF16)),
            Dtype::F32 => (F32.name(), Some(F32)),
            Dtype::F64 => (F64.name(), Some(F64)),
            Dtype::I64 => ("int64".to_owned(), None),
            other => (format!("{other:?}").to_lowercase(), None),
        };
        entry(name, &dtype, view.shape().to_vec(), float, view.data())
    });
    let entries = entries.collect::<Result<_, _>>()?;
    Ok(Contents { entries, origin, remarks: foreign.into_iter().collect(), nameless: None })
}

/// Writes tensors under Keras' names, and where they are from.
///
/// ```
/// use atrous::Tensor;
/// use atrous::weights::{self, Origin};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("weights.safetensors");
/// weights::save(&path, &[("dense/bias".into(), Tensor::from([1.0f32, 2.0]))], Origin::Keras)?;
/// let file = weights::read(&path)?;
/// assert_eq!((file.entries[0].name.as_str(), &file.entries[0].shape[..]), ("dense/bias", &[2][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save(path: &Path, tensors: &[(String, Tensor)], origin: Origin) -> Result<()> {
    write(path, tensors, KEY, origin.to_string())
}

/// Writes [`serialize`]'s file: complete, or not at all.
pub(crate) fn write(path: &Path, tensors: &[(String, Tensor)], key: &str, text: String) -> Result<()> {
    let file = serialize(tensors, key, text);
    let file = file.map_err(|error| Error::file(path, format!("cannot be written: {error}")))?;
    write_atomically(path, |out| out.write_all(&file))
}

/// A file of tensors as f32, with one text of metadata.
pub(crate) fn serialize(tensors: &[(String, Tensor)], key: &str, text: String) -> Result<Vec<u8>> {
    let broken = |error: &dyn std::fmt::Display| Error::argument("safetensors", error);
    let bytes = |tensor: &Tensor| -> Result<Vec<u8>> {
        let here = tensor.to_device(Device::Cpu)?.to_dtype(DType::F32);
        Ok(here.values::<f32>().iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    let arrays = tensors.iter().map(|(_, tensor)| bytes(tensor)).collect::<Result<Vec<_>>>()?;
    let views = tensors.iter().zip(&arrays).map(|((name, tensor), bytes)| {
        Ok((name.as_str(), TensorView::new(Dtype::F32, tensor.shape().to_vec(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    let metadata = HashMap::from([(key.to_owned(), text)]);
    let file = safetensors::serialize(views.map_err(|error| broken(&error))?, Some(metadata));
    file.map_err(|error| broken(&error))
}

/// The text that [`serialize`] put there under this key, if there is one.
pub(crate) fn text(bytes: &[u8], key: &str) -> Result<Option<String>, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    Ok(header.metadata().as_ref().and_then(|map| map.get(key)).cloned())
}

/// The f32 array of that name and shape.
pub(crate) fn f32_tensor(arrays: &SafeTensors, name: &str, shape: &[usize]) -> Result<Tensor, String> {
    let view = arrays.tensor(name).map_err(|_| format!("`{name}` is missing"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        let got = format!("{:?} {:?}", view.dtype(), view.shape());
        return Err(format!("`{name}` should be F32 {shape:?}, and is {got}"));
    }
    let (values, _) = view.data().as_chunks::<4>();
    let values: Vec<f32> = values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Tensor::from_slice(&values, shape).map_err(|error| error.to_string())
}
