use super::*;
use std::io::{self, ErrorKind};

/// Smooth enough for a JPEG.
fn image(height: usize, width: usize) -> Image {
    let value = |i: usize| {
        let (pixel, channel) = (i / 3, i % 3);
        (40 + pixel / width * 5 + pixel % width * 3 + channel * 20) as u8
    };
    Image::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
}

#[test]
fn images_and_masks_come_back_from_png_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    write_png(&path, &image(7, 5)).unwrap();
    assert!(read_image(&path).unwrap() == image(7, 5));
    let mask = Mask::new(3, 4, vec![0, 1, 2, 3, 20, 255, 0, 9, 19, 255, 0, 1]).unwrap();
    write_mask_png(&path, &mask).unwrap();
    assert!(read_mask_png(&path).unwrap() == mask);
    // Seen as an image, the mask has the palette's colours.
    assert_eq!(read_image(&path).unwrap().rgb[15..18], voc_palette()[255]);
}

#[test]
fn an_image_with_opacities_is_a_png_of_rgba_that_has_both() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.png");
    let alpha: Vec<u8> = (0..35).map(|i| if i % 3 == 0 { 255 } else { i }).collect();
    write_rgba_png(&path, &image(7, 5), &alpha).unwrap();
    // What is transparent keeps its colour.
    assert!(read_image(&path).unwrap() == image(7, 5));
    let mut reader = ::png::Decoder::new(io::BufReader::new(fs::File::open(&path).unwrap()));
    reader.set_transformations(::png::Transformations::IDENTITY);
    let mut reader = reader.read_info().unwrap();
    let mut rgba = vec![0; reader.output_buffer_size().unwrap()];
    assert_eq!(reader.next_frame(&mut rgba).unwrap().color_type, ::png::ColorType::Rgba);
    assert!(rgba.chunks_exact(4).map(|pixel| pixel[3]).eq(alpha.iter().copied()));
    assert!(write_rgba_png(&path, &image(7, 5), &alpha[1..]).is_err());
}

#[test]
fn a_file_says_by_its_first_bytes_whether_it_is_an_image() {
    let mut png = Vec::new();
    encode_png(&mut png, &image(7, 5)).unwrap();
    let jpeg = encode_jpeg(&image(7, 5), 90, SamplingFactor::F_1_1).unwrap();
    assert!(is_image(&png[..12]) && is_image(&jpeg[..12]) && is_image(b"RIFF\x10\0\0\0WEBPVP8 "));
    for other in [&b""[..], b"RIFF\x10\0\0\0WAVEfmt ", b"a.jpg\nb.jpg\n", b"%PDF-1.7", b"\xff\xd8"] {
        assert!(!is_image(other), "{other:?}");
    }
}

#[test]
fn a_jpeg_comes_back_nearly_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jpg");
    write_jpeg(&path, &image(17, 30)).unwrap();
    let (got, expected) = (read_image(&path).unwrap(), image(17, 30));
    assert_eq!((got.height, got.width), (17, 30));
    let off = got.rgb.iter().zip(&expected.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(off <= 4, "off by {off}");
}

/// A disk that is full.
struct Full;

impl io::Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_called_by_its_name_by_the_writers_of_png() {
    let mask = Mask::new(1, 1, vec![0]).unwrap();
    for error in [encode_png(Full, &image(9, 9)), encode_mask_png(Full, &mask)] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(explain(&error).starts_with("the disk is full"), "{error}");
    }
    if Path::new("/dev/full").exists() {
        let error = write_png("/dev/full", &image(9, 9)).unwrap_err().to_string();
        assert!(error.contains("the disk is full"), "{error}");
    }
}
