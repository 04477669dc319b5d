//! JPEG files: baseline, extended and progressive ones of 8 bits with Huffman codes, grey, RGB, YCbCr,
//! CMYK or YCCK, of any whole sampling ratio, in any number of scans.
//!
//! The pixels are libjpeg-turbo's to the bit (its accurate whole-number transform and its smooth
//! upsampling, which `djpeg`, Pillow and most frameworks use by default): networks are then given what
//! they were trained on. The crates that were there to choose from decode scans of one component with
//! some samplings to other images, without a word.
//!
//! Unlike libjpeg nothing is made up: a scan that ends early, a missing restart marker, scan or end is
//! an error.

use super::exif::{self, Orientation};
use crate::data::Image;
use frame::Frame;
use huffman::Table;
use transform::Plane;

mod frame;
mod huffman;
mod scan;
mod transform;
mod upsample;

/// What the segments before a scan leave behind.
#[derive(Default)]
struct Tables {
    quantization: [Option<[u16; 64]>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    /// Units between two restart markers; 0: there are none.
    restart: usize,
}

/// What is known of the colours.
#[derive(Default)]
struct Marks {
    jfif: bool,
    /// The transform in Adobe's segment.
    adobe: Option<u8>,
}

#[derive(Clone, Copy)]
enum Colour {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

/// The image as it is stored, and how it is to be turned.
pub(super) fn decode(bytes: &[u8]) -> Result<(Image, Orientation), String> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return Err("expected a JPEG file, which starts with the bytes FF D8".to_owned());
    }
    whole(bytes)
        .map_err(|message| format!("expected a JPEG file that is whole and right, got {message}"))
}

fn whole(bytes: &[u8]) -> Result<(Image, Orientation), String> {
    let (mut tables, mut marks) = (Tables::default(), Marks::default());
    let (mut frame, mut orientation) = (None, Orientation::default());
    let mut at = 2;
    loop {
        let (marker, body) = segment(bytes, &mut at)?;
        match (marker, &mut frame) {
            (0xc0..=0xc2, None) => frame = Some(Frame::new(marker, body, bytes.len())?),
            (0xc0..=0xc2, Some(_)) => return Err("two frames".to_owned()),
            (0xc4, _) => huffman_tables(body, &mut tables)?,
            (0xc3 | 0xc5..=0xcf, _) => return Err(unknown(marker)),
            (0xd9, Some(frame)) => {
                frame.complete()?;
                return Ok((image(frame, &marks)?, orientation));
            }
            (0xda, Some(frame)) => at = scan::decode(frame, &tables, body, bytes, at)?,
            (0xd9 | 0xda, None) => return Err("no frame header".to_owned()),
            (0xdb, _) => quantization_tables(body, &mut tables)?,
            (0xdc, _) => return Err("a number of rows that comes after them".to_owned()),
            (0xdd, _) => match *body {
                [high, low] => tables.restart = u16::from_be_bytes([high, low]).into(),
                _ => return Err("a restart interval of a wrong length".to_owned()),
            },
            (0xe0, _) => marks.jfif |= body.starts_with(b"JFIF\0"),
            (0xe1, _) => {
                if let Some(tiff) = body.strip_prefix(b"Exif\0\0") {
                    orientation = exif::orientation(tiff);
                }
            }
            (0xee, _) if body.starts_with(b"Adobe") && body.len() >= 12 => marks.adobe = Some(body[11]),
            _ => {}
        }
    }
}

fn unknown(marker: u8) -> String {
    let what = match marker {
        0xc3 => "lossless coding",
        0xc9..=0xcb => "arithmetic coding",
        0xcc => "an arithmetic coding's table",
        _ => "hierarchical coding",
    };
    format!("{what}, which is not read: convert it to a baseline JPEG")
}

/// The next marker and what belongs to it. What stands between two segments is passed over, as libjpeg
/// does: cameras leave such bytes after a scan.
fn segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<(u8, &'a [u8]), String> {
    let cut = || "a file that ends before its end marker".to_owned();
    loop {
        let found = bytes
            .get(*at..)
            .and_then(|rest| rest.windows(2).position(|pair| pair[0] == 0xff && pair[1] != 0xff));
        *at += found.ok_or_else(cut)? + 2;
        match bytes[*at - 1] {
            // A stuffed byte; markers of no use here.
            0 | 1 | 0xd0..=0xd8 => {}
            0xd9 => return Ok((0xd9, &[])),
            marker => {
                let length = bytes.get(*at..*at + 2).ok_or_else(cut)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                let body = bytes.get(*at..*at + length).ok_or_else(cut)?;
                *at += length;
                let body = body.get(2..).ok_or("a segment shorter than its own length")?;
                return Ok((marker, body));
            }
        }
    }
}

fn quantization_tables(mut body: &[u8], tables: &mut Tables) -> Result<(), String> {
    while let [kind, rest @ ..] = body {
        let (wide, number) = (kind >> 4 == 1, usize::from(kind & 15));
        let size = if wide { 128 } else { 64 };
        if kind >> 4 > 1 || number > 3 || rest.len() < size {
            return Err("a quantization table that is damaged".to_owned());
        }
        let mut table = [0; 64];
        for (i, &place) in scan::ZIGZAG.iter().enumerate() {
            table[usize::from(place)] = match wide {
                true => u16::from_be_bytes([rest[2 * i], rest[2 * i + 1]]),
                false => rest[i].into(),
            };
        }
        tables.quantization[number] = Some(table);
        body = &rest[size..];
    }
    Ok(())
}

fn huffman_tables(mut body: &[u8], tables: &mut Tables) -> Result<(), String> {
    while let [kind, rest @ ..] = body {
        let damaged = "a Huffman table that is damaged";
        let (counts, rest) = rest.split_first_chunk::<16>().ok_or(damaged)?;
        let count = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(count).ok_or(damaged)?;
        let kinds = if kind >> 4 == 0 { &mut tables.dc } else { &mut tables.ac };
        let place = kinds.get_mut(usize::from(kind & 15)).filter(|_| kind >> 4 < 2).ok_or(damaged)?;
        *place = Some(Table::new(counts, symbols)?);
        body = rest;
    }
    Ok(())
}

impl Marks {
    /// Which colours these are, by libjpeg's rules.
    fn colour(&self, frame: &Frame) -> Colour {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (ids.len(), self.adobe) {
            (1, _) => Colour::Grey,
            (3, Some(0)) if !self.jfif => Colour::Rgb,
            (3, None) if !self.jfif && ids == *b"RGB" => Colour::Rgb,
            (3, _) => Colour::YCbCr,
            (_, None | Some(0)) => Colour::Cmyk,
            (_, Some(_)) => Colour::Ycck,
        }
    }
}

fn image(frame: &mut Frame, marks: &Marks) -> Result<Image, String> {
    let colour = marks.colour(frame);
    let (most, width) = (frame.most, frame.width);
    let planes: Vec<(Plane, [usize; 2])> = frame
        .components
        .iter_mut()
        .map(|component| {
            (Plane::new(component), [0, 1].map(|axis| most[axis] / component.factors[axis]))
        })
        .collect();
    let mut lines: Vec<Vec<u8>> =
        planes.iter().map(|(plane, ratio)| vec![0; plane.width * ratio[1]]).collect();
    let mut rgb = vec![0; frame.height * width * 3];
    for (y, row) in rgb.chunks_exact_mut(width * 3).enumerate() {
        for ((plane, ratio), line) in planes.iter().zip(&mut lines) {
            upsample::row(plane, *ratio, y, line);
        }
        match colour {
            Colour::Grey => convert(row, &lines, |[grey]| [grey; 3]),
            Colour::Rgb => convert(row, &lines, |rgb| rgb),
            Colour::YCbCr => convert(row, &lines, ycbcr),
            Colour::Cmyk => convert(row, &lines, |[c, m, y, k]| inked([c, m, y], k)),
            Colour::Ycck => convert(row, &lines, |[y, cb, cr, k]| {
                inked(ycbcr([y, cb, cr]).map(|value| 255 - value), k)
            }),
        }
    }
    Image::new(frame.height, width, rgb).map_err(|error| error.to_string())
}

/// Writes a row of pixels from a line of each component.
fn convert<const N: usize>(row: &mut [u8], lines: &[Vec<u8>], rgb: impl Fn([u8; N]) -> [u8; 3]) {
    let lines: [&[u8]; N] = std::array::from_fn(|component| &lines[component][..row.len() / 3]);
    for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&rgb(std::array::from_fn(|component| lines[component][x])));
    }
}

/// Red, green and blue, rounded as libjpeg does.
fn ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let [y, cb, cr] = [i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128];
    let half = 1 << 15;
    // 1.402, 0.34414, 0.71414 and 1.772 with 16 bits of fraction.
    [(91881 * cr + half) >> 16, (half - 22554 * cb - 46802 * cr) >> 16, (116_130 * cb + half) >> 16]
        .map(|difference| (y + difference).clamp(0, 255) as u8)
}

/// Colours through black ink. Four-colour JPEGs store how much of the paper shows, with Adobe's segment
/// and, by the custom of libjpeg's tools and of browsers, without.
fn inked(colours: [u8; 3], black: u8) -> [u8; 3] {
    colours.map(|colour| ((u32::from(colour) * u32::from(black) * 2 + 255) / 510) as u8)
}
