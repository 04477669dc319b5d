//! Image files of every kind: what is taken, and what is refused with which words.
#![cfg(feature = "pictures")]

use atrous::data::image_files::{
    MOST_PIXELS, decode_image, decode_mask_png, encode_mask_png, encode_png, write_jpeg, write_mask_png,
};
use atrous::data::voc_devkit::{self, Task, VocDevkit};
use atrous::data::{Dataset, Image, Mask, check};
use png::png;
use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "pictures/png.rs"]
mod png;

/// Notes the largest piece of memory that a thread asks for.
struct Noting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is done by the system's allocator; the note is a number of the thread's own, which takes
// no memory.
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
fn image(height: usize, width: usize) -> Image {
    let value = |i: usize| {
        let (pixel, channel) = (i / 3, i % 3);
        (40 + pixel / width * 5 + pixel % width * 3 + channel * 20) as u8
    };
    Image::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
}

/// The pixels of a binary PPM of 8 bits.
fn ppm(bytes: &[u8]) -> Image {
    let head: Vec<&[u8]> = bytes.splitn(4, |byte| byte.is_ascii_whitespace()).collect();
    let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse().unwrap();
    let (width, height): (usize, usize) = (number(head[1]), number(head[2]));
    Image::new(height, width, bytes[bytes.len() - height * width * 3..].to_vec()).unwrap()
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
        let got = decode_image(&file(&format!("{name}.jpg"))).unwrap();
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
    let image = decode_image(&jpeg(jpeg_encoder::ColorType::Luma, 16, &grey)).unwrap();
    assert_eq!((image.height, image.width, image.rgb.len()), (16, 16, 768));
    for (pixel, &value) in image.rgb.chunks(3).zip(&grey) {
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
            let image = decode_image(&jpeg(color, 16, &stored)).unwrap();
            for (&got, expected) in image.rgb[..3].iter().zip(expected) {
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
            assert!(decode_image(&whole[..length]).is_err(), "{name}: {length}");
            let ended = [&whole[..length], &[0xff, 0xd9]].concat();
            let error = decode_image(&ended).err();
            assert!(error.is_some(), "{name}: {length} of {} bytes and an end marker", whole.len());
        }
        let trailing = [&whole[..], b"what cameras append"].concat();
        assert!(decode_image(&trailing).is_ok());
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
        let error = decode_image(&changed).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

// ----- Exif -----

/// Exif data that says how the camera was held.
fn exif(number: u8) -> Vec<u8> {
    [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0", &[number][..], b"\0\0\0\0\0\0"].concat()
}

/// The upright image of which a camera held so stores these pixels.
fn upright(stored: &Image, number: u8) -> Image {
    let (h, w) = (stored.height, stored.width);
    let [rows, columns] = if (5..=8).contains(&number) { [w, h] } else { [h, w] };
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
    Image::new(rows, columns, rgb).unwrap()
}

fn jpeg_with_exif(jpeg: &[u8], number: u8) -> Vec<u8> {
    let data = [b"Exif\0\0", &exif(number)[..]].concat();
    let length = (data.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &data, &jpeg[2..]].concat()
}

fn webp_with_exif(image: &Image, number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image_webp::WebPEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(number));
    let (width, height) = (image.width as u32, image.height as u32);
    encoder.encode(&image.rgb, width, height, image_webp::ColorType::Rgb8).unwrap();
    bytes
}

#[test]
fn the_orientation_in_exif_data_is_applied_to_jpeg_png_and_webp() {
    let jpeg = file("noninterleaved_420.jpg");
    let stored = decode_image(&jpeg).unwrap();
    let lines: Vec<u8> =
        stored.rgb.chunks(stored.width * 3).flat_map(|row| [&[0], row].concat()).collect();
    let mask = Mask::new(2, 3, vec![0, 1, 2, 3, 4, 5]).unwrap();
    for number in 0..=9 {
        let expected = upright(&stored, number);
        assert!(decode_image(&jpeg_with_exif(&jpeg, number)).unwrap() == expected, "JPEG {number}");
        assert!(decode_image(&webp_with_exif(&stored, number)).unwrap() == expected, "WebP {number}");
        let chunk = [(b"eXIf", exif(number))];
        let png = png([stored.height, stored.width], 2, 8, false, &chunk, &lines);
        assert!(decode_image(&png).unwrap() == expected, "PNG {number}");
        // A mask that says so is turned as well.
        let png = self::png([2, 3], 0, 8, false, &chunk, &[0, 0, 1, 2, 0, 3, 4, 5]);
        let rgb = mask.classes.iter().flat_map(|&class| [class; 3]).collect();
        let turned = upright(&Image::new(2, 3, rgb).unwrap(), number);
        let classes: Vec<u8> = turned.rgb.iter().step_by(3).copied().collect();
        assert_eq!(decode_mask_png(&png).unwrap().classes, classes, "mask {number}");
    }
}

// ----- A folder's images are read by what they are -----

/// A folder of two images with masks of 4×5.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for folder in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for id in ["a", "b"] {
        write_jpeg(voc_devkit::image_path(root, id), &image(4, 5)).unwrap();
        write_mask_png(voc_devkit::mask_path(root, id), &Mask::new(4, 5, vec![3; 20]).unwrap()).unwrap();
    }
    fs::write(Task::Segmentation.list(root, "train"), "a\nb\n").unwrap();
    dir
}

#[test]
fn a_image_is_read_by_what_it_is_and_a_mask_has_to_fit_it_upright() {
    let dir = folder();
    let root = dir.path();
    let train = VocDevkit::open(root, Task::Segmentation, "train").unwrap();
    let mut png = Vec::new();
    encode_png(&mut png, &image(4, 5)).unwrap();
    fs::write(voc_devkit::image_path(root, "a"), png).unwrap();
    fs::write(voc_devkit::image_path(root, "b"), webp_with_exif(&image(4, 5), 1)).unwrap();
    assert!((0..2).all(|i| train.image(i).unwrap() == image(4, 5)));
    assert!(check::check(root).unwrap().is_fine());
    // Stored lying on its side: upright it has the mask's size.
    fs::write(voc_devkit::image_path(root, "b"), webp_with_exif(&image(5, 4), 6)).unwrap();
    assert!(check::check(root).unwrap().is_fine());
    fs::write(voc_devkit::image_path(root, "b"), webp_with_exif(&image(4, 5), 6)).unwrap();
    let text = check::check(root).unwrap().to_string();
    assert!(text.contains("b.png: expected the picture's size, 5×4, got 4×5"), "{text}");
}

#[test]
fn webps_have_libwebps_pixels_and_lose_their_transparency() {
    assert!(decode_image(&file("lossy.webp")).unwrap() == ppm(&file("lossy.ppm")));
    let (rgb, mut bytes) = (image(6, 7), Vec::new());
    let rgba: Vec<u8> = rgb.rgb.chunks(3).flat_map(|pixel| [pixel[0], pixel[1], pixel[2], 9]).collect();
    image_webp::WebPEncoder::new(&mut bytes).encode(&rgba, 7, 6, image_webp::ColorType::Rgba8).unwrap();
    assert!(decode_image(&bytes).unwrap() == rgb);
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
    files.push(("lossless WebP", webp_with_exif(&image(6, 7), 6)));
    let mut bytes = Vec::new();
    encode_png(&mut bytes, &image(6, 7)).unwrap();
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
            assert!(decode_image(&whole).is_ok(), "{name}");
        }
        for length in 0..whole.len() - 2 {
            assert!(
                decode_image(&whole[..length]).is_err(),
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
    assert!(decode_image(b"").unwrap_err().ends_with("got one that starts with nothing"));
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
                    noting(|| (decode_image(&changed).is_ok(), decode_mask_png(&changed).is_ok()));
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
    let mut webp = webp_with_exif(&image(6, 7), 1);
    // 16384 × 16384.
    let at = webp.windows(4).position(|four| four == b"VP8X").unwrap() + 12;
    webp[at..at + 6].copy_from_slice(&[0xff, 0x3f, 0, 0xff, 0x3f, 0]);
    // A small canvas around a lossy image that claims more.
    let lossy = file("lossy.webp");
    let canvas = [&b"VP8X\x0a\0\0\0\0\0\0\0"[..], &[16, 0, 0, 12, 0, 0]].concat();
    let mut larger = [&lossy[..12], &canvas, &lossy[12..]].concat();
    larger[4] += canvas.len() as u8;
    assert!(decode_image(&larger).is_ok());
    larger[canvas.len() + 26..][..4].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    // Half a megabyte may hold 8192 × 8192 pixels of four times 16 bits; as a mask it is refused by its kind.
    let mut wide = png([8192, 8192], 6, 16, false, &[], &[0; 8]);
    wide.resize(600_000, 0);
    let cases = [
        (jpeg, "expected 1 to 67108864 pixels"),
        (claims, "too few for 8191×8191 pixels"),
        (webp, "expected 1 to 67108864 pixels"),
        (larger, "expected a WebP of 13×17 pixels, got 16383×16383"),
        (png([1 << 20, 1 << 20], 2, 8, false, &[], &[]), "expected 1 to 67108864 pixels"),
        (png([8000, 8000], 2, 8, false, &[], &[0; 100]), "too few for 8000×8000 pixels"),
        (wide.clone(), "expected at most 268435456 bytes of pixels, got 536870912 (8192×8192)"),
    ];
    for (bytes, part) in cases {
        let (result, largest) = noting(|| decode_image(&bytes));
        let error = result.unwrap_err();
        assert!(error.contains(part), "{error}");
        assert!(largest < 1 << 20, "{error}: {largest} bytes of memory");
    }
    let (result, largest) = noting(|| decode_mask_png(&wide));
    assert!(result.unwrap_err().contains("got RGBA of 16 bits a channel"));
    assert!(largest < 1 << 20, "{largest} bytes of memory");
}
