//! How the command behaves: JSON as its schemas have it, quiet, exit statuses, completions, manual pages, and
//! folders that are not written over without a word.
#![cfg(feature = "cli")]

#[path = "../command/mod.rs"]
mod command;
mod schema;

use assert_cmd::Command;
use command::{BINARY, done};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status and standard error of a command that prints nothing else.
fn failed(arguments: &[&str]) -> (i32, String) {
    let output = run(arguments);
    let error = text(&output.stderr);
    assert!(output.stdout.is_empty() && error.matches("error: ").count() == 1, "{arguments:?}: {error}");
    (output.status.code().unwrap(), error)
}

/// The document that a command prints, which has to be as its schema has it.
fn document(name: &str, output: &Output) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schemas/{name}.json"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{name}: {error}: {}{}", text(&output.stdout), text(&output.stderr))
    });
    let violations = schema::violations(&schema, &printed);
    assert!(violations.is_empty(), "{name}: {}", violations.join("\n"));
    printed
}

/// The same of one that succeeds.
fn json(name: &str, arguments: &[&str]) -> Value {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    document(name, &output)
}

/// A small data set, and a run of both tasks on it.
fn trained() -> (TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (data, result) = (path("data"), path("result"));
    done(&["data", "make", &data, "--train", "20", "--test", "3", "-q"]);
    for (task, size) in [("classify", "108"), ("segment", "32")] {
        let out = format!("{result}/{task}");
        let options = ["--epochs", "1", "--size", size, "--val-fraction", "0.3"];
        let printed =
            done(&[&["train", task, "--data", &data, "--out", &out, "-q"], &options[..]].concat());
        assert_eq!(printed, "", "--quiet prints nothing but results and errors");
    }
    (folder, data, result)
}

#[test]
fn the_json_of_a_machine_and_of_networks_is_as_its_schema_has_it() {
    let machine = json("doctor", &["doctor", "--json"]);
    assert_eq!(machine["in_use"], "cpu");
    let output = run(&["doctor", "--json", "--device", "cuda:99"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(document("doctor", &output)["in_use"], Value::Null);
    let network = json("summary", &["summary", "alexnet", "--json"]);
    assert_eq!(network["total_params"], 777_695);
    json("summary", &["summary", "mobilenetv2", "--json", "--plan", "train"]);
    json("profile", &["profile", "mobilenet", "--size", "32", "--json"]);
}

#[test]
fn the_json_of_benchmarks_is_as_its_schema_has_it() {
    for (arguments, results) in [
        (&["bench", "ops", "dense/16x512x64", "--json"][..], 1),
        (&["bench", "accuracy", "atrous3x3_d12", "--json"], 1),
        (&["bench", "loader", "alexnet keras", "--need", "1000", "--pictures", "4", "--json"], 2),
        (&["bench", "depthwise_conv2d", "--ladder", "--times", "1", "--json"], 9),
    ] {
        let printed = json("bench", arguments);
        assert_eq!(printed["results"].as_array().unwrap().len(), results, "{arguments:?}: {printed}");
    }
}

#[test]
fn the_json_of_predictions_and_scores_is_as_its_schema_has_it() {
    let (folder, data, result) = trained();
    let evaluate = ["evaluate", "--data", &data, "--checkpoint", &result];
    let out = folder.path().join("scores");
    let printed =
        json("evaluate", &[&evaluate[..], &["--json", "--out", out.to_str().unwrap()]].concat());
    let evaluations = printed["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), 2);
    assert!(evaluations[0]["controls"].is_object() && evaluations[1]["controls"].is_null());
    assert!(!evaluations[0]["examples"].as_array().unwrap().is_empty());
    // What is printed is what is written.
    let written: Value =
        serde_json::from_slice(&fs::read(out.join("evaluation.json")).unwrap()).unwrap();
    assert_eq!(evaluations[1]["scores"], written[1]["scores"]);

    let scores = done(&[&evaluate[..], &["--quiet"]].concat());
    assert!(scores.contains("mean IoU") && !scores.contains("pictures:"), "{scores}");

    let csv = folder.path().join("s.csv");
    let predict = ["predict", "--data", &data, "--checkpoint", &result, "--out", csv.to_str().unwrap()];
    let output = run(&[&predict[..], &["--json"]].concat());
    let printed = document("predict", &output);
    assert_eq!(printed["images"].as_array().unwrap().len(), 3);
    assert!(printed["images"][0]["classes"][0]["probability"].is_number());
    assert!(text(&output.stderr).contains("submission: "), "messages go to standard error");
    let output = run(&[&predict[..], &["--json", "--quiet", "--force"]].concat());
    assert!(output.stderr.is_empty() && document("predict", &output) == printed);
    let (code, error) =
        failed(&["predict", "--data", &data, "--checkpoint", &result, "--json", "--out", "-"]);
    assert!(code == 2 && error.contains("--json: standard output has the submission"), "{error}");
}

#[test]
fn a_folder_is_checked_in_words_in_json_and_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let path = data.to_str().unwrap();
    done(&["data", "make", path, "--train", "2", "--test", "1", "--quiet"]);
    let check = ["data", "check", path];
    assert_eq!(json("check", &[&check[..], &["--json"]].concat())["fine"], true);
    assert_eq!(done(&[&check[..], &["-q"]].concat()), "");

    let table = data.join("train/train_set.csv");
    let rows = fs::read_to_string(&table).unwrap();
    fs::write(&table, rows.replace("bicycle", "bycicle")).unwrap();
    let output = run(&[&check[..], &["--json"]].concat());
    let printed = document("check", &output);
    assert!(output.status.code() == Some(1) && printed["fine"] == false, "{printed}");
    let messages: Vec<&str> = printed["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["message"].as_str().unwrap())
        .collect();
    assert!(messages.iter().any(|message| message.ends_with("did you mean `bicycle`?")), "{messages:?}");
    let output = run(&[&check[..], &["-q"]].concat());
    assert_eq!(text(&output.stdout).lines().count(), messages.len());
}

#[test]
fn the_exit_status_says_what_kind_of_failure_it_was() {
    assert!(run(&["summary", "alexnet"]).status.success());
    for (arguments, code, wanted) in [
        (&["summary", "alexnet", "--size", "4097"][..], 2, "--size"),
        (
            &["train", "classify", "--data", "a", "--out", "b", "--batch-size", "0", "--force"],
            1,
            "--data: a",
        ),
        (&["data", "check", "nowhere"], 1, "nowhere"),
        (&["summary", "alexnet", "--device", "cuda:99"], 1, "device: "),
        (&["summary", "alexnet", "--threads", "0"], 2, "--threads"),
        (&["explain", "none.jpg", "--model", "alexnet"], 1, "none.jpg"),
        (&["bench", "op"], 2, "did you mean `ops`?"),
    ] {
        let (status, error) = failed(arguments);
        assert!(status == code && error.contains(wanted), "{arguments:?}: {status}: {error}");
    }
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    let help = done(&["--help"]);
    for line in ["0    done", "1    failed", "2    not understood", "130  interrupted"] {
        assert!(help.contains(line), "{help}");
    }
}

#[test]
fn what_is_like_a_known_name_is_answered_with_it() {
    let segment = ["train", "segment", "--data", "a", "--out", "b"];
    for (arguments, wanted) in [
        (&["trian"][..], "'train'"),
        (&["summary", "alexnot"], "'alexnet'"),
        (&["summary", "alexnet", "--sise", "3"], "'--size'"),
        (&["attack", "--data", "a", "--checkpoint", "b", "--method", "pdg"], "'pgd'"),
        (&["explain", "a.jpg", "--model", "mobilnet"], "'mobilenet'"),
        (&[&segment[..], &["--preset", "notebok"]].concat(), "'notebook'"),
        (&[&segment[..], &["--optimizer", "adma"]].concat(), "'adam'"),
        (&[&segment[..], &["--augment", "color"]].concat(), "'colour'"),
        (&["bench", "nets", "mobilenetv2_ful"], "`mobilenetv2_full`?"),
        (&["train", "classify", "--device", "cude"], "`cuda`?"),
        (&["completions", "bsh"], "'bash'"),
    ] {
        let (code, error) = failed(arguments);
        assert!(code == 2 && error.contains(wanted), "{arguments:?}: {code}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.toml");
    fs::write(&config, "batchsize = 3\n").unwrap();
    let config = config.to_str().unwrap();
    let (code, error) = failed(&[&segment[..], &["--config", config]].concat());
    assert!(
        code == 1 && error.contains("--config: ") && error.contains("did you mean `batch_size`?"),
        "{error}"
    );
}

#[test]
fn a_layer_that_is_not_there_is_answered_with_one_that_is() {
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images/demo.png");
    let explain = ["explain", image.to_str().unwrap(), "--model", "alexnet", "--out", "never"];
    let (code, error) = failed(&[&explain[..], &["--channel", "conv2d2:1"]].concat());
    assert!(
        code == 2 && error.contains("--channel") && error.contains("did you mean `conv2d_2`?"),
        "{error}"
    );
    assert!(!Path::new("never").exists());
}

#[test]
fn an_output_folder_that_is_not_empty_is_written_to_only_by_force() {
    let (folder, data, result) = trained();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let full = path("full");
    fs::create_dir(&full).unwrap();
    fs::write(format!("{full}/holiday.jpg"), "").unwrap();
    let classifier = format!("{result}/classify");
    let attack =
        ["attack", "--data", &data, "--checkpoint", &classifier, "--method", "fgsm", "--images", "2"];
    let small = ["--size", "108", "--epochs", "1", "--val-fraction", "0.3"];
    let train = [&["train", "classify", "--data", &data][..], &small].concat();
    for command in [&train[..], &["run", "--data", &data], &attack] {
        let (code, error) = failed(&[command, &["--out", &full]].concat());
        assert!(code == 1 && error.contains("it has holiday.jpg"), "{error}");
        assert!(error.contains("--force") && error.contains("another --out"), "{error}");
    }
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    done(&[&attack[..], &["--out", &full, "--force"]].concat());
    assert!(
        Path::new(&full).join("attack.csv").is_file() && Path::new(&full).join("holiday.jpg").is_file()
    );

    // In place of a run the new one begins anew: nothing of the old one is taken for its own.
    let history = || fs::read_to_string(format!("{classifier}/history.csv")).unwrap();
    let again = [&train[..], &["--out", &classifier]].concat();
    let (code, error) = failed(&again);
    assert!(
        code == 1 && error.contains("there is a run already") && error.contains("--force"),
        "{error}"
    );
    fs::write(format!("{classifier}/thresholds.json"), "old").unwrap();
    done(&[&again[..], &["--force"]].concat());
    assert_eq!(history().lines().count(), 2);
    let events = fs::read_to_string(format!("{classifier}/events.jsonl")).unwrap();
    assert_eq!(events.matches(r#""event":"start""#).count(), 1, "{events}");
    assert_eq!(failed(&[&again[..], &["--force", "--resume"]].concat()).0, 2);

    // What is written beside other files is refused only where it is there.
    let scores = ["evaluate", "--data", &data, "--checkpoint", &result, "--out", &result];
    done(&scores);
    let (code, error) = failed(&scores);
    assert!(
        code == 1 && error.contains("scores.txt: it is there already") && error.contains("--force"),
        "{error}"
    );
    done(&[&scores[..], &["--force"]].concat());
}

#[test]
fn errors_are_in_colour_where_that_is_wanted() {
    let error = |variables: &[(&str, &str)]| {
        let mut command = Command::new(BINARY);
        command.args(["data", "check", "nowhere"]).env_remove("NO_COLOR");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        text(&output.stderr)
    };
    assert!(!error(&[]).contains('\x1b'), "a pipe is no terminal");
    assert!(error(&[("CLICOLOR_FORCE", "1")]).contains("\x1b[31merror:"));
    assert!(!error(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).contains('\x1b'));
}

#[test]
fn the_version_is_one_line_in_short_and_says_what_was_built_in_long() {
    let short = done(&["-V"]);
    assert!(short.starts_with(&format!("atrous {}", env!("CARGO_PKG_VERSION"))), "{short}");
    assert_eq!(short.lines().count(), 1);
    let long = done(&["--version"]);
    assert!(long.starts_with(short.trim_end()), "{long}");
    for wanted in ["\ncommit ", "\nbuilt ", "\nfeatures ", "\ncpu ", "cli", "Reference", "(in use)"] {
        assert!(long.contains(wanted), "{wanted}: {long}");
    }
}

/// A shell that is not installed is passed over; what it says of the script otherwise.
fn read_by(shell: &str, script: &str) -> Option<Output> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script");
    fs::write(&path, script).unwrap();
    std::process::Command::new(shell).arg("-n").arg(&path).output().ok()
}

#[test]
fn completions_are_scripts_that_their_shells_can_read() {
    let mut read = 0;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = done(&["completions", shell]);
        for wanted in ["deeplabv3plus", "batch-norm-momentum", "segpgd", "completions"] {
            assert!(script.contains(wanted), "{shell}: {wanted}");
        }
        if ["bash", "zsh", "fish"].contains(&shell)
            && let Some(output) = read_by(shell, &script)
        {
            assert!(output.status.success(), "{shell}: {}", text(&output.stderr));
            read += 1;
        }
    }
    println!("{read} of bash, zsh and fish are here, and read theirs");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man1");
    let man = ["man", "--out", out.to_str().unwrap()];
    done(&man);
    let page = |name: &str| fs::read_to_string(out.join(format!("{name}.1"))).unwrap();
    let names = [
        "atrous",
        "atrous-train",
        "atrous-train-classify",
        "atrous-data-check",
        "atrous-weights-inspect",
    ];
    for name in names {
        let page = page(name);
        assert!(page.contains(&format!(".TH {name} 1")) && page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(page("atrous-train-classify").contains("deeplabv3plus"));
    assert!(page("atrous").contains("130"), "the exit status");
    assert_eq!(done(&["man"]), page("atrous"));
    let (code, error) = failed(&man);
    assert!(code == 1 && error.contains("there already"), "{error}");
    done(&[&man[..], &["--force"]].concat());
    // (Where mandoc is here it finds no mistake; it warns of style.)
    for page in fs::read_dir(&out).unwrap().map(|page| page.unwrap().path()) {
        let lint =
            std::process::Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&page).output();
        if let Ok(lint) = lint {
            assert!(lint.status.success(), "{}: {}", page.display(), text(&lint.stdout));
        }
    }
}
