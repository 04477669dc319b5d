//! The cases of all operators: each is declared once, beside its operator, and used four times.
//!
//! - agreement: every instruction set against the f64 reference, values and gradients;
//! - gradient: the closed form against finite differences of the f64 reference;
//! - the emulator and the GPU against the CPU;
//! - the benchmark: time, GFLOP/s, GB/s, ratio to the reference.

use crate::device::Device;
use crate::error::Result;
use crate::random::{Stream, domain, hash_name};
use crate::tensor::{DType, IntoShape, Shape, Tensor};

/// What a case is for, which decides how large it is.
///
/// [`Case`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// For tests, on every machine: odd sizes, channel tails, edges.
    Tiny,
    /// For benchmarks: the sizes networks have.
    Real,
}

/// What the elements of an input are.
///
/// ```
/// use atrous::cases::{Case, Fill, Input, Size};
/// use atrous::{DType, Tensor};
///
/// let drawn = |fill| {
///     let inputs = vec![Input::new("x", [2, 4]).fill(fill).constant()];
///     let case = Case::new("any", "any", Size::Tiny, inputs, |t| Ok(t[0].clone()));
///     case.tensors(DType::F32)[0].to_vec_f64()
/// };
/// assert_eq!(drawn(Fill::OneHot)[..4].iter().sum::<f64>(), 1.0);
/// let mut all = drawn(Fill::Distinct);
/// all.sort_by(f64::total_cmp);
/// assert_eq!(all[..2], [-0.875, -0.625]); // eight numbers, a quarter apart
/// assert!(drawn(Fill::Labels(3)).iter().all(|label| [0.0, 1.0, 2.0].contains(label)));
/// ```
#[derive(Clone, Debug)]
pub enum Fill {
    /// Uniform between these two.
    Uniform(f32, f32),
    /// Uniform in the range, but nowhere within `margin` of one of the points: for functions with
    /// kinks, whose finite differences mean nothing there.
    Avoiding {
        /// Lowest value.
        low: f32,
        /// Highest value, itself excluded.
        high: f32,
        /// The kinks to keep away from.
        points: &'static [f32],
        /// How far, at least.
        margin: f32,
    },
    /// All different, evenly spaced in [-1, 1] and shuffled: no two compete for a maximum.
    Distinct,
    /// Whole numbers 0..n, as floats: class numbers.
    Labels(usize),
    /// Rows along the last axis with each element 1 with this probability, else 0.
    Flags(f32),
    /// Rows along the last axis with a single 1.
    OneHot,
}

/// Sizes as users and files give them: small ones, and some about where whole numbers of 16 to 64 bits end.
#[cfg(test)]
pub(crate) fn any_size() -> impl proptest::strategy::Strategy<Value = usize> {
    use proptest::prelude::*;
    let powers =
        (0u32..64, -2i64..=2).prop_map(|(bits, off)| (1usize << bits).wrapping_add_signed(off as isize));
    prop_oneof![3 => 0usize..9, 3 => powers, 1 => any::<usize>()]
}

/// One input of a case: its shape and how its values are drawn, not the values themselves.
///
/// [`Case`] and [`Fill`] have examples.
#[derive(Clone, Debug)]
pub struct Input {
    /// The parameter's name in the operator's signature: `x`, `w`, `labels`. It is part of the
    /// seed.
    pub name: &'static str,
    /// One to four axes, in the operator's order (NHWC for images).
    pub shape: Shape,
    /// How its elements are drawn; always the same ones for the same case and name.
    pub fill: Fill,
    /// Whether the operator has a gradient by it.
    pub differentiable: bool,
}

impl Input {
    /// Uniform in [-1, 1], differentiable.
    ///
    /// # Panics
    /// Where that is no shape: cases are written by hand.
    pub fn new(name: &'static str, shape: impl IntoShape) -> Self {
        let shape = shape.into_shape().unwrap_or_else(|error| panic!("{name}: {error}"));
        Input { name, shape, fill: Fill::Uniform(-1.0, 1.0), differentiable: true }
    }

    /// Draws the elements in another way.
    pub fn fill(mut self, fill: Fill) -> Self {
        self.fill = fill;
        self
    }

    /// An input without a gradient: labels, weights of samples, moving statistics.
    pub fn constant(mut self) -> Self {
        self.differentiable = false;
        self
    }

    /// The values this input has in the case of the given name.
    pub(crate) fn sample(&self, case: &str) -> Vec<f32> {
        let n = self.shape.elements();
        let mut stream = Stream::new(hash_name(case), &[domain::TEST, hash_name(self.name)]);
        match self.fill {
            Fill::Uniform(low, high) => (0..n).map(|_| stream.uniform(low, high)).collect(),
            Fill::Avoiding { low, high, points, margin } => {
                let mut draw = || loop {
                    let value = stream.uniform(low, high);
                    if points.iter().all(|point| (value - point).abs() > margin) {
                        return value;
                    }
                };
                (0..n).map(|_| draw()).collect()
            }
            Fill::Distinct => {
                let scale = 2.0 / n as f32;
                stream.permutation(n).into_iter().map(|i| (i as f32 + 0.5) * scale - 1.0).collect()
            }
            Fill::Labels(classes) => (0..n).map(|_| stream.below(classes) as f32).collect(),
            Fill::Flags(p) => (0..n).map(|_| (stream.unit() < p) as u8 as f32).collect(),
            Fill::OneHot => {
                let classes = self.shape.last_length();
                let mut values = vec![0.0; n];
                for row in values.chunks_mut(classes) {
                    row[stream.below(classes)] = 1.0;
                }
                values
            }
        }
    }
}

type Run = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

/// An operator on inputs of given shapes: what agreement, gradient checks, device checks and
/// benchmarks run.
///
/// ```
/// use atrous::cases::{Case, Input, Size, relative_deviation};
/// use atrous::prelude::*;
///
/// let inputs = vec![Input::new("a", [3, 5]), Input::new("b", [5, 4])];
/// let case = Case::new("matmul", "3x5x4", Size::Tiny, inputs, |t| t[0].matmul(&t[1])).tolerance(1e-6);
/// assert_eq!(case.full_name(), "matmul/3x5x4");
///
/// let (y, gradients) = case.forward_backward(DType::F32)?;
/// let (expected, _) = case.forward_backward(DType::F64)?; // by the definition, loop by loop
/// assert!(relative_deviation(&y, &expected) < case.tolerance);
/// assert_eq!(gradients[1].as_ref().unwrap().shape()[..], [5, 4]);
/// assert!(case.finite_difference_deviation(8)? < 1e-7); // of eight elements an input
/// assert_eq!(case.least_bytes(&y), 4.0 * (3 * 5 + 5 * 4 + 3 * 4) as f64);
///
/// let (there, _) = case.forward_backward_on(Device::Cpu)?; // a GPU, where there is one
/// assert_eq!(there.to_vec_f64(), y.to_vec_f64());
/// # Ok::<(), Error>(())
/// ```
pub struct Case {
    /// The operator, as `ops` names it.
    pub op: &'static str,
    /// Tells the operator's cases apart: `3x3_same`.
    pub name: String,
    /// Whether tests or benchmarks run it.
    pub size: Size,
    /// In the order of the operator's parameters.
    pub inputs: Vec<Input>,
    /// The operator on these inputs, through the tape.
    pub run: Run,
    /// Multiplications and additions of the forward pass (0: bytes are what counts).
    pub flops: f64,
    /// Allowed deviation of f32 from the f64 reference, as a fraction of the largest absolute
    /// value of the tensor compared.
    pub tolerance: f64,
    /// [operator, shape] of the same work in the scripts of `benches/peers`.
    pub peer: Option<[&'static str; 2]>,
    /// The backward pass is, by its definition, not the derivative of the forward pass.
    pub surrogate: bool,
}

impl Case {
    /// A case with a tolerance of 1e-5, no count of operations and no peer.
    pub fn new(
        op: &'static str,
        name: impl Into<String>,
        size: Size,
        inputs: Vec<Input>,
        run: impl Fn(&[Tensor]) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        let (name, run) = (name.into(), Box::new(run));
        Case { op, name, size, inputs, run, flops: 0.0, tolerance: 1e-5, peer: None, surrogate: false }
    }

    pub(crate) fn flops(mut self, flops: f64) -> Self {
        self.flops = flops;
        self
    }

    /// Allows another deviation from the reference, as a fraction of its largest absolute value.
    pub fn tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    pub(crate) fn peer(mut self, op: &'static str, shape: &'static str) -> Self {
        self.peer = Some([op, shape]);
        self
    }

    pub(crate) fn surrogate(mut self) -> Self {
        self.surrogate = true;
        self
    }

    /// Operator and name: `conv2d/3x3_same`. It is part of the inputs' seed.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.op, self.name)
    }

    /// The inputs, the same f32 values whatever the type; differentiable ones as leaves.
    pub fn tensors(&self, dtype: DType) -> Vec<Tensor> {
        let tensor = |input: &Input| {
            let values = input.sample(&self.full_name());
            let tensor = Tensor::from_slice(&values, input.shape).expect("one value an element");
            let tensor = tensor.to_dtype(dtype);
            if input.differentiable { tensor.leaf() } else { tensor }
        };
        self.inputs.iter().map(tensor).collect()
    }

    /// Output and gradients in f32, computed on a device, brought back to the CPU.
    pub fn forward_backward_on(&self, device: Device) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let there = |input: &Tensor| {
            let tensor = input.to_device(device)?;
            Ok(if input.requires_grad() { tensor.leaf() } else { tensor })
        };
        let inputs = self.tensors(DType::F32).iter().map(there).collect::<Result<Vec<_>>>()?;
        let output = (self.run)(&inputs)?;
        let mut gradients = output.backward_from(self.upstream(&output).to_device(device)?)?;
        let here = |input| gradients.take(input).map(|g| g.to_device(Device::Cpu)).transpose();
        let gradients = inputs.iter().map(here).collect::<Result<Vec<_>>>()?;
        Ok((output.to_device(Device::Cpu)?, gradients))
    }

    /// The gradient of a made-up later loss by the output: fixed random numbers.
    pub(crate) fn upstream(&self, output: &Tensor) -> Tensor {
        let values = Input::new("upstream", output.shape()).sample(&self.full_name());
        let upstream = Tensor::from_slice(&values, output.shape()).expect("one value an element");
        upstream.to_dtype(output.dtype())
    }

    /// Output and gradients (None for constants) on the CPU in the given type: f64 is the naive
    /// reference. An error where the operator refuses the inputs.
    pub fn forward_backward(&self, dtype: DType) -> Result<(Tensor, Vec<Option<Tensor>>)> {
        let inputs = self.tensors(dtype);
        let output = (self.run)(&inputs)?;
        let mut gradients = output.backward_from(self.upstream(&output))?;
        let gradients = inputs.iter().map(|input| gradients.take(input)).collect();
        Ok((output.detach(), gradients))
    }

    /// sum(output · upstream) in f64, at given values of the inputs.
    fn probe(&self, inputs: &[Tensor]) -> Result<f64> {
        let output = crate::context::no_grad(|| (self.run)(inputs))?;
        let upstream = self.upstream(&output).to_vec_f64();
        Ok(output.to_vec_f64().iter().zip(upstream).map(|(y, g)| y * g).sum())
    }

    /// The largest deviation, relative to the largest gradient, of the closed form from central
    /// differences of the f64 reference, over at most `probes` elements an input.
    pub fn finite_difference_deviation(&self, probes: usize) -> Result<f64> {
        // A central difference is off by h²/6 f''' + ε/h: both near 1e-10 at this h.
        const H: f64 = 1e-5;
        let (_, gradients) = self.forward_backward(DType::F64)?;
        let mut inputs: Vec<Tensor> = self.tensors(DType::F64).iter().map(Tensor::detach).collect();
        let mut worst = 0.0f64;
        for (i, gradient) in gradients.iter().enumerate() {
            if !self.inputs[i].differentiable {
                continue;
            }
            let n = self.inputs[i].shape.elements();
            // No gradient reported: the output does not depend on the input.
            let closed = gradient.as_ref().map_or(vec![0.0; n], Tensor::to_vec_f64);
            let scale = closed.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
            let mut stream = Stream::new(hash_name(&self.full_name()), &[domain::TEST, i as u64]);
            for element in stream.permutation(n).into_iter().take(probes) {
                let at = inputs[i].values::<f64>()[element];
                inputs[i].values_mut::<f64>()[element] = at + H;
                let above = self.probe(&inputs)?;
                inputs[i].values_mut::<f64>()[element] = at - H;
                let below = self.probe(&inputs)?;
                inputs[i].values_mut::<f64>()[element] = at;
                let difference = (above - below) / (2.0 * H);
                worst = worst.max((difference - closed[element]).abs() / scale);
            }
        }
        Ok(worst)
    }

    /// Bytes that have to move at least: all inputs and the output, each touched once, in f32.
    pub fn least_bytes(&self, output: &Tensor) -> f64 {
        let elements = |shape: Shape| shape.elements() as f64;
        4.0 * (self.inputs.iter().map(|i| elements(i.shape)).sum::<f64>() + elements(output.shape()))
    }
}

/// The largest deviation between two tensors as a fraction of the expected one's largest value.
///
/// ```
/// use atrous::Tensor;
/// use atrous::cases::relative_deviation;
///
/// let expected = Tensor::from([1.0f32, -8.0]);
/// assert_eq!(relative_deviation(&Tensor::from([3.0f32, -8.0]), &expected), 2.0 / 8.0);
/// ```
pub fn relative_deviation(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.shape(), expected.shape());
    let (got, expected) = (got.to_vec_f64(), expected.to_vec_f64());
    let scale = expected.iter().fold(1e-6f64, |m, e| m.max(e.abs()));
    let worst = |m: f64, (g, e): (&f64, &f64)| {
        let deviation = (g - e).abs() / scale;
        if deviation.is_nan() { f64::INFINITY } else { m.max(deviation) }
    };
    got.iter().zip(&expected).fold(0.0, worst)
}
