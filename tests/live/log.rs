//! Logs of JSON, on standard output and in the run's folder.

use super::{atrous, data, lines, named, succeeded, text, train};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;

/// What `docs/events.md` says of each event: key → type.
fn documented() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut events: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut event = String::new();
    for line in include_str!("../../docs/events.md").lines() {
        if let Some(name) = line.strip_prefix("## ") {
            event = name.to_owned();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", key, kind, _, ""] = cells[..]
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            events.entry(event.clone()).or_default().insert(key.into(), kind.into());
        }
    }
    events
}

/// The keys of an object, those of objects in it behind a dot; settings are as they are.
fn keys(object: &Map<String, Value>, before: &str, all: &mut BTreeMap<String, Value>) {
    for (key, value) in object {
        let name = format!("{before}{key}");
        if let (Value::Object(inner), true) = (value, name != "settings") {
            keys(inner, &format!("{name}."), all);
        }
        all.insert(name, value.clone());
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    kind.split(" or ").any(|kind| match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => panic!("`{kind}` is no type"),
    })
}

pub fn check_schema(line: &Map<String, Value>) {
    let events = documented();
    let name = line["event"].as_str().unwrap();
    let expected = events.get(name).unwrap_or_else(|| panic!("`{name}` is not documented"));
    let mut got = BTreeMap::new();
    keys(line, "", &mut got);
    assert!(got.remove("time").unwrap().as_f64().unwrap() > 1.6e9 && got.remove("event").is_some());
    for (key, value) in &got {
        let kind = expected.get(key).unwrap_or_else(|| panic!("`{name}.{key}` is not documented"));
        assert!(is_of(value, kind), "`{name}.{key}`: expected {kind}, got {value}");
    }
    // What is in an object that may be null is missing with it.
    let missing = expected.keys().find(|key| {
        let outer = key.split('.').next().unwrap();
        !got.contains_key(*key) && !got.get(outer).is_some_and(Value::is_null)
    });
    assert_eq!(missing, None, "of `{name}`");
}

#[test]
fn a_log_of_json_is_as_documented_and_nothing_else_is_printed() {
    let folder = data();
    let folder = folder.path();
    let json = ["--log-format", "json", "--tensorboard", "board"];
    let trained = succeeded(atrous(folder, &train("net", "2", &json)).output().unwrap());
    let log = lines(&trained.stdout);
    log.iter().for_each(check_schema);
    assert_eq!(log.last().unwrap()["event"], "done");
    let history: Value =
        serde_json::from_slice(&fs::read(folder.join("net/history.json")).unwrap()).unwrap();
    let epochs = named(&log, "epoch");
    assert_eq!(epochs.len(), 2);
    for (event, row) in epochs.iter().zip(history.as_array().unwrap()) {
        let row = row.as_object().unwrap();
        assert!(row.iter().all(|(key, value)| event[key] == *value), "{event:?} {row:?}");
    }
    let start = named(&log, "start")[0];
    assert_eq!(
        (&start["training_images"], &start["steps"], &start["resumed"]),
        (&8.into(), &2.into(), &Value::Null)
    );
    assert!(
        start["settings"]["learning_rate"].is_number() && start["settings"].get("samples").is_none()
    );
    for name in ["step", "checkpoint", "panel", "message"] {
        assert!(!named(&log, name).is_empty(), "{name}");
    }
    assert!(named(&log, "checkpoint").iter().any(|event| event["best"] == true && event["epoch"] == 1));
    // The same is in the run's folder, without what is only printed.
    let kept = lines(&fs::read(folder.join("net/events.jsonl")).unwrap());
    let told = log.iter().filter(|line| {
        line["event"] != "message" && line["event"] != "done" && line["event"] != "progress"
    });
    assert!(told.eq(kept.iter().filter(|line| line["event"] != "done")), "{kept:#?}");
    assert_eq!(kept.last().unwrap()["event"], "done");

    for command in [
        &["evaluate", "--data", "data", "--checkpoint", "net", "--log-format", "json"][..],
        &["predict", "--data", "data", "--checkpoint", "net", "--out", "s.csv", "--log-format", "json"],
    ] {
        let log = lines(&succeeded(atrous(folder, command).output().unwrap()).stdout);
        log.iter().for_each(check_schema);
        let progress = named(&log, "progress");
        assert!(progress.iter().any(|event| event["done"] == event["of"]), "{command:?} {log:?}");
        assert_eq!(log.last().unwrap()["event"], "done");
    }
    // Rows have standard output.
    let rows =
        ["predict", "--data", "data", "--checkpoint", "net", "--out", "-", "--log-format", "json"];
    let output = succeeded(atrous(folder, &rows).output().unwrap());
    assert_eq!(text(&output.stdout).lines().count(), 7);
    lines(&output.stderr).iter().for_each(check_schema);

    let output = atrous(folder, &train("net", "2", &json)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = lines(&output.stdout);
    check_schema(log.last().unwrap());
    let message = log.last().unwrap()["message"].as_str().unwrap();
    assert!(log.last().unwrap()["event"] == "error" && message.contains("there is a run already"));
    assert!(text(&output.stderr).starts_with("error: "), "{}", text(&output.stderr));
}

#[test]
fn a_pipeline_s_log_of_json_is_as_documented_from_its_data_to_its_attacks() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let of = |command: &[&str], tasks: &[&str]| {
        let command = [command, &["--log-format", "json"]].concat();
        let log = lines(&succeeded(atrous(folder, &command).output().unwrap()).stdout);
        log.iter().for_each(check_schema);
        let starts = named(&log, "start").into_iter().map(|start| start["task"].as_str().unwrap());
        assert!(starts.eq(tasks.iter().copied()), "{command:?}");
        let last = log.last().unwrap();
        assert!(last["event"] == "done" && named(&log, "done").len() == 1, "{last:?}");
    };
    let demo = ["demo", "--out", "demo", "--train", "20", "--test", "2"];
    of(&[&demo[..], &["--epochs", "1", "--mask-epochs", "1"]].concat(), &["classify", "segment"]);
    let of_demo = ["--data", "demo/data", "--checkpoint", "demo"];
    let attack = ["--checkpoint", "demo/classify", "--images", "2", "--steps", "1", "--out", "attack"];
    of(&[&["attack", "--data", "demo/data"], &attack[..]].concat(), &[]);
    of(&[&["evaluate"], &of_demo[..], &["--out", "scores"]].concat(), &[]);
    of(&[&["predict"], &of_demo[..], &["--out", "submission.csv"]].concat(), &[]);
}

#[test]
fn who_watches_changes_no_bit() {
    let folder = data();
    let folder = folder.path();
    succeeded(atrous(folder, &train("alone", "2", &[])).output().unwrap());
    let watched = ["--tensorboard", "board", "--log-format", "json"];
    succeeded(atrous(folder, &train("watched", "2", &watched)).output().unwrap());
    for file in
        ["checkpoint.safetensors", "best.safetensors", "history.csv", "thresholds.json", "panel.png"]
    {
        let [alone, watched] =
            ["alone", "watched"].map(|run| fs::read(folder.join(run).join(file)).unwrap());
        assert!(alone == watched, "{file}");
    }
    assert!(!folder.join("alone/live.png").exists(), "nobody asked for it");
}

#[test]
fn a_folder_that_cannot_hold_what_is_asked_for_is_refused_before_any_work() {
    let folder = data();
    let folder = folder.path();
    fs::write(folder.join("file"), "").unwrap();
    let refused = |more: &[&str], wanted: &str| {
        let output = atrous(folder, &train("net", "1", more)).output().unwrap();
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(1) && error.contains(wanted), "{error}");
        assert!(!folder.join("net/checkpoint.safetensors").exists());
    };
    refused(&["--tensorboard", "file"], "it is there already, and not a folder");
    refused(&["--tui", "--log-format", "json"], "leave one out");
    fs::create_dir_all(folder.join("net/events.jsonl")).unwrap();
    refused(&[], "events.jsonl: could not be written: it is a folder");
}
