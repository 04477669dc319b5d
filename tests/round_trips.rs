//! What one half writes the other reads: nothing is lost on the way, and nothing added.
#![cfg(feature = "pictures")]

use atrous::data::convert::convert;
use atrous::data::source::{Layout, Source};
use atrous::data::voc_devkit::Task;
use atrous::data::voc_npy::{self, Split, VocNpy};
use atrous::data::{Classes, Dataset, Image, Labels, Mask, check, synthetic};
use atrous::predict::submission::{self, Entry, Submission};
use proptest::collection::{hash_set, vec};
use proptest::prelude::*;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

fn go_on(_: usize, _: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Ids of all kinds: numbers, words with spaces, what csv has to quote, what looks like a value.
fn id() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[0-9]{1,6}",
        "[a-c]( [ab]|  a){0,2}",
        "[a-c,;\"'=#+-]{1,5}",
        "[äé猫\u{301}]{1,3}",
        "[ab] (1|0|-1)",
    ];
    word.prop_filter("no Id", |id| atrous::data::id::check(id).is_ok())
}

fn ids(at_most: usize) -> impl Strategy<Value = Vec<String>> {
    hash_set(id(), 1..=at_most).prop_map(|ids| ids.into_iter().collect())
}

fn labels() -> impl Strategy<Value = Option<Labels>> {
    proptest::option::weighted(0.8, any::<[bool; 20]>().prop_map(Vec::from))
}

fn image(height: usize, width: usize, shade: u8) -> Image {
    let values = (0..height * width * 3).map(|i| shade.wrapping_add(i as u8));
    Image::new(height, width, values.collect()).unwrap()
}

/// One sample: its Id, labels, image, and mask.
#[derive(Clone, Debug)]
struct Sample {
    id: String,
    labels: Option<Labels>,
    image: Image,
    mask: Option<Mask>,
}

fn samples(at_most: usize) -> impl Strategy<Value = Vec<Sample>> {
    let rest = (labels(), 1..9usize, 1..9usize, any::<u8>(), proptest::option::of(vec(0..=20u8, 64)));
    (ids(at_most), vec(rest, at_most)).prop_map(|(ids, rest)| {
        let sample =
            |(id, (labels, height, width, shade, classes)): (String, (_, _, _, _, Option<Vec<u8>>))| {
                let image = image(height, width, shade);
                let mask =
                    classes.map(|classes| Mask::new(height, width, classes[..height * width].to_vec()));
                Sample { id, labels, image, mask: mask.map(Result::unwrap) }
            };
        ids.into_iter().zip(rest).map(sample).collect()
    })
}

fn write(root: &Path, split: Split, samples: &[Sample]) {
    fs::create_dir_all(split.image(root, "").parent().unwrap()).unwrap();
    fs::create_dir_all(split.mask(root, "").parent().unwrap()).unwrap();
    for sample in samples {
        voc_npy::write_image(split.image(root, &sample.id), &sample.image).unwrap();
        if let Some(mask) = &sample.mask {
            voc_npy::write_mask(split.mask(root, &sample.id), mask).unwrap();
        }
    }
    let rows = samples.iter().map(|sample| (sample.id.as_str(), sample.labels.clone()));
    voc_npy::write_csv(split.csv(root), &Classes::voc(), rows).unwrap();
}

/// The samples of a split by their Ids, images left out.
fn read(root: &Path, split: Split) -> Vec<(String, Option<Labels>, Option<Mask>)> {
    let dataset = VocNpy::open(root, split).unwrap();
    let sample = |i: usize| (dataset.id(i), dataset.labels(i), dataset.mask(i).unwrap());
    let mut samples: Vec<_> = (0..dataset.len()).map(sample).collect();
    samples.sort_by(|a, b| a.0.cmp(&b.0));
    samples
}

/// What [`read`] gives after a way through VOCdevkit: labels that were not known are the mask's.
fn expected(split: Split, samples: &[Sample]) -> Vec<(String, Option<Labels>, Option<Mask>)> {
    let sample = |sample: &Sample| {
        let labels = sample.labels.clone().or_else(|| sample.mask.as_ref().map(|mask| mask.labels(20)));
        (format!("{}_{}", split.name(), sample.id), labels, sample.mask.clone())
    };
    let mut samples: Vec<_> = samples.iter().map(sample).collect();
    samples.sort_by(|a, b| a.0.cmp(&b.0));
    samples
}

/// Does a list for `Main` tell these Ids apart (`a` with the value 1 from `a 1`)?
fn told_apart(samples: &[Sample]) -> bool {
    let there = |id: &str| samples.iter().any(|sample| sample.id == id);
    let value = |id: &str| {
        [" 1", " 0", " -1"].iter().any(|v| id.strip_suffix(v).is_some_and(|id| there(id.trim_end())))
    };
    !samples.iter().any(|sample| value(&sample.id))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_reads_back_what_was_written(ids in ids(8), labels in vec(labels(), 8)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        let rows: Vec<(&str, Option<Labels>)> = ids.iter().map(String::as_str).zip(labels).collect();
        voc_npy::write_csv(&path, &Classes::voc(), rows.iter().cloned()).unwrap();
        let read = voc_npy::read_csv(&path).unwrap().rows;
        let read: Vec<(&str, Option<Labels>)> =
            read.iter().map(|row| (row.id.as_str(), row.labels.clone())).collect();
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn any_text_that_is_an_id_reads_back(id in ".{1,12}") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.csv");
        match voc_npy::write_csv(&path, &Classes::voc(), [(id.as_str(), None)]) {
            Ok(()) => prop_assert_eq!(&voc_npy::read_csv(&path).unwrap().rows[0].id, &id),
            Err(error) => {
                prop_assert!(error.to_string().contains("expected"));
                prop_assert!(!path.exists());
            }
        }
    }

    #[test]
    fn images_and_masks_read_back(height in 1..40usize, width in 1..40usize, shade in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let image = image(height, width, shade);
        voc_npy::write_image(&path, &image).unwrap();
        prop_assert!(voc_npy::read_image(&path).unwrap() == image);
        prop_assert_eq!(voc_npy::read_size(&path).unwrap(), (height, width));
        let mask = Mask::new(height, width, vec![shade % 21; height * width]).unwrap();
        voc_npy::write_mask(&path, &mask).unwrap();
        prop_assert!(voc_npy::read_mask(&path).unwrap() == mask);
    }

    #[test]
    fn a_submission_reads_back_and_scores_one(
        ids in ids(6),
        labels in any::<[bool; 20]>(),
        mask in vec(0..=20u8, 30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.csv");
        let bits = labels.map(|set| set as u8);
        let entries: Vec<Entry> = ids.iter().map(|id| Entry::new(id, &bits, Some(&mask))).collect();
        submission::write(&path, entries.iter().cloned().map(Ok)).unwrap();
        let read = Submission::read(&path).unwrap();
        prop_assert_eq!(read.len(), 2 * ids.len());
        for entry in &entries {
            prop_assert_eq!(read.get(&format!("{}_classification", entry.id)), Some(&entry.classification));
            prop_assert_eq!(read.get(&format!("{}_segmentation", entry.id)), Some(&entry.segmentation));
        }
        let truth = Submission::from_entries("truth", entries).unwrap();
        prop_assert_eq!(submission::score(&read, &truth).unwrap().mean, 1.0);
        // The same with other ends of lines.
        let text = fs::read_to_string(&path).unwrap();
        for end in ["\r", "\r\n"] {
            let other = Submission::from_reader(text.replace('\n', end).as_bytes(), "s.csv").unwrap();
            prop_assert_eq!(submission::score(&other, &truth).unwrap().mean, 1.0);
        }
    }

    #[test]
    fn npy_to_voc_to_npy_keeps_ids_labels_and_masks(train in samples(5), test in samples(3)) {
        let out = tempfile::tempdir().unwrap();
        let [npy, voc, back] = ["npy", "voc", "back"].map(|name| out.path().join(name));
        write(&npy, Split::Train, &train);
        write(&npy, Split::Test, &test);
        let to_voc = convert(&npy, &voc, Layout::VocDevkit, &go_on);
        if !(told_apart(&train) && told_apart(&test)) {
            prop_assert!(to_voc.unwrap_err().to_string().contains("expected Ids that a list tells apart"));
            prop_assert!(!voc.exists());
            return Ok(());
        }
        let done = to_voc.unwrap();
        prop_assert_eq!((done.train, done.test), (train.len(), test.len()));
        if check::check(&npy).unwrap().is_fine() {
            let report = check::check(&voc).unwrap();
            prop_assert!(report.is_fine(), "{}", report);
        }
        prop_assert_eq!(convert(&voc, &back, Layout::VocNpy, &go_on).unwrap(), done);
        prop_assert_eq!(read(&back, Split::Train), expected(Split::Train, &train));
        let labels_known = test.iter().all(|sample| sample.labels.is_some());
        let read_test = read(&back, Split::Test);
        if labels_known {
            prop_assert_eq!(read_test, expected(Split::Test, &test));
        } else {
            let parts = |samples: Vec<(String, Option<Labels>, Option<Mask>)>| {
                samples.into_iter().map(|(id, _, mask)| (id, mask)).collect::<Vec<_>>()
            };
            prop_assert_eq!(parts(read_test), parts(expected(Split::Test, &test)));
        }
    }
}

#[test]
fn what_is_made_up_passes_the_check_in_both_layouts() {
    let out = tempfile::tempdir().unwrap();
    for (train, test) in [(1, 0), (3, 1)] {
        let [made, voc] = ["made", "voc"].map(|name| out.path().join(format!("{name}{test}")));
        synthetic::make(&made, train, test, 7, synthetic::Contents::default(), &go_on).unwrap();
        assert!(check::check(&made).unwrap().is_fine());
        let done = convert(&made, &voc, Layout::VocDevkit, &go_on).unwrap();
        assert_eq!((done.train, done.test, done.masks), (train, test, train + test));
        let report = check::check(&voc).unwrap();
        assert!(report.is_fine(), "{report}");
    }
}

/// A folder of one training image, which is right but for its size.
fn of_size(root: &Path, height: usize, width: usize) {
    let image = Image::new(height, width, vec![90; height * width * 3]).unwrap();
    let sample = Sample { id: "0".into(), labels: Some(vec![true; 20]), image, mask: None };
    write(root, Split::Train, &[sample]);
}

#[test]
fn what_a_jpeg_cannot_hold_is_refused_before_anything_is_written() {
    let out = tempfile::tempdir().unwrap();
    let [npy, voc] = ["npy", "voc"].map(|name| out.path().join(name));
    for (height, width, part) in [(1, 65536, "sides of at most 65535"), (8200, 8200, "pixels")] {
        of_size(&npy, height, width);
        let calls = std::cell::Cell::new(0);
        let count = |_: usize, _: usize| {
            calls.set(calls.get() + 1);
            ControlFlow::Continue(())
        };
        let error = convert(&npy, &voc, Layout::VocDevkit, &count).unwrap_err().to_string();
        assert!(error.contains("the train picture `0` does not fit") && error.contains(part), "{error}");
        assert_eq!((calls.get(), fs::read_dir(out.path()).unwrap().count()), (0, 1));
    }
    for (height, width) in [(2, 20000), (65535, 1)] {
        of_size(&npy, height, width);
        convert(&npy, &voc, Layout::VocDevkit, &go_on).unwrap();
        let report = check::check(&voc).unwrap();
        assert!(report.is_fine() && report.splits[0].images == 1, "{report}");
        fs::remove_dir_all(&voc).unwrap();
    }
}

#[test]
fn a_image_without_a_mask_is_not_lost_among_those_that_have_one() {
    let out = tempfile::tempdir().unwrap();
    let [npy, voc] = ["npy", "voc"].map(|name| out.path().join(name));
    let sample = |id: &str, mask: Option<u8>| Sample {
        id: id.into(),
        labels: Some(vec![false; 20]),
        image: image(4, 4, 7),
        mask: mask.map(|class| Mask::new(4, 4, vec![class; 16]).unwrap()),
    };
    write(&npy, Split::Train, &[sample("a", None), sample("b", Some(3)), sample("c", None)]);
    let done = convert(&npy, &voc, Layout::VocDevkit, &go_on).unwrap();
    assert_eq!((done.train, done.masks), (3, 1));
    let report = check::check(&voc).unwrap();
    assert!(
        report.to_string().contains("2 pictures of Main's lists are not in Segmentation's"),
        "{report}"
    );
    let (all, test) = Source::open(&voc).unwrap().everything().unwrap();
    let ids: Vec<String> = (0..all.len()).map(|i| all.id(i)).collect();
    assert_eq!(
        (ids, test.is_none()),
        (["train_b", "train_a", "train_c"].map(String::from).to_vec(), true)
    );
    assert_eq!(Source::open(&voc).unwrap().training(Task::Segmentation).unwrap().dataset.len(), 1);
}
