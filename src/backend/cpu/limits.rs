//! What this machine can do at most, measured: a loop of multiply-adds in registers, and a stream
//! triad over arrays far larger than the last cache. Benchmarks state percentages of these.

use super::simd::{Kernel, Vector, dispatch};
use super::threads;
use crate::context::isa;
use crate::pool::Buffer;
use std::hint::black_box;
use std::time::Instant;

/// GFLOP/s of f32 multiply-adds on all threads, in the instruction set in use: the best of `runs`.
pub fn fma_gflops(runs: usize) -> f64 {
    struct Loop(usize);
    impl Kernel for Loop {
        type Output = f64;
        #[inline(always)]
        fn run<V: Vector>(self) -> f64 {
            // 12 independent chains cover 2 units × 4–5 cycles of latency.
            // SAFETY: values only; `dispatch` gives the vector type its instruction set.
            unsafe {
                let (scale, shift) = (V::splat(black_box(0.999_999)), V::splat(black_box(1e-6)));
                let mut chains = [V::splat(black_box(1.0)); 12];
                for _ in 0..self.0 {
                    for chain in &mut chains {
                        *chain = chain.mul_add(scale, shift);
                    }
                }
                let mut lanes = vec![0.0f32; V::LANES];
                for chain in chains {
                    chain.store(lanes.as_mut_ptr());
                    black_box(&lanes);
                }
                (2 * 12 * V::LANES) as f64
            }
        }
    }
    const STEPS: usize = 2_000_000;
    let (isa, count) = (isa(), threads::count());
    let mut best = 0.0f64;
    for _ in 0..runs {
        let start = Instant::now();
        let flops: f64 = threads::map(count, |_| dispatch(isa, Loop(STEPS))).iter().sum();
        best = best.max(flops * STEPS as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// GB/s of a = b + c · s over arrays of 64 MiB on all threads (three arrays counted): the best of
/// `runs`.
pub fn triad_gbps(runs: usize) -> f64 {
    let n = 16 << 20;
    let filled = |value| Buffer::<f32>::filled(n, value);
    let (mut a, b, c) = (filled(0.0), filled(1.0), filled(2.0));
    let mut best = 0.0f64;
    for _ in 0..runs {
        let start = Instant::now();
        threads::for_each_chunk(&mut a, threads::GRAIN_SIZE, |i, a| {
            let (b, c) =
                (&b[i * threads::GRAIN_SIZE..][..a.len()], &c[i * threads::GRAIN_SIZE..][..a.len()]);
            a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| *a = b + c * 3.0);
        });
        best = best.max(12.0 * n as f64 / start.elapsed().as_secs_f64() / 1e9);
        black_box(&a);
    }
    best
}
