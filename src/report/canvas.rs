//! What images are drawn on: pixels, or SVG. Lengths are in points; a [`Canvas`] has a number of
//! pixels to the point.

use super::font;
use crate::data::{Image, image_files};
use crate::error::{Error, Result};
use crate::files::write_atomically;
use std::fmt::Write;
use std::path::Path;

/// Red, green and blue, in bytes.
pub(crate) type Rgb = [u8; 3];

/// Where a text's given point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Something to draw on: lengths in points from the upper left corner, y downwards.
pub(crate) trait Surface {
    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Rgb);

    /// A line with round ends and corners; one point is a dot.
    fn line(&mut self, points: &[(f64, f64)], width: f64, colour: Rgb);

    /// A rectangle of which what lies below shines through: `opacity` from 0 to 1.
    fn shade(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Rgb, opacity: f64);

    /// `y` is the baseline.
    fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, colour: Rgb, text: &str);

    /// A text that is read from below, and begins at the point.
    fn text_upwards(&mut self, x: f64, y: f64, size: f64, colour: Rgb, text: &str);
}

/// RGB pixels.
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    scale: f64,
    pixels: Vec<u8>,
}

/// The most pixels an image of this module may have: 192 MiB of memory.
const MOST: f64 = (64 << 20) as f64;

impl Canvas {
    /// A white canvas; an error where it would be too large to be looked at.
    pub(crate) fn new(width: f64, height: f64, scale: f64) -> Result<Self> {
        let (w, h) = ((width * scale).ceil().max(1.0), (height * scale).ceil().max(1.0));
        if !width.is_finite() || !height.is_finite() || w * h > MOST {
            let message = format!("a picture of {h}×{w} pixels is too large; show fewer rows");
            return Err(Error::argument("report", message));
        }
        let (width, height) = (w as usize, h as usize);
        Ok(Canvas { width, height, scale, pixels: vec![255; width * height * 3] })
    }

    /// An image fitted into a box, in the middle of it; the mean of the pixels that fall on one.
    pub(crate) fn image(&mut self, x: f64, y: f64, width: f64, height: f64, image: &Image) {
        let (w, h) = (image.width as f64, image.height as f64);
        let ratio = (width / w).min(height / h);
        let (left, top) = (x + (width - w * ratio) / 2.0, y + (height - h * ratio) / 2.0);
        let [left, top, right, bottom] = [left, top, left + w * ratio, top + h * ratio]
            .map(|v| (v * self.scale).round().max(0.0) as usize);
        let (columns, rows) = (right.saturating_sub(left).max(1), bottom.saturating_sub(top).max(1));
        // The pixels under target pixel `i` of `n`: at least one.
        let under = |i: usize, n: usize, of: usize| {
            let start = (i * of / n).min(of - 1);
            start..((i + 1) * of / n).clamp(start + 1, of)
        };
        for i in 0..rows.min(self.height.saturating_sub(top)) {
            for j in 0..columns.min(self.width.saturating_sub(left)) {
                let (ys, xs) = (under(i, rows, image.height), under(j, columns, image.width));
                let n = (ys.len() * xs.len()) as u32;
                let mut sums = [0u32; 3];
                for y in ys {
                    let row = &image.rgb[3 * (y * image.width + xs.start)..][..3 * xs.len()];
                    for pixel in row.chunks_exact(3) {
                        sums.iter_mut().zip(pixel).for_each(|(sum, &v)| *sum += v as u32);
                    }
                }
                let at = 3 * ((top + i) * self.width + left + j);
                let mean = sums.map(|sum| ((sum + n / 2) / n) as u8);
                self.pixels[at..at + 3].copy_from_slice(&mean);
            }
        }
    }

    /// Lines whose pieces may cross: what lies under several is covered once.
    fn stroke(&mut self, lines: &[Vec<(f64, f64)>], width: f64, colour: Rgb) {
        let scale = self.scale;
        let radius = (width * scale).max(1.0) / 2.0;
        let reach = radius + 1.0;
        let pixel = |&(x, y): &(f64, f64)| (x * scale, y * scale);
        let points: Vec<(f64, f64)> = lines.iter().flatten().map(pixel).collect();
        if points.is_empty() || points.iter().any(|p| !p.0.is_finite() || !p.1.is_finite()) {
            return;
        }
        let bounds = |of: fn(&(f64, f64)) -> f64, most: usize| {
            let low = points.iter().map(of).fold(f64::INFINITY, f64::min) - reach;
            let high = points.iter().map(of).fold(f64::NEG_INFINITY, f64::max) + reach;
            let clamp = |v: f64| v.clamp(0.0, most as f64) as usize;
            clamp(low.floor())..clamp(high.ceil() + 1.0)
        };
        let (xs, ys) = (bounds(|p| p.0, self.width), bounds(|p| p.1, self.height));
        let mut cover = vec![0.0f32; xs.len() * ys.len()];
        for line in lines {
            let line: Vec<(f64, f64)> = line.iter().map(pixel).collect();
            let pieces = if line.len() == 1 {
                vec![[line[0]; 2]]
            } else {
                line.windows(2).map(|pair| [pair[0], pair[1]]).collect()
            };
            for [a, b] in pieces {
                let near = |low: f64, high: f64, all: &std::ops::Range<usize>| {
                    let clamp = |v: f64| (v.max(0.0) as usize).clamp(all.start, all.end);
                    clamp((low - reach).floor())..clamp((high + reach).ceil() + 1.0)
                };
                for y in near(a.1.min(b.1), a.1.max(b.1), &ys) {
                    for x in near(a.0.min(b.0), a.0.max(b.0), &xs) {
                        let away = distance((x as f64 + 0.5, y as f64 + 0.5), a, b);
                        let share = (radius + 0.5 - away).clamp(0.0, 1.0) as f32;
                        let cell = &mut cover[(y - ys.start) * xs.len() + x - xs.start];
                        *cell = cell.max(share);
                    }
                }
            }
        }
        for (i, y) in ys.enumerate() {
            for (j, x) in xs.clone().enumerate() {
                let share = cover[i * xs.len() + j];
                if share > 0.0 {
                    let at = 3 * (y * self.width + x);
                    for (old, new) in self.pixels[at..at + 3].iter_mut().zip(colour) {
                        *old = (*old as f32 + share * (new as f32 - *old as f32)).round() as u8;
                    }
                }
            }
        }
    }

    pub(crate) fn into_image(self) -> Image {
        Image { height: self.height, width: self.width, rgb: self.pixels }
    }

    pub(crate) fn write_png(self, path: &Path) -> Result<()> {
        image_files::write_png(path, &self.into_image())
    }

    /// The bytes of a PNG file.
    pub(crate) fn png(self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        image_files::encode_png(&mut bytes, &self.into_image())
            .map_err(|error| Error::argument("report", error))?;
        Ok(bytes)
    }

    #[cfg(test)]
    pub(crate) fn at(&self, x: usize, y: usize) -> Rgb {
        let at = 3 * (y * self.width + x);
        [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]]
    }
}

/// From a point to the line between two others.
fn distance(p: (f64, f64), a: (f64, f64), b: (f64, f64)) -> f64 {
    let (along, to) = ((b.0 - a.0, b.1 - a.1), (p.0 - a.0, p.1 - a.1));
    let length = along.0 * along.0 + along.1 * along.1;
    let t =
        if length > 0.0 { ((to.0 * along.0 + to.1 * along.1) / length).clamp(0.0, 1.0) } else { 0.0 };
    (to.0 - t * along.0).hypot(to.1 - t * along.1)
}

impl Surface for Canvas {
    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Rgb) {
        self.shade(x, y, width, height, colour, 1.0);
    }

    fn shade(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Rgb, opacity: f64) {
        let edge = |v: f64, most: usize| (v * self.scale).round().clamp(0.0, most as f64) as usize;
        let (left, right) = (edge(x, self.width), edge(x + width, self.width));
        for row in edge(y, self.height)..edge(y + height, self.height) {
            let start = 3 * row * self.width;
            let pixels = self.pixels[start + 3 * left..start + 3 * right.max(left)].chunks_exact_mut(3);
            for pixel in pixels {
                for (old, new) in pixel.iter_mut().zip(colour) {
                    *old = (*old as f64 + opacity * (new as f64 - *old as f64)).round() as u8;
                }
            }
        }
    }

    fn line(&mut self, points: &[(f64, f64)], width: f64, colour: Rgb) {
        self.stroke(&[points.to_vec()], width, colour);
    }

    fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, colour: Rgb, text: &str) {
        let width = font::width(text) * size;
        let left = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        let place = |(dx, dy): (f64, f64)| (left + dx * size, y + dy * size);
        let strokes: Vec<Vec<(f64, f64)>> =
            font::strokes(text).into_iter().map(|line| line.into_iter().map(place).collect()).collect();
        self.stroke(&strokes, size * 0.085, colour);
    }

    fn text_upwards(&mut self, x: f64, y: f64, size: f64, colour: Rgb, text: &str) {
        let place = |(dx, dy): (f64, f64)| (x + dy * size, y - dx * size);
        let strokes: Vec<Vec<(f64, f64)>> =
            font::strokes(text).into_iter().map(|line| line.into_iter().map(place).collect()).collect();
        self.stroke(&strokes, size * 0.085, colour);
    }
}

/// An SVG document; texts are in the reader's own sans serif.
pub(crate) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Svg { body: String::new(), width, height }
    }

    /// The whole document; `label` says what it shows to those who cannot see it.
    pub(crate) fn document(&self, label: &str) -> String {
        let Svg { body, width, height } = self;
        let label = escaped(label).replace('"', "&quot;");
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{label}\" \
             font-family=\"Helvetica, Arial, sans-serif\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }

    pub(crate) fn write(&self, path: &Path, label: &str) -> Result<()> {
        write_atomically(path, |file| file.write_all(self.document(label).as_bytes()))
    }
}

fn hex([r, g, b]: Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn escaped(text: &str) -> String {
    // What XML cannot hold at all is left out.
    let text: String =
        text.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Writing to a `String` cannot fail.
impl Surface for Svg {
    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Rgb) {
        let fill = hex(colour);
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.2}" y="{y:.2}" width="{width:.2}" height="{height:.2}" fill="{fill}"/>"#
        );
    }

    fn shade(&mut self, x: f64, y: f64, width: f64, height: f64, colour: Rgb, opacity: f64) {
        let fill = hex(colour);
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" \
             fill=\"{fill}\" fill-opacity=\"{opacity:.3}\"/>"
        );
    }

    fn line(&mut self, points: &[(f64, f64)], width: f64, colour: Rgb) {
        let mut path = String::new();
        for (i, (x, y)) in points.iter().enumerate() {
            let _ = write!(path, "{}{x:.2} {y:.2}", if i == 0 { "M" } else { "L" });
        }
        if let [(x, y)] = points {
            let _ = write!(path, "L{x:.2} {y:.2}");
        }
        let stroke = hex(colour);
        let _ = writeln!(
            self.body,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{stroke}\" stroke-width=\"{width}\" \
             stroke-linecap=\"round\" stroke-linejoin=\"round\"/>"
        );
    }

    fn text(&mut self, x: f64, y: f64, size: f64, anchor: Anchor, colour: Rgb, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (fill, text) = (hex(colour), escaped(text));
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.2}\" y=\"{y:.2}\" font-size=\"{size}\" text-anchor=\"{anchor}\" \
             fill=\"{fill}\">{text}</text>"
        );
    }

    fn text_upwards(&mut self, x: f64, y: f64, size: f64, colour: Rgb, text: &str) {
        let (fill, text) = (hex(colour), escaped(text));
        let _ = writeln!(
            self.body,
            "<text transform=\"translate({x:.2} {y:.2}) rotate(-90)\" font-size=\"{size}\" \
             fill=\"{fill}\">{text}</text>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INK: Rgb = [10, 20, 30];

    #[test]
    fn a_thick_line_covers_what_is_near_it_and_nothing_else() {
        let mut canvas = Canvas::new(20.0, 10.0, 2.0).unwrap();
        canvas.line(&[(3.0, 5.0), (17.0, 5.0)], 2.0, INK);
        for y in 0..20 {
            for x in 0..40 {
                let away = distance((x as f64 + 0.5, y as f64 + 0.5), (6.0, 10.0), (34.0, 10.0));
                match away {
                    d if d < 1.5 => assert_eq!(canvas.at(x, y), INK, "{x}, {y}"),
                    d if d > 2.5 => assert_eq!(canvas.at(x, y), [255; 3], "{x}, {y}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_reaches_beyond_the_canvas_is_cut_off() {
        let mut canvas = Canvas::new(8.0, 8.0, 1.0).unwrap();
        canvas.line(&[(-50.0, 4.0), (50.0, 4.0)], 3.0, INK);
        canvas.rectangle(6.0, -5.0, 40.0, 6.0, INK);
        canvas.text(6.0, 7.0, 12.0, Anchor::Start, INK, "over");
        canvas.line(&[(f64::NAN, 0.0)], 1.0, INK);
        let image = Image::new(1, 1, vec![9; 3]).unwrap();
        canvas.image(5.0, 5.0, 50.0, 50.0, &image);
        assert_eq!((canvas.at(0, 4), canvas.at(7, 0), canvas.at(0, 0)), (INK, INK, [255; 3]));
    }

    #[test]
    fn a_image_keeps_its_proportions_and_its_mean() {
        // 2 high, 4 wide, black and white in turn, into a square: grey, in the middle.
        let rgb = (0..8).flat_map(|i| [if i % 2 == 0 { 0 } else { 255 }; 3]).collect();
        let mut canvas = Canvas::new(2.0, 2.0, 1.0).unwrap();
        canvas.image(0.0, 0.0, 2.0, 2.0, &Image::new(2, 4, rgb).unwrap());
        let grey = [128; 3];
        let rows: Vec<Vec<Rgb>> = (0..2).map(|y| (0..2).map(|x| canvas.at(x, y)).collect()).collect();
        assert!(
            rows == [vec![grey; 2], vec![[255; 3]; 2]] || rows == [vec![[255; 3]; 2], vec![grey; 2]]
        );
    }

    #[test]
    fn a_text_is_anchored_where_it_is_told() {
        for (anchor, expected) in [(Anchor::Start, 50), (Anchor::Middle, 40), (Anchor::End, 30)] {
            let mut canvas = Canvas::new(100.0, 30.0, 1.0).unwrap();
            let size = 20.0 / font::width("HHH");
            canvas.text(50.0, 20.0, size, anchor, INK, "HHH");
            let inked = (0..100).find(|&x| (0..30).any(|y| canvas.at(x, y) != [255; 3])).unwrap();
            assert!((expected - 2..=expected).contains(&inked), "{anchor:?}: {inked}");
        }
    }

    #[test]
    fn a_text_upwards_takes_as_much_height_as_a_level_one_takes_width() {
        let mut canvas = Canvas::new(40.0, 100.0, 1.0).unwrap();
        let size = 40.0 / font::width("HHHHH");
        canvas.text_upwards(20.0, 80.0, size, INK, "HHHHH");
        let inked = |y: usize| (0..40).any(|x| canvas.at(x, y) != [255; 3]);
        let rows: Vec<usize> = (0..100).filter(|&y| inked(y)).collect();
        assert!((38..=41).contains(&rows[0]) && (79..=82).contains(&rows[rows.len() - 1]), "{rows:?}");
    }

    #[test]
    fn a_shade_lets_what_is_below_shine_through() {
        let mut canvas = Canvas::new(4.0, 1.0, 1.0).unwrap();
        canvas.shade(0.0, 0.0, 2.0, 1.0, [0; 3], 0.5);
        assert_eq!([canvas.at(0, 0), canvas.at(3, 0)], [[128; 3], [255; 3]]);
    }

    #[test]
    fn an_enormous_canvas_is_an_error() {
        assert!(Canvas::new(1e5, 1e5, 1.0).is_err() && Canvas::new(f64::NAN, 1.0, 1.0).is_err());
    }

    #[test]
    fn svg_text_is_escaped() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text(0.0, 0.0, 9.0, Anchor::End, INK, "a<b & c>d\u{0}");
        assert!(svg.body.contains("a&lt;b &amp; c&gt;d</text>"), "{}", svg.body);
        assert!(svg.body.contains("#0a141e"));
    }
}
