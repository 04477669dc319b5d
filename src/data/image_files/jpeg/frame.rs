//! What a JPEG's frame header says, and the coefficients that its scans bring.

use super::super::reasonable;

/// The coefficient has not been in a scan yet.
pub(super) const UNSEEN: u8 = 0xff;

pub(super) struct Frame {
    pub(super) progressive: bool,
    pub(super) height: usize,
    pub(super) width: usize,
    /// The largest sampling factors, vertical and horizontal.
    pub(super) most: [usize; 2],
    /// Rows and columns of the units that a scan of several components is made of.
    pub(super) units: [usize; 2],
    pub(super) components: Vec<Component>,
}

pub(super) struct Component {
    pub(super) id: u8,
    /// Sampling factors, vertical and horizontal.
    pub(super) factors: [usize; 2],
    /// The number of its quantization table, and what that held when its first scan began.
    pub(super) table: usize,
    pub(super) quantization: Option<[u16; 64]>,
    /// Height and width in samples.
    pub(super) size: [usize; 2],
    /// Rows and columns of blocks with samples in them: what a scan of this component alone has.
    pub(super) blocks: [usize; 2],
    /// Columns of blocks in `coefficients`, which is filled up to whole units.
    pub(super) columns: usize,
    pub(super) coefficients: Vec<[i16; 64]>,
    /// Low bits of each coefficient, in zigzag order, that are still to come.
    pub(super) missing: [u8; 64],
}

impl Frame {
    /// From the body of a frame header (`marker`: C0 to C2). `length` is the whole file's.
    pub(super) fn new(marker: u8, body: &[u8], length: usize) -> Result<Self, String> {
        let [bits, h0, h1, w0, w1, count, rest @ ..] = body else {
            return Err("a frame header that is too short".to_owned());
        };
        let height = usize::from(u16::from_be_bytes([*h0, *h1]));
        let width = usize::from(u16::from_be_bytes([*w0, *w1]));
        if *bits != 8 {
            return Err(format!("{bits} bits a sample instead of 8"));
        }
        reasonable(height, width)?;
        if !matches!(count, 1 | 3 | 4) || rest.len() != usize::from(*count) * 3 {
            return Err(format!("{count} colours instead of 1, 3 or 4"));
        }
        let parts = rest.chunks_exact(3).map(|part| {
            let factors = [part[1] & 15, part[1] >> 4].map(usize::from);
            (part[0], factors, usize::from(part[2]))
        });
        let mut most = [0; 2];
        for (_, factors, table) in parts.clone() {
            if !factors.iter().all(|factor| (1..=4).contains(factor)) || table > 3 {
                return Err(
                    "a sampling factor that is not 1 to 4, or a table that is not 0 to 3".to_owned()
                );
            }
            most = [0, 1].map(|axis| most[axis].max(factors[axis]));
        }
        let sides = [height, width];
        let units = [0, 1].map(|axis| sides[axis].div_ceil(8 * most[axis]));
        let mut components = Vec::new();
        for (id, factors, table) in parts {
            if components.iter().any(|known: &Component| known.id == id) {
                return Err(format!("two colours with the number {id}"));
            }
            if [0, 1].iter().any(|&axis| most[axis] % factors[axis] != 0) {
                let message = format!("sampling factors {factors:?} beside {most:?}, no whole ratio");
                return Err(message);
            }
            let size = [0, 1].map(|axis| (sides[axis] * factors[axis]).div_ceil(most[axis]));
            components.push(Component {
                id,
                factors,
                table,
                quantization: None,
                size,
                blocks: size.map(|side| side.div_ceil(8)),
                columns: units[1] * factors[1],
                coefficients: Vec::new(),
                missing: [UNSEEN; 64],
            });
        }
        // Memory is taken only for what the file can hold: each block is at least one bit.
        let blocks: usize =
            components.iter().map(|component| component.blocks.iter().product::<usize>()).sum();
        if blocks > length.saturating_mul(8) {
            return Err(format!("{length} bytes, too few for {height}×{width} pixels"));
        }
        for component in &mut components {
            component.coefficients = vec![[0; 64]; units[0] * component.factors[0] * component.columns];
        }
        Ok(Frame { progressive: marker == 0xc2, height, width, most, units, components })
    }

    /// An error where a scan is missing. (libjpeg shows what there is.)
    pub(super) fn complete(&self) -> Result<(), String> {
        match self.components.iter().find(|component| component.missing != [0; 64]) {
            None => Ok(()),
            Some(component) => Err(format!("not all scans of its colour {}", component.id)),
        }
    }
}
