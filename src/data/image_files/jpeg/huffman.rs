//! Huffman tables and the bits of a scan.

/// Codes up to this long are found in one look.
const FAST: usize = 9;

pub(super) struct Table {
    /// By the next bits: the code's length (0: it is longer) and its symbol.
    fast: [(u8, u8); 1 << FAST],
    /// For each length: the code after the last one, and what is added to a code to get its symbol.
    ends: [u32; 17],
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length, and their symbols in order.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self, String> {
        let mut table = Table {
            fast: [(0, 0); 1 << FAST],
            ends: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut at) = (0_u32, 0);
        for (length, &count) in (1..).zip(counts) {
            table.offsets[length] = at as i32 - code as i32;
            for _ in 0..count {
                if code >> length != 0 || at == symbols.len() {
                    return Err("a Huffman table with more codes than there can be".to_owned());
                }
                if length <= FAST {
                    let rest = FAST - length;
                    table.fast[(code as usize) << rest..][..1 << rest].fill((length as u8, symbols[at]));
                }
                code += 1;
                at += 1;
            }
            table.ends[length] = code;
            code <<= 1;
        }
        Ok(table)
    }
}

/// The bits of a scan, up to the next marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in `buffer`.
    at: usize,
    /// The next `count` bits, from the highest down; zeros below them.
    buffer: u64,
    count: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Bits { bytes, at, buffer: 0, count: 0 }
    }

    /// Where the scan was left: before the next marker.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let Some(&byte) = self.bytes.get(self.at) else { return };
            let stuffed = byte == 0xff;
            if stuffed && self.bytes.get(self.at + 1) != Some(&0) {
                return;
            }
            self.at += 1 + stuffed as usize;
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// A scan that ends too early is an error. (libjpeg goes on with zeros: an image that is grey from
    /// there on.)
    fn skip(&mut self, count: usize) -> Result<(), String> {
        if count > self.count {
            return Err("a scan that ends before its last block".to_owned());
        }
        self.buffer <<= count;
        self.count -= count;
        Ok(())
    }

    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, String> {
        if self.count < 16 {
            self.fill();
        }
        let (length, symbol) = table.fast[(self.buffer >> (64 - FAST)) as usize];
        if length > 0 {
            self.skip(length.into())?;
            return Ok(symbol);
        }
        for length in FAST + 1..=16 {
            let code = (self.buffer >> (64 - length)) as u32;
            if code < table.ends[length] {
                self.skip(length)?;
                let symbol = table.symbols.get((code as i32 + table.offsets[length]) as usize);
                return symbol.copied().ok_or_else(|| "a code without a symbol".to_owned());
            }
        }
        self.skip(16)?;
        Err("a code that is in no Huffman table".to_owned())
    }

    /// The next bits (16 at most) as a number.
    pub(super) fn take(&mut self, count: usize) -> Result<u32, String> {
        if count == 0 {
            return Ok(0);
        }
        if self.count < count {
            self.fill();
        }
        let value = (self.buffer >> (64 - count)) as u32;
        self.skip(count)?;
        Ok(value)
    }

    /// A coefficient of so many bits: without the highest bit it is negative.
    pub(super) fn signed(&mut self, count: usize) -> Result<i32, String> {
        let value = self.take(count)? as i32;
        let half = 1 << count >> 1;
        Ok(if value < half { value - 2 * half + 1 } else { value })
    }

    /// Passes the restart marker of this number, 0 to 7, which must be next.
    pub(super) fn restart(&mut self, number: usize) -> Result<(), String> {
        // Less than a byte is left: what fills up the last one.
        let mut found = self.count < 8;
        while self.bytes.get(self.at..self.at + 2) == Some(&[0xff, 0xff]) {
            self.at += 1;
        }
        found &= self.bytes.get(self.at..self.at + 2) == Some(&[0xff, 0xd0 + number as u8]);
        if !found {
            return Err(format!("no restart marker {number} where one has to be"));
        }
        self.at += 2;
        (self.buffer, self.count) = (0, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_all_lengths_are_found_and_bits_end_with_an_error() {
        // One code of each length: 0, 10, 110, …
        let symbols: Vec<u8> = (1..=16).collect();
        let table = Table::new(&[1; 16], &symbols).unwrap();
        let mut bits = Bits::new(&[0b1011_0111, 0xff, 0x00, 0b1111_0000, 0xff, 0xd9], 0);
        let found: Vec<u8> = (0..3).map(|_| bits.symbol(&table).unwrap()).collect();
        assert_eq!(found, [2, 3, 16]);
        assert_eq!(bits.take(1).unwrap(), 0);
        assert!(bits.take(3).unwrap_err().contains("ends before"));
        assert_eq!(bits.position(), 4);
        assert!(Table::new(&[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1, 2, 3]).is_err());
    }

    #[test]
    fn numbers_without_the_highest_bit_are_negative() {
        let mut bits = Bits::new(&[0b0100_0110, 0b1100_0000], 0);
        let found: Vec<i32> = [1, 1, 2, 2, 2, 2, 0].map(|n| bits.signed(n).unwrap()).to_vec();
        assert_eq!(found, [-1, 1, -3, -2, 2, 3, 0]);
    }
}
