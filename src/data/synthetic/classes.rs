//! What the twenty classes look like: a silhouette of a few parts, and a texture.

use crate::data::CLASSES;
use crate::data::synthetic::outline::{Outline, Outline::*};
use crate::data::synthetic::texture::Texture;

/// What a part is painted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Textured,
    Dark,
    Light,
}

use Paint::*;

pub(crate) struct Figure {
    pub texture: Texture,
    /// From back to front.
    pub parts: &'static [(Paint, Outline)],
}

/// In the order of [`CLASSES`].
pub(crate) static FIGURES: [Figure; CLASSES.len()] = [
    // aeroplane, from above
    Figure {
        texture: Texture::Across,
        parts: &[
            (Textured, Polygon(&[[0.35, -0.08], [-0.2, -0.98], [-0.5, -0.98], [-0.25, -0.08]])),
            (Textured, Polygon(&[[0.35, 0.08], [-0.2, 0.98], [-0.5, 0.98], [-0.25, 0.08]])),
            (Textured, Polygon(&[[-0.6, 0.0], [-0.85, -0.45], [-1.0, -0.45], [-0.9, 0.0]])),
            (Textured, Polygon(&[[-0.6, 0.0], [-0.85, 0.45], [-1.0, 0.45], [-0.9, 0.0]])),
            (Textured, Capsule([-0.82, 0.0], [0.8, 0.0], 0.19)),
            (Dark, Ellipse([0.72, 0.0], [0.12, 0.1])),
        ],
    },
    // bicycle
    Figure {
        texture: Texture::Triangles,
        parts: &[
            (Dark, Ring([-0.55, 0.32], 0.36, 0.08)),
            (Dark, Ring([0.55, 0.32], 0.36, 0.08)),
            (Textured, Capsule([-0.55, 0.32], [-0.08, 0.34], 0.09)),
            (Textured, Capsule([-0.08, 0.34], [0.36, -0.28], 0.09)),
            (Textured, Capsule([0.36, -0.28], [-0.27, -0.26], 0.09)),
            (Textured, Capsule([-0.3, -0.42], [-0.08, 0.34], 0.09)),
            (Textured, Capsule([-0.55, 0.32], [-0.27, -0.26], 0.09)),
            (Textured, Capsule([0.55, 0.32], [0.3, -0.56], 0.09)),
            (Dark, Capsule([-0.47, -0.46], [-0.16, -0.46], 0.09)),
            (Dark, Capsule([0.2, -0.64], [0.5, -0.6], 0.08)),
        ],
    },
    // bird
    Figure {
        texture: Texture::Scales,
        parts: &[
            (Dark, Capsule([-0.08, 0.4], [-0.08, 0.88], 0.05)),
            (Dark, Capsule([0.16, 0.4], [0.16, 0.88], 0.05)),
            (Textured, Polygon(&[[-0.4, -0.05], [-1.0, -0.35], [-1.0, 0.15], [-0.45, 0.3]])),
            (Textured, Ellipse([-0.03, 0.1], [0.64, 0.42])),
            (Light, Polygon(&[[0.74, -0.42], [1.0, -0.28], [0.74, -0.18]])),
            (Textured, Circle([0.55, -0.3], 0.29)),
            (Dark, Circle([0.63, -0.36], 0.07)),
        ],
    },
    // boat
    Figure {
        texture: Texture::Bricks,
        parts: &[
            (Dark, Box([0.0, -0.3], [0.05, 0.68], 0.0)),
            (Textured, Polygon(&[[0.08, -0.95], [0.82, 0.2], [0.08, 0.2]])),
            (Light, Polygon(&[[-0.08, -0.75], [-0.62, 0.2], [-0.08, 0.2]])),
            (Textured, Polygon(&[[-0.98, 0.32], [0.98, 0.32], [0.64, 0.92], [-0.68, 0.92]])),
        ],
    },
    // bottle
    Figure {
        texture: Texture::Zigzag,
        parts: &[
            (Textured, Box([0.0, -0.6], [0.15, 0.3], 0.02)),
            (Textured, Polygon(&[[-0.38, -0.1], [-0.15, -0.45], [0.15, -0.45], [0.38, -0.1]])),
            (Textured, Box([0.0, 0.42], [0.4, 0.56], 0.1)),
            (Dark, Box([0.0, -0.92], [0.19, 0.08], 0.02)),
        ],
    },
    // bus
    Figure {
        texture: Texture::Windows,
        parts: &[
            (Textured, Box([0.0, -0.1], [0.98, 0.55], 0.12)),
            (Dark, Circle([-0.56, 0.47], 0.2)),
            (Dark, Circle([0.56, 0.47], 0.2)),
            (Light, Circle([-0.56, 0.47], 0.08)),
            (Light, Circle([0.56, 0.47], 0.08)),
        ],
    },
    // car
    Figure {
        texture: Texture::Diagonal,
        parts: &[
            (Textured, Polygon(&[[-0.68, 0.05], [-0.4, -0.5], [0.3, -0.5], [0.68, 0.05]])),
            (Light, Polygon(&[[-0.46, -0.02], [-0.32, -0.37], [-0.04, -0.37], [-0.04, -0.02]])),
            (Light, Polygon(&[[0.06, -0.02], [0.06, -0.37], [0.24, -0.37], [0.46, -0.02]])),
            (Textured, Box([0.0, 0.2], [0.98, 0.26], 0.14)),
            (Dark, Circle([-0.56, 0.42], 0.24)),
            (Dark, Circle([0.56, 0.42], 0.24)),
            (Light, Circle([-0.56, 0.42], 0.1)),
            (Light, Circle([0.56, 0.42], 0.1)),
        ],
    },
    // cat, sitting
    Figure {
        texture: Texture::WavesAcross,
        parts: &[
            (Textured, Capsule([0.4, 0.85], [0.82, 0.4], 0.1)),
            (Textured, Capsule([0.82, 0.4], [0.72, -0.02], 0.1)),
            (Textured, Ellipse([0.0, 0.48], [0.52, 0.5])),
            (Textured, Polygon(&[[-0.44, -0.35], [-0.42, -0.98], [-0.04, -0.66]])),
            (Textured, Polygon(&[[0.44, -0.35], [0.42, -0.98], [0.04, -0.66]])),
            (Textured, Circle([0.0, -0.3], 0.44)),
            (Light, Circle([-0.17, -0.36], 0.09)),
            (Light, Circle([0.17, -0.36], 0.09)),
            (Dark, Polygon(&[[-0.08, -0.16], [0.08, -0.16], [0.0, -0.05]])),
        ],
    },
    // chair, from the side
    Figure {
        texture: Texture::Crosses,
        parts: &[
            (Textured, Box([-0.4, -0.38], [0.2, 0.6], 0.06)),
            (Textured, Box([0.06, 0.25], [0.66, 0.18], 0.05)),
            (Dark, Box([-0.48, 0.7], [0.1, 0.28], 0.0)),
            (Dark, Box([0.6, 0.7], [0.1, 0.28], 0.0)),
        ],
    },
    // cow
    Figure {
        texture: Texture::Blotches,
        parts: &[
            (Dark, Capsule([-0.78, -0.25], [-0.94, 0.25], 0.05)),
            (Textured, Box([-0.62, 0.55], [0.1, 0.4], 0.0)),
            (Textured, Box([-0.32, 0.55], [0.1, 0.4], 0.0)),
            (Textured, Box([0.16, 0.55], [0.1, 0.4], 0.0)),
            (Textured, Box([0.44, 0.55], [0.1, 0.4], 0.0)),
            (Light, Circle([-0.05, 0.38], 0.17)),
            (Light, Capsule([0.6, -0.48], [0.5, -0.74], 0.06)),
            (Light, Capsule([0.86, -0.48], [0.96, -0.74], 0.06)),
            (Textured, Box([-0.1, -0.02], [0.7, 0.38], 0.14)),
            (Textured, Box([0.73, -0.28], [0.24, 0.27], 0.1)),
            (Dark, Circle([0.76, -0.36], 0.06)),
        ],
    },
    // diningtable
    Figure {
        texture: Texture::Checks,
        parts: &[
            (Dark, Box([-0.5, 0.4], [0.07, 0.32], 0.0)),
            (Dark, Box([0.5, 0.4], [0.07, 0.32], 0.0)),
            (Dark, Box([-0.86, 0.5], [0.1, 0.46], 0.0)),
            (Dark, Box([0.86, 0.5], [0.1, 0.46], 0.0)),
            (Textured, Polygon(&[[-0.6, -0.7], [0.6, -0.7], [1.0, 0.05], [-1.0, 0.05]])),
            (Light, Box([0.0, 0.1], [1.0, 0.09], 0.02)),
        ],
    },
    // dog
    Figure {
        texture: Texture::Dots,
        parts: &[
            (Textured, Capsule([-0.74, 0.05], [-0.95, -0.45], 0.08)),
            (Textured, Box([-0.66, 0.62], [0.11, 0.33], 0.04)),
            (Textured, Box([-0.36, 0.62], [0.11, 0.33], 0.04)),
            (Textured, Box([0.14, 0.62], [0.11, 0.33], 0.04)),
            (Textured, Box([0.42, 0.62], [0.11, 0.33], 0.04)),
            (Textured, Capsule([-0.48, 0.15], [0.28, 0.15], 0.32)),
            (Textured, Box([0.85, -0.22], [0.15, 0.13], 0.05)),
            (Textured, Ellipse([0.56, -0.34], [0.34, 0.3])),
            (Dark, Ellipse([0.38, -0.22], [0.14, 0.34])),
            (Dark, Circle([0.95, -0.3], 0.06)),
            (Dark, Circle([0.68, -0.42], 0.06)),
        ],
    },
    // horse
    Figure {
        texture: Texture::WavesUpright,
        parts: &[
            (Dark, Capsule([-0.74, 0.02], [-0.93, 0.52], 0.09)),
            (Textured, Box([-0.62, 0.62], [0.08, 0.37], 0.0)),
            (Textured, Box([-0.4, 0.62], [0.08, 0.37], 0.0)),
            (Textured, Box([0.12, 0.62], [0.08, 0.37], 0.0)),
            (Textured, Box([0.34, 0.62], [0.08, 0.37], 0.0)),
            (Dark, Capsule([0.42, -0.82], [0.08, -0.12], 0.1)),
            (Textured, Polygon(&[[0.05, 0.05], [0.4, -0.88], [0.72, -0.8], [0.5, 0.2]])),
            (Textured, Ellipse([-0.15, 0.12], [0.66, 0.34])),
            (Textured, Capsule([0.58, -0.76], [0.86, -0.46], 0.15)),
            (Dark, Circle([0.62, -0.74], 0.05)),
        ],
    },
    // motorbike
    Figure {
        texture: Texture::Spokes,
        parts: &[
            (Dark, Capsule([0.62, 0.42], [0.34, -0.5], 0.08)),
            (Dark, Capsule([0.34, -0.62], [0.08, -0.68], 0.07)),
            (Dark, Circle([-0.6, 0.45], 0.38)),
            (Dark, Circle([0.6, 0.45], 0.38)),
            (Light, Circle([-0.6, 0.45], 0.17)),
            (Light, Circle([0.6, 0.45], 0.17)),
            (
                Textured,
                Polygon(&[
                    [-0.95, -0.3],
                    [-0.3, -0.2],
                    [0.0, -0.42],
                    [0.42, -0.42],
                    [0.5, 0.1],
                    [0.15, 0.48],
                    [-0.35, 0.45],
                    [-0.5, 0.05],
                ]),
            ),
            (Light, Circle([0.5, -0.42], 0.14)),
        ],
    },
    // person
    Figure {
        texture: Texture::Plaid,
        parts: &[
            (Textured, Capsule([-0.36, -0.34], [-0.62, 0.2], 0.13)),
            (Textured, Capsule([0.36, -0.34], [0.62, 0.2], 0.13)),
            (Dark, Capsule([-0.19, 0.3], [-0.25, 0.84], 0.15)),
            (Dark, Capsule([0.19, 0.3], [0.25, 0.84], 0.15)),
            (Textured, Box([0.0, -0.08], [0.38, 0.42], 0.12)),
            (Light, Circle([0.0, -0.73], 0.25)),
            (Dark, Box([0.0, -0.93], [0.24, 0.07], 0.05)),
        ],
    },
    // pottedplant
    Figure {
        texture: Texture::Dashes,
        parts: &[
            (Textured, Capsule([0.0, 0.3], [-0.82, 0.0], 0.16)),
            (Textured, Capsule([0.0, 0.3], [0.82, 0.0], 0.16)),
            (Textured, Capsule([0.0, 0.25], [-0.58, -0.6], 0.19)),
            (Textured, Capsule([0.0, 0.25], [0.58, -0.6], 0.19)),
            (Textured, Capsule([0.0, 0.3], [0.0, -0.78], 0.2)),
            (Light, Polygon(&[[-0.4, 0.35], [0.4, 0.35], [0.28, 0.98], [-0.28, 0.98]])),
            (Dark, Box([0.0, 0.37], [0.46, 0.08], 0.02)),
        ],
    },
    // sheep
    Figure {
        texture: Texture::Ringlets,
        parts: &[
            (Dark, Box([-0.45, 0.7], [0.08, 0.28], 0.0)),
            (Dark, Box([-0.2, 0.7], [0.08, 0.28], 0.0)),
            (Dark, Box([0.12, 0.7], [0.08, 0.28], 0.0)),
            (Dark, Box([0.35, 0.7], [0.08, 0.28], 0.0)),
            (Textured, Circle([-0.52, 0.05], 0.36)),
            (Textured, Circle([-0.28, -0.25], 0.36)),
            (Textured, Circle([0.12, -0.28], 0.36)),
            (Textured, Circle([0.38, 0.02], 0.36)),
            (Textured, Circle([-0.25, 0.25], 0.36)),
            (Textured, Circle([0.15, 0.25], 0.36)),
            (Dark, Ellipse([0.74, -0.12], [0.2, 0.28])),
            (Light, Circle([0.78, -0.2], 0.05)),
        ],
    },
    // sofa
    Figure {
        texture: Texture::Diamonds,
        parts: &[
            (Dark, Box([-0.76, 0.52], [0.08, 0.12], 0.0)),
            (Dark, Box([0.76, 0.52], [0.08, 0.12], 0.0)),
            (Textured, Box([0.0, -0.18], [0.84, 0.42], 0.14)),
            (Textured, Box([0.0, 0.26], [0.84, 0.2], 0.05)),
            (Dark, Box([0.0, 0.08], [0.68, 0.025], 0.0)),
            (Textured, Box([-0.82, 0.14], [0.18, 0.32], 0.12)),
            (Textured, Box([0.82, 0.14], [0.18, 0.32], 0.12)),
        ],
    },
    // train: an engine on its rail
    Figure {
        texture: Texture::Upright,
        parts: &[
            (Dark, Box([0.0, 0.8], [1.0, 0.05], 0.0)),
            (Textured, Box([0.55, -0.45], [0.13, 0.35], 0.0)),
            (Dark, Box([0.55, -0.8], [0.2, 0.07], 0.0)),
            (Textured, Box([-0.5, -0.2], [0.42, 0.62], 0.04)),
            (Light, Box([-0.5, -0.45], [0.24, 0.2], 0.0)),
            (Textured, Box([0.3, 0.1], [0.6, 0.34], 0.1)),
            (Dark, Polygon(&[[0.78, 0.4], [1.0, 0.74], [0.62, 0.74]])),
            (Dark, Circle([-0.62, 0.52], 0.23)),
            (Dark, Circle([-0.1, 0.52], 0.23)),
            (Dark, Circle([0.42, 0.52], 0.23)),
        ],
    },
    // tvmonitor
    Figure {
        texture: Texture::Squares,
        parts: &[
            (Dark, Box([0.0, 0.62], [0.13, 0.2], 0.0)),
            (Dark, Box([0.0, 0.8], [0.5, 0.09], 0.04)),
            (Dark, Box([0.0, -0.12], [0.97, 0.66], 0.08)),
            (Textured, Box([0.0, -0.12], [0.83, 0.52], 0.02)),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_fills_its_square_in_one_direction_and_stays_in_it() {
        for (figure, class) in FIGURES.iter().zip(CLASSES) {
            let inside = |point| figure.parts.iter().any(|(_, outline)| outline.distance(point) < 0.0);
            let points = (0..240 * 240)
                .map(|i| [(i % 240) as f32 / 100.0 - 1.195, (i / 240) as f32 / 100.0 - 1.195]);
            let inside: Vec<[f32; 2]> = points.filter(|&point| inside(point)).collect();
            let reach = inside.iter().flatten().fold(0.0f32, |m, x| m.max(x.abs()));
            let share = inside.len() as f32 / 40_000.0;
            assert!((0.9..=1.05).contains(&reach), "{class} reaches {reach}");
            assert!((0.2..0.75).contains(&share), "{class} fills {share} of its square");
        }
    }
}
