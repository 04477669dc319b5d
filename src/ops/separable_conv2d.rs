//! A depthwise convolution and the 1×1 convolution that alone reads it: together a separable convolution.
//!
//! `x [N, H, W, C], v [kh, kw, C, 1], w [1, 1, C, F] → y [N, OH, OW, F]`:
//!
//! y(n, oy, ox, f) = b(f) + Σ_c d(n, oy, ox, c) · w(c, f), with d = then(the depthwise convolution of x by v).
//!
//! The depthwise convolution is bound by bytes, and its result is as large as what it reads. Where no gradient is asked
//! for, nobody needs that result but the product: a task makes as many rows of it as fit L2 and multiplies them there,
//! and they are never written to memory.

use super::depthwise_conv2d::{ByRows, DepthwiseGeometry};
use super::{Conv2dOptions, Route, conv2d, depthwise_conv2d, route};
use crate::activation::Activation;
use crate::autograd::Needs;
use crate::backend::cpu::gemm::{Start, multiply_rows};
use crate::backend::cpu::kept::Weights;
use crate::backend::cpu::simd::streams;
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::error::Result;
use crate::ops::conv2d::{Conv2dGeometry, algorithm::is_pointwise, conv2d_onto, cpu::pointwise_panels};
use crate::pool::Buffer;
use crate::tensor::Tensor;

/// One of the two.
#[derive(Clone, Copy)]
pub(crate) struct Convolution<'a> {
    pub kernel: &'a Tensor,
    pub bias: Option<&'a Tensor>,
    pub options: Conv2dOptions,
}

/// The 1×1 convolution `point` of the depthwise convolution `depth` of x [N, H, W, C]; the sum of that and `onto` where
/// there is one. x is given away. The same bits as of the operators one after the other.
///
/// # Errors
/// Theirs.
pub(crate) fn separable_conv2d(
    x: Tensor,
    depth: Convolution,
    point: Convolution,
    mut onto: Option<Tensor>,
) -> Result<Tensor> {
    if let Some(plan) = Plan::new(&x, depth, point, onto.as_mut()) {
        return Ok(plan.run(&x, depth, point, onto));
    }
    let between = depthwise_conv2d(&x, depth.kernel, depth.bias, depth.options)?;
    drop(x);
    let Convolution { kernel, bias, options } = point;
    match onto {
        Some(onto) => conv2d_onto(&between, kernel, bias, options, onto),
        None => conv2d(&between, kernel, bias, options),
    }
}

/// How the two are computed together.
struct Plan {
    depth: DepthwiseGeometry,
    point: Conv2dGeometry,
    /// Rows of pixels a task, counted through all pictures.
    rows: usize,
}

impl Plan {
    /// None where they are computed apart; so is what does not fit, for the operators to refuse.
    fn new(
        x: &Tensor,
        depth: Convolution,
        point: Convolution,
        mut onto: Option<&mut Tensor>,
    ) -> Option<Self> {
        let of_depth = DepthwiseGeometry::new(x.shape(), depth.kernel.shape(), depth.options).ok()?;
        let between = of_depth.output_shape();
        let of_point = Conv2dGeometry::new(between, point.kernel.shape(), point.options).ok()?;
        let biased =
            |by: Convolution, channels| by.bias.is_none_or(|bias| bias.shape()[..] == [channels]);
        let fits = biased(depth, of_depth.channels) && biased(point, of_point.out_channels);
        // A sum is made in the summand's memory. That must not be x's: other rows still read it.
        let added = onto.as_deref_mut().is_none_or(|onto| {
            let plain = point.options.activation == Activation::Linear;
            plain && onto.is_unique() && onto.shape() == of_point.output_shape()
        });
        let onto = onto.as_deref();
        let all = [x, depth.kernel, point.kernel].into_iter();
        let all: Vec<&Tensor> = all.chain(depth.bias).chain(point.bias).chain(onto).collect();
        let constant = all.iter().all(|tensor| !Needs::of([*tensor]).any());
        let fast = matches!(route("conv2d", &all), Ok(Route::Fast)) && is_pointwise(&of_point);
        if !(fits && added && constant && fast) {
            return None;
        }
        let [height, width] = of_depth.output;
        let rows = rows(of_depth.batch * height, width * of_depth.channels)?;
        Some(Plan { depth: of_depth, point: of_point, rows })
    }

    fn run(&self, x: &Tensor, depth: Convolution, point: Convolution, onto: Option<Tensor>) -> Tensor {
        let bias = point.bias.map(|bias| bias.values());
        match onto {
            Some(mut onto) => {
                let start = bias.map_or(Start::Accumulate, Start::Onto);
                self.write(x, depth, point, start, false, onto.values_mut());
                onto.detach()
            }
            None => {
                let start = bias.map_or(Start::Zero, Start::Bias);
                let mut y = Buffer::<f32>::new(self.point.output_shape().elements());
                let stream = streams(&y, self.point.out_channels);
                self.write(x, depth, point, start, stream, &mut y);
                Tensor::from_buffer(y, self.point.output_shape())
            }
        }
    }

    fn write(
        &self,
        x: &Tensor,
        depth: Convolution,
        point: Convolution,
        start: Start,
        stream: bool,
        y: &mut [f32],
    ) {
        let (isa, activation) = (isa(), depth.options.activation);
        let weights = Weights { values: point.kernel.values(), kept: Some(point.kernel.kept()) };
        let panels = pointwise_panels(isa, &self.point, weights);
        let bias = depth.bias.map(|bias| bias.values());
        let by_rows = ByRows::new(isa, &self.depth, x.values(), depth.kernel.values(), bias, activation);
        let band = self.rows * self.depth.output[1];
        threads::for_each_chunk(y, band * self.point.out_channels, |i, y| {
            let pixels = y.len() / self.point.out_channels;
            let mut between = Buffer::<f32>::new(pixels * self.depth.channels);
            by_rows.make(i * self.rows, false, &mut between);
            multiply_rows(&between, &panels, start, point.options.activation, stream, y);
        });
    }
}

/// Rows of `width` floats a task, of `count`; None where little is gained.
fn rows(count: usize, width: usize) -> Option<usize> {
    /// Floats a task: 128 KiB, which stay in L2 beside a group of the product's panels and the rows of x.
    const BAND: usize = threads::PASS / 2;
    /// Fewer tasks' floats are in the cores' L2 anyway.
    const LEAST: usize = 16;
    if width == 0 || width > 2 * BAND {
        return None;
    }
    let bands = count.div_ceil((BAND / width).max(1));
    // Nearly the same for all, so that few cores are done together.
    (bands >= LEAST).then(|| count.div_ceil(bands.next_multiple_of(4)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::simd::{Isa, supported};
    use crate::context::with_isa;
    use crate::ops::Padding;

    fn noise(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    fn options(stride: usize, padding: Padding, activation: Activation) -> Conv2dOptions {
        Conv2dOptions { stride: [stride; 2], padding, activation, ..Default::default() }
    }

    /// One after the other.
    fn apart(x: &Tensor, depth: Convolution, point: Convolution, onto: Option<&Tensor>) -> Tensor {
        let between = depthwise_conv2d(x, depth.kernel, depth.bias, depth.options).unwrap();
        let y = conv2d(&between, point.kernel, point.bias, point.options).unwrap();
        onto.map_or(y.clone(), |onto| crate::ops::add(&y, onto).unwrap())
    }

    #[test]
    fn in_one_pass_the_bits_are_those_of_the_operators_apart() {
        use Activation::{Linear, Relu, Relu6};
        use Padding::{Cells, Same, Valid};
        let cases = [
            ([2, 100, 91, 35], 50, 1, Same, [Relu, Linear]),
            ([1, 300, 203, 40], 16, 2, Cells([0, 1]), [Relu6, Linear]),
            ([3, 67, 44, 96], 24, 1, Valid, [Relu6, Relu6]),
            ([2, 185, 130, 48], 33, 2, Same, [Linear, Relu]),
            // More panels of the product than one group.
            ([2, 17, 20, 1030], 300, 1, Same, [Relu, Linear]),
        ];
        for isa in supported() {
            with_isa(isa, || {
                for (shape, filters, stride, padding, [between, activation]) in cases {
                    let (x, c) = (noise(&shape), shape[3]);
                    let (v, w) = (noise(&[3, 3, c, 1]), noise(&[1, 1, c, filters]));
                    let biases = [noise(&[c]), noise(&[filters])];
                    for bias in [true, false] {
                        let [of_depth, of_point] = biases.each_ref().map(|b| bias.then_some(b));
                        let options_of_depth = options(stride, padding, between);
                        let depth =
                            Convolution { kernel: &v, bias: of_depth, options: options_of_depth };
                        let options = options(1, Valid, activation);
                        let point = Convolution { kernel: &w, bias: of_point, options };
                        let plans = |onto| Plan::new(&x, depth, point, onto).is_some();
                        assert_eq!(plans(None), isa != Isa::Reference, "{shape:?}");
                        let expected = apart(&x, depth, point, None);
                        for threads in [1, 3] {
                            let got = threads::with(threads, || {
                                with_isa(isa, || separable_conv2d(x.clone(), depth, point, None))
                            });
                            let got = got.unwrap().unwrap();
                            assert_eq!(got.shape(), expected.shape());
                            assert_eq!(
                                got.values::<f32>(),
                                expected.values::<f32>(),
                                "{isa:?} {shape:?}"
                            );
                        }
                        let mut onto = noise(&expected.shape());
                        let sum = apart(&x, depth, point, Some(&onto));
                        assert_eq!(
                            plans(Some(&mut onto)),
                            activation == Linear && isa != Isa::Reference
                        );
                        // Held by somebody else, its memory stays as it is.
                        for onto in [onto.clone(), onto] {
                            let got = separable_conv2d(x.clone(), depth, point, Some(onto)).unwrap();
                            assert_eq!(got.values::<f32>(), sum.values::<f32>(), "{isa:?} {shape:?}");
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn a_gradient_a_small_picture_and_what_reads_its_own_sum_are_computed_apart() {
        let (v, w) = (noise(&[3, 3, 64, 1]), noise(&[1, 1, 64, 64]));
        let same = options(1, Padding::Same, Activation::Linear);
        let depth = Convolution { kernel: &v, bias: None, options: same };
        let point = Convolution { kernel: &w, bias: None, options: same };
        let x = noise(&[4, 100, 50, 64]);
        let plans = |x: &Tensor, depth, onto| Plan::new(x, depth, point, onto).is_some();
        assert!(plans(&x, depth, None));
        let leaf = v.leaf();
        assert!(!plans(&x, Convolution { kernel: &leaf, ..depth }, None));
        let y =
            separable_conv2d(x.clone(), Convolution { kernel: &leaf, ..depth }, point, None).unwrap();
        assert!(y.needs_grad());
        assert!(!plans(&noise(&[1, 14, 14, 64]), depth, None));
        let mut itself = x.clone();
        assert!(!plans(&x, depth, Some(&mut itself)));
        let expected = apart(&x, depth, point, Some(&x));
        let sum = separable_conv2d(x, depth, point, Some(itself)).unwrap();
        assert_eq!(sum.values::<f32>(), expected.values::<f32>());
    }

    #[test]
    fn what_does_not_fit_is_refused_as_by_the_operators() {
        let x = noise(&[4, 100, 50, 64]);
        let same = options(1, Padding::Same, Activation::Linear);
        let (v, w) = (noise(&[3, 3, 64, 1]), noise(&[1, 1, 64, 8]));
        let refused = |kernel: &Tensor, bias: Option<&Tensor>| {
            let depth = Convolution { kernel: &v, bias: None, options: same };
            let point = Convolution { kernel, bias, options: same };
            separable_conv2d(x.clone(), depth, point, None).unwrap_err().to_string()
        };
        assert!(refused(&noise(&[1, 1, 63, 8]), None).contains("64 input channels"));
        assert!(refused(&w, Some(&noise(&[9]))).contains("bias of [8]"));
    }
}
