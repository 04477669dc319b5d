//! Batches, made ahead of time by threads of their own.
//!
//! A batch depends on (seed, epoch, its samples) alone: the order is a permutation keyed by
//! (seed, epoch), a sample's augmentation is keyed by (seed, epoch, sample). So the number of
//! workers changes nothing, and an epoch can be taken up at any step.

use crate::data::augment::crop;
use crate::data::augment::jitter::ColorJitter;
use crate::data::augment::{self, Parameters, Warp};
use crate::data::class_weights::sample_weights;
use crate::data::image;
use crate::data::transforms::Transforms;
use crate::data::{Dataset, VOID, mask_fits};
use crate::error::{Error, Result};
use crate::pool::Buffer;
use crate::random::{Stream, domain};
use crate::tensor::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Some samples as tensors on the CPU, f32: what one step trains on or one pass scores.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[N, size, size, 3]`, preprocessed, unless `warp` is still to be done.
    pub images: Tensor,
    /// `[N, classes]`: 0 or 1, and −1 in the rows of samples whose labels are not known.
    pub labels: Tensor,
    /// `[N, size, size]`, if the recipe wants them: the class of each pixel, 0 for the background,
    /// 255 for void.
    pub masks: Option<Tensor>,
    /// The affine warp of images and masks that is left to a device; None where they are complete.
    pub warp: Option<Warp>,
    /// The samples' numbers in the data set, N of them.
    pub indices: Vec<usize>,
}

impl Batch {
    /// What a network is to say of the images: masks where it segments, else labels. An error where
    /// labels are not known, or the recipe wanted no masks.
    ///
    /// ```
    /// use atrous::data::loader::batch;
    /// use atrous::data::synthetic::Synthetic;
    /// use atrous::data::transforms::Transforms;
    ///
    /// let batch = batch(&Synthetic::train(1, 2), &Transforms::plain(8), &[0, 1], 1, 0)?;
    /// assert_eq!(batch.targets(false)?.shape()[..], [2, 20]); // labels
    /// assert!(batch.targets(true).is_err()); // masks, which the recipe did not ask for
    /// # Ok::<(), atrous::Error>(())
    /// ```
    pub fn targets(&self, segments: bool) -> Result<&Tensor> {
        match (segments, &self.masks) {
            (false, _) => match self.labels.values::<f32>().iter().position(|&label| label < 0.0) {
                None => Ok(&self.labels),
                Some(at) => {
                    let sample = self.indices[at / self.labels.shape()[1]];
                    Err(Error::argument("batch", format!("the labels of sample {sample} are not known")))
                }
            },
            (true, Some(masks)) => Ok(masks),
            (true, None) => Err(Error::argument("batch", "it was made without masks")),
        }
    }
}

/// Makes one batch, here and now, each sample as at its first time in the epoch. An error where a
/// sample cannot be read, is not in the data set, or has no mask where the recipe wants one.
///
/// ```
/// use atrous::data::Dataset;
/// use atrous::data::loader::batch;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::data::transforms::{Augment, Transforms};
///
/// let dataset = Synthetic::train(1, 4);
/// let plain = Transforms { masks: true, ..Transforms::plain(16) };
/// let first = batch(&dataset, &plain, &[2, 0], 1, 0)?;
/// assert_eq!(first.images.shape()[..], [2, 16, 16, 3]);
/// assert_eq!(first.masks.unwrap().shape()[..], [2, 16, 16]);
/// let flags: Vec<f64> = dataset.labels(2).unwrap().iter().map(|&set| set as u8 as f64).collect();
/// assert_eq!(first.labels.to_vec_f64()[..20], flags);
///
/// // The same epoch gives the same bits, another one other random changes.
/// let augmented = Transforms::plain(16).augmented(Augment::Keras);
/// let images = batch(&dataset, &augmented, &[2], 1, 0)?.images.to_vec_f64();
/// assert_eq!(batch(&dataset, &augmented, &[2], 1, 0)?.images.to_vec_f64(), images);
/// assert_ne!(batch(&dataset, &augmented, &[2], 1, 1)?.images.to_vec_f64(), images);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn batch(
    dataset: &dyn Dataset,
    transforms: &Transforms,
    indices: &[usize],
    seed: u64,
    epoch: u64,
) -> Result<Batch> {
    let draws: Vec<Draw> = indices.iter().map(|&index| Draw { index, time: 0 }).collect();
    make(dataset, transforms, &draws, seed, epoch)
}

/// A sample's number, and how often it came before in the epoch: another time it looks otherwise.
#[derive(Clone, Copy)]
struct Draw {
    index: usize,
    time: u64,
}

fn make(
    dataset: &dyn Dataset,
    transforms: &Transforms,
    indices: &[Draw],
    seed: u64,
    epoch: u64,
) -> Result<Batch> {
    let (n, size) = (indices.len(), transforms.size);
    if size == 0 || n == 0 {
        let message = format!("expected samples and a size above zero, got {n} samples of size {size}");
        return Err(Error::argument("batch", message));
    }
    transforms.check()?;
    let mut images = Buffer::<f32>::new(n * size * size * 3);
    let mut masks = Buffer::<f32>::new(if transforms.masks { n * size * size } else { 0 });
    let classes = dataset.classes().len();
    let mut labels = Buffer::<f32>::filled(n * classes, -1.0);
    let later = transforms.warp_later && transforms.crop.is_none() && transforms.augment.is_some();
    let mut matrices = Vec::new();
    for (i, &Draw { index, time }) in indices.iter().enumerate() {
        if index >= dataset.len() {
            let message = format!("expected samples below {}, got {index}", dataset.len());
            return Err(Error::argument("batch", message));
        }
        let image = dataset.image(index)?;
        // No data set has 2^40 samples, so that each time has numbers of its own.
        let sample = index as u64 | time << 40;
        let matrix = transforms.augment.map(|(ranges, rule)| {
            let parameters = Parameters::draw(&ranges, seed, epoch, sample);
            augment::matrix(&parameters, size, size, rule)
        });
        let crop = transforms.crop.map(|crop| {
            let crop = crop.draw([image.height, image.width], size, seed, epoch, sample);
            matrix.map_or(crop, |matrix| crop::compose(&crop, &matrix))
        });
        let colour = transforms.jitter.map(|jitter| jitter.draw(&image, seed, epoch, sample));
        let colour = colour.unwrap_or(ColorJitter::IDENTITY);
        let paint = |pixels: &mut [f32]| colour.apply(pixels);
        let mut values = match &crop {
            Some(crop) => crop::sample(&image, crop, size, transforms.fill, transforms.antialias, paint),
            None => image::fit_changed(&image, size, transforms.fit, transforms.antialias, paint)?,
        };
        match (&matrix, &crop) {
            (Some(matrix), None) if later => matrices.push(*matrix),
            (Some(matrix), None) => values = augment::warp(&values, [size, size, 3], matrix),
            _ => {}
        }
        if !later {
            transforms.preprocess.apply(&mut values);
        }
        images[i * values.len()..][..values.len()].copy_from_slice(&values);
        if transforms.masks {
            let mask = dataset.mask(index)?.ok_or_else(|| {
                Error::argument(
                    "batch",
                    format!("expected a mask of sample `{}`, got none", dataset.id(index)),
                )
            })?;
            mask_fits(dataset, index, &mask, &image)?;
            let mask = match (&crop, &matrix) {
                (Some(crop), _) => crop::sample_mask(&mask, crop, size),
                (None, matrix) => {
                    let by = transforms.mask_resize;
                    let mask = image::fit_mask_by(&mask, size, transforms.fit, VOID, by)?;
                    match matrix {
                        Some(matrix) if !later => augment::warp_mask(&mask, matrix),
                        _ => mask,
                    }
                }
            };
            let out = &mut masks[i * size * size..][..size * size];
            out.iter_mut().zip(&mask.classes).for_each(|(y, &class)| *y = class as f32);
        }
        if let Some(known) = dataset.labels(index) {
            let row = &mut labels[i * classes..][..classes];
            row.iter_mut().zip(known).for_each(|(y, set)| *y = set as u8 as f32);
        }
    }
    Ok(Batch {
        images: Tensor::from_buffer(images, [n, size, size, 3]),
        labels: Tensor::from_buffer(labels, [n, classes]),
        masks: transforms.masks.then(|| Tensor::from_buffer(masks, [n, size, size])),
        warp: later.then(|| Warp::new(&matrices, transforms.preprocess)).transpose()?,
        indices: indices.iter().map(|draw| draw.index).collect(),
    })
}

/// Which samples an epoch has, and in which order.
///
/// ```
/// use atrous::data::loader::{Loader, Sampling};
/// use atrous::data::{Dataset, Image, Labels, Mask};
/// # use atrous::data::transforms::Transforms;
/// # use atrous::error::Result;
/// use std::sync::Arc;
///
/// /// Nine aeroplanes and, last, a bicycle.
/// struct Rare;
/// # impl Dataset for Rare {
/// #     fn len(&self) -> usize {
/// #         10
/// #     }
/// #     fn classes(&self) -> atrous::data::Classes {
/// #         atrous::data::Classes::voc()
/// #     }
/// #     fn id(&self, index: usize) -> String {
/// #         index.to_string()
/// #     }
/// #     fn labels(&self, index: usize) -> Option<Labels> {
/// #         Some((0..20).map(|class| class == (index == 9) as usize).collect())
/// #     }
/// #     fn image(&self, _index: usize) -> Result<Image> {
/// #         Image::new(1, 1, vec![0; 3])
/// #     }
/// #     fn mask(&self, _index: usize) -> Result<Option<Mask>> {
/// #         Ok(None)
/// #     }
/// # }
///
/// let loader = Loader::new(Arc::new(Rare), Transforms::plain(1), 10);
/// let loader = Loader { sampling: Sampling::Balanced, ..loader };
/// let indices = loader.epoch(0, 0)?.next().unwrap()?.indices;
/// // Ten as ever, half of them the one bicycle.
/// let bicycles = indices.iter().filter(|&&index| index == 9).count();
/// assert_eq!((indices.len(), bicycles), (10, 5));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampling {
    /// Each once, in the order of the indices.
    #[default]
    Sequential,
    /// Each once, in a new order each epoch.
    Shuffle,
    /// As many as there are, but those of rare classes oftener (systematic sampling): a sample that
    /// should come 2.3 times comes two or three times. Each time it is augmented anew.
    Balanced,
}

/// What to load, and how.
///
/// ```
/// use atrous::data::loader::Loader;
/// use atrous::data::synthetic::Synthetic;
/// use atrous::data::transforms::Transforms;
/// use std::sync::Arc;
///
/// let dataset = Arc::new(Synthetic::train(1, 5));
/// let loader = Loader { workers: 2, ..Loader::shuffled(dataset.clone(), Transforms::plain(8), 2, 7) };
/// assert_eq!(loader.steps(), 3); // 2, 2 and 1
/// let mut seen = Vec::new();
/// for batch in loader.epoch(0, 0)? {
///     seen.push(batch?.indices);
/// }
/// // Taken up at another step it goes on as it would have.
/// let mut rest = loader.epoch(0, 1)?;
/// assert_eq!(rest.step(), 1);
/// assert_eq!(rest.next().unwrap()?.indices, seen[1]);
/// // Each sample once.
/// let mut all = seen.concat();
/// all.sort_unstable();
/// assert_eq!(all, [0, 1, 2, 3, 4]);
///
/// let in_order = Loader { drop_last: true, ..Loader::new(dataset, Transforms::plain(8), 2) };
/// assert_eq!((in_order.steps(), &in_order.indices[..]), (2, &[0, 1, 2, 3, 4][..]));
/// # Ok::<(), atrous::Error>(())
/// ```
#[derive(Clone)]
pub struct Loader {
    /// Where the samples come from; shared with the worker threads.
    pub dataset: Arc<dyn Dataset>,
    /// Numbers in the data set of the samples of an epoch.
    pub indices: Vec<usize>,
    /// How a sample becomes numbers.
    pub transforms: Transforms,
    /// Samples in a batch, above zero.
    pub batch_size: usize,
    /// The order of an epoch, and how often a sample comes.
    pub sampling: Sampling,
    /// Leave out a last batch that is not full, as Keras' and PyTorch's `drop_last`.
    pub drop_last: bool,
    /// Decides order and augmentation, together with the epoch.
    pub seed: u64,
    /// Threads that make batches, above zero. Their number changes no bit.
    pub workers: usize,
    /// Batches that may be finished and not yet taken, above zero.
    pub prefetch: usize,
}

impl Loader {
    /// All samples, in order, the last batch as small as it comes out.
    pub fn new(dataset: Arc<dyn Dataset>, transforms: Transforms, batch_size: usize) -> Self {
        let indices = (0..dataset.len()).collect();
        Loader {
            dataset,
            indices,
            transforms,
            batch_size,
            sampling: Sampling::Sequential,
            drop_last: false,
            seed: 0,
            workers: 1,
            prefetch: 4,
        }
    }

    /// All samples, in a new order each epoch.
    pub fn shuffled(
        dataset: Arc<dyn Dataset>,
        transforms: Transforms,
        batch_size: usize,
        seed: u64,
    ) -> Self {
        Loader { sampling: Sampling::Shuffle, seed, ..Self::new(dataset, transforms, batch_size) }
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
    pub(crate) fn order(&self, epoch: u64) -> Vec<Vec<usize>> {
        let order = match self.sampling {
            Sampling::Sequential => self.indices.clone(),
            Sampling::Shuffle => {
                let mut stream = Stream::new(self.seed, &[domain::SHUFFLE, epoch]);
                let order = stream.permutation(self.indices.len());
                order.into_iter().map(|i| self.indices[i]).collect()
            }
            Sampling::Balanced => self.balanced(epoch),
        };
        order.chunks(self.batch_size.max(1)).take(self.steps()).map(<[usize]>::to_vec).collect()
    }

    /// Systematic sampling: in a random order, a sample of weight w takes a stretch of w, and one
    /// comes for each of n evenly spaced points.
    fn balanced(&self, epoch: u64) -> Vec<usize> {
        let n = self.indices.len();
        let known =
            self.indices.iter().map(|&i| (i < self.dataset.len()).then(|| self.dataset.labels(i)));
        let weights = sample_weights(&known.map(Option::flatten).collect::<Vec<_>>());
        let total: f64 = weights.iter().sum();
        let mut stream = Stream::new(self.seed, &[domain::SHUFFLE, epoch, 1]);
        let offset = stream.unit() as f64;
        let (mut order, mut reached) = (Vec::with_capacity(n), 0.0);
        for i in stream.permutation(n) {
            reached += weights[i] / total * n as f64;
            while order.len() < n && order.len() as f64 + offset < reached {
                order.push(self.indices[i]);
            }
        }
        // Rounding may leave the last point beyond the end.
        while let Some(&last) = order.last().filter(|_| order.len() < n) {
            order.push(last);
        }
        stream.permutation(n).into_iter().map(|i| order[i]).collect()
    }

    /// An epoch's samples with how often each came before.
    fn draws(&self, epoch: u64) -> Vec<Vec<Draw>> {
        let mut times = HashMap::new();
        let mut draw = |index: usize| {
            let next = times.entry(index).or_insert(0);
            *next += 1;
            Draw { index, time: *next - 1 }
        };
        self.order(epoch).into_iter().map(|step| step.into_iter().map(&mut draw).collect()).collect()
    }

    /// Starts the threads; the batches come from `first_step` on, in order, to the epoch's end. An
    /// error where batch size, workers or prefetch are zero, or a thread cannot be started.
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
            Arc::new(Shared { state, changed, order: self.draws(epoch), loader: self.clone(), epoch });
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
    order: Vec<Vec<Draw>>,
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
        let Loader { dataset, transforms, seed, prefetch, .. } = &self.loader;
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
                make(&**dataset, transforms, &self.order[step], *seed, self.epoch)
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
mod tests;
