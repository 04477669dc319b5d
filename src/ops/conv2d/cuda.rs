//! Convolution on a CUDA device: geometry and launches of `kernels/conv2d.cu`. Dense layers are
//! convolutions of pictures of one pixel.

use super::Conv2dGeometry;
use crate::activation::Activation;
use crate::backend::cuda::{Argument, Cuda, Kernel, Memory, Size, Value, arguments};
use crate::context::{Context, Precision};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

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

/// Which kernel makes a [rows, columns] result, and how many of its blocks cover it: tiles of 128×128
/// where they keep every multiprocessor busy, else of 64×64.
struct Tiles {
    name: &'static str,
    size: usize,
    grid: [usize; 2],
}

impl Tiles {
    /// `names`: for each precision the kernels of the large and the small tile.
    fn new(names: &Names, precision: Precision, rows: usize, columns: usize, parts: usize) -> Self {
        let grid = |size: usize| [rows.div_ceil(size), columns.div_ceil(size)];
        let blocks = grid(128)[0] * grid(128)[1] * parts;
        let small = match Context::current().conv_tile {
            Some(size) => size <= 64,
            None => columns <= 64 || rows <= 64 || blocks < MULTIPROCESSORS,
        };
        let size = if small { 64 } else { 128 };
        Tiles { name: names[precision as usize][small as usize], size, grid: grid(size) }
    }

    /// Into how many parts a sum of `length` is cut, each at least 256 long (a part costs a pass over the result): as
    /// many as give every multiprocessor two large blocks, or four small ones.
    fn parts(&self, length: usize) -> usize {
        let blocks = MULTIPROCESSORS * if self.size == 128 { 2 } else { 4 };
        (blocks / (self.grid[0] * self.grid[1]).max(1)).clamp(1, length.div_ceil(256).max(1))
    }

    /// Runs the kernel, in this many parts that are added then, with a bias a column and an activation. `arguments` are the
    /// kernel's, of the buffer that it is to write into.
    fn run(
        &self,
        cuda: &'static Cuda,
        parts: usize,
        result: &Memory,
        end: End,
        arguments: impl FnOnce(&Memory) -> Vec<Argument>,
    ) -> Result<()> {
        let [x, y] = self.grid;
        let size = Size::grid([x, y, parts], [2 * self.size as u32, 1, 1])?;
        let kernel = Kernel::of("conv2d", self.name);
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
        let kernel = Kernel::of("conv2d", "conv2d_parts");
        // SAFETY: `partial` is parts · n floats, the result is n, new, the bias `columns`.
        unsafe { cuda.launch(kernel, Size::elements(n), &all) }
    }
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
const FORWARD: Names = names!("forward");
const DATA: Names = names!("data");
const WEIGHT: Names = names!("weight");

/// A convolution of fewer channels runs over (tap, channel) pairs instead of taps (the kernels' `DEPTH`), in
/// f32 whatever the precision: it is a network's first.
const FEW_CHANNELS: usize = 16;

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
    let (tiles, parts) = match g.in_channels < FEW_CHANNELS && g.kernel != [1, 1] {
        true => {
            let grid = [outputs.div_ceil(64), g.out_channels.div_ceil(64)];
            (Tiles { name: "conv2d_forward_few", size: 64, grid }, 1)
        }
        false => {
            let tiles = Tiles::new(&FORWARD, precision, outputs, g.out_channels, 1);
            let parts = tiles.parts(g.kernel[0] * g.kernel[1] * g.in_channels);
            (tiles, parts)
        }
    };
    let geometry = Geometry::new(g)?;
    // The shape rule made the sizes of x, w and b those of the geometry; y is new.
    let all =
        |y: &Memory| arguments![x.memory(), w.memory(), bias, y, geometry, activation as i32].into();
    tiles.run(cuda, parts, &y, End { bias: b, columns: g.out_channels, activation }, all)?;
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
    let tiles = Tiles::new(&DATA, precision, inputs, g.in_channels, 1);
    let parts = tiles.parts(g.kernel[0] * g.kernel[1] * g.out_channels);
    let (geometry, end) = (Geometry::new(g)?, End::plain(g.in_channels));
    // As above; dx is new.
    let all = |dx: &Memory| arguments![dy.memory(), w.memory(), dx, geometry].into();
    tiles.run(cuda, parts, &dx, end, all)?;
    Ok(dx)
}

pub(crate) fn kernel_gradient(
    cuda: &'static Cuda,
    g: &Conv2dGeometry,
    dy: &Tensor,
    x: &Tensor,
    precision: Precision,
) -> Result<Memory> {
    let outputs = g.batch * g.output[0] * g.output[1];
    let rows = g.kernel[0] * g.kernel[1] * g.in_channels;
    let dw = cuda.allocate(rows * g.out_channels, DType::F32)?;
    let most = outputs.div_ceil(256).max(1);
    let tiles = Tiles::new(&WEIGHT, precision, rows, g.out_channels, most);
    let (geometry, end) = (Geometry::new(g)?, End::plain(g.out_channels));
    // As above; dw is new.
    let all = |dw: &Memory| arguments![x.memory(), dy.memory(), dw, geometry].into();
    tiles.run(cuda, tiles.parts(outputs), &dw, end, all)?;
    Ok(dw)
}
