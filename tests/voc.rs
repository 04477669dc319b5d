//! The VOCdevkit layout: read, judged, and told by name where it is wrong.
#![cfg(feature = "pictures")]

use atrous::data::convert::convert;
use atrous::data::image_files::{
    decode_image, decode_mask_png, read_mask_png, write_jpeg, write_mask_png, write_png,
};
use atrous::data::loader::batch;
use atrous::data::source::{Layout, Source};
use atrous::data::synthetic::Contents;
use atrous::data::transforms::Transforms;
use atrous::data::voc_devkit::{self, Task, VocDevkit, read_annotation};
use atrous::data::voc_npy::{Split, VocNpy};
use atrous::data::{CLASSES, Dataset, Image, Labels, Mask, check};
use proptest::prelude::*;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

const CONTINUE: ControlFlow<()> = ControlFlow::Continue(());

fn image(height: usize, width: usize, shade: u8) -> Image {
    let value = |i: usize| shade.wrapping_add((i / 3 / width * 4 + i / 3 % width * 2) as u8 / 4);
    Image::new(height, width, (0..height * width * 3).map(value).collect()).unwrap()
}

fn mask(height: usize, width: usize, class: u8) -> Mask {
    let mut classes = vec![0; height * width];
    classes[0] = 255;
    classes[width + 1..][..3].fill(class);
    Mask::new(height, width, classes).unwrap()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn labels(classes: &[usize]) -> Option<Labels> {
    Some((0..20).map(|class| classes.contains(&class)).collect())
}

/// Training images `a` (aeroplane) and `b` (cat), `c` (dog) for validation, without class lists
/// or annotations: labels are the masks'.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("JPEGImages")).unwrap();
    fs::create_dir_all(root.join("SegmentationClass")).unwrap();
    for (id, class, height) in [("a", 1, 12), ("b", 8, 16), ("c", 12, 20)] {
        write_jpeg(voc_devkit::image_path(root, id), &image(height, 18, 9 * class)).unwrap();
        write_mask_png(voc_devkit::mask_path(root, id), &mask(height, 18, class)).unwrap();
    }
    write(&Task::Segmentation.list(root, "train"), "a\nb\n");
    write(&Task::Segmentation.list(root, "val"), "c\n");
    dir
}

fn error(root: &Path, task: Task, set: &str) -> String {
    VocDevkit::open(root, task, set).unwrap_err().to_string()
}

#[test]
fn a_folder_is_read_with_its_masks_labels_where_nothing_else_gives_them() {
    let dir = folder();
    let train = VocDevkit::open(dir.path(), Task::Segmentation, "train").unwrap();
    assert_eq!((train.len(), train.id(1)), (2, "b".to_owned()));
    assert_eq!((train.labels(0), train.labels(1)), (labels(&[0]), labels(&[7])));
    let (image, mask) = (train.image(1).unwrap(), train.mask(1).unwrap().unwrap());
    assert_eq!((image.height, image.width, mask.height, mask.width), (16, 18, 16, 18));
    assert!(mask == self::mask(16, 18, 8));
    let error = error(dir.path(), Task::Segmentation, "test");
    assert!(
        error.contains("Segmentation/test.txt: expected a list") && error.contains("train, val"),
        "{error}"
    );
}

#[test]
fn the_folder_above_is_taken_too_unless_it_holds_two() {
    let dir = folder();
    let above = tempfile::tempdir().unwrap();
    let deep = above.path().join("VOCdevkit").join("VOC2012");
    fs::create_dir_all(deep.parent().unwrap()).unwrap();
    fs::rename(dir.path(), &deep).unwrap();
    for folder in [above.path(), &above.path().join("VOCdevkit"), &deep] {
        assert_eq!(voc_devkit::locate(folder).as_deref(), Some(&*deep));
        assert_eq!(VocDevkit::open(folder, Task::Segmentation, "val").unwrap().len(), 1);
    }
    let other = above.path().join("VOCdevkit").join("VOC2007");
    fs::create_dir_all(other.join("JPEGImages")).unwrap();
    fs::create_dir_all(other.join("ImageSets")).unwrap();
    assert!(error(above.path(), Task::Segmentation, "val").contains("none or several"));
}

#[test]
fn class_lists_go_before_annotations_and_those_before_masks() {
    let dir = folder();
    let root = dir.path();
    let xml = "<annotation><object><name>dog</name><difficult>1</difficult></object>\
               <object><name>person</name><part><name>head</name></part></object></annotation>";
    write(&voc_devkit::annotation_path(root, "b"), xml);
    let open = || VocDevkit::open(root, Task::Segmentation, "train").unwrap();
    assert_eq!((open().labels(0), open().labels(1)), (labels(&[0]), labels(&[11, 14])));
    for (class, name) in CLASSES.iter().enumerate() {
        let value = [" 1", " 0", "-1", "-1"][class % 4];
        write(&voc_devkit::class_list(root, name, "train"), &format!("b {value}\n"));
    }
    let in_lists: Vec<usize> = (0..20).filter(|class| class % 4 < 2).collect();
    assert_eq!((open().labels(0), open().labels(1)), (labels(&[0]), labels(&in_lists)));
    // The classes' lists are a list of images too.
    let main = VocDevkit::open(root, Task::Main, "train").unwrap();
    assert_eq!((main.len(), main.id(0), main.labels(0)), (1, "b".to_owned(), labels(&in_lists)));
    // One of twenty does not name it: they do not say what is in it.
    write(&voc_devkit::class_list(root, "dog", "train"), "a 1\n");
    assert_eq!(open().labels(1), labels(&[11, 14]));
}

#[test]
fn lists_that_are_wrong_are_told_with_their_line() {
    let dir = folder();
    let root = dir.path();
    let list = Task::Segmentation.list(root, "train");
    for (text, parts) in [
        ("a\n\nnowhere\n", ["train.txt, line 3: expected the picture of `nowhere` at", "nowhere.jpg"]),
        ("a\nb\na\n", ["train.txt, line 3", "`a` was in line 1 before"]),
        ("../a\n", ["line 1", "got `../a`"]),
        ("\n\n", ["train.txt", "expected at least one picture"]),
    ] {
        write(&list, text);
        let error = error(root, Task::Segmentation, "train");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    fs::write(&list, [0xff, b'a']).unwrap();
    assert!(error(root, Task::Segmentation, "train").contains("UTF-8"));
    fs::remove_file(voc_devkit::mask_path(root, "c")).unwrap();
    let missing = error(root, Task::Segmentation, "val");
    assert!(missing.contains("val.txt, line 1: expected the mask of `c`"), "{missing}");
    for class in CLASSES {
        write(&voc_devkit::class_list(root, class, "val"), "c -1\n");
    }
    write(&voc_devkit::class_list(root, "cow", "val"), "c -1\nc yes\n");
    let value = error(root, Task::Main, "val");
    assert!(
        value.contains("cow_val.txt, line 2: expected an id and 1, 0 or -1, got `c yes`"),
        "{value}"
    );
    fs::remove_file(voc_devkit::class_list(root, "cow", "val")).unwrap();
    assert!(error(root, Task::Main, "val").contains("cow_val.txt: no such file"));
}

#[test]
fn annotations_that_are_wrong_are_told_with_their_line() {
    let dir = folder();
    let path = voc_devkit::annotation_path(dir.path(), "a");
    for (text, part) in [
        ("<annotation>", "a.xml: expected XML"),
        ("<html></html>", "expected <annotation>, got <html>"),
        ("<annotation>\n<object></object></annotation>", "line 2: expected a <name>"),
        (
            "<annotation>\n<object>\n<name>unicorn</name></object></annotation>",
            "line 3: expected one of VOC's",
        ),
    ] {
        write(&path, text);
        let error = error(dir.path(), Task::Segmentation, "train");
        assert!(error.contains(part) && error.contains("a.xml"), "{error}");
    }
    write(&path, "<annotation></annotation>");
    assert_eq!(read_annotation(&path).unwrap(), [false; 20]);
}

#[test]
fn a_mask_of_another_size_or_with_a_label_that_is_none_is_told_with_its_file() {
    let dir = folder();
    let root = dir.path();
    write(&voc_devkit::annotation_path(root, "a"), "<annotation></annotation>");
    let path = voc_devkit::mask_path(root, "a");
    write_mask_png(&path, &mask(18, 12, 1)).unwrap();
    let train = VocDevkit::open(root, Task::Segmentation, "train").unwrap();
    let transforms = Transforms { masks: true, ..Transforms::plain(8) };
    let error = batch(&train, &transforms, &[0], 0, 0).unwrap_err().to_string();
    assert!(error.contains("a.png: expected the picture's size, 12×18, got 18×12"), "{error}");
    for label in [21, 128, 254] {
        let mut wrong = mask(12, 18, 1);
        wrong.classes[18 * 5 + 7] = label;
        write_mask_png(&path, &wrong).unwrap();
        let error = train.mask(0).unwrap_err().to_string();
        let expected = format!("a.png: expected 0 to 20 or 255, got {label} at row 5, column 7");
        assert!(error.ends_with(&expected), "{error}");
    }
    write_png(&path, &image(12, 18, 3)).unwrap();
    let error = train.mask(0).unwrap_err().to_string();
    assert!(
        error.contains("a.png: expected a mask of palette numbers")
            && error.contains("got the colour [3, 3, 3] (RGB) at row 0, column 0"),
        "{error}"
    );
}

#[test]
fn a_image_that_cannot_be_read_is_told_with_its_file() {
    let dir = folder();
    let root = dir.path();
    let path = voc_devkit::image_path(root, "a");
    let whole = fs::read(&path).unwrap();
    let train = VocDevkit::open(root, Task::Segmentation, "train").unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let cut = train.image(0).unwrap_err().to_string();
    assert!(cut.contains("a.jpg: expected a JPEG file that is whole and right"), "{cut}");
    fs::write(&path, "GIF89a").unwrap();
    let other = train.image(0).unwrap_err().to_string();
    assert!(other.contains("a.jpg: expected a JPEG file (FF D8 …), PNG or WebP"), "{other}");
    assert!(other.ends_with("got one that starts with 47 49 46 38"), "{other}");
}

#[test]
fn everything_wrong_with_a_folder_is_found_in_one_pass() {
    let dir = folder();
    let root = dir.path();
    let fine = check::check(root).unwrap();
    assert!(fine.is_fine() && fine.notes.is_empty(), "{fine}");
    let text = fine.to_string();
    assert!(text.contains("Segmentation, train: 2 rows, 2 pictures, 2 masks, 12 to 16 high"), "{text}");

    write(&Task::Segmentation.list(root, "train"), "a\nb\nd\ne\n");
    fs::write(voc_devkit::image_path(root, "a"), "no JPEG").unwrap();
    write_mask_png(voc_devkit::mask_path(root, "b"), &mask(12, 18, 8)).unwrap();
    write_jpeg(voc_devkit::image_path(root, "e"), &image(12, 18, 0)).unwrap();
    write_mask_png(voc_devkit::mask_path(root, "c"), &mask(20, 18, 77)).unwrap();
    let report = check::check(root).unwrap();
    let text = report.to_string();
    for part in [
        "line 3: expected the picture of `d`",
        "line 4: expected the mask of `e`",
        "a.jpg: expected a JPEG file",
        "b.png: expected the picture's size, 16×18, got 12×18",
        "c.png: expected 0 to 20 or 255, got 77 at row 1, column 1",
    ] {
        assert!(text.contains(part), "expected `{part}` in:\n{text}");
    }
    assert_eq!(report.problems.len(), 5, "{text}");
}

#[test]
fn a_source_knows_the_layout_and_joins_train_and_val() {
    let dir = folder();
    let source = Source::open(dir.path()).unwrap();
    assert_eq!((source.layout, source.natural_task()), (Layout::VocDevkit, Task::Segmentation));
    let training = source.training(Task::Segmentation).unwrap();
    assert_eq!((training.train, training.val), (vec![0, 1], Some(vec![2])));
    assert_eq!((training.dataset.len(), training.dataset.id(2)), (3, "c".to_owned()));
    assert_eq!(training.dataset.labels(2), labels(&[11]));
    assert!(!source.has_test(Task::Segmentation) && source.test(Task::Segmentation).is_err());

    let made = tempfile::tempdir().unwrap();
    let neither = Source::open(made.path()).unwrap_err().to_string();
    assert!(
        neither.contains("train/train_set.csv") && neither.contains("got none of them"),
        "{neither}"
    );
    assert!(
        Source::open(made.path().join("nowhere")).unwrap_err().to_string().contains("no such folder")
    );
    atrous::data::synthetic::make(made.path(), 4, 2, 1, Contents::default(), &|_, _| CONTINUE).unwrap();
    let source = Source::open(made.path()).unwrap();
    assert_eq!(source.layout, Layout::VocNpy);
    let training = source.training(Task::Main).unwrap();
    assert_eq!((training.train.len(), training.val), (4, None));
    assert!(source.has_test(Task::Main) && source.test(Task::Main).unwrap().len() == 2);
    fs::create_dir_all(made.path().join("JPEGImages")).unwrap();
    fs::create_dir_all(made.path().join("ImageSets")).unwrap();
    assert!(Source::open(made.path()).unwrap_err().to_string().contains("expected one layout, got"));
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn devkit_to_npy_keeps_every_pixel_and_label() {
    let dir = folder();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("npy");
    let progress = std::cell::Cell::new((0, 0));
    let done = convert(dir.path(), &to, Layout::VocNpy, &|done, of| {
        progress.set((done, of));
        CONTINUE
    })
    .unwrap();
    assert_eq!((done.train, done.test, done.masks, progress.get()), (3, 0, 3, (3, 3)));
    assert!(check::check(&to).unwrap().is_fine());
    let before = Source::open(dir.path()).unwrap().training(Task::Segmentation).unwrap().dataset;
    let after = Source::open(&to).unwrap().training(Task::Segmentation).unwrap().dataset;
    assert_eq!(after.len(), 3);
    for i in 0..3 {
        assert_eq!((after.id(i), after.labels(i)), (before.id(i), before.labels(i)));
        assert!(after.image(i).unwrap() == before.image(i).unwrap());
        assert!(after.mask(i).unwrap() == before.mask(i).unwrap());
    }
}

#[test]
fn npy_to_devkit_and_back_keeps_masks_and_labels_and_nearly_the_images() {
    let out = tempfile::tempdir().unwrap();
    let [made, devkit, back] = ["made", "devkit", "back"].map(|name| out.path().join(name));
    atrous::data::synthetic::make(&made, 5, 2, 3, Contents::default(), &|_, _| CONTINUE).unwrap();
    let done = convert(&made, &devkit, Layout::VocDevkit, &|_, _| CONTINUE).unwrap();
    assert_eq!((done.train, done.test, done.masks), (5, 2, 7));
    let report = check::check(&devkit).unwrap();
    assert!(report.is_fine() && report.notes.is_empty(), "{report}");
    assert_eq!(convert(&devkit, &back, Layout::VocNpy, &|_, _| CONTINUE).unwrap(), done);
    assert_eq!(names(out.path()), ["back", "devkit", "made"]);
    for split in [Split::Train, Split::Test] {
        let (before, after) = (VocNpy::open(&made, split).unwrap(), VocNpy::open(&back, split).unwrap());
        for i in 0..before.len() {
            assert_eq!(after.id(i), format!("{}_{}", split.name(), before.id(i)));
            if split == Split::Train {
                assert_eq!(after.labels(i), before.labels(i));
            }
            assert!(after.mask(i).unwrap() == before.mask(i).unwrap());
            let (a, b) = (before.image(i).unwrap(), after.image(i).unwrap());
            let off: u64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| a.abs_diff(*b) as u64).sum();
            let mean = off as f64 / a.rgb.len() as f64;
            assert!(mean > 0.0 && mean < 4.0, "off by {mean} in the mean");
        }
    }
}

#[test]
fn a_conversion_that_fails_leaves_nothing_and_a_folder_that_is_there_stays() {
    let dir = folder();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("npy");
    fs::write(voc_devkit::image_path(dir.path(), "c"), "no JPEG").unwrap();
    let error = convert(dir.path(), &to, Layout::VocNpy, &|_, _| CONTINUE).unwrap_err().to_string();
    assert!(error.contains("c.jpg: expected a JPEG file"), "{error}");
    assert!(names(out.path()).is_empty());
    fs::create_dir(&to).unwrap();
    let error = convert(dir.path(), &to, Layout::VocNpy, &|_, _| CONTINUE).unwrap_err().to_string();
    assert!(error.contains("npy: expected a name that is not taken"), "{error}");
    assert_eq!(names(out.path()), ["npy"]);
    let stop = |_: usize, _: usize| ControlFlow::Break(());
    let stopped = out.path().join("stopped");
    let error = convert(folder().path(), &stopped, Layout::VocNpy, &stop).unwrap_err();
    assert!(matches!(error, atrous::Error::Interrupted(_)), "{error}");
    assert_eq!(names(out.path()), ["npy"]);
    let error =
        convert(out.path(), &out.path().join("x"), Layout::VocNpy, &|_, _| CONTINUE).unwrap_err();
    assert!(error.to_string().contains("got none of them"), "{error}");
}

fn valid_files() -> [Vec<u8>; 3] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let mut files = [const { Vec::new() }; 3];
    write_jpeg(&path, &image(16, 18, 3)).unwrap();
    files[0] = fs::read(&path).unwrap();
    write_png(&path, &image(6, 5, 3)).unwrap();
    files[1] = fs::read(&path).unwrap();
    write_mask_png(&path, &mask(6, 5, 3)).unwrap();
    files[2] = fs::read(&path).unwrap();
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_files_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for mut file in valid_files() {
            for (at, byte) in &changes {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            if let Ok(image) = decode_image(&file) {
                prop_assert_eq!(image.rgb.len(), image.height * image.width * 3);
            }
            if let Ok(mask) = decode_mask_png(&file) {
                prop_assert_eq!(mask.classes.len(), mask.height * mask.width);
            }
        }
    }
}

#[test]
#[ignore = "needs ../shared/voc"]
fn the_749_real_images_are_read_and_counted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/voc");
    let report = check::check(&root).unwrap();
    assert!(report.is_fine(), "{report}");
    let training = Source::open(&root).unwrap().training(Task::Segmentation).unwrap();
    assert_eq!((training.train.len(), training.val.map(|val| val.len())), (675, Some(74)));
    let count = |name: &str| {
        let class = CLASSES.iter().position(|class| *class == name).unwrap();
        training.train.iter().filter(|&&i| training.dataset.labels(i).unwrap()[class]).count()
    };
    let known =
        [("cat", 194), ("dog", 189), ("person", 125), ("horse", 109), ("cow", 101), ("sheep", 89)];
    for (name, expected) in known.into_iter().chain([("sofa", 30), ("chair", 25)]) {
        assert_eq!(count(name), expected, "{name}");
    }
    let main = VocDevkit::open(&root, Task::Main, "train").unwrap();
    let mut differ = Vec::new();
    for i in 0..training.dataset.len() {
        let mask = training.dataset.mask(i).unwrap().unwrap();
        let image = training.dataset.image(i).unwrap();
        assert!(mask.fits(image.height, image.width).is_ok());
        if training.dataset.labels(i) != Some(mask.labels(20)) {
            differ.push(training.dataset.id(i));
        }
    }
    // 48 pixels of a person, which the lists do not count.
    assert_eq!(differ, ["2008_008521"]);
    assert_eq!(main.len(), 675);
    assert!(read_mask_png(root.join("README.md")).is_err());
}
