use super::*;
use crate::activation::Activation;
use crate::backend::cpu::simd::supported;
use crate::backend::cpu::threads;
use crate::context::{isa, with_fast_math};
use crate::ops::Padding::{Same, Valid};
use crate::ops::{Conv2dOptions, conv2d};
use crate::random::{Stream, domain};
use crate::{DType, Tensor};

fn random(n: usize, label: u64) -> Vec<f32> {
    let mut non_temporal = Stream::new(1, &[domain::TEST, label]);
    (0..n).map(|_| non_temporal.uniform(-1.0, 1.0)).collect()
}

/// 3×3, with images of [n, h, w, c].
fn geometry(
    [batch, h, w, channels]: [usize; 4],
    filters: usize,
    pad: [usize; 2],
    tile: usize,
) -> Geometry {
    let output = [h + 2 * pad[0] - 2, w + 2 * pad[1] - 2];
    Geometry { batch, input: [h, w], channels, output, filters, kernel: 3, pad, tile }
}

/// Images and kernel of a geometry.
fn factors(g: &Geometry) -> [Vec<f32>; 2] {
    let images = g.batch * g.input[0] * g.input[1] * g.channels;
    [random(images, 1), random(9 * g.channels * g.filters, 2)]
}

fn convolved(isa: Isa, g: &Geometry, [x, w]: [&[f32]; 2], finish: Finish) -> Vec<f32> {
    let [height, width] = finish.size(g);
    let mut y = vec![f32::NAN; g.batch * height * width * g.filters];
    convolve(isa, g, x, &transform_kernels(isa, g, w), finish, &mut y);
    y
}

/// The definition, in f64.
fn defined(g: &Geometry, [x, w]: [&[f32]; 2]) -> Vec<f64> {
    let mut y = Vec::new();
    for [n, oy, ox] in (0..g.batch)
        .flat_map(|n| (0..g.output[0]).map(move |oy| [n, oy]))
        .flat_map(|[n, oy]| (0..g.output[1]).map(move |ox| [n, oy, ox]))
    {
        let mut sums = vec![0.0; g.filters];
        for (ky, kx) in (0..3).flat_map(|ky| (0..3).map(move |kx| (ky, kx))) {
            let (iy, ix) = ((oy + ky).wrapping_sub(g.pad[0]), (ox + kx).wrapping_sub(g.pad[1]));
            if iy >= g.input[0] || ix >= g.input[1] {
                continue;
            }
            for c in 0..g.channels {
                let x = x[((n * g.input[0] + iy) * g.input[1] + ix) * g.channels + c] as f64;
                let w = &w[((ky * 3 + kx) * g.channels + c) * g.filters..][..g.filters];
                sums.iter_mut().zip(w).for_each(|(sum, &w)| *sum += x * w as f64);
            }
        }
        y.extend(sums);
    }
    y
}

/// The largest deviation as a fraction of the largest value, and the root of the mean square of one as a
/// fraction of the other's.
fn errors(got: &[f32], expected: &[f64]) -> [f64; 2] {
    assert_eq!(got.len(), expected.len());
    let off: Vec<f64> = got.iter().zip(expected).map(|(&g, e)| (g as f64 - e).abs()).collect();
    assert!(off.iter().all(|off| off.is_finite()));
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let square = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
    [largest(&off) / largest(expected), (square(&off) / square(expected)).sqrt()]
}

/// Sides that 4 divides and all others, one pixel, tails of channels and filters, several images, every
/// padding, more than one task and block of channels.
const SHAPES: [([usize; 4], usize, [usize; 2]); 12] = [
    ([1, 1, 1, 16], 16, [1, 1]),
    ([3, 1, 1, 5], 3, [1, 1]),
    ([1, 3, 3, 1], 1, [0, 0]),
    ([2, 8, 8, 32], 32, [1, 1]),
    ([2, 7, 9, 17], 19, [1, 1]),
    ([1, 12, 11, 45], 33, [0, 0]),
    ([3, 5, 6, 20], 40, [2, 0]),
    ([2, 6, 13, 16], 7, [0, 2]),
    ([1, 2, 10, 33], 65, [1, 1]),
    ([1, 6, 5, 270], 40, [1, 1]),
    ([2, 23, 37, 16], 16, [1, 1]),
    ([1, 61, 70, 18], 21, [1, 1]),
];

#[test]
fn tiles_of_4x4_agree_with_the_definition_and_so_does_what_is_made_of_them() {
    for (x, filters, pad) in SHAPES {
        let g = geometry(x, filters, pad, 4);
        let [x, w] = factors(&g);
        let expected = defined(&g, [&x, &w]);
        let bias = random(filters, 3);
        for isa in supported() {
            let plain = convolved(isa, &g, [&x, &w], Finish::default());
            let [off, _] = errors(&plain, &expected);
            assert!(off < 5e-6, "{isa:?}, {:?}, {pad:?}: off by {off:e}", g.input);
            let finish = Finish { bias: Some(&bias), activation: Activation::Relu, pool: false };
            let finished = convolved(isa, &g, [&x, &w], finish);
            for (i, (&got, &y)) in finished.iter().zip(&plain).enumerate() {
                assert_eq!(got, (y + bias[i % filters]).max(0.0), "{isa:?}, {:?} at {i}", g.input);
            }
            // Of squares of 2×2, the largest.
            let pooled = convolved(isa, &g, [&x, &w], Finish { pool: true, ..finish });
            let [height, width] = g.output.map(|side| side / 2);
            for (i, &got) in pooled.iter().enumerate() {
                let (f, pixel) = (i % filters, i / filters);
                let (n, py, px) = (pixel / (height * width), pixel / width % height, pixel % width);
                let at = |y: usize, x: usize| {
                    finished[((n * g.output[0] + 2 * py + y) * g.output[1] + 2 * px + x) * filters + f]
                };
                let best = at(0, 0).max(at(0, 1)).max(at(1, 0)).max(at(1, 1));
                assert_eq!(got, best, "{isa:?}, {:?} pooled at {i}", g.input);
            }
        }
    }
}

#[test]
fn the_gradient_by_images_agrees_with_the_definition_of_the_turned_kernel() {
    for (x, filters, pad) in SHAPES {
        let forward = geometry(x, filters, pad, 4);
        let g = forward.transposed();
        let [dy, _] = factors(&g);
        let [_, w] = factors(&forward);
        // ∂x(i) is the sum over taps of g(i + pad − k) · w(k).
        let mut swapped = vec![0.0; w.len()];
        for tap in 0..9 {
            for c in 0..forward.channels {
                for f in 0..filters {
                    swapped[((8 - tap) * filters + f) * forward.channels + c] =
                        w[(tap * forward.channels + c) * filters + f];
                }
            }
        }
        let expected = defined(&g, [&dy, &swapped]);
        for isa in supported() {
            let turned = turned(&w, forward.channels, filters);
            let [off, _] = errors(&convolved(isa, &g, [&dy, &turned], Finish::default()), &expected);
            assert!(off < 5e-6, "{isa:?}, {x:?}, {pad:?}: off by {off:e}");
        }
    }
}

/// Measured: 3.2 times with 64 channels, 3.0 with 256 and 512 (rms 8.3e-7, 1.04e-6, 1.06e-6), with or
/// without fused multiply-adds.
#[test]
fn the_error_of_tiles_of_4x4_is_some_times_that_of_2x2() {
    for channels in [64, 256, 512] {
        let [two, four] = [2, 4].map(|tile| {
            let g = geometry([1, 14, 14, channels], 32, [1, 1], tile);
            let [x, w] = factors(&g);
            let [_, rms] =
                errors(&convolved(isa(), &g, [&x, &w], Finish::default()), &defined(&g, [&x, &w]));
            rms
        });
        println!("{channels} channels: {two:e}, {four:e}, {} times", four / two);
        assert!(four < 4.0 * two && four > 2.0 * two, "{channels} channels: {two:e} and {four:e}");
    }
}

#[test]
fn the_bits_of_tiles_of_4x4_do_not_depend_on_the_number_of_threads() {
    for (x, filters) in [([2, 23, 37, 40], 70), ([1, 14, 14, 130], 140)] {
        let g = geometry(x, filters, [1, 1], 4);
        let [x, w] = factors(&g);
        let run = |threads| {
            let run = || convolved(isa(), &g, [&x, &w], Finish::default());
            threads::with(threads, run).unwrap()
        };
        let one = run(1);
        assert!(run(2) == one && run(3) == one);
    }
}

/// F(4×4, 3×3) at the points 0, ±1, ±2, as Lavin and Gray have it.
#[derive(Clone, Copy)]
struct LavinGray;

impl Transforms<6, 4> for LavinGray {
    #[inline(always)]
    fn kernel<V: Vector>(self, [a, b, c]: [V; 3]) -> [V; 6] {
        // SAFETY of all: sums and products of values, inside the instruction set of the caller.
        unsafe {
            let (outer, middle) = (a.add(c).mul(V::splat(-1.0 / 6.0)), V::splat(1.0 / 6.0));
            let far = c.mul_add(V::splat(4.0), a).mul(V::splat(1.0 / 24.0));
            let (near, twelfth) = (b.mul(middle), b.mul(V::splat(1.0 / 12.0)));
            let first = a.mul(V::splat(0.25));
            [first, outer.sub(near), outer.add(near), far.add(twelfth), far.sub(twelfth), c]
        }
    }

    #[inline(always)]
    fn window<V: Vector>(self, [a, b, c, d, e, f]: [V; 6]) -> [V; 6] {
        unsafe {
            let (four, five) = (V::splat(4.0), V::splat(-5.0));
            let (even, odd) = (c.mul_add(V::splat(-4.0), e), b.mul_add(V::splat(-4.0), d));
            let (far, twice) = (e.sub(c), d.sub(b).mul(V::splat(2.0)));
            let ends = [c.mul_add(five, a.mul_add(four, e)), d.mul_add(five, b.mul_add(four, f))];
            [ends[0], even.add(odd), even.sub(odd), far.add(twice), far.sub(twice), ends[1]]
        }
    }

    #[inline(always)]
    fn outputs<V: Vector>(self, [a, b, c, d, e, f]: [V; 6]) -> [V; 4] {
        unsafe {
            let (even, odd) = ([b.add(c), d.add(e)], [b.sub(c), d.sub(e)]);
            let of = |by: f32, [near, far]: [V; 2]| far.mul_add(V::splat(by), near);
            [a.add(of(1.0, even)), of(2.0, odd), of(4.0, even), of(8.0, odd).add(f)]
        }
    }
}

/// What the choice of points is worth.
#[test]
fn points_about_1_halve_the_error_of_lavin_and_gray_s() {
    let g = geometry([1, 14, 14, 256], 32, [1, 1], 4);
    let [x, w] = factors(&g);
    let expected = defined(&g, [&x, &w]);
    let ours = convolved(isa(), &g, [&x, &w], Finish::default());
    let mut theirs = vec![0.0; ours.len()];
    let u = convolve::transform_kernels_by(isa(), &g, LavinGray, &w);
    convolve::convolve_by(isa(), &g, LavinGray, [&x, &u], Finish::default(), &mut theirs);
    let [[_, ours], [_, theirs]] = [&ours, &theirs].map(|y| errors(y, &expected));
    println!("{ours:e}, {theirs:e}, {} times", theirs / ours);
    assert!(theirs < 1e-5 && theirs > 1.5 * ours, "{ours:e} and {theirs:e}");
}

#[test]
fn convolutions_take_tiles_of_4x4_where_they_are_allowed_and_gradients_as_their_forward_pass() {
    let (isa, shape) = (isa(), [3, 15, 16, 64]);
    let [x, w] = factors(&geometry(shape, 64, [1, 1], 2));
    let of = |dtype| {
        let leaf = |values: &[f32], shape: [usize; 4]| {
            Tensor::from_slice(values, shape).unwrap().to_dtype(dtype).leaf()
        };
        let (x, w) = (leaf(&x, shape), leaf(&w, [3, 3, 64, 64]));
        let y = conv2d(&x, &w, None, Conv2dOptions { padding: Same, ..Default::default() }).unwrap();
        (x, w, y)
    };
    let gradients = |(x, w, y): &(Tensor, Tensor, Tensor)| {
        let upstream = Tensor::from_slice(&random(y.shape().elements(), 5), y.shape()).unwrap();
        let gradients = y.backward_from(upstream.to_dtype(y.dtype())).unwrap();
        [gradients.get(x).unwrap().to_vec_f64(), gradients.get(w).unwrap().to_vec_f64()]
    };
    let floats = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    // Not asked for, nothing changes: tiles of 2×2.
    let plain = of(DType::F32);
    for (tile, values) in [(2, &plain), (4, &with_fast_math(true, || of(DType::F32)))] {
        let g = geometry(shape, 64, [1, 1], tile);
        let expected = convolved(isa, &g, [&x, &w], Finish::default());
        assert_eq!(values.2.values::<f32>(), expected);
        let dy = random(expected.len(), 5);
        let expected = convolved(isa, &g.transposed(), [&dy, &turned(&w, 64, 64)], Finish::default());
        let [dx, _] = with_fast_math(tile == 2, || gradients(values));
        assert_eq!(floats(&dx), expected);
    }
    let exact = gradients(&of(DType::F64));
    let fast = with_fast_math(true, || gradients(&of(DType::F32)));
    for (fast, exact) in fast.iter().zip(&exact) {
        let [off, _] = errors(&floats(fast), exact);
        assert!(off < 5e-6, "off by {off:e}");
    }
    assert_eq!(fast[1], gradients(&of(DType::F32))[1], "the kernel's gradient has tiles of 2×2");
    // Where the method does not apply, asking changes nothing.
    let few = Tensor::from_slice(&random(2 * 9 * 9 * 3, 6), [2, 9, 9, 3]).unwrap();
    let w = Tensor::from_slice(&random(27 * 16, 7), [3, 3, 3, 16]).unwrap();
    let options = Conv2dOptions { padding: Valid, ..Default::default() };
    let run = || conv2d(&few, &w, None, options).unwrap();
    assert_eq!(with_fast_math(true, run).values::<f32>(), run().values::<f32>());
}
