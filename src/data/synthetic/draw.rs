//! Draws a scene: background and clutter, objects from back to front, light and noise.
//!
//! Objects are of two tones, one dark and one bright, before muted clutter of middling brightness.
//! Their colours are drawn alike for all classes: what tells them apart is outline and texture.

use crate::data::synthetic::classes::{FIGURES, Figure, Paint};
use crate::data::synthetic::outline::Outline;
use crate::data::synthetic::scene::{Object, Scene};
use crate::data::synthetic::texture::{Heights, Texture};
use crate::data::{BACKGROUND, Image, Mask, VOID};
use crate::random::{Stream, domain};

type Colour = [f32; 3];

/// Void pixels lie this far (in pixels) to either side of an object's outline.
const VOID_INSIDE: f32 = 1.0;
const VOID_OUTSIDE: f32 = 2.0;

/// A texture's period on an object of middling size, as a fraction of its half side.
const PERIOD: f32 = 0.3;

pub(crate) fn draw(seed: u64, index: usize, scene: &Scene) -> (Image, Mask) {
    let mut stream = Stream::new(seed, &[domain::SYNTHETIC, index as u64, 1]);
    let mut canvas = Canvas::new(scene.height, scene.width);
    canvas.background(&mut stream);
    canvas.clutter(&mut stream);
    for object in &scene.objects {
        canvas.object(object, &mut stream);
    }
    let amplitude = stream.uniform(3.0, 10.0);
    let grain = Stream::new(seed, &[domain::SYNTHETIC, index as u64, 2]);
    canvas.finish(amplitude, &grain)
}

struct Canvas {
    height: usize,
    width: usize,
    pixels: Vec<Colour>,
    classes: Vec<u8>,
}

/// Any hue at about this brightness: `spread` is how far each channel may be off it.
fn colour(stream: &mut Stream, brightness: f32, spread: f32) -> Colour {
    let c: Colour = std::array::from_fn(|_| stream.uniform(-spread, spread));
    let off = 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2];
    c.map(|c| (brightness + c - off).clamp(0.0, 255.0))
}

/// A muted colour, for what is no object.
fn muted(stream: &mut Stream) -> Colour {
    let brightness = stream.uniform(95.0, 160.0);
    colour(stream, brightness, 40.0)
}

fn mix(a: Colour, b: Colour, t: f32) -> Colour {
    std::array::from_fn(|i| a[i] + (b[i] - a[i]) * t)
}

impl Canvas {
    fn new(height: usize, width: usize) -> Self {
        let n = height * width;
        Canvas { height, width, pixels: vec![[0.0; 3]; n], classes: vec![BACKGROUND; n] }
    }

    /// A gradient, or sky over ground, with soft clouds over it.
    fn background(&mut self, stream: &mut Stream) {
        let (h, w) = (self.height as f32, self.width as f32);
        let [from, to, ground, far] = std::array::from_fn(|_| muted(stream));
        let (sin, cos) = stream.uniform(0.0, std::f32::consts::TAU).sin_cos();
        let horizon = if stream.unit() < 0.5 { stream.uniform(0.35, 0.75) * h } else { f32::INFINITY };
        let slope = stream.uniform(-0.1, 0.1);
        let strength = stream.uniform(6.0, 22.0);
        let cells = 4 + stream.below(8);
        let clouds: Vec<f32> =
            (0..(cells + 1) * (cells + 1)).map(|_| stream.uniform(-1.0, 1.0)).collect();
        let step = [cells as f32 / w, cells as f32 / h];
        let mut line = vec![0.0f32; cells + 1];
        for y in 0..self.height {
            // The clouds' heights along this row, at the grid's columns.
            let v = (y as f32 + 0.5) * step[1];
            let (row, t) = (v as usize, v - v.floor());
            for (i, height) in line.iter_mut().enumerate() {
                let (a, b) = (clouds[row * (cells + 1) + i], clouds[(row + 1) * (cells + 1) + i]);
                *height = a + (b - a) * t * t * (3.0 - 2.0 * t);
            }
            for (x, pixel) in self.pixels[y * self.width..][..self.width].iter_mut().enumerate() {
                let (fx, fy) = (x as f32, y as f32);
                let base = if fy < horizon + slope * (fx - w / 2.0) {
                    mix(from, to, 0.5 + (fx / w - 0.5) * cos + (fy / h - 0.5) * sin)
                } else {
                    mix(far, ground, (fy - horizon) / (h - horizon + 1.0))
                };
                let u = (fx + 0.5) * step[0];
                let (column, t) = (u as usize, u - u.floor());
                let cloud = line[column] + (line[column + 1] - line[column]) * t * t * (3.0 - 2.0 * t);
                *pixel = base.map(|c| c + cloud * strength);
            }
        }
    }

    /// Plain blobs, boards and sticks that are no objects.
    fn clutter(&mut self, stream: &mut Stream) {
        let short = self.height.min(self.width) as f32;
        for _ in 0..2 + stream.below(7) {
            let (x, y) = (stream.unit() * self.width as f32, stream.unit() * self.height as f32);
            let (a, b) = (stream.uniform(0.03, 0.14) * short, stream.uniform(0.03, 0.14) * short);
            let (sin, cos) = stream.uniform(-1.0, 1.0).sin_cos();
            let outline = match stream.below(3) {
                0 => Outline::Ellipse([0.0, 0.0], [a, b]),
                1 => Outline::Box([0.0, 0.0], [a, b], 0.0),
                _ => Outline::Capsule([-2.5 * a, 0.0], [2.5 * a, 0.0], 0.012 * short + 0.1 * b),
            };
            let (paint, cover) = (muted(stream), stream.uniform(0.35, 0.9));
            let reach = outline.bounds().1 + 1.0;
            self.each_near(x, y, reach, |_, pixel, _, [dx, dy]| {
                let d = outline.distance([dx * cos + dy * sin, dy * cos - dx * sin]);
                *pixel = mix(*pixel, paint, cover * (0.5 - d).clamp(0.0, 1.0));
            });
        }
    }

    /// Calls `f(x, pixel, class, offset from the centre)` on the pixels of a square.
    fn each_near(
        &mut self,
        x: f32,
        y: f32,
        reach: f32,
        mut f: impl FnMut(usize, &mut Colour, &mut u8, [f32; 2]),
    ) {
        let span = |at: f32, side: usize| {
            let low = (at - reach).floor().clamp(0.0, side as f32) as usize;
            low..((at + reach).ceil().clamp(0.0, side as f32) as usize).max(low)
        };
        let (columns, rows) = (span(x, self.width), span(y, self.height));
        for row in rows {
            let start = row * self.width;
            let pixels = &mut self.pixels[start..][columns.clone()];
            let classes = &mut self.classes[start..][columns.clone()];
            for ((column, pixel), class) in columns.clone().zip(pixels).zip(classes) {
                f(column, pixel, class, [column as f32 + 0.5 - x, row as f32 + 0.5 - y]);
            }
        }
    }

    fn object(&mut self, object: &Object, stream: &mut Stream) {
        let Figure { texture, parts } = &FIGURES[object.class];
        // One tone dark, one bright, of any hues; lines dark.
        let tones = [stream.uniform(25.0, 60.0), stream.uniform(190.0, 230.0)];
        let [first, second] = tones.map(|brightness| colour(stream, brightness, 60.0));
        let [dark, light] = [18.0, 235.0].map(|brightness| colour(stream, brightness, 20.0));
        let rim_width = stream.uniform(0.025, 0.05) * object.half;
        let light_from = [stream.uniform(-0.2, 0.2), stream.uniform(-0.3, 0.1)];
        let heights: Heights = std::array::from_fn(|_| stream.unit());
        // Periods follow the object's size only in part, as if large objects were nearer but also
        // larger of their kind.
        let usual = 0.27 * self.height.min(self.width) as f32;
        let period = PERIOD * stream.uniform(0.95, 1.05) * (usual / object.half).powf(0.8);
        let centred = matches!(texture, Texture::Squares | Texture::Spokes);
        let phase = [stream.unit(), stream.unit()].map(|p| if centred { 0.0 } else { 8.0 * p });
        let bounds: Vec<_> = parts.iter().map(|(_, outline)| outline.bounds()).collect();
        let (sin, cos) = object.angle.sin_cos();
        let side = if object.flipped { -1.0 } else { 1.0 } / (object.half * object.stretch);
        let reach = object.half * (sin.abs() + cos.abs()) * 1.12 + VOID_OUTSIDE;
        // Farther than this from every part (in the object's coordinates) nothing is drawn.
        let margin = (VOID_OUTSIDE + 1.0) / object.half;
        let class = object.class as u8 + 1;
        self.each_near(object.x, object.y, reach, |_, pixel, label, [dx, dy]| {
            let u = (dx * cos + dy * sin) * side;
            let v = (dy * cos - dx * sin) / object.half;
            let (mut nearest, mut paint) = (margin, None);
            for ((part, outline), &([bu, bv], r)) in parts.iter().zip(&bounds) {
                let r = r + margin;
                if (u - bu) * (u - bu) + (v - bv) * (v - bv) > r * r {
                    continue;
                }
                let d = outline.distance([u, v]);
                if d < 0.0 {
                    paint = Some(*part);
                }
                nearest = nearest.min(d);
            }
            let d = nearest * object.half;
            if d >= VOID_OUTSIDE {
                return;
            }
            *label = if d > -VOID_INSIDE { VOID } else { class };
            let Some(paint) = paint.or((d < 0.5).then_some(Paint::Dark)) else { return };
            let body = match paint {
                _ if d > -rim_width => dark,
                Paint::Dark => dark,
                Paint::Light => light,
                Paint::Textured => {
                    let at = [u / period + phase[0], v / period + phase[1]];
                    mix(first, second, texture.tone(at, &heights))
                }
            };
            let shade = 1.0 + light_from[0] * u + light_from[1] * v;
            *pixel = mix(*pixel, body.map(|c| c * shade), (0.5 - d).clamp(0.0, 1.0));
        });
    }

    /// Rounds to bytes under a grain of noise.
    fn finish(self, amplitude: f32, grain: &Stream) -> (Image, Mask) {
        let Canvas { height, width, pixels, classes } = self;
        let mut rgb = Vec::with_capacity(pixels.len() * 3);
        for (block, pixels) in pixels.chunks(16).enumerate() {
            let words = grain.block(block as u64);
            for (i, pixel) in pixels.iter().enumerate() {
                let byte = (words[i / 4] >> (8 * (i % 4))) & 255;
                let noise = (byte as f32 / 127.5 - 1.0) * amplitude + 0.5;
                rgb.extend(pixel.map(|c| (c + noise) as u8));
            }
        }
        (Image { height, width, rgb }, Mask { height, width, classes })
    }
}
