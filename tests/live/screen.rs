//! What a terminal is sent, and that it is given back as it was.

use super::pty::{Terminal, signal, wait_until};
use super::{atrous, data, sixels, succeeded, train};
use atrous::data::image_files::read_image;
use atrous::data::{Image, synthetic};
use atrous::live::{EventReader, LogEvent, Screen, Sixels, terminal};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

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
    // (On the display: its name alone is printed before that.)
    terminal.wait_for(" · classify");
    // (Twice: at once.)
    signal(&terminal.child, libc::SIGINT);
    thread::sleep(Duration::from_millis(10));
    signal(&terminal.child, libc::SIGINT);
    assert_eq!(terminal.end().0, Some(130));

    let diverges = ["--tui", "--optimizer", "sgd", "--learning-rate", "1e30"];
    let (code, after) = Terminal::run(atrous(folder, &train("b", "9", &diverges))).end();
    assert!(code == Some(1) && after.contains("training diverged"), "{after}");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_told() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "--nocapture", "screen::panics_on_a_screen"]).env(PANICS, "1");
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

#[test]
fn sixels_decode_to_the_image_but_for_their_256_colours() {
    // As large as its area: 16 × 6 characters of 10 × 20 pixels.
    let (width, height) = (160, 120);
    let photo = synthetic::generate(5, 0).image;
    let rgb: Vec<u8> =
        (0..height).flat_map(|y| photo.rgb[3 * y * photo.width..][..3 * width].to_vec()).collect();
    let image = Image::new(height, width, rgb).unwrap();
    let area = Rect::new(0, 0, 16, 6);
    let mut buffer = Buffer::empty(area);
    Sixels { image: &image, tiles: 1, cell: (10, 20) }.render(area, &mut buffer);
    let drawn = &sixels::decode_all(buffer[(0, 0)].symbol())[0];
    assert_eq!((drawn.width, drawn.pixels.len()), (width, width * height));
    let drawn = drawn.pixels.iter().flat_map(|pixel| pixel.expect("a pixel that nothing is said of"));
    let off: Vec<f64> = drawn.zip(&image.rgb).map(|(a, &b)| (a as f64 - b as f64).abs()).collect();
    let mean = off.iter().sum::<f64>() / off.len() as f64;
    let worst = off.iter().copied().fold(0.0, f64::max);
    println!("mean {mean:.2}, at most {worst}");
    assert!(mean < 2.5 && worst < 48.0, "mean {mean}, worst {worst}");
}

/// What a terminal answers that shows sixels, of characters of 10 × 20 pixels.
const SHOWS_SIXELS: &[u8] = b"\x1b[6;20;10t\x1b[?62;4;22c";

#[test]
fn a_terminal_that_says_it_shows_sixels_is_sent_the_last_panel_as_sixels() {
    let folder = data();
    let folder = folder.path();
    succeeded(atrous(folder, &train("net", "1", &["--tensorboard", "board"])).output().unwrap());
    let mut terminal = Terminal::run(atrous(folder, &["watch", "net"]));
    terminal.wait_for("\x1b[c");
    terminal.press(SHOWS_SIXELS);
    let drawn = || sixels::decode_all(&terminal.seen());
    wait_until("four tiles", || drawn().len() == 4);
    let (drawn, panel) = (drawn(), read_image(folder.join("net/live.png")).unwrap());
    assert!(!terminal.seen().contains('▀'));
    terminal.press(b"q");
    assert_eq!(terminal.end().0, Some(0));
    for (tile, drawn) in drawn.iter().enumerate() {
        let (side, height) = (panel.height, drawn.pixels.len() / drawn.width);
        assert!(drawn.width > side && height > side, "it is drawn larger");
        // Each pixel is the mean of the panel's that it lies on.
        let covered = |at: usize, of: usize| at * side / of..((at + 1) * side).div_ceil(of);
        let mut off = 0.0;
        for (i, pixel) in drawn.pixels.iter().enumerate() {
            let (rows, columns) =
                (covered(i / drawn.width, height), covered(i % drawn.width, drawn.width));
            let count = (rows.len() * columns.len()) as f64;
            for (channel, value) in pixel.unwrap().into_iter().enumerate() {
                let of_row = |y: usize| {
                    let at = move |x: usize| 3 * (y * panel.width + tile * side + x) + channel;
                    columns.clone().map(at)
                };
                let sum: f64 = rows.clone().flat_map(of_row).map(|at| panel.rgb[at] as f64).sum();
                off += (value as f64 - sum / count).abs();
            }
        }
        let mean = off / (3 * drawn.pixels.len()) as f64;
        println!("tile {tile}: {mean:.2}");
        assert!(mean < 3.0, "tile {tile}: {mean}");
    }
}

#[test]
fn the_environment_decides_against_the_terminal() {
    let folder = data();
    let folder = folder.path();
    succeeded(atrous(folder, &train("net", "1", &["--tensorboard", "board"])).output().unwrap());
    let watch = |graphics: &str| {
        let mut command = atrous(folder, &["watch", "net"]);
        command.env("ATROUS_GRAPHICS", graphics);
        Terminal::run(command)
    };
    let mut blocks = watch("blocks");
    blocks.wait_for("▀");
    assert!(!blocks.seen().contains("\x1b[c"), "it was asked");
    blocks.press(b"q");
    assert_eq!(blocks.end().0, Some(0));
    let mut sixel = watch("sixel");
    sixel.wait_for("\x1bP0;1q");
    sixel.press(b"q");
    assert_eq!(sixel.end().0, Some(0));
    let mut wrong = watch("vector");
    wrong.wait_for("ATROUS_GRAPHICS: expected sixel or blocks, got `vector`");
    assert_eq!(wrong.child.wait().unwrap().code(), Some(2));
}
