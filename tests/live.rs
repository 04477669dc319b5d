//! Runs that are watched: what they print, what they leave, and what a terminal sees.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use atrous::live::tensorboard::{self, messages::What};
use atrous::live::{EventReader, LogEvent, Screen, terminal};
use command::{BINARY, done};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Twelve training and three test images in `data`.
fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    done(&["data", "make", path.to_str().unwrap(), "--train", "12", "--test", "3"]);
    folder
}

/// The command in a folder, on one thread.
fn atrous(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(["--threads", "1"]).args(arguments).current_dir(folder);
    command
}

/// A small run into `out`.
fn train<'a>(out: &'a str, epochs: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let small = ["--size", "118", "--val-fraction", "0.34", "--batch-size", "4"];
    let command = ["train", "classify", "--data", "data", "--out", out, "--epochs", epochs];
    [&command[..], &small, more].concat()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: Output) -> Output {
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// A log of JSON and nothing else.
fn lines(output: &[u8]) -> Vec<Map<String, Value>> {
    let object = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text(output).lines().map(object).collect()
}

fn named<'a>(lines: &'a [Map<String, Value>], name: &str) -> Vec<&'a Map<String, Value>> {
    lines.iter().filter(|line| line["event"] == name).collect()
}

/// What `docs/events.md` says of each event: key → type.
fn documented() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut events: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut event = String::new();
    for line in include_str!("../docs/events.md").lines() {
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

fn check_schema(line: &Map<String, Value>) {
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
fn event_files_of_tensorboard_have_scalars_images_and_histograms() {
    let folder = data();
    let folder = folder.path();
    succeeded(atrous(folder, &train("net", "2", &["--tensorboard", "a/board"])).output().unwrap());
    let mut files = fs::read_dir(folder.join("a/board")).unwrap();
    let events = tensorboard::read(files.next().unwrap().unwrap().path()).unwrap();
    assert!(files.next().is_none());
    let mut tags: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events {
        if let Some(What::Summary(summary)) = event.what {
            for value in summary.value {
                tags.entry(value.tag).or_default().push(event.step);
            }
        }
    }
    for tag in ["loss/train", "loss/validation", "predictions", "conv2d/kernel", "conv2d/bias"] {
        assert_eq!(tags.get(tag).map(Vec::as_slice), Some(&[1, 2][..]), "{tag} of {:?}", tags.keys());
    }
    assert_eq!(tags["step/loss"].last(), Some(&4));
}

#[test]
#[ignore = "needs tensorboard"]
fn tensorboard_itself_reads_the_historys_values() {
    let folder = data();
    let folder = folder.path();
    succeeded(atrous(folder, &train("net", "3", &["--tensorboard", "board"])).output().unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tensorboard.py");
    let output = Command::new("python3").arg(script).args(["board", "net"]).current_dir(folder).output();
    println!("{}", text(&succeeded(output.unwrap()).stdout));
}

#[test]
fn a_folder_that_cannot_hold_what_is_asked_for_is_refused_before_any_work() {
    let folder = data();
    let folder = folder.path();
    fs::write(folder.join("file"), "").unwrap();
    let refused = |more: &[&str], wanted: &str| {
        let output = atrous(folder, &train("net", "1", more)).output().unwrap();
        let error = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)) && error.contains(wanted), "{error}");
        assert!(!folder.join("net/checkpoint.safetensors").exists());
    };
    refused(&["--tensorboard", "file"], "it is there already, and not a folder");
    refused(&["--tui", "--log-format", "json"], "leave one out");
    fs::create_dir_all(folder.join("net/events.jsonl")).unwrap();
    refused(&["--force"], "events.jsonl: could not be written: it is a folder");
}

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

    let mut run = atrous(folder, &["train", "classify", "--data", "data", "--out", "net", "--resume"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let resumed = || fs::read(&file).unwrap().len() > left.len() + 2000;
    wait_until("events of the resumed run", resumed);
    interrupt(&run);
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

fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !there() {
        assert!(began.elapsed() < Duration::from_secs(300), "no {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn interrupt(child: &Child) {
    // SAFETY: a signal to a process that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
}

/// A terminal of 100 × 30 characters with a program on it.
struct Terminal {
    keyboard: File,
    /// The program's side, held open to be asked for its settings.
    own: File,
    settings: [u32; 4],
    screen: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    child: Child,
}

const ENTERED: &str = "\x1b[?1049h";
const LEFT: &str = "\x1b[?1049l";

impl Terminal {
    fn run(mut command: Command) -> Self {
        let size = libc::winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let (mut master, mut slave, none) = (0, 0, std::ptr::null_mut());
        // SAFETY: two numbers are written; name and settings are not wanted.
        let opened = unsafe { libc::openpty(&mut master, &mut slave, none, none.cast(), &size) };
        assert_eq!(opened, 0);
        // SAFETY: both were just opened, and nobody else has them.
        let (master, own) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        let settings = settings(&own);
        let side = || Stdio::from(own.try_clone().unwrap());
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        drop(command);
        let (mut source, screen) = (master.try_clone().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let seen = screen.clone();
        let reader = thread::spawn(move || {
            let mut block = [0; 4096];
            // (Once nobody holds the other side any more, reading is an error.)
            while let Ok(n @ 1..) = source.read(&mut block) {
                seen.lock().unwrap().extend(&block[..n]);
            }
        });
        Terminal { keyboard: master, own, settings, screen, reader, child }
    }

    fn wait_for(&self, what: &str) {
        wait_until(what, || text(&self.screen.lock().unwrap()).contains(what));
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits for the program's end: its exit code, and what it wrote after it had given the terminal back as
    /// it was.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        assert_eq!(settings(&self.own), self.settings, "the terminal's settings");
        drop(self.own);
        self.reader.join().unwrap();
        let screen = text(&self.screen.lock().unwrap());
        let (drawn, after) = screen.rsplit_once(LEFT).unwrap_or_else(|| panic!("not left: {screen:?}"));
        assert!(drawn.contains(ENTERED) && !after.contains(ENTERED), "{screen:?}");
        assert!(after.starts_with("\x1b[?25h"), "the cursor is not shown: {after:?}");
        (code, after.to_owned())
    }
}

/// Of a terminal: echo, lines, signals and the like.
fn settings(terminal: &File) -> [u32; 4] {
    let mut termios = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: the settings are written, and read only if they were.
    let termios = unsafe {
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), termios.as_mut_ptr()), 0);
        termios.assume_init()
    };
    [termios.c_iflag, termios.c_oflag, termios.c_cflag, termios.c_lflag]
}

#[test]
fn q_saves_as_ctrl_c_does_and_gives_the_terminal_back() {
    let folder = data();
    let folder = folder.path();
    for (out, keys) in [("a", "q"), ("b", "\x03")] {
        let mut terminal = Terminal::run(atrous(folder, &train(out, "500", &["--tui"])));
        terminal.wait_for("▀");
        terminal.press(keys.as_bytes());
        let (code, after) = terminal.end();
        assert_eq!(code, Some(130), "{after}");
        assert!(
            after.contains("epoch   1/500  loss") && after.contains("go on with --resume"),
            "{after}"
        );
        assert!(folder.join(out).join("checkpoint.safetensors").is_file());
        let events = EventReader::new(folder.join(out).join("events.jsonl")).read().unwrap();
        assert!(matches!(events.last().unwrap().event, LogEvent::Interrupted { .. }), "{events:?}");
    }
}

#[test]
fn a_signal_and_an_error_give_the_terminal_back() {
    let folder = data();
    let folder = folder.path();
    let terminal = Terminal::run(atrous(folder, &train("a", "500", &["--tui"])));
    terminal.wait_for("alexnet");
    // (Twice: at once.)
    interrupt(&terminal.child);
    thread::sleep(Duration::from_millis(10));
    interrupt(&terminal.child);
    assert_eq!(terminal.end().0, Some(130));

    let diverges = ["--tui", "--optimizer", "sgd", "--learning-rate", "1e30"];
    let (code, after) = Terminal::run(atrous(folder, &train("b", "9", &diverges))).end();
    assert!(code == Some(1) && after.contains("error: training diverged"), "{after}");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "--nocapture", "panics_on_a_screen"]).env(PANICS, "1");
    let (code, after) = Terminal::run(child).end();
    assert!(code == Some(101) && after.contains("on purpose"), "{after}");
}

/// Set for the process of the test above.
const PANICS: &str = "ATROUS_TEST_PANICS";

#[test]
#[ignore = "a process for the test above to start, on a terminal of its own"]
fn panics_on_a_screen() {
    if std::env::var_os(PANICS).is_none() {
        return;
    }
    let _screen = Screen::open(Path::new("."), || {}, || "").unwrap();
    assert!(terminal::is_active());
    panic!("on purpose");
}

#[test]
fn watch_draws_on_a_terminal_and_leaves_it_with_q() {
    let folder = data();
    let folder = folder.path();
    succeeded(atrous(folder, &train("net", "1", &["--tensorboard", "board"])).output().unwrap());
    let mut terminal = Terminal::run(atrous(folder, &["watch", "net"]));
    terminal.wait_for("leave");
    terminal.wait_for("▀");
    terminal.press(b"q");
    assert_eq!(terminal.end().0, Some(0));
}
