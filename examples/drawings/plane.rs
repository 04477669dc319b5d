//! Attacks on a network of two inputs, whose wrong answers are a disc.

use crate::svg::*;
use atrous::ops::sign_step::Bounds;
use atrous::prelude::*;

/// Centre and radius of the disc.
const DISC: [f64; 3] = [0.8, -0.3, 0.36];
const EPSILON: f32 = 1.0;

/// The margin by which the right answer leads, at a point: negative within the disc.
fn margin(at: &Tensor) -> Result<Tensor> {
    let [x, y, radius] = DISC;
    (at - Tensor::from([x, y]))?.square()?.sum()? - radius * radius
}

/// The margin, and its gradient by the point.
fn slope(at: &Tensor) -> Result<(f64, Tensor)> {
    let leaf = at.leaf();
    let value = margin(&leaf)?;
    let gradients = value.backward()?;
    let gradient = gradients.get(&leaf).cloned();
    Ok((value.item()?, gradient.map_or_else(|| leaf.zeros_like(), Ok)?))
}

/// Steps of PGD from a point until the answer is wrong; one of the size of the ball is FGSM.
fn steps(step: f32, most: usize) -> Result<Vec<Tensor>> {
    let origin = Tensor::from([0.0f64, 0.0]);
    let bounds = Bounds { epsilon: EPSILON, low: -2.0, high: 2.0 };
    let mut path = vec![origin.clone()];
    for _ in 0..most {
        let at = &path[path.len() - 1];
        let (value, gradient) = slope(at)?;
        if value < 0.0 {
            break;
        }
        let next = at.sign_step(&gradient, &origin, -step, bounds)?;
        path.push(next);
    }
    Ok(path)
}

/// DeepFool: to where the boundary would be if it were a line, again and again.
fn deepfool() -> Result<Vec<Tensor>> {
    let mut path = vec![Tensor::from([0.0f64, 0.0])];
    for _ in 0..20 {
        let at = &path[path.len() - 1];
        let (value, gradient) = slope(at)?;
        if value < 1e-4 {
            break;
        }
        let length = gradient.square()?.sum()?.item()?;
        path.push((at - (value / length) * gradient)?);
    }
    Ok(path)
}

pub fn attacks() -> Result<String> {
    let place = |x: f64, y: f64| [200.0 + 150.0 * x, 190.0 - 150.0 * y];
    let mut svg = Svg::new(720.0, 380.0, "FGSM, PGD and DeepFool on two numbers");
    let [x, y, radius] = DISC;
    svg.rect(place(-1.0, 1.0), [300.0, 300.0], FAINT, GREY);
    let [cx, cy] = place(x, y);
    svg.circle([cx, cy], 150.0 * radius, RED);
    svg.note([cx - 40.0, cy + 40.0], "wrong answers");
    svg.note(
        [place(-1.0, 1.0)[0] + 8.0, place(-1.0, 1.0)[1] + 18.0],
        "the ball: no value further than ε",
    );
    let ways = [
        (steps(EPSILON, 1)?, STRONG_ORANGE, "FGSM: one step into a corner, here too far"),
        (steps(0.25, 12)?, STRONG_BLUE, "PGD: small steps, each by the gradient where it is"),
        (deepfool()?, STRONG_GREEN, "DeepFool: the nearest point of the boundary"),
    ];
    for (i, (path, colour, name)) in ways.into_iter().enumerate() {
        let points: Vec<[f64; 2]> =
            path.iter().map(|point| point.to_vec_f64()).map(|point| place(point[0], point[1])).collect();
        points.windows(2).for_each(|pair| svg.line(pair[0], pair[1], colour));
        points[1..].iter().for_each(|point| svg.circle(*point, 4.0, colour));
        let end = path[path.len() - 1].to_vec_f64();
        let (largest, length) = (end[0].abs().max(end[1].abs()), end[0].hypot(end[1]));
        let left = if margin(&path[path.len() - 1])?.item()? < 1e-3 { "fooled" } else { "not fooled" };
        let at = 70.0 + 76.0 * i as f64;
        svg.circle([384.0, at - 4.0], 5.0, colour);
        svg.text([396.0, at], name);
        svg.note(
            [396.0, at + 18.0],
            &format!("{left}; largest change {largest:.2}, length {length:.2}"),
        );
    }
    svg.circle(place(0.0, 0.0), 5.0, INK);
    svg.note([place(0.0, 0.0)[0] - 62.0, place(0.0, 0.0)[1] + 4.0], "the image");
    svg.text([384.0, 320.0], "The axes are two values of an image;");
    svg.text([384.0, 340.0], "all steps are taken by the tape's gradient.");
    Ok(svg.finish())
}
