//! `atrous predict` on images of one's own: of every kind, under every name, however they are given.
#![cfg(all(feature = "cli", unix))]

mod command;
#[path = "manners/schema.rs"]
mod schema;

use assert_cmd::Command;
use atrous::data::image_files::{read_image, read_mask_png, write_jpeg, write_png};
use atrous::data::voc_npy::{Split, VocNpy};
use atrous::data::{Dataset, Image};
use atrous::models::{Head, Spec};
use atrous::nn::Model;
use atrous::weights::{self, Origin};
use command::{BINARY, done};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;
use tempfile::TempDir;

/// Images of three classes of its own, and a network for each task that has seen a few of them.
struct Trained {
    folder: TempDir,
    /// The test images.
    images: Vec<Image>,
}

static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let data = at("data");
    let few = ["--train", "8", "--test", "4", "--classes", "3"];
    done(&[&["data", "make", &data][..], &few].concat());
    // (After fewer epochs masks are nothing but background.)
    for (task, size, epochs) in [("classify", "108", "1"), ("segment", "32", "20")] {
        let out = at(task);
        let small = ["--size", size, "--epochs", epochs, "--val-fraction", "0.2"];
        done(&[&["train", task, "--data", &data, "--out", &out][..], &small].concat());
    }
    let test = VocNpy::open(&data, Split::Test).unwrap();
    let images = (0..test.len()).map(|i| test.image(i).unwrap()).collect();
    Trained { folder, images }
});

impl Trained {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

/// The command in a folder, with a network of a task (or both).
fn predict(folder: &Path, tasks: &[&str], arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("predict").args(arguments).current_dir(folder).write_stdin(input);
    for task in tasks {
        command.args(["--checkpoint", &TRAINED.path(task)]);
    }
    command.output().unwrap()
}

/// What a command printed that succeeded.
fn printed(output: Output) -> String {
    let error = text(&output.stderr);
    assert!(output.status.success(), "{error}");
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A JPEG that a camera held on its side stored.
fn turned(image: &Image) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jpg");
    write_jpeg(&path, image).unwrap();
    let jpeg = fs::read(path).unwrap();
    let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, exif, &jpeg[2..]].concat()
}

fn webp(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = (image.width as u32, image.height as u32);
    let encoder = image_webp::WebPEncoder::new(&mut bytes);
    encoder.encode(&image.rgb, width, height, image_webp::ColorType::Rgb8).unwrap();
    bytes
}

/// A folder of images of every kind, one of them broken, and of other files.
fn album() -> TempDir {
    let album = tempfile::tempdir().unwrap();
    let at = |name: &str| album.path().join(name);
    let images = &TRAINED.images;
    fs::create_dir_all(at("Gäste/a")).unwrap();
    fs::create_dir(at("Gäste/b")).unwrap();
    write_jpeg(at("Zürich 1.JPG"), &images[0]).unwrap();
    fs::write(at("b c.webp"), webp(&images[1])).unwrap();
    write_png(at("no ending"), &images[2]).unwrap();
    fs::write(at("turned.jpeg"), turned(&images[3])).unwrap();
    write_png(at("Gäste/a/x.png"), &images[0]).unwrap();
    write_png(at("Gäste/b/x.png"), &images[1]).unwrap();
    let whole = fs::read(at("Zürich 1.JPG")).unwrap();
    fs::write(at("broken.jpg"), &whole[..whole.len() / 2]).unwrap();
    fs::write(at("notes.md"), "not an image").unwrap();
    album
}

/// The images of an album, in the order of a folder's names.
const ALBUM: [&str; 6] =
    ["Gäste/a/x.png", "Gäste/b/x.png", "Zürich 1.JPG", "b c.webp", "no ending", "turned.jpeg"];

/// The probabilities of a table, by image and class.
fn table(csv: &str) -> BTreeMap<(String, String), f32> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(reader.headers().unwrap(), vec!["image", "class", "predicted", "probability", "pixels"]);
    let row = |row: csv::StringRecord| ((row[0].to_owned(), row[1].to_owned()), row[3].parse().unwrap());
    reader.records().map(|record| row(record.unwrap())).collect()
}

#[test]
fn images_of_every_kind_and_name_are_predicted_and_a_broken_one_among_them_is_told_and_left_out() {
    let album = album();
    let output = predict(album.path(), &["classify"], &["."], b"");
    let (rows, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{told}");
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!(rows[0], "note: 1 file that is no image is passed over");
    assert_eq!(rows.len(), 1 + ALBUM.len(), "{rows:?}");
    for (row, name) in rows[1..].iter().zip(ALBUM) {
        assert!(row.starts_with(&format!("{name} ")) && row.contains(" 0."), "{row}");
        assert!(row.chars().count() <= 80, "{row}");
    }
    assert!(told.contains("left out: broken.jpg: "), "{told}");
    assert!(told.contains("error: broken.jpg: left out: see above; 6 images are predicted"), "{told}");
    // What is not there is told in the same way, and alone it is all there is to say.
    let output = predict(album.path(), &["classify"], &["Zürich 1.JPG", "none.jpg"], b"");
    assert_eq!((output.status.code(), text(&output.stdout).lines().count()), (Some(1), 1));
    let output = predict(album.path(), &["classify"], &["none.jpg"], b"");
    assert!(output.stdout.is_empty() && text(&output.stderr).contains("none.jpg: no such file"));
}

#[test]
fn a_list_a_pattern_and_standard_input_mean_the_images_they_name() {
    let album = album();
    let run = |arguments: &[&str], input: &[u8]| {
        printed(predict(album.path(), &["classify"], arguments, input))
    };
    let named = run(&["Gäste/a/x.png", "Gäste/b/x.png"], b"");
    assert_eq!(named.lines().count(), 2);
    fs::write(album.path().join("list.txt"), "Gäste/a/x.png\r\n\nGäste/b/x.png").unwrap();
    assert_eq!(run(&["list.txt"], b""), named);
    assert_eq!(run(&["Gäste/*/*.png", "./Gäste/b/x.png"], b""), named);
    assert_eq!(run(&["-"], "Gäste/a/x.png\nGäste/b/x.png\n".as_bytes()), named);
    // Images themselves may come through the pipe.
    let image = fs::read(album.path().join("Gäste/a/x.png")).unwrap();
    let piped = run(&["-"], &image);
    let said = |line: &str| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
    assert!(piped.starts_with("stdin "), "{piped}");
    assert_eq!(said(&piped), said(named.lines().next().unwrap()));
}

#[test]
fn a_classifier_says_of_image_files_what_it_says_of_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let images = &TRAINED.images;
    let names: Vec<String> = (0..images.len()).map(|i| format!("{i}.png")).collect();
    for (name, image) in names.iter().zip(images) {
        write_png(folder.path().join(name), image).unwrap();
    }
    let (data, network) = (TRAINED.path("data"), TRAINED.path("classify"));
    let submitted = tempfile::tempdir().unwrap();
    let out = submitted.path().join("submission.csv");
    done(&["predict", "--data", &data, "--checkpoint", &network, "--out", out.to_str().unwrap()]);
    let all = ["--top", "3", "--csv", "."];
    let own = table(&printed(predict(folder.path(), &["classify"], &all, b"")));
    assert_eq!(own.len(), 3 * images.len());
    let mut reader = csv::Reader::from_path(submitted.path().join("probabilities.csv")).unwrap();
    let classes = reader.headers().unwrap().clone();
    for (i, row) in reader.records().enumerate() {
        for (class, probability) in classes.iter().zip(&row.unwrap()).skip(1) {
            let probability: f32 = probability.parse().unwrap();
            assert_eq!(own[&(names[i].clone(), class.to_owned())], probability, "{i} {class}");
        }
    }
}

#[test]
fn masks_are_upright_and_of_the_images_size_and_cutouts_transparent_where_they_are_background() {
    let album = album();
    fs::remove_file(album.path().join("broken.jpg")).unwrap();
    let run = |more: &[&str]| {
        let arguments = [&[".", "--out", "out", "--json"][..], more].concat();
        predict(album.path(), &["classify", "segment"], &arguments, b"")
    };
    let json: Value = serde_json::from_str(&printed(run(&[]))).unwrap();
    let images = json["images"].as_array().unwrap();
    assert_eq!(images.len(), ALBUM.len());
    let mut shown = 0;
    for (row, name) in images.iter().zip(ALBUM) {
        assert_eq!(row["id"], name);
        let image = read_image(album.path().join(name)).unwrap();
        let file = |kind: &str| album.path().join(row[kind].as_str().unwrap());
        let mask = read_mask_png(file("mask")).unwrap();
        assert_eq!((mask.height, mask.width), (image.height, image.width), "{name}");
        assert_eq!((row["height"].as_u64(), row["width"].as_u64()), {
            (Some(image.height as u64), Some(image.width as u64))
        });
        shown += mask.classes.iter().filter(|&&class| class > 0).count();
        let alpha: Vec<u8> = mask.classes.iter().map(|&class| if class > 0 { 255 } else { 0 }).collect();
        let rgba = rgba(&file("cutout"));
        assert!(rgba.chunks_exact(4).map(|pixel| pixel[3]).eq(alpha.iter().copied()), "{name}");
        assert!(rgba.chunks_exact(4).map(|pixel| &pixel[..3]).eq(image.rgb.chunks_exact(3)), "{name}");
        let overlay = read_image(file("overlay")).unwrap();
        assert!(overlay.height > image.height && overlay.width >= image.width, "{overlay:?}");
        // The shares are those of the file.
        for said in row["classes"].as_array().unwrap() {
            let class = said["class"].as_str().unwrap();
            let value = 1 + classes().iter().position(|own| own == class).unwrap() as u8;
            let count = mask.classes.iter().filter(|&&own| own == value).count();
            assert_eq!(said["pixels"], count as f64 / mask.classes.len() as f64, "{name} {class}");
        }
    }
    assert!(shown > 0, "masks of nothing but background show nothing");
    let turned = &images[5];
    let stored = &TRAINED.images[3];
    assert_eq!(turned["height"], stored.width);
    // Names that are there twice keep their folders; results are not images, and not written over.
    for name in [
        "Gäste/a/x_mask.png",
        "Gäste/b/x_mask.png",
        "Zürich 1_overlay.png",
        "predictions.csv",
        "panel.png",
    ] {
        assert!(album.path().join("out").join(name).is_file(), "{name}");
    }
    let refused = run(&[]);
    let told = text(&refused.stderr);
    assert!(!refused.status.success() && told.contains("overwrite with --force"), "{told}");
    assert_eq!(serde_json::from_str::<Value>(&printed(run(&["--force"]))).unwrap(), json);
}

/// The names of the classes, from the table of the made-up data.
fn classes() -> Vec<String> {
    let mut reader = csv::Reader::from_path(TRAINED.path("data/train/train_set.csv")).unwrap();
    reader.headers().unwrap().iter().skip(1).map(str::to_owned).collect()
}

fn rgba(path: &Path) -> Vec<u8> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut rgba = vec![0; reader.output_buffer_size().unwrap()];
    assert_eq!(reader.next_frame(&mut rgba).unwrap().color_type, png::ColorType::Rgba);
    rgba
}

#[test]
fn json_is_as_its_schema_has_it_and_all_that_standard_output_has() {
    let (album, results) = (album(), tempfile::tempdir().unwrap());
    let schema = fs::read_to_string("docs/schemas/predict_images.json").unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for (tasks, out) in
        [(&["classify"][..], false), (&["segment"], true), (&["classify", "segment"], true)]
    {
        let folder = results.path().join(tasks.len().to_string()).to_str().unwrap().to_owned();
        let more: &[&str] = if out { &["--out", &folder] } else { &[] };
        let output = predict(album.path(), tasks, &[&[".", "--json"], more].concat(), b"");
        assert_eq!(output.status.code(), Some(1));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let violations = schema::violations(&schema, &json);
        assert!(violations.is_empty(), "{violations:?}\n{json}");
        assert_eq!(json["images"].as_array().unwrap().len(), ALBUM.len());
        assert_eq!(json["failed"][0]["id"], "broken.jpg");
        let first = &json["images"][0];
        assert_eq!(first["mask"].is_null(), !out);
        if tasks.contains(&"classify") {
            let predicted = |said: &Value| said["predicted"] == true && said["probability"].is_number();
            assert!(predicted(&first["classes"][0]), "the likeliest is always predicted: {first}");
        }
        let csv = predict(album.path(), tasks, &[".", "--csv"], b"");
        let rows =
            csv::Reader::from_reader(&csv.stdout[..]).into_records().collect::<Result<Vec<_>, _>>();
        let rows = rows.unwrap();
        assert!(ALBUM.iter().all(|name| rows.iter().any(|row| &row[0] == *name)), "{rows:?}");
    }
}

/// MobileNetV2 as it begins, with a head or without, in a file.
fn weight_file(folder: &Path, head: Head) -> PathBuf {
    let spec = Spec { head, ..Spec::new("mobilenetv2", 32, 1000) };
    let parameters = Model::new(spec.graph().unwrap(), 1).parameters;
    let tensors: Vec<_> = parameters.into_iter().map(|p| (p.path, p.value)).collect();
    let path = folder.join(format!("{head}.safetensors"));
    weights::save(&path, &tensors, Origin::Keras).unwrap();
    path
}

#[test]
fn a_network_by_its_name_needs_no_checkpoint_where_its_file_has_a_head() {
    let album = album();
    let [whole, base] = [Head::ImageNet, Head::None].map(|head| weight_file(album.path(), head));
    // ImageNet's list has synsets, quotes, and two cranes.
    let line = |i: usize| {
        format!("'n{:08} {}, a bird'\n", i, if i < 2 { "crane".into() } else { i.to_string() })
    };
    let names = album.path().join("imagenet.txt");
    fs::write(&names, (0..1000).map(line).collect::<String>()).unwrap();
    let run = |weights: &Path, more: &[&str]| {
        let named = ["--model", "mobilenetv2", "--size", "32", "--weights", weights.to_str().unwrap()];
        predict(album.path(), &[], &[&["Gäste"], &named[..], more].concat(), b"")
    };
    let classes = ["--classes", names.to_str().unwrap()];
    let csv = table(&printed(run(&whole, &[&classes[..], &["--top", "1000", "--csv"]].concat())));
    let of_first: Vec<_> = csv.iter().filter(|((image, _), _)| image == "Gäste/a/x.png").collect();
    assert_eq!((csv.len(), of_first.len()), (2000, 1000));
    assert!((of_first.iter().map(|&(_, &p)| p).sum::<f32>() - 1.0).abs() < 1e-4);
    for crane in ["crane, a bird", "crane, a bird (n00000001)"] {
        assert!(of_first.iter().any(|((_, class), _)| class == crane), "{crane}");
    }
    // One class is predicted; without names it has its number.
    let lines = printed(run(&whole, &[]));
    let rows: Vec<&str> = lines.lines().filter(|line| line.starts_with("Gäste")).collect();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.matches("class ").count() == 1), "{lines}");
    let wrong = [
        (
            run(&base, &[]),
            "without a head that makes classes of features; train one: `atrous train classify",
        ),
        (run(&whole, &["--classes", "notes.md"]), "expected 1000, one a class, got 1"),
        (run(&album.path().join("notes.md"), &[]), "expected a file of weights"),
        (
            predict(album.path(), &[], &["Gäste", "--model", "mobilenetv2"], b""),
            "--weights: expected the file",
        ),
        (
            predict(album.path(), &["classify"], &["Gäste", "--classes", "notes.md"], b""),
            "go with --model",
        ),
        (predict(album.path(), &["classify"], &["Gäste", "--data", "."], b""), "cannot be used with"),
        (predict(album.path(), &["classify"], &[], b""), "required"),
        (predict(album.path(), &[], &["Gäste"], b""), "--checkpoint"),
    ];
    for (output, part) in wrong {
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains(part), "expected `{part}` in: {told}");
    }
}

#[test]
fn ctrl_c_keeps_what_is_written_and_says_how_far_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("0.png");
    write_png(&image, &TRAINED.images[0]).unwrap();
    let count = 400;
    for i in 1..count {
        fs::hard_link(&image, folder.path().join(format!("{i}.png"))).unwrap();
    }
    let mut command = std::process::Command::new(BINARY);
    command.args(["predict", ".", "--out", "out", "--checkpoint", &TRAINED.path("segment")]);
    command.current_dir(folder.path()).stderr(std::process::Stdio::piped());
    let child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let written = folder.path().join("out/0_cutout.png");
    while !written.is_file() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // SAFETY: the child is not waited for yet, so that its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGINT) }, 0);
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains(&format!(" of {count} images are predicted; what was written")), "{told}");
    let rows = fs::read_to_string(folder.path().join("out/predictions.csv")).unwrap().lines().count();
    assert!((2..count).contains(&rows), "{rows} rows");
    assert!(folder.path().join("out/panel.png").is_file());
}
