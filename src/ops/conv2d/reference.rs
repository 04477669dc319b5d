//! The definition, loop by loop. Slow, and the truth.

use super::Conv2dGeometry;
use crate::tensor::Real;

/// Calls `f(output pixel, input pixel, tap)` for every tap of every window that falls inside the
/// image; pixels are counted over the whole batch.
fn for_each_tap(g: &Conv2dGeometry, mut f: impl FnMut(usize, usize, usize)) {
    let inside = |o: usize, k: usize, axis: usize| {
        let i = (o * g.stride[axis] + k * g.dilation[axis]).checked_sub(g.pad[axis])?;
        (i < g.input[axis]).then_some(i)
    };
    for n in 0..g.batch {
        for oy in 0..g.output[0] {
            for ox in 0..g.output[1] {
                let output = (n * g.output[0] + oy) * g.output[1] + ox;
                for ky in 0..g.kernel[0] {
                    let Some(iy) = inside(oy, ky, 0) else { continue };
                    for kx in 0..g.kernel[1] {
                        let Some(ix) = inside(ox, kx, 1) else { continue };
                        f(output, (n * g.input[0] + iy) * g.input[1] + ix, ky * g.kernel[1] + kx);
                    }
                }
            }
        }
    }
}

pub fn forward<T: Real>(g: &Conv2dGeometry, x: &[T], w: &[T], b: Option<&[T]>, y: &mut [T]) {
    let (c, f) = (g.in_channels, g.out_channels);
    for row in y.chunks_mut(f) {
        match b {
            Some(b) => row.copy_from_slice(b),
            None => row.fill(T::ZERO),
        }
    }
    for_each_tap(g, |output, input, tap| {
        let row = &mut y[output * f..][..f];
        for (ci, &value) in x[input * c..][..c].iter().enumerate() {
            let weights = &w[(tap * c + ci) * f..][..f];
            row.iter_mut().zip(weights).for_each(|(y, &w)| *y += value * w);
        }
    });
}

pub fn input_gradient<T: Real>(g: &Conv2dGeometry, dy: &[T], w: &[T], dx: &mut [T]) {
    let (c, f) = (g.in_channels, g.out_channels);
    dx.fill(T::ZERO);
    for_each_tap(g, |output, input, tap| {
        let row = &dy[output * f..][..f];
        for (ci, dx) in dx[input * c..][..c].iter_mut().enumerate() {
            let weights = &w[(tap * c + ci) * f..][..f];
            // Four sums side by side, so that the additions need not wait for one another.
            let mut sums = [T::ZERO; 4];
            for (dy, w) in row.chunks(4).zip(weights.chunks(4)) {
                for ((sum, &dy), &w) in sums.iter_mut().zip(dy).zip(w) {
                    *sum += dy * w;
                }
            }
            *dx += (sums[0] + sums[1]) + (sums[2] + sums[3]);
        }
    });
}

pub fn kernel_gradient<T: Real>(g: &Conv2dGeometry, dy: &[T], x: &[T], dw: &mut [T]) {
    let (c, f) = (g.in_channels, g.out_channels);
    dw.fill(T::ZERO);
    for_each_tap(g, |output, input, tap| {
        let row = &dy[output * f..][..f];
        for (ci, &value) in x[input * c..][..c].iter().enumerate() {
            let weights = &mut dw[(tap * c + ci) * f..][..f];
            weights.iter_mut().zip(row).for_each(|(w, &dy)| *w += value * dy);
        }
    });
}
