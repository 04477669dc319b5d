//! Files with changed bytes, cut off, or made of noise: an error, or numbers that hold together.

use super::odd::with_datatype;
use super::{LARGEST, SMALL, inner_weights, small, tiny};
use atrous::weights::{self, Origin};
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

static VALID: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let read = |&name: &&'static str| (name, std::fs::read(small(name)).unwrap());
    let mut files: Vec<_> = SMALL.iter().map(read).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    let tensors = tiny().parameters.into_iter().map(|p| (p.path, p.value)).collect::<Vec<_>>();
    weights::save(&path, &tensors, Origin::Keras).unwrap();
    files.push(("tiny.safetensors", std::fs::read(path).unwrap()));
    files.push(("bfloat16.keras", std::fs::read(small("tiny_keras3_bfloat16.keras")).unwrap()));
    files.push(("bfloat16.h5", inner_weights("tiny_keras3_bfloat16.keras")));
    files
});

/// Reads a file, which must not panic nor ask for more than it may hold; what it accepts must hold
/// together.
fn survives(name: &str, bytes: Vec<u8>) -> Result<(), TestCaseError> {
    let allowed = (64 << 20) + 8 * bytes.len() + (1 << 20);
    LARGEST.set(0);
    let parsed = weights::parse(Path::new(name), bytes);
    let largest = LARGEST.get();
    prop_assert!(largest <= allowed, "{name}: asked for {largest} bytes, {allowed} are allowed");
    match parsed {
        Ok(file) => {
            for entry in &file.entries {
                if let Some(tensor) = &entry.tensor {
                    prop_assert_eq!(&tensor.shape()[..], &entry.shape[..]);
                }
            }
            // Whatever the values are now, they are loaded or refused.
            let _ = weights::load(&mut tiny(), &file, &[]);
        }
        Err(message) => prop_assert!(!message.is_empty()),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn changed_bytes_never_panic(
        which in 0..VALID.len(), changes in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 1..8),
    ) {
        let (name, mut bytes) = VALID[which].clone();
        let n = bytes.len() as f64;
        changes.into_iter().for_each(|(share, byte)| bytes[(n * share) as usize] = byte);
        survives(name, bytes)?;
    }

    #[test]
    fn any_float_type_of_hdf5_is_decoded_or_not_taken(
        which in 0..2usize, flags in any::<[u8; 3]>(), fields in any::<[u8; 12]>(), tame in any::<bool>(),
    ) {
        let name = ["float_bfloat16.h5", "float_e11m20.h5"][which];
        let file = with_datatype(name, |datatype| {
            datatype[1..4].copy_from_slice(&flags);
            datatype[8..20].copy_from_slice(&fields);
            if tame {
                // Mostly whole: a leading one that is not written, no offset, few bits at low places.
                (datatype[1], datatype[8], datatype[9]) = (0x20, 0, 0);
                datatype[12..16].iter_mut().for_each(|byte| *byte %= 16);
            }
        });
        for entry in file.iter().flat_map(|file| &file.entries) {
            let count = entry.tensor.as_ref().map(|tensor| tensor.to_vec_f64().len());
            prop_assert!(count.is_none_or(|count| count == 4));
        }
    }

    #[test]
    fn files_that_are_cut_off_are_refused(which in 0..VALID.len(), share in 0.0..1.0f64) {
        let (name, bytes) = &VALID[which];
        let cut = bytes[..(bytes.len() as f64 * share) as usize].to_vec();
        prop_assert!(weights::parse(Path::new(name), cut.clone()).is_err(), "{} at {}", name, cut.len());
        survives(name, cut)?;
    }

    #[test]
    fn random_bytes_behind_a_right_beginning_are_refused(
        start in 0..3usize, bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let start = [&b"\x89HDF\r\n\x1a\n"[..], b"PK\x03\x04", b"\x40\0\0\0\0\0\0\0{"][start];
        let bytes = [start, &bytes].concat();
        prop_assert!(weights::parse(Path::new("a"), bytes.clone()).is_err());
        survives("a", bytes)?;
    }
}
