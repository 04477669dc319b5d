//! Group normalisation (Wu and He, 2018): the channels of each image are cut into groups, and each group is
//! normalised by its own mean and variance. With groups = C it is instance norm, with one group layer norm
//! over all of an image.
//!
//! A group has n values (pixels · C/groups) with mean m and *biased* variance v; with s = 1/√(v + ε) and x̂ =
//! (x − m)·s:
//!
//! y = γ·x̂ + β, with γ and β of each channel.
//!
//! With g = ∂L/∂y and h = γ·g:
//!
//! - ∂L/∂β = Σ g and ∂L/∂γ = Σ g·x̂, over images and pixels;
//! - ∂L/∂x = s·(h − h̄) − s·x̂·(h·x̂)‾, with the means over the group.
//!
//! Nothing depends on the batch: training and inference are the same, and there are no moving statistics.
//!
//! **Statistics.** Of each channel as in [`crate::ops::batch_norm`] (tiles of rows, merged in f64), then
//! merged over the group: M2 = Σ M2_c + n_c·(m_c − m)². Bytes bind: forward reads x twice and writes y;
//! backward reads x and g twice and writes ∂x.

mod cuda;

use crate::autograd::{Needs, record};
use crate::backend::cpu::{simd, threads};
use crate::cases::{self, Case, Fill, Input};
use crate::context::isa;
use crate::error::{Error, Result};
use crate::ops::batch_norm::RunningStats;
use crate::ops::{Route, route};
use crate::pool::Buffer;
use crate::tensor::{Real, Shape, Tensor};

/// x [N, .., C] normalised in `groups` groups of channels, times `gamma` `[C]`, plus `beta` `[C]`. `epsilon`
/// is added to the variance: 1e-5 in PyTorch, 1e-3 in Keras. An error unless the groups are equally large
/// and have values.
///
/// See [`Tensor::group_norm`], which has an example.
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    gamma: &Tensor,
    beta: &Tensor,
    epsilon: f64,
) -> Result<Tensor> {
    let layout = Groups::new(x.shape(), groups, [gamma, beta], epsilon)?;
    let on = route("group_norm", &[x, gamma, beta])?;
    if let Route::Cuda(cuda) = on {
        return cuda::group_norm(cuda, layout, x, [gamma, beta], epsilon);
    }
    let statistics = match on {
        Route::F64 => layout.naive_statistics::<f64>(x, epsilon),
        Route::Reference => layout.naive_statistics::<f32>(x, epsilon),
        _ => layout.fast_statistics(x, epsilon),
    };
    let output = match on {
        Route::F64 => layout.normalise::<f64>(&statistics, x, gamma, beta),
        _ => layout.normalise::<f32>(&statistics, x, gamma, beta),
    };
    let saved = Needs::of([x, gamma, beta]).any().then(|| (x.detach(), gamma.detach()));
    Ok(record("group_norm", [x, gamma, beta], output, move |dy| {
        let (x, gamma) = saved.expect("saved when an input needs a gradient");
        Ok(match route("group_norm", &[&x, &dy])? {
            Route::F64 => layout.gradients::<f64>(&statistics, &x, &dy, &gamma),
            _ => layout.gradients::<f32>(&statistics, &x, &dy, &gamma),
        }
        .map(Some))
    }))
}

impl Tensor {
    /// This [N, .., C] normalised in `groups` groups of channels of each image, times `gamma` `[C]`, plus
    /// `beta` `[C]`; `epsilon` is added to the variance. An error unless the groups are equally large and
    /// have values.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let x = Tensor::randn([2, 4, 4, 6], 7);
    /// let y = x.group_norm(3, &Tensor::ones([6]), &Tensor::zeros([6]), 1e-5)?; // 3 groups of 2 channels
    /// assert!(y.mean()?.item()?.abs() < 1e-5);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn group_norm(
        &self,
        groups: usize,
        gamma: &Tensor,
        beta: &Tensor,
        epsilon: f64,
    ) -> Result<Tensor> {
        group_norm(self, groups, gamma, beta, epsilon)
    }
}

#[derive(Clone, Copy, Debug)]
struct Groups {
    shape: Shape,
    images: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
}

/// Of the groups of one image: the mean, and 1/√(v + ε).
struct Statistics {
    mean: Vec<f64>,
    inverse: Vec<f64>,
}

impl Groups {
    fn new(shape: Shape, groups: usize, vectors: [&Tensor; 2], epsilon: f64) -> Result<Self> {
        let (images, channels) = match shape[..] {
            [images, .., channels] => (images, channels),
            _ => return Err(Error::shape("group_norm", "x [N, .., C]", shape)),
        };
        let pixels = shape[1..shape.len() - 1].iter().product();
        if let Some(wrong) = vectors.iter().find(|vector| vector.shape()[..] != [channels]) {
            let expected = format!("vectors of [{channels}] for {shape}");
            return Err(Error::shape("group_norm", expected, wrong.shape()));
        }
        if groups == 0 || !channels.is_multiple_of(groups) {
            let message =
                format!("expected a number of groups that divides {channels} channels, got {groups}");
            return Err(Error::argument("group_norm", message));
        }
        if epsilon.is_nan() || epsilon < 0.0 {
            return Err(Error::argument("group_norm", format!("expected epsilon ≥ 0, got {epsilon}")));
        }
        if pixels * channels == 0 {
            return Err(Error::shape("group_norm", "at least one value a group", shape));
        }
        Ok(Groups { shape, images, pixels, channels, groups })
    }

    /// Channels of a group.
    fn size(&self) -> usize {
        self.channels / self.groups
    }

    fn image(&self) -> usize {
        self.pixels * self.channels
    }

    fn naive_statistics<T: Real>(&self, x: &Tensor, epsilon: f64) -> Vec<Statistics> {
        let of_image = |x: &[T]| {
            let values = |group: usize| {
                let in_group = move |i: &usize| i % self.channels / self.size() == group;
                (0..self.image()).filter(in_group).map(|i| x[i].to_f64())
            };
            let n = (self.pixels * self.size()) as f64;
            let mean = |group| values(group).sum::<f64>() / n;
            let variance = |group| {
                let mean = mean(group);
                values(group).map(|x| (x - mean) * (x - mean)).sum::<f64>() / n
            };
            Statistics {
                mean: (0..self.groups).map(mean).collect(),
                inverse: (0..self.groups)
                    .map(|group| 1.0 / (variance(group) + epsilon).sqrt())
                    .collect(),
            }
        };
        x.values::<T>().chunks(self.image()).map(of_image).collect()
    }

    fn fast_statistics(&self, x: &Tensor, epsilon: f64) -> Vec<Statistics> {
        let (x, isa) = (x.values::<f32>(), isa());
        threads::map(self.images, |image| {
            let x = &x[image * self.image()..][..self.image()];
            let of_channels = RunningStats::of(isa, x, [self.pixels, self.channels].into()).merge();
            let (mut mean, mut inverse) = (Vec::new(), Vec::new());
            let means = of_channels.mean.chunks(self.size());
            for (means, variances) in means.zip(of_channels.variance.chunks(self.size())) {
                let n = means.len() as f64;
                let m = means.iter().sum::<f64>() / n;
                let apart = means.iter().zip(variances).map(|(mean, v)| v + (mean - m) * (mean - m));
                mean.push(m);
                inverse.push(1.0 / (apart.sum::<f64>() / n + epsilon).sqrt());
            }
            Statistics { mean, inverse }
        })
    }

    /// A number for each channel of an image.
    fn channels<T: Real>(&self, f: impl Fn(usize, usize) -> f64) -> Vec<T> {
        (0..self.channels).map(|c| T::from_f64(f(c, c / self.size()))).collect()
    }

    /// Fills a tensor, some rows of an image a task: `make(image, elements, rows)`, with which elements of
    /// all those are.
    fn fill<T: Real>(
        &self,
        make: impl Fn(usize, std::ops::Range<usize>, &mut [T]) + Sync + Send,
    ) -> Tensor {
        let mut out = Buffer::<T>::new(self.shape.elements());
        let piece = (threads::GRAIN_SIZE / self.channels).max(1) * self.channels;
        threads::for_each_chunk(&mut out, self.image(), |image, out| {
            threads::for_each_chunk(out, piece, |i, rows| {
                let start = image * self.image() + i * piece;
                make(image, start..start + rows.len(), rows);
            });
        });
        Tensor::from_buffer(out, self.shape)
    }

    fn normalise<T: Real>(
        &self,
        statistics: &[Statistics],
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
    ) -> Tensor {
        let (x, isa, gamma) = (x.values::<T>(), isa(), gamma.to_vec_f64());
        let beta = beta.values::<T>();
        let constants: Vec<[Vec<T>; 2]> = statistics
            .iter()
            .map(|of| [self.channels(|_, k| of.mean[k]), self.channels(|c, k| gamma[c] * of.inverse[k])])
            .collect();
        self.fill(|image, elements, out| {
            let [mean, scale] = &constants[image];
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    let rows = x[elements].chunks_exact(self.channels);
                    for (out, x) in out.chunks_exact_mut(self.channels).zip(rows) {
                        let constants = mean.iter().zip(scale).zip(beta);
                        for ((y, &x), ((&mean, &scale), &beta)) in out.iter_mut().zip(x).zip(constants) {
                            *y = (x - mean) * scale + beta;
                        }
                    }
                },
            );
        })
    }

    /// [∂L/∂x, ∂L/∂γ, ∂L/∂β]
    fn gradients<T: Real>(
        &self,
        statistics: &[Statistics],
        x: &Tensor,
        dy: &Tensor,
        gamma: &Tensor,
    ) -> [Tensor; 3] {
        let gamma = gamma.to_vec_f64();
        let sums = self.sums::<T>(statistics, x.values(), dy.values());
        let n = (self.pixels * self.size()) as f64;
        let (mut dgamma, mut dbeta) = (vec![0.0; self.channels], vec![0.0; self.channels]);
        // Of each channel of an image [m, γ·s, s·h̄, s²·(h·x̂)‾].
        let mut constants: Vec<[Vec<T>; 4]> = Vec::new();
        for (of, sums) in statistics.iter().zip(sums.chunks(self.channels)) {
            let mut means = vec![[0.0; 2]; self.groups];
            for (c, [plain, centred]) in sums.iter().enumerate() {
                let k = c / self.size();
                dbeta[c] += plain;
                dgamma[c] += centred * of.inverse[k];
                means[k][0] += gamma[c] * plain / n;
                means[k][1] += gamma[c] * centred * of.inverse[k] / n;
            }
            constants.push([
                self.channels(|_, k| of.mean[k]),
                self.channels(|c, k| gamma[c] * of.inverse[k]),
                self.channels(|_, k| of.inverse[k] * means[k][0]),
                self.channels(|_, k| of.inverse[k] * of.inverse[k] * means[k][1]),
            ]);
        }
        let vector = |values: Vec<f64>| {
            let values: Vec<T> = values.into_iter().map(T::from_f64).collect();
            Tensor::from_buffer(Buffer::from_slice(&values), [self.channels])
        };
        let dx = self.input_gradient::<T>(&constants, x.values(), dy.values());
        [dx, vector(dgamma), vector(dbeta)]
    }

    /// [Σ g, Σ g·(x − m)] over the pixels, of each channel of each image.
    fn sums<T: Real>(&self, statistics: &[Statistics], x: &[T], g: &[T]) -> Vec<[f64; 2]> {
        /// Pixels whose sums are made in T; these are added in f64.
        const TILE: usize = 64;
        let (isa, size) = (isa(), TILE * self.channels);
        let tiles = self.pixels.div_ceil(TILE);
        let parts = threads::map(self.images * tiles, |task| {
            let (image, tile) = (task / tiles, task % tiles);
            let mean: Vec<T> = self.channels(|_, k| statistics[image].mean[k]);
            let start = image * self.image() + tile * size;
            let end = (start + size).min((image + 1) * self.image());
            let (mut plain, mut centred) = (vec![T::ZERO; self.channels], vec![T::ZERO; self.channels]);
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    let rows = x[start..end].chunks_exact(self.channels);
                    for (x, g) in rows.zip(g[start..end].chunks_exact(self.channels)) {
                        let sums = plain.iter_mut().zip(&mut centred).zip(&mean);
                        for (((plain, centred), &mean), (&x, &g)) in sums.zip(x.iter().zip(g)) {
                            *plain += g;
                            *centred += g * (x - mean);
                        }
                    }
                },
            );
            (plain, centred)
        });
        let mut sums = vec![[0.0; 2]; self.images * self.channels];
        for (task, (plain, centred)) in parts.iter().enumerate() {
            let sums = &mut sums[task / tiles * self.channels..][..self.channels];
            for (sum, (plain, centred)) in sums.iter_mut().zip(plain.iter().zip(centred)) {
                sum[0] += plain.to_f64();
                sum[1] += centred.to_f64();
            }
        }
        sums
    }

    fn input_gradient<T: Real>(&self, constants: &[[Vec<T>; 4]], x: &[T], g: &[T]) -> Tensor {
        let isa = isa();
        self.fill(|image, elements, out| {
            let [mean, scale, of_mean, of_centred] = &constants[image];
            simd::vectorize(
                isa,
                #[inline(always)]
                || {
                    let x = x[elements.clone()].chunks_exact(self.channels);
                    let rows = x.zip(g[elements.clone()].chunks_exact(self.channels));
                    for (out, (x, g)) in out.chunks_exact_mut(self.channels).zip(rows) {
                        let constants = mean.iter().zip(scale).zip(of_mean.iter().zip(of_centred));
                        let values = out.iter_mut().zip(x.iter().zip(g)).zip(constants);
                        for ((d, (&x, &g)), ((&mean, &scale), (&of_mean, &of_centred))) in values {
                            *d = (scale * g - of_mean) - of_centred * (x - mean);
                        }
                    }
                },
            );
        })
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &'static str, size, shape: &[usize], groups: usize| {
        let channels = shape[shape.len() - 1];
        let inputs = vec![
            Input::new("x", shape),
            Input::new("gamma", [channels]).fill(Fill::Uniform(0.5, 1.5)),
            Input::new("beta", [channels]),
        ];
        Case::new("group_norm", name, size, inputs, move |t| {
            group_norm(&t[0], groups, &t[1], &t[2], 1e-3)
        })
    };
    vec![
        case("3_of_2", cases::Size::Tiny, &[2, 5, 7, 6], 3),
        case("2_of_4", cases::Size::Tiny, &[3, 4, 5, 8], 2),
        case("instance", cases::Size::Tiny, &[2, 9, 11, 5], 5),
        case("layer", cases::Size::Tiny, &[3, 4, 3, 7], 1),
        case("vectors", cases::Size::Tiny, &[4, 12], 3),
        case("pieces", cases::Size::Tiny, &[2, 61, 53, 36], 4),
        case("32_16x112x112x64", cases::Size::Real, &[16, 112, 112, 64], 32),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use crate::ops::batch_norm_train;
    use crate::tensor::DType;

    fn noise(shape: &[usize]) -> Tensor {
        let n = shape.iter().product::<usize>();
        let values: Vec<f64> = (0..n).map(|i| 3.0 + (i as f64 * 0.7).sin()).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    #[test]
    fn a_group_a_channel_is_the_batch_norm_of_one_image() {
        let (x, gamma, beta) = (noise(&[1, 5, 4, 6]), noise(&[6]), noise(&[6]));
        let y = group_norm(&x, 6, &gamma, &beta, 1e-3).unwrap().to_vec_f64();
        let expected = batch_norm_train(&x, &gamma, &beta, 1e-3, Activation::Linear).unwrap().y;
        for (y, expected) in y.iter().zip(expected.to_vec_f64()) {
            assert!((y - expected).abs() < 1e-12, "{y} {expected}");
        }
    }

    #[test]
    fn each_group_of_each_image_has_mean_zero_and_variance_one() {
        let (one, zero) = (Tensor::full([6], 1.0), Tensor::zeros([6]));
        let y = group_norm(&noise(&[2, 5, 4, 6]).to_dtype(DType::F32), 2, &one, &zero, 0.0).unwrap();
        for image in y.to_vec_f64().chunks(5 * 4 * 6) {
            for group in 0..2 {
                let of_group = |i: &usize| i % 6 / 3 == group;
                let values: Vec<f64> = (0..image.len()).filter(of_group).map(|i| image[i]).collect();
                let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
                assert!(mean(&values).abs() < 1e-6);
                let squares: Vec<f64> = values.iter().map(|y| y * y).collect();
                assert!((mean(&squares) - 1.0).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn one_value_a_group_gives_beta() {
        let (gamma, beta) = (noise(&[3]), noise(&[3]));
        let y = group_norm(&noise(&[2, 1, 1, 3]), 3, &gamma, &beta, 1e-3).unwrap().to_vec_f64();
        assert_eq!(y, [beta.to_vec_f64(), beta.to_vec_f64()].concat());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (x, v) = (Tensor::zeros([2, 3, 4]), Tensor::zeros([4]));
        let error = group_norm(&x, 3, &v, &v, 1e-3).unwrap_err().to_string();
        assert_eq!(error, "group_norm: expected a number of groups that divides 4 channels, got 3");
        assert!(group_norm(&x, 0, &v, &v, 1e-3).is_err() && group_norm(&x, 2, &v, &v, -1.0).is_err());
        assert!(group_norm(&x, 2, &Tensor::zeros([3]), &v, 1e-3).is_err());
        assert!(group_norm(&v, 2, &v, &v, 1e-3).is_err());
        assert!(group_norm(&Tensor::zeros([2, 0, 4]), 2, &v, &v, 1e-3).is_err());
        assert_eq!(
            group_norm(&Tensor::zeros([0, 3, 4]), 2, &v, &v, 1e-3).unwrap().shape()[..],
            [0, 3, 4]
        );
    }
}
