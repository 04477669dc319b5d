//! Large blocks: ranges of one stretch of addresses, of which as much becomes memory as is lent out at once.
//!
//! Blocks that are kept by size fit only requests of nearly their size, and a network has many sizes:
//! the memory of every size's peak would add up. So large blocks lie side by side; a request takes the
//! first free range that is long enough, a range that comes back is joined with its free neighbours, and
//! so what is in memory stays near the most that was ever lent out together. (First fit by address:
//! Knuth, "The Art of Computer Programming", 2.5.)

use std::collections::BTreeMap;
use std::ptr::NonNull;

/// Free ranges: length by address. No two of them touch.
pub struct Arena {
    /// Blocks are whole pages: what is given back to the system otherwise would take its neighbours'
    /// bytes along, or be refused. 4 KiB on x86-64; 16 or 64 KiB elsewhere.
    page: usize,
    free: BTreeMap<usize, usize>,
    /// Where memory has been: the end of the highest range ever lent out, by the start of its stretch.
    tops: Vec<(usize, usize)>,
}

impl Default for Arena {
    fn default() -> Self {
        Arena::of_pages(super::system::page())
    }
}

impl Arena {
    fn of_pages(page: usize) -> Self {
        Arena { page, free: BTreeMap::new(), tops: Vec::new() }
    }

    /// The size of the block that a request gets.
    pub fn size(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.page)
    }

    /// A block of so many whole pages, with unspecified content. None where the system gives no more
    /// addresses.
    pub fn allocate(&mut self, size: usize) -> Option<NonNull<u8>> {
        assert!(size > 0 && size.is_multiple_of(self.page));
        let start = match self.first_fit(size) {
            Some(start) => start,
            None => {
                let (start, length) = system::stretch(size)?;
                self.give(start, length);
                self.tops.push((start, start));
                self.first_fit(size)?
            }
        };
        let length = self.free.remove(&start)?;
        if length > size {
            self.free.insert(start + size, length - size);
        }
        let top = self.tops.iter_mut().filter(|(first, _)| *first <= start).max_by_key(|top| top.0);
        if let Some((_, end)) = top {
            *end = (*end).max(start + size);
        }
        NonNull::new(std::ptr::with_exposed_provenance_mut(start))
    }

    fn first_fit(&self, size: usize) -> Option<usize> {
        self.free.iter().find(|&(_, &length)| length >= size).map(|(&start, _)| start)
    }

    /// Takes a block back.
    pub fn free(&mut self, memory: NonNull<u8>, size: usize) {
        self.give(memory.as_ptr().expose_provenance(), size);
    }

    fn give(&mut self, mut start: usize, mut size: usize) {
        if let Some((&before, &length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            self.free.remove(&before);
            (start, size) = (before, size + length);
        }
        if let Some(length) = self.free.remove(&(start + size)) {
            size += length;
        }
        self.free.insert(start, size);
    }

    /// Free ranges that may be in memory.
    fn held(&self) -> impl Iterator<Item = (usize, usize)> {
        self.tops.iter().flat_map(|&(first, end)| {
            let inside = self.free.range(first..end.max(first));
            inside.map(move |(&start, &length)| (start, length.min(end - start)))
        })
    }

    /// Bytes of memory kept for reuse, at most.
    pub fn held_bytes(&self) -> usize {
        self.held().map(|(_, length)| length).sum()
    }

    /// Gives the memory of free ranges back to the system; their addresses stay.
    pub fn trim(&mut self) {
        for (start, length) in self.held() {
            system::forget(start, length);
        }
        for (first, end) in &mut self.tops {
            let last = self.free.range(*first..*end).next_back();
            if let Some((&start, &length)) = last
                && start + length >= *end
            {
                *end = start;
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    /// A huge page of x86-64, and of AArch64 with pages of 4 KiB; a multiple of every system's pages.
    /// Where a kernel goes through a tensor, the 512 small pages of each would cost as many page faults
    /// once, and misses in the table of translations ever after.
    const HUGE: usize = 2 << 20;

    /// New addresses for at least so many bytes: as many as the machine has memory, of which none is
    /// taken before it is written to. They stay for good.
    pub fn stretch(size: usize) -> Option<(usize, usize)> {
        map(size.max(crate::pool::system::memory()?)).or_else(|| map(size))
    }

    fn map(size: usize) -> Option<(usize, usize)> {
        let size = size.checked_next_multiple_of(HUGE)?;
        let (access, kind) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new mapping, anywhere.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), size.checked_add(HUGE)?, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        let first = start.expose_provenance().next_multiple_of(HUGE);
        // SAFETY: inside the mapping. (The system may give small pages all the same.)
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(first), size, libc::MADV_HUGEPAGE)
        };
        Some((first, size))
    }

    /// Whole pages of a stretch: zeros when they are touched next.
    pub fn forget(start: usize, length: usize) {
        // SAFETY: a free range of a mapping of ours, to which nobody refers.
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED)
        };
    }
}

/// Elsewhere there is no arena: large blocks are kept by size, as small ones are.
#[cfg(not(target_os = "linux"))]
mod system {
    pub fn stretch(_: usize) -> Option<(usize, usize)> {
        None
    }

    pub fn forget(_: usize, _: usize) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn blocks_never_overlap_and_all_come_together_again() {
        let mut arena = Arena::default();
        let mut blocks: Vec<(NonNull<u8>, usize)> = Vec::new();
        let mut random = 12345u64;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let (mut now, mut most) = (0, 0);
        for round in 0..4000 {
            if blocks.is_empty() || next(100) < 52 {
                let size = arena.size(1 + next(1 << 16));
                let memory = arena.allocate(size).unwrap();
                // SAFETY: `size` bytes of ours.
                unsafe { memory.as_ptr().write_bytes(round as u8, size) };
                let start = memory.as_ptr() as usize;
                for &(other, length) in &blocks {
                    let other = other.as_ptr() as usize;
                    assert!(start + size <= other || other + length <= start);
                }
                blocks.push((memory, size));
                now += size;
                most = most.max(now);
            } else {
                let (memory, size) = blocks.swap_remove(next(blocks.len()));
                arena.free(memory, size);
                now -= size;
            }
            if round == 2000 {
                arena.trim();
            }
        }
        // What is between the blocks stays small beside them.
        let top = arena.tops[0].1 - arena.tops[0].0;
        assert!(top < most + most / 2, "{top} {most}");
        for (memory, size) in blocks {
            arena.free(memory, size);
        }
        assert_eq!((arena.free.len(), arena.held_bytes()), (1, top));
        arena.trim();
        assert_eq!(arena.held_bytes(), 0);
    }

    #[test]
    fn memory_that_was_given_back_is_zeros() {
        let mut arena = Arena::default();
        let page = arena.size(1);
        let memory = arena.allocate(page).unwrap();
        // SAFETY: a page of ours.
        unsafe { memory.as_ptr().write_bytes(7, page) };
        arena.free(memory, page);
        arena.trim();
        let again = arena.allocate(page).unwrap();
        // SAFETY: as above.
        assert_eq!((again, unsafe { *again.as_ptr() }), (memory, 0));
    }

    #[test]
    fn what_goes_back_to_the_system_is_whole_pages_however_large_they_are() {
        assert_eq!(Arena::default().page, super::super::system::page());
        for page in [4 << 10, 16 << 10, 64 << 10] {
            let mut arena = Arena::of_pages(page);
            let blocks: Vec<_> = [1, 5000, page, page + 1]
                .map(|bytes| arena.size(bytes))
                .map(|size| (arena.allocate(size).unwrap(), size))
                .into();
            for (memory, size) in blocks.into_iter().step_by(2) {
                arena.free(memory, size);
            }
            let whole = |(start, length): (usize, usize)| {
                start.is_multiple_of(page) && length.is_multiple_of(page)
            };
            assert!(arena.held().count() > 0 && arena.held().all(whole), "{page}");
        }
    }
}
