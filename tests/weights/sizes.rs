//! Sizes that files claim: what overflows, unpacks to too much, or is there twice.

use atrous::weights::{self, WeightFile};
use safetensors::tensor::{Dtype, TensorView};
use std::io::Write;
use std::path::Path;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

fn parse(bytes: Vec<u8>) -> Result<WeightFile, String> {
    weights::parse(Path::new("a"), bytes)
}

/// A file of safetensors with this header and so many bytes of numbers.
fn safetensors(header: &str, numbers: usize) -> Vec<u8> {
    let length = header.len() as u64;
    [&length.to_le_bytes()[..], header.as_bytes(), &vec![0; numbers]].concat()
}

fn npy(dtype: &str, shape: &str, numbers: usize) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let length = header.len() as u16;
    [b"\x93NUMPY\x01\0", &length.to_le_bytes()[..], header.as_bytes(), &vec![0; numbers]].concat()
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in members {
        zip.start_file(*name, deflated).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn shapes_whose_product_overflows_are_refused() {
    for shape in ["4294967296,4294967296", "18446744073709551615,2", "9223372036854775808,2,1"] {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[0,16]}}}}"#);
        let error = parse(safetensors(&header, 16)).unwrap_err();
        assert!(error.contains("not a usable safetensors file"), "{error}");
        for dtype in ["<f4", ">f8", "<f2"] {
            let error =
                parse(archive(&[("a.npy", &npy(dtype, &format!("({shape})"), 16))])).unwrap_err();
            assert!(error.contains("`a.npy`: expected too many bytes of elements"), "{error}");
        }
    }
}

#[test]
fn a_header_longer_than_the_file_is_no_header() {
    for length in [1u64 << 31, 1 << 40, u64::MAX, 17] {
        let bytes = [&length.to_le_bytes()[..], b"{}      "].concat();
        assert!(parse(bytes).unwrap_err().contains("expected a file of weights"), "{length}");
    }
}

#[test]
fn arrays_without_numbers_without_axes_and_with_many_axes_are_read() {
    let one = 1f32.to_le_bytes();
    let views = [
        ("nothing", TensorView::new(Dtype::F32, vec![0, 5], &[]).unwrap()),
        ("scalar", TensorView::new(Dtype::F32, vec![], &one).unwrap()),
        ("axes", TensorView::new(Dtype::F32, vec![1; 7], &one).unwrap()),
    ];
    let file = parse(safetensors::serialize(views, None).unwrap()).unwrap();
    let tensor = |name: &str| {
        let entry = file.entries.iter().find(|entry| entry.name == name).unwrap();
        entry.tensor.as_ref().map(|tensor| tensor.to_vec_f64())
    };
    assert_eq!(
        (tensor("nothing"), tensor("scalar"), tensor("axes")),
        (Some(vec![]), Some(vec![1.0]), None)
    );
    let members = [
        ("0.npy", npy("<f4", "(0,)", 0)),
        ("1.npy", npy("<f4", "()", 4)),
        ("7.npy", npy("<f4", "(1,1,1,1,1,1,1)", 4)),
    ];
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let file = parse(archive(&members)).unwrap();
    let shapes: Vec<usize> = file.entries.iter().map(|entry| entry.shape.len()).collect();
    assert_eq!(shapes, [1, 0, 7]);
}

#[test]
fn numbers_of_numpy_are_read_in_both_orders_of_bytes() {
    let mut big = npy(">f8", "(2,)", 0);
    big.extend([1.5f64, -2.0].iter().flat_map(|v| v.to_be_bytes()));
    let mut little = npy("<f2", "(2,)", 0);
    little.extend([0x00, 0x3e, 0x00, 0xc0]);
    let file = parse(archive(&[("a.npy", &big), ("b.npy", &little)])).unwrap();
    for entry in &file.entries {
        assert_eq!(entry.tensor.as_ref().unwrap().to_vec_f64(), [1.5, -2.0], "{}", entry.name);
    }
}

#[test]
fn one_name_twice_in_a_header_is_refused() {
    let tensor = |from: usize| {
        format!(r#""a":{{"dtype":"F32","shape":[1],"data_offsets":[{from},{}]}}"#, from + 4)
    };
    let header = format!("{{{},{}}}", tensor(0), tensor(4));
    assert!(parse(safetensors(&header, 8)).unwrap_err().contains("not a usable safetensors file"));
}

/// Far more than the 64 MiB that any small file may unpack to.
#[test]
fn an_archive_that_unpacks_to_far_more_than_it_has_is_refused() {
    let zeros = vec![0; 80 << 20];
    for name in ["a.npy", "model.weights.h5"] {
        let bytes = archive(&[(name, &zeros)]);
        assert!(bytes.len() < 1 << 20, "{}", bytes.len());
        let error = parse(bytes).unwrap_err();
        assert!(error.contains(&format!("`{name}`: it unpacks to far more")), "{error}");
    }
    // Each of them little, and all together too much.
    let part = npy("<i4", "(5000000,)", 20_000_000);
    let error =
        parse(archive(&[("a.npy", &part), ("b.npy", &part), ("c.npy", &part), ("d.npy", &part)]));
    assert!(error.unwrap_err().contains("it unpacks to far more"));
}

#[test]
fn a_keras_archive_without_weights_in_it_is_told_so() {
    let error = parse(archive(&[("model.weights.h5", b"none"), ("config.json", b"{}")])).unwrap_err();
    assert!(error.starts_with("not a usable Keras file: `model.weights.h5`: "), "{error}");
    let error = parse(archive(&[("config.json", b"{}"), ("model_00000.weights.h5", b"")])).unwrap_err();
    assert!(error.contains("expected `model.weights.h5` in it"), "{error}");
    let error = parse(archive(&[("archive/data.pkl", b"none")])).unwrap_err();
    assert!(error.contains("got `archive/data.pkl` (PyTorch's .pth is another archive"), "{error}");
}
