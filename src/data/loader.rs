//! Batches, made ahead of time by threads of their own.
//!
//! A batch depends on (seed, epoch, its samples) alone: the order is a permutation keyed by
//! (seed, epoch), a sample's augmentation is keyed by (seed, epoch, sample). So the number of
//! workers changes nothing, and an epoch can be taken up at any step.

use crate::data::augment::{self, Parameters, Ranges, Rule};
use crate::data::image::{self, Fit, Preprocess};
use crate::data::{CLASSES, Dataset, VOID};
use crate::error::{Error, Result};
use crate::pool::Buffer;
use crate::random::{Stream, domain};
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// How a sample becomes numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Height and width of the network's input.
    pub size: usize,
    pub fit: Fit,
    pub augment: Option<(Ranges, Rule)>,
    pub preprocess: Preprocess,
    /// Read masks too, for segmentation.
    pub masks: bool,
}

impl Recipe {
    /// Pictures padded to a square, 0 to 1, nothing random.
    pub fn plain(size: usize) -> Self {
        Recipe { size, fit: Fit::Pad, augment: None, preprocess: Preprocess::Unit, masks: false }
    }
}

#[derive(Clone, Debug)]
pub struct Batch {
    /// [N, size, size, 3]
    pub images: Tensor,
    /// [N, 20]: 0 or 1, and −1 in the rows of samples whose labels are not known.
    pub labels: Tensor,
    /// [N, size, size], if the recipe wants them: the class of each pixel, 0 to 20, 255 void.
    pub masks: Option<Tensor>,
    /// The samples' numbers in the data set.
    pub indices: Vec<usize>,
}

/// Makes one batch, here and now.
pub fn batch(
    dataset: &dyn Dataset,
    recipe: &Recipe,
    indices: &[usize],
    seed: u64,
    epoch: u64,
) -> Result<Batch> {
    let (n, size) = (indices.len(), recipe.size);
    if size == 0 || n == 0 {
        let message = format!("expected samples and a size above zero, got {n} samples of size {size}");
        return Err(Error::argument("batch", message));
    }
    if let Some((ranges, _)) = &recipe.augment {
        ranges.check()?;
    }
    let mut images = Buffer::<f32>::new(n * size * size * 3);
    let mut masks = Buffer::<f32>::new(if recipe.masks { n * size * size } else { 0 });
    let mut labels = Buffer::<f32>::filled(n * CLASSES.len(), -1.0);
    for (i, &index) in indices.iter().enumerate() {
        if index >= dataset.len() {
            let message = format!("expected samples below {}, got {index}", dataset.len());
            return Err(Error::argument("batch", message));
        }
        let picture = dataset.picture(index)?;
        let matrix = recipe.augment.map(|(ranges, rule)| {
            let parameters = Parameters::draw(&ranges, seed, epoch, index as u64);
            augment::matrix(&parameters, size, size, rule)
        });
        let mut values = image::fit(&picture, size, recipe.fit)?;
        if let Some(matrix) = &matrix {
            values = augment::warp(&values, [size, size, 3], matrix);
        }
        recipe.preprocess.apply(&mut values);
        images[i * values.len()..][..values.len()].copy_from_slice(&values);
        if recipe.masks {
            let mask = dataset.mask(index)?.ok_or_else(|| {
                Error::argument(
                    "batch",
                    format!("expected a mask of sample `{}`, got none", dataset.id(index)),
                )
            })?;
            mask.fits(picture.height, picture.width).map_err(|message| {
                match dataset.mask_file(index) {
                    Some(path) => Error::file(path, message),
                    None => {
                        let message = format!("the mask of sample `{}`: {message}", dataset.id(index));
                        Error::argument("batch", message)
                    }
                }
            })?;
            let mut mask = image::fit_mask(&mask, size, recipe.fit, VOID)?;
            if let Some(matrix) = &matrix {
                mask = augment::warp_mask(&mask, matrix);
            }
            let out = &mut masks[i * size * size..][..size * size];
            out.iter_mut().zip(&mask.classes).for_each(|(y, &class)| *y = class as f32);
        }
        if let Some(known) = dataset.labels(index) {
            let row = &mut labels[i * CLASSES.len()..][..CLASSES.len()];
            row.iter_mut().zip(known).for_each(|(y, set)| *y = set as u8 as f32);
        }
    }
    Ok(Batch {
        images: Tensor::from_buffer(images, [n, size, size, 3]),
        labels: Tensor::from_buffer(labels, [n, CLASSES.len()]),
        masks: recipe.masks.then(|| Tensor::from_buffer(masks, [n, size, size])),
        indices: indices.to_vec(),
    })
}

/// What to load, and how.
#[derive(Clone)]
pub struct Loader {
    pub dataset: Arc<dyn Dataset>,
    /// The samples of an epoch.
    pub indices: Vec<usize>,
    pub recipe: Recipe,
    pub batch_size: usize,
    /// A new order each epoch.
    pub shuffle: bool,
    /// Leave out a last batch that is not full.
    pub drop_last: bool,
    pub seed: u64,
    pub workers: usize,
    /// Batches that may be finished and not yet taken.
    pub prefetch: usize,
}

impl Loader {
    /// All samples, in order, the last batch as small as it comes out.
    pub fn new(dataset: Arc<dyn Dataset>, recipe: Recipe, batch_size: usize) -> Self {
        let indices = (0..dataset.len()).collect();
        Loader {
            dataset,
            indices,
            recipe,
            batch_size,
            shuffle: false,
            drop_last: false,
            seed: 0,
            workers: 1,
            prefetch: 4,
        }
    }

    /// All samples, in a new order each epoch.
    pub fn shuffled(dataset: Arc<dyn Dataset>, recipe: Recipe, batch_size: usize, seed: u64) -> Self {
        Loader { shuffle: true, seed, ..Self::new(dataset, recipe, batch_size) }
    }

    /// Batches in an epoch.
    pub fn steps(&self) -> usize {
        match (self.batch_size, self.drop_last) {
            (0, _) => 0,
            (size, true) => self.indices.len() / size,
            (size, false) => self.indices.len().div_ceil(size),
        }
    }

    /// The samples of each step of an epoch.
    pub fn order(&self, epoch: u64) -> Vec<Vec<usize>> {
        let order = if self.shuffle {
            let mut stream = Stream::new(self.seed, &[domain::SHUFFLE, epoch]);
            let order = stream.permutation(self.indices.len());
            order.into_iter().map(|i| self.indices[i]).collect()
        } else {
            self.indices.clone()
        };
        order.chunks(self.batch_size.max(1)).take(self.steps()).map(<[usize]>::to_vec).collect()
    }

    /// Starts the threads; the batches come from `first_step` on, in order, to the epoch's end.
    pub fn epoch(&self, epoch: u64, first_step: usize) -> Result<Batches> {
        if self.batch_size == 0 || self.workers == 0 || self.prefetch == 0 {
            return Err(Error::argument(
                "loader",
                format!(
                    "expected a batch size, workers and prefetch above zero, got {}, {} and {}",
                    self.batch_size, self.workers, self.prefetch
                ),
            ));
        }
        let (state, changed) = (
            Mutex::new(State { next: first_step, taken: first_step, ..State::default() }),
            Condvar::new(),
        );
        let shared =
            Arc::new(Shared { state, changed, order: self.order(epoch), loader: self.clone(), epoch });
        let mut batches = Batches { shared, at: first_step, threads: Vec::new() };
        for worker in 0..self.workers {
            let shared = batches.shared.clone();
            let thread = thread::Builder::new().name(format!("loader {worker}"));
            let thread = thread.spawn(move || shared.work());
            batches.threads.push(thread.map_err(|error| Error::argument("loader", error))?);
        }
        Ok(batches)
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    order: Vec<Vec<usize>>,
    loader: Loader,
    epoch: u64,
}

#[derive(Default)]
struct State {
    /// The next step that nobody has begun.
    next: usize,
    /// The next step that will be handed out.
    taken: usize,
    /// Finished steps; the outer error is a worker's panic.
    ready: BTreeMap<usize, thread::Result<Result<Batch>>>,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let Loader { dataset, recipe, seed, prefetch, .. } = &self.loader;
        loop {
            let mut state = self.lock();
            // Far enough ahead: wait until one is taken.
            while !state.stop && state.next >= state.taken + prefetch {
                state = self.wait(state);
            }
            let step = state.next;
            if state.stop || step >= self.order.len() {
                return;
            }
            state.next += 1;
            drop(state);
            let made = catch_unwind(AssertUnwindSafe(|| {
                batch(&**dataset, recipe, &self.order[step], *seed, self.epoch)
            }));
            self.lock().ready.insert(step, made);
            self.changed.notify_all();
        }
    }
}

/// The batches of one epoch. Dropping it stops its threads.
pub struct Batches {
    shared: Arc<Shared>,
    at: usize,
    threads: Vec<JoinHandle<()>>,
}

impl Batches {
    /// The step that `next` will return.
    pub fn step(&self) -> usize {
        self.at
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.at >= self.shared.order.len() {
            return None;
        }
        let mut state = self.shared.lock();
        let made = loop {
            match state.ready.remove(&self.at) {
                Some(made) => break made,
                None => state = self.shared.wait(state),
            }
        };
        self.at += 1;
        state.taken = self.at;
        drop(state);
        self.shared.changed.notify_all();
        match made {
            Ok(batch) => Some(batch),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.shared.order.len().saturating_sub(self.at);
        (left, Some(left))
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches its panics; there is nothing left to report here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Labels, Mask, Picture};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Pictures that say which they are, and one that cannot be read.
    struct Numbered {
        len: usize,
        broken: Option<usize>,
        reads: AtomicUsize,
    }

    impl Dataset for Numbered {
        fn len(&self) -> usize {
            self.len
        }
        fn id(&self, index: usize) -> String {
            index.to_string()
        }
        fn labels(&self, index: usize) -> Option<Labels> {
            (index != 3).then(|| std::array::from_fn(|class| class == index % 20))
        }
        fn picture(&self, index: usize) -> Result<Picture> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if self.broken == Some(index) {
                return Err(Error::file(format!("img_{index}.npy"), "truncated"));
            }
            let (height, width) = (5 + index % 3, 7);
            let rgb = (0..height * width * 3).map(|i| (i * 31 + index * 7) as u8).collect();
            Picture::new(height, width, rgb)
        }
        fn mask(&self, index: usize) -> Result<Option<Mask>> {
            Mask::new(5 + index % 3, 7, vec![(index % 21) as u8; (5 + index % 3) * 7]).map(Some)
        }
    }

    fn numbered(len: usize, broken: Option<usize>) -> Arc<Numbered> {
        Arc::new(Numbered { len, broken, reads: AtomicUsize::new(0) })
    }

    fn augmented() -> Recipe {
        let augment = Some((Ranges::default(), Rule::Centred));
        Recipe { augment, masks: true, ..Recipe::plain(8) }
    }

    type Plain = (Vec<usize>, Vec<f64>, Vec<f64>, Vec<f64>);

    fn plain(batch: Result<Batch>) -> Plain {
        let Batch { images, labels, masks, indices } = batch.unwrap();
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
        // The same sample in another epoch is augmented anew.
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
    fn labels_that_are_not_known_are_minus_one() {
        let made = batch(&*numbered(4, None), &Recipe::plain(4), &[3, 2], 0, 0).unwrap();
        let labels = made.labels.to_vec_f64();
        assert_eq!(labels[..20], [-1.0; 20]);
        assert_eq!((labels[20 + 2], labels[20..].iter().sum::<f64>()), (1.0, 1.0));
        assert!(made.masks.is_none());
    }

    #[test]
    fn a_sample_that_cannot_be_read_is_an_error_in_its_own_step() {
        let mut loader = Loader::new(numbered(12, Some(6)), Recipe::plain(4), 3);
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
        let mut loader = Loader::new(data.clone(), Recipe::plain(4), 1);
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
        let mut loader = Loader::new(numbered(10, None), Recipe::plain(4), 4);
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
            fn id(&self, _: usize) -> String {
                String::new()
            }
            fn labels(&self, _: usize) -> Option<Labels> {
                None
            }
            fn picture(&self, _: usize) -> Result<Picture> {
                panic!("a bug in a data set")
            }
            fn mask(&self, _: usize) -> Result<Option<Mask>> {
                Ok(None)
            }
        }
        let mut batches = Loader::new(Arc::new(Panics), Recipe::plain(4), 1).epoch(0, 0).unwrap();
        assert!(catch_unwind(AssertUnwindSafe(|| batches.next())).is_err());
    }
}
