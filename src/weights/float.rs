//! Floating-point numbers as files hold them, little endian, made f32.
//!
//! How many bytes a number has does not say what it is: float16 and bfloat16 have two both, and HDF5
//! lets a file have types of its own. What says it is where the bits of sign, exponent and mantissa lie.

use half::{bf16, f16};

/// A run of bits: the place of the lowest, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    pub at: u32,
    pub count: u32,
}

impl Bits {
    fn of(self, word: u64) -> u64 {
        word >> self.at & self.mask()
    }

    fn mask(self) -> u64 {
        (1 << self.count) - 1
    }
}

/// A binary type as IEEE 754 means them: a leading one before the mantissa that is not written, an
/// exponent of zeros for what is smaller than that, an exponent of ones for infinity and NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Float {
    /// Bytes.
    size: usize,
    sign: u32,
    exponent: Bits,
    mantissa: Bits,
    bias: i32,
}

pub(super) const F16: Float = ieee(2, 5);
/// The upper half of an f32.
pub(super) const BF16: Float = ieee(2, 8);
pub(super) const F32: Float = ieee(4, 8);
pub(super) const F64: Float = ieee(8, 11);

/// Sign, exponent and mantissa one behind the other, from the top.
const fn ieee(size: usize, exponent: u32) -> Float {
    let sign = 8 * size as u32 - 1;
    let mantissa = sign - exponent;
    Float {
        size,
        sign,
        exponent: Bits { at: mantissa, count: exponent },
        mantissa: Bits { at: 0, count: mantissa },
        bias: (1 << (exponent - 1)) - 1,
    }
}

/// Numbers of a file as f32.
pub(super) struct Decoded {
    pub values: Vec<f32>,
    /// The first that is a number in the file, and too large for f32; and its place.
    pub beyond: Option<(usize, f64)>,
}

impl Float {
    /// None where a number would have more than eight bytes, or where the parts overlap or do not fit.
    pub fn new(size: usize, sign: u32, exponent: Bits, mantissa: Bits, bias: u32) -> Option<Self> {
        let width = 8 * u32::try_from(size).ok().filter(|size| (1..=8).contains(size))?;
        let parts = [Bits { at: sign, count: 1 }, exponent, mantissa];
        let mut taken = 0u64;
        for bits in parts {
            let fits =
                bits.count > 0 && bits.count < 64 && bits.at < width && bits.count <= width - bits.at;
            let place = if fits { bits.mask() << bits.at } else { return None };
            if taken & place != 0 {
                return None;
            }
            taken |= place;
        }
        // An exponent of more bits has no values that f64 could hold between its zero and its infinity.
        let bias = i32::try_from(bias).ok().filter(|&bias| exponent.count <= 15 && bias < 1 << 15)?;
        Some(Float { size, sign, exponent, mantissa, bias })
    }

    pub fn size(self) -> usize {
        self.size
    }

    /// As NumPy calls it, where it has a name.
    pub fn name(self) -> String {
        match self {
            F16 => "float16".to_owned(),
            BF16 => "bfloat16".to_owned(),
            F32 => "float32".to_owned(),
            F64 => "float64".to_owned(),
            _ => format!("float{}_e{}m{}", 8 * self.size, self.exponent.count, self.mantissa.count),
        }
    }

    pub fn decode(self, bytes: &[u8]) -> Decoded {
        let mut beyond = None;
        let values = match self {
            F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            F16 => bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            BF16 => {
                bytes.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()
            }
            _ => {
                let one = |(at, bytes): (usize, &[u8])| {
                    let word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
                    let exact = self.value(word);
                    let value = exact as f32;
                    if beyond.is_none() && exact.is_finite() && !value.is_finite() {
                        beyond = Some((at, exact));
                    }
                    value
                };
                bytes.chunks_exact(self.size).enumerate().map(one).collect()
            }
        };
        Decoded { values, beyond }
    }

    /// The number whose bits these are.
    fn value(self, word: u64) -> f64 {
        if self == F64 {
            return f64::from_bits(word);
        }
        let (exponent, mantissa) = (self.exponent.of(word), self.mantissa.of(word));
        let whole = 1u64 << self.mantissa.count;
        let scale = |exponent: u64| exponent as i32 - self.bias - self.mantissa.count as i32;
        let magnitude = match exponent {
            0 => power(mantissa as f64, scale(1)),
            _ if exponent < self.exponent.mask() => power((whole | mantissa) as f64, scale(exponent)),
            _ if mantissa == 0 => f64::INFINITY,
            _ => f64::NAN,
        };
        if word >> self.sign & 1 == 1 { -magnitude } else { magnitude }
    }
}

/// `value` · 2^`exponent`, in steps: the power alone may be too large or too small for an f64.
fn power(value: f64, exponent: i32) -> f64 {
    let half = exponent.clamp(-1600, 1600) / 4;
    let rest = exponent.clamp(-1600, 1600) - 3 * half;
    value * 2f64.powi(half) * 2f64.powi(half) * 2f64.powi(half) * 2f64.powi(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(float: Float, word: u64) -> f32 {
        let decoded = float.decode(&word.to_le_bytes()[..float.size()]);
        assert_eq!(decoded.values.len(), 1);
        decoded.values[0]
    }

    #[test]
    fn halves_are_what_the_standard_says() {
        let cases = [
            (0x0000, 0.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, expected) in cases {
            assert_eq!(value(F16, bits), expected, "{bits:04x}");
        }
        assert!(value(F16, 0x7e00).is_nan() && value(F16, 0x8000).is_sign_negative());
    }

    #[test]
    fn every_half_is_the_number_that_its_parts_say() {
        for float in [F16, BF16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            for (word, got) in float.decode(&bytes).values.into_iter().enumerate() {
                let expected = float.value(word as u64) as f32;
                assert!(
                    got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(),
                    "{word:04x}"
                );
            }
        }
    }

    #[test]
    fn every_type_becomes_f32() {
        assert_eq!(F16.decode(&[0x00, 0x3c, 0x00, 0xc0]).values, [1.0, -2.0]);
        assert_eq!(BF16.decode(&[0x80, 0x3f, 0x20, 0xc1]).values, [1.0, -10.0]);
        assert_eq!(F32.decode(&(-0.1f32).to_le_bytes()).values, [-0.1]);
        assert_eq!(F64.decode(&0.1f64.to_le_bytes()).values, [0.1]);
        let names = [F16, BF16, F32, F64, ieee(4, 11)].map(Float::name);
        assert_eq!(names, ["float16", "bfloat16", "float32", "float64", "float32_e11m20"]);
    }

    /// The processor's own types, taken apart like any other, are what the processor says.
    #[test]
    fn bits_taken_apart_are_the_number_that_the_processor_has() {
        let same = |a: f64, b: f64| a == b && a.is_sign_negative() == b.is_sign_negative();
        for word in 0..=0xffffu32 {
            let (got, expected) = (BF16.value(word.into()), f32::from_bits(word << 16).into());
            assert!(same(got, expected) || got.is_nan() && expected.is_nan(), "{word:04x}: {got}");
            // All exponents, with mantissas at both ends and between.
            for low in [0, 1, 0x8000, 0xffff] {
                let word = word << 16 | low;
                let (got, expected) = (F32.value(word.into()), f32::from_bits(word).into());
                assert!(same(got, expected) || got.is_nan() && expected.is_nan(), "{word:08x}: {got}");
            }
        }
        // 52 bits of mantissa, 11 of exponent, the sign below them: f64 with its bits moved.
        let moved =
            Float::new(8, 0, Bits { at: 53, count: 11 }, Bits { at: 1, count: 52 }, 1023).unwrap();
        for x in [0.0, 1.0, 1.0 / 3.0, 1e300, 1e-300, 5e-324, f64::MAX, f64::MIN_POSITIVE] {
            for x in [x, -x] {
                assert!(same(moved.value(x.to_bits().rotate_left(1)), x), "{x:e}");
            }
        }
    }

    #[test]
    fn layouts_that_hold_together_are_taken_and_others_not() {
        let float = |size, sign, (ea, ec), (ma, mc), bias| {
            Float::new(size, sign, Bits { at: ea, count: ec }, Bits { at: ma, count: mc }, bias)
        };
        assert_eq!(float(2, 15, (10, 5), (0, 10), 15), Some(F16));
        assert_eq!(float(2, 15, (7, 8), (0, 7), 127), Some(BF16));
        let small = float(1, 7, (3, 4), (0, 3), 7).unwrap();
        assert_eq!(small.decode(&[0x38, 0xc0, 0x01, 0x77]).values, [1.0, -2.0, 2f32.powi(-9), 240.0]);
        let biased = float(2, 15, (10, 5), (0, 10), 20).unwrap();
        assert_eq!(biased.decode(&[0x00, 0x3c]).values, [1.0 / 32.0]);
        for none in [
            float(0, 0, (1, 1), (2, 1), 1),
            float(16, 127, (112, 15), (0, 112), 16383),
            float(2, 16, (10, 5), (0, 10), 15),
            float(2, 15, (10, 6), (0, 10), 15),
            float(2, 15, (9, 5), (0, 10), 15),
            float(2, 15, (10, 0), (0, 10), 15),
            float(2, 15, (10, 5), (0, 0), 15),
            float(2, 15, (10, u32::MAX), (0, 10), 15),
            float(2, 15, (u32::MAX, 5), (0, 10), 15),
            float(4, 31, (15, 16), (0, 15), 15),
            float(2, 15, (10, 5), (0, 10), u32::MAX),
        ] {
            assert_eq!(none, None);
        }
    }

    #[test]
    fn a_number_that_f32_cannot_hold_is_told_apart_from_infinity() {
        let numbers: Vec<u8> =
            [f64::INFINITY, 1.0, 1e300, -1e301].iter().flat_map(|v| v.to_le_bytes()).collect();
        let decoded = F64.decode(&numbers);
        assert_eq!(decoded.beyond, Some((2, 1e300)));
        assert_eq!(decoded.values[..2], [f32::INFINITY, 1.0]);
        assert!(F64.decode(&numbers[..16]).beyond.is_none());
        let wide = ieee(4, 11).decode(&0x7fe0_0000u32.to_le_bytes());
        assert_eq!(wide.beyond, Some((0, 2f64.powi(1023))));
    }
}
