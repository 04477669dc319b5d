//! Images of many encoders' settings, decoded here and by libjpeg-turbo, libpng and libwebp: `djpeg`,
//! `pngtopnm` and `dwebp` (Debian: libjpeg-turbo-progs, netpbm, webp). Each test prints a line with what
//! it found.
#![cfg(feature = "pictures")]

use atrous::data::Image;
use atrous::data::image_files::{decode_image, read_image};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program makes of `input`.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // (A program may know enough before it has read all.)
    let _ = writer.join().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {message}");
    output.stdout
}

/// An image of waves, noise and an edge.
fn waves(height: usize, width: usize, seed: u32) -> Image {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let value = |i: usize| {
        let (y, x, channel) = (i / 3 / width, i / 3 % width, i % 3);
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let phase = [y as f32 / 5.0, x as f32 / 4.0 + y as f32 / 9.0, (x + y) as f32 / 6.0][channel];
        let edge = if y > height / 3 && x > width / 2 { 60.0 } else { 0.0 };
        (110.0 + 90.0 * phase.sin() + edge + (state % 48) as f32 - 24.0).clamp(0.0, 255.0) as u8
    };
    Image::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
}

/// As a PPM or (`grey`: of the green) PGM file.
fn pnm(image: &Image, grey: bool) -> Vec<u8> {
    let (kind, step) = if grey { (5, 3) } else { (6, 1) };
    let mut bytes = format!("P{kind}\n{} {}\n255\n", image.width, image.height).into_bytes();
    bytes.extend(image.rgb.iter().skip(grey as usize).step_by(step));
    bytes
}

/// The pixels of a PPM or PGM (or PBM) file; of 16 bits the higher 8.
fn read_pnm(bytes: &[u8]) -> Image {
    let mut at = 2;
    let mut number = || {
        while bytes[at].is_ascii_whitespace() {
            at += 1;
        }
        let start = at;
        while bytes[at].is_ascii_digit() {
            at += 1;
        }
        std::str::from_utf8(&bytes[start..at]).unwrap().parse::<usize>().unwrap()
    };
    let (width, height) = (number(), number());
    let kind = bytes[1];
    let most = if kind == b'4' { 1 } else { number() };
    let data = &bytes[at + 1..];
    let samples: Vec<u8> = match (kind, most) {
        (b'4', _) => {
            let bit = |i: usize| {
                data[i / width * width.div_ceil(8) + i % width / 8] >> (7 - i % width % 8) & 1
            };
            (0..height * width).map(|i| 255 * (1 - bit(i))).collect()
        }
        (_, 65535) => data.chunks_exact(2).map(|sample| sample[0]).collect(),
        (_, most) => data.iter().map(|&value| (usize::from(value) * 255 / most) as u8).collect(),
    };
    let rgb =
        if kind == b'6' { samples } else { samples.iter().flat_map(|&value| [value; 3]).collect() };
    Image::new(height, width, rgb).unwrap()
}

/// Files that were compared, and the largest difference of a value.
#[derive(Default)]
struct Found {
    files: usize,
    largest: u8,
    /// The name of the file with it.
    worst: String,
}

impl Found {
    fn compare(&mut self, name: &str, bytes: &[u8], expected: &Image) {
        let got = decode_image(bytes).unwrap_or_else(|error| {
            let path = std::env::temp_dir().join("atrous-decoders-failed");
            fs::write(&path, bytes).unwrap();
            panic!("{name} ({}): {error}", path.display())
        });
        self.add(name, &got, expected);
    }

    fn add(&mut self, name: &str, got: &Image, expected: &Image) {
        assert_eq!((got.height, got.width), (expected.height, expected.width), "{name}");
        let difference =
            got.rgb.iter().zip(&expected.rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
        self.files += 1;
        if difference > self.largest {
            (self.largest, self.worst) = (difference, name.to_owned());
        }
    }

    /// Prints the line and judges.
    fn tell(&self, what: &str, allowed: u8) {
        let Found { files, largest, worst } = self;
        println!("{what}: {files} files, largest difference {largest} {worst}");
        assert!(*largest <= allowed, "{what}: expected at most {allowed}, got {largest} in {worst}");
    }
}

/// libjpeg-turbo's pixels, as it decodes by default: the accurate transform, smooth upsampling.
fn djpeg(bytes: &[u8]) -> Image {
    read_pnm(&pipe("djpeg", &["-dct", "int", "-pnm"], bytes))
}

const SIZES: [(usize, usize); 6] = [(1, 1), (5, 7), (33, 17), (48, 64), (15, 100), (57, 49)];

/// Scripts for `-scans`, of three colours; "" is one scan of all.
const SCANS: [(&str, &str); 6] = [
    ("one scan", ""),
    ("a scan each", "0;1;2;"),
    ("two scans", "0;1 2;"),
    ("two scans, other", "0 1;2;"),
    ("progressive", "-"),
    (
        "progressive, each",
        "0:0-0,0,1;1:0-0,0,1;2:0-0,0,1;0:1-5,0,2;1:1-63,0,1;2:1-63,0,1;0:6-63,0,2;0:1-63,2,1;\
         0:0-0,1,0;1:0-0,1,0;2:0-0,1,0;0:1-63,1,0;1:1-63,1,0;2:1-63,1,0;",
    ),
];

/// Sampling factors of three colours; the last ones have factors that are neither 1 nor the largest.
const SAMPLING: [&str; 24] = [
    "1x1",
    "2x1",
    "1x2",
    "2x2",
    "4x1",
    "1x4",
    "4x2",
    "2x4",
    "3x1",
    "3x2",
    "4x4,1x1,1x1",
    "2x1,1x1,2x1",
    "2x2,2x1,1x2",
    "2x2,1x2,1x2",
    "2x2,2x1,2x1",
    "1x1,2x2,1x1",
    "2x1,1x2,1x1",
    "1x1,2x1,2x1",
    "4x1,2x1,1x1",
    "4x1,2x1,2x1",
    "4x2,2x1,2x1",
    "1x4,1x2,1x2",
    "2x4,1x2,1x1",
    "4x2,2x2,1x1",
];

const RESTARTS: [&[&str]; 3] = [&[], &["-restart", "1"], &["-restart", "3B"]];

struct Scripts(tempfile::TempDir);

impl Scripts {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, script) in SCANS {
            fs::write(dir.path().join(name), script).unwrap();
        }
        Scripts(dir)
    }

    /// Options for cjpeg and jpegtran.
    fn options(&self, name: &str, script: &str) -> Vec<String> {
        match script {
            "" => Vec::new(),
            "-" => vec!["-progressive".to_owned()],
            _ => vec!["-scans".to_owned(), self.0.path().join(name).to_str().unwrap().to_owned()],
        }
    }
}

fn encoded(input: &[u8], options: &[String], more: &[&str]) -> Vec<u8> {
    let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
    pipe("cjpeg", &options, input)
}

/// Are there more than 10 blocks a unit in a scan of several colours? cjpeg does not write such files.
fn too_many(sampling: &str, script: &str) -> bool {
    let parts: Vec<usize> = sampling
        .split(',')
        .chain(["1x1", "1x1"])
        .take(3)
        .map(|part| part.split('x').map(|factor| factor.parse::<usize>().unwrap()).product())
        .collect();
    let scans: &[&[usize]] = match script {
        "" | "-" => &[&[0, 1, 2]],
        "0;1 2;" => &[&[1, 2]],
        "0 1;2;" => &[&[0, 1]],
        _ => &[],
    };
    scans.iter().any(|scan| scan.iter().map(|&part| parts[part]).sum::<usize>() > 10)
}

#[test]
#[ignore = "needs cjpeg, djpeg and jpegtran"]
fn jpegs_of_all_settings_have_libjpeg_turbos_pixels() {
    let scripts = Scripts::new();
    let mut found = Found::default();
    let mut seed = 0;
    for sampling in SAMPLING {
        for (name, script) in SCANS.into_iter().filter(|(_, script)| !too_many(sampling, script)) {
            for (restart, (height, width)) in
                RESTARTS.into_iter().flat_map(|r| SIZES.map(|size| (r, size)))
            {
                for (quality, colour) in [("3", "-baseline"), ("75", "-rgb"), ("95", "-optimize")] {
                    seed += 1;
                    let mut options = scripts.options(name, script);
                    options.extend(["-quality", quality, "-sample", sampling].map(str::to_owned));
                    let mut more = restart.to_vec();
                    if script.is_empty() || colour != "-baseline" {
                        more.push(colour);
                    }
                    let file = encoded(&pnm(&waves(height, width, seed), false), &options, &more);
                    let name = format!("{options:?} {more:?} {height}×{width}");
                    found.compare(&name, &file, &djpeg(&file));
                }
            }
        }
    }
    found.tell("JPEG, three colours, against djpeg", 0);
}

#[test]
#[ignore = "needs cjpeg and djpeg"]
fn grey_jpegs_have_libjpeg_turbos_pixels() {
    let scripts = Scripts::new();
    let progressive = "0:0-0,0,2;0:1-20,0,1;0:21-63,0,1;0:0-0,2,1;0:1-63,1,0;0:0-0,1,0;";
    let path = scripts.0.path().join("grey");
    fs::write(&path, progressive).unwrap();
    let path = path.to_str().unwrap();
    let mut found = Found::default();
    for (height, width) in SIZES {
        for (quality, sampling) in
            ["1", "50", "100"].into_iter().flat_map(|q| ["1x1", "2x2", "4x1"].map(|s| (q, s)))
        {
            for scans in [&[][..], &["-progressive"], &["-scans", path]] {
                for restart in RESTARTS {
                    let more =
                        [scans, restart, &["-grayscale", "-quality", quality, "-sample", sampling]]
                            .concat();
                    let file =
                        encoded(&pnm(&waves(height, width, found.files as u32), false), &[], &more);
                    found.compare(&format!("{more:?} {height}×{width}"), &file, &djpeg(&file));
                }
            }
        }
    }
    found.tell("JPEG, grey, against djpeg", 0);
}

/// The file with these segments in place of JFIF's, and these ids for its colours.
fn marked(file: &[u8], segments: &[&[u8]], ids: Option<[u8; 3]>) -> Vec<u8> {
    assert_eq!(file[2..4], [0xff, 0xe0]);
    let length = usize::from(u16::from_be_bytes([file[4], file[5]]));
    let mut bytes = file[..2].to_vec();
    segments.iter().for_each(|segment| bytes.extend_from_slice(segment));
    bytes.extend_from_slice(&file[4 + length..]);
    if let Some(ids) = ids {
        for (marker, first, step) in [(0xc0, 10, 3), (0xda, 5, 2)] {
            let at = bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap() + first;
            (0..3).for_each(|i| bytes[at + step * i] = ids[i]);
        }
    }
    bytes
}

#[test]
#[ignore = "needs cjpeg and djpeg"]
fn the_colours_of_jpegs_are_told_as_libjpeg_turbo_tells_them() {
    let jfif: &[u8] = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0";
    let adobe = |transform: u8| [b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0", &[transform][..]].concat();
    let [none, one] = [adobe(0), adobe(1)];
    let segments: [&[&[u8]]; 6] = [&[jfif], &[], &[&none], &[&one], &[jfif, &none], &[&one, jfif]];
    let ids = [None, Some([0, 1, 2]), Some(*b"RGB"), Some([1, 34, 35]), Some(*b"rgb"), Some([3, 2, 1])];
    let mut found = Found::default();
    for (sampling, size) in [("1x1", (9, 9)), ("2x2", (33, 17)), ("2x1", (16, 40))] {
        let file = encoded(&pnm(&waves(size.0, size.1, 5), false), &[], &["-sample", sampling]);
        for (segments, ids) in segments.iter().flat_map(|segments| ids.map(|ids| (segments, ids))) {
            let file = marked(&file, segments, ids);
            found.compare(&format!("{segments:?} {ids:?}"), &file, &djpeg(&file));
        }
    }
    found.tell("JPEG, colour marks, against djpeg", 0);
}

#[test]
#[ignore = "needs djpeg and jpegtran"]
fn jpegs_of_four_colours_have_libjpeg_turbos_pixels() {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
    let each = tempfile::NamedTempFile::new().unwrap();
    fs::write(each.path(), "0;1;2;3;").unwrap();
    let each = each.path().to_str().unwrap();
    let mut found = Found::default();
    for (height, width) in SIZES {
        let [a, b] = [waves(height, width, 1), waves(height, width, 2)];
        let pixels = a.rgb.chunks(3).zip(b.rgb.chunks(3));
        let inks: Vec<u8> = pixels.flat_map(|(a, b)| [a[0], a[1], a[2], b[0]]).collect();
        for color in [ColorType::Cmyk, ColorType::CmykAsYcck] {
            for sampling in [
                SamplingFactor::F_1_1,
                SamplingFactor::F_2_1,
                SamplingFactor::F_1_2,
                SamplingFactor::F_2_2,
            ] {
                for progressive in [false, true] {
                    let mut file = Vec::new();
                    let mut encoder = Encoder::new(&mut file, 90);
                    encoder.set_sampling_factor(sampling);
                    encoder.set_progressive(progressive);
                    encoder.encode(&inks, width as u16, height as u16, color).unwrap();
                    let how = format!("{color:?} {sampling:?} {progressive} {height}×{width}");
                    found.compare(&how, &file, &djpeg(&file));
                    for options in [&["-scans", each][..], &["-progressive"], &["-restart", "2B"]] {
                        let other = pipe("jpegtran", &[&["-copy", "all"], options].concat(), &file);
                        found.compare(&format!("{how} {options:?}"), &other, &djpeg(&other));
                    }
                    // Without Adobe's segment.
                    let at = file.windows(2).position(|pair| pair == [0xff, 0xee]).unwrap();
                    let plain = [&file[..at], &file[at + 16..]].concat();
                    found.compare(&format!("{how} plain"), &plain, &djpeg(&plain));
                }
            }
        }
    }
    found.tell("JPEG, four colours, against djpeg", 0);
}

#[test]
#[ignore = "needs pnmtopng and pngtopnm"]
fn pngs_of_all_kinds_have_libpngs_pixels() {
    let mut found = Found::default();
    for ((height, width), seed) in SIZES.into_iter().zip(1..) {
        let image = waves(height, width, seed);
        // Of few levels: grey of 1, 2, 4 bits and palettes, with `-force` none of both.
        let levels = |most: usize| {
            let rgb = image
                .rgb
                .iter()
                .map(|&value| (usize::from(value) * most / 255 * 255 / most) as u8)
                .collect();
            Image { rgb, ..image.clone() }
        };
        let mut inputs: Vec<Vec<u8>> = Vec::new();
        for most in [1, 3, 5, 15, 255] {
            inputs.extend([pnm(&levels(most), true), pnm(&levels(most), false)]);
        }
        for (kind, values) in [(5, 1), (6, 3)] {
            let mut wide = format!("P{kind}\n{width} {height}\n65535\n").into_bytes();
            let value = |i: usize| [image.rgb[i], image.rgb[i / 2].wrapping_mul(31)];
            wide.extend((0..height * width * values).flat_map(value));
            inputs.push(wide);
        }
        let alpha = tempfile::NamedTempFile::new().unwrap();
        fs::write(alpha.path(), pnm(&waves(height, width, 77), true)).unwrap();
        let alpha = format!("-alpha={}", alpha.path().display());
        let options: [&[&str]; 6] = [
            &[],
            &["-interlace"],
            &["-force"],
            &["-force", "-interlace"],
            &[&alpha],
            &["-interlace", &alpha],
        ];
        for (input, options) in
            inputs.iter().flat_map(|input| options.iter().map(move |options| (input, options)))
        {
            let file = pipe("pnmtopng", options, input);
            let kind = (file[24], file[25]);
            let name = format!("{height}×{width}, bits and type {kind:?}, {options:?}");
            found.compare(&name, &file, &read_pnm(&pipe("pngtopnm", &[], &file)));
        }
    }
    found.tell("PNG against pngtopnm", 0);
}

#[test]
#[ignore = "needs cwebp and dwebp"]
fn webps_have_libwebps_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let [input, file, output] = ["in.ppm", "a.webp", "out.ppm"].map(|name| dir.path().join(name));
    let [input, file, output] = [&input, &file, &output].map(|path| path.to_str().unwrap());
    let mut found = Found::default();
    for ((height, width), seed) in SIZES.into_iter().zip(1..) {
        fs::write(input, pnm(&waves(height, width, seed), false)).unwrap();
        let kinds: [&[&str]; 7] = [
            &["-q", "10"],
            &["-q", "75"],
            &["-q", "100", "-m", "6"],
            &["-q", "60", "-segments", "4", "-sns", "90", "-f", "80", "-sharpness", "5"],
            &["-q", "50", "-partition_limit", "80", "-strong", "-sharp_yuv"],
            &["-lossless"],
            &["-near_lossless", "40"],
        ];
        for kind in kinds {
            pipe("cwebp", &[&["-quiet"], kind, &[input, "-o", file]].concat(), &[]);
            pipe("dwebp", &["-quiet", "-ppm", file, "-o", output], &[]);
            let expected = read_pnm(&fs::read(output).unwrap());
            found.compare(&format!("{kind:?} {height}×{width}"), &fs::read(file).unwrap(), &expected);
        }
    }
    found.tell("WebP against dwebp", 0);
}

#[test]
#[ignore = "needs djpeg and ../shared/voc"]
fn the_749_real_images_have_libjpeg_turbos_pixels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/voc/JPEGImages");
    let mut found = Found::default();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let expected = djpeg(&fs::read(&path).unwrap());
        found.add(&path.display().to_string(), &read_image(&path).unwrap(), &expected);
    }
    assert_eq!(found.files, 749);
    found.tell("JPEG, real pictures, against djpeg", 0);
}
