//! Images and a network for the tests of defences, small enough to train in a moment.
//!
//! An image of class 0 or 1 has two marks: a faint chessboard over all of it, which an ε of [`EPSILON`]
//! can turn round, and a stronger square in one corner, which it cannot. Plain training uses both
//! (Tsipras et al., 2019, have such a set to show what adversarial training changes).

use crate::activation::Activation;
use crate::attack::{Goal, Images, LabelObjective};
use crate::data::image::Fit;
use crate::data::{CLASSES, Dataset, Image, Labels, Mask};
use crate::error::Result;
use crate::nn::layers::Layer;
use crate::nn::{Graph, Model};
use crate::random::{Stream, domain};
use crate::tensor::Tensor;

pub(crate) const SIDE: usize = 16;
pub(crate) const EPSILON: f32 = 12.0 / 255.0;

/// What a pixel of class 0 has beside grey, in steps of an image file; one of class 1 has the opposite.
fn mark(pixel: usize) -> f32 {
    let (y, x) = (pixel / SIDE, pixel % SIDE);
    let board = if (x + y).is_multiple_of(2) { 5.0 } else { -5.0 };
    board + if y < 6 && x < 6 { 40.0 } else { 0.0 }
}

pub struct Toy {
    pub first: usize,
    pub len: usize,
}

impl Dataset for Toy {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> crate::data::Classes {
        crate::data::Classes::voc()
    }

    fn id(&self, index: usize) -> String {
        index.to_string()
    }

    fn labels(&self, index: usize) -> Option<Labels> {
        let mut labels = vec![false; CLASSES.len()];
        labels[(self.first + index) % 2] = true;
        Some(labels)
    }

    fn image(&self, index: usize) -> Result<Image> {
        let number = self.first + index;
        let mut stream = Stream::new(3, &[domain::TEST, number as u64]);
        let sign = if number.is_multiple_of(2) { 1.0 } else { -1.0 };
        let mut rgb = Vec::with_capacity(SIDE * SIDE * 3);
        for i in 0..SIDE * SIDE {
            for _ in 0..3 {
                let value = 128.0 + sign * mark(i) + stream.uniform(-3.0, 3.0);
                rgb.push(value.round() as u8);
            }
        }
        Image::new(SIDE, SIDE, rgb)
    }

    fn mask(&self, _: usize) -> Result<Option<Mask>> {
        Ok(None)
    }
}

pub(crate) fn images(len: usize) -> Images {
    let indices: Vec<usize> = (0..len).collect();
    Images::of(&Toy { first: 1000, len }, &indices, SIDE, Fit::Stretch).unwrap()
}

/// Away from the truth of [`images`].
pub(crate) fn objective(len: usize) -> LabelObjective {
    let toy = Toy { first: 1000, len };
    LabelObjective {
        truth: (0..len).map(|i| toy.labels(i).unwrap()).collect(),
        goal: Goal::Untargeted,
        exclusive: true,
        thresholds: vec![0.5; CLASSES.len()],
        margin: 0.0,
        all_classes: false,
    }
}

/// Softmax of a linear function, from zero weights.
pub(crate) fn linear_model() -> Model {
    let mut g = Graph::new("toy", "input", [SIDE, SIDE, 3]);
    let dense = Layer::dense(CLASSES.len());
    g.chain(g.input(), [Layer::Flatten, dense, Layer::Activation(Activation::Softmax)]).unwrap();
    Model::with(g, |_, shape, _| Tensor::zeros(shape))
}

/// The linear network as plain training with Adam has it, for images of −1 to 1: every value counts
/// alike, in the direction that tells the classes apart. Logits are about ±15.
pub(crate) fn sharp_model() -> Model {
    let mut model = linear_model();
    let mut kernel = vec![0.0f32; SIDE * SIDE * 3 * CLASSES.len()];
    for (i, row) in kernel.chunks_exact_mut(CLASSES.len()).enumerate() {
        let weight = 0.25 * mark(i / 3).signum();
        (row[0], row[1]) = (weight, -weight);
    }
    let mut bias = [-50.0f32; CLASSES.len()];
    bias[..2].fill(0.0);
    let shape = [SIDE * SIDE * 3, CLASSES.len()];
    model.set("dense/kernel", Tensor::from_slice(&kernel, shape).unwrap()).unwrap();
    model.set("dense/bias", Tensor::from_slice(&bias, [CLASSES.len()]).unwrap()).unwrap();
    model
}

/// Values of 0 to 1 drawn at random.
pub(crate) fn random(shape: [usize; 4], seed: u64) -> Tensor {
    let mut stream = Stream::new(seed, &[domain::TEST]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| stream.unit()).collect();
    Tensor::from_slice(&values, shape).unwrap()
}

/// Compares the gradient of Σ f(x)·w by x with differences of a step of `h` each way.
pub(crate) fn check_gradient(x: &Tensor, h: f32, tolerance: f32, f: impl Fn(&Tensor) -> Result<Tensor>) {
    let leaf = x.leaf();
    let y = f(&leaf).unwrap();
    let mut stream = Stream::new(9, &[domain::TEST]);
    let w: Vec<f32> = (0..y.shape().elements()).map(|_| stream.uniform(-1.0, 1.0)).collect();
    let upstream = Tensor::from_slice(&w, y.shape()).unwrap();
    let gradient = y.backward_from(upstream).unwrap().take(&leaf).unwrap();
    let at = |i: usize, h: f32| {
        let mut values = x.as_slice::<f32>().unwrap().to_vec();
        values[i] += h;
        let y = f(&Tensor::from_slice(&values, x.shape()).unwrap()).unwrap();
        y.to_vec_f64().iter().zip(&w).map(|(y, &w)| y * w as f64).sum::<f64>()
    };
    for i in (0..x.shape().elements()).step_by(7) {
        let slope = ((at(i, h) - at(i, -h)) / (2.0 * h as f64)) as f32;
        let g = gradient.as_slice::<f32>().unwrap()[i];
        assert!((slope - g).abs() < tolerance, "{i}: {slope} {g}");
    }
}
