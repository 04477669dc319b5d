//! A first tensor: how it is made, printed and computed with.
//!
//!     cargo run --example 01_tensor

use atrous::prelude::*;

fn main() -> Result<()> {
    // Values as they are written down. Elements lie row by row; there are at most four axes.
    let a = Tensor::from([[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    println!("{a:?}\n");

    // Constants, ranges, random numbers: the same on every machine for the same seed.
    let row = Tensor::arange(0.0, 3.0, 1.0)?;
    let noise = Tensor::randn([2, 3], 7);
    println!("noise\n{noise}\n");

    // + − * and / go element by element. A row goes along all rows, a column along all columns, a number
    // everywhere. Every operator can fail, for shapes may not fit, so each expression ends in a `?`.
    let column = a.mean_keepdim([1])?;
    println!("2a + row\n{}\n", (2.0 * &a + &row)?);
    println!("a, less the mean of its row\n{}\n", (&a - column)?);
    println!("a · aᵀ\n{}\n", a.matmul(&a.transpose(0, 1)?)?);
    println!("of all elements: sum {}, mean {}\n", a.sum()?, a.mean()?);

    // What does not fit is an error that says what was expected; nothing panics.
    if let Err(error) = &a + &Tensor::zeros([4]) {
        println!("{error}\n");
    }

    // An image is [sample, row, column, channel], a kernel [row, column, channel in, channel out]: here a
    // diagonal line, and the mean of 3×3 pixels. `same` pads with zeros, so that the output is as large as
    // the input.
    let image = Tensor::eye(6).reshape([1, 6, 6, 1])?;
    let blur = Tensor::full([3, 3, 1, 1], 1.0 / 9.0);
    let blurred = image.conv2d(&blur, None, Conv2dOptions::default().same())?;
    println!("a blurred diagonal\n{:.2}", blurred.reshape([6, 6])?);
    Ok(())
}
