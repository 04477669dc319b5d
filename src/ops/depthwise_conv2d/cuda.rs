//! Depthwise convolution on a CUDA device: launches of `kernels/depthwise_conv2d.cu`.

use super::DepthwiseGeometry;
use crate::activation::Activation;
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, Memory, Value, arguments, is_wide};
use crate::error::{Error, Result};
use crate::tensor::{DType, Shape, Tensor};

/// `struct Depthwise` of the kernels.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Geometry([i32; 14]);
// SAFETY: numbers without padding.
unsafe impl Value for Geometry {}

impl Geometry {
    /// An error where a size does not fit into 31 bits.
    pub(crate) fn new(g: &DepthwiseGeometry) -> Result<Self> {
        let pairs = [g.kernel, g.stride, g.dilation, g.pad];
        let sizes = [g.batch, g.input[0], g.input[1], g.output[0], g.output[1], g.channels];
        let mut numbers = [0; 14];
        for (number, size) in
            numbers.iter_mut().zip(sizes.into_iter().chain(pairs.into_iter().flatten()))
        {
            *number = i32::try_from(size).map_err(|_| {
                Error::argument("depthwise_conv2d", format!("{size} is too large a size"))
            })?;
        }
        Ok(Geometry(numbers))
    }
}

fn kernel(name: &'static str) -> Kernel {
    Kernel::of("depthwise_conv2d", name)
}

/// Channels a thread takes: four where they come in fours.
fn width(g: &DepthwiseGeometry) -> usize {
    if is_wide(g.channels) { 4 } else { 1 }
}

/// Neighbouring outputs of a row that a thread makes, its window sliding along: 8 read 30 pixels of a 3×3
/// window's 72, and still leave a thread for every 32 values.
const RUN: usize = 8;

pub fn forward(
    cuda: &'static Cuda,
    g: &DepthwiseGeometry,
    [x, w]: [&Tensor; 2],
    b: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let y = cuda.allocate(g.output_shape().elements(), DType::F32)?;
    let wide = width(g) == 4;
    let slides = g.kernel == [3, 3] && g.dilation == [1, 1] && g.stride[0] == g.stride[1];
    let name = match (slides, g.stride[0], wide) {
        (true, 1, true) => "depthwise_slide_4",
        (true, 1, false) => "depthwise_slide",
        (true, 2, true) => "depthwise_slide_stride_2_4",
        (true, 2, false) => "depthwise_slide_stride_2",
        (_, _, true) => "depthwise_forward_4",
        (_, _, false) => "depthwise_forward",
    };
    let bias = b.map_or(0, |b| b.memory().address());
    let mut all =
        arguments![x.memory(), w.memory(), bias, &y, Geometry::new(g)?, activation as i32].to_vec();
    let mut threads = g.output_shape().elements() / width(g);
    if slides && g.stride[0] <= 2 {
        all.push((RUN as i32).into());
        threads = threads / g.output[1].max(1) * g.output[1].div_ceil(RUN);
    }
    // SAFETY: the shape rule made the sizes of x, w and b those of the geometry; y is new.
    unsafe { cuda.launch(kernel(name), LaunchConfig::elements(threads), &all)? };
    Ok(Tensor::from_memory(y, g.output_shape()))
}

/// (∂x, where `w` is given; ∂w, where `x` is). Of 3×3 windows both come out of one pass.
pub fn gradients(
    cuda: &'static Cuda,
    g: &DepthwiseGeometry,
    dy: &Tensor,
    x: Option<&Tensor>,
    w: Option<&Tensor>,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    match (g.kernel, w) {
        ([3, 3], Some(w)) => both_gradients(cuda, g, dy, x, w),
        _ => Ok((
            w.map(|w| input_gradient(cuda, g, dy, w)).transpose()?,
            x.map(|x| kernel_gradient(cuda, g, dy, x)).transpose()?,
        )),
    }
}

fn both_gradients(
    cuda: &'static Cuda,
    g: &DepthwiseGeometry,
    dy: &Tensor,
    x: Option<&Tensor>,
    w: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let shape = Shape::from([g.batch, g.input[0], g.input[1], g.channels]);
    let dx = cuda.allocate(shape.elements(), DType::F32)?;
    // Each of a block's eight lanes takes every eighth of its `length` rows: two, or more where that makes
    // more than 1024 parts, which somebody must add.
    let rows = g.batch * g.input[0];
    let length = rows.div_ceil(1024).max(16);
    let parts = rows.div_ceil(length).max(1);
    let partial = match x {
        Some(_) => Some(cuda.scratch(8 * 9 * parts * g.channels)?),
        None => None,
    };
    let (wide, geometry) = (width(g), Geometry::new(g)?);
    let name = if wide == 4 { "depthwise_backward_4" } else { "depthwise_backward" };
    let size = LaunchConfig::grid([(g.channels / wide).div_ceil(32), parts, 1], [32, 8, 1])?;
    let address = |memory: Option<&Memory>| memory.map_or(0, Memory::address);
    let (x, out) = (address(x.map(Tensor::memory)), address(partial.as_ref()));
    let all = arguments![x, dy.memory(), w.memory(), &dx, out, geometry, length as i32];
    // SAFETY: the shape rule made the sizes of x, w and dy those of the geometry; dx is as large as x, new;
    // each block writes its own channels of its own part of 9 · parts · channels doubles.
    unsafe { cuda.launch(kernel(name), size, &all)? };
    let dw = partial.map(|partial| parts_added(cuda, g, &partial, parts)).transpose()?;
    Ok((Some(Tensor::from_memory(dx, shape)), dw))
}

/// The parts of the kernel's gradient, [taps, parts, channels] doubles, added in their order.
fn parts_added(
    cuda: &'static Cuda,
    g: &DepthwiseGeometry,
    partial: &Memory,
    parts: usize,
) -> Result<Tensor> {
    let (c, n) = (g.channels, g.kernel[0] * g.kernel[1] * g.channels);
    let dw = cuda.allocate(n, DType::F32)?;
    let all = arguments![partial, &dw, n as i64, parts as i64, c as i64, 1.0f64];
    // SAFETY: `partial` is as the callers say, dw is n floats, new.
    unsafe { cuda.launch(Kernel::of("reduce", "reduce_parts"), LaunchConfig::elements(n), &all)? };
    Ok(Tensor::from_memory(dw, [g.kernel[0], g.kernel[1], c, 1]))
}

fn input_gradient(
    cuda: &'static Cuda,
    g: &DepthwiseGeometry,
    dy: &Tensor,
    w: &Tensor,
) -> Result<Tensor> {
    let shape = Shape::from([g.batch, g.input[0], g.input[1], g.channels]);
    let n = shape.elements();
    let dx = cuda.allocate(n, DType::F32)?;
    let all = arguments![dy.memory(), w.memory(), &dx, Geometry::new(g)?, n as i64];
    // SAFETY: as above; dx is n floats, new.
    unsafe { cuda.launch(kernel("depthwise_data"), LaunchConfig::elements(n), &all)? };
    Ok(Tensor::from_memory(dx, shape))
}

fn kernel_gradient(
    cuda: &'static Cuda,
    g: &DepthwiseGeometry,
    dy: &Tensor,
    x: &Tensor,
) -> Result<Tensor> {
    let outputs = g.batch * g.output[0] * g.output[1];
    let (taps, c) = (g.kernel[0] * g.kernel[1], g.channels);
    // At most 64 parts: with the taps and the channels that fills a device.
    let length = outputs.div_ceil(64).max(64);
    let parts = outputs.div_ceil(length).max(1);
    let partial = cuda.scratch(8 * taps * parts * c)?;
    let size = LaunchConfig::grid([c.div_ceil(32), parts, taps], [32, 8, 1])?;
    let all = arguments![x.memory(), dy.memory(), &partial, Geometry::new(g)?, length as i64];
    // SAFETY: as above; each block writes its own channels of its own part.
    unsafe { cuda.launch(kernel("depthwise_weight"), size, &all)? };
    parts_added(cuda, g, &partial, parts)
}
