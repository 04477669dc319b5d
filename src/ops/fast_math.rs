//! Whether the CPU may multiply less for more rounding.

use std::cell::Cell;

thread_local! {
    static PRESENT: Cell<bool> = const { Cell::new(false) };
}

/// Whether the operators this thread runs now may.
pub fn fast_math() -> bool {
    PRESENT.get()
}

/// Runs `f` with operators that may take kernels which multiply less and round more, or may not; gradients do as their
/// forward pass did. So far these are 3×3 convolutions of stride 1, by Winograd's F(4×4, 3×3)
/// ([`crate::backend::cpu::winograd`]), on the CPU and in f32. What comes out is as independent of the number of threads as ever.
pub fn with_fast_math<T>(fast: bool, f: impl FnOnce() -> T) -> T {
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            PRESENT.set(self.0);
        }
    }
    let _back = Back(PRESENT.replace(fast));
    f()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::on_threads;
    use crate::device::Device;

    #[test]
    fn it_is_the_scope_s_and_goes_along_to_the_threads() {
        assert!(!fast_math() && !on_threads(Device::Cpu, fast_math));
        with_fast_math(true, || {
            assert!(fast_math() && on_threads(Device::Cpu, fast_math));
            assert!(!with_fast_math(false, || on_threads(Device::Cpu, fast_math)));
            assert!(fast_math());
        });
        assert!(!fast_math());
    }
}
