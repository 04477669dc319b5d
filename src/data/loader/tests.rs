use super::*;
use crate::data::augment::crop::Crop;
use crate::data::augment::jitter::Jitter;
use crate::data::augment::{AffineOrder, Ranges};
use crate::data::{Image, Labels, Mask};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Images that say which they are, and one that cannot be read.
struct Numbered {
    len: usize,
    broken: Option<usize>,
    reads: AtomicUsize,
}

impl Dataset for Numbered {
    fn len(&self) -> usize {
        self.len
    }
    fn classes(&self) -> crate::data::Classes {
        crate::data::Classes::voc()
    }
    fn id(&self, index: usize) -> String {
        index.to_string()
    }
    fn labels(&self, index: usize) -> Option<Labels> {
        (index != 3).then(|| (0..20).map(|class| class == index % 20).collect())
    }
    fn image(&self, index: usize) -> Result<Image> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.broken == Some(index) {
            return Err(Error::file(format!("img_{index}.npy"), "truncated"));
        }
        let (height, width) = (5 + index % 3, 7);
        let rgb = (0..height * width * 3).map(|i| (i * 31 + index * 7) as u8).collect();
        Image::new(height, width, rgb)
    }
    fn mask(&self, index: usize) -> Result<Option<Mask>> {
        Mask::new(5 + index % 3, 7, vec![(index % 21) as u8; (5 + index % 3) * 7]).map(Some)
    }
}

fn numbered(len: usize, broken: Option<usize>) -> Arc<Numbered> {
    Arc::new(Numbered { len, broken, reads: AtomicUsize::new(0) })
}

fn augmented() -> Transforms {
    let augment = Some((Ranges::default(), AffineOrder::Centred));
    Transforms { augment, masks: true, ..Transforms::plain(8) }
}

type Plain = (Vec<usize>, Vec<f64>, Vec<f64>, Vec<f64>);

fn plain(batch: Result<Batch>) -> Plain {
    let Batch { images, labels, masks, indices, .. } = batch.unwrap();
    (indices, images.to_vec_f64(), labels.to_vec_f64(), masks.unwrap().to_vec_f64())
}

#[test]
fn batches_are_the_same_at_any_number_of_workers_and_from_any_step() {
    let mut loader = Loader::shuffled(numbered(23, None), augmented(), 4, 9);
    let one: Vec<Plain> = loader.epoch(2, 0).unwrap().map(plain).collect();
    assert_eq!(one.len(), 6);
    assert_eq!(one.iter().map(|batch| batch.0.len()).collect::<Vec<_>>(), [4, 4, 4, 4, 4, 3]);
    for workers in [2, 3] {
        loader.workers = workers;
        for first in [0, 1, 5, 6] {
            let got: Vec<Plain> = loader.epoch(2, first).unwrap().map(plain).collect();
            assert!(got == one[first..], "{workers} workers from step {first}");
        }
    }
    let mut seen: Vec<usize> = one.iter().flat_map(|batch| batch.0.clone()).collect();
    assert_ne!(seen, loader.order(3).concat());
    seen.sort_unstable();
    assert_eq!(seen, (0..23).collect::<Vec<_>>());
    // A sample that comes again in another epoch is augmented anew.
    let find = |batches: &[Plain]| {
        let (batch, at) = batches
            .iter()
            .find_map(|batch| batch.0.iter().position(|&i| i == 5).map(|at| (batch, at)))
            .unwrap();
        batch.1[at * 192..][..192].to_vec()
    };
    let other: Vec<Plain> = loader.epoch(3, 0).unwrap().map(plain).collect();
    assert_ne!(find(&one), find(&other));
}

#[test]
fn crops_and_colours_are_drawn_anew_each_epoch_and_stay_in_range() {
    let jitter = Some(Jitter { brightness: 0.4, contrast: 0.4, saturation: 0.4 });
    let transforms = Transforms { crop: Some(Crop::SEGMENT), jitter, ..augmented() };
    let data = numbered(4, None);
    let made = |epoch| plain(batch(&*data, &transforms, &[0, 1, 2], 5, epoch));
    assert!(made(0) == made(0) && made(0).1 != made(1).1 && made(0).3 != made(1).3);
    assert!(made(0).1.iter().all(|value| (0.0..=1.0).contains(value)));
    // A sample's mask holds its own class and void, wherever the square lies.
    for (i, class) in [0.0, 1.0, 2.0].into_iter().enumerate() {
        let mask = made(0).3[i * 64..][..64].to_vec();
        assert!(mask.iter().all(|&value| value == class || value == 255.0), "{mask:?}");
        assert!(mask.contains(&class));
    }
    let unchanged = Transforms {
        jitter: Some(Jitter { brightness: 0.0, contrast: 0.0, saturation: 0.0 }),
        ..augmented()
    };
    assert!(
        plain(batch(&*data, &unchanged, &[1], 5, 0)) == plain(batch(&*data, &augmented(), &[1], 5, 0))
    );
    let wrong = Transforms { crop: Some(Crop::Scale { low: 3.0, high: 1.0 }), ..augmented() };
    assert!(batch(&*data, &wrong, &[1], 5, 0).is_err());
}

#[test]
fn balanced_epochs_show_rare_classes_as_often_as_frequent_ones() {
    /// Class 0 in all but every tenth sample, which has class 1.
    struct Skewed;
    impl Dataset for Skewed {
        fn len(&self) -> usize {
            100
        }
        fn classes(&self) -> crate::data::Classes {
            crate::data::Classes::voc()
        }
        fn id(&self, index: usize) -> String {
            index.to_string()
        }
        fn labels(&self, index: usize) -> Option<Labels> {
            Some((0..20).map(|class| class == index.is_multiple_of(10) as usize).collect())
        }
        fn image(&self, index: usize) -> Result<Image> {
            Image::new(6, 6, (0..108).map(|i| (i * 7 + index) as u8).collect())
        }
        fn mask(&self, _: usize) -> Result<Option<Mask>> {
            Mask::new(6, 6, vec![1; 36]).map(Some)
        }
    }
    let loader = Loader {
        sampling: Sampling::Balanced,
        workers: 2,
        ..Loader::shuffled(Arc::new(Skewed), augmented(), 8, 3)
    };
    let order = loader.order(0).concat();
    let rare = order.iter().filter(|&&i| i % 10 == 0).count();
    assert_eq!((order.len(), rare), (100, 50));
    // Each of the ten comes five times, each of the ninety at most once.
    let times = |i: usize| order.iter().filter(|&&other| other == i).count();
    assert!((0..100).all(|i| if i % 10 == 0 { times(i) == 5 } else { times(i) <= 1 }));
    assert_eq!(order, loader.order(0).concat());
    assert_ne!(order, loader.order(1).concat());
    // One sample's five times look different from each other.
    let mut seen: Vec<Vec<u64>> = Vec::new();
    for made in loader.epoch(0, 0).unwrap().map(plain) {
        for (at, _) in made.0.iter().enumerate().filter(|(_, i)| **i == 10) {
            seen.push(made.1[at * 192..][..192].iter().map(|v| v.to_bits()).collect());
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[test]
fn labels_that_are_not_known_are_minus_one() {
    let made = batch(&*numbered(4, None), &Transforms::plain(4), &[3, 2], 0, 0).unwrap();
    let labels = made.labels.to_vec_f64();
    assert_eq!(labels[..20], [-1.0; 20]);
    assert_eq!((labels[20 + 2], labels[20..].iter().sum::<f64>()), (1.0, 1.0));
    assert!(made.masks.is_none());
}

#[test]
fn a_sample_that_cannot_be_read_is_an_error_in_its_own_step() {
    let mut loader = Loader::new(numbered(12, Some(6)), Transforms::plain(4), 3);
    loader.workers = 2;
    let results: Vec<_> = loader.epoch(0, 0).unwrap().collect();
    let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, true, false, true]);
    let error = results[2].as_ref().unwrap_err().to_string();
    assert_eq!(error, "img_6.npy: truncated");
}

#[test]
fn workers_stay_within_the_prefetch_and_end_when_the_epoch_is_dropped() {
    let data = numbered(1000, None);
    let mut loader = Loader::new(data.clone(), Transforms::plain(4), 1);
    (loader.workers, loader.prefetch) = (2, 3);
    let mut batches = loader.epoch(0, 10).unwrap();
    assert_eq!(batches.next().unwrap().unwrap().indices, [10]);
    assert_eq!(batches.step(), 11);
    drop(batches); // joins the threads: nothing is read after this
    let reads = data.reads.load(Ordering::Relaxed);
    assert!((1..=4).contains(&reads), "{reads} pictures read");
    assert_eq!(Arc::strong_count(&data), 2);
}

#[test]
fn the_last_batch_can_be_dropped() {
    let mut loader = Loader::new(numbered(10, None), Transforms::plain(4), 4);
    assert_eq!((loader.steps(), loader.order(0).len()), (3, 3));
    loader.drop_last = true;
    assert_eq!((loader.steps(), loader.epoch(0, 0).unwrap().count()), (2, 2));
    loader.batch_size = 0;
    assert!(loader.epoch(0, 0).is_err());
}

#[test]
fn a_panic_in_a_worker_reaches_the_consumer() {
    struct Panics;
    impl Dataset for Panics {
        fn len(&self) -> usize {
            1
        }
        fn classes(&self) -> crate::data::Classes {
            crate::data::Classes::voc()
        }
        fn id(&self, _: usize) -> String {
            String::new()
        }
        fn labels(&self, _: usize) -> Option<Labels> {
            None
        }
        fn image(&self, _: usize) -> Result<Image> {
            panic!("a bug in a data set")
        }
        fn mask(&self, _: usize) -> Result<Option<Mask>> {
            Ok(None)
        }
    }
    let mut batches = Loader::new(Arc::new(Panics), Transforms::plain(4), 1).epoch(0, 0).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| batches.next())).is_err());
}
