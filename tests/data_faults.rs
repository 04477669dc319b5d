//! Data that would give wrong numbers without a word: each kind is read rightly, told, or refused.
#![cfg(feature = "pictures")]

use atrous::data::image_files::{write_jpeg, write_mask_png};
use atrous::data::source::Source;
use atrous::data::voc_devkit::{self, Task, VocDevkit, read_annotation};
use atrous::data::voc_npy::{self, Split, VocNpy};
use atrous::data::{CLASSES, Classes, Dataset, Image, Labels, Mask, VOID, check, synthetic};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

fn image(shade: u8) -> Image {
    Image::new(8, 8, (0..192).map(|i| shade.wrapping_add(i)).collect()).unwrap()
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A VOCdevkit folder with these images, which differ, and no lists.
fn devkit(ids: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["JPEGImages", "SegmentationClass", "ImageSets"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    for (i, id) in ids.iter().enumerate() {
        write_jpeg(voc_devkit::image_path(dir.path(), id), &image(20 * i as u8)).unwrap();
    }
    dir
}

fn masks(root: &Path, ids: &[&str], class: u8) {
    for id in ids {
        let mask = Mask::new(8, 8, vec![class; 64]).unwrap();
        write_mask_png(voc_devkit::mask_path(root, id), &mask).unwrap();
    }
}

fn class_lists(root: &Path, set: &str, lines: impl Fn(usize) -> String) {
    for (class, name) in CLASSES.iter().enumerate() {
        write(&voc_devkit::class_list(root, name, set), lines(class));
    }
}

fn ids(root: &Path, task: Task, set: &str) -> Result<Vec<String>, String> {
    let dataset = VocDevkit::open(root, task, set).map_err(|error| error.to_string())?;
    Ok((0..dataset.len()).map(|i| dataset.id(i)).collect())
}

fn only(class: usize) -> Option<Labels> {
    Some((0..20).map(|other| other == class).collect())
}

/// A folder in the competition's layout with an image and a label for each Id.
fn npy(ids: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("train/img")).unwrap();
    fs::create_dir_all(dir.path().join("train/seg")).unwrap();
    for (i, id) in ids.iter().enumerate() {
        let path = Split::Train.image(dir.path(), id);
        voc_npy::write_image(path, &image(20 * i as u8)).unwrap();
    }
    let rows = ids.iter().enumerate().map(|(i, &id)| (id, only(i % 20)));
    voc_npy::write_csv(Split::Train.csv(dir.path()), &Classes::voc(), rows).unwrap();
    dir
}

#[test]
fn a_list_with_cr_line_ends_keeps_all_its_images() {
    let dir = devkit(&["a", "b", "c"]);
    for text in ["a\rb\rc\r", "a\r\nb\rc", "a\nb\r\rc\n", "\u{feff}a\rb\nc"] {
        for task in [Task::Segmentation, Task::Main] {
            write(&task.list(dir.path(), "test"), text);
            assert_eq!(ids(dir.path(), task, "test").unwrap(), ["a", "b", "c"], "{text:?}");
        }
    }
    class_lists(dir.path(), "val", |class| {
        format!("a {}\rb -1\rc  1\r", if class == 3 { 1 } else { -1 })
    });
    let val = VocDevkit::open(dir.path(), Task::Main, "val").unwrap();
    assert_eq!((val.len(), val.labels(0), val.labels(2)), (3, only(3), Some(vec![true; 20])));
    write(&Task::Main.list(dir.path(), "test"), "a\r\rnowhere\rc\r");
    let error = ids(dir.path(), Task::Main, "test").unwrap_err();
    assert!(error.contains("test.txt, line 3: expected the picture of `nowhere`"), "{error}");
}

#[test]
fn a_table_with_cr_line_ends_keeps_all_its_rows() {
    let dir = npy(&["a", "b", "c"]);
    let csv = Split::Train.csv(dir.path());
    let text = fs::read_to_string(&csv).unwrap();
    for end in ["\r", "\r\n", "\n\r"] {
        write(&csv, text.replace('\n', end));
        let train = VocNpy::open(dir.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.labels(2)), (3, only(2)), "{end:?}");
    }
    write(&csv, text.replace("\nc,", "\nb,").replace('\n', "\r"));
    let error = VocNpy::open(dir.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("line 4, column `Id`: Id `b` was in line 3 before"), "{error}");
    write(&csv, text.replacen("a,1,", "a,1 1,", 1));
    let error = VocNpy::open(dir.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("line 2, column `aeroplane`: expected 0, 1 or -1, got `1 1`"), "{error}");
}

#[test]
fn a_line_with_several_names_is_refused_and_not_half_read() {
    let dir = devkit(&["a", "b", "c"]);
    for (task, text, part) in [
        (Task::Segmentation, "a b\nc\n", "line 1: expected one id, got `a b`"),
        (Task::Segmentation, "c\na\tb", "line 2: expected one id"),
        (Task::Segmentation, "a 1\n", "line 1: expected one id, got `a 1`"),
        (Task::Main, "a b\n", "line 1: expected one id, got `a b`"),
        (Task::Main, "a 1\nb -1 1\n", "line 2: expected one id, got `b -1 1`"),
        (Task::Main, "a,b\n", "expected the picture of `a,b`"),
        (Task::Main, "a.jpg\n", "expected the picture of `a.jpg`"),
        (Task::Main, "JPEGImages/a\n", "without its folder and ending, got `JPEGImages/a`"),
        (Task::Main, "a\x1b[2J\n", "got `a\\u{1b}[2J`"),
    ] {
        write(&task.list(dir.path(), "test"), text);
        let error = ids(dir.path(), task, "test").expect_err(text);
        assert!(error.contains("test.txt, line") && error.contains(part), "{text:?}: {error}");
    }
    write(&Task::Main.list(dir.path(), "test"), "a 1\nb  0\nc\t-1\n");
    assert_eq!(ids(dir.path(), Task::Main, "test").unwrap(), ["a", "b", "c"]);
}

#[test]
fn an_id_may_have_spaces_where_a_image_has_that_name() {
    let dir = devkit(&["a b", "photo 1", "c", "c 0"]);
    let list = |task: Task, text: &str| {
        write(&task.list(dir.path(), "test"), text);
        ids(dir.path(), task, "test")
    };
    assert_eq!(list(Task::Segmentation, " a b \r\nphoto 1\nc 0\n").unwrap(), ["a b", "photo 1", "c 0"]);
    assert_eq!(list(Task::Main, "a b\nphoto 1\nc\n").unwrap(), ["a b", "photo 1", "c"]);
    assert_eq!(list(Task::Main, "a b -1\nphoto 1 -1\n").unwrap(), ["a b", "photo 1"]);
    let error = list(Task::Main, "c 0\n").unwrap_err();
    assert!(error.contains("got two: is the last word a value, or part of the id in `c 0`?"), "{error}");
}

#[test]
fn class_lists_that_say_too_much_or_contradict_are_refused() {
    let dir = devkit(&["a", "b"]);
    let root = dir.path();
    let refused = |class: &str, set: &str, text: &str, part: &str| {
        class_lists(root, "train", |_| "a 1\nb -1\n".to_owned());
        class_lists(root, "trainval", |_| "a 1\nb -1\n".to_owned());
        assert_eq!(ids(root, Task::Main, "train").unwrap(), ["a", "b"]);
        write(&voc_devkit::class_list(root, class, set), text);
        let error = ids(root, Task::Main, "train").expect_err(text);
        assert!(
            error.contains(part) && error.contains(&format!("{class}_{set}.txt")),
            "{text:?}: {error}"
        );
    };
    refused(
        "cat",
        "train",
        "a 1 extra\nb -1\n",
        "line 1: expected an id and 1, 0 or -1, got `a 1 extra`",
    );
    refused("cat", "train", "a b 1\n", "line 1: expected one id, got `a b 1`");
    refused("cat", "train", "a 1\na -1\nb -1\n", "line 2: `a` was in this list before");
    refused("cat", "train", "a 1\nb -1\n../b 1\n", "got `../b`");
    refused("cat", "trainval", "a -1\nb -1\n", "to agree on `a`");
}

#[test]
fn a_image_that_some_class_lists_leave_out_is_told() {
    let dir = devkit(&["a", "b"]);
    class_lists(dir.path(), "train", |class| {
        if class == 11 { "a 1\n" } else { "a 1\nb 1\n" }.to_owned()
    });
    let report = check::check(dir.path()).unwrap();
    assert!(report.is_fine() && report.splits[0].unlabelled == 1, "{report}");
    assert!(
        report.to_string().contains("1 pictures of Main, train are in some of the twenty"),
        "{report}"
    );
}

#[test]
fn a_image_in_train_and_val_is_refused_by_check_and_by_training() {
    let dir = devkit(&["a", "b", "c"]);
    masks(dir.path(), &["a", "b", "c"], 3);
    for task in [Task::Segmentation, Task::Main] {
        write(&task.list(dir.path(), "train"), "a\nb\n");
        write(&task.list(dir.path(), "val"), "c\n\nb\n");
        let source = Source::open(dir.path()).unwrap();
        let expected = "val.txt, line 3: expected pictures that are in one set only, got `b`";
        let error = source.training(task).err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("line 2 of"), "{error}");
        let report = check::check(dir.path()).unwrap();
        assert!(report.problems.iter().any(|problem| problem.to_string() == error), "{report}");
        write(&task.list(dir.path(), "val"), "c\n");
        assert_eq!(source.training(task).unwrap().val, Some(vec![2]));
    }
}

#[test]
fn the_same_image_under_two_names_is_told() {
    let dir = devkit(&["a", "b", "c"]);
    let root = dir.path();
    masks(root, &["a", "b", "c"], 3);
    fs::copy(voc_devkit::image_path(root, "a"), voc_devkit::image_path(root, "c")).unwrap();
    write(&Task::Segmentation.list(root, "train"), "a\nb\n");
    write(&Task::Segmentation.list(root, "val"), "c\n");
    write(&Task::Segmentation.list(root, "test"), "b\n");
    let report = check::check(root).unwrap();
    assert!(report.is_fine(), "{report}");
    assert_eq!(
        report.notes,
        [
            "1 pictures of Segmentation, train are in Segmentation, test too",
            "the same picture in 2 files: `a` (Segmentation, train), `c` (Segmentation, val): no two sets \
         should share one",
        ]
    );
    let dir = npy(&["x", "y"]);
    fs::copy(Split::Train.image(dir.path(), "x"), Split::Train.image(dir.path(), "y")).unwrap();
    let report = check::check(dir.path()).unwrap();
    assert!(
        report.to_string().contains("the same picture in 2 files: `x` (train), `y` (train)\n"),
        "{report}"
    );
}

#[test]
fn images_without_any_label_are_nothing_to_train_on() {
    let dir = devkit(&["a", "b"]);
    let root = dir.path();
    write(&Task::Main.list(root, "train"), "a\n");
    write(&Task::Main.list(root, "val"), "b\n");
    let report = check::check(root).unwrap();
    let text = report.to_string();
    assert!(text.contains("train.txt: expected labels or masks to train on, got none"), "{text}");
    assert!(text.contains("the labels of no picture of Main, val are known"), "{text}");
    assert_eq!((report.problems.len(), report.splits[1].unlabelled), (1, 1));
    write(&voc_devkit::annotation_path(root, "a"), "<annotation/>");
    assert!(check::check(root).unwrap().is_fine());

    let dir = npy(&["a", "b"]);
    let unknown =
        || voc_npy::write_csv(Split::Train.csv(dir.path()), &Classes::voc(), [("a", None), ("b", None)]);
    unknown().unwrap();
    let report = check::check(dir.path()).unwrap();
    assert!(report.to_string().contains("expected labels or masks"), "{report}");
    let mask = Mask::new(8, 8, vec![5; 64]).unwrap();
    voc_npy::write_mask(Split::Train.mask(dir.path(), "a"), &mask).unwrap();
    let report = check::check(dir.path()).unwrap();
    assert!(report.is_fine() && report.to_string().contains("no classifier can be trained"), "{report}");
}

#[test]
fn masks_that_are_missing_in_part_or_void_throughout_are_told() {
    let dir = npy(&["a", "b", "c"]);
    let root = dir.path();
    for (id, class) in [("a", 1), ("b", VOID)] {
        let mask = Mask::new(8, 8, vec![class; 64]).unwrap();
        voc_npy::write_mask(Split::Train.mask(root, id), &mask).unwrap();
    }
    let report = check::check(root).unwrap();
    let text = report.to_string();
    assert!(
        text.contains("2 of 3 pictures of train have a mask: segmentation trains on those"),
        "{text}"
    );
    assert!(text.contains("1 of 2 masks of train are void (255) throughout: they teach"), "{text}");
    let train = Source::open(root).unwrap().training(Task::Segmentation).unwrap().dataset;
    assert_eq!([0, 1, 2].map(|i| train.has_mask(i)), [true, true, false]);
    let dir = devkit(&["a", "b"]);
    masks(dir.path(), &["a"], 1);
    masks(dir.path(), &["b"], VOID);
    write(&Task::Segmentation.list(dir.path(), "train"), "a\n");
    write(&Task::Segmentation.list(dir.path(), "val"), "b\n");
    let report = check::check(dir.path()).unwrap();
    // Nor do its labels say that the image shows no class.
    assert_eq!((report.splits[0].unlabelled, report.splits[1].unlabelled), (0, 1));
    let text = report.to_string();
    assert!(
        text.contains("1 of 1 masks of Segmentation, val are void (255) throughout: nothing"),
        "{text}"
    );
}

#[test]
fn a_mask_that_is_a_link_to_nowhere_is_not_missing() {
    let dir = npy(&["a"]);
    let path = Split::Train.mask(dir.path(), "a");
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    let train = VocNpy::open(dir.path(), Split::Train).unwrap();
    assert!(train.has_mask(0) && train.mask(0).unwrap_err().to_string().contains("train_a.npy"));
    assert!(!check::check(dir.path()).unwrap().is_fine());
    // What never ends is not read.
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(
        train.mask(0).unwrap_err().to_string().contains("expected a file, got a folder or a device")
    );
}

#[test]
fn only_capitals_between_two_ids_are_told() {
    let dir = npy(&["a", "A", "b"]);
    let report = check::check(dir.path()).unwrap();
    assert!(
        report.is_fine() && report.to_string().contains("only capitals tell `a` from `A`"),
        "{report}"
    );
}

#[test]
fn an_annotation_is_read_whole_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.xml");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        read_annotation(&path).map_err(|error| error.to_string())
    };
    let cat = "<object><name>cat</name></object>";
    for right in [
        format!("<annotation>{cat}</annotation>"),
        format!(
            "\u{feff}<?xml version=\"1.0\"?><!-- one --><annotation verified=\"yes\">{cat}\
             </annotation>\n"
        ),
        "<annotation><object><name> <![CDATA[cat]]>\n</name></object></annotation>".to_owned(),
        "<annotation><object><part><name>head</name></part><name>c<!-- -->at</name></object></annotation>"
            .to_owned(),
    ] {
        assert_eq!(read(&right).ok(), only(7), "{right}");
    }
    for (wrong, part) in [
        (
            "<annotation><object>\n<name>cat</name><name>dog</name></object></annotation>",
            "line 2: expected one",
        ),
        (
            "<annotation><objects>\n<object><name>cat</name></object></objects></annotation>",
            "line 2: expected <obj",
        ),
        ("<annotation><object><name>cat<b/>dog</name></object></annotation>", "an element in it"),
        ("<annotation><object><name>cat dog</name></object></annotation>", "got `cat dog`"),
        ("<annotation><object><name>cat&amp;dog</name></object></annotation>", "got `cat&amp;dog`"),
        ("<annotation><object><name/></object></annotation>", "got ``"),
        ("<annotation><object/></annotation>", "expected a <name>"),
        ("<annotation></annotation>cat", "text outside"),
        ("<annotation></annotation>\n<annotation></annotation>", "line 2: expected the end"),
        ("<annotation><object></annotation></object>", "expected XML"),
        ("<annotation><object name=>x</object></annotation>", "expected attributes in <object>"),
        ("", "an empty file"),
    ] {
        let error = read(wrong).expect_err(wrong);
        assert!(error.contains("a.xml") && error.contains(part), "{wrong}: {error}");
    }
}

#[test]
fn an_annotation_takes_time_linear_in_its_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.xml");
    let nested: String = (0..20_000).map(|k| format!("<a{k} xmlns:n{k}=\"u{k}\">")).collect();
    let attributes: String = (0..100_000).map(|k| format!(" a{k}=\"{k}\"")).collect();
    for text in [format!("<annotation>{nested}"), format!("<annotation{attributes}></annotation>")] {
        fs::write(&path, &text).unwrap();
        let began = Instant::now();
        assert_eq!(read_annotation(&path).is_ok(), text.ends_with("</annotation>"));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[test]
fn made_up_data_is_there_whole_or_not_at_all() {
    let above = tempfile::tempdir().unwrap();
    let to = above.path().join("made");
    let left = above.path().join(".made.4194305-0.partial");
    fs::create_dir_all(left.join("train/img")).unwrap();
    let stop = |done: usize, _: usize| match done < 16 {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    let stopped = synthetic::make(&to, 17, 1, 0, synthetic::Contents::default(), &stop).unwrap_err();
    assert!(matches!(stopped, atrous::Error::Interrupted(_)), "{stopped}");
    assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0);
    let whole = |_: usize, _: usize| ControlFlow::Continue(());
    for (train, test) in [(1, usize::MAX), (usize::MAX, 1), (usize::MAX, usize::MAX), (0, 1)] {
        let error = synthetic::make(&to, train, test, 0, synthetic::Contents::default(), &whole)
            .unwrap_err()
            .to_string();
        assert!(error.contains("expected 1 to 1000000000 training pictures"), "{error}");
        assert!(!to.exists());
    }
    synthetic::make(&to, 2, 0, 0, synthetic::Contents::default(), &whole).unwrap();
    let report = check::check(&to).unwrap();
    assert!(report.is_fine() && report.notes == ["there is no `test` folder"], "{report}");
    let source = Source::open(&to).unwrap();
    assert!(!source.has_test(Task::Main) && source.training(Task::Main).unwrap().dataset.len() == 2);
    let error =
        synthetic::make(&to, 2, 0, 0, synthetic::Contents::default(), &whole).unwrap_err().to_string();
    assert!(error.contains("expected a new or an empty folder"), "{error}");
}

#[test]
fn an_id_that_is_no_name_is_refused_and_never_printed_raw() {
    let dir = npy(&["a"]);
    let csv = Split::Train.csv(dir.path());
    let text = fs::read_to_string(&csv).unwrap();
    for id in ["\x1b]0;title\x07", "\"two\nlines\"", "\"a\ta\"", "\u{2028}x", "a\u{9b}2J", "..", "a/b"] {
        write(&csv, text.replacen("\na,", &format!("\n{id},"), 1));
        let error = VocNpy::open(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(
            error.contains("column `Id`: expected") && !error.contains(char::is_control),
            "{error:?}"
        );
    }
    for id in [" a", "a ", "a\n", ""] {
        let error = voc_npy::write_csv(&csv, &Classes::voc(), [(id, None)]).unwrap_err().to_string();
        assert!(error.contains("expected an Id"), "{error}");
    }
}
