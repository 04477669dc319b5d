//! Which input pixels an output pixel is made of, and which outputs an input pixel goes to.

use crate::nn::layers::Layer;
use crate::ops::{Method, Padding, PoolOptions, span};

/// The windows of a convolution or a pool: `[y, x]` on each axis.
///
/// ```
/// use atrous::explain::pixel::{Tap, Windows};
/// use atrous::prelude::*;
///
/// let layer = Layer::conv2d(1, 3).with_padding(Padding::Same);
/// let windows = Windows::of(&layer, [5, 5, 1], [5, 5, 1]).unwrap();
/// let corner = windows.taps(0, 0);
/// assert_eq!(corner.len(), 4); // the others lie in the padding
/// assert_eq!(corner[0], Tap { ky: 1, kx: 1, y: 0, x: 0 });
/// assert_eq!(windows.outputs(2, 2).len(), 9); // a pixel in the middle goes into nine windows
/// assert_eq!(Windows::of(&Layer::Flatten, [5, 5, 1], [1, 1, 25]), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Windows {
    /// Taps a window.
    pub kernel: [usize; 2],
    /// Input pixels from one window to the next.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Cells of padding before the first pixel.
    pub before: [usize; 2],
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
}

/// A tap of a window, and the pixel at its other end: of the input, or of the output.
///
/// [`Windows`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its place in the kernel.
    pub ky: usize,
    /// Its place in the kernel.
    pub kx: usize,
    /// Row of the pixel.
    pub y: usize,
    /// Column of the pixel.
    pub x: usize,
}

impl Windows {
    /// Those of a layer that has some, for its input's and output's `[H, W, C]`.
    pub fn of(layer: &Layer, input: [usize; 3], output: [usize; 3]) -> Option<Self> {
        let (kernel, stride, dilation, padding) = match *layer {
            Layer::Conv2D(l) => (l.kernel, l.stride, l.dilation, l.padding),
            Layer::DepthwiseConv2D(l) => (l.kernel, l.stride, l.dilation, l.padding),
            Layer::MaxPooling2D(PoolOptions { pool, stride, padding })
            | Layer::AveragePooling2D(PoolOptions { pool, stride, padding }) => {
                (pool, stride, [1, 1], padding)
            }
            // One window, as large as the image.
            Layer::GlobalAveragePooling2D | Layer::GlobalMaxPooling2D => {
                ([input[0], input[1]], [1, 1], [1, 1], Padding::Valid)
            }
            _ => return None,
        };
        let before = |axis: usize| {
            let window = span(kernel[axis], dilation[axis]).ok()?;
            padding.resolve(input[axis], window, stride[axis]).ok().map(|(_, before, _)| before)
        };
        Some(Windows {
            kernel,
            stride,
            dilation,
            before: [before(0)?, before(1)?],
            input: [input[0], input[1]],
            output: [output[0], output[1]],
        })
    }

    /// The taps of an output pixel's window that lie on the image, with their input pixels.
    pub fn taps(&self, y: usize, x: usize) -> Vec<Tap> {
        let at = |axis: usize, o: usize, k: usize| {
            let i = (o * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.before[axis])?;
            (i < self.input[axis]).then_some(i)
        };
        self.each_tap(|ky, kx| Some(Tap { ky, kx, y: at(0, y, ky)?, x: at(1, x, kx)? }))
    }

    /// The taps by which an input pixel goes into windows, with the output pixels of these.
    pub fn outputs(&self, y: usize, x: usize) -> Vec<Tap> {
        let at = |axis: usize, i: usize, k: usize| {
            let start = (i + self.before[axis]).checked_sub(k * self.dilation[axis])?;
            let whole = start.is_multiple_of(self.stride[axis]);
            let o = start / self.stride[axis];
            (whole && o < self.output[axis]).then_some(o)
        };
        self.each_tap(|ky, kx| Some(Tap { ky, kx, y: at(0, y, ky)?, x: at(1, x, kx)? }))
    }

    fn each_tap(&self, tap: impl Fn(usize, usize) -> Option<Tap>) -> Vec<Tap> {
        let [kh, kw] = self.kernel;
        (0..kh)
            .flat_map(|ky| (0..kw).map(move |kx| (ky, kx)))
            .filter_map(|(ky, kx)| tap(ky, kx))
            .collect()
    }
}

/// Along one axis of an upsampling: for each output, the inputs it lies between and their weights.
///
/// ```
/// use atrous::explain::pixel::interpolation;
///
/// let between = [vec![(0, 0.75), (1, 0.25)], vec![(0, 0.25), (1, 0.75)]];
/// assert_eq!(interpolation(2, 4)[1..3], between);
/// ```
pub fn interpolation(input: usize, output: usize) -> Vec<Vec<(usize, f64)>> {
    let taps = Method::Bilinear.taps::<f32>(input, output);
    let weights = taps.into_iter().map(|tap| {
        let t = f64::from(tap.t);
        match tap.low == tap.high || t == 0.0 {
            true => vec![(tap.low, 1.0)],
            false => vec![(tap.low, 1.0 - t), (tap.high, t)],
        }
    });
    weights.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_pixel_goes_to_the_windows_that_hold_it() {
        let atrous = Layer::conv2d(1, 3).with_padding(Padding::Same).with_dilation(6);
        let strided = Layer::depthwise_conv2d().with_stride(2);
        let pool = Layer::max_pooling2d(3).with_stride(2);
        for (layer, output) in [(atrous, [14, 14]), (strided, [7, 7]), (pool, [6, 6])] {
            let windows = Windows::of(&layer, [14, 14, 1], [output[0], output[1], 1]).unwrap();
            let mut forward = Vec::new();
            for (y, x) in (0..output[0]).flat_map(|y| (0..output[1]).map(move |x| (y, x))) {
                forward.extend(windows.taps(y, x).iter().map(|t| (t.ky, t.kx, t.y, t.x, y, x)));
            }
            let mut backward = Vec::new();
            for (y, x) in (0..14).flat_map(|y| (0..14).map(move |x| (y, x))) {
                backward.extend(windows.outputs(y, x).iter().map(|t| (t.ky, t.kx, y, x, t.y, t.x)));
            }
            forward.sort_unstable();
            backward.sort_unstable();
            assert_eq!(forward, backward);
            assert!(forward.len() > output[0] * output[1]);
        }
    }

    #[test]
    fn interpolation_weights_sum_to_one_and_hold_at_the_border() {
        for (input, output) in [(1, 14), (4, 16), (56, 224)] {
            let all = interpolation(input, output);
            assert!(all.iter().all(|taps| (taps.iter().map(|t| t.1).sum::<f64>() - 1.0).abs() < 1e-7));
            assert_eq!((&all[0][..], &all[output - 1][..]), (&[(0, 1.0)][..], &[(input - 1, 1.0)][..]));
        }
    }
}
