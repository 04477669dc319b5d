//! Convolution on a CUDA device: geometry and launches of `kernels/conv2d.cu`. Dense layers are
//! convolutions of pictures of one pixel.

use super::Conv2dGeometry;
use crate::cuda::{Cuda, Kernel, Memory, Size, Value, arguments};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// `struct Conv2d` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Geometry {
    batch: i32,
    input: [i32; 2],
    channels: i32,
    output: [i32; 2],
    filters: i32,
    kernel: [i32; 2],
    stride: [i32; 2],
    dilation: [i32; 2],
    pad: [i32; 2],
}
// SAFETY: 15 numbers of 4 bytes, without padding.
unsafe impl Value for Geometry {}

impl Geometry {
    /// An error where a size does not fit into 31 bits.
    fn new(g: &Conv2dGeometry) -> Result<Self> {
        let number = |n: usize| {
            i32::try_from(n).map_err(|_| Error::argument("conv2d", format!("{n} is too large a size")))
        };
        let pair = |[y, x]: [usize; 2]| Ok::<_, Error>([number(y)?, number(x)?]);
        number(g.kernel[0] * g.kernel[1] * g.in_channels.max(g.out_channels))?;
        Ok(Geometry {
            batch: number(g.batch)?,
            input: pair(g.input)?,
            channels: number(g.in_channels)?,
            output: pair(g.output)?,
            filters: number(g.out_channels)?,
            kernel: pair(g.kernel)?,
            stride: pair(g.stride)?,
            dilation: pair(g.dilation)?,
            pad: pair(g.pad)?,
        })
    }
}

/// The kernels' `TILE` and `DEPTH`.
const TILE: usize = 64;
const DEPTH: usize = 16;
/// Blocks that fill the largest device a few times over (132 multiprocessors, two blocks each).
const ENOUGH: usize = 1024;

fn kernel(name: &'static str) -> Kernel {
    Kernel::of("conv2d", name)
}

fn tiles(rows: usize, columns: usize, parts: usize) -> Result<Size> {
    Size::grid([rows.div_ceil(TILE), columns.div_ceil(TILE), parts], [256, 1, 1])
}

pub(crate) fn forward(
    cuda: &'static Cuda,
    g: &Conv2dGeometry,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
) -> Result<Memory> {
    let outputs = g.batch * g.output[0] * g.output[1];
    let y = cuda.allocate(outputs * g.out_channels, DType::F32)?;
    let name =
        if g.in_channels.is_multiple_of(DEPTH) { "conv2d_forward_whole" } else { "conv2d_forward" };
    let bias = b.map_or(0, |b| b.memory().address());
    let all = arguments![x.memory(), w.memory(), bias, &y, Geometry::new(g)?];
    // SAFETY: the shape rule made the sizes of x, w and b those of the geometry; y is new.
    unsafe { cuda.launch(kernel(name), tiles(outputs, g.out_channels, 1)?, &all)? };
    Ok(y)
}

pub(crate) fn input_gradient(
    cuda: &'static Cuda,
    g: &Conv2dGeometry,
    dy: &Tensor,
    w: &Tensor,
) -> Result<Memory> {
    let inputs = g.batch * g.input[0] * g.input[1];
    let dx = cuda.allocate(inputs * g.in_channels, DType::F32)?;
    let name = if g.out_channels.is_multiple_of(DEPTH) { "conv2d_data_whole" } else { "conv2d_data" };
    let all = arguments![dy.memory(), w.memory(), &dx, Geometry::new(g)?];
    // SAFETY: as above; dx is new.
    unsafe { cuda.launch(kernel(name), tiles(inputs, g.in_channels, 1)?, &all)? };
    Ok(dx)
}

pub(crate) fn kernel_gradient(
    cuda: &'static Cuda,
    g: &Conv2dGeometry,
    dy: &Tensor,
    x: &Tensor,
) -> Result<Memory> {
    let outputs = g.batch * g.output[0] * g.output[1];
    let rows = g.kernel[0] * g.kernel[1] * g.in_channels;
    let n = rows * g.out_channels;
    let dw = cuda.allocate(n, DType::F32)?;
    // As many parts as fill the device, each at least 256 outputs long: a part costs a pass over dw.
    let blocks = rows.div_ceil(TILE) * g.out_channels.div_ceil(TILE);
    let parts = (ENOUGH / blocks.max(1)).clamp(1, outputs.div_ceil(256).max(1));
    let length = outputs.div_ceil(parts).next_multiple_of(DEPTH);
    let parts = outputs.div_ceil(length).max(1);
    let partial = match parts {
        1 => None,
        _ => Some(cuda.scratch(4 * n * parts)?),
    };
    let length = i32::try_from(length)
        .map_err(|_| Error::argument("conv2d", format!("{outputs} outputs are too many")))?;
    let all =
        arguments![x.memory(), dy.memory(), partial.as_ref().unwrap_or(&dw), Geometry::new(g)?, length,];
    // SAFETY: as above; each part writes its own n floats of `partial`.
    unsafe { cuda.launch(kernel("conv2d_weight"), tiles(rows, g.out_channels, parts)?, &all)? };
    if let Some(partial) = &partial {
        let all = arguments![partial, &dw, n as i64, parts as i32];
        // SAFETY: `partial` is parts · n floats, dw is n, new.
        unsafe { cuda.launch(kernel("conv2d_weight_parts"), Size::elements(n), &all)? };
    }
    Ok(dw)
}
