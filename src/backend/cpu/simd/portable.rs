//! Eight lanes in plain Rust: what the compiler makes of them runs anywhere.

use super::{Kernel, Vector};

/// The `Vector` of [`super::Isa::Portable`]: an array, whose loops the compiler vectorises as it can.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Portable {
    const LANES: usize = 8;
    const MR: usize = 2;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Portable(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn non_temporal(self, to: *mut f32) {
        unsafe { self.store(to) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            *lane = unsafe { *from.add(i) };
        }
        Portable(lanes)
    }
    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, n: usize) {
        for (i, &lane) in self.0.iter().enumerate().take(n) {
            unsafe { *to.add(i) = lane };
        }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // Not `f32::mul_add`: without the instruction that is a call into the C library.
        Portable(std::array::from_fn(|i| self.0[i] * a.0[i] + b.0[i]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn where_less(self, a: Self, b: Self) -> Self {
        Portable(std::array::from_fn(|i| if a.0[i] < b.0[i] { self.0[i] } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn gather(from: *const f32, offsets: *const u32) -> Self {
        Portable(std::array::from_fn(|i| unsafe { *from.add(*offsets.add(i) as usize) }))
    }
    #[inline(always)]
    unsafe fn interleave(self, other: Self) -> (Self, Self) {
        let from = |first: usize| {
            let lane = |i: usize| {
                if i.is_multiple_of(2) { self.0[first + i / 2] } else { other.0[first + i / 2] }
            };
            Portable(std::array::from_fn(lane))
        };
        (from(0), from(4))
    }
    #[inline(always)]
    unsafe fn times_two_to(self, n: Self) -> Self {
        let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
        self.zip(n, |x, n| {
            // In two factors, each of which is a number.
            let n = n as i32;
            let half = n >> 1;
            x * power(half) * power(n.wrapping_sub(half))
        })
    }
    #[inline(always)]
    unsafe fn sum_lanes(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self {
        Portable(unsafe { from.cast::<[u8; 8]>().read_unaligned() }.map(f32::from))
    }
    #[inline(never)]
    unsafe fn apart<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Portable>()
    }
}
