//! The command as a person uses it.
#![cfg(feature = "cli")]

mod command;

use assert_cmd::Command;
use command::{BINARY, done};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;
use tempfile::TempDir;

fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    done(&["data", "make", folder.path().to_str().unwrap(), "--train", "20", "--test", "3"]);
    folder
}

/// A small run: two epochs of twenty steps at the smallest side the network takes, saved every step.
/// (With five an epoch was over before a busy machine had sent it a signal.)
fn small<'a>(data: &'a str, out: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["train", "classify", "--data", data, "--out", out, "--size", "108"];
    arguments.extend(["--epochs", "2", "--batch-size", "1", "--val-fraction", "0"]);
    arguments.extend(["--checkpoint-steps", "1"]);
    arguments
}

fn checkpoint(out: &Path) -> Vec<u8> {
    fs::read(out.join("checkpoint.safetensors")).unwrap()
}

#[test]
fn every_subcommand_explains_itself() {
    let all: [&[&str]; 16] = [
        &[],
        &["demo"],
        &["attack"],
        &["run"],
        &["train", "classify"],
        &["train", "segment"],
        &["evaluate"],
        &["doctor"],
        &["bench"],
        &["profile"],
        &["predict"],
        &["summary"],
        &["report"],
        &["compare"],
        &["data", "make"],
        &["data", "check"],
    ];
    for subcommand in all {
        let help = done(&[subcommand, &["--help"]].concat());
        assert!(help.contains("Usage: atrous"), "{help}");
        assert!(help.contains("Example"), "{subcommand:?}: {help}");
    }
    let help = done(&["bench", "--help"]);
    for what in ["ops", "nets", "accuracy", "loader", "conv2d --ladder"] {
        assert!(help.contains(&format!("atrous bench {what}")), "{what}: {help}");
    }
}

/// What a GPU alone can do says so where there is none, and what is unknown is told with what is known.
#[test]
fn what_only_gpus_have_and_what_nobody_has_is_refused_by_name() {
    let refused = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let error = refused(&["bench", "reduce", "--ladder"]);
    assert!(error.contains("no rungs on the CPU") && error.contains("--device cuda"), "{error}");
    let error = refused(&["bench", "conv2d"]);
    assert!(error.contains("`conv2d` is none of `ops`, `nets`"), "{error}");
    let error = refused(&["bench", "ops", "lenet"]);
    assert!(error.contains("`lenet`"), "{error}");
    let error = refused(&["bench", "accuracy", "lenet"]);
    assert!(error.contains("`lenet`"), "{error}");
    let error = refused(&["bench", "nets", "lenet"]);
    assert!(error.contains("`lenet`") && error.contains("`deeplabv3plus`"), "{error}");
    let error = refused(&["bench", "ops", "--against", "/no/such/file"]);
    assert!(error.contains("/no/such/file"), "{error}");
    let error = refused(&["bench", "conv3d", "--ladder"]);
    assert!(error.contains("`conv3d`") && error.contains("`depthwise_conv2d`"), "{error}");
    let error = refused(&["summary", "alexnet", "--precision", "bf16"]);
    assert!(error.contains("--device cuda"), "{error}");
    if cfg!(feature = "emulator") {
        let error = refused(&["summary", "alexnet", "--device", "emulated", "--fast-math"]);
        assert!(error.contains("--precision"), "{error}");
    }
    if cfg!(feature = "emulator") {
        let table = done(&["bench", "gemm", "--ladder", "--device", "emulated", "--times", "1"]);
        assert!(table.contains("say nothing about a GPU") && table.contains("tf32"), "{table}");
    }
}

/// The CPU's rungs stand below one another, with how many times faster than the first each is.
#[test]
fn the_ladder_times_the_rungs_of_the_cpu_side_by_side() {
    let table = done(&["bench", "depthwise_conv2d", "--ladder", "--times", "1"]);
    assert!(table.contains("% triad") && table.contains("3x3_s2_144_56_n16"), "{table}");
    for name in ["naive", "vectors", "registers"] {
        let rows: Vec<&str> = table.lines().filter(|line| line.contains(name)).collect();
        assert_eq!(rows.len(), 3, "{table}");
        for row in rows {
            let cells: Vec<&str> = row.split_whitespace().collect();
            let faster: f64 = cells[6].parse().unwrap();
            // (How much faster is for a quiet machine to say.)
            assert!(cells.len() == 9 && faster > 0.0 && (name != "naive" || faster == 1.0), "{row}");
        }
    }
}

/// A run is saved as lines of JSON, and another is put beside it by the names in them.
#[test]
fn a_benchmark_is_saved_and_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let file = path.to_str().unwrap();
    done(&["bench", "ops", "dense/16x512x64", "--save", file, "--threads", "1"]);
    let line: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&path).unwrap().trim()).unwrap();
    assert_eq!((&line["op"], &line["threads"]), (&"dense".into(), &1.into()));
    assert!(line["fwd_ms"].as_f64().unwrap() > 0.0 && line["fwdbwd_ms"].as_f64().unwrap() > 0.0);
    let table = done(&["bench", "ops", "dense/16x512x64", "--against", file, "--threads", "1"]);
    assert!(table.contains("geometric mean") && !table.contains(" -"), "{table}");
}

/// Errors are saved and compared with, and are a hundred-thousandth at most.
#[test]
fn accuracies_are_saved_and_compared_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let file = path.to_str().unwrap();
    done(&["bench", "accuracy", "atrous3x3_d12", "--save", file]);
    let line: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&path).unwrap().trim()).unwrap();
    for key in ["error_forward", "error_dx", "error_dw", "error_db"] {
        let error = line[key].as_f64().unwrap();
        assert!(error > 0.0 && error < 1e-5, "{line}");
    }
    let table = done(&["bench", "accuracy", "atrous3x3_d12", "--against", file]);
    assert!(table.contains("4 errors compared; the worst is 1.00 times theirs"), "{table}");
}

/// With the flag, the same operator rounds more, and the line says that it was there.
#[test]
fn fast_math_shows_in_the_accuracies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let common = ["bench", "accuracy", "64->64 56x56", "--save", path.to_str().unwrap()];
    done(&common);
    done(&[&common[..], &["--fast-math"]].concat());
    let lines = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0].get("fast_math").is_none() && lines[1]["fast_math"] == true);
    for key in ["error_forward", "error_dx"] {
        let [plain, fast] = [0, 1].map(|i| lines[i][key].as_f64().unwrap());
        assert!(plain < fast && fast < 1e-5, "{key}: {plain:e} and {fast:e}");
    }
}

/// Every recipe from both layouts, beside a number that was given.
#[test]
fn the_loader_is_timed_from_both_layouts_beside_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.jsonl");
    let loader = ["bench", "loader", "alexnet", "--need", "1000", "--pictures", "4"];
    let table = done(&[&loader[..], &["--save", path.to_str().unwrap()]].concat());
    assert!(table.contains("% step") && !table.contains("deeplab"), "{table}");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| (&line["loader"], &line["layout"])).collect();
    let of = |loader: &str| ["npy", "voc"].map(|layout| (loader.into(), layout.into()));
    let expected: [(serde_json::Value, serde_json::Value); 4] =
        [of("alexnet keras"), of("alexnet colour")].concat().try_into().unwrap();
    assert!(kinds.into_iter().eq(expected.iter().map(|(loader, layout)| (loader, layout))), "{text}");
    for line in &lines {
        assert_eq!(line["step_per_second"], 1000.0);
        for key in ["read_per_second", "one_worker_per_second", "all_per_second", "share"] {
            assert!(line[key].as_f64().unwrap() > 0.0, "{line}");
        }
    }
    let output = Command::new(BINARY).args(["bench", "loader", "lenet5"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("`lenet5`"));
}

#[test]
fn the_summary_counts_the_parameters() {
    let table = done(&["summary", "alexnet"]);
    assert!(table.contains("777,695") && table.contains("777,055"), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&done(&["summary", "alexnet", "--json"])).unwrap();
    assert_eq!(json["total_params"], 777_695);
    assert_eq!(json["layers"][1]["flops"], 2 * 144 * 144 * 64 * 147 + 144 * 144 * 64);
}

#[test]
fn the_plan_says_what_each_step_makes_and_why_it_makes_no_more() {
    let config = done(&["summary", "mobilenetv2", "--plan", "--batch", "16"]);
    assert!(config.contains("inference of 16×256×256×3 on cpu, "), "{config}");
    assert!(config.contains("residual `block_1_project") && config.contains("1×1 GEMM"), "{config}");
    // The device need not be there.
    let config = done(&["summary", "mobilenetv2", "--plan", "train", "--device", "cuda", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&config).unwrap();
    let steps = json["plan"]["steps"].as_array().unwrap();
    let reasons = steps.iter().flat_map(|step| step["not_fused"].as_array().unwrap());
    assert!(reasons.clone().count() > 0 && reasons.clone().all(|reason| reason["why"].is_string()));
    assert_eq!(json["plan"]["device"], "cuda:0");
}

#[test]
fn a_network_that_labels_pixels_has_the_background_as_a_class_of_its_own() {
    let parameters = |arguments: &[&str]| -> serde_json::Value {
        let json: serde_json::Value = serde_json::from_str(&done(arguments)).unwrap();
        json["total_params"].clone()
    };
    assert_eq!(parameters(&["summary", "deeplabv3plus", "--json"]), 7_067_029);
    assert_eq!(parameters(&["summary", "deeplabv3plus", "--classes", "20", "--json"]), 7_066_772);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let cases: [(&[&str], i32, &str); 7] = [
        (&["train", "classify", "--data", "a", "--out", "b", "--epoch", "3"], 2, "--epoch"),
        (&["train", "classify", "--data", "a"], 2, "--out"),
        (&["train", "classify", "--data", "a", "--out", "b", "--epochs", "many"], 2, "many"),
        (&["teach"], 2, "teach"),
        (&["summary", "alexnot"], 2, "alexnot"),
        (&["summary", "alexnet", "--device", "gpu"], 2, "`gpu` is none of `cpu`"),
        (&["summary", "alexnet", "--device", "cuda:99"], 1, "`cuda"),
    ];
    for (arguments, code, wanted) in cases {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty() && error.matches("error: ").count() == 1, "{error}");
        assert!(error.contains(wanted), "`{wanted}` is not in: {error}");
    }
}

/// A run of both tasks, as small as the networks allow.
const BOTH: &str = "epochs = 1\nval_fraction = 0.3\n[classify]\nsize = 108\n[segment]\nsize = 32\n";

#[test]
fn a_run_goes_from_images_to_one_submission_of_both_tasks() {
    let data = data();
    let data = data.path().to_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    let config = out.path().join("small.toml");
    fs::write(&config, BOTH).unwrap();
    let result = out.path().join("result");
    let folder = result.to_str().unwrap();
    let run = ["run", "--data", data, "--out", folder, "--config", config.to_str().unwrap()];
    let printed = done(&run);
    for wanted in ["control: class priors", "all background", "thresholds: Dice"] {
        assert!(printed.contains(wanted), "{wanted}: {printed}");
    }
    let read = |file: &str| fs::read_to_string(result.join(file)).unwrap();
    let submission = read("submission.csv");
    let lines: Vec<&str> = submission.lines().collect();
    assert_eq!((lines.len(), lines[0]), (7, "Id,Predicted"));
    for (i, pair) in lines[1..].chunks(2).enumerate() {
        let classes = pair[0].strip_prefix(&format!("{i}_classification,")).unwrap();
        assert!(!classes.is_empty(), "some class is always predicted: {submission}");
        assert!(pair[1].starts_with(&format!("{i}_segmentation,")), "{submission}");
    }
    let pages = ["evaluation.json", "report.html"];
    for file in ["scores.txt", "probabilities.csv", "panel.png", "validation.png"].iter().chain(&pages) {
        assert!(fs::metadata(result.join(file)).unwrap().len() > 0, "{file}");
    }
    for task in ["classify", "segment"] {
        assert_eq!(read(&format!("{task}/history.csv")).lines().count(), 2);
        let left = ["checkpoint.safetensors", "best.safetensors", "curves.svg", "panel.png", "run.json"];
        for file in left.iter().chain(&pages) {
            assert!(result.join(task).join(file).is_file(), "{task}/{file}");
        }
        assert!(result.join("attack").join(task).join("report.html").is_file(), "{task}");
    }
    // Every page can be made again of the files alone, and shows the scores that were printed.
    let page = read("report.html");
    assert!(page.contains("control: class priors") && page.contains("all background"));
    let told = done(&["report", folder]);
    assert_eq!(told.lines().count(), 5, "{told}");
    assert!(read("report.html") == page);
    let table =
        done(&["compare", folder, &format!("{folder}/classify"), "--out", &format!("{folder}/c.html")]);
    assert!(table.contains("classify: mean average precision"), "{table}");

    // The same step by step, its settings as flags.
    let again = out.path().join("again");
    let again = again.to_str().unwrap();
    let both = ["--epochs", "1", "--val-fraction", "0.3", "--data", data];
    for (task, size) in [("classify", "108"), ("segment", "32")] {
        let folder = format!("{again}/{task}");
        done(&[&["train", task, "--out", &folder, "--size", size][..], &both].concat());
        assert!(checkpoint(&result.join(task)) == checkpoint(Path::new(&folder)), "{task}");
    }
    let csv = format!("{again}/submission.csv");
    let predict = ["predict", "--force", "--data", data, "--out", &csv, "--checkpoint", again];
    done(&predict);
    assert_eq!(fs::read_to_string(&csv).unwrap(), submission);
    let evaluate = ["evaluate", "--data", data, "--checkpoint", again, "--out", again];
    done(&evaluate);
    assert_eq!(fs::read_to_string(format!("{again}/scores.txt")).unwrap(), read("scores.txt"));
    assert!(Path::new(again).join("report.html").is_file());

    // One task alone leaves the other's rows empty, or takes the labels from the masks.
    done(&[&predict[..], &["--task", "classify"]].concat());
    let text = fs::read_to_string(&csv).unwrap();
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert!((0..3).all(|i| rows[2 * i] == lines[1 + 2 * i] && rows[2 * i + 1].ends_with(',')), "{text}");
    done(&[&predict[..], &["--task", "segment"]].concat());
    let text = fs::read_to_string(&csv).unwrap();
    assert!((0..3).all(|i| text.lines().nth(2 + 2 * i) == Some(lines[2 + 2 * i])), "{text}");
    for threshold in ["0", "1"] {
        done(&[&predict[..], &["--threshold", threshold]].concat());
        // Every class, then the likeliest alone.
        let first = fs::read_to_string(&csv).unwrap().lines().nth(1).unwrap().to_owned();
        if threshold == "0" {
            assert_eq!(first, "0_classification,1 20");
        } else {
            assert!(first.ends_with(" 1") && first.split(' ').count() == 2, "{first}");
        }
    }
    // Options that change masks are measured beside the plain ones.
    let views = ["--task", "segment", "--scales", "1,1.5", "--flip", "--superpixels"];
    let printed = done(&[&evaluate[..5], &views].concat());
    assert!(printed.contains("plain: masks of 6") && printed.contains("flip, superpixels"), "{printed}");
    // Two networks of one task cannot both be asked.
    let classifier = format!("{again}/classify/checkpoint.safetensors");
    let output =
        Command::new(BINARY).args(predict).args(["--checkpoint", &classifier]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("give one of them"), "{error}");
}

#[test]
fn the_demo_runs_and_can_be_resumed_when_it_is_done() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().to_str().unwrap();
    let demo = ["demo", "--out", path, "--train", "20", "--test", "2"];
    let demo = [&demo[..], &["--epochs", "1", "--mask-epochs", "1"]].concat();
    let printed = done(&demo);
    assert!(printed.contains("control: shuffled labels"), "{printed}");
    let submission = fs::read(out.path().join("submission.csv")).unwrap();
    let trained = || ["classify", "segment"].map(|task| checkpoint(&out.path().join(task)));
    let before = trained();
    done(&[&demo[..], &["--resume"]].concat());
    assert!(trained() == before);
    assert!(fs::read(out.path().join("submission.csv")).unwrap() == submission);
}

#[test]
fn one_two_and_three_threads_write_the_same_checkpoint() {
    let data = data();
    let written: Vec<Vec<u8>> = ["1", "2", "3"]
        .iter()
        .map(|threads| {
            let out = tempfile::tempdir().unwrap();
            let mut arguments = small(data.path().to_str().unwrap(), out.path().to_str().unwrap());
            arguments.extend(["--threads", threads]);
            done(&arguments);
            checkpoint(out.path())
        })
        .collect();
    assert!(written[0] == written[1] && written[0] == written[2]);
}

/// Starts a small run.
fn started(data: &str, out: &Path) -> Child {
    std::process::Command::new(BINARY)
        .args(small(data, out.to_str().unwrap()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends the signal, and waits for the end: the exit status and what came on standard error.
fn ended_by(signal: &str, child: Child) -> (ExitStatus, String) {
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// Goes on with a small run to its end; its last checkpoint.
fn resumed(data: &str, out: &Path) -> Vec<u8> {
    done(&[&small(data, out.to_str().unwrap())[..], &["--resume"]].concat());
    checkpoint(out)
}

#[test]
fn a_run_that_is_interrupted_is_saved_and_ends_with_the_same_bits() {
    let data = data();
    let data = data.path().to_str().unwrap();
    let whole = tempfile::tempdir().unwrap();
    done(&small(data, whole.path().to_str().unwrap()));
    let whole = checkpoint(whole.path());
    for signal in ["-INT", "-TERM"] {
        let out = tempfile::tempdir().unwrap();
        let mut child = started(data, out.path());
        // In the second of two epochs, whatever the machine's speed. The pipe stays open for what
        // the run still prints.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("epoch   1/2")));
        let (status, error) = ended_by(signal, child);
        assert_eq!(status.code(), Some(130), "{error}");
        assert!(error.contains("stopped after epoch 1") && error.contains("--resume"), "{error}");
        let stopped = checkpoint(out.path());
        assert!(stopped != whole, "{signal} came too late to mean anything");
        let history = fs::read_to_string(out.path().join("history.csv")).unwrap();
        assert_eq!(history.lines().count(), 2, "{history}");

        // Without --resume nothing happens to it.
        let again = small(data, out.path().to_str().unwrap());
        let refused = Command::new(BINARY).args(&again).output().unwrap();
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && error.contains("--resume"), "{error}");
        assert!(checkpoint(out.path()) == stopped);

        assert!(resumed(data, out.path()) == whole, "{signal}");
    }
}

#[test]
fn a_run_that_is_killed_at_any_moment_ends_with_the_same_bits() {
    let data = data();
    let data = data.path().to_str().unwrap();
    let whole = tempfile::tempdir().unwrap();
    let began = Instant::now();
    done(&small(data, whole.path().to_str().unwrap()));
    let took = began.elapsed();
    let whole = checkpoint(whole.path());
    let mut unfinished = 0;
    // Shares of a whole run's time: among steps, among the writes between them, before the first.
    for share in [0.02, 0.13, 0.29, 0.41, 0.56, 0.72] {
        let out = tempfile::tempdir().unwrap();
        let child = started(data, out.path());
        std::thread::sleep(took.mul_f64(share));
        ended_by("-KILL", child);
        let file = out.path().join("checkpoint.safetensors");
        unfinished += (!file.exists() || checkpoint(out.path()) != whole) as usize;
        assert!(resumed(data, out.path()) == whole, "killed after {share} of {took:?}");
    }
    assert!(unfinished > 0, "every run was finished before it was killed");
}

#[test]
fn a_run_is_resumed_under_the_settings_it_began_with() {
    let data = data();
    let out = tempfile::tempdir().unwrap();
    let (data, out) = (data.path().to_str().unwrap(), out.path().to_str().unwrap());
    done(&small(data, out));
    let before = checkpoint(Path::new(out));
    for (flag, value) in [("--epochs", "3"), ("--seed", "1"), ("--augment", "none")] {
        let resume = ["train", "classify", "--data", data, "--out", out, "--resume", flag, value];
        let output = Command::new(BINARY).args(resume).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&format!("another {flag}")), "{error}");
        assert!(checkpoint(Path::new(out)) == before);
    }
}

#[test]
#[ignore = "needs ../shared/voc_npy"]
fn real_images_go_through_the_whole_pipeline() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/voc_npy");
    let data = data.to_str().unwrap();
    let out = tempfile::tempdir().unwrap();
    assert!(done(&["data", "check", data]).contains("nothing is wrong"));
    let result = out.path().join("result");
    let folder = result.to_str().unwrap();
    let run = ["run", "--data", data, "--out", folder, "--epochs", "2", "--segment", "size=112"];
    assert!(done(&run).contains("masks of 5 validation pictures"));
    let text = fs::read_to_string(result.join("submission.csv")).unwrap();
    assert_eq!(text.lines().count(), 1 + 2 * 16, "{text}");
}

/// Sizes whose products overflow, or that nobody could have: refused by the flag, with the largest there is.
#[test]
fn a_size_beyond_the_largest_is_refused_by_its_flag_with_the_largest_value() {
    let data = data();
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("run");
    let (data, folder) = (data.path().to_str().unwrap(), folder.to_str().unwrap());
    let refused = |arguments: &[&str]| {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.lines().all(|line| !line.contains("panicked")), "{error}");
        error
    };
    let train = ["train", "classify", "--data", data, "--out", folder, "--threads", "1"];
    for size in ["4097", "1000000", "4294967296", "18446744073709551615"] {
        let expected = format!("1 to 4096 pixels a side (`--size`), got {size}");
        for network in ["alexnet", "vgg16", "deeplabv3plus"] {
            let error = refused(&["summary", network, "--size", size]);
            assert!(error.contains(&expected), "{error}");
        }
        let error = refused(&[&train[..], &["--model", "mobilenetv2", "--size", size]].concat());
        assert!(error.contains(&expected), "{error}");
    }
    for classes in ["100001", "18446744073709551615"] {
        let error = refused(&["summary", "alexnet", "--classes", classes]);
        assert!(error.contains(&format!("1 to 100000 (`--classes`), got {classes}")), "{error}");
    }
    let error = refused(&["bench", "nets", "alexnet", "--size", "4097"]);
    assert!(error.contains("1 to 4096 pixels a side (`--size`), got 4097"), "{error}");
    for threads in ["0", "1000000", "18446744073709551615"] {
        let error = refused(&["summary", "alexnet", "--threads", threads]);
        assert!(error.contains("threads: expected 1 to ") && error.contains("(`--threads`)"), "{error}");
    }
    assert!(!Path::new(folder).exists());
}

/// Layers, parameters and arithmetic need no memory for values that nobody asked for.
#[test]
fn the_summary_of_the_largest_images_has_exact_numbers() {
    let text = done(&["summary", "vgg16", "--size", "4096", "--classes", "100000", "--json"]);
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    // 128 × 128 × 512 features to 512, and 512 to the classes, each with a bias.
    let base = 14_714_688u64;
    let head = 128 * 128 * 512 * 512 + 512 + 512 * 100_000 + 100_000;
    assert_eq!(table["total_params"].as_u64(), Some(base + head));
    let first = 4096u64 * 4096 * 64 * (2 * 9 * 3 + 1);
    assert_eq!(table["layers"][1]["flops"].as_u64(), Some(first));
}

#[test]
fn an_instruction_set_that_is_unknown_is_not_silently_another_one() {
    let output = Command::new(BINARY).args(["summary", "alexnet"]).env("ATROUS_ISA", "avx1024").output();
    let output = output.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("ATROUS_ISA: expected one of `reference`, `portable`"), "{error}");
    assert!(error.contains("got `avx1024`"), "{error}");
}
