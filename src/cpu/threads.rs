//! Threads. Work is cut into pieces by its shape alone, never by the number of threads, so the
//! same bits come out at any thread count.

use crate::error::{Error, Result};
use rayon::prelude::*;

/// Sets the number of threads of the process. May be called once, before any operator runs.
pub fn set(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Error::argument("threads", error))
}

/// The number of threads that operators called from here run on.
pub fn count() -> usize {
    rayon::current_num_threads()
}

/// Runs `f` with operators on `threads` threads of their own.
pub fn with<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::argument("threads", error))?;
    Ok(pool.install(f))
}

/// Runs `f` on one of the threads.
///
/// A parallel loop that another thread begins wakes a thread of the pool, and its beginner when it is done: some tens of
/// microseconds, which a network of hundreds of short loops has hundreds of times. One that a thread of the pool begins
/// starts at once. `f` must not wait for anything but parallel loops: with one thread nobody else would run meanwhile.
pub fn enter<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}

/// Calls `f(0) … f(pieces - 1)`, in any order, on all threads.
pub fn for_each(pieces: usize, f: impl Fn(usize) + Sync + Send) {
    match pieces {
        0 => {}
        1 => f(0),
        _ => (0..pieces).into_par_iter().for_each(f),
    }
}

/// Cuts `out` into pieces of `size` elements (the last may be shorter) and calls `f(i, piece)`.
pub fn for_each_chunk<T: Send>(out: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    if out.len() <= size {
        if !out.is_empty() {
            f(0, out);
        }
        return;
    }
    out.par_chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
}

/// Calls `f` on every index and returns the results in order.
pub fn map<R: Send>(pieces: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    (0..pieces).into_par_iter().map(f).collect()
}

/// Elements per piece for work that is one pass over memory: 64 Ki floats are 256 KiB, enough to
/// hide the cost of handing out a piece, few enough to share between cores.
pub const PASS: usize = 1 << 16;

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
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        unsafe { self.0.add(offset) }
    }
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
    fn what_has_entered_is_a_thread_of_the_pool_and_may_enter_again() {
        let inside = || rayon::current_thread_index().is_some();
        assert!(!inside());
        assert!(enter(|| inside() && enter(|| inside() && map(3, |i| i) == [0, 1, 2])));
    }
}
