//! The loss of one row, and its gradient into d.
//!
//! `fast_` ones are there for the losses that segmentation computes on every pixel; the others have
//! a few hundred elements a step.

use crate::backend::cpu::math;
use crate::tensor::Real;

/// The class of an ignored row.
pub(super) const IGNORED: u32 = u32::MAX;

pub(super) fn binary<T: Real>(z: &[T], y: &[T], d: &mut [T]) -> T {
    let mean = T::ONE / T::from_f64(z.len() as f64);
    let mut loss = T::ZERO;
    for ((d, &z), &y) in d.iter_mut().zip(z).zip(y) {
        let e = (-z.abs()).exp();
        loss += (if z < T::ZERO { T::ZERO } else { z }) - z * y + (T::ONE + e).ln();
        let p = if z < T::ZERO { e / (T::ONE + e) } else { T::ONE / (T::ONE + e) };
        *d = (p - y) * mean;
    }
    loss * mean
}

/// (1 − p)^γ · ℓ with ℓ = −ln p, and its derivative by ℓ:
/// (1 − p)^γ + γ·(1 − p)^(γ − 1)·p·ℓ.
#[inline(always)]
fn focused<T: Real>(loss: T, gamma: T) -> (T, T) {
    let p = (-loss).exp();
    // Of a certain prediction nothing is left; the logarithm has to stay finite.
    let rest = (T::ONE - p).max(T::from_f64(1e-30));
    let log = rest.ln();
    let lower = (log * (gamma - T::ONE)).exp();
    let factor = lower * rest;
    (factor * loss, factor + gamma * lower * p * loss)
}

/// [`binary`] under [`focused`], element by element.
pub(super) fn focal_binary<T: Real>(z: &[T], y: &[T], gamma: T, d: &mut [T]) -> T {
    let mean = T::ONE / T::from_f64(z.len() as f64);
    let mut total = T::ZERO;
    for j in 0..z.len() {
        let loss = binary(&z[j..=j], &y[j..=j], &mut d[j..=j]);
        let (value, slope) = focused(loss, gamma);
        total += value;
        d[j] = d[j] * slope * mean;
    }
    total * mean
}

/// [`sparse`] under [`focused`].
pub(super) fn focal_sparse<T: Real>(z: &[T], class: u32, gamma: T, d: &mut [T]) -> T {
    let loss = sparse(z, class, d);
    if class == IGNORED {
        return loss;
    }
    let (value, slope) = focused(loss, gamma);
    d.iter_mut().for_each(|d| *d *= slope);
    value
}

/// ln Σ eᶻ, and the softmax into p.
fn log_sum_exp<T: Real>(z: &[T], p: &mut [T]) -> T {
    let largest = z.iter().fold(z[0], |m, &z| m.max(z));
    p.iter_mut().zip(z).for_each(|(p, &z)| *p = (z - largest).exp());
    let total: T = p.iter().copied().sum();
    p.iter_mut().for_each(|p| *p = *p / total);
    total.ln() + largest
}

pub(super) fn categorical<T: Real>(z: &[T], y: &[T], keras: bool, d: &mut [T]) -> T {
    let log_sum = log_sum_exp(z, d);
    let sum = if keras { T::ONE } else { y.iter().copied().sum() };
    d.iter_mut().zip(y).for_each(|(d, &y)| *d = sum * *d - y);
    z.iter().zip(y).map(|(&z, &y)| y * (log_sum - z)).sum()
}

pub(super) fn sparse<T: Real>(z: &[T], class: u32, d: &mut [T]) -> T {
    if class == IGNORED {
        d.fill(T::ZERO);
        return T::ZERO;
    }
    let log_sum = log_sum_exp(z, d);
    d[class as usize] -= T::ONE;
    log_sum - z[class as usize]
}

const EPSILON: f64 = 1e-7;

/// p clipped, and whether it was not.
fn clip<T: Real>(p: T) -> (T, bool) {
    let (low, high) = (T::from_f64(EPSILON), T::from_f64(1.0 - EPSILON));
    let clipped = if p < low {
        low
    } else if p > high {
        high
    } else {
        p
    };
    (clipped, p >= low && p <= high)
}

pub(super) fn raw_binary<T: Real>(p: &[T], y: &[T], d: &mut [T]) -> T {
    let (mean, epsilon) = (T::ONE / T::from_f64(p.len() as f64), T::from_f64(EPSILON));
    let mut loss = T::ZERO;
    for ((d, &p), &y) in d.iter_mut().zip(p).zip(y) {
        let (c, inside) = clip(p);
        let (yes, no) = (c + epsilon, T::ONE - c + epsilon);
        loss -= y * yes.ln() + (T::ONE - y) * no.ln();
        *d = if inside { ((T::ONE - y) / no - y / yes) * mean } else { T::ZERO };
    }
    loss * mean
}

pub(super) fn raw_categorical<T: Real>(p: &[T], y: &[T], d: &mut [T]) -> T {
    let total: T = p.iter().copied().sum();
    let (mut loss, mut dot) = (T::ZERO, T::ZERO);
    for ((d, &p), &y) in d.iter_mut().zip(p).zip(y) {
        let q = p / total;
        let (c, inside) = clip(q);
        loss -= y * c.ln();
        *d = if inside { y / c } else { T::ZERO };
        dot += *d * q;
    }
    d.iter_mut().for_each(|d| *d = (dot - *d) / total);
    loss
}

/// ln Σ e^(z − m) and m, and the softmax into p.
#[inline(always)]
fn fast_log_sum_exp(z: &[f32], p: &mut [f32]) -> (f32, f32) {
    let largest = math::max(z);
    p.iter_mut().zip(z).for_each(|(p, &z)| *p = math::exp(z - largest));
    let total = math::sum(p);
    let scale = 1.0 / total;
    p.iter_mut().for_each(|p| *p *= scale);
    (math::ln(total), largest)
}

#[inline(always)]
pub(super) fn fast_categorical(z: &[f32], y: &[f32], keras: bool, d: &mut [f32]) -> f32 {
    let (log_sum, largest) = fast_log_sum_exp(z, d);
    let sum = if keras { 1.0 } else { math::sum(y) };
    d.iter_mut().zip(y).for_each(|(d, &y)| *d = sum * *d - y);
    z.iter().zip(y).map(|(&z, &y)| y * (log_sum - (z - largest))).sum()
}

#[inline(always)]
pub(super) fn fast_sparse(z: &[f32], class: u32, d: &mut [f32]) -> f32 {
    if class == IGNORED {
        d.fill(0.0);
        return 0.0;
    }
    let (log_sum, largest) = fast_log_sum_exp(z, d);
    d[class as usize] -= 1.0;
    log_sum - (z[class as usize] - largest)
}
