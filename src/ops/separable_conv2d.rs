//! A depthwise convolution and the 1×1 convolution that alone reads it: together a separable convolution.
//!
//! `x [N, H, W, C], v [kh, kw, C, 1], w [1, 1, C, F] → y [N, OH, OW, F]`:
//!
//! y(n, oy, ox, f) = b(f) + Σ_c d(n, oy, ox, c) · w(c, f), with d = activation(the depthwise convolution of x
//! by v).
//!
//! The depthwise convolution is bound by bytes, and its result is as large as what it reads. Where no
//! gradient is asked for, nobody needs that result but the product: a task makes as many rows of it as fit L2
//! and multiplies them there, and they are never written to memory.

use super::conv2d::{Conv2dGeometry, Convolution, algorithm, conv2d_fused, cpu};
use super::depthwise_conv2d::{ByRows, DepthwiseGeometry, depthwise_conv2d_fused};
use super::epilogue::{Epilogue, Setting};
use super::route;
use crate::activation::Activation;
use crate::autograd::Needs;
use crate::backend::cpu::gemm::{Init, multiply_rows};
use crate::backend::cpu::prepack::WeightView;
use crate::backend::cpu::simd::wants_non_temporal;
use crate::backend::cpu::threads;
use crate::context::isa;
use crate::error::Result;
use crate::pool::Buffer;
use crate::tensor::Tensor;

/// The two convolutions, and the activation between them.
#[derive(Clone, Copy)]
pub(crate) struct Separable<'a> {
    pub depthwise: Convolution<'a>,
    pub between: Activation,
    pub pointwise: Convolution<'a>,
}

/// The separable convolution of x [N, H, W, C], which is given away, and what its epilogue makes of the
/// result. The same bits as of the operators one after the other.
///
/// # Errors
/// Theirs.
pub(crate) fn separable_conv2d_fused(
    x: Tensor,
    layers: Separable,
    mut epilogue: Epilogue,
) -> Result<Tensor> {
    if let Some(bands) = Bands::new(&x, layers, epilogue.residual.as_mut()) {
        let residual = epilogue.residual.take();
        let activation = match residual {
            Some(_) => Activation::Linear,
            None => epilogue.take_activation(),
        };
        return epilogue.apply(bands.run(&x, layers, activation, residual));
    }
    let d = depthwise_conv2d_fused(&x, layers.depthwise, layers.between.into())?.y;
    drop(x);
    Ok(conv2d_fused(&d, layers.pointwise, epilogue)?.y)
}

/// Whether the two are made in one pass: how many rows of pixels a task makes, or why not.
pub(crate) fn fuses_separable(
    setting: Setting,
    depth: &DepthwiseGeometry,
    point: &Conv2dGeometry,
) -> std::result::Result<usize, &'static str> {
    setting.unrecorded_on_cpu()?;
    if !algorithm::is_pointwise(point) {
        return Err("the convolution after it is not 1×1");
    }
    let [height, width] = depth.output;
    rows(depth.batch * height, width * depth.channels)
        .ok_or("what lies between stays in the caches anyway")
}

/// How the two are computed together.
struct Bands {
    depth: DepthwiseGeometry,
    point: Conv2dGeometry,
    /// Rows of pixels a task, counted through all images.
    rows: usize,
}

impl Bands {
    /// None where they are computed apart; so is what does not fit, for the operators to refuse.
    fn new(x: &Tensor, layers: Separable, mut residual: Option<&mut Tensor>) -> Option<Self> {
        let Separable { depthwise, between, pointwise } = layers;
        let depth =
            DepthwiseGeometry::new(x.shape(), depthwise.kernel.shape(), depthwise.options).ok()?;
        let kernel = pointwise.kernel.shape();
        let point = Conv2dGeometry::new(depth.output_shape(), kernel, pointwise.options).ok()?;
        depthwise.check_bias("depthwise_conv2d", depth.channels).ok()?;
        pointwise.check_bias("conv2d", point.out_channels).ok()?;
        // A sum is made in the residual's memory. That must not be x's: other rows still read it.
        let fits = residual
            .as_deref_mut()
            .is_none_or(|residual| residual.is_unique() && residual.shape() == point.output_shape());
        let kernels = [x, depthwise.kernel, pointwise.kernel].into_iter();
        let all = kernels.chain(depthwise.bias).chain(pointwise.bias).chain(residual.as_deref());
        let all: Vec<&Tensor> = all.collect();
        let recorded = all.iter().any(|tensor| Needs::of([*tensor]).any());
        let setting = Setting::new(&route("conv2d", &all).ok()?, recorded);
        let rows = fuses_separable(setting, &depth, &point).ok()?;
        (fits && between.is_fusable()).then_some(Bands { depth, point, rows })
    }

    fn run(
        &self,
        x: &Tensor,
        layers: Separable,
        activation: Activation,
        residual: Option<Tensor>,
    ) -> Tensor {
        let bias = layers.pointwise.bias.map(|bias| bias.values());
        match residual {
            Some(mut residual) => {
                let start = bias.map_or(Init::Accumulate, Init::Onto);
                self.write(x, layers, start, activation, false, residual.values_mut());
                residual.detach()
            }
            None => {
                let start = bias.map_or(Init::Zero, Init::Bias);
                let mut y = Buffer::<f32>::new(self.point.output_shape().elements());
                let non_temporal = wants_non_temporal(&y, self.point.out_channels);
                self.write(x, layers, start, activation, non_temporal, &mut y);
                Tensor::from_buffer(y, self.point.output_shape())
            }
        }
    }

    fn write(
        &self,
        x: &Tensor,
        layers: Separable,
        start: Init,
        activation: Activation,
        non_temporal: bool,
        y: &mut [f32],
    ) {
        let Separable { depthwise, between, pointwise } = layers;
        let isa = isa();
        let weights = WeightView { values: pointwise.kernel.values(), cache: pointwise.cache() };
        let panels = cpu::pointwise_panels(isa, &self.point, weights);
        let bias = depthwise.bias.map(|bias| bias.values());
        let kernel = depthwise.kernel.values();
        let by_rows = ByRows::new(isa, &self.depth, x.values(), kernel, bias, between);
        let band = self.rows * self.depth.output[1];
        threads::for_each_chunk(y, band * self.point.out_channels, |i, y| {
            let pixels = y.len() / self.point.out_channels;
            let mut between = Buffer::<f32>::new(pixels * self.depth.channels);
            by_rows.make(i * self.rows, false, &mut between);
            multiply_rows(&between, &panels, start, activation, non_temporal, y);
        });
    }
}

/// Rows of `width` floats a task, of `count`; None where little is gained.
fn rows(count: usize, width: usize) -> Option<usize> {
    /// Floats a task: 128 KiB, which stay in L2 beside a group of the product's panels and the rows of x.
    const BAND: usize = threads::GRAIN_SIZE / 2;
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
    use crate::ops::{Conv2dOptions, Padding, conv2d, depthwise_conv2d};

    fn noise(shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_slice(&values, shape).unwrap()
    }

    fn options(stride: usize, padding: Padding) -> Conv2dOptions {
        Conv2dOptions { stride: [stride; 2], padding, ..Default::default() }
    }

    fn convolution<'a>(
        kernel: &'a Tensor,
        bias: Option<&'a Tensor>,
        options: Conv2dOptions,
    ) -> Convolution<'a> {
        Convolution::new(kernel, bias, options)
    }

    /// One after the other.
    fn apart(
        x: &Tensor,
        layers: Separable,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Tensor {
        let Separable { depthwise: depth, between, pointwise: point } = layers;
        let d = depthwise_conv2d(x, depth.kernel, depth.bias, depth.options).unwrap();
        let d = between.apply(d).unwrap();
        let y = conv2d(&d, point.kernel, point.bias, point.options).unwrap();
        let y = residual.map_or(y.clone(), |residual| crate::ops::add(&y, residual).unwrap());
        activation.apply(y).unwrap()
    }

    fn fused(
        x: &Tensor,
        layers: Separable,
        activation: Activation,
        residual: Option<Tensor>,
    ) -> Result<Tensor> {
        let epilogue = Epilogue { activation, residual, ..Epilogue::default() };
        separable_conv2d_fused(x.clone(), layers, epilogue)
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
                        let layers = Separable {
                            depthwise: convolution(&v, of_depth, options(stride, padding)),
                            between,
                            pointwise: convolution(&w, of_point, options(1, Valid)),
                        };
                        let fuses = |residual| Bands::new(&x, layers, residual).is_some();
                        assert_eq!(fuses(None), isa != Isa::Reference, "{shape:?}");
                        let expected = apart(&x, layers, activation, None);
                        for threads in [1, 3] {
                            let got = threads::with(threads, || {
                                with_isa(isa, || fused(&x, layers, activation, None))
                            });
                            let got = got.unwrap().unwrap();
                            assert_eq!(got.shape(), expected.shape());
                            assert_eq!(
                                got.values::<f32>(),
                                expected.values::<f32>(),
                                "{isa:?} {shape:?}"
                            );
                        }
                        let mut residual = noise(&expected.shape());
                        let sum = apart(&x, layers, activation, Some(&residual));
                        assert_eq!(fuses(Some(&mut residual)), isa != Isa::Reference);
                        // Held by somebody else, its memory stays as it is.
                        for residual in [residual.clone(), residual] {
                            let got = fused(&x, layers, activation, Some(residual)).unwrap();
                            assert_eq!(got.values::<f32>(), sum.values::<f32>(), "{isa:?} {shape:?}");
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn a_gradient_a_small_image_and_what_reads_its_own_sum_are_computed_apart() {
        let (v, w) = (noise(&[3, 3, 64, 1]), noise(&[1, 1, 64, 64]));
        let same = options(1, Padding::Same);
        let (depthwise, pointwise) = (convolution(&v, None, same), convolution(&w, None, same));
        let layers = Separable { depthwise, between: Activation::Linear, pointwise };
        let x = noise(&[4, 100, 50, 64]);
        let fuses = |x: &Tensor, layers, residual| Bands::new(x, layers, residual).is_some();
        assert!(fuses(&x, layers, None));
        let leaf = v.leaf();
        let trained = Separable { depthwise: convolution(&leaf, None, same), ..layers };
        assert!(!fuses(&x, trained, None));
        assert!(fused(&x, trained, Activation::Linear, None).unwrap().requires_grad());
        assert!(!fuses(&noise(&[1, 14, 14, 64]), layers, None));
        let mut itself = x.clone();
        assert!(!fuses(&x, layers, Some(&mut itself)));
        let expected = apart(&x, layers, Activation::Linear, Some(&x));
        let sum = fused(&x, layers, Activation::Linear, Some(itself)).unwrap();
        assert_eq!(sum.values::<f32>(), expected.values::<f32>());
    }

    #[test]
    fn what_does_not_fit_is_refused_as_by_the_operators() {
        let x = noise(&[4, 100, 50, 64]);
        let same = options(1, Padding::Same);
        let (v, w) = (noise(&[3, 3, 64, 1]), noise(&[1, 1, 64, 8]));
        let refused = |kernel: &Tensor, bias: Option<&Tensor>| {
            let (depthwise, pointwise) = (convolution(&v, None, same), convolution(kernel, bias, same));
            let layers = Separable { depthwise, between: Activation::Linear, pointwise };
            fused(&x, layers, Activation::Linear, None).unwrap_err().to_string()
        };
        assert!(refused(&noise(&[1, 1, 63, 8]), None).contains("64 input channels"));
        assert!(refused(&w, Some(&noise(&[9]))).contains("bias of [8]"));
    }
}
