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
//! Bytes bind: training reads x twice and writes y, or once where the convolution before it has told the
//! statistics (`moments.rs`); backward reads x and g twice and writes ∂x (inference: reads each once).

/// The body for every vector of `channels` elements: from c on, n of them, whole vectors with FULL = true.
macro_rules! for_each_vector {
    ($V:ident, $channels:expr, $full:ident, $c:ident, $n:ident, $body:expr) => {
        let whole = $channels - $channels % $V::LANES;
        for $c in (0..whole).step_by($V::LANES) {
            const $full: bool = true;
            let $n = $V::LANES;
            $body
        }
        if whole < $channels {
            const $full: bool = false;
            let ($c, $n) = (whole, $channels - whole);
            $body
        }
    };
}

mod cpu;
mod cuda;
mod moments;

pub(crate) use moments::{RunningStats, fill};

use crate::activation::Activation;
use crate::autograd::{Needs, record};
use crate::backend::cpu::simd::Isa;
use crate::backend::cuda::Cuda;
use crate::cases::{Case, Fill, Input, Size};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::epilogue::Epilogue;
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Tensor};

/// What one training batch says about its channels.
///
/// ```
/// use atrous::Tensor;
///
/// let x = Tensor::from([[1.0f32], [3.0]]); // two samples of one channel
/// let norm = x.batch_norm_train(&Tensor::ones([1]), &Tensor::zeros([1]), 0.0)?;
/// assert_eq!((norm.mean.item()?, norm.variance.item()?, norm.count), (2.0, 1.0, 2));
/// let (mean, variance) = norm.moving(&Tensor::zeros([1]), &Tensor::ones([1]), 0.75)?;
/// assert_eq!(mean.item()?, 0.75 * 0.0 + 0.25 * 2.0);
/// assert_eq!(variance.item()?, 0.75 * 1.0 + 0.25 * (1.0 * 2.0)); // n/(n − 1) = 2
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct BatchNorm {
    /// `[..., C]` as x: normalised, scaled by gamma, shifted by beta, and activated.
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
            return cuda::moving(cuda, [mean, variance], of_batch, momentum, bessel);
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
///
/// ```
/// use atrous::{Activation, Tensor, ops};
///
/// let x = Tensor::from([[1.0f32], [3.0]]); // mean 2, variance 1
/// let (gamma, beta) = (Tensor::from([2.0f32]), Tensor::from([1.0f32]));
/// let norm = ops::batch_norm_train(&x, &gamma, &beta, 0.0, Activation::Relu)?;
/// assert_eq!(norm.y.to_vec_f64(), [0.0, 3.0]); // relu of ∓1 · 2 + 1
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn batch_norm_train(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<BatchNorm> {
    batch_norm_train_fused(None, x, [gamma, beta], epsilon, activation.into())
}

/// The same and what its epilogue makes of the result; x's statistics are `known` where the operator that
/// made it has told them.
pub(crate) fn batch_norm_train_fused(
    known: Option<Statistics>,
    x: &Tensor,
    scale_shift: [&Tensor; 2],
    epsilon: f64,
    mut epilogue: Epilogue,
) -> Result<BatchNorm> {
    let activation = epilogue.take_activation();
    let normed = train(known, x, scale_shift, epsilon, activation)?;
    Ok(BatchNorm { y: epilogue.apply(normed.y)?, ..normed })
}

fn train(
    known: Option<Statistics>,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    epsilon: f64,
    activation: Activation,
) -> Result<BatchNorm> {
    let route = check(x, &[gamma, beta], epsilon)?;
    let (dtype, channels) = (x.dtype(), x.shape().last_length());
    let count = x.shape().elements() / channels;
    if count == 0 {
        return Err(Error::shape("batch_norm", "at least one value a channel", x.shape()));
    }
    let fused = route.fuses();
    let statistics = match route {
        Route::Fast if let Some(known) = known => known,
        Route::F64 => Statistics::naive::<f64>(x.values(), channels),
        Route::Reference => Statistics::naive::<f32>(x.values(), channels),
        Route::Fast => RunningStats::of(isa(), x.values(), x.shape()).merge(),
        Route::Cuda(cuda) => return train_on_device(cuda, x, [gamma, beta], epsilon, count, activation),
    };
    let tensor =
        |values: &[f64]| Ok::<_, Error>(Tensor::from_slice(values, [channels])?.to_dtype(dtype));
    let (mean, variance) = (tensor(&statistics.mean)?, tensor(&statistics.variance)?);
    let normal = NormParams::new(statistics.mean, &statistics.variance, epsilon, gamma, beta);
    let then_here = if fused { activation } else { Activation::Linear };
    let y = normalise(x, &normal, then_here);
    let needs = Needs::of([x, gamma, beta]);
    let saved = needs.any().then(|| x.detach());
    let y = record("batch_norm", [x, gamma, beta], y, move |dy| {
        let x = saved.expect("saved when an input needs a gradient");
        let sums = gradient_sums(&x, &dy, &normal, then_here, None);
        let dx = needs.0[0].then(|| {
            let n = count as f64;
            // ∂x = a·(g − ḡ) + b·(x − m): differences first, so that little is lost where they are
            // small, and nothing where n = 1.
            let constants: Vec<[f64; 3]> = (0..channels)
                .map(|i| {
                    let [dbeta, dgamma] = sums[i];
                    let a = normal.gamma[i] * normal.inverse[i];
                    [a, dbeta / n, -a * normal.inverse[i] * dgamma / n]
                })
                .collect();
            input_gradient(&dy, &x, &normal, &constants, then_here)
        });
        Ok([dx, Some(column(&sums, 1, dtype)?), Some(column(&sums, 0, dtype)?)])
    });
    Ok(BatchNorm { y: activation.complete(fused, y)?, mean, variance, count })
}

fn train_on_device(
    cuda: &'static Cuda,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    epsilon: f64,
    count: usize,
    activation: Activation,
) -> Result<BatchNorm> {
    let statistics = cuda::statistics(cuda, x, epsilon)?;
    let y = statistics.normalise(cuda, x, [gamma, beta], activation)?;
    let (mean, variance) = (statistics.mean.detach(), statistics.variance.detach());
    let needs = Needs::of([x, gamma, beta]);
    let saved = needs.any().then(|| (x.detach(), gamma.detach(), beta.detach()));
    let y = record("batch_norm", [x, gamma, beta], y, move |dy| {
        let (x, gamma, beta) = saved.expect("saved when an input needs a gradient");
        let (dgamma, dbeta) = statistics.gradients(cuda, &x, &dy, [&gamma, &beta], activation)?;
        let sums = [&dgamma, &dbeta];
        let dx = match needs.0[0] {
            true => Some(statistics.data_train(cuda, &x, &dy, [&gamma, &beta], sums, activation)?),
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
    statistics: cuda::Statistics,
    activation: Activation,
) -> Result<Tensor> {
    let y = statistics.normalise(cuda, x, [gamma, beta], activation)?;
    let needs = Needs::of([x, gamma, beta]);
    let of_vectors = needs.0[1] || needs.0[2];
    // An activation's gradient is known from x.
    let saved_x = (of_vectors || (needs.any() && activation != Activation::Linear)).then(|| x.detach());
    let (gamma_values, beta_values) = (gamma.detach(), beta.detach());
    Ok(record("batch_norm", [x, gamma, beta], y, move |dy| {
        let scale_shift = [&gamma_values, &beta_values];
        let (dgamma, dbeta) = match &saved_x {
            Some(x) if of_vectors => {
                let (dgamma, dbeta) = statistics.gradients(cuda, x, &dy, scale_shift, activation)?;
                (Some(dgamma), Some(dbeta))
            }
            _ => (None, None),
        };
        let dx = match needs.0[0] {
            true => Some(statistics.data_infer(cuda, saved_x.as_ref(), &dy, scale_shift, activation)?),
            false => None,
        };
        Ok([dx, dgamma, dbeta])
    }))
}

/// Normalises by given statistics: y = γ·(x − mean)/√(variance + ε) + β. No gradient flows into
/// the statistics.
///
/// ```
/// use atrous::{Activation, Tensor, ops};
///
/// let x = Tensor::from([[1.0f32], [3.0]]);
/// let [gamma, beta, mean, variance] = [2.0f32, 1.0, 3.0, 4.0].map(|value| Tensor::from([value]));
/// let y = ops::batch_norm_infer(&x, &gamma, &beta, &mean, &variance, 0.0, Activation::Linear)?;
/// assert_eq!(y.to_vec_f64(), [-1.0, 1.0]); // (1 − 3)/√4 · 2 + 1
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn batch_norm_infer(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    batch_norm_infer_fused(x, [gamma, beta], [mean, variance], epsilon, activation.into())
}

/// [`batch_norm_infer`], and what its epilogue makes of the result.
pub(crate) fn batch_norm_infer_fused(
    x: &Tensor,
    scale_shift: [&Tensor; 2],
    statistics: [&Tensor; 2],
    epsilon: f64,
    mut epilogue: Epilogue,
) -> Result<Tensor> {
    let activation = epilogue.take_activation();
    epilogue.apply(infer(x, scale_shift, statistics, epsilon, activation)?)
}

fn infer(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    [mean, variance]: [&Tensor; 2],
    epsilon: f64,
    activation: Activation,
) -> Result<Tensor> {
    let (route, dtype) = (check(x, &[gamma, beta, mean, variance], epsilon)?, x.dtype());
    let fused = route.fuses();
    if let Route::Cuda(cuda) = route {
        let statistics = cuda::given(cuda, mean, variance, epsilon)?;
        return infer_on_device(cuda, x, [gamma, beta], statistics, activation);
    }
    let normal = NormParams::new(mean.to_vec_f64(), &variance.to_vec_f64(), epsilon, gamma, beta);
    let then_here = if fused { activation } else { Activation::Linear };
    let y = normalise(x, &normal, then_here);
    let needs = Needs::of([x, gamma, beta]);
    // An activation's gradient is known from x.
    let of_vectors = needs.0[1] || needs.0[2];
    let saved_x = (of_vectors || (needs.any() && then_here != Activation::Linear)).then(|| x.detach());
    let y = record("batch_norm", [x, gamma, beta], y, move |dy| {
        let (dx, sums) = match &saved_x {
            // All of them in one pass, where there is a kernel for it.
            Some(x) if of_vectors && needs.0[0] && fused && isa() != Isa::Reference => {
                let mut dx = Buffer::<f32>::new(x.shape().elements());
                let sums = gradient_sums(x, &dy, &normal, then_here, Some(&mut dx));
                (Some(Tensor::from_buffer(dx, x.shape())), Some(sums))
            }
            _ => {
                let of = saved_x.as_ref().filter(|_| of_vectors);
                let sums = of.map(|x| gradient_sums(x, &dy, &normal, then_here, None));
                // Without an activation x does not matter: any tensor of its shape stands for it.
                let x = saved_x.as_ref().unwrap_or(&dy);
                let [scale, ..] = normal.constants();
                let constants: Vec<[f64; 3]> = scale.iter().map(|&a| [a, 0.0, 0.0]).collect();
                let dx = || input_gradient(&dy, x, &normal, &constants, then_here);
                (needs.0[0].then(dx), sums)
            }
        };
        let share = |i| sums.as_ref().map(|sums| column(sums, i, dtype)).transpose();
        let (dgamma, dbeta) = (share(1)?, share(0)?);
        Ok([dx, dgamma, dbeta])
    });
    activation.complete(fused, y)
}

fn check(x: &Tensor, vectors: &[&Tensor], epsilon: f64) -> Result<Route> {
    let channels = x.shape().last_length();
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

/// What a channel is normalised by, and into.
struct NormParams {
    mean: Vec<f64>,
    /// 1/√(v + ε)
    inverse: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
}

impl NormParams {
    fn new(mean: Vec<f64>, variance: &[f64], epsilon: f64, gamma: &Tensor, beta: &Tensor) -> Self {
        let inverse = variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
        NormParams { mean, inverse, gamma: gamma.to_vec_f64(), beta: beta.to_vec_f64() }
    }

    /// [γ·s, m, β], each a channel.
    fn constants(&self) -> [Vec<f64>; 3] {
        let scale = self.gamma.iter().zip(&self.inverse).map(|(g, s)| g * s).collect();
        [scale, self.mean.clone(), self.beta.clone()]
    }
}

fn column(sums: &[[f64; 2]], which: usize, dtype: DType) -> Result<Tensor> {
    let values: Vec<f64> = sums.iter().map(|sum| sum[which]).collect();
    Ok(Tensor::from_slice(&values, [values.len()])?.to_dtype(dtype))
}

/// Of each channel of a batch; the variance is the biased one.
pub(crate) struct Statistics {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
}

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
}

/// [Σ g, Σ g·x̂] of each channel, g as it comes through the activation of y = γ·x̂ + β.
/// The fast kernel writes `dx`, of constant statistics, in the same pass; the others leave it.
fn gradient_sums(
    x: &Tensor,
    dy: &Tensor,
    normal: &NormParams,
    activation: Activation,
    dx: Option<&mut [f32]>,
) -> Vec<[f64; 2]> {
    let mut sums = match x.dtype() {
        DType::F64 => return sums_naive::<f64>(x.values(), dy.values(), &normal.mean, &normal.inverse),
        _ if isa() == Isa::Reference => {
            return sums_naive::<f32>(x.values(), dy.values(), &normal.mean, &normal.inverse);
        }
        _ => cpu::gradient_sums(x.values(), dy.values(), normal, activation, dx),
    };
    sums.iter_mut().zip(&normal.inverse).for_each(|(sum, s)| sum[1] *= s);
    sums
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

/// then(γ·s·(x − m) + β): the difference first, so that a value that is its channel's mean gives exactly β.
fn normalise(x: &Tensor, normal: &NormParams, activation: Activation) -> Tensor {
    if x.dtype() == DType::F64 {
        let [a, m, b] = normal.constants();
        let input = x.values::<f64>();
        let mut y = Buffer::<f64>::new(input.len());
        for (i, y) in y.iter_mut().enumerate() {
            let c = i % a.len();
            *y = a[c] * (input[i] - m[c]) + b[c];
        }
        return Tensor::from_buffer(y, x.shape());
    }
    cpu::normalise(x, normal, activation)
}

/// ∂x = a·(g − ḡ) + b·(x − m) with the constants [a, ḡ, b] of each channel, g as it comes through the
/// activation.
fn input_gradient(
    dy: &Tensor,
    x: &Tensor,
    normal: &NormParams,
    constants: &[[f64; 3]],
    activation: Activation,
) -> Tensor {
    if x.dtype() == DType::F64 {
        let (g, input) = (dy.values::<f64>(), x.values::<f64>());
        let mut out = Buffer::<f64>::new(input.len());
        for (i, out) in out.iter_mut().enumerate() {
            let c = i % constants.len();
            let [a, g_mean, b] = constants[c];
            *out = a * (g[i] - g_mean) + b * (input[i] - normal.mean[c]);
        }
        return Tensor::from_buffer(out, x.shape());
    }
    cpu::input_gradient(dy, x, normal, constants, activation)
}

pub(crate) fn cases() -> Vec<Case> {
    let train_then = |name: &str, size, shape: &[usize], activation| {
        let c = shape[shape.len() - 1];
        let inputs = vec![Input::new("x", shape), Input::new("gamma", [c]), Input::new("beta", [c])];
        Case::new("batch_norm", format!("train_{name}"), size, inputs, move |t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], 1e-3, activation)?.y)
        })
    };
    let train = |name: &str, size, shape: &[usize]| train_then(name, size, shape, Activation::Linear);
    let infer_then = |name: &str, size, shape: &[usize], activation| {
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
            batch_norm_infer(&t[0], &t[1], &t[2], &t[3], &t[4], 1e-3, activation)
        })
    };
    let infer = |name: &str, size, shape: &[usize]| infer_then(name, size, shape, Activation::Linear);
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
        train_then("relu_2x5x3x6", Size::Tiny, &[2, 5, 3, 6], Activation::Relu),
        relu6(train_then("relu6_fours", Size::Tiny, &[3, 5, 7, 12], Activation::Relu6)),
        infer_then("relu_2x5x3x6", Size::Tiny, &[2, 5, 3, 6], Activation::Relu),
        relu6(infer_then("relu6_fours", Size::Tiny, &[3, 5, 7, 12], Activation::Relu6)),
        infer("2x5x3x6", Size::Tiny, &[2, 5, 3, 6]),
        infer("many_tiles", Size::Tiny, &[3, 17, 19, 33]),
        train("64_112_n16", Size::Real, &[16, 112, 112, 64]).peer("batch_norm_train", "[16] 64 112x112"),
        infer("64_112_n16", Size::Real, &[16, 112, 112, 64]),
    ]
}

impl Tensor {
    /// [`batch_norm_train`] without an activation: `[..., C]` normalised by its own statistics, which come
    /// along.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32], [3.0]]); // two samples of one channel: mean 2, variance 1
    /// let norm = x.batch_norm_train(&Tensor::ones([1]), &Tensor::zeros([1]), 0.0)?;
    /// assert_eq!(norm.y.to_vec_f64(), [-1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn batch_norm_train(&self, gamma: &Tensor, beta: &Tensor, epsilon: f64) -> Result<BatchNorm> {
        batch_norm_train(self, gamma, beta, epsilon, Activation::Linear)
    }

    /// [`batch_norm_infer`] without an activation: `[..., C]` normalised by given statistics `[C]`.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::from([[1.0f32], [3.0]]);
    /// let (one, zero) = (Tensor::ones([1]), Tensor::zeros([1]));
    /// let y = x.batch_norm_infer(&one, &zero, [&Tensor::from([2.0f32]), &one], 0.0)?;
    /// assert_eq!(y.to_vec_f64(), [-1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn batch_norm_infer(
        &self,
        gamma: &Tensor,
        beta: &Tensor,
        [mean, variance]: [&Tensor; 2],
        epsilon: f64,
    ) -> Result<Tensor> {
        batch_norm_infer(self, gamma, beta, mean, variance, epsilon, Activation::Linear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_a_channel_gives_exactly_beta() {
        let x = Tensor::from_slice(&[3.0f32, -7.3], [1, 2]).unwrap();
        let beta = Tensor::from_slice(&[0.27f32, -1.1], [2]).unwrap();
        let normed =
            batch_norm_train(&x, &Tensor::full([2], 1.3), &beta, 1e-3, Activation::Linear).unwrap();
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
        let normed = batch_norm_train(&x, &one, &one, 1e-3, Activation::Linear).unwrap();
        let zero = Tensor::from_slice(&[0.0f64], [1]).unwrap();
        let (_, variance) = normed.moving(&zero, &zero, 0.5).unwrap();
        // The biased variance is 1, the corrected one 2; half of it is taken over.
        assert!((variance.item().unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn vectors_of_another_length_are_refused() {
        let x = Tensor::zeros([2, 3]);
        assert!(
            batch_norm_train(&x, &Tensor::zeros([2]), &Tensor::zeros([3]), 1e-3, Activation::Linear)
                .is_err()
        );
        assert!(
            batch_norm_train(&x, &Tensor::zeros([3]), &Tensor::zeros([3]), f64::NAN, Activation::Linear)
                .is_err()
        );
    }
}
