//! NumPy's `.npy` format, for arrays of numbers.
//!
//! A file is `\x93NUMPY`, the version (2 bytes), the length of the header (2 bytes, little endian;
//! 4 from version 2 on), the header, and the elements. The header is a Python dictionary:
//! `{'descr': '|u1', 'fortran_order': False, 'shape': (375, 500, 3), }`, padded with spaces and a
//! newline to a multiple of 64 bytes.
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>
//!
//! This reader trusts nothing that a file says of itself: it allocates only what the file's own
//! length covers, and does not recurse, whatever the header claims.

use std::io::{self, Write};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Far above any header NumPy writes for an array of numbers.
const MAX_RANK: usize = 32;

/// A file taken apart, not yet judged.
#[derive(Debug, PartialEq, Eq)]
pub struct Npy<'a> {
    /// The element type as NumPy writes it: `|u1` is one unsigned byte.
    pub descr: &'a str,
    pub fortran_order: bool,
    pub shape: Vec<usize>,
    pub data: &'a [u8],
}

/// Takes a file apart; the error says what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Npy<'_>, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("expected a .npy file, which starts with \\x93NUMPY")?;
    let truncated = || "expected a header, but the file ends in it".to_owned();
    let (version, rest) = rest.split_at_checked(2).ok_or_else(truncated)?;
    let width = match version {
        [1, 0] => 2,
        [2 | 3, 0] => 4,
        _ => {
            let (major, minor) = (version[0], version[1]);
            return Err(format!("expected .npy version 1.0, 2.0 or 3.0, got {major}.{minor}"));
        }
    };
    let (length, rest) = rest.split_at_checked(width).ok_or_else(truncated)?;
    let length = length.iter().rev().fold(0usize, |sum, &byte| sum << 8 | byte as usize);
    let (header, data) = rest.split_at_checked(length).ok_or_else(truncated)?;
    let header = std::str::from_utf8(header).map_err(|_| "expected a header in UTF-8")?;
    let Header { descr, fortran_order, shape } = Header::parse(header)?;
    Ok(Npy { descr, fortran_order, shape, data })
}

struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl<'a> Header<'a> {
    /// Reads the whole dictionary: what is behind a value, or behind the dictionary, is an error too.
    fn parse(header: &'a str) -> Result<Self, String> {
        let mut rest = Rest(header.trim_end_matches([' ', '\n']));
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        rest.expect("{", "a dictionary as header")?;
        while !rest.take("}") {
            let key = rest.text("a key in the header's dictionary")?;
            rest.expect(":", "`:` behind a key of the header")?;
            let twice = match key {
                "descr" => descr.replace(rest.element_type()?).is_some(),
                "fortran_order" => fortran_order.replace(rest.boolean()?).is_some(),
                "shape" => shape.replace(rest.tuple()?).is_some(),
                other => return Err(format!("expected no `{other}` in the header")),
            };
            if twice {
                return Err(format!("expected `{key}` in the header once, got it twice"));
            }
            if !rest.take(",") {
                rest.expect("}", "`,` or `}` behind a value of the header")?;
                break;
            }
        }
        if !rest.0.is_empty() {
            return Err(format!("expected the end of the header, got `{}`", rest.shown()));
        }
        let missing = |key: &str| format!("expected `{key}` in the header");
        Ok(Header {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }
}

/// What of a header has not been read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, mark: &str) -> bool {
        let rest = self.0.trim_start();
        let taken = rest.strip_prefix(mark);
        self.0 = taken.unwrap_or(rest).trim_start();
        taken.is_some()
    }

    fn expect(&mut self, mark: &str, what: &str) -> Result<(), String> {
        match self.take(mark) {
            true => Ok(()),
            false => Err(format!("expected {what}, got `{}`", self.shown())),
        }
    }

    /// Its beginning, for a message.
    fn shown(&self) -> String {
        self.0.chars().take(20).collect()
    }

    /// Up to one of the characters, which stays.
    fn until(&mut self, ends: &[char]) -> &'a str {
        let (word, rest) = self.0.split_at(self.0.find(ends).unwrap_or(self.0.len()));
        self.0 = rest;
        word.trim_end()
    }

    /// A string in quotes of either kind, without escapes.
    fn text(&mut self, what: &str) -> Result<&'a str, String> {
        for quote in ['\'', '"'] {
            if let Some((text, rest)) =
                self.0.strip_prefix(quote).and_then(|rest| rest.split_once(quote))
            {
                self.0 = rest.trim_start();
                return Ok(text);
            }
        }
        Err(format!("expected {what}, got `{}`", self.shown()))
    }

    fn element_type(&mut self) -> Result<&'a str, String> {
        if self.0.starts_with(['[', '(']) {
            return Err("expected one element type in `descr`, got a structured one".to_owned());
        }
        self.text("an element type in `descr`")
    }

    fn boolean(&mut self) -> Result<bool, String> {
        match self.until(&[',', '}']) {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => Err("expected True or False in `fortran_order`".to_owned()),
        }
    }

    /// Whole numbers: `()`, `(3,)`, `(3, 4)`; Python 2 wrote `(3L, 4L)`.
    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect("(", "a tuple in `shape`")?;
        let mut axes = Vec::new();
        while !self.take(")") {
            let axis = self.until(&[',', ')']);
            // `parse` would take a `+` before them.
            let digits = axis.strip_suffix('L').unwrap_or(axis);
            let number =
                digits.parse().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()));
            axes.push(number.ok_or_else(|| {
                let got: String = axis.chars().take(30).collect();
                format!("expected whole numbers in `shape`, got `{got}`")
            })?);
            if axes.len() > MAX_RANK {
                return Err(format!("expected at most {MAX_RANK} axes, got more"));
            }
            // A tuple of one ends in a comma.
            match (self.take(","), axes.len()) {
                (true, _) => {}
                (false, 1) => return Err("expected a tuple in `shape`, got a number".to_owned()),
                (false, _) => {
                    self.expect(")", "`)` at the end of `shape`")?;
                    break;
                }
            }
        }
        Ok(axes)
    }
}

impl Npy<'_> {
    /// The elements in row-major order, if they are unsigned bytes and as many as the shape says.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, String> {
        if !matches!(self.descr, "|u1" | "u1" | "<u1" | ">u1" | "=u1") {
            return Err(format!("expected element type uint8 (|u1), got {}", self.descr));
        }
        self.row_major(1)
    }

    /// The bytes of the elements in row-major order, if there are as many elements of `width` bytes
    /// as the shape says.
    pub(crate) fn row_major(&self, width: usize) -> Result<Vec<u8>, String> {
        let bytes = self.shape.iter().try_fold(width, |n, &axis| n.checked_mul(axis));
        if bytes != Some(self.data.len()) {
            let (shape, got) = (&self.shape, self.data.len());
            let expected = bytes.map_or("too many".to_owned(), |n| n.to_string());
            return Err(format!("expected {expected} bytes of elements for shape {shape:?}, got {got}"));
        }
        Ok(if self.fortran_order { self.transposed(width) } else { self.data.to_vec() })
    }

    /// Column-major elements, row by row: element (i, j, k) of the file is at i + I·(j + J·k).
    fn transposed(&self, width: usize) -> Vec<u8> {
        let mut step = 1;
        let mut axes = Vec::new();
        for &size in &self.shape {
            axes.push((size, step));
            step *= size;
        }
        let offset = |mut index: usize| {
            let along = |&(size, step): &(usize, usize)| {
                let at = index % size;
                index /= size;
                at * step
            };
            axes.iter().rev().map(along).sum::<usize>()
        };
        let element = |i: usize| &self.data[offset(i) * width..][..width];
        (0..self.data.len() / width).flat_map(element).copied().collect()
    }
}

/// Writes a whole file of unsigned bytes, row-major.
pub(crate) fn write(mut file: impl Write, shape: &[usize], data: &[u8]) -> io::Result<()> {
    debug_assert_eq!(shape.iter().product::<usize>(), data.len());
    let axes: String = shape.iter().map(|axis| format!("{axis}, ")).collect();
    let axes = if shape.len() == 1 { axes.trim_end() } else { axes.trim_end_matches(", ") };
    let dictionary = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({axes}), }}");
    let before = MAGIC.len() + 4;
    let header = (before + dictionary.len() + 1).next_multiple_of(64) - before;
    file.write_all(MAGIC)?;
    file.write_all(&[1, 0])?;
    file.write_all(&(header as u16).to_le_bytes())?;
    writeln!(file, "{dictionary:<width$}", width = header - 1)?;
    file.write_all(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, ArrayView1, ArrayView3, ShapeBuilder};
    use ndarray_npy::{ViewNpyExt, WriteNpyExt};

    #[test]
    fn another_reader_reads_what_is_written_here() {
        let data: Vec<u8> = (0..24).collect();
        let written = |shape: &[usize]| {
            let mut file = Vec::new();
            write(&mut file, shape, &data).unwrap();
            file
        };
        let file = written(&[2, 4, 3]);
        assert_eq!(ArrayView3::<u8>::view_npy(&file).unwrap().as_slice().unwrap(), data);
        assert_eq!((file.len() - 24) % 64, 0);
        assert_eq!(ArrayView1::<u8>::view_npy(&written(&[24])).unwrap().len(), 24);
        assert_eq!(parse(&file).unwrap().bytes().unwrap(), data);
    }

    #[test]
    fn what_another_writer_writes_is_read_in_either_order() {
        let element = |(i, j, k): (usize, usize, usize)| (i * 12 + j * 3 + k) as u8;
        for fortran in [false, true] {
            let array = Array3::from_shape_fn((5, 4, 3).set_f(fortran), element);
            let mut file = Vec::new();
            array.write_npy(&mut file).unwrap();
            let npy = parse(&file).unwrap();
            assert_eq!((npy.fortran_order, &npy.shape[..]), (fortran, &[5, 4, 3][..]));
            assert_eq!(npy.bytes().unwrap(), (0..60).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn wider_elements_are_put_in_row_major_order_too() {
        for fortran in [false, true] {
            let array =
                Array3::from_shape_fn((5, 4, 3).set_f(fortran), |(i, j, k)| (i * 12 + j * 3 + k) as f32);
            let mut file = Vec::new();
            array.write_npy(&mut file).unwrap();
            let npy = parse(&file).unwrap();
            let bytes: Vec<u8> = (0..60).flat_map(|v| (v as f32).to_le_bytes()).collect();
            assert_eq!((npy.descr, npy.row_major(4).unwrap()), ("<f4", bytes));
            assert!(npy.row_major(8).unwrap_err().contains("expected 480 bytes"));
        }
    }

    #[test]
    fn a_header_is_read_to_its_last_word() {
        let file = |dictionary: &str| {
            let mut file = b"\x93NUMPY\x01\x00".to_vec();
            file.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
            [&file, dictionary.as_bytes(), &[7; 6]].concat()
        };
        let read = |dictionary: &str| parse(&file(dictionary)).and_then(|npy| npy.bytes());
        for right in [
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }  \n",
            "{\"shape\":(2L,3L,),\"descr\":\"u1\",\"fortran_order\":False}",
            " { 'descr' : '|u1' , 'fortran_order' : False , 'shape' : ( 6 , ) } ",
        ] {
            assert_eq!(read(right).unwrap(), [7; 6], "{right}");
        }
        for (wrong, part) in [
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), } 1", "the end of the header"),
            ("{'descr': '|u1' 'x', 'fortran_order': False, 'shape': (2, 3), }", "got `'x', 'fort"),
            ("{'descr': '|u1', 'fortran_order': Falsehood, 'shape': (2, 3), }", "True or False"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)4, }", "got `4, }`"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, , 3), }", "whole numbers"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2 3), }", "got `2 3`"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (+2, 3), }", "got `+2`"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (6), }", "got a number"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), 'shape': (6,), }", "twice"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), 'more': 1, }", "no `more`"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)", "`,` or `}`"),
            ("{'descr': '|u1', 'fortran_order': False}", "expected `shape`"),
            ("", "a dictionary"),
        ] {
            let error = read(wrong).expect_err(wrong);
            assert!(error.contains("expected") && error.contains(part), "{wrong}: {error}");
        }
        let mut other = file("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }");
        other[7] = 3;
        assert!(parse(&other).unwrap_err().ends_with("got 1.3"));
    }

    #[test]
    fn a_header_that_claims_more_than_there_is_allocates_nothing() {
        let claim = |shape: &str| {
            let header = format!("{{'descr': '|u1', 'fortran_order': True, 'shape': {shape}, }}\n");
            let mut file = b"\x93NUMPY\x02\x00".to_vec();
            file.extend_from_slice(&(header.len() as u32).to_le_bytes());
            file.extend_from_slice(header.as_bytes());
            parse(&file).and_then(|npy| npy.bytes())
        };
        for shape in
            ["(9223372036854775807, 3, 3)", "(1000000, 1000000, 3)", "(0, 4611686018427387904, 4)"]
        {
            assert!(claim(shape).is_err() || claim(shape).unwrap().is_empty(), "{shape}");
        }
        let mut file = b"\x93NUMPY\x02\x00".to_vec();
        file.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(parse(&file).unwrap_err().contains("ends in it"));
        assert!(claim(&"(".repeat(50_000)).is_err());
        assert!(claim("(18446744073709551616, 1, 3)").unwrap_err().contains("whole numbers"));
    }
}
