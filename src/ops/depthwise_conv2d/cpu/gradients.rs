//! Both gradients in one pass.

#![allow(clippy::needless_range_loop, reason = "taps and pixels of a block are what is counted")]

use super::{BLOCK, TASK, pack, rows, strips, unpack};
use crate::backend::cpu::simd::{Kernel, Vector, dispatch, load, prefetch, store, wants_non_temporal};
use crate::backend::cpu::threads::{self, Shared};
use crate::context::isa;
use crate::ops::depthwise_conv2d::{Algorithm, DepthwiseGeometry};
use crate::pool::Buffer;
use crate::tensor::Tensor;
use std::ops::Range;

/// (∂x where `w` is given, ∂w where `x` is, ∂b if `bias`).
pub fn gradients(
    g: &DepthwiseGeometry,
    dy: &Tensor,
    x: Option<&Tensor>,
    w: Option<&Tensor>,
    bias: bool,
) -> [Option<Tensor>; 3] {
    let (dy, isa, c) = (dy.values::<f32>(), isa(), g.channels);
    let (x, w) = (x.map(|x| x.values::<f32>()), w.map(|w| w.values::<f32>()));
    let [height, width] = g.input;
    let taps = g.kernel[0] * g.kernel[1];
    assert_eq!(dy.len(), g.output_shape().elements());
    assert!(x.is_none_or(|x| x.len() == g.batch * height * width * c));
    assert!(w.is_none_or(|w| w.len() == taps * c));
    let packed = w.map(|w| pack(w, c, isa.lanes()));
    let size = c.div_ceil(isa.lanes()) * taps * isa.lanes();
    let (count, outputs) = (g.batch * height, g.batch * g.output[0]);
    let band = rows(count, width * c, TASK);
    let bands = count.div_ceil(band);
    let mut dx = w.map(|_| Buffer::<f32>::new(count * width * c));
    let mut sums = x.map(|_| Buffer::<f32>::new(bands * size));
    let mut bias_sums = bias.then(|| Buffer::<f32>::new(bands * c));
    let none = Buffer::<f32>::filled(g.output[1] * c, 0.0);
    let non_temporal = dx.as_ref().is_some_and(|dx| wants_non_temporal(dx, c));
    let to_dx = dx.as_mut().map(|dx| Shared::new(dx));
    let to_sums = sums.as_mut().map(|sums| Shared::new(sums));
    let to_bias_sums = bias_sums.as_mut().map(|sums| Shared::new(sums));
    threads::for_each(bands, |i| {
        let rows = i * band..count.min((i + 1) * band);
        // SAFETY: band by band: its rows of ∂x, its own sums.
        let dx = to_dx.map(|dx| unsafe { dx.at(rows.start * width * c) });
        let dw = to_sums.map(|sums| unsafe { std::slice::from_raw_parts_mut(sums.at(i * size), size) });
        let db = to_bias_sums.map(|sums| unsafe { std::slice::from_raw_parts_mut(sums.at(i * c), c) });
        let dw = dw.map(|dw| {
            dw.fill(0.0);
            dw.as_mut_ptr()
        });
        let (w, none) = (packed.as_deref(), &none);
        dispatch(isa, Backward { g, dy, x, w, none, non_temporal, rows, dx, dw });
        // The gradients at about the band's rows, which are still in cache.
        if let Some(db) = db {
            let of = |i| i * outputs / bands * g.output[1] * c;
            dispatch(isa, Sum { rows: &dy[of(i)..of(i + 1)], sum: db });
        }
    });
    let total = |sums: Buffer<f32>, size: usize| {
        let mut total = Buffer::<f32>::filled(size, 0.0);
        for part in sums.chunks(size.max(1)) {
            total.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        total
    };
    [
        dx.map(|dx| Tensor::from_buffer(dx, [g.batch, height, width, c])),
        sums.map(|sums| {
            let dw = unpack(&total(sums, size), taps, c, isa.lanes());
            Tensor::from_buffer(dw, [g.kernel[0], g.kernel[1], c, 1])
        }),
        bias_sums.map(|sums| Tensor::from_buffer(total(sums, c), [c])),
    ]
}

/// The sum of rows of channels.
struct Sum<'a> {
    rows: &'a [f32],
    sum: &'a mut [f32],
}

impl Kernel for Sum<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        let c = self.sum.len();
        self.sum.fill(0.0);
        // Four rows at a time: a quarter of the loads and stores of sums.
        for rows in self.rows.chunks(4 * c) {
            let mut i = 0;
            // SAFETY: `lanes` elements from i on of each of the rows' c elements.
            unsafe {
                while i < c {
                    let lanes = V::LANES.min(c - i);
                    let row = |r: usize| V::load_partial(rows.as_ptr().add(r * c + i), lanes);
                    let sum = match rows.len() / c {
                        4 => row(0).add(row(1)).add(row(2).add(row(3))),
                        3 => row(0).add(row(1)).add(row(2)),
                        2 => row(0).add(row(1)),
                        _ => row(0),
                    };
                    let to = self.sum.as_mut_ptr().add(i);
                    V::load_partial(to, lanes).add(sum).store_partial(to, lanes);
                    i += lanes;
                }
            }
        }
    }
}

/// Some rows of pixels.
struct Backward<'a> {
    g: &'a DepthwiseGeometry,
    dy: &'a [f32],
    x: Option<&'a [f32]>,
    /// As [`pack`] lays them out.
    w: Option<&'a [f32]>,
    /// A row of zeros, for where a tap looks past the outputs.
    none: &'a [f32],
    non_temporal: bool,
    rows: Range<usize>,
    /// These rows of ∂x.
    dx: Option<*mut f32>,
    /// This band's sums, laid out as `w`, zero at first.
    dw: Option<*mut f32>,
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        match (self.dx.is_some(), self.dw.is_some()) {
            (true, true) => self.strips::<V, true, true>(),
            (true, false) => self.strips::<V, true, false>(),
            (false, true) => self.strips::<V, false, true>(),
            (false, false) => {}
        }
    }
}

/// Where a block reads and writes. Not to be followed: x and ∂w without one, w and ∂x without the other.
#[derive(Clone, Copy)]
struct Places {
    /// For each ky, the row of gradients that the pixels reach by it.
    dy: [*const f32; 3],
    /// Whether there is such a row.
    reached: [bool; 3],
    x: *const f32,
    dx: *mut f32,
    w: *const f32,
    dw: *mut f32,
}

impl Places {
    /// Of a 3×3 window's next vector.
    #[inline(always)]
    fn next(self, lanes: usize) -> Places {
        Places {
            dy: self.dy.map(|dy| dy.wrapping_add(lanes)),
            reached: self.reached,
            x: self.x.wrapping_add(lanes),
            dx: self.dx.wrapping_add(lanes),
            w: self.w.wrapping_add(9 * lanes),
            dw: self.dw.wrapping_add(9 * lanes),
        }
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn strips<V: Vector, const DX: bool, const DW: bool>(&self) {
        let g = self.g;
        let blocks = match Algorithm::of(g) {
            Algorithm::Sliding => self.interior(),
            Algorithm::PerTap => 0..0,
        };
        let mut taps = Vec::new();
        for strip in strips(g.input[1], &blocks, BLOCK * g.stride[1], g.channels) {
            for row in self.rows.clone() {
                // SAFETY: the strip's pixels are inside this row.
                unsafe { self.row::<V, DX, DW>(row, &strip, &blocks, &mut taps) };
            }
        }
    }

    /// The pixels of a strip in one of these rows. `blocks`: those to take block by block.
    #[inline(always)]
    unsafe fn row<V: Vector, const DX: bool, const DW: bool>(
        &self,
        row: usize,
        strip: &Range<usize>,
        blocks: &Range<usize>,
        taps: &mut Vec<(usize, usize)>,
    ) {
        let (g, c, s) = (self.g, self.g.channels, self.g.stride[1]);
        let (n, iy) = (row / g.input[0], row % g.input[0]);
        let blocks = blocks.start.max(strip.start)..blocks.end.min(strip.end);
        let outputs = [0, 1, 2].map(|ky| match g.output_of(0, iy, ky) {
            Some(oy) if !blocks.is_empty() => {
                Some(self.dy[(n * g.output[0] + oy) * g.output[1] * c..].as_ptr())
            }
            _ => None,
        });
        let dangling = std::ptr::NonNull::<f32>::dangling().as_ptr();
        let start = Places {
            dy: outputs.map(|row| row.unwrap_or(self.none.as_ptr())),
            reached: outputs.map(|row| row.is_some()),
            x: self.x.map_or(dangling as *const f32, |x| x[row * g.input[1] * c..].as_ptr()),
            dx: self.dx.map_or(dangling, |dx| dx.wrapping_add((row - self.rows.start) * g.input[1] * c)),
            w: self.w.map_or(dangling as *const f32, |w| w.as_ptr()),
            dw: self.dw.unwrap_or(dangling),
        };
        // From pixel ix on; the first gradient is that of output `ox`.
        let at = |ix: usize, ox: usize| Places {
            dy: std::array::from_fn(|ky| {
                start.dy[ky].wrapping_add(if start.reached[ky] { ox * c } else { 0 })
            }),
            x: start.x.wrapping_add(ix * c),
            dx: start.dx.wrapping_add(ix * c),
            ..start
        };
        // SAFETY: a block's pixels lie inside this row, and the outputs that its taps reach inside theirs.
        unsafe {
            let mut ix = blocks.start;
            while ix < blocks.end {
                let pixels = if ix + BLOCK * s <= blocks.end { BLOCK * s } else { s };
                // The output that the block's first pixel reaches by the last tap along x.
                let at = at(ix, (ix + g.pad[1]) / s - 2 / s);
                match (s, pixels == s) {
                    (1, false) => self.block::<V, BLOCK, 1, DX, DW>(at),
                    (1, true) => self.block::<V, 1, 1, DX, DW>(at),
                    (_, false) => self.block::<V, BLOCK, 2, DX, DW>(at),
                    _ => self.block::<V, 1, 2, DX, DW>(at),
                }
                ix += pixels;
            }
            for ix in (strip.start..blocks.start).chain(blocks.end..strip.end) {
                taps.clear();
                for tap in 0..g.kernel[0] * g.kernel[1] {
                    let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
                    let (Some(oy), Some(ox)) = (g.output_of(0, iy, ky), g.output_of(1, ix, kx)) else {
                        continue;
                    };
                    taps.push((((n * g.output[0] + oy) * g.output[1] + ox) * c, tap));
                }
                self.pixel::<V, DX, DW>(taps, at(ix, 0));
            }
        }
    }

    /// The pixels of a row all of whose taps reach outputs along x; for stride 2 in pairs, of which the first
    /// is reached by the taps 0 and 2, the second by the tap 1.
    fn interior(&self) -> Range<usize> {
        let (g, s) = (self.g, self.g.stride[1]);
        // Pixel i by tap 2 from output (i + pad − 2)/s ≥ 0, by tap 0 from (i + pad)/s ≤ last.
        let mut first = 2usize.saturating_sub(g.pad[1]);
        if !(first + g.pad[1]).is_multiple_of(s) {
            first += 1;
        }
        let end = (g.output[1] * s).saturating_sub(g.pad[1]).min(g.input[1]);
        let first = first.min(end);
        first..first + (end - first) / s * s
    }

    /// N neighbouring pixels of stride 1, or N pairs of stride 2.
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize, const S: usize, const DX: bool, const DW: bool>(
        &self,
        at: Places,
    ) {
        let c = self.g.channels;
        let mut at = at;
        unsafe {
            for _ in 0..c / V::LANES {
                self.vector::<V, N, S, DX, DW, true>(&at, V::LANES);
                at = at.next(V::LANES);
            }
            if !c.is_multiple_of(V::LANES) {
                self.vector::<V, N, S, DX, DW, false>(&at, c % V::LANES);
            }
        }
    }

    #[inline(always)]
    unsafe fn vector<
        V: Vector,
        const N: usize,
        const S: usize,
        const DX: bool,
        const DW: bool,
        const FULL: bool,
    >(
        &self,
        at: &Places,
        lanes: usize,
    ) {
        unsafe {
            let c = self.g.channels;
            let zero = V::splat(0.0);
            let (mut sums, mut x) = ([[zero; S]; N], [[zero; S]; N]);
            if DW {
                let next = at.x.wrapping_add(self.g.input[1] * c);
                for (p, x) in x.as_flattened_mut().iter_mut().enumerate() {
                    prefetch(next.wrapping_add(p * c));
                    *x = load::<V, FULL>(at.x.add(p * c), lanes);
                }
            }
            for (ky, dy) in at.dy.into_iter().enumerate() {
                if S == 2 && !at.reached[ky] {
                    continue;
                }
                if ky == 0 {
                    // The row that the rows of pixels after this one see for the first time.
                    let next = dy.wrapping_add(self.g.output[1] * c);
                    for o in 0..N {
                        prefetch(next.wrapping_add((o + 3 - S) * c));
                    }
                }
                let (mut w, mut dw) = ([zero; 3], [zero; 3]);
                for kx in 0..3 {
                    if DX {
                        w[kx] = V::load(at.w.add((3 * ky + kx) * V::LANES));
                    }
                    if DW {
                        dw[kx] = V::load(at.dw.add((3 * ky + kx) * V::LANES));
                    }
                }
                macro_rules! reach {
                    ($g:expr, $p:expr, $q:expr, $kx:expr) => {
                        if DX {
                            sums[$p][$q] = $g.mul_add(w[$kx], sums[$p][$q]);
                        }
                        if DW {
                            dw[$kx] = $g.mul_add(x[$p][$q], dw[$kx]);
                        }
                    };
                }
                for o in 0..N + 3 - S {
                    let g = load::<V, FULL>(dy.add(o * c), lanes);
                    for p in 0..N {
                        // Stride 1: pixel p by tap kx from output p + 2 − kx. Stride 2: a pair's first pixel
                        // by tap 2 from output p, by tap 0 from p + 1; its second by tap 1 from p + 1.
                        if S == 1 && p <= o && o <= p + 2 {
                            reach!(g, p, 0, p + 2 - o);
                        } else if S == 2 && o == p {
                            reach!(g, p, 0, 2);
                        } else if S == 2 && o == p + 1 {
                            reach!(g, p, 0, 0);
                            reach!(g, p, S - 1, 1);
                        }
                    }
                }
                if DW {
                    for (kx, dw) in dw.into_iter().enumerate() {
                        dw.store(at.dw.add((3 * ky + kx) * V::LANES));
                    }
                }
            }
            if DX {
                for (p, &sum) in sums.as_flattened().iter().enumerate() {
                    store::<V, FULL>(sum, at.dx.add(p * c), lanes, self.non_temporal);
                }
            }
        }
    }

    /// One pixel. `taps`: the offset of a gradient and the number of its weight.
    #[inline(always)]
    unsafe fn pixel<V: Vector, const DX: bool, const DW: bool>(
        &self,
        taps: &[(usize, usize)],
        at: Places,
    ) {
        let (c, of_vector) = (self.g.channels, self.g.kernel[0] * self.g.kernel[1] * V::LANES);
        let mut at = at;
        unsafe {
            for i in (0..c / V::LANES).map(|vector| vector * V::LANES) {
                self.pixel_vector::<V, DX, DW, true>(taps, &at, i, V::LANES);
                at = Places {
                    x: at.x.wrapping_add(V::LANES),
                    dx: at.dx.wrapping_add(V::LANES),
                    w: at.w.wrapping_add(of_vector),
                    dw: at.dw.wrapping_add(of_vector),
                    ..at
                };
            }
            if !c.is_multiple_of(V::LANES) {
                self.pixel_vector::<V, DX, DW, false>(taps, &at, c - c % V::LANES, c % V::LANES);
            }
        }
    }

    #[inline(always)]
    unsafe fn pixel_vector<V: Vector, const DX: bool, const DW: bool, const FULL: bool>(
        &self,
        taps: &[(usize, usize)],
        at: &Places,
        i: usize,
        lanes: usize,
    ) {
        unsafe {
            let mut sum = V::splat(0.0);
            let x = if DW { load::<V, FULL>(at.x, lanes) } else { sum };
            for &(gradient, tap) in taps {
                let g = load::<V, FULL>(self.dy.as_ptr().add(gradient + i), lanes);
                if DX {
                    sum = g.mul_add(V::load(at.w.add(tap * V::LANES)), sum);
                }
                if DW {
                    let dw = at.dw.add(tap * V::LANES);
                    g.mul_add(x, V::load(dw)).store(dw);
                }
            }
            if DX {
                store::<V, FULL>(sum, at.dx, lanes, self.non_temporal);
            }
        }
    }
}
