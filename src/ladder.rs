//! The ladders of `kernels/ladder`: of an operator the numbered kernels from the naive one to the one that
//! runs. Each file's header says what its rung adds; here each is a [`Rung`] that runs on a [`Work`], so that
//! all are tested alike, and timed side by side (`atrous bench conv2d --ladder`).

use crate::autograd::no_grad;
use crate::cases::Input;
use crate::cuda::{self, Argument, Cuda, Kernel, Memory, arguments};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::conv2d::{Conv2dGeometry, device as conv2d, with_tile};
use crate::ops::depthwise_conv2d::{DepthwiseGeometry, device as depthwise};
use crate::ops::{self, Conv2dOptions, Padding, Precision, Then, with_precision};
use crate::tensor::{DType, Shape, Tensor};

/// The operators that have a ladder.
pub const OPERATORS: [&str; 5] = ["batch_norm", "conv2d", "depthwise_conv2d", "gemm", "reduce"];

/// One kernel, or the few that make one result.
pub struct Rung {
    pub number: usize,
    /// As its file is named, without the operator.
    pub name: &'static str,
    /// Of its factors; values and sums are f32.
    pub precision: Precision,
    run: fn(&'static Cuda, &Work, &[Tensor]) -> Result<Memory>,
}

/// What a ladder's rungs all compute.
pub struct Work {
    pub operator: &'static str,
    /// `3x3_256_56_n4`
    pub name: String,
    pub inputs: Vec<Input>,
    pub output: Shape,
    /// Multiplications and additions, as the definition counts them.
    pub flops: f64,
    options: Conv2dOptions,
}

/// Batch norm's.
const EPSILON: f64 = 1e-3;

impl Work {
    fn conv2d(name: &str, x: [usize; 4], k: usize, f: usize, options: Conv2dOptions) -> Self {
        let w = [k, k, x[3], f];
        let g = Conv2dGeometry::new(x.into(), w.into(), options).expect("a valid convolution");
        let inputs = vec![Input::new("x", x), Input::new("w", w), Input::new("b", [f])];
        Work::new("conv2d", name, inputs, g.output_shape(), g.flops(), options)
    }

    fn depthwise(name: &str, x: [usize; 4], k: usize, options: Conv2dOptions) -> Self {
        let w = [k, k, x[3], 1];
        let g = DepthwiseGeometry::new(x.into(), w.into(), options).expect("a valid convolution");
        let inputs = vec![Input::new("x", x), Input::new("w", w), Input::new("b", [x[3]])];
        Work::new("depthwise_conv2d", name, inputs, g.output_shape(), g.flops(), options)
    }

    fn gemm(name: &str, m: usize, n: usize, k: usize) -> Self {
        let inputs = vec![Input::new("a", [m, k]), Input::new("b", [k, n])];
        let flops = 2.0 * (m * n * k) as f64;
        Work::new("gemm", name, inputs, [m, n].into(), flops, Conv2dOptions::default())
    }

    fn batch_norm(name: &str, rows: usize, c: usize) -> Self {
        let inputs = vec![Input::new("x", [rows, c]), Input::new("gamma", [c]), Input::new("beta", [c])];
        Work::new("batch_norm", name, inputs, [rows, c].into(), 0.0, Conv2dOptions::default())
    }

    fn reduce(name: &str, rows: usize, columns: usize) -> Self {
        let inputs = vec![Input::new("x", [rows, columns])];
        Work::new("reduce", name, inputs, [rows].into(), 0.0, Conv2dOptions::default())
    }

    fn new(
        operator: &'static str,
        name: &str,
        inputs: Vec<Input>,
        output: Shape,
        flops: f64,
        options: Conv2dOptions,
    ) -> Self {
        Work { operator, name: name.into(), inputs, output, flops, options }
    }

    /// Bytes of inputs and output, each touched once.
    pub fn least_bytes(&self) -> f64 {
        let elements = |shape: Shape| shape.elements() as f64;
        let inputs: f64 = self.inputs.iter().map(|input| elements(input.shape)).sum();
        4.0 * (inputs + elements(self.output))
    }

    /// The inputs, on a device.
    pub fn tensors(&self, device: Device) -> Result<Vec<Tensor>> {
        let values = |input: &Input| input.sample(&format!("{}/{}", self.operator, self.name));
        let tensor = |input| Tensor::from_slice(&values(input), input.shape)?.to_device(device);
        self.inputs.iter().map(tensor).collect()
    }

    /// The result, by the CPU's kernels in f64.
    pub fn expected(&self) -> Result<Tensor> {
        let t: Vec<Tensor> =
            self.tensors(Device::Cpu)?.iter().map(|tensor| tensor.to_dtype(DType::F64)).collect();
        self.by_operator(&t)
    }

    /// The result, by the operator as everybody calls it.
    fn by_operator(&self, t: &[Tensor]) -> Result<Tensor> {
        no_grad(|| match self.operator {
            "conv2d" => ops::conv2d(&t[0], &t[1], Some(&t[2]), self.options),
            "depthwise_conv2d" => ops::depthwise_conv2d(&t[0], &t[1], Some(&t[2]), self.options),
            "gemm" => ops::dense(&t[0], &t[1], None),
            "batch_norm" => Ok(ops::batch_norm_train(&t[0], &t[1], &t[2], EPSILON, Then::Nothing)?.y),
            _ => ops::sum_axes(&t[0], 1..2),
        })
    }

    fn conv2d_geometry(&self) -> Result<Conv2dGeometry> {
        Conv2dGeometry::new(self.inputs[0].shape, self.inputs[1].shape, self.options)
    }

    fn depthwise_geometry(&self) -> Result<DepthwiseGeometry> {
        DepthwiseGeometry::new(self.inputs[0].shape, self.inputs[1].shape, self.options)
    }
}

/// Padded to the same size.
fn options(stride: usize, dilation: usize) -> Conv2dOptions {
    let (stride, dilation) = ([stride; 2], [dilation; 2]);
    Conv2dOptions { stride, padding: Padding::Same, dilation, then: Then::Nothing }
}

/// Small ones of odd sizes, for tests.
pub fn tiny(operator: &str) -> Result<Vec<Work>> {
    Ok(match operator {
        "conv2d" => vec![
            Work::conv2d("3x3_odd", [2, 9, 7, 5], 3, 6, options(1, 1)),
            Work::conv2d("3x3_s2", [1, 10, 9, 20], 3, 35, options(2, 1)),
            Work::conv2d("3x3_d2", [1, 11, 9, 16], 3, 68, options(1, 2)),
            Work::conv2d("1x1", [1, 13, 11, 33], 1, 130, options(1, 1)),
        ],
        "depthwise_conv2d" => vec![
            Work::depthwise("3x3_odd", [2, 9, 7, 12], 3, options(1, 1)),
            Work::depthwise("3x3_s2", [1, 10, 9, 20], 3, options(2, 1)),
            Work::depthwise("5x5_d2", [1, 11, 9, 8], 5, options(1, 2)),
        ],
        "gemm" => vec![
            Work::gemm("1x1x1", 1, 1, 1),
            Work::gemm("67x45x29", 67, 45, 29),
            Work::gemm("130x136x64", 130, 136, 64),
        ],
        "batch_norm" => vec![
            Work::batch_norm("one_row", 1, 7),
            Work::batch_norm("130x33", 130, 33),
            Work::batch_norm("300x132", 300, 132),
        ],
        "reduce" => vec![
            Work::reduce("1x1", 1, 1),
            Work::reduce("3x2501", 3, 2501),
            Work::reduce("5x4100", 5, 4100),
        ],
        _ => return Err(unknown(operator)),
    })
}

/// Those of networks, for benchmarks.
pub fn real(operator: &str) -> Result<Vec<Work>> {
    Ok(match operator {
        "conv2d" => vec![
            Work::conv2d("3x3_64_56_n16", [16, 56, 56, 64], 3, 64, options(1, 1)),
            Work::conv2d("3x3_256_28_n16", [16, 28, 28, 256], 3, 256, options(1, 1)),
            Work::conv2d("1x1_256_512_28_n16", [16, 28, 28, 256], 1, 512, options(1, 1)),
            Work::conv2d("3x3_d12_1024_256_14_n16", [16, 14, 14, 1024], 3, 256, options(1, 12)),
        ],
        "depthwise_conv2d" => vec![
            Work::depthwise("3x3_32_112_n16", [16, 112, 112, 32], 3, options(1, 1)),
            Work::depthwise("3x3_512_14_n16", [16, 14, 14, 512], 3, options(1, 1)),
            Work::depthwise("3x3_s2_144_56_n16", [16, 56, 56, 144], 3, options(2, 1)),
        ],
        "gemm" => vec![
            Work::gemm("1024x1024x1024", 1024, 1024, 1024),
            Work::gemm("4096x4096x4096", 4096, 4096, 4096),
        ],
        "batch_norm" => vec![
            Work::batch_norm("64_at_56_n16", 16 * 56 * 56, 64),
            Work::batch_norm("512_at_14_n16", 16 * 14 * 14, 512),
        ],
        "reduce" => {
            vec![Work::reduce("1x16777216", 1, 1 << 24), Work::reduce("4096x4096", 4096, 4096)]
        }
        _ => return Err(unknown(operator)),
    })
}

fn unknown(operator: &str) -> Error {
    let known = OPERATORS.join("`, `");
    Error::argument("ladder", format!("`{operator}` has none; those that have are `{known}`"))
}

/// An operator's rungs, the naive one first. The last ones are what the operator runs.
pub fn rungs(operator: &str) -> Result<Vec<Rung>> {
    use Precision::{Bf16, F32, Tf32};
    let rung = |number, name, precision, run| Rung { number, name, precision, run };
    Ok(match operator {
        "conv2d" => vec![
            rung(1, "direct", F32, |cuda, work, t| {
                let n = work.output.elements();
                conv(cuda, work, t, "1_direct", cuda::Size::elements(n))
            }),
            rung(2, "tiled", F32, conv2d_tiled),
            rung(3, "implicit_gemm", F32, |cuda, work, t| {
                let (rows, f) =
                    (work.output.elements() / work.output.last_axis(), work.output.last_axis());
                let size = cuda::Size::grid([rows.div_ceil(64), f.div_ceil(64), 1], [256, 1, 1])?;
                conv(cuda, work, t, "3_implicit_gemm", size)
            }),
            rung(4, "cp_async, tile of 64", F32, |_, work, t| with_tile(64, || used(work, t))),
            rung(4, "cp_async, tile of 128", F32, |_, work, t| with_tile(128, || used(work, t))),
            rung(5, "mma, tile of 64", Tf32, |_, work, t| with_tile(64, || used(work, t))),
            rung(5, "mma, tile of 128", Tf32, |_, work, t| with_tile(128, || used(work, t))),
            rung(5, "mma, tile of 64", Bf16, |_, work, t| with_tile(64, || used(work, t))),
            rung(5, "mma, tile of 128", Bf16, |_, work, t| with_tile(128, || used(work, t))),
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
                launch(cuda, "ladder/reduce_1_row", "reduce_1_row", cuda::Size::elements(rows), &all)?;
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
        _ => return Err(unknown(operator)),
    })
}

impl Rung {
    /// Runs the rung on the work's [`tensors`](Work::tensors).
    pub fn run(&self, work: &Work, inputs: &[Tensor]) -> Result<Tensor> {
        let cuda = Cuda::get(inputs[0].device())?;
        let output = with_precision(self.precision, || (self.run)(cuda, work, inputs))?;
        Ok(Tensor::from_memory(output, work.output))
    }

    /// Seconds of one run: the median of `times`, each by the device's own clock.
    pub fn seconds(&self, work: &Work, inputs: &[Tensor], times: usize) -> Result<f64> {
        let cuda = Cuda::get(inputs[0].device())?;
        self.run(work, inputs)?; // compiled, its memory allocated
        let once = |_| cuda.timed(&mut || self.run(work, inputs).map(drop));
        let mut all = (0..times.max(1)).map(once).collect::<Result<Vec<f64>>>()?;
        all.sort_by(f64::total_cmp);
        Ok(all[all.len() / 2])
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
    size: cuda::Size,
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
    size: cuda::Size,
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
    let mut size = cuda::Size::grid([patches, g.out_channels.div_ceil(32), g.batch], [32, 8, 1])?;
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
    launch(cuda, module, name, cuda::Size::elements(n / width), &all)?;
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
    launch(cuda, module, name, cuda::Size::grid(grid, [block[0], block[1], 1])?, &all)?;
    Ok(c)
}

fn batch_norm_channel(cuda: &'static Cuda, work: &Work, t: &[Tensor]) -> Result<Memory> {
    let (rows, c) = (work.output[0], work.output[1]);
    let y = cuda.allocate(rows * c, DType::F32)?;
    let (x, gamma, beta) = (t[0].memory(), t[1].memory(), t[2].memory());
    let all = arguments![x, gamma, beta, &y, rows as i64, c as i32, EPSILON];
    let module = "ladder/batch_norm_1_channel";
    launch(cuda, module, "batch_norm_1_channel", cuda::Size::elements(c), &all)?;
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
    let grid = cuda::Size::grid([c.div_ceil(32), tiles, 1], [32, 8, 1])?;
    launch(cuda, module, "batch_norm_2_tiles", grid, &arguments![x, &partial, count, channels, long])?;
    let all = arguments![&partial, &mean, &variance, &inverse, count, channels, long, EPSILON];
    launch(cuda, "batch_norm", "batch_norm_statistics", cuda::Size::elements(c), &all)?;
    let n = rows * c;
    let all = arguments![x, gamma, beta, &mean, &inverse, &y, n as i64, channels];
    launch(cuda, module, "batch_norm_2_apply", cuda::Size::elements(n), &all)?;
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
    let size = cuda::Size::grid([rows, 1, 1], [256, 1, 1])?;
    launch(cuda, module, name, size, &arguments![t[0].memory(), &y, columns as i64])?;
    Ok(y)
}
