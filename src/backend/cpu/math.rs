//! Functions of one f32 that the compiler can vectorise: no branches, no tables, no calls. And the
//! reductions over a row that it would not vectorise by itself, because that changes the order.

#![allow(clippy::excessive_precision)] // Cephes' constants, as they were published

use super::simd::Vector;
use crate::tensor::Real;

/// Cephes' `expf`: (eʳ − 1 − r) / r² for |r| ≤ ln 2 / 2, highest power first.
const EXP: [f32; 6] = [
    1.987_569_150e-4,
    1.398_199_951e-3,
    8.333_451_907e-3,
    4.166_579_589e-2,
    1.666_666_546e-1,
    5.000_000_120e-1,
];
/// Adding 1.5·2²³ leaves the nearest whole number in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 in two parts; the product of the first with any exponent of an f32 is exact.
const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_401e-4];

/// eˣ to 2 units in the last place, over the whole range: 0 below −104, ∞ above 88.8, NaN stays.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ by a polynomial; 2ⁿ put into the exponent bits.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Comparisons, not `clamp`: a NaN goes through, and the code stays two instructions.
    let x = if x < -104.0 { -104.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let p = EXP.into_iter().reduce(|p, next| p * r + next).unwrap_or_default();
    let p = p * r * r + r + 1.0;
    // In two factors, since 2ⁿ itself may be too large or too small for an f32 where eˣ is not.
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// [`exp`] of a vector's lanes, in fused multiply-adds: for kernels that keep them in registers.
///
/// # Safety
/// Inside [`super::simd::dispatch`] of the vector's instruction set.
#[inline(always)]
pub unsafe fn exp_lanes<V: Vector>(x: V) -> V {
    let splat = |value: f32| unsafe { V::splat(value) };
    // SAFETY: values only; n is within −150..=128. (The order of `max` and `min`: a NaN stays a NaN.)
    unsafe {
        let x = splat(89.0).min(splat(-104.0).max(x));
        let n = x.mul_add(splat(std::f32::consts::LOG2_E), splat(ROUND)).sub(splat(ROUND));
        let r = n.mul_add(splat(-LN_2[1]), n.mul_add(splat(-LN_2[0]), x));
        let p = EXP.map(splat).into_iter().reduce(|p, next| p.mul_add(r, next)).unwrap_or(r);
        p.mul_add(r.mul(r), r).add(splat(1.0)).times_two_to(n)
    }
}

/// ln x to 2 units in the last place (Cephes' `logf`); what has no finite logarithm is the library's.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    if !(f32::MIN_POSITIVE..f32::INFINITY).contains(&x) {
        return x.ln();
    }
    ln_normal(x)
}

/// [`ln`] of a finite number that is no less than the smallest with all its digits; of others it means
/// nothing.
#[inline(always)]
pub fn ln_normal(x: f32) -> f32 {
    ln_times_two_to(x, 0.0)
}

/// [`ln`] in selections instead of branches, for the compiler to vectorise.
#[inline(always)]
pub fn ln_everywhere(x: f32) -> f32 {
    // Numbers too small for 24 bits: ln x = ln (x · 2²⁴) − 24 · ln 2.
    let small = x < f32::MIN_POSITIVE;
    let y = ln_times_two_to(if small { x * 16_777_216.0 } else { x }, if small { -24.0 } else { 0.0 });
    // ∞ and NaN stay what they are.
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 { f32::NAN } else { y }
}

/// ln (x · 2ᵏ) of a finite number that is no less than the smallest with all its digits.
#[inline(always)]
fn ln_times_two_to(x: f32, k: f32) -> f32 {
    // x = m · 2ⁿ with m in [√½, √2).
    let shifted = x.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let n = (shifted as i32 >> 23) as f32 + k;
    let m = f32::from_bits((shifted & 0x007f_ffff) + std::f32::consts::FRAC_1_SQRT_2.to_bits()) - 1.0;
    let z = m * m;
    let p = 7.037_683_629_2e-2 * m - 1.151_461_031_0e-1;
    let p = p * m + 1.167_699_874_0e-1;
    let p = p * m - 1.242_014_084_6e-1;
    let p = p * m + 1.424_932_278_7e-1;
    let p = p * m - 1.666_805_766_5e-1;
    let p = p * m + 2.000_071_476_5e-1;
    let p = p * m - 2.499_999_399_3e-1;
    let p = p * m + 3.333_333_117_4e-1;
    let p = p * m * z - 2.121_944_40e-4 * n - 0.5 * z;
    m + p + 0.693_359_375 * n
}

/// 1 / (1 + e⁻ˣ)
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Cephes' `tanhf`: an odd polynomial near 0, where 1 − 2/(e²ˣ + 1) would cancel.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let a = x.abs();
    let z = x * x;
    let p = -5.704_988_727e-3 * z + 2.063_908_880e-2;
    let p = p * z - 5.373_971_556e-2;
    let p = p * z + 1.333_144_220e-1;
    let p = p * z - 3.333_328_194e-1;
    let near = p * z * x + x;
    let far = (1.0 - 2.0 / (exp(a + a) + 1.0)).copysign(x);
    if a < 0.625 { near } else { far }
}

/// Folds a row in sixteen lanes, then the lanes by halves: the same order on every machine.
#[inline(always)]
pub fn fold<T: Real>(row: &[T], start: T, f: impl Fn(T, T) -> T) -> T {
    let mut lanes = [start; 16];
    let (blocks, rest) = row.as_chunks::<16>();
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = f(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, x);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = f(lanes[i], lanes[i + half]);
        }
    }
    lanes[0]
}

/// The sum of a short row. Long ones: [`crate::ops::reduce`], which adds such sums in f64.
#[inline(always)]
pub fn sum<T: Real>(row: &[T]) -> T {
    fold(row, T::ZERO, |a, b| a + b)
}

/// The largest element that is a number; −∞ for an empty row.
#[inline(always)]
pub fn max(row: &[f32]) -> f32 {
    fold(row, f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Kernel, dispatch, supported};
    use super::*;

    /// The worst error in units in the last place of the exact value, over evenly spaced points.
    fn worst_ulps(low: f64, high: f64, f: impl Fn(f32) -> f32, exact: fn(f64) -> f64) -> f64 {
        let error = |i: usize| {
            let x = (low + (high - low) * i as f64 / 1e6) as f32;
            let y = exact(x as f64);
            let ulp = (y as f32).abs().max(f32::MIN_POSITIVE);
            let ulp = f32::from_bits(ulp.to_bits() + 1) - ulp;
            (f(x) as f64 - y).abs() / ulp as f64
        };
        (0..=1_000_000).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        assert!(worst_ulps(-87.0, 88.7, exp, f64::exp) < 2.0);
        assert!(worst_ulps(-1.0, 1.0, exp, f64::exp) < 2.0);
        assert!(worst_ulps(-104.0, -87.0, exp, f64::exp) < 2.0); // results too small for 24 bits
    }

    #[test]
    fn exp_of_lanes_is_as_exact_and_right_at_its_ends() {
        struct One(f32);
        impl Kernel for One {
            type Output = f32;
            #[inline(always)]
            fn run<V: Vector>(self) -> f32 {
                let mut lanes = vec![0.0; V::LANES];
                // SAFETY: as many elements as lanes.
                unsafe { exp_lanes(V::splat(self.0)).store(lanes.as_mut_ptr()) };
                lanes[V::LANES - 1]
            }
        }
        fn check(exp: impl Fn(f32) -> f32) {
            assert!(worst_ulps(-104.0, 88.7, &exp, f64::exp) < 2.0);
            assert!(worst_ulps(-1.0, 1.0, &exp, f64::exp) < 2.0);
            assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(-105.0)), (1.0, 0.0, 0.0));
            assert_eq!((exp(f32::INFINITY), exp(88.8)), (f32::INFINITY, f32::INFINITY));
            assert!(exp(88.7).is_finite() && exp(-103.0) > 0.0 && exp(f32::NAN).is_nan());
        }
        supported().into_iter().for_each(|isa| check(|x| dispatch(isa, One(x))));
    }

    #[test]
    fn exp_is_right_at_its_ends() {
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(f32::NEG_INFINITY), exp(-1e30), exp(-105.0)), (0.0, 0.0, 0.0));
        assert_eq!(
            (exp(f32::INFINITY), exp(1e30), exp(88.8)),
            (f32::INFINITY, f32::INFINITY, f32::INFINITY)
        );
        assert!(exp(88.7).is_finite() && exp(-103.0) > 0.0 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn ln_is_within_two_units_in_the_last_place() {
        assert!(worst_ulps(1.5, 40.0, ln, f64::ln) < 2.0);
        assert!(worst_ulps(1e-30, 0.6, ln, f64::ln) < 2.0);
        assert!(worst_ulps(1e30, 3e38, ln, f64::ln) < 2.0);
        // Near 1, where the logarithm goes through 0.
        assert!(worst_ulps(0.6, 1.5, ln, f64::ln) < 2.0);
        assert_eq!((ln(1.0), ln(0.0), ln(f32::INFINITY)), (0.0, f32::NEG_INFINITY, f32::INFINITY));
        assert!(ln(-1.0).is_nan() && ln(f32::NAN).is_nan() && ln(1e-42) < -96.0);
    }

    #[test]
    fn ln_without_branches_is_the_same_to_the_bit_and_as_exact_of_the_smallest() {
        for bits in (0..=f32::INFINITY.to_bits()).step_by(4099) {
            let x = f32::from_bits(bits);
            match x < f32::MIN_POSITIVE {
                true => assert!((ln_everywhere(x) - x.ln()).abs() <= 1e-5 || x == 0.0, "{x}"),
                false => assert_eq!(ln_everywhere(x), ln(x), "{x}"),
            }
        }
        assert!(worst_ulps(1e-44, 1e-38, ln_everywhere, f64::ln) < 2.0);
        let ends = [f32::INFINITY, 0.0, -0.0].map(ln_everywhere);
        assert_eq!(ends, [f32::INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        assert!([-1.0, -1e-42, f32::NEG_INFINITY, f32::NAN].iter().all(|&x| ln_everywhere(x).is_nan()));
    }

    #[test]
    fn sigmoid_and_tanh_are_within_a_few_units_and_level_off() {
        assert!(worst_ulps(-80.0, 80.0, sigmoid, |x| 1.0 / (1.0 + (-x).exp())) < 4.0);
        assert!(worst_ulps(-10.0, 10.0, tanh, f64::tanh) < 4.0);
        assert_eq!((sigmoid(-1e30), sigmoid(1e30)), (0.0, 1.0));
        assert_eq!((tanh(f32::NEG_INFINITY), tanh(f32::INFINITY), tanh(0.0)), (-1.0, 1.0, 0.0));
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_see_every_element_of_any_length() {
        for n in 0..70 {
            let row: Vec<f32> = (0..n).map(|i| (i * 7 % 31) as f32 - 40.0).collect();
            assert_eq!(sum(&row), row.iter().sum::<f32>());
            assert_eq!(max(&row), row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
