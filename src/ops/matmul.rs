//! Products of matrices: c [.., M, N] = a [.., M, K] · b [.., K, N].
//!
//! Axes before the last two are a batch, broadcast as in NumPy. With g = ∂L/∂c: ∂L/∂a = g · bᵀ, ∂L/∂b = aᵀ ·
//! g, each summed over the batch axes along which its operand was broadcast.
//!
//! One b for all of a batch is a single product, of a's rows one after the other: a dense layer without bias
//! ([`crate::ops::dense()`]). Else there is a product for each pair of matrices, on the same kernels
//! (`crate::backend::cpu::gemm`, `kernels/gemm_mainloop.cuh`). Arithmetic binds from some dozens of rows
//! on: 2·M·N·K operations.

use crate::autograd::{Needs, record};
use crate::backend::cpu::gemm::{BOperand, Matrix, gemm_tn, is_skinny, multiply, skinny_gemm};
use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::skinny_gradients::times_transpose;
use crate::backend::cpu::threads;
use crate::backend::cuda::{Cuda, Kernel, LaunchConfig, Value, arguments};
use crate::cases::{self, Case, Input};
use crate::context::{Precision, isa, precision};
use crate::error::{Error, Result};
use crate::ops::binary::unbroadcast;
use crate::ops::broadcast::Broadcast;
use crate::ops::{Route, dense, reshape, route};
use crate::pool::Buffer;
use crate::tensor::{DType, Real, Shape, Tensor};

/// a [.., M, K] · b [.., K, N] = [.., M, N]; axes before the last two are broadcast as in NumPy. An error
/// where the operands have fewer than two axes, or do not fit.
///
/// See [`Tensor::matmul`], which has an example.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (shape_a, shape_b) = (a.shape(), b.shape());
    let refused =
        || Error::shape("matmul", "a [.., M, K] and b [.., K, N]", format!("{shape_a} and {shape_b}"));
    let (Some((batch_a, &[rows, depth])), Some((batch_b, &[other_depth, columns]))) =
        (shape_a.split_last_chunk(), shape_b.split_last_chunk())
    else {
        return Err(refused());
    };
    if depth != other_depth {
        return Err(refused());
    }
    if batch_b.is_empty() && [shape_a.elements(), shape_b.elements()].iter().all(|&n| n > 0) {
        let all_rows = reshape(a, [shape_a.elements() / depth, depth])?;
        let product = dense(&all_rows, b, None)?;
        return reshape(&product, &[batch_a, &[rows, columns]].concat()[..]);
    }
    let (leading_a, leading_b) = (Shape::of(batch_a), Shape::of(batch_b));
    let laid = Broadcast::new("matmul", leading_a, leading_b).map_err(|_| refused())?;
    let with_batch = move |matrix: [usize; 2]| Shape::checked(&[&laid.shape[..], &matrix].concat());
    let [_, _, batch @ ..] = laid.sizes;
    let [steps_a, steps_b] = [(0, rows * depth), (1, depth * columns)].map(|(operand, matrix)| {
        let [_, _, steps @ ..] = laid.strides[operand];
        steps.map(|matrices| matrices * matrix)
    });
    let steps_c = [batch[1], 1].map(|matrices| matrices * rows * columns);
    let steps = [steps_a, steps_b];
    let forward =
        Product { mode: Mode::Plain, rows, columns, depth, batch, steps, precision: precision() };
    let output = forward.run([a, b], with_batch([rows, columns])?)?;
    // The gradients are of matrices of the whole batch at first.
    let for_a = Product {
        mode: Mode::RightTransposed,
        columns: depth,
        depth: columns,
        steps: [steps_c, steps_b],
        ..forward
    };
    let for_b = Product {
        mode: Mode::LeftTransposed,
        rows: depth,
        depth: rows,
        steps: [steps_a, steps_c],
        ..forward
    };
    let needs = Needs::of([a, b]).0;
    let saved_b = needs[0].then(|| b.detach());
    let saved_a = needs[1].then(|| a.detach());
    Ok(record("matmul", [a, b], output, move |g| {
        let da = saved_b.map(|b| unbroadcast(for_a.run([&g, &b], with_batch([rows, depth])?)?, shape_a));
        let db =
            saved_a.map(|a| unbroadcast(for_b.run([&a, &g], with_batch([depth, columns])?)?, shape_b));
        Ok([da.transpose()?, db.transpose()?])
    }))
}

impl Tensor {
    /// self [.., M, K] · b [.., K, N] = [.., M, N]; axes before the last two are broadcast as in NumPy. An
    /// error where the operands have fewer than two axes, or do not fit.
    ///
    /// ```
    /// # use atrous::prelude::*;
    /// let a = Tensor::from([[1.0f32, 2.0], [3.0, 4.0]]);
    /// assert_eq!(a.matmul(&Tensor::eye(2))?.to_string(), a.to_string());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn matmul(&self, b: &Tensor) -> Result<Tensor> {
        matmul(self, b)
    }
}

/// How the two matrices lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// [rows, depth] · [depth, columns]
    Plain,
    /// [rows, depth] · [columns, depth]ᵀ
    RightTransposed,
    /// [depth, rows]ᵀ · [depth, columns]
    LeftTransposed,
}

/// A batch of products [rows, columns].
#[derive(Clone, Copy, Debug)]
struct Product {
    mode: Mode,
    rows: usize,
    columns: usize,
    depth: usize,
    batch: [usize; 2],
    /// Elements from one matrix to the next along each batch axis, of both operands.
    steps: [[usize; 2]; 2],
    /// A device's; the gradients have that of their forward pass.
    precision: Precision,
}

impl Product {
    /// All of them, as a tensor of this shape.
    fn run(&self, operands: [&Tensor; 2], shape: Shape) -> Result<Tensor> {
        Ok(match route("matmul", &operands)? {
            Route::F64 => self.each::<f64>(operands, shape, |a, b, c| self.naive(a, b, c)),
            Route::Reference => self.each::<f32>(operands, shape, |a, b, c| self.naive(a, b, c)),
            Route::Fast => {
                let isa = isa();
                self.each::<f32>(operands, shape, |a, b, c| self.fast(isa, a, b, c))
            }
            Route::Cuda(cuda) => self.device(cuda, operands, shape)?,
        })
    }

    /// Calls `product(a, b, c)` for each of the batch.
    fn each<T: Real>(
        &self,
        [a, b]: [&Tensor; 2],
        shape: Shape,
        product: impl Fn(&[T], &[T], &mut [T]) + Sync + Send,
    ) -> Tensor {
        let (a, b, size) = (a.values::<T>(), b.values::<T>(), self.rows * self.columns);
        let mut c = Buffer::<T>::new(shape.elements());
        threads::for_each_chunk(&mut c, size.max(1), |i, c| {
            let place = [i / self.batch[1], i % self.batch[1]];
            let at = |steps: [usize; 2]| place[0] * steps[0] + place[1] * steps[1];
            let (a, b) = (&a[at(self.steps[0])..], &b[at(self.steps[1])..]);
            product(&a[..self.rows * self.depth], &b[..self.depth * self.columns], c);
        });
        Tensor::from_buffer(c, shape)
    }

    fn naive<T: Real>(&self, a: &[T], b: &[T], c: &mut [T]) {
        let Product { rows, columns, depth, .. } = *self;
        for (at, c) in c.iter_mut().enumerate() {
            let (i, j) = (at / columns, at % columns);
            let term = |k: usize| match self.mode {
                Mode::Plain => a[i * depth + k] * b[k * columns + j],
                Mode::RightTransposed => a[i * depth + k] * b[j * depth + k],
                Mode::LeftTransposed => a[k * rows + i] * b[k * columns + j],
            };
            *c = (0..depth).map(term).sum();
        }
    }

    fn fast(&self, isa: Isa, a: &[f32], b: &[f32], c: &mut [f32]) {
        let Product { rows, columns, depth, .. } = *self;
        let is_skinny = is_skinny(isa, rows);
        match self.mode {
            _ if depth == 0 => c.fill(0.0),
            Mode::Plain if is_skinny => skinny_gemm(isa, a, depth, b, columns, None, c),
            Mode::Plain => multiply(isa, a, &BOperand::matrix(b, depth, columns), None, c),
            Mode::RightTransposed if is_skinny => times_transpose(isa, a, depth, b, c),
            Mode::RightTransposed => multiply(isa, a, &BOperand::transpose(b, depth, columns), None, c),
            Mode::LeftTransposed => gemm_tn(isa, &Matrix::new(a, depth, rows), b, columns, c),
        }
    }

    fn device(&self, cuda: &'static Cuda, [a, b]: [&Tensor; 2], shape: Shape) -> Result<Tensor> {
        const NAMES: [[&str; 3]; 3] = [
            ["matmul_nn_f32", "matmul_nn_tf32", "matmul_nn_bf16"],
            ["matmul_nt_f32", "matmul_nt_tf32", "matmul_nt_bf16"],
            ["matmul_tn_f32", "matmul_tn_tf32", "matmul_tn_bf16"],
        ];
        let batch = self.batch[0] * self.batch[1];
        let c = cuda.allocate(shape.elements(), DType::F32)?;
        let number = |n: usize| {
            i32::try_from(n).map_err(|_| Error::argument("matmul", format!("{n} is too large a size")))
        };
        let sizes = [number(self.rows)?, number(self.columns)?, number(self.depth)?, number(batch)?];
        let [a_steps, b_steps] = self.steps.map(|steps| steps.map(|step| step as i64));
        let of_batch = OnDevice { a_steps, b_steps, inner: self.batch[1] as i64 };
        let grid = [self.rows.div_ceil(64), self.columns.div_ceil(64), batch.min(1 << 14)];
        let kernel = Kernel::of("matmul", NAMES[self.mode as usize][self.precision as usize]);
        let [rows, columns, depth, batch] = sizes;
        let all = arguments![a.memory(), b.memory(), &c, rows, columns, depth, batch, of_batch];
        // SAFETY: the operands hold their matrices of each of the batch; c is batch · rows · columns floats,
        // new.
        unsafe { cuda.launch(kernel, LaunchConfig::grid(grid, [128, 1, 1])?, &all)? };
        Ok(Tensor::from_memory(c, shape))
    }
}

/// `struct Batch` of `kernels/matmul.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct OnDevice {
    a_steps: [i64; 2],
    b_steps: [i64; 2],
    inner: i64,
}
// SAFETY: numbers without padding.
unsafe impl Value for OnDevice {}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name: &'static str, size, a: &[usize], b: &[usize]| {
        let inputs = vec![Input::new("a", a), Input::new("b", b)];
        let columns = b[b.len() - 1];
        let batch: usize =
            a.iter().rev().skip(2).product::<usize>().max(b.iter().rev().skip(2).product());
        let flops = 2 * batch * a[a.len() - 2] * a[a.len() - 1] * columns;
        Case::new("matmul", name, size, inputs, |t| matmul(&t[0], &t[1])).flops(flops as f64)
    };
    use cases::Size::{Real, Tiny};
    vec![
        case("3x11x7", Tiny, &[3, 11], &[11, 7]),
        case("70x130x65", Tiny, &[70, 130], &[130, 65]),
        case("rows_of_a_batch", Tiny, &[2, 5, 3, 9], &[9, 8]),
        case("batch", Tiny, &[3, 5, 7], &[3, 7, 4]),
        case("two_batch_axes", Tiny, &[2, 3, 33, 20], &[2, 3, 20, 36]),
        case("broadcast_left", Tiny, &[5, 7], &[3, 7, 4]),
        case("broadcast_both", Tiny, &[2, 1, 5, 7], &[1, 3, 7, 4]),
        case("broadcast_inner", Tiny, &[2, 3, 70, 40], &[3, 40, 66]),
        case("of_one", Tiny, &[3, 1, 1], &[3, 1, 1]),
        case("512x512x512", Real, &[512, 512], &[512, 512]),
        case("16x8_128x64x128", Real, &[16, 8, 128, 64], &[16, 8, 64, 128]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_refused_with_both() {
        let error = |a: &[usize], b: &[usize]| {
            matmul(&Tensor::zeros(Shape::of(a)), &Tensor::zeros(Shape::of(b))).unwrap_err().to_string()
        };
        let expected = "matmul: expected a [.., M, K] and b [.., K, N], got [2×3] and [4×5]";
        assert_eq!(error(&[2, 3], &[4, 5]), expected);
        assert!(error(&[3], &[3, 5]).contains("got [3] and"));
        assert!(error(&[2, 4, 3], &[3, 3, 5]).contains("got [2×4×3] and [3×3×5]"));
    }

    #[test]
    fn a_sum_of_nothing_is_zero_and_no_rows_are_no_rows() {
        let y = Tensor::zeros([2, 0]).matmul(&Tensor::zeros([0, 3])).unwrap();
        assert_eq!((y.shape()[..].to_vec(), y.to_vec_f64()), (vec![2, 3], vec![0.0; 6]));
        let y = Tensor::zeros([2, 0, 4]).matmul(&Tensor::zeros([2, 4, 3])).unwrap();
        assert_eq!(y.shape()[..], [2, 0, 3]);
    }
}
