//! Group normalisation on a CUDA device: launches of `kernels/group_norm.cu`.

use super::Groups;
use crate::autograd::record;
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, Memory, arguments};
use crate::error::{Error, Result};
use crate::ops::reduce::MAX_GRID;
use crate::tensor::{DType, Tensor};

/// What the gradient needs again.
struct OnDevice {
    cuda: &'static Cuda,
    layout: Groups,
    /// Of each group of each image.
    mean: Memory,
    inverse: Memory,
}

pub fn group_norm(
    cuda: &'static Cuda,
    layout: Groups,
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    epsilon: f64,
) -> Result<Tensor> {
    let [channels, _] = layout.numbers()?;
    let (count, n) = (layout.images * layout.groups, x.shape().elements());
    let group = || cuda.allocate(count, DType::F32);
    let (mean, inverse, y) = (group()?, group()?, cuda.allocate(n, DType::F32)?);
    let (pixels, of_group) = (layout.pixels as i64, layout.size() as i32);
    let all = arguments![x.memory(), &mean, &inverse, pixels, channels, of_group, epsilon];
    let size = LaunchConfig::grid([count, 1, 1], [256, 1, 1])?;
    // SAFETY: x is images · pixels · channels floats; both results are a float a group of each image, new.
    unsafe { cuda.launch(kernel("group_norm_statistics"), size, &all)? };
    let (gamma_memory, beta_memory) = (gamma.memory(), beta.memory());
    let all = arguments![
        x.memory(),
        gamma_memory,
        beta_memory,
        &mean,
        &inverse,
        &y,
        n as i64,
        pixels,
        channels,
        of_group
    ];
    let names = ["group_norm_apply", "group_norm_apply_4"];
    // SAFETY: as above; gamma and beta are a float a channel; y is n floats, new.
    unsafe { cuda.launch_pass("group_norm", names, n, layout.size(), &all)? };
    let output = Tensor::from_memory(y, x.shape());
    let (saved_x, saved_gamma) = (x.detach(), gamma.detach());
    let saved = OnDevice { cuda, layout, mean, inverse };
    Ok(record("group_norm", [x, gamma, beta], output, move |dy| {
        Ok(saved.gradients(&saved_x, &dy, &saved_gamma)?.map(Some))
    }))
}

fn kernel(name: &'static str) -> Kernel {
    Kernel::of("group_norm", name)
}

impl Groups {
    /// [channels, groups]
    fn numbers(&self) -> Result<[i32; 2]> {
        let number = |n: usize| {
            let message = format!("{n} channels are too many");
            i32::try_from(n).map_err(|_| Error::argument("group_norm", message))
        };
        Ok([number(self.channels)?, number(self.groups)?])
    }
}

impl OnDevice {
    /// [∂L/∂x, ∂L/∂γ, ∂L/∂β]
    fn gradients(&self, x: &Tensor, dy: &Tensor, gamma: &Tensor) -> Result<[Tensor; 3]> {
        let OnDevice { cuda, layout, mean, inverse } = self;
        let Groups { images, pixels, channels, .. } = *layout;
        let [c, groups] = layout.numbers()?;
        let (n, count, of_group) = (x.shape().elements(), images * layout.groups, layout.size() as i32);
        let allocate = |n: usize| cuda.allocate(n, DType::F32);
        let (plain, centred) = (allocate(images * channels)?, allocate(images * channels)?);
        let (x, dy, gamma) = (x.memory(), dy.memory(), gamma.memory());
        for first in (0..images).step_by(MAX_GRID) {
            let size = [channels.div_ceil(32), 1, (images - first).min(MAX_GRID)];
            let size = LaunchConfig::grid(size, [32, 8, 1])?;
            let at = |memory: &Memory, floats: usize| memory.address() + 4 * (first * floats) as u64;
            let [x, dy] = [x, dy].map(|memory| at(memory, pixels * channels));
            let [plain, centred] = [&plain, &centred].map(|memory| at(memory, channels));
            let mean = at(mean, layout.groups);
            let all = arguments![x, dy, mean, plain, centred, pixels as i64, c, of_group];
            // SAFETY: x and dy are images · pixels · channels floats, `mean` is one a group; both sums are a
            // float a channel of each image, new. These are the images from `first` on.
            unsafe { cuda.launch(kernel("group_norm_sums"), size, &all)? };
        }
        let (dgamma, dbeta) = (allocate(channels)?, allocate(channels)?);
        let all = arguments![&plain, &centred, inverse, &dgamma, &dbeta, images as i64, c, of_group];
        // SAFETY: as above; both results are a float a channel, new.
        unsafe { cuda.launch(kernel("group_norm_gradients"), LaunchConfig::elements(channels), &all)? };
        let (of_mean, of_centred) = (allocate(count)?, allocate(count)?);
        let all = arguments![
            &plain,
            &centred,
            gamma,
            inverse,
            &of_mean,
            &of_centred,
            count as i64,
            pixels as i64,
            groups,
            of_group
        ];
        // SAFETY: as above; both results are a float a group of each image, new.
        unsafe { cuda.launch(kernel("group_norm_means"), LaunchConfig::elements(count), &all)? };
        let dx = allocate(n)?;
        let all = arguments![
            x,
            dy,
            gamma,
            mean,
            inverse,
            &of_mean,
            &of_centred,
            &dx,
            n as i64,
            pixels as i64,
            c,
            of_group
        ];
        let names = ["group_norm_data", "group_norm_data_4"];
        // SAFETY: as above; dx is n floats, new.
        unsafe { cuda.launch_pass("group_norm", names, n, layout.size(), &all)? };
        let vector = |memory| Tensor::from_memory(memory, [channels]);
        Ok([Tensor::from_memory(dx, layout.shape), vector(dgamma), vector(dbeta)])
    }
}
