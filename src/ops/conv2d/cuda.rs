//! Convolution on a CUDA device: geometry and launches of `kernels/conv2d.cu`. Dense layers are
//! convolutions of images of one pixel.

use super::{Choice, Conv2dGeometry, Pass};
use crate::activation::Activation;
use crate::backend::cuda::{Argument, Cuda, Kernel, LaunchConfig, Memory, Value, arguments};
use crate::context::{Context, Precision};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use std::fmt;

/// `struct Conv2d` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
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
    pub(crate) fn new(g: &Conv2dGeometry) -> Result<Self> {
        let number = |n: usize| {
            i32::try_from(n).map_err(|_| Error::argument("conv2d", format!("{n} is too large a size")))
        };
        let pair = |[y, x]: [usize; 2]| Ok::<_, Error>([number(y)?, number(x)?]);
        number(g.kernel[0] * g.kernel[1] * g.in_channels.max(g.out_channels))?;
        let pixels = |[y, x]: [usize; 2]| number(g.batch * y * x);
        pixels(g.input).and(pixels(g.output))?;
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

/// Multiprocessors of the largest device (an H100 has 132): with fewer blocks than these some of them idle.
const MULTIPROCESSORS: usize = 132;

/// A pass as a matrix product: which kernel makes its result, and how the work is cut up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiles {
    pub kernel: &'static str,
    /// Side of a block's tile of the result.
    pub size: usize,
    /// Tiles across the result's rows and columns.
    pub grid: [usize; 2],
    /// Parts of the sum, each a block's; what they make is added then.
    pub split_k: usize,
}

impl Tiles {
    /// Tiles of 128×128 where they keep every multiprocessor busy, else of 64×64.
    fn new(pass: Pass, g: &Conv2dGeometry, precision: Precision) -> Self {
        let [rows, columns, depth] = product(pass, g);
        let grid = |size: usize| [rows.div_ceil(size), columns.div_ceil(size)];
        if pass == Pass::Forward && has_few_channels(g) {
            return Tiles { kernel: "conv2d_forward_few", size: 64, grid: grid(64), split_k: 1 };
        }
        let small = match Context::current().conv_tile {
            Some(size) => size <= 64,
            None => columns <= 64 || rows <= 64 || blocks_at_most(pass, g, 128) < MULTIPROCESSORS,
        };
        let size = if small { 64 } else { 128 };
        let kernel = names(pass)[precision as usize][small as usize];
        Tiles { kernel, size, grid: grid(size), split_k: split_k(size, grid(size), depth) }
    }

    /// Runs the kernel; parts of the sum are added then, with a bias a column and an activation. `arguments`
    /// are the kernel's, of the buffer that it is to write into.
    fn run(
        &self,
        cuda: &'static Cuda,
        result: &Memory,
        end: End,
        arguments: impl FnOnce(&Memory) -> Vec<Argument>,
    ) -> Result<()> {
        let ([x, y], parts) = (self.grid, self.split_k);
        let size = LaunchConfig::grid([x, y, parts], [2 * self.size as u32, 1, 1])?;
        let kernel = Kernel::of("conv2d", self.kernel);
        if parts == 1 {
            // SAFETY: this module's callers, who say for each kernel why its arguments fit.
            return unsafe { cuda.launch(kernel, size, &arguments(result)) };
        }
        let n = result.len();
        let partial = cuda.scratch(4 * n * parts)?;
        // SAFETY: as above; each part writes its own n floats of `partial`.
        unsafe { cuda.launch(kernel, size, &arguments(&partial))? };
        let all = arguments![
            &partial,
            end.bias.map_or(0, |bias| bias.memory().address()),
            result,
            n as i64,
            end.columns as i32,
            parts as i32,
            end.activation as i32,
        ];
        let kernel = Kernel::of("conv2d", "conv2d_split_k_sum");
        // SAFETY: `partial` is parts · n floats, the result is n, new, the bias `columns`.
        unsafe { cuda.launch(kernel, LaunchConfig::elements(n), &all) }
    }
}

impl fmt::Display for Tiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kernel)
    }
}

/// The kernel of a pass and the reason for it.
#[cfg_attr(not(test), expect(dead_code, reason = "for those who ask; passes run what it describes"))]
pub(crate) fn choose(pass: Pass, g: &Conv2dGeometry, precision: Precision) -> Choice<Tiles> {
    let tiles = Tiles::new(pass, g, precision);
    Choice { algorithm: tiles, reason: reason(pass, g, &tiles) }
}

fn reason(pass: Pass, g: &Conv2dGeometry, tiles: &Tiles) -> String {
    let ([rows, columns, depth], [y, x]) = (product(pass, g), tiles.grid);
    let split = match tiles.split_k {
        1 => String::new(),
        parts => format!(", the sum of {depth} in {parts} parts"),
    };
    let blocks = blocks_at_most(pass, g, 128);
    let why = if pass == Pass::Forward && has_few_channels(g) {
        format!("{} channels: steps are (tap, channel) pairs", g.in_channels)
    } else if tiles.size == 128 {
        format!("{blocks} blocks of 128×128 for {MULTIPROCESSORS} multiprocessors")
    } else if rows.min(columns) <= 64 {
        format!("a result of {rows}×{columns}, too narrow for 128×128")
    } else {
        format!("128×128 would be {blocks} blocks for {MULTIPROCESSORS} multiprocessors")
    };
    format!("{why}: {y}×{x} tiles{split}")
}

/// [rows, columns] of a pass' result, and the length of the sum that each of its elements is.
fn product(pass: Pass, g: &Conv2dGeometry) -> [usize; 3] {
    let taps = g.kernel[0] * g.kernel[1];
    let (inputs, outputs) = (g.batch * g.input[0] * g.input[1], g.batch * g.output[0] * g.output[1]);
    match pass {
        Pass::Forward => [outputs, g.out_channels, taps * g.in_channels],
        Pass::InputGrad => [inputs, g.in_channels, taps * g.out_channels],
        Pass::KernelGrad => [taps * g.in_channels, g.out_channels, outputs],
    }
}

/// The shortest part of a sum: each costs a pass over the result.
const PART: usize = 256;

/// Into how many parts a sum is cut: as many as give every multiprocessor two large blocks, or four small
/// ones.
fn split_k(size: usize, grid: [usize; 2], depth: usize) -> usize {
    let blocks = MULTIPROCESSORS * if size == 128 { 2 } else { 4 };
    (blocks / (grid[0] * grid[1]).max(1)).clamp(1, depth.div_ceil(PART).max(1))
}

/// Blocks of tiles of this size, where the kernel's gradient, whose sum is long, is cut into all parts there
/// are.
fn blocks_at_most(pass: Pass, g: &Conv2dGeometry, size: usize) -> usize {
    let [rows, columns, depth] = product(pass, g);
    let parts = if pass == Pass::KernelGrad { depth.div_ceil(PART).max(1) } else { 1 };
    rows.div_ceil(size) * columns.div_ceil(size) * parts
}

/// What a result of several parts gets in the end.
struct End<'a> {
    bias: Option<&'a Tensor>,
    columns: usize,
    activation: Activation,
}

impl End<'_> {
    fn plain(columns: usize) -> Self {
        End { bias: None, columns, activation: Activation::Linear }
    }
}

/// Kernels by precision (f32, tf32, bf16) and size of their tile (large, small).
type Names = [[&'static str; 2]; 3];

macro_rules! names {
    ($mode:literal) => {
        [
            [concat!("conv2d_", $mode, "_f32_large"), concat!("conv2d_", $mode, "_f32_small")],
            [concat!("conv2d_", $mode, "_tf32_large"), concat!("conv2d_", $mode, "_tf32_small")],
            [concat!("conv2d_", $mode, "_bf16_large"), concat!("conv2d_", $mode, "_bf16_small")],
        ]
    };
}

fn names(pass: Pass) -> &'static Names {
    const FORWARD: Names = names!("forward");
    const DATA: Names = names!("data");
    const WEIGHT: Names = names!("weight");
    match pass {
        Pass::Forward => &FORWARD,
        Pass::InputGrad => &DATA,
        Pass::KernelGrad => &WEIGHT,
    }
}

/// Whether a convolution runs over (tap, channel) pairs instead of taps (the kernels' `DEPTH`), in f32
/// whatever the precision: it is a network's first.
fn has_few_channels(g: &Conv2dGeometry) -> bool {
    g.in_channels < 16 && g.kernel != [1, 1]
}

pub(crate) fn forward(
    cuda: &'static Cuda,
    g: &Conv2dGeometry,
    [x, w]: [&Tensor; 2],
    b: Option<&Tensor>,
    precision: Precision,
    activation: Activation,
) -> Result<Memory> {
    let outputs = g.batch * g.output[0] * g.output[1];
    let y = cuda.allocate(outputs * g.out_channels, DType::F32)?;
    let bias = b.map_or(0, |b| b.memory().address());
    let geometry = Geometry::new(g)?;
    // The shape rule made the sizes of x, w and b those of the geometry; y is new.
    let all =
        |y: &Memory| arguments![x.memory(), w.memory(), bias, y, geometry, activation as i32].into();
    let end = End { bias: b, columns: g.out_channels, activation };
    Tiles::new(Pass::Forward, g, precision).run(cuda, &y, end, all)?;
    Ok(y)
}

pub(crate) fn input_gradient(
    cuda: &'static Cuda,
    g: &Conv2dGeometry,
    dy: &Tensor,
    w: &Tensor,
    precision: Precision,
) -> Result<Memory> {
    let inputs = g.batch * g.input[0] * g.input[1];
    let dx = cuda.allocate(inputs * g.in_channels, DType::F32)?;
    let (geometry, end) = (Geometry::new(g)?, End::plain(g.in_channels));
    // As above; dx is new.
    let all = |dx: &Memory| arguments![dy.memory(), w.memory(), dx, geometry].into();
    Tiles::new(Pass::InputGrad, g, precision).run(cuda, &dx, end, all)?;
    Ok(dx)
}

pub(crate) fn kernel_gradient(
    cuda: &'static Cuda,
    g: &Conv2dGeometry,
    dy: &Tensor,
    x: &Tensor,
    precision: Precision,
) -> Result<Memory> {
    let taps = g.kernel[0] * g.kernel[1];
    let dw = cuda.allocate(taps * g.in_channels * g.out_channels, DType::F32)?;
    let (geometry, end) = (Geometry::new(g)?, End::plain(g.out_channels));
    // As above; dw is new.
    let all = |dw: &Memory| arguments![x.memory(), dy.memory(), dw, geometry].into();
    Tiles::new(Pass::KernelGrad, g, precision).run(cuda, &dw, end, all)?;
    Ok(dw)
}

#[cfg(test)]
mod tests {
    use super::super::Conv2dOptions;
    use super::*;
    use crate::ops::Padding;

    #[test]
    fn a_kernel_is_chosen_by_the_blocks_it_gives_the_multiprocessors() {
        /// x, [kh, kw, F]; kernel and parts of the sum, of y, ∂x and ∂w.
        type Row = ([usize; 4], [usize; 3], [(&'static str, usize); 3]);
        let table: [Row; 4] = [
            (
                [4, 56, 56, 256],
                [3, 3, 256],
                [("forward_f32_large", 1), ("data_f32_large", 1), ("weight_f32_large", 7)],
            ),
            (
                [4, 14, 14, 512],
                [3, 3, 512],
                [("forward_f32_small", 5), ("data_f32_small", 5), ("weight_f32_large", 1)],
            ),
            (
                [16, 150, 150, 3],
                [7, 7, 64],
                [("forward_few", 1), ("data_f32_small", 1), ("weight_f32_small", 176)],
            ),
            // A dense layer.
            (
                [16, 1, 1, 4096],
                [1, 1, 20],
                [("forward_f32_small", 16), ("data_f32_small", 1), ("weight_f32_small", 1)],
            ),
        ];
        for (x, kernel, expected) in table {
            let [kh, kw, f] = kernel;
            let options = Conv2dOptions { padding: Padding::Same, ..Default::default() };
            let g = Conv2dGeometry::new(x.into(), [kh, kw, x[3], f].into(), options).unwrap();
            for (pass, (name, parts)) in Pass::ALL.into_iter().zip(expected) {
                let Choice { algorithm, reason } = choose(pass, &g, Precision::F32);
                assert_eq!(algorithm.kernel, format!("conv2d_{name}"), "{x:?} {kernel:?} {reason}");
                assert_eq!(algorithm.split_k, parts, "{x:?} {kernel:?} {reason}");
                assert_eq!(reason.contains("parts"), parts > 1, "{reason}");
            }
        }
    }
}
