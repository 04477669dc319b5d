//! Folders with classes of one's own: what is read of them, and what is said of those that are wrong.
#![cfg(feature = "pictures")]

use atrous::data::image_files::{write_jpeg, write_mask_png, write_png};
use atrous::data::image_set::Layout as Own;
use atrous::data::source::{Layout, Source, Training};
use atrous::data::voc_devkit::Task;
use atrous::data::{Dataset, Image, Mask};
use atrous::random::Stream;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// An image of one colour.
fn image(shade: u8) -> Image {
    Image::new(6, 9, vec![shade; 6 * 9 * 3]).unwrap()
}

fn write(root: &Path, name: &str, shade: u8) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match path.extension().unwrap().to_str().unwrap().to_lowercase().as_str() {
        "png" => write_png(path, &image(shade)).unwrap(),
        _ => write_jpeg(path, &image(shade)).unwrap(),
    }
}

fn text(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn training(root: &Path, layout: Own) -> Training {
    let source = Source::open(root).unwrap();
    assert_eq!(source.layout, Layout::Own(layout));
    source.training(source.natural_task()).unwrap()
}

fn refused(root: &Path) -> String {
    match Source::open(root).and_then(|source| source.training(Task::Main)) {
        Ok(_) => panic!("expected a refusal"),
        Err(error) => error.to_string(),
    }
}

/// Every sample: its Id and the names of its labels.
fn samples(dataset: &dyn Dataset) -> Vec<(String, Option<Vec<String>>)> {
    let classes = dataset.classes();
    let names = |labels: Vec<bool>| classes.named(&labels).map(str::to_owned).collect();
    (0..dataset.len()).map(|i| (dataset.id(i), dataset.labels(i).map(names))).collect()
}

fn is(id: &str, names: &[&str]) -> (String, Option<Vec<String>>) {
    (id.into(), Some(names.iter().map(|name| name.to_string()).collect()))
}

#[test]
fn a_folder_a_class_is_read_with_its_own_validation_and_test_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "train/cat/a picture.JPG", 10);
    write(root, "train/cat/deep/er.png", 20);
    write(root, "train/Größe/b.jpeg", 30);
    write(root, "train/dog/b.jpg", 40);
    write(root, "val/dog/c.jpg", 50);
    write(root, "test/d.jpg", 60);
    text(root, "train/cat/.DS_Store", "x");
    text(root, "train/cat/notes.txt", "no picture");
    let Training { dataset, train, val } = training(root, Own::ImageFolder);
    assert_eq!(dataset.classes().iter().collect::<Vec<_>>(), ["Größe", "cat", "dog"]);
    assert!(dataset.exclusive());
    assert_eq!(
        samples(&*dataset),
        [
            is("Größe_b", &["Größe"]),
            is("cat_a picture", &["cat"]),
            is("cat_deep_er", &["cat"]),
            is("dog_b", &["dog"]),
            is("dog_c", &["dog"]),
        ]
    );
    assert_eq!((train, val), (vec![0, 1, 2, 3], Some(vec![4])));
    assert_eq!(dataset.image(2).unwrap(), image(20));
    let test = Source::open(root).unwrap().test(Task::Main).unwrap();
    assert_eq!(samples(&*test), [("d".to_owned(), None)]);
}

#[test]
fn classes_folders_may_lie_right_in_the_folder_and_be_put_in_order_by_a_list() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "oak/1.jpg", 1);
    write(root, "ash/2.jpg", 2);
    text(root, "classes.txt", "oak\r\nash\r\n");
    let Training { dataset, val, .. } = training(root, Own::ImageFolder);
    assert_eq!(dataset.classes().iter().collect::<Vec<_>>(), ["oak", "ash"]);
    assert_eq!((samples(&*dataset), val), (vec![is("ash_2", &["ash"]), is("oak_1", &["oak"])], None));
    write(root, "elm/3.jpg", 3);
    let error = refused(root);
    assert!(error.contains("elm") && error.contains("`oak`, `ash`"), "{error}");
}

#[test]
fn a_table_of_flags_names_the_classes_by_its_columns() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    (0..4).for_each(|i| write(root, &format!("images/{i}.jpg"), i));
    text(root, "train.csv", "red,Id,green\n1,0,0\n0,1.jpg,1\n-1,2,-1\n");
    text(root, "test.csv", "id\n3\n");
    let Training { dataset, .. } = training(root, Own::Table);
    assert_eq!(dataset.classes().iter().collect::<Vec<_>>(), ["red", "green"]);
    assert_eq!(samples(&*dataset), [is("0", &["red"]), is("1", &["green"]), ("2".to_owned(), None)]);
    assert!(dataset.exclusive());
    let test = Source::open(root).unwrap().test(Task::Main).unwrap();
    assert_eq!(samples(&*test), [("3".to_owned(), None)]);
    write(root, "images/scan.1.jpg", 7);
    text(root, "train.csv", "Id,red,green\nscan.1,1,1\n");
    assert_eq!(samples(&*training(root, Own::Table).dataset), [is("scan.1", &["red", "green"])]);
    assert!(!training(root, Own::Table).dataset.exclusive());
}

#[test]
fn a_table_of_words_has_one_class_or_several_in_a_cell() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "train/a.jpg", 1);
    write(root, "train/b.png", 2);
    text(root, "train.csv", "image,label\na.jpg,golden retriever\nb.png,cat\n");
    let one = training(root, Own::Table).dataset;
    assert_eq!(samples(&*one), [is("a", &["golden retriever"]), is("b", &["cat"])]);
    assert!(one.exclusive());
    text(root, "train.csv", "image,tags\na.jpg,clear primary\nb.png,\n");
    let several = training(root, Own::Table).dataset;
    assert_eq!(samples(&*several), [is("a", &["clear", "primary"]), is("b", &[])]);
    assert!(!several.exclusive());
    text(root, "train.csv", "image,labels\na.jpg,\"clear sky; sea\"\nb.png,sea\n");
    assert_eq!(samples(&*training(root, Own::Table).dataset)[0], is("a", &["clear sky", "sea"]));
}

#[test]
fn what_is_wrong_with_a_table_is_told_with_its_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "train/a.jpg", 1);
    for (table, expected) in [
        ("id,x\nb,1\n", "line 2: expected the picture `b`"),
        ("id,x\na,1\na.jpg,1\n", "line 3: the picture `a.jpg` was in line 2 before"),
        ("id,x\na,2\n", "line 2, column `x`: expected 0, 1 or -1"),
        ("id,x,y\na,1,-1\n", "line 2: expected -1 (not known) in all 2 columns"),
        ("id,x\na\n", "line 2: expected 2 fields, got 1"),
        ("id,x,x\na,1,1\n", "line 1, column `x`: expected each column once"),
        ("id,x\n", "expected at least one row"),
        ("", "line 1: expected a header"),
        ("id\na\n", "expected 1 to"),
    ] {
        text(root, "train.csv", table);
        let error = refused(root);
        assert!(error.contains("train.csv") && error.contains(expected), "{table:?}: {error}");
    }
}

#[test]
fn masks_go_with_the_pictures_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "images/a.jpg", 1);
    write(root, "images/b.jpg", 2);
    fs::create_dir(root.join("masks")).unwrap();
    let mask = |class: u8| {
        let classes = (0..54).map(|i| {
            if i < 10 {
                class
            } else if i < 14 {
                255
            } else {
                0
            }
        });
        Mask::new(6, 9, classes.collect()).unwrap()
    };
    write_mask_png(root.join("masks/a.png"), &mask(3)).unwrap();
    let Training { dataset, .. } = training(root, Own::MaskFolder);
    assert_eq!(dataset.classes().iter().collect::<Vec<_>>(), ["class 1", "class 2", "class 3"]);
    assert_eq!(samples(&*dataset), [is("a", &["class 3"]), ("b".to_owned(), None)]);
    assert_eq!(dataset.mask(0).unwrap(), Some(mask(3)));
    assert!(!dataset.has_mask(1) && dataset.mask(1).unwrap().is_none());

    text(root, "classes.txt", "background\nroad\ncar\n");
    let error = refused(root);
    assert!(error.contains("a.png") && error.contains("expected 0 to 2 or 255, got 3"), "{error}");
    write_mask_png(root.join("masks/a.png"), &mask(2)).unwrap();
    assert_eq!(samples(&*training(root, Own::MaskFolder).dataset)[0], is("a", &["car"]));
    write_mask_png(root.join("masks/stray.png"), &mask(1)).unwrap();
    let error = refused(root);
    assert!(error.contains("stray.png") && error.contains("expected a picture of this name"), "{error}");
    fs::remove_file(root.join("masks/stray.png")).unwrap();
    write_png(root.join("masks/a.png"), &image(7)).unwrap();
    let error = refused(root);
    assert!(error.contains("palette numbers or of 8-bit grey"), "{error}");
}

#[test]
fn masks_of_black_and_white_are_of_one_class() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "train/images/a.jpg", 1);
    fs::create_dir(root.join("train/masks")).unwrap();
    let classes: Vec<u8> = (0..54).map(|i| if i < 20 { 255 } else { 0 }).collect();
    write_mask_png(root.join("train/masks/a_mask.png"), &Mask::new(6, 9, classes).unwrap()).unwrap();
    text(root, "classes.txt", "car\n");
    let dataset = training(root, Own::MaskFolder).dataset;
    assert_eq!(samples(&*dataset), [is("a", &["car"])]);
    let mask = dataset.mask(0).unwrap().unwrap();
    assert_eq!(mask.classes.iter().filter(|&&class| class == 1).count(), 20);
}

/// Objects of three categories in two images: polygons of odd forms, runs plain and packed, a crowd.
fn instances() -> Value {
    let (mut stream, categories) = (Stream::new(5, &[1]), [3, 7, 21]);
    let mut annotations = Vec::new();
    for image in [1, 2] {
        let (height, width) = if image == 1 { (37, 53) } else { (40, 31) };
        for object in 0..8 {
            let corners: Vec<f64> = (0..2 * (3 + object % 4))
                .map(|i| {
                    let side = if i % 2 == 0 { width } else { height } as f32;
                    // Some corners are outside, some on whole numbers.
                    let at = f64::from(stream.uniform(-0.1, 1.1) * side);
                    if object % 3 == 0 { at.round() } else { (at * 100.0).round() / 100.0 }
                })
                .collect();
            annotations.push(json!({
                "id": annotations.len() + 1, "image_id": image, "category_id": categories[object % 3],
                "segmentation": [corners], "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1],
            }));
        }
    }
    let runs = |image: usize, category: usize, counts: Value, size: [usize; 2], id: usize| {
        json!({
            "id": id, "image_id": image, "category_id": category, "iscrowd": 1, "area": 1, "bbox": [0, 0, 1, 1],
            "segmentation": { "counts": counts, "size": size },
        })
    };
    annotations.push(runs(1, 3, json!([100, 40, 3, 7, 37 * 53 - 150]), [37, 53], 100));
    json!({
        "images": [
            { "id": 1, "file_name": "one.jpg", "height": 37, "width": 53 },
            { "id": 2, "file_name": "two.jpg", "height": 40, "width": 31 },
        ],
        "annotations": annotations,
        "categories": [
            { "id": 21, "name": "cow" }, { "id": 3, "name": "car" }, { "id": 7, "name": "traffic light" },
        ],
    })
}

fn coco(root: &Path, instances: &Value) {
    text(root, "annotations/instances_train2017.json", &instances.to_string());
    for image in instances["images"].as_array().unwrap() {
        let side = |key: &str| image[key].as_u64().unwrap() as usize;
        let (height, width) = (side("height"), side("width"));
        let path = root.join("train2017").join(image["file_name"].as_str().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_jpeg(path, &Image::new(height, width, vec![90; height * width * 3]).unwrap()).unwrap();
    }
}

#[test]
fn cocos_categories_are_labels_and_outlines_masks() {
    let dir = tempfile::tempdir().unwrap();
    let square = json!([[1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]]);
    let instances = json!({
        "images": [{ "id": 9, "file_name": "a.jpg", "height": 5, "width": 6 }],
        "annotations": [
            { "id": 1, "image_id": 9, "category_id": 2, "segmentation": square, "iscrowd": 0 },
            { "id": 2, "image_id": 9, "category_id": 5, "segmentation": [[2.0, 0.0, 3.0, 0.0, 3.0, 5.0, 2.0, 5.0]] },
            { "id": 3, "image_id": 9, "category_id": 5, "iscrowd": 1,
              "segmentation": { "size": [5, 6], "counts": [25, 2, 3] } },
        ],
        "categories": [{ "id": 5, "name": "dog" }, { "id": 2, "name": "cat" }],
    });
    coco(dir.path(), &instances);
    let dataset = training(dir.path(), Own::Coco).dataset;
    assert_eq!(dataset.classes().iter().collect::<Vec<_>>(), ["cat", "dog"]);
    assert_eq!(samples(&*dataset), [is("a", &["cat", "dog"])]);
    let mask = dataset.mask(0).unwrap().unwrap();
    #[rustfmt::skip]
    assert_eq!(mask.classes, [
        0, 0, 2, 0, 0, 255,
        0, 1, 2, 1, 0, 255,
        0, 1, 2, 1, 0, 0,
        0, 0, 2, 0, 0, 0,
        0, 0, 2, 0, 0, 0,
    ]);
}

#[test]
fn what_is_wrong_with_cocos_file_is_told() {
    let broken = |change: &dyn Fn(&mut Value)| {
        let dir = tempfile::tempdir().unwrap();
        let mut all = instances();
        coco(dir.path(), &all);
        change(&mut all);
        text(dir.path(), "annotations/instances_train2017.json", &all.to_string());
        let error = refused(dir.path());
        assert!(error.contains("instances_train2017.json"), "{error}");
        error
    };
    let no_image = broken(&|all| all["images"][0]["file_name"] = "gone.jpg".into());
    assert!(no_image.contains("`gone.jpg`"), "{no_image}");
    let stray = broken(&|all| all["annotations"][0]["image_id"] = 77.into());
    assert!(stray.contains("picture 77"), "{stray}");
    let category = broken(&|all| all["annotations"][0]["category_id"] = 4.into());
    assert!(category.contains("category 4"), "{category}");
    let corners = broken(&|all| all["annotations"][0]["segmentation"] = json!([[1.0, 2.0, 3.0]]));
    assert!(corners.contains("`one.jpg`") && corners.contains("three corners"), "{corners}");
    let runs = broken(&|all| all["annotations"][16]["segmentation"]["counts"] = json!([100_000]));
    assert!(runs.contains("got 100000"), "{runs}");
    let size = broken(&|all| all["annotations"][16]["segmentation"]["size"] = json!([3, 4]));
    assert!(size.contains("got those of 3×4"), "{size}");
    let key = broken(&|all| all["categories"] = Value::Null);
    assert!(key.contains("expected COCO's instances"), "{key}");
}

#[test]
#[ignore = "needs pycocotools"]
fn cocos_own_tools_make_the_same_masks() {
    let dir = tempfile::tempdir().unwrap();
    coco(dir.path(), &instances());
    let dataset = training(dir.path(), Own::Coco).dataset;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coco.py");
    let file = dir.path().join("annotations/instances_train2017.json");
    let output = Command::new("python3").arg(script).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected: Value = serde_json::from_slice(&output.stdout).unwrap();
    for i in 0..dataset.len() {
        let expected = &expected[format!("{}.jpg", dataset.id(i))];
        let labels: Vec<usize> = dataset
            .labels(i)
            .unwrap()
            .iter()
            .enumerate()
            .filter(|(_, set)| **set)
            .map(|(i, _)| i)
            .collect();
        assert_eq!(json!(labels), expected["labels"]);
        let mask = dataset.mask(i).unwrap().unwrap();
        assert!(mask.classes.iter().any(|&class| class > 0));
        assert_eq!(json!(mask.classes), expected["mask"], "{}", dataset.id(i));
    }
}

#[test]
fn a_folder_of_no_layout_is_told_which_there_are() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.jpg", 1);
    let error = refused(dir.path());
    for layout in ["train.csv", "masks", "classes.txt", "instances_", "ImageSets", "train_set.csv"] {
        assert!(error.contains(layout), "{error}");
    }
}
