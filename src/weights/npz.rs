//! NumPy's `.npy`, as `.npz` files have them.

use super::float::{F16, F32, F64};
use super::{Entry, entry};
use crate::data::npy;

/// The array of a `.npy` file.
pub(super) fn array(name: &str, bytes: &[u8]) -> Result<Entry, String> {
    let npy = npy::parse(bytes)?;
    let (order, kind) = npy.descr.split_at_checked(1).unwrap_or_default();
    let float = match (order, kind) {
        ("<" | ">", "f2") => Some(F16),
        ("<" | ">", "f4") => Some(F32),
        ("<" | ">", "f8") => Some(F64),
        _ => None,
    };
    let Some(float) = float else { return entry(name.to_owned(), npy.descr, npy.shape, None, &[]) };
    let mut values = npy.row_major(float.size())?;
    if order == ">" {
        values.chunks_exact_mut(float.size()).for_each(<[u8]>::reverse);
    }
    entry(name.to_owned(), &float.name(), npy.shape, Some(float), &values)
}
