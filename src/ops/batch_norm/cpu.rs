//! The CPU's kernels. Vectors run along the channels, threads over tiles of rows.
//!
//! γ·s·(x − m) + β is rounded after the product and after the sum, not once: the same bits on every
//! instruction set, forward and where backward asks on which side of an activation's kink a value lay.
//!
//! The activation after a batch norm costs no pass of its own: forward it is applied to what is written,
//! backward its slope is known from x, which is read anyway.

use super::NormParams;
use crate::activation::Activation;
use crate::backend::cpu::simd::{Kernel, Vector, dispatch, load, store, wants_non_temporal};
use crate::backend::cpu::threads::{self, Shared};
use crate::context::isa;
use crate::pool::Buffer;
use crate::tensor::Tensor;

/// Rows of a tile: with 64 channels 64 KiB, which stay in L2 between the two passes over them.
const TILE: usize = 256;

/// [Σ g, Σ g·(x − m)] of each channel. Where the statistics are constants, ∂x = γ·s·g goes into `dx` in the
/// same pass.
pub fn gradient_sums(
    x: &[f32],
    dy: &[f32],
    normal: &NormParams,
    activation: Activation,
    dx: Option<&mut [f32]>,
) -> Vec<[f64; 2]> {
    struct Sums<'a> {
        x: &'a [f32],
        dy: &'a [f32],
        constants: &'a [Vec<f32>; 3],
        activation: Activation,
        sums: &'a mut [f32],
        dx: Option<*mut f32>,
        non_temporal: bool,
    }
    impl Kernel for Sums<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let [a, m, b] = self.constants;
            let channels = a.len();
            let (plain, centred) = self.sums.split_at_mut(channels);
            // Four rows at a time: a quarter of the loads and stores of sums and constants.
            for (rows, (x, g)) in
                self.x.chunks(4 * channels).zip(self.dy.chunks(4 * channels)).enumerate()
            {
                let dx = self.dx.map(|dx| dx.wrapping_add(rows * 4 * channels));
                // SAFETY: n elements from c on of each of the rows' `channels` elements, of which `dx` has
                // as many; `wants_non_temporal` vouches for the alignment.
                for_each_vector!(V, channels, FULL, c, n, unsafe {
                    let at = |values: &[f32]| load::<V, FULL>(values.as_ptr().add(c), n);
                    let (a, m, b) = (at(a), at(m), at(b));
                    let (mut sum, mut centred_sum) = (at(plain), at(centred));
                    for row in (0..x.len()).step_by(channels) {
                        let from_mean = at(&x[row..]).sub(m);
                        let g = self.activation.backward_lanes(at(&g[row..]), from_mean.mul(a).add(b));
                        sum = sum.add(g);
                        centred_sum = g.mul_add(from_mean, centred_sum);
                        if let Some(dx) = dx {
                            store::<V, FULL>(g.mul(a), dx.add(row + c), n, self.non_temporal);
                        }
                    }
                    store::<V, FULL>(sum, plain.as_mut_ptr().add(c), n, false);
                    store::<V, FULL>(centred_sum, centred.as_mut_ptr().add(c), n, false);
                });
            }
        }
    }
    let constants = f32s(normal);
    let (isa, channels) = (isa(), normal.mean.len());
    let size = TILE * channels;
    let mut parts = Buffer::<f32>::filled(x.len().div_ceil(size) * 2 * channels, 0.0);
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == x.len()));
    let non_temporal = dx.as_ref().is_some_and(|dx| wants_non_temporal(dx, channels));
    let dx = dx.map(Shared::new);
    threads::for_each_chunk(&mut parts, 2 * channels, |tile, sums| {
        let (start, end) = (tile * size, x.len().min((tile + 1) * size));
        let (x, dy) = (&x[start..end], &dy[start..end]);
        // SAFETY: each tile has its own rows of ∂x.
        let dx = dx.map(|dx| unsafe { dx.at(start) });
        dispatch(isa, Sums { x, dy, constants: &constants, activation, sums, dx, non_temporal });
    });
    let mut sums = vec![[0.0f64; 2]; channels];
    for part in parts.chunks_exact(2 * channels) {
        for (i, sum) in sums.iter_mut().enumerate() {
            sum[0] += part[i] as f64;
            sum[1] += part[channels + i] as f64;
        }
    }
    sums
}

fn f32s(normal: &NormParams) -> [Vec<f32>; 3] {
    normal.constants().map(|values| values.into_iter().map(|value| value as f32).collect())
}

/// then(γ·s·(x − m) + β)
pub fn normalise(x: &Tensor, normal: &NormParams, activation: Activation) -> Tensor {
    struct Rows<'a> {
        x: &'a [f32],
        constants: &'a [Vec<f32>; 3],
        activation: Activation,
        non_temporal: bool,
        y: &'a mut [f32],
    }
    impl Kernel for Rows<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let [a, m, b] = self.constants;
            let channels = a.len();
            for (y, x) in self.y.chunks_exact_mut(channels).zip(self.x.chunks_exact(channels)) {
                // SAFETY: n elements from c on of slices of `channels` elements; `wants_non_temporal`
                // vouches for the alignment.
                for_each_vector!(V, channels, FULL, c, n, unsafe {
                    let at = |values: &[f32]| load::<V, FULL>(values.as_ptr().add(c), n);
                    let value = self.activation.forward_lanes(at(x).sub(at(m)).mul(at(a)).add(at(b)));
                    store::<V, FULL>(value, y.as_mut_ptr().add(c), n, self.non_temporal);
                });
            }
        }
    }
    let (input, isa, constants) = (x.values::<f32>(), isa(), f32s(normal));
    let mut y = Buffer::<f32>::new(input.len());
    let (piece, non_temporal) = (piece(normal.mean.len()), wants_non_temporal(&y, normal.mean.len()));
    threads::for_each_chunk(&mut y, piece, |i, y| {
        let x = &input[i * piece..][..y.len()];
        dispatch(isa, Rows { x, constants: &constants, activation, non_temporal, y });
    });
    Tensor::from_buffer(y, x.shape())
}

/// a·(g − ḡ) + b·(x − m) with the constants [a, ḡ, b] of each channel.
pub fn input_gradient(
    dy: &Tensor,
    x: &Tensor,
    normal: &NormParams,
    constants: &[[f64; 3]],
    activation: Activation,
) -> Tensor {
    struct Rows<'a> {
        g: &'a [f32],
        x: &'a [f32],
        normal: &'a [Vec<f32>; 3],
        constants: &'a [Vec<f32>; 3],
        activation: Activation,
        non_temporal: bool,
        dx: &'a mut [f32],
    }
    impl Kernel for Rows<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            let ([scale, mean, beta], [a, g_mean, b]) = (self.normal, self.constants);
            let channels = a.len();
            let rows = self.g.chunks_exact(channels).zip(self.x.chunks_exact(channels));
            for (dx, (g, x)) in self.dx.chunks_exact_mut(channels).zip(rows) {
                // SAFETY: n elements from c on of slices of `channels` elements; `wants_non_temporal`
                // vouches for the alignment.
                for_each_vector!(V, channels, FULL, c, n, unsafe {
                    let at = |values: &[f32]| load::<V, FULL>(values.as_ptr().add(c), n);
                    let from_mean = at(x).sub(at(mean));
                    let g =
                        self.activation.backward_lanes(at(g), from_mean.mul(at(scale)).add(at(beta)));
                    let value = g.sub(at(g_mean)).mul_add(at(a), at(b).mul(from_mean));
                    store::<V, FULL>(value, dx.as_mut_ptr().add(c), n, self.non_temporal);
                });
            }
        }
    }
    let part = |i: usize| constants.iter().map(|c| c[i] as f32).collect::<Vec<f32>>();
    let (constants, normal_constants) = ([part(0), part(1), part(2)], f32s(normal));
    let (g, input, isa) = (dy.values::<f32>(), x.values::<f32>(), isa());
    let mut dx = Buffer::<f32>::new(input.len());
    let (piece, non_temporal) = (piece(normal.mean.len()), wants_non_temporal(&dx, normal.mean.len()));
    threads::for_each_chunk(&mut dx, piece, |i, dx| {
        let (g, x) = (&g[i * piece..][..dx.len()], &input[i * piece..][..dx.len()]);
        let (normal, constants) = (&normal_constants, &constants);
        dispatch(isa, Rows { g, x, normal, constants, activation, non_temporal, dx });
    });
    Tensor::from_buffer(dx, x.shape())
}

/// Elements a piece of a parallel pass: whole pixels.
fn piece(channels: usize) -> usize {
    (threads::GRAIN_SIZE / channels).max(1) * channels
}
