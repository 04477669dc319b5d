//! Tensors as text: NumPy's layout with 4 digits (`np.set_printoptions(precision=4)`).
//!
//! Rows stand under each other and columns are aligned; numbers have at most four digits after the point
//! (`{:.2}` asks for two) and no zeros at their end (but with exponents as many digits as the one that needs
//! most); all are written with an exponent where the absolute
//! value of one (zeros aside) is 10⁸ or more, below 10⁻⁴, or more than a thousand times that of another.
//! `nan` and `inf` are right-aligned with the numbers' last digits. Of more than a thousand elements the
//! first and last three of each axis are shown, and without elements it is `[]`, however long the other axes
//! are.

use super::{DType, Tensor};
use crate::device::Device;
use std::fmt;

/// More elements than this are summarised.
const THRESHOLD: usize = 1000;
/// Elements shown at each end of a summarised axis.
const EDGE: usize = 3;
/// Characters in a line, at most.
const WIDTH: usize = 75;
/// Digits after the point.
const PRECISION: usize = 4;

impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let here = match self.on_cpu() {
            Ok(here) => here,
            Err(error) => return write!(f, "({error})"),
        };
        if here.shape().elements() == 0 {
            return f.write_str("[]");
        }
        let axes = here.shape().to_vec();
        let summarised = here.shape().elements() > THRESHOLD;
        let values: Vec<f64> = shown(&axes, summarised).into_iter().map(|at| here.at(at)).collect();
        let format = match here.dtype() {
            DType::U8 => Format::whole(&values),
            _ => Format::of(&values, f.precision().unwrap_or(PRECISION)),
        };
        let mut words = values.iter().map(|&value| format.write(value));
        f.write_str(&nested(&axes, summarised, &mut words, 1, WIDTH))
    }
}

/// `Tensor [2×3] F32`, the device if it is not the CPU, and the values.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor {} {:?}", self.shape(), self.dtype())?;
        if self.device() != Device::Cpu {
            write!(f, " on {}", self.device())?;
        }
        let separator = if self.shape().rank() > 1 && self.shape().elements() > 0 { "\n" } else { " " };
        write!(f, "{separator}{self}")
    }
}

impl Tensor {
    /// One element of a tensor in the CPU's memory.
    fn at(&self, index: usize) -> f64 {
        match self.dtype() {
            DType::F32 => self.values::<f32>()[index] as f64,
            DType::F64 => self.values::<f64>()[index],
            DType::U8 => self.as_u8().map_or(0.0, |values| values[index] as f64),
        }
    }
}

/// The positions along an axis that are shown.
fn positions(length: usize, summarised: bool) -> Vec<usize> {
    if summarised && length > 2 * EDGE {
        (0..EDGE).chain(length - EDGE..length).collect()
    } else {
        (0..length).collect()
    }
}

/// The elements that are shown, in the order in which they are read.
fn shown(axes: &[usize], summarised: bool) -> Vec<usize> {
    axes.iter().fold(vec![0], |outer, &length| {
        let inner = positions(length, summarised);
        outer.iter().flat_map(|&at| inner.iter().map(move |&i| at * length + i)).collect()
    })
}

/// The words in as many brackets as there are axes. `indent` is the column of the first word, `width` the
/// characters a line may have, less the brackets that close after this one.
fn nested(
    axes: &[usize],
    summarised: bool,
    words: &mut dyn Iterator<Item = String>,
    indent: usize,
    width: usize,
) -> String {
    let Some((&length, inner)) = axes.split_first() else { return words.next().unwrap_or_default() };
    let count = positions(length, summarised).len();
    let mut items = Vec::new();
    for i in 0..count {
        if count < length && i == EDGE {
            items.push("...".to_string());
        }
        items.push(nested(inner, summarised, words, indent + 1, width - 1));
    }
    let margin = " ".repeat(indent);
    if inner.is_empty() {
        format!("[{}]", wrapped(&items, &margin, width - 1))
    } else {
        format!("[{}]", items.join(&format!("{}{margin}", "\n".repeat(inner.len()))))
    }
}

/// Words with spaces between them, in lines of at most `width` characters, each after a margin.
fn wrapped(words: &[String], margin: &str, width: usize) -> String {
    let (mut text, mut column) = (String::new(), margin.len());
    for (i, word) in words.iter().enumerate() {
        let length = word.chars().count();
        if i > 0 && column + 1 + length > width {
            text.push('\n');
            text.push_str(margin);
            column = margin.len();
        } else if i > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

/// How all numbers of a tensor are written: in columns of one width.
struct Format {
    scientific: bool,
    /// Digits after the point at most.
    digits: usize,
    /// Characters before the point, and from it on.
    widths: [usize; 2],
}

impl Format {
    /// For u8.
    fn whole(values: &[f64]) -> Self {
        let longest = values.iter().map(|value| value.to_string().len()).max();
        Format { scientific: false, digits: 0, widths: [longest.unwrap_or(1), 0] }
    }

    fn of(values: &[f64], precision: usize) -> Self {
        let finite = values.iter().filter(|value| value.is_finite());
        let sizes = finite.clone().map(|value| value.abs()).filter(|&size| size > 0.0);
        let (least, most) =
            sizes.fold((f64::INFINITY, 0.0f64), |(least, most), x| (least.min(x), most.max(x)));
        let scientific = most > 0.0 && (most >= 1e8 || least < 1e-4 || most / least > 1000.0);
        let mut format = Format { scientific, digits: precision, widths: [0, 1] };
        // With exponents all have as many digits as the one that needs most.
        let needed = finite.clone().map(|&value| format.parts(value)[1].trim_end_matches('0').len());
        let needed = needed.max().unwrap_or(1).saturating_sub(1);
        if scientific {
            format.digits = needed;
        }
        for &value in finite {
            let [before, after] = format.parts(value);
            let after = if scientific { after.len() } else { after.trim_end_matches('0').len() };
            format.widths = [format.widths[0].max(before.len()), format.widths[1].max(after)];
        }
        // `nan` and `inf` end where the numbers do.
        for &value in values.iter().filter(|value| !value.is_finite()) {
            let length = special(value).len();
            format.widths[0] = format.widths[0].max(length.saturating_sub(format.widths[1]));
        }
        format
    }

    /// The text of a finite number before its point and from the point on, without exponent.
    fn parts(&self, value: f64) -> [String; 2] {
        let digits = self.digits;
        let text =
            if self.scientific { format!("{value:.digits$e}") } else { format!("{value:.digits$}") };
        let mantissa = text.split('e').next().unwrap_or_default();
        let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        [before.to_string(), format!(".{after}")]
    }

    fn write(&self, value: f64) -> String {
        let [before, after] = self.widths;
        if after == 0 {
            return format!("{value:>before$}");
        }
        // `e+05`; from 1e100 on there is a digit more, and the column is not aligned.
        let exponent = if self.scientific { 4 } else { 0 };
        if !value.is_finite() {
            return format!("{:>1$}", special(value), before + after + exponent);
        }
        let [whole, rest] = self.parts(value);
        if self.scientific {
            format!("{whole:>before$}{rest}{}", exponent_of(value, self.digits))
        } else {
            format!("{whole:>before$}{:<after$}", rest.trim_end_matches('0'))
        }
    }
}

/// `nan`, `inf` or `-inf`.
fn special(value: f64) -> &'static str {
    match value {
        _ if value.is_nan() => "nan",
        _ if value > 0.0 => "inf",
        _ => "-inf",
    }
}

/// `e+05`
fn exponent_of(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    let exponent: i32 = text.split('e').next_back().and_then(|power| power.parse().ok()).unwrap_or(0);
    format!("e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(values: &[f32], shape: &[usize]) -> String {
        Tensor::from_slice(values, shape).unwrap().to_string()
    }

    #[test]
    fn columns_are_aligned_at_the_point_and_zeros_at_the_end_are_left_out() {
        assert_eq!(shown(&[1.0, 2.5, -3.25], &[3]), "[ 1.    2.5  -3.25]");
        assert_eq!(shown(&[1.0, 2.0, 3.0, 10.0], &[2, 2]), "[[ 1.  2.]\n [ 3. 10.]]");
        assert_eq!(shown(&[1.0 / 3.0, 0.0], &[2, 1]), "[[0.3333]\n [0.    ]]");
    }

    #[test]
    fn a_tensor_without_axes_is_a_number_and_one_without_elements_a_pair_of_brackets() {
        assert_eq!(Tensor::scalar(0.1f32).to_string(), "0.1");
        for axes in
            [&[0][..], &[2, 0], &[0, 2], &[(1 << 60) - 1, 0], &[1_000_000_000, 0], &[0, 1 << 50, 3]]
        {
            assert_eq!(shown(&[], axes), "[]", "{axes:?}");
        }
    }

    #[test]
    fn outer_axes_have_empty_lines_between_them() {
        let expected = "[[[0. 1.]\n  [2. 3.]]\n\n [[4. 5.]\n  [6. 7.]]]";
        assert_eq!(
            Tensor::arange(0.0, 8.0, 1.0).unwrap().with_shape([2, 2, 2].into()).to_string(),
            expected
        );
    }

    #[test]
    fn numbers_far_apart_have_exponents() {
        assert_eq!(shown(&[0.001, 1.5], &[2]), "[1.0e-03 1.5e+00]");
        assert_eq!(shown(&[1e-5, 1.0], &[2]), "[1.e-05 1.e+00]");
        assert_eq!(shown(&[-123_456_790.0], &[1]), "[-1.2346e+08]");
        assert_eq!(shown(&[0.0, 2e10], &[2]), "[0.e+00 2.e+10]");
        assert_eq!(shown(&[0.002, 1.5], &[2]), "[0.002 1.5  ]");
    }

    #[test]
    fn what_is_not_finite_is_said_in_its_column() {
        assert_eq!(shown(&[f32::NAN, 1.0, f32::NEG_INFINITY], &[3]), "[ nan   1. -inf]");
        assert_eq!(shown(&[f32::INFINITY], &[1]), "[inf]");
    }

    #[test]
    fn bytes_are_whole_numbers() {
        assert_eq!(Tensor::from_u8(&[1, 20, 255], [3]).unwrap().to_string(), "[  1  20 255]");
    }

    #[test]
    fn more_than_a_thousand_elements_are_summarised() {
        let many = Tensor::arange(0.0, 1001.0, 1.0).unwrap();
        assert_eq!(many.to_string(), "[   0.    1.    2. ...  998.  999. 1000.]");
        let text = Tensor::zeros([40, 40]).to_string();
        let row = "[0. 0. 0. ... 0. 0. 0.]";
        assert_eq!(text, format!("[{row}\n {row}\n {row}\n ...\n {row}\n {row}\n {row}]"));
    }

    #[test]
    fn long_rows_go_on_in_the_next_line() {
        let text = Tensor::full([1, 30], 0.125).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() <= WIDTH && line.trim_start_matches(' ').len() > 2));
        assert!(lines[1].starts_with("  0.125 ") && lines[2].ends_with("0.125]]"), "{text}");
    }

    #[test]
    fn debug_says_shape_and_type_and_a_precision_can_be_asked_for() {
        let x = Tensor::full([1, 2], 0.66666);
        assert_eq!(format!("{x:?}"), "Tensor [1×2] F32\n[[0.6667 0.6667]]");
        assert_eq!(format!("{x:.2}"), "[[0.67 0.67]]");
        assert_eq!(format!("{:?}", Tensor::scalar(2.0f64)), "Tensor [] F64 2.");
    }
}
