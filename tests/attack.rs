//! `atrous attack` as a person uses it.
#![cfg(feature = "cli")]

mod command;

use assert_cmd::Command;
use command::{BINARY, done};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

fn refused(arguments: &[&str]) -> String {
    let output = Command::new(BINARY).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A data set and both networks, a few steps old; the classifier old enough to be right of some
/// images, and to say other things of others.
struct Trained {
    _folder: tempfile::TempDir,
    data: String,
    result: String,
}

static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, result) = (path("data"), path("result"));
    done(&["data", "make", &data, "--train", "24", "--test", "3"]);
    let both = ["--data", &data, "--val-fraction", "0.5", "--batch-size", "4"];
    for (task, size, epochs) in [("classify", "108", "10"), ("segment", "32", "1")] {
        let out = format!("{result}/{task}");
        done(&[&["train", task, "--out", &out, "--size", size, "--epochs", epochs][..], &both].concat());
    }
    Trained { data, result, _folder: folder }
});

fn attack<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["attack", "--data", &TRAINED.data, "--checkpoint", &TRAINED.result, "--out", out];
    [&base[..], more].concat()
}

fn json(out: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(out.join("summary.json")).unwrap()).unwrap()
}

fn folder() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("attack");
    let text = out.to_str().unwrap().to_owned();
    (folder, out, text)
}

#[test]
fn it_leaves_a_test_set_a_table_a_panel_and_a_summary() {
    let (_kept, out, text) = folder();
    let printed = done(&attack(&text, &["--steps", "3", "--epsilon", "8/255"]));
    assert!(printed.contains("8/255") && printed.contains("pgd"), "{printed}");
    let table = fs::read_to_string(out.join("attack.csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 13);
    let columns = lines[0].split(',').count();
    assert!(lines.iter().all(|line| line.split(',').count() == columns), "{table}");
    let column = lines[0].split(',').position(|name| name == "linf").unwrap();
    for line in &lines[1..] {
        let linf: f64 = line.split(',').nth(column).unwrap().parse().unwrap();
        assert!(linf <= 8.0 / 255.0 + 1e-6, "{line}");
    }
    let summary = json(&out);
    let first = &summary["attacks"][0];
    let number = |key: &str| first[key].as_f64().unwrap();
    assert!(number("robust") <= number("clean") && number("robust") <= number("robust_rounded") + 1e-9);
    assert_eq!((first["pictures"].as_u64(), summary["norm"].as_str()), (Some(12), Some("linf")));
    // The perturbed images are a test set that can be predicted, and say what the table says after
    // rounding.
    let perturbed = out.join("perturbed");
    let csv = out.with_file_name("submission.csv");
    let predict = ["predict", "--data", perturbed.to_str().unwrap(), "--checkpoint", &TRAINED.result];
    done(&[&predict[..], &["--task", "classify", "--out", csv.to_str().unwrap()]].concat());
    assert_eq!(fs::read_to_string(csv).unwrap().lines().count(), 25);
    assert!(perturbed.join("test/truth.csv").is_file());

    // The same seed, the same bytes.
    let (_other, again, text) = folder();
    done(&attack(&text, &["--steps", "3", "--epsilon", "8/255", "--threads", "1"]));
    let images = |out: &Path| {
        let mut files: Vec<PathBuf> =
            fs::read_dir(out.join("perturbed/test/img")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(images(&out).len(), 12);
    assert!(images(&out) == images(&again));
}

#[test]
fn several_attacks_and_sizes_make_a_curve_in_which_pgd_is_never_above_fgsm() {
    let (_kept, out, text) = folder();
    let more =
        ["--method", "fgsm,pgd,mim,square,deepfool,universal", "--epsilon", "0,2/255,8/255,24/255"];
    let small = ["--steps", "3", "--queries", "10", "--images", "8"];
    done(&attack(&text, &[&more[..], &small].concat()));
    let summary = json(&out);
    let curve = |name: &str, which: &str| -> Vec<f64> {
        let curves = summary["curves"].as_array().unwrap();
        let curve =
            curves.iter().find(|curve| curve["method"] == name).unwrap_or_else(|| panic!("{summary}"));
        curve[which].as_array().unwrap().iter().map(|point| point[1].as_f64().unwrap()).collect()
    };
    for which in ["points", "so_far"] {
        let (fgsm, pgd) = (curve("fgsm", which), curve("pgd", which));
        assert!(fgsm.iter().zip(&pgd).all(|(fgsm, pgd)| pgd <= fgsm), "{fgsm:?} {pgd:?}");
    }
    for name in ["fgsm", "pgd", "mim", "square", "deepfool", "universal"] {
        let (own, best) = (curve(name, "points"), curve(name, "so_far"));
        assert!(best.len() == 4 && best.is_sorted_by(|a, b| a >= b), "{name}: {best:?}");
        assert!(
            own.len() == 4 && own.iter().zip(&best).all(|(own, best)| best <= own),
            "{name}: {own:?}"
        );
    }
    for file in ["curves.png", "curves.svg", "attack.csv"] {
        assert!(fs::metadata(out.join(file)).unwrap().len() > 0, "{file}");
    }
}

#[test]
fn masks_are_attacked_and_turned() {
    let (_kept, out, text) = folder();
    // (Far: what a network of three steps sees hardly depends on the image.)
    let far = ["--epsilon", "0.5", "--steps", "10"];
    let masks = ["--task", "segment", "--images", "4", "--labels", "predicted"];
    done(&attack(&text, &[&masks[..], &far].concat()));
    assert!(json(&out)["attacks"][0]["led"].as_f64().unwrap() > 0.0);
    assert!(out.join("panel.png").is_file());
    // What the network sees most of becomes something else.
    let table = fs::read_to_string(out.join("attack.csv")).unwrap();
    let said =
        table.lines().nth(1).unwrap().split(',').nth(4).unwrap().split(';').next().unwrap().to_owned();
    let from = if said.is_empty() { "background".to_owned() } else { said };
    let to = if from == "cat" { "dog" } else { "cat" };
    let (_other, out, text) = folder();
    let turn = ["--task", "segment", "--images", "4", "--steps", "3", "--from", &from, "--target", to];
    done(&attack(&text, &turn));
    assert_eq!(json(&out)["from"].as_str(), Some(&from[..]));
}

#[test]
fn other_networks_are_shown_the_perturbed_images() {
    let (_kept, out, text) = folder();
    let other = format!("{}/classify/checkpoint.safetensors", TRAINED.result);
    let more = ["--steps", "2", "--images", "4", "--transfer", &other];
    let printed = done(&attack(&text, &more));
    assert!(printed.contains("as they are"), "{printed}");
    let rows = json(&out)["transfer"].as_array().unwrap().clone();
    assert!(rows.len() == 3 && rows.iter().all(|row| row["right"].as_array().unwrap().len() == 2));
    // What is right it is asked of the images as they are, not of the perturbed ones.
    let (_kept, out, text) = folder();
    let far = ["--epsilon", "32/255", "--labels", "predicted"];
    done(&attack(&text, &[&more[..], &far].concat()));
    let summary = json(&out);
    let (first, rows) = (&summary["attacks"][0], &summary["transfer"]);
    assert_eq!(rows[0]["right"][0], first["clean"]);
    assert_eq!(rows[1]["right"][0], first["robust_rounded"]);
    assert!(first["robust_rounded"].as_f64() < first["clean"].as_f64(), "{first}");
}

#[test]
fn the_notebooks_preset_has_its_four_sizes() {
    let (_kept, out, text) = folder();
    done(&attack(&text, &["--preset", "notebook", "--images", "4"]));
    let summary = json(&out);
    let epsilons: Vec<f64> =
        summary["attacks"].as_array().unwrap().iter().map(|a| a["epsilon"].as_f64().unwrap()).collect();
    for (got, expected) in epsilons.iter().zip([0.0, 0.11, 0.17, 0.28]) {
        assert!((2.0 * got - expected).abs() < 1e-6, "{epsilons:?}");
    }
    assert_eq!(epsilons.len(), 4);
}

#[test]
fn what_makes_no_sense_is_refused_before_any_work() {
    let (_kept, out, text) = folder();
    for (more, wanted) in [
        (&["--epsilon", "-0.1"][..], "expected a number of at least 0"),
        (&["--epsilon", "nan"], "expected a number of at least 0"),
        (&["--epsilon", "8/0"], "expected a number of at least 0"),
        (&["--target", "unicorn"], "`unicorn` is none of background, aeroplane"),
        (&["--target", "background"], "knows no background"),
        (&["--task", "segment", "--target", "cat"], "--from"),
        (&["--from", "cat"], "--target"),
        (&["--method", "segpgd"], "it is for masks"),
        (&["--task", "segment", "--method", "deepfool"], "it is for classifiers"),
        (&["--method", "magic"], "magic"),
        (&["--norm", "l1"], "'l1'"),
        (&["--method", "square", "--norm", "l2"], "linf"),
        (&["--method", "universal", "--norm", "l2"], "linf"),
        (&["--method", "pgd,generator", "--norm", "l2"], "linf"),
        (&["--epsilon", "8"], "expected at most 1"),
        (&["--epsilon", "8"], "got 8; did you mean 8/255?"),
        (&["--epsilon", "1/255,16"], "did you mean 16/255?"),
        (&["--epsilon", "0,03"], "did you mean 3/255?"),
        (&["--epsilon", "8/255/2"], "expected a number of at least 0"),
        (&["--epsilon", "inf"], "expected a number of at least 0"),
        (&["--epsilon", "1e-60"], "expected a number that an f32 tells from 0"),
        (&["--epsilon", "188", "--norm", "l2"], "expected at most 187.1 at side 108"),
        (&["--step", "2"], "--step: epsilon: expected at most 1"),
        (&["--step", "0"], "expected a step above 0"),
        (&["--method", "square", "--queries", "0"], "expected queries"),
        (&["--method", "pgd,generator", "--generator-steps", "0"], "at least one step"),
        (&["--preset", "keras"], "[possible values: notebook]"),
        (&["--preset", "notebook", "--epsilon", "0.1"], "sets method and epsilon"),
        (&["--batch-size", "0"], "at least 1"),
        (&["--steps", "0"], "at least one step"),
        // Test images' labels are not known.
        (&["--split", "test"], "has no labels; give --labels predicted"),
        (&["--checkpoint", "/no/such"], "/no/such"),
    ] {
        // A flag given twice: the last one counts for none of these.
        let mut arguments = attack(&text, more);
        if more[0] == "--checkpoint" {
            arguments = vec!["attack", "--data", &TRAINED.data, "--out", &text, more[0], more[1]];
        }
        let error = refused(&arguments);
        assert!(error.contains(wanted), "{more:?}: {error}");
    }
    assert!(!out.join("attack.csv").exists());
    let (_kept, _, text) = folder();
    done(&attack(&text, &["--split", "test", "--labels", "predicted", "--steps", "2"]));
}

#[cfg(unix)]
#[test]
fn a_stopped_attack_keeps_what_is_done() {
    let (_kept, out, text) = folder();
    let arguments = attack(&text, &["--steps", "20", "--restarts", "4", "--batch-size", "1"]);
    let child = std::process::Command::new(BINARY)
        .args(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first images are written as soon as they are done.
    let images = out.join("perturbed/test/img");
    let began = std::time::Instant::now();
    while fs::read_dir(&images).map_or(0, |files| files.count()) == 0 {
        assert!(began.elapsed().as_secs() < 120);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    // Unless it was done before the signal came.
    if !output.status.success() {
        assert!(error.contains("what is done is in"), "{error}");
    }
    let rows = fs::read_to_string(out.join("attack.csv")).unwrap().lines().count() - 1;
    assert_eq!(json(&out)["attacks"][0]["pictures"].as_u64(), Some(rows as u64));
    assert!(rows >= 1 && fs::read_dir(&images).unwrap().count() == rows);
}

/// The rows of one method and ε in `attack.csv`, without what depends on the clock and on smaller ε.
fn rows_of(out: &Path, method: &str, epsilon: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(out.join("attack.csv")).unwrap();
    let left_out = ["seconds", "success_so_far", "led_so_far"];
    let names = reader.headers().unwrap().clone();
    let rows = reader.records().map(Result::unwrap);
    let wanted = rows.filter(|row| &row[0] == method && &row[1] == epsilon);
    wanted
        .map(|row| {
            let cells = row.iter().zip(&names).filter(|(_, name)| !left_out.contains(name));
            cells.map(|(cell, _)| cell.to_owned()).collect()
        })
        .collect()
}

const EIGHT: &str = "0.03137255";

#[test]
fn an_epsilon_has_the_same_rows_alone_in_any_list_and_among_other_methods() {
    let (_kept, alone, text) = folder();
    let few = ["--steps", "4", "--images", "6"];
    done(&attack(&text, &[&few[..], &["--method", "pgd", "--epsilon", "8/255"]].concat()));
    let expected = rows_of(&alone, "pgd", EIGHT);
    assert_eq!(expected.len(), 6);
    let figures = |out: &Path| {
        let all = json(out)["attacks"].as_array().unwrap().clone();
        let of = |a: &&Value| {
            a["method"] == "pgd" && (a["epsilon"].as_f64().unwrap() - 8.0 / 255.0).abs() < 1e-6
        };
        let mut found: Vec<Value> = all.iter().filter(of).cloned().collect();
        assert_eq!(found.len(), 1);
        let fields = found[0].as_object_mut().unwrap();
        fields.retain(|name, _| !name.ends_with("so_far") && name != "seconds_per_picture");
        found.remove(0)
    };
    for more in [
        &["--method", "pgd", "--epsilon", "1/255,8/255"][..],
        &["--method", "pgd", "--epsilon", "32/255,8/255,8/255,2/255", "--batch-size", "1"],
        &["--method", "universal,fgsm,pgd,pgd,square", "--queries", "5", "--epsilon", "1/255,8/255"],
    ] {
        let (_other, out, text) = folder();
        done(&attack(&text, &[&few[..], more].concat()));
        assert_eq!(rows_of(&out, "pgd", EIGHT), expected, "{more:?}");
        assert_eq!(figures(&out), figures(&alone), "{more:?}");
        assert!(out.join("panel.png").is_file());
    }
}

#[test]
fn a_perturbed_image_is_the_same_among_few_images_and_many() {
    let bytes = |more: &[&str]| {
        let (_kept, out, text) = folder();
        done(&attack(&text, &[&["--steps", "4"][..], more].concat()));
        let folder = fs::read_dir(out.join("perturbed/test/img")).unwrap().map(|file| file.unwrap());
        folder.map(|file| (file.file_name(), fs::read(file.path()).unwrap())).collect::<Vec<_>>()
    };
    let mut many = bytes(&["--images", "8", "--batch-size", "8"]);
    many.sort();
    for more in [&["--images", "4"][..], &["--images", "5", "--batch-size", "2", "--threads", "1"]] {
        let few = bytes(more);
        assert!(few.len() >= 4 && few.iter().all(|one| many.contains(one)), "{more:?}");
    }
}

#[test]
fn a_generator_is_the_same_whatever_it_is_used_at() {
    let base = ["--method", "generator", "--generator-steps", "2", "--images", "2", "--batch-size", "2"];
    let file = |epsilons: &str| {
        let (_kept, out, text) = folder();
        done(&attack(&text, &[&base[..], &["--epsilon", epsilons]].concat()));
        (fs::read(out.join("generator.safetensors")).unwrap(), rows_of(&out, "generator", "0.0627451"))
    };
    let (alone, rows) = file("16/255");
    assert_eq!(rows.len(), 2);
    assert!((alone, rows) == file("1/255,8/255,16/255"));
}

/// A folder with all that is in another.
fn copied(from: &str, to: &str) {
    let status = std::process::Command::new("cp").args(["-r", from, to]).status().unwrap();
    assert!(status.success());
}

#[test]
fn ids_with_commas_and_quotes_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    copied(&TRAINED.data, &data);
    let table = format!("{data}/test/test_set.csv");
    let ids = ["a,b", "the \"second\"", "a third"];
    let old = fs::read_to_string(&table).unwrap();
    let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 1 + ids.len());
    for (line, id) in lines[1..].iter_mut().zip(ids) {
        let (was, rest) = line.split_once(',').unwrap();
        let file = |id: &str| format!("{data}/test/img/test_{id}.npy");
        fs::rename(file(was), file(id)).unwrap();
        *line = format!("\"{}\",{rest}", id.replace('"', "\"\""));
    }
    fs::write(&table, lines.join("\n") + "\n").unwrap();
    let run = |data: &str, out: &str, more: &[&str]| {
        let base = ["attack", "--data", data, "--checkpoint", &TRAINED.result, "--out", out];
        let test = ["--split", "test", "--labels", "predicted", "--steps", "1"];
        done(&[&base[..], &test, more].concat());
        let mut reader = csv::Reader::from_path(Path::new(out).join("attack.csv")).unwrap();
        reader.records().map(|row| row.unwrap()[2].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(run(&data, &path("curve"), &["--epsilon", "1/255,8/255"]), [ids, ids].concat());
    assert_eq!(run(&data, &path("one"), &[]), ids);
    // The perturbed images are a test set: with the training images beside it, it is attacked in its
    // turn.
    let perturbed = path("one/perturbed");
    copied(&format!("{data}/train"), &perturbed);
    assert_eq!(run(&perturbed, &path("again"), &[]), ids);
}

#[test]
fn a_classifier_that_says_everything_is_told_to_be_untrained() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (network, out) = (path("network"), path("attack"));
    let train = ["--size", "108", "--epochs", "1", "--learning-rate", "1e-9", "--val-fraction", "0.5"];
    done(&[&["train", "classify", "--data", &TRAINED.data, "--out", &network][..], &train].concat());
    // Every probability is near .5; what was fitted to such ones goes.
    fs::remove_file(Path::new(&network).join("thresholds.json")).unwrap();
    let base = ["attack", "--data", &TRAINED.data, "--checkpoint", &network, "--out", &out];
    let printed = done(&[&base[..], &["--steps", "1", "--images", "5"]].concat());
    assert!(printed.contains("untrained: of 5 of 5 pictures the network says all classes"), "{printed}");
    let line = printed.lines().find(|line| line.starts_with("pgd")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[2..7], ["1.000", "-", "-", "-", "-"], "{line}");
    let first = &json(Path::new(&out))["attacks"][0];
    assert!(first["robust"].is_null() && first["success"].is_null(), "{first}");
    assert!(first["doubt"].as_str().unwrap().starts_with("untrained"), "{first}");
}

#[test]
fn where_no_image_is_right_there_is_nothing_to_attack() {
    let (_kept, out, text) = folder();
    // Whatever the network says: it is to say what it says already.
    let (_first, plain, plain_text) = folder();
    done(&attack(&plain_text, &["--steps", "1", "--images", "1"]));
    let mut reader = csv::Reader::from_path(plain.join("attack.csv")).unwrap();
    let row = reader.records().next().unwrap().unwrap();
    let said = row[4].split(' ').next().unwrap().to_owned();
    let printed = done(&attack(&text, &["--steps", "1", "--images", "1", "--target", &said]));
    assert!(printed.contains("nothing to attack") || printed.contains("untrained"), "{printed}");
    let first = &json(&out)["attacks"][0];
    assert_eq!(first["clean"].as_f64(), Some(0.0));
    assert!(first["robust"].is_null() && first["success"].is_null(), "{first}");
}
