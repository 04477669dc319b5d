//! Threads. Work is cut into pieces by its shape alone, never by the number of threads, so the
//! same bits come out at any thread count.

use crate::error::{Error, Result};
use crate::spans;
use rayon::prelude::*;
use rayon::{ThreadPoolBuildError, ThreadPoolBuilder};
use std::marker::PhantomData;
use std::num::NonZero;
use std::sync::Once;

/// Starts the threads of the process: so many, or as many as there are cores for it. May be called once,
/// before any operator runs.
///
/// Where each thread has a core, it stays there. Left to itself the system at times woke a thread on the
/// core of the one that had work for it, and kept them both there for as long as a benchmark took, with the
/// other core idle: one process in four was half as fast, in loops of about a millisecond.
///
/// [`with`] is for a number of threads that holds only for a while.
///
/// ```
/// use atrous::backend::cpu::threads;
///
/// assert!(threads::set(Some(threads::most() + 1)).is_err());
/// threads::set(Some(2))?;
/// assert_eq!(threads::count(), 2);
/// assert!(threads::set(Some(1)).is_err()); // it was called
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn set(threads: Option<usize>) -> Result<()> {
    let cores = affinity::cores();
    let pool = threads.map_or_else(|| Ok(ThreadPoolBuilder::new()), pool_of)?;
    pool.start_handler(move |index| {
        if cores.len() == count() {
            affinity::stay_on(cores[index]);
        }
    })
    .build_global()
    .map_err(refused)
}

/// The cores there are for this process.
fn machine() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Threads at most: beyond a few a core, they do nothing but wait for each other and take memory.
///
/// [`set`] has an example.
pub fn most() -> usize {
    const A_CORE: usize = 16;
    A_CORE * machine()
}

/// A pool to be, of so many threads.
fn pool_of(threads: usize) -> Result<ThreadPoolBuilder> {
    if !(1..=most()).contains(&threads) {
        let (most, cores) = (most(), machine());
        let message =
            format!("expected 1 to {most} on this machine's {cores} cores (`--threads`), got {threads}");
        return Err(Error::argument("threads", message));
    }
    Ok(ThreadPoolBuilder::new().num_threads(threads))
}

fn refused(error: ThreadPoolBuildError) -> Error {
    Error::argument("threads", format!("they cannot be started: {error}; fewer may be (`--threads 1`)"))
}

/// Starts the threads if nobody has.
fn start() {
    static START: Once = Once::new();
    if rayon::current_thread_index().is_none() {
        // (An error says that they have been started.)
        START.call_once(|| drop(set(None)));
    }
}

/// The number of threads that operators called from here run on.
///
/// [`with`] has an example.
pub fn count() -> usize {
    start();
    rayon::current_num_threads()
}

/// Runs `f` with operators on `threads` threads of their own.
///
/// ```
/// use atrous::backend::cpu::threads;
/// use atrous::prelude::*;
///
/// let x = Tensor::rand([300, 300], 7);
/// let product = || x.matmul(&x).map(|y| y.to_vec_f64());
/// let alone = threads::with(1, || {
///     assert_eq!(threads::count(), 1);
///     product()
/// })??;
/// assert_eq!(alone, product()?); // to the bit, on any number of threads
/// # Ok::<(), Error>(())
/// ```
pub fn with<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> Result<R> {
    let pool = pool_of(threads)?.build().map_err(refused)?;
    Ok(pool.install(f))
}

/// Runs `f` on one of the threads.
///
/// A parallel loop that another thread begins wakes a thread of the pool, and its beginner when it is done:
/// some tens of microseconds, which a network of hundreds of short loops has hundreds of times. One that a
/// thread of the pool begins starts at once. `f` must not wait for anything but parallel loops: with one
/// thread nobody else would run meanwhile.
pub(crate) fn enter<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    start();
    rayon::scope(|_| f())
}

/// Calls `f(0) … f(pieces - 1)`, in any order, on all threads.
pub(crate) fn for_each(pieces: usize, f: impl Fn(usize) + Sync) {
    for_each_piece(pieces, &f);
}

/// The one parallel loop there is: compiled once for each body it would be a tenth of the library.
fn for_each_piece(pieces: usize, f: &(dyn Fn(usize) + Sync)) {
    match pieces {
        0 => {}
        1 => f(0),
        _ => {
            start();
            match spans::detailed() {
                None => (0..pieces).into_par_iter().for_each(f),
                Some(recorder) => {
                    (0..pieces).into_par_iter().for_each(|i| recorder.piece(|| f(i)));
                }
            }
        }
    }
}

/// Cuts `out` into pieces of `size` elements (the last may be shorter) and calls `f(i, piece)`.
pub(crate) fn for_each_chunk<T: Send>(
    out: &mut [T],
    size: usize,
    f: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let pieces = Pieces::new(out, size);
    // SAFETY: every piece once.
    for_each(pieces.count(), |i| f(i, unsafe { pieces.get(i) }));
}

/// The same of two slices at once: piece i of each to `f(i, …)`. They have as many.
pub(crate) fn for_each_chunks<T: Send, U: Send>(
    a: &mut [T],
    size_a: usize,
    b: &mut [U],
    size_b: usize,
    f: impl Fn(usize, &mut [T], &mut [U]) + Sync + Send,
) {
    let (a, b) = (Pieces::new(a, size_a), Pieces::new(b, size_b));
    assert_eq!(a.count(), b.count());
    // SAFETY: every piece once.
    for_each(a.count(), |i| f(i, unsafe { a.get(i) }, unsafe { b.get(i) }));
}

/// A slice in pieces of so many elements, for a parallel loop; the last may be shorter.
struct Pieces<'a, T> {
    first: Shared<T>,
    len: usize,
    size: usize,
    borrowed: PhantomData<&'a ()>,
}

impl<'a, T> Pieces<'a, T> {
    fn new(slice: &'a mut [T], size: usize) -> Self {
        assert!(size > 0 || slice.is_empty());
        Pieces { first: Shared::new(slice), len: slice.len(), size, borrowed: PhantomData }
    }

    fn count(&self) -> usize {
        if self.len == 0 { 0 } else { self.len.div_ceil(self.size) }
    }

    /// # Safety
    /// No piece is asked for twice.
    unsafe fn get(&self, i: usize) -> &'a mut [T] {
        assert!(i < self.count());
        let start = i * self.size;
        // SAFETY: within the slice that is borrowed; pieces do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.first.at(start), self.size.min(self.len - start)) }
    }
}

/// Calls `f` on every index and returns the results in order.
///
/// ```
/// let squares = atrous::backend::cpu::threads::map(5, |i| i * i);
/// assert_eq!(squares, [0, 1, 4, 9, 16]);
/// ```
pub fn map<R: Send>(pieces: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..pieces).map(|_| None).collect();
    for_each_chunk(&mut results, 1, |i, result| result[0] = Some(f(i)));
    results.into_iter().flatten().collect()
}

/// Elements per piece for work that is one pass over memory: 64 Ki floats are 256 KiB, enough to
/// hide the cost of handing out a piece, few enough to share between cores.
pub(crate) const GRAIN_SIZE: usize = 1 << 16;

/// A raw pointer that pieces of one parallel loop may share, for output that is not cut into
/// consecutive chunks. Whoever writes through it must touch disjoint elements per piece.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);
// SAFETY: see the type's contract; every use states why its pieces are disjoint.
unsafe impl<T: Send> Send for Shared<T> {}
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Shared(slice.as_mut_ptr())
    }

    /// # Safety
    /// `offset` is within the slice this was made from.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut T {
        unsafe { self.0.add(offset) }
    }
}

/// Which cores a thread may run on.
#[cfg(target_os = "linux")]
mod affinity {
    use std::mem::{size_of, zeroed};

    /// The numbers of the cores this thread may run on.
    pub fn cores() -> Vec<usize> {
        // SAFETY: a set of cores is plain bits, of which the system writes as many as it is told there are.
        let set = unsafe {
            let mut set: libc::cpu_set_t = zeroed();
            match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) {
                0 => set,
                _ => return Vec::new(),
            }
        };
        // SAFETY: within the set.
        (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
    }

    /// Keeps this thread on a core. (Where the system refuses, it runs where it did.)
    pub fn stay_on(core: usize) {
        assert!(core < libc::CPU_SETSIZE as usize);
        // SAFETY: as above.
        unsafe {
            let mut set: libc::cpu_set_t = zeroed();
            libc::CPU_SET(core, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    pub fn cores() -> Vec<usize> {
        Vec::new()
    }

    pub fn stay_on(_: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once_whatever_the_thread_count() {
        for threads in 1..4 {
            let mut out = vec![0u32; 1003];
            with(threads, || {
                for_each_chunk(&mut out, 10, |i, piece| piece.iter_mut().for_each(|v| *v += i as u32))
            })
            .unwrap();
            assert!(out.iter().enumerate().all(|(i, &v)| v == i as u32 / 10));
            assert_eq!(with(threads, || map(5, |i| i * i)).unwrap(), [0, 1, 4, 9, 16]);
        }
    }

    #[test]
    fn more_threads_than_a_few_a_core_are_refused_with_the_largest_number() {
        for threads in [0, most() + 1, 1 << 40, usize::MAX] {
            let error = with(threads, || ()).unwrap_err().to_string();
            let expected = format!("threads: expected 1 to {} on this machine's ", most());
            assert!(error.starts_with(&expected) && error.ends_with(&threads.to_string()), "{error}");
        }
        assert_eq!(with(most(), count).unwrap(), most());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_stays_on_the_core_it_is_put_on() {
        let cores = affinity::cores();
        assert!(!cores.is_empty());
        for &core in &cores {
            let there = std::thread::spawn(move || {
                affinity::stay_on(core);
                affinity::cores()
            });
            assert_eq!(there.join().unwrap(), [core]);
        }
        assert_eq!(affinity::cores(), cores);
        // Threads of the process, where each has a core; not those of a pool of its own.
        let expected = if count() == cores.len() { 1 } else { cores.len() };
        assert_eq!(enter(affinity::cores).len(), expected);
        assert_eq!(with(1, affinity::cores).unwrap(), cores);
    }

    #[test]
    fn what_has_entered_is_a_thread_of_the_pool_and_may_enter_again() {
        let inside = || rayon::current_thread_index().is_some();
        assert!(!inside());
        assert!(enter(|| inside() && enter(|| inside() && map(3, |i| i) == [0, 1, 2])));
    }
}
