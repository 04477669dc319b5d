//! A network that makes perturbations of images: down to a quarter of their size, a few residual blocks
//! there, and up again (after Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer",
//! ECCV 2016, which Poursaeed et al., "Generative Adversarial Perturbations", CVPR 2018, took over).
//!
//! It has no batch norm: an image's perturbation is its own, whatever else is in the batch.

use crate::activation::Activation;
use crate::error::{Error, Result};
use crate::nn::layers::{Initializer, Layer};
use crate::nn::{Graph, Id};
use crate::ops::Padding;

/// The smallest images there is a generator for.
const LEAST_SIDE: usize = 8;

const WIDTH: usize = 48;
const BLOCKS: usize = 2;

/// Images [side, side, 3] in −1..1 → as many values in −1..1. An error for a side below 8 or above
/// [`super::LARGEST_SIDE`].
///
/// Two strides of 2 need sides that are multiples of 4: zeros around the image make it one, and the last
/// convolution takes them away again. With d cells too many its kernel is 3 + d wide, on one cell of
/// padding.
///
/// ```
/// use atrous::models::attack_generator;
/// use atrous::prelude::*;
///
/// let model = Model::new(attack_generator(10)?, 1);
/// let perturbations = model.run(&Tensor::rand_uniform([2, 10, 10, 3], -1.0, 1.0, 7), Mode::infer())?.output;
/// assert_eq!(perturbations.shape()[..], [2, 10, 10, 3]);
/// assert!(perturbations.abs()?.max()?.item()? <= 1.0);
/// # Ok::<(), Error>(())
/// ```
pub fn attack_generator(side: usize) -> Result<Graph> {
    if side < LEAST_SIDE {
        let message = format!("expected pictures of at least {LEAST_SIDE} pixels a side, got {side}");
        return Err(Error::argument("size", message));
    }
    super::check_side(side)?;
    let extra = side.next_multiple_of(4) - side;
    let around = [extra / 2, extra - extra / 2];
    let mut graph = Graph::new("attack_generator", "pictures", [side, side, 3]);
    let g = &mut graph;
    let x = g.add(Layer::ZeroPadding2D([around; 2]), &[g.input()])?;
    let mut x = g.chain(x, [down(WIDTH / 2), down(WIDTH)])?;
    for _ in 0..BLOCKS {
        x = block(g, x)?;
    }
    let up = Layer::UpSampling2D([2; 2]);
    let last = Layer::conv2d(3, 3 + extra).with_padding(Padding::Cells([1; 2]));
    g.chain(x, [up, conv(WIDTH / 2), up, last.with_activation(Activation::Tanh)])?;
    Ok(graph)
}

/// x + conv(relu(conv(x)))
fn block(g: &mut Graph, x: Id) -> Result<Id> {
    let change = g.chain(x, [conv(WIDTH), conv(WIDTH).with_activation(Activation::Linear)])?;
    g.add(Layer::Add, &[x, change])
}

/// To half the size. Four cells around each pair: a window's centre is the pair's, as it is when going up.
fn down(filters: usize) -> Layer {
    like(Layer::conv2d(filters, 4).with_stride(2).with_padding(Padding::Cells([1; 2])))
}

fn conv(filters: usize) -> Layer {
    like(Layer::conv2d(filters, 3).with_padding(Padding::Same))
}

fn like(layer: Layer) -> Layer {
    layer.with_activation(Activation::Relu).with_initializer(Initializer::HeNormal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Model};
    use crate::tensor::Tensor;

    #[test]
    fn a_generator_gives_what_it_gets_at_any_side() {
        for side in [8, 15, 37, 38, 150] {
            let model = Model::new(attack_generator(side).unwrap(), 1);
            let shape = [1, side, side, 3];
            let output = model.run(&Tensor::full(shape, 0.3), Mode::infer()).unwrap().output;
            assert_eq!(output.shape()[..], shape);
            assert!(output.values::<f32>().iter().all(|v| v.abs() <= 1.0));
        }
        let error = attack_generator(7).unwrap_err().to_string();
        assert!(error.contains("at least 8 pixels a side, got 7"), "{error}");
    }

    #[test]
    fn a_generator_moves_no_pixel() {
        // What one pixel is changes the perturbation around that pixel, on both sides alike.
        for side in [37, 38, 39, 40] {
            let model = Model::new(attack_generator(side).unwrap(), 1);
            let of = |values: &[f32]| {
                let x = Tensor::from_slice(values, [1, side, side, 3]).unwrap();
                model.run(&x, Mode::infer()).unwrap().output.values::<f32>().to_vec()
            };
            let mut values = vec![0.0; side * side * 3];
            let before = of(&values);
            values[(18 * side + 18) * 3] = 1.0;
            let after = of(&values);
            let (mut sum, mut rows) = (0.0, 0.0);
            for (i, (a, b)) in after.iter().zip(&before).enumerate() {
                let change = (a - b).abs() as f64;
                (sum, rows) = (sum + change, rows + change * (i / (3 * side)) as f64);
            }
            assert!((rows / sum - 18.0).abs() < 3.0, "{side}: {}", rows / sum);
        }
    }

    #[test]
    fn it_is_small_beside_what_it_attacks() {
        let generator = attack_generator(150).unwrap().cost();
        let victim = super::super::alexnet(150, 20).unwrap().cost();
        assert!(generator.parameters < 200_000, "{generator:?}");
        // FGSM is a pass forward and one backward.
        assert!(generator.flops * 4 < victim.flops * 2, "{generator:?}");
    }
}
