//! Picture files of every kind: what is taken, and what is refused with which words.
#![cfg(feature = "pictures")]

use atrous::data::convert::convert;
use atrous::data::picture_files::{
    MOST_PIXELS, decode_mask_png, decode_picture, encode_mask_png, encode_png, voc_palette, write_jpeg,
};
use atrous::data::source::Layout;
use atrous::data::voc_devkit::{self, Task, VocDevkit};
use atrous::data::voc_npy::{Split, VocNpy};
use atrous::data::{Dataset, Mask, Picture, check};
use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Notes the largest piece of memory that a thread asks for.
struct Noting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is done by the system's allocator; the note is a number of the thread's own, which takes no memory.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(memory.size())));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, place: *mut u8, memory: Memory) {
        // SAFETY: as above; all memory is the system allocator's.
        unsafe { System.dealloc(place, memory) }
    }
}

#[global_allocator]
static NOTING: Noting = Noting;

/// What `f` returns, and the largest piece of memory that it asked for.
fn noting<T>(f: impl FnOnce() -> T) -> (T, usize) {
    LARGEST.set(0);
    let result = f();
    (result, LARGEST.get())
}

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures")
}

fn file(name: &str) -> Vec<u8> {
    fs::read(files().join(name)).unwrap()
}

/// Smooth enough for a JPEG.
fn picture(height: usize, width: usize) -> Picture {
    let value = |i: usize| {
        let (pixel, channel) = (i / 3, i % 3);
        (40 + pixel / width * 5 + pixel % width * 3 + channel * 20) as u8
    };
    Picture::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
}

/// The pixels of a binary PPM of 8 bits.
fn ppm(bytes: &[u8]) -> Picture {
    let head: Vec<&[u8]> = bytes.splitn(4, |byte| byte.is_ascii_whitespace()).collect();
    let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse().unwrap();
    let (width, height): (usize, usize) = (number(head[1]), number(head[2]));
    Picture::new(height, width, bytes[bytes.len() - height * width * 3..].to_vec()).unwrap()
}

// ----- JPEG -----

#[test]
fn jpegs_in_any_scans_sampling_and_colours_have_libjpeg_turbos_pixels() {
    for name in [
        "noninterleaved_420",
        "y_then_cbcr_420",
        "rgb_app14_0",
        "rgb_no_marks",
        "half_chroma_scan_each",
        "progressive_420_restarts",
    ] {
        let got = decode_picture(&file(&format!("{name}.jpg"))).unwrap();
        assert!(got == ppm(&file(&format!("{name}.ppm"))), "{name}");
    }
}

fn jpeg(color: jpeg_encoder::ColorType, side: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    jpeg_encoder::Encoder::new(&mut bytes, 95).encode(data, side, side, color).unwrap();
    bytes
}

#[test]
fn a_grey_jpeg_becomes_rgb() {
    let grey: Vec<u8> = (0..=255).map(|i| i / 16 * 8 + 60).collect();
    let picture = decode_picture(&jpeg(jpeg_encoder::ColorType::Luma, 16, &grey)).unwrap();
    assert_eq!((picture.height, picture.width, picture.rgb.len()), (16, 16, 768));
    for (pixel, &value) in picture.rgb.chunks(3).zip(&grey) {
        assert!(pixel[0] == pixel[1] && pixel[1] == pixel[2] && pixel[0].abs_diff(value) <= 3);
    }
}

#[test]
fn jpegs_of_four_inks_become_rgb() {
    use jpeg_encoder::ColorType;
    // How much of the paper each ink leaves: what the encoder takes is the ink, what it writes the rest.
    for [c, m, y, k] in [[255, 255, 255, 255], [200, 90, 30, 255], [200, 90, 30, 128], [10, 20, 30, 0]] {
        let inks = [255 - c, 255 - m, 255 - y, 255 - k];
        let expected = [c, m, y].map(|rest: u32| (rest * k) as f32 / 255.0);
        let stored: Vec<u8> = inks.map(|ink| ink as u8).repeat(256);
        for color in [ColorType::Cmyk, ColorType::CmykAsYcck] {
            let picture = decode_picture(&jpeg(color, 16, &stored)).unwrap();
            for (&got, expected) in picture.rgb[..3].iter().zip(expected) {
                assert!(
                    (f32::from(got) - expected).abs() <= 3.0,
                    "{color:?} {inks:?}: {got} for {expected}"
                );
            }
        }
    }
}

#[test]
fn a_jpeg_that_is_cut_off_is_refused_even_with_an_end_marker() {
    for name in ["noninterleaved_420.jpg", "progressive_420_restarts.jpg", "half_chroma_scan_each.jpg"] {
        let whole = file(name);
        for length in 0..whole.len() - 2 {
            assert!(decode_picture(&whole[..length]).is_err(), "{name}: {length}");
            let ended = [&whole[..length], &[0xff, 0xd9]].concat();
            let error = decode_picture(&ended).err();
            assert!(error.is_some(), "{name}: {length} of {} bytes and an end marker", whole.len());
        }
        let trailing = [&whole[..], b"what cameras append"].concat();
        assert!(decode_picture(&trailing).is_ok());
    }
}

#[test]
fn jpegs_of_kinds_that_are_not_read_say_so() {
    let whole = file("noninterleaved_420.jpg");
    let frame = whole.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    for (at, byte, part) in [
        (frame + 1, 0xc9, "arithmetic coding"),
        (frame + 1, 0xc3, "lossless coding"),
        (frame + 1, 0xc5, "hierarchical coding"),
        (frame + 4, 12, "12 bits a sample instead of 8"),
        (frame + 11, 0x30, "a sampling factor that is not 1 to 4"),
        (frame + 14, 0x31, "no whole ratio"),
    ] {
        let mut changed = whole.clone();
        changed[at] = byte;
        let error = decode_picture(&changed).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

// ----- Exif -----

/// Exif data that says how the camera was held.
fn exif(number: u8) -> Vec<u8> {
    [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[number][..], b"\0\0\0\0\0\0"].concat()
}

/// The upright picture of which a camera held so stores these pixels.
fn upright(stored: &Picture, number: u8) -> Picture {
    let (h, w) = (stored.height, stored.width);
    let [rows, columns] = if number < 5 { [h, w] } else { [w, h] };
    let mut rgb = Vec::new();
    for (r, c) in (0..rows * columns).map(|i| (i / columns, i % columns)) {
        let (y, x) = match number {
            2 => (r, w - 1 - c),
            3 => (h - 1 - r, w - 1 - c),
            4 => (h - 1 - r, c),
            5 => (c, r),
            6 => (h - 1 - c, r),
            7 => (h - 1 - c, w - 1 - r),
            8 => (c, w - 1 - r),
            _ => (r, c),
        };
        rgb.extend_from_slice(&stored.rgb[(y * w + x) * 3..][..3]);
    }
    Picture::new(rows, columns, rgb).unwrap()
}

fn jpeg_with_exif(jpeg: &[u8], number: u8) -> Vec<u8> {
    let data = [b"Exif\0\0", &exif(number)[..]].concat();
    let length = (data.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &data, &jpeg[2..]].concat()
}

fn webp_with_exif(picture: &Picture, number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image_webp::WebPEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(number));
    let (width, height) = (picture.width as u32, picture.height as u32);
    encoder.encode(&picture.rgb, width, height, image_webp::ColorType::Rgb8).unwrap();
    bytes
}

#[test]
fn the_orientation_in_exif_data_is_applied_to_jpeg_png_and_webp() {
    let jpeg = file("noninterleaved_420.jpg");
    let stored = decode_picture(&jpeg).unwrap();
    let lines: Vec<u8> =
        stored.rgb.chunks(stored.width * 3).flat_map(|row| [&[0], row].concat()).collect();
    let mask = Mask::new(2, 3, vec![0, 1, 2, 3, 4, 5]).unwrap();
    for number in 0..=9 {
        let expected = upright(&stored, number);
        assert!(decode_picture(&jpeg_with_exif(&jpeg, number)).unwrap() == expected, "JPEG {number}");
        assert!(decode_picture(&webp_with_exif(&stored, number)).unwrap() == expected, "WebP {number}");
        let chunk = (b"eXIf", exif(number));
        let png = png([stored.height, stored.width], 2, 8, false, &[chunk.clone()], &lines);
        assert!(decode_picture(&png).unwrap() == expected, "PNG {number}");
        // A mask that says so is turned as well.
        let png = self::png([2, 3], 0, 8, false, &[chunk], &[0, 0, 1, 2, 0, 3, 4, 5]);
        let rgb = mask.classes.iter().flat_map(|&class| [class; 3]).collect();
        let turned = upright(&Picture::new(2, 3, rgb).unwrap(), number);
        let classes: Vec<u8> = turned.rgb.iter().step_by(3).copied().collect();
        assert_eq!(decode_mask_png(&png).unwrap().classes, classes, "mask {number}");
    }
}

// ----- PNG, written by hand: any kind, right or not -----

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
fn png(
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

/// A mask of one row in a palette.
fn indexed(bits: u8, palette: &[[u8; 3]], opacities: &[u8], row: &[u8], width: usize) -> Vec<u8> {
    let mut chunks = vec![(b"PLTE", palette.concat())];
    if !opacities.is_empty() {
        chunks.push((b"tRNS", opacities.to_vec()));
    }
    png([1, width], 3, bits, false, &chunks, &[&[0], row].concat())
}

const VOID: [u8; 3] = [224, 224, 192];
const DOG: [u8; 3] = [64, 0, 128];

/// The classes, or the error.
fn mask(bytes: &[u8]) -> Result<Vec<u8>, String> {
    decode_mask_png(bytes).map(|mask| mask.classes)
}

#[test]
fn a_palette_png_whose_numbers_go_beyond_its_palette_is_an_error_and_no_panic() {
    // A palette of 14 bytes.
    let damaged = png([9, 9], 3, 1, false, &[(b"PLTE", vec![7; 14])], &[0; 27]);
    let error = decode_picture(&damaged).unwrap_err();
    assert!(error.contains("expected a palette of three bytes a colour, got 14 bytes"), "{error}");
    assert!(mask(&damaged).is_err());
    let beyond = indexed(8, &[[0; 3], DOG], &[], &[0, 1, 5], 3);
    let error = decode_picture(&beyond).unwrap_err();
    assert_eq!(error, "expected numbers of a palette of 2 colours, got 5 at row 0, column 2");
    assert!(mask(&beyond).unwrap_err().contains("the number 5, which has no colour"));
    let none = png([1, 3], 3, 8, false, &[], &[0, 0, 1, 2]);
    assert!(decode_picture(&none).is_err() && mask(&none).is_err());
}

#[test]
fn masks_in_palettes_of_few_bits_grey_or_colours_hold_classes() {
    let palette = voc_palette();
    // Five pixels a row: the last bytes of a row are partly empty.
    let one = [0, 0b1011_0000, 0, 0b0000_1000];
    let one = png([2, 5], 3, 1, false, &[(b"PLTE", palette[..2].concat())], &one);
    assert_eq!(mask(&one).unwrap(), [1, 0, 1, 1, 0, 0, 0, 0, 0, 1]);
    let two = indexed(2, &palette[..4], &[], &[0b00_01_10_11, 0b10_000000], 5);
    assert_eq!(mask(&two).unwrap(), [0, 1, 2, 3, 2]);
    let four = indexed(4, &palette[..16], &[], &[0x0f, 0x70], 3);
    assert_eq!(mask(&four).unwrap(), [0, 15, 7]);
    // By colour in two bits.
    let four = indexed(2, &[VOID, DOG, [0; 3]], &[], &[0b10_01_00_01], 4);
    assert_eq!(mask(&four).unwrap(), [0, 12, 255, 12]);
    let grey = png([1, 3], 0, 8, false, &[], &[0, 0, 20, 255]);
    assert_eq!(mask(&grey).unwrap(), [0, 20, 255]);
    // What optimisers make of the colours of background and class 7.
    let car = png([1, 3], 0, 8, false, &[], &[0, 0, 128, 0]);
    assert_eq!(mask(&car).unwrap(), [0, 7, 0]);
    // Levels that are neither stay what they are, and are told by number later.
    let neither = png([1, 3], 0, 8, false, &[], &[0, 0, 128, 20]);
    assert_eq!(mask(&neither).unwrap(), [0, 128, 20]);
    let rgb = [&[0][..], &[0; 3], &DOG, &VOID].concat();
    assert_eq!(mask(&png([1, 3], 2, 8, false, &[], &rgb)).unwrap(), [0, 12, 255]);
    let rgba = [0, 0, 0, 0, 255, 64, 0, 128, 255];
    assert_eq!(mask(&png([1, 2], 6, 8, false, &[], &rgba)).unwrap(), [0, 12]);
}

#[test]
fn interlaced_masks_are_read() {
    // Adam7 of three rows of three: its passes 1, 4, 5, 6 (two rows) and 7.
    let lines = [[0, 0].as_slice(), &[0, 2], &[0, 20, 8], &[0, 1], &[0, 7], &[0, 3, 4, 255]].concat();
    let grey = png([3, 3], 0, 8, true, &[], &lines);
    assert_eq!(mask(&grey).unwrap(), [0, 1, 2, 3, 4, 255, 20, 7, 8]);
}

#[test]
fn transparency_counts_where_colours_do() {
    // Numbers of VOC's palette, half of them transparent.
    let numbers = indexed(8, &voc_palette(), &[0, 0, 77], &[0, 1, 2], 3);
    assert_eq!(mask(&numbers).unwrap(), [0, 1, 2]);
    let colours = indexed(8, &[[0; 3], DOG], &[255, 0], &[0, 1, 1], 3);
    assert!(mask(&colours).unwrap_err().contains("the transparent colour [64, 0, 128] under 1"));
    let rgba = png([1, 2], 6, 8, false, &[], &[0, 0, 0, 0, 255, 64, 0, 128, 3]);
    assert!(
        mask(&rgba)
            .unwrap_err()
            .ends_with("got the transparent colour [64, 0, 128] (RGBA) at row 0, column 1")
    );
    let rgb = [&[0][..], &[0; 3], &DOG].concat();
    let key = (b"tRNS", vec![0, 64, 0, 0, 0, 128]);
    let rgb = png([1, 2], 2, 8, false, &[key], &rgb);
    assert!(mask(&rgb).unwrap_err().contains("the transparent colour [64, 0, 128] (RGB)"));
}

#[test]
fn masks_of_other_colours_or_of_kinds_with_two_readings_are_refused() {
    let kinds = [
        (2, 8, &[0, 1, 1, 1, 2, 2, 2][..], "got the colour [1, 1, 1] (RGB) at row 0, column 0"),
        (6, 8, &[0, 0, 0, 0, 255, 9, 9, 9, 255], "got the colour [9, 9, 9] (RGBA) at row 0, column 1"),
        (2, 16, &[0; 13], "got RGB of 16 bits"),
        (0, 16, &[0; 5], "got grey of 16 bits"),
        (4, 8, &[0; 5], "got grey and alpha of 8 bits"),
        (
            0,
            1,
            &[0, 0b0100_0000],
            "got levels of grey that may stand for themselves or for parts of white (1 bits)",
        ),
        (0, 4, &[0, 0x0f], "for parts of white (4 bits)"),
    ];
    for (color, bits, line, part) in kinds {
        let error = mask(&png([1, 2], color, bits, false, &[], line)).unwrap_err();
        assert!(
            error.starts_with("expected a mask of palette numbers") && error.contains(part),
            "{error}"
        );
    }
    // Nothing but background has one reading.
    assert_eq!(mask(&png([1, 2], 0, 1, false, &[], &[0, 0])).unwrap(), [0, 0]);
}

/// A folder of three pictures whose masks have VOC's colours under the numbers 0, 1 and 2.
fn renumbered() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for folder in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for (id, colour) in [("a", [128, 0, 0]), ("b", [192, 128, 128]), ("c", [0, 0, 128])] {
        write_jpeg(voc_devkit::picture_path(root, id), &picture(4, 5)).unwrap();
        let lines = [0, 0, 1, 2, 2, 0].repeat(4);
        let palette = (b"PLTE", [[0; 3], VOID, colour].concat());
        fs::write(voc_devkit::mask_path(root, id), png([4, 5], 3, 8, false, &[palette], &lines))
            .unwrap();
    }
    fs::write(Task::Segmentation.list(root, "train"), "a\nb\nc\n").unwrap();
    dir
}

#[test]
fn a_folder_of_renumbered_masks_has_the_classes_of_its_colours_everywhere() {
    let dir = renumbered();
    let (root, out) = (dir.path(), tempfile::tempdir().unwrap());
    let train = VocDevkit::open(root, Task::Segmentation, "train").unwrap();
    for (i, class) in [1, 15, 4].into_iter().enumerate() {
        assert_eq!(train.mask(i).unwrap().unwrap().classes[..5], [0, 255, class, class, 0]);
        let labels: Vec<usize> = (0..20).filter(|&c| train.labels(i).unwrap()[c]).collect();
        assert_eq!(labels, [usize::from(class) - 1]);
    }
    assert!(check::check(root).unwrap().is_fine());
    let npy = out.path().join("npy");
    convert(root, &npy, Layout::VocNpy, &|_, _| ControlFlow::Continue(())).unwrap();
    let converted = VocNpy::open(&npy, Split::Train).unwrap();
    assert_eq!(converted.mask(1).unwrap().unwrap().classes[..5], [0, 255, 15, 15, 0]);

    // One colour that is none of VOC's.
    let palette = (b"PLTE", [[0; 3], VOID, [1, 2, 3]].concat());
    let lines = [0, 0, 1, 2, 2, 0].repeat(4);
    fs::write(voc_devkit::mask_path(root, "b"), png([4, 5], 3, 8, false, &[palette], &lines)).unwrap();
    let text = train.mask(1).unwrap_err().to_string();
    for part in [
        "b.png: ",
        "[224, 224, 192], which is void, has the number 1",
        "got the colour [1, 2, 3] under 2",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

// ----- A folder's pictures are read by what they are -----

#[test]
fn a_picture_is_read_by_what_it_is_and_a_mask_has_to_fit_it_upright() {
    let dir = renumbered();
    let root = dir.path();
    let train = VocDevkit::open(root, Task::Segmentation, "train").unwrap();
    let mut png = Vec::new();
    encode_png(&mut png, &picture(4, 5)).unwrap();
    fs::write(voc_devkit::picture_path(root, "a"), png).unwrap();
    fs::write(voc_devkit::picture_path(root, "b"), webp_with_exif(&picture(4, 5), 1)).unwrap();
    assert!((0..2).all(|i| train.picture(i).unwrap() == picture(4, 5)));
    assert!(check::check(root).unwrap().is_fine());
    // Stored lying on its side: upright it has the mask's size.
    fs::write(voc_devkit::picture_path(root, "b"), webp_with_exif(&picture(5, 4), 6)).unwrap();
    assert!(check::check(root).unwrap().is_fine());
    fs::write(voc_devkit::picture_path(root, "b"), webp_with_exif(&picture(4, 5), 6)).unwrap();
    let text = check::check(root).unwrap().to_string();
    assert!(text.contains("b.png: expected the picture's size, 5×4, got 4×5"), "{text}");
}

#[test]
fn webps_have_libwebps_pixels_and_lose_their_transparency() {
    assert!(decode_picture(&file("lossy.webp")).unwrap() == ppm(&file("lossy.ppm")));
    let (rgb, mut bytes) = (picture(6, 7), Vec::new());
    let rgba: Vec<u8> = rgb.rgb.chunks(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 9]).collect();
    image_webp::WebPEncoder::new(&mut bytes).encode(&rgba, 7, 6, image_webp::ColorType::Rgba8).unwrap();
    assert!(decode_picture(&bytes).unwrap() == rgb);
}

// ----- Damage -----

/// Small files of every kind.
fn small() -> Vec<(&'static str, Vec<u8>)> {
    let mut files: Vec<(&str, Vec<u8>)> = [
        "noninterleaved_420.jpg",
        "progressive_420_restarts.jpg",
        "half_chroma_scan_each.jpg",
        "lossy.webp",
    ]
    .map(|name| (name, file(name)))
    .into();
    files.push(("lossless WebP", webp_with_exif(&picture(6, 7), 6)));
    let mut bytes = Vec::new();
    encode_png(&mut bytes, &picture(6, 7)).unwrap();
    files.push(("PNG", bytes));
    bytes = Vec::new();
    encode_mask_png(&mut bytes, &Mask::new(2, 2, vec![0, 1, 255, 20]).unwrap()).unwrap();
    files.push(("mask", bytes));
    files.push(("interlaced PNG", png([3, 3], 3, 2, true, &[(b"PLTE", vec![7; 12])], &[0; 40])));
    files
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_an_error() {
    for (name, whole) in small() {
        if !name.starts_with("interlaced") {
            assert!(decode_picture(&whole).is_ok(), "{name}");
        }
        for length in 0..whole.len() - 2 {
            assert!(
                decode_picture(&whole[..length]).is_err(),
                "{name}: {length} of {} bytes",
                whole.len()
            );
            assert!(
                decode_mask_png(&whole[..length]).is_err(),
                "{name}: {length} of {} bytes",
                whole.len()
            );
        }
    }
    assert!(decode_picture(b"").unwrap_err().ends_with("got one that starts with nothing"));
}

#[test]
fn a_damaged_file_neither_panics_nor_takes_much_memory() {
    for (name, whole) in small() {
        // Of a WebP no length follows from its size: its bits may be all but none.
        let most = if name.ends_with("WebP") || name.ends_with("webp") {
            4 * MOST_PIXELS
        } else {
            whole.len() * 30_000
        };
        for at in 0..whole.len() {
            for byte in [0, 0xff, whole[at] ^ 1, whole[at] ^ 0x80] {
                let mut changed = whole.clone();
                changed[at] = byte;
                let (_, largest) =
                    noting(|| (decode_picture(&changed).is_ok(), decode_mask_png(&changed).is_ok()));
                assert!(largest <= most, "{name}: byte {at} is {byte}, {largest} bytes of memory");
            }
        }
    }
}

#[test]
fn sizes_are_looked_at_before_memory_is_taken() {
    let mut jpeg = file("noninterleaved_420.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let mut claims = jpeg.clone();
    claims[frame + 5..frame + 9].copy_from_slice(&[0x1f, 0xff, 0x1f, 0xff]);
    let mut webp = webp_with_exif(&picture(6, 7), 1);
    // 16384 × 16384.
    let at = webp.windows(4).position(|four| four == b"VP8X").unwrap() + 12;
    webp[at..at + 6].copy_from_slice(&[0xff, 0x3f, 0, 0xff, 0x3f, 0]);
    // Half a megabyte may hold 8192 × 8192 pixels of four times 16 bits; as a mask it is refused by its kind.
    let mut wide = png([8192, 8192], 6, 16, false, &[], &[0; 8]);
    wide.resize(600_000, 0);
    let cases = [
        (jpeg, "expected 1 to 67108864 pixels"),
        (claims, "too few for 8191×8191 pixels"),
        (webp, "expected 1 to 67108864 pixels"),
        (png([1 << 20, 1 << 20], 2, 8, false, &[], &[]), "expected 1 to 67108864 pixels"),
        (png([8000, 8000], 2, 8, false, &[], &[0; 100]), "too few for 8000×8000 pixels"),
        (wide.clone(), "expected at most 268435456 bytes of pixels, got 536870912 (8192×8192)"),
    ];
    for (bytes, part) in cases {
        let (result, largest) = noting(|| decode_picture(&bytes));
        let error = result.unwrap_err();
        assert!(error.contains(part), "{error}");
        assert!(largest < 1 << 20, "{error}: {largest} bytes of memory");
    }
    let (result, largest) = noting(|| mask(&wide));
    assert!(result.unwrap_err().contains("got RGBA of 16 bits a channel"));
    assert!(largest < 1 << 20, "{largest} bytes of memory");
}
