//! Floating-point numbers as files hold them, little endian, made f32.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Float {
    F16,
    BF16,
    F32,
    F64,
}

impl Float {
    pub fn size(self) -> usize {
        match self {
            Float::F16 | Float::BF16 => 2,
            Float::F32 => 4,
            Float::F64 => 8,
        }
    }

    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
        }
        match self {
            Float::F16 => each(bytes, |bytes| half(u16::from_le_bytes(bytes))),
            // The upper half of an f32.
            Float::BF16 => each(bytes, |bytes| f32::from_bits((u16::from_le_bytes(bytes) as u32) << 16)),
            Float::F32 => each(bytes, f32::from_le_bytes),
            Float::F64 => each(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        }
    }
}

/// IEEE 754 binary16: one bit of sign, five of exponent (bias 15), ten of fraction.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = ((bits >> 10 & 31) as i32, (bits & 1023) as f32);
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (bits, value) in cases {
            assert_eq!(half(bits), value, "{bits:04x}");
        }
        assert!(half(0x7e00).is_nan() && half(0x8000).is_sign_negative());
    }

    #[test]
    fn every_type_becomes_f32() {
        assert_eq!(Float::F16.decode(&[0x00, 0x3c, 0x00, 0xc0]), [1.0, -2.0]);
        assert_eq!(Float::BF16.decode(&[0x80, 0x3f, 0x20, 0xc1]), [1.0, -10.0]);
        assert_eq!(Float::F32.decode(&(-0.1f32).to_le_bytes()), [-0.1]);
        assert_eq!(Float::F64.decode(&0.1f64.to_le_bytes()), [0.1]);
    }
}
