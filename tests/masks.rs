//! Masks: which number or colour is which class, in PNG files of every kind.
#![cfg(feature = "pictures")]

use atrous::data::convert::convert;
use atrous::data::image_files::{decode_image, decode_mask_png, voc_palette, write_jpeg};
use atrous::data::source::Layout;
use atrous::data::voc_devkit::{self, Task, VocDevkit};
use atrous::data::voc_npy::{Split, VocNpy};
use atrous::data::{Dataset, Image, check};
use png::png;
use std::fs;
use std::ops::ControlFlow;

#[path = "pictures/png.rs"]
mod png;

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
    // (On the first, of the same kind, the crate `png` panics where it is to look colours up.)
    let known = include_bytes!("pictures/png-palette-panic.png");
    assert!(decode_image(known).unwrap_err().starts_with("expected a PNG file that is whole and right"));
    assert!(mask(known).is_err());
    // A palette of 14 bytes.
    let damaged = png([9, 9], 3, 1, false, &[(b"PLTE", vec![7; 14])], &[0; 27]);
    let error = decode_image(&damaged).unwrap_err();
    assert!(error.contains("expected a palette of three bytes a colour, got 14 bytes"), "{error}");
    assert!(mask(&damaged).is_err());
    let beyond = indexed(8, &[[0; 3], DOG], &[], &[0, 1, 5], 3);
    let error = decode_image(&beyond).unwrap_err();
    assert_eq!(error, "expected numbers of a palette of 2 colours, got 5 at row 0, column 2");
    assert!(mask(&beyond).unwrap_err().contains("the number 5, which has no colour"));
    let none = png([1, 3], 3, 8, false, &[], &[0, 0, 1, 2]);
    assert!(decode_image(&none).is_err() && mask(&none).is_err());
}

#[test]
fn masks_in_palettes_of_few_bits_grey_or_colours_hold_classes() {
    let palette = voc_palette();
    // Five pixels a row: the last bytes of a row are partly empty.
    let one = [0, 0b1011_0000, 0, 0b0000_1000];
    let one = png([2, 5], 3, 1, false, &[(b"PLTE", palette[..2].concat())], &one);
    assert_eq!(mask(&one).unwrap(), [1, 0, 1, 1, 0, 0, 0, 0, 0, 1]);
    let two = indexed(2, &palette[..4], &[], &[0b0001_1011, 0b1000_0000], 5);
    assert_eq!(mask(&two).unwrap(), [0, 1, 2, 3, 2]);
    let four = indexed(4, &palette[..16], &[], &[0x0f, 0x70], 3);
    assert_eq!(mask(&four).unwrap(), [0, 15, 7]);
    // By colour in two bits.
    let four = indexed(2, &[VOID, DOG, [0; 3]], &[], &[0b1001_0001], 4);
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

/// A folder of three images whose masks have VOC's colours under the numbers 0, 1 and 2.
fn renumbered() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for folder in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let image = Image::new(4, 5, vec![90; 60]).unwrap();
    for (id, colour) in [("a", [128, 0, 0]), ("b", [192, 128, 128]), ("c", [0, 0, 128])] {
        write_jpeg(voc_devkit::image_path(root, id), &image).unwrap();
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
