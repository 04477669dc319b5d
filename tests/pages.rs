//! Pages for people: they hold what the files say, fetch nothing, and come out the same every time.
#![cfg(all(feature = "report", feature = "checkpoint"))]

use atrous::data::image_files::{decode_image, write_jpeg, write_png};
use atrous::data::{CLASSES, Image};
use atrous::models::Spec;
use atrous::report::evaluation::{
    self, Bin, ClassScores, Evaluation, Example, PrecisionRecallPoints, Sample,
};
use atrous::report::html::{self, TrainingRecord};
use atrous::train::{History, TrainConfig};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A name that would do something, where it is not escaped.
const NAME: &str = "<script>alert('x')</script>&\"";

fn image(value: u8) -> Image {
    Image::new(6, 9, vec![value; 6 * 9 * 3]).unwrap()
}

/// What `train` leaves, with `score` as its validation score.
fn train(folder: &Path, score: f64, rate: f32) {
    let epoch = |epoch: usize| {
        json!({
            "epoch": epoch, "learning_rate": rate, "loss": 1.0 / epoch as f64, "accuracy": 0.2,
            "val_loss": 1.2 / epoch as f64, "val_accuracy": 0.25, "val_map": score * epoch as f64 / 3.0,
        })
    };
    let epochs: Vec<_> = (1..=3).map(epoch).collect();
    let history: History = serde_json::from_value(json!(epochs)).unwrap();
    history.write(folder).unwrap();
    let mut config = TrainConfig::new(Spec::new("alexnet", 150, 20));
    (config.learning_rate, config.train_indices, config.seed) = (rate, vec![0; 40], 77);
    config.weights = Some(NAME.into());
    let record = TrainingRecord {
        parameters: 1_234_567,
        arithmetic: "cpu (Avx2)".into(),
        seconds: 75.0,
        ..TrainingRecord::of(&config).unwrap()
    };
    record.write(folder).unwrap();
    let evaluations = [labels(folder, score), masks(score)];
    evaluation::write(&evaluations, folder).unwrap();
    write_png(folder.join("panel.png"), &image(90)).unwrap();
}

fn labels(folder: &Path, score: f64) -> Evaluation {
    let class = |c: usize| ClassScores {
        name: CLASSES[c].into(),
        support: 3 + c as u64,
        true_positives: 2,
        false_positives: 1,
        false_negatives: 1 + c as u64,
        threshold: Some(0.25),
        average_precision: (c != 4).then_some(score * (1.0 - c as f64 / 40.0)),
        iou: None,
    };
    let curve = |name: &str| PrecisionRecallPoints {
        name: name.into(),
        points: vec![(0.1, 1.0), (0.6, 0.7), (1.0, 0.3)],
    };
    let names = ["all classes"].iter().chain(&CLASSES);
    let sample = |i: usize| Sample {
        id: if i == 0 { NAME.into() } else { format!("image {i}") },
        score: i as f64 / 5.0,
        loss: Some(0.4),
        truth: vec!["cat".into(), "dog".into()],
        predicted: vec!["cat".into()],
        probabilities: vec![0.1; 20],
        pixel_accuracy: None,
    };
    fs::create_dir_all(folder.join("examples")).unwrap();
    write_jpeg(folder.join("examples/a.jpg"), &image(140)).unwrap();
    Evaluation {
        task: "classify".into(),
        network: "alexnet".into(),
        checkpoint: "best.safetensors".into(),
        kind: "validation pictures".into(),
        images: 5,
        seconds: 0.5,
        scores: vec![("mean average precision".into(), score)],
        classes: (0..20).map(class).collect(),
        confusion: (0..20).map(|i| (0..20).map(|j| u64::from(i == j)).collect()).collect(),
        precision_recall: names.map(|name| curve(name)).collect(),
        average_precision_error: 0.0,
        calibration: vec![Bin { low: 0.1, high: 0.2, count: 7, confidence: 0.15, accuracy: 0.3 }],
        calibration_error: Some(0.0123),
        samples: (0..5).map(sample).collect(),
        examples: vec![Example {
            group: "worst".into(),
            id: NAME.into(),
            images: vec![("image".into(), "examples/a.jpg".into())],
        }],
    }
}

fn masks(score: f64) -> Evaluation {
    let class = |c: usize| ClassScores {
        name: if c == 0 { "background" } else { CLASSES[c - 1] }.into(),
        support: 1000,
        true_positives: 600,
        false_positives: 100,
        false_negatives: 400,
        iou: Some(score),
        average_precision: (c == 0).then_some(0.875),
        ..ClassScores::default()
    };
    let curve = |name: &str, end: f64| PrecisionRecallPoints {
        name: name.into(),
        points: vec![(0.25, 1.0), (1.0, end)],
    };
    Evaluation {
        task: "segment".into(),
        precision_recall: vec![curve("all classes", 0.25), curve("background", 0.5)],
        average_precision_error: 2e-4,
        network: "deeplabv3plus".into(),
        kind: "validation pictures".into(),
        images: 5,
        scores: vec![("mean IoU".into(), score)],
        classes: (0..21).map(class).collect(),
        confusion: (0..21).map(|i| (0..21).map(|j| 10 * u64::from(i == j)).collect()).collect(),
        samples: vec![Sample { id: "one".into(), score, ..Sample::default() }],
        ..Evaluation::default()
    }
}

/// What `attack` leaves.
fn attack(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let summary = json!({
        "victim": NAME, "task": "classify", "norm": "linf", "side": 150, "seed": 0, "version": "0.1.0",
        "settings": {"steps": 20, "step": null},
        "attacks": [
            {"method": "pgd", "epsilon": 4.0 / 255.0, "pictures": 9, "clean": 0.75, "robust": 0.5},
            {"method": "pgd", "epsilon": 8.0 / 255.0, "pictures": 9, "clean": 0.75, "robust": 0.125},
        ],
        "curves": [{"method": "pgd", "points": [[4.0, 0.5], [8.0, 0.125]], "so_far": []}],
        "transfer": [
            {"pictures": "as they are", "right": [0.75]},
            {"pictures": "against a", "right": [null]},
        ],
        "defences": [{"defence": "bit depth", "clean": 0.7, "attacked": 0.4, "adaptive": 0.2, "note": NAME}],
    });
    fs::write(folder.join("summary.json"), summary.to_string()).unwrap();
    let table = "method,epsilon,Id,truth,right,success\npgd,0.03,a,cat; dog,1,1\npgd,0.03,b,cat,1,0\n";
    fs::write(folder.join("attack.csv"), table).unwrap();
    write_png(folder.join("panel.png"), &image(30)).unwrap();
}

/// A folder as `run` leaves it.
fn run() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), 0.6667, 0.001);
    attack(&folder.path().join("attack/classify"));
    fs::write(folder.path().join("scores.txt"), format!("mAP 0.667 of {NAME}\n")).unwrap();
    write_png(folder.path().join("gallery.png"), &image(200)).unwrap();
    folder
}

fn page(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The values of an attribute, as they are written.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    html.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

/// Every image is in the page and decodes; nothing is fetched.
fn check_self_contained(html: &str) -> usize {
    let sources = attributes(html, "src");
    for src in &sources {
        let (kind, data) = src.split_once(";base64,").unwrap_or_else(|| panic!("src is {src:.60}"));
        assert!(["data:image/png", "data:image/jpeg"].contains(&kind), "{kind}");
        decode_image(&STANDARD.decode(data).unwrap()).unwrap();
    }
    assert_eq!(html.matches("<img").count(), sources.len());
    for (at, _) in html.match_indices("http") {
        assert!(html[at..].starts_with("http://www.w3.org/2000/svg"), "{:.80}", &html[at..]);
    }
    for fetched in ["<link rel=\"stylesheet\"", "@import", "url(", "fetch("] {
        assert!(!html.contains(fetched), "{fetched}");
    }
    sources.len()
}

/// The text of what is drawn and written, without markup.
fn text(html: &str) -> String {
    let body = html.split("<main").nth(1).unwrap().split("</main>").next().unwrap();
    let mut text = String::new();
    for part in body.split('<').skip(1) {
        text.push_str(part.split_once('>').unwrap().1);
        text.push(' ');
    }
    text.replace("&#x2f;", "/").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_report_holds_the_figures_of_the_files_and_every_image_decodes() {
    let folder = run();
    let html = page(&html::write(folder.path()).unwrap());
    // The gallery, two panels, an example.
    assert_eq!(check_self_contained(&html), 4);
    let text = text(&html);
    for part in [
        "0.667 best validation",
        "0.667 mean average precision",
        "Expected calibration error 0.012",
        "1.2 M parameters",
        "1:15 min training time",
        "computed on cpu (Avx2)",
        "seed 77",
        "learning_rate 0.001",
        "pgd 8/255 9 0.750 0.125",
        "bit depth 0.700 0.400 0.200",
        "Precision over recall",
        "Precision and recall of pixels",
        "What a confidence is worth",
        "Confusion, in percent of the true class",
        "Pictures that resist, each ε alone",
        "Images that are right, by class",
        "Still right, in percent",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    for id in ["overview", "training", "scores-classify-validation-pictures", "attack-classify", "files"]
    {
        assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
        assert!(html.contains(&format!("<a href=\"#{id}\">")), "{id}");
    }
}

#[test]
fn every_plot_of_a_report_is_an_svg_and_a_png_beside_it() {
    let folder = run();
    let html = page(&html::write(folder.path()).unwrap());
    let linked: Vec<&str> =
        attributes(&html, "href").into_iter().filter(|href| href.starts_with("plots")).collect();
    let inline = html.matches("<svg").count();
    assert!(inline > 8 && linked.len() == 2 * inline, "{inline} plots, {} links", linked.len());
    for href in linked {
        let path = folder.path().join(href.replace("&#x2f;", "/"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        match path.extension().unwrap().to_str().unwrap() {
            "svg" => assert!(html.contains(std::str::from_utf8(&bytes).unwrap().trim_end())),
            _ => assert!(decode_image(&bytes).unwrap().rgb.iter().any(|&value| value != 255)),
        }
    }
}

#[test]
fn masks_have_curves_of_precision_over_recall_drawn_as_a_classifiers_are() {
    let folder = run();
    let html = text(&page(&html::write(folder.path()).unwrap()));
    for words in
        ["Precision over recall of pixels", "background 0.88", "at most 2e-4 too small", "0.875"]
    {
        assert!(html.contains(words), "{words} is not in\n{html}");
    }
    for task in ["segment", "classify"] {
        let plot = format!("plots/precision-recall-{task}-validation-pictures");
        assert!(
            ["svg", "png"].iter().all(|kind| folder.path().join(format!("{plot}.{kind}")).is_file())
        );
    }
}

#[test]
fn a_training_that_did_not_come_to_its_end_says_so_first() {
    let folder = run();
    let mut record = TrainingRecord::read(folder.path()).unwrap().unwrap();
    record.ended = TrainingRecord::stopped("Interrupted", [3, 8, 5]);
    record.write(folder.path()).unwrap();
    let html = text(&page(&html::write(folder.path()).unwrap()));
    let (before, _) = html.split_once("Interrupted after epoch 3 of 8, step 5").expect(&html);
    assert!(before.trim_end().ends_with("Overview"), "{before}");
    // Of a run without one whole epoch there is nothing else to tell.
    let young = tempfile::tempdir().unwrap();
    History::default().write(young.path()).unwrap();
    TrainingRecord { ended: "Killed".into(), ..record }.write(young.path()).unwrap();
    let html = text(&page(&html::write(young.path()).unwrap()));
    assert!(html.contains("Killed") && html.contains("No epoch was completed."), "{html}");
}

#[test]
fn made_again_a_report_has_the_same_bytes() {
    let folder = run();
    let first: Vec<(PathBuf, Vec<u8>)> = html::write_all(folder.path())
        .unwrap()
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert_eq!(first.len(), 2, "the run's page and that of its attack");
    assert_eq!(first[1].0, folder.path().join("report.html"));
    for (path, bytes) in &first {
        html::write_all(folder.path()).unwrap();
        assert!(fs::read(path).unwrap() == *bytes, "{}", path.display());
    }
}

#[test]
fn names_that_are_markup_are_text_in_every_page() {
    let (a, b) = (run(), run());
    train(b.path(), 0.5, 0.01);
    let mut pages = html::write_all(a.path()).unwrap();
    let out = a.path().join("compare.html");
    let folders = [a.path().to_owned(), b.path().to_owned()];
    pages.push(html::compare(&folders, &out).unwrap().page);
    for path in pages {
        let html = page(&path);
        assert!(!html.contains("<script>alert"), "{}", path.display());
        // The frame's script alone: no data, none of a page's own.
        assert_eq!(html.matches("<script").count(), 1, "{}", path.display());
        check_self_contained(&html);
    }
    assert!(page(&a.path().join("report.html")).contains("&lt;script&gt;alert"));
}

#[test]
fn a_comparison_tells_what_differs_and_which_is_better() {
    let (a, b) = (run(), run());
    train(a.path(), 0.5, 0.001);
    train(b.path(), 0.75, 0.01);
    let out = a.path().join("pages/compare.html");
    let folders = [a.path().to_owned(), b.path().to_owned()];
    let comparison = html::compare(&folders, &out).unwrap();
    let table = &comparison.table;
    let line = |start: &str| {
        let line = table.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start} is not in\n{table}"))
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!(line("classify: mean average precision")[4..], ["0.5000", "*0.7500"]);
    assert_eq!(line("classify: learning_rate")[2..], ["0.001", "0.01"]);
    assert!(!table.contains("batch_size"), "what is the same is left out: {table}");
    // Both had the same attack: none is the better.
    assert_eq!(line("classify: robust under pgd 8/255")[5..], ["0.1250", "0.1250"]);
    let html = page(&out);
    check_self_contained(&html);
    assert_eq!(html.matches("class=\"best\"").count(), 3);
    assert!(text(&html).contains("cat 0.412 +0.206"), "the difference of a class: {}", text(&html));
    assert!(out.with_file_name("plots").join("compare-classes-segment.svg").is_file());
    let error = html::compare(&folders[..1], &out).err().unwrap().to_string();
    assert!(error.contains("two folders"), "{error}");
}

#[test]
fn a_folder_without_anything_says_what_was_looked_for_and_a_broken_file_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let error = html::write(folder.path()).unwrap_err().to_string();
    for name in ["history.json", "evaluation.json", "summary.json", "attack/classify"] {
        assert!(error.contains(name), "{error}");
    }
    train(folder.path(), 0.5, 0.001);
    for (name, text, line) in [
        ("evaluation.json", "[\n{\"task\": 7}]", "line 2"),
        ("history.json", "[\n\n", "line 3"),
        ("run.json", "{\n\"task\": \"classify\",\n}", "line 3"),
    ] {
        let before = fs::read(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        let error = html::write(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(line), "{error}");
        fs::write(folder.path().join(name), before).unwrap();
    }
    fs::write(folder.path().join("panel.png"), "no image").unwrap();
    let error = html::write(folder.path()).unwrap_err().to_string();
    assert!(error.contains("panel.png") && error.contains("PNG"), "{error}");
}

/// What a browser makes of the page: its document when all is loaded, and what was logged.
fn in_browser(page: &Path, fragment: &str) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let url = format!("file://{}{fragment}", page.display());
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--virtual-time-budget=5000", &url])
        .output()
        .unwrap();
    let [document, log] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into());
    (document, log)
}

#[test]
#[ignore = "needs chromium"]
fn in_a_browser_every_image_loads_and_nothing_is_logged() {
    let (a, b) = (run(), run());
    train(b.path(), 0.5, 0.01);
    let report = html::write(a.path()).unwrap();
    let out = a.path().join("compare.html");
    let folders = [a.path().to_owned(), b.path().to_owned()];
    let compare = html::compare(&folders, &out).unwrap().page;
    for (path, images) in [(&report, 4), (&compare, 0)] {
        let (document, log) = in_browser(path, "");
        assert!(document.contains(&format!("data-images=\"{images}\"")), "{document:.400}\n{log}");
        assert!(document.contains(&format!("data-loaded=\"{images}\"")), "{document:.400}\n{log}");
        assert!(!log.contains("CONSOLE"), "{log}");
        let (document, _) = in_browser(path, "#theme=dark");
        assert!(document.contains("data-theme=\"dark\"") && document.contains("Theme: dark"));
    }
    // The test sees what it is to see: an image that is broken, and an error.
    let html = page(&report);
    fs::write(&report, html.replace("addEventListener(\"load\", count)", "wrong()")).unwrap();
    let (_, log) = in_browser(&report, "");
    assert!(log.contains("CONSOLE") && log.contains("wrong is not defined"), "{log}");
    let broken = html.replacen("base64,/9j/", "base64,AAAA", 1);
    fs::write(&report, broken).unwrap();
    let (document, _) = in_browser(&report, "");
    assert!(document.contains("data-images=\"4\"") && document.contains("data-loaded=\"3\""));
}
