//! How runs end that do not go to their end, and what is left of them.

use super::log::check_schema;
use super::pty::{signal, wait_until};
use super::{atrous, data, lines, named, succeeded, text, train};
use serde_json::Value;
use std::fs;
use std::process::Stdio;

#[test]
fn a_run_that_was_killed_leaves_whole_lines_and_goes_on_below_them() {
    let folder = data();
    let folder = folder.path();
    let file = folder.join("net/events.jsonl");
    let more = ["--checkpoint-steps", "1"];
    let mut run = atrous(folder, &train("net", "500", &more)).stdout(Stdio::null()).spawn().unwrap();
    wait_until("an epoch", || fs::read_to_string(&file).is_ok_and(|text| text.contains(r#""epoch","#)));
    run.kill().unwrap();
    run.wait().unwrap();
    let left = fs::read(&file).unwrap();
    lines(&left).iter().for_each(check_schema);
    let frame = text(&succeeded(atrous(folder, &["watch", "net", "--once"]).output().unwrap()).stdout);
    assert!(frame.contains("alexnet") && frame.contains("saved after epoch"), "{frame}");
    // A report is made of what is there.
    assert!(!folder.join("net/report.html").exists());
    succeeded(atrous(folder, &["report", "net"]).output().unwrap());
    let epochs = named(&lines(&left), "epoch").len();
    let page = fs::read_to_string(folder.join("net/report.html")).unwrap();
    let killed = format!("Killed after epoch {epochs} of 500, step ");
    assert!(page.contains(&killed), "{killed}");
    let history = fs::read(folder.join("net/history.json")).unwrap();
    let history: Value = serde_json::from_slice(&history).unwrap();
    assert_eq!(history.as_array().unwrap().len(), epochs);

    let mut run = atrous(folder, &["train", "classify", "--data", "data", "--out", "net", "--resume"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let resumed = || fs::read(&file).unwrap().len() > left.len() + 2000;
    wait_until("events of the resumed run", resumed);
    signal(&run, libc::SIGINT);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let all = fs::read(&file).unwrap();
    assert!(all.starts_with(&left));
    let more = lines(&all[left.len()..]);
    more.iter().for_each(check_schema);
    assert!(
        more[0]["event"] == "start" && more[0]["resumed"]["epoch"].as_u64() >= Some(1),
        "{:?}",
        more[0]
    );
    assert_eq!(more.last().unwrap()["event"], "interrupted");
    let frame = text(&succeeded(atrous(folder, &["watch", "net", "--once"]).output().unwrap()).stdout);
    assert!(frame.contains("stopped after epoch"), "{frame}");
}

#[test]
fn an_interrupted_run_leaves_a_report_that_says_after_which_epoch() {
    let folder = data();
    let folder = folder.path();
    let whole = ["run", "--data", "data", "--out", "all", "--task", "classify", "--epochs", "500"];
    let whole = [&whole[..], &["--classify", "size=118", "--classify", "batch-size=4"]].concat();
    let alone = train("net", "500", &[]);
    for (command, out, number, part) in
        [(alone, "net", libc::SIGTERM, ""), (whole, "all", libc::SIGINT, "classify")]
    {
        let run = folder.join(out).join(part);
        let mut child = atrous(folder, &command);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let events = || fs::read_to_string(run.join("events.jsonl")).unwrap_or_default();
        wait_until("an epoch", || events().contains(r#""epoch","#));
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let history: Value =
            serde_json::from_slice(&fs::read(run.join("history.json")).unwrap()).unwrap();
        let epochs = history.as_array().unwrap().len();
        let report = folder.join(out).join("report.html");
        let page = fs::read(&report).unwrap();
        let said = format!("Interrupted after epoch {epochs} of 500, step ");
        assert!(text(&page).contains(&said), "{said}");
        fs::remove_file(&report).unwrap();
        succeeded(atrous(folder, &["report", out]).output().unwrap());
        assert!(fs::read(&report).unwrap() == page, "made again it is another");
    }
}

#[test]
fn watch_shows_a_run_that_is_over_and_says_where_there_is_none() {
    let folder = data();
    let folder = folder.path();
    let run = [
        "run",
        "--data",
        "data",
        "--out",
        "all",
        "--task",
        "classify",
        "--epochs",
        "1",
        "--attack-images",
        "0",
    ];
    let small = ["--classify", "size=118", "--classify", "batch-size=4", "--tui"];
    let output = succeeded(atrous(folder, &[&run[..], &small].concat()).output().unwrap());
    assert!(text(&output.stdout).contains("note: --tui needs a terminal on standard output"));
    let frame = text(&succeeded(atrous(folder, &["watch", "all", "--once"]).output().unwrap()).stdout);
    let rows: Vec<&str> = frame.lines().collect();
    assert!(rows.len() == 24 && rows[0].starts_with("alexnet · classify · "), "{frame}");
    assert!(rows[1].starts_with("epoch 1/1 · step ") && rows[23] == "done", "{frame}");
    let none = atrous(folder, &["watch", "data", "--once"]).output().unwrap();
    assert!(text(&none.stderr).contains("no events.jsonl in it"), "{}", text(&none.stderr));
    let no_terminal = atrous(folder, &["watch", "all"]).output().unwrap();
    assert!(
        text(&no_terminal.stderr).contains("--once prints one frame"),
        "{}",
        text(&no_terminal.stderr)
    );
}
