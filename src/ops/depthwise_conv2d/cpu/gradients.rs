//! Both gradients in one pass.

#![allow(clippy::needless_range_loop, reason = "taps and pixels of a block are what is counted")]

use super::{BLOCK, blocked};
use crate::cpu::simd::{Kernel, Vector, dispatch, isa, load, store, streams};
use crate::cpu::threads::{self, Shared};
use crate::ops::depthwise_conv2d::DepthwiseGeometry;
use crate::pool::Buffer;
use crate::tensor::Tensor;
use std::ops::Range;

/// Rows of pixels that a partial sum of ∂w covers.
const BAND: usize = 8;

/// (∂x where `w` is given, ∂w where `x` is).
pub fn gradients(
    g: &DepthwiseGeometry,
    dy: &Tensor,
    x: Option<&Tensor>,
    w: Option<&Tensor>,
) -> (Option<Tensor>, Option<Tensor>) {
    let (dy, isa, c) = (dy.values::<f32>(), isa(), g.channels);
    let (x, w) = (x.map(|x| x.values::<f32>()), w.map(|w| w.values::<f32>()));
    let [height, width] = g.input;
    let size = g.kernel[0] * g.kernel[1] * c;
    assert_eq!(dy.len(), g.output_shape().elements());
    assert!(x.is_none_or(|x| x.len() == g.batch * height * width * c));
    assert!(w.is_none_or(|w| w.len() == size));
    let count = g.batch * height;
    let bands = count.div_ceil(BAND);
    let mut dx = w.map(|_| Buffer::<f32>::new(count * width * c));
    let mut sums = x.map(|_| Buffer::<f32>::filled(bands * size, 0.0));
    let none = Buffer::<f32>::filled(g.output[1] * c, 0.0);
    let stream = dx.as_ref().is_some_and(|dx| streams(dx, c));
    let (to_dx, to_sums) = (dx.as_mut().map(|d| Shared::new(d)), sums.as_mut().map(|s| Shared::new(s)));
    threads::for_each(bands, |band| {
        let rows = band * BAND..count.min((band + 1) * BAND);
        // SAFETY: band by band: its rows of ∂x, its own sums.
        let dx = to_dx.map(|dx| unsafe { dx.at(rows.start * width * c) });
        let dw = to_sums.map(|sums| unsafe { sums.at(band * size) });
        dispatch(isa, Backward { g, dy, x, w, none: &none, stream, rows, dx, dw });
    });
    let dw = sums.map(|sums| {
        let mut dw = Buffer::<f32>::filled(size, 0.0);
        for part in sums.chunks(size.max(1)) {
            dw.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        Tensor::from_buffer(dw, [g.kernel[0], g.kernel[1], c, 1])
    });
    (dx.map(|dx| Tensor::from_buffer(dx, [g.batch, height, width, c])), dw)
}

/// Some rows of pixels.
struct Backward<'a> {
    g: &'a DepthwiseGeometry,
    dy: &'a [f32],
    x: Option<&'a [f32]>,
    w: Option<&'a [f32]>,
    /// A row of zeros, for where a tap looks past the outputs.
    none: &'a [f32],
    stream: bool,
    rows: Range<usize>,
    /// These rows of ∂x.
    dx: Option<*mut f32>,
    /// This band's [kh, kw, C], zero at first.
    dw: Option<*mut f32>,
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self) {
        match (self.dx.is_some(), self.dw.is_some()) {
            (true, true) => self.rows::<V, true, true>(),
            (true, false) => self.rows::<V, true, false>(),
            (false, true) => self.rows::<V, false, true>(),
            (false, false) => {}
        }
    }
}

/// Where a block reads and writes: the gradient's rows that its pixels' taps reach, x, ∂x.
struct Places {
    /// For each ky.
    dy: [*const f32; 3],
    x: *const f32,
    dx: *mut f32,
}

impl Backward<'_> {
    #[inline(always)]
    fn rows<V: Vector, const DX: bool, const DW: bool>(&self) {
        let (g, c, s) = (self.g, self.g.channels, self.g.stride[1]);
        let mut taps = Vec::new();
        let dangling = std::ptr::NonNull::<f32>::dangling().as_ptr();
        for row in self.rows.clone() {
            let (n, iy) = (row / g.input[0], row % g.input[0]);
            let x = self.x.map_or(dangling as *const f32, |x| x[row * g.input[1] * c..].as_ptr());
            let blocks = match blocked(g) {
                true => self.interior(),
                false => 0..0,
            };
            // SAFETY: a block's pixels lie inside this row, and the outputs that its taps reach inside theirs.
            unsafe {
                let dx = match self.dx {
                    Some(dx) => dx.add((row - self.rows.start) * g.input[1] * c),
                    None => dangling,
                };
                let outputs = [0, 1, 2].map(|ky| match g.output_of(0, iy, ky) {
                    Some(oy) if !blocks.is_empty() => {
                        Some(self.dy[(n * g.output[0] + oy) * g.output[1] * c..].as_ptr())
                    }
                    _ => None,
                });
                let mut ix = blocks.start;
                while ix < blocks.end {
                    let pixels = if ix + BLOCK * s <= blocks.end { BLOCK * s } else { s };
                    // The output that the block's first pixel reaches by the last tap along x.
                    let at = ((ix + g.pad[1]) / s - 2 / s) * c;
                    let places = Places {
                        dy: outputs.map(|row| row.map_or(self.none.as_ptr(), |row| row.add(at))),
                        x: if DW { x.add(ix * c) } else { x },
                        dx: if DX { dx.add(ix * c) } else { dx },
                    };
                    match (s, pixels == s) {
                        (1, false) => self.block::<V, BLOCK, DX, DW>(&places),
                        (1, true) => self.block::<V, 1, DX, DW>(&places),
                        (_, false) => self.pairs::<V, BLOCK, DX, DW>(&places, outputs),
                        _ => self.pairs::<V, 1, DX, DW>(&places, outputs),
                    }
                    ix += pixels;
                }
                for ix in (0..blocks.start).chain(blocks.end..g.input[1]) {
                    taps.clear();
                    for tap in 0..g.kernel[0] * g.kernel[1] {
                        let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
                        let (Some(oy), Some(ox)) = (g.output_of(0, iy, ky), g.output_of(1, ix, kx))
                        else {
                            continue;
                        };
                        taps.push((((n * g.output[0] + oy) * g.output[1] + ox) * c, tap * c));
                    }
                    self.pixel::<V, DX, DW>(
                        &taps,
                        if DW { x.add(ix * c) } else { x },
                        if DX { dx.add(ix * c) } else { dx },
                    );
                }
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

    /// N neighbouring pixels, stride 1.
    #[inline(always)]
    unsafe fn block<V: Vector, const N: usize, const DX: bool, const DW: bool>(&self, at: &Places) {
        let c = self.g.channels;
        let mut i = 0;
        unsafe {
            while i + V::LANES <= c {
                self.vector::<V, N, DX, DW, true>(at, i, V::LANES);
                i += V::LANES;
            }
            if i < c {
                self.vector::<V, N, DX, DW, false>(at, i, c - i);
            }
        }
    }

    #[inline(always)]
    unsafe fn vector<V: Vector, const N: usize, const DX: bool, const DW: bool, const FULL: bool>(
        &self,
        at: &Places,
        i: usize,
        lanes: usize,
    ) {
        unsafe {
            let c = self.g.channels;
            let zero = V::splat(0.0);
            let (mut sums, mut x) = ([zero; N], [zero; N]);
            if DW {
                for (p, x) in x.iter_mut().enumerate() {
                    *x = load::<V, FULL>(at.x.add(p * c + i), lanes);
                }
            }
            for (ky, dy) in at.dy.into_iter().enumerate() {
                let mut w = [zero; 3];
                let mut dw = [zero; 3];
                for kx in 0..3 {
                    let tap = (3 * ky + kx) * c + i;
                    if DX {
                        w[kx] = load::<V, FULL>(self.w.unwrap_unchecked().as_ptr().add(tap), lanes);
                    }
                    if DW {
                        dw[kx] = load::<V, FULL>(self.dw.unwrap_unchecked().add(tap), lanes);
                    }
                }
                // Pixel p by tap kx from output p + 2 − kx of the block.
                for o in 0..N + 2 {
                    let g = load::<V, FULL>(dy.add(o * c + i), lanes);
                    for p in 0..N {
                        if p <= o && o <= p + 2 {
                            let kx = p + 2 - o;
                            if DX {
                                sums[p] = g.mul_add(w[kx], sums[p]);
                            }
                            if DW {
                                dw[kx] = g.mul_add(x[p], dw[kx]);
                            }
                        }
                    }
                }
                if DW {
                    for (kx, dw) in dw.into_iter().enumerate() {
                        store::<V, FULL>(
                            dw,
                            self.dw.unwrap_unchecked().add((3 * ky + kx) * c + i),
                            lanes,
                            false,
                        );
                    }
                }
            }
            if DX {
                for (p, sum) in sums.into_iter().enumerate() {
                    store::<V, FULL>(sum, at.dx.add(p * c + i), lanes, self.stream);
                }
            }
        }
    }

    /// N pairs of pixels, stride 2. `outputs`: None for the ky that reach none.
    #[inline(always)]
    unsafe fn pairs<V: Vector, const N: usize, const DX: bool, const DW: bool>(
        &self,
        at: &Places,
        outputs: [Option<*const f32>; 3],
    ) {
        let c = self.g.channels;
        let mut i = 0;
        unsafe {
            while i + V::LANES <= c {
                self.pair_vector::<V, N, DX, DW, true>(at, outputs, i, V::LANES);
                i += V::LANES;
            }
            if i < c {
                self.pair_vector::<V, N, DX, DW, false>(at, outputs, i, c - i);
            }
        }
    }

    #[inline(always)]
    unsafe fn pair_vector<
        V: Vector,
        const N: usize,
        const DX: bool,
        const DW: bool,
        const FULL: bool,
    >(
        &self,
        at: &Places,
        outputs: [Option<*const f32>; 3],
        i: usize,
        lanes: usize,
    ) {
        unsafe {
            let c = self.g.channels;
            let zero = V::splat(0.0);
            let (mut sums, mut x) = ([[zero; 2]; N], [[zero; 2]; N]);
            if DW {
                for (p, x) in x.iter_mut().enumerate() {
                    x[0] = load::<V, FULL>(at.x.add(2 * p * c + i), lanes);
                    x[1] = load::<V, FULL>(at.x.add((2 * p + 1) * c + i), lanes);
                }
            }
            for (ky, dy) in at.dy.into_iter().enumerate() {
                if outputs[ky].is_none() {
                    continue;
                }
                let mut w = [zero; 3];
                let mut dw = [zero; 3];
                for kx in 0..3 {
                    let tap = (3 * ky + kx) * c + i;
                    if DX {
                        w[kx] = load::<V, FULL>(self.w.unwrap_unchecked().as_ptr().add(tap), lanes);
                    }
                    if DW {
                        dw[kx] = load::<V, FULL>(self.dw.unwrap_unchecked().add(tap), lanes);
                    }
                }
                // Pair p: its first pixel by tap 2 from output p, by tap 0 from p + 1; its second by tap 1
                // from p + 1.
                let mut before = load::<V, FULL>(dy.add(i), lanes);
                for p in 0..N {
                    let here = load::<V, FULL>(dy.add((p + 1) * c + i), lanes);
                    if DX {
                        sums[p][0] = here.mul_add(w[0], before.mul_add(w[2], sums[p][0]));
                        sums[p][1] = here.mul_add(w[1], sums[p][1]);
                    }
                    if DW {
                        dw[0] = here.mul_add(x[p][0], dw[0]);
                        dw[2] = before.mul_add(x[p][0], dw[2]);
                        dw[1] = here.mul_add(x[p][1], dw[1]);
                    }
                    before = here;
                }
                if DW {
                    for (kx, dw) in dw.into_iter().enumerate() {
                        store::<V, FULL>(
                            dw,
                            self.dw.unwrap_unchecked().add((3 * ky + kx) * c + i),
                            lanes,
                            false,
                        );
                    }
                }
            }
            if DX {
                for (p, sums) in sums.into_iter().enumerate() {
                    store::<V, FULL>(sums[0], at.dx.add(2 * p * c + i), lanes, self.stream);
                    store::<V, FULL>(sums[1], at.dx.add((2 * p + 1) * c + i), lanes, self.stream);
                }
            }
        }
    }

    /// One pixel. `taps`: the offsets of a gradient and of its weights.
    #[inline(always)]
    unsafe fn pixel<V: Vector, const DX: bool, const DW: bool>(
        &self,
        taps: &[(usize, usize)],
        x: *const f32,
        dx: *mut f32,
    ) {
        let c = self.g.channels;
        for i in (0..c).step_by(V::LANES) {
            let n = V::LANES.min(c - i);
            unsafe {
                let mut sum = V::splat(0.0);
                let x = if DW { V::load_partial(x.add(i), n) } else { sum };
                for &(gradient, weight) in taps {
                    let g = V::load_partial(self.dy.as_ptr().add(gradient + i), n);
                    if DX {
                        let w = self.w.unwrap_unchecked().as_ptr().add(weight + i);
                        sum = g.mul_add(V::load_partial(w, n), sum);
                    }
                    if DW {
                        let dw = self.dw.unwrap_unchecked().add(weight + i);
                        g.mul_add(x, V::load_partial(dw, n)).store_partial(dw, n);
                    }
                }
                if DX {
                    sum.store_partial(dx.add(i), n);
                }
            }
        }
    }
}
