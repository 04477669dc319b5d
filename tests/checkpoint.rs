//! Checkpoints that are damaged: refused, without a panic, and without more memory than the file
//! itself accounts for.

#![cfg(feature = "checkpoint")]

use atrous::data::transforms::Augment;
use atrous::models::{self, Spec};
use atrous::nn::Model;
use atrous::train::{self, TrainConfig, Trainer};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::LazyLock;

/// Counts what each thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let _ = ASKED.try_with(|asked| asked.set(asked.get() + layout.size()));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A run before its first step, in the smallest network there is: 3 MB.
static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let config = TrainConfig {
        epochs: 2,
        batch_size: 3,
        learning_rate: 0.01,
        optimizer: "adam".into(),
        momentum: 0.0,
        loss: "binary_crossentropy".into(),
        seed: 1,
        augment: Augment::Keras,
        class_weights: Some(vec![1.0; 2]),
        train_indices: (0..8).collect(),
        val_indices: vec![8, 9],
        ..TrainConfig::new(Spec::new("alexnet", 108, 2))
    };
    let model = Model::new(models::alexnet(108, 2).unwrap(), 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    train::save(&path, &Trainer::new(model, config).unwrap()).unwrap();
    std::fs::read(path).unwrap()
});

/// Where the header ends and the tensors begin.
fn header_end() -> usize {
    8 + u64::from_le_bytes(VALID[..8].try_into().unwrap()) as usize
}

/// Reads a checkpoint, which must not ask for more than a few times the file's size: the header is
/// taken apart into many small pieces, the tensors are copied.
fn parse(bytes: &[u8]) -> Result<(), String> {
    let before = ASKED.get();
    let result = train::parse(bytes).map(|_| ());
    let asked = ASKED.get() - before;
    let allowed = (1 << 20) + 16 * bytes.len();
    assert!(asked <= allowed, "a file of {} bytes made the reader ask for {asked}", bytes.len());
    result
}

/// The valid checkpoint with its header changed: the file's own, and the run's in its metadata; sealed anew.
fn with_header(change: impl Fn(&mut Value, &mut Value), tensors: &[u8]) -> Vec<u8> {
    let mut header: Value = serde_json::from_slice(&VALID[8..header_end()]).unwrap();
    let text = header["__metadata__"]["atrous"].as_str().unwrap();
    let mut run: Value = serde_json::from_str(text).unwrap();
    change(&mut header, &mut run);
    header["__metadata__"]["atrous"] = run.to_string().into();
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    let mut bytes = [&length[..], header.as_bytes(), tensors].concat();
    train::seal(&mut bytes).unwrap();
    bytes
}

#[test]
fn the_checkpoint_that_the_others_damage_is_read() {
    parse(&VALID).unwrap();
    parse(&with_header(|_, _| (), &VALID[header_end()..])).unwrap();
}

#[test]
fn numbers_that_only_damage_can_have_written_are_refused() {
    let cases = [
        ("/version", json!(4), "version 4"),
        ("/plan/network/name", json!("alexnot"), "`alexnot`"),
        ("/plan/network/size", json!(0), "side"),
        ("/plan/network/size", json!(107), "at least 4×4"),
        ("/plan/network/size", json!(5000), "5000"),
        ("/plan/network/classes", json!(0), "classes"),
        ("/plan/network/classes", json!(3), "expected 2, as many as are named, got 3"),
        ("/plan/epochs", json!(0), "epochs"),
        ("/plan/epochs", json!(u64::MAX), "epochs"),
        ("/plan/batch_size", json!(0), "batch_size"),
        ("/plan/learning_rate", json!(-1.0), "learning_rate"),
        ("/plan/learning_rate", Value::Null, "metadata"),
        ("/plan/optimizer", json!("adamant"), "`adamant`"),
        ("/plan/momentum", json!(1.0), "momentum"),
        ("/plan/loss", json!("regret"), "`regret`"),
        ("/plan/loss", json!("sparse_categorical_crossentropy"), "no loss for"),
        ("/plan/origin", json!("mars"), "metadata"),
        ("/plan/focal", json!(-1.0), "focal"),
        ("/plan/warmup", json!(-1.0), "warmup"),
        ("/plan/clip_norm", json!(0.0), "clip_norm"),
        ("/plan/unfreeze", json!([{"epoch": 2, "layers": 1}, {"epoch": 1, "layers": 2}]), "rising"),
        ("/plan/class_weights", json!([1.0, -1.0]), "class_weights"),
        ("/position/epoch", json!(3), "beyond 2 epochs"),
        ("/position/step", json!(4), "of 3 steps"),
        ("/position/global_step", json!(7), "beyond"),
        ("/position/global_step", json!(1), "the optimizer took 0 steps"),
        ("/optimizer_step", json!(u64::MAX), "the optimizer took"),
        ("/learning_rate", json!(-1.0), "learning_rate"),
        ("/plan/val_indices", json!([8, 7]), "sample 7 is both trained on and validated on"),
        (
            "/plan/samples",
            json!([{"id": "a", "size": [1, 1], "pixels": 1, "labels": null}]),
            "needs number 1",
        ),
        (
            "/plan/samples",
            json!([
                {"id": "a", "size": [1, 1], "pixels": 1, "labels": []},
                {"id": "a", "size": [2, 1], "pixels": 1, "labels": []}
            ]),
            "`a` is among its samples twice",
        ),
    ];
    for (place, value, wanted) in cases {
        let change = |_: &mut Value, run: &mut Value| *run.pointer_mut(place).unwrap() = value.clone();
        let error = parse(&with_header(change, &VALID[header_end()..])).expect_err(place);
        assert!(error.contains(wanted), "{place} = {value}: `{wanted}` is not in: {error}");
    }
}

#[test]
fn a_small_file_that_claims_a_huge_network_is_refused_without_building_it() {
    let bytes = with_header(
        |header, run| {
            header.as_object_mut().unwrap().retain(|name, _| name == "__metadata__");
            run["plan"]["network"]["size"] = json!(4096);
        },
        &[],
    );
    assert!(bytes.len() < 2048);
    let error = parse(&bytes).unwrap_err();
    assert!(error.contains("`model/conv2d/kernel` is missing"), "{error}");
}

#[test]
fn a_run_in_progress_needs_the_optimizers_state() {
    let change = |_: &mut Value, run: &mut Value| {
        (run["position"]["step"], run["position"]["global_step"]) = (json!(1), json!(1));
        run["optimizer_step"] = json!(1);
    };
    let error = parse(&with_header(change, &VALID[header_end()..])).unwrap_err();
    assert!(error.contains("`optimizer/m/conv2d/kernel` is missing"), "{error}");
}

#[test]
fn a_tensor_of_another_type_or_shape_is_refused_by_name() {
    let kernel = "model/conv2d/kernel";
    let change = |header: &mut Value, _: &mut Value| header[kernel]["dtype"] = json!("I32");
    let error = parse(&with_header(change, &VALID[header_end()..])).unwrap_err();
    assert!(error.contains(kernel) && error.contains("I32"), "{error}");
    let change = |header: &mut Value, _: &mut Value| header[kernel]["shape"] = json!([49, 3, 64]);
    let error = parse(&with_header(change, &VALID[header_end()..])).unwrap_err();
    assert!(error.contains(kernel) && error.contains("[49, 3, 64]"), "{error}");
}

#[test]
fn a_weight_that_is_no_number_is_refused_although_the_checksum_is_right() {
    let mut bytes = VALID.clone();
    let end = header_end();
    bytes[end..end + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(parse(&bytes).unwrap_err().contains("checksum"));
    train::seal(&mut bytes).unwrap();
    let error = parse(&bytes).unwrap_err();
    assert!(error.contains("NaN") && error.contains('/'), "{error}");
}

#[test]
fn a_file_without_a_checksum_is_refused() {
    let mut bytes = VALID.clone();
    let at = bytes.windows(8).position(|window| window == b"checksum").unwrap();
    bytes[at] = b'k';
    assert!(parse(&bytes).unwrap_err().contains("it has no checksum"));
    assert!(train::seal(&mut bytes).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(parse(&bytes).is_err());
    }

    #[test]
    fn random_bytes_behind_a_plausible_length_are_refused(
        header in "[ -~]{0,200}", data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let length = (header.len() as u64).to_le_bytes();
        prop_assert!(parse(&[&length[..], header.as_bytes(), &data].concat()).is_err());
    }

    #[test]
    fn a_checkpoint_that_is_cut_off_is_refused(share in 0.0..1.0, in_header: bool) {
        let whole = if in_header { header_end() } else { VALID.len() };
        prop_assert!(parse(&VALID[..(whole as f64 * share) as usize]).is_err());
    }

    #[test]
    fn a_changed_byte_is_refused_wherever_it_is(
        share in 0.0..1.0,
        byte: u8,
        in_header in prop::bool::weighted(0.9),
    ) {
        let mut bytes = VALID.clone();
        let whole = if in_header { header_end() } else { VALID.len() };
        bytes[(whole as f64 * share) as usize] = byte;
        prop_assert_eq!(parse(&bytes).is_ok(), bytes == *VALID);
    }
}
