//! The buffer pool: memory that tensors give back is handed to the next tensors.
//!
//! A training step allocates the same sizes over and over. Given back to the system, each large
//! block costs a page fault per 4 KiB when it is touched again; kept, it costs nothing. Small blocks are
//! kept by size, large ones side by side (`arena.rs`).

mod arena;
mod system;

use arena::Arena;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A cache line, and the width of an AVX-512 register.
const ALIGNMENT: usize = 64;

/// Plain number types, for which every bit pattern is a value.
///
/// # Safety
/// Implementors must be valid for any bit pattern and need no drop.
pub unsafe trait Plain: Copy + Send + Sync + 'static {}
unsafe impl Plain for f32 {}
unsafe impl Plain for f64 {}
unsafe impl Plain for u8 {}
unsafe impl Plain for u32 {}

static FREE: LazyLock<Mutex<BTreeMap<usize, Vec<Block>>>> = LazyLock::new(Default::default);
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);
/// `ATROUS_POISON=1` fills every buffer with NaN first, so that an element a kernel forgot shows.
static POISON: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("ATROUS_POISON").is_some_and(|v| v == "1"));

/// Memory of one size class, owned by the free list.
struct Block(NonNull<u8>);
// SAFETY: a block is plain memory that exactly one owner refers to.
unsafe impl Send for Block {}

/// A fixed-size array out of the pool, aligned to 64 bytes. Its content is unspecified (but
/// initialised) until written.
pub struct Buffer<T: Plain> {
    memory: NonNull<u8>,
    len: usize,
    /// Bytes of its memory, rounded up to the size class.
    size: usize,
    source: Source,
    kind: PhantomData<T>,
}
// SAFETY: a buffer owns its memory exclusively and T is plain data.
unsafe impl<T: Plain> Send for Buffer<T> {}
unsafe impl<T: Plain> Sync for Buffer<T> {}

/// Sizes are rounded up to a quarter of their power of two: at most 25 % is wasted, and the
/// smaller last batch of an epoch does not open a new class for every tensor.
pub(crate) fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.next_power_of_two() / 8).max(ALIGNMENT);
    bytes.div_ceil(step) * step
}

fn free_list() -> MutexGuard<'static, BTreeMap<usize, Vec<Block>>> {
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From so many bytes on a block is the arena's.
const LARGE: usize = 1 << 20;

fn arena() -> MutexGuard<'static, Arena> {
    static ARENA: LazyLock<Mutex<Arena>> = LazyLock::new(Default::default);
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a buffer's memory is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Arena,
    FreeList,
}

/// What a buffer panics with where there is not so much memory, for whoever catches it (`downcast_ref`
/// of the payload): a size that nobody could have.
///
/// ```
/// use atrous::Tensor;
/// use atrous::pool::OutOfMemory;
/// use std::panic::catch_unwind;
///
/// # std::panic::set_hook(Box::new(|_| ()));
/// let panic = catch_unwind(|| Tensor::zeros([1 << 40, 1 << 10])).unwrap_err();
/// let out_of_memory = panic.downcast_ref::<OutOfMemory>().unwrap();
/// assert_eq!(out_of_memory.bytes, 4 << 50);
/// assert!(out_of_memory.to_string().starts_with("out of memory: asked for 4294967296 MiB"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub bytes: usize,
    /// Bytes lent out already.
    pub in_use: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        write!(
            f,
            "out of memory: asked for {} MiB beside {} MiB in use; smaller batches or \
             smaller pictures need less",
            mib(self.bytes),
            mib(self.in_use)
        )
    }
}

fn out_of_memory(bytes: usize) -> ! {
    std::panic::panic_any(OutOfMemory { bytes, in_use: IN_USE.load(Ordering::Relaxed) })
}

/// What is left of the memory that there is.
fn left() -> usize {
    system::most().saturating_sub(IN_USE.load(Ordering::Relaxed))
}

/// For buffers that will come to so many bytes.
///
/// # Panics
/// With [`OutOfMemory`], where there is not so much.
pub(crate) fn require(bytes: u64) {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes > left() {
        out_of_memory(bytes);
    }
}

/// Memory for so many bytes, its size, and where it is from. None where the system gives no more, or
/// would kill us later for what it gives now.
fn take(bytes: usize) -> Option<(NonNull<u8>, usize, Source)> {
    if bytes > left() {
        return None;
    }
    if bytes >= LARGE {
        let mut arena = arena();
        let size = arena.size(bytes);
        if let Some(memory) = arena.allocate(size) {
            return Some((memory, size, Source::Arena));
        }
    }
    let class = size_class(bytes);
    // A free block of the class, or of the smallest one above it that is not twice as large: blocks kept
    // for one size alone would add up to more than all that are ever lent out together.
    let mut free = free_list();
    let mut fitting = free.range_mut(class..2 * class).filter(|(_, blocks)| !blocks.is_empty());
    if let Some((&class, blocks)) = fitting.next()
        && let Some(Block(memory)) = blocks.pop()
    {
        HELD.fetch_sub(class, Ordering::Relaxed);
        return Some((memory, class, Source::FreeList));
    }
    drop(free);
    // SAFETY: the layout has a non-zero size.
    let fresh = unsafe { alloc_zeroed(layout(class)) };
    Some((NonNull::new(fresh)?, class, Source::FreeList))
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, ALIGNMENT).expect("tensor sizes are below isize::MAX")
}

impl<T: Plain> Buffer<T> {
    /// `len` elements with unspecified content.
    ///
    /// # Panics
    /// With [`OutOfMemory`], where there is none.
    pub(crate) fn new(len: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<T>());
        let Some((memory, size, source)) = take(bytes) else { out_of_memory(bytes) };
        let now = IN_USE.fetch_add(size, Ordering::Relaxed) + size;
        PEAK.fetch_max(now, Ordering::Relaxed);
        if *POISON {
            // SAFETY: the block is `size` bytes long; all-ones is NaN as f32 and as f64.
            unsafe { memory.as_ptr().write_bytes(0xFF, size) };
        }
        Buffer { memory, len, size, source, kind: PhantomData }
    }

    pub(crate) fn from_slice(values: &[T]) -> Self {
        let mut buffer = Self::new(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    pub(crate) fn filled(len: usize, value: T) -> Self {
        let mut buffer = Self::new(len);
        buffer.fill(value);
        buffer
    }
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        IN_USE.fetch_sub(self.size, Ordering::Relaxed);
        if self.source == Source::Arena {
            return arena().free(self.memory, self.size);
        }
        HELD.fetch_add(self.size, Ordering::Relaxed);
        free_list().entry(self.size).or_default().push(Block(self.memory));
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the memory holds `len` initialised elements, aligned to 64, owned by self.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

/// The bytes of plain numbers.
pub(crate) fn bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain numbers have no padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of plain numbers, to be written.
pub(crate) fn bytes_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: plain numbers have no padding, and every bit pattern is one.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Memory of the pool, in bytes, over all threads of the process.
///
/// ```
/// use atrous::{Tensor, pool};
///
/// pool::reset_peak();
/// let x = Tensor::zeros([1 << 18]); // 1 MiB
/// let usage = pool::usage();
/// assert!(usage.in_use >= 1 << 20 && usage.peak >= usage.in_use);
/// drop(x); // its memory is kept for the next tensor of about that size,
/// pool::trim(); // and given back to the system here
/// assert!(pool::usage().peak >= 1 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Lent out to tensors now.
    pub in_use: usize,
    /// The most that was lent out at once, since the process began or [`reset_peak`].
    pub peak: usize,
    /// Given back by tensors and kept for the next ones.
    pub held: usize,
}

/// How much memory tensors on the CPU hold now, held at most, and have left in the pool.
///
/// [`Usage`] has an example.
pub fn usage() -> Usage {
    Usage {
        in_use: IN_USE.load(Ordering::Relaxed),
        peak: PEAK.load(Ordering::Relaxed),
        held: HELD.load(Ordering::Relaxed) + arena().held_bytes(),
    }
}

/// Begins anew to look for the most that is lent out at once (PyTorch's `reset_peak_memory_stats`).
///
/// [`Usage`] has an example.
pub fn reset_peak() {
    PEAK.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Gives all memory that is kept for reuse back to the system.
///
/// [`Usage`] has an example.
pub fn trim() {
    arena().trim();
    for (class, blocks) in std::mem::take(&mut *free_list()) {
        for Block(memory) in blocks {
            HELD.fetch_sub(class, Ordering::Relaxed);
            // SAFETY: allocated in `new` with this size, and no buffer refers to it.
            unsafe { dealloc(memory.as_ptr(), layout(class)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_a_quarter() {
        for bytes in (1..100_000).chain([1 << 30, (1 << 30) + 1]) {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(ALIGNMENT));
            assert!(class <= ALIGNMENT.max(bytes + bytes / 4 + ALIGNMENT), "{bytes} -> {class}");
        }
    }

    #[test]
    fn buffers_are_aligned_and_independent() {
        let mut a = Buffer::<f32>::filled(1001, 1.0);
        let b = Buffer::<f32>::filled(1001, 2.0);
        a[1000] = 5.0;
        assert!([&a, &b].iter().all(|b| (b.as_ptr() as usize).is_multiple_of(ALIGNMENT)));
        assert_eq!((a[0], a[1000], b[0], b[1000]), (1.0, 5.0, 2.0, 2.0));
        assert!(Buffer::<u8>::new(0).is_empty());
    }

    #[test]
    fn what_no_machine_has_is_refused_with_the_size_asked_for() {
        for (len, bytes) in
            [(1 << 50, 1 << 53), (usize::MAX / 8, usize::MAX - 7), (usize::MAX, usize::MAX)]
        {
            let refused = std::panic::catch_unwind(|| Buffer::<f64>::new(len)).err().unwrap();
            let error = refused.downcast_ref::<OutOfMemory>().unwrap();
            assert_eq!(error.bytes, bytes);
            assert!(error.to_string().starts_with("out of memory: asked for "), "{error}");
        }
    }
}
