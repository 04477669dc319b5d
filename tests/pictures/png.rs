//! PNG files written by hand: of any kind, right or not.

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let named = [kind, data].concat();
    [&(data.len() as u32).to_be_bytes()[..], &named, &crc(&named).to_be_bytes()].concat()
}

/// zlib without packing.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x78, 0x01];
    let mut pieces = data.chunks(0xffff).peekable();
    while let Some(piece) = pieces.next() {
        let length = piece.len() as u16;
        bytes.push(pieces.peek().is_none() as u8);
        bytes.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
        bytes.extend(piece);
    }
    let (a, b) = data.iter().fold((1_u32, 0_u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    });
    bytes.extend((b << 16 | a).to_be_bytes());
    bytes
}

/// `color`: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA. `lines` are rows with their filter's byte.
pub fn png(
    [height, width]: [usize; 2],
    color: u8,
    bits: u8,
    interlaced: bool,
    chunks: &[(&[u8; 4], Vec<u8>)],
    lines: &[u8],
) -> Vec<u8> {
    let [width, height] = [width, height].map(|side| (side as u32).to_be_bytes());
    let header = [&width[..], &height, &[bits, color, 0, 0, interlaced as u8]].concat();
    let mut bytes = [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &header)].concat();
    chunks.iter().for_each(|(kind, data)| bytes.extend(chunk(kind, data)));
    bytes.extend([chunk(b"IDAT", &stored(lines)), chunk(b"IEND", &[])].concat());
    bytes
}
