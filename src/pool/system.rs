//! What the system says about memory.

use std::sync::LazyLock;

/// Bytes of a page: what memory is given back in.
#[cfg(target_os = "linux")]
pub fn page() -> usize {
    // SAFETY: a question to the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // (No system answers nothing. A huge page is a multiple of every page.)
    usize::try_from(bytes).ok().filter(|page| page.is_power_of_two()).unwrap_or(2 << 20)
}

#[cfg(not(target_os = "linux"))]
pub fn page() -> usize {
    4096
}

/// Bytes of memory that the machine has, where the system tells them.
#[cfg(target_os = "linux")]
pub fn memory() -> Option<usize> {
    // SAFETY: a question to the system.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    usize::try_from(pages).ok()?.checked_mul(page())
}

#[cfg(not(target_os = "linux"))]
pub fn memory() -> Option<usize> {
    None
}

/// Bytes that a process can have at all: memory and swap, or less where its group of processes (a
/// container) is held to less. Addresses are lent out beyond that, and whoever writes to them is killed
/// without a word.
pub fn most() -> usize {
    static MOST: LazyLock<usize> = LazyLock::new(|| {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let machine = memory().map(|bytes| bytes.saturating_add(swap(&read("/proc/meminfo"))));
        let group = read("/sys/fs/cgroup/memory.max").trim().parse::<usize>().ok();
        machine.into_iter().chain(group).fold(isize::MAX as usize, usize::min)
    });
    *MOST
}

/// The swap that `/proc/meminfo` tells of, in bytes.
fn swap(meminfo: &str) -> usize {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("SwapTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
    kib.and_then(|kib| kib.checked_mul(1024)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_read_in_kibibytes_and_none_is_none() {
        assert_eq!(swap("MemTotal:  100 kB\nSwapTotal:       2048 kB\n"), 2 << 20);
        assert_eq!((swap("SwapTotal: x kB"), swap("")), (0, 0));
    }

    #[test]
    fn a_machine_has_memory_in_pages_and_a_process_can_have_no_endless_amount() {
        assert!(page().is_power_of_two() && most() > 1 << 20);
        assert!(
            memory().is_none_or(|bytes| bytes.is_multiple_of(page()) && most() < isize::MAX as usize)
        );
    }
}
