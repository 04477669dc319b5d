//! The rungs of `kernels/ladder`: each file's header says what its rung adds.

use super::{EPSILON, Run, Rung, Work, unknown};
use crate::backend::cuda::{self, Argument, Cuda, Kernel, Memory, arguments};
use crate::context::{Precision, with_conv_tile};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::conv2d::cuda as conv2d;
use crate::ops::depthwise_conv2d::cuda as depthwise;
use crate::tensor::{DType, Tensor};

/// The operators that have rungs here.
pub const OPERATORS: [&str; 5] = ["batch_norm", "conv2d", "depthwise_conv2d", "gemm", "reduce"];

/// An operator's rungs, the naive one first. The last ones are what the operator runs.
pub fn rungs(operator: &str) -> Result<Vec<Rung>> {
    use Precision::{Bf16, F32, Tf32};
    let rung = |number, name, precision, run| Rung {
        number,
        name,
        adds: adds(operator, number),
        precision,
        run: Run::Cuda(run),
    };
    Ok(match operator {
        "conv2d" => vec![
            rung(1, "direct", F32, |cuda, work, t| {
                let n = work.output.elements();
                conv(cuda, work, t, "1_direct", cuda::LaunchConfig::elements(n))
            }),
            rung(2, "tiled", F32, conv2d_tiled),
            rung(3, "implicit_gemm", F32, |cuda, work, t| {
                let (rows, f) =
                    (work.output.elements() / work.output.last_length(), work.output.last_length());
                let size =
                    cuda::LaunchConfig::grid([rows.div_ceil(64), f.div_ceil(64), 1], [256, 1, 1])?;
                conv(cuda, work, t, "3_implicit_gemm", size)
            }),
            rung(4, "cp_async, tile of 64", F32, |_, work, t| with_conv_tile(64, || used(work, t))),
            rung(4, "cp_async, tile of 128", F32, |_, work, t| with_conv_tile(128, || used(work, t))),
            rung(5, "mma, tile of 64", Tf32, |_, work, t| with_conv_tile(64, || used(work, t))),
            rung(5, "mma, tile of 128", Tf32, |_, work, t| with_conv_tile(128, || used(work, t))),
            rung(5, "mma, tile of 64", Bf16, |_, work, t| with_conv_tile(64, || used(work, t))),
            rung(5, "mma, tile of 128", Bf16, |_, work, t| with_conv_tile(128, || used(work, t))),
        ],
        "depthwise_conv2d" => vec![
            rung(1, "naive", F32, |cuda, work, t| dw(cuda, work, t, "1_naive", 1)),
            rung(2, "vectors", F32, |cuda, work, t| dw(cuda, work, t, "2_vectors", 4)),
            rung(3, "slide", F32, |_, work, t| used(work, t)),
        ],
        "gemm" => vec![
            rung(1, "naive", F32, |cuda, work, t| gemm(cuda, work, t, "gemm_1_naive", [32, 8], [32, 8])),
            rung(2, "tiled", F32, |cuda, work, t| {
                gemm(cuda, work, t, "gemm_2_tiled", [32, 32], [32, 8])
            }),
            rung(3, "registers", F32, |cuda, work, t| {
                gemm(cuda, work, t, "gemm_3_registers", [64, 64], [256, 1])
            }),
            rung(4, "cp_async", F32, |cuda, work, t| {
                gemm(cuda, work, t, "gemm_4_cp_async", [128, 128], [256, 1])
            }),
            rung(5, "mma", Tf32, |cuda, work, t| {
                gemm(cuda, work, t, "gemm_5_tf32", [128, 128], [256, 1])
            }),
            rung(5, "mma", Bf16, |cuda, work, t| {
                gemm(cuda, work, t, "gemm_5_bf16", [128, 128], [256, 1])
            }),
        ],
        "batch_norm" => vec![
            rung(1, "channel", F32, batch_norm_channel),
            rung(2, "tiles", F32, batch_norm_tiles),
            rung(3, "fours", F32, |_, work, t| used(work, t)),
        ],
        "reduce" => vec![
            rung(1, "row", F32, |cuda, work, t| {
                let [rows, columns] = [work.output[0], work.inputs[0].shape[1]];
                let y = cuda.allocate(rows, DType::F32)?;
                let all = arguments![t[0].memory(), &y, rows as i64, columns as i64];
                launch(
                    cuda,
                    "ladder/reduce_1_row",
                    "reduce_1_row",
                    cuda::LaunchConfig::elements(rows),
                    &all,
                )?;
                Ok(y)
            }),
            rung(2, "tree", F32, |cuda, work, t| {
                reduce(cuda, work, t, "ladder/reduce_2_tree", "reduce_2_tree")
            }),
            rung(3, "shuffles", F32, |cuda, work, t| {
                reduce(cuda, work, t, "ladder/reduce_3_shuffles", "reduce_3_shuffles")
            }),
            rung(4, "parts", F32, |_, work, t| used(work, t)),
        ],
        _ => return Err(unknown(operator, Device::Cuda(0))),
    })
}

/// What a rung adds, in a line: its file's header says more.
fn adds(operator: &str, number: usize) -> &'static str {
    match (operator, number) {
        ("conv2d", 1) => "a thread an output, straight from the definition",
        ("conv2d", 2) => "the pixels that a block sees lie in shared memory",
        ("conv2d", 3) => {
            "a matrix product, whose left factor is read from the picture where it is needed"
        }
        ("conv2d", 4) => "the next tiles are on their way while these are multiplied",
        ("conv2d", _) => "tensor cores",
        ("depthwise_conv2d", 1) => "a thread an output",
        ("depthwise_conv2d", 2) => "four channels a thread, in loads of 16 bytes",
        ("depthwise_conv2d", _) => "windows slide through registers",
        ("gemm", 1) => "a thread an element",
        ("gemm", 2) => "tiles of both factors in shared memory",
        ("gemm", 3) => "4 by 4 sums a thread, in registers",
        ("gemm", 4) => "the next tiles are on their way while these are multiplied",
        ("gemm", _) => "tensor cores",
        ("batch_norm", 1) => "a thread a channel",
        ("batch_norm", 2) => "tiles of rows, merged",
        ("batch_norm", _) => "four channels a thread, in loads of 16 bytes",
        ("reduce", 1) => "a thread a row",
        ("reduce", 2) => "a block a row, and a tree in shared memory",
        ("reduce", 3) => "shuffles instead of the tree",
        _ => "long rows in parts, a block each",
    }
}

/// By the operator itself: the rung that is used.
fn used(work: &Work, t: &[Tensor]) -> Result<Memory> {
    work.by_operator(t)?.into_memory()
}

/// Launches a kernel on the tensors of a work and a new output: every launch below says why it fits.
fn launch(
    cuda: &Cuda,
    module: &'static str,
    name: &'static str,
    size: cuda::LaunchConfig,
    all: &[Argument],
) -> Result<()> {
    // SAFETY: works are made by the constructors above, whose shapes the kernels' headers ask for; the
    // output is new.
    unsafe { cuda.launch(Kernel::of(module, name), size, all) }
}

fn conv(
    cuda: &'static Cuda,
    work: &Work,
    t: &[Tensor],
    rung: &'static str,
    size: cuda::LaunchConfig,
) -> Result<Memory> {
    let (module, name) = match rung {
        "1_direct" => ("ladder/conv2d_1_direct", "conv2d_1_direct"),
        "2_tiled" => ("ladder/conv2d_2_tiled", "conv2d_2_tiled"),
        _ => ("ladder/conv2d_3_implicit_gemm", "conv2d_3_implicit_gemm"),
    };
    let y = cuda.allocate(work.output.elements(), DType::F32)?;
    let geometry = conv2d::Geometry::new(&work.conv2d_geometry()?)?;
    let all = arguments![t[0].memory(), t[1].memory(), t[2].memory(), &y, geometry];
    launch(cuda, module, name, size, &all)?;
    Ok(y)
}

fn conv2d_tiled(cuda: &'static Cuda, work: &Work, t: &[Tensor]) -> Result<Memory> {
    let g = work.conv2d_geometry()?;
    // The kernel's SIDE and CHANNELS.
    let patch: usize =
        (0..2).map(|axis| 7 * g.stride[axis] + (g.kernel[axis] - 1) * g.dilation[axis] + 1).product();
    let bytes = patch * 4 * 4;
    if bytes > 48 << 10 {
        let message = format!("a patch of {bytes} bytes does not fit into shared memory (49152)");
        return Err(Error::argument("conv2d_2_tiled", message));
    }
    let patches = g.output[0].div_ceil(8) * g.output[1].div_ceil(8);
    let mut size =
        cuda::LaunchConfig::grid([patches, g.out_channels.div_ceil(32), g.batch], [32, 8, 1])?;
    size.shared = bytes as u32;
    conv(cuda, work, t, "2_tiled", size)
}

fn dw(
    cuda: &'static Cuda,
    work: &Work,
    t: &[Tensor],
    rung: &'static str,
    width: usize,
) -> Result<Memory> {
    let (module, name) = match rung {
        "1_naive" => ("ladder/depthwise_conv2d_1_naive", "depthwise_conv2d_1_naive"),
        _ => ("ladder/depthwise_conv2d_2_vectors", "depthwise_conv2d_2_vectors"),
    };
    let n = work.output.elements();
    let y = cuda.allocate(n, DType::F32)?;
    let geometry = depthwise::Geometry::new(&work.depthwise_geometry()?)?;
    let all = arguments![t[0].memory(), t[1].memory(), t[2].memory(), &y, geometry];
    launch(cuda, module, name, cuda::LaunchConfig::elements(n / width), &all)?;
    Ok(y)
}

/// `tile`: columns and rows of a block.
fn gemm(
    cuda: &'static Cuda,
    work: &Work,
    t: &[Tensor],
    name: &'static str,
    tile: [usize; 2],
    block: [u32; 2],
) -> Result<Memory> {
    let (m, n, k) = (work.output[0], work.output[1], work.inputs[0].shape[1]);
    let module = match name {
        "gemm_1_naive" => "ladder/gemm_1_naive",
        "gemm_2_tiled" => "ladder/gemm_2_tiled",
        "gemm_3_registers" => "ladder/gemm_3_registers",
        "gemm_4_cp_async" => "ladder/gemm_4_cp_async",
        _ => "ladder/gemm_5_mma",
    };
    let c = cuda.allocate(m * n, DType::F32)?;
    let all = arguments![t[0].memory(), t[1].memory(), &c, m as i32, n as i32, k as i32];
    let grid = [n.div_ceil(tile[0]), m.div_ceil(tile[1]), 1];
    launch(cuda, module, name, cuda::LaunchConfig::grid(grid, [block[0], block[1], 1])?, &all)?;
    Ok(c)
}

fn batch_norm_channel(cuda: &'static Cuda, work: &Work, t: &[Tensor]) -> Result<Memory> {
    let (rows, c) = (work.output[0], work.output[1]);
    let y = cuda.allocate(rows * c, DType::F32)?;
    let (x, gamma, beta) = (t[0].memory(), t[1].memory(), t[2].memory());
    let all = arguments![x, gamma, beta, &y, rows as i64, c as i32, EPSILON];
    let module = "ladder/batch_norm_1_channel";
    launch(cuda, module, "batch_norm_1_channel", cuda::LaunchConfig::elements(c), &all)?;
    Ok(y)
}

fn batch_norm_tiles(cuda: &'static Cuda, work: &Work, t: &[Tensor]) -> Result<Memory> {
    let module = "ladder/batch_norm_2_tiles";
    let (rows, c) = (work.output[0], work.output[1]);
    let length = rows.div_ceil(1024).max(64);
    let tiles = rows.div_ceil(length);
    let partial = cuda.scratch(8 * 2 * tiles * c)?;
    let vector = || cuda.allocate(c, DType::F32);
    let (mean, variance, inverse) = (vector()?, vector()?, vector()?);
    let y = cuda.allocate(rows * c, DType::F32)?;
    let (x, gamma, beta) = (t[0].memory(), t[1].memory(), t[2].memory());
    let (count, channels, long) = (rows as i64, c as i32, length as i64);
    let grid = cuda::LaunchConfig::grid([c.div_ceil(32), tiles, 1], [32, 8, 1])?;
    launch(cuda, module, "batch_norm_2_tiles", grid, &arguments![x, &partial, count, channels, long])?;
    let of_all = tiles as i32;
    let all = arguments![&partial, &mean, &variance, &inverse, count, channels, long, of_all, EPSILON];
    let grid = cuda::LaunchConfig::grid([c.div_ceil(32), 1, 1], [32, 32, 1])?;
    launch(cuda, "batch_norm", "batch_norm_statistics", grid, &all)?;
    let n = rows * c;
    let all = arguments![x, gamma, beta, &mean, &inverse, &y, n as i64, channels];
    launch(cuda, module, "batch_norm_2_apply", cuda::LaunchConfig::elements(n), &all)?;
    Ok(y)
}

/// A block a row.
fn reduce(
    cuda: &'static Cuda,
    work: &Work,
    t: &[Tensor],
    module: &'static str,
    name: &'static str,
) -> Result<Memory> {
    let [rows, columns] = [work.output[0], work.inputs[0].shape[1]];
    let y = cuda.allocate(rows, DType::F32)?;
    let size = cuda::LaunchConfig::grid([rows, 1, 1], [256, 1, 1])?;
    launch(cuda, module, name, size, &arguments![t[0].memory(), &y, columns as i64])?;
    Ok(y)
}
