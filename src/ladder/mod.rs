//! Ladders: of an operator the numbered kernels from the naive one to the one that runs, for those who study.
//!
//! | | files | what runs |
//! |---|---|---|
//! | `cpu` | `src/ladder/cpu`, one a rung | conv2d, depthwise_conv2d, gemm |
//! | `cuda` | `kernels/ladder`, one a rung | those, batch_norm and reduce |
//!
//! Each file's header says what its rung adds to the one before, and what would bind it. Here each is a
//! [`Rung`] that runs on a [`Work`], so that all are tested alike, and timed side by side (`atrous bench
//! conv2d --ladder`).

mod cpu;
mod cuda;

use crate::activation::Activation;
use crate::backend::cuda::{Cuda, Memory};
use crate::cases::Input;
use crate::context::{Precision, no_grad, with_precision};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::ops::conv2d::Conv2dGeometry;
use crate::ops::depthwise_conv2d::DepthwiseGeometry;
use crate::ops::{self, Conv2dOptions, Padding};
use crate::tensor::{DType, Shape, Tensor};
use std::time::Instant;

/// One kernel, or the few that make one result.
///
/// ```
/// use atrous::cases::relative_deviation;
/// use atrous::prelude::*;
/// use atrous::ladder;
///
/// let work = &ladder::tiny("gemm")?[1];
/// assert_eq!((work.name.as_str(), work.flops), ("67x45x29", 2.0 * (67 * 45 * 29) as f64));
/// assert_eq!(work.least_bytes(), 4.0 * (67 * 29 + 29 * 45 + 67 * 45) as f64);
/// let inputs = work.tensors(Device::Cpu)?;
/// let expected = work.expected()?;
/// for rung in ladder::rungs("gemm", Device::Cpu)? {
///     let deviation = relative_deviation(&rung.run(work, &inputs)?, &expected);
///     assert!(deviation < 1e-5, "{} {}: {deviation}", rung.number, rung.name);
///     assert!(rung.seconds(work, &inputs, 3)? > 0.0);
/// }
/// # Ok::<(), Error>(())
/// ```
pub struct Rung {
    /// Its place on the ladder, from 1, the naive kernel.
    pub number: usize,
    /// As its file is named, without the operator.
    pub name: &'static str,
    /// What it adds to the rung before, in a line.
    pub adds: &'static str,
    /// Precision of the factors; values and sums are f32.
    pub precision: Precision,
    run: Run,
}

/// A rung's result, from the work's inputs.
enum Run {
    Cpu(fn(&Work, &[Tensor]) -> Result<Tensor>),
    Cuda(fn(&'static Cuda, &Work, &[Tensor]) -> Result<Memory>),
}

/// A problem that the rungs of a ladder all solve: an operator on inputs of given shapes.
///
/// [`Rung`] has an example.
pub struct Work {
    /// The operator, as `ops` names it; `gemm` is the matrix product.
    pub operator: &'static str,
    /// Its shape in short: `3x3_256_56_n4`.
    pub name: String,
    /// In the order of the operator's parameters.
    pub inputs: Vec<Input>,
    /// Shape of the result.
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

    /// Bytes of inputs and output in f32, each touched once.
    pub fn least_bytes(&self) -> f64 {
        let elements = |shape: Shape| shape.elements() as f64;
        let inputs: f64 = self.inputs.iter().map(|input| elements(input.shape)).sum();
        4.0 * (inputs + elements(self.output))
    }

    /// The inputs in f32, on a device; always the same values.
    pub fn tensors(&self, device: Device) -> Result<Vec<Tensor>> {
        let values = |input: &Input| input.sample(&format!("{}/{}", self.operator, self.name));
        let tensor = |input| Tensor::from_slice(&values(input), input.shape)?.to_device(device);
        self.inputs.iter().map(tensor).collect()
    }

    /// The right result, by the CPU's reference kernels in f64.
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
            "batch_norm" => {
                Ok(ops::batch_norm_train(&t[0], &t[1], &t[2], EPSILON, Activation::Linear)?.y)
            }
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
    Conv2dOptions { stride, padding: Padding::Same, dilation }
}

/// Small ones of odd sizes, for tests.
///
/// [`Rung`] has an example.
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
        _ => return Err(unknown(operator, Device::Cuda(0))),
    })
}

/// Those of networks, for benchmarks: for the CPU fewer images, since its naive rungs take seconds.
///
/// ```
/// use atrous::Device;
/// use atrous::ladder::real;
///
/// let of = |device| real("conv2d", device).map(|works| works[0].inputs[0].shape);
/// assert_eq!(of(Device::Cpu)?[..], [4, 56, 56, 64]);
/// assert_eq!(of(Device::Cuda(0))?[..], [16, 56, 56, 64]);
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn real(operator: &str, device: Device) -> Result<Vec<Work>> {
    let here = device == Device::Cpu;
    let n = if here { 4 } else { 16 };
    let conv = |name: &str, [side, c, f]: [usize; 3], k: usize, dilation: usize| {
        let name = format!("{name}_n{n}");
        Work::conv2d(&name, [n, side, side, c], k, f, options(1, dilation))
    };
    Ok(match operator {
        "conv2d" => vec![
            conv("3x3_64_56", [56, 64, 64], 3, 1),
            conv("3x3_256_28", [28, 256, 256], 3, 1),
            conv("1x1_256_512_28", [28, 256, 512], 1, 1),
            conv("3x3_d12_1024_256_14", [14, 1024, 256], 3, 12),
        ],
        "depthwise_conv2d" => vec![
            Work::depthwise("3x3_32_112_n16", [16, 112, 112, 32], 3, options(1, 1)),
            Work::depthwise("3x3_512_14_n16", [16, 14, 14, 512], 3, options(1, 1)),
            Work::depthwise("3x3_s2_144_56_n16", [16, 56, 56, 144], 3, options(2, 1)),
        ],
        // The second is 3x3_64_56 of one image, as a product.
        "gemm" if here => vec![
            Work::gemm("1024x1024x1024", 1024, 1024, 1024),
            Work::gemm("3136x64x576", 3136, 64, 576),
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
        _ => return Err(unknown(operator, device)),
    })
}

/// The operators that have a ladder on a device.
///
/// ```
/// use atrous::Device;
/// use atrous::ladder::{operators, rungs};
///
/// assert_eq!(operators(Device::Cpu), ["conv2d", "depthwise_conv2d", "gemm"]);
/// let first = &rungs("conv2d", Device::Cpu)?[0];
/// assert_eq!((first.number, first.name), (1, "naive"));
/// let error = rungs("reduce", Device::Cpu).err().unwrap().to_string();
/// assert!(error.contains("`reduce` has no rungs on the CPU"), "{error}");
/// # Ok::<(), atrous::Error>(())
/// ```
pub fn operators(device: Device) -> &'static [&'static str] {
    match device {
        Device::Cpu => &cpu::OPERATORS,
        Device::Cuda(_) | Device::Emulated => &cuda::OPERATORS,
    }
}

/// An operator's rungs on a device, the naive one first.
///
/// [`operators`] and [`Rung`] have examples.
pub fn rungs(operator: &str, device: Device) -> Result<Vec<Rung>> {
    match device {
        Device::Cpu => cpu::rungs(operator),
        Device::Cuda(_) | Device::Emulated => cuda::rungs(operator),
    }
}

fn unknown(operator: &str, device: Device) -> Error {
    let known = |device| operators(device).join("`, `");
    let message = match operators(Device::Cuda(0)).contains(&operator) && device == Device::Cpu {
        true => format!(
            "`{operator}` has no rungs on the CPU, where `{}` have; --device cuda (or emulated) runs those \
             of its CUDA kernels",
            known(Device::Cpu)
        ),
        false => format!("`{operator}` has none; those that have are `{}`", known(device)),
    };
    Error::argument("ladder", message)
}

/// The longest that a rung's runs together take on the CPU, in seconds, where one alone does not take longer.
const LIMIT: f64 = 2.0;

impl Rung {
    /// Runs the rung on the work's [`tensors`](Work::tensors).
    pub fn run(&self, work: &Work, inputs: &[Tensor]) -> Result<Tensor> {
        match self.run {
            Run::Cpu(run) => no_grad(|| run(work, inputs)),
            Run::Cuda(run) => {
                let cuda = Cuda::get(inputs[0].device())?;
                let output = with_precision(self.precision, || run(cuda, work, inputs))?;
                Ok(Tensor::from_memory(output, work.output))
            }
        }
    }

    /// Seconds of one run: the median of `times` after one to warm up. On the CPU of fewer where they
    /// would take too long, and of a single one of seconds there is no other.
    pub fn seconds(&self, work: &Work, inputs: &[Tensor], times: usize) -> Result<f64> {
        let run = || self.run(work, inputs).map(drop);
        let once = || match self.run {
            Run::Cpu(_) => {
                let start = Instant::now();
                run()?;
                Ok(start.elapsed().as_secs_f64())
            }
            // By the device's own clock.
            Run::Cuda(_) => Cuda::get(inputs[0].device())?.timed(&mut || run()),
        };
        let mut all = vec![once()?];
        let times = match self.run {
            Run::Cpu(_) => times.min((LIMIT / all[0]) as usize),
            Run::Cuda(_) => times.max(1),
        };
        if times > 0 {
            all.clear(); // compiled by now, its memory allocated
        }
        for _ in 0..times {
            all.push(once()?);
        }
        all.sort_by(f64::total_cmp);
        Ok(all[all.len() / 2])
    }
}
