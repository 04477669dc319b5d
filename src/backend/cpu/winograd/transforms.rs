//! The transforms of one axis, for both sizes of tile, and how two axes are made of them.

use crate::backend::cpu::simd::Vector;

/// F(O×O, 3×3): windows of W×W inputs, tiles of O×O outputs. One axis each.
pub trait Transforms<const W: usize, const O: usize>: Copy + Send + Sync {
    /// G
    fn kernel<V: Vector>(self, taps: [V; 3]) -> [V; W];
    /// Bᵀ
    fn window<V: Vector>(self, d: [V; W]) -> [V; W];
    /// Aᵀ
    fn outputs<V: Vector>(self, m: [V; W]) -> [V; O];
}

/// F(2×2, 3×3)
#[derive(Clone, Copy)]
pub struct F2;

/// F(4×4, 3×3)
#[derive(Clone, Copy)]
pub struct F4;

/// Applies a one-dimensional transform along x, then along y.
#[inline(always)]
pub fn on_both_axes<V: Vector, const I: usize, const O: usize>(
    d: [[V; I]; I],
    transform: impl Fn([V; I]) -> [V; O],
) -> [[V; O]; O] {
    // SAFETY: a value only. (Loops instead of `map`: a closure of the library's might not be inlined into
    // the instruction set of the caller.)
    let zero = unsafe { V::splat(0.0) };
    let mut rows = [[zero; O]; I];
    for y in 0..I {
        rows[y] = transform(d[y]);
    }
    let mut out = [[zero; O]; O];
    for x in 0..O {
        let mut column = [zero; I];
        for y in 0..I {
            column[y] = rows[y][x];
        }
        let column = transform(column);
        for y in 0..O {
            out[y][x] = column[y];
        }
    }
    out
}

// SAFETY of all below: sums and products of values, inside the instruction set of the caller.

impl Transforms<4, 2> for F2 {
    #[inline(always)]
    fn kernel<V: Vector>(self, [a, b, c]: [V; 3]) -> [V; 4] {
        unsafe {
            let half = V::splat(0.5);
            let (outer, b) = (a.add(c).mul(half), b.mul(half));
            [a, outer.add(b), outer.sub(b), c]
        }
    }

    #[inline(always)]
    fn window<V: Vector>(self, [a, b, c, d]: [V; 4]) -> [V; 4] {
        unsafe { [a.sub(c), b.add(c), c.sub(b), b.sub(d)] }
    }

    #[inline(always)]
    fn outputs<V: Vector>(self, [a, b, c, d]: [V; 4]) -> [V; 2] {
        unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
    }
}

impl F2 {
    /// Gᵀ
    #[inline(always)]
    pub fn gather_kernel<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 3] {
        unsafe {
            let half = V::splat(0.5);
            let (sum, difference) = (b.add(c).mul(half), b.sub(c).mul(half));
            [a.add(sum), difference, sum.add(d)]
        }
    }

    /// A
    #[inline(always)]
    pub fn spread_outputs<V: Vector>([a, b]: [V; 2]) -> [V; 4] {
        unsafe { [a, a.add(b), a.sub(b), V::splat(0.0).sub(b)] }
    }
}

/// √½, the smaller of F(4×4)'s points; the larger, √2, is exactly twice this number.
const P: f32 = std::f32::consts::FRAC_1_SQRT_2;

// What is even in a point is the same for p and −p, what is odd differs in sign: pairs of rows share both
// sums.
impl Transforms<6, 4> for F4 {
    #[inline(always)]
    fn kernel<V: Vector>(self, [a, b, c]: [V; 3]) -> [V; 6] {
        unsafe {
            let (small, large) = (V::splat(-2.0 / 3.0), V::splat(1.0 / 6.0));
            let even = [c.mul_add(V::splat(0.5), a).mul(small), c.mul_add(V::splat(2.0), a).mul(large)];
            let odd = [V::splat(-2.0 / 3.0 * P), V::splat(1.0 / 3.0 * P)];
            [
                a,
                b.mul_add(odd[0], even[0]),
                b.mul_add(V::splat(2.0 / 3.0 * P), even[0]),
                b.mul_add(odd[1], even[1]),
                b.mul_add(V::splat(-1.0 / 3.0 * P), even[1]),
                c,
            ]
        }
    }

    #[inline(always)]
    fn window<V: Vector>(self, [a, b, c, d, e, f]: [V; 6]) -> [V; 6] {
        unsafe {
            let (half, two, middle) = (V::splat(-0.5), V::splat(-2.0), V::splat(-2.5));
            let (even, odd) =
                ([c.mul_add(two, e), c.mul_add(half, e)], [b.mul_add(two, d), b.mul_add(half, d)]);
            [
                c.mul_add(middle, a.add(e)),
                odd[0].mul_add(V::splat(P), even[0]),
                odd[0].mul_add(V::splat(-P), even[0]),
                odd[1].mul_add(V::splat(2.0 * P), even[1]),
                odd[1].mul_add(V::splat(-2.0 * P), even[1]),
                d.mul_add(middle, b.add(f)),
            ]
        }
    }

    #[inline(always)]
    fn outputs<V: Vector>(self, [a, b, c, d, e, f]: [V; 6]) -> [V; 4] {
        unsafe {
            let (even, odd) = ([b.add(c), d.add(e)], [b.sub(c), d.sub(e)]);
            [
                a.add(even[0]).add(even[1]),
                odd[1].mul_add(V::splat(2.0), odd[0]).mul(V::splat(P)),
                even[0].mul_add(V::splat(0.5), even[1].add(even[1])),
                odd[0].mul_add(V::splat(0.5 * P), odd[1].mul_add(V::splat(4.0 * P), f)),
            ]
        }
    }
}
