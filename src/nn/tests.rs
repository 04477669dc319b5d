//! Sizes as users and files give them, through everything that makes sizes of sizes: an error or what is
//! right, never a panic or a product that wraps.

use crate::activation::Activation;
use crate::backend::cpu::simd::supported;
use crate::cases::any_size;
use crate::context::with_isa;
use crate::nn::Graph;
use crate::nn::layers::{Conv2D, DepthwiseConv2D, Initializer, Layer};
use crate::ops::conv2d::Conv2dGeometry;
use crate::ops::depthwise_conv2d::DepthwiseGeometry;
use crate::ops::{self, Conv2dOptions, Method, Padding, PoolOptions};
use crate::tensor::{Shape, Tensor};
use proptest::array::{uniform2, uniform3, uniform4};
use proptest::prelude::*;

fn any_padding() -> impl Strategy<Value = Padding> {
    let cells = uniform2(any_size()).prop_map(Padding::Cells);
    prop_oneof![Just(Padding::Same), Just(Padding::Valid), cells]
}

fn any_options() -> impl Strategy<Value = Conv2dOptions> {
    let sizes = (uniform2(any_size()), any_padding(), uniform2(any_size()));
    sizes.prop_map(|(stride, padding, dilation)| Conv2dOptions { stride, padding, dilation })
}

fn any_layer() -> impl Strategy<Value = Layer> {
    let windows = || (uniform2(any_size()), uniform2(any_size()), any_padding());
    let convolution = || (any_size(), windows(), uniform2(any_size()));
    let pools = || windows().prop_map(|(pool, stride, padding)| PoolOptions { pool, stride, padding });
    prop_oneof![
        convolution().prop_map(|(filters, (kernel, stride, padding), dilation)| {
            Layer::Conv2D(Conv2D {
                filters,
                kernel,
                stride,
                padding,
                dilation,
                use_bias: true,
                activation: Activation::Linear,
                initializer: Initializer::HeNormal,
            })
        }),
        convolution().prop_map(|(_, (kernel, stride, padding), dilation)| {
            Layer::DepthwiseConv2D(DepthwiseConv2D { kernel, stride, padding, dilation, use_bias: true })
        }),
        pools().prop_map(Layer::MaxPooling2D),
        pools().prop_map(Layer::AveragePooling2D),
        uniform2(uniform2(any_size())).prop_map(Layer::ZeroPadding2D),
        uniform2(any_size()).prop_map(Layer::UpSampling2D),
        uniform3(any_size()).prop_map(Layer::Reshape),
        any_size().prop_map(Layer::dense),
        Just(Layer::Flatten),
        Just(Layer::GlobalMaxPooling2D),
        Just(Layer::batch_normalization()),
    ]
}

/// How many windows there are along an axis, in numbers that are long enough.
fn windows(n: usize, kernel: usize, stride: usize, dilation: usize, padding: Padding) -> i128 {
    let [n, kernel, stride, dilation] = [n, kernel, stride, dilation].map(|size| size as i128);
    let span = (kernel - 1) * dilation + 1;
    match padding {
        Padding::Same => (n + stride - 1) / stride,
        Padding::Valid => (n - span) / stride + 1,
        Padding::Cells([before, after]) => (n + before as i128 + after as i128 - span) / stride + 1,
    }
}

/// A tensor of no images, whose other axes may be large.
fn none_of(axes: [usize; 3]) -> Option<Tensor> {
    let [h, w, c] = axes;
    Shape::checked(&[0, h, w, c]).ok().map(Tensor::zeros)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_convolutions_geometry_is_exact_or_an_error(
        x in uniform4(any_size()),
        kernel in uniform4(any_size()),
        fitting in any::<bool>(),
        options in any_options(),
    ) {
        let channels = if fitting { x[3] } else { kernel[2] };
        let [kh, kw, _, filters] = kernel;
        let (Ok(x), Ok(w)) = (Shape::checked(&x), Shape::checked(&[kh, kw, channels, filters])) else {
            return Ok(());
        };
        let expected = |axis: usize| {
            let Conv2dOptions { stride, padding, dilation } = options;
            windows(x[1 + axis], w[axis], stride[axis], dilation[axis], padding)
        };
        if let Ok(g) = Conv2dGeometry::new(x, w, options) {
            prop_assert_eq!(g.output.map(|side| side as i128), [expected(0), expected(1)]);
            prop_assert_eq!(&g.output_shape()[..3], &[x[0], g.output[0], g.output[1]]);
            prop_assert!(g.flops() >= 0.0);
        }
        if let Ok(w) = Shape::checked(&[kh, kw, channels, 1])
            && let Ok(g) = DepthwiseGeometry::new(x, w, options)
        {
            prop_assert_eq!(g.output.map(|side| side as i128), [expected(0), expected(1)]);
            prop_assert!(g.output_shape()[3] == channels && g.flops() >= 0.0);
        }
    }

    #[test]
    fn operators_of_any_size_give_the_shape_that_the_layer_says_or_an_error(
        sides in uniform3(any_size()),
        pool in uniform2(any_size()),
        stride in uniform2(any_size()),
        padding in any_padding(),
        pad in uniform2(uniform2(any_size())),
        to in uniform3(any_size()),
    ) {
        let Some(x) = none_of(sides) else { return Ok(()) };
        let says = |layer: Layer| layer.output_shape("layer", &[&sides]).ok();
        let agree = |got: crate::Result<Tensor>, layer: Layer| {
            if let Ok(got) = got {
                assert_eq!(Some(got.shape()[1..].to_vec()), says(layer), "{layer:?} of {sides:?}");
            }
        };
        let options = PoolOptions { pool, stride, padding };
        agree(ops::max_pool2d(&x, options), Layer::MaxPooling2D(options));
        agree(ops::average_pool2d(&x, options), Layer::AveragePooling2D(options));
        agree(ops::zero_pad2d(&x, pad), Layer::ZeroPadding2D(pad));
        agree(ops::flatten(&x), Layer::Flatten);
        if let Ok(y) = ops::reshape(&x, [0, to[0], to[1], to[2]]) {
            prop_assert_eq!(&y.shape()[1..], &to);
        }
        // (Further along, each side's places would take much memory.)
        if let [height @ ..1000, width @ ..1000, _] = to {
            for method in [Method::Bilinear, Method::Nearest] {
                if let Ok(y) = ops::resize(&x, height, width, method) {
                    prop_assert_eq!(&y.shape()[..], &[0, height, width, sides[2]]);
                }
            }
        } else {
            prop_assert!(ops::resize(&none_of([1 << 25, 1, 0]).unwrap(), to[0], to[1], Method::Nearest).is_err());
        }
        if let Some(other) = none_of([sides[0], sides[1], to[2]])
            && let Ok(both) = ops::concat(&[&x, &other], 3)
        {
            prop_assert_eq!(both.shape()[3] as u128, sides[2] as u128 + to[2] as u128);
        }
    }

    #[test]
    fn a_network_of_any_layers_has_costs_that_are_exact_or_is_an_error(
        input in uniform3(any_size()),
        layers in proptest::collection::vec(any_layer(), 1..5),
    ) {
        let mut graph = Graph::new("any", "input", input);
        if graph.chain(graph.input(), layers).is_ok() {
            let of_all = |number: fn(&crate::nn::Node) -> u128| -> u128 {
                graph.nodes().iter().map(number).sum()
            };
            let cost = graph.cost();
            prop_assert_eq!(cost.flops as u128, of_all(|node| node.cost.flops as u128));
            prop_assert_eq!(cost.activation_bytes as u128, of_all(|node| {
                4 * node.output_shape.iter().map(|&n| n as u128).product::<u128>()
            }));
            prop_assert_eq!(cost.parameters as u128, of_all(|node| {
                node.parameters.iter().map(|spec| spec.shape.elements() as u128).sum()
            }));
            // A table of it can be written.
            prop_assert!(crate::nn::Summary::new(&graph).to_string().contains("parameters: "));
        }
    }
}

#[test]
fn what_is_too_large_says_what_and_how_large_it_may_be() {
    let error = |result: crate::Result<Tensor>| result.map(drop).unwrap_err().to_string();
    let x = Tensor::zeros([1, 4, 4, 1]);
    let w = Tensor::zeros([3, 3, 1, 1]);
    let options = Conv2dOptions::default();
    let conv = |options| error(ops::conv2d(&x, &w, None, options));
    // (3 − 1) · 2⁶³ + 1 wraps to 1, a window that fits; usize::MAX cells before make the axis shorter.
    let wide = Conv2dOptions { dilation: [1 << 63; 2], ..options };
    assert!(
        conv(wide).contains("span at most 2147483647 cells, got 3 and 9223372036854775808"),
        "{}",
        conv(wide)
    );
    let around = Conv2dOptions { padding: Padding::Cells([usize::MAX, 0]), ..options };
    assert!(conv(around).contains("at most 2147483647 cells, got 18446744073709551615 + 4 + 0"));
    let far = Conv2dOptions { stride: [1, usize::MAX], ..options };
    assert!(conv(far).contains("a stride of at most 2147483647 cells"));
    let pad = error(ops::zero_pad2d(&x, [[usize::MAX - 3, 0], [0, 0]]));
    assert!(pad.contains("at most 2147483647 cells"), "{pad}");
    let pool = PoolOptions { pool: [1 << 17; 2], stride: [1; 2], padding: Padding::Same };
    assert!(error(ops::max_pool2d(&x, pool)).contains("windows of at most 4294967295 cells"));
    assert!(error(ops::resize(&x, 1 << 25, 1, Method::Nearest)).contains("sides of 1 to 16777216"));
    let scaled = Layer::UpSampling2D([1 << 63, 1]).output_shape("up", &[&[4, 4, 1]]);
    assert!(scaled.unwrap_err().to_string().contains("got 4 times 9223372036854775808"));
}

#[test]
fn a_stride_beyond_the_image_leaves_one_window_in_every_instruction_set() {
    let x = Tensor::full([2, 3, 3, 5], 2.0).leaf();
    let w = Tensor::full([3, 3, 5, 7], 1.0);
    let options = Conv2dOptions { stride: [i32::MAX as usize; 2], ..Conv2dOptions::default() };
    for isa in supported() {
        with_isa(isa, || {
            let y = ops::conv2d(&x, &w, None, options).unwrap();
            assert_eq!((y.shape()[..].to_vec(), y.to_vec_f64()), (vec![2, 1, 1, 7], vec![90.0; 14]));
            let gradients = ops::sum(&y).unwrap().backward().unwrap();
            assert_eq!(gradients.get(&x).unwrap().to_vec_f64(), [7.0; 90]);
            let pool = PoolOptions { pool: [3; 2], stride: options.stride, padding: Padding::Same };
            let gradient = |y: &Tensor| {
                assert_eq!(y.to_vec_f64(), [2.0; 10]);
                let gradients = ops::sum(y).unwrap().backward().unwrap();
                gradients.get(&x).unwrap().values::<f32>().to_vec()
            };
            let of_max = gradient(&ops::max_pool2d(&x, pool).unwrap());
            assert_eq!(of_max.iter().sum::<f32>(), 10.0);
            let of_average = gradient(&ops::average_pool2d(&x, pool).unwrap());
            assert_eq!(of_average, [1.0 / 9.0; 90]);
        });
    }
}
