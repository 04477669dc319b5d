//! Batch normalisation on a CUDA device: launches of `kernels/batch_norm.cu`.

use crate::activation::Activation;
use crate::backend::cuda::{Argument, Cuda, Kernel, LaunchConfig, Memory, arguments, is_wide};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

fn kernel(name: &'static str) -> Kernel {
    Kernel::of("batch_norm", name)
}

/// A kernel for any number of channels, and for multiples of four, which it takes four at a time.
type Names = [&'static str; 2];

/// A pass over n elements.
///
/// # Safety
/// [`Cuda::launch`]'s contract.
unsafe fn pass(cuda: &Cuda, names: Names, n: usize, channels: usize, all: &[Argument]) -> Result<()> {
    // SAFETY: the caller's.
    unsafe { cuda.launch_pass("batch_norm", names, n, channels, all) }
}

/// How rows of channels are cut into tiles: at most 1024 of them, each at least 64 rows.
struct Tiles {
    cuda: &'static Cuda,
    rows: usize,
    channels: usize,
    length: usize,
    count: usize,
}

impl Tiles {
    fn new(cuda: &'static Cuda, rows: usize, channels: usize) -> Result<Self> {
        if i32::try_from(channels).is_err() {
            return Err(Error::argument("batch_norm", format!("{channels} channels are too many")));
        }
        let length = rows.div_ceil(1024).max(64);
        Ok(Tiles { cuda, rows, channels, length, count: rows.div_ceil(length) })
    }

    /// # Safety
    /// [`Cuda::launch`]'s contract.
    unsafe fn launch(&self, names: Names, all: &[Argument]) -> Result<()> {
        let wide = is_wide(self.channels);
        let of_block = if wide { 128 } else { 32 };
        let size = LaunchConfig::grid([self.channels.div_ceil(of_block), self.count, 1], [32, 8, 1])?;
        // SAFETY: the caller's.
        unsafe { self.cuda.launch(kernel(names[wide as usize]), size, all) }
    }

    /// 32 threads a channel, which share its tiles.
    ///
    /// # Safety
    /// [`Cuda::launch`]'s contract.
    unsafe fn merge(&self, name: &'static str, all: &[Argument]) -> Result<()> {
        let size = LaunchConfig::grid([self.channels.div_ceil(32), 1, 1], [32, 32, 1])?;
        // SAFETY: the caller's.
        unsafe { self.cuda.launch(kernel(name), size, all) }
    }

    fn partial(&self) -> Result<Memory> {
        self.cuda.scratch(8 * 2 * self.count * self.channels)
    }

    fn vector(&self) -> Result<Memory> {
        self.cuda.allocate(self.channels, DType::F32)
    }
}

/// What normalises a batch, each `[C]`.
pub struct Statistics {
    pub mean: Tensor,
    /// The biased one.
    pub variance: Tensor,
    /// 1/√(variance + ε)
    pub inverse: Tensor,
}

/// Of the batch itself.
pub fn statistics(cuda: &'static Cuda, x: &Tensor, epsilon: f64) -> Result<Statistics> {
    let channels = x.shape().last_length();
    let tiles = Tiles::new(cuda, x.shape().elements() / channels, channels)?;
    let (partial, mean, variance, inverse) =
        (tiles.partial()?, tiles.vector()?, tiles.vector()?, tiles.vector()?);
    let (rows, c, length) = (tiles.rows as i64, channels as i32, tiles.length as i64);
    let all = arguments![x.memory(), &partial, rows, c, length];
    // SAFETY: x is rows · channels floats; each block writes its own channels of its own tile.
    unsafe { tiles.launch(["batch_norm_tiles", "batch_norm_tiles_4"], &all)? };
    let count = tiles.count as i32;
    let all = arguments![&partial, &mean, &variance, &inverse, rows, c, length, count, epsilon];
    // SAFETY: `partial` is tiles · 2 · channels doubles; the vectors are `channels` floats, new.
    unsafe { tiles.merge("batch_norm_statistics", &all)? };
    let [mean, variance, inverse] =
        [mean, variance, inverse].map(|memory| Tensor::from_memory(memory, [channels]));
    Ok(Statistics { mean, variance, inverse })
}

/// Given ones.
pub fn given(cuda: &'static Cuda, mean: &Tensor, variance: &Tensor, epsilon: f64) -> Result<Statistics> {
    let channels = mean.shape().elements();
    let inverse = cuda.allocate(channels, DType::F32)?;
    let all = arguments![variance.memory(), &inverse, channels as i32, epsilon];
    // SAFETY: both are `channels` floats, the second new.
    unsafe { cuda.launch(kernel("batch_norm_inverse"), LaunchConfig::elements(channels), &all)? };
    Ok(Statistics {
        mean: mean.detach(),
        variance: variance.detach(),
        inverse: Tensor::from_memory(inverse, [channels]),
    })
}

impl Statistics {
    /// f(γ·(x − mean)/√(variance + ε) + β)
    pub fn normalise(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        [gamma, beta]: [&Tensor; 2],
        activation: Activation,
    ) -> Result<Tensor> {
        let (n, channels) = (x.shape().elements(), x.shape().last_length());
        let y = cuda.allocate(n, DType::F32)?;
        let (mean, inverse) = (self.mean.memory(), self.inverse.memory());
        let (gamma, beta, after) = (gamma.memory(), beta.memory(), activation as i32);
        let all =
            arguments![x.memory(), gamma, beta, mean, inverse, &y, n as i64, channels as i32, after];
        let names = ["batch_norm_apply", "batch_norm_apply_4"];
        // SAFETY: x is n floats, the vectors are one a channel; y is n floats, new.
        unsafe { pass(cuda, names, n, channels, &all)? };
        Ok(Tensor::from_memory(y, x.shape()))
    }

    /// (∂γ, ∂β)
    pub fn gradients(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        dy: &Tensor,
        [gamma, beta]: [&Tensor; 2],
        activation: Activation,
    ) -> Result<(Tensor, Tensor)> {
        let channels = x.shape().last_length();
        let tiles = Tiles::new(cuda, x.shape().elements() / channels, channels)?;
        let (partial, dgamma, dbeta) = (tiles.partial()?, tiles.vector()?, tiles.vector()?);
        let inverse = self.inverse.memory();
        let all = arguments![
            x.memory(),
            dy.memory(),
            gamma.memory(),
            beta.memory(),
            self.mean.memory(),
            inverse,
            &partial,
            tiles.rows as i64,
            channels as i32,
            tiles.length as i64,
            activation as i32,
        ];
        let names = ["batch_norm_gradient_tiles", "batch_norm_gradient_tiles_4"];
        // SAFETY: x and dy are rows · channels floats, the vectors are one a channel; each block writes
        // its own part of `partial`.
        unsafe { tiles.launch(names, &all)? };
        let all = arguments![&partial, inverse, &dgamma, &dbeta, tiles.count as i32, channels as i32];
        // SAFETY: `partial` is tiles · 2 · channels doubles; both results are `channels` floats, new.
        unsafe { tiles.merge("batch_norm_gradients", &all)? };
        Ok((Tensor::from_memory(dgamma, [channels]), Tensor::from_memory(dbeta, [channels])))
    }

    /// ∂x of a batch that was normalised by its own statistics.
    pub fn data_train(
        &self,
        cuda: &'static Cuda,
        x: &Tensor,
        dy: &Tensor,
        [gamma, beta]: [&Tensor; 2],
        [dgamma, dbeta]: [&Tensor; 2],
        activation: Activation,
    ) -> Result<Tensor> {
        let (n, channels) = (x.shape().elements(), x.shape().last_length());
        let dx = cuda.allocate(n, DType::F32)?;
        let all = arguments![
            x.memory(),
            dy.memory(),
            gamma.memory(),
            beta.memory(),
            self.mean.memory(),
            self.inverse.memory(),
            dgamma.memory(),
            dbeta.memory(),
            &dx,
            n as i64,
            channels as i32,
            (n / channels) as f32,
            activation as i32,
        ];
        // SAFETY: x and dy are n floats, the vectors are one a channel; dx is n floats, new.
        unsafe { pass(cuda, ["batch_norm_data", "batch_norm_data_4"], n, channels, &all)? };
        Ok(Tensor::from_memory(dx, x.shape()))
    }

    /// ∂x where the statistics are constants. `x` is there where an activation followed.
    pub fn data_infer(
        &self,
        cuda: &'static Cuda,
        x: Option<&Tensor>,
        dy: &Tensor,
        [gamma, beta]: [&Tensor; 2],
        activation: Activation,
    ) -> Result<Tensor> {
        let (n, channels) = (dy.shape().elements(), dy.shape().last_length());
        let dx = cuda.allocate(n, DType::F32)?;
        let all = arguments![
            x.map_or(0, |x| x.memory().address()),
            dy.memory(),
            gamma.memory(),
            beta.memory(),
            self.mean.memory(),
            self.inverse.memory(),
            &dx,
            n as i64,
            channels as i32,
            activation as i32,
        ];
        let names = ["batch_norm_data_infer", "batch_norm_data_infer_4"];
        // SAFETY: dy is n floats, and x where it is there and looked at; the vectors are one a channel;
        // dx is n floats, new.
        unsafe { pass(cuda, names, n, channels, &all)? };
        Ok(Tensor::from_memory(dx, dy.shape()))
    }
}

/// The moving mean and variance after a batch: moving·momentum + statistic·(1 − momentum), the variance
/// times `factor` before.
pub fn moving(
    cuda: &'static Cuda,
    [mean, variance]: [&Tensor; 2],
    [of_batch_mean, of_batch_variance]: [&Tensor; 2],
    momentum: f64,
    factor: f64,
) -> Result<(Tensor, Tensor)> {
    let channels = mean.shape().elements();
    let vector = || cuda.allocate(channels, DType::F32);
    let (new_mean, new_variance) = (vector()?, vector()?);
    let all = arguments![
        mean.memory(),
        of_batch_mean.memory(),
        &new_mean,
        variance.memory(),
        of_batch_variance.memory(),
        &new_variance,
        channels as i32,
        momentum,
        factor,
    ];
    // SAFETY: all are `channels` floats, the results new.
    unsafe { cuda.launch(kernel("batch_norm_moving"), LaunchConfig::elements(channels), &all)? };
    Ok((Tensor::from_memory(new_mean, [channels]), Tensor::from_memory(new_variance, [channels])))
}
