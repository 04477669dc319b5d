//! How a camera was held: Exif's tag "orientation".

/// Where the stored image's first row and column are when it is upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orientation {
    /// Rows and columns change places, first.
    turned: bool,
    /// The last row becomes the first.
    flipped: bool,
    /// The last column becomes the first.
    mirrored: bool,
}

const TAG: u16 = 0x0112;

/// The orientation in Exif data (a TIFF file's header and first directory). What is not there, or
/// damaged, turns nothing, as in all programs.
pub(super) fn orientation(tiff: &[u8]) -> Orientation {
    Orientation::new(number(tiff).unwrap_or(1))
}

fn number(tiff: &[u8]) -> Option<u16> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes = tiff.get(at..)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(*bytes) } else { u16::from_be_bytes(*bytes) })
    };
    let bytes = tiff.get(4..)?.first_chunk::<4>()?;
    let directory = if little { u32::from_le_bytes(*bytes) } else { u32::from_be_bytes(*bytes) };
    let directory = usize::try_from(directory).ok()?;
    // Entries of 12 bytes: a tag, a type (3: 16 bits), a count of 32 bits, a value.
    let entries = (0..usize::from(short(directory)?)).map(|i| directory + 2 + 12 * i);
    let entry = entries.into_iter().find(|&entry| short(entry) == Some(TAG))?;
    (short(entry + 2)? == 3).then(|| short(entry + 8)).flatten()
}

impl Orientation {
    fn new(number: u16) -> Self {
        let [turned, flipped, mirrored] = match number {
            2 => [false, false, true],
            3 => [false, true, true],
            4 => [false, true, false],
            5 => [true, false, false],
            6 => [true, false, true],
            7 => [true, true, true],
            8 => [true, true, false],
            _ => [false; 3],
        };
        Orientation { turned, flipped, mirrored }
    }

    /// The upright size and values, of `channels` a pixel.
    pub(super) fn apply(
        self,
        [height, width]: [usize; 2],
        channels: usize,
        values: Vec<u8>,
    ) -> ([usize; 2], Vec<u8>) {
        if self == Orientation::default() {
            return ([height, width], values);
        }
        let [rows, columns] = if self.turned { [width, height] } else { [height, width] };
        let mut upright = Vec::with_capacity(values.len());
        for row in 0..rows {
            let row = if self.flipped { rows - 1 - row } else { row };
            for column in 0..columns {
                let column = if self.mirrored { columns - 1 - column } else { column };
                let pixel = if self.turned { column * width + row } else { row * width + column };
                upright.extend_from_slice(&values[pixel * channels..][..channels]);
            }
        }
        ([rows, columns], upright)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exif data with one entry before the orientation.
    pub(in super::super) fn exif(little: bool, number: u16) -> Vec<u8> {
        let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut bytes = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        bytes.extend(long(8));
        bytes.extend(short(2));
        for (tag, value) in [(0x0100, 77), (TAG, number)] {
            bytes.extend([short(tag), short(3)].concat());
            bytes.extend(long(1));
            bytes.extend([short(value), short(0)].concat());
        }
        bytes
    }

    #[test]
    fn all_eight_orientations_in_both_byte_orders_bring_the_letter_f_upright() {
        // As a camera stores them: rows of an F, upright [3, 2].
        let upright = *b"abcdef";
        let stored: [(u16, [usize; 2], &[u8; 6]); 8] = [
            (1, [3, 2], b"abcdef"),
            (2, [3, 2], b"badcfe"),
            (3, [3, 2], b"fedcba"),
            (4, [3, 2], b"efcdab"),
            (5, [2, 3], b"acebdf"),
            (6, [2, 3], b"bdface"),
            (7, [2, 3], b"fdbeca"),
            (8, [2, 3], b"ecafdb"),
        ];
        for (number, size, values) in stored {
            for little in [false, true] {
                let orientation = orientation(&exif(little, number));
                let got = orientation.apply(size, 1, values.to_vec());
                assert_eq!(got, ([3, 2], upright.to_vec()), "orientation {number}");
            }
        }
    }

    #[test]
    fn exif_data_that_is_cut_off_or_says_nonsense_turns_nothing() {
        let whole = exif(true, 6);
        assert_ne!(orientation(&whole), Orientation::default());
        for length in 0..whole.len() - 4 {
            assert_eq!(orientation(&whole[..length]), Orientation::default(), "{length}");
        }
        for number in [0, 9, 0xffff] {
            assert_eq!(orientation(&exif(false, number)), Orientation::default());
        }
    }
}
