//! Images for people: they are written whole, can be read again, and show what they should.
#![cfg(feature = "report")]

use atrous::data::synthetic::{Synthetic, generate};
use atrous::data::{CLASSES, Classes, Dataset};
use atrous::report::{self, Curve, Panel, PanelRow};
use std::fs;
use std::path::Path;

/// Height, width and pixels of a PNG file.
fn read(path: &Path) -> (usize, usize, Vec<u8>) {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    (info.height as usize, info.width as usize, pixels)
}

fn count(pixels: &[u8], colour: [u8; 3]) -> usize {
    pixels.chunks_exact(3).filter(|pixel| **pixel == colour).count()
}

fn row(index: usize) -> PanelRow {
    let sample = generate(1, index);
    let mut probabilities: Vec<f32> = (0..CLASSES.len()).map(|c| 0.01 * c as f32).collect();
    probabilities[index % 20] = 0.9;
    PanelRow {
        name: format!("picture {index}"),
        image: Some(sample.image),
        prediction: Some(sample.mask.clone()),
        truth: Some(sample.mask),
        labels: Some(sample.labels),
        predicted: Some((0..20).map(|class| class == index % 20).collect()),
        probabilities,
    }
}

#[test]
fn curves_are_written_as_svg_and_png_with_every_name_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let curve = |name: &str, height: f64| Curve {
        name: name.to_owned(),
        points: (1..=9).map(|i| (i as f64, height / i as f64)).collect(),
    };
    let panels: Vec<Panel> = (1..=7)
        .map(|i| Panel {
            title: format!("Panel {i} & <more>"),
            curves: vec![curve("train", 1.0), curve("validation", 1.5)],
            log: i % 2 == 0,
        })
        .collect();
    for n in 1..=7 {
        let files = report::draw(&panels[..n], "epoch", folder.path()).unwrap();
        assert_eq!(files, [folder.path().join("curves.svg"), folder.path().join("curves.png")]);
        let svg = fs::read_to_string(&files[0]).unwrap();
        assert_eq!(svg.matches("&amp; &lt;more&gt;</text>").count(), n);
        assert_eq!(svg.matches(">validation</text>").count(), n);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        let (_, _, pixels) = read(&files[1]);
        for colour in [[49, 104, 166], [217, 119, 49]] {
            assert!(count(&pixels, colour) > 1000 * n, "{n} panels, {colour:?}");
        }
    }
    assert!(report::draw(&[], "epoch", folder.path()).is_err());
}

#[test]
fn values_that_cannot_be_drawn_leave_gaps_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let strange = [
        vec![],
        vec![(1.0, f64::NAN), (2.0, f64::INFINITY)],
        vec![(1.0, 0.0), (2.0, -3.0)],
        vec![(1.0, 5.0)],
        vec![(1.0, 1.0), (2.0, f64::NAN), (3.0, 1e300), (4.0, -1e300)],
    ];
    for points in strange {
        for log in [false, true] {
            let panel = Panel {
                title: String::new(),
                curves: vec![Curve { name: "c".into(), points: points.clone() }],
                log,
            };
            let files = report::draw(&[panel], "", folder.path()).unwrap();
            let svg = fs::read_to_string(&files[0]).unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?}, log {log}: {svg}");
        }
    }
}

#[cfg(feature = "checkpoint")]
#[test]
fn a_history_gives_a_panel_for_each_of_its_figures() {
    use atrous::train::History;
    let text = r#"[
        {"epoch": 1, "learning_rate": 0.001, "loss": 0.9, "accuracy": 0.1, "val_loss": 1.0,
         "val_accuracy": null, "val_map": 0.2},
        {"epoch": 2, "learning_rate": 0.001, "loss": 0.7, "accuracy": 0.2, "val_loss": 0.8,
         "val_accuracy": null, "val_map": 0.3}]"#;
    // Fields that came later may be absent.
    let Ok(history) = serde_json::from_str::<History>(text) else {
        panic!("the history's format has changed: add its new fields above")
    };
    let panels = report::from_history(&history).unwrap();
    let titles: Vec<&str> = panels.iter().map(|panel| panel.title.as_str()).collect();
    assert_eq!(titles[0], "Loss");
    assert_eq!(titles[titles.len() - 1], "Learning rate");
    assert!(titles.contains(&"Accuracy") && titles.contains(&"Mean average precision"));
    let names: Vec<&str> = panels[0].curves.iter().map(|curve| curve.name.as_str()).collect();
    assert_eq!(names, ["train", "validation"]);
    assert_eq!(panels[0].curves[1].points, [(1.0, 1.0), (2.0, 0.8)]);
    assert!(panels[panels.len() - 1].log);
    assert!(report::curves(&History::default(), Path::new("nowhere")).is_err());
}

#[test]
fn a_gallery_has_a_column_for_each_class_in_its_colour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gallery.png");
    let set = Synthetic::train(3, 40);
    report::gallery(&set, &path, 1).unwrap();
    let (_, _, pixels) = read(&path);
    // The line above each class' name; class 1 is dark red, class 20 is a blue.
    for colour in [[128, 0, 0], [0, 64, 128]] {
        assert!(count(&pixels, colour) > 168 * 4, "{colour:?}");
    }
    assert!(count(&pixels, [224, 224, 192]) > 0, "void is cream");
    let mut again = Vec::new();
    for threads in [1, 2] {
        let path = folder.path().join(format!("{threads}.png"));
        atrous::backend::cpu::threads::with(threads, || report::gallery(&set, &path, 2))
            .unwrap()
            .unwrap();
        again.push(fs::read(path).unwrap());
    }
    assert!(again[0] == again[1]);
    assert!(set.len() == 40);
}

#[test]
fn a_panel_shows_images_masks_and_confidences() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.png");
    let rows: Vec<PanelRow> = (0..3).map(row).collect();
    report::panel(&rows, &Classes::voc(), &path).unwrap();
    let (tall, wide, _) = read(&path);
    let only_labels: Vec<PanelRow> =
        rows.iter().map(|row| PanelRow { truth: None, prediction: None, ..row.clone() }).collect();
    report::panel(&only_labels, &Classes::voc(), &path).unwrap();
    let (height, width, pixels) = read(&path);
    assert!(width < wide && height < tall, "columns that no row has are left out");
    let (right, wrong) = ([72, 150, 98], [193, 84, 74]);
    let hit = (0..3).any(|i| rows[i].labels.as_ref().unwrap()[i]);
    assert_eq!(count(&pixels, right) > 1000, hit, "true classes are green");
    let miss = (0..3).any(|i| !rows[i].labels.as_ref().unwrap()[i]);
    assert_eq!(count(&pixels, wrong) > 1000, miss, "wrong ones are red");
    let nothing = PanelRow { name: "a name far too long for its row ".repeat(9), ..PanelRow::default() };
    report::panel(&[nothing], &Classes::voc(), &path).unwrap();
}

#[test]
fn what_does_not_fit_into_a_panel_is_refused_and_the_old_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("panel.png");
    fs::write(&path, "old").unwrap();
    let refused =
        |rows: &[PanelRow]| report::panel(rows, &Classes::voc(), &path).unwrap_err().to_string();
    assert!(refused(&[]).contains("at least one row"));
    let probabilities = vec![0.5; 3];
    assert!(
        refused(&[row(0), PanelRow { probabilities, ..row(1) }]).contains("20 probabilities in row 1")
    );
    let truth = Some(atrous::data::Mask::new(1, 2, vec![0, 0]).unwrap());
    assert!(refused(&[PanelRow { truth, ..row(0) }]).contains("got 1×2"));
    let many = vec![PanelRow { name: "x".into(), ..PanelRow::default() }; 5000];
    assert!(refused(&many).contains("show fewer rows"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    let missing = report::panel(&[row(0)], &Classes::voc(), &folder.path().join("nowhere/panel.png"));
    assert!(missing.unwrap_err().to_string().contains("nowhere"));
}
