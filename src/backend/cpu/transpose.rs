//! Short rows, sixteen at a time: turned so that each column is sixteen lanes that lie next to each other.
//! What is done along a row (a maximum, a sum) is then done lane by lane, and no vector is left part empty
//! by a row of 21.

use super::math;
use super::simd::Vector;

/// Rows in a group.
pub const ROWS: usize = 16;

/// Rows up to this long are turned: a group and what is made of it stay in L1, and longer rows fill vectors
/// of their own well enough.
const LONGEST: usize = 64;

/// Where elements go, for rows of one length.
pub struct TransposedRows {
    columns: usize,
    /// Of the first column's lanes in the rows.
    lanes: [u32; ROWS],
    /// Of the rows' elements in the columns.
    rows: Vec<u32>,
}

impl TransposedRows {
    /// None where rows are too long for it (or empty).
    pub fn new(columns: usize) -> Option<Self> {
        if columns == 0 || columns > LONGEST {
            return None;
        }
        let rows = (0..ROWS * columns).map(|i| (i % columns * ROWS + i / columns) as u32);
        let lanes = std::array::from_fn(|row| (row * columns) as u32);
        Some(TransposedRows { columns, lanes, rows: rows.collect() })
    }

    /// Turns the rows of the inputs, all alike, in groups: `f` gets the number of a group's first row and
    /// its columns of each input, and what it leaves in those of the first one goes into the rows of `out`.
    /// The last group is filled up with rows of zeros.
    ///
    /// Mark the closure `#[inline(always)]`: compiled by itself it would not have the instruction set.
    ///
    /// # Safety
    /// Inside [`super::simd::dispatch`] of the vector's instruction set.
    #[inline(always)]
    pub unsafe fn each<V: Vector, const N: usize>(
        &self,
        inputs: [&[f32]; N],
        mut out: Option<&mut [f32]>,
        mut f: impl FnMut(usize, [&mut [[f32; ROWS]]; N]),
    ) {
        let group = ROWS * self.columns;
        let mut columns = [[[0.0f32; ROWS]; LONGEST]; N];
        let mut columns = columns.each_mut().map(|columns| &mut columns[..self.columns]);
        let length = inputs[0].len();
        for start in (0..length / group * group).step_by(group) {
            for (columns, input) in columns.iter_mut().zip(inputs) {
                // SAFETY: by the caller's contract.
                unsafe { self.columns::<V>(&input[start..start + group], columns) };
            }
            f(start / self.columns, columns.each_mut().map(|columns| &mut **columns));
            if let Some(out) = &mut out {
                // SAFETY: by the caller's contract.
                unsafe { self.rows::<V>(columns[0], &mut out[start..start + group]) };
            }
        }
        let (start, rest) = (length / group * group, length % group);
        if rest > 0 {
            let mut rows = [0.0f32; ROWS * LONGEST];
            for (columns, input) in columns.iter_mut().zip(inputs) {
                rows[..rest].copy_from_slice(&input[start..]);
                // SAFETY: by the caller's contract.
                unsafe { self.columns::<V>(&rows[..group], columns) };
            }
            f(start / self.columns, columns.each_mut().map(|columns| &mut **columns));
            if let Some(out) = &mut out {
                // SAFETY: by the caller's contract.
                unsafe { self.rows::<V>(columns[0], &mut rows[..group]) };
                out[start..].copy_from_slice(&rows[..rest]);
            }
        }
    }

    /// Sixteen rows into columns: squares in registers, which take half the time, and what is left of the
    /// columns element by element.
    ///
    /// # Safety
    /// Inside [`super::simd::dispatch`] of the vector's instruction set.
    #[inline(always)]
    unsafe fn columns<V: Vector>(&self, rows: &[f32], columns: &mut [[f32; ROWS]]) {
        assert!(rows.len() == ROWS * self.columns && columns.len() == self.columns);
        let squares = self.columns / V::LANES * V::LANES;
        for half in (0..ROWS).step_by(V::LANES) {
            for j in (0..squares).step_by(V::LANES) {
                // SAFETY: LANES elements of each row from `half` on, and lanes of each column from j on.
                unsafe {
                    let from = rows.as_ptr().add(half * self.columns + j);
                    let to = columns.as_mut_ptr().cast::<f32>().add(j * ROWS + half);
                    transpose_tile::<V>(from, self.columns, V::LANES, to, ROWS);
                }
            }
            for (j, lanes) in columns.iter_mut().enumerate().skip(squares) {
                // SAFETY: row r's offset and j together are below ROWS · columns.
                unsafe {
                    let at = self.lanes.as_ptr().add(half);
                    V::gather(rows.as_ptr().add(j), at).store(lanes.as_mut_ptr().add(half));
                }
            }
        }
    }

    /// The way back.
    ///
    /// # Safety
    /// As [`TransposedRows::columns`].
    #[inline(always)]
    unsafe fn rows<V: Vector>(&self, columns: &[[f32; ROWS]], rows: &mut [f32]) {
        assert!(rows.len() == ROWS * self.columns && columns.len() == self.columns);
        if let Some(last) = self.columns.checked_sub(V::LANES) {
            for half in (0..ROWS).step_by(V::LANES) {
                // Squares; the last one begins early enough to be whole.
                for j in (0..self.columns).step_by(V::LANES) {
                    let j = j.min(last);
                    // SAFETY: lanes of each column from j on, and LANES elements of each row from `half` on.
                    unsafe {
                        let from = columns.as_ptr().cast::<f32>().add(j * ROWS + half);
                        let to = rows.as_mut_ptr().add(half * self.columns + j);
                        transpose_tile::<V>(from, ROWS, V::LANES, to, self.columns);
                    }
                }
            }
            return;
        }
        for i in (0..ROWS * self.columns).step_by(V::LANES) {
            // SAFETY: all offsets are below ROWS · columns, which is a multiple of the lanes.
            unsafe {
                let at = self.rows.as_ptr().add(i);
                V::gather(columns.as_ptr().cast(), at).store(rows.as_mut_ptr().add(i));
            }
        }
    }
}

/// Turns a square of as many rows as a vector has lanes, of which the first `count` are there and the others
/// zero: from rows `from_step` floats apart to columns `to_step` floats apart.
///
/// # Safety
/// Inside [`super::simd::dispatch`] of the vector's instruction set; a vector in each of the `count` rows
/// and in each of LANES columns.
#[inline(always)]
pub unsafe fn transpose_tile<V: Vector>(
    from: *const f32,
    from_step: usize,
    count: usize,
    to: *mut f32,
    to_step: usize,
) {
    // SAFETY: by the caller's contract.
    unsafe {
        let mut square = [V::splat(0.0); ROWS];
        for (row, vector) in square[..count.min(V::LANES)].iter_mut().enumerate() {
            *vector = V::load(from.add(row * from_step));
        }
        // Rows i and i + half in turn, as often as it takes to halve their number to one, turn a square.
        for _ in 0..V::LANES.ilog2() {
            let rows = square;
            for i in 0..V::LANES / 2 {
                let (a, b) = rows[i].interleave(rows[i + V::LANES / 2]);
                (square[2 * i], square[2 * i + 1]) = (a, b);
            }
        }
        for (column, vector) in square[..V::LANES].iter().enumerate() {
            vector.store(to.add(column * to_step));
        }
    }
}

/// e^(x − m) in the place of x, with m the largest x of each row; m, and the sum of each row.
///
/// # Safety
/// Inside [`super::simd::dispatch`] of the vector's instruction set.
#[inline(always)]
pub unsafe fn exp_and_sum<V: Vector>(x: &mut [[f32; ROWS]]) -> ([f32; ROWS], [f32; ROWS]) {
    let (mut largest, mut total) = ([0.0f32; ROWS], [0.0f32; ROWS]);
    for half in (0..ROWS).step_by(V::LANES) {
        // SAFETY: a vector's lanes from `half` on are within the sixteen.
        unsafe {
            // Four at a time, as each waits for the one before. (Of a NaN and a number the second is taken:
            // m may be a number where there is a NaN. The sum is not.)
            let mut most = [V::load(x[0].as_ptr().add(half)); 4];
            for four in x.chunks(4) {
                for (x, most) in four.iter().zip(&mut most) {
                    *most = V::load(x.as_ptr().add(half)).max(*most);
                }
            }
            let [a, b, c, d] = most;
            let m = a.max(b).max(c.max(d));
            m.store(largest.as_mut_ptr().add(half));
            let mut sum = V::splat(0.0);
            for x in &mut *x {
                let at = x.as_mut_ptr().add(half);
                let e = math::exp_lanes(V::load(at).sub(m));
                sum = sum.add(e);
                e.store(at);
            }
            sum.store(total.as_mut_ptr().add(half));
        }
    }
    (largest, total)
}

/// Multiplies each row.
#[inline(always)]
pub fn scale(x: &mut [[f32; ROWS]], by: &[f32; ROWS]) {
    for x in x {
        (0..ROWS).for_each(|r| x[r] *= by[r]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Kernel, dispatch, supported};
    use super::*;

    /// Adds the row's number to every element of a, and the element of b.
    struct AddRow<'a>(&'a TransposedRows, [&'a [f32]; 2], &'a mut [f32]);
    impl Kernel for AddRow<'_> {
        type Output = ();
        #[inline(always)]
        fn run<V: Vector>(self) {
            // SAFETY: inside `dispatch`.
            unsafe {
                self.0.each::<V, 2>(
                    self.1,
                    Some(self.2),
                    #[inline(always)]
                    |first, [a, b]| {
                        for (a, b) in a.iter_mut().zip(b) {
                            (0..ROWS).for_each(|r| a[r] += b[r] + (first + r) as f32);
                        }
                    },
                )
            };
        }
    }

    #[test]
    fn rows_come_back_where_they_were_whatever_their_number_and_length() {
        for isa in supported() {
            for columns in [1, 2, 7, 16, 21, 64] {
                let turn = TransposedRows::new(columns).unwrap();
                for rows in [0, 1, 15, 16, 17, 48, 53] {
                    let a: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
                    let b: Vec<f32> = (0..rows * columns).map(|i| (i * i % 17) as f32).collect();
                    let mut out = vec![-1.0; rows * columns];
                    dispatch(isa, AddRow(&turn, [&a, &b], &mut out));
                    for (i, &y) in out.iter().enumerate() {
                        assert_eq!(y, a[i] + b[i] + (i / columns) as f32, "{isa:?} {rows} of {columns}");
                    }
                }
            }
        }
        assert!(TransposedRows::new(0).is_none() && TransposedRows::new(LONGEST + 1).is_none());
    }
}
