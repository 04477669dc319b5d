//! Silhouettes: signed distances to simple shapes, negative inside.
//!
//! Objects are drawn in coordinates of their own, u to the right and v down, −1 to 1. The formulas
//! are the well-known ones (Quilez, "2D distance functions"); the ellipse's is an approximation
//! that is right at its border.

pub(crate) type Point = [f32; 2];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Outline {
    Circle(Point, f32),
    /// Centre, radii.
    Ellipse(Point, Point),
    /// Centre, half sizes, radius of the corners.
    Box(Point, Point, f32),
    /// A thick line with round ends: from, to, radius.
    Capsule(Point, Point, f32),
    /// Centre, radius of the middle, half the width.
    Ring(Point, f32, f32),
    Polygon(&'static [Point]),
}

use Outline::*;

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// The distance to a segment, squared.
fn to_segment([u, v]: Point, [au, av]: Point, [bu, bv]: Point) -> f32 {
    let (du, dv, eu, ev) = (u - au, v - av, bu - au, bv - av);
    let along = ((du * eu + dv * ev) / (eu * eu + ev * ev).max(1e-12)).clamp(0.0, 1.0);
    let (x, y) = (du - eu * along, dv - ev * along);
    x * x + y * y
}

impl Outline {
    pub(crate) fn distance(&self, [u, v]: Point) -> f32 {
        match *self {
            Circle([cu, cv], r) => length(u - cu, v - cv) - r,
            Ellipse([cu, cv], [ru, rv]) => {
                let (x, y) = ((u - cu) / ru, (v - cv) / rv);
                let (near, steep) = (length(x, y), length(x / ru, y / rv));
                near * (near - 1.0) / steep.max(1e-6)
            }
            Box([cu, cv], [hu, hv], round) => {
                let (x, y) = ((u - cu).abs() - hu + round, (v - cv).abs() - hv + round);
                length(x.max(0.0), y.max(0.0)) + x.max(y).min(0.0) - round
            }
            Capsule(a, b, r) => to_segment([u, v], a, b).sqrt() - r,
            Ring([cu, cv], r, half) => (length(u - cu, v - cv) - r).abs() - half,
            Polygon(points) => {
                let (mut nearest, mut inside) = (f32::INFINITY, false);
                let mut from = points[points.len() - 1];
                for &to in points {
                    nearest = nearest.min(to_segment([u, v], from, to));
                    // Each edge that crosses the ray to the right changes the side.
                    if (from[1] > v) != (to[1] > v) {
                        let cross = from[0] + (v - from[1]) / (to[1] - from[1]) * (to[0] - from[0]);
                        inside ^= u < cross;
                    }
                    from = to;
                }
                if inside { -nearest.sqrt() } else { nearest.sqrt() }
            }
        }
    }

    /// A circle that holds the outline: centre and radius.
    pub(crate) fn bounds(&self) -> (Point, f32) {
        match *self {
            Circle(at, r) => (at, r),
            Ellipse(at, [ru, rv]) => (at, ru.max(rv)),
            Box(at, [hu, hv], _) => (at, length(hu, hv)),
            Capsule(a, b, r) => {
                ([(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0], length(a[0] - b[0], a[1] - b[1]) / 2.0 + r)
            }
            Ring(at, r, half) => (at, r + half),
            Polygon(points) => {
                let n = points.len() as f32;
                let sum = points.iter().fold([0.0, 0.0], |s, p| [s[0] + p[0], s[1] + p[1]]);
                let at = [sum[0] / n, sum[1] / n];
                let far = points.iter().map(|p| length(p[0] - at[0], p[1] - at[1]));
                (at, far.fold(0.0, f32::max))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: &[Point] = &[[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]];

    #[test]
    fn a_square_is_the_same_as_a_box_and_as_a_polygon() {
        let square = Box([0.0, 0.0], [0.5, 0.5], 0.0);
        for i in 0..400 {
            let point = [(i % 20) as f32 / 10.0 - 0.97, (i / 20) as f32 / 10.0 - 0.98];
            let (a, b) = (square.distance(point), Polygon(SQUARE).distance(point));
            assert!((a - b).abs() < 1e-6, "{point:?}: {a} and {b}");
        }
    }

    #[test]
    fn bounds_hold_everything_inside() {
        let shapes = [
            Circle([0.1, 0.2], 0.3),
            Ellipse([0.0, -0.2], [0.6, 0.3]),
            Box([0.2, 0.0], [0.4, 0.3], 0.1),
            Capsule([-0.5, 0.0], [0.3, 0.4], 0.1),
            Ring([0.0, 0.0], 0.5, 0.1),
            Polygon(SQUARE),
        ];
        for shape in shapes {
            let (at, r) = shape.bounds();
            let points = (0..2500).map(|i| [(i % 50) as f32 / 25.0 - 1.0, (i / 50) as f32 / 25.0 - 1.0]);
            let inside: Vec<Point> = points.filter(|&p| shape.distance(p) < 0.0).collect();
            assert!(!inside.is_empty());
            assert!(inside.iter().all(|p| length(p[0] - at[0], p[1] - at[1]) <= r + 1e-5), "{shape:?}");
        }
    }
}
