//! Scans: the coefficients of some or all components, in whole or (progressive) bit by bit.

use super::Tables;
use super::frame::{Component, Frame, UNSEEN};
use super::huffman::{Bits, Table};

/// Where the coefficients of a scan, in its order, are in a block.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,
    6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45,
    38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Blocks of all components in one unit of a scan, at most.
const MOST_BLOCKS: usize = 10;

struct Scan {
    /// For each component: its position in the frame, and the numbers of its two Huffman tables.
    parts: Vec<(usize, usize, usize)>,
    /// The first and the last coefficient.
    first: usize,
    last: usize,
    /// The low bit that the scan before and this one begin at.
    high: u8,
    low: u8,
}

impl Scan {
    fn new(body: &[u8], frame: &Frame) -> Result<Self, String> {
        let count = usize::from(*body.first().unwrap_or(&0));
        if !(1..=4).contains(&count) || body.len() != 2 * count + 4 {
            return Err("a scan header of a wrong length".to_owned());
        }
        let (parts, rest) = body[1..].split_at(2 * count);
        let mut scan = Scan { parts: Vec::new(), first: 0, last: 63, high: 0, low: 0 };
        for part in parts.chunks_exact(2) {
            let index = frame.components.iter().position(|component| component.id == part[0]);
            let index = index.ok_or_else(|| format!("a scan of colour {}, which is none", part[0]))?;
            let (dc, ac) = (usize::from(part[1] >> 4), usize::from(part[1] & 15));
            if scan.parts.iter().any(|known| known.0 == index) || dc > 3 || ac > 3 {
                return Err("a scan with a colour twice, or a table that is not 0 to 3".to_owned());
            }
            scan.parts.push((index, dc, ac));
        }
        let blocks = |&(index, ..): &(usize, usize, usize)| {
            frame.components[index].factors.iter().product::<usize>()
        };
        if count > 1 && scan.parts.iter().map(blocks).sum::<usize>() > MOST_BLOCKS {
            return Err(format!("a scan with more than {MOST_BLOCKS} blocks a unit"));
        }
        if frame.progressive {
            (scan.first, scan.last) = (rest[0].into(), rest[1].into());
            (scan.high, scan.low) = (rest[2] >> 4, rest[2] & 15);
            let coefficients = match scan.first {
                0 => scan.last == 0,
                first => count == 1 && (first..64).contains(&scan.last),
            };
            if !coefficients || scan.low > 13 || (scan.high > 0 && scan.high != scan.low + 1) {
                return Err("a progressive scan that cannot be".to_owned());
            }
        }
        Ok(scan)
    }

    /// Notes which bits come; an error where they came before, or others had to come first.
    fn enter(&self, component: &mut Component, tables: &Tables) -> Result<(), String> {
        let expected = if self.high > 0 { self.high } else { UNSEEN };
        for missing in &mut component.missing[self.first..=self.last] {
            if *missing != expected {
                return Err(format!("scans of colour {} in an order that cannot be", component.id));
            }
            *missing = self.low;
        }
        if component.quantization.is_none() {
            component.quantization = tables.quantization[component.table];
        }
        match component.quantization {
            Some(_) => Ok(()),
            None => Err(format!("no quantization table {}", component.table)),
        }
    }
}

fn table(tables: &[Option<Table>; 4], number: usize) -> Result<&Table, String> {
    tables[number].as_ref().ok_or_else(|| format!("no Huffman table {number}"))
}

/// What goes on from block to block.
struct State {
    /// Blocks in which nothing more comes.
    run: u32,
    /// The last block's mean, for each component.
    means: [i32; 4],
}

/// Decodes the scan whose header is `body` and whose bits begin at `at`; where it ends.
pub(super) fn decode(
    frame: &mut Frame,
    tables: &Tables,
    body: &[u8],
    bytes: &[u8],
    at: usize,
) -> Result<usize, String> {
    let scan = Scan::new(body, frame)?;
    for &(index, ..) in &scan.parts {
        scan.enter(&mut frame.components[index], tables)?;
    }
    let alone = scan.parts.len() == 1;
    let [rows, columns] = if alone { frame.components[scan.parts[0].0].blocks } else { frame.units };
    let mut bits = Bits::new(bytes, at);
    let mut state = State { run: 0, means: [0; 4] };
    for unit in 0..rows * columns {
        let (row, column) = (unit / columns, unit % columns);
        if tables.restart > 0 && unit > 0 && unit % tables.restart == 0 {
            bits.restart((unit / tables.restart - 1) % 8)?;
            state = State { run: 0, means: [0; 4] };
        }
        for &(index, dc, ac) in &scan.parts {
            let component = &mut frame.components[index];
            // A scan of one component goes from block to block, whatever its sampling is.
            let [high, wide] = if alone { [1, 1] } else { component.factors };
            for (y, x) in (0..high * wide).map(|i| (i / wide, i % wide)) {
                let block = (row * high + y) * component.columns + column * wide + x;
                let block = &mut component.coefficients[block];
                let mean = &mut state.means[index];
                match (frame.progressive, scan.first, scan.high) {
                    (false, ..) => sequential(
                        block,
                        &mut bits,
                        table(&tables.dc, dc)?,
                        table(&tables.ac, ac)?,
                        mean,
                    )?,
                    (true, 0, 0) => {
                        *mean = mean.wrapping_add(difference(&mut bits, table(&tables.dc, dc)?)?);
                        block[0] = (*mean << scan.low) as i16;
                    }
                    (true, 0, _) => block[0] |= (bits.take(1)? << scan.low) as i16,
                    (true, _, 0) => {
                        first_bits(block, &mut bits, table(&tables.ac, ac)?, &scan, &mut state.run)?
                    }
                    (true, ..) => {
                        next_bit(block, &mut bits, table(&tables.ac, ac)?, &scan, &mut state.run)?
                    }
                }
            }
        }
    }
    Ok(bits.position())
}

const TOO_MANY: &str = "more coefficients than a block has";

/// How much the mean differs from the last block's.
fn difference(bits: &mut Bits, dc: &Table) -> Result<i32, String> {
    match bits.symbol(dc)?.into() {
        length @ 0..=11 => bits.signed(length),
        length => Err(format!("a mean that differs by {length} bits")),
    }
}

fn sequential(
    block: &mut [i16; 64],
    bits: &mut Bits,
    dc: &Table,
    ac: &Table,
    mean: &mut i32,
) -> Result<(), String> {
    *mean = mean.wrapping_add(difference(bits, dc)?);
    block[0] = *mean as i16;
    let mut at = 1;
    while at < 64 {
        let symbol = usize::from(bits.symbol(ac)?);
        match (symbol >> 4, symbol & 15) {
            (15, 0) => at += 16,
            (_, 0) => break,
            (zeros, length) => {
                let place = *ZIGZAG.get(at + zeros).ok_or(TOO_MANY)?;
                block[usize::from(place)] = bits.signed(length)? as i16;
                at += zeros + 1;
            }
        }
    }
    Ok(())
}

/// The highest bits of some coefficients of a block.
fn first_bits(
    block: &mut [i16; 64],
    bits: &mut Bits,
    ac: &Table,
    scan: &Scan,
    run: &mut u32,
) -> Result<(), String> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let mut at = scan.first;
    while at <= scan.last {
        let symbol = usize::from(bits.symbol(ac)?);
        match (symbol >> 4, symbol & 15) {
            (15, 0) => at += 16,
            (length, 0) => {
                *run = (1 << length) - 1 + bits.take(length)?;
                break;
            }
            (zeros, length) => {
                at += zeros;
                if at > scan.last {
                    return Err(TOO_MANY.to_owned());
                }
                block[usize::from(ZIGZAG[at])] = (bits.signed(length)? << scan.low) as i16;
                at += 1;
            }
        }
    }
    Ok(())
}

/// One more bit of some coefficients of a block: of each that is not zero yet, and of those that now are not.
fn next_bit(
    block: &mut [i16; 64],
    bits: &mut Bits,
    ac: &Table,
    scan: &Scan,
    run: &mut u32,
) -> Result<(), String> {
    let bit = 1_i16 << scan.low;
    let mut at = scan.first;
    while at <= scan.last && *run == 0 {
        let symbol = usize::from(bits.symbol(ac)?);
        let (mut zeros, value) = match (symbol >> 4, symbol & 15) {
            (15, 0) => (15, 0),
            (length, 0) => {
                *run = (1 << length) + bits.take(length)?;
                break;
            }
            (zeros, 1) => (zeros, if bits.take(1)? == 1 { bit } else { -bit }),
            _ => return Err("a progressive scan with more than one bit at once".to_owned()),
        };
        while at <= scan.last {
            let coefficient = &mut block[usize::from(ZIGZAG[at])];
            if *coefficient != 0 {
                refine(coefficient, bits, bit)?;
            } else if zeros == 0 {
                *coefficient = value;
                break;
            } else {
                zeros -= 1;
            }
            at += 1;
        }
        if at > scan.last && value != 0 {
            return Err(TOO_MANY.to_owned());
        }
        at += 1;
    }
    if *run > 0 {
        *run -= 1;
        for place in ZIGZAG.iter().take(scan.last + 1).skip(at) {
            let coefficient = &mut block[usize::from(*place)];
            if *coefficient != 0 {
                refine(coefficient, bits, bit)?;
            }
        }
    }
    Ok(())
}

fn refine(coefficient: &mut i16, bits: &mut Bits, bit: i16) -> Result<(), String> {
    if bits.take(1)? == 1 && *coefficient & bit == 0 {
        *coefficient = coefficient.wrapping_add(if *coefficient > 0 { bit } else { -bit });
    }
    Ok(())
}
