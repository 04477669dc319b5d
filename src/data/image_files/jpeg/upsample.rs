//! Rows of a component at the image's full size. Where a side was halved, three parts of the nearer
//! sample and one of the farther are mixed, as libjpeg's "fancy upsampling" does, to the bit; else
//! samples are repeated.

use super::transform::Plane;

/// Writes row `row` of the image. `ratio`: how much smaller the component is, vertically and
/// horizontally. `out` has room for all of the component's samples so often.
pub(super) fn row(plane: &Plane, [high, wide]: [usize; 2], row: usize, out: &mut [u8]) {
    let near = plane.row(row / high);
    // Images of a sample or two are too narrow to be mixed.
    let mixed = plane.width > 2;
    match (high, wide) {
        (1, 1) => out[..plane.width].copy_from_slice(near),
        (1, 2) if mixed => {
            let value = |i: usize| u32::from(near[i]);
            doubled(plane.width, value, 1, [1, 2], out);
        }
        (2, 1) => {
            let bias = 1 + row as u32 % 2;
            for (out, (&near, &far)) in out.iter_mut().zip(near.iter().zip(farther(plane, row))) {
                *out = ((3 * u32::from(near) + u32::from(far) + bias) >> 2) as u8;
            }
        }
        (2, 2) if mixed => {
            let far = farther(plane, row);
            let value = |i: usize| 3 * u32::from(near[i]) + u32::from(far[i]);
            doubled(plane.width, value, 4, [8, 7], out);
        }
        _ => {
            for (out, &value) in out.chunks_mut(wide).zip(near) {
                out.fill(value);
            }
        }
    }
}

/// The second nearest row of a component of half the height.
fn farther(plane: &Plane, row: usize) -> &[u8] {
    plane.row(if row.is_multiple_of(2) { (row / 2).saturating_sub(1) } else { row / 2 + 1 })
}

/// Twice as many values as `value` has, divided by 4 times `unit`; `bias` rounds even and odd ones.
fn doubled(count: usize, value: impl Fn(usize) -> u32, unit: u32, bias: [u32; 2], out: &mut [u8]) {
    let shift = 2 + unit.trailing_zeros();
    for (i, pair) in out.chunks_exact_mut(2).take(count).enumerate() {
        let near = 3 * value(i);
        pair[0] = ((near + value(i.saturating_sub(1)) + bias[0]) >> shift) as u8;
        pair[1] = ((near + value((i + 1).min(count - 1)) + bias[1]) >> shift) as u8;
    }
}
