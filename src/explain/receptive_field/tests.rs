use super::*;
use crate::activation::Activation;
use crate::models::by_name;
use crate::nn::{Mode, Model};
use crate::tensor::Tensor;

/// Weights above 0, so that no two shares of a gradient cancel.
fn positive(graph: Graph) -> Model {
    let mut seed = 0;
    Model::with(graph, |_, shape, _| {
        seed += 1;
        Tensor::rand_uniform(shape, 0.1, 1.0, seed)
    })
}

/// The rectangle around the pixels whose gradient is not 0.
fn touched(field: &Tensor) -> [Range<usize>; 2] {
    let (w, values) = (field.shape()[1], field.to_vec_f64());
    let pixels = || values.iter().enumerate().filter(|(_, value)| **value > 0.0).map(|(i, _)| i);
    let range = |of: fn(usize, usize) -> usize| {
        let all = || pixels().map(|i| of(i, w));
        all().min().map_or(0..0, |first| first..all().max().unwrap() + 1)
    };
    [range(|i, w| i / w), range(|i, w| i % w)]
}

/// Each pixel of each layer against its gradient.
fn check_all_pixels(graph: Graph) {
    let [h, w, c] = feature_map(&graph, "input").unwrap();
    let model = positive(graph);
    let x = Tensor::rand_uniform([1, h, w, c], 0.5, 1.0, 9);
    for node in model.graph.nodes().iter().filter(|node| node.output_shape.len() == 3) {
        let [rows, columns] = [node.output_shape[0], node.output_shape[1]];
        for (y, x_at) in [(0, 0), (rows / 2, columns / 2), (rows - 1, columns - 1), (0, columns - 1)] {
            let pixel = [y, x_at];
            let gradient = effective_receptive_field(&model, &x, &node.name, pixel, None).unwrap();
            let field = pixel_field(&model.graph, &node.name, pixel).unwrap();
            assert_eq!(field, touched(&gradient), "`{}` at {pixel:?}", node.name);
        }
    }
}

#[test]
fn a_pixel_sees_those_whose_gradient_is_not_zero() {
    let mut graph = Graph::new("convolutions", "input", [23, 20, 1]);
    let conv = |kernel| Layer::conv2d(1, kernel).with_padding(Padding::Same);
    let layers = [
        conv(3),
        Layer::average_pooling2d(2),
        Layer::ZeroPadding2D([[0, 1], [2, 0]]),
        Layer::conv2d(2, 3).with_stride(2),
        Layer::depthwise_conv2d(),
        Layer::UpSampling2D([2, 3]),
        conv(1).with_activation(Activation::Relu),
    ];
    graph.chain(graph.input(), layers).unwrap();
    check_all_pixels(graph);
}

#[test]
fn through_branches_a_pixel_sees_what_any_of_them_sees() {
    let mut g = Graph::new("branches", "input", [12, 12, 1]);
    let conv = |kernel| Layer::conv2d(2, kernel).with_padding(Padding::Same);
    let input = g.input();
    let shared = g.add(conv(3), &[input]).unwrap();
    let near = g.add(conv(1), &[shared]).unwrap();
    let far = g.add(conv(3).with_dilation(3), &[shared]).unwrap();
    let sum = g.add(Layer::Add, &[near, far]).unwrap();
    let pooled = g.add(Layer::average_pooling2d(12), &[sum]).unwrap();
    let pooled = g.add(Layer::UpSampling2D([12; 2]), &[pooled]).unwrap();
    g.add(Layer::Concatenate, &[sum, pooled]).unwrap();
    let fields = receptive_fields(&g).unwrap();
    let rows: Vec<(f64, f64, f64)> =
        fields.iter().map(|field| (field.rows.start, field.rows.size, field.rows.jump)).collect();
    let (wide, all) = ((-4.0, 9.0, 1.0), (-4.0, 20.0, 0.0));
    assert_eq!(rows[1..5], [(-1.0, 3.0, 1.0), (-1.0, 3.0, 1.0), wide, wide]);
    // The pool is one pixel; enlarged, all pixels see the same.
    assert_eq!((rows[5].0, rows[5].1, rows[6], rows[7]), (-4.0, 20.0, all, all));
    check_all_pixels(g);
}

/// Araujo, Norris and Sim's table: VGG-16, and the sizes of a textbook stack.
#[test]
fn sizes_are_those_that_are_published() {
    let graph = by_name("vgg16", 224, 20).unwrap();
    let size = |name: &str| receptive_field(&graph, name).unwrap().rows;
    assert_eq!((size("block1_conv1").size, size("block5_conv3").size), (3.0, 196.0));
    assert_eq!((size("block5_pool").size, size("block5_pool").jump), (212.0, 32.0));
    assert_eq!(size("block5_pool").start, -90.0);
    let graph = by_name("mobilenetv2", 224, 20).unwrap();
    assert_eq!(receptive_field(&graph, "out_relu").unwrap().rows.size, 491.0);
}

#[test]
fn in_the_middle_the_field_is_the_arithmetic_and_at_the_edge_it_is_cut() {
    let graph = by_name("vgg16", 224, 20).unwrap();
    for node in graph.nodes().iter().filter(|node| node.output_shape.len() == 3) {
        let field = receptive_field(&graph, &node.name).unwrap();
        for pixel in [0, node.output_shape[0] / 2, node.output_shape[0] - 1] {
            let [rows, _] = pixel_field(&graph, &node.name, [pixel, 0]).unwrap();
            let (first, last) = field.rows.of(pixel);
            let expected = first.max(0.0) as usize..(last.min(223.0) as usize) + 1;
            assert_eq!(rows, expected, "`{}` at {pixel}", node.name);
        }
    }
}

#[test]
fn after_an_enlargement_the_field_is_at_most_half_a_jump_off() {
    let mut graph = Graph::new("enlarged", "input", [40, 40, 1]);
    let conv = Layer::conv2d(1, 3).with_padding(Padding::Same).with_stride(2);
    graph.chain(graph.input(), [conv, conv, Layer::UpSampling2D([4; 2])]).unwrap();
    let field = receptive_field(&graph, "up_sampling2d").unwrap().rows;
    assert_eq!((field.size, field.jump), (11.0, 1.0));
    for pixel in 14..26 {
        let [rows, _] = pixel_field(&graph, "up_sampling2d", [pixel, 20]).unwrap();
        let (first, last) = field.of(pixel);
        assert_eq!(rows.len() as f64, field.size);
        let off = (first - rows.start as f64).abs().max((last + 1.0 - rows.end as f64).abs());
        assert!(off <= 2.0, "{pixel}: {rows:?} {first} {last}");
    }
}

#[test]
fn after_a_dense_layer_everything_is_seen() {
    let graph = by_name("mobilenetv2", 64, 20).unwrap();
    let output = &graph.node(graph.output()).name;
    let field = receptive_field(&graph, output).unwrap();
    assert!(field.rows.start <= 0.0 && field.rows.start + field.rows.size >= 64.0);
    assert_eq!((field.rows.jump, field.rows.of(0)), (0.0, field.rows.of(5)));
}

#[test]
fn the_effective_field_is_the_mean_size_of_the_gradient_and_smaller_than_the_theoretical_one() {
    let mut graph = Graph::new("deep", "input", [32, 32, 2]);
    let conv = Layer::conv2d(4, 3).with_padding(Padding::Same).with_activation(Activation::Relu);
    graph.chain(graph.input(), [conv; 6]).unwrap();
    let model = Model::new(graph, 1);
    let images = Tensor::randn([3, 32, 32, 2], 2);
    let field = effective_receptive_field(&model, &images, "conv2d_5", [16, 16], Some(2)).unwrap();
    // By definition, image by image, from the layer's output itself.
    let mut expected = vec![0.0; 32 * 32];
    for i in 0..3 {
        let x = images.slice([i..i + 1]).unwrap().leaf();
        let y = model.run(&x, Mode::infer()).unwrap().output;
        let value = y.slice([0..1, 16..17, 16..17, 2..3]).unwrap().sum().unwrap();
        let gradient = value.backward().unwrap().take(&x).unwrap().to_vec_f64();
        let pixels = expected.iter_mut().zip(gradient.chunks_exact(2));
        pixels.for_each(|(mean, g)| *mean += (g[0].abs() + g[1].abs()) / 3.0);
    }
    for (got, expected) in field.to_vec_f64().iter().zip(&expected) {
        assert!((got - expected).abs() <= 1e-5 * expected.abs() + 1e-9, "{got} {expected}");
    }
    let size = effective_size(&field);
    assert!(size > 3.0 && size < 13.0, "{size}");
    assert_eq!(effective_size(&Tensor::zeros([4, 4])), 0.0);
}

#[test]
fn what_is_no_pixel_of_a_feature_map_is_an_error() {
    let graph = by_name("mobilenetv2", 64, 20).unwrap();
    let error = |layer, pixel| pixel_field(&graph, layer, pixel).unwrap_err().to_string();
    assert!(error("out_relu", [2, 0]).contains("`out_relu`, 2×2, got row 2, column 0"));
    assert!(error("dense", [0, 0]).contains("expected a feature map"));
    assert!(error("nothing", [0, 0]).contains("got `nothing`"));
    let model = Model::new(graph.clone(), 1);
    let x = Tensor::zeros([1, 64, 64, 3]);
    let error = effective_receptive_field(&model, &x, "out_relu", [0, 0], Some(1280)).unwrap_err();
    assert!(error.to_string().contains("below 1280 of `out_relu`, got 1280"));
}
