//! Batch normalisation over all axes but the last (Ioffe and Szegedy, 2015).
//!
//! With n values a channel, mean m, *biased* variance v = Σ(x − m)²/n, s = 1/√(v + ε) and
//! x̂ = (x − m)·s:
//!
//! y = γ·x̂ + β
//!
//! Training: m and v come from the batch, and the gradient flows through them. With g = ∂L/∂y:
//!
//! - ∂L/∂β = Σ g
//! - ∂L/∂γ = Σ g·x̂
//! - ∂L/∂x = γ·s·(g − ∂β/n − x̂·∂γ/n)
//!
//! Inference: m and v are constants (moving statistics), and ∂L/∂x = γ·s·g.
//!
//! **Statistics.** `E[x²] − m²` cancels catastrophically in f32. Each tile of rows has its own mean
//! and M2 = Σ(x − m)² in two passes over data that is still in cache; tiles are merged in order
//! (Chan, Golub and LeVeque, 1979), in f64. With n = 1 the result is exactly β.
//!
//! Bytes bind: training reads x twice and writes y; backward reads x and g twice and writes ∂x.

mod device;

use crate::autograd::{Needs, record};
use crate::cases::{Case, Fill, Input, Size};
use crate::cpu::simd::{self, Isa, isa};
use crate::cpu::threads;
use crate::cuda::Cuda;
use crate::error::{Error, Result};
use crate::ops::{Route, Then, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// What one training batch says about its channels.
pub struct BatchNorm {
    pub y: Tensor,
    /// `[C]`
    pub mean: Tensor,
    /// `[C]`, the biased variance, which normalised this batch.
    pub variance: Tensor,
    /// Values a channel.
    pub count: usize,
}

impl BatchNorm {
    /// The moving statistics after this batch: mov·momentum + stat·(1 − momentum). The variance
    /// stored is Bessel-corrected, v·n/max(n − 1, 1), as TensorFlow 2.6's fused kernel stores it.
    pub fn moving(&self, mean: &Tensor, variance: &Tensor, momentum: f64) -> Result<(Tensor, Tensor)> {
        let bessel = self.count as f64 / self.count.saturating_sub(1).max(1) as f64;
        let all = [mean, variance, &self.mean, &self.variance];
        if let Route::Cuda(cuda) = route("batch_norm", &all)? {
            let of_batch = [&self.mean, &self.variance];
            return device::moving(cuda, [mean, variance], of_batch, momentum, bessel);
        }
        let blend = |moving: &Tensor, statistic: &Tensor, factor: f64| -> Result<Tensor> {
            let update =
                |moving: f64, statistic: f64| moving * momentum + statistic * factor * (1.0 - momentum);
            let (moving, statistic) = (moving.to_vec_f64(), statistic.to_vec_f64());
            let values: Vec<f64> = moving.iter().zip(&statistic).map(|(&m, &s)| update(m, s)).collect();
            Ok(Tensor::from_slice(&values, [values.len()])?.to_dtype(self.mean.dtype()))
        };
        Ok((blend(mean, &self.mean, 1.0)?, blend(variance, &self.variance, bessel)?))
    }
}

/// Normalises by the batch's own statistics. `x [..., C]`, `gamma` and `beta` `[C]`.
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
    then: Then,
) -> Result<BatchNorm> {
    let route = check(x, &[gamma, beta], epsilon)?;
    let (dtype, channels) = (x.dtype(), x.shape().last_axis());
    let count = x.shape().elements() / channels;
    if count == 0 {
        return Err(Error::shape("batch_norm", "at least one value a channel", x.shape()));
    }
    let statistics = match route {
        Route::F64 => Statistics::naive::<f64>(x.values(), channels),
        Route::Reference => Statistics::naive::<f32>(x.values(), channels),
        Route::Fast => Statistics::tiled(isa(), x.values(), channels),
        Route::Cuda(cuda) => return train_on_device(cuda, x, [gamma, beta], epsilon, count, then),
    };
    let inverse: Vec<f64> = statistics.variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
    let y = affine(x, &scale_shift(&statistics.mean, &inverse, gamma, beta));
    let needs = Needs::of([x, gamma, beta]);
    let saved = needs.any().then(|| (x.detach(), gamma.detach()));
    let tensor =
        |values: &[f64]| Ok::<_, Error>(Tensor::from_slice(values, [channels])?.to_dtype(dtype));
    let (mean, variance) = (tensor(&statistics.mean)?, tensor(&statistics.variance)?);
    let y = record("batch_norm", [x, gamma, beta], y, move |dy| {
        let (x, gamma) = saved.expect("saved when an input needs a gradient");
        let sums = gradient_sums(&x, &dy, &statistics.mean, &inverse);
        let dx = if needs.0[0] {
            let n = count as f64;
            // ∂x = a·(g − ḡ) + b·(x − m): differences first, so that little is lost where they are
            // small, and nothing where n = 1.
            let gamma = gamma.to_vec_f64();
            let constants: Vec<[f64; 4]> = (0..channels)
                .map(|i| {
                    let [dbeta, dgamma] = sums[i];
                    let a = gamma[i] * inverse[i];
                    [a, dbeta / n, -a * inverse[i] * dgamma / n, statistics.mean[i]]
                })
                .collect();
            Some(combine(&dy, &x, &constants))
        } else {
            None
        };
        Ok([dx, Some(column(&sums, 1, dtype)?), Some(column(&sums, 0, dtype)?)])
    });
    Ok(BatchNorm { y: then.apply(y)?, mean, variance, count })
}

fn train_on_device(
    cuda: &'static Cuda,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    epsilon: f64,
    count: usize,
    then: Then,
) -> Result<BatchNorm> {
    let statistics = device::statistics(cuda, x, epsilon)?;
    let y = statistics.normalise(cuda, x, [gamma, beta], then)?;
    let (mean, variance) = (statistics.mean.detach(), statistics.variance.detach());
    let needs = Needs::of([x, gamma, beta]);
    let saved = needs.any().then(|| (x.detach(), gamma.detach(), beta.detach()));
    let y = record("batch_norm", [x, gamma, beta], y, move |dy| {
        let (x, gamma, beta) = saved.expect("saved when an input needs a gradient");
        let (dgamma, dbeta) = statistics.gradients(cuda, &x, &dy, [&gamma, &beta], then)?;
        let sums = [&dgamma, &dbeta];
        let dx = match needs.0[0] {
            true => Some(statistics.data_train(cuda, &x, &dy, [&gamma, &beta], sums, then)?),
            false => None,
        };
        Ok([dx, Some(dgamma), Some(dbeta)])
    });
    Ok(BatchNorm { y, mean, variance, count })
}

fn infer_on_device(
    cuda: &'static Cuda,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    statistics: device::Statistics,
    then: Then,
) -> Result<Tensor> {
    let y = statistics.normalise(cuda, x, [gamma, beta], then)?;
    let needs = Needs::of([x, gamma, beta]);
    let of_vectors = needs.0[1] || needs.0[2];
    // An activation's gradient is known from x.
    let saved_x = (of_vectors || (needs.any() && then != Then::Nothing)).then(|| x.detach());
    let (gamma_values, beta_values) = (gamma.detach(), beta.detach());
    Ok(record("batch_norm", [x, gamma, beta], y, move |dy| {
        let scale_shift = [&gamma_values, &beta_values];
        let (dgamma, dbeta) = match &saved_x {
            Some(x) if of_vectors => {
                let (dgamma, dbeta) = statistics.gradients(cuda, x, &dy, scale_shift, then)?;
                (Some(dgamma), Some(dbeta))
            }
            _ => (None, None),
        };
        let dx = match needs.0[0] {
            true => Some(statistics.data_infer(cuda, saved_x.as_ref(), &dy, scale_shift, then)?),
            false => None,
        };
        Ok([dx, dgamma, dbeta])
    }))
}

/// Normalises by given statistics: y = γ·(x − mean)/√(variance + ε) + β. No gradient flows into
/// the statistics.
pub fn batch_norm_infer(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f64,
    then: Then,
) -> Result<Tensor> {
    let (route, dtype) = (check(x, &[gamma, beta, mean, variance], epsilon)?, x.dtype());
    if let Route::Cuda(cuda) = route {
        let statistics = device::given(cuda, mean, variance, epsilon)?;
        return infer_on_device(cuda, x, [gamma, beta], statistics, then);
    }
    let inverse: Vec<f64> = variance.to_vec_f64().iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
    let mean = mean.to_vec_f64();
    let y = affine(x, &scale_shift(&mean, &inverse, gamma, beta));
    let needs = Needs::of([x, gamma, beta]);
    let saved_x = (needs.0[1] || needs.0[2]).then(|| x.detach());
    let gamma_values = gamma.to_vec_f64();
    let y = record("batch_norm", [x, gamma, beta], y, move |dy| {
        let sums = saved_x.map(|x| gradient_sums(&x, &dy, &mean, &inverse));
        let share = |i| sums.as_ref().map(|sums| column(sums, i, dtype)).transpose();
        let (dgamma, dbeta) = (share(1)?, share(0)?);
        let slope: Vec<[f64; 3]> =
            gamma_values.iter().zip(&inverse).map(|(g, s)| [g * s, 0.0, 0.0]).collect();
        Ok([needs.0[0].then(|| affine(&dy, &slope)), dgamma, dbeta])
    });
    then.apply(y)
}

fn check(x: &Tensor, vectors: &[&Tensor], epsilon: f64) -> Result<Route> {
    let channels = x.shape().last_axis();
    if let Some(wrong) = vectors.iter().find(|v| v.shape()[..] != [channels]) {
        let expected = format!("vectors of [{channels}] for {}", x.shape());
        return Err(Error::shape("batch_norm", expected, wrong.shape()));
    }
    if epsilon.is_nan() || epsilon < 0.0 {
        return Err(Error::argument("batch_norm", format!("expected epsilon ≥ 0, got {epsilon}")));
    }
    let all: Vec<&Tensor> = [x].into_iter().chain(vectors.iter().copied()).collect();
    route("batch_norm", &all)
}

/// [γ·s, m, β] of each channel, for [`affine`].
fn scale_shift(mean: &[f64], inverse: &[f64], gamma: &Tensor, beta: &Tensor) -> Vec<[f64; 3]> {
    let (gamma, beta) = (gamma.to_vec_f64(), beta.to_vec_f64());
    (0..mean.len()).map(|i| [gamma[i] * inverse[i], mean[i], beta[i]]).collect()
}

fn column(sums: &[[f64; 2]], which: usize, dtype: DType) -> Result<Tensor> {
    let values: Vec<f64> = sums.iter().map(|sum| sum[which]).collect();
    Ok(Tensor::from_slice(&values, [values.len()])?.to_dtype(dtype))
}

struct Statistics {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

/// Rows of a tile: with 64 channels 64 KiB, which stay in L2 between the two passes over them.
const TILE: usize = 256;

impl Statistics {
    fn naive<T: Real>(x: &[T], channels: usize) -> Self {
        let n = (x.len() / channels) as f64;
        let mut mean = vec![0.0; channels];
        for row in x.chunks(channels) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x.to_f64() / n);
        }
        let mut variance = vec![0.0; channels];
        for row in x.chunks(channels) {
            for ((v, x), m) in variance.iter_mut().zip(row).zip(&mean) {
                *v += (x.to_f64() - m) * (x.to_f64() - m) / n;
            }
        }
        Statistics { mean, variance }
    }

    fn tiled(isa: Isa, x: &[f32], channels: usize) -> Self {
        let tiles = (x.len() / channels).div_ceil(TILE);
        let parts = threads::map(tiles, |tile| {
            let rows = &x[tile * TILE * channels..x.len().min((tile + 1) * TILE * channels)];
            let count = (rows.len() / channels) as f32;
            let (mut mean, mut m2) = (vec![0.0f32; channels], vec![0.0f32; channels]);
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    for row in rows.chunks_exact(channels) {
                        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                    }
                    mean.iter_mut().for_each(|sum| *sum /= count);
                    for row in rows.chunks_exact(channels) {
                        for ((m2, x), m) in m2.iter_mut().zip(row).zip(&mean) {
                            *m2 += (x - m) * (x - m);
                        }
                    }
                },
            );
            (count as f64, mean, m2)
        });
        let (mut n, mut mean, mut m2) = (0.0, vec![0.0f64; channels], vec![0.0f64; channels]);
        for (count, part_mean, part_m2) in parts {
            let total = n + count;
            for i in 0..channels {
                let delta = part_mean[i] as f64 - mean[i];
                mean[i] += delta * count / total;
                m2[i] += part_m2[i] as f64 + delta * delta * n * count / total;
            }
            n = total;
        }
        Statistics { mean, variance: m2.into_iter().map(|m2| m2 / n).collect() }
    }
}

/// [Σ g, Σ g·x̂] of each channel.
fn gradient_sums(x: &Tensor, dy: &Tensor, mean: &[f64], inverse: &[f64]) -> Vec<[f64; 2]> {
    let channels = mean.len();
    match x.dtype() {
        DType::F64 => sums_naive::<f64>(x.values(), dy.values(), mean, inverse),
        _ if isa() == Isa::Reference => sums_naive::<f32>(x.values(), dy.values(), mean, inverse),
        _ => {
            let (x, dy, isa) = (x.values::<f32>(), dy.values::<f32>(), isa());
            let centre: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
            let size = TILE * channels;
            let parts = threads::map(x.len().div_ceil(size), |tile| {
                let end = x.len().min((tile + 1) * size);
                let (x, dy) = (&x[tile * size..end], &dy[tile * size..end]);
                let (mut plain, mut centred) = (vec![0.0f32; channels], vec![0.0f32; channels]);
                simd::vectorize(
                    isa,
                    #[inline(always)]
                    || {
                        for (x, g) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                            let sums = plain.iter_mut().zip(&mut centred);
                            for ((sums, &g), (&x, &m)) in sums.zip(g).zip(x.iter().zip(&centre)) {
                                *sums.0 += g;
                                *sums.1 += g * (x - m);
                            }
                        }
                    },
                );
                (plain, centred)
            });
            let mut sums = vec![[0.0f64; 2]; channels];
            for (plain, centred) in parts {
                for (i, sum) in sums.iter_mut().enumerate() {
                    sum[0] += plain[i] as f64;
                    sum[1] += centred[i] as f64;
                }
            }
            sums.iter_mut().zip(inverse).for_each(|(sum, s)| sum[1] *= s);
            sums
        }
    }
}

fn sums_naive<T: Real>(x: &[T], dy: &[T], mean: &[f64], inverse: &[f64]) -> Vec<[f64; 2]> {
    let mut sums = vec![[0.0; 2]; mean.len()];
    for (x, dy) in x.chunks(mean.len()).zip(dy.chunks(mean.len())) {
        for (i, sum) in sums.iter_mut().enumerate() {
            sum[0] += dy[i].to_f64();
            sum[1] += dy[i].to_f64() * (x[i].to_f64() - mean[i]) * inverse[i];
        }
    }
    sums
}

/// a·(x − m) + b with the constants [a, m, b] of each channel: the difference first, so that a value
/// that is its channel's mean gives exactly b.
fn affine(x: &Tensor, constants: &[[f64; 3]]) -> Tensor {
    let channels = constants.len();
    if x.dtype() == DType::F64 {
        let x_values = x.values::<f64>();
        let mut y = Buffer::<f64>::new(x_values.len());
        for (y, x) in y.chunks_mut(channels).zip(x_values.chunks(channels)) {
            for ((y, x), [a, m, b]) in y.iter_mut().zip(x).zip(constants) {
                *y = a * (x - m) + b;
            }
        }
        return Tensor::from_buffer(y, x.shape());
    }
    let part = |i: usize| constants.iter().map(|c| c[i] as f32).collect::<Vec<f32>>();
    let (a, m, b) = (part(0), part(1), part(2));
    let (input, isa) = (x.values::<f32>(), isa());
    let mut y = Buffer::<f32>::new(input.len());
    let piece = piece(channels);
    threads::for_each_chunk(&mut y, piece, |i, y| {
        let x = &input[i * piece..][..y.len()];
        simd::vectorize(
            isa,
            #[inline(always)]
            || {
                for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    let constants = a.iter().zip(&m).zip(&b);
                    for ((y, &x), ((&a, &m), &b)) in y.iter_mut().zip(x).zip(constants) {
                        *y = a * (x - m) + b;
                    }
                }
            },
        );
    });
    Tensor::from_buffer(y, x.shape())
}

/// a·(g − ḡ) + b·(x − m) with the constants [a, ḡ, b, m] of each channel.
fn combine(g: &Tensor, x: &Tensor, constants: &[[f64; 4]]) -> Tensor {
    let channels = constants.len();
    if x.dtype() == DType::F64 {
        let (g, input) = (g.values::<f64>(), x.values::<f64>());
        let mut out = Buffer::<f64>::new(input.len());
        for (i, out) in out.iter_mut().enumerate() {
            let [a, g_mean, b, mean] = constants[i % channels];
            *out = a * (g[i] - g_mean) + b * (input[i] - mean);
        }
        return Tensor::from_buffer(out, x.shape());
    }
    let part = |i: usize| constants.iter().map(|c| c[i] as f32).collect::<Vec<f32>>();
    let (a, g_mean, b, mean) = (part(0), part(1), part(2), part(3));
    let (g, input, isa) = (g.values::<f32>(), x.values::<f32>(), isa());
    let mut out = Buffer::<f32>::new(input.len());
    let piece = piece(channels);
    threads::for_each_chunk(&mut out, piece, |i, out| {
        let (g, x) = (&g[i * piece..][..out.len()], &input[i * piece..][..out.len()]);
        simd::vectorize(
            isa,
            #[inline(always)]
            || {
                let rows = g.chunks_exact(channels).zip(x.chunks_exact(channels));
                for (out, (g, x)) in out.chunks_exact_mut(channels).zip(rows) {
                    let values = out.iter_mut().zip(g.iter().zip(x));
                    let constants = a.iter().zip(&g_mean).zip(b.iter().zip(&mean));
                    for ((out, (&g, &x)), ((&a, &g_mean), (&b, &mean))) in values.zip(constants) {
                        *out = a * (g - g_mean) + b * (x - mean);
                    }
                }
            },
        );
    });
    Tensor::from_buffer(out, x.shape())
}

/// Elements a piece of a parallel pass: whole pixels.
fn piece(channels: usize) -> usize {
    (threads::PASS / channels).max(1) * channels
}

pub fn cases() -> Vec<Case> {
    let train_then = |name: &str, size, shape: &[usize], then| {
        let c = shape[shape.len() - 1];
        let inputs = vec![Input::new("x", shape), Input::new("gamma", [c]), Input::new("beta", [c])];
        Case::new("batch_norm", format!("train_{name}"), size, inputs, move |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-3, then)?.y)
        })
    };
    let train = |name: &str, size, shape: &[usize]| train_then(name, size, shape, Then::Nothing);
    let infer_then = |name: &str, size, shape: &[usize], then| {
        let c = shape[shape.len() - 1];
        let vector = |name| Input::new(name, [c]);
        let inputs = vec![
            Input::new("x", shape),
            vector("gamma"),
            vector("beta"),
            vector("mean").constant(),
            vector("variance").fill(Fill::Uniform(0.5, 1.5)).constant(),
        ];
        Case::new("batch_norm", format!("infer_{name}"), size, inputs, move |t| {
            batch_norm_infer(&t[0], &t[1], &t[2], &t[3], &t[4], 1e-3, then)
        })
    };
    let infer = |name: &str, size, shape: &[usize]| infer_then(name, size, shape, Then::Nothing);
    // The sixth of a unit: of the values that come out, some are above 6.
    let relu6 = |mut case: Case| {
        case.inputs[1].fill = Fill::Uniform(4.0, 9.0);
        case
    };
    // A mean far from zero: one pass over E[x²] − m² would lose most digits here. f32 holds the
    // inputs themselves to 6e-8 · 100, a 1e-5th of their spread.
    let mut offset = train("far_from_zero", Size::Tiny, &[3, 7, 5, 6]).tolerance(5e-5);
    offset.inputs[0].fill = Fill::Uniform(99.0, 101.0);
    vec![
        train("2x5x3x6", Size::Tiny, &[2, 5, 3, 6]),
        train("one_value", Size::Tiny, &[1, 1, 1, 4]),
        train("two_values", Size::Tiny, &[2, 1, 1, 4]),
        train("many_tiles", Size::Tiny, &[3, 17, 19, 33]),
        train("rank_2", Size::Tiny, &[9, 5]),
        offset,
        train("fours", Size::Tiny, &[3, 9, 11, 132]),
        train_then("relu_2x5x3x6", Size::Tiny, &[2, 5, 3, 6], Then::Relu),
        relu6(train_then("relu6_fours", Size::Tiny, &[3, 5, 7, 12], Then::Relu6)),
        infer_then("relu_2x5x3x6", Size::Tiny, &[2, 5, 3, 6], Then::Relu),
        relu6(infer_then("relu6_fours", Size::Tiny, &[3, 5, 7, 12], Then::Relu6)),
        infer("2x5x3x6", Size::Tiny, &[2, 5, 3, 6]),
        infer("many_tiles", Size::Tiny, &[3, 17, 19, 33]),
        train("64_112_n16", Size::Real, &[16, 112, 112, 64]),
        infer("64_112_n16", Size::Real, &[16, 112, 112, 64]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_a_channel_gives_exactly_beta() {
        let x = Tensor::from_slice(&[3.0f32, -7.3], [1, 2]).unwrap();
        let beta = Tensor::from_slice(&[0.27f32, -1.1], [2]).unwrap();
        let normed = batch_norm_train(&x, &Tensor::full([2], 1.3), &beta, 1e-3, Then::Nothing).unwrap();
        assert_eq!(normed.y.to_vec_f64(), beta.to_vec_f64());
        let (mean, variance) =
            normed.moving(&Tensor::zeros([2]), &Tensor::full([2], 1.0), 0.99).unwrap();
        assert!((mean.to_vec_f64()[0] - 0.03).abs() < 1e-8);
        assert!((variance.to_vec_f64()[0] - 0.99).abs() < 1e-7);
    }

    #[test]
    fn the_moving_variance_is_bessel_corrected() {
        let x = Tensor::from_slice(&[0.0f64, 2.0], [2, 1]).unwrap();
        let one = Tensor::from_slice(&[1.0f64], [1]).unwrap();
        let normed = batch_norm_train(&x, &one, &one, 1e-3, Then::Nothing).unwrap();
        let zero = Tensor::from_slice(&[0.0f64], [1]).unwrap();
        let (_, variance) = normed.moving(&zero, &zero, 0.5).unwrap();
        // The biased variance is 1, the corrected one 2; half of it is taken over.
        assert!((variance.item().unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn vectors_of_another_length_are_refused() {
        let x = Tensor::zeros([2, 3]);
        assert!(
            batch_norm_train(&x, &Tensor::zeros([2]), &Tensor::zeros([3]), 1e-3, Then::Nothing).is_err()
        );
        assert!(
            batch_norm_train(&x, &Tensor::zeros([3]), &Tensor::zeros([3]), f64::NAN, Then::Nothing)
                .is_err()
        );
    }
}
