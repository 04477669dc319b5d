//! Tensors in memory, and where the windows of convolutions lie.

use crate::svg::*;
use atrous::ops::conv2d::Conv2dGeometry;
use atrous::prelude::*;

/// An image of 2×3 pixels with three channels: what lies where in memory, channels last and channels first.
pub fn tensor() -> Result<String> {
    let nhwc = Tensor::arange(0.0, 18.0, 1.0)?.reshape([1, 2, 3, 3])?;
    let nchw = nhwc.permute([0, 3, 1, 2])?.flatten()?.to_vec_f64();
    let colours = [RED, GREEN, BLUE];
    let mut svg =
        Svg::new(670.0, 290.0, "A tensor of one image, two rows, three columns, three channels");
    svg.text([20.0, 28.0], "shape [1, 2, 3, 3]: one image, 2 rows, 3 columns, 3 channels");
    for y in 0..2 {
        for x in 0..3 {
            let at = [20.0 + 100.0 * x as f64, 42.0 + 48.0 * y as f64];
            svg.rect([at[0] - 3.0, at[1] - 3.0], [90.0, 34.0], FAINT, GREY);
            svg.grid(at, 28.0, [1, 3], |_, c| (colours[c], GREY, format!("{}", (y * 3 + x) * 3 + c)));
        }
    }
    svg.text([330.0, 70.0], "element (n, y, x, c) lies at");
    svg.text([330.0, 92.0], "((n·H + y)·W + x)·C + c");
    svg.text([330.0, 114.0], "here (0, 1, 2, 0) at ((0·2 + 1)·3 + 2)·3 + 0 = 15");
    svg.text(
        [20.0, 168.0],
        "in memory, channels last (NHWC): the three numbers of a pixel are neighbours",
    );
    svg.grid([20.0, 178.0], 32.0, [1, 18], |_, i| (colours[i % 3], GREY, format!("{i}")));
    svg.text(
        [20.0, 234.0],
        "channels first (NCHW) the same numbers would lie so: a plane for each channel",
    );
    svg.grid([20.0, 244.0], 32.0, [1, 18], |_, i| (colours[i / 6], GREY, format!("{}", nchw[i])));
    Ok(svg.finish())
}

/// Five rows and columns with an edge in them, and a kernel that answers to edges.
fn example() -> Result<[Tensor; 3]> {
    let pixels: Vec<f32> = (0..25).map(|i| if i % 5 + i / 5 >= 5 { 4.0 } else { 1.0 }).collect();
    let image = Tensor::from_slice(&pixels, [1, 5, 5, 1])?;
    let kernel = Tensor::from([[-1.0f32, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]);
    let y = image.conv2d(&kernel.reshape([3, 3, 1, 1])?, None, Conv2dOptions::default())?;
    Ok([image, kernel, y])
}

/// The output whose window is marked.
const MARKED: [usize; 2] = [1, 2];

/// The image, the kernel, and one output with its window.
pub fn window() -> Result<String> {
    let [image, kernel, y] = example()?.map(|tensor| tensor.to_vec_f64());
    let mut svg = Svg::new(640.0, 250.0, "A window of three by three pixels, a kernel, and the output");
    let inside = |y: usize, x: usize| {
        (MARKED[0]..MARKED[0] + 3).contains(&y) && (MARKED[1]..MARKED[1] + 3).contains(&x)
    };
    svg.text([20.0, 26.0], "image 5×5");
    svg.grid([20.0, 36.0], 34.0, [5, 5], |r, c| {
        (if inside(r, c) { ORANGE } else { FAINT }, GREY, format!("{}", image[r * 5 + c]))
    });
    svg.text([250.0, 26.0], "kernel 3×3");
    svg.centred([221.0, 121.0], 20.0, "∗");
    svg.grid([250.0, 70.0], 34.0, [3, 3], |r, c| (BLUE, GREY, format!("{}", kernel[r * 3 + c])));
    svg.centred([384.0, 121.0], 20.0, "=");
    svg.text([418.0, 26.0], "output 3×3 (valid)");
    let marked = MARKED[0] * 3 + MARKED[1];
    svg.grid([418.0, 70.0], 34.0, [3, 3], |r, c| {
        (if r * 3 + c == marked { ORANGE } else { FAINT }, GREY, format!("{}", y[r * 3 + c]))
    });
    let taps = (0..9).map(|tap| {
        let pixel = image[(MARKED[0] + tap / 3) * 5 + MARKED[1] + tap % 3];
        format!("{pixel}·({})", kernel[tap])
    });
    let taps = taps.collect::<Vec<_>>().join(" + ");
    svg.text([20.0, 236.0], &format!("{taps} = {}", y[marked]));
    Ok(svg.finish())
}

/// The same as a matrix product.
pub fn im2col() -> Result<String> {
    let [image, kernel, y] = example()?.map(|tensor| tensor.to_vec_f64());
    let mut svg = Svg::new(640.0, 356.0, "The patches of all windows as the rows of a matrix");
    svg.text([20.0, 26.0], "patches: a row for each output");
    svg.text(
        [20.0, 340.0],
        "Green: the pixel in the middle of the image, which nine windows see. Orange: one window.",
    );
    let marked = MARKED[0] * 3 + MARKED[1];
    let at = |row: usize, tap: usize| (row / 3 + tap / 3) * 5 + row % 3 + tap % 3;
    svg.grid([20.0, 40.0], 28.0, [9, 9], |row, tap| {
        let middle = at(row, tap) == 12;
        let fill = match (middle, row == marked) {
            (true, _) => GREEN,
            (_, true) => ORANGE,
            _ => FAINT,
        };
        (fill, GREY, format!("{}", image[at(row, tap)]))
    });
    svg.centred([296.0, 166.0], 20.0, "·");
    svg.text([318.0, 26.0], "kernel");
    svg.grid([320.0, 40.0], 28.0, [9, 1], |tap, _| (BLUE, GREY, format!("{}", kernel[tap])));
    svg.centred([378.0, 166.0], 20.0, "=");
    svg.text([408.0, 26.0], "output");
    svg.grid([408.0, 40.0], 28.0, [9, 1], |row, _| {
        (if row == marked { ORANGE } else { FAINT }, GREY, format!("{}", y[row]))
    });
    svg.text([460.0, 110.0], "With C channels a row has");
    svg.text([460.0, 130.0], "9·C numbers, and with F");
    svg.text([460.0, 150.0], "filters the kernel has F");
    svg.text([460.0, 170.0], "columns: a product of");
    svg.text([460.0, 190.0], "[pixels, 9·C] and [9·C, F].");
    Ok(svg.finish())
}

/// How many taps of a window see each pixel (`by_input`), or a pixel for each output.
fn taps(g: &Conv2dGeometry, by_input: bool) -> Vec<usize> {
    let size = if by_input { g.input } else { g.output };
    let mut count = vec![0; size[0] * size[1]];
    let inside = |o: usize, k: usize, axis: usize| {
        let i = (o * g.stride[axis] + k * g.dilation[axis]).checked_sub(g.pad[axis])?;
        (i < g.input[axis]).then_some(i)
    };
    for output in 0..g.output[0] * g.output[1] {
        let [oy, ox] = [output / g.output[1], output % g.output[1]];
        for tap in 0..g.kernel[0] * g.kernel[1] {
            let at = [inside(oy, tap / g.kernel[1], 0), inside(ox, tap % g.kernel[1], 1)];
            if let [Some(iy), Some(ix)] = at {
                count[if by_input { iy * g.input[1] + ix } else { output }] += 1;
            }
        }
    }
    count
}

/// Of a 3×3 convolution with stride 2: how many taps each pixel's gradient gathers from.
pub fn stride_phases() -> Result<String> {
    let options = Conv2dOptions::default().stride(2);
    let g = Conv2dGeometry::new([1, 9, 9, 1].into(), [3, 3, 1, 1].into(), options)?;
    let taps = taps(&g, true);
    let mut svg = Svg::new(640.0, 320.0, "How many taps reach each pixel, with stride 2");
    svg.text([20.0, 26.0], "9×9 pixels under 3×3 windows of stride 2: how many windows read each pixel");
    svg.grid([20.0, 40.0], 29.0, [9, 9], |y, x| {
        let fill = [[ORANGE, BLUE], [GREEN, RED]][y % 2][x % 2];
        (fill, GREY, format!("{}", taps[y * 9 + x]))
    });
    let away_from_the_edge = [("even row, even column", [2, 2]), ("even row, odd column", [2, 3])]
        .into_iter()
        .chain([("odd row, even column", [3, 2]), ("odd row, odd column", [3, 3])]);
    for (i, (name, [y, x])) in away_from_the_edge.enumerate() {
        let at = 60.0 + 46.0 * i as f64;
        svg.rect([310.0, at], [22.0, 22.0], [ORANGE, BLUE, GREEN, RED][i], GREY);
        svg.text([342.0, at + 16.0], &format!("{name}: {} of 9 taps", taps[y * 9 + x]));
    }
    svg.text([310.0, 264.0], "Each colour is a phase: its pixels are");
    svg.text([310.0, 284.0], "reached through the same taps.");
    Ok(svg.finish())
}

/// DeepLab's 14×14 map: how many taps see a pixel, for each output, at three dilations.
pub fn dilation() -> Result<String> {
    let mut svg = Svg::new(700.0, 280.0, "How many taps see a pixel, at dilations 6, 12 and 18");
    svg.text(
        [20.0, 26.0],
        "3×3 windows on a map of 14×14: for each output, how many of its 9 taps see a pixel",
    );
    for (i, dilation) in [6, 12, 18].into_iter().enumerate() {
        let options = Conv2dOptions::default().same().dilation(dilation);
        let g = Conv2dGeometry::new([1, 14, 14, 1].into(), [3, 3, 1, 1].into(), options)?;
        let taps = taps(&g, false);
        let x = 20.0 + 225.0 * i as f64;
        let percent = 100 * taps.iter().sum::<usize>() / (9 * taps.len());
        svg.text([x, 52.0], &format!("dilation {dilation}: {percent} % of the products"));
        svg.grid([x, 62.0], 14.5, [14, 14], |row, column| {
            let n = taps[row * 14 + column];
            let fill = [FAINT, FAINT, BLUE, BLUE, GREEN, GREEN, ORANGE, ORANGE, RED, RED][n];
            (fill, PAPER, format!("{n}"))
        });
    }
    Ok(svg.finish())
}
