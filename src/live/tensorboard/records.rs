//! TFRecord: what frames each record of the file.
//!
//! Length (8 bytes, least first), its checksum (4 bytes), the record, its checksum. The checksum is the
//! CRC-32C (Castagnoli), masked: rotated right by 15 bits, plus a constant, because a checksum of data that
//! hold their own checksum says little.

/// The masked checksum.
///
/// ```
/// use atrous::live::tensorboard::records::masked_crc;
///
/// assert_eq!(masked_crc(b""), 0xa282_ead8); // the mask alone: the checksum of nothing is 0
/// ```
pub fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A record in its frame.
///
/// [`unframed`] has an example.
pub fn framed(record: &[u8]) -> Vec<u8> {
    let length = (record.len() as u64).to_le_bytes();
    let crc = |bytes: &[u8]| masked_crc(bytes).to_le_bytes();
    [&length[..], &crc(&length), record, &crc(record)].concat()
}

/// The records of a file, which may end within one (it is still being written). An error where a checksum is
/// wrong.
///
/// ```
/// use atrous::live::tensorboard::records::{framed, unframed};
///
/// let mut file = framed(b"one");
/// assert_eq!(file.len(), 8 + 4 + 3 + 4); // the length, its checksum, the bytes, theirs
/// file.extend(framed(b"two"));
/// assert_eq!(unframed(&file)?, [b"one", b"two"]);
/// assert_eq!(unframed(&file[..25])?, [b"one"]); // the second is still being written
/// file[12] ^= 1;
/// assert!(unframed(&file).is_err());
/// # Ok::<(), String>(())
/// ```
pub fn unframed(mut bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut records = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let Some((crc, rest)) = rest.split_first_chunk::<4>() else { break };
        check(length, crc, records.len())?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((record, rest)) = rest.split_at_checked(length) else { break };
        let Some((crc, rest)) = rest.split_first_chunk::<4>() else { break };
        check(record, crc, records.len())?;
        records.push(record);
        bytes = rest;
    }
    Ok(records)
}

fn check(bytes: &[u8], crc: &[u8; 4], record: usize) -> Result<(), String> {
    match (masked_crc(bytes), u32::from_le_bytes(*crc)) {
        (expected, got) if expected == got => Ok(()),
        (expected, got) => {
            Err(format!("record {record}: expected the checksum {expected:08x}, got {got:08x}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_format() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // The length 24 of TensorFlow's first record, `brain.Event:2` with its time, as every file begins.
        assert_eq!(framed(&[0; 24])[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn records_come_back_and_a_half_one_is_left_out() {
        let mut bytes = framed(b"");
        bytes.extend(framed(b"second"));
        assert_eq!(unframed(&bytes).unwrap(), [&b""[..], b"second"]);
        for cut in 1..framed(b"second").len() {
            assert_eq!(unframed(&bytes[..bytes.len() - cut]).unwrap(), [b""], "{cut}");
        }
    }

    #[test]
    fn each_changed_bit_is_found() {
        let bytes = framed(b"some record");
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let error = unframed(&changed).unwrap_err();
            assert!(error.starts_with("record 0: expected the checksum"), "{bit}: {error}");
        }
    }
}
