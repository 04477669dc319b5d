//! The network of chapter 1 at its beginning and when it has learned, and what broadcasting repeats.

use crate::svg::*;
use atrous::prelude::*;

/// An image of 8×8 with stripes and some noise: across (0) or down (1).
fn stripes(i: usize) -> Result<(Tensor, f64)> {
    let (class, phase) = (i % 2, i / 2 % 2);
    let stripe = |pixel: usize| if class == 0 { pixel / 8 } else { pixel % 8 };
    let pixels: Vec<f32> = (0..64).map(|pixel| ((stripe(pixel) + phase) % 2) as f32).collect();
    let image =
        (Tensor::from_slice(&pixels, [1, 8, 8, 1])? + 0.3 * Tensor::randn([1, 8, 8, 1], i as u64))?;
    // The naive f64 kernels: the drawing is the same on every machine.
    Ok((image.to_dtype(DType::F64), class as f64))
}

fn batch(first: usize, count: usize) -> Result<(Tensor, Tensor)> {
    let samples = (first..first + count).map(stripes).collect::<Result<Vec<_>>>()?;
    let (images, classes): (Vec<Tensor>, Vec<f64>) = samples.into_iter().unzip();
    let images = Tensor::concat(&images.iter().collect::<Vec<_>>(), 0)?;
    Ok((images, Tensor::from_slice(&classes, [count])?))
}

/// What the kernels find, [N, 6, 6, 4], and what the network says, [N, 2].
fn network(x: &Tensor, [kernel, w, b]: &[Tensor; 3]) -> Result<[Tensor; 2]> {
    let maps = x.conv2d(kernel, None, Conv2dOptions::default())?.relu()?;
    let says = maps.global_average_pool()?.dense(w, b)?;
    Ok([maps, says])
}

/// Two unseen images, four kernels and their maps, and the sums made of them: before and after.
pub fn learned() -> Result<String> {
    let [kernel, w] = [Tensor::randn([3, 3, 1, 4], 1), Tensor::randn([4, 2], 2)];
    let mut weights = [kernel, w, Tensor::zeros([2])].map(|tensor| tensor.to_dtype(DType::F64).leaf());
    let mut optimizer = Optimizer::adam(0.05)?;
    let mut svg =
        Svg::new(760.0, 560.0, "Kernels, maps and sums before and after sixty steps of training");
    for step in 0..=60 {
        let (images, classes) = batch(16 * step, 16)?;
        let loss = network(&images, &weights)?[1].sparse_softmax_cross_entropy(&classes)?;
        if step == 0 {
            state(&mut svg, 0.0, &format!("before: loss {:.1}", loss.item()?), &weights)?;
        }
        if step == 60 {
            state(&mut svg, 280.0, &format!("after 60 steps: loss {:.4}", loss.item()?), &weights)?;
        }
        optimizer.step(&mut weights, &loss.backward()?)?;
    }
    Ok(svg.finish())
}

/// The network on an image of each class.
fn state(svg: &mut Svg, top: f64, title: &str, weights: &[Tensor; 3]) -> Result<()> {
    let (images, _) = batch(100_000, 2)?;
    let [maps, says] = network(&images, weights)?;
    let means = maps.global_average_pool()?.to_vec_f64();
    let [images, kernel, maps, says] = [&images, &weights[0], &maps, &says].map(Tensor::to_vec_f64);
    let largest = |values: &[f64]| values.iter().fold(1e-9, |most: f64, value| most.max(value.abs()));
    let (of_kernel, of_map) = (largest(&kernel), largest(&maps));
    svg.text([20.0, top + 26.0], title);
    svg.text([20.0, top + 60.0], "kernels: [3, 3, 1, 4]");
    svg.note([20.0, top + 76.0], "(dark above 0, blue below)");
    svg.text([20.0, top + 100.0], "image: [8, 8, 1]");
    svg.note([180.0, top + 106.0], "maps after relu: [6, 6, 4], and beside each its mean: [4]");
    svg.text([600.0, top + 78.0], "what it says: [2]");
    svg.note([600.0, top + 94.0], "sums of the four means");
    for f in 0..4 {
        let x = 180.0 + 102.0 * f as f64;
        let of: Vec<f64> = kernel.iter().skip(f).step_by(4).map(|weight| weight / of_kernel).collect();
        svg.heat([x + 6.0, top + 40.0], 16.0, 3, &of);
    }
    for (i, class) in ["across", "down"].into_iter().enumerate() {
        let y = top + 116.0 + 78.0 * i as f64;
        svg.text([20.0, y + 30.0], class);
        svg.heat([76.0, y], 7.0, 8, &images[64 * i..64 * (i + 1)]);
        svg.arrow([142.0, y + 28.0], [170.0, y + 28.0], GREY);
        for f in 0..4 {
            let x = 180.0 + 102.0 * f as f64;
            let map: Vec<f64> = maps[144 * i..144 * (i + 1)]
                .iter()
                .skip(f)
                .step_by(4)
                .map(|value| value / of_map)
                .collect();
            svg.heat([x, y - 2.0], 10.0, 6, &map);
            svg.note([x + 64.0, y + 32.0], &format!("{:.2}", means[4 * i + f]));
        }
        let sums = &says[2 * i..2 * (i + 1)];
        for (class, name) in ["across", "down"].into_iter().enumerate() {
            let wins = sums[class] > sums[1 - class];
            let at = [600.0, y + 4.0 + 26.0 * class as f64];
            svg.rect(at, [140.0, 22.0], if wins { GREEN } else { FAINT }, PAPER);
            svg.text([at[0] + 8.0, at[1] + 16.0], name);
            svg.text([at[0] + 80.0, at[1] + 16.0], &format!("{:+.2}", sums[class]).replace('-', "−"));
        }
    }
    Ok(())
}

/// A row added to a matrix, and where the gradients of both come from.
pub fn broadcast() -> Result<String> {
    let x = Tensor::from([[1.0f64, 2.0, 3.0], [4.0, 5.0, 6.0]]).leaf();
    let row = Tensor::from([10.0f64, 20.0, 30.0]).leaf();
    let g = Tensor::from([[1.0f64, 0.0, 2.0], [3.0, 1.0, 1.0]]);
    let y = (&x + &row)?;
    let gradients = (&y * &g)?.sum()?.backward()?;
    let by = |leaf: &Tensor| gradients.get(leaf).map_or_else(Vec::new, Tensor::to_vec_f64);
    let mut svg = Svg::new(700.0, 250.0, "Broadcasting a row over a matrix, and its gradient");
    let matrix = |svg: &mut Svg, at: [f64; 2], values: &[f64], fills: [&'static str; 2]| {
        let rows = values.len() / 3;
        svg.grid(at, 32.0, [rows, 3], |r, c| (fills[r], GREY, format!("{}", values[3 * r + c])));
    };
    svg.text([20.0, 30.0], "x: [2, 3]");
    matrix(&mut svg, [20.0, 40.0], &x.to_vec_f64(), [BLUE; 2]);
    svg.centred([142.0, 72.0], 20.0, "+");
    svg.text([170.0, 30.0], "row: [3], as if [2, 3]");
    matrix(&mut svg, [170.0, 40.0], &row.to_vec_f64().repeat(2), [ORANGE, FAINT]);
    svg.centred([292.0, 72.0], 20.0, "=");
    svg.text([320.0, 30.0], "y: [2, 3]");
    matrix(&mut svg, [320.0, 40.0], &y.to_vec_f64(), [GREEN; 2]);
    svg.text([450.0, 62.0], "The second row is never stored:");
    svg.text([450.0, 82.0], "the loop reads the first again.");
    svg.text([320.0, 150.0], "∂L/∂y");
    matrix(&mut svg, [320.0, 160.0], &g.to_vec_f64(), [GREEN; 2]);
    svg.arrow([310.0, 192.0], [276.0, 192.0], INK);
    svg.text([170.0, 150.0], "∂L/∂row: summed");
    matrix(&mut svg, [170.0, 176.0], &by(&row), [ORANGE; 2]);
    svg.text([20.0, 150.0], "∂L/∂x: the same");
    matrix(&mut svg, [20.0, 160.0], &by(&x), [BLUE; 2]);
    svg.text([450.0, 182.0], "What was used twice gets the sum");
    svg.text([450.0, 202.0], "of both gradients.");
    Ok(svg.finish())
}
