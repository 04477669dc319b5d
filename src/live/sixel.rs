//! An image in a terminal that shows pixels: sixels, bands of six rows, a character a column.
//!
//! After `ESC P q` come the colours (`#1;2;R;G;B`, in percent), then band by band and colour by colour a
//! character for each column: its six bits, plus `?`, say which of the six pixels have the colour (`!12~`:
//! the same twelve times). `$` goes back to the band's beginning, `-` to the next band. There is room for 256
//! colours: which, [`Palette`] decides.
//! Source: DEC, "VT330/VT340 Programmer Reference Manual", volume 2, chapter 14 (1987).

use super::tiles::Tiles;
use crate::data::Image;
use ratatui::buffer::{Buffer, CellDiffOption};
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use std::fmt::Write;
use std::num::NonZeroU16;

/// Draws tiles of one size, which stand side by side in an image, as [`HalfBlocks`](super::HalfBlocks) does,
/// but each of their pixels.
///
/// ```
/// use atrous::data::Image;
/// use atrous::live::Sixels;
/// use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget};
///
/// let image = Image::new(6, 6, [255, 0, 0].repeat(36))?; // red
/// let mut screen = Buffer::empty(Rect::new(0, 0, 1, 1));
/// Sixels { image: &image, tiles: 1, cell: (6, 6) }.render(screen.area, &mut screen);
/// let text = screen[(0, 0)].symbol();
/// assert!(text.contains("\u{1b}P") && text.contains("2;100;0;0"), "{text:?}"); // in percent
/// # Ok::<(), atrous::Error>(())
/// ```
pub struct Sixels<'a> {
    /// The tiles side by side.
    pub image: &'a Image,
    /// How many there are, at least one.
    pub tiles: usize,
    /// A character's width and height, in pixels.
    pub cell: (u16, u16),
}

impl Widget for Sixels<'_> {
    /// A tile is, as a whole, the text of its first character; the others that it covers are left alone.
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let Some(tiles) = Tiles::new(self.image, self.tiles) else { return };
        let cell = [self.cell.0, self.cell.1].map(|pixels| pixels.max(1) as usize);
        let pixels = |width: u16, height: u16| (width as usize * cell[0], height as usize * cell[1]);
        let (width, height) = pixels(area.width, area.height);
        let columns = tiles.arrangement(width, height).0;
        // Each tile's place begins with a character.
        let (across, down) =
            (area.width / columns as u16, area.height / self.tiles.div_ceil(columns) as u16);
        let (width, height) = pixels(across, down);
        let size = tiles.fitted(width, height);
        if size.0 == 0 || size.1 == 0 {
            return;
        }
        for tile in 0..self.tiles {
            let (column, row) = ((tile % columns) as u16, (tile / columns) as u16);
            let (left, top) = (area.x + column * across, area.y + row * down);
            let covered = [size.0.div_ceil(cell[0]) as u16, size.1.div_ceil(cell[1]) as u16];
            for place in Rect::new(left, top, covered[0], covered[1]).intersection(area).positions() {
                buffer[place].set_diff_option(CellDiffOption::Skip);
            }
            let pixel = |y: usize, x: usize| tiles.pixel(tile, (x, y), size);
            let pixels: Vec<[u8; 3]> =
                (0..size.1).flat_map(|y| (0..size.0).map(move |x| pixel(y, x))).collect();
            buffer[(left, top)]
                .set_symbol(&encode(&pixels, size.0))
                .set_diff_option(CellDiffOption::ForcedWidth(NonZeroU16::MIN));
        }
    }
}

/// Rows of so many pixels as sixels, with the escape sequence around them.
fn encode(pixels: &[[u8; 3]], width: usize) -> String {
    let palette = Palette::of(pixels);
    // 1: pixels that nothing is said of stay as they are. Then the size, of square pixels.
    let mut text = format!("\x1bP0;1q\"1;1;{width};{}", pixels.len() / width);
    for (i, colour) in palette.colours.iter().enumerate() {
        let [r, g, b] = colour.map(|value| (value as u32 * 100 + 127) / 255);
        let _ = write!(text, "#{i};2;{r};{g};{b}");
    }
    for (i, band) in pixels.chunks(BAND * width).enumerate() {
        if i > 0 {
            text.push('-');
        }
        // Of each colour the bits of its columns; none of a colour that the band does not have.
        let mut bits = vec![Vec::new(); palette.colours.len()];
        for (row, pixels) in band.chunks(width).enumerate() {
            for (column, &pixel) in pixels.iter().enumerate() {
                let columns: &mut Vec<u8> = &mut bits[palette.index(pixel)];
                columns.resize(width, 0);
                columns[column] |= 1 << row;
            }
        }
        for (colour, columns) in bits.iter().enumerate().filter(|(_, columns)| !columns.is_empty()) {
            let _ = write!(text, "#{colour}");
            columns
                .chunk_by(|a, b| a == b)
                .for_each(|run| repeat(&mut text, (b'?' + run[0]) as char, run.len()));
            text.push('$');
        }
    }
    text + "\x1b\\"
}

/// Rows of a band.
const BAND: usize = 6;

/// A count is worth its characters from four on.
fn repeat(text: &mut String, character: char, times: usize) {
    match times {
        0..4 => text.extend(std::iter::repeat_n(character, times)),
        _ => drop(write!(text, "!{times}{character}")),
    }
}

/// Colours of an image.
const COLOURS: usize = 256;

/// At most [`COLOURS`] colours, and which of them stands for which pixel.
///
/// By median cut: the box around all colours is cut at the middle of the pixels along its longest side, then
/// the box with the most pixels times side, and so on; a box's colour is its pixels' mean. Pixels that agree
/// in five bits of each channel stay together.
/// Source: Heckbert, "Color Image Quantization for Frame Buffer Display" (1982).
struct Palette {
    colours: Vec<[u8; 3]>,
    /// Of each colour of five bits a channel.
    of: Vec<u8>,
}

/// Pixels of the same five bits a channel.
#[derive(Clone, Copy)]
struct Group {
    key: usize,
    count: u32,
    sum: [u32; 3],
}

impl Group {
    fn channel(&self, channel: usize) -> usize {
        self.key >> (10 - 5 * channel) & 31
    }
}

/// Five bits of each channel.
fn key([r, g, b]: [u8; 3]) -> usize {
    [r, g, b].iter().fold(0, |key, &value| key << 5 | (value >> 3) as usize)
}

impl Palette {
    fn of(pixels: &[[u8; 3]]) -> Self {
        let mut groups: Vec<Group> =
            (0..1 << 15).map(|key| Group { key, count: 0, sum: [0; 3] }).collect();
        for &pixel in pixels {
            let group = &mut groups[key(pixel)];
            group.count += 1;
            group.sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value as u32);
        }
        groups.retain(|group| group.count > 0);
        let mut boxes = vec![groups];
        while boxes.len() < COLOURS
            && let Some(widest) = (0..boxes.len()).max_by_key(|&i| weight(&boxes[i]))
            && weight(&boxes[widest]) > 0
        {
            let upper = cut(&mut boxes[widest]);
            boxes.push(upper);
        }
        let mut palette = Palette { colours: Vec::new(), of: vec![0; 1 << 15] };
        for (i, groups) in boxes.iter().enumerate() {
            groups.iter().for_each(|group| palette.of[group.key] = i as u8);
            palette.colours.push(mean(groups));
        }
        palette
    }

    fn index(&self, pixel: [u8; 3]) -> usize {
        self.of[key(pixel)] as usize
    }
}

/// The longest side of a box, and its length.
fn longest(groups: &[Group]) -> (usize, usize) {
    let length = |channel: usize| {
        let values = groups.iter().map(|group| group.channel(channel));
        values.clone().max().unwrap_or(0) - values.min().unwrap_or(0)
    };
    (0..3).map(|channel| (channel, length(channel))).max_by_key(|side| side.1).unwrap_or((0, 0))
}

fn count(groups: &[Group]) -> u64 {
    groups.iter().map(|group| group.count as u64).sum()
}

fn weight(groups: &[Group]) -> u64 {
    count(groups) * longest(groups).1 as u64
}

/// Cuts a box of several groups at the middle of its pixels; what is above.
fn cut(groups: &mut Vec<Group>) -> Vec<Group> {
    let (channel, half) = (longest(groups).0, count(groups) / 2);
    groups.sort_by_key(|group| group.channel(channel));
    let mut below = 0;
    let before = |group: &&Group| {
        below += group.count as u64;
        below <= half
    };
    let at = groups.iter().take_while(before).count();
    groups.split_off(at.clamp(1, groups.len() - 1))
}

fn mean(groups: &[Group]) -> [u8; 3] {
    let n = count(groups).max(1);
    std::array::from_fn(|channel| {
        let sum: u64 = groups.iter().map(|group| group.sum[channel] as u64).sum();
        ((sum + n / 2) / n) as u8
    })
}
